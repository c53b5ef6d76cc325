package vsphere

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/inventory"
)

// The kinds of managed object that are followed.
const (
	typeCluster = "ClusterComputeResource"
	typeHost    = "HostSystem"
	typeVM      = "VirtualMachine"
	typeStore   = "Datastore"
	typePool    = "ResourcePool"
	typeApp     = "VirtualApp" // a resource pool with settings of its own
	typeNetwork = "Network"    // a port group of standard switches, and what the next two are, too
	typeGroup   = "DistributedVirtualPortgroup"
	typeOpaque  = "OpaqueNetwork"
)

// tree is what is known of a vCenter's objects, by MoRef value.
type tree struct {
	source   string
	clusters map[string]*inventory.Cluster
	hosts    map[string]*host
	vms      map[string]*vm
	entered  []*vm // in the order they did, some of which have left since
	stores   map[string]*store
	pools    map[string]*inventory.ResourcePool
	networks map[string]*inventory.Network
	slow     *slow
	attached map[string][]inventory.ID // sets of networks, by their refs: what hosts and VMs have in common is kept once
}

type host struct {
	inventory.Host
	coreMHz float64
}

type vm struct {
	inventory.VM
	guestRuns, guestConfigured string    // what the tools report, what the VM was made for
	moved                      time.Time // when it was seen to change its host, zero if never
	total                      *total    // its totals, nil before they were looked up
	left                       bool
	written                    []types.BaseCustomFieldValue // its custom attributes
}

type store struct {
	inventory.Datastore
	capacity float64
}

func newTree(source string) *tree {
	return &tree{
		source: source, clusters: map[string]*inventory.Cluster{}, hosts: map[string]*host{}, vms: map[string]*vm{},
		stores: map[string]*store{}, pools: map[string]*inventory.ResourcePool{}, networks: map[string]*inventory.Network{},
		attached: map[string][]inventory.ID{}, slow: newSlow(nil),
	}
}

func (t *tree) id(kind inventory.Kind, ref string) inventory.ID {
	return inventory.ID{Source: t.source, Kind: kind, Ref: ref}
}

// idOf is the ID of an object of a followed type, the zero ID of any other.
func (t *tree) idOf(ref types.ManagedObjectReference) inventory.ID {
	if ref.Value == "" {
		return inventory.ID{}
	}
	switch ref.Type {
	case typeCluster:
		return t.id(inventory.KindCluster, ref.Value)
	case typeHost:
		return t.id(inventory.KindHost, ref.Value)
	case typeVM:
		return t.id(inventory.KindVM, ref.Value)
	case typeStore:
		return t.id(inventory.KindDatastore, ref.Value)
	case typePool, typeApp:
		return t.id(inventory.KindResourcePool, ref.Value)
	case typeNetwork, typeGroup, typeOpaque:
		return t.id(inventory.KindNetwork, ref.Value)
	}
	return inventory.ID{}
}

// idsOf are the IDs of those references that are of a kind.
func (t *tree) idsOf(refs []types.ManagedObjectReference, kind inventory.Kind) []inventory.ID {
	var ids []inventory.ID
	for _, ref := range refs {
		if id := t.idOf(ref); id.Kind == kind {
			ids = append(ids, id)
		}
	}
	return ids
}

// drop forgets an object.
func (t *tree) drop(id inventory.ID) {
	switch id.Kind {
	case inventory.KindCluster:
		delete(t.clusters, id.Ref)
	case inventory.KindHost:
		delete(t.hosts, id.Ref)
	case inventory.KindVM:
		if v := t.vms[id.Ref]; v != nil {
			v.left = true
			delete(t.vms, id.Ref)
			delete(t.slow.available, id.Ref)
		}
	case inventory.KindDatastore:
		delete(t.stores, id.Ref)
	case inventory.KindResourcePool:
		delete(t.pools, id.Ref)
	case inventory.KindNetwork:
		delete(t.networks, id.Ref)
		clear(t.attached) // of sets with it there will be no more
	}
}

// inOrder are the VMs in the order they entered. It is that of the inventory's memory: who goes through them all goes so.
func (t *tree) inOrder() []*vm {
	t.entered = slices.DeleteFunc(t.entered, func(v *vm) bool { return v.left })
	return t.entered
}

