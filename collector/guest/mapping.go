package guest

import (
	"cmp"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/protip/protip/internal/inventory"
)

// Bounds of what one target may make of its series.
const (
	maxServices = 500
	maxName     = 200 // bytes of a service's name
)

// Types of mapping.
const (
	Systemd     = "systemd"     // node_exporter's node_systemd_unit_state
	Windows     = "windows"     // windows_exporter's windows_service_state and windows_service_start_mode; a Windows host's Win32_Service
	Metric      = "metric"      // any series
	Performance = "performance" // a property of a Windows host's performance class
)

// Mapping says which services the series of targets, or the classes of Windows hosts, are.
type Mapping struct {
	Type  string
	Names []string // of units, Windows services or a class's instances: regular expressions for the whole name; of instances, none is all

	Class, Property string // of type performance: Win32_PerfRawData_...

	Metric   string            // without _bucket, _sum, _count
	Match    map[string]string // only series with these labels
	Name     string            // of the service, before the values of Labels
	Labels   []string
	Running  bool    // the value says whether it runs: 0 is failed
	Latency  string  // value | mean | quantile; empty: not of latency. Of a class, mean is of a timer with its base
	Quantile float64 // 0..1
	Scale    float64 // to seconds; 0 is 1
}

const (
	unitState    = "node_systemd_unit_state"
	serviceState = "windows_service_state"
	startMode    = "windows_service_start_mode"
)

// mapping is one that is ready to be used.
type mapping struct {
	Mapping
	names *regexp.Regexp
}

func compile(in []Mapping) ([]mapping, error) {
	out := make([]mapping, len(in))
	for i, m := range in {
		out[i] = mapping{Mapping: m}
		flags := ""
		switch m.Type {
		case Systemd, Metric:
		case Windows, Performance:
			flags = "(?i)" // as Windows takes names
		default:
			return nil, fmt.Errorf("unknown type of services %q", m.Type)
		}
		var err error
		if out[i].names, err = regexp.Compile(flags + "^(?:" + strings.Join(m.Names, "|") + ")$"); err != nil {
			return nil, fmt.Errorf("names of services: %w", err)
		}
		if m.Scale == 0 {
			out[i].Scale = 1
		}
	}
	return out, nil
}

// series are the names of the series that the mapping reads.
func (m *mapping) series() []string {
	switch m.Type {
	case Systemd:
		return []string{unitState}
	case Windows:
		return []string{serviceState, startMode}
	case Performance:
		return []string{""}
	}
	return []string{m.Metric, m.Metric + "_bucket", m.Metric + "_sum", m.Metric + "_count"}
}

// reading is what an answer says of one service.
type reading struct {
	typ, name string
	state     inventory.ServiceState // empty: not known
	latency   float64                // seconds, if measured
	measured  bool
	from      []int // the mappings that told of it
}

// read makes services of an answer's series. Several mappings may tell of one service: the worst state and the longest latency
// count. past is brought up to date.
func read(mappings []mapping, families map[string]*dto.MetricFamily, past *past) answer {
	return gather(mappings, past, func(i int, m *mapping, next map[pastKey]totals, yield func(reading)) bool {
		main := families[m.series()[0]]
		m.each(i, main, families, past, next, yield)
		return main != nil
	})
}

// gather makes an answer of what each mapping yields, and whether what it reads is there at all.
func gather(mappings []mapping, past *past, each func(i int, m *mapping, next map[pastKey]totals, yield func(reading)) bool) answer {
	ans := answer{exposed: make([]bool, len(mappings))}
	found := map[[2]string]*reading{}
	next := map[pastKey]totals{}
	for i := range mappings {
		m := &mappings[i]
		ans.exposed[i] = each(i, m, next, func(r reading) {
			if r.name == "" || len(r.name) > maxName {
				ans.dropped++
				return
			}
			r.typ = m.Type
			key := [2]string{r.typ, r.name}
			if was := found[key]; was != nil {
				was.add(r)
			} else {
				found[key] = &r
			}
			if last := found[key]; !slices.Contains(last.from, i) {
				last.from = append(last.from, i)
			}
		})
	}
	past.totals = next
	for _, r := range found {
		ans.readings = append(ans.readings, *r)
	}
	slices.SortFunc(ans.readings, func(a, b reading) int { return cmp.Or(cmp.Compare(a.typ, b.typ), cmp.Compare(a.name, b.name)) })
	if n := len(ans.readings) - maxServices; n > 0 {
		ans.dropped += n
		ans.readings = ans.readings[:maxServices]
	}
	return ans
}

