package winrm

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds how deep elements nest. An instance within an instance within an answer is about 12 deep.
const maxDepth = 48

// maxAttributes bounds those of one element.
const maxAttributes = 64

// scanner reads an XML document token by token. It is strict about nesting and knows the five entities of XML and numbers:
// a document type declaration, and so any entity of its own, is an error. What it returns are pieces of the document,
// without a copy unless an entity stands in them.
type scanner struct {
	doc string
	pos int

	open   []string // names of the open elements, as written
	empty  bool     // the innermost was written <x/>
	rooted bool     // the one root element has begun

	name  string // of the start or end tag last read, as written
	attrs []attr // of the start tag last read
	text  string // last read
}

type attr struct{ name, value string }

type token uint8

const (
	tokenStart token = iota
	tokenEnd
	tokenText
	tokenEOF
)

// local is a name without its prefix.
func local(name string) string { return name[strings.IndexByte(name, ':')+1:] }

// prefix is a name's prefix, with its colon, empty if it has none.
func prefix(name string) string { return name[:strings.IndexByte(name, ':')+1] }

// attr is the value of the attribute of that local name, empty if there is none.
func (s *scanner) attr(name string) string {
	for _, a := range s.attrs {
		if local(a.name) == name && !strings.HasPrefix(a.name, "xmlns") {
			return a.value
		}
	}
	return ""
}

// next is the next token. Comments and processing instructions are passed over; text between them comes in pieces.
func (s *scanner) next() (token, error) {
	if s.empty {
		s.empty = false
		return s.end(s.open[len(s.open)-1])
	}
	for s.pos < len(s.doc) {
		rest := s.doc[s.pos:]
		if rest[0] != '<' {
			n := strings.IndexByte(rest, '<')
			if n < 0 {
				n = len(rest)
			}
			s.pos += n
			if len(s.open) == 0 {
				if strings.TrimSpace(rest[:n]) != "" {
					return 0, errors.New("text outside of the root element")
				}
				continue
			}
			var err error
			s.text, err = unescape(rest[:n])
			return tokenText, err
		}
		switch {
		case strings.HasPrefix(rest, "</"):
			n := strings.IndexByte(rest, '>')
			if n < 0 {
				return 0, errShort
			}
			s.pos += n + 1
			return s.end(strings.TrimRight(rest[2:n], " \t\r\n"))
		case strings.HasPrefix(rest, "<?"):
			if err := s.pass("?>"); err != nil {
				return 0, err
			}
		case strings.HasPrefix(rest, "<!--"):
			s.pos += 2 // <!--> is no whole comment
			if err := s.pass("-->"); err != nil {
				return 0, err
			}
		case strings.HasPrefix(rest, "<![CDATA[") && len(s.open) > 0:
			const head = len("<![CDATA[")
			n := strings.Index(rest[head:], "]]>")
			if n < 0 {
				return 0, errShort
			}
			s.pos += head + n + len("]]>")
			s.text = rest[head : head+n]
			return tokenText, nil
		case strings.HasPrefix(rest, "<!"):
			return 0, errors.New("a document type declaration is refused")
		default:
			return s.start()
		}
	}
	if len(s.open) > 0 || !s.rooted {
		return 0, errShort
	}
	return tokenEOF, nil
}

var errShort = errors.New("the document ends early")

func (s *scanner) pass(end string) error {
	n := strings.Index(s.doc[s.pos+2:], end)
	if n < 0 {
		return errShort
	}
	s.pos += 2 + n + len(end)
	return nil
}

func (s *scanner) end(name string) (token, error) {
	last := len(s.open) - 1
	if last < 0 || s.open[last] != name {
		return 0, fmt.Errorf("end tag %s closes nothing", shown(name))
	}
	s.open, s.name = s.open[:last], name
	return tokenEnd, nil
}

func (s *scanner) start() (token, error) {
	if len(s.open) == 0 && s.rooted {
		return 0, errors.New("a second root element")
	}
	if len(s.open) == maxDepth {
		return 0, fmt.Errorf("elements nest deeper than %d", maxDepth)
	}
	s.pos++
	if s.name = s.word(); s.name == "" {
		return 0, fmt.Errorf("no element's name at byte %d", s.pos)
	}
	s.attrs = s.attrs[:0]
	for {
		s.space()
		if s.pos >= len(s.doc) {
			return 0, errShort
		}
		switch s.doc[s.pos] {
		case '>':
			s.pos++
			s.open, s.rooted = append(s.open, s.name), true
			return tokenStart, nil
		case '/':
			if !strings.HasPrefix(s.doc[s.pos:], "/>") {
				return 0, fmt.Errorf("a slash in tag %s", shown(s.name))
			}
			s.pos += 2
			s.open, s.rooted, s.empty = append(s.open, s.name), true, true
			return tokenStart, nil
		}
		if err := s.attribute(); err != nil {
			return 0, err
		}
	}
}

