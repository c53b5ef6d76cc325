package winrm

import (
	"crypto/rand"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Namespaces and actions of WS-Management.
const (
	nsSOAP        = "http://www.w3.org/2003/05/soap-envelope"
	nsAddressing  = "http://schemas.xmlsoap.org/ws/2004/08/addressing"
	nsEnumeration = "http://schemas.xmlsoap.org/ws/2004/09/enumeration"
	nsManagement  = "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd"
	nsMicrosoft   = "http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd"
	nsInstance    = "http://www.w3.org/2001/XMLSchema-instance"
	nsCIM         = "http://schemas.dmtf.org/wbem/wscim/1/common"
	wmiBase       = "http://schemas.microsoft.com/wbem/wsman/1/wmi/"
	dialectWQL    = "http://schemas.microsoft.com/wbem/wsman/1/WQL"
	anonymous     = nsAddressing + "/role/anonymous"

	actionGet       = "http://schemas.xmlsoap.org/ws/2004/09/transfer/Get"
	actionEnumerate = nsEnumeration + "/Enumerate"
	actionPull      = nsEnumeration + "/Pull"
	actionRelease   = nsEnumeration + "/Release"
)

// message is one request, before it is written.
type message struct {
	operation string // for Observe
	action    string
	ref       Ref    // its class is * for a query
	body      string // XML of Enumerate, Pull and Release
	method    string // of Invoke
	params    Params
	timeout   time.Duration // for the host to answer in
	once      bool          // must never be sent twice
}

var (
	identifier    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	namespacePath = regexp.MustCompile(`^[A-Za-z0-9_]+([/\\][A-Za-z0-9_.-]+)*$`)
)

// check refuses names that are none, so that nothing can be smuggled into an envelope, and values that cannot be sent.
func (m *message) check() error {
	if !namespacePath.MatchString(m.ref.Namespace) {
		return fmt.Errorf("%s is no namespace", shown(m.ref.Namespace))
	}
	if m.ref.Class != "*" && !identifier.MatchString(m.ref.Class) {
		return fmt.Errorf("%s is no class", shown(m.ref.Class))
	}
	if m.method != "" && !identifier.MatchString(m.method) {
		return fmt.Errorf("%s is no method", shown(m.method))
	}
	for _, p := range m.params {
		if !identifier.MatchString(p.Name) {
			return fmt.Errorf("%s is no parameter", shown(p.Name))
		}
		if err := writeParam(&strings.Builder{}, p); err != nil {
			return err
		}
	}
	return nil
}

// envelope is the message as it is sent.
func (m *message) envelope(c *Client, id string) []byte {
	var b strings.Builder
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?><s:Envelope xmlns:s="` + nsSOAP + `" xmlns:a="` + nsAddressing + `" xmlns:n="` + nsEnumeration +
		`" xmlns:w="` + nsManagement + `" xmlns:p="` + nsMicrosoft + `"><s:Header>`)
	element(&b, "a:To", "", c.url.String())
	element(&b, "w:ResourceURI", mustUnderstand, m.ref.uri())
	b.WriteString(`<a:ReplyTo><a:Address` + mustUnderstand + `>` + anonymous + `</a:Address></a:ReplyTo>`)
	element(&b, "a:Action", mustUnderstand, m.action)
	element(&b, "w:MaxEnvelopeSize", mustUnderstand, strconv.Itoa(c.opts.MaxEnvelope))
	element(&b, "a:MessageID", "", "uuid:"+id)
	b.WriteString(`<w:Locale xml:lang="en-US" s:mustUnderstand="false"/><p:DataLocale xml:lang="en-US" s:mustUnderstand="false"/>`)
	element(&b, "w:OperationTimeout", "", fmt.Sprintf("PT%.3fS", m.timeout.Seconds()))
	writeSelectors(&b, m.ref.Selectors)
	b.WriteString(`</s:Header><s:Body>`)
	b.WriteString(m.body)
	if m.method != "" {
		b.WriteString(`<m:` + m.method + `_INPUT xmlns:m="` + m.ref.uri() + `" xmlns:cim="` + nsCIM + `" xmlns:xsi="` + nsInstance + `">`)
		for _, p := range m.params {
			_ = writeParam(&b, p) // check has tried it
		}
		b.WriteString(`</m:` + m.method + `_INPUT>`)
	}
	b.WriteString(`</s:Body></s:Envelope>`)
	return []byte(b.String())
}

