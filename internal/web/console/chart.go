package console

import (
	"fmt"
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/protip/protip/internal/history"
)

// chart is lines over time in one unit. It is drawn as inline SVG that is as wide as its place: the lines scale, the letters do not.
type chart struct {
	Name  string // of the figure, unique in its page
	Title string
	Unit  string
	Start time.Time
	End   time.Time
	Step  time.Duration // between points; a longer distance is a gap
	Lines []line
	// Levels are what a line may reach, Marks what happened meanwhile.
	Levels []level
	Marks  []mark
	Top    float64 // what the axis reaches at least
	Small  bool
}

// line is one series. Expected is what is foreseen; Low and High are an interval around it, if there is one.
type line struct {
	Name      string
	Points    []history.Point
	Low, High []history.Point
	Expected  bool
}

// level is a horizontal line: a threshold, or a goal.
type level struct {
	Name, Class string
	Value       float64
}

// mark is a vertical line at an instant.
type mark struct {
	Text, Class string
	At          time.Time
}

// The plot's own units; its picture is stretched to its place.
const (
	plotWide = 1000
	plotHigh = 200
	rungs    = 4
)

// Empty reports whether there is nothing to draw.
func (c chart) Empty() bool {
	for _, l := range c.Lines {
		if len(l.Points) > 0 {
			return false
		}
	}
	return true
}

// Latest is the last value of each line, and when that was.
func (c chart) Latest() (out []string) {
	for _, l := range c.Lines {
		if n := len(l.Points); n > 0 {
			out = append(out, l.Name+" "+quantity(l.Points[n-1].V, c.Unit))
		}
	}
	return out
}

// Legend is what the lines and levels are called.
func (c chart) Legend() []key {
	var out []key
	for i, l := range c.Lines {
		value := ""
		if n := len(l.Points); n > 0 {
			value = quantity(l.Points[n-1].V, c.Unit)
		}
		out = append(out, key{"l" + strconv.Itoa(i%5+1), l.Name, value})
	}
	for _, l := range c.Levels {
		out = append(out, key{l.Class, l.Name, quantity(l.Value, c.Unit)})
	}
	return out
}

// key is one entry of a legend.
type key struct{ Class, Name, Value string }

// Words say what the picture shows, for who does not see it.
func (c chart) Words() string {
	var parts []string
	for _, l := range c.Lines {
		if len(l.Points) == 0 {
			parts = append(parts, l.Name+": no data")
			continue
		}
		low, high := math.Inf(1), math.Inf(-1)
		for _, p := range l.Points {
			low, high = min(low, p.V), max(high, p.V)
		}
		parts = append(parts, fmt.Sprintf("%s from %s to %s, %s at the end", l.Name,
			quantity(low, c.Unit), quantity(high, c.Unit), quantity(l.Points[len(l.Points)-1].V, c.Unit)))
	}
	for _, l := range c.Levels {
		parts = append(parts, l.Name+" "+quantity(l.Value, c.Unit))
	}
	return strings.Join(parts, "; ")
}

// ceiling is what the axis reaches: a round number above all that is drawn.
func (c chart) ceiling() float64 {
	high := c.Top
	for _, l := range c.Lines {
		for _, p := range slices.Concat(l.Points, l.High) {
			if !math.IsNaN(p.V) && !math.IsInf(p.V, 0) {
				high = max(high, p.V)
			}
		}
	}
	used := high
	for _, l := range c.Levels {
		if used == 0 || l.Value <= 4*used { // what is far above would press the lines flat
			high = max(high, l.Value*1.1)
		}
	}
	if c.Unit == "ratio" && high > 0.5 && high <= 1 {
		return 1
	}
	if high <= 0 {
		high = 1e-3
		if c.Unit == "ratio" {
			high = 0.1
		}
	}
	return roundUp(high, c.Unit)
}

// roundUp is a number whose quarters are easy to read.
func roundUp(v float64, unit string) float64 {
	base := 1.0
	if unit == "bytes" {
		for v/base >= 1024 {
			base *= 1024
		}
	}
	zeros := base * math.Pow(10, math.Floor(math.Log10(v/base)))
	for _, n := range []float64{1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10} {
		if n*zeros >= v*0.999 {
			return n * zeros
		}
	}
	return 10 * zeros
}

