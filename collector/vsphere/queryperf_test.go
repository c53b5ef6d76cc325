package vsphere

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/types"
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
			got := readTimes(tt.csv)
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
		{"none", "", nil},
		{"zero is a value", "0", []float64{0}},
		{"holes", "12,,-1,7", []float64{12, nan, nan, 7}},
		{"trailing hole", "12,", []float64{12, nan}},
		{"not numbers", "a,1e3,0x1f,9223372036854775808", []float64{nan, nan, nan, nan}},
		{"more than a host keeps", strings.Repeat("1,", 200), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := readValues(tt.csv)
			if len(got) != len(tt.want) {
				t.Fatalf("got %v, want %v", got, tt.want)
			}
			for i := range got {
				if got[i] != tt.want[i] && !(math.IsNaN(got[i]) && math.IsNaN(tt.want[i])) {
					t.Errorf("got %v, want %v", got, tt.want)
				}
			}
		})
	}
}

func FuzzReadSeries(f *testing.F) {
	f.Add("20,2026-03-01T10:00:20Z", "5")
	f.Add("20,2026-03-01T10:00:20Z,20,2026-03-01T10:00:40Z", "5,-1")
	f.Add("20,2026-03-01T10:00:20Z,", ",,,")
	f.Add("20,0000-00-00T00:00:00Z", "99999999999999999999")
	f.Fuzz(func(t *testing.T, times, values string) {
		s := readSeries(&types.PerfEntityMetricCSV{
			SampleInfoCSV: times,
			Value:         []types.PerfMetricSeriesCSV{{PerfMetricSeries: types.PerfMetricSeries{Id: types.PerfMetricId{CounterId: 1}}, Value: values}},
		})
		if len(s.times) > maxSamples {
			t.Errorf("%d times", len(s.times))
		}
		if v, ok := s.values[1]; ok && len(v) != len(s.times) {
			t.Errorf("%d values beside %d times", len(v), len(s.times))
		}
		for _, v := range s.values[1] {
			if v < 0 || math.IsInf(v, 0) {
				t.Errorf("value %v", v)
			}
		}
	})
}

// FuzzSamples gives hostile answers to what makes samples of them.
func FuzzSamples(f *testing.F) {
	f.Add("20,2026-03-01T10:00:20Z", "5", "5", int16(4))
	f.Add("20,9999-03-01T10:00:20Z", "400000", "-5", int16(1))
	f.Fuzz(func(t *testing.T, times, ready, received string, vcpus int16) {
		p := testPerf(map[string]vmSpec{"vm-1": {host: "host-1", vcpus: int(vcpus)}})
		one := func(name, values string) types.PerfMetricSeriesCSV {
			return types.PerfMetricSeriesCSV{PerfMetricSeries: types.PerfMetricSeries{Id: types.PerfMetricId{CounterId: p.named[name]}}, Value: values}
		}
		csv := &types.PerfEntityMetricCSV{
			PerfEntityMetricBase: types.PerfEntityMetricBase{Entity: types.ManagedObjectReference{Type: typeVM, Value: "vm-1"}},
			SampleInfoCSV:        times,
			Value:                []types.PerfMetricSeriesCSV{one(counterReady, ready), one(counterReceive, received)},
		}
		for _, set := range p.samples([]series{readSeries(csv)}, 0) {
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
