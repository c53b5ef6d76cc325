package vsphere_test

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"math"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/vmware/govmomi/vapi/rest"
	"github.com/vmware/govmomi/vapi/tags"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/collector/exposition"
	"github.com/protip/protip/collector/vsphere"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/sim"
	"github.com/protip/protip/internal/sim/load"
)

// hurry is a clock on which a slow interval takes a second.
const hurry = 300

// watched is a vCenter that is watched, and what is known of it.
type watched struct {
	*agent
	vc     *sim.VCenter
	faults *faults
	synced atomic.Int64
	hear   atomic.Pointer[func(inventory.Change)] // hears of each change but Synced
}

func watch(t *testing.T, cfg sim.Config, change func(*vsphere.Options)) *watched {
	t.Helper()
	clk := clock.New(hurry)
	cfg.Clock = clk
	vc := startVCenter(t, cfg)
	w := &watched{vc: vc, faults: newFaults(), agent: &agent{t: t, clock: clk, fleet: inventory.NewFleet(inventory.Source{Name: "vc", Interval: interval})}}
	opts := vsphere.Options{Name: "vc", Clock: clk, Session: sessionOf(vc), Observer: w.faults}
	if change != nil {
		change(&opts)
	}
	src := newSource(t, opts)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	wg.Go(func() {
		emit := func(d inventory.Delta) {
			changes, err := w.fleet.Apply(d, clk.Now())
			if err != nil {
				t.Error(err)
			}
			for _, c := range changes {
				if c.Kind == inventory.Synced {
					w.synced.Add(1)
				} else if hear := w.hear.Load(); hear != nil {
					(*hear)(c)
				}
			}
		}
		for ctx.Err() == nil { // a vCenter that ends a session may end its calls first, and Watch with them
			if err := src.Watch(ctx, emit); ctx.Err() == nil {
				t.Logf("watch ended: %v", err)
			}
		}
	})
	w.eventually(20*time.Second, "a listing", func() bool { return w.up("vc") })
	return w
}

func (w *watched) id(kind inventory.Kind, find func(string) (types.ManagedObjectReference, bool), name string) inventory.ID {
	w.t.Helper()
	ref, ok := find(name)
	if !ok {
		w.t.Fatalf("no %s %s", kind, name)
	}
	return inventory.ID{Source: "vc", Kind: kind, Ref: ref.Value}
}

func (w *watched) vm(name string) inventory.ID   { return w.id(inventory.KindVM, w.vc.VM, name) }
func (w *watched) host(name string) inventory.ID { return w.id(inventory.KindHost, w.vc.Host, name) }

func (w *watched) store(name string) inventory.ID {
	return w.id(inventory.KindDatastore, w.vc.Datastore, name)
}

