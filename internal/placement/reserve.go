package placement

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/protip/protip/internal/inventory"
)

// Answer says whether a cluster survives the loss of hosts. Only Admitted is a yes.
type Answer string

// Answers.
const (
	Admitted Answer = "admitted"
	Refused  Answer = "refused"
	Unknown  Answer = "unknown" // what is known, or the budget, did not suffice
)

// Admission answers a question of reserve, with its proof: Restarts if the answer is yes, Failed, LeftOver and Why if it is no.
// It does not change once made, and may be read from any goroutine.
type Admission struct {
	Cluster  inventory.ID   `json:"cluster"`
	Name     string         `json:"name"`
	Reserve  int            `json:"reserve"`
	Answer   Answer         `json:"answer"`
	Failed   []inventory.ID `json:"failed,omitempty"`   // hosts whose loss the cluster does not, or perhaps not, survive
	LeftOver inventory.ID   `json:"left_over,omitzero"` // a VM of theirs that has no host then
	Why      string         `json:"why"`                // in words
	Sets     int            `json:"failure_sets"`       // that hosts can fail in
	Shown    int            `json:"failure_sets_shown"` // that the others follow from
	Restarts int            `json:"restarts"`           // VMs that are restarted when their host fails
	Guessed  []string       `json:"guessed,omitempty"`  // VMs that count with their configured size

	q     *question
	above [][]int        // see outweighed
	sets  [][]int32      // failure sets, those that are shown first
	at    map[string]int // their places
	plans []plan

	// For what is asked next: the sets that a host fails in, all of them, and the least that a host has left in those it does not fail in.
	with  [][]int32
	every []int32
	least []Size
}

// plan is who restarts where when the hosts of one set fail: by failed host, and by its claims, in the question's order.
type plan struct {
	to   []uint16
	left []Size // what each host has left then
}

// Restart is where a VM goes when its host fails.
type Restart struct {
	VM   inventory.ID `json:"vm"`
	Name string       `json:"name"`
	To   inventory.ID `json:"to"`
	Host string       `json:"host"`
}

// Bounds of the work on one question. They are counted in steps, so that the same question has the same answer everywhere.
const (
	reserveSteps = 100_000_000 // a step is a look at one host for one VM
	maxSubsets   = 4_000_000   // failure sets that are enumerated
	maxLeft      = 4_000_000   // sizes kept for what is asked next: sets times hosts
)

// Answer tells whether the cluster survives the loss of any Reserve of its hosts, with everything that must be restarted
// restarted within capacity and rules while all else stays put. The earlier answer, which may be nil, saves work: where its
// restarts are still good they are kept.
func (q Question) Answer(earlier *Admission) *Admission {
	a := &Admission{Cluster: q.Cluster, Name: q.Name, Reserve: q.Reserve, Answer: Unknown, Restarts: len(q.VMs), Guessed: q.Guessed, q: index(q)}
	switch {
	case q.Unanswerable != "":
		a.Why = q.Unanswerable
		return a
	case q.Reserve < 1:
		a.Answer, a.Why = Admitted, "no reserve is asked for"
		return a
	}
	a.enumerate()
	if a.Why == "" {
		a.answer(earlier)
	}
	return a
}

// question is one with its indexes.
type question struct {
	Question
	words   int        // of a set of hosts
	on      [][]int    // by host, its claims
	byCPU   [][]int    // the same, the largest CPU first
	pos     []int      // of a claim among those of its host
	single  []int      // 0, 1, 2, ...: slices of it name one claim
	allowed [][]uint64 // by claim; nil is anywhere
	apart   [][]int    // by claim, groups
	joined  []bool     // by claim
}

