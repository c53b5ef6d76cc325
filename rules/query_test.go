package rules

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/history/promql"
	"github.com/protip/protip/internal/inventory"
)

// withRule is a pack whose one rule judges what PromQL says of hosts.
func withRule(with, when, more string) string {
	return fmt.Sprintf(`pack: p
version: 1.0.0
description: d
%srules:
  - name: R
    on: host
    with: %s
    when: %s
    severity: warning
    summary: "{{host.name}} {{percent(cpu)}}"
    remedy: {action: none}
`, more, with, when)
}

// series is one sample of a series at noon.
func series(t *testing.T, metric string, value float64) history.Series {
	t.Helper()
	s, err := promql.ParseSeries(metric, fmt.Sprint(value), noon, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWith(t *testing.T) {
	const own = `virt_host_cpu_usage_ratio{source="vc",host="h",host_id="h"}`
	for name, tc := range map[string]struct {
		with, when, more string
		series           map[string]float64
		want             Verdict
		err              error
	}{
		"above":             {"{cpu: virt_host_cpu_usage_ratio}", "cpu > 0.8", "", map[string]float64{own: 0.9}, True, nil},
		"below":             {"{cpu: virt_host_cpu_usage_ratio}", "cpu > 0.8", "", map[string]float64{own: 0.7}, False, nil},
		"beside a sample":   {"{cpu: virt_host_cpu_usage_ratio}", "cpu > 0.8 && host.cpu_usage_ratio > 0.5", "", map[string]float64{own: 0.9}, True, nil},
		"no series":         {"{cpu: virt_host_cpu_usage_ratio}", "cpu > 0.8", "", nil, Undecided, nil},
		"another's series":  {"{cpu: virt_host_cpu_usage_ratio}", "cpu > 0.8", "", map[string]float64{`virt_host_cpu_usage_ratio{source="vc",host_id="x"}`: 0.9}, Undecided, nil},
		"one of two absent": {"{cpu: virt_host_cpu_usage_ratio, temp: node_temp}", "cpu > 0.8 || temp > 90", "", map[string]float64{own: 0.9}, Undecided, nil},
		"two replicas": {
			"{cpu: virt_host_cpu_usage_ratio}", "cpu > 0.8", "",
			map[string]float64{
				`virt_host_cpu_usage_ratio{source="vc",host_id="h",replica="a"}`: 0.9, `virt_host_cpu_usage_ratio{source="vc",host_id="h",replica="b"}`: 0.9,
			},
			Undecided, ErrDuplicate,
		},
		"an exporter by its own label": {
			"{cpu: node_load1}", "cpu > 0.8", "join: [{on: host, label: instance, field: name, pattern: '([^.:]*).*'}]\n",
			map[string]float64{`node_load1{instance="H.example.com:9100"}`: 0.9, `node_load1{instance="other:9100"}`: 3},
			True, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var all []history.Series
			for metric, v := range tc.series {
				all = append(all, series(t, metric, v))
			}
			set, snap := mustLoad(t, withRule(tc.with, tc.when, tc.more)), hotFleet(t)
			answers := set.Ask(t.Context(), promql.Memory(all...), snap, noon)
			found, stats := set.Eval(Input{Snapshot: snap, Answers: answers, Now: noon})
			f := found[0]
			if f.When != tc.want || !errors.Is(f.Err, tc.err) || (tc.err != nil) != (stats[set.rules[0]].Failed > 0) {
				t.Fatalf("when %s, err %v, %+v", f.When, f.Err, stats)
			}
			if tc.want == True && (f.Summary != "h 90%" || f.Evidence[0].Query == "" || f.Evidence[0].Value != 0.9) {
				t.Errorf("%+v", f)
			}
		})
	}
}

// TestWithoutHistory: a rule that needs it fails, and says what to do.
func TestWithoutHistory(t *testing.T) {
	set := mustLoad(t, withRule("{cpu: virt_host_cpu_usage_ratio}", "cpu > 0.8", ""))
	snap := hotFleet(t)
	found, _ := set.Eval(Input{Snapshot: snap, Answers: set.Ask(t.Context(), nil, snap, noon), Now: noon})
	if !errors.Is(found[0].Err, ErrNoHistory) || found[0].When != Undecided {
		t.Errorf("%+v", found[0])
	}
}

func TestQueriesAreAskedOnce(t *testing.T) {
	const rule = `
  - {name: %s, on: %s, with: {cpu: "%s"}, when: cpu > 1, severity: info, summary: x, remedy: {action: none}}`
	text := "pack: p\nversion: 1.0.0\ndescription: d\nrules:" +
		fmt.Sprintf(rule, "A", "host", "up") + fmt.Sprintf(rule, "B", "host", "up") + fmt.Sprintf(rule, "C", "vm", "up") + fmt.Sprintf(rule, "D", "vm", "down")
	got := mustLoad(t, text).Queries()
	want := []Query{{"up", inventory.KindHost}, {"up", inventory.KindVM}, {"down", inventory.KindVM}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestReach(t *testing.T) {
	for expr, want := range map[string]time.Duration{
		"up":                                 5 * time.Minute,
		"rate(up[10m])":                      10 * time.Minute,
		"rate(up[10m] offset 1h)":            70 * time.Minute,
		"up offset 1h":                       65 * time.Minute,
		"up - avg_over_time(up[1d])":         24 * time.Hour,
		"max_over_time(rate(up[5m])[1h:1m])": 65 * time.Minute,
		"max_over_time(max_over_time(up[1h:1m])[1d:1h] offset 1w)": 8*24*time.Hour + 65*time.Minute,
		"vector(1)": 0,
	} {
		if got, f := reach(expr); f != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", expr, got, f, want)
		}
	}
}

// TestPackTestsAskHistory: a pack's own tests run its PromQL over the samples they give.
func TestPackTestsAskHistory(t *testing.T) {
	text := withRule(`{cpu: "avg_over_time(virt_host_cpu_usage_ratio[3m])", load: node_load1}`, "cpu > 0.8 && load > 1", "join: [{on: host, label: instance, field: name}]\n") + `tests:
  - name: three hot minutes
    samples: {host.cpu_usage_ratio: "0.5x2 0.9x9"}
    series: {'node_load1{instance="host1"}': "0+1x12"}
    want:
      - {at: 3m, tips: []}
      - {at: 5m, tips: [{rule: R, state: active, summary: "host1 90%"}]}
`
	p, _ := mustLoad(t, text).Pack("p")
	open := func(m history.Matrix) history.Querier { return promql.Memory(m...) }
	if err := p.Test(open); err != nil {
		t.Error(err)
	}
	if err := p.Test(nil); !errors.Is(err, ErrNoHistory) {
		t.Errorf("without history: %v", err)
	}
}
