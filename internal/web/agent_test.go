package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/history/promql"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/placement"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
	"github.com/protip/protip/rules/packs"
	"github.com/protip/protip/rules/report"
)

const token = "correct-horse-battery-staple"

var now = time.Date(2026, 5, 4, 3, 0, 0, 0, time.UTC)

// testAgent is an agent over a real fleet that keeps its tips in memory and remembers who made it act.
type testAgent struct {
	fleet    *inventory.Fleet
	ready    error
	status   Status
	actions  []remediation.Action
	ratings  []placement.Rating
	reserves []Reserve
	placed   placement.VMSpec // what was asked to be placed last
	failure  error            // what every act fails with
	packs    *rules.Set
	past     history.Querier
	proposal Proposal

	mu      sync.Mutex
	tips    []rules.Tip
	acts    []string
	notes   []AuditEntry
	audited AuditFilter // what was asked of the audit last
}

var _ Agent = (*testAgent)(nil)

func (a *testAgent) Ready(context.Context) error            { return a.ready }
func (a *testAgent) Status(context.Context) (Status, error) { return a.status, nil }
func (a *testAgent) Snapshot() *inventory.Snapshot          { return a.fleet.Snapshot() }

func (a *testAgent) Tips(context.Context) ([]rules.Tip, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.tips, nil
}

func (a *testAgent) Tip(_ context.Context, id string) (rules.Tip, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.tips {
		if t.ID == id {
			return t, nil
		}
	}
	return rules.Tip{}, fmt.Errorf("tip %q: %w", id, ErrNotFound)
}

func (a *testAgent) Actions(_ context.Context, f remediation.Filter) ([]remediation.Action, error) {
	var out []remediation.Action
	for _, action := range a.actions {
		if is(f.ID, action.ID) && is(f.TipID, action.TipID) && among(f.States, action.State) && (f.Limit == 0 || len(out) < f.Limit) {
			out = append(out, action)
		}
	}
	return out, nil
}

func (a *testAgent) Place(_ context.Context, vm placement.VMSpec) ([]placement.Rating, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.placed = vm
	return a.ratings, nil
}

func (a *testAgent) Reserves(context.Context) ([]Reserve, error) { return a.reserves, nil }

// act remembers an act: what, to what, by whom and why.
func (a *testAgent) act(by By, verb, object string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failure != nil {
		return a.failure
	}
	if by.Remote == "" {
		return errors.New("no remote address")
	}
	a.acts = append(a.acts, strings.TrimSpace(verb+" "+object+" by "+by.Who+" because "+by.Why))
	return nil
}

func (a *testAgent) taken() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.acts
}

// reset forgets what was done, and does again what was undone.
func (a *testAgent) reset() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.acts = nil
}

func (a *testAgent) Implement(ctx context.Context, by By, id string, downtime bool) ([]remediation.Action, error) {
	t, err := a.Tip(ctx, id)
	if err != nil {
		return nil, err
	}
	if t.State != rules.Active {
		return nil, fmt.Errorf("tip %s is %s: %w", id, t.State, ErrConflict)
	}
	if downtime {
		return a.actions[:1], a.act(by, "implement with downtime", id)
	}
	return a.actions[:1], a.act(by, "implement", id)
}

func (a *testAgent) Propose(ctx context.Context, id string) (Proposal, error) {
	_, err := a.Tip(ctx, id)
	return a.proposal, err
}

func (a *testAgent) ProposeHost(context.Context, HostRequest) (Proposal, error) {
	return a.proposal, nil
}

func (a *testAgent) ImplementHost(_ context.Context, by By, r HostRequest, agreed Agreement) ([]remediation.Action, error) {
	if agreed.Plan != "" && agreed.Plan != a.proposal.ID {
		return nil, fmt.Errorf("the plan is %s now: %w", a.proposal.ID, ErrConflict)
	}
	return a.actions[:1], a.act(by, string(r.What), r.Host.String())
}

func (a *testAgent) Cancel(_ context.Context, by By, id string) (remediation.Action, error) {
	return a.actions[0], a.act(by, "cancel", id)
}

func (a *testAgent) Resolve(_ context.Context, by By, id string, as remediation.State) (remediation.Action, error) {
	return a.actions[0], a.act(by, "resolve", id+" as "+string(as))
}

func (a *testAgent) Dismiss(ctx context.Context, by By, id string, d time.Duration) (rules.Tip, error) {
	t, err := a.Tip(ctx, id)
	if err != nil {
		return t, err
	}
	t.State, t.DismissedUntil = rules.Dismissed, now.Add(d)
	return t, a.act(by, "dismiss", id+" for "+d.String())
}

func (a *testAgent) Undismiss(ctx context.Context, by By, id string) (rules.Tip, error) {
	t, err := a.Tip(ctx, id)
	if err != nil {
		return t, err
	}
	t.State = rules.Active
	return t, a.act(by, "undismiss", id)
}

func (a *testAgent) Pause(_ context.Context, by By, source string) error {
	return a.act(by, "pause", source)
}

func (a *testAgent) Resume(_ context.Context, by By, source string) error {
	return a.act(by, "resume", source)
}

