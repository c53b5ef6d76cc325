package hyperv

import (
	"cmp"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/protip/protip/internal/sim/load"
)

// model is the one truth that all answers are made of. It has no goroutine: whoever looks at it brings it to the present first
// (advance), which integrates the counters and lets migrations begin, fail and end at their own times. The cluster's lock guards it.
type model struct {
	opt     Options
	boot    time.Time
	at      time.Time // the model's present
	nodes   []*node
	vms     []*vm
	volumes []*volume

	made       int          // VMs, those that are gone included
	migrations []*migration // in the order of the calls
	shutters   map[string]bool
}

type node struct {
	name     string
	id       int
	cores    int
	memory   float64
	state    NodeState
	switches []string
	drain    int // NodeDrainStatus: 0 none, 1 in progress, 2 done, 3 failed
	boot     time.Time

	// Integrals since boot, in 100 ns of one logical processor.
	guestTicks, hypervisorTicks, idleTicks, rootTicks float64

	traffic map[*volume]traffic

	usage float64 // of its processors at the model's present
}

// traffic is what was read from and written to disks.
type traffic struct{ readBytes, wroteBytes, reads, writes float64 }

func (io *traffic) count(u load.Use, d time.Duration) {
	io.readBytes += u.DiskRead * d.Seconds()
	io.wroteBytes += u.DiskWritten * d.Seconds()
	io.reads += u.DiskRead / ioSize * d.Seconds()
	io.writes += u.DiskWritten / ioSize * d.Seconds()
}

// ioSize is how many bytes one operation reads or writes.
const ioSize = 32 << 10

type vm struct {
	index    int
	id       string // GUID
	name     string
	vcpus    int
	memory   float64
	dynamic  bool
	volume   *volume
	switches []string
	grouped  bool   // has a role in the cluster
	group    string // the role's name: the VM's when it was made; a rename of the VM does not change it
	groupID  string
	created  string // the name it was made with: its files keep it

	priority     int
	antiAffinity []string
	liveFails    uint32
	failsNext    uint32
	limited      bool
	guest        Guest

	on      *node
	state   vmState
	started time.Time
	move    *migration // in progress or queued
	lastErr uint32     // of its last migration
	downed  time.Duration
	calls   int // of its being moved

	demand *load.Use // instead of the load's

	// What the host counts of it since it came to that host.
	use                                              load.Use
	runTicks, hypervisorTicks, waitNanos, dispatches float64 // summed over its processors
	received, sent                                   float64
	traffic
}

// vmState is a VM's EnabledState.
type vmState int

const (
	vmRunning vmState = 2
	vmOff     vmState = 3
	vmSaved   vmState = 6
)

type volume struct {
	name        string
	guid        string
	total, free float64
	noAccess    bool
	owner       *node
}

func newModel(opt Options) (*model, error) {
	m := &model{opt: opt, at: opt.Clock.Now(), shutters: map[string]bool{}}
	m.boot = m.at.Add(-49 * time.Hour)
	for i, v := range opt.Volumes {
		made := &volume{name: orElse(v.Name, fmt.Sprintf("Volume%d", i+1)), guid: m.guid("volume", i), total: v.TotalBytes, free: v.FreeBytes, noAccess: v.NoAccess}
		if made.total == 0 {
			made.total = 10 << 40
		}
		if made.free == 0 {
			made.free = 0.4 * made.total
		}
		m.volumes = append(m.volumes, made)
	}
	for i, spec := range opt.Nodes {
		n := &node{
			name: orElse(spec.Name, fmt.Sprintf("hv-%02d", i+1)), id: i + 1, cores: spec.Cores, memory: spec.MemoryBytes, state: spec.State, switches: spec.Switches, boot: m.boot, traffic: map[*volume]traffic{},
		}
		if n.cores == 0 {
			n.cores = 32
		}
		if n.memory == 0 {
			n.memory = 256 << 30
		}
		if n.switches == nil {
			n.switches = []string{DefaultSwitch}
		}
		if m.node(n.name) != nil {
			return nil, fmt.Errorf("node %s stands there twice", n.name)
		}
		m.nodes = append(m.nodes, n)
		for _, spec := range spec.VMs {
			if err := m.add(spec, n); err != nil {
				return nil, fmt.Errorf("VM %s of node %s: %w", spec.Name, n.name, err)
			}
		}
	}
	for i, v := range m.volumes {
		if len(m.nodes) > 0 {
			v.owner = m.nodes[i%len(m.nodes)]
		}
	}
	return m, nil
}

