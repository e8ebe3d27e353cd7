package world

import (
	"fmt"
	"math"
	"math/rand"
	"time"
)

// zones are the time zones of customers. Repeated zones are chosen more often.
var zones = []string{"Europe/Berlin", "Europe/Berlin", "Europe/Amsterdam", "Europe/London", "America/New_York", "America/New_York", "America/Chicago", "Asia/Tokyo", "UTC"}

// Span is the size of a world.
type Span struct {
	Customers, Days int
	Seed            int64
	Start           time.Time
}

// New generates a world.
func New(scenario *Scenario, size Span) (*World, error) {
	w := &World{
		Start: size.Start, End: size.Start.Add(time.Duration(size.Days) * day), Noise: scenario.Noise,
		random: rand.New(rand.NewSource(size.Seed)), scenario: scenario,
		byID: map[string]*Customer{}, affected: map[*Customer]bool{},
	}
	for i := range size.Customers {
		c, err := w.customer(i)
		if err != nil {
			return nil, err
		}
		w.Customers = append(w.Customers, c)
		w.byID[c.ID] = c
	}
	w.plan()
	w.change()
	for _, c := range w.Customers {
		for _, m := range c.Modules {
			w.run(c, m)
		}
		for _, p := range c.Profiles {
			w.scan(p)
		}
	}
	w.addStanding()
	return w, nil
}

func (w *World) customer(i int) (*Customer, error) {
	zone, err := time.LoadLocation(zones[w.random.Intn(len(zones))])
	if err != nil {
		return nil, err
	}
	c := &Customer{
		Index: i, ID: w.uuid(), Email: fmt.Sprintf("owner@customer%d.example", i), Country: "Germany", ScanType: -1,
		ScanStatus: StatusFinished, From: w.Start.Add(-400 * day), To: Forever, zone: zone,
		names: []rename{{time.Time{}, fmt.Sprintf("Customer %04d GmbH", i)}}, Tenants: []string{w.uuid()},
	}
	if w.chance(0.1) {
		c.ScanStatus = StatusException
	}
	if w.chance(0.3) {
		c.Tenants = append(c.Tenants, w.uuid())
	}
	shape := w.shape()
	if shape.Scan != nil {
		c.ScanType = *shape.Scan
	}
	for _, ms := range shape.Modules {
		if w.chance(ms.Share) {
			w.addModules(c, ms)
		}
	}
	for k := 0; float64(k) < shape.Profiles-w.random.Float64(); k++ {
		c.Profiles = append(c.Profiles, &Profile{
			ID: w.uuid(), Name: fmt.Sprintf("Profile %d-%d", i, k), Tenant: c.Tenants[0], Domain: fmt.Sprintf("customer%d.example", i),
			Daily: time.Duration(w.random.Intn(24*60)) * time.Minute,
		})
	}
	w.addLicenses(c, shape)
	if w.chance(w.Noise.Replicas) {
		c.replicaHides = c.Modules[w.random.Intn(len(c.Modules))]
	}
	return c, nil
}

func (w *World) shape() Shape {
	share := w.random.Float64()
	for _, s := range w.scenario.Shapes {
		if share -= s.Share; share < 0 {
			return s
		}
	}
	return w.scenario.Shapes[0]
}

func (w *World) addModules(c *Customer, ms ModuleShape) {
	scopes := 1
	if ms.Scopes > 1 {
		scopes = 1 + w.random.Intn(ms.Scopes)
	}
	for range scopes {
		m := w.module(ms)
		if ms.Scopes > 0 && m.State != Unset {
			m.Scope = fmt.Sprintf("Scope %d-%d", c.Index, len(c.Modules))
		}
		c.Modules = append(c.Modules, m)
		if m.State == Unset || m.State == Disabled {
			return
		}
	}
}

