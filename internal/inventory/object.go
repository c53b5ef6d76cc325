package inventory

import (
	"fmt"
	"slices"
	"strings"
)

// Kind says what an object is.
type Kind uint8

// The kinds of object.
const (
	KindCluster Kind = iota + 1
	KindHost
	KindVM
	KindDatastore
	KindService
	KindResourcePool
	KindMachine
	KindNetwork
)

var kindNames = [...]string{
	KindCluster: "cluster", KindHost: "host", KindVM: "vm", KindDatastore: "datastore", KindService: "service", KindResourcePool: "resource_pool",
	KindMachine: "machine", KindNetwork: "network",
}

// String is the kind's name as packs and the API spell it: cluster, host, vm, datastore, service, resource_pool, machine, network.
func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// ParseKind is the inverse of Kind.String.
func ParseKind(s string) (Kind, error) {
	for k, name := range kindNames {
		if name != "" && name == s {
			return Kind(k), nil
		}
	}
	return 0, fmt.Errorf("unknown kind %q: want cluster, host, vm, datastore, service, resource_pool, machine or network", s)
}

// ID names one object for its whole life, through renames and migrations. Source is the configured name of the vCenter,
// failover cluster or libvirt cluster; Ref is the platform's own stable key (MoRef value, VM GUID, domain UUID).
type ID struct {
	Source string
	Kind   Kind
	Ref    string
}

// IsZero reports whether the ID names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// String is source/kind/ref; it round-trips through ParseID. The zero ID is the empty string.
func (id ID) String() string {
	if id.IsZero() {
		return ""
	}
	return id.Source + "/" + id.Kind.String() + "/" + id.Ref
}

// ParseID reads what ID.String wrote. The ref is all that follows the second slash.
func ParseID(s string) (ID, error) {
	if s == "" {
		return ID{}, nil
	}
	parts := strings.SplitN(s, "/", 3)
	if len(parts) != 3 || parts[0] == "" || parts[2] == "" {
		return ID{}, fmt.Errorf("object id %q: want source/kind/ref", s)
	}
	kind, err := ParseKind(parts[1])
	if err != nil {
		return ID{}, fmt.Errorf("object id %q: %w", s, err)
	}
	return ID{Source: parts[0], Kind: kind, Ref: parts[2]}, nil
}

// MarshalText writes String, so that IDs are strings in JSON and map keys.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (id *ID) UnmarshalText(b []byte) error {
	parsed, err := ParseID(string(b))
	*id = parsed
	return err
}

// Connection is how well the management server reaches an object.
type Connection string

// Connections, as every platform's are mapped.
const (
	Connected    Connection = "connected"
	Disconnected Connection = "disconnected"
	Unreachable  Connection = "unreachable" // not responding
	Orphaned     Connection = "orphaned"    // known to the manager, gone from the host
	Inaccessible Connection = "inaccessible"
)

// Power is an object's power state.
type Power string

// Power states, as every platform's are mapped.
const (
	PowerOn        Power = "on"
	PowerOff       Power = "off"
	PowerSuspended Power = "suspended"
	PowerStandby   Power = "standby"
	PowerUnknown   Power = "unknown"
)

// Automation is how far a platform's own balancer goes by itself.
type Automation string

// Automation levels, in vSphere's terms.
const (
	AutomationManual  Automation = "manual"
	AutomationPartial Automation = "partially_automated"
	AutomationFull    Automation = "fully_automated"
)

// DRS is a cluster's own load balancer.
type DRS struct {
	Enabled    bool
	Automation Automation
}

// HA is a cluster's own restart of VMs after a host failure.
type HA struct {
	Enabled          bool
	AdmissionControl bool
	Policy           string // host_failures | percentage | dedicated_hosts, empty if none
	HostFailures     int    // hosts whose failure the platform says it tolerates; 0 if the policy does not say
}

