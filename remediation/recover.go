package remediation

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// lookBack is how far the journal is read for what still matters of ended actions: outcomes, faults in a row, the hour's budget.
const lookBack = 8 * 24 * time.Hour

// Recover reads what an earlier run left behind; further calls do nothing. It asks no platform: what may have been sent is
// taken up by Run, which reads the platform first and never sends it again.
func (e *Engine) Recover(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.recovered {
		return nil
	}
	if err := e.recall(ctx); err != nil {
		return fmt.Errorf("recover remediation: %w", err)
	}
	open, err := e.o.Journal.Actions(ctx, Filter{States: []State{Planned, Approved, Claimed, Starting, Started, Verifying, Unknown}})
	if err != nil {
		return fmt.Errorf("recover remediation: %w", err)
	}
	past, err := e.o.Journal.Actions(ctx, Filter{Since: e.now().Add(-max(lookBack, 2*e.o.Cooldown))})
	if err != nil {
		return fmt.Errorf("recover remediation: %w", err)
	}
	for _, a := range slices.Backward(open) {
		e.hold(a)
		e.metrics.created(a)
	}
	e.replay(past)
	for _, a := range open {
		if err := e.inherit(e.live[a.ID]); err != nil {
			return fmt.Errorf("recover action %s: %w", a.ID, err)
		}
	}
	e.recovered = true
	return nil
}

// recall reads pauses, foreign moves and the breaker.
func (e *Engine) recall(ctx context.Context) error {
	pauses, err := e.o.Memory.Pauses(ctx)
	if err != nil {
		return err
	}
	for _, p := range pauses {
		e.pauses[p.Source] = p
	}
	moves, err := e.o.Memory.ForeignMoves(ctx, e.now().Add(-max(e.o.Cooldown, contestMemory)))
	if err != nil {
		return err
	}
	for _, m := range moves {
		e.lastMove[m.VM] = lastMove{at: m.At, by: foreign, to: m.To}
		if m.Against > 0 {
			e.contests[m.VM] = m
		}
	}
	e.metrics.contested(e.leftAlone())
	if e.breaker.state, err = e.o.Memory.Breaker(ctx); err != nil {
		return err
	}
	e.metrics.pauses(e.pauses)
	e.metrics.breaker(e.breaker.state)
	return nil
}

// replay draws from ended actions what memory held of them.
func (e *Engine) replay(past []Action) {
	var events []event
	for _, a := range past {
		if a.Sent() {
			e.starts = append(e.starts, a.StartingAt)
		}
		if !a.State.Final() {
			continue
		}
		if last, rests := rest(a); rests && last.at.After(e.lastMove[a.VM].at) {
			e.lastMove[a.VM] = last
		}
		if a.Sent() && a.State == Done && a.EndedAt.After(e.placed[a.VM].at) && a.EndedAt.Equal(e.lastMove[a.VM].at) {
			e.placed[a.VM] = lastMove{at: a.EndedAt, by: "protip", to: a.To} // nobody has moved it since
		}
		if spoils(a) {
			e.spoilRest(a)
		}
		if a.EndedAt.After(e.planMoved[a.PlanID]) {
			e.advancePlan(a)
		}
		if awaitsOutcome(a) {
			e.hold(a)
		}
		events = append(events, eventsOf(a)...)
	}
	slices.SortStableFunc(events, func(a, b event) int { return a.at.Compare(b.at) })
	for _, ev := range events {
		e.count(ev)
	}
}

// inherit takes an open action over from the run before. A claimed one was not sent and queues again; one that may have been
// sent gets a new fence, so that no late step of its former owner is taken.
func (e *Engine) inherit(it *item) error {
	switch it.State {
	case Claimed:
		return e.stepLocked(it, "the agent restarted before anything was sent", func(a *Action) { a.State = Approved })
	case Starting, Started, Verifying:
		return e.stepLocked(it, "taken up after a restart in state "+string(it.State), func(a *Action) {
			a.Owner, a.Fence = e.o.Owner, a.Fence+1
		})
	}
	return nil
}