func index(q Question) *question {
	x := &question{
		Question: q, words: (len(q.Hosts) + 63) / 64, on: make([][]int, len(q.Hosts)), pos: make([]int, len(q.VMs)),
		single: make([]int, len(q.VMs)), allowed: make([][]uint64, len(q.VMs)), apart: make([][]int, len(q.VMs)), joined: make([]bool, len(q.VMs)),
	}
	x.Hosts = slices.Clone(q.Hosts)
	for h := range x.Hosts {
		if x.Hosts[h].Shut != "" {
			x.Hosts[h].Free = Size{-1, -1} // so that not even a VM that needs nothing fits
		}
	}
	for i, v := range q.VMs {
		x.single[i] = i
		x.pos[i] = len(x.on[v.Host])
		x.on[v.Host] = append(x.on[v.Host], i)
		if v.Hosts != nil {
			x.allowed[i] = make([]uint64, x.words)
			for _, h := range v.Hosts {
				set(x.allowed[i], h)
			}
		}
	}
	for _, claims := range x.on {
		x.byCPU = append(x.byCPU, slices.SortedFunc(slices.Values(claims), func(a, b int) int {
			m, n := q.VMs[a].Need, q.VMs[b].Need
			return cmp.Or(cmp.Compare(n.CPUHertz, m.CPUHertz), cmp.Compare(n.MemoryBytes, m.MemoryBytes), cmp.Compare(a, b))
		}))
	}
	for g, group := range q.Apart {
		for _, v := range group.VMs {
			x.apart[v] = append(x.apart[v], g)
		}
	}
	for _, group := range q.Joined {
		for _, v := range group.VMs {
			x.joined[v] = true
		}
	}
	return x
}

// staying are the hosts, other than the failed ones, where VMs of the group run.
func (q *question) staying(g Group, failed []int) []uint64 {
	s := make([]uint64, q.words)
	for _, v := range g.VMs {
		set(s, q.VMs[v].Host)
	}
	for _, h := range g.Others {
		set(s, h)
	}
	for _, h := range failed {
		unset(s, h)
	}
	return s
}

// enumerate lists the failure sets that must be shown. All others follow from one of them: a smaller set from a larger one,
// and a set with a host from the same set with one that outweighs it. Where a rule joins VMs neither holds, and all are shown.
func (a *Admission) enumerate() {
	n, r := len(a.q.Hosts), min(a.Reserve, len(a.q.Hosts))
	a.above = a.q.outweighed()
	a.at = map[string]int{}
	smallest := r
	if len(a.q.Joined) > 0 {
		smallest = min(1, r)
	}
	for size := smallest; size <= r; size++ {
		all := choose(n, size)
		a.Sets += all
		if a.Sets > maxSubsets {
			a.Why = fmt.Sprintf("%d of %d hosts can fail in more ways than can be looked at", r, n)
			return
		}
		subset := make([]int, size)
		var pick func(k, from int)
		pick = func(k, from int) {
			if k < size {
				for h := from; h <= n-size+k; h++ {
					subset[k] = h
					pick(k+1, h+1)
				}
				return
			}
			for _, h := range subset {
				for _, heavier := range a.above[h] {
					if !slices.Contains(subset, heavier) {
						return
					}
				}
			}
			set := make([]int32, size)
			for i, h := range subset {
				set[i] = int32(h)
			}
			a.at[spellSet(set)] = len(a.sets)
			a.sets = append(a.sets, set)
		}
		pick(0, 0)
	}
	a.Shown = len(a.sets)
	if a.Shown*n > maxLeft {
		a.Why = fmt.Sprintf("%d of %d hosts can fail in %d ways, more than can be looked at", r, n, a.Sets)
	}
}

// answer looks at every set: first whether one of them is beyond hope, then with what is quick, then with what is not.
func (a *Admission) answer(earlier *Admission) {
	f := &failure{q: a.q, steps: reserveSteps}
	a.plans = make([]plan, len(a.sets))
	old := earlier.carry(a.q)
	var hard []int
	for i, s := range a.sets {
		f.load(widen(s))
		if f.steps < 0 {
			a.unknown(f, "")
			return
		}
		if old != nil && f.adopt(old(s)) || f.greedy() {
			a.plans[i] = f.plan()
			continue
		}
		if why := f.bound(); why != "" {
			a.refuse(f, why)
			return
		}
		hard = append(hard, i)
	}
	undecided := -1
	for _, i := range hard {
		f.load(widen(a.sets[i]))
		f.greedy()
		answer, why := f.solve()
		switch answer {
		case Refused:
			a.refuse(f, why)
			return
		case Admitted:
			a.plans[i] = f.plan()
		case Unknown:
			if undecided < 0 {
				undecided = i
			}
		}
		if f.steps < 0 {
			break
		}
	}
	if undecided >= 0 || f.steps < 0 {
		if undecided >= 0 {
			f.load(widen(a.sets[undecided]))
			f.greedy()
		}
		a.unknown(f, "")
		return
	}
	a.Answer = Admitted
	a.derive()
	a.summarise()
	a.Why = fmt.Sprintf("any %s of %d can fail: all of the %d VMs that must be restarted have a host then", hostsIn(min(a.Reserve, len(a.q.Hosts))), len(a.q.Hosts), a.Restarts)
}

