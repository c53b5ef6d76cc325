package vsphere

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vim25/xml"
)

// connTo is a connection to a server that answers with what it likes; nobody logs in.
func connTo(t *testing.T, answer http.HandlerFunc) *Conn {
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	sc := soap.NewClient(u, false)
	sc.Namespace, sc.Version = "urn:vim25", apiVersion
	c := &Conn{soap: sc, opts: Options{Timeout: 5 * time.Second, Observe: func(string) {}}, secrets: []string{"pass-word-1"}}
	c.Client = &vim25.Client{Client: sc, RoundTripper: c}
	return c
}

func nothing(b []byte) []byte { return b }

func envelope(body string) string {
	return `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsi="` + xsiNamespace + `"><s:Body>` + body + `</s:Body></s:Envelope>`
}

func faultText(name, text, inside string) string {
	return envelope(`<s:Fault><faultcode>ServerFaultCode</faultcode><faultstring>` + text + `</faultstring><detail><` + name +
		`Fault xmlns="urn:vim25" xsi:type="` + name + `">` + inside + `</` + name + `Fault></detail></s:Fault>`)
}

// TestCallAndRoundTripFailAlike makes the same call by hand and by govmomi.
func TestCallAndRoundTripFailAlike(t *testing.T) {
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status); _, _ = io.WriteString(w, body) }
	}
	ref := types.ManagedObjectReference{Type: "VirtualMachine", Value: "vm-7"}
	tests := []struct {
		name   string
		answer http.HandlerFunc
		is     func(error) bool
	}{
		{"session forgotten", answer(500, faultText("NotAuthenticated", "no session", "")), IsNotAuthenticated},
		{"session forgotten, said with 200", answer(200, faultText("NotAuthenticated", "no session", "")), IsNotAuthenticated},
		{"gone", answer(500, faultText("ManagedObjectNotFound", "gone", `<obj type="VirtualMachine">vm-7</obj>`)), func(err error) bool {
			got, ok := Gone(err)
			return ok && got == ref
		}},
		{"restricted", answer(500, faultText("RestrictedByAdministrator", "restricted by the administrator", `<details>x</details>`)), IsRestricted},
		{"no permission", answer(500, faultText("NoPermission", "no", `<object type="Folder">f</object><privilegeId>System.Read</privilegeId>`)), IsNoPermission},
		{"system error", answer(500, faultText("SystemError", "bad", `<reason>x</reason>`)), IsOverload},
		{"busy", answer(503, "busy"), IsOverload},
		{"bad gateway", answer(502, ""), IsOverload},
		{"not there", answer(404, ""), func(err error) bool { return err != nil && !IsOverload(err) }},
		{"500 and no fault", answer(500, "<html>pass-word-1</html>"), func(err error) bool { return err != nil && !IsNotAuthenticated(err) }},
		{"500 and nothing", answer(500, ""), func(err error) bool { return err != nil }},
		{"not XML", answer(200, "pass-word-1"), func(err error) bool { return err != nil }},
		{"secret in the fault", answer(500, faultText("SystemError", "pass-word-1", "")), func(err error) bool { return err != nil }},
		{"truncated", answer(200, strings.TrimSuffix(envelope("<CurrentTimeResponse><returnval>2026-03-01T10:00:00Z</returnval></CurrentTimeResponse>"), "</s:Envelope>")), func(err error) bool {
			return err != nil && !IsNotAuthenticated(err)
		}},
		{"hangs up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, func(err error) bool { return err != nil }},
		{"nothing", answer(200, envelope("")), func(err error) bool { return err != nil }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := connTo(t, tt.answer)
			_, theirs := methods.CurrentTime(t.Context(), c, &types.CurrentTime{})
			ours := c.Call(t.Context(), "CurrentTime", 0, nothing, func(s *Scanner) error { s.Skip(); return s.Err() })
			for name, err := range map[string]error{"RoundTrip": theirs, "Call": ours} {
				if !tt.is(err) {
					t.Errorf("%s: not told by %v", name, err)
				}
				if err != nil && (strings.Contains(err.Error(), "pass-word-1") || !strings.Contains(err.Error(), "CurrentTime")) {
					t.Errorf("%s: a secret, or no method, in %v", name, err)
				}
			}
		})
	}
}

func TestCallEnds(t *testing.T) {
	stuck := make(chan struct{})
	c := connTo(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, envelope("<CurrentTimeResponse>")[:150])
		w.(http.Flusher).Flush()
		<-stuck
	})
	t.Cleanup(func() { close(stuck) })
	c.opts.Timeout = 50 * time.Millisecond
	err := c.Call(t.Context(), "CurrentTime", 0, nothing, func(s *Scanner) error { s.Skip(); return s.Err() })
	if !IsTimeout(err) || !IsOverload(err) {
		t.Errorf("half an answer: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c.opts.Timeout = time.Minute
	time.AfterFunc(20*time.Millisecond, cancel)
	if err := c.Call(ctx, "CurrentTime", 0, nothing, func(s *Scanner) error { s.Skip(); return s.Err() }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	c = connTo(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, envelope("<CurrentTimeResponse/>"))
	})
	if err := c.Call(t.Context(), "CurrentTime", 0, nothing, func(*Scanner) error { panic("hostile") }); err == nil || !strings.Contains(err.Error(), "panic") {
		t.Errorf("a decoder that panics: %v", err)
	}
}

var intPaths = []string{"summary.quickStats.overallCpuUsage", "summary.quickStats.uptime"}

const oneObject = `<objects><obj type="HostSystem">host-1</obj><propSet><name>summary.quickStats.overallCpuUsage</name><val xsi:type="xsd:int">17</val></propSet></objects>`

