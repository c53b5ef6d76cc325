package placement

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/protip/protip/internal/inventory"
)

func TestRateNamesEveryRule(t *testing.T) {
	ha := func(f *testFleet) *testFleet { f.delta.Clusters[0].HA.Enabled = true; return f }
	cpu := func(model string) func(*inventory.Host) { return func(h *inventory.Host) { h.CPUModel = model } }
	tag := func(v *inventory.VM) { v.Tags = []inventory.Tag{{Category: "app", Name: "shop"}} }
	notLive := func(quick bool) func(*inventory.VM) {
		return func(v *inventory.VM) { v.NotLive, v.QuickMigration = "a GPU is attached", quick }
	}
	base := func() *testFleet { return newFleet().host("esx-1", 8, 10).vm("web", "esx-1", 8, 10) }
	web := VMSpec{ID: vmID("web")}
	fresh := VMSpec{Name: "new", VCPUs: 2, Use: Use{4 * ghz, 10 * gib}}
	with := func(change func(*Policy)) Policy { p := Policy{Ceiling: 0.8}; change(&p); return p }
	tests := []struct {
		name  string
		fleet *testFleet
		vm    VMSpec
		p     Policy
		stars float64 // of esx-2
		code  string  // a reason
		text  string
	}{
		{"a new VM", base().host("esx-2", 4, 10), fresh, ceiling, 4, CodeMemoryRoom, "memory 10 % -> 20 % of 100 GiB"},
		{"restricted", base().host("esx-2", 0, 0), web, with(func(p *Policy) { p.Restricted = map[inventory.ID]string{hostID("esx-2"): "a fan failed"} }), 0, CodeRestricted, "restricted, and takes nothing new: a fan failed"},
		{"kept for the host", base().host("esx-2", 20, 0), web, with(func(p *Policy) { p.HostReserve.CPURatio = 0.4 }), 0, CodeCPURoom, "of which 40 % is kept for the host itself"},
		{"contended", base().host("esx-2", 0, 0).sets(hostID("esx-2"), inventory.HostCPUContention, 0.1), web, ceiling, 2.5, CodeContention, "wait for CPU 10 % of the time"},
		{"fill", base().host("esx-2", 20, 0), web, with(func(p *Policy) { p.Fill = true }), 4.5, CodeCPURoom, "CPU 50 % -> 70 %"},
		{"only memory counts", base().host("esx-2", 20, 0), web, with(func(p *Policy) { p.Weights.Memory = 1 }), 4.5, CodeMemoryRoom, "memory 0 % -> 10 %"},
		{"what does not count still bars", base().host("esx-2", 30, 0), web, with(func(p *Policy) { p.Weights.Memory = 1 }), 0, CodeCPURoom, "above the ceiling"},
		{
			"disk", base().host("esx-2", 0, 0),
			VMSpec{Name: "new", Flow: Flow{DiskBytesPerSecond: 90e6}},
			with(func(p *Policy) { p.HostFlow.DiskBytesPerSecond = 100e6 }), 0, CodeDiskRoom, "disk 0 % -> 90.0 % of 100 MB/s, above the ceiling",
		},
		{"network at half weight", base().host("esx-2", 0, 0), VMSpec{Name: "new", Flow: Flow{NetworkBytesPerSecond: 40e6}}, with(func(p *Policy) {
			p.HostFlow.NetworkBytesPerSecond, p.Weights = 100e6, Weights{CPU: 1, Memory: 1, Network: 0.5}
		}), 4, CodeNetworkRoom, "network 0 % -> 40 %"},
		{"a weight of what is not known of hosts", base().host("esx-2", 4, 10), fresh, with(func(p *Policy) { p.Weights = Weights{CPU: 0.5, Memory: 0.5, Disk: 1, Network: 1} }), 4, CodeMemoryRoom, "memory 10 % -> 20 %"},
		{"HA off", base().host("esx-2", 0, 0), VMSpec{Name: "new", HighlyAvailable: true}, ceiling, 0, CodeHA, "high availability is off in cluster prod"},
		{"HA on", ha(base().host("esx-2", 0, 0)), VMSpec{Name: "new", HighlyAvailable: true}, ceiling, 5, CodeCPURoom, ""},
		{"HA, and no cluster", ha(base().host("esx-2", 0, 0, func(h *inventory.Host) { h.Cluster = inventory.ID{} })), VMSpec{Name: "new", HighlyAvailable: true}, ceiling, 0, CodeHA, "in no cluster"},
		{"another vendor", newFleet().host("esx-1", 8, 10, cpu("Intel(R) Xeon")).vm("web", "esx-1", 8, 10).host("esx-2", 0, 0, cpu("AMD EPYC")), web, ceiling, 0, CodeCPUModel, "its processor is of AMD, and the VM runs on one of Intel"},
		{"another model", newFleet().host("esx-1", 8, 10, cpu("Intel(R) Xeon 1")).vm("web", "esx-1", 8, 10).host("esx-2", 0, 0, cpu("Intel(R) Xeon 2")), web, ceiling, 2.5, CodeCPUModel, "another (Intel(R) Xeon 2)"},
		{"another model, made alike", func() *testFleet {
			f := newFleet().host("esx-1", 8, 10, cpu("Intel(R) Xeon 1")).vm("web", "esx-1", 8, 10).host("esx-2", 0, 0, cpu("Intel(R) Xeon 2"))
			f.delta.Clusters[0].EVC = "intel-skylake"
			return f
		}(), web, ceiling, 4, CodeCPURoom, ""},
		{"not live", newFleet().host("esx-1", 8, 10).vm("web", "esx-1", 8, 10, notLive(false)).host("esx-2", 0, 0), web, with(func(p *Policy) { p.Quick = true }), 0, CodeNotLive, "cannot be moved live (a GPU is attached)"},
		{"quick, not agreed to", newFleet().host("esx-1", 8, 10).vm("web", "esx-1", 8, 10, notLive(true)).host("esx-2", 0, 0), web, ceiling, 0, CodeNotLive, "downtime that was not agreed to"},
		{"quick", newFleet().host("esx-1", 8, 10).vm("web", "esx-1", 8, 10, notLive(true)).host("esx-2", 0, 0), web, with(func(p *Policy) { p.Quick = true }), 2.5, CodeQuick, "saved, moved and restored, and does not run meanwhile"},
		{"tag apart", newFleet().host("esx-1", 8, 10).vm("web", "esx-1", 8, 10, tag).host("esx-2", 1, 1).vm("other", "esx-2", 1, 1, tag), web, with(func(p *Policy) { p.ApartTags = []string{"app"} }), 2, CodeTag, "other, which is here, has the tag app/shop too"},
		{"tag together", newFleet().host("esx-1", 8, 10).vm("web", "esx-1", 8, 10, tag).vm("other", "esx-1", 0, 0, tag).host("esx-2", 0, 0), web, with(func(p *Policy) { p.TogetherTags = []string{"app"} }), 2.5, CodeTag, "better together"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := tt.fleet.snapshot()
			r := rating(t, Rate(s, Observed(s), tt.vm, tt.p), "esx-2")
			i := slices.IndexFunc(r.Reasons, func(why Reason) bool { return why.Code == tt.code })
			if r.Stars != tt.stars || i < 0 || !strings.Contains(r.Reasons[i].Text, tt.text) {
				t.Errorf("%s\nwant %g stars and %s %q", r.Words(), tt.stars, tt.code, tt.text)
			}
		})
	}
}

