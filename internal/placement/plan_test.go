package placement

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/protip/protip/internal/inventory"
)

// TestPlansAreValid holds every wave against a fleet that knows nothing of how it was found, and a reserve that was held before against
// brute force, whichever moves of the wave have ended.
func TestPlansAreValid(t *testing.T) {
	kept := 0
	valid := func(t *rapid.T) {
		s, p, _ := anyFleet(t)
		p.Fill = rapid.Bool().Draw(t, "fill")
		_, e := Followed{}.Next(Observed(s), nil, 0)
		r := Rebalance{In: rapid.IntRange(0, 2).Draw(t, "in"), Out: rapid.IntRange(0, 2).Draw(t, "out"), Age: rapid.Float64Range(0, 1).Draw(t, "age")}
		for h := range s.Hosts() {
			switch rapid.IntRange(0, 5).Draw(t, "asked") {
			case 0:
				r.Evacuate = append(r.Evacuate, h.ID)
			case 1:
				r.Free = append(r.Free, h.ID)
			case 2:
				r.Occupy = append(r.Occupy, h.ID)
			}
		}
		r.Only = rapid.Bool().Draw(t, "only")
		if rapid.Bool().Draw(t, "watts") {
			r.Watts = map[inventory.ID][]float64{}
			for h := range s.Hosts() {
				r.Watts[h.ID] = []float64{rapid.Float64Range(50, 100).Draw(t, "idle"), rapid.Float64Range(100, 300).Draw(t, "busy")}
			}
		}
		var q Question
		var reserve *Admission
		for n := rapid.IntRange(0, 2).Draw(t, "reserve"); ; n-- { // one that the cluster holds, if it holds any
			q = Ask(s, Observed(s), clusterID, n, p)
			if reserve = q.Answer(nil); n < 2 || reserve.Answer == Admitted {
				break
			}
		}
		p.Reserves = map[inventory.ID]*Admission{clusterID: reserve}
		c := Plan(s, e, r, p)
		if again := Plan(s, e, r, p); !reflect.DeepEqual(c, again) {
			t.Fatal("the same values gave another plan")
		}
		on := map[inventory.ID]inventory.ID{}
		for vm := range s.VMs() {
			on[vm.ID] = vm.Host
		}
		moved := map[inventory.ID]bool{}
		for n, wave := range c.Waves {
			if len(wave) == 0 {
				t.Fatalf("wave %d is empty", n)
			}
			if why := invalid(s, e, wave, on, r, p); why != "" {
				t.Fatalf("wave %d: %s", n, why)
			}
			if q.Reserve > 0 && reserve.Answer == Admitted {
				kept++
				q = keptAlong(t, q, wave)
			}
			for _, m := range wave {
				if moved[m.VM] {
					t.Fatalf("%s moves twice", m.Name)
				}
				moved[m.VM], on[m.VM] = true, m.To
				if asked := m.For == ForEvacuation || m.For == ForFreeing || m.For == ForShare; r.Only && !asked {
					t.Fatalf("%s moves for %s, which nobody asked for", m.Name, m.For)
				}
			}
		}
		left := map[inventory.ID]bool{}
		for _, l := range c.Left {
			if l.Why == "" {
				t.Fatalf("%s is left over for no reason", l.Name)
			}
			left[l.VM] = true
		}
		for vm := range s.VMs() {
			if runs(vm.VM) && slices.Contains(r.Evacuate, on[vm.ID]) && !left[vm.ID] {
				t.Fatalf("%s is still on a host to be emptied, and nothing says why", vm.Name)
			}
		}
	}
	// One fleet in thirty holds a reserve and has something to be moved.
	for rounds := 0; kept < 3 && rounds < 10; rounds++ {
		rapid.Check(t, valid)
	}
	if kept < 3 {
		t.Errorf("only %d waves moved anything in a cluster that held its reserve", kept)
	}
}