func TestRetrieveInts(t *testing.T) {
	missing := func(fault string) string {
		return `<objects><obj type="HostSystem">host-1</obj><missingSet><path>x</path><fault>` + fault + `<localizedMessage/></fault></missingSet></objects>`
	}
	tests := []struct {
		name, objects, want string
		is                  func(error) bool
	}{
		{"one of two", oneObject, "HostSystem host-1 [{17 true} {0 false}]\n", nil},
		{"no objects", "", "", nil},
		{
			"other properties and types", strings.ReplaceAll(oneObject, "<propSet>", `<propSet><name>summary.quickStats.uptime</name><val xsi:type="xsd:string">3</val></propSet>`+
				`<propSet><name>name</name><val xsi:type="ArrayOfX"><x>1</x></val></propSet><propSet>`),
			"HostSystem host-1 [{17 true} {0 false}]\n", nil,
		},
		{"below zero", strings.ReplaceAll(oneObject, "17", " -2147483648 "), "HostSystem host-1 [{-2147483648 true} {0 false}]\n", nil},
		{"too large", strings.ReplaceAll(oneObject, "17", "2147483648"), "", func(err error) bool { return err != nil }},
		{"no number", strings.ReplaceAll(oneObject, "17", ""), "", func(err error) bool { return err != nil }},
		{"no reference", strings.ReplaceAll(oneObject, "host-1", ""), "", func(err error) bool { return err != nil }},
		{"not authenticated", missing(`<fault xsi:type="NotAuthenticated"/>`), "", IsNotAuthenticated},
		{"not authenticated, as a cause", missing(`<fault xsi:type="SystemError"><faultCause><fault xsi:type="NotAuthenticated"></fault></faultCause></fault>`), "", IsNotAuthenticated},
		{"may not be seen", missing(`<fault xsi:type="NoPermission"/>`), "HostSystem host-1 [{0 false} {0 false}]\n", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			c := connTo(t, func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, envelope("<RetrievePropertiesExResponse><returnval>"+tt.objects+"</returnval></RetrievePropertiesExResponse>"))
			})
			err := c.RetrieveInts(t.Context(), types.PropertyFilterSpec{}, intPaths, func(kind, ref []byte, values []Int) {
				got += fmt.Sprintf("%s %s %v\n", kind, ref, values)
			})
			if tt.is == nil && (err != nil || got != tt.want) || tt.is != nil && !tt.is(err) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestRetrieveIntsPages(t *testing.T) {
	asked := ""
	c := connTo(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if strings.Contains(string(b), "ContinueRetrievePropertiesEx") {
			asked += "continue "
			_, _ = io.WriteString(w, envelope("<ContinueRetrievePropertiesExResponse><returnval>"+oneObject+"</returnval></ContinueRetrievePropertiesExResponse>"))
			if !strings.Contains(string(b), "<token>t&lt;1</token>") {
				t.Errorf("no token in %s", b)
			}
			return
		}
		asked += "retrieve "
		_, _ = io.WriteString(w, envelope("<RetrievePropertiesExResponse><returnval><token>t&lt;1</token>"+oneObject+"</returnval></RetrievePropertiesExResponse>"))
	})
	objects := 0
	err := c.RetrieveInts(t.Context(), types.PropertyFilterSpec{}, intPaths, func([]byte, []byte, []Int) { objects++ })
	if err != nil || asked != "retrieve continue " || objects != 2 {
		t.Errorf("%d objects after %q, %v", objects, asked, err)
	}
}

// FuzzRetrieveInts reads answers as govmomi does, or not at all.
func FuzzRetrieveInts(f *testing.F) {
	f.Add(oneObject)
	f.Add(oneObject + strings.ReplaceAll(oneObject, "17", "<![CDATA[1]]>&#55;"))
	f.Add(`<objects><obj type='VirtualMachine'>a&amp;b</obj><propSet><name>summary.quickStats.uptime</name><val xsi:type="xsd:int"> 3 </val></propSet></objects>`)
	f.Fuzz(func(t *testing.T, objects string) {
		answered := envelope(`<RetrievePropertiesExResponse xmlns="urn:vim25"><returnval>` + objects + `</returnval></RetrievePropertiesExResponse>`)
		got := ""
		r := ints{paths: intPaths, values: make([]Int, len(intPaths)), each: func(kind, ref []byte, values []Int) {
			got += fmt.Sprintf("%q %q %v\n", kind, ref, values)
		}}
		s := NewScanner(strings.NewReader(answered))
		defer s.Close()
		if err := ReadAnswer(s, "RetrievePropertiesEx", r.read); err != nil || strings.Contains(objects, "xmlns") {
			return
		}
		want, err := decodeInts(answered)
		if err == nil && got != want {
			t.Errorf("got\n%s\ngovmomi reads\n%s", got, want)
		}
	})
}

func decodeInts(answered string) (text string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	var body methods.RetrievePropertiesExBody
	dec := xml.NewDecoder(strings.NewReader(answered))
	dec.TypeFunc = types.TypeFunc()
	if err := dec.Decode(&soap.Envelope{Body: &body}); err != nil {
		return "", err
	}
	if body.Res == nil || body.Res.Returnval == nil {
		return "", io.ErrUnexpectedEOF
	}
	for _, o := range body.Res.Returnval.Objects {
		values := make([]Int, len(intPaths))
		for _, p := range o.PropSet {
			for i, path := range intPaths {
				if n, ok := p.Val.(int32); ok && p.Name == path {
					values[i] = Int{n, true}
				}
			}
		}
		text += fmt.Sprintf("%q %q %v\n", o.Obj.Type, o.Obj.Value, values)
	}
	return text, nil
}
