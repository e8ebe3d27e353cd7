// Package prom implements Prometheus with a virtual clock. It scrapes with staleness handling, and evaluates rule files
// with the real rules engine.
//
// For speed, the newest sample of every series is kept in memory, and only series that a rule reads over a range are
// written to the TSDB. Recording rules that no alert needs are not evaluated. The engine sees the same data as with
// Prometheus' storage.
package prom
