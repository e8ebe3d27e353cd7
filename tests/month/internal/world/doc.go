// Package world generates a partner's customers, all events in a period of days, and the list of incidents with which
// alerts are compared. Everything is generated in advance from a seed and a Scenario.
package world
