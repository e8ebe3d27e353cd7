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

var begin = time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC)

type bench struct {
	*Alertmanager
	t   *testing.T
	out *bytes.Buffer
}

func newBench(t *testing.T) *bench {
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
	return &bench{m, t, out}
}

func (b *bench) put(minute int, name, area string, ends int) {
	at := begin.Add(time.Duration(minute) * time.Minute)
	b.Put(at, Alert{Labels: map[string]string{"alertname": name, "area": area, "customer": "c"}, Starts: at, Ends: begin.Add(time.Duration(ends) * time.Minute)})
}

// kinds advances the time and returns the notifications sent meanwhile as receiver and kind.
func (b *bench) kinds(minute int) []string {
	b.t.Helper()
	if err := b.RunTo(begin.Add(time.Duration(minute) * time.Minute)); err != nil {
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

func (b *bench) expect(minute int, want ...string) {
	b.t.Helper()
	got := b.kinds(minute)
	if len(got) != len(want) {
		b.t.Fatalf("minute %d: %q, and not %q", minute, got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			b.t.Fatalf("minute %d: %q, and not %q", minute, got, want)
		}
	}
}

func TestAGroupIsToldOnceThenRepeatedThenResolved(t *testing.T) {
	b := newBench(t)
	b.put(0, "Late", "", 300)
	b.expect(0)
	b.expect(1, "people new")
	b.expect(239)
	b.expect(261, "people repeat")
	b.expect(330, "people resolved")
	b.expect(900)
}

func TestASecondAlertOfAGroupIsMore(t *testing.T) {
	b := newBench(t)
	b.put(0, "Late", "", 500)
	b.expect(2, "people new")
	b.put(3, "Failing", "", 500)
	b.expect(10)
	b.expect(12, "people more")
}

func TestAReceiverThatHearsOfNoEndIsNotToldOfIt(t *testing.T) {
	b := newBench(t)
	b.put(0, "Late", "quiet", 30)
	b.expect(2, "quiet new")
	b.expect(120)
}

func TestAnInhibitedAlertIsHeldUntilItsSourceEnds(t *testing.T) {
	b := newBench(t)
	b.put(0, "Down", "quiet", 60)
	b.put(0, "Late", "", 500)
	b.expect(50, "quiet new")
	b.expect(75, "people new")
}
