package placement

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/protip/protip/internal/inventory"
)

// anyQuestion is small enough for brute force, and near the limit more often than not. Its rules are all of the kinds there are.
func anyQuestion(t *rapid.T) Question {
	hosts := rapid.IntRange(1, 5).Draw(t, "hosts")
	vms := rapid.IntRange(0, 9).Draw(t, "vms")
	q := Question{Name: "small", Cluster: clusterID, Reserve: rapid.IntRange(1, 3).Draw(t, "reserve")}
	rarely := func(name string) bool { return rapid.IntRange(0, 9).Draw(t, name) == 0 }
	size := func(name string, most int64) Size {
		return Size{rapid.Int64Range(0, most).Draw(t, name+" cpu"), rapid.Int64Range(0, most).Draw(t, name+" memory")}
	}
	for h := range hosts {
		s := Survivor{ID: hostID(fmt.Sprintf("h%d", h)), Name: fmt.Sprintf("h%d", h), Free: size("free", 12)}
		if rarely("shut") {
			s.Shut = "in maintenance"
		}
		q.Hosts = append(q.Hosts, s)
	}
	for v := range vms {
		c := Claim{ID: vmID(fmt.Sprintf("v%d", v)), Name: fmt.Sprintf("v%d", v), Host: rapid.IntRange(0, hosts-1).Draw(t, "host"), Need: size("need", 5)}
		if rarely("tied") {
			c.Hosts = slices.Sorted(slices.Values(rapid.SliceOfDistinct(rapid.IntRange(0, hosts-1), func(h int) int { return h }).Draw(t, "tie")))
			if c.Hosts == nil {
				c.Hosts = []int{}
			}
		}
		q.VMs = append(q.VMs, c)
	}
	group := func(name string) (g Group) {
		g.Name = name
		if vms > 0 {
			g.VMs = rapid.SliceOfNDistinct(rapid.IntRange(0, vms-1), 1, 3, func(v int) int { return v }).Draw(t, name)
		}
		if rarely("others") {
			g.Others = []int{rapid.IntRange(0, hosts-1).Draw(t, "other")}
		}
		return g
	}
	for rapid.IntRange(0, 3).Draw(t, "another rule") == 0 && len(q.Apart) < 3 {
		q.Apart = append(q.Apart, group("apart"))
	}
	if rarely("joins") {
		q.Joined = append(q.Joined, group("joined"))
	}
	return q
}

// survives is brute force, and the truth: the first set of hosts, if any, whose loss leaves no way to restart all.
func survives(q Question) (failed []int, ok bool) {
	r := min(q.Reserve, len(q.Hosts))
	least := r
	if len(q.Joined) > 0 {
		least = 1
	}
	ok = true
	for k := least; k <= r && ok; k++ {
		ok = subsets(len(q.Hosts), k, func(set []int) bool {
			failed = slices.Clone(set)
			return restartable(q, set, nil)
		})
	}
	return failed, ok
}

// restartable tries every host for every claim, by the checker's word alone.
func restartable(q Question, failed []int, done []Restart) bool {
	var next *Claim
	for v := range q.VMs {
		c := &q.VMs[v]
		if slices.Contains(failed, c.Host) && !slices.ContainsFunc(done, func(r Restart) bool { return r.VM == c.ID }) {
			next = c
			break
		}
	}
	if next == nil {
		return VerifyPlan(q, failed, done) == nil
	}
	load := make([]Size, len(q.Hosts))
	for _, r := range done {
		h := slices.IndexFunc(q.Hosts, func(s Survivor) bool { return s.ID == r.To })
		v := slices.IndexFunc(q.VMs, func(c Claim) bool { return c.ID == r.VM })
		load[h] = load[h].plus(q.VMs[v].Need)
	}
	for h, s := range q.Hosts {
		if !slices.Contains(failed, h) && load[h].plus(next.Need).fits(s.Free) &&
			restartable(q, failed, append(slices.Clone(done), Restart{VM: next.ID, To: s.ID})) {
			return true
		}
	}
	return false
}