// keptAlong holds the reserve against brute force while the wave is under way, and returns the question after it.
func keptAlong(t *rapid.T, q Question, wave []Step) Question {
	var flights []flight
	host := func(id inventory.ID) int {
		return slices.IndexFunc(q.Hosts, func(h Survivor) bool { return h.ID == id })
	}
	for _, m := range wave {
		vm := slices.IndexFunc(q.VMs, func(c Claim) bool { return c.ID == m.VM })
		flights = append(flights, flight{vm, host(m.From), host(m.To)})
	}
	subsets(len(q.Hosts), min(q.Reserve, len(q.Hosts)), func(failed []int) bool {
		if !bears(q, failed, flights) {
			t.Fatalf("with %+v under way the loss of %v is not survived", wave, failed)
		}
		return true
	})
	q.Hosts, q.VMs = slices.Clone(q.Hosts), slices.Clone(q.VMs)
	for _, f := range flights {
		q = landed(q, f)
	}
	return q
}

// invalid is what may never be so while the moves of a wave are under way.
func invalid(s *inventory.Snapshot, e Demand, wave []Step, on map[inventory.ID]inventory.ID, r Rebalance, p Policy) string {
	in, out := map[inventory.ID][]inventory.ID{}, map[inventory.ID]int{}
	for _, m := range wave {
		vm, _ := s.VM(m.VM)
		to, _ := s.Host(m.To)
		src, _ := s.Source("vc")
		_, measured := to.Samples.Value(inventory.HostCPUUsage)
		switch {
		case on[m.VM] != m.From || m.From == m.To:
			return m.Name + " is not where it is said to be"
		case !runs(vm.VM) || p.Frozen[m.VM] != "":
			return m.Name + " may not be moved"
		case !src.Up || !measured || to.Maintenance || to.Connection != inventory.Connected || slices.Contains(r.Evacuate, m.To):
			return to.Name + " takes nothing"
		case m.Why == "":
			return m.Name + " moves for no reason"
		}
		if why := unplugged(vm, to); why != "" {
			return why
		}
		in[m.To] = append(in[m.To], m.VM)
		out[m.From]++
		if r.In > 0 && len(in[m.To]) > r.In || r.Out > 0 && out[m.From] > r.Out {
			return "more moves at once than allowed"
		}
		there := map[inventory.ID]bool{}
		for other, host := range on {
			if v, _ := s.VM(other); v.VM != nil && runs(v.VM) && host == m.To {
				there[other] = true
			}
		}
		for _, other := range append(slices.Clone(in[m.To]), p.Incoming[m.To]...) {
			there[other] = other != m.VM
		}
		memory := e.VMs[m.VM].MemoryBytes
		for other, is := range there {
			if is {
				memory += e.VMs[other].MemoryBytes
			}
		}
		if memory > p.Ceiling*to.MemoryBytes*(1+1e-9) {
			return fmt.Sprintf("%s holds %.0f GiB", to.Name, memory/gib)
		}
		cluster, _ := s.Cluster(clusterID)
		for _, rule := range cluster.Rules {
			for _, other := range rule.VMs {
				if rule.Enabled && rule.Mandatory && rule.Kind == inventory.AntiAffinity && slices.Contains(rule.VMs, m.VM) && other != m.VM && there[other] {
					return m.Name + " meets a VM that it must not"
				}
			}
		}
	}
	return ""
}

// day lets ten hosts live for a day of noise, and carries out every plan.
func day(t *testing.T, seed uint64, fill bool, each func(at float64, s *inventory.Snapshot, c Course)) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 0))
	on, level := make([]int, 80), make([]float64, 80)
	for v := range on {
		on[v], level[v] = r.IntN(10), 8*r.Float64()
	}
	var f Followed
	var past Past
	for step := range 288 {
		fleet, use := newFleet(), make([]float64, 10)
		for v := range on {
			if r.IntN(100) == 0 {
				level[v] = 8 * r.Float64()
			}
			cpu := level[v] * (0.5 + r.Float64())
			use[on[v]] += cpu
			fleet.vm(fmt.Sprintf("v%d", v), fmt.Sprintf("h%d", on[v]), cpu, 4)
		}
		for h := range use {
			fleet.host(fmt.Sprintf("h%d", h), use[h], 50)
		}
		s, at := fleet.snapshot(), 300*float64(step)
		var e Demand
		f, e = f.Next(Observed(s), nil, at)
		c := Plan(s, e, Rebalance{Now: at, In: 2, Out: 2, Past: past}, Policy{Ceiling: 0.85, Fill: fill})
		past = c.Past
		each(at, s, c)
		for _, m := range slices.Concat(c.Waves...) {
			var v int
			_, _ = fmt.Sscanf(m.VM.Ref, "v%d", &v)
			_, _ = fmt.Sscanf(m.To.Ref, "h%d", &on[v])
		}
	}
}

