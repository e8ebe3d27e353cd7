package api

import (
	"fmt"
	"strconv"
	"time"
)

type object = map[string]any

// absent is what the API returns for a value that does not apply.
const absent = "N/A"

// instant formats a time in one of the API's formats, selected by form.
func instant(t time.Time, form int) string {
	if t.IsZero() {
		return absent
	}
	switch form % 4 {
	case 1:
		return t.Format("2006-01-02T15:04:05.0000000Z")
	case 2:
		return t.Format("2006-01-02T15:04:05.0000000+00:00")
	}
	return t.Format("2006-01-02T15:04:05Z")
}

// date formats a date as the API does: the month comes first, and the time is always 12:00:00.
func date(t time.Time) string { return t.Format("01-02-2006") + "T12:00:00Z" }

func duration(start, end time.Time) string {
	if start.IsZero() || end.IsZero() {
		return absent
	}
	seconds := int(end.Sub(start).Seconds())
	switch h, m, s := seconds/3600, seconds/60%60, seconds%60; {
	case seconds == 0:
		return "0 S"
	case h > 0:
		return fmt.Sprintf("%dh%dm%ds", h, m, s)
	case m > 0:
		return fmt.Sprintf("%dm%ds", m, s)
	default:
		return fmt.Sprintf("%ds", s)
	}
}

// size formats megabytes as gigabytes. Whole gigabytes have no decimals.
func size(megabytes float64) string {
	return strconv.FormatFloat(float64(int64(megabytes/1024*100))/100, 'f', -1, 64) + " GB"
}

func orAbsent(s string) string {
	if s == "" {
		return absent
	}
	return s
}
