package rules

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/inventory"
)

// Bounds of a pack's tests.
const (
	maxSeries  = 50
	maxSamples = 10_000 // of one series
	maxWants   = 1000
)

// packTest is one of a pack's own tests: samples in, tips out, in virtual time. Its fleet is one service in one VM on
// one host of one cluster.
type packTest struct {
	name     string
	line     int
	interval time.Duration
	facts    map[*field]any
	samples  map[*field][]float64 // one per interval, from time 0; NaN = none
	series   []testSeries         // of other exporters, likewise
	wants    []want
}

// testSeries is one series that no object of the test has as a sample.
type testSeries struct {
	labels history.Labels
	values []float64
}

// want is what tips there must be at a time; others, pending ones included, must not.
type want struct {
	line, column int
	at           time.Duration
	tips         []wantTip
}

type wantTip struct {
	rule, state, summary string // an empty summary matches any
}

func (p *packParser) readTest(n *yaml.Node) packTest {
	t := packTest{line: n.Line, interval: time.Minute, facts: map[*field]any{}, samples: map[*field][]float64{}}
	p.mapping(n, "a test",
		key{"name", true, func(n *yaml.Node) { t.name = p.text(n, "name", maxText) }},
		key{"interval", false, func(n *yaml.Node) { t.interval = p.duration(n, "interval", time.Hour) }},
		key{"facts", false, func(n *yaml.Node) {
			p.pairs(n, "facts", func(k, v *yaml.Node) { p.readFact(t.facts, k, v) })
		}},
		key{"samples", false, func(n *yaml.Node) {
			p.pairs(n, "samples", func(k, v *yaml.Node) { p.readSamples(t.samples, k, v) })
		}},
		key{"series", false, func(n *yaml.Node) {
			p.pairs(n, "series", func(k, v *yaml.Node) { t.series = append(t.series, p.readSeries(len(t.series), k, v)...) })
		}},
		key{"want", true, func(n *yaml.Node) {
			p.list(n, "want", maxWants, func(_ int, v *yaml.Node) { t.wants = append(t.wants, p.readWant(v)) })
		}},
	)
	if t.interval <= 0 {
		p.failNode(n, "", "interval must be longer than 0")
		return t
	}
	for _, w := range t.wants {
		if w.at%t.interval != 0 || w.at/t.interval >= maxSamples {
			p.fail(w.line, w.column, "", "at must be a multiple of the test's interval %s, and at most %d of them",
				model.Duration(t.interval), maxSamples)
		}
	}
	return t
}

func (p *packParser) field(k *yaml.Node, sample bool) *field {
	if f := p.vocabulary[k.Value]; f != nil && f.sample == sample {
		return f
	}
	var names []string
	for path, f := range p.vocabulary {
		if f.sample == sample {
			names = append(names, path)
		}
	}
	slices.Sort(names)
	p.failNode(k, didYouMean(k.Value, names), "there is no such field")
	return nil
}

func (p *packParser) readFact(into map[*field]any, k, v *yaml.Node) {
	f := p.field(k, false)
	value := p.value(v, k.Value)
	if f == nil || value == nil {
		return
	}
	ok := false
	switch value.(type) {
	case float64:
		ok = f.typ == number
	case string:
		ok = f.typ == text
	case bool:
		ok = f.typ == truth
	}
	if !ok {
		p.failNode(v, "", "%s cannot be %s", k.Value, quoted(v.Value))
		return
	}
	into[f] = value
}

func (p *packParser) readSamples(into map[*field][]float64, k, v *yaml.Node) {
	f := p.field(k, true)
	values, ok := p.readValues(len(into), k, v)
	if f != nil && ok {
		into[f] = values
	}
}

// readSeries reads a series of another exporter, named as in PromQL: up{instance="esx07:9100"}.
func (p *packParser) readSeries(n int, k, v *yaml.Node) []testSeries {
	values, ok := p.readValues(n, k, v)
	metric, err := parser.NewParser(parser.Options{}).ParseMetric(k.Value)
	if err != nil {
		p.failNode(k, `write it as in PromQL, as up{instance="esx07:9100"}`, "%s is no series: %v", quoted(k.Value), err)
		return nil
	}
	if !ok {
		return nil
	}
	t := testSeries{values: values}
	metric.Range(func(l labels.Label) { t.labels = append(t.labels, history.Label{Name: l.Name, Value: l.Value}) })
	return []testSeries{t}
}

