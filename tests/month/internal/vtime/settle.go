package vtime

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"time"
)

// Real-time limits that apply while the driver waits until exporters are idle.
const (
	// spins is the number of checks without a pause. Most waits are shorter than the shortest sleep.
	spins = 2000
	// pollPause is the pause between later checks.
	pollPause = 15 * time.Microsecond
	// resyncAfter is how long bytes may remain unread before their connection counts as dropped. An exporter whose threads
	// all wait for I/O would have read the bytes far earlier.
	resyncAfter = 60 * time.Millisecond
	// stuckAfter is how long something may be in flight. Polls of a large fleet take far less time, even on a busy
	// machine.
	stuckAfter = 2 * time.Minute
	// startupTimeout is how long an exporter may take to start its threads.
	startupTimeout = time.Second
)

// blocker is a reason why the clock must not move.
type blocker string

const (
	free       blocker = ""
	responding blocker = "a request is in progress"
	running    blocker = "an exporter thread is running"
	starting   blocker = "an exporter is starting"
	unreadData blocker = "bytes are in flight"
)

// Settle waits until nothing is in flight, or returns an error if that takes too long.
func (c *Clock) Settle() error {
	var since time.Time
	for i := 0; ; i++ {
		reason := c.blockedBy()
		if reason == free && c.blockedBy() == free {
			return nil
		}
		if reason == free || i < spins {
			runtime.Gosched()
			continue
		}
		if since.IsZero() {
			since = time.Now()
		}
		time.Sleep(pollPause)
		waited := time.Since(since)
		if reason == unreadData && waited > resyncAfter {
			c.resync()
			return nil
		}
		if waited > stuckAfter {
			return fmt.Errorf("virtual clock stuck at %s: %s", c.Now().Format(time.RFC3339), reason)
		}
	}
}

func (c *Clock) blockedBy() blocker {
	if atomic.LoadInt64(&c.inFlight) != 0 {
		return responding
	}
	for _, p := range c.procs {
		if reason := p.blockedBy(); reason != free {
			return reason
		}
	}
	sent, received := c.traffic()
	if sent+c.unreadOut != atomic.LoadInt64(&c.read) || received+c.unreadIn != atomic.LoadInt64(&c.written) {
		return unreadData
	}
	return free
}

func (c *Clock) traffic() (sent, received int64) {
	for _, p := range c.procs {
		sent += atomic.LoadInt64(&p.shm.sent)
		received += atomic.LoadInt64(&p.shm.received)
	}
	return sent, received
}

func (c *Clock) resync() {
	sent, received := c.traffic()
	c.unreadOut = atomic.LoadInt64(&c.read) - sent
	c.unreadIn = atomic.LoadInt64(&c.written) - received
	c.Resyncs++
}
