package app_test

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	promconfig "github.com/prometheus/common/config"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/history/remote"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/sim/hyperv"
	"github.com/protip/protip/internal/sim/load"
	"github.com/protip/protip/rules"
	"github.com/protip/protip/rules/packs"
	"github.com/protip/protip/rules/report"
	"github.com/protip/protip/test/prom"
)

const (
	scrapedCycle = 2 * time.Second        // of the sources and of the evaluation
	scrapedEvery = 400 * time.Millisecond // a mean over ten seconds must not be 2 % off for when it was seen
	scrapedFor   = 96 * time.Second
	// scrapedCalm is when nothing has changed for as long as the rules then look back; as long as they look back at the end, nothing has by then.
	scrapedCalm = 42 * time.Second
)

// TestSameOverScrapes lets an agent watch a Hyper-V cluster in real time, with its own history, while a real Prometheus scrapes it. Then the
// shipped packs, in seconds instead of minutes and days, and the reports are asked over both: the same tips within one cycle and the same
// numbers within 2 %. In between a node is hot, a VM migrates away from it, one is destroyed and a service is slow. The VM that moves breaks
// no rule, and no past of it is charged to its new host. It is real time that is held here, which the race detector bends: make e2e runs it.
func TestSameOverScrapes(t *testing.T) {
	if os.Getenv("PROTIP_E2E") == "" {
		t.Log("not asked for")
		return
	}
	prom.Tool(t, "prometheus")
	r := newRig(t, 1)
	w := newScrapedWorld(t, r)
	r.config["evaluation_interval"] = scrapedCycle.String()
	r.config["packs"] = map[string]any{"shipped": []any{}, "files": hurried(t, r)}
	delete(r.config, "remediation")
	r.write()
	// The cluster answers when both are there, so that neither knows of more than the other.
	w.cluster.Stop()
	a := r.start()
	server := prom.StartEvery(t, scrapedEvery, map[string]string{"protip": a.atOnce()})
	server.Wait(t, `protip_source_up{source="hv"} == 0 and on () protip_source_up{source="guests"} == 1`, deadline, func(s []prom.Sample) bool { return len(s) == 1 })
	if err := w.cluster.Start(); err != nil {
		t.Fatal(err)
	}
	a.awaitUp("hv")
	began := time.Now()
	moved := w.play(t, began, a)
	ended := a.collected("hv-01").Add(scrapedEvery / 2)

	near := asked(t, a.url+"/prometheus")
	far := asked(t, server.URL)
	// A Prometheus sees a change as it is collected, the agent's own history at the next evaluation. In a range that begins and ends with a
	// collection of the host that is hot, both have it for as long.
	over := history.Range{Start: ended.Add(-ended.Sub(began).Truncate(scrapedCycle)), End: ended.Add(-scrapedCycle), Step: scrapedCycle}

	a.scrape().each("protip_rule_failures_total", nil, func(labels map[string]string, n float64) {
		if n > 0 {
			t.Errorf("rule %s failed on %v objects", labels["rule"], n)
		}
	})
	t.Run("tips", func(t *testing.T) { sameEpisodes(t, r, near, far, over) })
	t.Run("queries", func(t *testing.T) { sameAnswers(t, r, near, far, over) })
	t.Run("reports", func(t *testing.T) {
		whole := over
		whole.Step = 5 * scrapedCycle
		for _, name := range []string{"vm-allocation", "vm-utilization", "host-utilization", "growth"} {
			sameReport(t, name, report.Scope{}, whole, near, far)
		}
		// What the VM used on its old host is not of its new one: from there on it is as idle as the others.
		for _, on := range []string{"hv-01", "hv-02"} {
			sameReport(t, "vm-utilization", report.Scope{Host: on}, whole, near, far)
		}
		for i, past := range []history.Querier{near, far} {
			made, err := report.Make(t.Context(), "vm-utilization", report.Request{Past: past, Range: whole, Scope: report.Scope{Host: "hv-02"}})
			if err != nil {
				t.Fatal(err)
			}
			if most := cellOf(made.Tables[0], moved, "cpu_max_hertz"); !(most > 0 && most < 4*w.hertz) {
				t.Errorf("history %d charges the VM with %g Hz on its new host, where it never used more than 2 of its cores' %g", i, most, w.hertz)
			}
			made, err = report.Make(t.Context(), "vm-utilization", report.Request{Past: past, Range: whole, Scope: report.Scope{Host: "hv-01"}})
			if err != nil {
				t.Fatal(err)
			}
			if most := cellOf(made.Tables[0], moved, "cpu_max_hertz"); !(most > 5*w.hertz) {
				t.Errorf("history %d says that the VM used %g Hz on its old host, where it used 8 cores of %g", i, most, w.hertz)
			}
		}
	})
}

