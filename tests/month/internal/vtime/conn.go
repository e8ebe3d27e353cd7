package vtime

import (
	"net"
	"sync/atomic"
)

// Conn counts the bytes of a connection to or from an exporter.
type Conn struct {
	net.Conn
	clock *Clock
}

// Count wraps a connection that the driver opened.
func (c *Clock) Count(conn net.Conn) *Conn { return &Conn{conn, c} }

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		atomic.AddInt64(&c.clock.read, int64(n))
	}
	return n, err
}

// Write implements net.Conn. Bytes are counted before they are written, so that they are never read uncounted.
func (c *Conn) Write(b []byte) (int, error) {
	atomic.AddInt64(&c.clock.written, int64(len(b)))
	n, err := c.Conn.Write(b)
	if n != len(b) {
		atomic.AddInt64(&c.clock.written, int64(n-len(b)))
	}
	return n, err
}

// ServerConn is a connection that an exporter opened. It holds the clock from the first byte of a request to Done.
type ServerConn struct {
	Conn
	busy bool
}

// Serve wraps a connection that the driver accepted.
func (c *Clock) Serve(conn net.Conn) *ServerConn { return &ServerConn{Conn: Conn{conn, c}} }

// Read implements net.Conn.
func (s *ServerConn) Read(b []byte) (int, error) {
	n, err := s.Conn.Conn.Read(b)
	if n > 0 {
		if !s.busy {
			s.busy = true
			atomic.AddInt64(&s.clock.busy, 1)
			atomic.AddInt64(&s.clock.requests, 1)
		}
		atomic.AddInt64(&s.clock.read, int64(n))
	}
	return n, err
}

// Done reports that the request was answered.
func (s *ServerConn) Done() {
	if s.busy {
		s.busy = false
		atomic.AddInt64(&s.clock.busy, -1)
	}
}
