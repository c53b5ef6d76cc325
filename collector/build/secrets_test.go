package build

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/collector/exposition"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/config"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/sim"
)

// Markers, which must be nowhere but in the files and on the wire.
const (
	rightPassword = "right-Marker&1"
	wrongPassword = "wrong-Marker&2"
	inEnvironment = "env-Marker&3"
)

// log is all that is logged, at the level that says most.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// panicking is a sink that panics once, with what it was given, as a mistake in the fleet's code would.
type panicking struct {
	collector.Sink
	once sync.Once
}

func (p *panicking) Apply(d inventory.Delta) {
	p.once.Do(func() { panic(fmt.Sprintf("%+v", d)) })
	p.Sink.Apply(d)
}

// TestSecretsAreNowhere takes configured sources through refused log-ins, faults whose words repeat the password, a panic, and
// connections that break, and looks for the passwords in all that is logged, said, served and dumped.
func TestSecretsAreNowhere(t *testing.T) {
	clk := clock.New(50)
	vc, err := sim.StartVCenter(sim.Config{Name: "vc", Clock: clk, Password: rightPassword, Clusters: sim.Uniform(2, 4)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(vc.Close)
	dir := t.TempDir()
	for name, content := range map[string]string{"password": rightPassword + "\n", "wrong": wrongPassword, "ca.pem": string(vc.CAPEM())} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PROTIP_MARKER", inEnvironment)
	const head = "  - {name: %s, type: vsphere, url: 'https://%s', tls_config: {ca_file: ca.pem}, username: administrator@vsphere.local, %s}\n"
	text := "sources:\n" + fmt.Sprintf(head, "right", vc.URL().Host, "password_file: password") +
		fmt.Sprintf(head, "wrong", vc.URL().Host, "password_file: wrong") +
		fmt.Sprintf(head, "env", vc.URL().Host, "password_env: PROTIP_MARKER, acting: {username: a, password_file: password}")
	cfg, err := config.Parse([]byte(text), filepath.Join(dir, "protip.yml"))
	if err != nil {
		t.Fatal(err)
	}

	said := map[string]string{"config dump": cfg.String(), "config in an error": fmt.Sprintf("%+v %#v", cfg.Sources[0], cfg.Sources[2].Credential)}
	var logged log
	logger := slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	registry := prometheus.NewRegistry()
	sources, err := Sources(cfg, Options{Clock: clk, Log: logger, Registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	var infos []inventory.Source
	for _, src := range sources {
		infos = append(infos, src.Info)
	}
	fleet := inventory.NewFleet(infos...)
	sink := &panicking{Sink: collector.FleetSink(fleet, clk, logger, nil)}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	stop := sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	for _, src := range sources {
		wg.Go(func() { src.Run(ctx, sink) })
	}
	up := func() bool { s, _ := fleet.Snapshot().Source("right"); return s.Up && s.Synced }
	await := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not within 20 s: %s: %s", what, &logged)
			}
		}
	}
	await("up after a panic", up)

	served := exposition.New(fleet.Snapshot, registry, logger)
	collect := func(when string) {
		w := httptest.NewRecorder()
		served.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		b, _ := io.ReadAll(w.Body)
		stack := make([]byte, 4<<20)
		said["/metrics "+when] = string(b)
		said["sources "+when] = fmt.Sprintf("%+v", fleet.Snapshot().Sources())
		said["stacks "+when] = string(stack[:runtime.Stack(stack, true)])
	}
	collect("at first")
	echo := "no: " + rightPassword
	for i, inject := range []func() func(){
		func() func() { return vc.InjectHTTP(sim.HTTPFault{Method: "QueryPerf", Words: echo}) },
		func() func() { return vc.InjectHTTP(sim.HTTPFault{Method: "*", Words: echo}) },
		func() func() { return vc.InjectHTTP(sim.HTTPFault{Method: "*", Truncate: 500}) },
		func() func() { return vc.InjectHTTP(sim.HTTPFault{Method: "*", Break: 500}) },
		func() func() { return vc.InjectHTTP(sim.HTTPFault{Method: "Login", HalfClose: true}) },
		func() func() {
			vc.SetPassword("another")
			vc.Stop()
			_ = vc.Restart()
			return func() { vc.SetPassword(rightPassword) }
		},
	} {
		lift := inject()
		_ = clk.Sleep(t.Context(), time.Minute)
		collect(fmt.Sprint("in fault ", i))
		lift()
	}
	for _, src := range cfg.Sources[1:] {
		_, err := Check(t.Context(), cfg, src)
		if err == nil {
			t.Errorf("%s: not refused", src.Name)
		}
		said["check of "+src.Name] = fmt.Sprintf("%v %+v", err, err)
	}
	stop()
	said["log"] = logged.String()
	for _, want := range []string{"panicked", "refused", "source lost", "<secret>"} {
		if !strings.Contains(said["log"], want) {
			t.Errorf("the log does not say %q: nothing was tried", want)
		}
	}
	for where, text := range said {
		for _, marker := range []string{rightPassword, wrongPassword, inEnvironment, "Marker"} {
			if i := strings.Index(strings.ReplaceAll(text, "PROTIP_MARKER", ""), marker); i >= 0 {
				t.Errorf("%q is in the %s: ...%s", marker, where, text[max(0, i-200):min(len(text), i+100)])
				break
			}
		}
	}
	if n := vc.Sessions(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}
