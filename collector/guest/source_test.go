package guest

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	promconfig "github.com/prometheus/common/config"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
)

const deadline = 30 * time.Second

// lab is a source of guests that runs, what it filled, and what it complained of.
type lab struct {
	t      *testing.T
	fleet  *inventory.Fleet
	clock  *clock.Clock
	reg    *prometheus.Registry
	source *Source

	mu     sync.Mutex
	faults map[string]string // last of each kind
	stop   func()
}

func (l *lab) Call(string)           {}
func (l *lab) Cycle(string, float64) {}
func (l *lab) Fault(kind string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults[kind] = err.Error()
}

func (l *lab) fault(kind string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.faults[kind]
}

// start runs a source at forty times the speed: an interval of 20 s is half a second.
func start(t *testing.T, opts Options) *lab {
	t.Helper()
	l := &lab{t: t, clock: clock.New(40), reg: prometheus.NewRegistry(), faults: map[string]string{}}
	l.fleet = inventory.NewFleet(
		inventory.Source{Name: "vc", Platform: "vsphere", Interval: 20 * time.Second}, inventory.Source{Name: "guests", Platform: Platform, Interval: 20 * time.Second},
	)
	l.apply(inventory.Delta{Source: "vc", Begin: true, Synced: true})
	opts.Name, opts.Clock, opts.Observer, opts.Snapshot, opts.Metrics = "guests", l.clock, l, l.fleet.Snapshot, NewMetrics(l.reg)
	if opts.Timeout == 0 {
		opts.Timeout = 10 * time.Second
	}
	var err error
	if l.source, err = New(opts); err != nil {
		t.Fatal(err)
	}
	l.watch()
	return l
}

func (l *lab) watch() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.source.Watch(ctx, l.apply) }()
	l.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if !errors.Is(err, context.Canceled) {
				l.t.Errorf("Watch returned %v", err)
			}
		case <-time.After(deadline):
			l.t.Error("Watch does not end")
		}
	})
	l.t.Cleanup(l.stop)
}

func (l *lab) apply(d inventory.Delta) {
	if _, err := l.fleet.Apply(d, l.clock.Now()); err != nil {
		l.t.Errorf("delta refused: %v", err)
	}
}

// service is a service as text: state, VM, and whether it has a latency.
func (l *lab) service(ref string) string {
	l.fleet.Expire(l.clock.Now())
	svc, ok := l.fleet.Snapshot().Service(inventory.ID{Source: "guests", Kind: inventory.KindService, Ref: ref})
	if !ok {
		return "none"
	}
	s := string(svc.State)
	if s == "" {
		s = "unknown"
	}
	if !svc.VM.IsZero() {
		s += " in " + svc.VM.Ref
	}
	if _, ok := svc.Samples.Value(inventory.ServiceLatency); ok {
		s += " with latency"
	}
	return s
}

func (l *lab) await(ref, want string) {
	l.t.Helper()
	got := ""
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if got = l.service(ref); got == want {
			return
		}
	}
	l.t.Fatalf("service %s is %q, want %q (faults %v)", ref, got, want, l.faults)
}

func (l *lab) awaitFault(kind, want string) {
	l.t.Helper()
	got := ""
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if got = l.fault(kind); strings.Contains(got, want) {
			return
		}
	}
	l.t.Fatalf("fault %s is %q, want %q", kind, got, want)
}

// page is a server whose answer can be changed.
type page struct {
	*httptest.Server
	serve atomic.Pointer[http.HandlerFunc]
}

func newPage(t *testing.T, text string) *page {
	p := &page{}
	p.says(text)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*p.serve.Load())(w, r) }))
	t.Cleanup(p.Close)
	return p
}

func (p *page) does(f http.HandlerFunc) { p.serve.Store(&f) }
func (p *page) says(text string) {
	p.does(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) })
}

const nginx = `node_systemd_unit_state{name="nginx.service",state="active"} 1
node_systemd_unit_state{name="other.service",state="active"} 1
node_dmi_info{product_uuid="` + swapped + `"} 1
lat 0.2
`

