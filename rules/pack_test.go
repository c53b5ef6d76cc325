package rules

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestErrors holds every message against testdata/errors: one pack, one golden file.
func TestErrors(t *testing.T) {
	packs, err := filepath.Glob("testdata/errors/*.yml")
	if err != nil || len(packs) == 0 {
		t.Fatal("no packs", err)
	}
	for _, path := range packs {
		t.Run(filepath.Base(path), func(t *testing.T) {
			file, err := ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			file.Name = filepath.Base(path)
			_, err = Load([]File{file}, Options{Version: "0.1.0"})
			if err == nil {
				t.Fatal("no error")
			}
			golden := strings.TrimSuffix(path, ".yml") + ".golden"
			got := err.Error() + "\n"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// packText is a pack of one rule with the given lines.
func packText(lines ...string) string {
	return "pack: p\nversion: 1.0.0\ndescription: d\nconfig: {hot: 0.85, calm: 0.7, on: true, word: a}\nrules:\n  - name: R\n    " +
		strings.Join(lines, "\n    ") + "\n"
}

func hostRule(when, clear string) string {
	lines := []string{"on: host", "severity: warning", "summary: '{{host.name}} {{percent(host.cpu_usage_ratio)}}'", "remedy: {action: rebalance-host, cpu_below: 0.6}", "when: " + when}
	if clear != "" {
		lines = append(lines, "clear: "+clear)
	}
	return packText(lines...)
}

func mustLoad(t testing.TB, text string) *Set {
	t.Helper()
	s, err := Load([]File{{"p.yml", []byte(text)}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLoad(t *testing.T) {
	text := hostRule("host.cpu_usage_ratio > config.hot && !host.maintenance", "host.cpu_usage_ratio < config.calm") + "    for: 1h30m\n"
	s := mustLoad(t, text)
	r, ok := s.Rule("p", "R")
	if !ok || len(s.Rules()) != 1 || len(s.Packs()) != 1 {
		t.Fatalf("loaded %v", s.Rules())
	}
	if r.For != 90*time.Minute || r.SettleRange() != 90*time.Minute {
		t.Errorf("for %s, settle range %s", r.For, r.SettleRange())
	}
	if want := "host.cpu_usage_ratio > 0.85 && !host.maintenance for 1h30m"; r.cause(&subject{}) != want {
		t.Errorf("cause %q, want %q", r.cause(&subject{}), want)
	}
	p, _ := s.Pack("p")
	if len(p.SHA256) != 64 {
		t.Errorf("hash %q", p.SHA256)
	}
	other := mustLoad(t, text+"# a comment changes the bytes\n")
	if q, _ := other.Pack("p"); q.SHA256 == p.SHA256 {
		t.Error("the hash is not of the exact bytes")
	}
}

func TestConfigOverrides(t *testing.T) {
	text := []byte(hostRule("host.cpu_usage_ratio > config.hot && config.on && config.word == 'b'", ""))
	load := func(c map[string]map[string]any) (*Set, error) {
		return Load([]File{{"p.yml", text}}, Options{Config: c})
	}
	s, err := load(map[string]map[string]any{"p": {"hot": 1, "on": false, "word": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	r, _ := s.Rule("p", "R")
	if want := `host.cpu_usage_ratio > 1 && false && "b" == "b"`; r.cause(&subject{}) != want {
		t.Errorf("cause %q, want %q", r.cause(&subject{}), want)
	}
	for name, tc := range map[string]struct {
		config map[string]map[string]any
		want   string
	}{
		"unknown key":  {map[string]map[string]any{"p": {"hott": 1}}, "packs.config.p.hott, which the pack does not have\n    did you mean hot?"},
		"text":         {map[string]map[string]any{"p": {"hot": "x"}}, "packs.config.p.hot to x, which must be a number"},
		"truth":        {map[string]map[string]any{"p": {"on": 1}}, "packs.config.p.on to 1, which must be true or false"},
		"list":         {map[string]map[string]any{"p": {"word": []any{1}}}, "which must be text"},
		"unknown pack": {map[string]map[string]any{"pp": {"hot": 1}}, `pack "pp", which is not loaded` + "\n    did you mean p?"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(tc.config)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}

func TestTwoPacksOfOneName(t *testing.T) {
	text := []byte(hostRule("host.cpu_usage_ratio > 1", ""))
	_, err := Load([]File{{"a.yml", text}, {"b.yml", text}}, Options{})
	if err == nil || err.Error() != "b.yml: a second pack p\n    the first is a.yml" {
		t.Errorf("got %v", err)
	}
}

func TestMinProtip(t *testing.T) {
	text := []byte("min_protip: 1.2.10\n" + hostRule("host.cpu_usage_ratio > 1", ""))
	for version, ok := range map[string]bool{"1.2.9": false, "v1.2.10": true, "1.10.0": true, "0.9.99": false, "": true, "(devel)": true} {
		if _, err := Load([]File{{"p.yml", text}}, Options{Version: version}); (err == nil) != ok {
			t.Errorf("version %q: %v", version, err)
		}
	}
}

// TestBounds feeds packs that want to cost much; each is refused, and at once.
func TestBounds(t *testing.T) {
	var laughs strings.Builder
	laughs.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x]\n")
	for i := range 9 {
		fmt.Fprintf(&laughs, "a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i), 9), ", "))
	}
	many := "pack: p\nversion: 1.0.0\ndescription: d\nrules:\n" + strings.Repeat("  - {name: R}\n", 101)
	for name, tc := range map[string]struct{ text, want string }{
		"size":        {strings.Repeat("#", maxPackBytes+1), "larger than"},
		"aliases":     {laughs.String(), "has no key"},
		"alias":       {"x: &x {}\npack: *x\n", "aliases are not allowed"},
		"deep":        {strings.Repeat("[", 1<<19), "not YAML"},
		"deep blocks": {"a: " + strings.Repeat("- ", 1<<18), "not YAML"},
		"rules":       {many, "at most 100"},
		"long":        {hostRule(strings.Repeat("host.cores + ", 300)+"1 > 2", ""), "longer than 2048 bytes"},
		"nodes":       {hostRule(strings.Repeat("1+", 500)+"1 > 2", ""), "maximum allowed nodes"},
		"parentheses": {hostRule(strings.Repeat("(", 1000)+"true"+strings.Repeat(")", 1000), ""), "reads nothing"},
		"unary":       {hostRule("'"+strings.Repeat("!", 1000)+"host.maintenance'", ""), "maximum allowed nodes"},
		"summary":     {strings.Replace(hostRule("host.cores > 1", ""), "{{host.name}}", strings.Repeat("x", 600), 1), "longer than 512 bytes"},
		"templates":   {strings.Replace(hostRule("host.cores > 1", ""), "{{host.name}}", strings.Repeat("{{1}}", 17), 1), "more than 16 expressions"},
		"for":         {hostRule("host.cores > 1", "") + "    for: 1y\n", "longer than 30d"},
		"huge number": {hostRule("host.cores > 1e999", ""), "invalid float literal"},
		"nul":         {"pack: \x00\n", "not YAML"},
		"utf-16":      {"\xff\xfep\x00a\x00", "not UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := Load([]File{{"p.yml", []byte(tc.text)}}, Options{})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %.300v, want %s", err, tc.want)
			}
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("took %s", d)
			}
			if err != nil && len(err.Error()) > 50_000 {
				t.Errorf("a message of %d bytes", len(err.Error()))
			}
		})
	}
}

func TestReadFileIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "big.yml")
	if err := os.WriteFile(path, make([]byte, 3*maxPackBytes), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := ReadFile(path)
	if err != nil || len(f.Text) != maxPackBytes+1 {
		t.Errorf("read %d bytes, %v", len(f.Text), err)
	}
	if _, err := ReadFile(path + "x"); err == nil {
		t.Error("a missing file is no error")
	}
}

func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/errors/*.yml", "packs/*.yml"} {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Load([]File{{"fuzz.yml", text}}, Options{})
		if err != nil {
			_ = err.Error()
			return
		}
		for _, p := range s.Packs() {
			if len(text) < 10_000 && p.Tests() < 3 {
				_ = p.Test(nil)
			}
		}
	})
}

func FuzzExpression(f *testing.F) {
	for _, seed := range []string{
		"host.cpu_usage_ratio > config.hot && !host.maintenance", "max(host.cores, 1) == 1", "host.name matches '^a.*$'",
		"sum([1,2], #)", "let x = 1; x > 0", "if host.connected { true } else { false }", "host.cores ?: 1", "1..1000000000",
		"host.name contains 'x' ? host.cores : -1 ** 3", "not (host.cores < 1 < 2)", "'a' + host.name == \"\\u00e9\"",
	} {
		f.Add(seed)
	}
	set := hotFleet(f)
	f.Fuzz(func(t *testing.T, source string) {
		sc := scope{on: 2, config: map[string]any{"hot": 0.85, "on": true, "word": "a"}, vocabulary: vocabulary()}
		p, faults := compile(source, sc, wantBool)
		for _, fault := range faults {
			if fault.at < 0 || fault.at > len(source) {
				t.Errorf("fault at %d of %q", fault.at, source)
			}
			if strings.HasPrefix(fault.message, "cannot be compiled") {
				t.Errorf("%q: %s", source, fault.message)
			}
		}
		tmpl, _ := parseTemplate(source, sc)
		if len(faults) > 0 {
			return
		}
		// What compiles must not fail when it runs: everything is typed.
		r := &Rule{Pack: &Pack{Name: "p"}, Name: "R", On: 2, When: source, when: p, summary: tmpl, inputs: p.reads}
		findings, _ := r.Eval(Input{Snapshot: set, Now: noon})
		for _, finding := range findings {
			if finding.Err != nil {
				t.Errorf("%q: %v", source, finding.Err)
			}
		}
	})
}
