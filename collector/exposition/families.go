package exposition

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/protip/protip/internal/inventory"
)

// Family describes one metric of the fleet, as it is exposed.
type Family struct {
	Name string
	Type inventory.Type
	Help string
}

// change says what of an object a family shows, and so when its lines must be rendered again.
type change uint8

const (
	facts   change = 1 << iota // what is configured: the object's own record
	samples                    // what was measured
	place                      // what is known of its host, its cluster or its VMs
)

// row is what an object's lines are rendered from.
type row[T any] struct {
	object   *T
	samples  inventory.Samples
	where    where
	identity []byte // its labels: source="...",vm="...",vm_id="..."
}

// where is what an object's lines show of other objects.
type where struct {
	host    *inventory.Host
	cluster *inventory.Cluster
	vms     int        // on a host or in a pool, without templates
	hosts   *hostNames // of the source, for what names several
	vm      *inventory.VM
	pool    *inventory.ResourcePool // a VM's, or another pool's parent
}

// hostNames are a source's hosts' names; made anew when a host changes.
type hostNames map[inventory.ID]string

// family renders one metric of a kind of object: at most one line an object, unless each says otherwise.
type family[T any] struct {
	Family
	shows  change
	value  func(*row[T]) (v float64, ok bool)
	labels func([]byte, *row[T]) []byte // appends further labels; nil if there are none
	each   func(*row[T], line)          // instead of both: writes any number of lines
}

// line writes a line of a family, with further labels as name, value, name, value.
type line func(v float64, labels ...string)

// Families lists the fleet's metrics in order of exposition.
func Families() []Family {
	out := sourceFamilies()
	for _, f := range clusterFamilies() {
		out = append(out, f.Family)
	}
	for _, f := range poolFamilies() {
		out = append(out, f.Family)
	}
	for _, f := range hostFamilies() {
		out = append(out, f.Family)
	}
	for _, f := range vmFamilies() {
		out = append(out, f.Family)
	}
	for _, f := range datastoreFamilies() {
		out = append(out, f.Family)
	}
	for _, f := range serviceFamilies() {
		out = append(out, f.Family)
	}
	for _, f := range machineFamilies() {
		out = append(out, f.Family)
	}
	return out
}

func clusterFamilies() []family[inventory.Cluster] {
	fact := func(name, help string, value func(*inventory.Cluster) (float64, bool)) family[inventory.Cluster] {
		return family[inventory.Cluster]{
			Family: Family{name, inventory.Gauge, help}, shows: facts,
			value: func(r *row[inventory.Cluster]) (float64, bool) { return value(r.object) },
		}
	}
	// positive is a number that a policy gives; one that it does not give is zero, and not shown.
	positive := func(v float64) (float64, bool) { return v, v > 0 }
	return append([]family[inventory.Cluster]{
		info("virt_cluster_info", "A cluster, and what its own balancer and restart are set to.", facts,
			func(b []byte, r *row[inventory.Cluster]) []byte {
				c := r.object
				if c.Unread {
					return b // what is not known has no label
				}
				b = label(b, "drs", strconv.FormatBool(c.DRS.Enabled))
				b = label(b, "drs_automation", string(c.DRS.Automation))
				b = label(b, "ha", strconv.FormatBool(c.HA.Enabled))
				b = label(b, "ha_policy", c.HA.Policy)
				return label(b, "evc", c.EVC)
			}),
		fact("virt_cluster_drs_overrides", "VMs that the cluster's own balancer treats otherwise than the others.",
			func(c *inventory.Cluster) (float64, bool) { return float64(len(c.Overrides)), !c.Unread }),
		{
			Family: Family{"virt_cluster_rules", inventory.Gauge, "Enabled rules on where VMs run, by what they tie or keep apart."},
			shows:  facts, each: countRules,
		},
		fact("virt_cluster_ha_admission_control", "Whether VMs are refused that could not all be restarted after a failure (1) or not (0).",
			func(c *inventory.Cluster) (float64, bool) { return truth(c.HA.AdmissionControl, !c.Unread) }),
		fact("virt_cluster_ha_host_failures", "Hosts whose failure the cluster is set to tolerate.",
			func(c *inventory.Cluster) (float64, bool) { return positive(float64(c.HA.HostFailures)) }),
		fact("virt_cluster_ha_reserved_cpu_ratio", "CPU kept free for restarts, over the cluster's.",
			func(c *inventory.Cluster) (float64, bool) { return positive(c.Admission.ReservedCPU) }),
		fact("virt_cluster_ha_reserved_memory_ratio", "Memory kept free for restarts, over the cluster's.",
			func(c *inventory.Cluster) (float64, bool) { return positive(c.Admission.ReservedMemory) }),
		fact("virt_cluster_ha_slot_cpu_hertz", "CPU of a slot, where its size was set by hand.",
			func(c *inventory.Cluster) (float64, bool) { return positive(c.Admission.SlotCPUHertz) }),
		fact("virt_cluster_ha_slot_memory_bytes", "Memory of a slot, where its size was set by hand.",
			func(c *inventory.Cluster) (float64, bool) { return positive(c.Admission.SlotMemoryBytes) }),
		fact("virt_cluster_ha_dedicated_hosts", "Hosts that are kept free for restarts.",
			func(c *inventory.Cluster) (float64, bool) { return positive(float64(len(c.Admission.Hosts))) }),
		fact("virt_cluster_ha_restart_overrides", "VMs that are restarted sooner or later than the others, or not at all.",
			func(c *inventory.Cluster) (float64, bool) { return float64(len(c.RestartPriorities)), !c.Unread }),
	}, measured[inventory.Cluster](inventory.KindCluster)...)
}

