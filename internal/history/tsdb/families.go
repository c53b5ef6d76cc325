package tsdb

import (
	"fmt"
	"slices"
	"strings"

	"github.com/protip/protip/internal/inventory"
)

// line writes one series of a family: its value and its labels beside the object's own, as name, value, name, value.
type line func(v float64, labels ...string)

// family is a metric of what is known of an object, as the exposition shows it; measured ones are the catalogue's.
type family[T any] struct {
	name string
	each func(obj *T, at place, line line)
}

// place is what an object's series show of other objects.
type place struct {
	host      string // names
	cluster   string
	clusterID string // its ref
	vm        string
	pool      string // a VM's resource pool
	vms       int    // on a host, without templates
}

// usual are the VM's measured families that are kept: VMs are many, so only what packs, reports and dashboards use. Of all
// other kinds everything that is measured is kept.
var usual = []inventory.Metric{
	inventory.VMCPUUsage, inventory.VMCPUContention, inventory.VMCPUCoStop,
	inventory.VMMemoryUsage, inventory.VMMemoryActive, inventory.VMMemoryBalloon, inventory.VMMemorySwapped, inventory.VMMemorySwapIn,
	inventory.VMDiskLatency, inventory.VMNetworkReceive, inventory.VMNetworkTransmit,
}

// usualFacts are the VM's facts that are kept. Reservations are written only where there are some, those of its owners
// only where the configuration names them.
var usualFacts = []string{
	"virt_vm_info", "virt_vm_connected", "virt_vm_powered_on", "virt_vm_template", "virt_vm_vcpus", "virt_vm_memory_capacity_bytes",
	"virt_vm_cpu_reservation_hertz", "virt_vm_memory_reservation_bytes", "virt_vm_annotation_info", "virt_vm_tag_info",
}

// Default are the families that are kept if nobody asks for more, in the order of the exposition.
func Default() []string {
	keep := map[string]bool{}
	for _, m := range usual {
		keep[m.String()] = true
	}
	for _, name := range usualFacts {
		keep[name] = true
	}
	return slices.DeleteFunc(Known(), func(name string) bool { return strings.HasPrefix(name, "virt_vm_") && !keep[name] })
}

// Known are all families that can be kept.
func Known() []string {
	out := []string{sourceUp, sourceSynced}
	out = append(out, namesOf(clusterFacts(), inventory.KindCluster)...)
	out = append(out, namesOf(hostFacts(), inventory.KindHost)...)
	out = append(out, namesOf(vmFacts(), inventory.KindVM)...)
	out = append(out, namesOf(datastoreFacts(), inventory.KindDatastore)...)
	out = append(out, namesOf(serviceFacts(), inventory.KindService)...)
	return append(out, namesOf(machineFacts(), inventory.KindMachine)...)
}

func namesOf[T any](facts []family[T], kind inventory.Kind) []string {
	var out []string
	for _, f := range facts {
		out = append(out, f.name)
	}
	for _, m := range inventory.MetricsOf(kind) {
		out = append(out, m.String())
	}
	return out
}

// CheckFamilies refuses names that are no family, as Open does.
func CheckFamilies(names []string) error {
	known := Known()
	for _, name := range names {
		if !slices.Contains(known, name) {
			return fmt.Errorf("history has no family %s", name)
		}
	}
	return nil
}

// The sources' own.
const (
	sourceUp     = "protip_source_up"
	sourceSynced = "protip_source_synced"
)

// fact is a family of one series at most, whose value is known or not.
func fact[T any](name string, value func(*T) (float64, bool)) family[T] {
	return family[T]{name, func(obj *T, _ place, line line) {
		if v, ok := value(obj); ok {
			line(v)
		}
	}}
}

func clusterFacts() []family[inventory.Cluster] {
	positive := func(v float64) (float64, bool) { return v, v > 0 }
	return []family[inventory.Cluster]{
		{"virt_cluster_info", func(c *inventory.Cluster, _ place, line line) {
			if c.Unread {
				line(1)
				return
			}
			line(1, "drs", fmt.Sprint(c.DRS.Enabled), "drs_automation", string(c.DRS.Automation), "ha", fmt.Sprint(c.HA.Enabled),
				"ha_policy", c.HA.Policy, "evc", c.EVC)
		}},
		fact("virt_cluster_ha_admission_control", func(c *inventory.Cluster) (float64, bool) { return truth(c.HA.AdmissionControl, !c.Unread) }),
		fact("virt_cluster_ha_host_failures", func(c *inventory.Cluster) (float64, bool) { return positive(float64(c.HA.HostFailures)) }),
		fact("virt_cluster_ha_reserved_cpu_ratio", func(c *inventory.Cluster) (float64, bool) { return positive(c.Admission.ReservedCPU) }),
		fact("virt_cluster_ha_reserved_memory_ratio", func(c *inventory.Cluster) (float64, bool) { return positive(c.Admission.ReservedMemory) }),
	}
}

