package app_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
	"github.com/protip/protip/test/prom"
)

// alertPack gives an alert of Prometheus a remedy.
const alertPack = `pack: alerts
version: 1.0.0
description: What Prometheus sees, and protip can mend.
rules:
  - name: PrometheusSaysHot
    on: host
    on_alert: {alertname: HostTooHot}
    severity: critical
    summary: "{{host.name}}: {{alert_summary}}"
    remedy: {action: rebalance-host, cpu_below: 0.8}
`

// TestAlertToMigrationAndBack: a rule of a real Prometheus over protip's metrics fires, a real Alertmanager sends it to protip, it is
// a tip that a person implements, the VM moves, the alert and the tip resolve. On the way protip's own tip is in Alertmanager,
// grouped, and gone when it is over; and it does not come back as a tip.
func TestAlertToMigrationAndBack(t *testing.T) {
	prom.Tool(t, "prometheus-alertmanager")
	var handler atomic.Pointer[http.Handler]
	relay := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := handler.Load(); h != nil {
			(*h).ServeHTTP(w, r)
			return
		}
		http.Error(w, "not yet", http.StatusServiceUnavailable)
	}))
	t.Cleanup(relay.Close)
	r := newRig(t, 20, hotFleet("vc"))
	am := prom.StartAlertmanager(t, `route: {receiver: protip, group_by: [source, virt_cluster], group_wait: 1s, group_interval: 1s, repeat_interval: 1m}
receivers:
  - name: protip
    webhook_configs:
      - url: `+relay.URL+`/api/v1/alertmanager
        send_resolved: true
        http_config: {authorization: {credentials_file: `+r.file("alert.token", "let me tell\n")+`}}
`)
	r.file("alerts.yml", alertPack)
	r.config["packs"] = map[string]any{"shipped": []any{}, "files": []any{"heat.yml", "alerts.yml"}}
	r.config["alertmanager"] = map[string]any{
		"receive": map[string]any{"token_file": "alert.token"}, "send": []any{map[string]any{"url": am.URL}},
	}
	r.config["web"].(map[string]any)["external_url"] = relay.URL
	r.write()
	a := r.start()
	h := a.Handler()
	handler.Store(&h)
	prom.StartWith(t, map[string]string{"protip": strings.TrimPrefix(relay.URL, "http://")}, `rule_files: [`+r.file("rules.yml", `groups:
  - name: heat
    rules:
      - {alert: HostTooHot, expr: virt_host_cpu_usage_ratio > 0.9, for: 1s, labels: {severity: critical}, annotations: {summary: it is hot}}
`)+`]
alerting: {alertmanagers: [{static_configs: [{targets: ["`+strings.TrimPrefix(am.URL, "http://")+`"]}]}]}
`)

	hot := host(t, r.vcs[0], "esx01")
	tip := a.awaitTip("PrometheusSaysHot", hot, rules.Active)
	if tip.Summary != "esx01: it is hot" || tip.Severity != rules.Critical {
		t.Errorf("tip is %+v", tip)
	}
	seen := func(name string) func() string {
		return func() string {
			alerts, err := am.Alerts()
			for _, al := range alerts {
				if al.Labels["alertname"] == name && al.Labels["protip_tip"] != "" {
					return ""
				}
			}
			return fmt.Sprintf("no alert %s among %v, %v", name, alerts, err)
		}
	}
	await(t, deadline, seen("PrometheusSaysHot"))
	alerts, err := am.Alerts()
	if err != nil {
		t.Fatal(err)
	}
	for _, al := range alerts {
		if al.Labels["protip_tip"] == tip.ID && (al.Labels["virt_cluster"] != "prod" || al.Labels["host"] != "esx01" || al.Labels["source"] != "vc" ||
			al.GeneratorURL != relay.URL+"/tips/"+tip.ID) {
			t.Errorf("sent as %+v", al)
		}
	}
	await(t, deadline, func() string { // ours came back, and was dropped
		if n := a.scrape().value("protip_alerts_received_total", "result", "own"); n < 1 {
			return fmt.Sprintf("%v of protip's own were received", n)
		}
		return ""
	})
	if n := len(a.actions()); n != 0 {
		t.Fatalf("%d actions before a person said so", n)
	}

	if code, err := a.post("/api/v1/tips/"+tip.ID+"/implement", operatorToken); code != http.StatusOK {
		t.Fatalf("implement: %d %s", code, err)
	}
	act := a.awaitAction("done", func(act remediation.Action) bool { return act.State == remediation.Done })
	if act.VMName != "mover" {
		t.Errorf("moved %s", act.VMName)
	}
	a.awaitTip("PrometheusSaysHot", hot, rules.Resolved)
	await(t, deadline, func() string {
		alerts, err := am.Alerts()
		if len(alerts) != 0 || err != nil {
			return fmt.Sprintf("still firing: %v, %v", alerts, err)
		}
		return ""
	})
	if tips, err := a.Tips(t.Context()); err != nil {
		t.Fatal(err)
	} else {
		for _, tip := range tips {
			if tip.Pack == rules.AlertPack {
				t.Errorf("an alert became a tip of its own: %+v", tip)
			}
		}
	}
}