// badness orders states: of two that are told of one service, the worse is believed.
var badness = map[inventory.ServiceState]int{inventory.ServiceRunning: 1, inventory.ServiceStopped: 2, inventory.ServiceFailed: 3}

func (r *reading) add(other reading) {
	if badness[other.state] > badness[r.state] {
		r.state = other.state
	}
	if other.measured && (!r.measured || other.latency > r.latency) {
		r.latency, r.measured = other.latency, true
	}
}

// each yields the services of one mapping.
func (m *mapping) each(i int, main *dto.MetricFamily, families map[string]*dto.MetricFamily, past *past, next map[pastKey]totals, yield func(reading)) {
	switch {
	case m.Type == Systemd:
		m.units(main, yield)
	case m.Type == Windows:
		m.windowsServices(main, families[startMode], yield)
	case m.Latency == "mean" || m.Latency == "quantile" && main.GetType() == dto.MetricType_HISTOGRAM:
		m.between(i, main, past, next, yield)
	default:
		m.values(main, yield)
	}
}

// units reads systemd's states. A unit on its way from one to another is neither up nor down.
func (m *mapping) units(family *dto.MetricFamily, yield func(reading)) {
	states := map[string]inventory.ServiceState{
		"active": inventory.ServiceRunning, "reloading": inventory.ServiceRunning, "refreshing": inventory.ServiceRunning,
		"inactive": inventory.ServiceStopped, "failed": inventory.ServiceFailed,
	}
	for _, metric := range family.GetMetric() {
		if name := label(metric, "name"); m.names.MatchString(name) {
			r := reading{name: name}
			if value(metric) == 1 {
				r.state = states[label(metric, "state")]
			}
			yield(r)
		}
	}
}

// windowsServices reads the states of Windows services. One that is stopped and starts by itself should run.
func (m *mapping) windowsServices(family, modes *dto.MetricFamily, yield func(reading)) {
	auto := map[string]bool{}
	for _, metric := range modes.GetMetric() {
		if value(metric) == 1 && label(metric, "start_mode") == "auto" {
			auto[label(metric, "name")] = true
		}
	}
	for _, metric := range family.GetMetric() {
		name := label(metric, "name")
		if !m.names.MatchString(name) {
			continue
		}
		r := reading{name: name}
		switch state := label(metric, "state"); {
		case value(metric) != 1:
		case state == "running":
			r.state = inventory.ServiceRunning
		case state == "stopped" && auto[name]:
			r.state = inventory.ServiceFailed
		case state == "stopped" || state == "paused":
			r.state = inventory.ServiceStopped
		}
		yield(r)
	}
}

// values reads services from what the series say now.
func (m *mapping) values(family *dto.MetricFamily, yield func(reading)) {
	for _, metric := range family.GetMetric() {
		name, ok := m.service(metric)
		if !ok {
			continue
		}
		r := reading{name: name}
		v := value(metric)
		if m.Latency == "quantile" {
			v = m.ofSummary(metric)
		}
		switch {
		case math.IsNaN(v):
		case m.Running && v == 0:
			r.state = inventory.ServiceFailed
		case m.Running:
			r.state = inventory.ServiceRunning
		default:
			r.latency, r.measured = v*m.Scale, true
		}
		yield(r)
	}
}

func (m *mapping) ofSummary(metric *dto.Metric) float64 {
	for _, q := range metric.GetSummary().GetQuantile() {
		if math.Abs(q.GetQuantile()-m.Quantile) < 1e-9 {
			return q.GetValue()
		}
	}
	return math.NaN()
}

// service is what the series' service is called, false if it is of none.
func (m *mapping) service(metric *dto.Metric) (string, bool) {
	for name, want := range m.Match {
		if label(metric, name) != want {
			return "", false
		}
	}
	parts := make([]string, 0, 1+len(m.Labels))
	if m.Name != "" {
		parts = append(parts, m.Name)
	}
	for _, name := range m.Labels {
		if v := label(metric, name); v != "" {
			parts = append(parts, v)
		}
	}
	return strings.Join(parts, "/"), true
}

