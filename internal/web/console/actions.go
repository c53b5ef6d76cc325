package console

import (
	"net/http"
	"slices"
	"strconv"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// shownActions is how many past actions a page has.
const shownActions = 50

// actionsPage is what moves, and what was moved.
type actionsPage struct {
	Under   []remediation.Action
	Unknown []remediation.Action // that wait for a person's word
	Past    []actionRow
	Tabs    []tab
	Outcome string
	Record  record
	More    string // link to what is older
	Off     bool
}

// actionRow is a past action and the tip it was for.
type actionRow struct {
	remediation.Action
	Tip *rules.Tip
}

// outcomes are what past actions can be filtered by.
var outcomes = []string{"all", "recovered", "no_effect", "worse", "failed", "withdrawn"}

func (c *Console) actions(r *http.Request, f *frame) (any, error) {
	f.Title, f.Section = "Actions", "actions"
	q, err := asked(r, "outcome", "limit")
	if err != nil {
		return nil, err
	}
	p := actionsPage{Off: f.Status.Remediation == "off"}
	if p.Outcome, err = one(q, "outcome", outcomes...); err != nil {
		return nil, err
	}
	limit, err := atMost(q.Get("limit"), shownActions, 200)
	if err != nil {
		return nil, err
	}
	all, err := c.o.Agent.Actions(r.Context(), remediation.Filter{Limit: 1000})
	if err != nil {
		return nil, err
	}
	tips := map[string]*rules.Tip{}
	for i := range f.list {
		tips[f.list[i].ID] = &f.list[i]
	}
	counts := map[string]int{}
	plans := map[string]bool{}
	for _, a := range all {
		switch {
		case a.State == remediation.Unknown:
			p.Unknown = append(p.Unknown, a)
			continue
		case !a.State.Final():
			p.Under = append(p.Under, a)
			continue
		}
		if !a.DryRun && (a.PlanID == "" || !plans[a.PlanID]) && (a.Outcome != "" || a.Fault) {
			plans[a.PlanID] = true
			p.Record.count(a)
		}
		kind := outcomeOf(a)
		counts["all"]++
		counts[kind]++
		if p.Outcome == "all" || p.Outcome == kind {
			p.Past = append(p.Past, actionRow{a, tips[a.TipID]})
		}
	}
	slices.Reverse(p.Under) // in the order in which they go
	for _, o := range outcomes {
		if counts[o] > 0 || o == "all" || o == p.Outcome {
			p.Tabs = append(p.Tabs, tab{words(o), with("/actions", q, "outcome", o, "limit", ""), counts[o], o == p.Outcome})
		}
	}
	if len(p.Past) > limit {
		p.Past = p.Past[:limit]
		if limit < 200 {
			p.More = with("/actions", q, "limit", strconv.Itoa(min(2*limit, 200)))
		}
	}
	return p, nil
}

// outcomeOf sorts a past action under one word.
func outcomeOf(a remediation.Action) string {
	switch {
	case a.Outcome != "":
		return string(a.Outcome)
	case a.State == remediation.Failed || a.State == remediation.RolledBack:
		return "failed"
	case a.State == remediation.Withdrawn:
		return "withdrawn"
	}
	return ""
}

// atMost reads how much is to be shown.
func atMost(s string, usual, most int) (int, error) {
	if s == "" {
		return usual, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > most {
		return 0, problem{http.StatusBadRequest, "limit is a number from 1 to " + strconv.Itoa(most) + "."}
	}
	return n, nil
}

// stages are the way of a migration, as a person follows it.
var stages = []struct {
	name   string
	states []remediation.State
}{
	{"planned", []remediation.State{remediation.Planned}},
	{"approved", []remediation.State{remediation.Approved}},
	{"starting", []remediation.State{remediation.Claimed, remediation.Starting}},
	{"moving", []remediation.State{remediation.Started}},
	{"verifying", []remediation.State{remediation.Verifying}},
	{"done", []remediation.State{remediation.Done}},
}

// step is one step of the way, and whether it lies behind.
type step struct {
	Name       string
	Past, Here bool
}

// stagesOf is how far an action has come.
func stagesOf(a remediation.Action) []step {
	here := slices.IndexFunc(stages, func(s struct {
		name   string
		states []remediation.State
	},
	) bool {
		return slices.Contains(s.states, a.State)
	})
	out := make([]step, 0, len(stages))
	for i, s := range stages {
		out = append(out, step{s.name, i < here, i == here})
	}
	return out
}

// sourcesPage is how each source is.
type sourcesPage struct {
	Sources   []sourceRow
	AllPaused bool
}

type sourceRow struct {
	inventory.Source
	Clusters, Hosts, VMs, Datastores, Services int
	Paused                                     bool
	Late                                       bool // it answers, but its last success is older than two intervals
}

func (c *Console) sources(r *http.Request, f *frame) (any, error) {
	f.Title, f.Section = "Sources", "sources"
	if _, err := asked(r); err != nil {
		return nil, err
	}
	p := sourcesPage{AllPaused: f.Status.Paused}
	for _, src := range f.snap.Sources() {
		row := sourceRow{Source: src, Paused: slices.Contains(f.Status.PausedSources, src.Name)}
		row.Clusters, row.Hosts = filled(f.snap.ClusterTable(src.Name).Facts), filled(f.snap.HostTable(src.Name).Facts)
		row.VMs, row.Datastores = filled(f.snap.VMTable(src.Name).Facts), filled(f.snap.DatastoreTable(src.Name).Facts)
		row.Services = filled(f.snap.ServiceTable(src.Name).Facts)
		row.Late = src.Up && src.Interval > 0 && !src.LastSuccess.IsZero() && f.Now.Sub(src.LastSuccess) > 2*src.Interval
		p.Sources = append(p.Sources, row)
	}
	return p, nil
}
