package placement

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/protip/protip/internal/inventory"
)

// What a plan is made by. None of them is about a fleet or a day; docs/placement.md tells what each buys.
const (
	// comfort is how many standard deviations of its VMs' demand a host keeps free when it takes one more: their sum passes the
	// host about one sample in eighteen, if demand were normal.
	comfort = 1.6
	// comfortPerAge is added for every interval that the samples are old: for so long nobody sees that a host is full.
	comfortPerAge = 0.9
	// comfortFree is added where a host is freed: nothing is urgent then, and what is freed shall stay so.
	comfortFree = 0.4
	// freeBelow is how full, at most, a host may be to be freed, as a share of the VMs that such a host holds. Fuller ones cost
	// more moves than the saving lasts. It counts where CPU is scarce: memory that is free stays free.
	freeBelow = 0.6
	// freeEvery is the time, in seconds, between two looks for hosts to free.
	freeEvery = 3600
	// notBack is the time, in seconds, in which no VM returns to a host that a plan took it from.
	notBack = 3600
	// worthwhile is the share of the crowded host's CPU that must be missing before load goes to hosts without comfort, and that
	// each move must then win in demand served; of many small VMs, half of what one of them has on average.
	worthwhile = 0.02
)

// Why a move is in a plan.
const (
	ForRelief     = "relief"     // the host cannot serve its VMs
	ForFreeing    = "freeing"    // the host is not needed
	ForEvacuation = "evacuation" // the host is to be emptied
)

// Rebalance is what a plan is asked for, beside the policy. Policy.Fill frees hosts, and otherwise all hosts are used.
type Rebalance struct {
	Now      float64        // seconds, on the clock of the samples
	Age      float64        // of the samples, in sampling intervals: 0 if they are of this moment
	Evacuate []inventory.ID // hosts that are to be emptied
	// In and Out are how many VMs a host may take and give at once; 0 is any number.
	In, Out int
	// MemoryCeiling is the policy's ceiling for memory, where it is another one; 0 is the same.
	MemoryCeiling float64
	// PeakWatts are what hosts draw when busy. Where that is known, hosts that need less for the same work are filled first.
	PeakWatts map[inventory.ID]float64
	Past      Past // what the plan before this one returned
}

// Past is what a plan must know of those before it.
type Past struct {
	Freed float64                      `json:"freed"` // when hosts to be freed were looked for
	Left  map[inventory.ID][]Departure `json:"left"`  // by VM, of the last hour; nil before the first plan
}

// Departure is a host that a plan took a VM from.
type Departure struct {
	Host inventory.ID `json:"host"`
	At   float64      `json:"at"`
}

// Course is a plan: waves of moves, each to begin when the one before has ended.
type Course struct {
	Waves [][]Step   `json:"waves"`
	Left  []Leftover `json:"left,omitempty"` // VMs that stay on a host to be emptied
	Past  Past       `json:"past"`
}

// Step is one move of a plan.
type Step struct {
	VM          inventory.ID `json:"vm"`
	Name        string       `json:"name"`
	From        inventory.ID `json:"from"`
	To          inventory.ID `json:"to"`
	For         string       `json:"for"`
	CopyBytes   float64      `json:"copy_bytes"`   // its memory
	GainedHertz float64      `json:"gained_hertz"` // demand that is expected to be served for it, where that is the reason
	Why         string       `json:"why"`
}

// Leftover is a VM that finds no other host.
type Leftover struct {
	VM   inventory.ID `json:"vm"`
	Name string       `json:"name"`
	Why  string       `json:"why"`
}

// Plan says what should move now. It empties hosts that are to be emptied, takes load off hosts that cannot serve their VMs, and, to
// fill, frees hosts that are not needed, each wholly or not at all. At every step memory holds on both ends and no rule is broken; a
// host takes a VM only up to the ceiling and only if its VMs' expected demand leaves it comfort; if no such host is there, load goes
// from hosts above 100 % to hosts that stay below it, as long as each move is worthwhile. The same values give the same plan.
func Plan(s *inventory.Snapshot, e map[inventory.ID]Estimate, r Rebalance, p Policy) Course {
	if !(r.MemoryCeiling > 0) {
		r.MemoryCeiling = p.Ceiling
	}
	c := &planner{scene: stageOf(s, e, r, p), ceiling: p.Ceiling, comfort: comfort + comfortPerAge*max(0, r.Age)}
	left := c.evacuate()
	if p.Fill {
		c.relieve()
		if r.Past.Left == nil || r.Now-c.past.Freed >= freeEvery {
			c.past.Freed = r.Now
			c.free()
		}
	}
	c.even()
	return Course{Waves: c.waves(), Left: left, Past: c.past}
}

