package forecast

import (
	"math"
	"slices"
)

// columns are what the coefficients are multiplied with: time, if there is a slope, and a step for each shift.
func columns(n int, shifts []int, sloped bool) [][]float64 {
	var out [][]float64
	if sloped {
		line := make([]float64, n)
		for t := range line {
			line[t] = float64(t)
		}
		out = append(out, line)
	}
	for _, at := range shifts {
		step := make([]float64, n)
		for t := at; t < n; t++ {
			step[t] = 1
		}
		out = append(out, step)
	}
	return out
}

// filter is a level that wanders by q, followed from bucket to bucket (a Kalman filter, in units of the noise): how much of each
// surprise it takes over, and by what surprises are made alike. The first value that is there begins it.
type filter struct {
	first        int
	gain, weight []float64 // by bucket; 0 in a gap
	logs         float64   // the sum of the logarithms of the surprises' variances
	end          float64   // variance of the level after the last bucket
	n            float64   // surprises
}

func newFilter(y []float64, q float64) filter {
	f := filter{first: slices.IndexFunc(y, func(v float64) bool { return !math.IsNaN(v) }), gain: make([]float64, len(y)), weight: make([]float64, len(y))}
	p := 1.0
	for t := f.first + 1; t < len(y); t++ {
		p += q
		if math.IsNaN(y[t]) {
			continue
		}
		v := p + 1
		f.gain[t], f.weight[t] = p/v, 1/math.Sqrt(v)
		f.logs += math.Log(v)
		f.n++
		p /= v
	}
	f.end = p
	return f
}

// surprises are what a column's values are more than was expected of each, made alike, and what is expected after the last.
func (f filter) surprises(x []float64) (out []float64, end float64) {
	out = make([]float64, len(x))
	at := x[f.first]
	for t := f.first + 1; t < len(x); t++ {
		if f.gain[t] > 0 {
			d := x[t] - at
			out[t] = d * f.weight[t]
			at += f.gain[t] * d
		}
	}
	return out, at
}

// walk is the fit of a level that wanders so much.
type walk struct {
	filter
	q       float64
	coef    []float64
	inverse [][]float64 // of the coefficients, in units of the noise
	sigma   float64     // variance of a bucket's noise
	left    float64     // the squares that are not explained
	size    float64     // the logarithm of the determinant of X'X
	rest    []float64   // what is not explained
	made    [][]float64 // the columns, made alike
	at      float64     // level after the last bucket
	reach   []float64   // how far each column is from what is expected of it, at the end
}

// newWalk fits the coefficients. It is not ok if the values do not determine them.
func newWalk(y []float64, x [][]float64, q float64) (w walk, ok bool) {
	w = walk{filter: newFilter(y, q), q: q}
	k := len(x)
	if w.n < float64(k)+3 {
		return w, false
	}
	ys, end := w.surprises(y)
	w.made, w.reach = make([][]float64, k), make([]float64, k)
	a, b := matrix(k), make([]float64, k)
	for i, column := range x {
		var expected float64
		w.made[i], expected = w.surprises(column)
		w.reach[i] = column[len(column)-1] - expected
		for j := range i + 1 {
			a[i][j] = dot(w.made[i], w.made[j])
			a[j][i] = a[i][j]
		}
		b[i] = dot(w.made[i], ys)
	}
	if w.inverse, w.size, ok = invert(a); !ok {
		return w, false
	}
	w.coef, w.rest, w.at = make([]float64, k), ys, end
	for i := range b {
		w.coef[i] = dot(w.inverse[i], b)
		for t, v := range w.made[i] {
			w.rest[t] -= w.coef[i] * v
		}
		w.at += w.coef[i] * w.reach[i]
	}
	w.left = max(dot(w.rest, w.rest), 1e-18)
	w.sigma = w.left / (w.n - float64(k))
	return w, true
}

// likelihood is the logarithm of how likely the values are with this much wandering, whatever level, slope and shifts.
func (w walk) likelihood() float64 {
	return -(w.logs + w.size + (w.n-float64(len(w.coef)))*math.Log(w.left)) / 2
}

// smooth is the level by bucket as all values tell it, those after it too, with slope and shifts.
func (w walk) smooth(y []float64, x [][]float64) []float64 {
	n := len(y)
	known := func(t int) float64 {
		v := 0.0
		for i := range x {
			v += w.coef[i] * x[i][t]
		}
		return v
	}
	at, p := make([]float64, n), make([]float64, n) // filtered
	for t := w.first; t < n; t++ {
		if t == w.first {
			at[t], p[t] = y[t]-known(t), 1
			continue
		}
		at[t], p[t] = at[t-1], p[t-1]+w.q
		if w.gain[t] > 0 {
			at[t] += w.gain[t] * (y[t] - known(t) - at[t])
			p[t] *= 1 - w.gain[t]
		}
	}
	for t := n - 2; t >= w.first; t-- {
		at[t] += p[t] / (p[t] + w.q) * (at[t+1] - at[t])
	}
	for t := range at {
		if t < w.first {
			at[t] = at[w.first]
		}
	}
	for t := range at {
		at[t] += known(t)
	}
	return at
}
