package rules

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Problem is one thing wrong with a pack, and where.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`   // from 1; 0 if it concerns the whole file
	Column  int    `json:"column"` // in characters, from 1
	Message string `json:"message"`
	Source  string `json:"source,omitempty"` // the line
	Hint    string `json:"hint,omitempty"`   // what to do
}

// String is file:line:column: message, then the line with a caret below the place, then the hint.
func (p Problem) String() string {
	if p.Line == 0 {
		return p.File + ": " + p.Message + indented(p.Hint)
	}
	head := fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
	if strings.TrimSpace(p.Source) == "" {
		return head + indented(p.Hint)
	}
	text, caret := excerpt(p.Source, p.Column-1)
	return head + "\n    " + text + "\n    " + strings.Repeat(" ", caret) + "^" + indented(p.Hint)
}

func indented(hint string) string {
	if hint == "" {
		return ""
	}
	return "\n    " + hint
}

// excerptWidth is how much of a long line is shown around the caret, in characters.
const excerptWidth = 120

// excerpt is the part of a line around a column, fit for a terminal, and where the column is in it.
func excerpt(line string, column int) (string, int) {
	runes := []rune(oneLine(line))
	column = min(max(column, 0), len(runes))
	from := 0
	if len(runes) > excerptWidth {
		from = min(max(column-excerptWidth/2, 0), len(runes)-excerptWidth)
		runes = runes[from : from+excerptWidth]
	}
	return strings.TrimRight(string(runes), " "), column - from
}

// oneLine replaces what could break a line or steer a terminal, and what is not UTF-8.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r < ' ', r == 0x2028, r == 0x2029:
			return ' '
		case r >= 0x7f && r < 0xa0, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(s, string(utf8.RuneError)))
}

// Problems are all that is wrong with the packs that were loaded, in order of place.
type Problems []Problem

// Error is every problem on its own lines.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// maxListed is how many names a hint lists.
const maxListed = 12

// didYouMean is a hint with the closest of the names, or, if none is close, all of them, unless they are too many.
func didYouMean(name string, names []string) string {
	best, bestDistance := "", len(name)/3+2
	for _, candidate := range names {
		d := distance(name, candidate)
		if len(name) > 3 && strings.HasPrefix(candidate, name) {
			d = min(d, 2)
		}
		if d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	if best != "" {
		return "did you mean " + best + "?"
	}
	if len(names) > maxListed {
		return "docs/packs.md lists what there is"
	}
	return "there is: " + strings.Join(names, ", ")
}

// distance is the number of insertions, deletions and replacements between two names.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			next := diagonal
			if a[i] != b[j] {
				next = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}

// maxProblems bounds what one load reports.
const maxProblems = 50

func (ps Problems) sorted() Problems {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return ps
}
