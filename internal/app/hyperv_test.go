package app_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/sim/hyperv"
	"github.com/protip/protip/internal/sim/load"
	"github.com/protip/protip/internal/web"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// hotCluster is a failover cluster whose first node is hot once one VM, the mover, has to work, and an agent's rig that watches it and
// lets HostHot act by itself there.
func hotCluster(t *testing.T, change func(*hyperv.Options)) (r *rig, c *hyperv.Cluster, heat *atomic.Bool) {
	t.Helper()
	r, heat = newRig(t, 40), &atomic.Bool{}
	hot := hyperv.Node{Cores: 8, MemoryBytes: 64 << 30, VMs: []hyperv.VM{{Name: "mover", VCPUs: 8, MemoryBytes: 4 << 30}}}
	for range 6 {
		hot.VMs = append(hot.VMs, hyperv.VM{Name: "other", VCPUs: 1, MemoryBytes: 2 << 30})
	}
	for i := range hot.VMs[1:] {
		hot.VMs[i+1].Name += string(rune('a' + i))
	}
	calm := func() hyperv.Node {
		return hyperv.Node{Cores: 8, MemoryBytes: 64 << 30, VMs: []hyperv.VM{{Name: "quiet", VCPUs: 1, MemoryBytes: 2 << 30}}}
	}
	opt := hyperv.Options{
		Clock: r.clock, Nodes: []hyperv.Node{hot, calm(), calm()}, MigrationTime: func(float64) time.Duration { return 20 * time.Second },
		Load: load.Func(func(vm int, _ time.Time) load.Use {
			switch {
			case vm > 6 || vm == 0 && !heat.Load():
				return load.Use{CPU: 0.01, MemoryConsumed: 0.5}
			case vm == 0:
				return load.Use{CPU: 0.4, MemoryConsumed: 0.5}
			}
			return load.Use{CPU: 0.66, MemoryConsumed: 0.5}
		}),
	}
	if change != nil {
		change(&opt)
	}
	var err error
	c, err = hyperv.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	password := r.file("hv.password", hyperv.DefaultPassword)
	var hosts []string
	for _, n := range c.Nodes() {
		hosts = append(hosts, c.URL(n))
	}
	r.config["sources"] = []any{map[string]any{
		"name": "hv", "type": "hyperv", "hosts": hosts, "username": hyperv.DefaultUser, "password_file": password,
		"acting": map[string]any{"username": hyperv.DefaultUser, "password_file": password},
	}}
	r.remediation(map[string]any{"automatic": []any{
		map[string]any{"source": "hv", "cluster": "hvc-01", "pack": "heat", "rule": "HostHot", "pack_sha256": r.sum("heat.yml")},
	}})
	return r, c, heat
}

// TestHyperVMovesLive: a tip's own move, from the hot node to where there is room.
func TestHyperVMovesLive(t *testing.T) {
	t.Parallel()
	r, c, heat := hotCluster(t, nil)
	heat.Store(true)
	a := r.start()
	act := a.awaitAction("done and recovered", recovered)
	if act.Kind != remediation.LiveMigration || act.By != remediation.ByPolicy || !act.Verified || act.VMName != "mover" {
		t.Errorf("action is %+v", act)
	}
	vm := c.VMs()[0]
	if is := c.Truth(vm); is.Node == "hv-01" || !is.Running || is.Downtime > time.Second || c.MoveCalls()[vm] != 1 {
		t.Errorf("the VM: %+v, %v", is, c.MoveCalls())
	}
	a.awaitTip("HostHot", act.From, rules.Resolved)
}

