package remediation

import (
	"context"
	"fmt"
	"time"
)

// breaker stops what no person asked for after faults, or plans that did not help, in a row. It closes when a person resumes,
// or when what a person had done while it was open worked: a tip's plan that helped, or a move without a tip that arrived. What was under way by itself when it opened cannot
// close it.
type breaker struct {
	limit int
	bad   int // in a row
	state Breaker
	last  event
}

// event is something that speaks for or against going on.
type event struct {
	at   time.Time
	bad  bool
	by   string
	what string
	plan string // of an outcome: the moves of one plan have it in common and count once
}

// eventsOf are what an ended action says to the breaker.
func eventsOf(a Action) []event {
	var out []event
	if a.DryRun {
		return nil
	}
	if a.State == Done && a.TipID == "" && a.Verified {
		out = append(out, event{at: a.EndedAt, by: a.By})
	}
	if a.Fault {
		out = append(out, event{at: a.EndedAt, bad: true, by: a.By, what: fmt.Sprintf("%s to %s ended %s", a.VMName, a.ToName, a.State)})
	}
	if a.Outcome != "" {
		out = append(out, event{
			at: a.MeasuredAt, bad: a.Outcome != Recovered, by: a.By, plan: a.PlanID,
			what: fmt.Sprintf("moving %s off %s had the outcome %s", a.VMName, a.FromName, a.Outcome),
		})
	}
	return out
}

// take counts an event and reports whether the breaker opened or closed.
func (b *breaker) take(ev event) (changed bool) {
	if !ev.at.After(b.state.Since) || (ev.plan != "" && ev.plan == b.last.plan) {
		return false
	}
	b.last = ev
	switch {
	case ev.bad:
		b.bad++
		if b.bad < b.limit || b.state.Open {
			return false
		}
		b.state = Breaker{Open: true, Since: ev.at, Why: fmt.Sprintf("%d in a row did not help or failed, last: %s", b.bad, ev.what)}
		return true
	case b.state.Open && ev.by == ByPolicy:
		return false
	}
	b.bad = 0
	if !b.state.Open {
		return false
	}
	b.state = Breaker{Since: ev.at, By: ev.by, Why: "what " + ev.by + " did worked"}
	return true
}

// count gives the breaker an event and keeps what changed. A breaker that cannot be stored is open all the same; after a
// restart it is worked out again from the journal.
func (e *Engine) count(ev event) {
	if e.breaker.take(ev) {
		e.keepBreaker()
	}
}

func (e *Engine) keepBreaker() {
	b := e.breaker.state
	e.metrics.breaker(b)
	e.o.Log.Warn("breaker of automatic remediation", "open", b.Open, "why", b.Why)
	ctx, cancel := writing()
	defer cancel()
	if err := e.o.Memory.SaveBreaker(ctx, b); err != nil {
		e.metrics.journalErrors.Inc()
		e.o.Log.Error("breaker not stored", "err", err)
	}
}

// Breaker is whether actions that no person asked for may start, and why not.
func (e *Engine) Breaker() Breaker {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.breaker.state
}

// closeBreaker is a person's word that what failed is mended.
func (e *Engine) closeBreaker(ctx context.Context, by, why string) error {
	next := Breaker{By: by, Why: why, Since: e.now()}
	if err := e.o.Memory.SaveBreaker(ctx, next); err != nil {
		return fmt.Errorf("store breaker: %w", err)
	}
	e.breaker.bad, e.breaker.state = 0, next
	e.metrics.breaker(next)
	return nil
}
