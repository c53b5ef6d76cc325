package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/placement"
	"github.com/protip/protip/internal/web"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// proposal is what would be done about a tip.
type proposal struct {
	actions  []remediation.Action
	why      string // in words, where the moves do not reach the goal
	decision remediation.Decision
	downtime string // which VMs it takes down, and why; empty if none
}

// propose plans a tip's remedy and asks the policy. It changes nothing.
func (a *App) propose(tip rules.Tip) (proposal, error) {
	s := a.settings.Load()
	rule, ok := s.rules.Rule(tip.Pack, tip.Rule)
	if !ok {
		return proposal{}, fmt.Errorf("rule %s/%s is no longer loaded", tip.Pack, tip.Rule)
	}
	snap := a.Snapshot()
	moves, why, err := a.moves(snap, tip)
	if err != nil {
		return proposal{}, err
	}
	p := proposal{why: why, decision: a.decide(snap, tip, moves), downtime: downtimeOf(snap, moves)}
	for _, m := range moves {
		p.actions = append(p.actions, remediation.Action{
			TipID: tip.ID, Cluster: tip.Cluster, Kind: kindOf(m),
			VM: m.VM, VMName: m.Name, From: m.From, FromName: hostName(snap, m.From), To: m.To, ToName: m.Rating.Name,
			Why: m.Rating.Words(), Settle: a.settle(rule, tip.Object.Source, m.VM.Source),
		})
	}
	return p, nil
}