var systemd = []Mapping{{Type: Systemd, Names: []string{`nginx\.service`, `db\.service`}}, {Type: Metric, Metric: "lat", Name: "app", Latency: "value"}}

func TestServicesOfATarget(t *testing.T) {
	p := newPage(t, nginx)
	l := start(t, Options{Targets: []Target{{Name: "web", URL: p.URL}}, Services: systemd})
	l.await("web/systemd/nginx.service", "running")
	l.await("web/metric/app", "unknown with latency")
	l.await("web/systemd/other.service", "none")

	// Its vCenter is listed later than it.
	web := inventory.VM{ID: inventory.ID{Source: "vc", Kind: inventory.KindVM, Ref: "vm-1"}, UUID: plain, Power: inventory.PowerOn}
	l.apply(inventory.Delta{Source: "vc", VMs: []inventory.VM{web}})
	l.await("web/systemd/nginx.service", "running in vm-1")

	p.says(strings.Replace(nginx, `state="active"`, `state="failed"`, 1))
	l.await("web/systemd/nginx.service", "failed in vm-1")

	// A family that is not told says nothing, and a unit that is not in one that is told is gone.
	p.says("node_dmi_info{product_uuid=\"" + swapped + "\"} 1\nlat 0.2\n")
	l.await("web/systemd/nginx.service", "unknown in vm-1")
	p.says(strings.ReplaceAll(nginx, "nginx.service", "db.service"))
	l.await("web/systemd/nginx.service", "none")
	l.await("web/systemd/db.service", "running in vm-1")

	// A target that does not answer says nothing of its services: they stay, and their samples grow old.
	p.does(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusInternalServerError) })
	l.await("web/systemd/db.service", "unknown in vm-1")
	l.awaitFault("target", "web: HTTP status 500")
	l.await("web/metric/app", "unknown in vm-1")
	if n := testutil.ToFloat64(l.source.opts.Metrics.up.WithLabelValues("guests", "web")); n != 0 {
		t.Errorf("target up is %v", n)
	}
	p.says(nginx)
	l.await("web/systemd/nginx.service", "running in vm-1")
	l.await("web/metric/app", "unknown in vm-1 with latency")

	// A second VM of that UUID: nobody can say which of them it is.
	web.ID.Ref = "vm-2"
	l.apply(inventory.Delta{Source: "vc", VMs: []inventory.VM{web}})
	l.await("web/systemd/nginx.service", "running")
	l.awaitFault("join", "web: 2 VMs have its DMI UUID")
	if n := testutil.ToFloat64(l.source.opts.Metrics.targets.WithLabelValues("guests", isAmbiguous)); n != 1 {
		t.Errorf("%v targets are ambiguous", n)
	}
}

// TestWatchAgain: what was known before is there again, and not gone, although nothing answers now.
func TestWatchAgain(t *testing.T) {
	p := newPage(t, nginx)
	l := start(t, Options{Targets: []Target{{Name: "web", URL: p.URL}}, Services: systemd})
	l.await("web/systemd/nginx.service", "running")
	l.stop()
	p.does(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusNotFound) })
	l.watch()
	l.await("web/systemd/nginx.service", "unknown")
	p.says(nginx)
	l.await("web/systemd/nginx.service", "running")
}

// TestPanicEndsTheWatchAlone: a mistake of ours ends this source's Watch with an error, and not the process.
func TestPanicEndsTheWatchAlone(t *testing.T) {
	p := newPage(t, nginx)
	s, err := New(Options{
		Name: "guests", Targets: []Target{{Name: "a", URL: p.URL}, {Name: "b", URL: p.URL}}, Services: systemd,
		Clock: clock.New(1), Observer: silent{},
	})
	if err != nil {
		t.Fatal(err)
	}
	var panicked *collector.PanicError
	err = s.Watch(t.Context(), func(d inventory.Delta) {
		if len(d.Services) > 0 {
			panic("a mistake")
		}
	})
	if !errors.As(err, &panicked) {
		t.Errorf("Watch returned %v", err)
	}
}

