package hyperv

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/protip/protip/internal/platform/winrm"
	"github.com/protip/protip/remediation"
)

// terminate is what a job is asked to become.
const terminate = 4

// Cancel has the cluster give the role's move up, or the source its job. The VM stays, or comes back, on its source.
func (e *Executor) Cancel(ctx context.Context, a remediation.Action) error {
	vm, err := e.mine(a)
	if err == nil && a.TaskRef != taskRef(a) {
		err = fmt.Errorf("%q is no migration from %s", a.TaskRef, a.FromName)
	}
	if err == nil {
		err = e.giveUp(ctx, a, vm)
	}
	if err != nil {
		return fmt.Errorf("cancel migration of %s: %w", a.VMName, err)
	}
	e.log.Info("migration asked to be cancelled", "action", a.ID, "vm", a.VMName, "from", a.FromName, "to", a.ToName)
	return nil
}

func (e *Executor) giveUp(ctx context.Context, a remediation.Action, vm string) error {
	v, err := e.look(ctx, a, vm)
	switch {
	case err != nil:
		return fmt.Errorf("nothing was sent: %v", err) // without what it wraps, which would read as a lost answer
	case !v.moving:
		return errors.New("none is under way")
	case v.job != nil && v.job.to != "" && e.named(a, v.job.to) != a.To:
		return fmt.Errorf("the one under way is not protip's: it leads to %s", v.job.to)
	case v.role != "":
		return taken(e.cancelRole(ctx, v.role))
	case v.job == nil:
		return fmt.Errorf("%s does not tell which of its jobs it is", a.FromName)
	}
	source, err := e.host(ctx, a.From)
	if err != nil {
		return fmt.Errorf("nothing was sent: host %s: %v", a.FromName, err)
	}
	return taken(cancelJob(ctx, source.client, v.job.id))
}

// cancelRole is CancelClusterGroupOperation, by the node that answered last.
func (e *Executor) cancelRole(ctx context.Context, role string) error {
	_, err := winrm.Invoke(ctx, e.hosts[e.turn.get()].client, roleRef(role), "CancelOperation", winrm.Params{{Name: "Flags", Value: uint32(0)}})
	return err
}

func cancelJob(ctx context.Context, source *winrm.Client, id string) error {
	job := winrm.Ref{Namespace: virtualization, Class: "Msvm_MigrationJob", Selectors: map[string]string{"InstanceID": id}}
	out, err := winrm.Invoke(ctx, source, job, "RequestStateChange", winrm.Params{{Name: "RequestedState", Value: uint16(terminate)}})
	if err != nil {
		return err
	}
	value, err := out.ReturnValue()
	if err != nil || slices.Contains([]uint32{0, returnJob}, value) {
		return err
	}
	return refusal{value, "the job cannot be ended any more"}
}
