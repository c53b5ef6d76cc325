package hyperv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/protip/protip/internal/platform/winrm"
	"github.com/protip/protip/remediation"
)

// migration is one Do.
type migration struct {
	*Executor
	action remediation.Action
	vm     string
	report func(remediation.Progress) error

	ref    string  // reported; empty before
	best   float64 // progress reported
	queued bool    // reported
	role   string
	before []job // that were over before the call
	seen   bool  // it was seen to move
}

// send makes the one call, and reports when it was taken.
func (m *migration) send(ctx context.Context) error {
	call, err := m.prepare(ctx)
	switch {
	case errors.Is(err, remediation.ErrNoOp):
		return err
	case err != nil:
		return fmt.Errorf("nothing was sent: %v", err) // without what it wraps: a broken connection would read as a lost answer
	case ctx.Err() != nil:
		return fmt.Errorf("nothing was sent: %v", ctx.Err())
	}
	if err := taken(call(ctx)); err != nil {
		return err
	}
	m.log.Info("migration sent", "action", m.action.ID, "kind", m.action.Kind, "vm", m.action.VMName, "from", m.action.FromName, "to", m.action.ToName)
	m.ref = taskRef(m.action)
	if err := m.report(remediation.Progress{TaskRef: m.ref}); err != nil {
		return fmt.Errorf("goes on unrecorded: %w: %w", remediation.ErrUndecided, err)
	}
	return nil
}

// taken says of a call's error what it leaves open: nothing, if the host said no or has seen nothing of it.
func taken(err error) error {
	var said *winrm.Fault
	var no refusal
	code, _ := winrm.HRESULT(err)
	switch {
	case err == nil || code == codePending:
		return nil
	case errors.Is(err, winrm.ErrNotSent) || errors.Is(err, winrm.ErrCredentials):
		return fmt.Errorf("nothing was sent: %v", err)
	case errors.As(err, &no) && no.value != returnTimeout:
		return err
	case errors.As(err, &said) && !errors.Is(err, winrm.ErrTimedOut) && !slices.Contains(unanswered, code):
		return failure(code, plain(err.Error()))
	}
	return fmt.Errorf("%w: %v", remediation.ErrUndecided, err)
}

// prepare reads that the VM runs where the action says and that nothing moves it, and how it is to be asked for.
func (m *migration) prepare(ctx context.Context) (call func(context.Context) error, err error) {
	a := m.action
	v, err := m.look(ctx, a, m.vm)
	switch {
	case err != nil:
		return nil, err
	case v.moving:
		return nil, fmt.Errorf("another migration of it is under way: %s", taskRef(a))
	case v.on == a.To && v.runs:
		return nil, remediation.ErrNoOp
	case v.on != a.From || !v.runs:
		return nil, fmt.Errorf("it does not run on %s", a.FromName)
	}
	m.role, m.before = v.role, v.ended
	if v.role != "" {
		return m.byCluster(ctx)
	}
	return m.byHost(ctx)
}

// byCluster asks the node that answered last. It goes to one node only, once.
func (m *migration) byCluster(ctx context.Context) (func(context.Context) error, error) {
	target, err := m.node(ctx, m.action.To)
	if err == nil {
		err = target.refuse()
	}
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", m.action.ToName, err)
	}
	client, flags := m.hosts[m.turn.get()].client, uint32(moveReturnOnError|moveQueue)
	return func(ctx context.Context) error {
		_, err := winrm.Invoke(ctx, client, roleRef(m.role), "MoveToNewNodeParams", winrm.Params{
			{Name: "NodeName", Value: target.name}, {Name: "Parameters", Value: parameters(m.action.Kind)}, {Name: "Flags", Value: flags},
		})
		return err
	}, nil
}

const migrationService = "Msvm_VirtualSystemMigrationService"

// serviceRef names a host's migration service by all of its keys.
func serviceRef(ctx context.Context, c *winrm.Client) (winrm.Ref, error) {
	keys := []string{"SystemCreationClassName", "SystemName", "CreationClassName", "Name"}
	row, err := one(ctx, c, virtualization, "SELECT SystemCreationClassName, SystemName, CreationClassName, Name FROM "+migrationService)
	ref := winrm.Ref{Namespace: virtualization, Class: migrationService, Selectors: map[string]string{}}
	for _, k := range keys {
		ref.Selectors[k] = row.Text(k)
	}
	return ref, err
}

func vmRef(vm string) winrm.Ref {
	return winrm.Ref{Namespace: virtualization, Class: "Msvm_ComputerSystem", Selectors: map[string]string{"CreationClassName": "Msvm_ComputerSystem", "Name": vm}}
}

// Values of Msvm_VirtualSystemMigrationSettingData: the VM and not its storage, over TCP.
const (
	migrateVM    = "32768"
	transportTCP = "5"
)

// byHost asks the source, for a VM that is no cluster's.
func (m *migration) byHost(ctx context.Context) (func(context.Context) error, error) {
	if m.action.Kind != remediation.LiveMigration {
		return nil, errQuickAlone
	}
	source, err := m.host(ctx, m.action.From)
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", m.action.FromName, err)
	}
	to, err := m.destination(ctx, m.action)
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", m.action.ToName, err)
	}
	service, err := serviceRef(ctx, source.client)
	if err != nil {
		return nil, err
	}
	settings := &winrm.Object{Class: "Msvm_VirtualSystemMigrationSettingData", Members: []winrm.Member{
		{Name: "MigrationType", Type: "uint16", Values: []string{migrateVM}}, {Name: "TransportType", Type: "uint16", Values: []string{transportTCP}},
	}}
	return func(ctx context.Context) error {
		out, err := winrm.Invoke(ctx, source.client, service, "MigrateVirtualSystemToHost", winrm.Params{
			{Name: "ComputerSystem", Value: vmRef(m.vm)}, {Name: "DestinationHost", Value: to}, {Name: "MigrationSettingData", Value: settings},
		})
		if err != nil {
			return err
		}
		switch value, err := out.ReturnValue(); {
		case err != nil:
			return err // it was taken, and nobody knows how
		case value != 0 && value != returnJob:
			return returned(value)
		}
		return nil
	}, nil
}

