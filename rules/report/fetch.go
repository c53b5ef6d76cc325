package report

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/inventory"
)

// maxPoints bounds how many samples one part of a question answers.
const maxPoints = 2_000_000

// fetcher asks for whole fleets, a metric at a time and the range part by part.
type fetcher struct {
	past     history.Querier
	r        history.Range
	progress func(float64)
	done     int // questions
	of       int
}

// row is one series over the range, by step.
type row struct {
	labels history.Labels
	values []float64
}

// each asks for an expression's value at each step, part by part, and hands on every series of every part, in order of time.
func (f *fetcher) each(ctx context.Context, expr string, take func(history.Series)) error {
	n := f.steps()
	part := 64 // the first part tells how many series there are
	for from := 0; from < n; {
		to := min(from+part, n) // not included
		at := func(i int) time.Time { return f.r.Start.Add(time.Duration(i) * f.r.Step) }
		m, err := f.past.QueryRange(ctx, expr, history.Range{Start: at(from), End: at(to - 1), Step: f.r.Step})
		if err != nil {
			return fmt.Errorf("%s: %w", expr, err)
		}
		for _, s := range m {
			take(s)
		}
		from, part = to, min(max(maxPoints/(len(m)+1), 1), 2000)
		if f.progress != nil {
			f.progress((float64(f.done) + float64(from)/float64(n)) / float64(f.of))
		}
	}
	f.done++
	return nil
}

func (f *fetcher) steps() int { return int(f.r.End.Sub(f.r.Start)/f.r.Step) + 1 }

// ask is an expression's value at each step, in order of labels.
func (f *fetcher) ask(ctx context.Context, expr string) ([]row, error) {
	rows := map[string]*row{}
	err := f.each(ctx, expr, func(s history.Series) {
		key := fmt.Sprint(s.Labels)
		if rows[key] == nil {
			rows[key] = &row{s.Labels, absent(f.steps())}
		}
		onto(rows[key].values, s.Points, f.r)
	})
	if err != nil {
		return nil, err
	}
	out := make([]row, 0, len(rows))
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		out = append(out, *rows[key])
	}
	return out, nil
}

// lastly is a fact's last value, by object.
func (f *fetcher) lastly(ctx context.Context, name string, kind inventory.Kind) (map[inventory.ID]float64, error) {
	out := map[inventory.ID]float64{}
	err := f.each(ctx, fact(name, kind), func(s history.Series) {
		if id, ok := idOf(s.Labels, kind); ok && len(s.Points) > 0 {
			out[id] = s.Points[len(s.Points)-1].V
		}
	})
	return out, err
}

// idOf is the object that a series is of.
func idOf(labels history.Labels, kind inventory.Kind) (inventory.ID, bool) {
	id := inventory.ID{Source: labels.Get("source"), Kind: kind, Ref: labels.Get(idLabel[kind])}
	return id, id.Source != "" && id.Ref != ""
}

// onto writes points where they belong in a range's steps.
func onto(values []float64, points []history.Point, r history.Range) {
	for _, p := range points {
		if i := (p.T - r.Start.UnixMilli()) / r.Step.Milliseconds(); i >= 0 && i < int64(len(values)) {
			values[i] = p.V
		}
	}
}

func absent(n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = math.NaN()
	}
	return out
}

// window is a step as a range of PromQL, less a millisecond: whether a range includes its start differs between versions of Prometheus.
func window(step time.Duration) string { return fmt.Sprintf("[%dms]", step.Milliseconds()-1) }

// idLabel names each kind's label.
var idLabel = map[inventory.Kind]string{
	inventory.KindCluster: "cluster_id", inventory.KindHost: "host_id", inventory.KindVM: "vm_id", inventory.KindMachine: "machine_id",
}

// measured is a gauge's mean over each step. Two servers that scraped the same agent tell one object twice, and one that was renamed is
// two series: both are one object.
func measured(m inventory.Metric, step time.Duration) string {
	return fmt.Sprintf("avg by (source, %s) (avg_over_time(%s%s))", idLabel[m.Desc().Kind], m, window(step))
}

