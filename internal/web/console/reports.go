package console

import (
	"context"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/rules/report"
)

// Bounds of reports on pages: whole ones are protip report's.
const (
	reportTime    = 10 * time.Minute // to make one, in real time
	shownRows     = 200
	shownPictures = 12
	drawnPoints   = 160
)

// reportKinds are the reports in the order of the page, in words.
var reportKinds = []struct{ Name, Title, Text string }{
	{"host-utilization", "Host utilization", "How full each host was: mean, 95th percentile and peak of CPU and memory, and how long its VMs waited."},
	{"vm-allocation", "VM allocation", "What VMs were given, and on which hosts and clusters it lies."},
	{"vm-utilization", "VM utilization", "What VMs use of what they were given, and what would do."},
	{"growth", "Growth", "Where each cluster and host is headed: days until thresholds and until the reserve breaks, with the interval of nine in ten."},
	{"candidates", "Virtualization candidates", "Which physical machines could be VMs, by what they use."},
}

// spans are how far back a report can look.
var spans = []struct {
	name   string
	length time.Duration
}{{"7d", 7 * 24 * time.Hour}, {"1d", 24 * time.Hour}, {"30d", 30 * 24 * time.Hour}, {"90d", 90 * 24 * time.Hour}, {"365d", 365 * 24 * time.Hour}}

// reportsPage is the list of reports.
type reportsPage struct {
	Kinds []struct{ Name, Title, Text string }
	Past  bool
}

func (c *Console) reportList(r *http.Request, f *frame) (any, error) {
	f.Title, f.Section = "Reports", "reports"
	_, err := asked(r)
	return reportsPage{reportKinds, c.o.Past != nil}, err
}

// reportPage is one report, or how far it has come.
type reportPage struct {
	Name, Title, Text string
	Past              bool
	Spans, Sources    []choice
	Clusters          []choice
	Done              float64 // 0..1 while it is being made
	Over              bool
	Error             string
	Made              time.Time
	Notes             []string
	Tables            []reportTable
	Charts            []chart
	MoreCharts        int
	Command           string
}

// reportTable is a table as the page shows it.
type reportTable struct {
	Title string
	Heads []head
	Rows  [][]reportCell
	More  int
}

type reportCell struct {
	Text, Href string
	Number, NK bool
}

func (c *Console) report(r *http.Request, f *frame) (any, error) {
	name := r.PathValue("name")
	i := slices.IndexFunc(reportKinds, func(k struct{ Name, Title, Text string }) bool { return k.Name == name })
	if i < 0 {
		return nil, notFound("There is no report %q.", clean(name))
	}
	kind := reportKinds[i]
	f.Title, f.Section, f.Crumbs = kind.Title, "reports", []crumb{{"Reports", "/reports"}}
	q, err := asked(r, "since", "source", "cluster")
	if err != nil {
		return nil, err
	}
	p := reportPage{Name: name, Title: kind.Title, Text: kind.Text, Past: c.o.Past != nil}
	length, err := p.choose(q, f.snap)
	if err != nil || c.o.Past == nil {
		return p, err
	}
	request := report.Request{
		Range: history.Range{Start: f.Now.Add(-length), End: f.Now}, Scope: report.Scope{Source: q.Get("source"), Cluster: q.Get("cluster")},
		Thresholds: []float64{0.8, 0.95}, Reserve: 1,
	}
	key := strings.Join([]string{name, length.String(), q.Get("source"), q.Get("cluster")}, "\x00")
	job, err := c.reports.get(key, f.Now, reportTime, func(ctx context.Context, progress func(float64)) (report.Report, error) {
		request.Progress = progress
		return c.o.Agent.Report(ctx, name, request)
	})
	if err != nil {
		return nil, err
	}
	if p.Done = job.done; !job.over {
		f.Refresh = 2
		return p, nil
	}
	p.Over, p.Made = true, job.asked
	if job.err != nil {
		p.Error = job.err.Error()
		return p, nil
	}
	p.Notes = job.made.Notes
	for _, t := range job.made.Tables {
		p.Tables = append(p.Tables, tableOf(t))
	}
	p.MoreCharts = max(0, len(job.made.Charts)-shownPictures)
	for i, ch := range job.made.Charts[:len(job.made.Charts)-p.MoreCharts] {
		p.Charts = append(p.Charts, pictureOf(ch, i))
	}
	return p, nil
}

