// Package e2e runs the built programs against real ones. It holds what no package can hold alone.
package e2e

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/protip/protip/test/prom"
)

// patience is how long anything may take.
const patience = 60 * time.Second

// TestPrometheusSeesTheMigration lets a real Prometheus watch a demo from its start until a host has recovered.
func TestPrometheusSeesTheMigration(t *testing.T) {
	prom.Tool(t, "prometheus")
	demo := startDemo(t, "--seed=5", "--speed=30")
	seen := &types{}
	server := prom.Start(t, map[string]string{"protip": seen.between(t, demo.base)})
	server.Wait(t, `up{job="protip"}`, patience, func(s []prom.Sample) bool { return len(s) == 1 && s[0].Value == 1 })

	t.Run("every running VM joins with its host", func(t *testing.T) {
		want := server.Wait(t, `virt_vm_info and on (source, vm_id) virt_vm_powered_on == 1`, patience, func(s []prom.Sample) bool { return len(s) > 50 })
		server.Wait(t, `virt_vm_cpu_usage_hertz * on (source, vm_id) group_left (host) virt_vm_info`, patience, func(s []prom.Sample) bool {
			hosts := map[string]string{}
			for _, joined := range s {
				hosts[joined.Labels["source"]+joined.Labels["vm_id"]] = joined.Labels["host"]
			}
			for _, vm := range want {
				if host := hosts[vm.Labels["source"]+vm.Labels["vm_id"]]; host == "" || host != vm.Labels["host"] {
					return false
				}
			}
			return len(s) == len(want)
		})
	})
	t.Run("both text bodies are clean", func(t *testing.T) {
		for _, encoding := range []string{"identity", "gzip"} {
			prom.CheckMetrics(t, fetch(t, demo.base+"/metrics", encoding))
		}
	})

	act := demo.await(t, func(a action) bool { return a.Outcome == "recovered" })
	vm := fmt.Sprintf(`source=%q, vm_id=%q`, act.source(), act.id())
	server.Wait(t, `virt_vm_info{`+vm+`}`, patience, func(s []prom.Sample) bool {
		return len(s) == 1 && s[0].Labels["host"] == act.ToName
	})
	t.Run("the migration changed one series of the VM, and that is virt_vm_info", func(t *testing.T) {
		families := map[string]int{}
		for _, s := range server.Query(t, `last_over_time({__name__=~"virt_vm_.+", `+vm+`}[10m])`) {
			families[s.Labels["__name__"]]++
		}
		if len(families) < 5 {
			t.Errorf("the VM has only %v", families)
		}
		for name, n := range families {
			if want := map[bool]int{true: 2, false: 1}[name == "virt_vm_info"]; n != want {
				t.Errorf("%d series of %s, want %d", n, name, want)
			}
		}
		if was := server.Query(t, `last_over_time(virt_vm_info{`+vm+fmt.Sprintf(`, host=%q}[10m])`, act.FromName)); len(was) != 1 {
			t.Errorf("on its old host it was %v", was)
		}
	})
	t.Run("the VM's usage goes on without a gap", func(t *testing.T) {
		// The first scrape may come before the first sample, and one sample may come late.
		seen := server.Query(t, `count_over_time(virt_vm_cpu_usage_hertz{`+vm+`}[60s]) - on () group_left count_over_time(up{job="protip"}[60s])`)
		if len(seen) != 1 || seen[0].Value < -2 {
			t.Errorf("samples of usage less scrapes: %v", seen)
		}
	})
	t.Run("a rule over the metrics sees what the tip saw", func(t *testing.T) {
		hot := server.Query(t, `max_over_time(virt_host_cpu_usage_ratio{host=`+fmt.Sprintf("%q", act.FromName)+`}[10m]) > 0.85`)
		calm := server.Query(t, `virt_host_cpu_usage_ratio{host=`+fmt.Sprintf("%q", act.FromName)+`} < 0.70`)
		if len(hot) != 1 || len(calm) != 1 {
			t.Errorf("hot: %v, calm: %v", hot, calm)
		}
	})
	if got := seen.all(); !strings.HasPrefix(got, "application/openmetrics-text") {
		t.Errorf("Prometheus was answered in %s", got)
	}
	if up := server.Query(t, `min_over_time(up{job="protip"}[10m])`); len(up) != 1 || up[0].Value != 1 {
		t.Errorf("a scrape failed: %v", up)
	}
}

