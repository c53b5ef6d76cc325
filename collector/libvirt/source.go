// Package libvirt watches one cluster of libvirt hosts: what runs where as it changes, and its load at each interval.
// It promises that a VM is one object wherever it runs, and that a slow or dead host costs the others nothing. It changes nothing.
// It must not import rules, remediation, store, web, app or another platform.
package libvirt

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/libvirt"
)

const (
	defaultInterval = 20 * time.Second
	// patience is how long a listing waits for hosts that neither answer nor fail, in real time.
	patience = 5 * time.Second
)

// Options say which hosts are watched, and how.
type Options struct {
	Name     string             // of the source, and of its cluster
	Hosts    []platform.Options // their Observe is set by New
	Interval time.Duration      // between samples; default 20 s
	Clock    *clock.Clock
	Observer collector.Observer
}

// Source follows the hosts of one cluster.
type Source struct {
	opts    Options
	cluster *cluster // outlives a Watch: a host that is down when protip connects again is not gone
}

var _ collector.Source = (*Source)(nil)

// New checks the options. It does not connect.
func New(opts Options) (*Source, error) {
	if opts.Interval <= 0 {
		opts.Interval = defaultInterval
	}
	if len(opts.Hosts) == 0 {
		return nil, fmt.Errorf("source %q: no hosts", opts.Name)
	}
	s := &Source{opts: opts, cluster: newCluster(opts.Name)}
	for _, h := range opts.Hosts {
		if err := platform.CheckURI(h.URI); err != nil {
			return nil, fmt.Errorf("source %q: %w", opts.Name, err)
		}
		h.Observe = opts.Observer.Call
		s.cluster.hosts = append(s.cluster.hosts, &host{opts: h})
	}
	return s, nil
}

// Watch implements collector.Source. Each host has a connection and a pace of its own, and is tried again by itself. The listing is
// complete when each has answered or failed, or one has answered and others have done neither for a while: what these have comes later,
// as changes. Watch ends when no host is left that answers.
func (s *Source) Watch(ctx context.Context, emit func(inventory.Delta)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &watch{Source: s, emit: emit, end: cancel, answered: make(chan struct{}), resolved: make(chan struct{})}
	s.cluster.begin()
	var wg sync.WaitGroup
	start := func(run func(context.Context) error) {
		wg.Go(func() {
			if err := collector.Contain(func() error { return run(ctx) }); err != nil {
				cancel(err)
			}
		})
	}
	for _, h := range s.cluster.hosts {
		start(func(ctx context.Context) error { return w.keep(ctx, h) })
	}
	start(w.list)
	wg.Wait()
	return context.Cause(ctx)
}

// watch is one Watch.
type watch struct {
	*Source
	emit func(inventory.Delta)
	end  context.CancelCauseFunc

	// Under the cluster's lock:
	listed   bool
	answered chan struct{} // closed when one host has answered
	resolved chan struct{} // closed when each has answered or failed
}

// list waits for the hosts and emits the listing. From then on it looks after the VMs that no host has.
func (w *watch) list(ctx context.Context) error {
	select {
	case <-w.answered:
	case <-ctx.Done():
		return ctx.Err()
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-w.resolved:
	case <-late.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	w.announce()
	for again := time.NewTicker(endedFor / 4); ; {
		select {
		case <-again.C:
			w.change(func(c *cluster) { c.overdue() })
		case <-ctx.Done():
			again.Stop()
			return ctx.Err()
		}
	}
}

// announce emits the listing.
func (w *watch) announce() {
	c := w.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.delta(time.Now())
	d.Begin, d.Synced, d.Clusters = true, true, []inventory.Cluster{{ID: c.id(), Name: c.name}}
	w.listed = true
	w.emit(d)
}

// change does something to the cluster and emits what that changed. Nothing is emitted before the listing.
func (w *watch) change(f func(*cluster)) {
	c := w.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c)
	if !w.listed {
		return
	}
	if d := c.delta(time.Now()); len(d.Hosts)+len(d.VMs)+len(d.Networks)+len(d.Removed) > 0 {
		w.emit(d)
	}
	for _, err := range c.faults {
		w.opts.Observer.Fault("duplicate", err)
	}
	c.faults = nil
}

// settled notes that a host is followed (nil) or why it is not, and ends the Watch if none is followed or still to be tried.
func (w *watch) settled(h *host, failure error) {
	c := w.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	h.tried, h.failure = true, failure
	var failures []error
	refused, resolved := true, true
	for _, h := range c.hosts {
		resolved = resolved && h.tried
		if h.failure != nil {
			failures = append(failures, h.failure)
			refused = refused && platform.IsRefused(h.failure)
		}
	}
	if failure == nil {
		closeOnce(w.answered)
	}
	if resolved {
		closeOnce(w.resolved)
	}
	if len(failures) < len(c.hosts) {
		return
	}
	why := errors.Join(failures...)
	if refused {
		why = fmt.Errorf("%w: %w", collector.ErrCredentials, why)
	}
	w.end(why)
}

// closeOnce closes a channel that one goroutine at a time may close.
func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}
