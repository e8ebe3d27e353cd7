package score

import (
	"slices"
	"strings"
	"time"

	"month/internal/alertmanager"
	"month/internal/world"
)

// Subjects of incidents, as defined in package world.
const (
	onModule   = "module"
	onCustomer = "customer"
	onLicense  = "license"
	onProfile  = "profile"
	onService  = "service"
)

// defaultGrace is the time for which an alert may still refer to an incident that has ended, unless the incident sets a
// grace period.
const defaultGrace = 2 * time.Hour

// matching returns the incidents to which an alert may refer at a given time, closest first. An alert refers to an
// incident that expects its name and affects the objects in its labels.
func (r *run) matching(labels map[string]string, at int64) []*world.Incident {
	var found []*world.Incident
	for _, i := range r.truth.Incidents {
		grace := i.Grace
		if grace == 0 {
			grace = defaultGrace
		}
		if at >= i.Start.Unix() && at <= i.End.Add(grace).Unix() && r.refersTo(labels, i) {
			found = append(found, i)
		}
	}
	isOfCustomer := labels["customer_id"] != ""
	slices.SortStableFunc(found, func(a, b *world.Incident) int { return distance(a, isOfCustomer) - distance(b, isOfCustomer) })
	if len(found) > 0 && !found[0].Quiet {
		found = slices.DeleteFunc(found, func(i *world.Incident) bool { return i.Quiet })
	}
	return found
}

// distance ranks the incidents that match an alert. It is smallest if the alert and the incident are both about a
// customer or both about the fleet, and largest if the incident needs no notification.
func distance(i *world.Incident, isOfCustomer bool) int {
	switch {
	case i.Quiet:
		return 2
	case isOfCustomer != (i.Customer != ""):
		return 1
	}
	return 0
}

func (r *run) isExpected(name string, i *world.Incident) bool {
	return slices.ContainsFunc(i.Expect, func(text string) bool { return r.patterns[text].MatchString(name) })
}

func (r *run) refersTo(labels map[string]string, i *world.Incident) bool {
	name := labels["alertname"]
	switch {
	case i.Quiet && i.Subject == onLicense:
		if !strings.HasPrefix(name, "ElementsLicen") {
			return false
		}
	case i.Quiet:
		return isOfExporter(labels)
	case !r.isExpected(name, i):
		return false
	}
	isCustomer := labels["customer_id"] == i.Customer
	switch i.Subject {
	case onModule:
		return isCustomer && matchesModule(labels, i)
	case onCustomer: // The alert names a module, the whole customer, or all customers that could not be polled.
		if isCustomer {
			return len(i.Modules) == 0 || labels["module"] == "" || matchesModule(labels, i)
		}
		return labels["customer_id"] == "" && i.Effect == world.CustomerStatus && isOfExporter(labels)
	case onLicense:
		return isCustomer && (labels["service"] == i.Service || labels["service"] == "")
	case onProfile:
		return isCustomer && (labels["profile_id"] == i.Profile || labels["profile_id"] == "")
	case onService:
		return labels["module"] == i.Service || labels["module"] == "" && labels["customer_id"] == ""
	default:
		return labels["customer_id"] == ""
	}
}

// matchesModule returns whether an alert names an affected module or no module. An alert without a scope refers to the
// whole module. In the metrics of protected data, service names have a prefix.
func matchesModule(labels map[string]string, i *world.Incident) bool {
	if labels["module"] == "" {
		return true
	}
	service := strings.TrimPrefix(labels["service"], "Cloud Backup for ")
	return slices.ContainsFunc(i.Modules, func(k world.ModuleKey) bool {
		return k.Module == labels["module"] && (service == "" || k.Service == service) && (labels["scope"] == "" || k.Scope == labels["scope"])
	})
}

func isOfExporter(labels map[string]string) bool { return labels["area"] == "exporter" }

// isNewInformation returns whether an alert in a notification is new to the receiver.
func isNewInformation(n alertmanager.Notification, a alertmanager.NotifiedAlert) bool {
	return (n.Kind == alertmanager.KindNew || n.Kind == alertmanager.KindMore) && a.State == alertmanager.StateNew
}