func (w *World) module(ms ModuleShape) *Module {
	r := w.random
	m := &Module{
		Type: ms.Type, Number: ms.Module, State: w.state(ms), From: w.Start.Add(-400 * day), To: Forever,
		firstRun: w.Start.Add(-400 * day), PerDay: []int{1, 1, 1, 1, 2, 2, 3, 4}[r.Intn(8)],
		base:     time.Duration(18*60+r.Intn(12*60)) * time.Minute,
		median:   min(time.Duration(math.Exp(math.Log(20*60)+.8*r.NormFloat64()))*time.Second, 3*time.Hour),
		spread:   .15 + .2*r.Float64(),
		SizeMB:   math.Exp(math.Log(3*1024) + 1.2*r.NormFloat64()),
		Objects:  5 + int(math.Exp(math.Log(200)+1.4*r.NormFloat64())),
		modified: w.Start.Add(-w.between(10*day, 300*day)), failFactor: 1, Protected: -1,
		exceptions: w.chance(w.Noise.Exceptions), weekendQuiet: w.chance(w.Noise.WeekendQuiet),
	}
	if w.chance(w.Noise.AlwaysPartial) {
		m.partial = .02 + .03*r.Float64()
	}
	if w.chance(w.Noise.BadModules) {
		m.failFactor = w.Noise.BadFactor
	}
	if m.Type == TypeMicrosoft365 {
		m.protect(w)
	}
	return m
}

func (m *Module) protect(w *World) {
	m.Protected = .95 + .05*w.random.Float64()
	switch {
	case m.State == Disabled:
		m.Protected, m.Objects = 0, 26+w.random.Intn(10)
	case m.State != Active:
		m.Protected, m.Objects = 0, 0
	case w.chance(w.Noise.LowCoverage):
		m.Protected = .7
	}
}

func (w *World) state(ms ModuleShape) State {
	share := w.random.Float64()
	for _, s := range []struct {
		share float64
		state State
	}{{ms.Disabled, Disabled}, {ms.NoObjects, NoObjects}, {ms.Unset, Unset}, {ms.Dormant, Dormant}} {
		if share -= s.share; share < 0 {
			return s.state
		}
	}
	return Active
}

// addLicenses adds the subscriptions, starting with the one for backups.
func (w *World) addLicenses(c *Customer, shape Shape) {
	seats := 10 + w.random.Intn(300)
	l := &License{Service: shape.License, Backup: true, Seats: seats, Assigned: seats - w.random.Intn(1+seats/8)}
	if w.chance(w.Noise.UnusedSeats) {
		l.Assigned = seats * 6 / 10
	}
	w.dateLicense(l)
	c.Licenses = []*License{l}
	c.TenantSeats = l.Assigned
	c.LicenseEnd = w.Start.Truncate(day).Add(time.Duration(3+w.random.Intn(362))*day + 12*time.Hour)
	if len(w.scenario.Products.Others) == 0 {
		return
	}
	for _, k := range w.random.Perm(len(w.scenario.Products.Others))[:w.random.Intn(1+min(w.scenario.Products.Most, len(w.scenario.Products.Others)))] {
		c.Licenses = append(c.Licenses, &License{Service: w.scenario.Products.Others[k], Seats: 1 + w.random.Intn(20), Assigned: c.TenantSeats, Expires: c.LicenseEnd})
	}
}

// dateLicense sets the end of a one-year subscription, and the time of its renewal some days earlier.
func (w *World) dateLicense(l *License) {
	lead := []int{1, 3, 5, 10, 14, 20, 25}[w.random.Intn(7)]
	l.Expires = w.Start.Truncate(day).Add(time.Duration(3+w.random.Intn(362))*day + 12*time.Hour)
	l.renewed = l.Expires.Add(-time.Duration(lead)*day - 3*time.Hour + w.between(0, 8*time.Hour))
	l.renewedTo = l.Expires.AddDate(1, 0, 0)
}

// EndsAt returns the end of a subscription as listed at t.
func (l *License) EndsAt(t time.Time) time.Time {
	if !l.renewed.IsZero() && !t.Before(l.renewed) {
		return l.renewedTo
	}
	return l.Expires
}

// AssignedAt returns the number of seats in use at t.
func (l *License) AssignedAt(t time.Time) int {
	if l.effects.has(effectSeatsOver, t) {
		return l.Seats + 1 + l.Seats/20
	}
	return l.Assigned
}

func (w *World) chance(p float64) bool { return w.random.Float64() < p }

func (w *World) uuid() string {
	b := make([]byte, 16)
	w.random.Read(b)
	b[6], b[8] = b[6]&0xf|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
