package libvirt

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"

	platform "github.com/protip/protip/internal/platform/libvirt"
	"github.com/protip/protip/remediation"
)

// longest is how long the one call may take that migrates. It returns at the migration's end; what ends one that does not is
// Migration.Timeout, or a person.
const longest = 24 * time.Hour

// migration is one Do.
type migration struct {
	*Executor
	action remediation.Action
	vm     platform.UUID
	report func(remediation.Progress) error

	ref    string     // reported; empty before
	best   float64    // progress reported
	answer chan error // the call's, nil once it was taken or if no call was made here
}

// send makes the one call, and returns when its job was seen and reported, or when the call returned without.
func (m *migration) send(ctx context.Context) error {
	if ctx.Err() != nil {
		return fmt.Errorf("nothing was sent: %v", ctx.Err())
	}
	call, err := m.prepare(ctx)
	if errors.Is(err, remediation.ErrNoOp) {
		return err
	}
	if err != nil {
		return fmt.Errorf("nothing was sent: %s", words(err)) // without what it wraps: a broken connection would read as a lost answer
	}
	m.answer = make(chan error, 1)
	m.log.Info("migration sent", "action", m.action.ID, "vm", m.action.VMName, "from", m.action.FromName, "to", m.action.ToName)
	go func() { // it returns at the end, which is not waited for here if ctx ends: the job goes on without
		m.answer <- call(context.WithoutCancel(ctx))
	}()
	return nil
}

// prepare reads that the VM is where the action says and that nobody moves it, and sets what has to be set before a migration.
func (m *migration) prepare(ctx context.Context) (call func(context.Context) error, err error) {
	a := m.action
	source, err := m.host(ctx, a.From.Ref)
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", a.FromName, err)
	}
	target, err := m.host(ctx, a.To.Ref)
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", a.ToName, err)
	}
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
	uri, err := m.targetURI(ctx, target)
	if err != nil {
		return nil, err
	}
	_, dom, err := source.state(ctx, m.vm)
	if err != nil {
		return nil, err
	}
	flags, err := m.flags(ctx, source, dom)
	if err != nil {
		return nil, err
	}
	if d := m.opts.Migration.MaxDowntime; d > 0 {
		err := source.ask(ctx, "DomainMigrateSetMaxDowntime", func(l *golibvirt.Libvirt) error {
			return l.DomainMigrateSetMaxDowntime(dom, uint64(d.Milliseconds()), 0)
		})
		if err != nil {
			return nil, err
		}
	}
	var params []golibvirt.TypedParam
	if b := m.opts.Migration.Bandwidth; b > 0 {
		params = append(params, golibvirt.TypedParam{Field: golibvirt.MigrateParamBandwidth, Value: *golibvirt.NewTypedParamValueUllong(b)})
	}
	c, err := source.connect(ctx)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		return c.CallWithin(ctx, longest, "DomainMigratePerform3Params", func(l *golibvirt.Libvirt) error {
			_, err := l.DomainMigratePerform3Params(dom, golibvirt.OptString{uri}, params, nil, flags)
			return err
		})
	}, nil
}

// flags move what the source has of the VM: a definition that outlives its running goes along, or the VM would be lost at its next
// shutdown.
func (m *migration) flags(ctx context.Context, source *host, dom golibvirt.Domain) (golibvirt.DomainMigrateFlags, error) {
	flags := golibvirt.MigrateLive | golibvirt.MigratePeer2peer | golibvirt.MigrateAbortOnError
	var persistent int32
	err := source.ask(ctx, "DomainIsPersistent", func(l *golibvirt.Libvirt) (err error) {
		persistent, err = l.DomainIsPersistent(dom)
		return err
	})
	if persistent != 0 {
		flags |= golibvirt.MigratePersistDest | golibvirt.MigrateUndefineSource
	}
	if m.opts.Migration.CopyStorage {
		flags |= golibvirt.MigrateNonSharedDisk
	}
	return flags, err
}

// targetURI is how the source reaches the target.
func (e *Executor) targetURI(ctx context.Context, target *host) (string, error) {
	if e.opts.Migration.URI != "" {
		var name string
		err := target.ask(ctx, "ConnectGetHostname", func(l *golibvirt.Libvirt) (err error) {
			name, err = l.ConnectGetHostname()
			return err
		})
		if err == nil && !plainName(name) {
			err = fmt.Errorf("the target calls itself %q, which is no host name", name)
		}
		return strings.ReplaceAll(e.opts.Migration.URI, "{host}", name), err
	}
	u, err := url.Parse(target.opts.URI)
	if err != nil || u.Host == "" {
		return "", errors.New("protip reaches the target by a unix socket, which its source cannot: set migration.uri, as qemu+tls://{host}/system")
	}
	u.User, u.RawQuery = nil, "" // protip's own
	return u.String(), nil
}

// plainName reports whether a host's own name may be put into a URI.
func plainName(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") == ""
}