// derive keeps the plans that follow from those shown too, if they are not too many: a change is then asked of each set by itself.
func (a *Admission) derive() {
	if len(a.sets) == a.Sets || a.Sets*len(a.q.Hosts) > maxLeft {
		return
	}
	subsets(len(a.q.Hosts), min(a.Reserve, len(a.q.Hosts)), func(failed []int) bool {
		set := narrow(failed)
		if _, ok := a.at[spellSet(set)]; ok {
			return true
		}
		to, _ := a.place(failed)
		p := plan{left: make([]Size, len(a.q.Hosts))}
		for h := range a.q.Hosts {
			p.left[h] = a.q.Hosts[h].Free
		}
		for _, h := range failed {
			p.left[h] = Size{-1, -1}
			for _, v := range a.q.on[h] {
				p.to = append(p.to, uint16(to[v]))
			}
		}
		for v, h := range to {
			p.left[h] = p.left[h].minus(a.q.VMs[v].Need)
		}
		a.at[spellSet(set)] = len(a.sets)
		a.sets, a.plans = append(a.sets, set), append(a.plans, p)
		return true
	})
}

func (a *Admission) summarise() {
	a.with, a.least = make([][]int32, len(a.q.Hosts)), slices.Repeat([]Size{{maxAmount, maxAmount}}, len(a.q.Hosts))
	for n, set := range a.sets {
		a.every = append(a.every, int32(n))
		for h, left := range a.plans[n].left {
			if left != (Size{-1, -1}) {
				a.least[h] = Size{min(a.least[h].CPUHertz, left.CPUHertz), min(a.least[h].MemoryBytes, left.MemoryBytes)}
			}
		}
		for _, h := range set {
			a.with[h] = append(a.with[h], int32(n))
		}
	}
}

// refuse says no, with the set and the proof. VMs whose need is a guess prove nothing.
func (a *Admission) refuse(f *failure, why string) {
	if len(a.Guessed) > 0 {
		a.unknown(f, fmt.Sprintf("the demand of %s is not known, and with its configured size not all can be restarted: %s", listed(a.Guessed), why))
		return
	}
	a.Answer = Refused
	a.blame(f)
	a.Why = fmt.Sprintf("when %s %s, %s has no host: %s", a.names(f.failed), fails(len(f.failed)), a.leftName(), why)
}

func (a *Admission) unknown(f *failure, why string) {
	a.Answer = Unknown
	a.plans = nil
	a.blame(f)
	if why == "" {
		why = fmt.Sprintf("when %s %s, no host was found for %s, and that there is none was not proven within the budget", a.names(f.failed), fails(len(f.failed)), a.leftName())
	}
	a.Why = why
}

func (a *Admission) blame(f *failure) {
	a.plans = nil
	for _, h := range f.failed {
		a.Failed = append(a.Failed, a.q.Hosts[h].ID)
	}
	if len(f.best) == 0 {
		f.greedy()
	}
	if v := f.leftOver(); v >= 0 {
		a.LeftOver = a.q.VMs[v].ID
	}
}

func (a *Admission) leftName() string {
	for _, v := range a.q.VMs {
		if v.ID == a.LeftOver {
			return v.Name
		}
	}
	return "a VM"
}

func (a *Admission) names(hosts []int) string {
	var names []string
	for _, h := range hosts {
		names = append(names, a.q.Hosts[h].Name)
	}
	return strings.Join(names, " and ")
}

