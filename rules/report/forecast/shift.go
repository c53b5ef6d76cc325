package forecast

import (
	"math"
	"slices"
)

const (
	maxShifts = 6
	// A shift must explain this many times what chance would, squared deviations for deviations: the best of many places is taken, so
	// that it is more than for one that was known before.
	shiftStrength = 16.0
	// buckets on each side of a shift, at least
	minSegment = 4
)

// coarse are the amounts of wandering that shifts are looked for with.
var coarse = [...]float64{0, 0.01, 0.1, 1, 10}

// findShifts finds shifts one by one: each is where one more explains most, however much the level wanders beside it.
func findShifts(y []float64, sloped bool) []int {
	var shifts []int
	for len(shifts) < maxShifts {
		x := columns(len(y), shifts, sloped)
		best, at, without := math.Inf(-1), -1, math.Inf(-1)
		for _, q := range coarse {
			w, ok := newWalk(y, x, q)
			if !ok {
				continue
			}
			fitted := func(left float64) float64 { return -(w.logs + w.n*math.Log(left)) }
			without = max(without, fitted(w.left))
			for c := minSegment; c <= len(y)-minSegment; c++ {
				if math.IsNaN(y[c]) || slices.ContainsFunc(shifts, func(s int) bool { return c-s < minSegment && s-c < minSegment }) {
					continue
				}
				if explained := w.explains(c); explained > 0 {
					if l := fitted(max(w.left-explained, 1e-12*w.left)); l > best {
						best, at = l, c
					}
				}
			}
		}
		if at < 0 || best-without < shiftStrength {
			break
		}
		shifts = append(shifts, at)
	}
	slices.Sort(shifts)
	return shifts
}

// explains are the squares that a shift from a bucket on would explain beside all else.
func (w walk) explains(c int) float64 {
	var own, behind float64
	with := make([]float64, len(w.made))
	if c <= w.first {
		return 0
	}
	at := 0.0
	for t := c; t < len(w.rest); t++ {
		if w.gain[t] == 0 {
			continue
		}
		d := 1 - at
		v := d * w.weight[t]
		at += w.gain[t] * d
		own += v * v
		behind += v * w.rest[t]
		for i := range with {
			with[i] += v * w.made[i][t]
		}
		if d < 1e-3 && w.q > 0 {
			break // the level has taken it over
		}
	}
	for i := range with {
		own -= with[i] * dot(w.inverse[i], with)
	}
	if own < 1e-6 {
		return 0
	}
	return behind * behind / own
}

// dropWeak drops the weakest shift until all are strong, however much the level wanders.
func dropWeak(y []float64, shifts []int, sloped bool) []int {
	first := 0
	if sloped {
		first = 1
	}
	for len(shifts) > 0 {
		all, likely := walks(y, columns(len(y), shifts, sloped))
		weakest, least := 0, math.Inf(1)
		for j := range shifts {
			strength := 0.0
			for i, w := range all {
				strength += likely[i] * square(w.coef[first+j]) / (w.sigma * w.inverse[first+j][first+j])
			}
			if strength < least {
				weakest, least = j, strength
			}
		}
		if least >= shiftStrength {
			break
		}
		shifts = slices.Delete(slices.Clone(shifts), weakest, weakest+1)
	}
	return shifts
}
