package vsphere

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/vsphere"
)

type vmSpec struct {
	host  string
	vcpus int
	off   bool
	moved time.Time
}

// testPerf is a perf whose tree has the VMs, all on connected hosts, and no connection.
func testPerf(vms map[string]vmSpec) *perf {
	t := newTree("a")
	for ref, spec := range vms {
		t.hosts[spec.host] = &host{Host: inventory.Host{ID: t.id(inventory.KindHost, spec.host), Connection: inventory.Connected, Power: inventory.PowerOn}}
		v := &vm{moved: spec.moved, VM: inventory.VM{
			ID: t.id(inventory.KindVM, ref), Host: t.id(inventory.KindHost, spec.host), VCPUs: spec.vcpus,
			Connection: inventory.Connected, Power: inventory.PowerOn,
		}}
		if spec.off {
			v.Power = inventory.PowerOff
		}
		t.vms[ref] = v
		t.entered = append(t.entered, v)
	}
	src := &Source{opts: Options{Name: "a", Clock: clock.New(1), Interval: 20 * time.Second}, totals: newTotals()}
	p := newPerf(&follower{Source: src, tree: t})
	ids := map[string]int32{}
	for i, c := range append(vmCounters[:], hostCounters[:]...) {
		if ids[c.name] == 0 {
			ids[c.name] = int32(100 + i)
		}
	}
	p.vms.resolve(ids)
	p.hosts.resolve(ids)
	return p
}

// answer is an answer of samples that end ago before now.
func (p *perf) answer(vm string, now time.Time, ago []time.Duration, given map[int][]float64) *answer {
	s := series{ref: vm, values: slices.Repeat([]float64{math.NaN()}, counters*len(ago))}
	for _, d := range ago {
		s.times = append(s.times, now.Add(-d))
	}
	for counter, values := range given {
		copy(s.values[counter*len(ago):], values)
	}
	return &answer{of: &p.vms, series: []series{s}, times: s.times}
}

