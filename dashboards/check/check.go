// Package check runs every query of dashboards against a Prometheus, as Grafana would.
// It promises that a panel without an answer is named, and one whose value never moves although it should.
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
	From time.Time // of what panels that should move are held against; to now
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

// Dashboard checks every target of every panel, with the first value that each variable has, or, of one that takes several, all.
func (c *Checker) Dashboard(ctx context.Context, d dashboards.Dashboard, fixed map[string]string) ([]Problem, error) {
	values, err := c.variables(ctx, d, fixed)
	if err != nil {
		return nil, err
	}
	var out []Problem
	for _, row := range d.Rows {
		for _, p := range row.Panels {
			moved := p.Moves == ""
			for _, t := range p.Targets {
				query := c.resolve(t.Expr, values)
				answer, err := c.Ask.Query(ctx, query, c.To)
				switch {
				case err != nil:
					out = append(out, Problem{d.UID, p.Title, query, err.Error()})
				case len(answer) == 0:
					out = append(out, Problem{d.UID, p.Title, query, "no answer"})
				}
				if !moved {
					if moved, err = c.moves(ctx, query); err != nil {
						out = append(out, Problem{d.UID, p.Title, query, err.Error()})
					}
				}
			}
			if !moved {
				out = append(out, Problem{d.UID, p.Title, c.resolve(p.Targets[0].Expr, values), "never moves, and should with " + p.Moves})
			}
		}
	}
	return out, nil
}

var labelValues = regexp.MustCompile(`^label_values\((.*), ([a-z_]+)\)$`)

// variables resolves each variable by the label values there are, in order: a later one may depend on an earlier.
func (c *Checker) variables(ctx context.Context, d dashboards.Dashboard, fixed map[string]string) (map[string]string, error) {
	values := map[string]string{}
	for _, v := range d.Variables {
		m := labelValues.FindStringSubmatch(v.Query)
		if m == nil {
			return nil, fmt.Errorf("%s: variable %s is no label_values(...): %s", d.UID, v.Name, v.Query)
		}
		found, err := c.Ask.Query(ctx, c.resolve(m[1], values), c.To)
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

// resolve puts values in the place of variables, Grafana's own among them.
func (c *Checker) resolve(query string, values map[string]string) string {
	replace := []string{"$__rate_interval", "15s", "$__range", fmt.Sprintf("%ds", int(c.To.Sub(c.From).Seconds()))}
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

// moves reports whether a series of the query changed, came or went in the range.
func (c *Checker) moves(ctx context.Context, query string) (bool, error) {
	step := max(c.To.Sub(c.From)/200, time.Second)
	m, err := c.Ask.QueryRange(ctx, query, history.Range{Start: c.From, End: c.To, Step: step})
	if err != nil {
		return false, err
	}
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
			return true, nil
		}
		if n := len(s.Points); n > 0 && (s.Points[0].T > c.From.Add(third).UnixMilli() || s.Points[n-1].T < c.To.Add(-third).UnixMilli()) {
			return true, nil // it came, or went
		}
	}
	return false, nil
}
