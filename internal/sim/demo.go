package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/sim/load"
)

// DemoConfig describes a demo.
type DemoConfig struct {
	Seed uint64
	// TracePath is a file of measured load that the VMs demand; empty: the load is made.
	TracePath string
	// Clock is the demo's time; default 30 times as fast as real time.
	Clock *clock.Clock
}

// Demo is two vCenters in whose clusters all is calm but for one host: it is calm too for three real seconds, then it is hot
// for good, whatever the seed, unless VMs are moved off it. Two moves bring it and every target well below 70 % of CPU.
type Demo struct {
	A, B *VCenter
	Hot  Hotspot
}

// Hotspot is where the demo heats up.
type Hotspot struct {
	VCenter *VCenter
	Cluster string
	Host    types.ManagedObjectReference
	Busy    []types.ManagedObjectReference // the VMs whose work begins
	From    time.Time                      // on the demo's clock
}

// DemoUser and DemoPassword log in to both vCenters.
const (
	DemoUser     = "protip@vsphere.local"
	DemoPassword = "demo"
)

// heatAfter is how long, in real time, the demo shows a calm fleet.
const heatAfter = 3 * time.Second

// NewDemo stages the demo and starts its vCenters.
func NewDemo(cfg DemoConfig) (*Demo, error) {
	if cfg.Clock == nil {
		cfg.Clock = clock.New(30)
	}
	s := &stage{
		rnd: rand.New(rand.NewPCG(cfg.Seed, 0x70726f)), seed: cfg.Seed,
		start: cfg.Clock.Now(), heat: cfg.Clock.Now().Add(time.Duration(float64(heatAfter) * cfg.Clock.Speed())),
	}
	s.cast = s.madeCast
	if cfg.TracePath != "" {
		if err := s.useTrace(cfg.TracePath); err != nil {
			return nil, err
		}
	}
	sites := []*site{
		{name: "vc-a", place: "muc", clusters: []string{"muc-prod-01", "muc-vdi-01"}},
		{name: "vc-b", place: "fra", clusters: []string{"fra-prod-01"}},
	}
	hot := sites[s.rnd.IntN(len(sites))]
	hot.hotHost = 1 + s.rnd.IntN(hostsPerCluster)
	var started []*VCenter
	for _, site := range sites {
		vc, err := s.open(site, cfg.Clock)
		if err != nil {
			for _, other := range started {
				other.Close()
			}
			return nil, err
		}
		started = append(started, vc)
	}
	d := &Demo{A: started[0], B: started[1]}
	d.Hot = Hotspot{VCenter: d.A, Cluster: hot.clusters[0], From: s.heat}
	if hot == sites[1] {
		d.Hot.VCenter = d.B
	}
	d.Hot.Host = d.Hot.VCenter.Hosts()[hot.hotHost-1]
	vms := d.Hot.VCenter.VMs()
	for _, i := range hot.busy {
		d.Hot.Busy = append(d.Hot.Busy, vms[i])
	}
	return d, nil
}

// Close stops both vCenters.
func (d *Demo) Close() {
	d.A.Close()
	d.B.Close()
}

const (
	hostsPerCluster = 4
	coolHosts       = 3*hostsPerCluster - 2 // all but the hot one and the one in maintenance
	demoCores       = 32
	demoMHz         = 2600
	demoMemory      = 512 << 30
)

// site is one vCenter of the demo. Its first cluster is where things happen: DRS only advises there.
type site struct {
	name, place string
	clusters    []string
	hotHost     int // of the first cluster, counted from 1; 0: none
	guests      []guest
	busy        []int // indexes of the VMs that heat the hot host
}

// guest is a VM's part in the play.
type guest struct {
	vcpus  int
	memory float64
	cpu    float64 // of its vCPUs; when the load is made
	column int     // of the trace; when it is not
	busy   bool    // idle until the heat begins
	idle   bool    // never asks for anything: off, or a template
}

// stage casts the play.
type stage struct {
	rnd   *rand.Rand
	seed  uint64
	start time.Time
	heat  time.Time
	trace load.Load // the window of the trace that is played, nil if the load is made
	cast  func(hot bool) []guest
}

// Shares of a host's CPU. Two busy VMs make the hot host hot; without them it is as calm as with them idle.
const (
	hotRest   = 0.60
	hotBusy   = 0.18
	coolShare = 0.38
)

