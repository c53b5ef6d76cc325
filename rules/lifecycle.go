package rules

import (
	"fmt"
	"strings"
	"time"

	"github.com/protip/protip/internal/inventory"
)

// The life of a tip. "when" and "clear" are the rule's verdicts on its object; a rule without clear clears when "when" no
// longer holds, and when both hold, "when" wins.
//
//	         when            when, for all of "for"             Begin
//	(none) --------> pending ----------------------> active <----------> in_progress
//	                    |                             | ^       End           |
//	                    | not when                    | | until               |
//	                    v              Dismiss        v | passed              |
//	              (none, or the     +------------- dismissed                  |
//	             episode before)    |                 |                       |
//	                                +------- clear ---+-------- clear --------+--> resolved
//	                                                                                  |
//	                                                     pending, one episode more <--+ when
//
//	pending, active, in_progress <--> unknown   an input is missing or stale, or the rule failed; Was remembers
//	any but resolved --> resolved               the object is gone from a source in sync, the rule is no longer loaded,
//	                                            or it has nothing to judge any more (Finding.Why); pending: dropped
//
// What is not seen proves nothing. A pending tip that comes back from unknown starts its "for" anew, and so does one whose
// evaluations were further apart than MaxGap (the agent was down). In the same way nothing resolves without a verdict.
// Between when and clear (hysteresis) an active tip stays active.

// Turn is one evaluation, as Step takes it.
type Turn struct {
	Set      *Set
	Snapshot *inventory.Snapshot // the one that was judged
	Findings []Finding           // of all rules of Set
	Now      time.Time
	// MaxGap is the longest time between two evaluations that still counts as unbroken; 0 = any.
	MaxGap time.Duration
}

// Change is a tip that changed its state.
type Change struct {
	Tip  Tip   `json:"tip"`
	From State `json:"from,omitempty"` // empty: the tip is new
	// Dropped says that a pending episode came to nothing. Tip is then the resolved episode before it, which Step put back;
	// if it is not resolved there was none, and Step has forgotten the tip.
	Dropped bool `json:"dropped,omitempty"`
}

// tipKey is what a tip is keyed by; Tip.ID is its hash.
type tipKey struct {
	pack, rule string
	object     inventory.ID
}

func keyOf(f *Finding) tipKey { return tipKey{f.Rule.Pack.Name, f.Rule.Name, f.Object} }

// Step is one turn in the life of all tips. It is pure, keeps the order of tips and appends new ones in the order of the
// findings. Resolved tips are kept: what forgets one makes its next episode the first again.
func Step(tips []Tip, t Turn) (next []Tip, changes []Change) {
	spoken := make(map[tipKey]*Finding, len(tips)) // of the tips there are, what their rules say now
	for _, tip := range tips {
		spoken[tipKey{tip.Pack, tip.Rule, tip.Object}] = nil
	}
	var fresh []*Finding
	for i := range t.Findings {
		f := &t.Findings[i]
		if _, known := spoken[keyOf(f)]; known {
			spoken[keyOf(f)] = f
		} else if f.When == True {
			fresh = append(fresh, f)
		}
	}
	next = make([]Tip, 0, len(tips)+len(fresh))
	for _, old := range tips {
		now, kept := t.advance(old, spoken[tipKey{old.Pack, old.Rule, old.Object}])
		if kept {
			next = append(next, now)
		}
		if !kept || now.State != old.State || now.Episode != old.Episode {
			changes = append(changes, Change{Tip: now, From: old.State, Dropped: !kept || now.Episode < old.Episode})
		}
	}
	for _, f := range fresh {
		tip := t.ripen(t.begin(Tip{ID: TipID(f.Rule.Pack.Name, f.Rule.Name, f.Object)}, f), f)
		next = append(next, tip)
		changes = append(changes, Change{Tip: tip})
	}
	return next, changes
}

// advance is one turn of one tip; false drops it.
func (t Turn) advance(tip Tip, f *Finding) (Tip, bool) {
	if tip.State == Resolved {
		if f != nil && f.When == True {
			return t.ripen(t.begin(tip, f), f), true
		}
		return tip, true
	}
	if f == nil {
		if why := t.orphaned(tip); why != "" {
			return t.end(tip, why)
		}
		return t.lose(tip, time.Time{}), true
	}
	if f.When == Undecided {
		return t.lose(tip, f.NoDataSince), true
	}
	return t.know(tip, f)
}

// know is a turn with a verdict.
func (t Turn) know(tip Tip, f *Finding) (Tip, bool) {
	gap := t.MaxGap > 0 && t.Now.Sub(tip.UpdatedAt) > t.MaxGap
	if tip.State == Unknown {
		tip.State, tip.Was, tip.NoDataSince = tip.Was, "", time.Time{}
		gap = true
	}
	tip.NoDataSince = time.Time{}
	switch {
	case f.Why != "":
		return t.end(tip, f.Why)
	case tip.State == Pending && f.When != True:
		return t.end(tip, "")
	case f.When != True && f.Clear == True:
		return t.end(tip, cleared(f.Rule))
	}
	if tip.State == Pending && gap {
		tip.Since = t.Now
	}
	return t.ripen(t.update(tip, f), f), true
}

// begin is a new episode of a tip, pending.
func (t Turn) begin(old Tip, f *Finding) Tip {
	tip := Tip{
		ID: old.ID, Episode: old.Episode + 1, State: Pending, Object: f.Object,
		Pack: f.Rule.Pack.Name, Rule: f.Rule.Name, Since: t.Now, DismissedUntil: old.DismissedUntil,
	}
	if old.Episode > 0 {
		old.Previous = nil
		tip.Previous = &old
	}
	return t.update(tip, f)
}

