package placement

import (
	"cmp"
	"math"
	"slices"
)

// exhaust tries every way to place the items, largest first, without those that lead nowhere: where what is left does not fit
// into what is left of the hosts, and where a host or an item is like one that was tried. Unknown if the steps ran out.
func (f *failure) exhaust() Answer {
	x := &exhaustive{failure: f, free: slices.Clone(f.free), used: cloneSets(f.taken), alike: true}
	for i := range f.items {
		x.order = append(x.order, i)
		x.alike = x.alike && f.items[i].hosts == nil && len(f.items[i].apart) == 0
	}
	slices.SortFunc(x.order, func(a, b int) int { return cmp.Or(cmp.Compare(f.items[b].value, f.items[a].value), cmp.Compare(a, b)) })
	x.rest = make([]Size, len(x.order)+1)
	x.least = make([]Size, len(x.order)+1)
	x.least[len(x.order)] = Size{maxAmount, maxAmount}
	for k := len(x.order) - 1; k >= 0; k-- {
		need := f.items[x.order[k]].need
		x.rest[k] = x.rest[k+1].plus(need)
		x.least[k] = Size{min(x.least[k+1].CPUHertz, need.CPUHertz), min(x.least[k+1].MemoryBytes, need.MemoryBytes)}
	}
	if x.place(0) {
		return Admitted
	}
	if f.steps <= 0 {
		return Unknown
	}
	return Refused
}

type exhaustive struct {
	*failure
	order []int
	rest  []Size // from the k-th item on, the sum of needs
	least []Size // and the least of each
	free  []Size
	used  [][]uint64
	alike bool // no rule tells one host, or one item, from another of the same size
}

func (x *exhaustive) place(k int) bool {
	if k == len(x.order) {
		return true
	}
	if x.steps <= 0 || !x.enough(k) {
		return false
	}
	i := x.order[k]
	it := &x.items[i]
	from := 0
	if k > 0 && x.alike && x.items[x.order[k-1]].need == it.need {
		from = x.to[x.order[k-1]] // two alike: the second goes no further left
	}
	for h := from; h < len(x.free); h++ {
		if !it.need.fits(x.free[h]) || !it.may(h, x.used) || x.alike && x.seen(from, h) {
			continue
		}
		x.free[h] = x.free[h].minus(it.need)
		for _, g := range it.apart {
			set(x.used[g], h)
		}
		x.to[i] = h
		if x.place(k + 1) {
			return true
		}
		x.free[h] = x.free[h].plus(it.need)
		for _, g := range it.apart {
			unset(x.used[g], h)
		}
	}
	x.to[i] = -1
	return false
}

// enough reports whether what the hosts have left could hold the k-th item and those after it.
func (x *exhaustive) enough(k int) bool {
	x.steps -= len(x.free)
	var room Size
	for _, free := range x.free {
		if x.least[k].fits(free) {
			room = room.plus(free)
		}
	}
	return x.rest[k].fits(room)
}

// seen reports whether a host before h, from the given one on, has as much left.
func (x *exhaustive) seen(from, h int) bool { return slices.Contains(x.free[from:h], x.free[h]) }

// anneal places every item somewhere and then moves and swaps until no host carries too much: what would be too much on a host
// is accepted at first, then less and less. It starts anew a few times.
func (f *failure) anneal() bool {
	l := &local{failure: f, slots: make([]int, 0, len(f.items))}
	for h := range f.free {
		if f.free[h].CPUHertz >= 0 {
			l.hosts = append(l.hosts, h)
		}
	}
	if len(l.hosts) == 0 || len(f.items) == 0 {
		return false
	}
	for start := range uint64(annealStarts) {
		if f.steps < annealCost {
			return false
		}
		f.rng = 0x9e3779b97f4a7c15 * (start + 1)
		if !l.begin() {
			return false // rules leave no room to begin with
		}
		steps := min(annealSteps/annealStarts, f.steps/annealCost)
		f.steps -= steps * annealCost
		if l.cool(steps) {
			return true
		}
	}
	return false
}

const (
	annealStarts = 4
	annealCost   = 4 // steps that one trial move is worth
	// The temperatures are in units of a mean item's value: at first a host may carry a fraction of an item too much.
	hottest = 0.3
	coldest = 0.002
)

// local is a packing in which hosts may carry too much.
type local struct {
	*failure
	hosts []int  // that may take something
	left  []Size // what each host has left, below zero if it carries too much
	count [][]int16
	over  []int // hosts that carry too much
	at    []int // their place in over, -1 if they do not
	slots []int
	on    [][]int // items by host
	pos   []int   // of an item among them
	cost  []float64
}

