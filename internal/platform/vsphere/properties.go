package vsphere

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vim25/xml"
)

// page is how many objects one answer of Retrieve holds at most.
const page = 500

// Properties are an object's values by their path. What the vCenter left out or may not show is not in it.
type Properties map[string]any

// Get is the object's value of a path, false if it has none or one of another type.
func Get[T any](p Properties, path string) (T, bool) {
	v, ok := p[path].(T)
	return v, ok
}

// Properties reads some of one object's properties.
func (c *Conn) Properties(ctx context.Context, ref types.ManagedObjectReference, paths ...string) (Properties, error) {
	var out Properties
	err := c.Retrieve(ctx, types.PropertyFilterSpec{
		PropSet:   []types.PropertySpec{{Type: ref.Type, PathSet: paths}},
		ObjectSet: []types.ObjectSpec{{Obj: ref}},
	}, func(_ types.ManagedObjectReference, p Properties) { out = p })
	if err == nil && out == nil {
		err = fmt.Errorf("vcenter %s: no answer for %s", c.URL().Host, ref.Value)
	}
	return out, err
}

// Retrieve reads properties of many objects, page by page. The values belong to each.
func (c *Conn) Retrieve(ctx context.Context, spec types.PropertyFilterSpec, each func(types.ManagedObjectReference, Properties)) error {
	pc := c.ServiceContent.PropertyCollector
	res, err := methods.RetrievePropertiesEx(ctx, c, &types.RetrievePropertiesEx{
		This: pc, SpecSet: []types.PropertyFilterSpec{spec}, Options: types.RetrieveOptions{MaxObjects: page},
	})
	if err != nil {
		return err
	}
	for result := res.Returnval; result != nil; {
		for i := range result.Objects {
			o := &result.Objects[i]
			if err := CheckMissing(o.MissingSet); err != nil {
				return fmt.Errorf("vcenter %s: read %s: %w", c.URL().Host, o.Obj.Value, err)
			}
			p := make(Properties, len(o.PropSet))
			for _, prop := range o.PropSet {
				if prop.Val != nil {
					p[prop.Name] = prop.Val
				}
			}
			each(o.Obj, p)
		}
		if result.Token == "" {
			return nil
		}
		next, err := methods.ContinueRetrievePropertiesEx(ctx, c, &types.ContinueRetrievePropertiesEx{This: pc, Token: result.Token})
		if err != nil {
			return err
		}
		result = &next.Returnval
	}
	return nil
}

// pageOfInts is how many objects one answer of RetrieveInts holds at most.
const pageOfInts = 1000

// maxPages bounds a retrieval that would never end.
const maxPages = 1000

// Int is a whole number that an object may not have.
type Int struct {
	N  int32
	OK bool
}

// RetrieveInts reads properties that are whole numbers (xsd:int) of many objects, page by page. each hears of every object its
// type, its MoRef's value, and the values of paths in their order; of these only a copy may be kept. A property of another
// type is absent. All heard before an error is to be forgotten.
func (c *Conn) RetrieveInts(
	ctx context.Context, spec types.PropertyFilterSpec, paths []string, each func(kind, ref []byte, values []Int),
) error {
	pc := c.ServiceContent.PropertyCollector
	r := ints{paths: paths, values: make([]Int, len(paths)), each: each}
	err := c.callInts(ctx, "RetrievePropertiesEx", &types.RetrievePropertiesEx{
		This: pc, SpecSet: []types.PropertyFilterSpec{spec}, Options: types.RetrieveOptions{MaxObjects: pageOfInts},
	}, &r)
	for n := 1; err == nil && r.token != ""; n++ {
		if n == maxPages {
			return fmt.Errorf("vcenter %s: RetrievePropertiesEx: more than %d pages", c.URL().Host, maxPages)
		}
		next := types.ContinueRetrievePropertiesEx{This: pc, Token: r.token}
		err = c.callInts(ctx, "ContinueRetrievePropertiesEx", &next, &r)
	}
	return err
}

func (c *Conn) callInts(ctx context.Context, method string, req any, r *ints) error {
	body, err := c.element(method, req)
	if err != nil {
		return err
	}
	r.token, r.tag = "", r.tag[:0]
	return c.Call(ctx, method, len(body), func(b []byte) []byte { return append(b, body...) }, r.read)
}

// element is the request of a method.
func (c *Conn) element(method string, req any) ([]byte, error) {
	var b bytes.Buffer
	start := xml.StartElement{Name: xml.Name{Space: c.soap.Namespace, Local: method}}
	if err := xml.NewEncoder(&b).EncodeElement(req, start); err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	return b.Bytes(), nil
}

// ints reads a RetrieveResult.
type ints struct {
	paths  []string
	values []Int
	each   func(kind, ref []byte, values []Int)

	token     string
	kind, ref []byte
	guess     int    // in paths: what the next property mostly is
	tag       []byte // of the last value that was a whole number: mostly they are all the same
}

