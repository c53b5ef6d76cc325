package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/protip/protip/internal/history/api"
	"github.com/protip/protip/internal/history/promql"
	"github.com/protip/protip/internal/history/tsdb"
)

// TestReport makes the report of an hour with twenty hot minutes three times: from the database of an agent that does not run, of
// one that runs, and of any server.
func TestReport(t *testing.T) {
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
	t.Chdir(dir)
	write(t, "password", "secret")
	write(t, "protip.yml", "sources:\n- {name: vc, type: vsphere, url: 'https://vc.invalid', username: u, password_file: password}\n")
	look := func(args ...string) string {
		t.Helper()
		var out, said bytes.Buffer
		if code := run(t.Context(), append([]string{"report", "--since=50m"}, args...), &out, &said); code != exitOK {
			t.Fatalf("%v: %s", args, said.String())
		}
		return out.String()
	}
	ask := func(args ...string) {
		t.Helper()
		var told struct {
			Tables struct {
				Hosts []struct {
					Host   string   `json:"host"`
					Waits  *float64 `json:"cpu_contention_p95_ratio"`
					Mean   *float64 `json:"cpu_mean_ratio"`
					Seen   float64  `json:"seen_ratio"`
					Memory *float64 `json:"memory_mean_ratio"`
				} `json:"hosts"`
			} `json:"tables"`
		}
		text := look(append([]string{"host-utilization", "--format=json"}, args...)...)
		if err := json.Unmarshal([]byte(text), &told); err != nil {
			t.Fatal(err)
		}
		h := told.Tables.Hosts
		if len(h) != 1 || h[0].Host != "esx07" || h[0].Waits == nil || *h[0].Waits != 0.1 || h[0].Mean != nil || h[0].Memory != nil {
			t.Errorf("%v: %s", args, text) // its hertz and bytes were not measured: absent is not zero
		}
	}
	ask("--agent.url=" + server.URL)
	ask("--history.url=" + server.URL + "/prometheus")
	if err := kept.Close(); err != nil {
		t.Fatal(err)
	}
	ask()

	for form, mark := range map[string]string{"text": "Host utilization of everything", "csv": "table,host,host_id", "html": "<!doctype html>"} {
		file := "out." + form
		if text := look("host-utilization", "--format="+form, "--output="+file); text != "" {
			t.Errorf("%s is printed too: %s", form, text)
		}
		if b, err := os.ReadFile(file); err != nil || !strings.Contains(string(b), mark) || !strings.Contains(string(b), "esx07") {
			t.Errorf("%s: %v, %s", form, err, b)
		}
	}
}

func TestReportRefuses(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, line := range []string{
		"report nothing", "report growth --threshold=80", "report growth --reserve=-1", "report growth --since=never", "report vm-utilization --backtest",
		"report growth --backtest --format=csv", "report growth --backtest --backtest.series=0", "report growth --backtest --backtest.trace=nowhere",
		"tips --format=csv", "replay --pack=storage --format=html",
	} {
		var out, said bytes.Buffer
		if code := run(t.Context(), strings.Fields(line), &out, &said); code != exitUsage || said.Len() == 0 {
			t.Errorf("%s: exit code %d, %s", line, code, said.String())
		}
	}
}

func TestBacktest(t *testing.T) {
	t.Chdir(t.TempDir())
	var out, said bytes.Buffer
	if code := run(t.Context(), []string{"report", "growth", "--backtest", "--backtest.series=2"}, &out, &said); code != exitOK {
		t.Fatal(said.String())
	}
	if text := out.String(); strings.Count(text, "\n") != 10 || !strings.Contains(text, "trend+shift") {
		t.Error(text)
	}
}

// TestDocumentOfReports holds that every command of the document is one.
func TestDocumentOfReports(t *testing.T) {
	for _, b := range blocks(t, "reports.md") {
		if b.language == "sh" {
			for _, words := range commands(b.text) {
				exists(t, words)
			}
		}
	}
}
