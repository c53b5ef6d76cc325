package sim

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// CreateVM adds a VM on a host and in its cluster's root pool, at once. It is on unless the spec says otherwise, and demands what the load says of the next index.
func (vc *VCenter) CreateVM(host types.ManagedObjectReference, spec VM) (types.ManagedObjectReference, error) {
	if _, ok := vc.reg.Get(host).(*simulator.HostSystem); !ok {
		return types.ManagedObjectReference{}, fmt.Errorf("create VM %q on %s: %w", spec.Name, host.Value, errNoSuch)
	}
	root := *vc.reg.Get(vc.hostState(host).cluster).(*simulator.ClusterComputeResource).ResourcePool
	return vc.createVM(vc.own(), host, root, spec), nil
}

func (vc *VCenter) createVM(ctx *simulator.Context, hostRef, pool types.ManagedObjectReference, spec VM) types.ManagedObjectReference {
	host := vc.reg.Get(hostRef).(*simulator.HostSystem)
	cluster := vc.reg.Get(vc.hostState(hostRef).cluster).(*simulator.ClusterComputeResource)

	vc.shape.Lock()
	var vm *simulator.VirtualMachine
	ctx.WithLock(host, func() { vm = vc.newVM(spec, host, cluster) })
	vm.ResourcePool = &pool
	folder := vc.place.vms
	ctx.WithLock(folder, func() { // before Put: views look for a new object in the lists that lead to it
		ctx.Update(folder, []types.PropertyChange{{Name: "childEntity", Val: append(slices.Clone(folder.ChildEntity), vm.Self)}})
	})
	vc.usage.addVM(vm, host)
	vc.reg.Put(vm)
	vc.listVM(ctx, hostRef, vm.Self, true)
	vc.listVM(ctx, pool, vm.Self, true)
	vc.shape.Unlock()

	vc.post(ctx, &types.VmCreatedEvent{VmEvent: vc.vmEvent(vc.vmState(vm), hostRef)})
	return vm.Self
}

// CreateVMTask makes a VM, off, on the host named or on the first of the pool's cluster that can take it.
func (g *gateway) CreateVMTask(ctx *simulator.Context, req *types.CreateVM_Task) soap.HasFault {
	body := &methods.CreateVM_TaskBody{}
	vc := g.vc
	host, ok := vc.hostFor(req.Host, req.Pool)
	if !ok {
		body.Fault_ = simulator.Fault("", &types.InvalidArgument{InvalidProperty: "host"})
		return body
	}
	spec := VM{
		Name: req.Config.Name, UUID: req.Config.InstanceUuid, VCPUs: int(req.Config.NumCPUs), GuestID: req.Config.GuestId,
		MemoryBytes: float64(req.Config.MemoryMB) * (1 << 20), Off: true,
	}
	w := work{
		entity: req.This, entityName: "vm", name: "CreateVM_Task", descriptionID: "Folder.createVm",
		run: func(_ context.Context, t *task) (types.AnyType, types.BaseMethodFault) {
			return vc.createVM(t.ctx, host, req.Pool, spec), nil
		},
	}
	body.Res = &types.CreateVM_TaskResponse{Returnval: vc.start(vc.newTask(ctx.Session.UserName, w), w)}
	return body
}

func (vc *VCenter) hostFor(host *types.ManagedObjectReference, pool types.ManagedObjectReference) (types.ManagedObjectReference, bool) {
	owner := vc.ownerOf(pool)
	for _, ref := range vc.Hosts() {
		h := vc.hostState(ref)
		if host != nil && *host == ref || host == nil && h.cluster == owner && h.connected && !h.maintenance {
			return ref, true
		}
	}
	return types.ManagedObjectReference{}, false
}

// DestroyVM takes VMs out, at once and whatever their state. Those that do not exist are an error after the others are gone.
func (vc *VCenter) DestroyVM(refs ...types.ManagedObjectReference) error {
	ctx := vc.own()
	var missing error
	for _, ref := range refs {
		if !vc.destroy(ctx, ref) {
			missing = fmt.Errorf("destroy VM %s: %w", ref.Value, errNoSuch)
		}
	}
	return missing
}