// add makes an object known, if it is not.
func (t *tree) add(id inventory.ID) {
	switch {
	case t.has(id):
	case id.Kind == inventory.KindCluster:
		t.clusters[id.Ref] = &inventory.Cluster{ID: id, Unread: true}
	case id.Kind == inventory.KindHost:
		t.hosts[id.Ref] = &host{Host: inventory.Host{ID: id, Power: inventory.PowerUnknown, Connection: inventory.Disconnected}}
	case id.Kind == inventory.KindVM:
		v := &vm{VM: inventory.VM{ID: id, Power: inventory.PowerUnknown, Connection: inventory.Disconnected}}
		t.vms[id.Ref] = v
		t.entered = append(t.entered, v)
	case id.Kind == inventory.KindDatastore:
		t.stores[id.Ref] = &store{Datastore: inventory.Datastore{ID: id}}
	case id.Kind == inventory.KindResourcePool:
		t.pools[id.Ref] = &inventory.ResourcePool{ID: id}
	case id.Kind == inventory.KindNetwork:
		t.networks[id.Ref] = &inventory.Network{ID: id}
	}
}

// has reports whether an object is known.
func (t *tree) has(id inventory.ID) bool {
	switch id.Kind {
	case inventory.KindCluster:
		return t.clusters[id.Ref] != nil
	case inventory.KindHost:
		return t.hosts[id.Ref] != nil
	case inventory.KindVM:
		return t.vms[id.Ref] != nil
	case inventory.KindDatastore:
		return t.stores[id.Ref] != nil
	case inventory.KindResourcePool:
		return t.pools[id.Ref] != nil
	case inventory.KindNetwork:
		return t.networks[id.Ref] != nil
	}
	return false
}

// set lays the value of one property over what is known of an object, nil for a property that is not set (any more). It
// reports whether it could: not if the object is not known, nor for a path that is not one of ours, such as one element of
// an array.
func (t *tree) set(id inventory.ID, path string, val any, now time.Time) bool {
	if !t.has(id) {
		return false
	}
	switch id.Kind {
	case inventory.KindCluster:
		set, ok := clusterPaths[path]
		if ok {
			set(t, t.clusters[id.Ref], val)
		}
		return ok
	case inventory.KindHost:
		set, ok := hostPaths[path]
		if ok {
			set(t, t.hosts[id.Ref], val)
		}
		return ok
	case inventory.KindDatastore:
		set, ok := storePaths[path]
		if ok {
			set(t, t.stores[id.Ref], val)
		}
		return ok
	case inventory.KindResourcePool:
		set, ok := poolPaths[path]
		if ok {
			set(t, t.pools[id.Ref], val)
		}
		return ok
	case inventory.KindNetwork:
		set, ok := networkPaths[path]
		if ok {
			set(t, t.networks[id.Ref], val)
		}
		return ok
	default:
		set, ok := vmPaths[path]
		if ok {
			v := t.vms[id.Ref]
			from := v.Host
			set(t, v, val)
			if !from.IsZero() && v.Host != from {
				v.moved = now
			}
		}
		return ok
	}
}

// put adds the object, whole, to a delta.
func (t *tree) put(d *inventory.Delta, id inventory.ID) {
	switch id.Kind {
	case inventory.KindCluster:
		if c := t.clusters[id.Ref]; c != nil {
			c.EVC = t.slow.evc[id.Ref]
			d.Clusters = append(d.Clusters, *c)
		}
	case inventory.KindHost:
		if h := t.hosts[id.Ref]; h != nil {
			h.CPUHertz = h.coreMHz * 1e6 * float64(h.Cores)
			d.Hosts = append(d.Hosts, h.Host)
		}
	case inventory.KindVM:
		if v := t.vms[id.Ref]; v != nil {
			v.GuestOS = cmp.Or(v.guestRuns, v.guestConfigured)
			v.Availability = t.availability(v)
			t.slow.available[id.Ref] = v.Availability
			v.Annotations, v.Tags = t.slow.annotations(v.written), t.slow.tags[id.Ref]
			d.VMs = append(d.VMs, v.VM)
		}
	case inventory.KindDatastore:
		if s := t.stores[id.Ref]; s != nil {
			s.CapacityBytes = 0
			if s.Accessible { // else what the vCenter says is not to be believed
				s.CapacityBytes = s.capacity
			}
			d.Datastores = append(d.Datastores, s.Datastore)
		}
	case inventory.KindResourcePool:
		if p := t.pools[id.Ref]; p != nil {
			d.Pools = append(d.Pools, *p)
		}
	case inventory.KindNetwork:
		if n := t.networks[id.Ref]; n != nil {
			d.Networks = append(d.Networks, *n)
		}
	}
}

// runs reports whether the vCenter has current figures of the VM.
func (t *tree) runs(v *vm) bool { return v.runsOn(t.hosts[v.Host.Ref]) }

