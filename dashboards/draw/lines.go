package draw

import (
	"cmp"
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/protip/protip/dashboards/check"
	"github.com/protip/protip/internal/history"
)

// line is one series and its name.
type line struct {
	name   string
	points []history.Point
}

// last is its last value, highest the greatest.
func (l line) last() float64 {
	if len(l.points) == 0 {
		return math.NaN()
	}
	return l.points[len(l.points)-1].V
}

func (l line) highest() float64 {
	high := math.Inf(-1)
	for _, p := range l.points {
		high = max(high, p.V)
	}
	return high
}

var colours = []string{"#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#ffcb7d", "#56a64b", "#e0b400", "#3274d9", "#c15c17"}

func colour(i int) string { return colours[i%len(colours)] }

// lines draws series over time, with the legend below or beside them.
func (p *panel) lines(b *strings.Builder, all []line, c check.Checker, w, h float64) {
	const lineHigh, left, under, head = 16, 58, 18, 30
	slices.SortStableFunc(all, func(a, b line) int { return cmp.Compare(a.name, b.name) })
	right, bottom := 12.0, 0.0
	side := p.Options.Legend.Placement == "right"
	shown := len(all)
	if side {
		right = 316
		shown = min(shown, int(h-head-20)/lineHigh-1)
	} else {
		bottom = 2*lineHigh + 4
	}
	if len(all) == 0 {
		b.WriteString(`<div class="stat" style="color:#8e8e99;font-size:14px">No data</div>`)
		return
	}
	width, height := w-20-right+12, h-head-14-bottom
	low, high := 0.0, math.Inf(-1)
	for _, l := range all {
		for _, pt := range l.points {
			if !math.IsNaN(pt.V) {
				low, high = min(low, pt.V), max(high, pt.V)
			}
		}
	}
	if p.FieldConfig.Defaults.Min != nil {
		low = *p.FieldConfig.Defaults.Min
	}
	ticks := ticks(p.FieldConfig.Defaults.Unit, low, high)
	high = max(high, ticks[len(ticks)-1])
	from, length := c.From.UnixMilli(), float64(c.To.Sub(c.From).Milliseconds())
	px := func(t int64) float64 { return left + float64(t-from)/length*(width-left) }
	py := func(v float64) float64 { return height - under - (v-low)/(high-low)*(height-under-6) }
	fmt.Fprintf(b, `<svg width="%.0f" height="%.0f">`, width, height)
	for _, t := range ticks {
		fmt.Fprintf(b, `<path d="M%d %.1fH%.1f" stroke="#26282e"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`, left, py(t), width, left-6, py(t)+3, html.EscapeString(value(p.FieldConfig.Defaults.Unit, t)))
	}
	times(b, c, px, height-3)
	step := c.Step().Milliseconds()
	for i, l := range all {
		var path strings.Builder
		for j, pt := range l.points {
			to := "L"
			if j == 0 || pt.T-l.points[j-1].T > step*3/2 {
				to = "M" // a gap
			}
			fmt.Fprintf(&path, "%s%.1f %.1f", to, px(pt.T), py(pt.V))
		}
		fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="1.3"/>`, path.String(), colour(i))
	}
	b.WriteString("</svg>")
	if side {
		b.WriteString(`<table class="side"><tr><th>Name<th class="n">Last<th class="n">Max</tr>`)
		for i, l := range all[:shown] {
			fmt.Fprintf(b, `<tr><td><u style="background:%s"></u>%s<td class="n">%s<td class="n">%s</tr>`, colour(i), html.EscapeString(l.name),
				value(p.FieldConfig.Defaults.Unit, l.last()), value(p.FieldConfig.Defaults.Unit, l.highest()))
		}
		b.WriteString("</table>")
		return
	}
	fmt.Fprintf(b, `<div class="list" style="height:%dpx">`, 2*lineHigh)
	for i, l := range all {
		fmt.Fprintf(b, `<span><u style="background:%s"></u>%s  %s</span> `, colour(i), html.EscapeString(l.name), value(p.FieldConfig.Defaults.Unit, l.last()))
	}
	b.WriteString("</div>")
}

// times are written below a chart.
func times(b *strings.Builder, c check.Checker, px func(int64) float64, y float64) {
	const half = 26 // of a time's width
	every := max(c.To.Sub(c.From)/4, 5*time.Second).Truncate(5 * time.Second)
	for at := c.From.Truncate(every).Add(every); at.Before(c.To); at = at.Add(every) {
		if px(at.UnixMilli())+half > px(c.To.UnixMilli()) {
			break
		}
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`, px(at.UnixMilli()), y, at.UTC().Format("15:04:05"))
	}
}