// Admission is what an HA policy keeps free for restarts. What its policy does not name is zero.
type Admission struct {
	ReservedCPU     float64 // percentage: share of the cluster, 0..1
	ReservedMemory  float64
	SlotCPUHertz    float64 // host_failures: the size of a slot, where it was set by hand
	SlotMemoryBytes float64
	Hosts           []ID // dedicated_hosts
}

// RuleKind says whether a rule keeps VMs together or apart.
type RuleKind string

// Rule kinds.
const (
	Affinity     RuleKind = "affinity"
	AntiAffinity RuleKind = "anti_affinity"
)

// Rule is an affinity rule between VMs of one cluster.
type Rule struct {
	Name      string
	Kind      RuleKind
	Enabled   bool
	Mandatory bool
	VMs       []ID
}

// HostRule ties a group of VMs to a group of hosts (Affinity) or bars it from them (AntiAffinity).
type HostRule struct {
	Name      string
	Kind      RuleKind
	Enabled   bool
	Mandatory bool
	VMGroup   string // names of the groups, for people
	HostGroup string
	VMs       []ID // members of the groups; a group that is not known has none
	Hosts     []ID
}

// Cluster is a group of hosts that VMs may move within.
type Cluster struct {
	ID   ID
	Name string
	// Unread says that the settings below could not be read: that they look empty and off says nothing.
	Unread    bool
	DRS       DRS
	HA        HA
	Admission Admission
	EVC       string // the CPU generation that its hosts pretend to be, in vSphere's words; empty if none or not known
	Rules     []Rule
	HostRules []HostRule
	// Overrides holds the VMs whose DRS automation differs from the cluster's.
	Overrides map[ID]Automation
	// RestartPriority is how soon HA restarts a VM, in vSphere's words (lowest to highest, disabled); empty if not known.
	// RestartPriorities holds the VMs for which it is another.
	RestartPriority   string
	RestartPriorities map[ID]string
}

// Host is a hypervisor host.
type Host struct {
	ID          ID
	Name        string
	Cluster     ID // zero for a standalone host
	UUID        string
	Connection  Connection
	Power       Power
	Maintenance bool
	Cores       int
	CPUHertz    float64 // all cores together
	MemoryBytes float64
	Model       string
	CPUModel    string
	Version     string
	EVC         string // the CPU generation in effect, empty if none or not known
	MaxEVC      string // the newest one that the host can pretend to be, empty if not known
	Networks    []ID   // that VMs on it can be attached to, by ref; nil if not known, and not nil if it has none
}

// CoreHertz is the speed of one core, 0 if unknown.
func (h *Host) CoreHertz() float64 {
	if h.Cores == 0 {
		return 0
	}
	return h.CPUHertz / float64(h.Cores)
}

// VM is a virtual machine.
type VM struct {
	ID            ID
	Name          string
	UUID          string
	Host          ID // where it runs, or is registered while off
	Pool          ID // the resource pool it is in; zero if it is in none or that is not known
	Connection    Connection
	Power         Power
	Template      bool
	VCPUs         int
	MemoryBytes   float64 // configured
	GuestOS       string
	GuestHostname string
	GuestIP       string
	MACs          []string // of its network adapters, lower case with colons; nil if not known
	// CPUReservationHertz and MemoryReservationBytes are kept for it whatever the others want; 0 if nothing is.
	CPUReservationHertz    float64
	MemoryReservationBytes float64
	// Availability says whether the platform restarts it elsewhere when its host fails.
	Availability Availability
	// NotLive says why the platform could not move it live; empty if it could, or if that is not known. QuickMigration says that
	// it could then be saved, moved and restored, which is downtime.
	NotLive        string
	QuickMigration bool
	Datastores     []ID    // that hold files of it, by ref; nil if not known
	Networks       []ID    // that its adapters are attached to, by ref; nil if not known or none
	Annotations    []Label // what its owners wrote down of it, as far as the configuration names it, by name
	Tags           []Tag   // of the categories that the configuration names, by category and name
}

