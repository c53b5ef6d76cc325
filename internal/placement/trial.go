package placement

import (
	"fmt"
	"slices"

	"github.com/protip/protip/internal/inventory"
)

// Plus is the question with one more VM, on the claim's host. A VM that is not restarted only takes room there.
func (q Question) Plus(c Claim, restarted bool) Question {
	q.Hosts = slices.Clone(q.Hosts)
	free := q.Hosts[c.Host].Free.minus(c.Need)
	q.Hosts[c.Host].Free = Size{max(0, free.CPUHertz), max(0, free.MemoryBytes)}
	if restarted {
		q.VMs = append(slices.Clone(q.VMs), c)
	}
	return q
}

// Moved is the question with one of its VMs on another host.
func (q Question) Moved(vm, to int) Question {
	q.Hosts, q.VMs = slices.Clone(q.Hosts), slices.Clone(q.VMs)
	c := &q.VMs[vm]
	q.Hosts[c.Host].Free = q.Hosts[c.Host].Free.plus(c.Need)
	free := q.Hosts[to].Free.minus(c.Need)
	q.Hosts[to].Free = Size{max(0, free.CPUHertz), max(0, free.MemoryBytes)}
	c.Host = to
	return q
}

// trial is a VM that is asked of each host in turn: does the cluster keep its reserve with the VM there? It looks at what the
// plans leave free and, where that is too little, moves one restart of a plan away; it searches no further.
type trial struct {
	*Admission
	hosts     map[inventory.ID]int // of the question
	claim     Claim
	vm        int // claim of the question, -1 for none
	from      int // host that it leaves, -1 for none
	restarted bool
	mates     []int // claims that it may not share a host with
	shunned   []int // hosts where others stay that it may not share a host with
	tied      bool  // those that are restarted must follow it
}

// try prepares the trial of a VM: one that the question knows, or a new one.
func (a *Admission) try(c Claim, from inventory.ID, restarted bool) *trial {
	t := &trial{Admission: a, hosts: make(map[inventory.ID]int, len(a.q.Hosts)), claim: c, vm: -1, from: -1, restarted: restarted}
	for h := range a.q.Hosts {
		t.hosts[a.q.Hosts[h].ID] = h
	}
	if h, ok := t.hosts[from]; ok && !from.IsZero() {
		t.from = h
	}
	if !c.ID.IsZero() {
		t.vm = slices.IndexFunc(a.q.VMs, func(v Claim) bool { return v.ID == c.ID })
	}
	if t.vm >= 0 {
		t.claim = a.q.VMs[t.vm]
		t.from, t.restarted = t.claim.Host, true
		for _, g := range a.q.apart[t.vm] {
			t.mates = append(t.mates, a.q.Apart[g].VMs...)
			t.shunned = append(t.shunned, a.q.Apart[g].Others...)
		}
	}
	return t
}

// on says why the reserve would not hold, or could not be shown to, with the VM on the host; empty if it holds.
func (t *trial) on(h int) string {
	if t.vm >= 0 && t.q.joined[t.vm] {
		if a := t.q.Question.Moved(t.vm, h).Answer(t.Admission); a.Answer != Admitted {
			return a.Why
		}
		return ""
	}
	if t.tied {
		return fmt.Sprintf("VMs that are restarted must be where %s is", t.claim.Name)
	}
	if t.q.Hosts[h].Shut != "" {
		return fmt.Sprintf("%s is %s", t.q.Hosts[h].Name, t.q.Hosts[h].Shut)
	}
	if !t.room(h).fits(t.q.Hosts[h].Free) {
		return fmt.Sprintf("%s has %s left beside its own VMs, and it needs %s", t.q.Hosts[h].Name, t.q.Hosts[h].Free, t.claim.Need)
	}
	if len(t.sets) < t.Sets {
		return fmt.Sprintf("%d ways to fail are too many to ask again", t.Sets)
	}
	sets := t.with[h]
	if len(t.mates)+len(t.shunned) > 0 || !t.room(h).fits(t.least[h]) {
		sets = t.every
	}
	for _, n := range sets {
		if set := t.sets[n]; !t.survives(int(n), set, h) {
			return fmt.Sprintf("with it there, no host was found for all when %s %s", t.names(widen(set)), fails(len(set)))
		}
	}
	return ""
}

func (t *trial) survives(n int, set []int32, h int) bool {
	leaves, stays := false, true // the old host, the new one
	for _, f := range set {
		leaves = leaves || int(f) == t.from
		stays = stays && int(f) != h
	}
	switch {
	case leaves && !stays:
		return true // it is restarted as before
	case leaves && t.vm >= 0 && t.restartOf(n, t.vm) == h:
		return true // it stays where it was restarted before
	case stays:
		return t.takes(n, set, h)
	case !t.restarted:
		return true // lost with its host
	}
	for g := range t.q.Hosts {
		if g != h && !slices.Contains(set, int32(g)) && t.allows(g) && t.room(g).fits(t.plans[n].left[g]) && t.apart(n, set, g) {
			return true
		}
	}
	for g := range t.q.Hosts {
		if g != h && !slices.Contains(set, int32(g)) && t.allows(g) && t.takes(n, set, g) {
			return true
		}
	}
	return false
}

// room is what the VM takes of a host: nothing of the one it leaves, and of one that it is on its way to.
func (t *trial) room(g int) Size {
	if g == t.from || !t.claim.ID.IsZero() && slices.Contains(t.q.Hosts[g].Coming, t.claim.ID) {
		return Size{}
	}
	return t.claim.Need
}

func (t *trial) allows(g int) bool {
	return t.q.Hosts[g].Shut == "" && (t.claim.Hosts == nil || slices.Contains(t.claim.Hosts, g))
}

// takes reports whether the host has room for the VM beside what the plan restarts there, if need be after one of those went
// to another host.
func (t *trial) takes(n int, set []int32, g int) bool {
	left := t.plans[n].left
	if !t.apart(n, set, g) {
		return false
	}
	if t.room(g).fits(left[g]) {
		return true
	}
	i := 0
	for _, f := range set {
		for _, v := range t.q.on[f] {
			to := int(t.plans[n].to[i])
			i++
			if to != g || len(t.q.apart[v]) > 0 || t.q.joined[v] || v == t.vm || !t.claim.Need.fits(left[g].plus(t.q.VMs[v].Need)) {
				continue
			}
			for other := range left {
				if other != g && t.q.VMs[v].Need.fits(left[other]) && (t.q.allowed[v] == nil || has(t.q.allowed[v], other)) {
					return true
				}
			}
		}
	}
	return false
}

// apart reports whether no rule keeps the VM off the host, with the others where the plan restarts them.
func (t *trial) apart(n int, set []int32, g int) bool {
	for _, v := range t.mates {
		at := t.q.VMs[v].Host
		if slices.Contains(set, int32(at)) {
			at = t.restartOf(n, v)
		}
		if v != t.vm && at == g {
			return false
		}
	}
	return !slices.Contains(t.shunned, g)
}
