package app

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/placement"
	"github.com/protip/protip/internal/web"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// proposal is what would be done about a tip, or at a person's wish.
type proposal struct {
	moves    []proposed
	actions  []remediation.Action // of the moves, one each
	left     []placement.Leftover // VMs that keep a host from being emptied
	apart    *placement.Apart
	kept     []placement.Kept
	why      string // in words, where the moves do not reach the goal
	pace     pace
	decision remediation.Decision
	downtime string // which VMs it takes down, and why; empty if none
	settle   time.Duration
}

// proposed is one move of a proposal. Those of a wave begin when the wave before has ended.
type proposed struct {
	placement.Step
	Wave   int
	Rating placement.Rating // of the target, where it was chosen by its rating
}

// act makes the moves into actions; tip is empty where none asks for them.
func (p *proposal) act(snap *inventory.Snapshot, tip string) {
	for _, m := range p.moves {
		from, _ := snap.Host(m.From)
		var cluster inventory.ID
		if from.Host != nil {
			cluster = from.Cluster
		}
		p.actions = append(p.actions, remediation.Action{
			TipID: tip, Cluster: cluster, Kind: kindOf(m), Wave: m.Wave, For: m.For,
			VM: m.VM, VMName: m.Name, From: m.From, FromName: hostName(snap, m.From), To: m.To, ToName: hostName(snap, m.To),
			Why: m.Why, Settle: p.settle, CopyBytes: m.Cost.CopyBytes,
		})
	}
}

// propose plans a tip's remedy and asks the policy. It changes nothing.
func (a *App) propose(tip rules.Tip) (proposal, error) {
	rule, ok := a.settings.Load().rules.Rule(tip.Pack, tip.Rule)
	if !ok {
		return proposal{}, fmt.Errorf("rule %s/%s is no longer loaded", tip.Pack, tip.Rule)
	}
	snap := a.Snapshot()
	if !tip.Remedy.Moves() {
		return a.proposeCall(snap, tip), nil
	}
	p, err := a.planned(snap, actsOn(tip), func(policy placement.Policy, pace pace) (proposal, error) { return a.plan(snap, tip, policy, pace) })
	if err != nil {
		return proposal{}, err
	}
	p.decision, p.settle = a.decide(snap, tip, actsOn(tip), tip.Cluster, p.moves), a.settle(rule, tip.Object.Source, actsOn(tip))
	p.act(snap, tip.ID)
	return p, nil
}

// planned makes a plan. A VM is taken down only in one that reaches the goal where none without downtime does, or where nothing could
// move without it.
func (a *App) planned(
	snap *inventory.Snapshot, source string, plan func(placement.Policy, pace) (proposal, error),
) (proposal, error) {
	policy := a.placementPolicy(snap)
	pace, err := a.paceOf(source)
	if err != nil {
		return proposal{}, err
	}
	p, err := plan(policy, pace)
	if err == nil && p.why != "" {
		policy.Quick = true
		down, errDown := plan(policy, pace)
		if errDown == nil && len(takenDown(down.moves)) > 0 && (down.why == "" || len(p.moves) == 0) {
			p = down
		}
	}
	p.pace, p.downtime = pace, downtimeOf(snap, p.moves)
	return p, err
}

// plan is what the remedy asks of placement; why is empty if the moves reach its goal.
func (a *App) plan(snap *inventory.Snapshot, tip rules.Tip, policy placement.Policy, pace pace) (proposal, error) {
	demand := a.demand(snap)
	switch tip.Remedy.Action {
	case rules.RebalanceHost:
		host, err := hostOf(snap, tip)
		if err != nil {
			return proposal{}, err
		}
		relief := placement.Relieve(snap, demand, host, goalOf(tip), policy)
		p := proposal{why: relief.Why}
		for _, m := range relief.Moves {
			p.moves = append(p.moves, rated(m, demand, pace))
		}
		return p, nil
	case rules.Migrate:
		vm, err := vmOf(snap, tip)
		if err != nil {
			return proposal{}, err
		}
		return migration(snap, demand, vm, policy, pace), nil
	case rules.RebalanceCluster:
		return a.rebalance(snap, demand, tip, policy, pace)
	case rules.Evacuate:
		return a.request(snap, demand, web.HostRequest{What: web.Evacuate, Host: tip.Object}, policy, pace)
	}
	return proposal{}, fmt.Errorf("remedy %q moves nothing", tip.Remedy.Action)
}

func migration(snap *inventory.Snapshot, demand placement.Demand, vm inventory.VMView, policy placement.Policy, pace pace) proposal {
	ratings := placement.Rate(snap, demand, placement.VMSpec{ID: vm.ID}, policy)
	if len(ratings) == 0 {
		return proposal{why: "no host can be rated"}
	}
	best := ratings[0]
	if text, barred := best.Barred(); barred {
		return proposal{why: "no host may take it; the best, " + best.Name + ", may not because: " + text}
	}
	return proposal{moves: []proposed{rated(placement.Move{VM: vm.ID, Name: vm.Name, From: vm.Host, To: best.Host, Kind: best.Kind, Rating: best}, demand, pace)}}
}

