package inventory

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var epoch = time.UnixMilli(1_700_000_000_000)

func vm(ref string) ID        { return ID{"lab", KindVM, ref} }
func host(ref string) ID      { return ID{"lab", KindHost, ref} }
func cluster(ref string) ID   { return ID{"lab", KindCluster, ref} }
func datastore(ref string) ID { return ID{"lab", KindDatastore, ref} }
func network(ref string) ID   { return ID{"lab", KindNetwork, ref} }

// lab is a synced fleet of one cluster, two hosts and three VMs, and a second source that has not answered.
func lab(t testing.TB) *Fleet {
	t.Helper()
	f := NewFleet(Source{Name: "lab", Platform: "vsphere", Interval: 20 * time.Second}, Source{Name: "other", Interval: time.Minute})
	apply(t, f, Delta{Source: "lab", Begin: true, Synced: true}.with(
		Cluster{ID: cluster("c1"), Name: "berlin"},
		Host{ID: host("h1"), Name: "esx1", Cluster: cluster("c1")},
		Host{ID: host("h2"), Name: "esx2", Cluster: cluster("c1")},
		VM{ID: vm("v1"), Name: "web", Host: host("h1")},
		VM{ID: vm("v2"), Name: "db", Host: host("h1")},
		VM{ID: vm("v3"), Name: "web", Host: host("h2")},
	))
	return f
}

// with is the delta with these objects, removals (ID) and sample sets too.
func (d Delta) with(objects ...any) Delta {
	for _, obj := range objects {
		switch o := obj.(type) {
		case Cluster:
			d.Clusters = append(d.Clusters, o)
		case Host:
			d.Hosts = append(d.Hosts, o)
		case VM:
			d.VMs = append(d.VMs, o)
		case Datastore:
			d.Datastores = append(d.Datastores, o)
		case Network:
			d.Networks = append(d.Networks, o)
		case ID:
			d.Removed = append(d.Removed, o)
		case SampleSet:
			d.Samples = append(d.Samples, o)
		default:
			panic(fmt.Sprintf("%T", obj))
		}
	}
	return d
}

func apply(t testing.TB, f *Fleet, d Delta) []string {
	t.Helper()
	changes, err := f.Apply(d, epoch)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, c := range changes {
		s := string(c.Kind)
		if !c.ID.IsZero() {
			s += " " + c.ID.Ref + " " + c.Name
		}
		if c.Kind == Moved {
			s += " " + c.From.Ref + ">" + c.To.Ref
		}
		out = append(out, s)
	}
	return out
}

