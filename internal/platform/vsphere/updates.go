package vsphere

import (
	"context"
	"errors"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/types"
)

// WaitForUpdates is WaitForUpdatesEx, nil if nothing changed in time. Names, numbers, states and references, alone or in lists, which are nearly all
// that a listing holds, are scanned; a value of any other type is decoded by reflection. MissingObjects are left out.
func (c *Conn) WaitForUpdates(ctx context.Context, version string, options types.WaitOptions) (*types.UpdateSet, error) {
	const method = "WaitForUpdatesEx"
	held := time.Duration(0)
	if options.MaxWaitSeconds != nil {
		held = time.Duration(*options.MaxWaitSeconds) * time.Second
	}
	req := types.WaitForUpdatesEx{This: c.ServiceContent.PropertyCollector, Version: version, Options: &options}
	body, err := c.element(method, &req)
	if err != nil {
		return nil, err
	}
	u := updates{words: map[string]string{}, states: map[string]reflect.Type{}}
	err = c.call(ctx, method, held, len(body), func(b []byte) []byte { return append(b, body...) }, u.read)
	if err != nil {
		return nil, err
	}
	return u.set, nil
}

// updates reads an UpdateSet.
type updates struct {
	set    *types.UpdateSet
	words  map[string]string       // that come again and again
	states map[string]reflect.Type // types of values that are words, by name; nil for other types
}

var errUpdates = errors.New("an update cannot be read")

func (u *updates) read(s *Scanner) error {
	for s.Child() { // returnval
		if u.set != nil {
			return errUpdates
		}
		u.set = &types.UpdateSet{}
		for s.Child() {
			switch string(s.Name()) {
			case "version":
				u.set.Version = string(s.Text())
			case "filterSet":
				if err := u.filter(s); err != nil {
					return err
				}
			case "truncated":
				truncated, err := parseBool(s.Text())
				if err != nil {
					return orErr(s, err.Error())
				}
				u.set.Truncated = &truncated
			default:
				s.Skip()
			}
		}
	}
	return s.Err()
}

func (u *updates) filter(s *Scanner) error {
	var f types.PropertyFilterUpdate
	for s.Child() {
		switch string(s.Name()) {
		case "filter":
			f.Filter = u.reference(s)
		case "objectSet":
			f.ObjectSet = append(f.ObjectSet, types.ObjectUpdate{})
			if err := u.object(s, &f.ObjectSet[len(f.ObjectSet)-1]); err != nil {
				return err
			}
		default:
			s.Skip()
		}
	}
	u.set.FilterSet = append(u.set.FilterSet, f)
	return s.Err()
}

func (u *updates) object(s *Scanner, o *types.ObjectUpdate) error {
	for s.Child() {
		switch string(s.Name()) {
		case "kind":
			o.Kind = types.ObjectUpdateKind(u.word(s.Text()))
		case "obj":
			o.Obj = u.reference(s)
		case "changeSet":
			if o.ChangeSet == nil && o.Kind == types.ObjectUpdateKindEnter {
				o.ChangeSet = make([]types.PropertyChange, 0, 16)
			}
			o.ChangeSet = append(o.ChangeSet, types.PropertyChange{})
			if err := u.change(s, &o.ChangeSet[len(o.ChangeSet)-1]); err != nil {
				return err
			}
		case "missingSet":
			var holder struct {
				Missing types.MissingProperty `xml:"missingSet"`
			}
			if raw := s.Raw(); s.Err() == nil {
				if err := s.decode(raw, &holder); err != nil {
					return err
				}
				o.MissingSet = append(o.MissingSet, holder.Missing)
			}
		default:
			s.Skip()
		}
	}
	return s.Err()
}

func (u *updates) change(s *Scanner, c *types.PropertyChange) error {
	for s.Child() {
		switch string(s.Name()) {
		case "name":
			c.Name = u.word(s.Text())
		case "op":
			c.Op = types.PropertyChangeOp(u.word(s.Text()))
		case "val":
			val, err := u.value(s)
			if err != nil {
				return err
			}
			c.Val = val
		default:
			s.Skip()
		}
	}
	return s.Err()
}

// value reads the innermost open element by its xsi:type, and closes it.
func (u *updates) value(s *Scanner) (val any, err error) {
	switch string(s.Type()) {
	case "string":
		return string(s.Text()), s.Err()
	case "boolean":
		val, err = parseBool(s.Text())
	case "short":
		val, err = parseWhole[int16](s.Text(), 16)
	case "int":
		val, err = parseWhole[int32](s.Text(), 32)
	case "long":
		val, err = parseWhole[int64](s.Text(), 64)
	case "ManagedObjectReference":
		return u.reference(s), s.Err()
	case "ArrayOfManagedObjectReference":
		var list types.ArrayOfManagedObjectReference
		for s.Child() {
			if string(s.Name()) == "ManagedObjectReference" {
				list.ManagedObjectReference = append(list.ManagedObjectReference, u.reference(s))
			} else {
				s.Skip()
			}
		}
		return list, s.Err()
	default:
		if state := u.state(s.Type()); state != nil {
			v := reflect.New(state).Elem()
			v.SetString(u.word(s.Text()))
			return v.Interface(), s.Err()
		}
		raw := s.Raw()
		if err := s.Err(); err != nil {
			return nil, err
		}
		var holder struct {
			//lint:ignore SA5008 govmomi decodes with an XML package of its own, which knows typeattr
			Val types.AnyType `xml:"val,typeattr"`
		}
		err = s.decode(raw, &holder)
		return holder.Val, err
	}
	if s.Err() != nil {
		return nil, s.Err()
	}
	return val, err
}

// state is the type of that name if its values are words, nil otherwise.
func (u *updates) state(name []byte) reflect.Type {
	if typ, known := u.states[string(name)]; known || len(name) == 0 {
		return typ
	}
	typ, ok := types.TypeFunc()(string(name))
	if !ok || typ.Kind() != reflect.String {
		typ = nil
	}
	u.states[string(name)] = typ
	return typ
}

func (u *updates) reference(s *Scanner) types.ManagedObjectReference {
	kind := s.Attr("type")
	if kind == nil { // govmomi takes the xsi:type then, which is none of an object
		s.fail("a reference has no type")
	}
	ref := types.ManagedObjectReference{Type: u.word(kind), ServerGUID: string(s.Attr("serverGuid"))}
	ref.Value = string(s.Text())
	return ref
}

// word is b as a string that is allocated once.
func (u *updates) word(b []byte) string {
	w, known := u.words[string(b)]
	if !known {
		w = string(b)
		u.words[w] = w
	}
	return w
}

func parseBool(b []byte) (bool, error) {
	switch strings.TrimSpace(string(b)) {
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, errUpdates
}

func parseWhole[T int16 | int32 | int64](b []byte, bits int) (T, error) {
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, bits)
	return T(n), err
}
