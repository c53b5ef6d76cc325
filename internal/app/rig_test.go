package app_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/vim25/types"
	"go.yaml.in/yaml/v3"

	"github.com/protip/protip/internal/app"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/sim"
	"github.com/protip/protip/internal/sim/load"
	"github.com/protip/protip/internal/web/client"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// heatPack is a pack whose tips come soon. HostHot needs contention, HostBusy does without.
const heatPack = `pack: heat
version: 1.0.0
description: Tips that come soon.
rules:
  - name: HostHot
    on: host
    when: host.cpu_usage_ratio > 0.85 && host.cpu_contention_ratio > 0.05 && !host.maintenance
    for: 20s
    clear: host.cpu_usage_ratio < 0.70
    severity: warning
    summary: "{{host.name}} uses {{percent(host.cpu_usage_ratio)}} of its CPU"
    remedy: {action: rebalance-host, cpu_below: 0.65}
  - name: HostBusy
    on: host
    when: host.cpu_usage_ratio > 0.85
    for: 20s
    clear: host.cpu_usage_ratio < 0.70
    severity: info
    summary: "{{host.name}} is busy"
    remedy: {action: none}
`

// operatorToken is in operator.token of every rig.
const operatorToken = "open sesame"

// deadline is how long a test waits for what must come. It is no measure: it only has to outlast a slow machine.
const deadline = 3 * time.Minute

// rig is simulated vCenters and what an operator has written for one agent over them.
type rig struct {
	t     testing.TB
	began time.Time // what the clock runs from
	clock *clock.Clock
	dir   string
	vcs   []*sim.VCenter
	// config is the agent's configuration; write stores what a test has changed in it.
	config map[string]any
}

