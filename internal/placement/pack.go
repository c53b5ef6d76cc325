package placement

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
)

// failure is one failure set while it is being looked at: what must be restarted, and what is free on whom. It is reused from
// set to set.
type failure struct {
	q      *question
	failed []int  // hosts, ascending
	free   []Size // by host; -1 for those that failed
	items  []item
	weight [2]float64 // what an amount of CPU and of memory is worth: one over what is free of it
	taken  [][]uint64 // by Apart group, the hosts where one that stays put runs
	to     []int      // by item, its host; -1 while it has none
	steps  int        // what may still be spent
	rng    uint64

	order []int // scratch
	best  []int // the fullest greedy packing, for naming what is left over
}

// item is what is restarted in one piece: a VM, or VMs that a rule joins.
type item struct {
	need  Size
	vms   []int
	hosts []uint64 // where it may run; nil is anywhere
	apart []int    // groups
	value float64
}

// load sets the failure up. What is left of a rule by the loss of its VMs is taken into account.
func (f *failure) load(failed []int) {
	q := f.q
	f.failed = append(f.failed[:0], failed...)
	f.free = f.free[:0]
	var free Size
	for i, h := range q.Hosts {
		if slices.Contains(failed, i) {
			f.free = append(f.free, Size{-1, -1})
			continue
		}
		f.free = append(f.free, h.Free)
		if h.Shut == "" {
			free = free.plus(h.Free)
		}
	}
	f.weight = [2]float64{1 / float64(max(1, free.CPUHertz)), 1 / float64(max(1, free.MemoryBytes))}
	f.items = f.items[:0]
	for _, h := range failed {
		for _, v := range q.on[h] {
			f.items = append(f.items, item{need: q.VMs[v].Need, vms: q.single[v : v+1], hosts: q.allowed[v], apart: q.apart[v]})
		}
	}
	if len(q.Joined) > 0 {
		f.join()
	}
	f.taken = f.taken[:0]
	for _, g := range q.Apart {
		f.taken = append(f.taken, q.staying(g, failed))
	}
	for i := range f.items {
		f.items[i].value = f.value(f.items[i].need)
	}
	f.to = slices.Repeat([]int{-1}, len(f.items))
	f.best = f.best[:0]
}

func (f *failure) value(s Size) float64 {
	return float64(s.CPUHertz)*f.weight[0] + float64(s.MemoryBytes)*f.weight[1]
}

// join makes one item of those that rules join, and ties it to where others of the rule stay.
func (f *failure) join() {
	of := map[int]int{}
	for i, it := range f.items {
		of[it.vms[0]] = i
	}
	root := make([]int, len(f.items))
	for i := range root {
		root[i] = i
	}
	find := func(i int) int {
		for root[i] != i {
			i = root[i]
		}
		return i
	}
	ties := map[int][]uint64{}
	for _, g := range f.q.Joined {
		first := -1
		for _, v := range g.VMs {
			if i, lost := of[v]; lost && first < 0 {
				first = find(i)
			} else if lost {
				root[find(i)] = find(first)
			}
		}
		if stays := f.q.staying(g, f.failed); first >= 0 && !empty(stays) {
			if onlyOne(stays) {
				ties[first] = intersect(ties[first], stays)
			} else {
				ties[first] = make([]uint64, f.q.words) // they are apart already: no host joins it to all
			}
		}
	}
	var joined []item
	at := map[int]int{}
	for i, it := range f.items {
		r := find(i)
		n, ok := at[r]
		if !ok {
			n = len(joined)
			at[r] = n
			joined = append(joined, item{})
		}
		j := &joined[n]
		j.need = j.need.plus(it.need)
		j.vms = append(j.vms, it.vms...)
		j.hosts = intersect(j.hosts, it.hosts)
		j.hosts = intersect(j.hosts, ties[i])
		for _, g := range it.apart {
			if slices.Contains(j.apart, g) { // joined and kept apart at once
				j.hosts = make([]uint64, f.q.words)
			}
			j.apart = append(j.apart, g)
		}
	}
	f.items = joined
}

// may reports whether rules let the item on the host as things stand; used holds, by group, the hosts that are taken.
func (it *item) may(host int, used [][]uint64) bool {
	if it.hosts != nil && !has(it.hosts, host) {
		return false
	}
	for _, g := range it.apart {
		if has(used[g], host) {
			return false
		}
	}
	return true
}

