package sim

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/performance"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/sim/load"
)

func TestQueryPerfForms(t *testing.T) {
	// Demand changes with every sample, so order can be told from values.
	vc := start(t, Config{Clusters: tenCores(1), Load: load.Func(func(_ int, t time.Time) load.Use {
		return load.Use{CPU: float64(t.Unix()/20%100) / 100}
	})})
	c := client(t, vc)
	vm := vc.VMs()[0]
	m := performance.NewManager(c.Client)
	ids, err := m.CounterInfoByName(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	usage, swapped := ids["cpu.usage.average"].Key, ids["mem.swapped.average"].Key
	want := func(at time.Time) int64 { return at.Unix() / 20 % 100 * 100 }

	for _, format := range []types.PerfFormat{types.PerfFormatNormal, types.PerfFormatCsv} {
		res, err := methods.QueryPerf(t.Context(), c, &types.QueryPerf{This: *c.ServiceContent.PerfManager, QuerySpec: []types.PerfQuerySpec{{
			Entity: vm, IntervalId: 20, MaxSample: 4, Format: string(format),
			MetricId: []types.PerfMetricId{{CounterId: usage}, {CounterId: swapped}, {CounterId: 999999}, {CounterId: usage, Instance: "0"}},
		}}})
		if err != nil || len(res.Returnval) != 1 {
			t.Fatal(res, err)
		}
		var times []time.Time
		values := map[int32][]int64{}
		switch e := res.Returnval[0].(type) {
		case *types.PerfEntityMetric:
			for _, s := range e.SampleInfo {
				times = append(times, s.Timestamp)
			}
			for _, s := range e.Value {
				series := s.(*types.PerfMetricIntSeries)
				values[series.Id.CounterId] = series.Value
			}
		case *types.PerfEntityMetricCSV:
			info := strings.Split(e.SampleInfoCSV, ",")
			for i := 1; i < len(info); i += 2 {
				at, err := time.Parse(time.RFC3339, info[i])
				if err != nil || info[i-1] != "20" {
					t.Fatal(e.SampleInfoCSV)
				}
				times = append(times, at)
			}
			for _, s := range e.Value {
				for v := range strings.SplitSeq(s.Value, ",") {
					var n int64
					for _, digit := range v {
						n = n*10 + int64(digit-'0')
					}
					values[s.Id.CounterId] = append(values[s.Id.CounterId], n)
				}
			}
		}
		if len(times) != 4 || len(values) != 2 {
			t.Fatalf("%s: %d samples of %d counters", format, len(times), len(values))
		}
		if !slices.IsSortedFunc(times, time.Time.Compare) {
			t.Errorf("%s: not oldest first: %v", format, times)
		}
		for i, at := range times {
			if at.Unix()%20 != 0 || values[usage][i] != want(at) {
				t.Errorf("%s: at %s %d, want %d", format, at, values[usage][i], want(at))
			}
		}
		if !slices.Equal(values[swapped], []int64{0, 0, 0, 0}) {
			t.Errorf("%s: zeros are %v", format, values[swapped])
		}
		if age := vc.clock.Now().Sub(times[3]); age < 0 || age > 21*time.Second {
			t.Errorf("%s: the newest sample is %s old", format, age)
		}
	}
}

func TestQueryPerfTimes(t *testing.T) {
	vc := start(t, Config{Clusters: tenCores(1), Load: busy(0.5)})
	newest := vc.usage.latest()
	vc.usage.now = func() time.Time { return newest.Add(7 * time.Second) }
	at := func(d time.Duration) *time.Time { at := newest.Add(d); return &at }
	for _, tt := range []struct {
		name string
		spec types.PerfQuerySpec
		want int
		last time.Duration // from newest
	}{
		{name: "all", want: 180},
		{name: "one", spec: types.PerfQuerySpec{MaxSample: 1}, want: 1},
		{name: "since", spec: types.PerfQuerySpec{StartTime: at(-time.Minute)}, want: 3},
		{name: "between", spec: types.PerfQuerySpec{StartTime: at(-2 * time.Minute), EndTime: at(-time.Minute)}, want: 3, last: -time.Minute},
		{name: "newest of a span", spec: types.PerfQuerySpec{EndTime: at(-time.Minute), MaxSample: 2}, want: 2, last: -time.Minute},
		{name: "the future", spec: types.PerfQuerySpec{StartTime: at(time.Hour)}, want: 0},
		{name: "long ago", spec: types.PerfQuerySpec{EndTime: at(-2 * time.Hour)}, want: 0},
		{name: "historical", spec: types.PerfQuerySpec{IntervalId: 300}, want: 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.spec.Entity = vc.VMs()[0]
			tt.spec.MetricId = []types.PerfMetricId{{CounterId: 2}}
			answer := vc.gate.queryEntity(&tt.spec, memo{vc.usage, map[int64]*sample{}}).(*types.PerfEntityMetric)
			if len(answer.SampleInfo) != tt.want {
				t.Fatalf("%d samples, want %d", len(answer.SampleInfo), tt.want)
			}
			if tt.want > 0 && !answer.SampleInfo[tt.want-1].Timestamp.Equal(newest.Add(tt.last)) {
				t.Errorf("the last is of %s", answer.SampleInfo[tt.want-1].Timestamp)
			}
		})
	}
}