func TestChanges(t *testing.T) {
	all := []any{
		Cluster{ID: cluster("c1"), Name: "berlin"},
		Host{ID: host("h1"), Name: "esx1", Cluster: cluster("c1")},
		Host{ID: host("h2"), Name: "esx2", Cluster: cluster("c1")},
		VM{ID: vm("v1"), Name: "web", Host: host("h1")},
		VM{ID: vm("v2"), Name: "db", Host: host("h1")},
		VM{ID: vm("v3"), Name: "web", Host: host("h2")},
	}
	without := func(i ...int) []any {
		out := slices.Clone(all)
		for _, n := range i {
			out[n] = nil
		}
		return slices.DeleteFunc(out, func(o any) bool { return o == nil })
	}
	for _, tc := range []struct {
		name   string
		deltas []Delta
		want   []string // of all deltas together
	}{
		{"nothing new", []Delta{Delta{Source: "lab"}.with(all...)}, nil},
		{"a VM is added", []Delta{Delta{Source: "lab"}.with(VM{ID: vm("v4"), Name: "new", Host: host("h2")})}, []string{"added v4 new"}},
		{"a VM moves", []Delta{Delta{Source: "lab"}.with(VM{ID: vm("v1"), Name: "web", Host: host("h2")})}, []string{"moved v1 web h1>h2"}},
		{"a VM is renamed", []Delta{Delta{Source: "lab"}.with(VM{ID: vm("v1"), Name: "www", Host: host("h1")})}, []string{"updated v1 www"}},
		{"a host goes into maintenance", []Delta{Delta{Source: "lab"}.with(Host{ID: host("h1"), Name: "esx1", Cluster: cluster("c1"), Maintenance: true})}, []string{"updated h1 esx1"}},
		{"a cluster's rules change", []Delta{Delta{Source: "lab"}.with(Cluster{ID: cluster("c1"), Name: "berlin", Rules: []Rule{{Name: "apart"}}})}, []string{"updated c1 berlin"}},
		{"a VM is removed", []Delta{Delta{Source: "lab"}.with(vm("v1"))}, []string{"removed v1 web"}},
		{"an unknown VM is removed", []Delta{Delta{Source: "lab"}.with(vm("v9"))}, nil},
		{"removed and listed in one delta", []Delta{Delta{Source: "lab"}.with(VM{ID: vm("v9"), Name: "brief"}, vm("v9"))}, []string{"added v9 brief", "removed v9 brief"}},
		{"a new listing without change", []Delta{Delta{Source: "lab", Begin: true, Synced: true}.with(all...)}, []string{"synced"}},
		{
			"a new listing without a VM and a host",
			[]Delta{Delta{Source: "lab", Begin: true, Synced: true}.with(without(2, 4)...)},
			[]string{"removed h2 esx2", "removed v2 db", "synced"},
		},
		{
			"a listing in parts",
			[]Delta{{Source: "lab", Begin: true}, Delta{Source: "lab"}.with(all[:3]...), Delta{Source: "lab"}.with(all[3]), {Source: "lab", Synced: true}},
			[]string{"removed v2 db", "removed v3 web", "synced"},
		},
		{
			"nothing is removed before the listing's end",
			[]Delta{{Source: "lab", Begin: true}, Delta{Source: "lab"}.with(all[:3]...)},
			nil,
		},
		{
			"a listing begun again starts over",
			[]Delta{Delta{Source: "lab", Begin: true}.with(all...), Delta{Source: "lab", Begin: true}.with(all[:5]...), {Source: "lab", Synced: true}},
			[]string{"removed v3 web", "synced"},
		},
		{
			"removed while listing, then listed again",
			[]Delta{Delta{Source: "lab", Begin: true}.with(all...), Delta{Source: "lab"}.with(vm("v1")), Delta{Source: "lab", Synced: true}.with(all[3])},
			[]string{"removed v1 web", "added v1 web", "synced"},
		},
		{"an end without a beginning", []Delta{{Source: "lab", Synced: true}}, nil},
		{"an empty listing removes all", []Delta{{Source: "lab", Begin: true, Synced: true}}, []string{"removed c1 berlin", "removed h1 esx1", "removed h2 esx2", "removed v1 web", "removed v2 db", "removed v3 web", "synced"}},
		{"another source's listing", []Delta{{Source: "other", Begin: true, Synced: true}}, []string{"synced"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := lab(t)
			var got []string
			for _, d := range tc.deltas {
				got = append(got, apply(t, f, d)...)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
		})
	}
}

func TestAListingIsVoidAfterDown(t *testing.T) {
	f := lab(t)
	apply(t, f, Delta{Source: "lab", Begin: true})
	f.Down("lab", errors.New("connection reset"))
	if got := apply(t, f, Delta{Source: "lab", Synced: true}); got != nil {
		t.Errorf("a listing of a dead connection did %q", got)
	}
	snap := f.Snapshot()
	if src, _ := snap.Source("lab"); src.Up || !src.Synced || src.Error != "connection reset" {
		t.Errorf("source %+v", src)
	}
	if _, ok := snap.VM(vm("v1")); !ok {
		t.Error("objects of a dead source are gone")
	}
}

func TestSourceState(t *testing.T) {
	f := NewFleet(Source{Name: "lab"})
	state := func() Source { src, _ := f.Snapshot().Source("lab"); return src }
	if got := state(); got.Up || got.Synced || !got.LastSuccess.IsZero() {
		t.Errorf("new: %+v", got)
	}
	apply(t, f, Delta{Source: "lab", Begin: true}.with(Host{ID: host("h1")}))
	if got := state(); got.Up || got.Synced || !got.LastSuccess.IsZero() {
		t.Errorf("while listing: %+v", got)
	}
	apply(t, f, Delta{Source: "lab", Synced: true})
	if got := state(); !got.Up || !got.Synced || !got.LastSuccess.Equal(epoch) {
		t.Errorf("listed: %+v", got)
	}
	f.Down("lab", errors.New("gone"))
	f.Down("nobody", errors.New("gone"))
	if got := state(); got.Up || !got.Synced || got.Error != "gone" || !got.LastSuccess.Equal(epoch) {
		t.Errorf("down: %+v", got)
	}
	apply(t, f, Delta{Source: "lab", Begin: true, Synced: true})
	if got := state(); !got.Up || got.Error != "" {
		t.Errorf("back: %+v", got)
	}
}

func TestRefusedDeltas(t *testing.T) {
	for name, d := range map[string]Delta{
		"unknown source":                    {Source: "nobody"},
		"no source":                         {},
		"another source's VM":               Delta{Source: "lab"}.with(VM{ID: ID{"other", KindVM, "v1"}}),
		"another source's host":             Delta{Source: "lab"}.with(Host{ID: ID{"other", KindHost, "h1"}}),
		"another source's cluster":          Delta{Source: "lab"}.with(Cluster{ID: ID{"other", KindCluster, "c1"}}),
		"another source's sample":           Delta{Source: "lab"}.with(SampleSet{ID: ID{"other", KindVM, "v1"}}),
		"another source's removal":          Delta{Source: "lab"}.with(ID{"other", KindVM, "v1"}),
		"another source's datastore":        Delta{Source: "lab"}.with(Datastore{ID: ID{"other", KindDatastore, "d1"}}),
		"another source's network":          Delta{Source: "lab"}.with(Network{ID: ID{"other", KindNetwork, "n1"}}),
		"a VM that says host":               Delta{Source: "lab"}.with(VM{ID: host("v1")}),
		"a VM without a ref":                Delta{Source: "lab"}.with(VM{ID: vm("")}),
		"a good VM beside a bad one":        Delta{Source: "lab"}.with(VM{ID: vm("v7")}, VM{ID: vm("")}),
		"a good VM beside a foreign sample": Delta{Source: "lab"}.with(VM{ID: vm("v7")}, SampleSet{ID: ID{"other", KindVM, "v1"}}),
	} {
		t.Run(name, func(t *testing.T) {
			f := lab(t)
			before := f.Snapshot()
			changes, err := f.Apply(d, epoch)
			if err == nil || changes != nil {
				t.Fatalf("taken: %v", changes)
			}
			if f.Snapshot() != before {
				t.Error("a refused delta was published in part")
			}
		})
	}
}

func sample(id ID, at time.Time, m Metric, v float64) SampleSet {
	return SampleSet{ID: id, At: at.UnixMilli(), Values: []Value{{m, v}}}
}

func TestSamples(t *testing.T) {
	f := lab(t)
	later := epoch.Add(20 * time.Second)
	apply(t, f, Delta{Source: "lab"}.with(
		sample(vm("v1"), epoch, VMCPUUsage, 1e9),
		sample(vm("v1"), later, VMCPUContention, 0.1),
		sample(vm("v1"), later, HostCPUUsage, 7), // not a VM's metric
		sample(vm("v9"), later, VMCPUUsage, 7),   // not known
		sample(host("h1"), epoch, HostCPUUsageRatio, 0.5),
	))
	v1, _ := f.Snapshot().VM(vm("v1"))
	if v, ok := v1.Samples.Value(VMCPUUsage); v != 1e9 || !ok {
		t.Errorf("usage %v %v", v, ok)
	}
	if got := v1.Samples.Of(VMCPUContention); got.Time() != later || got.Value != 0.1 {
		t.Errorf("contention %+v", got)
	}
	for _, m := range []Metric{VMCPUCoStop, HostCPUUsage} {
		if v, ok := v1.Samples.Value(m); ok {
			t.Errorf("%s of a VM that has none is %v", m, v)
		}
	}
	if s := v1.Samples.Of(VMCPUCoStop); !s.Time().IsZero() {
		t.Errorf("never seen at %v", s.Time())
	}
	h1, _ := f.Snapshot().Host(host("h1"))
	if v, ok := h1.Samples.Value(HostCPUUsageRatio); v != 0.5 || !ok {
		t.Errorf("host's ratio %v %v", v, ok)
	}
	if v2, _ := f.Snapshot().VM(vm("v2")); v2.Samples != nil {
		t.Errorf("v2 has %v", v2.Samples)
	}
	if _, ok := (Samples{}).Value(VMCPUUsage); ok {
		t.Error("no samples have a value")
	}
}

func TestExpire(t *testing.T) {
	f := lab(t)
	apply(t, f, Delta{Source: "lab"}.with(
		sample(vm("v1"), epoch, VMCPUUsage, 1),
		sample(vm("v1"), epoch.Add(10*time.Second), VMUptime, 2),
		sample(host("h1"), epoch, HostCPUUsage, 3),
	))
	fresh := f.Snapshot()
	f.Expire(epoch.Add(40 * time.Second)) // two intervals old, and not older
	if f.Snapshot() != fresh {
		t.Error("published though nothing expired")
	}
	f.Expire(epoch.Add(41 * time.Second))
	v1, _ := f.Snapshot().VM(vm("v1"))
	h1, _ := f.Snapshot().Host(host("h1"))
	if s := v1.Samples.Of(VMCPUUsage); s.OK() || !s.Time().Equal(epoch) {
		t.Errorf("an old sample is %+v", s)
	}
	if v, ok := v1.Samples.Value(VMUptime); v != 2 || !ok {
		t.Error("a fresh sample of the same VM expired")
	}
	if h1.Samples.Of(HostCPUUsage).OK() {
		t.Error("the host's sample did not expire")
	}
	if old, _ := fresh.VM(vm("v1")); !old.Samples.Of(VMCPUUsage).OK() {
		t.Error("a snapshot taken before has changed")
	}
	again := f.Snapshot()
	f.Expire(epoch.Add(42 * time.Second))
	if f.Snapshot() != again {
		t.Error("published though nothing more expired")
	}
	apply(t, f, Delta{Source: "lab"}.with(sample(vm("v1"), epoch.Add(60*time.Second), VMCPUUsage, 4)))
	if v1, _ := f.Snapshot().VM(vm("v1")); !v1.Samples.Of(VMCPUUsage).OK() {
		t.Error("a new sample does not bring the value back")
	}
}

func TestDatastores(t *testing.T) {
	f := lab(t)
	san := Datastore{ID: datastore("d1"), Name: "san", Accessible: true, Mounts: map[ID]Mount{
		host("h1"): {Accessible: true}, host("h2"): {Accessible: true, ReadOnly: true},
	}}
	moved := san
	moved.Mounts = map[ID]Mount{host("h1"): {}}
	same := san
	same.Mounts = maps.Clone(san.Mounts)
	for _, step := range []struct {
		name string
		d    Delta
		want []string
	}{
		{"added", Delta{Source: "lab"}.with(san, Datastore{ID: datastore("d2"), Name: "nfs"}), []string{"added d1 san", "added d2 nfs"}},
		{"the same again", Delta{Source: "lab"}.with(same), nil},
		{"a sample", Delta{Source: "lab"}.with(sample(datastore("d1"), epoch, DatastoreFree, 5)), nil},
		{"a mount lost", Delta{Source: "lab"}.with(moved), []string{"updated d1 san"}},
		{"removed", Delta{Source: "lab"}.with(datastore("d2")), []string{"removed d2 nfs"}},
	} {
		if got := apply(t, f, step.d); !slices.Equal(got, step.want) {
			t.Errorf("%s: %q, want %q", step.name, got, step.want)
		}
	}
	d1, ok := f.Snapshot().Datastore(datastore("d1"))
	if v, fresh := d1.Samples.Value(DatastoreFree); !ok || !fresh || v != 5 {
		t.Errorf("d1 %v, free %v %v", ok, v, fresh)
	}
	if _, ok := f.Snapshot().Datastore(vm("d1")); ok {
		t.Error("found as a VM")
	}
	n := 0
	for d := range f.Snapshot().Datastores() {
		if n++; d.ID != datastore("d1") {
			t.Errorf("yields %v", d.ID)
		}
	}
	if n != 1 || len(f.Snapshot().DatastoreTable("lab").Facts) != 2 {
		t.Errorf("%d datastores", n)
	}
	// Free space is renewed slowly, and is true for as long.
	f.Expire(epoch.Add(3 * SlowInterval))
	if d1, _ := f.Snapshot().Datastore(datastore("d1")); !d1.Samples.Of(DatastoreFree).OK() {
		t.Error("expired too early")
	}
	f.Expire(epoch.Add(3*SlowInterval + time.Second))
	if d1, _ := f.Snapshot().Datastore(datastore("d1")); d1.Samples.Of(DatastoreFree).OK() {
		t.Error("not expired")
	}
	if got := apply(t, f, Delta{Source: "lab", Begin: true, Synced: true}); !slices.Contains(got, "removed d1 san") {
		t.Errorf("an empty listing leaves it: %q", got)
	}
}

func TestRuns(t *testing.T) {
	d := Datastore{Mounts: map[ID]Mount{host("up"): {Accessible: true}, host("down"): {}, host("ro"): {Accessible: true, ReadOnly: true}}}
	for ref, want := range map[string]bool{"up": true, "down": false, "ro": false, "none": false} {
		if yes, known := d.Runs(host(ref)); yes != want || !known {
			t.Errorf("%s: %v %v", ref, yes, known)
		}
	}
	if _, known := (&Datastore{}).Runs(host("up")); known {
		t.Error("mounts that are not known are known")
	}
}

func TestNetworks(t *testing.T) {
	f := lab(t)
	h1 := func(networks ...ID) Host {
		return Host{ID: host("h1"), Name: "esx1", Cluster: cluster("c1"), Networks: networks}
	}
	for _, step := range []struct {
		name string
		d    Delta
		want []string
	}{
		{"added", Delta{Source: "lab"}.with(Network{ID: network("n1"), Name: "prod"}, Network{ID: network("n2"), Name: "lab"}), []string{"added n1 prod", "added n2 lab"}},
		{"the same again", Delta{Source: "lab"}.with(Network{ID: network("n1"), Name: "prod"}), nil},
		{"a host has it", Delta{Source: "lab"}.with(h1(network("n1"))), []string{"updated h1 esx1"}},
		{"the same host again", Delta{Source: "lab"}.with(h1(network("n1"))), nil},
		{"a host has none", Delta{Source: "lab"}.with(h1([]ID{}...)), []string{"updated h1 esx1"}},
		{"what a host has is not known", Delta{Source: "lab"}.with(h1(nil...)), []string{"updated h1 esx1"}},
		{"a VM is attached", Delta{Source: "lab"}.with(VM{ID: vm("v1"), Name: "web", Host: host("h1"), Networks: []ID{network("n1")}}), []string{"updated v1 web"}},
		{"renamed", Delta{Source: "lab"}.with(Network{ID: network("n1"), Name: "production"}), []string{"updated n1 production"}},
		{"removed", Delta{Source: "lab"}.with(network("n2")), []string{"removed n2 lab"}},
	} {
		if got := apply(t, f, step.d); !slices.Equal(got, step.want) {
			t.Errorf("%s: %q, want %q", step.name, got, step.want)
		}
	}
	n1, ok := f.Snapshot().Network(network("n1"))
	if _, gone := f.Snapshot().Network(network("n2")); !ok || n1.Name != "production" || gone {
		t.Errorf("n1 %+v %v, n2 %v", n1, ok, gone)
	}
	if _, ok := f.Snapshot().Network(datastore("n1")); ok {
		t.Error("found as a datastore")
	}
	if n := len(f.Snapshot().NetworkTable("lab").Facts); n != 2 {
		t.Errorf("%d slots", n)
	}
	if got := apply(t, f, Delta{Source: "lab", Begin: true, Synced: true}); !slices.Contains(got, "removed n1 production") {
		t.Errorf("an empty listing leaves it: %q", got)
	}
}

func TestOn(t *testing.T) {
	n := &Network{ID: network("n1")}
	for name, tt := range map[string]struct {
		n          *Network
		networks   []ID
		yes, known bool
	}{
		"there":              {n, []ID{network("n2"), network("n1")}, true, true},
		"not there":          {n, []ID{network("n2")}, false, true},
		"the host has none":  {n, []ID{}, false, true},
		"the host's unknown": {n, nil, false, false},
		"unread":             {&Network{ID: network("n1"), Unread: true}, []ID{network("n2")}, false, false},
	} {
		if yes, known := tt.n.On(&Host{Networks: tt.networks}); yes != tt.yes || known != tt.known {
			t.Errorf("%s: %v %v, want %v %v", name, yes, known, tt.yes, tt.known)
		}
	}
}

func TestSlotsAreUsedAgain(t *testing.T) {
	f := lab(t)
	apply(t, f, Delta{Source: "lab"}.with(sample(vm("v2"), epoch, VMCPUUsage, 9)))
	slots := func() map[string]int {
		out := map[string]int{}
		for slot, v := range f.Snapshot().VMTable("lab").Facts {
			if v != nil {
				out[v.ID.Ref] = slot
			}
		}
		return out
	}
	before := slots()
	apply(t, f, Delta{Source: "lab"}.with(vm("v2")))
	for i := range 100 {
		ref := fmt.Sprint("n", i)
		apply(t, f, Delta{Source: "lab"}.with(VM{ID: vm(ref), Name: ref, Host: host("h1")}))
		after := slots()
		if after[ref] != before["v2"] || after["v1"] != before["v1"] || after["v3"] != before["v3"] {
			t.Fatalf("slots %v, before %v", after, before)
		}
		if n, _ := f.Snapshot().VM(vm(ref)); n.Samples != nil {
			t.Fatal("a new VM has the samples of the one before it in its slot")
		}
		apply(t, f, Delta{Source: "lab"}.with(vm(ref)))
	}
	if n := len(f.Snapshot().VMTable("lab").Facts); n != 3 {
		t.Errorf("%d slots for at most 3 VMs", n)
	}
}

// TestTablesTellWhatChanged holds Table's promise: the same pointers, the same object.
func TestTablesTellWhatChanged(t *testing.T) {
	f := lab(t)
	apply(t, f, Delta{Source: "lab"}.with(sample(vm("v1"), epoch, VMCPUUsage, 1), sample(vm("v2"), epoch, VMCPUUsage, 1)))
	a := f.Snapshot().VMTable("lab")
	apply(t, f, Delta{Source: "lab"}.with(
		VM{ID: vm("v1"), Name: "web", Host: host("h1")}, // as before
		VM{ID: vm("v2"), Name: "db2", Host: host("h1")},
		sample(vm("v1"), epoch, VMCPUUsage, 2),
	))
	b := f.Snapshot().VMTable("lab")
	for slot, want := range []struct{ facts, samples bool }{{false, true}, {true, false}, {false, false}} {
		facts := a.Facts[slot] != b.Facts[slot]
		samples := (a.Samples[slot] != nil || b.Samples[slot] != nil) && &a.Samples[slot][0] != &b.Samples[slot][0]
		if facts != want.facts || samples != want.samples {
			t.Errorf("slot %d: facts changed %v, samples changed %v, want %+v", slot, facts, samples, want)
		}
	}
}

func TestLookups(t *testing.T) {
	s := lab(t).Snapshot()
	names := func(seq []VMView) (out []string) {
		for _, v := range seq {
			out = append(out, v.ID.Ref)
		}
		return out
	}
	if got := names(s.VMsOn(host("h1"))); !slices.Equal(got, []string{"v1", "v2"}) {
		t.Errorf("VMs on h1: %v", got)
	}
	if got := len(s.HostsOf(cluster("c1"))); got != 2 {
		t.Errorf("%d hosts in c1", got)
	}
	v3, _ := s.VM(vm("v3"))
	if c, ok := s.ClusterOf(v3.VM); !ok || c.Name != "berlin" {
		t.Errorf("cluster of v3: %v %v", c, ok)
	}
	if _, ok := s.ClusterOf(&VM{Host: host("h9")}); ok {
		t.Error("a VM on an unknown host has a cluster")
	}
	for name, known := range map[string]bool{
		"VM as host":       has(s.Host(vm("v1"))),
		"host as VM":       has(s.VM(host("h1"))),
		"VM as cluster":    has(s.Cluster(vm("v1"))),
		"unknown source":   has(s.VM(ID{"nobody", KindVM, "v1"})),
		"other's host":     has(s.Host(ID{"other", KindHost, "h1"})),
		"unknown VM":       has(s.VM(vm("v9"))),
		"VMs of no source": len(s.VMsOn(ID{"nobody", KindHost, "h1"})) > 0,
	} {
		if known {
			t.Errorf("%s is found", name)
		}
	}
	for range s.VMs() {
		break // an early end is allowed
	}
	for range s.Hosts() {
		break
	}
	for range s.Clusters() {
		break
	}
}

func has[T any](_ T, ok bool) bool { return ok }

// TestAgainstAPlainMap applies random deltas and compares with the plainest of models.
func TestAgainstAPlainMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	f := NewFleet(Source{Name: "lab", Interval: 20 * time.Second})
	model, seen, listing := map[ID]VM{}, map[ID]bool{}, false
	for range 3000 {
		d := Delta{Source: "lab", Begin: rng.IntN(20) == 0, Synced: rng.IntN(10) == 0}
		if d.Begin {
			seen, listing = map[ID]bool{}, true
		}
		for range rng.IntN(4) {
			v := VM{ID: vm(fmt.Sprint(rng.IntN(10))), Name: fmt.Sprint(rng.IntN(3)), Host: host(fmt.Sprint(rng.IntN(3)))}
			d.VMs = append(d.VMs, v)
			model[v.ID], seen[v.ID] = v, true
		}
		if rng.IntN(4) == 0 {
			id := vm(fmt.Sprint(rng.IntN(10)))
			d.Removed = []ID{id}
			delete(model, id)
			delete(seen, id)
		}
		if d.Synced && listing {
			maps.DeleteFunc(model, func(id ID, _ VM) bool { return !seen[id] })
			listing = false
		}
		apply(t, f, d)
		got := map[ID]VM{}
		on := 0
		for v := range f.Snapshot().VMs() {
			got[v.ID] = *v.VM
		}
		for h := range 3 {
			on += len(f.Snapshot().VMsOn(host(fmt.Sprint(h))))
		}
		if !reflect.DeepEqual(got, model) || on != len(model) {
			t.Fatalf("after %+v:\ngot  %v (%d on hosts)\nwant %v", d, got, on, model)
		}
	}
}

