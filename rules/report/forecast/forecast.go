// Package forecast tells growth from what only looks like it: a week's ups and downs, a level that jumped once, noise.
// It promises an interval with every number, "no trend" where the values show none, and the same answer for the same values.
// It is pure: it must not import anything but the standard library.
package forecast

import (
	"math"
	"time"
)

const (
	day  = 24 * time.Hour
	week = 7 * day

	// trendAfter is the shortest history that may show a trend: in less, a week's ups and downs look like one.
	trendAfter = 2 * week
	// z90 is the 95th percentile of the normal distribution: an interval of 90 % lies within as many deviations.
	z90 = 1.645
	// fewest values that something is said of
	fewest = 12
	// unseenDay is how far the hours of a day lie from its mean, as a deviation over the mean, where fewer than two days were seen: that
	// there are busier hours than others is sure, and which they are is not.
	unseenDay = 0.15
)

// Series is a quantity at equal distances of time. NaN is a gap: absent is not zero.
type Series struct {
	Start  time.Time
	Step   time.Duration
	Values []float64
}

// at is the time of a value that may be beyond the end.
func (s Series) at(i int) time.Time { return s.Start.Add(time.Duration(i) * s.Step) }

// Shift is a level that jumped once and stayed there. It is no growth.
type Shift struct {
	At time.Time `json:"at"`
	By float64   `json:"by"`
}

