package tsdb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	prom "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Maintain does what is due: it opens the databases again if they broke and there is room, moves what is finished from memory
// to the disk, deletes what is too old or too much, and writes roll-ups. It is called about once a minute of protip's clock, and
// may take long.
func (s *Store) Maintain(ctx context.Context, now time.Time) {
	s.upkeep.Lock()
	defer s.upkeep.Unlock()
	if s.closed {
		return
	}
	if broken := s.broken.get(); broken != nil {
		s.mend(broken)
		return
	}
	if err := s.maintain(ctx, now.UnixMilli()); ctx.Err() == nil {
		s.tell(err)
	}
	s.metrics.size.Set(float64(size(s.o.Dir)))
}

// mend opens the databases again. That there is still no room is no news.
func (s *Store) mend(broken error) {
	s.mu.RLock()
	err := s.room()
	s.mu.RUnlock()
	if err == nil {
		err = s.reopen()
	}
	switch {
	case err == nil:
		s.log.Info("history was opened again", "after", broken)
	case !isFull(err):
		s.tell(fmt.Errorf("open again: %w", err))
	}
}

// tell counts a failure, and says it in the log once until it goes well again.
func (s *Store) tell(err error) {
	if err != nil {
		s.metrics.upkeepFailures.Inc()
	}
	if failing := err != nil; failing != s.failing {
		s.failing = failing
		if failing {
			s.log.Warn("history: upkeep fails and is tried again", "err", err)
		} else {
			s.log.Info("history: upkeep goes well again")
		}
	}
}

// maintain reads and replaces nothing that queries use, but for what the databases guard themselves.
func (s *Store) maintain(ctx context.Context, now int64) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.room(); err != nil {
		return nil // Append says so
	}
	if err := surviving(func() error { s.raw.ForceHeadMMap(); return nil }); err != nil {
		s.broken.set(err) // a chunk may be known twice
		return err
	}
	s.metrics.series.Set(float64(s.raw.Head().NumSeries()))
	// Roll-ups first: they are made of what the retention deletes.
	var err error
	if now >= s.rollAgain {
		if err = surviving(func() error { return s.writeRollUps(ctx, now) }); err != nil {
			s.rollAgain = now + again.Milliseconds()
		}
	}
	return errors.Join(err,
		surviving(func() error { return s.raw.Compact(ctx) }),
		surviving(func() error { return s.rolled.Compact(ctx) }))
}

// writeRollUps writes a block for each window that is over and not written yet.
func (s *Store) writeRollUps(ctx context.Context, now int64) error {
	from, err := s.raw.StartTime()
	if err != nil {
		return fmt.Errorf("roll up: %w", err)
	}
	width := window.Milliseconds()
	next := max(from-from%width, s.rolledTo)
	for _, b := range s.rolled.Blocks() {
		next = max(next, windowAfter(b.Meta().MaxTime-1))
	}
	for ; next+width <= now; next += width {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.writeWindow(ctx, next, next+width-step); err != nil {
			return fmt.Errorf("roll up %s: %w", time.UnixMilli(next).UTC().Format(time.RFC3339), err)
		}
		s.rolledTo = next + width
	}
	return nil
}

// windowAfter is the start of the first window after that of t.
func windowAfter(t int64) int64 {
	width := window.Milliseconds()
	return t - t%width + width
}

// writeWindow writes the roll-ups at the times [mint, maxt] as one block, whole or not at all.
func (s *Store) writeWindow(ctx context.Context, mint, maxt int64) error {
	q, err := s.raw.Querier(mint-step+1, maxt)
	if err != nil {
		return err
	}
	defer q.Close()
	// Twice the window: a series' first sample may come after another's last.
	w, err := tsdb.NewBlockWriter(quiet(s.log), s.rolled.Dir(), 2*window.Milliseconds())
	if err != nil {
		return err
	}
	defer w.Close()
	app, pending, total := w.Appender(ctx), 0, 0
	set := q.Select(ctx, true, nil, labels.MustNewMatcher(labels.MatchNotEqual, model.MetricNameLabel, ""))
	var points []prom.FPoint
	var it chunkenc.Iterator
	for set.Next() {
		series := set.At()
		ls := series.Labels()
		it = series.Iterator(it)
		h := howOf(ls.Get(model.MetricNameLabel))
		if points, err = rollUp(points[:0], it, h, mint, maxt); err != nil {
			return errors.Join(err, app.Rollback())
		}
		total += len(points)
		if err = appendAll(app, ls, points); err == nil && h == mean {
			it = series.Iterator(it)
			if points, err = rollUp(points[:0], it, most, mint, maxt); err == nil {
				err = appendAll(app, renamed(ls, highest), points)
			}
		}
		if err != nil {
			return errors.Join(err, app.Rollback())
		}
		if pending += len(points); pending > 100_000 {
			if err := app.Commit(); err != nil {
				return err
			}
			app, pending = w.Appender(ctx), 0
		}
	}
	if err := errors.Join(set.Err(), app.Commit()); err != nil {
		return err
	}
	if total == 0 {
		return nil
	}
	_, err = w.Flush(ctx)
	return err
}

func appendAll(app storage.Appender, ls labels.Labels, points []prom.FPoint) error {
	var ref storage.SeriesRef
	for _, p := range points {
		var err error
		if ref, err = app.Append(ref, ls, p.T, p.F); err != nil {
			return err
		}
	}
	return nil
}

// size is how many bytes lie below a directory.
func size(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil // a file that went away meanwhile is none
		}
		if info, err := entry.Info(); err == nil {
			n += info.Size()
		}
		return nil
	})
	return n
}
