package rules

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/protip/protip/internal/history/promql"
	"github.com/protip/protip/internal/history/tsdb"

	"github.com/protip/protip/internal/inventory"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const interval = 20 * time.Second

func id(kind inventory.Kind, ref string) inventory.ID {
	return inventory.ID{Source: "vc", Kind: kind, Ref: ref}
}

// world is a fleet under test.
type world struct {
	testing.TB
	*inventory.Fleet
}

func newWorld(t testing.TB) world {
	return world{t, inventory.NewFleet(inventory.Source{Name: "vc", Platform: "vsphere", Interval: interval})}
}

func (w world) apply(d inventory.Delta, at time.Time) {
	w.Helper()
	d.Source = "vc"
	if _, err := w.Apply(d, at); err != nil {
		w.Fatal(err)
	}
}

func cluster(name string, drs bool) inventory.Cluster {
	c := inventory.Cluster{ID: id(inventory.KindCluster, name), Name: name}
	if drs {
		c.DRS = inventory.DRS{Enabled: true, Automation: inventory.AutomationFull}
	}
	return c
}

func host(name, cluster string) inventory.Host {
	h := inventory.Host{
		ID: id(inventory.KindHost, name), Name: name, Connection: inventory.Connected, Power: inventory.PowerOn,
		Cores: 16, CPUHertz: 40e9, MemoryBytes: 256 << 30, Version: "8.0.3",
	}
	if cluster != "" {
		h.Cluster = id(inventory.KindCluster, cluster)
	}
	return h
}

func guest(name, host string) inventory.VM {
	return inventory.VM{
		ID: id(inventory.KindVM, name), Name: name, Host: id(inventory.KindHost, host),
		Connection: inventory.Connected, Power: inventory.PowerOn, VCPUs: 4, MemoryBytes: 8 << 30,
	}
}

func sample(object inventory.ID, at time.Time, values map[inventory.Metric]float64) inventory.SampleSet {
	set := inventory.SampleSet{ID: object, At: at.UnixMilli()}
	for m, v := range values {
		set.Values = append(set.Values, inventory.Value{Metric: m, Value: v})
	}
	return set
}

func hostLoad(name string, at time.Time, cpu, contention float64) inventory.SampleSet {
	return sample(id(inventory.KindHost, name), at, map[inventory.Metric]float64{
		inventory.HostCPUUsageRatio: cpu, inventory.HostCPUContention: contention, inventory.HostMemoryUsageRatio: 0.5,
	})
}

// hotFleet is one hot host with one VM at noon.
func hotFleet(t testing.TB) *inventory.Snapshot {
	w := newWorld(t)
	w.apply(inventory.Delta{
		Begin: true, Synced: true,
		Clusters: []inventory.Cluster{cluster("c", true)}, Hosts: []inventory.Host{host("h", "c")}, VMs: []inventory.VM{guest("v", "h")},
		Samples: []inventory.SampleSet{
			hostLoad("h", noon, 0.9, 0.1),
			sample(id(inventory.KindVM, "v"), noon, map[inventory.Metric]float64{inventory.VMCPUContention: 0.2}),
		},
	}, noon)
	return w.Snapshot()
}

func one(t testing.TB, set *Set, snap *inventory.Snapshot, now time.Time) Finding {
	t.Helper()
	findings, _ := set.Eval(Input{Snapshot: snap, Now: now})
	if len(findings) != 1 {
		t.Fatalf("%d findings, want 1", len(findings))
	}
	return findings[0]
}

