package vsphere

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	promconfig "github.com/prometheus/common/config"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/vsphere"
	"github.com/protip/protip/internal/sim"
)

// listed is a follower that has listed a small simulated vCenter; emitted holds what it emitted since.
func listed(t *testing.T, groups ...string) (f *follower, vc *sim.VCenter, emitted *[]inventory.Delta) {
	t.Helper()
	vc, err := sim.StartVCenter(sim.Config{Clusters: sim.Uniform(2, 4)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(vc.Close)
	password, _ := vc.Login().User.Password()
	src, err := New(Options{Name: "vc", Clock: clock.New(1), Observer: &callCounter{}, Collect: inventory.OfGroups(groups), Session: platform.Options{
		URL: vc.URL().String(), Username: vc.Login().User.Username(), Password: func() (string, error) { return password, nil },
		TLS: promconfig.TLSConfig{CA: string(vc.CAPEM())},
	}})
	if err != nil {
		t.Fatal(err)
	}
	session, err := platform.New(src.opts.Session)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(session.Close)
	conn, err := session.Login(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	emitted = &[]inventory.Delta{}
	f = newFollower(src, conn, func(d inventory.Delta) { *emitted = append(*emitted, d) })
	view, err := createView(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.list(t.Context(), view); err != nil {
		t.Fatal(err)
	}
	*emitted = nil
	return f, vc, emitted
}

func TestApplyUpdates(t *testing.T) {
	f, vc, emitted := listed(t)
	vms, hosts := vc.VMs(), vc.Hosts()
	cluster, _ := vc.Cluster("cluster-01")
	gone := types.ManagedObjectReference{Type: typeVM, Value: "vm-99999"}
	assign := func(name string, val any) types.PropertyChange {
		return types.PropertyChange{Name: name, Op: types.PropertyChangeOpAssign, Val: val}
	}
	modify := func(ref types.ManagedObjectReference, changes ...types.PropertyChange) types.ObjectUpdate {
		return types.ObjectUpdate{Kind: types.ObjectUpdateKindModify, Obj: ref, ChangeSet: changes}
	}
	before := *f.tree.vms[vms[0].Value]
	hostname := before.GuestHostname
	if hostname == "" || before.Host.Ref != hosts[0].Value {
		t.Fatalf("the simulated VM has no guest host name or is elsewhere: %+v", before.VM)
	}
	tests := []struct {
		name    string
		updates []types.ObjectUpdate
		want    func(d inventory.Delta) bool
	}{
		{"one property", []types.ObjectUpdate{modify(vms[0], assign("runtime.host", hosts[1]))}, func(d inventory.Delta) bool {
			return len(d.VMs) == 1 && d.VMs[0].Host.Ref == hosts[1].Value && d.VMs[0].Name == before.Name && d.VMs[0].VCPUs == before.VCPUs
		}},
		{"unset by removal", []types.ObjectUpdate{modify(vms[0], types.PropertyChange{Name: "guest.hostName", Op: types.PropertyChangeOpIndirectRemove})}, func(d inventory.Delta) bool {
			return len(d.VMs) == 1 && d.VMs[0].GuestHostname == "" && d.VMs[0].Name == before.Name
		}},
		{"unset by nothing", []types.ObjectUpdate{modify(vms[1], assign("summary.config.uuid", nil))}, func(d inventory.Delta) bool {
			return len(d.VMs) == 1 && d.VMs[0].UUID == ""
		}},
		{"of another type than expected", []types.ObjectUpdate{modify(vms[1], assign("name", int32(5)), assign("runtime.host", "host-1"))}, func(d inventory.Delta) bool {
			return len(d.VMs) == 1 && d.VMs[0].Name == "" && d.VMs[0].Host.IsZero()
		}},
		{"a part of an array: read again", []types.ObjectUpdate{
			modify(cluster, assign("name", "stale"), types.PropertyChange{Name: `configurationEx.rule["5"]`, Op: types.PropertyChangeOpAdd}),
		}, func(d inventory.Delta) bool {
			return len(d.Clusters) == 1 && d.Clusters[0].Name == "cluster-01" && d.Clusters[0].DRS.Enabled
		}},
		{"a path above ours: read again", []types.ObjectUpdate{modify(vms[0], assign("guest", types.GuestInfo{}))}, func(d inventory.Delta) bool {
			return len(d.VMs) == 1 && d.VMs[0].GuestHostname == hostname && d.VMs[0].Host.Ref == hosts[0].Value
		}},
		{"read again, and one of them is gone", []types.ObjectUpdate{modify(gone, assign("name", "x")), modify(vms[1], assign("config", nil))}, func(d inventory.Delta) bool {
			return len(d.VMs) == 1 && d.VMs[0].Host.Ref != "" && d.VMs[0].Name != "" && len(d.Removed) == 0
		}},
		{"left", []types.ObjectUpdate{modify(vms[2], assign("name", "last")), {Kind: types.ObjectUpdateKindLeave, Obj: vms[2]}}, func(d inventory.Delta) bool {
			return len(d.VMs) == 0 && len(d.Removed) == 1 && d.Removed[0].Ref == vms[2].Value
		}},
		{"left and came back", []types.ObjectUpdate{
			{Kind: types.ObjectUpdateKindLeave, Obj: vms[3]},
			{Kind: types.ObjectUpdateKindEnter, Obj: vms[3], ChangeSet: []types.PropertyChange{assign("name", "again")}},
		}, func(d inventory.Delta) bool {
			return len(d.Removed) == 0 && len(d.VMs) == 1 && d.VMs[0].Name == "again"
		}},
		{"of a type that is not followed", []types.ObjectUpdate{modify(types.ManagedObjectReference{Type: "Folder", Value: "group-1"}, assign("name", "x"))}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			*emitted = nil
			set := &types.UpdateSet{FilterSet: []types.PropertyFilterUpdate{{ObjectSet: tt.updates}}}
			if err := f.apply(t.Context(), set, false, false); err != nil {
				t.Fatal(err)
			}
			if tt.want == nil {
				if len(*emitted) > 0 {
					t.Errorf("emitted %+v", *emitted)
				}
			} else if len(*emitted) != 1 || !tt.want((*emitted)[0]) {
				t.Errorf("emitted %+v", *emitted)
			}
		})
	}
	lost := modify(vms[0])
	lost.MissingSet = []types.MissingProperty{{Path: "name", Fault: types.LocalizedMethodFault{Fault: &types.NotAuthenticated{}}}}
	err := f.apply(t.Context(), &types.UpdateSet{FilterSet: []types.PropertyFilterUpdate{{ObjectSet: []types.ObjectUpdate{lost}}}}, false, false)
	if !platform.IsNotAuthenticated(err) {
		t.Errorf("a missing set that says not authenticated: %v", err)
	}
}

func TestQueryPerfAsksForLess(t *testing.T) {
	f, vc, _ := listed(t)
	p := newPerf(f)
	if err := p.resolve(t.Context()); err != nil {
		t.Fatal(err)
	}
	vms := vc.VMs()
	tests := []struct {
		name  string
		fault sim.Fault
		want  int // VMs answered
		calls int
		batch int
		err   bool
	}{
		{"nothing wrong", sim.Fault{Method: "QueryPerf", Fault: &types.SystemError{}, Times: -1}, 4, 1, 50, false},
		{"a VM is gone", sim.Fault{Method: "QueryPerf", Fault: &types.ManagedObjectNotFound{Obj: vms[1]}, Times: 1}, 3, 2, 50, false},
		{"one wrong argument", sim.Fault{Method: "QueryPerf", Fault: &types.InvalidArgument{}, Times: 1}, 4, 3, 50, false},
		{"too large", sim.Fault{Method: "QueryPerf", Fault: &types.RestrictedByAdministrator{}, Times: 1}, 4, 3, 2, false},
		{"always wrong", sim.Fault{Method: "QueryPerf", Fault: &types.InvalidArgument{}}, 0, perfGiveUp + 3, 50, true},
		{"always too large", sim.Fault{Method: "QueryPerf", Fault: &types.SystemError{}}, 0, perfGiveUp + 2, 1, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p.batch = newBatchSize(50)
			if tt.fault.Times >= 0 {
				defer vc.Inject(tt.fault)()
			}
			before := vc.Calls("QueryPerf")
			asks := p.totals.asks(p.tree, f.opts.Clock.Now())
			called, err := p.query(context.Background(), asks, nil)
			var answers []series
			for _, a := range called {
				answers = append(answers, a.series...)
			}
			if (err != nil) != tt.err || len(answers) != tt.want || p.batch.size() != tt.batch {
				t.Errorf("%d answers, batch %d, err %v; want %d, %d, %v", len(answers), p.batch.size(), err, tt.want, tt.batch, tt.err)
			}
			if calls := vc.Calls("QueryPerf") - before; calls != tt.calls {
				t.Errorf("%d calls, want %d", calls, tt.calls)
			}
			if slices.ContainsFunc(answers, func(s series) bool { return len(s.times) == 0 }) {
				t.Error("an answer without samples")
			}
		})
	}
}

// Given are the metrics of a kind that a vCenter has; other platforms have others.
func Given(kind inventory.Kind) (out []inventory.Metric) {
	out = []inventory.Metric{inventory.VMCPUUsage, inventory.VMMemoryUsage, inventory.VMUptime}
	counters := vmCounters[:]
	if kind == inventory.KindHost {
		out = []inventory.Metric{
			inventory.HostCPUUsage, inventory.HostCPUUsageRatio, inventory.HostMemoryUsage, inventory.HostMemoryUsageRatio, inventory.HostUptime,
			inventory.HostCPUContention, inventory.HostCPUContentionMax,
		}
		counters = hostCounters[:]
	}
	for _, c := range counters {
		out = append(out, c.metric)
	}
	return out
}

// TestCollectsWhatIsWanted: what is not of the groups is neither asked for nor emitted, and what is wanted comes whole.
func TestCollectsWhatIsWanted(t *testing.T) {
	for _, tt := range []struct {
		groups             []string
		vm, host, leaves   int // counters, and leaves of quick stats of a VM
		queries, retrieves int
	}{
		{[]string{"disk"}, 5, 5, 0, 2, 0},
		{[]string{"cpu"}, 6, 0, 1, 1, 1},
		{[]string{"uptime"}, 0, 0, 1, 0, 1},
		{[]string{"network", "memory"}, 15, 10, 1, 2, 1},
	} {
		t.Run(strings.Join(tt.groups, " "), func(t *testing.T) {
			f, vc, emitted := listed(t, tt.groups...)
			*emitted = nil
			view, err := createView(t.Context(), f.conn)
			if err != nil {
				t.Fatal(err)
			}
			queries, retrieves := vc.Calls("QueryPerf"), vc.Calls("RetrievePropertiesEx")
			specs := f.usageSpecs()
			if tt.leaves == 0 {
				if err := f.sampleUsage(t.Context(), view); err != nil { // which goes on, were there anything to ask
					t.Fatal(err)
				}
			} else if err := f.usageCycle(t.Context(), view); err != nil {
				t.Fatal(err)
			} else if n := len(specs[len(specs)-1].PathSet); n != tt.leaves {
				t.Errorf("%d leaves, want %d", n, tt.leaves)
			}
			retrieves = vc.Calls("RetrievePropertiesEx") - retrieves
			p := newPerf(f)
			if tt.vm+tt.host == 0 {
				if err := f.samplePerf(t.Context()); err != nil {
					t.Fatal(err)
				}
			} else if err := errors.Join(p.resolve(t.Context()), p.cycle(t.Context(), 0)); err != nil {
				t.Fatal(err)
			}
			if len(p.vms.ids) != tt.vm || len(p.hosts.ids) != tt.host {
				t.Errorf("%d counters of VMs and %d of hosts", len(p.vms.ids), len(p.hosts.ids))
			}
			if n := vc.Calls("QueryPerf") - queries; n != tt.queries || retrieves != tt.retrieves {
				t.Errorf("%d queries and %d retrieves, want %d and %d", n, retrieves, tt.queries, tt.retrieves)
			}
			got := map[inventory.Metric]bool{}
			for _, d := range *emitted {
				for _, set := range d.Samples {
					for _, v := range set.Values {
						got[v.Metric] = true
					}
				}
			}
			for _, kind := range []inventory.Kind{inventory.KindVM, inventory.KindHost} {
				for _, m := range Given(kind) {
					if want := slices.Contains(tt.groups, m.Desc().Group()); got[m] != want {
						t.Errorf("%v: %v, want %v", m, got[m], want)
					}
				}
			}
		})
	}
}
