package e2e

import (
	"strings"
	"testing"
	"time"

	promconfig "github.com/prometheus/common/config"

	"github.com/protip/protip/dashboards"
	"github.com/protip/protip/dashboards/check"
	"github.com/protip/protip/internal/history/remote"
	"github.com/protip/protip/test/prom"
)

// TestDashboards lets a real Prometheus watch a demo from its start until a host has recovered, and then runs every query of every
// panel: each has an answer, and what should move has moved. A page with a broken panel is found out.
func TestDashboards(t *testing.T) {
	prom.Tool(t, "prometheus")
	began := time.Now()
	demo := startDemo(t, "--seed=5", "--speed=30")
	server := prom.Start(t, map[string]string{"protip": strings.TrimPrefix(demo.base, "http://")})
	act := demo.await(t, func(a action) bool { return a.Outcome == "recovered" })
	server.Wait(t, `min_over_time(sum(protip_action_outcomes_total)[4s:1s]) > 0`, patience, func(s []prom.Sample) bool { return len(s) == 1 }) // and not only in the last scrape
	ask, err := remote.New(remote.Options{URL: server.URL, HTTP: promconfig.DefaultHTTPClientConfig, Timeout: 30 * time.Second, Samples: 1_000_000})
	if err != nil {
		t.Fatal(err)
	}
	cluster := server.Query(t, `virt_host_info{host="`+act.FromName+`"}`)[0].Labels["virt_cluster"]
	fixed := map[string]string{"source": act.source(), "virt_cluster": cluster, "host": act.FromName, "vm": act.VMName}
	for _, d := range dashboards.All() {
		t.Run(d.UID, func(t *testing.T) {
			own := map[string]string{}
			for _, v := range d.Variables {
				if !v.Multi || v.Name == "virt_cluster" {
					own[v.Name] = fixed[v.Name]
				}
			}
			c := check.Checker{Ask: ask, From: began, To: time.Now()}
			problems, err := c.Dashboard(t.Context(), d, own)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range problems {
				t.Error(p)
			}
		})
	}
	t.Run("broken on purpose", func(t *testing.T) {
		d := dashboards.All()[0]
		d.Rows = []dashboards.Row{{Title: "x", Panels: []dashboards.Panel{
			{Title: "empty", Targets: []dashboards.Target{{Expr: `virt_host_cpu_usage_ratoi{source=~"$source"}`}}},
			{Title: "wrong", Targets: []dashboards.Target{{Expr: `sum(`}}},
			{Title: "still", Moves: "nothing", Targets: []dashboards.Target{{Expr: `vector(0)`}}},
		}}}
		c := check.Checker{Ask: ask, From: began, To: time.Now()}
		problems, err := c.Dashboard(t.Context(), d, nil)
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]bool{}
		for _, p := range problems {
			found[p.Panel] = true
		}
		for _, panel := range []string{"empty", "wrong", "still"} {
			if !found[panel] {
				t.Errorf("the panel %q was not found out: %v", panel, problems)
			}
		}
	})
}