// update lays what the rule says now over the tip.
func (t Turn) update(tip Tip, f *Finding) Tip {
	tip.PackSHA256, tip.Severity, tip.Remedy, tip.Cause = f.Rule.Pack.SHA256, f.Rule.Severity, f.Remedy, f.Cause
	tip.Name, tip.Cluster, tip.Place, tip.DRS = f.Name, f.Cluster, f.Place, f.DRS
	tip.Summary, tip.Evidence, tip.UpdatedAt = f.Summary, f.Evidence, t.Now
	return tip
}

// ripen is what time alone does to a tip: pending becomes active, dismissed becomes active again.
func (t Turn) ripen(tip Tip, f *Finding) Tip {
	if tip.State == Pending && t.Now.Sub(tip.Since) >= f.Rule.For {
		tip.State, tip.ActiveAt, tip.Previous = Active, t.Now, nil
		if t.Now.Before(tip.DismissedUntil) {
			tip.State = Dismissed
		}
	}
	return t.wake(tip)
}

// wake ends a dismissal whose time has come.
func (t Turn) wake(tip Tip) Tip {
	if tip.DismissedUntil.IsZero() || t.Now.Before(tip.DismissedUntil) {
		return tip
	}
	tip.DismissedUntil = time.Time{}
	if tip.State == Dismissed {
		tip.State = Active
	}
	return tip
}

// lose is a turn without a verdict. A dismissed tip stays so until its time.
func (t Turn) lose(tip Tip, since time.Time) Tip {
	tip = t.wake(tip)
	if since.IsZero() {
		since = tip.UpdatedAt // never seen by this agent: the last that was known
	}
	if tip.NoDataSince.IsZero() || since.Before(tip.NoDataSince) {
		tip.NoDataSince = since
	}
	if tip.State != Unknown && tip.State != Dismissed {
		tip.State, tip.Was = Unknown, tip.State
	}
	return tip
}

// end resolves a tip, or drops it if it never was active: then the episode before stands as it was.
func (t Turn) end(tip Tip, why string) (Tip, bool) {
	if tip.State == Pending || tip.State == Unknown && tip.Was == Pending {
		if tip.Previous != nil {
			return *tip.Previous, true
		}
		return tip, false
	}
	tip.State, tip.Was, tip.NoDataSince = Resolved, "", time.Time{}
	tip.ResolvedAt, tip.ResolvedWhy = t.Now, why
	return tip, true
}

// orphaned says why no rule speaks of the tip any more; empty if that is only because its source has not come up yet.
func (t Turn) orphaned(tip Tip) string {
	r, ok := t.Set.Rule(tip.Pack, tip.Rule)
	if !ok {
		return fmt.Sprintf("the rule %s/%s is no longer loaded", tip.Pack, tip.Rule)
	}
	src, ok := t.Snapshot.Source(tip.Object.Source)
	switch {
	case !ok:
		return fmt.Sprintf("the source %s is no longer watched", tip.Object.Source)
	case !src.Synced:
		return ""
	case !r.Pack.appliesTo(src.Platform) || r.On != tip.Object.Kind:
		return fmt.Sprintf("the rule %s no longer judges this %s", r, tip.Object.Kind)
	}
	return fmt.Sprintf("the %s is gone", tip.Object.Kind)
}

func cleared(r *Rule) string {
	if r.clear.code == nil {
		return "no longer: " + r.when.words
	}
	return r.clear.words
}

// standing is what the tip is, looking through unknown.
func (tip Tip) standing() State {
	if tip.State == Unknown {
		return tip.Was
	}
	return tip.State
}

// Dismiss sets an active tip aside until a time. The time outlasts the episode: a condition that goes and comes back
// before it is dismissed again rather than active.
func (tip Tip) Dismiss(until, now time.Time) (Tip, error) {
	if s := tip.standing(); s != Active && s != Dismissed {
		return tip, fmt.Errorf("dismiss tip %s: it is %s, not active", tip.ID, strings.ReplaceAll(string(s), "_", " "))
	}
	if !until.After(now) {
		return tip, fmt.Errorf("dismiss tip %s: %s is not in the future", tip.ID, until.Format(time.RFC3339))
	}
	tip.State, tip.Was, tip.DismissedUntil = Dismissed, "", until
	return tip, nil
}

// Undismiss takes a dismissal back. A tip without data is then unknown, not active: nobody may act on what is not seen.
func (tip Tip) Undismiss() (Tip, error) {
	if tip.State != Dismissed {
		return tip, fmt.Errorf("undismiss tip %s: it is %s, not dismissed", tip.ID, strings.ReplaceAll(string(tip.State), "_", " "))
	}
	tip.State, tip.DismissedUntil = Active, time.Time{}
	if !tip.NoDataSince.IsZero() {
		tip.State, tip.Was = Unknown, Active
	}
	return tip, nil
}

// Begin marks that the remedy of an active tip runs. Whether it may, with no data or a dismissal, is the caller's to say:
// a tip that is not plainly active is refused.
func (tip Tip) Begin() (Tip, error) {
	if tip.State != Active && tip.State != InProgress {
		return tip, fmt.Errorf("implement tip %s: it is %s, not active", tip.ID, tip.State)
	}
	tip.State = InProgress
	return tip, nil
}

// End marks that the remedy has ended, well or not: the tip is active until its rule clears it. Tips that are not in
// progress stay as they are.
func (tip Tip) End() Tip {
	switch {
	case tip.State == InProgress:
		tip.State = Active
	case tip.State == Unknown && tip.Was == InProgress:
		tip.Was = Active
	}
	return tip
}
