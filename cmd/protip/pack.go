package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/version"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/history/promql"
	"github.com/protip/protip/rules"
)

func addPack(kp *kingpin.Application, verbs map[string]command) {
	pack := kp.Command("pack", "Check and test packs; needs no agent.")

	lint := pack.Command("lint", "Say all that is wrong with packs, with its place, and what would surprise their users.")
	lintFiles := lint.Arg("file", "Packs.").Required().Strings()
	strict := lint.Flag("strict", "Fail on advice too.").Bool()
	verbs[lint.FullCommand()] = func(_ context.Context, c *console) error { return lintPacks(c, *lintFiles, *strict) }

	test := pack.Command("test", "Run packs' own tests.")
	testFiles := test.Arg("file", "Packs.").Required().Strings()
	verbs[test.FullCommand()] = func(_ context.Context, c *console) error { return testPacks(c, *testFiles) }

	schema := pack.Command("schema", "Print the JSON schema of packs, for editors.")
	verbs[schema.FullCommand()] = func(_ context.Context, c *console) error {
		enc := json.NewEncoder(c.out)
		enc.SetIndent("", "  ")
		return enc.Encode(rules.Schema())
	}
}

// linted is what lint says of one pack.
type linted struct {
	File     string         `json:"file"`
	Pack     string         `json:"pack,omitempty"`
	SHA256   string         `json:"sha256,omitempty"`
	Problems rules.Problems `json:"problems,omitempty"`
	Advice   rules.Problems `json:"advice,omitempty"`
}

func lintPacks(c *console, files []string, strict bool) error {
	var all []linted
	var problems rules.Problems
	advised := false
	for _, file := range files {
		l := linted{File: file}
		pack, err := loadPack(file)
		if err == nil {
			l.Pack, l.SHA256, l.Advice = pack.Name, pack.SHA256, pack.Advice()
		} else if !errors.As(err, &l.Problems) {
			return usageError{err}
		}
		problems, advised = append(problems, l.Problems...), advised || len(l.Advice) > 0
		all = append(all, l)
	}
	if len(problems) > 0 && !c.json {
		return usageError{problems}
	}
	err := c.print(all, func(w *tabwriter.Writer) {
		for _, l := range all {
			fmt.Fprintf(w, "%s: pack %s is good\n", l.File, l.Pack)
			for _, a := range l.Advice {
				fmt.Fprintln(w, a)
			}
		}
	})
	switch {
	case err != nil:
		return err
	case len(problems) > 0:
		return usageError{errors.New("not every pack is good")}
	case advised && strict:
		return errors.New("there is advice, and --strict was asked for")
	}
	return nil
}

// tested is how one pack's tests went.
type tested struct {
	File   string `json:"file"`
	Pack   string `json:"pack"`
	Tests  int    `json:"tests"`
	Failed string `json:"failed,omitempty"`
}

func testPacks(c *console, files []string) error {
	var all []tested
	var failed error
	for _, file := range files {
		pack, err := loadPack(file)
		if err != nil {
			return usageError{err}
		}
		t := tested{File: file, Pack: pack.Name, Tests: pack.Tests()}
		if err := pack.Test(overSeries); err != nil {
			t.Failed = err.Error()
			failed = errors.Join(failed, err)
		}
		all = append(all, t)
	}
	if failed != nil && !c.json {
		return failed
	}
	err := c.print(all, func(w *tabwriter.Writer) {
		for _, t := range all {
			fmt.Fprintf(w, "%s: %s passed\n", t.File, plural(t.Tests, "test"))
		}
	})
	if err == nil && failed != nil {
		err = errors.New("not every test passed")
	}
	return err
}

// overSeries answers PromQL from given series.
func overSeries(m history.Matrix) history.Querier { return promql.Memory(m...) }

func loadPack(file string) (*rules.Pack, error) {
	f, err := rules.ReadFile(file)
	if err != nil {
		return nil, err
	}
	set, err := rules.Load([]rules.File{f}, rules.Options{Version: version.Version})
	if err != nil {
		return nil, err
	}
	return set.Packs()[0], nil
}