// countRules writes a line for each kind of rule.
func countRules(r *row[inventory.Cluster], line line) {
	if r.object.Unread {
		return
	}
	count := map[string]float64{}
	for i := range r.object.Rules {
		if rule := &r.object.Rules[i]; rule.Enabled {
			count[string(rule.Kind)]++
		}
	}
	for i := range r.object.HostRules {
		if rule := &r.object.HostRules[i]; rule.Enabled {
			count["host_"+string(rule.Kind)]++
		}
	}
	for _, kind := range []string{"affinity", "anti_affinity", "host_affinity", "host_anti_affinity"} {
		line(count[kind], "kind", kind)
	}
}

func poolFamilies() []family[inventory.ResourcePool] {
	fact := func(name, help string, value func(*inventory.ResourcePool) (float64, bool)) family[inventory.ResourcePool] {
		return family[inventory.ResourcePool]{
			Family: Family{name, inventory.Gauge, help}, shows: facts,
			value: func(r *row[inventory.ResourcePool]) (float64, bool) { return value(r.object) },
		}
	}
	allocation := func(prefix, unit, what string, of func(*inventory.ResourcePool) *inventory.Allocation) []family[inventory.ResourcePool] {
		return []family[inventory.ResourcePool]{
			fact(prefix+"_reservation_"+unit, "Reservation of "+what+": what the resource pool has whatever others want.",
				func(p *inventory.ResourcePool) (float64, bool) { a := of(p); return a.Reservation, a.Known }),
			fact(prefix+"_reservation_expandable", "Whether the resource pool may reserve more "+what+" of what its parent has left (1) or not (0).",
				func(p *inventory.ResourcePool) (float64, bool) { a := of(p); return truth(a.Expandable, a.Known) }),
			fact(prefix+"_limit_"+unit, "Limit of "+what+": the most that the resource pool gets.",
				func(p *inventory.ResourcePool) (float64, bool) { a := of(p); return a.Limit, a.Known && a.Limited }),
			fact(prefix+"_shares", "Shares of "+what+": the resource pool's weight beside its siblings when there is not enough.",
				func(p *inventory.ResourcePool) (float64, bool) { a := of(p); return a.Shares, a.Known }),
		}
	}
	return slices.Concat(
		[]family[inventory.ResourcePool]{info("virt_resource_pool_info", "A resource pool, the one it is part of and its cluster.", facts|place,
			func(b []byte, r *row[inventory.ResourcePool]) []byte {
				b = label(b, "parent", poolName(r.where.pool))
				b = label(b, "parent_id", r.object.Parent.Ref)
				b = label(b, "virt_cluster", clusterName(r.where.cluster))
				return label(b, "cluster_id", r.object.Cluster.Ref)
			})},
		allocation("virt_resource_pool_cpu", "hertz", "CPU", func(p *inventory.ResourcePool) *inventory.Allocation { return &p.CPU }),
		allocation("virt_resource_pool_memory", "bytes", "memory", func(p *inventory.ResourcePool) *inventory.Allocation { return &p.Memory }),
		[]family[inventory.ResourcePool]{{
			Family: Family{"virt_resource_pool_vms", inventory.Gauge, "VMs in the resource pool itself, running or not; those of pools within it and templates not counted."},
			shows:  place,
			value:  func(r *row[inventory.ResourcePool]) (float64, bool) { return float64(r.where.vms), true },
		}},
	)
}

