package inventory

import (
	"iter"
	"maps"
	"slices"
	"time"
)

// Source is the state of one source of the fleet.
type Source struct {
	Name        string        `json:"name"`
	Platform    string        `json:"platform"` // vsphere, hyperv, libvirt, ...
	Interval    time.Duration `json:"interval"` // between samples
	Synced      bool          `json:"synced"`   // it has listed everything at least once
	Up          bool          `json:"up"`
	Error       string        `json:"error,omitempty"`
	LastSuccess time.Time     `json:"last_success,omitzero"`
	MaxSeries   int           `json:"-"` // that may be exposed of it; 0 is no limit
}

// Snapshot is the fleet at one moment. It never changes; all of its methods may be called from any goroutine, and what
// they return must not be written to.
type Snapshot struct {
	views map[string]*view
}

// view is one source's part of a snapshot. Tables and columns are shared between snapshots until they change.
type view struct {
	source     Source
	clusters   column[Cluster]
	hosts      column[Host]
	vms        column[VM]
	datastores column[Datastore]
	services   column[Service]
	pools      column[ResourcePool]
	machines   column[Machine]
	networks   column[Network]
}

// Table is the raw form of a kind's objects, for readers that keep something per object: Facts[i] and Samples[i] belong
// together, i is the object's slot for its whole life, and a nil in Facts is an empty slot. An object whose pointer in
// Facts and whose first element in Samples are the same as in an earlier snapshot has not changed since.
type Table[T any] struct {
	Facts   []*T
	Samples []Samples
}

// VMView is a VM and its last samples.
type VMView struct {
	*VM
	Samples Samples
}

// HostView is a host and its last samples.
type HostView struct {
	*Host
	Samples Samples
}

// ServiceView is a service and its last samples.
type ServiceView struct {
	*Service
	Samples Samples
}

// DatastoreView is a datastore and its last samples.
type DatastoreView struct {
	*Datastore
	Samples Samples
}

func newView(src Source) *view {
	return &view{
		source: src, clusters: newColumn[Cluster](), hosts: newColumn[Host](), vms: newColumn[VM](),
		datastores: newColumn[Datastore](), services: newColumn[Service](), pools: newColumn[ResourcePool](), machines: newColumn[Machine](),
		networks: newColumn[Network](),
	}
}

// Sources are the fleet's sources by name.
func (s *Snapshot) Sources() []Source {
	out := make([]Source, 0, len(s.views))
	for _, name := range s.names() {
		out = append(out, s.views[name].source)
	}
	return out
}

// Source is the state of the named source.
func (s *Snapshot) Source(name string) (Source, bool) {
	v, ok := s.views[name]
	if !ok {
		return Source{}, false
	}
	return v.source, true
}

// Cluster is the cluster of that ID.
func (s *Snapshot) Cluster(id ID) (*Cluster, bool) {
	v, ok := s.views[id.Source]
	if !ok || id.Kind != KindCluster {
		return nil, false
	}
	slot, ok := v.clusters.index[id.Ref]
	if !ok {
		return nil, false
	}
	return v.clusters.facts[slot], true
}

// ClusterSamples are a cluster's last samples, nil if there are none.
func (s *Snapshot) ClusterSamples(id ID) Samples {
	v, ok := s.views[id.Source]
	if !ok || id.Kind != KindCluster {
		return nil
	}
	slot, ok := v.clusters.index[id.Ref]
	if !ok {
		return nil
	}
	return v.clusters.samples[slot]
}

// Host is the host of that ID.
func (s *Snapshot) Host(id ID) (HostView, bool) {
	v, ok := s.views[id.Source]
	if !ok || id.Kind != KindHost {
		return HostView{}, false
	}
	slot, ok := v.hosts.index[id.Ref]
	if !ok {
		return HostView{}, false
	}
	return HostView{v.hosts.facts[slot], v.hosts.samples[slot]}, true
}

// VM is the VM of that ID.
func (s *Snapshot) VM(id ID) (VMView, bool) {
	v, ok := s.views[id.Source]
	if !ok || id.Kind != KindVM {
		return VMView{}, false
	}
	slot, ok := v.vms.index[id.Ref]
	if !ok {
		return VMView{}, false
	}
	return VMView{v.vms.facts[slot], v.vms.samples[slot]}, true
}

// Datastore is the datastore of that ID.
func (s *Snapshot) Datastore(id ID) (DatastoreView, bool) {
	v, ok := s.views[id.Source]
	if !ok || id.Kind != KindDatastore {
		return DatastoreView{}, false
	}
	slot, ok := v.datastores.index[id.Ref]
	if !ok {
		return DatastoreView{}, false
	}
	return DatastoreView{v.datastores.facts[slot], v.datastores.samples[slot]}, true
}

// Service is the service of that ID.
func (s *Snapshot) Service(id ID) (ServiceView, bool) {
	v, ok := s.views[id.Source]
	if !ok || id.Kind != KindService {
		return ServiceView{}, false
	}
	slot, ok := v.services.index[id.Ref]
	if !ok {
		return ServiceView{}, false
	}
	return ServiceView{v.services.facts[slot], v.services.samples[slot]}, true
}

// ResourcePool is the resource pool of that ID. Nothing is measured of one.
func (s *Snapshot) ResourcePool(id ID) (*ResourcePool, bool) {
	v, ok := s.views[id.Source]
	if !ok || id.Kind != KindResourcePool {
		return nil, false
	}
	slot, ok := v.pools.index[id.Ref]
	if !ok {
		return nil, false
	}
	return v.pools.facts[slot], true
}

