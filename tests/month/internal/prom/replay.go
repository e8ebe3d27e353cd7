package prom

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
)

// replayed is a series of a log.
type replayed struct {
	series *series // nil if no rule reads it
	value  float64
	live   bool
}

// replay is the state of a replay.
type replay struct {
	engine *Engine
	byID   map[string]*replayed
	ups    map[string]*replayed
	ended  []*replayed
	now    int64
	after  func(time.Time) error
}

// Replay evaluates the rules with the scrapes in a log. When an evaluation has ended, it calls the function after.
func (e *Engine) Replay(path string, after func(time.Time) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	const longestLine = 1 << 20
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, longestLine)
	r := &replay{engine: e, byID: map[string]*replayed{}, ups: map[string]*replayed{}, after: after}
	for lines.Scan() {
		if err := r.line(lines.Text()); err != nil {
			return fmt.Errorf("%s: %q: %w", path, lines.Text(), err)
		}
	}
	return errors.Join(lines.Err(), r.step())
}

func (r *replay) line(line string) error {
	kind, rest, _ := strings.Cut(line, " ")
	switch kind {
	case "T":
		seconds, _, _ := strings.Cut(rest, " ")
		at, err := strconv.ParseInt(seconds, 10, 64)
		if err != nil || at == r.now {
			return err
		}
		err = r.step()
		r.now = at
		return err
	case "N":
		id, metric, _ := strings.Cut(rest, " ")
		parsed, err := promqlParser.ParseMetric(metric)
		if err != nil {
			return err
		}
		one := &replayed{}
		if r.engine.readByRules[parsed.Get(labels.MetricName)] {
			one.series = r.engine.store.series(parsed)
		}
		r.byID[id] = one
	case "-":
		return r.end(r.byID[rest])
	case "X":
		return r.end(r.ups[rest])
	case "U":
		fields := strings.Fields(rest)
		if len(fields) != 3 {
			return errors.New("invalid value of up")
		}
		key := fields[0] + " " + fields[1]
		if r.ups[key] == nil {
			r.ups[key] = &replayed{series: r.engine.up(fields[0], fields[1])}
		}
		return r.ups[key].set(fields[2])
	default:
		one := r.byID[kind]
		if one == nil {
			return errors.New("unknown series")
		}
		return one.set(rest)
	}
	return nil
}

func (r *replayed) set(text string) error {
	v, err := strconv.ParseFloat(text, 64)
	r.value, r.live = v, true
	return err
}

func (r *replay) end(one *replayed) error {
	if one == nil {
		return errors.New("unknown series")
	}
	if one.live {
		one.live = false
		r.ended = append(r.ended, one)
	}
	return nil
}

// step appends the values of a scrape, and evaluates the rules.
func (r *replay) step() error {
	if r.now == 0 {
		return nil
	}
	now := time.Unix(r.now, 0).UTC()
	r.engine.store.advance(now.UnixMilli())
	app := r.engine.store.appender(context.Background())
	var errs []error
	for _, one := range r.byID {
		if one.live && one.series != nil {
			errs = append(errs, app.put(one.series, now.UnixMilli(), one.value))
		}
	}
	for _, one := range r.ups {
		if one.live {
			errs = append(errs, app.put(one.series, now.UnixMilli(), one.value))
		}
	}
	for _, one := range r.ended {
		if one.series != nil && !one.live {
			errs = append(errs, app.put(one.series, now.UnixMilli(), math.Float64frombits(value.StaleNaN)))
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