func (a *testAgent) Packs() *rules.Set { return a.packs }

func (a *testAgent) Report(ctx context.Context, name string, r report.Request) (report.Report, error) {
	r.Past, r.Ceiling = a.past, 0.8
	return report.Make(ctx, name, r)
}

// past is two days of the hosts of hotAgent.
var past = sync.OnceValue(func() history.Querier {
	var all []history.Series
	for ref, name := range map[string]string{"host-1": "esx1.example", "host-2": "esx2.example"} {
		id := fmt.Sprintf(`source="muc",host=%q,host_id=%q`, name, ref)
		for series, values := range map[string]string{
			`virt_host_info{` + id + `,virt_cluster="prod",cluster_id="c1"}`: "1x576",
			`virt_host_cpu_usage_hertz{` + id + `}`:                          "1e10+1e6x576",
			`virt_host_cpu_capacity_hertz{` + id + `}`:                       "4e10x576",
			`virt_host_memory_usage_bytes{` + id + `}`:                       "1e11x576",
			`virt_host_memory_capacity_bytes{` + id + `}`:                    "2e11x576",
		} {
			parsed, err := promql.ParseSeries(series, values, now.Add(-48*time.Hour), 5*time.Minute)
			if err != nil {
				panic(err)
			}
			all = append(all, parsed)
		}
	}
	return promql.Memory(all...)
})

// shippedPacks are all that come with protip.
var shippedPacks = sync.OnceValue(func() *rules.Set {
	var files []rules.File
	for _, name := range packs.Names() {
		f, err := packs.File(name)
		if err != nil {
			panic(err)
		}
		files = append(files, f)
	}
	set, err := rules.Load(files, rules.Options{})
	if err != nil {
		panic(err)
	}
	return set
})

func (a *testAgent) Note(_ context.Context, by By, what, object string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := AuditEntry{
		Seq: int64(len(a.notes) + 1), At: now, Who: by.Who, What: what, Object: object, From: by.Remote, Why: by.Why, Result: "ok",
	}
	if err != nil {
		e.Result = err.Error()
	}
	a.notes = append(a.notes, e)
}

func (a *testAgent) AuditLog(_ context.Context, f AuditFilter) ([]AuditEntry, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.audited = f
	out := slices.Clone(a.notes)
	slices.Reverse(out)
	return out[:min(len(out), f.Limit)], nil
}

func (a *testAgent) Reload(_ context.Context, by By) error { return a.act(by, "reload", "") }

