package placement

import (
	"cmp"
	"math"
	"slices"

	"github.com/protip/protip/internal/inventory"
)

// What a plan is made by. None of them is about a fleet or a day; docs/placement.md tells what each buys.
const (
	// comfort is how many standard deviations of its VMs' demand a host keeps free when it takes one more: their sum passes the
	// host about one sample in 25, if demand were normal.
	comfort = 1.75
	// comfortPerAge is added for every interval that the samples are old: for so long nobody sees that a host is full.
	comfortPerAge = 1.0
	// comfortFree is added where a host is freed: nothing is urgent then, and what is freed shall stay so.
	comfortFree = 0.4
	// comfortCore is how many a VM keeps to what its vCPUs can have on slower cores, where it goes there only to save power: calm
	// VMs burst by five and more.
	comfortCore = 8
	// freeBelow is how full, at most, a host may be to be freed, as a share of the VMs that such a host holds. Fuller ones cost
	// more moves than the saving lasts. It counts where CPU is scarce: memory that is free stays free.
	freeBelow = 0.7
	// freeEvery is the time, in seconds, between two looks for hosts to free.
	freeEvery = 1800
	// notBack is the time, in seconds, in which no VM returns to a host that a plan took it from.
	notBack = 3600
	// worthwhile is the share of the crowded host's CPU that must be missing before load goes to hosts without comfort, and that
	// each move must then win in demand served; of many small VMs, half of what one of them has on average. So much is also expected
	// to be missing of a host whose samples are old before it counts as crowded.
	worthwhile = 0.01
)

// Why a move is in a plan.
const (
	ForRelief     = "relief"     // the host cannot serve its VMs
	ForFreeing    = "freeing"    // the host is not needed
	ForEvacuation = "evacuation" // the host is to be emptied
	ForSpread     = "spread"     // the hosts of the cluster are too far apart
	ForShare      = "share"      // the target is to take its share of the load
)

// Rebalance is what a plan is asked for, beside the policy. Policy.Fill frees hosts, and otherwise all hosts are used.
type Rebalance struct {
	Now float64 // seconds, on the clock of the samples
	Age float64 // of the samples, in sampling intervals: 0 if they are of this moment
	// Evacuate are hosts that are to be emptied, as far as their VMs can go anywhere without crowding a host.
	Evacuate []inventory.ID
	// Free are hosts that are to be emptied if that costs no comfort, each wholly or not at all.
	Free []inventory.ID
	// Occupy are hosts that are to take their share of their cluster's load, as new ones should.
	Occupy []inventory.ID
	// Cluster narrows the plan to one cluster; zero is all there are.
	Cluster inventory.ID
	// Apart is how far, as a share of its CPU, the busiest host of a cluster may be from the idlest. Where all hosts are used, load goes
	// from the busiest hosts until that is so. 0 is any distance.
	Apart float64
	// AsRated makes no target of a host that its rating would bar for want of room: whoever asks the rating again before each move does
	// not find it barred.
	AsRated bool
	// Only leaves it at what Evacuate, Free and Occupy ask for.
	Only bool
	// In and Out are how many VMs a host may take and give at once; 0 is any number.
	In, Out int
	// MemoryCeiling is the policy's ceiling for memory, where it is another one; 0 is the same.
	MemoryCeiling float64
	// Watts are what hosts draw from idle to busy, evenly spaced; one value alone is when busy. Where that is known, hosts that need
	// less for the same work are filled first.
	Watts map[inventory.ID][]float64
	// CopyRate is what one migration copies, in bytes per second, and DirtyRates what VMs write to their memory, as far as that is
	// known: with them a step tells how long it takes, and a VM that would never be copied is left alone.
	CopyRate   float64
	DirtyRates map[inventory.ID]float64
	Past       Past // what the plan before this one returned
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
	Left  []Leftover `json:"left,omitempty"` // VMs that keep a host from being emptied
	Kept  []Kept     `json:"kept,omitempty"` // what becomes of the reserves that are asked for, by cluster
	Past  Past       `json:"past"`
	// Apart is how far apart the hosts of the most uneven cluster are, before and after; nil if that was not asked.
	Apart *Apart `json:"apart,omitempty"`
}

// Apart are shares of a host's CPU between the busiest and the idlest host of a cluster.
type Apart struct {
	Before float64 `json:"before_ratio"`
	After  float64 `json:"after_ratio"`
}

// Step is one move of a plan, with what it costs and what it is for.
type Step struct {
	VM   inventory.ID `json:"vm"`
	Name string       `json:"name"`
	From inventory.ID `json:"from"`
	To   inventory.ID `json:"to"`
	Kind MoveKind     `json:"kind"`
	For  string       `json:"for"`
	Why  string       `json:"why"`
	// GainedHertz is the demand that is expected to be served for it, where that is the reason.
	GainedHertz float64 `json:"gained_hertz"`
	// Closer is by how much of their CPU the move brings its two hosts together, where that is the reason.
	Closer float64 `json:"closer_ratio,omitempty"`
	Cost   Cost    `json:"cost"`
}

