package prom

import (
	"bufio"
	"errors"
	"fmt"
	"os"

	"github.com/prometheus/prometheus/model/labels"
)

// Log records scraped values for replays, in these lines:
//
//	T <Unix seconds> <job> <instance>   a scrape starts
//	N <id> <series>                     first occurrence of a series
//	<id> <value>                        a value changed or reappeared
//	- <id>                              a series ended
//	U <job> <instance> <0|1>            the value of up after the scrape
//	X <job> <instance>                  a target was removed
type Log struct {
	file *os.File
	out  *bufio.Writer
}

// NewLog creates the file at path, or truncates it.
func NewLog(path string) (*Log, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	const buffer = 1 << 20
	return &Log{file, bufio.NewWriterSize(file, buffer)}, nil
}

// Close flushes and closes the log. It also returns errors from earlier writes.
func (l *Log) Close() error { return errors.Join(l.out.Flush(), l.file.Close()) }

// tick records the time of a scrape without targets.
func (l *Log) tick(now int64) { l.line("T %d\n", now/1000) }

func (l *Log) begin(now int64, t *Target) { l.line("T %d %s %s\n", now/1000, t.Job, t.Instance) }
func (l *Log) name(id int, of labels.Labels) {
	l.line("N %d %s\n", id, of)
}
func (l *Log) value(id int, v float64)      { l.line("%d %v\n", id, v) }
func (l *Log) stale(id int)                 { l.line("- %d\n", id) }
func (l *Log) up(t *Target, up float64)     { l.line("U %s %s %v\n", t.Job, t.Instance, up) }
func (l *Log) removed(t *Target)            { l.line("X %s %s\n", t.Job, t.Instance) }
func (l *Log) line(format string, a ...any) { _, _ = fmt.Fprintf(l.out, format, a...) } // Close reports errors
