package vsphere

import (
	"math"
	"slices"
	"time"

	"github.com/protip/protip/internal/inventory"
)

const (
	// absurdKBps is more than any VM's network carries, in KB/s.
	absurdKBps = 1e9
	// absurdContention: ready time of a VM includes a little that is not its vCPUs', so that a ratio just above 1 is honest and
	// is taken for 1.
	absurdContention = 1.25
)

// totals are the VMs' counters, by MoRef value, for as long as the source lives. They make counters that only grow of a
// vCenter's averages: average x interval, every interval once.
type totals struct{ byVM map[string]*total }

type total struct {
	last              time.Time // end of the newest interval that is counted in, by protip's clock; zero if none is
	receive, transmit float64   // bytes
}

func newTotals() *totals { return &totals{byVM: map[string]*total{}} }

// keep forgets the VMs that are not in vms.
func (t *totals) keep(vms map[string]*vm) {
	for ref := range t.byVM {
		if vms[ref] == nil {
			delete(t.byVM, ref)
		}
	}
}

func (t *totals) drop(vm string) { delete(t.byVM, vm) }

// of is a VM's, which begin with its first sample.
func (t *totals) of(v *vm) *total {
	if v.total == nil {
		if v.total = t.byVM[v.ID.Ref]; v.total == nil {
			v.total = &total{}
			t.byVM[v.ID.Ref] = v.total
		}
	}
	return v.total
}

// asks is what to ask of the VMs that run: the newest sample of one that is new, of others all since the last that is
// counted in, and one more because a new one may come while the call is made.
func (t *totals) asks(tree *tree, now time.Time) []ask {
	out := make([]ask, 0, len(tree.vms))
	for ref, v := range tree.vms {
		if !tree.runs(v) || v.Template {
			continue
		}
		count := 1
		if known := t.of(v); !known.last.IsZero() {
			count = 1 + int(now.Sub(known.last)/(realtime*time.Second))
		}
		out = append(out, ask{vm: ref, count: min(max(count, 1), maxSamples)})
	}
	return out
}

// samples makes sample sets of the answers: of each VM that has a new sample, and of the hosts they run on. The caller holds mu.
func (p *perf) samples(answers []*answer, skew time.Duration) []inventory.SampleSet {
	n := 0
	for _, a := range answers {
		n += len(a.series)
	}
	out := make([]inventory.SampleSet, 0, n+len(p.tree.hosts))
	all := make(values, 0, n*counters)
	waits := newContention(len(p.tree.hosts))
	now := p.opts.Clock.Now()
	var fresh []at
	for _, a := range answers {
		for i := range a.series {
			s := &a.series[i]
			v := p.tree.vms[s.vm]
			if v == nil {
				continue // it left while the call was made
			}
			h := p.tree.hosts[v.Host.Ref]
			if !v.runsOn(h) {
				continue // or was switched off
			}
			known := p.totals.of(v)
			if fresh = s.fresh(fresh[:0], known.last, skew, now); len(fresh) == 0 {
				continue
			}
			newest, from := fresh[len(fresh)-1], len(all)
			p.gauges(&all, s, newest.index, v.VCPUs)
			p.count(&all, s, fresh, known)
			set := inventory.SampleSet{ID: v.ID, At: newest.at.UnixMilli(), Values: all[from:len(all):len(all)]}
			if ready, ok := valueOf(values(set.Values), inventory.VMCPUContention); ok {
				waits.add(h, v, ready, newest.at)
			}
			if len(set.Values) > 0 {
				out = append(out, set)
			}
		}
	}
	return append(out, waits.samples(p.tree)...)
}

// at is one sample of a series: its place, and its time by protip's clock.
type at struct {
	index int
	at    time.Time
}

// fresh appends the samples of s that are newer than last, oldest first. Half an interval of slack keeps one sample, whose time
// by protip's clock varies a little with each measurement of the skew, from being taken for two. One from the future is not
// believed.
func (s *series) fresh(out []at, last time.Time, skew time.Duration, now time.Time) []at {
	const interval = realtime * time.Second
	after := time.Time{}
	if !last.IsZero() {
		after = last.Add(interval / 2)
	}
	for i, t := range s.times {
		if t = t.Add(skew); t.After(after) && t.Before(now.Add(interval)) {
			out = append(out, at{i, t})
		}
	}
	if len(out) > 1 {
		slices.SortFunc(out, func(a, b at) int { return a.at.Compare(b.at) })
		out = slices.CompactFunc(out, func(a, b at) bool { return a.at.Sub(b.at).Abs() < interval/2 })
	}
	return out
}

