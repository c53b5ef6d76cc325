package report

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/protip/protip/rules/report/forecast"
)

// BenchmarkFit is one host's CPU over half a year.
func BenchmarkFit(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	s := forecast.Series{Start: start, Step: time.Hour}
	for i := range 180 * 24 {
		s.Values = append(s.Values, 50+float64(i)/500+8*math.Sin(2*math.Pi*float64(i)/24)+3*rng.NormFloat64())
	}
	for b.Loop() {
		m, _ := forecast.Fit(s)
		m.Until(90)
	}
}
