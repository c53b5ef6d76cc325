package vsphere

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/protip/protip/internal/inventory"
)

const (
	// absurdKBps is more than anything carries, in KB/s.
	absurdKBps = 1e9
	// absurdCount is more than anything does in a second or drops in an interval.
	absurdCount = 1e12
	// absurdContention: ready time of a VM includes a little that is not its vCPUs', so that a ratio just above 1 is honest and
	// is taken for 1.
	absurdContention = 1.25
)

// quantity is what a counter counts.
type quantity uint8

const (
	level  quantity = iota // how much of something there is
	share                  // of the interval and each vCPU, milliseconds
	rate                   // how much a second, of what is added up
	amount                 // how much in the interval, of what is added up
)

// counter is a realtime counter and what it becomes.
type counter struct {
	name   string // group.name.rollup; ids differ from vCenter to vCenter
	metric inventory.Metric
	is     quantity
	unit   float64 // of the counter, in the metric's
	limit  float64 // what is above it is not believed: of a level and a share in the metric's unit, else in the counter's own
}

// Places in vmCounters of some.
const (
	counterReady = iota
	counterCoStop
	counterActive
	counterBalloon
	counterSwapped
	counterLatency
	counterReceive
	counterTransmit
)

// counters is how many there are of a VM.
const counters = len(vmCounters)

var vmCounters = [...]counter{
	counterReady:    {"cpu.ready.summation", inventory.VMCPUContention, share, 1, absurdContention},
	counterCoStop:   {"cpu.costop.summation", inventory.VMCPUCoStop, share, 1, absurdContention},
	counterActive:   {"mem.active.average", inventory.VMMemoryActive, level, kibi, absurdBytes},
	counterBalloon:  {"mem.vmmemctl.average", inventory.VMMemoryBalloon, level, kibi, absurdBytes},
	counterSwapped:  {"mem.swapped.average", inventory.VMMemorySwapped, level, kibi, absurdBytes},
	counterLatency:  {"disk.maxTotalLatency.latest", inventory.VMDiskLatency, level, 1e-3, absurdLatency},
	counterReceive:  {"net.received.average", inventory.VMNetworkReceive, rate, kibi, absurdKBps},
	counterTransmit: {"net.transmitted.average", inventory.VMNetworkTransmit, rate, kibi, absurdKBps},

	{"cpu.demand.average", inventory.VMCPUDemand, level, 1e6, absurdHertz},
	{"cpu.entitlement.latest", inventory.VMCPUEntitlement, level, 1e6, absurdHertz},
	{"cpu.maxlimited.summation", inventory.VMCPULimited, share, 1, absurdContention},
	{"cpu.swapwait.summation", inventory.VMCPUSwapWait, share, 1, absurdContention},
	{"mem.granted.average", inventory.VMMemoryGranted, level, kibi, absurdBytes},
	{"mem.shared.average", inventory.VMMemoryShared, level, kibi, absurdBytes},
	{"mem.compressed.average", inventory.VMMemoryCompressed, level, kibi, absurdBytes},
	{"mem.latency.average", inventory.VMMemoryContention, level, 1e-4, 1}, // hundredths of a percent
	{"mem.swapinRate.average", inventory.VMMemorySwapIn, rate, kibi, absurdKBps},
	{"mem.swapoutRate.average", inventory.VMMemorySwapOut, rate, kibi, absurdKBps},
	{"disk.read.average", inventory.VMDiskRead, rate, kibi, absurdKBps},
	{"disk.write.average", inventory.VMDiskWrite, rate, kibi, absurdKBps},
	{"disk.numberReadAveraged.average", inventory.VMDiskReadOperations, rate, 1, absurdCount},
	{"disk.numberWriteAveraged.average", inventory.VMDiskWriteOperations, rate, 1, absurdCount},
	{"net.packetsRx.summation", inventory.VMNetworkReceivePackets, amount, 1, absurdCount},
	{"net.packetsTx.summation", inventory.VMNetworkTransmitPackets, amount, 1, absurdCount},
	{"net.droppedRx.summation", inventory.VMNetworkReceiveDropped, amount, 1, absurdCount},
	{"net.droppedTx.summation", inventory.VMNetworkTransmitDropped, amount, 1, absurdCount},
}

