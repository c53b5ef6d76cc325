package forecast

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

var monday = time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)

// hours is a series made of the hour's number, with a little noise.
func hours(n int, value func(i int) float64) Series {
	rng := rand.New(rand.NewPCG(1, 2))
	s := Series{Start: monday, Step: time.Hour}
	for i := range n {
		s.Values = append(s.Values, value(i)+0.5*rng.NormFloat64())
	}
	return s
}

func TestFitTellsApart(t *testing.T) {
	const n = 60 * 24
	wave := func(i int) float64 { return 8 * math.Sin(2*math.Pi*float64(i%24)/24) }
	weekend := func(i int) float64 {
		if i/24%7 >= 5 {
			return -6
		}
		return 0
	}
	for _, tc := range []struct {
		name   string
		value  func(i int) float64
		trend  float64 // a day
		shift  float64
		season time.Duration
	}{
		{"nothing", func(int) float64 { return 40 }, 0, 0, 0},
		{"a day", func(i int) float64 { return 40 + wave(i) }, 0, 0, day},
		{"a week", func(i int) float64 { return 40 + wave(i) + weekend(i) }, 0, 0, week},
		{"growth", func(i int) float64 { return 40 + float64(i)/24/5 + wave(i) + weekend(i) }, 0.2, 0, week},
		{"a shift", func(i int) float64 { return 40 + 15*float64(i/(30*24)) + wave(i) }, 0, 15, day},
		{"growth and a shift", func(i int) float64 { return 70 + float64(i)/24/5 - 15*float64(i/(30*24)) }, 0.2, -15, 0},
	} {
		m, ok := Fit(hours(n, tc.value))
		if !ok || m.Trend != (tc.trend != 0) || m.Season != tc.season {
			t.Errorf("%s: trend %v, season %s", tc.name, m.Trend, m.Season)
		}
		if m.Trend && (m.PerDay.Low > tc.trend || m.PerDay.High < tc.trend) {
			t.Errorf("%s: grows by %+v a day", tc.name, m.PerDay)
		}
		switch {
		case tc.shift == 0 && len(m.Shifts) > 0, tc.shift != 0 && len(m.Shifts) != 1:
			t.Errorf("%s: shifts %+v", tc.name, m.Shifts)
		case tc.shift != 0 && (math.Abs(m.Shifts[0].By-tc.shift) > 1 || !m.Shifts[0].At.Equal(monday.Add(30*day))):
			t.Errorf("%s: shift %+v", tc.name, m.Shifts[0])
		}
	}
}

// TestWalks holds a level that wanders against one that grows: so many weeks of a sum of chances that most of them went somewhere. It
// is a property of many series, since one of them may go as far by chance as it likes.
func TestWalks(t *testing.T) {
	const n = 60
	growing, wide := 0, 0
	for seed := range uint64(n) {
		rng := rand.New(rand.NewPCG(seed, 9))
		s := Series{Start: monday, Step: time.Hour}
		at := 40.0
		for range 8 * 7 * 24 {
			at += 0.3 * rng.NormFloat64()
			s.Values = append(s.Values, at+rng.NormFloat64())
		}
		m, ok := Fit(s)
		if !ok {
			t.Fatal("not fitted")
		}
		if m.Trend {
			growing++
		}
		near, far := m.Ahead(1), m.Ahead(14*24)
		// In two weeks such a level goes as far as 0.3 times the root of 336, in nine of ten cases 1.645 times that.
		if w := far.High - far.Value; w > 6 && w < 14 && near.High-near.Value < w/2 {
			wide++
		}
	}
	if growing > n/20 || wide < n*9/10 {
		t.Errorf("of %d walks %d are said to grow, and %d have an interval as wide as they go", n, growing, wide)
	}
}

