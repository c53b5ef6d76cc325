package web

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/protip/protip/internal/alertmanager"
	"github.com/protip/protip/internal/history/api"
	"github.com/protip/protip/internal/history/promql"
)

// RouteCase says how a route is asked rightly and, if it acts, what the agent must have been told.
type RouteCase struct {
	Target, Body string
	Form         bool   // the body is a form
	Bearer       string // a token that the route asks for beside all others
	Codes        []int  // of right answers; 200 if there is none
	Act, Because string
}

func (c RouteCase) codes() []int {
	if len(c.Codes) > 0 {
		return c.Codes
	}
	return []int{http.StatusOK}
}

// request is the body, and an edit that sends it as what it is.
func (c RouteCase) request(edit func(*http.Request)) (string, func(*http.Request)) {
	return c.Body, func(r *http.Request) {
		if c.Form {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		edit(r)
		if c.Bearer != "" {
			r.Header.Set("Authorization", "Bearer "+c.Bearer)
		}
	}
}

var routeCases = map[string]RouteCase{
	"GET /metrics":               {Target: "/metrics"},
	"GET /-/healthy":             {Target: "/-/healthy"},
	"GET /-/ready":               {Target: "/-/ready"},
	"GET /api/v1/status":         {Target: "/api/v1/status"},
	"GET /api/v1/openapi.yaml":   {Target: "/api/v1/openapi.yaml"},
	"GET /api/v1/sources":        {Target: "/api/v1/sources"},
	"GET /api/v1/clusters":       {Target: "/api/v1/clusters?source=muc&limit=1"},
	"GET /api/v1/hosts":          {Target: "/api/v1/hosts?cluster=prod&limit=2&offset=1"},
	"GET /api/v1/vms":            {Target: "/api/v1/vms?sort=-cpu_usage_hertz&limit=2"},
	"GET /api/v1/place":          {Target: "/api/v1/place?vm=web"},
	"GET /api/v1/reserve":        {Target: "/api/v1/reserve?explain=true"},
	"GET /api/v1/actions":        {Target: "/api/v1/actions?offset=1"},
	"GET /api/v1/events":         {Target: "/api/v1/events"},
	"GET /api/v1/packs":          {Target: "/api/v1/packs"},
	"GET /api/v1/reports/{name}": {Target: "/api/v1/reports/host-utilization?since=1d"},
	"GET /api/v1/audit":          {Target: "/api/v1/audit?since=7d&limit=5"},
	"GET /api/v1/tips":           {Target: "/api/v1/tips"},
	"GET /api/v1/tips/{id}":      {Target: "/api/v1/tips/a1b2c3"},
	"GET /api/v1/tips/{id}/plan": {Target: "/api/v1/tips/a1b2c3/plan"},
	"GET /api/v1/plan":           {Target: "/api/v1/plan?what=evacuate&host=esx1.example"},
	"GET /prometheus/":           {Target: "/prometheus/api/v1/query?query=1"},
	"POST /prometheus/":          {Target: "/prometheus/api/v1/query", Body: "query=1", Form: true},
	"GET /login":                 {Target: "/login?next=/x"},
	"POST /login":                {Target: "/login", Body: "password=" + token, Form: true, Codes: []int{303}},
	"POST /logout":               {Target: "/logout", Codes: []int{303}},
	"GET /login.css":             {Target: "/login.css"},
	"GET /{$}":                   {Target: "/"},
	"POST " + webhookPath:        {Target: webhookPath, Body: message, Bearer: alertToken},
	"POST /-/reload":             {Target: "/-/reload", Body: `{"why":"new pack"}`, Act: "reload  by ", Because: "operator token because new pack"},
	"POST /api/v1/pause":         {Target: "/api/v1/pause", Body: `{"source":"muc","why":"audit"}`, Act: "pause muc by ", Because: "operator token because audit"},
	"POST /api/v1/resume":        {Target: "/api/v1/resume", Act: "resume  by ", Because: "operator token because"},
	"POST /api/v1/plan/implement": {
		Target: "/api/v1/plan/implement", Body: `{"what":"evacuate","host":"esx1.example","why":"new memory"}`,
		Act: "evacuate muc/host/host-1 by ", Because: "operator token because new memory",
	},
	"POST /api/v1/tips/{id}/implement": {Target: "/api/v1/tips/a1b2c3/implement", Act: "implement a1b2c3 by ", Because: "operator token because"},
	"POST /api/v1/tips/{id}/undismiss": {Target: "/api/v1/tips/a1b2c3/undismiss", Body: "{}", Act: "undismiss a1b2c3 by ", Because: "operator token because"},
	"POST /api/v1/actions/{id}/resolve": {
		Target: "/api/v1/actions/x1/resolve", Body: `{"as":"failed","why":"looked"}`, Act: "resolve x1 as failed by ", Because: "operator token because looked",
	},
	"POST /api/v1/actions/{id}/cancel": {
		Target: "/api/v1/actions/x1/cancel", Body: `{"why":"wrong VM"}`, Act: "cancel x1 by ", Because: "operator token because wrong VM",
	},
	"POST /api/v1/tips/{id}/dismiss": {
		Target: "/api/v1/tips/a1b2c3/dismiss", Body: `{"for":"7d","why":"known"}`, Act: "dismiss a1b2c3 for 168h0m0s by ", Because: "operator token because known",
	},
}

// EveryRoute asks each route, those of further pages too, in every wrong way and in the right one, and as clients that are slow. A route
// without an entry in routeCases or more fails. What pages makes ends with its test.
func EveryRoute(t *testing.T, pages func(testing.TB, Agent) []Route, more map[string]RouteCase) {
	with := func(t testing.TB, o Options) Options {
		o.Prometheus = api.New(api.Options{Engine: promql.Memory(), Now: time.Now})
		o.Alerts = Alerts{Receiver: &inbox{}, Token: func() (string, error) { return alertToken, nil }}
		o.Pages = pages(t, o.Agent)
		return o
	}
	cases := maps.Clone(routeCases)
	maps.Copy(cases, more)
	described := newDescription(t)
	listed := map[string]bool{}
	for _, r := range newServer(with(t, options(hotAgent(t)))).routes() {
		pattern := r.pattern()
		listed[pattern] = true
		tc, ok := cases[pattern]
		if !ok {
			t.Errorf("route %s is not tested: add it to routeCases", pattern)
			continue
		}
		if acts := r.Needs == Operator; acts != (tc.Act != "") {
			t.Errorf("route %s: acts = %v, but its case expects the act %q", pattern, acts, tc.Act)
		}
		if r.Method == http.MethodPost && r.Needs != Operator && !slices.Contains(actsForAnybody, pattern) {
			t.Errorf("route %s changes something and demands no operator", pattern)
		}
		t.Run(pattern, func(t *testing.T) {
			testRoles(t, described, with, r, tc)
			testBodies(t, described, with, r, tc, func(r Route) bool { _, ok := cases[r.pattern()]; return ok })
			testSlowBody(t, with, r, tc)
			testSlowReader(t, with, r, tc)
			if r.Needs == Operator && !r.Page {
				testActing(t, described, r, tc)
			}
			if path := describedPath(r); path != "" && !described.Answered(r.Method, path, 200) {
				t.Error("no right answer was held against the description")
			}
		})
	}
	for pattern := range cases {
		if !listed[pattern] {
			t.Errorf("routeCases has %s, which is no route", pattern)
		}
	}
}

// actsForAnybody are the POST routes that need no operator: logging in and out, queries, and the webhook, which has a token of its own.
var actsForAnybody = []string{"POST /login", "POST /logout", "POST /prometheus/", "POST " + webhookPath}

// testRoles asks a route as everybody: where reading is open, and where it is closed.
func testRoles(t *testing.T, described description, with func(testing.TB, Options) Options, route Route, tc RouteCase) {
	type actor struct {
		name    string
		role    Role // in a closed agent
		edit    func(*http.Request)
		foreign bool // a page of another site has it sent
	}
	agent := hotAgent(t)
	handlers := map[bool]http.Handler{false: New(with(t, options(agent))), true: New(with(t, closed(t, agent)))}
	anna, eve, gone := logIn(handlers[true], "anna", annasPassword, ""), logIn(handlers[true], "eve", annasPassword, ""), logIn(handlers[true], "anna", annasPassword, "")
	do(handlers[true], "POST", "/logout", "", withCookies(gone))
	both := func(edits ...func(*http.Request)) func(*http.Request) {
		return func(r *http.Request) {
			for _, edit := range edits {
				edit(r)
			}
		}
	}
	for _, a := range []actor{
		{name: "anonymous", edit: func(*http.Request) {}},
		{name: "basic auth", edit: func(r *http.Request) { r.SetBasicAuth("operator", token) }},
		{name: "token in the query", edit: func(r *http.Request) { r.URL.RawQuery = strings.Trim(r.URL.RawQuery+"&access_token="+token, "&") }},
		{name: "wrong token", edit: bearer("guess")},
		{name: "empty token", edit: func(r *http.Request) { r.Header.Set("Authorization", "Bearer ") }},
		{name: "token with a tail", edit: bearer(token + "x")},
		{name: "half a token", edit: bearer(token[:5])},
		{name: "expired session", edit: withCookies(gone)},
		{name: "forged session", edit: func(r *http.Request) { r.AddCookie(&http.Cookie{Name: cookieName(r), Value: "AAAA"}) }},
		{name: "viewer's token", edit: bearer(viewerToken), role: Viewer},
		{name: "viewer", edit: withCookies(eve), role: Viewer},
		{name: "operator token", edit: bearer(token), role: Operator},
		{name: "operator", edit: withCookies(anna), role: Operator},
		{name: "operator's browser, another site", edit: both(withCookies(anna), crossSite), role: Operator, foreign: true},
		{name: "operator token, another site", edit: both(bearer(token), crossSite), role: Operator, foreign: true},
		{name: "another site", edit: crossSite, foreign: true},
	} {
		for isClosed, h := range handlers {
			role := a.role
			if !isClosed {
				role = max(role, Viewer)
				if a.name == "viewer" || a.name == "operator" || a.name == "operator's browser, another site" { // it knows no such users
					role = Viewer
				}
			}
			if a.name == "token in the query" && role >= route.Needs {
				continue // a parameter that is unknown
			}
			agent.reset()
			body, edit := tc.request(a.edit)
			w := do(h, route.Method, tc.Target, body, edit)
			described.check(t, route, w)
			checkHeaders(t, w.Header())
			name := fmt.Sprintf("%s, closed %v", a.name, isClosed)
			acts := agent.taken()
			switch {
			case a.foreign && route.Method == http.MethodPost:
				if w.Code != http.StatusForbidden || len(acts) > 0 {
					t.Errorf("%s: %d, acts %q", name, w.Code, acts)
				}
			case role >= route.Needs:
				if !slices.Contains(tc.codes(), w.Code) {
					t.Errorf("%s: %d, want %v\n%s", name, w.Code, tc.codes(), w.Body)
				}
				if tc.Act != "" && (len(acts) != 1 || !strings.Contains(acts[0], tc.Act)) || tc.Act == "" && len(acts) > 0 {
					t.Errorf("%s: acts %q, want %q", name, acts, tc.Act)
				}
			case len(acts) > 0:
				t.Errorf("%s: acted: %q", name, acts)
			case isClosed && a.role != None:
				if w.Code != http.StatusForbidden {
					t.Errorf("%s: %d, want 403", name, w.Code)
				}
			case route.Page:
				if at := w.Header().Get("Location"); w.Code != http.StatusSeeOther || !strings.HasPrefix(at, "/login") {
					t.Errorf("%s: %d to %q, want the login form", name, w.Code, at)
				}
			case w.Code != http.StatusUnauthorized || w.Header().Get("WWW-Authenticate") == "":
				t.Errorf("%s: %d, want 401\n%s", name, w.Code, w.Body)
			}
		}
	}
}

// testBodies sends what no route takes: a method it does not have, and more than it reads.
func testBodies(t *testing.T, described description, with func(testing.TB, Options) Options, route Route, tc RouteCase, has func(Route) bool) {
	agent := hotAgent(t)
	h := New(with(t, options(agent)))
	if route.Method == http.MethodGet {
		w := do(h, http.MethodHead, tc.Target, "", bearer(token))
		if !slices.Contains(tc.codes(), w.Code) {
			t.Errorf("HEAD: %d, want %v", w.Code, tc.codes())
		}
	}
	for _, method := range []string{"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"} {
		if has(Route{Method: method, Path: route.Path}) {
			continue
		}
		if w := do(h, method, tc.Target, "", bearer(token)); w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d, want 405", method, w.Code)
		}
	}
	if route.Method != http.MethodPost || route.pattern() == "POST /logout" { // which reads no body
		return
	}
	limit := bodyLimit
	if route.Path == webhookPath {
		limit = alertmanager.MaxBody
	}
	long := `{"why":"` + strings.Repeat("x", limit) + `"}`
	edit := bearer(token)
	if tc.Bearer != "" {
		edit = bearer(tc.Bearer)
	}
	if route.Page || strings.HasPrefix(route.Path, "/prometheus/") {
		long = "why=" + strings.Repeat("x", limit)
		bare := edit
		edit = func(r *http.Request) { bare(r); r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }
	}
	w := do(h, route.Method, tc.Target, long, edit)
	described.check(t, route, w)
	if w.Code != http.StatusRequestEntityTooLarge && w.Code != http.StatusBadRequest {
		t.Errorf("oversized: %d\n%s", w.Code, w.Body)
	}
	if acts := agent.taken(); len(acts) > 0 {
		t.Errorf("acted: %q", acts)
	}
}