func (m *model) add(spec VM, on *node) error {
	i := m.made
	made := &vm{
		index: i, id: strings.ToUpper(orElse(spec.ID, m.guid("vm", i))), name: orElse(spec.Name, fmt.Sprintf("vm-%03d", i+1)), vcpus: spec.VCPUs, memory: spec.MemoryBytes,
		dynamic: spec.Dynamic, grouped: !spec.Unclustered && !m.opt.Standalone, groupID: strings.ToLower(m.guid("group", i)), priority: spec.Priority,
		antiAffinity: spec.AntiAffinity, liveFails: spec.LiveFails, limited: spec.LimitProcessorFeatures, guest: spec.Guest, on: on,
		state: vmRunning, started: m.at.Add(-48 * time.Hour),
	}
	made.guest.Services = append([]Service(nil), spec.Guest.Services...)
	made.guest.DiskLatency = cmp.Or(spec.Guest.DiskLatency, 5*time.Millisecond)
	made.created = made.name
	if made.switches = spec.Switches; made.switches == nil {
		made.switches = []string{DefaultSwitch}
	}
	if made.vcpus == 0 {
		made.vcpus = 2
	}
	if made.memory == 0 {
		made.memory = 4 << 30
	}
	if made.priority == 0 {
		made.priority = 2000
	}
	if spec.Off {
		made.state = vmOff
	}
	if len(m.volumes) > 0 {
		made.volume = m.volumes[i%len(m.volumes)]
	}
	if spec.Volume != "" {
		if made.volume = m.volume(spec.Volume); made.volume == nil {
			return fmt.Errorf("volume %s: %w", spec.Volume, ErrUnknown)
		}
	}
	if m.vm(made.id) != nil {
		return fmt.Errorf("GUID %s stands there twice", made.id)
	}
	if made.grouped {
		made.group = m.freeGroupName(made.name)
	}
	m.vms = append(m.vms, made)
	m.made++
	return nil
}

// freeGroupName is the VM's name, numbered if another role has it: names of roles are unique, names of VMs are not.
func (m *model) freeGroupName(name string) string {
	candidate := name
	for n := 2; m.group(candidate) != nil; n++ {
		candidate = fmt.Sprintf("%s (%d)", name, n)
	}
	return candidate
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// guid is the same GUID for the same seed and words.
func (m *model) guid(kind string, n int) string {
	sum := sha1.Sum(fmt.Appendf(nil, "%d/%s/%d", m.opt.Seed, kind, n))
	h := hex.EncodeToString(sum[:16])
	return strings.ToUpper(strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:32]}, "-"))
}

func (m *model) node(name string) *node {
	for _, n := range m.nodes {
		if strings.EqualFold(n.name, name) || strings.EqualFold(n.name+"."+m.opt.Domain, name) {
			return n
		}
	}
	return nil
}

func (m *model) vm(id string) *vm {
	for _, vm := range m.vms {
		if strings.EqualFold(vm.id, id) {
			return vm
		}
	}
	return nil
}

func (m *model) group(name string) *vm {
	for _, vm := range m.vms {
		if vm.grouped && (strings.EqualFold(vm.group, name) || strings.EqualFold(vm.groupID, name)) {
			return vm
		}
	}
	return nil
}

func (m *model) volume(name string) *volume {
	for _, v := range m.volumes {
		if v.name == name {
			return v
		}
	}
	return nil
}

// Memory of the root partition, and what a VM with dynamic memory has at least.
const (
	rootMemory    = 4 << 30
	minimumMemory = 512 << 20
)

// assigned is the memory that a host gives to a VM, demanded what it would like to have.
func (vm *vm) assigned() float64 {
	switch {
	case vm.state != vmRunning:
		return 0
	case !vm.dynamic:
		return vm.memory
	}
	return min(vm.memory, max(minimumMemory, 1.2*vm.demanded()))
}

// footprint is what a host must have for it: while it is saved and on its way, all that it is configured with.
func (vm *vm) footprint() float64 {
	if vm.state == vmSaved && vm.move != nil {
		return vm.memory
	}
	return vm.assigned()
}

func (vm *vm) demanded() float64 {
	if vm.state != vmRunning {
		return 0
	}
	return vm.use.MemoryConsumed * vm.memory
}

// plugs reports whether a node has the switches that a VM is plugged into.
func (n *node) plugs(v *vm) bool {
	return !slices.ContainsFunc(v.switches, func(name string) bool { return !slices.Contains(n.switches, name) })
}

// freeMemory is what a node has left for further VMs, those on their way to it already counted.
func (m *model) freeMemory(n *node) float64 {
	free := n.memory - rootMemory
	for _, vm := range m.vms {
		switch {
		case vm.on == n:
			free -= vm.footprint()
		case vm.move != nil && vm.move.to == n && vm.move.running():
			free -= vm.footprint()
		}
	}
	return free
}

