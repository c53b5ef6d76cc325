package placement

import (
	"math"
	"strings"
	"testing"

	"github.com/protip/protip/internal/inventory"
)

var ceiling = Policy{Ceiling: 0.8}

func TestRate(t *testing.T) {
	f := newFleet().
		host("esx-1", 30, 50).vm("web", "esx-1", 8, 10).
		host("esx-2", 8, 20).
		host("esx-3", 16.4, 20).
		host("esx-4", 30, 20)
	s := f.snapshot()
	got := Rate(s, Observed(s), VMSpec{ID: vmID("web")}, ceiling)
	want := []struct {
		host  string
		stars float64
		words string
	}{
		{"esx-2", 2.5, "2.5 stars: CPU 20 % -> 40 % of 40.0 GHz, memory 20 % -> 30 % of 100 GiB"},
		{"esx-3", 1, "1 stars: CPU 41 % -> 61 % of 40.0 GHz, memory 20 % -> 30 % of 100 GiB"},
		{"esx-1", 0, "0 stars: CPU 75 % -> 75 % of 40.0 GHz, memory 50 % -> 50 % of 100 GiB, the VM runs here already"},
		{"esx-4", 0, "0 stars: CPU 75 % -> 95.0 % of 40.0 GHz, above the ceiling of 80 %, memory 20 % -> 30 % of 100 GiB"},
	}
	if len(got) != len(want) {
		t.Fatalf("%d ratings, want %d", len(got), len(want))
	}
	for i, w := range want {
		if g := got[i]; g.Name != w.host || g.Stars != w.stars || g.Words() != w.words {
			t.Errorf("%d: %s %s\nwant %s %s", i, g.Name, g.Words(), w.host, w.words)
		}
	}
	if r := rating(t, got, "esx-2"); math.Abs(r.Before.CPURatio-0.2) > 1e-9 || math.Abs(r.After.CPURatio-0.4) > 1e-9 {
		t.Errorf("load %+v -> %+v", r.Before, r.After)
	}
}

