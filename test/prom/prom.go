// Package prom starts a real Prometheus on loopback for tests, and asks it.
// It promises that a test whose tool is missing says so by name, and that nothing it started outlives the test.
// It must not be imported by anything but tests.
package prom

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// RequireTools is the environment variable that makes a missing tool a failure.
const RequireTools = "PROTIP_REQUIRE_TOOLS"

// Tool is the path of a program that test/tools/get.sh fetches. Without it the test is skipped, or fails if RequireTools is set.
func Tool(t testing.TB, name string) string {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	path := filepath.Join(filepath.Dir(here), "..", "..", ".cache", "tools", "root", "usr", "bin", name)
	if _, err := os.Stat(path); err != nil {
		if os.Getenv(RequireTools) != "" {
			t.Fatalf("%s is required and missing: test/tools/get.sh fetches it", name)
		}
		t.Skipf("no %s: test/tools/get.sh fetches it", name)
	}
	return path
}

// CheckMetrics holds a body in the classic text format against promtool check metrics.
func CheckMetrics(t testing.TB, body []byte) {
	t.Helper()
	cmd := exec.Command(Tool(t, "promtool"), "check", "metrics")
	cmd.Stdin = bytes.NewReader(body)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// CheckConfig holds a configuration of Prometheus against promtool check config.
func CheckConfig(t testing.TB, text []byte) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "prometheus.yml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(Tool(t, "promtool"), "check", "config", file).CombinedOutput(); err != nil {
		t.Errorf("promtool check config: %v\n%s", err, out)
	}
}

// Server is a running Prometheus.
type Server struct {
	URL string
}

var listening = regexp.MustCompile(`msg="Listening on" address=(\S+)`)

// Start runs a Prometheus that scrapes each of targets (host:port) every second under its job name, until the test ends. It
// returns when the server is ready.
func Start(t testing.TB, targets map[string]string) *Server {
	t.Helper()
	return start(t, config(time.Second, targets), filepath.Join(t.TempDir(), "data"))
}

// StartEvery is Start with another time between scrapes.
func StartEvery(t testing.TB, every time.Duration, targets map[string]string) *Server {
	t.Helper()
	return start(t, config(every, targets), filepath.Join(t.TempDir(), "data"))
}

// StartWith is Start with more configuration, YAML, after the scrapes.
func StartWith(t testing.TB, targets map[string]string, more string) *Server {
	t.Helper()
	return start(t, config(time.Second, targets)+more, filepath.Join(t.TempDir(), "data"))
}

// Over runs a Prometheus that scrapes nothing and answers from the blocks in a directory, which it writes to.
func Over(t testing.TB, blocks string) *Server {
	t.Helper()
	return start(t, config(time.Second, nil), blocks, "--storage.tsdb.retention.time=20y", "--enable-feature=promql-experimental-functions")
}

func start(t testing.TB, text, data string, flags ...string) *Server {
	t.Helper()
	binary := Tool(t, "prometheus")
	file := filepath.Join(t.TempDir(), "prometheus.yml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, append([]string{"--config.file=" + file, "--storage.tsdb.path=" + data, "--web.listen-address=127.0.0.1:0"}, flags...)...)
	dieWithParent(cmd)
	logs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address := make(chan string, 1)
	said := make(chan string, 1)
	go follow(logs, address, said)
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		text := <-said
		_ = cmd.Wait()
		kill.Stop()
		if t.Failed() {
			t.Logf("prometheus said:\n%s", text)
		}
	})
	select {
	case addr := <-address:
		s := &Server{URL: "http://" + addr}
		s.waitReady(t)
		return s
	case <-time.After(30 * time.Second):
		t.Fatal("prometheus did not listen within 30 s")
	}
	return nil
}

// follow reads the log to its end, tells the address when it comes, and keeps the last of the text.
func follow(logs io.Reader, address, said chan<- string) {
	var tail []string
	for lines := bufio.NewScanner(logs); lines.Scan(); {
		if m := listening.FindStringSubmatch(lines.Text()); m != nil {
			select {
			case address <- m[1]:
			default:
			}
		}
		if tail = append(tail, lines.Text()); len(tail) > 50 {
			tail = tail[1:]
		}
	}
	said <- strings.Join(tail, "\n")
}

func config(every time.Duration, targets map[string]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "global: {scrape_interval: %dms, scrape_timeout: %[1]dms, evaluation_interval: 1s}\nscrape_configs:\n", every.Milliseconds())
	for job, target := range targets {
		fmt.Fprintf(&b, "  - job_name: %q\n    static_configs: [{targets: [%q]}]\n", job, target)
	}
	return b.String()
}

func (s *Server) waitReady(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		res, err := http.Get(s.URL + "/-/ready")
		if err != nil {
			continue
		}
		res.Body.Close()
		if res.StatusCode == http.StatusOK {
			return
		}
	}
	t.Fatal("prometheus was not ready within 30 s")
}

// Sample is one series of an instant query's answer.
type Sample struct {
	Labels map[string]string
	Value  float64
}

// Query is the answer to an instant query, as a vector.
func (s *Server) Query(t testing.TB, query string) []Sample {
	t.Helper()
	samples, err := s.query(query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return samples
}

// Wait asks until ok takes the answer, or fails the test.
func (s *Server) Wait(t testing.TB, query string, timeout time.Duration, ok func([]Sample) bool) []Sample {
	t.Helper()
	deadline := time.Now().Add(timeout)
	for {
		samples, err := s.query(query)
		if err == nil && ok(samples) {
			return samples
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: after %s the answer is %v (%v)", query, timeout, samples, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (s *Server) query(query string) ([]Sample, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/api/v1/query?query="+url.QueryEscape(query), nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var answer struct {
		Error string `json:"error"`
		Data  struct {
			Result []struct {
				Metric map[string]string `json:"metric"`
				Value  [2]any            `json:"value"`
			} `json:"result"`
		} `json:"data"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("answer %s: %w", res.Status, err)
	}
	if answer.Error != "" {
		return nil, fmt.Errorf("prometheus: %s", answer.Error)
	}
	var out []Sample
	for _, r := range answer.Data.Result {
		text, _ := r.Value[1].(string)
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("value %q: %w", text, err)
		}
		out = append(out, Sample{Labels: r.Metric, Value: v})
	}
	return out, nil
}