func TestRateKeepsTheReserve(t *testing.T) {
	ha := func(v *inventory.VM) { v.Availability = inventory.HighlyAvailable }
	f := newFleet().host("esx-1", 4, 40).host("esx-2", 4, 40).host("esx-3", 4, 10).
		vm("a", "esx-1", 2, 40, ha).vm("b", "esx-2", 2, 40, ha)
	f.delta.Clusters[0].HA.Enabled = true
	s := f.snapshot()
	d := Observed(s)
	p := Policy{Ceiling: 1}
	rated := func(reserve int, vm VMSpec, host string) Rating {
		p.Reserves = map[inventory.ID]*Admission{clusterID: Ask(s, d, clusterID, reserve, p).Answer(nil)}
		return rating(t, Rate(s, d, vm, p), host)
	}
	big := VMSpec{Name: "big", Use: Use{ghz, 55 * gib}, HighlyAvailable: true}
	if r := rated(1, big, "esx-3"); r.Stars == 0 {
		t.Errorf("one more of 55 GiB, for whom esx-1 has room: %s", r.Words())
	}
	big.Use.MemoryBytes = 65 * gib
	if r := rated(1, big, "esx-3"); r.Stars != 0 || !strings.Contains(r.Words(), "cluster prod would not hold its reserve of 1 host: with it there, no host was found for all when esx-3 fails") {
		t.Errorf("one more of 65 GiB: %s", r.Words())
	}
	big.HighlyAvailable = false
	if r := rated(1, big, "esx-3"); r.Stars == 0 {
		t.Errorf("one more of 65 GiB that is not restarted: %s", r.Words())
	}
	if r := rated(2, big, "esx-3"); r.Stars != 0 || !strings.Contains(r.Words(), "when esx-1 and esx-2 fail") {
		t.Errorf("it is not restarted, but takes the room of those that are: %s", r.Words())
	}
	if r := rated(3, big, "esx-3"); r.Stars != 0 || !strings.Contains(r.Words(), "does not hold its reserve of 3 hosts as it is") {
		t.Errorf("one more where the reserve is lost: %s", r.Words())
	}
	if r := rated(3, VMSpec{ID: vmID("a")}, "esx-3"); r.Stars == 0 {
		t.Errorf("a move inside where the reserve is lost: %s", r.Words())
	}
}

