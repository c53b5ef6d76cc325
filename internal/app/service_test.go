package app_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/sim"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// slowPack is the shipped pack service-latency with a for that a test can wait for.
const slowPack = `pack: slow
version: 1.0.0
description: Services that answer slowly, soon.
platforms: [guest]
rules:
  - name: ServiceSlow
    on: service
    when: service.latency_seconds > 0.5 && vm.powered_on && !host.maintenance
    for: 20s
    clear: service.latency_seconds < 0.25
    severity: warning
    summary: "{{service.name}} takes {{duration(service.latency_seconds)}}; it runs in {{vm.name}} on {{host.name}}"
    remedy: {action: migrate}
`

// shop is the service of a VM, as its guest tells of it: slow on the host where it was first, and well on any other. Which VM it is
// in, the guest says by its DMI UUID alone, in the order in which VMware shows it inside.
type shop struct {
	*httptest.Server
	mute atomic.Bool // tells no UUID
}

func newShop(t *testing.T, vc *sim.VCenter, vmName string) *shop {
	t.Helper()
	c, s := login(t, vc), &shop{}
	machine := ref(vm(t, vc, vmName))
	first := whereabouts(t, c, machine)
	groups := strings.Split(first.Config.Uuid, "-")
	for i, group := range groups[:3] {
		reversed := ""
		for ; group != ""; group = group[2:] {
			reversed = group[:2] + reversed
		}
		groups[i] = reversed
	}
	id := strings.Join(groups, "-")
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var now mo.VirtualMachine
		if err := property.DefaultCollector(c.Client).RetrieveOne(r.Context(), machine, []string{"runtime.host"}, &now); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		latency := 0.05
		if *now.Runtime.Host == *first.Runtime.Host {
			latency = 0.8
		}
		if !s.mute.Load() {
			fmt.Fprintf(w, "node_dmi_info{product_uuid=%q} 1\n", id)
		}
		fmt.Fprintf(w, "shop_latency_seconds %g\n", latency)
	}))
	t.Cleanup(s.Close)
	return s
}

func whereabouts(t *testing.T, c *govmomi.Client, machine types.ManagedObjectReference) mo.VirtualMachine {
	t.Helper()
	var out mo.VirtualMachine
	if err := property.DefaultCollector(c.Client).RetrieveOne(t.Context(), machine, []string{"runtime.host", "config.uuid"}, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// newServiceRig is a calm vCenter and a slow service in its VM mover.
func newServiceRig(t *testing.T) (*rig, *shop, inventory.ID) {
	t.Helper()
	r := newRig(t, 20, calmFleet("vc"))
	s := newShop(t, r.vcs[0], "mover")
	r.file("heat.yml", slowPack)
	r.config["sources"] = append(r.config["sources"].([]any), map[string]any{
		"name": "guests", "type": "guest",
		"targets":  []any{map[string]any{"name": "web", "url": s.URL}},
		"services": []any{map[string]any{"type": "metric", "metric": "shop_latency_seconds", "name": "shop", "latency": "value"}},
	})
	r.write()
	return r, s, inventory.ID{Source: "guests", Kind: inventory.KindService, Ref: "web/metric/shop"}
}

// TestSlowServiceMovesItsVM: what is slow is inside a guest, and the host is calm. The tip names all three, its VM is moved, and
// the service's own latency says that it helped.
func TestSlowServiceMovesItsVM(t *testing.T) {
	t.Parallel()
	for _, automatic := range []bool{false, true} {
		t.Run(fmt.Sprintf("automatic %v", automatic), func(t *testing.T) {
			t.Parallel()
			r, _, service := newServiceRig(t)
			vc := r.vcs[0]
			mover, from := vm(t, vc, "mover"), host(t, vc, "esx01")
			by := remediation.ByPolicy
			if automatic {
				r.remediation(map[string]any{"automatic": []any{map[string]any{
					"source": "vc", "cluster": "prod", "pack": "slow", "rule": "ServiceSlow", "pack_sha256": r.sum("heat.yml"),
				}}})
			}
			a := r.start()
			if !automatic {
				tip := a.awaitTip("ServiceSlow", service, rules.Active)
				want := rules.Place{VM: mover, VMName: "mover", Host: from, HostName: "esx01"}
				if tip.Place == nil || *tip.Place != want || tip.Summary != "shop takes 800ms; it runs in mover on esx01" {
					t.Errorf("tip says %q of %+v", tip.Summary, tip.Place)
				}
				if h, _ := a.Snapshot().Host(from); h.Host != nil {
					if cpu, ok := h.Samples.Value(inventory.HostCPUUsageRatio); ok && cpu > 0.3 {
						t.Errorf("the host is at %v, and was to be calm", cpu)
					}
				}
				if sent(vc) > 0 {
					t.Error("a migration was sent, and nobody had asked for it")
				}
				// Until the VM was measured nobody can say where it fits.
				await(t, deadline, func() string {
					if _, err := a.Implement(t.Context(), tip.ID, "it is slow"); err != nil {
						return err.Error()
					}
					return ""
				})
				by = ""
			}
			act := a.awaitAction("done and recovered", recovered)
			if act.VM != mover || act.From != from || act.To == from || act.Cluster.Source != "vc" || by != "" && act.By != by {
				t.Errorf("action is %+v", act)
			}
			a.awaitTip("ServiceSlow", service, rules.Resolved)
			if n := sent(vc); n != 1 {
				t.Errorf("%d migrations were sent, want 1", n)
			}
			if n := a.scrape().count("virt_service_info", "service", "shop", "vm", "mover", "vm_source", "vc"); n != 1 {
				t.Errorf("%d series tell whose guest the service runs in", n)
			}
		})
	}
}

// TestServiceOfNobodyKnownMovesNothing: once it cannot be told whose guest the service runs in, its tip says so and nobody acts on it.
func TestServiceOfNobodyKnownMovesNothing(t *testing.T) {
	t.Parallel()
	r, s, service := newServiceRig(t)
	a := r.start()
	tip := a.awaitTip("ServiceSlow", service, rules.Active)
	s.mute.Store(true)
	a.awaitTip("ServiceSlow", service, rules.Unknown)
	if _, err := a.Implement(t.Context(), tip.ID, ""); err == nil || !strings.Contains(err.Error(), "unknown") {
		t.Errorf("implement: %v", err)
	}
	r.throughout(time.Minute, func() string {
		if n := sent(r.vcs[0]); n > 0 {
			return fmt.Sprintf("%d migrations were sent", n)
		}
		return ""
	})
}
