package sim

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// The counters that have values, by group.name.rollup. All others of the catalogue exist and give no series.
var (
	vmCounters = map[string]func(vmSample) int64{
		"cpu.usage.average":           func(v vmSample) int64 { return v.usagePercent100 },
		"cpu.usagemhz.average":        func(v vmSample) int64 { return v.usageMHz },
		"cpu.demand.average":          func(v vmSample) int64 { return v.demandMHz },
		"cpu.ready.summation":         func(v vmSample) int64 { return v.readyMs },
		"cpu.costop.summation":        func(v vmSample) int64 { return v.costopMs },
		"mem.active.average":          func(v vmSample) int64 { return v.activeKB },
		"mem.consumed.average":        func(v vmSample) int64 { return v.consumedKB },
		"mem.vmmemctl.average":        func(v vmSample) int64 { return v.balloonKB },
		"mem.swapped.average":         func(v vmSample) int64 { return v.swappedKB },
		"mem.usage.average":           func(v vmSample) int64 { return v.memoryPercent100 },
		"disk.maxTotalLatency.latest": func(v vmSample) int64 { return v.latencyMs },
		"disk.read.average":           func(v vmSample) int64 { return v.readKBps },
		"disk.write.average":          func(v vmSample) int64 { return v.writtenKBps },
		"disk.usage.average":          func(v vmSample) int64 { return v.readKBps + v.writtenKBps },
		"net.received.average":        func(v vmSample) int64 { return v.receivedKBps },
		"net.transmitted.average":     func(v vmSample) int64 { return v.transmittedKBps },
		"net.usage.average":           func(v vmSample) int64 { return v.receivedKBps + v.transmittedKBps },
		"sys.uptime.latest":           func(v vmSample) int64 { return v.uptime },

		"cpu.entitlement.latest":           func(v vmSample) int64 { return v.entitlementMHz },
		"cpu.maxlimited.summation":         func(vmSample) int64 { return 0 }, // no VM has a limit
		"cpu.swapwait.summation":           func(v vmSample) int64 { return v.swapWaitMs },
		"mem.granted.average":              func(v vmSample) int64 { return v.grantedKB },
		"mem.shared.average":               func(v vmSample) int64 { return v.sharedKB },
		"mem.compressed.average":           func(v vmSample) int64 { return v.compressedKB },
		"mem.latency.average":              func(v vmSample) int64 { return v.memoryLatencyPercent100 },
		"mem.swapinRate.average":           func(v vmSample) int64 { return v.swapInKBps },
		"mem.swapoutRate.average":          func(v vmSample) int64 { return v.swapOutKBps },
		"disk.numberReadAveraged.average":  func(v vmSample) int64 { return v.readsPerSecond },
		"disk.numberWriteAveraged.average": func(v vmSample) int64 { return v.writesPerSecond },
		"net.packetsRx.summation":          func(v vmSample) int64 { return v.receivedPackets },
		"net.packetsTx.summation":          func(v vmSample) int64 { return v.transmittedPackets },
		"net.droppedRx.summation":          func(v vmSample) int64 { return v.lostPackets },
		"net.droppedTx.summation":          func(vmSample) int64 { return 0 },
	}
	hostCounters = map[string]func(hostSample) int64{
		"cpu.usage.average":           func(h hostSample) int64 { return h.usagePercent100 },
		"cpu.usagemhz.average":        func(h hostSample) int64 { return h.usageMHz },
		"cpu.demand.average":          func(h hostSample) int64 { return h.demandMHz },
		"cpu.totalCapacity.average":   func(h hostSample) int64 { return h.capacityMHz },
		"cpu.ready.summation":         func(h hostSample) int64 { return h.readyMs },
		"cpu.costop.summation":        func(h hostSample) int64 { return h.costopMs },
		"mem.active.average":          func(h hostSample) int64 { return h.activeKB },
		"mem.consumed.average":        func(h hostSample) int64 { return h.consumedKB },
		"mem.vmmemctl.average":        func(h hostSample) int64 { return h.balloonKB },
		"mem.swapused.average":        func(h hostSample) int64 { return h.swappedKB },
		"mem.usage.average":           func(h hostSample) int64 { return h.memoryPercent100 },
		"disk.maxTotalLatency.latest": func(h hostSample) int64 { return h.latencyMs },
		"disk.read.average":           func(h hostSample) int64 { return h.readKBps },
		"disk.write.average":          func(h hostSample) int64 { return h.writtenKBps },
		"disk.usage.average":          func(h hostSample) int64 { return h.readKBps + h.writtenKBps },
		"net.received.average":        func(h hostSample) int64 { return h.receivedKBps },
		"net.transmitted.average":     func(h hostSample) int64 { return h.transmittedKBps },
		"net.usage.average":           func(h hostSample) int64 { return h.receivedKBps + h.transmittedKBps },
		"sys.uptime.latest":           func(h hostSample) int64 { return h.uptime },

		"mem.swapinRate.average":           func(h hostSample) int64 { return h.swapInKBps },
		"mem.swapoutRate.average":          func(h hostSample) int64 { return h.swapOutKBps },
		"disk.numberReadAveraged.average":  func(h hostSample) int64 { return h.readsPerSecond },
		"disk.numberWriteAveraged.average": func(h hostSample) int64 { return h.writesPerSecond },
		"net.droppedRx.summation":          func(h hostSample) int64 { return h.lostPackets },
		"net.droppedTx.summation":          func(hostSample) int64 { return 0 },
		"net.errorsRx.summation":           func(hostSample) int64 { return 0 },
		"net.errorsTx.summation":           func(hostSample) int64 { return 0 },
	}
)

