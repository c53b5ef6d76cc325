package winrm

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Shape decodes instances into structs of type T. A field tagged `cim:"Name"` takes the property of that name:
//
//	string, bool, intN, uintN, floatN   a scalar
//	time.Time, time.Duration            a datetime, an interval
//	Ref, Instance                       a reference, an embedded instance
//	a slice of these                    an array, or a scalar as an array of one
//	a pointer to these                  nil for null and for missing
//
// Null leaves the zero value. It is safe for several goroutines.
type Shape[T any] struct {
	fields []shapeField
	byName map[string]int
}

type shapeField struct {
	name  string
	index []int
}

// NewShape reads T's tags. It fails if a field's type cannot hold any property.
func NewShape[T any]() (*Shape[T], error) {
	typ := reflect.TypeFor[T]()
	if typ.Kind() != reflect.Struct {
		return nil, fmt.Errorf("%s is no struct", typ)
	}
	s := &Shape[T]{byName: map[string]int{}}
	for _, f := range reflect.VisibleFields(typ) {
		name, ok := f.Tag.Lookup("cim")
		if !ok {
			continue
		}
		if !f.IsExported() || !decodable(f.Type, true) {
			return nil, fmt.Errorf("%s.%s of type %s cannot hold a property", typ, f.Name, f.Type)
		}
		s.byName[name] = len(s.fields)
		s.fields = append(s.fields, shapeField{name, f.Index})
	}
	return s, nil
}

// Properties are the names of the properties that are decoded, for a SELECT.
func (s *Shape[T]) Properties() []string {
	names := make([]string, len(s.fields))
	for i, f := range s.fields {
		names[i] = f.name
	}
	return names
}

// Decode fills into from an instance and names the properties that the instance does not hold; their fields are left as
// they are. A value that its field cannot take leaves the field zero and is an error that names the property; the other
// fields are filled all the same. Nothing but an Instance keeps the answer's memory.
func (s *Shape[T]) Decode(i Instance, into *T) (missing []string, err error) {
	var few [64]bool
	found := few[:]
	if len(s.fields) > len(few) {
		found = make([]bool, len(s.fields))
	}
	v := reflect.ValueOf(into).Elem()
	var errs []error
	for _, p := range i.Properties {
		n := s.field(p.Name)
		if n < 0 || found[n] {
			continue
		}
		found[n] = true
		if err := setField(v.FieldByIndex(s.fields[n].index), p.Value); err != nil {
			errs = append(errs, fmt.Errorf("%s.%s: %w", i.Class, p.Name, err))
		}
	}
	for n, f := range s.fields {
		if !found[n] {
			missing = append(missing, f.name)
		}
	}
	return missing, errors.Join(errs...)
}

// field is the number of the field that a property goes to, in whatever case it is written, -1 if none does.
func (s *Shape[T]) field(name string) int {
	if n, ok := s.byName[name]; ok {
		return n
	}
	for n, f := range s.fields {
		if len(f.name) == len(name) && strings.EqualFold(f.name, name) {
			return n
		}
	}
	return -1
}

// Decode fills a struct from one instance, as Shape.Decode does. For many instances make a Shape once.
func Decode[T any](i Instance, into *T) (missing []string, err error) {
	s, err := NewShape[T]()
	if err != nil {
		return nil, err
	}
	return s.Decode(i, into)
}

var (
	timeType     = reflect.TypeFor[time.Time]()
	durationType = reflect.TypeFor[time.Duration]()
	refType      = reflect.TypeFor[Ref]()
	instanceType = reflect.TypeFor[Instance]()
)

func decodable(t reflect.Type, outer bool) bool {
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return true
	case reflect.Struct:
		return t == timeType || t == refType || t == instanceType
	case reflect.Pointer, reflect.Slice:
		return outer && decodable(t.Elem(), false)
	}
	return false
}

func setField(f reflect.Value, v Value) error {
	switch f.Kind() {
	case reflect.Pointer:
		f.SetZero()
		if v.Kind == Null {
			return nil
		}
		into := reflect.New(f.Type().Elem())
		if err := setScalar(into.Elem(), v); err != nil {
			return err
		}
		f.Set(into)
		return nil
	case reflect.Slice:
		f.SetZero()
		list := v.List()
		slice := reflect.MakeSlice(f.Type(), len(list), len(list))
		for n, item := range list {
			if err := setScalar(slice.Index(n), item); err != nil {
				return err
			}
		}
		if len(list) > 0 {
			f.Set(slice)
		}
		return nil
	}
	return setScalar(f, v)
}

func setScalar(f reflect.Value, v Value) (err error) {
	f.SetZero()
	if v.Kind == Null {
		return nil
	}
	switch f.Type() {
	case timeType:
		t, err := v.Time()
		if err == nil {
			f.Set(reflect.ValueOf(t))
		}
		return err
	case durationType:
		d, err := v.Duration()
		if err == nil {
			f.SetInt(int64(d))
		}
		return err
	case refType:
		if v.Kind != Reference {
			return errors.New("it is no reference")
		}
		f.Set(reflect.ValueOf(v.Ref.clone()))
		return nil
	case instanceType:
		if v.Kind != Embedded {
			return errors.New("it is no embedded instance")
		}
		f.Set(reflect.ValueOf(*v.Object))
		return nil
	}
	if v.Kind != Scalar && !(f.Kind() == reflect.String && (v.Kind == Datetime || v.Kind == Interval)) {
		return fmt.Errorf("it is no scalar that fits a %s", f.Type())
	}
	return setText(f, v.Text)
}

// setText takes a scalar's text. Numbers and booleans may stand between spaces, a string is what it is.
func setText(f reflect.Value, text string) error {
	if f.Kind() == reflect.String {
		f.SetString(strings.Clone(text))
		return nil
	}
	text = strings.TrimSpace(text)
	bits := 0
	if f.Kind() != reflect.Bool {
		bits = f.Type().Bits()
	}
	switch {
	case f.Kind() == reflect.Bool:
		if !strings.EqualFold(text, "true") && !strings.EqualFold(text, "false") {
			return fmt.Errorf("%s is no boolean", shown(text))
		}
		f.SetBool(strings.EqualFold(text, "true"))
	case f.CanInt():
		n, err := strconv.ParseInt(text, 10, bits)
		if err != nil {
			return fmt.Errorf("%s is no %s", shown(text), f.Type())
		}
		f.SetInt(n)
	case f.CanUint():
		n, err := strconv.ParseUint(text, 10, bits)
		if err != nil {
			return fmt.Errorf("%s is no %s", shown(text), f.Type())
		}
		f.SetUint(n)
	case f.CanFloat():
		n, err := strconv.ParseFloat(text, bits)
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
			return fmt.Errorf("%s is no %s", shown(text), f.Type())
		}
		f.SetFloat(n)
	}
	return nil
}

// clone is the reference without the memory of the answer it came in.
func (r Ref) clone() Ref {
	c := Ref{Namespace: strings.Clone(r.Namespace), Class: strings.Clone(r.Class)}
	if r.Selectors != nil {
		c.Selectors = make(map[string]string, len(r.Selectors))
		for k, v := range r.Selectors {
			c.Selectors[strings.Clone(k)] = strings.Clone(v)
		}
	}
	return c
}
