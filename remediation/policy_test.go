package remediation

import (
	"strings"
	"testing"

	"github.com/protip/protip/internal/inventory"
)

func TestDecide(t *testing.T) {
	id := func(ref string) inventory.ID { return inventory.ID{Source: "vc", Kind: inventory.KindVM, Ref: ref} }
	drs := func(enabled bool, a inventory.Automation, overrides ...inventory.Automation) *inventory.Cluster {
		c := &inventory.Cluster{Name: "prod", DRS: inventory.DRS{Enabled: enabled, Automation: a}, Overrides: map[inventory.ID]inventory.Automation{}}
		for _, o := range overrides {
			c.Overrides[id("vm-1")] = o
		}
		return c
	}
	grant := Grant{Source: "vc", Cluster: "prod", Pack: "host-pressure", Rule: "HostCPUOverload", PackSHA256: "aaaabbbbccccddddeeee"}
	base := func() (Policy, Case) {
		return Policy{Mode: ModeManual, Automatic: []Grant{grant}}, Case{
			Source: "vc", Acting: true, Cluster: drs(false, ""), VMs: []inventory.ID{id("vm-0"), id("vm-1")},
			Pack: "host-pressure", Rule: "HostCPUOverload", PackSHA256: "aaaabbbbccccddddeeee",
		}
	}
	tests := []struct {
		name   string
		change func(*Policy, *Case)
		want   Verdict
		why    string
	}{
		{"granted", func(*Policy, *Case) {}, Automatic, "rule HostCPUOverload of pack host-pressure may act by itself in cluster prod"},
		{"off", func(p *Policy, _ *Case) { p.Mode = ModeOff }, Refuse, "remediation is off"},
		{"off here", func(p *Policy, _ *Case) { p.Clusters = []Scope{{Source: "vc", Cluster: "prod", Mode: ModeOff}} }, Refuse, "remediation is off for cluster prod of source vc"},
		{"off in another cluster", func(p *Policy, _ *Case) { p.Clusters = []Scope{{Source: "vc", Cluster: "test", Mode: ModeOff}} }, Automatic, ""},
		{"off in the source, and on here", func(p *Policy, _ *Case) {
			p.Clusters = []Scope{{Source: "vc", Cluster: "prod", Mode: ModeManual}, {Source: "vc", Mode: ModeOff}}
		}, Automatic, ""},
		{"off, and on here", func(p *Policy, _ *Case) {
			p.Mode, p.Clusters = ModeOff, []Scope{{Source: "vc", Cluster: "prod", Mode: ModeManual}}
		}, Automatic, ""},
		{"only critical", func(p *Policy, c *Case) { p.Severity, c.Severity = "critical", "warning" }, Refuse, "for tips that are critical or worse, and this is warning"},
		{"critical is", func(p *Policy, c *Case) { p.Severity, c.Severity = "critical", "critical" }, Automatic, ""},
		{"only critical, inherited from the source", func(p *Policy, c *Case) {
			c.Severity, p.Clusters = "warning", []Scope{{Source: "vc", Severity: "critical"}, {Source: "vc", Cluster: "prod", Mode: ModeManual}}
		}, Refuse, "critical or worse"},
		{"only critical, and here warnings too", func(p *Policy, c *Case) {
			c.Severity, p.Clusters = "warning", []Scope{{Source: "vc", Severity: "critical"}, {Source: "vc", Cluster: "prod", Severity: "warning"}}
		}, Automatic, ""},
		{"a person's own move has no severity", func(p *Policy, c *Case) { p.Severity, c.Rule = "critical", "" }, Manual, "no rule asks"},
		{"a webhook moves nothing", func(_ *Policy, c *Case) {
			c.Webhook, c.Acting, c.Cluster = true, false, drs(true, inventory.AutomationFull)
		}, Automatic, ""},
		{"a webhook of what is in no cluster", func(_ *Policy, c *Case) { c.Webhook, c.Cluster = true, nil }, Manual, "in no cluster"},
		{"no mode at all", func(p *Policy, _ *Case) { p.Mode = "" }, Refuse, "remediation is off"},
		{"settings that could not be read", func(_ *Policy, c *Case) { c.Cluster.Unread = true }, Refuse, "nobody knows what DRS does there"},
		{"no credential", func(_ *Policy, c *Case) { c.Acting = false }, Refuse, "source vc has no acting credential"},
		{"no cluster", func(_ *Policy, c *Case) { c.Cluster = nil }, Refuse, "the host is in no cluster"},
		{"no grant", func(p *Policy, _ *Case) { p.Automatic = nil }, Manual, "is not allowed to act by itself in cluster prod"},
		{"another cluster", func(p *Policy, _ *Case) { p.Automatic[0].Cluster = "test" }, Manual, "is not allowed"},
		{"another source", func(p *Policy, _ *Case) { p.Automatic[0].Source = "vc-2" }, Manual, "is not allowed"},
		{"another rule", func(_ *Policy, c *Case) { c.Rule = "Other" }, Manual, "rule Other"},
		{"another pack", func(_ *Policy, c *Case) { c.Pack = "other" }, Manual, "pack other"},
		{
			"pack changed", func(_ *Policy, c *Case) { c.PackSHA256 = "ffff" }, Manual,
			"pack host-pressure changed since it was allowed to act by itself (sha256 was aaaabbbbcccc, is ffff): read it",
		},
		{"pack changed, then allowed again", func(p *Policy, _ *Case) {
			old := grant
			old.PackSHA256 = "0000"
			p.Automatic = []Grant{old, grant, old}
		}, Automatic, ""},
		{"sum in capitals", func(_ *Policy, c *Case) { c.PackSHA256 = strings.ToUpper(c.PackSHA256) }, Automatic, ""},
		{"empty sums are not equal", func(p *Policy, c *Case) { p.Automatic[0].PackSHA256, c.PackSHA256 = "", "" }, Manual, ""},
		{"a person's own move", func(_ *Policy, c *Case) { c.Pack, c.Rule, c.PackSHA256 = "", "", "" }, Manual, "no rule asks for it"},
		{
			"DRS drives", func(_ *Policy, c *Case) { c.Cluster = drs(true, inventory.AutomationFull) }, Refuse,
			"DRS drives cluster prod: protip only watches here, unless override_drs names vc/prod",
		},
		{"DRS off, whatever its level", func(_ *Policy, c *Case) { c.Cluster = drs(false, inventory.AutomationFull, inventory.AutomationFull) }, Automatic, ""},
		{"DRS recommends", func(_ *Policy, c *Case) { c.Cluster = drs(true, inventory.AutomationManual) }, Automatic, ""},
		{"DRS places only", func(_ *Policy, c *Case) { c.Cluster = drs(true, inventory.AutomationPartial) }, Automatic, ""},
		{"DRS overridden", func(p *Policy, c *Case) {
			c.Cluster, p.OverrideDRS = drs(true, inventory.AutomationFull), []string{"vc/prod"}
		}, Automatic, ""},
		{"another cluster overridden", func(p *Policy, c *Case) {
			c.Cluster, p.OverrideDRS = drs(true, inventory.AutomationFull), []string{"vc/test", "prod"}
		}, Refuse, "DRS drives"},
		{
			"DRS drives one VM", func(_ *Policy, c *Case) { c.Cluster = drs(true, inventory.AutomationManual, inventory.AutomationFull) }, Refuse,
			"DRS drives vc/vm/vm-1 by an override of its own",
		},
		{"a VM pinned in a cluster that DRS drives", func(p *Policy, c *Case) {
			c.Cluster, p.OverrideDRS = drs(true, inventory.AutomationFull, inventory.AutomationManual), []string{"vc/prod"}
		}, Manual, "keeps it where it is"},
		{
			"a move with downtime", func(_ *Policy, c *Case) { c.Down = []string{"legacy-erp"} }, Manual,
			"legacy-erp would be down while it moves (quick_migration): a person decides",
		},
		{"off wins over a grant and an override", func(p *Policy, _ *Case) { p.Mode, p.OverrideDRS = ModeOff, []string{"vc/prod"} }, Refuse, "off"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, c := base()
			tt.change(&p, &c)
			if d := Decide(p, c); d.Verdict != tt.want || !strings.Contains(d.Why, tt.why) || d.Why == "" {
				t.Errorf("%s: %s\nwant %s: %s", d.Verdict, d.Why, tt.want, tt.why)
			}
		})
	}
}
