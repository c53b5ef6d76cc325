package capture

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// mask replaces what could tell whose host it is: each word that is no word of Windows, each address, SID, GUID, serial
// number. What was equal stays equal, whatever its case, so that a counter's VM name still joins the VM. Numbers that are
// values, booleans and times stay: without them a capture is worth nothing.
type mask struct {
	known map[string]bool // words of this capture that stay: names of classes and properties
	names map[string]int  // the number of what was replaced, by its kind and lower case
	count map[string]int  // of replacements, by kind
}

func newMask() *mask {
	return &mask{known: map[string]bool{}, names: map[string]int{}, count: map[string]int{}}
}

// learn takes the names of a document's elements for words that stay: they are Windows' own.
func (m *mask) learn(doc string) {
	d := xml.NewDecoder(strings.NewReader(doc))
	for {
		t, err := d.RawToken()
		if err != nil {
			return
		}
		if start, ok := t.(xml.StartElement); ok {
			m.known[strings.ToLower(start.Name.Local)] = true
		}
	}
}

// XML masks a document: texts, and attributes that are not XML's or CIM's own.
func (m *mask) XML(doc string) (string, error) {
	d := xml.NewDecoder(strings.NewReader(doc))
	var b strings.Builder
	var open []string  // names of the open elements
	var owner []string // the property that each of them is or stands in
	for {
		t, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			if len(open) > 0 {
				return "", io.ErrUnexpectedEOF
			}
			return b.String(), nil
		}
		if err != nil {
			return "", err
		}
		switch t := t.(type) {
		case xml.StartElement:
			b.WriteString("<" + qualified(t.Name))
			property := t.Name.Local
			for _, a := range t.Attr {
				value := a.Value
				switch {
				case a.Name.Local == "NAME" && strings.HasPrefix(t.Name.Local, "PROPERTY"), a.Name.Local == "Name" && t.Name.Local == "Selector":
					property = value
				case !keptAttribute(a.Name):
					value = m.words(value)
				}
				b.WriteString(" " + qualified(a.Name) + `="` + escaped(value) + `"`)
			}
			b.WriteString(">")
			if len(owner) > 0 && strings.HasPrefix(t.Name.Local, "VALUE") {
				property = owner[len(owner)-1]
			}
			open, owner = append(open, t.Name.Local), append(owner, property)
		case xml.EndElement:
			if len(open) == 0 || open[len(open)-1] != t.Name.Local {
				return "", fmt.Errorf("end tag %q closes nothing", t.Name.Local)
			}
			open, owner = open[:len(open)-1], owner[:len(owner)-1]
			b.WriteString("</" + qualified(t.Name) + ">")
		case xml.CharData:
			if len(open) == 0 {
				b.Write(t)
				continue
			}
			b.WriteString(escaped(m.text(string(t), open, owner[len(owner)-1])))
		}
	}
}

func qualified(n xml.Name) string {
	if n.Space == "" {
		return n.Local
	}
	return n.Space + ":" + n.Local
}

func escaped(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a strings.Builder does not fail
	return b.String()
}

var attributes = []string{"nil", "type", "lang", "mustUnderstand", "Name", "Code", "TYPE", "CLASSNAME", "CLASSORIGIN", "PROPAGATED", "provider", "path"}

func keptAttribute(n xml.Name) bool {
	return n.Space == "xmlns" || n.Local == "xmlns" || slices.Contains(attributes, n.Local)
}

// secret are properties whose value tells who the owner is in whatever form, and so is replaced whole.
var secret = regexp.MustCompile(`(?i)serial|assettag|identifyingnumber|productkey|registereduser|organization|^notes$|thumbnail`)

var (
	dmtfTime = regexp.MustCompile(`^\d{8,14}(\.\d{6}[+:-]\d{3})?$`)
	schemas  = regexp.MustCompile(`^http://(schemas\.(xmlsoap\.org|dmtf\.org|microsoft\.com)|www\.w3\.org)/`)
)

