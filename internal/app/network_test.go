package app_test

import (
	"fmt"
	"testing"

	"github.com/protip/protip/internal/placement"
	"github.com/protip/protip/internal/sim"
	"github.com/protip/protip/remediation"
)

// TestTheEmptiestHostLacksTheNetwork: it is not chosen while it does, and the vCenter is never asked to move a VM there.
func TestTheEmptiestHostLacksTheNetwork(t *testing.T) {
	t.Parallel()
	fleet := hotFleet("vc")
	fleet.Networks = []sim.Network{{Name: "prod", Distributed: true, Hosts: []string{"esx01", "esx02"}}, {Name: "lab"}}
	hosts := fleet.Clusters[0].Hosts
	hosts[2].VMs = nil // esx03 runs nothing
	r := newRig(t, 30, fleet)
	r.automatic("HostHot")
	a := r.start()
	a.awaitUp("vc")
	// rated waits until esx03 is barred for the network, or rated best.
	rated := func(barred bool) {
		t.Helper()
		await(t, deadline, func() string {
			answer, err := a.Place(t.Context(), "idle-2")
			if err != nil {
				return err.Error()
			}
			rating, ok := placement.Of(answer.Ratings, host(t, r.vcs[0], "esx03"))
			network := false
			for _, why := range rating.Reasons {
				network = network || why.Bars && why.Code == placement.CodeNetwork && why.Text == "network prod, which the VM is attached to, is not on esx03"
			}
			if best := answer.Ratings[0].Name == "esx03"; !ok || network != barred || best == barred {
				return fmt.Sprintf("esx03 of %d hosts: %s", len(answer.Ratings), rating.Words())
			}
			return ""
		})
	}
	rated(true)
	act := a.awaitAction("recovered", recovered)
	if act.VMName != "mover" || act.To != host(t, r.vcs[0], "esx02") {
		t.Errorf("the action is %+v", act)
	}
	for _, act := range a.actions() {
		if act.State != remediation.Done {
			t.Errorf("%s was tried: %s %s", act.VMName, act.State, act.Error)
		}
	}

	// It gets the network.
	ref, _ := r.vcs[0].Host("esx03")
	prod, _ := r.vcs[0].Network("prod")
	lab, _ := r.vcs[0].Network("lab")
	if err := r.vcs[0].SetNetworks(ref, prod, lab); err != nil {
		t.Fatal(err)
	}
	rated(false)
}