// TestHyperVEvacuates: a person has a node of a failover cluster emptied, wave by wave.
func TestHyperVEvacuates(t *testing.T) {
	t.Parallel()
	r, c, _ := hotCluster(t, nil)
	a := r.start()
	await(t, deadline, func() string {
		plan, err := a.HostPlan(t.Context(), web.Evacuate, "hv-01")
		if err != nil {
			return err.Error()
		}
		moves := 0
		for _, wave := range plan.Waves {
			moves += len(wave)
		}
		if moves != 7 || len(plan.Left) != 0 {
			return fmt.Sprintf("%d moves, %s", moves, plan.Why)
		}
		return ""
	})
	if _, err := a.ImplementHost(t.Context(), web.Evacuate, "hv-01", web.Agreement{}, "a new fan"); err != nil {
		t.Fatal(err)
	}
	await(t, deadline, func() string {
		left := ""
		for _, act := range a.actions() {
			switch {
			case !act.State.Final():
				return fmt.Sprintf("%s is %s: %s", act.VMName, act.State, act.Error)
			case act.Sent() && act.State != remediation.Done:
				t.Fatalf("%s is %s: %s", act.VMName, act.State, act.Error)
			}
		}
		for _, vm := range c.VMs() {
			if c.Truth(vm).Node == "hv-01" {
				left = vm
			}
		}
		if left == "" {
			return ""
		}
		// On a slow machine a host may have been stale when the turn of a move came: then a person asks again.
		_, _ = a.ImplementHost(t.Context(), web.Evacuate, "hv-01", web.Agreement{}, "a new fan")
		return left + " is left"
	})
	waves(t, a.actions())
	for _, vm := range c.VMs() {
		if is := c.Truth(vm); is.Node == "hv-01" || !is.Running || c.MoveCalls()[vm] > 1 {
			t.Errorf("%s: %+v, %v", vm, is, c.MoveCalls())
		}
	}
}

// TestHyperVQuickIsAPersons: what cannot be moved live is never taken down by itself, and by a person only who agrees to it.
func TestHyperVQuickIsAPersons(t *testing.T) {
	t.Parallel()
	r, c, heat := hotCluster(t, func(o *hyperv.Options) {
		for i := range o.Nodes[0].VMs {
			o.Nodes[0].VMs[i].LiveFails = hyperv.LogonTypeNotGranted
		}
	})
	a := r.start()
	mover := inventory.ID{Source: "hv", Kind: inventory.KindVM, Ref: strings.ToLower(c.VMs()[0])}
	await(t, deadline, func() string {
		if vm, ok := a.Snapshot().VM(mover); !ok || vm.NotLive == "" || !vm.QuickMigration {
			return "it is not known that the mover cannot be moved live"
		}
		return ""
	})
	heat.Store(true)
	from := inventory.ID{Source: "hv", Kind: inventory.KindHost, Ref: "hv-01"}
	tip := a.awaitTip("HostHot", from, rules.Active)
	await(t, deadline, func() string {
		if !strings.Contains(a.log.tail(1000), "would be down while it moves (quick_migration): a person decides") {
			return "the log does not say why the tip waits"
		}
		return ""
	})
	offers := 0
	for _, e := range a.seen.all() {
		if e.Offer != nil {
			offers++
			if e.Offer.Tip.ID != tip.ID || !strings.Contains(e.Offer.Downtime, ") cannot be moved live.") || len(e.Offer.Actions) != 1 || e.Offer.Actions[0].Kind != remediation.QuickMigration {
				t.Errorf("the offer is %+v", e.Offer)
			}
		}
	}
	if offers != 1 {
		t.Errorf("the plan was offered %d times", offers)
	}
	r.throughout(2*time.Minute, func() string {
		if n := len(c.Migrations()); n > 0 {
			return "a VM was moved by itself"
		}
		return ""
	})

	_, err := a.implement(tip, "")
	refused(t, "implementing it without a word about downtime", err, "mover (4.0 GiB of memory; ", ") cannot be moved live. A quick migration takes a VM down", "protip tips implement "+tip.ID+" --downtime")
	if n := len(c.Migrations()); n > 0 {
		t.Fatalf("%d VMs were moved all the same", n)
	}

	if _, err := a.ImplementWithDowntime(t.Context(), tip.ID, "its owner agreed"); err != nil {
		t.Fatal(err)
	}
	act := a.awaitAction("done", func(act remediation.Action) bool { return act.State == remediation.Done })
	vm := c.VMs()[0]
	moves := c.Migrations()
	if act.Kind != remediation.QuickMigration || !act.Verified || !strings.Contains(act.Why, "saved, moved and restored") || len(moves) != 1 || moves[0].Live {
		t.Errorf("action %+v; moves %+v", act, moves)
	}
	if is := c.Truth(vm); is.Node == "hv-01" || !is.Running || is.Downtime < 10*time.Second || c.MoveCalls()[vm] != 1 {
		t.Errorf("the VM: %+v, %v", is, c.MoveCalls())
	}
}
