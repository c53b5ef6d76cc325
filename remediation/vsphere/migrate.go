package vsphere

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	platform "github.com/protip/protip/internal/platform/vsphere"
	"github.com/protip/protip/remediation"
)

// send makes the one call that starts a migration and returns its task. Once it is on its way, only its own deadline ends the
// wait for its answer: an agent that stops still wants the task's ref.
func (e *Executor) send(ctx context.Context, a remediation.Action) (task string, err error) {
	if ctx.Err() != nil {
		return "", fmt.Errorf("nothing was sent: %v", ctx.Err())
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.opts.Timeout)
	defer cancel()
	ctx = context.WithValue(ctx, types.ID{}, "protip-"+a.ID) // the vCenter's log shows it as opID

	lost := false // a call is on its way, or its answer never came
	err = e.session.Do(ctx, func(ctx context.Context, c *platform.Conn) error {
		ref, err := migrate(ctx, c, a)
		lost = err != nil && !refused(err) && !unsent(err)
		task = ref.Value
		return err
	})
	switch {
	case lost:
		return "", fmt.Errorf("%w: %w", remediation.ErrUndecided, err)
	case err != nil && refused(err):
		return "", fmt.Errorf("refused: %w%s", err, typeOf(err))
	case err != nil:
		return "", fmt.Errorf("nothing was sent: %v", err) // without what it wraps: a broken connection would read as a lost answer
	case task == "":
		return "", fmt.Errorf("%w: the vCenter named no task", remediation.ErrUndecided)
	}
	e.log.Info("migration started", "action", a.ID, "vm", a.VMName, "from", a.FromName, "to", a.ToName, "task", task)
	return task, nil
}

// migrate calls MigrateVM_Task, and RelocateVM_Task if the vCenter says that it does not offer the former.
func migrate(ctx context.Context, c *platform.Conn, a remediation.Action) (task types.ManagedObjectReference, err error) {
	host := hostRef(a.To)
	res, err := methods.MigrateVM_Task(ctx, c, &types.MigrateVM_Task{
		This: vmRef(a), Host: &host,
		Priority: types.VirtualMachineMovePriorityDefaultPriority,
		State:    types.VirtualMachinePowerStatePoweredOn,
	})
	if err == nil {
		return res.Returnval, nil
	}
	if !notOffered(err) {
		return task, err
	}
	moved, err := methods.RelocateVM_Task(ctx, c, &types.RelocateVM_Task{
		This: vmRef(a), Spec: types.VirtualMachineRelocateSpec{Host: &host},
		Priority: types.VirtualMachineMovePriorityDefaultPriority,
	})
	if err != nil {
		return task, err
	}
	return moved.Returnval, nil
}

// follow waits for the task's end. It outlives sessions and short outages; ctx ends the wait and not the task.
func (e *Executor) follow(ctx context.Context, a remediation.Action, ref string, report func(remediation.Progress) error) error {
	best, queued := 0.0, a.Queued
	readable := time.Now()
	for {
		s, err := e.task(ctx, ref)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("goes on unwatched: %w", ctx.Err())
		case platform.IsGone(err):
			return e.settle(ctx, a)
		case err != nil && time.Since(readable) > e.opts.Patience:
			return fmt.Errorf("%w: not readable for %s: %w", remediation.ErrUndecided, e.opts.Patience, err)
		case err != nil:
			e.log.Debug("task not readable", "task", ref, "err", err)
		case s.state == types.TaskInfoStateError:
			return errors.New(s.words)
		case s.state == types.TaskInfoStateSuccess:
			return report(remediation.Progress{TaskRef: ref, Ratio: 1})
		default:
			readable = time.Now()
			if waits := s.state == types.TaskInfoStateQueued; s.progress > best || waits != queued {
				best, queued = max(best, s.progress), waits
				if err := report(remediation.Progress{TaskRef: ref, Ratio: best, Queued: queued}); err != nil {
					return fmt.Errorf("goes on unrecorded: %w: %w", remediation.ErrUndecided, err)
				}
			}
		}
		if err := sleep(ctx, e.opts.Poll); err != nil {
			return fmt.Errorf("goes on unwatched: %w", err)
		}
	}
}

// settle decides by where the VM is what became of a task that the vCenter has forgotten.
func (e *Executor) settle(ctx context.Context, a remediation.Action) error {
	host, err := e.whereIs(ctx, a)
	switch {
	case err != nil:
		return fmt.Errorf("%w: the vCenter forgot the task, and %w", remediation.ErrUndecided, err)
	case host == a.To:
		return nil
	case host == a.From:
		return fmt.Errorf("the vCenter forgot the task, and %s is still on %s", a.VMName, a.FromName)
	case host.IsZero():
		return fmt.Errorf("%w: the vCenter knows neither the task nor %s any more", remediation.ErrUndecided, a.VMName)
	}
	return fmt.Errorf("%w: the vCenter forgot the task, and %s is on %s", remediation.ErrUndecided, a.VMName, host)
}

// taskState is what a task says of itself.
type taskState struct {
	state    types.TaskInfoState
	progress float64 // 0..1
	words    string  // why it failed
	result   any
}

func (s taskState) over() bool {
	return s.state == types.TaskInfoStateSuccess || s.state == types.TaskInfoStateError
}

// task reads a task's state.
func (e *Executor) task(ctx context.Context, ref string) (taskState, error) {
	p, err := e.properties(ctx, taskRef(ref), "info.state", "info.progress", "info.error", "info.result")
	if err != nil {
		return taskState{}, err
	}
	state, ok := platform.Get[types.TaskInfoState](p, "info.state")
	if !ok {
		return taskState{}, fmt.Errorf("task %s: %w", ref, errUnseen)
	}
	s := taskState{state: state, result: p["info.result"]}
	if percent, ok := platform.Get[int32](p, "info.progress"); ok {
		s.progress = float64(min(max(percent, 0), 100)) / 100
	}
	if f, ok := platform.Get[types.LocalizedMethodFault](p, "info.error"); ok {
		s.words = faultWords(&f)
	} else if state == types.TaskInfoStateError {
		s.words = faultWords(nil)
	}
	return s, nil
}

// refused reports whether the vCenter answered, and the answer is no.
func refused(err error) bool {
	var f types.BaseMethodFault
	_, ok := fault.As(err, &f)
	return ok
}

// notOffered reports whether the vCenter does not know the method.
func notOffered(err error) bool {
	return fault.Is(err, &types.MethodNotFound{}) || fault.Is(err, &types.NotImplemented{})
}

// unsent reports whether the connection for the call was never made.
func unsent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