// SVG draws the chart.
func (c chart) SVG() template.HTML {
	high := c.ceiling()
	from, to := c.Start.UnixMilli(), c.End.UnixMilli()
	if to <= from {
		to = from + 1
	}
	share := func(t int64) float64 { return float64(t-from) / float64(to-from) }
	x := func(t int64) int { return int(math.Round(plotWide * share(t))) }
	y := func(v float64) int { return int(math.Round(plotHigh * (1 - min(max(v/high, 0), 1)))) }
	var b strings.Builder
	class := "plot"
	if c.Small {
		class += " small"
	}
	fmt.Fprintf(&b, `<svg class="%s" role="img" aria-label="%s">`, class, template.HTMLEscapeString(clean(c.Title+". "+c.Words())))
	b.WriteString(`<svg class="lines" width="100%" height="100%" viewBox="0 0 1000 200" preserveAspectRatio="none">`)
	for i := range rungs + 1 {
		fmt.Fprintf(&b, `<path class="rung" d="M0 %dH1000"/>`, plotHigh*i/rungs)
	}
	for _, m := range c.Marks {
		if at := m.At.UnixMilli(); at >= from && at <= to {
			fmt.Fprintf(&b, `<path class="mark %s" d="M%d 0V200"/>`, m.Class, x(at))
		}
	}
	gap := c.gap()
	for i := len(c.Lines) - 1; i >= 0; i-- {
		l := c.Lines[i]
		class := fmt.Sprintf("line l%d", i%5+1)
		if l.Expected {
			class += " expected"
			if d := band(l, x, y); d != "" {
				fmt.Fprintf(&b, `<path class="band l%d" d="%s"/>`, i%5+1, d)
			}
		}
		if i == 0 && !l.Expected {
			if area := trace(l.Points, gap, x, y, true); area != "" {
				fmt.Fprintf(&b, `<path class="area l1" d="%s"/>`, area)
			}
		}
		if d := trace(l.Points, gap, x, y, false); d != "" {
			fmt.Fprintf(&b, `<path class="%s" d="%s"/>`, class, d)
		}
	}
	for _, l := range c.Levels {
		if l.Value <= high {
			fmt.Fprintf(&b, `<path class="level %s" d="M0 %dH1000"/>`, l.Class, y(l.Value))
		}
	}
	b.WriteString(`</svg>`)
	c.letters(&b, high, share)
	b.WriteString(`</svg>`)
	return template.HTML(b.String())
}

// letters are the axes' labels, which keep their shape whatever the width.
func (c chart) letters(b *strings.Builder, high float64, share func(int64) float64) {
	for i := range rungs + 1 {
		fmt.Fprintf(b, `<text class="y" x="0" y="%d%%" dx="-6" dy="4" text-anchor="end">%s</text>`, 100-100*i/rungs, axis(high*float64(i)/rungs, high, c.Unit))
	}
	ticks := 4
	for i := range ticks + 1 {
		t := c.Start.Add(c.End.Sub(c.Start) * time.Duration(i) / time.Duration(ticks))
		anchor := "middle"
		switch i {
		case 0:
			anchor = "start"
		case ticks:
			anchor = "end"
		}
		odd := ""
		if i%2 == 1 {
			odd = " odd"
		}
		fmt.Fprintf(b, `<text class="x%s" x="%d%%" y="100%%" dy="14" text-anchor="%s">%s</text>`, odd, 100*i/ticks, anchor, c.tick(t))
	}
	for _, m := range c.Marks {
		at := share(m.At.UnixMilli())
		crowded := slices.ContainsFunc(c.Marks, func(o mark) bool {
			d := share(o.At.UnixMilli()) - at
			return o.Text != "" && d > 0 && d < 0.1
		})
		if at < 0 || at > 1 || m.Text == "" || crowded {
			continue
		}
		anchor, dx := "start", 4
		if at > 0.7 {
			anchor, dx = "end", -4
		}
		fmt.Fprintf(b, `<text class="said %s" x="%.1f%%" y="0" dy="10" dx="%d" text-anchor="%s">%s</text>`, m.Class, 100*at, dx, anchor,
			template.HTMLEscapeString(clean(m.Text)))
	}
}

// axis is a label of the y axis: whole percents, and no more digits than needed.
func axis(v, high float64, unit string) string {
	if unit == "ratio" {
		digits := 0
		if quarter := 100 * high / rungs; math.Abs(quarter-math.Round(quarter)) > 1e-9 {
			digits = 1
		}
		return trimmed(100*v, digits) + " %"
	}
	return quantity(v, unit)
}

func (c chart) tick(t time.Time) string {
	if c.End.Sub(c.Start) > 48*time.Hour {
		return t.UTC().Format("Jan 2")
	}
	return t.UTC().Format("15:04")
}

// gap is the distance between two points above which the line is broken.
func (c chart) gap() int64 {
	if c.Step <= 0 {
		return math.MaxInt64
	}
	return c.Step.Milliseconds()*3/2 + 1
}

