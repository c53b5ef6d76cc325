package console

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/history/promql"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/rules"
)

// patience is how long a page waits for the past. What does not come in time is not drawn.
const patience = 2 * time.Second

// idLabels are the labels by which protip's own series name an object.
var idLabels = map[inventory.Kind]string{
	inventory.KindCluster: "cluster_id", inventory.KindHost: "host_id", inventory.KindVM: "vm_id",
	inventory.KindDatastore: "datastore_id", inventory.KindService: "service_id",
}

// day is the range of a page's charts.
func day(now time.Time) history.Range { return ending(now, 24*time.Hour, 240) }

// dayOf is the last day of an object, or what is known of it where that is much less: a young history is not drawn as a dash at the edge.
func (c *Console) dayOf(ctx context.Context, now time.Time, id inventory.ID, m inventory.Metric) (r history.Range, name string) {
	r = day(now)
	if points := c.points(ctx, m, id, r); len(points) > 0 {
		if known := now.Sub(time.UnixMilli(points[0].T)); known < 12*time.Hour {
			r = ending(now, max(known, 20*time.Minute), 240)
			return r, span(r.End.Sub(r.Start))
		}
	}
	return r, "day"
}

// ending is a range of so many steps, each a multiple of ten seconds.
func ending(end time.Time, length time.Duration, steps int) history.Range {
	step := max((length / time.Duration(steps)).Truncate(10*time.Second), 20*time.Second)
	end = end.Truncate(step)
	return history.Range{Start: end.Add(-length), End: end, Step: step}
}

// of selects an object's series of a metric, as a mean or a rate over each step.
func of(m inventory.Metric, id inventory.ID, step time.Duration) string {
	selector := fmt.Sprintf("%s{source=%s,%s=%s}", m, strconv.Quote(id.Source), idLabels[id.Kind], strconv.Quote(id.Ref))
	if m.Desc().Type == inventory.Counter {
		return fmt.Sprintf("rate(%s[%ds])", selector, int(max(step, 5*time.Minute).Seconds()))
	}
	if step <= time.Minute {
		return selector
	}
	return fmt.Sprintf("avg_over_time(%s[%ds])", selector, int(step.Seconds()))
}

// points are an object's values of a metric; none if there is no history, or none of it.
func (c *Console) points(ctx context.Context, m inventory.Metric, id inventory.ID, r history.Range) []history.Point {
	return c.ask(ctx, of(m, id, r.Step), r)
}

// ask is the one series that an expression about one object gives. Where labels changed, as with a new name, there are several, one after
// the other.
func (c *Console) ask(ctx context.Context, expr string, r history.Range) []history.Point {
	var out []history.Point
	for _, s := range c.matrix(ctx, expr, r) {
		out = append(out, s.Points...)
	}
	slices.SortStableFunc(out, func(a, b history.Point) int { return cmp.Compare(a.T, b.T) })
	return slices.CompactFunc(out, func(a, b history.Point) bool { return a.T == b.T })
}

func (c *Console) matrix(ctx context.Context, expr string, r history.Range) history.Matrix {
	if c.o.Past == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	m, err := c.o.Past.QueryRange(ctx, expr, r)
	if err != nil && ctx.Err() == nil {
		c.o.Log.Warn("chart not drawn", "query", expr, "err", err)
	}
	return m
}

// plotted is a metric of an object, and what the line is called.
type plotted struct {
	name   string
	metric inventory.Metric
}

// over draws metrics of one object over a range. It is empty where nothing is known.
func (c *Console) over(ctx context.Context, r history.Range, id inventory.ID, name, title string, top float64, lines ...plotted) chart {
	out := chart{Name: name, Title: title, Start: r.Start, End: r.End, Step: r.Step, Top: top}
	for _, l := range lines {
		d := l.metric.Desc()
		out.Unit = d.Unit
		if d.Type == inventory.Counter {
			out.Unit += "/s"
		}
		if points := c.points(ctx, l.metric, id, r); len(points) > 0 {
			out.Lines = append(out.Lines, line{Name: l.name, Points: points})
		}
	}
	return out
}

// sight is what a rule's evidence can be drawn of: an expression about the tip's own object.
type sight struct {
	name, title, unit, expr string
}

// sightOf is how to look at the past of one number that a rule looked at; not ok if that is not a series of ours.
func sightOf(snap *inventory.Snapshot, t rules.Tip, e rules.Evidence) (sight, bool) {
	s := sight{name: e.Name, title: e.Name, unit: e.Unit}
	if e.Query != "" {
		expr, ok := narrowed(e.Query, t.Object)
		s.expr = expr
		return s, ok
	}
	kindName, field, ok := strings.Cut(e.Name, ".")
	if !ok {
		return s, false
	}
	kind, err := inventory.ParseKind(kindName)
	if err != nil {
		return s, false
	}
	id, ok := related(snap, t, kind)
	if !ok {
		return s, false
	}
	for _, m := range inventory.MetricsOf(kind) {
		if m.Field() == field && m.Desc().Type == inventory.Gauge {
			s.expr, s.unit, s.title = of(m, id, 0), m.Desc().Unit, strings.TrimSuffix(m.Desc().Help, ".")
			return s, true
		}
	}
	return s, false
}

// narrowed is a query about the whole fleet, asked of one object. Only series of ours carry its labels.
func narrowed(query string, id inventory.ID) (string, bool) {
	names, err := promql.Selectors(query)
	if err != nil || len(names) == 0 {
		return "", false
	}
	for _, name := range names {
		if !strings.HasPrefix(name, "virt_"+id.Kind.String()+"_") {
			return "", false
		}
	}
	expr, err := promql.WithMatchers(query, map[string]string{"source": id.Source, idLabels[id.Kind]: id.Ref})
	return expr, err == nil
}

// related is the object of a kind that a rule on the tip's object reads: itself, or where it is.
func related(snap *inventory.Snapshot, t rules.Tip, kind inventory.Kind) (inventory.ID, bool) {
	if t.Object.Kind == kind {
		return t.Object, true
	}
	vm := t.Object
	if t.Place != nil {
		vm = t.Place.VM
	}
	switch kind {
	case inventory.KindVM:
		return vm, vm.Kind == kind
	case inventory.KindHost:
		if v, ok := snap.VM(vm); ok {
			return v.Host, !v.Host.IsZero()
		}
	case inventory.KindCluster:
		return t.Cluster, !t.Cluster.IsZero()
	}
	return inventory.ID{}, false
}

// thresholds are what the rule compares a number with, as its cause spells it.
func thresholds(cause, name string) []level {
	comparison := regexp.MustCompile(`(?:^|[^\w.])` + regexp.QuoteMeta(name) + `\s*(>=?|<=?)\s*(-?[0-9][0-9.eE+-]*)`)
	var out []level
	for _, m := range comparison.FindAllStringSubmatch(cause, -1) {
		v, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			continue
		}
		text := "threshold: above"
		if m[1][0] == '<' {
			text = "threshold: below"
		}
		out = append(out, level{text, "threshold", v})
	}
	return out
}
