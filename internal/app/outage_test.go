package app_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/placement"
	"github.com/protip/protip/internal/sim"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// interval is how often a source is sampled and rules are judged, where a configuration says nothing else.
const interval = 20 * time.Second

// seriesOf are the names and labels of all series of a source.
func (s scrape) seriesOf(source string) map[string]bool {
	out := map[string]bool{}
	for name := range s {
		if strings.HasPrefix(name, "virt_") {
			s.each(name, []string{"source", source}, func(labels map[string]string, _ float64) {
				var text strings.Builder
				for _, l := range slices.Sorted(maps.Keys(labels)) {
					fmt.Fprintf(&text, "%s=%q,", l, labels[l])
				}
				out[name+"{"+text.String()+"}"] = true
			})
		}
	}
	return out
}

// samplesOf is how many series of measured values a source has.
func (s scrape) samplesOf(source string) (n int) {
	for _, kind := range []inventory.Kind{inventory.KindHost, inventory.KindVM} {
		for _, m := range inventory.MetricsOf(kind) {
			n += s.count(m.String(), "source", source)
		}
	}
	return n
}

// states are all a tip went through, in order.
func (a *agent) states(tip rules.Tip) (out []rules.State) {
	for _, e := range a.seen.all() {
		if e.Tip != nil && e.Tip.Tip.ID == tip.ID {
			out = append(out, e.Tip.Tip.State)
		}
	}
	return out
}

func TestDeadVCenterCostsTheOtherNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, 10, hotFleet("vc-a"), calmFleet("vc-b"))
	a := r.start()
	dead, hot := r.vcs[0], host(t, r.vcs[0], "esx01")
	a.awaitUp("vc-a")
	a.awaitUp("vc-b")
	tip := a.awaitTip("HostHot", hot, rules.Active)

	// From here on every scrape has all of vc-b, and its counters go on.
	await(t, deadline, func() string {
		if n, all := a.scrape().samplesOf("vc-b"), 3*22+4*29; n != all { // what a vCenter has of hosts and of VMs
			return fmt.Sprintf("vc-b has %d samples of %d", n, all)
		}
		return ""
	})
	want := a.scrape().seriesOf("vc-b")
	received, since := -1.0, r.clock.Now()
	whole := func() string {
		s := a.scrape()
		have := s.seriesOf("vc-b")
		for series := range want {
			if !have[series] {
				return fmt.Sprintf("%s is missing", series)
			}
		}
		if len(have) != len(want) {
			return fmt.Sprintf("vc-b has %d series of %d", len(have), len(want))
		}
		bytes := s.value("virt_vm_network_receive_bytes_total", "source", "vc-b", "vm", "mover")
		switch late := r.clock.Now().Sub(since); {
		case bytes < received:
			return fmt.Sprintf("a counter fell from %v to %v", received, bytes)
		case bytes > received:
			received, since = bytes, r.clock.Now()
		case late > 2*interval:
			return fmt.Sprintf("a counter of vc-b stands still for %s", late)
		}
		return ""
	}
	r.throughout(interval, whole)

	dead.Stop()
	stopped := r.clock.Now()
	for a.scrape().samplesOf("vc-a") > 0 {
		if what := whole(); what != "" {
			t.Fatal(what)
		}
		if late := r.clock.Now().Sub(stopped); late > 3*interval {
			t.Fatalf("samples of vc-a are still shown %s after its death", late)
		}
	}
	s := a.scrape()
	if up := s.value("protip_source_up", "source", "vc-a"); up != 0 {
		t.Errorf("protip_source_up of vc-a is %v", up)
	}
	if up := s.value("protip_source_up", "source", "vc-b"); up != 1 {
		t.Errorf("protip_source_up of vc-b is %v", up)
	}
	for name, n := range map[string]int{
		"virt_cluster_info": 1, "virt_host_info": 3, "virt_host_connected": 3, "virt_host_maintenance": 3, "virt_host_vms": 3,
		"virt_vm_info": 4, "virt_vm_powered_on": 4,
	} {
		if have := s.count(name, "source", "vc-a"); have != n {
			t.Errorf("%s has %d series of vc-a, want %d", name, have, n)
		}
	}
	unknown := a.awaitTip("HostHot", hot, rules.Unknown)
	if unknown.Was != rules.Active || unknown.NoDataSince.IsZero() || unknown.NoDataSince.After(stopped.Add(interval)) {
		t.Errorf("tip without data was %q, no data since %s, the vCenter died %s", unknown.Was, unknown.NoDataSince, stopped)
	}

	// Nothing is planned onto what nobody sees: not by a person, and not by itself once it might.
	placed, err := a.Place(t.Context(), vm(t, dead, "mover").String())
	if err != nil || len(placed.Ratings) != 3 {
		t.Fatalf("place: %d ratings, %v", len(placed.Ratings), err)
	}
	for _, rating := range placed.Ratings {
		if rating.Stars != 0 || !slices.ContainsFunc(rating.Reasons, func(why placement.Reason) bool { return why.Code == placement.CodeStale && why.Bars }) {
			t.Errorf("host %s of a dead vCenter has %v stars: %v", rating.Name, rating.Stars, rating.Reasons)
		}
	}
	if _, err := a.Implement(t.Context(), tip.ID, ""); err == nil || !strings.Contains(err.Error(), "unknown") {
		t.Errorf("implementing a tip without data: %v", err)
	}
	r.automatic("HostHot")
	if err := a.Client.Reload(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	r.throughout(3*interval, func() string {
		if what := whole(); what != "" {
			return what
		}
		if now := a.tip("HostHot", hot); now.State != rules.Unknown {
			return fmt.Sprintf("the tip of a dead vCenter became %s", now.State)
		}
		if n := len(a.actions()); n > 0 {
			return fmt.Sprintf("%d actions were made for a dead vCenter", n)
		}
		return ""
	})

	// It comes back by itself and the tip goes on: now, and only now, its remedy runs.
	if err := dead.Restart(); err != nil {
		t.Fatal(err)
	}
	act := a.awaitAction("done", func(act remediation.Action) bool { return act.State == remediation.Done })
	if act.TipID != tip.ID || sent(dead) != 1 {
		t.Errorf("after the restart action %+v, %d migrations", act, sent(dead))
	}
	states := a.states(tip)
	if i := slices.Index(states, rules.Unknown); !slices.Equal(states[i:i+2], []rules.State{rules.Unknown, rules.Active}) {
		t.Errorf("the tip went %v", states)
	}
	if now := a.tip("HostHot", hot); now.Episode != tip.Episode || !now.ActiveAt.Equal(tip.ActiveAt) {
		t.Errorf("the tip began anew: episode %d, active at %s; was %d, %s", now.Episode, now.ActiveAt, tip.Episode, tip.ActiveAt)
	}
	if s := a.scrape(); s.value("protip_source_up", "source", "vc-a") != 1 || s.samplesOf("vc-a") == 0 {
		t.Error("vc-a did not come back")
	}
	if changes := a.changes(); len(changes[inventory.Added])+len(changes[inventory.Removed]) > 0 {
		t.Errorf("the outage made changes: %v", changes)
	}
}

