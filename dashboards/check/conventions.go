package check

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/protip/protip/dashboards"
	"github.com/protip/protip/internal/history/promql"
	"github.com/protip/protip/internal/inventory"
)

// Conventions are what of a page breaks the conventions of Prometheus' mixins, as far as a file can show it: a data source that is chosen,
// variables that follow the time range, words and a unit for each panel, a scenario of the demo, a legend for each line, counters by their rate
// or increase only and over the range that Grafana works out, and links to pages that there are. known says whether a metric is.
//
// One convention is not kept: job and instance are no variables. What a page is about is a source, and a source has one series of each
// object whoever scraped it.
func Conventions(d dashboards.Dashboard, pages []dashboards.Dashboard, known func(metric string) bool) []Problem {
	var out []Problem
	declared := map[string]bool{"datasource": true, "__rate_interval": true, "__range": true, "__range_s": true}
	for _, v := range d.Variables {
		declared[v.Name] = true
	}
	titles := map[string]bool{}
	for _, r := range d.Rows {
		for _, p := range r.Panels {
			problem := func(query, what string, args ...any) {
				out = append(out, Problem{d.UID, p.Title, query, fmt.Sprintf(what, args...)})
			}
			for _, empty := range []struct {
				is   bool
				what string
			}{
				{p.Title == "", "no title"},
				{!strings.HasSuffix(p.About, "."), "no description, or no sentence"},
				{p.Unit == "", "no unit"},
				{len(p.Targets) == 0, "no query"},
				{p.Moves == "", "no scenario of the demo"},
				{titles[p.Title], "a second panel of this title"},
			} {
				if empty.is {
					problem("", "%s", empty.what)
				}
			}
			titles[p.Title] = true
			leads(p.Link, pages, problem)
			for _, t := range p.Targets {
				if t.Legend == "" && (p.Kind == dashboards.Lines || p.Kind == dashboards.States) {
					problem(t.Expr, "no legend")
				}
				query(t.Expr, declared, known, problem)
			}
		}
	}
	return out
}

// leads checks a link: its page is there, and it sets variables which that page has.
func leads(l dashboards.Link, pages []dashboards.Dashboard, problem func(string, string, ...any)) {
	if l.To == "" {
		return
	}
	for _, to := range pages {
		if to.UID != l.To {
			continue
		}
		for _, v := range l.Variables {
			found := false
			for _, has := range to.Variables {
				found = found || has.Name == v
			}
			if !found {
				problem("", "a link to %s sets %s, which that page does not have", l.To, v)
			}
		}
		return
	}
	problem("", "a link to %s, which is no page", l.To)
}

var (
	variable = regexp.MustCompile(`\$([a-z_]+)`)
	counted  = regexp.MustCompile(`[a-z_]+(_total|_sum|_count)\b`)
	rated    = regexp.MustCompile(`(rate|increase|changes|resets)\(([a-z_]+)(\{[^{}]*\})?\[([^\]]+)\]`)
)

// query checks an expression as it stands, its variables still in it.
func query(expr string, declared map[string]bool, known func(string) bool, problem func(string, string, ...any)) {
	for _, m := range variable.FindAllStringSubmatch(expr, -1) {
		if !declared[m[1]] {
			problem(expr, "variable %s is not declared", m[1])
		}
	}
	ranges := map[string]int{}
	for _, m := range rated.FindAllStringSubmatch(expr, -1) {
		ranges[m[2]]++
		if m[1] == "rate" && m[4] != "$__rate_interval" {
			problem(expr, "a rate over %s, and not over $__rate_interval", m[4])
		}
	}
	for _, name := range counted.FindAllString(expr, -1) {
		if ranges[name]--; ranges[name] < 0 && isCounter(name) {
			problem(expr, "counter %s as it is: its value says nothing after a restart", name)
		}
	}
	plain := strings.NewReplacer("$__rate_interval", "5m", "$__range_s", "3600", "$__range", "1h").Replace(expr)
	names, err := promql.Selectors(plain)
	if err == nil {
		err = promql.Check(plain)
	}
	if err != nil {
		problem(expr, "%v", err)
	}
	for _, name := range names {
		if !known(name) {
			problem(expr, "no metric %s", name)
		}
	}
}

// isCounter tells counters from gauges that happen to end like one.
func isCounter(name string) bool {
	for _, kind := range []inventory.Kind{inventory.KindCluster, inventory.KindHost, inventory.KindVM, inventory.KindDatastore, inventory.KindService} {
		for _, m := range inventory.MetricsOf(kind) {
			if m.String() == name {
				return m.Desc().Type == inventory.Counter
			}
		}
	}
	return true
}
