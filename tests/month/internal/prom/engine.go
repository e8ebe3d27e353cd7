package prom

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/tsdb"
)

const (
	// lookback is Prometheus' default.
	lookback = 5 * time.Minute
	// retention is the longest range in the rules plus a week.
	retention     = 22 * 24 * time.Hour
	blockDuration = 12 * time.Hour
	// maxSamples and evaluationTimeout are large enough that no query reaches them.
	maxSamples        = 100_000_000
	evaluationTimeout = 10 * time.Minute
	// offset is the delay between the scrape and the first group, and between consecutive groups.
	offset = 2 * time.Second
)

// Notify handles the alerts that a group sends.
type Notify func(at time.Time, alerts []*rules.Alert)

// Engine evaluates rules.
type Engine struct {
	store       *store
	queries     *queries
	stages      [][]*rules.Group // groups in a stage do not read each other's series
	readByRules map[string]bool  // names of series that rules read
	step        time.Duration
	running     sync.WaitGroup

	// EvaluationTime is the real time spent on evaluations.
	EvaluationTime time.Duration
}

type timestampKey struct{}

// Options configure an engine.
type Options struct {
	Dir    string // directory for the database
	Files  []string
	Step   time.Duration
	Notify Notify
}

// NewEngine loads rule files.
func NewEngine(o Options) (*Engine, error) {
	settings := tsdb.DefaultOptions()
	settings.RetentionDuration = retention.Milliseconds()
	settings.MinBlockDuration = blockDuration.Milliseconds()
	settings.MaxBlockDuration = 4 * blockDuration.Milliseconds()
	settings.WALSegmentSize = -1
	settings.NoLockfile = true
	db, err := tsdb.Open(o.Dir, slog.New(slog.NewTextHandler(io.Discard, nil)), nil, settings, nil)
	if err != nil {
		return nil, err
	}
	e := &Engine{store: newStore(db), readByRules: map[string]bool{}, step: o.Step}
	e.queries = &queries{idle: map[string][]*reusedQuery{}, Engine: promql.NewEngine(promql.EngineOpts{
		MaxSamples: maxSamples, Timeout: evaluationTimeout, LookbackDelta: lookback, EnableNegativeOffset: true,
	})}
	set, err := loadRules(o.Files)
	if err != nil {
		return nil, err
	}
	file, err := set.write(o.Dir + "-rules")
	if err != nil {
		return nil, err
	}
	external := &url.URL{Scheme: "http", Host: "prometheus.example"}
	var mu sync.Mutex
	controller := newConcurrency()
	manager := rules.NewManager(&rules.ManagerOptions{
		ExternalURL: external, QueryFunc: rules.EngineQueryFunc(e.queries, e.store), Context: context.Background(),
		Appendable: e.store, Queryable: e.store, OutageTolerance: time.Hour, ForGracePeriod: 10 * time.Minute, ResendDelay: time.Minute,
		RuleConcurrencyController: controller, RuleDependencyController: loader{}, GroupLoader: loader{},
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		NotifyFunc: func(ctx context.Context, _ string, alerts ...*rules.Alert) {
			at, ok := ctx.Value(timestampKey{}).(time.Time)
			if ok && len(alerts) > 0 {
				mu.Lock()
				defer mu.Unlock()
				for _, a := range alerts { // each alert is a copy for this notification
					a.Labels = set.restore(a.Labels)
				}
				o.Notify(at, alerts)
			}
		},
	})
	groups, errs := manager.LoadGroups(o.Step, labels.EmptyLabels(), external.String(), nil, false, file)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	for _, g := range groups {
		for _, r := range g.Rules() {
			controller.reads[r] = e.recordReads(r)
			if alerting, ok := r.(*rules.AlertingRule); ok {
				alerting.SetRestored(true) // otherwise, the rule would never write ALERTS
			}
		}
	}
	e.buildStages(slices.Collect(maps.Values(groups)))
	return e, nil
}

func (e *Engine) Close() error { return e.store.db.Close() }

// recordReads records which series a rule reads, and which of them it reads over a range. It returns the names of all
// series that the rule reads.
func (e *Engine) recordReads(r rules.Rule) map[string]bool {
	names := map[string]bool{}
	parser.Inspect(unwrap(r), func(n parser.Node, path []parser.Node) error {
		selector, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		names[selector.Name] = true
		ranged := selector.OriginalOffset != 0 || selector.Timestamp != nil || selector.Name == ""
		for i, parent := range path {
			switch parent := parent.(type) {
			case *parser.SubqueryExpr:
				ranged = true
			case *parser.MatrixSelector:
				isLast := false
				if i > 0 {
					call, isCall := path[i-1].(*parser.Call)
					isLast = isCall && call.Func.Name == lastOverTime
				}
				ranged = ranged || !isLast || parent.Range > retention
			}
		}
		if ranged {
			e.store.ranged[selector.Name] = true
		}
		return nil
	})
	maps.Copy(e.readByRules, names)
	return names
}

// buildStages creates a stage for each recording group, in alphabetical order, and then one stage for all alerting
// groups. The groups of a stage run in parallel.
func (e *Engine) buildStages(groups []*rules.Group) {
	slices.SortFunc(groups, func(a, b *rules.Group) int { return strings.Compare(a.Name(), b.Name()) })
	var recording, alerting []*rules.Group
	for _, g := range groups {
		if slices.ContainsFunc(g.Rules(), func(r rules.Rule) bool { _, ok := r.(*rules.RecordingRule); return ok }) {
			recording = append(recording, g)
		} else {
			alerting = append(alerting, g)
		}
	}
	for _, g := range recording {
		e.stages = append(e.stages, []*rules.Group{g})
	}
	e.stages = append(e.stages, alerting)
}

// Evaluate runs the groups that are due.
func (e *Engine) Evaluate(now time.Time) {
	start := time.Now()
	at := now
	for _, stage := range e.stages {
		var wg sync.WaitGroup
		for _, g := range stage {
			at = at.Add(offset)
			if every := int64(math.Max(1, math.Round(float64(g.Interval())/float64(e.step)))); now.Unix()/int64(e.step.Seconds())%every != 0 {
				continue
			}
			wg.Add(1)
			go func(at time.Time) {
				defer wg.Done()
				g.Eval(context.WithValue(context.Background(), timestampKey{}, at), at)
			}(at)
		}
		wg.Wait()
	}
	e.EvaluationTime += time.Since(start)
}

// Start begins an evaluation. Until it has ended, no series may be written.
func (e *Engine) Start(now time.Time) { e.running.Go(func() { e.Evaluate(now) }) }

// Wait waits until the evaluation has ended.
func (e *Engine) Wait() { e.running.Wait() }

// Unhealthy returns the rules whose last evaluation failed.
func (e *Engine) Unhealthy() []string {
	var failed []string
	for _, stage := range e.stages {
		for _, g := range stage {
			for _, r := range g.Rules() {
				if err := r.LastError(); err != nil {
					failed = append(failed, r.Name()+": "+err.Error())
				}
			}
		}
	}
	return failed
}
