package placement

import (
	"fmt"
	"slices"

	"github.com/protip/protip/internal/inventory"
)

// Second is what the platform's own admission control says of a cluster, by its own rule.
type Second struct {
	Rule  string `json:"rule"`            // host_failures | percentage | dedicated_hosts | none
	Hosts int    `json:"hosts"`           // whose failure it tolerates, 0 if its rule does not say
	Holds *bool  `json:"holds,omitempty"` // whether it would still admit VMs; nil if that cannot be said
	Text  string `json:"text"`
}

// defaultSlot is the CPU that vSphere counts of a VM without a reservation; of memory it counts the overhead, which is not known here.
const defaultSlot = 32e6

// SecondOpinion works out what vSphere HA admission control makes of the cluster. It counts reservations and no use: that, and slots
// of the largest reservation, are why it differs from Answer.
func SecondOpinion(s *inventory.Snapshot, cluster inventory.ID) Second {
	c, ok := s.Cluster(cluster)
	switch {
	case !ok || c.Unread:
		return Second{Rule: "none", Text: "the platform's settings are not known"}
	case !c.HA.Enabled:
		return Second{Rule: "none", Text: "the platform restarts nothing: high availability is off"}
	case !c.HA.AdmissionControl:
		return Second{Rule: "none", Text: "the platform keeps nothing free: its admission control is off"}
	}
	out := Second{Rule: c.HA.Policy, Hosts: c.HA.HostFailures}
	t := tallyOf(s, c)
	if !(t.capacity.CPUHertz > 0 && t.capacity.MemoryBytes > 0) {
		out.Text = "no host of the cluster can be counted"
		return out
	}
	say := func(holds bool, text string) Second {
		out.Holds, out.Text = &holds, text
		return out
	}
	switch c.HA.Policy {
	case "percentage":
		cpu, memory := 1-t.reserved.CPUHertz/t.capacity.CPUHertz, 1-t.reserved.MemoryBytes/t.capacity.MemoryBytes
		return say(cpu >= c.Admission.ReservedCPU && memory >= c.Admission.ReservedMemory,
			fmt.Sprintf("%s of CPU and %s of memory are not reserved by VMs, and %s and %s are kept free",
				percent(cpu), percent(memory), percent(c.Admission.ReservedCPU), percent(c.Admission.ReservedMemory)))
	case "host_failures":
		slot := Use{max(t.largest.CPUHertz, defaultSlot), t.largest.MemoryBytes}
		if c.Admission.SlotCPUHertz > 0 {
			slot.CPUHertz = c.Admission.SlotCPUHertz
		}
		if c.Admission.SlotMemoryBytes > 0 {
			slot.MemoryBytes = c.Admission.SlotMemoryBytes
		}
		slots := t.slots(slot, c.HA.HostFailures)
		return say(slots >= t.vms, fmt.Sprintf("%d slots of %s are left when %s %s, for %d VMs",
			slots, Size{int64(slot.CPUHertz), int64(slot.MemoryBytes)}, reserveOf(c.HA.HostFailures), fails(c.HA.HostFailures), t.vms))
	case "dedicated_hosts":
		busy := ""
		for _, id := range c.Admission.Hosts {
			if slices.ContainsFunc(s.VMsOn(id), func(vm inventory.VMView) bool { return runs(vm.VM) }) {
				busy = nameOf(s, id)
			}
		}
		if busy != "" {
			return say(false, fmt.Sprintf("VMs run on %s, which is kept for failures", busy))
		}
		return say(true, fmt.Sprintf("%d hosts are kept for failures and run nothing", len(c.Admission.Hosts)))
	}
	out.Text = "the platform's rule is not known"
	return out
}

// tally is a cluster as admission control counts it.
type tally struct {
	hosts             []Use
	capacity          Use
	reserved, largest Use
	vms               int
}

func tallyOf(s *inventory.Snapshot, c *inventory.Cluster) (t tally) {
	for _, h := range s.HostsOf(c.ID) {
		if h.Maintenance || h.Connection != inventory.Connected || h.Power != inventory.PowerOn {
			continue
		}
		t.hosts = append(t.hosts, Use{h.CPUHertz, h.MemoryBytes})
		t.capacity = t.capacity.plus(Use{h.CPUHertz, h.MemoryBytes})
		for _, vm := range s.VMsOn(h.ID) {
			if !runs(vm.VM) {
				continue
			}
			r := Use{vm.CPUReservationHertz, vm.MemoryReservationBytes}
			t.vms++
			t.reserved = t.reserved.plus(Use{max(r.CPUHertz, defaultSlot), r.MemoryBytes})
			t.largest = Use{max(t.largest.CPUHertz, r.CPUHertz), max(t.largest.MemoryBytes, r.MemoryBytes)}
		}
	}
	return t
}

// slots are those left when the hosts with the most have failed.
func (t tally) slots(slot Use, failures int) int {
	var each []int
	for _, h := range t.hosts {
		n := h.CPUHertz / slot.CPUHertz
		if slot.MemoryBytes > 0 {
			n = min(n, h.MemoryBytes/slot.MemoryBytes)
		}
		each = append(each, int(n))
	}
	slices.Sort(each)
	sum := 0
	for _, n := range each[:max(0, len(each)-failures)] {
		sum += n
	}
	return sum
}

func nameOf(s *inventory.Snapshot, host inventory.ID) string {
	if h, ok := s.Host(host); ok {
		return h.Name
	}
	return host.String()
}

// Differs says why the platform and the answer do not agree; empty if they do, or if one of them says nothing.
func (o Second) Differs(a *Admission) string {
	if o.Holds == nil || a.Answer == Unknown || *o.Holds == (a.Answer == Admitted) {
		return ""
	}
	why := "the platform counts what VMs have reserved, and not what they need"
	if o.Hosts != a.Reserve && o.Hosts > 0 {
		why += fmt.Sprintf("; it speaks of %s, this of %s", reserveOf(o.Hosts), reserveOf(a.Reserve))
	}
	if *o.Holds {
		return why + "; it does not ask on which host each VM would fit"
	}
	if o.Rule == "host_failures" {
		return why + "; its slots are as large as the largest reservation, whoever needs one"
	}
	return why + "; its share is kept free whatever VMs would be restarted"
}
