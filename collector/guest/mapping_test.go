package guest

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/protip/protip/internal/inventory"
)

// readText is what an answer's text says, as a scrape reads it.
func readText(t testing.TB, text string, past *past, mappings ...Mapping) answer {
	t.Helper()
	compiled, err := compile(mappings)
	if err != nil {
		t.Fatal(err)
	}
	wanted := map[string]bool{}
	for i := range compiled {
		for _, name := range compiled[i].series() {
			wanted[name] = true
		}
	}
	kept, err := filter(strings.NewReader(text), wanted)
	if err != nil {
		t.Fatal(err)
	}
	families, err := parse(kept)
	if err != nil {
		t.Fatal(err)
	}
	return read(compiled, families, past)
}

// show is readings as text, one a line.
func show(ans answer) string {
	var b strings.Builder
	for _, r := range ans.readings {
		state := r.state
		if state == "" {
			state = "unknown"
		}
		fmt.Fprintf(&b, "%s %s %s", r.typ, r.name, state)
		if r.measured {
			fmt.Fprintf(&b, " %.4g", r.latency)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestMappings(t *testing.T) {
	running := func(metric string) Mapping { return Mapping{Type: Metric, Metric: metric, Name: "s", Running: true} }
	for _, tc := range []struct {
		name     string
		text     string
		mappings []Mapping
		want     string
	}{
		{
			"systemd", `# TYPE node_systemd_unit_state gauge
node_systemd_unit_state{name="nginx.service",state="activating",type="notify"} 0
node_systemd_unit_state{name="nginx.service",state="active",type="notify"} 1
node_systemd_unit_state{name="nginx.service",state="failed",type="notify"} 0
node_systemd_unit_state{name="pg@1.service",state="active",type=""} 0
node_systemd_unit_state{name="pg@1.service",state="failed",type=""} 1
node_systemd_unit_state{name="pg@2.service",state="inactive",type=""} 1
node_systemd_unit_state{name="pg@3.service",state="activating",type=""} 1
node_systemd_unit_state{name="xnginx.service",state="active",type=""} 1
`,
			[]Mapping{{Type: Systemd, Names: []string{`nginx\.service`, `pg@.*`}}},
			"systemd nginx.service running\nsystemd pg@1.service failed\nsystemd pg@2.service stopped\nsystemd pg@3.service unknown\n",
		},
		{
			"windows", `windows_service_state{name="W3SVC",state="running"} 1
windows_service_state{name="W3SVC",state="stopped"} 0
windows_service_state{name="MSSQL",state="stopped"} 1
windows_service_state{name="Fax",state="stopped"} 1
windows_service_state{name="Slow",state="start pending"} 1
windows_service_start_mode{name="MSSQL",start_mode="auto"} 1
windows_service_start_mode{name="Fax",start_mode="manual"} 1
windows_service_start_mode{name="Fax",start_mode="auto"} 0
`,
			[]Mapping{{Type: Windows, Names: []string{"w3svc", "mssql", "fax", "slow"}}},
			"windows Fax stopped\nwindows MSSQL failed\nwindows Slow unknown\nwindows W3SVC running\n",
		},
		{"up", "pg_up 1\n", []Mapping{running("pg_up")}, "metric s running\n"},
		{"down", "pg_up 0\n", []Mapping{running("pg_up")}, "metric s failed\n"},
		{"not a number", "pg_up NaN\n", []Mapping{running("pg_up")}, "metric s unknown\n"},
		{"the worse of two", "up{i=\"1\"} 1\nup{i=\"2\"} 0\n", []Mapping{running("up")}, "metric s failed\n"},
		{"not there", "other 1\n", []Mapping{running("pg_up")}, ""},
		{
			"one service for each label", "up{job=\"a\",z=\"x\"} 1\nup{job=\"b\",z=\"x\"} 1\nup{job=\"b\",z=\"y\"} 0\nup{job=\"c\"} 1\n",
			[]Mapping{{Type: Metric, Metric: "up", Name: "jobs", Labels: []string{"job", "z"}, Match: map[string]string{"z": "x"}, Running: true}},
			"metric jobs/a/x running\nmetric jobs/b/x running\n",
		},
		{
			"latency in milliseconds, the longest of two", "lat 20\nlat{x=\"1\"} 30\n",
			[]Mapping{{Type: Metric, Metric: "lat", Name: "s", Latency: "value", Scale: 0.001}},
			"metric s unknown 0.03\n",
		},
		{
			"state and latency of one service", "pg_up 1\nlat 0.5\n",
			[]Mapping{running("pg_up"), {Type: Metric, Metric: "lat", Name: "s", Latency: "value"}},
			"metric s running 0.5\n",
		},
		{
			"a summary's own quantile", "# TYPE rpc summary\nrpc{quantile=\"0.5\"} 0.1\nrpc{quantile=\"0.99\"} 0.7\nrpc_sum 12\nrpc_count 100\n",
			[]Mapping{{Type: Metric, Metric: "rpc", Name: "s", Latency: "quantile", Quantile: 0.99}},
			"metric s unknown 0.7\n",
		},
		{
			"a summary without that quantile", "# TYPE rpc summary\nrpc{quantile=\"0.5\"} 0.1\nrpc_sum 12\nrpc_count 100\n",
			[]Mapping{{Type: Metric, Metric: "rpc", Name: "s", Latency: "quantile", Quantile: 0.99}},
			"metric s unknown\n",
		},
		{
			"a name that is too long", "up{n=\"" + strings.Repeat("x", 201) + "\"} 1\n",
			[]Mapping{{Type: Metric, Metric: "up", Labels: []string{"n"}, Running: true}},
			"",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := show(readText(t, tc.text, &past{}, tc.mappings...)); got != tc.want {
				t.Errorf("got\n%swant\n%s", got, tc.want)
			}
		})
	}
}

// histogram is a service's requests until now: so many took up to 0.1 s, 0.5 s, and any time.
func histogram(labels string, fast, medium, all int, sum float64) string {
	return fmt.Sprintf("http_bucket{%sle=\"0.1\"} %d\nhttp_bucket{%sle=\"0.5\"} %d\nhttp_bucket{%sle=\"+Inf\"} %d\nhttp_sum{%s} %g\nhttp_count{%s} %d\n",
		labels, fast, labels, medium, labels, all, strings.TrimSuffix(labels, ","), sum, strings.TrimSuffix(labels, ","), all)
}

func TestLatencyBetweenLooks(t *testing.T) {
	const typ = "# TYPE http histogram\n"
	mean := Mapping{Type: Metric, Metric: "http", Name: "s", Latency: "mean"}
	p50 := Mapping{Type: Metric, Metric: "http", Name: "s", Latency: "quantile", Quantile: 0.5}
	p99 := Mapping{Type: Metric, Metric: "http", Name: "s", Latency: "quantile", Quantile: 0.99}
	for _, tc := range []struct {
		name    string
		mapping Mapping
		before  string
		after   string
		want    float64 // NaN: none
	}{
		{"mean of what was added", mean, histogram("", 10, 10, 10, 1), histogram("", 10, 14, 14, 2.2), 0.3},
		{
			"mean over all of a service's series", mean, histogram(`m="a",`, 1, 1, 1, 1) + histogram(`m="b",`, 1, 1, 1, 1),
			histogram(`m="a",`, 1, 1, 3, 3) + histogram(`m="b",`, 1, 1, 3, 5), 1.5,
		},
		{"no request", mean, histogram("", 10, 10, 10, 1), histogram("", 10, 10, 10, 1), math.NaN()},
		{"counted anew", mean, histogram("", 10, 10, 10, 9), histogram("", 2, 2, 2, 1), math.NaN()},
		{"first look", mean, "", histogram("", 2, 2, 2, 1), math.NaN()},
		{"median within a bucket", p50, histogram("", 0, 0, 0, 0), histogram("", 2, 10, 10, 1), 0.1 + 0.4*3/8},
		{"above the last bound", p99, histogram("", 0, 0, 0, 0), histogram("", 0, 0, 10, 100), 0.5},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var p past
			readText(t, typ+tc.before, &p, tc.mapping)
			ans := readText(t, typ+tc.after, &p, tc.mapping)
			if len(ans.readings) != 1 {
				t.Fatalf("%d services, want 1", len(ans.readings))
			}
			r := ans.readings[0]
			if r.measured == math.IsNaN(tc.want) || r.measured && math.Abs(r.latency-tc.want) > 1e-9 {
				t.Errorf("latency %v (%v), want %v", r.latency, r.measured, tc.want)
			}
		})
	}
}

