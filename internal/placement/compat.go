package placement

import (
	"fmt"
	"slices"
	"strings"

	"github.com/protip/protip/internal/inventory"
)

// contended is the share of time that a host's VMs wait for its CPU from which on the wait speaks against it: what administrators call
// noticeable, and the shipped packs too.
const contended = 0.05

// moves finds out how the VM could be moved at all.
func (c *candidate) moves(vm *inventory.VM, p Policy) {
	c.kind = MoveLive
	switch {
	case vm.NotLive == "":
	case vm.QuickMigration && p.Quick:
		c.kind, c.quick = MoveQuick, vm.NotLive
	case vm.QuickMigration:
		c.bar(CodeNotLive, fmt.Sprintf("it cannot be moved live (%s), and to be saved, moved and restored is downtime that was not agreed to", vm.NotLive))
	default:
		c.bar(CodeNotLive, fmt.Sprintf("it cannot be moved live (%s)", vm.NotLive))
	}
}

// runsOn remembers the processor that the VM was started on, unless all of its cluster pretend to be the same.
func (c *candidate) runsOn(h *inventory.Host, cluster *inventory.Cluster) {
	if cluster.EVC == "" && h.EVC == "" {
		c.model = h.CPUModel
	}
}

// rateKind looks at what a move of a running VM needs beside room: a processor that has what the guest has seen.
func (c *candidate) rateKind(b *book, against func(code, text string, bars bool)) {
	if c.quick != "" {
		against(CodeQuick, fmt.Sprintf("it cannot be moved live (%s): it is saved, moved and restored, and does not run meanwhile", c.quick), false)
	}
	if c.model == "" || b.host.CPUModel == "" || c.model == b.host.CPUModel || b.host.EVC != "" {
		return
	}
	from, to := vendor(c.model), vendor(b.host.CPUModel)
	if from != "" && to != "" && from != to {
		against(CodeCPUModel, fmt.Sprintf("its processor is of %s, and the VM runs on one of %s", to, from), true)
		return
	}
	against(CodeCPUModel, fmt.Sprintf("its processor is another (%s), and nothing makes the two alike", b.host.CPUModel), false)
}

func vendor(model string) string {
	for _, name := range []string{"Intel", "AMD"} {
		if strings.Contains(model, name) {
			return name
		}
	}
	return ""
}

// rateHA bars a host whose cluster would not restart a VM that is to be restarted. An existing VM stays in its cluster.
func (l *ledger) rateHA(c *candidate, b *book, against func(code, text string, bars bool)) {
	if !c.HighlyAvailable || !c.current.IsZero() {
		return
	}
	cluster, ok := l.snap.Cluster(b.host.Cluster)
	switch {
	case !ok:
		against(CodeHA, "it is in no cluster, and nothing would restart the VM when it fails", true)
	case cluster.Unread:
		against(CodeHA, fmt.Sprintf("whether cluster %s restarts VMs could not be read", cluster.Name), true)
	case !cluster.HA.Enabled:
		against(CodeHA, fmt.Sprintf("high availability is off in cluster %s", cluster.Name), true)
	}
}

// relate finds the other running VMs that share a tag with the VM.
func (c *candidate) relate(l *ledger, p Policy) {
	c.peers, c.friends = l.tagged(c.VMSpec, p.ApartTags), l.tagged(c.VMSpec, p.TogetherTags)
}

func (l *ledger) tagged(spec VMSpec, categories []string) map[inventory.ID]string {
	var tags []inventory.Tag
	for _, t := range spec.Tags {
		if slices.Contains(categories, t.Category) {
			tags = append(tags, t)
		}
	}
	if len(tags) == 0 {
		return nil
	}
	found := map[inventory.ID]string{}
	for vm := range l.snap.VMs() {
		for _, t := range tags {
			if vm.ID != spec.ID && runs(vm.VM) && slices.Contains(vm.Tags, t) {
				found[vm.ID] = t.Category + "/" + t.Name
			}
		}
	}
	return found
}

// rateTags looks for VMs of the same tag on the host. Tags are wishes: they cost stars and bar nothing.
func (c *candidate) rateTags(b *book, l *ledger, against func(code, text string, bars bool)) {
	here := func(of map[inventory.ID]string) (vm inventory.ID, found bool) {
		if len(of) == 0 {
			return vm, false
		}
		for id := range l.vms(b) {
			if _, ok := of[id]; ok && (!found || id.Ref < vm.Ref) {
				vm, found = id, true
			}
		}
		return vm, found
	}
	if vm, found := here(c.peers); found {
		against(CodeTag, fmt.Sprintf("%s, which is here, has the tag %s too, and they are better apart", l.name(vm), c.peers[vm]), false)
	}
	if _, found := here(c.friends); !found && len(c.friends) > 0 {
		against(CodeTag, "no other VM with its tag is here, and they are better together", false)
	}
}

// rateReserve asks whether the host's cluster would still hold its reserve.
func (l *ledger) rateReserve(c *candidate, b *book, p Policy, against func(code, text string, bars bool)) {
	a := p.Reserves[b.host.Cluster]
	if a == nil || a.Reserve < 1 {
		return
	}
	inside := false
	if h, ok := l.snap.Host(c.current); ok {
		inside = h.Cluster == b.host.Cluster
	}
	if a.Answer != Admitted {
		// A move inside the cluster makes it no worse in general, and may be what makes it better.
		against(CodeReserve, fmt.Sprintf("cluster %s does not hold its reserve of %s as it is: %s", a.Name, reserveOf(a.Reserve), a.Why), !inside)
		return
	}
	t := l.trialOf(c, a, p)
	host, ok := t.hosts[b.host.ID]
	if !ok {
		against(CodeReserve, fmt.Sprintf("the reserve of cluster %s was last looked at without this host", a.Name), true)
		return
	}
	if why := t.on(host); why != "" {
		against(CodeReserve, fmt.Sprintf("cluster %s would not hold its reserve of %s: %s", a.Name, reserveOf(a.Reserve), why), true)
	}
}

func (l *ledger) trialOf(c *candidate, a *Admission, p Policy) *trial {
	if t := c.trials[a.Cluster]; t != nil {
		return t
	}
	need, ok := c.Use.ceil()
	if !ok {
		need = Size{maxAmount, maxAmount}
	}
	claim := Claim{ID: c.ID, Name: c.Name, Need: need}
	cluster, ok := l.snap.Cluster(a.Cluster)
	t := a.try(claim, c.current, c.HighlyAvailable || p.ReserveAll || !ok || !cluster.HA.Enabled)
	for _, r := range c.rules { // of a VM that is not restarted: those that are must not land beside it
		if t.vm >= 0 || !r.Mandatory {
			continue
		}
		for v := range a.q.VMs {
			if slices.Contains(r.VMs, a.q.VMs[v].ID) {
				t.mates = append(t.mates, v)
				t.tied = t.tied || r.Kind == inventory.Affinity
			}
		}
	}
	c.trials[a.Cluster] = t
	return t
}

func reserveOf(n int) string {
	if n == 1 {
		return "1 host"
	}
	return hostsIn(n)
}
