package web

import (
	"context"
	"log/slog"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/protip/protip/internal/inventory"
)

// Auditor keeps what people did, and what was refused to them.
type Auditor interface {
	// Note writes down what this package did for somebody, or refused, if err is not nil. What the agent is told to do it writes down
	// itself.
	Note(ctx context.Context, by By, what, object string, err error)
	// AuditLog are the entries that a filter takes, newest first.
	AuditLog(ctx context.Context, f AuditFilter) ([]AuditEntry, error)
}

// AuditEntry is one line of the audit.
type AuditEntry struct {
	Seq    int64        `json:"seq"` // grows with each entry
	At     time.Time    `json:"at"`
	Who    string       `json:"who"`  // empty: nobody in particular
	What   string       `json:"what"` // implement, dismiss, pause, login, ...
	Object string       `json:"object,omitempty"`
	ID     inventory.ID `json:"id,omitzero"`    // of the object, if it is in the inventory
	From   string       `json:"from,omitempty"` // address that asked
	Why    string       `json:"why,omitempty"`
	Result string       `json:"result"` // ok, or the refusal in words
}

// AuditFilter takes entries; what is not set takes all.
type AuditFilter struct {
	Who, What string
	Refused   *bool // only what was, or only what was not
	Since     time.Time
	Before    int64 // entries older than the one of this number
	Limit     int   // 0: all
}

// auditor bounds what refusals write: anybody can cause them.
type auditor struct {
	Auditor
	log      *slog.Logger
	byRemote *throttle
	all      *throttle
}

func newAuditor(a Auditor, log *slog.Logger) auditor {
	return auditor{Auditor: a, log: log, byRemote: newThrottle(20, 10*time.Minute), all: newThrottle(500, time.Minute)}
}

// refused writes a refusal to the log, and to the audit unless there were too many.
func (a auditor) refused(r *http.Request, who, what, object string, why *apiError) {
	remote := remoteKey(r)
	kept := a.byRemote.take(remote) == 0 && a.all.take("") == 0
	a.log.Warn("refused", "who", who, "what", what, "object", object, "remote", r.RemoteAddr, "reason", why.text, "audited", kept)
	if kept {
		a.Note(r.Context(), By{Who: who, Remote: r.RemoteAddr}, what, object, why)
	}
}

// verb is what a route does, in the words of the audit: its last word, or that it reads.
func (r Route) verb() string {
	if r.Method != http.MethodPost {
		return "read"
	}
	return path.Base(r.Path)
}

// object is what a request is about: what its path names, or the whole path.
func (r Route) object(req *http.Request) string {
	switch {
	case strings.Contains(r.Path, "{id"):
		return cut(req.PathValue("id"))
	case r.Method == http.MethodPost:
		return ""
	}
	return cut(req.URL.Path)
}

// cut bounds what a stranger has stored.
func cut(s string) string {
	if len(s) > 200 {
		s = s[:200]
	}
	return strings.ToValidUTF8(s, "?")
}

const (
	longestPast = 10 * 366 * 24 * time.Hour
	mostEntries = 10_000 // in one answer: the audit only grows
)

func (s *server) audit(r *http.Request) (any, error) {
	q, err := query(r, "who", "what", "result", "since", "before", "limit")
	if err != nil {
		return nil, err
	}
	f := AuditFilter{Who: q.Get("who"), What: q.Get("what")}
	switch result := q.Get("result"); result {
	case "":
	case "ok", "refused":
		refused := result == "refused"
		f.Refused = &refused
	default:
		return nil, badData("result %q: want ok or refused", result)
	}
	if since := q.Get("since"); since != "" {
		st, err := s.agent.Status(r.Context())
		if err != nil {
			return nil, err
		}
		d, err := parseAgo("since", since)
		if err != nil {
			return nil, err
		}
		f.Since = st.Now.Add(-d)
	}
	if before := q.Get("before"); before != "" {
		if f.Before, err = strconv.ParseInt(before, 10, 64); err != nil || f.Before < 1 {
			return nil, badData("before %q: want the seq of an entry", before)
		}
	}
	limit, err := parseLimit(q.Get("limit"))
	if err != nil {
		return nil, err
	}
	if limit == 0 || limit > mostEntries {
		limit = mostEntries
	}
	f.Limit = limit + 1 // one more tells whether there are more
	entries, err := s.agent.AuditLog(r.Context(), f)
	if err != nil {
		return nil, err
	}
	if len(entries) > limit {
		entries = entries[:limit]
		return part{data: entries, warning: "there are older entries: ask with before=" + strconv.FormatInt(entries[limit-1].Seq, 10)}, nil
	}
	return append([]AuditEntry{}, entries...), nil
}

// parseAgo reads how far back something is, as 12h or 30d.
func parseAgo(name, s string) (time.Duration, error) {
	d, err := model.ParseDuration(s)
	if err != nil || time.Duration(d) > longestPast {
		return 0, badData("%s %q: want how far back, such as 12h or 30d", name, s)
	}
	return time.Duration(d), nil
}
