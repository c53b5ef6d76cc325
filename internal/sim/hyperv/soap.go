package hyperv

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Namespaces and prefixes of URIs.
const (
	nsSOAP        = "http://www.w3.org/2003/05/soap-envelope"
	nsAddressing  = "http://schemas.xmlsoap.org/ws/2004/08/addressing"
	nsEnumeration = "http://schemas.xmlsoap.org/ws/2004/09/enumeration"
	nsTransfer    = "http://schemas.xmlsoap.org/ws/2004/09/transfer"
	nsManagement  = "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd"
	nsCIMBinding  = "http://schemas.dmtf.org/wbem/wsman/1/cimbinding.xsd"
	nsIdentity    = "http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd"
	nsShell       = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
	anonymous     = "http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous"
	wmiPrefix     = "http://schemas.microsoft.com/wbem/wsman/1/wmi/"
	dmtfPrefix    = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
	shellURI      = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell/cmd"
	dialectWQL    = "http://schemas.microsoft.com/wbem/wsman/1/WQL"
)

const maxRequest = 512 << 10

// element is a parsed XML element.
type element struct {
	name xml.Name
	attr []xml.Attr
	text string
	kids []*element
}

// parseXML reads one document. Its depth and size are bounded, it has no DTD.
func parseXML(doc []byte) (*element, error) {
	d := xml.NewDecoder(bytes.NewReader(doc))
	var stack []*element
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return nil, errors.New("no element")
		}
		if err != nil {
			return nil, err
		}
		switch token := token.(type) {
		case xml.Directive:
			return nil, errors.New("a DTD")
		case xml.StartElement:
			if len(stack) > 64 {
				return nil, errors.New("nested too deeply")
			}
			e := &element{name: token.Name, attr: token.Attr}
			if len(stack) > 0 {
				top := stack[len(stack)-1]
				top.kids = append(top.kids, e)
			}
			stack = append(stack, e)
		case xml.CharData:
			if len(stack) > 0 {
				stack[len(stack)-1].text += string(token)
			}
		case xml.EndElement:
			top := stack[len(stack)-1]
			if stack = stack[:len(stack)-1]; len(stack) == 0 {
				return top, nil
			}
		}
	}
}

// child is the first child of that name, whatever its namespace; an empty element if there is none.
func (e *element) child(local string) *element {
	for _, k := range e.kids {
		if k.name.Local == local {
			return k
		}
	}
	return &element{}
}

func (e *element) has(local string) bool {
	for _, k := range e.kids {
		if k.name.Local == local {
			return true
		}
	}
	return false
}

func (e *element) value() string { return strings.TrimSpace(e.text) }

func (e *element) attribute(local string) string {
	for _, a := range e.attr {
		if a.Name.Local == local {
			return a.Value
		}
	}
	return ""
}

// request is one message of a client.
type request struct {
	action, verb string
	resource     string // URI
	messageID    string
	maxEnvelope  int
	maxElements  int
	timeout      time.Duration // 0: none was given
	selectors    map[string]*element
	body         *element // the body's first child; an empty element if there is none

	namespace, class string // of a WMI resource
	query            *query // of an Enumerate with a filter
	user             *account
}

// className is the class that is asked for.
func (rq *request) className() string {
	if rq.query != nil {
		return rq.query.class
	}
	return rq.class
}