func TestNoVMGoesBackAndForth(t *testing.T) {
	for _, fill := range []bool{true, false} {
		moves := 0
		for _, seed := range []uint64{3, 4} { // where a VM that went on twice once came back
			left := map[[2]inventory.ID]float64{}
			day(t, seed, fill, func(at float64, _ *inventory.Snapshot, c Course) {
				for _, m := range slices.Concat(c.Waves...) {
					if then, ok := left[[2]inventory.ID{m.VM, m.To}]; ok && at-then < notBack {
						t.Errorf("fill %v, seed %d: %s is back on %s after %.0f s", fill, seed, m.Name, m.To.Ref, at-then)
					}
					left[[2]inventory.ID{m.VM, m.From}] = at
					moves++
				}
			})
		}
		if moves == 0 {
			t.Errorf("fill %v: nothing moved, so nothing was shown", fill)
		}
	}
}

func planOf(s *inventory.Snapshot, r Rebalance, p Policy) Course {
	_, e := Followed{}.Next(Observed(s), nil, 0)
	return Plan(s, e, r, p)
}

func TestPlanEmptiesAHost(t *testing.T) {
	f := newFleet().host("old", 12, 48).host("b", 0, 0).host("c", 0, 0)
	for n := range 12 {
		f.vm(fmt.Sprintf("v%d", n), "old", 1, 4)
	}
	c := planOf(f.snapshot(), Rebalance{Evacuate: []inventory.ID{hostID("old")}, In: 2, Out: 3}, Policy{Ceiling: 0.8})
	if moves := slices.Concat(c.Waves...); len(moves) != 12 || len(c.Waves) != 4 || len(c.Left) != 0 {
		t.Errorf("%d moves in %d waves, left %v", len(moves), len(c.Waves), c.Left)
	}
}

func TestPlanSaysWhatItCannotEmpty(t *testing.T) {
	f := newFleet().host("old", 2, 32).host("full", 4, 70).vm("big", "old", 1, 16).vm("small", "old", 1, 8).vm("held", "old", 1, 1).vm("there", "full", 4, 70)
	p := Policy{Ceiling: 0.8, Frozen: map[inventory.ID]string{vmID("held"): "moved an hour ago"}}
	c := planOf(f.snapshot(), Rebalance{Evacuate: []inventory.ID{hostID("old")}}, p)
	if len(c.Waves) != 1 || len(c.Waves[0]) != 1 || c.Waves[0][0].Name != "small" {
		t.Errorf("waves %+v", c.Waves)
	}
	if len(c.Left) != 2 || c.Left[0].Name != "big" || c.Left[1].Why != "moved an hour ago" {
		t.Errorf("left %+v", c.Left)
	}
}

func TestPlanKeepsToNetworks(t *testing.T) {
	f := newFleet().nets("prod", "lab").host("old", 12, 24, having("prod", "lab")).host("empty", 0, 0, having("prod")).host("busy", 20, 0, having("prod", "lab")).
		vm("a", "old", 4, 8, attached("prod")).vm("b", "old", 4, 8, attached("lab")).vm("c", "old", 4, 8, attached("nowhere else")).nets("nowhere else")
	c := planOf(f.snapshot(), Rebalance{Evacuate: []inventory.ID{hostID("old")}}, Policy{Ceiling: 0.8})
	to := map[string]string{}
	for _, m := range slices.Concat(c.Waves...) {
		to[m.Name] = m.To.Ref
	}
	if want := map[string]string{"a": "empty", "b": "busy"}; !reflect.DeepEqual(to, want) {
		t.Errorf("moves %v, want %v", to, want)
	}
	if len(c.Left) != 1 || c.Left[0].Name != "c" || c.Left[0].Why != "empty: network nowhere else, which the VM is attached to, is not on empty" {
		t.Errorf("left %+v", c.Left)
	}
}

