package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/history/promql"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/placement"
	"github.com/protip/protip/internal/web"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
	"github.com/protip/protip/rules/packs"
	"github.com/protip/protip/rules/report"
)

var now = time.Date(2026, 5, 4, 3, 0, 0, 0, time.UTC)

const token = "correct-horse-battery-staple"

// stage is an agent over a real fleet, real packs, real placement and a real PromQL engine, that acts by writing down what it was told.
type stage struct {
	fleet    *inventory.Fleet
	set      *rules.Set
	past     history.Querier
	status   web.Status
	ready    error
	list     []rules.Tip
	journal  []remediation.Action
	reserves []web.Reserve
	trail    []web.AuditEntry

	mu   sync.Mutex
	acts []string
}

var _ web.Agent = (*stage)(nil)

func (s *stage) Ready(context.Context) error                { return s.ready }
func (s *stage) Status(context.Context) (web.Status, error) { return s.status, nil }
func (s *stage) Snapshot() *inventory.Snapshot              { return s.fleet.Snapshot() }
func (s *stage) Tips(context.Context) ([]rules.Tip, error)  { return s.list, nil }

func (s *stage) Tip(_ context.Context, id string) (rules.Tip, error) {
	for _, t := range s.list {
		if t.ID == id {
			return t, nil
		}
	}
	return rules.Tip{}, fmt.Errorf("tip %q: %w", id, web.ErrNotFound)
}

func (s *stage) Actions(_ context.Context, f remediation.Filter) ([]remediation.Action, error) {
	var out []remediation.Action
	for _, a := range s.journal {
		states := len(f.States) == 0
		for _, st := range f.States {
			states = states || st == a.State
		}
		if states && (f.TipID == "" || f.TipID == a.TipID) && (f.Limit == 0 || len(out) < f.Limit) {
			out = append(out, a)
		}
	}
	return out, nil
}

func (s *stage) Place(_ context.Context, vm placement.VMSpec) ([]placement.Rating, error) {
	snap := s.fleet.Snapshot()
	return placement.Rate(snap, placement.Observed(snap), vm, policy), nil
}

var policy = placement.Policy{Ceiling: 0.85, Weights: placement.Weights{CPU: 1, Memory: 1}}

func (s *stage) Reserves(context.Context) ([]web.Reserve, error) { return s.reserves, nil }

// Propose relieves the tip's host.
func (s *stage) Propose(ctx context.Context, id string) (web.Proposal, error) {
	t, err := s.Tip(ctx, id)
	if err != nil || t.Object.Kind != inventory.KindHost {
		return web.Proposal{}, errors.Join(err, errors.New("it moves nothing"))
	}
	snap := s.fleet.Snapshot()
	relief := placement.Relieve(snap, placement.Observed(snap), t.Object, placement.Goal{CPURatio: 0.65}, policy)
	out := web.Proposal{ID: "p", Why: relief.Why, Decision: remediation.Decision{Verdict: remediation.Manual, Why: "a person decides"}}
	for _, m := range relief.Moves {
		out.Waves = append(out.Waves, []web.ProposedMove{{
			Step:     placement.Step{VM: m.VM, Name: m.Name, From: m.From, To: m.To, Kind: m.Kind, Why: m.Rating.Words(), Cost: placement.Cost{CopyBytes: 6 << 30}},
			FromName: hostName(snap, m.From), ToName: hostName(snap, m.To), Stars: m.Rating.Stars,
		}})
	}
	return out, nil
}

// ProposeHost empties the host, and leaves the one VM that nothing takes.
func (s *stage) ProposeHost(_ context.Context, r web.HostRequest) (web.Proposal, error) {
	if r.What == web.Fill {
		return web.Proposal{}, fmt.Errorf("%w: its numbers are too old", web.ErrConflict)
	}
	snap := s.fleet.Snapshot()
	course := placement.Plan(snap, placement.Observed(snap), placement.Rebalance{Only: true, Evacuate: []inventory.ID{r.Host}}, policy)
	out := web.Proposal{
		ID: "p", Left: course.Left, Decision: remediation.Decision{Verdict: remediation.Manual, Why: "a person decides"},
		Kept: []placement.Kept{{Cluster: id(inventory.KindCluster, "c1"), Name: "prod", Reserve: 1, Before: placement.Admitted, Why: "cluster prod keeps its reserve of one host at every step"}},
	}
	for _, wave := range course.Waves {
		var moves []web.ProposedMove
		for _, step := range wave {
			moves = append(moves, web.ProposedMove{Step: step, FromName: hostName(snap, step.From), ToName: hostName(snap, step.To)})
		}
		out.Waves = append(out.Waves, moves)
	}
	return out, nil
}

