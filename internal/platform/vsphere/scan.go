package vsphere

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vim25/xml"
)

const (
	scanBuffer = 64 << 10
	// maxToken bounds one tag or text, and so what a Scanner holds of an answer.
	maxToken = 1 << 20
	// maxRaw bounds an element that is kept whole.
	maxRaw = 64 << 20
	// maxDepth bounds how deep elements nest.
	maxDepth = 64
)

const xsiNamespace = "http://www.w3.org/2001/XMLSchema-instance"

// Scanner reads an XML document element by element and makes nothing of it that its caller does not ask for. It is for the
// few answers that are too large for reflection. Names are compared without their prefixes; comments, processing
// instructions and text between elements are passed over; entities and CDATA are read. What it cannot read is an error, after
// which there are no more children and no text.
//
// An element that Child opened is closed by one of: Text, Skip, or Child until it returns false. What Name, Tag, Type, Attr
// and Text return is valid until the next call.
type Scanner struct {
	r        io.Reader
	buf      []byte
	pos, end int  // buf[pos:end] is read and not yet scanned
	moved    bool // the document's beginning is no longer in buf
	keeping  bool // buf[kept:pos] is of an element that is kept whole
	kept     int

	open   []byte // the names of the open elements, as written, one after the other
	starts []int  // of each in open
	empty  bool   // the innermost open element was written <x/>

	name  []byte // of the innermost open element, without prefix
	tag   []byte // that opened it
	attrs []attribute
	xsi   []string // the prefixes of xsiNamespace
	text  []byte   // of one that does not stand in buf in one piece
	err   error
}

type attribute struct{ prefix, name, value []byte }

var scanners = sync.Pool{New: func() any { return &Scanner{buf: make([]byte, scanBuffer)} }}

// NewScanner reads a document.
func NewScanner(r io.Reader) *Scanner {
	s := scanners.Get().(*Scanner)
	s.r, s.pos, s.end, s.moved, s.keeping, s.empty, s.err = r, 0, 0, false, false, false, nil
	s.open, s.starts, s.name, s.xsi = s.open[:0], s.starts[:0], nil, append(s.xsi[:0], "xsi")
	return s
}

// Close gives the buffer back. The reader is not closed.
func (s *Scanner) Close() {
	s.r = nil
	if len(s.buf) == scanBuffer {
		scanners.Put(s)
	}
}

// Err is the first error, nil if there was none.
func (s *Scanner) Err() error {
	if s.err == io.EOF {
		return fmt.Errorf("answer ends early: %w", io.ErrUnexpectedEOF)
	}
	return s.err
}

// Name is the name of the element that Child opened.
func (s *Scanner) Name() []byte { return s.name }

// Tag is its start tag as written.
func (s *Scanner) Tag() []byte { return s.tag }

// Type is its xsi:type, nil if it has none.
func (s *Scanner) Type() []byte {
	for i := range s.attrs {
		a := &s.attrs[i]
		if string(a.name) == "type" && len(a.prefix) > 0 && s.isXSI(a.prefix) {
			return a.value[bytes.IndexByte(a.value, ':')+1:]
		}
	}
	return nil
}

func (s *Scanner) isXSI(prefix []byte) bool {
	for _, p := range s.xsi {
		if p == string(prefix) {
			return true
		}
	}
	return false
}

// bind notes a declaration of a prefix. It holds for the rest of the document: no vCenter binds one twice.
func (s *Scanner) bind(prefix, namespace []byte) {
	if s.isXSI(prefix) && string(namespace) == xsiNamespace {
		return
	}
	s.xsi = slices.DeleteFunc(s.xsi, func(p string) bool { return p == string(prefix) })
	if string(namespace) == xsiNamespace {
		s.xsi = append(s.xsi, string(prefix))
	}
}

// Attr is the value of its attribute that has no prefix, nil if it has none.
func (s *Scanner) Attr(name string) []byte {
	for i := range s.attrs {
		if a := &s.attrs[i]; string(a.name) == name && len(a.prefix) == 0 {
			return a.value
		}
	}
	return nil
}

