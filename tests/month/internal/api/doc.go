// Package api implements both versions of the partner API for a world with a virtual clock, with the faults of its
// incidents.
package api
