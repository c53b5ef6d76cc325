package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/view"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/sim/load"
)

// watcher is a client that follows a view as a real one does: one collector, one filter, versions.
type watcher struct {
	t       testing.TB
	c       *govmomi.Client
	pc      ref
	version string
	calls   int
}

// watch follows a view of some kinds.
func watch(t testing.TB, c *govmomi.Client, kinds, paths []string) *watcher {
	t.Helper()
	v := viewOf(t, c, kinds...)
	spec := types.PropertyFilterSpec{ObjectSet: []types.ObjectSpec{{
		Obj: v.Reference(), Skip: types.NewBool(true),
		SelectSet: []types.BaseSelectionSpec{&types.TraversalSpec{Type: "ContainerView", Path: "view"}},
	}}}
	for _, kind := range kinds {
		spec.PropSet = append(spec.PropSet, types.PropertySpec{Type: kind, PathSet: paths})
	}
	return watchSpec(t, c, spec)
}

func watchSpec(t testing.TB, c *govmomi.Client, spec types.PropertyFilterSpec) *watcher {
	t.Helper()
	pc, err := property.DefaultCollector(c.Client).Create(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pc.CreateFilter(context.Background(), types.CreateFilter{Spec: spec}); err != nil {
		t.Fatal(err)
	}
	return &watcher{t: t, c: c, pc: pc.Reference()}
}

// wait makes one call and returns its set, nil if there was nothing within so many seconds.
func (w *watcher) wait(seconds int32, limit int32) (*types.UpdateSet, error) {
	w.calls++
	res, err := methods.WaitForUpdatesEx(context.Background(), w.c, &types.WaitForUpdatesEx{
		This: w.pc, Version: w.version, Options: &types.WaitOptions{MaxWaitSeconds: &seconds, MaxObjectUpdates: limit},
	})
	if err != nil {
		return nil, err
	}
	if res.Returnval != nil {
		w.version = res.Returnval.Version
	}
	return res.Returnval, nil
}

// drain is all updates up to one that is not truncated.
func (w *watcher) drain() []types.ObjectUpdate {
	w.t.Helper()
	var all []types.ObjectUpdate
	for {
		set, err := w.wait(0, 0)
		if err != nil {
			w.t.Fatal(err)
		}
		if set == nil {
			return all
		}
		for _, f := range set.FilterSet {
			all = append(all, f.ObjectSet...)
		}
		if set.Truncated == nil || !*set.Truncated {
			return all
		}
	}
}

// next is the update that comes next, within seconds.
func (w *watcher) next() types.ObjectUpdate {
	w.t.Helper()
	set, err := w.wait(10, 0)
	if err != nil || set == nil || len(set.FilterSet) != 1 || len(set.FilterSet[0].ObjectSet) != 1 {
		w.t.Fatalf("want one update, got %+v, %v", set, err)
	}
	return set.FilterSet[0].ObjectSet[0]
}

func values(u types.ObjectUpdate) map[string]any {
	out := map[string]any{}
	for _, c := range u.ChangeSet {
		out[c.Name] = c.Val
	}
	return out
}

func TestCollectorTellsWhatEntersChangesAndLeaves(t *testing.T) {
	vc := start(t, Config{Load: busy(0.5), Clusters: Uniform(2, 3)})
	w := watch(t, client(t, vc), []string{"VirtualMachine", "HostSystem"}, []string{"name", "runtime.powerState"})
	first := w.drain()
	if len(first) != 5 {
		t.Fatalf("%d objects at first, want 5", len(first))
	}
	for _, u := range first {
		if u.Kind != types.ObjectUpdateKindEnter || len(u.ChangeSet) != 2 {
			t.Errorf("%+v", u)
		}
	}
	if more := w.drain(); len(more) != 0 {
		t.Fatalf("nothing changed, and yet %+v", more)
	}

	vm, _ := vc.VM("vm-00002")
	if err := vc.PowerOff(vm); err != nil {
		t.Fatal(err)
	}
	if u := w.next(); u.Kind != types.ObjectUpdateKindModify || u.Obj != vm || len(u.ChangeSet) != 1 ||
		values(u)["runtime.powerState"] != types.VirtualMachinePowerStatePoweredOff {
		t.Errorf("power off: %+v", u)
	}
	if err := vc.Rename(vm, "renamed\n\"x\""); err != nil {
		t.Fatal(err)
	}
	if u := w.next(); values(u)["name"] != "renamed\n\"x\"" {
		t.Errorf("rename: %+v", u)
	}

	made, err := vc.CreateVM(vc.Hosts()[1], VM{Name: "new"})
	if err != nil {
		t.Fatal(err)
	}
	if u := w.next(); u.Kind != types.ObjectUpdateKindEnter || u.Obj != made || values(u)["name"] != "new" ||
		values(u)["runtime.powerState"] != types.VirtualMachinePowerStatePoweredOn {
		t.Errorf("create: %+v", u)
	}
	if err := vc.DestroyVM(made); err != nil {
		t.Fatal(err)
	}
	if u := w.next(); u.Kind != types.ObjectUpdateKindLeave || u.Obj != made {
		t.Errorf("destroy: %+v", u)
	}
	if more := w.drain(); len(more) != 0 {
		t.Errorf("more than that: %+v", more)
	}
}

// TestQuickStatsDoNotNotify lets many samples pass and reads them meanwhile.
func TestQuickStatsDoNotNotify(t *testing.T) {
	vc := start(t, Config{Clock: clock.New(600), Load: load.Generator{Seed: 1}, Clusters: Uniform(1, 2)})
	c := client(t, vc)
	w := watch(t, c, []string{"VirtualMachine", "HostSystem"}, []string{"summary.quickStats", "name"})
	for _, u := range w.drain() {
		if _, there := values(u)["summary.quickStats"]; !there {
			t.Errorf("no quick stats at first: %+v", u)
		}
	}
	seen := map[int32]bool{}
	for until := time.Now().Add(time.Second); time.Now().Before(until); {
		vm := get[mo.VirtualMachine](t, c.Client, vc.VMs()[0], "summary.quickStats")
		seen[vm.Summary.QuickStats.OverallCpuUsage] = true
		if set, err := w.wait(0, 0); err != nil || set != nil {
			t.Fatalf("told %+v, %v", set, err)
		}
	}
	if len(seen) < 3 {
		t.Errorf("read only %d different values in a second, which is 30 samples long", len(seen))
	}
}

func TestCollectorPages(t *testing.T) {
	vc := start(t, Config{Clusters: Uniform(1, 25)})
	w := watch(t, client(t, vc), []string{"VirtualMachine"}, []string{"name"})
	var sizes []int
	var truncated []bool
	for range 3 {
		set, err := w.wait(0, 10)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(set.FilterSet[0].ObjectSet))
		truncated = append(truncated, *set.Truncated)
	}
	if !slices.Equal(sizes, []int{10, 10, 5}) || !slices.Equal(truncated, []bool{true, true, false}) {
		t.Errorf("pages of %v, truncated %v", sizes, truncated)
	}
	w.version = ""
	if n := len(w.drain()); n != 25 {
		t.Errorf("%d objects from the start again", n)
	}
	w.version = "1000"
	if _, err := w.wait(0, 0); !fault.Is(err, &types.InvalidCollectorVersion{}) {
		t.Errorf("a version that never was: %v", err)
	}
}

