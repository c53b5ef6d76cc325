package forecast

import (
	"math"
)

const (
	// trendStrength is the square of the deviations from zero that a slope needs: one in six hundred has it by chance, one in a hundred
	// once shifts were looked for as well.
	trendStrength = 10.0
	// steady is how likely it is held to be, before a value was seen, that a level does not wander at all.
	steady = 0.5
	// negligible is how unlikely a fit must be beside the likeliest to be left out.
	negligible = 1e-3
)

// wanders are how much a level may wander from one bucket to the next, as variances over that of a bucket's noise. Each is held to be
// as likely as the others, but for the first.
var wanders = [...]float64{0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100}

// fit is a level that may wander, with a slope and shifts: y = level + b t + the shifts before t + noise. How much it wanders nobody
// knows; so it is fitted with each of some values, and each fit counts as much as it is likely.
type fit struct {
	shifts []int     // the buckets that shifts begin with
	by     []float64 // how far they go
	path   []float64 // the level by bucket, shifts and slope included
	slope  float64   // of a bucket; 0 without a trend
	// What is unsure of the last level and the slope, and what each bucket ahead adds to it.
	level, both, slopes, drift float64
}

// at is the level at a place; beyond the last bucket it goes on along the slope.
func (f fit) at(t float64) float64 {
	i := min(max(int(math.Round(t)), 0), len(f.path)-1)
	return f.path[i] + f.slope*(t-float64(i))
}

// variance is how unsure the level is at a place, from the last bucket on.
func (f fit) variance(t float64) float64 {
	ahead := max(t-float64(len(f.path)-1), 0)
	return max(f.level+2*ahead*f.both+ahead*ahead*f.slopes+ahead*f.drift, 0)
}

// fitLevel finds shifts one by one, with a slope beside them so that growth is not taken for shifts; last it asks whether the slope is
// one: whether it is more than chance, and a level that wanders, would make of none.
func fitLevel(y []float64, mayTrend bool) fit {
	if !mayTrend {
		return average(y, nil, false)
	}
	shifts := dropWeak(y, findShifts(y, true), true)
	f := average(y, shifts, true)
	if square(f.slope) >= trendStrength*f.slopes && f.slope != 0 {
		return f
	}
	return average(y, dropWeak(y, shifts, false), false)
}

// walks are the fits for each amount of wandering, and how likely each is.
func walks(y []float64, x [][]float64) (all []walk, likely []float64) {
	best := math.Inf(-1)
	for i, q := range wanders {
		w, ok := newWalk(y, x, q)
		if !ok {
			continue
		}
		prior := (1 - steady) / float64(len(wanders)-1)
		if i == 0 {
			prior = steady
		}
		all, likely = append(all, w), append(likely, w.likelihood()+math.Log(prior))
		best = max(best, likely[len(likely)-1])
	}
	sum := 0.0
	kept := 0
	for i := range likely {
		if share := math.Exp(likely[i] - best); share > negligible {
			all[kept], likely[kept] = all[i], share
			sum += share
			kept++
		}
	}
	all, likely = all[:kept], likely[:kept]
	for i := range likely {
		likely[i] /= sum
	}
	return all, likely
}

// average is the mean of the fits, each as likely as it is, and how unsure that is.
func average(y []float64, shifts []int, sloped bool) fit {
	x := columns(len(y), shifts, sloped)
	all, likely := walks(y, x)
	f := fit{shifts: shifts, by: make([]float64, len(shifts)), path: make([]float64, len(y))}
	if len(all) == 0 {
		if len(shifts) > 0 || sloped {
			return average(y, nil, false)
		}
		return few(y)
	}
	first := 0
	if sloped {
		first = 1
	}
	level := 0.0
	for i, w := range all {
		level += likely[i] * w.at
		if sloped {
			f.slope += likely[i] * w.coef[0]
		}
		for j := range f.by {
			f.by[j] += likely[i] * w.coef[first+j]
		}
		for t, v := range w.smooth(y, x) {
			f.path[t] += likely[i] * v
		}
	}
	for i, w := range all {
		own := w.end
		var both, slopes float64
		for a := range w.coef {
			for b := range w.coef {
				own += w.reach[a] * w.inverse[a][b] * w.reach[b]
			}
			if sloped {
				both += w.reach[a] * w.inverse[a][0]
			}
		}
		d, s := w.at-level, 0.0
		if sloped {
			slopes, s = w.inverse[0][0], w.coef[0]-f.slope
		}
		f.level += likely[i] * (own*w.sigma + d*d)
		f.both += likely[i] * (both*w.sigma + d*s)
		f.slopes += likely[i] * (slopes*w.sigma + s*s)
		f.drift += likely[i] * w.q * w.sigma
	}
	return f
}

// few is the level of what is too short for more: the mean.
func few(y []float64) fit {
	var sum, squares, n float64
	for _, v := range y {
		if !math.IsNaN(v) {
			sum += v
			squares += v * v
			n++
		}
	}
	f := fit{path: make([]float64, len(y))}
	mean := sum / n
	for t := range f.path {
		f.path[t] = mean
	}
	if n > 1 {
		f.level = max(squares/n-mean*mean, 0) / (n - 1)
	}
	return f
}
