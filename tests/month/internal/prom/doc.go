// Package prom implements Prometheus with a virtual clock. It scrapes with staleness handling, and evaluates rule files
// with the real rules engine.
//
// For speed, the newest sample of every series stays in memory, and only series that a rule reads over a range are
// written to the TSDB. Recording rules that no alert needs are not evaluated. The engine sees the same data as in
// Prometheus' storage.
package prom
