package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/rules/report/forecast"
)

// load is a quantity that may grow until there is no more of it.
type load struct {
	name, ref, source, kind string // of a cluster or a host
	what                    string
	unit                    Unit
	values                  []float64
	capacity                float64
	reserve                 float64 // what is left of it without the hosts that may fail; NaN if there are none
	hosts, vms              float64
}

// growth is where each cluster's and host's load goes, and when it reaches what.
func growth(r Request, h *hosts, out *Report) {
	tellGrowth(r, append(h.clusters(r), h.each()...), out)
}

// growthOfTag is where the load of the VMs with a tag goes, in each cluster.
func growthOfTag(r Request, v *vms, out *Report) {
	out.Notes = append(out.Notes, "The load is that of the VMs with the tag, over what the hosts of their cluster have. Those that come or go are shifts.")
	tellGrowth(r, v.tagged(r.Scope), out)
}

func tellGrowth(r Request, loads []load, out *Report) {
	out.Title = "Host utilization growth"
	out.Notes = append(out.Notes,
		"Days are until the busiest hour of the season is expected at a threshold of today's capacity: in brackets the interval of nine in ten. Without a trend there are none.",
		"A shift is a level that jumped once; it is no growth. What the future brings that the past did not, no interval holds.")
	if r.Reserve > 0 {
		out.Notes = append(out.Notes, fmt.Sprintf("RESERVE is what a cluster has without its largest hosts (%d), as a sum; protip place says of now whether each VM would have a host.", r.Reserve))
	}
	t := Table{Name: "growth", Title: "Clusters and hosts", Columns: growthColumns(r)}
	whatIf := r.MoreHosts > 0 || r.MoreVMs > 0
	if whatIf {
		out.Notes = append(out.Notes, fmt.Sprintf("WHAT IF is with hosts added to each cluster: %d, and VMs: %d, each like the cluster's average one.", r.MoreHosts, r.MoreVMs))
	}
	for i, l := range loads {
		if r.Progress != nil {
			r.Progress(0.8 + 0.2*float64(i)/float64(len(loads)))
		}
		m, ok := forecast.Fit(forecast.Series{Start: r.Range.Start, Step: r.Range.Step, Values: l.values})
		t.Rows = append(t.Rows, l.row(r, m, ok))
		if ok && len(out.Charts) < maxCharts {
			out.Charts = append(out.Charts, l.chart(r, m))
		}
	}
	out.Tables = append(out.Tables, t)
}

// clusters are the loads of whole clusters, at the times at which every host was heard of.
func (h *hosts) clusters(r Request) []load {
	type cluster struct {
		name          string
		cpu, memory   []float64
		hertz, bytes  []float64
		vms           float64
		hosts, silent int
	}
	found := map[inventory.ID]*cluster{}
	if r.Scope.Host != "" {
		return nil
	}
	for _, host := range h.all {
		if host.clusterRef == "" || !host.there() {
			continue
		}
		id := inventory.ID{Source: host.id.Source, Kind: inventory.KindCluster, Ref: host.clusterRef}
		c := found[id]
		if c == nil {
			c = &cluster{name: host.cluster}
			found[id] = c
		}
		hertz, ok1 := latest(h.hertz[host.id])
		bytes, ok2 := latest(h.bytes[host.id])
		if !ok1 || !ok2 {
			c.silent++
		}
		c.hosts++
		c.hertz, c.bytes = append(c.hertz, hertz), append(c.bytes, bytes)
		n, _ := latest(h.vms[host.id])
		c.vms += n
	}
	var out []load
	for _, id := range sorted(found) {
		c := found[id]
		if c.silent > 0 {
			continue // what its capacity is, nobody knows
		}
		c.cpu, c.memory = h.together(id, h.cpu), h.together(id, h.memory)
		for _, l := range []load{{what: "CPU", unit: Hertz, values: c.cpu, capacity: total(c.hertz), reserve: without(c.hertz, r.Reserve)}, {
			what: "memory", unit: Bytes, values: c.memory, capacity: total(c.bytes), reserve: without(c.bytes, r.Reserve),
		}} {
			l.name, l.ref, l.source, l.kind, l.hosts, l.vms = c.name, id.Ref, id.Source, "cluster", float64(c.hosts), c.vms
			out = append(out, l)
		}
	}
	return out
}