func crossSite(r *http.Request) {
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	r.Header.Set("Origin", "https://evil.example")
}

// testActing sends bodies that are not understood, asks where nobody may act, and sees what the agent was told and says.
func testActing(t *testing.T, described description, route Route, tc RouteCase) {
	none := func(o *Options) { o.OperatorToken = nil }
	empty := func(o *Options) { o.OperatorToken = func() (string, error) { return " \n", nil } }
	unreadable := func(o *Options) { o.OperatorToken = func() (string, error) { return "", errors.New("gone") } }
	emptyBearer := func(r *http.Request) { r.Header.Set("Authorization", "Bearer ") }
	for _, bad := range []struct {
		name, body string
		edit       func(*http.Request)
		options    func(*Options)
		want       int
	}{
		{"none configured", tc.Body, bearer(token), none, 403},
		{"none configured, none sent", tc.Body, emptyBearer, none, 403},
		{"empty configured", tc.Body, emptyBearer, empty, 403},
		{"unreadable", tc.Body, bearer(token), unreadable, 403},
		{"oversized by blanks", "{}" + strings.Repeat(" ", bodyLimit), bearer(token), nil, 413},
		{"unknown key", `{"because":"x"}`, bearer(token), nil, 400},
		{"wrong type", `{"why":7}`, bearer(token), nil, 400},
		{"cut body", `{"why":`, bearer(token), nil, 400},
		{"two bodies", `{}{}`, bearer(token), nil, 400},
		{"an array", `[]`, bearer(token), nil, 400},
	} {
		agent := hotAgent(t)
		o := options(agent)
		if bad.options != nil {
			bad.options(&o)
		}
		w := do(New(o), "POST", tc.Target, bad.body, bad.edit)
		if w.Code != bad.want {
			t.Errorf("%s: %d, want %d\n%s", bad.name, w.Code, bad.want, w.Body)
		}
		described.check(t, route, w)
		if acts := agent.taken(); len(acts) > 0 {
			t.Errorf("%s: acted: %q", bad.name, acts)
		}
	}

	agent := hotAgent(t)
	if do(New(options(agent)), "POST", tc.Target, tc.Body, bearer(token)); !slices.Equal(agent.taken(), []string{tc.Act + tc.Because}) {
		t.Errorf("acts %q, want %q", agent.taken(), tc.Act+tc.Because)
	}
	agent.failure = errors.New("disk full")
	w := do(New(options(agent)), "POST", tc.Target, tc.Body, bearer(token))
	if described.check(t, route, w); w.Code != 500 || !strings.Contains(w.Body.String(), "disk full") {
		t.Errorf("failing act: %d %s, want 500 that says why", w.Code, w.Body)
	}
}

