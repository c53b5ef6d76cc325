package tsdb

import (
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	promconfig "github.com/prometheus/common/config"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/history/remote"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/rules"
	"github.com/protip/protip/rules/packs"
	"github.com/protip/protip/test/prom"
)

// TestSameAsPrometheus copies the blocks to a real Prometheus and holds its answers against the store's.
func TestSameAsPrometheus(t *testing.T) {
	prom.Tool(t, "prometheus")
	r := newRig(t, options(t.TempDir()))
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range 12 * 60 {
		r.after(time.Minute)
		for _, of := range []inventory.ID{vm1, vm2} {
			r.measure(of, inventory.VMCPUUsage, float64(rng.IntN(4000))*1e6)
			r.measure(of, inventory.VMCPUContention, rng.Float64()/10)
			r.measure(of, inventory.VMNetworkReceive, float64(i*rng.IntN(3)))
		}
		r.measure(h1, inventory.HostCPUUsageRatio, math.Sin(float64(i)/100)/2+0.5)
		r.measure(h1, inventory.HostCPUContention, 0.1)
		r.measure(h1, inventory.HostMemoryUsageRatio, 0.5+0.45*float64(i/120%2))
		switch i {
		case 200:
			r.apply(inventory.Delta{VMs: []inventory.VM{vm("vm1", "h2")}})
		case 300:
			r.apply(inventory.Delta{Removed: []inventory.ID{vm2}})
		case 301:
			r.apply(inventory.Delta{VMs: []inventory.VM{vm("vm2", "h1")}})
		}
		r.cycle()
		if i%60 == 59 {
			r.Maintain(t.Context(), r.now)
		}
	}
	if n := len(r.raw.Blocks()); n < 3 {
		t.Fatalf("%d blocks", n)
	}
	blocks := filepath.Join(t.TempDir(), "data")
	if err := r.raw.Snapshot(blocks, true); err != nil {
		t.Fatal(err)
	}
	far, err := remote.New(remote.Options{URL: prom.Over(t, blocks).URL, HTTP: promconfig.DefaultHTTPClientConfig, Timeout: time.Minute, Samples: 1e6})
	if err != nil {
		t.Fatal(err)
	}
	// Ranges fit no sample's distance: since Prometheus 3 they leave out their start, and Debian's is older.
	over := history.Range{Start: epoch.Add(17 * time.Second), End: r.now, Step: 7 * time.Minute}
	for _, expr := range []string{
		`virt_vm_cpu_usage_hertz`, `sum(virt_vm_vcpus)`, `count by (host) (virt_vm_info)`, `protip_source_up`, `absent(virt_vm_info{vm="x"})`,
		`avg_over_time(virt_vm_cpu_usage_hertz[61m1s])`, `max_over_time(virt_host_cpu_usage_ratio[31m1s])`, `stddev_over_time(virt_vm_cpu_contention_ratio[30m30s])`,
		`quantile_over_time(0.95, virt_vm_cpu_usage_hertz[3h1s])`, `rate(virt_vm_network_receive_bytes_total[10m1s])`, `increase(virt_vm_network_receive_bytes_total[1h1s])`,
		`resets(virt_vm_network_receive_bytes_total[2h1s])`, `deriv(virt_host_cpu_usage_ratio[1h1s])`, `predict_linear(virt_host_cpu_usage_ratio[1h1s], 86400)`,
		`topk(1, virt_vm_cpu_usage_hertz)`, `virt_vm_cpu_usage_hertz * on (source, vm_id) group_left (host) virt_vm_info`,
		`count_over_time(virt_vm_cpu_usage_hertz{vm_id="vm2"}[12h1s])`, `max_over_time(rate(virt_vm_network_receive_bytes_total[5m1s])[1h1s:1m])`,
		`virt_vm_cpu_usage_hertz offset 2h`, `changes(virt_vm_info[1h1s])`, `{__name__=~"virt_host_.*",host_id="h1"}`,
		`sum by (host) (avg_over_time(virt_vm_cpu_usage_hertz[10m1s]) * on (source, vm_id) group_left (host) virt_vm_info) > 1e8`,
		`label_replace(virt_host_vms, "x", "$1", "host", "esx-(.*)")`, `time() - timestamp(virt_vm_powered_on)`, `scalar(sum(virt_vm_vcpus)) / 3`,
	} {
		near, nearErr := r.QueryRange(t.Context(), expr, over)
		there, thereErr := far.QueryRange(t.Context(), expr, over)
		if nearErr != nil || thereErr != nil {
			t.Errorf("%s: %v, %v", expr, nearErr, thereErr)
			continue
		}
		if a, b := flat(near), flat(there); !slices.Equal(a, b) || len(a) == 0 {
			t.Errorf("%s:\n%s\nPrometheus:\n%s", expr, cut(a), cut(b))
		}
		v, nearErr := r.Query(t.Context(), expr, r.now)
		w, thereErr := far.Query(t.Context(), expr, r.now)
		if a, b := text(v), text(w); nearErr != nil || thereErr != nil || !sameSet(a, b) {
			t.Errorf("%s at once:\n%s %v\nPrometheus:\n%s %v", expr, cut(a), nearErr, cut(b), thereErr)
		}
	}
	over.Step = time.Minute
	sameTips(t, r.Store, far, over)
}

// sameTips replays the shipped packs over both: the same tips at the same times, with the same numbers.
func sameTips(t *testing.T, near, far history.Querier, over history.Range) {
	t.Helper()
	var files []rules.File
	for _, name := range packs.Names() {
		f, err := packs.File(name)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	set, err := rules.Load(files, rules.Options{Config: map[string]map[string]any{"vm-pressure": {"wait": 0.04, "often": 0.3, "busy": 0.2}}})
	if err != nil {
		t.Fatal(err)
	}
	told := func(past history.Querier) (out []string) {
		episodes, err := rules.Replay{Set: set, Past: past, Range: over}.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range episodes {
			out = append(out, fmt.Sprint(e.ActiveAt.Unix(), " ", e.EndedAt.Unix(), " ", e.Tip.Rule, " ", e.Tip.Object, " ", e.Tip.Summary))
		}
		return out
	}
	a, b := told(near), told(far)
	if !slices.Equal(a, b) || len(a) < 3 {
		t.Errorf("tips:\n%s\nof Prometheus:\n%s", strings.Join(a, "\n"), strings.Join(b, "\n"))
	}
}

// flat is a matrix as lines in order. Prometheus' own versions differ in the last bits of a sum.
func flat(m history.Matrix) []string {
	var out []string
	for _, s := range m {
		for _, p := range s.Points {
			out = append(out, fmt.Sprintf("%v %d %.12g", s.Labels, p.T, p.V))
		}
	}
	slices.Sort(out)
	return out
}

func sameSet(a, b []string) bool {
	return slices.Equal(rounded(a), rounded(b))
}

func rounded(lines []string) []string {
	var out []string
	for _, line := range lines {
		i := strings.LastIndex(line, " ")
		var v float64
		if _, err := fmt.Sscan(line[i+1:], &v); err != nil {
			return lines
		}
		out = append(out, fmt.Sprintf("%s %.12g", line[:i], v))
	}
	slices.Sort(out)
	return out
}

func cut(lines []string) string { return strings.Join(lines[:min(len(lines), 6)], "\n") }
