package world

import (
	"reflect"
	"testing"
	"time"
)

func build(t *testing.T, seed int64, customers, days int) *World {
	t.Helper()
	scenario, err := LoadScenario("")
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC)
	w, err := New(scenario, Span{Customers: customers, Days: days, Seed: seed, Start: start})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestSeedDeterminesWorld(t *testing.T) {
	a, b := build(t, 4, 20, 5), build(t, 4, 20, 5)
	if !reflect.DeepEqual(a.Incidents, b.Incidents) {
		t.Error("two worlds with the same seed have different incidents")
	}
	if reflect.DeepEqual(a.Incidents, build(t, 5, 20, 5).Incidents) {
		t.Error("two seeds produce the same incidents")
	}
}

func TestModuleAndScopeAreListedOnce(t *testing.T) {
	w := build(t, 1, 100, 3)
	for at := w.Start; at.Before(w.End); at = at.Add(97 * time.Minute) {
		for _, c := range w.CustomersAt(at) {
			seen := map[[3]any]bool{}
			for _, row := range c.JobsAt(at, false) {
				key := [3]any{row.Type, row.Module, row.Scope}
				if seen[key] {
					t.Fatalf("%s lists %v twice", c.ID, key)
				}
				seen[key] = true
				if row.End.After(at) || row.Start.After(at) {
					t.Fatalf("%v of %s contains a time in the future", key, c.ID)
				}
			}
		}
	}
}

func TestEveryStatusOccurs(t *testing.T) {
	w := build(t, 1, 100, 10)
	found := map[int]bool{}
	for at := w.Start; at.Before(w.End); at = at.Add(31 * time.Minute) {
		for _, c := range w.CustomersAt(at) {
			for _, row := range c.JobsAt(at, false) {
				found[row.Status] = true
			}
		}
	}
	for _, status := range []int{StatusRunning, StatusFinished, StatusFailed, StatusException, StatusSkipped, StatusPending, StatusNotStarted, StatusCanceled, StatusDisabled, StatusUnset} {
		if !found[status] {
			t.Errorf("no row has status %d", status)
		}
	}
}

func TestDisabledModuleListsNoRun(t *testing.T) {
	w := build(t, 2, 50, 10)
	for _, i := range w.Incidents {
		if i.Effect != effectDisabled {
			continue
		}
		for _, m := range w.Customer(i.Customer).Modules {
			if m.Key() == i.Modules[0] {
				if row := m.row(i.Start.Add(time.Hour)); row.Status != StatusDisabled || row.ID != "" {
					t.Errorf("%s shows %+v", i.ID, row)
				}
				return
			}
		}
	}
	t.Error("no module is disabled")
}

func TestFleetIncidentsDoNotOverlap(t *testing.T) {
	w := build(t, 6, 50, 20)
	var spans []*Incident
	for _, i := range w.Incidents {
		if _, planned := effects[i.Effect]; planned && (i.Subject == onFleet || i.Subject == onService) {
			spans = append(spans, i)
		}
	}
	if len(spans) < 10 {
		t.Fatalf("only %d incidents affect the whole fleet", len(spans))
	}
	for _, a := range spans {
		for _, b := range spans {
			if a != b && a.Start.Before(b.End) && b.Start.Before(a.End) {
				t.Errorf("%s and %s overlap", a.ID, b.ID)
			}
		}
	}
}

func TestShortRunsPlaceEveryKind(t *testing.T) {
	placed := map[string]bool{}
	for seed := range int64(6) {
		for _, i := range build(t, seed, 20, 5).Incidents {
			placed[i.Kind] = true
		}
	}
	scenario, err := LoadScenario("")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range scenario.Incidents {
		if !placed[k.Name] && k.After == 0 {
			t.Errorf("none of six seeds placed %s", k.Name)
		}
	}
}

func TestIncidentOfCustomerAffectsBackups(t *testing.T) {
	for seed := range int64(20) {
		for _, i := range build(t, seed, 100, 10).Incidents {
			if i.Subject == onCustomer && i.Effect != CustomerStatus && len(i.Modules) == 0 {
				t.Errorf("seed %d: %s affects no module", seed, i.ID)
			}
		}
	}
}
