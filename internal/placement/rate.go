package placement

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/protip/protip/internal/inventory"
)

// softCost is how many stars each thing costs that speaks against a host without barring it.
const softCost = 1.5

// Rate rates every host of the VM's cluster, or, for a VM that does not exist yet, every host there is; best first, barred ones
// last. A VM that the snapshot does not know has no ratings.
//
// A host that nothing bars has
//
//	stars = 5 x (1 - u / ceiling) - 1.5 for each thing that speaks against it
//
// rounded to a half and at least a half, where u is the expected utilisation after the move of the resource that is tightest,
// each times its weight over the greatest weight. So five stars is an empty host, and half a star one that would just not pass the
// ceiling. To fill hosts it is 5 x u / ceiling. A host is barred where its VMs may want more CPU than it has: what is expected of
// them and 1.75 standard deviations of its sum, as in a plan. Between equal stars the host that is emptier, or fuller, comes first, then
// the name.
func Rate(s *inventory.Snapshot, d Demand, vm VMSpec, p Policy) []Rating {
	return newLedger(s, d).rate(vm, p)
}

// Of is the rating of one host.
func Of(ratings []Rating, host inventory.ID) (Rating, bool) {
	i := slices.IndexFunc(ratings, func(r Rating) bool { return r.Host == host })
	if i < 0 {
		return Rating{}, false
	}
	return ratings[i], true
}

// Barred is the first reason that bars the host, in words.
func (r Rating) Barred() (string, bool) {
	for _, reason := range r.Reasons {
		if reason.Bars {
			return reason.Text, true
		}
	}
	return "", false
}

// Words are the rating's stars and reasons in one line.
func (r Rating) Words() string {
	texts := make([]string, len(r.Reasons))
	for i, reason := range r.Reasons {
		texts[i] = reason.Text
	}
	return fmt.Sprintf("%g stars: %s", r.Stars, strings.Join(texts, ", "))
}

// candidate is the VM to be placed, with all that is the same for every host.
type candidate struct {
	VMSpec
	current inventory.ID // host, zero for a new VM
	rules   []inventory.Rule
	ties    []inventory.HostRule
	stores  []inventory.DatastoreView
	nets    []*inventory.Network
	bars    []Reason // what keeps it from any host
	// rise and variance are of its CPU demand, as a book has them.
	rise, variance float64
	kind           MoveKind
	quick          string                  // why it cannot be moved live
	model          string                  // of the processor it runs on, empty if any host of its cluster has to do
	peers          map[inventory.ID]string // other VMs and the tag that they share, to be kept apart
	friends        map[inventory.ID]string // and together
	trials         map[inventory.ID]*trial // by cluster
}

func (l *ledger) rate(spec VMSpec, p Policy) []Rating {
	c, hosts := l.candidate(spec, p)
	out := make([]Rating, 0, len(hosts))
	for _, h := range hosts {
		out = append(out, l.rateHost(c, l.of(h, p.Incoming[h.ID]), p))
	}
	slices.SortFunc(out, func(a, b Rating) int {
		fuller := cmp.Compare(a.fullness, b.fullness)
		if p.Fill {
			fuller = -fuller
		}
		return cmp.Or(cmp.Compare(b.Stars, a.Stars), fuller,
			cmp.Compare(a.Name, b.Name), cmp.Compare(a.Host.String(), b.Host.String()))
	})
	return out
}