// downtimeOf says in words which VMs quick migrations take down, and why; empty if none.
func downtimeOf(snap *inventory.Snapshot, moves []placement.Move) string {
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
func kindOf(m placement.Move) remediation.Kind {
	if m.Kind == placement.MoveQuick {
		return remediation.QuickMigration
	}
	return remediation.LiveMigration
}

// takenDown names the VMs of a plan that do not run while they move.
func takenDown(moves []placement.Move) (names []string) {
	for _, m := range moves {
		if kindOf(m) == remediation.QuickMigration {
			names = append(names, m.Name)
		}
	}
	return names
}

// moves are what the remedy asks of placement; why is empty if they reach its goal. A VM is taken down only in a plan that reaches
// the goal where none without downtime does, or where nothing could move without it.
func (a *App) moves(snap *inventory.Snapshot, tip rules.Tip) (moves []placement.Move, why string, err error) {
	policy := a.placementPolicy(snap)
	moves, why, err = movesBy(snap, tip, policy)
	if err != nil || why == "" {
		return moves, why, err
	}
	policy.Quick = true
	withDowntime, whyNot, err := movesBy(snap, tip, policy)
	if err == nil && len(takenDown(withDowntime)) > 0 && (whyNot == "" || len(moves) == 0) {
		return withDowntime, whyNot, nil
	}
	return moves, why, err
}

func movesBy(snap *inventory.Snapshot, tip rules.Tip, policy placement.Policy) (moves []placement.Move, why string, err error) {
	demand := placement.Observed(snap)
	switch tip.Remedy.Action {
	case rules.RebalanceHost:
		host, err := hostOf(snap, tip)
		if err != nil {
			return nil, "", err
		}
		relief := placement.Relieve(snap, demand, host, goalOf(tip), policy)
		return relief.Moves, relief.Why, nil
	case rules.Migrate:
		vm, err := vmOf(snap, tip)
		if err != nil {
			return nil, "", err
		}
		ratings := placement.Rate(snap, demand, placement.VMSpec{ID: vm.ID}, policy)
		if len(ratings) == 0 {
			return nil, "no host can be rated", nil
		}
		if text, barred := ratings[0].Barred(); barred {
			return nil, "no host may take it; the best, " + ratings[0].Name + ", may not because: " + text, nil
		}
		return []placement.Move{{VM: vm.ID, Name: vm.Name, From: vm.Host, To: ratings[0].Host, Kind: ratings[0].Kind, Rating: ratings[0]}}, "", nil
	}
	return nil, "", fmt.Errorf("remedy %q moves nothing", tip.Remedy.Action)
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

func (a *App) decide(snap *inventory.Snapshot, tip rules.Tip, moves []placement.Move) remediation.Decision {
	s := a.settings.Load()
	c := remediation.Case{Source: actsOn(tip), Pack: tip.Pack, Rule: tip.Rule, PackSHA256: tip.PackSHA256, Down: takenDown(moves)}
	c.Cluster, _ = snap.Cluster(tip.Cluster)
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

// actByPolicy carries out what the policy lets go by itself: a whole plan that reaches its goal, once, and again only when
// the outcome of the one before is known.
func (a *App) actByPolicy(ctx context.Context, tips []rules.Tip) {
	if len(a.settings.Load().policy.Automatic) == 0 {
		return
	}
	for _, tip := range tips {
		if tip.State != rules.Active || tip.Remedy.Action == rules.NoRemedy {
			continue
		}
		why, err := a.actOn(ctx, tip)
		if err != nil {
			why = err.Error()
		}
		a.explain(tip, why)
	}
}

// actOn says why nothing was done, empty if something was.
func (a *App) actOn(ctx context.Context, tip rules.Tip) (string, error) {
	past, err := a.acting.engine.Actions(ctx, remediation.Filter{TipID: tip.ID, Since: tip.ActiveAt})
	if err != nil {
		return "", err
	}
	if wait := notAgain(past, a.clock.Now(), a.settings.Load().config.Remediation.DryRun); wait != "" {
		return wait, nil
	}
	p, err := a.propose(tip)
	switch {
	case err != nil:
		return "", err
	case p.decision.Verdict == remediation.Manual && p.downtime != "":
		a.offer(tip, p)
		return p.decision.Why, nil
	case p.decision.Verdict != remediation.Automatic:
		return p.decision.Why, nil
	case p.why != "":
		return p.why, nil
	case len(p.actions) == 0:
		return "nothing needs to move any more", nil
	}
	return "", a.submit(ctx, tip, p.actions, remediation.ByPolicy, p.decision.Why)
}

// notAgain says why a tip that was acted on in this episode has to wait, empty if it has not. A dry run is made once, and keeps
// nothing from being done for real once dry runs are over. What went wrong in a way that nobody understands yet is a person's.
func notAgain(past []remediation.Action, now time.Time, dry bool) string {
	for _, act := range past {
		switch {
		case !act.State.Final():
			return "its remedy runs"
		case act.DryRun && dry:
			return "the dry run of this tip is done"
		case act.DryRun:
		case act.State == remediation.Unknown:
			return fmt.Sprintf("its action %s is unknown: look where %s is, then say so with protip actions resolve", act.ID, act.VMName)
		case act.Outcome == remediation.Worse:
			return "its last remedy made it worse: a person decides"
		case act.State == remediation.Done && act.Outcome == "":
			return "the outcome of its last remedy is not known yet"
		case now.Sub(act.EndedAt) < act.Settle:
			return "its last remedy needs time to settle"
		}
	}
	return ""
}

// submit hands the plan to the engine and marks the tip.
func (a *App) submit(ctx context.Context, tip rules.Tip, actions []remediation.Action, by, why string) error {
	_, err := a.acting.engine.Submit(ctx, actions, by, why)
	if err != nil {
		return err
	}
	_, err = a.changeTip(ctx, tip.ID, rules.Tip.Begin)
	return err
}

// changeTip changes one tip by what a person or the engine did. It tells and stores only a change of state.
func (a *App) changeTip(ctx context.Context, id string, change func(rules.Tip) (rules.Tip, error)) (rules.Tip, error) {
	a.mu.Lock()
	i := slices.IndexFunc(a.tips, func(t rules.Tip) bool { return t.ID == id })
	if i < 0 {
		a.mu.Unlock()
		return rules.Tip{}, fmt.Errorf("tip %s: %w", id, web.ErrNotFound)
	}
	was := a.tips[i]
	is, err := change(was)
	if err != nil {
		a.mu.Unlock()
		return was, fmt.Errorf("%w: %w", web.ErrConflict, err)
	}
	a.tips[i] = is
	a.mu.Unlock()
	a.publish(ctx, rules.Change{Tip: is, From: was.State})
	return is, nil
}

// offer tells, once in each episode of a tip, of a plan that would go by itself if it took no VM down.
func (a *App) offer(tip rules.Tip, p proposal) {
	a.mu.Lock()
	if a.offered == nil {
		a.offered = map[string]time.Time{}
	}
	told := a.offered[tip.ID].Equal(tip.ActiveAt)
	a.offered[tip.ID] = tip.ActiveAt
	a.mu.Unlock()
	if !told {
		a.notify(Event{Offer: &Offer{Tip: tip, Downtime: p.downtime, Actions: p.actions}})
	}
}

// explain says in the log why a tip that could go by itself does not, once for each reason.
func (a *App) explain(tip rules.Tip, why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.held == nil {
		a.held = map[string]string{}
	}
	if a.held[tip.ID] == why {
		return
	}
	a.held[tip.ID] = why
	if why != "" {
		a.log.Info("tip waits", "id", tip.ID, "rule", tip.Rule, "object", tip.Object, "why", why)
	}
}

func hostName(snap *inventory.Snapshot, id inventory.ID) string {
	if h, ok := snap.Host(id); ok {
		return h.Name
	}
	return id.Ref
}

// refused gives an error its place in the API: what the engine or the policy refuses is the caller's to deal with.
func refused(err error) error {
	if errors.Is(err, remediation.ErrRefused) {
		return fmt.Errorf("%w: %w", web.ErrConflict, err)
	}
	return err
}
