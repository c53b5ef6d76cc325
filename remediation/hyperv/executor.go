// Package hyperv is the executor for Hyper-V: live and quick migration in a failover cluster, live migration between hosts of none.
// It promises that one Do sends at most one migration, and none while one of the VM runs, and that a VM has arrived only when it is
// online on its target (see DESIGN.md). It must not import rules, store, web, app or a collector.
package hyperv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/platform/winrm"
	"github.com/protip/protip/remediation"
)

// Options say which hosts, with which right to act.
type Options struct {
	Source string          // the configured name, part of every object's ID
	Hosts  []winrm.Options // nodes of one cluster, or hosts of none, with the credential that may act
	Log    *slog.Logger

	Now  func() time.Time // protip's clock, as actions' times are of; default time.Now
	Poll time.Duration    // between looks at a migration; default 2 s
	// Patience is how long nobody may be able to tell how a migration stands before its end is called undecided; default 2 min.
	Patience time.Duration
	// Settle is how long a VM may seem to stand still, after the call was taken, before the migration counts as over; default 15 s.
	Settle time.Duration
}

// Executor acts on one failover cluster, or on hosts of none. It logs in at a host when it first needs it.
type Executor struct {
	opts  Options
	hosts []*host
	log   *slog.Logger
	turn  turn
}

var (
	_ remediation.Executor = (*Executor)(nil)
	_ remediation.Canceler = (*Executor)(nil)
)

// New checks the options. It does not connect.
func New(opts Options) (*Executor, error) {
	if len(opts.Hosts) == 0 {
		return nil, fmt.Errorf("source %s: no hosts", opts.Source)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	defaults := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	defaults(&opts.Poll, 2*time.Second)
	defaults(&opts.Patience, 2*time.Minute)
	defaults(&opts.Settle, 15*time.Second)
	e := &Executor{opts: opts, log: opts.Log.With("source", opts.Source)}
	for _, o := range opts.Hosts {
		client, err := winrm.New(o)
		if err != nil {
			e.Close()
			return nil, fmt.Errorf("source %s: %w", opts.Source, err)
		}
		e.hosts = append(e.hosts, &host{client: client})
	}
	return e, nil
}

// Close ends the connections. Migrations that were started go on.
func (e *Executor) Close() {
	for _, h := range e.hosts {
		h.client.Close()
	}
}

// Do sends the migration, unless a.TaskRef says that it was sent, and waits until the VM is online on its target.
func (e *Executor) Do(ctx context.Context, a remediation.Action, report func(remediation.Progress) error) error {
	vm, err := e.mine(a)
	if err != nil {
		return err
	}
	m := &migration{Executor: e, action: a, vm: vm, report: report, ref: a.TaskRef, queued: a.Queued}
	if a.TaskRef == "" {
		err = m.send(ctx)
	}
	if err == nil {
		err = m.follow(ctx)
	}
	if err != nil {
		return fmt.Errorf("migrate %s to %s: %w", a.VMName, a.ToName, err)
	}
	return nil
}

var isGUID = regexp.MustCompile(`^[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}$`)

// guid is a VM's GUID as Hyper-V writes it, empty if s is none.
func guid(s string) string {
	s = strings.ToUpper(strings.Trim(s, "{} "))
	if !isGUID.MatchString(s) {
		return ""
	}
	return s
}

// errNoVM says that no host has the VM, errNoHost that none of the source's is the one that is meant.
var (
	errNoVM   = errors.New("no such VM")
	errNoHost = errors.New("no such host")
)

// mine refuses an action of another kind, or that names another source's objects, and reads the VM's GUID.
func (e *Executor) mine(a remediation.Action) (vm string, err error) {
	if a.Kind != remediation.LiveMigration && a.Kind != remediation.QuickMigration {
		return "", fmt.Errorf("cannot do %q: only %s and %s", a.Kind, remediation.LiveMigration, remediation.QuickMigration)
	}
	for _, want := range []struct {
		id   inventory.ID
		kind inventory.Kind
	}{{a.VM, inventory.KindVM}, {a.From, inventory.KindHost}, {a.To, inventory.KindHost}} {
		if want.id.Source != e.opts.Source || want.id.Kind != want.kind || want.id.Ref == "" {
			return "", fmt.Errorf("%q is not a %s of source %s", want.id, want.kind, e.opts.Source)
		}
	}
	if vm = guid(a.VM.Ref); vm == "" {
		return "", fmt.Errorf("vm %s: %w: %q is no VM's GUID", a.VMName, errNoVM, a.VM.Ref)
	}
	return vm, nil
}

// taskRef names a VM's way from a host. What waits in a cluster's queue has no job, and a quick migration perhaps none ever; a VM has
// at most one migration at a time, so that the two are its identity, in every process that asks.
func taskRef(a remediation.Action) string { return "migration-" + a.VM.Ref + "-from-" + a.From.Ref }
