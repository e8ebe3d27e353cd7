package score

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"month/internal/alertmanager"
)

// Of reads a run and scores it.
func Of(dir string) (*Score, error) {
	r, err := load(dir)
	if err != nil {
		return nil, err
	}
	r.judge()
	return r.measure(), nil
}

// Totals summarizes a score.
type Totals struct {
	Recall, InTime, Strict, Lenient         float64 // between 0 and 1
	PerDay                                  float64 // notifications of any kind to any receiver
	Flaps, Storms, MissedResolves, Reported int
	Incidents                               int
}

// Totals summarizes all kinds and receivers.
func (s *Score) Totals() Totals {
	var t Totals
	inTime := 0
	for _, k := range s.Kinds {
		if !k.Quiet {
			t.Incidents, t.Reported, inTime = t.Incidents+k.Incidents, t.Reported+k.Reported, inTime+k.InTime
		}
	}
	t.Recall, t.InTime = share(t.Reported, t.Incidents), share(inTime, t.Incidents)
	var all ReceiverScore
	for _, r := range s.Receivers {
		for v, n := range r.Verdicts {
			all.Verdicts[v] += n
		}
		t.PerDay += r.PerDay
		t.Storms += r.Storms
	}
	t.Strict, t.Lenient = all.Precision()
	for _, f := range s.Flaps {
		t.Flaps += f.Count
	}
	for _, m := range s.MissedResolves {
		t.MissedResolves += m.Count
	}
	return t
}

// Precision returns the proportion of notifications that are the receiver's first report of an incident, and the
// proportion of true notifications.
func (r ReceiverScore) Precision() (strict, lenient float64) {
	all := 0
	for _, n := range r.Verdicts {
		all += n
	}
	return share(r.Verdicts[firstReport], all), share(all-r.Verdicts[isFalse], all)
}

func share(part, whole int) float64 {
	if whole == 0 {
		return 1
	}
	return float64(part) / float64(whole)
}

// Print writes the score as text.
func (s *Score) Print(out io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%.1f days, %d customers, %d modules and scopes, %d notifications\n", s.Days, s.Customers, s.Modules, s.Messages)
	if len(s.Unplaced) > 0 {
		fmt.Fprintf(&b, "not placed or not counted: %s\n", strings.Join(s.Unplaced, ", "))
	}
	s.printKinds(&b)
	s.printReceivers(&b)
	printCauses(&b, "Notifications that are not the first report of an incident", s.Causes)
	printCauses(&b, fmt.Sprintf("Flaps: alerts that were reported as new again within %s", hours(flapWithin)), s.Flaps)
	printCauses(&b, fmt.Sprintf("Alerts that resolved more than %s before the end, but were never reported as resolved", hours(resolveWithin)), s.MissedResolves)
	for _, p := range s.Problems {
		fmt.Fprintf(&b, "problem: %s\n", p)
	}
	t := s.Totals()
	fmt.Fprintf(&b, "\nrecall %d/%d = %s, in time %s; precision strict %s, lenient %s; %.1f notifications per day; %d storm hours, %d flaps, %d alerts never reported as resolved\n",
		t.Reported, t.Incidents, percent(t.Recall), percent(t.InTime), percent(t.Strict), percent(t.Lenient), t.PerDay, t.Storms, t.Flaps, t.MissedResolves)
	_, err := io.WriteString(out, b.String())
	return err
}

// PrintMessages lists the notifications that are not the first report of an incident.
func (s *Score) PrintMessages(out io.Writer) error {
	var b strings.Builder
	b.WriteString("\nNotifications that are not the first report of an incident, in detail\n")
	for _, m := range s.Listed {
		fmt.Fprintf(&b, "  %s  %s  %s: %s\n", m.At.Format("02 15:04"), m.Receiver, m.Verdict, m.Cause)
		for _, a := range m.Alerts {
			fmt.Fprintf(&b, "      %s\n", a)
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func table(b *strings.Builder, write func(w io.Writer)) {
	const gap = 2
	w := tabwriter.NewWriter(b, 0, 0, gap, ' ', 0)
	write(w)
	_ = w.Flush() // a strings.Builder never fails
}

func (s *Score) printKinds(b *strings.Builder) {
	b.WriteString("\nRecall by kind of incident, and time to the first notification\n")
	table(b, func(w io.Writer) {
		fmt.Fprintln(w, "  kind\tincidents\treported\tin time\tmedian\tworst\tnotifications per incident\tmissed")
		for _, k := range s.Kinds {
			if k.Quiet {
				fmt.Fprintf(w, "  %s\t%d\tno notification needed\n", k.Kind, k.Incidents)
				continue
			}
			fmt.Fprintf(w, "  %s\t%d\t%d\t%d\t%s\t%s\t%.1f\t%s\n", k.Kind, k.Incidents, k.Reported, k.InTime, hours(k.Median), hours(k.Worst),
				float64(k.Messages)/float64(k.Incidents), strings.Join(k.Missed, "; "))
		}
	})
}

func (s *Score) printReceivers(b *strings.Builder) {
	b.WriteString("\nPrecision by receiver, new information only (strict: first reports of incidents)\n")
	table(b, func(w io.Writer) {
		fmt.Fprintln(w, "  receiver\tstrict\tlenient\tfirst\tagain\tminor\tfalse")
		for _, r := range s.Receivers {
			strict, lenient := r.Precision()
			fmt.Fprintf(w, "  %s\t%s\t%s\t%d\t%d\t%d\t%d\n", r.Receiver, percent(strict), percent(lenient),
				r.Verdicts[firstReport], r.Verdicts[repeatReport], r.Verdicts[isMinor], r.Verdicts[isFalse])
		}
	})
	fmt.Fprintf(b, "\nNotifications by receiver, all kinds (a storm is an hour with %d or more)\n", stormSize)
	table(b, func(w io.Writer) {
		fmt.Fprintln(w, "  receiver\tper day\tworst day\tworst hour\tstorm hours\tnew\tmore\trepeat\tresolved\tpartly")
		for _, r := range s.Receivers {
			fmt.Fprintf(w, "  %s\t%.1f\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", r.Receiver, r.PerDay, r.WorstDay, r.WorstHour, r.Storms,
				r.ByKind[alertmanager.KindNew], r.ByKind[alertmanager.KindMore], r.ByKind[alertmanager.KindRepeat],
				r.ByKind[alertmanager.KindResolved], r.ByKind[alertmanager.KindPartlyResolved])
		}
	})
}

func printCauses(b *strings.Builder, title string, causes []Cause) {
	fmt.Fprintf(b, "\n%s\n", title)
	if len(causes) == 0 {
		b.WriteString("  none\n")
	}
	for _, c := range causes {
		fmt.Fprintf(b, "  %4d  %s   first %s\n", c.Count, c.Text, c.First.Format("02 15:04"))
	}
}

func percent(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) }

func hours(d time.Duration) string { return fmt.Sprintf("%.1f h", d.Hours()) }
