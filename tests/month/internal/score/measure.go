package score

import (
	"slices"
	"strings"
	"time"

	"month/internal/alertmanager"
	"month/internal/world"
)

const (
	// edge is a period at the end of a run. Incidents that start within it are not scored, because their alerts may
	// fire after the end.
	edge = 6 * time.Hour
	// flapWithin is the time within which an alert that fires again counts as flapping.
	flapWithin = 3 * 24 * time.Hour
	// stormSize is the number of notifications to a receiver within an hour that counts as a storm.
	stormSize = 10
	// minPlatformCustomers is the minimum number of affected customers for which a platform failure is counted. Fewer
	// could fail by chance.
	minPlatformCustomers = 5
	// resolveWithin is the time within which a receiver must be notified that an alert has resolved: the longest group
	// interval in use, plus a margin.
	resolveWithin = 26 * time.Hour
)

// Score is the result of scoring a run.
type Score struct {
	Days      float64
	Customers int
	Modules   int
	Messages  int
	Unplaced  []string
	Kinds     []KindScore
	Receivers []ReceiverScore
	Causes    []Cause
	Flaps     []Cause
	// MissedResolves are the alerts that were never reported as resolved.
	MissedResolves []Cause
	Problems       []string
	// Listed are the notifications with new information that are not the first report of an incident.
	Listed []Message
}

// Message is a notification with new information, its verdict and its alerts.
type Message struct {
	At                       time.Time
	Receiver, Verdict, Cause string
	Alerts                   []string
}

// KindScore is the recall of a kind of incident.
type KindScore struct {
	Kind                        string
	Quiet                       bool
	Incidents, Reported, InTime int
	Median, Worst               time.Duration
	Messages                    int // notifications of any kind to any receiver
	Missed                      []string
}

// ReceiverScore is the result for one receiver.
type ReceiverScore struct {
	Receiver  string
	Verdicts  [verdictCount]int
	PerDay    float64
	WorstDay  int
	WorstHour int
	Storms    int // hours
	ByKind    map[string]int
}

// Cause is a reason, with its frequency.
type Cause struct {
	Text  string
	Count int
	First time.Time
}

func (r *run) measure() *Score {
	s := &Score{
		Days: r.truth.End.Sub(r.truth.Start).Hours() / 24, Customers: len(r.truth.Names), Modules: len(r.truth.Modules), Unplaced: r.truth.Unplaced,
	}
	byKind := map[string][]*world.Incident{}
	for _, i := range r.truth.Incidents {
		if i.Subject == onService && r.countFailed(i) < minPlatformCustomers && r.countHung(i) < minPlatformCustomers {
			s.Unplaced = append(s.Unplaced, i.Kind+" (affected fewer than five customers)")
			continue
		}
		if i.Start.Before(r.truth.End.Add(-edge)) {
			byKind[i.Kind] = append(byKind[i.Kind], i)
		}
	}
	for kind, incidents := range byKind {
		s.Kinds = append(s.Kinds, r.recall(kind, incidents))
	}
	slices.SortFunc(s.Kinds, func(a, b KindScore) int { return strings.Compare(a.Kind, b.Kind) })
	for name, receiver := range r.receivers {
		if !receiver.Deadman {
			s.Receivers = append(s.Receivers, r.receiver(name))
		}
	}
	slices.SortFunc(s.Receivers, func(a, b ReceiverScore) int { return strings.Compare(a.Receiver, b.Receiver) })
	for _, x := range s.Receivers {
		for _, n := range x.ByKind {
			s.Messages += n
		}
	}
	s.Causes = r.causes()
	s.Listed = r.listed()
	s.Flaps = r.flaps()
	s.MissedResolves = r.missedResolves()
	return s
}

// countFailed counts the customers for which a run of the affected module ended without a restore point during the
// incident, or up to an hour after it.
func (r *run) countFailed(i *world.Incident) int {
	return r.countAffected(i, func(x Run) bool {
		return !world.IsRestorePoint(x.Status) && x.End >= i.Start.Unix() && x.End <= i.End.Add(time.Hour).Unix()
	})
}

// countHung counts the customers for which a run of the affected module started during the incident, ended after it,
// and took more than three hours.
func (r *run) countHung(i *world.Incident) int {
	const hours = int64(3 * time.Hour / time.Second)
	return r.countAffected(i, func(x Run) bool {
		return x.Start >= i.Start.Unix() && x.Start < i.End.Unix() && x.End >= i.End.Unix() && x.End-x.Start > hours
	})
}

func (r *run) countAffected(i *world.Incident, isAffected func(Run) bool) int {
	customers := map[string]bool{}
	for _, m := range r.truth.Modules {
		if m.Key.Module == i.Service && slices.ContainsFunc(m.Runs, isAffected) {
			customers[m.Customer] = true
		}
	}
	return len(customers)
}

// recall returns which incidents of a kind were reported, and when. Time without data extends an incident's time limit.
func (r *run) recall(kind string, incidents []*world.Incident) KindScore {
	k := KindScore{Kind: kind, Quiet: incidents[0].Quiet, Incidents: len(incidents)}
	var delays []time.Duration
	for _, i := range incidents {
		first := int64(0)
		messages := map[notice]bool{}
		for _, t := range r.notices[i.ID] {
			messages[notice{at: t.at, receiver: t.receiver}] = true
			if t.isFirst && (first == 0 || t.at < first) {
				first = t.at
			}
		}
		k.Messages += len(messages)
		if first == 0 {
			k.Missed = append(k.Missed, i.Start.Format("02 15:04")+" "+r.truth.Names[i.Customer]+" "+i.Service+modulesOf(i)+i.Note)
			continue
		}
		delay := time.Unix(first, 0).Sub(i.Start)
		delays = append(delays, delay)
		k.Reported++
		if delay <= i.Within+r.blindTime(i) {
			k.InTime++
		}
	}
	slices.Sort(delays)
	if len(delays) > 0 {
		k.Median, k.Worst = delays[len(delays)/2], delays[len(delays)-1]
	}
	return k
}

