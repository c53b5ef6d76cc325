package hyperv

import (
	"testing"
	"time"

	"github.com/protip/protip/collector/collectortest"
	"github.com/protip/protip/internal/inventory"
	sim "github.com/protip/protip/internal/sim/hyperv"
)

// control is the lab for the conformance suite.
type control struct{ *lab }

var _ collectortest.Control = (*control)(nil)

func (c *control) CreateVM(name string) inventory.ID {
	id, err := c.Cluster.CreateVM(c.Nodes()[0], sim.VM{Name: name, VCPUs: 2, MemoryBytes: 1 << 30})
	if err != nil {
		c.t.Fatal(err)
	}
	return vmID(id)
}

func (c *control) DestroyVM(id inventory.ID) {
	if err := c.Cluster.DestroyVM(id.Ref); err != nil {
		c.t.Fatal(err)
	}
}

// MoveVM migrates live, as others do, and waits for the end.
func (c *control) MoveVM(vm, to inventory.ID) {
	if err := c.Move(vm.Ref, to.Ref, true); err != nil {
		c.t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if truth := c.Truth(vm.Ref); !truth.Moving && truth.Node == to.Ref {
			return
		}
		if time.Now().After(end) {
			c.t.Fatalf("%v does not arrive on %v", vm, to)
		}
	}
}

func (c *control) Start() {
	if err := c.Cluster.Start(); err != nil {
		c.t.Fatal(err)
	}
}

func (c *control) LogIns() int     { return c.Logins() + c.Refused() }
func (c *control) OpenLogIns() int { return c.OpenLogins() }

func TestConformance(t *testing.T) {
	collectortest.Run(t, func(t *testing.T) collectortest.Fixture {
		l := startLab(t, sim.Options{Nodes: uniform(2, 3), MigrationTime: func(float64) time.Duration { return 60 * time.Second }})
		o := newObserver(t)
		return collectortest.Fixture{
			Name: "hv", Interval: interval, Clock: l.clock, Source: l.source(o), Refused: l.sourceAs(o, "wrong"), Control: &control{l},
		}
	})
}
