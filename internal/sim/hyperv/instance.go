package hyperv

import (
	"encoding/xml"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// instance is an object of a class: values by the names of its properties. What is absent is null. Values are string, bool, int,
// uint32, uint64, float64 (a whole number), time.Time, time.Duration, []string, []int, []uint32, reference, embedded and []*instance.
type instance struct {
	class  *class
	values map[string]any
}

// reference is a value that points to another instance.
type reference struct {
	class *class
	keys  map[string]string
}

// embedded is a value that is an object whose class no schema lists, as a resource's private properties are.
type embedded struct {
	uri, class string
	names      []string
	values     map[string]any
}

func (i *instance) value(property string) any { return i.values[i.class.property(property)] }

// reference points to the instance.
func (i *instance) reference() reference {
	keys := map[string]string{}
	for _, k := range i.class.keys {
		keys[k] = keyText(i.values[k])
	}
	return reference{i.class, keys}
}

// keyText is a key as a selector has it.
func keyText(v any) string {
	if r, isReference := v.(reference); isReference {
		return r.path()
	}
	return fmt.Sprint(v)
}

// path is the WMI object path without the machine.
func (r reference) path() string {
	var b strings.Builder
	b.WriteString(r.class.name)
	sign := "."
	for _, k := range r.class.keys {
		b.WriteString(sign + k + `="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(r.keys[k]) + `"`)
		sign = ","
	}
	return b.String()
}

const (
	nsInstance = `http://www.w3.org/2001/XMLSchema-instance`
	nsCommon   = `http://schemas.dmtf.org/wbem/wscim/1/common`
)

// object writes the instance as an element of its class. With columns only these are told, in a w:XmlFragment: that is what a
// projection is answered with.
func (w *writer) object(i *instance, columns []string) {
	uri := i.class.uri()
	names, tag, attributes := i.class.order, "p:"+i.class.name, ` xsi:type="p:`+i.class.name+`_Type" xml:lang="en-US"`
	if columns != nil {
		names, tag, attributes = columns, "w:XmlFragment", ""
	}
	w.raw("<", tag, ` xmlns:p="`, uri, `" xmlns:xsi="`, nsInstance, `" xmlns:cim="`, nsCommon, `"`, attributes, ">")
	for _, name := range names {
		w.property("p:"+name, i.values[name])
	}
	w.raw("</", tag, ">")
}

func (w *writer) property(tag string, v any) {
	switch v := v.(type) {
	case nil:
		w.raw("<", tag, ` xsi:nil="true"/>`)
	case []string:
		w.array(tag, len(v), func(i int) any { return v[i] })
	case []int:
		w.array(tag, len(v), func(i int) any { return v[i] })
	case []uint32:
		w.array(tag, len(v), func(i int) any { return v[i] })
	case []*instance:
		w.array(tag, len(v), func(i int) any { return v[i] })
	case reference:
		w.raw("<", tag, ">")
		w.reference(v)
		w.raw("</", tag, ">")
	case *instance:
		w.raw("<", tag, ` xmlns:q="`, v.class.uri(), `" xsi:type="q:`, v.class.name, `_Type">`)
		for _, name := range v.class.order {
			w.property("q:"+name, v.values[name])
		}
		w.raw("</", tag, ">")
	case embedded:
		w.raw("<", tag, ` xmlns:q="`, v.uri, `" xsi:type="q:`, v.class, `_Type">`)
		for _, name := range v.names {
			w.property("q:"+name, v.values[name])
		}
		w.raw("</", tag, ">")
	case time.Time:
		w.raw("<", tag, "><cim:Datetime>", v.UTC().Format("2006-01-02T15:04:05.999999Z07:00"), "</cim:Datetime></", tag, ">")
	case time.Duration:
		w.raw("<", tag, "><cim:Interval>", interval(v), "</cim:Interval></", tag, ">")
	default:
		w.raw("<", tag, ">")
		w.scalar(v)
		w.raw("</", tag, ">")
	}
}

// array writes one element for each value: WS-Man has no other sign of an array. One of none is null.
func (w *writer) array(tag string, n int, at func(int) any) {
	if n == 0 {
		w.raw("<", tag, ` xsi:nil="true"/>`)
	}
	for i := range n {
		w.property(tag, at(i))
	}
}

func (w *writer) scalar(v any) {
	switch v := v.(type) {
	case string:
		w.escape(v)
	case bool:
		w.raw(strconv.FormatBool(v))
	case int:
		w.raw(strconv.Itoa(v))
	case uint32:
		w.raw(strconv.FormatUint(uint64(v), 10))
	case uint64:
		w.raw(strconv.FormatUint(v, 10))
	case float64:
		w.raw(strconv.FormatFloat(math.Floor(v), 'f', 0, 64))
	default:
		w.escape(fmt.Sprint(v))
	}
}

// reference writes the content of an endpoint reference.
func (w *writer) reference(r reference) {
	w.raw(`<a:Address>`, anonymous, `</a:Address><a:ReferenceParameters><w:ResourceURI>`, r.class.uri(), `</w:ResourceURI><w:SelectorSet>`)
	for _, k := range r.class.keys {
		w.raw(`<w:Selector Name="`, k, `">`)
		w.escape(r.keys[k])
		w.raw(`</w:Selector>`)
	}
	w.raw(`</w:SelectorSet></a:ReferenceParameters>`)
}

// interval is a CIM interval as WS-Man writes it: P0DT0H1M40S.
func interval(d time.Duration) string {
	s := int(d.Seconds())
	return fmt.Sprintf("P%dDT%dH%dM%dS", s/86400, s/3600%24, s/60%60, s%60)
}

// cimXML is an embedded object in the other notation, in which WMI puts objects into strings.
func cimXML(class string, pairs ...string) string {
	var b strings.Builder
	b.WriteString(`<INSTANCE CLASSNAME="` + class + `">`)
	for i := 0; i+1 < len(pairs); i += 2 {
		b.WriteString(`<PROPERTY NAME="` + pairs[i] + `" TYPE="string"><VALUE>`)
		_ = xml.EscapeText(&b, []byte(pairs[i+1]))
		b.WriteString(`</VALUE></PROPERTY>`)
	}
	b.WriteString(`</INSTANCE>`)
	return b.String()
}
