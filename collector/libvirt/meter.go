package libvirt

import (
	"math"
	"time"

	"github.com/protip/protip/internal/inventory"
)

// meter makes rates and totals of what a VM's domain counts. It outlives connections and migrations.
//
// A domain counts from zero each time it is started, which an arrival by migration is too. The totals go on: a counter of another run, or
// one that fell, has counted all of its value since. A total begins as the domain's own sum, so that for a VM that never moved
// both are the same number.
type meter struct {
	run     run
	at      time.Time
	cpu     uint64
	delay   uint64
	hasCPU  bool
	hasWait bool
	devices map[deviceKey]device
	totals  [counterCount]uint64
	counted uint32 // which totals there are
}

// run is one life of a domain's process.
type run struct {
	host inventory.ID
	id   int32
}

// The totals that are shown.
var shown = [...]struct {
	counter counter
	metric  inventory.Metric
}{
	{netReceiveBytes, inventory.VMNetworkReceive},
	{netTransmitBytes, inventory.VMNetworkTransmit},
	{diskReadBytes, inventory.VMDiskRead},
	{diskWriteBytes, inventory.VMDiskWrite},
	{diskReads, inventory.VMDiskReadOperations},
	{diskWrites, inventory.VMDiskWriteOperations},
	{netReceivePackets, inventory.VMNetworkReceivePackets},
	{netTransmitPackets, inventory.VMNetworkTransmitPackets},
	{netReceiveDropped, inventory.VMNetworkReceiveDropped},
	{netTransmitDropped, inventory.VMNetworkTransmitDropped},
}

// load is what a VM weighs in its host's contention.
type load struct {
	contention float64
	vcpus      float64
	ok         bool
}

// sample makes the values of one reading, taken at a time, of a VM on a host whose cores have coreHertz. Without steady the time is
// too uncertain for rates.
func (m *meter) sample(s *stats, in run, at time.Time, steady bool, coreHertz float64) (out []inventory.Value, l load) {
	if m.run != in {
		m.run, m.devices, m.hasCPU, m.hasWait = in, nil, false, false
	}
	add := func(metric inventory.Metric, v float64) { out = append(out, inventory.Value{Metric: metric, Value: v}) }
	elapsed := at.Sub(m.at).Seconds()
	rates := steady && elapsed > 0
	vcpus, _ := s.number(vcpuCurrent)

	cpu, hasCPU := s.number(cpuTime)
	if rates && m.hasCPU && hasCPU && cpu >= m.cpu && coreHertz > 0 {
		add(inventory.VMCPUUsage, float64(cpu-m.cpu)/1e9/elapsed*coreHertz)
	}
	delay, hasWait := s.number(vcpuDelay)
	hasWait = hasWait && s.delayed > 0
	if rates && m.hasWait && hasWait && delay >= m.delay {
		l = load{contention: min(float64(delay-m.delay)/1e9/elapsed/float64(s.delayed), 1), vcpus: float64(max(int(vcpus), s.delayed)), ok: true}
		add(inventory.VMCPUContention, l.contention)
	}
	if steady {
		m.at, m.cpu, m.hasCPU, m.delay, m.hasWait = at, cpu, hasCPU, delay, hasWait
	}
	out = append(out, memory(s)...)
	if latency := m.count(s); latency >= 0 {
		add(inventory.VMDiskLatency, latency)
	}
	for _, t := range shown {
		if m.counted&(1<<t.counter) != 0 && s.counts(t.counter) {
			add(t.metric, float64(m.totals[t.counter]))
		}
	}
	return out, l
}

// counts says whether the reading has the counter of any device.
func (s *stats) counts(c counter) bool {
	for i := range s.devices {
		if s.devices[i].has&(1<<c) != 0 {
			return true
		}
	}
	return false
}

