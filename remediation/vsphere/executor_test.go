package vsphere

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	promconfig "github.com/prometheus/common/config"
	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/vsphere"
	"github.com/protip/protip/internal/sim"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/remediation/remediationtest"
)

const (
	secret = "secret-of-the-acting-user"
	speed  = 600 // a migration of five minutes takes half a second
)

func TestConformance(t *testing.T) {
	remediationtest.Run(t, func(t *testing.T) remediationtest.Fixture { return newVCenter(t).fixture() })
}

// TestConformanceByRelocate is the same where MigrateVM_Task is not offered.
func TestConformanceByRelocate(t *testing.T) {
	remediationtest.Run(t, func(t *testing.T) remediationtest.Fixture {
		vc := newVCenter(t)
		vc.method = "RelocateVM_Task"
		vc.Inject(sim.Fault{Method: "MigrateVM_Task", Fault: &types.MethodNotFound{Receiver: vc.vm, Method: "MigrateVM_Task"}})
		vc.Inject(sim.Fault{Method: "CheckMigrate_Task", Fault: &types.MethodNotFound{Method: "CheckMigrate_Task"}})
		return vc.fixture()
	})
}

// vcenter is a simulated vCenter with a VM of two hosts, and somebody else who is logged in to it.
type vcenter struct {
	*sim.VCenter
	t      *testing.T
	clock  *clock.Clock
	other  *govmomi.Client
	vm     types.ManagedObjectReference
	method string // what a migration is called by
}

func newVCenter(t *testing.T) *vcenter { return newVCenterOf(t, sim.Uniform(2, 1)) }

func newVCenterOf(t *testing.T, clusters []sim.Cluster) *vcenter {
	t.Helper()
	c := clock.New(speed)
	vc, err := sim.StartVCenter(sim.Config{
		Password: secret, Clock: c, Clusters: clusters,
		MigrationTime: func(float64) time.Duration { return 5 * time.Minute },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(vc.Close)
	v := &vcenter{VCenter: vc, t: t, clock: c, vm: vc.VMs()[0], method: "MigrateVM_Task"}
	v.loginAgain()
	return v
}

// loginAgain gives somebody else a session.
func (vc *vcenter) loginAgain() {
	vc.t.Helper()
	var err error
	if vc.other, err = govmomi.NewClient(vc.t.Context(), vc.Login(), true); err != nil {
		vc.t.Fatal(err)
	}
}

func (vc *vcenter) options(password string) Options {
	return Options{
		Source: "muc",
		Session: platform.Options{
			URL: vc.URL().String(), Username: vc.Login().User.Username(),
			Password: func() (string, error) { return password, nil },
			TLS:      promconfig.TLSConfig{CA: string(vc.CAPEM())},
			Timeout:  10 * time.Second,
		},
		Log: slog.New(slog.DiscardHandler), Now: vc.clock.Now,
		Poll: 20 * time.Millisecond, Timeout: 10 * time.Second, Patience: 10 * time.Second,
	}
}

func (vc *vcenter) executor(t *testing.T, edit func(*Options)) *Executor {
	t.Helper()
	o := vc.options(secret)
	if edit != nil {
		edit(&o)
	}
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

func (vc *vcenter) action() remediation.Action {
	from := vc.host()
	hosts := vc.Hosts()
	to := hosts[slices.IndexFunc(hosts, func(h types.ManagedObjectReference) bool { return h.Value != from.Ref })]
	return remediation.Action{
		ID: "act-1", Kind: remediation.LiveMigration,
		VM: inventory.ID{Source: "muc", Kind: inventory.KindVM, Ref: vc.vm.Value}, VMName: "the-vm",
		From: from, FromName: "the-source",
		To: inventory.ID{Source: "muc", Kind: inventory.KindHost, Ref: to.Value}, ToName: "the-target",
		StartingAt: vc.clock.Now(),
	}
}

func (vc *vcenter) fixture() remediationtest.Fixture {
	a := vc.action()
	return remediationtest.Fixture{
		Action: a,
		Secret: secret,
		Executor: func(t *testing.T, password string) remediation.Executor {
			return vc.executor(t, func(o *Options) { *o = vc.options(password) })
		},
		Calls:      func() int { return vc.Calls(vc.method) },
		Host:       vc.host,
		LoseAnswer: func() { vc.Inject(sim.Fault{Method: vc.method, Times: 1, LoseAnswer: true}) },
		Refuse:     func() { vc.Inject(sim.Fault{Method: vc.method, Times: 1, Fault: &types.InvalidState{}}) },
		FailTask: func() {
			vc.SetMishaps(func(types.ManagedObjectReference) sim.Mishap { return sim.Mishap{FailAt: 50} })
		},
		EndSessions: vc.endSessions,
		Maintenance: func(host inventory.ID) {
			vc.done(object.NewHostSystem(vc.other.Client, hostRef(host)).EnterMaintenanceMode(vc.t.Context(), 0, false, nil))
		},
		PowerOff: func() { vc.done(vc.object().PowerOff(vc.t.Context())) },
		Migrate:  func() string { return vc.migrate(a.To) },
		Wait:     func(d time.Duration) error { return vc.clock.Sleep(vc.t.Context(), d) },
	}
}

func (vc *vcenter) object() *object.VirtualMachine {
	return object.NewVirtualMachine(vc.other.Client, vc.vm)
}

func (vc *vcenter) done(task *object.Task, err error) {
	vc.t.Helper()
	ctx, cancel := context.WithTimeout(vc.t.Context(), 10*time.Second)
	defer cancel()
	if err == nil {
		err = task.Wait(ctx)
	}
	if err != nil {
		vc.t.Fatal(err)
	}
}

func (vc *vcenter) host() inventory.ID {
	vc.t.Helper()
	var vm mo.VirtualMachine
	if err := property.DefaultCollector(vc.other.Client).RetrieveOne(context.Background(), vc.vm, []string{"runtime.host"}, &vm); err != nil {
		vc.t.Fatal(err)
	}
	return inventory.ID{Source: "muc", Kind: inventory.KindHost, Ref: vm.Runtime.Host.Value}
}

// migrate starts a migration as somebody else.
func (vc *vcenter) migrate(to inventory.ID) string {
	vc.t.Helper()
	host := hostRef(to)
	task, err := vc.object().Relocate(vc.t.Context(), types.VirtualMachineRelocateSpec{Host: &host}, types.VirtualMachineMovePriorityDefaultPriority)
	if err != nil {
		vc.t.Fatal(err)
	}
	return task.Reference().Value
}

// endSessions ends all sessions but that of somebody else.
func (vc *vcenter) endSessions() {
	vc.t.Helper()
	ctx := context.Background()
	var m mo.SessionManager
	ref := *vc.other.ServiceContent.SessionManager
	if err := property.DefaultCollector(vc.other.Client).RetrieveOne(ctx, ref, []string{"sessionList", "currentSession"}, &m); err != nil {
		vc.t.Fatal(err)
	}
	var keys []string
	for _, s := range m.SessionList {
		if s.Key != m.CurrentSession.Key {
			keys = append(keys, s.Key)
		}
	}
	if len(keys) == 0 {
		return
	}
	if _, err := methods.TerminateSession(ctx, vc.other.Client, &types.TerminateSession{This: ref, SessionId: keys}); err != nil {
		vc.t.Fatal(err)
	}
}

func ignore(remediation.Progress) error { return nil }
