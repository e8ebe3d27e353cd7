package api

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"month/internal/vtime"
	"month/internal/world"
)

// Server is the partner API and its token endpoint.
type Server struct {
	clock    *vtime.Clock
	world    *world.World
	listener net.Listener

	mu       sync.Mutex
	random   *rand.Rand
	faults   []*fault
	tokens   map[string]token
	issued   int
	jobLists map[string]int // number of returned job lists, by customer
}

// response is the response to a request. With status 0, the connection is reset instead.
type response struct {
	status int
	body   any
	html   bool
	header string
}

// Listen starts the server on a free local port.
func Listen(clock *vtime.Clock, w *world.World, seed int64) (*Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{
		clock: clock, world: w, listener: listener, random: rand.New(rand.NewSource(seed)),
		tokens: map[string]token{}, jobLists: map[string]int{}, faults: faultsOf(w),
	}
	go s.accept()
	return s, nil
}

// Address returns the listen address.
func (s *Server) Address() string { return s.listener.Addr().String() }

func (s *Server) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		go s.serve(conn)
	}
}

// serve handles HTTP without the server of net/http. That server reads ahead, so bytes could not be attributed to
// requests.
func (s *Server) serve(raw net.Conn) {
	conn := s.clock.Serve(raw)
	defer conn.Done()
	defer conn.Close()
	reader := bufio.NewReader(conn)
	for {
		request, err := http.ReadRequest(reader)
		if err != nil {
			return
		}
		body, err := io.ReadAll(request.Body)
		if err != nil {
			return
		}
		reply := s.respond(request, body)
		if reply.status == 0 {
			if tcp, ok := raw.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // makes Close reset the connection
			}
			return
		}
		if err := s.write(conn, reply); err != nil {
			return
		}
		conn.Done()
	}
}

func (s *Server) write(conn net.Conn, reply response) error {
	kind, body := "application/json", []byte{}
	switch {
	case reply.html:
		kind, body = "text/html", []byte("<html><title>Sign in</title></html>")
	case reply.body != nil:
		encoded, err := json.Marshal(reply.body)
		if err != nil {
			return err
		}
		body = encoded
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nDate: %s\r\n%s\r\n",
		reply.status, http.StatusText(reply.status), kind, len(body), s.clock.Now().Format(http.TimeFormat), reply.header)
	out.Write(body)
	_, err := conn.Write(out.Bytes())
	return err
}

func errorResponse(status int, code string) response {
	return response{status: status, body: object{"error": code}}
}

func (s *Server) respond(request *http.Request, body []byte) response {
	now := s.clock.Now()
	path := request.URL.Path
	if wait := s.responseDelay(now); wait > 0 {
		s.clock.Sleep(wait)
		now = s.clock.Now()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if reply, hit := s.faultResponse(now, path); hit {
		return reply
	}
	if path == tokenPath {
		return s.token(now, string(body))
	}
	grants, ok := s.grants(now, request.Header.Get("Authorization"))
	if !ok {
		return errorResponse(http.StatusUnauthorized, "unauthorized")
	}
	c := call{s, now, request, body, grants}
	if rest, ok := strings.CutPrefix(path, v3Base); ok {
		return c.v3(rest)
	}
	if rest, ok := strings.CutPrefix(path, v1Base); ok {
		return c.v1(rest)
	}
	return errorResponse(http.StatusNotFound, "no such resource")
}

// call is a request with a valid token.
type call struct {
	*Server
	now     time.Time
	request *http.Request
	body    []byte
	scopes  map[string]bool
}

// isAllowed returns whether the token has a scope, which is given without its prefix.
func (c call) isAllowed(scope string) bool {
	for granted := range c.scopes {
		if strings.HasSuffix(granted, "."+scope) {
			return !c.scopeMissing(c.now, granted)
		}
	}
	return false
}

// customer returns a customer by id, or nil if it is not currently listed.
func (c call) customer(id string) *world.Customer {
	found := c.world.Customer(id)
	if found == nil || !found.ListedAt(c.now) {
		return nil
	}
	return found
}

// jobs returns a customer's job list. Every second list comes from the second replica.
func (c call) jobs(x *world.Customer) []world.Row {
	c.jobLists[x.ID]++
	return x.JobsAt(c.now, c.jobLists[x.ID]%2 == 0)
}