// readValues reads values as promtool writes them: "0.9x3" is 0.9 and three more of it, "0+0.1x3" is 0 and three more, each 0.1
// higher, "_" is no sample.
func (p *packParser) readValues(n int, k, v *yaml.Node) (values []float64, ok bool) {
	source := p.text(v, k.Value, maxPackBytes)
	if n >= maxSeries {
		p.failNode(k, "", "more than %d series", maxSeries)
		return nil, false
	}
	for word := range strings.FieldsSeq(source) {
		value, step, times, err := parseRun(word)
		if err != nil {
			p.failNode(v, `write values with blanks between them, as in "0.9x3 _ 0.5"`, "%s: bad value %s", k.Value, quoted(word))
			return nil, false
		}
		if len(values)+times > maxSamples {
			p.failNode(v, "", "%s has more than %d values", k.Value, maxSamples)
			return nil, false
		}
		for i := range times {
			values = append(values, value+float64(i)*step)
		}
	}
	return values, true
}

func parseRun(word string) (value, step float64, times int, err error) {
	number, more, repeated := strings.Cut(word, "x")
	times = 1
	if repeated {
		n, err := strconv.ParseUint(more, 10, 16)
		if err != nil {
			return 0, 0, 0, err
		}
		times += int(n)
	}
	if number == "_" {
		return math.NaN(), 0, times, nil
	}
	if i := strings.LastIndexAny(number, "+-"); i > 0 && repeated && number[i-1] != 'e' && number[i-1] != 'E' {
		if step, err = strconv.ParseFloat(number[i:], 64); err != nil {
			return 0, 0, 0, err
		}
		number = number[:i]
	}
	if value, err = strconv.ParseFloat(number, 64); err == nil && !(finite(value) && finite(step)) {
		err = errors.New("not finite")
	}
	return value, step, times, err
}

func (p *packParser) readWant(n *yaml.Node) want {
	w := want{line: n.Line, column: n.Column}
	p.mapping(n, "a want",
		key{"at", true, func(n *yaml.Node) { w.at = p.duration(n, "at", maxReach) }},
		key{"tips", true, func(n *yaml.Node) {
			p.list(n, "tips", maxRules, func(_ int, v *yaml.Node) { w.tips = append(w.tips, p.readWantTip(v)) })
		}},
	)
	return w
}

func (p *packParser) readWantTip(n *yaml.Node) wantTip {
	var w wantTip
	var names []string
	for _, r := range p.pack.Rules {
		names = append(names, r.Name)
	}
	p.mapping(n, "a tip",
		key{"rule", true, func(n *yaml.Node) { w.rule = p.oneOf(n, "rule", names...) }},
		key{"state", true, func(n *yaml.Node) {
			w.state = p.oneOf(n, "state", string(Pending), string(Active), string(Resolved), string(Unknown))
		}},
		key{"summary", false, func(n *yaml.Node) { w.summary = p.text(n, "summary", maxText*4) }},
	)
	return w
}

// Open makes series that answer PromQL.
type Open func(history.Matrix) history.Querier

// Test runs the pack's own tests. The error joins what failed, each with file and line; nil if nothing did. open is asked only
// for a pack that binds names to PromQL.
func (p *Pack) Test(open Open) error {
	var errs []error
	for _, t := range p.tests {
		errs = append(errs, p.runTest(t, open))
	}
	return errors.Join(errs...)
}

// Tests is how many tests the pack has.
func (p *Pack) Tests() int { return len(p.tests) }

func (p *Pack) runTest(t packTest, open Open) error {
	platform := "vsphere"
	if len(p.Platforms) > 0 {
		platform = p.Platforms[0]
	}
	fleet := inventory.NewFleet(inventory.Source{Name: "test", Platform: platform, Interval: t.interval})
	set := &Set{packs: []*Pack{p}, rules: p.Rules}
	start := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	last := time.Duration(0)
	for _, w := range t.wants {
		last = max(last, w.at)
	}
	var past history.Querier
	if len(set.Queries()) > 0 && open != nil {
		past = open(t.history(start))
	}
	var errs []error
	var tips []Tip
	for at := time.Duration(0); at <= last; at += t.interval {
		now := start.Add(at)
		delta := t.delta(int(at/t.interval), now)
		if _, err := fleet.Apply(delta, now); err != nil {
			return fmt.Errorf("%s:%d: test %q: %w", p.file, t.line, t.name, err)
		}
		fleet.Expire(now)
		snapshot := fleet.Snapshot()
		answers := set.Ask(context.Background(), past, snapshot, now)
		findings, _ := set.Eval(Input{Snapshot: snapshot, Answers: answers, Now: now})
		tips, _ = Step(tips, Turn{Set: set, Snapshot: snapshot, Findings: findings, Now: now})
		for _, f := range findings {
			if f.Err != nil {
				return fmt.Errorf("%s:%d: test %q at %s: %w", p.file, t.line, t.name, model.Duration(at), f.Err)
			}
		}
		for _, w := range t.wants {
			if w.at != at {
				continue
			}
			if diff := w.compare(tips); diff != "" {
				errs = append(errs, fmt.Errorf("%s:%d:%d: test %q at %s: %s", p.file, w.line, w.column, t.name, model.Duration(at), diff))
			}
		}
	}
	return errors.Join(errs...)
}

