package placement

import (
	"fmt"
	"testing"
	"time"

	"github.com/protip/protip/internal/inventory"
)

const (
	gib = 1 << 30
	ghz = 1e9
)

func id(kind inventory.Kind, ref string) inventory.ID {
	return inventory.ID{Source: "vc", Kind: kind, Ref: ref}
}

func hostID(name string) inventory.ID { return id(inventory.KindHost, name) }
func vmID(name string) inventory.ID   { return id(inventory.KindVM, name) }
func dsID(name string) inventory.ID   { return id(inventory.KindDatastore, name) }
func netID(name string) inventory.ID  { return id(inventory.KindNetwork, name) }

var clusterID = id(inventory.KindCluster, "prod")

// testFleet is a source vc with the cluster prod, to which hosts of 10 cores, 40 GHz and 100 GiB are added.
type testFleet struct {
	source  inventory.Source
	down    bool
	delta   inventory.Delta
	samples map[inventory.ID]map[inventory.Metric]float64
}

func newFleet(rules ...inventory.Rule) *testFleet {
	return &testFleet{
		source:  inventory.Source{Name: "vc", Interval: 20 * time.Second},
		delta:   inventory.Delta{Source: "vc", Begin: true, Synced: true, Clusters: []inventory.Cluster{{ID: clusterID, Name: "prod", Rules: rules}}},
		samples: map[inventory.ID]map[inventory.Metric]float64{},
	}
}

// host adds one that measures the given load, which should be that of its VMs and what it needs itself.
func (f *testFleet) host(name string, cpuGHz, memoryGiB float64, change ...func(*inventory.Host)) *testFleet {
	h := inventory.Host{
		ID: hostID(name), Name: name, Cluster: clusterID, Connection: inventory.Connected, Power: inventory.PowerOn,
		Cores: 10, CPUHertz: 40 * ghz, MemoryBytes: 100 * gib,
	}
	for _, c := range change {
		c(&h)
	}
	f.delta.Hosts = append(f.delta.Hosts, h)
	f.samples[h.ID] = map[inventory.Metric]float64{inventory.HostCPUUsage: cpuGHz * ghz, inventory.HostMemoryUsage: memoryGiB * gib}
	return f
}

// vm adds one of 4 vCPUs and 16 GiB that uses what is given and is not kept waiting.
func (f *testFleet) vm(name, host string, cpuGHz, memoryGiB float64, change ...func(*inventory.VM)) *testFleet {
	v := inventory.VM{
		ID: vmID(name), Name: name, Host: hostID(host), Connection: inventory.Connected, Power: inventory.PowerOn,
		VCPUs: 4, MemoryBytes: 16 * gib,
	}
	for _, c := range change {
		c(&v)
	}
	f.delta.VMs = append(f.delta.VMs, v)
	f.samples[v.ID] = map[inventory.Metric]float64{inventory.VMCPUUsage: cpuGHz * ghz, inventory.VMMemoryUsage: memoryGiB * gib, inventory.VMCPUContention: 0}
	return f
}

// tie adds a rule between VMs and hosts.
func (f *testFleet) tie(r inventory.HostRule) *testFleet {
	f.delta.Clusters[0].HostRules = append(f.delta.Clusters[0].HostRules, r)
	return f
}

// store adds a datastore.
func (f *testFleet) store(name string, mounts map[inventory.ID]inventory.Mount) *testFleet {
	f.delta.Datastores = append(f.delta.Datastores, inventory.Datastore{ID: dsID(name), Name: name, Accessible: true, Mounts: mounts})
	return f
}

// nets adds networks.
func (f *testFleet) nets(names ...string) *testFleet {
	for _, n := range names {
		f.delta.Networks = append(f.delta.Networks, inventory.Network{ID: netID(n), Name: n})
	}
	return f
}

// having makes networks, maybe none, known of a host.
func having(names ...string) func(*inventory.Host) {
	return func(h *inventory.Host) { h.Networks = netIDs(names) }
}

// attached attaches a VM to networks.
func attached(names ...string) func(*inventory.VM) {
	return func(v *inventory.VM) { v.Networks = netIDs(names) }
}

func netIDs(names []string) []inventory.ID {
	ids := []inventory.ID{}
	for _, n := range names {
		ids = append(ids, netID(n))
	}
	return ids
}

// sets replaces a sample; a NaN was never seen.
func (f *testFleet) sets(id inventory.ID, m inventory.Metric, value float64) *testFleet {
	f.samples[id][m] = value
	return f
}

func (f *testFleet) snapshot() *inventory.Snapshot {
	now := time.Unix(1000, 0)
	fleet := inventory.NewFleet(f.source)
	for id, values := range f.samples {
		set := inventory.SampleSet{ID: id, At: now.UnixMilli()}
		for m, v := range values {
			set.Values = append(set.Values, inventory.Value{Metric: m, Value: v})
		}
		f.delta.Samples = append(f.delta.Samples, set)
	}
	if _, err := fleet.Apply(f.delta, now); err != nil {
		panic(err)
	}
	if f.down {
		fleet.Down("vc", fmt.Errorf("connection refused"))
	}
	return fleet.Snapshot()
}

func rating(t *testing.T, ratings []Rating, host string) Rating {
	t.Helper()
	r, ok := Of(ratings, hostID(host))
	if !ok {
		t.Fatalf("no rating of %s", host)
	}
	return r
}
