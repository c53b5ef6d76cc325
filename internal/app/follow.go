package app

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/placement"
)

// How demand is followed. A step is what the planner's constants are about; a shorter one would take noise for demand.
const (
	followStep = 5 * time.Minute
	// recallSpan is how far back the history is read at the start, by recallStep, in parts of recallPart.
	recallSpan = 12 * time.Hour
	recallStep = 10 * time.Minute
	recallPart = 3 * time.Hour
	// warm is how long demand has to have been followed before a cluster is rebalanced by itself: by then what VMs did outweighs what
	// is assumed of them.
	warm = time.Hour
)

// following is what the VMs of every source usually need, followed from what is watched and, at the start, from history.
type following struct {
	mu      sync.Mutex
	of      map[string]*trail // by source
	running sync.WaitGroup
	asked   answer // the last one

	since *prometheus.GaugeVec
}

// answer is the demand of one look at the fleet. One page, or one evaluation, asks for it many times. Nobody changes it.
type answer struct {
	of     *inventory.Snapshot // nil: something was learnt since
	demand placement.Demand
}

// trail is one source's.
type trail struct {
	seen     placement.Followed
	sums     map[inventory.ID]sum // of the samples since the last step
	counts   map[inventory.ID]counts
	flows    map[inventory.ID]placement.Flow // over the last step
	stepped  time.Time                       // when that was; zero: never
	since    time.Time                       // of the oldest sample
	recalled bool                            // the history was read, or is being read
}

type sum struct {
	n   int
	cpu float64
}

// counts are what a VM had moved by the last step.
type counts struct{ disk, network count }

// count is in bytes since some moment, at a time in milliseconds; zero where that is not known.
type count struct {
	bytes float64
	at    int64
}

func countsOf(vm inventory.VMView) counts {
	both := func(in, out inventory.Metric) count {
		a, b := vm.Samples.Of(in), vm.Samples.Of(out)
		if !a.OK() || !b.OK() {
			return count{}
		}
		return count{a.Value + b.Value, min(a.At, b.At)}
	}
	return counts{both(inventory.VMDiskRead, inventory.VMDiskWrite), both(inventory.VMNetworkReceive, inventory.VMNetworkTransmit)}
}

// since is what was moved per second since an earlier count, 0 if that is not known. A count that began anew, as after a move, says nothing
// of it: then it is as it was last.
func (c count) since(before count, last float64) float64 {
	switch {
	case c.at == 0 || before.at == 0:
		return 0
	case c.at <= before.at || c.bytes < before.bytes:
		return last
	}
	return (c.bytes - before.bytes) / (float64(c.at-before.at) / 1000)
}

func newFollowing(reg prometheus.Registerer) *following {
	f := &following{
		of: map[string]*trail{},
		since: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "protip_demand_followed_seconds",
			Help: "How long the demand of the source's VMs has been followed, history included. Plans of clusters go by themselves after an hour.",
		}, []string{"source"}),
	}
	reg.MustRegister(f.since)
	return f
}

// follow takes in one look at the fleet. A source that does not answer is not followed meanwhile, and nothing of it is forgotten.
func (a *App) follow(ctx context.Context, snap *inventory.Snapshot, now time.Time) {
	sizes := placement.Sizes(snap)
	f := a.following
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = answer{}
	for source, d := range bySource(placement.Observed(snap)) {
		t := f.of[source]
		if t == nil {
			t = &trail{since: now, sums: map[inventory.ID]sum{}}
			f.of[source] = t
		}
		t.take(snap, d, sizes, now)
		if !t.recalled && a.past != nil {
			t.recalled = true
			f.running.Go(func() { a.recallDemand(ctx, source, sizes, now) })
		}
		f.since.WithLabelValues(source).Set(now.Sub(t.since).Seconds())
	}
}

// take adds samples to the step under way, and ends it when it is long enough.
func (t *trail) take(snap *inventory.Snapshot, d placement.Demand, sizes map[inventory.ID]float64, now time.Time) {
	for id, use := range d.VMs {
		s := t.sums[id]
		t.sums[id] = sum{s.n + 1, s.cpu + use.CPUHertz}
	}
	if !t.stepped.IsZero() && now.Sub(t.stepped) < followStep {
		return
	}
	for id, use := range d.VMs {
		use.CPUHertz = t.sums[id].cpu / float64(t.sums[id].n)
		d.VMs[id] = use
	}
	t.measure(snap, d)
	d.Flows = t.flows
	t.seen, _ = t.seen.Next(d, sizes, seconds(now))
	t.sums, t.stepped = map[inventory.ID]sum{}, now
}

// measure says what each VM moved over the step that ends.
func (t *trail) measure(snap *inventory.Snapshot, d placement.Demand) {
	now, flows := make(map[inventory.ID]counts, len(d.VMs)), make(map[inventory.ID]placement.Flow, len(d.VMs))
	for id := range d.VMs {
		vm, _ := snap.VM(id)
		last, before := t.flows[id], t.counts[id]
		now[id] = countsOf(vm)
		flows[id] = placement.Flow{
			DiskBytesPerSecond:    now[id].disk.since(before.disk, last.DiskBytesPerSecond),
			NetworkBytesPerSecond: now[id].network.since(before.network, last.NetworkBytesPerSecond),
		}
	}
	t.counts, t.flows = now, flows
}

