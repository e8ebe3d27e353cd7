package world

import "time"

// Subject is what an incident affects, and therefore what an alert must name.
type Subject string

// Subjects of incidents.
const (
	onModule   Subject = "module"
	onCustomer Subject = "customer"
	onLicense  Subject = "license"
	onProfile  Subject = "profile"
	onService  Subject = "service"
	onFleet    Subject = "fleet"
)

// Effects that the API and the driver implement. The world contains only their times.
const (
	CustomerStatus     = "customer_api_status"
	APIStatus          = "api_status"
	APIReset           = "api_reset"
	APIErrorMember     = "api_error_member"
	APILoginPage       = "api_html"
	APIThrottle        = "api_throttle"
	APISlow            = "api_slow"
	AuthRejected       = "auth_rejected"
	CredentialExpires  = "credential_expires"
	ScopeMissing       = "scope_missing"
	ExporterKilled     = "exporter_killed"
	ExporterRestart    = "exporter_restart"
	ExporterLosesState = "exporter_loses_state"
	ExporterReplaced   = "exporter_replaced"
	ScrapeFails        = "scrape_fails"
	TargetMissing      = "target_missing"
)

// Effects on the state of the world that the API reports.
const (
	effectSilent     = "silent"
	effectFail       = "fail"
	effectConsent    = "consent"
	effectStuck      = "stuck"
	effectPartial    = "partial"
	effectCollapse   = "collapse"
	effectDisabled   = "disabled"
	effectCoverage   = "coverage"
	effectMassFail   = "mass_fail"
	effectStall      = "stall"
	effectJobsEmpty  = "jobs_empty"
	effectHidden     = "customers_hidden"
	effectScanFails  = "scan_fails"
	effectScanSilent = "scan_silent"
	effectSeatsOver  = "seats_over"
)

type effect struct {
	subject Subject
	apply   func(*World, *Incident, *Customer, *Module)
}

var effects = map[string]effect{
	effectSilent:      {onModule, spanOnModule(effectSilent)},
	effectFail:        {onModule, spanOnModule(effectFail)},
	effectStuck:       {onModule, spanOnModule(effectStuck)},
	effectPartial:     {onModule, spanOnModule(effectPartial)},
	effectDisabled:    {onModule, spanOnModule(effectDisabled)},
	effectCollapse:    {onModule, applyCollapse},
	effectCoverage:    {onModule, applyCoverage},
	"never_ok":        {onModule, applyNeverOK},
	"customer_silent": {onCustomer, applyCustomerSilent},
	effectConsent:     {onCustomer, applyConsent},
	effectJobsEmpty:   {onCustomer, applyJobsEmpty},
	CustomerStatus:    {onCustomer, noEffect},
	effectScanFails:   {onProfile, spanOnProfile(effectScanFails)},
	effectScanSilent:  {onProfile, spanOnProfile(effectScanSilent)},
	effectSeatsOver:   {onLicense, applySeatsOver},
	"licence_expires": {onLicense, applyLicenseExpires},
	effectMassFail:    {onService, spanOnService(effectMassFail)},
	effectStall:       {onService, spanOnService(effectStall)},
	effectHidden:      {onFleet, applyHidden},
	APIStatus:         {onFleet, noEffect},
	APIReset:          {onFleet, noEffect},
	APIErrorMember:    {onFleet, noEffect},
	APILoginPage:      {onFleet, noEffect},
	APIThrottle:       {onFleet, noEffect},
	APISlow:           {onFleet, noEffect},
	AuthRejected:      {onFleet, noEffect},
	CredentialExpires: {onFleet, noEffect},
	ScopeMissing:      {onFleet, noEffect},

	ExporterKilled:     {onFleet, noEffect},
	ExporterRestart:    {onFleet, noEffect},
	ExporterLosesState: {onFleet, noEffect},
	ExporterReplaced:   {onFleet, noEffect},
	ScrapeFails:        {onFleet, noEffect},
	TargetMissing:      {onFleet, noEffect},
}

func noEffect(*World, *Incident, *Customer, *Module) {}

func span(name string, i *Incident, value float64) effectSpan {
	return effectSpan{name, i.Start, i.End, value}
}

