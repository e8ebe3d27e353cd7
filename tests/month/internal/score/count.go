package score

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Key identifies an alert by all of its labels.
func Key(labels map[string]string) string { return key(labels) }

// identity identifies an alert by the labels that do not change during its lifetime.
func identity(labels map[string]string) string { return key(labels, "organization") }

// subject identifies what an alert is about, regardless of when it started.
func subject(labels map[string]string) string { return key(labels, "organization", "since") }

func key(labels map[string]string, without ...string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		if !slices.Contains(without, name) {
			b.WriteString("\x00" + name + "=" + labels[name])
		}
	}
	return b.String()
}

// counter counts causes by text, and records the first occurrence of each.
type counter map[string]*Cause

func (c counter) add(text string, at int64) {
	if c[text] == nil {
		c[text] = &Cause{Text: text, First: time.Unix(at, 0).UTC()}
	}
	c[text].Count++
	c[text].First = earliest(c[text].First, time.Unix(at, 0).UTC())
}

// sorted returns the causes, most frequent first.
func (c counter) sorted() []Cause {
	var causes []Cause
	for _, text := range slices.Sorted(maps.Keys(c)) {
		causes = append(causes, *c[text])
	}
	slices.SortStableFunc(causes, func(a, b Cause) int { return b.Count - a.Count })
	return causes
}
