package remediation_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/store"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/remediation/remediationtest"
)

const (
	interval = 20 * time.Second
	settle   = 2 * time.Minute
	took     = 30 * time.Second // a migration
)

// world is a source vc with one cluster of three hosts, VMs vm-0 to vm-9 on host-1, and an engine that may act on it.
type world struct {
	*testing.T
	fleet    *inventory.Fleet
	clock    *clock.Clock
	store    *store.Store
	platform *remediationtest.Platform
	registry *prometheus.Registry
	options  remediation.Options
	engine   *remediation.Engine
	stop     func()
	silent   atomic.Bool // no new samples

	mu      sync.Mutex
	steps   []string // of all actions, as notified
	verdict func(remediation.Action) (remediation.Outcome, bool)
	recheck error
}

func id(kind inventory.Kind, ref string) inventory.ID {
	return inventory.ID{Source: "vc", Kind: kind, Ref: ref}
}

func host(n int) inventory.ID { return id(inventory.KindHost, fmt.Sprintf("host-%d", n)) }
func vm(n int) inventory.ID   { return id(inventory.KindVM, fmt.Sprintf("vm-%d", n)) }

// inBubble runs a test in a world of its own, where time passes only when everybody waits.
func inBubble(t *testing.T, f func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		defer func() { w.stop() }() // also when f gives up: the engine's clock would tick for ever
		f(w)
		for action, n := range w.platform.Calls() {
			if n > 1 {
				t.Errorf("%d migration calls for action %s", n, action)
			}
		}
	})
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, clock: clock.New(1), registry: prometheus.NewRegistry()}
	w.fleet = inventory.NewFleet(inventory.Source{Name: "vc", Platform: "test", Interval: interval})
	cluster := id(inventory.KindCluster, "c")
	d := inventory.Delta{Source: "vc", Begin: true, Synced: true, Clusters: []inventory.Cluster{{ID: cluster, Name: "prod"}}}
	for n := 1; n <= 3; n++ {
		d.Hosts = append(d.Hosts, inventory.Host{
			ID: host(n), Name: fmt.Sprintf("esx-%d", n), Cluster: cluster,
			Connection: inventory.Connected, Power: inventory.PowerOn, Cores: 16, CPUHertz: 40e9, MemoryBytes: 1 << 38,
		})
	}
	w.platform = remediationtest.NewPlatform(took, w.show)
	for n := range 10 {
		d.VMs = append(d.VMs, w.machine(n, host(1)))
		w.platform.Put(vm(n), host(1))
	}
	w.apply(d)
	w.sample()

	var err error
	if w.store, err = store.Open(t.Context(), filepath.Join(t.TempDir(), "data")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.store.Close() })
	w.options = remediation.Options{
		Journal: w.store, Memory: w.store, Clock: w.clock, Snapshot: w.fleet.Snapshot, Owner: "agent-1",
		Executors: map[string]remediation.Executor{"vc": remediationtest.Executor{API: w.platform, Every: time.Second}},
		Recheck:   func(remediation.Action) error { w.mu.Lock(); defer w.mu.Unlock(); return w.recheck },
		Judge:     w.judge,
		Notify:    w.notify,
	}
	return w
}

func (w *world) machine(n int, on inventory.ID) inventory.VM {
	return inventory.VM{
		ID: vm(n), Name: fmt.Sprintf("web-%d", n), Host: on, Connection: inventory.Connected, Power: inventory.PowerOn,
		VCPUs: 2, MemoryBytes: 1 << 32,
	}
}

func (w *world) apply(d inventory.Delta) []inventory.Change {
	changes, err := w.fleet.Apply(d, w.clock.Now())
	if err != nil {
		w.Error(err)
	}
	return changes
}

func (w *world) sample() {
	d := inventory.Delta{Source: "vc"}
	for n := 1; n <= 3; n++ {
		d.Samples = append(d.Samples, inventory.SampleSet{ID: host(n), At: w.clock.Now().UnixMilli(), Values: []inventory.Value{
			{Metric: inventory.HostCPUUsage, Value: 1e9}, {Metric: inventory.HostMemoryUsage, Value: 1 << 30},
		}})
	}
	w.apply(d)
}

// show is the collector's part: the inventory and then the engine learn of a move.
func (w *world) show(id, from, to inventory.ID) {
	var n int
	if _, err := fmt.Sscanf(id.Ref, "vm-%d", &n); err != nil {
		w.Error(err)
	}
	changes := w.apply(inventory.Delta{Source: "vc", VMs: []inventory.VM{w.machine(n, to)}})
	if w.engine != nil {
		w.engine.Observe(changes)
	}
}

// start runs an engine, as a new process would: it knows what is in the store and nothing else.
func (w *world) start() {
	w.Helper()
	w.registry = prometheus.NewRegistry()
	w.options.Registerer = w.registry
	engine, err := remediation.New(w.options)
	if err != nil {
		w.Fatal(err)
	}
	w.engine = engine
	ctx, cancel := context.WithCancel(w.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := engine.Run(ctx); err != nil {
			w.Error(err)
		}
	})
	running.Go(func() {
		for w.clock.Sleep(ctx, interval) == nil {
			if !w.silent.Load() {
				w.sample()
			}
		}
	})
	w.stop = func() { cancel(); running.Wait() }
}

func (w *world) judge(a remediation.Action) (remediation.Outcome, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.verdict == nil {
		return "", false
	}
	return w.verdict(a)
}

func (w *world) says(o remediation.Outcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.verdict = func(remediation.Action) (remediation.Outcome, bool) { return o, true }
}

func (w *world) notify(a remediation.Action) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.steps = append(w.steps, fmt.Sprintf("%s %s", a.VMName, a.State))
}

// move is a plan's move of one VM from host 1.
func (w *world) move(n, to int) remediation.Action {
	return remediation.Action{
		TipID: "tip", Cluster: id(inventory.KindCluster, "c"), Kind: remediation.LiveMigration, Settle: settle,
		VM: vm(n), VMName: fmt.Sprintf("web-%d", n), From: host(1), FromName: "esx-1", To: host(to), ToName: fmt.Sprintf("esx-%d", to),
	}
}

func (w *world) submit(by string, plan ...remediation.Action) []string {
	w.Helper()
	stored, err := w.engine.Submit(w.Context(), plan, by, "test")
	if err != nil {
		w.Fatal(err)
	}
	ids := make([]string, len(stored))
	for i, a := range stored {
		ids[i] = a.ID
	}
	return ids
}

