package score

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"month/internal/alertmanager"
	"month/internal/world"
)

var (
	start   = time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC)
	mailbox = world.ModuleKey{Service: "Microsoft 365", Module: "Exchange Online"}
)

func hour(h float64) time.Time { return start.Add(time.Duration(h * float64(time.Hour))) }

// fixture returns the truth of ten days in which one module fails from the second day to the fifth.
func fixture() *Truth {
	return &Truth{
		Start: start, End: start.Add(10 * 24 * time.Hour), Names: map[string]string{"c": "Customer"},
		Incidents: []*world.Incident{{
			ID: "failing-0", Kind: "failing", Subject: onModule, Start: hour(24), End: hour(120), Customer: "c",
			Modules: []world.ModuleKey{mailbox}, Expect: []string{"^ElementsBackup.*$"}, Within: 27 * time.Hour, Grace: 30 * time.Hour,
		}},
		Modules: []Module{{Customer: "c", Key: mailbox, RPO: RPO, Runs: []Run{
			{Start: hour(1).Unix(), End: hour(2).Unix(), Status: world.StatusFinished},
			{Start: hour(25).Unix(), End: hour(26).Unix(), Status: world.StatusFailed},
			{Start: hour(121).Unix(), End: hour(122).Unix(), Status: world.StatusFinished},
		}}},
	}
}

func message(at float64, receiver, kind, state, name string) alertmanager.Notification {
	labels := map[string]string{"alertname": name, "customer_id": "c", "service": mailbox.Service, "module": mailbox.Module}
	return alertmanager.Notification{At: hour(at).Unix(), Receiver: receiver, Kind: kind, Alerts: []alertmanager.NotifiedAlert{{Labels: labels, State: state, Starts: hour(at).Unix()}}}
}

