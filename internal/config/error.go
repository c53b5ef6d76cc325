package config

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Error is everything that is wrong with one file.
type Error struct {
	Problems []Problem
}

// Problem is one thing that is wrong, where, and what to do about it.
type Problem struct {
	File         string
	Line, Column int
	What         string
	Cure         string
}

// maxProblems bounds what one bad file prints.
const maxProblems = 50

// Error lists the problems, one a line.
func (e *Error) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		if i == maxProblems {
			fmt.Fprintf(&b, "and %d more", len(e.Problems)-i)
			break
		}
		b.WriteString(p.String())
	}
	return b.String()
}

// String is file:line:column: what: what to do.
func (p Problem) String() string {
	return fmt.Sprintf("%s:%d:%d: %s: %s", p.File, p.Line, p.Column, p.What, p.Cure)
}

// position is a place in the file, counted from 1.
type position struct{ line, column int }

var start = position{1, 1}

// problems gathers what is wrong with one file.
type problems struct {
	file string
	all  []Problem
}

func (p *problems) add(at position, what, cure string) {
	p.all = append(p.all, Problem{File: p.file, Line: max(at.line, 1), Column: max(at.column, 1), What: what, Cure: cure})
}

// err is what was gathered, in the file's order, or nil.
func (p *problems) err() error {
	if len(p.all) == 0 {
		return nil
	}
	slices.SortStableFunc(p.all, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return &Error{Problems: p.all}
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// syntax adds what the YAML parser says. Anchors are not quoted: an unquoted password that begins with * reads as one.
func (p *problems) syntax(err error) {
	at, what := start, "not YAML"
	if m := yamlLine.FindStringSubmatch(firstLine(err)); m != nil {
		if line, err := strconv.Atoi(m[1]); err == nil {
			at.line = line
		}
		if what = m[2]; strings.Contains(what, "anchor") {
			what = "an alias (*name) without its anchor (&name)"
		}
	}
	p.add(at, what, "mend the YAML here or in the line before; quote text that begins with a special character")
}

func firstLine(err error) string {
	var e interface{ Unwrap() error }
	if errors.As(err, &e) && e.Unwrap() != nil {
		err = e.Unwrap()
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// near is the candidate that name was probably meant to be, empty if none is close.
func near(name string, candidates []string) string {
	best, least := "", 1+min(2, len(name)/3)
	for _, c := range candidates {
		if d := distance(name, c); d < least {
			best, least = c, d
		}
	}
	return best
}

// distance is the number of letters to insert, delete or replace to get from a to b (Levenshtein, 1965).
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := diagonal
			if a[i-1] != b[j-1] {
				replace++
			}
			diagonal = row[j]
			row[j] = min(replace, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
