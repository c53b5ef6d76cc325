package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
	"time"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

// HTML writes one page that holds everything: it loads nothing, and nothing in it runs.
func (r Report) HTML(out io.Writer) error {
	type table struct {
		Title string
		Head  []string
		Rows  [][]string
	}
	var p struct {
		Title, Head string
		Notes       []string
		Tables      []table
		Charts      []drawing
	}
	p.Title, p.Head, p.Notes = r.Title, clean(r.head()), r.Notes
	for _, t := range r.Tables {
		shownTable := table{Title: t.Title}
		for _, c := range t.seenBy(Programs) {
			shownTable.Head = append(shownTable.Head, t.Columns[c].Title)
		}
		for _, row := range t.Rows {
			var cells []string
			for _, c := range t.seenBy(Programs) {
				cells = append(cells, shown(row[c], t.Columns[c].Unit))
			}
			shownTable.Rows = append(shownTable.Rows, cells)
		}
		p.Tables = append(p.Tables, shownTable)
	}
	for _, c := range r.Charts {
		if d, ok := c.draw(); ok {
			p.Charts = append(p.Charts, d)
		}
	}
	return page.Execute(out, p)
}

// The size of a chart, and of what is around its plot.
const (
	width, height          = 640.0, 220.0
	left, right, top, foot = 70.0, 60.0, 8.0, 20.0
	plotWidth, plotHeight  = width - left - right, height - top - foot

	maxDrawn      = 500 // points of a line
	levels, times = 4, 4
)

// drawing is a chart in the units of its picture.
type drawing struct {
	Title         string
	Width, Height float64
	Band          string
	Paths         []path
	Levels        []label
	Marks         []label
	Times         []label
}

type path struct{ D, Class, Name string }

type label struct {
	X, Y, ToX float64
	Text      string
}

// draw is not ok if there is nothing to be drawn.
func (c Chart) draw() (drawing, bool) {
	d := drawing{Title: clean(c.Title), Width: width, Height: height}
	n, highest := 0, 0.0
	var lines []Line
	for _, l := range c.Lines {
		n = max(n, len(l.Values))
	}
	per := (n + maxDrawn - 1) / maxDrawn
	for _, l := range c.Lines {
		l.Values, l.Low, l.High = thin(l.Values, per), thin(l.Low, per), thin(l.High, per)
		lines = append(lines, l)
		for _, values := range [][]float64{l.Values, l.High} {
			for _, v := range values {
				if !math.IsNaN(v) {
					highest = max(highest, v)
				}
			}
		}
	}
	if n < 2 || highest <= 0 {
		return d, false
	}
	used := highest
	for _, m := range c.Marks {
		if m.Value <= 5*used { // what is far above would press the line flat
			highest = max(highest, m.Value)
		}
	}
	highest = levels * round(highest/levels, c.Unit)
	drawn := (n + per - 1) / per
	x := func(i int) float64 { return left + plotWidth*float64(i)/float64(max(drawn-1, 1)) }
	y := func(v float64) float64 {
		return top + plotHeight*(1-(min(max(v, 0), highest)/highest))
	}
	for i, l := range lines {
		class := []string{"first", "second"}[i%2]
		if l.Expected {
			class, d.Band = "expected", band(l, x, y)
		}
		d.Paths = append(d.Paths, path{trace(l.Values, x, y), class, l.Name})
	}
	for i := range levels + 1 {
		v := highest * float64(i) / levels
		d.Levels = append(d.Levels, label{X: left, Y: y(v), ToX: left + plotWidth, Text: quantity(v, c.Unit)})
	}
	for _, m := range c.Marks {
		if m.Value <= highest {
			d.Marks = append(d.Marks, label{X: left, Y: y(m.Value), ToX: left + plotWidth, Text: clean(m.Name)})
		}
	}
	for i := range times + 1 {
		at := i * (drawn - 1) / times
		when := c.Start.Add(c.Step * time.Duration(at*per)).UTC()
		form := "Jan 2"
		if c.Step*time.Duration(n) <= 2*24*time.Hour {
			form = "Jan 2 15:04"
		}
		d.Times = append(d.Times, label{X: x(at), Y: height - 4, Text: when.Format(form)})
	}
	return d, true
}

// round is the next number that people count by: 1, 1.5, 2, 2.5, 3, 4, 5, 6 or 8, and so many zeros.
func round(v float64, u Unit) float64 {
	unit := 1.0
	for u == Bytes && v >= 1024*unit {
		unit *= 1024
	}
	zeros := math.Pow(10, math.Floor(math.Log10(v/unit)))
	for _, n := range []float64{1, 1.5, 2, 2.5, 3, 4, 5, 6, 8} {
		if n*zeros*unit >= v {
			return n * zeros * unit
		}
	}
	return 10 * zeros * unit
}

// thin are means of so many values each.
func thin(v []float64, per int) []float64 {
	if per <= 1 || v == nil {
		return v
	}
	out := make([]float64, 0, len(v)/per+1)
	for i := 0; i < len(v); i += per {
		s, ok := statsOf(v[i:min(i+per, len(v))])
		if !ok {
			s.mean = math.NaN()
		}
		out = append(out, s.mean)
	}
	return out
}

// trace is a line as a path; where there is no value it is broken.
func trace(v []float64, x func(int) float64, y func(float64) float64) string {
	var b strings.Builder
	move := "M"
	for i, value := range v {
		if math.IsNaN(value) {
			move = "M"
			continue
		}
		fmt.Fprintf(&b, "%s%.1f %.1f", move, x(i), y(value))
		move = "L"
	}
	return b.String()
}

// band is the area between the low and the high values.
func band(l Line, x func(int) float64, y func(float64) float64) string {
	var there, back strings.Builder
	for i := range l.High {
		if math.IsNaN(l.High[i]) || math.IsNaN(l.Low[i]) {
			continue
		}
		verb := "L"
		if there.Len() == 0 {
			verb = "M"
		}
		fmt.Fprintf(&there, "%s%.1f %.1f", verb, x(i), y(l.High[i]))
	}
	for i := len(l.Low) - 1; i >= 0; i-- {
		if !math.IsNaN(l.High[i]) && !math.IsNaN(l.Low[i]) {
			fmt.Fprintf(&back, "L%.1f %.1f", x(i), y(l.Low[i]))
		}
	}
	if there.Len() == 0 {
		return ""
	}
	return there.String() + back.String() + "Z"
}