// TestBars has one thing at a time speak against esx-2.
func TestBars(t *testing.T) {
	rule := func(kind inventory.RuleKind, mandatory bool) inventory.Rule {
		return inventory.Rule{Name: "pair", Kind: kind, Enabled: true, Mandatory: mandatory, VMs: []inventory.ID{vmID("web"), vmID("peer")}}
	}
	host := func(change func(*inventory.Host)) *testFleet {
		return newFleet().host("esx-1", 8, 10).vm("web", "esx-1", 8, 10).host("esx-2", 0, 0, change)
	}
	vm := func(change func(*inventory.VM)) *testFleet {
		return newFleet().host("esx-1", 8, 10).vm("web", "esx-1", 8, 10, change).host("esx-2", 0, 0)
	}
	pair := func(r inventory.Rule, peerOn string, change ...func(*inventory.VM)) *testFleet {
		return newFleet(r).host("esx-1", 8, 10).vm("web", "esx-1", 8, 10).host("esx-2", 0, 0).vm("peer", peerOn, 0, 0, change...)
	}
	off := func(v *inventory.VM) { v.Power = inventory.PowerOff }
	disabled := rule(inventory.AntiAffinity, true)
	disabled.Enabled = false

	tie := func(kind inventory.RuleKind, mandatory bool, hosts ...string) *testFleet {
		r := inventory.HostRule{Name: "licence", Kind: kind, Enabled: true, Mandatory: mandatory, HostGroup: "licensed", VMs: []inventory.ID{vmID("web")}}
		for _, h := range hosts {
			r.Hosts = append(r.Hosts, hostID(h))
		}
		return vm(func(*inventory.VM) {}).tie(r)
	}
	idle := tie(inventory.Affinity, true, "esx-1")
	idle.delta.Clusters[0].HostRules[0].Enabled = false
	others := tie(inventory.Affinity, true, "esx-1")
	others.delta.Clusters[0].HostRules[0].VMs = []inventory.ID{vmID("peer")}
	on := func(names ...string) *testFleet {
		return vm(func(v *inventory.VM) {
			for _, n := range names {
				v.Datastores = append(v.Datastores, dsID(n))
			}
		}).store("both", map[inventory.ID]inventory.Mount{hostID("esx-1"): {Accessible: true}, hostID("esx-2"): {Accessible: true}}).
			store("local", map[inventory.ID]inventory.Mount{hostID("esx-1"): {Accessible: true}}).
			store("lost", map[inventory.ID]inventory.Mount{hostID("esx-1"): {Accessible: true}, hostID("esx-2"): {}}).
			store("iso", map[inventory.ID]inventory.Mount{hostID("esx-1"): {Accessible: true}, hostID("esx-2"): {Accessible: true, ReadOnly: true}}).
			store("unknown", nil)
	}
	plugged := func(to func(*inventory.VM), change ...func(*inventory.Host)) *testFleet {
		f := newFleet().host("esx-1", 8, 10, having("prod", "backup")).vm("web", "esx-1", 8, 10, to).host("esx-2", 0, 0, change...)
		f.nets("prod", "backup").delta.Networks = append(f.delta.Networks, inventory.Network{ID: netID("vague"), Name: "vague", Unread: true})
		return f
	}

	tests := []struct {
		name  string
		fleet *testFleet
		code  string // empty: nothing speaks against it
		text  string
		stars float64
	}{
		{"nothing", host(func(*inventory.Host) {}), "", "", 4},
		{"maintenance", host(func(h *inventory.Host) { h.Maintenance = true }), CodeMaintenance, "in maintenance", 0},
		{"disconnected", host(func(h *inventory.Host) { h.Connection = inventory.Disconnected }), CodeDisconnected, "disconnected, power on", 0},
		{"powered off", host(func(h *inventory.Host) { h.Power = inventory.PowerStandby }), CodeDisconnected, "connected, power standby", 0},
		{"no capacity", host(func(h *inventory.Host) { h.CPUHertz = 0 }), CodeNoCapacity, "its capacity is not known", 0},
		{"endless capacity", host(func(h *inventory.Host) { h.MemoryBytes = math.Inf(1) }), CodeNoCapacity, "its capacity is not known", 0},
		{"no CPU sample", host(func(*inventory.Host) {}).sets(hostID("esx-2"), inventory.HostCPUUsage, math.NaN()), CodeStale, "no recent virt_host_cpu_usage_hertz", 0},
		{"negative sample", host(func(*inventory.Host) {}).sets(hostID("esx-2"), inventory.HostMemoryUsage, -1), CodeStale, "no recent virt_host_memory_usage_bytes", 0},
		{"memory full", host(func(h *inventory.Host) { h.MemoryBytes = 12 * gib }), CodeMemoryRoom, "memory 0 % -> 83.3 % of 12 GiB, above the ceiling of 80 %", 0},
		{"fewer cores than vCPUs", host(func(h *inventory.Host) { h.Cores = 2 }), CodeWide, "4 vCPUs are more than its 2 cores", 2.5},
		{"VM off", vm(off), CodeNotRunning, "web: it is not running (power off), and only a running VM is live-migrated", 0},
		{"VM suspended", vm(func(v *inventory.VM) { v.Power = inventory.PowerSuspended }), CodeNotRunning, "power suspended", 0},
		{"template", vm(func(v *inventory.VM) { v.Template = true }), CodeNotRunning, "web: it is a template", 0},
		{"orphaned", vm(func(v *inventory.VM) { v.Connection = inventory.Orphaned }), CodeVMUnreachable, "the platform does not reach it (orphaned)", 0},
		{"demand unknown", vm(func(*inventory.VM) {}).sets(vmID("web"), inventory.VMCPUContention, math.NaN()), CodeUnknownDemand, "web: its demand is not known", 0},
		{"demand of a VM there unknown", pair(inventory.Rule{}, "esx-2").sets(vmID("peer"), inventory.VMMemoryUsage, math.NaN()), CodeUnknownDemand, "the demand of peer, which is here or on its way, is not known", 0},
		{"unknown but off there", pair(inventory.Rule{}, "esx-2", off).sets(vmID("peer"), inventory.VMMemoryUsage, math.NaN()), "", "", 4},
		{"must be apart", pair(rule(inventory.AntiAffinity, true), "esx-2"), CodeAntiAffinity, `rule "pair" keeps it apart from peer, which is here`, 0},
		{"should be apart", pair(rule(inventory.AntiAffinity, false), "esx-2"), CodeAntiAffinity, "keeps it apart", 2.5},
		{"apart from one that is off", pair(rule(inventory.AntiAffinity, true), "esx-2", off), "", "", 4},
		{"apart, rule disabled", pair(disabled, "esx-2"), "", "", 4},
		{"must be together", pair(rule(inventory.Affinity, true), "esx-1"), CodeAffinity, `rule "pair" keeps it together with peer, which is elsewhere`, 0},
		{"should be together", pair(rule(inventory.Affinity, false), "esx-1"), CodeAffinity, "keeps it together", 2.5},
		{"must run elsewhere", tie(inventory.Affinity, true, "esx-1"), CodeHostRule, `rule "licence" ties it to the hosts of "licensed", and this is none of them`, 0},
		{"should run elsewhere", tie(inventory.Affinity, false, "esx-1"), CodeHostRule, "ties it", 2.5},
		{"must run where there is no host", tie(inventory.Affinity, true), CodeHostRule, "ties it", 0},
		{"must run here or there", tie(inventory.Affinity, true, "esx-1", "esx-2"), "", "", 4},
		{"must not run here", tie(inventory.AntiAffinity, true, "esx-2"), CodeHostRule, `rule "licence" keeps it off the hosts of "licensed", of which this is one`, 0},
		{"should not run here", tie(inventory.AntiAffinity, false, "esx-2"), CodeHostRule, "keeps it off", 2.5},
		{"must not run elsewhere", tie(inventory.AntiAffinity, true, "esx-1"), "", "", 4},
		{"tied, rule disabled", idle, "", "", 4},
		{"another is tied", others, "", "", 4},
		{"shared datastore", on("both"), "", "", 4},
		{"local datastore", on("both", "local"), CodeDatastore, "it does not reach datastore local, which holds files of the VM", 0},
		{"datastore lost", on("lost"), CodeDatastore, "datastore lost", 0},
		{"datastore read-only", on("iso"), CodeDatastore, "datastore iso", 0},
		{"mounts unknown", on("unknown"), "", "", 4},
		{"datastore not listed", on("none"), "", "", 4},
		{"network there", plugged(attached("prod", "backup"), having("backup", "prod", "test")), "", "", 4},
		{"network not there", plugged(attached("prod", "backup"), having("prod")), CodeNetwork, "network backup, which the VM is attached to, is not on esx-2", 0},
		{"no network there", plugged(attached("prod"), having()), CodeNetwork, "network prod", 0},
		{"the host's networks unknown", plugged(attached("prod")), "", "", 4},
		{"the VM's networks unknown", plugged(func(*inventory.VM) {}, having()), "", "", 4},
		{"attached to none", plugged(attached(), having()), "", "", 4},
		{"network unread", plugged(attached("vague"), having("prod")), "", "", 4},
		{"network not listed", plugged(attached("none"), having("prod")), "", "", 4},
		{"together there", pair(rule(inventory.Affinity, true), "esx-2"), "", "", 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := tt.fleet.snapshot()
			r := rating(t, Rate(s, Observed(s), VMSpec{ID: vmID("web")}, ceiling), "esx-2")
			if r.Stars != tt.stars {
				t.Errorf("%g stars, want %g: %s", r.Stars, tt.stars, r.Words())
			}
			if _, barred := r.Barred(); barred != (r.Stars == 0) {
				t.Errorf("barred %v with %g stars", barred, r.Stars)
			}
			found := tt.code == ""
			for _, reason := range r.Reasons {
				found = found || reason.Code == tt.code && strings.Contains(reason.Text, tt.text)
				if tt.code == "" && reason.Code != CodeCPURoom && reason.Code != CodeMemoryRoom {
					t.Errorf("speaks against it: %+v", reason)
				}
			}
			if !found {
				t.Errorf("no reason %s %q in %+v", tt.code, tt.text, r.Reasons)
			}
		})
	}
}

