package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/protip/protip/internal/history/api"
	"github.com/protip/protip/internal/history/promql"
	"github.com/protip/protip/internal/history/tsdb"
	"github.com/protip/protip/internal/inventory"
)

// TestReplay looks at an hour with twenty hot minutes three times: in the database of an agent that does not run, of one that
// runs, and of any server.
func TestReplay(t *testing.T) {
	dir := t.TempDir()
	kept, err := tsdb.Open(tsdb.Options{
		Dir: filepath.Join(dir, "data", "history"), Retention: 24 * time.Hour, RollupRetention: 24 * time.Hour,
		Limits: promql.DefaultLimits(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	hotHour(t, kept)
	mux := http.NewServeMux()
	mux.Handle("/prometheus/", http.StripPrefix("/prometheus", api.New(api.Options{Engine: kept.Engine, Storage: kept, Now: time.Now})))
	server := httptest.NewServer(mux)
	defer server.Close()

	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("password", "secret")
	write("protip.yml", "sources:\n- {name: vc, type: vsphere, url: 'https://vc.invalid', username: u, password_file: password}\n"+
		"packs:\n  config:\n    host-pressure: {hot: 0.8}\n    storage: {full: 0.2}\n")
	t.Chdir(dir)
	look := func(args ...string) {
		t.Helper()
		var out, said bytes.Buffer
		args = append([]string{"replay", "--format=json", "--pack=host-pressure", "--since=70m", "--step=30s"}, args...)
		if code := run(t.Context(), args, &out, &said); code != exitOK {
			t.Fatalf("%v: %s", args, said.String())
		}
		var tips []replayed
		if err := json.Unmarshal(out.Bytes(), &tips); err != nil {
			t.Fatal(err)
		}
		if len(tips) != 1 || tips[0].Tip.Rule != "HostCPUOverload" || tips[0].Tip.Name != "esx07" || tips[0].EndedAt.IsZero() {
			t.Fatalf("%v: %s", args, out.String())
		}
		if lasted := tips[0].EndedAt.Sub(tips[0].ActiveAt); lasted < 13*time.Minute || lasted > 17*time.Minute {
			t.Errorf("%v: it lasted %s", args, lasted)
		}
	}
	look("--agent.url=" + server.URL) // the database is this process's: the agent is asked
	look("--history.url=" + server.URL + "/prometheus")
	if err := kept.Close(); err != nil {
		t.Fatal(err)
	}
	look()
}

// hotHour is an hour of one host that ends now, hot from the twentieth minute to the fortieth at 82 %.
func hotHour(t *testing.T, kept *tsdb.Store) {
	t.Helper()
	fleet := inventory.NewFleet(inventory.Source{Name: "vc", Platform: "vsphere", Interval: 30 * time.Second})
	start := time.Now().Add(-time.Hour)
	host := inventory.Host{
		ID: inventory.ID{Source: "vc", Kind: inventory.KindHost, Ref: "host-7"}, Name: "esx07", Connection: inventory.Connected,
		Power: inventory.PowerOn, Cores: 16, CPUHertz: 40e9, MemoryBytes: 1 << 38,
	}
	for n := range 120 {
		now := start.Add(time.Duration(n) * 30 * time.Second)
		cpu := 0.4
		if n >= 40 && n < 80 {
			cpu = 0.82
		}
		d := inventory.Delta{Source: "vc", Begin: n == 0, Synced: n == 0, Hosts: []inventory.Host{host}}
		d.Samples = []inventory.SampleSet{{ID: host.ID, At: now.UnixMilli(), Values: []inventory.Value{
			{Metric: inventory.HostCPUUsageRatio, Value: cpu},
			{Metric: inventory.HostCPUContention, Value: 0.1},
			{Metric: inventory.HostMemoryUsageRatio, Value: 0.5},
		}}}
		if _, err := fleet.Apply(d, now); err != nil {
			t.Fatal(err)
		}
		if err := kept.Append(fleet.Snapshot(), now); err != nil {
			t.Fatal(err)
		}
	}
}
