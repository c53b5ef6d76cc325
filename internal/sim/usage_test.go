package sim

import (
	"math"
	"testing"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/performance"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/sim/load"
)

// query asks a stock performance manager for the newest samples of counters by name.
func query(t testing.TB, c *vim25.Client, spec types.PerfQuerySpec, entities []ref, names ...string) map[ref]map[string][]int64 {
	t.Helper()
	m := performance.NewManager(c)
	if spec.IntervalId == 0 {
		spec.IntervalId = 20
	}
	raw, err := m.SampleByName(t.Context(), spec, names, entities)
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := m.ToMetricSeries(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	out := map[ref]map[string][]int64{}
	for _, e := range metrics {
		out[e.Entity] = map[string][]int64{}
		for _, s := range e.Value {
			out[e.Entity][s.Name] = s.Value
		}
	}
	return out
}

// TestQuickStatsAndCountersAgree compares both for all VMs and hosts within one sample, and adds VMs up.
func TestQuickStatsAndCountersAgree(t *testing.T) {
	vc := start(t, Config{Clock: clock.New(1), Load: load.Generator{Seed: 4}, Clusters: Uniform(3, 30)})
	c := client(t, vc)
	names := []string{"cpu.usagemhz.average", "mem.consumed.average", "mem.active.average", "cpu.ready.summation"}

	var vms []mo.VirtualMachine
	var hosts []mo.HostSystem
	var counters map[ref]map[string][]int64
	for { // until everything was read within one sample
		before := vc.usage.latest()
		if err := viewOf(t, c, "VirtualMachine").Retrieve(t.Context(), []string{"VirtualMachine"}, []string{"runtime.host", "summary.quickStats"}, &vms); err != nil {
			t.Fatal(err)
		}
		if err := viewOf(t, c, "HostSystem").Retrieve(t.Context(), []string{"HostSystem"}, []string{"summary.quickStats"}, &hosts); err != nil {
			t.Fatal(err)
		}
		counters = query(t, c.Client, types.PerfQuerySpec{MaxSample: 1}, append(vc.VMs(), vc.Hosts()...), names...)
		if vc.usage.latest().Equal(before) {
			break
		}
	}
	sums := map[ref]int64{}
	ready := map[ref]int64{}
	for _, vm := range vms {
		q, p := vm.Summary.QuickStats, counters[vm.Self]
		if q.OverallCpuUsage == 0 || int64(q.OverallCpuUsage) != p["cpu.usagemhz.average"][0] {
			t.Errorf("%s: quick stats say %d MHz, counters %v", vm.Self.Value, q.OverallCpuUsage, p["cpu.usagemhz.average"])
		}
		if int64(q.HostMemoryUsage) != p["mem.consumed.average"][0]/1024 || int64(q.GuestMemoryUsage) != p["mem.active.average"][0]/1024 {
			t.Errorf("%s: quick stats say %d and %d MB, counters %v", vm.Self.Value, q.HostMemoryUsage, q.GuestMemoryUsage, p)
		}
		sums[*vm.Runtime.Host] += int64(q.OverallCpuUsage)
		ready[*vm.Runtime.Host] += p["cpu.ready.summation"][0]
	}
	for _, h := range hosts {
		q, p := h.Summary.QuickStats, counters[h.Self]
		if int64(q.OverallCpuUsage) != sums[h.Self] || p["cpu.usagemhz.average"][0] != sums[h.Self] {
			t.Errorf("%s: quick stats say %d MHz, counters %v, its VMs together %d", h.Self.Value, q.OverallCpuUsage, p["cpu.usagemhz.average"], sums[h.Self])
		}
		if p["cpu.ready.summation"][0] != ready[h.Self] || int64(q.OverallMemoryUsage) != p["mem.consumed.average"][0]/1024 {
			t.Errorf("%s: %+v and %v", h.Self.Value, q, p)
		}
	}
}

// one host of 10 cores of 1000 MHz and 100 GiB, with VMs of 4 vCPUs and 16 GiB.
func tenCores(vms int) []Cluster {
	host := Host{Name: "esx1", Cores: 10, MHz: 1000, MemoryBytes: 100 << 30}
	for range vms {
		host.VMs = append(host.VMs, VM{Name: "vm", VCPUs: 4, MemoryBytes: 16 << 30})
	}
	return []Cluster{{Name: "c", Hosts: []Host{host, {Name: "esx2", Cores: 10, MHz: 1000, MemoryBytes: 100 << 30}}}}
}

func TestHostDeliversWhatItCan(t *testing.T) {
	for _, tt := range []struct {
		name              string
		cpu               []float64
		host              int64 // MHz
		contention        float64
		delivered, demand int64 // of the first VM
	}{
		{"calm", []float64{0.5, 0.5}, 4000, 0.005, 2000, 2000},
		{"warm", []float64{0.75, 0.75, 0.75}, 9000, 0.005 + 0.6*0.1, 3000, 3000},
		{"full", []float64{1, 1, 0.5}, 10000, 0.005 + 0.6*0.2, 4000, 4000},
		{"twice what it has", []float64{1, 1, 1, 1, 1}, 10000, 0.005 + 0.12 + 0.5, 2000, 4000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			vc := start(t, Config{Load: busy(tt.cpu...), Clusters: tenCores(len(tt.cpu))})
			s := vc.usage.sampleAt(vc.usage.latest())
			h, v := s.hosts[vc.Hosts()[0]], s.vms[vc.VMs()[0]]
			if h.usageMHz != tt.host || v.usageMHz != tt.delivered || v.demandMHz != tt.demand {
				t.Errorf("host %d MHz, VM %d of %d MHz", h.usageMHz, v.usageMHz, v.demandMHz)
			}
			if got := float64(v.readyMs) / (4 * 20000); math.Abs(got-tt.contention) > 0.001 {
				t.Errorf("contention %.4f, want %.4f", got, tt.contention)
			}
			if v.costopMs == 0 || v.costopMs > v.readyMs {
				t.Errorf("co-stop %d ms of %d ms ready", v.costopMs, v.readyMs)
			}
			if h.usagePercent100 != tt.host {
				t.Errorf("usage %d hundredths of a percent", h.usagePercent100)
			}
		})
	}
}

