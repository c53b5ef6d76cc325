package rules

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
)

// File is a pack before it is read.
type File struct {
	Name string // as messages should call it
	Text []byte
}

// ReadFile reads a pack from disk, and no more of it than a pack may be large.
func ReadFile(path string) (File, error) {
	f, err := os.Open(path)
	if err != nil {
		return File{}, fmt.Errorf("read pack: %w", err)
	}
	defer f.Close()
	return readAll(path, f)
}

// ReadFS reads a pack from fsys.
func ReadFS(fsys fs.FS, path string) (File, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return File{}, fmt.Errorf("read pack: %w", err)
	}
	defer f.Close()
	return readAll(path, f)
}

func readAll(name string, r io.Reader) (File, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxPackBytes+1)) // one more than allowed, so that Load refuses it
	if err != nil {
		return File{}, fmt.Errorf("read pack %s: %w", name, err)
	}
	return File{Name: name, Text: text}, nil
}

// Options are what the agent says about packs.
type Options struct {
	Version string                    // of protip, for min_protip; what is no release passes every check
	Config  map[string]map[string]any // pack -> key -> value, over the pack's own
	// Some says that these are some of the packs: config of others is no mistake.
	Some      bool
	Overrides []Override // of single keys for single objects, over Config
}

// Set is the packs that run together. It does not change.
type Set struct {
	packs []*Pack
	rules []*Rule
}

// Load reads and compiles packs. The error is Problems, with everything that is wrong with any of them.
func Load(files []File, o Options) (*Set, error) {
	var s Set
	var problems Problems
	from := map[string]string{}
	for _, f := range files {
		pack, bad := parse(f, o)
		problems = append(problems, bad...)
		if pack.Name == "" {
			continue
		}
		if first, ok := from[pack.Name]; ok {
			problems = append(problems, Problem{
				File: f.Name, Message: "a second pack " + pack.Name, Hint: "the first is " + first,
			})
			continue
		}
		from[pack.Name] = f.Name
		s.packs = append(s.packs, pack)
		s.rules = append(s.rules, pack.Rules...)
	}
	for _, name := range slices.Sorted(maps.Keys(o.Config)) {
		if _, ok := from[name]; !ok && len(problems) == 0 && !o.Some {
			problems = append(problems, Problem{
				File: "packs.config", Message: "config for pack " + quoted(name) + ", which is not loaded",
				Hint: didYouMean(name, slices.Sorted(maps.Keys(from))),
			})
		}
	}
	for _, own := range o.Overrides {
		if _, ok := from[own.Pack]; !ok && len(problems) == 0 && !o.Some {
			problems = append(problems, Problem{
				File: own.At, Message: "an override of pack " + quoted(own.Pack) + ", which is not loaded",
				Hint: didYouMean(own.Pack, slices.Sorted(maps.Keys(from))),
			})
		}
	}
	if len(problems) > 0 {
		problems = problems.sorted()
		return nil, problems[:min(len(problems), maxProblems)]
	}
	return &s, nil
}

// Packs are the packs in the order they were given.
func (s *Set) Packs() []*Pack { return slices.Clone(s.packs) }

// Pack is the pack of that name.
func (s *Set) Pack(name string) (*Pack, bool) {
	for _, p := range s.packs {
		if p.Name == name {
			return p, true
		}
	}
	return nil, false
}

// Only is the set of one of the packs.
func (s *Set) Only(name string) (*Set, bool) {
	p, ok := s.Pack(name)
	if !ok {
		return nil, false
	}
	return &Set{packs: []*Pack{p}, rules: p.Rules}, true
}

// Rules are all rules of all packs, in order.
func (s *Set) Rules() []*Rule { return slices.Clone(s.rules) }

// Rule is one rule of one pack.
func (s *Set) Rule(pack, name string) (*Rule, bool) {
	for _, r := range s.rules {
		if r.Pack.Name == pack && r.Name == name {
			return r, true
		}
	}
	return nil, false
}
