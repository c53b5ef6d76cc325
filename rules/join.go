package rules

import (
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/inventory"
)

// Join says how series and alerts of other exporters are of an object: the value of a label, or what a pattern takes out of it,
// is the object's name, its guest's name, UUID, address or MAC.
type Join struct {
	On      inventory.Kind
	Label   string
	Field   string         // name, uuid, ip, mac or hostname
	Pattern *regexp.Regexp // with one group; nil: the whole value
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
		var j Join
		p.mapping(v, "a join",
			key{"on", true, func(n *yaml.Node) { j.On = p.readKind(n) }},
			key{"label", true, func(n *yaml.Node) {
				j.Label = p.matching(n, "label", labelName, "it is a Prometheus label, as instance")
			}},
			key{"field", true, func(n *yaml.Node) { j.Field = p.oneOf(n, "field", "name", "uuid", "ip", "mac", "hostname") }},
			key{"pattern", false, func(n *yaml.Node) {
				source := p.text(n, "pattern", maxPatternBytes)
				re, err := regexp.Compile("^(?:" + source + ")$")
				if err != nil || re.NumSubexp() != 1 {
					p.failNode(n, `put what is the name into ( ), as in "(.*):9100"`, "pattern %s must be a regular expression with one group", quoted(source))
					return
				}
				j.Pattern = re
			}},
		)
		if j.Field != "" && j.On != 0 && !slices.Contains(joinFields[j.Field], j.On) {
			p.failNode(v, "", "a %s is not known by its %s", j.On, j.Field)
			return
		}
		p.pack.joins = append(p.pack.joins, j)
	})
}

var labelName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]{0,63}$`)

// joiner finds objects by the labels of other exporters.
type joiner struct {
	joins []Join
	known []map[string]inventory.ID // by join: value -> object; zero: of several
}

// joiner indexes the snapshot by what the packs' joins on a kind ask for.
func (s *Set) joiner(snap *inventory.Snapshot, on inventory.Kind) *joiner {
	var out joiner
	for _, p := range s.packs {
		for _, j := range p.joins {
			if j.On == on {
				out.add(snap, j)
			}
		}
	}
	return &out
}

// Locate tells objects by the labels of alerts: by source and id where protip's own series carry them, the object that is
// furthest down first, and else by the joins of the configuration and of the packs.
func (s *Set) Locate(snap *inventory.Snapshot, joins []Join) func(labels map[string]string) (inventory.ID, bool) {
	kinds := []inventory.Kind{inventory.KindService, inventory.KindVM, inventory.KindDatastore, inventory.KindHost, inventory.KindCluster}
	by := map[inventory.Kind]*joiner{}
	for _, kind := range kinds {
		by[kind] = &joiner{}
		for _, j := range joins {
			if j.On == kind {
				by[kind].add(snap, j)
			}
		}
		for _, p := range s.packs {
			for _, j := range p.joins {
				if j.On == kind {
					by[kind].add(snap, j)
				}
			}
		}
	}
	return func(set map[string]string) (inventory.ID, bool) {
		for _, kind := range kinds {
			id := inventory.ID{Source: set["source"], Kind: kind, Ref: set[idLabels[kind]]}
			if id.Source != "" && id.Ref != "" && there(snap, id) {
				return id, true
			}
		}
		labels := make(history.Labels, 0, len(set))
		for name, value := range set {
			labels = append(labels, history.Label{Name: name, Value: value})
		}
		for _, kind := range kinds {
			if id, ok := by[kind].object(labels); ok {
				return id, true
			}
		}
		return inventory.ID{}, false
	}
}

// there reports whether the snapshot has an object.
func there(snap *inventory.Snapshot, id inventory.ID) (ok bool) {
	switch id.Kind {
	case inventory.KindService:
		_, ok = snap.Service(id)
	case inventory.KindVM:
		_, ok = snap.VM(id)
	case inventory.KindDatastore:
		_, ok = snap.Datastore(id)
	case inventory.KindHost:
		_, ok = snap.Host(id)
	case inventory.KindCluster:
		_, ok = snap.Cluster(id)
	}
	return ok
}

func (j *joiner) add(snap *inventory.Snapshot, how Join) {
	j.joins = append(j.joins, how)
	j.known = append(j.known, index(snap, how))
}

// object is the one object that the labels are of. A value that several objects have is of none: a guess would be a lie.
func (j *joiner) object(labels history.Labels) (inventory.ID, bool) {
	for i, how := range j.joins {
		value := labels.Get(how.Label)
		if value == "" {
			continue
		}
		if how.Pattern != nil {
			m := how.Pattern.FindStringSubmatch(value)
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

func index(snap *inventory.Snapshot, j Join) map[string]inventory.ID {
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
	switch j.On {
	case inventory.KindCluster:
		for c := range snap.Clusters() {
			add(c.Name, c.ID)
		}
	case inventory.KindHost:
		for h := range snap.Hosts() {
			add(map[string]string{"name": h.Name, "uuid": h.UUID}[j.Field], h.ID)
		}
	case inventory.KindVM:
		for vm := range snap.VMs() {
			if j.Field == "mac" {
				for _, mac := range vm.MACs {
					add(mac, vm.ID)
				}
				continue
			}
			add(map[string]string{"name": vm.Name, "uuid": vm.UUID, "ip": vm.GuestIP, "hostname": vm.GuestHostname}[j.Field], vm.ID)
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