// memory are the values of the balloon, in bytes.
func memory(s *stats) (out []inventory.Value) {
	add := func(metric inventory.Metric, kib uint64) {
		out = append(out, inventory.Value{Metric: metric, Value: float64(kib) * 1024})
	}
	if rss, ok := s.number(balloonRSS); ok {
		add(inventory.VMMemoryUsage, rss)
	}
	current, has := s.number(balloonCurrent)
	if most, ok := s.number(balloonMaximum); ok && has && current <= most {
		add(inventory.VMMemoryBalloon, most-current)
	}
	available, has := s.number(balloonAvailable)
	free, ok := s.number(balloonUsable) // what could be used without swapping
	if !ok {
		free, ok = s.number(balloonUnused) // a guest that is older tells only what is idle
	}
	if has && ok && free <= available {
		add(inventory.VMMemoryGuestUsage, available-free)
	}
	return out
}

// count adds what the devices counted since the last reading to the totals, and returns the worst disk's mean latency in seconds, negative
// if no disk did anything.
func (m *meter) count(s *stats) (latency float64) {
	latency = -1
	next := make(map[deviceKey]device, len(s.devices))
	for _, d := range s.devices {
		last := m.devices[d.key]
		var grown [counterCount]uint64
		for c := range d.counters {
			bit := uint32(1) << c
			if d.has&bit == 0 {
				continue
			}
			grown[c] = d.counters[c]
			if last.has&bit != 0 && d.counters[c] >= last.counters[c] {
				grown[c] -= last.counters[c]
			}
			m.totals[c] += grown[c]
			m.counted |= bit
		}
		next[d.key] = d
		if requests := grown[diskReads] + grown[diskWrites]; last.has != 0 && requests > 0 {
			mean := float64(grown[diskReadTime]+grown[diskWriteTime]) / 1e9 / float64(requests)
			latency = max(latency, mean)
		}
	}
	m.devices = next
	return latency
}

// hostMeter makes rates of what a host counts.
type hostMeter struct {
	busy, all uint64
	has       bool
}

// sample makes a host's values of its CPU times (ns) and its memory (KiB), either of which may be nil.
func (m *hostMeter) sample(h *inventory.Host, cpu, mem map[string]uint64) (out []inventory.Value) {
	if ratio, ok := m.cpu(cpu); ok {
		out = append(out,
			inventory.Value{Metric: inventory.HostCPUUsage, Value: ratio * h.CPUHertz},
			inventory.Value{Metric: inventory.HostCPUUsageRatio, Value: ratio})
	}
	total, free := mem["total"], mem["free"]+mem["buffers"]+mem["cached"]
	if _, ok := mem["free"]; ok && total > 0 && free <= total {
		out = append(out,
			inventory.Value{Metric: inventory.HostMemoryUsage, Value: float64(total-free) * 1024},
			inventory.Value{Metric: inventory.HostMemoryUsageRatio, Value: float64(total-free) / float64(total)})
	}
	return out
}

// cpu is the share of the time since the last reading that the CPUs did not idle.
func (m *hostMeter) cpu(times map[string]uint64) (ratio float64, ok bool) {
	idle, has := times["idle"]
	if !has {
		return 0, false
	}
	busy := times["kernel"] + times["user"] + times["intr"]
	all := busy + idle + times["iowait"]
	last := *m
	*m = hostMeter{busy: busy, all: all, has: true}
	if !last.has || busy < last.busy || all <= last.all {
		return 0, false
	}
	return math.Min(float64(busy-last.busy)/float64(all-last.all), 1), true
}

// contention are the host's values of its VMs' contention.
func contention(loads []load) []inventory.Value {
	var sum, vcpus, worst float64
	for _, l := range loads {
		if l.ok {
			sum, vcpus, worst = sum+l.contention*l.vcpus, vcpus+l.vcpus, max(worst, l.contention)
		}
	}
	if vcpus == 0 {
		return nil
	}
	return []inventory.Value{{Metric: inventory.HostCPUContention, Value: sum / vcpus}, {Metric: inventory.HostCPUContentionMax, Value: worst}}
}
