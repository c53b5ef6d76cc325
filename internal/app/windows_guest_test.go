package app_test

import (
	"strings"
	"testing"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/sim/hyperv"
	"github.com/protip/protip/rules"
)

// downPack tells of services that should run.
const downPack = `pack: down
version: 1.0.0
description: Services that do not run.
platforms: [guest]
rules:
  - name: ServiceDown
    on: service
    when: service.failed && vm.powered_on
    severity: critical
    summary: "{{service.name}} does not run in {{vm.name}} on {{host.name}}"
    remedy: {action: none}
`

// TestWindowsServiceStops: a service inside a guest of a cluster stops, and a tip names it, its VM and host. A guest that does not answer
// is no service that failed.
func TestWindowsServiceStops(t *testing.T) {
	t.Parallel()
	r, c, _ := hotCluster(t, func(o *hyperv.Options) {
		o.Nodes[1].VMs[0].Guest = hyperv.Guest{Hostname: "quiet", OS: "Windows Server 2022 Datacenter", Endpoint: true, Services: []hyperv.Service{
			{Name: "W3SVC", State: "Running", StartMode: "Auto"},
		}}
	})
	quiet := c.VMs()[7]
	r.file("heat.yml", downPack)
	r.config["remediation"] = map[string]any{"mode": "manual"}
	r.config["sources"] = append(r.config["sources"].([]any), map[string]any{
		"name": "guests", "type": "guest", "username": hyperv.DefaultUser, "password_file": "hv.password",
		"windows":  []any{map[string]any{"host": c.GuestURL(quiet), "name": "web"}},
		"services": []any{map[string]any{"type": "windows", "names": []any{"W3SVC"}}},
	})
	r.write()
	a := r.start()
	service := inventory.ID{Source: "guests", Kind: inventory.KindService, Ref: "web/windows/W3SVC"}
	awaitState := func(state inventory.ServiceState) {
		t.Helper()
		await(t, deadline, func() string {
			if svc, ok := a.Snapshot().Service(service); !ok || svc.State != state || svc.VM.Ref != strings.ToLower(quiet) {
				return "the service is not " + string(state) + " in its VM"
			}
			return ""
		})
	}
	awaitState(inventory.ServiceRunning)
	if err := c.SetService(quiet, "W3SVC", "Stopped"); err != nil {
		t.Fatal(err)
	}
	tip := a.awaitTip("ServiceDown", service, rules.Active)
	if tip.Summary != "W3SVC does not run in quiet on hv-02" {
		t.Errorf("the tip says %q", tip.Summary)
	}
	if err := c.SetService(quiet, "W3SVC", "Running"); err != nil {
		t.Fatal(err)
	}
	a.awaitTip("ServiceDown", service, rules.Resolved)
	c.StopEndpoint(quiet)
	awaitState("")
	if tip := a.tip("ServiceDown", service); tip.State != rules.Resolved {
		t.Errorf("of a guest that does not answer the tip is %s", tip.State)
	}
}
