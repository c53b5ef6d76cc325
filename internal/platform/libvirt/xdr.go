package libvirt

import (
	"encoding/binary"
	"errors"
	"math"
)

// errShort says that an answer ends before what it should hold.
var errShort = errors.New("answer cannot be decoded")

// decoder reads XDR. After the first failure everything it reads is zero and err says so; nothing it returns is larger than
// what the answer really holds.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) take(n int) []byte {
	if d.err != nil || n < 0 || n > len(d.rest) {
		d.err, d.rest = errShort, nil
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) uint32() uint32 {
	if b := d.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) int32() int32 { return int32(d.uint32()) }

func (d *decoder) uint64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// bytes is a string or an opaque, part of the answer.
func (d *decoder) bytes() []byte {
	n := d.uint32()
	if d.err != nil || uint64(n) > uint64(len(d.rest)) {
		d.err, d.rest = errShort, nil
		return nil
	}
	b := d.take(int(n))
	d.take(int(-n & 3))
	return b
}

func (d *decoder) string() string { return string(d.bytes()) }

// optional is a string that may not be there.
func (d *decoder) optional() string {
	if d.uint32() == 0 {
		return ""
	}
	return d.string()
}

// count is how many elements follow, of which each takes size bytes at least.
func (d *decoder) count(size int) int {
	n := d.uint32()
	if d.err != nil || uint64(n)*uint64(size) > uint64(len(d.rest)) {
		d.err, d.rest = errShort, nil
		return 0
	}
	return int(n)
}

// maxName bounds a domain's name. Calls find a domain by its UUID.
const maxName = 1024

func (d *decoder) domain() Domain {
	name := d.bytes()
	dom := Domain{Name: string(name[:min(len(name), maxName)])}
	copy(dom.UUID[:], d.take(16))
	dom.ID = d.int32()
	return dom
}

// Value is one of the types that a typed parameter may have.
type Value struct {
	number  uint64
	kind    uint32
	content []byte
}

// The types of typed parameters.
const (
	typeInt = iota + 1
	typeUint
	typeLong
	typeUlong
	typeDouble
	typeBool
	typeString
)

// Uint is the number that the value is, false if it is negative, not whole or no number.
func (v Value) Uint() (uint64, bool) {
	switch v.kind {
	case typeUint, typeUlong, typeBool:
		return v.number, true
	case typeInt, typeLong:
		return v.number, int64(v.number) >= 0
	}
	return 0, false
}

// Text is the string that the value is, false if it is none.
func (v Value) Text() (string, bool) { return string(v.content), v.kind == typeString }

func (d *decoder) value() Value {
	v := Value{kind: d.uint32()}
	switch v.kind {
	case typeInt:
		v.number = uint64(int64(d.int32()))
	case typeUint, typeBool:
		v.number = uint64(d.uint32())
	case typeLong, typeUlong, typeDouble:
		v.number = d.uint64()
	case typeString:
		v.content = d.bytes()
	default:
		d.err, d.rest = errShort, nil
	}
	return v
}

// minParam is what a typed parameter takes at least: a name's length, a type and a value.
const minParam = 12

// params calls each with every typed parameter; its name is only lent.
func (d *decoder) params(each func(name []byte, v Value)) {
	for n := d.count(minParam); n > 0 && d.err == nil; n-- {
		name, v := d.bytes(), d.value()
		if d.err == nil {
			each(name, v)
		}
	}
}

func appendUint32(b []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(b, v) }

func appendString(b []byte, s string) []byte {
	b = appendUint32(b, uint32(len(s)))
	b = append(b, s...)
	return append(b, "\x00\x00\x00"[:-len(s)&3]...)
}

func appendDomain(b []byte, dom Domain) []byte {
	b = appendString(b, dom.Name)
	b = append(b, dom.UUID[:]...)
	return appendUint32(b, uint32(dom.ID))
}

// Float is the number that the value is, false if it is none or not finite.
func (v Value) Float() (float64, bool) {
	switch v.kind {
	case typeUint, typeUlong, typeBool:
		return float64(v.number), true
	case typeInt, typeLong:
		return float64(int64(v.number)), true
	case typeDouble:
		f := math.Float64frombits(v.number)
		return f, !math.IsNaN(f) && !math.IsInf(f, 0)
	}
	return 0, false
}
