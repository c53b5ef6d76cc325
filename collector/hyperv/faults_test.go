package hyperv

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/internal/inventory"
	sim "github.com/protip/protip/internal/sim/hyperv"
)

// following is a source that fills a fleet.
type following struct {
	*lab
	o     *observer
	fleet *inventory.Fleet
	done  chan error
}

func (l *lab) follow() *following {
	l.t.Helper()
	o := newObserver(l.t)
	f := &following{l, o, inventory.NewFleet(inventory.Source{Name: "hv", Interval: interval}), make(chan error, 1)}
	src := l.source(o)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		f.done <- src.Watch(ctx, func(d inventory.Delta) {
			if _, err := f.fleet.Apply(d, l.clock.Now()); err != nil {
				l.t.Error(err)
			}
		})
	}()
	l.t.Cleanup(func() {
		cancel()
		select {
		case <-f.done:
		case <-time.After(10 * time.Second):
			l.t.Error("Watch does not end")
		}
	})
	return f
}

// await polls what the fleet has, values that grew old taken away.
func (f *following) await(what string, ok func(s *inventory.Snapshot) bool) {
	f.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		f.fleet.Expire(f.clock.Now())
		if ok(f.fleet.Snapshot()) {
			return
		}
		if time.Now().After(end) {
			f.t.Fatalf("not within 30 s: %s", what)
		}
	}
}

func vmValue(s *inventory.Snapshot, guid string, m inventory.Metric) (float64, bool) {
	v, ok := s.VM(vmID(guid))
	if !ok {
		return 0, false
	}
	return v.Samples.Value(m)
}

func hostValue(s *inventory.Snapshot, name string, m inventory.Metric) (float64, bool) {
	h, ok := s.Host(hostID(name))
	if !ok {
		return 0, false
	}
	return h.Samples.Value(m)
}

// measured is a VM of which all is told.
func measured(s *inventory.Snapshot, guid string) bool {
	_, cpu := vmValue(s, guid, inventory.VMCPUUsage)
	_, waits := vmValue(s, guid, inventory.VMCPUContention)
	return cpu && waits
}