func TestPlanUsesANewHost(t *testing.T) {
	c := planOf(fleetWithANewHost().snapshot(), Rebalance{}, Policy{Ceiling: 0.8})
	moves := slices.Concat(c.Waves...)
	if len(moves) < 2 || len(moves) > 5 {
		t.Errorf("%d moves", len(moves))
	}
	for _, m := range moves {
		if m.From != hostID("hot") || m.To != hostID("new") || m.For != ForRelief || m.GainedHertz <= 0 {
			t.Errorf("%+v", m)
		}
	}
}

func fleetWithANewHost() *testFleet {
	f := newFleet().host("hot", 50, 40).host("warm", 38, 40).host("new", 0, 0)
	for n := range 10 {
		f.vm(fmt.Sprintf("h%d", n), "hot", 5, 4).vm(fmt.Sprintf("w%d", n), "warm", 3.8, 4)
	}
	return f
}

// TestPlanOccupiesAHost: asked for, a new host takes its share, of the fullest first, and no more.
func TestPlanOccupiesAHost(t *testing.T) {
	f := newFleet().host("a", 30, 60).host("b", 18, 60).host("new", 0, 0)
	for n := range 10 {
		f.vm(fmt.Sprintf("a%d", n), "a", 3, 6).vm(fmt.Sprintf("b%d", n), "b", 1.8, 6)
	}
	c := planOf(f.snapshot(), Rebalance{Occupy: []inventory.ID{hostID("new")}, Only: true}, Policy{Ceiling: 0.8})
	memory := map[inventory.ID]int{hostID("a"): 60, hostID("b"): 60}
	for _, m := range slices.Concat(c.Waves...) {
		if m.To != hostID("new") || m.For != ForShare {
			t.Errorf("%+v", m)
		}
		memory[m.From] -= 6
		memory[m.To] += 6
	}
	if memory[hostID("new")] != 36 || memory[hostID("a")] != 42 || memory[hostID("b")] != 42 {
		t.Errorf("memory after it: %v, where 40 is the mean and a VM has 6", memory)
	}
}

func TestPlanFreesAHostWhollyOrNotAtAll(t *testing.T) {
	fleet := func(bGHz float64) *inventory.Snapshot {
		f := newFleet().host("a", 6, 12).host("b", bGHz, 40).host("asleep", 0, 0)
		for n := range 3 {
			f.vm(fmt.Sprintf("a%d", n), "a", 2, 4)
		}
		for n := range 10 {
			f.vm(fmt.Sprintf("b%d", n), "b", bGHz/10, 4)
		}
		return f.snapshot()
	}
	r := Rebalance{Free: []inventory.ID{hostID("a")}, Only: true}
	c := planOf(fleet(15), r, Policy{Ceiling: 0.8})
	if moves := slices.Concat(c.Waves...); len(moves) != 3 || moves[0].To != hostID("b") || moves[0].For != ForFreeing || len(c.Left) != 0 {
		t.Errorf("%d moves %+v, left %+v", len(moves), moves, c.Left)
	}
	c = planOf(fleet(30), r, Policy{Ceiling: 0.8})
	if len(c.Waves) != 0 || len(c.Left) != 1 || c.Left[0].Why != "no host that runs VMs already takes it comfortably, so a is not freed; no host has room for it" {
		t.Errorf("waves %+v, left %+v", c.Waves, c.Left)
	}
}

