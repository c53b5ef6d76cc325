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
	Goal    string  `yaml:"goal,omitempty"` // default balance
	Weights Weights `yaml:"weights,omitempty"`
	// What any one host can move, in bytes per second: from and to its disks, and received and sent together. 0 is not known, and then what
	// VMs move does not count.
	HostDisk     float64      `yaml:"host_disk_bytes_per_second,omitempty"`
	HostNetwork  float64      `yaml:"host_network_bytes_per_second,omitempty"`
	CopyRate     float64      `yaml:"copy_bytes_per_second,omitempty"` // of a migration, until one was seen; 0 is not known
	HostReserves HostReserves `yaml:"host_reserves,omitempty"`
	ApartTags    []string     `yaml:"apart_tags,omitempty"` // categories; VMs that share a tag of one are better apart
	TogetherTags []string     `yaml:"together_tags,omitempty"`
	// Restricted are hosts, as source/name, that take nothing new, and why.
	Restricted map[string]string `yaml:"restricted,omitempty"`
	Reserve    int               `yaml:"reserve,omitempty"`     // hosts that every cluster must be able to lose; default none
	ReserveAll bool              `yaml:"reserve_all,omitempty"` // all running VMs must be restarted, not only those that the platform would
	Clusters   []ClusterReserve  `yaml:"clusters,omitempty"`
}

// Weights are what each resource counts in a rating, 0..1; default 1 each. Disk and network count where it is known what a host can move.
type Weights struct {
	CPU     float64 `yaml:"cpu"`
	Memory  float64 `yaml:"memory"`
	Disk    float64 `yaml:"disk"`
	Network float64 `yaml:"network"`
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
	setDefault(c, "placement.weights.disk", &p.Weights.Disk, 1)
	setDefault(c, "placement.weights.network", &p.Weights.Network, 1)
}

func (v *validator) placement() {
	p := &v.cfg.Placement
	v.oneOf("placement.goal", p.Goal, goals)
	v.share("placement.weights.cpu", p.Weights.CPU, 1)
	v.share("placement.weights.memory", p.Weights.Memory, 1)
	v.share("placement.weights.disk", p.Weights.Disk, 1)
	v.share("placement.weights.network", p.Weights.Network, 1)
	if p.Weights.CPU == 0 && p.Weights.Memory == 0 && (p.Weights.Disk == 0 || p.HostDisk == 0) && (p.Weights.Network == 0 || p.HostNetwork == 0) {
		v.bad("placement.weights", "placement.weights are 0 for all that is known of a host", "give CPU, memory, or what a host's capacity is configured of, a weight")
	}
	v.rate("placement.host_disk_bytes_per_second", p.HostDisk)
	v.rate("placement.host_network_bytes_per_second", p.HostNetwork)
	v.rate("placement.copy_bytes_per_second", p.CopyRate)
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

// rate refuses what nothing can move in a second. A figure so small is of another unit.
func (v *validator) rate(at string, bytes float64) {
	if bytes != 0 && !(bytes >= 1e5 && bytes <= 1e13) && !v.reported(at) {
		v.bad(at, fmt.Sprintf("%s is %g", at, bytes), "write bytes per second, as 1.25e9 for 10 Gbit/s")
	}
}

func (v *validator) reserve(at string, n int) {
	if (n < 0 || n > maxReserve) && !v.reported(at) {
		v.bad(at, fmt.Sprintf("%s is %d", at, n), fmt.Sprintf("write a number of hosts from 0 to %d", maxReserve))
	}
}
