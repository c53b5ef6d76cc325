package app_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/sim"
	"github.com/protip/protip/internal/web/client"
)

func TestNamesCostNothing(t *testing.T) {
	t.Parallel()
	names := map[string]string{ // as the vCenter has them, and as it can say them in XML
		`say "hello"`:                 ``,
		`O'Brien & <sons>`:            ``,
		"two\nlines":                  ``,
		`C:\temp{vm="x"} 1`:           ``,
		"\xff\xfeinvalid":             "\ufffd\ufffdinvalid",
		"bell\x07":                    "bell\ufffd",
		strings.Repeat("x", 79) + "é": ``,
		strings.Repeat("é", 80):       ``,
		"# HELP virt_vm_info no":      ``,
		"a%2fb":                       "a/b",
		"łódź-☃":                      ``,
		" ":                           ``,
		"vc/vm/vm-1":                  ``,
		"..":                          ``,
		"\u202egnp.evil\u200b\u0000":  "\u202egnp.evil\u200b\ufffd",
	}
	fleet := calmFleet("vc")
	cluster := &fleet.Clusters[0]
	for name := range names {
		cluster.Hosts[1].VMs = append(cluster.Hosts[1].VMs, sim.VM{Name: name, GuestHostname: name})
	}
	twin := sim.VM{Name: `the "same"`}
	cluster.Hosts[1].VMs = append(cluster.Hosts[1].VMs, twin)
	cluster.Hosts[2].VMs = append(cluster.Hosts[2].VMs, twin)
	cluster.Hosts[1].Name = "esx\"02\"\n"
	r := newRig(t, 40, fleet)
	vc := r.vcs[0]
	a := r.start()
	a.awaitUp("vc")

	s := a.scrape()
	all := vc.VMs()
	for _, family := range []string{"virt_vm_info", "virt_vm_powered_on", inventory.VMCPUUsage.String(), inventory.VMCPUContention.String()} {
		if n := s.count(family); n != len(all) {
			t.Errorf("%s has %d series of %d VMs", family, n, len(all))
		}
		for _, ref := range all {
			if n := s.count(family, "vm_id", ref.Value); n != 1 {
				t.Errorf("%s has %d series of %s", family, n, ref.Value)
			}
		}
	}
	for name, said := range names {
		if said == "" {
			said = name
		}
		ref, ok := vc.VM(name)
		if !ok {
			t.Fatalf("the simulated vCenter has no VM %q", name)
		}
		if n := s.count("virt_vm_info", "vm", said, "vm_id", ref.Value, "host", "esx\"02\"\n"); n != 1 {
			t.Errorf("virt_vm_info has %d series of %q, which is %s", n, said, ref.Value)
		}
		placed, err := a.Place(t.Context(), said)
		if err != nil || placed.VM.ID.Ref != ref.Value || len(placed.Ratings) != 3 {
			t.Errorf("place %q: %s, %d ratings, %v", said, placed.VM.ID, len(placed.Ratings), err)
		}
	}

	_, err := a.Place(t.Context(), twin.Name)
	var refused *client.Error
	if !errors.As(err, &refused) || refused.Type != "ambiguous" || len(refused.Candidates) != 2 {
		t.Fatalf("place of a name that two VMs have: %v", err)
	}
	hosts := map[string]bool{}
	for _, c := range refused.Candidates {
		hosts[c.HostName] = true
		placed, err := a.Place(t.Context(), c.ID.String())
		if err != nil || placed.VM.ID != c.ID {
			t.Errorf("place %s: %s, %v", c.ID, placed.VM.ID, err)
		}
	}
	if len(hosts) != 2 {
		t.Errorf("candidates are on %v", fmt.Sprint(hosts))
	}
}
