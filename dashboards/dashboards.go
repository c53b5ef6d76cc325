// Package dashboards writes the shipped Grafana dashboards, from the metrics there are. The JSON beside it is what it wrote.
// It promises that every panel has a title, a description and a unit, and that none asks for a metric that is not exposed.
// It must not import anything that runs: it is a generator, and its tests keep the JSON from drifting.
package dashboards

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Dashboard is one page.
type Dashboard struct {
	UID, Title, About string
	Variables         []Variable
	Rows              []Row
}

// Variable is a choice at the top of a page.
type Variable struct {
	Name, Label string
	Query       string // label_values(...)
	Multi       bool
}

// Row is a heading and the panels below it.
type Row struct {
	Title  string
	Panels []Panel
}

// Kind is how a panel shows its values.
type Kind string

// Kinds of panel.
const (
	Lines  Kind = "timeseries"
	States Kind = "state-timeline" // a bar for each series, 0 or 1
	Stat   Kind = "stat"
	Table  Kind = "table"
)

// Panel is one picture.
type Panel struct {
	Title, About string
	Kind         Kind
	Unit         string // Grafana's: percentunit, bytes, hertz, s, Bps, short, ...
	Targets      []Target
	Moves        Scenario
	// Link leads further down, from the label that is clicked; empty if nothing is below.
	Link Link
	Wide int // of 24 columns; default 8, of a stat 4, of a table 24
	High int // default 8, of a stat 4
}

// Target is one query and how its series are called.
type Target struct {
	Expr   string
	Legend string // of lines: with labels, as {{host}}; of a table the column
	Unit   string // of a table's column, if it is not the panel's
}

// Link is from a value of a label to another page, whose variables are the row's or the series' labels.
type Link struct {
	Label, To string
	Variables []string
}

// Uses are the queries of a page's panels, with its variables still in them.
func (d Dashboard) Uses() []string {
	var out []string
	for _, r := range d.Rows {
		for _, p := range r.Panels {
			for _, t := range p.Targets {
				out = append(out, t.Expr)
			}
		}
	}
	return out
}

type object = map[string]any

// JSON is the page as Grafana imports it.
func (d Dashboard) JSON() ([]byte, error) {
	b, err := json.MarshalIndent(d.model(), "", "  ")
	if err != nil {
		return nil, fmt.Errorf("dashboard %s: %w", d.UID, err)
	}
	return append(b, '\n'), nil
}

func (d Dashboard) model() object {
	variables := []any{object{
		"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1, "hide": 0,
		"current": object{}, "options": []any{}, "regex": "", "multi": false, "includeAll": false,
	}}
	for _, v := range d.Variables {
		one := object{
			"name": v.Name, "label": v.Label, "type": "query", "datasource": source(), "definition": v.Query, "refresh": 2, "sort": 1,
			"query": object{"query": v.Query, "refId": "Variable"}, "multi": v.Multi, "includeAll": v.Multi, "hide": 0, "regex": "",
			"current": object{}, "options": []any{},
		}
		if v.Multi {
			one["allValue"] = ".*"
		}
		variables = append(variables, one)
	}
	return object{
		"uid": d.UID, "title": d.Title, "description": d.About, "tags": []string{"protip"}, "timezone": "utc", "schemaVersion": 39, "version": 1,
		"editable": false, "graphTooltip": 1, "refresh": "30s", "time": object{"from": "now-6h", "to": "now"}, "id": nil,
		"annotations": object{"list": []any{}}, "templating": object{"list": variables}, "panels": d.panels(),
		"links": []any{object{
			"title": "protip", "type": "dashboards", "tags": []string{"protip"}, "asDropdown": true, "includeVars": false, "keepTime": true,
			"targetBlank": false, "icon": "external link", "tooltip": "", "url": "",
		}},
	}
}

func source() object { return object{"type": "prometheus", "uid": "${datasource}"} }

func (d Dashboard) panels() []any {
	var out []any
	id, y := 1, 0
	for _, r := range d.Rows {
		out = append(out, object{
			"id": id, "type": "row", "title": r.Title, "collapsed": false, "panels": []any{}, "gridPos": object{"x": 0, "y": y, "w": 24, "h": 1},
		})
		id, y = id+1, y+1
		x, high := 0, 0
		for _, p := range r.Panels {
			w, h := p.size()
			if x+w > 24 {
				x, y, high = 0, y+high, 0
			}
			one := p.model()
			one["id"], one["gridPos"] = id, object{"x": x, "y": y, "w": w, "h": h}
			out = append(out, one)
			id, x, high = id+1, x+w, max(high, h)
		}
		y += high
	}
	return out
}

func (p Panel) size() (w, h int) {
	switch p.Kind {
	case Stat:
		w, h = 4, 4
	case Table:
		w, h = 24, 8
	default:
		w, h = 8, 8
	}
	if p.Wide > 0 {
		w = p.Wide
	}
	if p.High > 0 {
		h = p.High
	}
	return w, h
}

