package sim

import (
	"slices"
	"testing"
	"time"

	"github.com/vmware/govmomi/event"
	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	govtask "github.com/vmware/govmomi/task"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/clock"
)

// movers are the two ways to move a VM.
var movers = map[string]func(*vim25.Client, ref, ref) (*object.Task, error){
	"migrate": func(c *vim25.Client, vm, host ref) (*object.Task, error) {
		return object.NewVirtualMachine(c, vm).Migrate(ctx, nil, object.NewHostSystem(c, host), types.VirtualMachineMovePriorityHighPriority, "")
	},
	"relocate": func(c *vim25.Client, vm, host ref) (*object.Task, error) {
		return object.NewVirtualMachine(c, vm).Relocate(ctx, types.VirtualMachineRelocateSpec{Host: &host}, types.VirtualMachineMovePriorityDefaultPriority)
	},
}

func TestMigration(t *testing.T) {
	for name, moveVM := range movers {
		t.Run(name, func(t *testing.T) {
			c := clock.New(60)
			vc := start(t, Config{Clock: c, User: "operator", Load: busy(0.5), Clusters: Uniform(2, 2), MigrationTime: func(float64) time.Duration { return 30 * time.Second }})
			cl := client(t, vc)
			vm, from, to := vc.VMs()[0], vc.Hosts()[0], vc.Hosts()[1]
			w := watch(t, cl, []string{"VirtualMachine", "HostSystem"}, []string{"runtime.host", "summary.runtime.host", "vm"})
			w.drain()
			began := c.Now()
			moving, err := moveVM(cl.Client, vm, to)
			if err != nil {
				t.Fatal(err)
			}

			var progress []int32
			var told mo.VirtualMachine
			err = property.Wait(t.Context(), property.DefaultCollector(cl.Client), moving.Reference(), []string{"info.progress", "info.state"}, func(changes []types.PropertyChange) bool {
				for _, change := range changes {
					if p, ok := change.Val.(int32); ok {
						progress = append(progress, p)
						if p < 90 {
							told = get[mo.VirtualMachine](t, cl.Client, vm, "runtime.host")
							if now := get[mo.Task](t, cl.Client, moving.Reference(), "info.state"); now.Info.State == types.TaskInfoStateRunning && *told.Runtime.Host != from {
								t.Errorf("at %d %% the VM is on %s", p, told.Runtime.Host.Value)
							}
						}
					}
					if change.Val == types.TaskInfoStateSuccess || change.Val == types.TaskInfoStateError {
						return true
					}
				}
				return false
			})
			if err != nil {
				t.Fatal(err)
			}
			if len(progress) < 2 || !slices.IsSorted(progress) {
				t.Errorf("progress %v", progress)
			}
			if took := c.Now().Sub(began); took < 30*time.Second {
				t.Errorf("it took only %s", took)
			}

			after := get[mo.VirtualMachine](t, cl.Client, vm, "runtime.host", "summary.runtime.host", "recentTask")
			if *after.Runtime.Host != to || *after.Summary.Runtime.Host != to {
				t.Errorf("the VM is on %s, its summary says %s", after.Runtime.Host, after.Summary.Runtime.Host)
			}
			if !slices.Contains(after.RecentTask, moving.Reference()) {
				t.Errorf("recent tasks of the VM: %v", after.RecentTask)
			}
			if tasks := get[mo.TaskManager](t, cl.Client, *cl.ServiceContent.TaskManager, "recentTask"); !slices.Contains(tasks.RecentTask, moving.Reference()) {
				t.Errorf("recent tasks: %v", tasks.RecentTask)
			}
			if vms := get[mo.HostSystem](t, cl.Client, from, "vm").Vm; slices.Contains(vms, vm) {
				t.Errorf("the source still lists %v", vms)
			}
			if vms := get[mo.HostSystem](t, cl.Client, to, "vm").Vm; !slices.Contains(vms, vm) {
				t.Errorf("the target lists %v", vms)
			}
			told2 := map[ref]map[string]any{}
			for _, u := range w.drain() {
				told2[u.Obj] = values(u)
			}
			if told2[vm]["runtime.host"] != to || told2[vm]["summary.runtime.host"] != to || told2[from]["vm"] == nil || told2[to]["vm"] == nil {
				t.Errorf("deltas %v", told2)
			}

			info := get[mo.Task](t, cl.Client, moving.Reference(), "info").Info
			if *info.Entity != vm || info.EntityName != "vm-00001" || info.State != types.TaskInfoStateSuccess || info.DescriptionId != "VirtualMachine."+name ||
				info.Reason.(*types.TaskReasonUser).UserName != "operator" {
				t.Errorf("task %+v", info)
			}
			if info.QueueTime.Before(began.Add(-time.Second)) || info.StartTime.Before(info.QueueTime) || info.CompleteTime.Sub(*info.StartTime) < 30*time.Second {
				t.Errorf("queued %s, started %s, completed %s", info.QueueTime, info.StartTime, info.CompleteTime)
			}
			checkMigrated(t, cl.Client, vm, from, to, began)
			if calls := vc.MigrationCalls()[vm]; calls != 1 {
				t.Errorf("%d calls counted", calls)
			}
		})
	}
}

