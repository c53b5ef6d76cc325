package vsphere

import (
	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/inventory"
)

// setClusterConfig reads DRS, HA, rules and groups of a cluster's settings.
func (t *tree) setClusterConfig(c *inventory.Cluster, val any) {
	cfg, ok := val.(types.ClusterConfigInfoEx) // zero, so all looks off, if there is none
	c.Unread = !ok
	c.DRS = inventory.DRS{Enabled: isTrue(cfg.DrsConfig.Enabled), Automation: automation(cfg.DrsConfig.DefaultVmBehavior)}
	c.HA = ha(&cfg.DasConfig)
	c.Admission = t.admission(cfg.DasConfig.AdmissionControlPolicy)
	c.Rules = t.rules(cfg.Rule)
	c.HostRules = t.hostRules(&cfg)
	c.Overrides = t.overrides(c.DRS, &cfg)
	c.RestartPriority = restartPriority(cfg.DasConfig.DefaultVmSettings, "")
	c.RestartPriorities = t.restartPriorities(c.RestartPriority, &cfg)
}

func ha(das *types.ClusterDasConfigInfo) inventory.HA {
	out := inventory.HA{Enabled: isTrue(das.Enabled), AdmissionControl: isTrue(das.AdmissionControlEnabled)}
	switch p := das.AdmissionControlPolicy.(type) {
	case *types.ClusterFailoverLevelAdmissionControlPolicy:
		out.Policy, out.HostFailures = "host_failures", int(p.FailoverLevel)
	case *types.ClusterFailoverResourcesAdmissionControlPolicy:
		out.Policy, out.HostFailures = "percentage", int(p.FailoverLevel)
	case *types.ClusterFailoverHostAdmissionControlPolicy:
		out.Policy, out.HostFailures = "dedicated_hosts", int(p.FailoverLevel)
	case nil:
		if das.FailoverLevel > 0 {
			out.Policy, out.HostFailures = "host_failures", int(das.FailoverLevel)
		}
	}
	return out
}

// admission is what the policy of HA's admission control keeps free.
func (t *tree) admission(policy types.BaseClusterDasAdmissionControlPolicy) inventory.Admission {
	var out inventory.Admission
	switch p := policy.(type) {
	case *types.ClusterFailoverLevelAdmissionControlPolicy:
		if slot, ok := p.SlotPolicy.(*types.ClusterFixedSizeSlotPolicy); ok {
			out.SlotCPUHertz, out.SlotMemoryBytes = number(slot.Cpu)*1e6, number(slot.Memory)*mebi
		}
	case *types.ClusterFailoverResourcesAdmissionControlPolicy:
		out.ReservedCPU, out.ReservedMemory = number(p.CpuFailoverResourcesPercent)/100, number(p.MemoryFailoverResourcesPercent)/100
	case *types.ClusterFailoverHostAdmissionControlPolicy:
		out.Hosts = t.idsOf(p.FailoverHosts, inventory.KindHost)
	}
	return out
}

// restartPriority is the priority that settings name, else the one that stands beside them.
func restartPriority(settings *types.ClusterDasVmSettings, beside types.DasVmPriority) string {
	if settings != nil && settings.RestartPriority != "" {
		return settings.RestartPriority
	}
	return string(beside)
}

// restartPriorities are the VMs that HA restarts sooner or later than the others.
func (t *tree) restartPriorities(others string, cfg *types.ClusterConfigInfoEx) map[inventory.ID]string {
	var out map[inventory.ID]string
	for i := range cfg.DasVmConfig {
		o := &cfg.DasVmConfig[i]
		priority := restartPriority(o.DasSettings, o.RestartPriority)
		id := t.idOf(o.Key)
		if id.Kind != inventory.KindVM || priority == "" || priority == asCluster || priority == others {
			continue
		}
		if out == nil {
			out = map[inventory.ID]string{}
		}
		out[id] = priority
	}
	return out
}

