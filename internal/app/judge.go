package app

import (
	"context"
	"slices"
	"time"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/placement"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// gap is how many evaluation intervals may pass between two evaluations that still count as unbroken.
const gap = 5

// judgement is what the rules said last.
type judgement struct {
	at       time.Time
	findings map[subject]rules.Finding
}

// subject is what a finding and its tip are about.
type subject struct {
	pack, rule string
	object     inventory.ID
}

// evaluateAll judges the fleet at each interval until ctx is done.
func (a *App) evaluateAll(ctx context.Context) {
	defer a.answers.running.Wait()
	defer a.following.running.Wait()
	interval := a.settings.Load().config.EvaluationInterval
	for {
		a.evaluate(ctx)
		if a.clock.Sleep(ctx, interval) != nil {
			return
		}
	}
}

// evaluate is one turn: judge the fleet, let every tip live on, then do what the policy wants done by itself.
func (a *App) evaluate(ctx context.Context) {
	now, snap := a.clock.Now(), a.Snapshot()
	loaded := a.settings.Load()
	set, alerts := a.withAlerts(ctx, loaded, snap)
	a.remember(snap, now) // before the rules look back
	a.follow(ctx, snap, now)
	began := time.Now()
	answers := a.answers.ask(ctx, a.past, loaded.rules, snap, now)
	if ctx.Err() != nil {
		return // what was cut short by the end is no failure
	}
	a.mu.Lock()
	followed := rules.Follow(a.tips)
	a.mu.Unlock()
	findings, stats := set.Eval(rules.Input{Snapshot: snap, Answers: answers, Alerts: alerts, Followed: followed, Now: now})
	a.metrics.evaluated(stats, time.Since(began))

	busy := a.tipsInProgress(ctx)
	a.mu.Lock()
	changes := markProgress(a.tips, busy)
	next, stepped := rules.Step(a.tips, rules.Turn{
		Set: set, Snapshot: snap, Findings: findings, Now: now, MaxGap: gap * a.settings.Load().config.EvaluationInterval,
	})
	a.tips = next
	a.judged = judgement{at: now, findings: bySubject(findings)}
	tips := slices.Clone(next)
	a.mu.Unlock()

	a.judgeReserves(snap)
	a.metrics.tips(tips)
	if a.outbox != nil {
		a.outbox.Tell(tips, snap, time.Now()) // Alertmanager lives in real time
	}
	a.publish(ctx, append(changes, stepped...)...)
	if a.acting != nil {
		a.actByPolicy(ctx, tips)
	}
}

func bySubject(findings []rules.Finding) map[subject]rules.Finding {
	out := make(map[subject]rules.Finding, len(findings))
	for _, f := range findings {
		out[subject{f.Rule.Pack.Name, f.Rule.Name, f.Object}] = f
	}
	return out
}

// tipsInProgress are the tips whose remedy runs.
func (a *App) tipsInProgress(ctx context.Context) map[string]bool {
	busy := map[string]bool{}
	if a.acting == nil {
		return busy
	}
	actions, err := a.acting.engine.Actions(ctx, remediation.Filter{States: []remediation.State{
		remediation.Approved, remediation.Claimed, remediation.Starting, remediation.Started, remediation.Verifying,
	}})
	if err != nil {
		a.log.Error("actions under way not read", "err", err)
	}
	for _, act := range actions {
		busy[act.TipID] = true
	}
	return busy
}

// markProgress brings the tips in line with what runs.
func markProgress(tips []rules.Tip, busy map[string]bool) []rules.Change {
	var changes []rules.Change
	for i, tip := range tips {
		next := tip
		if busy[tip.ID] {
			if begun, err := tip.Begin(); err == nil {
				next = begun
			}
		} else {
			next = tip.End()
		}
		if next.State != tip.State || next.Was != tip.Was {
			tips[i] = next
			changes = append(changes, rules.Change{Tip: next, From: tip.State})
		}
	}
	return changes
}

// publish stores changed tips and tells of them. A store that fails costs the memory over a restart, and is said.
func (a *App) publish(ctx context.Context, changes ...rules.Change) {
	if len(changes) == 0 {
		return
	}
	ctx = context.WithoutCancel(ctx)
	var keep []rules.Tip
	var drop []string
	for _, c := range changes {
		if c.Dropped && c.Tip.State != rules.Resolved {
			drop = append(drop, c.Tip.ID)
		} else {
			keep = append(keep, c.Tip)
		}
	}
	if err := a.store.SaveTips(ctx, keep...); err != nil {
		a.metrics.storeErrors.Inc()
		a.log.Error("tips not stored: a restart forgets them", "err", err)
	}
	if err := a.store.DropTips(ctx, drop...); err != nil {
		a.metrics.storeErrors.Inc()
		a.log.Error("tips not forgotten: a restart brings them back", "err", err)
	}
	for _, c := range changes {
		a.log.Info("tip", "id", c.Tip.ID, "rule", c.Tip.Rule, "object", c.Tip.Object, "state", c.Tip.State, "from", c.From, "dropped", c.Dropped)
		a.notify(Event{Tip: &c})
	}
}

// judgeOutcome says whether the tip's own condition is gone: it is asked after the settle time. A rule that knows too little,
// or has nothing to judge any more (the host was switched off), cannot say.
func (a *App) judgeOutcome(act remediation.Action) (remediation.Outcome, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.IndexFunc(a.tips, func(t rules.Tip) bool { return t.ID == act.TipID })
	if i < 0 || a.judged.at.Before(act.EndedAt.Add(act.Settle)) {
		return "", false
	}
	about := subject{a.tips[i].Pack, a.tips[i].Rule, a.tips[i].Object}
	if act.For == placement.ForEvacuation {
		return emptied(a.fleet.Snapshot(), act.From)
	}
	f, ok := a.judged.findings[about]
	if !ok || f.When == rules.Undecided || f.Why != "" {
		return "", false
	}
	if f.When == rules.False && f.Clear == rules.True {
		return remediation.Recovered, true
	}
	if about.object.Kind == inventory.KindHost {
		about.object = act.To
		if target, ok := a.judged.findings[about]; ok && target.When == rules.True {
			return remediation.Worse, true
		}
	}
	return remediation.NoEffect, true
}

// emptied is the outcome of a move that was to empty a host: what is wrong with the host does not go away by it.
func emptied(snap *inventory.Snapshot, host inventory.ID) (remediation.Outcome, bool) {
	src, ok := snap.Source(host.Source)
	switch {
	case !ok || !src.Up:
		return "", false
	case running(snap, host) == 0:
		return remediation.Recovered, true
	}
	return remediation.NoEffect, true
}

func (a *App) actionStepped(act remediation.Action) { a.notify(Event{Action: &act}) }
