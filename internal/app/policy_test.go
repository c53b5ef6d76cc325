package app_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/app"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/sim"
	"github.com/protip/protip/internal/store"
	"github.com/protip/protip/internal/web/client"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// still fails the test if a migration is sent, or an action made, within a few evaluations.
func (a *agent) still(r *rig, actions int) {
	a.t.Helper()
	calls := 0
	for _, vc := range r.vcs {
		calls += sent(vc)
	}
	r.throughout(5*interval, func() string {
		now := 0
		for _, vc := range r.vcs {
			now += sent(vc)
		}
		if n := len(a.actions()); n != actions || now != calls {
			return fmt.Sprintf("%d actions were made and %d migrations sent, want no more", n-actions, now-calls)
		}
		return ""
	})
}

// refused fails the test unless err is the agent's refusal with all of the words.
func refused(t *testing.T, what string, err error, words ...string) {
	t.Helper()
	var no *client.Error
	if !errors.As(err, &no) {
		t.Errorf("%s: %v, want a refusal", what, err)
		return
	}
	for _, word := range words {
		if !strings.Contains(no.Text, word) {
			t.Errorf("%s is refused with %q, want %q in it", what, no.Text, word)
		}
	}
}

// implement implements an active tip. On a slow machine a number may be stale for a moment, and the tip is then unknown.
func (a *agent) implement(tip rules.Tip, why string) (actions []remediation.Action, err error) {
	a.t.Helper()
	await(a.t, deadline, func() string {
		actions, err = a.Implement(a.t.Context(), tip.ID, why)
		if err != nil && strings.Contains(err.Error(), "is unknown, not active") {
			return err.Error()
		}
		return ""
	})
	return actions, err
}

func TestClusterThatDRSDrives(t *testing.T) {
	t.Parallel()
	fleet := hotFleet("vc")
	fleet.Clusters[0].DRS.Behavior = types.DrsBehaviorFullyAutomated
	r := newRig(t, 30, fleet)
	r.automatic("HostHot")
	a := r.start()
	tip := a.awaitTip("HostHot", host(t, r.vcs[0], "esx01"), rules.Active)
	if !tip.DRS {
		t.Error("the tip is not marked as DRS's")
	}
	a.still(r, 0)
	_, err := a.implement(tip, "")
	refused(t, "implement", err, "DRS drives cluster prod", "override_drs")

	r.remediation(map[string]any{"override_drs": []any{"vc/prod"}})
	if err := a.Client.Reload(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	a.awaitAction("done", func(act remediation.Action) bool { return act.State == remediation.Done })
}

func TestManualWaitsForAPerson(t *testing.T) {
	t.Parallel()
	r := newRig(t, 30, hotFleet("vc"))
	delete(r.config, "web")
	r.write()
	a := r.start()
	hot := host(t, r.vcs[0], "esx01")
	tip := a.awaitTip("HostHot", hot, rules.Active)
	a.still(r, 0)

	implement := "/api/v1/tips/" + tip.ID + "/implement"
	if code, text := a.post(implement, operatorToken); code != http.StatusForbidden || !strings.Contains(text, "web.operator_token_file") {
		t.Errorf("without a token configured: HTTP %d: %s", code, text)
	}
	r.config["web"] = map[string]any{"operator_token_file": "operator.token"}
	r.write()
	if err := a.App.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"", "open", operatorToken + "!"} {
		if code, text := a.post(implement, token); code != http.StatusUnauthorized {
			t.Errorf("with the token %q: HTTP %d: %s", token, code, text)
		}
	}
	a.still(r, 0)

	// A pause stops a person too, and a restart does not end it.
	if err := a.Pause(t.Context(), "vc", "firmware"); err != nil {
		t.Fatal(err)
	}
	_, err := a.implement(tip, "")
	refused(t, "implement while paused", err, "paused by operator token", "firmware")
	a.stop()
	a = r.start()
	status, err := a.Status(t.Context())
	if err != nil || !slices.Equal(status.PausedSources, []string{"vc"}) || status.Paused {
		t.Errorf("after the restart paused are %v (all: %v), %v", status.PausedSources, status.Paused, err)
	}
	again := a.awaitTip("HostHot", hot, rules.Active)
	if again.Episode != tip.Episode {
		t.Errorf("the restart made episode %d of %d", again.Episode, tip.Episode)
	}
	await(t, deadline, func() string { // the tip is as it was stored until the source is listed
		_, err = a.implement(tip, "")
		if err != nil && strings.Contains(err.Error(), "paused by") {
			return ""
		}
		return fmt.Sprintf("implement after the restart, paused: %v", err)
	})
	if n := a.scrape().value("protip_remediation_paused", "source", "vc"); n != 1 {
		t.Errorf("protip_remediation_paused is %v", n)
	}
	a.still(r, 0)

	if err := a.Resume(t.Context(), "vc", "done"); err != nil {
		t.Fatal(err)
	}
	actions, err := a.implement(tip, "it is time")
	if err != nil || len(actions) != 1 || actions[0].By != "operator token" {
		t.Fatalf("implement: %+v, %v", actions, err)
	}
	act := a.awaitAction("recovered", recovered)
	if sent(r.vcs[0]) != 1 || act.ID != actions[0].ID {
		t.Errorf("%d migrations were sent, the last action is %+v", sent(r.vcs[0]), act)
	}
	_, err = a.implement(tip, "")
	refused(t, "implementing what is over", err, "resolved")
}

