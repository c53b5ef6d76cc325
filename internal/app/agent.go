package app

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/common/version"

	"github.com/protip/protip/internal/config"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/store"
	"github.com/protip/protip/internal/web"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
	"github.com/protip/protip/rules/report"
)

// agent is the App as the web sees it.
type agent struct{ *App }

var _ web.Agent = agent{}

func (a agent) Ready(context.Context) error {
	for _, src := range a.fleet.Snapshot().Sources() {
		if !src.Synced && src.Error == "" {
			return fmt.Errorf("%w: source %s is being listed", web.ErrUnavailable, src.Name)
		}
	}
	return nil
}

func (a agent) Status(context.Context) (web.Status, error) {
	s := a.settings.Load()
	a.mu.Lock()
	failed := a.failed
	a.mu.Unlock()
	out := web.Status{
		Version: version.Version, Now: a.clock.Now(), StartedAt: a.started, Remediation: web.Off,
		PausedSources: []string{}, ReloadedAt: s.loaded, ReloadError: failed,
	}
	if a.acting == nil || s.policy.Off() {
		return out, nil
	}
	out.Remediation, out.DryRun = web.Manual, s.config.Remediation.DryRun
	if len(s.policy.Automatic) > 0 {
		out.Remediation = web.Automatic
	}
	for _, p := range a.acting.engine.Pauses() {
		if p.Source == "" {
			out.Paused = true
		} else {
			out.PausedSources = append(out.PausedSources, p.Source)
		}
	}
	if b := a.acting.engine.Breaker(); b.Open {
		out.BreakerOpen = b.Why
	}
	return out, nil
}

func (a agent) Tips(context.Context) ([]rules.Tip, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.tips), nil
}

func (a agent) Tip(_ context.Context, id string) (rules.Tip, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.tips {
		if t.ID == id {
			return t, nil
		}
	}
	return rules.Tip{}, fmt.Errorf("tip %s: %w", id, web.ErrNotFound)
}

func (a agent) Actions(ctx context.Context, f remediation.Filter) ([]remediation.Action, error) {
	return a.store.Actions(ctx, f)
}

// Implement carries a tip out on a person's word, and as far as it goes even where the moves do not reach the goal.
// VMs are taken down only if downtime says that the person agrees to it.
func (a agent) Implement(ctx context.Context, by web.By, id string, downtime bool) (actions []remediation.Action, err error) {
	tip, err := a.Tip(ctx, id)
	defer func() { a.audit(ctx, by, "implement", id, tip.Object, err) }()
	switch {
	case err != nil:
		return nil, err
	case a.acting == nil:
		return nil, fmt.Errorf("%w: nothing may be moved: the configuration has no remediation section", web.ErrConflict)
	case tip.State != rules.Active:
		return nil, fmt.Errorf("%w: tip %s is %s, not active", web.ErrConflict, id, tip.State)
	}
	p, err := a.propose(tip)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", web.ErrConflict, err)
	case p.decision.Verdict == remediation.Refuse:
		return nil, fmt.Errorf("%w: %s", web.ErrConflict, p.decision.Why)
	case len(p.actions) == 0 && !tip.Remedy.Acts():
		return nil, fmt.Errorf("%w: there is nothing to implement: %s", web.ErrConflict, tip.Remedy.Words())
	case len(p.actions) == 0:
		return nil, fmt.Errorf("%w: no move would help: %s", web.ErrConflict, cmp.Or(p.why, a.frozenOn(tip), "its goal is reached"))
	case p.downtime != "" && !downtime:
		return nil, fmt.Errorf("%w: %s. If you agree to that: protip tips implement %s --downtime", web.ErrConflict, p.downtime, id)
	}
	if actions, err = a.acting.engine.Submit(ctx, p.actions, by.Who, by.Why); err != nil {
		return nil, refused(err)
	}
	// The moves go, whatever became of the tip meanwhile; the next evaluation shows it.
	_, _ = a.changeTip(ctx, id, rules.Tip.Begin)
	return actions, nil
}