func TestQueryPerfOfWhatIsNotThere(t *testing.T) {
	vc := start(t, Config{Clock: clock.New(1), Load: busy(0.5, 0.5, 0.5), Clusters: tenCores(3)})
	c := client(t, vc)
	vms := vc.VMs()
	if err := vc.DestroyVM(vms[0]); err != nil {
		t.Fatal(err)
	}
	got := query(t, c.Client, types.PerfQuerySpec{MaxSample: 1}, vms, "cpu.usage.average")
	if _, there := got[vms[0]]; there || len(got) != 2 {
		t.Errorf("entities %v", got)
	}
	var off []VM
	off = append(off, VM{Name: "off", Off: true})
	vc2 := start(t, Config{Load: busy(0.5), Clusters: []Cluster{{Name: "c", Hosts: []Host{{Name: "h", VMs: off}}}}})
	if got := query(t, client(t, vc2).Client, types.PerfQuerySpec{MaxSample: 1}, vc2.VMs(), "cpu.usage.average"); len(got[vc2.VMs()[0]]) != 0 {
		t.Errorf("a VM that is off uses %v", got)
	}
}

func TestMaxQueryMetrics(t *testing.T) {
	vc := start(t, Config{MaxQueryMetrics: 4, Load: busy(0.5, 0.5, 0.5), Clusters: tenCores(3)})
	c := client(t, vc)
	options, err := object.NewOptionManager(c.Client, *c.ServiceContent.Setting).Query(t.Context(), "config.vpxd.stats.maxQueryMetrics")
	if err != nil || len(options) != 1 || options[0].GetOptionValue().Value != "4" {
		t.Errorf("setting %v: %v", options, err)
	}
	ask := func(vms, counters int) error {
		req := &types.QueryPerf{This: *c.ServiceContent.PerfManager}
		for _, vm := range vc.VMs()[:vms] {
			spec := types.PerfQuerySpec{Entity: vm, IntervalId: 20, MaxSample: 1}
			for i := range counters {
				spec.MetricId = append(spec.MetricId, types.PerfMetricId{CounterId: int32(i + 1)})
			}
			req.QuerySpec = append(req.QuerySpec, spec)
		}
		_, err := methods.QueryPerf(t.Context(), c, req)
		return err
	}
	if err := ask(2, 2); err != nil {
		t.Errorf("4 metrics: %v", err)
	}
	if err := ask(3, 2); !fault.Is(err, &types.RestrictedByAdministrator{}) || !strings.Contains(err.Error(), "restricted by the administrator") {
		t.Errorf("6 metrics: %v", err)
	}
	if _, err := object.NewOptionManager(c.Client, *c.ServiceContent.Setting).Query(t.Context(), "config.vpxd.stats.maxQueryMetrics"); err != nil {
		t.Error(err)
	}
	free := start(t, Config{Name: "free"})
	c = client(t, free)
	if _, err := object.NewOptionManager(c.Client, *c.ServiceContent.Setting).Query(t.Context(), "config.vpxd.stats.maxQueryMetrics"); !fault.Is(err, &types.InvalidName{}) {
		t.Errorf("a vCenter without the setting: %v", err)
	}
}

func TestAvailableCounters(t *testing.T) {
	vc := start(t, Config{Load: busy(0.5), Clusters: tenCores(1)})
	c := client(t, vc)
	m := performance.NewManager(c.Client)
	for _, entity := range []ref{vc.VMs()[0], vc.Hosts()[0]} {
		list, err := m.AvailableMetric(t.Context(), entity, 20)
		if err != nil {
			t.Fatal(err)
		}
		byKey, err := m.CounterInfoByKey(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, id := range list {
			names = append(names, byKey[id.CounterId].Name())
		}
		for _, want := range []string{"cpu.ready.summation", "cpu.costop.summation", "mem.active.average", "net.received.average", "disk.maxTotalLatency.latest"} {
			if !slices.Contains(names, want) {
				t.Errorf("%s has no %s: %v", entity.Type, want, names)
			}
		}
		series := query(t, c.Client, types.PerfQuerySpec{MaxSample: 1}, []ref{entity}, names...)[entity]
		if len(series) != len(names) {
			t.Errorf("%s: %d series for %d available counters", entity.Type, len(series), len(names))
		}
	}
}