func TestEval(t *testing.T) {
	for name, tc := range map[string]struct {
		when, clear string
		wantWhen    Verdict
		wantClear   Verdict
	}{
		"true":                    {"host.cpu_usage_ratio > config.hot", "host.cpu_usage_ratio < config.calm", True, False},
		"without clear":           {"host.cpu_usage_ratio > config.hot", "", True, False},
		"calm without clear":      {"host.cpu_usage_ratio > 0.95", "", False, True},
		"between":                 {"host.cpu_usage_ratio > 0.95", "host.cpu_usage_ratio < 0.7", False, False},
		"facts":                   {"host.connected and host.powered_on and host.cores == 16 and host.version startsWith '8.'", "", True, False},
		"text":                    {"lower(host.name + 'X') == 'hx' && host.name matches '^h$'", "", True, False},
		"arithmetic":              {"max(1, host.cores) / 2 ** 3 == 2 && -host.cores < 0 && round(0.6) == 1", "", True, False},
		"its cluster":             {"cluster.drs_automatic && cluster.name == 'c'", "", True, False},
		"conditional":             {"(host.cores > 8 ? 0.9 : 0.5) > 0.8", "", True, False},
		"if":                      {"if host.maintenance { false } else { true }", "", True, False},
		"chained comparison":      {"0.5 < host.cpu_usage_ratio < 1", "", True, False},
		"missing":                 {"host.uptime_seconds > 1", "", Undecided, Undecided},
		"missing, but not needed": {"host.cpu_usage_ratio > 0.5 || host.uptime_seconds > 1", "", Undecided, Undecided},
		"missing in clear":        {"host.cpu_usage_ratio > 0.5", "host.uptime_seconds > 1", Undecided, Undecided},
		"a fact not told":         {"host.model == ''", "", True, False}, // an empty text is a text
	} {
		t.Run(name, func(t *testing.T) {
			f := one(t, mustLoad(t, hostRule("'"+strings.ReplaceAll(tc.when, "'", "''")+"'", tc.clear)), hotFleet(t), noon)
			if f.When != tc.wantWhen || f.Clear != tc.wantClear || f.Err != nil {
				t.Errorf("when %s, clear %s, err %v; want %s, %s", f.When, f.Clear, f.Err, tc.wantWhen, tc.wantClear)
			}
		})
	}
}

