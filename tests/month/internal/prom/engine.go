package prom

import (
	"cmp"
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
	// lookback is the default of --query.lookback-delta.
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

// Notify handles the alerts that a rule sends. Calls do not overlap.
type Notify func(at time.Time, alerts []*rules.Alert)

// Engine evaluates rules.
type Engine struct {
	store       *store
	queries     *queries
	groups      []*rules.Group
	readByRules map[string]bool // names of series that rules read
	step        time.Duration
}

type timestampKey struct{}

// Options configure an engine.
type Options struct {
	Dir    string // directory for the database
	Files  []string
	Step   time.Duration
	Notify Notify
}

// NewEngine returns an engine that evaluates the rules in the given files.
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
	e.queries = &queries{Engine: promql.NewEngine(promql.EngineOpts{
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
	var notifying sync.Mutex
	external := &url.URL{Scheme: "http", Host: "prometheus.example"}
	manager := rules.NewManager(&rules.ManagerOptions{
		ExternalURL: external, QueryFunc: rules.EngineQueryFunc(e.queries, e.store), Context: context.Background(),
		Appendable: e.store, Queryable: e.store, OutageTolerance: time.Hour, ForGracePeriod: 10 * time.Minute, ResendDelay: time.Minute,
		RuleDependencyController: loader{}, GroupLoader: loader{}, RuleConcurrencyController: newConcurrency(),
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		NotifyFunc: func(ctx context.Context, _ string, alerts ...*rules.Alert) {
			at, ok := ctx.Value(timestampKey{}).(time.Time)
			if ok && len(alerts) > 0 {
				for _, a := range alerts { // each alert is a copy for this notification
					a.Labels = set.restore(a.Labels)
				}
				notifying.Lock()
				defer notifying.Unlock()
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
			e.recordReads(r)
			if alerting, ok := r.(*rules.AlertingRule); ok {
				alerting.SetRestored(true) // otherwise, the rule would never write ALERTS
			}
		}
	}
	e.groups = slices.SortedFunc(maps.Values(groups), compareGroups)
	return e, nil
}

func (e *Engine) Close() error { return e.store.db.Close() }

// recordReads records which series a rule reads, and which of them it reads over a range.
func (e *Engine) recordReads(r rules.Rule) {
	parser.Inspect(unwrap(r), func(n parser.Node, path []parser.Node) error {
		selector, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		e.readByRules[selector.Name] = true
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
}

// compareGroups sorts groups with recording rules first, and then by name.
func compareGroups(a, b *rules.Group) int {
	onlyAlerts := func(g *rules.Group) int {
		if slices.ContainsFunc(g.Rules(), func(r rules.Rule) bool { _, ok := r.(*rules.RecordingRule); return ok }) {
			return 0
		}
		return 1
	}
	return cmp.Or(onlyAlerts(a)-onlyAlerts(b), strings.Compare(a.Name(), b.Name()))
}

// Evaluate runs the groups that are due one after the other.
func (e *Engine) Evaluate(now time.Time) {
	at := now
	for _, g := range e.groups {
		at = at.Add(offset)
		every := int64(math.Max(1, math.Round(float64(g.Interval())/float64(e.step))))
		if now.Unix()/int64(e.step.Seconds())%every == 0 {
			g.Eval(context.WithValue(context.Background(), timestampKey{}, at), at)
		}
	}
}

// Unhealthy returns the rules whose last evaluation failed.
func (e *Engine) Unhealthy() []string {
	var failed []string
	for _, g := range e.groups {
		for _, r := range g.Rules() {
			if err := r.LastError(); err != nil {
				failed = append(failed, r.Name()+": "+err.Error())
			}
		}
	}
	return failed
}