// past is what counters were at the look before: the totals of histograms and summaries, and those of a machine.
type past struct {
	totals  map[pastKey]totals
	machine machinePast
	at      time.Time
}

type pastKey struct {
	mapping int
	service string
}

// totals are all requests of a service until now: several series (by status, by method) are added up.
type totals struct {
	sum, count float64
	buckets    map[float64]float64 // upper bound -> requests up to it
}

// forget drops what was seen longer ago than that: a mean over an outage is not of now.
func (p *past) forget(now time.Time, after time.Duration) {
	if now.Sub(p.at) > after {
		p.totals, p.machine.cpu = nil, nil
	}
	p.at = now
}

// between reads latencies from what was added to histograms and summaries since the look before. If nothing was, or a counter began
// anew, there is no latency to tell: it is absent, and not zero.
func (m *mapping) between(i int, family *dto.MetricFamily, past *past, next map[pastKey]totals, yield func(reading)) {
	now := map[string]totals{}
	for _, metric := range family.GetMetric() {
		if name, ok := m.service(metric); ok {
			now[name] = now[name].plus(metric)
		}
	}
	for name, t := range now {
		yield(m.since(i, name, t, past, next))
	}
}

// since reads a latency from what was added to a service's totals since the look before.
func (m *mapping) since(i int, name string, t totals, past *past, next map[pastKey]totals) reading {
	key := pastKey{i, name}
	next[key] = t
	r := reading{name: name}
	if was, ok := past.totals[key]; ok {
		added := t.minus(was)
		v := added.sum / added.count
		if m.Latency == "quantile" {
			v = added.quantile(m.Quantile)
		}
		if added.count > 0 && added.sum >= 0 && !math.IsNaN(v) {
			r.latency, r.measured = v*m.Scale, true
		}
	}
	return r
}

func (t totals) plus(metric *dto.Metric) totals {
	if s := metric.GetSummary(); s != nil {
		t.sum, t.count = t.sum+s.GetSampleSum(), t.count+float64(s.GetSampleCount())
		return t
	}
	h := metric.GetHistogram()
	t.sum, t.count = t.sum+h.GetSampleSum(), t.count+float64(h.GetSampleCount())
	if t.buckets == nil {
		t.buckets = map[float64]float64{}
	}
	for _, b := range h.GetBucket() {
		t.buckets[b.GetUpperBound()] += float64(b.GetCumulativeCount())
	}
	return t
}

func (t totals) minus(was totals) totals {
	out := totals{sum: t.sum - was.sum, count: t.count - was.count, buckets: map[float64]float64{}}
	for bound, n := range t.buckets {
		out.buckets[bound] = n - was.buckets[bound]
	}
	return out
}

// quantile is PromQL's histogram_quantile: within a bucket, requests are taken to be spread evenly. Above the last bound it is that
// bound.
func (t totals) quantile(q float64) float64 {
	bounds := make([]float64, 0, len(t.buckets))
	for bound := range t.buckets {
		if !math.IsNaN(bound) && !math.IsInf(bound, 0) {
			bounds = append(bounds, bound)
		}
	}
	if len(bounds) == 0 {
		return math.NaN()
	}
	slices.Sort(bounds)
	rank, below, lower := q*t.count, 0.0, 0.0
	for _, upper := range bounds {
		upTo := t.buckets[upper]
		if upTo >= rank && upTo > below {
			return max(lower, 0) + (upper-max(lower, 0))*(rank-below)/(upTo-below)
		}
		below, lower = max(below, upTo), upper
	}
	return bounds[len(bounds)-1]
}

func label(metric *dto.Metric, name string) string {
	for _, l := range metric.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// value is the number of a gauge, counter or untyped series, NaN of another.
func value(metric *dto.Metric) float64 {
	switch {
	case metric.Gauge != nil:
		return metric.Gauge.GetValue()
	case metric.Counter != nil:
		return metric.Counter.GetValue()
	case metric.Untyped != nil:
		return metric.Untyped.GetValue()
	}
	return math.NaN()
}
