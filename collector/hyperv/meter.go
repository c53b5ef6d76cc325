package hyperv

import (
	"context"
	"strings"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/platform/winrm"
)

// device is one disk or network adapter of a VM, by the name of its counters.
type device struct {
	name     string
	disk     bool
	has      uint8
	counters [6]uint64
}

// What devices count.
var (
	diskCounters = []string{"ReadBytesPersec", "WriteBytesPersec", "ReadCount", "WriteCount"}
	diskMetrics  = []inventory.Metric{inventory.VMDiskRead, inventory.VMDiskWrite, inventory.VMDiskReadOperations, inventory.VMDiskWriteOperations}
	netCounters  = []string{"BytesReceivedPersec", "BytesSentPersec", "PacketsReceivedPersec", "PacketsSentPersec", "DroppedPacketsIncomingPersec", "DroppedPacketsOutgoingPersec"}
	netMetrics   = []inventory.Metric{
		inventory.VMNetworkReceive, inventory.VMNetworkTransmit, inventory.VMNetworkReceivePackets, inventory.VMNetworkTransmitPackets,
		inventory.VMNetworkReceiveDropped, inventory.VMNetworkTransmitDropped,
	}
)

// disks asks for the traffic of disks. A counter names the disk's path, and the VM's configuration says whose that is.
func (c *cycle) disks(ctx context.Context) error {
	return c.devices(ctx, qStorage, diskCounters, true, func(name string) string { return c.node.disks[diskName(name)] })
}

// adapters asks for the traffic of network adapters. A counter's name holds the VM's GUID.
func (c *cycle) adapters(ctx context.Context) error {
	return c.devices(ctx, qNetwork, netCounters, false, func(name string) string {
		for rest := name; ; {
			id := guidWithin(rest)
			if id == "" || c.read.vms[id] != nil {
				return id
			}
			rest = rest[strings.Index(strings.ToLower(rest), id)+len(id):]
		}
	})
}

func (c *cycle) devices(ctx context.Context, q *query, counters []string, disk bool, owner func(name string) string) error {
	found := map[string][]device{}
	ok, err := c.ask(ctx, q, func(r winrm.Instance) {
		name := r.Text("Name")
		id := owner(name)
		if id == "" || len(found[id]) >= 256 {
			return
		}
		d := device{name: strings.Clone(name), disk: disk}
		for i, counter := range counters {
			if v, ok := r.Uint(counter); ok {
				d.counters[i] = v
				d.has |= 1 << i
			}
		}
		found[id] = append(found[id], d)
	})
	if !ok {
		return err
	}
	if c.read.traffic == nil {
		c.read.traffic = map[string][]device{}
	}
	for id, devices := range found {
		c.read.traffic[id] = append(c.read.traffic[id], devices...)
	}
	return nil
}

// meter makes rates and totals of what is counted of a VM. It outlives connections and migrations.
//
// A host counts a VM from zero when it comes to it. The totals go on: a counter on another host, or one that fell, has counted all of
// its value since. A total begins as the host's own count.
type meter struct {
	host, name string
	last       processors
	devices    map[string]device
	disk, net  totals
}

type totals struct {
	sums [6]float64
	has  uint8
}

// weight is what a VM weighs in its host's contention.
type weight struct{ contention, vcpus float64 }

