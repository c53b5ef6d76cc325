package placement

import (
	"errors"
	"fmt"
	"slices"

	"github.com/protip/protip/internal/inventory"
)

// RestartsOf says who restarts where when the hosts fail; false if the answer was no, or the hosts are not ones it speaks of.
func (a *Admission) RestartsOf(failed []inventory.ID) ([]Restart, bool) {
	var hosts []int
	for _, id := range failed {
		h := slices.IndexFunc(a.hosts(), func(s Survivor) bool { return s.ID == id })
		if h < 0 {
			return nil, false
		}
		hosts = append(hosts, h)
	}
	to, ok := a.place(hosts)
	if !ok {
		return nil, false
	}
	slices.Sort(hosts)
	var out []Restart
	for _, h := range hosts {
		for _, v := range a.q.on[h] {
			on := a.q.Hosts[to[v]]
			out = append(out, Restart{VM: a.q.VMs[v].ID, Name: a.q.VMs[v].Name, To: on.ID, Host: on.Name})
		}
	}
	return out, true
}

// FailureSets are those whose plans were found; all others follow from them.
func (a *Admission) FailureSets() [][]inventory.ID {
	if a.Answer != Admitted {
		return nil
	}
	out := make([][]inventory.ID, a.Shown)
	for i, s := range a.sets[:a.Shown] {
		for _, h := range s {
			out[i] = append(out[i], a.q.Hosts[h].ID)
		}
	}
	return out
}

func (a *Admission) hosts() []Survivor {
	if a.q == nil {
		return nil
	}
	return a.q.Hosts
}

// place is the host of each claim on the failed hosts. A set that was not shown is taken from one that was: a smaller set is
// filled up, and a host is replaced by one that outweighs it.
func (a *Admission) place(failed []int) (map[int]int, bool) {
	if a.Answer != Admitted || a.plans == nil {
		return nil, false
	}
	failed = slices.Compact(slices.Sorted(slices.Values(failed)))
	if len(failed) > a.Reserve {
		return nil, false
	}
	if n, ok := a.at[spellSet(narrow(failed))]; ok {
		to := map[int]int{}
		for _, h := range failed {
			for _, v := range a.q.on[h] {
				to[v] = a.restartOf(n, v)
			}
		}
		return to, true
	}
	for i, h := range failed {
		for _, b := range a.above[h] {
			if slices.Contains(failed, b) {
				continue
			}
			to, ok := a.place(slices.Replace(slices.Clone(failed), i, i+1, b))
			return a.exchange(to, h, b), ok
		}
	}
	for h := range a.q.Hosts {
		if len(failed) < a.Reserve && !slices.Contains(failed, h) {
			to, ok := a.place(append(slices.Clone(failed), h))
			for _, v := range a.q.on[h] {
				delete(to, v)
			}
			return to, ok
		}
	}
	return nil, false
}

// exchange turns a plan for the loss of b into one for the loss of a, which b outweighs.
func (a *Admission) exchange(to map[int]int, lost, b int) map[int]int {
	out := map[int]int{}
	pair := a.q.counterparts(lost, b)
	for v, h := range to {
		if a.q.VMs[v].Host != b {
			out[v] = h
		}
	}
	for i, v := range a.q.on[lost] {
		out[v] = to[pair[i]]
	}
	for v, h := range out {
		if h == lost {
			out[v] = b
		}
	}
	return out
}

// VerifyAdmission holds a yes against the question, knowing nothing of how it was found: for every set of hosts that can fail,
// each claim on them has a host that did not fail, no host carries more than it has free, and no rule is broken.
func VerifyAdmission(q Question, a *Admission) error {
	if a.Answer != Admitted || q.Reserve != a.Reserve {
		return errors.New("no such admission")
	}
	if q.Reserve < 1 {
		return nil
	}
	var errs error
	subsets(len(q.Hosts), min(q.Reserve, len(q.Hosts)), func(failed []int) bool {
		var ids []inventory.ID
		for _, h := range failed {
			ids = append(ids, q.Hosts[h].ID)
		}
		restarts, ok := a.RestartsOf(ids)
		if !ok {
			errs = fmt.Errorf("no plan for %v", ids)
		} else if err := VerifyPlan(q, failed, restarts); err != nil {
			errs = fmt.Errorf("loss of %v: %w", ids, err)
		}
		return errs == nil
	})
	return errs
}

// VerifyPlan holds one failure set's restarts against the question.
func VerifyPlan(q Question, failed []int, restarts []Restart) error {
	to, load, host := map[inventory.ID]int{}, make([]Size, len(q.Hosts)), map[inventory.ID]int{}
	for h := range q.Hosts {
		host[q.Hosts[h].ID] = h
	}
	for _, r := range restarts {
		to[r.VM] = host[r.To]
	}
	where := func(v int) (int, bool) { // once the hosts have failed
		if !slices.Contains(failed, q.VMs[v].Host) {
			return q.VMs[v].Host, true
		}
		h, ok := to[q.VMs[v].ID]
		return h, ok
	}
	for v, c := range q.VMs {
		h, ok := where(v)
		switch {
		case !ok:
			return fmt.Errorf("%s is not restarted", c.Name)
		case !slices.Contains(failed, c.Host):
			continue
		case slices.Contains(failed, h), q.Hosts[h].Shut != "", c.Hosts != nil && !slices.Contains(c.Hosts, h):
			return fmt.Errorf("%s may not go to %s", c.Name, q.Hosts[h].Name)
		}
		load[h] = load[h].plus(c.Need)
		if !load[h].fits(q.Hosts[h].Free) {
			return fmt.Errorf("%s has %s free, less than %s", q.Hosts[h].Name, q.Hosts[h].Free, load[h])
		}
	}
	for _, g := range q.Apart {
		if !g.kept(q, failed, where, true) {
			return fmt.Errorf("rule %q keeps a restarted VM apart from another on its host", g.Name)
		}
	}
	for _, g := range q.Joined {
		if !g.kept(q, failed, where, false) {
			return fmt.Errorf("rule %q joins a restarted VM to another elsewhere", g.Name)
		}
	}
	return nil
}

// kept reports whether each restarted VM of the group is on the host of no other, or of all others.
func (g Group) kept(q Question, failed []int, where func(int) (int, bool), apart bool) bool {
	var at []int
	moved := 0 // how many of the first were restarted
	for _, v := range g.VMs {
		if h, _ := where(v); slices.Contains(failed, q.VMs[v].Host) {
			at = slices.Insert(at, 0, h)
			moved++
		} else {
			at = append(at, h)
		}
	}
	for _, h := range g.Others {
		if !slices.Contains(failed, h) {
			at = append(at, h)
		}
	}
	for i := range moved {
		for j, h := range at {
			if j != i && (h == at[i]) == apart {
				return false
			}
		}
	}
	return true
}

// subsets yields each k of the first n numbers until it is told to stop.
func subsets(n, k int, yield func([]int) bool) bool {
	chosen := make([]int, 0, k)
	var pick func(from int) bool
	pick = func(from int) bool {
		if len(chosen) == k {
			return yield(chosen)
		}
		for i := from; i < n; i++ {
			chosen = append(chosen, i)
			if !pick(i + 1) {
				return false
			}
			chosen = chosen[:len(chosen)-1]
		}
		return true
	}
	return pick(0)
}