func modulesOf(i *world.Incident) string {
	var names []string
	for _, m := range i.Modules {
		names = append(names, m.Module)
	}
	return strings.Join(names, ", ")
}

// blindTime returns the time without data between the start of an incident and its time limit. This time
// extends the limit, so time without data during the extension counts as well.
func (r *run) blindTime(i *world.Incident) time.Duration {
	var blind time.Duration
	for {
		until := r.blindTimeUntil(i, i.Start.Add(i.Within+blind))
		if until == blind {
			return blind
		}
		blind = until
	}
}

func (r *run) blindTimeUntil(i *world.Incident, to time.Time) time.Duration {
	var sum time.Duration
	for _, b := range r.truth.Incidents {
		if !b.Blinding || b == i {
			continue
		}
		start, end := latest(i.Start, b.Start), earliest(to, b.End.Add(time.Hour))
		if end.After(start) {
			sum += end.Sub(start)
		}
	}
	return sum
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (r *run) receiver(name string) ReceiverScore {
	s := ReceiverScore{Receiver: name, ByKind: map[string]int{}}
	days, hours := map[int64]int{}, map[int64]int{}
	all := 0
	for _, n := range r.notifications {
		if n.Receiver == name {
			all++
			s.ByKind[n.Kind]++
			days[(n.At-r.truth.Start.Unix())/86400]++
			hours[n.At/3600]++
		}
	}
	for _, n := range days {
		s.WorstDay = max(s.WorstDay, n)
	}
	for _, n := range hours {
		s.WorstHour = max(s.WorstHour, n)
		if n >= stormSize {
			s.Storms++
		}
	}
	s.PerDay = float64(all) / (r.truth.End.Sub(r.truth.Start).Hours() / 24)
	for _, j := range r.verdicts {
		if j.notification.Receiver == name {
			s.Verdicts[j.verdict]++
		}
	}
	return s
}

func (r *run) causes() []Cause {
	count := counter{}
	for _, j := range r.verdicts {
		if j.verdict != firstReport {
			count.add(verdictNames[j.verdict]+": "+j.cause, j.notification.At)
		}
	}
	return count.sorted()
}

func (r *run) listed() []Message {
	var listed []Message
	for _, j := range r.verdicts {
		if j.verdict == firstReport {
			continue
		}
		m := Message{At: time.Unix(j.notification.At, 0).UTC(), Receiver: j.notification.Receiver, Verdict: verdictNames[j.verdict], Cause: j.cause}
		for _, a := range j.notification.Alerts {
			if isNewInformation(j.notification, a) {
				m.Alerts = append(m.Alerts, r.describe(a))
			}
		}
		listed = append(listed, m)
	}
	return listed
}

// describe returns the name, the subject and the start of an alert.
func (r *run) describe(a alertmanager.NotifiedAlert) string {
	text := a.Labels["alertname"]
	for _, name := range []string{"module", "scope", "profile_id", "collector", "since"} {
		if value := a.Labels[name]; value != "" {
			text += " " + name + "=" + value
		}
	}
	if customer := a.Labels["customer_id"]; customer != "" {
		text += " of " + r.truth.Names[customer]
	}
	return text + " since " + time.Unix(a.Starts, 0).UTC().Format("02 15:04")
}

// flaps returns the alerts that were reported as new again within flapWithin.
func (r *run) flaps() []Cause {
	last := map[string]int64{}
	count := counter{}
	for _, n := range r.notifications {
		if r.receivers[n.Receiver].Deadman {
			continue
		}
		for _, a := range n.Alerts {
			if !isNewInformation(n, a) {
				continue
			}
			key := n.Receiver + subject(a.Labels)
			if before, ok := last[key]; ok && time.Duration(n.At-before)*time.Second < flapWithin {
				count.add(a.Labels["alertname"]+" to "+n.Receiver, n.At)
			}
			last[key] = n.At
		}
	}
	return count.sorted()
}

// missedResolves returns the alerts that were reported and then resolved, but were never reported as resolved.
func (r *run) missedResolves() []Cause {
	resolvedAt := map[string]int64{} // when alerts that are not firing were resolved
	for _, t := range r.alerts {
		if t.State == alertmanager.StateResolved {
			resolvedAt[identity(t.Labels)] = t.At
		} else {
			delete(resolvedAt, identity(t.Labels))
		}
	}
	open := map[string]map[string]alertmanager.NotifiedAlert{}
	for _, n := range r.notifications {
		if x := r.receivers[n.Receiver]; x.Deadman || !x.SendResolved {
			continue
		}
		if open[n.Receiver] == nil {
			open[n.Receiver] = map[string]alertmanager.NotifiedAlert{}
		}
		for _, a := range n.Alerts {
			if a.State == alertmanager.StateResolved {
				delete(open[n.Receiver], identity(a.Labels))
			} else {
				open[n.Receiver][identity(a.Labels)] = a
			}
		}
	}
	count := counter{}
	for name, alerts := range open {
		for key, a := range alerts {
			if at, ok := resolvedAt[key]; ok && time.Unix(at, 0).Add(resolveWithin).Before(r.truth.End) {
				count.add(a.Labels["alertname"]+" to "+name, at)
			}
		}
	}
	return count.sorted()
}
