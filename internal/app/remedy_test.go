package app_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// receiver is a webhook's other side. It keeps what it was sent and answers with status.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	bodies []string
	auth   []string
	status int
}

func newReceiver(t *testing.T, status int) *receiver {
	t.Helper()
	r := &receiver{status: status}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.bodies, r.auth = append(r.bodies, string(body)), append(r.auth, q.Header.Get("Authorization"))
		w.WriteHeader(r.status)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) calls() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.bodies)
}

// hookRig is a rig whose hot host calls the webhook on-call.
func hookRig(t *testing.T, hook *receiver) *rig {
	t.Helper()
	r := newRig(t, 30, hotFleet("vc"))
	r.file("heat.yml", strings.Replace(heatPack, "remedy: {action: rebalance-host, cpu_below: 0.65}", "remedy: {action: webhook, webhook: on-call}", 1))
	r.remediation(map[string]any{"webhooks": []any{map[string]any{
		"name": "on-call", "url": hook.URL + "/secret-path", "bearer_token_file": r.file("hook.token", "hook-word\n"),
	}}})
	return r
}

func TestWebhookByAPerson(t *testing.T) {
	t.Parallel()
	hook := newReceiver(t, http.StatusOK)
	r := hookRig(t, hook)
	a := r.start()
	tip := a.awaitTip("HostHot", host(t, r.vcs[0], "esx01"), rules.Active)
	a.still(r, 0)
	if n := hook.calls(); n != 0 {
		t.Fatalf("called %d times by itself", n)
	}
	if _, err := a.implement(tip, "look at it"); err != nil {
		t.Fatal(err)
	}
	act := a.awaitAction("done", func(act remediation.Action) bool { return act.State == remediation.Done })
	if act.Kind != remediation.WebhookCall || sent(r.vcs[0]) != 0 {
		t.Errorf("%+v, and %d migrations", act, sent(r.vcs[0]))
	}
	var told struct {
		Version, Action, By string
		Tip                 struct {
			ID, Rule, Severity, Summary string
			Object, Cluster             struct{ Source, Kind, Ref, Name string }
			Evidence                    []struct{ Value *float64 }
		}
	}
	if err := json.Unmarshal([]byte(hook.bodies[0]), &told); err != nil {
		t.Fatal(err)
	}
	if told.Version != "1" || told.Action != act.ID || told.Tip.ID != tip.ID || told.Tip.Object.Name != "esx01" || told.Tip.Cluster.Name != "prod" || len(told.Tip.Evidence) == 0 {
		t.Errorf("told %s", hook.bodies[0])
	}
	if hook.auth[0] != "Bearer hook-word" {
		t.Errorf("authorization %q", hook.auth[0])
	}
	for _, secret := range []string{"hook-word", operatorToken, "secret-path"} {
		if strings.Contains(hook.bodies[0], secret) || strings.Contains(a.log.String(), secret) {
			t.Errorf("%q is told or logged", secret)
		}
	}
	if n := hook.calls(); n != 1 {
		t.Errorf("%d calls", n)
	}
}

// TestWebhookByItself: where it is granted a webhook is called once an episode, also when it refuses, and after a restart.
func TestWebhookByItself(t *testing.T) {
	t.Parallel()
	hook := newReceiver(t, http.StatusInternalServerError)
	r := hookRig(t, hook)
	r.automatic("HostHot")
	a := r.start()
	act := a.awaitAction("failed", func(act remediation.Action) bool { return act.State == remediation.Failed })
	if !strings.Contains(act.Error, "webhook on-call answers HTTP 500") || strings.Contains(act.Error, "secret-path") || act.By != remediation.ByPolicy {
		t.Errorf("by %s: %q", act.By, act.Error)
	}
	a.stop()
	a = r.start()
	a.awaitTip("HostHot", host(t, r.vcs[0], "esx01"), rules.Active)
	a.still(r, 1)
	if n := hook.calls(); n != 1 {
		t.Errorf("%d calls in one episode", n)
	}
}

// TestRestrictKeepsPlacementsOff: while its tip lasts a host takes nothing new, also after a restart and where protip may not act, until a
// person dismisses the tip.
func TestRestrictKeepsPlacementsOff(t *testing.T) {
	t.Parallel()
	r := planRig(t, 30, calmFleet("vc"))
	r.file("plans.yml", strings.Replace(planPack, "host.memory_usage_ratio > 0.9", `host.name == "esx02" && host.cores > 0`, 1))
	delete(r.config, "remediation")
	r.write()
	a := r.start()
	full := host(t, r.vcs[0], "esx02")
	tip := a.awaitTip("Full", full, rules.Active)
	restricted := func(want bool) {
		t.Helper()
		await(t, deadline, func() string {
			rating, err := a.Place(t.Context(), "mover")
			if err != nil {
				return err.Error()
			}
			for _, h := range rating.Ratings {
				text, barred := h.Barred()
				if h.Name == "esx02" && (barred && strings.Contains(text, "takes nothing new: tip "+tip.ID)) != want {
					return fmt.Sprintf("esx02 is barred %v by %q, want %v", barred, text, want)
				}
			}
			return ""
		})
	}
	restricted(true)
	shown, err := a.Tip(t.Context(), tip.ID)
	if err != nil || !strings.HasPrefix(shown.NextCommand, "protip tips dismiss "+tip.ID) || !strings.Contains(shown.Hint, "dismiss it") {
		t.Errorf("next %q, hint %q, %v", shown.NextCommand, shown.Hint, err)
	}
	a.stop()
	a = r.start()
	restricted(true)
	if _, err := a.Dismiss(t.Context(), tip.ID, "1h", "it is needed"); err != nil {
		t.Fatal(err)
	}
	restricted(false)
}

