package api_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	promapi "github.com/prometheus/client_golang/api"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	promconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/history/api"
	"github.com/protip/protip/internal/history/promql"
	"github.com/protip/protip/internal/history/remote"
	"github.com/protip/protip/internal/history/tsdb"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/test/prom"
)

var (
	epoch = time.UnixMilli(1_700_000_000_000).UTC()
	end   = epoch.Add(30 * time.Minute)
)

// serve is the API over half an hour of two VMs.
func serve(t *testing.T) (*tsdb.Store, string) {
	t.Helper()
	s, err := tsdb.Open(tsdb.Options{
		Dir: t.TempDir(), Retention: 15 * 24 * time.Hour, RollupRetention: 400 * 24 * time.Hour, Limits: promql.DefaultLimits(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	fleet := inventory.NewFleet(inventory.Source{Name: "lab", Interval: time.Minute})
	for at, i := epoch, 0; !at.After(end); at, i = at.Add(time.Minute), i+1 {
		d := inventory.Delta{Source: "lab", Begin: i == 0, Synced: i == 0}
		for j, name := range []string{"web", "db"} {
			id := inventory.ID{Source: "lab", Kind: inventory.KindVM, Ref: fmt.Sprint("vm-", j)}
			d.VMs = append(d.VMs, inventory.VM{ID: id, Name: name, Power: inventory.PowerOn, VCPUs: 2 + j})
			d.Samples = append(d.Samples, inventory.SampleSet{ID: id, At: at.UnixMilli(), Values: []inventory.Value{
				{Metric: inventory.VMCPUUsage, Value: float64(i+1) / 3},
				{Metric: inventory.VMNetworkReceive, Value: float64(i * 100)},
			}})
		}
		if _, err := fleet.Apply(d, at); err != nil {
			t.Fatal(err)
		}
		if err := s.Append(fleet.Snapshot(), at); err != nil {
			t.Fatal(err)
		}
	}
	h := api.New(api.Options{
		Engine: s.Engine, Storage: s, Now: func() time.Time { return end },
		Metadata: []api.Metadata{{Name: "virt_vm_vcpus", Type: "gauge", Help: "vCPUs of the VM."}},
	})
	server := httptest.NewServer(http.StripPrefix("/prometheus", h))
	t.Cleanup(server.Close)
	return s, server.URL + "/prometheus"
}

// TestStockClient asks everything with the client that Prometheus' own project makes.
func TestStockClient(t *testing.T) {
	_, base := serve(t)
	c, err := promapi.NewClient(promapi.Config{Address: base})
	if err != nil {
		t.Fatal(err)
	}
	client, ctx := v1.NewAPI(c), t.Context()
	value, _, _, err := client.Query(ctx, `virt_vm_cpu_usage_hertz{vm="web"}`, end)
	if want := `virt_vm_cpu_usage_hertz{source="lab", vm="web", vm_id="vm-0"} => 10.333333333333334 @[1700001800]`; err != nil || value.String() != want {
		t.Errorf("query: %v, %v", value, err)
	}
	if value, _, _, err = client.Query(ctx, `1 + 1`, end); err != nil || value.String() != "scalar: 2 @[1700001800]" {
		t.Errorf("scalar: %v, %v", value, err)
	}
	if value, _, _, err = client.Query(ctx, `virt_vm_vcpus[3m]`, end); err != nil || value.Type() != model.ValMatrix || len(value.(model.Matrix)) != 2 {
		t.Errorf("range vector: %v, %v", value, err)
	}
	if value, _, _, err = client.Query(ctx, `vector(1)/0 or vector(NaN)`, end); err != nil || !strings.Contains(value.String(), "+Inf") {
		t.Errorf("infinity: %v, %v", value, err)
	}
	value, _, _, err = client.QueryRange(ctx, `sum(rate(virt_vm_network_receive_bytes_total[5m]))`, v1.Range{Start: epoch.Add(10 * time.Minute), End: end, Step: 10 * time.Minute})
	if err != nil || len(value.(model.Matrix)) != 1 || len(value.(model.Matrix)[0].Values) != 3 {
		t.Errorf("range: %v, %v", value, err)
	}
	names, _, _, err := client.LabelNames(ctx, nil, epoch, end)
	if err != nil || !slices.Equal(names, model.LabelNames{"__name__", "source", "vm", "vm_id"}) {
		t.Errorf("labels: %v, %v", names, err)
	}
	values, _, _, err := client.LabelValues(ctx, "vm", []string{`virt_vm_vcpus`}, epoch, end)
	if err != nil || !slices.Equal(values, model.LabelValues{"db", "web"}) {
		t.Errorf("values: %v, %v", values, err)
	}
	series, _, _, err := client.Series(ctx, []string{`virt_vm_vcpus`, `{__name__="virt_vm_vcpus",vm="db"}`}, epoch, end)
	if err != nil || len(series) != 2 || series[0]["vm"] != "db" && series[1]["vm"] != "db" {
		t.Errorf("series: %v, %v", series, err)
	}
	metadata, err := client.Metadata(ctx, "", "")
	if err != nil || metadata["virt_vm_vcpus"][0].Type != "gauge" {
		t.Errorf("metadata: %v, %v", metadata, err)
	}
	if info, err := client.Buildinfo(ctx); err != nil || info.Version == "" {
		t.Errorf("build info: %v, %v", info, err)
	}
	var refusal *v1.Error
	if _, _, _, err = client.Query(ctx, `sum(`, end); !errors.As(err, &refusal) || refusal.Type != v1.ErrBadData {
		t.Errorf("syntax error: %v", err)
	}
	if _, _, _, err = client.Query(ctx, `virt_vm_vcpus * on (source) virt_vm_vcpus`, end); !errors.As(err, &refusal) || refusal.Type != v1.ErrExec {
		t.Errorf("execution error: %v", err)
	}
}

func TestRequests(t *testing.T) {
	_, base := serve(t)
	for _, tc := range []struct {
		method, target, form string
		code                 int
		want                 string
	}{
		{"GET", "/api/v1/query?query=vector(1)", "", 200, `"value":[1700001800,"1"]`},
		{"POST", "/api/v1/query", "query=vector(1)&time=2023-11-14T22:13:20Z", 200, `"value":[1700000000,"1"]`},
		{"GET", "/api/v1/query?query=vector(1)&time=x", "", 400, `bad_data`},
		{"GET", "/api/v1/query?query=vector(1)&timeout=x", "", 400, `bad_data`},
		{"GET", "/api/v1/query", "", 400, `bad_data`},
		{"GET", "/api/v1/query?query=%22text%22", "", 200, `"string","result":[1700001800,"text"]`},
		{"GET", "/api/v1/query?query=vector(1)&timeout=0.000000001", "", 503, `"timeout"`},
		{"POST", "/api/v1/query", "query=" + strings.Repeat("1", 70_000), 400, `bad_data`},
		{"GET", "/api/v1/query_range?query=vector(1)&start=0&end=10&step=0", "", 400, `bad_data`},
		{"GET", "/api/v1/query_range?query=vector(1)&start=10&end=0&step=1", "", 400, `bad_data`},
		{"GET", "/api/v1/query_range?query=vector(1)&start=0&end=1000000&step=1", "", 422, `11000 steps`},
		{"GET", "/api/v1/query_range?query=vector(1)&start=0&end=10&step=5s", "", 200, `"values":[[0,"1"],[5,"1"],[10,"1"]]`},
		{"GET", "/api/v1/query_range?query=vector(1)&step=5s", "", 400, `bad_data`},
		{"GET", "/api/v1/labels?match[]={}", "", 400, `bad_data`},
		{"GET", "/api/v1/labels?limit=1", "", 200, `["__name__"]`},
		{"GET", "/api/v1/labels?limit=-1", "", 400, `bad_data`},
		{"GET", "/api/v1/series", "", 400, `bad_data`},
		{"POST", "/api/v1/series", "match[]=virt_vm_vcpus&limit=1", 200, `"vm":"db"`},
		{"GET", "/api/v1/series?match[]=virt_vm_vcpus&start=1600000000&end=1600000001", "", 200, `"data":[]`},
		{"GET", "/api/v1/label/vm/values?start=1700000000&end=1690000000", "", 400, `bad_data`},
		{"GET", "/api/v1/label//values", "", 404, ``},
		{"DELETE", "/api/v1/series?match[]=virt_vm_vcpus", "", 405, ``},
		{"GET", "/api/v1/metadata?metric=x", "", 200, `"data":{}`},
		{"GET", "/api/v1/query?query=vector(1)&time=1e300", "", 400, `bad_data`},
	} {
		req, err := http.NewRequest(tc.method, base+tc.target, strings.NewReader(tc.form))
		if err != nil {
			t.Fatal(err)
		}
		if tc.method == "POST" {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != tc.code || !strings.Contains(string(body), tc.want) {
			t.Errorf("%s %s %.60s: %s %.300s, want %d %s", tc.method, tc.target, tc.form, res.Status, body, tc.code, tc.want)
		}
	}
}

// TestPromtool lets the real tool ask.
func TestPromtool(t *testing.T) {
	tool := prom.Tool(t, "promtool")
	_, base := serve(t)
	for _, args := range [][]string{
		{"query", "instant", "--time=" + end.Format(time.RFC3339), base, `virt_vm_vcpus{vm="db"}`},
		{"query", "range", "--start=" + epoch.Format(time.RFC3339), "--end=" + end.Format(time.RFC3339), "--step=5m", base, `virt_vm_vcpus{vm="db"}`},
		{"query", "series", "--match=virt_vm_vcpus", "--start=" + epoch.Format(time.RFC3339), "--end=" + end.Format(time.RFC3339), base},
		{"query", "labels", "--start=" + epoch.Format(time.RFC3339), "--end=" + end.Format(time.RFC3339), base, "vm"},
	} {
		out, err := exec.Command(tool, args...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "db") {
			t.Errorf("promtool %s: %v\n%s", args, err, out)
		}
	}
}

// TestRemoteIsTheSame asks the store by HTTP and directly, as a report does with and without an agent.
func TestRemoteIsTheSame(t *testing.T) {
	s, base := serve(t)
	c, err := remote.New(remote.Options{URL: base, HTTP: promconfig.DefaultHTTPClientConfig, Timeout: time.Minute, Samples: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, expr := range []string{
		`virt_vm_cpu_usage_hertz`, `avg_over_time(virt_vm_cpu_usage_hertz[10m])`, `sum(virt_vm_vcpus)`, `1/3`, `nothing`, `-1/0*vector(1)`,
		`rate(virt_vm_network_receive_bytes_total[10m])`, `{__name__=~".+"}`, `sum(`, `virt_vm_vcpus[5m]`, `virt_vm_vcpus * on (source) virt_vm_vcpus`,
	} {
		near, nearErr := s.Query(t.Context(), expr, end)
		far, farErr := c.Query(t.Context(), expr, end)
		if fmt.Sprint(near) != fmt.Sprint(far) || errors.Is(nearErr, history.ErrQuery) != errors.Is(farErr, history.ErrQuery) || (nearErr == nil) != (farErr == nil) {
			t.Errorf("%s:\n%v %v\n%v %v", expr, near, nearErr, far, farErr)
		}
		r := history.Range{Start: epoch, End: end, Step: 7 * time.Minute}
		nearM, nearErr := s.QueryRange(t.Context(), expr, r)
		farM, farErr := c.QueryRange(t.Context(), expr, r)
		if fmt.Sprint(nearM) != fmt.Sprint(farM) || errors.Is(nearErr, history.ErrQuery) != errors.Is(farErr, history.ErrQuery) || (nearErr == nil) != (farErr == nil) {
			t.Errorf("%s over a range:\n%v %v\n%v %v", expr, nearM, nearErr, farM, farErr)
		}
	}
	if _, err := c.QueryRange(t.Context(), `{__name__=~".+"}`, history.Range{Start: epoch, End: end, Step: time.Second}); !errors.Is(err, history.ErrTooMuch) {
		t.Errorf("too many samples: %v", err)
	}
}

func FuzzRequest(f *testing.F) {
	for _, q := range []string{"query=up&time=1", "query=up&start=0&end=9&step=1", "match[]=up&limit=1", "timeout=1s&query=1"} {
		f.Add(q)
	}
	limits := promql.DefaultLimits()
	limits.Timeout, limits.Samples, limits.Steps = time.Second, 1000, 100
	s, err := tsdb.Open(tsdb.Options{Dir: f.TempDir(), Retention: 24 * time.Hour, RollupRetention: 24 * time.Hour, Limits: limits, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	h := api.New(api.Options{Engine: s.Engine, Storage: s, Now: func() time.Time { return end }})
	f.Fuzz(func(t *testing.T, query string) {
		for _, path := range []string{"query", "query_range", "labels", "series", "label/vm/values", "metadata"} {
			r := httptest.NewRequest("GET", "/api/v1/"+path, nil)
			r.URL.RawQuery = query
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code == http.StatusInternalServerError {
				t.Errorf("%s?%s: %s", path, url.QueryEscape(query), w.Body)
			}
		}
	})
}
