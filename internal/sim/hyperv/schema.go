package hyperv

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

//go:embed schema.json
var schemaJSON []byte

// schema is what one version of Windows knows: nothing is answered, or taken, that is not in it.
type schema struct {
	namespaces map[string]map[string]*class // both in lower case
}

// class is a WMI class with everything it inherits.
type class struct {
	namespace, name string
	keys            []string
	order           []string          // of the properties
	props           map[string]string // name -> type: string, bool, uint8..., []uint8..., ref:Class
	spelling        map[string]string // lower case -> as the schema has it
	methods         map[string]method
}

// method is a method's parameters with their types. Those that return a number return it as ReturnValue.
type method struct {
	In  map[string]string `json:"in"`
	Out map[string]string `json:"out"`
}

type classFile struct {
	Keys    []string          `json:"keys"`
	Props   map[string]string `json:"props"`
	Methods map[string]method `json:"methods"`
}

type schemaFile struct {
	Server2019 map[string]map[string]classFile `json:"server2019"`
	Server2003 map[string]map[string]classFile `json:"server2003"`
	Differs    map[string]map[string]struct {
		Add    map[string]string `json:"add"`
		Remove []string          `json:"remove"`
	} `json:"server23h2 differs"`
}

func schemaOf(os OS) (*schema, error) {
	var file schemaFile
	if err := json.Unmarshal(schemaJSON, &file); err != nil {
		return nil, fmt.Errorf("schema: %w", err)
	}
	tables := file.Server2019
	switch os {
	case Server2019:
	case server2003:
		tables = file.Server2003
	case Server23H2:
		for ns, classes := range file.Differs {
			for name, change := range classes {
				props := tables[ns][name].Props
				maps.Copy(props, change.Add)
				for _, gone := range change.Remove {
					delete(props, gone)
				}
			}
		}
	default:
		return nil, fmt.Errorf("schema: Windows %q is unknown, want %s or %s", os, Server2019, Server23H2)
	}
	s := &schema{namespaces: map[string]map[string]*class{}}
	for ns, classes := range tables {
		s.namespaces[ns] = map[string]*class{}
		for name, f := range classes {
			cl := &class{namespace: ns, name: name, keys: f.Keys, props: f.Props, order: slices.Sorted(maps.Keys(f.Props)), methods: f.Methods, spelling: map[string]string{}}
			for p := range f.Props {
				cl.spelling[strings.ToLower(p)] = p
			}
			s.namespaces[ns][strings.ToLower(name)] = cl
		}
	}
	return s, nil
}

// class is the class of a namespace, found whatever the case and the slashes.
func (s *schema) class(namespace, name string) *class {
	return s.namespaces[tidyNamespace(namespace)][strings.ToLower(name)]
}

func (s *schema) hasNamespace(namespace string) bool {
	return s.namespaces[tidyNamespace(namespace)] != nil
}

func tidyNamespace(namespace string) string {
	return strings.Trim(strings.ToLower(strings.ReplaceAll(namespace, `\`, "/")), "/")
}

// property is a property's name as the schema spells it, "" if the class has none of that name.
func (c *class) property(name string) string { return c.spelling[strings.ToLower(name)] }

// uri is the class's resource URI.
func (c *class) uri() string { return wmiPrefix + c.namespace + "/" + c.name }