// TestForeignBalancer has another balancer move back, at once, what protip moves by itself. No VM of protip's moves again within its
// cooldown, and after the second time the VM is left alone, which the tip, a metric and the log say, also after a restart.
func TestForeignBalancer(t *testing.T) {
	t.Parallel()
	r := newRig(t, 60, hotFleet("vc"))
	const cooldown = 3 * time.Minute
	r.remediation(map[string]any{"cooldown": "3m", "limits": map[string]any{"failures": 100}})
	r.automatic("HostHot")
	vc := r.vcs[0]
	a := r.start()
	hot, mover := host(t, vc, "esx01"), vm(t, vc, "mover")
	other := login(t, vc)
	balance := func() {
		if v, ok := a.Snapshot().VM(mover); !ok || v.Host == hot {
			return
		}
		task, err := object.NewVirtualMachine(other.Client, ref(mover)).Migrate(t.Context(), nil, object.NewHostSystem(other.Client, ref(hot)),
			types.VirtualMachineMovePriorityDefaultPriority, "")
		if err == nil {
			err = task.Wait(t.Context())
		}
		if err != nil {
			t.Logf("the other balancer: %v", err)
		}
	}
	alone := func() string {
		balance()
		if v := a.scrape().value("protip_contested_vms", "source", "vc"); v != 1 {
			return fmt.Sprintf("%v VMs are left alone\n%s", v, a.log.tail(6))
		}
		return ""
	}
	await(t, 2*deadline, alone)
	var last time.Time
	moves := 0
	all := a.actions()
	for i := len(all) - 1; i >= 0; i-- {
		act := all[i]
		if act.VM != mover || !act.Sent() {
			continue
		}
		moves++
		if !last.IsZero() && act.StartingAt.Sub(last) < cooldown {
			t.Errorf("it was moved %s after the move before", act.StartingAt.Sub(last))
		}
		last = act.EndedAt
	}
	if moves != 2 {
		t.Errorf("%d moves of it by protip, want 2", moves)
	}
	if !strings.Contains(a.log.String(), "VM is left alone") {
		t.Error("the log does not say so")
	}
	for range 2 {
		tip := a.awaitTip("HostHot", hot, rules.Active)
		await(t, deadline, func() string {
			plan, err := a.Plan(t.Context(), tip.ID)
			if err != nil {
				return err.Error()
			}
			if !strings.Contains(plan.Why, "leaves it alone until") {
				return "the tip says " + plan.Why
			}
			return ""
		})
		a.stop()
		a = r.start()
	}
	if n := len(a.actions()); n != len(all) {
		t.Errorf("%d actions more after it was left alone", n-len(all))
	}
}

// TestWindowClosed: outside of its windows the agent acts at a person's wish only.
func TestWindowClosed(t *testing.T) {
	t.Parallel()
	r := newRig(t, 30, hotFleet("vc"))
	day := strings.ToLower(r.clock.Now().UTC().AddDate(0, 0, 3).Weekday().String()[:3])
	r.remediation(map[string]any{"windows": []any{map[string]any{"days": []any{day}, "from": "00:00", "to": "24:00"}}})
	r.automatic("HostHot")
	a := r.start()
	tip := a.awaitTip("HostHot", host(t, r.vcs[0], "esx01"), rules.Active)
	a.still(r, 0)
	if !strings.Contains(a.log.String(), "outside of the maintenance windows") {
		t.Error("the log does not say why nothing goes by itself")
	}
	if _, err := a.implement(tip, ""); err != nil {
		t.Fatal(err)
	}
	a.awaitAction("done", func(act remediation.Action) bool { return act.State == remediation.Done })
}

// TestOnlyCritical: below the severity that is configured nothing is done, for a person neither.
func TestOnlyCritical(t *testing.T) {
	t.Parallel()
	r := newRig(t, 30, hotFleet("vc"))
	r.remediation(map[string]any{"clusters": []any{map[string]any{"source": "vc", "severity": "critical"}}})
	r.automatic("HostHot")
	a := r.start()
	tip := a.awaitTip("HostHot", host(t, r.vcs[0], "esx01"), rules.Active)
	a.still(r, 0)
	_, err := a.implement(tip, "")
	refused(t, "implement", err, "critical or worse")
}