// Cost is what a move takes.
type Cost struct {
	CopyBytes       float64 `json:"copy_bytes"`                 // its memory, and what is written to it meanwhile as far as known
	Seconds         float64 `json:"seconds,omitempty"`          // until it has ended; 0 is not known
	DowntimeSeconds float64 `json:"downtime_seconds,omitempty"` // of a quick migration; 0 is none, or not known
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
func Plan(s *inventory.Snapshot, d Demand, r Rebalance, p Policy) Course {
	if !(r.MemoryCeiling > 0) {
		r.MemoryCeiling = p.Ceiling
	}
	c := &planner{scene: stageOf(s, d, r, p), ceiling: p.Ceiling, comfort: comfort + comfortPerAge*max(0, r.Age)}
	before := c.apart()
	left := append(c.evacuate(), c.freeAsked()...)
	c.occupy()
	if !r.Only {
		c.rebalance()
	}
	out := Course{Waves: c.waves(), Left: left, Kept: c.kept(), Past: c.past}
	if r.Apart > 0 {
		out.Apart = &Apart{before, c.apart()}
	}
	return out
}

// rebalance is what a plan does unasked.
func (c *planner) rebalance() {
	if c.policy.Fill {
		c.relieve()
		if c.want.Past.Left == nil || c.want.Now-c.past.Freed >= freeEvery {
			c.past.Freed = c.want.Now
			c.free()
		}
	}
	c.even()
	c.spread()
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
		h.now.MemoryBytes+a.Now.MemoryBytes > c.want.MemoryCeiling*h.capacity.MemoryBytes || !h.flow.carries(a.Flow, c.ceiling, c.policy.HostFlow) {
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
			if (wake || len(c.hosts[to].vms) > 0) && (best < 0 || c.before(to, best)) && c.barred[[2]int{v, to}] == "" && c.fits(v, to, comfort) {
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
	if a.perHertz != b.perHertz {
		return a.perHertz < b.perHertz
	}
	return c.slack(a) < c.slack(b)
}

// slack is what a host has left of what it has least of, of disk and network as far as it is known what it can move.
func (c *planner) slack(h *stage) float64 {
	left := min(1-(h.level+c.comfort*math.Sqrt(h.variance))/h.capacity.CPUHertz, 1-h.now.MemoryBytes/h.capacity.MemoryBytes)
	if most := c.policy.HostFlow.DiskBytesPerSecond; most > 0 {
		left = min(left, 1-h.flow.DiskBytesPerSecond/most)
	}
	if most := c.policy.HostFlow.NetworkBytesPerSecond; most > 0 {
		left = min(left, 1-h.flow.NetworkBytesPerSecond/most)
	}
	return left
}

func (h *stage) excess() float64 { return h.now.CPUHertz - h.capacity.CPUHertz }

// lacks is how much more than it has the host's VMs are expected to want, with a VM more or less: what its samples show, if they are of
// this moment, and otherwise what is likely by now, from what is worth a move on.
func (c *planner) lacks(h *stage, a *actor, sign float64) float64 {
	if c.want.Age > 0 {
		return h.unserved(a, sign) - worthwhile*h.capacity.CPUHertz
	}
	if a != nil {
		return h.excess() + sign*a.now(h)
	}
	return h.excess()
}

// crowded are the hosts whose VMs want more CPU than there is, the worst first.
func (c *planner) crowded() []int {
	var out []int
	for i := range c.hosts {
		if h := &c.hosts[i]; h.stale == "" && h.sized() && c.lacks(h, nil, 0) > 0 {
			out = append(out, i)
		}
	}
	slices.SortStableFunc(out, func(i, j int) int { return cmp.Compare(c.lacks(&c.hosts[j], nil, 0), c.lacks(&c.hosts[i], nil, 0)) })
	return out
}

// relieve moves the VM of the least memory that suffices off each crowded host, and the greatest if none does, to where it fits
// comfortably.
func (c *planner) relieve() {
	for _, i := range c.crowded() {
		for c.lacks(&c.hosts[i], nil, 0) > 0 && c.relieveOnce(i) {
		}
	}
}

func (c *planner) relieveOnce(i int) bool {
	h := &c.hosts[i]
	lack := c.lacks(h, nil, 0)
	vms := slices.DeleteFunc(slices.Clone(h.vms), c.stays)
	left := make(map[int]float64, len(vms))
	for _, v := range vms {
		left[v] = c.lacks(h, &c.vms[v], -1)
	}
	slices.SortStableFunc(vms, func(x, y int) int {
		a, b := &c.vms[x], &c.vms[y]
		enough := left[x] <= 0
		switch {
		case enough != (left[y] <= 0):
			if enough {
				return -1
			}
			return 1
		case enough:
			return cmp.Or(cmp.Compare(a.Now.MemoryBytes, b.Now.MemoryBytes), cmp.Compare(left[y], left[x]))
		}
		return cmp.Compare(left[x], left[y])
	})
	for _, v := range vms {
		if left[v] >= lack {
			continue
		}
		if to := c.target(v, c.comfort, true); to >= 0 {
			c.move(v, to, ForRelief, lack-max(0, left[v]))
			return true
		}
	}
	return false
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
				if won <= most || c.barred[[2]int{v, to}] != "" || !c.room(v, to) || h.now.CPUHertz+a.now(h) > h.capacity.CPUHertz {
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
