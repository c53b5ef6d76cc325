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
	last              time.Time // end of the newest interval that is counted in, by protip's clock
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

// asks is what to ask of the VMs that run: the newest sample of one that is new, of others all since the last that is
// counted in, and one more because a new one may come while the call is made.
func (t *totals) asks(tree *tree, now time.Time) []ask {
	out := make([]ask, 0, len(tree.vms))
	for ref, v := range tree.vms {
		if !tree.runs(v) || v.Template {
			continue
		}
		count := 1
		if known := t.byVM[ref]; known != nil {
			count = 1 + int(now.Sub(known.last)/(realtime*time.Second))
		}
		out = append(out, ask{vm: ref, count: min(max(count, 1), maxSamples)})
	}
	return out
}

// samples makes sample sets of the answers: of each VM that has a new sample, and of the hosts they run on. The caller holds mu.
func (p *perf) samples(answers []series, skew time.Duration) []inventory.SampleSet {
	out := make([]inventory.SampleSet, 0, len(answers))
	waits := contention{byHost: map[inventory.ID]*hostContention{}}
	now := p.opts.Clock.Now()
	for i := range answers {
		s := &answers[i]
		v := p.tree.vms[s.vm]
		if v == nil || !p.tree.runs(v) {
			continue // it left or was switched off while the call was made
		}
		fresh := p.fresh(s, skew, now)
		if len(fresh) == 0 {
			continue
		}
		newest := fresh[len(fresh)-1]
		set := inventory.SampleSet{ID: v.ID, At: newest.at.UnixMilli(), Values: p.gauges(s, newest.index, v.VCPUs)}
		p.count(s, fresh, (*values)(&set.Values))
		if ready, ok := valueOf(set.Values, inventory.VMCPUContention); ok {
			waits.add(v, ready, newest.at)
		}
		if len(set.Values) > 0 {
			out = append(out, set)
		}
	}
	return append(out, waits.samples(p.tree)...)
}

// at is one sample of a series: its place, and its time by protip's clock.
type at struct {
	index int
	at    time.Time
}

// fresh are the samples of s that are not counted in yet, oldest first. Half an interval of slack keeps one sample, whose time
// by protip's clock varies a little with each measurement of the skew, from being taken for two. One from the future is not
// believed.
func (p *perf) fresh(s *series, skew time.Duration, now time.Time) []at {
	const interval = realtime * time.Second
	after := time.Time{}
	if known := p.totals.byVM[s.vm]; known != nil {
		after = known.last.Add(interval / 2)
	}
	var out []at
	for i, t := range s.times {
		if t = t.Add(skew); t.After(after) && t.Before(now.Add(interval)) {
			out = append(out, at{i, t})
		}
	}
	slices.SortFunc(out, func(a, b at) int { return a.at.Compare(b.at) })
	return slices.CompactFunc(out, func(a, b at) bool { return a.at.Sub(b.at).Abs() < interval/2 })
}

// gauges are the VM's values of one sample.
func (p *perf) gauges(s *series, i, vcpus int) values {
	var v values
	for _, g := range []struct {
		counter string
		metric  inventory.Metric
		unit    float64
		limit   float64
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
	if vcpus > 0 {
		whole := float64(realtime * 1000 * vcpus) // milliseconds
		for counter, metric := range map[string]inventory.Metric{
			counterReady: inventory.VMCPUContention, counterCoStop: inventory.VMCPUCoStop,
		} {
			if ms, ok := p.value(s, counter, i); ok && ms/whole <= absurdContention {
				v.add(metric, min(ms/whole, 1), 1)
			}
		}
	}
	return v
}

// count counts the fresh samples into the VM's totals, each once, and adds the totals. A VM's first sample begins them.
func (p *perf) count(s *series, fresh []at, v *values) {
	t := p.totals.byVM[s.vm]
	if t == nil {
		t = &total{}
		p.totals.byVM[s.vm] = t
	}
	t.last = fresh[len(fresh)-1].at
	for _, n := range []struct {
		counter string
		metric  inventory.Metric
		total   *float64
	}{
		{counterReceive, inventory.VMNetworkReceive, &t.receive},
		{counterTransmit, inventory.VMNetworkTransmit, &t.transmit},
	} {
		counted := false
		for _, f := range fresh {
			if kbps, ok := p.value(s, n.counter, f.index); ok && kbps <= absurdKBps {
				*n.total += kbps * kibi * realtime
				counted = true
			}
		}
		if counted {
			v.add(n.metric, *n.total, math.MaxFloat64)
		}
	}
}

// value is a counter's value of one sample, false if it was not answered.
func (p *perf) value(s *series, counter string, i int) (float64, bool) {
	id, ok := p.named[counter]
	if !ok {
		return 0, false
	}
	values := s.values[id]
	if i >= len(values) || math.IsNaN(values[i]) {
		return 0, false
	}
	return values[i], true
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
	byHost map[inventory.ID]*hostContention
	newest time.Time
}

type hostContention struct {
	weighted, worst float64
	vcpus           int
	newest          time.Time
}

// add adds a VM's. One that moved while the sample was made waited on two hosts, and counts for neither.
func (c *contention) add(v *vm, ratio float64, at time.Time) {
	if at.After(c.newest) {
		c.newest = at
	}
	if v.moved.After(at.Add(-realtime * time.Second)) {
		return
	}
	h := c.byHost[v.Host]
	if h == nil {
		h = &hostContention{}
		c.byHost[v.Host] = h
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
	running := map[inventory.ID]int{}
	for _, v := range tree.vms {
		if v.Power == inventory.PowerOn {
			running[v.Host] += max(v.VCPUs, 1)
		}
	}
	var out []inventory.SampleSet
	for _, h := range tree.hosts {
		if !h.answers() {
			continue
		}
		mean, worst, at := 0.0, 0.0, c.newest
		if all := running[h.ID]; all > 0 {
			m := c.byHost[h.ID]
			if m == nil || 2*m.vcpus < all {
				continue
			}
			mean, worst, at = m.weighted/float64(m.vcpus), m.worst, m.newest
		}
		out = append(out, inventory.SampleSet{ID: h.ID, At: at.UnixMilli(), Values: []inventory.Value{
			{Metric: inventory.HostCPUContention, Value: mean}, {Metric: inventory.HostCPUContentionMax, Value: worst},
		}})
	}
	return out
}
