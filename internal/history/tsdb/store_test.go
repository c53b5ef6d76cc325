package tsdb

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/history/promql"
	"github.com/protip/protip/internal/inventory"
)

// epoch begins a window of roll-ups.
var epoch = time.UnixMilli(1_700_000_000_000).Truncate(window)

func options(dir string) Options {
	return Options{
		Dir: dir, Retention: 15 * 24 * time.Hour, RollupRetention: 400 * 24 * time.Hour, Limits: promql.DefaultLimits(),
		Log: slog.New(slog.DiscardHandler), reserve: func(uint64) uint64 { return 0 },
	}
}

func open(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// rig is a small fleet and its history, and the time.
type rig struct {
	*Store
	t     testing.TB
	fleet *inventory.Fleet
	now   time.Time
}

func newRig(t testing.TB, o Options) *rig {
	r := &rig{Store: open(t, o), t: t, now: epoch}
	r.fleet = inventory.NewFleet(
		inventory.Source{Name: "lab", Platform: "vsphere", Interval: 20 * time.Second},
		inventory.Source{Name: "dead", Platform: "vsphere", Interval: 20 * time.Second},
	)
	r.fleet.Down("dead", errors.New("no route to host"))
	r.apply(inventory.Delta{
		Begin: true, Synced: true,
		Clusters: []inventory.Cluster{{ID: id(inventory.KindCluster, "c1"), Name: "Berlin", HA: inventory.HA{Enabled: true, Policy: "percentage"}}},
		Hosts:    []inventory.Host{host("h1"), host("h2")},
		VMs:      []inventory.VM{vm("vm1", "h1"), vm("vm2", "h1")},
	})
	return r
}

func id(kind inventory.Kind, ref string) inventory.ID {
	return inventory.ID{Source: "lab", Kind: kind, Ref: ref}
}

func host(ref string) inventory.Host {
	return inventory.Host{
		ID: id(inventory.KindHost, ref), Name: "esx-" + ref, Cluster: id(inventory.KindCluster, "c1"), Connection: inventory.Connected,
		Power: inventory.PowerOn, Cores: 16, CPUHertz: 16 * 2.4e9, MemoryBytes: 64 << 30, Version: "8.0.3",
	}
}

func vm(ref, on string) inventory.VM {
	return inventory.VM{
		ID: id(inventory.KindVM, ref), Name: "name-" + ref, Host: id(inventory.KindHost, on), Connection: inventory.Connected,
		Power: inventory.PowerOn, VCPUs: 4, MemoryBytes: 8 << 30, GuestOS: "Debian",
	}
}

func (r *rig) apply(d inventory.Delta) {
	r.t.Helper()
	d.Source = "lab"
	if _, err := r.fleet.Apply(d, r.now); err != nil {
		r.t.Fatal(err)
	}
}

// measure is a sample of one object, now.
func (r *rig) measure(of inventory.ID, m inventory.Metric, v float64) {
	r.t.Helper()
	r.apply(inventory.Delta{Samples: []inventory.SampleSet{{ID: of, At: r.now.UnixMilli(), Values: []inventory.Value{{Metric: m, Value: v}}}}})
}

// cycle appends the fleet as it is.
func (r *rig) cycle() {
	r.t.Helper()
	r.fleet.Expire(r.now)
	if err := r.Append(r.fleet.Snapshot(), r.now); err != nil {
		r.t.Fatal(err)
	}
}

// want holds an instant query now against lines of labels and value.
func (r *rig) want(expr string, lines ...string) {
	r.t.Helper()
	v, err := r.Query(r.t.Context(), expr, r.now)
	if err != nil {
		r.t.Errorf("%s: %v", expr, err)
		return
	}
	got := text(v)
	slices.Sort(got)
	slices.Sort(lines)
	if !slices.Equal(got, lines) {
		r.t.Errorf("%s at %s:\n%s\nwant:\n%s", expr, r.now.Sub(epoch), strings.Join(got, "\n"), strings.Join(lines, "\n"))
	}
}

func text(v history.Vector) []string {
	out := []string{}
	for _, s := range v {
		var ls []string
		for _, l := range s.Labels {
			if l.Name != "__name__" {
				ls = append(ls, l.Name+"="+l.Value)
			}
		}
		out = append(out, fmt.Sprintf("%s %v", strings.Join(ls, ","), s.Value))
	}
	return out
}

func (r *rig) after(d time.Duration) { r.now = r.now.Add(d) }

var (
	vm1 = id(inventory.KindVM, "vm1")
	vm2 = id(inventory.KindVM, "vm2")
	h1  = id(inventory.KindHost, "h1")
)

func TestWhatIsKept(t *testing.T) {
	r := newRig(t, options(t.TempDir()))
	r.measure(vm1, inventory.VMCPUUsage, 3e9)
	r.measure(vm1, inventory.VMCPUDemand, 4e9)
	r.measure(h1, inventory.HostCPUUsageRatio, 0.5)
	r.cycle()
	r.want("virt_vm_cpu_usage_hertz", "source=lab,vm=name-vm1,vm_id=vm1 3e+09")
	r.want("virt_vm_cpu_demand_hertz") // nobody asks for it
	r.want("virt_host_cpu_usage_ratio", "host=esx-h1,host_id=h1,source=lab 0.5")
	r.want("virt_vm_info",
		"cluster_id=c1,guest_os=Debian,host=esx-h1,host_id=h1,source=lab,virt_cluster=Berlin,vm=name-vm1,vm_id=vm1 1",
		"cluster_id=c1,guest_os=Debian,host=esx-h1,host_id=h1,source=lab,virt_cluster=Berlin,vm=name-vm2,vm_id=vm2 1")
	r.want("virt_host_vms", "host=esx-h1,host_id=h1,source=lab 2", "host=esx-h2,host_id=h2,source=lab 0")
	r.want("protip_source_up", "source=dead 0", "source=lab 1")
	r.want("sum(virt_vm_vcpus)", " 8")

	r.Want([]string{"virt_vm_cpu_demand_hertz", "node_load1"})
	r.after(20 * time.Second)
	r.cycle()
	r.want("virt_vm_cpu_demand_hertz", "source=lab,vm=name-vm1,vm_id=vm1 4e+09")
	r.Want(nil)
	r.after(20 * time.Second)
	r.cycle()
	r.want("virt_vm_cpu_demand_hertz")
}

func TestWhatIsOverIsOverAtOnce(t *testing.T) {
	r := newRig(t, options(t.TempDir()))
	r.measure(vm1, inventory.VMCPUUsage, 3e9)
	r.measure(vm2, inventory.VMCPUUsage, 1e9)
	r.cycle()
	moved := vm("vm1", "h2")
	r.after(20 * time.Second)
	r.apply(inventory.Delta{VMs: []inventory.VM{moved}})
	r.cycle()
	r.want(`virt_vm_info{vm_id="vm1"}`, "cluster_id=c1,guest_os=Debian,host=esx-h2,host_id=h2,source=lab,virt_cluster=Berlin,vm=name-vm1,vm_id=vm1 1")
	r.want(`virt_vm_cpu_usage_hertz * on (source, vm_id) group_left (host) virt_vm_info{vm_id="vm1"}`, "host=esx-h2,source=lab,vm=name-vm1,vm_id=vm1 3e+09")
	r.want("virt_host_vms", "host=esx-h1,host_id=h1,source=lab 1", "host=esx-h2,host_id=h2,source=lab 1")

	r.after(20 * time.Second) // two intervals old, and not older
	r.cycle()
	r.want("count(virt_vm_cpu_usage_hertz)", " 2")
	r.after(20 * time.Second)
	r.fleet.Down("lab", errors.New("gone"))
	r.cycle()
	r.want("virt_vm_cpu_usage_hertz")
	r.want("count(virt_vm_info)", " 2")
	r.want("protip_source_up", "source=dead 0", "source=lab 0")

	renamed := moved
	renamed.Name = "other"
	r.after(20 * time.Second)
	r.apply(inventory.Delta{VMs: []inventory.VM{renamed}, Removed: []inventory.ID{vm2}})
	r.measure(vm1, inventory.VMCPUUsage, 2e9)
	r.cycle()
	r.want("virt_vm_cpu_usage_hertz", "source=lab,vm=other,vm_id=vm1 2e+09")
	r.want("virt_vm_powered_on", "source=lab,vm=other,vm_id=vm1 1")
	off := renamed
	off.Power, off.Tags = inventory.PowerOff, []inventory.Tag{{Category: "env", Name: "prod"}, {Category: "env", Name: "\xff"}}
	r.after(20 * time.Second)
	r.apply(inventory.Delta{VMs: []inventory.VM{off}})
	r.cycle()
	r.want("virt_vm_powered_on", "source=lab,vm=other,vm_id=vm1 0")
	r.want("virt_vm_tag_info", "category=env,source=lab,tag=prod,vm=other,vm_id=vm1 1", "category=env,source=lab,tag=\uFFFD,vm=other,vm_id=vm1 1")
}

// TestWhatDoesNotChangeCostsLittle holds that a cycle writes what is new, and each minute what a selector would miss.
func TestWhatDoesNotChangeCostsLittle(t *testing.T) {
	reg := prometheus.NewRegistry()
	o := options(t.TempDir())
	o.Registerer = reg
	r := newRig(t, o)
	written := func() float64 {
		before := testutil.ToFloat64(r.metrics.samples)
		r.cycle()
		return testutil.ToFloat64(r.metrics.samples) - before
	}
	all := written()
	r.after(20 * time.Second)
	if n := written(); n != 4 { // the sources' own
		t.Errorf("%v samples of a fleet at rest", n)
	}
	r.after(20 * time.Second)
	r.measure(vm1, inventory.VMCPUUsage, 3e9)
	if n := written(); n != 5 {
		t.Errorf("%v samples after one sample", n)
	}
	r.after(20 * time.Second)
	if n := written(); n != all+1 {
		t.Errorf("%v samples after a minute, want %v", n, all+1)
	}
	if n := written(); n != 0 {
		t.Errorf("%v samples at the same time", n)
	}
	for range 20 {
		r.after(30 * time.Second)
		r.cycle()
		r.want("count(virt_vm_info)", " 2")
	}
}

func TestAfterARestart(t *testing.T) {
	dir := t.TempDir()
	r := newRig(t, options(dir))
	r.measure(vm1, inventory.VMCPUUsage, 3e9)
	r.cycle()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.Store = open(t, options(dir))
	r.want("virt_vm_cpu_usage_hertz", "source=lab,vm=name-vm1,vm_id=vm1 3e+09")
	r.after(time.Minute)
	r.apply(inventory.Delta{VMs: []inventory.VM{vm("vm1", "h2")}, Removed: []inventory.ID{vm2}})
	r.cycle()
	r.want("virt_vm_info", "cluster_id=c1,guest_os=Debian,host=esx-h2,host_id=h2,source=lab,virt_cluster=Berlin,vm=name-vm1,vm_id=vm1 1")
	r.want("virt_vm_cpu_usage_hertz")
}

func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenReadOnly(options(dir)); err == nil {
		t.Error("an empty directory was opened")
	}
	r := newRig(t, options(dir))
	r.measure(vm1, inventory.VMCPUUsage, 3e9)
	for range 400 { // longer than a block
		r.after(time.Minute)
		r.cycle()
	}
	r.Maintain(t.Context(), r.now)
	if _, err := OpenReadOnly(options(dir)); !errors.Is(err, ErrLocked) {
		t.Errorf("beside a writer: %v", err)
	}
	const expr = `count_over_time(virt_host_maintenance{host_id="h1"}[1d])`
	r.want(expr, "host=esx-h1,host_id=h1,source=lab 400")
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	before := size(dir)
	reader, err := OpenReadOnly(options(dir))
	if err != nil {
		t.Fatal(err)
	}
	writer := open(t, options(dir))
	r.Store = reader
	r.want(expr, "host=esx-h1,host_id=h1,source=lab 400")
	r.Store = writer
	r.want(expr, "host=esx-h1,host_id=h1,source=lab 400")
	if err := errors.Join(reader.Close(), writer.Close()); err != nil {
		t.Error(err)
	}
	if after := size(dir); after < before {
		t.Errorf("%d bytes before, %d after", before, after)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, readPrefix+"*")); len(left) > 0 {
		t.Errorf("left behind: %s", left)
	}
}