// carry translates the earlier answer's plans, nil if it has none that can be.
func (a *Admission) carry(q *question) func(set []int32) []int {
	if a == nil || a.Answer != Admitted || a.plans == nil || len(a.q.Hosts) != len(q.Hosts) {
		return nil
	}
	for i := range q.Hosts {
		if q.Hosts[i].ID != a.q.Hosts[i].ID {
			return nil
		}
	}
	was := make(map[inventory.ID]int, len(a.q.VMs))
	for i, v := range a.q.VMs {
		was[v.ID] = i
	}
	before := make([]int, len(q.VMs))
	for i, v := range q.VMs {
		before[i] = -1
		if old, ok := was[v.ID]; ok && a.q.VMs[old].Host == v.Host {
			before[i] = old
		}
	}
	return func(set []int32) []int {
		n, ok := a.at[spellSet(set)]
		if !ok {
			return nil
		}
		var to []int
		for _, h := range set {
			for _, v := range q.on[h] {
				host := -1
				if before[v] >= 0 {
					host = a.restartOf(n, before[v])
				}
				to = append(to, host)
			}
		}
		return to
	}
}

// restartOf is the host of a claim in the n-th set's plan. The claim's host must be in the set.
func (a *Admission) restartOf(n, v int) int {
	at := a.q.pos[v]
	for _, h := range a.sets[n] {
		if int(h) == a.q.VMs[v].Host {
			break
		}
		at += len(a.q.on[h])
	}
	return int(a.plans[n].to[at])
}

// adopt takes over hosts that claims had, as far as they are still good, and finds hosts for the others.
func (f *failure) adopt(to []int) bool {
	if to == nil || len(f.q.Joined) > 0 {
		return false
	}
	free, used := slices.Clone(f.free), cloneSets(f.taken)
	place := func(i, h int) bool {
		it := &f.items[i]
		if !it.need.fits(free[h]) || !it.may(h, used) {
			return false
		}
		free[h] = free[h].minus(it.need)
		for _, g := range it.apart {
			set(used[g], h)
		}
		f.to[i] = h
		return true
	}
	var rest []int
	for i, h := range to {
		if h < 0 || !place(i, h) {
			rest = append(rest, i)
		}
	}
	f.steps -= len(to)
	slices.SortStableFunc(rest, func(a, b int) int { return compareDown(f.items[a].value, f.items[b].value) })
	for _, i := range rest {
		f.steps -= len(free)
		found := false
		for h := 0; h < len(free) && !found; h++ {
			found = place(i, h)
		}
		if !found {
			return false
		}
	}
	return true
}

// nobody is the host of a restart that has none.
const nobody = 1<<16 - 1

// plan keeps what was found.
func (f *failure) plan() plan {
	n := 0
	for _, h := range f.failed {
		n += len(f.q.on[h])
	}
	p := plan{to: make([]uint16, n), left: slices.Clone(f.free)}
	offset := map[int]int{}
	at := 0
	for _, h := range f.failed {
		offset[h] = at
		at += len(f.q.on[h])
	}
	for i := range f.items {
		h := f.to[i]
		if h >= 0 {
			p.left[h] = p.left[h].minus(f.items[i].need)
		} else {
			h = nobody
		}
		for _, v := range f.items[i].vms {
			p.to[offset[f.q.VMs[v].Host]+f.q.pos[v]] = uint16(h)
		}
	}
	return p
}

func widen(s []int32) []int {
	out := make([]int, len(s))
	for i, v := range s {
		out[i] = int(v)
	}
	return out
}

func narrow(s []int) []int32 {
	out := make([]int32, len(s))
	for i, v := range s {
		out[i] = int32(v)
	}
	return out
}

func spellSet(s []int32) string {
	b := make([]byte, 0, 2*len(s))
	for _, v := range s {
		b = append(b, byte(v), byte(v>>8))
	}
	return string(b)
}

func choose(n, k int) int {
	c := 1
	for i := range k {
		c = c * (n - i) / (i + 1)
		if c > maxSubsets {
			return maxSubsets + 1
		}
	}
	return c
}

func members(s []uint64) int {
	n := 0
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

func compareDown(a, b float64) int {
	switch {
	case a > b:
		return -1
	case a < b:
		return 1
	}
	return 0
}

func hostsIn(n int) string {
	if n == 1 {
		return "host"
	}
	return fmt.Sprintf("%d hosts", n)
}

func fails(n int) string {
	if n == 1 {
		return "fails"
	}
	return "fail"
}

func listed(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	return fmt.Sprintf("%s and %d more", names[0], len(names)-1)
}