func TestProbes(t *testing.T) {
	p := newPage(t, "fine")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := start(t, Options{Probes: []Probe{
		{Name: "shop", HTTP: p.URL}, {Name: "db", TCP: listener.Addr().String()}, {Name: "elsewhere", HTTP: p.URL + "/redirect"},
	}})
	l.await("shop/http/shop", "running with latency")
	l.await("db/tcp/db", "running with latency")
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	l.await("db/tcp/db", "failed")
	l.awaitFault("probe", "db: dial: connect: connection refused")
	p.does(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusServiceUnavailable) })
	l.await("shop/http/shop", "failed")
	p.does(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/redirect" {
			http.Redirect(w, r, "/", http.StatusFound)
		}
	})
	l.await("shop/http/shop", "running with latency")
	l.await("elsewhere/http/elsewhere", "running with latency")
}

// TestHostileTargets: each of them is a fault that says what is wrong, and none delays the one that is well.
func TestHostileTargets(t *testing.T) {
	endless := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := fmt.Fprint(w, text); err != nil {
					return
				}
			}
		}
	}
	for _, tc := range []struct {
		name  string
		serve http.HandlerFunc
		want  string
	}{
		{"too large", endless(strings.Repeat("# nothing\n", 1000)), errBody.Error()},
		{"one line without an end", endless(strings.Repeat("x", 10_000)), errBody.Error()},
		{"one wanted line without an end", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, `node_systemd_unit_state{name="`)
			endless("x")(w, r)
		}, errLine.Error()},
		{"a million series", func(w http.ResponseWriter, _ *http.Request) {
			for i := range 1_000_000 {
				if _, err := fmt.Fprintf(w, "lat{i=\"%d\"} 1\n", i); err != nil {
					return
				}
			}
		}, errSeries.Error()},
		{"silent", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "no answer within 1s"},
		{"drop by drop", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				fmt.Fprint(w, "#")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(20 * time.Millisecond)
			}
		}, "no answer within 1s"},
		{"cut off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, "lat 1\n")
		}, "unexpected EOF"},
		{"bad UTF-8", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "lat{a=\"\xff\xfe\"} 1\n") }, "not Prometheus' text format: "},
		{"not an exposition", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "lat <html>\n") }, "not Prometheus' text format: "},
		{"redirected", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		}, "HTTP status 302"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			bad, good := newPage(t, ""), newPage(t, nginx)
			bad.does(tc.serve)
			timeout := time.Duration(0)
			if strings.HasPrefix(tc.want, "no answer") {
				timeout = time.Second
			}
			l := start(t, Options{
				Targets: []Target{{Name: "bad", URL: bad.URL}, {Name: "good", URL: good.URL}}, Services: systemd, Timeout: timeout,
			})
			l.await("good/systemd/nginx.service", "running")
			l.awaitFault("target", "bad: "+tc.want)
			l.await("good/metric/app", "unknown with latency")
			l.stop()
		})
	}
}

// TestSlowTargetsDelayNobody: more targets that do not answer than may be asked at a time, and one that does.
func TestSlowTargetsDelayNobody(t *testing.T) {
	silent := newPage(t, "")
	silent.does(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	var asked atomic.Int64
	good := newPage(t, "")
	good.does(func(w http.ResponseWriter, _ *http.Request) { asked.Add(1); fmt.Fprint(w, nginx) })
	opts := Options{Services: systemd, Timeout: time.Second}
	for i := range fastLane + slowLane + 50 {
		opts.Targets = append(opts.Targets, Target{Name: fmt.Sprint("silent", i), URL: silent.URL})
	}
	opts.Targets = append(opts.Targets, Target{Name: "good", URL: good.URL})
	l := start(t, opts)
	l.await("good/systemd/nginx.service", "running")
	// From then on it is asked every half second, and the others wait for one another: 146 of them, 32 at a time, a second each.
	before := asked.Load()
	for end := time.Now().Add(deadline); asked.Load() < before+6; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("asked %d times", asked.Load()-before)
		}
	}
	l.await("good/metric/app", "unknown with latency")
}

