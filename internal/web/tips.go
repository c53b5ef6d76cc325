package web

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// Tip is a tip as the API shows it: its evidence can be absent, and it ends with what to do next.
type Tip struct {
	rules.Tip
	Evidence    []Evidence `json:"evidence"`
	NextCommand string     `json:"next_command,omitempty"` // the command line to type next
	Hint        string     `json:"hint,omitempty"`         // why nothing better can be offered
}

// Evidence is a number the rule looked at; Value is null if it is none.
type Evidence struct {
	Name  string    `json:"name"`
	Value *float64  `json:"value"`
	Unit  string    `json:"unit"`
	At    time.Time `json:"at"`
	Query string    `json:"query,omitempty"` // the PromQL it is of, if it was computed
}

func tipOf(t rules.Tip, mode Mode) Tip {
	view := seen(t)
	view.NextCommand, view.Hint = next(t, mode)
	return view
}

// seen is a tip without what to do next, and without the episode before it, which is the rules' own matter.
func seen(t rules.Tip) Tip {
	t.Previous = nil
	view := Tip{Tip: t, Evidence: make([]Evidence, 0, len(t.Evidence))}
	for _, e := range t.Evidence {
		view.Evidence = append(view.Evidence, Evidence{e.Name, finite(e.Value), e.Unit, e.At, e.Query})
	}
	return view
}

// next is the command that a tip ends with, and why it is no better one.
func next(t rules.Tip, mode Mode) (command, hint string) {
	dismiss := "protip tips dismiss " + t.ID + " --for 24h"
	switch t.State {
	case rules.Active:
		switch {
		case t.Remedy.Action == "" || t.Remedy.Action == rules.NoRemedy:
			return dismiss, "this rule proposes nothing that protip could do"
		case t.Remedy.Action == rules.Restrict:
			return dismiss, "protip places nothing new on this host while the tip lasts; to lift that, dismiss it"
		case t.Remedy.Action == rules.RightSize:
			return dismiss, "advice: protip changes no VM's size"
		case mode == Off:
			return dismiss, "remediation is off: remediation.mode: manual in the config lets protip carry this out"
		}
		return "protip tips implement " + t.ID, ""
	case rules.Dismissed:
		return "protip tips undismiss " + t.ID, ""
	case rules.Unknown:
		return "protip tips show " + t.ID, "no data: nothing is done about it until its numbers come back"
	case rules.Pending, rules.InProgress:
		return "protip tips show " + t.ID, ""
	}
	return "", ""
}

// tipStates are the states in the order people want to read them.
var tipStates = []rules.State{rules.Active, rules.InProgress, rules.Unknown, rules.Pending, rules.Dismissed, rules.Resolved}

var severities = []rules.Severity{rules.Critical, rules.Warning, rules.Info}

// sortTips puts first what needs a person first.
func sortTips(tips []rules.Tip) {
	slices.SortFunc(tips, func(a, b rules.Tip) int {
		return cmp.Or(
			cmp.Compare(rank(tipStates, a.State), rank(tipStates, b.State)),
			cmp.Compare(rank(severities, a.Severity), rank(severities, b.Severity)),
			b.Since.Compare(a.Since),
			strings.Compare(a.ID, b.ID))
	})
}

// rank is a value's place in an order; values that are not in it come last.
func rank[T comparable](order []T, v T) int {
	if i := slices.Index(order, v); i >= 0 {
		return i
	}
	return len(order)
}

func (s *server) status(r *http.Request) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	st, err := s.agent.Status(r.Context())
	if err != nil {
		return nil, err
	}
	st.PausedSources = append([]string{}, st.PausedSources...)
	return st, nil
}

func (s *server) tips(r *http.Request) (any, error) {
	q, err := query(r, "state", "severity", "source", "limit", "offset")
	if err != nil {
		return nil, err
	}
	window, err := windowOf(q)
	if err != nil {
		return nil, err
	}
	states, err := oneOf("state", q["state"], tipStates)
	if err != nil {
		return nil, err
	}
	wanted, err := oneOf("severity", q["severity"], severities)
	if err != nil {
		return nil, err
	}
	tips, st, err := s.tipsAndStatus(r.Context())
	if err != nil {
		return nil, err
	}
	var picked []rules.Tip
	for _, t := range tips {
		if among(states, t.State) && among(wanted, t.Severity) && is(q.Get("source"), t.Object.Source) {
			picked = append(picked, t)
		}
	}
	return paged(window, picked, func(t rules.Tip) Tip { return tipOf(t, st.Remediation) }), nil
}

// tipsAndStatus are all tips, in order, and the status that says what can be done about them.
func (s *server) tipsAndStatus(ctx context.Context) ([]rules.Tip, Status, error) {
	st, err := s.agent.Status(ctx)
	if err != nil {
		return nil, st, err
	}
	tips, err := s.agent.Tips(ctx)
	if err != nil {
		return nil, st, err
	}
	tips = slices.Clone(tips)
	sortTips(tips)
	return tips, st, nil
}

