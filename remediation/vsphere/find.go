package vsphere

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/vsphere"
	"github.com/protip/protip/remediation"
)

const (
	// drift is how far the agent's clock and the vCenter's may drift apart, or be set, between the call and the search.
	drift = 10 * time.Second
	// maxTasks bounds what is looked at of a VM's tasks; the vCenter itself keeps 200 recent ones.
	maxTasks = 200
)

// migrations are the tasks that move a VM between hosts, by the vCenter's names for them.
var migrations = []string{"VirtualMachine.migrate", "VirtualMachine.relocate", "Drm.ExecuteVMotionLRO"}

func moves(info types.TaskInfo) bool { return slices.Contains(migrations, info.DescriptionId) }

func ended(info types.TaskInfo) bool {
	return info.State == types.TaskInfoStateSuccess || info.State == types.TaskInfoStateError
}

// Find reads the VM's migrations and then its host.
func (e *Executor) Find(ctx context.Context, a remediation.Action) (remediation.Sighting, error) {
	if err := e.mine(a); err != nil {
		return remediation.Sighting{}, err
	}
	infos, err := e.migrationsOf(ctx, a)
	if err != nil {
		return remediation.Sighting{}, fmt.Errorf("find migrations of %s: %w", a.VMName, err)
	}
	host, err := e.whereIs(ctx, a)
	if err != nil {
		return remediation.Sighting{}, fmt.Errorf("find %s: %w", a.VMName, err)
	}
	s := remediation.Sighting{Host: host}
	for _, info := range infos {
		s.Tasks = append(s.Tasks, sighted(info))
	}
	return s, nil
}

// whereIs is the host of the action's VM, zero if the vCenter has no such VM.
func (e *Executor) whereIs(ctx context.Context, a remediation.Action) (inventory.ID, error) {
	p, err := e.properties(ctx, vmRef(a), "runtime.host")
	if platform.IsGone(err) {
		return inventory.ID{}, nil
	}
	if err != nil {
		return inventory.ID{}, err
	}
	host, ok := platform.Get[types.ManagedObjectReference](p, "runtime.host")
	if !ok {
		return inventory.ID{}, fmt.Errorf("where %s runs: %w", a.VMName, errUnseen)
	}
	return e.hostID(host), nil
}

// migrationsOf are the VM's migrations since a.StartingAt, and the action's own task whenever it was; newest first.
func (e *Executor) migrationsOf(ctx context.Context, a remediation.Action) ([]types.TaskInfo, error) {
	since, err := e.theirs(ctx, a.StartingAt)
	if err != nil {
		return nil, err
	}
	recent, err := e.recentOf(ctx, a)
	if err != nil {
		return nil, err
	}
	older, err := e.history(ctx, a, since)
	if err != nil {
		return nil, err
	}
	var out []types.TaskInfo
	known := map[string]bool{}
	for _, info := range slices.Concat(recent, older) {
		ours := taskName(info) == a.TaskRef
		if !known[taskName(info)] && (ours || moves(info) && !info.QueueTime.Before(since)) {
			known[taskName(info)] = true
			out = append(out, info)
		}
	}
	slices.SortFunc(out, func(a, b types.TaskInfo) int { return b.QueueTime.Compare(a.QueueTime) })
	return out, nil
}

// theirs is a time of protip's clock by the vCenter's, as early as it may be. Zero is all of time: so is a time that has not
// come yet, because then protip's clock was set back since.
func (e *Executor) theirs(ctx context.Context, t time.Time) (since time.Time, err error) {
	if t.IsZero() || t.After(e.opts.Now()) {
		return time.Time{}, nil
	}
	err = e.session.Do(ctx, func(ctx context.Context, c *platform.Conn) error {
		skew, err := c.Skew(ctx, e.opts.Now)
		since = t.Add(-skew - drift)
		return err
	})
	return since, err
}

