package world

import (
	"fmt"
	"math"
	"time"
)

// changes are ordinary events, each of which affects one customer.
var changes = map[string]func(*World, *Customer, time.Time){
	"onboarding": func(w *World, c *Customer, t time.Time) { w.onboard(c, t, t.Add(w.between(4*time.Hour, 12*time.Hour))) },
	"leaving":    func(_ *World, c *Customer, t time.Time) { c.To = t },
	"renamed": func(_ *World, c *Customer, t time.Time) {
		c.names = append(c.names, rename{t, fmt.Sprintf("Renamed %d AG", c.Index)})
	},
	"module_removed": func(_ *World, c *Customer, t time.Time) { c.Modules[0].To = t },
	"module_added": func(_ *World, c *Customer, t time.Time) {
		m := c.Modules[len(c.Modules)-1]
		m.From, m.firstRun = t, t.Add(5*time.Hour)
	},
	"weekend_off": func(_ *World, c *Customer, _ time.Time) {
		c.WeekendOff = true
		c.names[0].name = fmt.Sprintf("Weekend-off %d KG", c.Index)
	},
}

// change adds ordinary events to customers without incidents.
func (w *World) change() {
	factor := float64(w.End.Sub(w.Start)) / float64(perMonth) * float64(len(w.Customers)) / perCustomers
	for _, change := range w.scenario.Changes {
		for range max(1, int(math.Round(change.Count*factor))) {
			for range selectionAttempts {
				c := w.Customers[w.random.Intn(len(w.Customers))]
				if w.affected[c] || len(c.Modules) < 2 {
					continue
				}
				w.affected[c] = true
				changes[change.Change](w, c, w.Start.Add(w.between(settling, w.End.Sub(w.Start))))
				break
			}
		}
	}
}

// onboard makes a customer join at the time from. None of the customer's modules runs before the time first.
func (w *World) onboard(c *Customer, from, first time.Time) {
	c.From = from
	c.names[0].name = fmt.Sprintf("New customer %d", c.Index)
	for i, m := range c.Modules {
		m.From, m.firstRun = from, first.Add(time.Duration(i)*2*time.Hour)
	}
}
