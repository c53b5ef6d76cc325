// Package hyperv runs simulated Hyper-V failover clusters, standalone hosts and Virtual Server 2005 hosts behind a WS-Management
// service, for tests, benchmarks and the demo. It promises that every answer is made of one model and of no property that the
// simulated version of Windows does not have. It must not import anything of protip but internal/clock and internal/sim/load.
package hyperv

import (
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/sim/load"
)

// OS is a version of Windows; it decides which classes, properties and methods there are.
type OS string

// The versions whose schema is known.
const (
	Server2019 OS = "server2019"
	Server23H2 OS = "server23h2"
	server2003 OS = "server2003"
)

// Options describe a failover cluster, or hosts that belong to none. The zero value is a cluster without a node.
type Options struct {
	Name       string // the cluster's; default hvc-01
	Standalone bool   // the nodes are hosts by themselves: there is no root/mscluster, no VM is clustered
	Domain     string // DNS domain of hosts and guests; default example.org
	OS         OS     // default Server2019
	Locale     string // of the nodes' words, en-US (default) or de-DE; class and property names have none
	Seed       uint64 // of GUIDs

	Clock   *clock.Clock // default: real time
	Load    load.Load    // VM i of Nodes, counted through all of them, demands what Load says of VM i; nil: nothing
	Nodes   []Node
	Volumes []Volume // cluster shared volumes; default is one, Volume1
	Users   []User   // default is DefaultUser with DefaultPassword, who may do everything

	// MigrationTime is how long (on Clock) a migration of a VM with that much memory takes; nil: 10 s to 60 s. A quick migration
	// takes as long, and the VM is down for all of it.
	MigrationTime func(memoryBytes float64) time.Duration
	// ActiveMigrations is how many migrations a node takes part in at once, as source or target; default 2. Further ones queue.
	ActiveMigrations int
	// NoDelegation is what a host without Kerberos constrained delegation does: migrations between standalone hosts fail with NoCredentials.
	NoDelegation bool
	// NoSummaryQuery makes Msvm_SummaryInformation a class that cannot be enumerated, only asked for by GetSummaryInformation.
	NoSummaryQuery bool

	// AllowUnencrypted lets plain HTTP carry Basic credentials and bodies that are not sealed. Windows does not by default.
	AllowUnencrypted bool
	EndOfSequence    EndOfSequence
	// MaxEnvelope is how many bytes an answer may have at most, whatever a client allows; default 512,000.
	MaxEnvelope int
	// MaxShells and MaxOperations are a user's quotas of shells and of open enumerations; defaults 30 and 1500.
	MaxShells, MaxOperations int
}

// The account that exists if Options name none.
const (
	DefaultUser     = "protip"
	DefaultPassword = "Secret-1"
)

// DefaultSwitch is the virtual switch that hosts have and VMs are plugged into if nothing is said.
const DefaultSwitch = "External"

// EndOfSequence is which namespace the element that ends an enumeration is in.
type EndOfSequence int

// Spellings of the end.
const (
	EndByPlace       EndOfSequence = iota // of WS-Management in an answer to Enumerate, of WS-Enumeration in one to Pull
	EndWSManagement                       // w:EndOfSequence
	EndWSEnumeration                      // n:EndOfSequence
)

// User is an account of the domain. It logs in as Name, DOMAIN\Name or Name@domain.
type User struct {
	Name, Password string
	ReadOnly       bool // WMI methods that change something are refused
	Expired        bool // the password is right and is refused
}

// Node is a host.
type Node struct {
	Name        string // default hv-01, hv-02, ...
	Cores       int    // logical processors; default 32
	MemoryBytes float64
	State       NodeState
	Switches    []string // names of its virtual switches; nil is DefaultSwitch
	VMs         []VM
}

// NodeState is a node's state in its cluster, by its number in MSCluster_Node.
type NodeState int

// States of nodes.
const (
	NodeUp NodeState = iota
	NodeDown
	NodePaused
	NodeJoining
)

