package app_test

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	promconfig "github.com/prometheus/common/config"

	"github.com/protip/protip/internal/app"
	"github.com/protip/protip/internal/config"
	"github.com/protip/protip/internal/history/remote"
	"github.com/protip/protip/internal/history/tsdb"
)

// TestHistoryIsKept asks a running agent what it remembers, and its files when it has ended.
func TestHistoryIsKept(t *testing.T) {
	t.Parallel()
	r := newRig(t, 20, hotFleet("vc"))
	a := r.start()
	a.awaitUp("vc")
	past, err := remote.New(remote.Options{URL: a.url + "/prometheus", HTTP: promconfig.DefaultHTTPClientConfig, Timeout: time.Minute, Samples: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	const expr = `count(virt_host_cpu_usage_ratio * on (source, host_id) group_left (virt_cluster) virt_host_info)`
	hosts := float64(0)
	await(t, deadline, func() string {
		v, err := past.Query(t.Context(), expr, r.clock.Now())
		if err != nil || len(v) != 1 {
			return fmt.Sprintf("the agent answers %v, %v", v, err)
		}
		hosts = v[0].Value
		return ""
	})
	if a.scrape().value("protip_history_writable") != 1 {
		t.Error("history is not said to be written")
	}
	cfg, err := config.Load(r.configFile())
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	if _, _, err := app.OpenHistory(cfg, r.dataDir(), quiet); !errors.Is(err, tsdb.ErrLocked) {
		t.Errorf("beside a running agent: %v", err)
	}
	a.stop()
	left, done, err := app.OpenHistory(cfg, r.dataDir(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := left.Query(t.Context(), `count(last_over_time(virt_host_cpu_usage_ratio[1h]))`, r.clock.Now()); err != nil || len(v) != 1 || v[0].Value < hosts {
		t.Errorf("of %v hosts the files know %v, %v", hosts, v, err)
	}
	if err := done(); err != nil {
		t.Error(err)
	}

	r.config["history"] = map[string]any{"enabled": false}
	r.write()
	b := r.start()
	b.awaitUp("vc")
	if past, err = remote.New(remote.Options{URL: b.url + "/prometheus", HTTP: promconfig.DefaultHTTPClientConfig, Timeout: time.Minute, Samples: 10_000}); err != nil {
		t.Fatal(err)
	}
	if v, err := past.Query(t.Context(), expr, r.clock.Now()); err == nil {
		t.Errorf("an agent without history answers %v", v)
	}
}