// As a VM's restart priority, asCluster is the cluster's; notRestarted is none.
const (
	asCluster    = string(types.ClusterDasVmSettingsRestartPriorityClusterRestartPriority)
	notRestarted = string(types.ClusterDasVmSettingsRestartPriorityDisabled)
)

// hostRules are the rules between groups of VMs and groups of hosts.
func (t *tree) hostRules(cfg *types.ClusterConfigInfoEx) []inventory.HostRule {
	vms, hosts := map[string][]inventory.ID{}, map[string][]inventory.ID{}
	for _, group := range cfg.Group {
		switch g := group.(type) {
		case *types.ClusterVmGroup:
			vms[g.Name] = t.idsOf(g.Vm, inventory.KindVM)
		case *types.ClusterHostGroup:
			hosts[g.Name] = t.idsOf(g.Host, inventory.KindHost)
		}
	}
	var out []inventory.HostRule
	for _, rule := range cfg.Rule {
		r, ok := rule.(*types.ClusterVmHostRuleInfo)
		if !ok {
			continue
		}
		for _, tie := range []struct {
			kind  inventory.RuleKind
			group string
		}{{inventory.Affinity, r.AffineHostGroupName}, {inventory.AntiAffinity, r.AntiAffineHostGroupName}} {
			if tie.group == "" {
				continue
			}
			out = append(out, inventory.HostRule{
				Name: r.Name, Kind: tie.kind, Enabled: isTrue(r.Enabled), Mandatory: isTrue(r.Mandatory),
				VMGroup: r.VmGroupName, HostGroup: tie.group, VMs: vms[r.VmGroupName], Hosts: hosts[tie.group],
			})
		}
	}
	return out
}

// rules are the rules between VMs.
func (t *tree) rules(in []types.BaseClusterRuleInfo) []inventory.Rule {
	var out []inventory.Rule
	for _, rule := range in {
		var kind inventory.RuleKind
		var info types.ClusterRuleInfo
		var vms []types.ManagedObjectReference
		switch r := rule.(type) {
		case *types.ClusterAffinityRuleSpec:
			kind, info, vms = inventory.Affinity, r.ClusterRuleInfo, r.Vm
		case *types.ClusterAntiAffinityRuleSpec:
			kind, info, vms = inventory.AntiAffinity, r.ClusterRuleInfo, r.Vm
		default:
			continue
		}
		out = append(out, inventory.Rule{
			Name: info.Name, Kind: kind, Enabled: isTrue(info.Enabled), Mandatory: isTrue(info.Mandatory),
			VMs: t.idsOf(vms, inventory.KindVM),
		})
	}
	return out
}

// overrides are the VMs that DRS treats otherwise than the cluster. One that DRS leaves alone counts as manual.
func (t *tree) overrides(drs inventory.DRS, cfg *types.ClusterConfigInfoEx) map[inventory.ID]inventory.Automation {
	if allowed := cfg.DrsConfig.EnableVmBehaviorOverrides; allowed != nil && !*allowed {
		return nil
	}
	var out map[inventory.ID]inventory.Automation
	for i := range cfg.DrsVmConfig {
		o := &cfg.DrsVmConfig[i]
		level := automation(o.Behavior)
		if o.Enabled != nil && !*o.Enabled {
			level = inventory.AutomationManual
		}
		id := t.idOf(o.Key)
		if id.Kind != inventory.KindVM || level == "" || level == drs.Automation {
			continue
		}
		if out == nil {
			out = map[inventory.ID]inventory.Automation{}
		}
		out[id] = level
	}
	return out
}

func automation(b types.DrsBehavior) inventory.Automation {
	switch b {
	case types.DrsBehaviorManual:
		return inventory.AutomationManual
	case types.DrsBehaviorPartiallyAutomated:
		return inventory.AutomationPartial
	case types.DrsBehaviorFullyAutomated:
		return inventory.AutomationFull
	}
	return ""
}

func isTrue(b *bool) bool { return b != nil && *b }
