// Package libvirt is the executor for clusters of libvirt hosts: live migration from host to host, sent to the source.
// It promises that one Do sends at most one migration, and none while one of the VM runs or may run, and that what became of one
// is told from where the VM runs (see DESIGN.md). It must not import rules, store, web, app or a collector.
package libvirt

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/libvirt"
	"github.com/protip/protip/remediation"
)

// Options say which hosts, with which right to act, and how VMs are moved between them.
type Options struct {
	Source    string             // the configured name, part of every object's ID
	Hosts     []platform.Options // with the credential that may act
	Migration Migration
	Log       *slog.Logger

	Poll time.Duration // between looks at a migration; default 500 ms
	// Patience is how long nobody may be able to tell how a migration stands before its end is called undecided; default 2 min.
	Patience time.Duration
}

// Migration is how a VM is moved. Its zero value leaves all to libvirt.
type Migration struct {
	// URI is how a source reaches its target, with {host} for what the target calls itself; empty: as protip reaches it.
	URI         string
	Bandwidth   uint64        // MiB/s at most; 0: libvirt's own limit
	MaxDowntime time.Duration // that the VM may stand still for at the end; 0: libvirt's own, 300 ms
	CopyStorage bool          // also copies disks that the hosts do not share
	Timeout     time.Duration // after which a migration is aborted, which leaves the VM on its source; 0: never
}

// Executor acts on one cluster. It connects to a host when it first needs it.
type Executor struct {
	opts  Options
	hosts []*host
	log   *slog.Logger
	ended endings
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
	if opts.Poll <= 0 {
		opts.Poll = 500 * time.Millisecond
	}
	if opts.Patience <= 0 {
		opts.Patience = 2 * time.Minute
	}
	e := &Executor{opts: opts, log: opts.Log.With("source", opts.Source), ended: endings{by: map[string]error{}}}
	for _, o := range opts.Hosts {
		if err := platform.CheckURI(o.URI); err != nil {
			return nil, fmt.Errorf("source %s: %w", opts.Source, err)
		}
		e.hosts = append(e.hosts, &host{opts: o})
	}
	return e, nil
}

// Close ends the connections. Migrations that were started go on.
func (e *Executor) Close() {
	for _, h := range e.hosts {
		h.close()
	}
}

// Do sends the migration, unless a.TaskRef says that it was sent, and waits until the VM runs on its target.
func (e *Executor) Do(ctx context.Context, a remediation.Action, report func(remediation.Progress) error) error {
	vm, err := e.mine(a)
	if err != nil {
		return err
	}
	m := &migration{Executor: e, action: a, vm: vm, report: report, ref: a.TaskRef}
	if a.TaskRef == "" {
		if err := m.send(ctx); err != nil {
			return fmt.Errorf("migrate %s to %s: %w", a.VMName, a.ToName, err)
		}
	}
	if err := m.follow(ctx); err != nil {
		return fmt.Errorf("migrate %s to %s: %w", a.VMName, a.ToName, err)
	}
	return nil
}

// mine refuses an action that names another source's objects, and reads the VM's UUID.
func (e *Executor) mine(a remediation.Action) (platform.UUID, error) {
	if a.Kind != remediation.LiveMigration {
		return platform.UUID{}, fmt.Errorf("cannot do %q: only %s", a.Kind, remediation.LiveMigration)
	}
	for _, want := range []struct {
		id   inventory.ID
		kind inventory.Kind
	}{{a.VM, inventory.KindVM}, {a.From, inventory.KindHost}, {a.To, inventory.KindHost}} {
		if want.id.Source != e.opts.Source || want.id.Kind != want.kind || want.id.Ref == "" {
			return platform.UUID{}, fmt.Errorf("%q is not a %s of source %s", want.id, want.kind, e.opts.Source)
		}
	}
	return parseUUID(a.VM.Ref)
}

func (e *Executor) hostID(uuid string) inventory.ID {
	return inventory.ID{Source: e.opts.Source, Kind: inventory.KindHost, Ref: uuid}
}

// taskRef names the job that moves a VM away from a host. libvirt has no name for it, and at most one job for a VM of a host: the
// two are its identity.
func taskRef(a remediation.Action) string {
	return strings.Join([]string{"migration", a.VM.Ref, "from", a.From.Ref}, "-")
}