// Volume is a cluster shared volume.
type Volume struct {
	Name       string  // default Volume1, Volume2, ...
	TotalBytes float64 // default 10 TiB
	FreeBytes  float64 // default 40 % of it
	NoAccess   bool    // FaultState says so
}

// VM is a virtual machine.
type VM struct {
	Name        string
	ID          string // GUID in capitals; default: made from Options.Seed and the VM's number
	VCPUs       int    // default 2
	MemoryBytes float64
	Dynamic     bool // dynamic memory: what it is assigned follows demand, up to MemoryBytes
	Off         bool
	Unclustered bool // on a cluster's node, and no role of the cluster
	Volume      string
	Switches    []string // that its network adapters are plugged into; nil is DefaultSwitch, and of none there is an adapter that is not plugged in

	Priority     int // of its group; default 2000
	AntiAffinity []string

	// LiveFails is the error that ends every live migration of this VM, which then stays online where it was; 0: none. Quick
	// migration works. LogonTypeNotGranted is what a host answers whose group policy took a right away, LimitedProcessor what
	// one with other processors answers.
	LiveFails uint32
	// LimitProcessorFeatures is the VM's setting: it may migrate to other versions of its processor.
	LimitProcessorFeatures bool

	Guest Guest
}

// Guest is what runs inside a VM. Without a name nothing answers its integration services.
type Guest struct {
	Hostname string
	OS       string // as the guest names itself: Windows Server 2022 Datacenter
	IPs      []string
	Services []Service
	// DiskLatency is how long each of its 100 transfers a second takes; default 5 ms.
	DiskLatency time.Duration
	Endpoint    bool // the guest serves WS-Management itself
}

// Service is a Windows service of a guest.
type Service struct {
	Name, DisplayName string
	State             string // Running, Stopped, ...
	StartMode         string // Auto, Manual, Disabled
}

// Errors of migrations, as HRESULT.
const (
	NoMemory            uint32 = 0x800705AA
	NoCredentials       uint32 = 0x8009030E
	TargetUnknown       uint32 = 0x80090322
	NoConnection        uint32 = 0x8007274D
	MigrationTimeout    uint32 = 0x800705B4
	ISOMissing          uint32 = 0xC03A0014
	LogonTypeNotGranted uint32 = 0x80070534
	OperationCanceled   uint32 = 0x800704C7
	noSwitch            uint32 = 0x80004005
	nodeNotFound        uint32 = 0x800713B2
	nodeDown            uint32 = 0x800713BA
	nodePaused          uint32 = 0x800713CE
	groupNotFound       uint32 = 0x80071395
	moveInProgress      uint32 = 0x800703E5
	slotsTaken          uint32 = 0x800700AA
	malformedList       uint32 = 0x80070057
)

// Cluster is a running simulated cluster, or a set of standalone hosts. Its methods may be called from any goroutine.
type Cluster struct {
	opt    Options
	clock  *clock.Clock
	schema *schema
	pki    *authority
	faults faults
	gate   *gate // who may enter

	mu    sync.Mutex // guards what follows, and everything reached from it
	model *model

	endpoints map[string]*endpoint // by name of the node, or GUID of the VM
	calls     calls
}

