package sim

import (
	"testing"
	"time"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/performance"
	"github.com/vmware/govmomi/vapi/rest"
	"github.com/vmware/govmomi/vapi/tags"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/sim/load"
)

func twoStores() Config {
	return Config{
		Clock:      clock.New(600),
		Load:       load.Steady(load.Use{CPU: 0.5, DiskRead: 8 << 20, DiskLatency: 7 * time.Millisecond}),
		Datastores: []Datastore{{Name: "san"}, {Name: "local", Hosts: []string{"h1"}}},
		Clusters: []Cluster{{Name: "c", Hosts: []Host{
			{Name: "h1", VMs: []VM{{Name: "free"}, {Name: "bound", Datastore: "local"}}}, {Name: "h2"},
		}}},
	}
}

func TestStorageBindsVMs(t *testing.T) {
	vc := start(t, twoStores())
	c := client(t, vc)
	h1, _ := vc.Host("h1")
	h2, _ := vc.Host("h2")
	san, _ := vc.Datastore("san")
	move := func(name string, to types.ManagedObjectReference) error {
		vm, _ := vc.VM(name)
		task, err := object.NewVirtualMachine(c.Client, vm).Relocate(ctx, types.VirtualMachineRelocateSpec{Host: &to}, types.VirtualMachineMovePriorityDefaultPriority)
		if err != nil {
			return err
		}
		return task.Wait(ctx)
	}
	if err := move("bound", h2); !fault.Is(err, &types.CannotAccessVmDisk{}) {
		t.Errorf("bound to h2: %v", err)
	}
	if err := move("free", h2); err != nil {
		t.Errorf("free to h2: %v", err)
	}
	if err := vc.SetAccess(san, h1, false); err != nil {
		t.Fatal(err)
	}
	if err := move("free", h1); !fault.Is(err, &types.CannotAccessVmDisk{}) {
		t.Errorf("free to a host without a path: %v", err)
	}
	if ds := get[mo.Datastore](t, c.Client, san, "host", "summary"); len(ds.Host) != 2 || !ds.Summary.Accessible {
		t.Errorf("%+v", ds)
	}
	if err := vc.SetAccess(san, h2, false); err != nil {
		t.Fatal(err)
	}
	if ds := get[mo.Datastore](t, c.Client, san, "summary.accessible"); ds.Summary.Accessible {
		t.Error("accessible by nobody")
	}
}

func TestNetworksBindVMs(t *testing.T) {
	vc := start(t, Config{
		Networks: []Network{{Name: "prod"}, {Name: "lab", Distributed: true, Hosts: []string{"h1"}}},
		Clusters: []Cluster{{Name: "c", Hosts: []Host{
			{Name: "h1", VMs: []VM{{Name: "free"}, {Name: "bound", Networks: []string{"prod", "lab"}}}}, {Name: "h2"},
		}}},
	})
	c := client(t, vc)
	h2, _ := vc.Host("h2")
	move := func(name string) error {
		vm, _ := vc.VM(name)
		task, err := object.NewVirtualMachine(c.Client, vm).Relocate(ctx, types.VirtualMachineRelocateSpec{Host: &h2}, types.VirtualMachineMovePriorityDefaultPriority)
		if err != nil {
			return err
		}
		return task.Wait(ctx)
	}
	var no *types.CannotAccessNetwork
	lab, _ := vc.Network("lab")
	if _, is := fault.As(move("bound"), &no); !is || *no.Network != lab {
		t.Errorf("bound to h2: %+v", no)
	}
	if err := move("free"); err != nil {
		t.Errorf("free to h2: %v", err)
	}
	prod, _ := vc.Network("prod")
	if err := vc.SetNetworks(h2, prod, lab); err != nil {
		t.Fatal(err)
	}
	if err := move("bound"); err != nil {
		t.Errorf("bound to h2, which has its networks now: %v", err)
	}
}

// TestDatastoreHistory asks as a stock client does.
func TestDatastoreHistory(t *testing.T) {
	vc := start(t, twoStores())
	c := client(t, vc)
	m := performance.NewManager(c.Client)
	san, _ := vc.Datastore("san")
	names := []string{"datastore.totalReadLatency.average", "datastore.totalWriteLatency.average", "disk.used.latest"}
	ask := func(interval int32) []performance.EntityMetric {
		t.Helper()
		spec := types.PerfQuerySpec{IntervalId: interval, MaxSample: 2, MetricId: []types.PerfMetricId{{Instance: ""}}}
		sample, err := m.SampleByName(ctx, spec, names, []types.ManagedObjectReference{san})
		if err != nil {
			t.Fatal(err)
		}
		result, err := m.ToMetricSeries(ctx, sample)
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	var got performance.EntityMetric
	eventually(t, "five minutes rolled up", func() bool {
		answers := ask(300)
		if len(answers) != 1 || len(answers[0].SampleInfo) < 2 {
			return false
		}
		got = answers[0]
		return len(got.Value) == 2 && newest(got, "datastore.totalReadLatency.average") == 7
	})
	for i, info := range got.SampleInfo {
		if info.Interval != 300 || !info.Timestamp.Equal(info.Timestamp.Truncate(rollUp)) || i > 0 && info.Timestamp.Sub(got.SampleInfo[i-1].Timestamp) != rollUp {
			t.Errorf("sample %d at %v", i, info.Timestamp)
		}
	}
	if v := newest(got, "datastore.totalWriteLatency.average"); v != 0 {
		t.Errorf("nothing is written, and takes %d", v)
	}
	if answers := ask(20); len(answers) > 0 && len(answers[0].SampleInfo) > 0 {
		t.Errorf("realtime samples of a datastore: %+v", answers)
	}
}

// newest is the last value of a series, -1 if there is none.
func newest(m performance.EntityMetric, name string) int64 {
	for _, s := range m.Value {
		if s.Name == name && len(s.Value) > 0 {
			return s.Value[len(s.Value)-1]
		}
	}
	return -1
}

func TestWords(t *testing.T) {
	vc := start(t, twoStores())
	c := client(t, vc)
	vm, _ := vc.VM("free")
	w := watch(t, c, []string{"VirtualMachine"}, []string{"customValue"})
	w.drain()
	if err := vc.SetAttribute(vm, "Owner", "me"); err != nil {
		t.Fatal(err)
	}
	if u := w.next(); u.Obj != vm || len(u.ChangeSet) != 1 {
		t.Errorf("an attribute changed: %+v", u)
	}
	fields, err := object.GetCustomFieldsManager(c.Client)
	if err != nil {
		t.Fatal(err)
	}
	key, err := fields.FindKey(ctx, "Owner")
	if err != nil {
		t.Fatal(err)
	}
	o := get[mo.VirtualMachine](t, c.Client, vm, "customValue")
	if v, ok := o.CustomValue[0].(*types.CustomFieldStringValue); !ok || v.Key != key || v.Value != "me" {
		t.Errorf("%+v", o.CustomValue)
	}

	api := rest.NewClient(c.Client)
	if err := api.Login(ctx, vc.Login().User); err != nil {
		t.Fatal(err)
	}
	m := tags.NewManager(api)
	lift := vc.Inject(Fault{Method: "REST", Fault: &types.SystemError{}, Times: 1})
	defer lift()
	if _, err := m.ListCategories(ctx); err == nil {
		t.Error("a fault of REST is not met")
	}
	before := vc.Calls("REST")
	if _, err := m.ListCategories(ctx); err != nil || vc.Calls("REST") != before+1 {
		t.Errorf("%v, %d calls", err, vc.Calls("REST")-before)
	}
}
