package prom

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
)

// logged is a series in a log.
type logged struct {
	series *series // nil if no rule reads it
	value  float64
	live   bool
}

// logReader applies a log to an engine.
type logReader struct {
	engine *Engine
	byID   []*logged
	ups    map[string]*logged
	ended  []*logged
	now    int64
	after  func(time.Time) error
}

// Read evaluates the rules with the scrapes in a log, and calls a callback after each step.
func (e *Engine) Read(log io.Reader, after func(time.Time) error) error {
	const longestLine = 1 << 20
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, longestLine)
	r := &logReader{engine: e, ups: map[string]*logged{}, after: after}
	for lines.Scan() {
		if err := r.line(lines.Text()); err != nil {
			return fmt.Errorf("log of the scrapes: %q: %w", lines.Text(), err)
		}
	}
	return lines.Err()
}

func (r *logReader) line(line string) error {
	kind, rest, _ := strings.Cut(line, " ")
	switch kind {
	case "T":
		at, err := strconv.ParseInt(rest, 10, 64)
		r.now = at
		return err
	case "N":
		_, metric, _ := strings.Cut(rest, " ")
		parsed, err := promqlParser.ParseMetric(metric)
		if err != nil {
			return err
		}
		one := &logged{}
		if r.engine.readByRules[parsed.Get(labels.MetricName)] {
			one.series = r.engine.series(parsed)
		}
		r.byID = append(r.byID, one)
	case "-":
		return r.end(r.find(rest))
	case "X":
		return r.end(r.ups[rest])
	case "U":
		job, rest, _ := strings.Cut(rest, " ")
		instance, up, found := strings.Cut(rest, " ")
		if !found {
			return errors.New("invalid value of up")
		}
		key := job + " " + instance
		if r.ups[key] == nil {
			r.ups[key] = &logged{series: r.engine.up(job, instance)}
		}
		return r.ups[key].set(up)
	case "E":
		return r.step()
	default:
		one := r.find(kind)
		if one == nil {
			return errors.New("unknown series")
		}
		return one.set(rest)
	}
	return nil
}

func (r *logReader) find(id string) *logged {
	n, err := strconv.Atoi(id)
	if err != nil || n < 1 || n > len(r.byID) {
		return nil
	}
	return r.byID[n-1]
}

func (r *logged) set(text string) error {
	v, err := strconv.ParseFloat(text, 64)
	r.value, r.live = v, true
	return err
}

func (r *logReader) end(one *logged) error {
	if one == nil {
		return errors.New("unknown series")
	}
	if one.live {
		one.live = false
		r.ended = append(r.ended, one)
	}
	return nil
}

// step appends the values of all scrapes in a step, and evaluates the rules.
func (r *logReader) step() error {
	now := time.Unix(r.now, 0).UTC()
	r.engine.store.advance(now.UnixMilli())
	app := r.engine.store.appender(context.Background())
	var errs []error
	put := func(one *logged, v float64) {
		if one.series == nil {
			return
		}
		if err := app.put(one.series, now.UnixMilli(), v); err != nil {
			errs = append(errs, err)
		}
	}
	for _, one := range r.byID {
		if one.live {
			put(one, one.value)
		}
	}
	for _, one := range r.ups {
		if one.live {
			put(one, one.value)
		}
	}
	for _, one := range r.ended {
		if !one.live {
			put(one, math.Float64frombits(value.StaleNaN))
		}
	}
	r.ended = r.ended[:0]
	errs = append(errs, app.Commit())
	if err := errors.Join(errs...); err != nil {
		return err
	}
	r.engine.Evaluate(now)
	return r.after(now)
}

func (e *Engine) up(job, instance string) *series {
	return e.series(labels.FromStrings(labels.MetricName, "up", "job", job, "instance", instance))
}

// series returns the series with the given labels. It must not be called while rules are evaluated.
func (e *Engine) series(l labels.Labels) *series {
	return e.store.series(e.store.family(l.Get(labels.MetricName)), l)
}
