package placement

import (
	"fmt"
	"math"
	"slices"

	"github.com/protip/protip/internal/inventory"
)

// scene is the fleet as a plan works on it: numbers by index, and the ledger behind them for the rules.
type scene struct {
	*ledger
	policy Policy
	want   Rebalance
	hosts  []stage
	vms    []actor
	at     map[inventory.ID]int // hosts by ID
	steps  []step
	past   Past
	barred map[[2]int]string // VM and host, and the rule
	known  map[int]*candidate

	reserves map[inventory.ID]*keeper // by cluster, where one is asked for
}

// stage is a host and the sums over its VMs, those on their way to it included.
type stage struct {
	*book
	cluster         inventory.ID
	capacity        Use // without what is kept for the host itself
	core            float64
	power           []float64 // watts, from idle to busy; empty if not known
	perHertz        float64   // watts at its peak; 0 if not known
	level, variance float64
	now             Use
	flow            Flow
	vms             []int
	shut            bool // takes nothing
	asked           bool // that it be emptied
}

// actor is a VM that runs on a host whose load is known.
type actor struct {
	estimate
	id    inventory.ID
	name  string
	vcpus float64
	host  int
	first int    // host that it was on before this plan
	fixed string // why it may not be moved, empty if it may
	moved bool   // by this plan
}

// step is a move by index.
type step struct {
	vm, from, to int
	code         string
	gain         float64 // hertz of demand that would not be served without it; to spread, how much closer two hosts come
}

func stageOf(s *inventory.Snapshot, d Demand, r Rebalance, p Policy) *scene {
	reserve := p.HostReserve
	asked := p
	p.Reserves = nil // the reserve is the plan's own question, asked of each state in turn
	if !r.AsRated {  // and so is room; of ratings it asks for rules
		p.Ceiling, p.HostReserve, p.roomless = math.MaxFloat64, HostReserve{}, true
	}
	c := &scene{
		ledger: newLedger(s, d), policy: p, want: r, at: map[inventory.ID]int{},
		past: r.Past.clone(r.Now), barred: map[[2]int]string{}, known: map[int]*candidate{},
	}
	c.keepers(d, asked)
	for h := range s.Hosts() {
		if !r.Cluster.IsZero() && h.Cluster != r.Cluster {
			continue
		}
		c.addHost(h, reserve.capacity(h.Host))
	}
	for host, vms := range p.Incoming { // where they still are, they do not stay to be moved again
		for _, id := range vms {
			for i := range c.vms {
				if c.vms[i].id == id && c.hosts[c.vms[i].host].host.ID != host {
					c.vms[i].fixed = "it is being moved"
				}
			}
		}
	}
	return c
}

func (c *scene) addHost(h inventory.HostView, capacity Use) {
	b := c.of(h, c.policy.Incoming[h.ID])
	st := stage{book: b, cluster: h.Cluster, core: h.CoreHertz(), capacity: capacity}
	if watts := c.want.Watts[h.ID]; len(watts) > 0 && !slices.ContainsFunc(watts, func(w float64) bool { return !amount(w) }) && h.CPUHertz > 0 {
		st.power, st.perHertz = watts, watts[len(watts)-1]/h.CPUHertz
	}
	st.shut = b.stale != "" || !b.sized() || b.unknown != "" || h.Maintenance || h.Connection != inventory.Connected ||
		h.Power != inventory.PowerOn || c.policy.Restricted[h.ID] != "" || slices.Contains(c.want.Evacuate, h.ID)
	st.asked = slices.Contains(c.want.Evacuate, h.ID) || slices.Contains(c.want.Free, h.ID)
	st.level, st.now = b.load.CPUHertz, b.load
	at := len(c.hosts)
	c.at[h.ID] = at
	for _, vm := range c.snap.VMsOn(h.ID) {
		est, ok := c.demand.of(vm.ID)
		if !runs(vm.VM) || !ok {
			continue
		}
		a := actor{estimate: est, id: vm.ID, name: vm.Name, vcpus: float64(vm.VCPUs), host: at, first: at, fixed: c.policy.Frozen[vm.ID]}
		if dirty := c.want.DirtyRates[vm.ID]; a.fixed == "" && c.want.CopyRate > 0 && dirty >= c.want.CopyRate {
			a.fixed = fmt.Sprintf("it writes %.0f MB/s to its memory, and %.0f MB/s can be copied", dirty/1e6, c.want.CopyRate/1e6)
		}
		st.vms = append(st.vms, len(c.vms))
		st.level += a.level(&st) - est.Now.CPUHertz
		st.now.CPUHertz += a.now(&st) - est.Now.CPUHertz
		st.variance += est.CPUVariance
		st.flow = st.flow.plus(est.Flow, 1)
		c.vms = append(c.vms, a)
	}
	for _, id := range c.policy.Incoming[h.ID] {
		if est, ok := c.demand.of(id); ok && !slices.ContainsFunc(st.vms, func(v int) bool { return c.vms[v].id == id }) {
			st.level += est.CPUHertz - est.Now.CPUHertz
			st.variance += est.CPUVariance
			st.flow = st.flow.plus(est.Flow, 1)
		}
	}
	c.hosts = append(c.hosts, st)
}

