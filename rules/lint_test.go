package rules

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

func TestAdvice(t *testing.T) {
	set := mustLoad(t, `pack: p
version: 1.0.0
description: d
config: {hot: 0.9, unused: 1, goal: 0.5}
rules:
  - name: Flaps
    on: host
    with: {load: node_load1}
    when: host.cpu_usage_ratio > config.hot
    severity: info
    summary: x
    remedy: {action: rebalance-host, cpu_below: config.goal}
  - name: Tested
    on: host
    when: host.cpu_usage_ratio > config.hot
    for: 1m
    severity: info
    summary: x
    remedy: {action: none}
tests:
  - name: t
    samples: {host.cpu_usage_ratio: "1x2"}
    want: [{at: 1m, tips: [{rule: Tested, state: active}, {rule: Flaps, state: unknown}]}]
`)
	got := set.Packs()[0].Advice().Error()
	want := `p.yml: no rule reads config.unused
    remove it
p.yml:6:5: no test makes Flaps active
    want it active in one of the tests
p.yml:6:5: Flaps has neither for nor clear: its tips come and go with every sample
    add for:, or clear: with a lower threshold
p.yml:6:5: Flaps binds load, and neither when nor clear reads it
    remove it`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestSchema holds the JSON schema against packs that are good and packs that have wrong keys and forms.
func TestSchema(t *testing.T) {
	text, err := json.Marshal(Schema())
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("pack.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("pack.json")
	if err != nil {
		t.Fatal(err)
	}
	check := func(text []byte) error {
		var v any
		if err := yaml.Unmarshal(text, &v); err != nil {
			return err
		}
		plain, err := json.Marshal(v)
		if err != nil {
			return err
		}
		instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(plain))
		if err != nil {
			return err
		}
		return schema.Validate(instance)
	}
	shipped, _ := filepath.Glob("packs/*.yml")
	for _, file := range shipped {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := check(text); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	good := withRule("{cpu: up}", "cpu > 1", "join: [{on: host, label: instance, field: name}]\n")
	for was, is := range map[string]string{
		"":               "",
		"on: host\n":     "on: hots\n",
		"severity: warn": "severity: Warn",
		"summary:":       "sumary:",
		"name: R":        "name: r",
		"{cpu: up}":      "{Cpu: up}",
		"field: name":    "field: nam",
	} {
		if err := check([]byte(strings.Replace(good, was, is, 1))); (err == nil) != (was == "") {
			t.Errorf("%q for %q: %v", is, was, err)
		}
	}
}