func TestStaleSource(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*testFleet)
		says   string
	}{
		"down":       {func(f *testFleet) { f.down = true }, "its load is not known: source vc does not answer"},
		"not synced": {func(f *testFleet) { f.delta.Synced = false }, "its load is not known: source vc has not listed its objects yet"},
	} {
		f := newFleet().host("esx-1", 36, 50).vm("web", "esx-1", 8, 10).host("esx-2", 0, 0)
		tt.change(f)
		s := f.snapshot()
		r := rating(t, Rate(s, Observed(s), VMSpec{ID: vmID("web")}, ceiling), "esx-2")
		if text, barred := r.Barred(); !barred || text != tt.says {
			t.Errorf("%s: %q, want %q", name, text, tt.says)
		}
		if relief := Relieve(s, Observed(s), hostID("esx-1"), Goal{CPURatio: 0.5}, ceiling); len(relief.Moves) > 0 || relief.Why != "esx-1: "+tt.says {
			t.Errorf("%s: relief %+v", name, relief)
		}
	}
}

func TestIncomingCounts(t *testing.T) {
	s := newFleet().host("esx-1", 24, 50).vm("web", "esx-1", 8, 10).vm("db", "esx-1", 8, 10).vm("new", "esx-1", 8, 10).
		sets(vmID("new"), inventory.VMCPUUsage, math.NaN()).host("esx-2", 8, 0).snapshot()
	d := Observed(s)
	with := func(incoming ...inventory.ID) Rating {
		p := Policy{Ceiling: 0.8, Incoming: map[inventory.ID][]inventory.ID{hostID("esx-2"): incoming}}
		return rating(t, Rate(s, d, VMSpec{ID: vmID("web")}, p), "esx-2")
	}
	for name, tt := range map[string]struct {
		r             Rating
		before, after float64
	}{
		"nothing":       {with(), 0.2, 0.4},
		"another":       {with(vmID("db")), 0.4, 0.6},
		"another twice": {with(vmID("db"), vmID("db")), 0.4, 0.6},
		"itself":        {with(vmID("web")), 0.2, 0.4},
	} {
		if math.Abs(tt.r.Before.CPURatio-tt.before) > 1e-9 || math.Abs(tt.r.After.CPURatio-tt.after) > 1e-9 {
			t.Errorf("%s incoming: %+v -> %+v", name, tt.r.Before, tt.r.After)
		}
	}
	for name, vm := range map[string]inventory.ID{"unknown demand": vmID("new"), "no VM": vmID("gone")} {
		if r := with(vm); r.Stars != 0 {
			t.Errorf("%s incoming: %s", name, r.Words())
		}
	}
}

