package inventory

import (
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Fleet is the one writer of the inventory. Its methods may be called from any goroutine; readers take a Snapshot.
type Fleet struct {
	mu      sync.Mutex
	current atomic.Pointer[Snapshot]
	seen    map[string]map[ID]bool // per source, what a listing has named since its Begin
}

// NewFleet is a fleet of the given sources, none of which has answered yet.
func NewFleet(sources ...Source) *Fleet {
	f := &Fleet{seen: map[string]map[ID]bool{}}
	snap := &Snapshot{views: map[string]*view{}}
	for _, src := range sources {
		snap.views[src.Name] = newView(src)
	}
	f.current.Store(snap)
	return f
}

// Snapshot is the fleet as it is now.
func (f *Fleet) Snapshot() *Snapshot { return f.current.Load() }

// Apply publishes what a source saw at the time now and returns what that changed: additions and updates, then removals,
// then Synced. A delta of an unknown source, or that holds another source's object, is refused whole.
func (f *Fleet) Apply(d Delta, now time.Time) ([]Change, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	old, ok := f.current.Load().views[d.Source]
	if !ok {
		return nil, fmt.Errorf("delta of unknown source %q", d.Source)
	}
	if d.Begin {
		f.seen[d.Source] = map[ID]bool{}
	}
	seen := f.seen[d.Source]
	e := old.edit()
	changes := d.store(e, seen)

	gone := d.Removed
	synced := d.Synced && seen != nil
	if synced {
		gone = append(gone, e.clusters.unseen(d.Source, KindCluster, seen)...)
		gone = append(gone, e.hosts.unseen(d.Source, KindHost, seen)...)
		gone = append(gone, e.vms.unseen(d.Source, KindVM, seen)...)
		gone = append(gone, e.datastores.unseen(d.Source, KindDatastore, seen)...)
		gone = append(gone, e.services.unseen(d.Source, KindService, seen)...)
		gone = append(gone, e.pools.unseen(d.Source, KindResourcePool, seen)...)
		gone = append(gone, e.machines.unseen(d.Source, KindMachine, seen)...)
		gone = append(gone, e.networks.unseen(d.Source, KindNetwork, seen)...)
		delete(f.seen, d.Source)
	}
	for _, id := range gone {
		delete(seen, id)
		if c := e.drop(id); c != nil {
			changes = append(changes, *c)
		}
	}
	for i := range d.Samples {
		e.sample(&d.Samples[i])
	}

	next := e.done(old.source)
	if synced {
		next.source.Synced, next.source.Up, next.source.Error = true, true, ""
		changes = append(changes, Change{Kind: Synced, Source: d.Source})
	}
	if next.source.Up {
		next.source.LastSuccess = now
	}
	f.publish(next)
	return changes, nil
}

// Down marks a source as not answering. Its objects stay, its samples grow old, and a listing it had begun is void.
func (f *Fleet) Down(source string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old, ok := f.current.Load().views[source]
	if !ok {
		return
	}
	next := *old
	next.source.Up, next.source.Error = false, err.Error()
	delete(f.seen, source)
	f.publish(&next)
}

// Expire takes the value of every sample that at the time now is older than two intervals of its source (of a slow metric,
// three slow intervals), and keeps its time.
// Who renders, judges or plans calls it first. It costs a pass over the samples and publishes only if something expired.
func (f *Fleet) Expire(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, old := range f.current.Load().views {
		var oldest [metricCount]int64
		for m := range oldest {
			age := 2 * old.source.Interval
			if Metric(m).Slow() {
				age = max(age, 3*SlowInterval)
			}
			oldest[m] = now.Add(-age).UnixMilli()
		}
		e := old.edit()
		if e.expire(&oldest) {
			f.publish(e.done(old.source))
		}
	}
}

func (f *Fleet) publish(v *view) {
	next := &Snapshot{views: maps.Clone(f.current.Load().views)}
	next.views[v.source.Name] = v
	f.current.Store(next)
}

// store puts the delta's objects into the columns and marks them as seen.
func (d *Delta) store(e *edited, seen map[ID]bool) []Change {
	var changes []Change
	note := func(id ID, c *Change) {
		if seen != nil {
			seen[id] = true
		}
		if c != nil {
			changes = append(changes, *c)
		}
	}
	for i := range d.Clusters {
		note(d.Clusters[i].ID, e.clusters.put(d.Clusters[i].ID, &d.Clusters[i]))
	}
	for i := range d.Hosts {
		note(d.Hosts[i].ID, e.hosts.put(d.Hosts[i].ID, &d.Hosts[i]))
	}
	for i := range d.VMs {
		note(d.VMs[i].ID, e.vms.put(d.VMs[i].ID, &d.VMs[i]))
	}
	for i := range d.Datastores {
		note(d.Datastores[i].ID, e.datastores.put(d.Datastores[i].ID, &d.Datastores[i]))
	}
	for i := range d.Services {
		note(d.Services[i].ID, e.services.put(d.Services[i].ID, &d.Services[i]))
	}
	for i := range d.Pools {
		note(d.Pools[i].ID, e.pools.put(d.Pools[i].ID, &d.Pools[i]))
	}
	for i := range d.Machines {
		note(d.Machines[i].ID, e.machines.put(d.Machines[i].ID, &d.Machines[i]))
	}
	for i := range d.Networks {
		note(d.Networks[i].ID, e.networks.put(d.Networks[i].ID, &d.Networks[i]))
	}
	return changes
}

// check refuses what does not belong to the delta's source.
func (d *Delta) check() error {
	want := func(id ID, kind Kind) error {
		if id.Source != d.Source || id.Kind != kind || id.Ref == "" {
			return fmt.Errorf("delta of source %q holds %q as a %s", d.Source, id, kind)
		}
		return nil
	}
	for i := range d.Clusters {
		if err := want(d.Clusters[i].ID, KindCluster); err != nil {
			return err
		}
	}
	for i := range d.Hosts {
		if err := want(d.Hosts[i].ID, KindHost); err != nil {
			return err
		}
	}
	for i := range d.VMs {
		if err := want(d.VMs[i].ID, KindVM); err != nil {
			return err
		}
	}
	for i := range d.Datastores {
		if err := want(d.Datastores[i].ID, KindDatastore); err != nil {
			return err
		}
	}
	for i := range d.Services {
		if err := want(d.Services[i].ID, KindService); err != nil {
			return err
		}
	}
	for i := range d.Pools {
		if err := want(d.Pools[i].ID, KindResourcePool); err != nil {
			return err
		}
	}
	for i := range d.Machines {
		if err := want(d.Machines[i].ID, KindMachine); err != nil {
			return err
		}
	}
	for i := range d.Networks {
		if err := want(d.Networks[i].ID, KindNetwork); err != nil {
			return err
		}
	}
	for i := range d.Samples {
		if err := want(d.Samples[i].ID, d.Samples[i].ID.Kind); err != nil {
			return err
		}
	}
	for _, id := range d.Removed {
		if err := want(id, id.Kind); err != nil {
			return err
		}
	}
	return nil
}

// edited is a view that is being changed.
type edited struct {
	clusters   *editor[Cluster]
	hosts      *editor[Host]
	vms        *editor[VM]
	datastores *editor[Datastore]
	services   *editor[Service]
	pools      *editor[ResourcePool]
	machines   *editor[Machine]
	networks   *editor[Network]
}

func (v *view) edit() *edited {
	return &edited{edit(v.clusters), edit(v.hosts), edit(v.vms), edit(v.datastores), edit(v.services), edit(v.pools), edit(v.machines), edit(v.networks)}
}

// done is the changed view, of a source in that state.
func (e *edited) done(src Source) *view {
	return &view{src, e.clusters.done(), e.hosts.done(), e.vms.done(), e.datastores.done(), e.services.done(), e.pools.done(), e.machines.done(), e.networks.done()}
}

// drop takes an object out and returns the change, nil if it was not known.
func (e *edited) drop(id ID) *Change {
	switch id.Kind {
	case KindCluster:
		return e.clusters.drop(id)
	case KindHost:
		return e.hosts.drop(id)
	case KindVM:
		return e.vms.drop(id)
	case KindDatastore:
		return e.datastores.drop(id)
	case KindService:
		return e.services.drop(id)
	case KindResourcePool:
		return e.pools.drop(id)
	case KindMachine:
		return e.machines.drop(id)
	case KindNetwork:
		return e.networks.drop(id)
	}
	return nil
}

func (e *edited) sample(set *SampleSet) {
	switch set.ID.Kind {
	case KindCluster:
		e.clusters.sample(set)
	case KindHost:
		e.hosts.sample(set)
	case KindVM:
		e.vms.sample(set)
	case KindDatastore:
		e.datastores.sample(set)
	case KindService:
		e.services.sample(set)
	case KindMachine:
		e.machines.sample(set)
	}
}

// expire takes the value of every sample that is older than its metric's oldest and reports whether there was one.
func (e *edited) expire(oldest *[metricCount]int64) bool {
	hit := false
	for _, h := range []bool{
		e.clusters.expire(ClusterCPUUsage, oldest), e.hosts.expire(HostCPUUsage, oldest), e.vms.expire(VMCPUUsage, oldest),
		e.datastores.expire(DatastoreFree, oldest), e.services.expire(ServiceLatency, oldest), e.machines.expire(MachineCPUUsageRatio, oldest),
	} {
		hit = hit || h
	}
	return hit
}
