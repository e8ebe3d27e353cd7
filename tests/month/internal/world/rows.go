package world

import (
	"slices"
	"time"
)

// Row is the row of a module in the job list, with its latest state.
type Row struct {
	Type, Module, Status           int
	ID, Scope                      string
	Start, End, Modified           time.Time
	Total, Failed, Skipped, Warned int
	SizeMB                         int64
	// Scan is true for the row of a tenant scan, which has neither counts nor times.
	Scan bool
}

// CustomersAt returns the customers that are listed at t.
func (w *World) CustomersAt(t time.Time) []*Customer {
	var listed []*Customer
	for _, c := range w.Customers {
		if c.ListedAt(t) {
			listed = append(listed, c)
		}
	}
	return listed
}

// ListedAt returns whether the customer is listed at t.
func (c *Customer) ListedAt(t time.Time) bool {
	return !t.Before(c.From) && t.Before(c.To) && !c.effects.has(effectHidden, t)
}

// JobsAt returns the job list at t from the first or second replica. On the second replica, a module may be missing.
func (c *Customer) JobsAt(t time.Time, second bool) []Row {
	if c.effects.has(effectJobsEmpty, t) {
		return nil
	}
	var rows []Row
	if c.ScanType >= 0 {
		rows = append(rows, Row{Type: c.ScanType, Status: c.ScanStatus, Scan: true})
	}
	newest := map[int]time.Time{}
	for _, m := range c.Modules {
		if !m.ListedAt(t) || second && m == c.replicaHides {
			continue
		}
		row := m.row(t)
		rows = append(rows, row)
		if row.Modified.After(newest[m.Number]) {
			newest[m.Number] = row.Modified
		}
	}
	for i := range rows { // the API reports the time of the module's last change instead of the run's
		if rows[i].Scope != "" && !rows[i].Modified.IsZero() {
			rows[i].Modified = newest[rows[i].Module]
		}
	}
	return rows
}

// ListedAt returns whether the module is listed at t.
func (m *Module) ListedAt(t time.Time) bool { return !t.Before(m.From) && t.Before(m.To) }

func (m *Module) row(t time.Time) Row {
	row := Row{Type: m.Type, Module: m.Number, Scope: m.Scope, Status: StatusUnset}
	if off, ok := m.effects.at(effectDisabled, t); ok {
		row.Status, row.Modified = StatusDisabled, off.from
		return row
	}
	if m.State == Disabled {
		row.Status, row.Modified = StatusDisabled, m.modified
		return row
	}
	run, ok := m.latest(t)
	switch {
	case !ok:
	case t.Before(run.Start):
		row.Status, row.Modified = StatusPending, run.Queued
	case t.Before(run.End):
		row.Status, row.ID, row.Start, row.Modified = StatusRunning, run.ID, run.Start, run.Start
		row.Total = run.Total
	case m.State == NoObjects && m.Number%2 == 0 && run.Status == StatusFinished: // a run without objects has no times
		row.Status, row.Modified = StatusFinished, run.End
	default:
		row.Status, row.ID, row.Start, row.End, row.Modified = run.Status, run.ID, run.Start, run.End, run.End.Add(time.Second)
		row.Total, row.Failed, row.Skipped, row.Warned, row.SizeMB = run.Total, run.Failed, run.Skipped, run.Warned, run.SizeMB
	}
	return row
}

// latest returns the run that changed last. A run changes when it is queued, starts or ends.
func (m *Module) latest(t time.Time) (Run, bool) {
	after, _ := slices.BinarySearchFunc(m.Runs, t, func(r Run, t time.Time) int {
		if r.Queued.After(t) {
			return 1
		}
		return -1
	})
	const overlapping = 8 // maximum number of later runs during a long run
	best, found := Run{}, false
	for i := after - 1; i >= 0 && i >= after-overlapping; i-- {
		if r := m.Runs[i]; !found || changed(r, t).After(changed(best, t)) {
			best, found = r, true
		}
	}
	return best, found
}

func changed(r Run, t time.Time) time.Time {
	switch {
	case t.Before(r.Start):
		return r.Queued
	case t.Before(r.End):
		return r.Start
	}
	return r.End
}

// ProtectedAt returns the numbers of scanned and protected objects and the stored size. It returns false if the module
// has no protected data.
func (m *Module) ProtectedAt(start, t time.Time) (scanned, protected int, storedMB float64, listed bool) {
	if m.Protected < 0 || !m.ListedAt(t) || m.State == Unset || m.State == Active && t.Before(m.firstRun.Add(day)) {
		return 0, 0, 0, false
	}
	days := t.Sub(start).Hours() / 24
	scanned = int(float64(m.Objects) * (1 + .001*days))
	share := m.Protected
	if low, ok := m.effects.at(effectCoverage, t); ok {
		share = low.value
	}
	return scanned, int(float64(scanned) * share), m.SizeMB * (50 + days), true
}

// ReportAt returns the latest scan that has ended by t.
func (p *Profile) ReportAt(t time.Time) (Run, bool) {
	for i := len(p.Scans) - 1; i >= 0; i-- {
		if !p.Scans[i].End.After(t) {
			return p.Scans[i], true
		}
	}
	return Run{}, false
}
