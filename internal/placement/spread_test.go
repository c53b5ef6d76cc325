package placement

import (
	"testing"

	"github.com/protip/protip/internal/inventory"
	"pgregory.net/rapid"
)

// TestPlanSpreadsACluster takes load off the busiest host until the hosts are close enough, with the fewest moves, and leaves a cluster
// alone that is.
func TestPlanSpreadsACluster(t *testing.T) {
	t.Parallel()
	f := newFleet().host("busy", 32, 40).host("mid", 16, 20).host("idle", 2, 10)
	for _, name := range []string{"a", "b", "c", "d"} {
		f.vm(name, "busy", 8, 8)
	}
	f.vm("m", "mid", 16, 16, func(v *inventory.VM) { v.VCPUs = 8 }).vm("i", "idle", 2, 4)
	c := planOf(f.snapshot(), Rebalance{Apart: 0.2, Cluster: clusterID}, Policy{Ceiling: 0.8})
	moves := 0
	for _, wave := range c.Waves {
		for _, m := range wave {
			moves++
			if m.From != hostID("busy") || m.To != hostID("idle") || m.For != ForSpread || m.Closer < worthwhile || m.GainedHertz != 0 {
				t.Errorf("%+v", m)
			}
		}
	}
	if moves != 2 || c.Apart == nil || c.Apart.Before < 0.5 || c.Apart.After > 0.2 {
		t.Fatalf("%d moves, apart %+v: want 2 that bring the hosts close enough", moves, c.Apart)
	}
	for name, r := range map[string]Rebalance{
		"close enough": {Apart: 0.9}, "not asked": {}, "another cluster": {Apart: 0.2, Cluster: id(inventory.KindCluster, "other")},
	} {
		if c := planOf(f.snapshot(), r, Policy{Ceiling: 0.8}); len(c.Waves) != 0 {
			t.Errorf("%s: %+v", name, c.Waves)
		}
	}
	for _, wave := range planOf(f.snapshot(), Rebalance{Apart: 0.2}, Policy{Ceiling: 0.8, Fill: true}).Waves {
		for _, m := range wave {
			if m.For == ForSpread {
				t.Errorf("to fill, hosts are not spread: %+v", m)
			}
		}
	}
}

// TestPlanSpreadsAndStops moves what a plan says and plans again, on random clusters: the hosts only come closer, and no VM goes twice.
func TestPlanSpreadsAndStops(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"h0", "h1", "h2", "h3"}
		use := map[string]float64{}
		type vm struct {
			at  int
			cpu float64
		}
		var vms []vm
		for range rapid.IntRange(1, 14).Draw(t, "vms") {
			v := vm{rapid.IntRange(0, 3).Draw(t, "at"), rapid.Float64Range(0, 9).Draw(t, "cpu")}
			vms = append(vms, v)
			use[names[v.at]] += v.cpu
		}
		f := newFleet()
		for _, h := range names {
			f.host(h, use[h], 20)
		}
		for i, v := range vms {
			f.vm(string(rune('a'+i)), names[v.at], v.cpu, 1)
		}
		c := planOf(f.snapshot(), Rebalance{Apart: 0.1, In: 1, Out: 1}, Policy{Ceiling: 0.8})
		if c.Apart.After > c.Apart.Before+1e-9 {
			t.Fatalf("apart %+v", c.Apart)
		}
		seen := map[inventory.ID]bool{}
		for _, wave := range c.Waves {
			for _, m := range wave {
				if seen[m.VM] {
					t.Fatalf("%s moves twice", m.Name)
				}
				seen[m.VM] = true
			}
		}
	})
}

// TestPlanAsRated: a target that would be full by what its VMs usually need is one only where ratings are not asked.
func TestPlanAsRated(t *testing.T) {
	t.Parallel()
	f := newFleet().host("busy", 20, 40).host("quiet", 4, 10).vm("a", "busy", 10, 8).vm("b", "busy", 10, 8).vm("q", "quiet", 4, 4)
	s := f.snapshot()
	d := Observed(s)
	d.Usual = map[inventory.ID]Usual{vmID("q"): {CPUHertz: 20 * ghz, Samples: 100}}
	for _, asRated := range []bool{false, true} {
		c := Plan(s, d, Rebalance{Only: true, Evacuate: []inventory.ID{hostID("busy")}, AsRated: asRated}, Policy{Ceiling: 0.8})
		for _, wave := range c.Waves {
			for _, m := range wave {
				if text, barred := ratingAfter(s, d, m).Barred(); asRated && barred {
					t.Errorf("%s to %s: %s", m.Name, m.To, text)
				}
			}
		}
		if moves := len(c.Waves); asRated && len(c.Left) == 0 || !asRated && moves == 0 {
			t.Errorf("as rated %v: %d waves, left %+v", asRated, moves, c.Left)
		}
	}
}

func ratingAfter(s *inventory.Snapshot, d Demand, m Step) Rating {
	r, _ := Of(Rate(s, d, VMSpec{ID: m.VM}, Policy{Ceiling: 0.8}), m.To)
	return r
}
