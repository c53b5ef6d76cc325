package hyperv

import (
	"time"

	"github.com/protip/protip/internal/sim/load"
)

// What the hypervisor itself and the root partition take of a host's processors.
const (
	hypervisorShare = 0.01
	rootShare       = 0.02
)

// Longer spans than maxStep are cut to be counted, very long ones into maxSteps.
const (
	maxStep  = 20 * time.Second
	maxSteps = 200
)

// integrate counts on from the model's present to t. Nothing moves in between.
func (m *model) integrate(t time.Time) {
	span := t.Sub(m.at)
	if span < 0 {
		return // a clock does not run backwards; a caller that was slow to take the lock may
	}
	steps := min(maxSteps, 1+int(span/maxStep))
	for i := range steps {
		from := m.at
		to := t
		if i < steps-1 {
			to = from.Add(span / time.Duration(steps))
		}
		for _, vm := range m.vms {
			vm.use = m.demandOf(vm, from.Add(to.Sub(from)/2))
		}
		for _, n := range m.nodes {
			m.count(n, to.Sub(from))
		}
		m.at = to
	}
}

func (m *model) demandOf(vm *vm, t time.Time) load.Use {
	switch {
	case vm.state != vmRunning || vm.on.state == NodeDown:
		return load.Use{}
	case vm.demand != nil:
		return *vm.demand
	}
	return m.opt.Load.At(vm.index, t)
}

// count adds d of what happens on a node to its counters and to those of its VMs. See DESIGN.md for the formulas.
func (m *model) count(n *node, d time.Duration) {
	if n.state == NodeDown {
		n.usage = 0
		return
	}
	ticks := float64(d) / 100
	vms := m.on(n)
	demanded := 0.0
	for _, vm := range vms {
		demanded += vm.use.CPU * float64(vm.vcpus)
	}
	room := float64(n.cores) * (1 - rootShare - hypervisorShare)
	pressure := demanded / room
	for _, vm := range vms {
		run := vm.use.CPU / max(1, pressure)
		waits := 0.005 + 0.6*max(0, min(pressure, 1)-0.8) + vm.use.CPU*max(0, 1-1/max(pressure, 1e-9))
		vcpus := float64(vm.vcpus)
		vm.runTicks += run * vcpus * ticks
		vm.hypervisorTicks += 0.01 * run * vcpus * ticks
		vm.waitNanos += waits * vcpus * float64(d)
		vm.dispatches += (200 + 2000*run) * vcpus * d.Seconds()
		vm.traffic.count(vm.use, d)
		io := n.traffic[vm.volume]
		io.count(vm.use, d)
		n.traffic[vm.volume] = io
		vm.received += vm.use.NetReceived * d.Seconds()
		vm.sent += vm.use.NetTransmitted * d.Seconds()
	}
	guests := min(demanded, room) / float64(n.cores)
	n.usage = guests + rootShare + hypervisorShare
	n.rootTicks += rootShare * ticks
	n.guestTicks += (guests + rootShare) * ticks
	n.hypervisorTicks += hypervisorShare * ticks
	n.idleTicks += (1 - n.usage) * ticks
}

// on are the VMs that run on a node.
func (m *model) on(n *node) []*vm {
	var vms []*vm
	for _, vm := range m.vms {
		if vm.on == n && vm.state == vmRunning {
			vms = append(vms, vm)
		}
	}
	return vms
}

// resetCounters is what becomes of a VM's counters when its worker process ends: they are the host's, and begin at nothing on the next.
func (vm *vm) resetCounters() {
	vm.runTicks, vm.hypervisorTicks, vm.waitNanos, vm.dispatches = 0, 0, 0, 0
	vm.traffic, vm.received, vm.sent = traffic{}, 0, 0
}