// solve finds every item a host, or proves that there is none, or gives up.
func (f *failure) solve() (Answer, string) {
	if f.greedy() {
		return Admitted, ""
	}
	if proof := f.bound(); proof != "" {
		return Refused, proof
	}
	answer := f.within(quickSteps, f.exhaust)
	if answer == Unknown && f.anneal() {
		return Admitted, ""
	}
	if answer == Unknown {
		answer = f.within(deepSteps, f.exhaust)
	}
	if answer == Refused {
		return Refused, "every way to place them was tried"
	}
	return answer, ""
}

// within gives a search no more than some of the steps.
func (f *failure) within(steps int, search func() Answer) Answer {
	rest := max(0, f.steps-steps)
	f.steps -= rest
	answer := search()
	f.steps += rest
	return answer
}

// Costs, in steps: one step is one look at a host for an item. They bound the time, and are the same on every machine.
const (
	quickSteps  = 200_000    // of the first exhaustive search
	annealSteps = 12_000_000 // of the local search, over all its starts
	deepSteps   = 2_000_000  // of the last exhaustive search
)

// orders are the ways in which the largest comes first: by the sum of both, by the greater, by CPU and by memory.
var orders = [...]func(cpu, memory float64) float64{
	func(cpu, memory float64) float64 { return cpu + memory },
	math.Max,
	func(cpu, _ float64) float64 { return cpu },
	func(_, memory float64) float64 { return memory },
}

// greedy tries first fit and best fit in each order.
func (f *failure) greedy() bool {
	key := make([]float64, len(f.items))
	most := -1.0
	for _, measure := range orders {
		f.order = f.order[:0]
		for i, it := range f.items {
			key[i] = measure(float64(it.need.CPUHertz)*f.weight[0], float64(it.need.MemoryBytes)*f.weight[1])
			if len(it.apart) > 0 || it.hosts != nil { // the choosy go first
				key[i] += 1e3
			}
			f.order = append(f.order, i)
		}
		slices.SortFunc(f.order, func(a, b int) int { return cmp.Or(cmp.Compare(key[b], key[a]), cmp.Compare(a, b)) })
		for _, tightest := range []bool{false, true} {
			placed := f.fill(tightest)
			if placed >= math.Inf(1) {
				return true
			}
			if placed > most {
				most = placed
				f.best = append(f.best[:0], f.to...)
			}
		}
	}
	return false
}

// fill places the items in order, each on the first host with room or on the one it leaves least on, and tells the value
// of what it placed; infinite if that is all.
func (f *failure) fill(tightest bool) float64 {
	free, used := slices.Clone(f.free), cloneSets(f.taken)
	placed, all := 0.0, true
	for _, i := range f.order {
		it := &f.items[i]
		host, least := -1, math.Inf(1)
		for h := range free {
			if !it.need.fits(free[h]) || !it.may(h, used) {
				continue
			}
			if !tightest {
				host = h
				f.steps -= h + 1
				break
			}
			if left := f.value(free[h].minus(it.need)); left < least {
				host, least = h, left
			}
		}
		if tightest || host < 0 {
			f.steps -= len(free)
		}
		f.to[i] = host
		if host < 0 {
			all = false
			continue
		}
		placed += it.value
		free[host] = free[host].minus(it.need)
		for _, g := range it.apart {
			set(used[g], host)
		}
	}
	if all {
		return math.Inf(1)
	}
	return placed
}

// leftOver is the largest VM that the fullest packing found leaves without a host.
func (f *failure) leftOver() int {
	vm, value := -1, -1.0
	for i, h := range f.best {
		if h < 0 && f.items[i].value > value {
			vm, value = f.items[i].vms[0], f.items[i].value
		}
	}
	return vm
}

// Sets of hosts.

func has(s []uint64, i int) bool { return s[i>>6]&(1<<(i&63)) != 0 }
func set(s []uint64, i int)      { s[i>>6] |= 1 << (i & 63) }
func unset(s []uint64, i int)    { s[i>>6] &^= 1 << (i & 63) }

func empty(s []uint64) bool { return !slices.ContainsFunc(s, func(w uint64) bool { return w != 0 }) }

func onlyOne(s []uint64) bool {
	n := 0
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n == 1
}

// intersect treats nil as all.
func intersect(a, b []uint64) []uint64 {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	out := make([]uint64, len(a))
	for i := range a {
		out[i] = a[i] & b[i]
	}
	return out
}

func cloneSets(s [][]uint64) [][]uint64 {
	if len(s) == 0 {
		return nil
	}
	out := make([][]uint64, len(s))
	for i := range s {
		out[i] = slices.Clone(s[i])
	}
	return out
}