func TestRateOfAVMThatIsOnItsWay(t *testing.T) {
	ha := func(v *inventory.VM) { v.Availability = inventory.HighlyAvailable }
	s := newFleet().host("esx-1", 4, 60).host("esx-2", 4, 10).host("esx-3", 4, 10).vm("a", "esx-1", 2, 60, ha).snapshot()
	d := Observed(s)
	p := Policy{Ceiling: 1, Incoming: map[inventory.ID][]inventory.ID{hostID("esx-2"): {vmID("a")}}}
	p.Reserves = map[inventory.ID]*Admission{clusterID: Ask(s, d, clusterID, 1, p).Answer(nil)}
	p.Incoming = nil // as when the move itself is looked at again
	if r := rating(t, Rate(s, d, VMSpec{ID: vmID("a")}, p), "esx-2"); r.Stars == 0 {
		t.Errorf("it counts twice: %s", r.Words())
	}
}

// fleetOf is a cluster of that size with a demand for each VM, hosts about two thirds full, and 24 networks.
func fleetOf(hosts, vms int) *inventory.Snapshot {
	f := newFleet()
	f.delta.Clusters[0].HA.Enabled = true
	var networks []string
	for n := range 24 {
		networks = append(networks, fmt.Sprintf("dvportgroup-%04d", n))
	}
	f.nets(networks...)
	for h := range hosts {
		f.host(fmt.Sprintf("h%04d", h), 25, 65, having(networks...))
	}
	each := float64(hosts) / float64(vms)
	for v := range vms {
		f.vm(fmt.Sprintf("v%05d", v), fmt.Sprintf("h%04d", v%hosts), 23*each, 60*each, func(vm *inventory.VM) {
			vm.Availability = inventory.HighlyAvailable
			attached(networks[(v+12)%24])(vm)
		})
	}
	return f.snapshot()
}

// BenchmarkRate is the rating of all hosts for one VM, with the reserve of the cluster, from the snapshot to the sorted answer.
func BenchmarkRate(b *testing.B) {
	for _, size := range []struct{ hosts, vms, reserve int }{{64, 8000, 2}, {1000, 10000, 1}} {
		s := fleetOf(size.hosts, size.vms)
		d := Observed(s)
		p := Policy{Ceiling: 0.8}
		a := Ask(s, d, clusterID, size.reserve, p).Answer(nil)
		if a.Answer != Admitted {
			b.Fatal(a.Why)
		}
		p.Reserves = map[inventory.ID]*Admission{clusterID: a}
		for name, vm := range map[string]VMSpec{"moved": {ID: vmID("v00000")}, "new": {Name: "new", Use: Use{ghz, 4 * gib}, HighlyAvailable: true}} {
			b.Run(fmt.Sprintf("hosts=%d/vms=%d/reserve=%d/%s", size.hosts, size.vms, size.reserve, name), func(b *testing.B) {
				var took []time.Duration
				for b.Loop() {
					began := cpuTime()
					if ratings := Rate(s, d, vm, p); ratings[0].Stars == 0 {
						b.Fatal(ratings[0].Words())
					}
					took = append(took, cpuTime()-began)
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-cpu-ms")
				b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-cpu-ms")
			})
		}
	}
}

// cpuTime is what the process has used of all processors, which tells more than the clock on a machine that is busy.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
