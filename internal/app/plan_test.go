package app_test

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/placement"
	"github.com/protip/protip/internal/sim"
	"github.com/protip/protip/internal/sim/load"
	"github.com/protip/protip/internal/web"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// planPack holds the remedies that plan for more than one VM.
const planPack = `pack: plans
version: 1.0.0
description: Tips that come soon.
rules:
  - name: Uneven
    on: cluster
    with:
      most: max by (source, cluster_id) (virt_host_cpu_usage_ratio * on (source, host_id) group_left (cluster_id) virt_host_info{cluster_id!=""})
      least: min by (source, cluster_id) (virt_host_cpu_usage_ratio * on (source, host_id) group_left (cluster_id) virt_host_info{cluster_id!=""})
    when: most - least > 0.3
    for: 20s
    clear: most - least < 0.25
    severity: warning
    summary: "{{cluster.name}} is uneven"
    remedy: {action: rebalance-cluster, apart_below: 0.2}
  - name: Broken
    on: host
    on_alert: {alertname: HostBroken}
    severity: critical
    summary: "{{host.name}}: {{alert_summary}}"
    remedy: {action: evacuate}
  - name: Full
    on: host
    when: host.memory_usage_ratio > 0.9
    severity: warning
    summary: "{{host.name}} takes no more"
    remedy: {action: restrict}
`

// unevenFleet is a cluster whose first host does all the work: four VMs of which two have to go for it to be even, and none that contend.
func unevenFleet(name string) sim.Config {
	cfg := hotFleet(name)
	cfg.Load = load.Func(func(vm int, _ time.Time) load.Use {
		use := load.Use{CPU: 0.05, MemoryActive: 0.1, MemoryConsumed: 0.5, NetReceived: 4e6, NetTransmitted: 2e6, DiskLatency: time.Millisecond}
		if vm < 4 {
			use.CPU = 0.7
		}
		return use
	})
	const gib = 1 << 30
	vm := func(name string) sim.VM { return sim.VM{Name: name, VCPUs: 4, MemoryBytes: 8 * gib} }
	cfg.Clusters[0].Hosts = []sim.Host{
		{Name: "esx01", Cores: 16, MemoryBytes: 64 * gib, VMs: []sim.VM{vm("a"), vm("b"), vm("c"), vm("d")}},
		{Name: "esx02", Cores: 16, MemoryBytes: 64 * gib, VMs: []sim.VM{vm("idle-2")}},
		{Name: "esx03", Cores: 16, MemoryBytes: 64 * gib, VMs: []sim.VM{vm("idle-3")}},
	}
	return cfg
}

// planRig is a rig with the pack of plans over one vCenter.
func planRig(t *testing.T, speed float64, fleet sim.Config) *rig {
	t.Helper()
	r := newRig(t, speed, fleet)
	r.file("plans.yml", planPack)
	r.config["packs"] = map[string]any{"shipped": []any{}, "files": []any{"plans.yml"}}
	r.write()
	return r
}

// hostsOfVMs are the hosts of VMs by name.
func hostsOfVMs(snap *inventory.Snapshot) map[string]string {
	out := map[string]string{}
	for vm := range snap.VMs() {
		if h, ok := snap.Host(vm.Host); ok {
			out[vm.Name] = h.Name
		}
	}
	return out
}

