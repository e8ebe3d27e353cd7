package score

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"month/internal/alertmanager"
	"month/internal/world"
)

// verdict states how useful a notification is. The best verdict comes first.
type verdict int

const (
	firstReport  verdict = iota // an incident that had not been reported to the receiver
	repeatReport                // an incident that had been reported to the receiver
	isMinor                     // true, but not about an incident that must be reported
	isFalse
	verdictCount
)

var verdictNames = [verdictCount]string{"first report", "reported again", "true but minor", "false"}

// judged is a notification with new information, and its verdict.
type judged struct {
	notification alertmanager.Notification
	verdict      verdict
	cause        string
}

// judge assigns a verdict to every notification with new information: the best verdict on any of its alerts.
func (r *run) judge() {
	reported := map[string]bool{} // by incident and receiver
	for _, n := range r.notifications {
		if r.receivers[n.Receiver].Deadman {
			continue
		}
		best := judged{notification: n, verdict: verdictCount}
		var reportedNow []string
		for _, a := range n.Alerts {
			matches := r.matching(a.Labels, n.At)
			slices.SortStableFunc(matches, func(x, y *world.Incident) int { // new information first
				return order(reported[x.ID+" "+n.Receiver]) - order(reported[y.ID+" "+n.Receiver])
			})
			if len(matches) > 0 && !matches[0].Quiet {
				r.notices[matches[0].ID] = append(r.notices[matches[0].ID], notice{n.At, n.Receiver, isNewInformation(n, a)})
			}
			if !isNewInformation(n, a) {
				continue
			}
			v, cause := r.verdictOf(a, n, matches, reported)
			if v == firstReport {
				reportedNow = append(reportedNow, matches[0].ID+" "+n.Receiver)
			}
			if v < best.verdict {
				best.verdict, best.cause = v, cause
			}
		}
		for _, key := range reportedNow {
			reported[key] = true
		}
		if best.verdict < verdictCount {
			r.verdicts = append(r.verdicts, best)
		}
	}
}

func order(isLater bool) int {
	if isLater {
		return 1
	}
	return 0
}

func (r *run) verdictOf(a alertmanager.NotifiedAlert, n alertmanager.Notification, matches []*world.Incident, reported map[string]bool) (verdict, string) {
	name := a.Labels["alertname"]
	switch {
	case len(matches) == 0:
		return r.explain(a, n.At)
	case matches[0].Quiet:
		return isMinor, name + ": " + matches[0].Kind
	case reported[matches[0].ID+" "+n.Receiver]:
		return repeatReport, name + ": " + matches[0].Kind
	}
	return firstReport, matches[0].Kind
}

// explain returns the cause of an alert that no incident explains, and whether the alert is true.
func (r *run) explain(a alertmanager.NotifiedAlert, at int64) (verdict, string) {
	name := a.Labels["alertname"]
	near := r.near(at)
	service := strings.TrimPrefix(a.Labels["service"], "Cloud Backup for ")
	key := moduleOf{a.Labels["customer_id"], world.ModuleKey{Service: service, Module: a.Labels["module"], Scope: a.Labels["scope"]}}
	m := r.modules[key]
	switch {
	case strings.HasPrefix(name, "ElementsLicenseExpiring"):
		if r.endsSoon(a.Labels["customer_id"], at) {
			return isMinor, name + ": a subscription that no backup depends on, or that is renewed" + near
		}
	case strings.HasPrefix(name, "ElementsScan"):
		recent := slices.ContainsFunc(r.truth.Scans, func(s Scan) bool {
			return s.Profile == a.Labels["profile_id"] && s.End <= at && at-s.End < int64((50*time.Hour).Seconds())
		})
		if recent {
			return isMinor, name + ": one failed scan" + near
		}
	case strings.HasPrefix(name, "ElementsBackup") && m == nil:
		return r.explainWithoutScope(a, at, near)
	case (strings.HasPrefix(name, "ElementsBackup") || strings.HasPrefix(name, "ElementsModule")) && m != nil:
		return explainBackup(name, m, a.Starts, near)
	}
	return isFalse, name + near
}

// endsSoon returns whether one of a customer's subscriptions ends within a month, or ended within the last month.
func (r *run) endsSoon(customer string, at int64) bool {
	const month = int64(30 * 24 * time.Hour / time.Second)
	return slices.ContainsFunc(r.truth.Licenses, func(l License) bool {
		return l.Customer == customer && l.End-at <= month && at-l.End <= month
	})
}