func TestManyChangesOfOnePropertyAreOne(t *testing.T) {
	vc := start(t, Config{Clusters: Uniform(1, 2)})
	w := watch(t, client(t, vc), []string{"VirtualMachine"}, []string{"name"})
	w.drain()
	for i := range 10 {
		_ = vc.Rename(vc.VMs()[0], fmt.Sprint("name ", i))
	}
	if all := w.drain(); len(all) != 1 || values(all[0])["name"] != "name 9" {
		t.Errorf("%+v", all)
	}
}

func TestWaitEnds(t *testing.T) {
	vc := start(t, Config{Clusters: Uniform(1, 1)})
	c := client(t, vc)
	w := watch(t, c, []string{"VirtualMachine"}, []string{"name"})
	w.drain()

	began := time.Now()
	if set, err := w.wait(1, 0); err != nil || set != nil || time.Since(began) < 900*time.Millisecond {
		t.Errorf("after %s: %+v, %v", time.Since(began), set, err)
	}
	ends := make(chan error, 1)
	wait := func() {
		calls := vc.Calls("WaitForUpdatesEx")
		copied := *w
		go func() {
			_, err := copied.wait(60, 0)
			ends <- err
		}()
		eventually(t, "the call waits", func() bool { return vc.Calls("WaitForUpdatesEx") > calls })
	}
	wait()
	if _, err := methods.CancelWaitForUpdates(t.Context(), c, &types.CancelWaitForUpdates{This: w.pc}); err != nil {
		t.Fatal(err)
	}
	if err := <-ends; !fault.Is(err, &types.RequestCanceled{}) {
		t.Errorf("canceled: %v", err)
	}
	wait()
	if _, err := methods.DestroyPropertyCollector(t.Context(), c, &types.DestroyPropertyCollector{This: w.pc}); err != nil {
		t.Fatal(err)
	}
	if err := <-ends; !fault.Is(err, &types.RequestCanceled{}) {
		t.Errorf("destroyed: %v", err)
	}
	if _, err := w.wait(0, 0); !fault.Is(err, &types.ManagedObjectNotFound{}) {
		t.Errorf("after that: %v", err)
	}
	if n := len(vc.changes.filters); n != 0 {
		t.Errorf("%d filters are left", n)
	}
}

