package vsphere

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/vsphere"
	"github.com/protip/protip/remediation"
)

// Check asks the vCenter whether the VM runs on a.From and could move to a.To.
func (e *Executor) Check(ctx context.Context, a remediation.Action) error {
	if err := e.mine(a); err != nil {
		return err
	}
	need, err := e.checkVM(ctx, a)
	if err != nil {
		return fmt.Errorf("vm %s: %w", a.VMName, err)
	}
	if err := e.checkHost(ctx, a.To, need); err != nil {
		return fmt.Errorf("host %s: %w", a.ToName, err)
	}
	if err := e.checkCompatible(ctx, a); err != nil {
		return fmt.Errorf("vm %s cannot move to %s: %w", a.VMName, a.ToName, err)
	}
	return nil
}

// use is what a VM takes of its host, or a host's VMs of it; nil where the vCenter does not say.
type use struct {
	cpuMHz, memoryMB *int64
}

func (e *Executor) checkVM(ctx context.Context, a remediation.Action) (use, error) {
	p, err := e.properties(ctx, vmRef(a), "config.template", "runtime.host", "runtime.powerState", "runtime.connectionState",
		"recentTask", "summary.quickStats.overallCpuUsage", "summary.quickStats.hostMemoryUsage")
	switch {
	case platform.IsGone(err):
		return use{}, errors.New("the vCenter has no such VM any more")
	case err != nil:
		return use{}, err
	}
	host, ok := platform.Get[types.ManagedObjectReference](p, "runtime.host")
	if !ok {
		return use{}, fmt.Errorf("where it runs: %w", errUnseen)
	}
	power, _ := platform.Get[types.VirtualMachinePowerState](p, "runtime.powerState")
	connection, _ := platform.Get[types.VirtualMachineConnectionState](p, "runtime.connectionState")
	template, _ := platform.Get[bool](p, "config.template")
	switch {
	case e.hostID(host) == a.To:
		return use{}, fmt.Errorf("on %s: %w", a.ToName, remediation.ErrNoOp)
	case e.hostID(host) != a.From:
		return use{}, fmt.Errorf("is on %s and not on %s any more", host.Value, a.FromName)
	case template:
		return use{}, errors.New("is a template")
	case power != types.VirtualMachinePowerStatePoweredOn:
		return use{}, fmt.Errorf("is not powered on but %q", power)
	case connection != types.VirtualMachineConnectionStateConnected:
		return use{}, fmt.Errorf("is not connected but %q", connection)
	}
	tasks, _ := platform.Get[types.ArrayOfManagedObjectReference](p, "recentTask")
	infos, err := e.infos(ctx, tasks.ManagedObjectReference)
	if err != nil {
		return use{}, err
	}
	for _, info := range infos {
		if moves(info) && !ended(info) {
			return use{}, fmt.Errorf("another migration of it is under way: task %s", taskName(info))
		}
	}
	return use{megas(p, "summary.quickStats.overallCpuUsage"), megas(p, "summary.quickStats.hostMemoryUsage")}, nil
}

func (e *Executor) checkHost(ctx context.Context, id inventory.ID, need use) error {
	p, err := e.properties(ctx, hostRef(id), "runtime.connectionState", "runtime.powerState", "runtime.inMaintenanceMode",
		"summary.hardware.memorySize", "summary.hardware.cpuMhz", "summary.hardware.numCpuCores",
		"summary.quickStats.overallCpuUsage", "summary.quickStats.overallMemoryUsage")
	switch {
	case platform.IsGone(err):
		return errors.New("the vCenter has no such host any more")
	case err != nil:
		return err
	}
	maintenance, ok := platform.Get[bool](p, "runtime.inMaintenanceMode")
	if !ok {
		return fmt.Errorf("whether it is in maintenance: %w", errUnseen)
	}
	connection, _ := platform.Get[types.HostSystemConnectionState](p, "runtime.connectionState")
	power, _ := platform.Get[types.HostSystemPowerState](p, "runtime.powerState")
	switch {
	case maintenance:
		return errors.New("is in maintenance mode")
	case connection != types.HostSystemConnectionStateConnected:
		return fmt.Errorf("is not connected but %q", connection)
	case power != types.HostSystemPowerStatePoweredOn:
		return fmt.Errorf("is not powered on but %q", power)
	}
	return room(p, need)
}