// change brings the model to the present and lets f change it.
func (c *Cluster) change(f func(m *model) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.model.advance(c.clock.Now())
	return f(c.model)
}

func look[T any](c *Cluster, f func(m *model) T) T {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.model.advance(c.clock.Now())
	return f(c.model)
}

// Nodes are the nodes' names, in the order of Options.
func (c *Cluster) Nodes() []string {
	return look(c, func(m *model) (names []string) {
		for _, n := range m.nodes {
			names = append(names, n.name)
		}
		return names
	})
}

// VMs are the VMs' GUIDs, in the order of Options.
func (c *Cluster) VMs() []string {
	return look(c, func(m *model) (ids []string) {
		for _, vm := range m.vms {
			ids = append(ids, vm.id)
		}
		return ids
	})
}

// Truth is what is so of a VM at the moment.
type Truth struct {
	ID, Name, Group string
	Node            string // where it runs, or would
	Running         bool
	Moving          bool          // a migration runs or waits in a queue
	Calls           int           // that asked for it to be moved, whatever came of them
	Downtime        time.Duration // of all its migrations
	CPU             float64       // demanded, of its vCPUs
	AssignedBytes   float64
	DemandedBytes   float64
}

// Truth is what is so of a VM at the moment; the zero value if there is no such VM.
func (c *Cluster) Truth(vm string) Truth {
	return look(c, func(m *model) Truth {
		v := m.vm(vm)
		if v == nil {
			return Truth{}
		}
		return Truth{
			ID: v.id, Name: v.name, Group: v.group, Node: v.on.name, Running: v.state == vmRunning, Moving: v.move != nil, Calls: v.calls,
			Downtime: v.downed, CPU: v.use.CPU, AssignedBytes: v.assigned(), DemandedBytes: v.demanded(),
		}
	})
}

// HostUse is how much of a node's processors, 0..1, and how much of its memory, in bytes, is in use at the moment.
func (c *Cluster) HostUse(node string) (cpu, memoryBytes float64) {
	type pair struct{ cpu, memory float64 }
	p := look(c, func(m *model) pair {
		if n := m.node(node); n != nil {
			return pair{n.usage, n.memory - m.freeMemory(n)}
		}
		return pair{}
	})
	return p.cpu, p.memory
}

// MoveCalls is how many calls asked for each VM to be moved, by GUID, the refused ones too. VMs that nobody asked to move are absent.
func (c *Cluster) MoveCalls() map[string]int {
	return look(c, func(m *model) map[string]int {
		calls := map[string]int{}
		for _, vm := range m.vms {
			if vm.calls > 0 {
				calls[vm.id] = vm.calls
			}
		}
		return calls
	})
}

// SetNodeState makes a node be in a state of the cluster. A node that is down serves nothing, and its clustered VMs start anew
// on the other nodes; those without a role in the cluster are off.
func (c *Cluster) SetNodeState(name string, state NodeState) error {
	var was NodeState
	err := c.change(func(m *model) error {
		n := m.node(name)
		if n == nil {
			return fmt.Errorf("node %s: %w", name, ErrUnknown)
		}
		was, n.state = n.state, state
		n.drain = 0
		if state == NodeDown {
			m.failOver(n)
		}
		return nil
	})
	if err != nil {
		return err
	}
	switch {
	case state == NodeDown:
		c.endpoint(name).stop()
	case was == NodeDown:
		return c.endpoint(name).start()
	}
	return nil
}

// Pause pauses a node. With drain its running clustered VMs are live-migrated away, as far as there is room.
func (c *Cluster) Pause(name string, drain bool) error {
	return c.change(func(m *model) error {
		n := m.node(name)
		if n == nil {
			return fmt.Errorf("node %s: %w", name, ErrUnknown)
		}
		n.state = NodePaused
		if drain {
			m.drain(n)
		}
		return nil
	})
}

// Resume ends a pause. Nothing moves back.
func (c *Cluster) Resume(name string) error { return c.SetNodeState(name, NodeUp) }

// CreateVM makes a VM on a node and tells its GUID. A guest made so has no endpoint of its own.
func (c *Cluster) CreateVM(node string, spec VM) (id string, err error) {
	err = c.change(func(m *model) error {
		n := m.node(node)
		if n == nil {
			return fmt.Errorf("node %s: %w", node, ErrUnknown)
		}
		if err := m.add(spec, n); err != nil {
			return fmt.Errorf("create VM %s: %w", spec.Name, err)
		}
		made := m.vms[len(m.vms)-1]
		made.started, id = m.at, made.id
		return nil
	})
	return id, err
}

