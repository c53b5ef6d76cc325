package dashboards_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/protip/protip/dashboards"
	"github.com/protip/protip/dashboards/check"
)

var update = flag.Bool("update", false, "write the JSON anew")

// TestJSONIsWhatIsWritten: the committed files are what the generator writes, and there are no others.
func TestJSONIsWhatIsWritten(t *testing.T) {
	want := map[string]bool{}
	for _, d := range dashboards.All() {
		b, err := d.JSON()
		if err != nil {
			t.Fatal(err)
		}
		file := d.UID + ".json"
		want[file] = true
		if *update {
			if err := os.WriteFile(file, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%s is not what is written (%v): go test ./dashboards -update", file, err)
		}
	}
	files, _ := filepath.Glob("*.json")
	for _, f := range files {
		if !want[f] {
			t.Errorf("%s is of no dashboard", f)
		}
	}
}

// TestConventions: every page keeps the conventions, and asks for no metric that is not documented.
func TestConventions(t *testing.T) {
	pages := dashboards.All()
	uids := map[string]bool{}
	for _, d := range pages {
		if uids[d.UID] {
			t.Errorf("two pages are %s", d.UID)
		}
		uids[d.UID] = true
		for _, p := range check.Conventions(d, pages, documented(t)) {
			t.Error(p)
		}
	}
}

// TestConventionsAreHeld: what breaks one is named.
func TestConventionsAreHeld(t *testing.T) {
	pages := dashboards.All()
	good := dashboards.Panel{
		Title: "CPU", About: "What is used.", Kind: dashboards.Lines, Unit: "percentunit", Moves: dashboards.Load,
		Targets: []dashboards.Target{{Expr: `virt_host_cpu_usage_ratio{source="$source"}`, Legend: "{{host}}"}},
	}
	for _, tc := range []struct {
		name, want string
		change     func(*dashboards.Panel)
	}{
		{"as it should be", "", func(*dashboards.Panel) {}},
		{"no title", "no title", func(p *dashboards.Panel) { p.Title = "" }},
		{"no description", "no description", func(p *dashboards.Panel) { p.About = "" }},
		{"no unit", "no unit", func(p *dashboards.Panel) { p.Unit = "" }},
		{"no query", "no query", func(p *dashboards.Panel) { p.Targets = nil }},
		{"no scenario", "no scenario", func(p *dashboards.Panel) { p.Moves = "" }},
		{"no legend", "no legend", func(p *dashboards.Panel) { p.Targets[0].Legend = "" }},
		{"a variable that is none", "variable cluster is not declared", func(p *dashboards.Panel) { p.Targets[0].Expr = `virt_host_vms{virt_cluster="$cluster"}` }},
		{"a metric that is none", "no metric virt_host_cpu_usage_ratoi", func(p *dashboards.Panel) { p.Targets[0].Expr = `virt_host_cpu_usage_ratoi` }},
		{"no PromQL", "", func(p *dashboards.Panel) { p.Targets[0].Expr = `sum(` }},
		{"a bare counter", "counter virt_host_disk_read_bytes_total as it is", func(p *dashboards.Panel) { p.Targets[0].Expr = `sum(virt_host_disk_read_bytes_total)` }},
		{"a rate over a range of its own", "a rate over 5m", func(p *dashboards.Panel) { p.Targets[0].Expr = `rate(virt_host_disk_read_bytes_total[5m])` }},
		{"a link to nowhere", "which is no page", func(p *dashboards.Panel) { p.Link = dashboards.Link{Label: "host", To: "protip-hsot"} }},
		{"a link that sets nothing", "sets vm, which", func(p *dashboards.Panel) {
			p.Link = dashboards.Link{Label: "host", To: "protip-host", Variables: []string{"vm"}}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := good
			p.Targets = slices.Clone(good.Targets)
			tc.change(&p)
			page := dashboards.Dashboard{UID: "x", Variables: []dashboards.Variable{{Name: "source"}}, Rows: []dashboards.Row{{Panels: []dashboards.Panel{p}}}}
			problems := check.Conventions(page, pages, documented(t))
			if fmt.Sprint(problems) == "[]" != (tc.name == "as it should be") || !strings.Contains(fmt.Sprint(problems), tc.want) {
				t.Errorf("problems are %v", problems)
			}
		})
	}
}

// documented says whether docs/metrics.md has a metric.
func documented(t *testing.T) func(string) bool {
	t.Helper()
	text, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	return func(name string) bool {
		base := strings.TrimSuffix(strings.TrimSuffix(name, "_sum"), "_count")
		return strings.HasPrefix(name, "process_") || strings.Contains(string(text), "`"+base+"`") || strings.Contains(string(text), "`"+name+"`")
	}
}

// TestDrillDown: from the fleet one comes to a VM by links alone.
func TestDrillDown(t *testing.T) {
	leads := map[string][]string{}
	for _, d := range dashboards.All() {
		for _, r := range d.Rows {
			for _, p := range r.Panels {
				leads[d.UID] = append(leads[d.UID], p.Link.To)
			}
		}
	}
	for _, step := range [][2]string{{"protip-fleet", "protip-cluster"}, {"protip-cluster", "protip-host"}, {"protip-host", "protip-vm"}, {"protip-vm", "protip-host"}, {"protip-host", "protip-cluster"}} {
		if !slices.Contains(leads[step[0]], step[1]) {
			t.Errorf("nothing leads from %s to %s", step[0], step[1])
		}
	}
}

// TestProvisioning: the files are YAML of the form that Grafana reads, and name the pages' folder as the documentation does.
func TestProvisioning(t *testing.T) {
	read := func(name string, into any) {
		text, err := os.ReadFile(filepath.Join("provisioning", name, "protip.yml"))
		if err == nil {
			dec := yaml.NewDecoder(bytes.NewReader(text))
			dec.KnownFields(true)
			err = dec.Decode(into)
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	var pages struct {
		APIVersion int `yaml:"apiVersion"`
		Providers  []struct {
			Name, Folder, Type string
			AllowUIUpdates     bool `yaml:"allowUiUpdates"`
			Options            struct{ Path string }
		}
	}
	read("dashboards", &pages)
	docs, err := os.ReadFile("../docs/dashboards.md")
	if err != nil {
		t.Fatal(err)
	}
	if p := pages.Providers; pages.APIVersion != 1 || len(p) != 1 || p[0].Type != "file" || !strings.Contains(string(docs), p[0].Options.Path) {
		t.Errorf("pages are provisioned as %+v", pages)
	}
	var sources struct {
		APIVersion  int `yaml:"apiVersion"`
		Datasources []struct {
			Name, Type, Access, URL string
			JSONData                struct {
				TimeInterval string `yaml:"timeInterval"`
				HTTPMethod   string `yaml:"httpMethod"`
			} `yaml:"jsonData"`
		}
	}
	read("datasources", &sources)
	if sources.APIVersion != 1 || len(sources.Datasources) != 2 {
		t.Errorf("data sources are %+v", sources)
	}
	for _, s := range sources.Datasources {
		if s.Type != "prometheus" || !strings.Contains(string(docs), strings.TrimPrefix(s.URL, "http://127.0.0.1")) {
			t.Errorf("data source %+v", s)
		}
	}
}