// fact is a fact's value at each step.
func fact(name string, kind inventory.Kind) string {
	return fmt.Sprintf("max by (source, %s) (%s)", idLabel[kind], name)
}

// byObject are an expression's values by object.
func (f *fetcher) byObject(ctx context.Context, expr string, kind inventory.Kind) (map[inventory.ID][]float64, error) {
	rows, err := f.ask(ctx, expr)
	if err != nil {
		return nil, err
	}
	out := make(map[inventory.ID][]float64, len(rows))
	for _, r := range rows {
		if id, ok := idOf(r.labels, kind); ok {
			out[id] = r.values
		}
	}
	return out, nil
}

// told is what an object was called and where it was: where is by step, an index into seen, -1 for nowhere.
type told struct {
	id    inventory.ID
	where []int16
	seen  []history.Labels
}

// info reads an _info family: what an object was called and where it was, step by step.
func (f *fetcher) info(ctx context.Context, name string, kind inventory.Kind, labels ...string) (map[inventory.ID]*told, error) {
	rows, err := f.ask(ctx, fmt.Sprintf("max by (source, %s, %s) (%s)", idLabel[kind], strings.Join(labels, ", "), name))
	if err != nil {
		return nil, err
	}
	out := map[inventory.ID]*told{}
	for _, r := range rows {
		id, ok := idOf(r.labels, kind)
		if !ok {
			continue
		}
		t := out[id]
		if t == nil {
			t = &told{id: id, where: make([]int16, len(r.values))}
			for i := range t.where {
				t.where[i] = -1
			}
			out[id] = t
		}
		if len(t.seen) == math.MaxInt16 {
			continue // more places than steps: no object moves like that
		}
		t.seen = append(t.seen, r.labels)
		for i, v := range r.values {
			if !math.IsNaN(v) {
				t.where[i] = int16(len(t.seen) - 1)
			}
		}
	}
	return out, nil
}

// last is what was told last.
func (t *told) last() history.Labels {
	for i := len(t.where) - 1; i >= 0; i-- {
		if t.where[i] >= 0 {
			return t.seen[t.where[i]]
		}
	}
	return nil
}

// there reports whether the object is there at the end.
func (t *told) there() bool { return t.where[len(t.where)-1] >= 0 }

// at is what was told of the object all through a step: at its end and at the end of the one before. A VM that moved within the step is
// in neither place: part of what was measured is of the other.
func (t *told) at(i int, label string) (value string, ok bool) {
	if t.where[i] < 0 {
		return "", false
	}
	now := t.seen[t.where[i]].Get(label)
	return now, i == 0 || t.where[i-1] < 0 || t.seen[t.where[i-1]].Get(label) == now
}

// in reports whether what was told all through a step is a value; empty is any.
func (t *told) in(i int, label, want string) bool {
	have, ok := t.at(i, label)
	return ok && have == want || want == ""
}

// latest is the last value that is there, and whether there is one.
func latest(v []float64) (float64, bool) {
	for i := len(v) - 1; i >= 0; i-- {
		if !math.IsNaN(v[i]) {
			return v[i], true
		}
	}
	return 0, false
}

// stats are of the values that are there.
type stats struct {
	mean, p95, max float64
	share          float64 // of the steps that have a value
}

// statsOf is not ok if there is no value.
func statsOf(v []float64) (s stats, ok bool) {
	have := make([]float64, 0, len(v))
	for _, x := range v {
		if !math.IsNaN(x) {
			have = append(have, x)
			s.mean += x
		}
	}
	if len(have) == 0 {
		return s, false
	}
	slices.Sort(have)
	s.mean /= float64(len(have))
	s.p95 = have[int(math.Ceil(0.95*float64(len(have))))-1]
	s.max = have[len(have)-1]
	s.share = float64(len(have)) / float64(len(v))
	return s, true
}

// cell is a value that may not be known.
func cell(v float64, known bool) any {
	if !known || math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return v
}

// ratio is of two values of which the second may be none.
func ratio(a, b float64) any { return cell(a/b, b > 0) }