// newRig starts a vCenter for each config, on a common clock. The configuration watches them all, with manual remediation.
// Real time stays real; any other runs slower where all is slower.
func newRig(t testing.TB, speed float64, fleets ...sim.Config) *rig {
	t.Helper()
	if speed > 1 {
		speed /= slower
	}
	r := &rig{t: t, began: time.Now(), dir: t.TempDir()}
	r.clock = clock.From(r.began, speed)
	var sources []any
	for _, cfg := range fleets {
		cfg.Clock = r.clock
		vc, err := sim.StartVCenter(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(vc.Close)
		r.vcs = append(r.vcs, vc)
		sources = append(sources, r.source(vc.Name(), vc))
	}
	r.config = map[string]any{
		"sources":     sources,
		"packs":       map[string]any{"shipped": []any{}, "files": []any{"heat.yml"}},
		"remediation": map[string]any{"mode": "manual"},
		"web":         map[string]any{"operator_token_file": r.file("operator.token", operatorToken+"\n")},
	}
	r.file("heat.yml", heatPack)
	r.write()
	return r
}

// source is how a vCenter is configured.
func (r *rig) source(name string, vc *sim.VCenter) map[string]any {
	return r.sourceAt(name, vc.Login(), vc.CAPEM())
}

// sourceAt is how a vCenter at an address with user and password is configured.
func (r *rig) sourceAt(name string, login *url.URL, ca []byte) map[string]any {
	user, at := login.User, *login
	at.User = nil
	word, _ := user.Password()
	password := r.file(name+".password", word)
	return map[string]any{
		"name": name, "type": "vsphere", "url": at.String(), "username": user.Username(), "password_file": password,
		"tls_config": map[string]any{"ca_file": r.file(name+".pem", string(ca))},
		"acting":     map[string]any{"username": user.Username(), "password_file": password},
	}
}

// remediation sets keys of the remediation section.
func (r *rig) remediation(set map[string]any) {
	section := r.config["remediation"].(map[string]any)
	for key, value := range set {
		section[key] = value
	}
	r.write()
}

// automatic lets rules of the heat pack act by themselves in every cluster.
func (r *rig) automatic(rules ...string) {
	var grants []any
	for _, vc := range r.vcs {
		for _, cluster := range vc.Clusters() {
			for _, rule := range rules {
				grants = append(grants, map[string]any{
					"source": vc.Name(), "cluster": cluster, "pack": "heat", "rule": rule, "pack_sha256": r.sum("heat.yml"),
				})
			}
		}
	}
	r.remediation(map[string]any{"automatic": grants})
}

func (r *rig) sum(name string) string {
	r.t.Helper()
	b, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil {
		r.t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func (r *rig) file(name, text string) string {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

func (r *rig) write() {
	r.t.Helper()
	text, err := yaml.Marshal(r.config)
	if err != nil {
		r.t.Fatal(err)
	}
	r.file("protip.yml", string(text))
}

func (r *rig) configFile() string { return filepath.Join(r.dir, "protip.yml") }
func (r *rig) dataDir() string    { return filepath.Join(r.dir, "data") }

// agent is one run of an agent.
type agent struct {
	*app.App
	*client.Client
	t    testing.TB
	url  string
	log  *transcript
	seen *transcriptOf[app.Event]
	stop func() // ends the run and waits for it
}

// start runs an agent on the rig's files until the test ends or stop is called.
func (r *rig) start(change ...func(*app.Options)) *agent {
	r.t.Helper()
	a := &agent{t: r.t, log: &transcript{}, seen: &transcriptOf[app.Event]{}}
	o := app.Options{
		ConfigFile: r.configFile(), DataDir: r.dataDir(), Clock: r.clock,
		Log: slog.New(slog.NewTextHandler(a.log, nil)), Notify: a.seen.add,
	}
	for _, f := range change {
		f(&o)
	}
	var err error
	if a.App, err = app.New(r.t.Context(), o); err != nil {
		r.t.Fatal(err)
	}
	server := httptest.NewServer(a.Handler())
	a.url = server.URL
	if a.Client, err = client.New(client.Options{URL: server.URL, Token: operatorToken}); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	a.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("agent ended with: %v", err)
		}
		server.Close()
		if r.t.Failed() {
			r.t.Logf("the agent's log:\n%s", a.log.tail(60))
		}
	})
	r.t.Cleanup(a.stop)
	return a
}

// await polls until missing says nothing any more, and fails the test with what it said last.
func await(t testing.TB, within time.Duration, missing func() string) {
	t.Helper()
	last := ""
	for end := time.Now().Add(within); ; time.Sleep(10 * time.Millisecond) {
		if last = missing(); last == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("still after %s: %s", within, last)
		}
	}
}

// throughout checks again and again, for d of the rig's clock, that nothing is wrong.
func (r *rig) throughout(d time.Duration, wrong func() string) {
	r.t.Helper()
	for end := r.clock.Now().Add(d); r.clock.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if what := wrong(); what != "" {
			r.t.Fatal(what)
		}
	}
}

// tip is what the agent has of a rule's tip on an object; its State is empty if there is none.
func (a *agent) tip(rule string, object inventory.ID) rules.Tip {
	a.t.Helper()
	tips, err := a.Tips(a.t.Context())
	if err != nil {
		a.t.Fatal(err)
	}
	for _, tip := range tips {
		if tip.Rule == rule && tip.Object == object {
			return tip.Tip
		}
	}
	return rules.Tip{}
}

// awaitTip waits until a rule's tip on an object is in a state.
func (a *agent) awaitTip(rule string, object inventory.ID, state rules.State) rules.Tip {
	a.t.Helper()
	var tip rules.Tip
	await(a.t, deadline, func() string {
		if tip = a.tip(rule, object); tip.State != state {
			return fmt.Sprintf("tip %s of %s is %q, not %s", rule, object, tip.State, state)
		}
		return ""
	})
	return tip
}

func (a *agent) actions() []remediation.Action {
	a.t.Helper()
	actions, err := a.Actions(a.t.Context(), "")
	if err != nil {
		a.t.Fatal(err)
	}
	return actions
}

