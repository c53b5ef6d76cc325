package app

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/collector/build"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/config"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/rules"
)

const (
	trialLength = 10   // how much of each list a trial shows
	waits       = 0.02 // contention below this is no news

	// farewell is kept of the time that a trial has: a vCenter that does not answer may take as long to be logged out of.
	farewell = 3 * time.Second
)

// Trial is what protip saw of a source in one look, without a file, a store or a right to act.
type Trial struct {
	Clusters []TrialCluster `json:"clusters"`
	Hosts    int            `json:"hosts"`
	Resting  int            `json:"hosts_in_maintenance"`
	Lost     int            `json:"hosts_out_of_reach"`
	VMs      int            `json:"vms"`
	Running  int            `json:"vms_running"`
	Hottest  []TrialHost    `json:"hottest_hosts"` // by CPU
	Waiting  []TrialVM      `json:"waiting_vms"`   // by CPU contention
	Tips     []TrialTip     `json:"tips"`
	Missing  []string       `json:"missing,omitempty"` // what could not be seen, in words
	// NeedHistory are the rules that one look is not enough for, as pack/rule.
	NeedHistory []string `json:"rules_that_need_history"`
}

// TrialCluster is a cluster and what its own automation is set to.
type TrialCluster struct {
	Name  string        `json:"name"`
	Hosts int           `json:"hosts"`
	DRS   inventory.DRS `json:"drs"`
	HA    inventory.HA  `json:"ha"`
}

// TrialHost is a host's load; nil is not known.
type TrialHost struct {
	Name       string   `json:"name"`
	Cluster    string   `json:"cluster,omitempty"`
	State      string   `json:"state,omitempty"` // maintenance, disconnected, unreachable, off; empty if it is there to run VMs
	CPU        *float64 `json:"cpu_usage_ratio"`
	Memory     *float64 `json:"memory_usage_ratio"`
	Contention *float64 `json:"cpu_contention_ratio"`
}

// TrialVM is a VM that waits for CPU.
type TrialVM struct {
	Name       string  `json:"name"`
	Host       string  `json:"host"`
	Contention float64 `json:"cpu_contention_ratio"`
}

// TrialTip is a rule's condition that holds now; it would be a tip if it went on for For.
type TrialTip struct {
	Rule     string         `json:"rule"`
	Severity rules.Severity `json:"severity"`
	Name     string         `json:"name"`
	Summary  string         `json:"summary"`
	For      time.Duration  `json:"for"`
	DRS      bool           `json:"drs,omitempty"`
}

// Try watches a source until it has listed everything and measured once, or ctx is done, and judges it with the rules.
// What had not come when ctx was done is said in Missing; before the listing there is nothing to say, only an error. It answers by
// ctx's deadline, whatever the source does.
func Try(ctx context.Context, src config.Source, password string, set *rules.Set, log *slog.Logger) (Trial, error) {
	clk := clock.New(1)
	source, err := build.Trial(src, password, build.Options{Clock: clk, Log: log, Registerer: prometheus.NewRegistry()})
	if err != nil {
		return Trial{}, err
	}
	fleet := inventory.NewFleet(inventory.Source{Name: src.Name, Platform: src.Type, Interval: src.Interval})
	ctx, cancel := beforeFarewell(ctx)
	defer cancel()
	sink := collector.FleetSink(fleet, clk, log, nil)
	changed := make(chan struct{}, 1)
	ended := make(chan error, 1)
	var watching sync.WaitGroup
	watching.Go(func() {
		ended <- collector.Contain(func() error {
			return source.Watch(ctx, func(d inventory.Delta) {
				sink.Apply(d)
				select {
				case changed <- struct{}{}:
				default:
				}
			})
		})
	})
	err = awaitLook(ctx, fleet, changed, ended)
	cancel()
	watching.Wait() // it logs out
	snap := fleet.Snapshot()
	if is, _ := snap.Source(src.Name); !is.Synced {
		return Trial{}, cmp.Or(err, fmt.Errorf("the listing took too long"))
	}
	return lookAt(snap, set, clk.Now()), nil
}

// beforeFarewell ends early enough to log out by ctx's deadline.
func beforeFarewell(ctx context.Context) (context.Context, context.CancelFunc) {
	if end, ok := ctx.Deadline(); ok {
		return context.WithDeadline(ctx, end.Add(-farewell))
	}
	return context.WithCancel(ctx)
}

