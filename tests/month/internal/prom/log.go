package prom

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/prometheus/prometheus/model/labels"
)

// Log records scraped values for the rules engine and for replays. Its lines have these forms:
//
//	T <Unix seconds>                    the scrapes of a step start
//	N <id> <series>                     first occurrence of a series; ids are consecutive and start at 1
//	<id> <value>                        a value changed or reappeared
//	- <id>                              a series ended
//	U <job> <instance> <0|1>            the value of up after a target's scrape
//	E                                   the scrapes of the step have ended; the rules are evaluated
//	X <job> <instance>                  a target was removed
type Log struct {
	closers []io.Closer
	out     *bufio.Writer
	err     error
}

// NewLog returns a log that writes to all outputs.
func NewLog(outputs ...io.WriteCloser) *Log {
	l := &Log{}
	var writers []io.Writer
	for _, o := range outputs {
		l.closers = append(l.closers, o)
		writers = append(writers, o)
	}
	l.out = bufio.NewWriter(io.MultiWriter(writers...))
	return l
}

// Close flushes the log and closes its outputs. It also returns errors from earlier writes.
func (l *Log) Close() error {
	err := l.out.Flush()
	for _, c := range l.closers {
		err = errors.Join(err, c.Close())
	}
	return err
}

func (l *Log) begin(now int64)               { l.line("T %d\n", now/1000) }
func (l *Log) name(id int, of labels.Labels) { l.line("N %d %s\n", id, of) }
func (l *Log) value(id int, v float64)       { l.line("%d %v\n", id, v) }
func (l *Log) stale(id int)                  { l.line("- %d\n", id) }
func (l *Log) up(t *Target, up int)          { l.line("U %s %s %d\n", t.Job, t.Instance, up) }
func (l *Log) removed(t *Target)             { l.line("X %s %s\n", t.Job, t.Instance) }

// end ends a step. It returns errors from all earlier writes.
func (l *Log) end() error {
	l.line("E\n")
	return l.err
}

func (l *Log) line(format string, a ...any) {
	if _, err := fmt.Fprintf(l.out, format, a...); err != nil {
		l.err = err
	}
}
