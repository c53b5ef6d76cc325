package vsphere

import (
	"context"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	platform "github.com/protip/protip/internal/platform/vsphere"
)

// realtime is the interval of the samples that hosts keep for an hour, in seconds.
const realtime = 20

// maxSamples is how many samples of one entity are asked for or believed: what a host keeps.
const maxSamples = 180

// ask is what is asked of one VM: its newest samples, count of them.
type ask struct {
	vm    string // MoRef value
	count int
}

// series are one VM's answered samples. Values of a counter stand beside Times; one that is missing is NaN.
type series struct {
	vm     string
	times  []time.Time // the vCenter's, each the end of an interval; in whatever order they came
	values map[int32][]float64
}

// queryPerf asks for counters of VMs in one call.
func queryPerf(ctx context.Context, c *platform.Conn, counters []int32, asks []ask) ([]series, error) {
	metrics := make([]types.PerfMetricId, len(counters))
	for i, id := range counters {
		metrics[i] = types.PerfMetricId{CounterId: id, Instance: ""} // the VM as a whole
	}
	req := types.QueryPerf{This: *c.ServiceContent.PerfManager, QuerySpec: make([]types.PerfQuerySpec, len(asks))}
	for i, a := range asks {
		req.QuerySpec[i] = types.PerfQuerySpec{
			Entity:     types.ManagedObjectReference{Type: typeVM, Value: a.vm},
			MaxSample:  int32(min(a.count, maxSamples)),
			MetricId:   metrics,
			IntervalId: realtime,
			Format:     string(types.PerfFormatCsv),
		}
	}
	res, err := methods.QueryPerf(ctx, c, &req)
	if err != nil {
		return nil, err
	}
	out := make([]series, 0, len(res.Returnval))
	for _, r := range res.Returnval {
		if csv, ok := r.(*types.PerfEntityMetricCSV); ok && csv.Entity.Type == typeVM {
			out = append(out, readSeries(csv))
		}
	}
	return out, nil
}

// readSeries reads one VM's answer. A counter whose values do not stand one by one beside the times is left out.
func readSeries(csv *types.PerfEntityMetricCSV) series {
	s := series{vm: csv.Entity.Value, times: readTimes(csv.SampleInfoCSV), values: map[int32][]float64{}}
	for i := range csv.Value {
		v := &csv.Value[i]
		if v.Id.Instance != "" {
			continue
		}
		if values := readValues(v.Value); len(values) == len(s.times) {
			s.values[v.Id.CounterId] = values
		}
	}
	return s
}

// readTimes reads "20,2026-03-01T10:00:20Z,20,2026-03-01T10:00:40Z": interval and time of each sample. It is nil if one is
// not of the interval that was asked for or cannot be read: values could then not be told apart.
func readTimes(csv string) []time.Time {
	var out []time.Time
	for rest := csv; rest != ""; {
		var interval, at string
		interval, rest, _ = strings.Cut(rest, ",")
		at, rest, _ = strings.Cut(rest, ",")
		t, err := time.Parse(time.RFC3339, at)
		if err != nil || interval != strconv.Itoa(realtime) || len(out) == maxSamples {
			return nil
		}
		out = append(out, t)
	}
	return out
}

// readValues reads "12,,-1,7". An empty value, and a negative one (the vCenter's -1), is one it does not have.
func readValues(csv string) []float64 {
	if csv == "" {
		return nil
	}
	out := make([]float64, 0, min(1+strings.Count(csv, ","), maxSamples))
	for more := true; more; {
		var field string
		field, csv, more = strings.Cut(csv, ",")
		n, err := strconv.ParseInt(strings.TrimSpace(field), 10, 64)
		x := float64(n)
		if err != nil || n < 0 {
			x = math.NaN()
		}
		if len(out) == maxSamples {
			return nil
		}
		out = append(out, x)
	}
	return out
}
