package sim

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"month/internal/world"
)

// Options configure a simulation or a replay.
type Options struct {
	Out          string // output directory, which is emptied first
	Exporter     string // path of the exporter binary
	Shim         string // path of the shared library with the virtual clock
	Rules        string // directory with elements-*.yml
	Alertmanager string // configuration file
	Scenario     *world.Scenario
	Span         world.Span
	API          string // v1 or v3
	Step         time.Duration
	MinJump      time.Duration
	Jobs         time.Duration // interval of the jobs collector
	Shards       int           // number of exporters, each a separate scrape job
	Targets      int           // number of targets per exporter in service discovery
	Progress     io.Writer
}

// ruleFiles returns the rule files in a directory.
func ruleFiles(dir string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "elements-*.yml"))
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("no elements-*.yml in %s", dir)
	}
	return files, err
}

// stepFile is the name of the file with a run's step, which replays reuse.
const stepFile = "step"

func writeStep(o Options) error {
	return os.WriteFile(filepath.Join(o.Out, stepFile), []byte(o.Step.String()), 0o644)
}

func readStep(from string, o *Options) error {
	text, err := os.ReadFile(filepath.Join(from, stepFile))
	if err != nil {
		return fmt.Errorf("no run in %s: %w", from, err)
	}
	o.Step, err = time.ParseDuration(string(text))
	return err
}

// checkDistinct returns an error if the output directory is also the input.
func checkDistinct(from, out string) error {
	a, err := filepath.Abs(from)
	if err != nil {
		return err
	}
	b, err := filepath.Abs(out)
	if err == nil && a == b {
		err = fmt.Errorf("%s contains the replayed run; choose another directory with --out", out)
	}
	return err
}

// prepareDir creates or empties a directory. It returns an error if the directory is not empty and does not contain a
// run.
func prepareDir(out, marker string) error {
	entries, err := os.ReadDir(out)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if len(entries) > 0 {
		if _, err := os.Stat(filepath.Join(out, marker)); err != nil {
			return fmt.Errorf("%s is not empty and does not contain an earlier run", out)
		}
	}
	return errors.Join(os.RemoveAll(out), os.MkdirAll(out, 0o755), os.WriteFile(filepath.Join(out, marker), nil, 0o644))
}
