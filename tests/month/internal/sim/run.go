package sim

import (
	"errors"
	"path/filepath"
	"strings"
	"time"

	"month/internal/api"
	"month/internal/prom"
	"month/internal/score"
	"month/internal/vtime"
	"month/internal/world"
)

// progressEvery is the virtual time between two progress messages.
const progressEvery = 12 * time.Hour

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
	log, err := prom.NewLog(filepath.Join(o.Out, samplesFile))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	clock := vtime.New(w.Start, o.MinJump)
	server, err := api.Listen(clock, w, o.Span.Seed)
	if err != nil {
		return err
	}
	f := &fleet{options: o, clock: clock, world: w, api: server.Address(), scraper: prom.NewScraper(clock, p.engine, log)}
	defer func() { err = errors.Join(err, f.close()) }()
	if err := f.start(); err != nil {
		return err
	}
	f.schedule()
	return simulate(p, f, server)
}

// simulate scrapes the exporters and evaluates the rules at every step. The exporters run until the next step while the
// rules are evaluated.
func simulate(p *pipeline, f *fleet, server *api.Server) error {
	defer p.engine.Wait()
	start := time.Now()
	lastProgress := f.world.Start
	now := f.world.Start
	for next := now.Add(p.options.Step); next.Before(f.world.End); next = next.Add(p.options.Step) {
		if err := errors.Join(f.clock.RunTo(next), f.failure); err != nil {
			return err
		}
		p.engine.Wait()
		if err := p.settle(now); err != nil {
			return err
		}
		now = next
		if err := f.scraper.Scrape(); err != nil {
			return err
		}
		if err := f.clock.Settle(); err != nil {
			return err
		}
		if now.Sub(lastProgress) >= progressEvery {
			lastProgress = now
			p.log(now, "%s elapsed, %s of it in rules; %d requests, %d samples, %d notifications", time.Since(start).Round(time.Second),
				p.engine.EvaluationTime.Round(time.Second), server.Requests(), f.scraper.Samples, p.manager.Sent)
		}
		p.engine.Start(now)
	}
	p.engine.Wait()
	return p.settle(now)
}

// isSimulatedByFleet returns whether the fleet, rather than the API or the world, simulates an incident.
func isSimulatedByFleet(i *world.Incident) bool {
	return strings.HasPrefix(i.Effect, "exporter_") || i.Effect == world.ScrapeFails || i.Effect == world.TargetMissing || i.Effect == world.CredentialExpires
}