func TestStepsTellWhatTheyCost(t *testing.T) {
	f := newFleet().host("old", 9, 12).host("b", 0, 0)
	for _, vm := range []string{"calm", "busy", "hectic"} {
		f.vm(vm, "old", 3, 4)
	}
	r := Rebalance{Evacuate: []inventory.ID{hostID("old")}, CopyRate: 1e9, DirtyRates: map[inventory.ID]float64{vmID("busy"): 5e8, vmID("hectic"): 1e9}}
	c := planOf(f.snapshot(), r, Policy{Ceiling: 0.8})
	cost := map[string]Cost{}
	for _, m := range slices.Concat(c.Waves...) {
		cost[m.Name] = m.Cost
	}
	want := map[string]Cost{"calm": {CopyBytes: 4 * gib, Seconds: 4 * gib / 1e9}, "busy": {CopyBytes: 8 * gib, Seconds: 8 * gib / 1e9}}
	if !reflect.DeepEqual(cost, want) || len(c.Left) != 1 || c.Left[0].Why != "it writes 1000 MB/s to its memory, and 1000 MB/s can be copied" {
		t.Errorf("cost %+v, left %+v", cost, c.Left)
	}
}

func TestPlanKnowsWhatHostsCanMove(t *testing.T) {
	f := newFleet().host("old", 4, 8).host("busy", 1, 4).host("calm", 9, 4)
	s := f.vm("v", "old", 4, 8).vm("b", "busy", 1, 4).vm("c", "calm", 9, 4).snapshot()
	d := Observed(s)
	d.Flows = map[inventory.ID]Flow{vmID("v"): {NetworkBytesPerSecond: 30}, vmID("b"): {NetworkBytesPerSecond: 60}}
	_, e := Followed{}.Next(d, nil, 0)
	r, p := Rebalance{Evacuate: []inventory.ID{hostID("old")}}, Policy{Ceiling: 0.8}
	for _, want := range []string{"busy", "calm"} {
		if c := Plan(s, e, r, p); len(c.Waves) != 1 || c.Waves[0][0].To != hostID(want) {
			t.Errorf("with hosts that move %+v: %+v, want %s", p.HostFlow, c, want)
		}
		p.HostFlow = Flow{NetworkBytesPerSecond: 100}
	}
}

func TestPlanLeavesACalmFleetAlone(t *testing.T) {
	f := newFleet().host("a", 36, 40).host("b", 4, 10)
	for n := range 9 {
		f.vm(fmt.Sprintf("v%d", n), "a", 4, 4)
	}
	if c := planOf(f.vm("w", "b", 4, 4).snapshot(), Rebalance{}, Policy{Ceiling: 0.8}); len(c.Waves) != 0 {
		t.Errorf("%+v", c.Waves)
	}
}

func TestFollowedForgetsAndRemembers(t *testing.T) {
	a, b := vmID("a"), vmID("b")
	f, e := Followed{}.Next(Demand{VMs: map[inventory.ID]Use{a: {CPUHertz: 2}, b: {CPUHertz: 6}}}, nil, 0)
	if e.Usual[a].CPUHertz != 3 || e.Usual[b].CPUHertz != 5 || e.Usual[a].CPUVariance != 3 {
		t.Fatalf("first seen: %+v", e)
	}
	next, e := f.Next(Demand{VMs: map[inventory.ID]Use{a: {CPUHertz: 5}}}, nil, levelHalfLife)
	if math.Abs(e.Usual[a].CPUHertz-4) > 1e-9 || len(next.vms) != 1 {
		t.Errorf("an hour later: %+v", e)
	}
	flow := func(f Followed, disk, network, at float64) (Followed, Flow) {
		f, e := f.Next(Demand{VMs: map[inventory.ID]Use{a: {}}, Flows: map[inventory.ID]Flow{a: {disk, network}}}, nil, at)
		return f, e.Flows[a]
	}
	g, got := flow(Followed{}, 8, 2, 0)
	if got != (Flow{8, 2}) {
		t.Errorf("a flow first seen is %+v", got)
	}
	if _, got = flow(g, 4, 6, levelHalfLife); got != (Flow{6, 6}) {
		t.Errorf("an hour later: %+v, want the level of 6 where it is more", got)
	}
	if again, e := f.Next(Demand{VMs: map[inventory.ID]Use{a: {CPUHertz: math.NaN()}}}, nil, 1); len(e.Usual) != 0 || len(again.vms) != 0 {
		t.Errorf("no number: %+v", e)
	}
	_, e = Followed{}.Next(Demand{VMs: map[inventory.ID]Use{a: {CPUHertz: 2}, b: {CPUHertz: 6}}}, map[inventory.ID]float64{a: 4, b: 8}, 0)
	if math.Abs(e.Usual[a].CPUHertz-2.25) > 1e-9 || math.Abs(e.Usual[b].CPUHertz-5.5) > 1e-9 {
		t.Errorf("by size: %+v", e)
	}
}

