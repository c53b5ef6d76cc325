package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/protip/protip/internal/sim"
	"github.com/protip/protip/test/prom"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"protip-exporter": main})
}

// TestScript is the command line's specification.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != ""})
}

// journal is a log that may be read while it is written.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

var listening = regexp.MustCompile(`msg="Listening on" address=(\S+)`)

// start runs the command on a free port until the test ends, and returns its address and its log.
func start(t *testing.T, args ...string) (addr string, log *journal) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	log = &journal{}
	exit := make(chan int, 1)
	go func() { exit <- run(ctx, append(args, "--web.listen-address=127.0.0.1:0"), io.Discard, log) }()
	t.Cleanup(func() {
		cancel()
		if code := <-exit; code != exitOK {
			t.Errorf("exit code %d\n%s", code, log)
		}
	})
	eventually(t, log, func() bool {
		m := listening.FindStringSubmatch(log.String())
		if m != nil {
			addr = m[1]
		}
		return m != nil
	})
	return addr, log
}

func eventually(t *testing.T, log *journal, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s\n%s", log)
		}
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// vcenter is a simulated vCenter with awkward names, and its entry in a configuration.
func vcenter(t *testing.T, dir, name string) (*sim.VCenter, string) {
	t.Helper()
	vc, err := sim.StartVCenter(sim.Config{
		Name: name, Password: "hunter2",
		Clusters: []sim.Cluster{{Name: "C \"1\"", Hosts: []sim.Host{
			{Name: "esx1", VMs: []sim.VM{{Name: "web"}, {Name: "a \"quoted\"\nname \\"}, {Name: strings.Repeat("é", 80)}}},
			{Name: "esx2", VMs: []sim.VM{{Name: "web"}, {Name: "off", Off: true}}},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(vc.Close)
	write(t, filepath.Join(dir, name+".pem"), string(vc.CAPEM()))
	write(t, filepath.Join(dir, "password"), "hunter2\n")
	return vc, fmt.Sprintf("  - {name: %s, type: vsphere, url: %q, username: administrator@vsphere.local, password_file: password, interval: 1s, tls_config: {ca_file: %s.pem}}\n",
		name, vc.URL(), name)
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

const nobody = "  - {name: nobody, type: vsphere, url: 'https://127.0.0.1:1', username: u, password_file: password}\n"

// TestServe runs the exporter against a simulated vCenter and one that is not there.
func TestServe(t *testing.T) {
	dir := t.TempDir()
	_, entry := vcenter(t, dir, "lab")
	file := filepath.Join(dir, "protip.yml")
	write(t, file, "sources:\n"+entry+nobody)
	addr, log := start(t, "--config.file="+file)
	base := "http://" + addr

	if code, _ := get(t, base+"/-/healthy"); code != http.StatusOK {
		t.Errorf("/-/healthy: %d", code)
	}
	eventually(t, log, func() bool { code, _ := get(t, base+"/-/ready"); return code == http.StatusOK })
	var body string
	eventually(t, log, func() bool {
		_, body = get(t, base+"/metrics")
		return strings.Count(body, "\nvirt_vm_cpu_usage_hertz{") == 4
	})
	for _, want := range []string{
		`protip_source_up{source="lab"} 1`,
		`protip_source_up{source="nobody"} 0`,
		`protip_source_objects{source="lab",kind="vm"} 5`,
		`vm="a \"quoted\"\nname \\"`,
		`vm="` + strings.Repeat("é", 80) + `"`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
	seen := map[string]bool{}
	for line := range strings.Lines(body) {
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok {
			if name = strings.Fields(name)[0]; seen[name] {
				t.Errorf("%s is there twice", name)
			} else {
				seen[name] = true
			}
		}
	}
	if code, page := get(t, base+"/"); code != http.StatusOK || !strings.Contains(page, "/metrics") {
		t.Errorf("landing page: %d %s", code, page)
	}
	if code, _ := get(t, base+"/nothing"); code != http.StatusNotFound {
		t.Errorf("/nothing: %d", code)
	}
	if strings.Contains(body+log.String(), "hunter2") {
		t.Error("the password is shown")
	}
	t.Run("promtool", func(t *testing.T) { prom.CheckMetrics(t, []byte(body)) })
}

// TestPrometheus lets a real Prometheus scrape the exporter and join what it found.
func TestPrometheus(t *testing.T) {
	prom.Tool(t, "prometheus")
	dir := t.TempDir()
	_, entry := vcenter(t, dir, "lab")
	file := filepath.Join(dir, "protip.yml")
	write(t, file, "sources:\n"+entry)
	addr, _ := start(t, "--config.file="+file)
	server := prom.Start(t, map[string]string{"protip": addr})

	server.Wait(t, `up{job="protip"} == 1`, 20*time.Second, func(s []prom.Sample) bool { return len(s) == 1 })
	joined := server.Wait(t, `virt_vm_cpu_usage_hertz * on(source, vm_id) group_left(host, virt_cluster) virt_vm_info`, 20*time.Second,
		func(s []prom.Sample) bool { return len(s) == 4 })
	for _, s := range joined {
		if s.Labels["host"] == "" || s.Labels["virt_cluster"] != `C "1"` {
			t.Errorf("joined %v", s.Labels)
		}
	}
	types := server.Query(t, `count({__name__=~"virt_.*"})`)
	if len(types) != 1 || types[0].Value < 50 {
		t.Errorf("series of the fleet: %v", types)
	}
}