func (s *stage) ImplementHost(_ context.Context, by web.By, r web.HostRequest, a web.Agreement) ([]remediation.Action, error) {
	return nil, s.did(by, string(r.What), r.Host.String(), a.Plan, fmt.Sprint(a.Downtime))
}

func (s *stage) Packs() *rules.Set { return s.set }

func (s *stage) Report(ctx context.Context, name string, r report.Request) (report.Report, error) {
	r.Past, r.Ceiling = s.past, 0.8
	return report.Make(ctx, name, r)
}

func (s *stage) Note(_ context.Context, by web.By, what, object string, err error) {}

func (s *stage) AuditLog(_ context.Context, f web.AuditFilter) ([]web.AuditEntry, error) {
	return s.trail[:min(f.Limit, len(s.trail))], nil
}

// did writes an act down.
func (s *stage) did(by web.By, what ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acts = append(s.acts, strings.TrimSpace(strings.Join(what, " ")+" by "+by.Who+" because "+by.Why))
	return nil
}

func (s *stage) Implement(_ context.Context, by web.By, id string, downtime bool) ([]remediation.Action, error) {
	return nil, s.did(by, "implement", id, fmt.Sprint(downtime))
}

func (s *stage) Dismiss(_ context.Context, by web.By, id string, d time.Duration) (rules.Tip, error) {
	return rules.Tip{}, s.did(by, "dismiss", id, d.String())
}

func (s *stage) Undismiss(_ context.Context, by web.By, id string) (rules.Tip, error) {
	return rules.Tip{}, s.did(by, "undismiss", id)
}

func (s *stage) Resolve(_ context.Context, by web.By, id string, as remediation.State) (remediation.Action, error) {
	return remediation.Action{}, s.did(by, "resolve", id, string(as))
}

func (s *stage) Cancel(_ context.Context, by web.By, id string) (remediation.Action, error) {
	return remediation.Action{}, s.did(by, "cancel", id)
}

func (s *stage) Pause(_ context.Context, by web.By, source string) error {
	return s.did(by, "pause", source)
}

func (s *stage) Resume(_ context.Context, by web.By, source string) error {
	return s.did(by, "resume", source)
}
func (s *stage) Reload(context.Context, web.By) error { return nil }

func id(kind inventory.Kind, ref string) inventory.ID {
	return inventory.ID{Source: "muc", Kind: kind, Ref: ref}
}

func hostID(ref string) inventory.ID { return id(inventory.KindHost, ref) }
func vmID(ref string) inventory.ID   { return id(inventory.KindVM, ref) }

// hot is a fleet with a hot host, a calm one, one whose numbers are too old, a VM of which nothing is known, a source that never answered,
// a tip of each state, a migration under way and some that are over.
func hot(t testing.TB) *stage {
	t.Helper()
	at := now.Add(-5 * time.Second)
	d := inventory.Delta{Source: "muc", Begin: true, Synced: true, Clusters: []inventory.Cluster{{ID: id(inventory.KindCluster, "c1"), Name: "prod"}}}
	host := func(ref, name string, at time.Time, cpu, waits float64) {
		d.Hosts = append(d.Hosts, inventory.Host{
			ID: hostID(ref), Name: name, Cluster: id(inventory.KindCluster, "c1"), Connection: inventory.Connected, Power: inventory.PowerOn,
			Cores: 16, CPUHertz: 16 * 2.5e9, MemoryBytes: 256 << 30,
		})
		d.Samples = append(d.Samples, inventory.SampleSet{ID: hostID(ref), At: at.UnixMilli(), Values: []inventory.Value{
			{Metric: inventory.HostCPUUsageRatio, Value: cpu},
			{Metric: inventory.HostMemoryUsageRatio, Value: 0.5},
			{Metric: inventory.HostCPUUsage, Value: cpu * 16 * 2.5e9},
			{Metric: inventory.HostMemoryUsage, Value: 128 << 30},
			{Metric: inventory.HostCPUContention, Value: waits},
			{Metric: inventory.HostCPUContentionMax, Value: 2 * waits},
		}})
	}
	vm := func(ref, name, on string, hertz float64) {
		d.VMs = append(d.VMs, inventory.VM{
			ID: vmID(ref), Name: name, Host: hostID(on), Connection: inventory.Connected, Power: inventory.PowerOn, VCPUs: 4, MemoryBytes: 8 << 30,
		})
		if hertz > 0 {
			d.Samples = append(d.Samples, inventory.SampleSet{ID: vmID(ref), At: at.UnixMilli(), Values: []inventory.Value{
				{Metric: inventory.VMCPUUsage, Value: hertz}, {Metric: inventory.VMCPUContention, Value: 0.1}, {Metric: inventory.VMMemoryUsage, Value: 6 << 30},
			}})
		}
	}
	host("h1", "esx1.example", at, 0.93, 0.12)
	host("h2", "esx2.example", at, 0.31, 0)
	host("h3", "esx3.example", now.Add(-5*time.Minute), 0.5, 0.01)
	vm("vm1", "web", "h1", 6e9)
	vm("vm2", "db", "h1", 7e9)
	vm("vm3", "db", "h2", 1e9)
	vm("vm4", "silent", "h3", 0)
	d.VMs = append(d.VMs, inventory.VM{ID: vmID("vm5"), Name: "asleep", Host: hostID("h2"), Power: inventory.PowerOff})
	d.Networks = []inventory.Network{{ID: id(inventory.KindNetwork, "dvportgroup-7"), Name: "storefront"}}
	d.VMs[slices.IndexFunc(d.VMs, func(v inventory.VM) bool { return v.ID == vmID("vm1") })].Networks = []inventory.ID{d.Networks[0].ID}
	d.Services = []inventory.Service{{ID: id(inventory.KindService, "s1"), Name: "shop", VM: vmID("vm1"), Type: "http", State: inventory.ServiceFailed}}
	fleet := inventory.NewFleet(
		inventory.Source{Name: "muc", Platform: "vsphere", Interval: 20 * time.Second},
		inventory.Source{Name: "ber", Platform: "hyperv", Interval: 20 * time.Second},
	)
	if _, err := fleet.Apply(d, at); err != nil {
		t.Fatal(err)
	}
	fleet.Down("ber", errors.New("ber: connection refused"))
	fleet.Expire(now)
	s := &stage{fleet: fleet, set: shipped(t), past: pastOf("h1", "h3")}
	s.status = web.Status{Version: "0.1.0", Now: now, StartedAt: now.Add(-time.Hour), Remediation: web.Manual, PausedSources: []string{"ber"}}
	s.tell()
	return s
}

