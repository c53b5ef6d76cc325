package report

import (
	"compress/gzip"
	"os"
	"strings"
	"testing"
)

// TestForecastsHold holds the forecast to what docs/reports.md promises of it, on seeds that it was not made with: each kind of series by
// itself.
func TestForecastsHold(t *testing.T) {
	for _, seed := range []uint64{31_337, 20_261_124} {
		scores, err := Generated(t.Context(), seed, 40, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range scores {
			t.Logf("%+v", s)
			better(t, s)
			covered(t, s)
			switch {
			case s.Growing == 0 && s.Trends > 0.05:
				t.Errorf("seed %d, %s: %.1f %% are said to grow, and none does", seed, s.Kind, 100*s.Trends)
			case s.Growing == 1 && s.Trends < 0.85:
				t.Errorf("seed %d, %s: only %.1f %% are said to grow, and all do", seed, s.Kind, 100*s.Trends)
			case s.Growing == 1 && s.Until < 0.9:
				t.Errorf("seed %d, %s: only %.1f %% of the thresholds were reached when it was said", seed, s.Kind, 100*s.Until)
			}
		}
	}
}

// TestForecastsOfADay does the same on the use of real VMs in a day, one by one and twenty together: it shows no season and no trend.
func TestForecastsOfADay(t *testing.T) {
	f, err := os.Open("testdata/day.csv.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	vms, err := ReadTrace(z)
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range []int{1, 20} {
		s, err := Traced("day", vms, group)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d VMs: %+v", group, s)
		better(t, s)
		covered(t, s)
		if s.Trends > 0 {
			t.Errorf("%d VMs: %.1f %% are said to grow in a day", group, 100*s.Trends)
		}
	}
}

// covered holds that the interval of nine in ten holds nine in ten.
func covered(t *testing.T, s Score) {
	t.Helper()
	if s.Coverage < 0.85 || s.Coverage > 0.95 {
		t.Errorf("%s: the interval of 90 %% holds %.1f %%", s.Kind, 100*s.Coverage)
	}
}

func better(t *testing.T, s Score) {
	t.Helper()
	if s.Series == 0 || s.MASE >= min(s.Last, s.Linear, s.Seasonal) {
		t.Errorf("%s: an error of %.3f, where one without a forecast has %.3f, %.3f or %.3f", s.Kind, s.MASE, s.Last, s.Linear, s.Seasonal)
	}
}

func TestReadTraceRefuses(t *testing.T) {
	for name, text := range map[string]string{"ragged": "a,b\n1,2\n3\n", "no number": "a\nx\n"} {
		if _, err := ReadTrace(strings.NewReader(text)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := Traced("none", nil, 1); err == nil {
		t.Error("a trace of nothing is scored")
	}
}