func (vc *VCenter) destroy(ctx *simulator.Context, ref types.ManagedObjectReference) bool {
	vc.shape.Lock()
	vm, ok := vc.reg.Get(ref).(*simulator.VirtualMachine)
	if !ok {
		vc.shape.Unlock()
		return false
	}
	state := vc.vmState(vm)
	vc.reg.Remove(ctx, ref)
	vc.usage.removed(ref)
	folder := vc.place.vms
	ctx.WithLock(folder, func() {
		without := slices.DeleteFunc(slices.Clone(folder.ChildEntity), func(child types.ManagedObjectReference) bool { return child == ref })
		ctx.Update(folder, []types.PropertyChange{{Name: "childEntity", Val: without}})
	})
	vc.listVM(ctx, state.host, ref, false)
	vc.listVM(ctx, state.pool, ref, false)
	vc.shape.Unlock()

	vc.post(ctx, &types.VmRemovedEvent{VmEvent: vc.vmEvent(state, state.host)})
	return true
}

// DestroyTask destroys a VM that is off.
func (g *gateway) DestroyTask(ctx *simulator.Context, req *types.Destroy_Task) soap.HasFault {
	body := &methods.Destroy_TaskBody{}
	ref, fault := g.vc.vmTask(ctx, req.This, "Destroy_Task", "VirtualMachine.destroy", func(t *task, vm *simulator.VirtualMachine) types.BaseMethodFault {
		if g.vc.vmState(vm).on {
			return &types.InvalidPowerState{
				RequestedState: types.VirtualMachinePowerStatePoweredOff, ExistingState: types.VirtualMachinePowerStatePoweredOn,
			}
		}
		if !g.vc.destroy(t.ctx, req.This) {
			return &types.ManagedObjectNotFound{Obj: req.This}
		}
		return nil
	})
	if body.Fault_ = fault; fault == nil {
		body.Res = &types.Destroy_TaskResponse{Returnval: ref}
	}
	return body
}

// vmTask starts a short task on a VM that no migration is moving.
func (vc *VCenter) vmTask(ctx *simulator.Context, ref types.ManagedObjectReference, name, id string, run func(*task, *simulator.VirtualMachine) types.BaseMethodFault) (types.ManagedObjectReference, *soap.Fault) {
	vm, ok := vc.reg.Get(ref).(*simulator.VirtualMachine)
	if !ok {
		return types.ManagedObjectReference{}, notFound(ref)
	}
	if other, busy := vc.tasks.busy(ref); busy {
		return types.ManagedObjectReference{}, simulator.Fault("Another task is already in progress.", &types.TaskInProgress{Task: other})
	}
	w := work{
		entity: ref, entityName: vc.vmState(vm).name, name: name, descriptionID: id,
		run: func(ctx context.Context, t *task) (types.AnyType, types.BaseMethodFault) {
			if fault := t.sleep(ctx, time.Second); fault != nil {
				return nil, fault
			}
			return nil, run(t, vm)
		},
	}
	return vc.start(vc.newTask(ctx.Session.UserName, w), w), nil
}

// PowerOn switches a VM on, at once.
func (vc *VCenter) PowerOn(vm types.ManagedObjectReference) error { return vc.power(vm, true) }

// PowerOff switches a VM off, at once.
func (vc *VCenter) PowerOff(vm types.ManagedObjectReference) error { return vc.power(vm, false) }

func (vc *VCenter) power(ref types.ManagedObjectReference, on bool) error {
	vm, ok := vc.reg.Get(ref).(*simulator.VirtualMachine)
	if !ok {
		return fmt.Errorf("power VM %s: %w", ref.Value, errNoSuch)
	}
	if fault := vc.switchPower(vc.own(), vm, on); fault != nil {
		return fmt.Errorf("power VM %s: %s", ref.Value, describe(fault))
	}
	return nil
}

// PowerOnVMTask switches a VM on.
func (g *gateway) PowerOnVMTask(ctx *simulator.Context, req *types.PowerOnVM_Task) soap.HasFault {
	body := &methods.PowerOnVM_TaskBody{}
	ref, fault := g.vc.vmTask(ctx, req.This, "PowerOnVM_Task", "VirtualMachine.powerOn", func(t *task, vm *simulator.VirtualMachine) types.BaseMethodFault {
		return g.vc.switchPower(t.ctx, vm, true)
	})
	if body.Fault_ = fault; fault == nil {
		body.Res = &types.PowerOnVM_TaskResponse{Returnval: ref}
	}
	return body
}