// BenchmarkPlan is a whole plan, from the snapshot to its waves: every twentieth host is crowded, and half of them could be freed. Every
// one is of the demand after another step of five minutes, drawn anew, so that no two are of the same; to draw and to follow it, and to ask
// what the reserve is of it, is not in the time.
func BenchmarkPlan(b *testing.B) {
	for _, size := range []struct{ hosts, vms, reserve int }{{64, 8000, 0}, {64, 8000, 1}, {64, 8000, 2}, {1000, 10000, 0}, {1000, 10000, 1}, {113, 15769, 0}, {113, 15769, 1}} {
		s := unevenFleet(size.hosts, size.vms)
		for _, fill := range []bool{false, true} {
			b.Run(fmt.Sprintf("hosts=%d/vms=%d/reserve=%d/fill=%v", size.hosts, size.vms, size.reserve, fill), func(b *testing.B) {
				drawn := restless{snap: s, rand: rand.New(rand.NewPCG(2, 2))}
				for range priorSamples {
					drawn.next()
				}
				p := Policy{Ceiling: 0.85, Fill: fill}
				var last *Admission
				var took []time.Duration
				moves := 0
				for b.Loop() {
					b.StopTimer()
					d := drawn.next()
					if size.reserve > 0 {
						last = Ask(s, d, clusterID, size.reserve, p).Answer(last)
						p.Reserves = map[inventory.ID]*Admission{clusterID: last}
					}
					b.StartTimer()
					began := cpuTime()
					c := Plan(s, d, Rebalance{Now: drawn.now, In: 2, Out: 2, MemoryCeiling: 1}, p)
					took = append(took, cpuTime()-began)
					if len(c.Waves) == 0 {
						b.Fatal("nothing to plan")
					}
					moves += len(slices.Concat(c.Waves...))
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-cpu-ms")
				b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-cpu-ms")
				b.ReportMetric(float64(moves)/float64(len(took)), "moves/op")
			})
		}
	}
}

// restless is the demand of a fleet, step by step: each VM uses between half of what the snapshot has it use and half as much again.
type restless struct {
	snap *inventory.Snapshot
	rand *rand.Rand
	seen Followed
	now  float64
}

func (r *restless) next() (d Demand) {
	drawn := Observed(r.snap)
	for vm := range r.snap.VMs() { // in order, so that every run draws the same
		use := drawn.VMs[vm.ID]
		use.CPUHertz *= 0.5 + r.rand.Float64()
		drawn.VMs[vm.ID] = use
	}
	r.now += 300
	r.seen, d = r.seen.Next(drawn, nil, r.now)
	return d
}

func unevenFleet(hosts, vms int) *inventory.Snapshot {
	f := newFleet()
	r := rand.New(rand.NewPCG(1, 1))
	use, memory := make([]float64, hosts), make([]float64, hosts)
	each := 40 * float64(hosts) / float64(vms)
	for v := range vms {
		h := v % hosts
		share := 0.3
		switch {
		case h%20 == 0:
			share = 1.2
		case h%2 == 0:
			share = 0.55
		}
		cpu := each * share * (0.5 + r.Float64())
		use[h] += cpu
		memory[h] += each
		f.vm(fmt.Sprintf("v%05d", v), fmt.Sprintf("h%04d", h), cpu, each)
	}
	for h := range hosts {
		f.host(fmt.Sprintf("h%04d", h), use[h], memory[h])
	}
	return f.snapshot()
}