// candidate looks the VM up, and the hosts it might go to.
func (l *ledger) candidate(spec VMSpec, p Policy) (*candidate, []inventory.HostView) {
	c := &candidate{VMSpec: spec, trials: map[inventory.ID]*trial{}}
	if spec.ID.IsZero() {
		if !spec.Use.valid() || !amount(spec.Flow.DiskBytesPerSecond) || !amount(spec.Flow.NetworkBytesPerSecond) {
			c.bar(CodeUnknownDemand, "its demand is no number")
		}
		c.relate(l, p)
		if !spec.Cluster.IsZero() {
			return c, l.snap.HostsOf(spec.Cluster)
		}
		return c, slices.Collect(l.snap.Hosts())
	}
	vm, ok := l.snap.VM(spec.ID)
	if !ok {
		return c, nil
	}
	c.Name, c.VCPUs, c.current = vm.Name, vm.VCPUs, vm.Host
	est, ok := l.demand.of(vm.ID)
	c.Use, c.rise, c.variance = est.Now, est.rise(), est.shown()
	c.Flow, c.Tags = l.demand.Flows[vm.ID], vm.Tags
	c.HighlyAvailable = vm.Availability == inventory.HighlyAvailable
	c.relate(l, p)
	c.moves(vm.VM, p)
	switch {
	case vm.Template:
		c.bar(CodeNotRunning, "it is a template")
	case vm.Power != inventory.PowerOn:
		c.bar(CodeNotRunning, fmt.Sprintf("it is not running (power %s), and only a running VM is live-migrated", vm.Power))
	case vm.Connection != inventory.Connected:
		c.bar(CodeVMUnreachable, fmt.Sprintf("the platform does not reach it (%s)", vm.Connection))
	case !ok:
		c.bar(CodeUnknownDemand, "its demand is not known")
	}
	for _, id := range vm.Datastores {
		if ds, ok := l.snap.Datastore(id); ok {
			c.stores = append(c.stores, ds)
		}
	}
	for _, id := range vm.Networks {
		if n, ok := l.snap.Network(id); ok {
			c.nets = append(c.nets, n)
		}
	}
	here, ok := l.snap.Host(vm.Host)
	if !ok {
		return c, nil
	}
	cluster, ok := l.snap.Cluster(here.Cluster)
	if !ok {
		return c, []inventory.HostView{here}
	}
	c.runsOn(here.Host, cluster)
	for _, r := range cluster.Rules {
		if r.Enabled && slices.Contains(r.VMs, vm.ID) {
			c.rules = append(c.rules, r)
		}
	}
	for _, r := range cluster.HostRules {
		if r.Enabled && slices.Contains(r.VMs, vm.ID) {
			c.ties = append(c.ties, r)
		}
	}
	return c, l.snap.HostsOf(cluster.ID)
}

func (c *candidate) bar(code, text string) {
	name := cmp.Or(c.Name, "the VM")
	c.bars = append(c.bars, Reason{code, name + ": " + text, true})
}

// rateHost rates one host. What is known of the host comes before what follows from it.
func (l *ledger) rateHost(c *candidate, b *book, p Policy) Rating {
	r := Rating{Host: b.host.ID, Name: b.host.Name, Kind: c.kind, Reasons: slices.Clone(c.bars)}
	against := func(code, text string, bars bool) { r.Reasons = append(r.Reasons, Reason{code, text, bars}) }
	if c.current == b.host.ID {
		against(CodeSameHost, "the VM runs here already", true)
	}
	if b.host.Maintenance {
		against(CodeMaintenance, "in maintenance", true)
	}
	if b.host.Connection != inventory.Connected || b.host.Power != inventory.PowerOn {
		against(CodeDisconnected, fmt.Sprintf("%s, power %s", b.host.Connection, b.host.Power), true)
	}
	if why := p.Restricted[b.host.ID]; why != "" && c.current != b.host.ID && !l.counts(b, c.ID) {
		against(CodeRestricted, "restricted, and takes nothing new: "+why, true)
	}
	if b.unknown != "" && b.stale == "" {
		against(CodeUnknownDemand, fmt.Sprintf("the demand of %s, which is here or on its way, is not known", b.unknown), true)
	}
	l.rateRules(c, b, against)
	c.rateTies(b, against)
	c.rateStores(b, against)
	c.rateNetworks(b, against)
	c.rateKind(b, against)
	l.rateHA(c, b, against)
	c.rateTags(b, l, against)
	if b.host.Cores > 0 && c.VCPUs > b.host.Cores {
		against(CodeWide, fmt.Sprintf("%d vCPUs are more than its %d cores", c.VCPUs, b.host.Cores), false)
	}
	switch {
	case b.stale != "":
		against(CodeStale, "its load is not known: "+b.stale, true)
	case !b.sized():
		against(CodeNoCapacity, "its capacity is not known", true)
	case c.Use.valid():
		l.rateRoom(c, b, p, &r)
	}
	if wait, ok := b.host.Samples.Value(inventory.HostCPUContention); ok && wait > contended {
		against(CodeContention, fmt.Sprintf("its VMs wait for CPU %s of the time already", percent(wait)), false)
	}
	if _, barred := r.Barred(); !barred {
		l.rateReserve(c, b, p, against)
	}
	r.Stars = stars(r, p)
	return r
}

