package vsphere

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/vsphere"
)

const (
	historical = 300 // seconds: the interval that the vCenter rolls samples up to and keeps in its database
	// defaultMaxQuery is how many metrics of the database one query may ask for where the vCenter does not say.
	defaultMaxQuery = 256
	// lookBack is how far samples are asked for: the vCenter may have the last five minutes only five minutes later.
	lookBack = 3 * inventory.SlowInterval

	absurdLatency = 3600 // seconds
)

// storeCounters are the counters of datastores that are sampled, all in milliseconds. There are no realtime ones.
var storeCounters = map[string]inventory.Metric{
	"datastore.totalReadLatency.average":  inventory.DatastoreReadLatency,
	"datastore.totalWriteLatency.average": inventory.DatastoreWriteLatency,
}

// history is what one connection knows of the counters in the vCenter's database.
type history struct {
	*follower
	counters []types.PerfMetricId // nil before resolve
	metrics  map[int32]inventory.Metric
	batch    int // datastores in a query
}

// sampleHistory polls the counters of datastores, which come every five minutes.
func (f *follower) sampleHistory(ctx context.Context) error {
	h := &history{follower: f}
	next := func(time.Time) time.Duration { return inventory.SlowInterval }
	return f.each(ctx, "history", next, h.cycle)
}

func (h *history) cycle(ctx context.Context) error {
	h.mu.Lock()
	refs := h.tree.reachable()
	h.mu.Unlock()
	if len(refs) == 0 {
		return nil
	}
	if h.counters == nil {
		if err := h.resolve(ctx); err != nil {
			return err
		}
	}
	skew, err := h.conn.Skew(ctx, h.opts.Clock.Now)
	if err != nil {
		return err
	}
	var lost error
	for batch := range slices.Chunk(refs, h.batch) {
		samples, err := h.query(ctx, batch, skew)
		if platform.IsNotAuthenticated(err) || ctx.Err() != nil {
			return err
		}
		if err != nil {
			lost = err
			if platform.IsOverload(err) {
				h.batch = max(h.batch/2, 1) // in the next cycle
			}
			continue
		}
		h.mu.Lock()
		// A datastore may be gone meanwhile.
		samples = slices.DeleteFunc(samples, func(s inventory.SampleSet) bool { return !h.tree.has(s.ID) })
		if len(samples) > 0 {
			h.emit(inventory.Delta{Source: h.opts.Name, Samples: samples})
		}
		h.mu.Unlock()
	}
	return lost
}

// reachable are the datastores that the vCenter can have current figures of, in one order.
func (t *tree) reachable() []string {
	var refs []string
	for ref, s := range t.stores {
		if s.Accessible {
			refs = append(refs, ref)
		}
	}
	slices.Sort(refs)
	return refs
}

func (h *history) resolve(ctx context.Context) error {
	ref := h.conn.ServiceContent.PerfManager
	if ref == nil {
		return errors.New("vcenter has no performance manager")
	}
	props, err := h.conn.Properties(ctx, *ref, "perfCounter")
	if err != nil {
		return err
	}
	infos, _ := platform.Get[types.ArrayOfPerfCounterInfo](props, "perfCounter")
	metrics := map[int32]inventory.Metric{}
	var counters []types.PerfMetricId
	for i := range infos.PerfCounterInfo {
		c := &infos.PerfCounterInfo[i]
		if c.GroupInfo == nil || c.NameInfo == nil {
			continue
		}
		if m, ok := storeCounters[c.Name()]; ok {
			metrics[c.Key] = m
			counters = append(counters, types.PerfMetricId{CounterId: c.Key})
		}
	}
	if len(counters) == 0 {
		return errors.New("vcenter has none of the counters of datastores")
	}
	limit := (&perf{follower: h.follower}).maxQueryMetrics(ctx)
	if limit == 0 {
		limit = defaultMaxQuery
	}
	h.metrics, h.counters, h.batch = metrics, counters, max(limit/len(counters), 1)
	return nil
}

func (h *history) query(ctx context.Context, refs []string, skew time.Duration) ([]inventory.SampleSet, error) {
	start := h.opts.Clock.Now().Add(-skew - lookBack)
	req := types.QueryPerf{This: *h.conn.ServiceContent.PerfManager}
	for _, ref := range refs {
		req.QuerySpec = append(req.QuerySpec, types.PerfQuerySpec{
			Entity: types.ManagedObjectReference{Type: typeStore, Value: ref}, StartTime: &start,
			MetricId: h.counters, IntervalId: historical, Format: string(types.PerfFormatNormal),
		})
	}
	res, err := methods.QueryPerf(ctx, h.conn, &req)
	if err != nil {
		return nil, err
	}
	now := h.opts.Clock.Now()
	var out []inventory.SampleSet
	for _, base := range res.Returnval {
		if answer, ok := base.(*types.PerfEntityMetric); ok {
			out = append(out, h.samples(answer, skew, now)...)
		}
	}
	return out, nil
}

// samples are the newest value of each counter. Counters may differ in how new it is.
func (h *history) samples(answer *types.PerfEntityMetric, skew time.Duration, now time.Time) []inventory.SampleSet {
	id := h.tree.idOf(answer.Entity)
	if id.Kind != inventory.KindDatastore {
		return nil
	}
	var out []inventory.SampleSet
	for _, value := range answer.Value {
		series, ok := value.(*types.PerfMetricIntSeries)
		if !ok || series.Id.Instance != "" || len(series.Value) != len(answer.SampleInfo) {
			continue
		}
		metric, ok := h.metrics[series.Id.CounterId]
		if !ok {
			continue
		}
		for i, ms := range slices.Backward(series.Value) {
			at := answer.SampleInfo[i].Timestamp.Add(skew)
			if ms < 0 || at.After(now.Add(time.Minute)) { // -1 is a gap
				continue
			}
			v := values{}
			if v.add(metric, float64(ms)/1000, absurdLatency) {
				out = append(out, inventory.SampleSet{ID: id, At: at.UnixMilli(), Values: v})
			}
			break
		}
	}
	return out
}