func TestRateNewVM(t *testing.T) {
	s := newFleet().host("esx-1", 8, 10).host("esx-2", 20, 10).host("alone", 0, 0, func(h *inventory.Host) { h.Cluster = inventory.ID{} }).snapshot()
	got := Rate(s, Demand{}, VMSpec{Name: "new", VCPUs: 2, Use: Use{4 * ghz, 8 * gib}}, ceiling)
	if len(got) != 3 || got[0].Name != "alone" || got[1].Name != "esx-1" || got[2].Name != "esx-2" || got[2].Stars == 0 {
		t.Errorf("ratings %+v", got)
	}
	if bad := Rate(s, Demand{}, VMSpec{Use: Use{math.NaN(), 0}}, ceiling); bad[0].Stars != 0 {
		t.Errorf("a demand that is no number: %+v", bad[0])
	}
}

func TestRateKnowsNothing(t *testing.T) {
	s := newFleet().host("esx-1", 0, 0).vm("lost", "nowhere", 1, 1).snapshot()
	for _, vm := range []string{"no such VM", "lost"} {
		if got := Rate(s, Observed(s), VMSpec{ID: vmID(vm)}, ceiling); len(got) != 0 {
			t.Errorf("%s: %+v", vm, got)
		}
	}
	s = newFleet().host("alone", 8, 10, func(h *inventory.Host) { h.Cluster = inventory.ID{} }).vm("web", "alone", 1, 1).host("esx-2", 0, 0).snapshot()
	if got := Rate(s, Observed(s), VMSpec{ID: vmID("web")}, ceiling); len(got) != 1 || got[0].Stars != 0 {
		t.Errorf("VM of a standalone host: %+v", got)
	}
}

