package remediation

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/protip/protip/internal/inventory"
)

// Mode is how far remediation goes at most.
type Mode string

// Modes. Automatic is no mode: it is granted rule by rule.
const (
	ModeOff    Mode = "off"    // tips only
	ModeManual Mode = "manual" // a person implements a tip
)

// Policy is what the agent's operator lets happen. A pack has no say in it.
type Policy struct {
	Mode      Mode
	Automatic []Grant
	// OverrideDRS names clusters (source/name) that are moved in although DRS is fully automatic there.
	OverrideDRS []string
	// Severity is the least of a tip that anything is done about: info, warning or critical; empty is info.
	Severity string
	// Clusters set mode and severity for a source, or for one cluster of it.
	Clusters []Scope
}

// Scope is what holds in a source, or in one cluster of it, by name. What is empty is as it is around it.
type Scope struct {
	Source, Cluster string
	Mode            Mode
	Severity        string
}

// Off reports whether nothing may be done anywhere.
func (p Policy) Off() bool {
	return p.Mode != ModeManual && !slices.ContainsFunc(p.Clusters, func(s Scope) bool { return s.Mode == ModeManual })
}

// in is the mode and the severity that hold in a cluster: its own, else its source's, else those of all.
func (p Policy) in(source, cluster string) (Mode, string) {
	mode, severity := p.Mode, p.Severity
	for _, of := range []string{"", cluster} {
		for _, s := range p.Clusters {
			if s.Source == source && s.Cluster == of {
				mode, severity = cmp.Or(s.Mode, mode), cmp.Or(s.Severity, severity)
			}
		}
	}
	return mode, severity
}

// badness orders severities.
func badness(severity string) int {
	return slices.Index([]string{"info", "warning", "critical"}, severity)
}

// Grant lets one rule of one exact pack act by itself in one cluster.
type Grant struct {
	Source     string
	Cluster    string // name
	Pack       string
	Rule       string
	PackSHA256 string
}

// Case is what is to be decided: may this rule's remedy be carried out on these VMs of this cluster?
type Case struct {
	Source     string
	Acting     bool               // there is a credential that may act on the source
	Cluster    *inventory.Cluster // nil for a host outside of any cluster
	VMs        []inventory.ID     // that would be moved; may be empty while there is no plan yet
	Down       []string           // names of those among them that would be down meanwhile
	Pack       string             // empty for a move that a person asked for without a tip
	Rule       string
	PackSHA256 string
	Severity   string // of the tip; empty without one
	Webhook    bool   // it calls something, and moves nothing
}

// Verdict is what the policy says.
type Verdict string

// Verdicts.
const (
	Refuse    Verdict = "refuse"    // nobody may, as things are configured
	Manual    Verdict = "manual"    // a person may
	Automatic Verdict = "automatic" // it goes by itself
)

// Decision is a verdict and why, in words for a person.
type Decision struct {
	Verdict Verdict `json:"verdict"`
	Why     string  `json:"why"`
}

// Decide applies the policy to a case. What the platform's own balancer drives is left to it, even by a person's wish,
// unless the cluster is overridden: two balancers fight. A VM that its owner took out of DRS in such a cluster was pinned
// on purpose and never moves by itself, and nothing takes a VM down but a person.
func Decide(p Policy, c Case) Decision {
	if d, ok := forbidden(p, c); ok {
		return d
	}
	if vm, ok := pinned(c); ok {
		return Decision{Manual, fmt.Sprintf("%s has a DRS automation level of its own that keeps it where it is: a person decides", vm)}
	}
	if len(c.Down) > 0 {
		return Decision{Manual, fmt.Sprintf("%s would be down while it moves (%s): a person decides", strings.Join(c.Down, ", "), QuickMigration)}
	}
	return granted(p.Automatic, c)
}

