package report

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/history/promql"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// hostile is a name that is a formula, ends an attribute, is a script, and steers a terminal.
const hostile = "=1+1\"><script>alert(1)</script>\x1b[2J\n"

var start = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

// world writes series of five minutes.
type world struct {
	samples int
	series  []history.Series
}

// put writes a series; a value that is NaN is not there. Labels are name, value, name, value.
func (w *world) put(name string, value func(i int) float64, labels ...string) {
	s := history.Series{Labels: history.Labels{{Name: "__name__", Value: name}}}
	for i := 0; i < len(labels); i += 2 {
		s.Labels = append(s.Labels, history.Label{Name: labels[i], Value: labels[i+1]})
	}
	for i := range w.samples {
		if v := value(i); !math.IsNaN(v) {
			s.Points = append(s.Points, history.Point{T: start.Add(time.Duration(i) * 5 * time.Minute).UnixMilli(), V: v})
		}
	}
	// A series that ends, ends with a marker, as both the store and a scrape write it.
	if n := len(s.Points); n > 0 {
		if end := s.Points[n-1].T + 300_000; end <= start.Add(time.Duration(w.samples-1)*5*time.Minute).UnixMilli() {
			s.Points = append(s.Points, history.Point{T: end, V: promql.Stale})
		}
	}
	w.series = append(w.series, s)
}

func always(v float64) func(int) float64 { return func(int) float64 { return v } }

func during(from, to int, v float64) func(int) float64 {
	return func(i int) float64 {
		if i < from || i >= to {
			return math.NaN()
		}
		return v
	}
}

const gib = 1 << 30

func (w *world) host(id, name, cluster string, cpu, memory func(int) float64) {
	ls := []string{"source", "vc", "host", name, "host_id", id}
	w.put("virt_host_info", always(1), append(ls, "virt_cluster", cluster, "cluster_id", "c-"+cluster, "uuid", "uuid-of-"+id)...)
	for family, v := range map[string]func(int) float64{
		"virt_host_connected": always(1), "virt_host_powered_on": always(1), "virt_host_maintenance": always(0), "virt_host_cpu_cores": always(16),
		"virt_host_cpu_capacity_hertz": always(32e9), "virt_host_memory_capacity_bytes": always(128 * gib), "virt_host_vms": always(2),
		"virt_host_cpu_usage_hertz": cpu, "virt_host_memory_usage_bytes": memory, "virt_host_cpu_contention_ratio": always(0.01),
		"virt_host_cpu_usage_ratio": func(i int) float64 { return cpu(i) / 32e9 }, "virt_host_memory_usage_ratio": func(i int) float64 { return memory(i) / (128 * gib) },
	} {
		w.put(family, v, ls...)
	}
}

func (w *world) vm(id, name, host string, on float64, cpu func(int) float64, places ...int) {
	ls := []string{"source", "vc", "vm", name, "vm_id", id}
	from := 0
	for _, to := range append(places, w.samples) { // it moves to the next host at each place
		w.put("virt_vm_info", during(from, to, 1), append(ls, "host", "esx-"+host, "host_id", "h"+host, "virt_cluster", "prod", "cluster_id", "c-prod")...)
		from, host = to, "2"
	}
	for family, v := range map[string]func(int) float64{
		"virt_vm_connected": always(1), "virt_vm_powered_on": always(on), "virt_vm_template": always(0), "virt_vm_vcpus": always(4), "virt_vm_memory_capacity_bytes": always(16 * gib),
	} {
		w.put(family, v, ls...)
	}
	if on == 1 {
		w.put("virt_vm_cpu_usage_hertz", cpu, ls...)
		w.put("virt_vm_memory_usage_bytes", always(12*gib), ls...)
		w.put("virt_vm_memory_active_bytes", always(3*gib), ls...)
		w.put("virt_vm_cpu_contention_ratio", always(0.02), ls...)
	}
}