// awaitAction waits for the newest action to be as done says.
func (a *agent) awaitAction(what string, done func(remediation.Action) bool) remediation.Action {
	a.t.Helper()
	var last remediation.Action
	await(a.t, deadline, func() string {
		all := a.actions()
		if len(all) == 0 {
			return "there is no action"
		}
		if last = all[0]; !done(last) {
			return fmt.Sprintf("action is %s (outcome %q, %s), not %s", last.State, last.Outcome, last.Error, what)
		}
		return ""
	})
	return last
}

func recovered(a remediation.Action) bool { return a.Outcome == remediation.Recovered }

// awaitUp waits until the agent has listed a source and samples of all its hosts are there.
func (a *agent) awaitUp(source string) {
	a.t.Helper()
	await(a.t, deadline, func() string {
		snap := a.Snapshot()
		if src, _ := snap.Source(source); !src.Up {
			return fmt.Sprintf("source %s is not up: %s", source, src.Error)
		}
		for h := range snap.Hosts() {
			if _, ok := h.Samples.Value(inventory.HostCPUContention); h.ID.Source == source && len(snap.VMsOn(h.ID)) > 0 && !ok {
				return fmt.Sprintf("host %s has no contention", h.Name)
			}
		}
		return ""
	})
}

// changes are those of the inventory that were told of, by kind.
func (a *agent) changes() map[inventory.ChangeKind][]inventory.ID {
	out := map[inventory.ChangeKind][]inventory.ID{}
	for _, e := range a.seen.all() {
		if e.Change != nil {
			out[e.Change.Kind] = append(out[e.Change.Kind], e.Change.ID)
		}
	}
	return out
}

// scrape is what /metrics says at one moment.
type scrape map[string]*dto.MetricFamily

func (a *agent) scrape() scrape {
	a.t.Helper()
	w := httptest.NewRecorder()
	a.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		a.t.Fatalf("scrape: HTTP %d: %s", w.Code, w.Body)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(w.Body)
	if err != nil {
		a.t.Fatalf("scrape does not parse: %v", err)
	}
	return families
}

// each yields a family's series that carry the labels, given as name, value, name, value.
func (s scrape) each(name string, labels []string, f func(labels map[string]string, value float64)) {
	for _, m := range s[name].GetMetric() {
		have := map[string]string{}
		for _, l := range m.GetLabel() {
			have[l.GetName()] = l.GetValue()
		}
		ok := true
		for i := 0; i < len(labels); i += 2 {
			ok = ok && have[labels[i]] == labels[i+1]
		}
		if ok {
			f(have, m.GetGauge().GetValue()+m.GetCounter().GetValue()+m.GetUntyped().GetValue())
		}
	}
}

// count is how many series of a family carry the labels.
func (s scrape) count(name string, labels ...string) (n int) {
	s.each(name, labels, func(map[string]string, float64) { n++ })
	return n
}

// value is the one series that carries the labels, -1 if there is none.
func (s scrape) value(name string, labels ...string) float64 {
	v := -1.0
	s.each(name, labels, func(_ map[string]string, value float64) { v = value })
	return v
}

// post calls a route that acts, with a token or none, and returns the answer.
func (a *agent) post(path, token string) (int, string) {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), http.MethodPost, a.url+path, strings.NewReader("{}"))
	if err != nil {
		a.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	var answer struct{ Error string }
	if err := json.Unmarshal(body, &answer); err != nil {
		a.t.Fatalf("%s answers %q: %v", path, body, err)
	}
	return res.StatusCode, answer.Error
}