func TestPauseStopsWhatWouldGoByItself(t *testing.T) {
	t.Parallel()
	r := newRig(t, 30, hotFleet("vc"))
	r.automatic("HostHot")
	a := r.start()
	await(t, deadline, func() string { return errText(a.Pause(t.Context(), "", "night")) })
	a.awaitTip("HostHot", host(t, r.vcs[0], "esx01"), rules.Active)
	a.still(r, 0)
	a.stop()
	a = r.start()
	a.awaitTip("HostHot", host(t, r.vcs[0], "esx01"), rules.Active)
	a.awaitUp("vc")
	a.still(r, 0)
	if err := a.Resume(t.Context(), "", ""); err != nil {
		t.Fatal(err)
	}
	a.awaitAction("done", func(act remediation.Action) bool { return act.State == remediation.Done })
}

func errText(err error) string {
	if err != nil {
		return err.Error()
	}
	return ""
}

func TestDryRun(t *testing.T) {
	t.Parallel()
	r := newRig(t, 30, hotFleet("vc"))
	r.automatic("HostHot")
	r.remediation(map[string]any{"dry_run": true})
	vc := r.vcs[0]
	a := r.start()
	act := a.awaitAction("done", func(act remediation.Action) bool { return act.State.Final() })
	if act.State != remediation.Done || !act.DryRun || act.Verified || act.Outcome != "" || act.TaskRef != "" {
		t.Errorf("dry run ended %+v", act)
	}
	checks := vc.Calls("CheckMigrate_Task")
	if checks != 1 {
		t.Errorf("the platform was asked %d times", checks)
	}
	a.still(r, 1)
	if n := vc.Calls("CheckMigrate_Task"); n != checks || sent(vc) != 0 {
		t.Errorf("the platform was asked %d times more, %d migrations were sent", n-checks, sent(vc))
	}
	if now := a.tip("HostHot", act.From); now.State != rules.Active {
		t.Errorf("the tip of a dry run is %s", now.State)
	}
	if n := a.scrape().value("protip_actions_total", "state", "dry_run"); n != 1 {
		t.Errorf("%v dry runs counted", n)
	}

	// It was no move: once dry runs are over, the same tip's remedy goes at once.
	a.stop()
	r.remediation(map[string]any{"dry_run": false})
	a = r.start()
	moved := a.awaitAction("recovered", recovered)
	if moved.ID == act.ID || moved.TipID != act.TipID || moved.DryRun {
		t.Errorf("after the dry run: %+v", moved)
	}
}

func TestDryRunThatThePlatformRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t, 30, hotFleet("vc"))
	r.automatic("HostHot")
	r.remediation(map[string]any{"dry_run": true})
	vc := r.vcs[0]
	vc.Inject(sim.Fault{Method: "CheckMigrate_Task", Fault: &types.NoPermission{PrivilegeId: "Resource.HotMigrate"}})
	a := r.start()
	act := a.awaitAction("failed", func(act remediation.Action) bool { return act.State == remediation.Failed })
	if !act.DryRun || !strings.Contains(act.Error, "nothing was sent") || !act.StartingAt.IsZero() {
		t.Errorf("dry run ended %+v", act)
	}
	a.still(r, 1)
}