// now is what the VM takes of the host: no more than its vCPUs can have there.
func (a *actor) now(h *stage) float64 { return a.on(h, a.Now.CPUHertz) }

func (a *actor) level(h *stage) float64 { return a.on(h, a.CPUHertz) }

func (a *actor) on(h *stage, hertz float64) float64 {
	if h.core > 0 && a.vcpus > 0 {
		return min(hertz, a.vcpus*h.core)
	}
	return hertz
}

func (h *stage) add(a *actor, sign float64) {
	h.level += sign * a.level(h)
	h.variance = max(0, h.variance+sign*a.CPUVariance)
	h.now.CPUHertz += sign * a.now(h)
	h.now.MemoryBytes += sign * a.Now.MemoryBytes
	h.flow = h.flow.plus(a.Flow, sign)
}

// shift moves a VM in the scene, and says nothing of it yet.
func (c *scene) shift(v, to int) {
	a := &c.vms[v]
	from := &c.hosts[a.host]
	from.vms = slices.DeleteFunc(from.vms, func(x int) bool { return x == v })
	from.add(a, -1)
	c.leave(from.book, a.id)
	a.host = to
	c.hosts[to].vms = append(c.hosts[to].vms, v)
	c.hosts[to].add(a, 1)
	c.arrive(c.hosts[to].book, a.id)
}

// move is a shift that is part of the plan.
func (c *scene) move(v, to int, code string, gain float64) {
	from := c.vms[v].host
	c.count(v, to)
	c.shift(v, to)
	c.note(v, from, to, code, gain)
}

func (c *scene) note(v, from, to int, code string, gain float64) {
	c.vms[v].moved = true
	id := c.vms[v].id
	c.past.Left[id] = append(c.past.Left[id], Departure{c.hosts[from].host.ID, c.want.Now})
	c.steps = append(c.steps, step{v, from, to, code, gain})
}

// stays reports whether the VM is not to be moved, or not again.
func (c *scene) stays(v int) bool { return c.vms[v].moved || c.vms[v].fixed != "" }

// may asks the rules and the reserve, once per VM and host: what is barred now stays so for this plan.
func (c *scene) may(v, to int) bool {
	if c.barred[[2]int{v, to}] != "" {
		return false
	}
	k, ok := c.known[v]
	if !ok {
		k, _ = c.candidate(VMSpec{ID: c.vms[v].id}, c.policy)
		c.known[v] = k
	}
	why, barred := c.rateHost(k, c.hosts[to].book, c.policy).Barred()
	if !barred {
		why = c.keeps(v, to)
	}
	if why != "" {
		c.barred[[2]int{v, to}] = why
	}
	return why == ""
}

// bars are the first of what keeps the VM from a host that has room, in the hosts' order.
func (c *scene) bars(v int) string {
	for to := range c.hosts {
		if why := c.barred[[2]int{v, to}]; why != "" {
			return fmt.Sprintf("%s: %s", c.hosts[to].host.Name, why)
		}
	}
	return "no host has room for it"
}
