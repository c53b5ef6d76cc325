// Package placement decides which host suits a VM: ratings with reasons, and the moves that relieve a host.
// It promises the same answer for the same values, explained in words a person believes.
// It is pure: no I/O, no context, no clock, no log; it may import only internal/inventory and the standard library.
package placement

import "github.com/protip/protip/internal/inventory"

// Use is what an object needs of a host.
type Use struct {
	CPUHertz    float64 `json:"cpu_hertz"`
	MemoryBytes float64 `json:"memory_bytes"`
}

// Demand is what each VM is expected to need. It is the one answer to that: ratings, reserves, reliefs and plans all take it. A VM that
// is missing has no known demand and may not be moved, and a host with such a running VM may not be a target.
type Demand struct {
	VMs map[inventory.ID]Use // as last measured
	// Usual is what the samples before the last one say of a VM. One that is missing is expected to need what it needs now.
	Usual map[inventory.ID]Usual
	// Flows are what VMs move, as far as that is known. It counts where the policy says what a host can move.
	Flows map[inventory.ID]Flow
}

// Usual is the level about which a VM's CPU demand varies, in hertz, and how much it does, in hertz squared. Of a VM of few samples
// both are mostly what is assumed of any: plans take that, and a rating keeps to the last sample.
type Usual struct {
	CPUHertz    float64 `json:"cpu_hertz"`
	CPUVariance float64 `json:"cpu_variance"`
	Samples     float64 `json:"samples"` // of an interval of the fleet; an hour's worth is enough
}

// VMSpec is the VM to be placed. Of one that exists only ID counts: the rest is in the snapshot and the demand.
type VMSpec struct {
	ID    inventory.ID // zero for one that does not exist yet
	Name  string
	VCPUs int
	Use   Use
	Flow  Flow
	Tags  []inventory.Tag
	// HighlyAvailable asks that the platform restarts it when its host fails.
	HighlyAvailable bool
	// Cluster narrows the hosts of a VM that does not exist yet; zero is every host there is.
	Cluster inventory.ID
}

// Flow is what an object reads, writes, sends and receives.
type Flow struct {
	DiskBytesPerSecond    float64 `json:"disk_bytes_per_second"`
	NetworkBytesPerSecond float64 `json:"network_bytes_per_second"`
}

func (f Flow) valid() bool { return amount(f.DiskBytesPerSecond) && amount(f.NetworkBytesPerSecond) }

// plus is the sum; with a sign of -1 the difference, which is not negative.
func (f Flow) plus(g Flow, sign float64) Flow {
	return Flow{max(0, f.DiskBytesPerSecond+sign*g.DiskBytesPerSecond), max(0, f.NetworkBytesPerSecond+sign*g.NetworkBytesPerSecond)}
}

// most is the greater of either of both.
func (f Flow) most(g Flow) Flow {
	return Flow{max(f.DiskBytesPerSecond, g.DiskBytesPerSecond), max(f.NetworkBytesPerSecond, g.NetworkBytesPerSecond)}
}

// toward is a share of the way from f to g.
func (f Flow) toward(g Flow, share float64) Flow {
	return Flow{
		f.DiskBytesPerSecond + share*(g.DiskBytesPerSecond-f.DiskBytesPerSecond),
		f.NetworkBytesPerSecond + share*(g.NetworkBytesPerSecond-f.NetworkBytesPerSecond),
	}
}

// carries reports whether a host that moves f may move g too, by a ceiling of what it can move, as far as that is known.
func (f Flow) carries(g Flow, ceiling float64, host Flow) bool {
	sum := f.plus(g, 1)
	return (!(host.DiskBytesPerSecond > 0) || g.DiskBytesPerSecond == 0 || sum.DiskBytesPerSecond <= ceiling*host.DiskBytesPerSecond) &&
		(!(host.NetworkBytesPerSecond > 0) || g.NetworkBytesPerSecond == 0 || sum.NetworkBytesPerSecond <= ceiling*host.NetworkBytesPerSecond)
}

// Policy is what the operator wants of a placement.
type Policy struct {
	// Ceiling is the utilisation of CPU and of memory, 0..1, that no host may pass by a move.
	Ceiling float64
	// Incoming are VMs on their way to a host: they count there as if they had arrived.
	Incoming map[inventory.ID][]inventory.ID
	// Frozen are VMs that may not be moved now, and why. Relieve leaves them where they are.
	Frozen map[inventory.ID]string
	// Fill prefers the fullest host that still has room, where otherwise the emptiest is preferred.
	Fill bool
	// Weights say how much each resource counts, 0..1. A weight of 0 does not keep a resource from barring a host.
	Weights Weights
	// HostFlow is what any one host can move; zero is not known, and then flows do not count.
	HostFlow Flow
	// ApartTags and TogetherTags are categories of tags. VMs with the same tag of such a category are better kept apart, or
	// together.
	ApartTags, TogetherTags []string
	// Quick lets a VM that cannot be moved live be rated for being saved, moved and restored, which is downtime.
	Quick bool
	// Reserves holds, by cluster, the last answer to its reserve. A host is barred if with the VM there the cluster would no longer
	// hold a reserve that it holds now, or if it does not hold it now and the VM would be one more.
	Reserves map[inventory.ID]*Admission
	// Restricted are hosts that take nothing new, and why.
	Restricted map[inventory.ID]string
	// HostReserve is the share of every host that is kept for the host itself.
	HostReserve HostReserve
	// ReserveAll counts all running VMs as ones that must be restarted when their host fails, also those that the platform
	// would not restart.
	ReserveAll bool

	// Urgent is for a VM that has to leave its host: a host may be filled to all it has, and how much demand varies does not bar it.
	Urgent bool

	roomless bool // how full a host is is not asked: a plan keeps its own sums
}