// after lets time pass and everything settle.
func (w *world) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// stored is the journal's word.
func (w *world) stored(id string) remediation.Action {
	w.Helper()
	got, err := w.store.Actions(w.Context(), remediation.Filter{ID: id})
	if err != nil || len(got) != 1 {
		w.Fatalf("action %s: %v, %v", id, got, err)
	}
	return got[0]
}

func (w *world) want(id string, state remediation.State, errorHas string) remediation.Action {
	w.Helper()
	a := w.stored(id)
	if a.State != state || !strings.Contains(a.Error, errorHas) || (errorHas == "") != (a.Error == "") {
		w.Fatalf("action of %s is %s (%q), want %s with %q; history:\n%s", a.VMName, a.State, a.Error, state, errorHas, w.history(id))
	}
	return a
}

func (w *world) history(id string) string {
	h, err := w.store.History(w.Context(), id)
	if err != nil {
		return err.Error()
	}
	text := ""
	for _, t := range h {
		text += fmt.Sprintf("%s -> %s  fence %d  %s\n", t.From, t.To, t.Fence, t.Note)
	}
	return text
}

func (w *world) calls(id string, want int) {
	w.Helper()
	if got := w.platform.Calls()[id]; got != want {
		w.Errorf("%d migration calls for action %s, want %d", got, id, want)
	}
}

func (w *world) metric(name string, labels ...string) float64 {
	w.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		w.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			text := ""
			for _, l := range m.GetLabel() {
				text += l.GetName() + "=" + l.GetValue() + ","
			}
			if f.GetName() == name && text == strings.Join(labels, ",")+strings.Repeat(",", min(1, len(labels))) {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	w.Fatalf("no metric %s%v", name, labels)
	return 0
}

func TestMoveAndOutcome(t *testing.T) {
	inBubble(t, func(w *world) {
		w.says(remediation.Recovered)
		moved := w.submit("ann", w.move(0, 2))[0]
		w.after(10 * time.Second)
		if a := w.want(moved, remediation.Started, ""); a.TaskRef == "" || a.Owner != "agent-1" || a.Progress < 0.1 {
			t.Errorf("under way: %+v", a)
		}
		if got := w.engine.Incoming()[host(2)]; len(got) != 1 || got[0] != vm(0) {
			t.Errorf("incoming %v", got)
		}
		if n := w.metric("protip_actions", "state=started"); n != 1 {
			t.Errorf("%v actions started", n)
		}
		w.after(took)
		a := w.want(moved, remediation.Done, "")
		if !a.Verified || a.Outcome != "" || a.By != "ann" || a.EndedAt.Before(a.StartingAt.Add(took)) {
			t.Errorf("done: %+v", a)
		}
		if w.platform.Where(vm(0)) != host(2) {
			t.Error("the VM is not on its target")
		}
		w.after(settle - 15*time.Second)
		if a := w.stored(moved); a.Outcome != "" {
			t.Errorf("outcome %s before the settle time", a.Outcome)
		}
		w.after(20 * time.Second)
		if a := w.stored(moved); a.Outcome != remediation.Recovered || a.MeasuredAt.Sub(a.EndedAt) < settle {
			t.Errorf("outcome: %+v", a)
		}
		want := "approved|claimed|starting|started|started|verifying|done|done"
		if got := w.path(); !strings.HasPrefix(got, "planned|approved|claimed|starting|started|") || !strings.HasSuffix(got, "verifying|done|done") {
			t.Errorf("notified of %s, want like %s", got, want)
		}
		for name, labels := range map[string][]string{
			"protip_actions_total":           {"source=vc", "state=done"},
			"protip_action_outcomes_total":   {"outcome=recovered", "source=vc"},
			"protip_action_duration_seconds": {"source=vc"},
		} {
			if n := w.metric(name, labels...); n != 1 {
				t.Errorf("%s%v is %v, want 1", name, labels, n)
			}
		}
		if n := w.metric("protip_actions", "state=started"); n != 0 {
			t.Errorf("%v actions started at the end", n)
		}
		if problems, err := testutil.GatherAndLint(w.registry); err != nil || len(problems) > 0 {
			t.Errorf("metric names: %v, %v", problems, err)
		}
		w.calls(moved, 1)
	})
}

// path is the states that were notified of.
func (w *world) path() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var states []string
	for _, s := range w.steps {
		states = append(states, s[strings.LastIndex(s, " ")+1:])
	}
	return strings.Join(states, "|")
}

// TestEnds has the platform misbehave in every way it knows.
func TestEnds(t *testing.T) {
	tests := []struct {
		name  string
		fault remediationtest.Fault
		state remediation.State
		says  string
		calls int
		isNot func(remediation.Action) string
	}{
		{"check says no", remediationtest.WouldRefuse, remediation.Failed, "nothing was sent: platform: the target lacks", 0, func(a remediation.Action) string {
			if a.Sent() || !a.Fault {
				return "a fault, not sent"
			}
			return ""
		}},
		{"call refused", remediationtest.Refuses, remediation.Failed, "operation not allowed", 1, nil},
		{"task fails", remediationtest.FailsTask, remediation.RolledBack, "vMotion timed out", 1, nil},
		{"answer lost", remediationtest.LosesAnswer, remediation.Done, "", 1, func(a remediation.Action) string {
			if !a.Verified || a.TaskRef == "" {
				return "verified, its task adopted"
			}
			return ""
		}},
		{"call lost", remediationtest.LosesCall, remediation.Unknown, "stays frozen until you have looked", 1, nil},
		{"wait lost", remediationtest.LosesTask, remediation.Done, "", 1, nil},
		{"success without a move", remediationtest.Stays, remediation.Failed, "still on esx-1", 1, nil},
		{"move not shown", remediationtest.HidesMove, remediation.Done, "", 1, func(a remediation.Action) string {
			if a.Verified {
				return "not verified"
			}
			return ""
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(w *world) {
				w.platform.Break(vm(0), tt.fault)
				moved := w.submit("ann", w.move(0, 2))[0]
				w.after(10 * time.Minute)
				a := w.want(moved, tt.state, tt.says)
				w.calls(moved, tt.calls)
				if tt.isNot != nil {
					if what := tt.isNot(a); what != "" {
						t.Errorf("it is not %s: %+v", what, a)
					}
				}
				if a.Fault == (a.State == remediation.Done) {
					t.Errorf("fault %v of an action that is %s", a.Fault, a.State)
				}
			})
		})
	}
}

