package libvirtd

import (
	"bytes"
	"net/http"
	"os/exec"
	"testing"
	"time"

	"github.com/protip/protip/test/prom"
)

// StartExporter starts Debian's prometheus-libvirt-exporter on a daemon, as libvirt's own library calls it, until the test ends. It returns the
// URL of its metrics, and skips the test where there is none to start.
func StartExporter(t testing.TB, uri string) string {
	t.Helper()
	require(t)
	addr := "127.0.0.1:" + freePort(t)
	out := new(bytes.Buffer)
	cmd := exec.Command(loader(), append(libraries(), prom.Tool(t, "prometheus-libvirt-exporter"),
		"--web.listen-address="+addr, "--libvirt.uri="+uri)...)
	cmd.Dir = userDir(t)
	cmd.Env = []string{"HOME=" + cmd.Dir, "PATH=/usr/bin:/bin"}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = credential()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	url := "http://" + addr + "/metrics"
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		res, err := http.Get(url)
		if err == nil {
			res.Body.Close()
			return url
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			t.Fatalf("prometheus-libvirt-exporter does not answer: %v\n%s", err, out)
		}
	}
}
