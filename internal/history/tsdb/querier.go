package tsdb

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

var _ storage.Queryable = (*Store)(nil)

// Querier reads raw samples or roll-ups, selector by selector: one that reaches further back than the raw samples do is answered
// from roll-ups alone, also where there are raw samples, since a mean over both would weigh the last days more than the others.
func (s *Store) Querier(mint, maxt int64) (storage.Querier, error) {
	if !s.mu.TryRLock() {
		return nil, fmt.Errorf("history: %w: it is being opened", ErrUnavailable)
	}
	q, err := s.open(mint, maxt)
	if err != nil {
		s.mu.RUnlock()
		return nil, err
	}
	return q, nil
}

func (s *Store) open(mint, maxt int64) (*querier, error) {
	if s.raw == nil {
		return nil, fmt.Errorf("history: %w", ErrUnavailable)
	}
	q := &querier{store: s, mint: mint, maxt: maxt}
	from, err := s.raw.StartTime()
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	q.rawFrom = from
	if q.raw, err = s.raw.Querier(mint, maxt); err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	blocks := s.rolled.Blocks()
	if len(blocks) == 0 || mint >= from || blocks[0].Meta().MinTime >= from {
		return q, nil
	}
	q.edge = ceil(blocks[len(blocks)-1].Meta().MaxTime)
	if q.rolled, err = s.rolled.Querier(mint, maxt); err != nil {
		return nil, errors.Join(fmt.Errorf("history: %w", err), q.raw.Close())
	}
	return q, nil
}

// querier reads from a store that is not replaced before it is closed.
type querier struct {
	store      *Store
	mint, maxt int64
	raw        storage.Querier
	rawFrom    int64
	rolled     storage.Querier // nil if there is nothing in it that the raw samples do not tell better
	edge       int64           // from here on, roll-ups are made of raw samples as they are read
}

func (q *querier) Close() error {
	defer q.store.mu.RUnlock()
	err := q.raw.Close()
	if q.rolled != nil {
		err = errors.Join(err, q.rolled.Close())
	}
	return err
}

func (q *querier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	h := storage.SelectHints{Start: q.mint, End: q.maxt}
	if hints != nil {
		h = *hints
	}
	raw, how, rename := sourceOf(matchers)
	rolled := q.rolled != nil && h.Start < q.rawFrom
	if !rolled && rename == "" {
		return q.raw.Select(ctx, sorted, &h, matchers...)
	}
	edge := ceil(h.Start)
	if rolled {
		edge = max(edge, q.edge)
	}
	tail := q.tail(ctx, h, edge, how, rename, raw)
	if !rolled {
		return tail
	}
	return storage.NewMergeSeriesSet([]storage.SeriesSet{q.rolled.Select(ctx, true, &h, matchers...), tail}, 0, storage.ChainedSeriesMerge)
}

// tail are roll-ups from edge on that are not written yet.
func (q *querier) tail(ctx context.Context, h storage.SelectHints, edge int64, how how, rename string, matchers []*labels.Matcher) storage.SeriesSet {
	if h.End < edge {
		return emptySet{}
	}
	h.Start = edge - step + 1
	h.Func = "" // the database would skip chunks that it need not read for it
	return &rolling{SeriesSet: q.raw.Select(ctx, true, &h, matchers...), how: how, rename: rename, mint: edge, maxt: h.End - h.End%step}
}

func (q *querier) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return q.both().LabelValues(ctx, name, hints, matchers...)
}

func (q *querier) LabelNames(ctx context.Context, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return q.both().LabelNames(ctx, hints, matchers...)
}

func (q *querier) both() storage.Querier {
	if q.rolled == nil {
		return q.raw
	}
	return storage.NewMergeQuerier([]storage.Querier{q.raw, q.rolled}, nil, storage.ChainedSeriesMerge)
}
