package web

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/remediation"
)

var (
	//go:embed console.html
	consoleHTML string
	//go:embed console.css
	consoleCSS string
	//go:embed console.js
	consoleJS string
	//go:embed favicon.svg
	favicon string
)

var consolePage = template.Must(template.New("console").Funcs(template.FuncMap{
	"ago": ago, "clock": clockTime, "quantity": quantity, "percent": percent, "bar": bar, "words": words,
}).Parse(consoleHTML))

// How much the one page shows; the rest is in the API.
const (
	shownTips    = 50
	shownActions = 20
	shownHosts   = 50
)

// page is what the console shows.
type page struct {
	Status    Status
	Waiting   string // why the agent is not ready, empty if it is
	Refresh   int    // seconds until the page loads itself again, 0 if never
	Sources   []Source
	Silent    []string // sources that do not answer, or never did
	Tips      []Tip
	MoreTips  int
	Actions   []remediation.Action
	Hosts     []hostRow
	MoreHosts int
	VMs       int
}

// hostRow is a host with the numbers that tell how it fares, nil where there is none.
type hostRow struct {
	Host
	Down                    bool // its source does not answer
	CPU, Memory, Contention *float64
	Seen                    time.Time // its newest sample, zero if never
}

func (s *server) console(w http.ResponseWriter, r *http.Request) {
	p, err := s.page(r.Context())
	if err != nil {
		s.log.Error("console", "err", err)
		plain(w, http.StatusInternalServerError, "the agent does not answer: see its log")
		return
	}
	switch refresh := r.URL.Query().Get("refresh"); refresh {
	case "5", "10", "30", "60":
		p.Refresh, _ = strconv.Atoi(refresh)
	}
	var body bytes.Buffer
	if err := consolePage.Execute(&body, p); err != nil {
		s.log.Error("console", "err", err)
		plain(w, http.StatusInternalServerError, "the page cannot be made: see the agent's log")
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(body.Bytes())
}

func (s *server) page(ctx context.Context) (page, error) {
	tips, st, err := s.tipsAndStatus(ctx)
	if err != nil {
		return page{}, err
	}
	actions, err := s.agent.Actions(ctx, remediation.Filter{Limit: shownActions})
	if err != nil {
		return page{}, err
	}
	snap := s.agent.Snapshot()
	p := page{Status: st, Actions: actions, Sources: sourcesOf(snap)}
	if err := s.agent.Ready(ctx); err != nil {
		p.Waiting = err.Error()
	}
	for _, src := range p.Sources {
		if src.VMs != nil {
			p.VMs += *src.VMs
		}
		if !src.Up {
			p.Silent = append(p.Silent, src.Name)
		}
	}
	p.MoreTips = max(0, len(tips)-shownTips)
	for _, t := range tips[:len(tips)-p.MoreTips] {
		p.Tips = append(p.Tips, tipOf(t, st.Remediation))
	}
	rows := hostRows(snap)
	p.MoreHosts = max(0, len(rows)-shownHosts)
	p.Hosts = rows[:len(rows)-p.MoreHosts]
	return p, nil
}

// hostRows are all hosts, the hottest first and those without a number last.
func hostRows(snap *inventory.Snapshot) []hostRow {
	up := map[string]bool{}
	for _, src := range snap.Sources() {
		up[src.Name] = src.Up
	}
	var rows []hostRow
	for _, h := range hostsOf(snap, "") {
		row := hostRow{
			Host: h, Down: !up[h.Source],
			CPU:        h.Samples[inventory.HostCPUUsageRatio.Field()].Value,
			Memory:     h.Samples[inventory.HostMemoryUsageRatio.Field()].Value,
			Contention: h.Samples[inventory.HostCPUContention.Field()].Value,
		}
		for _, sample := range h.Samples {
			if sample.At.After(row.Seen) {
				row.Seen = sample.At
			}
		}
		rows = append(rows, row)
	}
	slices.SortStableFunc(rows, func(a, b hostRow) int {
		switch {
		case a.CPU == nil && b.CPU == nil:
			return 0
		case a.CPU == nil || b.CPU != nil && *a.CPU < *b.CPU:
			return 1
		case b.CPU == nil || *a.CPU > *b.CPU:
			return -1
		}
		return 0
	})
	return rows
}

// bar draws v against full as an inline picture; its number stands beside it as text. Nothing is drawn of what is not known.
func bar(v *float64, full float64) template.HTML {
	if v == nil {
		return ""
	}
	width := min(max(*v/full, 0), 1) * 100
	class := "calm"
	switch {
	case width >= 85:
		class = "hot"
	case width >= 70:
		class = "warm"
	}
	return template.HTML(fmt.Sprintf(`<svg class="bar %s" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">`+
		`<rect class="track" width="100" height="10"/><rect class="fill" width="%.1f" height="10"/></svg>`, class, width))
}

// percent is a ratio in words.
func percent(v *float64) string { return quantity(v, "ratio") }

// quantity is a number with its unit as people say it.
func quantity(v *float64, unit string) string {
	if v == nil {
		return "no data"
	}
	switch unit {
	case "ratio":
		return fmt.Sprintf("%.1f %%", *v*100)
	case "hertz":
		return scaled(*v, 1000, "Hz", "kHz", "MHz", "GHz", "THz")
	case "bytes":
		return scaled(*v, 1024, "B", "KiB", "MiB", "GiB", "TiB")
	case "seconds":
		if *v < 1 {
			return fmt.Sprintf("%.3g ms", *v*1000)
		}
		return fmt.Sprintf("%.3g s", *v)
	}
	return strings.TrimSpace(fmt.Sprintf("%.4g %s", *v, unit))
}

func scaled(v, step float64, units ...string) string {
	i := 0
	for ; v >= step && i < len(units)-1; i++ {
		v /= step
	}
	return fmt.Sprintf("%.3g %s", v, units[i])
}

// ago is how long before now t was, in the two steps that people care for.
func ago(now, t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	d := max(now.Sub(t), 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s ago", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min ago", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days ago", int(d.Hours()/24))
}

// clockTime is a time as machines read it.
func clockTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// words spells a state for people.
func words(state any) string { return strings.ReplaceAll(fmt.Sprint(state), "_", " ") }