// New builds the cluster and serves every node until Close. The errors it returns name what in the options is wrong.
func New(opt Options) (*Cluster, error) {
	c, err := build(withDefaults(opt))
	if err != nil {
		return nil, err
	}
	if err := c.serve(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// build makes a cluster that serves nothing yet.
func build(opt Options) (*Cluster, error) {
	c := &Cluster{opt: opt, clock: opt.Clock, endpoints: map[string]*endpoint{}}
	var err error
	if c.schema, err = schemaOf(opt.OS); err != nil {
		return nil, err
	}
	if c.model, err = newModel(opt); err != nil {
		return nil, fmt.Errorf("build cluster %s: %w", opt.Name, err)
	}
	if c.pki, err = newAuthority(); err != nil {
		return nil, fmt.Errorf("certificates of cluster %s: %w", opt.Name, err)
	}
	c.gate = newGate(opt.Users, opt.Domain, opt.AllowUnencrypted)
	return c, nil
}

func withDefaults(opt Options) Options {
	if opt.Name == "" {
		opt.Name = "hvc-01"
	}
	if opt.Domain == "" {
		opt.Domain = "example.org"
	}
	if opt.OS == "" {
		opt.OS = Server2019
	}
	if opt.Locale == "" {
		opt.Locale = "en-US"
	}
	if opt.Clock == nil {
		opt.Clock = clock.New(1)
	}
	if opt.Load == nil {
		opt.Load = load.Steady(load.Use{})
	}
	if opt.Users == nil {
		opt.Users = []User{{Name: DefaultUser, Password: DefaultPassword}}
	}
	if opt.Volumes == nil {
		opt.Volumes = []Volume{{}}
	}
	if opt.MigrationTime == nil {
		opt.MigrationTime = func(memory float64) time.Duration {
			return min(time.Minute, 10*time.Second+time.Duration(memory/(1<<30)*1.5*float64(time.Second)))
		}
	}
	positive := func(n *int, otherwise int) {
		if *n <= 0 {
			*n = otherwise
		}
	}
	positive(&opt.ActiveMigrations, 2)
	positive(&opt.MaxEnvelope, 512_000)
	positive(&opt.MaxShells, 30)
	positive(&opt.MaxOperations, 1500)
	return opt
}

// serve opens a plain and a TLS port for every node and every guest that has an endpoint.
func (c *Cluster) serve() error {
	for _, n := range c.model.nodes {
		names := []string{n.name, n.name + "." + c.opt.Domain}
		if err := c.open(n.name, &nodeMachine{c, n}, names...); err != nil {
			return err
		}
		if n.state == NodeDown {
			c.endpoints[n.name].stop()
		}
	}
	for _, vm := range c.model.vms {
		if !vm.guest.Endpoint {
			continue
		}
		if err := c.open(vm.id, &guestMachine{c, vm}, vm.guest.Hostname, vm.guest.Hostname+"."+c.opt.Domain); err != nil {
			return err
		}
	}
	return nil
}

// Close ends all connections and all ports.
func (c *Cluster) Close() { c.Stop() }

// URL is a node's endpoint over plain HTTP, TLSURL the one over HTTPS. A node is named by its name.
func (c *Cluster) URL(node string) string { return "http://" + c.endpoint(node).plain + "/wsman" }

// TLSURL is a node's endpoint over HTTPS.
func (c *Cluster) TLSURL(node string) string { return "https://" + c.endpoint(node).secure + "/wsman" }

// GuestURL and GuestTLSURL are the endpoints of a guest that has one, by the VM's GUID.
func (c *Cluster) GuestURL(vm string) string { return c.URL(vm) }

// GuestTLSURL is a guest's endpoint over HTTPS.
func (c *Cluster) GuestTLSURL(vm string) string { return c.TLSURL(vm) }

func (c *Cluster) endpoint(name string) *endpoint {
	if e := c.endpoints[name]; e != nil {
		return e
	}
	return &endpoint{plain: "no-such-endpoint.invalid", secure: "no-such-endpoint.invalid"}
}

// CA is the authority that signed the nodes' certificates, in PEM. They are valid for the nodes' names and for 127.0.0.1.
func (c *Cluster) CA() []byte { return c.pki.caPEM }

// ClientCertificate is a certificate that logs in as a user over HTTPS.
func (c *Cluster) ClientCertificate(user string) (tls.Certificate, error) { return c.pki.client(user) }

// Now is the time of the cluster's clock.
func (c *Cluster) Now() time.Time { return c.clock.Now() }

// Clock is the cluster's clock.
func (c *Cluster) Clock() *clock.Clock { return c.clock }

// ErrUnknown says that there is no node, VM or service of that name.
var ErrUnknown = errors.New("unknown")
