package report

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/history/promql"
	"github.com/protip/protip/rules/report/forecast"
)

// Score is how well a forecast did on series whose future is known.
type Score struct {
	Kind   string `json:"kind"`
	Series int    `json:"series"`
	// MASE is the mean absolute error, over that of taking each step's value for the next one's, on average over the series; of the
	// forecast and of what one would do without it.
	MASE     float64 `json:"mase"`
	Last     float64 `json:"mase_last_value"`
	Linear   float64 `json:"mase_predict_linear"`
	Seasonal float64 `json:"mase_seasonal_naive"`
	// Coverage is the share of values within the interval of 90 %.
	Coverage float64 `json:"coverage"`
	// Trends is the share of series that were said to have a trend, Growing that of those that have one.
	Trends  float64 `json:"trends"`
	Growing float64 `json:"growing"`
	// Until is the share of series for which the day that a threshold is reached lay within the interval that was told. It is of those
	// that grow, and whose threshold is within the horizon.
	Until   float64 `json:"until_coverage"`
	reached int
}

// Kinds are the kinds of generated series, each with what is known of its truth.
var kinds = []string{"flat", "trend", "shift", "trend+shift", "gaps", "counter", "bursts", "wander"}

// trial is a series whose future is known.
type trial struct {
	kind   string
	train  forecast.Series
	test   []float64
	season int     // steps of the season that the seasonal-naive forecast repeats
	slope  float64 // of a step, as it is in truth
	cross  float64 // a threshold of the busiest hour, NaN if there is none
	after  float64 // days until it is reached in truth
}

// Generated is a backtest on generated series: so many of each kind, from a seed.
func Generated(ctx context.Context, seed uint64, each int, progress func(float64)) ([]Score, error) {
	var out []Score
	var all []trial
	for k, kind := range kinds {
		var trials []trial
		for i := range each {
			rng := rand.New(rand.NewPCG(seed, uint64(k*1_000_000+i)))
			t, err := generate(ctx, kind, rng)
			if err != nil {
				return nil, err
			}
			trials = append(trials, t)
			if progress != nil {
				progress(float64(k*each+i+1) / float64(len(kinds)*each))
			}
		}
		out = append(out, score(kind, trials))
		all = append(all, trials...)
	}
	return append(out, score("all", all)), nil
}

const (
	hoursOfDay  = 24
	hoursOfWeek = 7 * hoursOfDay
)

// generate makes eight to sixteen weeks of hours, and the two weeks that follow.
func generate(ctx context.Context, kind string, rng *rand.Rand) (trial, error) {
	n := (8 + rng.IntN(9)) * hoursOfWeek
	future := 2 * hoursOfWeek
	start := time.Date(2025, 1, 6, 0, 0, 0, 0, time.UTC)
	level, noise := 20+40*rng.Float64(), 1+3*rng.Float64()
	memory := 0.9 * rng.Float64()
	t := trial{kind: kind, season: hoursOfWeek, cross: math.NaN(), train: forecast.Series{Start: start, Step: time.Hour}}
	if kind == "trend" || kind == "trend+shift" || kind == "gaps" || kind == "counter" {
		t.slope = (3 + 7*rng.Float64()) / (30 * hoursOfDay) // points a month
	}
	season := weekly(rng, 2+10*rng.Float64())
	jump, jumpAt := 0.0, n
	if kind == "shift" || kind == "trend+shift" {
		jump = (6 + 10*rng.Float64()) * float64(1-2*rng.IntN(2))
		jumpAt = n/5 + rng.IntN(3*n/5)
	}
	all := make([]float64, n+future)
	left, walk := 0.0, 0.0
	for i := range all {
		e := rng.NormFloat64()
		if kind == "bursts" {
			e = rng.ExpFloat64() - 1
		}
		left = memory*left + noise*math.Sqrt(1-memory*memory)*e
		all[i] = level + t.slope*float64(i) + season[i%hoursOfWeek] + left
		if i >= jumpAt {
			all[i] += jump
		}
		if kind == "wander" {
			walk += 0.25 * rng.NormFloat64()
			all[i] += walk
		}
	}
	if t.slope > 0 {
		t.after = 10 + 40*rng.Float64()
		t.cross = level + t.slope*(float64(n-1)+t.after*hoursOfDay) + slices.Max(season)
		if jumpAt < n {
			t.cross += jump
		}
	}
	t.train.Values, t.test = all[:n], slices.Clone(all[n:])
	switch kind {
	case "gaps":
		out := rng.IntN(n - 10*hoursOfDay)
		for i := range n {
			if rng.Float64() < 0.15 || i >= out && i < out+8*hoursOfDay {
				t.train.Values[i] = math.NaN()
			}
		}
	case "counter":
		var err error
		if t.train.Values, err = counted(ctx, t.train, rng); err != nil {
			return t, err
		}
	}
	return t, nil
}

// weekly is a week of working days with a busy hour, and quieter weekends.
func weekly(rng *rand.Rand, height float64) []float64 {
	out := make([]float64, hoursOfWeek)
	busy := rng.Float64() * hoursOfDay
	for i := range out {
		out[i] = height * math.Cos(2*math.Pi*(float64(i%hoursOfDay)-busy)/hoursOfDay)
		if i/hoursOfDay >= 5 {
			out[i] = 0.4*out[i] - height/2
		}
	}
	return out
}

