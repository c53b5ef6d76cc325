// Package vsphere is the executor for vCenters: live migration by MigrateVM_Task, or RelocateVM_Task where that is not offered.
// It promises that one Do sends at most one migration that a vCenter could carry out, and that an answer that was lost is
// told as lost (see DESIGN.md). It must not import rules, store, web, app or a collector.
package vsphere

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/vsphere"
	"github.com/protip/protip/remediation"
)

// Options say which vCenter, with which right to act.
type Options struct {
	Source  string           // the configured name, part of every object's ID
	Session platform.Options // with the credential that may act
	Log     *slog.Logger

	Now func() time.Time // protip's clock, as actions' times are of; default time.Now
	// Timeout bounds the one call that starts a migration, and the wait for a check; default 30 s.
	Timeout time.Duration
	Poll    time.Duration // between looks at a task; default 1 s
	// Patience is how long a task may be unreadable before its end is called undecided; default 2 min. The task goes on.
	Patience time.Duration
}

// Executor acts on one vCenter. It logs in when first asked, and out on Close.
type Executor struct {
	opts    Options
	session *platform.Session
	log     *slog.Logger
}

var (
	_ remediation.Executor = (*Executor)(nil)
	_ remediation.Canceler = (*Executor)(nil)
)

// New checks the options. It does not connect.
func New(opts Options) (*Executor, error) {
	session, err := platform.New(opts.Session)
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", opts.Source, err)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	defaults := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	defaults(&opts.Timeout, 30*time.Second)
	defaults(&opts.Poll, time.Second)
	defaults(&opts.Patience, 2*time.Minute)
	return &Executor{opts: opts, session: session, log: opts.Log.With("source", opts.Source)}, nil
}

// Close logs out. Migrations that were started go on.
func (e *Executor) Close() { e.session.Close() }

// Do sends the migration, unless a.TaskRef says that it was sent, and waits for its task.
func (e *Executor) Do(ctx context.Context, a remediation.Action, report func(remediation.Progress) error) error {
	if err := e.mine(a); err != nil {
		return err
	}
	ref := a.TaskRef
	if ref == "" {
		var err error
		if ref, err = e.send(ctx, a); err != nil {
			return fmt.Errorf("migrate %s to %s: %w", a.VMName, a.ToName, err)
		}
		if err := report(remediation.Progress{TaskRef: ref}); err != nil {
			return fmt.Errorf("migrate %s to %s: task %s goes on unrecorded: %w: %w", a.VMName, a.ToName, ref, remediation.ErrUndecided, err)
		}
	}
	if err := e.follow(ctx, a, ref, report); err != nil {
		return fmt.Errorf("migrate %s to %s: task %s: %w", a.VMName, a.ToName, ref, err)
	}
	return nil
}

// mine refuses an action that names another source's objects: their refs would mean other objects here.
func (e *Executor) mine(a remediation.Action) error {
	if a.Kind != remediation.LiveMigration {
		return fmt.Errorf("cannot do %q: only %s", a.Kind, remediation.LiveMigration)
	}
	for _, want := range []struct {
		id   inventory.ID
		kind inventory.Kind
	}{{a.VM, inventory.KindVM}, {a.From, inventory.KindHost}, {a.To, inventory.KindHost}} {
		if want.id.Source != e.opts.Source || want.id.Kind != want.kind || want.id.Ref == "" {
			return fmt.Errorf("%q is not a %s of source %s", want.id, want.kind, e.opts.Source)
		}
	}
	return nil
}

func (e *Executor) hostID(ref types.ManagedObjectReference) inventory.ID {
	return inventory.ID{Source: e.opts.Source, Kind: inventory.KindHost, Ref: ref.Value}
}

func vmRef(a remediation.Action) types.ManagedObjectReference {
	return types.ManagedObjectReference{Type: "VirtualMachine", Value: a.VM.Ref}
}

func hostRef(id inventory.ID) types.ManagedObjectReference {
	return types.ManagedObjectReference{Type: "HostSystem", Value: id.Ref}
}

func taskRef(ref string) types.ManagedObjectReference {
	return types.ManagedObjectReference{Type: "Task", Value: ref}
}

// properties reads some of an object's properties, logging in again where needed.
func (e *Executor) properties(ctx context.Context, ref types.ManagedObjectReference, paths ...string) (p platform.Properties, err error) {
	err = e.session.Do(ctx, func(ctx context.Context, c *platform.Conn) error {
		p, err = c.Properties(ctx, ref, paths...)
		return err
	})
	return p, err
}

// errUnseen says that the user may not see what has to be known.
var errUnseen = errors.New("the acting user may not read it")
