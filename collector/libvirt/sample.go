package libvirt

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/libvirt"
)

// steadiness is how much of the time between two readings an answer may take before rates are left out: when in that time libvirt
// read what it counts is not known.
const steadiness = 0.25

// samples takes samples at each interval until the connection ends.
func (f *follower) samples(ctx context.Context) error {
	last := f.watch.opts.Clock.Now()
	wait := f.watch.opts.Interval / 4 // the first one gives rates their beginning
	for {
		if err := f.watch.opts.Clock.Sleep(ctx, wait); err != nil {
			return err
		}
		began, started := time.Now(), f.watch.opts.Clock.Now()
		if err := f.cycle(ctx, started.Sub(last)); err != nil {
			if err := f.survive("stats", err); err != nil {
				return err
			}
		}
		last = started
		f.watch.opts.Observer.Cycle("stats", time.Since(began).Seconds())
		took := f.watch.opts.Clock.Now().Sub(started)
		wait = max(f.watch.opts.Interval-took, f.watch.opts.Interval/10)
	}
}

// cycle takes one sample of the host and of all its VMs.
func (f *follower) cycle(ctx context.Context, window time.Duration) error {
	cpu, mem, err := f.node(ctx)
	if err != nil {
		return err
	}
	f.cluster.mu.Lock()
	since := f.clock
	f.cluster.mu.Unlock()

	before := f.watch.opts.Clock.Now()
	found, err := f.ask(ctx)
	if err != nil {
		return err
	}
	after := f.watch.opts.Clock.Now()
	at := before.Add(after.Sub(before) / 2)
	steady := after.Sub(before).Seconds() <= steadiness*window.Seconds()

	changed := f.compare(found, since)
	var described []view
	for _, s := range changed {
		facts, err := f.describe(ctx, s.dom)
		if platform.IsGone(err) {
			continue // an event will say so
		}
		if err != nil {
			return err
		}
		described = append(described, view{dom: s.dom, state: s.state, reason: s.reason, facts: facts})
	}
	f.change(func(c *cluster) { f.merge(c, found, described, since) })
	f.emitSamples(found, at, steady, cpu, mem)
	return nil
}

// node asks for the host's own figures; nil are those that cannot be had. They cost only themselves.
func (f *follower) node(ctx context.Context) (cpu, mem map[string]uint64, err error) {
	cpu, err = f.conn.NodeCPUStats(ctx)
	if err = f.without(err); err != nil {
		return nil, nil, err
	}
	mem, err = f.conn.NodeMemoryStats(ctx)
	if platform.CodeOf(err) == platform.NoSupport {
		mem, err = f.idle(ctx)
	}
	return cpu, mem, f.without(err)
}

// without makes a fault of an error that costs only what was asked for. What a driver does not have is none.
func (f *follower) without(err error) error {
	if err == nil || platform.CodeOf(err) == platform.NoSupport {
		return nil
	}
	return f.survive("node", err)
}

// idle is the little that every driver knows of memory, in the words of NodeMemoryStats.
func (f *follower) idle(ctx context.Context) (map[string]uint64, error) {
	free, err := f.conn.NodeFreeMemory(ctx)
	if err != nil {
		return nil, err
	}
	return map[string]uint64{"total": uint64(f.memory / 1024), "free": free / 1024}, nil
}

// ask asks for everything of all domains at once. A driver that tells only their states is asked for the rest one by one.
func (f *follower) ask(ctx context.Context) (*answer, error) {
	found := &answer{}
	if err := f.conn.AllDomainStats(ctx, found); err != nil {
		return nil, err
	}
	running := func(s *stats) bool { return s.state == platform.DomainRunning }
	for i := range found.domains {
		if _, has := found.domains[i].number(cpuTime); has && running(&found.domains[i]) {
			return found, nil
		}
	}
	// libvirt works on five calls of a client at once, and more wait in its socket.
	const together = 5
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(together)
	for i := range found.domains {
		if s := &found.domains[i]; running(s) {
			group.Go(func() error { return f.askOne(ctx, s) })
		}
	}
	return found, group.Wait()
}

func (f *follower) askOne(ctx context.Context, s *stats) error {
	info, err := f.conn.DomainInfo(ctx, s.dom)
	if platform.IsGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	s.set(cpuTime, uint64(info.CPUTime))
	s.set(vcpuCurrent, uint64(max(info.VCPUs, 0)))
	s.set(balloonCurrent, info.MemoryKiB)
	s.set(balloonMaximum, info.MaxMemoryKiB)
	return nil
}

// compare finds the domains whose description has to be read (again): those that are new, run anew, or have other vCPUs or memory than
// it says.
func (f *follower) compare(found *answer, since uint64) []*stats {
	f.cluster.mu.Lock()
	defer f.cluster.mu.Unlock()
	var changed []*stats
	for i := range found.domains {
		s := &found.domains[i]
		v := f.views[s.dom.UUID]
		switch {
		case v != nil && v.touched > since: // seen since the question was asked
		case v == nil || v.facts == nil || v.dom != s.dom || v.facts.differ(s):
			changed = append(changed, s)
		}
	}
	return changed
}

func (f *facts) differ(s *stats) bool {
	if n, ok := s.number(vcpuCurrent); ok && n != uint64(f.vcpus) {
		return true
	}
	n, ok := s.number(balloonMaximum)
	return ok && f.memory != 0 && float64(n)*1024 != f.memory
}

// merge lays an answer over the views. A domain that was looked at since the question was asked is known better.
func (f *follower) merge(c *cluster, found *answer, described []view, since uint64) {
	for _, v := range described {
		if was := f.views[v.dom.UUID]; was == nil || was.touched <= since {
			c.saw(f.host, v)
		}
	}
	there := make(map[platform.UUID]bool, len(found.domains))
	for i := range found.domains {
		s := &found.domains[i]
		there[s.dom.UUID] = true
		v := f.views[s.dom.UUID]
		if v != nil && v.touched <= since && (v.state != s.state || v.reason != s.reason) {
			c.saw(f.host, view{dom: s.dom, state: s.state, reason: s.reason})
		}
	}
	for u, v := range f.views {
		if !there[u] && v.touched <= since {
			c.forget(f.host, u, missingFor)
		}
	}
}

// emitSamples emits what was measured of the host and of the VMs that are its own.
func (f *follower) emitSamples(found *answer, at time.Time, steady bool, cpu, mem map[string]uint64) {
	c, h := f.cluster, f.host
	c.mu.Lock()
	defer c.mu.Unlock()
	if !h.connected() {
		return
	}
	ms := at.UnixMilli()
	sets := make([]inventory.SampleSet, 0, len(found.domains)+1)
	var loads []load
	for i := range found.domains {
		s := &found.domains[i]
		m := c.vms[s.dom.UUID]
		if m == nil || m.owner != h || !m.missing.IsZero() || h.views[s.dom.UUID].rank() == rankOff {
			continue
		}
		values, l := m.meter.sample(s, run{h.facts.ID, s.dom.ID}, at, steady, h.facts.CoreHertz())
		loads = append(loads, l)
		if len(values) > 0 {
			sets = append(sets, inventory.SampleSet{ID: c.vmID(s.dom.UUID), At: ms, Values: values})
		}
	}
	values := append(h.meter.sample(h.facts, cpu, mem), contention(loads)...)
	if len(values) > 0 {
		sets = append(sets, inventory.SampleSet{ID: h.facts.ID, At: ms, Values: values})
	}
	if f.listed && len(sets) > 0 {
		f.emit(inventory.Delta{Source: c.name, Samples: sets})
	}
}
