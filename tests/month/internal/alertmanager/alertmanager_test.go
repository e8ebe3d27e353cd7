package alertmanager

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

const configuration = `
route:
  receiver: people
  group_by: [customer]
  group_wait: 1m
  group_interval: 10m
  repeat_interval: 4h
  routes:
    - receiver: quiet
      matchers: [area="quiet"]
inhibit_rules:
  - source_matchers: [alertname="Down"]
    target_matchers: [alertname="Late"]
receivers:
  - name: people
    webhook_configs: [{url: "http://127.0.0.1/people"}]
  - name: quiet
    webhook_configs: [{url: "http://127.0.0.1/quiet", send_resolved: false}]
`

var start = time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC)

type fixture struct {
	*Alertmanager
	t   *testing.T
	out *bytes.Buffer
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	path := filepath.Join(t.TempDir(), "alertmanager.yml")
	if err := os.WriteFile(path, []byte(configuration), 0o600); err != nil {
		t.Fatal(err)
	}
	out := &bytes.Buffer{}
	m, err := New(path, out)
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{m, t, out}
}

func (b *fixture) put(minute int, name, area string, ends int) {
	at := start.Add(time.Duration(minute) * time.Minute)
	b.Put(at, Alert{Labels: map[string]string{"alertname": name, "area": area, "customer": "c"}, Starts: at, Ends: start.Add(time.Duration(ends) * time.Minute)})
}

// kinds advances the time, and returns the receiver and kind of each notification that was sent in the meantime.
func (b *fixture) kinds(minute int) []string {
	b.t.Helper()
	if err := b.RunTo(start.Add(time.Duration(minute) * time.Minute)); err != nil {
		b.t.Fatal(err)
	}
	var kinds []string
	for decoder := json.NewDecoder(b.out); decoder.More(); {
		var n Notification
		if err := decoder.Decode(&n); err != nil {
			b.t.Fatal(err)
		}
		kinds = append(kinds, n.Receiver+" "+n.Kind)
	}
	return kinds
}

func (b *fixture) expect(minute int, want ...string) {
	b.t.Helper()
	got := b.kinds(minute)
	if len(got) != len(want) {
		b.t.Fatalf("minute %d: got %q, want %q", minute, got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			b.t.Fatalf("minute %d: got %q, want %q", minute, got, want)
		}
	}
}

func TestGroupIsNotifiedRepeatedAndResolved(t *testing.T) {
	b := newFixture(t)
	b.put(0, "Late", "", 300)
	b.expect(0)
	b.expect(1, "people new")
	b.expect(239)
	b.expect(261, "people repeat")
	b.expect(330, "people resolved")
	b.expect(900)
}

func TestSecondAlertOfGroupIsNotifiedAsMore(t *testing.T) {
	b := newFixture(t)
	b.put(0, "Late", "", 500)
	b.expect(2, "people new")
	b.put(3, "Failing", "", 500)
	b.expect(10)
	b.expect(12, "people more")
}

func TestReceiverWithoutSendResolvedGetsNoResolvedNotification(t *testing.T) {
	b := newFixture(t)
	b.put(0, "Late", "quiet", 30)
	b.expect(2, "quiet new")
	b.expect(120)
}

func TestInhibitedAlertIsSentAfterItsSourceResolves(t *testing.T) {
	b := newFixture(t)
	b.put(0, "Down", "quiet", 60)
	b.put(0, "Late", "", 500)
	b.expect(50, "quiet new")
	b.expect(75, "people new")
}
