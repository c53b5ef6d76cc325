package inventory

// Delta is what a source saw change. Objects are whole: a VM in VMs replaces what was known of it. The receiver owns the
// slices and what they point to.
//
// A source lists everything once after it connected: the first delta of the listing says Begin, the last Synced (one delta
// may say both). Objects of the source that were not in a delta in between are removed at Synced, and not before: so a
// reconnect leaves neither ghosts nor a flap.
type Delta struct {
	Source string
	Begin  bool
	Synced bool

	Clusters   []Cluster
	Hosts      []Host
	VMs        []VM
	Datastores []Datastore
	Services   []Service
	Pools      []ResourcePool
	Machines   []Machine
	Networks   []Network
	Removed    []ID

	Samples []SampleSet
}

// SampleSet is what was measured of one object at one time. Metrics it does not name keep their last sample.
type SampleSet struct {
	ID     ID
	At     int64 // Unix milliseconds, by protip's own clock
	Values []Value
}

// Value is one measured number.
type Value struct {
	Metric Metric
	Value  float64
}

// ChangeKind says what happened to an object.
type ChangeKind string

// The changes that a delta can make. New samples alone are no change.
const (
	Added   ChangeKind = "added"
	Removed ChangeKind = "removed"
	Moved   ChangeKind = "moved"   // a VM runs on another host than before
	Updated ChangeKind = "updated" // any other fact
	Synced  ChangeKind = "synced"  // the source's listing is complete; ID is zero
)

// Change is one event of the fleet.
type Change struct {
	Kind   ChangeKind `json:"kind"`
	Source string     `json:"source"`
	ID     ID         `json:"id,omitzero"`
	Name   string     `json:"name,omitempty"`
	From   ID         `json:"from,omitzero"` // host, of a move
	To     ID         `json:"to,omitzero"`   // host, of a move
}
