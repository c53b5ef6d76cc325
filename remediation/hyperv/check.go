package hyperv

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/protip/protip/internal/platform/winrm"
	"github.com/protip/protip/remediation"
)

// Check asks whether the VM runs on a.From, and could move to a.To by the action's kind.
func (e *Executor) Check(ctx context.Context, a remediation.Action) error {
	vm, err := e.mine(a)
	if err != nil {
		return err
	}
	v, err := e.checkVM(ctx, a, vm)
	if err != nil {
		return fmt.Errorf("vm %s: %w", a.VMName, err)
	}
	to, err := e.checkHost(ctx, a, v)
	if err == nil {
		err = e.checkRoom(ctx, a, vm)
	}
	if err != nil {
		return fmt.Errorf("host %s: %w", a.ToName, err)
	}
	if a.Kind == remediation.LiveMigration {
		if err := e.checkLive(ctx, a, v, vm, to); err != nil {
			return fmt.Errorf("vm %s cannot move to %s: %w", a.VMName, a.ToName, err)
		}
	}
	return nil
}

// checkVM refuses a VM that is not on its source, does not run, or is busy.
func (e *Executor) checkVM(ctx context.Context, a remediation.Action, vm string) (view, error) {
	v, err := e.look(ctx, a, vm)
	switch {
	case err != nil:
		return v, err
	case v.on.IsZero():
		return v, fmt.Errorf("%w on any host of source %s", errNoVM, e.opts.Source)
	case v.moving:
		return v, fmt.Errorf("another migration of it is under way: %s", taskRef(a))
	case v.on == a.To && (v.runs || a.To == a.From):
		return v, fmt.Errorf("on %s: %w", a.ToName, remediation.ErrNoOp)
	case v.on != a.From:
		return v, fmt.Errorf("is on %s and not on %s any more", v.on.Ref, a.FromName)
	case !v.runs:
		return v, fmt.Errorf("is not powered on but %s", v.down)
	case v.role == "" && a.Kind == remediation.QuickMigration:
		return v, errQuickAlone
	}
	return v, nil
}

// checkHost refuses a target that takes nothing now, and tells its name as the source has to be given it.
func (e *Executor) checkHost(ctx context.Context, a remediation.Action, v view) (to string, err error) {
	if v.role == "" {
		return e.destination(ctx, a)
	}
	n, err := e.node(ctx, a.To)
	if err != nil {
		return "", err
	}
	return n.name, n.refuse()
}

// checkRoom refuses a VM whose memory is more than what the target has left. Of a node that is not among the configured hosts, and of
// a VM whose host is not, nobody can tell: the migration's own admission will.
func (e *Executor) checkRoom(ctx context.Context, a remediation.Action, vm string) error {
	source, err := e.host(ctx, a.From)
	if errors.Is(err, errNoHost) {
		return nil
	}
	if err != nil {
		return err
	}
	target, err := e.host(ctx, a.To)
	if errors.Is(err, errNoHost) {
		return nil
	}
	if err != nil {
		return err
	}
	rows, err := source.client.All(ctx, winrm.Query{Namespace: virtualization, WQL: "SELECT Name, MemoryUsage FROM Msvm_SummaryInformation WHERE Name = '" + vm + "'"})
	if errors.Is(err, winrm.ErrInvalidQuery) || err == nil && len(rows) == 0 { // not every Windows can be asked so
		return nil
	}
	if err != nil {
		return err
	}
	row, err := one(ctx, target.client, cimv2, "SELECT FreePhysicalMemory FROM Win32_OperatingSystem")
	if err != nil {
		return err
	}
	need, needs := rows[0].Uint("MemoryUsage")   // MiB
	free, told := row.Uint("FreePhysicalMemory") // KiB
	if needs && told && need > free>>10 {
		return fmt.Errorf("has no room: %d MiB of memory are free, and the VM takes %d", free>>10, need)
	}
	return nil
}

// checkLive has the source say whether the VM could migrate live to the target now. A source that cannot be asked, or does not know,
// refuses nothing.
func (e *Executor) checkLive(ctx context.Context, a remediation.Action, v view, vm, to string) error {
	source, err := e.host(ctx, a.From)
	if errors.Is(err, errNoHost) {
		return nil
	}
	if err != nil {
		return err
	}
	settings, err := one(ctx, source.client, virtualization, "SELECT EnableVirtualSystemMigration FROM Msvm_VirtualSystemMigrationServiceSettingData")
	if err != nil && !errors.Is(err, winrm.ErrInvalidQuery) && !errors.Is(err, winrm.ErrNotFound) {
		return err
	}
	if v.role == "" && strings.EqualFold(settings.Text("EnableVirtualSystemMigration"), "false") {
		return errors.New("live migrations are switched off on the source: Enable-VMMigration there and on the target")
	}
	service, err := serviceRef(ctx, source.client)
	if err != nil {
		return err
	}
	out, err := source.client.Ask(ctx, service, "CheckVirtualSystemIsMigratableToHost", winrm.Params{
		{Name: "ComputerSystem", Value: vmRef(vm)}, {Name: "DestinationHost", Value: to},
	})
	var said *winrm.Fault
	if errors.As(err, &said) && !errors.Is(err, winrm.ErrTimedOut) && !errors.Is(err, winrm.ErrAccessDenied) {
		e.log.Debug("whether a VM could migrate live is not told", "vm", a.VMName, "host", a.FromName, "err", err)
		return nil
	}
	if err != nil {
		return err
	}
	value, err := out.ReturnValue()
	if err != nil || value != 0 || !strings.EqualFold(out.Text("IsMigratable"), "false") {
		return nil
	}
	if v.role == "" {
		return errors.New("the source says that it cannot migrate live there: compare both hosts' processors, virtual switches and delegation")
	}
	return errors.New("the source says that it cannot migrate live there; a quick migration would take it down for a while")
}