func (a agent) Cancel(ctx context.Context, by web.By, id string) (act remediation.Action, err error) {
	defer func() { a.audit(ctx, by, "cancel", id, act.VM, err) }()
	if a.acting == nil {
		return act, fmt.Errorf("%w: there is nothing to cancel: the configuration has no remediation section", web.ErrConflict)
	}
	act, err = a.acting.engine.Cancel(ctx, id, by.Who, by.Why)
	return act, refused(err)
}

func (a agent) Resolve(ctx context.Context, by web.By, id string, as remediation.State) (act remediation.Action, err error) {
	defer func() { a.audit(ctx, by, "resolve", id, act.VM, err) }()
	if a.acting == nil {
		return act, fmt.Errorf("%w: nothing may be resolved: the configuration has no remediation section", web.ErrConflict)
	}
	act, err = a.acting.engine.Resolve(ctx, id, as, by.Who, by.Why)
	return act, refused(err)
}

func (a agent) Dismiss(ctx context.Context, by web.By, id string, d time.Duration) (tip rules.Tip, err error) {
	now := a.clock.Now()
	tip, err = a.changeTip(ctx, id, func(t rules.Tip) (rules.Tip, error) { return t.Dismiss(now.Add(d), now) })
	a.audit(ctx, by, "dismiss", id, tip.Object, err)
	return tip, err
}

func (a agent) Undismiss(ctx context.Context, by web.By, id string) (tip rules.Tip, err error) {
	tip, err = a.changeTip(ctx, id, rules.Tip.Undismiss)
	a.audit(ctx, by, "undismiss", id, tip.Object, err)
	return tip, err
}

func (a agent) Pause(ctx context.Context, by web.By, source string) (err error) {
	defer func() { a.audit(ctx, by, "pause", source, inventory.ID{}, err) }()
	if a.acting == nil {
		return fmt.Errorf("%w: there is nothing to pause: the configuration has no remediation section", web.ErrConflict)
	}
	return refused(a.acting.engine.Pause(ctx, source, by.Who, by.Why))
}

func (a agent) Resume(ctx context.Context, by web.By, source string) (err error) {
	defer func() { a.audit(ctx, by, "resume", source, inventory.ID{}, err) }()
	if a.acting == nil {
		return fmt.Errorf("%w: there is nothing to resume: the configuration has no remediation section", web.ErrConflict)
	}
	return refused(a.acting.engine.Resume(ctx, source, by.Who, by.Why))
}

func (a agent) Reload(ctx context.Context, by web.By) (err error) {
	defer func() { a.audit(ctx, by, "reload", "", inventory.ID{}, err) }()
	return a.App.Reload(ctx)
}

func (a agent) Packs() *rules.Set { return a.settings.Load().rules }

func (a agent) Report(ctx context.Context, name string, r report.Request) (report.Report, error) {
	if a.past == nil {
		return report.Report{}, fmt.Errorf("%w: %w", web.ErrConflict, ErrNoHistory)
	}
	r.Past, r.Ceiling = a.past, config.DefaultCeiling
	if rem := a.settings.Load().config.Remediation; rem != nil {
		r.Ceiling = rem.Ceiling
	}
	return report.Make(ctx, name, r)
}

func (a agent) Note(ctx context.Context, by web.By, what, object string, err error) {
	a.audit(ctx, by, what, object, inventory.ID{}, err)
}

func (a agent) AuditLog(ctx context.Context, f web.AuditFilter) ([]web.AuditEntry, error) {
	entries, err := a.store.AuditLog(ctx, store.AuditFilter(f))
	out := make([]web.AuditEntry, 0, len(entries))
	for _, e := range entries {
		out = append(out, web.AuditEntry(e))
	}
	return out, err
}

// audit writes down what a person did or was refused.
func (a agent) audit(ctx context.Context, by web.By, what, object string, id inventory.ID, err error) {
	result := "ok"
	if err != nil {
		result = err.Error()
	}
	entry := store.Entry{At: a.clock.Now(), Who: by.Who, What: what, Object: object, ID: id, From: by.Remote, Why: by.Why, Result: result}
	if err := a.store.Audit(context.WithoutCancel(ctx), entry); err != nil {
		a.metrics.storeErrors.Inc()
		a.log.Error("audit entry not stored", "who", by.Who, "what", what, "object", object, "from", by.Remote, "result", result, "err", err)
	}
}
