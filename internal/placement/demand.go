package placement

import (
	"math"

	"github.com/protip/protip/internal/inventory"
)

// Observed is the demand that the snapshot's own last samples show of each running VM: what it used, plus what contention
// withheld from it, so that a starved VM does not look small.
//
//	CPU    = min(usage + contention x vCPUs x core hertz, vCPUs x core hertz)
//	memory = min(usage + balloon + swapped, configured)
//
// Memory is what backs the VM on its host (consumed), not what it touched lately (active): a live migration carries all of it,
// and the target has to hold it. CPU usage, contention and memory usage must be known, else the VM is absent. Balloon and
// swapped count where the platform tells them; one that does not has no other place for memory than usage. Expire the
// snapshot's samples first.
func Observed(s *inventory.Snapshot) Demand {
	d := Demand{VMs: map[inventory.ID]Use{}}
	for vm := range s.VMs() {
		if use, ok := ObservedOf(s, vm); ok {
			d.VMs[vm.ID] = use
		}
	}
	return d
}

// ObservedOf is what Observed says of one VM, and whether that is known.
func ObservedOf(s *inventory.Snapshot, vm inventory.VMView) (Use, bool) {
	host, known := s.Host(vm.Host)
	usage, ok1 := vm.Samples.Value(inventory.VMCPUUsage)
	contention, ok2 := vm.Samples.Value(inventory.VMCPUContention)
	memory, ok3 := vm.Samples.Value(inventory.VMMemoryUsage)
	if !known || !ok1 || !ok2 || !ok3 || !runs(vm.VM) {
		return Use{}, false
	}
	size := float64(vm.VCPUs) * host.CoreHertz()
	if !(size > 0) || !(vm.MemoryBytes > 0) {
		return Use{}, false
	}
	balloon, _ := vm.Samples.Value(inventory.VMMemoryBalloon)
	swapped, _ := vm.Samples.Value(inventory.VMMemorySwapped)
	use := Use{
		CPUHertz:    CPUNeed(usage, contention, size),
		MemoryBytes: max(memory, min(memory+balloon+swapped, vm.MemoryBytes)),
	}
	return use, use.valid()
}

// valid refuses what no platform can mean.
func (u Use) valid() bool { return amount(u.CPUHertz) && amount(u.MemoryBytes) }

func amount(v float64) bool { return v >= 0 && !math.IsInf(v, 0) }

func runs(vm *inventory.VM) bool { return vm.Power == inventory.PowerOn && !vm.Template }