// PowerOffVMTask switches a VM off.
func (g *gateway) PowerOffVMTask(ctx *simulator.Context, req *types.PowerOffVM_Task) soap.HasFault {
	body := &methods.PowerOffVM_TaskBody{}
	ref, fault := g.vc.vmTask(ctx, req.This, "PowerOffVM_Task", "VirtualMachine.powerOff", func(t *task, vm *simulator.VirtualMachine) types.BaseMethodFault {
		return g.vc.switchPower(t.ctx, vm, false)
	})
	if body.Fault_ = fault; fault == nil {
		body.Res = &types.PowerOffVM_TaskResponse{Returnval: ref}
	}
	return body
}

func (vc *VCenter) switchPower(ctx *simulator.Context, vm *simulator.VirtualMachine, on bool) types.BaseMethodFault {
	state := vc.vmState(vm)
	host := vc.hostState(state.host)
	power, guest, tools := types.VirtualMachinePowerStatePoweredOff, types.VirtualMachineGuestStateNotRunning, types.VirtualMachineToolsStatusToolsNotRunning
	if on {
		power, guest, tools = types.VirtualMachinePowerStatePoweredOn, types.VirtualMachineGuestStateRunning, types.VirtualMachineToolsStatusToolsOk
	}
	switch {
	case state.on == on:
		return &types.InvalidPowerState{RequestedState: power, ExistingState: power}
	case state.template:
		return &types.NotSupported{}
	case on && (host.maintenance || !host.connected):
		return &types.InvalidHostState{Host: &host.ref}
	}
	changes := []types.PropertyChange{
		{Name: "runtime.powerState", Val: power},
		{Name: "summary.runtime.powerState", Val: power},
		{Name: "guest.guestState", Val: string(guest)},
		{Name: "guest.toolsStatus", Val: tools},
	}
	if on {
		now := vc.clock.Now().UTC()
		changes = append(changes, types.PropertyChange{Name: "runtime.bootTime", Val: &now}, types.PropertyChange{Name: "summary.runtime.bootTime", Val: &now})
	}
	vc.reg.AtomicUpdate(ctx, vm, changes)
	vc.usage.powered(state.ref, on)
	if on {
		vc.post(ctx, &types.VmPoweredOnEvent{VmEvent: vc.vmEvent(state, state.host)})
	} else {
		vc.post(ctx, &types.VmPoweredOffEvent{VmEvent: vc.vmEvent(state, state.host)})
	}
	return nil
}

// SetMaintenance puts a host into maintenance or takes it out, at once; its VMs stay.
func (vc *VCenter) SetMaintenance(host types.ManagedObjectReference, in bool) error {
	if _, ok := vc.reg.Get(host).(*simulator.HostSystem); !ok {
		return fmt.Errorf("maintenance of host %s: %w", host.Value, errNoSuch)
	}
	vc.setMaintenance(vc.own(), host, in)
	return nil
}

func (vc *VCenter) setMaintenance(ctx *simulator.Context, host types.ManagedObjectReference, in bool) {
	vc.updateHost(ctx, host, []types.PropertyChange{
		{Name: "runtime.inMaintenanceMode", Val: in},
		{Name: "summary.runtime.inMaintenanceMode", Val: in},
	})
	if in {
		vc.post(ctx, &types.EnteredMaintenanceModeEvent{HostEvent: vc.hostEvent(host)})
	} else {
		vc.post(ctx, &types.ExitMaintenanceModeEvent{HostEvent: vc.hostEvent(host)})
	}
}

// updateHost changes a host, and its cluster's summary with it.
func (vc *VCenter) updateHost(ctx *simulator.Context, ref types.ManagedObjectReference, changes []types.PropertyChange) {
	vc.shape.Lock()
	defer vc.shape.Unlock()
	vc.reg.AtomicUpdate(ctx, vc.reg.Get(ref), changes)
	cluster := vc.reg.Get(vc.hostState(ref).cluster).(*simulator.ClusterComputeResource)
	summary := vc.clusterSummary(cluster)
	vc.reg.AtomicUpdate(ctx, cluster, []types.PropertyChange{{Name: "summary", Val: summary}})
}