// TestMeanOfASummary: one without quantiles, as Prometheus' Go client makes it by default.
func TestMeanOfASummary(t *testing.T) {
	var p past
	mean := Mapping{Type: Metric, Metric: "rpc", Name: "s", Latency: "mean"}
	readText(t, "# TYPE rpc summary\nrpc_sum 10\nrpc_count 100\n", &p, mean)
	if got, want := show(readText(t, "# TYPE rpc summary\nrpc_sum 13\nrpc_count 104\n", &p, mean)), "metric s unknown 0.75\n"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestPastIsForgotten(t *testing.T) {
	start := time.Unix(1e9, 0)
	p := past{totals: map[pastKey]totals{{0, "s"}: {}}, at: start}
	if p.forget(start.Add(time.Minute), time.Minute); p.totals == nil {
		t.Error("forgotten too soon")
	}
	if p.forget(start.Add(3*time.Minute), time.Minute); p.totals != nil {
		t.Error("not forgotten")
	}
}

func TestServicesAreBounded(t *testing.T) {
	var b strings.Builder
	for i := range maxServices + 20 {
		fmt.Fprintf(&b, "up{i=\"%04d\"} 1\n", i)
	}
	ans := readText(t, b.String(), &past{}, Mapping{Type: Metric, Metric: "up", Labels: []string{"i"}, Running: true})
	if len(ans.readings) != maxServices || ans.dropped != 20 || ans.readings[0].name != "0000" {
		t.Errorf("%d services, %d dropped", len(ans.readings), ans.dropped)
	}
}

// FuzzRead: whatever a target sends, reading it ends, does not panic, and gives only what the inventory takes.
func FuzzRead(f *testing.F) {
	f.Add("# TYPE http histogram\n"+histogram("", 1, 2, 3, 4), histogram("", 2, 3, 4, 5))
	f.Add("# TYPE http summary\nhttp{quantile=\"0.5\"} 1\nhttp_sum 1\nhttp_count 1\n", "http 1e400\nup NaN\nup{n=\"\\xff\"} -Inf")
	f.Add("node_systemd_unit_state{name=\"a\",state=\"active\"} 1\n", "windows_service_state{name=\"a\",state=\"stopped\"} 1\n")
	f.Add("node_dmi_info{product_uuid=\"x\"} 1\nnode_network_info{address=\"00:50:56:00:00:01\"} 1", "# TYPE up\n# TYPE up gauge gauge\nup{} 1 2 3")
	mappings, err := compile([]Mapping{
		{Type: Systemd, Names: []string{".*"}},
		{Type: Windows, Names: []string{".*"}},
		{Type: Metric, Metric: "up", Labels: []string{"n"}, Running: true},
		{Type: Metric, Metric: "http", Name: "h", Latency: "quantile", Quantile: 0.9},
		{Type: Metric, Metric: "http", Name: "h", Latency: "mean"},
		{Type: Metric, Metric: "http", Name: "h", Latency: "value"},
	})
	if err != nil {
		f.Fatal(err)
	}
	wanted := map[string]bool{}
	for i := range mappings {
		for _, name := range mappings[i].series() {
			wanted[name] = true
		}
	}
	for _, name := range evidenceFamilies {
		wanted[name] = true
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		s := subject{source: "g", name: "t", known: map[string]entry{}}
		fleet := inventory.NewFleet(inventory.Source{Name: "g", Platform: Platform, Interval: time.Minute})
		now := time.Unix(1e9, 0)
		for _, text := range []string{first, second, first} {
			now = now.Add(time.Minute)
			s.past.forget(now, time.Hour)
			kept, err := filter(strings.NewReader(text), wanted)
			if err != nil {
				continue
			}
			families, err := parse(kept)
			ans := answer{err: err}
			if err == nil {
				ans = read(mappings, families, &s.past)
				evidenceOf(families)
			}
			d := s.take(ans, now)
			for _, set := range d.Samples {
				if v := set.Values[0].Value; math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
					t.Errorf("latency %v", v)
				}
			}
			if _, err := fleet.Apply(d, now); err != nil {
				t.Error(err)
			}
		}
	})
}
