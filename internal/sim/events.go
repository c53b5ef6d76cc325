package sim

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const maxEvents = 1000 // that the stock history keeps and gives at once

// post adds an event, in the vCenter's time.
func (vc *VCenter) post(ctx *simulator.Context, event types.BaseEvent) {
	m := vc.reg.EventManager()
	ctx.WithLock(m, func() {
		m.PostEvent(ctx, &types.PostEvent{EventToPost: event})
		event.GetEvent().CreatedTime = vc.clock.Now().UTC()
	})
}

// QueryEvents is the stock one, but gives all events if not told how many, and lets nothing move meanwhile.
func (g *gateway) QueryEvents(ctx *simulator.Context, req *types.QueryEvents) (answer soap.HasFault) {
	if req.Filter.MaxCount < 0 || req.Filter.MaxCount > maxEvents {
		return &methods.QueryEventsBody{Fault_: simulator.Fault("", &types.InvalidArgument{InvalidProperty: "maxCount"})}
	}
	if req.Filter.MaxCount == 0 {
		req.Filter.MaxCount = maxEvents
	}
	g.vc.shape.RLock()
	defer g.vc.shape.RUnlock()
	m := g.vc.reg.EventManager()
	ctx.WithLock(m, func() { answer = m.QueryEvents(ctx, req) })
	return answer
}

// vmEvent is an event of a VM on a host.
func (vc *VCenter) vmEvent(vm vmState, host types.ManagedObjectReference) types.VmEvent {
	return types.VmEvent{Event: types.Event{
		Datacenter: vc.datacenterArgument(), ComputeResource: vc.clusterArgument(host), Host: vc.hostArgument(host), Ds: vc.datastoreArgument(),
		Vm: &types.VmEventArgument{EntityEventArgument: types.EntityEventArgument{Name: vm.name}, Vm: vm.ref},
	}}
}

func (vc *VCenter) hostEvent(host types.ManagedObjectReference) types.HostEvent {
	return types.HostEvent{Event: types.Event{
		Datacenter: vc.datacenterArgument(), ComputeResource: vc.clusterArgument(host), Host: vc.hostArgument(host),
	}}
}

func (vc *VCenter) hostArgument(host types.ManagedObjectReference) *types.HostEventArgument {
	return &types.HostEventArgument{EntityEventArgument: types.EntityEventArgument{Name: vc.hostState(host).name}, Host: host}
}

func (vc *VCenter) clusterArgument(host types.ManagedObjectReference) *types.ComputeResourceEventArgument {
	ref := vc.hostState(host).cluster
	cluster := vc.reg.Get(ref).(*simulator.ClusterComputeResource)
	arg := &types.ComputeResourceEventArgument{ComputeResource: ref}
	vc.own().WithLock(cluster, func() { arg.Name = cluster.Name })
	return arg
}

func (vc *VCenter) datacenterArgument() *types.DatacenterEventArgument {
	dc := vc.place.datacenter
	arg := &types.DatacenterEventArgument{Datacenter: dc.Self}
	vc.own().WithLock(dc, func() { arg.Name = dc.Name })
	return arg
}

func (vc *VCenter) datastoreArgument() *types.DatastoreEventArgument {
	ds := vc.place.datastore
	arg := &types.DatastoreEventArgument{Datastore: ds.Self}
	vc.own().WithLock(ds, func() { arg.Name = ds.Name })
	return arg
}
