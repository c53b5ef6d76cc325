package vsphere

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vim25/xml"

	platform "github.com/protip/protip/internal/platform/vsphere"
)

func TestReadTimes(t *testing.T) {
	minute := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	tests := []struct {
		name, csv string
		want      []time.Time
	}{
		{"none", "", nil},
		{"two", "20,2026-03-01T10:00:20Z,20,2026-03-01T10:00:40Z", []time.Time{minute.Add(20 * time.Second), minute.Add(40 * time.Second)}},
		{"another zone", "20,2026-03-01T12:00:20+02:00", []time.Time{minute.Add(20 * time.Second)}},
		{"another interval", "300,2026-03-01T10:05:00Z", nil},
		{"no time", "20", nil},
		{"no date", "20,yesterday", nil},
		{"more than a host keeps", strings.Repeat("20,2026-03-01T10:00:20Z,", 200), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := appendTimes([]time.Time{minute}, []byte(tt.csv))[1:]
			if len(got) != len(tt.want) {
				t.Fatalf("got %v, want %v", got, tt.want)
			}
			for i := range got {
				if !got[i].Equal(tt.want[i]) {
					t.Errorf("got %v, want %v", got, tt.want)
				}
			}
		})
	}
}

func TestReadValues(t *testing.T) {
	nan := math.NaN()
	tests := []struct {
		name, csv string
		want      []float64
	}{
		{"none", "", []float64{nan}},
		{"zero is a value", "0", []float64{0}},
		{"holes", "12,,-1,7", []float64{12, nan, nan, 7}},
		{"trailing hole", "12,", []float64{12, nan}},
		{"not numbers", "a,1e3,0x1f,9223372036854775808", []float64{nan, nan, nan, nan}},
		{"large, spaced, signed", "9223372036854775807, 7 ,+7", []float64{math.MaxInt64, 7, 7}},
		{"fewer than times", "1,2", []float64{nan, nan, nan}},
		{"more than times", "1,2", []float64{nan}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := make([]float64, len(tt.want))
			for i := range got {
				got[i] = nan
			}
			readValues(got, []byte(tt.csv))
			if !sameNumbers(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func sameNumbers(a, b []float64) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] && !(math.IsNaN(a[i]) && math.IsNaN(b[i])) {
			return false
		}
	}
	return true
}

// What is asked in the tests of answers.
var (
	askedVMs      = []ask{{"vm-1", 1}, {"vm-2", 1}, {"a<b", 1}}
	askedCounters = []int32{7, 12, 125}
	asked         = counted{kind: typeVM, ids: askedCounters}
)

// scan reads an answer to what is asked.
func scan(answered string) (*answer, error) {
	s := platform.NewScanner(strings.NewReader(answered))
	defer s.Close()
	a := &answer{of: &asked}
	err := platform.ReadAnswer(s, "QueryPerf", func(s *platform.Scanner) error { return a.read(s, askedVMs) })
	return a, err
}

// text is what was read, a line for each counter of each VM. Times that cannot be told leave no value to tell.
func (a *answer) text() string {
	var b strings.Builder
	for i := range a.series {
		s := &a.series[i]
		fmt.Fprintln(&b, s.ref)
		for _, t := range s.times {
			fmt.Fprintln(&b, t.UTC().Format(time.RFC3339Nano))
		}
		for n, id := range askedCounters {
			fmt.Fprintln(&b, id, s.values[n*len(s.times):(n+1)*len(s.times)])
		}
	}
	return b.String()
}

// decode reads an answer by govmomi and makes of it what scan should.
func decode(answered string) (a *answer, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	var body methods.QueryPerfBody
	dec := xml.NewDecoder(strings.NewReader(answered))
	dec.TypeFunc = types.TypeFunc()
	if err := dec.Decode(&soap.Envelope{Body: &body}); err != nil {
		return nil, err
	}
	if body.Fault_ != nil {
		return nil, soap.WrapSoapFault(body.Fault_)
	}
	if body.Res == nil {
		return nil, io.ErrUnexpectedEOF
	}
	a = &answer{}
	for _, r := range body.Res.Returnval {
		csv, ok := r.(*types.PerfEntityMetricCSV)
		asked := false
		for _, q := range askedVMs {
			asked = asked || ok && csv.Entity.Type == typeVM && csv.Entity.Value == q.ref
		}
		if !asked {
			continue
		}
		s := series{ref: csv.Entity.Value, times: appendTimes(nil, []byte(csv.SampleInfoCSV))}
		for range len(askedCounters) * len(s.times) {
			s.values = append(s.values, math.NaN())
		}
		for n, id := range askedCounters {
			for _, v := range csv.Value {
				if v.Id.CounterId == id && v.Id.Instance == "" {
					readValues(s.values[n*len(s.times):(n+1)*len(s.times)], []byte(v.Value))
				}
			}
		}
		a.series = append(a.series, s)
	}
	return a, nil
}

const plainAnswer = `<?xml version="1.0" encoding="UTF-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<soapenv:Body>
<QueryPerfResponse xmlns="urn:vim25"><returnval xsi:type="PerfEntityMetricCSV"><entity type="VirtualMachine">vm-1</entity><sampleInfoCSV>20,2026-03-01T10:00:20Z,20,2026-03-01T10:00:40Z</sampleInfoCSV><value><id><counterId>12</counterId><instance></instance></id><value>5,-1</value></value><value><id><counterId>7</counterId><instance></instance></id><value>0,8</value></value></returnval><returnval xsi:type="PerfEntityMetricCSV"><entity type="VirtualMachine">vm-2</entity><sampleInfoCSV>20,2026-03-01T10:00:20Z</sampleInfoCSV><value><id><counterId>12</counterId><instance></instance></id><value>9</value></value><value><id><counterId>12</counterId><instance>vmnic0</instance></id><value>10</value></value></returnval></QueryPerfResponse>
</soapenv:Body>
</soapenv:Envelope>
`

const plainText = `vm-1
2026-03-01T10:00:20Z
2026-03-01T10:00:40Z
7 [0 8]
12 [5 NaN]
125 [NaN NaN]
vm-2
2026-03-01T10:00:20Z
7 [NaN]
12 [9]
125 [NaN]
`

// TestAnswersInManyForms reads one answer as XML allows to write it.
func TestAnswersInManyForms(t *testing.T) {
	swap := func(old, new string) string {
		if !strings.Contains(plainAnswer, old) {
			t.Fatalf("%q is not in the answer", old)
		}
		return strings.ReplaceAll(plainAnswer, old, new)
	}
	tests := []struct{ name, answered string }{
		{"plain", plainAnswer},
		{"prefixes", strings.NewReplacer("<value", "<v:value", "</value", "</v:value", "<id>", "<v:id>", "</id>", "</v:id>").Replace(swap(`xmlns:xsd=`, `xmlns:v="urn:vim25" xmlns:xsd=`))},
		{"another prefix of types", strings.ReplaceAll(swap("xmlns:xsi=", "xmlns:q="), "xsi:type=", "q:type=")},
		{"more attributes in another order", swap(`<entity type="VirtualMachine">`, "<entity\n id = '>/'  serverGuid=\"a'b\"\ttype='VirtualMachine' >")},
		{"empty elements", swap("<instance></instance>", "<instance />")},
		{"entities", swap("<value>5,-1</value>", "<value>&#53;&#x2c;-1</value>")},
		{"entities in attributes", swap(`type="VirtualMachine"`, `type="Virtual&#77;achine"`)},
		{"comments", swap("<value>5,-1</value>", "<!-- <value>6</value> --><value><!-- > -->5<!---->,-1</value>")},
		{"CDATA", swap("vm-2</entity>", "<![CDATA[vm-]]>2</entity>")},
		{"instructions", swap("<returnval", "<?a </returnval> ?><returnval")},
		{"white space between and in tags", strings.ReplaceAll(strings.ReplaceAll(swap("</value>", "</value >"), "<instance></instance>", "<instance/>"), "><", ">\r\n\t<")},
		{"white space in numbers", swap("<counterId>12<", "<counterId> 12\n<")},
		{"elements that are not known", swap("<sampleInfoCSV>", "<new><value><id/></value>text</new><sampleInfoCSV>")},
		{"a header", swap("<soapenv:Body>", "<soapenv:Header><a>b</a></soapenv:Header><soapenv:Body>")},
		{"another entity", swap("<QueryPerfResponse xmlns=\"urn:vim25\">", "<QueryPerfResponse xmlns=\"urn:vim25\"><returnval xsi:type=\"PerfEntityMetricCSV\"><entity type=\"HostSystem\">vm-1</entity><sampleInfoCSV></sampleInfoCSV></returnval>")},
		{"a VM that was not asked for", swap("<QueryPerfResponse xmlns=\"urn:vim25\">", "<QueryPerfResponse xmlns=\"urn:vim25\"><returnval xsi:type=\"PerfEntityMetricCSV\"><entity type=\"VirtualMachine\">vm-9</entity><sampleInfoCSV>20,2026-03-01T10:00:20Z</sampleInfoCSV></returnval>")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, err := scan(tt.answered)
			if err != nil {
				t.Fatal(err)
			}
			if got := a.text(); got != plainText {
				t.Errorf("got\n%s\nwant\n%s", got, plainText)
			}
			if want, err := decode(tt.answered); err != nil || want.text() != plainText {
				t.Errorf("govmomi reads\n%s\n%v", want.text(), err)
			}
		})
	}
}

