package placement

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/protip/protip/internal/inventory"
)

var nan = math.NaN()

// anyFleet is a cluster in which everything that can be wrong sometimes is.
func anyFleet(t *rapid.T) (*inventory.Snapshot, Policy, Goal) {
	hosts, vms := rapid.IntRange(1, 5).Draw(t, "hosts"), rapid.IntRange(0, 10).Draw(t, "vms")
	rarely := func(name string) bool { return rapid.IntRange(0, 11).Draw(t, name) == 0 }
	load := func(name string, highest float64) float64 { return rapid.Float64Range(0, highest).Draw(t, name) }
	vm := func(n int) inventory.ID { return vmID(fmt.Sprintf("vm-%d", n)) }

	var rules []inventory.Rule
	for range rapid.IntRange(0, 2).Draw(t, "rules") {
		r := inventory.Rule{
			Name: "r", Enabled: !rarely("disabled"), Mandatory: rapid.Bool().Draw(t, "mandatory"),
			Kind: rapid.SampledFrom([]inventory.RuleKind{inventory.Affinity, inventory.AntiAffinity}).Draw(t, "kind"),
		}
		for _, n := range rapid.SliceOfN(rapid.IntRange(0, 10), 2, 3).Draw(t, "members") {
			r.VMs = append(r.VMs, vm(n))
		}
		rules = append(rules, r)
	}
	f := newFleet(rules...).nets("net-0", "net-1", "net-2")
	networks := []string{"net-0", "net-1", "net-2", "not listed"}
	wired := rapid.IntRange(0, 3).Draw(t, "wired") == 3
	p := Policy{Ceiling: rapid.Float64Range(0.3, 1).Draw(t, "ceiling"), Incoming: map[inventory.ID][]inventory.ID{}, Frozen: map[inventory.ID]string{}}
	for h := range hosts {
		name := fmt.Sprintf("esx-%d", h)
		f.host(name, load("host cpu", 50), load("host memory", 120), func(host *inventory.Host) {
			host.Maintenance = rarely("maintenance")
			if rarely("disconnected") {
				host.Connection = inventory.Disconnected
			}
			if rarely("no capacity") {
				host.MemoryBytes = 0
			}
			if wired && rapid.Bool().Draw(t, "networks known") {
				lacks := rapid.IntRange(0, len(networks)-1).Draw(t, "lacks")
				having(slices.Delete(slices.Clone(networks), lacks, lacks+1)...)(host)
			}
		})
		if rarely("no host sample") {
			f.sets(hostID(name), inventory.HostCPUUsage, nan)
		}
		if rarely("incoming") && vms > 0 {
			p.Incoming[hostID(name)] = []inventory.ID{vm(rapid.IntRange(0, vms).Draw(t, "which"))}
		}
	}
	for n := range vms {
		on := fmt.Sprintf("esx-%d", min(hosts-1, rapid.IntRange(0, 2*hosts).Draw(t, "on")/2)) // the last host is crowded
		f.vm(vm(n).Ref, on, load("vm cpu", 15), load("vm memory", 20), func(v *inventory.VM) {
			if rarely("off") {
				v.Power = inventory.PowerOff
			}
			v.Template = rarely("template")
			if wired && rapid.Bool().Draw(t, "attached") {
				attached(rapid.SampledFrom(networks).Draw(t, "network"))(v)
			}
		})
		f.sets(vm(n), inventory.VMCPUContention, load("contention", 0.4))
		if rarely("no vm sample") {
			f.sets(vm(n), inventory.VMCPUContention, nan)
		}
		if rarely("frozen") {
			p.Frozen[vm(n)] = "resting"
		}
	}
	f.down = rarely("source down")
	return f.snapshot(), p, Goal{CPURatio: rapid.Float64Range(0.1, 1).Draw(t, "goal")}
}

// wrong is what may never be so of a host that takes a VM. It is written apart from the code it judges.
func wrong(s *inventory.Snapshot, d Demand, vm inventory.VMView, to inventory.HostView, on map[inventory.ID]inventory.ID, p Policy) string {
	src, _ := s.Source("vc")
	_, cpu := to.Samples.Value(inventory.HostCPUUsage)
	_, memory := to.Samples.Value(inventory.HostMemoryUsage)
	use, known := d.VMs[vm.ID]
	switch {
	case !src.Up || !cpu || !memory:
		return "stale"
	case to.Maintenance || to.Connection != inventory.Connected || to.Power != inventory.PowerOn:
		return "in maintenance or away"
	case on[vm.ID] == to.ID:
		return "there already"
	case !known || vm.Template || vm.Power != inventory.PowerOn:
		return "a VM that may not move"
	}
	if why := unplugged(vm, to); why != "" {
		return why
	}
	sum, here := use, map[inventory.ID]bool{}
	for other, host := range on {
		if v, ok := s.VM(other); ok && v.Power == inventory.PowerOn && !v.Template && host == to.ID || slices.Contains(p.Incoming[to.ID], other) {
			here[other] = true
		}
	}
	for _, other := range p.Incoming[to.ID] {
		here[other] = true
	}
	delete(here, vm.ID)
	for other := range here {
		need, ok := d.VMs[other]
		if !ok {
			return "demand there unknown"
		}
		sum = Use{sum.CPUHertz + need.CPUHertz, sum.MemoryBytes + need.MemoryBytes}
	}
	if sum.CPUHertz/to.CPUHertz > p.Ceiling+1e-9 || !(sum.MemoryBytes/to.MemoryBytes <= p.Ceiling+1e-9) {
		return "above the ceiling"
	}
	cluster, _ := s.Cluster(clusterID)
	for _, r := range cluster.Rules {
		if !r.Enabled || !r.Mandatory || !slices.Contains(r.VMs, vm.ID) {
			continue
		}
		for _, other := range r.VMs {
			v, ok := s.VM(other)
			if other == vm.ID || !ok || v.Power != inventory.PowerOn || v.Template {
				continue
			}
			if (r.Kind == inventory.AntiAffinity) == here[other] {
				return "breaks a mandatory rule with " + other.Ref
			}
		}
	}
	return ""
}

