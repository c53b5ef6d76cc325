package sim

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// taskTable is what runs now.
type taskTable struct {
	mu        sync.Mutex
	last      int
	running   map[types.ManagedObjectReference]*task // by the task's own reference
	migrating map[types.ManagedObjectReference]*task // by VM
	mishaps   func(types.ManagedObjectReference) Mishap
}

// task is a vCenter task that runs in simulated time. Its object is a stock one, so that the stock task manager, its history
// and recentTask take it for their own.
type task struct {
	vc     *VCenter
	ctx    *simulator.Context
	obj    *simulator.Task
	cancel context.CancelFunc
	to     types.ManagedObjectReference // the host that a migration leads to
	memory float64                      // KiB that a migration will need there
}

// work is what a task is for.
type work struct {
	entity        types.ManagedObjectReference
	entityName    string
	name          string // MigrateVM_Task
	descriptionID string // VirtualMachine.migrate
	cancelable    bool
	run           func(context.Context, *task) (types.AnyType, types.BaseMethodFault)
}

// newTask makes a task without starting it. References continue far above those of the stock tasks.
func (vc *VCenter) newTask(user string, w work) *task {
	vc.tasks.mu.Lock()
	vc.tasks.last++
	ref := types.ManagedObjectReference{Type: "Task", Value: fmt.Sprintf("task-%d", 1_000_000+vc.tasks.last)}
	vc.tasks.mu.Unlock()

	t := &task{vc: vc, ctx: vc.context(user), obj: &simulator.Task{}}
	t.obj.Self = ref
	t.obj.Info = types.TaskInfo{
		Key: ref.Value, Task: ref, Name: w.name, DescriptionId: w.descriptionID, Entity: &w.entity, EntityName: w.entityName,
		State: types.TaskInfoStateQueued, Cancelable: w.cancelable, QueueTime: vc.clock.Now().UTC(),
		Reason: &types.TaskReasonUser{UserName: user},
	}
	return t
}

// start registers the task and runs it in the background. The stock task manager puts it into the recentTask of its entity.
func (vc *VCenter) start(t *task, w work) types.ManagedObjectReference {
	running, cancel := context.WithCancel(vc.alive)
	t.cancel = cancel
	vc.tasks.mu.Lock()
	if vc.tasks.running == nil {
		vc.tasks.running = map[types.ManagedObjectReference]*task{}
	}
	vc.tasks.running[t.obj.Self] = t
	vc.tasks.mu.Unlock()

	vc.shape.Lock()
	t.ctx.WithLock(w.entity, func() { vc.reg.Put(t.obj) })
	vc.shape.Unlock()
	t.update(
		types.PropertyChange{Name: "info.startTime", Val: vc.clock.Now().UTC()},
		types.PropertyChange{Name: "info.state", Val: types.TaskInfoStateRunning},
	)
	vc.work.Go(func() {
		defer cancel()
		result, fault := w.run(running, t)
		t.finish(result, fault)
	})
	return t.obj.Self
}

// update changes the task's properties. The stock history reads tasks without their locks: shape keeps it off.
func (t *task) update(changes ...types.PropertyChange) {
	t.vc.shape.Lock()
	defer t.vc.shape.Unlock()
	t.vc.reg.AtomicUpdate(t.ctx, t.obj, changes)
}

func (t *task) progress(percent int) {
	t.update(types.PropertyChange{Name: "info.progress", Val: int32(percent)})
}

func (t *task) finish(result types.AnyType, fault types.BaseMethodFault) {
	t.vc.tasks.mu.Lock()
	delete(t.vc.tasks.running, t.obj.Self)
	t.vc.tasks.mu.Unlock()
	changes := []types.PropertyChange{
		{Name: "info.completeTime", Val: t.vc.clock.Now().UTC()},
		{Name: "info.cancelable", Val: false},
	}
	if result != nil {
		changes = append(changes, types.PropertyChange{Name: "info.result", Val: result})
	}
	if fault == nil {
		changes = append(changes, types.PropertyChange{Name: "info.state", Val: types.TaskInfoStateSuccess})
	} else {
		changes = append(changes,
			types.PropertyChange{Name: "info.error", Val: types.LocalizedMethodFault{Fault: fault, LocalizedMessage: describe(fault)}},
			types.PropertyChange{Name: "info.state", Val: types.TaskInfoStateError})
	}
	t.update(changes...)
}