// TestTruth holds what is told against what the simulated cluster knows to be so, on an English and on a German host.
func TestTruth(t *testing.T) {
	t.Parallel()
	for _, locale := range []string{"en-US", "de-DE"} {
		t.Run(locale, func(t *testing.T) {
			t.Parallel()
			nodes := uniform(2, 3)
			nodes[0].VMs[0].AntiAffinity, nodes[1].VMs[0].AntiAffinity = []string{"apart"}, []string{"apart"}
			nodes[0].VMs[1].Priority = 3000
			nodes[0].Switches, nodes[1].Switches = []string{sim.DefaultSwitch, "Lab"}, []string{"external", "Other"}
			nodes[0].VMs[1].Switches, nodes[0].VMs[2].Switches = []string{"Lab", sim.DefaultSwitch}, []string{}
			for i := range nodes[1].VMs {
				nodes[1].VMs[i].Switches = []string{"external"}
			}
			nodes[1].VMs = append(nodes[1].VMs, sim.VM{Name: "alone", MemoryBytes: 1 << 30, Unclustered: true}, sim.VM{Name: "off", MemoryBytes: 1 << 30, Off: true})
			l := startLab(t, sim.Options{Nodes: nodes, Locale: locale})
			f := l.follow()
			ids := l.VMs()
			near := func(what string, got, want float64) {
				t.Helper()
				if math.Abs(got-want) > 0.02*want+1e-9 {
					t.Errorf("%s is %v, want %v", what, got, want)
				}
			}
			f.await("all is measured", func(s *inventory.Snapshot) bool {
				_, cpu := hostValue(s, "hv-01", inventory.HostCPUUsageRatio)
				_, root := hostValue(s, "hv-01", inventory.HostCPURoot)
				return measured(s, ids[0]) && cpu && root
			})
			s := f.fleet.Snapshot()
			vm, _ := s.VM(vmID(ids[0]))
			get := func(m inventory.Metric) float64 {
				v, ok := vm.Samples.Value(m)
				if !ok {
					t.Errorf("%v is absent", m)
				}
				return v
			}
			truth := l.Truth(ids[0])
			near("CPU", get(inventory.VMCPUUsage), 0.303*2*2.5e9) // with what the hypervisor does for it
			near("contention", get(inventory.VMCPUContention), 0.005)
			near("memory", get(inventory.VMMemoryUsage), truth.AssignedBytes)
			if demand := get(inventory.VMMemoryDemand); math.Abs(demand-truth.DemandedBytes) > 0.01*truth.AssignedBytes { // pressure is a whole percentage
				t.Errorf("demand is %v, want %v", demand, truth.DemandedBytes)
			}
			near("heartbeat", get(inventory.VMHeartbeat), 1)
			for _, m := range []inventory.Metric{inventory.VMDiskRead, inventory.VMDiskWrite, inventory.VMNetworkReceive, inventory.VMNetworkTransmit, inventory.VMUptime} {
				if get(m) <= 0 {
					t.Errorf("%v is nothing", m)
				}
			}
			if vm.Name != "vm-1-1" || vm.VCPUs != 2 || vm.MemoryBytes != 4<<30 || vm.GuestIP != "10.0.0.1" || vm.GuestHostname != "vm-1-1.example.org" ||
				len(vm.MACs) != 1 || !strings.HasPrefix(vm.MACs[0], "00:15:5d:") || vm.Availability != inventory.HighlyAvailable || len(vm.Datastores) != 1 || vm.UUID == "" {
				t.Errorf("facts of the VM: %+v", *vm.VM)
			}
			alone, _ := s.VM(vmID(ids[6]))
			off, _ := s.VM(vmID(ids[7]))
			if alone.Availability != inventory.NotHighlyAvailable || alone.Host != hostID("hv-02") || off.Power != inventory.PowerOff {
				t.Errorf("VM alone is %+v, VM off %+v", *alone.VM, *off.VM)
			}
			h, _ := s.Host(hostID("hv-01"))
			usage, _ := hostValue(s, "hv-01", inventory.HostCPUUsageRatio)
			want, memory := l.HostUse("hv-01")
			near("host's CPU", usage, want)
			used, _ := hostValue(s, "hv-01", inventory.HostMemoryUsage)
			near("host's memory", used, memory)
			root, _ := hostValue(s, "hv-01", inventory.HostCPURoot)
			near("root's share", root, 0.021)
			if h.Cores != 16 || h.CPUHertz != 16*2.5e9 || h.MemoryBytes != 256<<30 || h.Connection != inventory.Connected || h.Maintenance {
				t.Errorf("facts of the host: %+v", *h.Host)
			}
			clusterID := inventory.ID{Source: "hv", Kind: inventory.KindCluster, Ref: "hvc-01"}
			c, _ := s.Cluster(clusterID)
			if !c.HA.Enabled || c.RestartPriorities[vmID(ids[1])] != "high" || len(c.Rules) != 1 || len(c.Rules[0].VMs) != 2 || h.Cluster != clusterID {
				t.Errorf("the cluster: %+v", *c)
			}
			network := func(refs ...string) (ids []inventory.ID) {
				for _, ref := range refs {
					ids = append(ids, inventory.ID{Source: "hv", Kind: inventory.KindNetwork, Ref: ref})
				}
				return ids
			}
			other, _ := s.Host(hostID("hv-02"))
			if !slices.Equal(h.Networks, network("external", "lab")) || !slices.Equal(other.Networks, network("external", "other")) {
				t.Errorf("hv-01 has the networks %v, hv-02 %v", h.Networks, other.Networks)
			}
			if n, ok := s.Network(network("external")[0]); !ok || n.Name != sim.DefaultSwitch {
				t.Errorf("network %+v", n)
			}
			for i, want := range [][]inventory.ID{network("external"), network("external", "lab"), nil, network("external")} {
				if vm, _ := s.VM(vmID(ids[i])); !slices.Equal(vm.Networks, want) {
					t.Errorf("VM %d is attached to %v, want %v", i, vm.Networks, want)
				}
			}
			for ds := range s.Datastores() {
				if free, ok := ds.Samples.Value(inventory.DatastoreFree); !ok || free <= 0 || ds.CapacityBytes <= free || len(ds.Mounts) != 2 || ds.Name != "Volume1" {
					t.Errorf("datastore %+v has %v free", *ds.Datastore, free)
				}
			}
		})
	}
}