func checkHeaders(t *testing.T, h http.Header) {
	t.Helper()
	for name, want := range securityHeaders {
		if got := h.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// TestPathTricks sends paths that mean another route to some proxies. None may act, none may lead off this site.
func TestPathTricks(t *testing.T) {
	agent := hotAgent(t)
	h := New(options(agent))
	for _, path := range []string{
		"/api/v1/tips/../../../-/reload", "/api/v1/tips/%2e%2e/%2e%2e/%2e%2e/-/reload", "//-/reload", "/-//reload", "/./-/reload",
		"/-/reload/", "/-/reload%2f", "/-/reload;x=y", "/-/RELOAD", "/%2d/reload", "//evil.example/%2e%2e", "//evil.example/../-/reload",
		"/api/v1/tips//implement", "/api/v1/tips/a1b2c3/implement/", "/api/v1/tips/a1b2c3%2fimplement", "/api/v1/tips/%00/implement",
		"/api/v1/tips/a1b2c3/implement%00", "/api/v1/tips/a1b2c3/../a1b2c3/implement", `/api\v1\pause`, "/api/v1/pause/.", "/api/v2/pause",
	} {
		for _, method := range []string{"GET", "POST", "HEAD", "OPTIONS", "TRACE", "PRI"} {
			w := do(h, method, "/", "", func(r *http.Request) {
				r.URL.Path, r.URL.RawPath = unescaped(path), path
				r.RequestURI = path
			})
			if loc := w.Header().Get("Location"); strings.HasPrefix(loc, "//") || strings.Contains(loc, "://") {
				t.Errorf("%s %s redirects to %s", method, path, loc)
			}
			if method == "POST" && w.Code == 200 {
				t.Errorf("POST %s without a token: 200", path)
			}
		}
	}
	if acts := agent.taken(); len(acts) > 0 {
		t.Errorf("acted: %q", acts)
	}
}

func unescaped(path string) string {
	r, err := http.NewRequest("GET", "http://x"+path, nil)
	if err != nil {
		return path
	}
	return r.URL.Path
}

func TestLoopbackOnly(t *testing.T) {
	o := options(hotAgent(t))
	o.LoopbackOnly = true
	h := New(o)
	for host, want := range map[string]int{
		"localhost:9272": 200, "LOCALHOST": 200, "127.0.0.1:9272": 200, "127.9.8.7": 200, "[::1]:9272": 200, "[::1]": 200,
		"[::ffff:127.0.0.1]:1": 200, "rebound.example:9272": 421, "localhost.evil.example": 421, "127.0.0.1.nip.io": 421,
		"192.0.2.1": 421, "": 421, "localhost:1:2": 421, "0.0.0.0:9272": 421,
	} {
		for _, target := range []string{"/", "/metrics", "/-/healthy"} {
			if w := do(h, "GET", target, "", func(r *http.Request) { r.Host = host }); w.Code != want {
				t.Errorf("%s of host %q: %d, want %d", target, host, w.Code, want)
			}
		}
	}
}

func TestRefusalsAreLoggedWithoutTheToken(t *testing.T) {
	var log strings.Builder
	o := options(hotAgent(t))
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	w := do(New(o), "POST", "/api/v1/pause", "", bearer("mistyped-secret"))
	if !strings.Contains(log.String(), "refused") || !strings.Contains(log.String(), "192.0.2.1") {
		t.Errorf("log does not say what was refused from where: %s", &log)
	}
	if out := log.String() + w.Body.String(); strings.Contains(out, "mistyped-secret") || strings.Contains(out, token) {
		t.Errorf("a token is shown: %s", out)
	}
}
