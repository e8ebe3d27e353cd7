package prom

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"month/internal/vtime"
)

// scrapeTimeout is in real time. It is far longer than Prometheus' timeout, because a response takes no virtual time,
// no matter how long it takes in real time.
const scrapeTimeout = 2 * time.Minute

// processStart is a metric whose value comes from the kernel, which does not use the virtual clock.
const processStart = "process_start_time_seconds"

// Scraper scrapes targets and logs changes.
type Scraper struct {
	clock   *vtime.Clock
	log     *Log
	client  *http.Client
	targets []*Target
	ids     int
}

// Target is a scrape target.
type Target struct {
	// Address is the exporter's listen address, which may change between scrapes.
	Address string
	// Started is when the exporter started.
	Started time.Time
	// Failing makes scrapes fail.
	Failing bool

	Job, Instance string
	query         string
	series        map[string]*scraped
	live          map[string]*scraped
	scrape        int
}

// scraped is one series of the exposition.
type scraped struct {
	labels labels.Labels
	fixed  bool // the value is the start time of the process
	id     int
	last   float64
	scrape int
}

// NewScraper returns a scraper without targets.
func NewScraper(clock *vtime.Clock, log *Log) *Scraper {
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return clock.Count(conn), nil
	}
	return &Scraper{
		clock: clock, log: log,
		client: &http.Client{Timeout: scrapeTimeout, Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true, DialContext: dial}},
	}
}

// Add adds a target. query is appended to its path.
func (s *Scraper) Add(address, job, instance, query string) *Target {
	t := &Target{
		Address: address, Started: s.clock.Now(), Job: job, Instance: instance, query: query,
		series: map[string]*scraped{}, live: map[string]*scraped{},
	}
	s.targets = append(s.targets, t)
	return t
}

// Remove removes a target. Its series become stale.
func (s *Scraper) Remove(t *Target) {
	t.scrape += 2 // so that no sample seems to be from the latest scrape or the one before
	s.expire(t)
	s.log.removed(t)
	s.targets = slices.DeleteFunc(s.targets, func(other *Target) bool { return other == t })
}

// AddAgain adds a removed target again.
func (s *Scraper) AddAgain(t *Target) { s.targets = append(s.targets, t) }

// expire ends the series that are missing from the latest scrape.
func (s *Scraper) expire(t *Target) {
	for line, one := range t.live {
		if one.scrape != t.scrape {
			s.log.stale(one.id)
			delete(t.live, line)
		}
	}
}

// Scrape scrapes all targets.
func (s *Scraper) Scrape() error {
	s.log.begin(s.clock.Now().UnixMilli())
	for _, t := range s.targets {
		if err := s.scrape(t); err != nil {
			return fmt.Errorf("scrape of %s: %w", t.Instance, err)
		}
	}
	return s.log.end()
}

func (s *Scraper) scrape(t *Target) error {
	t.scrape++
	up := 0
	if body, err := s.fetch(t); err == nil {
		up = 1
		if err := s.logSamples(t, body); err != nil {
			return err
		}
	}
	s.expire(t)
	s.log.up(t, up)
	return nil
}

func (s *Scraper) fetch(t *Target) ([]byte, error) {
	if t.Failing {
		return nil, errors.New("target is down")
	}
	response, err := s.client.Get("http://" + t.Address + "/metrics" + t.query)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", response.StatusCode)
	}
	return io.ReadAll(response.Body)
}

// logSamples logs the changes since the previous exposition.
func (s *Scraper) logSamples(t *Target, body []byte) error {
	for len(body) > 0 {
		line, rest, _ := bytes.Cut(body, []byte{'\n'})
		body = rest
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		space := bytes.LastIndexByte(line, ' ')
		if space < 0 {
			return fmt.Errorf("no value in %q", line)
		}
		one, seen := t.series[string(line[:space])]
		if !seen {
			found, err := parse(t, string(line[:space]))
			if err != nil {
				return err
			}
			one = found
			t.series[string(line[:space])] = one
		}
		v, err := strconv.ParseFloat(string(line[space+1:]), 64)
		if err != nil {
			return err
		}
		if one.fixed {
			v = float64(t.Started.UnixMilli()) / 1000
		}
		isNew := one.scrape != t.scrape-1 || one.id == 0
		if isNew {
			t.live[string(line[:space])] = one
		}
		if isNew || one.last != v {
			s.logSample(one, v)
		}
		one.last, one.scrape = v, t.scrape
	}
	return nil
}

func (s *Scraper) logSample(one *scraped, v float64) {
	if one.id == 0 {
		s.ids++
		one.id = s.ids
		s.log.name(one.id, one.labels)
	}
	s.log.value(one.id, v)
}

// parse returns a target's series from a line of its exposition.
func parse(t *Target, line string) (*scraped, error) {
	parsed, err := promqlParser.ParseMetric(line)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", line, err)
	}
	b := labels.NewBuilder(parsed)
	b.Set("job", t.Job)
	b.Set("instance", t.Instance)
	return &scraped{labels: b.Labels(), fixed: parsed.Get(labels.MetricName) == processStart}, nil
}
