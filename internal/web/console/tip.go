package console

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/placement"
	"github.com/protip/protip/internal/web"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// How much a tip's page shows.
const (
	shownMoves        = 20
	shownAlternatives = 10
	shownEarlier      = 10
	evidenceCharts    = 4
	readActions       = 300 // of the journal, to find out what became of earlier tips
)

// tipPage is all that is known of one tip.
type tipPage struct {
	rules.Tip
	Rule      *rules.Rule // nil if it is not loaded any more
	Where     string
	WhereHref string
	Charts    []chart
	Facts     []rules.Evidence // that no chart shows

	Plan         *plan // nil where there is none to be made
	PlanError    string
	Alternatives *alternatives

	Under   []remediation.Action // of this tip, under way
	Past    []remediation.Action // of this tip, over
	Earlier []earlier
	Record  record
	Command string
}

// alternatives are the hosts that one of the VMs could go to.
type alternatives struct {
	VM      inventory.ID
	Name    string
	Chosen  inventory.ID
	Ratings []placement.Rating
	More    int
}

// earlier is another tip of the same rule, and what came of it.
type earlier struct {
	rules.Tip
	Actions []remediation.Action
}

// silences are for how long a tip can be put away.
func silences() []choice {
	return []choice{
		{Value: "1h", Name: "1 h"},
		{Value: "8h", Name: "8 h"},
		{Value: "1d", Name: "1 day"},
		{Value: "7d", Name: "7 days"},
		{Value: "30d", Name: "30 days"},
		{Value: "366d", Name: "1 year"},
	}
}

// record is how the remedies of a rule have fared.
type record struct{ Recovered, NoEffect, Worse, Failed int }

// Any reports whether there is a record at all.
func (r record) Any() bool { return r != record{} }

