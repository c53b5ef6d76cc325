package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files")

// full sets every key.
const full = `sources:
  - name: vc-berlin.1
    type: vsphere
    url: https://vcenter.example.com/sdk
    username: svc-protip@vsphere.local
    password_file: password
    tls_config:
      ca_file: password
      server_name: vcenter
      min_version: TLS12
    interval: 1m
    custom_attributes: {Owner: owner, Cost Center: cost_center}
    tag_categories: [env, "service level"]
    acting:
      username: svc-protip-act@vsphere.local
      password_file: password
  - {name: lab, type: vsphere, url: "http://127.0.0.1:8989", username: u, password_file: /dev/null/../null}
  - name: by-certificate
    type: vsphere
    url: https://vc2
    username_env: PATH
    password_env: PATH
    acting:
      extension: {id: com.example.protip, cert_file: password, key_file: password}
evaluation_interval: 1500ms
packs:
  shipped: [host-pressure]
  files: [packs/*.yml, /etc/protip/packs/own.yml]
  config:
    host-pressure: {hot: 0.9, note: hello, strict: true, count: 3}
remediation:
  mode: manual
  dry_run: true
  automatic:
    - source: lab
      cluster: DC0_C0
      pack: host-pressure
      rule: HostCPUOverload
      pack_sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
  limits: {per_source: 5, per_cluster: 3, per_host: 2, per_hour: 9, failures: 1}
  cooldown: 1d
  ceiling: 1
  override_drs: [lab/DC0_C0, "lab/a/b"]
web:
  operator_token_file: password
`

const minimal = `sources:
  - name: lab
    type: vsphere
    url: https://vc
    username: u
    password_file: password
`

// folder is a directory with the files that the tests' configurations name.
func folder(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "password"), []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// parse reads text as a file in dir.
func parse(dir, text string) (*Config, error) {
	text = strings.ReplaceAll(text, "/dev/null/../null", filepath.Join(dir, "password"))
	return Parse([]byte(text), filepath.Join(dir, "protip.yml"))
}

func TestLoadSetsEveryKey(t *testing.T) {
	dir := folder(t)
	file := filepath.Join(dir, "protip.yml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(full, "/dev/null/../null", "password")), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	src := cfg.Sources[0]
	if src.Interval != time.Minute || cfg.EvaluationInterval != 1500*time.Millisecond || cfg.Remediation.Cooldown != 24*time.Hour {
		t.Errorf("durations: %v %v %v", src.Interval, cfg.EvaluationInterval, cfg.Remediation.Cooldown)
	}
	certified := cfg.Sources[2]
	if got := certified.User(); got != os.Getenv("PATH") {
		t.Errorf("user from the environment: %q", got)
	}
	if got := certified.Acting.User(); got != "com.example.protip" {
		t.Errorf("user that is an extension: %q", got)
	}
	extension := certified.Acting.Extension
	for _, got := range []string{extension.CertFile, extension.KeyFile, src.PasswordFile, src.Acting.PasswordFile, src.TLS.CAFile, cfg.Web.OperatorTokenFile} {
		if want := filepath.Join(dir, "password"); got != want {
			t.Errorf("path %s, want %s", got, want)
		}
	}
	if got, want := cfg.Packs.Files, []string{filepath.Join(dir, "packs/*.yml"), "/etc/protip/packs/own.yml"}; got[0] != want[0] || got[1] != want[1] {
		t.Errorf("pack files %q, want %q", got, want)
	}
	if got := cfg.Packs.Config["host-pressure"]; got["hot"] != 0.9 || got["note"] != "hello" || got["strict"] != true || got["count"] != 3 {
		t.Errorf("pack config %v", got)
	}
	if got, want := cfg.At("remediation.limits.per_host"), file+":40:53"; got != want {
		t.Errorf("At = %s, want %s", got, want)
	}
	if got := cfg.At("remediation.nothing"); got != file {
		t.Errorf("At of a key not set = %s, want %s", got, file)
	}
}

func TestDefaults(t *testing.T) {
	cfg, err := parse(folder(t), minimal)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Remediation != nil {
		t.Error("remediation without the file saying so")
	}
	if cfg.Sources[0].Interval != DefaultInterval || cfg.EvaluationInterval != DefaultEvaluationInterval {
		t.Errorf("intervals %v %v", cfg.Sources[0].Interval, cfg.EvaluationInterval)
	}
	// The section alone is there, with nothing allowed.
	cfg, err = parse(folder(t), minimal+"remediation:\n")
	if err != nil {
		t.Fatal(err)
	}
	want := Remediation{Mode: ModeOff, Cooldown: DefaultCooldown, Ceiling: DefaultCeiling, Limits: Limits{4, 2, 1, 20, 3}}
	if got := cfg.Remediation; got == nil || got.Mode != want.Mode || got.Cooldown != want.Cooldown || got.Ceiling != want.Ceiling || got.Limits != want.Limits {
		t.Errorf("remediation %+v, want %+v", got, want)
	}
}

func TestStringIsReadBack(t *testing.T) {
	for name, text := range map[string]string{"minimal": minimal, "full": full} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t)
			cfg, err := parse(dir, text)
			if err != nil {
				t.Fatal(err)
			}
			dump := cfg.String()
			if strings.Contains(dump, "hunter2") {
				t.Error("the dump holds the password")
			}
			again, err := parse(dir, dump)
			if err != nil {
				t.Fatalf("%v\n%s", err, dump)
			}
			if again.String() != dump {
				t.Errorf("dump of the dump:\n%s\nwant:\n%s", again, dump)
			}
		})
	}
}

