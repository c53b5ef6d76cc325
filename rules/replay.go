package rules

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/inventory"
)

// Replay is a set of packs over the past: the fleet is put together again from its series, step by step, and judged by the same
// code that judges it live.
type Replay struct {
	Set       *Set
	Past      history.Querier
	Range     history.Range     // its Step is the time between two evaluations
	Platforms map[string]string // source -> platform; a pack for some platforms judges a source of none that is known
	Progress  func(done float64)
}

// Episode is a tip that would have been, from when its condition began to hold to when it was over.
type Episode struct {
	Tip      Tip       `json:"tip"` // as it was when it became active
	Since    time.Time `json:"since"`
	ActiveAt time.Time `json:"active_at"`
	EndedAt  time.Time `json:"ended_at,omitzero"` // zero: it would still be
}

// maxReplayPoints bounds how many samples a replay holds at a time.
const maxReplayPoints = 5_000_000

// Run replays the range and returns the episodes in the order in which they became active.
func (r Replay) Run(ctx context.Context) ([]Episode, error) {
	if r.Range.Step <= 0 || r.Range.End.Before(r.Range.Start) {
		return nil, fmt.Errorf("replay from %s to %s by %s: there is nothing between", r.Range.Start, r.Range.End, r.Range.Step)
	}
	p := replaying{Replay: r, known: map[inventory.ID]any{}, open: map[string]int{}}
	step := 64 // the first part tells how many samples a step has
	for from := r.Range.Start; !from.After(r.Range.End); {
		to := from.Add(time.Duration(step-1) * r.Range.Step)
		if to.After(r.Range.End) {
			to = r.Range.End
		}
		points, err := p.part(ctx, history.Range{Start: from, End: to, Step: r.Range.Step})
		if err != nil {
			return nil, err
		}
		steps := int(to.Sub(from)/r.Range.Step) + 1
		step = min(max(maxReplayPoints/(points/steps+1), 1), 5000)
		from = to.Add(r.Range.Step)
		if r.Progress != nil {
			r.Progress(min(float64(from.Sub(r.Range.Start))/float64(r.Range.End.Sub(r.Range.Start)+r.Range.Step), 1))
		}
	}
	return p.episodes, nil
}

// errSilent is why a source is down of which history has no object at a time.
var errSilent = errors.New("no series of it at this time")

// replaying is a replay on its way.
type replaying struct {
	Replay
	fleet    *inventory.Fleet
	sources  []string
	up       map[string]bool      // sources that answered at the step before
	known    map[inventory.ID]any // the facts that the fleet was last told
	tips     []Tip
	episodes []Episode
	open     map[string]int // by tip: its episode that has not ended
}

// part replays one part of the range and tells how many samples it read.
func (p *replaying) part(ctx context.Context, r history.Range) (points int, err error) {
	ask := func(expr string) (*column, error) {
		m, err := p.Past.QueryRange(ctx, expr, r)
		if err != nil {
			return nil, fmt.Errorf("replay: %s: %w", expr, err)
		}
		c := newColumn(m)
		points += c.points
		return c, nil
	}
	facts := map[string]*column{}
	for _, name := range factFamilies {
		if facts[name], err = ask(name); err != nil {
			return 0, err
		}
	}
	samples := map[inventory.Metric]*column{}
	for _, metric := range p.Set.metrics() {
		if samples[metric], err = ask(metric.String()); err != nil {
			return 0, err
		}
	}
	queries := map[Query]*column{}
	for _, q := range p.Set.Queries() {
		if queries[q], err = ask(q.Expr); err != nil {
			return 0, err
		}
	}
	for now := r.Start; !now.After(r.End); now = now.Add(r.Step) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if err := p.step(now, facts, samples, queries); err != nil {
			return 0, err
		}
	}
	return points, nil
}

