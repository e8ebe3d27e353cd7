package world

import (
	"fmt"
	"math"
	"slices"
	"time"
)

const (
	// history is how long before the period the first runs take place. Runs within this time do not fail.
	history = 12 * day
	// overrun is how long runs continue after the period, so that its last days are like the others.
	overrun = 2 * day
	// shortest is the minimum duration of a run.
	shortest = 5 * time.Second
	// maxQueued is the maximum time for which a run is queued.
	maxQueued = 45 * time.Minute
)

// slots returns the planned starts of a module's runs, based on the customer's local time.
func (w *World) slots(c *Customer, m *Module) []time.Time {
	from, to := w.Start.Add(-history), w.End.Add(overrun)
	if m.firstRun.After(from) {
		from = m.firstRun
	}
	for _, end := range []time.Time{m.To, c.To} {
		if end.Before(to) {
			to = end
		}
	}
	var starts []time.Time
	local := from.In(c.zone)
	for d := time.Date(local.Year(), local.Month(), local.Day()-2, 0, 0, 0, 0, c.zone); d.Before(to); d = d.AddDate(0, 0, 1) {
		for k := range m.PerDay {
			minute := int(m.base.Minutes()) + k*24*60/m.PerDay
			t := time.Date(d.Year(), d.Month(), d.Day(), 0, minute, 0, 0, c.zone)
			t = t.Add(time.Duration(w.random.NormFloat64()*3*60) * time.Second)
			isWeekend := t.Weekday() == time.Saturday || t.Weekday() == time.Sunday
			if t.Before(from) || !t.Before(to) || c.WeekendOff && isWeekend {
				continue
			}
			starts = append(starts, t.UTC())
		}
	}
	slices.SortFunc(starts, time.Time.Compare)
	return starts
}

// run generates the runs of a module.
func (w *World) run(c *Customer, m *Module) {
	switch m.State {
	case Disabled, Unset:
		return
	case Dormant:
		start := w.Start.Add(-w.between(150*day, 700*day))
		status := []int{StatusFinished, StatusFailed}[w.random.Intn(2)]
		m.Runs = []Run{{ID: w.runID(start), Start: start, End: start.Add(m.median), Status: status, Total: 1, SizeMB: int64(m.SizeMB)}}
		return
	}
	queues := w.chance(w.Noise.Pending)
	first := m.firstRun.After(w.Start)
	var busy time.Time
	wasLong := false
	for _, start := range w.slots(c, m) {
		if m.effects.has(effectSilent, start) || m.effects.has(effectDisabled, start) {
			continue
		}
		run := Run{ID: w.runID(start), Queued: start, Start: start, Status: StatusFinished}
		if start.Before(busy) {
			run.End, run.Status = start.Add(w.between(5*time.Second, 25*time.Second)), StatusSkipped
			m.Runs = append(m.Runs, run)
			continue
		}
		if queues {
			run.Queued = start.Add(-w.between(0, maxQueued))
			if run.Queued.Before(busy) {
				run.Queued = busy
			}
		}
		duration := time.Duration(float64(m.median) * math.Exp(m.spread*w.random.NormFloat64()))
		switch {
		case first:
			duration, first = w.between(8*time.Hour, 24*time.Hour), false
		case !start.Before(w.Start) && !wasLong && w.chance(w.Noise.RunTakesLong):
			duration, wasLong = duration*time.Duration(3+w.random.Intn(7)), true
		default:
			wasLong = false
		}
		w.finish(c, m, &run, duration)
		busy = run.End
		m.Runs = append(m.Runs, run)
	}
}

func (w *World) runID(start time.Time) string {
	return fmt.Sprintf("IB%s%05d", start.Format("060102150405"), w.random.Intn(100000))
}

// finish decides how a run ends.
func (w *World) finish(c *Customer, m *Module, run *Run, duration time.Duration) {
	r := w.random
	if stall, ok := m.effects.at(effectStall, run.Start); ok {
		duration += stall.to.Sub(run.Start) + w.between(0, 2*time.Hour)
	}
	run.Total = int(float64(m.Objects) * (.97 + .06*r.Float64()))
	size := m.SizeMB * math.Exp(.25*r.NormFloat64())
	if weekday := run.Start.In(c.zone).Weekday(); m.weekendQuiet && (weekday == time.Saturday || weekday == time.Sunday) {
		size, run.Total = size/4, run.Total/2
	}
	if m.State == NoObjects {
		run.Total, size, duration = 0, 0, 0
	}
	if m.exceptions {
		if failed := 1 + int(float64(run.Total)*.004*r.Float64()); failed*150 <= run.Total {
			run.Status, run.Failed = StatusException, failed
		}
	}
	if m.partial > 0 {
		run.Status, run.Failed = StatusException, 1+int(float64(run.Total)*m.partial)
	}
	noisy := !run.Start.Before(w.Start) && m.State == Active
	massFail, isMass := m.effects.at(effectMassFail, run.Start.Add(duration/2))
	stuck, isStuck := m.effects.at(effectStuck, run.Start)
	switch {
	case isStuck:
		duration = stuck.to.Sub(run.Start)
	case m.effects.has(effectConsent, run.Start):
		run.Status, run.Total, run.Failed, size, duration = StatusFailed, 0, 0, 0, min(duration, time.Minute)
	case m.effects.has(effectFail, run.Start), isMass && w.chance(massFail.value),
		noisy && w.chance(w.Noise.RunFails*m.failFactor):
		w.fail(run)
		duration, size = duration/4, 0
	case m.effects.has(effectPartial, run.Start):
		run.Status, run.Failed = StatusException, 2+run.Total*(3+r.Intn(6))/100
	case m.effects.has(effectCollapse, run.Start):
		run.Status, run.Failed, run.Total, size = StatusFinished, 0, run.Total/50, 0
	case noisy && w.chance(w.Noise.RunPartial):
		run.Status, run.Failed = StatusException, 2+run.Total*(2+r.Intn(8))/100
	}
	if m.State != NoObjects {
		duration = max(duration, shortest)
	}
	run.End = run.Start.Add(duration).Truncate(time.Second)
	run.SizeMB = int64(size)
	if IsRestorePoint(run.Status) && m.State == Active {
		run.Skipped, run.Warned = r.Intn(5), r.Intn(3)
	}
}

// fail chooses how a run fails: while it processes objects, before the first object, before it starts, or by
// cancellation.
func (w *World) fail(run *Run) {
	run.Failed = 0
	switch w.random.Intn(5) {
	case 0, 1:
		run.Status, run.Failed = StatusFailed, run.Total
	case 2:
		run.Status, run.Total = StatusFailed, 0
	case 3:
		run.Status, run.Total = StatusNotStarted, 0
	default:
		run.Status, run.Total = StatusCanceled, 0
	}
}

// IsRestorePoint returns whether a run with this status created a restore point.
func IsRestorePoint(status int) bool { return status == StatusFinished || status == StatusException }

// scan generates a profile's daily scans.
func (w *World) scan(p *Profile) {
	for d := w.Start.Add(-5 * day).Truncate(day); d.Before(w.End.Add(overrun)); d = d.Add(day) {
		start := d.Add(p.Daily)
		if p.effects.has(effectScanSilent, start) {
			continue
		}
		status := StatusFinished
		if p.effects.has(effectScanFails, start) || start.After(w.Start) && w.chance(w.Noise.ScanFails) {
			status = []int{StatusFailed, StatusFailed, StatusNotStarted}[w.random.Intn(3)]
		}
		p.Scans = append(p.Scans, Run{Start: start, End: start.Add(w.between(10*time.Minute, 70*time.Minute)), Status: status})
	}
}