func TestPlatformGoesAwayInTheMiddle(t *testing.T) {
	inBubble(t, func(w *world) {
		moved := w.submit("ann", w.move(0, 2))[0]
		w.after(5 * time.Second)
		w.platform.SetDown(true)
		w.after(time.Hour)
		w.want(moved, remediation.Started, "")
		w.platform.SetDown(false)
		w.after(time.Minute)
		w.want(moved, remediation.Done, "")
		w.calls(moved, 1)
	})
}

// TestGuard changes the fleet between the plan and its turn; nothing may be sent.
func TestGuard(t *testing.T) {
	tests := []struct {
		name   string
		change func(*world)
		says   string
	}{
		{"VM moved by somebody", func(w *world) { w.platform.Put(vm(0), host(3)) }, "it was moved at 2000-01-01 00:00:05 UTC by somebody else"},
		{
			"VM elsewhere", func(w *world) { w.apply(inventory.Delta{Source: "vc", VMs: []inventory.VM{w.machine(0, host(3))}}) },
			"no longer on esx-1 but on esx-3: plan again",
		},
		{"VM gone", func(w *world) { w.apply(inventory.Delta{Source: "vc", Removed: []inventory.ID{vm(0)}}) }, "web-0 is gone"},
		{"VM off", func(w *world) {
			off := w.machine(0, host(1))
			off.Power = inventory.PowerOff
			w.apply(inventory.Delta{Source: "vc", VMs: []inventory.VM{off}})
		}, "web-0 is not running (power off)"},
		{"source down", func(w *world) { w.fleet.Down("vc", errors.New("timeout")) }, "source vc does not answer since"},
		{"samples old", func(w *world) { w.silent.Store(true); w.after(time.Minute) }, "host esx-1 is stale: no virt_host_cpu_usage_hertz since"},
		{"target barred", func(w *world) { w.bar(errors.New("esx-2: in maintenance")) }, "esx-2: in maintenance"},
		{"paused", func(w *world) { w.do(w.engine.Pause(w.Context(), "", "bob", "change freeze")) }, "remediation was paused by bob at"},
		{"source paused", func(w *world) { w.do(w.engine.Pause(w.Context(), "vc", "bob", "")) }, "remediation of source vc was paused by bob"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(w *world) {
				w.platform.Took = 10 * time.Minute
				first := w.submit("ann", w.otherTip(9, 2))[0] // takes host 1's only turn
				moved := w.submit("ann", w.move(0, 2))[0]
				w.after(5 * time.Second)
				w.want(moved, remediation.Approved, "")
				if why := w.engine.Waiting()[moved]; why != "1 migrations run from or to esx-1, and no more may" {
					t.Errorf("waits because %q", why)
				}
				tt.change(w)
				w.after(10*time.Minute + 30*time.Second)
				a := w.want(moved, remediation.Failed, tt.says)
				w.calls(moved, 0)
				w.calls(first, 1)
				if a.Fault || a.Sent() {
					t.Errorf("held back by protip, but: %+v", a)
				}
			})
		})
	}
}

// TestWaitsForWhatIsNotKnownYet starts with an agent that has listed and measured nothing yet, as after a restart.
func TestWaitsForWhatIsNotKnownYet(t *testing.T) {
	inBubble(t, func(w *world) {
		w.stop()
		w.silent.Store(true)
		was := w.fleet.Snapshot()
		w.fleet = inventory.NewFleet(inventory.Source{Name: "vc", Platform: "test", Interval: interval})
		w.options.Snapshot = w.fleet.Snapshot
		w.start()
		moved := w.submit("ann", w.move(0, 2))[0]
		waits := func(why string) {
			t.Helper()
			w.after(2 * time.Second)
			w.want(moved, remediation.Approved, "")
			if got := w.engine.Waiting()[moved]; got != why {
				t.Errorf("waits because %q, want %q", got, why)
			}
		}
		waits("the objects of source vc are not known yet")
		d := inventory.Delta{Source: "vc", Begin: true, Synced: true}
		for h := range was.Hosts() {
			d.Hosts = append(d.Hosts, *h.Host)
		}
		for v := range was.VMs() {
			d.VMs = append(d.VMs, *v.VM)
		}
		w.apply(d)
		waits("virt_host_cpu_usage_hertz of host esx-1 is not known yet")
		w.bar(fmt.Errorf("contention is %w", remediation.ErrNotYet))
		w.sample()
		waits("contention is not known yet")
		w.bar(nil)
		w.silent.Store(false)
		w.after(time.Minute)
		w.want(moved, remediation.Done, "")
		w.calls(moved, 1)
	})
}

// TestWithdraws: what is not needed any more is neither sent nor a failure, and the rest of its plan still has its turn.
func TestWithdraws(t *testing.T) {
	inBubble(t, func(w *world) {
		w.bar(fmt.Errorf("esx-1 is calm: %w", remediation.ErrNotNeeded))
		plan := w.submit("ann", w.move(0, 2), w.move(1, 2))
		w.after(time.Minute)
		for _, id := range plan {
			a := w.want(id, remediation.Withdrawn, "esx-1 is calm: not needed any more")
			w.calls(id, 0)
			if a.Fault || a.Sent() || !a.State.Final() {
				t.Errorf("withdrawn, but: %+v", a)
			}
		}
		w.bar(nil)
		again := w.submit("ann", w.move(0, 2))[0] // no cooldown: it was not moved
		w.after(time.Minute)
		w.want(again, remediation.Done, "")
	})
}

func (w *world) bar(why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.recheck = why
}

func (w *world) do(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) otherTip(n, to int) remediation.Action {
	a := w.move(n, to)
	a.TipID = fmt.Sprintf("tip-%d", n)
	return a
}

// slow is an executor whose Check takes a while: time for the world to change before the call.
type slow struct{ remediation.Executor }

func (s slow) Check(ctx context.Context, a remediation.Action) error {
	time.Sleep(10 * time.Second)
	return s.Executor.Check(ctx, a)
}

func TestPauseBetweenCheckAndCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.options.Executors["vc"] = slow{w.options.Executors["vc"]}
		w.start()
		defer func() { w.stop() }()
		moved := w.submit("ann", w.move(0, 2))[0]
		w.after(5 * time.Second)
		w.want(moved, remediation.Claimed, "")
		w.do(w.engine.Pause(w.Context(), "vc", "bob", ""))
		w.after(time.Minute)
		w.want(moved, remediation.Failed, "paused by bob")
		w.calls(moved, 0)
	})
}

