package inventory

import (
	"fmt"
	"strings"
)

// Kind says what an object is.
type Kind uint8

// The kinds of object.
const (
	KindCluster Kind = iota + 1
	KindHost
	KindVM
)

var kindNames = [...]string{KindCluster: "cluster", KindHost: "host", KindVM: "vm"}

// String is the kind's name as packs and the API spell it: cluster, host, vm.
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
	return 0, fmt.Errorf("unknown kind %q: want cluster, host or vm", s)
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

// Cluster is a group of hosts that VMs may move within.
type Cluster struct {
	ID    ID
	Name  string
	DRS   DRS
	HA    HA
	Rules []Rule
	// Overrides holds the VMs whose DRS automation differs from the cluster's.
	Overrides map[ID]Automation
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
	Connection    Connection
	Power         Power
	Template      bool
	VCPUs         int
	MemoryBytes   float64 // configured
	GuestOS       string
	GuestHostname string
	GuestIP       string
}
