package placement

import (
	"fmt"
	"maps"
	"slices"

	"github.com/protip/protip/internal/inventory"
)

// keeper follows a cluster's reserve along a plan: who would restart where, for every set of hosts that can fail. A VM on its way has room on
// both hosts: if the old one fails it is restarted on the new one, and if the new one fails it is still, or again, on the old one. So what
// it allows holds whether the moves under way have ended or not. A set that is not survived may not get worse: no more VMs left over,
// and no more CPU or memory of theirs. It is wrong only by saying no: it mends the restarts that a move disturbs, and searches no further.
type keeper struct {
	*Admission        // before the plan, with restarts for each set; nobody for VMs left over
	closed     string // why no move can be allowed, empty if some can
	host       map[inventory.ID]int
	claim      map[inventory.ID]int
	at         []int         // by claim, its host now
	bound      []int         // by claim, the host it is on its way to, -1 for none
	on         [][]int       // by host, the claims there now
	fails      [][]bool      // by host and set
	left       [][]Size      // by host and set, what the restarts leave free
	to         []map[int]int // by set, restarts that differ from before; -1 is left over
	lost       []loss        // by set
	done       []change      // to be undone
}

// loss is what is left over when a set fails.
type loss struct {
	vms  int
	size Size
}

func (l loss) worse(m loss) bool { return l.vms > m.vms || !l.size.fits(m.size) }

// change is one thing that was done, told by what undoes it.
type change struct {
	kind    changeKind
	set     int // -1 is all that the host does not fail in
	host    int
	claim   int
	size    Size // taken
	was     int
	differs bool
	lost    loss
}

type changeKind uint8

const (
	tookRoom changeKind = iota
	restartsAt
	leftOver
	movedTo
	boundFor
)

// keepers are made of the clusters that the plan is of and a reserve is asked of. A host that is to be emptied is one that will not be there: it takes no
// restart from the first move on.
func (c *scene) keepers(d Demand, p Policy) {
	c.reserves = map[inventory.ID]*keeper{}
	restricted := maps.Clone(p.Restricted)
	for _, id := range c.want.Evacuate {
		if restricted[id] == "" {
			if restricted == nil {
				restricted = map[inventory.ID]string{}
			}
			restricted[id] = "it is to be emptied"
		}
	}
	p.Restricted = restricted
	for id, a := range p.Reserves {
		if a != nil && a.Reserve > 0 && (c.want.Cluster.IsZero() || id == c.want.Cluster) {
			c.reserves[id] = keep(Ask(c.snap, d, id, a.Reserve, p), a)
		}
	}
}

// answers is whether the question is the one that was answered.
func (a *Admission) answers(q Question) bool {
	return a.q != nil && a.Reserve == q.Reserve && a.q.Unanswerable == q.Unanswerable && len(a.q.Guessed) == len(q.Guessed) &&
		slices.EqualFunc(a.q.Hosts, q.Hosts, func(x, y Survivor) bool {
			return x.ID == y.ID && x.Shut == y.Shut && (x.Shut != "" || x.Free == y.Free) && slices.Equal(x.Coming, y.Coming)
		}) &&
		slices.EqualFunc(a.q.VMs, q.VMs, func(x, y Claim) bool {
			return x.ID == y.ID && x.Host == y.Host && x.Need == y.Need && (x.Hosts == nil) == (y.Hosts == nil) && slices.Equal(x.Hosts, y.Hosts)
		}) &&
		slices.EqualFunc(a.q.Apart, q.Apart, Group.equal) && slices.EqualFunc(a.q.Joined, q.Joined, Group.equal)
}

func (g Group) equal(h Group) bool {
	return slices.Equal(g.VMs, h.VMs) && slices.Equal(g.Others, h.Others)
}