// tagged are the loads of the VMs of a scope by the cluster that they were in at the time.
func (v *vms) tagged(s Scope) []load {
	type cluster struct {
		name        string
		cpu, memory []float64
	}
	found := map[inventory.ID]*cluster{}
	for _, vm := range v.all {
		for _, place := range vm.clusters() {
			ref := place.Get("cluster_id")
			if s.Cluster != "" && place.Get("virt_cluster") != s.Cluster {
				continue
			}
			id := inventory.ID{Source: vm.id.Source, Kind: inventory.KindCluster, Ref: ref}
			if found[id] == nil {
				found[id] = &cluster{name: place.Get("virt_cluster")}
			}
			here := func(i int) bool { now, ok := vm.at(i, "cluster_id"); return ok && now == ref }
			plus(&found[id].cpu, v.cpu[vm.id], here)
			plus(&found[id].memory, v.memory[vm.id], here)
		}
	}
	var out []load
	for _, id := range sorted(found) {
		c := found[id]
		var hertz, bytes float64
		for host, h := range v.hosts {
			if host.Source == id.Source && h.cluster == id.Ref && (s.Host == "" || h.name == s.Host) {
				hertz, bytes = hertz+h.hertz, bytes+h.bytes
			}
		}
		for _, l := range []load{{what: "CPU", unit: Hertz, values: c.cpu, capacity: hertz}, {what: "memory", unit: Bytes, values: c.memory, capacity: bytes}} {
			if l.capacity > 0 && l.values != nil {
				l.name, l.ref, l.source, l.kind, l.reserve = s.Tag+" in "+cmp.Or(c.name, "no cluster"), id.Ref, id.Source, "tag", math.NaN()
				out = append(out, l)
			}
		}
	}
	return out
}

// together is the load of all hosts that were in a cluster at a time; it is a gap where one of them was not heard of.
func (h *hosts) together(cluster inventory.ID, use map[inventory.ID][]float64) []float64 {
	var out []float64
	for _, host := range h.all {
		if host.id.Source != cluster.Source {
			continue
		}
		values := use[host.id]
		if out == nil {
			out = absent(len(host.where))
		}
		for i := range host.where {
			if host.where[i] < 0 || host.seen[host.where[i]].Get("cluster_id") != cluster.Ref {
				continue
			}
			v := math.Inf(-1) // silent: stays so, whatever is added
			if i < len(values) && !math.IsNaN(values[i]) {
				v = values[i]
			}
			if math.IsNaN(out[i]) {
				out[i] = 0
			}
			out[i] += v
		}
	}
	for i := range out {
		if math.IsInf(out[i], 0) {
			out[i] = math.NaN()
		}
	}
	return out
}

// each are the loads of hosts that are there at the end.
func (h *hosts) each() []load {
	var out []load
	for _, host := range h.all {
		if !host.there() {
			continue
		}
		for _, l := range []struct {
			what          string
			unit          Unit
			use, capacity map[inventory.ID][]float64
		}{{"CPU", Hertz, h.cpu, h.hertz}, {"memory", Bytes, h.memory, h.bytes}} {
			capacity, ok := latest(l.capacity[host.id])
			if !ok || capacity <= 0 || l.use[host.id] == nil {
				continue
			}
			out = append(out, load{
				name: host.name, ref: host.id.Ref, source: host.id.Source, kind: "host", what: l.what, unit: l.unit,
				values: l.use[host.id], capacity: capacity, reserve: math.NaN(),
			})
		}
	}
	return out
}

func total(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum
}

// without is what is left without the n largest; NaN if that is nothing, or n is 0.
func without(v []float64, n int) float64 {
	if n <= 0 || n >= len(v) {
		return math.NaN()
	}
	v = slices.Sorted(slices.Values(v))
	return total(v[:len(v)-n])
}

// goal is something that the load may reach.
type goal struct {
	name, title string
	value       func(l load) float64 // NaN: it does not apply
}

func goals(r Request) []goal {
	hosts := func(l load) float64 { return l.capacity / l.hosts * float64(r.MoreHosts) }
	// A load that is f times as large reaches a value when it reaches an f-th of it as it is.
	times := func(l load) float64 { return 1 + float64(r.MoreVMs)/l.vms }
	ifs := func(l load, v float64) float64 {
		if l.kind != "cluster" || l.hosts == 0 || r.MoreVMs > 0 && l.vms == 0 {
			return math.NaN()
		}
		if r.MoreVMs == 0 {
			return v
		}
		return v / times(l)
	}
	var out []goal
	for _, threshold := range r.Thresholds {
		title := fmt.Sprintf("%g%%", 100*threshold)
		name := strings.ReplaceAll(fmt.Sprintf("days_until_%g_percent", 100*threshold), ".", "_")
		out = append(out, goal{name, "DAYS TO " + title, func(l load) float64 { return threshold * l.capacity }})
		if r.MoreHosts > 0 || r.MoreVMs > 0 {
			out = append(out, goal{"what_if_" + name, "WHAT IF", func(l load) float64 { return ifs(l, threshold*(l.capacity+hosts(l))) }})
		}
	}
	if r.Reserve > 0 {
		out = append(out, goal{"days_until_reserve", "DAYS TO RESERVE", func(l load) float64 { return l.reserve }})
		if r.MoreHosts > 0 || r.MoreVMs > 0 {
			out = append(out, goal{"what_if_days_until_reserve", "WHAT IF", func(l load) float64 { return ifs(l, l.reserve+hosts(l)) }})
		}
	}
	return out
}

