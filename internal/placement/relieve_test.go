package placement

import (
	"fmt"
	"strings"
	"testing"

	"github.com/protip/protip/internal/inventory"
)

func TestRelieve(t *testing.T) {
	hot := func(rules ...inventory.Rule) *testFleet { // 36 of 40 GHz
		return newFleet(rules...).host("esx-1", 36, 50).vm("a", "esx-1", 2, 10).vm("b", "esx-1", 6, 10).vm("c", "esx-1", 10, 10).vm("d", "esx-1", 16, 10)
	}
	cpu := func(ratio float64) Goal { return Goal{CPURatio: ratio} }
	tests := []struct {
		name  string
		fleet *testFleet
		goal  Goal
		p     Policy
		moves string
		why   string
	}{
		{"cool already", hot().host("esx-2", 0, 0), cpu(0.9), ceiling, "", ""},
		{"the smallest that is enough", hot().host("esx-2", 0, 0), cpu(0.8), ceiling, "b>esx-2", ""},
		{"one large rather than two", hot().host("esx-2", 0, 0), cpu(0.66), ceiling, "c>esx-2", ""},
		{"two, the second on what the first left free", hot().host("esx-2", 20, 0).host("esx-3", 22, 0), cpu(0.6), ceiling, "c>esx-2 a>esx-3", ""},
		{"both resources", hot().host("esx-2", 0, 0), Goal{0.85, 0.35}, ceiling, "d>esx-2 a>esx-2", ""},
		{"a VM without known demand stays", hot().sets(vmID("b"), inventory.VMCPUUsage, 0).sets(vmID("b"), inventory.VMCPUContention, nan).host("esx-2", 0, 0), cpu(0.8), ceiling, "c>esx-2", ""},
		{"frozen VMs stay", hot().host("esx-2", 0, 0), cpu(0.8), Policy{Ceiling: 0.8, Frozen: map[inventory.ID]string{vmID("b"): "resting"}}, "c>esx-2", ""},
		{"what leaves already counts as gone", hot().host("esx-2", 0, 0), cpu(0.8), Policy{Ceiling: 0.8, Incoming: map[inventory.ID][]inventory.ID{hostID("esx-2"): {vmID("b")}}}, "", ""},
		{"what comes counts as there", hot().host("esx-2", 8, 0).vm("x", "esx-2", 8, 0), cpu(0.8), Policy{Ceiling: 0.8, Incoming: map[inventory.ID][]inventory.ID{hostID("esx-1"): {vmID("x")}}}, "d>esx-2", ""},
		{
			"nowhere to go", hot().host("esx-2", 31.5, 0), cpu(0.8), ceiling, "",
			"esx-1 would still be at CPU 90 %, asked for 80 %: of its 4 running VMs 0 can move; 4 have no host that may take them (a, esx-2: CPU 79 % -> 83.8 % of 40.0 GHz, above the ceiling of 80 %)",
		},
		{
			"not far enough", hot().host("esx-2", 25, 0), cpu(0.5), ceiling, "b>esx-2",
			"esx-1 would still be at CPU 75 %, asked for 50 %: of its 4 running VMs 1 can move; 2 have no host that may take them (c, esx-2: CPU 62 % -> 87.5 % of 40.0 GHz, above the ceiling of 80 %)",
		},
		{"alone", hot(), cpu(0.5), ceiling, "", "4 have no host that may take them (a, it has no other host)"},
		{"rules keep it", hot(inventory.Rule{Name: "pair", Kind: inventory.Affinity, Enabled: true, Mandatory: true, VMs: []inventory.ID{vmID("b"), vmID("c")}}).host("esx-2", 0, 0), cpu(0.75), ceiling, "d>esx-2", ""},
		{"rules between what moves", hot(inventory.Rule{Name: "apart", Kind: inventory.AntiAffinity, Enabled: true, Mandatory: true, VMs: []inventory.ID{vmID("d"), vmID("c")}}).host("esx-2", 0, 0).host("esx-3", 20, 0), cpu(0.28), ceiling, "d>esx-2 c>esx-3", ""},
		{"where its network is", newFleet().nets("lab").host("esx-1", 36, 50).vm("a", "esx-1", 10, 10, attached("lab")).host("esx-2", 0, 0, having()).host("esx-3", 20, 0, having("lab")), cpu(0.8), ceiling, "a>esx-3", ""},
		{"in maintenance", newFleet().host("esx-1", 36, 50, func(h *inventory.Host) { h.Maintenance = true }), cpu(0.5), ceiling, "", "esx-1: it is in maintenance: whoever put it there empties it"},
		{"disconnected", newFleet().host("esx-1", 36, 50, func(h *inventory.Host) { h.Connection = inventory.Unreachable }), cpu(0.5), ceiling, "", "esx-1: it is unreachable, power on"},
		{"no such host", newFleet(), cpu(0.5), ceiling, "", "host vc/host/esx-1 is not known"},
		{"no goal", hot(), Goal{}, ceiling, "", "esx-1: no goal was given"},
		{"all its own", newFleet().host("esx-1", 36, 50).host("esx-2", 0, 0), cpu(0.5), ceiling, "", "of its 0 running VMs 0 can move"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := tt.fleet.snapshot()
			r := Relieve(s, Observed(s), hostID("esx-1"), tt.goal, tt.p)
			if got := spell(r.Moves); got != tt.moves || !strings.Contains(r.Why, tt.why) || r.Reached() != (tt.why == "") {
				t.Errorf("moves %q, want %q\nwhy %q, want %q", got, tt.moves, r.Why, tt.why)
			}
			if r.Reached() && len(r.Moves) > 0 && r.After.CPURatio >= r.Before.CPURatio {
				t.Errorf("load %+v -> %+v", r.Before, r.After)
			}
		})
	}
}