// TestTruncatedAnswers reads each beginning of an answer, and the answer a byte at a time.
func TestTruncatedAnswers(t *testing.T) {
	whole := strings.TrimSpace(plainAnswer)
	for n := range len(whole) {
		if _, err := scan(whole[:n]); err == nil {
			t.Fatalf("no error after %d of %d bytes: %s", n, len(whole), whole[:n])
		}
	}
	s := platform.NewScanner(oneByte{strings.NewReader(whole)})
	defer s.Close()
	a := &answer{of: &asked}
	err := platform.ReadAnswer(s, "QueryPerf", func(s *platform.Scanner) error { return a.read(s, askedVMs) })
	if err != nil || a.text() != plainText {
		t.Errorf("got %v\n%s", err, a.text())
	}
}

type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(len(p), 1)]) }

func TestBadAnswers(t *testing.T) {
	tests := []struct{ name, old, new string }{
		{"an id that is no number", "<counterId>7<", "<counterId>seven<"},
		{"an id that is too large", "<counterId>7<", "<counterId>4294967303<"},
		{"no id", "<counterId>7</counterId>", ""},
		{"values before the id", "<value><id><counterId>7", "<value><value>1,2</value><id><counterId>7"},
		{"values twice", "<value>0,8</value>", "<value>0,8</value><value>0,9</value>"},
		{"a counter twice", "<counterId>7<", "<counterId>12<"},
		{"times twice", "</sampleInfoCSV>", "</sampleInfoCSV><sampleInfoCSV>20,2026-03-01T10:00:20Z</sampleInfoCSV>"},
		{"elements in a text", "<value>0,8<", "<value>0<b/>,8<"},
		{"another end tag", "</returnval>", "</returnvals>"},
		{"crossed end tags", "</id><value>0,8</value>", "<value></id>0,8</value>"},
		{"an entity that is not known", "<value>0,8<", "<value>&zero;,8<"},
		{"a character that is none", "<value>0,8<", "<value>&#xd800;,8<"},
		{"a declaration", "<soapenv:Body>", "<!DOCTYPE a [<!ENTITY b 'c'>]><soapenv:Body>"},
		{"no answer", "QueryPerfResponse", "QueryPerfesponse"},
		{"two bodies", "</soapenv:Body>", "</soapenv:Body><soapenv:Body></soapenv:Body>"},
		{"something behind the end", "</soapenv:Envelope>", "</soapenv:Envelope><a/>"},
		{"a tag without an end", "<instance></instance>", "<instance a='></instance>"},
		{"nested without end", "<id>", strings.Repeat("<id>", 200)},
		{"a text without end", "<value>0,8<", "<value>" + strings.Repeat("0,8,", 1<<19) + "<"},
		{"a comment without end", "<value>0,8<", "<value><!--" + strings.Repeat("0,8,", 1<<19) + "<"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !strings.Contains(plainAnswer, tt.old) {
				t.Fatalf("%q is not in the answer", tt.old)
			}
			if a, err := scan(strings.ReplaceAll(plainAnswer, tt.old, tt.new)); err == nil {
				t.Errorf("no error, but\n%s", a.text())
			}
		})
	}
}

