package remediation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/protip/protip/internal/inventory"
)

// carryOut is a worker's whole life with an action that was just claimed: ask, write down, call.
func (e *Engine) carryOut(ctx context.Context, it *item) {
	a := it.snapshot(e)
	if a.Kind == WebhookCall {
		e.callWebhook(ctx, it)
		return
	}
	ex, ok := e.executor(a)
	if !ok {
		e.fail(it, noCredential(a.VM.Source))
		return
	}
	err := ex.Check(ctx, a)
	switch {
	case e.withdrawn(it):
	case ctx.Err() != nil:
		e.giveBack(it)
	case errors.Is(err, ErrNoOp):
		e.fail(it, fmt.Sprintf("%s is on %s already; nothing was sent", a.VMName, a.ToName))
	case err != nil:
		e.fault(it, Failed, fmt.Sprintf("the platform would not do it, nothing was sent: %v", err))
	case a.DryRun:
		e.step(it, "dry run: checked, nothing was sent", func(a *Action) { a.State, a.Progress = Done, 1 })
		e.release(it)
	default:
		e.begin(ctx, ex, it)
	}
}

// begin is the point of no return: once Starting is on disk, only the platform can say whether something was sent.
func (e *Engine) begin(ctx context.Context, ex Executor, it *item) {
	if err := e.stillRight(it.snapshot(e)); err != nil {
		e.callOff(it, err)
		return
	}
	if e.commit(it) {
		e.call(ctx, ex, it)
	}
}

// commit writes the intent down. A pause that was granted before it is honoured: both hold the same lock.
func (e *Engine) commit(it *item) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.withdrawnLocked(it) {
		return false
	}
	why := e.barred(it)
	if why == "" {
		err := e.stepLocked(it, "", func(a *Action) { a.State, a.StartingAt = Starting, e.now() })
		it.busy = err == nil
		return err == nil
	}
	it.busy = false
	_ = e.stepLocked(it, why, failure(why)) // not taken: it stays claimed and is tried again
	return false
}

// call has the executor carry the action out, or wait for the task that it started before, and deals with its end.
func (e *Engine) call(ctx context.Context, ex Executor, it *item) {
	var unrecorded error
	err := ex.Do(ctx, it.snapshot(e), func(p Progress) error {
		unrecorded = e.progress(it, p)
		return unrecorded
	})
	switch {
	case err == nil || errors.Is(err, ErrNoOp):
		e.toVerifying(it, "the platform says it is finished")
	case ctx.Err() != nil: // the agent stops: the task goes on, and the next start takes it up
		e.giveBack(it)
	default:
		if unrecorded == nil && !answerLost(err) {
			e.remember(it, err)
		}
		e.look(ctx, ex, it)
	}
}

// progress stores the task's ref before anything else happens, and progress in tenths.
func (e *Engine) progress(it *item, p Progress) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case p.TaskRef != "" && it.TaskRef == "":
		return e.stepLocked(it, "task "+p.TaskRef, func(a *Action) {
			a.State, a.TaskRef, a.Progress, a.Queued = Started, p.TaskRef, p.Ratio, p.Queued
		})
	case p.TaskRef != "" && p.TaskRef != it.TaskRef:
		return fmt.Errorf("executor reports task %s for action %s, whose task is %s", p.TaskRef, it.ID, it.TaskRef)
	case p.Queued != it.Queued:
		note := "its turn has come at the platform"
		if p.Queued {
			note = "waits for its turn at the platform"
		}
		return e.stepLocked(it, note, func(a *Action) { a.Queued, a.Progress = p.Queued, min(p.Ratio, 1) })
	case p.Ratio >= it.Progress+0.1:
		return e.stepLocked(it, "", func(a *Action) { a.Progress = min(p.Ratio, 1) })
	}
	return nil
}

// takeUp goes on with an action that may have been sent and that no worker has: after a restart, after a lost answer, or
// after the journal did not take a step. It never sends: a known task is waited for, else the platform is read.
func (e *Engine) takeUp(ctx context.Context, it *item) {
	a := it.snapshot(e)
	ex, ok := e.executor(a)
	switch {
	case a.Kind == WebhookCall:
		e.fault(it, Unknown, fmt.Sprintf("the agent ended while it called %s: nobody knows whether the call arrived", a.ToName))
	case !ok:
		e.fault(it, Unknown, noCredential(a.VM.Source)+", so nobody can read what became of it")
	case a.TaskRef != "" && it.refusalOf(e) == nil:
		e.call(ctx, ex, it)
	default:
		e.look(ctx, ex, it)
	}
}

// look reads the platform and acts on what it shows. What shows nothing is looked at again, until patience is over.
func (e *Engine) look(ctx context.Context, ex Executor, it *item) {
	a := it.snapshot(e)
	s, err := ex.Find(ctx, a)
	if err != nil {
		e.o.Log.Warn("cannot read where the VM is", "action", a.ID, "vm", a.VMName, "source", a.VM.Source, "err", err)
		e.giveBack(it)
		return
	}
	f := read(a, s, it.refusalOf(e))
	switch f.next {
	case Started:
		e.adopt(it, f)
	case Verifying:
		e.toVerifying(it, f.note)
	case Failed, RolledBack:
		e.fault(it, f.next, f.note)
	default:
		e.undecided(it, a)
	}
}

