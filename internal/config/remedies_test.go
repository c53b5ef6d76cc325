package config

import (
	"strings"
	"testing"
	"time"
)

func TestRemedies(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	cfg, err := parse(dir, oneSource+`remediation:
  mode: manual
  severity: warning
  clusters:
    - {source: lab, severity: critical}
    - {source: lab, cluster: prod, mode: off}
  windows:
    - {days: [sat, sun], from: "22:00", to: "05:00", time_zone: Europe/Berlin}
    - {from: "00:00", to: "24:00"}
  webhooks:
    - {name: on-call, url: https://hooks.example.com/protip}
    - {name: near, url: "http://127.0.0.1:9000/", timeout: 2s}
`)
	if err != nil {
		t.Fatal(err)
	}
	r := cfg.Remediation
	days, from, to, zone, err := r.Windows[0].Hours()
	if err != nil || !days[time.Saturday] || days[time.Monday] || from != 22*60 || to != 29*60 || zone.String() != "Europe/Berlin" {
		t.Errorf("%v %d %d %v %v", days, from, to, zone, err)
	}
	if days, from, to, zone, err := r.Windows[1].Hours(); err != nil || !days[time.Wednesday] || from != 0 || to != 24*60 || zone != time.UTC {
		t.Errorf("%v %d %d %v %v", days, from, to, zone, err)
	}
	if hook, ok := r.WebhookOf("on-call"); !ok || hook.Timeout != DefaultWebhookTimeout {
		t.Errorf("%+v", hook)
	}
	if _, ok := r.WebhookOf("other"); ok {
		t.Error("a webhook that is not there")
	}
	if again, err := parse(dir, cfg.String()); err != nil || again.String() != cfg.String() {
		t.Errorf("the configuration in force does not read back: %v\n%s", err, cfg)
	}
}

func TestRemediesErrors(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	for want, in := range map[string]string{
		"remediation.severity is":                 "severity: fatal",
		"names the source \"other\"":              "clusters: [{source: other, mode: off}]",
		"it changes nothing":                      "clusters: [{source: lab}]",
		"is listed twice":                         "clusters: [{source: lab, mode: off}, {source: lab, severity: info}]",
		"clusters[0].mode is":                     "clusters: [{source: lab, mode: automatic}]",
		"days: \"someday\" is none of":            `windows: [{days: [someday], from: "22:00", to: "23:00"}]`,
		"\"25:00\" is no time of the day":         `windows: [{from: "25:00", to: "23:00"}]`,
		"\"\" is no time of the day":              `windows: [{from: "22:00"}]`,
		"unknown time zone Mars/Olympus":          `windows: [{from: "22:00", to: "23:00", time_zone: Mars/Olympus}]`,
		"webhooks[0].url is plain http":           `webhooks: [{name: a, url: "http://hooks.example.com/"}]`,
		"holds a user, a password":                `webhooks: [{name: a, url: "https://me:word@hooks.example.com/"}]`,
		"webhooks[0].url is not a URL":            `webhooks: [{name: a, url: "ftp://hooks.example.com/"}]`,
		"webhook \"a\" is named twice":            `webhooks: [{name: a, url: "https://x.example/"}, {name: a, url: "https://y.example/"}]`,
		"webhooks[0].name holds more than":        `webhooks: [{name: "a b", url: "https://x.example/"}]`,
		"webhooks[0].timeout is 0s":               `webhooks: [{name: a, url: "https://x.example/", timeout: 0s}]`,
		"webhooks[0].bearer_token_file":           `webhooks: [{name: a, url: "https://x.example/", bearer_token_file: nowhere}]`,
		"remediation.webhooks[0].name is missing": `webhooks: [{url: "https://x.example/"}]`,
	} {
		_, err := parse(dir, oneSource+"remediation:\n  mode: manual\n  "+in+"\n")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
	}
}