// readRequest reads a message. The error is what is wrong with it as a message; what it asks for may still be nonsense.
func readRequest(doc []byte) (*request, *fault) {
	root, err := parseXML(doc)
	if err != nil {
		return nil, &fault{code: invalidBody, sender: true, subcode: "w:SchemaValidationError", text: "The SOAP envelope is not well-formed: " + err.Error()}
	}
	if root.name.Local != "Envelope" || root.name.Space != nsSOAP {
		return nil, &fault{code: invalidBody, sender: true, subcode: "w:SchemaValidationError", text: "The message is no SOAP 1.2 envelope."}
	}
	header, body := root.child("Header"), root.child("Body")
	rq := &request{
		action: header.child("Action").value(), resource: header.child("ResourceURI").value(), messageID: header.child("MessageID").value(),
		selectors: map[string]*element{}, body: &element{}, maxEnvelope: 153600,
	}
	if len(body.kids) > 0 {
		rq.body = body.kids[0]
	}
	rq.verb = rq.action[strings.LastIndexAny(rq.action, "/")+1:]
	for _, s := range header.child("SelectorSet").kids {
		rq.selectors[strings.ToLower(s.attribute("Name"))] = s
	}
	if header.has("MaxEnvelopeSize") {
		n, err := strconv.Atoi(header.child("MaxEnvelopeSize").value())
		if err != nil || n < 8192 {
			return rq, &fault{code: 2150858810, sender: true, subcode: "w:EncodingLimit", text: "MaxEnvelopeSize is not a number of at least 8192."}
		}
		rq.maxEnvelope = n
	}
	if header.has("OperationTimeout") {
		d, err := parseDuration(header.child("OperationTimeout").value())
		if err != nil {
			return rq, &fault{code: 2150858764, sender: true, subcode: "w:UnsupportedFeature", text: "OperationTimeout: " + err.Error()}
		}
		rq.timeout = d
	}
	if rest, isWMI := strings.CutPrefix(rq.resource, wmiPrefix); isWMI {
		cut := strings.LastIndex(rest, "/")
		if cut < 0 {
			return rq, wmiFault(wbemInvalidNamespace, "")
		}
		rq.namespace, rq.class = tidyNamespace(rest[:cut]), rest[cut+1:]
	} else if class, isDMTF := strings.CutPrefix(rq.resource, dmtfPrefix); isDMTF {
		rq.namespace, rq.class = "root/cimv2", class
	}
	return rq, rq.readEnumeration()
}

// readEnumeration reads what Enumerate and Pull say in their bodies.
func (rq *request) readEnumeration() *fault {
	if rq.verb != "Enumerate" && rq.verb != "Pull" {
		return nil
	}
	rq.maxElements = 1
	if rq.body.has("MaxElements") {
		n, err := strconv.Atoi(rq.body.child("MaxElements").value())
		if err != nil || n < 1 {
			return &fault{code: invalidBody, sender: true, subcode: "w:InvalidParameter", text: "MaxElements is no positive number."}
		}
		rq.maxElements = n
	}
	if rq.verb != "Enumerate" || !rq.body.has("Filter") {
		return nil
	}
	filter := rq.body.child("Filter")
	if dialect := filter.attribute("Dialect"); !strings.EqualFold(dialect, dialectWQL) {
		return &fault{
			code: 2150858776, sender: true, subcode: "n:FilterDialectRequestedUnavailable",
			text: "The WS-Management service does not support the filter dialect " + dialect + ".",
		}
	}
	if rq.class != "*" && rq.class != "" && strings.HasPrefix(rq.resource, wmiPrefix) {
		return &fault{
			code: 2150859003, sender: true, subcode: "w:InvalidParameter",
			text: "The resource URI for an enumeration operation with WQL filter must not contain keys and the class name must be '*' (star).",
		}
	}
	q, err := parseWQL(filter.value())
	if err != nil {
		return wmiFault(wbemInvalidQuery, filter.value())
	}
	rq.query = q
	return nil
}

