package placement

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/protip/protip/internal/inventory"
)

// Size is an amount of what a host has and a VM needs, in whole units, so that sums are exact.
type Size struct {
	CPUHertz    int64 `json:"cpu_hertz"`
	MemoryBytes int64 `json:"memory_bytes"`
}

func (a Size) plus(b Size) Size { return Size{a.CPUHertz + b.CPUHertz, a.MemoryBytes + b.MemoryBytes} }

func (a Size) minus(b Size) Size { return Size{a.CPUHertz - b.CPUHertz, a.MemoryBytes - b.MemoryBytes} }

func (a Size) fits(b Size) bool { return a.CPUHertz <= b.CPUHertz && a.MemoryBytes <= b.MemoryBytes }

// Bounds of a question. 2^15 VMs of 2^47 bytes each do not overflow a sum; nobody has more of either in one cluster.
const (
	maxAmount = 1 << 47
	maxClaims = 1 << 15
	maxHosts  = 1 << 12
)

// Question is a cluster as its reserve sees it: who could take VMs, who would have to be restarted, and by which rules.
// Hosts and VMs are named by their index. It is made by Ask, or by hand.
type Question struct {
	Cluster inventory.ID
	Name    string
	Reserve int // hosts that may fail at once
	Hosts   []Survivor
	VMs     []Claim
	Apart   []Group // at most one of each may run on a host
	Joined  []Group // all of each that run, run on one host
	// Guessed are running VMs without a known demand: they count with their configured size, which is the most they can need.
	Guessed []string
	// Unanswerable says why nothing can be said, empty if something can.
	Unanswerable string
}

// Survivor is a host while others fail.
type Survivor struct {
	ID   inventory.ID
	Name string
	Free Size // beside its own VMs, which stay put; nothing where it may take nothing
	// Coming are VMs on their way here, which Free counts as if they had arrived.
	Coming []inventory.ID
	// Shut says why it takes no VM at all, empty if it may take some.
	Shut string
}

// Claim is a VM that must be restarted elsewhere when its host fails.
type Claim struct {
	ID    inventory.ID
	Name  string
	Host  int
	Need  Size
	Hosts []int // where it may run, ascending; nil is anywhere
}

// Group is a mandatory rule. Others are hosts of running VMs that are in it and are not restarted: they stay put, or are lost.
type Group struct {
	Name   string
	VMs    []int
	Others []int
}

// Ask makes the question of a cluster's reserve. Capacity is what the host has less the policy's reserve for the host itself and
// what its VMs are expected to need or have reserved, whichever is more; the same counts for a VM that is restarted. VMs that
// are known not to be restarted stay put or are lost, unless all is asked, or the cluster restarts nothing by itself: then whoever
// asks for a reserve means all that run. VMs on their way count on both hosts.
func Ask(s *inventory.Snapshot, d Demand, cluster inventory.ID, reserve int, p Policy) Question {
	q := Question{Cluster: cluster, Reserve: reserve}
	c, ok := s.Cluster(cluster)
	if !ok {
		q.Name, q.Unanswerable = cluster.String(), "the cluster is not known"
		return q
	}
	q.Name = c.Name
	src, _ := s.Source(cluster.Source)
	switch {
	case !src.Synced:
		q.Unanswerable = fmt.Sprintf("source %s has not listed its objects yet", cluster.Source)
	case !src.Up:
		q.Unanswerable = fmt.Sprintf("source %s does not answer", cluster.Source)
	case c.Unread:
		q.Unanswerable = "the cluster's rules could not be read"
	}
	a := &asking{Question: &q, ledger: newLedger(s, d), policy: p, host: map[inventory.ID]int{}, vm: map[inventory.ID]int{}, at: map[inventory.ID]int{}, lacks: map[inventory.ID][]bool{}}
	hosts := s.HostsOf(cluster)
	slices.SortFunc(hosts, func(a, b inventory.HostView) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID.Ref, b.ID.Ref))
	})
	for i, h := range hosts {
		a.host[h.ID] = i
	}
	for _, h := range hosts {
		a.addHost(h, c)
	}
	a.addRules(c)
	for i := range q.VMs {
		a.restrict(&q.VMs[i], c)
	}
	if len(q.VMs) > maxClaims || len(q.Hosts) > maxHosts {
		q.Unanswerable = fmt.Sprintf("%d hosts and %d VMs are more than can be looked at", len(q.Hosts), len(q.VMs))
	}
	return q
}

