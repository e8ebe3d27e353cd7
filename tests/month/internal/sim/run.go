package sim

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"month/internal/api"
	"month/internal/prom"
	"month/internal/score"
	"month/internal/vtime"
	"month/internal/world"
)

// Run simulates a world.
func Run(o Options) (err error) {
	w, err := world.New(o.Scenario, o.Span)
	if err != nil {
		return err
	}
	p, err := newPipeline(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	if err := score.TruthOf(w).Write(o.Out); err != nil {
		return err
	}
	if err := p.loadRules(); err != nil {
		return err
	}
	file, err := os.Create(filepath.Join(o.Out, samplesFile))
	if err != nil {
		return err
	}
	// The simulation can be ahead of the rules by as much as the kernel's buffer holds.
	reader, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	log := prom.NewLog(file, writer)
	evaluated := make(chan error, 1)
	go func() {
		err := p.evaluate(reader)
		evaluated <- errors.Join(err, reader.Close()) // without a reader, the simulation ends
	}()
	err = simulate(o, w, log)
	return errors.Join(err, log.Close(), <-evaluated)
}

// simulate scrapes the exporters at every step. It does not wait for the rules, which are evaluated concurrently.
func simulate(o Options, w *world.World, log *prom.Log) (err error) {
	clock := vtime.New(w.Start, o.MinJump)
	server, err := api.Listen(clock, w, o.Span.Seed)
	if err != nil {
		return err
	}
	f := &fleet{options: o, clock: clock, world: w, api: server.Address(), scraper: prom.NewScraper(clock, log)}
	defer func() { err = errors.Join(err, f.close()) }()
	if err := f.start(); err != nil {
		return err
	}
	f.schedule()
	for next := w.Start.Add(o.Step); next.Before(w.End); next = next.Add(o.Step) {
		if err := errors.Join(clock.RunTo(next), f.failure); err != nil {
			return err
		}
		if err := errors.Join(f.scraper.Scrape(), clock.Settle()); err != nil {
			return err
		}
	}
	return nil
}

// isSimulatedByFleet returns whether the fleet, rather than the API or the world, simulates an incident.
func isSimulatedByFleet(i *world.Incident) bool {
	return strings.HasPrefix(i.Effect, "exporter_") || i.Effect == world.ScrapeFails || i.Effect == world.TargetMissing || i.Effect == world.CredentialExpires
}
