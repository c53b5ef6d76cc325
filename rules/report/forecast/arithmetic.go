package forecast

import (
	"math"
	"slices"
)

// invert inverts a small symmetric matrix by elimination, and gives the logarithm of its determinant.
func invert(a [][]float64) (inverse [][]float64, size float64, ok bool) {
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
			return nil, 0, false
		}
		a[c], a[pivot] = a[pivot], a[c]
		inverse[c], inverse[pivot] = inverse[pivot], inverse[c]
		scale := a[c][c]
		size += math.Log(math.Abs(scale))
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
	return inverse, size, true
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

func dot(a, b []float64) float64 {
	sum := 0.0
	for i := range a {
		sum += a[i] * b[i]
	}
	return sum
}
