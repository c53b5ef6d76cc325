package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/protip/protip/internal/sim"
)

// What must be nowhere but in the files that hold it and on the wire.
const (
	markWatching = "watching-Marker&1"
	markWrong    = "wrong-Marker&2"
	markActing   = "acting-Marker&3"
	markEnv      = "environment-Marker&4"
	markOperator = "operator-Marker-5"
	markSend     = "send-Marker-6"
	markInline   = "inline-Marker-7"
)

// TestSecretsOfTheAgent runs the whole agent, as a person would, at the level that logs most, through refused log-ins, a vCenter
// that repeats the password, and a configuration with a password in it, asks it for all that it serves, and crashes it. The secrets
// must not be in any of it, nor in what it has stored.
func TestSecretsOfTheAgent(t *testing.T) {
	t.Parallel()
	start := func(name, password string) *sim.VCenter {
		vc, err := sim.StartVCenter(sim.Config{
			Name: name, Password: password, Clusters: sim.Uniform(2, 4), Users: []sim.User{{Name: "actor", Password: markActing}},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(vc.Close)
		return vc
	}
	vc, other := start("one", markWatching), start("other", markEnv)
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, secret := range map[string]string{
		"watching": markWatching, "wrong": markWrong, "acting": markActing, "operator": markOperator, "send": markSend,
	} {
		write(name, secret+"\n")
	}
	write("ca.pem", string(vc.CAPEM())+string(other.CAPEM()))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	source := func(name string, at *sim.VCenter, rest string) string {
		return fmt.Sprintf("  - {name: %s, type: vsphere, url: 'https://%s', tls_config: {ca_file: ca.pem}, username: administrator@vsphere.local, %s}\n", name, at.URL().Host, rest)
	}
	config := "sources:\n" +
		source("right", vc, "password_file: watching, acting: {username: actor, password_file: acting}") +
		source("wrong", vc, "password_file: wrong") +
		source("env", other, "password_env: PROTIP_TEST_SECRET") +
		"remediation: {mode: manual}\nweb: {operator_token_file: operator}\n" +
		"alertmanager: {send: [{url: 'http://127.0.0.1:1', bearer_token_file: send}]}\n"
	write("protip.yml", config)

	said := map[string]string{}
	environment := append(os.Environ(), "GOTRACEBACK=all", "PROTIP_TEST_SECRET="+markEnv, "PROTIP_AGENT_URL=http://"+address)
	protip := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "protip", args...)
		cmd.Dir, cmd.Env = dir, environment
		out, _ := cmd.CombinedOutput() // some are to fail
		said["protip "+strings.Join(args, " ")] = string(out)
		if len(out) == 0 {
			t.Errorf("protip %s says nothing", args)
		}
	}
	var log journal
	agent := exec.CommandContext(t.Context(), "protip", "run", "--log.level=debug", "--web.listen-address="+address)
	agent.Dir, agent.Env, agent.Stdout, agent.Stderr = dir, environment, &log, &log
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- agent.Wait() }()

	ask := func(method, path, token string) string {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return ""
		}
		defer res.Body.Close()
		head := new(bytes.Buffer)
		_ = res.Header.Write(head)
		body, _ := io.ReadAll(res.Body)
		return head.String() + string(body)
	}
	await := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(patience); !ok(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not within %s: %s\n%s", patience, what, &log)
			}
		}
	}
	await("two sources are up, one is refused", func() bool {
		m := ask("GET", "/metrics", "")
		return strings.Contains(m, `protip_source_up{source="right"} 1`) && strings.Contains(m, `protip_source_up{source="env"} 1`) &&
			strings.Contains(log.String(), "refused")
	})
	everything := func(when string) {
		t.Helper()
		for _, path := range []string{
			"/metrics", "/api/v1/status", "/api/v1/sources", "/api/v1/clusters", "/api/v1/hosts", "/api/v1/vms", "/api/v1/reserve", "/api/v1/actions",
			"/api/v1/packs", "/api/v1/audit", "/api/v1/tips", "/", "/login", "/-/ready",
		} {
			if said[path+" "+when] = ask("GET", path, ""); said[path+" "+when] == "" {
				t.Errorf("%s does not answer", path)
			}
		}
	}
	everything("at first")
	lift := vc.InjectHTTP(sim.HTTPFault{Method: "*", Words: "no: " + markWatching})
	liftOther := other.InjectHTTP(sim.HTTPFault{Method: "*", Words: "no: " + markEnv})
	for _, restarted := range []*sim.VCenter{vc, other} { // which ends calls that wait
		restarted.Stop()
		if err := restarted.Restart(); err != nil {
			t.Fatal(err)
		}
	}
	await("faults of both", func() bool {
		m := ask("GET", "/metrics", "")
		return strings.Contains(m, `protip_source_up{source="right"} 0`) && strings.Contains(m, `protip_source_up{source="env"} 0`) &&
			strings.Contains(log.String(), "<secret>")
	})
	everything("in a fault")
	lift()
	liftOther()
	for _, token := range []string{markOperator, "no-" + markOperator} {
		said["pause by "+token[:2]] = ask("POST", "/api/v1/pause?why=test", token)
	}
	write("protip.yml", strings.Replace(config, "password_file: wrong", "password: "+markInline, 1))
	said["reload"] = ask("POST", "/-/reload?why=test", markOperator)
	if !strings.Contains(said["reload"], "password") {
		t.Errorf("a password in the configuration is taken: %s", said["reload"])
	}
	protip("check", "config")
	everything("after a failed reload")
	write("protip.yml", config)
	protip("check", "config")
	for _, name := range []string{"right", "wrong", "env"} {
		protip("check", "source", name)
	}
	protip("tips")

	// What a fatal error prints: every goroutine, with what it was called with.
	if err := agent.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	said["log and crash"] = log.String()
	for _, want := range []string{"SIGQUIT", "collector/vsphere.(*follower)", "internal/app.", "refused", "<secret>"} {
		if !strings.Contains(said["log and crash"], want) {
			t.Errorf("the log has no %q: nothing was tried", want)
		}
	}
	files := 0
	err = filepath.WalkDir(filepath.Join(dir, "data"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		said[path], files = string(b), files+1
		return err
	})
	if err != nil || files == 0 {
		t.Errorf("it has stored %d files: %v", files, err)
	}
	for where, text := range said {
		if i := strings.Index(text, "Marker"); i >= 0 {
			t.Errorf("a secret is in %s: ...%s", where, text[max(0, i-200):min(len(text), i+50)])
		}
	}
}
