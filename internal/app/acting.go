package app

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/protip/protip/collector/build"
	"github.com/protip/protip/internal/config"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/placement"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/remediation/hyperv"
	"github.com/protip/protip/remediation/libvirt"
	"github.com/protip/protip/remediation/vsphere"
	"github.com/protip/protip/rules"
)

// acting is all that can change anything. It exists only if the configuration has a remediation section.
type acting struct {
	engine    *remediation.Engine
	executors []executor
}

// executor is one that keeps something open.
type executor interface {
	remediation.Executor
	Close()
}

// newActing builds an executor for each source that has a credential to act, and the engine over them.
func (a *App) newActing(ctx context.Context, cfg *config.Config, registry prometheus.Registerer) (*acting, error) {
	r := cfg.Remediation
	if r == nil {
		return nil, nil
	}
	act := &acting{}
	executors := map[string]remediation.Executor{}
	for _, src := range cfg.Sources {
		if src.Acting == nil {
			continue
		}
		exec, err := a.newExecutor(src)
		if err != nil {
			act.close()
			return nil, err
		}
		act.executors = append(act.executors, exec)
		executors[src.Name] = exec
		if r.DryRun {
			executors[src.Name] = remediation.DryRun(exec)
		}
	}
	var journal remediation.Journal = a.store
	if a.o.WrapJournal != nil {
		journal = a.o.WrapJournal(journal)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	act.engine, err = remediation.New(remediation.Options{
		Journal: journal, Memory: a.store, Executors: executors, Clock: a.clock, Snapshot: a.Snapshot,
		Recheck: a.recheck, Webhook: a.callWebhook,
		Closed: func(now time.Time) string { return remediation.Outside(a.settings.Load().opened, now) }, Judge: a.judgeOutcome, Notify: a.actionStepped,
		Limits: remediation.Limits(r.Limits), Cooldown: r.Cooldown,
		Owner: fmt.Sprintf("%s/%d", host, os.Getpid()), Log: a.log, Registerer: registry,
	})
	if err == nil {
		err = act.engine.Recover(ctx) // reads the journal, so that pauses count and are shown from the first request on
	}
	if err != nil {
		act.close()
		return nil, err
	}
	return act, nil
}

// newExecutor is the list of what protip can act on.
func (a *App) newExecutor(src config.Source) (executor, error) {
	switch src.Type {
	case config.VSphere:
		return vsphere.New(vsphere.Options{
			Source: src.Name, Session: build.Session(src, *src.Acting), Log: a.log, Now: a.clock.Now,
		})
	case config.Libvirt:
		return libvirt.New(libvirt.Options{
			Source: src.Name, Hosts: build.LibvirtHosts(src, *src.Acting), Log: a.log,
			Migration: libvirt.Migration{
				URI: src.Migration.URI, Bandwidth: uint64(src.Migration.Bandwidth), MaxDowntime: src.Migration.MaxDowntime,
				CopyStorage: src.Migration.CopyStorage, Timeout: src.Migration.Timeout,
			},
		})
	case config.HyperV:
		hosts, err := build.WindowsHosts(src, *src.Acting)
		if err != nil {
			return nil, err
		}
		return hyperv.New(hyperv.Options{Source: src.Name, Hosts: hosts, Log: a.log, Now: a.clock.Now})
	}
	return nil, fmt.Errorf("source %q: no executor for type %q", src.Name, src.Type)
}

func (act *acting) close() {
	for _, e := range act.executors {
		e.Close()
	}
}

// placementPolicy is what every placement obeys now.
func (a *App) placementPolicy(snap *inventory.Snapshot) placement.Policy {
	cfg := a.settings.Load().config
	c := &cfg.Placement
	p := placement.Policy{
		Ceiling: config.DefaultCeiling, Fill: c.Goal == config.GoalFill, Weights: placement.Weights(c.Weights),
		HostFlow:    placement.Flow{DiskBytesPerSecond: c.HostDisk, NetworkBytesPerSecond: c.HostNetwork},
		HostReserve: placement.HostReserve{CPURatio: c.HostReserves.CPU, MemoryRatio: c.HostReserves.Memory},
		ApartTags:   c.ApartTags, TogetherTags: c.TogetherTags, Restricted: a.restricted(snap, cfg),
		ReserveAll: c.ReserveAll, Reserves: a.heldReserves(snap, cfg),
	}
	if r := cfg.Remediation; r != nil {
		p.Ceiling = r.Ceiling
	}
	if a.acting != nil {
		p.Incoming, p.Frozen = a.acting.engine.Incoming(), a.acting.engine.Frozen()
	}
	return p
}

// recheck says why a planned move would be wrong now. Between two moves of a plan the host is measured again: a plan counts
// what contention withheld, and often one move less does.
func (a *App) recheck(act remediation.Action) error {
	snap := a.Snapshot()
	policy := a.placementPolicy(snap)
	policy.Quick = act.Kind == remediation.QuickMigration // a person agreed to it
	policy.Urgent = act.For == placement.ForEvacuation
	policy.Incoming = without(policy.Incoming, act.To, act.VM)
	if err := a.leaveLater(policy.Incoming, act); err != nil {
		return err
	}
	if err := a.stillNeeded(snap, act, policy); err != nil {
		return err
	}
	why, asked := placement.Bears(snap, a.demand(snap), act.VM, act.To, a.forReserves(policy))
	if why != "" {
		return fmt.Errorf("host %s may no longer take %s: %s", act.ToName, act.VMName, why)
	}
	if asked {
		policy.Reserves = nil // the rating would ask it of the last look at the cluster, and with the moves of later waves
	}
	rating, ok := placement.Of(placement.Rate(snap, a.demand(snap), placement.VMSpec{ID: act.VM}, policy), act.To)
	if !ok {
		return fmt.Errorf("host %s can no longer be rated for %s", act.ToName, act.VMName)
	}
	if act.Kind == remediation.QuickMigration && rating.Kind == placement.MoveLive {
		return fmt.Errorf("%s can be moved live by now, which needs no downtime: plan again", act.VMName)
	}
	for _, reason := range rating.Reasons {
		if reason.Code == placement.CodeUnknownDemand && justBegun(snap, act) {
			return fmt.Errorf("%s: %w", reason.Text, remediation.ErrNotYet)
		}
		if reason.Bars {
			return fmt.Errorf("host %s may no longer take %s: %s", act.ToName, act.VMName, reason.Text)
		}
	}
	return nil
}

// leaveLater takes from incoming what later waves of the action's plan would bring: what they rely on to leave has not left yet.
func (a *App) leaveLater(incoming map[inventory.ID][]inventory.ID, act remediation.Action) error {
	waiting, err := a.acting.engine.Actions(context.Background(), remediation.Filter{States: []remediation.State{remediation.Approved}})
	if err != nil {
		return fmt.Errorf("read the other moves of the plan: %w: %w", remediation.ErrNotYet, err)
	}
	for _, other := range waiting {
		if other.PlanID == act.PlanID && other.Wave > act.Wave {
			without(incoming, other.To, other.VM)
		}
	}
	return nil
}

// stillNeeded asks whether what the move is for is not so by now: the tip is over, or the host that it relieves is calm.
func (a *App) stillNeeded(snap *inventory.Snapshot, act remediation.Action, policy placement.Policy) error {
	tip, err := agent{a}.Tip(context.Background(), act.TipID)
	if err != nil || tip.Remedy.Action == rules.Migrate {
		return nil
	}
	if tip.State == rules.Resolved {
		return fmt.Errorf("the tip is resolved: %w", remediation.ErrNotNeeded)
	}
	if tip.Remedy.Action != rules.RebalanceHost {
		return nil
	}
	plan, err := a.acting.engine.Actions(context.Background(), remediation.Filter{TipID: act.TipID, Since: tip.ActiveAt})
	if err != nil {
		return fmt.Errorf("read the other moves of the plan: %w: %w", remediation.ErrNotYet, err)
	}
	for _, other := range plan {
		if other.PlanID != act.PlanID || other.DryRun {
			continue
		}
		if other.State == remediation.Approved { // it has not left, and may never
			policy.Incoming = without(policy.Incoming, other.To, other.VM)
		}
		if other.State == remediation.Done && !measuredSince(snap, act.From, other.EndedAt) {
			return fmt.Errorf("%s has not been measured since %s left: %w", act.FromName, other.VMName, remediation.ErrNotYet)
		}
	}
	relief := placement.Relieve(snap, a.demand(snap), act.From, goalOf(tip), policy)
	if relief.Reached() && len(relief.Moves) == 0 {
		return fmt.Errorf("%s is expected at %.0f %% of its CPU and %.0f %% of its memory: %w",
			act.FromName, relief.Before.CPURatio*100, relief.Before.MemoryRatio*100, remediation.ErrNotNeeded)
	}
	return nil
}

// measuredSince reports whether all figures of a host and its VMs that a placement reads are of a whole interval after t: in
// one that had begun before, what left still counts. Figures that are missing are for the placement to judge.
func measuredSince(snap *inventory.Snapshot, host inventory.ID, t time.Time) bool {
	src, _ := snap.Source(host.Source)
	t = t.Add(src.Interval)
	young := func(samples inventory.Samples, metrics ...inventory.Metric) bool {
		for _, m := range metrics {
			if s := samples.Of(m); s.OK() && s.Time().Before(t) {
				return false
			}
		}
		return true
	}
	h, ok := snap.Host(host)
	if ok && !young(h.Samples, inventory.HostCPUUsage, inventory.HostMemoryUsage) {
		return false
	}
	for _, vm := range snap.VMsOn(host) {
		if !young(vm.Samples, inventory.VMCPUUsage, inventory.VMCPUContention, inventory.VMMemoryUsage) {
			return false
		}
	}
	return true
}

// justBegun reports whether a VM that counts in a placement was never measured: a restart, or a VM just switched on.
func justBegun(snap *inventory.Snapshot, act remediation.Action) bool {
	vms := snap.VMsOn(act.To)
	if vm, ok := snap.VM(act.VM); ok {
		vms = append(vms, vm)
	}
	for _, vm := range vms {
		for _, m := range []inventory.Metric{inventory.VMCPUUsage, inventory.VMCPUContention, inventory.VMMemoryUsage} {
			if vm.Power == inventory.PowerOn && !vm.Template && vm.Samples.Of(m).At == 0 {
				return true
			}
		}
	}
	return false
}

// without is incoming less one VM on its way to one host: the one that is being rechecked must not count twice.
func without(incoming map[inventory.ID][]inventory.ID, host, vm inventory.ID) map[inventory.ID][]inventory.ID {
	var rest []inventory.ID
	for _, id := range incoming[host] {
		if id != vm {
			rest = append(rest, id)
		}
	}
	if incoming != nil {
		incoming[host] = rest
	}
	return incoming
}

func readLine(file string) (string, error) {
	b, err := os.ReadFile(file)
	return strings.TrimSpace(string(b)), err
}
