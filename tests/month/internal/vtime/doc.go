// Package vtime runs exporters with a virtual clock. The clock moves only when nothing is in flight: every I/O thread
// of an exporter waits, every sent byte has been read, and no request is in progress. It then jumps to the next timer
// or event. A busy machine therefore causes no false timeouts, unlike with an accelerated clock.
package vtime
