package vtime

import (
	"container/heap"
	"sync"
	"sync/atomic"
	"time"
)

// maxMinJumpWhileBusy limits the minimum jump while requests arrive, so that pauses between requests are not stretched.
const maxMinJumpWhileBusy = time.Second

type event struct {
	at    int64
	order int64
	run   func()
}

type eventQueue []event

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push implements heap.Interface.
func (q *eventQueue) Push(x any) { *q = append(*q, x.(event)) }

// Pop implements heap.Interface.
func (q *eventQueue) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}

// Clock is the virtual clock of a run. One goroutine controls it; request handlers may call Now and Sleep.
type Clock struct {
	now          int64 // Unix time in nanoseconds
	minJump      int64
	mu           sync.Mutex
	queue        eventQueue
	order        int64
	procs        []*Process
	read         int64 // bytes that the driver read from exporters
	written      int64 // bytes that the driver wrote to exporters
	unreadOut    int64 // bytes from exporters that will never be read
	unreadIn     int64 // bytes to exporters that will never be read
	inFlight     int64 // requests in progress
	requests     int64
	lastRequests int64

	// Resyncs counts how often connections were dropped with unread bytes.
	Resyncs int
	// Jumps counts the moves of the clock.
	Jumps int
}

// New returns a clock that starts at start. While there are no requests, it moves by at least minJump, so the
// exporters' timers may be late by up to minJump.
func New(start time.Time, minJump time.Duration) *Clock {
	return &Clock{now: start.UnixNano(), minJump: int64(minJump)}
}

// Now returns the virtual time.
func (c *Clock) Now() time.Time { return time.Unix(0, atomic.LoadInt64(&c.now)).UTC() }

// At schedules a call of run at t.
func (c *Clock) At(t time.Time, run func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.order++
	heap.Push(&c.queue, event{t.UnixNano(), c.order, run})
}

// Sleep pauses a request handler in virtual time.
func (c *Clock) Sleep(d time.Duration) {
	woken := make(chan struct{})
	c.At(c.Now().Add(d), func() {
		atomic.AddInt64(&c.inFlight, 1)
		close(woken)
	})
	atomic.AddInt64(&c.inFlight, -1)
	<-woken
}

// RunTo runs exporters and events until t.
func (c *Clock) RunTo(t time.Time) error {
	for c.Now().Before(t) {
		if err := c.step(t); err != nil {
			return err
		}
	}
	return c.Settle()
}

// step moves the clock to the next due time or to limit, whichever is earlier, and runs the events that are due.
func (c *Clock) step(limit time.Time) error {
	if err := c.Settle(); err != nil {
		return err
	}
	next := c.nextDue(limit.UnixNano())
	c.Jumps++
	atomic.StoreInt64(&c.now, next)
	for _, p := range c.procs {
		p.advance(next)
	}
	for _, p := range c.procs {
		p.wake(next)
	}
	for {
		run := c.pop(next)
		if run == nil {
			return nil
		}
		run()
	}
}

func (c *Clock) nextDue(limit int64) int64 {
	next := limit
	for _, p := range c.procs {
		next = min(next, p.deadline())
	}
	jump := c.minJump
	if requests := atomic.LoadInt64(&c.requests); requests != c.lastRequests {
		c.lastRequests = requests
		jump = min(jump, int64(maxMinJumpWhileBusy))
	}
	next = min(max(next, c.now+jump), limit)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) > 0 {
		next = min(next, c.queue[0].at)
	}
	return max(next, c.now)
}

func (c *Clock) pop(until int64) func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) == 0 || c.queue[0].at > until {
		return nil
	}
	return heap.Pop(&c.queue).(event).run
}
