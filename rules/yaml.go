package rules

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"
)

// reader reads one YAML file by hand, node by node, so that every problem has its place and none hides another.
// Aliases are refused: nothing is ever expanded, so no file is larger than it looks.
type reader struct {
	file     string
	lines    []string
	problems Problems
}

func newReader(file string, text []byte) *reader {
	return &reader{file: file, lines: strings.Split(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n")}
}

// document parses text and returns its one document, nil if there is none or it is broken.
func (r *reader) document(text []byte) *yaml.Node {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			r.fail(0, 0, "", "the file is empty")
		} else {
			r.broken(err)
		}
		return nil
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		if err != nil {
			r.broken(err)
		} else {
			r.failNode(&more, "write one file per pack", "a second document")
		}
		return nil
	}
	if len(doc.Content) != 1 {
		r.fail(0, 0, "", "the file is empty")
		return nil
	}
	return doc.Content[0]
}

var yamlLine = regexp.MustCompile(`^line (\d+): `)

// broken reports an error of the YAML parser, which knows lines but no columns.
func (r *reader) broken(err error) {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 0
	if m := yamlLine.FindStringSubmatch(message); m != nil {
		line, _ = strconv.Atoi(m[1])
		message = message[len(m[0]):]
	}
	r.fail(line, min(line, 1), "", "not YAML: %s", oneLine(message))
}

func (r *reader) fail(line, column int, hint, format string, args ...any) {
	if len(r.problems) >= maxProblems {
		return
	}
	p := Problem{File: r.file, Line: line, Column: column, Message: oneLine(fmt.Sprintf(format, args...)), Hint: oneLine(hint)}
	if line >= 1 && line <= len(r.lines) {
		p.Source = r.lines[line-1]
	}
	r.problems = append(r.problems, p)
}

func (r *reader) failNode(n *yaml.Node, hint, format string, args ...any) {
	r.fail(n.Line, n.Column, hint, format, args...)
}

// key says what to do with the value of one key of a mapping.
type key struct {
	name     string
	required bool
	read     func(*yaml.Node)
}

// mapping reads a mapping that has the given keys and no others.
func (r *reader) mapping(n *yaml.Node, what string, keys ...key) {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.name
	}
	seen := map[string]bool{}
	ok := r.pairs(n, what, func(k, v *yaml.Node) {
		seen[k.Value] = true
		i := slices.Index(names, k.Value)
		if i < 0 {
			r.failNode(k, didYouMean(k.Value, names), "%s has no key %s", what, quoted(k.Value))
			return
		}
		keys[i].read(v)
	})
	if !ok {
		return
	}
	for _, k := range keys {
		if k.required && !seen[k.name] {
			r.failNode(n, "", "%s needs %s", what, k.name)
		}
	}
}

// pairs yields the keys and values of a mapping in order, each key once. It reports whether n is a mapping.
func (r *reader) pairs(n *yaml.Node, what string, each func(k, v *yaml.Node)) bool {
	if n.Kind == yaml.AliasNode {
		r.alias(n)
		return false
	}
	if n.Kind != yaml.MappingNode {
		r.failNode(n, "", "%s must be a mapping, and is %s", what, describe(n))
		return false
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch {
		case k.Kind != yaml.ScalarNode:
			r.failNode(k, "", "a key must be a word, and is %s", describe(k))
		case seen[k.Value]:
			r.failNode(k, "", "%s has %s twice", what, quoted(k.Value))
		default:
			seen[k.Value] = true
			each(k, v)
		}
	}
	return true
}

// list yields the items of a sequence, no more than limit.
func (r *reader) list(n *yaml.Node, what string, limit int, each func(i int, v *yaml.Node)) {
	if n.Kind == yaml.AliasNode {
		r.alias(n)
		return
	}
	if n.Kind != yaml.SequenceNode {
		r.failNode(n, "", "%s must be a list, and is %s", what, describe(n))
		return
	}
	if len(n.Content) > limit {
		r.failNode(n, "", "%s has %d items; at most %d are allowed", what, len(n.Content), limit)
		return
	}
	for i, v := range n.Content {
		each(i, v)
	}
}

// scalar reads a scalar other than null; its text is in Value.
func (r *reader) scalar(n *yaml.Node, what string) bool {
	switch {
	case n.Kind == yaml.AliasNode:
		r.alias(n)
	case n.Kind != yaml.ScalarNode:
		r.failNode(n, "", "%s must be a single value, and is %s", what, describe(n))
	case n.ShortTag() == "!!null":
		r.failNode(n, "", "%s is empty", what)
	case !slices.Contains([]string{"!!str", "!!int", "!!float", "!!bool", "!!timestamp"}, n.ShortTag()):
		r.failNode(n, "put a value that starts with ! in quotes", "%s has the YAML tag %s", what, quoted(n.Tag))
	default:
		return true
	}
	return false
}

// text reads a string of at most limit bytes.
func (r *reader) text(n *yaml.Node, what string, limit int) string {
	if !r.scalar(n, what) {
		return ""
	}
	if len(n.Value) > limit {
		r.failNode(n, "", "%s is longer than %d bytes", what, limit)
		return ""
	}
	return n.Value
}

// matching reads a string of a form.
func (r *reader) matching(n *yaml.Node, what string, form *regexp.Regexp, hint string) string {
	s := r.text(n, what, 128)
	if s != "" && !form.MatchString(s) {
		r.failNode(n, hint, "%s %s is not well formed", what, quoted(s))
		return ""
	}
	return s
}

// oneOf reads a string that is one of the names.
func (r *reader) oneOf(n *yaml.Node, what string, names ...string) string {
	if !r.scalar(n, what) {
		return ""
	}
	if !slices.Contains(names, n.Value) {
		r.failNode(n, didYouMean(n.Value, names), "%s cannot be %s", what, quoted(n.Value))
		return ""
	}
	return n.Value
}