// moving is the VM as the reserve of its cluster sees it; the keeper is nil if none is asked of that.
func (c *scene) moving(v int) (k *keeper, claim int, need Size) {
	a := &c.vms[v]
	if k = c.reserves[c.hosts[a.host].cluster]; k == nil || k.closed != "" {
		return k, -1, Size{}
	}
	if claim, ok := k.claim[a.id]; ok {
		return k, claim, k.q.VMs[claim].Need
	}
	vm, _ := c.snap.VM(a.id)
	need, ok := Use{max(a.Now.CPUHertz, vm.CPUReservationHertz), max(a.Now.MemoryBytes, vm.MemoryReservationBytes)}.ceil()
	if !ok {
		need = Size{maxAmount, maxAmount}
	}
	return k, -1, need
}

// keeps says why the cluster's reserve does not bear that the VM moves; empty if it does.
func (c *scene) keeps(v, to int) string {
	k, claim, need := c.moving(v)
	switch {
	case k == nil:
		return ""
	case k.closed != "":
		return k.closed
	case claim >= 0 && k.q.joined[claim]:
		return fmt.Sprintf("a rule joins %s to other VMs, and the reserve of cluster %s is not followed for such", c.vms[v].name, k.Name)
	case claim < 0 && slices.ContainsFunc(c.known[v].rules, func(r inventory.Rule) bool { return r.Mandatory }):
		return fmt.Sprintf("%s is not restarted and in a rule with others, and the reserve of cluster %s is not followed for such", c.vms[v].name, k.Name)
	}
	mark := len(k.done)
	why := k.arrive(claim, need, k.host[c.hosts[c.vms[v].host].host.ID], k.host[c.hosts[to].host.ID])
	k.back(mark)
	return why
}

// Bears says why the reserve of the VM's cluster does not bear that it begins to move to the host while the policy's Incoming are on their
// way; empty if it does. It answers as Plan asks itself, and asked is false where that cannot be answered: no reserve is asked for, too little
// is known, or a rule joins the VM to others.
func Bears(s *inventory.Snapshot, d Demand, vm, to inventory.ID, p Policy) (why string, asked bool) {
	target, ok := s.Host(to)
	if !ok || p.Reserves[target.Cluster] == nil {
		return "", false
	}
	p.Reserves = map[inventory.ID]*Admission{target.Cluster: p.Reserves[target.Cluster]}
	under := p.Incoming
	p.Incoming = nil // they are counted one by one, as moves
	c := stageOf(s, d, Rebalance{Cluster: target.Cluster}, p)
	v := slices.IndexFunc(c.vms, func(a actor) bool { return a.id == vm })
	k := c.reserves[target.Cluster]
	if v < 0 || k == nil || k.closed != "" {
		return "", false
	}
	for h := range c.hosts {
		for _, id := range under[c.hosts[h].host.ID] {
			w := slices.IndexFunc(c.vms, func(a actor) bool { return a.id == id })
			if w < 0 || w == v || c.vms[w].host == h {
				continue
			}
			if _, claim, _ := c.moving(w); claim >= 0 && k.q.joined[claim] {
				return "", false
			}
			if why := c.begins(w, h); why != "" {
				return fmt.Sprintf("with %s on its way to %s: %s", c.vms[w].name, c.hosts[h].host.Name, why), true
			}
		}
	}
	c.known[v], _ = c.candidate(VMSpec{ID: vm}, c.policy)
	_, claim, _ := c.moving(v)
	if claim >= 0 && k.q.joined[claim] {
		return "", false
	}
	return c.keeps(v, c.at[to]), true
}

// begins counts a VM on both hosts, or says why the reserve does not bear that.
func (c *scene) begins(v, to int) string {
	k, claim, need := c.moving(v)
	if k == nil {
		return ""
	}
	return k.arrive(claim, need, k.host[c.hosts[c.vms[v].host].host.ID], k.host[c.hosts[to].host.ID])
}

// count counts a move in the reserve, which bears it.
func (c *scene) count(v, to int) {
	if k, claim, need := c.moving(v); k != nil {
		from, to := k.host[c.hosts[c.vms[v].host].host.ID], k.host[c.hosts[to].host.ID]
		k.arrive(claim, need, from, to)
		k.land(claim, need, from, to)
	}
}

