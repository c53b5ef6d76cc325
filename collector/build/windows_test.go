package build

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/collector/exposition"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/config"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/platform/winrm"
	"github.com/protip/protip/internal/sim/hyperv"
	"github.com/protip/protip/internal/sim/load"
)

// TestWindowsIsServed takes a failover cluster and a Virtual Server host from a configuration to /metrics, and checks both.
func TestWindowsIsServed(t *testing.T) {
	clk := clock.New(40)
	use := load.Steady(load.Use{CPU: 0.4, MemoryConsumed: 0.5})
	vms := []hyperv.VM{{Name: "one", VCPUs: 2, MemoryBytes: 2 << 30, Dynamic: true, Guest: hyperv.Guest{Hostname: "one"}}}
	hv, err := hyperv.New(hyperv.Options{Clock: clk, Load: use, Nodes: []hyperv.Node{{VMs: vms}, {}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hv.Close)
	vs, err := hyperv.NewVirtualServer(hyperv.VirtualServerOptions{Clock: clk, Load: use, VMs: []hyperv.VM{{Name: "nt4", MemoryBytes: 1 << 30, Guest: hyperv.Guest{Hostname: "nt4"}}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(vs.Close)
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(hyperv.DefaultPassword), 0o600); err != nil {
		t.Fatal(err)
	}
	const head = "- {name: %s, type: %s, interval: 20s, hosts: [%s], username: 'EXAMPLE\\protip', password_file: %s%s}\n"
	text := "sources:\n" + fmt.Sprintf(head, "hv", "hyperv", "'"+hv.URL("hv-01")+"', '"+hv.URL("hv-02")+"'", file, ", acting: {username: nobody, password_file: "+file+"}") +
		fmt.Sprintf(head, "old", "virtualserver", "'"+vs.URL()+"'", file, "")
	cfg, err := config.Parse([]byte(text), "protip.yml")
	if err != nil {
		t.Fatal(err)
	}
	registry, log := prometheus.NewRegistry(), slog.New(slog.DiscardHandler)
	built, err := Sources(cfg, Options{Clock: clk, Log: log, Registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	var infos []inventory.Source
	for _, b := range built {
		infos = append(infos, b.Info)
	}
	fleet := inventory.NewFleet(infos...)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, b := range built {
		running.Go(func() { b.Run(ctx, collector.FleetSink(fleet, clk, log, nil)) })
	}
	t.Cleanup(func() { cancel(); running.Wait() })
	page, want := "", []string{
		`virt_vm_cpu_usage_hertz{source="hv",vm="one"`, `virt_vm_cpu_contention_ratio{source="hv"`, `virt_vm_memory_demand_bytes{source="hv"`, `virt_vm_heartbeat_ratio{source="hv"`,
		`virt_host_cpu_usage_ratio{source="hv",host="hv-01"`, `virt_host_cpu_root_ratio{`, `virt_host_memory_pressure_ratio{`, `virt_datastore_free_bytes{`,
		`virt_vm_heartbeat_ratio{source="old",vm="nt4",vm_id="vs-01/nt4"} 1`, `virt_host_memory_usage_bytes{source="old"`, `protip_source_up{source="hv"`,
	}
	shown := exposition.New(fleet.Snapshot, registry, log)
	lacks := func() string {
		w := httptest.NewRecorder()
		shown.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		page = w.Body.String()
		for _, line := range want {
			if !strings.Contains(page, line) {
				return line
			}
		}
		return ""
	}
	for end := time.Now().Add(30 * time.Second); lacks() != ""; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not on the page: %s\n%s", lacks(), page)
		}
	}
	problems, err := promlint.New(strings.NewReader(page)).Lint()
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "virt_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	if err != nil {
		t.Error(err)
	}
	r, err := Check(t.Context(), cfg, cfg.Sources[0])
	if err != nil || r.Hosts != 2 || r.VMs != 1 || r.Clusters != 1 || r.Acting == nil || r.Acting.Error == "" {
		t.Errorf("check of hv: %+v, %v", r, err)
	}
	if r, err = Check(t.Context(), cfg, cfg.Sources[1]); err != nil || r.Hosts != 1 || r.VMs != 1 {
		t.Errorf("check of old: %+v, %v", r, err)
	}
}

func TestWindowsHosts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("first\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	src := config.Source{Name: "hv", Hosts: []string{"hv-01", "hv-02:5985"}, Credential: config.Credential{Username: `CORP\u`, PasswordFile: file}}
	got, err := WindowsHosts(src, src.Credential)
	if err != nil || len(got) != 2 {
		t.Fatal(got, err)
	}
	if got[0].URL != "https://hv-01:5986" || got[1].URL != "http://hv-02:5985" || got[0].Logins == nil || got[0].Logins != got[1].Logins {
		t.Errorf("got %s, %s, sharing: %v", got[0].URL, got[1].URL, got[0].Logins == got[1].Logins)
	}
	for _, o := range got {
		if _, err := winrm.New(o); err != nil {
			t.Error(err)
		}
	}
	if err := os.WriteFile(file, []byte("second"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := got[1].Password(); p != "second" || err != nil {
		t.Errorf("a rotated password: %q, %v", p, err)
	}
	keys := config.Credential{Auth: config.AuthKerberos, Username: "u@CORP.EXAMPLE.COM", KeytabFile: "keytab"}
	if got, err = WindowsHosts(config.Source{Hosts: []string{"hv-01"}}, keys); err != nil {
		t.Fatal(err)
	}
	if _, err := winrm.New(got[0]); err != nil {
		t.Error(err)
	}
	if _, err := WindowsHosts(config.Source{Hosts: []string{"a b"}}, keys); err == nil {
		t.Error("no host is taken for one")
	}
}
