package placement

import "fmt"

// waves orders the moves. In a wave all begin at once, and a VM counts on both hosts until the wave has ended; so a VM goes to a host
// that another one leaves only in a later wave, and no move overtakes one before it to or from its target. A reserve is asked anew of
// each move as it begins beside the others. Should that leave none that may begin, they go one by one, as they were planned.
func (c *planner) waves() [][]Step {
	out, ok := c.inWaves(len(c.steps))
	if !ok {
		out, _ = c.inWaves(1)
	}
	return out
}

// inWaves makes waves of at most so many moves; false if the reserve lets none of those that are left begin.
func (c *planner) inWaves(most int) (out [][]Step, ok bool) {
	for i := range c.vms {
		c.vms[i].host = c.vms[i].first
	}
	for _, k := range c.reserves {
		k.back(0)
	}
	for rest := c.steps; len(rest) > 0; {
		var wave []Step
		var began, later []step
		in, from, held := map[int]int{}, map[int]int{}, map[int]bool{}
		for _, m := range rest {
			if len(wave) == most || held[m.to] || from[m.to] > 0 || c.want.In > 0 && in[m.to] >= c.want.In || c.want.Out > 0 && from[m.from] >= c.want.Out || c.begins(m.vm, m.to) != "" {
				held[m.from], held[m.to] = true, true
				later = append(later, m)
				continue
			}
			in[m.to]++
			from[m.from]++
			began = append(began, m)
			wave = append(wave, c.describe(m))
		}
		if len(wave) == 0 {
			return nil, false
		}
		for _, m := range began {
			c.ends(m)
		}
		out, rest = append(out, wave), later
	}
	return out, true
}

func (c *planner) ends(m step) {
	if k, claim, need := c.moving(m.vm); k != nil {
		k.land(claim, need, k.host[c.hosts[m.from].host.ID], k.host[c.hosts[m.to].host.ID])
	}
	c.vms[m.vm].host = m.to
}

func (c *planner) describe(m step) Step {
	a, from, to := &c.vms[m.vm], &c.hosts[m.from], &c.hosts[m.to]
	why := fmt.Sprintf("%s is to be emptied, and %s has room", from.host.Name, to.host.Name)
	switch m.code {
	case ForRelief:
		why = fmt.Sprintf("the VMs of %s want more CPU than it has, and %s is expected to serve %s more", from.host.Name, to.host.Name, hertz(m.gain))
	case ForFreeing:
		why = fmt.Sprintf("%s is not needed: its VMs fit on other hosts, this one on %s", from.host.Name, to.host.Name)
	case ForShare:
		why = fmt.Sprintf("%s carries less than its share of the cluster, and %s more", to.host.Name, from.host.Name)
	}
	gained, closer := m.gain, 0.0
	if m.code == ForSpread {
		gained, closer = 0, m.gain
		why = fmt.Sprintf("%s is the busiest host of its cluster: with this VM on %s the two are %s of their CPU closer", from.host.Name, to.host.Name, percent(closer))
	}
	kind := MoveLive
	if k := c.known[m.vm]; k != nil {
		kind = k.kind
	}
	return Step{
		VM: a.id, Name: a.name, From: from.host.ID, To: to.host.ID, Kind: kind, For: m.code, Why: why,
		GainedHertz: gained, Closer: closer, Cost: CostOf(kind, a.Now.MemoryBytes, c.want.CopyRate, c.want.DirtyRates[a.id]),
	}
}

// CostOf is what a move of so much memory takes, where so many bytes are copied, and so many written to it, in a second; 0 is not known. A
// live one copies the memory, then what was written meanwhile, and so on: M + M d/r + M (d/r)^2 + ... = M r / (r - d). A quick one writes
// the memory once and reads it once.
func CostOf(kind MoveKind, memory, copied, dirtied float64) Cost {
	switch known := copied > 0 && amount(copied); {
	case kind == MoveQuick && known:
		return Cost{CopyBytes: memory, Seconds: 2 * memory / copied, DowntimeSeconds: 2 * memory / copied}
	case kind == MoveQuick || !known:
		return Cost{CopyBytes: memory}
	case dirtied > 0 && dirtied < copied:
		memory *= copied / (copied - dirtied)
	}
	return Cost{CopyBytes: memory, Seconds: memory / copied}
}