// explainWithoutScope judges an alert about all scopes of a module, or about all backed-up modules of a customer, by
// the module that justifies it best.
func (r *run) explainWithoutScope(a alertmanager.NotifiedAlert, at int64, near string) (verdict, string) {
	best, cause := isFalse, a.Labels["alertname"]+": no such module"+near
	for i := range r.truth.Modules {
		m := &r.truth.Modules[i]
		isBackedUp := (m.State == world.Active || m.State == world.NoObjects) && at < m.To.Unix()
		isIncluded := m.Key.Module == a.Labels["module"] || a.Labels["module"] == "" && isBackedUp
		if m.Customer != a.Labels["customer_id"] || !isIncluded || a.Labels["scope"] != "" {
			continue
		}
		if v, why := explainBackup(a.Labels["alertname"], m, a.Starts, near); v <= best {
			best, cause = v, why
		}
	}
	return best, cause
}

// near returns a note about an incident that hides or distorts data, or did so shortly before.
func (r *run) near(at int64) string {
	for _, i := range r.truth.Incidents {
		if i.Blinding && at >= i.Start.Unix() && at <= i.End.Add(3*time.Hour).Unix() {
			return " [in or after " + i.Kind + "]"
		}
	}
	return ""
}

// stateWords contains parts of the names of alerts that are true during the whole simulation, by state of the module.
var stateWords = map[world.State][]string{
	world.Disabled: {"SwitchedOff", "Disabled"},
	world.Unset:    {"NotConfigured", "NotStarted"},
	world.Dormant:  {"Abandoned", "Dormant"},
}

// explainBackup judges an alert about a module by the module's state and runs.
func explainBackup(name string, m *Module, at int64, near string) (verdict, string) {
	isOf := func(part string) bool { return strings.Contains(name, part) }
	if slices.ContainsFunc(stateWords[m.State], isOf) {
		return isMinor, name + ": true during the whole simulation"
	}
	if (isOf("Vanished") || isOf("SwitchedOff")) && m.To.Unix() <= at {
		return isMinor, name + ": removed on purpose"
	}
	s := m.stateAt(at)
	switch {
	case strings.Contains(name, "Overdue"):
		limit := m.RPO
		if strings.Contains(name, "Critical") {
			limit *= 2
		}
		if s.restorePoint == 0 {
			return isFalse, name + ": no restore point" + near
		}
		if time.Duration(at-s.restorePoint)*time.Second < limit {
			return isFalse, name + ": RPO not exceeded" + near
		}
		return isMinor, fmt.Sprintf("%s: RPO exceeded, %s%s", name, s.why(), near)
	case strings.Contains(name, "FailingRepeatedly"):
		if s.failures >= 3 {
			return isMinor, name + ": failed by chance" + near
		}
	case strings.Contains(name, "NeverSucceeded"):
		if s.restorePoint == 0 && s.failures > 0 {
			return isMinor, name + ": new module" + near
		}
	case strings.Contains(name, "RunningLong"):
		if s.isRunning {
			return isMinor, name + ": run that completed successfully" + near
		}
	case strings.Contains(name, "Partial"):
		if s.newestFailed > 0 {
			return isMinor, name + ": some objects failed in one run" + near
		}
	case strings.Contains(name, "Failed"):
		if s.failures > 0 {
			return isMinor, name + ": one failed run" + near
		}
	case strings.Contains(name, "Skipped"):
		if s.skips > 0 {
			return isMinor, name + ": runs were skipped" + near
		}
	}
	return isFalse, name + ": not true" + near
}

// moduleState is the state of a module at a given time.
type moduleState struct {
	restorePoint    int64
	failures, skips int
	isRunning       bool
	newestFailed    float64
}

func (m *Module) stateAt(at int64) moduleState {
	s := moduleState{}
	ended := slices.DeleteFunc(slices.Clone(m.Runs), func(r Run) bool {
		s.isRunning = s.isRunning || r.Start <= at && at < r.End
		return r.End > at
	})
	slices.SortFunc(ended, func(a, b Run) int { return int(a.End - b.End) })
	for k, r := range slices.Backward(ended) {
		if k == len(ended)-1 {
			s.newestFailed = r.Failed
		}
		switch {
		case world.IsRestorePoint(r.Status):
			s.restorePoint = r.End
			return s
		case r.Status == world.StatusSkipped:
			s.skips++
		default:
			s.failures++
		}
	}
	return s
}

func (s moduleState) why() string {
	switch {
	case s.failures == 1:
		return "one failed run"
	case s.failures > 1:
		return "failed runs"
	case s.skips > 0:
		return "a skipped run"
	case s.isRunning:
		return "a long run"
	}
	return "a late run"
}
