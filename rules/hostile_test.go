package rules

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/history/promql"
)

// TestHostilePacks: what would take endless time or memory is refused when it is loaded, within a second and a few megabytes.
func TestHostilePacks(t *testing.T) {
	rule := func(more ...string) string {
		return "pack: p\nversion: 1.0.0\ndescription: d\nrules:\n  - name: R\n    on: host\n    severity: info\n    remedy: {action: none}\n    " + strings.Join(more, "\n    ") + "\n"
	}
	laughs := "a: &a [" + strings.Repeat("x,", 10) + "]\n"
	for c := 'b'; c < 'k'; c++ {
		laughs += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.Repeat(fmt.Sprintf("*%c,", c-1), 10))
	}
	for name, text := range map[string]string{
		"a pattern that explodes":       rule(`when: host.name matches "(((a{100}){100}){100})"`, "summary: x"),
		"a pattern of any length":       rule("when: host.name matches '"+strings.Repeat("(a|b)", 100)+"'", "summary: x"),
		"a pattern that is computed":    rule("when: host.name matches host.model", "summary: x"),
		"text that doubles":             rule("when: host.cores > 1", `summary: "{{`+strings.Repeat("host.name + ", 300)+`host.name}}"`),
		"an expression of great depth":  rule("when: "+strings.Repeat("(", 5000)+"true"+strings.Repeat(")", 5000), "summary: x"),
		"nested predicates":             rule("when: 'sum(1..100000, sum(1..100000, sum(1..100000, #))) > 0'", "summary: x"),
		"a list out of nothing":         rule("when: 'len(1..1000000000) > 0'", "summary: x"),
		"a text out of nothing":         rule("when: 'repeat(host.name, 1000000000) == host.name'", "summary: x"),
		"YAML that laughs":              laughs,
		"ten megabytes of YAML":         "pack: p\ndescription: |\n" + strings.Repeat("  lorem ipsum dolor sit amet\n", 400_000),
		"ten megabytes of aliases":      laughs + "pack: p\ndescription:\n" + strings.Repeat("  - *j\n", 1_500_000),
		"deep YAML":                     strings.Repeat("[", 100_000),
		"not UTF-8":                     rule("when: host.cores > 1", "summary: \"\xff\xfe\""),
		"a hundred thousand rules":      "pack: p\nversion: 1.0.0\ndescription: d\nrules:\n" + strings.Repeat("  - {}\n", 100_000),
		"a million test samples":        rule("when: host.cores > 1", "summary: x") + "tests:\n  - {name: t, samples: {host.cpu_usage_ratio: '0.5x65000'}, want: []}\n",
		"PromQL of great depth":         rule("with: {x: '"+strings.Repeat("-(", 900)+"up"+strings.Repeat(")", 900)+"'}", "when: x > 1", "summary: x"),
		"PromQL over more than is kept": rule("with: {x: 'avg_over_time(up[100y])'}", "when: x > 1", "summary: x"),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			began := time.Now()
			_, err := Load([]File{{"p.yml", []byte(text)}}, Options{})
			took := time.Since(began)
			runtime.ReadMemStats(&after)
			if name == "PromQL of great depth" {
				// It may be loaded: it is 1,800 bytes, and the engine bounds what it takes.
			} else if err == nil {
				t.Error("loaded")
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > 200<<20 || took > 20*time.Second {
				t.Errorf("it took %d MiB and %s", used>>20, took)
			}
			if err != nil && len(err.Error()) > 64<<10 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

// TestCardinalityBomb: a query that makes more series than a query may select fails its own rule, and no other.
func TestCardinalityBomb(t *testing.T) {
	var many []history.Series
	for i := range 2000 {
		many = append(many, series(t, fmt.Sprintf("bomb{i=\"%d\"}", i), 1))
	}
	many = append(many, series(t, `virt_host_cpu_usage_ratio{source="vc",host_id="h"}`, 0.9))
	limits := promql.DefaultLimits()
	limits.Series = 1000
	set := mustLoad(t, `pack: p
version: 1.0.0
description: d
rules:
  - {name: Bomb, on: host, with: {x: bomb}, when: x > 0, severity: info, summary: x, remedy: {action: none}}
  - {name: Good, on: host, with: {cpu: virt_host_cpu_usage_ratio}, when: cpu > 0.8, severity: info, summary: x, remedy: {action: none}}
`)
	snap := hotFleet(t)
	past := promql.Limited(limits, many...)
	found, stats := set.Eval(Input{Snapshot: snap, Answers: set.Ask(t.Context(), past, snap, noon), Now: noon})
	if found[0].Err == nil || found[0].When != Undecided || stats[set.rules[0]].Failed != 1 {
		t.Errorf("the bomb: %+v", found[0])
	}
	if found[1].When != True {
		t.Errorf("its neighbour: %+v", found[1])
	}
}