// catalogue resolves the numbers that clients ask with.
type catalogue struct {
	vm   map[int32]func(vmSample) int64
	host map[int32]func(hostSample) int64
}

func newCatalogue(counters []types.PerfCounterInfo) catalogue {
	c := catalogue{vm: map[int32]func(vmSample) int64{}, host: map[int32]func(hostSample) int64{}}
	for i := range counters {
		name := counters[i].Name()
		if f, ok := vmCounters[name]; ok {
			c.vm[counters[i].Key] = f
		}
		if f, ok := hostCounters[name]; ok {
			c.host[counters[i].Key] = f
		}
	}
	return c
}

// read is the value of a counter in a sample, false for a counter that the entity's kind does not have.
func (c catalogue) read(s *sample, entity types.ManagedObjectReference, counter int32) (int64, bool) {
	switch entity.Type {
	case "VirtualMachine":
		if f, has := c.vm[counter]; has {
			return f(s.vms[entity]), true
		}
	case "HostSystem":
		if f, has := c.host[counter]; has {
			return f(s.hosts[entity]), true
		}
	}
	return 0, false
}

// QueryPerf answers with samples on the 20-second grid of the vCenter's clock, oldest first.
func (g *gateway) QueryPerf(_ *simulator.Context, req *types.QueryPerf) soap.HasFault {
	body := &methods.QueryPerfBody{}
	if fault := g.vc.refuseQuery(req); fault != nil {
		body.Fault_ = fault
		return body
	}
	body.Res = &types.QueryPerfResponse{}
	samples := memo{g.vc.usage, map[int64]*sample{}}
	for i := range req.QuerySpec {
		if answer := g.queryEntity(&req.QuerySpec[i], samples); answer != nil {
			body.Res.Returnval = append(body.Res.Returnval, answer)
		}
	}
	return body
}

// refuseQuery is what a vCenter says to a query that is larger than its administrator allows.
func (vc *VCenter) refuseQuery(req *types.QueryPerf) *soap.Fault {
	asked := 0
	for i := range req.QuerySpec {
		asked += max(1, len(req.QuerySpec[i].MetricId))
	}
	if limit := vc.cfg.MaxQueryMetrics; limit <= 0 || asked <= limit {
		return nil
	}
	const setting = "vpxd.stats.maxQueryMetrics"
	return simulator.Fault(
		fmt.Sprintf("This operation is restricted by the administrator - '%s'. Contact your system administrator.", setting),
		&types.RestrictedByAdministrator{Details: setting})
}

// queryEntity is one entity's answer, nil if it does not exist. Only realtime samples are kept of VMs and hosts: other intervals
// have none.
func (g *gateway) queryEntity(spec *types.PerfQuerySpec, kept memo) types.BasePerfEntityMetricBase {
	if g.vc.reg.Get(spec.Entity) == nil {
		return nil
	}
	switch spec.Entity.Type {
	case "Datastore":
		return g.queryStore(spec, kept)
	case "ClusterComputeResource":
		return g.queryCluster(spec, kept)
	}
	var samples []*sample
	if spec.IntervalId == 0 || spec.IntervalId == int32(sampleLength/time.Second) {
		samples = kept.of(spec)
	}
	counters := spec.MetricId
	if len(counters) == 0 {
		counters = g.available(spec.Entity)
	}
	base := types.PerfEntityMetricBase{Entity: spec.Entity}
	if spec.Format == string(types.PerfFormatCsv) {
		answer := &types.PerfEntityMetricCSV{PerfEntityMetricBase: base, SampleInfoCSV: sampleInfo(samples)}
		for _, s := range g.series(spec.Entity, counters, samples) {
			answer.Value = append(answer.Value, types.PerfMetricSeriesCSV{
				PerfMetricSeries: types.PerfMetricSeries{Id: s.id}, Value: joinInts(s.values),
			})
		}
		return answer
	}
	answer := &types.PerfEntityMetric{PerfEntityMetricBase: base}
	for _, s := range samples {
		answer.SampleInfo = append(answer.SampleInfo, types.PerfSampleInfo{Timestamp: s.at.UTC(), Interval: 20})
	}
	for _, s := range g.series(spec.Entity, counters, samples) {
		out := &PerfMetricIntSeries{PerfMetricSeries: types.PerfMetricSeries{Id: s.id}}
		for _, v := range s.values {
			out.Value = append(out.Value, written{v})
		}
		answer.Value = append(answer.Value, out)
	}
	return answer
}

