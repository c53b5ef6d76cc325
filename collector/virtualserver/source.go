// Package virtualserver watches hosts of Virtual Server 2005: which VMs they have, how much they use, and whether their guests live.
// It promises that a slow or dead host costs the others nothing. It changes nothing, and there is nothing that could be moved.
// It must not import rules, remediation, store, web, app or another platform.
package virtualserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/platform/winrm"
)

const (
	defaultInterval = 20 * time.Second
	// lane is how many hosts are asked at once.
	lane = 16
)

// Options say which hosts are watched, and how.
type Options struct {
	Name     string          // of the source
	Hosts    []winrm.Options // their Observe is set by New
	Interval time.Duration   // between samples; default 20 s
	Clock    *clock.Clock
	Observer collector.Observer
}

// Source follows hosts that know nothing of each other.
type Source struct {
	opts  Options
	hosts []*host // outlive a Watch: a host that is down when protip connects again is not gone
	slots chan struct{}
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
	s := &Source{opts: opts, slots: make(chan struct{}, lane)}
	for _, h := range opts.Hosts {
		h.Observe = opts.Observer.Call
		h.MaxConnections = 1 // who asks one thing after the other logs in once
		client, err := winrm.New(h)
		if err != nil {
			return nil, fmt.Errorf("source %q: %w", opts.Name, err)
		}
		s.hosts = append(s.hosts, &host{source: opts.Name, opts: h, addr: client.Host()})
		client.Close()
	}
	return s, nil
}

// Refreshed implements collector.Refreshing.
func (s *Source) Refreshed() bool {
	hosts := make([]winrm.Options, len(s.hosts))
	for i, h := range s.hosts {
		hosts[i] = h.opts
	}
	return winrm.Refreshed(hosts)
}

// Watch implements collector.Source. Each host is asked at each interval by itself; everything is listed again every few minutes. Watch ends
// when no host is left that answers.
func (s *Source) Watch(ctx context.Context, emit func(inventory.Delta)) error {
	w := &watch{Source: s, emit: emit, told: map[inventory.ID]any{}}
	for _, h := range s.hosts {
		client, err := winrm.New(h.opts)
		if err != nil {
			return fmt.Errorf("source %q: %w", s.opts.Name, err)
		}
		defer client.Close()
		h.up, h.client = false, client
	}
	return collector.Rounds{
		Hosts: len(s.hosts), Interval: s.opts.Interval, Clock: s.opts.Clock, Announce: w.announce,
		Look: func(ctx context.Context, i int) (time.Duration, error) { return 0, w.ask(ctx, s.hosts[i]) },
	}.Run(ctx)
}

// watch is one Watch.
type watch struct {
	*Source
	emit func(inventory.Delta)

	mu     sync.Mutex // and of what hosts know
	listed bool
	told   map[inventory.ID]any
}

// ask looks at one host and emits what that changed.
func (w *watch) ask(ctx context.Context, h *host) error {
	samples, err := w.look(ctx, h)
	if ctx.Err() != nil {
		return err
	}
	if err != nil {
		w.opts.Observer.Fault("host", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	h.up = err == nil
	if w.listed {
		d := w.delta()
		d.Samples = samples
		if len(d.Hosts)+len(d.VMs)+len(d.Removed)+len(d.Samples) > 0 {
			w.emit(d)
		}
	}
	if errors.Is(err, winrm.ErrCredentials) { // asked again soon, the account might be locked
		err = fmt.Errorf("%w: %w", collector.ErrCredentials, err)
	}
	return err
}

// look asks one host, in bounded time.
func (w *watch) look(ctx context.Context, h *host) (samples []inventory.SampleSet, err error) {
	select {
	case w.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-w.slots }()
	ctx, cancel := context.WithTimeout(ctx, max(min(w.opts.Clock.Real(w.opts.Interval), 20*time.Second), 5*time.Second))
	defer cancel()
	began := time.Now()
	var a *answer
	err = collector.Contain(func() (err error) { a, err = h.ask(ctx, w.opts.Observer); return err })
	w.opts.Observer.Cycle("host", time.Since(began).Seconds())
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, other := range w.hosts {
		if other != h && other.up && other.facts.ID == a.host.ID {
			return nil, fmt.Errorf("%s is the same host as %s (%s): remove one of them from the config", h.addr, other.addr, a.host.Name)
		}
	}
	h.facts, h.vms = &a.host, a.vms
	at := w.opts.Clock.Now().UnixMilli()
	for id, values := range a.values {
		samples = append(samples, inventory.SampleSet{ID: id, At: at, Values: values})
	}
	return samples, nil
}

// announce emits everything that is known, as a listing.
func (w *watch) announce() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.told)
	d := w.delta()
	d.Begin, d.Synced, w.listed = true, true, true
	w.emit(d)
}

// delta is what changed since the last one.
func (w *watch) delta() inventory.Delta {
	d := inventory.Delta{Source: w.opts.Name}
	seen := map[inventory.ID]bool{}
	news := func(id inventory.ID, object any) bool {
		seen[id] = true
		was, ok := w.told[id]
		w.told[id] = object
		return !ok || !reflect.DeepEqual(was, object)
	}
	for _, h := range w.hosts {
		if h.facts == nil || seen[h.facts.ID] {
			continue
		}
		facts := *h.facts
		facts.Connection = inventory.Unreachable
		if h.up {
			facts.Connection = inventory.Connected
		}
		if news(facts.ID, facts) {
			d.Hosts = append(d.Hosts, facts)
		}
		for _, name := range slices.Sorted(maps.Keys(h.vms)) {
			vm := h.vms[name]
			vm.Connection = facts.Connection
			if news(vm.ID, vm) {
				d.VMs = append(d.VMs, vm)
			}
		}
	}
	for id := range w.told {
		if !seen[id] {
			delete(w.told, id)
			d.Removed = append(d.Removed, id)
		}
	}
	slices.SortFunc(d.Removed, func(a, b inventory.ID) int { return cmp.Compare(a.String(), b.String()) })
	return d
}