// EnterMaintenanceModeTask waits until no VM runs on the host: nobody is evacuated, as with DRS that is not fully automatic.
func (g *gateway) EnterMaintenanceModeTask(ctx *simulator.Context, req *types.EnterMaintenanceMode_Task) soap.HasFault {
	body := &methods.EnterMaintenanceMode_TaskBody{}
	vc, deadline := g.vc, g.vc.clock.Now().Add(time.Duration(req.Timeout)*time.Second)
	run := func(ctx context.Context, t *task) (types.AnyType, types.BaseMethodFault) {
		vc.post(t.ctx, &types.EnteringMaintenanceModeEvent{HostEvent: vc.hostEvent(req.This)})
		for vc.usage.committed(req.This) > 0 {
			if req.Timeout > 0 && vc.clock.Now().After(deadline) {
				return nil, &types.Timedout{}
			}
			if fault := t.sleep(ctx, time.Second); fault != nil {
				return nil, fault
			}
		}
		vc.setMaintenance(t.ctx, req.This, true)
		return nil, nil
	}
	ref, fault := vc.hostTask(ctx, req.This, "EnterMaintenanceMode_Task", "HostSystem.enterMaintenanceMode", run)
	if body.Fault_ = fault; fault == nil {
		body.Res = &types.EnterMaintenanceMode_TaskResponse{Returnval: ref}
	}
	return body
}

// ExitMaintenanceModeTask takes a host out of maintenance.
func (g *gateway) ExitMaintenanceModeTask(ctx *simulator.Context, req *types.ExitMaintenanceMode_Task) soap.HasFault {
	body := &methods.ExitMaintenanceMode_TaskBody{}
	run := func(_ context.Context, t *task) (types.AnyType, types.BaseMethodFault) {
		g.vc.setMaintenance(t.ctx, req.This, false)
		return nil, nil
	}
	ref, fault := g.vc.hostTask(ctx, req.This, "ExitMaintenanceMode_Task", "HostSystem.exitMaintenanceMode", run)
	if body.Fault_ = fault; fault == nil {
		body.Res = &types.ExitMaintenanceMode_TaskResponse{Returnval: ref}
	}
	return body
}

// DisconnectHostTask breaks the connection to a host, as an administrator does who wants it left alone.
func (g *gateway) DisconnectHostTask(ctx *simulator.Context, req *types.DisconnectHost_Task) soap.HasFault {
	body := &methods.DisconnectHost_TaskBody{}
	ref, fault := g.connect(ctx, req.This, "DisconnectHost_Task", "HostSystem.disconnect", types.HostSystemConnectionStateDisconnected)
	if body.Fault_ = fault; fault == nil {
		body.Res = &types.DisconnectHost_TaskResponse{Returnval: ref}
	}
	return body
}

// ReconnectHostTask restores it.
func (g *gateway) ReconnectHostTask(ctx *simulator.Context, req *types.ReconnectHost_Task) soap.HasFault {
	body := &methods.ReconnectHost_TaskBody{}
	ref, fault := g.connect(ctx, req.This, "ReconnectHost_Task", "HostSystem.reconnect", types.HostSystemConnectionStateConnected)
	if body.Fault_ = fault; fault == nil {
		body.Res = &types.ReconnectHost_TaskResponse{Returnval: ref}
	}
	return body
}

func (g *gateway) connect(ctx *simulator.Context, host types.ManagedObjectReference, name, id string, state types.HostSystemConnectionState) (types.ManagedObjectReference, *soap.Fault) {
	return g.vc.hostTask(ctx, host, name, id, func(context.Context, *task) (types.AnyType, types.BaseMethodFault) {
		if err := g.vc.SetConnection(host, state); err != nil {
			return nil, &types.ManagedObjectNotFound{Obj: host}
		}
		return nil, nil
	})
}

