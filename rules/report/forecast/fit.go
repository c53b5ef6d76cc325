package forecast

import (
	"math"
	"slices"
)

const (
	maxShifts = 6
	// A shift must explain this many times what noise would, squared deviations for deviations: the best of many places is taken, so
	// that it is more than for one that was known before.
	shiftStrength = 16.0
	// trendStrength is the square of the deviations from zero that a slope needs: one in six hundred has it by chance, one in a hundred
	// once shifts were looked for as well.
	trendStrength = 10.0
	// Values a week apart lie as far from each other as those a day apart, unless the level wanders: then this many times, in squares.
	wanders = 2.0
	// buckets on each side of a shift, at least
	minSegment = 4
)

// fit is a level with shifts and a slope, by least squares over buckets: y = a + b t + the shifts before t.
type fit struct {
	coef    []float64   // level, slope, shifts
	inverse [][]float64 // (X'X)^-1
	shifts  []int       // the buckets that shifts begin with
	sigma   float64     // variance of a bucket around the fit, with what its neighbours' likeness makes of it
	flat    bool        // the slope is held at zero

	// Of a level that wanders, instead of coefficients: where it was, the variance that each bucket adds, and what is unsure of the last.
	path         []float64
	drift, begin float64
}

func (f fit) columns() int { return 2 + len(f.shifts) }

func (f fit) slope() float64 {
	if f.flat {
		return 0
	}
	return f.coef[1]
}

// slopeVariance is how unsure the slope is. What wanders may have come as far by chance.
func (f fit) slopeVariance() float64 {
	if n := float64(len(f.path)); n > 1 {
		return f.drift / (n - 1)
	}
	return f.sigma * f.inverse[1][1]
}

// row is what the coefficients are multiplied with at a place. Beyond the last bucket all shifts have been.
func row(t float64, shifts []int) []float64 {
	out := make([]float64, 2+len(shifts))
	out[0], out[1] = 1, t
	for i, at := range shifts {
		if t >= float64(at)-0.5 {
			out[2+i] = 1
		}
	}
	return out
}

func (f fit) at(t float64) float64 {
	if n := len(f.path) - 1; n >= 0 {
		i := min(max(int(math.Round(t)), 0), n)
		return f.path[i] + f.slope()*max(t-float64(n), 0)
	}
	v := 0.0
	for i, x := range row(t, f.shifts) {
		if i == 1 && f.flat {
			continue
		}
		v += x * f.coef[i]
	}
	return v
}

// variance is how unsure the level is at a place.
func (f fit) variance(t float64) float64 {
	if n := len(f.path) - 1; n >= 0 {
		ahead := max(t-float64(n), 0)
		v := f.begin + f.drift*ahead
		if !f.flat {
			v += f.slopeVariance() * ahead * ahead
		}
		return v
	}
	x := row(t, f.shifts)
	v := 0.0
	for i := range x {
		for j := range x {
			v += x[i] * f.inverse[i][j] * x[j]
		}
	}
	return f.sigma * v
}

// fitLevel finds shifts one by one, with a slope beside them so that growth is not taken for shifts; then it drops those that are
// not strong enough for how alike neighbouring buckets are; last it asks whether the slope is one.
func fitLevel(y []float64, mayTrend bool) fit {
	if !mayTrend {
		return level(y)
	}
	if drift, noise := wandering(y); drift > 0 {
		return follow(y, drift, noise)
	}
	f, _ := leastSquares(y, nil, false)
	for len(f.shifts) < maxShifts {
		at, strength := bestShift(y, f)
		if strength < shiftStrength {
			break
		}
		f, _ = leastSquares(y, append(slices.Clone(f.shifts), at), false)
	}
	f = dropWeak(y, f)
	if square(f.coef[1]) < trendStrength*f.slopeVariance() {
		f, _ = leastSquares(y, f.shifts, true)
		f = dropWeak(y, f)
	}
	return f
}

// wandering tells whether the level wanders, as a sum of chances does: then values lie further apart the longer one waits, and no line
// drawn through them says where they go. drift is the variance that a bucket adds, 0 if it does not wander; noise is that of a bucket.
// Medians let a shift or two pass for what they are.
func wandering(y []float64) (drift, noise float64) {
	const far = 7
	near, wide := spread(y, 1), spread(y, far)
	if near == 0 || wide < wanders*near {
		return 0, 0
	}
	drift = (wide - near) / (far - 1)
	return drift, max((near-drift)/2, near/20)
}

