package placement

import (
	"math"

	"github.com/protip/protip/internal/inventory"
)

// spread brings the busiest and the idlest host of each cluster to within what was asked for, by one move after the other, each off
// the busiest host. A move counts that brings the two hosts worthwhile closer and is comfortable where it goes; of those that even the
// load out nearly as well as the best the one that copies least is made.
func (c *planner) spread() {
	if !(c.want.Apart > 0) || c.policy.Fill {
		return
	}
	for _, cluster := range c.clusters() {
		for c.spreadOnce(cluster) {
		}
	}
}

// clusters are those of the hosts, in their order.
func (c *planner) clusters() (out []inventory.ID) {
	seen := map[inventory.ID]bool{{}: true}
	for i := range c.hosts {
		if id := c.hosts[i].cluster; !seen[id] {
			seen[id] = true
			out = append(out, id)
		}
	}
	return out
}

// apart is the distance in the most uneven cluster.
func (c *planner) apart() (most float64) {
	for _, cluster := range c.clusters() {
		_, apart := c.widest(cluster)
		most = max(most, apart)
	}
	return most
}

// spreadMove is a move that would bring two hosts closer.
type spreadMove struct {
	vm, to int
	closer float64 // by how much of their CPU
	evens  float64 // by how much the sum of the squares of what they use falls
}

func (c *planner) spreadOnce(cluster inventory.ID) bool {
	for {
		from, apart := c.widest(cluster)
		if apart <= c.want.Apart {
			return false
		}
		m, ok := c.closest(from)
		if !ok {
			return false
		}
		if c.may(m.vm, m.to) {
			c.move(m.vm, m.to, ForSpread, m.closer)
			return true
		}
	}
}

// widest is a cluster's busiest host, and how far the idlest is from it.
func (c *planner) widest(cluster inventory.ID) (busiest int, apart float64) {
	busiest, most, least := -1, 0.0, math.Inf(1)
	for i := range c.hosts {
		h := &c.hosts[i]
		if h.cluster != cluster || h.stale != "" || !h.sized() {
			continue
		}
		use := h.busy(nil, 0)
		if len(h.vms) > 0 && use > most {
			busiest, most = i, use
		}
		if !h.shut {
			least = min(least, use)
		}
	}
	if busiest < 0 || math.IsInf(least, 1) {
		return -1, 0
	}
	return busiest, most - least
}

// closest is the move off a host that is to be made.
func (c *planner) closest(from int) (spreadMove, bool) {
	h := &c.hosts[from]
	var all []spreadMove
	best := 0.0
	for _, v := range h.vms {
		a := &c.vms[v]
		if c.stays(v) {
			continue
		}
		was, left := h.busy(nil, 0), h.busy(a, -1)
		for to := range c.hosts {
			t := &c.hosts[to]
			if to == from || t.cluster != h.cluster || c.barred[[2]int{v, to}] != "" || !c.fits(v, to, c.comfort) {
				continue
			}
			had, has := t.busy(nil, 0), t.busy(a, 1)
			m := spreadMove{v, to, was - had - math.Abs(left-has), was*was + had*had - left*left - has*has}
			if m.closer >= worthwhile {
				all = append(all, m)
				best = max(best, m.evens)
			}
		}
	}
	var m spreadMove
	found := false
	for _, other := range all {
		if other.evens < 0.75*best {
			continue
		}
		less, more := c.vms[other.vm].Now.MemoryBytes, c.vms[m.vm].Now.MemoryBytes
		if !found || less < more || less == more && other.evens > m.evens {
			m, found = other, true
		}
	}
	return m, found
}

// busy is the share of its CPU that the host is expected to use, halfway between its level and the last samples, with a VM more or less.
func (h *stage) busy(a *actor, sign float64) float64 {
	use := (h.now.CPUHertz + h.level) / 2
	if a != nil {
		use += sign * (a.now(h) + a.level(h)) / 2
	}
	return use / h.capacity.CPUHertz
}
