package console

import (
	"net/http"
	"strconv"
	"time"

	"github.com/protip/protip/internal/web"
)

// shownEntries is how many entries of the audit a page has.
const shownEntries = 100

// auditPage is who did what, and what came of it.
type auditPage struct {
	Entries []auditRow
	Spans   []tab
	Results []tab
	Older   string // link to what came before
}

// auditRow is an entry and the page of what it is about.
type auditRow struct {
	web.AuditEntry
	Href, About string
}

func (c *Console) audit(r *http.Request, f *frame) (any, error) {
	f.Title, f.Section = "Audit", "audit"
	q, err := asked(r, "since", "result", "before")
	if err != nil {
		return nil, err
	}
	since, err := one(q, "since", "7d", "1d", "30d", "365d")
	if err != nil {
		return nil, err
	}
	result, err := one(q, "result", "all", "done", "refused")
	if err != nil {
		return nil, err
	}
	length := map[string]time.Duration{"1d": 24 * time.Hour, "7d": 7 * 24 * time.Hour, "30d": 30 * 24 * time.Hour, "365d": 365 * 24 * time.Hour}[since]
	filter := web.AuditFilter{Since: f.Now.Add(-length), Limit: shownEntries + 1}
	if result != "all" {
		refused := result == "refused"
		filter.Refused = &refused
	}
	if q.Get("before") != "" {
		if filter.Before, err = strconv.ParseInt(q.Get("before"), 10, 64); err != nil || filter.Before < 1 {
			return nil, problem{http.StatusBadRequest, "before is the number of an entry."}
		}
	}
	entries, err := c.o.Agent.AuditLog(r.Context(), filter)
	if err != nil {
		return nil, err
	}
	var p auditPage
	if len(entries) > shownEntries {
		entries = entries[:shownEntries]
		p.Older = with("/audit", q, "before", strconv.FormatInt(entries[shownEntries-1].Seq, 10))
	}
	for _, e := range entries {
		row := auditRow{AuditEntry: e, About: clean(e.Object)}
		if row.Href = href(e.ID); row.Href != "" {
			row.About = nameOf(f.snap, e.ID)
		}
		p.Entries = append(p.Entries, row)
	}
	for _, s := range []string{"1d", "7d", "30d", "365d"} {
		p.Spans = append(p.Spans, tab{Name: s, Href: with("/audit", q, "since", s, "before", ""), Here: s == since})
	}
	for _, s := range []string{"all", "done", "refused"} {
		p.Results = append(p.Results, tab{Name: s, Href: with("/audit", q, "result", s, "before", ""), Here: s == result})
	}
	return p, nil
}
