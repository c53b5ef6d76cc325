package hyperv

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/sim/load"
)

// DemoConfig describes a demo.
type DemoConfig struct {
	Seed  uint64
	Clock *clock.Clock // default 30 times as fast as real time
}

// Demo is a failover cluster of four nodes in which all is calm but for one: it is calm too for three real seconds, then it is
// hot for good, whatever the seed, unless VMs are moved off it. Two VMs make it so. One of them migrates live. The other cannot:
// it migrates quickly, which takes it down.
type Demo struct {
	Cluster *Cluster
	Node    string    // the hot one
	Live    string    // GUID of the busy VM that migrates live
	Quick   string    // GUID of the busy VM that does not
	From    time.Time // when it becomes hot, on the demo's clock
}

// Shares of a node's processors, as in the demo's vCenters: 96 % while the busy two work, 60 % without them, and about 38 % on
// the other nodes, so that each of the two fits on any of them.
const (
	demoRest  = 0.60
	demoBusy  = 0.18
	demoCalm  = 0.38
	demoCores = 32
	heatAfter = 3 * time.Second // of real time
)

// NewDemo stages the demo and starts the cluster.
func NewDemo(cfg DemoConfig) (*Demo, error) {
	if cfg.Clock == nil {
		cfg.Clock = clock.New(30)
	}
	rnd := rand.New(rand.NewPCG(cfg.Seed, 0x68797065))
	s := &stage{rnd: rnd, start: cfg.Clock.Now()}
	s.heat = s.start.Add(time.Duration(float64(heatAfter) * cfg.Clock.Speed()))
	hot := rnd.IntN(4)
	for i := range 4 {
		s.node(i == hot)
	}
	c, err := New(Options{Name: "hv-prod-01", Seed: cfg.Seed, Clock: cfg.Clock, Nodes: s.nodes, Load: load.Func(s.at)})
	if err != nil {
		return nil, fmt.Errorf("stage the demo: %w", err)
	}
	ids := c.VMs()
	return &Demo{Cluster: c, Node: c.Nodes()[hot], Live: ids[s.busy], Quick: ids[s.busy+1], From: s.heat}, nil
}

// Close stops the cluster.
func (d *Demo) Close() { d.Cluster.Close() }

// stage casts the play.
type stage struct {
	rnd         *rand.Rand
	start, heat time.Time
	nodes       []Node
	cpu         []float64 // of each VM's vCPUs
	busy        int       // index of the first of the busy two
}

func (s *stage) node(hot bool) {
	n := Node{Cores: demoCores, MemoryBytes: 256 << 30}
	target := demoCalm + 0.04*(s.rnd.Float64()-0.5)
	if hot {
		target = demoRest
		s.busy = len(s.cpu)
		for i, name := range []string{"batch", "legacy-erp"} {
			vm := s.guest(fmt.Sprintf("%s-%02d", name, i+1), 8, 16<<30)
			if i == 1 {
				vm.LiveFails, vm.Dynamic = LogonTypeNotGranted, false
			}
			n.VMs = append(n.VMs, vm)
			s.cpu = append(s.cpu, demoBusy*demoCores/8)
		}
	}
	weights, sum := make([]float64, 8+s.rnd.IntN(4)), 0.0
	for i := range weights {
		weights[i] = 1 + 0.5*s.rnd.Float64()
		sum += weights[i]
	}
	roles := []string{"web", "app", "sql", "file", "print", "dc", "build", "proxy"}
	for _, w := range weights {
		name := fmt.Sprintf("%s-%02d", roles[s.rnd.IntN(len(roles))], len(s.cpu)+1)
		n.VMs = append(n.VMs, s.guest(name, 4, float64(int64(4<<s.rnd.IntN(2))<<30)))
		s.cpu = append(s.cpu, target*w/sum*demoCores/4)
	}
	s.nodes = append(s.nodes, n)
}

func (s *stage) guest(name string, vcpus int, memory float64) VM {
	return VM{
		Name: name, VCPUs: vcpus, MemoryBytes: memory, Dynamic: s.rnd.IntN(2) == 0,
		Guest: Guest{Hostname: name, OS: "Windows Server 2022 Datacenter", IPs: []string{fmt.Sprintf("10.30.0.%d", len(s.cpu)+10)}},
	}
}

// at is what a VM demands: its own level with a slow wobble of at most 2.5 %; the busy two stand idle before the heat.
func (s *stage) at(vm int, t time.Time) load.Use {
	if vm < 0 || vm >= len(s.cpu) {
		return load.Use{}
	}
	if (vm == s.busy || vm == s.busy+1) && t.Before(s.heat) {
		return load.Around(vm, 0.01)
	}
	phase := float64(vm)
	wobble := math.Sin(t.Sub(s.start).Minutes()/(7+math.Mod(phase, 5)) + phase)
	return load.Around(vm, s.cpu[vm]*(1+0.025*wobble))
}
