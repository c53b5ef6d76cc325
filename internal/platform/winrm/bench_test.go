package winrm

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// processors is a page of counters of n virtual processors, as Windows writes it.
func processors(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `<p:Win32_PerfRawData_HvStats_HyperVHypervisorVirtualProcessor xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:p="http://schemas.microsoft.com/wbem/wsman/1/wmi/root/cimv2/Win32_PerfRawData_HvStats_HyperVHypervisorVirtualProcessor" xmlns:cim="http://schemas.dmtf.org/wbem/wscim/1/common" xsi:type="p:Win32_PerfRawData_HvStats_HyperVHypervisorVirtualProcessor_Type">`+
			`<p:Caption xsi:nil="true"/><p:CPUWaitTimePerDispatch>%d</p:CPUWaitTimePerDispatch><p:CPUWaitTimePerDispatch_Base>%d</p:CPUWaitTimePerDispatch_Base><p:Frequency_PerfTime>10000000</p:Frequency_PerfTime>`+
			`<p:Name>vm-%04d:Hv VP 0</p:Name><p:PercentGuestRunTime>%d</p:PercentGuestRunTime><p:PercentTotalRunTime>%d</p:PercentTotalRunTime><p:Timestamp_Sys100NS>133500000000000000</p:Timestamp_Sys100NS>`+
			`</p:Win32_PerfRawData_HvStats_HyperVHypervisorVirtualProcessor>`, 1e9+i, 1e7+i, i, 2e10+i, 3e10+i)
	}
	return soap(`<n:EnumerateResponse><n:EnumerationContext/><w:Items>` + b.String() + `</w:Items><w:EndOfSequence/></n:EnumerateResponse>`)
}

type processor struct {
	Name  string `cim:"Name"`
	Wait  uint64 `cim:"CPUWaitTimePerDispatch"`
	Guest uint64 `cim:"PercentGuestRunTime"`
	Total uint64 `cim:"PercentTotalRunTime"`
	Stamp uint64 `cim:"Timestamp_Sys100NS"`
}

// BenchmarkDecode reads a page of counters into structs; floor-ratio is against merely reading its tokens.
func BenchmarkDecode(b *testing.B) {
	body := processors(1000)
	shape, err := NewShape[processor]()
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		var v processor
		if _, err := decodePage(body, func(i Instance) error {
			_, err := shape.Decode(i, &v)
			return err
		}); err != nil {
			b.Fatal(err)
		}
	}
	spent := b.Elapsed() / time.Duration(b.N)
	began := time.Now()
	const rounds = 20
	for range rounds {
		s := &scanner{doc: body}
		for t := tokenStart; t != tokenEOF; {
			if t, err = s.next(); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(spent)/float64(time.Since(began)/rounds), "floor-ratio")
}