// mark is a state of the reserve to come back to.
func (c *scene) mark(host int) (back func()) {
	k := c.reserves[c.hosts[host].cluster]
	if k == nil {
		return func() {}
	}
	mark := len(k.done)
	return func() { k.back(mark) }
}

func keep(q Question, earlier *Admission) *keeper {
	a := earlier
	if a == nil || !a.answers(q) {
		a = q.Answer(earlier)
	}
	k := &keeper{Admission: a, host: map[inventory.ID]int{}, claim: map[inventory.ID]int{}}
	if q.Unanswerable != "" || k.q == nil {
		k.closed = fmt.Sprintf("whether cluster %s keeps its reserve of %s cannot be said: %s", q.Name, reserveOf(q.Reserve), k.Why)
		return k
	}
	if k.Answer != Admitted {
		k.survey()
	}
	if len(k.sets) == 0 || len(k.sets) < k.Sets || len(k.plans) < len(k.sets) {
		k.closed = fmt.Sprintf("%d ways to fail are too many to keep the reserve of cluster %s along a plan", k.Sets, q.Name)
		return k
	}
	n, sets := len(q.Hosts), len(k.sets)
	for h := range q.Hosts {
		k.host[q.Hosts[h].ID] = h
		k.on = append(k.on, slices.Clone(k.q.on[h]))
	}
	for v := range q.VMs {
		k.claim[q.VMs[v].ID] = v
		k.at, k.bound = append(k.at, q.VMs[v].Host), append(k.bound, -1)
	}
	k.to, k.lost = make([]map[int]int, sets), make([]loss, sets)
	k.fails, k.left = make([][]bool, n), make([][]Size, n)
	for h := range n {
		k.fails[h], k.left[h] = make([]bool, sets), make([]Size, sets)
		for s := range sets {
			k.left[h][s] = k.plans[s].left[h]
		}
	}
	for s, set := range k.sets {
		for _, h := range set {
			k.fails[h][s] = true
			for _, v := range k.q.on[h] {
				if k.restart(s, v) < 0 {
					k.lost[s] = loss{k.lost[s].vms + 1, k.lost[s].size.plus(q.VMs[v].Need)}
				}
			}
		}
	}
	return k
}

// survey finds restarts for each set by itself, as many as the quick packings do.
func (k *keeper) survey() {
	again := *k.Admission // what was handed in does not change
	k.Admission = &again
	n, most := len(k.q.Hosts), min(k.Reserve, len(k.q.Hosts))
	k.sets, k.plans, k.Sets = nil, nil, choose(n, most)
	if k.Sets*n > maxLeft {
		return
	}
	for size := 1; size <= most; size++ {
		if size == most || len(k.q.Joined) > 0 {
			subsets(n, size, func(failed []int) bool {
				k.sets = append(k.sets, narrow(failed))
				return true
			})
		}
	}
	k.Sets = len(k.sets)
	f := &failure{q: k.q, steps: reserveSteps}
	for _, set := range k.sets {
		f.load(widen(set))
		if !f.greedy() {
			copy(f.to, f.best)
		}
		if f.steps < 0 {
			return
		}
		k.plans = append(k.plans, f.plan())
	}
}

// restart is where the claim restarts when the set fails, -1 if it is left over. Its host must be in the set.
func (k *keeper) restart(set, v int) int {
	if h, ok := k.to[set][v]; ok {
		return h
	}
	if h := k.restartOf(set, v); h != nobody {
		return h
	}
	return -1
}

