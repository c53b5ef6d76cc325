package app

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/placement"
	"github.com/protip/protip/internal/web"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// Propose is what a tip's remedy would do now.
func (a agent) Propose(ctx context.Context, id string) (web.Proposal, error) {
	tip, err := a.Tip(ctx, id)
	if err != nil {
		return web.Proposal{}, err
	}
	if !tip.Remedy.Moves() {
		return web.Proposal{}, fmt.Errorf("%w: remedy %s moves nothing", web.ErrConflict, tip.Remedy.Action)
	}
	p, err := a.propose(tip)
	if err != nil {
		return web.Proposal{}, fmt.Errorf("%w: %w", web.ErrConflict, err)
	}
	if len(p.moves) == 0 && a.acting != nil {
		p.why = cmp.Or(p.why, "its goal is reached")
		if frozen := a.frozenOn(tip); frozen != "" {
			p.why += "; " + frozen
		}
	}
	out := a.show(p, actsOn(tip))
	if len(p.moves) > 0 && tip.State == rules.Active && p.decision.Verdict != remediation.Refuse {
		out.NextCommand = "protip tips implement " + id + downtimeFlag(p)
	}
	return out, nil
}

// ProposeHost is what a request would do now.
func (a agent) ProposeHost(_ context.Context, r web.HostRequest) (web.Proposal, error) {
	p, err := a.proposeHost(r)
	if err != nil {
		return web.Proposal{}, fmt.Errorf("%w: %w", web.ErrConflict, err)
	}
	out := a.show(p, r.Host.Source)
	if len(p.moves) > 0 && p.decision.Verdict != remediation.Refuse {
		out.NextCommand = fmt.Sprintf("protip %s %s --implement --plan=%s%s", r.What, r.Host, out.ID, downtimeFlag(p))
	}
	return out, nil
}

func downtimeFlag(p proposal) string {
	if p.downtime == "" {
		return ""
	}
	return " --downtime"
}

func (a *App) proposeHost(r web.HostRequest) (proposal, error) {
	snap := a.Snapshot()
	p, err := a.planned(snap, r.Host.Source, func(policy placement.Policy, pace pace) (proposal, error) {
		return a.request(snap, a.demand(snap), r, policy, pace)
	})
	if err != nil {
		return proposal{}, err
	}
	h, _ := snap.Host(r.Host)
	p.decision = a.decide(snap, rules.Tip{}, r.Host.Source, h.Cluster, p.moves)
	p.act(snap, "")
	return p, nil
}

// ImplementHost carries a request out on a person's word, if the plan is still the one that they agreed to.
func (a agent) ImplementHost(ctx context.Context, by web.By, r web.HostRequest, agreed web.Agreement) (actions []remediation.Action, err error) {
	defer func() { a.audit(ctx, by, string(r.What), r.Host.String(), r.Host, err) }()
	if a.acting == nil {
		return nil, fmt.Errorf("%w: nothing may be moved: the configuration has no remediation section", web.ErrConflict)
	}
	p, err := a.proposeHost(r)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", web.ErrConflict, err)
	case p.decision.Verdict == remediation.Refuse:
		return nil, fmt.Errorf("%w: %s", web.ErrConflict, p.decision.Why)
	case len(p.actions) == 0:
		return nil, fmt.Errorf("%w: no move would help: %s", web.ErrConflict, cmp.Or(p.why, "there is nothing to move"))
	case agreed.Plan != "" && agreed.Plan != planID(p.moves):
		return nil, fmt.Errorf("%w: the plan is another one by now: look at it with protip %s %s", web.ErrConflict, r.What, r.Host)
	case p.downtime != "" && !agreed.Downtime:
		return nil, fmt.Errorf("%w: %s. If you agree to that, say --downtime", web.ErrConflict, p.downtime)
	}
	actions, err = a.acting.engine.Submit(ctx, p.actions, by.Who, cmp.Or(by.Why, string(r.What)))
	return actions, refused(err)
}

// show is a proposal for people.
func (a *App) show(p proposal, source string) web.Proposal {
	snap := a.Snapshot()
	out := web.Proposal{
		ID: planID(p.moves), Left: p.left, Apart: p.apart, Kept: p.kept, Why: p.why, Downtime: p.downtime, Decision: p.decision,
		FollowedSince: a.followedSince(source),
	}
	for _, m := range p.moves {
		for len(out.Waves) <= m.Wave {
			out.Waves = append(out.Waves, nil)
		}
		out.Waves[m.Wave] = append(out.Waves[m.Wave], web.ProposedMove{
			Step: m.Step, FromName: hostName(snap, m.From), ToName: hostName(snap, m.To), Stars: m.Rating.Stars,
		})
	}
	if len(p.moves) > 0 && p.pace.bytesPerSecond > 0 {
		out.Seconds, out.Pace = a.takes(out.Waves), p.pace.String()
	}
	return out
}

// takes is about how many seconds the moves take, wave by wave, as many at once as may be.
func (a *App) takes(waves [][]web.ProposedMove) (seconds float64) {
	atOnce := 1
	if r := a.settings.Load().config.Remediation; r != nil {
		atOnce = max(1, min(r.Limits.PerSource, r.Limits.PerCluster))
	}
	for _, wave := range waves {
		sum, longest := 0.0, 0.0
		for _, m := range wave {
			sum += m.Cost.Seconds
			longest = max(longest, m.Cost.Seconds)
		}
		seconds += max(longest, sum/float64(atOnce))
	}
	return seconds
}

// planID is the same as long as the moves are.
func planID(moves []proposed) string {
	h := sha256.New()
	for _, m := range moves {
		fmt.Fprintf(h, "%d\x00%s\x00%s\x00%s\x00%s\n", m.Wave, m.VM, m.From, m.To, m.Kind)
	}
	return hex.EncodeToString(h.Sum(nil)[:6])
}

// frozenOn says which VMs that a tip's remedy could move may not move now, and why.
func (a agent) frozenOn(tip rules.Tip) string {
	frozen, snap := a.acting.engine.Frozen(), a.Snapshot()
	var hosts []inventory.ID
	if tip.Object.Kind == inventory.KindCluster {
		for _, h := range snap.HostsOf(tip.Object) {
			hosts = append(hosts, h.ID)
		}
	} else if host, err := hostOf(snap, tip); err == nil {
		hosts = append(hosts, host)
	}
	var parts []string
	for _, host := range hosts {
		for _, vm := range snap.VMsOn(host) {
			if why, ok := frozen[vm.ID]; ok {
				parts = append(parts, vm.Name+": "+why)
			}
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, "; ")
}