// errQuickAlone says why a VM of no cluster cannot be saved and moved: nothing moves it.
var errQuickAlone = fmt.Errorf("%s is for VMs of a failover cluster, and it is in none", remediation.QuickMigration)

// destination is how a source finds the target: by the target's own name.
func (e *Executor) destination(ctx context.Context, a remediation.Action) (string, error) {
	target, err := e.host(ctx, a.To)
	if err != nil {
		return "", err
	}
	self, err := target.identity(ctx)
	return self.full(), err
}

// follow waits until the VM is online on its target or the migration ended otherwise. It outlives nodes that do not answer; ctx ends
// the wait and not the migration.
func (m *migration) follow(ctx context.Context) error {
	readable, still := time.Now(), time.Now()
	tick := time.NewTicker(m.opts.Poll)
	defer tick.Stop()
	for {
		v, err := m.again(ctx)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("goes on unwatched: %w", ctx.Err())
		case err != nil && time.Since(readable) > m.opts.Patience:
			return fmt.Errorf("%w: not readable for %s: %v", remediation.ErrUndecided, m.opts.Patience, err)
		case err != nil:
			m.log.Debug("migration not readable", "action", m.action.ID, "vm", m.action.VMName, "err", err)
		case v.runs && v.on == m.action.To:
			return m.report(remediation.Progress{TaskRef: m.ref, Ratio: 1})
		case v.moving:
			readable, still, m.seen = time.Now(), time.Now(), true
			if err := m.tell(v); err != nil {
				return err
			}
		default:
			readable = time.Now()
			if err, over := m.over(ctx, v, time.Since(still) > m.opts.Settle); over {
				return err
			}
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// again looks at the VM, at its role alone as long as that is known.
func (m *migration) again(ctx context.Context) (view, error) {
	if m.role != "" {
		v, err := m.lookAtRole(ctx, m.action, m.vm, m.role)
		if !errors.Is(err, winrm.ErrNotFound) {
			return v, err
		}
	}
	v, err := m.look(ctx, m.action, m.vm)
	m.role = v.role
	return v, err
}

// tell reports progress that has grown, and whether it waits for a slot.
func (m *migration) tell(v view) error {
	ratio := m.best
	if v.job != nil {
		ratio = max(ratio, min(float64(v.job.percent)/100, 0.99))
	}
	if ratio <= m.best && v.queued == m.queued {
		return nil
	}
	m.best, m.queued = ratio, v.queued
	if err := m.report(remediation.Progress{TaskRef: m.ref, Ratio: ratio, Queued: v.queued}); err != nil {
		return fmt.Errorf("goes on unrecorded: %w: %w", remediation.ErrUndecided, err)
	}
	return nil
}

// over decides a VM that does not move and is not online on its target. On its source it is over once it was seen to move, or there is a
// job that says so; else, and wherever it does not run, it is given time to settle.
func (m *migration) over(ctx context.Context, v view, settled bool) (error, bool) {
	a := m.action
	ended := slices.DeleteFunc(slices.Clone(v.ended), func(j job) bool {
		return slices.ContainsFunc(m.before, func(old job) bool { return old.id == j.id })
	})
	j := m.since(a, ended)
	failed := j != nil && j.state != jobSucceeded
	switch {
	case v.on == a.From && v.runs && (m.seen || failed || settled):
		return m.why(ctx, v, j), true
	case !settled:
		return nil, false
	case v.on.IsZero():
		return fmt.Errorf("%w: no host has the VM any more", remediation.ErrUndecided), true
	case v.on == a.From:
		return fmt.Errorf("%w; the VM is %s on its source: start it", m.why(ctx, v, j), v.down), true
	case v.on == a.To:
		return fmt.Errorf("the VM is %s on its target %s: start it there", v.down, a.ToName), true
	}
	return fmt.Errorf("the VM is on %s", v.on), true
}

// why is the reason of a migration that left the VM on its source, as far as anything tells it: the job, or else the last error of
// the VM's resource in the cluster.
func (e *Executor) why(ctx context.Context, v view, j *job) error {
	if j != nil && j.state != jobSucceeded {
		return failure(codeIn(j.words), j.words)
	}
	var code uint32
	if v.role != "" {
		code = e.lastError(ctx, v.role)
	}
	return failure(code, "")
}

func (e *Executor) lastError(ctx context.Context, role string) (code uint32) {
	err := e.cluster(ctx, func(c *winrm.Client) error {
		q := winrm.Query{Namespace: mscluster, WQL: "SELECT OwnerGroup, LastOperationStatusCode FROM MSCluster_Resource WHERE Type = 'Virtual Machine'"}
		return c.Enumerate(ctx, q, func(i winrm.Instance) error {
			if n, told := i.Uint("LastOperationStatusCode"); told && i.Text("OwnerGroup") == role {
				code = uint32(n)
			}
			return nil
		})
	})
	if err != nil {
		e.log.Debug("last error of a role not readable", "role", role, "err", err)
	}
	return code
}