func forbidden(p Policy, c Case) (Decision, bool) {
	cluster := ""
	if c.Cluster != nil {
		cluster = c.Cluster.Name
	}
	switch mode, severity := p.in(c.Source, cluster); {
	case p.Mode != ModeManual && mode != ModeManual:
		return Decision{Refuse, "remediation is off: set remediation.mode to manual in the agent's configuration"}, true
	case mode != ModeManual:
		return Decision{Refuse, fmt.Sprintf("remediation is off for %s by remediation.clusters in the agent's configuration", place(c.Source, cluster))}, true
	case c.Severity != "" && badness(c.Severity) < badness(severity):
		return Decision{Refuse, fmt.Sprintf("remediation of %s is for tips that are %s or worse, and this is %s", place(c.Source, cluster), severity, c.Severity)}, true
	case c.Webhook:
		return Decision{}, false
	case !c.Acting:
		return Decision{Refuse, fmt.Sprintf("source %s has no acting credential: set acting: for it in the agent's configuration", c.Source)}, true
	case c.Cluster == nil:
		return Decision{Refuse, "the host is in no cluster: there is nowhere to move a VM to"}, true
	case c.Cluster.Unread:
		return Decision{Refuse, fmt.Sprintf("the settings of cluster %s could not be read, so nobody knows what DRS does there: "+
			"let the user that watches read the cluster", c.Cluster.Name)}, true
	case slices.Contains(p.OverrideDRS, c.Source+"/"+c.Cluster.Name) || !c.Cluster.DRS.Enabled:
		return Decision{}, false
	case c.Cluster.DRS.Automation == inventory.AutomationFull:
		return Decision{Refuse, fmt.Sprintf("DRS drives cluster %s: protip only watches here, unless override_drs names %s/%s",
			c.Cluster.Name, c.Source, c.Cluster.Name)}, true
	}
	for _, vm := range c.VMs {
		if c.Cluster.Overrides[vm] == inventory.AutomationFull {
			return Decision{Refuse, fmt.Sprintf("DRS drives %s by an override of its own in cluster %s", vm, c.Cluster.Name)}, true
		}
	}
	return Decision{}, false
}

// place names a cluster, or a source where there is none.
func place(source, cluster string) string {
	if cluster == "" {
		return "source " + source
	}
	return fmt.Sprintf("cluster %s of source %s", cluster, source)
}

// pinned is the first VM whose override takes it out of a DRS that is fully automatic.
func pinned(c Case) (inventory.ID, bool) {
	if c.Cluster == nil || !c.Cluster.DRS.Enabled || c.Cluster.DRS.Automation != inventory.AutomationFull {
		return inventory.ID{}, false
	}
	for _, vm := range c.VMs {
		if own, ok := c.Cluster.Overrides[vm]; ok && own != inventory.AutomationFull {
			return vm, true
		}
	}
	return inventory.ID{}, false
}

func granted(grants []Grant, c Case) Decision {
	if c.Rule == "" {
		return Decision{Manual, "no rule asks for it: a person decides"}
	}
	changed := ""
	if c.Cluster == nil {
		return Decision{Manual, "it is in no cluster, and remediation.automatic names one: a person decides"}
	}
	for _, g := range grants {
		if g.Source != c.Source || g.Cluster != c.Cluster.Name || g.Pack != c.Pack || g.Rule != c.Rule {
			continue
		}
		if strings.EqualFold(g.PackSHA256, c.PackSHA256) && c.PackSHA256 != "" {
			return Decision{Automatic, fmt.Sprintf("rule %s of pack %s may act by itself in cluster %s", c.Rule, c.Pack, c.Cluster.Name)}
		}
		changed = g.PackSHA256
	}
	if changed != "" {
		return Decision{Manual, fmt.Sprintf("pack %s changed since it was allowed to act by itself (sha256 was %s, is %s): "+
			"read it, then set pack_sha256 to the new value", c.Pack, short(changed), short(c.PackSHA256))}
	}
	return Decision{Manual, fmt.Sprintf("rule %s of pack %s is not allowed to act by itself in cluster %s", c.Rule, c.Pack, c.Cluster.Name)}
}

func short(sum string) string { return sum[:min(len(sum), 12)] }
