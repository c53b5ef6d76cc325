package rules

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/vm"
)

// Bounds of a summary.
const (
	maxTemplateBytes  = 512
	maxTemplateExprs  = 16
	maxRenderedLength = 512 // characters
)

// template is a summary: text with expressions between {{ and }}.
type template struct {
	parts []part
}

// part is text, or an expression if its code is set.
type part struct {
	text string
	expr program
}

func parseTemplate(source string, sc scope) (template, []fault) {
	if len(source) > maxTemplateBytes {
		return template{}, []fault{{message: fmt.Sprintf("is longer than %d bytes", maxTemplateBytes)}}
	}
	sc.formatters = true
	var t template
	var faults []fault
	at, exprs := 0, 0 // at: characters before rest
	for rest := source; rest != ""; {
		text, after, found := strings.Cut(rest, "{{")
		t.parts = append(t.parts, part{text: text})
		if !found {
			break
		}
		at += utf8.RuneCountInString(text) + 2
		inside, next, closed := strings.Cut(after, "}}")
		if !closed {
			return t, append(faults, fault{at: at - 2, message: "{{ is not closed by }}"})
		}
		if exprs++; exprs > maxTemplateExprs {
			return t, append(faults, fault{at: at - 2, message: fmt.Sprintf("has more than %d expressions", maxTemplateExprs)})
		}
		p, bad := compile(inside, sc, wantText)
		for _, f := range bad {
			f.at += at
			faults = append(faults, f)
		}
		t.parts = append(t.parts, part{expr: p})
		at += utf8.RuneCountInString(inside) + 2
		rest = next
	}
	return t, faults
}

// render fills in the template for one object. What it reads and is missing is shown as "no data".
func (t template) render(machine *vm.VM, env map[string]any, s *subject, h horizon) (string, error) {
	var b strings.Builder
	for _, p := range t.parts {
		if p.expr.code == nil {
			b.WriteString(p.text)
			continue
		}
		if !load(p.expr.reads, env, s, h) {
			b.WriteString("no data")
			continue
		}
		v, err := machine.Run(p.expr.code, env)
		if err != nil {
			return "", err
		}
		b.WriteString(show(v))
	}
	return shorten(oneLine(b.String()), maxRenderedLength), nil
}

// load puts fields into the environment and reports whether all of them are known.
func load(fields []*field, env map[string]any, s *subject, h horizon) bool {
	for _, f := range fields {
		v, _, ok := f.read(s, h)
		if !ok {
			return false
		}
		env[f.path] = v
	}
	return true
}

func show(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case float64:
		return digits(v, 4)
	case bool:
		return strconv.FormatBool(v)
	}
	return "?"
}

func shorten(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// formatters make text of a number, for summaries.
var formatters = []struct {
	name   string
	format func(float64) string
}{
	{"bytes", func(v float64) string { return scaled(v, 1024, "B", "KiB", "MiB", "GiB", "TiB", "PiB") }},
	{"duration", seconds},
	{"hertz", func(v float64) string { return scaled(v, 1000, "Hz", "kHz", "MHz", "GHz", "THz") }},
	{"percent", percent},
}

func formatterNames() []string {
	out := make([]string, len(formatters))
	for i, f := range formatters {
		out[i] = f.name
	}
	return out
}

func addFormatters(c *conf.Config) {
	for _, f := range formatters {
		c.Functions[f.name] = &builtin.Function{
			Name: f.name,
			Func: func(args ...any) (any, error) {
				v, ok := args[0].(float64)
				if !ok {
					return nil, fmt.Errorf("%s of %T", f.name, args[0])
				}
				return f.format(v), nil
			},
			Types: []reflect.Type{reflect.TypeFor[func(float64) string]()},
		}
	}
}

// percent shows a ratio: 0.873 as 87%, and with a decimal below 10%.
func percent(v float64) string {
	if math.Abs(v) < 0.0995 {
		return strconv.FormatFloat(v*100, 'f', 1, 64) + "%"
	}
	return strconv.FormatFloat(v*100, 'f', 0, 64) + "%"
}

// scaled shows a quantity in the largest unit of which there is at least one.
func scaled(v, step float64, units ...string) string {
	i := 0
	for math.Abs(v) >= step && i < len(units)-1 {
		v, i = v/step, i+1
	}
	return digits(v, 3) + " " + units[i]
}

// digits shows a number with so many significant digits, but never rounds away whole ones nor uses an exponent for
// what a person can read.
func digits(v float64, n int) string {
	if a := math.Abs(v); a >= 1e3 && a < 1e15 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', n, 64)
}

// seconds shows a length of time: 90 as 1m30s, 0.0123 as 12.3ms.
func seconds(v float64) string {
	if !finite(v) || math.Abs(v) > 1e9 {
		return strconv.FormatFloat(v, 'g', 3, 64) + "s"
	}
	d := time.Duration(v * float64(time.Second))
	switch {
	case d.Abs() < time.Second:
		return d.Round(100 * time.Microsecond).String()
	case d.Abs() < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