// checkMigrated wants one VmMigratedEvent, of simulated time, with the right source and destination.
func checkMigrated(t *testing.T, c *vim25.Client, vm, from, to ref, since time.Time) {
	t.Helper()
	events, err := event.NewManager(c).QueryEvents(t.Context(), types.EventFilterSpec{
		Entity: &types.EventFilterSpecByEntity{Entity: vm, Recursion: types.EventFilterSpecRecursionOptionSelf},
		Time:   &types.EventFilterSpecByTime{BeginTime: &since}, EventTypeId: []string{"VmMigratedEvent"},
	})
	if err != nil || len(events) != 1 {
		t.Fatalf("events %v, %v", events, err)
	}
	e := events[0].(*types.VmMigratedEvent)
	if e.SourceHost.Host != from || e.Host.Host != to || e.Vm.Vm != vm || e.Host.Name == "" {
		t.Errorf("event %+v from %v to %v", e, e.SourceHost, e.Host)
	}
}

func TestMigrationIsRefused(t *testing.T) {
	clusters := func() []Cluster {
		return []Cluster{
			{Name: "here", Hosts: []Host{
				{Name: "source", VMs: []VM{{Name: "vm", MemoryBytes: 8 << 30}, {Name: "off", Off: true, MemoryBytes: 8 << 30}}},
				{Name: "maintenance", Maintenance: true},
				{Name: "disconnected", Disconnected: true},
				{Name: "small", MemoryBytes: 10 << 30, VMs: []VM{{Name: "other", MemoryBytes: 4 << 30}}},
				{Name: "older", CPUModel: "Intel(R) Xeon(R) E5-2690"},
				{Name: "good"},
			}},
			{Name: "there", Hosts: []Host{{Name: "elsewhere"}}},
		}
	}
	vc := start(t, Config{Clock: clock.New(1000), Clusters: clusters()})
	c := client(t, vc)
	for _, tt := range []struct {
		host, vm string
		want     types.BaseMethodFault
	}{
		{"maintenance", "vm", &types.InvalidHostState{}},
		{"disconnected", "vm", &types.InvalidHostConnectionState{}},
		{"small", "vm", &types.InsufficientHostMemoryCapacityFault{}},
		{"older", "vm", &types.CpuIncompatible{}},
		{"elsewhere", "vm", &types.InvalidArgument{}},
		{"maintenance", "off", &types.InvalidHostState{}},
		{"small", "off", nil},
		{"good", "vm", nil},
	} {
		t.Run(tt.vm+" to "+tt.host, func(t *testing.T) {
			host, _ := vc.Host(tt.host)
			vm, _ := vc.VM(tt.vm)
			checked, err := methods.CheckMigrate_Task(t.Context(), c, &types.CheckMigrate_Task{This: *c.ServiceContent.VmProvisioningChecker, Vm: vm, Host: &host})
			if err != nil {
				t.Fatal(err)
			}
			info, err := object.NewTask(c.Client, checked.Returnval).WaitForResult(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if problems := info.Result.(types.ArrayOfCheckResult).CheckResult[0].Error; (len(problems) > 0) != (tt.want != nil) {
				t.Errorf("check says %+v", problems)
			}
			before := get[mo.VirtualMachine](t, c.Client, vm, "runtime.host").Runtime.Host
			for name, moveVM := range movers {
				moving, err := moveVM(c.Client, vm, host)
				if err != nil {
					t.Fatal(err)
				}
				err = moving.Wait(t.Context())
				switch {
				case tt.want == nil && err != nil:
					t.Errorf("%s: %v", name, err)
				case tt.want != nil && !fault.Is(err, tt.want):
					t.Errorf("%s: %v, want %T", name, err, tt.want)
				}
			}
			want := *before
			if tt.want == nil {
				want = host
			}
			if now := get[mo.VirtualMachine](t, c.Client, vm, "runtime.host").Runtime.Host; *now != want {
				t.Errorf("the VM is on %s, want %s", now.Value, want.Value)
			}
		})
	}
	vm, _ := vc.VM("vm")
	none := ref{Type: "HostSystem", Value: "host-none"}
	if _, err := movers["migrate"](c.Client, vm, none); !fault.Is(err, &types.ManagedObjectNotFound{}) {
		t.Errorf("a host that does not exist: %v", err)
	}
	if _, err := methods.MigrateVM_Task(t.Context(), c, &types.MigrateVM_Task{This: vm, Priority: "defaultPriority"}); !fault.Is(err, &types.InvalidArgument{}) {
		t.Errorf("no host: %v", err)
	}
	ds := ref{Type: "Datastore", Value: "datastore-other"}
	_, err := methods.RelocateVM_Task(t.Context(), c, &types.RelocateVM_Task{This: vm, Spec: types.VirtualMachineRelocateSpec{Datastore: &ds}})
	if !fault.Is(err, &types.NotSupported{}) {
		t.Errorf("another datastore: %v", err)
	}
}

func TestMigrationToAnotherClusterNeedsItsPool(t *testing.T) {
	vc := start(t, Config{Clock: clock.New(1000), Clusters: []Cluster{
		{Name: "here", Hosts: []Host{{Name: "source", VMs: []VM{{Name: "vm"}}}}}, {Name: "there", Hosts: []Host{{Name: "target"}}},
	}})
	c := client(t, vc)
	vm, target := vc.VMs()[0], vc.Hosts()[1]
	there, _ := vc.Cluster("there")
	pool := get[mo.ClusterComputeResource](t, c.Client, there, "resourcePool").ResourcePool
	moving, err := object.NewVirtualMachine(c.Client, vm).Relocate(t.Context(), types.VirtualMachineRelocateSpec{Host: &target, Pool: pool}, "defaultPriority")
	if err != nil {
		t.Fatal(err)
	}
	if err := moving.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	now := get[mo.VirtualMachine](t, c.Client, vm, "runtime.host", "resourcePool")
	if *now.Runtime.Host != target || *now.ResourcePool != *pool {
		t.Errorf("on %s in %s", now.Runtime.Host, now.ResourcePool)
	}
	if vms := get[mo.ResourcePool](t, c.Client, *pool, "vm").Vm; !slices.Equal(vms, []ref{vm}) {
		t.Errorf("the pool lists %v", vms)
	}
}

// TestOneMigrationAtATime also shows that memory on its way to a host counts there.
func TestOneMigrationAtATime(t *testing.T) {
	vc := start(t, Config{Clock: clock.New(60), Clusters: []Cluster{{Name: "c", Hosts: []Host{
		{Name: "source", VMs: []VM{{Name: "a", MemoryBytes: 8 << 30}, {Name: "b", MemoryBytes: 8 << 30}}}, {Name: "target", MemoryBytes: 12 << 30},
	}}}})
	c := client(t, vc).Client
	vc.SetMishaps(func(ref) Mishap { return Mishap{NeverEnds: true} })
	a, b, target := vc.VMs()[0], vc.VMs()[1], vc.Hosts()[1]
	first, err := movers["migrate"](c, a, target)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := movers["relocate"](c, a, target); !fault.Is(err, &types.TaskInProgress{}) {
		t.Errorf("a second migration of one VM: %v", err)
	}
	if _, err := object.NewVirtualMachine(c, a).PowerOff(t.Context()); !fault.Is(err, &types.TaskInProgress{}) {
		t.Errorf("power off meanwhile: %v", err)
	}
	if moving, err := movers["migrate"](c, b, target); err != nil {
		t.Error(err)
	} else if err := moving.Wait(t.Context()); !fault.Is(err, &types.InsufficientHostMemoryCapacityFault{}) {
		t.Errorf("a migration to where another one's VM will fill the host: %v", err)
	}
	if n := vc.MigrationCalls()[a]; n != 2 {
		t.Errorf("%d calls counted", n)
	}

	eventually(t, "it stands at 50 %", func() bool { return get[mo.Task](t, c, first.Reference(), "info").Info.Progress == 50 })
	if err := first.Cancel(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := first.Wait(t.Context()); !fault.Is(err, &types.RequestCanceled{}) {
		t.Errorf("after cancel: %v", err)
	}
	if info := get[mo.Task](t, c, first.Reference(), "info").Info; !info.Cancelled || info.CompleteTime == nil {
		t.Errorf("%+v", info)
	}
	if now := get[mo.VirtualMachine](t, c, a, "runtime.host").Runtime.Host; *now != vc.Hosts()[0] {
		t.Errorf("the VM is on %s", now.Value)
	}
	if err := first.Cancel(t.Context()); !fault.Is(err, &types.InvalidState{}) {
		t.Errorf("cancel twice: %v", err)
	}
	vc.SetMishaps(nil)
	again, err := movers["migrate"](c, a, target)
	if err == nil {
		err = again.Wait(t.Context())
	}
	if err != nil {
		t.Errorf("after that: %v", err)
	}
}

func TestMigrationFailsOnTheWay(t *testing.T) {
	vc := start(t, Config{Clock: clock.New(60), Clusters: Uniform(2, 2)})
	c := client(t, vc)
	vc.SetMishaps(func(ref) Mishap { return Mishap{FailAt: 40, Fault: &types.HostCommunication{}} })
	vm, from := vc.VMs()[0], vc.Hosts()[0]
	moving, err := movers["migrate"](c.Client, vm, vc.Hosts()[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := moving.Wait(t.Context()); !fault.Is(err, &types.HostCommunication{}) {
		t.Errorf("%v", err)
	}
	if now := get[mo.VirtualMachine](t, c.Client, vm, "runtime.host").Runtime.Host; *now != from {
		t.Errorf("the VM is on %s", now.Value)
	}
	info := get[mo.Task](t, c.Client, moving.Reference(), "info").Info
	if info.State != types.TaskInfoStateError || info.Progress != 30 {
		t.Errorf("%+v", info)
	}
	events, err := event.NewManager(c.Client).QueryEvents(t.Context(), types.EventFilterSpec{EventTypeId: []string{"VmMigratedEvent", "VmFailedMigrateEvent"}})
	if err != nil || len(events) != 1 {
		t.Fatalf("events %v, %v", events, err)
	}
	if _, ok := events[0].(*types.VmFailedMigrateEvent); !ok {
		t.Errorf("event %T", events[0])
	}
}

// TestTargetGoesBadOnTheWay: what held at the start must hold at the end.
func TestTargetGoesBadOnTheWay(t *testing.T) {
	vc := start(t, Config{Clock: clock.New(60), Clusters: Uniform(2, 2)})
	c := client(t, vc).Client
	moving, err := movers["migrate"](c, vc.VMs()[0], vc.Hosts()[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := vc.SetMaintenance(vc.Hosts()[1], true); err != nil {
		t.Fatal(err)
	}
	if err := moving.Wait(t.Context()); !fault.Is(err, &types.InvalidHostState{}) {
		t.Errorf("%v", err)
	}
}

func TestMigrationOutlivesTheVCentersRestart(t *testing.T) {
	vc := start(t, Config{Clock: clock.New(60), Clusters: Uniform(2, 2)})
	vm, to := vc.VMs()[0], vc.Hosts()[1]
	if _, err := movers["migrate"](client(t, vc).Client, vm, to); err != nil {
		t.Fatal(err)
	}
	vc.Stop()
	if err := vc.Restart(); err != nil {
		t.Fatal(err)
	}
	c := client(t, vc).Client
	eventually(t, "it arrives", func() bool { return *get[mo.VirtualMachine](t, c, vm, "runtime.host").Runtime.Host == to })
}

func TestTaskHistory(t *testing.T) {
	vc := start(t, Config{Clock: clock.New(60), Clusters: Uniform(2, 2)})
	c := client(t, vc)
	began := vc.clock.Now().Add(-time.Second)
	moving, err := movers["migrate"](c.Client, vc.VMs()[0], vc.Hosts()[1])
	if err != nil {
		t.Fatal(err)
	}
	history, err := govtask.NewManager(c.Client).CreateCollectorForTasks(t.Context(), types.TaskFilterSpec{
		Entity: &types.TaskFilterSpecByEntity{Entity: vc.VMs()[0], Recursion: types.TaskFilterSpecRecursionOptionSelf},
		Time:   &types.TaskFilterSpecByTime{TimeType: types.TaskFilterSpecTimeOptionQueuedTime, BeginTime: &began},
	})
	if err != nil {
		t.Fatal(err)
	}
	tasks, err := history.ReadNextTasks(t.Context(), 10)
	if err != nil || len(tasks) != 1 || tasks[0].Task != moving.Reference() {
		t.Errorf("%+v, %v", tasks, err)
	}
	if err := history.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
}
