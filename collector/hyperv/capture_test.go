package hyperv

import (
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/platform/winrm"
	"github.com/protip/protip/internal/platform/winrm/capture"
	sim "github.com/protip/protip/internal/sim/hyperv"
)

// TestCaptureIsWatched: what protip capture writes of a host, masked, is listed as the host was. So a capture of a real one is a test.
func TestCaptureIsWatched(t *testing.T) {
	for _, standalone := range []bool{false, true} {
		l := startLab(t, sim.Options{Nodes: uniform(1, 3), Standalone: standalone})
		dir := filepath.Join(t.TempDir(), "capture")
		if _, err := capture.Record(t.Context(), l.hosts(sim.DefaultPassword)[0], capture.Classes(), dir, func(capture.Entry) {}); err != nil {
			t.Fatal(err)
		}
		replay, _, err := capture.NewReplay(os.DirFS(dir))
		if err != nil {
			t.Fatal(err)
		}
		host := httptest.NewServer(replay)
		defer host.Close()

		c := clock.New(1)
		src, err := New(Options{Name: "hv", Interval: time.Minute, Clock: c, Observer: newObserver(t), Hosts: []winrm.Options{{
			URL: host.URL, Auth: winrm.Basic, AllowPlainBasic: true, Username: "any", Password: func() (string, error) { return "any", nil },
		}}})
		if err != nil {
			t.Fatal(err)
		}
		fleet := inventory.NewFleet(inventory.Source{Name: "hv", Interval: time.Minute})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		err = src.Watch(ctx, func(d inventory.Delta) {
			if _, err := fleet.Apply(d, c.Now()); err != nil {
				t.Error(err)
			}
			if d.Synced {
				cancel()
			}
		})
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("watch: %v", err)
		}
		snap := fleet.Snapshot()
		hosts, vms, clusters := 0, 0, 0
		for range snap.Clusters() {
			clusters++
		}
		for h := range snap.Hosts() {
			hosts++
			if h.Connection != inventory.Connected || h.MemoryBytes != 256<<30 || h.Cores == 0 {
				t.Errorf("standalone %t: host %+v", standalone, h.Host)
			}
		}
		for vm := range snap.VMs() {
			vms++
			if vm.Power != inventory.PowerOn || vm.VCPUs != 2 || vm.Host.IsZero() || vm.UUID == "" || vm.Name == "" || vm.GuestIP == "" {
				t.Errorf("standalone %t: VM %+v", standalone, vm.VM)
			}
		}
		if hosts != 1 || vms != 3 || clusters != map[bool]int{false: 1, true: 0}[standalone] {
			t.Errorf("standalone %t: %d clusters, %d hosts and %d VMs of a host of 3", standalone, clusters, hosts, vms)
		}
	}
}
