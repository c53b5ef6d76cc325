package vsphere

import (
	"reflect"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
)

func TestMounts(t *testing.T) {
	yes, no := true, false
	tree := newTree("vc")
	h := types.ManagedObjectReference{Type: typeHost, Value: "host-1"}
	mount := func(info types.HostMountInfo) any {
		return types.ArrayOfDatastoreHostMount{DatastoreHostMount: []types.DatastoreHostMount{{Key: h, MountInfo: info}}}
	}
	for _, tt := range []struct {
		name  string
		value any
		want  map[inventory.ID]inventory.Mount
	}{
		{"absent", nil, nil},
		{"none", types.ArrayOfDatastoreHostMount{}, nil},
		{"of another type", "host-1", nil},
		{"of no host", types.ArrayOfDatastoreHostMount{DatastoreHostMount: []types.DatastoreHostMount{{}}}, nil},
		{"well", mount(types.HostMountInfo{AccessMode: "readWrite", Mounted: &yes, Accessible: &yes}), map[inventory.ID]inventory.Mount{tree.idOf(h): {Accessible: true}}},
		{"does not say", mount(types.HostMountInfo{AccessMode: "readWrite"}), map[inventory.ID]inventory.Mount{tree.idOf(h): {Accessible: true}}},
		{"not mounted", mount(types.HostMountInfo{Mounted: &no, Accessible: &yes}), map[inventory.ID]inventory.Mount{tree.idOf(h): {}}},
		{"no path", mount(types.HostMountInfo{Mounted: &yes, Accessible: &no}), map[inventory.ID]inventory.Mount{tree.idOf(h): {}}},
		{"read-only", mount(types.HostMountInfo{AccessMode: "readOnly"}), map[inventory.ID]inventory.Mount{tree.idOf(h): {Accessible: true, ReadOnly: true}}},
	} {
		if got := tree.mounts(tt.value); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestFreeSpaceThatIsNotBelieved(t *testing.T) {
	tree := newTree("vc")
	for ref, s := range map[string]store{"well": {}, "full": {}, "absurd": {}, "below": {}, "away": {}, "unsized": {}} {
		s.ID = tree.id(inventory.KindDatastore, ref)
		s.Accessible, s.capacity = ref != "away", 100
		if ref == "unsized" {
			s.capacity = 0
		}
		tree.stores[ref] = &s
	}
	got := map[string]float64{}
	free := map[string]float64{"well": 40, "full": 0, "absurd": 101, "below": -1, "away": 40, "unsized": 40, "gone": 40}
	for _, set := range tree.free(free, time.Unix(1, 0)) {
		got[set.ID.Ref] = set.Values[0].Value
	}
	if want := map[string]float64{"well": 40, "full": 0, "unsized": 40}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestAnnotations(t *testing.T) {
	s := &slow{labels: map[int32]string{1: "owner", 2: "cost", 7: "owner"}}
	value := func(key int32, v string) types.BaseCustomFieldValue {
		return &types.CustomFieldStringValue{CustomFieldValue: types.CustomFieldValue{Key: key}, Value: v}
	}
	for _, tt := range []struct {
		name string
		in   []types.BaseCustomFieldValue
		want []inventory.Label
	}{
		{"none", nil, nil},
		{"in order", []types.BaseCustomFieldValue{value(1, "a"), value(2, "b")}, []inventory.Label{{Name: "cost", Value: "b"}, {Name: "owner", Value: "a"}}},
		{"not asked for, empty, of no known type", []types.BaseCustomFieldValue{value(3, "x"), value(1, ""), &types.CustomFieldValue{Key: 1}, nil}, nil},
		{"two of one name", []types.BaseCustomFieldValue{value(7, "mine"), value(1, "all")}, []inventory.Label{{Name: "owner", Value: "mine"}}},
	} {
		if got := s.annotations(tt.in); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	if got := (&slow{}).annotations([]types.BaseCustomFieldValue{value(1, "a")}); got != nil {
		t.Errorf("names are not known: %v", got)
	}
}

func TestHostRulesOfUnknownGroups(t *testing.T) {
	tree := newTree("vc")
	vm := types.ManagedObjectReference{Type: typeVM, Value: "vm-1"}
	cfg := &types.ClusterConfigInfoEx{
		Group: []types.BaseClusterGroupInfo{&types.ClusterVmGroup{ClusterGroupInfo: types.ClusterGroupInfo{Name: "vms"}, Vm: []types.ManagedObjectReference{vm, {}}}},
		Rule: []types.BaseClusterRuleInfo{
			&types.ClusterVmHostRuleInfo{ClusterRuleInfo: types.ClusterRuleInfo{Name: "r"}, VmGroupName: "vms", AffineHostGroupName: "gone", AntiAffineHostGroupName: "gone too"},
			&types.ClusterVmHostRuleInfo{VmGroupName: "vms"},
			&types.ClusterDependencyRuleInfo{VmGroup: "vms"},
		},
	}
	want := []inventory.HostRule{
		{Name: "r", Kind: inventory.Affinity, VMGroup: "vms", HostGroup: "gone", VMs: []inventory.ID{tree.idOf(vm)}},
		{Name: "r", Kind: inventory.AntiAffinity, VMGroup: "vms", HostGroup: "gone too", VMs: []inventory.ID{tree.idOf(vm)}},
	}
	if got := tree.hostRules(cfg); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestHistorySamples(t *testing.T) {
	now := time.Unix(1_700_000_100, 0)
	h := &history{follower: &follower{tree: newTree("vc")}}
	of := &recorded{counted: counted{kind: typeStore}, byID: map[int32]*counter{1: &storeCounters[0]}}
	ds := types.ManagedObjectReference{Type: typeStore, Value: "datastore-1"}
	at := func(minutes ...int) (info []types.PerfSampleInfo) {
		for _, m := range minutes {
			info = append(info, types.PerfSampleInfo{Timestamp: now.Add(time.Duration(m) * time.Minute), Interval: historical})
		}
		return info
	}
	series := func(counter int32, instance string, values ...int64) []types.BasePerfMetricSeries {
		return []types.BasePerfMetricSeries{&types.PerfMetricIntSeries{
			PerfMetricSeries: types.PerfMetricSeries{Id: types.PerfMetricId{CounterId: counter, Instance: instance}}, Value: values,
		}}
	}
	for _, tt := range []struct {
		name   string
		entity types.ManagedObjectReference
		info   []types.PerfSampleInfo
		values []types.BasePerfMetricSeries
		want   float64 // seconds; negative: none
		age    time.Duration
	}{
		{"the newest", ds, at(-10, -5), series(1, "", 3, 4), 0.004, 5 * time.Minute},
		{"a gap", ds, at(-10, -5), series(1, "", 3, -1), 0.003, 10 * time.Minute},
		{"only gaps", ds, at(-5), series(1, "", -1), -1, 0},
		{"none", ds, nil, series(1, ""), -1, 0},
		{"zero", ds, at(-5), series(1, "", 0), 0, 5 * time.Minute},
		{"from the future", ds, at(-5, 60), series(1, "", 7, 8), 0.007, 5 * time.Minute},
		{"fewer values than times", ds, at(-10, -5), series(1, "", 3), -1, 0},
		{"more values than times", ds, at(-5), series(1, "", 3, 4), -1, 0},
		{"absurd", ds, at(-5), series(1, "", 1<<40), -1, 0},
		{"another counter", ds, at(-5), series(9, "", 3), -1, 0},
		{"one instance", ds, at(-5), series(1, "lun-1", 3), -1, 0},
		{"a VM", types.ManagedObjectReference{Type: typeVM, Value: "vm-1"}, at(-5), series(1, "", 3), -1, 0},
		{"no number", ds, at(-5), []types.BasePerfMetricSeries{&types.PerfMetricSeriesCSV{}}, -1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			skew := 3 * time.Second
			got := h.samples(of, &types.PerfEntityMetric{PerfEntityMetricBase: types.PerfEntityMetricBase{Entity: tt.entity}, SampleInfo: tt.info, Value: tt.values}, skew, now)
			if tt.want < 0 {
				if len(got) > 0 {
					t.Errorf("%+v", got)
				}
				return
			}
			if len(got) != 1 || got[0].Values[0].Value != tt.want || got[0].At != now.Add(skew-tt.age).UnixMilli() {
				t.Errorf("%+v, want %v of %v ago", got, tt.want, tt.age)
			}
		})
	}
}

// A cluster whose settings the user may not read is not one where DRS is off.
func TestUnreadSettings(t *testing.T) {
	tree := newTree("vc")
	id := inventory.ID{Source: "vc", Kind: inventory.KindCluster, Ref: "domain-c1"}
	tree.add(id)
	tree.set(id, "name", "prod", time.Time{})
	if !tree.clusters[id.Ref].Unread {
		t.Error("nothing was read, and it does not say so")
	}
	tree.set(id, "configurationEx", types.ClusterConfigInfoEx{}, time.Time{})
	if tree.clusters[id.Ref].Unread {
		t.Error("the settings were read, and it does not say so")
	}
	tree.set(id, "configurationEx", nil, time.Time{})
	if !tree.clusters[id.Ref].Unread {
		t.Error("the settings went away, and it does not say so")
	}
}

// TestAllocations: what a vCenter leaves out is not known, and a limit of -1 is none.
func TestAllocations(t *testing.T) {
	info := func(reservation, limit *int64, shares *types.SharesInfo) types.ResourceAllocationInfo {
		return types.ResourceAllocationInfo{Reservation: reservation, Limit: limit, Shares: shares, ExpandableReservation: types.NewBool(true)}
	}
	shares := &types.SharesInfo{Shares: 4000, Level: types.SharesLevelNormal}
	for _, tt := range []struct {
		name string
		val  any
		want inventory.Allocation
	}{
		{"none", nil, inventory.Allocation{}},
		{"unlimited", info(types.NewInt64(0), types.NewInt64(-1), shares), inventory.Allocation{Known: true, Expandable: true, Shares: 4000}},
		{"limited to nothing", info(types.NewInt64(500), types.NewInt64(0), shares), inventory.Allocation{Known: true, Reservation: 5e8, Expandable: true, Limited: true, Shares: 4000}},
		{"limited", info(types.NewInt64(500), types.NewInt64(700), shares), inventory.Allocation{Known: true, Reservation: 5e8, Expandable: true, Limited: true, Limit: 7e8, Shares: 4000}},
		{"no reservation", info(nil, types.NewInt64(700), shares), inventory.Allocation{}},
		{"no shares", info(types.NewInt64(500), nil, nil), inventory.Allocation{}},
	} {
		if got := allocation(tt.val, 1e6); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

// TestVirtualAppsArePools: a virtual app is followed as the resource pool that it is, and read again under its own type.
func TestVirtualAppsArePools(t *testing.T) {
	tree := newTree("vc")
	app := types.ManagedObjectReference{Type: "VirtualApp", Value: "resgroup-v9"}
	id := tree.idOf(app)
	if id.Kind != inventory.KindResourcePool {
		t.Fatalf("a virtual app is a %v", id.Kind)
	}
	tree.add(id)
	root := types.ManagedObjectReference{Type: "ResourcePool", Value: "resgroup-1"}
	cluster := types.ManagedObjectReference{Type: "ClusterComputeResource", Value: "domain-c1"}
	for path, val := range map[string]any{"name": "shop", "parent": root, "owner": cluster} {
		if !tree.set(id, path, val, time.Time{}) {
			t.Errorf("%s is not followed", path)
		}
	}
	var d inventory.Delta
	tree.put(&d, id)
	want := inventory.ResourcePool{ID: id, Name: "shop", Parent: tree.idOf(root), Cluster: tree.idOf(cluster)}
	if len(d.Pools) != 1 || d.Pools[0] != want {
		t.Errorf("%+v", d.Pools)
	}
	f := &follower{Source: &Source{opts: Options{Name: "vc", Clock: clock.New(1)}}, tree: tree}
	u := updates{touched: map[inventory.ID]bool{}, reread: map[inventory.ID]types.ManagedObjectReference{}}
	set := &types.UpdateSet{FilterSet: []types.PropertyFilterUpdate{{ObjectSet: []types.ObjectUpdate{{
		Kind: types.ObjectUpdateKindModify, Obj: app, ChangeSet: []types.PropertyChange{{Name: "config.cpuAllocation.limit", Op: types.PropertyChangeOpAssign, Val: int64(5)}},
	}}}}}
	if err := f.merge(set, &u); err != nil || u.reread[id] != app {
		t.Errorf("read again: %v, %v", u.reread, err)
	}
}