// TestSnapshotsNeverChange reads snapshots while the fleet changes: it is the race detector's, and compares what it reads twice.
func TestSnapshotsNeverChange(t *testing.T) {
	f := lab(t)
	describe := func(s *Snapshot) string {
		var b strings.Builder
		for v := range s.VMs() {
			fmt.Fprint(&b, *v.VM, v.Samples, len(s.VMsOn(v.Host)))
		}
		for h := range s.Hosts() {
			fmt.Fprint(&b, *h.Host, h.Samples)
		}
		return b.String()
	}
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			for i := range 400 {
				ref := fmt.Sprint("v", rng.IntN(6))
				switch rng.IntN(5) {
				case 0:
					apply(t, f, Delta{Source: "lab"}.with(vm(ref)))
				case 1:
					apply(t, f, Delta{Source: "lab"}.with(VM{ID: vm(ref), Name: fmt.Sprint(i), Host: host("h2")}))
				case 2:
					f.Expire(epoch.Add(time.Duration(rng.IntN(80)) * time.Second))
				case 3:
					f.Down("lab", errors.New("gone"))
				default:
					apply(t, f, Delta{Source: "lab"}.with(sample(vm(ref), epoch.Add(time.Duration(i)*time.Second), VMCPUUsage, float64(i))))
				}
			}
		})
	}
	for range 2 {
		wg.Go(func() {
			for range 200 {
				s := f.Snapshot()
				if a, b := describe(s), describe(s); a != b {
					t.Errorf("a snapshot changed:\n%s\n%s", a, b)
				}
			}
		})
	}
	wg.Wait()
}