// asking is a question being made.
type asking struct {
	*Question
	*ledger
	policy Policy
	host   map[inventory.ID]int
	vm     map[inventory.ID]int    // claims
	at     map[inventory.ID]int    // host of every running VM
	lacks  map[inventory.ID][]bool // by network, the hosts that are known to lack it; nil if none is
}

func (a *asking) addHost(h inventory.HostView, c *inventory.Cluster) {
	i := len(a.Hosts)
	b := a.of(h, a.policy.Incoming[h.ID])
	load := b.load
	for _, vm := range a.snap.VMsOn(h.ID) {
		if !runs(vm.VM) {
			continue
		}
		a.at[vm.ID] = i
		use, known := a.use(vm.ID)
		if !known {
			use = configured(vm.VM, h)
			a.Guessed = append(a.Guessed, vm.Name)
			load = load.plus(use)
		}
		est, _ := a.demand.of(vm.ID)
		kept := Use{CPUHertz: max(use.CPUHertz+est.rise(), vm.CPUReservationHertz), MemoryBytes: max(use.MemoryBytes, vm.MemoryReservationBytes)}
		load = load.plus(kept.minus(use))
		if !a.policy.ReserveAll && c.HA.Enabled && !restarted(vm.VM, c) {
			continue
		}
		need, ok := kept.ceil()
		if !ok && a.Unanswerable == "" {
			a.Unanswerable = fmt.Sprintf("the size of %s is not known", vm.Name)
		}
		a.vm[vm.ID] = len(a.VMs)
		a.VMs = append(a.VMs, Claim{ID: vm.ID, Name: vm.Name, Host: i, Need: need})
	}
	host := Survivor{ID: h.ID, Name: h.Name, Coming: a.policy.Incoming[h.ID]}
	free, ok := a.policy.HostReserve.capacity(h.Host).minus(load).floor()
	switch {
	case h.Maintenance:
		host.Shut = "in maintenance"
	case h.Connection != inventory.Connected || h.Power != inventory.PowerOn:
		host.Shut = fmt.Sprintf("%s, power %s", h.Connection, h.Power)
	case b.stale != "":
		host.Shut = "its load is not known: " + b.stale
	case !b.sized() || !ok:
		host.Shut = "its capacity is not known"
	case a.policy.Restricted[h.ID] != "":
		host.Shut = "restricted: " + a.policy.Restricted[h.ID]
	default:
		host.Free = free
	}
	a.Hosts = append(a.Hosts, host)
}

// restarted reports whether the platform restarts the VM elsewhere when its host fails. Where that is not known it counts: to be
// wrong about it costs room, not a VM.
func restarted(vm *inventory.VM, c *inventory.Cluster) bool {
	if vm.Availability != "" {
		return vm.Availability == inventory.HighlyAvailable
	}
	priority, ok := c.RestartPriorities[vm.ID]
	if !ok {
		priority = c.RestartPriority
	}
	return priority != "disabled"
}