func TestSubmitRefuses(t *testing.T) {
	inBubble(t, func(w *world) {
		w.submit("ann", w.move(0, 2))
		change := func(f func(*remediation.Action)) []remediation.Action {
			a := w.otherTip(1, 3)
			f(&a)
			return []remediation.Action{a}
		}
		tests := []struct {
			plan []remediation.Action
			says string
		}{
			{nil, "the plan has no move"},
			{change(func(a *remediation.Action) { a.Kind = "format_disk" }), `unknown kind of action "format_disk"`},
			{change(func(a *remediation.Action) { a.To = a.From }), "it is there already"},
			{change(func(a *remediation.Action) { a.To.Source = "other" }), "not of one source"},
			{change(func(a *remediation.Action) { a.VM.Source, a.From.Source, a.To.Source = "x", "x", "x" }), "source x has no acting credential"},
			{change(func(a *remediation.Action) { a.VM = inventory.ID{} }), "does not name a VM and two hosts"},
			{change(func(a *remediation.Action) { a.VM = vm(0) }), "wants to move it to esx-2"},
			{change(func(a *remediation.Action) { a.TipID = "tip" }), "the tip is being implemented already"},
			{[]remediation.Action{w.otherTip(1, 2), w.otherTip(1, 3)}, "the plan moves it twice"},
		}
		for _, tt := range tests {
			_, err := w.engine.Submit(w.Context(), tt.plan, "ann", "")
			if !errors.Is(err, remediation.ErrRefused) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v, want refused: %s", err, tt.says)
			}
		}
		quick := change(func(a *remediation.Action) { a.Kind = remediation.QuickMigration })
		if _, err := w.engine.Submit(w.Context(), quick, remediation.ByPolicy, ""); !errors.Is(err, remediation.ErrRefused) || !strings.Contains(err.Error(), "only a person does that") {
			t.Errorf("a quick migration by itself: %v", err)
		}
		if all, err := w.store.Actions(w.Context(), remediation.Filter{}); err != nil || len(all) != 1 {
			t.Errorf("a refused plan left %d actions, %v", len(all)-1, err)
		}
	})
}

func TestProposeAndApprove(t *testing.T) {
	inBubble(t, func(w *world) {
		plan, err := w.engine.Propose(w.Context(), []remediation.Action{w.move(0, 2), w.otherTip(1, 2)})
		w.do(err)
		w.after(20 * time.Minute)
		w.want(plan[0].ID, remediation.Planned, "")
		if _, err := w.engine.Approve(w.Context(), plan[0].ID, "", ""); !errors.Is(err, remediation.ErrRefused) {
			t.Errorf("approved by nobody: %v", err)
		}
		_, err = w.engine.Approve(w.Context(), plan[0].ID, "ann", "looks right")
		w.do(err)
		w.after(20 * time.Minute)
		w.want(plan[0].ID, remediation.Done, "")
		w.want(plan[1].ID, remediation.Failed, "nobody approved it within 30m0s")
		if _, err := w.engine.Approve(w.Context(), plan[0].ID, "ann", ""); !errors.Is(err, remediation.ErrRefused) {
			t.Errorf("approved twice: %v", err)
		}
	})
}

func TestLimits(t *testing.T) {
	tests := []struct {
		name   string
		limits remediation.Limits
		peak   int
	}{
		{"per host", remediation.Limits{PerSource: 9, PerCluster: 9, PerHost: 2, PerHour: 99}, 2},
		{"per cluster", remediation.Limits{PerSource: 9, PerCluster: 3, PerHost: 9, PerHour: 99}, 3},
		{"per source", remediation.Limits{PerSource: 4, PerCluster: 9, PerHost: 9, PerHour: 99}, 4},
		{"defaults", remediation.Limits{}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.options.Limits = tt.limits
				w.start()
				defer func() { w.stop() }()
				for n := range 10 {
					w.submit("ann", w.otherTip(n, 2+n%2))
				}
				peak := 0
				for range 600 {
					w.after(time.Second)
					flying := 0
					for _, vms := range w.engine.Incoming() {
						flying += len(vms)
					}
					open, err := w.store.Actions(w.Context(), remediation.Filter{States: []remediation.State{remediation.Started}})
					w.do(err)
					peak = max(peak, len(open))
				}
				if peak != tt.peak {
					t.Errorf("%d at once, want %d", peak, tt.peak)
				}
				if n := w.metric("protip_actions_total", "source=vc", "state=done"); n != 10 {
					t.Errorf("%v done, want 10", n)
				}
			})
		})
	}
}

func TestBudgetPerHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.options.Limits = remediation.Limits{PerHour: 3}
		w.options.MaxWait = 3 * time.Hour
		w.start()
		defer func() { w.stop() }()
		var last string
		for n := range 5 {
			last = w.submit("ann", w.otherTip(n, 2))[0]
		}
		w.after(30 * time.Minute)
		if n := len(w.platform.Calls()); n != 3 {
			t.Errorf("%d calls in the first hour, want 3", n)
		}
		w.stop() // the budget is not forgotten by a restart
		w.start()
		w.after(25 * time.Minute)
		if n := len(w.platform.Calls()); n != 3 {
			t.Errorf("%d calls in the first hour after a restart, want 3", n)
		}
		w.after(30 * time.Minute)
		w.want(last, remediation.Done, "")
	})
}

func TestWaitsNotForEver(t *testing.T) {
	inBubble(t, func(w *world) {
		w.platform.Took = 2 * time.Hour
		w.submit("ann", w.otherTip(0, 2))
		second := w.submit("ann", w.otherTip(1, 2))[0]
		w.after(time.Hour)
		w.want(second, remediation.Failed, "it waited 30m0s for its turn (1 migrations run from or to esx-1, and no more may): its plan is old")
		w.calls(second, 0)
	})
}

func TestPlanKeepsItsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.options.Limits = remediation.Limits{PerHost: 5, PerCluster: 5, PerSource: 5}
		w.start()
		defer func() { w.stop() }()
		ids := w.submit("ann", w.move(2, 2), w.move(1, 3), w.move(0, 2))
		w.after(2 * time.Minute)
		var last time.Time
		for _, id := range ids {
			a := w.want(id, remediation.Done, "")
			if a.StartingAt.Before(last) {
				t.Errorf("%s started out of turn", a.VMName)
			}
			last = a.StartingAt
		}
	})
}

func TestAWaveWaitsForTheOneBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.options.Limits = remediation.Limits{PerHost: 5, PerCluster: 5, PerSource: 5}
		w.options.MaxWait = time.Minute // shorter than the plan takes, and longer than any move of it
		w.start()
		defer func() { w.stop() }()
		var plan []remediation.Action
		for n := range 6 {
			m := w.move(n, 2+n%2)
			m.Wave = n / 2
			plan = append(plan, m)
		}
		w.platform.Took = 50 * time.Second
		ids := w.submit("ann", plan...)
		w.after(20 * time.Second)
		if got, all := w.engine.Arriving(), w.engine.Incoming(); len(got[host(2)])+len(got[host(3)]) != 2 || len(all[host(2)])+len(all[host(3)]) != 6 {
			t.Errorf("of the first wave %v arrive, and of all %v", got, all)
		}
		w.stop() // the waves are in the journal
		w.start()
		w.after(5 * time.Minute)
		var ended time.Time
		for wave := range 3 {
			last := ended
			for _, id := range ids[2*wave : 2*wave+2] {
				a := w.want(id, remediation.Done, "")
				if a.StartingAt.Before(last) {
					t.Errorf("%s of wave %d started at %s, and the wave before ended at %s", a.VMName, wave, a.StartingAt, last)
				}
				if a.EndedAt.After(ended) {
					ended = a.EndedAt
				}
			}
		}
	})
}

// TestSomebodyMovesItBack has another balancer undo what protip does. A VM rests for its cooldown each time, and after the second time
// it is left alone, also after a restart, until a person resumes.
func TestSomebodyMovesItBack(t *testing.T) {
	inBubble(t, func(w *world) {
		for n := range 2 {
			m := w.otherTip(0, 2)
			m.TipID = fmt.Sprint("tip-", n)
			w.submit(remediation.ByPolicy, m)
			w.after(2 * time.Minute)
			if w.platform.Where(vm(0)) != host(2) {
				t.Fatalf("round %d: not moved", n)
			}
			if w.metric("protip_contested_vms", "source=vc") != 0 {
				t.Fatalf("round %d: left alone", n)
			}
			w.stop()
			w.start() // what protip did last is in the journal
			w.after(time.Second)
			w.platform.Put(vm(0), host(1))
			w.after(29 * time.Minute)
			if _, err := w.engine.Submit(w.Context(), []remediation.Action{m}, "ann", ""); !errors.Is(err, remediation.ErrRefused) {
				t.Fatalf("round %d: moved again within its cooldown: %v", n, err)
			}
			w.after(2 * time.Minute)
		}
		alone := func(when string) {
			t.Helper()
			why := w.engine.Frozen()[vm(0)]
			if !strings.Contains(why, "moved it away 2 times") || w.metric("protip_contested_vms", "source=vc") != 1 {
				t.Errorf("%s: %q", when, why)
			}
			if _, err := w.engine.Submit(w.Context(), []remediation.Action{w.otherTip(0, 3)}, "ann", ""); !errors.Is(err, remediation.ErrRefused) {
				t.Errorf("%s: moved all the same: %v", when, err)
			}
		}
		alone("after the second time")
		w.stop()
		w.start()
		w.after(3 * 24 * time.Hour)
		alone("days and a restart later")
		w.platform.Put(vm(0), host(3)) // somebody's own move does not count
		w.platform.Put(vm(0), host(1))
		w.after(time.Hour)
		alone("after moves that undo nothing")
		if err := w.engine.Resume(w.Context(), "", "ann", "the other balancer is off"); err != nil {
			t.Fatal(err)
		}
		w.stop()
		w.start()
		w.after(time.Second)
		w.submit("ann", w.otherTip(0, 3))
		w.after(2 * time.Minute)
		if w.platform.Where(vm(0)) != host(3) {
			t.Error("a person's word does not lift it")
		}
	})
}

// TestWebhook: a call is written down before it is made, made once whatever happens, and never takes hold of a VM.
func TestWebhook(t *testing.T) {
	call := remediation.Action{
		TipID: "hook", Kind: remediation.WebhookCall, Webhook: "on-call", VM: vm(0), VMName: "web-0", ToName: "webhook on-call", Settle: settle,
	}
	for name, tc := range map[string]struct {
		err   error
		state remediation.State
		words string
	}{
		"taken":   {nil, remediation.Done, ""},
		"refused": {errors.New("it answers 500"), remediation.Failed, "it answers 500"},
		"lost":    {fmt.Errorf("time-out: %w", remediation.ErrUndecided), remediation.Unknown, "whether it took it is not known"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				var calls []remediation.State
				w.options.Webhook = func(_ context.Context, a remediation.Action) error {
					calls = append(calls, w.stored(a.ID).State)
					return tc.err
				}
				w.says(remediation.NoEffect)
				w.start()
				defer func() { w.stop() }()
				id := w.submit(remediation.ByPolicy, call)[0]
				w.after(10 * time.Minute)
				if a := w.want(id, tc.state, tc.words); a.Outcome != "" {
					t.Errorf("an outcome is measured of what moves nothing: %s", a.Outcome)
				}
				if len(w.engine.Frozen()) > 0 || len(w.engine.Incoming()) > 0 {
					t.Errorf("frozen %v, incoming %v", w.engine.Frozen(), w.engine.Incoming())
				}
				w.stop()
				w.start()
				w.after(10 * time.Minute)
				if len(calls) != 1 || calls[0] != remediation.Starting {
					t.Errorf("called in states %v, want once when the intent was on disk", calls)
				}
				w.submit("ann", w.move(0, 2))
				w.after(2 * time.Minute)
				if w.platform.Where(vm(0)) != host(2) {
					t.Error("the VM is not free")
				}
			})
		})
	}
	t.Run("the agent dies meanwhile", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			calls := 0
			w.options.Webhook = func(ctx context.Context, _ remediation.Action) error {
				calls++
				<-ctx.Done()
				return ctx.Err()
			}
			w.start()
			id := w.submit("ann", call)[0]
			w.after(time.Minute)
			w.stop()
			w.start()
			defer func() { w.stop() }()
			w.after(time.Hour)
			w.want(id, remediation.Unknown, "not known")
			if calls != 1 {
				t.Errorf("%d calls", calls)
			}
			if _, err := w.engine.Resolve(w.Context(), id, remediation.Failed, "ann", "it did not arrive"); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("held", func(t *testing.T) {
		inBubble(t, func(w *world) {
			if _, err := w.engine.Submit(w.Context(), []remediation.Action{call}, "ann", ""); !errors.Is(err, remediation.ErrRefused) {
				t.Errorf("without webhooks: %v", err)
			}
		})
	})
}