// rateRoom compares the host's load with and without the VM.
func (l *ledger) rateRoom(c *candidate, b *book, p Policy, r *Rating) {
	if p.Urgent {
		p.Ceiling = max(p.Ceiling, 1)
	}
	need := c.Use.plus(Use{CPUHertz: c.rise})
	without := b.load.plus(Use{CPUHertz: b.rise})
	with, variance := without.plus(need), b.variance+c.variance
	switch {
	case c.current == b.host.ID:
		with, variance = without, b.variance
	case l.counts(b, c.ID): // on its way here, so counted already
		without, with, variance = without.minus(need), without, b.variance
	}
	r.Before, r.After = b.ratio(without), b.ratio(with)
	room := []Reason{
		roomFor(CodeCPURoom, "CPU", r.Before.CPURatio, r.After.CPURatio, p.Ceiling, p.HostReserve.CPURatio, hertz(b.host.CPUHertz)),
		roomFor(CodeMemoryRoom, "memory", r.Before.MemoryRatio, r.After.MemoryRatio, p.Ceiling, p.HostReserve.MemoryRatio, bytes(b.host.MemoryBytes)),
	}
	if peak := (with.CPUHertz + comfort*math.Sqrt(variance)) / b.host.CPUHertz; !(peak <= 1-p.HostReserve.CPURatio) && !room[0].Bars && !p.roomless && !p.Urgent {
		room[0] = Reason{CodeCPURoom, fmt.Sprintf("%s, but demand varies: %s is to be expected at times, more than it has", room[0].Text, percent(peak)), true}
	}
	w := p.weights()
	r.fullness = max(w.CPU*r.After.CPURatio, w.Memory*r.After.MemoryRatio)
	if p.HostFlow != (Flow{}) {
		now := l.flow(b, c.ID)
		for _, f := range []struct {
			code, what               string
			before, more, of, weight float64
		}{
			{CodeDiskRoom, "disk", now.DiskBytesPerSecond, c.Flow.DiskBytesPerSecond, p.HostFlow.DiskBytesPerSecond, w.Disk},
			{CodeNetworkRoom, "network", now.NetworkBytesPerSecond, c.Flow.NetworkBytesPerSecond, p.HostFlow.NetworkBytesPerSecond, w.Network},
		} {
			if f.of > 0 {
				after := (f.before + f.more) / f.of
				room = append(room, roomFor(f.code, f.what, f.before/f.of, after, p.Ceiling, 0, fmt.Sprintf("%.0f MB/s", f.of/1e6)))
				r.fullness = max(r.fullness, f.weight*after)
			}
		}
	}
	r.Reasons = append(room, r.Reasons...)
}

// flow is what the host's other VMs move, as far as that is known.
func (l *ledger) flow(b *book, but inventory.ID) Flow {
	if l.counts(b, but) {
		return b.flow.plus(l.demand.Flows[but], -1)
	}
	return b.flow
}

func roomFor(code, what string, before, after, ceiling, reserve float64, capacity string) Reason {
	switch {
	case !(after <= ceiling): // also where either is no number
		return Reason{code, fmt.Sprintf("%s %s -> %.1f %% of %s, above the ceiling of %s", what, percent(before), 100*after, capacity, percent(ceiling)), true}
	case after > 1-reserve:
		return Reason{code, fmt.Sprintf("%s %s -> %.1f %% of %s, of which %s is kept for the host itself", what, percent(before), 100*after, capacity, percent(reserve)), true}
	}
	return Reason{code, fmt.Sprintf("%s %s -> %s of %s", what, percent(before), percent(after), capacity), false}
}

