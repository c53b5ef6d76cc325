// Package check runs every query of dashboards against a Prometheus, as Grafana would.
// It promises that a panel without an answer is named, one that shows nothing but zero, and one whose value never moves although it should;
// and, without a Prometheus, what breaks the conventions of Prometheus' mixins.
// It must not import anything that runs besides a client of Prometheus.
package check

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/protip/protip/dashboards"
	"github.com/protip/protip/internal/history"
)

// Checker asks one Prometheus.
type Checker struct {
	Ask  history.Querier
	From time.Time // of what panels that should move are held against: before anything was scraped
	To   time.Time
}

// Problem is one panel that shows nothing, or nothing new.
type Problem struct {
	Dashboard, Panel, Query, What string
}

// String is the problem in one line.
func (p Problem) String() string {
	return fmt.Sprintf("%s: %s: %s: %s", p.Dashboard, p.Panel, p.What, p.Query)
}

// Dashboard checks every target of every panel, with the first value that each variable has, or, of one that takes several, all; fixed are
// values of variables instead.
func (c *Checker) Dashboard(ctx context.Context, d dashboards.Dashboard, fixed map[string]string) ([]Problem, error) {
	values, err := c.Variables(ctx, d, fixed)
	if err != nil {
		return nil, err
	}
	var out []Problem
	for _, row := range d.Rows {
		for _, p := range row.Panels {
			moved, something, before := false, false, false
			for _, t := range p.Targets {
				query := c.Resolve(t.Expr, values)
				problem := func(what string) { out = append(out, Problem{d.UID, p.Title, query, what}) }
				m, err := c.Past(ctx, query)
				if err != nil {
					problem(err.Error())
					continue
				}
				if answer, err := c.Ask.Query(ctx, query, c.To); err != nil {
					problem(err.Error())
				} else if len(answer) == 0 {
					problem("no answer")
				}
				moved = moved || c.moved(m)
				something = something || notZero(m)
				before = before || c.before(m)
			}
			switch {
			case !something:
				out = append(out, Problem{d.UID, p.Title, c.Resolve(p.Targets[0].Expr, values), "nothing but zero"})
			case before && p.Moves == dashboards.AtStart:
				out = append(out, Problem{d.UID, p.Title, c.Resolve(p.Targets[0].Expr, values), "is there before " + string(p.Moves)})
			case !moved && p.Moves != dashboards.AtStart:
				out = append(out, Problem{d.UID, p.Title, c.Resolve(p.Targets[0].Expr, values), "never moves, and should with " + string(p.Moves)})
			}
		}
	}
	return out, nil
}

var labelValues = regexp.MustCompile(`^label_values\((.*), ([a-z_]+)\)$`)

// Variables resolves each variable by the label values there are, in order: a later one may depend on an earlier.
func (c *Checker) Variables(ctx context.Context, d dashboards.Dashboard, fixed map[string]string) (map[string]string, error) {
	values := map[string]string{}
	for _, v := range d.Variables {
		m := labelValues.FindStringSubmatch(v.Query)
		if m == nil {
			return nil, fmt.Errorf("%s: variable %s is no label_values(...): %s", d.UID, v.Name, v.Query)
		}
		found, err := c.Ask.Query(ctx, c.Resolve(m[1], values), c.To)
		if err != nil {
			return nil, fmt.Errorf("%s: variable %s: %w", d.UID, v.Name, err)
		}
		var names []string
		for _, s := range found {
			if name := s.Labels.Get(m[2]); name != "" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		if len(names) == 0 {
			return nil, fmt.Errorf("%s: variable %s has no value: %s", d.UID, v.Name, v.Query)
		}
		values[v.Name] = names[0]
		if v.Multi {
			values[v.Name] = ".*"
		}
		if want, ok := fixed[v.Name]; ok {
			if !slices.Contains(names, want) {
				return nil, fmt.Errorf("%s: variable %s cannot be %q, only %q", d.UID, v.Name, want, names)
			}
			values[v.Name] = want
		}
	}
	return values, nil
}

// Resolve puts values in the place of variables, Grafana's own among them.
func (c *Checker) Resolve(query string, values map[string]string) string {
	length := int(c.To.Sub(c.From).Seconds())
	replace := []string{"$__rate_interval", "15s", "$__range_s", fmt.Sprint(length), "$__range", fmt.Sprintf("%ds", length)}
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return len(b) - len(a) })
	for _, name := range names {
		replace = append(replace, "$"+name, strings.ReplaceAll(values[name], `"`, `\"`))
	}
	return strings.NewReplacer(replace...).Replace(query)
}

// Past is a query's answer over the range.
func (c *Checker) Past(ctx context.Context, query string) (history.Matrix, error) {
	return c.Ask.QueryRange(ctx, query, history.Range{Start: c.From, End: c.To, Step: c.Step()})
}

// Step is the time between two points of the range.
func (c *Checker) Step() time.Duration { return max(c.To.Sub(c.From)/200, time.Second) }

// moved reports whether a series changed, came or went in the range.
func (c *Checker) moved(m history.Matrix) bool {
	third := c.To.Sub(c.From) / 3
	for _, s := range m {
		low, high, none := math.Inf(1), math.Inf(-1), false
		for _, p := range s.Points {
			if math.IsNaN(p.V) {
				none = true
				continue
			}
			low, high = min(low, p.V), max(high, p.V)
		}
		if high > low || none && high >= low {
			return true
		}
		if n := len(s.Points); n > 0 && (s.Points[0].T > c.From.Add(third).UnixMilli() || s.Points[n-1].T < c.To.Add(-third).UnixMilli()) {
			return true // it came, or went
		}
	}
	return false
}

// before reports whether there is a value at the beginning of the range already.
func (c *Checker) before(m history.Matrix) bool {
	for _, s := range m {
		if len(s.Points) > 0 && s.Points[0].T <= c.From.UnixMilli() {
			return true
		}
	}
	return false
}

// notZero reports whether there is a value that is not zero.
func notZero(m history.Matrix) bool {
	for _, s := range m {
		for _, p := range s.Points {
			if p.V != 0 && !math.IsNaN(p.V) {
				return true
			}
		}
	}
	return false
}
