package capture

import (
	"strings"
	"testing"
)

func TestMask(t *testing.T) {
	m := newMask()
	m.learn("<p:Msvm_X><p:ElementName/></p:Msvm_X>")
	for _, c := range []struct{ name, doc, want string }{
		{"a name, and again in capitals", `<p:A>web01 is on HV-BERLIN-02, WEB01</p:A>`, `<p:A>name1 is on HV-NAME2-02, NAME1</p:A>`},
		{"a counter of the same name", `<p:Name>Web01:Hv VP 3</p:Name>`, `<p:Name>name1:Hv VP 3</p:Name>`},
		{"numbers and times", `<p:N>123456789012</p:N><p:D>20240229140000.000000+120</p:D>`, `<p:N>123456789012</p:N><p:D>20240229140000.000000+120</p:D>`},
		{"a number in words", `<p:N>customer 98765</p:N>`, `<p:N>name3 00001</p:N>`},
		{"a serial number", `<p:SerialNumber>12345</p:SerialNumber><p:BIOSSerialNumber>AB-1</p:BIOSSerialNumber>`, `<p:SerialNumber>0</p:SerialNumber><p:BIOSSerialNumber>masked</p:BIOSSerialNumber>`},
		{
			"a GUID, and again", `<p:N>Microsoft:6F9619FF-8B86-D011-B42D-00C04FC964FF\6f9619ff-8b86-d011-b42d-00c04fc964ff</p:N>`,
			`<p:N>Microsoft:00000000-0000-4000-8000-000000000001\00000000-0000-4000-8000-000000000001</p:N>`,
		},
		{"SIDs", `<p:S>S-1-5-21-397955417-626881126-188441444-512 S-1-5-18</p:S>`, `<p:S>S-1-5-21-1-1-1-1 S-1-5-18</p:S>`},
		{"addresses", `<p:I>10.1.2.3</p:I><p:I>fe80::1:2</p:I><p:I>127.0.0.1</p:I><p:I>255.255.254.0</p:I>`, `<p:I>198.18.0.2</p:I><p:I>2001:db8::1</p:I><p:I>127.0.0.1</p:I><p:I>255.255.254.0</p:I>`},
		{"a MAC in three forms", `<p:M>00155D0A0B0C</p:M><p:M>00:15:5d:0a:0b:0c</p:M><p:M>00-15-5D-0A-0B-0C</p:M>`, `<p:M>020000000001</p:M><p:M>02:00:00:00:00:01</p:M><p:M>02-00-00-00-00-01</p:M>`},
		{"a path of WMI", `<p:R>\\HV-1\root\virtualization\v2:Msvm_X.ElementName="web01"</p:R>`, `<p:R>\\HV-1\root\virtualization\v2:Msvm_X.ElementName=&#34;name1&#34;</p:R>`},
		{
			"an embedded object", `<p:K>&lt;INSTANCE CLASSNAME="Msvm_KvpExchangeDataItem"&gt;&lt;PROPERTY NAME="Data" TYPE="string"&gt;&lt;VALUE&gt;web01.corp&lt;/VALUE&gt;&lt;/PROPERTY&gt;&lt;/INSTANCE&gt;</p:K>`,
			`<p:K>&lt;INSTANCE CLASSNAME=&#34;Msvm_KvpExchangeDataItem&#34;&gt;&lt;PROPERTY NAME=&#34;Data&#34; TYPE=&#34;string&#34;&gt;&lt;VALUE&gt;name1.name4&lt;/VALUE&gt;&lt;/PROPERTY&gt;&lt;/INSTANCE&gt;</p:K>`,
		},
		{"a fault's host", `<f:WSManFault Code="5" Machine="web01.corp">0x80041010 web01</f:WSManFault>`, `<f:WSManFault Code="5" Machine="name1.name4">0x80041010 name1</f:WSManFault>`},
		{"other scripts", `<p:N>Müller ферма 服务器</p:N>`, `<p:N>name5 name6 name7</p:N>`},
		{
			"a reference", `<w:ResourceURI>http://schemas.microsoft.com/wbem/wsman/1/wmi/root/cimv2/Win32_Service</w:ResourceURI><w:Selector Name="Name">web01</w:Selector>`,
			`<w:ResourceURI>http://schemas.microsoft.com/wbem/wsman/1/wmi/root/cimv2/Win32_Service</w:ResourceURI><w:Selector Name="Name">name1</w:Selector>`,
		},
	} {
		doc, want := "<x>"+c.doc+"</x>", "<x>"+c.want+"</x>"
		if got, err := m.XML(doc); got != want || err != nil {
			t.Errorf("%s:\ngot  %s, %v\nwant %s", c.name, got, err, want)
		}
	}
}

func FuzzMask(f *testing.F) {
	f.Add(`<a b="c">secretword <INSTANCE/></a>`)
	f.Add(`<a>&lt;INSTANCE&gt;&lt;VALUE&gt;secretword&lt;/VALUE&gt;&lt;/INSTANCE&gt;</a>`)
	f.Fuzz(func(t *testing.T, doc string) {
		out, err := newMask().XML("<x><y>secretword</y>" + doc + "</x>")
		if err == nil && strings.Contains(out, ">secretword<") {
			t.Errorf("%q", out)
		}
	})
}
