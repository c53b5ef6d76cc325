// Package tsdb keeps the fleet's history in two Prometheus databases: raw samples, and roll-ups of five minutes.
// It promises that one process writes, that a kill costs the last cycle at most, and that a full disk costs history and nothing else.
// It must not import whoever asks it, nor a platform; see DESIGN.md.
package tsdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	prom "github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/compression"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/history/promql"
	"github.com/protip/protip/internal/inventory"
)

// Errors that decide what a caller does.
var (
	// ErrLocked says that another process writes here: ask it.
	ErrLocked = errors.New("in use by another agent")
	// ErrFull says that there is too little room on the disk to go on.
	ErrFull = errors.New("too little room on the disk")
	// ErrUnavailable says that the databases are closed, until there is room again.
	ErrUnavailable = errors.New("not available")
)

// Options are what a store is made of.
type Options struct {
	Dir             string
	Retention       time.Duration // of raw samples
	RollupRetention time.Duration
	MaxBytes        int64    // of both, a third of it for roll-ups; 0 is no limit
	Families        []string // beside Default
	Limits          promql.Limits
	Log             *slog.Logger
	Registerer      prometheus.Registerer // may be nil

	reserve func(series uint64) uint64 // bytes that must be free; nil is reserve
}

const (
	// refresh is how often a value is written that does not change: well within what an instant selector looks back.
	refresh = time.Minute
	// window is what one block holds at first.
	window = 2 * time.Hour
	// again is how long roll-ups that failed are let be: they cost much, and the disk may be full.
	again = 10 * time.Minute
	// never is longer than any process runs.
	never = 100 * 365 * 24 * time.Hour
)

// Store is an open history. Its methods may be called from any goroutine.
type Store struct {
	*promql.Engine
	o       Options
	log     *slog.Logger
	lock    *os.File // nil in a store that only reads
	view    string   // what such a one has made for itself
	metrics *metrics

	mu          sync.RWMutex // held for reading by those who use the databases, for writing by those who replace them
	raw, rolled *prom.DB     // nil while closed
	broken      fault        // why the databases must be opened again

	writing  sync.Mutex // guards what follows
	families []string
	fleet    *fleet
	begun    bool  // a cycle was written since the databases were opened
	last     int64 // when
	full     bool  // said so

	upkeep    sync.Mutex // guards what follows
	closed    bool
	failing   bool  // said so
	rolledTo  int64 // up to where this process has written roll-ups, or found nothing to roll up
	rollAgain int64 // when a window that failed is tried again
}

var _ history.Querier = (*Store)(nil)

// Open takes the directory, made if it is not there, for this process alone. A directory that another has is ErrLocked. If there
// is no room to open the databases they stay closed, and Maintain tries again.
func Open(o Options) (*Store, error) {
	if err := CheckFamilies(o.Families); err != nil {
		return nil, err
	}
	if o.reserve == nil {
		o.reserve = reserve
	}
	s := &Store{o: o, log: o.Log, metrics: newMetrics(o.Registerer)}
	s.Engine = promql.New(s, o.Limits)
	s.Want(nil)
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	var err error
	if s.lock, err = takeLock(o.Dir); err != nil {
		return nil, fmt.Errorf("history in %s: %w", o.Dir, err)
	}
	if err := dropViews(o.Dir); err != nil {
		s.log.Warn("history: what a reader left behind stays", "err", err)
	}
	if err := s.reopen(); err != nil && !isFull(err) {
		return nil, errors.Join(fmt.Errorf("history in %s: %w", o.Dir, err), s.Close())
	}
	return s, nil
}

// reserve is what must be free on the disk: what the database writes at once without being asked, and twice that.
func reserve(series uint64) uint64 { return 16<<20 + 2048*series }

// Want sets the families that are kept, beside Default and those of the options: those that somebody asks for by name, for
// instance what rules select. Names that are no family are ignored.
func (s *Store) Want(names []string) {
	keep := append(Default(), s.o.Families...)
	for _, name := range names {
		if slices.Contains(Known(), name) {
			keep = append(keep, name)
		}
	}
	slices.Sort(keep)
	keep = slices.Compact(keep)
	s.writing.Lock()
	defer s.writing.Unlock()
	if !slices.Equal(keep, s.families) {
		s.families, s.fleet, s.begun = keep, newFleet(keep), false
	}
}