// follow waits until the VM runs on its target or the migration ended otherwise. It outlives connections and short outages; ctx ends
// the wait and not the migration.
func (m *migration) follow(ctx context.Context) error {
	readable := time.Now()
	var late <-chan time.Time
	if t := m.opts.Migration.Timeout; t > 0 {
		limit := time.NewTicker(t)
		defer limit.Stop()
		late = limit.C
	}
	var aborted error
	tick := time.NewTicker(m.opts.Poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("goes on unwatched: %w", ctx.Err())
		case err := <-m.answer:
			if done, err := m.answered(ctx, err, aborted); done {
				return err
			}
		case <-late:
			if err := m.abort(ctx, m.action, m.vm); err != nil {
				m.log.Warn("cannot abort a migration that takes too long", "action", m.action.ID, "vm", m.action.VMName, "err", err)
			} else {
				aborted = fmt.Errorf("took longer than %s and was aborted", m.opts.Migration.Timeout)
			}
		case <-tick.C:
		}
		v, err := m.look(ctx, m.action, m.vm)
		switch {
		case ctx.Err() != nil:
			continue
		case err != nil && time.Since(readable) > m.opts.Patience:
			return fmt.Errorf("%w: not readable for %s: %w", remediation.ErrUndecided, m.opts.Patience, err)
		case err != nil:
			m.log.Debug("migration not readable", "action", m.action.ID, "vm", m.action.VMName, "err", err)
		case v.runs && v.on == m.action.To:
			return m.arrived()
		case v.moving:
			readable = time.Now()
			if err := m.tell(v.progress); err != nil {
				return err
			}
		case m.answer == nil:
			return m.over(v)
		default:
			readable = time.Now() // the call has not begun its job yet, or its answer is on its way
		}
	}
}

// answered deals with the call's return. It is not the end if the answer was lost while the job is known: that is read on.
func (m *migration) answered(ctx context.Context, err, aborted error) (done bool, _ error) {
	m.answer = nil
	switch {
	case err == nil:
		return true, m.arrived()
	case platform.CodeOf(err) != 0:
		failure := explained(err)
		if aborted != nil && platform.CodeOf(err) == platform.OperationAborted {
			failure = fmt.Errorf("%w: %w", aborted, err)
		}
		if m.ref != "" {
			m.ended.put(m.action.ID, failure)
		}
		return true, failure
	case m.ref == "":
		return true, fmt.Errorf("%w: %w", remediation.ErrUndecided, err)
	}
	m.log.Info("connection lost, the migration goes on", "action", m.action.ID, "vm", m.action.VMName, "err", err)
	return false, nil
}

// tell reports the job, the first time with no progress.
func (m *migration) tell(progress float64) error {
	p := remediation.Progress{TaskRef: taskRef(m.action), Ratio: min(max(m.best, progress), 0.99)}
	if m.ref == "" {
		p.Ratio = 0
	} else if p.TaskRef = m.ref; p.Ratio <= m.best {
		return nil
	}
	m.ref, m.best = p.TaskRef, p.Ratio
	if err := m.report(p); err != nil {
		return fmt.Errorf("goes on unrecorded: %w: %w", remediation.ErrUndecided, err)
	}
	return nil
}

// arrived reports the end on the target, for a migration that was over before its job was seen as well.
func (m *migration) arrived() error {
	if m.ref == "" {
		m.ref = taskRef(m.action)
		if err := m.report(remediation.Progress{TaskRef: m.ref}); err != nil {
			return fmt.Errorf("went on unrecorded: %w: %w", remediation.ErrUndecided, err)
		}
	}
	m.ended.put(m.action.ID, nil)
	return m.report(remediation.Progress{TaskRef: m.ref, Ratio: 1})
}

// over decides a migration that has no job any more, and of which no answer will come, by where the VM is.
func (m *migration) over(v view) error {
	a := m.action
	switch {
	case v.on == a.From:
		return errors.New(m.ended.words(a.ID))
	case v.on.IsZero():
		return fmt.Errorf("%w: no host has the VM any more", remediation.ErrUndecided)
	case v.on == a.To:
		return fmt.Errorf("%w: the VM is on %s and does not run", remediation.ErrUndecided, a.ToName)
	}
	return fmt.Errorf("%w: the VM is on %s", remediation.ErrUndecided, v.on)
}

// Cancel has the source abort its job with the action's VM. The VM stays, running, on its source. libvirt does not say whose a job is:
// it is the action's as long as it moves this VM away from this host.
func (e *Executor) Cancel(ctx context.Context, a remediation.Action) error {
	vm, err := e.mine(a)
	if err == nil && a.TaskRef != taskRef(a) {
		err = fmt.Errorf("%q is no migration from %s", a.TaskRef, a.FromName)
	}
	if err == nil {
		err = e.abort(ctx, a, vm)
	}
	if err != nil {
		return fmt.Errorf("cancel migration of %s: %w", a.VMName, err)
	}
	return nil
}

func (e *Executor) abort(ctx context.Context, a remediation.Action, vm platform.UUID) error {
	source, err := e.host(ctx, a.From.Ref)
	if err != nil {
		return fmt.Errorf("nothing was sent: host %s: %v", a.FromName, err) // without what it wraps, which would read as a lost answer
	}
	moving, _, err := source.job(ctx, vm)
	switch {
	case err != nil:
		return fmt.Errorf("nothing was sent: %v", err)
	case !moving:
		return errors.New("none is under way")
	}
	err = source.ask(ctx, "DomainAbortJob", func(l *golibvirt.Libvirt) error {
		dom, err := l.DomainLookupByUUID(golibvirt.UUID(vm))
		if err != nil {
			return err
		}
		return l.DomainAbortJob(dom)
	})
	if err != nil && platform.CodeOf(err) == 0 {
		return fmt.Errorf("%w: %w", remediation.ErrUndecided, err)
	}
	return err
}
