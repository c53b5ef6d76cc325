package web

import (
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// routeCases says for every route how it is asked rightly and, if it acts, what the agent must have been told.
var routeCases = map[string]struct{ target, body, act string }{
	"GET /metrics":                     {target: "/metrics"},
	"GET /-/healthy":                   {target: "/-/healthy"},
	"GET /-/ready":                     {target: "/-/ready"},
	"GET /api/v1/status":               {target: "/api/v1/status"},
	"GET /api/v1/sources":              {target: "/api/v1/sources"},
	"GET /api/v1/clusters":             {target: "/api/v1/clusters?source=muc"},
	"GET /api/v1/hosts":                {target: "/api/v1/hosts?cluster=prod"},
	"GET /api/v1/vms":                  {target: "/api/v1/vms?sort=-cpu_usage_hertz&limit=2"},
	"GET /api/v1/place":                {target: "/api/v1/place?vm=web"},
	"GET /api/v1/reserve":              {target: "/api/v1/reserve?explain=true"},
	"GET /api/v1/actions":              {target: "/api/v1/actions"},
	"GET /api/v1/events":               {target: "/api/v1/events"},
	"GET /api/v1/packs":                {target: "/api/v1/packs"},
	"GET /api/v1/reports/{name}":       {target: "/api/v1/reports/host-utilization?since=1d"},
	"GET /api/v1/audit":                {target: "/api/v1/audit?result=refused&since=7d&limit=5"},
	"GET /api/v1/tips":                 {target: "/api/v1/tips?state=active"},
	"GET /api/v1/tips/{id}":            {target: "/api/v1/tips/a1b2c3"},
	"GET /api/v1/tips/{id}/plan":       {target: "/api/v1/tips/a1b2c3/plan"},
	"GET /api/v1/plan":                 {target: "/api/v1/plan?what=evacuate&host=esx1.example"},
	"POST /api/v1/plan/implement":      {"/api/v1/plan/implement", `{"what":"evacuate","host":"esx1.example","why":"new memory"}`, "evacuate muc/host/host-1 by operator token because new memory"},
	"GET /login":                       {target: "/login"},
	"POST /login":                      {target: "/login"},
	"POST /logout":                     {target: "/logout"},
	"GET /login.css":                   {target: "/login.css"},
	"GET /{$}":                         {target: "/"},
	"GET /console.css":                 {target: "/console.css"},
	"GET /console.js":                  {target: "/console.js"},
	"GET /favicon.svg":                 {target: "/favicon.svg"},
	"POST /-/reload":                   {"/-/reload", `{"why":"new pack"}`, "reload  by operator token because new pack"},
	"POST /api/v1/pause":               {"/api/v1/pause", `{"source":"muc","why":"audit"}`, "pause muc by operator token because audit"},
	"POST /api/v1/resume":              {"/api/v1/resume", "", "resume  by operator token because"},
	"POST /api/v1/tips/{id}/implement": {"/api/v1/tips/a1b2c3/implement", "", "implement a1b2c3 by operator token because"},
	"POST /api/v1/alertmanager":        {target: "/api/v1/alertmanager"},
	"POST /api/v1/tips/{id}/undismiss": {"/api/v1/tips/a1b2c3/undismiss", "{}", "undismiss a1b2c3 by operator token because"},
	"POST /api/v1/actions/{id}/cancel": {"/api/v1/actions/x1/cancel", `{"why":"wrong VM"}`, "cancel x1 by operator token because wrong VM"},
	"POST /api/v1/actions/{id}/resolve": {
		"/api/v1/actions/x1/resolve", `{"as":"failed","why":"looked"}`, "resolve x1 as failed by operator token because looked",
	},
	"POST /api/v1/tips/{id}/dismiss": {
		"/api/v1/tips/a1b2c3/dismiss", `{"for":"7d","why":"known"}`, "dismiss a1b2c3 for 168h0m0s by operator token because known",
	},
}

// TestEveryRoute asks each route in every wrong way and in the right one. A route without an entry above fails.
func TestEveryRoute(t *testing.T) {
	listed := map[string]bool{}
	for _, r := range newServer(options(hotAgent(t))).routes() {
		pattern := r.pattern()
		listed[pattern] = true
		tc, ok := routeCases[pattern]
		if !ok {
			t.Errorf("route %s is not tested: add it to routeCases", pattern)
			continue
		}
		if pattern == "POST "+webhookPath {
			t.Run(pattern, testWebhook)
			continue
		}
		if r.Needs == None {
			continue
		}
		if acts := r.Needs == Operator; acts != (tc.act != "") {
			t.Errorf("route %s: acts = %v, but routeCases expects the act %q", pattern, acts, tc.act)
		}
		t.Run(pattern, func(t *testing.T) {
			if tc.act == "" {
				testReading(t, tc.target)
				return
			}
			testActing(t, tc.target, tc.body, tc.act)
		})
	}
	for pattern := range routeCases {
		if !listed[pattern] {
			t.Errorf("routeCases has %s, which is no route", pattern)
		}
	}
}

func crossSite(r *http.Request) {
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	r.Header.Set("Origin", "https://evil.example")
}

func testReading(t *testing.T, target string) {
	agent := hotAgent(t)
	h := New(options(agent))
	for _, tc := range []struct {
		name, method string
		edit         func(*http.Request)
		want         int
	}{
		{"anonymous", "GET", func(*http.Request) {}, 200},
		{"head", "HEAD", func(*http.Request) {}, 200},
		{"wrong token", "GET", bearer("guess"), 200},
		{"right token", "GET", bearer(token), 200},
		{"wrong method", "DELETE", bearer(token), 405},
		{"wrong method post", "POST", bearer(token), 405},
	} {
		w := do(h, tc.method, target, "", tc.edit)
		if w.Code != tc.want {
			t.Errorf("%s: %s %s = %d, want %d\n%s", tc.name, tc.method, target, w.Code, tc.want, w.Body)
		}
		checkHeaders(t, w.Header())
	}
	if acts := agent.taken(); len(acts) > 0 {
		t.Errorf("reading acted: %q", acts)
	}
}

func testActing(t *testing.T, target, body, act string) {
	none := func(o *Options) { o.OperatorToken = nil }
	empty := func(o *Options) { o.OperatorToken = func() (string, error) { return " \n", nil } }
	unreadable := func(o *Options) { o.OperatorToken = func() (string, error) { return "", errors.New("gone") } }
	basic := func(r *http.Request) { r.SetBasicAuth("operator", token) }
	emptyBearer := func(r *http.Request) { r.Header.Set("Authorization", "Bearer ") }
	inQuery := func(r *http.Request) { r.URL.RawQuery = "access_token=" + token }
	crossSiteWithToken := func(r *http.Request) { crossSite(r); bearer(token)(r) }

	for _, tc := range []struct {
		name, method, body string
		edit               func(*http.Request)
		options            func(*Options)
		want               int
	}{
		{"anonymous", "POST", body, func(*http.Request) {}, nil, 401},
		{"wrong token", "POST", body, bearer("guess"), nil, 401},
		{"token with a tail", "POST", body, bearer(token + "x"), nil, 401},
		{"half a token", "POST", body, bearer(token[:5]), nil, 401},
		{"empty token", "POST", body, emptyBearer, nil, 401},
		{"basic auth", "POST", body, basic, nil, 401},
		{"token in the query", "POST", body, inQuery, nil, 401},
		{"none configured", "POST", body, bearer(token), none, 403},
		{"none configured, none sent", "POST", body, emptyBearer, none, 403},
		{"empty configured", "POST", body, emptyBearer, empty, 403},
		{"unreadable", "POST", body, bearer(token), unreadable, 403},
		{"cross-site", "POST", body, crossSiteWithToken, nil, 403},
		{"oversized", "POST", `{"why":"` + strings.Repeat("x", bodyLimit) + `"}`, bearer(token), nil, 413},
		{"oversized by blanks", "POST", "{}" + strings.Repeat(" ", bodyLimit), bearer(token), nil, 413},
		{"unknown key", "POST", `{"because":"x"}`, bearer(token), nil, 400},
		{"wrong type", "POST", `{"why":7}`, bearer(token), nil, 400},
		{"cut body", "POST", `{"why":`, bearer(token), nil, 400},
		{"two bodies", "POST", `{}{}`, bearer(token), nil, 400},
		{"an array", "POST", `[]`, bearer(token), nil, 400},
		{"get", "GET", "", bearer(token), nil, 405},
		{"put", "PUT", body, bearer(token), nil, 405},
	} {
		agent := hotAgent(t)
		o := options(agent)
		if tc.options != nil {
			tc.options(&o)
		}
		w := do(New(o), tc.method, target, tc.body, tc.edit)
		if w.Code != tc.want {
			t.Errorf("%s: %d, want %d\n%s", tc.name, w.Code, tc.want, w.Body)
		}
		if tc.want == 401 && w.Header().Get("WWW-Authenticate") == "" {
			t.Errorf("%s: no WWW-Authenticate", tc.name)
		}
		if acts := agent.taken(); len(acts) > 0 {
			t.Errorf("%s: acted: %q", tc.name, acts)
		}
		checkHeaders(t, w.Header())
	}

	agent := hotAgent(t)
	if w := do(New(options(agent)), "POST", target, body, bearer(token)); w.Code != 200 {
		t.Errorf("right token: %d\n%s", w.Code, w.Body)
	}
	if got := agent.taken(); !slices.Equal(got, []string{act}) {
		t.Errorf("right token: acts %q, want %q", got, act)
	}

	agent.failure = errors.New("disk full")
	if w := do(New(options(agent)), "POST", target, body, bearer(token)); w.Code != 500 || !strings.Contains(w.Body.String(), "disk full") {
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
