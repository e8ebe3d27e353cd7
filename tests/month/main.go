// Command month scores alerts. See README.md.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"time"

	"month/internal/score"
	"month/internal/sim"
	"month/internal/world"
)

// gcPercent trades memory for speed. A run with 1,000 customers still needs only a few gigabytes.
const gcPercent = 400

// threadsPerCPU: with one thread per CPU, a request from an exporter can wait for several milliseconds while rules are
// evaluated. A day of 20 customers takes 60 s with one, 52 s with two.
const threadsPerCPU = 2

// monthStart is chosen so that a run of 30 days includes the end of daylight saving time in Europe.
var monthStart = time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC)

type arguments struct {
	sim.Options
	deploy, scenario        string
	replay, amReplay, score string
	floors                  score.Floors
	check, messages         bool
	profile                 string
}

func main() {
	debug.SetGCPercent(gcPercent)
	runtime.GOMAXPROCS(threadsPerCPU * runtime.NumCPU())
	a := parse()
	if err := run(a); err != nil {
		fmt.Fprintln(os.Stderr, "month:", err)
		os.Exit(1)
	}
}

func parse() *arguments {
	a := &arguments{}
	a.Progress = os.Stderr
	a.Span.Start = monthStart
	flag.IntVar(&a.Span.Customers, "customers", 20, "number of customers")
	flag.IntVar(&a.Span.Days, "days", 5, "number of days to simulate")
	flag.Int64Var(&a.Span.Seed, "seed", 7, "seed of the world")
	flag.StringVar(&a.API, "api", "v3", "API version: v1 or v3")
	flag.StringVar(&a.scenario, "scenario", "", "scenario file; by default, internal/world/scenario.yml")
	flag.StringVar(&a.Out, "out", "", "directory for the results")
	flag.StringVar(&a.Exporter, "exporter", "", "exporter binary")
	flag.StringVar(&a.Shim, "shim", "", "shared library of the virtual clock")
	flag.StringVar(&a.deploy, "deploy", "", "directory with prometheus/elements-*.yml and alertmanager/alertmanager.yml")
	flag.StringVar(&a.Rules, "rules", "", "directory with elements-*.yml; by default, prometheus in --deploy")
	flag.StringVar(&a.Alertmanager, "alertmanager", "", "Alertmanager configuration file; by default, alertmanager/alertmanager.yml in --deploy")
	flag.DurationVar(&a.Step, "step", time.Minute, "interval of scrapes and evaluations")
	flag.DurationVar(&a.Jobs, "jobs", 5*time.Minute, "interval of the jobs collector")
	flag.DurationVar(&a.MinJump, "min-jump", 5*time.Second, "maximum delay of the exporter's timers")
	flag.IntVar(&a.Shards, "shards", 1, "number of exporters, each with one shard of the customers")
	flag.IntVar(&a.Targets, "targets", 1, "number of targets that service discovery lists for an exporter")
	flag.StringVar(&a.replay, "replay", "", "evaluate the rules with the scrapes of the run in this directory")
	flag.StringVar(&a.amReplay, "amreplay", "", "route the alerts of the run in this directory again")
	flag.StringVar(&a.score, "score", "", "only print the score of the run in this directory")
	flag.BoolVar(&a.messages, "messages", false, "also list each notification that is not the first report of an incident")
	flag.BoolVar(&a.check, "check", false, "exit with 1 if the score violates a limit")
	flag.Float64Var(&a.floors.Recall, "floor-recall", 0.85, "minimum proportion of incidents that are reported")
	flag.Float64Var(&a.floors.InTime, "floor-in-time", 0.8, "minimum proportion of incidents that are reported in time")
	flag.Float64Var(&a.floors.Strict, "floor-strict", 0.35, "minimum proportion of notifications that report an incident for the first time")
	flag.Float64Var(&a.floors.Lenient, "floor-lenient", 0.8, "minimum proportion of notifications that are correct")
	flag.Float64Var(&a.floors.PerDay, "max-per-day", 60, "maximum number of notifications per day")
	flag.StringVar(&a.profile, "cpu-profile", "", "file for a CPU profile of the driver")
	flag.Parse()
	if a.Rules == "" {
		a.Rules = filepath.Join(a.deploy, "prometheus")
	}
	if a.Alertmanager == "" {
		a.Alertmanager = filepath.Join(a.deploy, "alertmanager", "alertmanager.yml")
	}
	return a
}

func run(a *arguments) error {
	if a.profile != "" {
		file, err := os.Create(a.profile)
		if err != nil {
			return err
		}
		defer file.Close()
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	if err := simulate(a); err != nil {
		return err
	}
	result, err := score.Of(a.Out)
	if err != nil {
		return err
	}
	if err := result.Print(os.Stdout); err != nil {
		return err
	}
	if a.messages {
		if err := result.PrintMessages(os.Stdout); err != nil {
			return err
		}
	}
	if a.check {
		return a.floors.Check(result.Totals())
	}
	return nil
}

func simulate(a *arguments) error {
	switch {
	case a.score != "":
		a.Out = a.score
		return nil
	case a.replay != "":
		return sim.Replay(a.replay, a.Options)
	case a.amReplay != "":
		return sim.ReplayAlerts(a.amReplay, a.Options)
	}
	scenario, err := world.LoadScenario(a.scenario)
	if err != nil {
		return err
	}
	a.Scenario = scenario
	return sim.Run(a.Options)
}
