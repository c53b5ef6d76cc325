package vsphere

import (
	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/inventory"
)

// setClusterConfig reads DRS, HA and rules of a cluster's settings.
func (t *tree) setClusterConfig(c *inventory.Cluster, val any) {
	cfg, _ := val.(types.ClusterConfigInfoEx) // zero, so all off, if there is none
	c.DRS = inventory.DRS{Enabled: isTrue(cfg.DrsConfig.Enabled), Automation: automation(cfg.DrsConfig.DefaultVmBehavior)}
	c.HA = ha(&cfg.DasConfig)
	c.Rules = t.rules(cfg.Rule)
	c.Overrides = t.overrides(c.DRS, &cfg)
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

// rules are the rules between VMs. Rules between VMs and groups of hosts are not among them.
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
		ids := make([]inventory.ID, 0, len(vms))
		for _, ref := range vms {
			if id := t.idOf(ref); id.Kind == inventory.KindVM {
				ids = append(ids, id)
			}
		}
		out = append(out, inventory.Rule{
			Name: info.Name, Kind: kind, Enabled: isTrue(info.Enabled), Mandatory: isTrue(info.Mandatory), VMs: ids,
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
