// Package house holds the rules of the whole repository: who may import whom, what may lie where, what the docs promise.
// It promises to name the import, the file or the line that breaks a rule.
// It must not be imported: it has tests only.
package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/protip/protip/"

// wall is one rule of imports: packages that are built of nothing listed. Names are relative to the module, and stand for the
// package and those below it; * stands for one element.
type wall struct {
	name string // the same in .golangci.yml
	from []string
	deny []string
}

var acting = []string{"rules", "remediation", "internal/store", "internal/web", "internal/app"}

// walls are held over everything a package is built of, not only over its own imports.
var walls = []wall{
	{"collectors-only-watch", []string{"collector", "internal/config", "internal/platform", "cmd/protip-exporter"}, acting},
	{"collectors-remember-nothing", []string{"collector", "internal/config", "internal/platform", "cmd/protip-exporter"}, []string{"internal/history"}},
	{"config-is-plain", []string{"internal/config"}, []string{"collector", "internal/platform", "internal/inventory", "internal/placement", "internal/sim"}},
	{"inventory-is-the-bottom", []string{"internal/inventory", "internal/clock"}, []string{"cmd", "collector", "rules", "remediation", "internal/placement", "internal/platform", "internal/config", "internal/store", "internal/web", "internal/app", "internal/sim"}},
	{"placement-is-pure", []string{"internal/placement"}, []string{"cmd", "collector", "rules", "remediation", "internal/platform", "internal/config", "internal/store", "internal/web", "internal/app", "internal/sim", "internal/clock"}},
	{"rules-only-tell", []string{"rules"}, []string{"cmd", "collector", "remediation", "internal/platform", "internal/store", "internal/web", "internal/app", "internal/sim"}},
	{"remediation-is-told", []string{"remediation"}, []string{"cmd", "collector", "rules", "internal/store", "internal/web", "internal/app", "internal/sim"}},
	{"platforms-know-no-use", []string{"internal/platform"}, []string{"cmd", "collector", "rules", "remediation", "internal/config", "internal/store", "internal/web", "internal/app", "internal/sim"}},
	{"store-and-web-are-wired", []string{"internal/store", "internal/web"}, []string{"cmd", "collector", "internal/app", "internal/platform", "internal/sim"}},
	{"history-only-answers", []string{"internal/history"}, []string{"cmd", "collector", "rules", "remediation", "internal/platform", "internal/config", "internal/store", "internal/web", "internal/app", "internal/sim"}},
	{"app-has-no-simulator", []string{"internal/app"}, []string{"cmd", "internal/sim"}},
	{"simulator-stands-alone", []string{"internal/sim"}, []string{"cmd", "collector", "rules", "remediation", "internal/store", "internal/web", "internal/app", "internal/inventory", "internal/platform"}},
	{"tests-are-tests", []string{"cmd", "collector", "rules", "remediation", "internal"}, []string{"test"}},
}

// pure are packages that take values and give values. They may import these of the standard library and nothing else of it.
var pure = map[string][]string{
	"internal/placement": {"cmp", "container/heap", "errors", "fmt", "iter", "maps", "math", "math/bits", "slices", "sort", "strconv", "strings"},
	"internal/inventory": {"cmp", "errors", "fmt", "iter", "maps", "math", "reflect", "slices", "strings", "sync", "sync/atomic", "time"},
}

// pkg is what go list tells of a package.
type pkg struct {
	ImportPath string
	Dir        string
	Name       string
	Imports    []string
	Deps       []string
	GoFiles    []string
	Error      *struct{ Err string }
}

// packages are the packages of the module, without their tests.
func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,Name,Imports,Deps,GoFiles,Error", "./...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var list []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	if len(list) < 10 {
		t.Fatalf("go list named %d packages only", len(list))
	}
	return list
}

// within reports whether a package, relative to the module, is one that the name stands for.
func within(rel, name string) bool {
	want, have := strings.Split(name, "/"), strings.Split(rel, "/")
	if len(have) < len(want) {
		return false
	}
	return slices.EqualFunc(have[:len(want)], want, func(h, w string) bool { return w == "*" || h == w })
}

func withinAny(rel string, names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return within(rel, name) })
}

func TestImportsPointDown(t *testing.T) {
	for _, p := range packages(t) {
		from := strings.TrimPrefix(p.ImportPath, module)
		for _, w := range walls {
			if !withinAny(from, w.from) {
				continue
			}
			for _, dep := range p.Deps {
				to, ours := strings.CutPrefix(dep, module)
				if ours && withinAny(to, w.deny) && !withinAny(to, w.from) {
					t.Errorf("%s: %s is built of %s", w.name, from, to)
				}
			}
		}
	}
}

// protocols are the packages below internal/platform that speak what several platforms understand, and those platforms.
var protocols = map[string][]string{
	"winrm": {"hyperv", "virtualserver", "guest"},
}

// TestPlatformsDoNotMeet holds that what is made for one platform knows no other, and that watching and acting do not meet.
func TestPlatformsDoNotMeet(t *testing.T) {
	trees := []string{"collector", "remediation", "internal/platform"}
	shared := []string{"build", "exposition"} // of collector: not platforms
	for _, p := range packages(t) {
		from := strings.TrimPrefix(p.ImportPath, module)
		own := platformOf(from, trees, shared)
		if own == "" {
			continue
		}
		for _, dep := range p.Deps {
			to, ours := strings.CutPrefix(dep, module)
			if other := platformOf(to, trees, shared); ours && other != "" && other != own && !slices.Contains(protocols[other], own) {
				t.Errorf("%s, of %s, is built of %s", from, own, to)
			}
		}
	}
}

// platformOf is the element of a package's path that names its platform, empty if it is of none.
func platformOf(rel string, trees, shared []string) string {
	for _, tree := range trees {
		if below, ok := strings.CutPrefix(rel, tree+"/"); ok {
			if name, _, _ := strings.Cut(below, "/"); !slices.Contains(shared, name) && !strings.HasSuffix(name, "test") {
				return name
			}
		}
	}
	return ""
}

func TestPurePackagesImportNothingElse(t *testing.T) {
	for _, p := range packages(t) {
		allowed, ok := pure[strings.TrimPrefix(p.ImportPath, module)]
		if !ok {
			continue
		}
		for _, imported := range p.Imports {
			rel, ours := strings.CutPrefix(imported, module)
			if !slices.Contains(allowed, imported) && !(ours && rel == "internal/inventory") {
				t.Errorf("%s imports %s", p.ImportPath, imported)
			}
		}
	}
}

// TestFlagsLiveInCommands holds that no package but a command parses a command line.
func TestFlagsLiveInCommands(t *testing.T) {
	for _, p := range packages(t) {
		if within(strings.TrimPrefix(p.ImportPath, module), "cmd") {
			continue
		}
		for _, imported := range p.Imports {
			if imported == "flag" || strings.HasPrefix(imported, "github.com/alecthomas/kingpin") || path.Base(imported) == "kingpinflag" {
				t.Errorf("%s imports %s", p.ImportPath, imported)
			}
		}
	}
}
