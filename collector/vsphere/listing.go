package vsphere

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/vsphere"
)

const (
	// maxWait is how long the vCenter holds a call for changes when there are none. No answer by then and the session's
	// time-out is a dead vCenter.
	maxWait = 15 * time.Second
	// maxUpdates is how many objects one answer holds: a long listing comes in bearable pieces.
	maxUpdates = 100
)

// createView makes the vCenter list every cluster, host, VM, datastore, resource pool and network for this session, wherever in its folders
// they are.
func createView(ctx context.Context, c *platform.Conn) (types.ManagedObjectReference, error) {
	if c.ServiceContent.ViewManager == nil {
		return types.ManagedObjectReference{}, errors.New("vcenter has no view manager")
	}
	res, err := methods.CreateContainerView(ctx, c, &types.CreateContainerView{
		This:      *c.ServiceContent.ViewManager,
		Container: c.ServiceContent.RootFolder,
		Type:      []string{typeCluster, typeHost, typeVM, typeStore, typePool, typeNetwork},
		Recursive: true,
	})
	if err != nil {
		return types.ManagedObjectReference{}, err
	}
	return res.Returnval, nil
}

// viewSpec reads properties of the view's objects.
func viewSpec(view types.ManagedObjectReference, props ...types.PropertySpec) types.PropertyFilterSpec {
	return types.PropertyFilterSpec{
		PropSet: props,
		ObjectSet: []types.ObjectSpec{{
			Obj:  view,
			Skip: types.NewBool(true),
			SelectSet: []types.BaseSelectionSpec{&types.TraversalSpec{
				Type: "ContainerView", Path: "view", Skip: types.NewBool(false),
			}},
		}},
	}
}

// factSpecs are the properties that are followed.
func (f *follower) factSpecs() []types.PropertySpec {
	return []types.PropertySpec{
		{Type: typeCluster, PathSet: f.pathsOf(inventory.KindCluster)},
		{Type: typeHost, PathSet: f.pathsOf(inventory.KindHost)},
		{Type: typeVM, PathSet: f.pathsOf(inventory.KindVM)},
		{Type: typeStore, PathSet: f.pathsOf(inventory.KindDatastore)},
		{Type: typePool, PathSet: f.pathsOf(inventory.KindResourcePool)}, // virtual apps are such
		{Type: typeNetwork, PathSet: f.pathsOf(inventory.KindNetwork)},   // port groups of distributed switches are such
	}
}

// list emits all objects, from Begin to Synced, and returns the version from which changes go on.
func (f *follower) list(ctx context.Context, view types.ManagedObjectReference) (version string, err error) {
	_, err = methods.CreateFilter(ctx, f.conn, &types.CreateFilter{
		This: f.conn.ServiceContent.PropertyCollector, Spec: viewSpec(view, f.factSpecs()...),
	})
	if err != nil {
		return "", err
	}
	for begin := true; ; begin = false {
		set, err := f.wait(ctx, version, 0)
		if err != nil {
			return "", err
		}
		more := set != nil && set.Truncated != nil && *set.Truncated
		if err := f.apply(ctx, set, begin, !more); err != nil {
			return "", err
		}
		if set != nil {
			version = set.Version
		}
		if !more {
			f.totals.keep(f.tree)
			f.slow.keep(f.tree)
			return version, nil
		}
	}
}

// changes emits what changes after version, for as long as the session lives.
func (f *follower) changes(ctx context.Context, version string) error {
	for {
		set, err := f.wait(ctx, version, maxWait)
		if err != nil {
			return err
		}
		if set == nil {
			continue
		}
		if err := f.apply(ctx, set, false, false); err != nil {
			return err
		}
		version = set.Version
	}
}

// wait asks for updates since version; nil if there are none within d. d is real time: it keeps a connection busy.
func (f *follower) wait(ctx context.Context, version string, d time.Duration) (*types.UpdateSet, error) {
	seconds := int32(d / time.Second)
	return f.conn.WaitForUpdates(ctx, version, types.WaitOptions{MaxWaitSeconds: &seconds, MaxObjectUpdates: maxUpdates})
}

// apply lays updates over the tree and emits the objects they touched, each whole and once.
func (f *follower) apply(ctx context.Context, set *types.UpdateSet, begin, synced bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := updates{touched: map[inventory.ID]bool{}, reread: map[inventory.ID]types.ManagedObjectReference{}}
	if set != nil {
		if err := f.merge(set, &u); err != nil {
			return err
		}
	}
	if err := f.reread(ctx, &u); err != nil {
		return err
	}
	f.tree.touchAvailable(&u)
	d := inventory.Delta{Source: f.opts.Name, Begin: begin, Synced: synced, Removed: u.removed}
	for _, id := range u.order {
		f.tree.put(&d, id)
	}
	for _, id := range u.removed {
		f.totals.drop(id)
	}
	if begin || synced || len(u.order) > 0 || len(u.removed) > 0 {
		f.emit(d)
	}
	return nil
}

