package config

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	promconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"
)

// maxNodes bounds the YAML nodes read, each counted as often as aliases repeat it.
const maxNodes = 100_000

// forbidden are keys that would put a secret into the file, or that mean nothing here, and what to write instead.
var forbidden = map[string]string{
	"password":       "write it into a file that only protip can read and name that file: password_file; or name a variable of the environment: password_env",
	"token":          "write it into a file and name that file: web.operator_token_file",
	"operator_token": "write it into a file and name that file: operator_token_file",
	"key":            "write it into a file and name that file: key_file",
	"ca_ref":         "name a file instead: ca_file",
	"cert_ref":       "name a file instead: cert_file",
	"key_ref":        "name a file instead: key_file",
}

// decoder puts a YAML tree into Go values by their yaml tags: the encoding/yaml of a stranger's file. It goes on after a
// problem, remembers where each key stands, and never quotes a value that could be a secret.
type decoder struct {
	*problems
	at     map[string]position // of each key the file sets, by its path: remediation.limits.per_host, sources[0].url
	budget int
	cures  map[string]string // of keys that are forbidden, where this file has better ones
}

var (
	durationType   = reflect.TypeFor[time.Duration]()
	tlsVersionType = reflect.TypeFor[promconfig.TLSVersion]()
)

// value decodes n into v; path is v's key in the file.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if d.budget--; d.budget < 0 {
		if d.budget == -1 {
			d.add(pos(n), "more values than any fleet needs", "write fewer aliases")
		}
		return
	}
	d.at[path] = pos(n)
	switch {
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, v.Elem(), path)
	case isNull(n) && v.Kind() != reflect.Struct:
		d.add(pos(n), path+" has no value", "give it one or remove the key")
	case v.Type() == durationType:
		d.duration(n, v, path)
	case v.Type() == tlsVersionType:
		d.tlsVersion(n, v, path)
	default:
		d.byKind(n, v, path)
	}
}

func (d *decoder) byKind(n *yaml.Node, v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.Struct:
		d.mapping(n, v, path)
	case reflect.Map:
		d.dictionary(n, v, path)
	case reflect.Slice:
		d.list(n, v, path)
	case reflect.Interface:
		d.scalar(n, v, path)
	case reflect.String:
		if d.want(n, path, "text", "!!str", "!!int", "!!float", "!!bool", "!!timestamp") {
			v.SetString(n.Value)
		}
	case reflect.Bool:
		if d.want(n, path, "true or false", "!!bool") {
			v.SetBool(strings.EqualFold(n.Value, "true"))
		}
	case reflect.Int:
		if d.want(n, path, "a whole number", "!!int") {
			i, err := strconv.Atoi(n.Value)
			if err != nil {
				d.add(pos(n), path+" is not a whole number", "write it in decimal digits")
			}
			v.SetInt(int64(i))
		}
	case reflect.Float64:
		if d.want(n, path, "a number", "!!int", "!!float") {
			f, err := strconv.ParseFloat(n.Value, 64)
			if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
				d.add(pos(n), path+" is not a finite number", "write it as 0.8")
			}
			v.SetFloat(f)
		}
	}
}

// want reports whether n is a scalar of one of the tags, and says so if it is not.
func (d *decoder) want(n *yaml.Node, path, what string, tags ...string) bool {
	if n.Kind == yaml.ScalarNode && slices.Contains(tags, n.ShortTag()) {
		return true
	}
	d.add(pos(n), fmt.Sprintf("%s is %s", path, kindOf(n)), "it must be "+what)
	return false
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string) {
	if isNull(n) {
		return
	}
	fields := fieldsOf(v)
	d.pairs(n, path, func(k, value *yaml.Node) {
		name := k.Value
		if cure, ok := forbidden[name]; ok {
			d.add(pos(k), fmt.Sprintf("%s is not a key of %s", name, section(path)), cmp.Or(d.cures[name], cure))
			return
		}
		field, ok := fields[name]
		if !ok {
			known := slices.Sorted(maps.Keys(fields))
			known = slices.DeleteFunc(known, func(s string) bool { return forbidden[s] != "" })
			cure := "known keys are " + strings.Join(known, ", ")
			if meant := near(name, known); meant != "" {
				cure = "did you mean " + meant + "?"
			}
			d.add(pos(k), fmt.Sprintf("unknown key %s in %s", quote(name), section(path)), cure)
			return
		}
		d.value(value, field, join(path, name))
	})
}