func TestSillyCeilings(t *testing.T) {
	s := newFleet().host("esx-1", 8, 10).vm("web", "esx-1", 8, 10).host("esx-2", 0, 0).snapshot()
	for _, c := range []float64{0, -1, math.NaN()} {
		if r := rating(t, Rate(s, Observed(s), VMSpec{ID: vmID("web")}, Policy{Ceiling: c}), "esx-2"); r.Stars != 0 {
			t.Errorf("ceiling %g: %s", c, r.Words())
		}
	}
}

func TestObserved(t *testing.T) {
	web := vmID("web")
	base := func() *testFleet { return newFleet().host("esx-1", 8, 10).vm("web", "esx-1", 8, 10) }
	tests := []struct {
		name  string
		fleet *testFleet
		want  Use // zero: absent
	}{
		{"usage", base(), Use{8 * ghz, 10 * gib}},
		{"kept waiting", base().sets(web, inventory.VMCPUContention, 0.25), Use{12 * ghz, 10 * gib}}, // + 0.25 x 4 x 4 GHz
		{"kept waiting, at most its size", base().sets(web, inventory.VMCPUContention, 0.9), Use{16 * ghz, 10 * gib}},
		{"turbo", base().sets(web, inventory.VMCPUUsage, 18*ghz), Use{18 * ghz, 10 * gib}},
		{"ballooned and swapped", base().sets(web, inventory.VMMemoryBalloon, 2*gib).sets(web, inventory.VMMemorySwapped, 1*gib), Use{8 * ghz, 13 * gib}},
		{"at most what is configured", base().sets(web, inventory.VMMemoryBalloon, 20*gib), Use{8 * ghz, 16 * gib}},
		{"no usage", base().sets(web, inventory.VMCPUUsage, math.NaN()), Use{}},
		{"no contention", base().sets(web, inventory.VMCPUContention, math.NaN()), Use{}},
		{"no memory", base().sets(web, inventory.VMMemoryUsage, math.NaN()), Use{}},
		{"nonsense", base().sets(web, inventory.VMCPUUsage, -1e300).sets(web, inventory.VMMemoryUsage, math.Inf(1)), Use{}},
		{"off", newFleet().host("esx-1", 0, 0).vm("web", "esx-1", 0, 0, func(v *inventory.VM) { v.Power = inventory.PowerOff }), Use{}},
		{"host unknown", newFleet().vm("web", "esx-9", 8, 10), Use{}},
		{"core speed unknown", newFleet().host("esx-1", 8, 10, func(h *inventory.Host) { h.Cores = 0 }).vm("web", "esx-1", 8, 10), Use{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := Observed(tt.fleet.snapshot()).VMs[web]
			if ok != (tt.want != Use{}) || math.Abs(got.CPUHertz-tt.want.CPUHertz) > 1 || math.Abs(got.MemoryBytes-tt.want.MemoryBytes) > 1 {
				t.Errorf("%+v, %v, want %+v", got, ok, tt.want)
			}
		})
	}
}