func hostFacts() []family[inventory.Host] {
	return []family[inventory.Host]{
		{"virt_host_info", func(h *inventory.Host, at place, line line) {
			line(1, "virt_cluster", at.cluster, "cluster_id", h.Cluster.Ref, "uuid", h.UUID, "model", h.Model, "cpu_model", h.CPUModel, "version", h.Version,
				"evc", h.EVC, "max_evc", h.MaxEVC)
		}},
		fact("virt_host_connected", func(h *inventory.Host) (float64, bool) {
			return truth(h.Connection == inventory.Connected, h.Connection != "")
		}),
		fact("virt_host_powered_on", func(h *inventory.Host) (float64, bool) { return powered(h.Power) }),
		fact("virt_host_maintenance", func(h *inventory.Host) (float64, bool) { return truth(h.Maintenance, true) }),
		fact("virt_host_cpu_capacity_hertz", func(h *inventory.Host) (float64, bool) { return h.CPUHertz, h.CPUHertz > 0 }),
		fact("virt_host_cpu_cores", func(h *inventory.Host) (float64, bool) { return float64(h.Cores), h.Cores > 0 }),
		fact("virt_host_memory_capacity_bytes", func(h *inventory.Host) (float64, bool) { return h.MemoryBytes, h.MemoryBytes > 0 }),
		{"virt_host_vms", func(_ *inventory.Host, at place, line line) { line(float64(at.vms)) }},
	}
}

func vmFacts() []family[inventory.VM] {
	return []family[inventory.VM]{
		{"virt_vm_info", func(vm *inventory.VM, at place, line line) {
			line(1, "host", at.host, "host_id", vm.Host.Ref, "virt_cluster", at.cluster, "cluster_id", at.clusterID, "uuid", vm.UUID, "guest_os", vm.GuestOS,
				"resource_pool", at.pool, "resource_pool_id", vm.Pool.Ref)
		}},
		fact("virt_vm_powered_on", func(vm *inventory.VM) (float64, bool) { return powered(vm.Power) }),
		fact("virt_vm_connected", func(vm *inventory.VM) (float64, bool) {
			return truth(vm.Connection == inventory.Connected, vm.Connection != "")
		}),
		fact("virt_vm_template", func(vm *inventory.VM) (float64, bool) { return truth(vm.Template, true) }),
		fact("virt_vm_vcpus", func(vm *inventory.VM) (float64, bool) { return float64(vm.VCPUs), vm.VCPUs > 0 }),
		fact("virt_vm_memory_capacity_bytes", func(vm *inventory.VM) (float64, bool) { return vm.MemoryBytes, vm.MemoryBytes > 0 }),
		fact("virt_vm_cpu_reservation_hertz", func(vm *inventory.VM) (float64, bool) { return vm.CPUReservationHertz, vm.CPUReservationHertz > 0 }),
		fact("virt_vm_memory_reservation_bytes", func(vm *inventory.VM) (float64, bool) {
			return vm.MemoryReservationBytes, vm.MemoryReservationBytes > 0
		}),
		{"virt_vm_annotation_info", func(vm *inventory.VM, _ place, line line) {
			if len(vm.Annotations) == 0 {
				return
			}
			var ls []string
			for _, a := range vm.Annotations {
				ls = append(ls, a.Name, a.Value)
			}
			line(1, ls...)
		}},
		{"virt_vm_tag_info", func(vm *inventory.VM, _ place, line line) {
			for _, tag := range vm.Tags {
				line(1, "category", tag.Category, "tag", tag.Name)
			}
		}},
	}
}

func datastoreFacts() []family[inventory.Datastore] {
	return []family[inventory.Datastore]{
		{"virt_datastore_info", func(d *inventory.Datastore, _ place, line line) { line(1, "type", d.Type) }},
		fact("virt_datastore_accessible", func(d *inventory.Datastore) (float64, bool) { return truth(d.Accessible, true) }),
		fact("virt_datastore_maintenance", func(d *inventory.Datastore) (float64, bool) { return truth(d.Maintenance, true) }),
		fact("virt_datastore_capacity_bytes", func(d *inventory.Datastore) (float64, bool) { return d.CapacityBytes, d.CapacityBytes > 0 }),
	}
}

func serviceFacts() []family[inventory.Service] {
	return []family[inventory.Service]{
		{"virt_service_info", func(s *inventory.Service, at place, line line) {
			line(1, "type", s.Type, "vm", at.vm, "vm_id", s.VM.Ref, "vm_source", s.VM.Source)
		}},
		fact("virt_service_running", func(s *inventory.Service) (float64, bool) {
			return truth(s.State == inventory.ServiceRunning, s.State != "")
		}),
		fact("virt_service_failed", func(s *inventory.Service) (float64, bool) {
			return truth(s.State == inventory.ServiceFailed, s.State != "")
		}),
	}
}

func machineFacts() []family[inventory.Machine] {
	return []family[inventory.Machine]{
		{"virt_machine_info", func(m *inventory.Machine, at place, line line) {
			line(1, "model", m.Model, "os", m.OS, "uuid", m.UUID, "vm", at.vm, "vm_id", m.VM.Ref, "vm_source", m.VM.Source)
		}},
		fact("virt_machine_cpus", func(m *inventory.Machine) (float64, bool) { return float64(m.CPUs), m.CPUs > 0 }),
		fact("virt_machine_memory_capacity_bytes", func(m *inventory.Machine) (float64, bool) { return m.MemoryBytes, m.MemoryBytes > 0 }),
	}
}

// truth is a condition as 1 or 0, if it is known.
func truth(b, known bool) (v float64, ok bool) {
	if b {
		v = 1
	}
	return v, known
}

func powered(p inventory.Power) (float64, bool) {
	return truth(p == inventory.PowerOn, p != "" && p != inventory.PowerUnknown)
}
