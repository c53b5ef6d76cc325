package tsdb

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/protip/protip/internal/inventory"
)

// manySeries is a rig of about n series, of VMs that are all sampled anew by next.
func manySeries(tb testing.TB, n int) (r *rig, next func()) {
	r = newRig(tb, options(tb.TempDir()))
	perVM := len(usual) + 4
	var d inventory.Delta
	for i := range n / perVM {
		d.VMs = append(d.VMs, vm(fmt.Sprint("many", i), "h1"))
	}
	r.apply(d)
	return r, func() {
		r.after(20 * time.Second)
		sets := make([]inventory.SampleSet, len(d.VMs))
		for i := range d.VMs {
			values := make([]inventory.Value, len(usual))
			for j, m := range usual {
				values[j] = inventory.Value{Metric: m, Value: float64((i*31+j*17+int(r.now.Unix())/20*7)%10_000) / 1e4}
			}
			sets[i] = inventory.SampleSet{ID: d.VMs[i].ID, At: r.now.UnixMilli(), Values: values}
		}
		r.apply(inventory.Delta{Samples: sets})
	}
}

func cpuUsed() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkHistoryAppend writes one cycle of 400,000 series: those measured anew each time, and facts once a minute.
func BenchmarkHistoryAppend(b *testing.B) {
	for _, n := range []int{40_000, 400_000} {
		b.Run(fmt.Sprintf("series=%d", n), func(b *testing.B) {
			r, next := manySeries(b, n)
			heap := func() float64 {
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				return float64(m.HeapAlloc)
			}
			next()
			before := heap()
			r.cycle()
			first := heap()
			var most, all time.Duration
			var cycles int
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				next()
				runtime.GC()
				began := cpuUsed()
				b.StartTimer()
				r.cycle()
				took := cpuUsed() - began
				most, all, cycles = max(most, took), all+took, cycles+1
			}
			b.ReportMetric(all.Seconds()/float64(cycles), "cpu-s/cycle")
			b.ReportMetric(most.Seconds(), "cpu-s/cycle-max")
			b.ReportMetric((first-before)/float64(n), "heap-B/series")
			b.ReportMetric((heap()-first)/float64(n)/float64(cycles), "heap-B/series/cycle")
			b.ReportMetric(float64(r.raw.Head().NumSeries()), "series")
		})
	}
}

// BenchmarkHistoryMemory lets four hours pass, with all upkeep, and tells the most that is in memory, and what is on the disk.
func BenchmarkHistoryMemory(b *testing.B) {
	r, next := manySeries(b, 40_000)
	var most, last float64
	for b.Loop() {
		for end := r.now.Add(4 * time.Hour); r.now.Before(end); {
			next()
			r.cycle()
			if r.now.Sub(epoch)%time.Minute == 0 {
				r.Maintain(b.Context(), r.now)
			}
			if r.now.Sub(epoch)%(10*time.Minute) == 0 {
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				last = float64(m.HeapAlloc)
				most = max(most, last)
			}
		}
	}
	var samples, bytes float64
	for _, block := range r.raw.Blocks() {
		samples += float64(block.Meta().Stats.NumSamples)
		bytes += float64(block.Size())
	}
	b.ReportMetric(most/40_000, "heap-B/series-max")
	b.ReportMetric(last/40_000, "heap-B/series-end")
	b.ReportMetric(bytes/samples, "block-B/sample")
	samples, bytes = 0, 0
	for _, block := range r.rolled.Blocks() {
		samples += float64(block.Meta().Stats.NumSamples)
		bytes += float64(block.Size())
	}
	b.ReportMetric(bytes/samples, "rollup-B/sample")
	b.ReportMetric(float64(size(r.o.Dir)), "disk-B")
}

// BenchmarkRollUp writes the roll-ups of one window.
func BenchmarkRollUp(b *testing.B) {
	r, next := manySeries(b, 40_000)
	for r.now.Before(epoch.Add(window)) {
		next()
		r.cycle()
	}
	for b.Loop() {
		r.rolledTo = 0
		if err := r.writeWindow(b.Context(), epoch.UnixMilli(), epoch.Add(window).UnixMilli()-step); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(size(r.rolled.Dir()))/float64(b.N), "bytes")
	b.ReportMetric(float64(size(r.raw.Dir())), "raw-bytes")
}