// fewDays are two hosts and four VMs over four days, one of which moves after two; and two physical machines.
func fewDays() history.Querier {
	w := &world{samples: 4*288 + 1}
	w.put("virt_cluster_info", always(1), "source", "vc", "virt_cluster", "prod", "cluster_id", "c-prod", "drs", "true", "drs_automation", "manual", "ha", "true", "ha_policy", "percentage")
	w.put("virt_cluster_ha_reserved_cpu_ratio", always(0.25), "source", "vc", "virt_cluster", "prod", "cluster_id", "c-prod")
	wave := func(mean, swing float64) func(int) float64 {
		return func(i int) float64 { return mean + swing*math.Sin(2*math.Pi*float64(i)/288) }
	}
	w.host("h1", "esx-1", "prod", wave(16e9, 8e9), always(64*gib))
	w.host("h2", "esx-2", "prod", wave(8e9, 2e9), always(32*gib))
	w.vm("v1", "web", "1", 1, wave(4e9, 2e9))
	w.vm("v2", hostile, "1", 1, func(i int) float64 { // it works hard until it moves, and rests from then on
		if i < 2*288 {
			return 6e9
		}
		return 1e9
	}, 2*288)
	w.vm("v3", "idle", "2", 1, always(2e7))
	w.vm("v4", "off", "2", 0, nil)
	w.put("virt_vm_cpu_reservation_hertz", always(1e9), "source", "vc", "vm", "web", "vm_id", "v1")
	w.put("virt_vm_memory_reservation_bytes", always(4*gib), "source", "vc", "vm", "web", "vm_id", "v1")
	w.put("virt_vm_tag_info", always(1), "source", "vc", "vm", "web", "vm_id", "v1", "category", "owner", "tag", "shop")
	w.put("virt_vm_tag_info", always(1), "source", "vc", "vm", "idle", "vm_id", "v3", "category", "owner", "tag", "shop")
	w.machine("db", "Dell Inc. PowerEdge R640", 8, 0.2, 32*gib, 20*gib, 0)
	w.machine("huge", "Dell Inc. PowerEdge R940", 64, 0.6, 1024*gib, 500*gib, 0)
	w.machine("late", "Dell Inc. PowerEdge R640", 8, 0.2, 32*gib, 20*gib, 3*288)
	w.machine("guest", "VMware, Inc. VMware7,1", 8, 0.2, 32*gib, 20*gib, 0)
	w.machine("joined", "", 8, 0.2, 32*gib, 20*gib, 0, "vm", hostile, "vm_id", "v1", "vm_source", "vc")
	w.machine("hypervisor", "Dell Inc. PowerEdge R640", 8, 0.2, 32*gib, 20*gib, 0, "uuid", "UUID-OF-H1")
	w.machine("silent", "", 8, 0.2, 32*gib, 20*gib, 10000)
	return promql.Memory(w.series...)
}

// machine is a machine that is heard of from a time on. It is busy to a share of its CPUs; its counters begin anew after a day. Labels
// are name, value, name, value.
func (w *world) machine(name, model string, cpus, busy, total, used float64, from int, labels ...string) {
	ls := []string{"source", "racks", "machine", name, "machine_id", name}
	w.put("virt_machine_info", always(1), append(append(ls, labels...), "model", model, "os", "Debian GNU/Linux 13 (trixie)")...)
	for family, v := range map[string]func(int) float64{
		"virt_machine_cpus": always(cpus), "virt_machine_memory_capacity_bytes": always(total), "virt_machine_cpu_usage_ratio": always(busy),
		"virt_machine_memory_usage_bytes":           always(used),
		"virt_machine_disk_read_bytes_total":        func(i int) float64 { return 3e8 * float64(i%288) },
		"virt_machine_disk_write_bytes_total":       func(i int) float64 { return 6e8 * float64(i%288) },
		"virt_machine_network_receive_bytes_total":  func(i int) float64 { return 3e8 * float64(i%288) },
		"virt_machine_network_transmit_bytes_total": func(i int) float64 { return 3e8 * float64(i%288) },
	} {
		w.put(family, func(i int) float64 {
			if i < from {
				return math.NaN()
			}
			return v(i)
		}, ls...)
	}
}

func request(past history.Querier, days int) Request {
	return Request{
		Past: past, Range: history.Range{Start: start, End: start.Add(time.Duration(days) * 24 * time.Hour)},
		Thresholds: []float64{0.8, 0.95}, Reserve: 1, Ceiling: 0.8,
	}
}

