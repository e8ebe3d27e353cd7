// Package prom is Prometheus with a virtual clock: scrapes with staleness, and rule files in the real rules engine.
//
// For speed, the newest sample of every series stays in memory, and only series that a rule reads over a range are
// written to the TSDB. Recordings that no alert needs are not evaluated. The engine sees the same data as in
// Prometheus' storage.
package prom
