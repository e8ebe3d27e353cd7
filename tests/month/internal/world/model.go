package world

import (
	"math/rand"
	"time"
)

const day = 24 * time.Hour

// Forever is the end of open-ended periods.
var Forever = time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)

// World is a partner with all events in a period.
type World struct {
	Start, End time.Time
	Customers  []*Customer
	Incidents  []*Incident
	// Unplaced contains the kinds of incidents for which there was no suitable customer or time.
	Unplaced []string
	Noise    Noise

	random   *rand.Rand
	scenario *Scenario
	byID     map[string]*Customer
	affected map[*Customer]bool
}

// Customer returns the customer with an id, or nil.
func (w *World) Customer(id string) *Customer { return w.byID[id] }

// Customer is an organization.
type Customer struct {
	Index              int
	ID, Email, Country string
	Tenants            []string
	From, To           time.Time
	Modules            []*Module
	Licenses           []*License
	Profiles           []*Profile
	ScanType           int // job type of the scan, or -1 for none
	ScanStatus         int
	WeekendOff         bool
	LicenseEnd         time.Time // end of subscriptions to services other than backups
	TenantSeats        int       // Microsoft licences in the tenant
	names              []rename
	zone               *time.Location
	effects            effectList
	replicaHides       *Module
}

type rename struct {
	at   time.Time
	name string
}

// Organization returns the name at t.
func (c *Customer) Organization(t time.Time) string {
	name := ""
	for _, r := range c.names {
		if !t.Before(r.at) {
			name = r.name
		}
	}
	return name
}

// Module is a module, or a backup scope of a module.
type Module struct {
	Type, Number int
	Scope        string
	State        State
	PerDay       int
	Objects      int
	SizeMB       float64
	From, To     time.Time
	Runs         []Run
	// Protected is the proportion of protected objects, or -1 if the module has no protected data.
	Protected float64

	firstRun     time.Time
	base         time.Duration
	median       time.Duration
	spread       float64
	weekendQuiet bool
	exceptions   bool
	partial      float64
	failFactor   float64
	modified     time.Time
	effects      effectList
}

// State is the setup of a module.
type State int

// States of modules.
const (
	Active State = iota
	NoObjects
	Disabled
	Unset
	Dormant
)

// Run is a run of a module, or a scan of a profile.
type Run struct {
	ID                             string
	Queued, Start, End             time.Time
	Status                         int
	Total, Failed, Skipped, Warned int
	SizeMB                         int64
}

// License is a subscription.
type License struct {
	Service         string
	Backup          bool
	Seats, Assigned int
	Expires         time.Time
	renewed         time.Time
	renewedTo       time.Time
	effects         effectList
}

// Profile is a scan profile.
type Profile struct {
	ID, Name, Tenant, Domain string
	Daily                    time.Duration
	Scans                    []Run
	effects                  effectList
}

// effectSpan is an effect that lasts for a period.
type effectSpan struct {
	name     string
	from, to time.Time
	value    float64
}

type effectList []effectSpan

// at returns the effect with this name that is active at a given time.
func (l effectList) at(name string, t time.Time) (effectSpan, bool) {
	for _, e := range l {
		if e.name == name && !t.Before(e.from) && t.Before(e.to) {
			return e, true
		}
	}
	return effectSpan{}, false
}

func (l effectList) has(name string, t time.Time) bool {
	_, ok := l.at(name, t)
	return ok
}

// Incident is an event that alerts should report once, unless it is quiet.
type Incident struct {
	ID       string             `json:"id"`
	Kind     string             `json:"kind"`
	Subject  Subject            `json:"subject"`
	Effect   string             `json:"effect"`
	Start    time.Time          `json:"start"`
	End      time.Time          `json:"end"`
	Customer string             `json:"customer,omitempty"`
	Modules  []ModuleKey        `json:"modules,omitempty"`
	Service  string             `json:"service,omitempty"`
	Profile  string             `json:"profile,omitempty"`
	Expect   []string           `json:"expect"`
	Within   time.Duration      `json:"within"`
	Grace    time.Duration      `json:"grace"`
	Quiet    bool               `json:"quiet,omitempty"`
	Blinding bool               `json:"blinding,omitempty"`
	Note     string             `json:"note,omitempty"`
	With     map[string]float64 `json:"with,omitempty"`
	Text     string             `json:"text,omitempty"`
}

// ModuleKey identifies a module in alerts.
type ModuleKey struct {
	Service string `json:"service"`
	Module  string `json:"module"`
	Scope   string `json:"scope,omitempty"`
}

// Key returns the identity of a module in alerts.
func (m *Module) Key() ModuleKey { return ModuleKey{TypeName(m.Type), ModuleName(m.Number), m.Scope} }
