package rules

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/protip/protip/internal/inventory"
)

var shop = inventory.ID{Source: "guests", Kind: inventory.KindService, Ref: "web/shop"}

// serviceRule is a pack with one rule on services.
func serviceRule(when string) string {
	return fmt.Sprintf(`pack: p
version: 1.0.0
description: d
rules:
  - name: R
    on: service
    when: '%s'
    severity: warning
    summary: "{{service.name}} in {{vm.name}} on {{host.name}}"
    remedy: {action: migrate}
`, when)
}

// served is a slow service, seen by one source, in a VM of another; both told all at noon.
type served struct {
	service inventory.Service
	vm      inventory.VM
	latency float64 // 0: none
	vcDown  bool
}

func newServed() *served {
	return &served{
		service: inventory.Service{ID: shop, Name: "shop", VM: id(inventory.KindVM, "v"), Type: "http", State: inventory.ServiceRunning},
		vm:      guest("v", "h"), latency: 0.8,
	}
}

func (s *served) snapshot(t *testing.T, now time.Time) *inventory.Snapshot {
	t.Helper()
	fleet := inventory.NewFleet(
		inventory.Source{Name: "guests", Platform: "guest", Interval: interval}, inventory.Source{Name: "vc", Platform: "vsphere", Interval: interval},
	)
	apply := func(d inventory.Delta, at time.Time) {
		if _, err := fleet.Apply(d, at); err != nil {
			t.Fatal(err)
		}
	}
	apply(inventory.Delta{
		Source: "vc", Begin: true, Synced: true,
		Clusters: []inventory.Cluster{cluster("c", false)}, Hosts: []inventory.Host{host("h", "c")}, VMs: []inventory.VM{s.vm},
		Samples: []inventory.SampleSet{hostLoad("h", noon, 0.3, 0.01)},
	}, noon)
	if s.vcDown {
		fleet.Down("vc", errors.New("down"))
	}
	d := inventory.Delta{Source: "guests", Begin: true, Synced: true, Services: []inventory.Service{s.service}}
	if s.latency > 0 {
		d.Samples = []inventory.SampleSet{sample(shop, now, map[inventory.Metric]float64{inventory.ServiceLatency: s.latency})}
	}
	apply(d, now)
	return fleet.Snapshot()
}

func TestServiceRules(t *testing.T) {
	const slow = "service.latency_seconds > 0.5"
	later := noon.Add(10 * interval)
	for _, tc := range []struct {
		name   string
		when   string
		now    time.Time
		change func(*served)
		want   Verdict
		why    string
	}{
		{"slow", slow, noon, func(*served) {}, True, ""},
		{"slow on a calm host", slow + " && host.cpu_usage_ratio < 0.5 && cluster.name == \"c\"", noon, func(*served) {}, True, ""},
		{"fast", slow, noon, func(s *served) { s.latency = 0.1 }, False, ""},
		{"never measured", slow, noon, func(s *served) { s.latency = 0 }, Undecided, ""},
		{"in a VM that nobody knows", slow, noon, func(s *served) { s.service.VM = inventory.ID{} }, True, ""},
		{"in a VM that nobody knows, and asked for it", slow + " && vm.powered_on", noon, func(s *served) { s.service.VM = inventory.ID{} }, Undecided, ""},
		{"its vCenter answers no more", slow, later, func(s *served) { s.vcDown = true }, True, ""},
		{"its vCenter answers no more, and asked for the VM", slow + " && vm.powered_on", later, func(s *served) { s.vcDown = true }, Undecided, ""},
		{"its vCenter's samples are stale", slow + " && host.cpu_usage_ratio < 0.5", later, func(*served) {}, Undecided, ""},
		{"its state is not known", "service.failed", noon, func(s *served) { s.service.State = "" }, Undecided, ""},
		{"it failed", "service.failed && !service.running", noon, func(s *served) { s.service.State = inventory.ServiceFailed }, True, ""},
		{"it was stopped", "!service.running && !service.failed", noon, func(s *served) { s.service.State = inventory.ServiceStopped }, True, ""},
		{"latency of one that was stopped", slow, noon, func(s *served) { s.service.State = inventory.ServiceStopped }, False, "the service is stopped"},
		{"in a VM that is off", "service.failed", noon, func(s *served) {
			s.service.State, s.vm.Power = inventory.ServiceFailed, inventory.PowerOff
		}, False, "the VM is powered off"},
		{"in a VM that was off when last seen", "service.failed", later, func(s *served) {
			s.service.State, s.vm.Power, s.vcDown = inventory.ServiceFailed, inventory.PowerOff, true
		}, True, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newServed()
			tc.change(s)
			f := one(t, mustLoad(t, serviceRule(tc.when)), s.snapshot(t, tc.now), tc.now)
			if f.When != tc.want || f.Why != tc.why || f.Err != nil {
				t.Errorf("%s, %q (%v), want %s, %q", f.When, f.Why, f.Err, tc.want, tc.why)
			}
		})
	}
}

// TestServiceTipNamesAll: whoever reads the tip knows the service, its VM and its host.
func TestServiceTipNamesAll(t *testing.T) {
	set := mustLoad(t, serviceRule("service.latency_seconds > 0.5"))
	snap := newServed().snapshot(t, noon)
	findings, _ := set.Eval(Input{Snapshot: snap, Now: noon})
	tips, _ := Step(nil, Turn{Set: set, Snapshot: snap, Findings: findings, Now: noon})
	if len(tips) != 1 {
		t.Fatalf("%d tips, want 1", len(tips))
	}
	tip := tips[0]
	want := Place{VM: id(inventory.KindVM, "v"), VMName: "v", Host: id(inventory.KindHost, "h"), HostName: "h"}
	if tip.Object != shop || tip.Name != "shop" || tip.Place == nil || *tip.Place != want ||
		tip.Cluster != id(inventory.KindCluster, "c") || tip.Summary != "shop in v on h" {
		t.Errorf("tip is %+v, place %+v", tip, tip.Place)
	}
}

func TestRemediesOfServices(t *testing.T) {
	text := serviceRule("service.failed")
	mustLoad(t, strings.Replace(text, "{action: migrate}", "{action: rebalance-host, cpu_below: 0.5}", 1))
}
