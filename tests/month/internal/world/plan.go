package world

import (
	"fmt"
	"math"
	"slices"
	"time"
)

const (
	// fleetGap is the minimum time between two incidents that affect the whole fleet, so that alerts can be attributed to
	// one of them.
	fleetGap = 3 * time.Hour
	// shortSpan is the length below which a period is short. In a short period, incidents that affect the whole fleet have
	// their minimum duration, so that most kinds fit.
	shortSpan = 8 * day
	// settling is the time without incidents at both ends of the period.
	settling = 8 * time.Hour
	// tail is the time that must remain after an incident's notification is due.
	tail = 2 * time.Hour
	// perMonth and perCustomers are the period and the number of customers to which a scenario's counts refer.
	perMonth     = 30 * day
	perCustomers = 100
	// In a small fleet, a larger proportion of the customers may have incidents, so that a short run contains every
	// kind.
	smallFleet        = 30
	maxShareSmall     = 0.85
	maxShareLarge     = 0.5
	selectionAttempts = 4000
	placementAttempts = 200
)

// plan places the scenario's incidents. Every kind is placed once before any is placed twice.
func (w *World) plan() {
	kinds := slices.Clone(w.scenario.Incidents)
	w.random.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
	slices.SortStableFunc(kinds, func(a, b Kind) int {
		switch {
		case a.isSelective() == b.isSelective():
			return 0
		case a.isSelective():
			return -1
		}
		return 1
	})
	span := w.End.Sub(w.Start)
	scale := float64(span) / float64(perMonth)
	left := map[int]int{}
	for i, k := range kinds {
		factor := scale
		if effects[k.Effect].subject != onFleet {
			factor *= float64(len(w.Customers)) / perCustomers
		}
		left[i] = max(1, int(math.Round(k.Count*factor)))
	}
	fleet := &timetable{from: w.Start.Add(settling), to: w.End.Add(-settling)}
	for placed := true; placed; {
		placed = false
		for i := range kinds {
			if left[i] == 0 {
				continue
			}
			left[i]--
			if w.place(&kinds[i], fleet) {
				placed = true
			} else {
				left[i] = 0
				w.Unplaced = append(w.Unplaced, kinds[i].Name)
			}
		}
	}
}

// isSelective returns whether only a few customers are suitable for a kind. Such kinds are placed first.
func (k *Kind) isSelective() bool { return k.Where.MinScopes > 0 || k.Where.Type != nil }

func (w *World) place(k *Kind, fleet *timetable) bool {
	e := effects[k.Effect]
	duration := w.between(time.Duration(k.Lasts[0]), time.Duration(k.Lasts[1]))
	incident := w.incidentOf(k, e.subject)
	if e.subject == onFleet || e.subject == onService {
		if w.End.Sub(w.Start) < shortSpan {
			duration = time.Duration(k.Lasts[0])
		}
		start, ok := fleet.reserve(w, duration, time.Duration(k.Within))
		if !ok {
			return false
		}
		incident.Start, incident.End = start, start.Add(duration)
		e.apply(w, incident, nil, w.anyModule(k.Where))
		w.add(incident)
		return true
	}
	latest := w.End.Add(-time.Duration(k.Within) - tail)
	earliest := w.Start.Add(max(settling, time.Duration(k.After)))
	if !latest.After(earliest) {
		return false
	}
	c, m := w.selectModule(k, e.subject)
	if c == nil {
		return false
	}
	incident.Start = earliest.Add(w.between(0, latest.Sub(earliest))).Truncate(time.Minute)
	incident.End = incident.Start.Add(duration)
	incident.Customer = c.ID
	e.apply(w, incident, c, m)
	w.add(incident)
	return true
}

func (w *World) incidentOf(k *Kind, subject Subject) *Incident {
	i := &Incident{
		Kind: k.Name, Subject: subject, Effect: k.Effect, Within: time.Duration(k.Within), Grace: time.Duration(k.Grace),
		Quiet: k.Quiet, Blinding: k.Blinding, Note: k.Note, With: k.With, Text: k.Text,
	}
	for _, p := range k.Expect {
		i.Expect = append(i.Expect, p.String())
	}
	return i
}

func (w *World) add(i *Incident) {
	i.ID = fmt.Sprintf("%s-%d", i.Kind, len(w.Incidents))
	w.Incidents = append(w.Incidents, i)
}

// timetable ensures a gap between incidents that affect the whole fleet.
type timetable struct {
	from, to time.Time
	reserved [][2]time.Time
}

func (t *timetable) reserve(w *World, duration, within time.Duration) (time.Time, bool) {
	room := t.to.Sub(t.from) - max(duration, within)
	if room <= 0 {
		return time.Time{}, false
	}
	for range placementAttempts {
		start := t.from.Add(w.between(0, room)).Truncate(time.Minute)
		end := start.Add(duration)
		free := !slices.ContainsFunc(t.reserved, func(s [2]time.Time) bool {
			return start.Before(s[1].Add(fleetGap)) && s[0].Before(end.Add(fleetGap))
		})
		if free {
			t.reserved = append(t.reserved, [2]time.Time{start, end})
			return start, true
		}
	}
	return time.Time{}, false
}

// selectModule selects a customer without an incident, and one of its modules.
func (w *World) selectModule(k *Kind, subject Subject) (*Customer, *Module) {
	share := maxShareLarge
	if len(w.Customers) <= smallFleet {
		share = maxShareSmall
	}
	if float64(len(w.affected)) >= share*float64(len(w.Customers)) {
		return nil, nil
	}
	for range selectionAttempts {
		c := w.Customers[w.random.Intn(len(w.Customers))]
		if w.affected[c] || (subject == onProfile && len(c.Profiles) == 0) {
			continue
		}
		fits := k.Where.modules(c)
		if len(fits) == 0 {
			continue
		}
		w.affected[c] = true
		return c, fits[w.random.Intn(len(fits))]
	}
	return nil, nil
}

func (w *World) anyModule(where Where) *Module {
	if where.Modules == nil {
		return nil
	}
	return &Module{Number: where.Modules[w.random.Intn(len(where.Modules))]}
}

// modules returns a customer's active modules that an incident may affect.
func (where Where) modules(c *Customer) []*Module {
	var fits []*Module
	active := 0
	scopes := map[int]int{}
	for _, m := range c.Modules {
		if m.State == Active {
			active++
			scopes[m.Number]++
		}
	}
	for _, m := range c.Modules {
		switch {
		case m.State != Active,
			active < where.MinModules,
			scopes[m.Number] < where.MinScopes,
			where.Type != nil && m.Type != *where.Type,
			where.Modules != nil && !slices.Contains(where.Modules, m.Number),
			where.PerDay != nil && !slices.Contains(where.PerDay, m.PerDay):
		default:
			fits = append(fits, m)
		}
	}
	return fits
}

func (w *World) between(low, high time.Duration) time.Duration {
	if high <= low {
		return low
	}
	return low + time.Duration(w.random.Int63n(int64(high-low)))
}
