package prom

import (
	"context"
	"runtime"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/rules"
)

// concurrency evaluates the rules of a group concurrently, unless one rule reads the series of another. Prometheus' own
// controller evaluates a rule alone if the rule has both dependencies and dependents, which applies to most recording
// rules.
type concurrency struct {
	slots chan struct{}
	// reads contains the names of the series that each rule reads. An empty name stands for any name. The map must be
	// complete before the first evaluation.
	reads map[rules.Rule]map[string]bool

	mu      sync.Mutex
	batches map[string][]rules.ConcurrentRules // by group name
}

func newConcurrency() *concurrency {
	// The group's own goroutine evaluates rules as well.
	return &concurrency{
		slots: make(chan struct{}, runtime.GOMAXPROCS(0)-1),
		reads: map[rules.Rule]map[string]bool{}, batches: map[string][]rules.ConcurrentRules{},
	}
}

// areIndependent returns whether two rules may be evaluated in any order.
func (c *concurrency) areIndependent(a, b rules.Rule) bool {
	isReadBy := func(reader, other rules.Rule) bool { return c.reads[reader][""] || c.reads[reader][other.Name()] }
	return a.Name() != b.Name() && !isReadBy(a, b) && !isReadBy(b, a)
}

// SplitGroupIntoBatches implements rules.RuleConcurrencyController.
func (c *concurrency) SplitGroupIntoBatches(_ context.Context, g *rules.Group) []rules.ConcurrentRules {
	c.mu.Lock()
	defer c.mu.Unlock()
	batches, ok := c.batches[g.Name()]
	if !ok {
		batches = c.split(g.Rules())
		c.batches[g.Name()] = batches
	}
	return batches
}

// split puts each rule in the first batch after all preceding rules that it depends on, or that depend on it.
func (c *concurrency) split(all []rules.Rule) []rules.ConcurrentRules {
	var batches []rules.ConcurrentRules
	for i, r := range all {
		at := 0
		for k, batch := range slices.Backward(batches) {
			if slices.ContainsFunc(batch, func(other int) bool { return !c.areIndependent(all[other], r) }) {
				at = k + 1
				break
			}
		}
		if at == len(batches) {
			batches = append(batches, nil)
		}
		batches[at] = append(batches[at], i)
	}
	return batches
}

// Allow implements rules.RuleConcurrencyController.
func (c *concurrency) Allow(context.Context, *rules.Group, rules.Rule) bool {
	select {
	case c.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

// Done implements rules.RuleConcurrencyController.
func (c *concurrency) Done(context.Context) { <-c.slots }