// arrive lets a VM begin to move, or says why the reserve would not bear it; then nothing has changed. A VM that is not restarted has
// the claim -1.
func (k *keeper) arrive(v int, need Size, from, to int) string {
	mark := len(k.done)
	k.take(-1, to, need)
	if v >= 0 {
		k.done = append(k.done, change{kind: boundFor, claim: v, was: k.bound[v]})
		k.bound[v] = to
	}
	for s := range k.sets {
		old, new := k.fails[from][s], k.fails[to][s]
		if !new && !old && k.left[to][s].CPUHertz >= 0 && k.left[to][s].MemoryBytes >= 0 && (v < 0 || len(k.q.apart[v]) == 0) {
			continue
		}
		before := k.lost[s]
		switch {
		case old && new: // it is lost as before
		case new && v >= 0:
			if k.open(from) && k.may(v, from) && !k.meets(s, v, from) {
				k.assign(s, v, from)
			} else {
				k.place(s, v)
			}
		case old && v >= 0:
			k.leaveRestart(s, v)
			k.assign(s, v, to)
		}
		if !new {
			k.mend(s, to, v)
		}
		if k.lost[s].worse(before) {
			why := fmt.Sprintf("cluster %s would not keep its reserve of %s: when %s %s, not all that restart now would have a host",
				k.Name, reserveOf(k.Reserve), k.names(widen(k.sets[s])), fails(len(k.sets[s])))
			k.back(mark)
			return why
		}
	}
	return ""
}

// land ends a move: the old host has the VM's room again.
func (k *keeper) land(v int, need Size, from, to int) {
	k.take(-1, from, need.times(-1))
	if v < 0 {
		return
	}
	for s := range k.sets {
		if k.fails[to][s] && !k.fails[from][s] && k.restart(s, v) == from {
			k.take(s, from, need)
		}
	}
	k.done = append(k.done, change{kind: movedTo, claim: v, was: from, host: to}, change{kind: boundFor, claim: v, was: to})
	k.shift(v, from, to)
	k.bound[v] = -1
}

func (k *keeper) shift(v, from, to int) {
	k.on[from] = slices.DeleteFunc(k.on[from], func(x int) bool { return x == v })
	k.on[to] = append(k.on[to], v)
	k.at[v] = to
}

// back undoes what was done since the mark.
func (k *keeper) back(mark int) {
	for n := len(k.done) - 1; n >= mark; n-- {
		d := k.done[n]
		switch d.kind {
		case tookRoom:
			k.add(d.set, d.host, d.size)
		case restartsAt:
			if d.differs {
				k.to[d.set][d.claim] = d.was
			} else {
				delete(k.to[d.set], d.claim)
			}
		case leftOver:
			k.lost[d.set] = d.lost
		case movedTo:
			k.shift(d.claim, d.host, d.was)
		case boundFor:
			k.bound[d.claim] = d.was
		}
	}
	k.done = k.done[:mark]
}

// take takes room of a host in a set, or in all that it does not fail in.
func (k *keeper) take(set, host int, size Size) {
	k.done = append(k.done, change{kind: tookRoom, set: set, host: host, size: size})
	k.add(set, host, size.times(-1))
}

func (k *keeper) add(set, host int, size Size) {
	if set >= 0 {
		k.left[host][set] = k.left[host][set].plus(size)
		return
	}
	for s, fails := range k.fails[host] {
		if !fails {
			k.left[host][s] = k.left[host][s].plus(size)
		}
	}
}

// assign says where the claim restarts, and leaves its room to the caller.
func (k *keeper) assign(set, v, to int) {
	was, differs := k.to[set][v]
	k.done = append(k.done, change{kind: restartsAt, set: set, claim: v, was: was, differs: differs})
	if k.to[set] == nil {
		k.to[set] = map[int]int{}
	}
	k.to[set][v] = to
}

// leaveRestart gives up where the claim restarts.
func (k *keeper) leaveRestart(set, v int) {
	if h := k.restart(set, v); h >= 0 {
		k.take(set, h, k.q.VMs[v].Need.times(-1))
		return
	}
	l := k.lost[set]
	k.lose(set, loss{l.vms - 1, l.size.minus(k.q.VMs[v].Need)})
}

func (k *keeper) lose(set int, l loss) {
	k.done = append(k.done, change{kind: leftOver, set: set, lost: k.lost[set]})
	k.lost[set] = l
}

// place finds the claim a restart, if need be after another one is placed elsewhere, or counts it as left over.
func (k *keeper) place(set, v int) {
	h := k.find(set, v, -1)
	if h < 0 {
		h = k.clear(set, v)
	}
	k.assign(set, v, h)
	if h >= 0 {
		k.take(set, h, k.q.VMs[v].Need)
		return
	}
	l := k.lost[set]
	k.lose(set, loss{l.vms + 1, l.size.plus(k.q.VMs[v].Need)})
}