// Availability is whether a VM is restarted elsewhere when its host fails.
type Availability string

// Availabilities. Empty: not known.
const (
	HighlyAvailable    Availability = "high"
	NotHighlyAvailable Availability = "none"
)

// Service is what runs in a guest, or answers from it. Its source is the one that sees it, often another than its VM's.
type Service struct {
	ID    ID
	Name  string
	VM    ID     // whose guest it runs in; zero while that is not known
	Type  string // how it is seen: systemd, windows, performance, http, tcp, metric, ...
	State ServiceState
}

// ServiceState is how a service is.
type ServiceState string

// Service states, as every guest's are mapped. Empty: not known.
const (
	ServiceRunning ServiceState = "running" // and answers, as far as that is looked at
	ServiceStopped ServiceState = "stopped" // as somebody wants it
	ServiceFailed  ServiceState = "failed"  // it should run and does not, or does not answer
)

// Machine is a physical machine that could become a VM, as its own exporter shows it. It is no host: nothing is placed on it, and no rule
// or reserve counts it.
type Machine struct {
	ID          ID
	Name        string
	UUID        string  // by its firmware; empty if not told
	Model       string  // vendor and product by its firmware; empty if not told
	OS          string  // operating system; empty if not told
	CPUs        int     // logical ones, as its operating system counts them; 0 if not told
	MemoryBytes float64 // 0 if not told
	VM          ID      // that it is in truth, by UUID or MAC address; zero if none is known
}

// Label is a name that the configuration gave and a value that a person wrote.
type Label struct {
	Name  string
	Value string
}

// Tag is a word of a category that somebody attached to an object.
type Tag struct {
	Category string
	Name     string
}

// Datastore is storage that VMs' files lie on.
type Datastore struct {
	ID            ID
	Name          string
	Type          string  // as the platform calls it: VMFS, NFS, vsan, ...
	CapacityBytes float64 // 0 while not known
	Accessible    bool    // by any host
	Maintenance   bool    // in maintenance, or entering it
	// Mounts holds the hosts that have it mounted; nil if that is not known.
	Mounts map[ID]Mount
}

// Mount is how a host has a datastore.
type Mount struct {
	Accessible bool // the host reaches it now
	ReadOnly   bool
}

// Runs reports whether a VM with files on the datastore can run on the host, and whether that is known.
func (d *Datastore) Runs(host ID) (yes, known bool) {
	m, mounted := d.Mounts[host]
	return mounted && m.Accessible && !m.ReadOnly, d.Mounts != nil
}

// Network is what VMs' network adapters are attached to, and what a host must have to run them: a port group, a virtual switch, a
// libvirt network, a bridge.
type Network struct {
	ID   ID
	Name string
	// Unread says that which hosts have it could not be read: that a host does not name it says nothing.
	Unread bool
}

// On reports whether a VM that is attached to the network can run on the host, and whether that is known.
func (n *Network) On(h *Host) (yes, known bool) {
	return slices.Contains(h.Networks, n.ID), !n.Unread && h.Networks != nil
}

// ResourcePool is a share of a cluster, or of a host of none, that VMs and further pools divide among themselves.
type ResourcePool struct {
	ID      ID
	Name    string
	Parent  ID         // the pool it is part of; zero for the root, which is all of its cluster
	Cluster ID         // zero on a standalone host
	CPU     Allocation // in hertz
	Memory  Allocation // in bytes
}

// Allocation is what a resource pool gets of something. While it is not Known, all of it is zero.
type Allocation struct {
	Known       bool
	Reservation float64 // kept for it whatever others want
	Expandable  bool    // it may reserve more, of what its parent has left
	Limited     bool
	Limit       float64 // more than this it does not get, if it is Limited
	Shares      float64 // its weight beside its siblings' when there is not enough for all
}
