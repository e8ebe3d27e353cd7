package prom

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"gopkg.in/yaml.v3"
)

// namePattern matches series names in expressions and templates.
var namePattern = regexp.MustCompile(`[a-zA-Z_][a-zA-Z0-9_:]*`)

// ruleSet is a reduced set of rules. It omits annotations, recording rules that no alert needs and, unless a rule reads
// alerts, the constant labels of alerts. At every evaluation, Prometheus expands each label and annotation of every
// alert as a template, which takes longer than all queries together.
type ruleSet struct {
	groups []rulefmt.RuleGroup
	// alerts contains the original names and labels of alerting rules, by their new names.
	alerts map[string]original
}

type original struct {
	name   string
	labels map[string]string
}

// alertSeries is the name of the series of active alerts, which the rules engine writes. If a rule reads them, alerts
// keep all labels.
const alertSeries = "ALERTS"

// loadRules reads rule files.
func loadRules(files []string) (*ruleSet, error) {
	set := &ruleSet{alerts: map[string]original{}}
	for _, file := range files {
		parsed, errs := rulefmt.ParseFile(file, false, model.UTF8Validation, promqlParser)
		if len(errs) > 0 {
			return nil, fmt.Errorf("%s: %w", file, errors.Join(errs...))
		}
		set.groups = append(set.groups, parsed.Groups...)
	}
	needed, readsAlerts := neededRecordings(set.groups)
	isDropped := func(r rulefmt.Rule) bool { return r.Record != "" && !needed[r.Record] }
	for i := range set.groups {
		g := &set.groups[i]
		g.Rules = slices.DeleteFunc(g.Rules, isDropped)
		for k := range g.Rules {
			r := &g.Rules[k]
			r.Annotations = nil
			if r.Alert != "" && !readsAlerts {
				set.extractLabels(r)
			}
		}
	}
	set.groups = slices.DeleteFunc(set.groups, func(g rulefmt.RuleGroup) bool { return len(g.Rules) == 0 })
	return set, nil
}

// extractLabels moves the constant labels of an alerting rule to the set, and gives the rule a unique name.
func (s *ruleSet) extractLabels(r *rulefmt.Rule) {
	before := original{r.Alert, map[string]string{}}
	templated := map[string]string{}
	for name, v := range r.Labels {
		if strings.Contains(v, "{{") {
			templated[name] = v
		} else {
			before.labels[name] = v
		}
	}
	r.Alert = fmt.Sprintf("%s_%d", r.Alert, len(s.alerts))
	r.Labels = templated
	s.alerts[r.Alert] = before
}

// restore returns the labels of an alert, including the original name and labels of its rule.
func (s *ruleSet) restore(l labels.Labels) labels.Labels {
	before, ok := s.alerts[l.Get(labels.AlertName)]
	if !ok {
		return l
	}
	b := labels.NewBuilder(l)
	b.Set(labels.AlertName, before.name)
	for name, v := range before.labels {
		b.Set(name, v)
	}
	return b.Labels()
}

func (s *ruleSet) write(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	text, err := yaml.Marshal(rulefmt.RuleGroups{Groups: s.groups})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "rules.yml")
	return path, os.WriteFile(path, text, 0o644)
}

// neededRecordings returns the recording rules that alerts need, directly or indirectly, and whether a rule reads
// alerts. It searches expressions for names, so it may also return rules that are not needed.
func neededRecordings(groups []rulefmt.RuleGroup) (needed map[string]bool, readsAlerts bool) {
	recordings := map[string][]string{} // expressions by name
	var pending []string
	for _, g := range groups {
		for _, r := range g.Rules {
			if r.Record != "" {
				recordings[r.Record] = append(recordings[r.Record], r.Expr)
				continue
			}
			pending = append(pending, r.Expr)
		}
	}
	needed = map[string]bool{}
	for len(pending) > 0 {
		text := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		for _, name := range namePattern.FindAllString(text, -1) {
			readsAlerts = readsAlerts || name == alertSeries
			if expressions, ok := recordings[name]; ok && !needed[name] {
				needed[name] = true
				pending = append(pending, expressions...)
			}
		}
	}
	return needed, readsAlerts
}
