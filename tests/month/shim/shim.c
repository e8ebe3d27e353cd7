// This library is preloaded into an exporter. It makes clocks and the timeouts of epoll_wait follow a virtual clock in
// shared memory. It also counts the bytes on TCP sockets, so that the driver moves the clock only while nothing is in
// flight. The structs must match those in internal/vtime/process.go.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define MAX_THREADS 64
#define MAX_SOCKETS 65536
#define SECOND 1000000000LL
// A thread that polls SPINS consecutive times without an event is in a loop that waits for time to pass. Virtual time
// passes only while all threads sleep, so the loop would never end. Therefore, the thread sleeps for SPIN_PAUSE ms.
#define SPINS 200
#define SPIN_PAUSE 5
// Monotonic time starts well above zero, so that an exporter can subtract from it.
#define MONOTONIC_START (100000LL * SECOND)

struct thread {
    _Atomic int64_t used, waiting, deadline, wakes;
};

struct shared {
    _Atomic int64_t now, start, sent, received, threads;
    int64_t pad[3];
    struct thread t[MAX_THREADS];
};

static struct shared *shared;
static char directory[512];
static char is_socket[MAX_SOCKETS];
static __thread int my_thread = -1, my_fifo = -1, idle_polls;

// Returns the library function that this file overrides with a function of the same name.
#define ORIGINAL(name) \
    ({ \
        static __typeof__(name) *found; \
        if (!found) found = (__typeof__(name) *)dlsym(RTLD_NEXT, #name); \
        found; \
    })

__attribute__((constructor)) static void attach(void) {
    char path[600];
    const char *dir = getenv("VT_DIR");
    if (!dir) return;
    snprintf(directory, sizeof directory, "%s", dir);
    snprintf(path, sizeof path, "%s/shm", directory);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *memory = mmap(0, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (memory != MAP_FAILED) shared = memory;
}

static int64_t now(void) { return atomic_load(&shared->now); }

static int put(struct timespec *to, int64_t at) {
    to->tv_sec = at / SECOND;
    to->tv_nsec = at % SECOND;
    return 0;
}

int clock_gettime(clockid_t clock, struct timespec *to) {
    if (shared) switch (clock) {
        case CLOCK_REALTIME:
        case CLOCK_REALTIME_COARSE:
            return put(to, now());
        case CLOCK_MONOTONIC:
        case CLOCK_MONOTONIC_COARSE:
        case CLOCK_MONOTONIC_RAW:
        case CLOCK_BOOTTIME:
            return put(to, now() - atomic_load(&shared->start) + MONOTONIC_START);
        }
    return ORIGINAL(clock_gettime)(clock, to);
}

int gettimeofday(struct timeval *to, void *zone) {
    if (!shared) return ORIGINAL(gettimeofday)(to, zone);
    to->tv_sec = now() / SECOND;
    to->tv_usec = now() % SECOND / 1000;
    return 0;
}

time_t time(time_t *to) {
    if (!shared) return ORIGINAL(time)(to);
    time_t seconds = now() / SECOND;
    if (to) *to = seconds;
    return seconds;
}

static void register_thread(void) {
    char path[600];
    my_thread = atomic_fetch_add(&shared->threads, 1);
    if (my_thread >= MAX_THREADS) abort();
    snprintf(path, sizeof path, "%s/fifo.%d", directory, my_thread);
    mkfifo(path, 0600);
    my_fifo = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    atomic_store(&shared->t[my_thread].used, 1);
}

int epoll_wait(int epoll, struct epoll_event *events, int max, int timeout) {
    if (!shared) return ORIGINAL(epoll_wait)(epoll, events, max, timeout);
    if (timeout == 0) {
        int ready = ORIGINAL(epoll_wait)(epoll, events, max, 0);
        if (ready != 0) idle_polls = 0;
        if (ready != 0 || ++idle_polls < SPINS) return ready;
        timeout = SPIN_PAUSE;
    }
    idle_polls = 0;
    if (my_thread < 0) register_thread();
    struct thread *me = &shared->t[my_thread];
    int64_t deadline = timeout < 0 ? INT64_MAX : now() + timeout * 1000000LL;
    atomic_store(&me->deadline, deadline);
    for (;;) {
        int ready = ORIGINAL(epoll_wait)(epoll, events, max, 0);
        if (ready != 0) return ready;
        if (now() >= deadline) return 0;
        atomic_store(&me->waiting, 1);
        struct pollfd fds[2] = {{epoll, POLLIN, 0}, {my_fifo, POLLIN, 0}};
        int woken = ppoll(fds, 2, 0, 0);
        atomic_store(&me->waiting, 0);
        atomic_fetch_add(&me->wakes, 1);
        if (woken < 0 && errno == EINTR) return -1;
        if (fds[1].revents) {
            char buffer[64];
            while (ORIGINAL(read)(my_fifo, buffer, sizeof buffer) > 0) {
            }
        }
    }
}

int epoll_pwait(int epoll, struct epoll_event *events, int max, int timeout, const sigset_t *mask) {
    if (!mask) return epoll_wait(epoll, events, max, timeout);
    return ORIGINAL(epoll_pwait)(epoll, events, max, timeout, mask);
}

static void mark(int fd, char as) {
    if (shared && fd >= 0 && fd < MAX_SOCKETS) is_socket[fd] = as;
}

int connect(int fd, const struct sockaddr *to, socklen_t size) {
    if (to->sa_family == AF_INET) mark(fd, 1);
    return ORIGINAL(connect)(fd, to, size);
}

int accept4(int listener, struct sockaddr *from, socklen_t *size, int flags) {
    int fd = ORIGINAL(accept4)(listener, from, size, flags);
    mark(fd, 1);
    return fd;
}

int close(int fd) {
    mark(fd, 0);
    return ORIGINAL(close)(fd);
}

static ssize_t count(int fd, ssize_t bytes, _Atomic int64_t *counter) {
    if (bytes > 0 && fd >= 0 && fd < MAX_SOCKETS && is_socket[fd]) atomic_fetch_add(counter, bytes);
    return bytes;
}

#define SENT(fd, call) (shared ? count(fd, call, &shared->sent) : (call))
#define RECEIVED(fd, call) (shared ? count(fd, call, &shared->received) : (call))

ssize_t send(int fd, const void *b, size_t n, int flags) { return SENT(fd, ORIGINAL(send)(fd, b, n, flags)); }
ssize_t write(int fd, const void *b, size_t n) { return SENT(fd, ORIGINAL(write)(fd, b, n)); }
ssize_t writev(int fd, const struct iovec *v, int n) { return SENT(fd, ORIGINAL(writev)(fd, v, n)); }
ssize_t sendmsg(int fd, const struct msghdr *m, int flags) { return SENT(fd, ORIGINAL(sendmsg)(fd, m, flags)); }
ssize_t read(int fd, void *b, size_t n) { return RECEIVED(fd, ORIGINAL(read)(fd, b, n)); }
ssize_t readv(int fd, const struct iovec *v, int n) { return RECEIVED(fd, ORIGINAL(readv)(fd, v, n)); }
ssize_t recvmsg(int fd, struct msghdr *m, int flags) { return RECEIVED(fd, ORIGINAL(recvmsg)(fd, m, flags)); }
ssize_t recv(int fd, void *b, size_t n, int flags) {
    ssize_t received = ORIGINAL(recv)(fd, b, n, flags);
    if (shared && !(flags & MSG_PEEK)) count(fd, received, &shared->received);
    return received;
}