func spell(moves []Move) string {
	var out []string
	for _, m := range moves {
		out = append(out, m.Name+">"+m.To.Ref)
	}
	return strings.Join(out, " ")
}

// TestRelieveCountsOverhead: what a host needs itself does not move with its VMs.
func TestRelieveCountsOverhead(t *testing.T) {
	s := newFleet().host("esx-1", 36, 50).vm("a", "esx-1", 10, 10).vm("b", "esx-1", 10, 10).host("esx-2", 0, 0).snapshot()
	r := Relieve(s, Observed(s), hostID("esx-1"), Goal{CPURatio: 0.3}, ceiling)
	if len(r.Moves) != 2 || r.Reached() || r.After.CPURatio < 0.39 || r.After.CPURatio > 0.41 {
		t.Errorf("%d moves, after %+v, why %q", len(r.Moves), r.After, r.Why)
	}
}

func bigFleet(hosts, perHost int) *testFleet {
	f := newFleet()
	for h := range hosts {
		name, load := fmt.Sprintf("esx-%04d", h), 10.0
		if h == 0 {
			load = 39
		}
		f.host(name, load, 50)
		for v := range perHost {
			f.vm(fmt.Sprintf("vm-%04d-%02d", h, v), name, load/float64(perHost), 40/float64(perHost))
		}
	}
	return f
}

// TestRelieveCountsFlows: what the moves before brought to a host is in what it moves.
func TestRelieveCountsFlows(t *testing.T) {
	s := newFleet().host("esx-1", 36, 50).vm("c", "esx-1", 10, 10).vm("d", "esx-1", 16, 10).host("esx-2", 0, 0).host("esx-3", 20, 0).snapshot()
	d := Observed(s)
	d.Flows = map[inventory.ID]Flow{vmID("c"): {DiskBytesPerSecond: 30}, vmID("d"): {DiskBytesPerSecond: 30}}
	p := ceiling
	for disk, want := range map[float64]string{0: "d>esx-2 c>esx-2", 50: "d>esx-2 c>esx-3"} {
		p.HostFlow.DiskBytesPerSecond = disk
		var moves []string
		for _, m := range Relieve(s, d, hostID("esx-1"), Goal{CPURatio: 0.28}, p).Moves {
			moves = append(moves, m.Name+">"+m.To.Ref)
		}
		if got := strings.Join(moves, " "); got != want {
			t.Errorf("with %g a second to or from disks: %s, want %s", disk, got, want)
		}
	}
}

func BenchmarkRelieve(b *testing.B) {
	s := bigFleet(64, 40).snapshot()
	d := Observed(s)
	for b.Loop() {
		if r := Relieve(s, d, hostID("esx-0000"), Goal{CPURatio: 0.6}, ceiling); !r.Reached() {
			b.Fatal(r.Why)
		}
	}
}

func BenchmarkObserved(b *testing.B) {
	s := bigFleet(1000, 10).snapshot()
	for b.Loop() {
		Observed(s)
	}
}