// FuzzQueryPerf reads answers as govmomi does, or not at all.
func FuzzQueryPerf(f *testing.F) {
	f.Add(plainAnswer)
	f.Add(strings.ReplaceAll(plainAnswer, "<value>5,-1</value>", "<value><![CDATA[5]]>&#x2c;<!-- 1 -->7</value>"))
	f.Add(strings.ReplaceAll(plainAnswer, "<instance></instance>", "<instance/>"))
	f.Add(strings.ReplaceAll(plainAnswer, "vm-2", "a&lt;b"))
	f.Fuzz(func(t *testing.T, answered string) {
		got, err := scan(answered)
		if err != nil {
			return
		}
		for i := range got.series {
			s := &got.series[i]
			if len(s.times) > maxSamples || len(s.values) != len(s.times)*len(askedCounters) {
				t.Fatalf("%d values of %d times", len(s.values), len(s.times))
			}
			for _, v := range s.values {
				if v < 0 || math.IsInf(v, 0) {
					t.Errorf("value %v", v)
				}
			}
		}
		if strings.Count(answered, "xmlns") > strings.Count(plainAnswer, "xmlns") {
			return // a prefix that is bound twice, each time for a part of the document
		}
		if want, err := decode(answered); err == nil && got.text() != want.text() {
			t.Errorf("got\n%s\ngovmomi reads\n%s", got.text(), want.text())
		}
	})
}

