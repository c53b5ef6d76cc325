package exposition

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/protip/protip/internal/inventory"
)

// header is a family's HELP and TYPE lines. OpenMetrics names a counter without its _total.
func header(f Family, openMetrics bool) []byte {
	name := f.Name
	if openMetrics && f.Type == inventory.Counter {
		name = strings.TrimSuffix(name, "_total")
	}
	return []byte("# HELP " + name + " " + f.Help + "\n# TYPE " + name + " " + string(f.Type) + "\n")
}

// label appends a further label.
func label(b []byte, name, value string) []byte {
	b = append(b, ',')
	b = append(b, name...)
	b = append(b, '=', '"')
	b = appendEscaped(b, value)
	return append(b, '"')
}

// appendEscaped appends a label's value as both formats want it: backslash, quote and newline escaped, UTF-8 throughout.
func appendEscaped(b []byte, s string) []byte {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, string(utf8.RuneError))
	}
	for {
		i := strings.IndexAny(s, "\\\"\n")
		if i < 0 {
			return append(b, s...)
		}
		b = append(b, s[:i]...)
		switch s[i] {
		case '\n':
			b = append(b, '\\', 'n')
		default:
			b = append(b, '\\', s[i])
		}
		s = s[i+1:]
	}
}

// appendNumber appends a value so that reading it gives the same float64. Whole numbers and those of up to four decimals
// are most of what platforms send, and cheaper to write than the shortest form of any float.
func appendNumber(b []byte, v float64) []byte {
	switch {
	case v == math.Trunc(v) && math.Abs(v) < 1<<53 && !math.Signbit(v):
		return strconv.AppendInt(b, int64(v), 10)
	case math.IsInf(v, 1):
		return append(b, "+Inf"...)
	case v > 0 && v < 1<<32:
		if n := math.Round(v * 1e4); n/1e4 == v {
			return appendDecimal(b, int64(n))
		}
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}

// appendDecimal appends n/10000. The quotient of two exact numbers is rounded as reading its decimals is, so both agree.
func appendDecimal(b []byte, n int64) []byte {
	b = strconv.AppendInt(b, n/1e4, 10)
	rest := n % 1e4
	b = append(b, '.', byte('0'+rest/1000), byte('0'+rest/100%10), byte('0'+rest/10%10), byte('0'+rest%10))
	for b[len(b)-1] == '0' {
		b = b[:len(b)-1]
	}
	return b
}
