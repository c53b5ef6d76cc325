package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is the repository, as seen from this package.
const root = "../.."

// eachFile parses every Go file of the module that is not a test.
func eachFile(t *testing.T, visit func(rel string, fset *token.FileSet, file *ast.File)) {
	t.Helper()
	for _, p := range packages(t) {
		rel := strings.TrimPrefix(p.ImportPath, module)
		for _, name := range p.GoFiles {
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				t.Errorf("%s: %v", rel, err)
				continue
			}
			visit(rel, fset, file)
		}
	}
}

// TestNoInit holds that wiring is explicit: nothing happens because a package is linked.
func TestNoInit(t *testing.T) {
	eachFile(t, func(_ string, fset *token.FileSet, file *ast.File) {
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: an init function", fset.Position(f.Pos()))
			}
		}
	})
}

// TestNoClockInPureCode holds that what decides is told the time.
func TestNoClockInPureCode(t *testing.T) {
	timeless := []string{"rules", "internal/placement", "internal/inventory"}
	reading := []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}
	eachFile(t, func(rel string, fset *token.FileSet, file *ast.File) {
		if !withinAny(rel, timeless) {
			return
		}
		ast.Inspect(file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "time" && slices.Contains(reading, sel.Sel.Name) {
				t.Errorf("%s: time.%s in a package that is told the time", fset.Position(sel.Pos()), sel.Sel.Name)
			}
			return true
		})
	})
}

// TestNothingIsLeftUndone holds that no comment puts work off.
func TestNothingIsLeftUndone(t *testing.T) {
	later := regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`)
	eachFile(t, func(_ string, fset *token.FileSet, file *ast.File) {
		for _, group := range file.Comments {
			for _, c := range group.List {
				if later.MatchString(c.Text) {
					t.Errorf("%s: %s", fset.Position(c.Pos()), c.Text)
				}
			}
		}
	})
}

// TestPackagesAreDocumented holds that each package says what it is, in one of its files.
func TestPackagesAreDocumented(t *testing.T) {
	documented := map[string]bool{}
	eachFile(t, func(rel string, _ *token.FileSet, file *ast.File) {
		documented[rel] = documented[rel] || file.Doc != nil
	})
	for rel, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment", rel)
		}
	}
}

// TestTopLevel holds that the repository's top has no folder that the house does not know.
func TestTopLevel(t *testing.T) {
	known := []string{"cmd", "collector", "rules", "remediation", "dashboards", "alerts", "internal", "docs", "test", ".ci"}
	cmd := exec.Command("git", "ls-files")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("not a git checkout: %v", err)
	}
	seen := map[string]bool{}
	for file := range strings.Lines(string(out)) {
		if top, _, below := strings.Cut(file, "/"); below && !seen[top] {
			seen[top] = true
			if !slices.Contains(known, top) {
				t.Errorf("folder %s is not one of %s", top, strings.Join(known, " "))
			}
		}
	}
	if !seen["cmd"] {
		t.Error("git ls-files names nothing below cmd: the check would see nothing")
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