// TestFaults are the platform's, while it is followed.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		opt  func(o *sim.Options)
		run  func(t *testing.T, f *following, vms []string)
	}{
		{"a node goes down", nil, func(t *testing.T, f *following, vms []string) {
			if err := f.SetNodeState("hv-01", sim.NodeDown); err != nil {
				t.Fatal(err)
			}
			f.await("its VMs run elsewhere, it is unreachable, and nothing is lost", func(s *inventory.Snapshot) bool {
				h, _ := s.Host(hostID("hv-01"))
				n := 0
				for v := range s.VMs() {
					if v.Host != hostID("hv-01") {
						n++
					}
				}
				return h.Connection == inventory.Unreachable && n == len(vms) && measured(s, vms[0])
			})
		}},
		{"a node that is cut off while it answers", nil, func(t *testing.T, f *following, vms []string) {
			f.Inject(sim.Fault{Node: "hv-01", Action: "Enumerate", Class: qVirtual.class, LoseAnswer: true})
			f.await("its VMs stay where they were, and grow stale", func(s *inventory.Snapshot) bool {
				h, _ := s.Host(hostID("hv-01"))
				v, ok := s.VM(vmID(vms[0]))
				_, fresh := vmValue(s, vms[0], inventory.VMCPUUsage)
				return h.Connection == inventory.Unreachable && ok && v.Host == h.ID && v.Connection == inventory.Unreachable && !fresh
			})
			if !measured(f.fleet.Snapshot(), vms[len(vms)-1]) {
				t.Error("the other node lost its samples, too")
			}
		}},
		{"a node hangs", nil, func(t *testing.T, f *following, vms []string) {
			lift := f.Inject(sim.Fault{Node: "hv-01", Hang: true})
			worst := time.Duration(0)
			last := time.Now()
			previous := time.Time{}
			f.await("it is unreachable, and its samples are stale", func(s *inventory.Snapshot) bool {
				v, _ := s.VM(vmID(vms[len(vms)-1]))
				if at := v.Samples.Of(inventory.VMCPUUsage).Time(); at != previous {
					worst, last, previous = max(worst, time.Since(last)), time.Now(), at
				}
				h, _ := s.Host(hostID("hv-01"))
				return h.Connection == inventory.Unreachable
			})
			if !measured(f.fleet.Snapshot(), vms[len(vms)-1]) || worst > 3*time.Second {
				t.Errorf("the other node was measured only every %v", worst)
			}
			t.Logf("the other node's longest gap: %v, its interval is %v", worst, f.clock.Real(interval))
			lift()
			f.await("it is back", func(s *inventory.Snapshot) bool { return measured(s, vms[0]) })
		}},
		{"a counter class is missing", nil, func(t *testing.T, f *following, vms []string) {
			f.DropClass(qVirtual.class)
			f.await("its metrics are absent, the others are there, and it is said", func(s *inventory.Snapshot) bool {
				_, cpu := vmValue(s, vms[0], inventory.VMCPUUsage)
				_, memory := vmValue(s, vms[0], inventory.VMMemoryUsage)
				_, host := hostValue(s, "hv-01", inventory.HostCPUUsageRatio)
				return !cpu && memory && host && f.o.count("class") > 0
			})
		}},
		{"a property is missing", nil, func(t *testing.T, f *following, vms []string) {
			f.DropProperty(qVirtual.class, "CPUWaitTimePerDispatch")
			f.await("its metric alone is absent, and it is said", func(s *inventory.Snapshot) bool {
				_, waits := vmValue(s, vms[0], inventory.VMCPUContention)
				_, cpu := vmValue(s, vms[0], inventory.VMCPUUsage)
				return !waits && cpu && f.o.count("property") > 0
			})
		}},
		{"VMs cannot be enumerated by their summary", func(o *sim.Options) { o.NoSummaryQuery = true }, func(t *testing.T, f *following, vms []string) {
			v, _ := f.fleet.Snapshot().VM(vmID(vms[0]))
			if v.VCPUs != 2 || v.Power != inventory.PowerOn {
				t.Errorf("the VM is %+v", *v.VM)
			}
		}},
		{"garbage for XML", nil, func(t *testing.T, f *following, vms []string) {
			lift := f.Inject(sim.Fault{Class: qDynamic.class, Garbage: []byte("<s:Envelope xmlns:s='x'><s:Body><broken")})
			f.await("it costs that class", func(s *inventory.Snapshot) bool {
				_, demand := vmValue(s, vms[0], inventory.VMMemoryDemand)
				return !demand && measured(s, vms[0]) && f.o.count("decode") > 0
			})
			lift()
			f.await("until it is well again", func(s *inventory.Snapshot) bool {
				_, demand := vmValue(s, vms[0], inventory.VMMemoryDemand)
				return demand
			})
		}},
		{"a quota is used up", nil, func(t *testing.T, f *following, vms []string) {
			before := f.Requests("hv-01", "")
			lift := f.Inject(sim.Fault{Node: "hv-01", Code: sim.QuotaOperations})
			_ = f.clock.Sleep(t.Context(), 8*interval)
			if n := f.Requests("hv-01", "") - before; n > 8 {
				t.Errorf("%d requests in eight intervals to a host whose quota is used up", n)
			}
			lift()
			f.await("it is back", func(s *inventory.Snapshot) bool { return measured(s, vms[0]) })
		}},
		{"envelopes are too large", nil, func(t *testing.T, f *following, vms []string) {
			f.Inject(sim.Fault{Class: qSummary.class, TooLarge: 600})
			_ = f.clock.Sleep(t.Context(), 3*interval)
			f.await("it is asked for less, and tells all", func(s *inventory.Snapshot) bool { return measured(s, vms[0]) && f.o.count("host") == 0 })
		}},
		{"a VM is renamed", nil, func(t *testing.T, f *following, vms []string) {
			if err := f.Rename(vms[0], "vm-renamed (new)"); err != nil {
				t.Fatal(err)
			}
			f.await("it is the same VM, and measured", func(s *inventory.Snapshot) bool {
				v, _ := s.VM(vmID(vms[0]))
				return v.Name == "vm-renamed (new)" && measured(s, vms[0])
			})
		}},
		{"two VMs have one name", nil, func(t *testing.T, f *following, vms []string) {
			if err := f.Rename(vms[1], "vm-1-1"); err != nil {
				t.Fatal(err)
			}
			f.await("neither has a counter that might be the other's, and it is said", func(s *inventory.Snapshot) bool {
				_, one := vmValue(s, vms[0], inventory.VMCPUUsage)
				_, other := vmValue(s, vms[1], inventory.VMCPUUsage)
				_, memory := vmValue(s, vms[1], inventory.VMMemoryUsage)
				_, net := vmValue(s, vms[1], inventory.VMNetworkReceive)
				return !one && !other && memory && net && measured(s, vms[2]) && f.o.count("ambiguous") > 0
			})
		}},
		{"a node is paused", nil, func(t *testing.T, f *following, _ []string) {
			if err := f.Pause("hv-01", false); err != nil {
				t.Fatal(err)
			}
			f.await("it is in maintenance", func(s *inventory.Snapshot) bool { h, _ := s.Host(hostID("hv-01")); return h.Maintenance })
		}},
		{"a VM cannot migrate live", func(o *sim.Options) { o.Nodes[0].VMs[0].LiveFails = sim.LogonTypeNotGranted }, func(t *testing.T, f *following, vms []string) {
			f.await("its host said so, and of no other", func(s *inventory.Snapshot) bool {
				bad, _ := s.VM(vmID(vms[0]))
				good, _ := s.VM(vmID(vms[1]))
				return bad.NotLive != "" && bad.QuickMigration && good.NotLive == ""
			})
			if n := len(f.MoveCalls()); n > 0 {
				t.Errorf("%d VMs were asked to move", n)
			}
		}},
		{"the password expires", nil, func(t *testing.T, f *following, _ []string) {
			time.Sleep(3 * time.Second) // what one host has just accepted is tried at all of them at once
			before := f.Refused()
			if err := f.ExpirePassword(sim.DefaultUser); err != nil {
				t.Fatal(err)
			}
			f.ForgetLogins()
			select {
			case err := <-f.done:
				if !errors.Is(err, collector.ErrCredentials) {
					t.Errorf("Watch ended with %v", err)
				}
				f.done <- err
			case <-time.After(30 * time.Second):
				t.Fatal("Watch goes on")
			}
			if n := f.Refused() - before; n > 1 {
				t.Errorf("%d refused log-ins: an account would be locked", n)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			opt := sim.Options{Nodes: uniform(3, 3)}
			if tt.opt != nil {
				tt.opt(&opt)
			}
			l := startLab(t, opt)
			f := l.follow()
			vms := l.VMs()
			f.await("all is measured", func(s *inventory.Snapshot) bool {
				return !slices.ContainsFunc(vms, func(id string) bool { return !measured(s, id) })
			})
			tt.run(t, f, vms)
		})
	}
}

