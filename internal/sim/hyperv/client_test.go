package hyperv_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/protip/protip/internal/sim/hyperv"
)

// plainClient speaks just enough WS-Management over HTTPS and Basic to ask what clients that are finished do not ask.
type plainClient struct {
	t        testing.TB
	http     *http.Client
	url      string
	user     string
	password string
	envelope int
}

func client(t testing.TB, c *hyperv.Cluster, endpoint string) *plainClient {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(c.CA())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(transport.CloseIdleConnections)
	return &plainClient{t: t, http: &http.Client{Transport: transport}, url: c.TLSURL(endpoint), user: hyperv.DefaultUser, password: hyperv.DefaultPassword, envelope: 512000}
}

const wmiURI = "http://schemas.microsoft.com/wbem/wsman/1/wmi/"

func (p *plainClient) envelopeOf(action, resource, header, body string) string {
	return fmt.Sprintf(`<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd" xmlns:n="http://schemas.xmlsoap.org/ws/2004/09/enumeration" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><s:Header><a:Action>%s</a:Action><a:MessageID>uuid:1</a:MessageID><w:ResourceURI>%s</w:ResourceURI><w:MaxEnvelopeSize>%d</w:MaxEnvelopeSize>%s</s:Header><s:Body>%s</s:Body></s:Envelope>`,
		action, resource, p.envelope, header, body)
}

func (p *plainClient) post(envelope string) (int, string) {
	p.t.Helper()
	status, body, err := p.try(envelope)
	if err != nil {
		p.t.Fatal(err)
	}
	return status, body
}

func (p *plainClient) try(envelope string) (int, string, error) {
	rq, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, p.url, strings.NewReader(envelope))
	if err != nil {
		return 0, "", err
	}
	rq.SetBasicAuth(p.user, p.password)
	rq.Header.Set("Content-Type", "application/soap+xml;charset=UTF-8")
	resp, err := p.http.Do(rq)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

const enumerateAction = "http://schemas.xmlsoap.org/ws/2004/09/enumeration/Enumerate"

func (p *plainClient) query(namespace, wql string) (int, string) {
	p.t.Helper()
	var text bytes.Buffer
	_ = xml.EscapeText(&text, []byte(wql))
	return p.post(p.envelopeOf(enumerateAction, wmiURI+namespace+"/*", "",
		`<n:Enumerate><w:OptimizeEnumeration/><w:MaxElements>32000</w:MaxElements><w:Filter Dialect="http://schemas.microsoft.com/wbem/wsman/1/WQL">`+text.String()+`</w:Filter></n:Enumerate>`))
}

// row is one instance of an answer: the texts of its properties, joined by commas if there are several, "nil" for null.
type row map[string]string

// rows are the items of an answer.
func rows(t testing.TB, answer string) []row {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(answer))
	var all []row
	depth, items := 0, 0
	var property, text string
	for {
		token, err := d.Token()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatalf("%v in %s", err, answer)
		}
		switch token := token.(type) {
		case xml.StartElement:
			depth++
			switch {
			case token.Name.Local == "Items":
				items = depth
			case items > 0 && depth == items+1:
				all = append(all, row{})
			case items > 0 && depth == items+2:
				property, text = token.Name.Local, ""
				for _, a := range token.Attr {
					if a.Name.Local == "nil" {
						text = "nil"
					}
				}
			}
		case xml.CharData:
			if items > 0 && depth >= items+2 {
				text += string(token)
			}
		case xml.EndElement:
			if items > 0 && depth == items+2 {
				last := all[len(all)-1]
				if have, twice := last[property]; twice {
					text = have + "," + text
				}
				last[property] = text
			}
			if depth == items {
				items = 0
			}
			depth--
		}
	}
}

// ask is the rows that a query selects; anything else fails the test.
func (p *plainClient) ask(namespace, wql string) []row {
	p.t.Helper()
	status, body := p.query(namespace, wql)
	if status != http.StatusOK {
		p.t.Fatalf("%s: status %d\n%s", wql, status, body)
	}
	if !strings.Contains(body, "EndOfSequence") {
		p.t.Fatalf("%s: there is more", wql)
	}
	return rows(p.t, body)
}

// invoke calls a method of the instance that selectors name, as pairs of name and value; in is XML in the class's namespace p.
func (p *plainClient) invoke(class, method string, selectors []string, in string) (int, string) {
	p.t.Helper()
	var set strings.Builder
	for i := 0; i+1 < len(selectors); i += 2 {
		set.WriteString(`<w:Selector Name="` + selectors[i] + `">`)
		_ = xml.EscapeText(&set, []byte(selectors[i+1]))
		set.WriteString(`</w:Selector>`)
	}
	uri := wmiURI + class
	return p.post(p.envelopeOf(uri+"/"+method, uri, `<w:SelectorSet>`+set.String()+`</w:SelectorSet>`, `<p:`+method+`_INPUT xmlns:p="`+uri+`">`+in+`</p:`+method+`_INPUT>`))
}