func TestFinding(t *testing.T) {
	f := one(t, mustLoad(t, hostRule("host.cpu_usage_ratio > config.hot && host.cpu_contention_ratio > 0.05", "")), hotFleet(t), noon)
	got, err := json.MarshalIndent(f, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	want := `{
 "rule": "p/R",
 "object": "vc/host/h",
 "name": "h",
 "cluster": "vc/cluster/c",
 "drs": true,
 "when": "true",
 "clear": "false",
 "cause": "host.cpu_usage_ratio \u003e 0.85 \u0026\u0026 host.cpu_contention_ratio \u003e 0.05",
 "remedy": {
  "action": "rebalance-host",
  "cpu_below": 0.6
 },
 "summary": "h 90%",
 "evidence": [
  {
   "name": "host.cpu_usage_ratio",
   "value": 0.9,
   "unit": "ratio",
   "at": "2026-03-01T12:00:00Z"
  },
  {
   "name": "host.cpu_contention_ratio",
   "value": 0.1,
   "unit": "ratio",
   "at": "2026-03-01T12:00:00Z"
  }
 ]
}`
	if string(got) != want {
		t.Errorf("got %s", got)
	}
}

// TestUnknown is about what may not be concluded in an outage.
func TestUnknown(t *testing.T) {
	samples := mustLoad(t, hostRule("host.cpu_usage_ratio > 0.85", "host.cpu_usage_ratio < 0.7"))
	onlyFacts := mustLoad(t, hostRule("'!host.maintenance'", ""))
	snap := hotFleet(t)

	t.Run("stale by age alone", func(t *testing.T) {
		if f := one(t, samples, snap, noon.Add(2*interval)); f.When != True {
			t.Errorf("after two intervals: %s", f.When)
		}
		f := one(t, samples, snap, noon.Add(2*interval+time.Millisecond))
		if f.When != Undecided || f.Clear != Undecided || !f.NoDataSince.Equal(noon) || f.Summary != "" {
			t.Errorf("later: %+v", f)
		}
	})
	t.Run("expired", func(t *testing.T) {
		w := newWorld(t)
		w.apply(inventory.Delta{Begin: true, Synced: true, Hosts: []inventory.Host{host("h", "")}, Samples: []inventory.SampleSet{hostLoad("h", noon, 0.5, 0)}}, noon)
		later := noon.Add(3 * interval)
		w.Expire(later)
		if f := one(t, samples, w.Snapshot(), later); f.When != Undecided || !f.NoDataSince.Equal(noon) {
			t.Errorf("%+v", f)
		}
	})
	t.Run("never seen", func(t *testing.T) {
		w := newWorld(t)
		w.apply(inventory.Delta{Begin: true, Synced: true, Hosts: []inventory.Host{host("h", "")}}, noon)
		if f := one(t, samples, w.Snapshot(), noon); f.When != Undecided || !f.NoDataSince.IsZero() {
			t.Errorf("%+v", f)
		}
	})
	t.Run("the oldest of several", func(t *testing.T) {
		w := newWorld(t)
		w.apply(inventory.Delta{Begin: true, Synced: true, Hosts: []inventory.Host{host("h", "")}, Samples: []inventory.SampleSet{
			sample(id(inventory.KindHost, "h"), noon.Add(-2*time.Minute), map[inventory.Metric]float64{inventory.HostCPUContention: 1}),
			sample(id(inventory.KindHost, "h"), noon.Add(-time.Minute), map[inventory.Metric]float64{inventory.HostCPUUsageRatio: 1}),
		}}, noon)
		both := mustLoad(t, hostRule("host.cpu_usage_ratio > host.cpu_contention_ratio", ""))
		if f := one(t, both, w.Snapshot(), noon); !f.NoDataSince.Equal(noon.Add(-2 * time.Minute)) {
			t.Errorf("no data since %s", f.NoDataSince)
		}
	})
	t.Run("facts of a source that is down", func(t *testing.T) {
		w := newWorld(t)
		w.apply(inventory.Delta{Begin: true, Synced: true, Hosts: []inventory.Host{host("h", "")}}, noon)
		w.Down("vc", errors.New("refused"))
		if f := one(t, onlyFacts, w.Snapshot(), noon.Add(2*interval)); f.When != True {
			t.Errorf("at first: %s", f.When)
		}
		if f := one(t, onlyFacts, w.Snapshot(), noon.Add(3*interval)); f.When != Undecided || !f.NoDataSince.Equal(noon) {
			t.Errorf("later: %+v", f)
		}
	})
	t.Run("a number that was not told", func(t *testing.T) {
		h := host("h", "")
		h.Cores = 0
		w := newWorld(t)
		w.apply(inventory.Delta{Begin: true, Synced: true, Hosts: []inventory.Host{h}}, noon)
		if f := one(t, mustLoad(t, hostRule("host.cores < 4", "")), w.Snapshot(), noon); f.When != Undecided {
			t.Errorf("%s", f.When)
		}
	})
	t.Run("a source not in sync contributes nothing", func(t *testing.T) {
		w := newWorld(t)
		w.apply(inventory.Delta{Begin: true, Hosts: []inventory.Host{host("h", "")}, Samples: []inventory.SampleSet{hostLoad("h", noon, 1, 1)}}, noon)
		if findings, _ := samples.Eval(Input{Snapshot: w.Snapshot(), Now: noon}); len(findings) != 0 {
			t.Errorf("%+v", findings)
		}
	})
	t.Run("only the summary lacks something", func(t *testing.T) {
		set := mustLoad(t, strings.Replace(hostRule("host.cpu_usage_ratio > 0.85", ""), "percent(host.cpu_usage_ratio)", "duration(host.uptime_seconds)", 1))
		if f := one(t, set, snap, noon); f.When != True || f.Summary != "h no data" {
			t.Errorf("%s, %q", f.When, f.Summary)
		}
	})
}

// TestNothingToJudge is about objects that a rule has no say on, as against those it knows nothing of.
func TestNothingToJudge(t *testing.T) {
	vmRule := mustLoad(t, packText("on: vm", "severity: info", "summary: '{{vm.name}} on {{host.name}}'", "remedy: {action: migrate}",
		"when: vm.cpu_contention_ratio > 0.1 && !host.maintenance"))
	fleet := func(change func(*inventory.VM, *inventory.Host)) world {
		w := newWorld(t)
		v, h := guest("v", "h"), host("h", "")
		change(&v, &h)
		w.apply(inventory.Delta{
			Begin: true, Synced: true, Hosts: []inventory.Host{h}, VMs: []inventory.VM{v},
			Samples: []inventory.SampleSet{hostLoad("h", noon, 0.9, 0.1)},
		}, noon)
		return w
	}
	t.Run("on", func(t *testing.T) {
		f := one(t, vmRule, hotFleet(t), noon)
		if f.When != True || f.Summary != "v on h" || f.Cluster != id(inventory.KindCluster, "c") {
			t.Errorf("%+v", f)
		}
	})
	t.Run("off", func(t *testing.T) {
		w := fleet(func(v *inventory.VM, _ *inventory.Host) { v.Power = inventory.PowerOff })
		if f := one(t, vmRule, w.Snapshot(), noon); f.When != False || f.Clear != True || f.Why != "the VM is powered off" {
			t.Errorf("%+v", f)
		}
		w.Down("vc", errors.New("gone"))
		if f := one(t, vmRule, w.Snapshot(), noon.Add(time.Hour)); f.When != Undecided {
			t.Errorf("in an outage: %+v", f)
		}
	})
	t.Run("template", func(t *testing.T) {
		w := fleet(func(v *inventory.VM, _ *inventory.Host) { v.Template = true })
		if findings, _ := vmRule.Eval(Input{Snapshot: w.Snapshot(), Now: noon}); len(findings) != 0 {
			t.Errorf("%+v", findings)
		}
	})
	t.Run("unknown host", func(t *testing.T) {
		w := fleet(func(v *inventory.VM, _ *inventory.Host) { v.Host.Ref = "elsewhere" })
		if f := one(t, vmRule, w.Snapshot(), noon); f.When != Undecided {
			t.Errorf("%+v", f)
		}
	})
	t.Run("no cluster", func(t *testing.T) {
		w := fleet(func(*inventory.VM, *inventory.Host) {})
		if f := one(t, mustLoad(t, hostRule("cluster.drs_enabled", "")), w.Snapshot(), noon); f.Why != "the host is in no cluster" {
			t.Errorf("%+v", f)
		}
	})
	t.Run("platform", func(t *testing.T) {
		set := mustLoad(t, "platforms: [libvirt]\n"+hostRule("host.cores > 1", ""))
		if findings, _ := set.Eval(Input{Snapshot: hotFleet(t), Now: noon}); len(findings) != 0 {
			t.Errorf("%+v", findings)
		}
	})
	t.Run("cluster", func(t *testing.T) {
		set := mustLoad(t, packText("on: cluster", "severity: info", "summary: '{{cluster.name}}: {{cluster.ha_enabled}}'", "remedy: {action: none}",
			"when: cluster.drs_enabled && !cluster.ha_admission_control"))
		if f := one(t, set, hotFleet(t), noon); f.When != True || f.Summary != "c: false" || !f.DRS {
			t.Errorf("%+v", f)
		}
	})
}

// TestOneRuleFails breaks a compiled rule from inside: what the compiler lets through cannot fail.
func TestOneRuleFails(t *testing.T) {
	text := hostRule("host.cpu_usage_ratio > 0.85", "")
	second := strings.Replace(text[strings.Index(text, "  - name"):], "name: R", "name: S", 1)
	set := mustLoad(t, text+second)
	set.rules[0].inputs = nil // so that its environment is empty
	findings, stats := set.Eval(Input{Snapshot: hotFleet(t), Now: noon})
	if len(findings) != 2 || findings[0].Err == nil || findings[0].When != Undecided || findings[0].Clear != Undecided {
		t.Fatalf("%+v", findings)
	}
	if !strings.Contains(findings[0].Err.Error(), "evaluate when of p/R for vc/host/h") {
		t.Error(findings[0].Err)
	}
	if findings[1].When != True || findings[1].Err != nil {
		t.Errorf("the other rule: %+v", findings[1])
	}
	if got, want := stats[set.rules[0]], (Stats{Findings: 1, Undecided: 1, Failed: 1}); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
	if got, want := stats[set.rules[1]], (Stats{Findings: 1, True: 1}); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
}

func TestHostileNames(t *testing.T) {
	h := host("h", "")
	h.Name = "a\x1b[31m\n\"b\xff\u202e" + strings.Repeat("é", 10_000)
	w := newWorld(t)
	w.apply(inventory.Delta{Begin: true, Synced: true, Hosts: []inventory.Host{h}, Samples: []inventory.SampleSet{hostLoad("h", noon, 0.9, 0.1)}}, noon)
	f := one(t, mustLoad(t, hostRule("host.cpu_usage_ratio > 0.5", "")), w.Snapshot(), noon)
	if strings.ContainsAny(f.Summary, "\x1b\n\u202e") || len(f.Summary) > 600 || !strings.HasPrefix(f.Summary, `a [31m "b`) {
		t.Errorf("%.80q, %d bytes", f.Summary, len(f.Summary))
	}
}

func TestFormatters(t *testing.T) {
	for want, got := range map[string]string{
		"87%": percent(0.873), "5.2%": percent(0.0519), "0.0%": percent(0), "-3.0%": percent(-0.03), "100%": percent(1), "10%": percent(0.0999),
		"256 GiB": scaled(256<<30, 1024, "B", "KiB", "MiB", "GiB", "TiB"), "1023 B": scaled(1023, 1024, "B", "KiB"), "1.5 KiB": scaled(1536, 1024, "B", "KiB"),
		"2.4 GHz": scaled(2.4e9, 1000, "Hz", "kHz", "MHz", "GHz"), "NaN Hz": scaled(math.NaN(), 1000, "Hz", "kHz"), "+Inf kHz": scaled(math.Inf(1), 1000, "Hz", "kHz"),
		"1m30s": seconds(90), "12.3ms": seconds(0.0123), "1h0m0s": seconds(3600), "NaNs": seconds(math.NaN()), "1e+300s": seconds(1e300), "2.5s": seconds(2.5),
		"0.1235": show(0.123456), "12346": show(12345.6), "true": show(true), "x": show("x"),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestEvalIsPure: the same values give the same findings, on any goroutine, and the snapshot stays as it was.
func TestEvalIsPure(t *testing.T) {
	set := mustLoad(t, packText("on: vm", "severity: info", "summary: '{{vm.name}} waits {{percent(vm.cpu_contention_ratio)}}'", "remedy: {action: migrate}",
		"when: vm.cpu_contention_ratio > 0.19 && vm.cpu_usage_hertz > 1000000 && !host.maintenance", "clear: vm.cpu_contention_ratio < 0.1"))
	in := Input{Snapshot: bigFleet(t, 50, 500), Now: noon}
	want, _ := set.Eval(in)
	results := make(chan []Finding)
	for range 4 {
		go func() {
			got, _ := set.Eval(in)
			results <- got
		}()
	}
	for range 4 {
		if got := <-results; !reflect.DeepEqual(got, want) {
			t.Error("two evaluations differ")
		}
	}
}

func bigFleet(t testing.TB, hosts, vms int) *inventory.Snapshot {
	w := newWorld(t)
	d := inventory.Delta{Begin: true, Synced: true, Clusters: []inventory.Cluster{cluster("c", false)}}
	for i := range hosts {
		name := fmt.Sprintf("h%d", i)
		d.Hosts = append(d.Hosts, host(name, "c"))
		d.Samples = append(d.Samples, hostLoad(name, noon, float64(i%100)/100, float64(i%7)/70))
	}
	for i := range vms {
		name := fmt.Sprintf("v%d", i)
		d.VMs = append(d.VMs, guest(name, fmt.Sprintf("h%d", i%hosts)))
		d.Samples = append(d.Samples, sample(id(inventory.KindVM, name), noon, map[inventory.Metric]float64{
			inventory.VMCPUUsage: 1e9 * float64(i%8), inventory.VMCPUContention: float64(i%100) / 500, inventory.VMMemorySwapped: float64(i%3) * 1e9,
		}))
	}
	w.apply(d, noon)
	return w.Snapshot()
}

// benchmarkRules are rules on VMs of four inputs; of a fleet that bigFleet makes none is true.
func benchmarkRules(n int) string {
	var b strings.Builder
	b.WriteString("pack: p\nversion: 1.0.0\ndescription: d\nconfig: {wait: 0.9}\nrules:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - {name: R%d, on: vm, when: 'vm.cpu_contention_ratio > config.wait && vm.cpu_usage_hertz > %d && !host.maintenance', clear: vm.cpu_contention_ratio < 0.1,"+
			" for: 5m, severity: info, summary: '{{vm.name}}', remedy: {action: migrate}}\n", i, 1000000+i)
	}
	return b.String()
}

// BenchmarkEval is 50 rules over 10,000 VMs on 1,000 hosts, all calm, beside the same condition written in Go.
func BenchmarkEval(b *testing.B) {
	const rules, vms = 50, 10_000
	set := mustLoad(b, benchmarkRules(rules))
	in := Input{Snapshot: bigFleet(b, 1000, vms), Now: noon, Followed: Followed{}}
	const passes = 5
	began := time.Now()
	for range passes {
		for i := range rules {
			if n := inGo(in.Snapshot, 0.9, float64(1000000+i), noon); n != 0 {
				b.Fatal(n)
			}
		}
	}
	floor := float64(time.Since(began).Nanoseconds()) / passes / rules / vms
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for b.Loop() {
		if findings, _ := set.Eval(in); len(findings) != 0 {
			b.Fatal(len(findings))
		}
	}
	runtime.ReadMemStats(&after)
	each := float64(b.Elapsed().Nanoseconds()) / float64(b.N) / rules / vms
	b.ReportMetric(each, "ns/object")
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/float64(b.N)/rules/vms, "B/object")
	b.ReportMetric(each/floor, "floor-ratio")
}

// inGo is the benchmark's condition, with all that a rule promises of stale and missing inputs.
func inGo(snap *inventory.Snapshot, wait, busy float64, now time.Time) (n int) {
	for _, src := range snap.Sources() {
		h := horizonOf(src, now)
		vms := snap.VMTable(src.Name)
		for i, vm := range vms.Facts {
			host, ok := snap.Host(vm.Host)
			waits, uses := vms.Samples[i].Of(inventory.VMCPUContention), vms.Samples[i].Of(inventory.VMCPUUsage)
			if ok && h.facts && waits.OK() && waits.At >= h.oldest && uses.OK() && uses.At >= h.oldest &&
				waits.Value > wait && uses.Value > busy && !host.Maintenance {
				n++
			}
		}
	}
	return n
}

// BenchmarkEvalFleet is one full evaluation as the agent makes it: 50 rules over 10,000 VMs, 10 of them over ten minutes of history in
// the embedded store, each with an expression of its own.
func BenchmarkEvalFleet(b *testing.B) {
	const plain, asked, hosts, vms = 40, 10, 1000, 10_000
	var text strings.Builder
	text.WriteString(benchmarkRules(plain))
	for i := range asked {
		fmt.Fprintf(&text, "  - {name: Q%d, on: vm, with: {wait: 'avg_over_time(virt_vm_cpu_contention_ratio[%dm])'}, when: wait > 0.9 && !host.maintenance, clear: wait < 0.1,"+
			" severity: info, summary: '{{vm.name}}', remedy: {action: migrate}}\n", i, 5+i)
	}
	set := mustLoad(b, text.String())
	store, err := tsdb.Open(tsdb.Options{
		Dir: b.TempDir(), Retention: 24 * time.Hour, RollupRetention: 48 * time.Hour, Limits: promql.DefaultLimits(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	w := newWorld(b)
	d := inventory.Delta{Begin: true, Synced: true, Clusters: []inventory.Cluster{cluster("c", false)}}
	for i := range hosts {
		d.Hosts = append(d.Hosts, host(fmt.Sprintf("h%d", i), "c"))
	}
	for i := range vms {
		d.VMs = append(d.VMs, guest(fmt.Sprintf("v%d", i), fmt.Sprintf("h%d", i%hosts)))
	}
	now := noon
	for range 45 { // a quarter of an hour
		for i := range vms {
			d.Samples = append(d.Samples, sample(id(inventory.KindVM, fmt.Sprintf("v%d", i)), now, map[inventory.Metric]float64{
				inventory.VMCPUUsage: 1e9 * float64(i%8), inventory.VMCPUContention: float64(i%100) / 500,
			}))
		}
		w.apply(d, now)
		if err := store.Append(w.Snapshot(), now); err != nil {
			b.Fatal(err)
		}
		d, now = inventory.Delta{}, now.Add(20*time.Second)
	}
	now = now.Add(-20 * time.Second)
	snap := w.Snapshot()
	began := cpuTime(b)
	for b.Loop() {
		answers := set.Ask(b.Context(), store, snap, now)
		findings, stats := set.Eval(Input{Snapshot: snap, Answers: answers, Followed: Followed{}, Now: now})
		if len(findings) != 0 || stats[set.rules[plain]].Findings != vms || stats[set.rules[plain]].Undecided != 0 {
			b.Fatal(len(findings), stats[set.rules[plain]])
		}
	}
	b.ReportMetric((cpuTime(b)-began).Seconds()/float64(b.N), "cpu-s/op")
}

// cpuTime is what the process has used.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		b.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}