func TestSessionsDoNotShareCollectors(t *testing.T) {
	vc := start(t, Config{Clusters: Uniform(1, 1)})
	one, two := client(t, vc), client(t, vc)
	wa, wb := watch(t, one, []string{"VirtualMachine"}, []string{"name"}), watch(t, two, []string{"VirtualMachine"}, []string{"name"})
	wa.drain()
	wb.drain()
	if err := one.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := wa.wait(0, 0); !fault.Is(err, &types.NotAuthenticated{}) {
		t.Errorf("after logout: %v", err)
	}
	if n := vc.Sessions(); n != 1 {
		t.Errorf("%d sessions are open", n)
	}
	_ = vc.Rename(vc.VMs()[0], "x")
	if u := wb.next(); values(u)["name"] != "x" {
		t.Errorf("the other session: %+v", u)
	}
	// The collector that a session is born with is its own as well.
	stranger := &watcher{t: t, c: client(t, vc), pc: wb.pc}
	if _, err := stranger.wait(0, 0); !fault.Is(err, &types.ManagedObjectNotFound{}) {
		t.Errorf("another session's collector: %v", err)
	}
}

func TestFiltersOverListsAndTrees(t *testing.T) {
	vc := start(t, Config{Clusters: Uniform(2, 4)})
	c := client(t, vc)
	vms := vc.VMs()

	t.Run("list view", func(t *testing.T) {
		list, err := view.NewManager(c.Client).CreateListView(t.Context(), vms[:2])
		if err != nil {
			t.Fatal(err)
		}
		w := watchSpec(t, c, types.PropertyFilterSpec{
			ObjectSet: []types.ObjectSpec{{Obj: list.Reference(), Skip: types.NewBool(true), SelectSet: []types.BaseSelectionSpec{
				&types.TraversalSpec{Type: "ListView", Path: "view"},
			}}},
			PropSet: []types.PropertySpec{{Type: "VirtualMachine", PathSet: []string{"name"}}},
		})
		if n := len(w.drain()); n != 2 {
			t.Fatalf("%d at first", n)
		}
		if _, err := list.Add(t.Context(), vms[2:3]); err != nil {
			t.Fatal(err)
		}
		if u := w.next(); u.Kind != types.ObjectUpdateKindEnter || u.Obj != vms[2] {
			t.Errorf("added: %+v", u)
		}
		if _, err := list.Remove(t.Context(), vms[:1]); err != nil {
			t.Fatal(err)
		}
		if u := w.next(); u.Kind != types.ObjectUpdateKindLeave || u.Obj != vms[0] {
			t.Errorf("removed: %+v", u)
		}
	})
	t.Run("host to its VMs", func(t *testing.T) {
		host := vc.Hosts()[0]
		w := watchSpec(t, c, types.PropertyFilterSpec{
			ObjectSet: []types.ObjectSpec{{Obj: host, SelectSet: []types.BaseSelectionSpec{&types.TraversalSpec{Type: "HostSystem", Path: "vm"}}}},
			PropSet:   []types.PropertySpec{{Type: "VirtualMachine", PathSet: []string{"name"}}, {Type: "HostSystem", PathSet: []string{"name"}}},
		})
		if n := len(w.drain()); n != 3 {
			t.Fatalf("%d at first", n)
		}
		made, err := vc.CreateVM(host, VM{Name: "new"})
		if err != nil {
			t.Fatal(err)
		}
		if u := w.next(); u.Kind != types.ObjectUpdateKindEnter || u.Obj != made {
			t.Errorf("created: %+v", u)
		}
	})
	t.Run("object that is gone", func(t *testing.T) {
		_, err := property.DefaultCollector(c.Client).CreateFilter(t.Context(), types.CreateFilter{Spec: types.PropertyFilterSpec{
			ObjectSet: []types.ObjectSpec{{Obj: ref{Type: "VirtualMachine", Value: "vm-none"}}},
			PropSet:   []types.PropertySpec{{Type: "VirtualMachine", PathSet: []string{"name"}}},
		}})
		if !fault.Is(err, &types.ManagedObjectNotFound{}) {
			t.Errorf("%v", err)
		}
	})
	t.Run("finder", func(t *testing.T) {
		f := find.NewFinder(c.Client)
		found, err := f.VirtualMachineList(t.Context(), "/DC-vCenter/vm/vm-*")
		if err != nil || len(found) != 4 {
			t.Errorf("%v, %v", found, err)
		}
		hosts, err := f.HostSystemList(t.Context(), "*/*")
		if err != nil || len(hosts) != 2 {
			t.Errorf("%v, %v", hosts, err)
		}
	})
}