// counted is the series as one gets it from a counter that is reset now and then: by rate().
func counted(ctx context.Context, s forecast.Series, rng *rand.Rand) ([]float64, error) {
	const parts = 4 // samples an hour
	c := history.Series{Labels: history.Labels{{Name: "__name__", Value: "c_total"}}}
	total := 0.0
	first := s.Start.Add(-time.Hour)
	for i := range len(s.Values) * parts {
		if rng.IntN(300*parts) == 0 {
			total = 0
		}
		total += max(s.Values[i/parts], 0) * 3600 / parts
		c.Points = append(c.Points, history.Point{T: first.Add(time.Duration(i+1) * time.Hour / parts).UnixMilli(), V: total})
	}
	r := history.Range{Start: s.Start, End: s.Start.Add(time.Duration(len(s.Values)-1) * time.Hour), Step: time.Hour}
	m, err := promql.Memory(c).QueryRange(ctx, "rate(c_total[1h1s])", r)
	if err != nil {
		return nil, err
	}
	out := absent(len(s.Values))
	onto(out, m[0].Points, r)
	return out, nil
}

// score forecasts all trials, and does what one would do without a forecast beside it.
func score(kind string, trials []trial) Score {
	s := Score{Kind: kind}
	within, values := 0, 0
	for _, t := range trials {
		m, ok := forecast.Fit(t.train)
		scale := naive(t.train.Values)
		if !ok || scale == 0 {
			continue
		}
		s.Series++
		last, a, b := baseline(t.train.Values)
		var own, held, line, season, n float64
		for h, truth := range t.test {
			p := m.Ahead(h + 1)
			values++
			if truth >= p.Low && truth <= p.High {
				within++
			}
			n++
			own += math.Abs(truth - p.Value)
			held += math.Abs(truth - last)
			line += math.Abs(truth - (a + b*float64(len(t.train.Values)+h)))
			season += math.Abs(truth - repeated(t.train.Values, t.season, h, last))
		}
		s.MASE += own / n / scale
		s.Last += held / n / scale
		s.Linear += line / n / scale
		s.Seasonal += season / n / scale
		if m.Trend {
			s.Trends++
		}
		if t.slope != 0 {
			s.Growing++
		}
		if !math.IsNaN(t.cross) {
			s.reached++
			if u := m.Until(t.cross); t.after >= u.Low-1 && t.after <= u.High+1 { // days are told as whole ones
				s.Until++
			}
		}
	}
	n := max(float64(s.Series), 1)
	s.MASE, s.Last, s.Linear, s.Seasonal, s.Trends, s.Growing = s.MASE/n, s.Last/n, s.Linear/n, s.Seasonal/n, s.Trends/n, s.Growing/n
	s.Coverage = float64(within) / float64(max(values, 1))
	s.Until /= float64(max(s.reached, 1))
	return s
}

// naive is the mean absolute error of taking each value for the next.
func naive(v []float64) float64 {
	sum, n := 0.0, 0.0
	for i := 1; i < len(v); i++ {
		if d := math.Abs(v[i] - v[i-1]); !math.IsNaN(d) {
			sum += d
			n++
		}
	}
	if n == 0 {
		return 0
	}
	return sum / n
}

// baseline is the last value, and the line that predict_linear draws through all of them.
func baseline(v []float64) (last, a, b float64) {
	var n, x, y, xx, xy float64
	for i, value := range v {
		if math.IsNaN(value) {
			continue
		}
		t := float64(i)
		n, x, y, xx, xy, last = n+1, x+t, y+value, xx+t*t, xy+t*value, value
	}
	b = (n*xy - x*y) / (n*xx - x*x)
	return last, (y - b*x) / n, b
}

// repeated is the value a season before, or as many seasons as it takes to find one.
func repeated(v []float64, season, h int, last float64) float64 {
	for i := len(v) + h - season; i >= 0; i -= season {
		if i < len(v) && !math.IsNaN(v[i]) {
			return v[i]
		}
	}
	return last
}

// maxTraceBytes bounds a trace that is read.
const maxTraceBytes = 64 << 20

// ReadTrace reads a day of utilisation of many VMs: a line of names, and a line of percentages for each five minutes.
func ReadTrace(r io.Reader) ([][]float64, error) {
	lines := bufio.NewScanner(io.LimitReader(r, maxTraceBytes))
	lines.Buffer(nil, 1<<20)
	var out [][]float64
	for at := 0; lines.Scan(); at++ {
		fields := strings.Split(lines.Text(), ",")
		if at == 0 {
			out = make([][]float64, len(fields))
			continue
		}
		if len(fields) != len(out) {
			return nil, fmt.Errorf("line %d has %d values for %d names", at+1, len(fields), len(out))
		}
		for i, f := range fields {
			v, err := strconv.ParseFloat(f, 64)
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", at+1, err)
			}
			out[i] = append(out[i], v)
		}
	}
	return out, lines.Err()
}

// Traced is a backtest on a trace: the sums of groups of VMs, as hosts would have them, of which the last quarter is forecast from
// what was before. In a day there is no season and no trend to be told.
func Traced(kind string, vms [][]float64, group int) (Score, error) {
	if len(vms) < group || group < 1 || len(vms[0]) < 48 {
		return Score{}, fmt.Errorf("%d VMs of a day make no host of %d", len(vms), group)
	}
	var trials []trial
	for part := range slices.Chunk(vms, group) {
		if len(part) < group {
			break
		}
		sum := make([]float64, len(part[0]))
		for _, vm := range part {
			for i, v := range vm {
				sum[i] += v / float64(group)
			}
		}
		cut := len(sum) * 3 / 4
		trials = append(trials, trial{
			kind: kind, test: sum[cut:], season: 12, cross: math.NaN(),
			train: forecast.Series{Start: time.Date(2011, 3, 3, 0, 0, 0, 0, time.UTC), Step: 5 * time.Minute, Values: sum[:cut]},
		})
	}
	return score(kind, trials), nil
}
