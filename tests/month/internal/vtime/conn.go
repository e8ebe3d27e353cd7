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

// Write implements net.Conn. Bytes are counted before they are written, so that an exporter never reads uncounted
// bytes.
func (c *Conn) Write(b []byte) (int, error) {
	atomic.AddInt64(&c.clock.written, int64(len(b)))
	n, err := c.Conn.Write(b)
	if n != len(b) {
		atomic.AddInt64(&c.clock.written, int64(n-len(b)))
	}
	return n, err
}

// ServerConn is a connection that an exporter opened. The clock is stopped from the first byte of a request until Done.
type ServerConn struct {
	Conn
	inFlight bool
}

// Serve wraps a connection that the driver accepted.
func (c *Clock) Serve(conn net.Conn) *ServerConn { return &ServerConn{Conn: Conn{conn, c}} }

// Read implements net.Conn.
func (s *ServerConn) Read(b []byte) (int, error) {
	n, err := s.Conn.Conn.Read(b)
	if n > 0 {
		if !s.inFlight {
			s.inFlight = true
			atomic.AddInt64(&s.clock.inFlight, 1)
			atomic.AddInt64(&s.clock.requests, 1)
		}
		atomic.AddInt64(&s.clock.read, int64(n))
	}
	return n, err
}

// Done marks the request as completed.
func (s *ServerConn) Done() {
	if s.inFlight {
		s.inFlight = false
		atomic.AddInt64(&s.clock.inFlight, -1)
	}
}
