package placement

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/protip/protip/internal/inventory"
)

// flight is a VM on its way, by index.
type flight struct{ vm, from, to int }

// bears is brute force, and the truth: whether the loss of the hosts is survived while moves are under way, whichever of them have ended. A
// VM under way has room on both hosts, or on neither's account any more once its old one is lost.
func bears(q Question, failed []int, flights []flight) bool {
	for ended := range 1 << len(flights) {
		now := q
		now.Hosts, now.VMs = slices.Clone(q.Hosts), slices.Clone(q.VMs)
		for n, f := range flights {
			need := q.VMs[f.vm].Need
			landed := ended&(1<<n) != 0
			if landed {
				now.VMs[f.vm].Host = f.to
				now.Hosts[f.from].Free = now.Hosts[f.from].Free.plus(need)
			}
			if landed || !slices.Contains(failed, f.from) {
				now.Hosts[f.to].Free = now.Hosts[f.to].Free.minus(need)
			}
		}
		for h := range now.Hosts {
			if f := now.Hosts[h].Free; !slices.Contains(failed, h) && (f.CPUHertz < 0 || f.MemoryBytes < 0) {
				return false
			}
		}
		if !restartable(now, failed, nil) {
			return false
		}
	}
	return true
}

// TestKeeperIsNeverWrong: whatever it lets move, each set of hosts that it calls survived is, at every moment; and no move makes it worse.
func TestKeeperIsNeverWrong(t *testing.T) {
	allowed, refused, taken := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		q := anyQuestion(t)
		k := keep(q, nil)
		if len(q.VMs) == 0 || k.closed != "" {
			return
		}
		if k.Answer == Admitted && k.broken() > 0 {
			t.Fatal("an admission with a set that is not survived")
		}
		check := func(flights []flight) {
			for s, set := range k.sets {
				if k.lost[s].vms == 0 && !bears(q, widen(set), flights) {
					t.Fatalf("the loss of %v is not survived with %v under way", set, flights)
				}
			}
		}
		check(nil)
		moved := map[int]bool{}
		for range rapid.IntRange(1, 3).Draw(t, "waves") {
			var flights []flight
			for range rapid.IntRange(1, 3).Draw(t, "moves") {
				v, to := rapid.IntRange(0, len(q.VMs)-1).Draw(t, "vm"), rapid.IntRange(0, len(q.Hosts)-1).Draw(t, "to")
				from := q.VMs[v].Host
				leaves := slices.ContainsFunc(flights, func(f flight) bool { return f.from == to || f.to == from })
				if moved[v] || to == from || q.Hosts[to].Shut != "" || k.q.joined[v] || leaves || !clears(q, v, to, flights) {
					continue
				}
				before := k.broken()
				mark := len(k.done)
				if k.arrive(v, q.VMs[v].Need, from, to) != "" {
					refused++
					if len(k.done) != mark || k.broken() != before {
						t.Fatal("a refused move left something behind")
					}
					continue
				}
				allowed++
				if k.broken() > before {
					t.Fatal("a move that makes it worse was allowed")
				}
				moved[v] = true
				flights = append(flights, flight{v, from, to})
				check(flights)
			}
			if rapid.IntRange(0, 3).Draw(t, "take back") == 0 && len(flights) > 0 {
				taken++
				k.back(0)
				for s, l := range keep(q, nil).lost {
					if k.Answer == Admitted && l != k.lost[s] {
						t.Fatal("what was taken back is not as it was")
					}
				}
				return
			}
			q.Hosts, q.VMs = slices.Clone(q.Hosts), slices.Clone(q.VMs)
			for _, f := range flights {
				k.land(f.vm, q.VMs[f.vm].Need, f.from, f.to)
				q = landed(q, f)
			}
			check(nil)
		}
	})
	if allowed == 0 || refused == 0 || taken == 0 {
		t.Errorf("%d moves allowed, %d refused, %d taken back: something was never tried", allowed, refused, taken)
	}
}

// landed is the question after a move.
func landed(q Question, f flight) Question {
	need := q.VMs[f.vm].Need
	q.VMs[f.vm].Host = f.to
	q.Hosts[f.from].Free = q.Hosts[f.from].Free.plus(need)
	q.Hosts[f.to].Free = q.Hosts[f.to].Free.minus(need)
	return q
}

// clears is whether no rule keeps the VM off the host, where others are or are going: what rules bar is not asked of the keeper.
func clears(q Question, v, to int, flights []flight) bool {
	for _, g := range q.Apart {
		if !slices.Contains(g.VMs, v) {
			continue
		}
		if slices.Contains(g.Others, to) {
			return false
		}
		for _, w := range g.VMs {
			if w != v && (q.VMs[w].Host == to || slices.ContainsFunc(flights, func(f flight) bool { return f.vm == w && f.to == to })) {
				return false
			}
		}
	}
	return q.VMs[v].Hosts == nil || slices.Contains(q.VMs[v].Hosts, to)
}

func (k *keeper) broken() (n int) {
	for _, l := range k.lost {
		if l.vms > 0 {
			n++
		}
	}
	return n
}

// tight is a cluster of three hosts with 40 of their 100 GiB in use, of which one can fail.
func tight(change func(*inventory.Host), rules ...inventory.Rule) *inventory.Snapshot {
	f := newFleet(rules...).host("a", 4, 40, change).host("b", 4, 40).host("c", 4, 40)
	for _, h := range []string{"a", "b", "c"} {
		for n := range 4 {
			f.vm(fmt.Sprintf("%s%d", h, n), h, 1, 10)
		}
	}
	return f.snapshot()
}