// tell is what there is to tell of the fleet.
func (s *stage) tell() {
	at := now.Add(-5 * time.Second)
	active := rules.Tip{
		ID: "a1b2c3", Episode: 1, Pack: "host-pressure", PackSHA256: strings.Repeat("ab", 32), Rule: "HostCPUOverload", Severity: rules.Warning,
		Object: hostID("h1"), Name: "esx1.example", Cluster: id(inventory.KindCluster, "c1"), State: rules.Active,
		Summary: "esx1.example uses 93% of its CPU", Cause: "host.cpu_usage_ratio > 0.85 && host.cpu_contention_ratio > 0.05 for 5m",
		Evidence: []rules.Evidence{
			{Name: "host.cpu_usage_ratio", Value: 0.93, Unit: "ratio", At: at}, {Name: "host.cpu_contention_ratio", Value: 0.12, Unit: "ratio", At: at},
		},
		Remedy: rules.Remedy{Action: rules.RebalanceHost, CPUBelow: 0.65}, Since: now.Add(-20 * time.Minute), ActiveAt: now.Add(-15 * time.Minute), UpdatedAt: now,
	}
	for i, st := range states {
		t := active
		if t.State = st; st != rules.Active {
			t.ID = fmt.Sprintf("d4e5f%d", i)
		}
		switch st {
		case rules.Unknown:
			t.Object, t.Name, t.Was, t.NoDataSince, t.Summary = hostID("h3"), "esx3.example", rules.Active, now.Add(-5*time.Minute), "esx3.example was hot"
		case rules.Dismissed:
			t.DismissedUntil = now.Add(8 * time.Hour)
		case rules.Resolved:
			t.ResolvedAt, t.ResolvedWhy = now.Add(-2*time.Minute), "host.cpu_usage_ratio < 0.7"
		case rules.Pending:
			t.ActiveAt = time.Time{}
		}
		s.list = append(s.list, t)
	}
	move := remediation.Action{
		ID: "act-2", PlanID: "p2", TipID: "a1b2c3", Cluster: id(inventory.KindCluster, "c1"), Kind: remediation.LiveMigration, VM: vmID("vm1"), VMName: "web",
		From: hostID("h1"), FromName: "esx1.example", To: hostID("h2"), ToName: "esx2.example", Why: "4 stars: CPU 31 % -> 58 %", By: "anna",
		State: remediation.Started, TaskRef: "task-9", Progress: 0.4, PlannedAt: now.Add(-30 * time.Second), StartingAt: now.Add(-20 * time.Second),
	}
	done, lost, failed := move, move, move
	done.ID, done.PlanID, done.State, done.Verified, done.Outcome, done.EndedAt = "act-1", "p1", remediation.Done, true, remediation.Recovered, now.Add(-10*time.Minute)
	lost.ID, lost.PlanID, lost.State, lost.Error = "act-0", "p0", remediation.Unknown, "the answer was lost"
	failed.ID, failed.PlanID, failed.State, failed.Error, failed.Fault, failed.EndedAt = "act-f", "pf", remediation.Failed, "no room", true, now.Add(-time.Hour)
	s.journal = []remediation.Action{move, lost, done, failed}
	s.reserves = []web.Reserve{{
		Admission: &placement.Admission{Cluster: id(inventory.KindCluster, "c1"), Name: "prod", Reserve: 1, Answer: placement.Admitted, Why: "any host may fail"},
		Source:    "muc", Asked: "configuration",
	}}
	s.trail = []web.AuditEntry{{At: now.Add(-time.Minute), Who: "anna", What: "implement", Object: "a1b2c3", ID: hostID("h1"), From: "192.0.2.1:5", Why: "it is hot", Result: "ok"}}
}

