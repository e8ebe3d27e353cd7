package prom

import (
	"context"
	"sync"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
)

const longAgo = -1 << 60

// series is a series with its newest sample.
type series struct {
	labels labels.Labels
	t      int64
	v      float64
	liveT  int64 // newest sample that is not a stale marker
	liveV  float64
	ref    storage.SeriesRef
	ranged bool
}

// family is all series of one name.
type family struct {
	sync.RWMutex // held while rules read or write the series, because they can be evaluated concurrently
	series       map[uint64]*series
}

// store contains the series that rules read or write.
type store struct {
	families sync.Map        // of *family, by name
	ranged   map[string]bool // names of series that the TSDB must contain
	db       *tsdb.DB
	// newest is the time of the latest scrape. Results of rules do not advance it: groups write at different times, so a
	// query from an earlier group would seem to be in the past.
	newest int64
}

// advance sets the time of the scrape.
func (s *store) advance(now int64) { s.newest = max(s.newest, now) }

func newStore(db *tsdb.DB) *store {
	return &store{db: db, ranged: map[string]bool{}}
}

func (s *store) family(name string) *family {
	found, ok := s.families.Load(name)
	if !ok {
		found, _ = s.families.LoadOrStore(name, &family{series: map[uint64]*series{}})
	}
	return found.(*family)
}

// series returns the series with the given labels, whose family the caller has locked if rules are being evaluated.
func (s *store) series(f *family, l labels.Labels) *series {
	hash := l.Hash()
	found := f.series[hash]
	if found == nil {
		name := l.Get(labels.MetricName)
		found = &series{labels: l, t: longAgo, liveT: longAgo, ranged: s.ranged[name] || s.ranged[""]}
		f.series[hash] = found
	}
	return found
}

// Appender implements storage.Appendable.
func (s *store) Appender(ctx context.Context) storage.Appender { return s.appender(ctx) }

func (s *store) appender(ctx context.Context) *appender { return &appender{s, s.db.Appender(ctx)} }

type appender struct {
	store *store
	db    storage.Appender
}

// put appends a sample to a series, whose family the caller has locked if rules are being evaluated.
func (a *appender) put(s *series, t int64, v float64) error {
	if s.ranged {
		ref, err := a.db.Append(s.ref, s.labels, t, v)
		if err != nil {
			return err
		}
		s.ref = ref
	}
	if t >= s.t {
		s.t, s.v = t, v
		if !value.IsStaleNaN(v) {
			s.liveT, s.liveV = t, v
		}
	}
	return nil
}

// Append implements storage.Appender.
func (a *appender) Append(_ storage.SeriesRef, l labels.Labels, t int64, v float64) (storage.SeriesRef, error) {
	f := a.store.family(l.Get(labels.MetricName))
	f.Lock()
	defer f.Unlock()
	return 0, a.put(a.store.series(f, l), t, v)
}

// Commit implements storage.Appender.
func (a *appender) Commit() error { return a.db.Commit() }

// Rollback implements storage.Appender.
func (a *appender) Rollback() error { return a.db.Rollback() }

// SetOptions implements storage.Appender.
func (a *appender) SetOptions(o *storage.AppendOptions) { a.db.SetOptions(o) }

// AppendExemplar implements storage.Appender. Rules write no exemplars.
func (a *appender) AppendExemplar(storage.SeriesRef, labels.Labels, exemplar.Exemplar) (storage.SeriesRef, error) {
	return 0, nil
}

// AppendHistogram implements storage.Appender. The exporter has no native histograms.
func (a *appender) AppendHistogram(storage.SeriesRef, labels.Labels, int64, *histogram.Histogram, *histogram.FloatHistogram) (storage.SeriesRef, error) {
	return 0, nil
}

// AppendHistogramSTZeroSample implements storage.Appender.
func (a *appender) AppendHistogramSTZeroSample(storage.SeriesRef, labels.Labels, int64, int64, *histogram.Histogram, *histogram.FloatHistogram) (storage.SeriesRef, error) {
	return 0, nil
}

// UpdateMetadata implements storage.Appender.
func (a *appender) UpdateMetadata(storage.SeriesRef, labels.Labels, metadata.Metadata) (storage.SeriesRef, error) {
	return 0, nil
}

// AppendSTZeroSample implements storage.Appender.
func (a *appender) AppendSTZeroSample(storage.SeriesRef, labels.Labels, int64, int64) (storage.SeriesRef, error) {
	return 0, nil
}
