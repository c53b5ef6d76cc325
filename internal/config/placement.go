package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Goals of placement.
const (
	GoalBalance = "balance" // the emptiest host first
	GoalFill    = "fill"    // the fullest host that still has room first
)

var goals = []string{GoalBalance, GoalFill}

// maxReserve bounds how many hosts may fail at once: the ways to fail grow with its power.
const maxReserve = 8

// Placement says which host suits a VM, and how many hosts a cluster must be able to lose.
type Placement struct {
	Goal         string       `yaml:"goal,omitempty"` // default balance
	Weights      Weights      `yaml:"weights,omitempty"`
	HostReserves HostReserves `yaml:"host_reserves,omitempty"`
	ApartTags    []string     `yaml:"apart_tags,omitempty"` // categories; VMs that share a tag of one are better apart
	TogetherTags []string     `yaml:"together_tags,omitempty"`
	// Restricted are hosts, as source/name, that take nothing new, and why.
	Restricted map[string]string `yaml:"restricted,omitempty"`
	Reserve    int               `yaml:"reserve,omitempty"`     // hosts that every cluster must be able to lose; default none
	ReserveAll bool              `yaml:"reserve_all,omitempty"` // all running VMs must be restarted, not only those that the platform would
	Clusters   []ClusterReserve  `yaml:"clusters,omitempty"`
}

// Weights are what each resource counts in a rating, 0..1; default 1 each.
type Weights struct {
	CPU    float64 `yaml:"cpu"`
	Memory float64 `yaml:"memory"`
}

// HostReserves are the shares of every host, 0..1, that are kept for the host itself; default none.
type HostReserves struct {
	CPU    float64 `yaml:"cpu,omitempty"`
	Memory float64 `yaml:"memory,omitempty"`
}

// ClusterReserve is the reserve of one cluster.
type ClusterReserve struct {
	Source  string `yaml:"source"`
	Cluster string `yaml:"cluster"` // name
	Reserve int    `yaml:"reserve"`
}

// ReserveOf is how many hosts the cluster must be able to lose, 0 if that is not asked.
func (p *Placement) ReserveOf(source, cluster string) int {
	for _, c := range p.Clusters {
		if c.Source == source && c.Cluster == cluster {
			return c.Reserve
		}
	}
	return p.Reserve
}

func (p *Placement) fill(c *Config) {
	setDefault(c, "placement.goal", &p.Goal, GoalBalance)
	setDefault(c, "placement.weights.cpu", &p.Weights.CPU, 1)
	setDefault(c, "placement.weights.memory", &p.Weights.Memory, 1)
}

func (v *validator) placement() {
	p := &v.cfg.Placement
	v.oneOf("placement.goal", p.Goal, goals)
	v.share("placement.weights.cpu", p.Weights.CPU, 1)
	v.share("placement.weights.memory", p.Weights.Memory, 1)
	if p.Weights.CPU == 0 && p.Weights.Memory == 0 {
		v.bad("placement.weights", "placement.weights are all 0", "give at least one resource a weight")
	}
	v.share("placement.host_reserves.cpu", p.HostReserves.CPU, 0.9)
	v.share("placement.host_reserves.memory", p.HostReserves.Memory, 0.9)
	v.reserve("placement.reserve", p.Reserve)
	first := map[string]bool{}
	for i, c := range p.Clusters {
		at := func(field string) string { return fmt.Sprintf("placement.clusters[%d].%s", i, field) }
		if v.required(at("source"), c.Source, "name one of the sources") {
			v.source(at("source"), c.Source)
		}
		v.required(at("cluster"), c.Cluster, "write the cluster's name")
		v.reserve(at("reserve"), c.Reserve)
		if name := c.Source + "/" + c.Cluster; first[name] {
			v.bad(at("cluster"), fmt.Sprintf("cluster %s is listed twice", quote(name)), "remove one")
		} else {
			first[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Restricted)) {
		at := join("placement.restricted", name)
		source, host, ok := strings.Cut(name, "/")
		switch {
		case !ok || host == "":
			v.bad(at, fmt.Sprintf("%s is no host", quote(name)), "write source/host, as vc-berlin/esx-7.example.com, and why it takes nothing new")
		case strings.TrimSpace(p.Restricted[name]) == "":
			v.bad(at, at+" has no reason", "write why the host takes nothing new: whoever wonders reads it")
		default:
			v.source(at, source)
		}
	}
}

// source refuses the name of a source that there is none of.
func (v *validator) source(at, name string) {
	var names []string
	for _, src := range v.cfg.Sources {
		names = append(names, src.Name)
	}
	if slices.Contains(names, name) || v.reported(at) {
		return
	}
	cure := "the sources are " + strings.Join(names, ", ")
	if meant := near(name, names); meant != "" {
		cure = "did you mean " + meant + "?"
	}
	v.bad(at, fmt.Sprintf("%s names the source %s, which is not there", at, quote(name)), cure)
}

func (v *validator) share(at string, value, most float64) {
	if !(value >= 0 && value <= most) && !v.reported(at) {
		v.bad(at, fmt.Sprintf("%s is %g", at, value), fmt.Sprintf("write a share from 0 to %g", most))
	}
}

func (v *validator) reserve(at string, n int) {
	if (n < 0 || n > maxReserve) && !v.reported(at) {
		v.bad(at, fmt.Sprintf("%s is %d", at, n), fmt.Sprintf("write a number of hosts from 0 to %d", maxReserve))
	}
}