// parseDuration reads an xs:duration without years and months: PT20S, PT1M30.5S, P1DT2H.
func parseDuration(s string) (time.Duration, error) {
	rest, ok := strings.CutPrefix(s, "P")
	if !ok || rest == "" {
		return 0, fmt.Errorf("%q is no duration", s)
	}
	var d time.Duration
	units := map[byte]time.Duration{'D': 24 * time.Hour, 'H': time.Hour, 'M': time.Minute, 'S': time.Second}
	inTime := false
	for rest != "" {
		if rest[0] == 'T' && !inTime {
			inTime, rest = true, rest[1:]
			continue
		}
		end := strings.IndexAny(rest, "DHMS")
		if end <= 0 || inTime == (rest[end] == 'D') {
			return 0, fmt.Errorf("%q is no duration", s)
		}
		n, err := strconv.ParseFloat(rest[:end], 64)
		if err != nil || n < 0 || n > 1e6 {
			return 0, fmt.Errorf("%q is no duration", s)
		}
		d += time.Duration(n * float64(units[rest[end]]))
		rest = rest[end+1:]
	}
	return d, nil
}

// fault is what a request is answered with instead of a result.
type fault struct {
	code    uint32
	sender  bool   // it is the client's mistake
	subcode string // qualified name
	text    string
	wmi     uint32 // HRESULT of WMI or its provider, 0: it did not get there
	about   string // the query or method that failed
}

// wmiFault is an error of WMI or its provider. Its number stands in the message in hexadecimal: the message is in the host's language.
func wmiFault(hresult uint32, about string) *fault {
	f := &fault{code: hresult, wmi: hresult, about: about, subcode: "w:InternalError"}
	switch hresult {
	case wbemInvalidClass, wbemInvalidNamespace, wbemNotFound:
		f.code, f.sender, f.subcode = resourceNotFound, true, "a:DestinationUnreachable"
	case wbemInvalidQuery:
		f.code, f.sender, f.subcode = filterCannotProcess, true, "n:CannotProcessFilter"
	case wbemProviderIncapable:
		f.code = providerNotCapable
	case wbemAccessDenied:
		f.code, f.sender, f.subcode = wmiAccessDenied, true, "w:AccessDenied"
	}
	return f
}

// serviceFault is the fault of that number.
func serviceFault(code uint32) *fault {
	f := &fault{code: code, subcode: "w:InternalError"}
	switch code {
	case OperationTimedOut:
		f.subcode = "w:TimedOut"
	case QuotaShells, QuotaOperations, QuotaUser:
		f.subcode = "w:QuotaLimit"
	case EnvelopeTooLarge:
		f.sender, f.subcode = true, "w:EncodingLimit"
	case AccessDenied:
		f.sender, f.subcode = true, "w:AccessDenied"
	case enumerationInvalid:
		f.sender, f.subcode = true, "n:InvalidEnumerationContext"
	case resourceNotFound:
		f.sender, f.subcode = true, "a:DestinationUnreachable"
	case invalidSelectors:
		f.sender, f.subcode = true, "w:InvalidSelectors"
	}
	return f
}

// words are what a fault says, in the host's language. Numbers are the same in all.
func (f *fault) words(locale string) string {
	if f.text != "" {
		return f.text
	}
	german := locale == "de-DE"
	if f.wmi != 0 {
		if german {
			return fmt.Sprintf("Der WS-Verwaltungsdienst kann die Anforderung nicht verarbeiten. Der WMI-Dienst oder der WMI-Anbieter hat einen Fehler zurückgegeben: HRESULT 0x%08x", f.wmi)
		}
		return fmt.Sprintf("The WS-Management service cannot process the request. The WMI service or the WMI provider returned an error: HRESULT 0x%08x", f.wmi)
	}
	if german {
		return fmt.Sprintf("Der WS-Verwaltungsdienst kann die Anforderung nicht verarbeiten. Fehlernummer: 0x%08X", f.code)
	}
	known := map[uint32]string{
		OperationTimedOut:  "The operation was not completed within the time that OperationTimeout allows.",
		QuotaShells:        "This user has as many shells as a user may have.",
		QuotaOperations:    "This user has as many operations as a user may have.",
		QuotaUser:          "This user exceeds a quota.",
		EnvelopeTooLarge:   "The response is larger than the maximum size that is allowed.",
		AccessDenied:       "Access is denied.",
		enumerationInvalid: "The enumeration context is not valid.",
		resourceNotFound:   "The resource that the URI and the selectors name was not found.",
	}
	if text := known[f.code]; text != "" {
		return "The WS-Management service cannot process the request. " + text
	}
	return fmt.Sprintf("The WS-Management service cannot process the request. Error number: 0x%08X", f.code)
}

