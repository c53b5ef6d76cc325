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