// collected is when the next samples of a host come. Hosts of one source are asked one after the other.
func (a *agent) collected(name string) time.Time {
	a.t.Helper()
	last := func() (at int64) {
		for h := range a.Snapshot().Hosts() {
			if h.Name == name {
				at = h.Samples.Of(inventory.HostCPUUsage).At
			}
		}
		return at
	}
	for before, late := last(), time.Now().Add(deadline); last() == before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(late) {
			a.t.Fatalf("no samples of %s come", name)
		}
	}
	return time.Now()
}

// atOnce is an address that answers scrapes at once, with what the agent has told within the last moments: a scrape that a busy machine loses is a
// gap that the agent's own history does not have.
func (a *agent) atOnce() string {
	var told atomic.Pointer[[]byte]
	tell := func() {
		w := httptest.NewRecorder()
		a.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		body := w.Body.Bytes()
		told.Store(&body)
	}
	tell()
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(scrapedEvery / 5):
				tell()
			}
		}
	}()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = w.Write(*told.Load())
	}))
	a.t.Cleanup(server.Close)
	a.t.Cleanup(func() { close(done) })
	return strings.TrimPrefix(server.URL, "http://")
}

// scrapedWorld is a cluster of three nodes and a service in one of its guests.
type scrapedWorld struct {
	cluster *hyperv.Cluster
	slow    atomic.Bool
	hertz   float64 // of a core
}

func newScrapedWorld(t *testing.T, r *rig) *scrapedWorld {
	t.Helper()
	vms := func(names ...string) (out []hyperv.VM) {
		for _, name := range names {
			memory := float64(8 << 30)
			if strings.HasPrefix(name, "big") {
				memory = 24 << 30
			}
			out = append(out, hyperv.VM{Name: name, VCPUs: 8, MemoryBytes: memory, Dynamic: true})
		}
		return out
	}
	w := &scrapedWorld{}
	var err error
	w.cluster, err = hyperv.New(hyperv.Options{
		Clock: r.clock, MigrationTime: func(float64) time.Duration { return time.Second },
		Nodes: []hyperv.Node{
			{Cores: 16, MemoryBytes: 16 << 30, VMs: vms("mover", "worker")},
			{Cores: 16, MemoryBytes: 32 << 30, VMs: vms("calm", "idle", "gone")},
			{Cores: 16, MemoryBytes: 36 << 30, VMs: vms("big-1", "big-2", "big-3")}, // more is promised than there is
		},
		Volumes: []hyperv.Volume{{Name: "full", TotalBytes: 1e12, FreeBytes: 5e10}, {Name: "roomy", TotalBytes: 1e12, FreeBytes: 8e11}},
		Load:    load.Steady(load.Use{CPU: 0.15, MemoryConsumed: 0.3, MemoryActive: 0.2, NetReceived: 4e6, NetTransmitted: 2e6, DiskRead: 1e6}),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.cluster.Close)
	w.demand(t, "idle", 0.005)
	shop := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		if w.slow.Load() {
			time.Sleep(700 * time.Millisecond)
		}
	}))
	t.Cleanup(shop.Close)
	var hosts []string
	for _, n := range w.cluster.Nodes() {
		hosts = append(hosts, w.cluster.URL(n))
	}
	r.config["sources"] = []any{
		map[string]any{
			"name": "hv", "type": "hyperv", "hosts": hosts, "username": hyperv.DefaultUser, "password_file": r.file("hv.password", hyperv.DefaultPassword),
			"interval": scrapedCycle.String(),
		},
		map[string]any{
			"name": "guests", "type": "guest", "interval": scrapedCycle.String(),
			"probes": []any{map[string]any{"name": "shop", "http": shop.URL, "vm": "hv/calm"}},
		},
	}
	return w
}

func (w *scrapedWorld) vm(t *testing.T, name string) string {
	t.Helper()
	for _, id := range w.cluster.VMs() {
		if w.cluster.Truth(id).Name == name {
			return id
		}
	}
	t.Fatalf("the cluster has no VM %s", name)
	return ""
}

func (w *scrapedWorld) demand(t *testing.T, name string, cpu float64) {
	t.Helper()
	use := load.Use{CPU: cpu, MemoryConsumed: 0.3, MemoryActive: 0.2, NetReceived: 4e6, NetTransmitted: 2e6, DiskRead: 1e6}
	if err := w.cluster.SetDemand(w.vm(t, name), &use); err != nil {
		t.Fatal(err)
	}
}