// Weights are what each resource counts in a rating. The zero Weights count all of them fully. Disk and network count only where it is
// known what a host can move.
type Weights struct {
	CPU, Memory, Disk, Network float64
}

// HostReserve is the share of a host, 0..1, that is kept for the host itself.
type HostReserve struct {
	CPURatio    float64
	MemoryRatio float64
}

// capacity is what the host has for its VMs.
func (r HostReserve) capacity(h *inventory.Host) Use {
	return Use{h.CPUHertz * (1 - r.CPURatio), h.MemoryBytes * (1 - r.MemoryRatio)}
}

// Reason is one thing that speaks for or against a host.
type Reason struct {
	Code string `json:"code"` // stable; see the Code constants
	Text string `json:"text"`
	Bars bool   `json:"bars"` // the host may not take the VM
}

// Codes of reasons. The first four say what is left after the move, the others only ever speak against a host.
const (
	CodeCPURoom       = "cpu_room"
	CodeMemoryRoom    = "memory_room"
	CodeDiskRoom      = "disk_room"
	CodeNetworkRoom   = "network_room"
	CodeSameHost      = "same_host"
	CodeStale         = "stale"          // the source or the host's load is not known as of now
	CodeDisconnected  = "disconnected"   // or not powered on
	CodeMaintenance   = "maintenance"    //
	CodeNoCapacity    = "no_capacity"    // the host's size is not known
	CodeUnknownDemand = "unknown_demand" // of the VM, or of one that runs on the host
	CodeNotRunning    = "not_running"    // the VM is off, suspended or a template
	CodeVMUnreachable = "vm_unreachable" // the platform does not reach the VM
	CodeAffinity      = "affinity"
	CodeAntiAffinity  = "anti_affinity"
	CodeHostRule      = "host_rule"       // a rule ties the VM to other hosts, or bars it from this one
	CodeDatastore     = "datastore"       // the host does not reach the VM's files
	CodeNetwork       = "network"         // the host lacks a network that the VM is attached to
	CodeWide          = "wide"            // more vCPUs than the host has cores
	CodeRestricted    = "restricted"      // somebody, or a remedy, keeps new VMs off the host
	CodeContention    = "contention"      // the host's VMs wait for its CPU already
	CodeTag           = "tag"             // the VM's tags are better elsewhere
	CodeCPUModel      = "cpu_model"       // the host's processor is another
	CodeNotLive       = "not_live"        // the platform cannot move the VM while it runs
	CodeQuick         = "quick_migration" // it can be saved, moved and restored
	CodeHA            = "high_availability"
	CodeReserve       = "cluster_reserve"
)

// MoveKind is how a VM gets to a host.
type MoveKind string

// Kinds of moves. Empty: the VM does not exist yet.
const (
	MoveLive  MoveKind = "live"  // it runs on
	MoveQuick MoveKind = "quick" // it is saved, moved and restored: downtime
)

// Rating is how well a host suits a VM.
type Rating struct {
	Host    inventory.ID `json:"host"`
	Name    string       `json:"name"`
	Stars   float64      `json:"stars"` // 0..5 in halves; 0 = may not, and a reason bars
	Before  Load         `json:"before"`
	After   Load         `json:"after"`
	Kind    MoveKind     `json:"kind,omitempty"`
	Reasons []Reason     `json:"reasons"`

	fullness float64 // the weighted utilisation after the move, of the resource that is tightest
}

// Load is a host's expected utilisation, 0..1 of its capacity; above 1 it is over-committed. It is zero where the host's load
// is not known, which a reason then says.
type Load struct {
	CPURatio    float64 `json:"cpu_ratio"`
	MemoryRatio float64 `json:"memory_ratio"`
}

// Move takes a VM from one host to another.
type Move struct {
	VM     inventory.ID `json:"vm"`
	Name   string       `json:"name"`
	From   inventory.ID `json:"from"`
	To     inventory.ID `json:"to"`
	Kind   MoveKind     `json:"kind,omitempty"`
	Rating Rating       `json:"rating"` // of the target, at the time of planning
}