// adopt makes the platform's task ours; the next round waits for it.
func (e *Engine) adopt(it *item, f finding) {
	e.remember(it, nil)
	a := it.snapshot(e)
	if a.State != Started || a.TaskRef != f.ref {
		e.step(it, f.note, func(a *Action) { a.State, a.TaskRef = Started, f.ref })
	}
	e.release(it)
}

func (e *Engine) undecided(it *item, a Action) {
	if e.now().Sub(a.StartingAt) < e.o.Patience {
		e.giveBack(it)
		return
	}
	e.fault(it, Unknown, fmt.Sprintf("%s is on %s and the platform knows no task of this action: nobody can tell whether it still moves. "+
		"%s stays frozen until you have looked and say how it ended", a.VMName, a.FromName, a.VMName))
}

func (e *Engine) toVerifying(it *item, note string) {
	e.step(it, note, func(a *Action) { a.State, a.VerifyingAt, a.Progress = Verifying, e.now(), 1 })
	e.release(it)
}

// verify looks for the VM in the inventory and reports whether the platform has to be read instead.
func (e *Engine) verify(it *item, a Action) (late bool) {
	vm, ok := e.o.Snapshot().VM(a.VM)
	switch {
	case ok && vm.Host == a.To:
		e.step(it, "seen on its target", func(a *Action) { a.State, a.Verified = Done, true })
	case e.hasPassed(it):
		e.step(it, "it was on its target, and somebody else has moved it on since", func(a *Action) { a.State, a.Verified = Done, true })
	case ok && vm.Host != a.From:
		e.fault(it, Failed, fmt.Sprintf("%s went elsewhere: it is on %s", a.VMName, e.hostName(vm.Host)))
	default:
		return e.now().Sub(a.VerifyingAt) > e.o.VerifyTimeout
	}
	return false
}

func (e *Engine) hasPassed(it *item) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return it.passed
}

// readLate decides an action that the inventory did not confirm in time by reading the platform.
func (e *Engine) readLate(ctx context.Context, it *item) {
	a := it.snapshot(e)
	ex, ok := e.executor(a)
	if !ok {
		e.fault(it, Unknown, "the inventory did not show the VM on its target in time, and "+noCredential(a.VM.Source))
		return
	}
	s, err := ex.Find(ctx, a)
	if err != nil {
		e.o.Log.Warn("cannot read where the VM is", "action", a.ID, "vm", a.VMName, "source", a.VM.Source, "err", err)
		e.giveBack(it)
		return
	}
	f := read(a, s, nil)
	switch {
	case s.Host == a.To && s.Down == "":
		e.step(it, "the platform shows the VM on its target; the inventory did not in time", func(a *Action) { a.State = Done })
		e.release(it)
	case f.next == Started:
		e.giveBack(it)
	case f.next == Failed || f.next == RolledBack:
		e.fault(it, f.next, f.note)
	default:
		e.fault(it, Failed, fmt.Sprintf("the platform said it was finished, but %s is still on %s", a.VMName, a.FromName))
	}
}

// fail ends an action that protip itself held back; nothing was sent.
func (e *Engine) fail(it *item, why string) {
	e.step(it, why, failure(why))
	e.release(it)
}

// callOff ends an action that would be wrong now, or is not needed any more. Nothing was sent.
func (e *Engine) callOff(it *item, err error) {
	if !errors.Is(err, ErrNotNeeded) {
		e.fail(it, err.Error())
		return
	}
	e.step(it, err.Error(), func(a *Action) { a.State, a.Error = Withdrawn, err.Error() })
	e.release(it)
}

func failure(why string) func(*Action) {
	return func(a *Action) { a.State, a.Error = Failed, why }
}

// fault ends an action that the platform refused or failed, or that cannot be decided.
func (e *Engine) fault(it *item, state State, why string) {
	e.step(it, why, func(a *Action) {
		a.State, a.Error, a.Fault = state, why, true
		if state == RolledBack && stopped(*a) {
			a.Error, a.Fault = says(a.CancelBy, cancelledIt, why), false
		}
	})
	e.release(it)
}

// release ends a worker's hold. If the journal did not take its last step, the next round tries again.
func (e *Engine) release(it *item) {
	e.mu.Lock()
	defer e.mu.Unlock()
	it.busy = false
	it.lookAt, it.looks = e.now().Add(time.Second), 0
}

func (e *Engine) remember(it *item, refusal error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	it.refusal = refusal
}

func (it *item) snapshot(e *Engine) Action {
	e.mu.Lock()
	defer e.mu.Unlock()
	return it.Action
}

func (it *item) refusalOf(e *Engine) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return it.refusal
}

func (e *Engine) hostName(id inventory.ID) string {
	if h, ok := e.o.Snapshot().Host(id); ok {
		return h.Name
	}
	return id.String()
}

func noCredential(source string) string {
	return fmt.Sprintf("source %s has no acting credential", source)
}