// TestWindow: outside of it nothing starts by itself, and what had not begun ends; a person is not bound by it.
func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		closes := w.clock.Now().Add(time.Minute)
		w.options.Closed = func(now time.Time) string {
			if now.After(closes) {
				return "outside of the maintenance windows"
			}
			return ""
		}
		w.start()
		defer func() { w.stop() }()
		w.platform.Took = 2 * time.Minute
		ids := w.submit(remediation.ByPolicy, w.move(0, 2), w.move(1, 3))
		w.after(10 * time.Minute)
		w.want(ids[0], remediation.Done, "")
		w.want(ids[1], remediation.Failed, "outside of the maintenance windows")
		if _, err := w.engine.Submit(w.Context(), []remediation.Action{w.otherTip(2, 2)}, remediation.ByPolicy, ""); !errors.Is(err, remediation.ErrRefused) {
			t.Errorf("by itself: %v", err)
		}
		w.submit("ann", w.otherTip(2, 2))
		w.after(10 * time.Minute)
		if w.platform.Where(vm(2)) != host(2) {
			t.Error("a person is bound by a window")
		}
	})
}

func TestPlanEndsWithItsFirstFailure(t *testing.T) {
	inBubble(t, func(w *world) {
		w.platform.Break(vm(1), remediationtest.FailsTask)
		w.says(remediation.NoEffect)
		ids := w.submit("ann", w.move(0, 2), w.move(1, 3), w.move(2, 2))
		w.after(10 * time.Minute)
		if a := w.want(ids[0], remediation.Done, ""); a.Outcome != remediation.NoEffect {
			t.Errorf("what was done is not measured: %+v", a)
		}
		w.want(ids[1], remediation.RolledBack, "vMotion timed out")
		if a := w.want(ids[2], remediation.Failed, "another move of this plan, web-1 to esx-3, ended rolled_back: plan again"); a.Fault {
			t.Error("counts as a fault")
		}
		w.calls(ids[2], 0)
	})
}

func TestCooldown(t *testing.T) {
	inBubble(t, func(w *world) {
		w.submit("ann", w.move(0, 2))
		w.after(5 * time.Minute)
		back := w.otherTip(0, 3)
		back.From, back.FromName = host(2), "esx-2"
		rests := func(by string) {
			t.Helper()
			_, err := w.engine.Submit(w.Context(), []remediation.Action{back}, "ann", "")
			if !errors.Is(err, remediation.ErrRefused) || !strings.Contains(err.Error(), by) {
				t.Errorf("error %v, want the cooldown by %s", err, by)
			}
			if why := w.engine.Frozen()[vm(0)]; !strings.Contains(why, by) {
				t.Errorf("frozen because %q", why)
			}
		}
		rests("by protip and rests until")
		w.stop()
		w.start()
		w.after(10 * time.Minute)
		rests("by protip and rests until")
		w.after(16 * time.Minute)

		w.platform.Put(vm(0), host(1)) // somebody else's move
		w.after(time.Second)
		w.platform.Put(vm(0), host(2))
		w.after(20 * time.Minute)
		rests("by somebody else")
		w.stop()
		w.start()
		w.after(time.Second)
		rests("by somebody else")
		w.after(11 * time.Minute)
		w.submit("ann", back)
		w.after(2 * time.Minute)
		if w.platform.Where(vm(0)) != host(3) {
			t.Error("not moved after the cooldown")
		}
	})
}

// TestMovedBackAtOnce: a VM that somebody moves back before its move was over did arrive, and the second time it is left alone.
func TestMovedBackAtOnce(t *testing.T) {
	inBubble(t, func(w *world) {
		w.says(remediation.NoEffect)
		for n := range 2 {
			m := w.otherTip(0, 2)
			m.TipID = fmt.Sprint("tip-", n)
			id := w.submit("ann", m)[0]
			for w.platform.Where(vm(0)) != host(2) {
				time.Sleep(100 * time.Millisecond)
			}
			w.platform.Put(vm(0), host(1))
			w.after(31 * time.Minute)
			if a := w.stored(id); a.State != remediation.Done || !a.Verified {
				t.Errorf("round %d: %s (%s)\n%s", n, a.State, a.Error, w.history(id))
			}
		}
		if why := w.engine.Frozen()[vm(0)]; !strings.Contains(why, "moved it away 2 times") {
			t.Errorf("frozen because %q", why)
		}
	})
}

func TestForeignMoveOfTheSameVM(t *testing.T) {
	inBubble(t, func(w *world) {
		moved := w.submit("ann", w.move(0, 2))[0]
		w.platform.Break(vm(0), remediationtest.Stays)
		w.after(10 * time.Second)
		w.platform.Put(vm(0), host(3))
		w.after(time.Minute)
		a := w.stored(moved)
		if a.State != remediation.Failed || !strings.Contains(a.Error, "elsewhere: it is on esx-3") {
			t.Errorf("%s: %s\n%s", a.State, a.Error, w.history(moved))
		}
		if n := w.metric("protip_foreign_moves_total", "source=vc"); n != 1 {
			t.Errorf("%v foreign moves", n)
		}
		if w.platform.Where(vm(0)) != host(3) {
			t.Error("the foreign move was fought")
		}
	})
}

func TestDryRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.options.Executors["vc"] = remediation.DryRun(w.options.Executors["vc"])
		w.says(remediation.Recovered)
		w.start()
		defer func() { w.stop() }()
		w.platform.Break(vm(1), remediationtest.WouldRefuse)
		ok, refused := w.submit("ann", w.otherTip(0, 2))[0], w.submit("ann", w.otherTip(1, 2))[0]
		w.after(time.Hour)
		a := w.want(ok, remediation.Done, "")
		if !a.DryRun || a.Verified || a.Outcome != "" || a.Sent() {
			t.Errorf("dry run: %+v", a)
		}
		w.want(refused, remediation.Failed, "the target lacks the VM's network")
		if len(w.platform.Calls()) != 0 {
			t.Error("a dry run called")
		}
		if len(w.engine.Frozen()) != 0 {
			t.Errorf("a dry run left %v", w.engine.Frozen())
		}
		w.submit("ann", w.otherTip(0, 3))
		if n := w.metric("protip_actions_total", "source=vc", "state=dry_run"); n != 1 {
			t.Errorf("%v dry runs", n)
		}
		w.after(time.Minute)
		w.stop()

		// An action that was approved as a dry run stays one, whatever the configuration says later.
		w.do(w.store.Create(w.Context(), func() remediation.Action {
			a := w.otherTip(5, 2)
			a.ID, a.PlanID, a.State, a.By, a.DryRun = "dry", "p", remediation.Approved, "ann", true
			a.PlannedAt, a.ApprovedAt = w.clock.Now(), w.clock.Now()
			return a
		}()))
		w.options.Executors["vc"] = remediationtest.Executor{API: w.platform, Every: time.Second}
		w.start()
		w.after(2 * time.Minute)
		w.want("dry", remediation.Done, "")
		w.calls("dry", 0)
	})
}

