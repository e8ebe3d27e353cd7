package alertmanager

import (
	"slices"
	"strings"
	"time"

	"github.com/prometheus/alertmanager/dispatch"
	"github.com/prometheus/common/model"
)

type group struct {
	route      *dispatch.Route
	labels     model.LabelSet
	key        string
	alerts     map[model.Fingerprint]*alert
	next       time.Time
	hasFlushed bool
}

// logEntry is the latest notification to a receiver about a group.
type logEntry struct {
	firing, resolved map[model.Fingerprint]bool
	at, expires      time.Time
}

// Reasons for a notification.
const (
	KindNew            = "new"
	KindMore           = "more"
	KindRepeat         = "repeat"
	KindResolved       = "resolved"
	KindPartlyResolved = "partly_resolved"
)

// Notification informs a receiver about the alerts of a group.
type Notification struct {
	At        int64             `json:"at"` // Unix seconds
	Receiver  string            `json:"receiver"`
	Kind      string            `json:"kind"`
	Group     map[string]string `json:"group"`
	Alerts    []NotifiedAlert   `json:"alerts"`
	Inhibited int               `json:"inhibited,omitempty"` // number of inhibited alerts in the group
}

// NotifiedAlert is an alert in a notification.
type NotifiedAlert struct {
	Labels map[string]string `json:"labels"`
	State  string            `json:"state"` // new, firing or resolved
	Starts int64             `json:"starts"`
}

// States of alerts in notifications.
const (
	StateNew      = "new"
	StateFiring   = "firing"
	StateResolved = "resolved"
)

// flush handles a group that is due. It sends a notification if the receiver must be notified.
func (m *Alertmanager) flush(g *group, now time.Time) {
	g.next = now.Add(g.route.RouteOpts.GroupInterval)
	g.hasFlushed = true
	var firing, resolved []*alert
	inhibited := 0
	for _, id := range sortedIDs(g.alerts) {
		a := g.alerts[id]
		switch {
		case m.isInhibited(a.labels, now):
			inhibited++
		case a.isResolved(now):
			resolved = append(resolved, a)
		default:
			firing = append(firing, a)
		}
	}
	if !m.isMuted(g.route, now) {
		m.notify(g, now, firing, resolved, inhibited)
	}
	for id, a := range g.alerts { // including alerts that were not sent
		if a.isResolved(now) {
			delete(g.alerts, id)
		}
	}
	if len(g.alerts) == 0 {
		delete(m.groups, g.key)
	}
}

func sortedIDs(alerts map[model.Fingerprint]*alert) []model.Fingerprint {
	ids := make([]model.Fingerprint, 0, len(alerts))
	for id := range alerts {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// isMuted returns whether a route is muted by its time intervals.
func (m *Alertmanager) isMuted(route *dispatch.Route, now time.Time) bool {
	if muted, _, err := m.intervals.Mutes(route.RouteOpts.MuteTimeIntervals, now); err == nil && muted {
		return true
	}
	if len(route.RouteOpts.ActiveTimeIntervals) == 0 {
		return false
	}
	active, _, err := m.intervals.Mutes(route.RouteOpts.ActiveTimeIntervals, now)
	return err == nil && !active
}

func (m *Alertmanager) notify(g *group, now time.Time, firing, resolved []*alert, inhibited int) {
	name := g.route.RouteOpts.Receiver
	receiver, exists := m.Receivers[name]
	if !exists || len(firing)+len(resolved) == 0 {
		return
	}
	logKey := name + "|" + g.key
	last := m.logged[logKey]
	if last != nil && last.expires.Before(now) {
		last = nil
	}
	kind := last.update(firing, resolved, receiver.SendResolved, now.Add(-g.route.RouteOpts.RepeatInterval))
	if kind == "" {
		return
	}
	m.logged[logKey] = &logEntry{
		firing: ids(firing), resolved: ids(resolved), at: now, expires: now.Add(min(2*g.route.RouteOpts.RepeatInterval, logRetention)),
	}
	if len(firing) == 0 && !receiver.SendResolved {
		return
	}
	n := Notification{At: now.Unix(), Receiver: name, Kind: kind, Group: toStrings(g.labels), Inhibited: inhibited}
	for _, a := range firing {
		state := StateFiring
		if last == nil || !last.firing[a.id] {
			state = StateNew
		}
		n.Alerts = append(n.Alerts, a.inState(state))
	}
	if receiver.SendResolved {
		for _, a := range resolved {
			n.Alerts = append(n.Alerts, a.inState(StateResolved))
		}
	}
	slices.SortStableFunc(n.Alerts, func(a, b NotifiedAlert) int {
		return strings.Compare(a.Labels["module"]+a.Labels["customer_id"], b.Labels["module"]+b.Labels["customer_id"])
	})
	m.Sent++
	if err := m.out.Encode(n); err != nil && m.writeError == nil {
		m.writeError = err
	}
}

// update returns the kind of the notification that is due, or an empty string if none is.
func (e *logEntry) update(firing, resolved []*alert, sendResolved bool, repeatBefore time.Time) string {
	switch {
	case e == nil:
		if len(firing) > 0 {
			return KindNew
		}
	case !isSubset(firing, e.firing):
		if len(e.firing) == 0 {
			return KindNew
		}
		return KindMore
	case len(firing) == 0:
		if len(e.firing) > 0 {
			return KindResolved
		}
	case sendResolved && !isSubset(resolved, e.resolved):
		return KindPartlyResolved
	case e.at.Before(repeatBefore):
		return KindRepeat
	}
	return ""
}

func isSubset(alerts []*alert, of map[model.Fingerprint]bool) bool {
	return !slices.ContainsFunc(alerts, func(a *alert) bool { return !of[a.id] })
}

func ids(alerts []*alert) map[model.Fingerprint]bool {
	set := map[model.Fingerprint]bool{}
	for _, a := range alerts {
		set[a.id] = true
	}
	return set
}

func (a *alert) inState(state string) NotifiedAlert {
	return NotifiedAlert{Labels: toStrings(a.labels), State: state, Starts: a.starts.Unix()}
}

func toStrings(set model.LabelSet) map[string]string {
	plain := map[string]string{}
	for k, v := range set {
		plain[string(k)] = string(v)
	}
	return plain
}