// describe is what a vCenter would say of a fault.
func describe(fault types.BaseMethodFault) string {
	switch f := fault.(type) {
	case *types.RequestCanceled:
		return "The task was canceled by a user."
	case *types.InvalidHostState:
		return "The operation is not allowed in the current state of the host."
	case *types.InvalidHostConnectionState:
		return "The operation is not allowed in the current connection state of the host."
	case *types.InsufficientHostMemoryCapacityFault:
		return fmt.Sprintf("The host does not have sufficient memory: %d bytes requested, %d unreserved.", f.Requested, f.Unreserved)
	case *types.CpuIncompatible:
		return "The virtual machine requires hardware features that are unsupported or disabled on the target host."
	case *types.TaskInProgress:
		return "Another task is already in progress."
	default:
		return fmt.Sprintf("%T", fault)[len("*types."):]
	}
}

// CancelTask asks a running task to stop; it ends with RequestCanceled.
func (g *gateway) CancelTask(ctx *simulator.Context, req *types.CancelTask) soap.HasFault {
	g.vc.tasks.mu.Lock()
	t, running := g.vc.tasks.running[req.This]
	g.vc.tasks.mu.Unlock()
	if running {
		if !t.cancelable() {
			return &methods.CancelTaskBody{Fault_: simulator.Fault("", &types.NotSupported{})}
		}
		t.update(types.PropertyChange{Name: "info.cancelled", Val: true})
		t.cancel()
		return &methods.CancelTaskBody{Res: &types.CancelTaskResponse{}}
	}
	stock, ok := g.vc.reg.Get(req.This).(*simulator.Task)
	if !ok {
		return &methods.CancelTaskBody{Fault_: notFound(req.This)}
	}
	return stock.CancelTask(ctx, req)
}

func (t *task) cancelable() (yes bool) {
	t.vc.own().WithLock(t.obj, func() { yes = t.obj.Info.Cancelable })
	return yes
}

// The stock task history is right but reads tasks without their locks.

// CreateCollectorForTasks is the stock one while no task changes.
func (g *gateway) CreateCollectorForTasks(ctx *simulator.Context, req *types.CreateCollectorForTasks) (answer soap.HasFault) {
	g.vc.shape.RLock()
	defer g.vc.shape.RUnlock()
	m := g.vc.reg.Get(*g.vc.content().TaskManager).(*simulator.TaskManager)
	ctx.WithLock(m, func() { answer = m.CreateCollectorForTasks(ctx, req) })
	return answer
}

// ReadNextTasks is the stock one while no task changes.
func (g *gateway) ReadNextTasks(ctx *simulator.Context, req *types.ReadNextTasks) soap.HasFault {
	return g.history(ctx, req.This, &methods.ReadNextTasksBody{Fault_: notFound(req.This)}, func(c *simulator.TaskHistoryCollector) soap.HasFault {
		return c.ReadNextTasks(ctx, req)
	})
}

// ReadPreviousTasks is the stock one while no task changes.
func (g *gateway) ReadPreviousTasks(ctx *simulator.Context, req *types.ReadPreviousTasks) soap.HasFault {
	return g.history(ctx, req.This, &methods.ReadPreviousTasksBody{Fault_: notFound(req.This)}, func(c *simulator.TaskHistoryCollector) soap.HasFault {
		return c.ReadPreviousTasks(ctx, req)
	})
}

// DestroyCollector is the stock one while no task changes.
func (g *gateway) DestroyCollector(ctx *simulator.Context, req *types.DestroyCollector) soap.HasFault {
	return g.history(ctx, req.This, &methods.DestroyCollectorBody{Fault_: notFound(req.This)}, func(c *simulator.TaskHistoryCollector) soap.HasFault {
		return c.DestroyCollector(ctx, req)
	})
}

// history asks a stock collector of tasks while no task changes; missing is the answer if the session has none of that name.
func (g *gateway) history(ctx *simulator.Context, collector types.ManagedObjectReference, missing soap.HasFault, ask func(*simulator.TaskHistoryCollector) soap.HasFault) soap.HasFault {
	g.vc.shape.RLock()
	defer g.vc.shape.RUnlock()
	c, ok := ctx.Session.Get(collector).(*simulator.TaskHistoryCollector)
	if !ok {
		return missing
	}
	return ask(c)
}

// sleep waits in simulated time and answers RequestCanceled when the task is canceled.
func (t *task) sleep(ctx context.Context, d time.Duration) types.BaseMethodFault {
	if t.vc.clock.Sleep(ctx, d) != nil {
		return &types.RequestCanceled{}
	}
	return nil
}
