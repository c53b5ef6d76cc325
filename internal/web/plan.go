package web

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/placement"
	"github.com/protip/protip/remediation"
)

// Planner shows what would be done, and does to a host what a person asks.
type Planner interface {
	// Propose is what a tip's remedy would do now. What moves nothing is ErrConflict.
	Propose(ctx context.Context, tip string) (Proposal, error)
	// ProposeHost is what a request would do now.
	ProposeHost(ctx context.Context, r HostRequest) (Proposal, error)
	// ImplementHost carries a request out in the person's name and returns its actions. It does not wait for them. A plan that is no
	// longer the one that was agreed to is ErrConflict, as is one that takes a VM down without downtime.
	ImplementHost(ctx context.Context, by By, r HostRequest, a Agreement) ([]remediation.Action, error)
}

// HostRequest is what a person wants of a host.
type HostRequest struct {
	What What         `json:"what"`
	Host inventory.ID `json:"host"`
}

// What can be wanted of a host.
type What string

// Requests.
const (
	Evacuate What = "evacuate" // empty it, as far as its VMs can go anywhere
	Free     What = "free"     // empty it wholly and in comfort, or not at all
	Fill     What = "fill"     // have it take its share of the cluster's load
)

var whats = []What{Evacuate, Free, Fill}

// Agreement is what a person agrees to.
type Agreement struct {
	Plan     string // its ID; empty: whatever the plan is now
	Downtime bool   // of VMs that cannot be moved live
}

// Proposal is a plan that nobody has agreed to yet. Each wave begins when the one before has ended.
type Proposal struct {
	ID    string               `json:"id"` // the same as long as the moves are
	Waves [][]ProposedMove     `json:"waves"`
	Left  []placement.Leftover `json:"left,omitempty"`  // VMs that keep a host from being emptied
	Apart *placement.Apart     `json:"apart,omitempty"` // of a cluster's hosts
	Kept  []placement.Kept     `json:"kept,omitempty"`  // what becomes of the cluster's reserve
	Why   string               `json:"why,omitempty"`   // why the goal is not reached, or nothing moves
	// Downtime says which VMs are taken down, and why; empty if none is.
	Downtime string               `json:"downtime,omitempty"`
	Decision remediation.Decision `json:"decision"`
	// Seconds is about how long the moves take, wave by wave, at the Pace, which is in words; 0 and empty if that is not known.
	Seconds float64 `json:"seconds,omitempty"`
	Pace    string  `json:"pace,omitempty"`
	// FollowedSince is from when on the VMs' demand is known; zero if it is not.
	FollowedSince time.Time `json:"followed_since,omitzero"`
	NextCommand   string    `json:"next_command,omitempty"`
}

// ProposedMove is one move with its benefit and its cost.
type ProposedMove struct {
	placement.Step
	FromName string  `json:"from_name"`
	ToName   string  `json:"to_name"`
	Stars    float64 `json:"stars,omitempty"` // of the target, where it was chosen by its rating
}

func (s *server) tipPlan(r *http.Request) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	return shown(s.agent.Propose(r.Context(), r.PathValue("id")))
}

func (s *server) hostPlan(r *http.Request) (any, error) {
	q, err := query(r, "what", "host")
	if err != nil {
		return nil, err
	}
	request, err := s.hostRequest(q.Get("what"), q.Get("host"))
	if err != nil {
		return nil, err
	}
	return shown(s.agent.ProposeHost(r.Context(), request))
}

// shown has a list where there is nothing to list.
func shown(p Proposal, err error) (any, error) {
	p.Waves = append([][]ProposedMove{}, p.Waves...)
	return p, err
}

// wish is a request as it is sent.
type wish struct {
	reason
	What     string `json:"what"`
	Host     string `json:"host"` // name or ID
	Plan     string `json:"plan"`
	Downtime bool   `json:"downtime"`
}

func (s *server) implementHost(ctx context.Context, by By, _ *http.Request, body wish) (any, error) {
	request, err := s.hostRequest(body.What, body.Host)
	if err != nil {
		return nil, err
	}
	actions, err := s.agent.ImplementHost(ctx, by, request, Agreement{body.Plan, body.Downtime})
	if err != nil {
		return nil, err
	}
	return append([]remediation.Action{}, actions...), nil
}

func (s *server) hostRequest(what, host string) (HostRequest, error) {
	if !slices.Contains(whats, What(what)) {
		return HostRequest{}, badData("what %q: want one of %q", what, whats)
	}
	id, err := findHost(s.agent.Snapshot(), host)
	return HostRequest{What(what), id}, err
}

// findHost is the host that a person means by an ID or a name. Names repeat, so a name may be refused with the hosts that have it.
func findHost(snap *inventory.Snapshot, want string) (inventory.ID, error) {
	if want == "" {
		return inventory.ID{}, badData("which host? give host=NAME or host=SOURCE/host/REF")
	}
	if id, err := inventory.ParseID(want); err == nil {
		if _, ok := snap.Host(id); ok {
			return id, nil
		}
	}
	var found []Candidate
	for h := range snap.Hosts() {
		if h.Name == want {
			c := Candidate{ID: h.ID, Name: h.Name, Host: h.ID}
			if cluster, ok := snap.Cluster(h.Cluster); ok {
				c.Cluster = cluster.ID
			}
			found = append(found, c)
		}
	}
	switch len(found) {
	case 0:
		return inventory.ID{}, &apiError{http.StatusNotFound, "not_found", fmt.Sprintf("no host has the name or id %q", want), nil}
	case 1:
		return found[0].ID, nil
	}
	slices.SortFunc(found, func(a, b Candidate) int { return compareIDs(a.ID, b.ID) })
	return inventory.ID{}, &apiError{http.StatusConflict, "ambiguous", fmt.Sprintf("%d hosts are called %q: say which by its id", len(found), want), found}
}
