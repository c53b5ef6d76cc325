package placement

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/protip/protip/internal/inventory"
)

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
		return c.bars(v)
	}
	c.move(v, to, ForEvacuation, 0)
	return ""
}

func (c *planner) leastCrowded(v int) int {
	for {
		best, least := -1, math.Inf(1)
		for to := range c.hosts {
			h, a := &c.hosts[to], &c.vms[v]
			if c.barred[[2]int{v, to}] != "" || !c.room(v, to) || h.now.CPUHertz+a.now(h) > h.capacity.CPUHertz {
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

// freeAsked empties each host that is to be freed, if its VMs have a comfortable place on hosts that run some already. It names a VM that
// has none.
func (c *planner) freeAsked() (left []Leftover) {
	for _, id := range c.want.Free {
		i, ok := c.at[id]
		if !ok || slices.Contains(c.want.Evacuate, id) {
			continue
		}
		h := &c.hosts[i]
		if why := c.unknownOn(i); len(why) > 0 {
			left = append(left, why...)
			continue
		}
		if v := slices.IndexFunc(h.vms, c.stays); v >= 0 {
			a := &c.vms[h.vms[v]]
			left = append(left, Leftover{a.id, a.name, cmp.Or(a.fixed, "it has been moved there by this plan")})
			continue
		}
		if _, v := c.freeOne(i); v >= 0 {
			a := &c.vms[v]
			left = append(left, Leftover{a.id, a.name, fmt.Sprintf("no host that runs VMs already takes it comfortably, so %s is not freed; %s", h.host.Name, c.bars(v))})
		}
	}
	return left
}

// occupy brings hosts up to the mean load of their cluster, with VMs off its fullest hosts, the greatest that fit first.
func (c *planner) occupy() {
	for _, id := range c.want.Occupy {
		to, ok := c.at[id]
		if !ok || c.hosts[to].shut {
			continue
		}
		mean := c.meanFullness(c.hosts[to].cluster)
		for c.occupyOnce(to, mean) {
		}
	}
}

// occupyOnce moves the VM that fills the host most, off the fullest host that has one: neither may the host pass the mean, nor become
// fuller than the one that gives.
func (c *planner) occupyOnce(to int, mean float64) bool {
	h := &c.hosts[to]
	var from []int
	for i := range c.hosts {
		if i != to && c.hosts[i].cluster == h.cluster && c.hosts[i].sized() && c.hosts[i].fullness(nil, 0) > mean {
			from = append(from, i)
		}
	}
	slices.SortStableFunc(from, func(i, j int) int { return cmp.Compare(c.hosts[j].fullness(nil, 0), c.hosts[i].fullness(nil, 0)) })
	now := h.fullness(nil, 0)
	for _, i := range from {
		g := &c.hosts[i]
		least := min(worthwhile, 0.5*g.fullness(nil, 0)/float64(max(1, len(g.vms))))
		vms := slices.DeleteFunc(slices.Clone(g.vms), func(v int) bool {
			a := &c.vms[v]
			after := h.fullness(a, 1)
			return c.stays(v) || after-now < least || after > mean || after > g.fullness(a, -1)
		})
		slices.SortStableFunc(vms, func(x, y int) int { return cmp.Compare(h.fullness(&c.vms[y], 1), h.fullness(&c.vms[x], 1)) })
		for _, v := range vms {
			if c.fits(v, to, c.comfort) && c.may(v, to) {
				c.move(v, to, ForShare, 0)
				return true
			}
		}
	}
	return false
}

// fullness is the utilisation, 0..1, that is expected of what the host has least of, with a VM more or less.
func (h *stage) fullness(a *actor, sign float64) float64 {
	cpu, memory := h.level, h.now.MemoryBytes
	if a != nil {
		cpu += sign * a.level(h)
		memory += sign * a.Now.MemoryBytes
	}
	return max(cpu/h.capacity.CPUHertz, memory/h.capacity.MemoryBytes)
}

// meanFullness is that of the hosts of a cluster that may take VMs, all their loads shared evenly.
func (c *planner) meanFullness(cluster inventory.ID) float64 {
	var all stage
	for i := range c.hosts {
		if h := &c.hosts[i]; h.cluster == cluster && !h.shut {
			all.level += h.level
			all.now.MemoryBytes += h.now.MemoryBytes
			all.capacity = all.capacity.plus(h.capacity)
		}
	}
	return all.fullness(nil, 0)
}
