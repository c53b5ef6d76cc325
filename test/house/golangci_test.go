package house

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestGolangciSaysTheSame holds .golangci.yml, which tells of a wrong import at its line, against the walls held here.
func TestGolangciSaysTheSame(t *testing.T) {
	var file struct {
		Linters struct {
			Enable   []string
			Settings struct {
				Depguard struct {
					Rules map[string]struct {
						Files []string
						Deny  []struct{ Pkg, Desc string }
					}
				}
			}
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, ".golangci.yml")), &file); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(file.Linters.Enable, "depguard") {
		t.Error("depguard is not enabled")
	}
	rules := file.Linters.Settings.Depguard.Rules
	for _, w := range walls {
		rule, ok := rules[w.name]
		if !ok {
			t.Errorf("no rule %s", w.name)
			continue
		}
		var files, deny []string
		for _, f := range w.from {
			files = append(files, "**/"+f+"/**")
		}
		files = append(files, "!$test")
		for _, d := range w.deny {
			deny = append(deny, module+d)
		}
		var denied []string
		for _, d := range rule.Deny {
			denied = append(denied, d.Pkg)
			if strings.TrimSpace(d.Desc) == "" {
				t.Errorf("%s: %s is denied without a reason", w.name, d.Pkg)
			}
		}
		if !same(rule.Files, files) {
			t.Errorf("%s: files %q, want %q", w.name, rule.Files, files)
		}
		if !same(denied, deny) {
			t.Errorf("%s: denies %q, want %q", w.name, denied, deny)
		}
		delete(rules, w.name)
	}
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		t.Errorf("rule %s is not among the walls", name)
	}
}

func same(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}