// play lets the story happen and returns the reference of the VM that moved.
func (w *scrapedWorld) play(t *testing.T, began time.Time, a *agent) string {
	t.Helper()
	at := func(s int) { time.Sleep(time.Until(began.Add(time.Duration(s) * time.Second))) }
	mover := w.vm(t, "mover")
	for h := range a.Snapshot().Hosts() {
		w.hertz = h.CPUHertz / float64(h.Cores)
	}
	at(6)
	w.demand(t, "mover", 1)
	w.demand(t, "worker", 0.9)
	at(10)
	w.slow.Store(true)
	at(13) // between two steps of the reports
	if err := w.cluster.DestroyVM(w.vm(t, "gone")); err != nil {
		t.Fatal(err)
	}
	at(24)
	w.slow.Store(false)
	at(43)
	w.demand(t, "mover", 0.15) // its work is done before it moves: there is nothing of it to be charged to its new host
	at(47)
	if err := w.cluster.Move(mover, "hv-02", true); err != nil {
		t.Fatal(err)
	}
	at(int(scrapedFor / time.Second))
	for vm := range a.Snapshot().VMs() {
		if vm.Name == "mover" {
			if vm.Host.Ref != "hv-02" {
				t.Fatalf("mover is on %s", vm.Host.Ref)
			}
			return vm.ID.Ref
		}
	}
	t.Fatal("mover is gone")
	return ""
}

// shorter is what the shipped packs' lengths of time are in the test.
var shorter = map[string]string{
	"1m": "2s", "2m": "4s", "3m": "4s", "5m": "6s", "10m": "10s", "15m": "16s", "30m": "20s", "1h": "6s", "2h": "6s", "6h": "2s",
	"3d": "30s", "7d": "20s", "13d": "30s", "14d": "34s", "29d": "30s", "30d": "34s",
}

// hurried are the shipped packs in seconds.
func hurried(t *testing.T, r *rig) (files []any) {
	t.Helper()
	for _, name := range packs.Names() {
		file, err := packs.File(name)
		if err != nil {
			t.Fatal(err)
		}
		text, _, _ := strings.Cut(string(file.Text), "\ntests:")
		text = regexp.MustCompile(`:(1m|15m|1h)\]`).ReplaceAllString(text, ":2s]")
		text = strings.ReplaceAll(text, "604800", "40")
		text = regexp.MustCompile(`\[(1h|3d)\]`).ReplaceAllString(text, "[120s]") // what does not change is kept once a minute
		text = strings.ReplaceAll(text, "[15m]", "[20s]")
		text = regexp.MustCompile(`\b\d+[mhd]\b`).ReplaceAllStringFunc(text, func(long string) string {
			short, ok := shorter[long]
			if !ok {
				t.Errorf("%s: no short for %s", name, long)
			}
			return short
		})
		r.file(name+".yml", text)
		files = append(files, name+".yml")
	}
	return files
}

