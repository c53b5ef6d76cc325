package console

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/common/model"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/rules"
)

// Bounds of replays on pages: whole ones are protip replay's.
const (
	replayTime    = 2 * time.Minute // to make one, in real time
	shownEpisodes = 200
	drawnRules    = 5
)

// replaySpans are how far back a replay can begin, and the time between two of its evaluations.
var replaySpans = []struct {
	name         string
	length, step time.Duration
}{
	{"6h", 6 * time.Hour, time.Minute},
	{"1d", 24 * time.Hour, time.Minute},
	{"3d", 3 * 24 * time.Hour, 5 * time.Minute},
	{"7d", 7 * 24 * time.Hour, 5 * time.Minute},
}

// spansOf are the choices, with what is chosen.
func spansOf(chosen string) []choice {
	var out []choice
	for _, s := range replaySpans {
		out = append(out, choice{s.name, s.name, s.name == chosen})
	}
	return out
}

// replayPage is what a pack would have reported, or how far that has come.
type replayPage struct {
	Pack     *rules.Pack
	Past     bool
	Spans    []choice
	Since    string
	Step     model.Duration // between two evaluations
	Done     float64
	Over     bool
	Error    string
	Made     time.Time
	Count    int
	Counts   []ruleCount
	Chart    chart
	Episodes []episodeRow
	More     int
	Command  string
}

// replayed is what a replay is of. A pack that is loaded again, with other settings say, is another.
type replayed struct {
	pack  *rules.Pack
	since string
}

// ruleCount is how many tips a rule would have made.
type ruleCount struct {
	Rule  string
	Alert bool // it waits for an alert, and history has none
	Tips  int
}

// episodeRow is a tip that would have been.
type episodeRow struct {
	rules.Episode
	Href   string
	Lasted string
}

func (c *Console) replay(r *http.Request, f *frame) (any, error) {
	name := r.PathValue("name")
	q, err := asked(r, "since")
	if err != nil {
		return nil, err
	}
	set, ok := c.o.Agent.Packs().Only(name)
	if !ok {
		return nil, notFound("No pack %q is loaded.", clean(name))
	}
	names := make([]string, len(replaySpans))
	for i, s := range replaySpans {
		names[i] = s.name
	}
	since, err := one(q, "since", names...)
	if err != nil {
		return nil, err
	}
	span := replaySpans[slices.Index(names, since)]
	f.Title, f.Section, f.Crumbs = "Replay of "+name, "packs", []crumb{{"Packs", "/packs"}}
	p := replayPage{
		Pack: set.Packs()[0], Past: c.o.Past != nil, Spans: spansOf(since), Since: since, Step: model.Duration(span.step),
		Command: fmt.Sprintf("protip replay --pack %s --since %s --step %s", name, since, model.Duration(span.step)),
	}
	if !p.Past {
		return p, nil
	}
	platforms := map[string]string{}
	for _, src := range f.snap.Sources() {
		platforms[src.Name] = src.Platform
	}
	end := f.Now.Truncate(span.step)
	over := history.Range{Start: end.Add(-span.length), End: end, Step: span.step}
	job, err := c.replays.get(replayed{p.Pack, since}, f.Now, replayTime, func(ctx context.Context, progress func(float64)) ([]rules.Episode, error) {
		return rules.Replay{Set: set, Past: c.o.Past, Range: over, Platforms: platforms, Progress: progress}.Run(ctx)
	})
	if err != nil {
		return nil, err
	}
	if p.Done = job.done; !job.over {
		f.Refresh = 2
		return p, nil
	}
	p.Over, p.Made = true, job.asked
	switch {
	case errors.Is(job.err, context.DeadlineExceeded):
		p.Error = fmt.Sprintf("it is not done within %s: choose less, or type %s", replayTime, p.Command)
		return p, nil
	case job.err != nil:
		p.Error = job.err.Error()
		return p, nil
	}
	end = job.asked.Truncate(span.step) // of the replay that is kept
	p.show(job.made, history.Range{Start: end.Add(-span.length), End: end, Step: span.step})
	return p, nil
}

// show makes the page's parts of what was found.
func (p *replayPage) show(episodes []rules.Episode, over history.Range) {
	p.Count = len(episodes)
	by := map[string][]rules.Episode{}
	for _, e := range episodes {
		by[e.Tip.Rule] = append(by[e.Tip.Rule], e)
	}
	for _, rule := range p.Pack.Rules {
		p.Counts = append(p.Counts, ruleCount{rule.Name, rule.When == "", len(by[rule.Name])})
	}
	slices.SortStableFunc(p.Counts, func(a, b ruleCount) int { return cmp.Compare(b.Tips, a.Tips) })
	drawn := ending(over.End, over.End.Sub(over.Start), 240)
	p.Chart = chart{Name: "replay", Title: "Tips at a time", Start: drawn.Start, End: drawn.End, Step: drawn.Step, Top: 4}
	for _, count := range p.Counts[:min(len(p.Counts), drawnRules)] {
		if count.Tips > 0 {
			p.Chart.Lines = append(p.Chart.Lines, line{Name: count.Rule, Points: atATime(by[count.Rule], drawn)})
		}
	}
	p.More = max(0, len(episodes)-shownEpisodes)
	for _, e := range slices.Backward(episodes[p.More:]) {
		row := episodeRow{Episode: e, Href: href(e.Tip.Object), Lasted: "still"}
		if !e.EndedAt.IsZero() {
			row.Lasted = span(e.EndedAt.Sub(e.ActiveAt))
		}
		p.Episodes = append(p.Episodes, row)
	}
}

// atATime is how many of the episodes there were in each step that ends at a point.
func atATime(episodes []rules.Episode, r history.Range) []history.Point {
	var out []history.Point
	for at := r.Start; !at.After(r.End); at = at.Add(r.Step) {
		n := 0
		for _, e := range episodes {
			if !e.ActiveAt.After(at) && (e.EndedAt.IsZero() || e.EndedAt.After(at.Add(-r.Step))) {
				n++
			}
		}
		out = append(out, history.Point{T: at.UnixMilli(), V: float64(n)})
	}
	return out
}
