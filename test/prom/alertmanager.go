package prom

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Alertmanager is a running Alertmanager.
type Alertmanager struct {
	URL string
}

// StartAlertmanager runs an Alertmanager with a configuration until the test ends. It returns when it is ready.
func StartAlertmanager(t testing.TB, text string) *Alertmanager {
	t.Helper()
	binary, dir := Tool(t, "prometheus-alertmanager"), t.TempDir()
	file := filepath.Join(dir, "alertmanager.yml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String() // it tells its own nowhere
	free.Close()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	// Debian's looks for its templates in /usr/share. It gets one of its own, in a namespace of its own.
	share := filepath.Join(filepath.Dir(filepath.Dir(binary)), "share")
	cmd := exec.Command("unshare", "--map-root-user", "--mount", "sh", "-c", `mount --bind "$0" /usr/share && exec "$@"`, share,
		binary, "--config.file="+file, "--storage.path="+filepath.Join(dir, "data"), "--web.listen-address="+address, "--cluster.listen-address=")
	cmd.Stdout, cmd.Stderr = log, log
	dieWithParent(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		kill.Stop()
		if t.Failed() {
			said, _ := os.ReadFile(log.Name())
			t.Logf("alertmanager said:\n%s", said)
		}
	})
	s := &Server{URL: "http://" + address}
	s.waitReady(t)
	return &Alertmanager{URL: s.URL}
}

// Alert is one alert of an Alertmanager.
type Alert struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	Status      struct {
		State string `json:"state"`
	} `json:"status"`
	GeneratorURL string `json:"generatorURL"`
}

// Alerts are those that fire now.
func (a *Alertmanager) Alerts() ([]Alert, error) {
	res, err := http.Get(a.URL + "/api/v2/alerts")
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var out []Alert
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		return nil, fmt.Errorf("answer %s: %w", res.Status, err)
	}
	return out, nil
}