func TestPropertyWaitFollowsATask(t *testing.T) {
	vc := start(t, Config{Clock: clock.New(60), Clusters: Uniform(2, 2)})
	c := client(t, vc)
	task, err := object.NewVirtualMachine(c.Client, vc.VMs()[0]).Migrate(t.Context(), nil, object.NewHostSystem(c.Client, vc.Hosts()[1]), types.VirtualMachineMovePriorityDefaultPriority, "")
	if err != nil {
		t.Fatal(err)
	}
	var states []types.TaskInfoState
	err = property.Wait(t.Context(), property.DefaultCollector(c.Client), task.Reference(), []string{"info.state"}, func(changes []types.PropertyChange) bool {
		states = append(states, changes[0].Val.(types.TaskInfoState))
		return states[len(states)-1] == types.TaskInfoStateSuccess
	})
	if err != nil || len(states) < 2 {
		t.Errorf("%v, %v", states, err)
	}
}

func TestRetrieveIsPaged(t *testing.T) {
	vc := start(t, Config{Load: busy(0.5, 0.5, 0.5), Clusters: Uniform(1, 7)})
	c := client(t, vc)
	v := viewOf(t, c, "VirtualMachine")
	pages, seen := 0, map[ref]bool{}
	res, err := methods.RetrievePropertiesEx(t.Context(), c, &types.RetrievePropertiesEx{
		This: c.ServiceContent.PropertyCollector, Options: types.RetrieveOptions{MaxObjects: 3},
		SpecSet: []types.PropertyFilterSpec{{
			ObjectSet: []types.ObjectSpec{{Obj: v.Reference(), Skip: types.NewBool(true), SelectSet: []types.BaseSelectionSpec{&types.TraversalSpec{Type: "ContainerView", Path: "view"}}}},
			PropSet:   []types.PropertySpec{{Type: "VirtualMachine", PathSet: []string{"summary.quickStats.uptimeSeconds"}}},
		}},
	})
	for err == nil && res.Returnval != nil {
		pages++
		for _, o := range res.Returnval.Objects {
			seen[o.Obj] = true
			if up, _ := o.PropSet[0].Val.(int32); up == 0 {
				t.Errorf("%s: %+v", o.Obj.Value, o.PropSet)
			}
		}
		if res.Returnval.Token == "" {
			break
		}
		var more *types.ContinueRetrievePropertiesExResponse
		more, err = methods.ContinueRetrievePropertiesEx(t.Context(), c, &types.ContinueRetrievePropertiesEx{This: c.ServiceContent.PropertyCollector, Token: res.Returnval.Token})
		if err == nil {
			res.Returnval = &more.Returnval
		}
	}
	if err != nil || pages != 3 || len(seen) != 7 {
		t.Errorf("%d objects on %d pages: %v", len(seen), pages, err)
	}
}