// runsOn is runs for a VM whose host, nil if it is not known, is at hand.
func (v *vm) runsOn(h *host) bool {
	return v.Power == inventory.PowerOn && v.Connection == inventory.Connected && h != nil && h.answers()
}

// availability is whether HA restarts the VM elsewhere; empty if that is not known. While its host or cluster has not been listed
// on this connection it is what it was on the last one.
func (t *tree) availability(v *vm) inventory.Availability {
	h := t.hosts[v.Host.Ref]
	if h == nil {
		return t.slow.available[v.ID.Ref]
	}
	c := t.clusters[h.Cluster.Ref]
	if c == nil && !h.Cluster.IsZero() {
		return t.slow.available[v.ID.Ref]
	}
	if c == nil || c.Unread {
		return ""
	}
	priority, other := c.RestartPriorities[v.ID]
	if !other {
		priority = c.RestartPriority
	}
	if !c.HA.Enabled || priority == notRestarted {
		return inventory.NotHighlyAvailable
	}
	return inventory.HighlyAvailable
}

// answers reports whether the vCenter has current figures of the host. Those of a disconnected host are frozen, not absent.
func (h *host) answers() bool {
	return h.Connection == inventory.Connected && h.Power == inventory.PowerOn
}

// The properties that are followed, and how each lands in what is known. summary.* leaves are taken where the same value under
// config or hardware goes missing as soon as a host is disconnected or a VM's files cannot be read.
var (
	clusterPaths = map[string]func(*tree, *inventory.Cluster, any){
		"name": func(_ *tree, c *inventory.Cluster, v any) { c.Name = name(v) },
		// The property's declared type has none of a cluster's settings, so that a vCenter need not know paths below it.
		"configurationEx": (*tree).setClusterConfig,
	}

	hostPaths = map[string]func(*tree, *host, any){
		"name":                           func(_ *tree, h *host, v any) { h.Name = name(v) },
		"parent":                         func(t *tree, h *host, v any) { h.Cluster = t.clusterOf(v) },
		"runtime.connectionState":        func(_ *tree, h *host, v any) { h.Connection = hostConnection(v) },
		"runtime.powerState":             func(_ *tree, h *host, v any) { h.Power = hostPower(v) },
		"runtime.inMaintenanceMode":      func(_ *tree, h *host, v any) { h.Maintenance, _ = v.(bool) },
		"summary.hardware.uuid":          func(_ *tree, h *host, v any) { h.UUID, _ = v.(string) },
		"summary.hardware.model":         func(_ *tree, h *host, v any) { h.Model, _ = v.(string) },
		"summary.hardware.cpuModel":      func(_ *tree, h *host, v any) { h.CPUModel, _ = v.(string) },
		"summary.hardware.cpuMhz":        func(_ *tree, h *host, v any) { h.coreMHz = number(v) },
		"summary.hardware.numCpuCores":   func(_ *tree, h *host, v any) { h.Cores = int(number(v)) },
		"summary.hardware.memorySize":    func(_ *tree, h *host, v any) { h.MemoryBytes = number(v) },
		"summary.config.product.version": func(_ *tree, h *host, v any) { h.Version, _ = v.(string) },
		"summary.currentEVCModeKey":      func(_ *tree, h *host, v any) { h.EVC, _ = v.(string) },
		"summary.maxEVCModeKey":          func(_ *tree, h *host, v any) { h.MaxEVC, _ = v.(string) },
		"network":                        func(t *tree, h *host, v any) { h.Networks = t.networksOf(v) },
	}

	vmPaths = map[string]func(*tree, *vm, any){
		"name":                             func(_ *tree, m *vm, v any) { m.Name = name(v) },
		"runtime.host":                     func(t *tree, m *vm, v any) { m.Host = t.hostOf(v) },
		"resourcePool":                     func(t *tree, m *vm, v any) { m.Pool = t.poolOf(v) },
		"runtime.connectionState":          func(_ *tree, m *vm, v any) { m.Connection = vmConnection(v) },
		"runtime.powerState":               func(_ *tree, m *vm, v any) { m.Power = vmPower(v) },
		"summary.config.uuid":              func(_ *tree, m *vm, v any) { m.UUID, _ = v.(string) },
		"summary.config.template":          func(_ *tree, m *vm, v any) { m.Template, _ = v.(bool) },
		"summary.config.numCpu":            func(_ *tree, m *vm, v any) { m.VCPUs = int(number(v)) },
		"summary.config.memorySizeMB":      func(_ *tree, m *vm, v any) { m.MemoryBytes = number(v) * mebi },
		"summary.config.guestFullName":     func(_ *tree, m *vm, v any) { m.guestConfigured, _ = v.(string) },
		"guest.guestFullName":              func(_ *tree, m *vm, v any) { m.guestRuns, _ = v.(string) },
		"guest.hostName":                   func(_ *tree, m *vm, v any) { m.GuestHostname, _ = v.(string) },
		"guest.ipAddress":                  func(_ *tree, m *vm, v any) { m.GuestIP, _ = v.(string) },
		"guest.net":                        func(_ *tree, m *vm, v any) { m.MACs = macs(v) },
		"summary.config.cpuReservation":    func(_ *tree, m *vm, v any) { m.CPUReservationHertz = number(v) * 1e6 },
		"summary.config.memoryReservation": func(_ *tree, m *vm, v any) { m.MemoryReservationBytes = number(v) * mebi },
		"datastore":                        func(t *tree, m *vm, v any) { m.Datastores = t.storesOf(v) },
		"network":                          func(t *tree, m *vm, v any) { m.Networks = t.networksOf(v) },
		customValue:                        func(_ *tree, m *vm, v any) { m.written = written(v) },
	}

	storePaths = map[string]func(*tree, *store, any){
		"name":                    func(_ *tree, s *store, v any) { s.Name = name(v) },
		"summary.type":            func(_ *tree, s *store, v any) { s.Type, _ = v.(string) },
		"summary.capacity":        func(_ *tree, s *store, v any) { s.capacity = number(v) },
		"summary.accessible":      func(_ *tree, s *store, v any) { s.Accessible, _ = v.(bool) },
		"summary.maintenanceMode": func(_ *tree, s *store, v any) { s.Maintenance = v != nil && v != normalMode },
		"host":                    func(t *tree, s *store, v any) { s.Mounts = t.mounts(v) },
	}

	poolPaths = map[string]func(*tree, *inventory.ResourcePool, any){
		"name":                    func(_ *tree, p *inventory.ResourcePool, v any) { p.Name = name(v) },
		"parent":                  func(t *tree, p *inventory.ResourcePool, v any) { p.Parent = t.poolOf(v) },
		"owner":                   func(t *tree, p *inventory.ResourcePool, v any) { p.Cluster = t.clusterOf(v) },
		"config.cpuAllocation":    func(_ *tree, p *inventory.ResourcePool, v any) { p.CPU = allocation(v, 1e6) },
		"config.memoryAllocation": func(_ *tree, p *inventory.ResourcePool, v any) { p.Memory = allocation(v, mebi) },
	}

	networkPaths = map[string]func(*tree, *inventory.Network, any){
		"name": func(_ *tree, n *inventory.Network, v any) { n.Name = name(v) },
	}
)

