// Package api implements the partner API in both generations for a world with a virtual clock, with the faults of its
// incidents.
package api
