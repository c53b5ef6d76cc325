package exposition

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/protip/protip/internal/inventory"
)

// bigFleet has n VMs on n/10 hosts, each with every sample.
func bigFleet(b *testing.B, n int) *inventory.Fleet {
	f := inventory.NewFleet(inventory.Source{Name: "vc-berlin-1", Interval: 20 * time.Second})
	d := inventory.Delta{Source: "vc-berlin-1", Begin: true, Synced: true}
	d.Clusters = []inventory.Cluster{{ID: clusterID(d.Source, "domain-c8"), Name: "production"}}
	for i := range n / 10 {
		d.Hosts = append(d.Hosts, inventory.Host{
			ID: hostID(d.Source, fmt.Sprint("host-", i)), Name: fmt.Sprintf("esx%04d.example.com", i), Cluster: d.Clusters[0].ID,
			Connection: inventory.Connected, Power: inventory.PowerOn, Cores: 32, CPUHertz: 32 * 2.4e9, MemoryBytes: 512 << 30,
		})
	}
	for i := range n {
		d.VMs = append(d.VMs, inventory.VM{
			ID: vmID(d.Source, fmt.Sprint("vm-", i)), Name: fmt.Sprintf("app-%05d-production", i), Host: d.Hosts[i%len(d.Hosts)].ID,
			Connection: inventory.Connected, Power: inventory.PowerOn, VCPUs: 4, MemoryBytes: 8 << 30, UUID: fmt.Sprintf("4211f2c0-0000-0000-0000-%012d", i),
		})
	}
	apply(b, f, d)
	return f
}

// cycles are samples of every VM and host, each set with all values new.
func cycles(n, sets int) []inventory.Delta {
	rng := rand.New(rand.NewPCG(7, 8))
	out := make([]inventory.Delta, sets)
	for c := range out {
		out[c].Source = "vc-berlin-1"
		add := func(id inventory.ID) {
			set := inventory.SampleSet{ID: id, At: epoch.UnixMilli() + int64(c)*20_000}
			for _, m := range inventory.MetricsOf(id.Kind) {
				v := float64(rng.IntN(10_000)) / 1e4 // hundredths of a percent, as vSphere counts
				switch m.Desc().Unit {
				case "bytes":
					v = float64(rng.IntN(1<<23)) * 1024
				case "hertz":
					v = float64(rng.IntN(10_000)) * 1e6
				case "seconds":
					v = float64(rng.IntN(1000)) / 1e3
				}
				set.Values = append(set.Values, inventory.Value{Metric: m, Value: v})
			}
			out[c].Samples = append(out[c].Samples, set)
		}
		for i := range n {
			add(vmID("vc-berlin-1", fmt.Sprint("vm-", i)))
		}
		for i := range n / 10 {
			add(hostID("vc-berlin-1", fmt.Sprint("host-", i)))
		}
	}
	return out
}

// cpu is the least process CPU time that f takes in five runs; prepare is not counted.
func cpu(prepare, f func()) time.Duration {
	least := time.Duration(1 << 62)
	for range 5 {
		prepare()
		runtime.GC()
		before := used()
		f()
		least = min(least, used()-before)
	}
	return max(least, time.Microsecond)
}

func used() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// sixty makes an exposition show 60 measured series of each VM: those there are, and again under other names.
func sixty(e *Exposition) {
	var measured []family[inventory.VM]
	for _, f := range e.fleet.vms {
		if f.shows == samples {
			measured = append(measured, f)
		}
	}
	for i := 0; len(measured)+i < 60; i++ {
		f := measured[i%len(measured)]
		f.Name = fmt.Sprintf("%s_again_%d", f.Name, i)
		e.fleet.vms = append(e.fleet.vms, f)
		e.fleet.headers[f.Name] = [2]*block{{raw: header(f.Family, false)}, {raw: header(f.Family, true)}}
	}
}