// Network is the network of that ID. Nothing is measured of one.
func (s *Snapshot) Network(id ID) (*Network, bool) {
	v, ok := s.views[id.Source]
	if !ok || id.Kind != KindNetwork {
		return nil, false
	}
	slot, ok := v.networks.index[id.Ref]
	if !ok {
		return nil, false
	}
	return v.networks.facts[slot], true
}

// ClusterOf is the cluster a VM's host belongs to, false if it has none or the host is not known.
func (s *Snapshot) ClusterOf(vm *VM) (*Cluster, bool) {
	h, ok := s.Host(vm.Host)
	if !ok {
		return nil, false
	}
	return s.Cluster(h.Cluster)
}

// Clusters yields all clusters, source by source by name.
func (s *Snapshot) Clusters() iter.Seq[*Cluster] {
	return func(yield func(*Cluster) bool) {
		for _, name := range s.names() {
			for _, c := range s.views[name].clusters.facts {
				if c != nil && !yield(c) {
					return
				}
			}
		}
	}
}

// Hosts yields all hosts, source by source by name.
func (s *Snapshot) Hosts() iter.Seq[HostView] {
	return func(yield func(HostView) bool) {
		for _, name := range s.names() {
			v := s.views[name]
			for slot, h := range v.hosts.facts {
				if h != nil && !yield(HostView{h, v.hosts.samples[slot]}) {
					return
				}
			}
		}
	}
}

// VMs yields all VMs, source by source by name.
func (s *Snapshot) VMs() iter.Seq[VMView] {
	return func(yield func(VMView) bool) {
		for _, name := range s.names() {
			v := s.views[name]
			for slot, vm := range v.vms.facts {
				if vm != nil && !yield(VMView{vm, v.vms.samples[slot]}) {
					return
				}
			}
		}
	}
}

// Datastores yields all datastores, source by source by name.
func (s *Snapshot) Datastores() iter.Seq[DatastoreView] {
	return func(yield func(DatastoreView) bool) {
		for _, name := range s.names() {
			v := s.views[name]
			for slot, ds := range v.datastores.facts {
				if ds != nil && !yield(DatastoreView{ds, v.datastores.samples[slot]}) {
					return
				}
			}
		}
	}
}

// Services yields all services, source by source by name.
func (s *Snapshot) Services() iter.Seq[ServiceView] {
	return func(yield func(ServiceView) bool) {
		for _, name := range s.names() {
			v := s.views[name]
			for slot, svc := range v.services.facts {
				if svc != nil && !yield(ServiceView{svc, v.services.samples[slot]}) {
					return
				}
			}
		}
	}
}

// VMsOn are the VMs of one host.
func (s *Snapshot) VMsOn(host ID) []VMView {
	v, ok := s.views[host.Source]
	if !ok {
		return nil
	}
	slots := v.vms.byHost()[host]
	out := make([]VMView, 0, len(slots))
	for _, slot := range slots {
		out = append(out, VMView{v.vms.facts[slot], v.vms.samples[slot]})
	}
	return out
}

// HostsOf are the hosts of one cluster.
func (s *Snapshot) HostsOf(cluster ID) []HostView {
	v, ok := s.views[cluster.Source]
	if !ok {
		return nil
	}
	var out []HostView
	for slot, h := range v.hosts.facts {
		if h != nil && h.Cluster == cluster {
			out = append(out, HostView{h, v.hosts.samples[slot]})
		}
	}
	return out
}

// HostTable is the raw form of a source's hosts.
func (s *Snapshot) HostTable(source string) Table[Host] {
	v, ok := s.views[source]
	if !ok {
		return Table[Host]{}
	}
	return Table[Host]{v.hosts.facts, v.hosts.samples}
}

// VMTable is the raw form of a source's VMs.
func (s *Snapshot) VMTable(source string) Table[VM] {
	v, ok := s.views[source]
	if !ok {
		return Table[VM]{}
	}
	return Table[VM]{v.vms.facts, v.vms.samples}
}

// DatastoreTable is the raw form of a source's datastores.
func (s *Snapshot) DatastoreTable(source string) Table[Datastore] {
	v, ok := s.views[source]
	if !ok {
		return Table[Datastore]{}
	}
	return Table[Datastore]{v.datastores.facts, v.datastores.samples}
}

// ServiceTable is the raw form of a source's services.
func (s *Snapshot) ServiceTable(source string) Table[Service] {
	v, ok := s.views[source]
	if !ok {
		return Table[Service]{}
	}
	return Table[Service]{v.services.facts, v.services.samples}
}

// ResourcePoolTable is the raw form of a source's resource pools.
func (s *Snapshot) ResourcePoolTable(source string) Table[ResourcePool] {
	v, ok := s.views[source]
	if !ok {
		return Table[ResourcePool]{}
	}
	return Table[ResourcePool]{v.pools.facts, v.pools.samples}
}

// MachineTable is the raw form of a source's machines.
func (s *Snapshot) MachineTable(source string) Table[Machine] {
	v, ok := s.views[source]
	if !ok {
		return Table[Machine]{}
	}
	return Table[Machine]{v.machines.facts, v.machines.samples}
}

// NetworkTable is the raw form of a source's networks.
func (s *Snapshot) NetworkTable(source string) Table[Network] {
	v, ok := s.views[source]
	if !ok {
		return Table[Network]{}
	}
	return Table[Network]{v.networks.facts, v.networks.samples}
}

// ClusterTable is the raw form of a source's clusters.
func (s *Snapshot) ClusterTable(source string) Table[Cluster] {
	v, ok := s.views[source]
	if !ok {
		return Table[Cluster]{}
	}
	return Table[Cluster]{v.clusters.facts, v.clusters.samples}
}

func (s *Snapshot) names() []string { return slices.Sorted(maps.Keys(s.views)) }
