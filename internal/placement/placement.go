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

// Demand is what each VM is expected to need, made outside (from samples or from history). A VM that is missing has no known
// demand and may not be moved, and a host with such a running VM may not be a target.
type Demand struct {
	VMs map[inventory.ID]Use
}

// VMSpec is the VM to be placed. Of one that exists only ID counts: the rest is in the snapshot and the demand.
type VMSpec struct {
	ID    inventory.ID // zero for one that does not exist yet
	Name  string
	VCPUs int
	Use   Use
}

// Policy is what the operator wants of a placement.
type Policy struct {
	// Ceiling is the utilisation of CPU and of memory, 0..1, that no host may pass by a move.
	Ceiling float64
	// Incoming are VMs on their way to a host: they count there as if they had arrived.
	Incoming map[inventory.ID][]inventory.ID
	// Frozen are VMs that may not be moved now, and why. Relieve leaves them where they are.
	Frozen map[inventory.ID]string
	// Restricted are hosts that take nothing new, and why.
	Restricted map[inventory.ID]string
	// HostReserve is the share of every host that is kept for the host itself.
	HostReserve HostReserve
	// ReserveAll counts all running VMs as ones that must be restarted when their host fails, also those that the platform
	// would not restart.
	ReserveAll bool
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

// Codes of reasons. The first two say what is left after the move, the others only ever speak against a host.
const (
	CodeCPURoom       = "cpu_room"
	CodeMemoryRoom    = "memory_room"
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
	CodeHostRule      = "host_rule" // a rule ties the VM to other hosts, or bars it from this one
	CodeDatastore     = "datastore" // the host does not reach the VM's files
	CodeWide          = "wide"      // more vCPUs than the host has cores
)

// Rating is how well a host suits a VM.
type Rating struct {
	Host    inventory.ID `json:"host"`
	Name    string       `json:"name"`
	Stars   float64      `json:"stars"` // 0..5 in halves; 0 = may not, and a reason bars
	Before  Load         `json:"before"`
	After   Load         `json:"after"`
	Reasons []Reason     `json:"reasons"`
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
	Rating Rating       `json:"rating"` // of the target, at the time of planning
}