// TestReserveIsExact holds every answer on small clusters against brute force, and each yes against the checker.
func TestReserveIsExact(t *testing.T) {
	answers := map[Answer]int{}
	rapid.Check(t, func(t *rapid.T) {
		q := anyQuestion(t)
		a := q.Answer(nil)
		answers[a.Answer]++
		hold(t, q, a)
	})
	if answers[Admitted] == 0 || answers[Refused] == 0 {
		t.Errorf("answers were %v: the generator no longer asks near the limit", answers)
	}
}

func hold(t rapid.TB, q Question, a *Admission) {
	t.Helper()
	failed, want := survives(q)
	switch a.Answer {
	case Unknown:
		t.Fatalf("%d hosts and %d VMs are beyond it: %s", len(q.Hosts), len(q.VMs), a.Why)
	case Admitted:
		if !want {
			t.Fatalf("false admission: the loss of %v is not survived", failed)
		}
		if err := VerifyAdmission(q, a); err != nil {
			t.Fatalf("certificate: %v", err)
		}
	case Refused:
		if want {
			t.Fatalf("false refusal: %s", a.Why)
		}
		var lost []int
		for _, id := range a.Failed {
			lost = append(lost, slices.IndexFunc(q.Hosts, func(s Survivor) bool { return s.ID == id }))
		}
		if len(lost) == 0 || restartable(q, lost, nil) {
			t.Fatalf("refused for the loss of %v, which is survived: %s", lost, a.Why)
		}
		left := slices.IndexFunc(q.VMs, func(c Claim) bool { return c.ID == a.LeftOver })
		if left < 0 || !slices.Contains(lost, q.VMs[left].Host) {
			t.Fatalf("left over is %s, on none of %v", a.LeftOver, lost)
		}
	}
}

// TestReserveAfterAChange holds that what is kept of an earlier answer never makes a later one wrong, and that a trial says yes
// only where the answer to the changed question is yes. Some trials do say yes, which is held of changes that are always the same: how many
// of a hundred drawn by chance do is chance.
func TestReserveAfterAChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { holdChange(t, anyChange(t)) })
	yes := 0
	for seed := range 1000 {
		if holdChange(t, rapid.Custom(anyChange).Example(seed)) {
			yes++
		}
	}
	if yes == 0 {
		t.Error("no trial ever said yes")
	}
}

// afterwards is a question, and what may come after it: one of its VMs on another host, or one VM more there.
type afterwards struct {
	q      Question
	vm, to int
	one    Claim
}

func anyChange(t *rapid.T) afterwards {
	c := afterwards{q: anyQuestion(t)}
	c.vm, c.to = rapid.IntRange(0, max(0, len(c.q.VMs)-1)).Draw(t, "moves"), rapid.IntRange(0, len(c.q.Hosts)-1).Draw(t, "to")
	c.one = Claim{ID: vmID("new"), Name: "new", Host: c.to, Need: Size{rapid.Int64Range(0, 3).Draw(t, "cpu"), rapid.Int64Range(0, 3).Draw(t, "memory")}}
	return c
}

// holdChange holds every answer about a change against brute force, and returns whether a trial let the VM move.
func holdChange(t rapid.TB, c afterwards) (yes bool) {
	t.Helper()
	q, vm, to, one := c.q, c.vm, c.to, c.one
	if len(q.VMs) == 0 {
		return false
	}
	a := q.Answer(nil)
	moved := q.Moved(vm, to)
	hold(t, moved, moved.Answer(a))
	more := q.Plus(one, true)
	if one.Need.fits(q.Hosts[to].Free) {
		hold(t, more, more.Answer(a))
	}
	if a.Answer != Admitted || q.Hosts[to].Shut != "" {
		return false
	}
	if a.try(Claim{ID: q.VMs[vm].ID}, inventory.ID{}, true).on(to) == "" && to != q.VMs[vm].Host && runsOn(q, vm, to) {
		yes = true
		if _, ok := survives(moved); !ok {
			t.Fatalf("trial: v%d may go to h%d, and the reserve is lost", vm, to)
		}
	}
	if a.try(one, inventory.ID{}, true).on(to) == "" {
		if _, ok := survives(more); !ok {
			t.Fatalf("trial: one more VM on h%d, and the reserve is lost", to)
		}
	}
	if a.try(one, inventory.ID{}, false).on(to) == "" {
		if _, ok := survives(q.Plus(one, false)); !ok {
			t.Fatalf("trial: one more VM that is not restarted on h%d, and the reserve is lost", to)
		}
	}
	return yes
}