func hostFamilies() []family[inventory.Host] {
	fact := func(name, help string, value func(*inventory.Host) (float64, bool)) family[inventory.Host] {
		return family[inventory.Host]{
			Family: Family{name, inventory.Gauge, help}, shows: facts,
			value: func(r *row[inventory.Host]) (float64, bool) { return value(r.object) },
		}
	}
	return append([]family[inventory.Host]{
		info("virt_host_info", "A hypervisor host, what it is and the cluster it belongs to.", facts|place,
			func(b []byte, r *row[inventory.Host]) []byte {
				b = label(b, "virt_cluster", clusterName(r.where.cluster))
				b = label(b, "cluster_id", r.object.Cluster.Ref)
				b = label(b, "uuid", r.object.UUID)
				b = label(b, "model", r.object.Model)
				b = label(b, "cpu_model", r.object.CPUModel)
				b = label(b, "version", r.object.Version)
				b = label(b, "evc", r.object.EVC)
				return label(b, "max_evc", r.object.MaxEVC)
			}),
		fact("virt_host_connected", "Whether the management server reaches the host (1) or not (0).",
			func(h *inventory.Host) (float64, bool) {
				return truth(h.Connection == inventory.Connected, h.Connection != "")
			}),
		fact("virt_host_powered_on", "Whether the host is powered on (1) or not (0).",
			func(h *inventory.Host) (float64, bool) { return truth(h.Power == inventory.PowerOn, known(h.Power)) }),
		fact("virt_host_maintenance", "Whether the host is in maintenance mode (1) or not (0).",
			func(h *inventory.Host) (float64, bool) { return truth(h.Maintenance, true) }),
		fact("virt_host_cpu_capacity_hertz", "CPU of the host, all cores together.",
			func(h *inventory.Host) (float64, bool) { return h.CPUHertz, h.CPUHertz > 0 }),
		fact("virt_host_cpu_cores", "CPU cores of the host.",
			func(h *inventory.Host) (float64, bool) { return float64(h.Cores), h.Cores > 0 }),
		fact("virt_host_memory_capacity_bytes", "Memory of the host.",
			func(h *inventory.Host) (float64, bool) { return h.MemoryBytes, h.MemoryBytes > 0 }),
		{
			Family: Family{"virt_host_vms", inventory.Gauge, "VMs on the host, running or not, templates not counted."},
			shows:  place,
			value:  func(r *row[inventory.Host]) (float64, bool) { return float64(r.where.vms), true },
		},
	}, measured[inventory.Host](inventory.KindHost)...)
}