func mustMake(t *testing.T, name string, r Request) Report {
	t.Helper()
	out, err := Make(t.Context(), name, r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// golden holds all forms of a report against files.
func golden(t *testing.T, name string, r Report) {
	t.Helper()
	for form, write := range map[string]func(*bytes.Buffer) error{
		"txt":  func(b *bytes.Buffer) error { return r.Text(b) },
		"json": func(b *bytes.Buffer) error { return r.JSON(b) },
		"csv":  func(b *bytes.Buffer) error { return r.CSV(b) },
		"html": func(b *bytes.Buffer) error { return r.HTML(b) },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", name+"."+form)
		if *update {
			if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.Bytes(), want) {
			t.Errorf("%s differs:\n%s", file, b.String()[:min(b.Len(), 4000)])
		}
		hold(t, form, b.String())
	}
}

// hold is what must be true of every report, whatever the names in it.
func hold(t *testing.T, form, text string) {
	t.Helper()
	switch form {
	case "txt":
		if strings.Contains(text, "\x1b") {
			t.Error("the text steers a terminal")
		}
	case "json":
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Error(err)
		}
	case "csv":
		r := csv.NewReader(strings.NewReader(text))
		r.FieldsPerRecord = -1
		lines, err := r.ReadAll()
		if err != nil {
			t.Error(err)
		}
		for _, line := range lines {
			for _, f := range line {
				if strings.HasPrefix(f, "=") {
					t.Errorf("a spreadsheet would calculate %q", f)
				}
			}
		}
	case "html":
		for _, bad := range []string{"<script", "http://", "https://", "src=", "href=", "url(", "\x1b", "NaN", "Inf", "ZgotmplZ"} {
			if strings.Contains(text, bad) {
				t.Errorf("the page has %q", bad)
			}
		}
	}
}

func TestReports(t *testing.T) {
	past := fewDays()
	for _, name := range []string{"vm-allocation", "vm-utilization", "host-utilization", "candidates"} {
		t.Run(name, func(t *testing.T) {
			r := request(past, 4)
			done := 0.0
			r.Progress = func(d float64) {
				if d < done {
					t.Errorf("progress goes from %v to %v", done, d)
				}
				done = d
			}
			golden(t, name, mustMake(t, name, r))
			if done != 1 {
				t.Errorf("progress ends at %v", done)
			}
		})
	}
}

// cellOf is a cell of the row whose first column is name.
func cellOf(t *testing.T, table Table, name, column string) any {
	t.Helper()
	for _, row := range table.Rows {
		if row[0] != name {
			continue
		}
		for i, c := range table.Columns {
			if c.Name == column {
				return row[i]
			}
		}
	}
	t.Fatalf("no %s of %q in %s", column, name, table.Name)
	return nil
}

// TestPastStaysWithItsHost looks at a VM that worked hard on one host and rests since it is on the other.
func TestPastStaysWithItsHost(t *testing.T) {
	past := fewDays()
	for host, want := range map[string]float64{"esx-1": 6e9, "esx-2": 1e9} {
		r := request(past, 4)
		r.Scope.Host = host
		table := mustMake(t, "vm-utilization", r).Tables[0]
		for _, column := range []string{"cpu_mean_hertz", "cpu_p95_hertz", "cpu_max_hertz"} {
			if got := cellOf(t, table, hostile, column); got != want {
				t.Errorf("%s on %s: %v, want %v", column, host, got, want)
			}
		}
		if seen := cellOf(t, table, hostile, "seen_ratio").(float64); seen < 0.48 || seen > 0.52 {
			t.Errorf("on %s for %v of the time", host, seen)
		}
	}
}

func TestScope(t *testing.T) {
	past := fewDays()
	for _, tc := range []struct {
		name  string
		scope Scope
		rows  int
	}{
		{"vm-utilization", Scope{Source: "vc"}, 3},
		{"vm-utilization", Scope{Source: "none"}, 0},
		{"vm-utilization", Scope{Cluster: "prod"}, 3},
		{"vm-utilization", Scope{Cluster: "none"}, 0},
		{"vm-utilization", Scope{Tag: "owner=shop"}, 2},
		{"vm-utilization", Scope{Tag: "shop"}, 2},
		{"vm-utilization", Scope{Tag: "team=shop"}, 0},
		{"host-utilization", Scope{Host: "esx-1"}, 1},
		{"vm-allocation", Scope{Host: "esx-1"}, 1},
		{"growth", Scope{Tag: "owner=shop"}, 2},
		{"growth", Scope{Tag: "shop", Cluster: "none"}, 0},
		{"candidates", Scope{Source: "racks"}, 7},
		{"candidates", Scope{Host: "esx-2"}, 7},
		{"host-utilization", Scope{Cluster: "none"}, 0},
	} {
		r := request(past, 2)
		r.Scope = tc.scope
		if rows := mustMake(t, tc.name, r).Tables[0].Rows; len(rows) != tc.rows {
			t.Errorf("%s of %s: %d rows, want %d", tc.name, tc.scope, len(rows), tc.rows)
		}
	}
	for name, scope := range map[string]Scope{"host-utilization": {Tag: "x"}, "candidates": {Tag: "x"}, "nothing": {}} {
		r := request(past, 2)
		r.Scope = scope
		if _, err := Make(t.Context(), name, r); err == nil {
			t.Errorf("%s of %s: made", name, scope)
		}
	}
}

// TestAllocationOfAHost is of the VMs that the host has at the end, against what it has itself.
func TestAllocationOfAHost(t *testing.T) {
	r := request(fewDays(), 4)
	r.Scope.Host = "esx-2"
	made := mustMake(t, "vm-allocation", r)
	for column, want := range map[string]any{
		"hosts": 1.0, "vms": 3.0, "vms_off": 1.0, "vms_idle": 1.0, "cores": 16.0, "memory_capacity_bytes": 128.0 * gib,
		"vms_reserved_cpu_hertz": nil, "ha_reserved_cpu_ratio": nil,
	} {
		if got := cellOf(t, made.Tables[0], "prod", column); got != want {
			t.Errorf("%s is %v, want %v", column, got, want)
		}
	}
	r.Scope.Host = "esx-1"
	made = mustMake(t, "vm-allocation", r)
	if got := cellOf(t, made.Tables[0], "prod", "vms_reserved_cpu_hertz"); got != 1e9 {
		t.Errorf("reserved is %v", got)
	}
}

// TestGrowthOfATag: what the VMs of a tag use grows, what their neighbours use does not count.
func TestGrowthOfATag(t *testing.T) {
	w := &world{samples: 40*288 + 1}
	noise := func(i int) float64 { return 1e8 * math.Sin(float64(i)*float64(i%977)) }
	w.host("h1", "esx-1", "prod", always(9e9), always(64*gib))
	w.vm("v1", "web", "1", 1, func(i int) float64 { return 2e9 + 5e7*float64(i)/288 + noise(i) })
	w.vm("v2", "db", "1", 1, func(i int) float64 { return 6e9 - 5e7*float64(i)/288 + noise(i) })
	w.put("virt_vm_tag_info", always(1), "source", "vc", "vm", "web", "vm_id", "v1", "category", "owner", "tag", "shop")
	r := request(promql.Memory(w.series...), 40)
	r.Scope.Tag = "owner=shop"
	rows := mustMake(t, "growth", r).Tables[0].Rows
	if len(rows) != 2 || rows[0][0] != "tag" || rows[0][1] != "owner=shop in prod" || rows[0][10] != "grows" || rows[1][10] != "no trend" {
		t.Errorf("%v", rows)
	}
}

// TestGrowth looks at a host that grows, one that jumped, and a cluster that is heard of only while both are.
func TestGrowth(t *testing.T) {
	w := &world{samples: 60*288 + 1}
	noise := func(i int) float64 { return 3e8 * math.Sin(float64(i)*float64(i%977)) } // as good as chance
	day := func(i int) float64 { return 2e9 * math.Sin(2*math.Pi*float64(i)/288) }
	w.host("h1", "esx-1", "prod", func(i int) float64 { return 8e9 + 1e8*float64(i)/288 + day(i) + noise(i) }, always(64*gib))
	w.host("h2", "esx-2", "prod", func(i int) float64 {
		switch {
		case i > 40*288 && i < 43*288:
			return math.NaN()
		case i > 25*288:
			return 14e9 + noise(i)
		}
		return 8e9 + noise(i)
	}, always(32*gib))
	r := request(promql.Memory(w.series...), 60)
	r.MoreHosts, r.MoreVMs = 1, 2
	report := mustMake(t, "growth", r)
	golden(t, "growth", report)
	verdicts := map[string]string{}
	for _, row := range report.Tables[0].Rows {
		verdicts[row[0].(string)+" "+row[1].(string)+" "+row[4].(string)] = row[10].(string)
	}
	for what, want := range map[string]string{
		"host esx-1 CPU": "grows", "host esx-1 memory": "no trend", "host esx-2 CPU": "no trend", "cluster prod CPU": "grows", "cluster prod memory": "no trend",
	} {
		if verdicts[what] != want {
			t.Errorf("%s: %q, want %q", what, verdicts[what], want)
		}
	}
}

// TestQuestionsDoNotGrow holds that a report asks as much of a fleet as of a VM.
func TestQuestionsDoNotGrow(t *testing.T) {
	count := func(vms int) int {
		w := &world{samples: 289}
		w.host("h1", "esx-1", "prod", always(1e9), always(gib))
		for i := range vms {
			w.vm(string(rune('a'+i)), "vm", "1", 1, always(1e9))
		}
		c := &counter{Querier: promql.Memory(w.series...)}
		mustMake(t, "vm-utilization", request(c, 1))
		return c.n
	}
	if one, twenty := count(1), count(20); one != twenty {
		t.Errorf("%d questions for a VM, %d for twenty", one, twenty)
	}
}

type counter struct {
	history.Querier
	n int
}

func (c *counter) QueryRange(ctx context.Context, expr string, r history.Range) (history.Matrix, error) {
	c.n++
	return c.Querier.QueryRange(ctx, expr, r)
}