func TestUnknownFreezesItsVM(t *testing.T) {
	inBubble(t, func(w *world) {
		w.platform.Break(vm(0), remediationtest.LosesCall)
		moved := w.submit("ann", w.move(0, 2))[0]
		w.after(10 * time.Minute)
		w.want(moved, remediation.Unknown, "nobody can tell")
		frozen := func() {
			t.Helper()
			if _, err := w.engine.Submit(w.Context(), []remediation.Action{w.otherTip(0, 3)}, "ann", ""); !errors.Is(err, remediation.ErrRefused) ||
				!strings.Contains(err.Error(), "frozen: nobody knows how action "+moved) {
				t.Errorf("error %v", err)
			}
			if n := w.metric("protip_actions", "state=unknown"); n != 1 {
				t.Errorf("%v unknown", n)
			}
		}
		frozen()
		w.after(40 * time.Minute) // longer than the cooldown
		frozen()
		w.stop()
		w.start()
		w.after(time.Minute)
		frozen()
		if _, err := w.engine.Resolve(w.Context(), moved, remediation.Started, "ann", ""); !errors.Is(err, remediation.ErrRefused) {
			t.Errorf("resolved to started: %v", err)
		}
		_, err := w.engine.Resolve(w.Context(), moved, remediation.Failed, "ann", "it never arrived")
		w.do(err)
		w.want(moved, remediation.Failed, "nobody can tell")
		if !strings.Contains(w.history(moved), "ann says failed: it never arrived") {
			t.Error(w.history(moved))
		}
		w.after(31 * time.Minute)
		w.platform.Break(vm(0), "")
		again := w.submit("ann", w.otherTip(0, 3))[0]
		w.after(2 * time.Minute)
		w.want(again, remediation.Done, "")
		w.calls(moved, 1)
	})
}

func TestBreaker(t *testing.T) {
	inBubble(t, func(w *world) {
		for n := range 3 {
			w.platform.Break(vm(n), remediationtest.FailsTask)
			w.submit(remediation.ByPolicy, w.otherTip(n, 2))
			w.after(2 * time.Minute)
		}
		b := w.engine.Breaker()
		if !b.Open || !strings.Contains(b.Why, "3 in a row did not help or failed, last: web-2 to esx-2 ended rolled_back") {
			t.Fatalf("breaker %+v", b)
		}
		if n := w.metric("protip_remediation_breaker_open"); n != 1 {
			t.Errorf("metric %v", n)
		}
		w.stop()
		w.start()
		w.after(time.Second)
		_, err := w.engine.Submit(w.Context(), []remediation.Action{w.otherTip(4, 2)}, remediation.ByPolicy, "")
		if !errors.Is(err, remediation.ErrRefused) || !strings.Contains(err.Error(), "the breaker is open, nothing starts by itself: 3 in a row") {
			t.Errorf("error %v", err)
		}
		w.says(remediation.NoEffect)
		w.submit("ann", w.otherTip(5, 2)) // a person may; it does not help
		w.after(5 * time.Minute)
		if !w.engine.Breaker().Open {
			t.Error("closed by a plan without effect")
		}
		w.says(remediation.Recovered)
		w.submit("ann", w.otherTip(6, 3))
		w.after(5 * time.Minute)
		if b := w.engine.Breaker(); b.Open || b.By != "ann" {
			t.Errorf("not closed by a person's plan that helped: %+v", b)
		}
		auto := w.submit(remediation.ByPolicy, w.otherTip(7, 2))[0]
		w.after(2 * time.Minute)
		w.want(auto, remediation.Done, "")
	})
}

func TestBreakerOpensOnPlansThatDoNotHelp(t *testing.T) {
	inBubble(t, func(w *world) {
		w.says(remediation.NoEffect)
		for n := range 3 {
			if w.engine.Breaker().Open {
				t.Fatalf("open after %d plans", n)
			}
			plan := []remediation.Action{w.otherTip(2*n, 2), w.otherTip(2*n+1, 2)}
			plan[1].TipID = plan[0].TipID
			w.submit(remediation.ByPolicy, plan...)
			w.after(10 * time.Minute)
		}
		if b := w.engine.Breaker(); !b.Open || !strings.Contains(b.Why, "had the outcome no_effect") {
			t.Fatalf("breaker %+v", b)
		}
		w.do(w.engine.Resume(w.Context(), "vc", "ann", "only the source"))
		if !w.engine.Breaker().Open {
			t.Error("closed by resuming a source")
		}
		w.do(w.engine.Resume(w.Context(), "", "ann", "rule fixed"))
		w.stop()
		w.start()
		w.after(time.Minute)
		if b := w.engine.Breaker(); b.Open || b.By != "ann" {
			t.Errorf("not closed for good by a person: %+v", b)
		}
	})
}

func TestPauseAndResume(t *testing.T) {
	inBubble(t, func(w *world) {
		running := w.submit("ann", w.move(0, 2))[0]
		w.after(10 * time.Second)
		w.do(w.engine.Pause(w.Context(), "", "ann", "storage work"))
		w.do(w.engine.Pause(w.Context(), "vc", "bob", ""))
		w.do(w.engine.Pause(w.Context(), "", "eve", "me too"))
		if err := w.engine.Pause(w.Context(), "nosuch", "ann", ""); !errors.Is(err, remediation.ErrRefused) {
			t.Errorf("paused a source that is not there: %v", err)
		}
		w.after(time.Minute)
		w.want(running, remediation.Done, "") // what had begun is finished
		w.stop()
		w.start()
		w.after(time.Second)
		got := w.engine.Pauses()
		if len(got) != 2 || got[0].By != "ann" || got[0].Why != "storage work" || got[1].Source != "vc" {
			t.Errorf("pauses after a restart: %+v", got)
		}
		refused := func(want string) {
			t.Helper()
			_, err := w.engine.Submit(w.Context(), []remediation.Action{w.otherTip(1, 2)}, "ann", "")
			if !errors.Is(err, remediation.ErrRefused) || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want %q", err, want)
			}
			if n := w.metric("protip_remediation_paused", "source=vc"); n != 1 {
				t.Errorf("metric %v", n)
			}
		}
		refused("remediation was paused by ann")
		w.do(w.engine.Resume(w.Context(), "", "ann", "done"))
		refused("remediation of source vc was paused by bob")
		w.do(w.engine.Resume(w.Context(), "vc", "ann", "done"))
		w.submit("ann", w.otherTip(1, 2))
		if n := w.metric("protip_remediation_paused", "source=vc"); n != 0 {
			t.Errorf("metric %v after resuming", n)
		}
	})
}