func TestClusterIsRebalanced(t *testing.T) {
	t.Parallel()
	r := planRig(t, 30, unevenFleet("vc"))
	a := r.start()
	cluster := a.cluster("prod")
	tip := a.awaitTip("Uneven", cluster, rules.Active)
	var plan web.Proposal
	await(t, deadline, func() (missing string) {
		var err error
		if plan, err = a.Plan(t.Context(), tip.ID); err != nil {
			return err.Error()
		}
		if len(plan.Waves) == 0 || plan.Apart == nil || plan.Apart.After > 0.2 || plan.NextCommand == "" { // on a slow machine a number may be stale
			return fmt.Sprintf("the plan is %+v", plan)
		}
		return ""
	})
	moves := 0
	for _, wave := range plan.Waves {
		for _, m := range wave {
			moves++
			if m.FromName != "esx01" || m.Closer <= 0 || m.Cost.CopyBytes <= 0 || m.Why == "" {
				t.Errorf("%+v", m)
			}
		}
	}
	if moves != 2 || plan.NextCommand != "protip tips implement "+tip.ID || plan.Decision.Verdict != remediation.Manual {
		t.Fatalf("%d moves, next %q, %+v", moves, plan.NextCommand, plan.Decision)
	}
	if _, err := a.implement(tip, "it is uneven"); err != nil {
		t.Fatal(err)
	}
	await(t, deadline, func() string {
		for _, act := range a.actions() {
			if act.Outcome != remediation.Recovered {
				return fmt.Sprintf("%s is %s (%q, %s)", act.VMName, act.State, act.Outcome, act.Error)
			}
		}
		return ""
	})
	if n := len(a.actions()); n != moves {
		t.Errorf("%d actions of a plan of %d moves", n, moves)
	}
	a.awaitTip("Uneven", cluster, rules.Resolved)
	on := map[string]int{}
	for _, host := range hostsOfVMs(a.Snapshot()) {
		on[host]++
	}
	if on["esx01"] != 2 || on["esx02"] != 2 || on["esx03"] != 2 {
		t.Errorf("VMs by host: %v", on)
	}
}

