package placement

import (
	"fmt"
	"iter"

	"github.com/protip/protip/internal/inventory"
)

// ledger is what every host is expected to carry: overhead, the VMs that run on it, and those on their way to it. A VM on its
// way counts on both hosts until it is gone.
//
//	load     = overhead + sum of the demand of its VMs
//	overhead = max(0, what was measured on the host - what was measured of the VMs whose demand counts)
//
// So a running VM without a known demand is still in the load, as part of the overhead, with what it used.
type ledger struct {
	snap   *inventory.Snapshot
	demand Demand
	books  map[inventory.ID]*book
}

// book is one host's page. It is made when first asked for.
type book struct {
	host inventory.HostView
	load Use
	// rise is the CPU, in hertz, that the VMs are expected to need beyond the load, and variance that of their CPU demand.
	rise, variance float64
	flow           Flow                  // of the VMs whose demand is known
	coming, gone   map[inventory.ID]bool // VMs that count without running here, and that run here without counting
	unknown        string                // a VM without known demand
	stale          string                // why the load is not known
}

func newLedger(s *inventory.Snapshot, d Demand) *ledger {
	return &ledger{snap: s, demand: d, books: map[inventory.ID]*book{}}
}

func (l *ledger) of(host inventory.HostView, incoming []inventory.ID) *book {
	if b, ok := l.books[host.ID]; ok {
		return b
	}
	b := &book{host: host, stale: staleness(l.snap, host)}
	l.books[host.ID] = b
	b.load.CPUHertz, _ = host.Samples.Value(inventory.HostCPUUsage)
	b.load.MemoryBytes, _ = host.Samples.Value(inventory.HostMemoryUsage)
	var demanded Use
	for _, vm := range l.snap.VMsOn(host.ID) {
		if !runs(vm.VM) {
			continue
		}
		est, ok := l.demand.of(vm.ID)
		if !ok {
			b.unknown = vm.Name
			continue
		}
		demanded = demanded.plus(est.Now)
		b.rise += est.rise()
		b.variance += est.shown()
		b.flow = b.flow.plus(est.Flow, 1)
		measured, _ := vm.Samples.Value(inventory.VMCPUUsage)
		b.load.CPUHertz -= measured
		measured, _ = vm.Samples.Value(inventory.VMMemoryUsage)
		b.load.MemoryBytes -= measured
	}
	b.load = Use{max(0, b.load.CPUHertz), max(0, b.load.MemoryBytes)}.plus(demanded)
	for _, vm := range incoming {
		l.arrive(b, vm)
	}
	return b
}

// counts reports whether a VM is in the host's load: it runs there, or is on its way.
func (l *ledger) counts(b *book, vm inventory.ID) bool {
	if b.coming[vm] || b.gone[vm] {
		return b.coming[vm]
	}
	v, ok := l.snap.VM(vm)
	return ok && v.Host == b.host.ID && runs(v.VM)
}

// vms are all that count on a host.
func (l *ledger) vms(b *book) iter.Seq[inventory.ID] {
	return func(yield func(inventory.ID) bool) {
		for _, vm := range l.snap.VMsOn(b.host.ID) {
			if runs(vm.VM) && !b.gone[vm.ID] && !yield(vm.ID) {
				return
			}
		}
		for vm := range b.coming {
			if !yield(vm) {
				return
			}
		}
	}
}

// arrive counts a VM on a host, once.
func (l *ledger) arrive(b *book, vm inventory.ID) {
	if l.counts(b, vm) {
		return
	}
	if b.gone[vm] {
		delete(b.gone, vm)
	} else {
		b.coming = with(b.coming, vm)
	}
	est, ok := l.demand.of(vm)
	if !ok {
		b.unknown = l.name(vm)
		return
	}
	b.load = b.load.plus(est.Now)
	b.rise += est.rise()
	b.variance += est.shown()
	b.flow = b.flow.plus(est.Flow, 1)
}

// leave takes a VM off a host.
func (l *ledger) leave(b *book, vm inventory.ID) {
	est, ok := l.demand.of(vm)
	if !ok || !l.counts(b, vm) {
		return
	}
	if b.coming[vm] {
		delete(b.coming, vm)
	} else {
		b.gone = with(b.gone, vm)
	}
	b.load = b.load.minus(est.Now)
	b.rise = max(0, b.rise-est.rise())
	b.variance = max(0, b.variance-est.shown())
	b.flow = b.flow.plus(est.Flow, -1)
}

// with is the set with one more VM; nearly all sets stay empty.
func with(set map[inventory.ID]bool, vm inventory.ID) map[inventory.ID]bool {
	if set == nil {
		set = map[inventory.ID]bool{}
	}
	set[vm] = true
	return set
}

func (l *ledger) use(vm inventory.ID) (Use, bool) {
	est, ok := l.demand.of(vm)
	return est.Now, ok
}

func (l *ledger) name(id inventory.ID) string {
	if vm, ok := l.snap.VM(id); ok {
		return vm.Name
	}
	return id.String()
}

// ratio is a load over the host's capacity.
func (b *book) ratio(u Use) Load {
	return Load{u.CPUHertz / b.host.CPUHertz, u.MemoryBytes / b.host.MemoryBytes}
}

// sized reports whether the host's capacity is known.
func (b *book) sized() bool {
	return b.host.CPUHertz > 0 && b.host.MemoryBytes > 0 && amount(b.host.CPUHertz) && amount(b.host.MemoryBytes)
}

// staleness is why a host's load is not known as of now, empty if it is.
func staleness(s *inventory.Snapshot, h inventory.HostView) string {
	src, ok := s.Source(h.ID.Source)
	switch {
	case !ok || !src.Synced:
		return fmt.Sprintf("source %s has not listed its objects yet", h.ID.Source)
	case !src.Up:
		return fmt.Sprintf("source %s does not answer", h.ID.Source)
	}
	for _, m := range []inventory.Metric{inventory.HostCPUUsage, inventory.HostMemoryUsage} {
		v, ok := h.Samples.Value(m)
		if !ok || !amount(v) {
			return fmt.Sprintf("no recent %s", m)
		}
	}
	return ""
}

func (u Use) plus(v Use) Use { return Use{u.CPUHertz + v.CPUHertz, u.MemoryBytes + v.MemoryBytes} }

func (u Use) minus(v Use) Use {
	return Use{max(0, u.CPUHertz-v.CPUHertz), max(0, u.MemoryBytes-v.MemoryBytes)}
}
