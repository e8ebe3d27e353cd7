package score

import (
	"errors"
	"fmt"
)

// Floors are the requirements for a score.
type Floors struct {
	Recall, InTime, Strict, Lenient float64
	PerDay                          float64 // maximum number of notifications per day
}

// Check returns all violations.
func (f Floors) Check(t Totals) error {
	var errs []error
	for _, x := range []struct {
		name         string
		got, minimum float64
	}{{"recall", t.Recall, f.Recall}, {"recall in time", t.InTime, f.InTime}, {"strict precision", t.Strict, f.Strict}, {"lenient precision", t.Lenient, f.Lenient}} {
		if x.got < x.minimum {
			errs = append(errs, fmt.Errorf("%s is %s; the minimum is %s", x.name, percent(x.got), percent(x.minimum)))
		}
	}
	if t.PerDay > f.PerDay {
		errs = append(errs, fmt.Errorf("%.1f notifications per day; the maximum is %.1f", t.PerDay, f.PerDay))
	}
	return errors.Join(errs...)
}
