package winrm

import (
	"errors"
	"fmt"
	"strings"
)

// Object is an embedded instance that is sent: WMI takes it as a string of CIM-XML.
type Object struct {
	Class   string
	Members []Member
}

// Member is a property of an Object.
type Member struct {
	Name   string
	Type   string   // CIM's: string, boolean, uint8 ... sint64, datetime, reference
	Values []string // as CIM-XML writes them: TRUE, 1, ...; one unless Array
	Array  bool
}

// XML is the object as CIM-XML.
func (o *Object) XML() (string, error) {
	if o == nil || !identifier.MatchString(o.Class) {
		return "", errors.New("an embedded instance names no class")
	}
	var b strings.Builder
	b.WriteString(`<INSTANCE CLASSNAME="` + o.Class + `">`)
	for _, m := range o.Members {
		if !identifier.MatchString(m.Name) || !identifier.MatchString(m.Type) {
			return "", fmt.Errorf("member %s of %s has no name or type", shown(m.Name), o.Class)
		}
		if !m.Array && len(m.Values) > 1 {
			return "", fmt.Errorf("member %s of %s has %d values and is no array", m.Name, o.Class, len(m.Values))
		}
		m.write(&b)
	}
	b.WriteString("</INSTANCE>")
	return b.String(), nil
}

func (m *Member) write(b *strings.Builder) {
	tag, open, end := "PROPERTY", "", ""
	if m.Array {
		tag, open, end = "PROPERTY.ARRAY", "<VALUE.ARRAY>", "</VALUE.ARRAY>"
	}
	b.WriteString("<" + tag + ` NAME="` + m.Name + `" TYPE="` + m.Type + `">` + open)
	for _, v := range m.Values {
		element(b, "VALUE", "", v)
	}
	b.WriteString(end + "</" + tag + ">")
}

// ParseObject reads an embedded instance that came as a string of CIM-XML, as GuestIntrinsicExchangeItems and the text of a
// job's error do.
func ParseObject(text string) (Instance, error) {
	s := &scanner{doc: text}
	t, err := s.next()
	if err != nil {
		return Instance{}, malformed(err)
	}
	if t != tokenStart || s.name != "INSTANCE" {
		return Instance{}, malformed(fmt.Errorf("%s is no INSTANCE", shown(s.name)))
	}
	i := Instance{Class: s.attr("CLASSNAME")}
	err = s.children(func(tag string) error {
		if !strings.HasPrefix(tag, "PROPERTY") {
			return s.skip()
		}
		name := s.attr("NAME")
		v, err := s.member(tag)
		if err != nil {
			return err
		}
		i.Properties = append(i.Properties, Property{name, v})
		return nil
	})
	return i, err
}

// member reads a PROPERTY to its end. One without a VALUE is null.
func (s *scanner) member(tag string) (Value, error) {
	var items []Value
	var read func(tag string) error
	read = func(tag string) error {
		switch tag {
		case "VALUE.ARRAY":
			return s.children(read)
		case "VALUE":
			text, err := s.content()
			items = append(items, Value{Kind: Scalar, Text: text})
			return err
		}
		return s.skip()
	}
	err := s.children(read)
	switch {
	case err != nil || len(items) == 0:
		return Value{}, err
	case tag == "PROPERTY.ARRAY":
		return Value{Kind: Array, Items: items}, nil
	}
	return items[0], nil
}