// TestNoShippedPack tells an empty list from one that was left out, also in what is printed.
func TestNoShippedPack(t *testing.T) {
	dir := folder(t)
	all, err := parse(dir, minimal)
	if err != nil || all.Packs.Shipped != nil {
		t.Errorf("left out: %v, %v", all.Packs.Shipped, err)
	}
	none, err := parse(dir, minimal+"packs: {shipped: []}\n")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := parse(dir, none.String()); err != nil || none.Packs.Shipped == nil || again.Packs.Shipped == nil {
		t.Errorf("empty: %#v, printed and read again: %#v, %v", none.Packs.Shipped, again.Packs.Shipped, err)
	}
}

// TestErrors holds every message against a golden file: its first lines are the configuration, the rest what Parse says.
func TestErrors(t *testing.T) {
	cases := map[string]string{
		"empty":           "",
		"comment only":    "# nothing\n",
		"no sources":      "evaluation_interval: 1m\n",
		"sources empty":   "sources: []\n",
		"not yaml":        "sources: [\n",
		"tab":             "sources:\n\t- name: x\n",
		"list":            "- name: lab\n",
		"two documents":   minimal + "---\n" + minimal,
		"unknown keys":    minimal + "    intervall: 20s\nremediaton:\n  mode: off\nzzz: 1\n",
		"wrong types":     "sources:\n  name: lab\nevaluation_interval: often\npacks: 3\nremediation:\n  dry_run: perhaps\n  ceiling: high\n  limits: {per_host: 1.5, per_hour: 1e9, failures: [1]}\n",
		"nothing in it":   "sources:\n  - name:\n",
		"twice":           minimal + "    username: v\n",
		"merge":           "a: &a {name: x}\nsources:\n  - <<: *a\n",
		"password inline": "sources:\n  - name: lab\n    type: vsphere\n    url: https://vc\n    username: u\n    password: hunter2\n",
		"key inline":      minimal + "    tls_config: {cert_file: password, key: hunter2}\n",
		"url": "sources:\n" + source("a", "https://u:hunter2@vc") + source("b", "http://vc") + source("c", "vc:443") +
			source("d", "ftp://vc") + source("e", "https://:hunter2 @vc") + source("f", "https://vc?pw=hunter2") + source("g", "https://u:hunter2"),
		"names": "sources:\n" + source("a b", "https://vc") + source("-x", "https://vc") + source("c", "https://vc") + source("c", "https://vc"),
		"files": "sources:\n  - name: lab\n    type: vspere\n    url: https://vc\n    username: u\n    password_file: missing\n" +
			"    acting: {username: a, password_file: .}\n    tls_config: {ca_file: nowhere.pem}\nweb: {operator_token_file: token}\n",
		"credentials": "sources:\n" + "  - {name: a, type: vsphere, url: https://a, username: u, username_env: PATH, password_file: password, password_env: PATH}\n" +
			"  - {name: b, type: vsphere, url: https://b, username: u, password_env: hunter2}\n" +
			"  - name: c\n    type: vsphere\n    url: https://c\n    username: u\n    extension: {id: x, cert_file: password, key_file: gone.pem}\n    acting: {username: a}\n" +
			"  - {name: d, type: vsphere, url: https://d, extension: {cert_file: password}, tag_categories: [env]}\n" +
			"  - {name: e, type: vsphere, url: https://e}\n" +
			"  - {name: f, type: vsphere, url: https://f, username: u, password_env: }\n",
		"bad attributes": minimal + "    custom_attributes: {Owner: owner, Who: owner, Id: vm_id, Cost Center: cost-center, Empty: }\n" +
			"    tag_categories: [env, '', env]\n",
		"batches":         minimal + "    perf_batch: 0\n" + strings.Replace(strings.TrimPrefix(minimal, "sources:\n"), "lab", "lab2", 1) + "    perf_batch: 257\n",
		"short intervals": minimal + "    interval: 10ms\nevaluation_interval: 0s\n",
		"remediation": minimal + "remediation:\n  mode: automatic\n  cooldown: 0s\n  ceiling: 1.2\n  limits: {per_host: 0, per_hour: -1}\n" +
			"  override_drs: [lab, lap/C0]\n  automatic:\n    - {source: labb, cluster: C0, pack: p, rule: R}\n    - {source: lab, cluster: C0, pack: p, rule: R, pack_sha256: abc}\n",
		"packs":     minimal + "packs:\n  files: ['[']\n  config: {host-pressure: {hot: [1], calm: , x: {y: 1}}}\n",
		"overrides": minimal + "packs:\n  overrides:\n  - {pack: p, source: nowhere, tag: prod, config: {hot: 1}}\n  - {config: {}}\n  - {pack: p, host: esx07, config: {hot: [1]}}\n",
		"anchor":    "sources: *hunter2\n",
		"mode":      minimal + "remediation: {mode: manuall}\n",
		"tls":       minimal + "    tls_config: {min_version: SSL3, ca: x, ca_file: password, cert_file: password}\n",
	}
	for name, text := range cases {
		t.Run(name, func(t *testing.T) {
			dir := folder(t)
			_, err := parse(dir, text)
			var bad *Error
			if !errors.As(err, &bad) {
				t.Fatalf("want an *Error, got %v", err)
			}
			got := text + "====\n" + strings.NewReplacer(dir+"/", "", dir, "DIR").Replace(err.Error()) + "\n"
			if strings.Contains(strings.SplitN(got, "====", 2)[1], "hunter2") {
				t.Errorf("the message holds the password: %s", err)
			}
			golden(t, strings.ReplaceAll(name, " ", "-")+".golden", got)
		})
	}
}

