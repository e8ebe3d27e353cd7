package prom

import (
	"context"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
)

// lastOverTime is a function that needs only the newest sample, regardless of the range.
const lastOverTime = "last_over_time"

// Querier implements storage.Queryable.
func (s *store) Querier(mint, maxt int64) (storage.Querier, error) {
	return &querier{store: s, mint: mint, maxt: maxt}, nil
}

// querier evaluates instant selectors and last_over_time in memory. It opens the TSDB only for other selectors and for
// times in the past.
type querier struct {
	store      *store
	mint, maxt int64
	db         storage.Querier
}

func (q *querier) open() (storage.Querier, error) {
	if q.db == nil {
		opened, err := q.store.db.Querier(q.mint, q.maxt)
		if err != nil {
			return nil, err
		}
		q.db = opened
	}
	return q.db, nil
}

// LabelValues implements storage.Querier.
func (q *querier) LabelValues(ctx context.Context, name string, h *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	db, err := q.open()
	if err != nil {
		return nil, nil, err
	}
	return db.LabelValues(ctx, name, h, ms...)
}

// LabelNames implements storage.Querier.
func (q *querier) LabelNames(ctx context.Context, h *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	db, err := q.open()
	if err != nil {
		return nil, nil, err
	}
	return db.LabelNames(ctx, h, ms...)
}

// Close implements storage.Querier.
func (q *querier) Close() error {
	if q.db != nil {
		return q.db.Close()
	}
	return nil
}

// Select implements storage.Querier.
func (q *querier) Select(ctx context.Context, sorted bool, h *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	name := ""
	for _, m := range ms {
		if m.Name == labels.MetricName && m.Type == labels.MatchEqual {
			name = m.Value
		}
	}
	isLast := h != nil && h.Func == lastOverTime && h.Range != 0 && !q.store.ranged[name]
	isInstant := h != nil && h.Range == 0 && h.End-h.Start <= lookback.Milliseconds()
	if name == "" || !isLast && !isInstant || h.End < q.store.newest {
		db, err := q.open()
		if err != nil {
			return storage.ErrSeriesSet(err)
		}
		return db.Select(ctx, sorted, h, ms...)
	}
	return q.store.newestSamples(name, isLast, h, ms)
}

func (s *store) newestSamples(name string, ofRange bool, h *storage.SelectHints, ms []*labels.Matcher) *newestSet {
	set := &newestSet{at: -1}
	f := s.family(name)
	f.RLock()
	defer f.RUnlock()
next:
	for _, one := range f.series {
		t, v := one.t, one.v
		if ofRange {
			t, v = one.liveT, one.liveV
		}
		if t < h.Start || t > h.End {
			continue
		}
		for _, m := range ms {
			if m.Name != labels.MetricName && !m.Matches(one.labels.Get(m.Name)) {
				continue next
			}
		}
		set.samples = append(set.samples, newestSample{one.labels, t, v})
	}
	return set
}

// newestSample is a series with only its newest sample.
type newestSample struct {
	labels labels.Labels
	t      int64
	v      float64
}

// Labels implements storage.Series.
func (s *newestSample) Labels() labels.Labels { return s.labels }

// Iterator implements storage.Series.
func (s *newestSample) Iterator(reused chunkenc.Iterator) chunkenc.Iterator {
	if it, ok := reused.(*sampleIterator); ok {
		*it = sampleIterator{sample: s}
		return it
	}
	return &sampleIterator{sample: s}
}

// milliseconds is a Unix time. With this alias, vet does not mistake Seek for the method of io.Seeker.
type milliseconds = int64

type sampleIterator struct {
	sample *newestSample
	reads  int
}

// Next implements chunkenc.Iterator.
func (i *sampleIterator) Next() chunkenc.ValueType {
	i.reads++
	if i.reads == 1 {
		return chunkenc.ValFloat
	}
	return chunkenc.ValNone
}

// Seek implements chunkenc.Iterator.
func (i *sampleIterator) Seek(t milliseconds) chunkenc.ValueType {
	if i.reads <= 1 && i.sample.t >= t {
		i.reads = 1
		return chunkenc.ValFloat
	}
	i.reads = 2
	return chunkenc.ValNone
}

// At implements chunkenc.Iterator.
func (i *sampleIterator) At() (int64, float64) { return i.sample.t, i.sample.v }

// AtHistogram implements chunkenc.Iterator.
func (i *sampleIterator) AtHistogram(*histogram.Histogram) (int64, *histogram.Histogram) {
	return 0, nil
}

// AtFloatHistogram implements chunkenc.Iterator.
func (i *sampleIterator) AtFloatHistogram(*histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	return 0, nil
}

// AtT implements chunkenc.Iterator.
func (i *sampleIterator) AtT() int64 { return i.sample.t }

// AtST implements chunkenc.Iterator; the exporter exposes no start timestamps.
func (i *sampleIterator) AtST() int64 { return 0 }

// Err implements chunkenc.Iterator.
func (i *sampleIterator) Err() error { return nil }

// newestSet is a set of series with one sample each.
type newestSet struct {
	samples []newestSample
	at      int
}

// Next implements storage.SeriesSet.
func (s *newestSet) Next() bool { s.at++; return s.at < len(s.samples) }

// At implements storage.SeriesSet.
func (s *newestSet) At() storage.Series { return &s.samples[s.at] }

// Err implements storage.SeriesSet.
func (s *newestSet) Err() error { return nil }

// Warnings implements storage.SeriesSet.
func (s *newestSet) Warnings() annotations.Annotations { return nil }
