package web

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// told are the notes that an agent was given, one line each.
func (a *testAgent) told() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []string
	for _, n := range a.notes {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s: %s %s", n.Who, n.What, n.Object))+": "+n.Result)
	}
	return out
}

// TestRefusalsAreAudited: who tried what, from where and why it was refused; and no password that was typed as a name.
func TestRefusalsAreAudited(t *testing.T) {
	agent := hotAgent(t)
	h := New(closed(t, agent))
	anna, eve := logIn(h, "anna", annasPassword, ""), logIn(h, "eve", annasPassword, "")
	logIn(h, "anna", "wrong", "")
	logIn(h, annasPassword, "anna", "")
	logIn(h, "", "guess", "")
	do(h, "GET", "/api/v1/status", "") // has yet to log in
	do(h, "GET", "/api/v1/status", "", bearer("guess"))
	do(h, "POST", "/api/v1/pause", "")
	do(h, "POST", "/api/v1/tips/a1b2c3/implement", "", withCookies(eve))
	do(h, "POST", "/api/v1/tips/a1b2c3/implement", "", withCookies(anna), crossSite)
	do(h, "POST", "/logout", "", withCookies(anna))
	want := []string{
		"anna: login: ok",
		"eve: login: ok",
		": login anna: Wrong name or password.",
		": login unknown name: Wrong name or password.",
		": login: Wrong name or password.",
		": read /api/v1/status: nobody has this token",
		": pause: this needs the role operator: send a token as Authorization: Bearer <token>, or log in at /login",
		"eve: implement a1b2c3: eve has the role viewer: this needs the role operator",
		"anna: cross-origin request /api/v1/tips/a1b2c3/implement: a page of another origin may not act here",
		"anna: logout: ok",
	}
	if got := agent.told(); !slices.Equal(got, want) {
		t.Errorf("audited:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, n := range agent.notes {
		if n.From == "" {
			t.Errorf("%s: not said from where", n.What)
		}
	}
}

// TestRefusalsDoNotFillTheAudit: one address writes little into it, and all together not much more.
func TestRefusalsDoNotFillTheAudit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agent := hotAgent(t)
		h := New(options(agent))
		for range 100 {
			do(h, "POST", "/api/v1/pause", "")
		}
		if n := len(agent.told()); n != 20 {
			t.Errorf("%d entries of one address", n)
		}
		for i := range 2000 {
			do(h, "POST", "/api/v1/pause", "", func(r *http.Request) { r.RemoteAddr = fmt.Sprintf("10.0.%d.%d:1", i/250, i%250) })
		}
		if n := len(agent.told()); n != 500 {
			t.Errorf("%d entries of many addresses", n)
		}
		time.Sleep(time.Hour)
		do(h, "POST", "/api/v1/pause", "")
		if n := len(agent.told()); n != 501 {
			t.Errorf("%d entries an hour later", n)
		}
	})
}

func TestAuditLog(t *testing.T) {
	agent := hotAgent(t)
	h := New(options(agent))
	for range 3 {
		do(h, "POST", "/api/v1/pause", "")
	}
	entries, e := ask[[]AuditEntry](t, h, "/api/v1/audit?limit=2&who=anna&what=pause&result=refused&since=7d&before=9")
	if len(entries) != 2 || entries[0].Seq != 3 || !slices.Equal(e.Warnings, []string{"there are older entries: ask with before=2"}) {
		t.Errorf("%+v, %q", entries, e.Warnings)
	}
	f := agent.audited
	if f.Who != "anna" || f.What != "pause" || !*f.Refused || !f.Since.Equal(now.Add(-7*24*time.Hour)) || f.Before != 9 {
		t.Errorf("asked for %+v", f)
	}
	if _, e := ask[[]AuditEntry](t, h, "/api/v1/audit?limit=0"); len(e.Warnings) > 0 || agent.audited.Limit != mostEntries+1 {
		t.Errorf("%q, limit %d", e.Warnings, agent.audited.Limit)
	}
	for _, bad := range []string{"result=maybe", "since=tomorrow", "before=0", "before=x", "limit=-1", "whom=anna"} {
		if w := do(h, "GET", "/api/v1/audit?"+bad, ""); w.Code != 400 {
			t.Errorf("%s: %d", bad, w.Code)
		}
	}
}
