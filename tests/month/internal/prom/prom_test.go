package prom

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/rules"
)

const ruleText = `
groups:
  - name: recording
    rules:
      - {record: "customer:age:max", expr: "time() - elements_last"}
      - {record: "unused:age:max", expr: "max(elements_last)"}
  - name: alerts
    rules:
      - alert: Old
        expr: customer:age:max > 600
        for: 2m
        labels: {severity: warning}
        annotations: {summary: "{{ $value }}"}
      - alert: Old
        expr: customer:age:max > 1200
        labels: {severity: critical}
      - alert: Gone
        expr: last_over_time(elements_last[1h]) unless elements_last
`

type closer struct{ io.Writer }

func (closer) Close() error { return nil }

// writeLog writes an hour of scrapes, whose only series ends after thirty minutes.
func writeLog(t *testing.T) *bytes.Buffer {
	t.Helper()
	text := &bytes.Buffer{}
	log := NewLog(closer{text})
	target := &Target{Job: "elements", Instance: "a:1"}
	for minute := range int64(60) {
		log.begin(minute*60_000 + 60_000)
		if minute == 0 {
			log.name(1, labels.FromStrings(labels.MetricName, "elements_last", "customer_id", "c"))
			log.value(1, 0)
		}
		if minute == 30 {
			log.stale(1)
		}
		log.up(target, 1)
		if err := log.end(); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	return text
}

func TestReadFiresAlertsWithLabelsOfRules(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "rules.yml")
	if err := os.WriteFile(file, []byte(ruleText), 0o600); err != nil {
		t.Fatal(err)
	}
	firstFired := map[string]int64{}
	engine, err := NewEngine(Options{Dir: filepath.Join(dir, "tsdb"), Files: []string{file}, Step: time.Minute, Notify: func(at time.Time, alerts []*rules.Alert) {
		for _, a := range alerts {
			key := a.Labels.Get("alertname") + " " + a.Labels.Get("severity") + " " + a.Labels.Get("customer_id")
			if _, seen := firstFired[key]; !seen {
				firstFired[key] = at.Unix() / 60
			}
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	steps := 0
	if err := engine.Read(writeLog(t), func(time.Time) error { steps++; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := engine.Close(); err != nil {
		t.Fatal(err)
	}
	want := map[string]int64{"Old warning c": 12, "Old critical c": 20, "Gone  c": 31}
	for key, minute := range want {
		if firstFired[key] != minute {
			t.Errorf("%s first fired in minute %d, want %d", key, firstFired[key], minute)
		}
	}
	if len(firstFired) != len(want) || steps != 60 {
		t.Errorf("%v after %d steps", firstFired, steps)
	}
	if failed := engine.Unhealthy(); len(failed) > 0 {
		t.Error(failed)
	}
}

func TestOnlyRecordingRulesThatAlertsReadAreLoaded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(file, []byte(ruleText), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := loadRules([]string{file})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, g := range set.groups {
		for _, r := range g.Rules {
			if r.Record != "" {
				names = append(names, r.Record)
			}
		}
	}
	if !slices.Equal(names, []string{"customer:age:max"}) {
		t.Errorf("got the recording rules %q", names)
	}
}

func TestLaterSampleOfAnotherGroupDoesNotHideScrape(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(file, []byte(ruleText), 0o600); err != nil {
		t.Fatal(err)
	}
	engine, err := NewEngine(Options{Dir: filepath.Join(t.TempDir(), "tsdb"), Files: []string{file}, Step: time.Minute, Notify: func(time.Time, []*rules.Alert) {}})
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	const scraped, evaluated, later = 60_000, 64_000, 66_000
	engine.store.advance(scraped)
	app := engine.store.appender(t.Context())
	if err := app.put(engine.up("elements", "a:1"), scraped, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := app.Append(0, labels.FromStrings(labels.MetricName, alertSeries), later, 1); err != nil {
		t.Fatal(err)
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	query, err := engine.queries.NewInstantQuery(t.Context(), engine.store, nil, "up", time.UnixMilli(evaluated))
	if err != nil {
		t.Fatal(err)
	}
	defer query.Close()
	found, err := query.Exec(t.Context()).Vector()
	if err != nil || len(found) != 1 {
		t.Errorf("%v %v", found, err)
	}
}

func TestRulesOvertakeOnlyRulesThatDoNotConcernThem(t *testing.T) {
	const text = `
groups:
  - name: g
    rules:
      - {record: "a", expr: "x"}
      - {record: "b", expr: "a"}
      - {record: "c", expr: "z"}
      - {record: "d", expr: "z"}
      - {record: "c", expr: "y"}
      - {record: "y", expr: "w"}
      - {record: "e", expr: "e + q"}
      - {record: "f", expr: "{job=\"j\"}"}
      - {alert: A, expr: "v > 1"}
      - {alert: B, expr: "v > 2 unless ALERTS{alertname=\"A\"}"}
      - {alert: C, expr: "v > 3 unless ALERTS{alertname=\"D\"}"}
`
	file := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	manager := rules.NewManager(&rules.ManagerOptions{Context: t.Context(), GroupLoader: loader{}, RuleDependencyController: loader{}})
	groups, errs := manager.LoadGroups(time.Minute, labels.EmptyLabels(), "", nil, false, file)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	for _, g := range groups {
		got := newConcurrency().SplitGroupIntoBatches(t.Context(), g)
		// f selects any name, so no rule overtakes it, not even an alert, which writes a series that f can select. c is recorded
		// twice, and the second rule reads the previous y.
		want := []rules.ConcurrentRules{{0, 2, 6}, {1, 3, 4}, {5}, {7}, {8, 10}, {9}}
		if !slices.EqualFunc(got, want, func(a, b rules.ConcurrentRules) bool { return slices.Equal(a, b) }) {
			t.Errorf("%v, want %v", got, want)
		}
	}
}
