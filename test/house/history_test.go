package house

import (
	"fmt"
	"log/slog"
	"maps"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/protip/protip/collector/exposition"
	"github.com/protip/protip/internal/history/promql"
	"github.com/protip/protip/internal/history/tsdb"
	"github.com/protip/protip/internal/inventory"
)

// TestHistoryIsWhatIsExposed holds that a series of the embedded history has the labels and the value that it has on /metrics: rules
// must not tell whether their history was scraped.
func TestHistoryIsWhatIsExposed(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	fleet := everything(t, now)
	known := tsdb.Known()
	kept, err := tsdb.Open(tsdb.Options{
		Dir: t.TempDir(), Retention: 24 * time.Hour, RollupRetention: 24 * time.Hour, Families: known,
		Limits: promql.DefaultLimits(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	if err := kept.Append(fleet.Snapshot(), now); err != nil {
		t.Fatal(err)
	}
	v, err := kept.Query(t.Context(), `{__name__!=""}`, now)
	if err != nil {
		t.Fatal(err)
	}
	in := map[string]bool{}
	for _, s := range v {
		var ls []string
		for _, l := range s.Labels {
			ls = append(ls, fmt.Sprintf("%s=%q", l.Name, l.Value))
		}
		in[fmt.Sprint(ls, s.Value)] = true
	}

	w := httptest.NewRecorder()
	exposition.New(fleet.Snapshot, prometheus.NewRegistry(), slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range known {
		if families[name] == nil {
			t.Errorf("%s is kept and not exposed", name)
			continue
		}
		for _, m := range families[name].Metric {
			ls := []string{fmt.Sprintf("%s=%q", model.MetricNameLabel, name)}
			for _, l := range m.Label {
				if l.GetValue() != "" {
					ls = append(ls, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
				}
			}
			slices.Sort(ls)
			line := fmt.Sprint(ls, m.GetGauge().GetValue()+m.GetCounter().GetValue())
			if !in[line] {
				t.Errorf("exposed and not kept: %s", line)
			}
			delete(in, line)
		}
	}
	for _, line := range slices.Sorted(maps.Keys(in)) {
		t.Errorf("kept and not exposed: %s", line)
	}
}

// everything is a fleet of which every family has a series.
func everything(t *testing.T, now time.Time) *inventory.Fleet {
	t.Helper()
	f := inventory.NewFleet(
		inventory.Source{Name: "lab", Platform: "vsphere", Interval: 20 * time.Second}, inventory.Source{Name: "new", Interval: time.Second},
	)
	id := func(kind inventory.Kind, ref string) inventory.ID {
		return inventory.ID{Source: "lab", Kind: kind, Ref: ref}
	}
	pool := id(inventory.KindResourcePool, "p")
	cluster, host, vm := id(inventory.KindCluster, "c"), id(inventory.KindHost, "h"), id(inventory.KindVM, "v")
	d := inventory.Delta{
		Source: "lab", Begin: true, Synced: true,
		Clusters: []inventory.Cluster{{
			ID: cluster, Name: "Berlin \"1\"", EVC: "intel", HA: inventory.HA{Enabled: true, AdmissionControl: true, Policy: "percentage", HostFailures: 1},
			DRS:       inventory.DRS{Enabled: true, Automation: inventory.AutomationManual},
			Admission: inventory.Admission{ReservedCPU: 0.25, ReservedMemory: 0.3},
		}, {ID: id(inventory.KindCluster, "u"), Name: "unread", Unread: true}},
		Hosts: []inventory.Host{{
			ID: host, Name: "esx1", Cluster: cluster, UUID: "u", Connection: inventory.Connected, Power: inventory.PowerOn, Cores: 16,
			CPUHertz: 4e10, MemoryBytes: 1 << 36, Model: "R740", CPUModel: "Xeon", Version: "8", EVC: "a", MaxEVC: "b",
		}, {ID: id(inventory.KindHost, "i"), Name: "esx2", Power: inventory.PowerUnknown, Maintenance: true}},
		VMs: []inventory.VM{
			{
				ID: vm, Name: "web\xff", UUID: "u", Host: host, Pool: pool, Connection: inventory.Connected, Power: inventory.PowerOn, VCPUs: 4, MemoryBytes: 1 << 33, GuestOS: "Debian\n",
				CPUReservationHertz: 1e9, MemoryReservationBytes: 1 << 30,
				Annotations: []inventory.Label{{Name: "owner", Value: "a"}, {Name: "cost", Value: ""}}, Tags: []inventory.Tag{{Category: "env", Name: "prod"}, {Category: "env", Name: "x"}},
			},
			{ID: id(inventory.KindVM, "w"), Name: "web", Host: id(inventory.KindHost, "gone"), Pool: id(inventory.KindResourcePool, "gone"), Template: true},
		},
		Datastores: []inventory.Datastore{{ID: id(inventory.KindDatastore, "d"), Name: "san", Type: "VMFS", CapacityBytes: 1 << 44, Accessible: true}},
		Pools:      []inventory.ResourcePool{{ID: pool, Name: "gold", Cluster: cluster}},
		Services: []inventory.Service{
			{ID: id(inventory.KindService, "s"), Name: "nginx", VM: vm, Type: "systemd", State: inventory.ServiceRunning},
			{ID: id(inventory.KindService, "t"), Name: "http", State: ""},
		},
		Machines: []inventory.Machine{
			{ID: id(inventory.KindMachine, "m"), Name: "erp", UUID: "u", Model: "Dell R640", OS: "Debian", CPUs: 16, MemoryBytes: 1 << 36, VM: vm},
			{ID: id(inventory.KindMachine, "n"), Name: "silent"},
		},
	}
	for _, of := range []inventory.ID{cluster, host, vm, d.Datastores[0].ID, d.Services[0].ID, d.Machines[0].ID} {
		set := inventory.SampleSet{ID: of, At: now.UnixMilli()}
		for i, m := range inventory.MetricsOf(of.Kind) {
			set.Values = append(set.Values, inventory.Value{Metric: m, Value: float64(i) / 3})
		}
		d.Samples = append(d.Samples, set)
	}
	if _, err := f.Apply(d, now); err != nil {
		t.Fatal(err)
	}
	return f
}
