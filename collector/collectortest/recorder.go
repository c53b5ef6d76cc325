package collectortest

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/internal/inventory"
)

// recorder takes what a source emits, holds each delta against the contract, and keeps a fleet and its changes.
type recorder struct {
	t     *testing.T
	f     Fixture
	fleet *inventory.Fleet

	mu        sync.Mutex
	announced map[inventory.ID]bool
	changes   []inventory.Change
	sampled   map[inventory.ID]bool
	deltas    int
	over      bool
}

func newRecorder(t *testing.T, f Fixture) *recorder {
	return &recorder{
		t: t, f: f, fleet: inventory.NewFleet(inventory.Source{Name: f.Name, Interval: f.Interval}),
		announced: map[inventory.ID]bool{}, sampled: map[inventory.ID]bool{},
	}
}

// watch runs one Watch of src in the background until stop is called or it ends by itself.
func (r *recorder) watch(src collector.Source) (w *watching) {
	ctx, cancel := context.WithCancel(r.t.Context())
	w = &watching{t: r.t, cancel: cancel, done: make(chan struct{})}
	r.mu.Lock()
	r.over, r.deltas = false, 0
	r.mu.Unlock()
	go func() {
		defer close(w.done)
		w.err = src.Watch(ctx, r.take)
		r.mu.Lock()
		r.over = true
		r.mu.Unlock()
	}()
	r.t.Cleanup(func() { cancel(); <-w.done })
	return w
}

type watching struct {
	t      *testing.T
	cancel context.CancelFunc
	done   chan struct{}
	err    error // when done
}

// stop cancels the Watch and returns its error. It must return at once.
func (w *watching) stop() error {
	w.t.Helper()
	w.cancel()
	return w.wait(5 * time.Second)
}

// wait waits for the Watch to end and returns its error.
func (w *watching) wait(d time.Duration) error {
	w.t.Helper()
	select {
	case <-w.done:
		return w.err
	case <-time.After(d):
		w.t.Fatalf("Watch did not return within %v", d)
		return nil
	}
}

// take is the emit that a source is given.
func (r *recorder) take(d inventory.Delta) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		r.t.Error("a delta was emitted after Watch had returned")
	}
	if first := r.deltas == 0; first && !d.Begin {
		r.t.Error("the first delta does not say Begin")
	}
	r.deltas++
	r.checkObjects(&d)
	r.checkSamples(&d)
	changes, err := r.fleet.Apply(d, r.f.Clock.Now())
	if err != nil {
		r.t.Errorf("delta refused: %v", err)
	}
	r.changes = append(r.changes, changes...)
}

func (r *recorder) checkObjects(d *inventory.Delta) {
	if d.Source != r.f.Name {
		r.t.Errorf("delta of source %q, want %q", d.Source, r.f.Name)
	}
	announce := func(id inventory.ID, kind inventory.Kind) {
		if id.Source != r.f.Name || id.Kind != kind || id.Ref == "" {
			r.t.Errorf("%v is not a %v of source %s", id, kind, r.f.Name)
		}
		r.announced[id] = true
	}
	for i := range d.Clusters {
		announce(d.Clusters[i].ID, inventory.KindCluster)
	}
	for i := range d.Hosts {
		announce(d.Hosts[i].ID, inventory.KindHost)
	}
	for i := range d.VMs {
		announce(d.VMs[i].ID, inventory.KindVM)
		if v := &d.VMs[i]; v.Power == "" || v.Connection == "" {
			r.t.Errorf("%v has power %q and connection %q", v.ID, v.Power, v.Connection)
		}
		if before, ok := r.fleet.Snapshot().VM(d.VMs[i].ID); ok {
			r.checkKept(before.VM, &d.VMs[i])
		}
	}
	for i := range d.Datastores {
		announce(d.Datastores[i].ID, inventory.KindDatastore)
	}
	for i := range d.Services {
		announce(d.Services[i].ID, inventory.KindService)
	}
	for i := range d.Pools {
		announce(d.Pools[i].ID, inventory.KindResourcePool)
	}
	for i := range d.Machines {
		announce(d.Machines[i].ID, inventory.KindMachine)
	}
	for i := range d.Networks {
		announce(d.Networks[i].ID, inventory.KindNetwork)
	}
	for _, id := range d.Removed {
		delete(r.announced, id)
	}
}

// checkKept demands that what is known of a VM's hardware stays known, whatever becomes of the VM: sums over a cluster go by it.
func (r *recorder) checkKept(before, now *inventory.VM) {
	if before.UUID != "" && now.UUID == "" || before.VCPUs > 0 && now.VCPUs == 0 || before.MemoryBytes > 0 && now.MemoryBytes == 0 ||
		before.MACs != nil && now.MACs == nil || before.Datastores != nil && now.Datastores == nil || before.Networks != nil && now.Networks == nil {
		r.t.Errorf("of %v less is known than before: %+v, was %+v", now.ID, *now, *before)
	}
}

func (r *recorder) checkSamples(d *inventory.Delta) {
	now := r.f.Clock.Now()
	for i := range d.Samples {
		s := &d.Samples[i]
		if !r.announced[s.ID] {
			r.t.Errorf("sample of %v, which is not announced", s.ID)
		}
		at := time.UnixMilli(s.At)
		// A little slack for the future: a platform's clock is compared over a network.
		age := 2 * r.f.Interval
		if s.ID.Kind == inventory.KindDatastore || s.ID.Kind == inventory.KindCluster {
			age = 3 * inventory.SlowInterval
		}
		if at.Before(now.Add(-age)) || at.After(now.Add(r.f.Interval/10)) {
			r.t.Errorf("sample of %v is from %v, now is %v", s.ID, at, now)
		}
		if len(s.Values) == 0 {
			r.t.Errorf("sample of %v without a value", s.ID)
		}
		for _, v := range s.Values {
			if math.IsNaN(v.Value) || math.IsInf(v.Value, 0) || v.Value < 0 {
				r.t.Errorf("%v of %v is %v", v.Metric, s.ID, v.Value)
			}
			if v.Metric.Desc().Kind != s.ID.Kind {
				r.t.Errorf("%v is no metric of %v", v.Metric, s.ID)
			}
			if v.Metric.Desc().Unit == "ratio" && v.Value > 2 {
				r.t.Errorf("%v of %v is %v", v.Metric, s.ID, v.Value)
			}
		}
		r.sampled[s.ID] = true
	}
}

// seen is how many changes of a kind there were, of one object or (for the zero ID) of any.
func (r *recorder) seen(kind inventory.ChangeKind, id inventory.ID) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, c := range r.changes {
		if c.Kind == kind && (id.IsZero() || c.ID == id) {
			n++
		}
	}
	return n
}

// forget drops the changes seen so far.
func (r *recorder) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes = nil
}

// summary counts the changes by kind.
func (r *recorder) summary() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	by := map[inventory.ChangeKind]int{}
	for _, c := range r.changes {
		by[c.Kind]++
	}
	return fmt.Sprint(by)
}

// eventually polls until ok holds, and fails the test if it does not within d.
func (r *recorder) eventually(d time.Duration, what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(d); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("not within %v: %s (changes: %s)", d, what, r.summary())
		}
	}
}

// synced waits for the n-th complete listing.
func (r *recorder) synced(n int) {
	r.t.Helper()
	r.eventually(20*time.Second, fmt.Sprintf("listing %d", n), func() bool { return r.seen(inventory.Synced, inventory.ID{}) >= n })
}
