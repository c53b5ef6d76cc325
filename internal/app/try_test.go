package app_test

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	promconfig "github.com/prometheus/common/config"

	"github.com/protip/protip/internal/app"
	"github.com/protip/protip/internal/config"
	"github.com/protip/protip/internal/sim"
	"github.com/protip/protip/internal/sim/load"
	"github.com/protip/protip/rules"
)

// TestTryAnswersInTime: a look ends by its deadline with what it has, however slow the vCenter is.
func TestTryAnswersInTime(t *testing.T) {
	t.Parallel()
	set, err := rules.Load([]rules.File{{Name: "heat.yml", Text: []byte(heatPack)}}, rules.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		within  time.Duration
		faults  []sim.Fault
		err     string
		missing bool
	}{
		{"slow, but all of it comes", deadline, []sim.Fault{{Method: "*", Delay: 200 * time.Millisecond}}, "", false},
		{"no counters, and no log-out", 8 * time.Second, []sim.Fault{{Method: "QueryPerf", Hang: true}, {Method: "Logout", Hang: true}}, "", true},
		{"no listing", 5 * time.Second, []sim.Fault{{Method: "WaitForUpdatesEx", Hang: true}}, "the listing took too long", false},
		{"no log-in", 5 * time.Second, []sim.Fault{{Method: "Login", Hang: true}}, "the listing took too long", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			vc, err := sim.StartVCenter(sim.Config{Clusters: sim.Uniform(2, 6), Load: load.Steady(load.Around(1, 0.9))})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(vc.Close)
			for _, f := range tt.faults {
				t.Cleanup(vc.Inject(f))
			}
			password, _ := vc.Login().User.Password()
			src := config.Source{
				Name: "trial", Type: config.VSphere, URL: vc.URL().String(), Interval: config.DefaultInterval, PerfBatch: config.DefaultPerfBatch,
				TLS: promconfig.TLSConfig{CA: string(vc.CAPEM())}, Credential: config.Credential{Username: vc.Login().User.Username()},
			}
			ctx, cancel := context.WithTimeout(t.Context(), tt.within)
			defer cancel()
			began := time.Now()
			trial, err := app.Try(ctx, src, password, set, slog.New(slog.DiscardHandler))
			// A call that is not cut short takes 30 s; what is allowed beyond the deadline is for a slow machine.
			if took := time.Since(began); took > tt.within+10*time.Second {
				t.Errorf("took %v of %v", took, tt.within)
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if trial.Hosts != 2 || trial.VMs != 6 || trial.Running != 6 || len(trial.Clusters) != 1 || len(trial.Hottest) != 2 {
				t.Errorf("saw %+v", trial)
			}
			if (len(trial.Missing) > 0) != tt.missing {
				t.Errorf("missing %q", trial.Missing)
			}
			for _, h := range trial.Hottest {
				if h.CPU == nil || (h.Contention == nil) != tt.missing {
					t.Errorf("%s: CPU %v, contention %v", h.Name, h.CPU, h.Contention)
				}
			}
		})
	}
}

// TestTrySaysWhatItDidNotJudge: a host that runs no VMs by somebody's will, one that nobody reaches, and a rule that needs more than
// one look.
func TestTrySaysWhatItDidNotJudge(t *testing.T) {
	t.Parallel()
	const past = `pack: past
version: 1.0.0
description: What one look cannot tell.
rules:
  - name: LongHot
    on: host
    with: {cpu: "avg_over_time(virt_host_cpu_usage_ratio[10m])"}
    when: cpu > 0.85
    severity: info
    summary: "{{host.name}} was hot"
    remedy: {action: none}
`
	set, err := rules.Load([]rules.File{{Name: "heat.yml", Text: []byte(heatPack)}, {Name: "past.yml", Text: []byte(past)}}, rules.Options{})
	if err != nil {
		t.Fatal(err)
	}
	clusters := sim.Uniform(3, 6)
	clusters[0].Hosts[1].Maintenance, clusters[0].Hosts[2].Disconnected = true, true
	vc, err := sim.StartVCenter(sim.Config{Clusters: clusters, Load: load.Steady(load.Around(1, 0.3))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(vc.Close)
	password, _ := vc.Login().User.Password()
	src := config.Source{
		Name: "trial", Type: config.VSphere, URL: vc.URL().String(), Interval: config.DefaultInterval, PerfBatch: config.DefaultPerfBatch,
		TLS: promconfig.TLSConfig{CA: string(vc.CAPEM())}, Credential: config.Credential{Username: vc.Login().User.Username()},
	}
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	trial, err := app.Try(ctx, src, password, set, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(trial.NeedHistory, []string{"past/LongHot"}) {
		t.Errorf("not judged: %q", trial.NeedHistory)
	}
	states := map[string]string{}
	for _, h := range trial.Hottest {
		states[h.Name] = h.State
	}
	want := map[string]string{"esx-0001.example.org": "", "esx-0002.example.org": "maintenance", "esx-0003.example.org": "disconnected"}
	if trial.Resting != 1 || trial.Lost != 1 || !maps.Equal(states, want) {
		t.Errorf("%d in maintenance, %d out of reach, states %v", trial.Resting, trial.Lost, states)
	}
}
