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
	// patience is how long a listing waits for hosts that neither answer nor fail, in real time.
	patience = 5 * time.Second
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
	for _, h := range s.hosts {
		client, err := winrm.New(h.opts)
		if err != nil || h.opts.Password == nil || client.Refused() {
			return false
		}
		client.Close()
	}
	return true
}

// Watch implements collector.Source. Each host is asked at each interval by itself. The listing is complete when each has answered or
// failed, or one has answered and others have done neither for a while. Everything is listed again every few minutes. Watch ends
// when no host is left that answers.
func (s *Source) Watch(ctx context.Context, emit func(inventory.Delta)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &watch{Source: s, emit: emit, end: cancel, told: map[inventory.ID]any{}, answered: make(chan struct{}), resolved: make(chan struct{})}
	var wg sync.WaitGroup
	start := func(run func(context.Context) error) {
		wg.Go(func() {
			if err := collector.Contain(func() error { return run(ctx) }); err != nil {
				cancel(err)
			}
		})
	}
	for i, h := range s.hosts {
		client, err := winrm.New(h.opts)
		if err != nil {
			return fmt.Errorf("source %q: %w", s.opts.Name, err)
		}
		defer client.Close()
		h.up, h.tried, h.failure, h.client = false, false, nil, client
		start(func(ctx context.Context) error { return w.keep(ctx, h, i) })
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

	mu       sync.Mutex // and of what hosts know
	listed   bool
	told     map[inventory.ID]any
	answered chan struct{} // closed when one host has answered
	resolved chan struct{} // closed when each has answered or failed
}

// keep asks one host at each interval until ctx is done.
func (w *watch) keep(ctx context.Context, h *host, place int) error {
	pause := w.opts.Interval/2 + w.opts.Interval/2*time.Duration(place)/time.Duration(len(w.hosts)) // all at once would be a burst
	for {
		began := w.opts.Clock.Now()
		samples, err := w.look(ctx, h)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		w.settled(h, samples, err)
		if w.opts.Clock.Sleep(ctx, max(pause-w.opts.Clock.Now().Sub(began), w.opts.Interval/10)) != nil {
			return ctx.Err()
		}
		pause = w.opts.Interval
	}
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

// settled notes what came of a look, emits what that changed, and ends the Watch if no host answers that was tried.
func (w *watch) settled(h *host, samples []inventory.SampleSet, failure error) {
	if failure != nil {
		w.opts.Observer.Fault("host", failure)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	h.tried, h.failure, h.up = true, failure, failure == nil
	if w.listed {
		d := w.delta()
		d.Samples = samples
		if len(d.Hosts)+len(d.VMs)+len(d.Removed)+len(d.Samples) > 0 {
			w.emit(d)
		}
	}
	var failures []error
	refused, resolved := false, true
	for _, h := range w.hosts {
		resolved = resolved && h.tried
		if h.failure != nil {
			failures = append(failures, h.failure)
			refused = refused || errors.Is(h.failure, winrm.ErrCredentials)
		}
	}
	if failure == nil {
		closeOnce(w.answered)
	}
	if resolved {
		closeOnce(w.resolved)
	}
	if len(failures) < len(w.hosts) {
		return
	}
	why := errors.Join(failures...)
	if refused { // asked again soon, the account might be locked
		why = fmt.Errorf("%w: %w", collector.ErrCredentials, why)
	}
	w.end(why)
}

// list waits for the hosts and emits the listing, again and again.
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
	for {
		w.mu.Lock()
		clear(w.told)
		d := w.delta()
		d.Begin, d.Synced, w.listed = true, true, true
		w.emit(d)
		w.mu.Unlock()
		if w.opts.Clock.Sleep(ctx, inventory.SlowInterval) != nil {
			return ctx.Err()
		}
	}
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

// closeOnce closes a channel that one goroutine at a time may close.
func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}
