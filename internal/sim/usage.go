package sim

import (
	"math"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/sim/load"
)

// A vCenter samples every 20 s, on the full minute and the 20 s after it, and keeps an hour of that.
const (
	sampleLength = 20 * time.Second
	sampleKept   = time.Hour
)

// usage turns what VMs demand into what hosts deliver. A sample is a pure function of its time: of the load then, and of where
// the VMs were then. Quick stats and counters both read it, so they cannot disagree.
type usage struct {
	load load.Load
	now  func() time.Time

	mu      sync.Mutex
	shapes  int // grows with everything that is not a function of time
	vms     []*vmHistory
	vm      map[types.ManagedObjectReference]*vmHistory
	hosts   []*hostHistory
	host    map[types.ManagedObjectReference]*hostHistory
	samples []*sample // the last few computed
}

// vmHistory is where a VM was in the last hour.
type vmHistory struct {
	ref     types.ManagedObjectReference
	index   int // in the load
	vcpus   float64
	mhz     float64 // the core speed that its demand is measured in: that of its first host
	memory  float64 // KiB, configured
	boot    time.Time
	stays   []stay // oldest first
	present bool
}

// stay is a time that a VM spent in one place and state.
type stay struct {
	from time.Time
	host *hostHistory
	on   bool
}

type hostHistory struct {
	ref    types.ManagedObjectReference
	number int
	cores  float64
	mhz    float64 // of a core
	memory float64 // KiB
	boot   time.Time
	lost   time.Time // when the connection to it broke; zero while it holds
}

func newUsage(l load.Load, now func() time.Time) *usage {
	return &usage{
		load: l, now: now,
		vm: map[types.ManagedObjectReference]*vmHistory{}, host: map[types.ManagedObjectReference]*hostHistory{},
	}
}

func (u *usage) addHost(host *simulator.HostSystem) {
	u.mu.Lock()
	defer u.mu.Unlock()
	hw := host.Summary.Hardware
	h := &hostHistory{
		ref: host.Self, number: len(u.hosts), cores: float64(hw.NumCpuCores), mhz: float64(hw.CpuMhz),
		memory: float64(hw.MemorySize) / 1024, boot: *host.Runtime.BootTime,
	}
	if host.Runtime.ConnectionState != types.HostSystemConnectionStateConnected {
		h.lost = time.Unix(0, 0)
	}
	u.hosts = append(u.hosts, h)
	u.host[h.ref] = h
	u.shapes++
}

// addVM adds the load's next VM. One that is on has been so for long.
func (u *usage) addVM(vm *simulator.VirtualMachine, host *simulator.HostSystem) {
	u.mu.Lock()
	defer u.mu.Unlock()
	h := u.host[host.Self]
	v := &vmHistory{
		ref: vm.Self, index: len(u.vms), vcpus: float64(vm.Config.Hardware.NumCPU), mhz: h.mhz,
		memory: float64(vm.Config.Hardware.MemoryMB) * 1024, present: true,
	}
	if vm.Runtime.BootTime != nil {
		v.boot = *vm.Runtime.BootTime
	}
	v.stays = []stay{{host: h, on: vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn}}
	u.vms = append(u.vms, v)
	u.vm[v.ref] = v
	u.shapes++
}

// moved, powered and removed take down what happened to a VM just now.

func (u *usage) moved(vm, host types.ManagedObjectReference) {
	u.change(vm, func(s *stay) { s.host = u.host[host] })
}

func (u *usage) powered(vm types.ManagedObjectReference, on bool) {
	u.change(vm, func(s *stay) { s.on = on })
	if on {
		u.mu.Lock()
		u.vm[vm].boot = u.now()
		u.mu.Unlock()
	}
}

func (u *usage) removed(vm types.ManagedObjectReference) {
	u.change(vm, func(s *stay) { s.on = false })
	u.mu.Lock()
	u.vm[vm].present = false
	u.mu.Unlock()
}