// FuzzSamples gives hostile answers to what makes samples of them.
func FuzzSamples(f *testing.F) {
	f.Add("20,2026-03-01T10:00:20Z", "5", "5", int16(4))
	f.Add("20,9999-03-01T10:00:20Z", "400000", "-5", int16(1))
	f.Fuzz(func(t *testing.T, times, ready, received string, vcpus int16) {
		p := testPerf(map[string]vmSpec{"vm-1": {host: "host-1", vcpus: int(vcpus)}})
		s := series{ref: "vm-1", times: appendTimes(nil, []byte(times))}
		for range counters * len(s.times) {
			s.values = append(s.values, math.NaN())
		}
		readValues(s.values[counterReady*len(s.times):][:len(s.times)], []byte(ready))
		readValues(s.values[counterReceive*len(s.times):][:len(s.times)], []byte(received))
		for _, set := range p.samples([]*answer{{of: &p.vms, series: []series{s}}}, 0) {
			if time.UnixMilli(set.At).After(p.opts.Clock.Now().Add(time.Minute)) {
				t.Errorf("a sample from the future: %v", time.UnixMilli(set.At))
			}
			for _, v := range set.Values {
				if !(v.Value >= 0) || v.Metric.Desc().Unit == "ratio" && v.Value > 1 {
					t.Errorf("%v = %v", v.Metric, v.Value)
				}
			}
		}
	})
}

// TestPerfRequest reads the request as a vCenter would.
func TestPerfRequest(t *testing.T) {
	var got struct {
		Req types.QueryPerfRequestType `xml:"urn:vim25 QueryPerf"`
	}
	request := newPerfRequest("Perf<Mgr", &counted{kind: typeVM, ids: []int32{7, 12}}, []ask{{"vm-1", 2}, {"a<&>b", 999}})
	body := request.append(nil)
	if len(body) > request.size() {
		t.Errorf("%d bytes, which is more than %d", len(body), request.size())
	}
	dec := xml.NewDecoder(bytes.NewReader([]byte("<Body>" + string(body) + "</Body>")))
	dec.TypeFunc = types.TypeFunc()
	if err := dec.Decode(&got); err != nil {
		t.Fatal(err)
	}
	want := types.QueryPerfRequestType{This: types.ManagedObjectReference{Type: "PerformanceManager", Value: "Perf<Mgr"}}
	for _, a := range []ask{{"vm-1", 2}, {"a<&>b", maxSamples}} {
		want.QuerySpec = append(want.QuerySpec, types.PerfQuerySpec{
			Entity: types.ManagedObjectReference{Type: typeVM, Value: a.ref}, MaxSample: int32(a.count),
			MetricId: []types.PerfMetricId{{CounterId: 7}, {CounterId: 12}}, IntervalId: realtime, Format: string(types.PerfFormatCsv),
		})
	}
	if fmt.Sprintf("%+v", got.Req) != fmt.Sprintf("%+v", want) {
		t.Errorf("got\n%+v\nwant\n%+v", got.Req, want)
	}
}