func shipped(t testing.TB) *rules.Set {
	t.Helper()
	set, err := loadShipped()
	if err != nil {
		t.Fatal(err)
	}
	return set
}

var loadShipped = sync.OnceValues(func() (*rules.Set, error) {
	var files []rules.File
	for _, name := range packs.Names() {
		f, err := packs.File(name)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return rules.Load(files, rules.Options{})
})

// pastOf is a day of hosts' CPU and contention. That of h3 ends five minutes ago.
func pastOf(hosts ...string) history.Querier {
	var all []history.Series
	for _, ref := range hosts {
		for _, m := range []inventory.Metric{inventory.HostCPUUsageRatio, inventory.HostCPUContention} {
			s := history.Series{Labels: history.Labels{{Name: "__name__", Value: m.String()}, {Name: "host_id", Value: ref}, {Name: "source", Value: "muc"}}}
			for at := now.Add(-24 * time.Hour); !at.After(now); at = at.Add(time.Minute) {
				if ref == "h3" && at.After(now.Add(-5*time.Minute)) {
					break
				}
				s.Points = append(s.Points, history.Point{T: at.UnixMilli(), V: 0.5 + 0.4*math.Sin(float64(at.Unix())/9000)})
			}
			all = append(all, s)
		}
	}
	return promql.Memory(all...)
}

// serve is the whole handler over an agent, as the app makes it. With open, everybody reads.
func (s *stage) serve(t testing.TB, edit ...func(*web.Options)) http.Handler {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	c := New(Options{
		Agent: s, Past: s.past, Log: log,
		Trials: func(m history.Matrix) history.Querier { return promql.Memory(m...) },
	})
	t.Cleanup(c.Close)
	events := web.NewEvents(now, log)
	events.Close()
	o := web.Options{
		Agent: s, Events: events, Pages: c.Routes(), ShowError: c.ShowError, Log: log,
		Metrics:       http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "protip_up 1\n") }),
		OperatorToken: func() (string, error) { return token, nil },
	}
	for _, f := range edit {
		f(&o)
	}
	return web.New(o)
}

func do(h http.Handler, method, target string, fields url.Values, edit ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(fields.Encode()))
	if fields != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, f := range edit {
		f(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func operator(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }

// addresses are a page of each kind, of the hot stage.
var addresses = []string{
	"/", "/?state=all&group=severity", "/?state=all&group=age", "/?state=resolved&group=rule&severity=warning&source=muc", "/?state=dismissed", "/tips/a1b2c3", "/tips/a1b2c3?vm=muc%2Fvm%2Fvm1", "/tips/d4e5f1", "/tips/d4e5f2", "/tips/d4e5f3", "/tips/d4e5f4", "/tips/d4e5f5",
	"/fleet", "/clusters/muc/cluster/c1", "/hosts/muc/host/h1", "/hosts/muc/host/h3", "/plan?host=muc/host/h1", "/plan?what=free&host=muc/host/h2", "/plan?what=fill&host=muc/host/h1", "/vms", "/vms?sort=-cpu&q=d&power=on", "/vms?page=9", "/vms?q=nobody",
	"/vms/muc/vm/vm1", "/vms/muc/vm/vm4", "/vms/muc/vm/vm5", "/search", "/search?q=es", "/search?q=zzz", "/actions", "/actions?outcome=recovered", "/sources",
	"/reports", "/reports/host-utilization", "/reports/growth?since=1d", "/packs", "/packs/host-pressure/replay", "/packs/host-pressure/replay?since=7d", "/audit", "/audit?since=30d&result=refused&before=5",
}
