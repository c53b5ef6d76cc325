package rules

import (
	"fmt"
	"maps"
	"slices"
)

// Advice is what is not wrong with a pack but would surprise its users, in order of place.
func (p *Pack) Advice() Problems {
	var out Problems
	say := func(line, column int, hint, format string, args ...any) {
		out = append(out, Problem{File: p.file, Line: line, Column: column, Message: fmt.Sprintf(format, args...), Hint: hint})
	}
	if len(p.tests) == 0 {
		say(0, 0, "add tests: at the end", "the pack has no tests")
	}
	tested := map[string]bool{}
	for _, t := range p.tests {
		for _, w := range t.wants {
			for _, tip := range w.tips {
				tested[tip.rule] = tested[tip.rule] || tip.state == string(Active)
			}
		}
	}
	used := map[string]bool{}
	for _, r := range p.Rules {
		if len(p.tests) > 0 && !tested[r.Name] {
			say(r.line, r.column, "want it active in one of the tests", "no test makes %s active", r.Name)
		}
		if r.Clear == "" && r.For == 0 {
			say(r.line, r.column, "add for:, or clear: with a lower threshold", "%s has neither for nor clear: its tips come and go with every sample", r.Name)
		}
		for _, f := range r.with {
			if !slices.Contains(r.inputs, f) {
				say(r.line, r.column, "remove it", "%s binds %s, and neither when nor clear reads it", r.Name, f.name)
			}
		}
		maps.Copy(used, r.settings)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Config)) {
		if !used[name] {
			say(0, 0, "remove it", "no rule reads config.%s", name)
		}
	}
	return out.sorted()
}
