package tsdb

import (
	"math"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	prom "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/protip/protip/internal/inventory"
)

// step is the distance of roll-ups, and as long as the engine looks back: so an instant selector sees exactly one of them.
const step = int64(5 * 60 * 1000)

// highest is what a family's name ends in for the highest sample of each step; its own name is the mean's.
const highest = ":max5m"

// how a family is rolled up.
type how uint8

const (
	last how = iota // counters and facts
	mean            // what is measured
	most            // the highest of what is measured
)

// howOf tells how a family of that name is rolled up.
func howOf(name string) how {
	if averaged[name] {
		return mean
	}
	return last
}

// averaged are the measured gauges.
var averaged = func() map[string]bool {
	out := map[string]bool{}
	for _, kind := range []inventory.Kind{
		inventory.KindCluster, inventory.KindHost, inventory.KindVM, inventory.KindDatastore, inventory.KindService, inventory.KindMachine,
	} {
		for _, m := range inventory.MetricsOf(kind) {
			if m.Desc().Type == inventory.Gauge {
				out[m.String()] = true
			}
		}
	}
	return out
}()

// rollUp are the roll-ups of a series' raw samples with times in [mint, maxt], which are multiples of step: that at t is of the
// samples in (t-step, t]. A step at whose end the series was over has none: what a roll-up shows was true at its time, so that no
// object is in two places.
func rollUp(dst []prom.FPoint, it chunkenc.Iterator, h how, mint, maxt int64) ([]prom.FPoint, error) {
	var (
		at       int64 // of the step under way
		n        float64
		sum, max float64
		lastV    float64
	)
	flush := func() {
		if n == 0 || value.IsStaleNaN(lastV) {
			return
		}
		v := lastV
		switch h {
		case mean:
			v = round(sum / n)
		case most:
			v = max
		}
		dst = append(dst, prom.FPoint{T: at, F: v})
	}
	for typ := it.Seek(mint - step + 1); typ != chunkenc.ValNone; typ = it.Next() {
		if typ != chunkenc.ValFloat {
			continue
		}
		t, v := it.At()
		if t > maxt {
			break
		}
		if end := ceil(t); end != at {
			flush()
			at, n, sum, max = end, 0, 0, math.Inf(-1)
		}
		if lastV = v; !value.IsStaleNaN(v) {
			n++
			sum += v
			max = math.Max(max, v)
		}
	}
	flush()
	return dst, it.Err()
}

// ceil is the first multiple of step that is not before t.
func ceil(t int64) int64 {
	if r := t % step; r > 0 {
		return t + step - r
	}
	return t
}

// round keeps 20 bits of a mean's mantissa, a millionth of it: the bits below say nothing, and would take most of the disk.
func round(v float64) float64 {
	const drop = 52 - 20
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return v
	}
	return math.Float64frombits((math.Float64bits(v) + 1<<(drop-1)) &^ (1<<drop - 1))
}

// rolling is a set of raw series, rolled up as they are read.
type rolling struct {
	storage.SeriesSet
	how        how
	rename     string // what the name gets appended
	mint, maxt int64
}

var _ storage.SeriesSet = (*rolling)(nil)

// Next leaves out what has no highest: counters and facts.
func (r *rolling) Next() bool {
	for r.SeriesSet.Next() {
		if r.how != most || howOf(r.SeriesSet.At().Labels().Get(model.MetricNameLabel)) == mean {
			return true
		}
	}
	return false
}

func (r *rolling) At() storage.Series { return &rolledSeries{r.SeriesSet.At(), r} }

type rolledSeries struct {
	storage.Series
	of *rolling
}

func (s *rolledSeries) Labels() labels.Labels {
	ls := s.Series.Labels()
	if s.of.rename == "" {
		return ls
	}
	return renamed(ls, s.of.rename)
}

func (s *rolledSeries) Iterator(it chunkenc.Iterator) chunkenc.Iterator {
	h := s.of.how
	if h != most {
		h = howOf(s.Series.Labels().Get(model.MetricNameLabel))
	}
	points, err := rollUp(nil, s.Series.Iterator(nil), h, s.of.mint, s.of.maxt)
	if err != nil {
		return failed{chunkenc.NewNopIterator(), err}
	}
	return prom.NewStorageSeries(prom.Series{Floats: points}).Iterator(it)
}

type failed struct {
	chunkenc.Iterator
	err error
}

func (f failed) Err() error { return f.err }

func renamed(ls labels.Labels, suffix string) labels.Labels {
	b := labels.NewBuilder(ls)
	b.Set(model.MetricNameLabel, ls.Get(model.MetricNameLabel)+suffix)
	return b.Labels()
}

// sourceOf are the matchers of the raw series that the wanted roll-ups are made of, and how.
func sourceOf(matchers []*labels.Matcher) (raw []*labels.Matcher, h how, rename string) {
	for i, m := range matchers {
		if name, ok := strings.CutSuffix(m.Value, highest); ok && m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual {
			raw = append(append(raw, matchers[:i]...), matchers[i+1:]...)
			return append(raw, labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, name)), most, highest
		}
	}
	return matchers, mean, ""
}

// emptySet has no series, and maybe an error.
type emptySet struct{ err error }

var _ storage.SeriesSet = emptySet{}

func (emptySet) Next() bool                        { return false }
func (emptySet) At() storage.Series                { return nil }
func (e emptySet) Err() error                      { return e.err }
func (emptySet) Warnings() annotations.Annotations { return nil }