func vmFamilies() []family[inventory.VM] {
	fact := func(name, help string, value func(*inventory.VM) (float64, bool)) family[inventory.VM] {
		return family[inventory.VM]{
			Family: Family{name, inventory.Gauge, help}, shows: facts,
			value: func(r *row[inventory.VM]) (float64, bool) { return value(r.object) },
		}
	}
	return append([]family[inventory.VM]{
		info("virt_vm_info", "A VM, what it is and where it runs: the one series that changes when it moves.", facts|place,
			func(b []byte, r *row[inventory.VM]) []byte {
				host := ""
				if r.where.host != nil {
					host = r.where.host.Name
				}
				b = label(b, "host", host)
				b = label(b, "host_id", r.object.Host.Ref)
				b = label(b, "virt_cluster", clusterName(r.where.cluster))
				b = label(b, "cluster_id", clusterRef(r.where.cluster))
				b = label(b, "uuid", r.object.UUID)
				b = label(b, "guest_os", r.object.GuestOS)
				if r.object.Pool.IsZero() {
					return b
				}
				b = label(b, "resource_pool", poolName(r.where.pool))
				return label(b, "resource_pool_id", r.object.Pool.Ref)
			}),
		fact("virt_vm_powered_on", "Whether the VM is powered on (1) or not (0).",
			func(vm *inventory.VM) (float64, bool) { return truth(vm.Power == inventory.PowerOn, known(vm.Power)) }),
		fact("virt_vm_connected", "Whether the management server has the VM under control (1) or not (0): 0 if disconnected, orphaned or inaccessible.",
			func(vm *inventory.VM) (float64, bool) {
				return truth(vm.Connection == inventory.Connected, vm.Connection != "")
			}),
		fact("virt_vm_template", "Whether the VM is a template (1) or not (0).",
			func(vm *inventory.VM) (float64, bool) { return truth(vm.Template, true) }),
		fact("virt_vm_vcpus", "vCPUs of the VM.",
			func(vm *inventory.VM) (float64, bool) { return float64(vm.VCPUs), vm.VCPUs > 0 }),
		fact("virt_vm_memory_capacity_bytes", "Memory configured for the VM.",
			func(vm *inventory.VM) (float64, bool) { return vm.MemoryBytes, vm.MemoryBytes > 0 }),
		fact("virt_vm_cpu_reservation_hertz", "CPU kept for the VM whatever the others want.",
			func(vm *inventory.VM) (float64, bool) { return vm.CPUReservationHertz, vm.CPUReservationHertz > 0 }),
		fact("virt_vm_memory_reservation_bytes", "Memory kept for the VM whatever the others want.",
			func(vm *inventory.VM) (float64, bool) {
				return vm.MemoryReservationBytes, vm.MemoryReservationBytes > 0
			}),
		fact("virt_vm_highly_available", "Whether the platform restarts the VM elsewhere when its host fails (1) or not (0).",
			func(vm *inventory.VM) (float64, bool) {
				return truth(vm.Availability == inventory.HighlyAvailable, vm.Availability != "")
			}),
		{
			Family: Family{"virt_vm_annotation_info", inventory.Gauge, "What a VM's owners wrote down of it, as labels that the configuration names."},
			shows:  facts,
			value:  func(r *row[inventory.VM]) (float64, bool) { return 1, len(r.object.Annotations) > 0 },
			labels: func(b []byte, r *row[inventory.VM]) []byte {
				for _, a := range r.object.Annotations {
					b = label(b, a.Name, a.Value)
				}
				return b
			},
		},
		{
			Family: Family{"virt_vm_tag_info", inventory.Gauge, "A tag of the VM, of the categories that the configuration names."},
			shows:  facts,
			each: func(r *row[inventory.VM], line line) {
				for _, tag := range r.object.Tags {
					line(1, "category", tag.Category, "tag", tag.Name)
				}
			},
		},
	}, measured[inventory.VM](inventory.KindVM)...)
}