func (u *usage) change(vm types.ManagedObjectReference, f func(*stay)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	v, ok := u.vm[vm]
	if !ok {
		return
	}
	now := u.now()
	next := v.stays[len(v.stays)-1]
	next.from = now
	f(&next)
	v.stays = append(v.stays, next)
	for len(v.stays) > 1 && v.stays[1].from.Before(now.Add(-sampleKept-sampleLength)) {
		v.stays = v.stays[1:]
	}
	u.shapes++
}

// connected takes down that a host's connection broke or came back.
func (u *usage) connected(host types.ManagedObjectReference, yes bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.host[host].lost = time.Time{}
	if !yes {
		u.host[host].lost = u.now()
	}
	u.shapes++
}

// at is where the VM was.
func (v *vmHistory) at(t time.Time) stay {
	for i := len(v.stays) - 1; i > 0; i-- {
		if !v.stays[i].from.After(t) {
			return v.stays[i]
		}
	}
	return v.stays[0]
}

// sample is what was measured of everything in the 20 s before at. Values are in vSphere's units.
type sample struct {
	at    time.Time
	vms   map[types.ManagedObjectReference]vmSample
	hosts map[types.ManagedObjectReference]hostSample
}

type vmSample struct {
	usageMHz, demandMHz, usagePercent100                            int64
	readyMs, costopMs                                               int64
	activeKB, consumedKB, balloonKB, swappedKB, memoryPercent100    int64
	receivedKBps, transmittedKBps, readKBps, writtenKBps, latencyMs int64
	uptime                                                          int64
	readinessPercent                                                int64
	more
}

type hostSample struct {
	usageMHz, demandMHz, usagePercent100, capacityMHz               int64
	readyMs, costopMs                                               int64
	activeKB, consumedKB, balloonKB, swappedKB, memoryPercent100    int64
	receivedKBps, transmittedKBps, readKBps, writtenKBps, latencyMs int64
	uptime                                                          int64
	more
}

// more is what follows from the rest. A host has of it the sums that it gives counters of.
type more struct {
	entitlementMHz, swapWaitMs                       int64
	grantedKB, sharedKB, compressedKB                int64
	memoryLatencyPercent100                          int64 // of VMs only
	swapInKBps, swapOutKBps                          int64
	readsPerSecond, writesPerSecond                  int64
	receivedPackets, transmittedPackets, lostPackets int64 // in a sample
}

// moreOf: a tenth of what a VM has is shared, an eighth of what is swapped is compressed; a swapped page is touched now and then;
// a read or write is 32 KiB and a packet 1 KiB; one packet in 10,000 is lost.
func (v *vmSample) moreOf(memory, vcpus float64) more {
	swapped := float64(v.swappedKB) / memory
	seconds := int64(sampleLength / time.Second)
	return more{
		entitlementMHz: v.usageMHz, swapWaitMs: int64(swapped / 4 * vcpus * float64(sampleLength/time.Millisecond)),
		grantedKB: v.consumedKB + v.consumedKB/10, sharedKB: v.consumedKB / 10, compressedKB: v.swappedKB / 8,
		memoryLatencyPercent100: int64(swapped / 2 * 1e4),
		swapInKBps:              v.swappedKB / 600, swapOutKBps: v.swappedKB / 300,
		readsPerSecond: v.readKBps / 32, writesPerSecond: v.writtenKBps / 32,
		receivedPackets: v.receivedKBps * seconds, transmittedPackets: v.transmittedKBps * seconds,
		lostPackets: v.receivedKBps * seconds / 10_000,
	}
}

// latest is the time of the newest whole sample.
func (u *usage) latest() time.Time { return u.now().Truncate(sampleLength) }

// sampleAt is the sample of that time, which must be on the grid.
func (u *usage) sampleAt(at time.Time) *sample {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, s := range u.samples {
		if s.at.Equal(at) {
			return s
		}
	}
	s := u.compute(at)
	if u.samples = append(u.samples, s); len(u.samples) > 8 {
		u.samples = u.samples[1:]
	}
	return s
}