// BenchmarkExpose renders and serves a fleet of which each VM has 60 measured series, all of them changed. Floors are measured in
// the same run: a copy of the same bytes (identity, and a scrape again of what has not changed), their compression by klauspost's
// level 1 (gzip); and the whole as client_golang const metrics.
func BenchmarkExpose(b *testing.B) {
	for _, n := range []int{1000, 2000, 5000, 10_000} {
		fleet := bigFleet(b, n)
		sets := cycles(n, 2)
		next := 0
		change := func() { apply(b, fleet, sets[next%len(sets)]); next++ }
		change()
		for _, tc := range []struct {
			name   string
			format expfmt.Format
			zip    bool
		}{
			{"text/identity", expfmt.FmtText, false},
			{"text/gzip", expfmt.FmtText, true},
			{"openmetrics/identity", expfmt.FmtOpenMetrics_1_0_0, false},
			{"openmetrics/gzip", expfmt.FmtOpenMetrics_1_0_0, true},
		} {
			b.Run(fmt.Sprintf("vms=%d/%s", n, tc.name), func(b *testing.B) { expose(b, fleet, change, tc.format, tc.zip) })
		}
	}
}

func expose(b *testing.B, fleet *inventory.Fleet, change func(), format expfmt.Format, zip bool) {
	e := New(fleet.Snapshot, prometheus.NewRegistry(), quiet())
	sixty(e)
	var out bytes.Buffer
	serve := func(zip bool) {
		parts, done := e.body(format, zip)
		out.Reset()
		for _, part := range parts {
			out.Write(part)
		}
		done()
	}
	serve(false)
	plain := bytes.Clone(out.Bytes())
	change()
	serve(zip)
	serve(zip)
	sent := bytes.Clone(out.Bytes())
	series := bytes.Count(plain, []byte("\n")) - bytes.Count(plain, []byte("\n#"))

	nothing := func() {}
	all := cpu(change, func() { serve(zip) })
	again := cpu(nothing, func() {
		for range 20 {
			serve(zip)
		}
	}) / 20
	target := make([]byte, len(sent))
	copied := cpu(nothing, func() {
		for range 20 {
			copy(target, sent)
		}
	}) / 20

	b.ReportAllocs()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	rounds := 0
	for b.Loop() {
		b.StopTimer()
		change()
		b.StartTimer()
		serve(zip)
		rounds++
	}
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(series), "series")
	b.ReportMetric(float64(len(sent))/1e6, "MB")
	b.ReportMetric(all.Seconds()*1e3, "cpu-ms")
	b.ReportMetric(again.Seconds()*1e3, "again-cpu-ms")
	b.ReportMetric(again.Seconds()/copied.Seconds(), "again-floor-ratio")
	// What the new samples of the inventory need is in it too.
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(rounds*series), "allocs/series")
	if zip {
		zw, _ := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
		zipped := cpu(nothing, func() { zw.Reset(io.Discard); _, _ = zw.Write(plain); _ = zw.Close() })
		b.ReportMetric(all.Seconds()/zipped.Seconds(), "floor-ratio")
		return
	}
	b.ReportMetric(all.Seconds()/copied.Seconds(), "floor-ratio")
	start := used()
	serveConst(b, e.fleet.vms, fleet.Snapshot(), format) // once: it takes long
	b.ReportMetric(all.Seconds()/(used()-start).Seconds(), "const-metrics-ratio")
}

// serveConst is what the same scrape costs with client_golang's const metrics.
func serveConst(b *testing.B, families []family[inventory.VM], snap *inventory.Snapshot, format expfmt.Format) {
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(constFleet{families, snap})
	gathered, err := reg.Gather()
	if err != nil {
		b.Fatal(err)
	}
	enc := expfmt.NewEncoder(io.Discard, format)
	for _, f := range gathered {
		if err := enc.Encode(f); err != nil {
			b.Fatal(err)
		}
	}
}

type constFleet struct {
	families []family[inventory.VM]
	snap     *inventory.Snapshot
}

func (c constFleet) Describe(chan<- *prometheus.Desc) {}

func (c constFleet) Collect(out chan<- prometheus.Metric) {
	for _, f := range c.families {
		if f.each != nil || f.labels != nil {
			continue
		}
		typ := prometheus.GaugeValue
		if f.Type == inventory.Counter {
			typ = prometheus.CounterValue
		}
		desc := prometheus.NewDesc(f.Name, f.Help, []string{"source", "vm", "vm_id"}, nil)
		for vm := range c.snap.VMs() {
			if v, ok := f.value(&row[inventory.VM]{object: vm.VM, samples: vm.Samples}); ok {
				out <- prometheus.MustNewConstMetric(desc, typ, v, vm.ID.Source, vm.Name, vm.ID.Ref)
			}
		}
	}
}
