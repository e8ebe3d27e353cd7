// Package alertmanager implements Alertmanager with a virtual clock. It uses the real packages for configuration,
// routing and time intervals. It reimplements grouping, inhibition and the notification log, because
// dispatch/dispatch.go, inhibit/inhibit.go and notify/notify.go in version 0.31 support only the machine's clock.
// Silences, clusters and restarts are not implemented.
package alertmanager
