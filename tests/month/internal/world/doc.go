// Package world generates a partner's customers, all events in a period of days, and the incidents that alerts are
// compared with. Everything is generated in advance from a seed and a Scenario.
package world
