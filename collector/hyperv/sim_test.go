package hyperv

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/platform/winrm"
	sim "github.com/protip/protip/internal/sim/hyperv"
	"github.com/protip/protip/internal/sim/load"
)

// observer says in the test's log what is wrong.
type observer struct {
	t testing.TB

	mu     sync.Mutex
	faults map[string]int
	said   []string
	over   bool
}

func newObserver(t testing.TB) *observer {
	o := &observer{t: t, faults: map[string]int{}}
	t.Cleanup(func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.over = true
	})
	return o
}

func (o *observer) Call(string)           {}
func (o *observer) Cycle(string, float64) {}

func (o *observer) Fault(kind string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.faults[kind]++; o.faults[kind] < 4 && !o.over {
		o.t.Logf("fault %s: %v", kind, err)
	}
	o.said = append(o.said, kind+": "+err.Error())
}

func (o *observer) count(kind string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.faults[kind]
}

// speed and interval of the tests: a cycle in 0.6 s.
const (
	speed    = 80
	interval = 48 * time.Second
)

// uniform is nodes of some VMs each, vm-NODE-NUMBER.
func uniform(nodes, vms int) (out []sim.Node) {
	for i := range nodes {
		n := sim.Node{Cores: 16, MemoryBytes: 256 << 30}
		for j := range vms {
			name := fmt.Sprintf("vm-%d-%d", i+1, j+1)
			n.VMs = append(n.VMs, sim.VM{
				Name: name, VCPUs: 2, MemoryBytes: 4 << 30, Dynamic: j%2 == 0,
				Guest: sim.Guest{Hostname: name, OS: "Windows Server 2022 Datacenter", IPs: []string{fmt.Sprintf("10.0.%d.%d", i, j+1)}},
			})
		}
		out = append(out, n)
	}
	return out
}

// lab is a simulated cluster and how to log in.
type lab struct {
	*sim.Cluster
	t     testing.TB
	clock *clock.Clock
}

func startLab(t testing.TB, opt sim.Options) *lab {
	t.Helper()
	if opt.Clock == nil {
		opt.Clock = clock.New(speed)
	}
	if opt.Load == nil {
		opt.Load = load.Steady(load.Use{CPU: 0.3, MemoryConsumed: 0.5, DiskRead: 1e6, DiskWritten: 2e6, NetReceived: 3e5, NetTransmitted: 4e5})
	}
	c, err := sim.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &lab{c, t, opt.Clock}
}

func (l *lab) hosts(password string) (out []winrm.Options) {
	logins := &winrm.Logins{}
	for _, n := range l.Nodes() {
		out = append(out, winrm.Options{URL: l.URL(n), Username: sim.DefaultUser + "@example.org", Password: func() (string, error) { return password, nil }, Logins: logins})
	}
	return out
}

func (l *lab) source(o collector.Observer) *Source { return l.sourceAs(o, sim.DefaultPassword) }

func (l *lab) sourceAs(o collector.Observer, password string) *Source {
	l.t.Helper()
	src, err := New(Options{Name: "hv", Hosts: l.hosts(password), Interval: interval, Clock: l.clock, Observer: o})
	if err != nil {
		l.t.Fatal(err)
	}
	return src
}

func vmID(guid string) inventory.ID {
	return inventory.ID{Source: "hv", Kind: inventory.KindVM, Ref: strings.ToLower(guid)}
}

func hostID(name string) inventory.ID {
	return inventory.ID{Source: "hv", Kind: inventory.KindHost, Ref: name}
}