func TestIDsAreReadBack(t *testing.T) {
	for _, id := range []ID{{}, vm("vm-1"), {"a", KindCluster, "x/y z\""}} {
		got, err := ParseID(id.String())
		if err != nil || got != id {
			t.Errorf("%q is read as %v, %v", id, got, err)
		}
	}
	for _, bad := range []string{"x", "a/vm", "a/vm/", "/vm/x", "a/gate/x"} {
		if id, err := ParseID(bad); err == nil {
			t.Errorf("%q is read as %v", bad, id)
		}
	}
}

// TestMachinesAreNoHosts: a machine comes, is sampled, grows stale and goes as all else does, and nobody who asks for hosts sees it.
func TestMachinesAreNoHosts(t *testing.T) {
	f := NewFleet(Source{Name: "lab", Interval: 20 * time.Second})
	id := ID{"lab", KindMachine, "db"}
	sample := SampleSet{ID: id, At: epoch.UnixMilli(), Values: []Value{{MachineCPUUsageRatio, 0.25}, {HostCPUUsage, 1}}}
	changes := apply(t, f, Delta{Source: "lab", Begin: true, Synced: true, Machines: []Machine{{ID: id, Name: "db", CPUs: 4}}, Samples: []SampleSet{sample}})
	if len(changes) != 2 || !strings.HasPrefix(changes[0], "added") {
		t.Errorf("%q", changes)
	}
	value := func() (float64, bool) { return f.Snapshot().MachineTable("lab").Samples[0].Value(MachineCPUUsageRatio) }
	if v, ok := value(); !ok || v != 0.25 {
		t.Errorf("CPU is %v, known: %v", v, ok)
	}
	for h := range f.Snapshot().Hosts() {
		t.Errorf("%s is a host", h.Name)
	}
	f.Expire(epoch.Add(time.Minute))
	if v, ok := value(); ok {
		t.Errorf("a minute later CPU is still %v", v)
	}
	if _, err := f.Apply(Delta{Source: "lab", Machines: []Machine{{ID: host("db")}}}, epoch); err == nil {
		t.Error("a host is taken for a machine")
	}
	apply(t, f, Delta{Source: "lab", Begin: true, Synced: true})
	if table := f.Snapshot().MachineTable("lab"); table.Facts[0] != nil {
		t.Error("what is not listed any more is still there")
	}
}

