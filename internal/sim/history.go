package sim

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// A vCenter rolls samples up to 300 s and keeps these of datastores and clusters, which have no realtime ones. Here they go back as far as a
// VM's past does.
const rollUp = 300 * time.Second

// storeCounters are those of datastores, by name. All else of the catalogue exists and has no series.
var storeCounters = map[string]func(io storeLoad) int64{
	"datastore.totalReadLatency.average":  func(io storeLoad) int64 { return io.mean(io.read) },
	"datastore.totalWriteLatency.average": func(io storeLoad) int64 { return io.mean(io.written) },
}

// storeLoad is the traffic of a datastore's VMs over an interval, and the same times their latency: what waits longest weighs
// by how much it waits for.
type storeLoad struct{ read, written flow }

type flow struct{ amount, waited float64 }

func (f *flow) add(amount, latency int64) {
	f.amount += float64(amount)
	f.waited += float64(amount * latency)
}

func (storeLoad) mean(f flow) int64 {
	if f.amount == 0 {
		return 0
	}
	return int64(math.Round(f.waited / f.amount))
}

// queryStore answers for a datastore: the intervals that ended in the time asked for, oldest first.
func (g *gateway) queryStore(spec *types.PerfQuerySpec, kept memo) types.BasePerfEntityMetricBase {
	var ends []time.Time
	if spec.IntervalId == int32(rollUp/time.Second) {
		ends = rolledUp(spec, kept.usage.latest())
	}
	vms := g.vc.vmsOn(spec.Entity)
	loads := make([]storeLoad, len(ends))
	for i, end := range ends {
		for at := end.Add(sampleLength - rollUp); !at.After(end); at = at.Add(sampleLength) {
			s := kept.at(at)
			for _, vm := range vms {
				v := s.vms[vm]
				loads[i].read.add(v.readKBps, v.latencyMs)
				loads[i].written.add(v.writtenKBps, v.latencyMs)
			}
		}
	}
	return g.rolledUpOf(spec, ends, func(counter string, i int) (int64, bool) {
		read, ok := storeCounters[counter]
		if !ok {
			return 0, false
		}
		return read(loads[i]), true
	})
}

// clusterCounters are those of clusters: the sum of their hosts', by name.
var clusterCounters = map[string]func(hostSample) int64{
	"cpu.usagemhz.average": func(h hostSample) int64 { return h.usageMHz },
	"mem.consumed.average": func(h hostSample) int64 { return h.consumedKB },
}

// queryCluster answers for a cluster: the mean over each interval of what its hosts come to.
func (g *gateway) queryCluster(spec *types.PerfQuerySpec, kept memo) types.BasePerfEntityMetricBase {
	cluster, ok := g.vc.reg.Get(spec.Entity).(*simulator.ClusterComputeResource)
	if !ok {
		return nil
	}
	var ends []time.Time
	if spec.IntervalId == int32(rollUp/time.Second) {
		ends = rolledUp(spec, kept.usage.latest())
	}
	return g.rolledUpOf(spec, ends, func(counter string, i int) (sum int64, ok bool) {
		read, ok := clusterCounters[counter]
		if !ok {
			return 0, false
		}
		for at := ends[i].Add(sampleLength - rollUp); !at.After(ends[i]); at = at.Add(sampleLength) {
			s := kept.at(at)
			for _, host := range cluster.Host {
				sum += read(s.hosts[host])
			}
		}
		return sum / int64(rollUp/sampleLength), true
	})
}

// rolledUpOf is the answer for an object and the intervals that ended at those times. value is that of a counter in one of them,
// false for a counter that the object does not have.
func (g *gateway) rolledUpOf(spec *types.PerfQuerySpec, ends []time.Time, value func(counter string, i int) (int64, bool)) types.BasePerfEntityMetricBase {
	base := types.PerfEntityMetricBase{Entity: spec.Entity}
	names := map[int32]string{}
	for i := range g.catalogue {
		names[g.catalogue[i].Key] = g.catalogue[i].Name()
	}
	var found []series
	for _, id := range spec.MetricId {
		if id.Instance != "" && id.Instance != "*" {
			continue
		}
		s := series{id: types.PerfMetricId{CounterId: id.CounterId}}
		for i := range ends {
			if v, ok := value(names[id.CounterId], i); ok {
				s.values = append(s.values, v)
			}
		}
		if s.values != nil {
			found = append(found, s)
		}
	}
	if spec.Format == string(types.PerfFormatCsv) {
		var info []string
		for _, end := range ends {
			info = append(info, fmt.Sprintf("%d,%s", rollUp/time.Second, end.UTC().Format(time.RFC3339)))
		}
		answer := &types.PerfEntityMetricCSV{PerfEntityMetricBase: base, SampleInfoCSV: strings.Join(info, ",")}
		for _, s := range found {
			answer.Value = append(answer.Value, types.PerfMetricSeriesCSV{PerfMetricSeries: types.PerfMetricSeries{Id: s.id}, Value: joinInts(s.values)})
		}
		return answer
	}
	answer := &types.PerfEntityMetric{PerfEntityMetricBase: base}
	for _, end := range ends {
		answer.SampleInfo = append(answer.SampleInfo, types.PerfSampleInfo{Timestamp: end.UTC(), Interval: int32(rollUp / time.Second)})
	}
	for _, s := range found {
		out := &PerfMetricIntSeries{PerfMetricSeries: types.PerfMetricSeries{Id: s.id}}
		for _, v := range s.values {
			out.Value = append(out.Value, written{v})
		}
		answer.Value = append(answer.Value, out)
	}
	return answer
}

// rolledUp are the ends of the intervals that a query asks for. MaxSample does not bind queries of the database.
func rolledUp(spec *types.PerfQuerySpec, latest time.Time) []time.Time {
	newest := latest.Truncate(rollUp)
	oldest := latest.Add(-sampleKept + rollUp).Truncate(rollUp).Add(rollUp)
	if spec.EndTime != nil && spec.EndTime.Before(newest) {
		newest = spec.EndTime.Truncate(rollUp)
	}
	if spec.StartTime != nil && !spec.StartTime.Before(oldest) {
		oldest = spec.StartTime.Truncate(rollUp).Add(rollUp)
	}
	var ends []time.Time
	for end := oldest; !end.After(newest); end = end.Add(rollUp) {
		ends = append(ends, end)
	}
	return ends
}

// vmsOn are the VMs whose files are on a datastore.
func (vc *VCenter) vmsOn(store types.ManagedObjectReference) []types.ManagedObjectReference {
	ctx := vc.own()
	var refs []types.ManagedObjectReference
	for _, e := range vc.reg.All("VirtualMachine") {
		vm, ok := e.(*simulator.VirtualMachine)
		if !ok {
			continue
		}
		ctx.WithLock(vm, func() {
			if slices.Contains(vm.Datastore, store) {
				refs = append(refs, vm.Self)
			}
		})
	}
	return refs
}
