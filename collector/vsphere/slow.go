package vsphere

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/vsphere"
)

const (
	customValue = "customValue"
	statFree    = "summary.freeSpace" // of a datastore, which a vCenter renews and notifies of rarely
)

// slow is what is polled slowly because a vCenter does not notify of it, by MoRef value, and what else outlives a connection. It
// belongs to the follower's lock.
type slow struct {
	available map[string]inventory.Availability // of VMs, as they were emitted
	evc       map[string]string                 // of clusters
	tags      map[string][]inventory.Tag
	wanted    map[string]string // label of each custom attribute, by its name
	labels    map[int32]string  // the same by the key that this vCenter gave it
}

func newSlow(attributes map[string]string) *slow {
	return &slow{available: map[string]inventory.Availability{}, wanted: attributes}
}

// sampleSlow polls what is polled slowly.
func (f *follower) sampleSlow(ctx context.Context, view types.ManagedObjectReference) error {
	next := func(time.Time) time.Duration { return inventory.SlowInterval }
	return f.each(ctx, "slow", next, func(ctx context.Context) error { return f.slowCycle(ctx, view) })
}

// slowCycle reads free space, the clusters' EVC modes and what custom attributes are called. It is done once before objects are
// listed too, so that they are whole from the first.
func (f *follower) slowCycle(ctx context.Context, view types.ManagedObjectReference) error {
	// The declared type of a cluster's summary has no EVC mode, so that a vCenter need not know a path to it.
	spec := viewSpec(view, types.PropertySpec{Type: typeCluster, PathSet: []string{"summary"}})
	if f.opts.Collect.Has(inventory.DatastoreFree) {
		spec.PropSet = append(spec.PropSet, types.PropertySpec{Type: typeStore, PathSet: []string{statFree}})
	}
	at := f.opts.Clock.Now()
	evc, free := map[string]string{}, map[string]float64{}
	err := f.conn.Retrieve(ctx, spec, func(ref types.ManagedObjectReference, p platform.Properties) {
		if summary, ok := platform.Get[types.ClusterComputeResourceSummary](p, "summary"); ok {
			evc[ref.Value] = summary.CurrentEVCModeKey
		}
		if n, ok := platform.Get[int64](p, statFree); ok {
			free[ref.Value] = float64(n)
		}
	})
	if err != nil {
		return err
	}
	labels, err := f.attributeLabels(ctx)
	if err != nil {
		return err
	}

	f.mu.Lock()
	defer f.mu.Unlock()
	d := inventory.Delta{Source: f.opts.Name, Samples: f.tree.free(free, at)}
	renamed := !maps.Equal(labels, f.slow.labels)
	was := f.slow.evc
	f.slow.evc, f.slow.labels = evc, labels
	for ref := range f.tree.clusters {
		if evc[ref] != was[ref] {
			f.tree.put(&d, f.tree.id(inventory.KindCluster, ref))
		}
	}
	for ref, v := range f.tree.vms {
		if renamed && len(v.written) > 0 {
			f.tree.put(&d, f.tree.id(inventory.KindVM, ref))
		}
	}
	if len(d.Samples) > 0 || len(d.Clusters) > 0 || len(d.VMs) > 0 {
		f.emit(d)
	}
	return nil
}

// keep forgets VMs that are not in the tree.
func (s *slow) keep(tree *tree) {
	maps.DeleteFunc(s.available, func(ref string, _ inventory.Availability) bool { return tree.vms[ref] == nil })
}

// free makes samples of free space. Of a datastore that no host reaches, what the vCenter says is not to be believed.
func (t *tree) free(free map[string]float64, at time.Time) []inventory.SampleSet {
	var out []inventory.SampleSet
	for ref, n := range free {
		s := t.stores[ref]
		if s == nil || !s.Accessible {
			continue
		}
		limit := float64(absurdStore)
		if s.capacity > 0 {
			limit = s.capacity
		}
		v := values{}
		if v.add(inventory.DatastoreFree, n, limit) {
			out = append(out, inventory.SampleSet{ID: s.ID, At: at.UnixMilli(), Values: v})
		}
	}
	return out
}

// absurdStore is more than any datastore holds.
const absurdStore = 1 << 60

// attributeLabels are the labels of custom attributes by the vCenter's keys; nil without asking if none is wanted.
func (f *follower) attributeLabels(ctx context.Context) (map[int32]string, error) {
	fields := f.conn.ServiceContent.CustomFieldsManager
	if len(f.slow.wanted) == 0 || fields == nil {
		return nil, nil
	}
	props, err := f.conn.Properties(ctx, *fields, "field")
	if err != nil {
		return nil, err
	}
	defs, _ := platform.Get[types.ArrayOfCustomFieldDef](props, "field")
	labels := map[int32]string{}
	for i := range defs.CustomFieldDef {
		def := &defs.CustomFieldDef[i]
		if label, ok := f.slow.wanted[def.Name]; ok && (def.ManagedObjectType == "" || def.ManagedObjectType == typeVM) {
			labels[def.Key] = label
		}
	}
	return labels, nil
}

func written(v any) []types.BaseCustomFieldValue {
	list, _ := v.(types.ArrayOfCustomFieldValue)
	return list.CustomFieldValue
}

// annotations are the custom attributes that are wanted and have a value. Of two that are called the same, one for all kinds of
// object and one for VMs, the later key counts.
func (s *slow) annotations(written []types.BaseCustomFieldValue) []inventory.Label {
	byLabel, keys := map[string]string{}, map[string]int32{}
	for _, w := range written {
		v, ok := w.(*types.CustomFieldStringValue)
		if !ok || v.Value == "" {
			continue
		}
		if label := s.labels[v.Key]; label != "" && v.Key >= keys[label] {
			byLabel[label], keys[label] = v.Value, v.Key
		}
	}
	var out []inventory.Label
	for _, label := range slices.Sorted(maps.Keys(byLabel)) {
		out = append(out, inventory.Label{Name: label, Value: byLabel[label]})
	}
	return out
}

// readTags polls the tags of the wanted categories.
func (f *follower) readTags(ctx context.Context) error {
	reader := platform.NewTags(f.conn)
	next := func(time.Time) time.Duration { return inventory.SlowInterval }
	return f.each(ctx, "tags", next, func(ctx context.Context) error { return f.tagCycle(ctx, reader) })
}

// tagCycle emits the VMs whose tags changed. Tags that cannot be read stay as they were.
func (f *follower) tagCycle(ctx context.Context, reader *platform.Tags) error {
	tags, err := reader.Read(ctx, f.opts.Categories)
	if err != nil {
		return err
	}
	byVM := map[string][]inventory.Tag{}
	for _, tag := range tags {
		for _, ref := range tag.Objects {
			if ref.Type == typeVM {
				byVM[ref.Value] = append(byVM[ref.Value], inventory.Tag{Category: tag.Category, Name: tag.Name})
			}
		}
	}
	for ref, list := range byVM {
		slices.SortFunc(list, func(a, b inventory.Tag) int {
			return cmp.Or(cmp.Compare(a.Category, b.Category), cmp.Compare(a.Name, b.Name))
		})
		byVM[ref] = slices.Compact(list)
	}

	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.slow.tags
	f.slow.tags = byVM
	d := inventory.Delta{Source: f.opts.Name}
	for ref := range f.tree.vms {
		if !slices.Equal(was[ref], byVM[ref]) {
			f.tree.put(&d, f.tree.id(inventory.KindVM, ref))
		}
	}
	if len(d.VMs) > 0 {
		f.emit(d)
	}
	return nil
}