// weights are those that count, the greatest of them made 1.
func (p Policy) weights() Weights {
	w := p.Weights
	if !(p.HostFlow.DiskBytesPerSecond > 0) {
		w.Disk = 0
	}
	if !(p.HostFlow.NetworkBytesPerSecond > 0) {
		w.Network = 0
	}
	most := max(w.CPU, w.Memory, w.Disk, w.Network)
	if !(most > 0) {
		return Weights{1, 1, 1, 1}
	}
	return Weights{w.CPU / most, w.Memory / most, w.Disk / most, w.Network / most}
}

// rateRules looks at the affinity rules that the VM is in. A rule's other VMs count while they run, where they run or go to.
func (l *ledger) rateRules(c *candidate, b *book, against func(code, text string, bars bool)) {
	for _, rule := range c.rules {
		for _, other := range rule.VMs {
			if other == c.ID {
				continue
			}
			if why := l.breaks(rule, other, b); why != "" {
				code := CodeAffinity
				if rule.Kind == inventory.AntiAffinity {
					code = CodeAntiAffinity
				}
				against(code, why, rule.Mandatory)
				break
			}
		}
	}
}

// breaks is how placing a VM of the rule on the host would break it with the other VM.
func (l *ledger) breaks(rule inventory.Rule, other inventory.ID, b *book) string {
	switch rule.Kind {
	case inventory.AntiAffinity:
		if l.counts(b, other) {
			return fmt.Sprintf("rule %q keeps it apart from %s, which is here", rule.Name, l.name(other))
		}
	case inventory.Affinity:
		if vm, ok := l.snap.VM(other); ok && runs(vm.VM) && !l.counts(b, other) {
			return fmt.Sprintf("rule %q keeps it together with %s, which is elsewhere", rule.Name, vm.Name)
		}
	}
	return ""
}

// rateTies looks at the rules between hosts and groups that the VM is in.
func (c *candidate) rateTies(b *book, against func(code, text string, bars bool)) {
	for _, tie := range c.ties {
		in := slices.Contains(tie.Hosts, b.host.ID)
		switch {
		case tie.Kind == inventory.Affinity && !in:
			against(CodeHostRule, fmt.Sprintf("rule %q ties it to the hosts of %q, and this is none of them", tie.Name, tie.HostGroup), tie.Mandatory)
		case tie.Kind == inventory.AntiAffinity && in:
			against(CodeHostRule, fmt.Sprintf("rule %q keeps it off the hosts of %q, of which this is one", tie.Name, tie.HostGroup), tie.Mandatory)
		}
	}
}

// rateStores bars a host that does not reach the VM's files. Which hosts have a datastore may not be known: then the platform
// has the last word, as it has on all else.
func (c *candidate) rateStores(b *book, against func(code, text string, bars bool)) {
	for _, ds := range c.stores {
		if runs, known := ds.Runs(b.host.ID); known && !runs {
			against(CodeDatastore, fmt.Sprintf("it does not reach datastore %s, which holds files of the VM", ds.Name), true)
		}
	}
}

// rateNetworks bars a host that lacks a network of the VM. Where that is not known the platform has the last word, too.
func (c *candidate) rateNetworks(b *book, against func(code, text string, bars bool)) {
	for _, n := range c.nets {
		if on, known := n.On(b.host.Host); known && !on {
			against(CodeNetwork, fmt.Sprintf("network %s, which the VM is attached to, is not on %s", n.Name, b.host.Name), true)
		}
	}
}

func stars(r Rating, p Policy) float64 {
	value := 5 * (1 - r.fullness/p.Ceiling)
	if p.Fill {
		value = 5 * r.fullness / p.Ceiling
	}
	for _, reason := range r.Reasons {
		if reason.Bars {
			return 0
		}
		switch reason.Code {
		case CodeCPURoom, CodeMemoryRoom, CodeDiskRoom, CodeNetworkRoom:
		default:
			value -= softCost
		}
	}
	return max(0.5, min(5, math.Round(value*2)/2))
}

func percent(ratio float64) string { return fmt.Sprintf("%.0f %%", 100*ratio) }

func hertz(v float64) string { return fmt.Sprintf("%.1f GHz", v/1e9) }

func bytes(v float64) string { return fmt.Sprintf("%.0f GiB", v/(1<<30)) }