// Point is a forecast: the value that is as likely too high as too low, and the interval that holds nine of ten.
type Point struct {
	Value float64 `json:"value"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
}

// Model is what a series was found to be made of: a level, a trend, a season, shifts, and what is left.
type Model struct {
	// Trend tells whether there is one. PerDay is then the growth, with its interval of 90 %.
	Trend  bool
	PerDay Point
	Shifts []Shift
	// Season is the length of what repeats: a week, a day or nothing.
	Season time.Duration
	// Level is the expected value now, without season; Busy is the same in the busiest hour of the season.
	Level, Busy float64

	series  Series
	per     int // steps of a bucket
	fit     fit
	profile []float64 // by phase of the season, the mean is 0
	memory  float64   // how much of a step's remainder is left in the next, 0..1
	last    float64   // the last remainder
	lastAt  int       // and its place
	noise   float64   // variance of remainders
}

// Fit finds what a series is made of. It is false if there is too little to say anything: fewer than a dozen values, or gaps all over.
func Fit(s Series) (Model, bool) {
	m := Model{series: s}
	if s.Step <= 0 || known(s.Values) < fewest {
		return m, false
	}
	m.per = perBucket(s)
	if known(buckets(s.Values, m.per)) < 3 {
		return m, false
	}
	flat := running(s.Values, max(int(week/s.Step), 1))
	m.findSeason(subtract(s.Values, flat))
	for range 3 { // the season is cleaner once level and trend are known, and they once the season is
		m.fit = fitLevel(buckets(m.unseasoned(), m.per), s.Step*time.Duration(m.per) >= day)
		m.findSeason(m.remainders(false))
	}
	m.Trend = m.fit.slope != 0
	m.judgeRemainder()
	m.describe()
	return m, true
}

// perBucket is how many steps make a day, or an hour of what is too short to show a trend. A series of longer steps is judged step by
// step.
func perBucket(s Series) int {
	if s.Step*time.Duration(len(s.Values)) >= trendAfter {
		return max(int(day/s.Step), 1)
	}
	return max(min(int(time.Hour/s.Step), len(s.Values)/fewest), 1)
}

// bucketOf is the place of a step on the scale of buckets; the middle of the first bucket is 0.
func (m *Model) bucketOf(i int) float64 {
	per := float64(m.per)
	return (float64(i)+0.5)/per - 0.5
}

// level is the expected value of a step without its season.
func (m *Model) level(i int) float64 { return m.fit.at(m.bucketOf(i)) }

// seasonal is what the season adds at a step.
func (m *Model) seasonal(i int) float64 {
	if len(m.profile) == 0 {
		return 0
	}
	return m.profile[i%len(m.profile)]
}

// unseasoned are the values without their season.
func (m *Model) unseasoned() []float64 {
	out := make([]float64, len(m.series.Values))
	for i, v := range m.series.Values {
		out[i] = v - m.seasonal(i)
	}
	return out
}

// remainders are what level and trend, and the season if it is wanted, do not explain.
func (m *Model) remainders(season bool) []float64 {
	out := make([]float64, len(m.series.Values))
	for i, v := range m.series.Values {
		out[i] = v - m.level(i)
		if season {
			out[i] -= m.seasonal(i)
		}
	}
	return out
}

// findSeason looks for what repeats daily, and weekly beside it.
func (m *Model) findSeason(v []float64) {
	perDay, perWeek := int(day/m.series.Step), int(week/m.series.Step)
	m.profile, m.Season = nil, 0
	daily := profile(v, perDay)
	if daily != nil {
		m.profile, m.Season = daily, day
	}
	rest := make([]float64, len(v))
	for i := range v {
		rest[i] = v[i] - m.seasonal(i)
	}
	weekly := profile(rest, perWeek)
	if weekly == nil {
		return
	}
	for i := range weekly {
		weekly[i] += m.seasonal(i)
	}
	m.profile, m.Season = weekly, week
}

// profile is the mean of each phase, drawn towards zero by the share of it that noise explains; nil if that is most of it, or the
// period was not seen twice.
func profile(v []float64, period int) []float64 {
	if period < 2 || known(v) < 2*period || len(v) < 2*period {
		return nil
	}
	mean, n := make([]float64, period), make([]float64, period)
	for i, x := range v {
		if !math.IsNaN(x) {
			mean[i%period] += x
			n[i%period]++
		}
	}
	for p := range mean {
		if n[p] < 2 {
			return nil
		}
		mean[p] /= n[p]
	}
	var within, freedom float64
	for i, x := range v {
		if !math.IsNaN(x) {
			within += square(x - mean[i%period])
			freedom++
		}
	}
	within /= max(freedom-float64(period), 1)
	var between, chance, centre float64
	for p := range mean {
		centre += mean[p] / float64(period)
	}
	for p := range mean {
		between += square(mean[p]-centre) / float64(period)
		chance += within / n[p] / float64(period)
	}
	if between <= 1.3*chance {
		return nil
	}
	keep := 1 - chance/between
	for p := range mean {
		mean[p] = keep * (mean[p] - centre)
	}
	return mean
}

// judgeRemainder finds how much of what is left is remembered, and how much the level wanders.
func (m *Model) judgeRemainder() {
	rest := m.remainders(true)
	m.memory = min(max(correlation(rest), 0), 0.999)
	var sum, n float64
	for i, r := range rest {
		if !math.IsNaN(r) {
			sum += r * r
			n++
			m.last, m.lastAt = r, i
		}
	}
	free := 2 + float64(len(m.fit.shifts)) + float64(len(m.profile))/2 // drawn towards zero, a profile takes less freedom
	m.noise = sum / max(n-free, n/2)
}

// describe fills in what is told of the model.
func (m *Model) describe() {
	days := float64(m.per) * m.series.Step.Hours() / 24 // of a bucket
	if slope := m.fit.slope; m.Trend {
		dev := z90 * math.Sqrt(m.fit.slopes)
		m.PerDay = Point{slope / days, (slope - dev) / days, (slope + dev) / days}
	}
	for i, at := range m.fit.shifts {
		m.Shifts = append(m.Shifts, Shift{At: m.series.at(at * m.per), By: m.fit.by[i]})
	}
	end := len(m.series.Values) - 1
	m.Level = m.level(end)
	m.Busy = m.Level
	for _, p := range m.profile {
		m.Busy = max(m.Busy, m.Level+p)
	}
}

// Ahead is the forecast of the value so many steps after the end of the series.
func (m Model) Ahead(steps int) Point {
	i := len(m.series.Values) - 1 + steps
	ahead := float64(i - m.lastAt)
	fades := math.Pow(m.memory, ahead)
	v := m.level(i) + m.seasonal(i) + fades*m.last
	variance := m.levelVariance(i) + m.noise*(1-fades*fades) + m.seasonVariance()
	if m.series.Step*time.Duration(len(m.series.Values)) < 2*day {
		hours := min(float64(steps)*m.series.Step.Hours(), 12)
		variance += square(unseenDay*m.level(i)) * (1 - math.Cos(math.Pi*hours/12))
	}
	dev := z90 * math.Sqrt(variance)
	return Point{v, v - dev, v + dev}
}

// levelVariance is how unsure the level is at a step: of what was fitted, and of what wanders until then.
func (m Model) levelVariance(i int) float64 { return m.fit.variance(m.bucketOf(i)) }

// seasonVariance is how unsure each phase of the season is.
func (m Model) seasonVariance() float64 {
	n := len(m.profile)
	return m.noise * float64(n) / float64(max(known(m.series.Values), n))
}

// Horizon is how far a forecast reaches: as far as the history that it is made of, twice.
func (m Model) Horizon() time.Duration {
	return 2 * m.series.Step * time.Duration(len(m.series.Values))
}

// Until tells when the season's busiest hour is expected to reach a threshold: days from the end of the series. Low is the
// earliest and High the latest of nine in ten; +Inf is not within the horizon. Without a trend Value and High are +Inf unless the threshold
// is reached already.
func (m Model) Until(threshold float64) Point {
	never := math.Inf(1)
	out := Point{never, never, never}
	end := len(m.series.Values) - 1
	per := m.per
	busy := m.Busy - m.Level
	for i, d := end, 0.0; d <= m.Horizon().Hours()/24; i, d = i+per, d+float64(per)*m.series.Step.Hours()/24 {
		v := m.level(i) + busy
		dev := z90 * math.Sqrt(m.levelVariance(i)+m.seasonVariance())
		if v+dev >= threshold {
			out.Low = min(out.Low, d)
		}
		if v >= threshold {
			out.Value = min(out.Value, d)
		}
		if v-dev >= threshold {
			out.High = min(out.High, d)
			break
		}
	}
	return out
}