func (p Panel) model() object {
	var targets []any
	for i, t := range p.Targets {
		one := object{"refId": refID(i), "datasource": source(), "expr": t.Expr, "legendFormat": t.Legend, "editorMode": "code"}
		if p.Kind == Stat || p.Kind == Table {
			one["instant"], one["range"] = true, false
		}
		if p.Kind == Table {
			one["format"], one["legendFormat"] = "table", ""
		}
		targets = append(targets, one)
	}
	defaults := object{"unit": p.Unit}
	if p.Kind == Lines {
		defaults["min"] = 0
		defaults["custom"] = object{"lineWidth": 1, "fillOpacity": 5, "showPoints": "never", "spanNulls": false}
	}
	if p.Kind == States {
		defaults["min"], defaults["max"] = 0, 1
		defaults["custom"] = object{"lineWidth": 0, "fillOpacity": 80}
		defaults["color"] = object{"mode": "thresholds"}
		defaults["thresholds"] = object{"mode": "absolute", "steps": []any{object{"color": "#37393f", "value": nil}, object{"color": "blue", "value": 1}}}
	}
	if p.Link.To != "" && p.Kind == Lines {
		defaults["links"] = p.Link.model("${__field.labels.%s}")
	}
	out := object{
		"type": string(p.Kind), "title": p.Title, "description": p.about(), "datasource": source(), "targets": targets,
		"fieldConfig": object{"defaults": defaults, "overrides": p.overrides()}, "options": p.options(),
	}
	if p.Kind == Table {
		out["transformations"] = p.transformations()
	}
	return out
}

func refID(i int) string { return string(rune('A' + i)) }

// about is what the panel tells, and when its values move in the demo.
func (p Panel) about() string { return p.About + " In the demo it moves with " + string(p.Moves) + "." }

// overrides are what columns of a table have for themselves: units, bars for shares, links.
func (p Panel) overrides() []any {
	out := []any{}
	if p.Kind != Table {
		return out
	}
	override := func(column string, properties ...any) {
		out = append(out, object{"matcher": object{"id": "byName", "options": column}, "properties": properties})
	}
	for _, t := range p.Targets {
		switch {
		case t.Unit == Share:
			override(t.Legend, property("unit", t.Unit), property("min", 0), property("max", 1), property("custom.cellOptions", object{"type": "gauge", "mode": "basic"}))
		case t.Unit != "":
			override(t.Legend, property("unit", t.Unit))
		}
	}
	if p.Link.To != "" {
		override(p.Link.Label, property("links", p.Link.model("${__data.fields.%s}")))
	}
	return out
}

func property(id string, value any) object { return object{"id": id, "value": value} }

// Share is the unit of a column that is drawn as a bar.
const Share = "percentunit"

// transformations make one table of a table's queries: a row for each object, a column for each query.
func (p Panel) transformations() []any {
	rename, hide := object{}, object{"Time": true, "__name__": true, "instance": true, "job": true}
	for i, t := range p.Targets {
		column := "Value #" + refID(i)
		if len(p.Targets) == 1 {
			column = "Value"
		}
		if t.Legend == "" {
			hide[column] = true // a fact whose labels are all it tells
		} else {
			rename[column] = t.Legend
		}
	}
	first := object{}
	if p.Link.Label != "" {
		first[p.Link.Label] = 0
	}
	return []any{
		object{"id": "merge", "options": object{}},
		object{"id": "organize", "options": object{"excludeByName": hide, "indexByName": first, "renameByName": rename}},
	}
}

func (p Panel) options() object {
	switch p.Kind {
	case Stat:
		return object{
			"reduceOptions": object{"calcs": []string{"lastNotNull"}, "fields": "", "values": false}, "colorMode": "value", "graphMode": "none",
			"textMode": "auto", "orientation": "auto", "justifyMode": "auto",
		}
	case Table:
		return object{"showHeader": true, "cellHeight": "sm"}
	}
	if p.Kind == States {
		return object{
			"legend": object{"displayMode": "list", "placement": "bottom", "showLegend": false, "calcs": []string{}}, "tooltip": object{"mode": "single", "sort": "none"},
			"mergeValues": true, "showValue": "never", "alignValue": "left", "rowHeight": 0.9,
		}
	}
	legend := object{"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []string{"lastNotNull"}}
	if w, _ := p.size(); w >= 12 {
		legend = object{"displayMode": "table", "placement": "right", "showLegend": true, "calcs": []string{"lastNotNull", "max"}}
	}
	return object{"legend": legend, "tooltip": object{"mode": "multi", "sort": "desc"}}
}

// model is a link as Grafana follows it; value is where it finds a label's value.
func (l Link) model(value string) []any {
	var b strings.Builder
	b.WriteString("/d/" + l.To + "?${datasource:queryparam}&${__url_time_range}")
	for _, v := range l.Variables {
		fmt.Fprintf(&b, "&var-%s="+value, v, v)
	}
	return []any{object{"title": "Open", "url": b.String()}}
}
