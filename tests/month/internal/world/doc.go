// Package world generates a partner's customers, all events over a number of days, and the incidents with which alerts
// are compared. Everything is generated in advance from a seed and a Scenario.
package world
