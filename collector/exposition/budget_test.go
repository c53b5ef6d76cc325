package exposition

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/protip/protip/internal/inventory"
)

// TestBudget: metrics are shown of all objects or of none, facts always, the other source whole, and it is said.
func TestBudget(t *testing.T) {
	const perVM = 6 // facts of a VM of this fleet
	small := inventory.Source{Name: "small", Interval: 20 * time.Second, MaxSeries: 100}
	fleet := inventory.NewFleet(small, inventory.Source{Name: "other", Interval: 20 * time.Second})
	vms := func(source string, n int, metrics ...inventory.Metric) inventory.Delta {
		d := inventory.Delta{Source: source, Begin: true, Synced: true}
		for i := range n {
			id := vmID(source, fmt.Sprint("vm-", i))
			d.VMs = append(d.VMs, inventory.VM{ID: id, Name: id.Ref, Power: inventory.PowerOn, Connection: inventory.Connected, VCPUs: 1, MemoryBytes: 1})
			set := inventory.SampleSet{ID: id, At: epoch.UnixMilli()}
			for _, m := range metrics {
				set.Values = append(set.Values, inventory.Value{Metric: m, Value: 1})
			}
			d.Samples = append(d.Samples, set)
		}
		return d
	}
	var said bytes.Buffer
	e := New(fleet.Snapshot, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(&said, nil)))
	scrape := func() string {
		parts, done := e.body(expfmt.FmtText, false)
		defer done()
		return string(bytes.Join(parts, nil))
	}
	all := []inventory.Metric{inventory.VMCPUUsage, inventory.VMCPUContention, inventory.VMMemoryUsage, inventory.VMDiskRead}
	apply(t, fleet, vms("other", 30, all...))
	for _, step := range []struct {
		name            string
		vms             int
		shown, withheld int
		last            bool // the last metric is shown
		log             string
	}{
		{"all fit, exactly", 10, 100, 0, true, ""},
		{"one VM more: the last metric goes, of all VMs", 11, 11*perVM + 33, 11, false, "level=ERROR"},
		{"one VM less: it would fit, but just", 10, 90, 10, false, ""},
		{"a twentieth is free", 9, 90, 0, true, "level=INFO"},
		{"half of the metrics", 12, 12*perVM + 24, 24, false, "level=ERROR"},
		{"facts alone are more", 20, 20 * perVM, 80, false, "level=ERROR"},
		{"and back", 5, 50, 0, true, "level=INFO"},
	} {
		said.Reset()
		apply(t, fleet, vms("small", step.vms, all...))
		body := scrape()
		for line, want := range map[string]int{
			`protip_source_series{source="small"} `: step.shown, `protip_source_series_withheld{source="small"} `: step.withheld,
			`protip_source_series_limit{source="small"} `: 100, `protip_source_series_withheld{source="other"} `: 0,
		} {
			if !strings.Contains(body, fmt.Sprintf("\n%s%d\n", line, want)) {
				t.Errorf("%s: no %s%d", step.name, line, want)
			}
		}
		if n := strings.Count(body, `{source="small",vm=`); n != step.shown {
			t.Errorf("%s: %d series are shown, want %d", step.name, n, step.shown)
		}
		for _, m := range all {
			if n := strings.Count(body, m.String()+`{source="small"`); n != 0 && n != step.vms {
				t.Errorf("%s: %v of %d of %d VMs", step.name, m, n, step.vms)
			}
			if n := strings.Count(body, m.String()+`{source="other"`); n != 30 {
				t.Errorf("%s: %v of %d of the other's VMs", step.name, m, n)
			}
		}
		if got := strings.Contains(body, `virt_vm_disk_read_bytes_total{source="small"`); got != step.last {
			t.Errorf("%s: the last metric is shown: %v", step.name, got)
		}
		if n := strings.Count(body, `virt_vm_info{source="small"`); n != step.vms {
			t.Errorf("%s: %d VMs have facts", step.name, n)
		}
		if got := said.String(); !strings.Contains(got, step.log) || (step.log == "") != (got == "") {
			t.Errorf("%s: said %q, want %s", step.name, got, step.log)
		}
		said.Reset()
		if scrape(); said.Len() > 0 {
			t.Errorf("%s: said again: %s", step.name, said.String())
		}
	}
}