// Child opens the next element within the innermost open one, or the document's root. It returns false when there is none:
// the innermost is then closed.
func (s *Scanner) Child() bool {
	if s.empty {
		s.pop()
		return false
	}
	for s.err == nil {
		i := bytes.IndexByte(s.buf[s.pos:s.end], '<')
		if i < 0 {
			s.pos = s.end
			s.fill()
			continue
		}
		s.pos += i
		n := 0
		switch s.peek(1) {
		case 0:
		case '/':
			if n = s.endTag(s.pos); n > 0 {
				s.pos += n
				s.pop()
				return false
			}
		case '!', '?':
			if n, _ = s.aside(s.pos); n > 0 {
				s.pos += n
				continue
			}
		default:
			if n = s.startTag(); n > 0 {
				s.pos += n
				return s.err == nil
			}
		}
		s.fill() // the rest of what begins here
	}
	return false
}

// Text is the text of the innermost open element, which is closed. It is an error if there are elements in it.
func (s *Scanner) Text() []byte {
	if s.empty {
		s.pop()
		return nil
	}
	s.text = s.text[:0]
	for s.err == nil {
		i := bytes.IndexByte(s.buf[s.pos:s.end], '<')
		if i < 0 || s.pos+i+1 == s.end {
			s.fill()
			continue
		}
		text, at := s.buf[s.pos:s.pos+i], s.pos+i
		switch s.buf[at+1] {
		case '/':
			n := s.endTag(at)
			if n == 0 {
				break
			}
			s.pos = at + n
			s.pop()
			if len(s.text) == 0 && bytes.IndexByte(text, '&') < 0 {
				return text
			}
			return s.join(text)
		case '!', '?':
			n, verbatim := s.aside(at)
			if n == 0 {
				break
			}
			s.join(text)
			s.text = append(s.text, verbatim...)
			s.pos = at + n
			if len(s.text) > maxToken {
				s.fail("a text is too long")
			}
			continue
		default:
			s.fail("an element stands where only text is expected")
		}
		s.fill()
	}
	return nil
}

// Skip closes the innermost open element with all that is in it.
func (s *Scanner) Skip() {
	for depth := len(s.starts); len(s.starts) >= depth && s.err == nil; {
		s.Child()
	}
}

// Raw is the innermost open element, which is closed, as written. It must have been opened just now.
func (s *Scanner) Raw() []byte {
	s.keeping, s.kept = true, s.pos-len(s.tag)
	s.Skip()
	s.keeping = false
	if s.err != nil {
		return nil
	}
	return s.buf[s.kept:s.pos]
}

// decode reads an element, as Raw gave it, by reflection. holder has a field for it.
func (s *Scanner) decode(raw []byte, holder any) error {
	var head bytes.Buffer
	head.WriteString("<a")
	for _, prefix := range s.xsi {
		fmt.Fprintf(&head, " xmlns:%s=%q", prefix, xsiNamespace)
	}
	head.WriteString(">")
	dec := xml.NewDecoder(io.MultiReader(&head, bytes.NewReader(raw), strings.NewReader("</a>")))
	dec.TypeFunc = types.TypeFunc()
	return dec.Decode(holder)
}

// Ahead is what is already in the buffer and not yet scanned, for a caller that knows the form that most answers have. If it
// begins with whole elements, Pass passes over n bytes of them.
func (s *Scanner) Ahead() []byte {
	if s.empty || s.err != nil {
		return nil
	}
	return s.buf[s.pos:s.end]
}

// Pass passes over n bytes of Ahead.
func (s *Scanner) Pass(n int) { s.pos += n }

// Finish checks that nothing follows the root.
func (s *Scanner) Finish() error {
	for s.err == nil {
		rest := bytes.TrimLeft(s.buf[s.pos:s.end], " \t\r\n")
		s.pos = s.end - len(rest)
		if len(rest) == 0 {
			if s.fill(); s.err == io.EOF {
				s.err = nil
				return nil
			}
			continue
		}
		if c := s.peek(1); rest[0] != '<' || c != 0 && c != '!' && c != '?' {
			s.fail("something follows the end of the answer")
		} else if n, verbatim := s.aside(s.pos); c != 0 && n > 0 && verbatim == nil {
			s.pos += n
		} else {
			s.fill()
		}
	}
	return s.Err()
}

// replay is the whole document anew, false if too much of it was scanned.
func (s *Scanner) replay() (io.Reader, bool) {
	return io.MultiReader(bytes.NewReader(s.buf[:s.end]), s.r), !s.moved
}

