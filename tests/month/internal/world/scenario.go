package world

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"regexp"
	"time"

	"github.com/prometheus/common/model"
	"gopkg.in/yaml.v3"
)

//go:embed scenario.yml
var defaultScenario []byte

// Scenario describes the contents of a world. scenario.yml documents its keys.
type Scenario struct {
	Shapes    []Shape  `yaml:"shapes"`
	Products  Products `yaml:"products"`
	Noise     Noise    `yaml:"noise"`
	Changes   []Change `yaml:"changes"`
	Incidents []Kind   `yaml:"incidents"`
}

// Shape is a kind of customer.
type Shape struct {
	Name     string        `yaml:"name"`
	Share    float64       `yaml:"share"`
	Profiles float64       `yaml:"profiles"`
	Scan     *int          `yaml:"scan"`
	License  string        `yaml:"license"`
	Modules  []ModuleShape `yaml:"modules"`
}

// ModuleShape is a module that customers of a shape may have.
type ModuleShape struct {
	Type      int     `yaml:"type"`
	Module    int     `yaml:"module"`
	Share     float64 `yaml:"share"`
	Scopes    int     `yaml:"scopes"`
	Disabled  float64 `yaml:"disabled"`
	NoObjects float64 `yaml:"no_objects"`
	Unset     float64 `yaml:"not_started"`
	Dormant   float64 `yaml:"dormant"`
}

// Products are the subscriptions to services other than backups.
type Products struct {
	Others []string `yaml:"others"`
	Most   int      `yaml:"most"`
}

// Noise contains the probabilities of events that are not incidents.
type Noise struct {
	RunFails      float64 `yaml:"run_fails"`
	BadModules    float64 `yaml:"bad_modules"`
	BadFactor     float64 `yaml:"bad_factor"`
	RunTakesLong  float64 `yaml:"run_takes_long"`
	RunPartial    float64 `yaml:"run_partial"`
	Exceptions    float64 `yaml:"exceptions_normal"`
	AlwaysPartial float64 `yaml:"always_partial"`
	ScanFails     float64 `yaml:"scan_fails"`
	Pending       float64 `yaml:"pending"`
	WeekendQuiet  float64 `yaml:"weekend_quiet"`
	Replicas      float64 `yaml:"replicas_disagree"`
	LowCoverage   float64 `yaml:"low_coverage"`
	UnusedSeats   float64 `yaml:"unused_seats"`
	RequestFails  float64 `yaml:"request_fails"`
}

// Change is a kind of ordinary event.
type Change struct {
	Change string  `yaml:"change"`
	Count  float64 `yaml:"count"`
}

// Kind is a kind of incident.
type Kind struct {
	Name     string             `yaml:"kind"`
	Effect   string             `yaml:"effect"`
	Count    float64            `yaml:"count"`
	Lasts    []Duration         `yaml:"lasts"`
	Where    Where              `yaml:"where"`
	With     map[string]float64 `yaml:"with"`
	Text     string             `yaml:"text"`
	Expect   []Pattern          `yaml:"expect"`
	After    Duration           `yaml:"after"`
	Within   Duration           `yaml:"within"`
	Grace    Duration           `yaml:"grace"`
	Quiet    bool               `yaml:"quiet"`
	Blinding bool               `yaml:"blinding"`
	Note     string             `yaml:"note"`
}

// Where restricts the modules that a kind of incident may affect.
type Where struct {
	Type       *int  `yaml:"type"`
	Modules    []int `yaml:"modules"`
	PerDay     []int `yaml:"runs_per_day"`
	MinScopes  int   `yaml:"min_scopes"`
	MinModules int   `yaml:"min_modules"`
}

// Duration is a time.Duration in Prometheus' format, such as 26h or 1d12h.
type Duration time.Duration

// UnmarshalYAML implements yaml.Unmarshaler.
func (d *Duration) UnmarshalYAML(node *yaml.Node) error {
	parsed, err := model.ParseDuration(node.Value)
	if err != nil {
		return fmt.Errorf("line %d: %w", node.Line, err)
	}
	*d = Duration(parsed)
	return nil
}

// Pattern is a regular expression that must match the whole name of an alert.
type Pattern struct{ *regexp.Regexp }

// UnmarshalYAML implements yaml.Unmarshaler.
func (p *Pattern) UnmarshalYAML(node *yaml.Node) error {
	compiled, err := regexp.Compile("^(?:" + node.Value + ")$")
	if err != nil {
		return fmt.Errorf("line %d: %w", node.Line, err)
	}
	p.Regexp = compiled
	return nil
}

// LoadScenario reads a scenario, or the default scenario if path is empty.
func LoadScenario(path string) (*Scenario, error) {
	text := defaultScenario
	if path != "" {
		read, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		text = read
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	s := &Scenario{}
	if err := decoder.Decode(s); err != nil {
		return nil, fmt.Errorf("scenario: %w", err)
	}
	return s, s.check()
}

func (s *Scenario) check() error {
	if len(s.Shapes) == 0 {
		return errors.New("scenario: shapes is empty")
	}
	for _, k := range s.Incidents {
		effect, known := effects[k.Effect]
		switch {
		case !known:
			return fmt.Errorf("scenario: incident %s: unknown effect %q", k.Name, k.Effect)
		case len(k.Lasts) != 2 || k.Lasts[0] > k.Lasts[1]:
			return fmt.Errorf("scenario: incident %s: lasts must be two durations, the shorter one first", k.Name)
		case !k.Quiet && len(k.Expect) == 0:
			return fmt.Errorf("scenario: incident %s: expect is empty", k.Name)
		case effect.subject == onService && k.Where.Modules == nil:
			return fmt.Errorf("scenario: incident %s: where.modules is empty", k.Name)
		}
	}
	for _, c := range s.Changes {
		if _, known := changes[c.Change]; !known {
			return fmt.Errorf("scenario: unknown change %q", c.Change)
		}
	}
	return nil
}