// TestRestart stops the agent at a moment of a migration, lets things happen meanwhile, and starts it again.
func TestRestart(t *testing.T) {
	tests := []struct {
		name  string
		fault remediationtest.Fault
		at    time.Duration // after the submit
		away  func(*world)
		state remediation.State
		says  string
	}{
		{"migration under way", "", 10 * time.Second, nil, remediation.Done, ""},
		{"migration ends meanwhile", "", 10 * time.Second, func(w *world) { w.after(5 * time.Minute) }, remediation.Done, ""},
		{"migration ends meanwhile, its record is gone", "", 10 * time.Second, func(w *world) { w.after(5 * time.Minute); w.platform.Forget() }, remediation.Done, ""},
		{"migration fails meanwhile", remediationtest.FailsTask, 10 * time.Second, func(w *world) { w.after(5 * time.Minute) }, remediation.RolledBack, "vMotion timed out"},
		{"migration fails meanwhile, its record is gone", remediationtest.FailsTask, 10 * time.Second, func(w *world) { w.after(5 * time.Minute); w.platform.Forget() }, remediation.Unknown, "nobody can tell"},
		{"VM destroyed meanwhile", "", 10 * time.Second, func(w *world) { w.platform.Remove(vm(0)); w.after(5 * time.Minute); w.platform.Forget() }, remediation.Failed, "no longer knows web-0"},
		{"VM moved on meanwhile", "", 10 * time.Second, func(w *world) {
			w.after(5 * time.Minute)
			w.platform.Forget()
			w.platform.Put(vm(0), host(3))
		}, remediation.Failed, "someone else moved it"},
		{"verifying", remediationtest.HidesMove, 40 * time.Second, nil, remediation.Done, ""},
		{"waiting for a lost answer", remediationtest.LosesCall, 10 * time.Second, nil, remediation.Unknown, "nobody can tell"},
		{"task lost, platform slow to show it", remediationtest.LosesAnswer, time.Millisecond, nil, remediation.Done, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(w *world) {
				w.platform.Break(vm(0), tt.fault)
				moved := w.submit("ann", w.move(0, 2))[0]
				w.after(tt.at)
				w.stop()
				if tt.away != nil {
					tt.away(w)
				}
				w.options.Owner = "agent-2"
				w.start()
				w.after(20 * time.Minute)
				a := w.want(moved, tt.state, tt.says)
				w.calls(moved, 1)
				if a.Owner != "agent-2" || a.Fence < 2 {
					t.Errorf("owner %s, fence %d: not taken over", a.Owner, a.Fence)
				}
			})
		})
	}
}

func TestSourceWithoutCredentialAfterRestart(t *testing.T) {
	inBubble(t, func(w *world) {
		moved := w.submit("ann", w.move(0, 2))[0]
		w.after(10 * time.Second)
		w.stop()
		w.after(time.Minute)
		w.options.Executors = nil
		w.start()
		w.after(time.Minute)
		w.want(moved, remediation.Unknown, "no acting credential, so nobody can read what became of it")
	})
}

// brittle is a journal whose disk fills up at the n-th step.
type brittle struct {
	remediation.Journal
	failAt, steps atomic.Int64
	commits       bool // the step is taken and its answer lost
	until         atomic.Bool
}

var errDisk = errors.New("disk full")

func (b *brittle) Step(ctx context.Context, prev, next remediation.Action, at time.Time, note string) error {
	if b.steps.Add(1) >= b.failAt.Load() && !b.until.Load() {
		if b.commits {
			if err := b.Journal.Step(ctx, prev, next, at, note); err != nil {
				return err
			}
		}
		return errDisk
	}
	return b.Journal.Step(ctx, prev, next, at, note)
}

// TestJournalFails has the journal refuse every step from the n-th on for a while, with or without having taken it.
func TestJournalFails(t *testing.T) {
	for _, commits := range []bool{false, true} {
		for n := int64(2); n <= 9; n++ { // the first is the approval, which Submit reports
			t.Run(fmt.Sprintf("step %d, committed %v", n, commits), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					b := &brittle{Journal: w.store, commits: commits}
					b.failAt.Store(n)
					w.options.Journal = b
					w.start()
					defer func() { w.stop() }()
					moved := w.submit("ann", w.move(0, 2))[0]
					w.after(time.Minute)
					b.until.Store(true)
					w.after(15 * time.Minute)
					a := w.stored(moved)
					if calls := w.platform.Calls()[moved]; calls > 1 || (calls == 1) != a.Sent() && a.State != remediation.Unknown {
						t.Errorf("%d calls, and the journal says %s\n%s", calls, a.State, w.history(moved))
					}
					if a.State != remediation.Done && a.State != remediation.Unknown {
						t.Errorf("ended %s (%s)\n%s", a.State, a.Error, w.history(moved))
					}
					if a.State == remediation.Done && w.platform.Where(vm(0)) != host(2) {
						t.Error("done, but the VM is elsewhere")
					}
				})
			})
		}
	}
}

func TestOutcomeOfAPlanIsItsWorst(t *testing.T) {
	inBubble(t, func(w *world) {
		w.mu.Lock()
		w.verdict = func(a remediation.Action) (remediation.Outcome, bool) {
			if a.To == host(2) {
				return remediation.Worse, true
			}
			return remediation.NoEffect, true
		}
		w.mu.Unlock()
		for _, id := range w.submit("ann", w.move(0, 2), w.move(1, 3)) {
			w.after(5 * time.Minute)
			if a := w.stored(id); a.Outcome != remediation.Worse {
				t.Errorf("outcome %q of the move to %s", a.Outcome, a.ToName)
			}
		}
	})
}

func TestOutcomeWaitsForData(t *testing.T) {
	inBubble(t, func(w *world) {
		moved := w.submit("ann", w.move(0, 2))[0]
		w.after(time.Hour)
		if a := w.stored(moved); a.Outcome != "" {
			t.Errorf("outcome %s without data", a.Outcome)
		}
		w.stop()
		w.start()
		w.says(remediation.Worse)
		w.after(10 * time.Second)
		if a := w.stored(moved); a.Outcome != remediation.Worse {
			t.Errorf("outcome %q", a.Outcome)
		}
		w.says(remediation.Recovered)
		w.after(time.Minute)
		if a := w.stored(moved); a.Outcome != remediation.Worse {
			t.Errorf("outcome was measured twice: %q", a.Outcome)
		}
	})
}
