package winrm

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kind is what a Value is.
type Kind uint8

// Kinds of values. WS-Management does not say whether a scalar is a number, a boolean or a string: who asks knows.
const (
	Null      Kind = iota // xsi:nil: the platform has the property and no value for it
	Scalar                // Text
	Datetime              // Text, as the host wrote it: Value.Time
	Interval              // Text: Value.Duration
	Reference             // Ref
	Embedded              // Object
	Array                 // Items
)

// Value is one property's value. Its strings hold the memory of the answer they came in: what is kept for long is cloned
// (Decode does).
type Value struct {
	Kind   Kind
	Text   string
	Items  []Value
	Ref    *Ref
	Object *Instance
}

// Instance is one CIM instance: its class and its properties, in the host's order. It is never changed once made.
type Instance struct {
	Class      string
	Properties []Property
}

// Property is one property of an instance.
type Property struct {
	Name  string
	Value Value
}

// Get is a property's value by its name, in whatever case, false if the answer does not hold the property.
func (i Instance) Get(name string) (Value, bool) {
	for _, p := range i.Properties {
		if p.Name == name {
			return p.Value, true
		}
	}
	for _, p := range i.Properties {
		if strings.EqualFold(p.Name, name) {
			return p.Value, true
		}
	}
	return Value{}, false
}

// Text is a scalar property's text, empty if there is none.
func (i Instance) Text(name string) string {
	v, _ := i.Get(name)
	return v.Text
}

// Uint is a number, false if the property is missing, null or no number.
func (i Instance) Uint(name string) (uint64, bool) {
	v, ok := i.Get(name)
	if !ok || v.Kind != Scalar {
		return 0, false
	}
	n, err := v.Uint()
	return n, err == nil
}

// ReturnValue is what an invoked method returned, 0 being success and 4096 a job that has started.
func (i Instance) ReturnValue() (uint32, error) {
	v, ok := i.Get("ReturnValue")
	if !ok || v.Kind != Scalar {
		return 0, fmt.Errorf("%s has no ReturnValue", i.Class)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(v.Text), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%s: ReturnValue %s is no number", i.Class, shown(v.Text))
	}
	return uint32(n), nil
}

// List is the values of an array, one for a scalar, none for null: an array of one looks like a scalar on the wire.
func (v Value) List() []Value {
	switch v.Kind {
	case Null:
		return nil
	case Array:
		return v.Items
	}
	return []Value{v}
}

// Uint is the value as an unsigned number.
func (v Value) Uint() (uint64, error) {
	return strconv.ParseUint(strings.TrimSpace(v.Text), 10, 64)
}

// Time is a datetime, of a Datetime or of a scalar in CIM's own form.
func (v Value) Time() (time.Time, error) { return ParseTime(v.Text) }

// Duration is an interval, of an Interval or of a scalar in CIM's own form.
func (v Value) Duration() (time.Duration, error) { return ParseInterval(v.Text) }

// Ref names an instance, or a class if it has no selectors.
type Ref struct {
	Namespace string
	Class     string
	Selectors map[string]string // key properties
}

func (r Ref) String() string {
	var b strings.Builder
	b.WriteString(r.Namespace + ":" + r.Class)
	for i, k := range slices.Sorted(maps.Keys(r.Selectors)) {
		b.WriteString([]string{".", ","}[min(i, 1)] + k + "=" + strconv.Quote(r.Selectors[k]))
	}
	return b.String()
}

// uri is the resource URI of the class.
func (r Ref) uri() string { return wmiBase + strings.ReplaceAll(r.Namespace, `\`, "/") + "/" + r.Class }

// Params are a method's parameters, in the order they are sent. A parameter left out is one that the method gives its
// default.
//
// Values are string, bool, int, int64, uint8, uint16, uint32, uint64, time.Time, Ref, nil (sent as xsi:nil), *Object (an
// embedded instance, sent as CIM-XML text), and slices of string, uint8, uint16, uint32, Ref and *Object. An empty slice is
// sent as nothing: WS-Management cannot say it.
type Params []Param

// Param is one parameter.
type Param struct {
	Name  string
	Value any
}

// shown is untrusted text as an error shows it.
func shown(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most] + "..."
	}
	return strconv.Quote(s)
}