// transcript is a log that can be read while it is written.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *transcript) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *transcript) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *transcript) tail(n int) string {
	lines := strings.Split(l.String(), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// transcriptOf keeps what was told, in order.
type transcriptOf[T any] struct {
	mu   sync.Mutex
	told []T
}

func (l *transcriptOf[T]) add(v T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told = append(l.told, v)
}

func (l *transcriptOf[T]) all() []T {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.told[:len(l.told):len(l.told)]
}

// hotFleet is a vCenter of one cluster, prod, with three hosts. esx01 is hot by two VMs. mover can go anywhere, and one move is
// all it takes; anchor has more memory than the other hosts.
func hotFleet(name string) sim.Config {
	const gib = 1 << 30
	idle := func(name string) []sim.VM { return []sim.VM{{Name: name, MemoryBytes: 4 * gib}} }
	return sim.Config{
		Name: name,
		Load: load.Func(func(vm int, _ time.Time) load.Use {
			use := load.Use{CPU: 0.1, MemoryActive: 0.1, MemoryConsumed: 0.5, NetReceived: 4e6, NetTransmitted: 2e6, DiskLatency: time.Millisecond}
			if vm < 2 {
				use.CPU = 0.98
			}
			return use
		}),
		Clusters: []sim.Cluster{{
			Name: "prod", DRS: sim.DRS{Enabled: true},
			Hosts: []sim.Host{
				{Name: "esx01", Cores: 16, MemoryBytes: 512 * gib, VMs: []sim.VM{
					{Name: "mover", VCPUs: 8, MemoryBytes: 8 * gib}, {Name: "anchor", VCPUs: 8, MemoryBytes: 256 * gib},
				}},
				{Name: "esx02", Cores: 16, MemoryBytes: 64 * gib, VMs: idle("idle-2")},
				{Name: "esx03", Cores: 16, MemoryBytes: 64 * gib, VMs: idle("idle-3")},
			},
		}},
		MigrationTime: func(float64) time.Duration { return 10 * time.Second },
	}
}

// calmFleet is like hotFleet, and nothing is hot.
func calmFleet(name string) sim.Config {
	cfg := hotFleet(name)
	cfg.Load = load.Steady(load.Use{CPU: 0.1, MemoryActive: 0.1, MemoryConsumed: 0.5, NetReceived: 4e6, NetTransmitted: 2e6})
	return cfg
}

// host and vm are the IDs of a vCenter's objects in its source.

func host(t testing.TB, vc *sim.VCenter, name string) inventory.ID {
	t.Helper()
	ref, ok := vc.Host(name)
	if !ok {
		t.Fatalf("%s has no host %q", vc.Name(), name)
	}
	return inventory.ID{Source: vc.Name(), Kind: inventory.KindHost, Ref: ref.Value}
}

func vm(t testing.TB, vc *sim.VCenter, name string) inventory.ID {
	t.Helper()
	ref, ok := vc.VM(name)
	if !ok {
		t.Fatalf("%s has no VM %q", vc.Name(), name)
	}
	return inventory.ID{Source: vc.Name(), Kind: inventory.KindVM, Ref: ref.Value}
}

// sent is how many migration calls a vCenter has received.
func sent(vc *sim.VCenter) (n int) {
	for _, calls := range vc.MigrationCalls() {
		n += calls
	}
	return n
}

// login is a client that is not protip.
func login(t *testing.T, vc *sim.VCenter) *govmomi.Client {
	t.Helper()
	c, err := govmomi.NewClient(t.Context(), vc.Login(), true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Logout(context.Background()) })
	return c
}

func ref(id inventory.ID) types.ManagedObjectReference {
	return types.ManagedObjectReference{
		Type: map[inventory.Kind]string{inventory.KindVM: "VirtualMachine", inventory.KindHost: "HostSystem"}[id.Kind], Value: id.Ref,
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// cluster is the ID of the only cluster of that name, once it is listed.
func (a *agent) cluster(name string) (id inventory.ID) {
	a.t.Helper()
	await(a.t, deadline, func() string {
		for c := range a.Snapshot().Clusters() {
			if c.Name == name {
				id = c.ID
				return ""
			}
		}
		return "no cluster " + name
	})
	return id
}
