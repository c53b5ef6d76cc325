package config

import (
	"strings"
	"testing"
	"time"
)

const oneSource = "sources: [{name: lab, type: vsphere, url: \"https://vc\", username: u, password_file: password}]\n"

func TestHistory(t *testing.T) {
	dir := folder(t)
	for _, tc := range []struct {
		name, text string
		ok         func(History) bool
	}{
		{"left out", "", func(h History) bool {
			return h.Enabled && h.Retention == 15*24*time.Hour && h.RollupRetention == 400*24*time.Hour && h.MaxBytes() == 0 && h.URL == ""
		}},
		{"off", "history: {enabled: false}", func(h History) bool { return !h.Enabled }},
		{"sized", "history: {dir: past, retention: 30d, max_size: 20GB}", func(h History) bool {
			return h.Retention == 30*24*time.Hour && h.MaxBytes() == 20<<30 && h.Dir == dir+"/past"
		}},
		{
			"server", "history: {url: \"http://prometheus:9090/p\", headers: {X-Scope-OrgID: team-a}, matchers: {replica: a}}",
			func(h History) bool {
				return h.Retention == 0 && h.HTTPClient().HTTPHeaders.Headers["X-Scope-OrgID"].Values[0] == "team-a" && h.Matchers["replica"] == "a"
			},
		},
		{"server with password", "history: {url: \"https://prometheus\", username: u, password_file: password}", func(h History) bool {
			c := h.HTTPClient()
			return c.BasicAuth.Username == "u" && strings.HasPrefix(c.BasicAuth.PasswordFile, dir) && c.Validate() == nil
		}},
		{"server with token", "history: {url: \"https://prometheus\", bearer_token_file: password}", func(h History) bool {
			c := h.HTTPClient()
			return c.Authorization.Type == "Bearer" && c.Authorization.CredentialsFile != "" && c.Validate() == nil
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg, err := parse(dir, oneSource+tc.text)
			if err != nil {
				t.Fatal(err)
			}
			if !tc.ok(cfg.History) {
				t.Errorf("%+v", cfg.History)
			}
			again, err := parse(dir, cfg.String())
			if err != nil || again.String() != cfg.String() {
				t.Errorf("it does not read what it prints: %v\n%s", err, cfg)
			}
		})
	}
}

func TestHistoryErrors(t *testing.T) {
	dir := folder(t)
	for name, text := range map[string]string{
		"history embedded": `history:
  retention: 1h
  rollup_retention: 30m
  max_size: 20 bananas
  headers: {X-Scope-OrgID: a}
  timeout: 1ms
  max_samples: 1
`,
		"history server": `history:
  url: http://user:hunter2@prometheus/
  retention: 30d
  username: u
  bearer_token_file: password
  headers: {"X Y": a, Authorization: hunter2}
  matchers: {a-b: c}
`,
		"history plain":  "history: {url: \"http://prometheus\", username: u, password_file: password}\n",
		"history no url": "history: {url: prometheus:9090, password_file: password}\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(dir, oneSource+text)
			if err == nil {
				t.Fatal("no error")
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Error("a password is printed")
			}
			golden(t, strings.ReplaceAll(name, " ", "-")+".golden", oneSource+text+"====\n"+strings.ReplaceAll(err.Error(), dir+"/", "")+"\n")
		})
	}
}