// hotAgent has a hot host, a calm one, one whose numbers are too old, two VMs of one name, a source that never answered,
// a tip about the hot host and a migration under way.
func hotAgent(t testing.TB) *testAgent {
	t.Helper()
	fleet := inventory.NewFleet(
		inventory.Source{Name: "muc", Platform: "vsphere", Interval: 20 * time.Second},
		inventory.Source{Name: "ber", Platform: "vsphere", Interval: 20 * time.Second},
	)
	at := now.Add(-5 * time.Second)
	delta := inventory.Delta{
		Source: "muc", Begin: true, Synced: true,
		Clusters: []inventory.Cluster{{
			ID: muc("cluster", "c1"), Name: "prod",
			DRS: inventory.DRS{Enabled: true, Automation: inventory.AutomationManual},
			HA:  inventory.HA{Enabled: true, AdmissionControl: true, Policy: "host_failures", HostFailures: 1},
		}},
		Hosts: []inventory.Host{
			testHost("host-1", "esx1.example"), testHost("host-2", "esx2.example"), testHost("host-3", `<script>"esx3"`),
		},
		VMs: []inventory.VM{
			testVM("vm-1", "web", "host-1"), testVM("vm-2", "db", "host-1"), testVM("vm-3", "db", "host-2"),
			{ID: muc("vm", "vm-4"), Name: "off", Host: muc("host", "host-2"), Power: inventory.PowerOff, Template: true},
		},
		Samples: []inventory.SampleSet{
			hostSamples("host-1", at, 0.93, 0.71, 0.12), hostSamples("host-2", at, 0.31, 0.4, 0),
			hostSamples("host-3", now.Add(-5*time.Minute), 0.5, 0.5, 0.01),
			vmSamples("vm-1", at, 4.1e9), vmSamples("vm-3", at, 0),
		},
	}
	if _, err := fleet.Apply(delta, at); err != nil {
		t.Fatal(err)
	}
	fleet.Expire(now)

	active := rules.Tip{
		ID: "a1b2c3", Pack: "host-pressure", Rule: "HostCPUOverload", Severity: rules.Warning,
		Object: muc("host", "host-1"), Name: "esx1.example", Cluster: muc("cluster", "c1"), State: rules.Active,
		Summary:  "esx1.example at 93 % for 5 min, its VMs wait 12 % of the time",
		Evidence: []rules.Evidence{{Name: "cpu_usage_ratio", Value: 0.93, Unit: "ratio", At: at}, {Name: "cpu_contention_ratio", Value: 0.12, Unit: "ratio", At: at}},
		Remedy:   rules.Remedy{Action: "rebalance-host"}, Since: now.Add(-6 * time.Minute), ActiveAt: now.Add(-time.Minute), UpdatedAt: now,
	}
	unknown := active
	unknown.ID, unknown.State, unknown.Object, unknown.Name = "d4e5f6", rules.Unknown, muc("host", "host-3"), `<script>"esx3"`
	unknown.Summary, unknown.NoDataSince = "esx3 was hot", now.Add(-5*time.Minute)
	return &testAgent{
		fleet: fleet,
		packs: shippedPacks(),
		past:  past(),
		tips:  []rules.Tip{unknown, active},
		status: Status{
			Version: "0.1.0", Now: now, StartedAt: now.Add(-time.Hour), Remediation: Manual, PausedSources: []string{"ber"},
		},
		actions: []remediation.Action{
			{
				ID: "act-2", TipID: "a1b2c3", Kind: remediation.LiveMigration, VM: muc("vm", "vm-1"), VMName: "web",
				From: muc("host", "host-1"), FromName: "esx1.example", To: muc("host", "host-2"), ToName: "esx2.example",
				Why: "most room: CPU 31 % now, 58 % after", By: "automatic", State: remediation.Started, TaskRef: "task-9",
				Progress: 0.4, PlannedAt: now.Add(-30 * time.Second), StartingAt: now.Add(-20 * time.Second),
			},
			{
				ID: "act-1", TipID: "a1b2c3", Kind: remediation.LiveMigration, VM: muc("vm", "vm-2"), VMName: "db",
				From: muc("host", "host-1"), FromName: "esx1.example", To: muc("host", "host-2"), ToName: "esx2.example",
				Why: "most room", By: "operator token", State: remediation.Done, Verified: true, Progress: 1,
				Outcome: remediation.Recovered, PlannedAt: now.Add(-26 * time.Hour), EndedAt: now.Add(-25 * time.Hour),
			},
		},
		proposal: Proposal{
			ID: "p1", Decision: remediation.Decision{Verdict: remediation.Manual, Why: "a person implements it"},
			Waves: [][]ProposedMove{{{
				Step: placement.Step{
					VM: muc("vm", "vm-1"), Name: "web", From: muc("host", "host-1"), To: muc("host", "host-2"), Kind: placement.MoveLive, For: "relief",
					Why: "most room", GainedHertz: 2e9, Cost: placement.Cost{CopyBytes: 8 << 30},
				},
				FromName: "esx1.example", ToName: "esx2.example", Stars: 4.5,
			}}},
		},
		ratings: []placement.Rating{{
			Host: muc("host", "host-2"), Name: "esx2.example", Stars: 4.5, Before: placement.Load{CPURatio: 0.31, MemoryRatio: 0.4},
			After: placement.Load{CPURatio: 0.58, MemoryRatio: 0.45}, Reasons: []placement.Reason{{Code: "cpu_room", Text: "CPU 58 % after"}},
		}},
	}
}

func muc(kind, ref string) inventory.ID {
	id, err := inventory.ParseID("muc/" + kind + "/" + ref)
	if err != nil {
		panic(err)
	}
	return id
}

func testHost(ref, name string) inventory.Host {
	return inventory.Host{
		ID: muc("host", ref), Name: name, Cluster: muc("cluster", "c1"), Connection: inventory.Connected, Power: inventory.PowerOn,
		Cores: 16, CPUHertz: 16 * 2.6e9, MemoryBytes: 256 << 30,
	}
}

func testVM(ref, name, host string) inventory.VM {
	return inventory.VM{
		ID: muc("vm", ref), Name: name, Host: muc("host", host), Connection: inventory.Connected, Power: inventory.PowerOn,
		VCPUs: 4, MemoryBytes: 8 << 30,
	}
}

func hostSamples(ref string, at time.Time, cpu, memory, contention float64) inventory.SampleSet {
	return inventory.SampleSet{ID: muc("host", ref), At: at.UnixMilli(), Values: []inventory.Value{
		{Metric: inventory.HostCPUUsageRatio, Value: cpu},
		{Metric: inventory.HostMemoryUsageRatio, Value: memory},
		{Metric: inventory.HostCPUContention, Value: contention},
	}}
}

func vmSamples(ref string, at time.Time, hertz float64) inventory.SampleSet {
	return inventory.SampleSet{ID: muc("vm", ref), At: at.UnixMilli(), Values: []inventory.Value{
		{Metric: inventory.VMCPUUsage, Value: hertz},
	}}
}

// options serve an agent with the token of these tests, and an event stream that ends at once.
func options(a Agent) Options {
	events := NewEvents(now, slog.New(slog.DiscardHandler))
	events.Close()
	return Options{
		Agent:  a,
		Events: events,
		Pages: []Route{{Method: "GET", Path: "/{$}", Needs: Viewer, Page: true, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "a page\n")
		})}},
		Metrics:       http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "protip_up 1\n") }),
		OperatorToken: func() (string, error) { return token + "\n", nil },
		Log:           slog.New(slog.DiscardHandler),
	}
}

// do sends one request and returns the answer.
func do(h http.Handler, method, target, body string, edit ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for _, f := range edit {
		f(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func bearer(secret string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+secret) }
}
