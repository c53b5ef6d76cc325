package promql

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	prom "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/protip/protip/internal/history"
)

// Stale is the value that says that a series has no value from here on.
var Stale = math.Float64frombits(value.StaleNaN)

// maxPoints bounds one series that is written down: 0x1000000000 is short and would not fit into memory.
const maxPoints = 1_000_000

// Memory answers from the given series alone, within the default limits. It is for tests of packs and for what was read from
// elsewhere. Each series' points are in order of time, and no two series have the same labels.
func Memory(series ...history.Series) *Engine { return Limited(DefaultLimits(), series...) }

// Limited is Memory within other limits.
func Limited(limits Limits, series ...history.Series) *Engine { return New(newMemory(series), limits) }

// ParseSeries reads a series as promtool writes it in tests of rules: its name and labels, and its values from start on, one
// each interval: "1 2 3", "1+0.5x10", "0x5", "_" for none, "_x5", "stale".
func ParseSeries(series, values string, start time.Time, interval time.Duration) (history.Series, error) {
	if err := countPoints(values); err != nil {
		return history.Series{}, fmt.Errorf("series %s: %w", short(series), err)
	}
	ls, sequence, err := newParser().ParseSeriesDesc(series + " " + values)
	if err != nil {
		return history.Series{}, fmt.Errorf("series %s: %w: %w", short(series), history.ErrQuery, err)
	}
	out := history.Series{}
	out.Labels, _ = plain(ls, nil)
	for i, v := range sequence {
		switch {
		case v.Histogram != nil:
			return history.Series{}, fmt.Errorf("series %s: %w", short(series), errHistogram)
		case !v.Omitted:
			out.Points = append(out.Points, history.Point{T: start.Add(time.Duration(i) * interval).UnixMilli(), V: v.Value})
		}
	}
	return out, nil
}

// countPoints refuses what would unfold to more than maxPoints: the parser unfolds before anybody could look.
func countPoints(values string) error {
	total := 0
	for i := 0; i < len(values); i++ {
		if values[i] != 'x' && values[i] != 'X' {
			continue
		}
		n := 0
		for i+1 < len(values) && values[i+1] >= '0' && values[i+1] <= '9' && n <= maxPoints {
			i++
			n = n*10 + int(values[i]-'0')
		}
		if total += n; total > maxPoints {
			return fmt.Errorf("%w: more than %d values", history.ErrTooMuch, maxPoints)
		}
	}
	return nil
}

// memory is a storage of given series, sorted by their labels.
type memory struct {
	series []prom.Series
	byName map[string][]int
}

var (
	_ storage.Queryable = (*memory)(nil)
	_ storage.Querier   = (*memoryQuerier)(nil)
)

func newMemory(series []history.Series) *memory {
	m := &memory{series: make([]prom.Series, len(series)), byName: map[string][]int{}}
	var b labels.ScratchBuilder
	for i, s := range series {
		b.Reset()
		for _, l := range s.Labels {
			b.Add(l.Name, l.Value)
		}
		b.Sort()
		m.series[i].Metric = b.Labels()
		m.series[i].Floats = make([]prom.FPoint, len(s.Points))
		for j, p := range s.Points {
			m.series[i].Floats[j] = prom.FPoint{T: p.T, F: p.V}
		}
	}
	slices.SortStableFunc(m.series, func(a, b prom.Series) int { return labels.Compare(a.Metric, b.Metric) })
	for i, s := range m.series {
		name := s.Metric.Get(model.MetricNameLabel)
		m.byName[name] = append(m.byName[name], i)
	}
	return m
}

func (m *memory) Querier(mint, maxt int64) (storage.Querier, error) {
	return &memoryQuerier{m, mint, maxt}, nil
}

type memoryQuerier struct {
	*memory
	mint, maxt int64
}

func (q *memoryQuerier) Close() error { return nil }

var errNoLabels = errors.New("series in memory have no index of labels")

func (q *memoryQuerier) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, errNoLabels
}

func (q *memoryQuerier) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, errNoLabels
}

func (q *memoryQuerier) Select(_ context.Context, _ bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	mint, maxt := q.mint, q.maxt
	if hints != nil {
		mint, maxt = hints.Start, hints.End
	}
	var found []storage.Series
	for _, i := range q.candidates(matchers) {
		if !matches(q.series[i].Metric, matchers) {
			continue
		}
		points := q.series[i].Floats
		from := sort.Search(len(points), func(i int) bool { return points[i].T >= mint })
		to := sort.Search(len(points), func(i int) bool { return points[i].T > maxt })
		if from < to {
			found = append(found, prom.NewStorageSeries(prom.Series{Metric: q.series[i].Metric, Floats: points[from:to]}))
		}
	}
	return &list{series: found, at: -1}
}

// candidates are the series that a matcher of the name leaves, all if there is none.
func (q *memoryQuerier) candidates(matchers []*labels.Matcher) []int {
	for _, m := range matchers {
		if m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual {
			return q.byName[m.Value]
		}
	}
	all := make([]int, len(q.series))
	for i := range all {
		all[i] = i
	}
	return all
}

func matches(ls labels.Labels, matchers []*labels.Matcher) bool {
	for _, m := range matchers {
		if !m.Matches(ls.Get(m.Name)) {
			return false
		}
	}
	return true
}

// list is a set of series in order.
type list struct {
	series []storage.Series
	at     int
}

var _ storage.SeriesSet = (*list)(nil)

func (l *list) Next() bool                        { l.at++; return l.at < len(l.series) }
func (l *list) At() storage.Series                { return l.series[l.at] }
func (l *list) Err() error                        { return nil }
func (l *list) Warnings() annotations.Annotations { return nil }
