// Package alerts_test holds the shipped alerts against promtool, amtool, their runbooks and the metrics there are.
package alerts_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/protip/protip/test/prom"
)

type file struct {
	Groups []struct {
		Rules []struct {
			Alert, Record, Expr string
			Labels, Annotations map[string]string
		}
	}
}

func load(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err == nil {
		err = yaml.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func TestPromtool(t *testing.T) {
	tool := prom.Tool(t, "promtool")
	for _, args := range [][]string{
		{"check", "rules", "--lint=all", "--lint-fatal", "protip.yml", "recording.yml"},
		{"test", "rules", "tests.yml"},
	} {
		if out, err := exec.Command(tool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// TestInhibition holds the inhibit rules against amtool, and their names against those of alerts and shipped rules.
func TestInhibition(t *testing.T) {
	text, err := os.ReadFile("inhibit.yml")
	if err != nil {
		t.Fatal(err)
	}
	whole := filepath.Join(t.TempDir(), "alertmanager.yml")
	if err := os.WriteFile(whole, append([]byte("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"), text...), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(prom.Tool(t, "amtool"), "check-config", whole).CombinedOutput(); err != nil {
		t.Errorf("amtool: %v\n%s", err, out)
	}
	known := map[string]bool{}
	var rules file
	load(t, "protip.yml", &rules)
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			known[r.Alert] = true
		}
	}
	packs, _ := filepath.Glob("../rules/packs/*.yml")
	for _, pack := range packs {
		var p struct{ Rules []struct{ Name string } }
		load(t, pack, &p)
		for _, r := range p.Rules {
			known[r.Name] = true
		}
	}
	for _, m := range regexp.MustCompile(`alertname =~? "?([A-Za-z|]+)`).FindAllStringSubmatch(string(text), -1) {
		for name := range strings.SplitSeq(m[1], "|") {
			if !known[name] {
				t.Errorf("inhibit.yml names %s, which is no alert and no rule", name)
			}
		}
	}
}

// TestEveryAlertIsWhole: a severity, words, a runbook, a test that fires and one that does not, and metrics that are documented.
func TestEveryAlertIsWhole(t *testing.T) {
	var rules file
	load(t, "protip.yml", &rules)
	var tests struct {
		Tests []struct {
			Cases []struct {
				Alertname string     `yaml:"alertname"`
				Exp       []struct{} `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	load(t, "tests.yml", &tests)
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, test := range tests.Tests {
		for _, c := range test.Cases {
			if len(c.Exp) > 0 {
				fires[c.Alertname] = true
			} else {
				silent[c.Alertname] = true
			}
		}
	}
	metrics, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	runbooks := map[string]bool{}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			runbooks[r.Alert+".md"] = true
			if !regexp.MustCompile(`^(critical|warning|info)$`).MatchString(r.Labels["severity"]) || r.Annotations["summary"] == "" ||
				r.Annotations["description"] == "" || !strings.HasSuffix(r.Annotations["runbook_url"], "/docs/runbooks/"+r.Alert+".md") {
				t.Errorf("%s: %v %v", r.Alert, r.Labels, r.Annotations)
			}
			if strings.Contains(r.Annotations["summary"], "{{") {
				t.Errorf("%s: a summary is the same for each", r.Alert)
			}
			if !fires[r.Alert] || !silent[r.Alert] {
				t.Errorf("%s: tests fire %v, stay silent %v", r.Alert, fires[r.Alert], silent[r.Alert])
			}
			book, err := os.ReadFile("../docs/runbooks/" + r.Alert + ".md")
			if err != nil || !strings.Contains(string(book), r.Expr) {
				t.Errorf("%s: runbook without its expression: %v", r.Alert, err)
			}
			for _, metric := range regexp.MustCompile(`\b(virt|protip)_[a-z0-9_]+`).FindAllString(r.Expr, -1) {
				if !strings.Contains(string(metrics), "`"+metric+"`") {
					t.Errorf("%s: no metric %s in docs/metrics.md", r.Alert, metric)
				}
			}
		}
	}
	there, _ := filepath.Glob("../docs/runbooks/*.md")
	for _, path := range there {
		if !runbooks[filepath.Base(path)] {
			t.Errorf("%s is of no alert", path)
		}
	}
}