func (vc *VCenter) hostTask(ctx *simulator.Context, host types.ManagedObjectReference, name, id string, run func(context.Context, *task) (types.AnyType, types.BaseMethodFault)) (types.ManagedObjectReference, *soap.Fault) {
	if _, ok := vc.reg.Get(host).(*simulator.HostSystem); !ok {
		return types.ManagedObjectReference{}, notFound(host)
	}
	w := work{entity: host, entityName: vc.hostState(host).name, name: name, descriptionID: id, cancelable: true, run: run}
	return vc.start(vc.newTask(ctx.Session.UserName, w), w), nil
}

// SetConnection breaks the connection between the vCenter and a host (disconnected, notResponding) or restores it. Nothing is
// measured while it is broken; what was shown last stays.
func (vc *VCenter) SetConnection(host types.ManagedObjectReference, state types.HostSystemConnectionState) error {
	obj, ok := vc.reg.Get(host).(*simulator.HostSystem)
	if !ok {
		return fmt.Errorf("connection of host %s: %w", host.Value, errNoSuch)
	}
	ctx := vc.own()
	connected := state == types.HostSystemConnectionStateConnected
	vms := types.VirtualMachineConnectionStateDisconnected
	if connected {
		vms = types.VirtualMachineConnectionStateConnected
	}
	vc.updateHost(ctx, host, []types.PropertyChange{
		{Name: "runtime.connectionState", Val: state},
		{Name: "summary.runtime.connectionState", Val: state},
	})
	vc.usage.connected(host, connected)
	var on []types.ManagedObjectReference
	ctx.WithLock(obj, func() { on = slices.Clone(obj.Vm) })
	for _, ref := range on {
		if vm, ok := vc.reg.Get(ref).(mo.Entity); ok {
			vc.reg.AtomicUpdate(ctx, vm, []types.PropertyChange{
				{Name: "runtime.connectionState", Val: vms},
				{Name: "summary.runtime.connectionState", Val: vms},
			})
		}
	}
	return nil
}

// SetDRS reconfigures a cluster's DRS.
func (vc *VCenter) SetDRS(cluster types.ManagedObjectReference, drs DRS) error {
	return vc.reconfigure(cluster, func(config *types.ClusterConfigInfoEx) { config.DrsConfig = drs.info() })
}

// SetHA reconfigures a cluster's HA.
func (vc *VCenter) SetHA(cluster types.ManagedObjectReference, ha HA) error {
	return vc.reconfigure(cluster, func(config *types.ClusterConfigInfoEx) { config.DasConfig = ha.info() })
}

func (vc *VCenter) reconfigure(ref types.ManagedObjectReference, f func(*types.ClusterConfigInfoEx)) error {
	cluster, ok := vc.reg.Get(ref).(*simulator.ClusterComputeResource)
	if !ok {
		return fmt.Errorf("reconfigure cluster %s: %w", ref.Value, errNoSuch)
	}
	ctx := vc.own()
	ctx.WithLock(cluster, func() {
		config := *cluster.ConfigurationEx.(*types.ClusterConfigInfoEx)
		f(&config)
		ctx.Update(cluster, []types.PropertyChange{{Name: "configurationEx", Val: &config}})
	})
	return nil
}

// Rename gives a VM another name.
func (vc *VCenter) Rename(ref types.ManagedObjectReference, name string) error {
	vm, ok := vc.reg.Get(ref).(*simulator.VirtualMachine)
	if !ok {
		return fmt.Errorf("rename VM %s: %w", ref.Value, errNoSuch)
	}
	vc.reg.AtomicUpdate(vc.own(), vm, []types.PropertyChange{
		{Name: "name", Val: name}, {Name: "config.name", Val: name}, {Name: "summary.config.name", Val: name},
	})
	return nil
}

// SetVMConnection makes a VM orphaned, inaccessible and so on, or well again.
func (vc *VCenter) SetVMConnection(ref types.ManagedObjectReference, state types.VirtualMachineConnectionState) error {
	vm, ok := vc.reg.Get(ref).(*simulator.VirtualMachine)
	if !ok {
		return fmt.Errorf("connection of VM %s: %w", ref.Value, errNoSuch)
	}
	vc.reg.AtomicUpdate(vc.own(), vm, []types.PropertyChange{
		{Name: "runtime.connectionState", Val: state}, {Name: "summary.runtime.connectionState", Val: state},
	})
	return nil
}