const mustUnderstand = ` s:mustUnderstand="true"`

// element writes an element with text in it.
func element(b *strings.Builder, name, attrs, text string) {
	b.WriteString("<" + name + attrs + ">")
	escape(b, text)
	b.WriteString("</" + name + ">")
}

func escape(b *strings.Builder, text string) {
	_ = xml.EscapeText(b, []byte(text)) // a strings.Builder does not fail
}

func writeSelectors(b *strings.Builder, selectors map[string]string) {
	if len(selectors) == 0 {
		return
	}
	b.WriteString("<w:SelectorSet>")
	for _, name := range slices.Sorted(maps.Keys(selectors)) {
		b.WriteString(`<w:Selector Name="`)
		escape(b, name)
		b.WriteString(`">`)
		escape(b, selectors[name])
		b.WriteString(`</w:Selector>`)
	}
	b.WriteString("</w:SelectorSet>")
}

// writeParam writes a parameter: one element, or one for each element of a slice.
func writeParam(b *strings.Builder, p Param) error {
	switch v := p.Value.(type) {
	case []string:
		return writeEach(b, p.Name, v)
	case []uint8:
		return writeEach(b, p.Name, v)
	case []uint16:
		return writeEach(b, p.Name, v)
	case []uint32:
		return writeEach(b, p.Name, v)
	case []Ref:
		return writeEach(b, p.Name, v)
	case []*Object:
		return writeEach(b, p.Name, v)
	case nil:
		b.WriteString(`<m:` + p.Name + ` xsi:nil="true"/>`)
		return nil
	}
	b.WriteString("<m:" + p.Name + ">")
	if err := writeValue(b, p.Value); err != nil {
		return fmt.Errorf("parameter %s: %w", p.Name, err)
	}
	b.WriteString("</m:" + p.Name + ">")
	return nil
}

func writeEach[T any](b *strings.Builder, name string, values []T) error {
	for _, v := range values {
		if err := writeParam(b, Param{name, v}); err != nil {
			return err
		}
	}
	return nil
}

func writeValue(b *strings.Builder, value any) error {
	switch v := value.(type) {
	case string:
		escape(b, v)
	case bool:
		b.WriteString(strconv.FormatBool(v))
	case int, int64, uint8, uint16, uint32, uint64:
		fmt.Fprintf(b, "%d", v)
	case time.Time:
		element(b, "cim:Datetime", "", v.UTC().Format("2006-01-02T15:04:05.000000Z"))
	case Ref:
		return writeRef(b, v)
	case *Object:
		text, err := v.XML()
		if err != nil {
			return err
		}
		escape(b, text)
	default:
		return fmt.Errorf("a %T cannot be sent", value)
	}
	return nil
}

func writeRef(b *strings.Builder, ref Ref) error {
	if !namespacePath.MatchString(ref.Namespace) || !identifier.MatchString(ref.Class) {
		return errors.New("its reference names no class")
	}
	b.WriteString(`<a:Address>` + anonymous + `</a:Address><a:ReferenceParameters>`)
	element(b, "w:ResourceURI", "", ref.uri())
	writeSelectors(b, ref.Selectors)
	b.WriteString(`</a:ReferenceParameters>`)
	return nil
}

// newUUID is a random UUID, in capitals as Windows writes them.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%X-%X-%X-%X-%X", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