func (s *Scanner) fail(text string) {
	if s.err == nil {
		s.err = errors.New("answer cannot be read: " + text)
	}
}

// fill reads more behind what is in buf.
func (s *Scanner) fill() {
	if s.err != nil {
		return
	}
	if s.end == len(s.buf) {
		from, limit := s.pos, maxToken
		if s.keeping {
			from, limit = s.kept, maxRaw
		}
		if from > 0 {
			copy(s.buf, s.buf[from:s.end])
			s.pos, s.end, s.kept, s.moved = s.pos-from, s.end-from, 0, true
		} else if len(s.buf) >= limit {
			s.fail("a tag, text or value is too long")
			return
		} else {
			s.buf = append(s.buf, make([]byte, len(s.buf))...)
		}
	}
	for range 100 {
		n, err := s.r.Read(s.buf[s.end:])
		s.end += n
		if n > 0 {
			return // an error comes again
		}
		if err != nil {
			s.err = err
			return
		}
	}
	s.err = io.ErrNoProgress
}

// peek is the byte i behind pos, 0 if it is not there yet.
func (s *Scanner) peek(i int) byte {
	if s.pos+i < s.end {
		return s.buf[s.pos+i]
	}
	return 0
}

func (s *Scanner) push(qualified []byte) {
	if len(s.starts) == maxDepth {
		s.fail("elements nest too deep")
		return
	}
	s.starts = append(s.starts, len(s.open))
	s.open = append(s.open, qualified...)
}

func (s *Scanner) pop() {
	last := len(s.starts) - 1
	s.open, s.starts, s.empty = s.open[:s.starts[last]], s.starts[:last], false
}

// join adds a piece to text, entities read.
func (s *Scanner) join(piece []byte) []byte {
	var ok bool
	if s.text, ok = unescape(s.text, piece); !ok {
		s.fail("an entity is not known")
		return nil
	}
	return s.text
}

// startTag opens the element whose tag begins at pos, and returns the tag's length: 0 if not all of it is there, or after an error.
func (s *Scanner) startTag() int {
	b := s.buf[s.pos:s.end]
	i := nameEnd(b, 1)
	if i == len(b) {
		return 0
	}
	qualified := b[1:i]
	s.attrs = s.attrs[:0]
	if b[i] != '>' {
		if i = s.attributes(b, i); i == 0 {
			return 0
		}
	}
	_, local, ok := cutName(qualified)
	if !ok {
		s.fail("a tag has no name")
		return 0
	}
	s.name, s.tag, s.empty = local, b[:i+1], b[i-1] == '/'
	s.push(qualified)
	return i + 1
}

// attributes reads those from b[i] on and returns where the tag's > is: 0 if not all of it is there, or after an error.
func (s *Scanner) attributes(b []byte, i int) int {
	for {
		i = spaceEnd(b, i)
		if i+1 >= len(b) {
			if i < len(b) && b[i] == '>' {
				return i
			}
			return 0
		}
		if b[i] == '>' {
			return i
		}
		if b[i] == '/' {
			if b[i+1] != '>' {
				s.fail("a / stands within a tag")
				return 0
			}
			return i + 1
		}
		from := i
		i = nameEnd(b, i)
		prefix, name, ok := cutName(b[from:i])
		i = spaceEnd(b, i)
		if i == len(b) {
			return 0
		}
		if !ok || b[i] != '=' {
			s.fail("an attribute cannot be read")
			return 0
		}
		i = spaceEnd(b, i+1)
		if i == len(b) {
			return 0
		}
		quote := b[i]
		if quote != '"' && quote != '\'' {
			s.fail("an attribute has no quotes")
			return 0
		}
		n := bytes.IndexByte(b[i+1:], quote)
		if n < 0 {
			return 0
		}
		value := b[i+1 : i+1+n]
		i += n + 2
		if bytes.IndexByte(value, '<') >= 0 {
			s.fail("an attribute holds a <")
			return 0
		}
		if bytes.IndexByte(value, '&') >= 0 {
			if value, ok = unescape(nil, value); !ok {
				s.fail("an entity is not known")
				return 0
			}
		}
		if string(prefix) == "xmlns" {
			s.bind(name, value)
		}
		s.attrs = append(s.attrs, attribute{prefix, name, value})
	}
}