// clone keeps what still counts.
func (p Past) clone(now float64) Past {
	left := map[inventory.ID][]Departure{}
	for vm, all := range p.Left {
		for _, d := range all {
			if now-d.At < notBack {
				left[vm] = append(left[vm], d)
			}
		}
	}
	return Past{p.Freed, left}
}

// planner is a plan under way.
type planner struct {
	*scene
	ceiling, comfort float64
}

// room is whether the host holds the VM: memory, cores as fast as the VM may need, and not back so soon.
func (c *planner) room(v, to int) bool {
	a, h := &c.vms[v], &c.hosts[to]
	if h.shut || to == a.host || h.cluster != c.hosts[a.host].cluster || h.cluster.IsZero() ||
		h.now.MemoryBytes+a.Now.MemoryBytes > c.want.MemoryCeiling*h.capacity.MemoryBytes {
		return false
	}
	if slices.ContainsFunc(c.past.Left[a.id], func(d Departure) bool { return d.Host == h.host.ID }) {
		return false
	}
	likely := max(a.Now.CPUHertz, a.CPUHertz+math.Sqrt(a.CPUVariance))
	return likely <= a.on(h, likely) || h.core >= c.hosts[a.host].core
}

// fits is whether the host takes the VM comfortably.
func (c *planner) fits(v, to int, comfort float64) bool {
	a, h := &c.vms[v], &c.hosts[to]
	return c.room(v, to) && h.now.CPUHertz+a.now(h) <= c.ceiling*h.capacity.CPUHertz &&
		h.level+a.level(h)+comfort*math.Sqrt(h.variance+a.CPUVariance) <= h.capacity.CPUHertz
}

// target is the host that suits the VM best, -1 if none does. One that runs VMs already comes first, then one that needs less
// power for the same work, then, to fill, the tightest, or the roomiest.
func (c *planner) target(v int, comfort float64, wake bool) int {
	for {
		best := -1
		for to := range c.hosts {
			if (wake || len(c.hosts[to].vms) > 0) && (best < 0 || c.before(to, best)) && !c.barred[[2]int{v, to}] && c.fits(v, to, comfort) {
				best = to
			}
		}
		if best < 0 || c.may(v, best) {
			return best
		}
	}
}

func (c *planner) before(i, j int) bool {
	a, b := &c.hosts[i], &c.hosts[j]
	if !c.policy.Fill {
		return c.slack(a) > c.slack(b)
	}
	if awake := len(a.vms) > 0; awake != (len(b.vms) > 0) {
		return awake
	}
	if a.watts != b.watts {
		return a.watts < b.watts
	}
	return c.slack(a) < c.slack(b)
}

// slack is what a host has left of what it has least of.
func (c *planner) slack(h *stage) float64 {
	return min(1-(h.level+c.comfort*math.Sqrt(h.variance))/h.capacity.CPUHertz, 1-h.now.MemoryBytes/h.capacity.MemoryBytes)
}

func (h *stage) excess() float64 { return h.now.CPUHertz - h.capacity.CPUHertz }

// crowded are the hosts whose VMs want more CPU than there is, the worst first.
func (c *planner) crowded() []int {
	var out []int
	for i := range c.hosts {
		if h := &c.hosts[i]; h.stale == "" && h.sized() && h.excess() > 0 {
			out = append(out, i)
		}
	}
	slices.SortStableFunc(out, func(i, j int) int { return cmp.Compare(c.hosts[j].excess(), c.hosts[i].excess()) })
	return out
}

// relieve moves the VM of the least memory that suffices off each crowded host, and the greatest if none does, to where it fits
// comfortably.
func (c *planner) relieve() {
	for _, i := range c.crowded() {
		for c.hosts[i].excess() > 0 && c.relieveOnce(i) {
		}
	}
}

func (c *planner) relieveOnce(i int) bool {
	h := &c.hosts[i]
	excess := h.excess()
	vms := slices.Clone(h.vms)
	slices.SortStableFunc(vms, func(x, y int) int {
		a, b := &c.vms[x], &c.vms[y]
		enough := a.now(h) >= excess
		switch {
		case enough != (b.now(h) >= excess):
			if enough {
				return -1
			}
			return 1
		case enough:
			return cmp.Or(cmp.Compare(a.Now.MemoryBytes, b.Now.MemoryBytes), cmp.Compare(a.now(h), b.now(h)))
		}
		return cmp.Compare(b.now(h), a.now(h))
	})
	for _, v := range vms {
		if c.stays(v) || c.vms[v].now(h) <= 0 {
			continue
		}
		if to := c.target(v, c.comfort, true); to >= 0 {
			c.move(v, to, ForRelief, min(excess, c.vms[v].now(h)))
			return true
		}
	}
	return false
}