func (s *stage) open(site *site, c *clock.Clock) (*VCenter, error) {
	cfg := Config{Name: site.name, User: DemoUser, Password: DemoPassword, Clock: c}
	names := newNames(s.rnd, site.place)
	for n, name := range site.clusters {
		cfg.Clusters = append(cfg.Clusters, s.cluster(site, n, name, names))
	}
	cfg.Load = s.loadOf(site)
	return StartVCenter(cfg)
}

func (s *stage) cluster(site *site, n int, name string, names *names) Cluster {
	c := Cluster{
		Name: name, DRS: DRS{Enabled: true, Behavior: types.DrsBehaviorManual},
		HA: HA{Enabled: true, AdmissionControl: true, Policy: percentPolicy(25)},
	}
	if n > 0 {
		c.DRS.Behavior = types.DrsBehaviorFullyAutomated
	}
	for i := range hostsPerCluster {
		host := Host{
			Name:  fmt.Sprintf("esx%02d.%s.example.org", n*hostsPerCluster+i+1, site.place),
			Cores: demoCores, MHz: demoMHz, MemoryBytes: demoMemory,
		}
		if n > 0 && i == hostsPerCluster-1 {
			host.Maintenance = true
			c.Hosts = append(c.Hosts, host)
			continue
		}
		guests := s.cast(n == 0 && i+1 == site.hotHost)
		if i == 0 {
			guests = append(guests, guest{vcpus: 2, memory: 8 << 30, idle: true}, guest{vcpus: 4, memory: 16 << 30, idle: true})
		}
		for j, g := range guests {
			vm := names.next()
			vm.VCPUs, vm.MemoryBytes = g.vcpus, g.memory
			if g.idle && j == len(guests)-1 {
				vm.Name, vm.Template = "tpl-ubuntu-24.04", true
			} else if g.idle {
				vm.Off = true
			}
			if g.busy {
				site.busy = append(site.busy, len(site.guests))
				vm.Name = names.batch()
			}
			site.guests = append(site.guests, g)
			host.VMs = append(host.VMs, vm)
		}
		c.Hosts = append(c.Hosts, host)
	}
	c.Rules = []Rule{{Name: "domain controllers apart", Apart: true}}
	for i := range 2 {
		vms := c.Hosts[i].VMs
		scheme := func(vm VM) bool {
			return strings.HasPrefix(vm.Name, site.place+"-") && !strings.Contains(vm.Name, "batch")
		}
		dc := &vms[slices.IndexFunc(vms, scheme)]
		dc.Name = fmt.Sprintf("%s-dc-%02d", name, i+1)
		c.Rules[0].VMs = append(c.Rules[0].VMs, dc.Name)
	}
	return c
}

// loadOf is the demand of a site's guests: the trace's, or their own level with a slow wobble of at most 2.5 %.
func (s *stage) loadOf(site *site) load.Load {
	until := map[int]time.Time{}
	columns := make([]int, len(site.guests))
	for i, g := range site.guests {
		columns[i] = g.column
		if g.idle {
			columns[i] = -1
		}
		if g.busy {
			until[i] = s.heat
		}
	}
	if s.trace != nil {
		return load.HoldIdle(load.Pick(s.trace, columns), until)
	}
	guests := site.guests
	made := load.Func(func(vm int, t time.Time) load.Use {
		if vm >= len(guests) || guests[vm].idle {
			return load.Use{}
		}
		phase := float64(vm) + float64(s.seed%97)
		wobble := math.Sin(t.Sub(s.start).Minutes()/(7+math.Mod(phase, 5)) + phase)
		return load.Around(vm, guests[vm].cpu*(1+0.025*wobble))
	})
	return load.HoldIdle(made, until)
}

// madeCast makes up a host's guests: their shares of the host add up to what it should ask for.
func (s *stage) madeCast(hot bool) []guest {
	var guests []guest
	target := coolShare + 0.04*(s.rnd.Float64()-0.5)
	if hot {
		target = hotRest
		for range 2 {
			guests = append(guests, guest{vcpus: 8, memory: 32 << 30, cpu: hotBusy * demoCores / 8, busy: true})
		}
	}
	weights, sum := make([]float64, 9+s.rnd.IntN(4)), 0.0
	for i := range weights {
		weights[i] = 1 + 0.5*s.rnd.Float64()
		sum += weights[i]
	}
	for _, w := range weights {
		g := guest{vcpus: 4, memory: float64(int64(8<<s.rnd.IntN(2)) << 30)}
		g.cpu = target * w / sum * demoCores / float64(g.vcpus)
		guests = append(guests, g)
	}
	return guests
}
