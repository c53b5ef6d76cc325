package placement

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/protip/protip/internal/inventory"
)

// Kept is what becomes of a cluster's reserve along a plan.
type Kept struct {
	Cluster inventory.ID `json:"cluster"`
	Name    string       `json:"name"`
	Reserve int          `json:"reserve"`
	Before  Answer       `json:"before"`
	Why     string       `json:"why"`
}

// kept tells of the reserves, once all moves were counted.
func (c *planner) kept() []Kept {
	var out []Kept
	for id, k := range c.reserves {
		one := Kept{Cluster: id, Name: k.Name, Reserve: k.Reserve, Before: k.Answer}
		before, after := 0, 0
		for s := range k.lost {
			if k.lost[s].vms > 0 {
				after++
			}
		}
		k.back(0)
		for s := range k.lost {
			if k.lost[s].vms > 0 {
				before++
			}
		}
		switch {
		case k.closed != "":
			one.Why = k.closed + "; nothing is moved in it"
		case before == 0:
			one.Why = fmt.Sprintf("cluster %s keeps its reserve of %s at every step", k.Name, reserveOf(k.Reserve))
		default:
			one.Why = fmt.Sprintf("cluster %s does not hold its reserve of %s as it is (%s), and no step makes it worse: %d of %d ways to fail are not survived, after it %d",
				k.Name, reserveOf(k.Reserve), k.Admission.Why, before, len(k.sets), after)
		}
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b Kept) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Cluster.String(), b.Cluster.String()))
	})
	return out
}

// Words are the plan in lines that a person reads: its moves by waves, what stays, and what becomes of reserves.
func (c Course) Words() []string {
	var out []string
	for n, wave := range c.Waves {
		for _, m := range wave {
			out = append(out, fmt.Sprintf("wave %d: %s moves (%s, %s): %s", n+1, m.Name, m.Kind, m.Cost, m.Why))
		}
	}
	for _, l := range c.Left {
		out = append(out, fmt.Sprintf("%s stays: %s", l.Name, l.Why))
	}
	for _, k := range c.Kept {
		out = append(out, k.Why)
	}
	return out
}

// String is the cost in words.
func (c Cost) String() string {
	text := "copies " + bytes(c.CopyBytes)
	if c.Seconds > 0 {
		text += fmt.Sprintf(" in %.0f s", c.Seconds)
	}
	if c.DowntimeSeconds > 0 {
		text += fmt.Sprintf(", does not run for %.0f s", c.DowntimeSeconds)
	}
	return text
}
