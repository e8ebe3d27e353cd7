package vtime

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const (
	// maxThreads equals MAX_THREADS in shim.c.
	maxThreads = 64
	// shmSize is the size of the shared memory in bytes, a multiple of the page size.
	shmSize = 8192
	// listenTimeout is the real time within which an exporter must start to listen.
	listenTimeout = 20 * time.Second
	// stopTimeout is the real time within which an exporter must exit after SIGTERM.
	stopTimeout = 20 * time.Second
	// stopStep is the step of the clock while an exporter stops.
	stopStep = 200 * time.Millisecond
	// maxWakeChecks limits how often wake checks whether a thread has woken. All checks together take about two seconds.
	maxWakeChecks = 200_000
)

// thread and shared mirror the structs in shim.c.
type thread struct{ used, waiting, deadline, wakes int64 }

type shared struct {
	now, start, sent, received, threads int64
	_                                   [3]int64
	t                                   [maxThreads]thread
}

// Process is an exporter that uses the virtual clock.
type Process struct {
	// Address is the listen address.
	Address string

	dir     string
	cmd     *exec.Cmd
	shm     *shared
	fifos   [maxThreads]int
	dead    atomic.Bool
	started time.Time
}

// Command describes how to start an exporter.
type Command struct {
	Program string
	Args    []string
	Env     []string
	Address string // listen address in Args
	Shim    string
	Dir     string // directory for shared memory
	Log     string // file to which its output is appended
}

// Start starts an exporter and waits until it listens.
func (c *Clock) Start(command Command) (*Process, error) {
	p := &Process{Address: command.Address, dir: command.Dir, started: time.Now()}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return nil, err
	}
	if err := p.mapSharedMemory(c.now); err != nil {
		return nil, fmt.Errorf("map shared memory: %w", err)
	}
	log, err := os.OpenFile(command.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(command.Program, command.Args...)
	// With one worker, there are few threads to wait for.
	p.cmd.Env = append(command.Env, "LD_PRELOAD="+command.Shim, "VT_DIR="+p.dir, "TOKIO_WORKER_THREADS=1", "PATH=/usr/bin:/bin")
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	c.procs = append(c.procs, p)
	go func() {
		_ = p.cmd.Wait() // the exit code does not matter; callers check dead
		p.dead.Store(true)
	}()
	return p, p.awaitListening(command.Log)
}

func (p *Process) mapSharedMemory(now int64) error {
	file, err := os.Create(filepath.Join(p.dir, "shm"))
	if err != nil {
		return err
	}
	defer file.Close()
	if err := file.Truncate(shmSize); err != nil {
		return err
	}
	memory, err := syscall.Mmap(int(file.Fd()), 0, shmSize, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return err
	}
	p.shm = (*shared)(unsafe.Pointer(&memory[0]))
	p.shm.now, p.shm.start = now, now
	return nil
}

func (p *Process) awaitListening(log string) error {
	for end := time.Now().Add(listenTimeout); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if p.dead.Load() {
			return fmt.Errorf("exporter exited during startup; see %s", log)
		}
		if conn, err := net.Dial("tcp", p.Address); err == nil {
			return conn.Close()
		}
	}
	return fmt.Errorf("exporter is not listening on %s; see %s", p.Address, log)
}

// Signal sends a signal without waiting.
func (p *Process) Signal(signal os.Signal) error { return p.cmd.Process.Signal(signal) }

// Kill sends SIGKILL to an exporter, so that it cannot save its state, and waits until it has exited.
func (c *Clock) Kill(p *Process) error { return c.stop(p, syscall.SIGKILL) }

// Stop terminates an exporter gracefully, so that it saves its state.
func (c *Clock) Stop(p *Process) error { return c.stop(p, syscall.SIGTERM) }

func (c *Clock) stop(p *Process, signal os.Signal) error {
	if err := p.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	for end := time.Now().Add(stopTimeout); !p.dead.Load(); time.Sleep(time.Millisecond / 2) {
		if time.Now().After(end) {
			return errors.Join(fmt.Errorf("exporter still running %s after signal %q", stopTimeout, signal), p.cmd.Process.Kill())
		}
		if err := c.step(c.Now().Add(stopStep)); err != nil {
			return err
		}
	}
	return nil
}

func (p *Process) blockedBy() blocker {
	if p.dead.Load() {
		return free
	}
	threads := 0
	for i := range p.shm.t {
		if atomic.LoadInt64(&p.shm.t[i].used) == 0 {
			break
		}
		threads++
		if atomic.LoadInt64(&p.shm.t[i].waiting) == 0 {
			return running
		}
	}
	if threads < 2 && time.Since(p.started) < startupTimeout {
		return starting
	}
	return free
}

func (p *Process) advance(now int64) {
	if !p.dead.Load() {
		atomic.StoreInt64(&p.shm.now, now)
	}
}

// deadline returns when the exporter's next timer is due.
func (p *Process) deadline() int64 {
	next := int64(math.MaxInt64)
	if p.dead.Load() {
		return next
	}
	for i := range p.shm.t {
		if atomic.LoadInt64(&p.shm.t[i].used) == 0 {
			break
		}
		next = min(next, atomic.LoadInt64(&p.shm.t[i].deadline))
	}
	return next
}

// wake wakes the threads whose timers are due, and waits until they run, because until then they look idle.
func (p *Process) wake(now int64) {
	if p.dead.Load() {
		return
	}
	for i := range p.shm.t {
		t := &p.shm.t[i]
		if atomic.LoadInt64(&t.used) == 0 {
			return
		}
		if atomic.LoadInt64(&t.deadline) > now || atomic.LoadInt64(&t.waiting) == 0 {
			continue
		}
		before := atomic.LoadInt64(&t.wakes)
		p.notify(i)
		for k := 0; atomic.LoadInt64(&t.wakes) == before && k < maxWakeChecks && !p.dead.Load(); k++ {
			if k < spins {
				runtime.Gosched()
			} else {
				time.Sleep(10 * time.Microsecond)
			}
		}
	}
}

func (p *Process) notify(i int) {
	if p.fifos[i] == 0 {
		fd, err := syscall.Open(filepath.Join(p.dir, fmt.Sprintf("fifo.%d", i)), syscall.O_RDWR|syscall.O_NONBLOCK, 0)
		if err != nil {
			return // the process is exiting
		}
		p.fifos[i] = fd
	}
	_, _ = syscall.Write(p.fifos[i], []byte{1}) // a full pipe also wakes the thread
}