// sample makes the values of one reading of a VM. counted is nil where its counters are not known.
func (m *meter) sample(host, name string, counted *processors, devices []device, coreHertz float64) (out []inventory.Value, l *weight) {
	if m.host != host {
		m.last, m.devices = processors{}, nil
	}
	if m.name != name {
		m.last = processors{} // another may have had that name, and its counters
	}
	m.host, m.name = host, name
	add := func(metric inventory.Metric, v float64) { out = append(out, inventory.Value{Metric: metric, Value: v}) }
	if p := counted; p != nil {
		last := m.last
		m.last = *p
		if used, ok := winrm.Ratio(winrm.Sample{Value: last.run, Base: last.base}, winrm.Sample{Value: p.run, Base: p.base}); ok && last.runs == p.runs && p.runs > 0 && coreHertz > 0 && used <= 1.1*float64(p.runs) {
			add(inventory.VMCPUUsage, used*coreHertz)
		}
		if waited, ok := winrm.Ratio(winrm.Sample{Value: last.wait, Base: last.base}, winrm.Sample{Value: p.wait, Base: p.base}); ok && last.waits == p.waits && p.waits > 0 && last.base > 0 {
			ratio := waited / 100 / float64(p.waits) // ns of 100 ns
			l = &weight{min(ratio, 1), float64(p.waits)}
			add(inventory.VMCPUContention, l.contention)
		}
	} else {
		m.last = processors{}
	}
	m.count(devices)
	for i, metric := range diskMetrics {
		if m.disk.has&(1<<i) != 0 {
			add(metric, m.disk.sums[i])
		}
	}
	for i, metric := range netMetrics {
		if m.net.has&(1<<i) != 0 {
			add(metric, m.net.sums[i])
		}
	}
	return out, l
}

// count adds what devices counted since the last reading to the totals, which are shown if this reading has them.
func (m *meter) count(devices []device) {
	m.disk.has, m.net.has = 0, 0
	if len(devices) > 0 && m.devices == nil {
		m.devices = map[string]device{}
	}
	for _, d := range devices {
		into := &m.net
		if d.disk {
			into = &m.disk
		}
		last := m.devices[d.name]
		for i := range d.counters {
			bit := uint8(1) << i
			if d.has&bit == 0 {
				continue
			}
			grown := d.counters[i]
			if last.has&bit != 0 && grown >= last.counters[i] {
				grown -= last.counters[i]
			}
			into.sums[i] += float64(grown)
			into.has |= bit
		}
		m.devices[d.name] = d
	}
	if len(m.devices) > 2*len(devices)+16 { // disks and adapters that are long gone
		m.devices = nil
		for _, d := range devices {
			if m.devices == nil {
				m.devices = map[string]device{}
			}
			m.devices[d.name] = d
		}
	}
}

// hostMeter makes rates of what a host counts.
type hostMeter struct{ logical, root winrm.Sample }

// sample makes a host's values of a reading, and of the loads of its VMs.
func (m *hostMeter) sample(h *inventory.Host, r *reading, loads []weight) (out []inventory.Value) {
	add := func(metric inventory.Metric, v float64) { out = append(out, inventory.Value{Metric: metric, Value: v}) }
	if ratio, ok := share(&m.logical, r.logical); ok {
		add(inventory.HostCPUUsageRatio, ratio)
		if h.CPUHertz > 0 {
			add(inventory.HostCPUUsage, ratio*h.CPUHertz)
		}
	}
	if ratio, ok := share(&m.root, r.root); ok {
		add(inventory.HostCPURoot, ratio)
	}
	if s := r.system; s != nil {
		if s.free != nil && h.MemoryBytes > 0 && *s.free <= h.MemoryBytes {
			add(inventory.HostMemoryUsage, h.MemoryBytes-*s.free)
			add(inventory.HostMemoryUsageRatio, 1-*s.free/h.MemoryBytes)
		}
		if s.uptime != nil {
			add(inventory.HostUptime, *s.uptime)
		}
	}
	if r.balance != nil && *r.balance < 100 {
		add(inventory.HostMemoryPressure, *r.balance)
	}
	var sum, vcpus, worst float64
	for _, l := range loads {
		sum, vcpus, worst = sum+l.contention*l.vcpus, vcpus+l.vcpus, max(worst, l.contention)
	}
	if vcpus > 0 {
		add(inventory.HostCPUContention, sum/vcpus)
		add(inventory.HostCPUContentionMax, worst)
	}
	return out
}

// share is how much of the time since the last reading was used.
func share(last, now *winrm.Sample) (float64, bool) {
	was := *last
	*last = winrm.Sample{}
	if now == nil {
		return 0, false
	}
	*last = *now
	ratio, ok := winrm.Ratio(was, *now)
	return min(ratio, 1), ok && was.Base > 0 && ratio <= 1.1
}