func source(name, url string) string {
	return "  - {name: " + name + ", type: vsphere, url: '" + url + "', username: u, password_file: password}\n"
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if got != string(want) {
		t.Errorf("%s:\n%s\nwant:\n%s", file, got, want)
	}
}

func TestHostileFiles(t *testing.T) {
	dir := folder(t)
	bomb := "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c < 'k'; c++ {
		prev := string(c - 1)
		bomb += string(c) + ": &" + string(c) + " [" + strings.Repeat("*"+prev+", ", 9) + "*" + prev + "]\n"
	}
	for name, text := range map[string]string{
		"too large":       strings.Repeat("#", maxSize+1),
		"alias bomb":      bomb + "packs: {files: *j}\n",
		"alias bomb deep": "x: &x {files: [a]}\npacks: *x\n" + bomb,
		"alias to itself": "sources: &s [*s]\n",
		"deep":            "packs: " + strings.Repeat("[", 100_000),
		"many problems":   strings.Repeat("x: 1\n", 10_000),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(dir, text)
			if err == nil {
				t.Fatal("taken")
			}
			if n := len(err.Error()); n > 20_000 {
				t.Errorf("a message of %d bytes", n)
			}
		})
	}
}

func TestLoadWithoutFile(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "none.yml"))
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "none.yml") {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(full)
	f.Add(minimal)
	f.Add("a: &a [*a]\nsources: *a\n")
	f.Add("sources: !!binary x\n? [a]\n: {<<: 1}\n")
	dir := folder(f)
	f.Fuzz(func(t *testing.T, text string) {
		cfg, err := parse(dir, text)
		if err != nil {
			return
		}
		if _, err := parse(dir, cfg.String()); err != nil {
			t.Errorf("the dump is refused: %v\n%s", err, cfg)
		}
	})
}