// reopen opens the databases anew, after waiting for those who read from them.
func (s *Store) reopen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.closeDatabases(); err != nil {
		s.log.Warn("history: databases closed with an error", "err", err)
	}
	err := s.room()
	if err == nil {
		err = s.openDatabases()
	}
	s.broken.set(err)
	if err != nil {
		return errors.Join(err, s.closeDatabases())
	}
	s.writing.Lock()
	s.fleet, s.begun = newFleet(s.families), false
	s.writing.Unlock()
	return nil
}

func (s *Store) openDatabases() error {
	var err error
	raw := prom.DefaultOptions()
	raw.RetentionDuration = s.o.Retention.Milliseconds()
	raw.MaxBytes = s.o.MaxBytes / 3 * 2
	raw.MaxBlockDuration = longest(s.o.Retention)
	raw.NoLockfile = true
	raw.WALCompression = compression.Snappy
	// What the database does by itself may panic if the disk is full; Maintain does it instead, and recovers.
	raw.BlockReloadInterval = never
	if s.raw, err = prom.Open(filepath.Join(s.o.Dir, "raw"), quiet(s.log), nil, raw, nil); err != nil {
		return fmt.Errorf("open raw samples: %w", err)
	}
	s.raw.DisableCompactions()
	rolled := prom.DefaultOptions()
	rolled.RetentionDuration = s.o.RollupRetention.Milliseconds()
	rolled.MaxBytes = s.o.MaxBytes / 3
	rolled.MaxBlockDuration = longest(s.o.RollupRetention)
	rolled.NoLockfile = true
	rolled.WALSegmentSize = -1 // blocks only
	rolled.BlockReloadInterval = prom.MinBlockReloadInterval
	if s.rolled, err = prom.Open(filepath.Join(s.o.Dir, "rollup"), quiet(s.log), nil, rolled, nil); err != nil {
		return fmt.Errorf("open roll-ups: %w", err)
	}
	s.rolled.DisableCompactions()
	return nil
}

// longest is the longest block for a retention: a tenth of it as in Prometheus, so that not much more is kept than was asked for.
func longest(retention time.Duration) int64 {
	return min(max(retention/10, window), 31*24*time.Hour).Milliseconds()
}

// quiet leaves the database's own chatter out of the log.
func quiet(log *slog.Logger) *slog.Logger { return slog.New(onlyWarnings{log.Handler()}) }

type onlyWarnings struct{ slog.Handler }

func (h onlyWarnings) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && h.Handler.Enabled(ctx, l)
}

func (h onlyWarnings) WithAttrs(attrs []slog.Attr) slog.Handler {
	return onlyWarnings{h.Handler.WithAttrs(attrs)}
}

func (h onlyWarnings) WithGroup(name string) slog.Handler {
	return onlyWarnings{h.Handler.WithGroup(name)}
}

// closeDatabases closes what is open. A panic in it, as of a full disk, leaves the files as a kill would.
func (s *Store) closeDatabases() (err error) {
	for _, db := range []**prom.DB{&s.raw, &s.rolled} {
		if *db != nil {
			err = errors.Join(err, surviving((*db).Close))
		}
		*db = nil
	}
	return err
}

// surviving does what may panic in the database.
func surviving(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("history database: %v", p)
			if cause, ok := p.(error); ok {
				err = fmt.Errorf("history database: %w", cause)
			}
		}
	}()
	return do()
}

// Close waits for queries and gives the directory back.
func (s *Store) Close() error {
	s.upkeep.Lock()
	defer s.upkeep.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	err := s.closeDatabases()
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
		s.lock = nil
	}
	if s.view != "" {
		err = errors.Join(err, os.RemoveAll(s.view))
	}
	if err != nil {
		return fmt.Errorf("close history: %w", err)
	}
	return nil
}

