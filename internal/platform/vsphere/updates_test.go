package vsphere

import (
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vim25/xml"
)

const someUpdates = `<version>7</version><filterSet><filter type="PropertyFilter">session[1]2</filter>` +
	`<objectSet><kind>enter</kind><obj type="VirtualMachine">vm-1</obj>` +
	`<changeSet><name>name</name><op>assign</op><val xsi:type="xsd:string">a&amp;b</val></changeSet>` +
	`<changeSet><name>runtime.host</name><op>assign</op><val type="HostSystem" xsi:type="ManagedObjectReference">host-1</val></changeSet>` +
	`<changeSet><name>runtime.powerState</name><op>assign</op><val xsi:type="VirtualMachinePowerState">poweredOn</val></changeSet>` +
	`<changeSet><name>summary.config.template</name><op>assign</op><val xsi:type="xsd:boolean">true</val></changeSet>` +
	`<changeSet><name>summary.config.numCpu</name><op>assign</op><val xsi:type="xsd:int">-4</val></changeSet>` +
	`<changeSet><name>cores</name><op>assign</op><val xsi:type="xsd:short">4</val></changeSet>` +
	`<changeSet><name>memory</name><op>assign</op><val xsi:type="xsd:long">9223372036854775807</val></changeSet>` +
	`<changeSet><name>drs</name><op>assign</op><val xsi:type="ClusterDrsConfigInfo"><enabled>true</enabled><vmotionRate>3</vmotionRate></val></changeSet>` +
	`<changeSet><name>values</name><op>assign</op><val xsi:type="ArrayOfInt"><int>1</int><int>2</int></val></changeSet>` +
	`<changeSet><name>network</name><op>assign</op><val xsi:type="ArrayOfManagedObjectReference">` +
	`<ManagedObjectReference type="Network" xsi:type="ManagedObjectReference">network-1</ManagedObjectReference><other>1</other>` +
	`<ManagedObjectReference type="DistributedVirtualPortgroup" serverGuid="x">dvportgroup-2</ManagedObjectReference></val></changeSet>` +
	`<changeSet><name>datastore</name><op>assign</op><val xsi:type="ArrayOfManagedObjectReference"></val></changeSet>` +
	`<changeSet><name>guest.ipAddress</name><op>remove</op></changeSet></objectSet>` +
	`<objectSet><kind>modify</kind><obj type="HostSystem" serverGuid="x">host-1</obj>` +
	`<missingSet><path>name</path><fault><fault xsi:type="NotAuthenticated"></fault><localizedMessage>no</localizedMessage></fault></missingSet></objectSet>` +
	`<objectSet><kind>leave</kind><obj type="VirtualMachine">vm-2</obj></objectSet></filterSet><truncated>true</truncated>`

func updatesAnswer(inner string) string {
	return envelope(`<WaitForUpdatesExResponse xmlns="urn:vim25"><returnval>` + inner + `</returnval></WaitForUpdatesExResponse>`)
}

func scanUpdates(answered string) (*types.UpdateSet, error) {
	s := NewScanner(strings.NewReader(answered))
	defer s.Close()
	u := updates{words: map[string]string{}, states: map[string]reflect.Type{}}
	err := ReadAnswer(s, "WaitForUpdatesEx", u.read)
	return u.set, err
}

func decodeUpdates(answered string) (set *types.UpdateSet, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	var body methods.WaitForUpdatesExBody
	dec := xml.NewDecoder(strings.NewReader(answered))
	dec.TypeFunc = types.TypeFunc()
	if err := dec.Decode(&soap.Envelope{Body: &body}); err != nil {
		return nil, err
	}
	if body.Res == nil {
		return nil, io.ErrUnexpectedEOF
	}
	return body.Res.Returnval, nil
}