// pressure is what the VMs of one host ask of it together.
type pressure struct {
	demand, consumed float64 // MHz, KiB
	up               bool
}

// compute makes a sample. A host that is asked for more than it has delivers every VM the same share of its demand; waiting
// begins before that (see contention). Memory beyond 94 % of a host is taken back from its VMs in proportion: by balloon up to
// 65 % of what a VM is configured with, the rest by swap.
func (u *usage) compute(at time.Time) *sample {
	s := &sample{at: at, vms: map[types.ManagedObjectReference]vmSample{}, hosts: map[types.ManagedObjectReference]hostSample{}}
	on := make([]*pressure, len(u.hosts))
	for i, h := range u.hosts {
		on[i] = &pressure{up: h.lost.IsZero() || at.Before(h.lost)}
	}
	type running struct {
		*vmHistory
		use    load.Use
		host   *hostHistory
		demand float64
	}
	var all []running
	for _, v := range u.vms {
		place := v.at(at)
		if !place.on || !on[place.host.number].up {
			continue
		}
		use := u.load.At(v.index, at)
		r := running{v, use, place.host, math.Min(use.CPU*v.mhz, place.host.mhz) * v.vcpus}
		p := on[place.host.number]
		p.demand += r.demand
		p.consumed += use.MemoryConsumed * v.memory
		all = append(all, r)
	}
	sums := make([]hostSample, len(u.hosts))
	for _, r := range all {
		v := vmSampleOf(r.vmHistory, r.use, r.host, r.demand, on[r.host.number], at)
		if r.present {
			s.vms[r.ref] = v
		}
		sums[r.host.number].add(v)
	}
	for i, h := range u.hosts {
		if on[i].up {
			s.hosts[h.ref] = sums[i].of(h, at)
		}
	}
	return s
}

// contention is the share of the time that a vCPU is ready but does not run: 0.5 % always, 0.6 of what the host is loaded
// beyond 80 %, and beyond 100 % also the share of its own demand that it does not get.
func contention(hostLoad, vcpuDemand float64) float64 {
	c := 0.005 + 0.6*math.Max(0, math.Min(hostLoad, 1)-0.8)
	if hostLoad > 1 {
		c += vcpuDemand * (1 - 1/hostLoad)
	}
	return math.Min(c, 1)
}

func vmSampleOf(v *vmHistory, use load.Use, h *hostHistory, demand float64, p *pressure, at time.Time) vmSample {
	hostLoad := p.demand / (h.cores * h.mhz)
	delivered := math.Floor(demand / math.Max(1, hostLoad))
	ready := contention(hostLoad, demand/(v.vcpus*h.mhz))
	consumed := use.MemoryConsumed * v.memory
	balloon, swapped := 0.0, 0.0
	if over := p.consumed - 0.94*h.memory; over > 0 {
		taken := over * consumed / p.consumed
		balloon = math.Min(taken, 0.65*v.memory)
		swapped = taken - balloon
		consumed -= taken
	}
	out := vmSample{
		usageMHz: int64(delivered), demandMHz: int64(demand), usagePercent100: int64(delivered) * 10000 / int64(v.vcpus*h.mhz),
		readyMs:          int64(ready * v.vcpus * float64(sampleLength/time.Millisecond)),
		readinessPercent: int64(ready * 100),
		activeKB:         int64(math.Min(use.MemoryActive*v.memory, consumed)), consumedKB: int64(consumed),
		balloonKB: int64(balloon), swappedKB: int64(swapped), memoryPercent100: int64(use.MemoryActive * 10000),
		receivedKBps: int64(use.NetReceived / 1024), transmittedKBps: int64(use.NetTransmitted / 1024),
		readKBps: int64(use.DiskRead / 1024), writtenKBps: int64(use.DiskWritten / 1024),
		latencyMs: use.DiskLatency.Milliseconds(), uptime: int64(max(0, at.Sub(v.boot)).Seconds()),
	}
	if v.vcpus > 2 {
		out.costopMs = out.readyMs / 10
	}
	out.more = out.moreOf(v.memory, v.vcpus)
	return out
}