// writer builds an answer.
type writer struct{ bytes.Buffer }

func (w *writer) raw(parts ...string) {
	for _, p := range parts {
		w.WriteString(p)
	}
}

func (w *writer) escape(s string) { _ = xml.EscapeText(w, []byte(s)) }

const envelopeHead = `<s:Envelope xml:lang="%s" xmlns:s="` + nsSOAP + `" xmlns:a="` + nsAddressing + `" xmlns:x="` + nsTransfer + `" xmlns:n="` + nsEnumeration +
	`" xmlns:w="` + nsManagement + `" xmlns:b="` + nsCIMBinding + `" xmlns:rsp="` + nsShell + `" xmlns:p="http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd"><s:Header>`

// head begins an answer to rq, up to and with the start of the body.
func (w *writer) head(locale, action, messageID string, rq *request) {
	fmt.Fprintf(w, envelopeHead, locale)
	w.raw(`<a:Action>`, action, `</a:Action><a:MessageID>uuid:`, messageID, `</a:MessageID><a:To>`, anonymous, `</a:To>`)
	if rq != nil && rq.messageID != "" {
		w.raw(`<a:RelatesTo>`)
		w.escape(rq.messageID)
		w.raw(`</a:RelatesTo>`)
	}
	w.raw(`</s:Header><s:Body>`)
}

func (w *writer) tail() { w.raw(`</s:Body></s:Envelope>`) }

// fault writes a whole answer that is a fault.
func (w *writer) fault(locale, machine, messageID string, rq *request, f *fault) {
	w.head(locale, "http://schemas.dmtf.org/wbem/wsman/1/wsman/fault", messageID, rq)
	value := "s:Receiver"
	if f.sender {
		value = "s:Sender"
	}
	w.raw(`<s:Fault><s:Code><s:Value>`, value, `</s:Value><s:Subcode><s:Value>`, f.subcode, `</s:Value></s:Subcode></s:Code><s:Reason><s:Text xml:lang="`, locale, `">`)
	words := f.words(locale)
	w.escape(words)
	w.raw(`</s:Text></s:Reason><s:Detail>`)
	code := strconv.FormatUint(uint64(f.code), 10)
	open := `<f:WSManFault xmlns:f="http://schemas.microsoft.com/wbem/wsman/1/wsmanfault" Code="` + code + `" Machine="` + machine + `"><f:Message>`
	w.raw(open)
	if f.wmi == 0 {
		w.escape(words)
	} else {
		w.raw(`<f:ProviderFault provider="WMI Provider" path="%systemroot%\system32\WsmWmiPl.dll">`, open)
		w.escape(words)
		w.raw(`</f:Message></f:WSManFault><f:ExtendedError><q:__ExtendedStatus xmlns:q="`, wmiPrefix,
			`root/cimv2/__ExtendedStatus" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="q:__ExtendedStatus_Type"><q:Description xsi:nil="true"/><q:Operation>`)
		operation := "ExecQuery"
		if rq != nil && rq.query == nil {
			operation = "ExecMethod"
		}
		w.raw(operation, `</q:Operation><q:ParameterInfo>`)
		w.escape(f.about)
		w.raw(`</q:ParameterInfo><q:ProviderName>WinMgmt</q:ProviderName><q:StatusCode>`, strconv.FormatUint(uint64(f.wmi), 10),
			`</q:StatusCode></q:__ExtendedStatus></f:ExtendedError></f:ProviderFault>`)
	}
	w.raw(`</f:Message></f:WSManFault></s:Detail></s:Fault>`)
	w.tail()
}
