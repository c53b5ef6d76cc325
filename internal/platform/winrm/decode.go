package winrm

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// page is one answer of an enumeration.
type page struct {
	context string // for the next Pull; empty if the host says that it is over
	end     bool
	items   int
}

// decodePage reads an EnumerateResponse or a PullResponse and calls each with its instances as they are read. What each
// returns is returned as a *stopped.
func decodePage(body string, each func(Instance) error) (page, error) {
	var p page
	s, err := toBody(body)
	if err != nil {
		return p, err
	}
	if err := s.enter("EnumerateResponse", "PullResponse"); err != nil {
		return p, err
	}
	err = s.children(func(name string) error {
		switch name {
		case "EnumerationContext":
			p.context, err = s.content()
			return err
		case "EndOfSequence": // of WS-Enumeration, or of WS-Management if it was optimized
			p.end = true
			return s.skip()
		case "Items":
			return s.items(&p, each)
		}
		return s.skip()
	})
	if err != nil {
		return p, err
	}
	p.context = strings.TrimSpace(p.context)
	return p, nil
}

// stopped is an error that was not the answer's.
type stopped struct{ error }

func (s *scanner) items(p *page, each func(Instance) error) error {
	properties := 0 // of the instance before: the next one has as many
	return s.children(func(string) error {
		i, err := s.instance(properties)
		if err != nil {
			return err
		}
		properties = len(i.Properties)
		p.items++
		if err := each(i); err != nil {
			return &stopped{err}
		}
		return nil
	})
}

// decodeOne reads an answer whose body is one instance.
func decodeOne(body string) (Instance, error) {
	s, err := toBody(body)
	if err != nil {
		return Instance{}, err
	}
	for {
		switch t, err := s.next(); {
		case err != nil:
			return Instance{}, malformed(err)
		case t == tokenStart:
			i, err := s.instance(0)
			return i, malformed(err)
		case t == tokenEnd:
			return Instance{}, errors.New("answer's body is empty")
		}
	}
}

// toBody opens an envelope and stands within its body.
func toBody(body string) (*scanner, error) {
	body = strings.TrimPrefix(body, "\ufeff")
	if !utf8.ValidString(body) {
		body = strings.ToValidUTF8(body, "\ufffd")
	}
	s := &scanner{doc: body, open: make([]string, 0, maxDepth)}
	if err := s.enter("Envelope"); err != nil {
		return nil, err
	}
	if err := s.enter("Body"); err != nil {
		return nil, err
	}
	return s, nil
}

// enter goes into the next element of one of these names, within the open one.
func (s *scanner) enter(names ...string) error {
	for {
		t, err := s.next()
		if err != nil {
			return malformed(err)
		}
		switch t {
		case tokenStart:
			for _, name := range names {
				if local(s.name) == name {
					return nil
				}
			}
			if err := s.skip(); err != nil {
				return malformed(err)
			}
		case tokenEnd, tokenEOF:
			return malformed(fmt.Errorf("it has no %s", strings.Join(names, " or ")))
		}
	}
}

// children calls f at each start tag within the open element, up to its end. f reads the child to its end.
func (s *scanner) children(f func(name string) error) error {
	for {
		t, err := s.next()
		if err != nil {
			return malformed(err)
		}
		switch t {
		case tokenStart:
			if err := f(local(s.name)); err != nil {
				return malformed(err)
			}
		case tokenEnd, tokenEOF:
			return nil
		}
	}
}

// malformed says of an error that it is of the answer's XML.
func malformed(err error) error {
	var stop *stopped
	if err == nil || errors.Is(err, ErrMalformed) || errors.As(err, &stop) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrMalformed, err)
}

// instance reads the element whose start was read last. Its class is the element's name, or the type it says it is of: a
// subclass that stands for it.
func (s *scanner) instance(properties int) (Instance, error) {
	i := Instance{Class: local(s.name), Properties: make([]Property, 0, properties)}
	if typ := className(s.attr("type")); typ != "" {
		i.Class = typ
	}
	for {
		t, err := s.next()
		if err != nil {
			return i, err
		}
		switch t {
		case tokenStart:
			name := local(s.name)
			v, err := s.value()
			if err != nil {
				return i, err
			}
			i.add(name, v)
		case tokenEnd:
			return i, nil
		}
	}
}

// className is the class of a type such as p:Win32_Service_Type.
func className(typ string) string { return strings.TrimSuffix(local(typ), "_Type") }

// add appends a property. One of the same name as the one before is a further element of an array.
func (i *Instance) add(name string, v Value) {
	n := len(i.Properties)
	if n == 0 || i.Properties[n-1].Name != name {
		i.Properties = append(i.Properties, Property{name, v})
		return
	}
	last := &i.Properties[n-1].Value
	if last.Kind != Array {
		*last = Value{Kind: Array, Items: []Value{*last}}
	}
	last.Items = append(last.Items, v)
}

// value reads a property to its end: nothing, text, or the elements that say what it is.
func (s *scanner) value() (Value, error) {
	null := s.attr("nil")
	typ := s.attr("type")
	if null == "true" || null == "1" {
		return Value{}, s.skip()
	}
	v := Value{Kind: Scalar}
	for {
		t, err := s.next()
		if err != nil {
			return v, err
		}
		switch t {
		case tokenText:
			if v.Kind == Scalar {
				v.Text = joined(v.Text, s.text)
			}
		case tokenStart:
			if err := s.structured(&v, typ); err != nil {
				return v, err
			}
		case tokenEnd:
			return v, nil
		}
	}
}