// TestPlanKeepsTheReserve: a host that is to be emptied, in maintenance already or not yet, is so as far as the others could still lose one of
// them, and what stays is told.
func TestPlanKeepsTheReserve(t *testing.T) {
	for name, maintenance := range map[string]bool{"in maintenance": true, "not yet": false} {
		t.Run(name, func(t *testing.T) { planKeeps(t, tight(func(h *inventory.Host) { h.Maintenance = maintenance })) })
	}
}

func planKeeps(t *testing.T, s *inventory.Snapshot) {
	p := Policy{Ceiling: 1, Reserves: map[inventory.ID]*Admission{
		clusterID: {Reserve: 1, Answer: Unknown}, id(inventory.KindCluster, "other"): {Reserve: 1, Answer: Unknown},
	}}
	c := planOf(s, Rebalance{Evacuate: []inventory.ID{hostID("a")}, Only: true, Cluster: clusterID}, p)
	if len(c.Kept) != 1 {
		t.Errorf("it tells of the reserves of other clusters: %+v", c.Kept)
	}
	if moves := slices.Concat(c.Waves...); len(moves) != 2 || len(c.Left) != 2 {
		t.Fatalf("%d moves, left %+v: 100 GiB are all that b and c can hold if one may fail", len(moves), c.Left)
	}
	words := strings.Join(c.Words(), "\n")
	for _, want := range []string{
		"wave 1: a0 moves (live, copies 10 GiB): a is to be emptied, and ",
		"a3 stays: b: cluster prod would not keep its reserve of 1 host: when b fails, not all that restart now would have a host",
		"cluster prod keeps its reserve of 1 host at every step",
	} {
		if !strings.Contains(words, want) {
			t.Errorf("no %q in\n%s", want, words)
		}
	}
}

// TestBears: before each move the reserve is asked as the plan asked it, beside what is on its way.
func TestBears(t *testing.T) {
	s := tight(func(*inventory.Host) {})
	joined := tight(func(*inventory.Host) {}, inventory.Rule{Name: "pair", Kind: inventory.Affinity, Enabled: true, Mandatory: true, VMs: []inventory.ID{vmID("a0"), vmID("a1")}})
	others := tight(func(*inventory.Host) {}, inventory.Rule{Name: "pair", Kind: inventory.Affinity, Enabled: true, Mandatory: true, VMs: []inventory.ID{vmID("a1"), vmID("a2")}})
	reserve := map[inventory.ID]*Admission{clusterID: {Reserve: 1, Answer: Unknown}}
	emptied := map[inventory.ID]string{hostID("a"): "it is being emptied"}
	both := map[inventory.ID][]inventory.ID{hostID("b"): {vmID("a1"), vmID("a0")}, hostID("c"): {vmID("a2")}}
	for name, tt := range map[string]struct {
		s     *inventory.Snapshot
		p     Policy
		asked bool
		why   string // part of it
	}{
		"no reserve":     {s, Policy{Incoming: both}, false, ""},
		"alone":          {s, Policy{Reserves: reserve, Restricted: emptied}, true, ""},
		"the third":      {s, Policy{Reserves: reserve, Restricted: emptied, Incoming: both}, true, "cluster prod would not keep its reserve of 1 host: when "},
		"the host stays": {s, Policy{Reserves: reserve, Incoming: both}, true, ""},
		"too many are on their way": {
			s,
			Policy{Reserves: reserve, Restricted: emptied, Incoming: map[inventory.ID][]inventory.ID{hostID("b"): {vmID("a1"), vmID("a2"), vmID("a3")}}},
			true,
			"with a3 on its way to b: cluster prod would not keep its reserve",
		},
		"joined":              {joined, Policy{Reserves: reserve}, false, ""},
		"beside a joined one": {others, Policy{Reserves: reserve, Incoming: both}, false, ""},
		"unknown":             {s, Policy{Reserves: map[inventory.ID]*Admission{id(inventory.KindCluster, "other"): {Reserve: 1}}}, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			why, asked := Bears(tt.s, Observed(tt.s), vmID("a0"), hostID("b"), tt.p)
			if asked != tt.asked || !strings.HasPrefix(why, tt.why) || (why == "") != (tt.why == "") {
				t.Errorf("%q, asked %v, want %q, %v", why, asked, tt.why, tt.asked)
			}
		})
	}
}

// TestPlanMakesALostReserveNoWorse: what is not survived now does not keep a crowded host from being relieved, where that costs nothing.
func TestPlanMakesALostReserveNoWorse(t *testing.T) {
	f := newFleet().host("a", 80, 45).host("b", 4, 10).host("c", 4, 10).vm("b", "b", 4, 10).vm("c", "c", 4, 10)
	for n := range 9 {
		f.vm(fmt.Sprintf("a%d", n), "a", 80.0/9, 5)
	}
	s := f.snapshot()
	reserve := Ask(s, Observed(s), clusterID, 1, Policy{}).Answer(nil)
	c := planOf(s, Rebalance{}, Policy{Ceiling: 1, Reserves: map[inventory.ID]*Admission{clusterID: reserve}})
	if reserve.Answer != Refused || len(c.Waves) == 0 || len(c.Kept) != 1 || !strings.Contains(c.Kept[0].Why, "and no step makes it worse") {
		t.Errorf("reserve %s, plan %v", reserve.Answer, c.Words())
	}
}