func datastoreFamilies() []family[inventory.Datastore] {
	fact := func(name, help string, value func(*inventory.Datastore) (float64, bool)) family[inventory.Datastore] {
		return family[inventory.Datastore]{
			Family: Family{name, inventory.Gauge, help}, shows: facts,
			value: func(r *row[inventory.Datastore]) (float64, bool) { return value(r.object) },
		}
	}
	return append([]family[inventory.Datastore]{
		info("virt_datastore_info", "A datastore and its type.", facts,
			func(b []byte, r *row[inventory.Datastore]) []byte { return label(b, "type", r.object.Type) }),
		fact("virt_datastore_accessible", "Whether any host reaches the datastore (1) or not (0).",
			func(d *inventory.Datastore) (float64, bool) { return truth(d.Accessible, true) }),
		fact("virt_datastore_maintenance", "Whether the datastore is in maintenance mode, or entering it (1), or not (0).",
			func(d *inventory.Datastore) (float64, bool) { return truth(d.Maintenance, true) }),
		fact("virt_datastore_capacity_bytes", "Size of the datastore.",
			func(d *inventory.Datastore) (float64, bool) { return d.CapacityBytes, d.CapacityBytes > 0 }),
		fact("virt_datastore_hosts", "Hosts that have the datastore mounted.",
			func(d *inventory.Datastore) (float64, bool) { return float64(len(d.Mounts)), d.Mounts != nil }),
		fact("virt_datastore_hosts_accessible", "Hosts that have the datastore mounted and reach it.",
			func(d *inventory.Datastore) (float64, bool) {
				n := 0
				for _, m := range d.Mounts {
					if m.Accessible {
						n++
					}
				}
				return float64(n), d.Mounts != nil
			}),
		{
			Family: Family{"virt_datastore_host_inaccessible_info", inventory.Gauge, "A host that has the datastore mounted and does not reach it."},
			shows:  facts | place,
			each:   listUnreached,
		},
	}, measured[inventory.Datastore](inventory.KindDatastore)...)
}

// listUnreached writes a line for each host that has the datastore and does not reach it. Lines of all that do would be as
// many as hosts times datastores.
func listUnreached(r *row[inventory.Datastore], line line) {
	var hosts []inventory.ID
	for host, m := range r.object.Mounts {
		if !m.Accessible {
			hosts = append(hosts, host)
		}
	}
	slices.SortFunc(hosts, func(a, b inventory.ID) int { return cmp.Compare(a.Ref, b.Ref) })
	for _, host := range hosts {
		name := ""
		if r.where.hosts != nil {
			name = (*r.where.hosts)[host]
		}
		line(1, "host", name, "host_id", host.Ref)
	}
}

func machineFamilies() []family[inventory.Machine] {
	fact := func(name, help string, value func(*inventory.Machine) (float64, bool)) family[inventory.Machine] {
		return family[inventory.Machine]{
			Family: Family{name, inventory.Gauge, help}, shows: facts,
			value: func(r *row[inventory.Machine]) (float64, bool) { return value(r.object) },
		}
	}
	return append([]family[inventory.Machine]{
		info("virt_machine_info", "A physical machine that could become a VM, what it is, and the VM that it is in truth, if one is known.", facts|place,
			func(b []byte, r *row[inventory.Machine]) []byte {
				b = label(b, "model", r.object.Model)
				b = label(b, "os", r.object.OS)
				b = label(b, "uuid", r.object.UUID)
				name := ""
				if r.where.vm != nil {
					name = r.where.vm.Name
				}
				b = label(b, "vm", name)
				b = label(b, "vm_id", r.object.VM.Ref)
				return label(b, "vm_source", r.object.VM.Source)
			}),
		fact("virt_machine_cpus", "Logical CPUs of the machine.",
			func(m *inventory.Machine) (float64, bool) { return float64(m.CPUs), m.CPUs > 0 }),
		fact("virt_machine_memory_capacity_bytes", "Memory of the machine.",
			func(m *inventory.Machine) (float64, bool) { return m.MemoryBytes, m.MemoryBytes > 0 }),
	}, measured[inventory.Machine](inventory.KindMachine)...)
}