// room refuses a VM that takes more than what is left of a host. What the vCenter does not say refuses nothing: the planner
// has looked at it with its own numbers, and the migration's own admission looks again.
func room(p platform.Properties, need use) error {
	used := use{megas(p, "summary.quickStats.overallCpuUsage"), megas(p, "summary.quickStats.overallMemoryUsage")}
	var size use
	if bytes, ok := platform.Get[int64](p, "summary.hardware.memorySize"); ok {
		size.memoryMB = new(bytes >> 20)
	}
	mhz, ok := platform.Get[int32](p, "summary.hardware.cpuMhz")
	cores, known := platform.Get[int16](p, "summary.hardware.numCpuCores")
	if ok && known {
		size.cpuMHz = new(int64(mhz) * int64(cores))
	}
	for _, r := range []struct {
		name, unit       string
		size, used, need *int64
	}{
		{"memory", "MB", size.memoryMB, used.memoryMB, need.memoryMB},
		{"CPU", "MHz", size.cpuMHz, used.cpuMHz, need.cpuMHz},
	} {
		if r.size != nil && r.used != nil && r.need != nil && *r.used+*r.need > *r.size {
			return fmt.Errorf("has no room: %d of %d %s %s are used, and the VM takes %d", *r.used, *r.size, r.unit, r.name, *r.need)
		}
	}
	return nil
}

func megas(p platform.Properties, path string) *int64 {
	v, ok := platform.Get[int32](p, path)
	if !ok {
		return nil
	}
	return new(int64(v))
}

// checkCompatible has the vCenter try the migration without doing it, where it offers that.
func (e *Executor) checkCompatible(ctx context.Context, a remediation.Action) error {
	ctx, cancel := context.WithTimeout(ctx, e.opts.Timeout)
	defer cancel()
	var task string
	err := e.session.Do(ctx, func(ctx context.Context, c *platform.Conn) error {
		checker := c.ServiceContent.VmProvisioningChecker
		if checker == nil {
			return nil
		}
		ref, err := tryMigration(ctx, c, *checker, a)
		task = ref.Value
		return err
	})
	if err != nil || task == "" {
		return err
	}
	for {
		s, err := e.task(ctx, task)
		switch {
		case err != nil:
			return err
		case s.state == types.TaskInfoStateError:
			return errors.New(s.words)
		case s.over():
			return compatible(s.result)
		}
		if err := sleep(ctx, e.opts.Poll/4); err != nil {
			return fmt.Errorf("the vCenter's own check took too long: %w", err)
		}
	}
}

// tryMigration starts the check of the call that migrate would make, no task if the vCenter offers neither.
func tryMigration(ctx context.Context, c *platform.Conn, checker types.ManagedObjectReference, a remediation.Action) (types.ManagedObjectReference, error) {
	host := hostRef(a.To)
	res, err := methods.CheckMigrate_Task(ctx, c, &types.CheckMigrate_Task{
		This: checker, Vm: vmRef(a), Host: &host, State: types.VirtualMachinePowerStatePoweredOn,
	})
	if err == nil {
		return res.Returnval, nil
	}
	if !notOffered(err) {
		return types.ManagedObjectReference{}, err
	}
	moved, err := methods.CheckRelocate_Task(ctx, c, &types.CheckRelocate_Task{
		This: checker, Vm: vmRef(a), Spec: types.VirtualMachineRelocateSpec{Host: &host},
	})
	if err == nil {
		return moved.Returnval, nil
	}
	if !notOffered(err) {
		return types.ManagedObjectReference{}, err
	}
	return types.ManagedObjectReference{}, nil
}

// compatible is the errors in a check's result, in words.
func compatible(result any) error {
	checks, ok := result.(types.ArrayOfCheckResult)
	if !ok {
		return nil
	}
	var words []string
	for _, check := range checks.CheckResult {
		for i := range check.Error {
			if len(words) < 5 {
				words = append(words, faultWords(&check.Error[i]))
			}
		}
	}
	if len(words) == 0 {
		return nil
	}
	return errors.New(strings.Join(words, "; "))
}
