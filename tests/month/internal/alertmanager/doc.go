// Package alertmanager is Alertmanager with a virtual clock. It uses the real packages for configuration, routing and
// time intervals. Grouping, inhibition and the notification log reimplement dispatch/dispatch.go, inhibit/inhibit.go
// and notify/notify.go of version 0.28, because these support only the machine's clock. Silences, clusters and restarts
// are not implemented.
package alertmanager