// runsOn reports whether the VM may run on the host with the others as they are: what a rating bars is not asked of a trial.
func runsOn(q Question, vm, to int) bool {
	moved := q.Moved(vm, to)
	for _, g := range slices.Concat(q.Apart, q.Joined) {
		if slices.Contains(g.VMs, vm) && len(g.VMs)+len(g.Others) > 1 {
			for _, v := range g.VMs {
				if v != vm && (moved.VMs[v].Host == to) == slices.ContainsFunc(q.Apart, func(a Group) bool { return slices.Contains(a.VMs, vm) && slices.Contains(a.VMs, v) }) {
					return false
				}
			}
		}
	}
	return q.VMs[vm].Hosts == nil || slices.Contains(q.VMs[vm].Hosts, to)
}

// TestPlantedReserve is a sample of what BenchmarkPlantedReserve measures.
func TestPlantedReserve(t *testing.T) {
	for _, size := range [][2]int{{8, 1}, {16, 2}, {32, 2}} {
		for _, slack := range []float64{0.10, 0.05} {
			t.Run(fmt.Sprintf("hosts=%d/reserve=%d/slack=%g", size[0], size[1], slack), func(t *testing.T) {
				for seed := range uint64(4) {
					q := planted(seed, size[0], size[1], slack)
					a := q.Answer(nil)
					if a.Answer != Admitted {
						t.Fatalf("seed %d: %s: %s", seed, a.Answer, a.Why)
					}
					if err := VerifyAdmission(q, a); err != nil {
						t.Fatalf("seed %d: %v", seed, err)
					}
				}
			})
		}
	}
}