func (w *watched) scrape() string {
	h := exposition.New(w.fleet.Snapshot, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	return rec.Body.String()
}

// mixed is a cluster with all that can be set.
func mixed() []sim.Cluster {
	auto := false
	return []sim.Cluster{{
		Name: "prod", EVC: "intel-skylake", DRS: sim.DRS{Enabled: true, Behavior: types.DrsBehaviorFullyAutomated},
		HA: sim.HA{Enabled: true, AdmissionControl: true, RestartPriority: types.DasVmPriorityHigh, Policy: &types.ClusterFailoverResourcesAdmissionControlPolicy{
			CpuFailoverResourcesPercent: 25, MemoryFailoverResourcesPercent: 30, FailoverLevel: 1, AutoComputePercentages: &auto,
		}},
		Rules: []sim.Rule{{Name: "apart", Apart: true, VMs: []string{"a", "b"}}},
		Ties: []sim.Tie{
			{Name: "licence", Mandatory: true, VMs: []string{"a"}, Hosts: []string{"h1", "h2"}},
			{Name: "quiet", Apart: true, VMs: []string{"a", "b"}, Hosts: []string{"h3"}},
		},
		Hosts: []sim.Host{
			{Name: "h1", VMs: []sim.VM{{Name: "a", Restart: types.DasVmPriorityDisabled}, {Name: "b", DRSBehavior: types.DrsBehaviorManual, Restart: types.DasVmPriorityHigh}}},
			{Name: "h2", VMs: []sim.VM{{Name: "golden", Template: true}, {Name: "c", Datastore: "nfs-01"}}},
			{Name: "h3", VMs: []sim.VM{{Name: "d"}}},
		},
	}}
}

func TestClusterFacts(t *testing.T) {
	t.Parallel()
	w := watch(t, sim.Config{Clusters: mixed()}, nil)
	id := w.id(inventory.KindCluster, w.vc.Cluster, "prod")
	a, b := w.vm("a"), w.vm("b")
	want := &inventory.Cluster{
		ID: id, Name: "prod", EVC: "intel-skylake", DRS: inventory.DRS{Enabled: true, Automation: inventory.AutomationFull},
		HA:        inventory.HA{Enabled: true, AdmissionControl: true, Policy: "percentage", HostFailures: 1},
		Admission: inventory.Admission{ReservedCPU: 0.25, ReservedMemory: 0.3},
		Rules:     []inventory.Rule{{Name: "apart", Kind: inventory.AntiAffinity, Enabled: true, VMs: []inventory.ID{a, b}}},
		HostRules: []inventory.HostRule{
			{
				Name: "licence", Kind: inventory.Affinity, Enabled: true, Mandatory: true, VMGroup: "licence VMs", HostGroup: "licence hosts",
				VMs: []inventory.ID{a}, Hosts: []inventory.ID{w.host("h1"), w.host("h2")},
			},
			{
				Name: "quiet", Kind: inventory.AntiAffinity, Enabled: true, VMGroup: "quiet VMs", HostGroup: "quiet hosts",
				VMs: []inventory.ID{a, b}, Hosts: []inventory.ID{w.host("h3")},
			},
		},
		Overrides:       map[inventory.ID]inventory.Automation{b: inventory.AutomationManual},
		RestartPriority: "high", RestartPriorities: map[inventory.ID]string{a: "disabled"},
	}
	// All of it is there with the listing, so that nothing shows a cluster that is only half known.
	if got, _ := w.fleet.Snapshot().Cluster(id); !reflect.DeepEqual(got, want) {
		t.Errorf("cluster\n%+v\nwant\n%+v", got, want)
	}
	if h, _ := w.fleet.Snapshot().Host(w.host("h1")); h.EVC != "intel-skylake" || h.MaxEVC != "intel-icelake" {
		t.Errorf("EVC of the host is %q, at most %q", h.EVC, h.MaxEVC)
	}

	ref, _ := w.vc.Cluster("prod")
	h3, _ := w.vc.Host("h3")
	for _, tt := range []struct {
		name     string
		policy   types.BaseClusterDasAdmissionControlPolicy
		want     inventory.Admission
		failures int
	}{
		{
			"slots", &types.ClusterFailoverLevelAdmissionControlPolicy{FailoverLevel: 2, SlotPolicy: &types.ClusterFixedSizeSlotPolicy{Cpu: 500, Memory: 1024}},
			inventory.Admission{SlotCPUHertz: 5e8, SlotMemoryBytes: 1 << 30},
			2,
		},
		{
			"hosts", &types.ClusterFailoverHostAdmissionControlPolicy{FailoverHosts: []types.ManagedObjectReference{h3}},
			inventory.Admission{Hosts: []inventory.ID{w.host("h3")}},
			0,
		},
		{"none", nil, inventory.Admission{}, 0},
	} {
		if err := w.vc.SetHA(ref, sim.HA{Enabled: true, AdmissionControl: true, Policy: tt.policy}); err != nil {
			t.Fatal(err)
		}
		w.eventually(5*time.Second, tt.name, func() bool {
			c, _ := w.fleet.Snapshot().Cluster(id)
			return reflect.DeepEqual(c.Admission, tt.want) && c.HA.HostFailures == tt.failures && c.EVC == "intel-skylake" && c.RestartPriority == "medium"
		})
	}
}

// TestWhatVMsAreKept: what is reserved for a VM, what finds it from outside, and whether HA restarts it, which its cluster says.
func TestWhatVMsAreKept(t *testing.T) {
	t.Parallel()
	clusters := mixed()
	clusters[0].Hosts[2].VMs = append(clusters[0].Hosts[2].VMs, sim.VM{
		Name: "db", GuestIP: "10.1.1.1", MAC: "00:50:56:AA:0B:0C", CPUReserved: 1500, MemoryReserved: 1 << 30,
	})
	w := watch(t, sim.Config{Clusters: clusters}, nil)
	get := func(name string) *inventory.VM { v, _ := w.fleet.Snapshot().VM(w.vm(name)); return v.VM }
	if db := get("db"); db.CPUReservationHertz != 1.5e9 || db.MemoryReservationBytes != 1<<30 || !slices.Equal(db.MACs, []string{"00:50:56:aa:0b:0c"}) {
		t.Errorf("db keeps %v Hz and %v B, and is found by %q", db.CPUReservationHertz, db.MemoryReservationBytes, db.MACs)
	}
	if b := get("b"); b.CPUReservationHertz != 0 || b.MemoryReservationBytes != 0 || b.MACs != nil {
		t.Errorf("b has %+v", b)
	}
	restarted := func(want map[string]inventory.Availability) func() bool {
		return func() bool {
			for name, availability := range want {
				if get(name).Availability != availability {
					return false
				}
			}
			return true
		}
	}
	const high, none = inventory.HighlyAvailable, inventory.NotHighlyAvailable
	// a is left out of HA by a setting of its own.
	if !restarted(map[string]inventory.Availability{"a": none, "b": high, "d": high, "db": high})() {
		t.Errorf("with the listing: a %q, b %q, d %q", get("a").Availability, get("b").Availability, get("d").Availability)
	}
	ref, _ := w.vc.Cluster("prod")
	if err := w.vc.SetHA(ref, sim.HA{}); err != nil {
		t.Fatal(err)
	}
	w.eventually(5*time.Second, "HA off", restarted(map[string]inventory.Availability{"a": none, "b": none, "d": none, "db": none}))
	if err := w.vc.SetHA(ref, sim.HA{Enabled: true}); err != nil {
		t.Fatal(err)
	}
	w.eventually(5*time.Second, "HA on", restarted(map[string]inventory.Availability{"b": high, "d": high, "db": high}))
}

// TestClusterCounters: what clusters use is what their hosts do, rolled up.
func TestClusterCounters(t *testing.T) {
	t.Parallel()
	w := watch(t, sim.Config{Clusters: mixed(), Load: load.Steady(load.Use{CPU: 0.5, MemoryConsumed: 0.5})}, nil)
	w.eventually(10*time.Second, "counters of the cluster", func() bool {
		snap := w.fleet.Snapshot()
		var cpu, memory float64
		for h := range snap.Hosts() {
			c, ok := h.Samples.Value(inventory.HostCPUUsage)
			m, ok2 := h.Samples.Value(inventory.HostMemoryUsage)
			if !ok || !ok2 {
				return false
			}
			cpu, memory = cpu+c, memory+m
		}
		table := snap.ClusterTable("vc")
		if len(table.Samples) != 1 {
			return false
		}
		gotCPU, ok := table.Samples[0].Value(inventory.ClusterCPUUsage)
		gotMemory, ok2 := table.Samples[0].Value(inventory.ClusterMemoryUsage)
		return ok && ok2 && near(gotCPU, cpu) && near(gotMemory, memory)
	})
}

// near reports whether two figures of a steady load are the same but for rounding.
func near(a, b float64) bool { return a > 0 && math.Abs(a-b) < 0.01*b }

func TestDatastores(t *testing.T) {
	t.Parallel()
	w := watch(t, sim.Config{
		Clusters:   mixed(),
		Load:       load.Steady(load.Use{CPU: 0.5, DiskRead: 8 << 20, DiskWritten: 4 << 20, DiskLatency: 7 * time.Millisecond}),
		Datastores: []sim.Datastore{{Name: "san-01", CapacityBytes: 1 << 40, FreeBytes: 1 << 39}, {Name: "nfs-01", Type: "NFS", Hosts: []string{"h2", "h3"}}},
	}, nil)
	san, nfs := w.store("san-01"), w.store("nfs-01")
	get := func(id inventory.ID) inventory.DatastoreView { d, _ := w.fleet.Snapshot().Datastore(id); return d }
	if d := get(nfs); d.Type != "NFS" || !d.Accessible || d.Maintenance || !maps.Equal(d.Mounts, map[inventory.ID]inventory.Mount{
		w.host("h2"): {Accessible: true}, w.host("h3"): {Accessible: true},
	}) {
		t.Errorf("nfs-01 %+v", d.Datastore)
	}
	if d := get(san); d.CapacityBytes != 1<<40 || len(d.Mounts) != 3 {
		t.Errorf("san-01 %+v", d.Datastore)
	}
	for name, on := range map[string]inventory.ID{"a": san, "c": nfs} {
		if v, _ := w.fleet.Snapshot().VM(w.vm(name)); !slices.Equal(v.Datastores, []inventory.ID{on}) {
			t.Errorf("%s lies on %v", name, v.Datastores)
		}
	}
	free := func(want float64) func() bool {
		return func() bool { v, ok := get(san).Samples.Value(inventory.DatastoreFree); return ok && v == want }
	}
	w.eventually(5*time.Second, "free space", free(1<<39))

	// Latency is what the vCenter has rolled up over whole five minutes.
	w.eventually(10*time.Second, "latency", func() bool {
		read, ok := get(san).Samples.Value(inventory.DatastoreReadLatency)
		write, ok2 := get(san).Samples.Value(inventory.DatastoreWriteLatency)
		at := get(san).Samples.Of(inventory.DatastoreReadLatency).Time()
		return ok && ok2 && read == 0.007 && write == 0.007 && at.Sub(at.Round(5*time.Minute)).Abs() < 10*time.Second
	})

	// Nobody is told of free space: it is looked for.
	sanRef, _ := w.vc.Datastore("san-01")
	if err := w.vc.SetFree(sanRef, 1<<38); err != nil {
		t.Fatal(err)
	}
	w.eventually(10*time.Second, "new free space", free(1<<38))

	// One host loses its path, then all.
	nfsRef, _ := w.vc.Datastore("nfs-01")
	for _, h := range []string{"h2", "h3"} {
		ref, _ := w.vc.Host(h)
		if err := w.vc.SetAccess(nfsRef, ref, false); err != nil {
			t.Fatal(err)
		}
		last := h == "h3"
		w.eventually(5*time.Second, h+" out of reach", func() bool {
			d := get(nfs)
			runs, known := d.Runs(w.host(h))
			return known && !runs && d.Accessible == !last && (d.CapacityBytes == 0) == last
		})
		if line := `virt_datastore_host_inaccessible_info{source="vc",datastore="nfs-01",datastore_id="` + nfs.Ref + `",host="` + h + `"`; !strings.Contains(w.scrape(), line) {
			t.Errorf("%s is not shown", line)
		}
	}
	w.eventually(10*time.Second, "what nobody reaches has no free space", func() bool {
		w.fleet.Expire(w.clock.Now())
		s := w.scrape()
		return !strings.Contains(s, `virt_datastore_free_bytes{source="vc",datastore="nfs-01"`) && strings.Contains(s, `virt_datastore_accessible{source="vc",datastore="nfs-01",datastore_id="`+nfs.Ref+`"} 0`)
	})
	if _, ok := get(san).Samples.Value(inventory.DatastoreFree); !ok {
		t.Error("san-01 has lost its free space too")
	}
	for _, part := range []string{"slow", "history"} {
		if n, err := w.faults.count(part); n != 0 {
			t.Errorf("%d faults of %s, last %v", n, part, err)
		}
	}
}

// TestNetworks: which networks there are, which hosts have them and what is attached to them, from the listing on and as it changes.
func TestNetworks(t *testing.T) {
	t.Parallel()
	clusters := mixed()
	clusters[0].Hosts[0].VMs[0].Networks = []string{"lab", "prod / 42"}
	clusters[0].Hosts[0].VMs[1].Networks = []string{}
	w := watch(t, sim.Config{
		Clusters: clusters,
		Networks: []sim.Network{{Name: "VM Network 2"}, {Name: "prod / 42", Distributed: true}, {Name: "lab", Hosts: []string{"h1", "h2"}}},
	}, nil)
	id := func(name string) inventory.ID { return w.id(inventory.KindNetwork, w.vc.Network, name) }
	lab, prod, plain := id("lab"), id("prod / 42"), id("VM Network 2")
	host := func(name string) *inventory.Host { h, _ := w.fleet.Snapshot().Host(w.host(name)); return h.Host }
	vm := func(name string) []inventory.ID { v, _ := w.fleet.Snapshot().VM(w.vm(name)); return v.Networks }
	same := func(got []inventory.ID, want ...inventory.ID) bool {
		slices.SortFunc(want, func(a, b inventory.ID) int { return cmp.Compare(a.Ref, b.Ref) })
		return got != nil && slices.Equal(got, want)
	}
	for _, n := range []struct {
		id   inventory.ID
		name string
	}{{lab, "lab"}, {prod, "prod / 42"}, {plain, "VM Network 2"}} {
		if got, ok := w.fleet.Snapshot().Network(n.id); !ok || got.Name != n.name || got.Unread {
			t.Errorf("%s is %+v", n.name, got)
		}
	}
	if h1, h3 := host("h1"), host("h3"); !same(h1.Networks, lab, prod, plain) || !same(h3.Networks, prod, plain) {
		t.Errorf("h1 has %v, h3 has %v", h1.Networks, h3.Networks)
	}
	if h1, h2 := host("h1"), host("h2"); unsafe.SliceData(h1.Networks) != unsafe.SliceData(h2.Networks) {
		t.Error("what two hosts have in common is kept twice")
	}
	if !same(vm("a"), lab, prod) || len(vm("b")) != 0 || !same(vm("c"), plain) {
		t.Errorf("a is attached to %v, b to %v, c to %v", vm("a"), vm("b"), vm("c"))
	}

	// A host loses a network, another gets it, and a VM's adapter is plugged elsewhere.
	ref := func(id inventory.ID, kind string) types.ManagedObjectReference {
		return types.ManagedObjectReference{Type: kind, Value: id.Ref}
	}
	inLab, inProd, inPlain := ref(lab, "Network"), ref(prod, "DistributedVirtualPortgroup"), ref(plain, "Network")
	for _, change := range []struct {
		what string
		of   types.ManagedObjectReference
		to   []types.ManagedObjectReference
		done func() bool
	}{
		{"h1 without lab", ref(w.host("h1"), "HostSystem"), []types.ManagedObjectReference{inPlain, inProd}, func() bool { return same(host("h1").Networks, prod, plain) }},
		{"h3 with all", ref(w.host("h3"), "HostSystem"), []types.ManagedObjectReference{inLab, inPlain, inProd}, func() bool { return same(host("h3").Networks, lab, prod, plain) }},
		{"h2 with none", ref(w.host("h2"), "HostSystem"), nil, func() bool { n := host("h2").Networks; return n != nil && len(n) == 0 }},
		{"c in lab", ref(w.vm("c"), "VirtualMachine"), []types.ManagedObjectReference{inLab}, func() bool { return same(vm("c"), lab) }},
	} {
		if err := w.vc.SetNetworks(change.of, change.to...); err != nil {
			t.Fatal(err)
		}
		w.eventually(5*time.Second, change.what, change.done)
	}
	if line := `protip_source_objects{source="vc",kind="network"} 4`; !strings.Contains(w.scrape(), line) { // each datacenter has one of its own
		t.Errorf("%s is not shown", line)
	}
}

// person is another client of the vCenter's REST API.
func person(t *testing.T, vc *sim.VCenter) *tags.Manager {
	t.Helper()
	client, err := vim25.NewClient(t.Context(), soap.NewClient(vc.URL(), true))
	if err != nil {
		t.Fatal(err)
	}
	c := rest.NewClient(client)
	if err := c.Login(t.Context(), vc.Login().User); err != nil {
		t.Fatal(err)
	}
	return tags.NewManager(c)
}

func TestWordsOfPeople(t *testing.T) {
	t.Parallel()
	w := watch(t, sim.Config{Clusters: mixed()}, func(o *vsphere.Options) {
		o.Attributes = map[string]string{"Owner": "owner", "Cost Center": "cost_center"}
		o.Categories = []string{"env", "never made"}
	})
	a, b := w.vm("a"), w.vm("b")
	get := func(id inventory.ID) *inventory.VM { v, _ := w.fleet.Snapshot().VM(id); return v.VM }
	attribute := func(id inventory.ID, name, value string) {
		t.Helper()
		if err := w.vc.SetAttribute(vmRef(id), name, value); err != nil {
			t.Fatal(err)
		}
	}
	attribute(a, "Owner", "team a")
	attribute(a, "Cost Center", "4711")
	attribute(b, "Secret", "not asked for")
	both := []inventory.Label{{Name: "cost_center", Value: "4711"}, {Name: "owner", Value: "team a"}}
	w.eventually(10*time.Second, "attributes", func() bool { return slices.Equal(get(a).Annotations, both) })
	attribute(a, "Cost Center", "")
	w.eventually(5*time.Second, "an attribute taken away", func() bool { return slices.Equal(get(a).Annotations, both[1:]) })
	if got := get(b).Annotations; got != nil {
		t.Errorf("b has %v", got)
	}

	m := person(t, w.vc)
	made := func(category string, names ...string) (ids []string) {
		t.Helper()
		id, err := m.CreateCategory(t.Context(), &tags.Category{Name: category, Cardinality: "MULTIPLE"})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			tag, err := m.CreateTag(t.Context(), &tags.Tag{Name: name, CategoryID: id})
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, tag)
		}
		return ids
	}
	env, other := made("env", "prod", "test"), made("other", "x")
	for _, id := range append(slices.Clone(env), other...) {
		if err := m.AttachTag(t.Context(), id, vmRef(a)); err != nil {
			t.Fatal(err)
		}
	}
	tagged := func(want ...inventory.Tag) func() bool {
		return func() bool { return slices.Equal(get(a).Tags, want) }
	}
	prod, test := inventory.Tag{Category: "env", Name: "prod"}, inventory.Tag{Category: "env", Name: "test"}
	w.eventually(10*time.Second, "tags", tagged(prod, test))
	if s := w.scrape(); strings.Count(s, "virt_vm_tag_info{") != 2 || !strings.Contains(s, `vm_id="`+a.Ref+`",owner="team a"} 1`) {
		t.Errorf("shown:\n%s", s)
	}

	// The REST API fails: what was known stays, and only it is in fault.
	lift := w.vc.Inject(sim.Fault{Method: "REST", Fault: &types.SystemError{}})
	w.eventually(10*time.Second, "a fault of tags", func() bool { n, _ := w.faults.count("tags"); return n > 0 })
	if !tagged(prod, test)() || !w.up("vc") {
		t.Error("an answer that did not come took tags away")
	}
	if _, err := w.faults.count("tags"); !regexp.MustCompile(`(session\.create|tagging\.\w+\.\w+): `).MatchString(err.Error()) || strings.Contains(err.Error(), "secret") {
		t.Errorf("the fault says %v", err)
	}
	// A reconnect while it fails takes nothing away either, not even for a moment.
	hear := func(c inventory.Change) { t.Errorf("a reconnect did this: %+v", c) }
	w.hear.Store(&hear)
	(&console{t: t, name: "vc", vc: w.vc}).ForgetLogins()
	w.eventually(20*time.Second, "another listing", func() bool { return w.synced.Load() > 1 })
	w.hear.Store(nil)
	lift()
	if err := m.DetachTag(t.Context(), env[0], vmRef(a)); err != nil {
		t.Fatal(err)
	}
	w.eventually(10*time.Second, "a tag taken away", tagged(test))
	if n, err := w.faults.count("slow"); n != 0 {
		t.Errorf("%d faults, last %v", n, err)
	}
}

