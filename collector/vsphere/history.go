package vsphere

import (
	"context"
	"errors"
	"maps"
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

// Objects of which there are no realtime counters. A level is all that is taken of them.
var (
	storeCounters = []counter{
		{"datastore.totalReadLatency.average", inventory.DatastoreReadLatency, level, 1e-3, absurdLatency},
		{"datastore.totalWriteLatency.average", inventory.DatastoreWriteLatency, level, 1e-3, absurdLatency},
	}
	clusterCounters = []counter{
		{"cpu.usagemhz.average", inventory.ClusterCPUUsage, level, 1e6, 1000 * absurdHertz},
		{"mem.consumed.average", inventory.ClusterMemoryUsage, level, kibi, 1000 * absurdBytes},
	}
)

// history is what one connection knows of the counters in the vCenter's database.
type history struct {
	*follower
	kinds    []*recorded
	resolved bool
}

// recorded is a kind of object whose counters are asked of the database.
type recorded struct {
	counted
	byID  map[int32]*counter
	batch int // objects in a query
}

func newHistory(f *follower) *history {
	h := &history{follower: f}
	for _, of := range []counted{
		wanted(typeStore, storeCounters, &f.opts.Collect), wanted(typeCluster, clusterCounters, &f.opts.Collect),
	} {
		if len(of.counters) > 0 {
			h.kinds = append(h.kinds, &recorded{counted: of})
		}
	}
	return h
}

// sampleHistory polls the counters of datastores and clusters, which come every five minutes.
func (f *follower) sampleHistory(ctx context.Context) error {
	h := newHistory(f)
	if len(h.kinds) == 0 {
		return nil
	}
	next := func(time.Time) time.Duration { return inventory.SlowInterval }
	return f.each(ctx, "history", next, h.cycle)
}

// cycle asks for every kind. One that fails costs only its own samples.
func (h *history) cycle(ctx context.Context) error {
	if !h.resolved {
		if err := h.resolve(ctx); err != nil {
			return err
		}
	}
	skew, err := h.conn.Skew(ctx, h.opts.Clock.Now)
	if err != nil {
		return err
	}
	var lost error
	for _, of := range h.kinds {
		h.mu.Lock()
		refs := h.tree.reachable(of.kind)
		h.mu.Unlock()
		if len(of.ids) == 0 || len(refs) == 0 {
			continue
		}
		if err := h.kindCycle(ctx, of, refs, skew); platform.IsNotAuthenticated(err) || ctx.Err() != nil {
			return err
		} else if err != nil {
			lost = err
		}
	}
	return lost
}

func (h *history) kindCycle(ctx context.Context, of *recorded, refs []string, skew time.Duration) error {
	var lost error
	for batch := range slices.Chunk(refs, of.batch) {
		samples, err := h.query(ctx, of, batch, skew)
		if platform.IsNotAuthenticated(err) || ctx.Err() != nil {
			return err
		}
		if err != nil {
			lost = err
			if platform.IsOverload(err) {
				of.batch = max(of.batch/2, 1) // in the next cycle
			}
			continue
		}
		h.mu.Lock()
		// An object may be gone meanwhile.
		samples = slices.DeleteFunc(samples, func(s inventory.SampleSet) bool { return !h.tree.has(s.ID) })
		if len(samples) > 0 {
			h.emit(inventory.Delta{Source: h.opts.Name, Samples: samples})
		}
		h.mu.Unlock()
	}
	return lost
}

// reachable are the datastores or clusters that the vCenter can have current figures of, in one order.
func (t *tree) reachable(kind string) []string {
	var refs []string
	if kind == typeCluster {
		return slices.Sorted(maps.Keys(t.clusters))
	}
	for ref, s := range t.stores {
		if s.Accessible {
			refs = append(refs, ref)
		}
	}
	slices.Sort(refs)
	return refs
}

func (h *history) resolve(ctx context.Context) error {
	ids, err := h.counterIDs(ctx)
	if err != nil {
		return err
	}
	limit := h.maxQueryMetrics(ctx)
	if limit == 0 {
		limit = defaultMaxQuery
	}
	has := 0
	for _, of := range h.kinds {
		of.resolve(ids)
		of.byID = map[int32]*counter{}
		for i := range of.counters {
			if place := of.place[i]; place >= 0 {
				of.byID[of.ids[place]] = &of.counters[i]
				has++
			}
		}
		of.batch = max(limit/max(len(of.ids), 1), 1)
	}
	if has == 0 {
		return errors.New("vcenter has none of the counters of datastores and clusters")
	}
	h.resolved = true
	return nil
}

func (h *history) query(ctx context.Context, of *recorded, refs []string, skew time.Duration) ([]inventory.SampleSet, error) {
	start := h.opts.Clock.Now().Add(-skew - lookBack)
	req := types.QueryPerf{This: *h.conn.ServiceContent.PerfManager}
	var metrics []types.PerfMetricId
	for _, id := range of.ids {
		metrics = append(metrics, types.PerfMetricId{CounterId: id})
	}
	for _, ref := range refs {
		req.QuerySpec = append(req.QuerySpec, types.PerfQuerySpec{
			Entity: types.ManagedObjectReference{Type: of.kind, Value: ref}, StartTime: &start,
			MetricId: metrics, IntervalId: historical, Format: string(types.PerfFormatNormal),
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
			out = append(out, h.samples(of, answer, skew, now)...)
		}
	}
	return out, nil
}

// samples are the newest value of each counter. Counters may differ in how new it is.
func (h *history) samples(of *recorded, answer *types.PerfEntityMetric, skew time.Duration, now time.Time) []inventory.SampleSet {
	id := h.tree.idOf(answer.Entity)
	if answer.Entity.Type != of.kind {
		return nil
	}
	var out []inventory.SampleSet
	for _, value := range answer.Value {
		series, ok := value.(*types.PerfMetricIntSeries)
		if !ok || series.Id.Instance != "" || len(series.Value) != len(answer.SampleInfo) {
			continue
		}
		counter := of.byID[series.Id.CounterId]
		if counter == nil {
			continue
		}
		for i, n := range slices.Backward(series.Value) {
			at := answer.SampleInfo[i].Timestamp.Add(skew)
			if n < 0 || at.After(now.Add(time.Minute)) { // -1 is a gap
				continue
			}
			v := values{}
			if v.add(counter.metric, float64(n)*counter.unit, counter.limit) {
				out = append(out, inventory.SampleSet{ID: id, At: at.UnixMilli(), Values: v})
			}
			break
		}
	}
	return out
}