// TestEverythingAtOnce is for the race detector: clients read, follow and change the fleet while it changes by itself.
func TestEverythingAtOnce(t *testing.T) {
	vc := start(t, Config{Clock: clock.New(300), Load: load.Generator{Seed: 1}, Clusters: Uniform(4, 40)})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	done := make(chan error, 8)
	run := func(f func(c *govmomi.Client, i int) error) {
		c := client(t, vc)
		go func() {
			var err error
			for i := 0; ctx.Err() == nil && err == nil; i++ {
				err = f(c, i)
			}
			done <- err
		}()
	}
	hosts, vms := vc.Hosts(), vc.VMs()
	w := watch(t, client(t, vc), []string{"VirtualMachine", "HostSystem"}, []string{"name", "runtime.host", "runtime.powerState", "vm"})
	run(func(*govmomi.Client, int) error { _, err := w.wait(1, 0); return err })
	run(func(c *govmomi.Client, _ int) error {
		var out []mo.VirtualMachine
		m, err := view.NewManager(c.Client).CreateContainerView(ctx, c.ServiceContent.RootFolder, []string{"VirtualMachine"}, true)
		if err == nil {
			err = m.Retrieve(ctx, []string{"VirtualMachine"}, []string{"summary", "runtime"}, &out)
		}
		if err == nil {
			err = m.Destroy(ctx)
		}
		return inTime(ctx, err)
	})
	run(func(c *govmomi.Client, i int) error {
		host := hosts[i%4]
		_, err := methods.MigrateVM_Task(ctx, c, &types.MigrateVM_Task{This: vms[i%len(vms)], Host: &host, Priority: "defaultPriority"})
		if fault.Is(err, &types.TaskInProgress{}) {
			err = nil
		}
		return inTime(ctx, err)
	})
	run(func(*govmomi.Client, int) error {
		made, err := vc.CreateVM(hosts[0], VM{Name: "short-lived"})
		return errors.Join(err, vc.SetMaintenance(hosts[3], true), vc.SetMaintenance(hosts[3], false), vc.DestroyVM(made))
	})
	run(func(c *govmomi.Client, _ int) error {
		_, err := methods.QueryEvents(ctx, c, &types.QueryEvents{This: *c.ServiceContent.EventManager, Filter: types.EventFilterSpec{
			Entity: &types.EventFilterSpecByEntity{Entity: hosts[0], Recursion: types.EventFilterSpecRecursionOptionAll},
		}})
		if err == nil {
			var tasks mo.TaskManager
			err = property.DefaultCollector(c.Client).RetrieveOne(ctx, *c.ServiceContent.TaskManager, []string{"recentTask"}, &tasks)
		}
		return inTime(ctx, err)
	})
	for range 5 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// inTime is err, unless the time was over.
func inTime(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// BenchmarkUpdates is what one change of 1 % of the VMs costs a client and the simulator together.
func BenchmarkUpdates(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		b.Run(fmt.Sprintf("vms=%d", n), func(b *testing.B) {
			vc := start(b, Config{Clusters: Uniform(n/10, n)})
			w := watch(b, client(b, vc), []string{"VirtualMachine"}, []string{"name", "runtime.host", "runtime.powerState"})
			w.drain()
			vms := vc.VMs()
			round := 0
			for b.Loop() {
				round++
				for i := range n / 100 {
					_ = vc.Rename(vms[i*100], fmt.Sprint("round ", round))
				}
				if got := len(w.drain()); got != n/100 {
					b.Fatalf("%d updates", got)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n/100), "µs/change")
		})
	}
}
