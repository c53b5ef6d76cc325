package winrm

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestEnvelopes holds what is sent byte for byte.
func TestEnvelopes(t *testing.T) {
	c, err := New(Options{URL: "https://hv-01.example.com", Username: "u", Password: func() (string, error) { return "p", nil }, OperationTimeout: 12500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	query := func(q Query, context string) message {
		return (&enumeration{client: c, query: q, elements: 100, context: context}).message()
	}
	group := Ref{"root/mscluster", "MSCluster_ResourceGroup", map[string]string{"Name": `VM <a> & "b"`}}
	host := Ref{Namespace: `root\virtualization\v2`, Class: "Msvm_VirtualSystemMigrationService"}
	var b strings.Builder
	for _, m := range []struct {
		name string
		message
	}{
		{"enumerate by WQL", query(Query{Namespace: "root/cimv2", WQL: "SELECT Name FROM Win32_Service WHERE Name<>'a&b'"}, "")},
		{"enumerate a class", query(Query{Namespace: "root/cimv2", Class: "Win32_OperatingSystem"}, "")},
		{"pull", query(Query{Namespace: "root/cimv2", Class: "Win32_Process"}, "uuid:<1>")},
		{"get", message{action: actionGet, ref: group}},
		{"invoke with bytes", message{
			action: group.uri() + "/MoveToNewNodeParams", ref: group, method: "MoveToNewNodeParams",
			params: Params{{"NodeName", "hv-02"}, {"Parameters", []byte{1, 0, 255}}, {"Flags", uint32(14)}},
		}},
		{"invoke with everything else", message{
			action: host.uri() + "/X", ref: host, method: "X",
			params: Params{
				{"System", Ref{"root/virtualization/v2", "Msvm_ComputerSystem", map[string]string{"Name": "AAAA", "CreationClassName": "Msvm_ComputerSystem"}}},
				{"Setting", &Object{"Msvm_SettingData", []Member{{Name: "Type", Type: "uint16", Values: []string{"32768"}}}}},
				{"Yes", true},
				{"Nothing", nil},
				{"Empty", []string{}},
				{"List", []string{"a", "<b>"}},
				{"Requested", []uint32{1, 2}},
				{"When", time.Date(2024, 2, 29, 13, 0, 0, 0, time.FixedZone("", 3600))},
			},
		}},
	} {
		if err := m.check(); err != nil {
			t.Fatal(m.name, err)
		}
		m.timeout = c.opts.OperationTimeout
		fmt.Fprintf(&b, "== %s\n%s\n", m.name, m.envelope(c, "00000000-0000-4000-8000-000000000000"))
	}
	golden(t, "envelopes.golden", b.String())
}

func TestNamesThatAreNone(t *testing.T) {
	fine := Ref{Namespace: "root/cimv2", Class: "X"}
	for name, m := range map[string]message{
		"namespace": {ref: Ref{Namespace: `root"/><x>`, Class: "X"}},
		"empty":     {ref: Ref{Class: "X"}},
		"dots":      {ref: Ref{Namespace: "root/../x", Class: "X y"}},
		"class":     {ref: Ref{Namespace: "root", Class: "X<"}},
		"method":    {ref: fine, method: "a b"},
		"parameter": {ref: fine, method: "M", params: Params{{"a>", 1}}},
		"value":     {ref: fine, method: "M", params: Params{{"A", struct{}{}}}},
		"reference": {ref: fine, method: "M", params: Params{{"A", Ref{}}}},
		"object":    {ref: fine, method: "M", params: Params{{"A", &Object{}}}},
	} {
		if err := m.check(); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