func (h *hostSample) add(v vmSample) {
	h.usageMHz += v.usageMHz
	h.demandMHz += v.demandMHz
	h.readyMs += v.readyMs
	h.costopMs += v.costopMs
	h.activeKB += v.activeKB
	h.consumedKB += v.consumedKB
	h.balloonKB += v.balloonKB
	h.swappedKB += v.swappedKB
	h.receivedKBps += v.receivedKBps
	h.transmittedKBps += v.transmittedKBps
	h.readKBps += v.readKBps
	h.writtenKBps += v.writtenKBps
	h.latencyMs = max(h.latencyMs, v.latencyMs)
	h.swapInKBps += v.swapInKBps
	h.swapOutKBps += v.swapOutKBps
	h.readsPerSecond += v.readsPerSecond
	h.writesPerSecond += v.writesPerSecond
	h.lostPackets += v.lostPackets
}

func (h hostSample) of(host *hostHistory, at time.Time) hostSample {
	h.capacityMHz = int64(host.cores * host.mhz)
	h.usagePercent100 = h.usageMHz * 10000 / h.capacityMHz
	h.memoryPercent100 = int64(float64(h.consumedKB) / host.memory * 10000)
	h.uptime = int64(at.Sub(host.boot).Seconds())
	return h
}

// refreshQuickStats writes the newest sample into the objects, telling nobody: a vCenter's quick stats do not notify.
// What is not in the sample (a host that is not connected) keeps what it showed; a VM that is off shows nothing.
func (vc *VCenter) refreshQuickStats(ctx *simulator.Context) {
	vc.quick.Lock()
	defer vc.quick.Unlock()
	at := vc.usage.latest()
	vc.usage.mu.Lock()
	shapes := vc.usage.shapes
	vc.usage.mu.Unlock()
	if at.Equal(vc.quick.at) && shapes == vc.quick.shapes {
		return
	}
	s := vc.usage.sampleAt(at)
	for _, obj := range vc.reg.AllReference("VirtualMachine") {
		vm := obj.(*simulator.VirtualMachine)
		ctx.WithLock(vm, func() {
			if vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn {
				vm.Summary.QuickStats = types.VirtualMachineQuickStats{GuestHeartbeatStatus: types.ManagedEntityStatusGray}
			} else if v, measured := s.vms[vm.Self]; measured {
				vm.Summary.QuickStats = vmQuickStats(v)
			}
		})
	}
	for _, obj := range vc.reg.AllReference("HostSystem") {
		host := obj.(*simulator.HostSystem)
		if h, up := s.hosts[host.Self]; up {
			ctx.WithLock(host, func() {
				host.Summary.QuickStats = types.HostListSummaryQuickStats{
					OverallCpuUsage: int32(h.usageMHz), OverallMemoryUsage: int32(h.consumedKB / 1024), Uptime: int32(h.uptime),
				}
			})
		}
	}
	vc.quick.at, vc.quick.shapes = at, shapes
}

func vmQuickStats(v vmSample) types.VirtualMachineQuickStats {
	return types.VirtualMachineQuickStats{
		OverallCpuUsage: int32(v.usageMHz), OverallCpuDemand: int32(v.demandMHz), OverallCpuReadiness: int32(v.readinessPercent),
		GuestMemoryUsage: int32(v.activeKB / 1024), HostMemoryUsage: int32(v.consumedKB / 1024),
		BalloonedMemory: int32(v.balloonKB / 1024), SwappedMemory: int32(v.swappedKB / 1024),
		GuestHeartbeatStatus: types.ManagedEntityStatusGreen, UptimeSeconds: int32(v.uptime),
	}
}
