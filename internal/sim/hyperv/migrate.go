package hyperv

import (
	"fmt"
	"slices"
	"time"
)

// migration is one move of one VM, from the call that was accepted until it ended.
//
//	queued -- a slot is free on both nodes --> running -- its time --> done: online on the target
//	   |                                          |
//	   +-- canceled --> failed <------------------+-- no memory, no credentials, canceled, a node went down:
//	                                                  online on the source, or failed where it is
//
// While it runs, the group is pending. Of a quick one the VM is saved, its owner changes halfway, and it is down throughout.
type migration struct {
	job      string // InstanceID
	vm       *vm
	from, to *node
	live     bool
	returns  bool // to the source, if it fails
	foreign  bool // no client of the service asked for it: a drain

	queued, began, ends, ended time.Time
	moved                      bool // quick: the owner is the target
	code                       uint32
	canceled                   bool
}

func (mg *migration) running() bool { return !mg.began.IsZero() && mg.ended.IsZero() }

func (mg *migration) waiting() bool { return mg.began.IsZero() && mg.ended.IsZero() }

// percent is how far it is, as the platform would tell.
func (mg *migration) percent(now time.Time) int {
	switch {
	case mg.waiting():
		return 0
	case !mg.ended.IsZero():
		return 100
	}
	return int(min(99, 100*float64(now.Sub(mg.began))/float64(mg.ends.Sub(mg.began))))
}

// Flags of MoveToNewNodeParams.
const (
	returnToSource = 2
	queueEnabled   = 4
)

// refusal is what makes a call fail at once.
type refusal struct {
	code uint32
	why  string
}

func (r *refusal) Error() string { return fmt.Sprintf("%s (0x%08X)", r.why, r.code) }

// move begins to migrate a VM, or puts it in the queue.
func (m *model) move(v *vm, to *node, live bool, flags uint32) (*migration, error) {
	switch {
	case v.move != nil:
		return nil, &refusal{moveInProgress, "a migration of the virtual machine is in progress"}
	case to.state == NodeDown, to.state == NodeJoining:
		return nil, &refusal{nodeDown, "the cluster node is down"}
	case to.state == NodePaused:
		return nil, &refusal{nodePaused, "the cluster node is paused"}
	case v.state == vmRunning && v.on != to && flags&queueEnabled == 0 && !m.slotFree(v.on, to):
		return nil, &refusal{slotsTaken, "the nodes take part in as many migrations as they may"}
	}
	mg := &migration{
		job: m.guid("job", len(m.migrations)), vm: v, from: v.on, to: to, live: live && v.state == vmRunning, returns: flags&returnToSource != 0, queued: m.at,
	}
	m.migrations = append(m.migrations, mg)
	if v.on == to {
		mg.began, mg.ended = m.at, m.at
		return mg, nil
	}
	v.move, v.lastErr = mg, 0
	m.begin()
	return mg, nil
}

// slotFree reports whether two nodes may take part in one more migration.
func (m *model) slotFree(a, b *node) bool {
	return m.active(a) < m.opt.ActiveMigrations && m.active(b) < m.opt.ActiveMigrations
}

func (m *model) active(n *node) int {
	count := 0
	for _, vm := range m.vms {
		if vm.move != nil && vm.move.running() && (vm.move.from == n || vm.move.to == n) {
			count++
		}
	}
	return count
}

// begin lets those in the queue begin for which there is a slot, first come first served.
func (m *model) begin() {
	for _, mg := range m.migrations {
		if !mg.waiting() || !m.slotFree(mg.from, mg.to) {
			continue
		}
		takes := m.opt.MigrationTime(mg.vm.memory)
		mg.code = m.obstacle(mg)
		mg.began = m.at
		if mg.code != 0 && mg.live {
			takes /= 3 // what is in the way is found after a while
		}
		mg.ends = m.at.Add(takes)
		if !mg.live && mg.vm.state == vmRunning {
			mg.vm.state = vmSaved
		}
	}
}

// obstacle is the error that a migration which begins now will end with, 0 if it will succeed.
func (m *model) obstacle(mg *migration) uint32 {
	switch next := mg.vm.failsNext; {
	case next != 0:
		mg.vm.failsNext = 0
		return next
	case mg.live && mg.vm.liveFails != 0:
		return mg.vm.liveFails
	case mg.live && m.opt.Standalone && m.opt.NoDelegation:
		return NoCredentials
	case !mg.to.plugs(mg.vm):
		return noSwitch
	case m.freeMemory(mg.to) < mg.vm.footprint():
		return NoMemory
	}
	return 0
}

// advance brings the model to t: everything that was to happen until then happens, each at its time.
func (m *model) advance(t time.Time) {
	for {
		next := m.nextEnd()
		if next == nil || next.ends.After(t) {
			break
		}
		m.integrate(next.ends)
		m.end(next)
		m.begin()
	}
	m.integrate(t)
	for _, vm := range m.vms { // halfway, what is saved changes hands
		if mg := vm.move; mg != nil && !mg.live && mg.running() && !mg.moved && m.at.Sub(mg.began) > mg.ends.Sub(mg.began)/2 {
			mg.moved = true
			vm.on = mg.to
		}
	}
}

