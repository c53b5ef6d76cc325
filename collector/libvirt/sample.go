package libvirt

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/libvirt"
)

// steadiness is how much of the time between two readings an answer may take before rates are left out: when in that time libvirt
// read what it counts is not known.
const steadiness = 0.25

// together is how many calls are made at once: libvirt works on five of a client.
const together = 5

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
	described, err := f.describeAll(ctx, changed)
	if err != nil {
		return err
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
	var group errgroup.Group // without a context of its own: one that ends takes the connection with it
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
	if err != nil {
		return f.unlessGone("stats", err)
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

// differ says whether a domain's vCPUs or memory are not what they were when its description was read.
func (f *facts) differ(s *stats) bool {
	now := sizes(s)
	if f.sizes == nil { // read for an event, before any answer
		f.sizes = now
	}
	return *f.sizes != *now
}

// sizes are a domain's vCPUs and memory, by which a change of its description is noticed.
func sizes(s *stats) *[2]uint64 { return &[2]uint64{s.numbers[vcpuCurrent], s.numbers[balloonMaximum]} }

// unlessGone makes a fault of an error that costs only one domain's answer, and nothing of one that says that there is none.
func (f *follower) unlessGone(kind string, err error) error {
	if platform.IsGone(err) {
		return nil
	}
	return f.survive(kind, err)
}

// describeAll reads the descriptions of domains. Those that are gone meanwhile are left out.
func (f *follower) describeAll(ctx context.Context, domains []*stats) ([]*view, error) {
	views := make([]*view, len(domains))
	var group errgroup.Group
	group.SetLimit(together)
	for i, s := range domains {
		group.Go(func() error {
			facts, err := f.describe(ctx, s.dom)
			if platform.IsGone(err) {
				return nil
			}
			if facts != nil {
				facts.sizes = sizes(s)
			}
			views[i] = &view{dom: s.dom, state: s.state, reason: s.reason, facts: facts}
			return err
		})
	}
	err := group.Wait()
	return slices.DeleteFunc(views, func(v *view) bool { return v == nil }), err
}

// merge lays an answer over the views. A domain that was looked at since the question was asked is known better.
func (f *follower) merge(c *cluster, found *answer, described []*view, since uint64) {
	for _, v := range described {
		if was := f.views[v.dom.UUID]; was == nil || was.touched <= since {
			c.saw(f.host, *v)
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
		v := h.views[s.dom.UUID]
		if m == nil || m.owner != h || v == nil || v.rank() == rankOff {
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
