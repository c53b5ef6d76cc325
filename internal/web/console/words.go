package console

import (
	"fmt"
	"html/template"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/inventory"
)

// number is a measured value, if there is one, and when it was last true.
type number struct {
	V    float64
	OK   bool
	At   time.Time // zero: never seen
	Unit string
}

func known(v float64, unit string) number {
	return number{V: v, OK: !math.IsNaN(v) && !math.IsInf(v, 0), Unit: unit}
}

// fact is a number that is 0 only where the platform did not tell it.
func fact(v float64, unit string) number {
	n := known(v, unit)
	n.OK = n.OK && v != 0
	return n
}

// sampled is an object's last sample of a metric.
func sampled(s inventory.Samples, m inventory.Metric) number {
	v, ok := s.Value(m)
	n := known(v, m.Desc().Unit)
	n.OK, n.At = n.OK && ok, s.Of(m).Time()
	return n
}

// over is a share of a number; it is known if both are.
func (n number) over(whole float64) number {
	out := number{OK: n.OK && whole > 0, At: n.At, Unit: "ratio"}
	if out.OK {
		out.V = n.V / whole
	}
	return out
}

// String is the number in words, without what to say when there is none.
func (n number) String() string {
	if !n.OK {
		return "unknown"
	}
	return quantity(n.V, n.Unit)
}

// quantity formats a value of a unit for people.
func quantity(v float64, unit string) string {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "unknown"
	case unit == "ratio" || unit == "percent":
		return percent(v)
	case unit == "hertz":
		return scaled(v, 1000, "Hz", "kHz", "MHz", "GHz", "THz")
	case unit == "bytes":
		return scaled(v, 1024, "B", "KiB", "MiB", "GiB", "TiB", "PiB")
	case unit == "bytes/s":
		return scaled(v, 1000, "B/s", "kB/s", "MB/s", "GB/s", "TB/s")
	case unit == "seconds":
		return seconds(v)
	case unit == "stars":
		return trimmed(v, 1) + " stars"
	case unit == "days":
		return trimmed(v, 0) + " d"
	}
	return trimmed(v, 2)
}

// percent shows small shares with a decimal.
func percent(v float64) string {
	if math.Abs(v) < 0.0995 && v != 0 {
		return trimmed(100*v, 1) + " %"
	}
	return strconv.FormatFloat(100*v, 'f', 0, 64) + " %"
}

// scaled shows a quantity in the largest unit of which there is at least one, in about three digits.
func scaled(v, step float64, units ...string) string {
	i := 0
	for math.Abs(v) >= step && i < len(units)-1 {
		v, i = v/step, i+1
	}
	digits := 0
	if a := math.Abs(v); i > 0 && a < 10 {
		digits = 2
	} else if i > 0 && a < 100 {
		digits = 1
	}
	return trimmed(v, digits) + " " + units[i]
}

func seconds(v float64) string {
	switch a := math.Abs(v); {
	case a == 0:
		return "0 s"
	case a < 0.001:
		return trimmed(v*1e6, 0) + " µs"
	case a < 1:
		return trimmed(v*1e3, 1) + " ms"
	case a < 120:
		return trimmed(v, 1) + " s"
	}
	return span(time.Duration(v * float64(time.Second)))
}

// trimmed has at most so many decimals, and no zeros at the end of them.
func trimmed(v float64, digits int) string {
	s := strconv.FormatFloat(v, 'f', digits, 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// span is a length of time, in the unit that says most and the next smaller one.
func span(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Second:
		return "less than 1 s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d d", int(d.Hours()/24))
}

// ago is how long it is since t, or until t.
func ago(now, t time.Time) string {
	switch d := now.Sub(t); {
	case t.IsZero():
		return "never"
	case d < -time.Second:
		return "in " + span(-d)
	case d < time.Second:
		return "now"
	default:
		return span(d) + " ago"
	}
}

// moment is an instant as <time>: how long ago it was, and exactly when on asking.
func moment(now, t time.Time) template.HTML {
	if t.IsZero() {
		return `<span class="nk">never</span>`
	}
	return template.HTML(`<time datetime="` + t.UTC().Format(time.RFC3339) + `" title="` + exactly(t) + `">` + ago(now, t) + `</time>`)
}

func exactly(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// clockTime is the time of day, with the day if it is another.
func clockTime(now, t time.Time) string {
	if now.Sub(t).Abs() < 20*time.Hour {
		return t.UTC().Format("15:04")
	}
	return t.UTC().Format("Jan 2 15:04")
}

// clean is a name on one line, without what could steer a page or fool a reader: names come from platforms, and platforms are hostile.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return '\ufffd'
		}
		return r
	}, s)
}

// words spells a state or a code for people.
func words[T ~string](s T) string { return strings.NewReplacer("_", " ", "-", " ").Replace(string(s)) }

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	if stem, ok := strings.CutSuffix(one, "y"); ok {
		return thousands(n) + " " + stem + "ies"
	}
	return thousands(n) + " " + one + "s"
}

// thousands groups digits by narrow spaces.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

// href is the page of an object, empty if it has none.
func href(id inventory.ID) string {
	switch id.Kind {
	case inventory.KindCluster, inventory.KindHost, inventory.KindVM:
		return "/" + id.Kind.String() + "s/" + url.PathEscape(id.Source) + "/" + id.Kind.String() + "/" + url.PathEscape(id.Ref)
	}
	return ""
}

// last is the newest value of a series as a number that is no longer true.
func last(points []history.Point, unit string) number {
	if len(points) == 0 {
		return number{Unit: unit}
	}
	p := points[len(points)-1]
	return number{V: p.V, At: time.UnixMilli(p.T), Unit: unit}
}

// sentence begins with a capital letter and ends with a full stop.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}