// step is one evaluation.
func (p *replaying) step(now time.Time, facts map[string]*column, samples map[inventory.Metric]*column, queries map[Query]*column) error {
	at := now.UnixMilli()
	told := map[string]history.Vector{}
	for name, c := range facts {
		told[name] = c.at(at)
	}
	deltas := p.deltas(objectsOf(told))
	for metric, c := range samples {
		for _, s := range c.at(at) {
			if id, ok := idOf(s.Labels, metric.Desc().Kind); ok && deltas[id.Source] != nil {
				d := deltas[id.Source]
				d.Samples = append(d.Samples, inventory.SampleSet{ID: id, At: at, Values: []inventory.Value{{Metric: metric, Value: s.Value}}})
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(deltas)) {
		if _, err := p.fleet.Apply(*deltas[name], now); err != nil {
			return fmt.Errorf("replay at %s: %w", now.UTC().Format(time.RFC3339), err)
		}
	}
	if p.fleet == nil {
		return nil // nothing has been seen yet
	}
	p.fleet.Expire(now)
	snap := p.fleet.Snapshot()
	answers := map[Query]Answer{}
	for q, c := range queries {
		answers[q] = p.Set.Join(snap, q, c.at(at))
	}
	findings, _ := p.Set.Eval(Input{Snapshot: snap, Answers: answers, Followed: Follow(p.tips), Now: now})
	tips, changes := Step(p.tips, Turn{Set: p.Set, Snapshot: snap, Findings: findings, Now: now, MaxGap: 5 * p.Range.Step})
	p.tips = tips
	for _, c := range changes {
		p.note(c)
	}
	return nil
}

// note keeps the episodes.
func (p *replaying) note(c Change) {
	i, open := p.open[c.Tip.ID]
	switch {
	case c.Tip.State == Active && !open:
		p.open[c.Tip.ID] = len(p.episodes)
		p.episodes = append(p.episodes, Episode{Tip: c.Tip, Since: c.Tip.Since, ActiveAt: c.Tip.ActiveAt})
	case c.Tip.State == Resolved && open:
		p.episodes[i].EndedAt = c.Tip.ResolvedAt
		delete(p.open, c.Tip.ID)
	}
}

// objects are what one source had at one time.
type objects map[inventory.ID]any

// deltas is what each source tells of its objects: what is new, what changed, what is gone. A source without any object did not
// answer, and tells nothing.
func (p *replaying) deltas(now map[string]objects) map[string]*inventory.Delta {
	for source := range now {
		if !slices.Contains(p.sources, source) {
			p.sources = append(p.sources, source)
			p.fleet, p.known = nil, map[inventory.ID]any{} // a fleet's sources are given when it is made
		}
	}
	if p.fleet == nil && len(p.sources) > 0 {
		var all []inventory.Source
		for _, name := range p.sources {
			all = append(all, inventory.Source{Name: name, Platform: cmp.Or(p.Platforms[name], anyPlatform), Interval: p.Range.Step})
		}
		p.fleet, p.up = inventory.NewFleet(all...), map[string]bool{}
	}
	for _, source := range p.sources {
		if now[source] == nil && p.up[source] {
			p.fleet.Down(source, errSilent)
			p.up[source] = false
		}
	}
	out := map[string]*inventory.Delta{}
	for source, have := range now {
		d := &inventory.Delta{Source: source, Begin: !p.up[source], Synced: !p.up[source]}
		for id, obj := range have {
			if !p.up[source] || !reflect.DeepEqual(p.known[id], obj) {
				put(d, obj)
				p.known[id] = obj
			}
		}
		out[source], p.up[source] = d, true
	}
	for id := range p.known {
		if have := now[id.Source]; have != nil && have[id] == nil {
			out[id.Source].Removed = append(out[id.Source].Removed, id)
			delete(p.known, id)
		}
	}
	return out
}

func put(d *inventory.Delta, obj any) {
	switch o := obj.(type) {
	case inventory.Cluster:
		d.Clusters = append(d.Clusters, o)
	case inventory.Host:
		d.Hosts = append(d.Hosts, o)
	case inventory.VM:
		d.VMs = append(d.VMs, o)
	case inventory.Datastore:
		d.Datastores = append(d.Datastores, o)
	case inventory.Service:
		d.Services = append(d.Services, o)
	}
}

// metrics are the samples that the set's rules read, in conditions and in summaries.
func (s *Set) metrics() []inventory.Metric {
	seen := map[inventory.Metric]bool{}
	for _, r := range s.rules {
		reads := slices.Clone(r.inputs)
		for _, part := range r.summary.parts {
			reads = append(reads, part.expr.reads...)
		}
		for _, f := range reads {
			if f.sample {
				seen[f.metric] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// column is the answer to a range query, to be read step by step.
type column struct {
	series []history.Series
	next   []int
	points int
}

func newColumn(m history.Matrix) *column {
	c := &column{series: m, next: make([]int, len(m))}
	for _, s := range m {
		c.points += len(s.Points)
	}
	return c
}

// at are the samples of a time; times are asked for in order.
func (c *column) at(t int64) history.Vector {
	var out history.Vector
	for i := range c.series {
		points := c.series[i].Points
		for c.next[i] < len(points) && points[c.next[i]].T < t {
			c.next[i]++
		}
		if n := c.next[i]; n < len(points) && points[n].T == t {
			out = append(out, history.Sample{Labels: c.series[i].Labels, Value: points[n].V})
		}
	}
	return out
}
