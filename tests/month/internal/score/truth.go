package score

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"month/internal/alertmanager"
	"month/internal/world"
)

// Names of the files in a run's directory.
const (
	TruthFile         = "truth.json"
	NotificationsFile = "notifications.jsonl"
	AlertsFile        = "alerts.jsonl"
	ReceiversFile     = "receivers.json"
)

// Truth contains the events of a world that affect scores.
type Truth struct {
	Start     time.Time         `json:"start"`
	End       time.Time         `json:"end"`
	Names     map[string]string `json:"names"`
	Incidents []*world.Incident `json:"incidents"`
	Modules   []Module          `json:"modules"`
	Scans     []Scan            `json:"scans"`
	Licenses  []License         `json:"licenses"`
	Unplaced  []string          `json:"unplaced"`
}

// Module contains the runs of a module.
type Module struct {
	Customer string          `json:"customer"`
	Key      world.ModuleKey `json:"key"`
	RPO      time.Duration   `json:"rpo"`
	State    world.State     `json:"state"`
	To       time.Time       `json:"to"` // time of removal
	Runs     []Run           `json:"runs"`
}

// Run is an actual job run, whether or not the API reported it.
type Run struct {
	Start  int64   `json:"s"`
	End    int64   `json:"e"`
	Status int     `json:"st"`
	Failed float64 `json:"f,omitempty"` // proportion of objects that failed
}

// Scan is a failed scan of a profile.
type Scan struct {
	Profile string `json:"profile"`
	End     int64  `json:"end"`
}

// License is the end of a subscription to backups or to another service.
type License struct {
	Customer string `json:"customer"`
	Service  string `json:"service"`
	End      int64  `json:"end"`
}

// RPOs in the exporter's configuration.
const (
	RPO        = 26 * time.Hour
	WeekendRPO = 75 * time.Hour
)

// TruthOf collects the truth of a world.
func TruthOf(w *world.World) *Truth {
	t := &Truth{Start: w.Start, End: w.End, Names: map[string]string{}, Incidents: w.Incidents, Unplaced: w.Unplaced}
	for _, c := range w.Customers {
		t.Names[c.ID] = c.Organization(w.End)
		rpo := RPO
		if c.WeekendOff {
			rpo = WeekendRPO
		}
		for _, m := range c.Modules {
			module := Module{Customer: c.ID, Key: m.Key(), RPO: rpo, State: m.State, To: m.To}
			for _, r := range m.Runs {
				run := Run{Start: r.Start.Unix(), End: r.End.Unix(), Status: r.Status}
				if r.Total > 0 {
					run.Failed = float64(r.Failed) / float64(r.Total)
				}
				module.Runs = append(module.Runs, run)
			}
			t.Modules = append(t.Modules, module)
		}
		for _, l := range c.Licenses {
			t.Licenses = append(t.Licenses, License{c.ID, l.Service, l.Expires.Unix()})
		}
		for _, p := range c.Profiles {
			for _, s := range p.Scans {
				if !world.IsRestorePoint(s.Status) {
					t.Scans = append(t.Scans, Scan{p.ID, s.End.Unix()})
				}
			}
		}
	}
	return t
}

// Write writes the truth to the directory with the notifications.
func (t *Truth) Write(dir string) error {
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, TruthFile), text, 0o644)
}

// Transition is an alert that started or stopped firing.
type Transition struct {
	At     int64             `json:"at"`
	State  string            `json:"state"` // firing or resolved
	Labels map[string]string `json:"labels"`
}

// run contains the data of a run, and the intermediate results of scoring it.
type run struct {
	truth         *Truth
	notifications []alertmanager.Notification
	alerts        []Transition
	receivers     map[string]alertmanager.Receiver
	patterns      map[string]*regexp.Regexp
	modules       map[moduleOf]*Module
	notices       map[string][]notice // by incident
	verdicts      []judged
}

type moduleOf struct {
	customer string
	key      world.ModuleKey
}

// notice is a notification about an incident.
type notice struct {
	at       int64
	receiver string
	isFirst  bool // a new alert with an expected name
}