// TestOddObjectsStay holds that what is no ordinary VM keeps its series, and that they say what it is.
func TestOddObjectsStay(t *testing.T) {
	t.Parallel()
	w := watch(t, sim.Config{Clusters: mixed()}, nil)
	h3, _ := w.vc.Host("h3")
	for _, err := range []error{
		w.vc.SetVMConnection(vmRef(w.vm("a")), types.VirtualMachineConnectionStateOrphaned),
		w.vc.SetVMConnection(vmRef(w.vm("b")), types.VirtualMachineConnectionStateInaccessible),
		w.vc.SetConnection(h3, types.HostSystemConnectionStateNotResponding),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	states := map[string]inventory.Connection{"a": inventory.Orphaned, "b": inventory.Inaccessible, "c": inventory.Connected, "d": inventory.Disconnected, "golden": inventory.Connected}
	w.eventually(5*time.Second, "connections", func() bool {
		for name, want := range states {
			if v, ok := w.fleet.Snapshot().VM(w.vm(name)); !ok || v.Connection != want {
				return false
			}
		}
		h, ok := w.fleet.Snapshot().Host(w.host("h3"))
		return ok && h.Connection == inventory.Unreachable
	})
	s := w.scrape()
	series := func(name, kind, object string) string {
		for line := range strings.Lines(s) {
			if strings.HasPrefix(line, name+`{source="vc",`+kind+`="`+object+`"`) {
				return strings.TrimSpace(line[strings.LastIndexByte(line, ' '):])
			}
		}
		return "none"
	}
	for name, connection := range states {
		connected := "0"
		if connection == inventory.Connected {
			connected = "1"
		}
		template := "0"
		if name == "golden" {
			template = "1"
		}
		for metric, want := range map[string]string{"virt_vm_info": "1", "virt_vm_connected": connected, "virt_vm_template": template, "virt_vm_vcpus": "2"} {
			if got := series(metric, "vm", name); got != want {
				t.Errorf("%s of %s is %s, want %s", metric, name, got, want)
			}
		}
	}
	for metric, want := range map[string]string{"virt_host_info": "1", "virt_host_connected": "0"} {
		if got := series(metric, "host", "h3"); got != want {
			t.Errorf("%s of h3 is %s, want %s", metric, got, want)
		}
	}
	w.eventually(10*time.Second, "what is out of reach has no samples", func() bool {
		w.fleet.Expire(w.clock.Now())
		for _, name := range []string{"a", "b", "d"} {
			if v, _ := w.fleet.Snapshot().VM(w.vm(name)); v.Samples.Of(inventory.VMCPUUsage).OK() {
				return false
			}
		}
		return true
	})
}

// TestResourcePools: what they are given, what they are part of and what is in them, from the listing on and as it changes.
func TestResourcePools(t *testing.T) {
	t.Parallel()
	clusters := mixed()
	clusters[0].Pools = []sim.Pool{
		{
			Name: "gold", CPU: sim.Allocation{Reservation: 8000, Expandable: true, Shares: 8000},
			Memory: sim.Allocation{Reservation: 16384, Limit: 65536},
		},
		{Name: "gold / web", In: "gold", CPU: sim.Allocation{Limit: 4000}},
	}
	clusters[0].Hosts[0].VMs[0].Pool = "gold / web"
	w := watch(t, sim.Config{Clusters: clusters}, nil)
	id := func(name string) inventory.ID { return w.id(inventory.KindResourcePool, w.vc.Pool, name) }
	pool := func(id inventory.ID) *inventory.ResourcePool { p, _ := w.fleet.Snapshot().ResourcePool(id); return p }
	in := func(name string) inventory.ID { v, _ := w.fleet.Snapshot().VM(w.vm(name)); return v.Pool }
	ref := func(id inventory.ID) types.ManagedObjectReference {
		return types.ManagedObjectReference{Type: "ResourcePool", Value: id.Ref}
	}
	cluster := w.id(inventory.KindCluster, w.vc.Cluster, "prod")
	root, gold, web := id("Resources"), id("gold"), id("gold / web")
	const mebi = 1 << 20
	want := &inventory.ResourcePool{
		ID: gold, Name: "gold", Parent: root, Cluster: cluster,
		CPU:    inventory.Allocation{Known: true, Reservation: 8e9, Expandable: true, Shares: 8000},
		Memory: inventory.Allocation{Known: true, Reservation: 16384 * mebi, Limited: true, Limit: 65536 * mebi, Shares: 163840},
	}
	if got := pool(gold); !reflect.DeepEqual(got, want) {
		t.Errorf("gold is\n%+v\nwant\n%+v", got, want)
	}
	if p := pool(web); p == nil || p.Parent != gold || p.Cluster != cluster || p.CPU.Limit != 4e9 {
		t.Errorf("web is %+v", p)
	}
	if p := pool(root); p == nil || !p.Parent.IsZero() || p.Cluster != cluster || !p.CPU.Known {
		t.Errorf("the root is %+v", p)
	}
	if in("a") != web || in("b") != root {
		t.Errorf("a is in %v, b in %v", in("a"), in("b"))
	}
	shown := func(lines ...string) {
		t.Helper()
		s := w.scrape()
		for _, line := range lines {
			if !strings.Contains(s, line) {
				t.Errorf("%s is not shown", line)
			}
		}
	}
	labels := func(name string, id inventory.ID) string {
		return `{source="vc",resource_pool="` + name + `",resource_pool_id="` + id.Ref + `"`
	}
	shown(
		"virt_resource_pool_info"+labels("gold / web", web)+`,parent="gold",parent_id="`+gold.Ref+`",virt_cluster="prod",cluster_id="`+cluster.Ref+`"} 1`,
		"virt_resource_pool_cpu_reservation_hertz"+labels("gold", gold)+"} 8000000000",
		"virt_resource_pool_memory_limit_bytes"+labels("gold", gold)+"} 68719476736",
		"virt_resource_pool_vms"+labels("gold / web", web)+"} 1",
		`,resource_pool="gold / web",resource_pool_id="`+web.Ref+`"} 1`,
	)

	// A pool is made, and a VM moves into it.
	made, err := w.vc.CreatePool(ref(root), sim.Pool{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	test := inventory.ID{Source: "vc", Kind: inventory.KindResourcePool, Ref: made.Value}
	w.eventually(5*time.Second, "a new pool", func() bool { p := pool(test); return p != nil && p.Parent == root && p.CPU.Shares == 4000 })
	if err := w.vc.MoveIntoPool(made, vmRef(w.vm("b"))); err != nil {
		t.Fatal(err)
	}
	w.eventually(5*time.Second, "b in the new pool", func() bool { return in("b") == test })
	shown("virt_resource_pool_vms" + labels("test", test) + "} 1")

	// It is changed, and what shows its name with it.
	if err := w.vc.ConfigurePool(made, sim.Pool{Name: "trial", Memory: sim.Allocation{Limit: 1024}}); err != nil {
		t.Fatal(err)
	}
	w.eventually(5*time.Second, "another name and limit", func() bool { p := pool(test); return p.Name == "trial" && p.Memory.Limit == 1024*mebi })
	shown(`,resource_pool="trial",resource_pool_id="`+made.Value+`"} 1`, "virt_resource_pool_memory_limit_bytes"+labels("trial", test)+"} 1073741824")

	// One that goes leaves what is in it to its parent.
	if err := w.vc.DestroyPool(ref(gold)); err != nil {
		t.Fatal(err)
	}
	w.eventually(5*time.Second, "gold gone", func() bool { return pool(gold) == nil && pool(web).Parent == root && in("a") == web })
	if err := w.vc.DestroyPool(ref(web)); err != nil {
		t.Fatal(err)
	}
	w.eventually(5*time.Second, "a in the root", func() bool { return pool(web) == nil && in("a") == root })
	if s := w.scrape(); strings.Contains(s, `resource_pool="gold`) {
		t.Error("what is gone is still shown")
	}

	// One that goes unseen is gone with the next listing.
	w.vc.Stop()
	if err := w.vc.DestroyPool(made); err != nil {
		t.Fatal(err)
	}
	if err := w.vc.Restart(); err != nil {
		t.Fatal(err)
	}
	w.eventually(20*time.Second, "the pool that went unseen", func() bool { return pool(test) == nil && in("b") == root })
}
