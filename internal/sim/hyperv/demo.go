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
	Clock *clock.Clock  // default 30 times as fast as real time
	After time.Duration // of real time, until two nodes become hot; default 3 s
}

// Demo is a failover cluster of four nodes in which all is calm at first. Then two are hot for good, whatever the seed, unless VMs are
// moved off them: two busy VMs each make them so. From one of them VMs migrate live. From the other none can, by its group policy:
// they migrate quickly, which takes them down.
type Demo struct {
	Cluster *Cluster
	Node    string    // the hot one whose VMs migrate live
	Live    []string  // GUIDs of its busy VMs
	Stuck   string    // the hot one whose VMs do not
	Quick   []string  // GUIDs of its busy VMs
	From    time.Time // when they become hot, on the demo's clock
}

// Shares of a node's processors: 96 % while the busy two work, as in the demo's vCenters, or 90 % where they do not migrate live, 60 % without them, and about 30 % on the other
// nodes, so that two of the busy fit on any of them.
const (
	demoRest  = 0.60
	demoBusy  = 0.18
	demoSlow  = 0.15 // of those that nothing moves by itself: less of a wait for all the others there
	demoCalm  = 0.30
	demoCores = 32
	heatAfter = 3 * time.Second
)

// NewDemo stages the demo and starts the cluster.
func NewDemo(cfg DemoConfig) (*Demo, error) {
	if cfg.Clock == nil {
		cfg.Clock = clock.New(30)
	}
	if cfg.After <= 0 {
		cfg.After = heatAfter
	}
	rnd := rand.New(rand.NewPCG(cfg.Seed, 0x68797065))
	s := &stage{rnd: rnd, start: cfg.Clock.Now(), busy: map[int]bool{}}
	s.heat = s.start.Add(time.Duration(float64(cfg.After) * cfg.Clock.Speed()))
	hot := rnd.IntN(4)
	stuck := (hot + 1 + rnd.IntN(3)) % 4
	for i := range 4 {
		s.node(i == hot, i == stuck)
	}
	c, err := New(Options{Name: "hv-prod-01", Seed: cfg.Seed, Clock: cfg.Clock, Nodes: s.nodes, Load: load.Func(s.at)})
	if err != nil {
		return nil, fmt.Errorf("stage the demo: %w", err)
	}
	ids := c.VMs()
	d := &Demo{Cluster: c, Node: c.Nodes()[hot], Stuck: c.Nodes()[stuck], From: s.heat}
	for i := range s.busy {
		if c.Truth(ids[i]).Node == d.Stuck {
			d.Quick = append(d.Quick, ids[i])
		} else {
			d.Live = append(d.Live, ids[i])
		}
	}
	return d, nil
}

// Close stops the cluster.
func (d *Demo) Close() { d.Cluster.Close() }

// stage casts the play.
type stage struct {
	rnd         *rand.Rand
	start, heat time.Time
	nodes       []Node
	cpu         []float64 // of each VM's vCPUs
	busy        map[int]bool
}

func (s *stage) node(hot, stuck bool) {
	n := Node{Cores: demoCores, MemoryBytes: 256 << 30}
	target := demoCalm + 0.04*(s.rnd.Float64()-0.5)
	if hot || stuck {
		target = demoRest
		name, busy := "batch", demoBusy
		if stuck {
			name, busy = "legacy-erp", demoSlow
		}
		for i := range 2 {
			s.busy[len(s.cpu)] = true
			n.VMs = append(n.VMs, s.guest(fmt.Sprintf("%s-%02d", name, i+1), 8, 16<<30))
			s.cpu = append(s.cpu, busy*demoCores/8)
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
	for i := range n.VMs {
		if stuck {
			n.VMs[i].LiveFails = LogonTypeNotGranted
		}
	}
	s.nodes = append(s.nodes, n)
}

func (s *stage) guest(name string, vcpus int, memory float64) VM {
	return VM{
		Name: name, VCPUs: vcpus, MemoryBytes: memory, Dynamic: s.rnd.IntN(2) == 0,
		Guest: Guest{Hostname: name, OS: "Windows Server 2022 Datacenter", IPs: []string{fmt.Sprintf("10.30.0.%d", len(s.cpu)+10)}},
	}
}

// at is what a VM demands: its own level with a slow wobble of at most 2.5 %; the busy stand idle before the heat.
func (s *stage) at(vm int, t time.Time) load.Use {
	if vm < 0 || vm >= len(s.cpu) {
		return load.Use{}
	}
	if s.busy[vm] && t.Before(s.heat) {
		return load.Around(vm, 0.01)
	}
	phase := float64(vm)
	wobble := math.Sin(t.Sub(s.start).Minutes()/(7+math.Mod(phase, 5)) + phase)
	return load.Around(vm, s.cpu[vm]*(1+0.025*wobble))
}