// updates is what one answer touched.
type updates struct {
	order   []inventory.ID // of the objects to emit, each once
	touched map[inventory.ID]bool
	removed []inventory.ID
	reread  map[inventory.ID]types.ManagedObjectReference // changed in a way that cannot be laid over what is known
}

func (u *updates) touch(id inventory.ID) {
	if !u.touched[id] {
		u.touched[id] = true
		u.order = append(u.order, id)
	}
}

// touchAvailable touches the VMs that a change of their host or cluster makes restartable, or not any more.
func (t *tree) touchAvailable(u *updates) {
	if !slices.ContainsFunc(u.order, func(id inventory.ID) bool { return id.Kind == inventory.KindCluster || id.Kind == inventory.KindHost }) {
		return
	}
	for _, v := range t.inOrder() {
		if v.Availability != t.availability(v) {
			u.touch(v.ID)
		}
	}
}

// merge lays the updates over the tree.
func (f *follower) merge(set *types.UpdateSet, u *updates) error {
	now := f.opts.Clock.Now()
	for i := range set.FilterSet {
		for j := range set.FilterSet[i].ObjectSet {
			o := &set.FilterSet[i].ObjectSet[j]
			if err := platform.CheckMissing(o.MissingSet); err != nil {
				return fmt.Errorf("updates of %s: %w", o.Obj.Value, err)
			}
			id := f.tree.idOf(o.Obj)
			if id.IsZero() {
				continue
			}
			switch o.Kind {
			case types.ObjectUpdateKindLeave:
				f.tree.drop(id)
				u.removed = append(u.removed, id)
				delete(u.reread, id)
				continue
			case types.ObjectUpdateKindEnter:
				f.tree.add(id)
			}
			for _, c := range o.ChangeSet {
				whole := c.Op == types.PropertyChangeOpAssign || c.Op == types.PropertyChangeOpRemove || c.Op == types.PropertyChangeOpIndirectRemove
				val := c.Val
				if c.Op != types.PropertyChangeOpAssign {
					val = nil
				}
				if !whole || !f.tree.set(id, c.Name, val, now) {
					u.reread[id] = o.Obj
				}
			}
			u.touch(id)
		}
	}
	// An object that left and came back in one answer was not removed.
	u.removed = slices.DeleteFunc(u.removed, f.tree.has)
	return nil
}

// reread reads objects whole whose change could not be laid over what is known. One that is gone meanwhile is left out: its
// leaving comes by itself.
func (f *follower) reread(ctx context.Context, u *updates) error {
	for len(u.reread) > 0 {
		spec := types.PropertyFilterSpec{PropSet: f.factSpecs()}
		for _, ref := range u.reread {
			spec.ObjectSet = append(spec.ObjectSet, types.ObjectSpec{Obj: ref})
		}
		now := f.opts.Clock.Now()
		err := f.conn.Retrieve(ctx, spec, func(ref types.ManagedObjectReference, props platform.Properties) {
			id := f.tree.idOf(ref)
			f.tree.add(id)
			for _, path := range f.pathsOf(id.Kind) {
				f.tree.set(id, path, props[path], now)
			}
			u.touch(id)
		})
		gone, missing := platform.Gone(err)
		if !missing {
			return err
		}
		id := f.tree.idOf(gone)
		if _, asked := u.reread[id]; !asked {
			return err
		}
		delete(u.reread, id)
	}
	return nil
}

// pathsOf are the properties that are followed of a kind.
func (f *follower) pathsOf(kind inventory.Kind) []string {
	switch kind {
	case inventory.KindCluster:
		return slices.Sorted(maps.Keys(clusterPaths))
	case inventory.KindHost:
		return slices.Sorted(maps.Keys(hostPaths))
	case inventory.KindDatastore:
		return slices.Sorted(maps.Keys(storePaths))
	case inventory.KindResourcePool:
		return slices.Sorted(maps.Keys(poolPaths))
	case inventory.KindNetwork:
		return slices.Sorted(maps.Keys(networkPaths))
	}
	paths := slices.Sorted(maps.Keys(vmPaths))
	if len(f.opts.Attributes) == 0 {
		paths = slices.DeleteFunc(paths, func(path string) bool { return path == customValue })
	}
	return paths
}
