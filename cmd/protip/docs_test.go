package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/protip/protip/internal/sim"
	"github.com/protip/protip/test/prom"
)

var fence = regexp.MustCompile("(?ms)^```(\\w+)\\n(.*?)^```$")

// block is a fenced block of a document.
type block struct{ language, text string }

func blocks(t *testing.T, name string) []block {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../docs", name))
	if err != nil {
		t.Fatal(err)
	}
	var out []block
	for _, m := range fence.FindAllStringSubmatch(string(text), -1) {
		out = append(out, block{m[1], m[2]})
	}
	if len(out) == 0 {
		t.Fatalf("%s shows nothing", name)
	}
	return out
}

// commands are the command lines of a block, split as a shell would, without comments.
func commands(text string) [][]string {
	var out [][]string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, " #")
		var words []string
		for _, m := range regexp.MustCompile(`"([^"]*)"|\S+`).FindAllStringSubmatch(line, -1) {
			words = append(words, strings.Trim(m[0], `"`))
		}
		if len(words) > 0 {
			out = append(out, words)
		}
	}
	return out
}

// TestDocumentOfTheDemo holds that every command of the document is one.
func TestDocumentOfTheDemo(t *testing.T) {
	for _, b := range blocks(t, "demo.md") {
		switch b.language {
		case "sh":
			for _, words := range commands(b.text) {
				exists(t, words)
			}
		case "json":
			var end map[string]any
			if err := json.Unmarshal([]byte(b.text), &end); err != nil || len(end) != 6 {
				t.Errorf("%v: %s", err, b.text)
			}
		}
	}
}

// exists asks for the help of a command line, which refuses unknown verbs and flags.
func exists(t *testing.T, words []string) {
	t.Helper()
	var out, said bytes.Buffer
	if words[0] != "protip" || run(t.Context(), append(words[1:], "--help"), &out, &said) != exitOK || said.Len() > 0 {
		t.Errorf("%s: %s", strings.Join(words, " "), said.String())
	}
}

// TestDocumentOfTheBeginning does what getting-started.md says, in its order, with a simulated vCenter. Commands with a
// word in capitals, which the reader has to fill in, are only looked at.
func TestDocumentOfTheBeginning(t *testing.T) {
	all := blocks(t, "getting-started.md")
	vc, err := sim.StartVCenter(sim.Config{
		Name: "vc-berlin", User: "svc-protip@vsphere.local", Password: "hunter2",
		Clusters: []sim.Cluster{{Name: "Production", Hosts: []sim.Host{{Name: "esx1", VMs: []sim.VM{{Name: "web"}}}, {Name: "esx2"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer vc.Close()
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{
		"vc-berlin.password": "hunter2", "vc-berlin-act.password": "hunter2", "vc-berlin.pem": string(vc.CAPEM()), "operator.token": "t0ken",
	} {
		write(t, name, text)
	}
	address := strings.TrimSuffix(vc.URL().String(), "/sdk")
	agent := &runningAgent{}
	defer agent.stop(t)
	capitals := regexp.MustCompile(`^[A-Z]+$`)
	for _, b := range all {
		switch {
		case b.language == "yaml" && strings.HasPrefix(b.text, "scrape_configs:"):
			t.Run("scrape_configs", func(t *testing.T) { prom.CheckConfig(t, []byte(b.text)) })
		case b.language == "yaml":
			text := strings.ReplaceAll(b.text, "https://vcenter.example.com", address)
			write(t, "protip.yml", strings.ReplaceAll(text, "svc-protip-act@", "svc-protip@"))
			checkHashes(t, b.text)
		case b.language == "sh":
			for _, words := range commands(b.text) {
				exists(t, words)
				if strings.Join(words, " ") == "protip run" {
					agent.stop(t)
					agent.start(t)
					continue
				}
				filled := true
				for _, word := range words {
					filled = filled && !capitals.MatchString(word)
				}
				if filled {
					agent.command(t, words[1:])
				}
			}
		}
	}
}

// checkHashes holds that a grant is for the pack as it is shipped now.
func checkHashes(t *testing.T, text string) {
	t.Helper()
	var cfg struct {
		Remediation struct {
			Automatic []struct {
				SHA256 string `yaml:"pack_sha256"`
			}
		}
	}
	if err := yaml.Unmarshal([]byte(text), &cfg); err != nil {
		t.Fatal(err)
	}
	pack, err := hostPressure()
	if err != nil {
		t.Fatal(err)
	}
	for _, grant := range cfg.Remediation.Automatic {
		if grant.SHA256 != pack.SHA256 {
			t.Errorf("the hash is %s, the pack's is %s", grant.SHA256, pack.SHA256)
		}
	}
}

// runningAgent is protip run in this process.
type runningAgent struct {
	url  string
	end  context.CancelFunc
	exit chan int
	log  *journal
}

var listening = regexp.MustCompile(`msg="Listening on" address=(\S+)`)

func (a *runningAgent) start(t *testing.T) {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	a.end, a.exit, a.log = end, make(chan int, 1), &journal{}
	go func() { a.exit <- run(ctx, []string{"run", "--web.listen-address=127.0.0.1:0"}, a.log, a.log) }()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if m := listening.FindStringSubmatch(a.log.String()); m != nil {
			a.url = "http://" + m[1]
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not listen:\n%s", a.log)
		}
	}
}

func (a *runningAgent) stop(t *testing.T) {
	t.Helper()
	if a.end == nil {
		return
	}
	a.end()
	if code := <-a.exit; code != exitOK {
		t.Errorf("protip run: exit code %d\n%s", code, a.log)
	}
	a.end = nil
}

// command runs one; those for a running agent find this one.
func (a *runningAgent) command(t *testing.T, args []string) {
	t.Helper()
	given := args
	if args[0] != "check" {
		given = append(args, "--agent.url="+a.url)
	}
	var out, said bytes.Buffer
	if code := run(t.Context(), given, &out, &said); code != exitOK || out.Len() == 0 {
		t.Errorf("protip %s: exit code %d, said %q", strings.Join(args, " "), code, said.String())
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
