package draw

import (
	"math"
	"slices"
	"testing"
)

func TestValue(t *testing.T) {
	for _, tc := range []struct {
		unit string
		v    float64
		want string
	}{
		{"percentunit", 0.1234, "12.3%"},
		{"percentunit", 0, "0%"},
		{"percentunit", 1, "100%"},
		{"percentunit", 0.005, "0.5%"},
		{"bytes", 512, "512 B"},
		{"bytes", 1 << 39, "512 GiB"},
		{"bytes", 1.5 * (1 << 20), "1.5 MiB"},
		{"hertz", 2.6e9, "2.6 GHz"},
		{"Bps", 1.25e8, "125 MB/s"},
		{"pps", 12, "12 p/s"},
		{"s", 0.0012, "1.2 ms"},
		{"s", 0, "0 s"},
		{"s", 90, "90 s"},
		{"s", 300, "5 min"},
		{"s", 86400 * 40, "40 days"},
		{"bool_yes_no", 1, "Yes"},
		{"bool_yes_no", 0, "No"},
		{"short", 1490, "1.49 K"},
		{"short", 154, "154"},
		{"short", math.NaN(), ""},
		{"short", math.Inf(1), ""},
	} {
		if got := value(tc.unit, tc.v); got != tc.want {
			t.Errorf("%g in %s is %q, want %q", tc.v, tc.unit, got, tc.want)
		}
	}
}

func TestTicks(t *testing.T) {
	for _, tc := range []struct {
		unit      string
		low, high float64
		want      []float64
	}{
		{"percentunit", 0, 0.96, []float64{0, 0.25, 0.5, 0.75, 1}},
		{"bytes", 0, 700, []float64{0, 256, 512, 768}},
		{"short", 0, 0, []float64{0, 0.25, 0.5, 0.75, 1}},
		{"short", 0, 4, []float64{0, 1, 2, 3, 4}},
		{"short", -3, 3, []float64{-4, -2, 0, 2, 4}},
	} {
		if got := ticks(tc.unit, tc.low, tc.high); !slices.Equal(got, tc.want) {
			t.Errorf("from %g to %g: %v, want %v", tc.low, tc.high, got, tc.want)
		}
	}
}
