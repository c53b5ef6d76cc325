package sim

import (
	"context"
	"slices"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Mishap is what goes wrong in a migration; the zero value is nothing.
type Mishap struct {
	FailAt    int                   // percent of progress at which it fails and leaves the VM on its source; 0 is never
	Fault     types.BaseMethodFault // what it fails with; nil: MigrationFault
	NeverEnds bool                  // it stands at 50 % until somebody cancels it
}

// SetMishaps makes each migration that starts from now on ask f what goes wrong in it; nil is nothing.
func (vc *VCenter) SetMishaps(f func(vm types.ManagedObjectReference) Mishap) {
	vc.tasks.mu.Lock()
	defer vc.tasks.mu.Unlock()
	vc.tasks.mishaps = f
}

// move is a migration that is asked for.
type move struct {
	vm   types.ManagedObjectReference
	host types.ManagedObjectReference
	pool *types.ManagedObjectReference
}

// MigrateVMTask moves a VM to a host.
func (g *gateway) MigrateVMTask(ctx *simulator.Context, req *types.MigrateVM_Task) soap.HasFault {
	body := &methods.MigrateVM_TaskBody{}
	g.vc.counts.migration(req.This)
	ref, fault := g.vc.migrate(ctx.Session.UserName, "MigrateVM_Task", "VirtualMachine.migrate", req.This, req.Host, req.Pool)
	if body.Fault_ = fault; fault == nil {
		body.Res = &types.MigrateVM_TaskResponse{Returnval: ref}
	}
	return body
}

// RelocateVMTask moves a VM to a host. Moving its disks is not simulated and refused.
func (g *gateway) RelocateVMTask(ctx *simulator.Context, req *types.RelocateVM_Task) soap.HasFault {
	body := &methods.RelocateVM_TaskBody{}
	g.vc.counts.migration(req.This)
	if !g.vc.keepsStorage(&req.Spec) {
		body.Fault_ = simulator.Fault("", &types.NotSupported{})
		return body
	}
	ref, fault := g.vc.migrate(ctx.Session.UserName, "RelocateVM_Task", "VirtualMachine.relocate", req.This, req.Spec.Host, req.Spec.Pool)
	if body.Fault_ = fault; fault == nil {
		body.Res = &types.RelocateVM_TaskResponse{Returnval: ref}
	}
	return body
}

func (vc *VCenter) keepsStorage(spec *types.VirtualMachineRelocateSpec) bool {
	return (spec.Datastore == nil || *spec.Datastore == vc.place.datastore.Self) && len(spec.Disk) == 0 && spec.Folder == nil
}

// migrate starts the task. What is wrong with the request itself is answered at once, as is a second migration of one VM;
// what is wrong with the fleet is the task's error.
func (vc *VCenter) migrate(user, name, id string, vm types.ManagedObjectReference, host, pool *types.ManagedObjectReference) (types.ManagedObjectReference, *soap.Fault) {
	none := types.ManagedObjectReference{}
	if host == nil {
		return none, simulator.Fault("A specified parameter was not correct: host", &types.InvalidArgument{InvalidProperty: "host"})
	}
	if _, ok := vc.reg.Get(*host).(*simulator.HostSystem); !ok {
		return none, notFound(*host)
	}
	obj, ok := vc.reg.Get(vm).(*simulator.VirtualMachine)
	if !ok {
		return none, notFound(vm)
	}
	m := move{vm, *host, pool}
	w := work{
		entity: vm, entityName: vc.vmState(obj).name, name: name, descriptionID: id, cancelable: true,
		run: func(ctx context.Context, t *task) (types.AnyType, types.BaseMethodFault) {
			return nil, vc.carry(ctx, t, m)
		},
	}
	t := vc.newTask(user, w)
	t.to, t.memory = m.host, float64(vc.vmState(obj).memoryMB)*1024
	if other := vc.tasks.claim(vm, t); other != nil {
		return none, simulator.Fault("Another task is already in progress.", &types.TaskInProgress{Task: other.obj.Self})
	}
	return vc.start(t, w), nil
}

// claim notes the migration of a VM, unless there is one already, which it returns.
func (tt *taskTable) claim(vm types.ManagedObjectReference, t *task) *task {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	if other, busy := tt.migrating[vm]; busy {
		return other
	}
	if tt.migrating == nil {
		tt.migrating = map[types.ManagedObjectReference]*task{}
	}
	tt.migrating[vm] = t
	return nil
}

func (tt *taskTable) release(vm types.ManagedObjectReference) {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	delete(tt.migrating, vm)
}

func (tt *taskTable) busy(vm types.ManagedObjectReference) (types.ManagedObjectReference, bool) {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	t, busy := tt.migrating[vm]
	if !busy {
		return types.ManagedObjectReference{}, false
	}
	return t.obj.Self, true
}

// incoming is the memory (KiB) that migrations under way, other than vm's own, will need on a host.
func (tt *taskTable) incoming(host, vm types.ManagedObjectReference) float64 {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	sum := 0.0
	for ref, t := range tt.migrating {
		if ref != vm && t.to == host {
			sum += t.memory
		}
	}
	return sum
}

// carry is the migration itself. The VM is on its source until the end, and stays there if anything goes wrong.
func (vc *VCenter) carry(ctx context.Context, t *task, m move) types.BaseMethodFault {
	defer vc.tasks.release(m.vm)
	vm, ok := vc.reg.Get(m.vm).(*simulator.VirtualMachine)
	if !ok {
		return &types.ManagedObjectNotFound{Obj: m.vm}
	}
	before := vc.vmState(vm)
	if before.host == m.host {
		return nil
	}
	if fault := vc.refuse(m); fault != nil {
		return fault
	}
	vc.post(t.ctx, &types.VmBeingHotMigratedEvent{VmEvent: vc.vmEvent(before, before.host), DestHost: *vc.hostArgument(m.host)})
	fault := vc.travel(ctx, t, m, before)
	if fault == nil {
		fault = vc.arrive(t, m)
	}
	if fault != nil {
		vc.post(t.ctx, &types.VmFailedMigrateEvent{
			VmEvent: vc.vmEvent(before, before.host), DestHost: *vc.hostArgument(m.host),
			Reason: types.LocalizedMethodFault{Fault: fault, LocalizedMessage: describe(fault)},
		})
	}
	return fault
}

// travel lets the time of the migration pass.
func (vc *VCenter) travel(ctx context.Context, t *task, m move, before vmState) types.BaseMethodFault {
	vc.tasks.mu.Lock()
	mishaps := vc.tasks.mishaps
	vc.tasks.mu.Unlock()
	var mishap Mishap
	if mishaps != nil {
		mishap = mishaps(m.vm)
	}
	whole := time.Second
	if before.on {
		whole = vc.cfg.MigrationTime(float64(before.memoryMB) * (1 << 20))
	}
	for percent := 10; percent <= 100; percent += 10 {
		if fault := t.sleep(ctx, whole/10); fault != nil {
			return fault
		}
		if mishap.FailAt > 0 && percent >= mishap.FailAt {
			if mishap.Fault != nil {
				return mishap.Fault
			}
			return &types.MigrationFault{}
		}
		if mishap.NeverEnds && percent == 50 {
			t.progress(percent)
			<-ctx.Done()
			return &types.RequestCanceled{}
		}
		t.progress(min(percent, 99))
	}
	return nil
}

// arrive puts the VM onto its new host, if that still takes it.
func (vc *VCenter) arrive(t *task, m move) types.BaseMethodFault {
	vm, ok := vc.reg.Get(m.vm).(*simulator.VirtualMachine)
	if !ok {
		return &types.ManagedObjectNotFound{Obj: m.vm}
	}
	if fault := vc.refuse(m); fault != nil {
		return fault
	}
	before := vc.vmState(vm)
	vc.shape.Lock()
	changes := []types.PropertyChange{
		{Name: "runtime.host", Val: &m.host},
		{Name: "summary.runtime.host", Val: &m.host},
	}
	if m.pool != nil && *m.pool != before.pool {
		changes = append(changes, types.PropertyChange{Name: "resourcePool", Val: m.pool})
		vc.listVM(t.ctx, before.pool, m.vm, false)
		vc.listVM(t.ctx, *m.pool, m.vm, true)
	}
	vc.reg.AtomicUpdate(t.ctx, vm, changes)
	vc.listVM(t.ctx, before.host, m.vm, false)
	vc.listVM(t.ctx, m.host, m.vm, true)
	vc.usage.moved(m.vm, m.host)
	vc.shape.Unlock()

	vc.post(t.ctx, &types.VmMigratedEvent{
		VmEvent: vc.vmEvent(before, m.host), SourceHost: *vc.hostArgument(before.host),
		SourceDatacenter: vc.datacenterArgument(), SourceDatastore: vc.datastoreArgument(),
	})
	return nil
}

// listVM puts a VM into the list of a host or a pool, or takes it out.
func (vc *VCenter) listVM(ctx *simulator.Context, of, vm types.ManagedObjectReference, in bool) {
	ctx.WithLock(of, func() {
		var list []types.ManagedObjectReference
		obj := vc.reg.Get(of)
		switch holder := obj.(type) {
		case *simulator.HostSystem:
			list = holder.Vm
		case *simulator.ResourcePool:
			list = holder.Vm
		default:
			return
		}
		list = slices.DeleteFunc(slices.Clone(list), func(ref types.ManagedObjectReference) bool { return ref == vm })
		if in {
			list = append(list, vm)
		}
		ctx.Update(obj, []types.PropertyChange{{Name: "vm", Val: list}})
	})
}

// vmState is what a VM is, read at one moment.
type vmState struct {
	ref, host, pool types.ManagedObjectReference
	name            string
	memoryMB        int32
	on, template    bool
}

func (vc *VCenter) vmState(vm *simulator.VirtualMachine) (s vmState) {
	vc.own().WithLock(vm, func() {
		s = vmState{
			ref: vm.Self, host: *vm.Runtime.Host, pool: *vm.ResourcePool, name: vm.Name, memoryMB: vm.Config.Hardware.MemoryMB,
			on: vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn, template: vm.Config.Template,
		}
	})
	return s
}

// hostState is what a host is, read at one moment.
type hostState struct {
	ref, cluster types.ManagedObjectReference
	name, model  string
	maintenance  bool
	connected    bool
	memory       int64 // bytes
}

func (vc *VCenter) hostState(ref types.ManagedObjectReference) (s hostState) {
	host := vc.reg.Get(ref).(*simulator.HostSystem)
	vc.own().WithLock(host, func() {
		s = hostState{
			ref: ref, cluster: *host.Parent, name: host.Name, model: host.Summary.Hardware.CpuModel, memory: host.Summary.Hardware.MemorySize,
			maintenance: host.Runtime.InMaintenanceMode,
			connected:   host.Runtime.ConnectionState == types.HostSystemConnectionStateConnected,
		}
	})
	return s
}

// refuse is why a host may not take a VM, nil if it may.
func (vc *VCenter) refuse(m move) types.BaseMethodFault {
	obj, ok := vc.reg.Get(m.vm).(*simulator.VirtualMachine)
	if !ok {
		return &types.ManagedObjectNotFound{Obj: m.vm}
	}
	vm := vc.vmState(obj)
	source, target := vc.hostState(vm.host), vc.hostState(m.host)
	network, unplugged := vc.missing(m.vm, m.host)
	invalid := func(host types.ManagedObjectReference) types.InvalidHostState {
		return types.InvalidHostState{Host: &host}
	}
	switch {
	case !source.connected:
		return &types.InvalidHostConnectionState{InvalidHostState: invalid(source.ref)}
	case !target.connected:
		return &types.InvalidHostConnectionState{InvalidHostState: invalid(target.ref)}
	case target.maintenance:
		fault := invalid(target.ref)
		return &fault
	case m.pool == nil && source.cluster != target.cluster, m.pool != nil && vc.ownerOf(*m.pool) != target.cluster:
		return &types.InvalidArgument{InvalidProperty: "spec.pool"}
	case !vc.reaches(m.vm, m.host):
		return &types.CannotAccessVmDisk{}
	case unplugged:
		return &types.CannotAccessNetwork{Network: &network}
	case !vm.on:
		return nil
	case source.model != target.model:
		fault := &types.CpuIncompatible{Level: 1, RegisterName: "ecx", Host: &target.ref}
		return fault
	}
	room := float64(target.memory)*vc.cfg.MemoryOvercommit - 1024*(vc.usage.committed(m.host)+vc.tasks.incoming(m.host, m.vm))
	if need := int64(vm.memoryMB) << 20; float64(need) > room {
		fault := &types.InsufficientHostMemoryCapacityFault{Unreserved: max(0, int64(room)), Requested: need}
		fault.Host = &target.ref
		return fault
	}
	return nil
}

// committed is the configured memory (KiB) of the VMs that run on a host.
func (u *usage) committed(host types.ManagedObjectReference) float64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	sum := 0.0
	for _, v := range u.vms {
		if last := v.stays[len(v.stays)-1]; v.present && last.on && last.host.ref == host {
			sum += v.memory
		}
	}
	return sum
}

