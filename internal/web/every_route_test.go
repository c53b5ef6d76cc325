package web_test

import (
	"log/slog"
	"testing"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/history/promql"
	"github.com/protip/protip/internal/web"
	"github.com/protip/protip/internal/web/console"
)

// TestEveryRoute is of all that the agent serves, the console's pages and forms with it.
func TestEveryRoute(t *testing.T) {
	pages := func(t testing.TB, a web.Agent) []web.Route {
		c := console.New(console.Options{
			Agent: a, Past: promql.Memory(), Log: slog.New(slog.DiscardHandler),
			Trials: func(m history.Matrix) history.Querier { return promql.Memory(m...) },
		})
		t.Cleanup(c.Close)
		return c.Routes()
	}
	form := func(target, body, act, because string) web.RouteCase {
		return web.RouteCase{Target: target, Body: body, Form: true, Codes: []int{303}, Act: act, Because: because}
	}
	web.EveryRoute(t, pages, map[string]web.RouteCase{
		"GET /tips/{id}":             {Target: "/tips/a1b2c3"},
		"GET /fleet":                 {Target: "/fleet"},
		"GET /clusters/{id...}":      {Target: "/clusters/muc/cluster/c1"},
		"GET /hosts/{id...}":         {Target: "/hosts/muc/host/host-1"},
		"GET /plan":                  {Target: "/plan?what=free&host=muc/host/host-1"},
		"GET /vms":                   {Target: "/vms?sort=-cpu"},
		"GET /vms/{id...}":           {Target: "/vms/muc/vm/vm-1"},
		"GET /search":                {Target: "/search?q=web"},
		"GET /actions":               {Target: "/actions"},
		"GET /sources":               {Target: "/sources"},
		"GET /reports":               {Target: "/reports"},
		"GET /reports/{name}":        {Target: "/reports/host-utilization?since=1d"},
		"GET /packs":                 {Target: "/packs"},
		"GET /packs/{name}/replay":   {Target: "/packs/host-pressure/replay?since=6h"},
		"GET /audit":                 {Target: "/audit"},
		"GET /console.css":           {Target: "/console.css"},
		"GET /console.js":            {Target: "/console.js"},
		"GET /favicon.svg":           {Target: "/favicon.svg"},
		"POST /tips/{id}/implement":  form("/tips/a1b2c3/implement", "why=hot", "implement a1b2c3 by ", "operator token because hot"),
		"POST /tips/{id}/dismiss":    form("/tips/a1b2c3/dismiss", "for=8h", "dismiss a1b2c3 for 8h0m0s by ", "operator token because"),
		"POST /tips/{id}/undismiss":  form("/tips/a1b2c3/undismiss", "", "undismiss a1b2c3 by ", "operator token because"),
		"POST /plan/implement":       form("/plan/implement", "what=free&host=muc/host/host-1&plan=p1", "free muc/host/host-1 by ", "operator token because"),
		"POST /actions/{id}/resolve": form("/actions/x1/resolve", "as=failed", "resolve x1 as failed by ", "operator token because"),
		"POST /actions/{id}/cancel":  form("/actions/x1/cancel", "", "cancel x1 by ", "operator token because"),
		"POST /pause":                form("/pause", "source=muc", "pause muc by ", "operator token because"),
		"POST /resume":               form("/resume", "", "resume  by ", "operator token because"),
	})
}