func TestChangedPackFallsBackToManual(t *testing.T) {
	t.Parallel()
	r := newRig(t, 30, hotFleet("vc"))
	r.automatic("HostHot")
	granted := r.sum("heat.yml")
	r.file("heat.yml", heatPack+"# changed\n")
	a := r.start()
	tip := a.awaitTip("HostHot", host(t, r.vcs[0], "esx01"), rules.Active)
	a.still(r, 0)
	for _, words := range []string{"changed since it was allowed to act by itself", granted[:12], r.sum("heat.yml")[:12], tip.ID} {
		if !strings.Contains(a.log.String(), words) {
			t.Errorf("the log does not say %q", words)
		}
	}
	if n := strings.Count(a.log.String(), "changed since it was allowed"); n != 1 {
		t.Errorf("the log says it %d times", n)
	}
	if _, err := a.implement(tip, ""); err != nil {
		t.Errorf("a person may not: %v", err)
	}
	a.awaitAction("done", func(act remediation.Action) bool { return act.State == remediation.Done })
}

func TestSecondAgentOnADirectory(t *testing.T) {
	t.Parallel()
	r := newRig(t, 30, calmFleet("vc"))
	a := r.start()
	_, err := app.New(t.Context(), app.Options{ConfigFile: r.configFile(), DataDir: r.dataDir(), Clock: clock.New(1), Log: discard()})
	if !errors.Is(err, store.ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("PID %d", os.Getpid())) || !strings.Contains(err.Error(), r.dataDir()) {
		t.Errorf("a second agent is refused with: %v", err)
	}
	a.awaitUp("vc") // and the first goes on
	a.stop()
	r.start().awaitUp("vc")
}

func TestNoRemediationSectionBuildsNothingThatActs(t *testing.T) {
	t.Parallel()
	r := newRig(t, 30, hotFleet("vc"))
	delete(r.config, "remediation")
	r.write()
	a := r.start()
	tip := a.awaitTip("HostHot", host(t, r.vcs[0], "esx01"), rules.Active)
	for name := range a.scrape() {
		if strings.HasPrefix(name, "protip_actions") || strings.HasPrefix(name, "protip_remediation") {
			t.Errorf("%s is there: an engine was built", name)
		}
	}
	_, err := a.implement(tip, "")
	refused(t, "implement", err, "remediation section")
	refused(t, "pause", a.Pause(t.Context(), "", ""), "remediation section")
	a.still(r, 0)
	vc := r.vcs[0]
	if vc.Logins() != 1 || vc.Calls("CheckMigrate_Task") != 0 {
		t.Errorf("%d logins and %d checks", vc.Logins(), vc.Calls("CheckMigrate_Task"))
	}
}

func TestModeOffAndNoCredential(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, words string
		change      func(*rig)
	}{
		{"mode off", "remediation is off", func(r *rig) { r.remediation(map[string]any{"mode": "off"}) }},
		{"no acting credential", "no acting credential", func(r *rig) {
			delete(r.config["sources"].([]any)[0].(map[string]any), "acting")
			r.write()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 30, hotFleet("vc"))
			r.automatic("HostHot")
			c.change(r)
			a := r.start()
			tip := a.awaitTip("HostHot", host(t, r.vcs[0], "esx01"), rules.Active)
			_, err := a.implement(tip, "")
			refused(t, "implement", err, c.words)
			a.still(r, 0)
		})
	}
}

