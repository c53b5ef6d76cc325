package sim

import (
	"context"
	"testing"
	"time"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/view"
	"github.com/vmware/govmomi/vim25/mo"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/sim/load"
)

func start(t testing.TB, cfg Config) *VCenter {
	t.Helper()
	vc, err := StartVCenter(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(vc.Close)
	return vc
}

func client(t testing.TB, vc *VCenter) *govmomi.Client {
	t.Helper()
	c, err := govmomi.NewClient(context.Background(), vc.Login(), true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Logout(context.Background()) })
	return c
}

func TestSmoke(t *testing.T) {
	vc := start(t, Config{Clock: clock.New(30), Load: load.Generator{Seed: 1}, Clusters: Uniform(4, 20)})
	c := client(t, vc)
	ctx := context.Background()
	v, err := view.NewManager(c.Client).CreateContainerView(ctx, c.ServiceContent.RootFolder, []string{"VirtualMachine", "HostSystem"}, true)
	if err != nil {
		t.Fatal(err)
	}
	var vms []mo.VirtualMachine
	if err := v.Retrieve(ctx, []string{"VirtualMachine"}, []string{"name", "summary", "config", "runtime", "guest"}, &vms); err != nil {
		t.Fatal(err)
	}
	if len(vms) != 20 {
		t.Fatal(len(vms))
	}
	t.Logf("%+v", vms[0].Summary.QuickStats)
	var hosts []mo.HostSystem
	if err := v.Retrieve(ctx, []string{"HostSystem"}, []string{"name", "summary.quickStats", "vm", "summary.hardware"}, &hosts); err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", hosts[0].Summary.QuickStats)
	_ = property.DefaultCollector
}

func BenchmarkStart(b *testing.B) {
	b.Run("vms=10000", func(b *testing.B) {
		for b.Loop() {
			vc, err := StartVCenter(Config{Clusters: Uniform(1000, 10000), Load: load.Generator{Seed: 1}, Clock: clock.New(30)})
			if err != nil {
				b.Fatal(err)
			}
			at := time.Now()
			vc.usage.sampleAt(vc.usage.latest())
			b.ReportMetric(float64(time.Since(at).Milliseconds()), "sample-ms")
			vc.Close()
		}
	})
}
