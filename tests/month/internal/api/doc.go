// Package api implements both versions of the partner API for a world with a virtual clock, including the API faults of
// the world's incidents.
package api
