package prom

import (
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/rules"
)

func TestBatchesKeepTheOrderOfDependentRules(t *testing.T) {
	controller := newConcurrency()
	engine := &Engine{store: newStore(nil), readByRules: map[string]bool{}}
	var all []rules.Rule
	for _, rule := range [][2]string{
		{"a", "scraped"},
		{"b", "d offset 1m"}, // reads the previous value of a later rule
		{"c", "a + scraped"},
		{"d", "b"},
		{"e", "a"},
		{"f", `{job="x"}`}, // may read any series
		{"g", "scraped"},
		{"g", "other"},
	} {
		expr, err := promqlParser.ParseExpr(rule[1])
		if err != nil {
			t.Fatal(err)
		}
		r := rules.NewRecordingRule(rule[0], expr, labels.EmptyLabels())
		controller.reads[r] = engine.recordReads(r)
		all = append(all, r)
	}
	want := []rules.ConcurrentRules{{0, 1}, {2, 3, 4}, {5}, {6}, {7}}
	if got := controller.split(all); !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("batches %v, want %v", got, want)
	}
}