// text is the samples in words, sorted, without times.
func text(sets []inventory.SampleSet) string {
	var lines []string
	for _, s := range sets {
		for _, v := range s.Values {
			lines = append(lines, fmt.Sprintf("%s %s %.6g", s.ID.Ref, v.Metric.Field(), v.Value))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestGauges(t *testing.T) {
	nan := math.NaN()
	tests := []struct {
		name     string
		counters map[int][]float64
		want     string
	}{
		{"all", map[int][]float64{
			counterReady: {4000}, counterCoStop: {800}, counterActive: {2048}, counterBalloon: {1024}, counterSwapped: {0},
			counterLatency: {12}, counterReceive: {100}, counterTransmit: {10},
		}, `host-1 cpu_contention_max_ratio 0.1
host-1 cpu_contention_ratio 0.1
vm-1 cpu_contention_ratio 0.1
vm-1 cpu_costop_ratio 0.02
vm-1 disk_latency_seconds 0.012
vm-1 memory_active_bytes 2.09715e+06
vm-1 memory_balloon_bytes 1.04858e+06
vm-1 memory_swapped_bytes 0
vm-1 network_receive_bytes_total 2.048e+06
vm-1 network_transmit_bytes_total 204800`},
		{"missing counters cost only themselves", map[int][]float64{counterReady: {nan}, counterActive: {1}}, `vm-1 memory_active_bytes 1024`},
		{"nothing", map[int][]float64{}, ``},
		{"a little above one is one", map[int][]float64{counterReady: {41000}}, `host-1 cpu_contention_max_ratio 1
host-1 cpu_contention_ratio 1
vm-1 cpu_contention_ratio 1`},
		{
			"absurd values are dropped",
			map[int][]float64{counterReady: {4e9}, counterActive: {1e16}, counterLatency: {1e9}, counterReceive: {1e12}, counterSwapped: {7}},
			`vm-1 memory_swapped_bytes 7168`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := testPerf(map[string]vmSpec{"vm-1": {host: "host-1", vcpus: 2}})
			now := p.opts.Clock.Now()
			got := text(p.samples([]*answer{p.answer("vm-1", now, []time.Duration{5 * time.Second}, tt.counters)}, 0))
			if got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// TestTotalsCountEveryIntervalOnce asks again and again, with overlaps, gaps, either order and a wandering skew.
func TestTotalsCountEveryIntervalOnce(t *testing.T) {
	p := testPerf(map[string]vmSpec{"vm-1": {host: "host-1", vcpus: 2}})
	now := p.opts.Clock.Now()
	s := time.Second
	steps := []struct {
		name   string
		ago    []time.Duration // seconds before now
		kbps   []float64
		jitter time.Duration
		want   float64 // KB
	}{
		{"first", []time.Duration{300 * s}, []float64{10}, 0, 200},
		{"the same again", []time.Duration{300 * s}, []float64{10}, 2 * s, 200},
		{"the same and the next", []time.Duration{300 * s, 280 * s}, []float64{10, 20}, -3 * s, 600},
		{"three missed, newest first", []time.Duration{200 * s, 220 * s, 240 * s, 260 * s, 280 * s}, []float64{1, 1, 1, 1, 20}, 3 * s, 680},
		{"one without a value", []time.Duration{180 * s, 160 * s}, []float64{math.NaN(), 5}, 0, 780},
		{"one twice", []time.Duration{140 * s, 140 * s}, []float64{5, 5}, 0, 880},
		{"old ones only", []time.Duration{260 * s, 240 * s}, []float64{9, 9}, 0, 880},
		{"from the future", []time.Duration{-9e9 * s}, []float64{9}, 0, 880},
		{"and on", []time.Duration{120 * s}, []float64{1}, 0, 900},
	}
	last := 0.0
	for _, step := range steps {
		sets := p.samples([]*answer{p.answer("vm-1", now, step.ago, map[int][]float64{counterReceive: step.kbps})}, step.jitter)
		for _, set := range sets {
			if v, ok := valueOf(set.Values, inventory.VMNetworkReceive); ok {
				last = v
			}
		}
		if last != step.want*kibi {
			t.Errorf("%s: %v KB, want %v", step.name, last/kibi, step.want)
		}
	}
	p.totals.keep(newTree("a"))
	if len(p.totals.byVM) != 0 {
		t.Error("the total of a VM that is gone was kept")
	}
}

func TestAsksForWhatWasMissed(t *testing.T) {
	p := testPerf(map[string]vmSpec{
		"new": {host: "host-1"}, "off": {host: "host-1", off: true}, "known": {host: "host-1"}, "missed": {host: "host-1"}, "ancient": {host: "host-1"},
	})
	now := p.opts.Clock.Now()
	p.totals.byVM["known"] = &total{last: now.Add(-25 * time.Second)}
	p.totals.byVM["missed"] = &total{last: now.Add(-99 * time.Second)}
	p.totals.byVM["ancient"] = &total{last: now.Add(-99 * time.Hour)}
	got := map[string]int{}
	for _, a := range p.totals.asks(p.tree, now) {
		got[a.ref] = a.count
	}
	if want := map[string]int{"new": 1, "known": 2, "missed": 5, "ancient": maxSamples}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestHostContention(t *testing.T) {
	now := time.Now()
	ago := []time.Duration{5 * time.Second}
	ready := func(ms float64) map[int][]float64 { return map[int][]float64{counterReady: {ms}} }
	vms := map[string]vmSpec{
		"big": {host: "host-1", vcpus: 6}, "small": {host: "host-1", vcpus: 2},
		"moved": {host: "host-2", vcpus: 8, moved: now.Add(-8 * time.Second)}, "settled": {host: "host-2", vcpus: 8, moved: now.Add(-time.Minute)},
		"measured": {host: "host-3", vcpus: 1}, "silent": {host: "host-3", vcpus: 4},
		"off": {host: "host-4", vcpus: 4, off: true},
	}
	p := testPerf(vms)
	p.tree.hosts["host-5"] = &host{Host: inventory.Host{ID: p.tree.id(inventory.KindHost, "host-5"), Connection: inventory.Disconnected, Power: inventory.PowerOn}}
	var answers []*answer
	for vm, ms := range map[string]float64{"big": 12000, "small": 8000, "moved": 160000, "settled": 1600, "measured": 2000, "off": 4000} {
		answers = append(answers, p.answer(vm, now, ago, ready(ms)))
	}
	var hosts []inventory.SampleSet
	for _, set := range p.samples(answers, 0) {
		if set.ID.Kind == inventory.KindHost {
			hosts = append(hosts, set)
			if at := time.UnixMilli(set.At); now.Sub(at).Round(time.Second) != 5*time.Second {
				t.Errorf("%v has the time %v, which is not its VMs'", set.ID, at)
			}
		}
	}
	// host-1: 0.1 x 6 and 0.2 x 2 over 8. host-2: half was measured there all the time. host-3: too little was measured.
	// host-4: nothing runs. host-5: not connected.
	want := `host-1 cpu_contention_max_ratio 0.2
host-1 cpu_contention_ratio 0.125
host-2 cpu_contention_max_ratio 0.01
host-2 cpu_contention_ratio 0.01
host-4 cpu_contention_max_ratio 0
host-4 cpu_contention_ratio 0`
	if got := text(hosts); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if sets := p.samples(nil, 0); len(sets) > 0 {
		t.Errorf("without an answer there are samples: %s", text(sets))
	}
}

func TestSkewCorrectsTimes(t *testing.T) {
	p := testPerf(map[string]vmSpec{"vm-1": {host: "host-1", vcpus: 1}})
	theirs := p.opts.Clock.Now().Add(-time.Hour) // the vCenter's clock is an hour behind
	sets := p.samples([]*answer{p.answer("vm-1", theirs, []time.Duration{7 * time.Second}, map[int][]float64{counterActive: {1}})}, time.Hour)
	if len(sets) != 1 {
		t.Fatalf("%d sets", len(sets))
	}
	if age := time.Since(time.UnixMilli(sets[0].At)).Round(time.Second); age != 7*time.Second {
		t.Errorf("the sample is %v old, want 7s", age)
	}
}

func TestUntilNextSample(t *testing.T) {
	at := func(s float64) time.Time {
		return time.Unix(1_700_000_040, 0).Add(time.Duration(s * float64(time.Second)))
	} // a whole minute
	for _, tt := range []struct{ at, interval, phase, want float64 }{
		{0, 20, 5, 5},
		{0.5, 20, 5, 24.5}, // too soon after the cycle that has just begun
		{5, 20, 5, 20},
		{4.9, 20, 5, 20.1},
		{19.9, 20, 5, 5.1},
		{12, 20, 15, 23},
		{50, 60, 15, 25},
	} {
		d := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
		if got := untilNextSample(at(tt.at), d(tt.interval), d(tt.phase)); got.Round(time.Millisecond) != d(tt.want) {
			t.Errorf("at %v of %v: %v, want %v", tt.at, tt.interval, got, d(tt.want))
		}
	}
}

func TestLearnPhase(t *testing.T) {
	p := testPerf(nil)
	p.phase = 5 * time.Second
	asked := p.opts.Clock.Now()
	for i, step := range []struct{ lag, want time.Duration }{{5, 5}, {25, 10}, {10, 10}, {30, 15}, {35, 15}} {
		p.learnPhase(asked.Add(-step.lag*time.Second), asked)
		if p.phase != step.want*time.Second {
			t.Errorf("step %d: phase %v, want %v s", i, p.phase, int(step.want))
		}
	}
}

func TestBatchSize(t *testing.T) {
	b := newBatchSize(50)
	b.halve(50)
	b.halve(50) // a second call of the size before, failed meanwhile
	if b.size() != 25 {
		t.Errorf("size %d after one halving", b.size())
	}
	for range regrow {
		b.calm()
	}
	if b.size() != 50 {
		t.Errorf("size %d after a calm while", b.size())
	}
	b.cap(8)
	for range 3 * regrow {
		b.calm()
	}
	if b.size() != 8 {
		t.Errorf("size %d, want the vCenter's limit", b.size())
	}
	for range 9 {
		b.halve(b.size())
	}
	if b.size() != 1 {
		t.Errorf("size %d, want at least 1", b.size())
	}
}

func TestUsage(t *testing.T) {
	p := testPerf(map[string]vmSpec{"on": {host: "host-1", vcpus: 2}, "off": {host: "host-1", off: true}, "away": {host: "host-2", vcpus: 1}})
	p.tree.hosts["host-1"].CPUHertz, p.tree.hosts["host-1"].MemoryBytes = 10e9, 8<<30
	p.tree.hosts["host-2"].Connection = inventory.Unreachable
	ref := func(kind, value string) types.ManagedObjectReference {
		return types.ManagedObjectReference{Type: kind, Value: value}
	}
	type leaf = platform.Int
	n := func(n int32) leaf { return leaf{N: n, OK: true} }
	none := leaf{}
	stats := map[types.ManagedObjectReference][]leaf{ // CPU, VM memory, VM uptime, host memory, host uptime
		ref(typeVM, "on"):       {n(1500), n(1024), n(60), none, none},
		ref(typeVM, "off"):      {n(0), n(0), none, none, none},
		ref(typeVM, "away"):     {n(700), none, none, none, none}, // frozen figures of a host out of reach
		ref(typeVM, "unknown"):  {n(700), none, none, none, none},
		ref(typeHost, "host-1"): {n(5000), none, none, n(2048), n(-1)},
		ref(typeHost, "host-2"): {n(5000), none, none, none, none},
		ref("Folder", "on"):     {n(9), n(9), n(9), none, none},
	}
	run := func() string {
		q := newQuickStats(1)
		for ref, values := range stats {
			q.add([]byte(ref.Type), []byte(ref.Value), values)
		}
		return text(p.tree.usage(q, time.Now()))
	}
	want := `host-1 cpu_usage_hertz 5e+09
host-1 cpu_usage_ratio 0.5
host-1 memory_usage_bytes 2.14748e+09
host-1 memory_usage_ratio 0.25
on cpu_usage_hertz 1.5e+09
on memory_usage_bytes 1.07374e+09
on uptime_seconds 60`
	if got := run(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// Poison, and a capacity that is not known.
	stats[ref(typeHost, "host-1")] = []leaf{n(21000), none, none, none, none}
	stats[ref(typeVM, "on")] = []leaf{n(-1), n(5), none, none, none}
	p.tree.hosts["host-2"].Connection = inventory.Connected
	want = `away cpu_usage_hertz 7e+08
host-2 cpu_usage_hertz 5e+09
on memory_usage_bytes 5.24288e+06`
	if got := run(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