func (c *Console) tip(r *http.Request, f *frame) (any, error) {
	q, err := asked(r, "vm")
	if err != nil {
		return nil, err
	}
	ctx := r.Context()
	t, err := c.o.Agent.Tip(ctx, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	f.Title, f.Section, f.Crumbs = clean(t.Summary), "tips", []crumb{{"Tips", "/"}}
	p := tipPage{Tip: t, Command: "protip tips show " + t.ID}
	p.Where, p.WhereHref = whereOf(f.snap, t)
	p.Rule, _ = c.o.Agent.Packs().Rule(t.Pack, t.Rule)
	actions, err := c.o.Agent.Actions(ctx, remediation.Filter{Limit: readActions})
	if err != nil {
		return nil, err
	}
	own, err := c.o.Agent.Actions(ctx, remediation.Filter{TipID: t.ID, Limit: shownMoves})
	if err != nil {
		return nil, err
	}
	for _, a := range own {
		if !a.State.Final() || a.State == remediation.Unknown {
			p.Under = append(p.Under, a)
		} else {
			p.Past = append(p.Past, a)
		}
	}
	p.draw(ctx, c, f, own)
	if t.State == rules.Active && t.Remedy.Moves() {
		c.planTip(ctx, f, &p, q.Get("vm"))
	}
	p.Earlier, p.Record = earlierLike(t, f.list, actions)
	return p, nil
}

// draw makes a chart of each number that the rule looked at, with what it was compared to.
func (p *tipPage) draw(ctx context.Context, c *Console, f *frame, actions []remediation.Action) {
	r := evidenceRange(p.Tip, f.Now)
	for _, e := range p.Evidence {
		s, ok := sightOf(f.snap, p.Tip, e)
		if !ok || len(p.Charts) >= evidenceCharts || c.o.Past == nil {
			p.Facts = append(p.Facts, e)
			continue
		}
		ch := chart{Name: "evidence-" + e.Name, Title: s.title, Unit: s.unit, Start: r.Start, End: r.End, Step: max(r.Step, 30*time.Second)}
		ch.Lines = []line{{Name: e.Name, Points: c.ask(ctx, s.expr, r)}}
		if ch.Empty() {
			p.Facts = append(p.Facts, e)
			continue
		}
		ch.Levels = append(thresholds(p.Cause, e.Name), goalOf(p.Remedy, e.Name)...)
		ch.Marks = marksOf(p.Tip, actions)
		if first := ch.Lines[0].Points[0].T; first > ch.Start.Add(r.Step).UnixMilli() {
			ch.Start = time.UnixMilli(first) // before it there was nothing
		}
		p.Charts = append(p.Charts, ch)
	}
}

// evidenceRange is from well before the tip's condition to now, or to a while after it was over.
func evidenceRange(t rules.Tip, now time.Time) history.Range {
	end := now
	if !t.ResolvedAt.IsZero() {
		end = earliest(now, t.ResolvedAt.Add(max(20*time.Minute, t.ResolvedAt.Sub(t.Since)/3)))
	}
	length := min(max(end.Sub(t.Since)*3/2, time.Hour), 7*24*time.Hour)
	return ending(end, length, 240)
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// goalOf is what the remedy brings a number down to.
func goalOf(r rules.Remedy, evidence string) []level {
	switch {
	case evidence == "host.cpu_usage_ratio" && r.CPUBelow > 0:
		return []level{{"goal: below", "goal", r.CPUBelow}}
	case evidence == "host.memory_usage_ratio" && r.MemoryBelow > 0:
		return []level{{"goal: below", "goal", r.MemoryBelow}}
	}
	return nil
}

// marksOf are what happened to a tip.
func marksOf(t rules.Tip, actions []remediation.Action) []mark {
	out := []mark{{"", "since", t.Since}}
	if !t.ActiveAt.IsZero() {
		out = append(out, mark{"tip", "raised", t.ActiveAt})
	}
	for _, a := range actions {
		if a.State == remediation.Done && a.Verified && !a.EndedAt.Before(t.Since) {
			out = append(out, mark{"moved", "moved", a.EndedAt})
		}
	}
	if !t.ResolvedAt.IsZero() {
		out = append(out, mark{"resolved", "resolved", t.ResolvedAt})
	}
	return out
}

// planTip asks what would be done, and shows it on both hosts, with the hosts that one of the VMs could go to.
func (c *Console) planTip(ctx context.Context, f *frame, p *tipPage, vm string) {
	proposal, err := c.o.Agent.Propose(ctx, p.ID)
	if err != nil {
		p.PlanError = err.Error()
		return
	}
	p.Plan = planOf(f, proposal, p.Remedy)
	if moves := p.Plan.all; len(moves) > 0 {
		if len(moves) > 1 {
			p.Plan.Others = "/tips/" + url.PathEscape(p.ID)
		}
		i := max(0, slices.IndexFunc(moves, func(m web.ProposedMove) bool { return m.VM.String() == vm }))
		p.Alternatives = c.alternativesTo(ctx, moves[i])
	}
}

// alternativesTo are the hosts that a VM could go to; nil if they cannot be rated.
func (c *Console) alternativesTo(ctx context.Context, m web.ProposedMove) *alternatives {
	ratings, err := c.o.Agent.Place(ctx, placement.VMSpec{ID: m.VM})
	if err != nil || len(ratings) == 0 {
		return nil
	}
	ratings = slices.DeleteFunc(slices.Clone(ratings), func(r placement.Rating) bool { return r.Host == m.From })
	more := max(0, len(ratings)-shownAlternatives)
	return &alternatives{VM: m.VM, Name: m.Name, Chosen: m.To, Ratings: ratings[:len(ratings)-more], More: more}
}

// earlierLike are other tips of the same rule that came to an end, newest first, and how remedies of the rule fared.
func earlierLike(t rules.Tip, list []rules.Tip, actions []remediation.Action) ([]earlier, record) {
	var out []earlier
	var rec record
	for _, other := range list {
		if other.Pack != t.Pack || other.Rule != t.Rule {
			continue
		}
		e := earlier{Tip: other}
		plans := map[string]remediation.Action{} // the moves of one plan share its outcome
		for _, a := range actions {
			if a.TipID == other.ID && a.State.Final() && !a.DryRun {
				e.Actions = append(e.Actions, a)
				plans[cmp.Or(a.PlanID, a.ID)] = a
			}
		}
		for _, a := range plans {
			rec.count(a)
		}
		if other.ID != t.ID && (other.State == rules.Resolved || len(e.Actions) > 0) {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b earlier) int { return b.Since.Compare(a.Since) })
	return out[:min(len(out), shownEarlier)], rec
}

func (r *record) count(a remediation.Action) {
	switch {
	case a.Outcome == remediation.Recovered:
		r.Recovered++
	case a.Outcome == remediation.NoEffect:
		r.NoEffect++
	case a.Outcome == remediation.Worse:
		r.Worse++
	case a.Fault:
		r.Failed++
	}
}
