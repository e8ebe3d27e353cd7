package prom

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
)

// alertStateSeries is the name of the series with the time at which an alert became active. The rules engine writes it.
const alertStateSeries = "ALERTS_FOR_STATE"

// concurrency implements rules.RuleConcurrencyController. It evaluates two rules of a group at the same time if the
// result is the same as that of an evaluation in order. Prometheus' own controller considers only whether a rule has
// dependencies at all.
type concurrency struct {
	second  chan struct{}                      // a slot for a rule beside that in the group's own goroutine
	batches map[string][]rules.ConcurrentRules // by name of the group
}

func newConcurrency() *concurrency {
	return &concurrency{second: make(chan struct{}, 1), batches: map[string][]rules.ConcurrentRules{}}
}

// Allow implements rules.RuleConcurrencyController.
func (c *concurrency) Allow(context.Context, *rules.Group, rules.Rule) bool {
	select {
	case c.second <- struct{}{}:
		return true
	default:
		return false
	}
}

// Done implements rules.RuleConcurrencyController.
func (c *concurrency) Done(context.Context) { <-c.second }

// SplitGroupIntoBatches implements rules.RuleConcurrencyController. A rule is in a later batch than all rules before it
// that it must not overtake.
func (c *concurrency) SplitGroupIntoBatches(_ context.Context, g *rules.Group) []rules.ConcurrentRules {
	if found, ok := c.batches[g.Name()]; ok {
		return found
	}
	all := g.Rules()
	batchOf := make([]int, len(all))
	var batches []rules.ConcurrentRules
	for i, r := range all {
		for k, earlier := range all[:i] {
			if batchOf[k] >= batchOf[i] && mustKeepOrder(earlier, r) {
				batchOf[i] = batchOf[k] + 1
			}
		}
		if batchOf[i] == len(batches) {
			batches = append(batches, nil)
		}
		batches[batchOf[i]] = append(batches[batchOf[i]], i)
	}
	c.batches[g.Name()] = batches
	return batches
}

// mustKeepOrder returns whether the order of two rules affects their results, or whether they share a parsed query.
func mustKeepOrder(earlier, later rules.Rule) bool {
	return earlier.Name() == later.Name() || reads(later, earlier) || reads(earlier, later) ||
		earlier.Query().String() == later.Query().String()
}

// reads returns whether a rule reads series that another rule writes.
func reads(reader, writer rules.Rule) bool {
	_, isAlert := writer.(*rules.AlertingRule)
	found := false
	parser.Inspect(unwrap(reader), func(n parser.Node, _ []parser.Node) error {
		selector, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		written, label := []string{writer.Name()}, labels.MetricName
		if isAlert {
			written, label = []string{alertSeries, alertStateSeries}, labels.AlertName
		}
		found = found || slices.ContainsFunc(written, func(name string) bool {
			return matches(selector, labels.MetricName, name) && matches(selector, label, writer.Name())
		})
		return nil
	})
	return found
}

// matches returns whether a selector can select series with the given value of a label.
func matches(selector *parser.VectorSelector, label, value string) bool {
	return !slices.ContainsFunc(selector.LabelMatchers, func(m *labels.Matcher) bool {
		return m.Name == label && !m.Matches(value)
	})
}
