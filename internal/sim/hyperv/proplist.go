package hyperv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"
)

// A clusapi property list, as MoveToNewNodeParams takes it: a count, then for each property its name and its value, each preceded
// by a word that says what it is and a word that says how many bytes it has, padded to four, and an end mark after each value.
//
//	count   4 bytes
//	syntax  0x00040003 name, string   length  UTF-16 with its final zero, padded
//	syntax  0x00010002 list, dword    length  4 bytes
//	syntax  0x00000000 end
//
// All numbers are little-endian.
const (
	syntaxEnd   = 0x00000000
	syntaxName  = 0x00040003
	syntaxDword = 0x00010002
)

// Ways to migrate a VM, as the properties named below have it: 0 is turned off, 1 quick, 2 and 3 shut down, 4 live.
const (
	migrationQuick = 1
	migrationLive  = 4
)

const (
	propertyVM            = "Virtual Machine"
	propertyConfiguration = "Virtual Machine Configuration"
)

const maxProperties = 64

// parsePropertyList reads every byte of a list. What is left over, cut off or of another syntax is an error.
func parsePropertyList(b []byte) (map[string]uint32, error) {
	r := &listReader{rest: b}
	count := r.word()
	if count > maxProperties {
		return nil, fmt.Errorf("property list: %d properties", count)
	}
	list := map[string]uint32{}
	for i := range count {
		if syntax := r.word(); syntax != syntaxName {
			return nil, fmt.Errorf("property list: property %d begins with syntax 0x%08x, want a name", i, syntax)
		}
		name, err := utf16Text(r.value())
		if err != nil {
			return nil, fmt.Errorf("property list: name of property %d: %w", i, err)
		}
		if syntax := r.word(); syntax != syntaxDword {
			return nil, fmt.Errorf("property list: %s has syntax 0x%08x, want a dword", name, syntax)
		}
		value := r.value()
		if len(value) != 4 {
			return nil, fmt.Errorf("property list: %s has a dword of %d bytes", name, len(value))
		}
		if mark := r.word(); mark != syntaxEnd {
			return nil, fmt.Errorf("property list: after %s there is 0x%08x, want an end mark", name, mark)
		}
		if _, twice := list[name]; twice {
			return nil, fmt.Errorf("property list: %s stands there twice", name)
		}
		list[name] = binary.LittleEndian.Uint32(value)
	}
	if r.short {
		return nil, errors.New("property list: it ends early")
	}
	if len(r.rest) > 0 {
		return nil, fmt.Errorf("property list: %d bytes after its end", len(r.rest))
	}
	return list, nil
}

// listReader reads words and values; beyond the end it reads zeros and remembers that it did.
type listReader struct {
	rest  []byte
	short bool
}

func (r *listReader) word() uint32 {
	b := r.bytes(4)
	if len(b) < 4 {
		return 0
	}
	return binary.LittleEndian.Uint32(b)
}

// value is a length and so many bytes, and passes over what pads them to four.
func (r *listReader) value() []byte {
	length := r.word()
	if length > uint32(len(r.rest)) {
		r.short = true
		return nil
	}
	b := r.bytes(int(length))
	r.bytes(int(-length & 3))
	return b
}

func (r *listReader) bytes(n int) []byte {
	if n > len(r.rest) {
		r.short = true
		r.rest = nil
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func utf16Text(b []byte) (string, error) {
	if len(b) < 2 || len(b)%2 != 0 || b[len(b)-1] != 0 || b[len(b)-2] != 0 {
		return "", errors.New("not UTF-16 with a final zero")
	}
	units := make([]uint16, len(b)/2-1)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	text := string(utf16.Decode(units))
	if strings.ContainsRune(text, 0) {
		return "", errors.New("a zero inside")
	}
	return text, nil
}