func TestCatalogue(t *testing.T) {
	seen := map[string]bool{}
	for _, kind := range []Kind{KindCluster, KindHost, KindVM, KindDatastore, KindService, KindMachine} {
		for _, m := range MetricsOf(kind) {
			d := m.Desc()
			if d.Kind != kind || d.Name == "" || d.Help == "" || d.Unit == "" || seen[d.Name] {
				t.Errorf("metric %d: %+v", m, d)
			}
			seen[d.Name] = true
			if !strings.HasPrefix(d.Name, "virt_"+kind.String()+"_") || strings.HasPrefix(m.Field(), "virt_") {
				t.Errorf("%s is called %s", d.Name, m.Field())
			}
		}
	}
	if len(seen) != int(metricCount) {
		t.Errorf("%d metrics of %d belong to a kind", len(seen), metricCount)
	}
}

// BenchmarkApply applies a cycle of samples of 10,000 VMs, in deltas of 50 as they come, and at once.
func BenchmarkApply(b *testing.B) {
	const n = 10_000
	f := NewFleet(Source{Name: "lab", Interval: 20 * time.Second})
	d := Delta{Source: "lab", Begin: true, Synced: true}
	for i := range n {
		d.VMs = append(d.VMs, VM{ID: vm(fmt.Sprint(i)), Host: host(fmt.Sprint(i % 1000))})
	}
	apply(b, f, d)
	for _, size := range []int{50, n} {
		b.Run(fmt.Sprintf("vms=%d/batch=%d", n, size), func(b *testing.B) {
			var deltas []Delta
			for from := 0; from < n; from += size {
				d := Delta{Source: "lab"}
				for i := from; i < from+size; i++ {
					set := SampleSet{ID: vm(fmt.Sprint(i)), At: epoch.UnixMilli()}
					for _, m := range MetricsOf(KindVM) {
						set.Values = append(set.Values, Value{m, float64(i)})
					}
					d.Samples = append(d.Samples, set)
				}
				deltas = append(deltas, d)
			}
			b.ReportAllocs()
			for b.Loop() {
				for _, d := range deltas {
					apply(b, f, d)
				}
			}
		})
	}
	b.Run(fmt.Sprintf("vms=%d/expire-nothing", n), func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			f.Expire(epoch)
		}
	})
}