// text masks the text of an element.
func (m *mask) text(s string, open []string, property string) string {
	trimmed := strings.TrimSpace(s)
	_, notNumber := strconv.ParseFloat(trimmed, 64)
	innermost := open[len(open)-1]
	switch {
	case trimmed == "":
		return s
	case secret.MatchString(property):
		if notNumber == nil {
			return "0"
		}
		return "masked"
	case notNumber == nil && len(trimmed) <= 20, dmtfTime.MatchString(trimmed), schemas.MatchString(trimmed):
		return s
	case innermost == "Datetime" || innermost == "Interval" || slices.Contains(open, "Code"):
		return s
	case strings.HasPrefix(trimmed, "<INSTANCE"):
		if inner, err := m.XML(trimmed); err == nil {
			return inner
		}
		return "masked"
	}
	return m.words(s)
}

// pieces finds what is replaced as a whole; what merely looks like an address is taken apart into words.
var pieces = regexp.MustCompile(`(?i)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}` + // GUID
	`|S-1-[0-9]+(?:-[0-9]+)+` + // SID
	`|(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}` + // MAC
	`|(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}` + // IPv6
	`|[0-9]{1,3}(?:\.[0-9]{1,3}){3}` + // IPv4
	`|[\p{L}\p{M}\p{N}_$]+`)

var word = regexp.MustCompile(`[\p{L}\p{M}\p{N}_$]+`)

func (m *mask) words(s string) string { return pieces.ReplaceAllStringFunc(s, m.piece) }

func (m *mask) piece(s string) string {
	lower := strings.ToLower(s)
	switch {
	case len(s) == 36 && strings.Count(s, "-") == 4:
		return like(s, m.replace("guid", lower, "00000000-0000-4000-8000-%012x"))
	case strings.HasPrefix(lower, "s-1-5-21-"):
		return m.replace("sid", lower, "S-1-5-21-1-1-1-%d")
	case strings.HasPrefix(lower, "s-1-"):
		return s // the same on every Windows
	case len(s) == 17 && (strings.Count(s, ":") == 5 || strings.Count(s, "-") == 5):
		return like(s, strings.ReplaceAll(macOf(m.number("mac", strings.NewReplacer(":", "", "-", "").Replace(lower))), "-", s[2:3]))
	}
	if addr, err := netip.ParseAddr(s); err == nil {
		switch {
		case addr.IsLoopback() || addr.IsUnspecified() || addr.Is4() && addr.As4()[0] == 255:
			return s
		case addr.Is4():
			n := m.number("ipv4", lower)
			return fmt.Sprintf("198.18.%d.%d", n/250%256, n%250+1)
		default:
			return m.replace("ipv6", lower, "2001:db8::%x")
		}
	}
	return word.ReplaceAllStringFunc(s, m.word)
}

func macOf(n int) string {
	return fmt.Sprintf("02-00-00-%02x-%02x-%02x", n>>16&0xff, n>>8&0xff, n&0xff)
}

var (
	digits    = regexp.MustCompile(`^[0-9]+$`)
	bareMAC   = regexp.MustCompile(`^(?i)[0-9a-f]{12}$`)
	hresult   = regexp.MustCompile(`^(?i)0x[0-9a-f]{1,8}$`)
	className = regexp.MustCompile(`^(?i)(msvm|mscluster|win32|cim|msft|meta)_\w+$`)
)

func (m *mask) word(s string) string {
	lower := strings.ToLower(s)
	switch {
	case vocabulary[lower] || m.known[lower] || className.MatchString(s) || hresult.MatchString(s):
		return s
	case digits.MatchString(s) && len(s) <= 4:
		return s
	case bareMAC.MatchString(s):
		return like(s, strings.ReplaceAll(macOf(m.number("mac", lower)), "-", ""))
	case digits.MatchString(s):
		return fmt.Sprintf("%0*d", len(s), m.number("digits", lower))
	}
	return like(s, m.replace("name", lower, "name%d"))
}

// replace is what stands for a thing: the same whenever it comes again.
func (m *mask) replace(kind, lower, format string) string {
	return fmt.Sprintf(format, m.number(kind, lower))
}

func (m *mask) number(kind, lower string) int {
	key := kind + " " + lower
	n, ok := m.names[key]
	if !ok {
		m.count[kind]++
		n = m.count[kind]
		m.names[key] = n
	}
	return n
}

// like writes a replacement in capitals if the original was.
func like(original, replacement string) string {
	if strings.ToUpper(original) == original && strings.ToLower(original) != original {
		return strings.ToUpper(replacement)
	}
	return replacement
}