func TestBreaker(t *testing.T) {
	t.Parallel()
	r := newRig(t, 30, hotFleet("vc"))
	r.automatic("HostHot")
	r.remediation(map[string]any{"cooldown": "1s", "limits": map[string]any{"failures": 2}})
	vc := r.vcs[0]
	vc.SetMishaps(func(types.ManagedObjectReference) sim.Mishap {
		return sim.Mishap{FailAt: 50, Fault: &types.InvalidHostState{}}
	})
	a := r.start()
	await(t, deadline, func() string {
		if a.scrape().value("protip_remediation_breaker_open") != 1 {
			return "the breaker is closed"
		}
		return ""
	})
	// What protip itself held back, for want of fresh figures, is no fault.
	carriedOut := func() []remediation.Action {
		return slices.DeleteFunc(a.actions(), func(act remediation.Action) bool { return !act.Sent() })
	}
	actions := carriedOut()
	if len(actions) != 2 || sent(vc) != 2 {
		t.Fatalf("%d actions and %d migrations opened it, want 2", len(actions), sent(vc))
	}
	for _, act := range actions {
		if act.State != remediation.RolledBack || !act.Fault || !strings.Contains(act.Error, "not allowed in the current state of the host") {
			t.Errorf("action ended %s: %s", act.State, act.Error)
		}
		if v, _ := a.Snapshot().VM(act.VM); v.Host != act.From {
			t.Errorf("%s is on %s", act.VMName, v.Host)
		}
	}
	a.awaitTip("HostHot", actions[0].From, rules.Active)
	r.throughout(6*interval, func() string { // longer than what a remedy has to settle
		if sent(vc) != 2 || len(carriedOut()) != 2 {
			return "it goes on with the breaker open"
		}
		return ""
	})
	status, err := a.Status(t.Context())
	if err != nil || !strings.Contains(status.BreakerOpen, "2 in a row") {
		t.Errorf("status says of the breaker: %q, %v", status.BreakerOpen, err)
	}

	// It stays open over a restart, and a person closes it.
	a.stop()
	vc.SetMishaps(nil)
	a = r.start()
	a.awaitUp("vc")
	a.awaitTip("HostHot", actions[0].From, rules.Active)
	a.still(r, 2)
	if err := a.Resume(t.Context(), "", "the switch is mended"); err != nil {
		t.Fatal(err)
	}
	a.awaitAction("recovered", recovered)
	if n := a.scrape().value("protip_remediation_breaker_open"); n != 0 || sent(vc) != 3 {
		t.Errorf("afterwards protip_remediation_breaker_open is %v, %d migrations", n, sent(vc))
	}
}

func TestSourceThatIsAnothersVCenter(t *testing.T) {
	t.Parallel()
	r := newRig(t, 30, calmFleet("vc"))
	r.config["sources"] = append(r.config["sources"].([]any), r.source("again", r.vcs[0]))
	r.write()
	a := r.start()
	var up, refused inventory.Source
	await(t, deadline, func() string {
		for _, src := range a.Snapshot().Sources() {
			if src.Up {
				up = src
			} else if src.Error != "" {
				refused = src
			}
		}
		if up.Name == "" || refused.Name == "" {
			return fmt.Sprintf("up is %q, refused %q", up.Name, refused.Name)
		}
		return ""
	})
	if !strings.Contains(refused.Error, fmt.Sprintf("%q is the same platform as source %q", refused.Name, up.Name)) {
		t.Errorf("it is refused with %q", refused.Error)
	}
	a.awaitUp(up.Name)
	s := a.scrape()
	if n := s.value("protip_source_errors_total", "source", refused.Name, "kind", "duplicate"); n < 1 {
		t.Errorf("protip_source_errors_total of duplicate is %v", n)
	}
	if s.value("protip_source_up", "source", refused.Name) != 0 || s.count("virt_vm_info") != 4 || s.count("virt_vm_info", "source", up.Name) != 4 {
		t.Error("the same VMs are counted twice")
	}
	r.throughout(3*interval, func() string {
		if src, _ := a.Snapshot().Source(up.Name); !src.Up {
			return "the first is down: " + src.Error
		}
		return ""
	})
}

func TestWrongPasswordIsNoStorm(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1200, hotFleet("vc"))
	vc := r.vcs[0]
	r.file("vc.password", "wrong")
	a := r.start()
	began := r.clock.Now()
	for r.clock.Now().Before(began.Add(time.Hour)) {
		time.Sleep(10 * time.Millisecond)
	}
	if n := vc.Logins(); n < 2 || n > 13 {
		t.Errorf("%d log-ins in an hour", n)
	}
	s := a.scrape()
	if n := s.value("protip_source_errors_total", "source", "vc", "kind", "credentials"); n < 2 {
		t.Errorf("protip_source_errors_total of credentials is %v", n)
	}
	if up := s.value("protip_source_up", "source", "vc"); up != 0 {
		t.Errorf("protip_source_up is %v", up)
	}
	if src, _ := a.Snapshot().Source("vc"); !strings.Contains(src.Error, "user name or password refused") {
		t.Errorf("the source's error is %q", src.Error)
	}
	if strings.Contains(a.log.String(), "wrong") {
		t.Error("the password is in the log")
	}

	// A corrected file is read without a restart.
	word, _ := vc.Login().User.Password()
	r.file("vc.password", word)
	await(t, deadline, func() string {
		if src, _ := a.Snapshot().Source("vc"); !src.Up {
			return "the source is down: " + src.Error
		}
		return ""
	})
}
