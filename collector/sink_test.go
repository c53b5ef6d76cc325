package collector

import (
	"testing"

	"github.com/protip/protip/internal/inventory"
)

type lastSink struct {
	Sink
	delta inventory.Delta
}

func (s *lastSink) Apply(d inventory.Delta) { s.delta = d }

func TestOnly(t *testing.T) {
	id := inventory.ID{Source: "a", Kind: inventory.KindVM, Ref: "1"}
	sets := func() []inventory.SampleSet {
		return []inventory.SampleSet{
			{ID: id, At: 1, Values: []inventory.Value{{Metric: inventory.VMCPUUsage, Value: 1}, {Metric: inventory.VMDiskRead, Value: 2}}},
			{ID: id, At: 2, Values: []inventory.Value{{Metric: inventory.VMUptime, Value: 3}}},
		}
	}
	for _, tt := range []struct {
		name      string
		groups    []string
		sets, all int
	}{
		{"all", nil, 2, 3},
		{"one", []string{"disk"}, 1, 1},
		{"none", []string{}, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			last := &lastSink{}
			Only(last, inventory.OfGroups(tt.groups)).Apply(inventory.Delta{Source: "a", VMs: []inventory.VM{{ID: id}}, Samples: sets()})
			n := 0
			for _, set := range last.delta.Samples {
				n += len(set.Values)
			}
			if len(last.delta.Samples) != tt.sets || n != tt.all || len(last.delta.VMs) != 1 {
				t.Errorf("%d sets of %d values and %d VMs", len(last.delta.Samples), n, len(last.delta.VMs))
			}
		})
	}
}
