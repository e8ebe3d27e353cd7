package sim

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"month/internal/alertmanager"
	"month/internal/score"
)

// validFor is the number of evaluations for which a firing alert is valid, as in Prometheus.
const validFor = 4

// openReplay creates the pipeline of a replay, with the step of the replayed run.
func openReplay(from string, o *Options) (*pipeline, error) {
	if err := errors.Join(checkDistinct(from, o.Out), readStep(from, o)); err != nil {
		return nil, err
	}
	return newPipeline(*o)
}

// Replay evaluates other rules with the scrapes of an earlier run.
func Replay(from string, o Options) (err error) {
	p, err := openReplay(from, &o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	if err := errors.Join(copyFile(from, o.Out, score.TruthFile), p.loadRules()); err != nil {
		return err
	}
	file, err := os.Open(filepath.Join(from, samplesFile))
	if err != nil {
		return err
	}
	defer file.Close()
	return p.evaluate(file)
}

// ReplayAlerts sends the alerts of an earlier run through Alertmanager with another configuration.
func ReplayAlerts(from string, o Options) (err error) {
	p, err := openReplay(from, &o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	if err := errors.Join(copyFile(from, o.Out, score.TruthFile), copyFile(from, o.Out, score.AlertsFile)); err != nil {
		return err
	}
	var changes []score.Transition
	if err := score.ReadLines(filepath.Join(from, score.AlertsFile), func(t score.Transition) { changes = append(changes, t) }); err != nil {
		return err
	}
	if len(changes) == 0 {
		return nil
	}
	firing := map[string]score.Transition{}
	truth, err := score.ReadTruth(from)
	if err != nil {
		return err
	}
	for now := time.Unix(changes[0].At, 0).UTC().Truncate(o.Step); now.Before(truth.End); now = now.Add(o.Step) {
		for len(changes) > 0 && time.Unix(changes[0].At, 0).Before(now.Add(o.Step)) {
			p.change(firing, changes[0])
			changes = changes[1:]
		}
		for _, key := range slices.Sorted(maps.Keys(firing)) {
			start := time.Unix(firing[key].At, 0)
			at := now
			if start.After(at) {
				at = start
			}
			p.manager.Put(at, alertmanager.Alert{Labels: firing[key].Labels, Starts: start, Ends: now.Add(validFor * o.Step)})
		}
		if err := p.manager.RunTo(now.Add(o.Step - time.Second)); err != nil {
			return err
		}
	}
	return nil
}

func (p *pipeline) change(firing map[string]score.Transition, t score.Transition) {
	key := score.Key(t.Labels)
	if t.State == alertmanager.StateFiring {
		firing[key] = t
		return
	}
	at := time.Unix(t.At, 0)
	p.manager.Put(at, alertmanager.Alert{Labels: t.Labels, Starts: time.Unix(firing[key].At, 0), Ends: at})
	delete(firing, key)
}

func copyFile(from, to, name string) error {
	text, err := os.ReadFile(filepath.Join(from, name))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(to, name), text, 0o644)
}
