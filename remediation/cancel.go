package remediation

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// cancelledIt is what is said of who stopped an action.
const cancelledIt = "cancelled it"

// errNoCancel says that an executor is no Canceler.
var errNoCancel = errors.New("nothing is known that gives up a migration under way on this platform")

// Cancel stops an action at a person's word. What was not sent is withdrawn. What the platform has is given up there: the request is
// stored now, Run sends it as soon as the task is known, and where the VM then is says how the action ended. Asking again has a
// request that was sent already sent again. ErrRefused is that there is nothing to stop, or nothing that could.
func (e *Engine) Cancel(ctx context.Context, id, by, why string) (Action, error) {
	if err := e.Recover(ctx); err != nil {
		return Action{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	it, ok := e.live[id]
	because := ""
	switch {
	case !ok:
		because = "it is not under way"
	case by == "":
		because = "nobody is named who cancels it"
	default:
		because = e.unstoppable(it.Action)
	}
	if because != "" {
		return Action{}, fmt.Errorf("cancel action %s: %w: %s", id, ErrRefused, because)
	}
	var err error
	switch unsent := !it.CancelAt.IsZero() && it.CancelSentAt.IsZero(); {
	case it.State == Planned || it.State == Approved:
		err = e.stepLocked(it, says(by, cancelledIt, why), func(a *Action) {
			a.State, a.Error, a.CancelBy, a.CancelAt = Withdrawn, says(by, cancelledIt, why), by, e.now()
		})
	case !unsent:
		err = e.stepLocked(it, says(by, "asks to cancel it", why), func(a *Action) {
			a.CancelBy, a.CancelAt, a.CancelSentAt, a.CancelError = by, e.now(), time.Time{}, ""
		})
	}
	return it.Action, err
}

// unstoppable is why an action that is not over cannot be cancelled, empty if it can.
func (e *Engine) unstoppable(a Action) string {
	switch a.State {
	case Planned, Approved, Claimed:
		return ""
	case Starting, Started:
		ex, ok := e.executor(a)
		if !ok {
			return noCredential(a.VM.Source)
		}
		if _, ok := ex.(Canceler); !ok {
			return fmt.Sprintf("source %s: %v", a.VM.Source, errNoCancel)
		}
		return ""
	case Verifying:
		return "the platform says that it is finished"
	case Unknown:
		return "nobody knows whether it still runs: look at the platform, stop it there, and say how it ended"
	}
	return "it is " + string(a.State)
}

// withdrawn ends an action that was cancelled before anything was sent, and reports whether it was.
func (e *Engine) withdrawn(it *item) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.withdrawnLocked(it)
}

func (e *Engine) withdrawnLocked(it *item) bool {
	if it.CancelAt.IsZero() || !notStarted(it.State) {
		return false
	}
	it.busy = false
	// Not taken: it stays claimed, or approved, and comes here again.
	_ = e.stepLocked(it, "nothing was sent", func(a *Action) { a.State, a.Error = Withdrawn, says(a.CancelBy, cancelledIt, "") })
	return true
}

// cancelDue writes down that the platform is going to be asked, once for each request, if its task is known and runs.
func (e *Engine) cancelDue(it *item) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.live[it.ID] != it || it.State != Started || it.CancelAt.IsZero() || !it.CancelSentAt.IsZero() {
		return false
	}
	err := e.stepLocked(it, "the platform is asked to give up task "+it.TaskRef, func(a *Action) { a.CancelSentAt = e.now() })
	return err == nil
}

// cancel asks the platform, beside the worker that waits for the task. What it then does is that one's to see.
func (e *Engine) cancel(ctx context.Context, it *item) {
	a := it.snapshot(e)
	ex, _ := e.executor(a)
	err := errNoCancel
	if c, ok := ex.(Canceler); ok {
		err = c.Cancel(ctx, a)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.live[it.ID] != it || it.State.Final() || ctx.Err() != nil: // how it ended says all; or the agent stops
	case err == nil:
		_ = e.stepLocked(it, "the platform takes the request to cancel it", func(*Action) {})
	case answerLost(err):
		_ = e.stepLocked(it, fmt.Sprintf("nobody knows whether the platform takes the request to cancel it: %v", err), func(*Action) {})
	default:
		_ = e.stepLocked(it, fmt.Sprintf("not cancelled: %v", err), func(a *Action) { a.CancelError = err.Error() })
	}
}

// stopped reports whether a migration that left its VM on its source did so because a person wanted it.
func stopped(a Action) bool { return !a.CancelSentAt.IsZero() && a.CancelError == "" }