// recentOf are the tasks that the vCenter keeps with the VM (about ten minutes of them), and the action's own.
func (e *Executor) recentOf(ctx context.Context, a remediation.Action) ([]types.TaskInfo, error) {
	p, err := e.properties(ctx, vmRef(a), "recentTask")
	if err != nil && !platform.IsGone(err) {
		return nil, err
	}
	tasks, _ := platform.Get[types.ArrayOfManagedObjectReference](p, "recentTask")
	refs := tasks.ManagedObjectReference
	if a.TaskRef != "" && !slices.Contains(refs, taskRef(a.TaskRef)) {
		refs = append(refs, taskRef(a.TaskRef))
	}
	return e.infos(ctx, refs)
}

// infos reads tasks. Those that the vCenter has forgotten meanwhile are left out.
func (e *Executor) infos(ctx context.Context, refs []types.ManagedObjectReference) (infos []types.TaskInfo, err error) {
	refs = slices.Clone(refs[max(0, len(refs)-maxTasks):])
	for len(refs) > 0 {
		infos = nil
		err = e.session.Do(ctx, func(ctx context.Context, c *platform.Conn) error {
			spec := types.PropertyFilterSpec{PropSet: []types.PropertySpec{{Type: "Task", PathSet: []string{"info"}}}}
			for _, ref := range refs {
				spec.ObjectSet = append(spec.ObjectSet, types.ObjectSpec{Obj: ref})
			}
			return c.Retrieve(ctx, spec, func(_ types.ManagedObjectReference, p platform.Properties) {
				if info, ok := platform.Get[types.TaskInfo](p, "info"); ok {
					infos = append(infos, info)
				}
			})
		})
		gone, ok := platform.Gone(err)
		if !ok || !slices.Contains(refs, gone) {
			return infos, err
		}
		refs = slices.DeleteFunc(refs, func(ref types.ManagedObjectReference) bool { return ref == gone })
	}
	return nil, nil
}

// history reads the VM's tasks since a time from the vCenter's database. One that does not offer it, or not to this user,
// leaves the recent tasks.
func (e *Executor) history(ctx context.Context, a remediation.Action, since time.Time) (infos []types.TaskInfo, err error) {
	filter := types.TaskFilterSpec{Entity: &types.TaskFilterSpecByEntity{Entity: vmRef(a), Recursion: types.TaskFilterSpecRecursionOptionSelf}}
	if !since.IsZero() {
		filter.Time = &types.TaskFilterSpecByTime{TimeType: types.TaskFilterSpecTimeOptionQueuedTime, BeginTime: &since}
	}
	err = e.session.Do(ctx, func(ctx context.Context, c *platform.Conn) error {
		infos = nil
		if c.ServiceContent.TaskManager == nil {
			return nil
		}
		res, err := methods.CreateCollectorForTasks(ctx, c, &types.CreateCollectorForTasks{This: *c.ServiceContent.TaskManager, Filter: filter})
		if err != nil {
			return err
		}
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.opts.Timeout)
			defer cancel()
			// One that is not destroyed ends with the session.
			_, _ = methods.DestroyCollector(ctx, c, &types.DestroyCollector{This: res.Returnval})
		}()
		for len(infos) < maxTasks {
			page, err := methods.ReadNextTasks(ctx, c, &types.ReadNextTasks{This: res.Returnval, MaxCount: maxTasks / 2})
			if err != nil {
				return err
			}
			if len(page.Returnval) == 0 {
				return nil
			}
			infos = append(infos, page.Returnval...)
		}
		return nil
	})
	if err != nil && (notOffered(err) || platform.IsGone(err) || platform.IsNoPermission(err) || fault.Is(err, &types.NotSupported{})) {
		return nil, nil
	}
	return infos, err
}

func sighted(info types.TaskInfo) remediation.Task {
	t := remediation.Task{Ref: taskName(info), State: remediation.TaskRunning}
	switch info.State {
	case types.TaskInfoStateSuccess:
		t.State = remediation.TaskSucceeded
	case types.TaskInfoStateError:
		t.State, t.Error = remediation.TaskFailed, faultWords(info.Error)
	}
	return t // without its target: a TaskInfo does not tell
}

func taskName(info types.TaskInfo) string {
	if info.Task.Value != "" {
		return info.Task.Value
	}
	return info.Key
}
