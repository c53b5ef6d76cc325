package sim

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"testing"
	"time"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/view"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/sim/load"
)

type ref = types.ManagedObjectReference

func start(t testing.TB, cfg Config) *VCenter {
	t.Helper()
	vc, err := StartVCenter(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(vc.Close)
	return vc
}

// client is a stock client that is logged in.
func client(t testing.TB, vc *VCenter) *govmomi.Client {
	t.Helper()
	c, err := govmomi.NewClient(context.Background(), vc.Login(), true)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// viewOf is a view of everything of some kinds.
func viewOf(t testing.TB, c *govmomi.Client, kinds ...string) *view.ContainerView {
	t.Helper()
	v, err := view.NewManager(c.Client).CreateContainerView(context.Background(), c.ServiceContent.RootFolder, kinds, true)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// get reads properties of one object.
func get[T any](t testing.TB, c *vim25.Client, obj ref, props ...string) T {
	t.Helper()
	var dst T
	if err := property.DefaultCollector(c).RetrieveOne(context.Background(), obj, props, &dst); err != nil {
		t.Fatalf("read %v of %s: %v", props, obj, err)
	}
	return dst
}

// eventually polls until ok or some real seconds have passed.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// busy is a load where VM i demands cpu[i] and half of its memory.
func busy(cpu ...float64) load.Load {
	return load.Func(func(vm int, _ time.Time) load.Use {
		if vm >= len(cpu) {
			return load.Use{}
		}
		return load.Use{CPU: cpu[vm], MemoryConsumed: 0.5, MemoryActive: 0.2, NetReceived: 2048, DiskLatency: 3 * time.Millisecond}
	})
}

func TestLogin(t *testing.T) {
	vc := start(t, Config{Name: "one", User: "reader", Password: "right"})
	for _, tt := range []struct {
		name, user, password string
		refused              bool
	}{
		{"right", "reader", "right", false},
		{"wrong password", "reader", "wrong", true},
		{"wrong user", "somebody", "right", true},
		{"no password", "reader", "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := vc.Logins()
			u := vc.URL()
			u.User = url.UserPassword(tt.user, tt.password)
			_, err := govmomi.NewClient(t.Context(), u, true)
			if refused := fault.Is(err, &types.InvalidLogin{}); refused != tt.refused || !refused && err != nil {
				t.Errorf("refused: %v (%v)", refused, err)
			}
			if got := vc.Logins() - before; got != 1 {
				t.Errorf("%d logins counted", got)
			}
		})
	}
}

func TestCertificateIsVerified(t *testing.T) {
	vc := start(t, Config{})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(vc.CAPEM())
	sc := soap.NewClient(vc.URL(), false)
	if _, err := vim25.NewClient(t.Context(), sc); err == nil {
		t.Error("an unknown certificate was trusted")
	}
	sc.DefaultTransport().TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	if _, err := vim25.NewClient(t.Context(), sc); err != nil {
		t.Error(err)
	}
}

func TestVCentersDiffer(t *testing.T) {
	a, b := start(t, Config{Name: "a"}), start(t, Config{Name: "b"})
	ca, cb := client(t, a), client(t, b)
	if ca.ServiceContent.About.InstanceUuid == cb.ServiceContent.About.InstanceUuid {
		t.Error("both have the instance UUID", ca.ServiceContent.About.InstanceUuid)
	}
	if got := ca.ServiceContent.About.InstanceUuid; got != a.InstanceUUID() {
		t.Errorf("instance UUID %s, want %s", got, a.InstanceUUID())
	}
}

// TestManyAtOnce is for the race detector: the stock simulator shares variables between all vCenters of a process.
func TestManyAtOnce(t *testing.T) {
	done := make(chan error, 4)
	for i := range cap(done) {
		go func() {
			vc, err := StartVCenter(Config{Name: fmt.Sprint("vc", i), MaxQueryMetrics: 10 + i, Clusters: Uniform(2, 10)})
			if err == nil {
				defer vc.Close()
				_, err = govmomi.NewClient(context.Background(), vc.Login(), true)
			}
			done <- err
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestTimeIsTheClocks(t *testing.T) {
	c := clock.New(1000)
	vc := start(t, Config{Clock: c})
	got, err := methods.GetCurrentTime(t.Context(), client(t, vc))
	if err != nil {
		t.Fatal(err)
	}
	if off := c.Now().Sub(*got); off < 0 || off > time.Hour {
		t.Errorf("current time is %s from the clock's", off)
	}
}

func TestRestart(t *testing.T) {
	vc := start(t, Config{Clusters: Uniform(2, 4)})
	c := client(t, vc)
	v := viewOf(t, c, "VirtualMachine")
	was := vc.URL().String()

	waiting := make(chan error, 1)
	go func() {
		pc := property.DefaultCollector(c.Client)
		filter := new(property.WaitFilter).Add(vc.VMs()[0], "VirtualMachine", []string{"name"})
		waiting <- property.WaitForUpdates(context.Background(), pc, filter, func([]types.ObjectUpdate) bool { return false })
	}()
	eventually(t, "a call waits", func() bool { return vc.Calls("WaitForUpdatesEx") >= 2 })

	vc.Stop()
	if err := <-waiting; err == nil {
		t.Error("a waiting call outlived the vCenter")
	}
	if _, err := methods.GetCurrentTime(t.Context(), c); err == nil {
		t.Error("a stopped vCenter answers")
	}
	gone := vc.VMs()[:2]
	if err := vc.DestroyVM(gone...); err != nil {
		t.Fatal(err)
	}
	if err := vc.Restart(); err != nil {
		t.Fatal(err)
	}
	if now := vc.URL().String(); now != was {
		t.Errorf("it came back at %s, not %s", now, was)
	}
	if _, err := methods.GetCurrentTime(t.Context(), c); !fault.Is(err, &types.NotAuthenticated{}) {
		t.Errorf("the old session: %v", err)
	}
	if n := len(vc.gate.sessions) + len(vc.changes.filters); n != 0 {
		t.Errorf("%d sessions and filters are left", n)
	}
	if err := session.NewManager(c.Client).Login(t.Context(), vc.Login().User); err != nil {
		t.Fatal(err)
	}
	var vms []mo.VirtualMachine
	if err := v.Retrieve(t.Context(), []string{"VirtualMachine"}, []string{"name"}, &vms); err == nil {
		t.Error("the old view still exists")
	}
	if err := viewOf(t, c, "VirtualMachine").Retrieve(t.Context(), []string{"VirtualMachine"}, []string{"name"}, &vms); err != nil || len(vms) != 2 {
		t.Errorf("%d VMs, want 2: %v", len(vms), err)
	}
	if err := vc.Restart(); err == nil {
		t.Error("a running vCenter was started again")
	}
}

func TestPropertiesWithoutASessionAreMissing(t *testing.T) {
	vc := start(t, Config{Clusters: Uniform(1, 1)})
	c, err := vim25.NewClient(t.Context(), soap.NewClient(vc.URL(), true))
	if err != nil {
		t.Fatal(err)
	}
	var content []types.ObjectContent
	err = property.DefaultCollector(c).Retrieve(t.Context(), vc.VMs(), []string{"name"}, &content)
	if err != nil || len(content) != 1 || len(content[0].PropSet) != 0 || len(content[0].MissingSet) != 1 {
		t.Errorf("%+v, %v", content, err)
	}
}

// TestFleetIsWhatWasAskedFor reads every fact of a fleet with a stock client.
func TestFleetIsWhatWasAskedFor(t *testing.T) {
	policy := percentPolicy(30)
	vc := start(t, Config{Clusters: []Cluster{{
		Name: "prod", DRS: DRS{Enabled: true, Behavior: types.DrsBehaviorPartiallyAutomated}, HA: HA{Enabled: true, AdmissionControl: true, Policy: policy},
		Rules: []Rule{{Name: "together", VMs: []string{"a", "b"}}, {Name: "apart", Apart: true, VMs: []string{"a", "c"}}},
		Hosts: []Host{
			{Name: "esx1", Cores: 16, MHz: 2000, MemoryBytes: 64 << 30, UUID: "4c4c4544-0001", VMs: []VM{
				{Name: "a", VCPUs: 4, MemoryBytes: 8 << 30, UUID: "5000-a", GuestHostname: "a.example.org", GuestIP: "10.0.0.1", DRSBehavior: types.DrsBehaviorFullyAutomated},
				{Name: "b", Off: true, DRSBehavior: DRSDisabled},
				{Name: "c", Template: true},
			}},
			{Name: "esx2", Maintenance: true},
			{Name: "esx3", Disconnected: true, VMs: []VM{{Name: "d"}}},
		},
	}}})
	c := client(t, vc).Client
	must := func(kind func(string) (ref, bool), name string) ref {
		t.Helper()
		r, ok := kind(name)
		if !ok {
			t.Fatalf("no %s", name)
		}
		return r
	}
	cluster := get[mo.ClusterComputeResource](t, c, must(vc.Cluster, "prod"), "name", "host", "summary", "configurationEx")
	config := cluster.ConfigurationEx.(*types.ClusterConfigInfoEx)
	sum := cluster.Summary.GetComputeResourceSummary()
	host := get[mo.HostSystem](t, c, must(vc.Host, "esx1"), "name", "parent", "summary", "hardware", "runtime", "vm")
	a := get[mo.VirtualMachine](t, c, must(vc.VM, "a"), "config", "guest", "runtime", "summary")
	d := get[mo.VirtualMachine](t, c, must(vc.VM, "d"), "runtime")
	rule := config.Rule[1].(*types.ClusterAntiAffinityRuleSpec)
	for _, tt := range []struct {
		what      string
		got, want any
	}{
		{"DRS", *config.DrsConfig.Enabled, true},
		{"DRS behaviour", config.DrsConfig.DefaultVmBehavior, types.DrsBehaviorPartiallyAutomated},
		{"overrides", len(config.DrsVmConfig), 2},
		{"override of a", config.DrsVmConfig[0].Behavior, types.DrsBehaviorFullyAutomated},
		{"b is out of DRS", *config.DrsVmConfig[1].Enabled, false},
		{"HA", *config.DasConfig.Enabled, true},
		{"admission control", *config.DasConfig.AdmissionControlEnabled, true},
		{"policy", reflect.DeepEqual(config.DasConfig.AdmissionControlPolicy, policy), true},
		{"rules", len(config.Rule), 2},
		{"rule", rule.Vm, []ref{must(vc.VM, "a"), must(vc.VM, "c")}},
		{"hosts", len(cluster.Host), 3},
		{"total MHz", sum.TotalCpu, int32(16*2000 + 2*32*2600)},
		{"effective hosts", sum.NumEffectiveHosts, int32(1)},
		{"host UUID", host.Hardware.SystemInfo.Uuid, "4c4c4544-0001"},
		{"host's summary UUID", host.Summary.Hardware.Uuid, "4c4c4544-0001"},
		{"cores", host.Summary.Hardware.NumCpuCores, int16(16)},
		{"MHz", host.Summary.Hardware.CpuMhz, int32(2000)},
		{"memory", host.Hardware.MemorySize, int64(64 << 30)},
		{"host's VMs", len(host.Vm), 3},
		{"maintenance", get[mo.HostSystem](t, c, must(vc.Host, "esx2"), "summary.runtime").Summary.Runtime.InMaintenanceMode, true},
		{"disconnected", get[mo.HostSystem](t, c, must(vc.Host, "esx3"), "runtime").Runtime.ConnectionState, types.HostSystemConnectionStateDisconnected},
		{"its VM", d.Runtime.ConnectionState, types.VirtualMachineConnectionStateDisconnected},
		{"VM UUID", a.Config.InstanceUuid, "5000-a"},
		{"vCPUs", a.Config.Hardware.NumCPU, int32(4)},
		{"VM memory", a.Summary.Config.MemorySizeMB, int32(8192)},
		{"guest", a.Guest.HostName + " " + a.Guest.IpAddress + " " + a.Config.GuestFullName, "a.example.org 10.0.0.1 Ubuntu Linux (64-bit)"},
		{"power", a.Runtime.PowerState, types.VirtualMachinePowerStatePoweredOn},
		{"off", get[mo.VirtualMachine](t, c, must(vc.VM, "b"), "runtime").Runtime.PowerState, types.VirtualMachinePowerStatePoweredOff},
		{"template", get[mo.VirtualMachine](t, c, must(vc.VM, "c"), "config.template").Config.Template, true},
	} {
		if !reflect.DeepEqual(tt.got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.what, tt.got, tt.want)
		}
	}
}

func TestNamesSurvive(t *testing.T) {
	want := append([]string{}, oddNames...)
	var vms []VM
	for _, name := range want {
		vms = append(vms, VM{Name: name})
	}
	vc := start(t, Config{Clusters: []Cluster{{Name: `c"1`, Hosts: []Host{{Name: "esx", VMs: vms}}}}})
	c := client(t, vc).Client
	for i, r := range vc.VMs() {
		if got := get[mo.VirtualMachine](t, c, r, "name").Name; got != want[i] {
			t.Errorf("name %q, want %q", got, want[i])
		}
	}
}

func TestUnknownVMInRule(t *testing.T) {
	_, err := StartVCenter(Config{Clusters: []Cluster{{Name: "c", Rules: []Rule{{Name: "r", VMs: []string{"nobody"}}}}}})
	if !errors.Is(err, errNoSuch) {
		t.Errorf("error %v", err)
	}
}

func TestUnsupportedIsRefused(t *testing.T) {
	vc := start(t, Config{Clusters: Uniform(1, 1)})
	c := client(t, vc)
	_, err := methods.CloneVM_Task(t.Context(), c, &types.CloneVM_Task{This: vc.VMs()[0], Name: "x"})
	if !fault.Is(err, &types.NotSupported{}) {
		t.Errorf("clone: %v", err)
	}
}

func BenchmarkStart(b *testing.B) {
	b.Run("vms=10000", func(b *testing.B) {
		for b.Loop() {
			vc, err := StartVCenter(Config{Clusters: Uniform(1000, 10000), Load: load.Generator{Seed: 1}, Clock: clock.New(30)})
			if err != nil {
				b.Fatal(err)
			}
			vc.Close()
		}
	})
}