func growthColumns(r Request) []Column {
	out := []Column{
		{"kind", "KIND", Text, Everyone},
		{"name", "NAME", Text, Everyone},
		{"id", "", Text, Programs},
		{"source", "SOURCE", Text, Everyone},
		{"what", "WHAT", Text, Everyone},
		{"unit", "", Text, Programs},
		{"capacity", "", Count, Programs},
		{"level", "", Count, Programs},
		{"level_ratio", "NOW", Percent, Everyone},
		{"busiest_hour_ratio", "BUSIEST HOUR", Percent, Everyone},
		{"verdict", "VERDICT", Text, Everyone},
		{"growth_per_30_days", "", Count, Programs},
		{"growth_per_30_days_low", "", Count, Programs},
		{"growth_per_30_days_high", "", Count, Programs},
		{"", "A MONTH", Text, People},
		{"season", "SEASON", Text, Everyone},
		{"shifts", "SHIFTS", Text, Everyone},
	}
	for _, g := range goals(r) {
		out = append(out, Column{g.name, "", Days, Programs}, Column{g.name + "_earliest", "", Days, Programs}, Column{g.name + "_latest", "", Days, Programs},
			Column{"", g.title, Text, People})
	}
	return append(out, Column{"horizon_days", "", Days, Programs})
}

// row is what is told of a load, in the order of growthColumns.
func (l load) row(r Request, m forecast.Model, ok bool) []any {
	row := []any{l.kind, l.name, l.ref, l.source, l.what, string(l.unit), l.capacity}
	if !ok {
		row = append(row, nil, nil, nil, "too little history", nil, nil, nil, "", "", "")
		for range goals(r) {
			row = append(row, nil, nil, nil, "")
		}
		return append(row, nil)
	}
	row = append(row, m.Level, m.Level/l.capacity, m.Busy/l.capacity)
	if m.Trend {
		verdict := "grows"
		if m.PerDay.Value < 0 {
			verdict = "shrinks"
		}
		row = append(row, verdict, 30*m.PerDay.Value, 30*m.PerDay.Low, 30*m.PerDay.High, fmt.Sprintf("%s (%s to %s)",
			signed(30*m.PerDay.Value/l.capacity), signed(30*m.PerDay.Low/l.capacity), signed(30*m.PerDay.High/l.capacity)))
	} else {
		row = append(row, "no trend", nil, nil, nil, "")
	}
	var shifts []string
	for _, s := range m.Shifts {
		shifts = append(shifts, fmt.Sprintf("%s on %s", signed(s.By/l.capacity), s.At.UTC().Format(time.DateOnly)))
	}
	row = append(row, map[time.Duration]string{0: "none", 24 * time.Hour: "day", 7 * 24 * time.Hour: "week"}[m.Season], strings.Join(shifts, ", "))
	for _, g := range goals(r) {
		value := g.value(l)
		if math.IsNaN(value) || value <= 0 {
			row = append(row, nil, nil, nil, "")
			continue
		}
		u := until(m, value)
		row = append(row, cell(u.Value, true), cell(u.Low, true), cell(u.High, true), days(u, m))
	}
	return append(row, m.Horizon().Hours()/24)
}

// until is when a load reaches a value. Without a trend it does not, unless it is there.
func until(m forecast.Model, value float64) forecast.Point {
	u := m.Until(value)
	if !m.Trend && u.Value > 0 {
		return forecast.Point{Value: math.Inf(1), Low: math.Inf(1), High: math.Inf(1)}
	}
	return u
}

// days says when.
func days(u forecast.Point, m forecast.Model) string {
	horizon := m.Horizon().Hours() / 24
	switch {
	case u.Value == 0:
		return "reached"
	case !m.Trend:
		return "-"
	case math.IsInf(u.Low, 1):
		return fmt.Sprintf("not in %.0f", horizon)
	case math.IsInf(u.Value, 1):
		return fmt.Sprintf("not in %.0f (%.0f to never)", horizon, u.Low)
	case math.IsInf(u.High, 1):
		return fmt.Sprintf("%.0f (%.0f to more than %.0f)", u.Value, u.Low, horizon)
	default:
		return fmt.Sprintf("%.0f (%.0f to %.0f)", u.Value, u.Low, u.High)
	}
}

func signed(ratio float64) string { return fmt.Sprintf("%+.1f%%", 100*ratio) }

// chart is the past by days, and what is expected for half as long again.
func (l load) chart(r Request, m forecast.Model) Chart {
	c := Chart{Title: fmt.Sprintf("%s %s (%s): %s", l.kind, cmp.Or(l.name, l.ref), l.source, l.what), Unit: l.unit, Start: r.Range.Start, Step: r.Range.Step}
	ahead := len(l.values) / 2
	expected := Line{Name: "expected", Values: absent(len(l.values) + ahead), Low: absent(len(l.values) + ahead), High: absent(len(l.values) + ahead), Expected: true}
	for h := range ahead {
		p := m.Ahead(h + 1)
		i := len(l.values) + h
		expected.Values[i], expected.Low[i], expected.High[i] = p.Value, p.Low, p.High
	}
	c.Lines = []Line{expected, {Name: "used", Values: l.values}}
	for _, threshold := range r.Thresholds {
		c.Marks = append(c.Marks, Mark{fmt.Sprintf("%g%%", 100*threshold), threshold * l.capacity})
	}
	if !math.IsNaN(l.reserve) {
		c.Marks = append(c.Marks, Mark{"reserve", l.reserve})
	}
	return c
}
