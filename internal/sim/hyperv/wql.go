package hyperv

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// query is a parsed WQL data query: SELECT columns FROM class WHERE condition.
type query struct {
	columns []string // nil: all
	class   string
	where   condition // nil: all instances
}

// condition decides about one instance. props tells the value of a property, nil if it is null.
type condition interface {
	holds(props func(string) any) bool
	// properties adds the names of those it compares.
	properties(add func(string))
}

// Bounds of a query: WMI has such limits too (WBEM_E_QUOTA_VIOLATION).
const (
	maxQuery = 16 << 10
	maxDepth = 100
)

var errQuery = errors.New("invalid query")

// parseWQL parses a data query. Schema and event queries are not answered here.
func parseWQL(text string) (*query, error) {
	if len(text) > maxQuery {
		return nil, fmt.Errorf("%w: longer than %d characters", errQuery, maxQuery)
	}
	words, err := lexWQL(text)
	if err != nil {
		return nil, err
	}
	p := &wqlParser{words: words}
	q, err := p.query()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errQuery, err)
	}
	return q, nil
}

type wqlWord struct {
	kind wqlKind
	text string
}

type wqlKind int

const (
	wqlEnd wqlKind = iota
	wqlName
	wqlString
	wqlNumber
	wqlSign
)

func lexWQL(s string) ([]wqlWord, error) {
	var words []wqlWord
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			i++
		case c == '\'' || c == '"':
			text, n, err := wqlQuoted(s[i:])
			if err != nil {
				return nil, err
			}
			words = append(words, wqlWord{wqlString, text})
			i += n
		case c >= '0' && c <= '9' || c == '-':
			n := 1
			for i+n < len(s) && (s[i+n] >= '0' && s[i+n] <= '9' || s[i+n] == '.') {
				n++
			}
			words = append(words, wqlWord{wqlNumber, s[i : i+n]})
			i += n
		case isNameByte(c):
			n := 1
			for i+n < len(s) && (isNameByte(s[i+n]) || s[i+n] >= '0' && s[i+n] <= '9') {
				n++
			}
			words = append(words, wqlWord{wqlName, s[i : i+n]})
			i += n
		default:
			n := 1
			if i+1 < len(s) {
				switch s[i : i+2] {
				case "<=", ">=", "<>", "!=":
					n = 2
				}
			}
			words = append(words, wqlWord{wqlSign, s[i : i+n]})
			i += n
		}
	}
	return words, nil
}

func isNameByte(c byte) bool { return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// wqlQuoted is the string literal that s begins with, and how many bytes it took. A backslash takes the next character as it is.
func wqlQuoted(s string) (string, int, error) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case s[0]:
			return b.String(), i + 1, nil
		case '\\':
			i++
			if i < len(s) {
				b.WriteByte(s[i])
			}
		default:
			b.WriteByte(s[i])
		}
	}
	return "", 0, fmt.Errorf("%w: a string does not end", errQuery)
}

type wqlParser struct {
	words []wqlWord
	next  int
	depth int
}

func (p *wqlParser) peek() wqlWord {
	if p.next < len(p.words) {
		return p.words[p.next]
	}
	return wqlWord{}
}

func (p *wqlParser) take() wqlWord {
	w := p.peek()
	p.next++
	return w
}

func (p *wqlParser) keyword(word string) bool {
	if w := p.peek(); w.kind == wqlName && strings.EqualFold(w.text, word) {
		p.next++
		return true
	}
	return false
}

func (p *wqlParser) sign(sign string) bool {
	if w := p.peek(); w.kind == wqlSign && w.text == sign {
		p.next++
		return true
	}
	return false
}

func (p *wqlParser) query() (*query, error) {
	if !p.keyword("select") {
		return nil, fmt.Errorf("want SELECT, got %q", p.peek().text)
	}
	q := &query{}
	if !p.sign("*") {
		for {
			w := p.take()
			if w.kind != wqlName {
				return nil, fmt.Errorf("want the name of a property, got %q", w.text)
			}
			q.columns = append(q.columns, w.text)
			if !p.sign(",") {
				break
			}
		}
	}
	if !p.keyword("from") {
		return nil, fmt.Errorf("want FROM, got %q", p.peek().text)
	}
	w := p.take()
	if w.kind != wqlName {
		return nil, fmt.Errorf("want the name of a class, got %q", w.text)
	}
	q.class = w.text
	if p.keyword("where") {
		var err error
		if q.where, err = p.or(); err != nil {
			return nil, err
		}
	}
	if w := p.peek(); w.kind != wqlEnd {
		return nil, fmt.Errorf("%q after the end", w.text)
	}
	return q, nil
}

func (p *wqlParser) or() (condition, error) {
	return p.list("or", p.and, func(cs []condition) condition { return anyOf(cs) })
}

func (p *wqlParser) and() (condition, error) {
	return p.list("and", p.not, func(cs []condition) condition { return allOf(cs) })
}

func (p *wqlParser) list(word string, each func() (condition, error), join func([]condition) condition) (condition, error) {
	var parts []condition
	for {
		c, err := each()
		if err != nil {
			return nil, err
		}
		parts = append(parts, c)
		if !p.keyword(word) {
			break
		}
	}
	if len(parts) == 1 {
		return parts[0], nil
	}
	return join(parts), nil
}