// duration reads a length of time as Prometheus writes it.
func (r *reader) duration(n *yaml.Node, what string, limit time.Duration) time.Duration {
	if !r.scalar(n, what) {
		return 0
	}
	d, err := model.ParseDuration(n.Value)
	if err != nil || len(n.Value) > 64 {
		r.failNode(n, "write it as 30s, 5m or 1h30m", "%s %s is not a duration", what, quoted(n.Value))
		return 0
	}
	if time.Duration(d) > limit {
		r.failNode(n, "", "%s is longer than %s", what, model.Duration(limit))
		return 0
	}
	return time.Duration(d)
}

// value reads a scalar as float64, bool or string, nil if it is none of them.
func (r *reader) value(n *yaml.Node, what string) any {
	if !r.scalar(n, what) {
		return nil
	}
	var err error
	switch n.ShortTag() {
	case "!!int", "!!float":
		var f float64
		if err = n.Decode(&f); err == nil && finite(f) {
			return f
		}
	case "!!bool":
		var b bool
		if err = n.Decode(&b); err == nil {
			return b
		}
	default:
		if len(n.Value) <= maxText {
			return n.Value
		}
	}
	r.failNode(n, "", "%s must be a finite number, true, false or a short text", what)
	return nil
}

func (r *reader) alias(n *yaml.Node) {
	r.failNode(n, "write the value out", "YAML aliases are not allowed in a pack")
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		if n.ShortTag() == "!!null" {
			return "empty"
		}
		return quoted(n.Value)
	}
	return "something else"
}

func quoted(s string) string { return strconv.Quote(shorten(s, 40)) }

// place is the line and column of a character of a scalar's value, counted from 0. The value is laid along the source:
// what differs are quotes, escapes, indentation and folded lines.
func (r *reader) place(n *yaml.Node, at int) (line, column int) {
	w := walker{lines: r.lines, line: n.Line - 1, column: n.Column - 1}
	value := []rune(n.Value)
	at = min(at, len(value))
	switch n.Style &^ yaml.TaggedStyle {
	case yaml.DoubleQuotedStyle, yaml.SingleQuotedStyle:
		w.skipTag()
		w.quote = w.peek()
		w.column++
	case yaml.LiteralStyle, yaml.FoldedStyle:
		w.nextLine(value)
	default:
		w.skipTag()
	}
	for i := range at {
		w.step(value[i], value[i+1:])
	}
	if w.line >= len(r.lines) {
		return n.Line, n.Column
	}
	return w.line + 1, w.column + 1
}

// walker is a place in the source that follows a scalar's value.
type walker struct {
	lines        []string
	line, column int
	current      []rune // of lines[loaded-1]
	loaded       int
	quote        rune
}

func (w *walker) text() []rune {
	if w.loaded != w.line+1 {
		w.loaded, w.current = w.line+1, nil
		if w.line < len(w.lines) {
			w.current = []rune(w.lines[w.line])
		}
	}
	return w.current
}

func (w *walker) peek() rune {
	if t := w.text(); w.column < len(t) {
		return t[w.column]
	}
	return '\n'
}

// skipTag passes an explicit tag like !!str, which yaml.v3 counts to the node.
func (w *walker) skipTag() {
	if w.peek() != '!' {
		return
	}
	for w.peek() != ' ' && w.peek() != '\n' {
		w.column++
	}
	for w.peek() == ' ' {
		w.column++
	}
}

// nextLine goes to the next line that has something on it, and past its indentation, but not past blanks of the value.
func (w *walker) nextLine(rest []rune) {
	w.line, w.column = w.line+1, 0
	for w.line < len(w.lines) && strings.TrimSpace(w.lines[w.line]) == "" {
		w.line++
	}
	own := 0
	for own < len(rest) && (rest[own] == ' ' || rest[own] == '\t') {
		own++
	}
	for w.peek() == ' ' || w.peek() == '\t' {
		w.column++
	}
	w.column = max(w.column-own, 0)
}

// step passes what stands for the value's character c; rest follows it in the value.
func (w *walker) step(c rune, rest []rune) {
	if w.line >= len(w.lines) {
		return
	}
	switch s := w.peek(); {
	case c == '\n' || c == ' ' && w.blankToEnd():
		if w.blankToEnd() {
			w.nextLine(rest)
		} else if w.quote == '"' && s == '\\' {
			w.escape()
		}
	case w.quote == '"' && s == '\\':
		w.escape()
	case w.quote == '\'' && s == '\'':
		w.column += 2
	default:
		w.column++
	}
}

// blankToEnd reports whether nothing but blanks is left on the line.
func (w *walker) blankToEnd() bool {
	t := w.text()
	for i := min(w.column, len(t)); i < len(t); i++ {
		if t[i] != ' ' && t[i] != '\t' {
			return false
		}
	}
	return true
}

// escape passes a backslash and what belongs to it.
func (w *walker) escape() {
	w.column++
	switch w.peek() {
	case 'x':
		w.column += 3
	case 'u':
		w.column += 5
	case 'U':
		w.column += 9
	default:
		w.column++
	}
}

// validUTF8 reports the first byte that is none.
func (r *reader) validUTF8(text []byte) bool {
	if utf8.Valid(text) {
		return true
	}
	line, at := 1, 0
	for at < len(text) {
		c, size := utf8.DecodeRune(text[at:])
		if c == utf8.RuneError && size == 1 {
			break
		}
		if c == '\n' {
			line++
		}
		at += size
	}
	column := utf8.RuneCount(text[bytes.LastIndexByte(text[:at], '\n')+1:at]) + 1
	r.fail(line, column, "save the file as UTF-8", "not UTF-8")
	return false
}
