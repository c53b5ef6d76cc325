package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/protip/protip/test/prom"
)

// TestGuests: the exporter tells services beside the VMs that they run in, and names as awkward as guests make them.
func TestGuests(t *testing.T) {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "app_latency_seconds{app=\"a \\\"b\\\"\\n\\\\c\"} 0.25\n")
	}))
	t.Cleanup(page.Close)
	dir := t.TempDir()
	vc, entry := vcenter(t, dir, "lab")
	file := filepath.Join(dir, "protip.yml")
	write(t, file, "sources:\n"+entry+fmt.Sprintf(`  - name: guests
    type: guest
    interval: 1s
    targets: [{name: app, url: %q, vm: lab/off}]
    probes: [{name: page, http: %q}, {name: nothing, tcp: "127.0.0.1:1"}]
    services: [{type: metric, metric: app_latency_seconds, labels: [app], latency: value}]
`, page.URL, page.URL))
	addr, log := start(t, "--config.file="+file)
	off, _ := vc.VM("off")
	var body string
	eventually(t, log, func() bool {
		_, body = get(t, "http://"+addr+"/metrics")
		for _, want := range []string{
			fmt.Sprintf(`type="metric",vm="off",vm_id=%q,vm_source="lab"`, off.Value),
			`virt_service_latency_seconds{source="guests",service="a \"b\"\n\\c",service_id="app/metric/a \"b\"\n\\c"} 0.25`,
			`virt_service_running{source="guests",service="page",service_id="page/http/page"} 1`,
			`virt_service_failed{source="guests",service="nothing",service_id="nothing/tcp/nothing"} 1`,
			`protip_guest_targets{join="config",source="guests"} 1`,
			`protip_guest_target_up{source="guests",target="nothing"} 0`,
		} {
			if !strings.Contains(body, want) {
				return false
			}
		}
		return true
	})
	t.Run("promtool", func(t *testing.T) { prom.CheckMetrics(t, []byte(body)) })
}

// TestMachines: the exporter tells physical machines beside the hypervisors' hosts, as none of them.
func TestMachines(t *testing.T) {
	looks := atomic.Int64{}
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := looks.Add(1)
		fmt.Fprintf(w, "node_cpu_seconds_total{cpu=\"0\",mode=\"user\"} %d\nnode_cpu_seconds_total{cpu=\"0\",mode=\"idle\"} %d\n", n, 3*n)
		fmt.Fprint(w, "node_memory_MemTotal_bytes 8e9\nnode_memory_MemAvailable_bytes 6e9\nnode_dmi_info{system_vendor=\"Dell \\\"Inc.\\\"\",product_name=\"R640\"} 1\n")
	}))
	t.Cleanup(page.Close)
	dir := t.TempDir()
	file := filepath.Join(dir, "protip.yml")
	write(t, file, fmt.Sprintf("sources: [{name: racks, type: machines, interval: 1s, targets: [{name: db, url: %q}]}]\n", page.URL))
	addr, log := start(t, "--config.file="+file)
	var body string
	eventually(t, log, func() bool {
		_, body = get(t, "http://"+addr+"/metrics")
		for _, want := range []string{
			`virt_machine_info{source="racks",machine="db",machine_id="db",model="Dell \"Inc.\" R640",os="",uuid="",vm="",vm_id="",vm_source=""} 1`,
			`virt_machine_cpus{source="racks",machine="db",machine_id="db"} 1`,
			`virt_machine_cpu_usage_ratio{source="racks",machine="db",machine_id="db"} 0.25`,
			`virt_machine_memory_usage_bytes{source="racks",machine="db",machine_id="db"} 2000000000`,
			`protip_source_objects{source="racks",kind="machine"} 1`,
		} {
			if !strings.Contains(body, want) {
				return false
			}
		}
		return true
	})
	if strings.Contains(body, "virt_host_") {
		t.Error("a machine is told as a host")
	}
	t.Run("promtool", func(t *testing.T) { prom.CheckMetrics(t, []byte(body)) })
}