var hostCounters = [...]counter{
	{"mem.vmmemctl.average", inventory.HostMemoryBalloon, level, kibi, absurdBytes},
	{"mem.swapused.average", inventory.HostMemorySwapped, level, kibi, absurdBytes},
	{"mem.swapinRate.average", inventory.HostMemorySwapIn, rate, kibi, absurdKBps},
	{"mem.swapoutRate.average", inventory.HostMemorySwapOut, rate, kibi, absurdKBps},
	{"disk.maxTotalLatency.latest", inventory.HostDiskLatency, level, 1e-3, absurdLatency},
	{"disk.read.average", inventory.HostDiskRead, rate, kibi, absurdKBps},
	{"disk.write.average", inventory.HostDiskWrite, rate, kibi, absurdKBps},
	{"disk.numberReadAveraged.average", inventory.HostDiskReadOperations, rate, 1, absurdCount},
	{"disk.numberWriteAveraged.average", inventory.HostDiskWriteOperations, rate, 1, absurdCount},
	{"net.received.average", inventory.HostNetworkReceive, rate, kibi, absurdKBps},
	{"net.transmitted.average", inventory.HostNetworkTransmit, rate, kibi, absurdKBps},
	{"net.droppedRx.summation", inventory.HostNetworkReceiveDropped, amount, 1, absurdCount},
	{"net.droppedTx.summation", inventory.HostNetworkTransmitDropped, amount, 1, absurdCount},
	{"net.errorsRx.summation", inventory.HostNetworkReceiveErrors, amount, 1, absurdCount},
	{"net.errorsTx.summation", inventory.HostNetworkTransmitErrors, amount, 1, absurdCount},
}

// counted is a kind of object whose counters are asked for.
type counted struct {
	kind     string    // as vSphere calls it
	counters []counter // that are wanted
	ids      []int32   // of those the vCenter has, in the order that is asked
	place    []int     // of each counter in ids, -1 if the vCenter does not have it
}

// wanted are the counters of those metrics that the source collects.
func wanted(kind string, all []counter, collect *inventory.MetricSet) counted {
	c := counted{kind: kind}
	for _, counter := range all {
		if collect.Has(counter.metric) {
			c.counters = append(c.counters, counter)
		}
	}
	return c
}

// value is a counter's value of one sample, false if it was not answered.
func (c *counted) value(s *series, counter, i int) (float64, bool) {
	place := c.place[counter]
	if place < 0 {
		return 0, false
	}
	x := s.values[place*len(s.times)+i]
	return x, !math.IsNaN(x)
}

// totals are counters of VMs and hosts, by MoRef value, for as long as the source lives. They make counters that only grow of a
// vCenter's averages: average x interval, every interval once.
type totals struct{ byVM, byHost map[string]*total }

type total struct {
	last time.Time // end of the newest interval that is counted in, by protip's clock; zero if none is
	sums []float64 // by counter
}

func newTotals() *totals { return &totals{map[string]*total{}, map[string]*total{}} }

// keep forgets what is not in the tree.
func (t *totals) keep(tree *tree) {
	maps.DeleteFunc(t.byVM, func(ref string, _ *total) bool { return tree.vms[ref] == nil })
	maps.DeleteFunc(t.byHost, func(ref string, _ *total) bool { return tree.hosts[ref] == nil })
}

func (t *totals) drop(id inventory.ID) {
	switch id.Kind {
	case inventory.KindVM:
		delete(t.byVM, id.Ref)
	case inventory.KindHost:
		delete(t.byHost, id.Ref)
	}
}

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

func (t *totals) ofHost(h *host) *total {
	known := t.byHost[h.ID.Ref]
	if known == nil {
		known = &total{}
		t.byHost[h.ID.Ref] = known
	}
	return known
}

// asks is what to ask of the VMs that run: the newest sample of one that is new, of others all since the last that is
// counted in, and one more because a new one may come while the call is made.
func (t *totals) asks(tree *tree, now time.Time) []ask {
	out := make([]ask, 0, len(tree.vms))
	for _, v := range tree.inOrder() {
		if tree.runs(v) && !v.Template {
			out = append(out, ask{v.ID.Ref, t.of(v).missed(now)})
		}
	}
	return out
}

// hostAsks is the same of the hosts.
func (t *totals) hostAsks(tree *tree, now time.Time) []ask {
	out := make([]ask, 0, len(tree.hosts))
	for ref, h := range tree.hosts {
		if h.answers() {
			out = append(out, ask{ref, t.ofHost(h).missed(now)})
		}
	}
	return out
}