func (p *wqlParser) not() (condition, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, errors.New("nested too deeply")
	}
	defer func() { p.depth-- }()
	if p.keyword("not") {
		c, err := p.not()
		if err != nil {
			return nil, err
		}
		return negation{c}, nil
	}
	if p.sign("(") {
		c, err := p.or()
		if err != nil {
			return nil, err
		}
		if !p.sign(")") {
			return nil, fmt.Errorf("want ), got %q", p.peek().text)
		}
		return c, nil
	}
	return p.comparison()
}

func (p *wqlParser) comparison() (condition, error) {
	w := p.take()
	if w.kind != wqlName {
		return nil, fmt.Errorf("want the name of a property, got %q", w.text)
	}
	c := comparison{property: w.text}
	if p.keyword("is") {
		c.op = "="
		if p.keyword("not") {
			c.op = "<>"
		}
		if !p.keyword("null") {
			return nil, fmt.Errorf("want NULL, got %q", p.peek().text)
		}
		return c, nil
	}
	switch op := p.take(); {
	case op.kind == wqlSign && strings.Contains("= <> != < > <= >=", op.text):
		c.op = strings.Replace(op.text, "!=", "<>", 1)
	case op.kind == wqlName && strings.EqualFold(op.text, "like"):
		c.op = "like"
	default:
		return nil, fmt.Errorf("want a comparison, got %q", op.text)
	}
	return p.literal(c)
}

func (p *wqlParser) literal(c comparison) (condition, error) {
	switch w := p.take(); {
	case w.kind == wqlString:
		c.value = w.text
	case w.kind == wqlNumber:
		f, err := strconv.ParseFloat(w.text, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is no number", w.text)
		}
		c.value = f
	case w.kind == wqlName && strings.EqualFold(w.text, "true"):
		c.value = true
	case w.kind == wqlName && strings.EqualFold(w.text, "false"):
		c.value = false
	case w.kind == wqlName && strings.EqualFold(w.text, "null"):
	default:
		return nil, fmt.Errorf("want a value, got %q", w.text)
	}
	if _, isString := c.value.(string); c.op == "like" && !isString {
		return nil, errors.New("LIKE wants a string")
	}
	return c, nil
}

type anyOf []condition

func (a anyOf) holds(props func(string) any) bool {
	for _, c := range a {
		if c.holds(props) {
			return true
		}
	}
	return false
}

func (a anyOf) properties(add func(string)) {
	for _, c := range a {
		c.properties(add)
	}
}

type allOf []condition

func (a allOf) holds(props func(string) any) bool {
	for _, c := range a {
		if !c.holds(props) {
			return false
		}
	}
	return true
}

func (a allOf) properties(add func(string)) { anyOf(a).properties(add) }

type negation struct{ of condition }

func (n negation) holds(props func(string) any) bool { return !n.of.holds(props) }

func (n negation) properties(add func(string)) { n.of.properties(add) }

type comparison struct {
	property, op string
	value        any // string, float64, bool, or nil for null
}

func (c comparison) properties(add func(string)) { add(c.property) }

func (c comparison) holds(props func(string) any) bool {
	have := props(c.property)
	if have == nil || c.value == nil {
		return c.op == "=" && have == nil && c.value == nil || c.op == "<>" && (have == nil) != (c.value == nil)
	}
	if c.op == "like" {
		return like(strings.ToLower(plainText(have)), strings.ToLower(c.value.(string)))
	}
	order, comparable := compare(have, c.value)
	if !comparable {
		return false
	}
	switch c.op {
	case "=":
		return order == 0
	case "<>":
		return order != 0
	case "<":
		return order < 0
	case ">":
		return order > 0
	case "<=":
		return order <= 0
	}
	return order >= 0
}

// compare orders a property's value and a literal. Strings compare without regard to case, as WMI does it.
func compare(have, want any) (order int, comparable bool) {
	if b, isBool := have.(bool); isBool {
		return boolOrder(b) - boolOrder(truth(want)), true
	}
	if f, isNumber := number(have); isNumber {
		w, wanted := number(want)
		if text, isText := want.(string); isText {
			parsed, err := strconv.ParseFloat(text, 64)
			w, wanted = parsed, err == nil
		}
		switch {
		case !wanted:
			return 0, false
		case f < w:
			return -1, true
		case f > w:
			return 1, true
		}
		return 0, true
	}
	text, isText := have.(string)
	_, isNumber := want.(float64)
	if !isText || isNumber {
		return 0, false
	}
	return strings.Compare(strings.ToLower(text), strings.ToLower(plainText(want))), true
}

func boolOrder(b bool) int {
	if b {
		return 1
	}
	return 0
}

func truth(v any) bool {
	switch v := v.(type) {
	case bool:
		return v
	case string:
		return strings.EqualFold(v, "true")
	}
	f, _ := number(v)
	return f != 0
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int:
		return float64(v), true
	case uint64:
		return float64(v), true
	case uint32:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}

func plainText(v any) string {
	if t, isTime := v.(time.Time); isTime {
		return t.UTC().Format("20060102150405.000000+000")
	}
	return fmt.Sprint(v)
}

// like matches a pattern of % (any characters) and _ (one). It backtracks to the last % only, so its time is bounded by the product of the lengths.
func like(s, pattern string) bool {
	star, mark := -1, 0
	i, j := 0, 0
	for i < len(s) {
		switch {
		case j < len(pattern) && pattern[j] == '%':
			star, mark = j, i
			j++
		case j < len(pattern) && (pattern[j] == '_' || pattern[j] == s[i]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = mark, star+1
		default:
			return false
		}
	}
	for j < len(pattern) && pattern[j] == '%' {
		j++
	}
	return j == len(pattern)
}
