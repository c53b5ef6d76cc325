package placement

import "github.com/protip/protip/internal/inventory"

// Sizes are what each VM could use at most where it runs, in hertz, as far as that is known. Followed compares VMs by their share of it.
func Sizes(s *inventory.Snapshot) map[inventory.ID]float64 {
	out := map[inventory.ID]float64{}
	for vm := range s.VMs() {
		if h, ok := s.Host(vm.Host); ok && vm.VCPUs > 0 && h.CoreHertz() > 0 {
			out[vm.ID] = float64(vm.VCPUs) * h.CoreHertz()
		}
	}
	return out
}

// CPUNeed is the CPU that a VM of a size would have used had nothing kept it from it: what it used, and what contention withheld.
// Turbo lets a VM use more than its nominal size: what was measured is never cut.
func CPUNeed(usage, contention, size float64) float64 {
	return max(usage, min(usage+contention*size, size))
}
