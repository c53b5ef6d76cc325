package rules

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/protip/protip/internal/inventory"
)

// fieldRow is a field's line in docs/packs.md.
func fieldRow(f *field) string {
	typ := map[fieldType]string{number: "number", text: "text", truth: "true or false"}[f.typ]
	if f.sample {
		typ = f.metric.Desc().Unit
	}
	return fmt.Sprintf("| `%s` | %s | %s |", f.path, typ, f.help)
}

// TestDocs: docs/packs.md names every field, and its example is a pack that passes its own tests.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../docs/packs.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, f := range vocabulary() {
		rows = append(rows, fieldRow(f))
	}
	slices.Sort(rows)
	if table := regexp.MustCompile("(?m)(^\\| `(cluster|host|vm|datastore|service)\\.[a-z_]+` \\|.*\n)+"); *update {
		text = table.ReplaceAllLiteral(text, []byte(strings.Join(rows, "\n")+"\n"))
		if err := os.WriteFile("../docs/packs.md", text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(string(text), strings.Join(rows, "\n")) {
		t.Errorf("docs/packs.md should hold:\n%s", strings.Join(rows, "\n"))
	}
	examples := regexp.MustCompile("(?s)```yaml\n(pack:.*?)```").FindAllSubmatch(text, -1)
	if len(examples) == 0 {
		t.Fatal("no example")
	}
	for _, example := range examples {
		for _, p := range mustLoad(t, string(example[1])).Packs() {
			if err := p.Test(nil); err != nil || p.Tests() == 0 {
				t.Errorf("%d tests: %v", p.Tests(), err)
			}
		}
	}
}

func TestPackTestsCanFail(t *testing.T) {
	text := hostRule("host.cpu_usage_ratio > config.hot", "") + `tests:
  - name: wrong in every way
    samples: {host.cpu_usage_ratio: "0.9x2 _x3 0.1"}
    want:
      - {at: 0s, tips: []}
      - {at: 1m, tips: [{rule: R, state: pending}]}
      - {at: 2m, tips: [{rule: R, state: active, summary: cold}]}
      - {at: 7m, tips: [{rule: R, state: active}]}
  - name: right
    samples: {host.cpu_usage_ratio: "0.1"}
    want: [{at: 0s, tips: []}]
  - name: nothing there
    samples: {host.cpu_usage_ratio: "0.1"}
    want: [{at: 0s, tips: [{rule: R, state: active}]}]
`
	p, _ := mustLoad(t, text).Pack("p")
	err := p.Test(nil)
	if err == nil {
		t.Fatal("no error")
	}
	want := `p.yml:16:9: test "wrong in every way" at 0s: R is active, want no tip
p.yml:17:9: test "wrong in every way" at 1m: R is active, want pending
p.yml:18:9: test "wrong in every way" at 2m: R says "host1 90%", want "cold"
p.yml:19:9: test "wrong in every way" at 7m: R is resolved, want active
p.yml:25:12: test "nothing there" at 0s: R has no tip, want one active`
	if err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// TestFactsOfTests: every fact that a pack's test can set is read back as it was set.
func TestFactsOfTests(t *testing.T) {
	for path, f := range vocabulary() {
		if f.sample {
			continue
		}
		value := map[fieldType]any{number: 3.0, text: "x", truth: true}[f.typ]
		s := packTest{facts: map[*field]any{f: value}}.fleet()
		s.around = horizon{facts: true}
		if got, _, ok := f.read(s, horizon{facts: true}); !ok || got != value {
			t.Errorf("%s is %v, want %v", path, got, value)
		}
	}
	want := len(facts()) + len(serviceFacts()) + len(datastoreFacts())
	for _, kind := range []inventory.Kind{
		inventory.KindCluster, inventory.KindHost, inventory.KindVM, inventory.KindDatastore, inventory.KindService,
	} {
		want += len(inventory.MetricsOf(kind))
	}
	if len(vocabulary()) != want {
		t.Error("two fields have one name")
	}
}