// TestStandalone: hosts that belong to no cluster, one of which is down from the first.
func TestStandalone(t *testing.T) {
	t.Parallel()
	l := startLab(t, sim.Options{Standalone: true, Nodes: uniform(3, 2)})
	l.StopEndpoint("hv-03")
	f := l.follow()
	vms := l.VMs()
	f.await("the others are measured", func(s *inventory.Snapshot) bool { return measured(s, vms[0]) && measured(s, vms[3]) })
	if v, _ := f.fleet.Snapshot().VM(vmID(vms[0])); v.Availability != inventory.NotHighlyAvailable {
		t.Errorf("availability %q", v.Availability)
	}
	for c := range f.fleet.Snapshot().Clusters() {
		t.Errorf("cluster %v", c.ID)
	}
	if err := l.StartEndpoint("hv-03"); err != nil {
		t.Fatal(err)
	}
	f.await("the third is there", func(s *inventory.Snapshot) bool { return measured(s, vms[4]) })
}

// TestRequests holds what a host is sent in an interval.
func TestRequests(t *testing.T) {
	t.Parallel()
	l := startLab(t, sim.Options{Nodes: uniform(2, 10)})
	f := l.follow()
	f.await("all is measured", func(s *inventory.Snapshot) bool { return measured(s, l.VMs()[0]) })
	before, began := l.Requests("hv-01", ""), l.clock.Now()
	_ = l.clock.Sleep(t.Context(), 10*interval)
	intervals := float64(l.clock.Now().Sub(began))/float64(interval) + 1
	if n := float64(l.Requests("hv-01", "") - before); n > requestsPerCycle*intervals || n < 5*intervals/2 {
		t.Errorf("%v requests in %v intervals", n, intervals)
	}
}