func TestReserveOfACluster(t *testing.T) {
	ha := func(v *inventory.VM) { v.Availability = inventory.HighlyAvailable }
	not := func(v *inventory.VM) { v.Availability = inventory.NotHighlyAvailable }
	on := func(f *testFleet) *testFleet { f.delta.Clusters[0].HA.Enabled = true; return f }
	three := func(rules ...inventory.Rule) *testFleet { // 100 GiB each
		return newFleet(rules...).host("esx-1", 4, 60).host("esx-2", 4, 60).host("esx-3", 4, 10).
			vm("a", "esx-1", 2, 30, ha).vm("b", "esx-1", 2, 30, ha).vm("c", "esx-2", 2, 30, ha).vm("d", "esx-2", 2, 30, ha)
	}
	lab := func(on ...string) *testFleet {
		f := three().nets("lab").vm("s", "esx-3", 1, 1, ha, attached("lab"))
		for i := range f.delta.Hosts {
			h := &f.delta.Hosts[i]
			if having()(h); slices.Contains(on, h.Name) {
				having("lab")(h)
			}
		}
		return f
	}
	apart := inventory.Rule{Name: "pair", Kind: inventory.AntiAffinity, Enabled: true, Mandatory: true, VMs: []inventory.ID{vmID("a"), vmID("b"), vmID("c")}}
	tests := []struct {
		name    string
		fleet   *testFleet
		reserve int
		p       Policy
		answer  Answer
		why     string
	}{
		{"one of three", three(), 1, Policy{}, Admitted, "any host of 3 can fail: all of the 4 VMs that must be restarted have a host then"},
		{"two of three", three(), 2, Policy{}, Refused, "when esx-1 and esx-2 fail"},
		{"all", three(), 3, Policy{}, Refused, "when esx-1 and esx-2 and esx-3 fail, a has no host: no host is left"},
		{"none asked for", three(), 0, Policy{}, Admitted, "no reserve is asked for"},
		{"the host's own share", three(), 1, Policy{HostReserve: HostReserve{MemoryRatio: 0.35}}, Refused, "esx"},
		{"not enough memory", newFleet().host("esx-1", 4, 60).host("esx-2", 4, 60).vm("a", "esx-1", 2, 50, ha), 1, Policy{}, Refused, "when esx-1 fails, a has no host: none of the 1 hosts that a may run on has 2.0 GHz and 50 GiB free"},
		{"a reservation counts", newFleet().host("esx-1", 4, 60).host("esx-2", 4, 60).vm("a", "esx-1", 2, 10, ha, func(v *inventory.VM) { v.MemoryReservationBytes = 50 * gib }), 1, Policy{}, Refused, "50 GiB"},
		{"what is not restarted is lost", on(newFleet().host("esx-1", 4, 60).host("esx-2", 4, 60).vm("a", "esx-1", 2, 50, not)), 1, Policy{}, Admitted, "all of the 0 VMs"},
		{"unless nothing is", newFleet().host("esx-1", 4, 60).host("esx-2", 4, 60).vm("a", "esx-1", 2, 50, not), 1, Policy{}, Refused, "a has no host"},
		{"or all is asked", on(newFleet().host("esx-1", 4, 60).host("esx-2", 4, 60).vm("a", "esx-1", 2, 50, not)), 1, Policy{ReserveAll: true}, Refused, "a has no host"},
		{"nor what HA leaves alone", func() *testFleet {
			f := newFleet().host("esx-1", 4, 60).host("esx-2", 4, 60).vm("a", "esx-1", 2, 50)
			f.delta.Clusters[0].RestartPriorities = map[inventory.ID]string{vmID("a"): "disabled"}
			return on(f)
		}(), 1, Policy{}, Admitted, "all of the 0 VMs"},
		{"what is not known counts", newFleet().host("esx-1", 4, 60).host("esx-2", 4, 60).vm("a", "esx-1", 2, 50), 1, Policy{}, Refused, "a has no host"},
		{"kept apart", three(apart), 1, Policy{}, Refused, `"pair"`},
		{"in maintenance", three().host("esx-4", 0, 0, func(h *inventory.Host) { h.Maintenance = true }), 2, Policy{}, Refused, "esx"},
		{"restricted", three(), 1, Policy{Restricted: map[inventory.ID]string{hostID("esx-3"): "a fan failed"}}, Refused, "esx"},
		{"on its way", three(), 1, Policy{Incoming: map[inventory.ID][]inventory.ID{hostID("esx-3"): {vmID("a"), vmID("b"), vmID("c")}}}, Refused, "esx"},
		{"no demand, and it fits as configured", three().sets(vmID("a"), inventory.VMCPUUsage, nan), 1, Policy{}, Admitted, "any host"},
		{
			"no demand, and it does not fit as configured", three().vm("big", "esx-3", 0, 0, ha, func(v *inventory.VM) { v.MemoryBytes = 90 * gib }).sets(vmID("big"), inventory.VMCPUUsage, nan), 1,
			Policy{},
			Unknown, "the demand of big is not known, and with its configured size not all can be restarted",
		},
		{"source down", func() *testFleet { f := three(); f.down = true; return f }(), 1, Policy{}, Unknown, "source vc does not answer"},
		{"settings unread", func() *testFleet { f := three(); f.delta.Clusters[0].Unread = true; return f }(), 1, Policy{}, Unknown, "rules could not be read"},
		{"datastore", three().vm("s", "esx-3", 1, 1, ha, func(v *inventory.VM) { v.Datastores = []inventory.ID{dsID("local")} }).
			store("local", map[inventory.ID]inventory.Mount{hostID("esx-3"): {Accessible: true}}), 1, Policy{}, Refused, "rules, datastores or networks leave no host to s"},
		{"network on one host", lab("esx-3"), 1, Policy{}, Refused, "when esx-3 fails, s has no host: rules, datastores or networks leave no host to s"},
		{"network on two hosts", lab("esx-2", "esx-3"), 1, Policy{}, Admitted, "any host"},
		{"networks not known", three().nets("lab").vm("s", "esx-3", 1, 1, ha, attached("lab")), 1, Policy{}, Admitted, "any host"},
		{"host rule", three().tie(inventory.HostRule{Name: "licence", Kind: inventory.Affinity, Enabled: true, Mandatory: true, VMs: []inventory.ID{vmID("a")}, Hosts: []inventory.ID{hostID("esx-1")}}), 1, Policy{}, Refused, "rules, datastores or networks leave no host to a"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := tt.fleet.snapshot()
			q := Ask(s, Observed(s), clusterID, tt.reserve, tt.p)
			a := q.Answer(nil)
			if a.Answer != tt.answer || !strings.Contains(a.Why, tt.why) {
				t.Errorf("%s: %s, want %s: %s", a.Answer, a.Why, tt.answer, tt.why)
			}
			if a.Answer == Admitted {
				if err := VerifyAdmission(q, a); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if a := Ask(three().snapshot(), Demand{}, id(inventory.KindCluster, "nowhere"), 1, Policy{}).Answer(nil); a.Answer != Unknown {
		t.Errorf("a cluster that is not known: %s", a.Answer)
	}
}

func TestRestartsOf(t *testing.T) {
	q := crowded(3, 8, 400, 2, 0.8)
	a := q.Answer(nil)
	if a.Answer != Admitted {
		t.Fatal(a.Why)
	}
	restarts, ok := a.RestartsOf([]inventory.ID{hostID("h1"), hostID("h0")})
	if !ok || len(restarts) == 0 || VerifyPlan(q, []int{0, 1}, restarts) != nil {
		t.Errorf("%v, %v", restarts, ok)
	}
	if one, ok := a.RestartsOf([]inventory.ID{hostID("h7")}); !ok || VerifyPlan(q, []int{7}, one) != nil {
		t.Errorf("a smaller set: %v, %v", one, ok)
	}
	for _, wrong := range [][]inventory.ID{{hostID("h99")}, {hostID("h0"), hostID("h1"), hostID("h2")}} {
		if _, ok := a.RestartsOf(wrong); ok {
			t.Errorf("%v has a plan", wrong)
		}
	}
	restarts[0].To = hostID("h0")
	if VerifyPlan(q, []int{0, 1}, restarts) == nil {
		t.Error("the checker takes a restart on a failed host")
	}
	if VerifyPlan(q, []int{0, 1}, restarts[1:]) == nil {
		t.Error("the checker does not miss a VM")
	}
}

// TestOutweighed holds that plans of sets that were not shown are good: alike hosts leave few sets to show.
func TestOutweighed(t *testing.T) {
	q := Question{Reserve: 2, Cluster: clusterID}
	for h := range 12 {
		q.Hosts = append(q.Hosts, Survivor{ID: hostID(fmt.Sprintf("h%d", h)), Name: fmt.Sprintf("h%d", h), Free: Size{10, 10}})
		for i := range 4 {
			q.VMs = append(q.VMs, Claim{ID: vmID(fmt.Sprintf("v%d-%d", h, i)), Name: "v", Host: h, Need: Size{int64(1 + i%2), 2}})
		}
	}
	a := q.Answer(nil)
	if a.Answer != Admitted || a.Shown != 1 || a.Sets != 66 {
		t.Fatalf("%s, %d of %d sets shown: %s", a.Answer, a.Shown, a.Sets, a.Why)
	}
	if err := VerifyAdmission(q, a); err != nil {
		t.Error(err)
	}
}
