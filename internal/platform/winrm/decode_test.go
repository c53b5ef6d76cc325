package winrm

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write golden files anew")

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
	}
}

func answerFile(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "answers", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// tell writes an instance for people and golden files.
func tell(b *strings.Builder, indent string, i Instance) {
	fmt.Fprintf(b, "%s%s\n", indent, i.Class)
	for _, p := range i.Properties {
		tellValue(b, indent+"  ", p.Name, p.Value)
	}
}

func tellValue(b *strings.Builder, indent, name string, v Value) {
	switch v.Kind {
	case Null:
		fmt.Fprintf(b, "%s%s null\n", indent, name)
	case Scalar:
		fmt.Fprintf(b, "%s%s %q\n", indent, name, v.Text)
	case Datetime:
		t, err := v.Time()
		fmt.Fprintf(b, "%s%s datetime %s %v\n", indent, name, t.UTC().Format(time.RFC3339Nano), err)
	case Interval:
		d, err := v.Duration()
		fmt.Fprintf(b, "%s%s interval %s %v\n", indent, name, d, err)
	case Reference:
		fmt.Fprintf(b, "%s%s reference %s\n", indent, name, v.Ref)
	case Embedded:
		fmt.Fprintf(b, "%s%s embedded\n", indent, name)
		tell(b, indent+"  ", *v.Object)
	case Array:
		fmt.Fprintf(b, "%s%s array\n", indent, name)
		for _, item := range v.Items {
			tellValue(b, indent+"  ", "-", item)
		}
	}
}

func TestDecodeAnswers(t *testing.T) {
	files, err := filepath.Glob("testdata/answers/*.xml")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d answers, %v", len(files), err)
	}
	var b strings.Builder
	for _, file := range files {
		name := filepath.Base(file)
		fmt.Fprintf(&b, "== %s\n", name)
		body := answerFile(t, name)
		if err := faultOf(body); err != nil {
			fmt.Fprintf(&b, "fault: %v\n", err)
			continue
		}
		if !strings.Contains(body, "Response>") {
			i, err := decodeOne(body)
			fmt.Fprintf(&b, "one: %v\n", err)
			tell(&b, "", i)
			continue
		}
		p, err := decodePage(body, func(i Instance) error {
			tell(&b, "", i)
			return nil
		})
		fmt.Fprintf(&b, "page: context %q, end %v, items %d, error %v\n", p.context, p.end, p.items, err)
	}
	golden(t, "answers.golden", b.String())
}

func TestFaultsMean(t *testing.T) {
	all := map[string]error{
		"credentials": ErrCredentials, "denied": ErrAccessDenied, "timed out": ErrTimedOut, "quota": ErrQuota,
		"large": ErrTooLarge, "not found": ErrNotFound, "query": ErrInvalidQuery,
	}
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"time-out", faultOf(answerFile(t, "fault_timedout.xml")), "timed out"},
		{"shell quota", faultOf(answerFile(t, "fault_quota.xml")), "quota"},
		{"envelope by its subcode", faultOf(answerFile(t, "fault_large.xml")), "large"},
		{"class by the provider's code, not the filter's", faultOf(answerFile(t, "fault_class.xml")), "query"},
		{"wmi error", faultOf(answerFile(t, "fault_wmi.xml")), "not found"},
		{"computed packet too large", &Fault{Code: 0x80338048}, "large"},
		{"access denied by Windows", &Fault{Code: 5}, "denied"},
		{"access denied by WMI", &Fault{Code: 0x80338104, Provider: 0x80041003}, "denied"},
		{"plugin's quota", &Fault{Code: 0x803381E8}, "quota"},
		{"a code nobody knows", &Fault{Code: 0x80330001}, ""},
		{"no code at all", &Fault{Reason: "no"}, ""},
	} {
		got := ""
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if errors.Is(c.err, all[name]) {
				got += name
			}
		}
		if got != c.want {
			t.Errorf("%s: %v means %q, want %q", c.name, c.err, got, c.want)
		}
	}
	if code, ok := HRESULT(fmt.Errorf("wrapped: %w", faultOf(answerFile(t, "fault_class.xml")))); !ok || code != 0x80041010 {
		t.Errorf("HRESULT is 0x%08X, %v", code, ok)
	}
}

func TestHostileXML(t *testing.T) {
	page := func(items string) string {
		return `<s:Envelope xmlns:s="x"><s:Body><n:PullResponse><n:Items>` + items + `</n:Items><n:EndOfSequence/></n:PullResponse></s:Body></s:Envelope>`
	}
	for _, c := range []struct{ name, doc, want string }{
		{"nothing", "", "ends early"},
		{"words", "Service Unavailable", "text outside"},
		{"document type", `<!DOCTYPE x [<!ENTITY a "aaaa">]>` + page(""), "document type"},
		{"document type within", page(`<!DOCTYPE x>`), "document type"},
		{"entity of its own", page(`<X><A>&boom;</A></X>`), "unknown entity"},
		{"endless entity", page(`<X><A>&` + strings.Repeat("a", 99) + `</A></X>`), "begins no entity"},
		{"deep", page(strings.Repeat("<X>", 10000)), "deeper than"},
		{"attributes", page(`<X ` + strings.Repeat(`a="1" `, 10000) + `/>`), "attributes"},
		{"cut off", page("<X><A>1</A></X>")[:60], "ends early"},
		{"crossed", page("<X><A></X></A>"), "closes nothing"},
		{"a second root", page("") + "<b/>", ""},
		{"no body", `<s:Envelope xmlns:s="x"><s:Header/></s:Envelope>`, "no Body"},
		{"html", `<html><body>no</body></html>`, "no Envelope"},
		{"tag without a name", page("< >"), "no element's name"},
		{"attribute without quotes", page("<X a=1/>"), "without quotes"},
		{"half a comment", page("<!-->"), "ends early"},
	} {
		_, err := decodePage(c.doc, func(Instance) error { return nil })
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestCharactersThatXMLDoesNotHave(t *testing.T) {
	i, err := decodeOne("<e:Envelope><e:Body><X><A>a&#0;b&#xD800;\xff</A><B>&quot;&apos;&#x41;</B></X></e:Body></e:Envelope>")
	if err != nil || i.Text("A") != "a\ufffdb\ufffd\ufffd" || i.Text("b") != `"'A` {
		t.Errorf("%+v, %v", i, err)
	}
}

func FuzzDecode(f *testing.F) {
	files, _ := filepath.Glob("testdata/answers/*.xml")
	for _, file := range files {
		f.Add(answerFile(f, filepath.Base(file)))
	}
	f.Add(`<INSTANCE CLASSNAME="X"><PROPERTY NAME="A" TYPE="string"><VALUE>1</VALUE></PROPERTY></INSTANCE>`)
	f.Fuzz(func(_ *testing.T, doc string) {
		values := func(i Instance) error {
			for _, p := range i.Properties {
				_, _ = p.Value.Time()
				_, _ = p.Value.Duration()
				_, _ = p.Value.Uint()
			}
			var into struct {
				Name  string     `cim:"Name"`
				When  *time.Time `cim:"InstallDate"`
				Hosts []string   `cim:"Address"`
			}
			_, _ = Decode(i, &into)
			return nil
		}
		_, _ = decodePage(doc, values)
		_ = faultOf(doc)
		if i, err := decodeOne(doc); err == nil {
			_ = values(i)
		}
		if i, err := ParseObject(doc); err == nil {
			_ = values(i)
		}
	})
}