// DestroyVM makes a VM be gone, and what was moving it.
func (c *Cluster) DestroyVM(id string) error {
	return c.change(func(m *model) error {
		v := m.vm(id)
		if v == nil {
			return fmt.Errorf("VM %s: %w", id, ErrUnknown)
		}
		if v.move != nil {
			m.cancel(v.move)
		}
		m.vms = slices.DeleteFunc(m.vms, func(x *vm) bool { return x == v })
		return nil
	})
}

// Place makes a VM be on a node at once, as after a migration that nobody saw. It must not be moving.
func (c *Cluster) Place(id, node string) error {
	return c.change(func(m *model) error {
		v, n := m.vm(id), m.node(node)
		if v == nil || n == nil || v.move != nil {
			return fmt.Errorf("place VM %s on node %s: %w, or moving", id, node, ErrUnknown)
		}
		if v.on != n {
			v.on = n
			v.resetCounters()
		}
		return nil
	})
}

// Rename gives a VM another name. Its group and its files keep the old one.
func (c *Cluster) Rename(id, name string) error {
	return c.changeVM(id, func(v *vm) error { v.name = name; return nil })
}

func (c *Cluster) changeVM(id string, f func(*vm) error) error {
	return c.change(func(m *model) error {
		v := m.vm(id)
		if v == nil {
			return fmt.Errorf("VM %s: %w", id, ErrUnknown)
		}
		return f(v)
	})
}

// TurnOff and TurnOn stop and start a VM where it is.
func (c *Cluster) TurnOff(id string) error {
	return c.changeVM(id, func(v *vm) error { v.state = vmOff; v.resetCounters(); return nil })
}

// TurnOn starts a VM where it is.
func (c *Cluster) TurnOn(id string) error {
	return c.change(func(m *model) error {
		v := m.vm(id)
		if v == nil {
			return fmt.Errorf("VM %s: %w", id, ErrUnknown)
		}
		v.state, v.started = vmRunning, m.at
		return nil
	})
}

// SetLiveFails sets the error that ends live migrations of a VM from now on; 0 lets them succeed.
func (c *Cluster) SetLiveFails(id string, code uint32) error {
	return c.changeVM(id, func(v *vm) error { v.liveFails = code; return nil })
}

// FailNextMove makes the next migration of a VM that begins end with an error, whatever its kind.
func (c *Cluster) FailNextMove(id string, code uint32) error {
	return c.changeVM(id, func(v *vm) error { v.failsNext = code; return nil })
}

// SetService sets the state of a Windows service in a guest.
func (c *Cluster) SetService(id, service, state string) error {
	return c.changeVM(id, func(v *vm) error {
		for i := range v.guest.Services {
			if v.guest.Services[i].Name == service {
				v.guest.Services[i].State = state
				return nil
			}
		}
		return fmt.Errorf("service %s of VM %s: %w", service, id, ErrUnknown)
	})
}

// SetDemand makes a VM demand u from now on, whatever the load says; nil returns it to the load.
func (c *Cluster) SetDemand(id string, u *load.Use) error {
	return c.changeVM(id, func(v *vm) error {
		v.demand = nil
		if u != nil {
			fixed := *u
			v.demand = &fixed
		}
		return nil
	})
}

// Heat makes the VMs that now run on a node demand so much of its processors, all the same share of their vCPUs, and if memory
// is not 0 so much of their own memory. They take it along when they move. A negative cpu returns them to the load.
func (c *Cluster) Heat(name string, cpu, memory float64) error {
	return c.change(func(m *model) error {
		n := m.node(name)
		if n == nil {
			return fmt.Errorf("node %s: %w", name, ErrUnknown)
		}
		vcpus := 0
		for _, vm := range m.on(n) {
			vcpus += vm.vcpus
		}
		for _, vm := range m.on(n) {
			if vm.demand = nil; cpu < 0 {
				continue
			}
			u := load.Around(vm.index, min(1, max(0, cpu-rootShare-hypervisorShare)*float64(n.cores)/float64(vcpus)))
			if memory > 0 {
				u.MemoryConsumed, u.MemoryActive = memory, memory/2
			}
			vm.demand = &u
		}
		return nil
	})
}

// DropClass makes a class be absent, as on a host whose performance counters are broken; RestoreClass undoes it.
func (c *Cluster) DropClass(class string) { c.shutter(class, true) }

// RestoreClass undoes DropClass.
func (c *Cluster) RestoreClass(class string) { c.shutter(class, false) }

// DropProperty makes a property of a class be absent, as in another version of Windows.
func (c *Cluster) DropProperty(class, property string) { c.shutter(class+"."+property, true) }

func (c *Cluster) shutter(name string, shut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := maps.Clone(c.model.shutters)
	next[strings.ToLower(name)] = shut
	c.model.shutters = next
}