// spread is the variance of what lies between values so many buckets apart, from the median of the distances.
func spread(y []float64, apart int) float64 {
	var d []float64
	for i := apart; i < len(y); i++ {
		if v := y[i] - y[i-apart]; !math.IsNaN(v) {
			d = append(d, v)
		}
	}
	if len(d) < 2*apart {
		return 0
	}
	centre := median(d)
	for i := range d {
		d[i] = math.Abs(d[i] - centre)
	}
	return square(1.4826 * median(d))
}

func median(v []float64) float64 {
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// follow follows a level that wanders, each bucket by as much as its noise lets believe it (a Kalman filter in its steady state).
func follow(y []float64, drift, noise float64) fit {
	q := drift / noise
	gain := (math.Sqrt(q*q+4*q) - q) / 2
	f := fit{coef: []float64{0, 0}, inverse: matrix(2), sigma: noise, drift: drift, begin: gain * noise, path: make([]float64, len(y))}
	first := slices.IndexFunc(y, func(v float64) bool { return !math.IsNaN(v) })
	if first < 0 {
		return f
	}
	at := y[first]
	for i, v := range y {
		if i > first && !math.IsNaN(v) {
			at += gain * (v - at)
		}
		f.path[i] = at
	}
	f.coef[1] = (at - y[first]) / float64(max(len(y)-1-first, 1))
	f.flat = square(f.coef[1]) < trendStrength*f.slopeVariance()
	return f
}

// dropWeak drops the weakest shift until all are strong.
func dropWeak(y []float64, f fit) fit {
	for len(f.shifts) > 0 {
		weakest, least := -1, shiftStrength
		for i := range f.shifts {
			if s := square(f.coef[2+i]) / (f.sigma * f.inverse[2+i][2+i]); s < least {
				weakest, least = i, s
			}
		}
		if weakest < 0 {
			break
		}
		f, _ = leastSquares(y, slices.Delete(slices.Clone(f.shifts), weakest, weakest+1), f.flat)
	}
	return f
}

// bestShift is the bucket from which one more shift explains most, and how strongly. It needs no fit for each: what a shift explains
// beside the others follows from the remainders behind it, and from how much of its column the others' columns make up.
func bestShift(y []float64, f fit) (at int, strength float64) {
	k := f.columns()
	var n, sum, behind, remainder float64 // behind and remainder are of the buckets from c on
	for t, v := range y {
		if !math.IsNaN(v) {
			n++
			sum += square(v - f.at(float64(t)))
		}
	}
	columns := make([]float64, k)
	for c := len(y) - 1; c >= minSegment; c-- {
		if math.IsNaN(y[c]) {
			continue
		}
		for i, x := range row(float64(c), f.shifts) {
			columns[i] += x
		}
		behind++
		remainder += y[c] - f.at(float64(c))
		if c > len(y)-minSegment || slices.ContainsFunc(f.shifts, func(s int) bool { return c-s < minSegment && s-c < minSegment }) {
			continue
		}
		own := behind
		for i := range columns {
			for j := range columns {
				own -= columns[i] * f.inverse[i][j] * columns[j]
			}
		}
		if own < 1e-6 {
			continue
		}
		explained := square(remainder) / own
		left := max(sum-explained, 1e-12*sum) / max(n-float64(k)-1, 1)
		if s := explained / left; s > strength {
			at, strength = c, s
		}
	}
	return at, strength
}

// level is the fit of what is too short to show a trend.
func level(y []float64) fit {
	f, _ := leastSquares(y, nil, true)
	return f
}

// leastSquares fits the coefficients. It is not ok if the values do not determine them, as where a shift has no value behind it.
func leastSquares(y []float64, shifts []int, flat bool) (f fit, ok bool) {
	f = fit{shifts: shifts, flat: flat}
	k := f.columns()
	a, b := matrix(k), make([]float64, k)
	n := 0.0
	for t, v := range y {
		if math.IsNaN(v) {
			continue
		}
		n++
		x := row(float64(t), shifts)
		if flat {
			x[1] = 0
		}
		for i := range x {
			for j := range x {
				a[i][j] += x[i] * x[j]
			}
			b[i] += x[i] * v
		}
	}
	if flat {
		a[1][1] = 1
	}
	f.coef = make([]float64, k)
	if f.inverse, ok = invert(a); !ok {
		f.inverse = matrix(k)
		return f, false
	}
	for i := range b {
		for j := range b {
			f.coef[i] += f.inverse[i][j] * b[j]
		}
	}
	if flat {
		f.inverse[1][1] = 0
	}
	rest := make([]float64, len(y))
	sum := 0.0
	for t, v := range y {
		if rest[t] = v - f.at(float64(t)); !math.IsNaN(v) {
			sum += square(rest[t])
		}
	}
	alike := likeness(rest, n, k)
	f.sigma = max(sum/max(n-float64(k), 1), 1e-18) * (1 + alike) / (1 - alike)
	return f, true
}

// likeness is how much of a bucket's remainder its neighbour has too, corrected for that a fit makes neighbours look less alike than
// they are.
func likeness(rest []float64, n float64, k int) float64 {
	r := correlation(rest)
	if n > 0 {
		r += (float64(k) + 3*math.Max(r, 0)) / n / 2
	}
	return min(max(r, 0), 0.97)
}

// invert inverts a small symmetric matrix by elimination.
func invert(a [][]float64) (inverse [][]float64, ok bool) {
	k := len(a)
	inverse = matrix(k)
	for i := range inverse {
		inverse[i][i] = 1
	}
	for c := range k {
		pivot := c
		for r := c + 1; r < k; r++ {
			if math.Abs(a[r][c]) > math.Abs(a[pivot][c]) {
				pivot = r
			}
		}
		if math.Abs(a[pivot][c]) < 1e-9 {
			return nil, false
		}
		a[c], a[pivot] = a[pivot], a[c]
		inverse[c], inverse[pivot] = inverse[pivot], inverse[c]
		scale := a[c][c]
		for j := range k {
			a[c][j] /= scale
			inverse[c][j] /= scale
		}
		for r := range k {
			if r == c {
				continue
			}
			by := a[r][c]
			for j := range k {
				a[r][j] -= by * a[c][j]
				inverse[r][j] -= by * inverse[c][j]
			}
		}
	}
	return inverse, true
}

func matrix(k int) [][]float64 {
	out := make([][]float64, k)
	for i := range out {
		out[i] = make([]float64, k)
	}
	return out
}

// buckets are the means of so many values each; one that has less than a quarter of them is a gap.
func buckets(v []float64, per int) []float64 {
	out := make([]float64, 0, len(v)/per+1)
	for part := range slices.Chunk(v, per) {
		sum, n := 0.0, 0
		for _, x := range part {
			if !math.IsNaN(x) {
				sum += x
				n++
			}
		}
		if 4*n < per || n == 0 {
			out = append(out, math.NaN())
			continue
		}
		out = append(out, sum/float64(n))
	}
	return out
}

// running are means over a window around each value.
func running(v []float64, window int) []float64 {
	sum, n := make([]float64, len(v)+1), make([]int, len(v)+1)
	for i, x := range v {
		sum[i+1], n[i+1] = sum[i], n[i]
		if !math.IsNaN(x) {
			sum[i+1] += x
			n[i+1]++
		}
	}
	out := make([]float64, len(v))
	for i := range v {
		from, to := max(i-window/2, 0), min(i+(window+1)/2, len(v))
		if to-from < window { // at the ends, the first and the last whole window
			from, to = max(min(from, len(v)-window), 0), min(max(to, window), len(v))
		}
		out[i] = (sum[to] - sum[from]) / float64(n[to]-n[from])
	}
	return out
}

// correlation is that of each value with the next.
func correlation(v []float64) float64 {
	var both, all, pairs, n float64
	for i, x := range v {
		if math.IsNaN(x) {
			continue
		}
		all += x * x
		n++
		if i > 0 && !math.IsNaN(v[i-1]) {
			both += x * v[i-1]
			pairs++
		}
	}
	if all == 0 || pairs < 3 {
		return 0
	}
	return both / pairs / (all / n)
}

func subtract(a, b []float64) []float64 {
	out := make([]float64, len(a))
	for i := range a {
		out[i] = a[i] - b[i]
	}
	return out
}

func known(v []float64) int {
	n := 0
	for _, x := range v {
		if !math.IsNaN(x) {
			n++
		}
	}
	return n
}

func square(x float64) float64 { return x * x }