func score(t *testing.T, truth *Truth, transitions []Transition, notes ...alertmanager.Notification) *Score {
	t.Helper()
	dir := t.TempDir()
	if err := truth.Write(dir); err != nil {
		t.Fatal(err)
	}
	receivers, err := json.Marshal(map[string]alertmanager.Receiver{"people": {SendResolved: true}, "others": {}, "deadman": {Deadman: true}})
	if err != nil {
		t.Fatal(err)
	}
	for name, write := range map[string]func(*json.Encoder) error{
		NotificationsFile: func(e *json.Encoder) error { return encodeAll(e, notes) },
		AlertsFile:        func(e *json.Encoder) error { return encodeAll(e, transitions) },
	} {
		file, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := write(json.NewEncoder(file)); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, ReceiversFile), receivers, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Of(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func encodeAll[T any](e *json.Encoder, all []T) error {
	for _, one := range all {
		if err := e.Encode(one); err != nil {
			return err
		}
	}
	return nil
}

func verdictsOf(s *Score, receiver string) [verdictCount]int {
	for _, r := range s.Receivers {
		if r.Receiver == receiver {
			return r.Verdicts
		}
	}
	return [verdictCount]int{}
}

func TestFirstReportCountsOncePerReceiver(t *testing.T) {
	s := score(t, fixture(), nil,
		message(30, "people", alertmanager.KindNew, alertmanager.StateNew, "ElementsBackupOverdue"),
		message(31, "people", alertmanager.KindMore, alertmanager.StateNew, "ElementsBackupFailed"),
		message(32, "others", alertmanager.KindNew, alertmanager.StateNew, "ElementsBackupOverdue"),
		message(50, "people", alertmanager.KindRepeat, alertmanager.StateFiring, "ElementsBackupOverdue"))
	if got, want := verdictsOf(s, "people"), [verdictCount]int{firstReport: 1, repeatReport: 1}; got != want {
		t.Errorf("people: got %v, want %v", got, want)
	}
	if got, want := verdictsOf(s, "others"), [verdictCount]int{firstReport: 1}; got != want {
		t.Errorf("others: got %v, want %v", got, want)
	}
	if k := s.Kinds[0]; k.Reported != 1 || k.InTime != 1 || k.Median != 6*time.Hour || k.Messages != 4 {
		t.Errorf("%+v", k)
	}
}

func TestLateNotificationReportsIncidentButNotInTime(t *testing.T) {
	s := score(t, fixture(), nil, message(60, "people", alertmanager.KindNew, alertmanager.StateNew, "ElementsBackupOverdue"))
	if k := s.Kinds[0]; k.Reported != 1 || k.InTime != 0 {
		t.Errorf("%+v", k)
	}
}

func TestBlindTimeExtendsTheTimeLimit(t *testing.T) {
	truth := fixture()
	truth.Incidents = append(truth.Incidents, &world.Incident{ID: "outage-1", Kind: "outage", Subject: "fleet", Start: hour(40), End: hour(52), Blinding: true, Expect: []string{"^Api$"}})
	s := score(t, truth, nil, message(60, "people", alertmanager.KindNew, alertmanager.StateNew, "ElementsBackupOverdue"))
	if k := s.Kinds[0]; k.InTime != 1 {
		t.Errorf("%+v", k)
	}
}

func TestAlertOfAnotherModuleOrTimeReportsNothing(t *testing.T) {
	other := message(30, "people", alertmanager.KindNew, alertmanager.StateNew, "ElementsBackupOverdue")
	other.Alerts[0].Labels["module"] = "OneDrive"
	early := message(3, "people", alertmanager.KindNew, alertmanager.StateNew, "ElementsBackupOverdue")
	s := score(t, fixture(), nil, early, other)
	if got, want := verdictsOf(s, "people"), [verdictCount]int{isFalse: 2}; got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if s.Kinds[0].Reported != 0 {
		t.Error("the incident counts as reported")
	}
}

func TestTrueAlertWithoutIncidentIsMinor(t *testing.T) {
	truth := fixture()
	truth.Incidents = nil
	s := score(t, truth, nil, message(30, "people", alertmanager.KindNew, alertmanager.StateNew, "ElementsBackupOverdue"))
	if got, want := verdictsOf(s, "people"), [verdictCount]int{isMinor: 1}; got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestCustomerAlertIsTrueIfItIsTrueOfOneActiveModule(t *testing.T) {
	truth := fixture()
	truth.Incidents = nil
	truth.Modules[0].To = hour(1000)
	ofCustomer := func(at float64) alertmanager.Notification {
		note := message(at, "people", alertmanager.KindNew, alertmanager.StateNew, "ElementsBackupOverdue")
		delete(note.Alerts[0].Labels, "service")
		delete(note.Alerts[0].Labels, "module")
		return note
	}
	if got, want := verdictsOf(score(t, truth, nil, ofCustomer(20), ofCustomer(30)), "people"), [verdictCount]int{isMinor: 1, isFalse: 1}; got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	truth.Modules[0].State = world.Dormant
	if got, want := verdictsOf(score(t, truth, nil, ofCustomer(30)), "people"), [verdictCount]int{isFalse: 1}; got != want {
		t.Errorf("dormant: got %v, want %v", got, want)
	}
}

func TestExpiringSubscriptionIsTrueWithoutBackup(t *testing.T) {
	truth := fixture()
	truth.Licenses = []License{{Customer: "c", Service: "MyHub", End: hour(20 * 24).Unix()}}
	note := message(30, "people", alertmanager.KindNew, alertmanager.StateNew, "ElementsLicenseExpiring")
	if got, want := verdictsOf(score(t, truth, nil, note), "people"), [verdictCount]int{isMinor: 1}; got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	truth.Licenses[0].End = hour(60 * 24).Unix()
	if got, want := verdictsOf(score(t, truth, nil, note), "people"), [verdictCount]int{isFalse: 1}; got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestSecondIncidentOfACustomerIsAFlap(t *testing.T) {
	first := message(30, "people", alertmanager.KindNew, alertmanager.StateNew, "ElementsBackupOverdue")
	again := message(40, "people", alertmanager.KindNew, alertmanager.StateNew, "ElementsBackupOverdue")
	first.Alerts[0].Labels["since"], again.Alerts[0].Labels["since"] = "1", "2"
	if totals := score(t, fixture(), nil, first, again).Totals(); totals.Flaps != 1 {
		t.Errorf("%+v", totals)
	}
}

func TestFlapsAndMissingResolvesAreCounted(t *testing.T) {
	first := message(30, "people", alertmanager.KindNew, alertmanager.StateNew, "ElementsBackupOverdue")
	again := message(40, "people", alertmanager.KindNew, alertmanager.StateNew, "ElementsBackupOverdue")
	ended := Transition{At: hour(60).Unix(), State: alertmanager.StateResolved, Labels: first.Alerts[0].Labels}
	totals := score(t, fixture(), []Transition{ended}, first, again).Totals()
	if totals.Flaps != 1 || totals.MissedResolves != 1 {
		t.Errorf("%+v", totals)
	}
	resolved := message(61, "people", alertmanager.KindResolved, alertmanager.StateResolved, "ElementsBackupOverdue")
	if totals := score(t, fixture(), []Transition{ended}, first, resolved).Totals(); totals.MissedResolves != 0 || totals.Flaps != 0 {
		t.Errorf("%+v", totals)
	}
}

func TestFloorsRejectLowScores(t *testing.T) {
	floors := Floors{Recall: 0.9, Strict: 0.5, PerDay: 10}
	if err := floors.Check(Totals{Recall: 0.95, Strict: 0.6, PerDay: 9}); err != nil {
		t.Error(err)
	}
	if err := floors.Check(Totals{Recall: 0.8, Strict: 0.6, PerDay: 9}); err == nil {
		t.Error("a low recall was accepted")
	}
	if err := floors.Check(Totals{Recall: 0.95, Strict: 0.6, PerDay: 11}); err == nil {
		t.Error("too many notifications were accepted")
	}
}