// missed is how many samples to ask for.
func (t *total) missed(now time.Time) int {
	if t.last.IsZero() {
		return 1
	}
	return min(max(1+int(now.Sub(t.last)/(realtime*time.Second)), 1), maxSamples)
}

// samples makes sample sets of the answers: of each VM and host that has a new sample. The caller holds mu.
func (p *perf) samples(answers []*answer, skew time.Duration) []inventory.SampleSet {
	n, numbers := 0, 0
	for _, a := range answers {
		n += len(a.series)
		numbers += len(a.series) * len(a.of.ids)
	}
	b := batch{
		counted: &p.vms, skew: skew, now: p.opts.Clock.Now(),
		all: make(values, 0, numbers), sets: make([]inventory.SampleSet, 0, n+len(p.tree.hosts)),
	}
	waits := newContention(len(p.tree.hosts))
	for _, a := range answers {
		b.counted = a.of
		for i := range a.series {
			if s := &a.series[i]; a.of == &p.hosts {
				p.hostSample(&b, s)
			} else {
				p.vmSample(&b, s, waits)
			}
		}
	}
	return append(b.sets, waits.samples(p.tree)...)
}

// vmSample adds a VM's new samples, and what it waited to its host's.
func (p *perf) vmSample(b *batch, s *series, waits *contention) {
	v := p.tree.vms[s.ref]
	if v == nil {
		return // it left while the call was made
	}
	h := p.tree.hosts[v.Host.Ref]
	if !v.runsOn(h) {
		return // or was switched off
	}
	set, newest, ok := b.add(v.ID, s, p.totals.of(v), v.VCPUs)
	if !ok {
		return
	}
	if ready, ok := valueOf(set, inventory.VMCPUContention); ok {
		waits.add(h, v, ready, newest)
	}
}

func (p *perf) hostSample(b *batch, s *series) {
	if h := p.tree.hosts[s.ref]; h != nil && h.answers() {
		b.add(h.ID, s, p.totals.ofHost(h), 0)
	}
}

// batch gathers the samples of one cycle. Its values stand in one array.
type batch struct {
	*counted
	skew  time.Duration
	now   time.Time
	fresh []at
	all   values
	sets  []inventory.SampleSet
}

// add adds an object's new samples: the levels of the newest, and what all of them add to its totals. It reports whether
// there was a new one.
func (b *batch) add(id inventory.ID, s *series, t *total, vcpus int) (set values, newest time.Time, ok bool) {
	if b.fresh = s.fresh(b.fresh[:0], t.last, b.skew, b.now); len(b.fresh) == 0 {
		return nil, time.Time{}, false
	}
	last, from := b.fresh[len(b.fresh)-1], len(b.all)
	if t.last = last.at; t.sums == nil {
		t.sums = make([]float64, len(b.counters))
	}
	for i := range b.counters {
		switch c := &b.counters[i]; c.is {
		case level:
			if x, ok := b.value(s, i, last.index); ok {
				b.all.add(c.metric, x*c.unit, c.limit)
			}
		case share:
			whole := float64(realtime * 1000 * vcpus) // milliseconds
			if ms, ok := b.value(s, i, last.index); ok && vcpus > 0 && ms/whole <= c.limit {
				b.all.add(c.metric, min(ms/whole, 1), 1)
			}
		default:
			if b.grow(&t.sums[i], c, s, i) {
				b.all.add(c.metric, t.sums[i], math.MaxFloat64)
			}
		}
	}
	set = b.all[from:len(b.all):len(b.all)]
	if len(set) > 0 {
		b.sets = append(b.sets, inventory.SampleSet{ID: id, At: last.at.UnixMilli(), Values: set})
	}
	return set, last.at, true
}

// grow adds to a total what the i-th counter counted in the fresh samples, each once, and reports whether it had a value in any.
func (b *batch) grow(total *float64, c *counter, s *series, i int) (counted bool) {
	seconds := 1.0
	if c.is == rate {
		seconds = realtime
	}
	for _, f := range b.fresh {
		if x, ok := b.value(s, i, f.index); ok && x <= c.limit {
			*total += x * c.unit * seconds
			counted = true
		}
	}
	return counted
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
