package hyperv

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/platform/winrm"
	"github.com/protip/protip/internal/sim/hyperv"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/remediation/remediationtest"
)

const (
	secret = "Secret-of-the-acting-user-1"
	speed  = 120 // a migration of a minute takes 0.5 s, and hosts forget it 2.5 s later
)

func TestConformance(t *testing.T) {
	remediationtest.Run(t, func(t *testing.T) remediationtest.Fixture { return newLab(t).fixture(remediation.LiveMigration) })
}

func TestConformanceQuick(t *testing.T) {
	remediationtest.Run(t, func(t *testing.T) remediationtest.Fixture { return newLab(t).fixture(remediation.QuickMigration) })
}

func TestConformanceStandalone(t *testing.T) {
	remediationtest.Run(t, func(t *testing.T) remediationtest.Fixture {
		f := newLab(t, func(o *hyperv.Options) { o.Standalone = true }).fixture(remediation.LiveMigration)
		f.Maintenance = nil
		return f
	})
}

// lab is a simulated cluster of three nodes, or as many hosts of none; the first has VMs.
type lab struct {
	*hyperv.Cluster
	clock      *clock.Clock
	vm         string // that moves
	standalone bool
}

func newLab(t *testing.T, change ...func(*hyperv.Options)) *lab {
	t.Helper()
	o := hyperv.Options{
		Clock: clock.New(speed), Users: []hyperv.User{{Name: "mover", Password: secret}},
		MigrationTime: func(float64) time.Duration { return time.Minute },
		Nodes: []hyperv.Node{
			{MemoryBytes: 64 << 30, VMs: []hyperv.VM{{Name: "web", MemoryBytes: 4 << 30}, {Name: "db", MemoryBytes: 4 << 30}, {Name: "db", MemoryBytes: 4 << 30}}},
			{MemoryBytes: 64 << 30},
			{MemoryBytes: 64 << 30},
		},
	}
	for _, f := range change {
		f(&o)
	}
	c, err := hyperv.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &lab{Cluster: c, clock: o.Clock, vm: c.VMs()[0], standalone: o.Standalone}
}

func (l *lab) executor(t *testing.T, password string, edit ...func(*Options)) *Executor {
	t.Helper()
	o := Options{
		Source: "hvc", Log: slog.New(slog.DiscardHandler), Now: l.clock.Now,
		Poll: 20 * time.Millisecond, Patience: 10 * time.Second, Settle: 500 * time.Millisecond,
	}
	logins := &winrm.Logins{}
	for _, node := range l.Nodes() {
		o.Hosts = append(o.Hosts, winrm.Options{
			URL: l.URL(node), Username: "mover", Password: func() (string, error) { return password, nil }, Logins: logins, OperationTimeout: 5 * time.Second,
		})
	}
	for _, f := range edit {
		f(&o)
	}
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

func hostID(node string) inventory.ID {
	return inventory.ID{Source: "hvc", Kind: inventory.KindHost, Ref: node}
}

func (l *lab) action(kind remediation.Kind) remediation.Action {
	nodes := l.Nodes()
	return remediation.Action{
		ID: "act-1", Kind: kind, VM: inventory.ID{Source: "hvc", Kind: inventory.KindVM, Ref: strings.ToLower(l.vm)}, VMName: "web",
		From: hostID(nodes[0]), FromName: "the-source", To: hostID(nodes[1]), ToName: "the-target", StartingAt: l.clock.Now(),
	}
}

func (l *lab) method() string {
	if l.standalone {
		return "MigrateVirtualSystemToHost"
	}
	return "MoveToNewNodeParams"
}

func (l *lab) fixture(kind remediation.Kind) remediationtest.Fixture {
	a := l.action(kind)
	return remediationtest.Fixture{
		Action: a, Secret: secret,
		Executor:    func(t *testing.T, password string) remediation.Executor { return l.executor(t, password) },
		Calls:       func() int { return l.Requests("", l.method()) },
		Host:        func() inventory.ID { return l.where(a) },
		LoseAnswer:  func() { l.Inject(hyperv.Fault{Action: l.method(), Times: 1, LoseAnswer: true}) },
		Refuse:      func() { l.Inject(hyperv.Fault{Action: l.method(), Times: 1, HRESULT: 0x80070005}) },
		FailTask:    func() { must(l.FailNextMove(l.vm, hyperv.NoMemory)) },
		EndSessions: l.ForgetLogins,
		Maintenance: func(host inventory.ID) { must(l.Pause(host.Ref, false)) },
		PowerOff:    func() { must(l.TurnOff(l.vm)) },
		Migrate: func() string {
			must(l.Move(l.vm, a.To.Ref, kind == remediation.LiveMigration))
			return taskRef(a)
		},
		Wait: func(d time.Duration) error { return l.clock.Sleep(context.Background(), d) },
	}
}

// where is the VM's host: its source until it has arrived and runs.
func (l *lab) where(a remediation.Action) inventory.ID {
	is := l.Truth(l.vm)
	if is.Moving {
		return a.From
	}
	return hostID(is.Node)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