// demo is a running protip demo.
type demo struct {
	base      string
	tokenFile string // of an operator's token
	vcenters  []vcenter

	mu      sync.Mutex
	actions []action
}

type action struct {
	VM       string `json:"vm"`
	VMName   string `json:"vm_name"`
	FromName string `json:"from_name"`
	ToName   string `json:"to_name"`
	Outcome  string `json:"outcome"`
}

func (a action) source() string { s, _, _ := strings.Cut(a.VM, "/"); return s }
func (a action) id() string     { return a.VM[strings.LastIndex(a.VM, "/")+1:] }

// startDemo runs the built program until the test ends, when it must end well.
func startDemo(t *testing.T, args ...string) *demo {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "protip")
	build := exec.Command("go", "build", "-o", binary, "../../cmd/protip")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(binary, append([]string{"demo", "--port=0", "--format=json"}, args...)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stdout)
	d := &demo{}
	read := make(chan struct{})
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-read
		if err := cmd.Wait(); err != nil || said.Len() > 0 {
			t.Errorf("demo: %v\n%s", err, said.String())
		}
	})
	first, err := lines.ReadBytes('\n')
	if err != nil {
		close(read)
		t.Fatal(err)
	}
	go func() {
		defer close(read)
		d.follow(lines)
	}()
	var opening struct {
		Demo struct {
			Console   string    `json:"console"`
			TokenFile string    `json:"token_file"`
			VCenters  []vcenter `json:"vcenters"`
		} `json:"demo"`
	}
	if err := json.Unmarshal(first, &opening); err != nil {
		t.Fatal(err)
	}
	d.base, d.tokenFile, d.vcenters = strings.TrimSuffix(opening.Demo.Console, "/"), opening.Demo.TokenFile, opening.Demo.VCenters
	return d
}

func (d *demo) follow(lines *bufio.Reader) {
	for {
		line, err := lines.ReadBytes('\n')
		var event struct {
			Action *action `json:"action"`
		}
		if json.Unmarshal(line, &event) == nil && event.Action != nil {
			d.mu.Lock()
			d.actions = append(d.actions, *event.Action)
			d.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

// await is the first action that ok takes.
func (d *demo) await(t *testing.T, ok func(action) bool) action {
	t.Helper()
	for deadline := time.Now().Add(2 * patience); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		d.mu.Lock()
		for _, a := range d.actions {
			if ok(a) {
				d.mu.Unlock()
				return a
			}
		}
		d.mu.Unlock()
	}
	t.Fatal("no such action")
	return action{}
}

func fetch(t *testing.T, address, encoding string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept-Encoding", encoding)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body := io.Reader(res.Body)
	if encoding == "gzip" {
		if res.Header.Get("Content-Encoding") != "gzip" {
			t.Errorf("gzip was not used")
		}
		if body, err = gzip.NewReader(res.Body); err != nil {
			t.Fatal(err)
		}
	}
	text, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// types are the content types that went through a proxy.
type types struct {
	mu   sync.Mutex
	seen map[string]bool
}

// between puts a proxy before an address and returns its own.
func (s *types) between(t *testing.T, base string) string {
	t.Helper()
	target, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	s.seen = map[string]bool{}
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: func(r *http.Response) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.seen[r.Header.Get("Content-Type")] = true
			return nil
		},
	})
	t.Cleanup(proxy.Close)
	return proxy.Listener.Addr().String()
}

// all are the types that were seen; there should be one.
func (s *types) all() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for kind := range s.seen {
		out = append(out, kind)
	}
	return strings.Join(out, " and ")
}
