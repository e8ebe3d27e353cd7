package prom

import (
	"context"
	"runtime"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
)

// concurrency evaluates the rules of a group concurrently unless one reads the series of the other. Prometheus' own
// controller runs every rule that both reads and is read by another rule alone, which is most recording rules.
type concurrency struct {
	slots chan struct{}
	reads map[rules.Rule]map[string]bool // names of series by rule; rules that read series of any name are absent

	mu      sync.Mutex
	batches map[string][]rules.ConcurrentRules // by name of the group
}

func newConcurrency() *concurrency {
	// The goroutine of the group evaluates rules as well.
	return &concurrency{
		slots: make(chan struct{}, runtime.GOMAXPROCS(0)-1),
		reads: map[rules.Rule]map[string]bool{}, batches: map[string][]rules.ConcurrentRules{},
	}
}

// add records which series a rule reads. It must be called for all rules before the first evaluation.
func (c *concurrency) add(r rules.Rule) {
	names := map[string]bool{}
	readsAnyName := false
	parser.Inspect(r.Query(), func(n parser.Node, _ []parser.Node) error {
		if selector, ok := n.(*parser.VectorSelector); ok {
			names[selector.Name] = true
			readsAnyName = readsAnyName || selector.Name == ""
		}
		return nil
	})
	if !readsAnyName {
		c.reads[r] = names
	}
}

// areIndependent returns whether two rules may be evaluated in any order.
func (c *concurrency) areIndependent(a, b rules.Rule) bool {
	readByA, okA := c.reads[a]
	readByB, okB := c.reads[b]
	return okA && okB && a.Name() != b.Name() && !readByA[b.Name()] && !readByB[a.Name()]
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

// split puts each rule in the batch after the last rule before it that it depends on, or that depends on it.
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
