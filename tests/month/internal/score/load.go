package score

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"month/internal/alertmanager"
)

func load(dir string) (*run, error) {
	r := &run{truth: &Truth{}, patterns: map[string]*regexp.Regexp{}, modules: map[moduleOf]*Module{}, notices: map[string][]notice{}}
	err := errors.Join(
		readJSON(filepath.Join(dir, TruthFile), r.truth),
		readJSON(filepath.Join(dir, ReceiversFile), &r.receivers),
		ReadLines(filepath.Join(dir, NotificationsFile), func(n alertmanager.Notification) { r.notifications = append(r.notifications, n) }),
		ReadLines(filepath.Join(dir, AlertsFile), func(t Transition) { r.alerts = append(r.alerts, t) }),
	)
	if err != nil {
		return nil, err
	}
	for i := range r.truth.Modules {
		m := &r.truth.Modules[i]
		r.modules[moduleOf{m.Customer, m.Key}] = m
	}
	for _, i := range r.truth.Incidents {
		for _, text := range i.Expect {
			if r.patterns[text], err = regexp.Compile(text); err != nil {
				return nil, fmt.Errorf("incident %s: %w", i.Kind, err)
			}
		}
	}
	return r, nil
}

// ReadTruth reads the truth from a run's directory.
func ReadTruth(dir string) (*Truth, error) {
	truth := &Truth{}
	return truth, readJSON(filepath.Join(dir, TruthFile), truth)
}

func readJSON(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// ReadLines reads a file with one JSON object per line.
func ReadLines[T any](path string, handle func(T)) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	const longest = 64 << 20 // a notification may contain every customer
	lines.Buffer(nil, longest)
	for lines.Scan() {
		var one T
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		handle(one)
	}
	return lines.Err()
}