// delta is what the test's source says at its n-th interval: everything at the first, then samples only.
func (t packTest) delta(n int, now time.Time) inventory.Delta {
	s := t.fleet()
	d := inventory.Delta{Source: "test"}
	if n == 0 {
		d.Begin, d.Synced = true, true
		d.Clusters, d.Hosts, d.VMs = []inventory.Cluster{*s.cluster}, []inventory.Host{*s.host}, []inventory.VM{*s.vm}
		d.Services, d.Datastores = []inventory.Service{*s.service}, []inventory.Datastore{*s.datastore}
	}
	for f, values := range t.samples {
		if n >= len(values) || !finite(values[n]) {
			continue
		}
		d.Samples = append(d.Samples, inventory.SampleSet{
			ID: s.idOf(f.object), At: now.UnixMilli(), Values: []inventory.Value{{Metric: f.metric, Value: values[n]}},
		})
	}
	return d
}

// history is the test's samples as series, under the names and labels that protip itself gives them, and its other series.
func (t packTest) history(start time.Time) history.Matrix {
	s := t.fleet()
	var out history.Matrix
	add := func(labels history.Labels, values []float64) {
		series := history.Series{Labels: labels}
		for n, v := range values {
			if finite(v) {
				series.Points = append(series.Points, history.Point{T: start.Add(time.Duration(n) * t.interval).UnixMilli(), V: v})
			}
		}
		out = append(out, series)
	}
	for _, f := range slices.SortedFunc(maps.Keys(t.samples), func(a, b *field) int { return strings.Compare(a.path, b.path) }) {
		id := s.idOf(f.object)
		add(history.Labels{
			{Name: "__name__", Value: f.metric.String()},
			{Name: idLabels[f.object], Value: id.Ref},
			{Name: "source", Value: id.Source},
		}, t.samples[f])
	}
	for _, series := range t.series {
		add(series.labels, series.values)
	}
	return out
}

// idOf is the object of a kind around the subject.
func (s *subject) idOf(k inventory.Kind) inventory.ID {
	switch k {
	case inventory.KindService:
		return s.service.ID
	case inventory.KindVM:
		return s.vm.ID
	case inventory.KindHost:
		return s.host.ID
	case inventory.KindDatastore:
		return s.datastore.ID
	}
	return s.cluster.ID
}

// fleet is the test's service, VM, host, cluster and datastore, with the facts it sets.
func (t packTest) fleet() *subject {
	id := func(k inventory.Kind) inventory.ID {
		return inventory.ID{Source: "test", Kind: k, Ref: k.String() + "1"}
	}
	s := &subject{
		service: &inventory.Service{
			ID: id(inventory.KindService), Name: "service1", VM: id(inventory.KindVM), Type: "http", State: inventory.ServiceRunning,
		},
		cluster: &inventory.Cluster{ID: id(inventory.KindCluster), Name: "cluster1"},
		datastore: &inventory.Datastore{
			ID: id(inventory.KindDatastore), Name: "datastore1", Type: "VMFS", CapacityBytes: 10 << 40, Accessible: true,
		},
		host: &inventory.Host{
			ID: id(inventory.KindHost), Name: "host1", Cluster: id(inventory.KindCluster),
			Connection: inventory.Connected, Power: inventory.PowerOn,
			Cores: 16, CPUHertz: 40e9, MemoryBytes: 256 << 30,
		},
		vm: &inventory.VM{
			ID: id(inventory.KindVM), Name: "vm1", Host: id(inventory.KindHost),
			Connection: inventory.Connected, Power: inventory.PowerOn, VCPUs: 4, MemoryBytes: 16 << 30,
		},
	}
	set := slices.SortedFunc(maps.Keys(t.facts), func(a, b *field) int { return strings.Compare(a.path, b.path) })
	for _, f := range set {
		f.set(s, t.facts[f])
	}
	return s
}

// compare says how the tips differ from the wanted ones, empty if they do not.
func (w want) compare(tips []Tip) string {
	var diffs []string
	for _, want := range w.tips {
		i := slices.IndexFunc(tips, func(tip Tip) bool { return tip.Rule == want.rule })
		switch {
		case i < 0:
			diffs = append(diffs, fmt.Sprintf("%s has no tip, want one %s", want.rule, want.state))
		case string(tips[i].State) != want.state:
			diffs = append(diffs, fmt.Sprintf("%s is %s, want %s", want.rule, tips[i].State, want.state))
		case want.summary != "" && tips[i].Summary != want.summary:
			diffs = append(diffs, fmt.Sprintf("%s says %q, want %q", want.rule, tips[i].Summary, want.summary))
		}
	}
	for _, tip := range tips {
		if !slices.ContainsFunc(w.tips, func(want wantTip) bool { return want.rule == tip.Rule }) {
			diffs = append(diffs, fmt.Sprintf("%s is %s, want no tip", tip.Rule, tip.State))
		}
	}
	return strings.Join(diffs, "; ")
}