// TestSurprises holds the filter against what it stands for: without wandering it is least squares.
func TestSurprises(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	y := make([]float64, 80)
	var n, sx, sy, sxx, sxy float64
	for i := range y {
		if y[i] = 7 + 0.25*float64(i) + rng.NormFloat64(); i%9 == 4 {
			y[i] = math.NaN()
			continue
		}
		x := float64(i)
		n, sx, sy, sxx, sxy = n+1, sx+x, sy+y[i], sxx+x*x, sxy+x*y[i]
	}
	slope := (n*sxy - sx*sy) / (n*sxx - sx*sx)
	last := sy/n + slope*(float64(len(y)-1)-sx/n)
	left := 0.0
	for i, v := range y {
		if !math.IsNaN(v) {
			left += square(v - last - slope*float64(i-len(y)+1))
		}
	}
	w, ok := newWalk(y, columns(len(y), nil, true), 0)
	if !ok || math.Abs(w.coef[0]-slope) > 1e-9 || math.Abs(w.at-last) > 1e-9 || math.Abs(w.left-left) > 1e-6 {
		t.Errorf("slope %v, level %v, squares %v: least squares have %v, %v, %v", w.coef, w.at, w.left, slope, last, left)
	}
	if path := w.smooth(y, columns(len(y), nil, true)); math.Abs(path[0]-(last-slope*79)) > 1e-9 {
		t.Errorf("the path begins at %v, the line at %v", path[0], last-slope*79)
	}
}

func TestUntil(t *testing.T) {
	grows, _ := Fit(hours(60*24, func(i int) float64 { return 40 + float64(i)/24/2 })) // 70 at the end
	if u := grows.Until(90); math.Abs(u.Value-40) > 2 || u.Low > 40 || u.High < 40 || u.High > 60 {
		t.Errorf("20 more at 0.5 a day: %+v", u)
	}
	if u := grows.Until(60); u.Value != 0 || u.High != 0 {
		t.Errorf("what is reached already: %+v", u)
	}
	if u := grows.Until(1e6); !math.IsInf(u.Value, 1) || !math.IsInf(u.Low, 1) {
		t.Errorf("what is beyond the horizon: %+v", u)
	}
	level, _ := Fit(hours(60*24, func(int) float64 { return 40 }))
	if u := level.Until(50); !math.IsInf(u.Value, 1) {
		t.Errorf("no trend: %+v", u)
	}
}

func TestFitOfAlmostNothing(t *testing.T) {
	gaps := make([]float64, 1000)
	for i := range gaps {
		gaps[i] = math.NaN()
	}
	for name, v := range map[string][]float64{"no values": nil, "few": {1, 2, 3}, "gaps": gaps} {
		if _, ok := Fit(Series{Start: monday, Step: time.Hour, Values: v}); ok {
			t.Errorf("%s: fitted", name)
		}
	}
	if m, ok := Fit(hours(3*24, func(i int) float64 { return float64(i) })); !ok || m.Trend {
		t.Error("three days show a trend")
	}
}

// FuzzFit holds that whatever a database answers gives finite numbers, or none.
func FuzzFit(f *testing.F) {
	f.Add(uint64(1), 500, 0.3, 1e9, 1)
	f.Add(uint64(2), 24*60, 0.9, 0.0, 3600)
	f.Fuzz(func(t *testing.T, seed uint64, n int, gaps, scale float64, step int) {
		if n < 0 || n > 3000 || step < 1 || step > 1e6 || !(math.Abs(scale) < 1e100) {
			t.Skip()
		}
		rng := rand.New(rand.NewPCG(seed, 0))
		s := Series{Start: monday, Step: time.Duration(step) * time.Second, Values: make([]float64, n)}
		for i := range s.Values {
			if s.Values[i] = scale * rng.NormFloat64(); rng.Float64() < gaps {
				s.Values[i] = math.NaN()
			}
		}
		m, ok := Fit(s)
		if !ok {
			return
		}
		for _, h := range []int{1, 10, n} {
			p := m.Ahead(h)
			if math.IsNaN(p.Value) || math.IsInf(p.Value, 0) || !(p.Low <= p.Value && p.Value <= p.High) {
				t.Errorf("%d ahead: %+v", h, p)
			}
		}
		if u := m.Until(scale); !(u.Low <= u.Value && u.Value <= u.High) {
			t.Errorf("until %v: %+v", scale, u)
		}
	})
}
