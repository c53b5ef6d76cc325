// Package web is the agent's HTTP side: metrics, probes, a JSON API under /api/v1 and a login form; package console makes the pages.
// It promises that nothing acts but for an operator, that every act says who, from where and why, and that an absent number is
// never written as 0. It must not import app, store, a collector, an executor or a platform.
package web

import (
	"context"
	_ "embed"
	"log/slog"
	"net/http"
	"sync/atomic"
)

// openAPI describes what is served to programs.
//
//go:embed openapi.yaml
var openAPI string

// Options are what the handler is made of.
type Options struct {
	Agent   Agent
	Metrics http.Handler // serves /metrics
	// Prometheus serves Prometheus' HTTP API below /prometheus/, from the embedded history; nil if there is none. It only reads.
	Prometheus http.Handler
	// OperatorToken is one token that may act, asked where a request shows a token. Empty means that none is configured; nil is the
	// same. An error refuses the token and goes to the log.
	OperatorToken func() (string, error)
	// Access says who else may what; it is asked at every request. Nil is that anybody reads.
	Access func() Access
	// Ticket logs in the first who opens /login?ticket= with it, as an operator; empty is none.
	Ticket string
	// Pages are further routes, which pass the same guard.
	Pages []Route
	// ShowError writes the page of an error on a page; nil is plain text.
	ShowError func(w http.ResponseWriter, r *http.Request, code int, text string)
	// Alerts takes Alertmanager's webhook; its Receiver is nil where none is configured.
	Alerts Alerts
	// Events are streamed at /api/v1/events; nil if nobody tells of any. Whoever made them closes them, before the server ends.
	Events *Events
	// LoopbackOnly answers only requests that call this machine by a loopback name, so that no page on the internet can
	// reach a demo through a DNS name of its own that points here.
	LoopbackOnly bool
	Log          *slog.Logger
}

// Alerts is who takes Alertmanager's webhook, and what it must show: the token, or a verified client certificate of the subject, as RFC 2253
// writes it. Nil and empty are neither.
type Alerts struct {
	Receiver AlertReceiver
	Token    func() (string, error)
	Subject  func() string
}

// Route is one line of the routing table: what is asked, who may, and who answers.
type Route struct {
	Method string // GET, which also answers HEAD and changes nothing, or POST
	Path   string // a pattern of net/http
	Needs  Role   // Viewer to read, Operator to act, None for what anybody may ask
	// Page says that it is for people: who may not is led to the login form, and errors are pages.
	Page    bool
	Handler http.Handler

	form func(context.Context, By, *http.Request) (string, error)
}

func (r Route) pattern() string { return r.Method + " " + r.Path }

// New is the handler of everything that the agent serves. Time-outs are the server's.
func New(o Options) http.Handler {
	s := newServer(o)
	mux := http.NewServeMux()
	for _, r := range s.routes() {
		mux.Handle(r.pattern(), s.demand(r))
	}
	mux.Handle("/", s.demand(Route{Page: true, Handler: s.notServed(mux)}))
	return s.guard(mux, o.LoopbackOnly)
}

type server struct {
	agent      Agent
	metrics    http.Handler
	prometheus http.Handler
	token      func() (string, error)
	access     func() Access
	ticket     atomic.Pointer[string]
	sessions   *sessions
	guesses    guesses
	checks     turns
	reports    turns
	audits     auditor
	alerts     Alerts
	events     *Events
	pages      []Route
	showError  func(w http.ResponseWriter, r *http.Request, code int, text string)
	log        *slog.Logger
}

func newServer(o Options) *server {
	s := &server{
		agent: o.Agent, metrics: o.Metrics, prometheus: o.Prometheus, token: o.OperatorToken, access: o.Access,
		sessions: newSessions(), guesses: newGuesses(), checks: make(turns, passwordChecks), reports: make(turns, reportsAtATime), audits: newAuditor(o.Agent, o.Log),
		alerts: o.Alerts, events: o.Events, pages: o.Pages, showError: o.ShowError, log: o.Log,
	}
	if s.access == nil {
		s.access = func() Access { return Access{Anonymous: Viewer} }
	}
	s.ticket.Store(&o.Ticket)
	return s
}

