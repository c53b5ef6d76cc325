package libvirt

import (
	"context"
	"errors"
	"fmt"
	"sync"

	golibvirt "github.com/digitalocean/go-libvirt"

	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/libvirt"
	"github.com/protip/protip/remediation"
)

// errNoVM says that no host has the VM.
var errNoVM = errors.New("no such VM")

// Find reads the job on the VM's source, then where the VM is. libvirt keeps no record of migrations that ended: of those there is
// what this executor saw itself, and, for the action's own, what follows from where the VM is.
func (e *Executor) Find(ctx context.Context, a remediation.Action) (remediation.Sighting, error) {
	vm, err := e.mine(a)
	if errors.Is(err, errNoVM) {
		return remediation.Sighting{}, nil
	}
	if err != nil {
		return remediation.Sighting{}, err
	}
	v, err := e.look(ctx, a, vm)
	if err != nil {
		return remediation.Sighting{}, fmt.Errorf("find %s: %w", a.VMName, err)
	}
	s := remediation.Sighting{Host: v.on}
	switch ref := taskRef(a); {
	case v.moving:
		s.Tasks = []remediation.Task{{Ref: ref, State: remediation.TaskRunning}} // nobody can tell where to
	case a.TaskRef != "" && a.TaskRef != ref:
		// It names a migration from another host: where the VM is decides.
	case a.TaskRef == "" && !e.ended.has(a.ID):
	case v.on == a.To && v.runs:
		s.Tasks = []remediation.Task{{Ref: ref, State: remediation.TaskSucceeded, To: a.To}}
	case v.on == a.From:
		s.Tasks = []remediation.Task{{Ref: ref, State: remediation.TaskFailed, To: a.To, Error: e.ended.words(a.ID)}}
	}
	return s, nil
}

// view is what the hosts show of a VM at one moment.
type view struct {
	on       inventory.ID // the host that owns it: the one where it runs, else one that knows it; zero if none does
	runs     bool         // there
	off      bool         // there: it is only defined
	moving   bool         // its source has a job that moves it away
	progress float64      // of that job, 0..1
}

// look asks the source for its job first: a job that is over when the VM is looked for cannot hide where it went. Hosts beside source and
// target are asked only if neither has the VM, or only its definition. It is an error if a host that may have the VM does not answer, unless the VM is seen
// to run where no answer could change anything.
func (e *Executor) look(ctx context.Context, a remediation.Action, vm platform.UUID) (view, error) {
	var v view
	var unread, failed error
	source, err := e.host(ctx, a.From.Ref)
	if err == nil {
		v.moving, v.progress, err = source.job(ctx, vm)
	}
	if !platform.IsGone(err) && !errors.Is(err, errNoHost) {
		unread = err
	}
	seen := map[*host]bool{}
	visit := func(h *host) {
		if seen[h] {
			return
		}
		seen[h] = true
		state, _, err := h.state(ctx, vm)
		if err == nil {
			v.add(state, e.hostID(h.leadsTo()), a.From)
		} else if !platform.IsGone(err) {
			failed = errors.Join(failed, err)
		}
	}
	for _, id := range []inventory.ID{a.From, a.To} {
		if h, err := e.host(ctx, id.Ref); err == nil {
			visit(h)
		} else if !errors.Is(err, errNoHost) {
			failed = errors.Join(failed, err)
		}
	}
	if v.on.IsZero() || v.off { // a definition may have been left behind
		for _, h := range e.hosts {
			visit(h)
		}
	}
	switch arrived := v.runs && v.on == a.To; {
	case unread != nil && !arrived:
		return v, unread
	case failed != nil && !v.runs:
		return v, failed
	}
	return v, nil
}

// add counts in how one more host has the VM. In mid-migration it is paused on both.
func (v *view) add(state golibvirt.DomainState, on, source inventory.ID) {
	switch {
	case state == golibvirt.DomainRunning || state == golibvirt.DomainBlocked:
		v.on, v.runs = on, true
	case v.runs:
	case v.on.IsZero() || state != golibvirt.DomainShutoff && on == source:
		v.on, v.off = on, state == golibvirt.DomainShutoff
	case v.off && state != golibvirt.DomainShutoff:
		v.on, v.off = on, false
	}
}

// state is how a host has a VM.
func (h *host) state(ctx context.Context, vm platform.UUID) (state golibvirt.DomainState, dom golibvirt.Domain, err error) {
	err = h.ask(ctx, "DomainGetState", func(l *golibvirt.Libvirt) error {
		if dom, err = l.DomainLookupByUUID(golibvirt.UUID(vm)); err != nil {
			return err
		}
		n, _, err := l.DomainGetState(dom, 0)
		state = golibvirt.DomainState(n)
		return err
	})
	return state, dom, err
}

// job reports whether a host moves a VM away just now, and how far it is.
func (h *host) job(ctx context.Context, vm platform.UUID) (moving bool, progress float64, err error) {
	err = h.ask(ctx, "DomainGetJobStats", func(l *golibvirt.Libvirt) error {
		dom, err := l.DomainLookupByUUID(golibvirt.UUID(vm))
		if err != nil {
			return err
		}
		kind, params, err := l.DomainGetJobStats(dom, 0)
		if err == nil {
			moving, progress = outgoing(golibvirt.DomainJobType(kind), params)
		}
		return err
	})
	return moving, progress, err
}

// outgoing reads a job's figures. A job of an operation that libvirt does not name is taken for a migration: it is in the way of one.
func outgoing(kind golibvirt.DomainJobType, params []golibvirt.TypedParam) (moving bool, progress float64) {
	if kind != golibvirt.DomainJobBounded && kind != golibvirt.DomainJobUnbounded {
		return false, 0
	}
	operation := golibvirt.DomainJobOperationStrMigrationOut
	var total, remaining uint64
	for _, p := range params {
		switch value := p.Value.I.(type) {
		case int32:
			if p.Field == golibvirt.DomainJobOperationStr {
				operation = golibvirt.DomainJobOperation(value)
			}
		case uint64:
			switch p.Field {
			case golibvirt.DomainJobDataTotal:
				total = value
			case golibvirt.DomainJobDataRemaining:
				remaining = value
			}
		}
	}
	if total > 0 && remaining <= total {
		progress = float64(total-remaining) / float64(total)
	}
	return operation == golibvirt.DomainJobOperationStrMigrationOut || operation == golibvirt.DomainJobOperationStrUnknown, progress
}

// endings are what this executor was told of the migrations that it sent: libvirt forgets.
type endings struct {
	mu sync.Mutex
	by map[string]error // action -> why it failed, nil if it did not
}

// maxEndings bounds what is remembered; the engine asks right after the end.
const maxEndings = 1000

func (m *endings) put(action string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.by) >= maxEndings {
		clear(m.by)
	}
	m.by[action] = err
}

func (m *endings) has(action string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.by[action]
	return ok
}

func (m *endings) words(action string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.by[action]; err != nil {
		return err.Error()
	}
	return "the migration ended and left the VM on its source; libvirt keeps no record why (its log on both hosts does)"
}