func TestQueryPerfAloneFailing(t *testing.T) {
	t.Parallel()
	r := newRig(t, 20, hotFleet("vc"))
	vc := r.vcs[0]
	r.file("heat.yml", strings.Replace(heatPack, "action: none", "action: rebalance-host, cpu_below: 0.65", 1))
	a := r.start()
	a.awaitUp("vc")
	hot := host(t, vc, "esx01")
	tip, busy := a.awaitTip("HostHot", hot, rules.Active), a.awaitTip("HostBusy", hot, rules.Active)

	contention := []string{inventory.VMCPUContention.String(), inventory.HostCPUContention.String(), inventory.HostCPUContentionMax.String()}
	usage := func() string {
		s := a.scrape()
		for _, m := range []inventory.Metric{inventory.HostCPUUsage, inventory.HostCPUUsageRatio, inventory.HostMemoryUsage} {
			if n := s.count(m.String()); n != 3 {
				return fmt.Sprintf("%s has %d series of 3", m, n)
			}
		}
		for _, m := range []inventory.Metric{inventory.VMCPUUsage, inventory.VMMemoryUsage} {
			if n := s.count(m.String()); n != 4 {
				return fmt.Sprintf("%s has %d series of 4", m, n)
			}
		}
		if up := s.value("protip_source_up"); up != 1 {
			return fmt.Sprintf("protip_source_up is %v", up)
		}
		return ""
	}
	lift := vc.Inject(sim.Fault{Method: "QueryPerf", Fault: &types.RuntimeFault{}})
	failed := r.clock.Now()
	await(t, deadline, func() string {
		if what := usage(); what != "" {
			t.Fatal(what)
		}
		if late := r.clock.Now().Sub(failed); late > 4*interval {
			t.Fatalf("contention is still shown %s after it failed", late)
		}
		s := a.scrape()
		for _, name := range contention {
			if n := s.count(name); n > 0 {
				return fmt.Sprintf("%s has %d series", name, n)
			}
		}
		return ""
	})
	a.awaitTip("HostHot", hot, rules.Unknown)
	r.automatic("HostHot", "HostBusy")
	if err := a.Client.Reload(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	r.throughout(6*interval, func() string {
		if now := a.tip("HostBusy", hot); now.State != rules.Active {
			return fmt.Sprintf("a tip that needs no contention became %s", now.State)
		}
		if now := a.tip("HostHot", hot); now.State != rules.Unknown {
			return fmt.Sprintf("a tip that needs contention became %s", now.State)
		}
		if n := len(a.actions()) + sent(vc); n > 0 {
			return "something moves by numbers that nobody has"
		}
		return usage()
	})
	if n := a.scrape().value("protip_source_errors_total", "kind", "perf"); n < 1 {
		t.Errorf("protip_source_errors_total of perf is %v", n)
	}

	lift()
	await(t, deadline, func() string {
		s := a.scrape()
		for _, name := range contention {
			if s.count(name) == 0 {
				return name + " did not come back"
			}
		}
		return ""
	})
	a.awaitAction("done", func(act remediation.Action) bool { return act.State == remediation.Done })
	if now := a.tip("HostHot", hot); now.Episode != tip.Episode || slices.Contains(a.states(tip)[:slices.Index(a.states(tip), rules.Unknown)+1], rules.Resolved) {
		t.Errorf("the tip went %v", a.states(tip))
	}
	if now := a.tip("HostBusy", hot); now.Episode != busy.Episode {
		t.Errorf("the tip that needs no contention began anew: %v", a.states(busy))
	}
}

func TestVMsDeletedWhileTheVCenterWasDown(t *testing.T) {
	t.Parallel()
	fleet := calmFleet("vc")
	fleet.Clusters = sim.Uniform(32, 1000)
	r := newRig(t, 20, fleet)
	r.automatic("HostHot")
	vc := r.vcs[0]
	a := r.start()
	a.awaitUp("vc")
	if n := a.scrape().value("protip_source_objects", "kind", "vm"); n != 1000 {
		t.Fatalf("%v VMs are known", n)
	}

	vc.Stop()
	await(t, deadline, func() string {
		if src, _ := a.Snapshot().Source("vc"); src.Up {
			return "the source is up"
		}
		return ""
	})
	var gone []inventory.ID
	var refs []types.ManagedObjectReference
	for i, ref := range vc.VMs() {
		if i%2 == 0 {
			refs = append(refs, ref)
			gone = append(gone, inventory.ID{Source: "vc", Kind: inventory.KindVM, Ref: ref.Value})
		}
	}
	if err := vc.DestroyVM(refs...); err != nil {
		t.Fatal(err)
	}
	if n := len(a.changes()); n > 0 {
		t.Fatalf("changes of a vCenter that does not answer: %v", a.changes())
	}
	if err := vc.Restart(); err != nil {
		t.Fatal(err)
	}
	a.awaitUp("vc")
	r.throughout(3*interval, func() string {
		if src, _ := a.Snapshot().Source("vc"); !src.Up {
			return "the source is down again: " + src.Error
		}
		return ""
	})

	changes := a.changes()
	for kind, ids := range changes {
		if kind != inventory.Removed {
			t.Errorf("%d objects were %s", len(ids), kind)
		}
	}
	order := func(x, y inventory.ID) int { return strings.Compare(x.Ref, y.Ref) }
	slices.SortFunc(gone, order)
	slices.SortFunc(changes[inventory.Removed], order)
	if !slices.Equal(changes[inventory.Removed], gone) {
		t.Errorf("%d VMs were removed, want exactly the %d that were deleted", len(changes[inventory.Removed]), len(gone))
	}
	if n := a.scrape().count("virt_vm_info"); n != 500 {
		t.Errorf("%d VMs are shown", n)
	}
	await(t, deadline, func() string {
		if n := a.scrape().count("virt_vm_cpu_usage_hertz"); n != 500 {
			return fmt.Sprintf("%d VMs have a CPU usage", n)
		}
		return ""
	})
	if n := len(a.actions()) + sent(vc); n > 0 {
		t.Error("something was done about it")
	}
}