func (s *scanner) attribute() error {
	if len(s.attrs) == maxAttributes {
		return fmt.Errorf("tag %s has more than %d attributes", shown(s.name), maxAttributes)
	}
	name := s.word()
	s.space()
	if name == "" || s.pos+1 >= len(s.doc) || s.doc[s.pos] != '=' {
		return fmt.Errorf("tag %s has an attribute without a value", shown(s.name))
	}
	s.pos++
	s.space()
	if s.pos >= len(s.doc) {
		return errShort
	}
	quote := s.doc[s.pos]
	if quote != '"' && quote != '\'' {
		return fmt.Errorf("tag %s has an attribute without quotes", shown(s.name))
	}
	n := strings.IndexByte(s.doc[s.pos+1:], quote)
	if n < 0 {
		return errShort
	}
	value, err := unescape(s.doc[s.pos+1 : s.pos+1+n])
	if err != nil {
		return err
	}
	s.pos += n + 2
	s.attrs = append(s.attrs, attr{name, value})
	return nil
}

// word is a name: what stands before anything that ends one.
func (s *scanner) word() string {
	from := s.pos
	for s.pos < len(s.doc) {
		switch s.doc[s.pos] {
		case ' ', '\t', '\r', '\n', '=', '/', '>', '<', '"', '\'', '&':
			return s.doc[from:s.pos]
		}
		s.pos++
	}
	return s.doc[from:s.pos]
}

func (s *scanner) space() {
	for s.pos < len(s.doc) {
		switch s.doc[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return
		}
	}
}

// skip reads to the end of the element whose start was read last.
func (s *scanner) skip() error {
	for depth := len(s.open); ; {
		t, err := s.next()
		if err != nil {
			return err
		}
		if t == tokenEnd && len(s.open) < depth {
			return nil
		}
	}
}

// content is the text of the element whose start was read last, to its end, without that of elements within it.
func (s *scanner) content() (string, error) {
	text := ""
	for depth := len(s.open); ; {
		switch t, err := s.next(); {
		case err != nil:
			return "", err
		case t == tokenText && len(s.open) == depth:
			text = joined(text, s.text)
		case t == tokenEnd && len(s.open) < depth:
			return text, nil
		}
	}
}

// joined spares the copy when there is one piece.
func joined(a, b string) string {
	if a == "" {
		return b
	}
	return a + b
}

// unescape replaces entities. A character that XML does not have becomes U+FFFD.
func unescape(s string) (string, error) {
	i := strings.IndexByte(s, '&')
	if i < 0 {
		return s, nil
	}
	var b strings.Builder
	b.Grow(len(s))
	for ; i >= 0; i = strings.IndexByte(s, '&') {
		b.WriteString(s[:i])
		s = s[i+1:]
		n := strings.IndexByte(s[:min(len(s), 12)], ';')
		if n < 0 {
			return "", errors.New("an & that begins no entity")
		}
		r, err := entity(s[:n])
		if err != nil {
			return "", err
		}
		b.WriteRune(r)
		s = s[n+1:]
	}
	b.WriteString(s)
	return b.String(), nil
}

func entity(name string) (rune, error) {
	switch name {
	case "amp":
		return '&', nil
	case "lt":
		return '<', nil
	case "gt":
		return '>', nil
	case "quot":
		return '"', nil
	case "apos":
		return '\'', nil
	}
	digits, base := strings.TrimPrefix(name, "#"), 10
	if digits == name {
		return 0, fmt.Errorf("unknown entity %s", shown(name))
	}
	if hex := strings.TrimPrefix(digits, "x"); hex != digits {
		digits, base = hex, 16
	}
	n, err := strconv.ParseUint(digits, base, 32)
	if err != nil {
		return 0, fmt.Errorf("unknown entity %s", shown(name))
	}
	if r := rune(n); n <= utf8.MaxRune && utf8.ValidRune(r) && (r >= ' ' || r == '\t' || r == '\n' || r == '\r') {
		return r, nil
	}
	return utf8.RuneError, nil
}
