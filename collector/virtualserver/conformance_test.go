package virtualserver

import (
	"strings"
	"testing"
	"time"

	"github.com/protip/protip/collector/collectortest"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/platform/winrm"
	sim "github.com/protip/protip/internal/sim/hyperv"
	"github.com/protip/protip/internal/sim/load"
)

type observer struct{ t testing.TB }

func (observer) Call(string)           {}
func (observer) Cycle(string, float64) {}
func (observer) Fault(string, error)   {}

// control is two hosts for the conformance suite.
type control struct {
	t     *testing.T
	hosts []*sim.VirtualServer
	guids map[inventory.ID]string
}

var _ collectortest.Control = (*control)(nil)

func (c *control) CreateVM(name string) inventory.ID {
	h := c.hosts[0]
	guid, err := h.Host().CreateVM(h.Name(), sim.VM{Name: name, VCPUs: 1, MemoryBytes: 1 << 30})
	if err != nil {
		c.t.Fatal(err)
	}
	id := inventory.ID{Source: "vs", Kind: inventory.KindVM, Ref: strings.ToLower(h.Name()) + "/" + name}
	c.guids[id] = guid
	return id
}

func (c *control) DestroyVM(id inventory.ID) {
	if err := c.hosts[0].Host().DestroyVM(c.guids[id]); err != nil {
		c.t.Fatal(err)
	}
}

func (c *control) MoveVM(inventory.ID, inventory.ID) { c.t.Fatal("nothing moves") }

func (c *control) each(f func(*sim.Cluster)) {
	for _, h := range c.hosts {
		f(h.Host())
	}
}

func (c *control) Stop() { c.each((*sim.Cluster).Stop) }
func (c *control) Start() {
	c.each(func(h *sim.Cluster) {
		if err := h.Start(); err != nil {
			c.t.Fatal(err)
		}
	})
}
func (c *control) ForgetLogins() { c.each((*sim.Cluster).ForgetLogins) }

func (c *control) LogIns() (n int) {
	c.each(func(h *sim.Cluster) { n += h.Logins() + h.Refused() })
	return n
}

func (c *control) OpenLogIns() (n int) {
	c.each(func(h *sim.Cluster) { n += h.OpenLogins() })
	return n
}

func TestConformance(t *testing.T) {
	collectortest.Run(t, func(t *testing.T) collectortest.Fixture {
		const interval = 48 * time.Second
		c, clk := &control{t: t, guids: map[inventory.ID]string{}}, clock.New(80)
		logins := [2]*winrm.Logins{{}, {}}
		var sets [2][]winrm.Options
		for _, name := range []string{"vs-01", "vs-02"} {
			h, err := sim.NewVirtualServer(sim.VirtualServerOptions{
				Name: name, Clock: clk, Load: load.Steady(load.Use{CPU: 0.4, MemoryConsumed: 0.5}),
				VMs: []sim.VM{{Name: "nt4", MemoryBytes: 1 << 30, Guest: sim.Guest{Hostname: "nt4"}}, {Name: "w2k", MemoryBytes: 1 << 30}, {Name: "off", MemoryBytes: 1 << 30, Off: true}},
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(h.Close)
			c.hosts = append(c.hosts, h)
			for i, password := range []string{sim.DefaultPassword, "wrong"} {
				sets[i] = append(sets[i], winrm.Options{URL: h.URL(), Username: "protip@example.org", Password: func() (string, error) { return password, nil }, Logins: logins[i]})
			}
		}
		source := func(hosts []winrm.Options) *Source {
			src, err := New(Options{Name: "vs", Hosts: hosts, Interval: interval, Clock: clk, Observer: observer{t}})
			if err != nil {
				t.Fatal(err)
			}
			return src
		}
		return collectortest.Fixture{Name: "vs", Interval: interval, Clock: clk, Source: source(sets[0]), Refused: source(sets[1]), Control: c, Immovable: true}
	})
}