// recallDemand follows a source's demand through its history, and goes on from there. What cannot be read is said, and followed anew.
func (a *App) recallDemand(ctx context.Context, source string, sizes map[inventory.ID]float64, now time.Time) {
	past, since, err := readDemand(ctx, a.past, source, sizes, now)
	if err != nil {
		if ctx.Err() == nil {
			a.log.Warn("demand is followed anew: its history was not read", "source", source, "err", err)
		}
		return
	}
	if since.IsZero() {
		a.log.Info("demand is followed anew: there is no history of it", "source", source)
		return
	}
	a.log.Info("demand is followed from history on", "source", source, "since", since)
	f := a.following
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = answer{}
	t := f.of[source]
	t.seen, t.since, t.stepped = past, since, time.Time{} // the next look joins what it sees to it
}

// readDemand is what history tells, and since when; a zero time is that it tells nothing.
func readDemand(
	ctx context.Context, past history.Querier, source string, sizes map[inventory.ID]float64, now time.Time,
) (seen placement.Followed, since time.Time, err error) {
	for start := now.Add(-recallSpan); start.Before(now); start = start.Add(recallPart) {
		r := history.Range{Start: start, End: start.Add(recallPart - recallStep), Step: recallStep}
		usage, err := pointsOf(ctx, past, "virt_vm_cpu_usage_hertz", source, r)
		if err != nil {
			return seen, since, err
		}
		contention, err := pointsOf(ctx, past, "virt_vm_cpu_contention_ratio", source, r)
		if err != nil {
			return seen, since, err
		}
		for at := r.Start; !at.After(r.End); at = at.Add(r.Step) {
			d := placement.Demand{VMs: map[inventory.ID]placement.Use{}}
			waits := contention[at.UnixMilli()]
			for id, used := range usage[at.UnixMilli()] {
				if wait, ok := waits[id]; ok && sizes[id] > 0 {
					d.VMs[id] = placement.Use{CPUHertz: placement.CPUNeed(used, wait, sizes[id])}
				}
			}
			if len(d.VMs) == 0 {
				continue // the agent was not there
			}
			if since.IsZero() {
				since = at
			}
			seen, _ = seen.Next(d, sizes, seconds(at))
		}
	}
	return seen, since, nil
}

// pointsOf are a metric's means over each step, by time and VM.
func pointsOf(ctx context.Context, past history.Querier, metric, source string, r history.Range) (map[int64]map[inventory.ID]float64, error) {
	m, err := past.QueryRange(ctx, fmt.Sprintf("avg_over_time(%s{source=%q}[%s])", metric, source, "10m"), r)
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w", metric, source, err)
	}
	out := map[int64]map[inventory.ID]float64{}
	for _, s := range m {
		id := inventory.ID{Source: source, Kind: inventory.KindVM, Ref: s.Labels.Get("vm_id")}
		for _, p := range s.Points {
			if out[p.T] == nil {
				out[p.T] = map[inventory.ID]float64{}
			}
			out[p.T][id] = p.V
		}
	}
	return out, nil
}

// demand is what every VM is expected to need: what it needs now, and what was followed of it. It is shared, and not to be changed.
func (a *App) demand(snap *inventory.Snapshot) placement.Demand {
	f := a.following
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asked.of != snap {
		f.asked = answer{snap, f.demand(snap, seconds(a.clock.Now()))}
	}
	return f.asked.demand
}

func (f *following) demand(snap *inventory.Snapshot, now float64) placement.Demand {
	sizes := placement.Sizes(snap)
	out := placement.Observed(snap)
	out.Usual, out.Flows = make(map[inventory.ID]placement.Usual, len(out.VMs)), make(map[inventory.ID]placement.Flow, len(out.VMs))
	for source, d := range bySource(out) {
		var seen placement.Followed
		if t := f.of[source]; t != nil {
			seen, d.Flows = t.seen, t.flows
		}
		_, d = seen.Next(d, sizes, now)
		maps.Copy(out.Usual, d.Usual)
		maps.Copy(out.Flows, d.Flows)
	}
	return out
}

// followedSince is from when on the demand of a source's VMs is known, zero if it is not.
func (a *App) followedSince(source string) time.Time {
	a.following.mu.Lock()
	defer a.following.mu.Unlock()
	if t := a.following.of[source]; t != nil {
		return t.since
	}
	return time.Time{}
}

func bySource(d placement.Demand) map[string]placement.Demand {
	out := map[string]placement.Demand{}
	for id, use := range d.VMs {
		if out[id.Source].VMs == nil {
			out[id.Source] = placement.Demand{VMs: map[inventory.ID]placement.Use{}}
		}
		out[id.Source].VMs[id] = use
	}
	return out
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
