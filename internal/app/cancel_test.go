package app_test

import (
	"testing"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/sim"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// TestCancel: a migration that hangs is ended at a person's word, and its VM is left where it is. The rule that ordered it orders nothing
// more until the tip is another one; a person may.
func TestCancel(t *testing.T) {
	t.Parallel()
	r := newRig(t, 40, hotFleet("vc"))
	vc := r.vcs[0]
	vc.SetMishaps(func(types.ManagedObjectReference) sim.Mishap { return sim.Mishap{NeverEnds: true} })
	r.automatic("HostHot")
	r.remediation(map[string]any{"cooldown": "1s"})
	a := r.start()
	hangs := a.awaitAction("half way", func(act remediation.Action) bool {
		return act.State == remediation.Started && act.Progress >= 0.5
	})
	asked, err := a.Cancel(t.Context(), hangs.ID, "it hangs")
	if err != nil || asked.CancelBy != "operator token" || asked.CancelAt.IsZero() {
		t.Fatalf("cancel: %+v, %v", asked, err)
	}
	act := a.awaitAction("rolled back", func(act remediation.Action) bool { return act.State == remediation.RolledBack })
	if act.Error != "operator token cancelled it: The task was canceled by a user. (RequestCanceled)" || act.Fault || act.CancelSentAt.IsZero() {
		t.Errorf("cancelled, it is %+v", act)
	}
	if v, ok := a.Snapshot().VM(act.VM); !ok || v.Host != act.From || sent(vc) != 1 || vc.Calls("CancelTask") != 1 {
		t.Errorf("the VM is on %s; %d migrations were sent, %d cancelled", v.Host, sent(vc), vc.Calls("CancelTask"))
	}
	tip := a.awaitTip("HostHot", host(t, vc, "esx01"), rules.Active)
	r.throughout(act.Settle+5*interval, func() string {
		if n := len(a.actions()); n != 1 {
			return "what a person has cancelled was ordered again by itself"
		}
		return ""
	})
	vc.SetMishaps(nil)
	if _, err := a.implement(tip, "now it may"); err != nil {
		t.Errorf("implement: %v", err)
	}
	_, err = a.Cancel(t.Context(), act.ID, "")
	refused(t, "cancelling it once more", err, "it is not under way")
	if code, _ := a.post("/api/v1/actions/"+act.ID+"/cancel", ""); code != 401 {
		t.Errorf("without a token: HTTP %d", code)
	}
}