// CheckMigrateTask says what MigrateVMTask would refuse.
func (g *gateway) CheckMigrateTask(ctx *simulator.Context, req *types.CheckMigrate_Task) soap.HasFault {
	body := &methods.CheckMigrate_TaskBody{}
	ref, fault := g.vc.check(ctx, "CheckMigrate_Task", "checkMigrate", req.This, req.Vm, req.Host, req.Pool)
	if body.Fault_ = fault; fault == nil {
		body.Res = &types.CheckMigrate_TaskResponse{Returnval: ref}
	}
	return body
}

// CheckRelocateTask says what RelocateVMTask would refuse.
func (g *gateway) CheckRelocateTask(ctx *simulator.Context, req *types.CheckRelocate_Task) soap.HasFault {
	body := &methods.CheckRelocate_TaskBody{}
	ref, fault := g.vc.check(ctx, "CheckRelocate_Task", "checkRelocate", req.This, req.Vm, req.Spec.Host, req.Spec.Pool)
	if body.Fault_ = fault; fault == nil {
		body.Res = &types.CheckRelocate_TaskResponse{Returnval: ref}
	}
	return body
}

func (vc *VCenter) check(ctx *simulator.Context, name, id string, checker, vm types.ManagedObjectReference, host, pool *types.ManagedObjectReference) (types.ManagedObjectReference, *soap.Fault) {
	none := types.ManagedObjectReference{}
	if _, ok := vc.reg.Get(vm).(*simulator.VirtualMachine); !ok {
		return none, notFound(vm)
	}
	if host == nil {
		return none, simulator.Fault("A specified parameter was not correct: host", &types.InvalidArgument{InvalidProperty: "host"})
	}
	if _, ok := vc.reg.Get(*host).(*simulator.HostSystem); !ok {
		return none, notFound(*host)
	}
	w := work{
		entity: checker, entityName: checker.Value, name: name, descriptionID: "VirtualMachineProvisioningChecker." + id,
		run: func(context.Context, *task) (types.AnyType, types.BaseMethodFault) {
			result := types.CheckResult{Vm: &vm, Host: host}
			if fault := vc.refuse(move{vm, *host, pool}); fault != nil {
				result.Error = []types.LocalizedMethodFault{{Fault: fault, LocalizedMessage: describe(fault)}}
			}
			return types.ArrayOfCheckResult{CheckResult: []types.CheckResult{result}}, nil
		},
	}
	return vc.start(vc.newTask(ctx.Session.UserName, w), w), nil
}
