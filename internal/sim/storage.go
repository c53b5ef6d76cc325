package sim

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// Datastore is a datastore to be built.
type Datastore struct {
	Name          string
	Type          string   // default VMFS
	CapacityBytes float64  // default 64 TiB
	FreeBytes     float64  // default 40 TiB
	Hosts         []string // that have it mounted; nil is all
}

// buildDatastores makes the datastores before anything is on them.
func (vc *VCenter) buildDatastores() {
	specs := vc.cfg.Datastores
	if len(specs) == 0 {
		specs = []Datastore{{Name: "san-01"}}
	}
	for _, spec := range specs {
		vc.place.datastores = append(vc.place.datastores, vc.buildDatastore(spec))
	}
	vc.place.datastore = vc.place.datastores[0]
}

func (vc *VCenter) buildDatastore(spec Datastore) *simulator.Datastore {
	ds := &simulator.Datastore{}
	ds.Name = spec.Name
	ds.Self = types.ManagedObjectReference{Type: "Datastore"}
	folder := vc.reg.Get(vc.place.datacenter.DatastoreFolder).(*simulator.Folder)
	vc.reg.PutEntity(folder, vc.reg.NewEntity(ds))
	ds.Summary = types.DatastoreSummary{
		Datastore: &ds.Self, Name: ds.Name, Url: "ds:///vmfs/volumes/" + spec.Name + "/", Accessible: true,
		Capacity: int64(cmp.Or(spec.CapacityBytes, 64<<40)), FreeSpace: int64(cmp.Or(spec.FreeBytes, 40<<40)),
		MultipleHostAccess: types.NewBool(true), Type: cmp.Or(spec.Type, "VMFS"), MaintenanceMode: "normal",
	}
	ds.Info = &types.VmfsDatastoreInfo{DatastoreInfo: types.DatastoreInfo{Name: ds.Name, Url: ds.Summary.Url, FreeSpace: ds.Summary.FreeSpace}}
	folder.ChildEntity = append(folder.ChildEntity, ds.Self)
	vc.place.datacenter.Datastore = append(vc.place.datacenter.Datastore, ds.Self)
	return ds
}

// mount gives a host that is being built the datastores that are meant for it.
func (vc *VCenter) mount(host *simulator.HostSystem) {
	for i, ds := range vc.place.datastores {
		if i < len(vc.cfg.Datastores) && vc.cfg.Datastores[i].Hosts != nil && !slices.Contains(vc.cfg.Datastores[i].Hosts, host.Name) {
			continue
		}
		host.Datastore = append(host.Datastore, ds.Self)
		ds.Host = append(ds.Host, types.DatastoreHostMount{Key: host.Self, MountInfo: types.HostMountInfo{
			Path: "/vmfs/volumes/" + ds.Name, AccessMode: string(types.HostMountModeReadWrite),
			Mounted: types.NewBool(true), Accessible: types.NewBool(true),
		}})
	}
}

// datastoreOf is the datastore of that name, the first for none.
func (vc *VCenter) datastoreOf(name string) *simulator.Datastore {
	for _, ds := range vc.place.datastores {
		if ds.Name == name {
			return ds
		}
	}
	return vc.place.datastore
}

// Datastore is the datastore of that name.
func (vc *VCenter) Datastore(name string) (types.ManagedObjectReference, bool) {
	return vc.find("Datastore", name)
}

// SetAccess breaks or restores one host's path to a datastore, which is accessible as long as one host reaches it.
func (vc *VCenter) SetAccess(datastore, host types.ManagedObjectReference, accessible bool) error {
	ds, ok := vc.reg.Get(datastore).(*simulator.Datastore)
	if !ok {
		return fmt.Errorf("access to datastore %s: %w", datastore.Value, errNoSuch)
	}
	ctx := vc.own()
	ctx.WithLock(ds, func() {
		mounts, reached := slices.Clone(ds.Host), false
		for i := range mounts {
			if mounts[i].Key == host {
				mounts[i].MountInfo.Accessible = &accessible
			}
			reached = reached || *mounts[i].MountInfo.Accessible
		}
		ctx.Update(ds, []types.PropertyChange{{Name: "host", Val: mounts}, {Name: "summary.accessible", Val: reached}})
	})
	return nil
}

// SetFree changes what is free on a datastore. Nobody is told: clients have to look.
func (vc *VCenter) SetFree(datastore types.ManagedObjectReference, bytes float64) error {
	ds, ok := vc.reg.Get(datastore).(*simulator.Datastore)
	if !ok {
		return fmt.Errorf("free space of datastore %s: %w", datastore.Value, errNoSuch)
	}
	vc.own().WithLock(ds, func() { ds.Summary.FreeSpace = int64(bytes) })
	return nil
}

// reaches reports whether a host can run what is on a VM's datastores.
func (vc *VCenter) reaches(vm, host types.ManagedObjectReference) bool {
	ctx := vc.own()
	var on []types.ManagedObjectReference
	obj, ok := vc.reg.Get(vm).(*simulator.VirtualMachine)
	if !ok {
		return false
	}
	ctx.WithLock(obj, func() { on = slices.Clone(obj.Datastore) })
	for _, ref := range on {
		ds, ok := vc.reg.Get(ref).(*simulator.Datastore)
		if !ok {
			return false
		}
		mounted := false
		ctx.WithLock(ds, func() {
			mounted = slices.ContainsFunc(ds.Host, func(m types.DatastoreHostMount) bool { return m.Key == host && *m.MountInfo.Accessible })
		})
		if !mounted {
			return false
		}
	}
	return true
}