// structured reads one element within a property.
func (s *scanner) structured(v *Value, typ string) (err error) {
	name := local(s.name)
	switch {
	case v.Kind == Scalar && name == "Datetime":
		v.Kind = Datetime
		v.Text, err = s.content()
	case v.Kind == Scalar && name == "Interval":
		v.Kind = Interval
		v.Text, err = s.content()
	case v.Kind == Scalar && name == "EndpointReference":
		v.Kind, v.Text, v.Ref = Reference, "", &Ref{}
		return s.children(func(name string) error { return s.reference(v.Ref, name) })
	case (v.Kind == Scalar || v.Kind == Reference) && className(typ) == "" && (name == "Address" || name == "ReferenceParameters"):
		if v.Ref == nil {
			v.Kind, v.Text, v.Ref = Reference, "", &Ref{}
		}
		return s.reference(v.Ref, name)
	case v.Kind == Scalar || v.Kind == Embedded:
		if v.Object == nil {
			v.Kind, v.Text, v.Object = Embedded, "", &Instance{Class: className(typ)}
		}
		member, err := s.value()
		if err != nil {
			return err
		}
		v.Object.add(name, member)
		return nil
	default:
		return s.skip()
	}
	v.Text = strings.TrimSpace(v.Text)
	return err
}

// reference reads one part of an endpoint reference.
func (s *scanner) reference(ref *Ref, part string) error {
	if part != "ReferenceParameters" {
		return s.skip()
	}
	return s.children(func(name string) error {
		switch name {
		case "ResourceURI":
			uri, err := s.content()
			ref.Namespace, ref.Class = splitURI(strings.TrimSpace(uri))
			return err
		case "SelectorSet":
			return s.children(func(string) error { return s.selector(ref) })
		}
		return s.skip()
	})
}

func (s *scanner) selector(ref *Ref) error {
	name := s.attr("Name")
	value, err := s.content()
	if err != nil {
		return err
	}
	if ref.Selectors == nil {
		ref.Selectors = map[string]string{}
	}
	ref.Selectors[name] = value
	return nil
}

// splitURI is the namespace and class of a resource URI.
func splitURI(uri string) (namespace, class string) {
	const mark = "/wmi/"
	if i := strings.Index(uri, mark); i >= 0 {
		uri = uri[i+len(mark):]
	}
	i := strings.LastIndexByte(uri, '/')
	return uri[:max(i, 0)], uri[i+1:]
}

// faultOf is the fault that an answer holds, nil if it holds none.
func faultOf(body string) error {
	s, err := toBody(body)
	if err != nil {
		return err
	}
	soap := prefix(s.open[0])
	for {
		t, err := s.next()
		if err != nil {
			return malformed(err)
		}
		switch {
		case t == tokenStart && s.name == soap+"Fault":
			return s.fault()
		case t != tokenText:
			return nil
		}
	}
}

// fault reads the element whose start was read last.
func (s *scanner) fault() error {
	f := &Fault{}
	err := s.children(func(name string) error {
		switch name {
		case "Code":
			return s.faultCode(f)
		case "Reason":
			return s.children(func(string) error {
				text, err := s.content()
				f.Reason = printable(text)
				return err
			})
		case "Detail":
			return s.faultDetail(f)
		}
		return s.skip()
	})
	if err != nil {
		return err
	}
	return f
}

func (s *scanner) faultCode(f *Fault) error {
	return s.children(func(name string) error {
		if name != "Subcode" {
			return s.skip()
		}
		return s.children(func(name string) error {
			if name != "Value" || f.Subcode != "" {
				return s.skip()
			}
			text, err := s.content()
			f.Subcode = printable(local(strings.TrimSpace(text)))
			return err
		})
	})
}

// faultDetail reads everything in which hosts put codes: nested WSManFaults, MSFT_WmiError, the status of a provider, and
// words that hold an HRESULT.
func (s *scanner) faultDetail(f *Fault) error {
	for depth := len(s.open); ; {
		t, err := s.next()
		if err != nil {
			return err
		}
		switch t {
		case tokenStart:
			switch local(s.name) {
			case "WSManFault":
				f.code(s.attr("Code"))
			case "FaultDetail":
				text, err := s.content()
				if err != nil {
					return err
				}
				f.Detail = printable(text[strings.LastIndexByte(text, '/')+1:])
			case "StatusCode", "error_Code", "error_WindowsErrorMessage":
				text, err := s.content()
				if err != nil {
					return err
				}
				f.code(strings.TrimSpace(text))
			}
		case tokenText:
			if i := strings.Index(s.text, "0x"); i >= 0 && len(s.text) >= i+10 {
				if n, err := strconv.ParseUint(s.text[i+2:i+10], 16, 32); err == nil && n != 0 {
					f.Provider = uint32(n)
				}
			}
		case tokenEnd:
			if len(s.open) < depth {
				if f.Provider == f.Code {
					f.Provider = 0
				}
				return nil
			}
		}
	}
}

// code takes a code that stands in the detail: the first is WSManFault's own, what stands deeper is the provider's.
func (f *Fault) code(text string) {
	n, err := strconv.ParseUint(text, 10, 32)
	switch {
	case err != nil || n == 0:
	case f.Code == 0:
		f.Code = uint32(n)
	case f.Provider == 0:
		f.Provider = uint32(n)
	}
}

// printable is a host's words, on one line and of bounded length.
func printable(s string) string {
	const most = 300
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == 0x85 || r == 0xa0 }), " ")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}
