package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/protip/protip/internal/web"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// actByPolicy carries out what the policy lets go by itself: a whole plan that reaches its goal, once, and again only when
// the outcome of the one before is known.
func (a *App) actByPolicy(ctx context.Context, tips []rules.Tip) {
	if len(a.settings.Load().policy.Automatic) == 0 {
		return
	}
	for _, tip := range tips {
		if tip.State != rules.Active || !tip.Remedy.Acts() {
			continue
		}
		why, err := a.actOn(ctx, tip)
		if err != nil {
			why = err.Error()
		}
		a.explain(tip, why)
	}
}

// actOn says why nothing was done, empty if something was.
func (a *App) actOn(ctx context.Context, tip rules.Tip) (string, error) {
	past, err := a.acting.engine.Actions(ctx, remediation.Filter{TipID: tip.ID, Since: tip.ActiveAt})
	if err != nil {
		return "", err
	}
	if wait := notAgain(past, a.clock.Now(), a.settings.Load().config.Remediation.DryRun); wait != "" {
		return wait, nil
	}
	if wait := cmp.Or(remediation.Outside(a.settings.Load().opened, a.clock.Now()), a.tooEarly(tip)); wait != "" {
		return wait, nil
	}
	p, err := a.propose(tip)
	switch {
	case err != nil:
		return "", err
	case p.decision.Verdict == remediation.Manual && p.downtime != "":
		a.offer(tip, p)
		return p.decision.Why, nil
	case p.decision.Verdict != remediation.Automatic:
		return p.decision.Why, nil
	case p.why != "" && (tip.Remedy.Action != rules.Evacuate || len(p.actions) == 0): // what can leave a failing host leaves it
		return p.why, nil
	case len(p.actions) == 0:
		return "nothing needs to move any more", nil
	}
	return "", a.submit(ctx, tip, p.actions, remediation.ByPolicy, p.decision.Why)
}

// tooEarly says why a cluster is not rebalanced by itself yet: too little is known of what its VMs usually need.
func (a *App) tooEarly(tip rules.Tip) string {
	if tip.Remedy.Action != rules.RebalanceCluster {
		return ""
	}
	since := a.followedSince(tip.Object.Source)
	if known := a.clock.Now().Sub(since); since.IsZero() || known < warm {
		return fmt.Sprintf("demand has not been followed for %s yet", warm)
	}
	return ""
}

// notAgain says why a tip that was acted on in this episode has to wait, empty if it has not. A dry run is made once, and keeps
// nothing from being done for real once dry runs are over. What went wrong in a way that nobody understands yet is a person's.
func notAgain(past []remediation.Action, now time.Time, dry bool) string {
	for _, act := range past {
		switch {
		case !act.State.Final():
			return "its remedy runs"
		case act.DryRun && dry:
			return "the dry run of this tip is done"
		case act.DryRun:
		case act.CancelBy != "":
			return act.CancelBy + " cancelled its last remedy: a person decides"
		case act.Kind == remediation.WebhookCall:
			return "its webhook was called already: a person may call it again"
		case act.State == remediation.Unknown:
			return fmt.Sprintf("its action %s is unknown: look where %s is, then say so with protip actions resolve", act.ID, act.VMName)
		case act.Outcome == remediation.Worse:
			return "its last remedy made it worse: a person decides"
		case act.State == remediation.Done && act.Outcome == "":
			return "the outcome of its last remedy is not known yet"
		case now.Sub(act.EndedAt) < act.Settle:
			return "its last remedy needs time to settle"
		}
	}
	return ""
}

// submit hands the plan to the engine and marks the tip.
func (a *App) submit(ctx context.Context, tip rules.Tip, actions []remediation.Action, by, why string) error {
	_, err := a.acting.engine.Submit(ctx, actions, by, why)
	if err != nil {
		return err
	}
	_, err = a.changeTip(ctx, tip.ID, rules.Tip.Begin)
	return err
}

// changeTip changes one tip by what a person or the engine did. It tells and stores only a change of state.
func (a *App) changeTip(ctx context.Context, id string, change func(rules.Tip) (rules.Tip, error)) (rules.Tip, error) {
	a.mu.Lock()
	i := slices.IndexFunc(a.tips, func(t rules.Tip) bool { return t.ID == id })
	if i < 0 {
		a.mu.Unlock()
		return rules.Tip{}, fmt.Errorf("tip %s: %w", id, web.ErrNotFound)
	}
	was := a.tips[i]
	is, err := change(was)
	if err != nil {
		a.mu.Unlock()
		return was, fmt.Errorf("%w: %w", web.ErrConflict, err)
	}
	a.tips[i] = is
	a.mu.Unlock()
	a.publish(ctx, rules.Change{Tip: is, From: was.State})
	return is, nil
}

// offer tells, once in each episode of a tip, of a plan that would go by itself if it took no VM down.
func (a *App) offer(tip rules.Tip, p proposal) {
	a.mu.Lock()
	if a.offered == nil {
		a.offered = map[string]time.Time{}
	}
	told := a.offered[tip.ID].Equal(tip.ActiveAt)
	a.offered[tip.ID] = tip.ActiveAt
	a.mu.Unlock()
	if !told {
		a.notify(Event{Offer: &Offer{Tip: tip, Downtime: p.downtime, Actions: p.actions}})
	}
}

// explain says in the log why a tip that could go by itself does not, once for each reason.
func (a *App) explain(tip rules.Tip, why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.held == nil {
		a.held = map[string]string{}
	}
	if a.held[tip.ID] == why {
		return
	}
	a.held[tip.ID] = why
	if why != "" {
		a.log.Info("tip waits", "id", tip.ID, "rule", tip.Rule, "object", tip.Object, "why", why)
	}
}

// refused gives an error its place in the API: what the engine or the policy refuses is the caller's to deal with.
func refused(err error) error {
	if errors.Is(err, remediation.ErrRefused) {
		return fmt.Errorf("%w: %w", web.ErrConflict, err)
	}
	return err
}