// free empties hosts that are not needed, those with the fewest VMs first.
func (c *planner) free() {
	var order []int
	for i := range c.hosts {
		if h := &c.hosts[i]; len(h.vms) > 0 && !h.shut && h.excess() <= 0 && !slices.ContainsFunc(h.vms, c.stays) && c.worthFreeing(h) {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(i, j int) int {
		a, b := &c.hosts[i], &c.hosts[j]
		return cmp.Or(cmp.Compare(len(a.vms), len(b.vms)), cmp.Compare(a.level/a.capacity.CPUHertz, b.level/b.capacity.CPUHertz))
	})
	taken := map[int]bool{}
	for _, i := range order {
		if !taken[i] {
			for _, to := range c.freeOne(i) {
				taken[to] = true
			}
		}
	}
}

// worthFreeing holds the host's VMs against what such a host holds of the fleet's mean VM.
func (c *planner) worthFreeing(h *stage) bool {
	var mean actor
	for i := range c.vms {
		mean.CPUHertz += c.vms[i].CPUHertz / float64(len(c.vms))
		mean.CPUVariance += c.vms[i].CPUVariance / float64(len(c.vms))
		mean.Now.MemoryBytes += c.vms[i].Now.MemoryBytes / float64(len(c.vms))
	}
	byCPU, byMemory := 0.0, math.Floor(h.capacity.MemoryBytes*c.want.MemoryCeiling/mean.Now.MemoryBytes)
	for n := byCPU + 1; n <= byMemory && n*mean.CPUHertz+c.comfort*math.Sqrt(n*mean.CPUVariance) <= h.capacity.CPUHertz; n++ {
		byCPU = n
	}
	return byCPU >= byMemory || float64(len(h.vms)) <= freeBelow*max(1, byCPU)
}

// freeOne finds a place for all of the host's VMs, the greatest first, or moves none. It returns where they go.
func (c *planner) freeOne(i int) []int {
	h := &c.hosts[i]
	vms := slices.Clone(h.vms)
	slices.SortStableFunc(vms, func(x, y int) int { return cmp.Compare(c.vms[y].CPUHertz, c.vms[x].CPUHertz) })
	var to []int
	h.shut = true
	for _, v := range vms {
		t := c.target(v, c.comfort+comfortFree, false)
		if t < 0 {
			for k := len(to) - 1; k >= 0; k-- {
				c.shift(vms[k], i)
			}
			h.shut = false
			return nil
		}
		c.shift(v, t)
		to = append(to, t)
	}
	for k, v := range vms {
		c.note(v, i, to[k], ForFreeing, 0)
	}
	return to
}

// even takes load off crowded hosts, however full the others are, as long as each move is worthwhile.
func (c *planner) even() {
	done := map[int]bool{}
	for {
		worst, most := -1, 0.0
		for i := range c.hosts {
			h := &c.hosts[i]
			if done[i] || h.stale != "" || !h.sized() || h.excess() <= 0 {
				continue
			}
			if l := h.unserved(nil, 0); l >= worthwhile*h.capacity.CPUHertz && l > most {
				worst, most = i, l
			}
		}
		if worst < 0 {
			return
		}
		if !c.evenOnce(worst) {
			done[worst] = true
		}
	}
}

// evenOnce makes the one move off a host that wins most, if it wins enough.
func (c *planner) evenOnce(i int) bool {
	from := &c.hosts[i]
	before := make([]float64, len(c.hosts))
	for to := range c.hosts {
		if c.hosts[to].sized() {
			before[to] = c.hosts[to].unserved(nil, 0)
		}
	}
	for {
		vm, best, most := -1, -1, min(worthwhile, 0.5/float64(max(1, len(from.vms))))*from.capacity.CPUHertz
		for _, v := range from.vms {
			a := &c.vms[v]
			if c.stays(v) || a.now(from) < most {
				continue
			}
			won := before[i] - from.unserved(a, -1)
			for to := range c.hosts {
				h := &c.hosts[to]
				if won <= most || c.barred[[2]int{v, to}] || !c.room(v, to) || h.now.CPUHertz+a.now(h) > h.capacity.CPUHertz {
					continue
				}
				if gain := won - (h.unserved(a, 1) - before[to]); gain > most {
					vm, best, most = v, to, gain
				}
			}
		}
		if vm < 0 {
			return false
		}
		if c.may(vm, best) {
			c.move(vm, best, ForRelief, most)
			return true
		}
	}
}

// unserved is the demand, in hertz, that the host is expected not to serve, with a VM more or less. Demand is taken as normal about
// halfway between its level and the last sample: E[max(0, X - c)] = s phi((c-m)/s) - (c-m) Phi(-(c-m)/s).
func (h *stage) unserved(a *actor, sign float64) float64 {
	mean, variance := (h.now.CPUHertz+h.level)/2, h.variance
	if a != nil {
		mean += sign * (a.now(h) + a.level(h)) / 2
		variance += sign * a.CPUVariance
	}
	left := h.capacity.CPUHertz - mean
	if variance <= 0 {
		return max(0, -left)
	}
	s := math.Sqrt(variance)
	d := left / s
	return max(0, s*math.Exp(-d*d/2)/math.Sqrt(2*math.Pi)-left*math.Erfc(d/math.Sqrt2)/2)
}

// evacuate empties the hosts that are to be emptied, the greatest VMs first, and says what is left.
func (c *planner) evacuate() (left []Leftover) {
	for _, id := range c.want.Evacuate {
		i, ok := c.at[id]
		if !ok {
			continue
		}
		vms := slices.Clone(c.hosts[i].vms)
		slices.SortStableFunc(vms, func(x, y int) int { return cmp.Compare(c.vms[y].Now.MemoryBytes, c.vms[x].Now.MemoryBytes) })
		for _, v := range vms {
			if why := c.evict(v); why != "" {
				left = append(left, Leftover{c.vms[v].id, c.vms[v].name, why})
			}
		}
		left = append(left, c.unknownOn(i)...)
	}
	return left
}

// evict moves a VM to where it fits comfortably, or else to the host that it crowds least.
func (c *planner) evict(v int) string {
	if c.vms[v].moved {
		return ""
	}
	if why := c.vms[v].fixed; why != "" {
		return why
	}
	to := c.target(v, c.comfort, true)
	if to < 0 {
		to = c.leastCrowded(v)
	}
	if to < 0 {
		return "no host has room for it, or rules keep it from those that have"
	}
	c.move(v, to, ForEvacuation, 0)
	return ""
}

func (c *planner) leastCrowded(v int) int {
	for {
		best, least := -1, math.Inf(1)
		for to := range c.hosts {
			h, a := &c.hosts[to], &c.vms[v]
			if c.barred[[2]int{v, to}] || !c.room(v, to) || h.now.CPUHertz+a.now(h) > h.capacity.CPUHertz {
				continue
			}
			if l := h.unserved(a, 1) / h.capacity.CPUHertz; l < least {
				best, least = to, l
			}
		}
		if best < 0 || c.may(v, best) {
			return best
		}
	}
}

// unknownOn are the host's running VMs that no plan can move.
func (c *planner) unknownOn(i int) (left []Leftover) {
	for _, vm := range c.snap.VMsOn(c.hosts[i].host.ID) {
		if _, ok := c.use(vm.ID); !ok && runs(vm.VM) {
			left = append(left, Leftover{vm.ID, vm.Name, "its demand is not known"})
		}
	}
	return left
}

// waves orders the moves. In a wave all begin at once, and a VM counts on both hosts until the wave has ended; so a VM goes to a host
// that another one leaves only in a later wave, and no move overtakes one before it to or from its target.
func (c *planner) waves() [][]Step {
	var out [][]Step
	for rest := c.steps; len(rest) > 0; {
		var wave []Step
		var later []step
		in, from, held := map[int]int{}, map[int]int{}, map[int]bool{}
		for _, m := range rest {
			if held[m.to] || from[m.to] > 0 || c.want.In > 0 && in[m.to] >= c.want.In || c.want.Out > 0 && from[m.from] >= c.want.Out {
				held[m.from], held[m.to] = true, true
				later = append(later, m)
				continue
			}
			in[m.to]++
			from[m.from]++
			wave = append(wave, c.describe(m))
		}
		out, rest = append(out, wave), later
	}
	return out
}

func (c *planner) describe(m step) Step {
	a, from, to := &c.vms[m.vm], &c.hosts[m.from], &c.hosts[m.to]
	why := fmt.Sprintf("%s is to be emptied, and %s has room", from.host.Name, to.host.Name)
	switch m.code {
	case ForRelief:
		why = fmt.Sprintf("the VMs of %s want more CPU than it has, and %s is expected to serve %s more", from.host.Name, to.host.Name, hertz(m.gain))
	case ForFreeing:
		why = fmt.Sprintf("%s is not needed: its VMs fit on other hosts, this one on %s", from.host.Name, to.host.Name)
	}
	return Step{
		VM: a.id, Name: a.name, From: from.host.ID, To: to.host.ID, For: m.code,
		CopyBytes: a.Now.MemoryBytes, GainedHertz: m.gain, Why: why,
	}
}
