package vsphere

import (
	"context"
	"errors"
	"fmt"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	platform "github.com/protip/protip/internal/platform/vsphere"
	"github.com/protip/protip/remediation"
)

// Cancel asks the vCenter to cancel the action's task. A task that is over, or that cannot be cancelled, is refused.
func (e *Executor) Cancel(ctx context.Context, a remediation.Action) error {
	err := e.mine(a)
	if err == nil && a.TaskRef == "" {
		err = errors.New("no task of it is known")
	}
	if err == nil {
		err = e.cancelTask(ctx, a.TaskRef)
	}
	if err != nil {
		return fmt.Errorf("cancel migration of %s: %w", a.VMName, err)
	}
	e.log.Info("migration asked to be cancelled", "action", a.ID, "vm", a.VMName, "task", a.TaskRef)
	return nil
}

func (e *Executor) cancelTask(ctx context.Context, ref string) error {
	ctx, cancel := context.WithTimeout(ctx, e.opts.Timeout)
	defer cancel()
	asked := false
	err := e.session.Do(ctx, func(ctx context.Context, c *platform.Conn) error {
		asked = true
		_, err := methods.CancelTask(ctx, c, &types.CancelTask{This: taskRef(ref)})
		return err
	})
	switch {
	case err == nil:
		return nil
	case refused(err):
		return fmt.Errorf("task %s: refused: %w%s", ref, err, typeOf(err))
	case !asked || unsent(err):
		return fmt.Errorf("nothing was sent: %v", err) // without what it wraps: a broken connection would read as a lost answer
	}
	return fmt.Errorf("%w: %w", remediation.ErrUndecided, err)
}