// trace is a line as a path, or the area below it.
func trace(points []history.Point, gap int64, x func(int64) int, y func(float64) int, area bool) string {
	var b strings.Builder
	began, lastX, before := 0, 0, int64(math.MinInt64)
	end := func() {
		if area && before != math.MinInt64 {
			fmt.Fprintf(&b, "V200H%dZ", began)
		}
	}
	for _, p := range points {
		if math.IsNaN(p.V) || math.IsInf(p.V, 0) {
			continue
		}
		px := x(p.T)
		if px < 0 || px > plotWide {
			continue
		}
		if before == math.MinInt64 || p.T-before > gap {
			end()
			began = px
			fmt.Fprintf(&b, "M%d %d", px, y(p.V))
			if !area {
				b.WriteString("h0") // a single sample is a dot
			}
		} else if px != lastX || area {
			fmt.Fprintf(&b, "L%d %d", px, y(p.V))
		}
		before, lastX = p.T, px
	}
	end()
	return b.String()
}

// band is the area between the low and the high values.
func band(l line, x func(int64) int, y func(float64) int) string {
	if len(l.Low) == 0 || len(l.Low) != len(l.High) {
		return ""
	}
	var b strings.Builder
	verb := "M"
	for _, p := range l.High {
		fmt.Fprintf(&b, "%s%d %d", verb, x(p.T), y(p.V))
		verb = "L"
	}
	for _, p := range slices.Backward(l.Low) {
		fmt.Fprintf(&b, "L%d %d", x(p.T), y(p.V))
	}
	return b.String() + "Z"
}

// spark is a line so small that it has no axes.
func spark(points []history.Point, r history.Range, top float64, words string) template.HTML {
	if len(points) < 2 {
		return ""
	}
	from, to := r.Start.UnixMilli(), r.End.UnixMilli()
	for _, p := range points {
		top = max(top, p.V)
	}
	if top <= 0 || to <= from {
		return ""
	}
	x := func(t int64) int { return int(math.Round(100 * float64(t-from) / float64(to-from))) }
	y := func(v float64) int { return 1 + int(math.Round(22*(1-min(max(v/top, 0), 1)))) }
	d := trace(points, r.Step.Milliseconds()*3/2+1, x, y, false)
	return template.HTML(`<svg class="spark" viewBox="0 0 100 24" preserveAspectRatio="none" role="img" aria-label="` +
		template.HTMLEscapeString(clean(words)) + `"><path class="line l1" d="` + d + `"/></svg>`)
}

// bar is a share as a bar; hot is where it becomes alarming.
func bar(n number, full, hot float64) template.HTML {
	if !n.OK {
		return `<svg class="bar nk" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true"><rect class="track" width="100" height="6"/></svg>`
	}
	class := "calm"
	switch {
	case n.V >= hot:
		class = "hot"
	case n.V >= 0.8*hot:
		class = "warm"
	}
	return template.HTML(fmt.Sprintf(`<svg class="bar %s" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">`+
		`<rect class="track" width="100" height="6"/><rect class="fill" width="%.1f" height="6"/></svg>`, class, 100*min(max(n.V/full, 0), 1)))
}

// change is a share before and after a move, as one bar: what is now is pale, what will be is solid.
func change(before, after number, level float64) template.HTML {
	if !before.OK || !after.OK {
		return bar(number{}, 1, 1)
	}
	class := "calm"
	if level > 0 && after.V >= level {
		class = "hot"
	}
	at := func(v float64) float64 { return 100 * min(max(v, 0), 1) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="bar wide %s" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"><rect class="track" width="100" height="10"/>`, class)
	fmt.Fprintf(&b, `<rect class="before" width="%.1f" height="10"/><rect class="fill" y="2" width="%.1f" height="6"/>`, at(before.V), at(after.V))
	if level > 0 {
		fmt.Fprintf(&b, `<path class="tick" d="M%.1f 0V10"/>`, at(level))
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String())
}

// stars are a rating: five of them, in halves.
func stars(v float64) template.HTML {
	var b strings.Builder
	fmt.Fprintf(&b, `<span class="stars" role="img" aria-label="%s of 5 stars">`, trimmed(v, 1))
	const shape = "M8 1l2.2 4.5 4.9.7-3.6 3.4.9 4.9L8 12.2l-4.4 2.3.9-4.9L.9 6.2l4.9-.7z"
	for i := range 5 {
		class := "none"
		switch {
		case v >= float64(i)+1:
			class = "full"
		case v >= float64(i)+0.5:
			class = "half"
		}
		fmt.Fprintf(&b, `<svg class="star %s" viewBox="0 0 16 16" aria-hidden="true"><path class="empty" d="%s"/>`, class, shape)
		if class != "none" {
			left := shape
			if class == "half" {
				left = "M8 1v11.2l-4.4 2.3.9-4.9L.9 6.2l4.9-.7z"
			}
			fmt.Fprintf(&b, `<path class="lit" d="%s"/>`, left)
		}
		b.WriteString(`</svg>`)
	}
	b.WriteString(`</span>`)
	return template.HTML(b.String())
}
