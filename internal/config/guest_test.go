package config

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

const guests = `sources:
  - {name: lab, type: vsphere, url: "https://vc", username: u, password_file: password}
  - name: guests
    type: guest
    interval: 15s
    username: scrape
    password_file: password
    tls_config: {ca_file: password}
    targets:
      - {url: "https://web1:9100/metrics", vm: lab/web1}
      - {name: db, url: "http://127.0.0.1:9187/metrics?x=y", vm: lab/folder/db}
    probes:
      - {name: shop, http: "http://shop.example.com/healthz"}
      - {name: pg, tcp: "db1:5432", vm: lab/vm-12}
    services:
      - {type: systemd, names: [nginx.service, 'postgresql@.*']}
      - {type: windows, names: [W3SVC]}
      - {type: metric, metric: pg_up, name: postgres, running: true}
      - {type: metric, metric: http_request_duration_seconds, match: {code: "200"}, labels: [handler], latency: quantile, quantile: 0.95}
      - {type: metric, metric: app_latency_ms, name: app, latency: value, scale: 0.001}
`

func TestGuests(t *testing.T) {
	dir := folder(t)
	cfg, err := parse(dir, guests)
	if err != nil {
		t.Fatal(err)
	}
	src := cfg.Sources[1]
	if src.Timeout != DefaultTimeout || src.Interval != 15*time.Second || src.PerfBatch != 0 {
		t.Errorf("timeout %s, interval %s, perf_batch %d", src.Timeout, src.Interval, src.PerfBatch)
	}
	if a, b := src.Targets[0].DisplayName(), src.Targets[1].DisplayName(); a != "web1:9100" || b != "db" {
		t.Errorf("targets are called %s and %s", a, b)
	}
	if m := src.Services[3]; m.Match["code"] != "200" || m.Labels[0] != "handler" || m.Quantile != 0.95 {
		t.Errorf("mapping is %+v", m)
	}
	again, err := parse(dir, cfg.String())
	if err != nil {
		t.Fatalf("what is printed is refused: %v", err)
	}
	again.at, cfg.at = nil, nil
	if !reflect.DeepEqual(again, cfg) {
		t.Errorf("what is printed means something else:\n%s\n%s", cfg, again)
	}
	quick, err := parse(dir, strings.Replace(guests, "15s", "2s", 1))
	if err != nil || quick.Sources[1].Timeout != time.Second {
		t.Errorf("default timeout of a short interval: %v", err)
	}
}

func TestMachines(t *testing.T) {
	cfg, err := parse(folder(t), `sources:
  - {name: racks, type: machines, interval: 1m, bearer_token_file: password, tls_config: {ca_file: password}, targets: [{url: "https://db1:9100/metrics"}, {url: "https://erp:9182/metrics", name: erp}]}
`)
	if err != nil {
		t.Fatal(err)
	}
	if src := cfg.Sources[0]; src.Timeout != DefaultTimeout || len(src.Targets) != 2 || src.Targets[0].DisplayName() != "db1:9100" {
		t.Errorf("%+v", src)
	}
}

// TestGuestErrors holds every message against a golden file.
func TestGuestErrors(t *testing.T) {
	dir := folder(t)
	const head = "sources:\n  - {name: lab, type: vsphere, url: \"https://vc\", username: u, password_file: password}\n  - name: g\n    type: guest\n"
	for name, text := range map[string]string{
		"guest nothing": head,
		"guest keys":    head + "    url: https://vc\n    acting: {username: u, password_file: password}\n    targets: [{url: \"http://a:9100\"}]\n",
		"guest targets": head + `    timeout: 30s
    bearer_token_file: password
    targets:
      - {url: "http://user:hunter2@a:9100/metrics"}
      - {url: "ftp://b/metrics"}
      - {url: "http://c:9100/metrics"}
      - {url: "https://d:9100/metrics", vm: lap/web}
      - {url: "https://d:9100/other", vm: web}
      - {name: e, vm: g/web}
      - {url: "https://f:9100/other", vm: g/web}
      - {url: "::"}
    services: [{type: systemd, names: [a]}]
`,
		"guest probes": head + `    probes:
      - {name: a}
      - {name: b, tcp: "x:1", http: "http://x"}
      - {tcp: "x:1"}
      - {name: d, tcp: "x"}
      - {name: e, tcp: "x:99999"}
      - {name: e, tcp: "x:1"}
`,
		"guest services": head + `    targets: [{url: "http://a:9100/metrics"}]
    services:
      - {type: systemd}
      - {type: systemmd, names: [a]}
      - {type: systemd, names: ['(', ''], metric: x}
      - {type: metric, names: [a]}
      - {type: metric, metric: a-b, name: x, latency: value, running: true}
      - {type: metric, metric: a, name: x, latency: median}
      - {type: metric, metric: a, name: x, latency: quantile}
      - {type: metric, metric: a, name: x, latency: mean, quantile: 0.5, scale: -1}
      - {type: metric, metric: a, labels: [b-c], match: {d-e: x}, running: true}
`,
		"machines": strings.Replace(head, "type: guest", "type: machines", 1) + `    probes: [{name: a, tcp: "x:1"}]
    services: [{type: systemd, names: [a]}]
    username: u
    password_file: password
    interval: 1m
    timeout: 2m
    targets:
      - {url: "https://a:9100/metrics"}
      - {url: "https://a:9100/other"}
      - {url: "http://b:9100/metrics"}
      - {url: "https://c:9100/metrics", vm: lab/web}
`,
		"machines nothing": strings.Replace(head, "type: guest", "type: machines", 1),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(dir, text)
			if err == nil {
				t.Fatal("no error")
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Error("a password is printed")
			}
			golden(t, strings.ReplaceAll(name, " ", "-")+".golden", text+"====\n"+strings.ReplaceAll(err.Error(), dir+"/", "")+"\n")
		})
	}
}