// rated is a move whose target was chosen by its rating.
func rated(m placement.Move, d placement.Demand, pace pace) proposed {
	return proposed{Rating: m.Rating, Step: placement.Step{
		VM: m.VM, Name: m.Name, From: m.From, To: m.To, Kind: m.Kind, For: placement.ForRelief, Why: m.Rating.Words(),
		Cost: placement.CostOf(m.Kind, d.VMs[m.VM].MemoryBytes, pace.bytesPerSecond, 0),
	}}
}

// rebalance brings a cluster's hosts closer together, or, to fill, uses as few as serve.
func (a *App) rebalance(
	snap *inventory.Snapshot, demand placement.Demand, tip rules.Tip, policy placement.Policy, pace pace,
) (proposal, error) {
	want, err := a.course(placement.Rebalance{Cluster: tip.Object, Apart: tip.Remedy.ApartBelow, CopyRate: pace.bytesPerSecond})
	if err != nil {
		return proposal{}, err
	}
	c := placement.Plan(snap, demand, want, policy)
	p := proposalOf(c)
	switch far := c.Apart != nil && !(c.Apart.After <= want.Apart); {
	case policy.Fill && len(p.moves) == 0:
		p.why = "every host that runs VMs is needed, and none is crowded"
	case !policy.Fill && far:
		p.why = fmt.Sprintf("its hosts would still be %.0f %% of their CPU apart, asked for %.0f %%: no other move is worth it", 100*c.Apart.After, 100*want.Apart)
	}
	return p, nil
}

// course adds to what a plan is asked for what is the same for all: limits, the clock, and what moved of late.
func (a *App) course(want placement.Rebalance) (placement.Rebalance, error) {
	now := a.clock.Now()
	want.Now, want.AsRated = seconds(now), true
	want.Past = placement.Past{Left: map[inventory.ID][]placement.Departure{}}
	r := a.settings.Load().config.Remediation
	if a.acting == nil || r == nil {
		return want, nil
	}
	want.In, want.Out = r.Limits.PerHost, r.Limits.PerHost
	past, err := a.acting.engine.Actions(context.Background(), remediation.Filter{Since: now.Add(-lookBack)})
	if err != nil {
		return want, fmt.Errorf("read what was moved of late: %w", err)
	}
	for _, act := range past {
		if !act.Sent() || act.State != remediation.Done {
			continue
		}
		want.Past.Left[act.VM] = append(want.Past.Left[act.VM], placement.Departure{Host: act.From, At: seconds(act.EndedAt)})
		if act.For == placement.ForFreeing && (act.Cluster == want.Cluster || want.Cluster.IsZero()) {
			want.Past.Freed = max(want.Past.Freed, seconds(act.StartingAt))
		}
	}
	return want, nil
}

// lookBack is how far the journal is read for what a plan must know of those before it: it remembers an hour of ended moves, and a plan
// may have been made long before its last move ended.
const lookBack = 6 * time.Hour

func proposalOf(c placement.Course) proposal {
	p := proposal{left: c.Left, apart: c.Apart, kept: c.Kept}
	for n, wave := range c.Waves {
		for _, step := range wave {
			p.moves = append(p.moves, proposed{Step: step, Wave: n})
		}
	}
	return p
}

// request plans what is wanted of one host.
func (a *App) request(
	snap *inventory.Snapshot, demand placement.Demand, r web.HostRequest, policy placement.Policy, pace pace,
) (proposal, error) {
	h, ok := snap.Host(r.Host)
	if !ok {
		return proposal{}, fmt.Errorf("host %s is gone", r.Host)
	}
	want := placement.Rebalance{Only: true, Cluster: h.Cluster, CopyRate: pace.bytesPerSecond}
	switch hosts := []inventory.ID{r.Host}; r.What {
	case web.Evacuate:
		want.Evacuate = hosts
		policy.Urgent = true
	case web.Free:
		want.Free = hosts
	case web.Fill:
		want.Occupy = hosts
	}
	if h.Cluster.IsZero() {
		return proposal{why: h.Name + " is in no cluster: there is nowhere to move a VM to"}, nil
	}
	want, err := a.course(want)
	if err != nil {
		return proposal{}, err
	}
	p := proposalOf(placement.Plan(snap, demand, want, policy))
	switch {
	case len(p.left) > 0:
		p.why = fmt.Sprintf("%d of its VMs stay: %s, %s", len(p.left), p.left[0].Name, p.left[0].Why)
	case len(p.moves) == 0 && r.What == web.Fill:
		p.why = "it carries its share already, or no VM would bring it closer to it"
	case len(p.moves) == 0 && running(snap, r.Host) > 0:
		p.why = "none of its VMs can be moved now"
	}
	return p, nil
}

// running is how many VMs run on a host.
func running(snap *inventory.Snapshot, host inventory.ID) (n int) {
	for _, vm := range snap.VMsOn(host) {
		if vm.Power == inventory.PowerOn && !vm.Template {
			n++
		}
	}
	return n
}

