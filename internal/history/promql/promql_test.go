package promql

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/protip/protip/internal/history"
)

var epoch = time.UnixMilli(1_700_000_000_000)

// load is an engine over lines of series and values, a minute apart.
func load(t testing.TB, lines ...string) *Engine {
	t.Helper()
	var all []history.Series
	for _, line := range lines {
		cut := strings.LastIndex(line, "}") + 1
		s, err := ParseSeries(line[:cut], line[cut:], epoch, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return Memory(all...)
}

func after(minutes float64) time.Time {
	return epoch.Add(time.Duration(minutes * float64(time.Minute)))
}

// text is a vector as a test writes it.
func text(v history.Vector) string {
	var out []string
	for _, s := range v {
		var ls []string
		for _, l := range s.Labels {
			ls = append(ls, l.Name+"="+l.Value)
		}
		out = append(out, fmt.Sprintf("{%s} %v", strings.Join(ls, ","), s.Value))
	}
	return strings.Join(out, "; ")
}

func TestQuery(t *testing.T) {
	e := load(t,
		`cpu{host="a"} 0.5+0.1x5 _ stale`,
		`cpu{host="b"} 1 2 _ 4`,
		`sent_total{host="a"} 0+60x10`,
		`info{host="a",host_id="h1",vm="x"} 1x10`,
	)
	for _, tc := range []struct {
		name, expr string
		minutes    float64
		want       string
	}{
		{"first", `cpu{host="a"}`, 0, "{__name__=cpu,host=a} 0.5"},
		{"order of labels", `info`, 1, "{__name__=info,host=a,host_id=h1,vm=x} 1"},
		{"looks back over a hole", `cpu{host="b"}`, 2.5, "{__name__=cpu,host=b} 2"},
		{"stale is gone at once", `cpu{host="a"}`, 7, ""},
		{"ends after the lookback", `cpu{host="b"}`, 7.9, "{__name__=cpu,host=b} 4"},
		{"and not before", `cpu{host="b"}`, 8.1, ""},
		{"over a range", `avg_over_time(cpu{host="b"}[10m])`, 5, "{host=b} 2.3333333333333335"},
		{"rate", `rate(sent_total[5m])`, 10, "{host=a} 1"},
		{"join", `cpu * on (host) group_left (host_id) info`, 1, "{host=a,host_id=h1} 0.6"},
		{"scalar", `scalar(cpu{host="b"}) + 1`, 1, "{} 3"},
		{"experimental", `double_exponential_smoothing(sent_total[5m], 0.5, 0.5)`, 10, "{host=a} 600"},
		{"subquery", `max_over_time(cpu{host="b"}[3m:1m])`, 4, "{host=b} 4"},
		{"at and offset", `cpu{host="b"} @ 1700000060 offset 1m`, 9, "{__name__=cpu,host=b} 1"},
		{"by regexp", `{__name__=~"c.u",host!="a"}`, 1, "{__name__=cpu,host=b} 2"},
		{"nothing", `absent_metric`, 1, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v, err := e.Query(t.Context(), tc.expr, after(tc.minutes))
			if err != nil {
				t.Fatal(err)
			}
			if got := text(v); got != tc.want {
				t.Errorf("%s = %s, want %s", tc.expr, got, tc.want)
			}
		})
	}
}

func TestQueryRange(t *testing.T) {
	e := load(t, `cpu{host="a"} 1 2 stale 4`)
	m, err := e.QueryRange(t.Context(), `cpu * 2`, history.Range{Start: after(0), End: after(4), Step: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if len(m) != 1 || m[0].Labels.Get("host") != "a" {
		t.Fatalf("answer %v", m)
	}
	var got []string
	for _, p := range m[0].Points {
		got = append(got, fmt.Sprint(time.UnixMilli(p.T).Sub(epoch).Minutes(), "=", p.V))
	}
	if want := "0=2 1=4 3=8 4=8"; strings.Join(got, " ") != want {
		t.Errorf("points %s, want %s", got, want)
	}
}

func TestErrors(t *testing.T) {
	limits := DefaultLimits()
	limits.Samples, limits.Read, limits.Series = 50, 1000, 10
	var many []history.Series
	for i := range 20 {
		s, err := ParseSeries(fmt.Sprintf(`many{i="%d"}`, i), "1x10", epoch, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		many = append(many, s)
	}
	e := New(newMemory(many), limits)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for _, tc := range []struct {
		name, expr string
		ctx        context.Context
		want       error
	}{
		{"syntax", `sum(`, t.Context(), history.ErrQuery},
		{"unknown function", `summ(many)`, t.Context(), history.ErrQuery},
		{"range vector", `many{i="1"}[5m]`, t.Context(), history.ErrQuery},
		{"string", `"x"`, t.Context(), history.ErrQuery},
		{"match", `many{i="1"} * on () many{i=~"[12]"}`, t.Context(), history.ErrQuery},
		{"long", strings.Repeat("1+", maxLength/2) + "1", t.Context(), history.ErrQuery},
		{"samples", `sum_over_time(vector(1)[1h:1s])`, t.Context(), history.ErrTooMuch},
		{"series", `many`, t.Context(), history.ErrTooMuch},
		{"canceled", `many`, canceled, context.Canceled},
		{"late", `many`, late, history.ErrTooMuch},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v, err := e.Query(tc.ctx, tc.expr, after(5))
			if !errors.Is(err, tc.want) {
				t.Errorf("answer %v, error %v, want %v", v, err, tc.want)
			}
		})
	}
	for _, r := range []history.Range{
		{Start: after(0), End: after(1)},
		{Start: after(1), End: after(0), Step: time.Minute},
	} {
		if _, err := e.QueryRange(t.Context(), `vector(1)`, r); !errors.Is(err, history.ErrQuery) {
			t.Errorf("%v: %v", r, err)
		}
	}
	if _, err := e.QueryRange(t.Context(), `vector(1)`, history.Range{Start: after(0), End: after(1e6), Step: time.Minute}); !errors.Is(err, history.ErrTooMuch) {
		t.Errorf("many steps: %v", err)
	}
}

func TestCheck(t *testing.T) {
	for expr, ok := range map[string]bool{
		`avg_over_time(cpu[10m])`: true, `1 + 1`: true, `double_exponential_smoothing(cpu[10m], 0.5, 0.5)`: true,
		`cpu[10m]`: false, `"x"`: false, `avg_over_time(cpu)`: false, ``: false, `cpu{`: false,
	} {
		if err := Check(expr); (err == nil) != ok || err != nil && !errors.Is(err, history.ErrQuery) {
			t.Errorf("Check(%q) = %v", expr, err)
		}
	}
}

func TestSelectors(t *testing.T) {
	got, err := Selectors(`avg_over_time(cpu[10m]) * on (host) group_left () {__name__="info",x="y"} + max(cpu) + {__name__=~"a.*"}`)
	if err != nil || strings.Join(got, " ") != "cpu info" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestParseSeriesRefuses(t *testing.T) {
	for _, tc := range []struct {
		series, values string
		want           error
	}{
		{`cpu{`, "1", history.ErrQuery},
		{`cpu`, "1x", history.ErrQuery},
		{`cpu`, "1x9999999999999", history.ErrTooMuch},
		{`cpu`, "1x600000 1x600000", history.ErrTooMuch},
		{`cpu`, "{{schema:1 sum:1 count:1}}", history.ErrQuery},
	} {
		if s, err := ParseSeries(tc.series, tc.values, epoch, time.Minute); !errors.Is(err, tc.want) {
			t.Errorf("%s %s: %d points, error %v", tc.series, tc.values, len(s.Points), err)
		}
	}
}

func FuzzQuery(f *testing.F) {
	for _, expr := range []string{`rate(cpu[5m])`, `sum by (host) (cpu)`, `count_values("v", cpu)`, `((((1))))`, `label_replace(cpu, "a", "$1", "host", "(.*)")`} {
		f.Add(expr)
	}
	limits := DefaultLimits()
	limits.Timeout, limits.Samples = time.Second, 10_000
	s, err := ParseSeries(`cpu{host="a"}`, "1x10", epoch, time.Minute)
	if err != nil {
		f.Fatal(err)
	}
	e := New(newMemory([]history.Series{s}), limits)
	f.Fuzz(func(t *testing.T, expr string) {
		_ = Check(expr)
		_, _ = e.Query(t.Context(), expr, after(5))
	})
}

func FuzzParseSeries(f *testing.F) {
	f.Add(`cpu{host="a"}`, "1+1x3 _ stale _x5")
	f.Fuzz(func(t *testing.T, series, values string) {
		s, err := ParseSeries(series, values, epoch, time.Minute)
		if err == nil && len(s.Points) > 2*maxPoints {
			t.Errorf("%d points", len(s.Points))
		}
	})
}

func TestWithMatchers(t *testing.T) {
	got, err := WithMatchers(`avg_over_time(cpu{a="b"}[10m]) + on (x) up`, map[string]string{"replica": "r", "b": "\""})
	if want := `avg_over_time(cpu{a="b",b="\"",replica="r"}[10m]) + on (x) up{b="\"",replica="r"}`; err != nil || got != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
	if _, err := WithMatchers(`cpu{`, map[string]string{"a": "b"}); !errors.Is(err, history.ErrQuery) {
		t.Errorf("error %v", err)
	}
}