func TestMemoryIsTakenBack(t *testing.T) {
	full := load.Steady(load.Use{MemoryConsumed: 1, MemoryActive: 0.5})
	for _, tt := range []struct {
		vms              int
		balloon, swapped bool
	}{{5, false, false}, {8, true, false}, {20, true, true}} {
		vc := start(t, Config{Load: full, Clusters: tenCores(tt.vms)})
		s := vc.usage.sampleAt(vc.usage.latest())
		h, v := s.hosts[vc.Hosts()[0]], s.vms[vc.VMs()[0]]
		if (v.balloonKB > 0) != tt.balloon || (v.swappedKB > 0) != tt.swapped {
			t.Errorf("%d VMs: %d KB by balloon, %d swapped", tt.vms, v.balloonKB, v.swappedKB)
		}
		if limit := int64(0.94 * 100 << 20); h.consumedKB > limit {
			t.Errorf("%d VMs: host gives %d KB, has %d to give", tt.vms, h.consumedKB, limit)
		}
		if v.consumedKB+v.balloonKB+v.swappedKB < 16<<20-3 {
			t.Errorf("%d VMs: %d + %d + %d KB are not the VM's 16 GiB", tt.vms, v.consumedKB, v.balloonKB, v.swappedKB)
		}
	}
}

func TestDemandFollowsTheVM(t *testing.T) {
	c := clock.New(600)
	vc := start(t, Config{Clock: c, Load: busy(0.75, 0.75, 0.75), Clusters: tenCores(3)})
	hosts, vm := vc.Hosts(), vc.VMs()[0]
	before := vc.usage.latest()
	vc.usage.moved(vm, hosts[1])
	eventually(t, "a new sample", func() bool {
		return vc.usage.latest().After(c.Now().Add(-20*time.Second)) && vc.usage.latest().After(before)
	})
	was, is := vc.usage.sampleAt(before), vc.usage.sampleAt(vc.usage.latest())
	if was.hosts[hosts[0]].usageMHz != 9000 || was.hosts[hosts[1]].usageMHz != 0 {
		t.Errorf("the past changed: %+v", was.hosts)
	}
	if is.hosts[hosts[0]].usageMHz != 6000 || is.hosts[hosts[1]].usageMHz != 3000 {
		t.Errorf("after the move: %+v", is.hosts)
	}
	if was.vms[vm].readyMs <= is.vms[vm].readyMs {
		t.Errorf("the VM waits %d ms after %d", is.vms[vm].readyMs, was.vms[vm].readyMs)
	}
}

func TestDisconnectedHostIsNotMeasured(t *testing.T) {
	vc := start(t, Config{Clock: clock.New(600), Load: busy(0.5), Clusters: tenCores(1)})
	c := client(t, vc)
	host, vm := vc.Hosts()[0], vc.VMs()[0]
	if err := vc.SetConnection(host, types.HostSystemConnectionStateNotResponding); err != nil {
		t.Fatal(err)
	}
	lost := vc.clock.Now()
	eventually(t, "a sample after the connection broke", func() bool { return vc.usage.latest().After(lost) })
	start := lost.Add(20 * time.Second)
	got := query(t, c.Client, types.PerfQuerySpec{StartTime: &start}, []ref{host, vm}, "cpu.usagemhz.average")
	if len(got[host])+len(got[vm]) != 0 {
		t.Errorf("samples of a host that is not connected: %v", got)
	}
	if s := get[mo.VirtualMachine](t, c.Client, vm, "runtime.connectionState"); s.Runtime.ConnectionState != types.VirtualMachineConnectionStateDisconnected {
		t.Errorf("its VM is %s", s.Runtime.ConnectionState)
	}
	task, err := object.NewHostSystem(c.Client, host).Reconnect(ctx, nil, nil)
	if err == nil {
		err = task.Wait(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "samples again", func() bool {
		return len(query(t, c.Client, types.PerfQuerySpec{MaxSample: 1}, []ref{vm}, "cpu.usagemhz.average")[vm]) == 1
	})
	if task, err = object.NewHostSystem(c.Client, host).Disconnect(ctx); err == nil {
		err = task.Wait(ctx)
	}
	if s := get[mo.HostSystem](t, c.Client, host, "runtime.connectionState"); err != nil || s.Runtime.ConnectionState != types.HostSystemConnectionStateDisconnected {
		t.Errorf("disconnected by a client it is %s, %v", s.Runtime.ConnectionState, err)
	}
}
