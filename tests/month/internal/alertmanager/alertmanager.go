package alertmanager

import (
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/prometheus/alertmanager/config"
	"github.com/prometheus/alertmanager/dispatch"
	amlabels "github.com/prometheus/alertmanager/pkg/labels"
	"github.com/prometheus/alertmanager/timeinterval"
	"github.com/prometheus/common/model"
)

const (
	// logRetention is the default of --data.retention.
	logRetention = 120 * time.Hour
	// alertGCInterval is the default of --alerts.gc-interval.
	alertGCInterval = 30 * time.Minute
)

// Alert is an alert sent by Prometheus.
type Alert struct {
	Labels       map[string]string
	Starts, Ends time.Time
}

type alert struct {
	labels       model.LabelSet
	id           model.Fingerprint
	starts, ends time.Time
}

func (a *alert) isResolved(t time.Time) bool { return !a.ends.IsZero() && !a.ends.After(t) }

type inhibition struct {
	source, target amlabels.Matchers
	equal          []model.LabelName
}

// Receiver contains the properties of a receiver that affect scores.
type Receiver struct {
	SendResolved bool `json:"send_resolved"`
	// Deadman is true for a receiver of alerts that always fire.
	Deadman bool `json:"deadman"`
}

// Alertmanager sends notifications about alerts to receivers.
type Alertmanager struct {
	// Receivers contains the receivers that have an integration, by name.
	Receivers map[string]Receiver
	// Sent counts notifications.
	Sent int

	root       *dispatch.Route
	intervals  *timeinterval.Intervener
	inhibits   []inhibition
	alerts     map[model.Fingerprint]*alert
	groups     map[string]*group
	logged     map[string]*logEntry
	out        *json.Encoder
	writeError error
}

// New loads a configuration. Notifications are written to out, as one JSON object per line.
func New(path string, out io.Writer) (*Alertmanager, error) {
	loaded, err := config.LoadFile(path)
	if err != nil {
		return nil, err
	}
	intervals := map[string][]timeinterval.TimeInterval{}
	for _, i := range loaded.TimeIntervals {
		intervals[i.Name] = i.TimeIntervals
	}
	for _, i := range loaded.MuteTimeIntervals {
		intervals[i.Name] = i.TimeIntervals
	}
	m := &Alertmanager{
		root: dispatch.NewRoute(loaded.Route, nil), intervals: timeinterval.NewIntervener(intervals), Receivers: receivers(loaded),
		alerts: map[model.Fingerprint]*alert{}, groups: map[string]*group{}, logged: map[string]*logEntry{}, out: json.NewEncoder(out),
	}
	for _, r := range loaded.InhibitRules {
		i := inhibition{source: amlabels.Matchers(r.SourceMatchers), target: amlabels.Matchers(r.TargetMatchers)}
		for _, name := range r.Equal {
			i.equal = append(i.equal, model.LabelName(name))
		}
		m.inhibits = append(m.inhibits, i)
	}
	return m, nil
}

// receivers returns the receivers that have an integration.
func receivers(loaded *config.Config) map[string]Receiver {
	found := map[string]Receiver{}
	for _, r := range loaded.Receivers {
		fields := reflect.ValueOf(r)
		for i := range fields.NumField() {
			field := fields.Field(i)
			if field.Kind() != reflect.Slice {
				continue
			}
			for k := range field.Len() {
				if integration, ok := field.Index(k).Interface().(interface{ SendResolved() bool }); ok {
					receiver := found[r.Name]
					receiver.SendResolved = receiver.SendResolved || integration.SendResolved()
					receiver.Deadman = strings.Contains(strings.ToLower(r.Name), "deadman")
					found[r.Name] = receiver
				}
			}
		}
	}
	return found
}

// Err returns the first error that occurred while writing a notification.
func (m *Alertmanager) Err() error { return m.writeError }

// Put handles an alert that arrives at the given time.
func (m *Alertmanager) Put(now time.Time, from Alert) {
	set := model.LabelSet{}
	for k, v := range from.Labels {
		if v != "" {
			set[model.LabelName(k)] = model.LabelValue(v)
		}
	}
	a := &alert{labels: set, id: set.Fingerprint(), starts: from.Starts, ends: from.Ends}
	if old := m.alerts[a.id]; old != nil && !old.isResolved(now) && old.starts.Before(a.starts) {
		a.starts = old.starts
	}
	m.alerts[a.id] = a
	for _, route := range m.root.Match(set) {
		m.addToGroup(now, a, route)
	}
}

// addToGroup adds an alert to its group in a route.
func (m *Alertmanager) addToGroup(now time.Time, a *alert, route *dispatch.Route) {
	by := model.LabelSet{}
	for name, v := range a.labels {
		if _, ok := route.RouteOpts.GroupBy[name]; ok || route.RouteOpts.GroupByAll {
			by[name] = v
		}
	}
	key := route.Key() + ":" + by.String()
	g := m.groups[key]
	if g == nil {
		if a.isResolved(now) {
			return // the group would send nothing
		}
		g = &group{route: route, labels: by, key: key, alerts: map[model.Fingerprint]*alert{}, next: now.Add(route.RouteOpts.GroupWait)}
		m.groups[key] = g
	}
	g.alerts[a.id] = a
	if !g.hasFlushed && a.starts.Add(route.RouteOpts.GroupWait).Before(now) {
		g.next = now
	}
}

// isInhibited returns whether another alert inhibits an alert with these labels.
func (m *Alertmanager) isInhibited(labels model.LabelSet, now time.Time) bool {
	for _, r := range m.inhibits {
		if !r.target.Matches(labels) {
			continue
		}
		isBoth := r.source.Matches(labels)
		for _, source := range m.alerts {
			if source.isResolved(now) || !r.source.Matches(source.labels) || !r.equals(source.labels, labels) {
				continue
			}
			if isBoth && r.target.Matches(source.labels) {
				continue // alerts that are both source and target do not inhibit each other
			}
			return true
		}
	}
	return false
}

func (i inhibition) equals(a, b model.LabelSet) bool {
	for _, name := range i.equal {
		if a[name] != b[name] {
			return false
		}
	}
	return true
}

// RunTo sends the notifications that are due by the given time, and removes alerts that were resolved long ago.
func (m *Alertmanager) RunTo(now time.Time) error {
	for g := m.due(now); g != nil; g = m.due(now) {
		m.flush(g, g.next)
	}
	for id, a := range m.alerts {
		if a.isResolved(now.Add(-alertGCInterval)) {
			delete(m.alerts, id)
		}
	}
	return errors.Join(m.writeError)
}

func (m *Alertmanager) due(now time.Time) *group {
	var first *group
	for _, g := range m.groups {
		if g.next.After(now) {
			continue
		}
		if first == nil || g.next.Before(first.next) || g.next.Equal(first.next) && g.key < first.key {
			first = g
		}
	}
	return first
}