// routes is all that is served.
func (s *server) routes() []Route {
	routes := []Route{
		{Method: "GET", Path: "/-/healthy", Handler: http.HandlerFunc(healthy)},
		{Method: "GET", Path: "/-/ready", Handler: http.HandlerFunc(s.ready)},
		{Method: "GET", Path: "/metrics", Needs: Viewer, Handler: s.metrics},
		{Method: "POST", Path: "/-/reload", Needs: Operator, Handler: act(s, s.reload)},

		{Method: "GET", Path: "/api/v1/status", Needs: Viewer, Handler: s.read(s.status)},
		{Method: "GET", Path: "/api/v1/openapi.yaml", Handler: asset("application/yaml", openAPI)},
		{Method: "GET", Path: "/api/v1/sources", Needs: Viewer, Handler: s.read(s.sources)},
		{Method: "GET", Path: "/api/v1/clusters", Needs: Viewer, Handler: s.read(s.clusters)},
		{Method: "GET", Path: "/api/v1/hosts", Needs: Viewer, Handler: s.read(s.hosts)},
		{Method: "GET", Path: "/api/v1/vms", Needs: Viewer, Handler: s.read(s.vms)},
		{Method: "GET", Path: "/api/v1/place", Needs: Viewer, Handler: s.read(s.place)},
		{Method: "GET", Path: "/api/v1/reserve", Needs: Viewer, Handler: s.read(s.reserve)},
		{Method: "GET", Path: "/api/v1/actions", Needs: Viewer, Handler: s.read(s.actions)},
		{Method: "GET", Path: "/api/v1/events", Needs: Viewer, Handler: http.HandlerFunc(s.streamEvents)},
		{Method: "GET", Path: "/api/v1/packs", Needs: Viewer, Handler: s.read(s.packs)},
		{Method: "GET", Path: "/api/v1/reports/{name}", Needs: Viewer, Handler: s.read(s.report)},
		{Method: "GET", Path: "/api/v1/audit", Needs: Viewer, Handler: s.read(s.audit)},
		{Method: "GET", Path: "/api/v1/tips", Needs: Viewer, Handler: s.read(s.tips)},
		{Method: "GET", Path: "/api/v1/tips/{id}", Needs: Viewer, Handler: s.read(s.tip)},
		{Method: "GET", Path: "/api/v1/tips/{id}/plan", Needs: Viewer, Handler: s.read(s.tipPlan)},
		{Method: "GET", Path: "/api/v1/plan", Needs: Viewer, Handler: s.read(s.hostPlan)},

		{Method: "POST", Path: "/api/v1/tips/{id}/implement", Needs: Operator, Handler: act(s, s.implement)},
		{Method: "POST", Path: "/api/v1/plan/implement", Needs: Operator, Handler: act(s, s.implementHost)},
		{Method: "POST", Path: "/api/v1/tips/{id}/dismiss", Needs: Operator, Handler: act(s, s.dismiss)},
		{Method: "POST", Path: "/api/v1/tips/{id}/undismiss", Needs: Operator, Handler: act(s, s.undismiss)},
		{Method: "POST", Path: "/api/v1/actions/{id}/resolve", Needs: Operator, Handler: act(s, s.resolve)},
		{Method: "POST", Path: "/api/v1/actions/{id}/cancel", Needs: Operator, Handler: act(s, s.cancel)},
		{Method: "POST", Path: "/api/v1/pause", Needs: Operator, Handler: act(s, s.pause)},
		{Method: "POST", Path: "/api/v1/resume", Needs: Operator, Handler: act(s, s.resume)},

		{Method: "POST", Path: webhookPath, Handler: http.HandlerFunc(s.receiveAlerts)}, // it asks for a token of its own

		{Method: "GET", Path: "/login", Page: true, Handler: http.HandlerFunc(s.showLogin)},
		{Method: "POST", Path: "/login", Page: true, Handler: http.HandlerFunc(s.login)},
		{Method: "POST", Path: "/logout", Page: true, Handler: http.HandlerFunc(s.logout)},
		{Method: "GET", Path: "/login.css", Handler: asset("text/css; charset=utf-8", loginCSS)},
	}
	if s.prometheus != nil { // queries come by POST too, and only read
		prometheus := http.StripPrefix("/prometheus", s.prometheus)
		routes = append(routes,
			Route{Method: "GET", Path: "/prometheus/", Needs: Viewer, Handler: prometheus},
			Route{Method: "POST", Path: "/prometheus/", Needs: Viewer, Handler: prometheus})
	}
	for _, page := range s.pages {
		if page.form != nil {
			page.Handler = s.form(page.form)
		}
		routes = append(routes, page)
	}
	return routes
}

func healthy(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "protip is healthy") }

func (s *server) ready(w http.ResponseWriter, r *http.Request) {
	if err := s.agent.Ready(r.Context()); err != nil {
		plain(w, http.StatusServiceUnavailable, "protip is not ready: "+err.Error())
		return
	}
	plain(w, http.StatusOK, "protip is ready")
}