// choose reads what the report is to be of.
func (p *reportPage) choose(q url.Values, snap *inventory.Snapshot) (time.Duration, error) {
	names := make([]string, len(spans))
	for i, s := range spans {
		names[i] = s.name
	}
	since, err := one(q, "since", names...)
	if err != nil {
		return 0, err
	}
	p.Command = "protip report " + p.Name + " --since " + since
	if source := q.Get("source"); source != "" {
		p.Command += " --source " + source
	}
	var length time.Duration
	for _, s := range spans {
		p.Spans = append(p.Spans, choice{s.name, s.name, s.name == since})
		if s.name == since {
			length = s.length
		}
	}
	slices.SortFunc(p.Spans, func(a, b choice) int { return len(a.Name)*1000 + strings.Compare(a.Name, b.Name) - len(b.Name)*1000 })
	p.Sources, _ = places(snap, q.Get("source"), "")
	seen := map[string]bool{}
	for cl := range snap.Clusters() {
		if name := cl.Name; !seen[name] && name == clean(name) && (q.Get("source") == "" || q.Get("source") == cl.ID.Source) {
			seen[name] = true
			p.Clusters = append(p.Clusters, choice{name, clean(name), name == q.Get("cluster")})
		}
	}
	slices.SortFunc(p.Clusters, func(a, b choice) int { return strings.Compare(a.Name, b.Name) })
	return length, nil
}

// tableOf is a report's table, not longer than a page bears, with links to what its rows are about.
func tableOf(t report.Table) reportTable {
	out := reportTable{Title: t.Title, More: max(0, len(t.Rows)-shownRows)}
	at := map[string]int{}
	var columns []int
	for i, col := range t.Columns {
		at[col.Name] = i
		if col.For != report.Programs {
			columns = append(columns, i)
			out.Heads = append(out.Heads, head{Name: strings.ToLower(col.Title), Number: col.Unit != report.Text})
		}
	}
	for _, row := range t.Rows[:len(t.Rows)-out.More] {
		var cells []reportCell
		for _, i := range columns {
			cell := cellOf(row[i], t.Columns[i].Unit)
			for name, kind := range map[string]inventory.Kind{"host": inventory.KindHost, "vm": inventory.KindVM} {
				if t.Columns[i].Name != name {
					continue
				}
				id, _ := row[at[name+"_id"]].(string)
				source, _ := row[at["source"]].(string)
				if _, ok := at[name+"_id"]; ok && id != "" && source != "" {
					cell.Href = href(inventory.ID{Source: source, Kind: kind, Ref: id})
				}
			}
			cells = append(cells, cell)
		}
		out.Rows = append(out.Rows, cells)
	}
	return out
}

func cellOf(v any, unit report.Unit) reportCell {
	switch x := v.(type) {
	case string:
		return reportCell{Text: clean(x), NK: x == ""}
	case float64:
		if !math.IsNaN(x) && !math.IsInf(x, 0) {
			return reportCell{Text: quantity(x, unitOf(unit)), Number: true}
		}
	}
	return reportCell{NK: true, Number: unit != report.Text}
}

// unitOf is a report's unit as pages know it.
func unitOf(u report.Unit) string {
	switch u {
	case report.Percent:
		return "ratio"
	case report.Ratio:
		return ""
	}
	return string(u)
}

// pictureOf is a report's chart with no more points than can be seen.
func pictureOf(ch report.Chart, n int) chart {
	longest := 0
	for _, l := range ch.Lines {
		longest = max(longest, len(l.Values))
	}
	per := (longest + drawnPoints - 1) / drawnPoints
	out := chart{
		Name: "report-" + string(rune('a'+n)), Title: ch.Title, Unit: unitOf(ch.Unit), Start: ch.Start,
		End: ch.Start.Add(ch.Step * time.Duration(max(longest-1, 1))), Step: ch.Step * time.Duration(max(per, 1)),
	}
	for _, l := range ch.Lines {
		drawn := line{Name: l.Name, Points: thinned(l.Values, ch, per), Expected: l.Expected}
		drawn.Low, drawn.High = thinned(l.Low, ch, per), thinned(l.High, ch, per)
		out.Lines = append(out.Lines, drawn)
	}
	for _, m := range ch.Marks {
		out.Levels = append(out.Levels, level{m.Name, "threshold", m.Value})
	}
	return out
}

// thinned are means of so many values each; what is no number is left out.
func thinned(values []float64, ch report.Chart, per int) (out []history.Point) {
	for i := 0; per > 0 && i < len(values); i += per {
		sum, n := 0.0, 0
		for _, v := range values[i:min(i+per, len(values))] {
			if !math.IsNaN(v) && !math.IsInf(v, 0) {
				sum, n = sum+v, n+1
			}
		}
		if n > 0 {
			out = append(out, history.Point{T: ch.Start.Add(ch.Step * time.Duration(i)).UnixMilli(), V: sum / float64(n)})
		}
	}
	return out
}
