package world

import "time"

const (
	// licenseWarning and credentialWarning are the times before the expiry of a subscription or credential at which an
	// alert is due.
	licenseWarning    = 30 * day
	credentialWarning = 30 * day
	// partialFrom is the proportion of failed objects above which an alert is due.
	partialFrom = 0.01
	// coverageFrom is the proportion of protected objects below which an alert is due.
	coverageFrom = 0.9
	// unusedBelow is the proportion of seats in use below which an alert is due.
	unusedBelow = 0.8
)

// addStanding adds incidents that follow from the world itself: subscriptions and credentials that expire soon,
// and problems that are always present.
func (w *World) addStanding() {
	for _, c := range w.Customers {
		w.addLicenseIncidents(c)
		for _, m := range c.Modules {
			base := Incident{Subject: onModule, Start: w.Start, End: w.End, Customer: c.ID, Modules: []ModuleKey{m.Key()}, Within: 27 * time.Hour, Grace: 3 * time.Hour}
			if c.From.After(w.Start) {
				base.Start = c.From
			}
			if m.partial > partialFrom && m.State == Active {
				standing := base
				standing.Kind, standing.Expect, standing.Within = "partial_standing", []string{"^ElementsBackupPartial$"}, 50*time.Hour
				w.add(&standing)
			}
			if m.Protected >= 0 && m.Protected < coverageFrom && m.State == Active {
				standing := base
				standing.Kind, standing.Expect = "coverage_low_standing", []string{"^Elements(Coverage|Protect).*$"}
				w.add(&standing)
			}
		}
	}
	if end, ok := w.CredentialExpiry(); ok {
		start := end.Add(-credentialWarning)
		if start.Before(w.Start) {
			start = w.Start
		}
		w.add(&Incident{Kind: "credential_expiring", Subject: onFleet, Start: start, End: end, Expect: []string{"^ElementsCredential.*$"}, Within: 2 * time.Hour, Grace: 13 * time.Hour})
	}
}

func (w *World) addLicenseIncidents(c *Customer) {
	l := c.backupLicense()
	start, end := l.Expires.Add(-licenseWarning), l.Expires
	if !l.renewed.IsZero() {
		end = l.renewed
	}
	if start.Before(w.Start) {
		start = w.Start
	}
	if start.Before(c.From) {
		start = c.From
	}
	if start.Before(w.End.Add(-12*time.Hour)) && end.After(start.Add(6*time.Hour)) && c.To.After(end) {
		w.add(&Incident{Kind: "licence_expiring", Subject: onLicense, Start: start, End: end, Customer: c.ID, Service: l.Service, Expect: []string{"^ElementsLicen[cs]e.*$"}, Within: 6 * time.Hour, Grace: 30 * time.Hour})
	}
	if float64(l.Assigned) < unusedBelow*float64(l.Seats) {
		w.add(&Incident{Kind: "seats_unused", Subject: onLicense, Start: w.Start, End: w.End, Customer: c.ID, Service: l.Service, Quiet: true})
	}
}

// CredentialExpiry returns when the credential expires, if it does.
func (w *World) CredentialExpiry() (time.Time, bool) {
	for _, i := range w.Incidents {
		if i.Effect == CredentialExpires {
			return i.Start, true
		}
	}
	return time.Time{}, false
}
