package rules

import (
	"strings"
	"testing"
)

// TestOverrides: a threshold differs from object to object, and so do what the tip says of it and how far its remedy goes.
func TestOverrides(t *testing.T) {
	const text = `
pack: p
version: 1.0.0
description: d
config: {hot: 0.85, relieved: 0.6, hot_memory: 0.9}
rules:
  - name: Hot
    on: host
    when: host.cpu_usage_ratio > config.hot && config.hot_memory > 0
    severity: warning
    summary: "above {{percent(config.hot)}}"
    remedy: {action: rebalance-host, cpu_below: config.relieved}
`
	for _, tc := range []struct {
		name      string
		overrides []Override
		hot       bool
		cause     string
		below     float64
	}{
		{"none", nil, true, "host.cpu_usage_ratio > 0.85 && 0.9 > 0", 0.6},
		{"its source", []Override{{Source: "vc", Config: map[string]any{"hot": 0.7}}}, true, "host.cpu_usage_ratio > 0.7 && 0.9 > 0", 0.6},
		{"another source", []Override{{Source: "vc2", Config: map[string]any{"hot": 0.99}}}, true, "host.cpu_usage_ratio > 0.85 && 0.9 > 0", 0.6},
		{"its cluster", []Override{{Cluster: "c", Config: map[string]any{"hot": 0.99}}}, false, "", 0},
		{"its host, after its source", []Override{
			{Source: "vc", Config: map[string]any{"hot": 0.99, "relieved": 0.5}},
			{Host: "h", Config: map[string]any{"hot": 0.5}},
		}, true, "host.cpu_usage_ratio > 0.5 && 0.9 > 0", 0.5},
		{"a tag, which hosts have none of", []Override{{Tag: "env/prod", Config: map[string]any{"hot": 0.99}}}, true, "host.cpu_usage_ratio > 0.85 && 0.9 > 0", 0.6},
		{"a key that begins like another", []Override{{Host: "h", Config: map[string]any{"hot_memory": 0.3, "hot": 0.4}}}, true, "host.cpu_usage_ratio > 0.4 && 0.3 > 0", 0.6},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for i := range tc.overrides {
				tc.overrides[i].Pack = "p"
			}
			set, err := Load([]File{{"p.yml", []byte(text)}}, Options{Overrides: tc.overrides})
			if err != nil {
				t.Fatal(err)
			}
			found, _ := set.Eval(Input{Snapshot: hotFleet(t), Now: noon})
			f := found[0]
			if (f.When == True) != tc.hot || f.Cause != tc.cause || f.Remedy.CPUBelow != tc.below {
				t.Errorf("when %v, cause %q, remedy %+v", f.When, f.Cause, f.Remedy)
			}
		})
	}
}

func TestOverridesThatCannotBe(t *testing.T) {
	const text = "pack: p\nversion: 1.0.0\ndescription: d\nconfig: {hot: 0.85, low: 0.5}\nrules:\n  - {name: Hot, on: host, when: host.cpu_usage_ratio > config.hot," +
		" severity: info, summary: x, remedy: {action: rebalance-host, cpu_below: config.low}}\n"
	for own, want := range map[string]string{
		"hott": "protip.yml:7:3 sets hott, which the pack does not have",
		"hot":  "protip.yml:7:3 sets hot to x, which must be a number",
	} {
		_, err := Load([]File{{"p.yml", []byte(text)}}, Options{Overrides: []Override{{Pack: "p", At: "protip.yml:7:3", Config: map[string]any{own: "x"}}}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", own, err)
		}
	}
	// A goal that only some hosts have, and is none, fails there and nowhere else.
	set, err := Load([]File{{"p.yml", []byte(text)}}, Options{Overrides: []Override{{Pack: "p", Host: "h", Config: map[string]any{"low": 3}}}})
	if err != nil {
		t.Fatal(err)
	}
	if found, stats := set.Eval(Input{Snapshot: hotFleet(t), Now: noon}); found[0].Err == nil || found[0].When != Undecided || stats[set.rules[0]].Failed != 1 {
		t.Errorf("%+v", found[0])
	}
	if _, err := Load([]File{{"p.yml", []byte(text)}}, Options{Overrides: []Override{{Pack: "q"}}}); err == nil || !strings.Contains(err.Error(), "not loaded") {
		t.Errorf("an override of no pack: %v", err)
	}
}
