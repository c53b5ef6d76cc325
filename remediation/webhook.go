package remediation

import (
	"context"
	"fmt"
)

// uncallable is why a webhook may not be called, empty if it may.
func (e *Engine) uncallable(a Action) string {
	switch {
	case e.o.Webhook == nil:
		return "there are no webhooks"
	case a.Webhook == "" || a.VM.IsZero() || a.TipID == "":
		return "it does not name a webhook, a tip and its object"
	case !a.From.IsZero() || !a.To.IsZero():
		return "a webhook moves nothing"
	}
	return e.claimed(a)
}

// callWebhook is a worker's whole life with a call: the intent is written down, then it is made, once. There is nothing to read
// afterwards: what was not answered stays unknown.
func (e *Engine) callWebhook(ctx context.Context, it *item) {
	a := it.snapshot(e)
	if a.DryRun {
		e.step(it, "dry run: nothing was called", func(a *Action) { a.State, a.Progress = Done, 1 })
		e.release(it)
		return
	}
	if !e.commit(it) {
		return
	}
	switch err := e.o.Webhook(ctx, it.snapshot(e)); {
	case err == nil:
		e.step(it, a.ToName+" took it", func(a *Action) { a.State, a.Progress = Done, 1 })
		e.release(it)
	case answerLost(err):
		e.fault(it, Unknown, fmt.Sprintf("%s was called, and whether it took it is not known: %v", a.ToName, err))
	default:
		e.fault(it, Failed, err.Error())
	}
}
