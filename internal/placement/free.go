package placement

import (
	"cmp"
	"math"
	"slices"

	"github.com/protip/protip/internal/inventory"
)

// free empties hosts that are not needed, those with the fewest VMs first.
func (c *planner) free() {
	var order []int
	mean := c.meanVM()
	for i := range c.hosts {
		if h := &c.hosts[i]; len(h.vms) > 0 && !h.shut && h.excess() <= 0 && !slices.ContainsFunc(h.vms, c.stays) && c.worthFreeing(h, mean) {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(i, j int) int {
		a, b := &c.hosts[i], &c.hosts[j]
		return cmp.Or(cmp.Compare(len(a.vms), len(b.vms)), cmp.Compare(a.level/a.capacity.CPUHertz, b.level/b.capacity.CPUHertz))
	})
	taken, first := map[int]bool{}, len(c.steps)
	for _, i := range order {
		if !taken[i] {
			to, _ := c.freeOne(i)
			for _, h := range to {
				taken[h] = true
			}
		}
	}
	c.substitute(first)
}

// worthFreeing holds the host's VMs against what such a host holds of the fleet's mean VM.
func (c *planner) worthFreeing(h *stage, mean actor) bool {
	byMemory := math.Floor(h.capacity.MemoryBytes * c.want.MemoryCeiling / mean.Now.MemoryBytes)
	byCPU := math.Floor(holds(h.capacity.CPUHertz, mean, c.comfort))
	return byCPU >= byMemory || float64(len(h.vms)) <= freeBelow*max(1, byCPU)
}

// holds is the n for which n m + z sqrt(n v) is the capacity: how many such VMs a host holds comfortably.
func holds(capacity float64, vm actor, comfort float64) float64 {
	if !(vm.CPUHertz > 0) {
		return math.Inf(1)
	}
	s := comfort * math.Sqrt(vm.CPUVariance)
	root := (math.Sqrt(s*s+4*vm.CPUHertz*capacity) - s) / (2 * vm.CPUHertz)
	return root * root
}

// meanVM is what a VM of the fleet needs on average.
func (c *planner) meanVM() (mean actor) {
	n := float64(len(c.vms))
	for i := range c.vms {
		mean.CPUHertz += c.vms[i].CPUHertz / n
		mean.CPUVariance += c.vms[i].CPUVariance / n
		mean.Now.MemoryBytes += c.vms[i].Now.MemoryBytes / n
	}
	return mean
}

// freeOne finds a place for all of the host's VMs, the greatest first, or moves none. It returns where they go, or the VM that has none.
func (c *planner) freeOne(i int) (to []int, stuck int) {
	h := &c.hosts[i]
	vms := slices.Clone(h.vms)
	slices.SortStableFunc(vms, func(x, y int) int { return cmp.Compare(c.vms[y].CPUHertz, c.vms[x].CPUHertz) })
	was, back := h.shut, c.mark(i)
	h.shut = true
	for _, v := range vms {
		t := c.target(v, c.comfort+comfortFree, false)
		if t < 0 {
			for k := len(to) - 1; k >= 0; k-- {
				c.shift(vms[k], i)
			}
			back()
			h.shut = was
			return nil, v
		}
		c.count(v, t)
		c.shift(v, t)
		to = append(to, t)
	}
	for k, v := range vms {
		c.note(v, i, to[k], ForFreeing, 0)
	}
	return to, -1
}

// substitute looks at each host that was filled by the moves from the first on, and lets a host that was emptied for it stand in where
// that draws less under the same VMs. What that host had need not move then, so it costs no more moves than the filled host has VMs of
// its own. Not where a reserve is kept: it was asked of each move as it was.
func (c *planner) substitute(first int) {
	into := map[int][]int{} // sources, by target
	whole := map[int]bool{} // sources all of whose VMs went to one target
	for _, m := range c.steps[first:] {
		if _, seen := whole[m.from]; !seen {
			into[m.to] = append(into[m.to], m.from)
			whole[m.from] = true
		} else if !slices.Contains(into[m.to], m.from) {
			whole[m.from] = false
		}
	}
	for g := range c.hosts {
		best, saved := -1, worthwhile*c.hosts[g].draws(c.hosts[g].level)
		for _, k := range into[g] {
			if s := c.hosts[g].draws(c.hosts[g].level) - c.hosts[k].draws(c.hosts[g].level); whole[k] && s > saved && c.standsIn(k, g, first) {
				best, saved = k, s
			}
		}
		if best >= 0 {
			c.replace(g, best, first)
		}
	}
}

// standsIn is whether the host k, empty by now, holds all VMs of g comfortably, and all of them may go there.
func (c *planner) standsIn(k, g, first int) bool {
	from, h := &c.hosts[g], &c.hosts[k]
	if h.asked || from.shut || len(h.vms) > 0 || c.reserves[h.cluster] != nil {
		return false
	}
	back := map[int]bool{}
	for n, m := range c.steps {
		if n < first && m.to == g || m.from == g {
			return false
		}
		back[m.vm] = back[m.vm] || m.from == k
	}
	h.shut = false
	defer func() { h.shut = true }()
	sum := stage{level: h.level, variance: h.variance, now: h.now, flow: h.flow}
	for _, v := range from.vms {
		a := &c.vms[v]
		if w := max(a.Now.CPUHertz, a.CPUHertz+comfortCore*math.Sqrt(a.CPUVariance)); h.core < c.hosts[a.first].core && a.on(h, w) < w {
			return false
		}
		if !back[v] && (a.fixed != "" || !c.room(v, k) || c.barred[[2]int{v, k}] != "" || !c.may(v, k)) {
			return false
		}
		sum.level += a.level(h)
		sum.variance += a.CPUVariance
		sum.now.CPUHertz += a.now(h)
		sum.now.MemoryBytes += a.Now.MemoryBytes
		sum.flow = sum.flow.plus(a.Flow, 1)
	}
	return sum.level+(c.comfort+comfortFree)*math.Sqrt(sum.variance) <= h.capacity.CPUHertz && sum.now.CPUHertz <= c.ceiling*h.capacity.CPUHertz &&
		sum.now.MemoryBytes <= c.want.MemoryCeiling*h.capacity.MemoryBytes && sum.flow.carries(Flow{}, c.ceiling, c.policy.HostFlow)
}

// replace puts all VMs of g on k, as if the moves from the first on had gone there.
func (c *planner) replace(g, k, first int) {
	c.hosts[k].shut = false
	vms := slices.Clone(c.hosts[g].vms)
	for _, v := range vms {
		c.shift(v, k)
	}
	c.hosts[g].shut = true
	var steps []step
	for n, m := range c.steps {
		switch {
		case n >= first && m.from == k:
			c.vms[m.vm].moved = false
			c.forget(c.vms[m.vm].id)
			continue
		case n >= first && m.to == g:
			m.to = k
		}
		steps = append(steps, m)
	}
	c.steps = steps
	for _, v := range vms {
		if !c.vms[v].moved && c.vms[v].first == g {
			c.note(v, g, k, ForFreeing, 0)
		}
	}
}

// forget takes back that this plan took a VM from a host.
func (c *planner) forget(vm inventory.ID) {
	if left := c.past.Left[vm]; len(left) > 1 {
		c.past.Left[vm] = left[:len(left)-1]
	} else {
		delete(c.past.Left, vm)
	}
}

// draws is the host's power in watts at a load; 0 is not known.
func (h *stage) draws(hertz float64) float64 {
	n := len(h.power) - 1
	if n < 1 || !h.sized() || !amount(hertz) {
		return 0
	}
	at := max(0, min(1, hertz/h.host.CPUHertz)) * float64(n)
	i := min(n-1, int(at))
	return h.power[i] + (h.power[i+1]-h.power[i])*(at-float64(i))
}
