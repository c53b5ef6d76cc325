// Package vsphere watches one vCenter: its clusters, hosts and VMs as they change, and their load at each interval.
// It promises that a counter or call that fails costs only its own samples, and that nothing is changed in the vCenter.
// It must not import rules, remediation, store, web, app or another platform.
package vsphere

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/vsphere"
)

const (
	defaultInterval = 20 * time.Second
	defaultBatch    = 50  // VMs or hosts per QueryPerf
	maxBatch        = 256 // more runs into the vCenter's limit of 500,000 XML elements
)

// Options say which vCenter is watched, and how.
type Options struct {
	Name       string              // of the source; part of every object's identity
	Session    platform.Options    // its Observe is set by New
	Interval   time.Duration       // between samples; default 20 s
	PerfBatch  int                 // VMs or hosts per QueryPerf; default 50, at most 256
	Collect    inventory.MetricSet // that are sampled; nothing else is asked for
	Attributes map[string]string   // custom attributes of VMs that are read, and the labels they become; none: none is
	Categories []string            // of tags that are read; none: none is
	Clock      *clock.Clock
	Observer   collector.Observer
	Identities *collector.Identities // of all sources of the process; nil: a vCenter that is configured twice is not noticed
}

// Source follows one vCenter.
type Source struct {
	opts   Options
	totals *totals // they outlive a connection
	batch  *batchSize
	slow   *slow // outlives a connection too: what a reconnect does not know yet is not gone

	session atomic.Pointer[platform.Session] // of the last Watch
}

var (
	_ collector.Source     = (*Source)(nil)
	_ collector.Refreshing = (*Source)(nil)
)

// New checks the options. It does not connect.
func New(opts Options) (*Source, error) {
	if opts.Interval <= 0 {
		opts.Interval = defaultInterval
	}
	if opts.PerfBatch <= 0 {
		opts.PerfBatch = defaultBatch
	}
	opts.Session.Observe = opts.Observer.Call
	opts.Session.Leftovers = new(platform.Leftovers)
	if _, err := platform.New(opts.Session); err != nil {
		return nil, fmt.Errorf("source %q: %w", opts.Name, err)
	}
	return &Source{opts: opts, totals: newTotals(), batch: newBatchSize(min(opts.PerfBatch, maxBatch)), slow: newSlow(opts.Attributes)}, nil
}

// Watch implements collector.Source. A session that the vCenter forgot is made anew and everything is listed again; if
// that happens before a listing was complete, Watch ends.
func (s *Source) Watch(ctx context.Context, emit func(inventory.Delta)) error {
	session, err := platform.New(s.opts.Session)
	if err != nil {
		return err
	}
	defer session.Close()
	s.session.Store(session)
	var stale *platform.Conn
	for {
		conn, err := session.Relogin(ctx, stale)
		if err != nil {
			return s.mapErr(ctx, err)
		}
		if s.opts.Identities != nil {
			if err := s.opts.Identities.Claim(conn.InstanceUUID(), s.opts.Name); err != nil {
				return err
			}
		}
		f := newFollower(s, conn, emit)
		err = f.follow(ctx)
		if f.listed && platform.IsNotAuthenticated(err) {
			stale = conn
			continue
		}
		return s.mapErr(ctx, err)
	}
}

// Refreshed implements collector.Refreshing.
func (s *Source) Refreshed() bool {
	session := s.session.Load()
	return session != nil && session.Refreshed()
}

// mapErr gives an error its place in the contract.
func (s *Source) mapErr(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, platform.ErrInvalidLogin) {
		return fmt.Errorf("%w: %w", collector.ErrCredentials, err)
	}
	return err
}

// follower follows the vCenter on one connection.
type follower struct {
	*Source
	conn   *platform.Conn
	emit   func(inventory.Delta)
	listed bool // everything was listed on this connection

	mu   sync.Mutex // held while emitting: no sample leaves after its object's removal
	tree *tree
}

func newFollower(s *Source, conn *platform.Conn, emit func(inventory.Delta)) *follower {
	f := &follower{Source: s, conn: conn, emit: emit, tree: newTree(s.opts.Name)}
	f.tree.slow = s.slow
	return f
}

// follow lists everything, then emits changes and samples until something ends it. All it started has ended when it returns.
func (f *follower) follow(ctx context.Context) error {
	view, err := createView(ctx, f.conn)
	if err != nil {
		return err
	}
	if err := f.slowCycle(ctx, view); platform.IsNotAuthenticated(err) || ctx.Err() != nil {
		return err
	} else if err != nil {
		f.opts.Observer.Fault("slow", err)
	}
	version, err := f.list(ctx, view)
	if err != nil {
		return err
	}
	f.listed = true

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	start := func(run func(context.Context) error) {
		wg.Go(func() {
			if err := collector.Contain(func() error { return run(ctx) }); err != nil {
				cancel(err)
			}
		})
	}
	start(func(ctx context.Context) error { return f.changes(ctx, version) })
	start(func(ctx context.Context) error { return f.sampleUsage(ctx, view) })
	start(f.samplePerf)
	start(func(ctx context.Context) error { return f.sampleSlow(ctx, view) })
	start(f.sampleHistory)
	if len(f.opts.Categories) > 0 {
		start(f.readTags)
	}
	wg.Wait()
	return context.Cause(ctx)
}

// each runs cycle at once and then at each interval until ctx is done or the vCenter has forgotten the session; any other
// error of a cycle is a fault of that part, and the cycle is made once more after a quarter of the interval: values are shown for
// two intervals, which one failure must not outlast. next says how long after a cycle's start the next one is due.
func (f *follower) each(ctx context.Context, part string, next func(started time.Time) time.Duration, cycle func(context.Context) error) error {
	for again := false; ; {
		began, started := time.Now(), f.opts.Clock.Now()
		err := cycle(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if platform.IsNotAuthenticated(err) {
			return err
		}
		if err != nil {
			f.opts.Observer.Fault(part, err)
		}
		f.opts.Observer.Cycle(part, time.Since(began).Seconds())
		// A cycle that took longer than its interval is followed by a pause all the same.
		pause := max(next(started)-f.opts.Clock.Now().Sub(started), f.opts.Interval/10)
		if again = err != nil && !again; again {
			pause = min(pause, f.opts.Interval/4)
		}
		if err := f.opts.Clock.Sleep(ctx, pause); err != nil {
			return err
		}
	}
}