// PerfMetricIntSeries is written as types.PerfMetricIntSeries is, except that zeros are written too.
type PerfMetricIntSeries struct {
	types.PerfMetricSeries
	Value []written `xml:"value"`
}

type written struct {
	N int64 `xml:",chardata"`
}

// memo keeps the samples that one query has looked at: usage itself keeps only the newest few.
type memo struct {
	usage *usage
	by    map[int64]*sample
}

func (m memo) at(t time.Time) *sample {
	s, ok := m.by[t.Unix()]
	if !ok {
		s = m.usage.sampleAt(t)
		m.by[t.Unix()] = s
	}
	return s
}

// of are the samples that a query asks for and that its entity was measured in, oldest first: those after the start time, up
// to the end time, and of these the newest MaxSample.
func (m memo) of(spec *types.PerfQuerySpec) []*sample {
	newest := m.usage.latest()
	oldest := newest.Add(-sampleKept + sampleLength)
	if spec.EndTime != nil && spec.EndTime.Before(newest) {
		newest = spec.EndTime.Truncate(sampleLength)
	}
	if spec.StartTime != nil && !spec.StartTime.Before(oldest) {
		oldest = spec.StartTime.Truncate(sampleLength).Add(sampleLength)
	}
	if n := time.Duration(spec.MaxSample); n > 0 && oldest.Before(newest.Add(-(n-1)*sampleLength)) {
		oldest = newest.Add(-(n - 1) * sampleLength)
	}
	var samples []*sample
	for at := oldest; !at.After(newest); at = at.Add(sampleLength) {
		s := m.at(at)
		_, on := s.vms[spec.Entity]
		_, up := s.hosts[spec.Entity]
		if on || up {
			samples = append(samples, s)
		}
	}
	return samples
}

type series struct {
	id     types.PerfMetricId
	values []int64
}

// series are the values of the counters that exist. Only the aggregate of all instances is kept: "" and "*" ask for it.
func (g *gateway) series(entity types.ManagedObjectReference, counters []types.PerfMetricId, samples []*sample) []series {
	var out []series
	for _, id := range counters {
		if len(samples) == 0 || (id.Instance != "" && id.Instance != "*") {
			continue
		}
		s := series{id: types.PerfMetricId{CounterId: id.CounterId}}
		for _, sample := range samples {
			value, known := g.counters.read(sample, entity, id.CounterId)
			if !known {
				break
			}
			s.values = append(s.values, value)
		}
		if s.values != nil {
			out = append(out, s)
		}
	}
	return out
}

func sampleInfo(samples []*sample) string {
	var b strings.Builder
	for i, s := range samples {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("20,")
		b.WriteString(s.at.UTC().Format(time.RFC3339))
	}
	return b.String()
}

func joinInts(values []int64) string {
	var b []byte
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, v, 10)
	}
	return string(b)
}

// QueryAvailablePerfMetric lists the counters that the entity has values of.
func (g *gateway) QueryAvailablePerfMetric(_ *simulator.Context, req *types.QueryAvailablePerfMetric) soap.HasFault {
	body := &methods.QueryAvailablePerfMetricBody{}
	if g.vc.reg.Get(req.Entity) == nil {
		body.Fault_ = notFound(req.Entity)
		return body
	}
	body.Res = &types.QueryAvailablePerfMetricResponse{}
	if req.IntervalId == 0 || req.IntervalId == int32(sampleLength/time.Second) {
		body.Res.Returnval = g.available(req.Entity)
	}
	return body
}

func (g *gateway) available(entity types.ManagedObjectReference) []types.PerfMetricId {
	var ids []types.PerfMetricId
	for _, info := range g.catalogue {
		if _, known := g.counters.read(&sample{}, entity, info.Key); known {
			ids = append(ids, types.PerfMetricId{CounterId: info.Key})
		}
	}
	return ids
}
