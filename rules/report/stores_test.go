package report

import (
	"bytes"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	promconfig "github.com/prometheus/common/config"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/history/promql"
	"github.com/protip/protip/internal/history/remote"
	"github.com/protip/protip/internal/history/tsdb"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/test/prom"
)

// TestSameOverPrometheus makes the reports over the embedded store and over a real Prometheus on a copy of its files: the same, to the
// last digit that is printed. In the range a VM moves, one is renamed, one goes and a host is silent for a while.
func TestSameOverPrometheus(t *testing.T) {
	prom.Tool(t, "prometheus")
	dir := t.TempDir()
	kept, err := tsdb.Open(tsdb.Options{
		Dir: dir, Retention: 400 * 24 * time.Hour, RollupRetention: 400 * 24 * time.Hour, Limits: promql.DefaultLimits(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	const days = 16
	live(t, kept, days)
	if err := kept.Close(); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(copied, os.DirFS(filepath.Join(dir, "raw"))); err != nil {
		t.Fatal(err)
	}
	near, err := tsdb.OpenReadOnly(tsdb.Options{
		Dir: dir, Retention: 400 * 24 * time.Hour, RollupRetention: 400 * 24 * time.Hour, Limits: promql.DefaultLimits(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := remote.New(remote.Options{URL: prom.Over(t, copied).URL, HTTP: promconfig.DefaultHTTPClientConfig, Timeout: time.Minute, Samples: 1e7})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		scope Scope
		days  int
	}{
		{"vm-allocation", Scope{}, 3}, {"vm-utilization", Scope{}, 3}, {"vm-utilization", Scope{Host: "esx-h2"}, 1}, {"host-utilization", Scope{}, 3}, {"growth", Scope{}, days}, {"candidates", Scope{}, 3},
	} {
		var texts [2]bytes.Buffer
		for i, past := range []history.Querier{near, far} {
			r := request(past, tc.days)
			r.Scope = tc.scope
			made := mustMake(t, tc.name, r)
			if tc.name == "candidates" {
				verdict, vcpus := cellOf(t, made.Tables[0], "db", "verdict"), cellOf(t, made.Tables[0], "db", "vcpus")
				if disk := cellOf(t, made.Tables[0], "db", "disk_p95_bytes_per_second"); verdict != "candidate" || vcpus != 4.0 || disk != 1e4 {
					t.Errorf("db is %v of %v vCPUs, its disks take %v a second", verdict, vcpus, disk)
				}
			}
			if len(made.Tables[0].Rows) == 0 {
				t.Errorf("%s of %s is empty", tc.name, tc.scope)
			}
			for _, write := range []func(io.Writer) error{made.JSON, made.CSV, made.HTML, made.Text} {
				if err := write(&texts[i]); err != nil {
					t.Fatal(err)
				}
			}
		}
		if !bytes.Equal(texts[0].Bytes(), texts[1].Bytes()) {
			t.Errorf("%s of %s:\n%s\nPrometheus:\n%s", tc.name, tc.scope, texts[0].String(), texts[1].String())
		}
	}
}

// live lives through some days in cycles of five minutes, with a history.
func live(t *testing.T, kept *tsdb.Store, days int) {
	t.Helper()
	id := func(kind inventory.Kind, ref string) inventory.ID {
		return inventory.ID{Source: "vc", Kind: kind, Ref: ref}
	}
	cluster := inventory.Cluster{ID: id(inventory.KindCluster, "c"), Name: "prod"}
	fleet := inventory.NewFleet(inventory.Source{Name: "vc", Platform: "vsphere", Interval: 5 * time.Minute})
	for i := range days * 288 {
		now := start.Add(time.Duration(i)*5*time.Minute + 17*time.Second)
		d := inventory.Delta{Source: "vc", Begin: i == 0, Synced: i == 0, Clusters: []inventory.Cluster{cluster}}
		for _, ref := range []string{"h1", "h2"} {
			d.Hosts = append(d.Hosts, inventory.Host{
				ID: id(inventory.KindHost, ref), Name: "esx-" + ref, Cluster: cluster.ID, Connection: inventory.Connected, Power: inventory.PowerOn, Cores: 16,
				CPUHertz: 40e9, MemoryBytes: 1 << 38,
			})
			if ref == "h2" && i > 3*288 && i < 3*288+40 {
				continue
			}
			d.Samples = append(d.Samples, inventory.SampleSet{ID: id(inventory.KindHost, ref), At: now.UnixMilli(), Values: []inventory.Value{
				{Metric: inventory.HostCPUUsage, Value: 1e10 + 1e9*math.Sin(float64(i)/46) + 2e6*float64(i)},
				{Metric: inventory.HostMemoryUsage, Value: 1e11 + 1e9*math.Cos(float64(i*i))},
				{Metric: inventory.HostCPUContention, Value: 0.01 + 0.01*math.Sin(float64(i))},
			}})
		}
		machine := inventory.Machine{ID: id(inventory.KindMachine, "db"), Name: "db", Model: "Dell Inc. PowerEdge R640", OS: "Debian", CPUs: 8, MemoryBytes: 1 << 35}
		d.Machines = append(d.Machines, machine)
		d.Samples = append(d.Samples, inventory.SampleSet{ID: machine.ID, At: now.UnixMilli(), Values: []inventory.Value{
			{Metric: inventory.MachineCPUUsageRatio, Value: 0.2 + 0.1*math.Sin(float64(i)/46)},
			{Metric: inventory.MachineMemoryUsage, Value: float64(1<<34 + i)},
			{Metric: inventory.MachineDiskRead, Value: 1e6 * float64(i)},
			{Metric: inventory.MachineDiskWrite, Value: 2e6 * float64(i)},
			{Metric: inventory.MachineNetworkReceive, Value: 3e6 * float64(i)},
			{Metric: inventory.MachineNetworkTransmit, Value: 4e6 * float64(i)},
		}})
		for n, ref := range []string{"v1", "v2", "v3"} {
			vm := inventory.VM{
				ID: id(inventory.KindVM, ref), Name: "vm " + ref, Host: d.Hosts[n%2].ID, Connection: inventory.Connected, Power: inventory.PowerOn, VCPUs: 4, MemoryBytes: 1 << 34,
				Tags: []inventory.Tag{{Category: "owner", Name: ref}},
			}
			switch {
			case n == 0 && i > 100:
				vm.Host = d.Hosts[1].ID
			case n == 1 && i > 150:
				vm.Name = "renamed"
			case n == 2 && i == 200:
				d.Removed = append(d.Removed, vm.ID)
				continue
			case n == 2 && i > 200:
				continue
			}
			d.VMs = append(d.VMs, vm)
			d.Samples = append(d.Samples, inventory.SampleSet{ID: vm.ID, At: now.UnixMilli(), Values: []inventory.Value{
				{Metric: inventory.VMCPUUsage, Value: 1e9 + 1e7*float64((i*7919)%100)},
				{Metric: inventory.VMMemoryUsage, Value: float64(1<<33 + i)},
				{Metric: inventory.VMCPUContention, Value: 0.001 * float64(i%7)},
			}})
		}
		if _, err := fleet.Apply(d, now); err != nil {
			t.Fatal(err)
		}
		fleet.Expire(now)
		if err := kept.Append(fleet.Snapshot(), now); err != nil {
			t.Fatal(err)
		}
	}
}