// addRules takes the mandatory rules between VMs. What a rule only wishes for does not keep a VM from being restarted.
func (a *asking) addRules(c *inventory.Cluster) {
	for _, r := range c.Rules {
		if !r.Enabled || !r.Mandatory {
			continue
		}
		g := Group{Name: r.Name}
		for _, vm := range r.VMs {
			if i, ok := a.vm[vm]; ok {
				if !slices.Contains(g.VMs, i) { // a list may name a VM twice
					g.VMs = append(g.VMs, i)
				}
			} else if h, ok := a.at[vm]; ok {
				g.Others = append(g.Others, h)
			}
		}
		switch {
		case len(g.VMs) == 0 || len(g.VMs)+len(g.Others) < 2:
		case r.Kind == inventory.AntiAffinity:
			a.Apart = append(a.Apart, g)
		case r.Kind == inventory.Affinity:
			a.Joined = append(a.Joined, g)
		}
	}
}

// restrict finds the hosts a claim may run on, by its datastores, its networks and the mandatory rules between VMs and hosts.
func (a *asking) restrict(v *Claim, c *inventory.Cluster) {
	vm, _ := a.snap.VM(v.ID)
	var stores []inventory.DatastoreView
	for _, id := range vm.Datastores {
		if ds, ok := a.snap.Datastore(id); ok && ds.Mounts != nil {
			stores = append(stores, ds)
		}
	}
	var lacks [][]bool
	for _, id := range vm.Networks {
		if hosts := a.lacking(id); hosts != nil {
			lacks = append(lacks, hosts)
		}
	}
	var ties []inventory.HostRule
	for _, r := range c.HostRules {
		if r.Enabled && r.Mandatory && slices.Contains(r.VMs, v.ID) {
			ties = append(ties, r)
		}
	}
	if len(stores) == 0 && len(lacks) == 0 && len(ties) == 0 {
		return
	}
	hosts := make([]int, 0, len(a.Hosts))
	for i, h := range a.Hosts {
		reached := !slices.ContainsFunc(stores, func(ds inventory.DatastoreView) bool {
			yes, known := ds.Runs(h.ID)
			return known && !yes
		})
		attached := !slices.ContainsFunc(lacks, func(hosts []bool) bool { return hosts[i] })
		barred := slices.ContainsFunc(ties, func(r inventory.HostRule) bool {
			return slices.Contains(r.Hosts, h.ID) != (r.Kind == inventory.Affinity)
		})
		if reached && attached && !barred {
			hosts = append(hosts, i)
		}
	}
	if len(hosts) < len(a.Hosts) {
		v.Hosts = hosts
	}
}

// lacking are the hosts, by index, that are known to lack a network; nil if none is. VMs share networks, so each is looked at once.
func (a *asking) lacking(network inventory.ID) []bool {
	hosts, looked := a.lacks[network]
	n, ok := a.snap.Network(network)
	if looked || !ok {
		return hosts
	}
	for i := range a.Hosts {
		h, _ := a.snap.Host(a.Hosts[i].ID)
		if on, known := n.On(h.Host); known && !on {
			if hosts == nil {
				hosts = make([]bool, len(a.Hosts))
			}
			hosts[i] = true
		}
	}
	a.lacks[network] = hosts
	return hosts
}

// configured is the most a VM can need.
func configured(vm *inventory.VM, h inventory.HostView) Use {
	size := Use{CPUHertz: float64(vm.VCPUs) * h.CoreHertz(), MemoryBytes: vm.MemoryBytes}
	if !(size.CPUHertz > 0) || !(size.MemoryBytes > 0) {
		size.CPUHertz = math.NaN()
	}
	return size
}

// ceil is at least u in whole units.
func (u Use) ceil() (Size, bool) {
	if !(u.CPUHertz >= 0 && u.CPUHertz <= maxAmount && u.MemoryBytes >= 0 && u.MemoryBytes <= maxAmount) {
		return Size{}, false
	}
	return Size{int64(math.Ceil(u.CPUHertz)), int64(math.Ceil(u.MemoryBytes))}, true
}

// floor is at most u in whole units.
func (u Use) floor() (Size, bool) {
	s, ok := u.ceil()
	if !ok {
		return Size{}, false
	}
	return Size{min(s.CPUHertz, int64(u.CPUHertz)), min(s.MemoryBytes, int64(u.MemoryBytes))}, true
}