func (d *decoder) dictionary(n *yaml.Node, v reflect.Value, path string) {
	v.Set(reflect.MakeMap(v.Type()))
	d.pairs(n, path, func(k, value *yaml.Node) {
		elem := reflect.New(v.Type().Elem()).Elem()
		d.value(value, elem, join(path, k.Value))
		v.SetMapIndex(reflect.ValueOf(k.Value), elem)
	})
}

// pairs yields the pairs of a mapping whose keys are plain and unique.
func (d *decoder) pairs(n *yaml.Node, path string, pair func(k, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		d.add(pos(n), fmt.Sprintf("%s is %s", section(path), kindOf(n)), "it must be a mapping, lines of key: value")
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, value := n.Content[i], n.Content[i+1]
		switch line, twice := seen[k.Value]; {
		case k.Kind != yaml.ScalarNode:
			d.add(pos(k), "a key that is not text in "+section(path), "write a plain word before the colon")
		case k.ShortTag() == "!!merge":
			d.add(pos(k), "a merge key (<<) in "+section(path), "write the keys out")
		case twice:
			d.add(pos(k), fmt.Sprintf("%s is set twice in %s, first in line %d", quote(k.Value), section(path), line), "remove one")
		default:
			seen[k.Value] = k.Line
			pair(k, value)
		}
	}
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.add(pos(n), fmt.Sprintf("%s is %s", path, kindOf(n)), "it must be a list, each entry behind a dash")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), 0, 0)) // an empty list is not one that was left out
	for i, item := range n.Content {
		if d.budget < 0 {
			return
		}
		elem := reflect.New(v.Type().Elem()).Elem()
		d.value(item, elem, fmt.Sprintf("%s[%d]", path, i))
		v.Set(reflect.Append(v, elem))
	}
}

// scalar decodes a pack's own setting: number, text or bool.
func (d *decoder) scalar(n *yaml.Node, v reflect.Value, path string) {
	if !d.want(n, path, "a number, text, true or false", "!!str", "!!int", "!!float", "!!bool") {
		return
	}
	var x any
	if err := n.Decode(&x); err != nil || x == nil {
		d.add(pos(n), path+" cannot be read", "write a number, text, true or false")
		return
	}
	v.Set(reflect.ValueOf(x))
}

func (d *decoder) duration(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind == yaml.ScalarNode {
		if p, err := model.ParseDuration(n.Value); err == nil {
			v.SetInt(int64(p))
			return
		}
		if t, err := time.ParseDuration(n.Value); err == nil {
			v.SetInt(int64(t))
			return
		}
	}
	d.add(pos(n), path+" is not a length of time", "write a number and a unit, as 20s, 5m or 1d")
}

func (d *decoder) tlsVersion(n *yaml.Node, v reflect.Value, path string) {
	version, ok := promconfig.TLSVersions[n.Value]
	if !ok {
		known := slices.Sorted(maps.Keys(promconfig.TLSVersions))
		d.add(pos(n), path+" is not a TLS version", "write one of "+strings.Join(known, ", "))
		return
	}
	v.Set(reflect.ValueOf(version))
}

// fieldsOf are a struct's fields by their name in YAML.
func fieldsOf(v reflect.Value) map[string]reflect.Value {
	fields := map[string]reflect.Value{}
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if name, _, _ := strings.Cut(field.Tag.Get("yaml"), ","); name != "" {
			fields[name] = v.Field(i)
		} else if field.Anonymous {
			maps.Copy(fields, fieldsOf(v.Field(i)))
		}
	}
	return fields
}

func pos(n *yaml.Node) position { return position{n.Line, n.Column} }

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func kindOf(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(n):
		return "empty"
	case n.ShortTag() == "!!str":
		return "text"
	case n.ShortTag() == "!!bool":
		return "true or false"
	case n.ShortTag() == "!!int", n.ShortTag() == "!!float":
		return "a number"
	}
	return "of type " + n.ShortTag()
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// section names a mapping in a message.
func section(path string) string {
	if path == "" {
		return "the file"
	}
	return path
}

// key is the path of a field of a list's entry.
func key(list string, i int, field string) string { return fmt.Sprintf("%s[%d].%s", list, i, field) }

// quote shows a key, cut if it is not one that a person wrote.
func quote(s string) string {
	if len(s) > 64 {
		s = s[:64] + "..."
	}
	return strconv.Quote(s)
}