// normalMode is the mode of a datastore that is not in maintenance.
const normalMode = string(types.DatastoreSummaryMaintenanceModeStateNormal)

const (
	kibi = 1 << 10
	mebi = 1 << 20
)

// unescape undoes what a vCenter does to names.
var unescape = strings.NewReplacer("%2f", "/", "%2F", "/", "%5c", `\`, "%5C", `\`, "%25", "%")

func name(v any) string {
	s, _ := v.(string)
	return unescape.Replace(s)
}

// number is a count or size, 0 if there is none or it is not one.
func number(v any) float64 {
	n := 0.0
	switch v := v.(type) {
	case int16:
		n = float64(v)
	case int32:
		n = float64(v)
	case int64:
		n = float64(v)
	}
	return max(n, 0)
}

// clusterOf is the cluster of a host's parent. A standalone host's parent is a ComputeResource of its own, and no cluster.
func (t *tree) clusterOf(v any) inventory.ID {
	if ref, ok := v.(types.ManagedObjectReference); ok && ref.Type == typeCluster {
		return t.idOf(ref)
	}
	return inventory.ID{}
}

func (t *tree) hostOf(v any) inventory.ID {
	if ref, ok := v.(types.ManagedObjectReference); ok && ref.Type == typeHost {
		return t.idOf(ref)
	}
	return inventory.ID{}
}

// poolOf is the resource pool that a VM is in, or a pool's parent. The parent of a root is no pool.
func (t *tree) poolOf(v any) inventory.ID {
	if ref, ok := v.(types.ManagedObjectReference); ok && (ref.Type == typePool || ref.Type == typeApp) {
		return t.idOf(ref)
	}
	return inventory.ID{}
}

// allocation is what a resource pool is given, in units of so many hertz or bytes.
func allocation(v any, unit float64) inventory.Allocation {
	info, ok := v.(types.ResourceAllocationInfo)
	if !ok || info.Reservation == nil || info.Shares == nil {
		return inventory.Allocation{}
	}
	a := inventory.Allocation{
		Known: true, Reservation: float64(max(*info.Reservation, 0)) * unit, Expandable: isTrue(info.ExpandableReservation),
		Shares: float64(max(info.Shares.Shares, 0)),
	}
	if info.Limit != nil && *info.Limit >= 0 { // -1 is none
		a.Limited, a.Limit = true, float64(*info.Limit)*unit
	}
	return a
}

// storesOf are a VM's datastores, always in one order.
func (t *tree) storesOf(v any) []inventory.ID {
	refs, _ := v.(types.ArrayOfManagedObjectReference)
	ids := t.idsOf(refs.ManagedObjectReference, inventory.KindDatastore)
	slices.SortFunc(ids, func(a, b inventory.ID) int { return cmp.Compare(a.Ref, b.Ref) })
	return ids
}

// networksOf are the networks that a host has or that a VM is attached to, always in one order; nil if that is not told.
func (t *tree) networksOf(v any) []inventory.ID {
	refs, told := v.(types.ArrayOfManagedObjectReference)
	if !told {
		return nil
	}
	list := refs.ManagedObjectReference
	slices.SortFunc(list, func(a, b types.ManagedObjectReference) int { return cmp.Compare(a.Value, b.Value) })
	var key []byte
	for _, ref := range list {
		key = append(append(key, ref.Value...), ' ')
	}
	ids, known := t.attached[string(key)]
	if !known {
		ids = slices.Compact(append([]inventory.ID{}, t.idsOf(list, inventory.KindNetwork)...))
		t.attached[string(key)] = ids
	}
	return ids
}

// maxMACs is more network adapters than a VM can have.
const maxMACs = 64

// macs are the addresses of those network adapters of a guest that are devices of the VM; a guest has others of its own making.
func macs(v any) []string {
	nics, _ := v.(types.ArrayOfGuestNicInfo)
	var out []string
	for i := range nics.GuestNicInfo {
		nic := &nics.GuestNicInfo[i]
		if nic.DeviceConfigId > 0 && nic.MacAddress != "" && len(out) < maxMACs {
			out = append(out, strings.ToLower(nic.MacAddress))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// mounts are the hosts that have a datastore. None at all is taken for not known: what nobody has nobody would list.
func (t *tree) mounts(v any) map[inventory.ID]inventory.Mount {
	list, _ := v.(types.ArrayOfDatastoreHostMount)
	var out map[inventory.ID]inventory.Mount
	for i := range list.DatastoreHostMount {
		m := &list.DatastoreHostMount[i]
		id := t.idOf(m.Key)
		if id.Kind != inventory.KindHost {
			continue
		}
		if out == nil {
			out = map[inventory.ID]inventory.Mount{}
		}
		mounted := m.MountInfo.Mounted == nil || *m.MountInfo.Mounted
		reached := m.MountInfo.Accessible == nil || *m.MountInfo.Accessible // hosts before 5.0 do not say
		out[id] = inventory.Mount{
			Accessible: mounted && reached, ReadOnly: m.MountInfo.AccessMode == string(types.HostMountModeReadOnly),
		}
	}
	return out
}

func hostConnection(v any) inventory.Connection {
	switch v {
	case types.HostSystemConnectionStateConnected:
		return inventory.Connected
	case types.HostSystemConnectionStateNotResponding:
		return inventory.Unreachable
	}
	return inventory.Disconnected
}

func hostPower(v any) inventory.Power {
	switch v {
	case types.HostSystemPowerStatePoweredOn:
		return inventory.PowerOn
	case types.HostSystemPowerStatePoweredOff:
		return inventory.PowerOff
	case types.HostSystemPowerStateStandBy:
		return inventory.PowerStandby
	}
	return inventory.PowerUnknown
}

func vmConnection(v any) inventory.Connection {
	switch v {
	case types.VirtualMachineConnectionStateConnected:
		return inventory.Connected
	case types.VirtualMachineConnectionStateOrphaned:
		return inventory.Orphaned
	case types.VirtualMachineConnectionStateInaccessible, types.VirtualMachineConnectionStateInvalid:
		return inventory.Inaccessible
	}
	return inventory.Disconnected
}

func vmPower(v any) inventory.Power {
	switch v {
	case types.VirtualMachinePowerStatePoweredOn:
		return inventory.PowerOn
	case types.VirtualMachinePowerStatePoweredOff:
		return inventory.PowerOff
	case types.VirtualMachinePowerStateSuspended:
		return inventory.PowerSuspended
	}
	return inventory.PowerUnknown
}
