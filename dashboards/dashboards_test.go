package dashboards

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/protip/protip/internal/history/promql"
)

var update = flag.Bool("update", false, "write the JSON anew")

// TestJSONIsWhatIsWritten: the committed files are what the generator writes, and there are no others.
func TestJSONIsWhatIsWritten(t *testing.T) {
	want := map[string]bool{}
	for _, d := range All() {
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

// TestConventions: every panel has a title, a description and a unit, of every query PromQL can make sense, every metric is
// documented, a variable that is used is declared, and pages link to pages that are.
func TestConventions(t *testing.T) {
	metrics, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	uids := map[string]bool{}
	for _, d := range All() {
		if uids[d.UID] {
			t.Errorf("two pages are %s", d.UID)
		}
		uids[d.UID] = true
	}
	for _, d := range All() {
		declared := map[string]bool{"datasource": true, "__rate_interval": true, "__range": true}
		for _, v := range d.Variables {
			declared[v.Name] = true
		}
		titles := map[string]bool{}
		for _, r := range d.Rows {
			for _, p := range r.Panels {
				if p.Title == "" || p.About == "" || p.Unit == "" || len(p.Targets) == 0 || titles[p.Title] {
					t.Errorf("%s: %q is not whole, or named twice", d.UID, p.Title)
				}
				titles[p.Title] = true
				for label, to := range p.Links {
					if m := regexp.MustCompile(`^/d/([a-z-]+)\?`).FindStringSubmatch(to); m == nil || !uids[m[1]] {
						t.Errorf("%s: %s: %s leads to %s", d.UID, p.Title, label, to)
					}
				}
			}
		}
		for _, expr := range d.Uses() {
			for _, v := range regexp.MustCompile(`\$([a-z_]+)`).FindAllStringSubmatch(expr, -1) {
				if !declared[v[1]] {
					t.Errorf("%s: variable %s is not declared: %s", d.UID, v[1], expr)
				}
			}
			plain := strings.NewReplacer("$__rate_interval", "5m", "$__range", "1h").Replace(expr)
			if err := promql.Check(plain); err != nil {
				t.Errorf("%s: %v", d.UID, err)
				continue
			}
			names, err := promql.Selectors(plain)
			if err != nil {
				t.Errorf("%s: %v", d.UID, err)
			}
			for _, name := range names {
				base := strings.TrimSuffix(strings.TrimSuffix(name, "_sum"), "_count")
				if !strings.HasPrefix(name, "process_") && !strings.Contains(string(metrics), "`"+base+"`") && !strings.Contains(string(metrics), "`"+name+"`") {
					t.Errorf("%s: no metric %s in docs/metrics.md", d.UID, name)
				}
			}
		}
	}
}