// TestCredentialsGoToTargetsAlone: over TLS to the target, read anew from the file, and neither to probes nor to where a target
// redirects.
func TestCredentialsGoToTargetsAlone(t *testing.T) {
	var mu sync.Mutex
	sent := map[string]string{}
	note := func(who string, next http.HandlerFunc) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			sent[who] = r.Header.Get("Authorization")
			mu.Unlock()
			next(w, r)
		})
	}
	seen := func(who, want string) {
		t.Helper()
		got := ""
		for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			mu.Lock()
			got = sent[who]
			mu.Unlock()
			if got == want {
				return
			}
		}
		t.Fatalf("%s was sent %q, want %q", who, got, want)
	}
	fine := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, nginx) }
	target := httptest.NewTLSServer(note("target", fine))
	t.Cleanup(target.Close)
	probed := newPage(t, "")
	probed.does(note("probe", fine).ServeHTTP)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca := file("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: target.Certificate().Raw})))
	token := file("token", "one\n")
	l := start(t, Options{
		Targets: []Target{{Name: "web", URL: target.URL}}, Probes: []Probe{{Name: "shop", HTTP: probed.URL}}, Services: systemd,
		HTTP: promconfig.HTTPClientConfig{BearerTokenFile: token, TLSConfig: promconfig.TLSConfig{CAFile: ca}},
	})
	l.await("web/systemd/nginx.service", "running")
	l.await("shop/http/shop", "running with latency")
	seen("target", "Bearer one")
	seen("probe", "")
	file("token", "two\n")
	seen("target", "Bearer two")
}

func TestCheck(t *testing.T) {
	good, bad := newPage(t, nginx+"node_uname_info{nodename=\"Web\"} 1\n"), newPage(t, "lat {")
	fleet := inventory.NewFleet(inventory.Source{Name: "vc", Platform: "vsphere"})
	web := inventory.VM{ID: inventory.ID{Source: "vc", Kind: inventory.KindVM, Ref: "vm-1"}, UUID: plain, Name: "other", Power: inventory.PowerOn}
	if _, err := fleet.Apply(inventory.Delta{Source: "vc", Begin: true, Synced: true, VMs: []inventory.VM{web}}, time.Now()); err != nil {
		t.Fatal(err)
	}
	opts := Options{
		Name: "guests", Clock: clock.New(1), Snapshot: fleet.Snapshot, Services: systemd,
		Targets: []Target{{Name: "web", URL: good.URL}, {Name: "bad", URL: bad.URL}, {Name: "named", URL: good.URL, VM: "vc/web"}},
		Probes:  []Probe{{Name: "shop", HTTP: good.URL}, {Name: "refused", TCP: "127.0.0.1:1"}},
	}
	r, err := Check(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"target web: answers, 2 services; VM vc/vm/vm-1, by uuid",
		"target bad: not Prometheus' text format: ",
		`target named: answers, 2 services; source vc has no VM "web": correct vm`,
		"probe shop: answers, 1 service; no VM found: write vm: source/name if it is in one",
		"probe refused: dial: connect: connection refused; no VM found",
		"3 of 5 targets and probes answer",
	}
	for i, w := range want {
		if i >= len(r.Notes) || !strings.HasPrefix(r.Notes[i], w) {
			t.Errorf("notes are %q, want %q at %d", r.Notes, w, i)
		}
	}
	if r.VMs != 1 {
		t.Errorf("%d VMs, want 1", r.VMs)
	}
	opts.Targets, opts.Probes = nil, opts.Probes[1:]
	if _, err := Check(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "nothing answers") {
		t.Errorf("nothing answers, and the check says %v", err)
	}
}