func hurriedSet(t *testing.T, r *rig) *rules.Set {
	t.Helper()
	var files []rules.File
	for _, f := range hurried(t, r) {
		file, err := rules.ReadFile(r.dir + "/" + f.(string))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	set, err := rules.Load(files, rules.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func asked(t *testing.T, url string) history.Querier {
	t.Helper()
	c, err := remote.New(remote.Options{URL: url, HTTP: promconfig.DefaultHTTPClientConfig, Timeout: time.Minute, Samples: 1e6})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// sameEpisodes replays the packs over both.
func sameEpisodes(t *testing.T, r *rig, near, far history.Querier, over history.Range) {
	t.Helper()
	set := hurriedSet(t, r)
	told := func(past history.Querier) map[string]rules.Episode {
		episodes, err := rules.Replay{Set: set, Past: past, Range: over, Platforms: map[string]string{"hv": "hyperv", "guests": "guest"}}.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]rules.Episode{}
		for _, e := range episodes {
			key := fmt.Sprint(e.Tip.Rule, " of ", e.Tip.Name)
			for n := 2; out[key].Tip.Rule != ""; n++ {
				key = fmt.Sprint(e.Tip.Rule, " of ", e.Tip.Name, " ", n)
			}
			out[key] = e
		}
		return out
	}
	a, b := told(near), told(far)
	seen := map[string]bool{}
	for key, e := range a {
		seen[e.Tip.Rule] = true
		f, ok := b[key]
		if !ok {
			t.Errorf("%s at %s: only the agent's own history says so", key, e.ActiveAt.Sub(over.Start))
			continue
		}
		for what, times := range map[string][2]time.Time{"active": {e.ActiveAt, f.ActiveAt}, "over": {e.EndedAt, f.EndedAt}} {
			if d := times[0].Sub(times[1]).Abs(); d > scrapedCycle {
				t.Errorf("%s: %s %s and %s after the start", key, what, times[0].Sub(over.Start), times[1].Sub(over.Start))
			}
		}
	}
	for key, e := range b {
		if _, ok := a[key]; !ok {
			t.Errorf("%s at %s: only Prometheus says so", key, e.ActiveAt.Sub(over.Start))
		}
	}
	for _, rule := range []string{
		"HostCPUOverload", "ClusterImbalanced", "VMOversizedCPU", "VMIdle", "ClusterMemoryOvercommitted", "ServiceSlow", "DatastoreAlmostFull",
	} {
		if !seen[rule] {
			t.Errorf("no tip of %s: the story is too short", rule)
		}
	}
}

// sameAnswers asks what the packs ask, at times when nothing has just changed.
func sameAnswers(t *testing.T, r *rig, near, far history.Querier, over history.Range) {
	t.Helper()
	answered := 0
	for _, q := range hurriedSet(t, r).Queries() {
		for _, at := range []time.Time{over.Start.Add(scrapedCalm), over.End} {
			if strings.Contains(q.Expr, "predict_linear") && at != over.End {
				continue // takes two samples, and of what does not change they are a minute apart
			}
			a, err := near.Query(t.Context(), q.Expr, at)
			if err != nil {
				t.Fatal(err)
			}
			b, err := far.Query(t.Context(), q.Expr, at)
			if err != nil {
				t.Fatal(err)
			}
			values := func(v history.Vector) map[string]float64 {
				out := map[string]float64{}
				for _, s := range v {
					labels := slices.DeleteFunc(slices.Clone(s.Labels), func(l history.Label) bool { return l.Name == "job" || l.Name == "instance" })
					out[fmt.Sprint(labels)] = s.Value
				}
				return out
			}
			ours, theirs := values(a), values(b)
			for key, v := range ours {
				answered++
				if other, ok := theirs[key]; !ok || !alike(v, other) {
					t.Errorf("%s of %s at %s is %g, in Prometheus %g", q.Expr, key, at.Sub(over.Start), v, other)
				}
			}
			for key := range theirs {
				if _, ok := ours[key]; !ok {
					t.Errorf("%s of %s at %s: only Prometheus knows it", q.Expr, key, at.Sub(over.Start))
				}
			}
		}
	}
	if answered < 50 {
		t.Errorf("only %d numbers were compared", answered)
	}
	t.Logf("%d numbers compared", answered)
}

// alike is within 2 %.
func alike(a, b float64) bool {
	return a == b || math.IsNaN(a) && math.IsNaN(b) || math.Abs(a-b) <= 0.02*max(math.Abs(a), math.Abs(b))
}

// sameReport makes a report over both: the same rows, the same words, numbers within 2 %.
func sameReport(t *testing.T, name string, scope report.Scope, over history.Range, near, far history.Querier) {
	t.Helper()
	made := func(past history.Querier) report.Report {
		r, err := report.Make(t.Context(), name, report.Request{Past: past, Range: over, Scope: scope})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	a, b := made(near), made(far)
	if len(a.Tables) != len(b.Tables) || len(a.Tables[0].Rows) == 0 {
		t.Fatalf("%s: %d tables and %d", name, len(a.Tables), len(b.Tables))
	}
	for i, table := range a.Tables {
		ours, theirs := byIdentity(table), byIdentity(b.Tables[i])
		for key, row := range ours {
			other, ok := theirs[key]
			if !ok {
				t.Errorf("%s of %s: %s: %s is not in Prometheus", name, scope, table.Name, key)
				continue
			}
			for c, cell := range row {
				x, isNumber := cell.(float64)
				y, _ := other[c].(float64)
				if isNumber && alike(x, y) || cell == other[c] {
					continue
				}
				t.Errorf("%s of %s: %s: %s of %s is %v, in Prometheus %v", name, scope, table.Name, table.Columns[c].Name, key, cell, other[c])
			}
		}
		for key := range theirs {
			if ours[key] == nil {
				t.Errorf("%s of %s: %s: only Prometheus knows %s", name, scope, table.Name, key)
			}
		}
	}
}

// byIdentity are a table's rows by their leading words: rows are sorted by numbers, which may differ a little.
func byIdentity(t report.Table) map[string][]any {
	out := map[string][]any{}
	for _, row := range t.Rows {
		key := ""
		for c, cell := range row {
			if t.Columns[c].Unit == report.Text {
				key += fmt.Sprint(cell, " ")
			}
		}
		out[key] = row
	}
	return out
}

// cellOf is a number of the row of a VM, NaN if there is none.
func cellOf(t report.Table, vm, column string) float64 {
	id := slices.IndexFunc(t.Columns, func(c report.Column) bool { return c.Name == "vm_id" })
	n := slices.IndexFunc(t.Columns, func(c report.Column) bool { return c.Name == column })
	for _, row := range t.Rows {
		if v, ok := row[n].(float64); ok && row[id] == vm {
			return v
		}
	}
	return math.NaN()
}
