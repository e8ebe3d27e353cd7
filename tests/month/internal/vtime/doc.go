// Package vtime runs exporters with a virtual clock. The clock moves only when nothing is in flight: every I/O thread
// of an exporter is waiting, every sent byte has been read, and no request is in progress. It then jumps to the next
// timer or event. Unlike with an accelerated clock, a busy machine therefore causes no false timeouts.
package vtime
