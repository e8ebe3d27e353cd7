package sim

import (
	"errors"
	"os"
	"syscall"
	"time"

	"month/internal/prom"
	"month/internal/world"
)

// schedule schedules the effects of incidents on exporters and targets. Except for a renewal of the credential, only
// the last shard is affected.
func (f *fleet) schedule() {
	for _, i := range f.world.Incidents {
		if !isSimulatedByFleet(i) {
			continue
		}
		x := f.shards[len(f.shards)-1]
		switch i.Effect {
		case world.ExporterKilled:
			f.at(i.Start, func() error { return f.clock.Kill(x.process) })
			f.at(i.End, func() error { return f.relaunch(x) })
		case world.ExporterRestart:
			f.at(i.Start, func() error { return f.restart(x, false) })
		case world.ExporterLosesState:
			f.at(i.Start, func() error { return f.restart(x, true) })
		case world.ExporterReplaced:
			f.at(i.Start, func() error { return f.replace(x, i.ID) })
		case world.ScrapeFails:
			f.at(i.Start, func() error { last(x).Failing = true; return nil })
			f.at(i.End, func() error { last(x).Failing = false; return nil })
		case world.TargetMissing:
			f.at(i.Start, func() error { f.scraper.Remove(last(x)); return nil })
			f.at(i.End, func() error { f.scraper.AddAgain(last(x)); return nil })
		case world.CredentialExpires:
			f.at(i.End, f.renew)
		}
	}
}

// at schedules an event. If the event fails, the run stops at the next step.
func (f *fleet) at(t time.Time, event func() error) {
	f.clock.At(t, func() { f.failure = errors.Join(f.failure, event()) })
}

func last(x *exporter) *prom.Target { return x.targets[len(x.targets)-1] }

// relaunch restarts an exporter for the same targets.
func (f *fleet) relaunch(x *exporter) error {
	if err := f.launch(x); err != nil {
		return err
	}
	for _, t := range x.targets {
		t.Address, t.Started = x.process.Address, f.clock.Now()
	}
	return nil
}

func (f *fleet) restart(x *exporter, losesState bool) error {
	if err := f.clock.Stop(x.process); err != nil {
		return err
	}
	if losesState {
		if err := os.Remove(f.statePath(x)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return f.relaunch(x)
}

// replace deploys the successor of an exporter, with a different instance label. Both run concurrently for some time.
func (f *fleet) replace(x *exporter, host string) error {
	old := *x
	x.deploy++ // two exporters must not share a state file
	if err := f.launch(x); err != nil {
		return err
	}
	if err := f.addTargets(x, host); err != nil {
		return err
	}
	f.at(f.clock.Now().Add(overlap), func() error {
		for _, t := range old.targets {
			f.scraper.Remove(t)
		}
		return f.clock.Stop(old.process)
	})
	return nil
}

// renew sets a later expiry of the credential in the configuration of all exporters, and makes them reload it.
func (f *fleet) renew() error {
	f.expires = f.clock.Now().Add(renewedLifetime)
	var err error
	for _, x := range f.shards {
		_, written := f.configure(x)
		err = errors.Join(err, written, x.process.Signal(syscall.SIGHUP))
	}
	return err
}