// gauges adds the VM's values of one sample.
func (p *perf) gauges(v *values, s *series, i, vcpus int) {
	for _, g := range [...]struct {
		counter     int
		metric      inventory.Metric
		unit, limit float64
	}{
		{counterActive, inventory.VMMemoryActive, kibi, absurdBytes},
		{counterBalloon, inventory.VMMemoryBalloon, kibi, absurdBytes},
		{counterSwapped, inventory.VMMemorySwapped, kibi, absurdBytes},
		{counterLatency, inventory.VMDiskLatency, 1e-3, 3600},
	} {
		if x, ok := p.value(s, g.counter, i); ok {
			v.add(g.metric, x*g.unit, g.limit)
		}
	}
	if vcpus <= 0 {
		return
	}
	whole := float64(realtime * 1000 * vcpus) // milliseconds
	if ms, ok := p.value(s, counterReady, i); ok && ms/whole <= absurdContention {
		v.add(inventory.VMCPUContention, min(ms/whole, 1), 1)
	}
	if ms, ok := p.value(s, counterCoStop, i); ok && ms/whole <= absurdContention {
		v.add(inventory.VMCPUCoStop, min(ms/whole, 1), 1)
	}
}

// count counts the fresh samples into the VM's totals, each once, and adds the totals. A VM's first sample begins them.
func (p *perf) count(v *values, s *series, fresh []at, t *total) {
	t.last = fresh[len(fresh)-1].at
	if p.grow(&t.receive, s, counterReceive, fresh) {
		v.add(inventory.VMNetworkReceive, t.receive, math.MaxFloat64)
	}
	if p.grow(&t.transmit, s, counterTransmit, fresh) {
		v.add(inventory.VMNetworkTransmit, t.transmit, math.MaxFloat64)
	}
}

// grow adds to a total what a counter of KB/s counted in the fresh samples, and reports whether it had a value in any.
func (p *perf) grow(total *float64, s *series, counter int, fresh []at) (counted bool) {
	for _, f := range fresh {
		if kbps, ok := p.value(s, counter, f.index); ok && kbps <= absurdKBps {
			*total += kbps * kibi * realtime
			counted = true
		}
	}
	return counted
}

// value is a counter's value of one sample, false if it was not answered.
func (p *perf) value(s *series, counter, i int) (float64, bool) {
	place := p.place[counter]
	if place < 0 {
		return 0, false
	}
	x := s.values[place*len(s.times)+i]
	return x, !math.IsNaN(x)
}

func valueOf(v values, m inventory.Metric) (float64, bool) {
	for _, x := range v {
		if x.Metric == m {
			return x.Value, true
		}
	}
	return 0, false
}

// contention gathers that of the VMs by the host they run on, in one cycle: a host's past is that of the VMs it had then.
type contention struct {
	byHost map[*host]*hostContention
	newest time.Time
}

type hostContention struct {
	weighted, worst float64
	vcpus           int
	newest          time.Time
}

func newContention(hosts int) *contention {
	return &contention{byHost: make(map[*host]*hostContention, hosts)}
}

// add adds a VM's. One that moved while the sample was made waited on two hosts, and counts for neither.
func (c *contention) add(on *host, v *vm, ratio float64, at time.Time) {
	if at.After(c.newest) {
		c.newest = at
	}
	if v.moved.After(at.Add(-realtime * time.Second)) {
		return
	}
	h := c.byHost[on]
	if h == nil {
		h = &hostContention{}
		c.byHost[on] = h
	}
	h.weighted += ratio * float64(v.VCPUs)
	h.worst = max(h.worst, ratio)
	h.vcpus += v.VCPUs
	if at.After(h.newest) {
		h.newest = at
	}
}

// samples are the hosts' contention: the mean weighted by vCPUs, and the worst. A host of whose running vCPUs less than half
// were measured has none; one where nothing runs has nobody waiting.
func (c *contention) samples(tree *tree) []inventory.SampleSet {
	if c.newest.IsZero() {
		return nil
	}
	running := make(map[string]int, len(tree.hosts))
	for _, v := range tree.vms {
		if v.Power == inventory.PowerOn {
			running[v.Host.Ref] += max(v.VCPUs, 1)
		}
	}
	out := make([]inventory.SampleSet, 0, len(tree.hosts))
	all := make(values, 0, 2*len(tree.hosts))
	for ref, h := range tree.hosts {
		if !h.answers() {
			continue
		}
		mean, worst, at := 0.0, 0.0, c.newest
		if vcpus := running[ref]; vcpus > 0 {
			m := c.byHost[h]
			if m == nil || 2*m.vcpus < vcpus {
				continue
			}
			mean, worst, at = m.weighted/float64(m.vcpus), m.worst, m.newest
		}
		from := len(all)
		all = append(all, inventory.Value{Metric: inventory.HostCPUContention, Value: mean}, inventory.Value{Metric: inventory.HostCPUContentionMax, Value: worst})
		out = append(out, inventory.SampleSet{ID: h.ID, At: at.UnixMilli(), Values: all[from:len(all):len(all)]})
	}
	return out
}