// TestUnlistedNode: VMs on a node that nobody asks are not lost, and have no figures.
func TestUnlistedNode(t *testing.T) {
	t.Parallel()
	l := startLab(t, sim.Options{Nodes: uniform(2, 2)})
	o := newObserver(t)
	src, err := New(Options{Name: "hv", Hosts: l.hosts(sim.DefaultPassword)[:1], Interval: interval, Clock: l.clock, Observer: o})
	if err != nil {
		t.Fatal(err)
	}
	fleet := inventory.NewFleet(inventory.Source{Name: "hv", Interval: interval})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- src.Watch(ctx, func(d inventory.Delta) { _, _ = fleet.Apply(d, l.clock.Now()) })
	}()
	t.Cleanup(func() { cancel(); <-done })
	f := &following{l, o, fleet, done}
	vms := l.VMs()
	f.await("the listed node is measured", func(s *inventory.Snapshot) bool { return measured(s, vms[0]) })
	s := fleet.Snapshot()
	h, _ := s.Host(hostID("hv-02"))
	v, ok := s.VM(vmID(vms[2]))
	if !ok || h.Host == nil || h.Connection != inventory.Disconnected || v.Host != h.ID || v.Name != "vm-2-1" || v.Power != inventory.PowerOn || v.Samples != nil {
		t.Errorf("host %+v, VM %+v with %v", h.Host, v.VM, v.Samples)
	}
	if err := l.Place(vms[0], "hv-02"); err != nil {
		t.Fatal(err)
	}
	f.await("a VM that goes there is there", func(s *inventory.Snapshot) bool {
		v, _ := s.VM(vmID(vms[0]))
		return v.Host == hostID("hv-02") && v.VCPUs == 2
	})
}

// TestWatchedTwice: the second source of a cluster is refused by name.
func TestWatchedTwice(t *testing.T) {
	t.Parallel()
	l := startLab(t, sim.Options{Nodes: uniform(2, 2)})
	identities := collector.NewIdentities()
	for i, name := range []string{"hv", "again"} {
		src, err := New(Options{Name: name, Hosts: l.hosts(sim.DefaultPassword)[i:], Interval: interval, Clock: l.clock, Observer: newObserver(t), Identities: identities})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		err = src.Watch(ctx, func(d inventory.Delta) {
			if d.Synced {
				cancel()
			}
		})
		cancel()
		if i == 0 && !errors.Is(err, context.Canceled) || i == 1 && !errors.Is(err, collector.ErrDuplicate) {
			t.Errorf("source %s ended with %v", name, err)
		}
	}
}