// TestFullDiskTakesNothing: where it is configured what a host can move, one whose VM takes most of it is no target, although CPU and memory
// say so, in ratings and in plans alike.
func TestFullDiskTakesNothing(t *testing.T) {
	t.Parallel()
	fleet := unevenFleet("vc")
	uneven := fleet.Load
	fleet.Load = load.Func(func(vm int, at time.Time) load.Use {
		use := uneven.At(vm, at)
		use.DiskRead = 10e6
		switch vm {
		case 4: // of esx02, which has the most CPU and memory left
			use.DiskRead, use.DiskWritten = 50e6, 25e6
		case 5:
			use.CPU, use.MemoryConsumed = 0.2, 0.9
		}
		return use
	})
	r := planRig(t, 30, fleet)
	a := r.start()
	a.awaitUp("vc")
	best := func(want string) string {
		rating, err := a.Place(t.Context(), "a")
		if err != nil {
			return err.Error()
		}
		if first := rating.Ratings[0]; first.Name != want || first.Stars == 0 {
			return fmt.Sprintf("%s is rated best, not %s: %s", first.Name, want, first.Words())
		}
		return ""
	}
	await(t, deadline, func() string { return best("esx02") })

	r.config["placement"] = map[string]any{"host_disk_bytes_per_second": 100e6}
	r.write()
	if err := a.App.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, deadline, func() string { return best("esx03") })
	rating, err := a.PlaceNew(t.Context(), url.Values{
		"vcpus": {"1"}, "cpu_hertz": {"1e9"}, "memory_bytes": {"1e9"}, "disk_bytes_per_second": {"10e6"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range rating.Ratings {
		if text, barred := h.Barred(); h.Name == "esx02" && (!barred || !strings.Contains(text, "of 100 MB/s, above the ceiling of 80 %")) {
			t.Errorf("a new VM that reads: %s", h.Words())
		}
	}
	tip := a.awaitTip("Uneven", a.cluster("prod"), rules.Active)
	for what, ask := range map[string]func() (web.Proposal, error){
		"rebalance": func() (web.Proposal, error) { return a.Plan(t.Context(), tip.ID) },
		"evacuate":  func() (web.Proposal, error) { return a.HostPlan(t.Context(), web.Evacuate, "esx01") },
	} {
		var plan web.Proposal
		await(t, deadline, func() string { // on a slow machine a number may be stale
			var err error
			if plan, err = ask(); err != nil || len(plan.Waves) == 0 {
				return fmt.Sprintf("%s: %+v, %v", what, plan, err)
			}
			return ""
		})
		for _, m := range slices.Concat(plan.Waves...) {
			if m.ToName != "esx03" {
				t.Errorf("%s moves %s to %s", what, m.Name, m.ToName)
			}
		}
	}
}

// TestClusterWaitsUntilDemandIsKnown: by itself a cluster is not rebalanced before an hour was followed, and then it is.
func TestClusterWaitsUntilDemandIsKnown(t *testing.T) {
	t.Parallel()
	r := planRig(t, 240, unevenFleet("vc"))
	r.remediation(map[string]any{"automatic": []any{map[string]any{
		"source": "vc", "cluster": "prod", "pack": "plans", "rule": "Uneven", "pack_sha256": r.sum("plans.yml"),
	}}})
	a := r.start()
	began := r.clock.Now()
	a.awaitTip("Uneven", a.cluster("prod"), rules.Active)
	await(t, deadline, func() string {
		if strings.Contains(a.log.String(), "demand has not been followed for 1h0m0s yet") {
			return ""
		}
		return "nothing is said of demand"
	})
	act := a.awaitAction("approved by itself", func(act remediation.Action) bool { return act.By == remediation.ByPolicy })
	if early := act.PlannedAt.Sub(began); early < 50*time.Minute {
		t.Errorf("planned %s after the start", early)
	}
	if v := a.scrape().value("protip_demand_followed_seconds", "source", "vc"); v < 3000 {
		t.Errorf("demand followed for %v s", v)
	}

	// A restart goes on from history.
	a.stop()
	a = r.start()
	await(t, deadline, func() string {
		if v := a.scrape().value("protip_demand_followed_seconds", "source", "vc"); v < 3000 {
			return fmt.Sprintf("after a restart demand was followed for %v s\n%s", v, a.log.tail(5))
		}
		return ""
	})
}

func TestEvacuateByAPerson(t *testing.T) {
	t.Parallel()
	r := planRig(t, 30, unevenFleet("vc"))
	a := r.start()
	a.awaitUp("vc")
	plan, err := a.HostPlan(t.Context(), web.Evacuate, "esx01")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, wave := range plan.Waves {
		n += len(wave)
	}
	if n != 4 || len(plan.Waves) < 2 || !strings.Contains(plan.NextCommand, "--implement --plan="+plan.ID) {
		t.Fatalf("%d moves in %d waves, next %q; %s", n, len(plan.Waves), plan.NextCommand, plan.Why)
	}
	if len(a.actions()) != 0 || sent(r.vcs[0]) != 0 {
		t.Fatal("a plan that was only shown is carried out")
	}
	_, err = a.ImplementHost(t.Context(), web.Evacuate, "esx01", web.Agreement{Plan: "000000000000"}, "")
	refused(t, "another plan", err, "another one by now")
	if _, err = a.ImplementHost(t.Context(), web.Evacuate, "esx01", web.Agreement{Plan: plan.ID}, "new memory"); err != nil {
		t.Fatal(err)
	}
	rating, err := a.Place(t.Context(), "idle-2")
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range rating.Ratings {
		if text, barred := h.Barred(); h.Name == "esx01" && (!barred || !strings.Contains(text, "it is being emptied")) {
			t.Errorf("a host that is being emptied takes VMs: %v %q", barred, text)
		}
	}
	await(t, deadline, func() string {
		for _, act := range a.actions() {
			if !act.State.Final() {
				return fmt.Sprintf("%s is %s: %s", act.VMName, act.State, act.Error)
			}
		}
		for vm, host := range hostsOfVMs(a.Snapshot()) {
			if host == "esx01" { // on a slow machine a host may have been stale: then a person asks again
				_, _ = a.ImplementHost(t.Context(), web.Evacuate, "esx01", web.Agreement{}, "new memory")
				return vm + " is still there"
			}
		}
		return ""
	})
	waves(t, a.actions())
}

// done waits until all actions have ended well, and checks that their waves were kept to.
func (a *agent) done() {
	a.t.Helper()
	await(a.t, deadline, func() string {
		for _, act := range a.actions() {
			if act.State != remediation.Done {
				return fmt.Sprintf("%s is %s: %s", act.VMName, act.State, act.Error)
			}
		}
		return ""
	})
	waves(a.t, a.actions())
}

// awaitPlan waits until what is asked of a host takes so many moves: on a slow machine a number may be stale.
func (a *agent) awaitPlan(what web.What, host string, moves int) (plan web.Proposal) {
	a.t.Helper()
	await(a.t, deadline, func() string {
		var err error
		if plan, err = a.HostPlan(a.t.Context(), what, host); err != nil {
			return err.Error()
		}
		if n := len(slices.Concat(plan.Waves...)); n != moves {
			return fmt.Sprintf("%d moves to %s %s, want %d: %s", n, what, host, moves, plan.Why)
		}
		return ""
	})
	return plan
}

// vmsOn counts the VMs of each host.
func (a *agent) vmsOn() map[string]int {
	on := map[string]int{}
	for _, host := range hostsOfVMs(a.Snapshot()) {
		on[host]++
	}
	return on
}

// fleetOf is unevenFleet with other VMs, so many on each host, of which every one uses so much of its CPU.
func fleetOf(name string, cpu float64, vms ...int) sim.Config {
	cfg := unevenFleet(name)
	cfg.Load = load.Steady(load.Use{CPU: cpu, MemoryActive: 0.1, MemoryConsumed: 0.5, NetReceived: 4e6, NetTransmitted: 2e6})
	for h, n := range vms {
		cfg.Clusters[0].Hosts[h].VMs = nil
		for i := range n {
			cfg.Clusters[0].Hosts[h].VMs = append(cfg.Clusters[0].Hosts[h].VMs, sim.VM{Name: fmt.Sprintf("vm-%d-%d", h+1, i), VCPUs: 4, MemoryBytes: 8 << 30})
		}
	}
	return cfg
}

// TestFreeByAPerson: a host is freed wholly, onto hosts that run VMs already, or not at all; and what its moves took is what the next plan says
// that moves take.
func TestFreeByAPerson(t *testing.T) {
	t.Parallel()
	fleet := fleetOf("vc", 0.2, 4, 3, 0)
	large := &fleet.Clusters[0].Hosts[0]
	large.MemoryBytes, large.VMs[0].MemoryBytes = 512<<30, 256<<30
	r := planRig(t, 10, fleet)
	r.config["placement"] = map[string]any{"copy_bytes_per_second": 1e9}
	r.write()
	a := r.start()
	a.awaitUp("vc")

	plan := a.awaitPlan(web.Free, "esx02", 3)
	want := 0.0
	for _, m := range slices.Concat(plan.Waves...) {
		want += m.Cost.CopyBytes / 1e9
		if m.ToName != "esx01" || m.For != placement.ForFreeing || m.Cost.Seconds != m.Cost.CopyBytes/1e9 {
			t.Errorf("%+v", m)
		}
	}
	if len(plan.Waves) != 3 || plan.Pace != "1000 MB/s, as configured" || math.Abs(plan.Seconds-want) > 1e-6 || want < 10 {
		t.Errorf("%d waves, %g s at %q, want 3 and %g s, because one host gives one VM at a time", len(plan.Waves), plan.Seconds, plan.Pace, want)
	}
	stuck := a.awaitPlan(web.Free, "esx01", 0)
	if len(stuck.Left) != 1 || !strings.Contains(stuck.Why, "1 of its VMs stay: vm-1-0, no host that runs VMs already takes it comfortably, so esx01 is not freed") {
		t.Errorf("left %+v; %s", stuck.Left, stuck.Why)
	}

	if _, err := a.ImplementHost(t.Context(), web.Free, "esx02", web.Agreement{Plan: plan.ID}, "not needed"); err != nil {
		t.Fatal(err)
	}
	a.done()
	if on := a.vmsOn(); on["esx01"] != 7 || on["esx02"]+on["esx03"] != 0 || len(a.actions()) != 3 {
		t.Errorf("VMs by host: %v, by %d actions", on, len(a.actions()))
	}
	plan = a.awaitPlan(web.Evacuate, "esx01", 3) // those that came cool down, and the large one fits nowhere
	if !strings.Contains(plan.Pace, "the median of the last 3 live moves of vc") {
		t.Errorf("pace %q", plan.Pace)
	}
	for _, m := range slices.Concat(plan.Waves...) { // a migration of the simulated vCenter takes 10 s, whatever the memory
		if m.Cost.Seconds < 9 || m.Cost.Seconds > 60 {
			t.Errorf("%s takes %g s, and those before it took 10", m.Name, m.Cost.Seconds)
		}
	}
}

// TestFillByAPerson: a new host gets its share of the cluster's load from the fullest hosts, and no more.
func TestFillByAPerson(t *testing.T) {
	t.Parallel()
	r := planRig(t, 10, fleetOf("vc", 0.3, 8, 6, 0))
	a := r.start()
	a.awaitUp("vc")
	plan := a.awaitPlan(web.Fill, "esx03", 4)
	for _, m := range slices.Concat(plan.Waves...) {
		if m.ToName != "esx03" || m.For != placement.ForShare {
			t.Errorf("%+v", m)
		}
	}
	if len(plan.Waves) != 4 {
		t.Errorf("%d waves of 4 moves to one host, which takes one at a time", len(plan.Waves))
	}
	if _, err := a.ImplementHost(t.Context(), web.Fill, "esx03", web.Agreement{Plan: plan.ID}, "it is new"); err != nil {
		t.Fatal(err)
	}
	a.done()
	if on := a.vmsOn(); on["esx01"] != 5 || on["esx02"] != 5 || on["esx03"] != 4 {
		t.Errorf("VMs by host: %v, and the mean is 14 / 3", on)
	}
	if again := a.awaitPlan(web.Fill, "esx03", 0); !strings.Contains(again.Why, "it carries its share already") {
		t.Errorf("again: %s", again.Why)
	}
}

// TestGoalFill: with the goal fill a hot host's VM goes by itself to the fullest host that has room, and not to the emptiest.
func TestGoalFill(t *testing.T) {
	t.Parallel()
	fleet := hotFleet("vc")
	hot := fleet.Load
	fleet.Load = load.Func(func(vm int, at time.Time) load.Use {
		use := hot.At(vm, at)
		if vm == 3 { // idle-3
			use.CPU = 0.9
		}
		return use
	})
	fleet.Clusters[0].Hosts[2].VMs[0].VCPUs = 3
	full := sim.Host{Name: "esx04", Cores: 16, MemoryBytes: 64 << 30, VMs: []sim.VM{{Name: "full", MemoryBytes: 96 << 30}}}
	fleet.Clusters[0].Hosts = append(fleet.Clusters[0].Hosts, full)
	r := newRig(t, 30, fleet)
	a := r.start()
	a.awaitUp("vc")
	best := func(want string) {
		t.Helper()
		await(t, deadline, func() string {
			rating, err := a.Place(t.Context(), "mover")
			if err != nil || rating.Ratings[0].Name != want || rating.Ratings[0].Stars == 0 {
				return fmt.Sprintf("rated best is not %s: %+v, %v", want, rating.Ratings, err)
			}
			return ""
		})
	}
	best("esx02")
	r.config["placement"] = map[string]any{"goal": "fill"}
	r.automatic("HostHot")
	if err := a.App.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	act := a.awaitAction("done and recovered", recovered)
	if act.VMName != "mover" || act.ToName != "esx03" || act.By != remediation.ByPolicy {
		t.Errorf("%s went to %s by %s, want mover to esx03: esx02 is emptier, and esx04 has no room", act.VMName, act.ToName, act.By)
	}
}

// tightFleet is a cluster of three hosts that can lose one of them, and two only with two of its VMs less: each host has 64 GiB, and four VMs
// of 6 GiB, or, once they grow, the VMs that are not on the first have 7.
func tightFleet(name string, grown *atomic.Bool) sim.Config {
	cfg := fleetOf(name, 0.1, 4, 4, 4)
	cfg.Load = load.Func(func(vm int, _ time.Time) load.Use {
		use := load.Use{CPU: 0.1, MemoryActive: 0.1, MemoryConsumed: 0.5, NetReceived: 4e6, NetTransmitted: 2e6}
		if vm >= 4 && grown.Load() {
			use.MemoryConsumed = 7.0 / 12
		}
		return use
	})
	for h := range cfg.Clusters[0].Hosts {
		for v := range cfg.Clusters[0].Hosts[h].VMs {
			cfg.Clusters[0].Hosts[h].VMs[v].MemoryBytes = 12 << 30
		}
	}
	cfg.MigrationTime = func(float64) time.Duration { return time.Minute } // so that hosts are measured between two
	return cfg
}

const tooTight = "cluster prod would not keep its reserve of 1 host"

// tightRig is an agent over it that keeps a reserve of one host, and has looked at it.
func tightRig(t *testing.T, grown *atomic.Bool) *agent {
	t.Helper()
	r := planRig(t, 10, tightFleet("vc", grown))
	r.config["placement"] = map[string]any{"reserve": 1}
	r.write()
	a := r.start()
	a.awaitUp("vc")
	await(t, deadline, func() string {
		if got := a.reserve(); got.Answer != placement.Admitted {
			return fmt.Sprintf("the reserve is %s: %s", got.Answer, got.Why)
		}
		return ""
	})
	return a
}

// reserve is what is known of the only cluster's.
func (a *agent) reserve() placement.Admission {
	a.t.Helper()
	all, err := a.Reserves(a.t.Context(), nil)
	if err != nil {
		a.t.Fatal(err)
	}
	if len(all) != 1 {
		return placement.Admission{Why: "it has not been looked at"}
	}
	return *all[0].Admission
}

// TestEvacuationKeepsTheReserve: of the VMs that would leave a host, those go that the others can take and still lose one more host; the others
// stay, with the reason in words. At no moment is the reserve gone.
func TestEvacuationKeepsTheReserve(t *testing.T) {
	t.Parallel()
	a := tightRig(t, &atomic.Bool{})
	plan := a.awaitPlan(web.Evacuate, "esx01", 2)
	if len(plan.Left) != 2 || !strings.Contains(plan.Why, "2 of its VMs stay: ") || !strings.Contains(plan.Why, tooTight+": when esx0") {
		t.Errorf("left %+v; %s", plan.Left, plan.Why)
	}
	if len(plan.Kept) != 1 || plan.Kept[0].Why != "cluster prod keeps its reserve of 1 host at every step" {
		t.Errorf("kept %+v", plan.Kept)
	}
	if _, err := a.ImplementHost(t.Context(), web.Evacuate, "esx01", web.Agreement{Plan: plan.ID}, "new memory"); err != nil {
		t.Fatal(err)
	}
	await(t, deadline, func() string {
		if got := a.reserve(); got.Answer == placement.Refused { // on a slow machine a number may be stale, and then it is unknown
			t.Fatalf("while the host is being emptied: %s", got.Why)
		}
		for _, act := range a.actions() {
			if !act.State.Final() {
				return fmt.Sprintf("%s is %s: %s", act.VMName, act.State, act.Error)
			}
		}
		return ""
	})
	a.done()
	if on := a.vmsOn(); on["esx01"] != 2 || len(a.actions()) != 2 {
		t.Errorf("VMs by host: %v, by %d actions", on, len(a.actions()))
	}
}

// TestReserveIsAskedBeforeEachMove: what the cluster could bear when the plan was made, it cannot any more when VMs have grown since.
func TestReserveIsAskedBeforeEachMove(t *testing.T) {
	t.Parallel()
	var grown atomic.Bool
	a := tightRig(t, &grown)
	plan := a.awaitPlan(web.Evacuate, "esx01", 2)
	if len(plan.Waves) != 2 {
		t.Fatalf("%d waves", len(plan.Waves))
	}
	if _, err := a.ImplementHost(t.Context(), web.Evacuate, "esx01", web.Agreement{Plan: plan.ID}, "new memory"); err != nil {
		t.Fatal(err)
	}
	grown.Store(true)
	await(t, deadline, func() string {
		for _, act := range a.actions() {
			if !act.State.Final() {
				return fmt.Sprintf("%s is %s: %s", act.VMName, act.State, act.Error)
			}
		}
		return ""
	})
	for _, act := range a.actions() {
		switch {
		case act.Wave == 0 && act.State != remediation.Done:
			t.Errorf("the first move is %s: %s", act.State, act.Error)
		case act.Wave == 1 && (act.Sent() || !strings.Contains(act.Error, "may no longer take") || !strings.Contains(act.Error, tooTight)):
			t.Errorf("the second move is %s: %s", act.State, act.Error)
		}
	}
	if got := a.reserve(); got.Answer == placement.Refused {
		t.Error(got.Why)
	}
}

// waves fails the test if a move began before one of an earlier wave of its plan had ended.
func waves(t testing.TB, actions []remediation.Action) {
	t.Helper()
	for _, early := range actions {
		for _, late := range actions {
			if early.PlanID == late.PlanID && early.Wave < late.Wave && late.Sent() && late.StartingAt.Before(early.EndedAt) {
				t.Errorf("%s of wave %d began at %s, and %s of wave %d ended at %s", late.VMName, late.Wave, late.StartingAt, early.VMName, early.Wave, early.EndedAt)
			}
		}
	}
}

// TestEvacuateByAnAlert: a critical alert of a host's hardware empties the host by itself where that is granted. What is wrong stays, so the
// tip does; it keeps placements off, the outcome is that the host is empty, and nothing is done again.
func TestEvacuateByAnAlert(t *testing.T) {
	t.Parallel()
	r := planRig(t, 30, unevenFleet("vc"))
	r.config["alertmanager"] = map[string]any{"receive": map[string]any{"token_file": r.file("alert.token", "let me tell\n")}}
	r.remediation(map[string]any{"automatic": []any{map[string]any{
		"source": "vc", "cluster": "prod", "pack": "plans", "rule": "Broken", "pack_sha256": r.sum("plans.yml"),
	}}})
	a := r.start()
	a.awaitUp("vc")
	broken := host(t, r.vcs[0], "esx01")
	alert := fmt.Sprintf(`{"version":"4","status":"firing","receiver":"protip","groupKey":"x","alerts":[{"status":"firing","fingerprint":"0123456789abcdef",
		"labels":{"alertname":"HostBroken","source":"vc","host_id":%q},"annotations":{"summary":"a fan failed"},
		"startsAt":%q,"endsAt":"0001-01-01T00:00:00Z"}]}`, broken.Ref, time.Now().UTC().Format(time.RFC3339))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, a.url+"/api/v1/alertmanager", strings.NewReader(alert))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer let me tell")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode/100 != 2 {
		t.Fatalf("the alert is answered with HTTP %d", res.StatusCode)
	}
	await(t, deadline, func() string {
		all := a.actions()
		if len(all) < 4 {
			return fmt.Sprintf("%d actions, want 4\n%s", len(all), a.log.tail(3))
		}
		for _, act := range all { // of the last plan: on a slow machine a host may have been stale, and the plan made anew
			if act.PlanID == all[0].PlanID && (act.Outcome != remediation.Recovered || act.By != remediation.ByPolicy) {
				return fmt.Sprintf("%s is %s (%q, %s)", act.VMName, act.State, act.Outcome, act.Error)
			}
		}
		return ""
	})
	waves(t, a.actions())
	for vm, host := range hostsOfVMs(a.Snapshot()) {
		if host == "esx01" {
			t.Errorf("%s is still there", vm)
		}
	}
	tip := a.awaitTip("Broken", broken, rules.Active)
	rating, err := a.Place(t.Context(), "idle-2")
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range rating.Ratings {
		if text, barred := h.Barred(); h.Name == "esx01" && (!barred || !strings.Contains(text, tip.ID)) {
			t.Errorf("the broken host takes VMs: %v %q", barred, text)
		}
	}
	a.still(r, len(a.actions()))
}
