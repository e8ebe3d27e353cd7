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
	answered map[string]int // number of responses with lists of jobs, by customer
	requests int
}

// answer is the response to a request; a connection reset if status is 0.
type answer struct {
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
		tokens: map[string]token{}, answered: map[string]int{}, faults: faultsOf(w),
	}
	go s.accept()
	return s, nil
}

// Address is where the server listens.
func (s *Server) Address() string { return s.listener.Addr().String() }

// Requests is the number of answered requests.
func (s *Server) Requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

func (s *Server) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		go s.serve(conn)
	}
}

// serve is a small HTTP server. net/http reads ahead, so its bytes could not be attributed to requests.
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
		reply := s.reply(request, body)
		if reply.status == 0 {
			if tcp, ok := raw.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // a reset, not an orderly end
			}
			return
		}
		if err := s.write(conn, reply); err != nil {
			return
		}
		conn.Done()
	}
}

func (s *Server) write(conn net.Conn, reply answer) error {
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

func refuse(status int, code string) answer {
	return answer{status: status, body: object{"error": code}}
}

func (s *Server) reply(request *http.Request, body []byte) answer {
	now := s.clock.Now()
	path := request.URL.Path
	if wait := s.slowness(now); wait > 0 {
		s.clock.Sleep(wait)
		now = s.clock.Now()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	if reply, hit := s.faulty(now, path); hit {
		return reply
	}
	if path == tokenPath {
		return s.token(now, string(body))
	}
	grants, ok := s.grants(now, request.Header.Get("Authorization"))
	if !ok {
		return refuse(http.StatusUnauthorized, "unauthorized")
	}
	c := call{s, now, request, body, grants}
	if rest, ok := strings.CutPrefix(path, v3Base); ok {
		return c.v3(rest)
	}
	if rest, ok := strings.CutPrefix(path, v1Base); ok {
		return c.v1(rest)
	}
	return refuse(http.StatusNotFound, "no such resource")
}

// call is one request with a valid token.
type call struct {
	*Server
	now     time.Time
	request *http.Request
	body    []byte
	scopes  map[string]bool
}

// allowed returns whether the token has a scope, given without the word before its first dot.
func (c call) allowed(scope string) bool {
	for held := range c.scopes {
		if strings.HasSuffix(held, "."+scope) {
			return !c.scopeMissing(c.now, held)
		}
	}
	return false
}

// customer returns the customer with an id if it is listed now.
func (c call) customer(id string) *world.Customer {
	found := c.world.Customer(id)
	if found == nil || !found.ListedAt(c.now) {
		return nil
	}
	return found
}

// jobs counts the responses with lists of jobs, because replicas may differ alternately.
func (c call) jobs(of *world.Customer) []world.Row {
	c.answered[of.ID]++
	return of.JobsAt(c.now, c.answered[of.ID]%2 == 0)
}