// begin places each item where it does least harm, the largest first.
func (l *local) begin() bool {
	l.left = append(l.left[:0], l.free...)
	l.cost = make([]float64, len(l.free))
	l.at = slices.Repeat([]int{-1}, len(l.free))
	l.on = make([][]int, len(l.free))
	l.pos = make([]int, len(l.items))
	l.over = l.over[:0]
	l.count = l.count[:0]
	for _, taken := range l.taken {
		c := make([]int16, len(l.free))
		for h := range c {
			if has(taken, h) {
				c[h] = 1
			}
		}
		l.count = append(l.count, c)
	}
	order := make([]int, len(l.items))
	key := make([]float64, len(l.items))
	for i := range order {
		order[i] = i
		key[i] = l.items[i].value * (1 + 0.2*l.random())
		if len(l.items[i].apart) > 0 || l.items[i].hosts != nil {
			key[i] += 1e3
		}
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Or(cmp.Compare(key[b], key[a]), cmp.Compare(a, b)) })
	for _, i := range order {
		best, harm := -1, math.Inf(1)
		for _, h := range l.hosts {
			if !l.may(i, h, -1) {
				continue
			}
			left := l.left[h].minus(l.items[i].need)
			if c := l.overload(left) - l.cost[h] - 1e-3*l.value(left); c < harm {
				best, harm = h, c
			}
		}
		if best < 0 {
			return false
		}
		l.put(i, best)
	}
	return true
}

// may reports whether rules let the item on the host if the other item leaves it.
func (l *local) may(i, h, leaves int) bool {
	it := &l.items[i]
	if it.hosts != nil && !has(it.hosts, h) {
		return false
	}
	for _, g := range it.apart {
		n := l.count[g][h]
		if leaves >= 0 && slices.Contains(l.items[leaves].apart, g) {
			n--
		}
		if n > 0 {
			return false
		}
	}
	return true
}

func (l *local) overload(left Size) float64 {
	c := 0.0
	if left.CPUHertz < 0 {
		c -= float64(left.CPUHertz) * l.weight[0]
	}
	if left.MemoryBytes < 0 {
		c -= float64(left.MemoryBytes) * l.weight[1]
	}
	return c
}

func (l *local) put(i, h int) {
	l.to[i] = h
	l.pos[i] = len(l.on[h])
	l.on[h] = append(l.on[h], i)
	for _, g := range l.items[i].apart {
		l.count[g][h]++
	}
	l.weigh(h, l.left[h].minus(l.items[i].need))
}

func (l *local) take(i int) {
	h := l.to[i]
	last := l.on[h][len(l.on[h])-1]
	l.on[h][l.pos[i]], l.pos[last] = last, l.pos[i]
	l.on[h] = l.on[h][:len(l.on[h])-1]
	for _, g := range l.items[i].apart {
		l.count[g][h]--
	}
	l.weigh(h, l.left[h].plus(l.items[i].need))
}

// weigh sets what the host has left.
func (l *local) weigh(h int, left Size) {
	l.left[h] = left
	l.cost[h] = l.overload(left)
	switch at := l.at[h]; {
	case l.cost[h] > 0 && at < 0:
		l.at[h] = len(l.over)
		l.over = append(l.over, h)
	case l.cost[h] == 0 && at >= 0:
		last := l.over[len(l.over)-1]
		l.over[at], l.at[last] = last, at
		l.over = l.over[:len(l.over)-1]
		l.at[h] = -1
	}
}

// cool makes the steps, and reports whether no host carries too much any more.
func (l *local) cool(steps int) bool {
	mean := 0.0
	for i := range l.items {
		mean += l.items[i].value
	}
	mean /= float64(len(l.items))
	const block = 1000
	heat := hottest * mean
	fade := math.Pow(coldest/hottest, float64(block)/float64(max(steps, block)))
	for n := 0; n < steps && len(l.over) > 0; n++ {
		if n%block == block-1 {
			heat *= fade
		}
		i := l.next() % len(l.items)
		if l.next()&1 == 0 {
			on := l.on[l.over[l.next()%len(l.over)]]
			i = on[l.next()%len(on)]
		}
		from := l.to[i]
		if l.next()&3 == 0 {
			l.shift(i, from, l.hosts[l.next()%len(l.hosts)], heat)
		} else {
			l.swap(i, l.next()%len(l.items), heat)
		}
	}
	return len(l.over) == 0
}

func (l *local) shift(i, from, to int, heat float64) {
	if from == to {
		return
	}
	need := l.items[i].need
	gain := l.overload(l.left[from].plus(need)) + l.overload(l.left[to].minus(need)) - l.cost[from] - l.cost[to]
	if !l.accept(gain, heat) || !l.may(i, to, -1) {
		return
	}
	l.take(i)
	l.put(i, to)
}

func (l *local) swap(i, j int, heat float64) {
	a, b := l.to[i], l.to[j]
	if a == b {
		return
	}
	more := l.items[i].need.minus(l.items[j].need) // that b carries afterwards
	gain := l.overload(l.left[a].plus(more)) + l.overload(l.left[b].minus(more)) - l.cost[a] - l.cost[b]
	if !l.accept(gain, heat) || !l.may(i, b, j) || !l.may(j, a, i) {
		return
	}
	l.take(i)
	l.take(j)
	l.put(i, b)
	l.put(j, a)
}

func (l *local) accept(gain, heat float64) bool {
	return gain <= 0 || l.random() < math.Exp(-gain/heat)
}

// next is a number that looks random and is the same in every run (xorshift64*).
func (f *failure) next() int {
	f.rng ^= f.rng >> 12
	f.rng ^= f.rng << 25
	f.rng ^= f.rng >> 27
	return int((f.rng * 0x2545f4914f6cdd1d) >> 33)
}

func (f *failure) random() float64 { return float64(f.next()) / (1 << 31) }
