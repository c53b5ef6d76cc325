// Package hyperv watches one Hyper-V failover cluster, or hosts that belong to none: what runs where, and its load at each interval.
// It promises that a VM is one object wherever it runs, and that a slow or dead host costs the others nothing. It changes nothing.
// It must not import rules, remediation, store, web, app or another platform.
package hyperv

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/platform/winrm"
)

const (
	defaultInterval = 20 * time.Second
	// requestsPerCycle is how many messages a host is sent in one interval at most, but for the first, which lists everything, and
	// where one answer takes several pages.
	requestsPerCycle = 12
)

// How many hosts are asked at once. One that did not answer in time asks in a lane of its own, so that hung hosts do not hold up
// the others.
const (
	fastLane = 16
	slowLane = 4
)

// Options say which hosts are watched, and how.
type Options struct {
	Name     string          // of the source
	Hosts    []winrm.Options // nodes of one cluster, or hosts of none; their Observe is set by New
	Interval time.Duration   // between samples; default 20 s
	Clock    *clock.Clock
	Observer collector.Observer
	// Identities finds a cluster that two sources watch; may be nil.
	Identities *collector.Identities
}

// Source follows the hosts of one cluster, or hosts that belong to none.
type Source struct {
	opts    Options
	cluster *cluster // outlives a Watch: a host that is down when protip connects again is not gone
	fast    chan struct{}
	slow    chan struct{}
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
	if len(opts.Hosts) == 0 {
		return nil, fmt.Errorf("source %q: no hosts", opts.Name)
	}
	s := &Source{opts: opts, cluster: newCluster(opts.Name), fast: make(chan struct{}, fastLane), slow: make(chan struct{}, slowLane)}
	for _, h := range opts.Hosts {
		h.Observe = opts.Observer.Call
		h.MaxConnections = 1 // who asks one thing after the other logs in once
		client, err := winrm.New(h)
		if err != nil {
			return nil, fmt.Errorf("source %q: %w", opts.Name, err)
		}
		s.cluster.nodes = append(s.cluster.nodes, newNode(h, client.Host()))
		client.Close()
	}
	return s, nil
}

// Refreshed implements collector.Refreshing.
func (s *Source) Refreshed() bool {
	hosts := make([]winrm.Options, len(s.cluster.nodes))
	for i, n := range s.cluster.nodes {
		hosts[i] = n.opts
	}
	return winrm.Refreshed(hosts)
}

// Watch implements collector.Source. Each host is asked at a pace of its own, and tried again by itself; everything is listed again every
// few minutes. Watch ends when no host is left that answers.
func (s *Source) Watch(ctx context.Context, emit func(inventory.Delta)) error {
	w := &watch{Source: s, emit: emit}
	if err := s.cluster.begin(s.opts.Clock.Now()); err != nil {
		return fmt.Errorf("source %q: %w", s.opts.Name, err)
	}
	defer s.cluster.hangUp()
	return collector.Rounds{
		Hosts: len(s.cluster.nodes), Interval: s.opts.Interval, Clock: s.opts.Clock, Announce: w.announce,
		Look: func(ctx context.Context, i int) (time.Duration, error) { return w.ask(ctx, s.cluster.nodes[i]) },
	}.Run(ctx)
}

// watch is one Watch.
type watch struct {
	*Source
	emit   func(inventory.Delta)
	listed bool // under the cluster's lock
}

// ask looks at one host, and says what it costs that it does not answer. One that has no room for more is left alone for longer each time.
func (w *watch) ask(ctx context.Context, n *node) (pause time.Duration, err error) {
	err = w.look(ctx, n)
	if ctx.Err() != nil || errors.Is(err, collector.ErrDuplicate) {
		return 0, err
	}
	if err == nil {
		n.skip = 0
		return 0, nil
	}
	w.opts.Observer.Fault("host", err)
	w.change(func(c *cluster) []inventory.SampleSet { c.lose(n); return nil })
	switch {
	case errors.Is(err, winrm.ErrCredentials): // asked again soon, the account might be locked
		err = fmt.Errorf("%w: %w", collector.ErrCredentials, err)
	case errors.Is(err, winrm.ErrQuota):
		n.skip = min(2*n.skip+1, 15)
		pause = w.opts.Interval * time.Duration(n.skip)
	}
	return pause, err
}

// look asks one host everything that is due, in bounded time.
func (w *watch) look(ctx context.Context, n *node) error {
	lane := w.fast
	if n.hung {
		lane = w.slow
	}
	select {
	case lane <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-lane }()
	limit := max(min(w.opts.Clock.Real(w.opts.Interval), 20*time.Second), 5*time.Second)
	if !n.known {
		limit = 30 * time.Second // it is asked for everything
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	began := time.Now()
	c := &cycle{watch: w, node: n, at: w.opts.Clock.Now(), asked: n.client.Traffic().Requests}
	err := collector.Contain(func() error { return c.run(ctx) })
	var p *collector.PanicError
	if errors.As(err, &p) { // over what a host sent: its failure, and not the others'
		w.opts.Observer.Fault("panic", fmt.Errorf("host %s: %w: %s", n.addr, err, p.Stack))
	}
	n.hung = winrm.IsTimeout(err)
	w.opts.Observer.Cycle("host", time.Since(began).Seconds())
	return err
}

// announce emits everything that is known, as a listing.
func (w *watch) announce() {
	c := w.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgetTold()
	d := c.delta(w.opts.Clock.Now())
	d.Begin, d.Synced, d.Samples = true, true, c.space()
	w.listed = true
	w.emit(d)
}

// change does something to the cluster and emits what that changed, and samples with it. Nothing is emitted before the listing.
func (w *watch) change(f func(*cluster) []inventory.SampleSet) {
	c := w.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	samples := f(c)
	if !w.listed {
		return
	}
	d := c.delta(w.opts.Clock.Now())
	d.Samples = samples
	if len(d.Clusters)+len(d.Hosts)+len(d.VMs)+len(d.Datastores)+len(d.Networks)+len(d.Removed)+len(d.Samples) > 0 {
		w.emit(d)
	}
}
