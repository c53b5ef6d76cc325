package guest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/test/prom"
)

// TestNodeExporter joins a guest by what Debian's own node_exporter tells of it: DMI UUID, then MAC addresses alone.
func TestNodeExporter(t *testing.T) {
	const mac = "00:50:56:aa:bb:01"
	sys, texts := t.TempDir(), t.TempDir()
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	uuidFile := filepath.Join(sys, "class/dmi/id/product_uuid")
	write(uuidFile, swapped+"\n")
	for name, text := range map[string]string{"address": mac, "ifindex": "2", "operstate": "up", "type": "1"} {
		write(filepath.Join(sys, "class/net/eth0", name), text+"\n")
	}
	write(filepath.Join(texts, "app.prom"), "# TYPE app_latency_seconds gauge\napp_latency_seconds 0.2\n")
	address, restart := nodeExporter(t, "--path.sysfs="+sys, "--collector.disable-defaults",
		"--collector.dmi", "--collector.netclass", "--collector.uname", "--collector.textfile", "--collector.textfile.directory="+texts)

	l := start(t, Options{
		Targets:  []Target{{Name: "web", URL: "http://" + address + "/metrics"}},
		Services: []Mapping{{Type: Metric, Metric: "app_latency_seconds", Name: "app", Latency: "value"}},
	})
	id := func(ref string) inventory.ID { return inventory.ID{Source: "vc", Kind: inventory.KindVM, Ref: ref} }
	l.apply(inventory.Delta{Source: "vc", VMs: []inventory.VM{
		{ID: id("vm-1"), UUID: plain, Power: inventory.PowerOn}, {ID: id("vm-2"), MACs: []string{mac}, Power: inventory.PowerOn},
	}})
	l.await("web/metric/app", "unknown in vm-1 with latency")

	// It is started again as a user who may not read the UUID.
	if err := os.Remove(uuidFile); err != nil {
		t.Fatal(err)
	}
	restart()
	l.await("web/metric/app", "unknown in vm-2 with latency")
}

// nodeExporter runs Debian's node_exporter, and starts it again at the same address.
func nodeExporter(t *testing.T, args ...string) (address string, restart func()) {
	t.Helper()
	program := prom.Tool(t, "prometheus-node-exporter")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = listener.Addr().String()
	listener.Close()
	serve := func() (stop func()) {
		cmd := exec.Command(program, append([]string{"--web.listen-address=" + address}, args...)...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	}
	stop := serve()
	t.Cleanup(func() { stop() })
	return address, func() { stop(); stop = serve() }
}