// endTag is the length of the end tag at buf[at:], which must be the innermost element's: 0 if not all of it is there, or after
// an error.
func (s *Scanner) endTag(at int) int {
	b := s.buf[at:s.end]
	if len(s.starts) == 0 {
		s.fail("an end tag has no beginning")
		return 0
	}
	name := s.open[s.starts[len(s.starts)-1]:]
	i := 2 + len(name)
	if i >= len(b) {
		return 0
	}
	if string(b[2:i]) == string(name) {
		if b[i] == '>' {
			return i + 1
		}
		if i = spaceEnd(b, i); i == len(b) {
			return 0
		}
		if b[i] == '>' {
			return i + 1
		}
	}
	s.fail("an end tag is not that of the innermost element")
	return 0
}

// aside is the length of the comment, instruction or CDATA at buf[at:], and the text of CDATA: 0 if not all of it is there, or
// after an error. Declarations have no place in an answer.
func (s *Scanner) aside(at int) (n int, verbatim []byte) {
	b := s.buf[at:s.end]
	for _, form := range [...]struct{ open, close string }{{"<?", "?>"}, {"<!--", "-->"}, {"<![CDATA[", "]]>"}} {
		if len(b) < len(form.open) && string(b) == form.open[:len(b)] {
			return 0, nil
		}
		if !bytes.HasPrefix(b, []byte(form.open)) {
			continue
		}
		rest := b[len(form.open):]
		i := bytes.Index(rest, []byte(form.close))
		if i < 0 {
			return 0, nil
		}
		if form.close == "]]>" {
			verbatim = rest[:i:i]
		}
		return len(form.open) + i + len(form.close), verbatim
	}
	s.fail("a declaration stands in it")
	return 0, nil
}

// nameEnd is where the name that begins at b[i] ends.
func nameEnd(b []byte, i int) int {
	for ; i < len(b); i++ {
		if c := b[i]; c <= ' ' || c == '>' || c == '/' || c == '=' {
			return i
		}
	}
	return i
}

func spaceEnd(b []byte, i int) int {
	for ; i < len(b); i++ {
		if c := b[i]; c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			return i
		}
	}
	return i
}

// cutName parts a name from its prefix. A name has none of what would make it something else.
func cutName(qualified []byte) (prefix, local []byte, ok bool) {
	local = qualified
	for i, c := range qualified {
		switch c {
		case ':':
			if prefix != nil || i == 0 {
				return nil, nil, false
			}
			prefix, local = qualified[:i], qualified[i+1:]
		case '<', '&', '"', '\'':
			return nil, nil, false
		}
	}
	return prefix, local, len(local) > 0
}

// unescape appends b with its entities read, false if one is not known.
func unescape(to, b []byte) ([]byte, bool) {
	for {
		i := bytes.IndexByte(b, '&')
		if i < 0 {
			return append(to, b...), true
		}
		to = append(to, b[:i]...)
		entity, rest, ok := bytes.Cut(b[i+1:], []byte(";"))
		if !ok {
			return to, false
		}
		b = rest
		switch string(entity) {
		case "lt":
			to = append(to, '<')
		case "gt":
			to = append(to, '>')
		case "amp":
			to = append(to, '&')
		case "apos":
			to = append(to, '\'')
		case "quot":
			to = append(to, '"')
		default:
			r, ok := character(string(entity))
			if !ok {
				return to, false
			}
			to = utf8.AppendRune(to, r)
		}
	}
}

// character reads #65 and #x41.
func character(entity string) (rune, bool) {
	if len(entity) < 2 || entity[0] != '#' {
		return 0, false
	}
	digits, base := entity[1:], 10
	if digits[0] == 'x' {
		digits, base = digits[1:], 16
	}
	n, err := strconv.ParseUint(digits, base, 32)
	if err != nil || n > utf8.MaxRune || !utf8.ValidRune(rune(n)) {
		return 0, false
	}
	return rune(n), true
}

// AppendText appends s as an XML text.
func AppendText(b []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; c {
		case '<':
			b = append(b, "&lt;"...)
		case '>':
			b = append(b, "&gt;"...)
		case '&':
			b = append(b, "&amp;"...)
		case '\r':
			b = append(b, "&#xD;"...)
		default:
			b = append(b, c)
		}
	}
	return b
}
