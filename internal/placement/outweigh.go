package placement

import (
	"fmt"
	"maps"
	"slices"
)

// outweighed lists, by host, the hosts whose loss is at least as bad whatever else fails: more to restart, and no less room lost.
//
//	b outweighs a:  each claim on a has a claim of its own on b that needs as much or more,
//	                b has at least as much free, whatever may run on a may run on b, and no rule is touched.
//
// Then a plan for S+b gives one for S+a: each claim of a goes where its counterpart of b went, and what went to a goes to b.
func (q *question) outweighed() [][]int {
	out := make([][]int, len(q.Hosts))
	if len(q.Joined) > 0 {
		return out
	}
	plain, touched, total := make([]bool, len(q.Hosts)), make([]bool, len(q.Hosts)), make([]Size, len(q.Hosts))
	for h := range q.Hosts {
		plain[h] = true
		for _, v := range q.on[h] {
			plain[h] = plain[h] && q.allowed[v] == nil && len(q.apart[v]) == 0
			touched[h] = touched[h] || len(q.apart[v]) > 0
			total[h] = total[h].plus(q.VMs[v].Need)
		}
	}
	for _, g := range q.Apart {
		for _, h := range g.Others {
			touched[h] = true
		}
	}
	reach := q.reach()
	outweighs := func(b, a int) bool {
		return plain[a] && !touched[b] && reach[a] == reach[b] && q.Hosts[a].Free.fits(q.Hosts[b].Free) && total[a].fits(total[b]) &&
			q.counterparts(a, b) != nil
	}
	for a := range q.Hosts {
		for b := range q.Hosts {
			if a != b && outweighs(b, a) && (a > b || !outweighs(a, b)) { // of two alike the first outweighs the other
				out[a] = append(out[a], b)
			}
		}
	}
	return out
}

// reach tells the hosts apart that some claim may run on and another may not: those with the same number are the same to all.
func (q *question) reach() []int {
	sets := map[string][]uint64{}
	for _, s := range q.allowed {
		if s != nil {
			sets[fmt.Sprint(s)] = s
		}
	}
	keys := slices.Sorted(maps.Keys(sets))
	class := map[string]int{}
	out := make([]int, len(q.Hosts))
	for h := range out {
		row := make([]byte, len(keys))
		for i, k := range keys {
			if has(sets[k], h) {
				row[i] = 1
			}
		}
		if _, ok := class[string(row)]; !ok {
			class[string(row)] = len(class)
		}
		out[h] = class[string(row)]
	}
	return out
}

// counterparts gives each claim of a one of b that needs as much or more, by position; nil if that cannot be. The largest CPU
// goes first and takes the least memory that suffices: if any choice works, this one does.
func (q *question) counterparts(a, b int) []int {
	if len(q.on[a]) > len(q.on[b]) {
		return nil
	}
	need := func(v int) Size { return q.VMs[v].Need }
	small, large := q.byCPU[a], q.byCPU[b]
	out := make([]int, len(q.on[a]))
	taken := make([]bool, len(large))
	for _, v := range small {
		best := -1
		for i, w := range large {
			if need(w).CPUHertz < need(v).CPUHertz {
				break
			}
			if !taken[i] && need(w).MemoryBytes >= need(v).MemoryBytes && (best < 0 || need(w).MemoryBytes < need(large[best]).MemoryBytes) {
				best = i
			}
		}
		if best < 0 {
			return nil
		}
		taken[best] = true
		out[q.pos[v]] = large[best]
	}
	return out
}