// unplugged is the network that a VM would miss on a host, in words; empty if none is known to be missing.
func unplugged(vm inventory.VMView, to inventory.HostView) string {
	for _, n := range vm.Networks {
		if to.Networks != nil && n != netID("not listed") && !slices.Contains(to.Networks, n) {
			return to.Name + " has no " + n.Ref
		}
	}
	return ""
}

func where(s *inventory.Snapshot) map[inventory.ID]inventory.ID {
	on := map[inventory.ID]inventory.ID{}
	for vm := range s.VMs() {
		on[vm.ID] = vm.Host
	}
	return on
}

func TestRateNeverRecommendsWhatIsWrong(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, p, _ := anyFleet(t)
		d := Observed(s)
		for vm := range s.VMs() {
			ratings := Rate(s, d, VMSpec{ID: vm.ID}, p)
			if again := Rate(s, d, VMSpec{ID: vm.ID}, p); !reflect.DeepEqual(ratings, again) {
				t.Fatalf("two answers for the same values:\n%+v\n%+v", ratings, again)
			}
			for i, r := range ratings {
				to, _ := s.Host(r.Host)
				why := wrong(s, d, vm, to, where(s), p)
				if _, barred := r.Barred(); barred != (r.Stars == 0) || (why != "" && !barred) {
					t.Fatalf("%s on %s: %s, though %q", vm.Name, r.Name, r.Words(), why)
				}
				if r.Stars < 0 || r.Stars > 5 || r.Stars*2 != math.Trunc(r.Stars*2) || (i > 0 && ratings[i-1].Stars < r.Stars) {
					t.Fatalf("stars %g at place %d", r.Stars, i)
				}
				if math.IsNaN(max(r.Before.CPURatio, r.Before.MemoryRatio) + max(r.After.CPURatio, r.After.MemoryRatio)) {
					t.Fatalf("load is no number: %+v", r)
				}
			}
		}
	})
}

func TestRelieveMovesAreRight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, p, goal := anyFleet(t)
		d := Observed(s)
		for h := range s.Hosts() {
			r := Relieve(s, d, h.ID, goal, p)
			if again := Relieve(s, d, h.ID, goal, p); !reflect.DeepEqual(r, again) {
				t.Fatalf("two answers for the same values:\n%+v\n%+v", r, again)
			}
			on, gone := where(s), Use{}
			for _, m := range r.Moves {
				vm, _ := s.VM(m.VM)
				to, _ := s.Host(m.To)
				if why := wrong(s, d, vm, to, on, p); why != "" || m.From != h.ID || on[m.VM] != h.ID || p.Frozen[m.VM] != "" {
					t.Fatalf("%s to %s in %s: %s", m.Name, m.To, spell(r.Moves), why)
				}
				on[m.VM] = m.To
				gone = gone.plus(d.VMs[m.VM])
			}
			want := r.Before.CPURatio - gone.CPUHertz/h.CPUHertz
			if len(r.Moves) > 0 && math.Abs(r.After.CPURatio-max(0, want)) > 1e-6 {
				t.Fatalf("after %+v, want CPU %g", r.After, want)
			}
			if r.Reached() && r.After.CPURatio > goal.CPURatio+1e-9 {
				t.Fatalf("said to be reached at %g of %g", r.After.CPURatio, goal.CPURatio)
			}
			if one := singleMove(s, d, h, goal, p); r.Reached() && len(r.Moves) > 1 && one != "" {
				t.Fatalf("%d moves where %s alone does it", len(r.Moves), one)
			}
		}
	})
}

// singleMove is a VM whose move alone reaches the goal, found by trying them all.
func singleMove(s *inventory.Snapshot, d Demand, h inventory.HostView, goal Goal, p Policy) string {
	before := Relieve(s, d, h.ID, Goal{CPURatio: 1e9}, p).Before.CPURatio
	for _, vm := range s.VMsOn(h.ID) {
		leaving := false
		for _, vms := range p.Incoming {
			leaving = leaving || slices.Contains(vms, vm.ID)
		}
		if _, frozen := p.Frozen[vm.ID]; frozen || leaving {
			continue
		}
		ratings := Rate(s, d, VMSpec{ID: vm.ID}, p)
		if len(ratings) > 0 && ratings[0].Stars > 0 && before-d.VMs[vm.ID].CPUHertz/h.CPUHertz < goal.CPURatio-1e-9 {
			return vm.Name
		}
	}
	return ""
}
