// Package dashboards writes the shipped Grafana dashboards, from the metrics there are. The JSON beside it is what it wrote.
// It promises that every panel has a title, a description and a unit, and that none asks for a metric that is not exposed.
// It must not import anything that runs: it is a generator, and its tests keep the JSON from drifting.
package dashboards

import (
	"encoding/json"
	"fmt"
	"slices"
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
	Lines Kind = "timeseries"
	Stat  Kind = "stat"
	Table Kind = "table"
)

// Panel is one picture.
type Panel struct {
	Title, About string
	Kind         Kind
	Unit         string // Grafana's: percentunit, bytes, hertz, s, Bps, short, ...
	Targets      []Target
	// Moves is what happens in the demo that changes the panel's value; empty for what is a fact there, as a number of hosts.
	Moves string
	// Links go further down: the label whose value is clicked, and the page it leads to.
	Links map[string]string
	Wide  int // of 24 columns; default 8, of a stat 4, of a table 24
	Max   float64
}

// Target is one query and how its series are called.
type Target struct {
	Expr, Legend string
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
		"editable": true, "graphTooltip": 1, "refresh": "30s", "time": object{"from": "now-6h", "to": "now"}, "id": nil,
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
	w, h = 8, 8
	switch p.Kind {
	case Stat:
		w, h = 4, 4
	case Table:
		w, h = 24, 9
	}
	if p.Wide > 0 {
		w = p.Wide
	}
	return w, h
}

func (p Panel) model() object {
	var targets []any
	for i, t := range p.Targets {
		one := object{"refId": string(rune('A' + i)), "datasource": source(), "expr": t.Expr, "legendFormat": t.Legend, "editorMode": "code"}
		if p.Kind != Lines {
			one["instant"], one["range"] = true, false
		}
		if p.Kind == Table {
			one["format"] = "table"
		}
		targets = append(targets, one)
	}
	defaults := object{"unit": p.Unit, "min": 0}
	if p.Max > 0 {
		defaults["max"] = p.Max
	}
	if p.Kind == Lines {
		defaults["custom"] = object{"lineWidth": 1, "fillOpacity": 5, "showPoints": "never", "spanNulls": false}
	}
	overrides := []any{}
	for _, label := range sorted(p.Links) {
		overrides = append(overrides, object{
			"matcher":    object{"id": "byName", "options": label},
			"properties": []any{object{"id": "links", "value": []any{object{"title": "Open", "url": p.Links[label]}}}},
		})
	}
	out := object{
		"type": string(p.Kind), "title": p.Title, "description": p.about(), "datasource": source(), "targets": targets,
		"fieldConfig": object{"defaults": defaults, "overrides": overrides}, "options": p.options(),
	}
	if p.Kind == Table {
		out["transformations"] = []any{object{
			"id": "organize", "options": object{"excludeByName": object{"Time": true, "__name__": true, "instance": true, "job": true}},
		}}
	}
	return out
}

// about is what the panel tells, and when its values move in the demo.
func (p Panel) about() string {
	if p.Moves == "" {
		return p.About
	}
	return p.About + " In the demo it moves with " + p.Moves + "."
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
	return object{
		"legend":  object{"displayMode": "table", "placement": "bottom", "showLegend": true, "calcs": []string{"lastNotNull", "max"}},
		"tooltip": object{"mode": "multi", "sort": "desc"},
	}
}

func sorted(m map[string]string) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// link leads to another page with the clicked row's labels as its variables.
func link(uid string, labels ...string) string {
	var b strings.Builder
	b.WriteString("/d/" + uid + "?${datasource:queryparam}&${__url_time_range}")
	for _, l := range labels {
		fmt.Fprintf(&b, "&var-%s=${__data.fields.%s}", l, l)
	}
	return b.String()
}