func TestOneWriter(t *testing.T) {
	dir := t.TempDir()
	s := open(t, options(dir))
	if _, err := Open(options(dir)); !errors.Is(err, ErrLocked) {
		t.Errorf("a second store: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Query(t.Context(), "up", epoch); !errors.Is(err, ErrUnavailable) || errors.Is(err, history.ErrQuery) {
		t.Errorf("a closed store: %v", err)
	}
	open(t, options(dir))
	o := options(t.TempDir())
	o.Families = []string{"virt_vm_cpu_usage"}
	if _, err := Open(o); err == nil || !strings.Contains(err.Error(), "virt_vm_cpu_usage") {
		t.Errorf("an unknown family: %v", err)
	}
}

// TestRollUps lets five days pass and asks for more than raw samples go back.
func TestRollUps(t *testing.T) {
	o := options(t.TempDir())
	o.Retention = 24 * time.Hour
	r := newRig(t, o)
	const days = 5
	var sum, n float64
	cycles := days * 24 * 60
	for i := range cycles {
		r.after(time.Minute)
		v := float64(i % 60)
		sum, n = sum+v, n+1
		r.measure(vm1, inventory.VMCPUUsage, v)
		r.measure(vm1, inventory.VMNetworkReceive, float64(i)*60)
		r.cycle()
		if i%60 == 0 {
			if i == 2*24*60 {
				r.apply(inventory.Delta{VMs: []inventory.VM{vm("vm1", "h2")}})
			}
			r.Maintain(t.Context(), r.now)
		}
	}
	r.Maintain(t.Context(), r.now)
	if from, err := r.raw.StartTime(); err != nil || r.now.Sub(time.UnixMilli(from)) > 3*24*time.Hour {
		t.Fatalf("raw samples since %s, %v", time.UnixMilli(from), err)
	}
	r.waitBlocks()
	near := func(expr string, want float64) {
		t.Helper()
		v, err := r.Query(t.Context(), expr, r.now)
		if err != nil || len(v) != 1 || v[0].Value < want*0.999 || v[0].Value > want*1.001 {
			t.Errorf("%s = %v, %v, want %v", expr, v, err, want)
		}
	}
	near(`avg_over_time(virt_vm_cpu_usage_hertz[5d])`, sum/n)
	near(`max_over_time(virt_vm_cpu_usage_hertz[5d])`, 57) // of means of five minutes
	near(`max_over_time({__name__="virt_vm_cpu_usage_hertz:max5m"}[5d])`, 59)
	near(`max_over_time({__name__="virt_vm_cpu_usage_hertz:max5m"}[1h])`, 59)
	near(`max_over_time(virt_vm_cpu_usage_hertz[1h])`, 59)
	near(`rate(virt_vm_network_receive_bytes_total[4d])`, 1)
	near(`count_over_time(virt_vm_cpu_usage_hertz[4d])`, 4*24*12)

	// A migration is never two places at once, however it is looked at.
	m, err := r.QueryRange(t.Context(), `count by (vm_id) (virt_vm_info)`, history.Range{Start: epoch.Add(time.Hour), End: r.now, Step: 7 * time.Minute})
	if err != nil || len(m) != 2 {
		t.Fatalf("%d series, %v", len(m), err)
	}
	for _, series := range m {
		for _, p := range series.Points {
			if p.V != 1 {
				t.Fatalf("%s is in %v places at %s", series.Labels.Get("vm_id"), p.V, time.UnixMilli(p.T))
			}
		}
		if want := int((days*24 - 1) * 60 / 7); len(series.Points) < want {
			t.Errorf("%s has %d points, want %d", series.Labels.Get("vm_id"), len(series.Points), want)
		}
	}
	m, err = r.QueryRange(t.Context(), `sum by (host) (virt_vm_cpu_usage_hertz * on (source, vm_id) group_left (host) virt_vm_info)`,
		history.Range{Start: epoch.Add(time.Hour), End: r.now, Step: time.Hour})
	if err != nil || len(m) != 2 {
		t.Errorf("%d hosts, %v", len(m), err)
	}
}

// waitBlocks waits until the roll-ups that are written are read as well.
func (r *rig) waitBlocks() {
	r.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		blocks := r.rolled.Blocks()
		if n := len(blocks); n > 0 && windowAfter(blocks[n-1].Meta().MaxTime-1) >= r.rolledTo {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatal("roll-ups were not read within a minute")
		}
	}
}

// TestAllAtOnce lets everything happen at the same time, for the race detector.
func TestAllAtOnce(t *testing.T) {
	r := newRig(t, options(t.TempDir()))
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := r.Query(t.Context(), `avg_over_time(virt_vm_cpu_usage_hertz[1d])`, epoch.Add(time.Hour)); err != nil && !errors.Is(err, ErrUnavailable) {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 30 {
			r.Maintain(t.Context(), epoch.Add(time.Duration(i)*time.Hour))
			if i%10 == 5 {
				r.broken.set(errors.New("on purpose"))
			}
		}
		close(done)
	})
	for i := range 300 {
		r.after(5 * time.Minute)
		r.measure(vm1, inventory.VMCPUUsage, float64(i))
		_ = r.Append(r.fleet.Snapshot(), r.now)
	}
	wg.Wait()
}

func TestDefaultIsKnown(t *testing.T) {
	names := Default()
	if err := CheckFamilies(names); err != nil {
		t.Error(err)
	}
	vms := 0
	for _, name := range names {
		if strings.HasPrefix(name, "virt_vm_") {
			vms++
		}
	}
	if vms != 21 { // of which four are written only where there are reservations, or where the configuration names them
		t.Errorf("%d families of a VM", vms)
	}
}
