package collector_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
)

// script is a source that does one step for each Watch, and after the last waits for the end.
type script struct {
	steps []func(ctx context.Context, emit func(inventory.Delta)) error
	began time.Time
	at    []time.Duration // when each Watch began
}

func (s *script) Watch(ctx context.Context, emit func(inventory.Delta)) error {
	n := len(s.at)
	s.at = append(s.at, time.Since(s.began))
	if n < len(s.steps) {
		return s.steps[n](ctx, emit)
	}
	<-ctx.Done()
	return ctx.Err()
}

func fails(err error) func(context.Context, func(inventory.Delta)) error {
	return func(context.Context, func(inventory.Delta)) error { return err }
}

func syncs(err error) func(context.Context, func(inventory.Delta)) error {
	return func(_ context.Context, emit func(inventory.Delta)) error {
		emit(inventory.Delta{Source: "a", Begin: true, Synced: true})
		return err
	}
}

func repeat(n int, f func(context.Context, func(inventory.Delta)) error) []func(context.Context, func(inventory.Delta)) error {
	out := make([]func(context.Context, func(inventory.Delta)) error, n)
	for i := range out {
		out[i] = f
	}
	return out
}

// supervise runs the script for a length of time on a clock of the test's own.
func supervise(t *testing.T, s *script, d time.Duration) (inventory.Source, *prometheus.Registry, string) {
	t.Helper()
	clk := clock.New(1)
	fleet := inventory.NewFleet(inventory.Source{Name: "a", Interval: time.Second})
	reg := prometheus.NewPedanticRegistry()
	var log strings.Builder
	logger := slog.New(slog.NewTextHandler(&log, nil))
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	s.began = time.Now()
	collector.Supervise(ctx, "a", s, collector.FleetSink(fleet, clk, logger, nil),
		collector.Options{Clock: clk, Log: logger, Metrics: collector.NewMetrics(reg)})
	src, _ := fleet.Snapshot().Source("a")
	return src, reg, log.String()
}

func TestBackoffGrowsAndStartsOverAfterSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead := errors.New("connection refused")
		s := &script{steps: append(repeat(30, fails(dead)), syncs(dead), fails(dead))}
		src, reg, _ := supervise(t, s, 2*time.Hour)
		if len(s.at) < 33 {
			t.Fatalf("%d attempts in two hours", len(s.at))
		}
		if early, late := s.at[3]-s.at[0], s.at[29]-s.at[26]; early > 10*time.Second || late < time.Minute {
			t.Errorf("three attempts took %v at first and %v later", early, late)
		}
		for i := 1; i < 30; i++ {
			if gap := s.at[i] - s.at[i-1]; gap > 90*time.Second+time.Millisecond {
				t.Errorf("gap %d is %v, more than a minute and its jitter", i, gap)
			}
		}
		if again := s.at[31] - s.at[30]; again > 2*time.Second {
			t.Errorf("after a sync the next attempt came after %v", again)
		}
		if src.Up || !src.Synced || src.Error != "connection refused" {
			t.Errorf("source state: %+v", src)
		}
		want := fmt.Sprintf(`
# HELP protip_source_errors_total Errors of a source. Kinds watch, credentials, duplicate and panic ended the connection; others cost only their samples.
# TYPE protip_source_errors_total counter
protip_source_errors_total{kind="watch",source="a"} 32
# HELP protip_source_reconnects_total Attempts to connect again after a connection ended.
# TYPE protip_source_reconnects_total counter
protip_source_reconnects_total{source="a"} %d
`, len(s.at)-1)
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "protip_source_errors_total", "protip_source_reconnects_total"); err != nil {
			t.Error(err)
		}
	})
}

func TestRefusalIsNotTriedSoon(t *testing.T) {
	for _, refusal := range []error{collector.ErrCredentials, collector.ErrDuplicate} {
		t.Run(refusal.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{steps: repeat(100, fails(fmt.Errorf("log in: %w", refusal)))}
				src, _, log := supervise(t, s, time.Hour+time.Minute)
				if len(s.at) != 13 {
					t.Errorf("%d attempts in an hour, want one every five minutes", len(s.at))
				}
				if src.Up || !strings.Contains(log, "retry_in=5m0s") {
					t.Errorf("state %+v, log:\n%s", src, log)
				}
			})
		})
	}
}

func TestPanicIsContained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{steps: repeat(1, func(context.Context, func(inventory.Delta)) error { panic("index out of range") })}
		src, _, log := supervise(t, s, time.Minute)
		if len(s.at) != 2 {
			t.Errorf("%d attempts, want 2", len(s.at))
		}
		if src.Error != "panic: index out of range" {
			t.Errorf("source state: %+v", src)
		}
		if !strings.Contains(log, "supervisor_test.go") {
			t.Errorf("no stack in the log:\n%s", log)
		}
	})
}

func TestLateEmitIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var late func(inventory.Delta)
		s := &script{steps: []func(context.Context, func(inventory.Delta)) error{
			func(_ context.Context, emit func(inventory.Delta)) error { late = emit; return errors.New("gone") },
			func(context.Context, func(inventory.Delta)) error {
				late(inventory.Delta{Source: "a", Begin: true, Synced: true})
				return errors.New("gone again")
			},
		}}
		if src, _, _ := supervise(t, s, time.Minute); src.Synced || src.Up {
			t.Errorf("a delta of a Watch that had ended was applied: %+v", src)
		}
	})
}

func TestSupervisedSourcesDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clk := clock.New(1)
		fleet := inventory.NewFleet(inventory.Source{Name: "a"}, inventory.Source{Name: "hangs"})
		log := slog.New(slog.DiscardHandler)
		sink := collector.FleetSink(fleet, clk, log, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for name, s := range map[string]*script{"hangs": {}, "a": {steps: append(repeat(3, fails(errors.New("x"))), func(ctx context.Context, emit func(inventory.Delta)) error {
			emit(inventory.Delta{Source: "a", Begin: true, Synced: true})
			<-ctx.Done()
			return ctx.Err()
		})}} {
			wg.Go(func() { collector.Supervise(ctx, name, s, sink, collector.Options{Clock: clk, Log: log}) })
		}
		time.Sleep(time.Minute)
		if src, _ := fleet.Snapshot().Source("a"); !src.Up {
			t.Error("source a is not up")
		}
		cancel()
		wg.Wait()
		if src, _ := fleet.Snapshot().Source("a"); !src.Up {
			t.Error("the end of the agent was taken for the end of the source")
		}
	})
}

func TestFleetSinkLogsRefusedDelta(t *testing.T) {
	var log strings.Builder
	fleet := inventory.NewFleet(inventory.Source{Name: "a"})
	changes := 0
	sink := collector.FleetSink(fleet, clock.New(1), slog.New(slog.NewTextHandler(&log, nil)), func(c []inventory.Change) { changes += len(c) })
	sink.Apply(inventory.Delta{Source: "b", Begin: true, Synced: true})
	if !strings.Contains(log.String(), `unknown source`) {
		t.Errorf("log: %s", log.String())
	}
	sink.Apply(inventory.Delta{Source: "a", Begin: true, Synced: true})
	if changes != 1 {
		t.Errorf("%d changes, want one: synced", changes)
	}
}

func TestIdentities(t *testing.T) {
	ids := collector.NewIdentities()
	claim := func(identity, source string, want bool) {
		t.Helper()
		err := ids.Claim(identity, source)
		if (err == nil) != want {
			t.Errorf("%s claims %s: %v", source, identity, err)
		}
		if err != nil && (!errors.Is(err, collector.ErrDuplicate) || !strings.Contains(err.Error(), `"a"`) || !strings.Contains(err.Error(), `"b"`)) {
			t.Errorf("error does not name both sources: %v", err)
		}
	}
	claim("vc-1", "a", true)
	claim("vc-1", "b", false)
	claim("vc-1", "a", true)
	claim("vc-2", "a", true) // a's URL leads elsewhere now
	claim("vc-1", "b", true)
	claim("vc-2", "b", false)
}

func TestObserverSaysAFaultOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		reg := prometheus.NewPedanticRegistry()
		o := collector.NewMetrics(reg).Observer("a", slog.New(slog.NewTextHandler(&log, nil)))
		for range 30 { // ten minutes
			o.Fault("perf", errors.New("too slow"))
			time.Sleep(20 * time.Second)
		}
		o.Fault("perf", errors.New("refused"))
		o.Call("QueryPerf")
		o.Cycle("perf", 1.5)
		if n := strings.Count(log.String(), "too slow"); n != 2 {
			t.Errorf("said %d times in ten minutes, want 2", n)
		}
		if !strings.Contains(log.String(), "refused") {
			t.Error("a new fault was not said")
		}
		want := `
# HELP protip_source_api_calls_total Calls made to the platform's API.
# TYPE protip_source_api_calls_total counter
protip_source_api_calls_total{method="QueryPerf",source="a"} 1
# HELP protip_source_cycle_duration_seconds How long the last cycle of samples took, by what was sampled.
# TYPE protip_source_cycle_duration_seconds gauge
protip_source_cycle_duration_seconds{part="perf",source="a"} 1.5
# HELP protip_source_errors_total Errors of a source. Kinds watch, credentials, duplicate and panic ended the connection; others cost only their samples.
# TYPE protip_source_errors_total counter
protip_source_errors_total{kind="perf",source="a"} 31
protip_source_errors_total{kind="watch",source="a"} 0
# HELP protip_source_reconnects_total Attempts to connect again after a connection ended.
# TYPE protip_source_reconnects_total counter
protip_source_reconnects_total{source="a"} 0
`
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want)); err != nil {
			t.Error(err)
		}
		if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
			t.Error(problems, err)
		}
	})
}

// rotating is a script whose credentials change when the test says so.
type rotating struct {
	script
	refreshed func() bool
}

func (r *rotating) Refreshed() bool { return r.refreshed() }

// TestOtherCredentialsAreTriedEarlyOnce: within half a minute of being written, and not again early if they are refused too.
func TestOtherCredentialsAreTriedEarlyOnce(t *testing.T) {
	tests := []struct {
		name string
		from time.Duration // when the credentials on disk are others
		to   time.Duration // and when they are the refused ones again
		want []time.Duration
	}{
		{"never", time.Hour, time.Hour, []time.Duration{0, 5 * time.Minute, 10 * time.Minute}},
		{"rotated", time.Minute, time.Hour, []time.Duration{0, 70 * time.Second, 370 * time.Second}},
		{"half written", time.Minute, time.Minute + 5*time.Second, []time.Duration{0, 5 * time.Minute, 10 * time.Minute}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				src := &rotating{script{steps: repeat(2, fails(collector.ErrCredentials)), began: began}, func() bool {
					at := time.Since(began)
					return at >= tt.from && at < tt.to
				}}
				clk, log := clock.New(1), slog.New(slog.DiscardHandler)
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
				defer cancel()
				fleet := inventory.NewFleet(inventory.Source{Name: "a", Interval: time.Second})
				collector.Supervise(ctx, "a", src, collector.FleetSink(fleet, clk, log, nil), collector.Options{Clock: clk, Log: log})
				if !slices.Equal(src.at, tt.want) {
					t.Errorf("tried at %v, want %v", src.at, tt.want)
				}
			})
		})
	}
}
