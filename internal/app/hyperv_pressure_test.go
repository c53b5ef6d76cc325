package app_test

import (
	"strings"
	"testing"
	"time"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/sim/hyperv"
	"github.com/protip/protip/internal/sim/load"
	"github.com/protip/protip/rules"
)

// TestShippedPackOnHyperV: the shipped host-pressure pack, as it is, reports the hot node of a simulated failover cluster and no other.
func TestShippedPackOnHyperV(t *testing.T) {
	t.Parallel()
	r := newRig(t, 40)
	node := func(name string) hyperv.Node {
		return hyperv.Node{Cores: 8, MemoryBytes: 64 << 30, VMs: []hyperv.VM{{Name: name + "-1", VCPUs: 8, MemoryBytes: 4 << 30}, {Name: name + "-2", VCPUs: 4, MemoryBytes: 4 << 30}}}
	}
	c, err := hyperv.New(hyperv.Options{
		Clock: r.clock, Nodes: []hyperv.Node{node("hot"), node("calm"), node("idle")},
		Load: load.Func(func(vm int, _ time.Time) load.Use {
			if vm < 2 {
				return load.Use{CPU: 0.8, MemoryConsumed: 0.5}
			}
			return load.Use{CPU: 0.1, MemoryConsumed: 0.5}
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	var hosts []string
	for _, n := range c.Nodes() {
		hosts = append(hosts, c.URL(n))
	}
	r.config["sources"] = []any{map[string]any{
		"name": "hv", "type": "hyperv", "hosts": hosts, "username": hyperv.DefaultUser, "password_file": r.file("hv.password", hyperv.DefaultPassword),
	}}
	r.config["packs"] = map[string]any{"shipped": []any{"host-pressure"}}
	delete(r.config, "remediation")
	r.write()
	a := r.start()
	tip := a.awaitTip("HostCPUOverload", inventory.ID{Source: "hv", Kind: inventory.KindHost, Ref: "hv-01"}, rules.Active)
	if !strings.HasPrefix(tip.Summary, "hv-01 uses ") || len(c.MoveCalls()) > 0 {
		t.Errorf("tip says %q; moves: %v", tip.Summary, c.MoveCalls())
	}
	for _, calm := range []string{"hv-02", "hv-03"} {
		if tip := a.tip("HostCPUOverload", inventory.ID{Source: "hv", Kind: inventory.KindHost, Ref: calm}); tip.State != "" {
			t.Errorf("%s: %+v", calm, tip)
		}
	}
}