// oneOf checks a repeatable parameter against the values it can have. Nil is all of them.
func oneOf[T ~string](name string, given []string, known []T) ([]T, error) {
	var out []T
	for _, v := range given {
		if !slices.Contains(known, T(v)) {
			return nil, badData("%s %q: want one of %q", name, v, known)
		}
		out = append(out, T(v))
	}
	return out, nil
}

func among[T comparable](wanted []T, v T) bool { return len(wanted) == 0 || slices.Contains(wanted, v) }

func (s *server) tip(r *http.Request) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	return s.showTip(r.Context(), func() (rules.Tip, error) { return s.agent.Tip(r.Context(), r.PathValue("id")) })
}

// showTip reads the status before it gets the tip: once something was done, nothing may fail any more.
func (s *server) showTip(ctx context.Context, get func() (rules.Tip, error)) (any, error) {
	st, err := s.agent.Status(ctx)
	if err != nil {
		return nil, err
	}
	t, err := get()
	if err != nil {
		return nil, err
	}
	return tipOf(t, st.Remediation), nil
}

var actionStates = []remediation.State{
	remediation.Planned, remediation.Approved, remediation.Claimed, remediation.Starting, remediation.Started,
	remediation.Verifying, remediation.Done, remediation.Withdrawn, remediation.Failed, remediation.RolledBack, remediation.Unknown,
}

func (s *server) actions(r *http.Request) (any, error) {
	q, err := query(r, "id", "tip", "state", "limit", "offset")
	if err != nil {
		return nil, err
	}
	states, err := oneOf("state", q["state"], actionStates)
	if err != nil {
		return nil, err
	}
	window, err := windowOf(q)
	if err != nil {
		return nil, err
	}
	f := remediation.Filter{ID: q.Get("id"), TipID: q.Get("tip"), States: states}
	if window.limit > 0 {
		f.Limit = window.offset + window.limit + 1 // one more tells whether there are more
	}
	actions, err := s.agent.Actions(r.Context(), f)
	if err != nil {
		return nil, err
	}
	actions = actions[min(window.offset, len(actions)):]
	if window.limit > 0 && len(actions) > window.limit {
		return part{data: actions[:window.limit], warning: fmt.Sprintf("there are older actions: go on with offset=%d, or raise limit", window.offset+window.limit)}, nil
	}
	return append([]remediation.Action{}, actions...), nil
}

// What acts may be told. Every body may be left out, and says why in the person's words if it is not.
type reason struct {
	Why string `json:"why"`
}

func (r reason) why() string { return r.Why }

type dismissal struct {
	reason
	For string `json:"for"` // 24h, 7d
}

type scope struct {
	reason
	Source string `json:"source"` // empty is all
}

// agreement is what a person agrees to beside the plan.
type agreement struct {
	reason
	Downtime bool `json:"downtime"` // of VMs that cannot be moved live
}

func (s *server) implement(ctx context.Context, by By, r *http.Request, body agreement) (any, error) {
	actions, err := s.agent.Implement(ctx, by, r.PathValue("id"), body.Downtime)
	if err != nil {
		return nil, err
	}
	return append([]remediation.Action{}, actions...), nil
}

func (s *server) cancel(ctx context.Context, by By, r *http.Request, _ reason) (any, error) {
	return s.agent.Cancel(ctx, by, r.PathValue("id"))
}

// resolution is a person's word on an action that is unknown.
type resolution struct {
	reason
	As remediation.State `json:"as"` // done or failed
}

func (s *server) resolve(ctx context.Context, by By, r *http.Request, body resolution) (any, error) {
	if body.As != remediation.Done && body.As != remediation.Failed {
		return nil, badData("as %q: say what became of it, done or failed", body.As)
	}
	return s.agent.Resolve(ctx, by, r.PathValue("id"), body.As)
}

const longestDismissal = 366 * 24 * time.Hour

func (s *server) dismiss(ctx context.Context, by By, r *http.Request, body dismissal) (any, error) {
	d, err := model.ParseDuration(body.For)
	if err != nil || d <= 0 || time.Duration(d) > longestDismissal {
		return nil, badData("for %q: want how long, from 1ms to 366d, such as 24h or 7d", body.For)
	}
	return s.showTip(ctx, func() (rules.Tip, error) { return s.agent.Dismiss(ctx, by, r.PathValue("id"), time.Duration(d)) })
}

func (s *server) undismiss(ctx context.Context, by By, r *http.Request, _ reason) (any, error) {
	return s.showTip(ctx, func() (rules.Tip, error) { return s.agent.Undismiss(ctx, by, r.PathValue("id")) })
}

func (s *server) pause(ctx context.Context, by By, _ *http.Request, body scope) (any, error) {
	return nil, s.agent.Pause(ctx, by, body.Source)
}

func (s *server) resume(ctx context.Context, by By, _ *http.Request, body scope) (any, error) {
	return nil, s.agent.Resume(ctx, by, body.Source)
}

func (s *server) reload(ctx context.Context, by By, _ *http.Request, _ reason) (any, error) {
	return nil, s.agent.Reload(ctx, by)
}
