package rules

import (
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/history/promql"
	"github.com/protip/protip/internal/history/tsdb"
	"github.com/protip/protip/internal/inventory"
)

// TestReplayIsAsLive lives through three hours with two hosts, a migration, a cluster that changes and a source that is silent for
// a while, keeps the history of it, and replays it: the same tips, at the same times.
func TestReplayIsAsLive(t *testing.T) {
	const step = 30 * time.Second
	set := mustLoad(t, `pack: p
version: 1.0.0
description: d
rules:
  - {name: Hot, on: host, when: host.cpu_usage_ratio > 0.8 && !host.maintenance, for: 5m, clear: host.cpu_usage_ratio < 0.6,
     severity: warning, summary: "{{host.name}} {{percent(host.cpu_usage_ratio)}}", remedy: {action: none}}
  - {name: Steady, on: host, with: {cpu: "avg_over_time(virt_host_cpu_usage_ratio[10m])"}, when: cpu > 0.7, for: 2m,
     severity: warning, summary: "{{percent(cpu)}}", remedy: {action: none}}
  - {name: Waits, on: vm, when: vm.cpu_contention_ratio > 0.1 && host.cpu_usage_ratio > 0.5 && cluster.drs_enabled, for: 1m,
     severity: info, summary: "{{vm.name}} on {{host.name}}", remedy: {action: migrate}}
  - {name: Full, on: datastore, when: datastore.free_bytes < 0.1 * datastore.capacity_bytes && datastore.accessible && !datastore.maintenance, for: 1m,
     severity: warning, summary: "{{datastore.name}} ({{datastore.type}}) {{bytes(datastore.free_bytes)}}", remedy: {action: none}}
`)
	store, err := tsdb.Open(tsdb.Options{
		Dir: t.TempDir(), Retention: 24 * time.Hour, RollupRetention: 48 * time.Hour, Limits: promql.DefaultLimits(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	past := promql.New(store, promql.DefaultLimits())

	w := newWorld(t)
	start := noon
	var tips []Tip
	var live []string
	for n := range 360 {
		now := start.Add(time.Duration(n) * step)
		minute := n / 2
		silent := minute >= 100 && minute < 115
		if silent {
			w.Down("vc", errSilent)
		} else {
			d := inventory.Delta{Clusters: []inventory.Cluster{cluster("c", minute < 150)}}
			if n == 0 || minute == 115 {
				d.Begin, d.Synced = true, true
			}
			d.Hosts = []inventory.Host{host("h", "c"), host("g", "c")}
			d.Hosts[0].Maintenance = minute >= 60 && minute < 70
			runs := "h"
			if minute >= 40 {
				runs = "g"
			}
			d.VMs = []inventory.VM{guest("v", runs)}
			d.Datastores = []inventory.Datastore{{
				ID: id(inventory.KindDatastore, "d"), Name: "san", Type: "VMFS", CapacityBytes: 1 << 40, Accessible: minute < 160, Maintenance: minute >= 80 && minute < 90,
			}}
			load := 0.5 + 0.4*float64(minute/20%2)
			d.Samples = []inventory.SampleSet{hostLoad("h", now, load, 0.1), hostLoad("g", now, 1-load, 0.1)}
			if minute%6 == 0 {
				d.Samples = append(d.Samples, sample(id(inventory.KindDatastore, "d"), now, map[inventory.Metric]float64{inventory.DatastoreFree: float64(int64(1+minute/50%2*200) << 30)}))
			}
			if minute%30 < 25 {
				d.Samples = append(d.Samples, sample(id(inventory.KindVM, "v"), now, map[inventory.Metric]float64{inventory.VMCPUContention: 0.2}))
			}
			w.apply(d, now)
		}
		w.Expire(now)
		snap := w.Snapshot()
		if err := store.Append(snap, now); err != nil {
			t.Fatal(err)
		}
		answers := set.Ask(t.Context(), past, snap, now)
		findings, _ := set.Eval(Input{Snapshot: snap, Answers: answers, Followed: Follow(tips), Now: now})
		var changes []Change
		tips, changes = Step(tips, Turn{Set: set, Snapshot: snap, Findings: findings, Now: now, MaxGap: 5 * step})
		for _, c := range changes {
			if c.Tip.State == Active && (c.From == "" || c.From == Pending) {
				live = append(live, fmt.Sprint(now.Sub(start), " ", c.Tip.Rule, " ", c.Tip.Name, " ", c.Tip.Summary))
			}
		}
	}
	if len(live) < 6 || !strings.Contains(strings.Join(live, " "), "Full san san (VMFS) 1 GiB") {
		t.Fatalf("too little happened: %q", live)
	}

	var replayed []string
	progress := 0.0
	episodes, err := Replay{
		Set: set, Past: past, Range: history.Range{Start: start, End: start.Add(359 * step), Step: step},
		Progress: func(done float64) { progress = done },
	}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range episodes {
		replayed = append(replayed, fmt.Sprint(e.ActiveAt.Sub(start), " ", e.Tip.Rule, " ", e.Tip.Name, " ", e.Tip.Summary))
	}
	if !reflect.DeepEqual(replayed, live) {
		t.Errorf("live\n%q\nreplayed\n%q", live, replayed)
	}
	if progress != 1 {
		t.Errorf("progress ends at %v", progress)
	}
}