func (m *model) nextEnd() *migration {
	var next *migration
	for _, vm := range m.vms {
		if mg := vm.move; mg != nil && mg.running() && (next == nil || mg.ends.Before(next.ends)) {
			next = mg
		}
	}
	return next
}

// liveBlackout is how long a VM stands still at the end of a live migration.
const liveBlackout = 300 * time.Millisecond

// end is the end of a migration that ran: at the target, or failed.
func (m *model) end(mg *migration) {
	vm := mg.vm
	mg.ended = m.at
	vm.move, vm.lastErr = nil, mg.code
	switch {
	case mg.live && mg.code == 0:
		vm.on = mg.to
		vm.downed += liveBlackout
		vm.resetCounters()
	case !mg.live && vm.state == vmSaved:
		vm.downed += mg.ended.Sub(mg.began)
		vm.on = mg.to
		if mg.code != 0 {
			vm.on = mg.from
		}
		if mg.code == 0 || mg.returns {
			vm.state = vmRunning
		}
		vm.resetCounters()
	case !mg.live && mg.code == 0:
		vm.on = mg.to
	}
}

// cancel ends a migration where it is, or takes it from the queue.
func (m *model) cancel(mg *migration) {
	mg.canceled, mg.code = true, OperationCanceled
	if mg.began.IsZero() {
		mg.began = m.at
	}
	mg.ends = m.at
	mg.returns = true
	m.end(mg)
	m.begin()
}

// failOver is a node's end: its clustered VMs start anew elsewhere, and what was moving to or from it is over.
func (m *model) failOver(n *node) {
	for _, mg := range m.migrations {
		if mg.ended.IsZero() && (mg.from == n || mg.to == n) {
			m.cancel(mg)
			mg.code, mg.vm.lastErr = nodeDown, nodeDown
		}
	}
	for _, vm := range m.vms {
		if vm.on != n || vm.state == vmOff {
			continue
		}
		vm.resetCounters()
		refuge := m.roomiest(vm)
		if !vm.grouped || refuge == nil {
			vm.state = vmOff
			continue
		}
		vm.on, vm.started = refuge, m.at
	}
	for _, v := range m.volumes {
		if v.owner == n {
			if i := slices.IndexFunc(m.nodes, func(o *node) bool { return o.state == NodeUp }); i >= 0 {
				v.owner = m.nodes[i]
			}
		}
	}
}

// roomiest is the node that is up and has the most memory left, nil if the VM fits nowhere.
func (m *model) roomiest(vm *vm) *node {
	var best *node
	for _, n := range m.nodes {
		if n.state == NodeUp && n != vm.on && n.plugs(vm) && m.freeMemory(n) >= vm.memory && (best == nil || m.freeMemory(n) > m.freeMemory(best)) {
			best = n
		}
	}
	return best
}

func (m *model) drain(n *node) {
	n.drain = 1
	for _, vm := range m.on(n) {
		if !vm.grouped || vm.move != nil {
			continue
		}
		if refuge := m.roomiest(vm); refuge != nil {
			if mg, err := m.move(vm, refuge, true, returnToSource|queueEnabled); err == nil {
				mg.foreign = true
			}
		}
	}
}

// drainStatus is the node's NodeDrainStatus: a drain is done once no clustered VM runs there any more.
func (m *model) drainStatus(n *node) int {
	if n.drain == 0 {
		return 0
	}
	left, moving := false, false
	for _, vm := range m.on(n) {
		if vm.grouped {
			left = true
			moving = moving || vm.move != nil
		}
	}
	switch {
	case moving:
		return 1
	case left:
		return 3
	}
	return 2
}

// Migration is what became of one accepted move.
type Migration struct {
	Job                string // InstanceID of its Msvm_MigrationJob
	VM, From, To       string // the VM's GUID, nodes' names
	Live               bool
	Foreign            bool // the cluster did it by itself
	Queued, Began, End time.Time
	Code               uint32 // 0: it succeeded
}

// Migrations are all that were accepted, in order, those in progress without an End.
func (c *Cluster) Migrations() []Migration {
	return look(c, func(m *model) (all []Migration) {
		for _, mg := range m.migrations {
			one := Migration{
				Job: mg.job, VM: mg.vm.id, From: mg.from.name, To: mg.to.name, Live: mg.live, Foreign: mg.foreign, Queued: mg.queued, Began: mg.began, End: mg.ended,
			}
			if !mg.ended.IsZero() {
				one.Code = mg.code
			}
			all = append(all, one)
		}
		return all
	})
}

// Move is a migration that no client of the service asked for: a person's in the other console, or the cluster's own.
func (c *Cluster) Move(vm, node string, live bool) error {
	return c.change(func(m *model) error {
		v, to := m.vm(vm), m.node(node)
		if v == nil || to == nil {
			return fmt.Errorf("move VM %s to node %s: %w", vm, node, ErrUnknown)
		}
		mg, err := m.move(v, to, live, returnToSource|queueEnabled)
		if err != nil {
			return fmt.Errorf("move VM %s to node %s: %w", vm, node, err)
		}
		mg.foreign = true
		return nil
	})
}
