package sim

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/prometheus/rules"

	"month/internal/alertmanager"
	"month/internal/prom"
	"month/internal/score"
)

const (
	marker      = ".month"
	samplesFile = "samples.log"
	// progressEvery is the virtual time between two progress messages.
	progressEvery = 12 * time.Hour
)

// pipeline contains the steps after the scrape: rules, Alertmanager, and the files of a run.
type pipeline struct {
	options       Options
	engine        *prom.Engine
	manager       *alertmanager.Alertmanager
	alerts        *lines
	notifications *lines
	firing        map[string]bool
	failure       error
	failedRules   map[string]bool
}

func newPipeline(o Options) (*pipeline, error) {
	if err := prepareDir(o.Out, marker); err != nil {
		return nil, err
	}
	p := &pipeline{options: o, firing: map[string]bool{}, failedRules: map[string]bool{}}
	var err error
	if p.notifications, err = newLines(filepath.Join(o.Out, score.NotificationsFile)); err != nil {
		return nil, err
	}
	if p.alerts, err = newLines(filepath.Join(o.Out, score.AlertsFile)); err != nil {
		return nil, err
	}
	if p.manager, err = alertmanager.New(o.Alertmanager, p.notifications); err != nil {
		return nil, err
	}
	return p, errors.Join(writeStep(o), writeJSON(filepath.Join(o.Out, score.ReceiversFile), p.manager.Receivers))
}

func (p *pipeline) loadRules() error {
	files, err := ruleFiles(p.options.Rules)
	if err != nil {
		return err
	}
	p.engine, err = prom.NewEngine(prom.Options{Dir: filepath.Join(p.options.Out, "tsdb"), Files: files, Step: p.options.Step, Notify: p.handleAlerts})
	return err
}

// handleAlerts passes alerts to Alertmanager, and records when they start and stop firing.
func (p *pipeline) handleAlerts(at time.Time, alerts []*rules.Alert) {
	for _, a := range alerts {
		labels := a.Labels.Map()
		state, end := alertmanager.StateFiring, a.ValidUntil
		if !a.ResolvedAt.IsZero() {
			state, end = alertmanager.StateResolved, a.ResolvedAt
		}
		key := a.Labels.String()
		if isFiring := state == alertmanager.StateFiring; isFiring != p.firing[key] {
			p.firing[key] = isFiring
			p.fail(p.alerts.encode(score.Transition{At: at.Unix(), State: state, Labels: labels}))
		}
		p.manager.Put(at, alertmanager.Alert{Labels: labels, Starts: a.FiredAt, Ends: end})
	}
}

func (p *pipeline) fail(err error) {
	if p.failure == nil {
		p.failure = err
	}
}

// evaluate evaluates the rules with the scrapes in a log, and routes the alerts.
func (p *pipeline) evaluate(log io.Reader) error {
	start := time.Now()
	var lastProgress time.Time
	return p.engine.Read(log, func(now time.Time) error {
		if now.Sub(lastProgress) >= progressEvery {
			lastProgress = now
			p.log(now, "%s elapsed; %d notifications", time.Since(start).Round(time.Second), p.manager.Sent)
		}
		for _, rule := range p.engine.Unhealthy() {
			p.failedRules[rule] = true
		}
		// Alertmanager runs until just before the next step.
		return errors.Join(p.failure, p.manager.RunTo(now.Add(p.options.Step-time.Second)))
	})
}

func (p *pipeline) close() error {
	var err error
	if p.engine != nil {
		err = p.engine.Close()
	}
	err = errors.Join(err, p.alerts.close(), p.notifications.close())
	for rule := range p.failedRules {
		err = errors.Join(err, errors.New("rule failed: "+rule))
	}
	return err
}

func (p *pipeline) log(now time.Time, format string, a ...any) {
	_, _ = fmt.Fprintf(p.options.Progress, "%s %s\n", now.Format("2006-01-02 15:04"), fmt.Sprintf(format, a...)) // progress may be lost
}

// lines is a file with one JSON object per line.
type lines struct {
	*bufio.Writer
	file *os.File
	json *json.Encoder
}

func newLines(path string) (*lines, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	out := bufio.NewWriter(file)
	return &lines{out, file, json.NewEncoder(out)}, nil
}

func (l *lines) encode(v any) error { return l.json.Encode(v) }

func (l *lines) close() error { return errors.Join(l.Flush(), l.file.Close()) }

func writeJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}
