package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/vmware/govmomi/event"
	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/clock"
)

// ctx is for tests that hand no context down.
var ctx = context.Background()

// TestLifeOfAVM is led by a stock client alone.
func TestLifeOfAVM(t *testing.T) {
	vc := start(t, Config{Clock: clock.New(60), Load: busy(0, 0.5), Clusters: Uniform(1, 1)})
	c := client(t, vc)
	f := find.NewFinder(c.Client)
	dc, err := f.DefaultDatacenter(ctx)
	if err != nil {
		t.Fatal(err)
	}
	folders, err := dc.Folders(ctx)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := f.SetDatacenter(dc).DefaultResourcePool(ctx)
	if err != nil {
		t.Fatal(err)
	}
	w := watch(t, c, []string{"VirtualMachine"}, []string{"name", "runtime.powerState"})
	w.drain()

	made, err := folders.VmFolder.CreateVM(ctx, types.VirtualMachineConfigSpec{Name: "by hand", NumCPUs: 2, MemoryMB: 2048}, pool, nil)
	if err != nil {
		t.Fatal(err)
	}
	info, err := made.WaitForResult(ctx)
	if err != nil {
		t.Fatal(err)
	}
	vm := object.NewVirtualMachine(c.Client, info.Result.(ref))
	if u := w.next(); u.Kind != types.ObjectUpdateKindEnter || u.Obj != vm.Reference() || values(u)["name"] != "by hand" {
		t.Errorf("created: %+v", u)
	}
	do := func(what string, start func() (*object.Task, error)) {
		t.Helper()
		task, err := start()
		if err == nil {
			err = task.Wait(ctx)
		}
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	do("power on", func() (*object.Task, error) { return vm.PowerOn(ctx) })
	if u := w.next(); values(u)["runtime.powerState"] != types.VirtualMachinePowerStatePoweredOn {
		t.Errorf("powered on: %+v", u)
	}
	on := vc.clock.Now()
	eventually(t, "it is measured", func() bool {
		return vc.usage.latest().After(on) && get[mo.VirtualMachine](t, c.Client, vm.Reference(), "summary").Summary.QuickStats.OverallCpuUsage == 2*2600/2
	})
	if task, err := vm.Destroy(ctx); err != nil {
		t.Error(err)
	} else if err := task.Wait(ctx); !fault.Is(err, &types.InvalidPowerState{}) {
		t.Errorf("destroyed while it runs: %v", err)
	}
	do("power off", func() (*object.Task, error) { return vm.PowerOff(ctx) })
	if got := get[mo.VirtualMachine](t, c.Client, vm.Reference(), "summary").Summary.QuickStats.OverallCpuUsage; got != 0 {
		t.Errorf("off, it uses %d MHz", got)
	}
	w.drain()
	do("destroy", func() (*object.Task, error) { return vm.Destroy(ctx) })
	if u := w.next(); u.Kind != types.ObjectUpdateKindLeave {
		t.Errorf("destroyed: %+v", u)
	}
	events, err := event.NewManager(c.Client).QueryEvents(ctx, types.EventFilterSpec{
		EventTypeId: []string{"VmCreatedEvent", "VmPoweredOnEvent", "VmPoweredOffEvent", "VmRemovedEvent"},
	})
	if err != nil || len(events) != 4 {
		t.Errorf("%d events: %v", len(events), err)
	}
}

func TestDestroyMany(t *testing.T) {
	vc := start(t, Config{Clusters: Uniform(20, 1000)})
	c := client(t, vc)
	w := watch(t, c, []string{"VirtualMachine"}, []string{"name"})
	if n := len(w.drain()); n != 1000 {
		t.Fatal(n)
	}
	if err := vc.DestroyVM(vc.VMs()[:500]...); err != nil {
		t.Fatal(err)
	}
	left := w.drain()
	if len(left) != 500 || slices.ContainsFunc(left, func(u types.ObjectUpdate) bool { return u.Kind != types.ObjectUpdateKindLeave }) {
		t.Errorf("%d updates", len(left))
	}
	if err := vc.DestroyVM(left[0].Obj); !errors.Is(err, errNoSuch) {
		t.Errorf("destroyed twice: %v", err)
	}
	for i, want := range map[int]int{0: 0, 19: 50} {
		if host := get[mo.HostSystem](t, c.Client, vc.Hosts()[i], "vm"); len(host.Vm) != want {
			t.Errorf("host %d lists %d VMs, want %d", i, len(host.Vm), want)
		}
	}
}

func TestMaintenance(t *testing.T) {
	vc := start(t, Config{Clock: clock.New(60), Clusters: Uniform(2, 2)})
	c := client(t, vc)
	w := watch(t, c, []string{"HostSystem"}, []string{"runtime.inMaintenanceMode"})
	w.drain()
	host := object.NewHostSystem(c.Client, vc.Hosts()[0])
	entering, err := host.EnterMaintenanceMode(ctx, 0, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if set, err := w.wait(1, 0); err != nil || set != nil {
		t.Fatalf("in maintenance while a VM runs: %+v, %v", set, err)
	}
	moving, err := movers["migrate"](c.Client, vc.VMs()[0], vc.Hosts()[1])
	if err == nil {
		err = moving.Wait(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := entering.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	if u := w.next(); values(u)["runtime.inMaintenanceMode"] != true {
		t.Errorf("entered: %+v", u)
	}
	cluster, _ := vc.Cluster("cluster-01")
	if sum := get[mo.ClusterComputeResource](t, c.Client, cluster, "summary").Summary.GetComputeResourceSummary(); sum.NumEffectiveHosts != 1 || sum.NumHosts != 2 {
		t.Errorf("%d of %d hosts are effective", sum.NumEffectiveHosts, sum.NumHosts)
	}
	leaving, err := host.ExitMaintenanceMode(ctx, 0)
	if err == nil {
		err = leaving.Wait(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	if u := w.next(); values(u)["runtime.inMaintenanceMode"] != false {
		t.Errorf("left: %+v", u)
	}
	timed, err := object.NewHostSystem(c.Client, vc.Hosts()[1]).EnterMaintenanceMode(ctx, 5, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := timed.Wait(ctx); !fault.Is(err, &types.Timedout{}) {
		t.Errorf("after its timeout: %v", err)
	}
}

func TestClusterSettingsNotify(t *testing.T) {
	vc := start(t, Config{Clusters: Uniform(1, 1)})
	w := watch(t, client(t, vc), []string{"ClusterComputeResource"}, []string{"configurationEx"})
	w.drain()
	cluster, _ := vc.Cluster("cluster-01")
	if err := vc.SetDRS(cluster, DRS{Enabled: true, Behavior: types.DrsBehaviorFullyAutomated}); err != nil {
		t.Fatal(err)
	}
	if err := vc.SetHA(cluster, HA{}); err != nil {
		t.Fatal(err)
	}
	config := values(w.next())["configurationEx"].(types.ClusterConfigInfoEx)
	if config.DrsConfig.DefaultVmBehavior != types.DrsBehaviorFullyAutomated || *config.DasConfig.Enabled || config.DasConfig.AdmissionControlPolicy != nil {
		t.Errorf("%+v %+v", config.DrsConfig, config.DasConfig)
	}
}

func TestNoSuchObject(t *testing.T) {
	vc := start(t, Config{Clusters: Uniform(1, 1)})
	none := ref{Type: "VirtualMachine", Value: "none"}
	_, created := vc.CreateVM(none, VM{})
	for what, err := range map[string]error{
		"create": created, "power on": vc.PowerOn(none), "power off": vc.PowerOff(none), "maintenance": vc.SetMaintenance(none, true),
		"connection": vc.SetConnection(none, types.HostSystemConnectionStateConnected), "drs": vc.SetDRS(none, DRS{}), "rename": vc.Rename(none, "x"),
	} {
		if !errors.Is(err, errNoSuch) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := vc.PowerOn(vc.VMs()[0]); err == nil {
		t.Error("a VM that is on was powered on")
	}
}

func TestInjectedFaults(t *testing.T) {
	vc := start(t, Config{Load: busy(0.5), Clusters: tenCores(1)})
	c := client(t, vc)
	now := func() error { _, err := methods.GetCurrentTime(ctx, c); return err }
	perf := func() error {
		_, err := methods.QueryPerf(ctx, c, &types.QueryPerf{This: *c.ServiceContent.PerfManager})
		return err
	}

	lift := vc.Inject(Fault{Method: "QueryPerf", Fault: &types.SystemError{}})
	for range 2 {
		if err := perf(); !fault.Is(err, &types.SystemError{}) {
			t.Errorf("QueryPerf: %v", err)
		}
	}
	if err := now(); err != nil {
		t.Errorf("another method: %v", err)
	}
	lift()
	if err := perf(); err != nil {
		t.Errorf("after it was lifted: %v", err)
	}

	vc.Inject(Fault{Method: "*", Times: 1, Fault: &types.NotAuthenticated{}})
	if err := perf(); !fault.Is(err, &types.NotAuthenticated{}) {
		t.Errorf("once: %v", err)
	}
	if err := perf(); err != nil {
		t.Errorf("twice: %v", err)
	}

	vc.Inject(Fault{Method: "CurrentTime", Times: 1, Delay: 200 * time.Millisecond})
	began := time.Now()
	if err := now(); err != nil || time.Since(began) < 200*time.Millisecond {
		t.Errorf("after %s: %v", time.Since(began), err)
	}

	lift = vc.Inject(Fault{Method: "CurrentTime", Hang: true})
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if _, err := methods.GetCurrentTime(short, c); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a hanging call: %v", err)
	}
	lift()
	if err := now(); err != nil {
		t.Errorf("after it hung: %v", err)
	}
}

// TestLostAnswer: the call was carried out, and nobody was told.
func TestLostAnswer(t *testing.T) {
	vc := start(t, Config{Clock: clock.New(60), Clusters: Uniform(2, 2)})
	c := client(t, vc).Client
	vm, to := vc.VMs()[0], vc.Hosts()[1]
	vc.Inject(Fault{Method: "MigrateVM_Task", Times: 1, LoseAnswer: true})
	if _, err := movers["migrate"](c, vm, to); err == nil || soap.IsSoapFault(err) {
		t.Errorf("a lost answer: %v", err)
	}
	if n := vc.MigrationCalls()[vm]; n != 1 {
		t.Errorf("%d calls", n)
	}
	eventually(t, "it arrives", func() bool { return *get[mo.VirtualMachine](t, c, vm, "runtime.host").Runtime.Host == to })
}

func TestHangingCallEndsWithTheVCenter(t *testing.T) {
	vc := start(t, Config{})
	c := client(t, vc)
	vc.Inject(Fault{Method: "CurrentTime", Hang: true})
	ends := make(chan error, 1)
	go func() {
		_, err := methods.GetCurrentTime(ctx, c)
		ends <- err
	}()
	eventually(t, "it hangs", func() bool { return vc.Calls("CurrentTime") > 0 })
	vc.Stop()
	if err := <-ends; err == nil {
		t.Error("it was answered")
	}
	if _, err := fmt.Sscan(vc.URL().Port(), new(int)); err != nil {
		t.Error(err)
	}
}