// inWords is an update set in words that do not tell nil from empty.
func inWords(set *types.UpdateSet) string {
	if set == nil {
		return "nothing"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%q %v\n", set.Version, set.Truncated != nil && *set.Truncated)
	for _, f := range set.FilterSet {
		fmt.Fprintf(&b, "%+q\n", f.Filter)
		for _, o := range f.ObjectSet {
			fmt.Fprintf(&b, "%q %+q\n", o.Kind, o.Obj)
			for _, c := range o.ChangeSet {
				val, _ := xml.Marshal(c.Val)
				fmt.Fprintf(&b, "%q %q %T %s\n", c.Name, c.Op, c.Val, val)
			}
			for _, m := range o.MissingSet {
				fmt.Fprintf(&b, "%q %T\n", m.Path, m.Fault.Fault)
			}
		}
	}
	return b.String()
}

func TestUpdates(t *testing.T) {
	answered := updatesAnswer(someUpdates)
	for name, answered := range map[string]string{
		"plain":           answered,
		"another prefix":  strings.NewReplacer("xsi:", "q:", "xmlns:xsi", "xmlns:q").Replace(answered),
		"a large value":   strings.Replace(answered, "<int>1</int>", strings.Repeat("<int>1</int>", 200_000), 1),
		"a large name":    strings.Replace(answered, "a&amp;b", strings.Repeat("a&amp;b", 20_000), 1),
		"comments, CDATA": strings.Replace(answered, "a&amp;b", "<!-- a -->a<![CDATA[&]]>b", 1),
		"nothing":         updatesAnswer(""),
	} {
		got, err := scanUpdates(answered)
		want, theirs := decodeUpdates(answered)
		if err != nil || theirs != nil || inWords(got) != inWords(want) {
			t.Errorf("%s: got %v\n%.2000s\nwant %v\n%.2000s", name, err, inWords(got), theirs, inWords(want))
		}
	}
	for n := range len(answered) {
		if _, err := scanUpdates(answered[:n]); err == nil {
			t.Fatalf("no error after %d of %d bytes", n, len(answered))
		}
	}
	for _, bad := range [][2]string{{">-4<", ">four<"}, {">-4<", "><"}, {">4<", ">40000<"}, {">true</val>", ">perhaps</val>"}} {
		if set, err := scanUpdates(strings.Replace(answered, bad[0], bad[1], 1)); err == nil {
			t.Errorf("%v: no error, but\n%s", bad, inWords(set))
		}
	}
}

func TestWaitForUpdates(t *testing.T) {
	answer := envelope("<WaitForUpdatesExResponse></WaitForUpdatesExResponse>")
	c := connTo(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if !strings.Contains(string(b), "<version>a&lt;b</version>") || !strings.Contains(string(b), "<maxWaitSeconds>1</maxWaitSeconds>") {
			t.Errorf("asked with %s", b)
		}
		time.Sleep(100 * time.Millisecond)
		_, _ = io.WriteString(w, answer)
	})
	c.opts.Timeout = 50 * time.Millisecond // beyond what the vCenter is asked to hold it
	second := int32(1)
	if set, err := c.WaitForUpdates(t.Context(), "a<b", types.WaitOptions{MaxWaitSeconds: &second}); set != nil || err != nil {
		t.Errorf("got %v, %v", set, err)
	}
	answer = faultText("NotAuthenticated", "no session", "")
	if _, err := c.WaitForUpdates(t.Context(), "a<b", types.WaitOptions{MaxWaitSeconds: &second}); !IsNotAuthenticated(err) {
		t.Errorf("got %v", err)
	}
}

// FuzzUpdates reads answers as govmomi does, or not at all.
func FuzzUpdates(f *testing.F) {
	f.Add(someUpdates)
	f.Add(strings.ReplaceAll(someUpdates, "poweredOn", "<![CDATA[powered]]>&#79;n"))
	f.Fuzz(func(t *testing.T, inner string) {
		if strings.Contains(inner, "xmlns") || strings.Contains(inner, "\r") {
			return // scoped prefixes; the ends of lines, which XML makes one
		}
		answered := updatesAnswer(inner)
		got, err := scanUpdates(answered)
		if err != nil {
			return
		}
		if want, err := decodeUpdates(answered); err == nil && inWords(got) != inWords(want) {
			t.Errorf("got\n%s\ngovmomi reads\n%s", inWords(got), inWords(want))
		}
	})
}