func serviceFamilies() []family[inventory.Service] {
	return append([]family[inventory.Service]{
		info("virt_service_info", "What runs in a guest or answers from it, and whose guest that is.", facts|place,
			func(b []byte, r *row[inventory.Service]) []byte {
				b = label(b, "type", r.object.Type)
				name := ""
				if r.where.vm != nil {
					name = r.where.vm.Name
				}
				b = label(b, "vm", name)
				b = label(b, "vm_id", r.object.VM.Ref)
				return label(b, "vm_source", r.object.VM.Source)
			}),
		{
			Family: Family{"virt_service_running", inventory.Gauge, "Whether the service runs, and answers as far as that is looked at (1), or not (0)."},
			shows:  facts,
			value: func(r *row[inventory.Service]) (float64, bool) {
				return truth(r.object.State == inventory.ServiceRunning, r.object.State != "")
			},
		},
		{
			Family: Family{"virt_service_failed", inventory.Gauge, "Whether the service should run and does not, or does not answer (1), or not (0)."},
			shows:  facts,
			value: func(r *row[inventory.Service]) (float64, bool) {
				return truth(r.object.State == inventory.ServiceFailed, r.object.State != "")
			},
		},
	}, measured[inventory.Service](inventory.KindService)...)
}

// measured are the families of a kind's samples: those that are still true, and only them.
func measured[T any](k inventory.Kind) []family[T] {
	var out []family[T]
	for i, m := range inventory.MetricsOf(k) {
		d := m.Desc()
		out = append(out, family[T]{
			Family: Family{d.Name, d.Type, d.Help}, shows: samples,
			value: func(r *row[T]) (float64, bool) {
				if i >= len(r.samples) { // which are in this order
					return 0, false
				}
				s := &r.samples[i]
				return s.Value, s.OK()
			},
		})
	}
	return out
}

// info is a family whose value is always 1 and whose labels say it all. It is a gauge in every format: OpenMetrics' own info
// type would be lost in Prometheus' storage anyway.
func info[T any](name, help string, shows change, labels func([]byte, *row[T]) []byte) family[T] {
	return family[T]{
		Family: Family{name, inventory.Gauge, help}, shows: shows, labels: labels,
		value: func(*row[T]) (float64, bool) { return 1, true },
	}
}

func clusterName(c *inventory.Cluster) string {
	if c == nil {
		return ""
	}
	return c.Name
}

func poolName(p *inventory.ResourcePool) string {
	if p == nil {
		return ""
	}
	return p.Name
}

func clusterRef(c *inventory.Cluster) string {
	if c == nil {
		return ""
	}
	return c.ID.Ref
}

// truth is a condition as 1 or 0, if it is known.
func truth(b, known bool) (v float64, ok bool) {
	if b {
		v = 1
	}
	return v, known
}

func known(p inventory.Power) bool { return p != "" && p != inventory.PowerUnknown }

// The identity labels of each kind. They are few and stable: no series but the info ones changes when a VM moves.

func clusterIdentity(b []byte, source string, c *inventory.Cluster) []byte {
	return identity(b, source, "virt_cluster", c.Name, "cluster_id", c.ID.Ref)
}

func poolIdentity(b []byte, source string, p *inventory.ResourcePool) []byte {
	return identity(b, source, "resource_pool", p.Name, "resource_pool_id", p.ID.Ref)
}

func hostIdentity(b []byte, source string, h *inventory.Host) []byte {
	return identity(b, source, "host", h.Name, "host_id", h.ID.Ref)
}

func vmIdentity(b []byte, source string, vm *inventory.VM) []byte {
	return identity(b, source, "vm", vm.Name, "vm_id", vm.ID.Ref)
}

func datastoreIdentity(b []byte, source string, d *inventory.Datastore) []byte {
	return identity(b, source, "datastore", d.Name, "datastore_id", d.ID.Ref)
}

func serviceIdentity(b []byte, source string, s *inventory.Service) []byte {
	return identity(b, source, "service", s.Name, "service_id", s.ID.Ref)
}

func machineIdentity(b []byte, source string, m *inventory.Machine) []byte {
	return identity(b, source, "machine", m.Name, "machine_id", m.ID.Ref)
}

func identity(b []byte, source, nameLabel, name, refLabel, ref string) []byte {
	b = append(b, `source="`...)
	b = appendEscaped(b, source)
	b = append(b, '"')
	b = label(b, nameLabel, name)
	return label(b, refLabel, ref)
}