// awaitLook returns when the fleet is listed and every running host's contention is known, when ctx is done, or with the
// source's error.
func awaitLook(ctx context.Context, fleet *inventory.Fleet, changed <-chan struct{}, ended <-chan error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			if ctx.Err() != nil {
				return nil // which is why
			}
			return err
		case <-changed:
			if measured(fleet.Snapshot()) {
				return nil
			}
		}
	}
}

func measured(snap *inventory.Snapshot) bool {
	for _, src := range snap.Sources() {
		if !src.Synced {
			return false
		}
	}
	for h := range snap.Hosts() {
		if h.Connection != inventory.Connected || h.Power != inventory.PowerOn {
			continue
		}
		if _, ok := h.Samples.Value(inventory.HostCPUUsage); !ok {
			return false
		}
		if _, ok := h.Samples.Value(inventory.HostCPUContention); !ok && anyRunning(snap.VMsOn(h.ID)) {
			return false
		}
	}
	return true
}

func anyRunning(vms []inventory.VMView) bool {
	return slices.ContainsFunc(vms, func(vm inventory.VMView) bool { return vm.Power == inventory.PowerOn })
}

func lookAt(snap *inventory.Snapshot, set *rules.Set, now time.Time) Trial {
	t := Trial{Clusters: []TrialCluster{}, Hottest: []TrialHost{}, Waiting: []TrialVM{}, Tips: []TrialTip{}, NeedHistory: []string{}}
	for c := range snap.Clusters() {
		t.Clusters = append(t.Clusters, TrialCluster{Name: c.Name, Hosts: len(snap.HostsOf(c.ID)), DRS: c.DRS, HA: c.HA})
	}
	for h := range snap.Hosts() {
		t.Hosts++
		host := TrialHost{
			Name: h.Name, State: stateOf(h.Host), CPU: value(h.Samples, inventory.HostCPUUsageRatio),
			Memory: value(h.Samples, inventory.HostMemoryUsageRatio), Contention: value(h.Samples, inventory.HostCPUContention),
		}
		if h.Maintenance {
			t.Resting++
		}
		if h.Connection != inventory.Connected {
			t.Lost++
		}
		if c, ok := snap.Cluster(h.Cluster); ok {
			host.Cluster = c.Name
		}
		t.Hottest = append(t.Hottest, host)
	}
	for vm := range snap.VMs() {
		if vm.Template {
			continue
		}
		t.VMs++
		if vm.Power == inventory.PowerOn {
			t.Running++
		}
		if wait, ok := vm.Samples.Value(inventory.VMCPUContention); ok && wait >= waits {
			t.Waiting = append(t.Waiting, TrialVM{Name: vm.Name, Host: hostName(snap, vm.Host), Contention: wait})
		}
	}
	if !measured(snap) {
		t.Missing = append(t.Missing, "not every host and VM had been measured when the time was up")
	}
	slices.SortStableFunc(t.Hottest, func(a, b TrialHost) int { return descending(a.CPU, b.CPU) })
	slices.SortStableFunc(t.Waiting, func(a, b TrialVM) int { return cmp.Compare(b.Contention, a.Contention) })
	t.Hottest = t.Hottest[:min(len(t.Hottest), trialLength)]
	t.Waiting = t.Waiting[:min(len(t.Waiting), trialLength)]
	findings, stats := set.Eval(rules.Input{Snapshot: snap, Now: now})
	for _, f := range findings {
		if f.When == rules.True {
			t.Tips = append(t.Tips, TrialTip{
				Rule: f.Rule.Name, Severity: f.Rule.Severity, Name: f.Name, Summary: f.Summary, For: f.Rule.For, DRS: f.DRS,
			})
		}
	}
	for r := range stats {
		if r.NeedsHistory() {
			t.NeedHistory = append(t.NeedHistory, r.String())
		}
	}
	slices.Sort(t.NeedHistory)
	return t
}

// stateOf is why a host runs no VMs or is not measured, empty if it does and is.
func stateOf(h *inventory.Host) string {
	switch {
	case h.Connection != inventory.Connected:
		return string(h.Connection)
	case h.Power != inventory.PowerOn:
		return string(h.Power)
	case h.Maintenance:
		return "maintenance"
	}
	return ""
}

func value(s inventory.Samples, m inventory.Metric) *float64 {
	v, ok := s.Value(m)
	if !ok {
		return nil
	}
	return &v
}

// descending orders what is known, highest first, before what is not.
func descending(a, b *float64) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return 1
	case b == nil:
		return -1
	}
	return cmp.Compare(*b, *a)
}