// find is the first host with room for the claim, but one; -1 if there is none.
func (k *keeper) find(set, v, but int) int {
	for h := range k.left {
		if h != but && !k.fails[h][set] && k.q.VMs[v].Need.fits(k.left[h][set]) && k.open(h) && k.may(v, h) && !k.meets(set, v, h) {
			return h
		}
	}
	return -1
}

// clear moves one restart away from a host that has room for the claim then, and returns that host; -1 if there is none.
func (k *keeper) clear(set, v int) int {
	for _, f := range k.sets[set] {
		for _, w := range k.on[f] {
			g := k.restart(set, w)
			if w == v || g < 0 || k.q.joined[w] || k.bound[w] == g || !k.open(g) || !k.may(v, g) || k.meets(set, v, g) ||
				!k.q.VMs[v].Need.fits(k.left[g][set].plus(k.q.VMs[w].Need)) {
				continue
			}
			if h := k.find(set, w, g); h >= 0 {
				k.leaveRestart(set, w)
				k.assign(set, w, h)
				k.take(set, h, k.q.VMs[w].Need)
				return g
			}
		}
	}
	return -1
}

// mend places restarts on the host elsewhere until what is there fits and no rule keeps it apart from the VM that arrives. What cannot be
// mended counts as left over.
func (k *keeper) mend(set, host, arrives int) {
	for {
		w, must := k.inTheWay(set, host, arrives)
		switch {
		case !must:
			return
		case w < 0:
			k.lose(set, loss{k.lost[set].vms + 1, k.lost[set].size})
			return
		}
		k.leaveRestart(set, w)
		k.assign(set, w, -1)
		k.place(set, w)
	}
}

// inTheWay is the restart on the host that is best placed elsewhere, the smallest that suffices or else the largest, -1 if none can be, and
// whether one must be.
func (k *keeper) inTheWay(set, host, arrives int) (best int, must bool) {
	room := k.left[host][set]
	short := room.CPUHertz < 0 || room.MemoryBytes < 0
	if !short && (arrives < 0 || len(k.q.apart[arrives]) == 0) {
		return -1, false
	}
	best, enough := -1, false
	for _, f := range k.sets[set] {
		for _, w := range k.on[f] {
			if w == arrives || k.restart(set, w) != host || k.bound[w] == host {
				continue
			}
			if arrives >= 0 && k.apart(w, arrives) {
				if k.q.joined[w] {
					return -1, true
				}
				return w, true
			}
			if k.q.joined[w] {
				continue
			}
			need := k.q.VMs[w].Need
			fits := room.CPUHertz+need.CPUHertz >= 0 && room.MemoryBytes+need.MemoryBytes >= 0
			if best < 0 || fits && !enough || fits == enough && need.fits(k.q.VMs[best].Need) == fits {
				best, enough = w, fits
			}
		}
	}
	return best, short
}

func (k *keeper) open(h int) bool { return k.q.Hosts[h].Shut == "" }

func (k *keeper) may(v, h int) bool { return k.q.allowed[v] == nil || has(k.q.allowed[v], h) }

// apart is whether a rule keeps the two apart.
func (k *keeper) apart(v, w int) bool {
	return slices.ContainsFunc(k.q.apart[v], func(g int) bool { return slices.Contains(k.q.apart[w], g) })
}

// meets is whether a rule keeps the claim off the host, by VMs that are, or restart, or are about to be there when the set fails.
func (k *keeper) meets(set, v, h int) bool {
	for _, g := range k.q.apart[v] {
		if slices.Contains(k.q.Apart[g].Others, h) {
			return true
		}
		for _, w := range k.q.Apart[g].VMs {
			if w != v && (k.bound[w] == h || k.at[w] == h || k.fails[k.at[w]][set] && k.restart(set, w) == h) {
				return true
			}
		}
	}
	return false
}

func (a Size) times(n int64) Size { return Size{n * a.CPUHertz, n * a.MemoryBytes} }