// states draws a bar for each series: dark where it is 0, bright where it is 1, nothing where it is not.
func (p *panel) states(b *strings.Builder, all []line, c check.Checker, w, h float64) {
	const left, bottom = 150.0, 16.0
	slices.SortStableFunc(all, func(a, b line) int { return cmp.Compare(a.name, b.name) })
	width, height := w-20, h-34
	from, length := c.From.UnixMilli(), float64(c.To.Sub(c.From).Milliseconds())
	px := func(t int64) float64 { return left + min(float64(t-from)/length, 1)*(width-left) }
	fmt.Fprintf(b, `<svg width="%.0f" height="%.0f">`, width, height)
	high := min((height-bottom)/float64(max(len(all), 1)), 60)
	for i, l := range all {
		y := float64(i) * high
		fmt.Fprintf(b, `<text x="%.0f" y="%.1f" text-anchor="end">%s</text>`, left-8, y+high/2+3, html.EscapeString(l.name))
		for _, pt := range l.points {
			fill := "#37393f"
			if pt.V != 0 {
				fill = "#5794f2"
			}
			x := px(pt.T)
			fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`, x, y+2, px(pt.T+c.Step().Milliseconds())-x+0.5, high-4, fill)
		}
	}
	times(b, c, px, height-3)
	b.WriteString("</svg>")
}

// ticks are round values from low to at least high.
func ticks(unit string, low, high float64) []float64 {
	if !(high > low) {
		high = low + 1
	}
	rough := (high - low) / 4
	step := math.Exp2(math.Ceil(math.Log2(rough)))
	if unit != "bytes" {
		power := math.Pow(10, math.Floor(math.Log10(rough)))
		step = 10 * power
		for _, f := range []float64{1, 2, 2.5, 5} {
			if rough <= f*power {
				step = f * power
				break
			}
		}
	}
	var out []float64
	for v := math.Floor(low/step) * step; ; v += step {
		out = append(out, v)
		if v >= high-step/1000 {
			return out
		}
	}
}

// value is a number as Grafana writes one of that unit.
func value(unit string, v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return ""
	}
	scaled := func(base float64, names ...string) string {
		i := 0
		for math.Abs(v) >= base && i < len(names)-1 {
			v, i = v/base, i+1
		}
		return strings.TrimSpace(number(v) + " " + names[i])
	}
	switch unit {
	case "percentunit":
		return number(100*v) + "%"
	case "bytes":
		return scaled(1024, "B", "KiB", "MiB", "GiB", "TiB", "PiB")
	case "Bps":
		return scaled(1000, "B/s", "kB/s", "MB/s", "GB/s")
	case "hertz":
		return scaled(1000, "Hz", "kHz", "MHz", "GHz", "THz")
	case "pps":
		return scaled(1000, "p/s", "kp/s", "Mp/s")
	case "ops":
		return number(v) + " ops/s"
	case "wps":
		return scaled(1000, "wr/s", "K wr/s")
	case "bool_yes_no":
		if v == 0 {
			return "No"
		}
		return "Yes"
	case "s":
		switch {
		case v == 0:
			return "0 s"
		case math.Abs(v) < 1e-3:
			return number(v*1e6) + " µs"
		case math.Abs(v) < 1:
			return number(v*1e3) + " ms"
		case math.Abs(v) < 120:
			return number(v) + " s"
		case math.Abs(v) < 7200:
			return number(v/60) + " min"
		case math.Abs(v) < 172800:
			return number(v/3600) + " hours"
		}
		return number(v/86400) + " days"
	}
	return scaled(1000, "", "K", "Mil", "Bil")
}

// number is a value with three figures that say something.
func number(v float64) string {
	decimals := 0
	if a := math.Abs(v); a > 0 && a < 100 && v != math.Trunc(v) {
		decimals = max(0, 2-int(math.Floor(math.Log10(a))))
	}
	s := fmt.Sprintf("%.*f", min(decimals, 4), v)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}