func (r *ints) read(s *Scanner) error {
	for s.Child() { // returnval
		for s.Child() {
			switch string(s.Name()) {
			case "token":
				r.token = string(s.Text())
			case "objects":
				if err := r.object(s); err != nil {
					return err
				}
			default:
				s.Skip()
			}
		}
	}
	return s.Err()
}

func (r *ints) object(s *Scanner) error {
	clear(r.values)
	r.kind, r.ref, r.guess = r.kind[:0], r.ref[:0], 0
	for r.usual(s); s.Child(); r.usual(s) {
		switch string(s.Name()) {
		case "obj":
			r.kind = append(r.kind[:0], s.Attr("type")...)
			r.ref = append(r.ref[:0], s.Text()...)
		case "propSet":
			if err := r.property(s); err != nil {
				return err
			}
		case "missingSet":
			if notAuthenticated(s) {
				return fmt.Errorf("read %s: %w", r.ref, &missingError{&types.NotAuthenticated{}})
			}
		default:
			s.Skip()
		}
	}
	if err := s.Err(); err != nil {
		return err
	}
	if len(r.ref) == 0 {
		return errors.New("answer has an object without a reference")
	}
	r.each(r.kind, r.ref, r.values)
	return nil
}

// usual reads properties that stand next in the form that vCenters write, as many as are in the buffer. What has another form is
// left to property.
func (r *ints) usual(s *Scanner) {
	for len(r.tag) > 0 {
		b := s.Ahead()
		rest, ok := bytes.CutPrefix(b, []byte("<propSet><name>"))
		if !ok {
			return
		}
		n := bytes.IndexByte(rest, '<')
		if n < 0 {
			return
		}
		path := r.place(rest[:n])
		if path < 0 {
			return
		}
		if rest, ok = bytes.CutPrefix(rest[n:], []byte(`</name>`)); !ok {
			return
		}
		if rest, ok = bytes.CutPrefix(rest, r.tag); !ok {
			return
		}
		if n = bytes.IndexByte(rest, '<'); n < 0 {
			return
		}
		value, ok := parseInt32(rest[:n])
		if !ok {
			return
		}
		if rest, ok = bytes.CutPrefix(rest[n:], []byte("</val></propSet>")); !ok {
			return
		}
		r.values[path] = Int{value, true}
		s.Pass(len(b) - len(rest))
	}
}

// place is the place of a property in paths, -1 if it is none of them.
func (r *ints) place(path []byte) int {
	for range r.paths {
		n := r.guess
		if r.guess++; r.guess == len(r.paths) {
			r.guess = 0
		}
		if r.paths[n] == string(path) {
			return n
		}
	}
	return -1
}

func (r *ints) property(s *Scanner) error {
	path := -1
	for s.Child() {
		switch string(s.Name()) {
		case "name":
			path = r.place(s.Text())
		case "val":
			if path < 0 || string(s.Type()) != "int" {
				s.Skip()
				continue
			}
			if r.tag = r.tag[:0]; !bytes.HasSuffix(s.Tag(), []byte("/>")) {
				r.tag = append(r.tag, s.Tag()...)
			}
			n, ok := parseInt32(s.Text())
			if !ok {
				return orErr(s, "answer has a number that cannot be read: "+r.paths[path])
			}
			r.values[path] = Int{n, true}
		default:
			s.Skip()
		}
	}
	return s.Err()
}

// parseInt32 reads a whole number, with white space around it as XML allows.
func parseInt32(b []byte) (int32, bool) {
	if 0 < len(b) && len(b) < 10 {
		n := int32(0)
		for _, c := range b {
			if c < '0' || c > '9' {
				n = -1
				break
			}
			n = n*10 + int32(c-'0')
		}
		if n >= 0 {
			return n, true
		}
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 32)
	return int32(n), err == nil
}

// notAuthenticated reports whether the innermost open element, which is closed, holds that fault, alone or as another's cause.
func notAuthenticated(s *Scanner) (found bool) {
	for s.Child() {
		if string(s.Name()) == "fault" && string(s.Type()) == "NotAuthenticated" {
			found = true
		}
		if notAuthenticated(s) {
			found = true
		}
	}
	return found
}

// CheckMissing is the error in a list of properties that could not be read: a vCenter that does not know the session fills it
// and returns no other error. A property that the user may not see is no error; it is absent.
func CheckMissing(missing []types.MissingProperty) error {
	for i := range missing {
		if fault.Is(missing[i].Fault.Fault, &types.NotAuthenticated{}) {
			return &missingError{missing[i].Fault.Fault}
		}
	}
	return nil
}

// missingError is a fault that came in a list of missing properties.
type missingError struct{ fault types.BaseMethodFault }

func (e *missingError) Error() string                { return "not authenticated" }
func (e *missingError) Fault() types.BaseMethodFault { return e.fault }
