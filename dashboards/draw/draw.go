// Package draw makes a picture of a dashboard with the answers of a Prometheus: one HTML page, its panels where Grafana's grid has them.
// It promises to read what is drawn from the dashboard's JSON and to draw nothing that no query answered. It is no Grafana: it knows the panels
// and options that package dashboards writes, and no others.
// It must not import anything that runs besides a client of Prometheus.
package draw

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"strings"
	"time"

	"github.com/protip/protip/dashboards"
	"github.com/protip/protip/dashboards/check"
	"github.com/protip/protip/internal/history"
)

// Width is that of a page in pixels.
const Width = 1280

// Grafana's grid: 24 columns, rows of 30 pixels, 8 pixels between them.
const (
	gap  = 8
	cell = (Width - gap) / 24.0
	row  = 30 + gap
)

// model is what of a dashboard's JSON is drawn.
type model struct {
	Title  string  `json:"title"`
	Panels []panel `json:"panels"`
}

type panel struct {
	Type    string `json:"type"`
	Title   string `json:"title"`
	GridPos struct {
		X, Y, W, H int
	} `json:"gridPos"`
	Targets []struct {
		RefID  string `json:"refId"`
		Expr   string `json:"expr"`
		Legend string `json:"legendFormat"`
	} `json:"targets"`
	FieldConfig struct {
		Defaults struct {
			Unit string `json:"unit"`
			Min  *float64
		} `json:"defaults"`
		Overrides []struct {
			Matcher    struct{ Options string }
			Properties []struct {
				ID    string
				Value any
			}
		} `json:"overrides"`
	} `json:"fieldConfig"`
	Options struct {
		Legend struct {
			DisplayMode, Placement string
			Calcs                  []string
		} `json:"legend"`
	} `json:"options"`
	Transformations []struct {
		ID      string
		Options struct {
			ExcludeByName map[string]bool
			RenameByName  map[string]string
			IndexByName   map[string]int
		}
	} `json:"transformations"`
}

// Page draws a dashboard over the checker's range. fixed are values of its variables. height is that of the page.
func Page(ctx context.Context, c check.Checker, d dashboards.Dashboard, fixed map[string]string) (page []byte, height int, err error) {
	text, err := d.JSON()
	if err != nil {
		return nil, 0, err
	}
	var m model
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, 0, fmt.Errorf("draw %s: %w", d.UID, err)
	}
	values, err := c.Variables(ctx, d, fixed)
	if err != nil {
		return nil, 0, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<!doctype html><meta charset="utf-8"><title>%s</title><style>%s</style><header><b>%[1]s</b>`, html.EscapeString(m.Title), style)
	for _, v := range d.Variables {
		value := values[v.Name]
		if value == ".*" {
			value = "All"
		}
		fmt.Fprintf(&b, `<label>%s<i>%s</i></label>`, html.EscapeString(v.Label), html.EscapeString(value))
	}
	fmt.Fprintf(&b, `<time>%s to %s UTC</time></header><main>`, c.From.UTC().Format(time.DateTime), c.To.UTC().Format(time.TimeOnly))
	bottom := 0
	for _, p := range m.Panels {
		bottom = max(bottom, p.GridPos.Y+p.GridPos.H)
		if err := p.draw(ctx, &b, c, values); err != nil {
			return nil, 0, fmt.Errorf("draw %s: %s: %w", d.UID, p.Title, err)
		}
	}
	b.WriteString("</main>")
	return []byte(b.String()), header + bottom*row + gap, nil
}

const header = 44

const style = `*{box-sizing:border-box;margin:0}body{background:#111217;color:#ccccdc;font:13px "DejaVu Sans",sans-serif;width:1280px}
header{height:44px;padding:13px 8px;display:flex;gap:16px}header i{font-style:normal;background:#22252b;border-radius:2px;padding:3px 8px;margin-left:6px;color:#6e9fff}
time{margin-left:auto;color:#8e8e99}main{position:relative}section{position:absolute;background:#181b1f;border:1px solid #26282e;border-radius:2px;overflow:hidden;padding:7px 9px}
h2{font-size:14px;font-weight:500;padding:7px 4px}h3{font-size:13px;font-weight:500;margin-bottom:4px;white-space:nowrap}
.row{position:absolute}.stat{font-size:30px;text-align:center;color:#73bf69;padding-top:12px;font-weight:500}
table{border-collapse:collapse;width:100%;font-size:12px}th{color:#6e9fff;font-weight:500}th,td{text-align:left;padding:7px 8px;border-bottom:1px solid #26282e;white-space:nowrap}.n{text-align:right}.bar+span{display:inline-block;width:46px}.a{color:#6e9fff}
.bar{display:inline-block;width:90px;height:9px;background:#26282e;margin-right:8px}.bar b{display:block;height:9px;background:#5794f2}
.list{font-size:11px;line-height:16px;overflow:hidden;color:#b0b0be}.list span{white-space:nowrap;margin-right:11px}u{display:inline-block;width:12px;height:4px;margin-right:5px;vertical-align:middle}
.side{position:absolute;right:8px;top:26px;width:300px;font-size:11px}.side th,.side td{padding:1px 5px;font-size:11px}.side td:first-child{max-width:170px;overflow:hidden}svg text{fill:#8e8e99;font-size:10px}`

// draw writes one panel.
func (p *panel) draw(ctx context.Context, b *strings.Builder, c check.Checker, values map[string]string) error {
	x, y := gap+float64(p.GridPos.X)*cell, float64(p.GridPos.Y*row)
	w, h := float64(p.GridPos.W)*cell-gap, float64(p.GridPos.H*row-gap)
	box := fmt.Sprintf(`style="left:%.0fpx;top:%.0fpx;width:%.0fpx;height:%.0fpx"`, x, y, w, h)
	if p.Type == "row" {
		fmt.Fprintf(b, `<h2 class="row" %s>%s</h2>`, box, html.EscapeString(p.Title))
		return nil
	}
	fmt.Fprintf(b, `<section %s><h3>%s</h3>`, box, html.EscapeString(p.Title))
	switch p.Type {
	case "stat":
		v, err := c.Ask.Query(ctx, c.Resolve(p.Targets[0].Expr, values), c.To)
		if err != nil {
			return err
		}
		said := "No data"
		if len(v) > 0 {
			said = value(p.FieldConfig.Defaults.Unit, v[0].Value)
		}
		fmt.Fprintf(b, `<div class="stat">%s</div>`, html.EscapeString(said))
	case "table":
		if err := p.table(ctx, b, c, values); err != nil {
			return err
		}
	case "timeseries", "state-timeline":
		var all []line
		for _, t := range p.Targets {
			m, err := c.Past(ctx, c.Resolve(t.Expr, values))
			if err != nil {
				return err
			}
			for _, s := range m {
				all = append(all, line{legend(t.Legend, s.Labels), s.Points})
			}
		}
		if p.Type == "timeseries" {
			p.lines(b, all, c, w, h)
		} else {
			p.states(b, all, c, w, h)
		}
	default:
		return fmt.Errorf("no such panel: %s", p.Type)
	}
	b.WriteString("</section>")
	return nil
}

// legend puts labels into a series' name.
func legend(format string, labels history.Labels) string {
	replace := []string{}
	for _, l := range labels {
		replace = append(replace, "{{"+l.Name+"}}", l.Value)
	}
	return strings.NewReplacer(replace...).Replace(format)
}
