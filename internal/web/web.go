// Package web is the agent's HTTP side: metrics, probes, a JSON API under /api/v1 and a plain console.
// It promises that nothing acts without the operator's token, that every act says who, from where and why, and that an
// absent number is never written as 0. It must not import app, store, a collector, an executor or a platform.
package web

import (
	"log/slog"
	"net/http"
)

// Options are what the handler is made of.
type Options struct {
	Agent   Agent
	Metrics http.Handler // serves /metrics
	// Prometheus serves Prometheus' HTTP API below /prometheus/, from the embedded history; nil if there is none. It only reads.
	Prometheus http.Handler
	// OperatorToken is asked at every act. An empty token means that none is configured and that nothing may act; nil is
	// the same. An error refuses the act and goes to the log.
	OperatorToken func() (string, error)
	// Alerts takes Alertmanager's webhook; its Receiver is nil where none is configured.
	Alerts Alerts
	// Events are streamed at /api/v1/events; nil if nobody tells of any. Whoever made them closes them, before the server ends.
	Events *Events
	// LoopbackOnly answers only requests that call this machine by a loopback name, so that no page on the internet can
	// reach a demo through a DNS name of its own that points here.
	LoopbackOnly bool
	Log          *slog.Logger
}

// Alerts is who takes Alertmanager's webhook, and the token that it must carry.
type Alerts struct {
	Receiver AlertReceiver
	Token    func() (string, error)
}

// New is the handler of everything that the agent serves. Time-outs are the server's.
func New(o Options) http.Handler {
	s := &server{agent: o.Agent, metrics: o.Metrics, token: o.OperatorToken, alerts: o.Alerts, events: o.Events, log: o.Log}
	mux := http.NewServeMux()
	for _, r := range s.routes() {
		mux.Handle(r.method+" "+r.path, r.handler)
	}
	if o.Prometheus != nil {
		mux.Handle("/prometheus/", http.StripPrefix("/prometheus", o.Prometheus))
	}
	mux.Handle("/api/v1/", s.notServed(mux))
	return s.guard(mux, o.LoopbackOnly)
}

type server struct {
	agent   Agent
	metrics http.Handler
	token   func() (string, error)
	alerts  Alerts
	events  *Events
	log     *slog.Logger
}

// route is one line of the routing table.
type route struct {
	method, path string
	handler      http.Handler
}

// routes is all that is served. GET routes also answer HEAD and change nothing; POST routes demand a token.
func (s *server) routes() []route {
	return []route{
		{"GET", "/metrics", s.metrics},
		{"GET", "/-/healthy", http.HandlerFunc(healthy)},
		{"GET", "/-/ready", http.HandlerFunc(s.ready)},
		{"POST", "/-/reload", act(s, s.reload)},

		{"GET", "/api/v1/status", s.read(s.status)},
		{"GET", "/api/v1/sources", s.read(s.sources)},
		{"GET", "/api/v1/clusters", s.read(s.clusters)},
		{"GET", "/api/v1/hosts", s.read(s.hosts)},
		{"GET", "/api/v1/vms", s.read(s.vms)},
		{"GET", "/api/v1/place", s.read(s.place)},
		{"GET", "/api/v1/reserve", s.read(s.reserve)},
		{"GET", "/api/v1/actions", s.read(s.actions)},
		{"GET", "/api/v1/events", http.HandlerFunc(s.streamEvents)},
		{"GET", "/api/v1/tips", s.read(s.tips)},
		{"GET", "/api/v1/tips/{id}", s.read(s.tip)},

		{"POST", "/api/v1/tips/{id}/implement", act(s, s.implement)},
		{"POST", "/api/v1/tips/{id}/dismiss", act(s, s.dismiss)},
		{"POST", "/api/v1/tips/{id}/undismiss", act(s, s.undismiss)},
		{"POST", "/api/v1/actions/{id}/cancel", act(s, s.cancel)},
		{"POST", "/api/v1/actions/{id}/resolve", act(s, s.resolve)},
		{"POST", "/api/v1/pause", act(s, s.pause)},
		{"POST", "/api/v1/resume", act(s, s.resume)},

		{"POST", webhookPath, http.HandlerFunc(s.receiveAlerts)},

		{"GET", "/{$}", http.HandlerFunc(s.console)},
		{"GET", "/console.css", asset("text/css; charset=utf-8", consoleCSS)},
		{"GET", "/console.js", asset("text/javascript; charset=utf-8", consoleJS)},
		{"GET", "/favicon.svg", asset("image/svg+xml", favicon)},
	}
}

func healthy(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "protip is healthy") }

func (s *server) ready(w http.ResponseWriter, r *http.Request) {
	if err := s.agent.Ready(r.Context()); err != nil {
		plain(w, http.StatusServiceUnavailable, "protip is not ready: "+err.Error())
		return
	}
	plain(w, http.StatusOK, "protip is ready")
}