func spanOnModule(name string) func(*World, *Incident, *Customer, *Module) {
	return func(_ *World, i *Incident, _ *Customer, m *Module) {
		m.effects = append(m.effects, span(name, i, 0))
		i.Modules = []ModuleKey{m.Key()}
	}
}

func spanOnProfile(name string) func(*World, *Incident, *Customer, *Module) {
	return func(_ *World, i *Incident, c *Customer, _ *Module) {
		p := c.Profiles[0]
		p.effects = append(p.effects, span(name, i, 0))
		i.Profile = p.ID
	}
}

// spanOnService returns a function that applies an effect to the same module of every customer.
func spanOnService(name string) func(*World, *Incident, *Customer, *Module) {
	return func(w *World, i *Incident, _ *Customer, affected *Module) {
		i.Service = ModuleName(affected.Number)
		for _, c := range w.Customers {
			for _, m := range c.Modules {
				if m.Number == affected.Number {
					m.effects = append(m.effects, span(name, i, i.With["share"]))
				}
			}
		}
	}
}

func applyCollapse(_ *World, i *Incident, _ *Customer, m *Module) {
	const large = 20_000 // MB; no alert fires if a small backup shrinks
	m.SizeMB = large
	m.effects = append(m.effects, span(effectCollapse, i, 0))
	i.Modules = []ModuleKey{m.Key()}
}

func applyCoverage(_ *World, i *Incident, _ *Customer, m *Module) {
	m.Protected = 0.98
	m.effects = append(m.effects, span(effectCoverage, i, 0.6))
	i.Modules = []ModuleKey{m.Key()}
}

// applyNeverOK makes the customer new, with a module whose runs have all failed.
func applyNeverOK(w *World, i *Incident, c *Customer, m *Module) {
	w.onboard(c, i.Start.Add(-6*time.Hour), i.Start)
	m.firstRun = i.Start
	m.effects = append(m.effects, effectSpan{effectFail, i.Start, Forever, 0})
	i.Modules = []ModuleKey{m.Key()}
}

func applyCustomerSilent(_ *World, i *Incident, c *Customer, _ *Module) {
	applyToModules(i, c, effectSilent, func(*Module) bool { return true })
}

func applyConsent(_ *World, i *Incident, c *Customer, _ *Module) {
	applyToModules(i, c, effectConsent, func(m *Module) bool { return m.Type == TypeMicrosoft365 })
}

// applyJobsEmpty empties the job list. Nothing runs during the incident.
func applyJobsEmpty(_ *World, i *Incident, c *Customer, _ *Module) {
	applyToModules(i, c, effectSilent, func(*Module) bool { return true })
	c.effects = append(c.effects, span(effectJobsEmpty, i, 0))
}

func applyToModules(i *Incident, c *Customer, name string, isAffected func(*Module) bool) {
	for _, m := range c.Modules {
		if m.State == Active && isAffected(m) {
			m.effects = append(m.effects, span(name, i, 0))
			i.Modules = append(i.Modules, m.Key())
		}
	}
}

func applySeatsOver(_ *World, i *Incident, c *Customer, _ *Module) {
	l := c.backupLicense()
	l.Assigned = l.Seats - 1
	l.effects = append(l.effects, span(effectSeatsOver, i, 0))
	i.Service = l.Service
}

// applyLicenseExpires makes a subscription expire at noon on the first day of the incident.
func applyLicenseExpires(_ *World, i *Incident, c *Customer, _ *Module) {
	l := c.backupLicense()
	i.Start = i.Start.Truncate(day).Add(12 * time.Hour)
	l.Expires, l.renewed = i.Start, time.Time{}
	i.Service = l.Service
}

// applyHidden removes a proportion of the customers from the customer list.
func applyHidden(w *World, i *Incident, _ *Customer, _ *Module) {
	hidden := 0
	for _, c := range w.Customers {
		if float64(hidden) < i.With["share"]*float64(len(w.Customers)) && !w.affected[c] && c.From.Before(w.Start) {
			c.effects = append(c.effects, span(effectHidden, i, 0))
			hidden++
		}
	}
}

func (c *Customer) backupLicense() *License { return c.Licenses[0] }
