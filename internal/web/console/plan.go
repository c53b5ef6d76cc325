package console

import (
	"context"
	"net/http"
	"slices"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/placement"
	"github.com/protip/protip/internal/web"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// How much of a plan a page shows.
const (
	shownPlanned = 100
	shownTouched = 24
)

// plan is a proposal as pages show it.
type plan struct {
	web.Proposal
	Moves     int // all of them
	MoreMoves int // that are not shown
	Hosts     []hostChange
	MoreHosts int
	Held      string // why a person cannot have it done now; empty if one can
	Others    string // the page on which ?vm= shows where else one of the VMs could go; empty if there is none

	all []web.ProposedMove
}

func planOf(f *frame, p web.Proposal, remedy rules.Remedy) *plan {
	out := &plan{Proposal: p, all: slices.Concat(p.Waves...)}
	out.Moves = len(out.all)
	out.MoreMoves = max(0, out.Moves-shownPlanned)
	out.Waves = nil
	for room := shownPlanned; len(out.Waves) < len(p.Waves) && room > 0; {
		wave := p.Waves[len(out.Waves)]
		out.Waves = append(out.Waves, wave[:min(len(wave), room)])
		room -= len(wave)
	}
	switch {
	case f.Status.Remediation == web.Off:
		out.Held = "remediation is off"
	case p.Decision.Verdict == remediation.Refuse:
		out.Held = p.Decision.Why
	}
	out.Hosts = effect(f.snap, out.all, remedy)
	out.MoreHosts = max(0, len(out.Hosts)-shownTouched)
	out.Hosts = out.Hosts[:len(out.Hosts)-out.MoreHosts]
	return out
}

// hostChange is a host before and after the whole plan.
type hostChange struct {
	Name, Href, Role                               string
	CPUBefore, CPUAfter, MemoryBefore, MemoryAfter number
	Level, MemoryLevel                             float64 // what it is to come below; 0 is none
}

// effect is each host that a plan touches, before and after all of it, by what its VMs use now.
func effect(snap *inventory.Snapshot, moves []web.ProposedMove, remedy rules.Remedy) []hostChange {
	at := map[inventory.ID]int{}
	var out []hostChange
	of := func(id inventory.ID, role string) *hostChange {
		i, ok := at[id]
		if !ok {
			i = len(out)
			at[id] = i
			change := hostChange{Name: hostName(snap, id), Href: href(id), Role: role}
			if h, ok := snap.Host(id); ok {
				change.CPUBefore, change.MemoryBefore = sampled(h.Samples, inventory.HostCPUUsageRatio), sampled(h.Samples, inventory.HostMemoryUsageRatio)
			}
			change.CPUAfter, change.MemoryAfter = change.CPUBefore, change.MemoryBefore
			out = append(out, change)
		}
		return &out[i]
	}
	for _, m := range moves {
		from := of(m.From, "gives")
		from.Level, from.MemoryLevel = remedy.CPUBelow, remedy.MemoryBelow
		use, measured := placement.Use{}, false
		if vm, ok := snap.VM(m.VM); ok {
			use, measured = placement.ObservedOf(snap, vm)
		}
		from.add(snap, m.From, measured, -use.CPUHertz, -use.MemoryBytes)
		of(m.To, "takes").add(snap, m.To, measured, use.CPUHertz, use.MemoryBytes)
	}
	return out
}

// add puts a VM's use on a host, or takes it away. What is not known makes all that follows from it unknown.
func (c *hostChange) add(snap *inventory.Snapshot, host inventory.ID, measured bool, hertz, bytes float64) {
	h, ok := snap.Host(host)
	if !ok || !measured || h.CPUHertz <= 0 || h.MemoryBytes <= 0 {
		c.CPUAfter.OK, c.MemoryAfter.OK = false, false
		return
	}
	c.CPUAfter.V, c.MemoryAfter.V = max(0, c.CPUAfter.V+hertz/h.CPUHertz), max(0, c.MemoryAfter.V+bytes/h.MemoryBytes)
}

// wishes are what a person can want of a host, in the order of its page.
var wishes = []wish{
	{web.Evacuate, "Evacuate", "Move its VMs off it, as far as they can go anywhere: for maintenance, or before it fails."},
	{web.Free, "Free", "Empty it wholly and without crowding other hosts, or not at all."},
	{web.Fill, "Fill", "Give it its share of its cluster's load, as a new host should have."},
}

// wish is one of them, in words.
type wish struct {
	What       web.What
	Name, Text string
}

// hostPlanPage is what would be done to one host, and what goes on with it.
type hostPlanPage struct {
	wish
	Host      inventory.HostView
	Wishes    []wish
	Under     []remediation.Action
	Plan      *plan
	PlanError string
	Command   string
}

func (c *Console) hostPlan(r *http.Request, f *frame) (any, error) {
	q, err := asked(r, "what", "host")
	if err != nil {
		return nil, err
	}
	what, err := one(q, "what", string(web.Evacuate), string(web.Free), string(web.Fill))
	if err != nil {
		return nil, err
	}
	id, err := inventory.ParseID(q.Get("host"))
	h, ok := f.snap.Host(id)
	if err != nil || !ok {
		return nil, notFound("No source knows a host %q now.", clean(q.Get("host")))
	}
	p := hostPlanPage{Host: h, Wishes: wishes, Command: "protip " + what + " " + id.String()}
	p.wish = wishes[slices.IndexFunc(wishes, func(w wish) bool { return string(w.What) == what })]
	f.Title, f.Section = p.Name+" "+clean(h.Name), "fleet"
	f.Crumbs = []crumb{{"Fleet", "/fleet"}, {clean(h.Name), href(id)}}
	under, err := c.o.Agent.Actions(r.Context(), remediation.Filter{States: underWay})
	if err != nil {
		return nil, err
	}
	for _, a := range slices.Backward(under) { // in the order in which they go
		if (a.From == id || a.To == id) && len(p.Under) < shownPlanned {
			p.Under = append(p.Under, a)
		}
	}
	proposal, err := c.o.Agent.ProposeHost(r.Context(), web.HostRequest{What: p.What, Host: id})
	if err != nil {
		p.PlanError = err.Error()
		return p, nil
	}
	p.Plan = planOf(f, proposal, rules.Remedy{})
	return p, nil
}

// implementHost carries out the plan that the person has looked at, and no other.
func (c *Console) implementHost(ctx context.Context, by web.By, r *http.Request) error {
	what := web.What(r.PostFormValue("what"))
	if !slices.ContainsFunc(wishes, func(w wish) bool { return w.What == what }) {
		return problemOf("Say what is to be done to the host: evacuate, free or fill.")
	}
	id, err := inventory.ParseID(r.PostFormValue("host"))
	if err != nil || id.Kind != inventory.KindHost {
		return problemOf("Say which host.")
	}
	agreed := web.Agreement{Plan: r.PostFormValue("plan"), Downtime: r.PostFormValue("downtime") == "yes"}
	if agreed.Plan == "" {
		return problemOf("Look at the plan first.")
	}
	_, err = c.o.Agent.ImplementHost(ctx, by, web.HostRequest{What: what, Host: id}, agreed)
	return err
}