// downtimeOf says in words which VMs quick migrations take down, and why; empty if none.
func downtimeOf(snap *inventory.Snapshot, moves []proposed) string {
	var which []string
	for _, m := range moves {
		if vm, ok := snap.VM(m.VM); ok && kindOf(m) == remediation.QuickMigration {
			which = append(which, fmt.Sprintf("%s (%.1f GiB of memory; %s)", m.Name, vm.MemoryBytes/(1<<30), vm.NotLive))
		}
	}
	if len(which) == 0 {
		return ""
	}
	return strings.Join(which, ", ") + " cannot be moved live. A quick migration takes a VM down for as long as its memory takes to be saved and read again"
}

// kindOf is what an action of a planned move is.
func kindOf(m proposed) remediation.Kind {
	if m.Kind == placement.MoveQuick {
		return remediation.QuickMigration
	}
	return remediation.LiveMigration
}

// takenDown names the VMs of a plan that do not run while they move.
func takenDown(moves []proposed) (names []string) {
	for _, m := range moves {
		if kindOf(m) == remediation.QuickMigration {
			names = append(names, m.Name)
		}
	}
	return names
}

// vmOf is the VM that a tip is about: the object itself, or whose guest a service runs in now.
func vmOf(snap *inventory.Snapshot, tip rules.Tip) (inventory.VMView, error) {
	id := tip.Object
	if id.Kind == inventory.KindService {
		svc, ok := snap.Service(id)
		switch {
		case !ok:
			return inventory.VMView{}, fmt.Errorf("service %s is gone", tip.Name)
		case svc.VM.IsZero():
			return inventory.VMView{}, fmt.Errorf("it is not known whose guest service %s runs in", tip.Name)
		case tip.Place == nil || tip.Place.VM != svc.VM:
			return inventory.VMView{}, fmt.Errorf("service %s runs in another VM than the tip says", tip.Name)
		}
		id = svc.VM
	}
	vm, ok := snap.VM(id)
	if !ok {
		return vm, fmt.Errorf("VM %s is gone", id)
	}
	return vm, nil
}

// hostOf is the host that a tip is about: the object itself, or where its VM runs now.
func hostOf(snap *inventory.Snapshot, tip rules.Tip) (inventory.ID, error) {
	if tip.Object.Kind == inventory.KindHost {
		return tip.Object, nil
	}
	vm, err := vmOf(snap, tip)
	if err != nil {
		return inventory.ID{}, err
	}
	return vm.Host, nil
}

// actsOn is the source that a tip's moves would be made in: a service's own source has nothing that moves.
func actsOn(tip rules.Tip) string {
	if tip.Place != nil {
		return tip.Place.VM.Source
	}
	return tip.Object.Source
}

func goalOf(tip rules.Tip) placement.Goal {
	return placement.Goal{CPURatio: tip.Remedy.CPUBelow, MemoryRatio: tip.Remedy.MemoryBelow}
}

// decide asks the policy about moves for a tip, or, with the zero tip, for a person alone.
func (a *App) decide(snap *inventory.Snapshot, tip rules.Tip, source string, cluster inventory.ID, moves []proposed) remediation.Decision {
	s := a.settings.Load()
	c := remediation.Case{
		Source: source, Pack: tip.Pack, Rule: tip.Rule, PackSHA256: tip.PackSHA256, Severity: string(tip.Severity), Down: takenDown(moves),
		Webhook: tip.Remedy.Action == rules.Webhook,
	}
	c.Cluster, _ = snap.Cluster(cluster)
	for _, src := range s.config.Sources {
		if src.Name == c.Source {
			c.Acting = src.Acting != nil
		}
	}
	for _, m := range moves {
		c.VMs = append(c.VMs, m.VM)
	}
	d := remediation.Decide(s.policy, c)
	if d.Verdict == remediation.Automatic && !onlyOne(snap, c.Cluster) {
		return remediation.Decision{Verdict: remediation.Manual, Why: fmt.Sprintf(
			"source %s has several clusters named %s, and remediation.automatic names one: a person decides", c.Source, c.Cluster.Name)}
	}
	return d
}

// onlyOne reports whether no other cluster of the source has the cluster's name.
func onlyOne(snap *inventory.Snapshot, c *inventory.Cluster) bool {
	n := 0
	for _, other := range snap.ClusterTable(c.ID.Source).Facts {
		if other != nil && other.Name == c.Name {
			n++
		}
	}
	return n == 1
}

// settle is how long after a move the rule still measures the past: its longest range and for, and two cycles of the slowest of
// the sources that it reads.
func (a *App) settle(rule *rules.Rule, sources ...string) time.Duration {
	cycle := a.settings.Load().config.EvaluationInterval
	for _, name := range sources {
		if src, ok := a.fleet.Snapshot().Source(name); ok {
			cycle = max(cycle, src.Interval)
		}
	}
	return rule.SettleRange() + 2*cycle
}

func hostName(snap *inventory.Snapshot, id inventory.ID) string {
	if h, ok := snap.Host(id); ok {
		return h.Name
	}
	return id.Ref
}
