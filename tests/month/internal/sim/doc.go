// Package sim runs exporters, Prometheus and Alertmanager in a world, or replays the records of an earlier run.
package sim
