package remediation

import "time"

// outcomeDeadline is how long an outcome is asked for. What the tip says after a day is not about the move.
const outcomeDeadline = 24 * time.Hour

// awaitsOutcome reports whether it is still to be said if the action helped.
func awaitsOutcome(a Action) bool {
	return a.State == Done && !a.DryRun && a.Kind != WebhookCall && a.TipID != "" && a.Outcome == ""
}

// measure asks for the outcome of each plan whose last word is spoken and that had time to settle, and stores it once.
func (e *Engine) measure() {
	for _, plan := range e.settled() {
		outcome, known := e.judge(plan)
		if !known {
			continue
		}
		for _, it := range plan {
			e.conclude(it, outcome)
		}
	}
}

// judge is the worst that is said of any of a plan's moves.
func (e *Engine) judge(plan []*item) (worst Outcome, known bool) {
	badness := map[Outcome]int{Recovered: 0, NoEffect: 1, Worse: 2}
	worst = Recovered
	for _, it := range plan {
		a, _ := e.peek(it)
		outcome, known := e.o.Judge(a)
		if _, valid := badness[outcome]; !known || !valid {
			return "", false
		}
		if badness[outcome] > badness[worst] {
			worst = outcome
		}
	}
	return worst, true
}

// settled are the plans to be judged, each with its done actions.
func (e *Engine) settled() [][]*item {
	e.mu.Lock()
	defer e.mu.Unlock()
	plans := map[string][]*item{}
	for id, it := range e.live {
		if awaitsOutcome(it.Action) && e.now().Sub(it.EndedAt) > outcomeDeadline {
			delete(e.live, id)
			continue
		}
		plans[it.PlanID] = append(plans[it.PlanID], it)
	}
	var out [][]*item
	for _, plan := range plans {
		if done := e.ripe(plan); len(done) > 0 {
			out = append(out, done)
		}
	}
	return out
}

// ripe are the done actions of a plan, none while it goes on or settles.
func (e *Engine) ripe(plan []*item) []*item {
	var done []*item
	for _, it := range plan {
		if !it.State.Final() {
			return nil
		}
		if awaitsOutcome(it.Action) {
			if e.now().Sub(it.EndedAt) < it.Settle {
				return nil
			}
			done = append(done, it)
		}
	}
	return done
}

func (e *Engine) conclude(it *item, outcome Outcome) {
	e.mu.Lock()
	defer e.mu.Unlock()
	err := e.stepLocked(it, "outcome: "+string(outcome), func(a *Action) { a.Outcome, a.MeasuredAt = outcome, e.now() })
	if err != nil {
		return // asked again at the next tick
	}
	delete(e.live, it.ID)
	for _, ev := range eventsOf(it.Action) {
		if ev.plan != "" {
			e.count(ev)
		}
	}
}
