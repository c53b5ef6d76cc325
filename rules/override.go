package rules

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/protip/protip/internal/inventory"
)

// Override is config of a pack for some objects only: those that all of its selectors match. A VM inherits what its host,
// cluster and source are given; of several that match, the last counts.
type Override struct {
	Pack    string
	Source  string // name; empty: any
	Cluster string // name; empty: any, and objects in none
	Host    string // name; empty: any
	Tag     string // category/name, of a VM; empty: any
	Config  map[string]any
	At      string // where it was written, for messages
}

// matches reports whether the override is for an object.
func (o *Override) matches(s *subject) bool {
	if o.Source != "" && o.Source != s.id.Source {
		return false
	}
	if o.Cluster != "" && (s.cluster == nil || s.cluster.Name != o.Cluster) {
		return false
	}
	if o.Host != "" && (s.host == nil || s.host.Name != o.Host) {
		return false
	}
	if o.Tag == "" {
		return true
	}
	category, name, _ := strings.Cut(o.Tag, "/")
	return s.vm != nil && slices.Contains(s.vm.Tags, inventory.Tag{Category: category, Name: name})
}

// readOverrides takes the agent's overrides of the pack. The keys that they set become fields: they differ from object to object.
func (p *packParser) readOverrides() {
	for _, o := range p.options.Overrides {
		if o.Pack != p.pack.Name {
			continue
		}
		own := Override{Source: o.Source, Cluster: o.Cluster, Host: o.Host, Tag: o.Tag, Config: map[string]any{}}
		for _, name := range slices.Sorted(maps.Keys(o.Config)) {
			value, ok := p.overriding(o.At, name, o.Config[name])
			if !ok {
				continue
			}
			own.Config[name] = value
			if p.pack.varying[name] == nil {
				p.pack.varying[name] = &field{name: name, path: "config." + name, typ: typeOf(value), config: true}
			}
		}
		p.pack.overrides = append(p.pack.overrides, own)
	}
}

// overriding is a value of the agent's own for a key of the pack's config, which may stand behind where it was written.
func (p *packParser) overriding(who, key string, own any) (any, bool) {
	name := key[strings.LastIndex(key, ".")+1:]
	was, ok := p.pack.Config[name]
	if !ok {
		p.fail(0, 0, didYouMean(name, slices.Sorted(maps.Keys(p.pack.Config))), "%s sets %s, which the pack does not have", who, key)
		return nil, false
	}
	value, ok := asScalar(own)
	if !ok || reflect.TypeOf(value) != reflect.TypeOf(was) {
		p.fail(0, 0, "", "%s sets %s to %v, which must be %s", who, key, shorten(fmt.Sprint(own), 40), typeName(reflect.TypeOf(was).Kind()))
		return nil, false
	}
	return value, true
}

func typeOf(value any) fieldType {
	switch value.(type) {
	case string:
		return text
	case bool:
		return truth
	}
	return number
}

// setting is the value of a key of the config for one object.
func (p *Pack) setting(name string, s *subject) any {
	for i := len(p.overrides) - 1; i >= 0; i-- {
		if o := &p.overrides[i]; o.matches(s) {
			if v, ok := o.Config[name]; ok {
				return v
			}
		}
	}
	return p.Config[name]
}

// spell puts one object's settings into an expression's words.
func (p *Pack) spell(words string, s *subject) string {
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(p.varying))) { // hot_memory before hot
		words = strings.ReplaceAll(words, "config."+name, fmt.Sprint(p.setting(name, s)))
	}
	return words
}