// Append writes what a snapshot changed, all at the time now, which is of protip's clock. What does not change is written once a
// minute; what is gone gets a stale marker. An error has cost the cycle; it is counted, and said in the log once until it goes well again.
func (s *Store) Append(snap *inventory.Snapshot, now time.Time) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	written, err := s.append(snap, now.UnixMilli())
	s.metrics.appended(written, err, now)
	switch {
	case err != nil && !s.full:
		s.full = true
		s.log.Error("history is not written; everything else goes on", "err", err)
	case err == nil && s.full:
		s.full = false
		s.log.Info("history is written again")
	}
	return err
}

func (s *Store) append(snap *inventory.Snapshot, now int64) (written int, err error) {
	if !s.mu.TryRLock() { // it is being opened: a cycle is worth less than to wait for it
		return 0, fmt.Errorf("append to history: %w", ErrUnavailable)
	}
	defer s.mu.RUnlock()
	switch broken := s.broken.get(); {
	case broken != nil:
		return 0, fmt.Errorf("append to history: %w", broken)
	case s.raw == nil:
		return 0, fmt.Errorf("append to history: %w", ErrUnavailable)
	case s.begun && now <= s.last:
		return 0, nil // the clock stands still, or went back: a time is written once
	}
	if err := s.room(); err != nil {
		return 0, fmt.Errorf("append to history: %w", err)
	}
	var builder labels.ScratchBuilder
	c := &cycle{app: s.raw.Appender(context.Background()), at: now, refresh: now - refresh.Milliseconds(), builder: &builder}
	if !s.begun {
		c.refresh, c.first = math.MaxInt64, map[uint64]bool{}
	}
	err = surviving(func() error {
		s.fleet.append(c, snap)
		if c.first != nil {
			if err := s.endForgotten(c); err != nil {
				return errors.Join(err, c.app.Rollback())
			}
		}
		return c.app.Commit()
	})
	s.metrics.rejected.Add(float64(c.rejected))
	if err != nil {
		// What became of the cycle is known only to the log on the disk: it is read again before anything else is written.
		s.broken.set(err)
		return 0, fmt.Errorf("append to history: %w", err)
	}
	s.begun, s.last = true, now
	return c.written, nil
}

// fault is an error that some find and others mend.
type fault struct {
	mu  sync.Mutex
	err error
}

func (f *fault) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *fault) get() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// endForgotten marks as stale what the last process wrote to its end and what this cycle did not write: a VM that moved in
// between would otherwise be in two places for as long as a selector looks back.
func (s *Store) endForgotten(c *cycle) error {
	q, err := s.raw.Querier(c.at-promql.Lookback.Milliseconds(), c.at-1)
	if err != nil {
		return err
	}
	defer q.Close()
	set := q.Select(context.Background(), false, nil, labels.MustNewMatcher(labels.MatchNotEqual, model.MetricNameLabel, ""))
	var it chunkenc.Iterator
	for set.Next() {
		series := set.At()
		if c.first[series.Labels().Hash()] {
			continue
		}
		it = series.Iterator(it)
		v := promql.Stale
		for it.Next() == chunkenc.ValFloat {
			_, v = it.At()
		}
		if value.IsStaleNaN(v) {
			continue
		}
		if _, err := c.app.Append(0, series.Labels(), c.at, promql.Stale); err != nil {
			c.rejected++
		}
	}
	return set.Err()
}

// room is ErrFull if the database might not find the room for what it must write: some of it panics, in goroutines of its own.
// That is what memory holds of each series, or what reading the log makes of it while the database is closed.
func (s *Store) room() error {
	need := s.o.reserve(0) + 2*uint64(size(filepath.Join(s.o.Dir, "raw", "wal")))
	if s.raw != nil && s.broken.get() == nil {
		need = s.o.reserve(s.raw.Head().NumSeries())
	}
	have, err := free(s.o.Dir)
	if err == nil && have < need {
		err = fmt.Errorf("%w: %d bytes are free in %s, and %d are wanted", ErrFull, have, s.o.Dir, need)
	}
	return err
}
