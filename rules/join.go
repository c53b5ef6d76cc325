package rules

import (
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/inventory"
)

// join says how samples of other exporters are of an object: the value of a label, or what a pattern takes out of it, is the
// object's name, its guest's name, UUID, address or MAC.
type join struct {
	on      inventory.Kind
	label   string
	field   string
	pattern *regexp.Regexp // with one group; nil: the whole value
}

// joinFields are what an object can be known by, and of which kinds.
var joinFields = map[string][]inventory.Kind{
	"name":     {inventory.KindCluster, inventory.KindHost, inventory.KindVM, inventory.KindDatastore, inventory.KindService},
	"uuid":     {inventory.KindHost, inventory.KindVM},
	"ip":       {inventory.KindVM},
	"mac":      {inventory.KindVM},
	"hostname": {inventory.KindVM},
}

const maxJoins = 20

func (p *packParser) readJoins(n *yaml.Node) {
	p.list(n, "join", maxJoins, func(_ int, v *yaml.Node) {
		var j join
		p.mapping(v, "a join",
			key{"on", true, func(n *yaml.Node) { j.on = p.readKind(n) }},
			key{"label", true, func(n *yaml.Node) {
				j.label = p.matching(n, "label", labelName, "it is a Prometheus label, as instance")
			}},
			key{"field", true, func(n *yaml.Node) { j.field = p.oneOf(n, "field", "name", "uuid", "ip", "mac", "hostname") }},
			key{"pattern", false, func(n *yaml.Node) {
				source := p.text(n, "pattern", maxPatternBytes)
				re, err := regexp.Compile("^(?:" + source + ")$")
				if err != nil || re.NumSubexp() != 1 {
					p.failNode(n, `put what is the name into ( ), as in "(.*):9100"`, "pattern %s must be a regular expression with one group", quoted(source))
					return
				}
				j.pattern = re
			}},
		)
		if j.field != "" && j.on != 0 && !slices.Contains(joinFields[j.field], j.on) {
			p.failNode(v, "", "a %s is not known by its %s", j.on, j.field)
			return
		}
		p.pack.joins = append(p.pack.joins, j)
	})
}

var labelName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]{0,63}$`)

// joiner finds objects by the labels of other exporters.
type joiner struct {
	joins []join
	known []map[string]inventory.ID // by join: value -> object; zero: of several
}

// joiner indexes the snapshot by what the packs' joins on a kind ask for.
func (s *Set) joiner(snap *inventory.Snapshot, on inventory.Kind) *joiner {
	var out joiner
	for _, p := range s.packs {
		for _, j := range p.joins {
			if j.on == on {
				out.joins = append(out.joins, j)
				out.known = append(out.known, index(snap, j))
			}
		}
	}
	return &out
}

// object is the one object that the labels are of. A value that several objects have is of none: a guess would be a lie.
func (j *joiner) object(labels history.Labels) (inventory.ID, bool) {
	for i, how := range j.joins {
		value := labels.Get(how.label)
		if value == "" {
			continue
		}
		if how.pattern != nil {
			m := how.pattern.FindStringSubmatch(value)
			if m == nil {
				continue
			}
			value = m[1]
		}
		if id := j.known[i][strings.ToLower(value)]; !id.IsZero() {
			return id, true
		}
	}
	return inventory.ID{}, false
}

func index(snap *inventory.Snapshot, j join) map[string]inventory.ID {
	out := map[string]inventory.ID{}
	add := func(value string, id inventory.ID) {
		if value == "" {
			return
		}
		value = strings.ToLower(value)
		if was, twice := out[value]; twice && was != id {
			id = inventory.ID{}
		}
		out[value] = id
	}
	switch j.on {
	case inventory.KindCluster:
		for c := range snap.Clusters() {
			add(c.Name, c.ID)
		}
	case inventory.KindHost:
		for h := range snap.Hosts() {
			add(map[string]string{"name": h.Name, "uuid": h.UUID}[j.field], h.ID)
		}
	case inventory.KindVM:
		for vm := range snap.VMs() {
			if j.field == "mac" {
				for _, mac := range vm.MACs {
					add(mac, vm.ID)
				}
				continue
			}
			add(map[string]string{"name": vm.Name, "uuid": vm.UUID, "ip": vm.GuestIP, "hostname": vm.GuestHostname}[j.field], vm.ID)
		}
	case inventory.KindDatastore:
		for d := range snap.Datastores() {
			add(d.Name, d.ID)
		}
	case inventory.KindService:
		for svc := range snap.Services() {
			add(svc.Name, svc.ID)
		}
	}
	return out
}
