package hyperv

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/platform/winrm"
)

// cycle is one look at one host.
//
//	VMs -> the cluster's state, if it is this host's turn -> counters -> facts that are due -> whether VMs could move -> the cluster
//
// The first look begins with all the facts. Only the VMs must be answered for; all else that is wrong with a class costs its metrics.
type cycle struct {
	*watch
	node  *node
	at    time.Time // of its samples
	asked uint64    // messages sent to the host before it
	read  reading
}

// reading is what a host answered in one look. What it did not answer is nil.
type reading struct {
	vms     map[string]*view  // by GUID
	byName  map[string]string // GUIDs; "" where two have one name
	system  *system
	logical *winrm.Sample
	root    *winrm.Sample
	virtual map[string]*processors // by GUID, as the next two
	demand  map[string]float64     // bytes
	traffic map[string][]device    // disks and network adapters
	balance *float64               // pressure, 1 being all that is assigned
}

// maxRows bounds what one class may tell.
const maxRows = 1 << 16

// left is how many messages there is room for.
func (c *cycle) left() int { return requestsPerCycle - int(c.node.client.Traffic().Requests-c.asked) }

func (c *cycle) fault(kind string, err error) {
	c.opts.Observer.Fault(kind, fmt.Errorf("host %s: %w", c.node.addr, err))
}

func (c *cycle) run(ctx context.Context) error {
	n := c.node
	first := !n.known
	if first {
		if err := c.learn(ctx, true); err != nil {
			return err
		}
		if n.computer.ref == "" {
			return fmt.Errorf("host %s: it does not tell its name", n.addr)
		}
		n.known = true
	}
	if err := c.vms(ctx); err != nil {
		return err
	}
	if err := c.turn(ctx); err != nil {
		return err
	}
	c.at = c.opts.Clock.Now()
	for _, read := range []func(context.Context) error{c.host, c.processors, c.dynamic, c.disks, c.adapters} {
		if err := read(ctx); err != nil {
			return err
		}
	}
	if !first {
		if err := c.learnCluster(ctx); err != nil {
			return err
		}
		if err := c.learn(ctx, false); err != nil {
			return err
		}
		if err := c.migratable(ctx); err != nil {
			return err
		}
	}
	var refused error
	c.change(func(cl *cluster) []inventory.SampleSet {
		var samples []inventory.SampleSet
		samples, refused = cl.install(c)
		return samples
	})
	return refused
}

// all is every row of a query, nil and no error if its class is at fault.
func (c *cycle) all(ctx context.Context, q *query) (rows []winrm.Instance, ok bool, err error) {
	ok, err = c.ask(ctx, q, func(i winrm.Instance) {
		rows = append(rows, i)
	})
	if !ok {
		rows = nil
	}
	return rows, ok, err
}

// one is the only row of a query.
func (c *cycle) one(ctx context.Context, q *query) (row winrm.Instance, ok bool, err error) {
	rows, ok, err := c.all(ctx, q)
	if len(rows) == 0 {
		return winrm.Instance{}, false, err
	}
	return rows[0], ok, err
}

// vms asks which VMs there are. Without an answer the host has failed: there must not seem to be none.
func (c *cycle) vms(ctx context.Context) error {
	n := c.node
	rows, ok, err := c.all(ctx, qSummary)
	if err != nil {
		return err
	}
	n.fallback = !ok
	if !ok {
		if rows, ok, err = c.all(ctx, qComputers); err != nil {
			return err
		}
	}
	if !ok {
		return fmt.Errorf("host %s: it tells no VMs", n.addr)
	}
	c.read.vms = make(map[string]*view, len(rows))
	for _, r := range rows {
		id := guid(r.Text("Name"))
		state, stated := r.Uint("EnabledState")
		if id == "" || !stated || len(c.read.vms) >= maxVMs {
			continue // the host itself is among Msvm_ComputerSystem
		}
		v := &view{name: strings.Clone(r.Text("ElementName")), state: state, vcpus: number(r, "NumberOfProcessors"), memory: scaled(r, "MemoryUsage", mega), at: c.at}
		v.health, _ = r.Uint("HealthState")
		v.os = strings.Clone(r.Text("GuestOperatingSystem"))
		if v.uptime = scaled(r, "UpTime", 1e-3); v.uptime == nil {
			v.uptime = scaled(r, "OnTimeInMilliseconds", 1e-3)
		}
		if beat, ok := r.Uint("Heartbeat"); ok {
			v.heartbeat = &beat
		}
		c.read.vms[id] = v
	}
	return nil
}

// system is what the operating system tells of itself.
type system struct {
	free    *float64 // bytes
	uptime  *float64 // seconds, by its own clock
	version string
}

// host asks for what is measured of the host.
func (c *cycle) host(ctx context.Context) error {
	row, ok, err := c.one(ctx, qSystem)
	if err != nil {
		return err
	}
	if ok {
		s := &system{free: scaled(row, "FreePhysicalMemory", 1024), version: strings.TrimSpace(row.Text("Caption") + " " + row.Text("Version"))}
		s.version = strings.Clone(s.version)
		now, err := timeOf(row, "LocalDateTime")
		boot, err2 := timeOf(row, "LastBootUpTime")
		if up := now.Sub(boot).Seconds(); err == nil && err2 == nil && up >= 0 {
			s.uptime = &up
		}
		c.read.system = s
	}
	for _, counter := range []struct {
		query *query
		into  **winrm.Sample
	}{{qLogical, &c.read.logical}, {qRoot, &c.read.root}} {
		row, ok, err := c.one(ctx, counter.query)
		if err != nil {
			return err
		}
		if s, has := sample(row, "PercentTotalRunTime"); ok && has {
			*counter.into = &s
		}
	}
	row, ok, err = c.one(ctx, qBalancer)
	if ok {
		c.read.balance = scaled(row, "AveragePressure", 0.01)
	}
	return err
}

// processors are the counters of a VM's virtual processors, added up.
type processors struct {
	run, wait   uint64 // 100 ns, ns
	runs, waits int
	base        uint64 // 100 ns: the newest of them
}

func (c *cycle) processors(ctx context.Context) error {
	c.read.byName = c.counted()
	byName := c.read.byName
	sums := make(map[string]*processors, len(byName))
	ok, err := c.ask(ctx, qVirtual, func(r winrm.Instance) {
		instance := r.Text("Name")
		i := strings.LastIndex(instance, ":Hv VP ")
		if i < 0 {
			return // the sum of all
		}
		id := byName[counterName(instance[:i])]
		if id == "" {
			return
		}
		p := sums[id]
		if p == nil {
			p = &processors{}
			sums[id] = p
		}
		if s, ok := sample(r, "PercentTotalRunTime"); ok {
			p.run, p.base, p.runs = p.run+s.Value, max(p.base, s.Base), p.runs+1
		}
		if wait, ok := r.Uint("CPUWaitTimePerDispatch"); ok {
			p.wait, p.waits = p.wait+wait, p.waits+1
		}
	})
	if ok {
		c.read.virtual = sums
	}
	return err
}

// counted are the VMs that counters name, by what they call them. Counters know no GUID: of two VMs of one name nobody can say whose
// a counter is, and neither has it.
func (c *cycle) counted() map[string]string {
	byName := make(map[string]string, len(c.read.vms))
	for _, id := range slices.Sorted(maps.Keys(c.read.vms)) {
		name := counterName(c.read.vms[id].name)
		other, taken := byName[name]
		if taken {
			c.fault("ambiguous", fmt.Errorf("VM %s has the name %q, which another has, too: their counters cannot be told apart", cmp.Or(other, id), name))
			id = ""
		}
		byName[name] = id
	}
	return byName
}

func (c *cycle) dynamic(ctx context.Context) error {
	byName := c.read.byName
	demand := map[string]float64{}
	ok, err := c.ask(ctx, qDynamic, func(r winrm.Instance) {
		id := byName[counterName(r.Text("Name"))]
		assigned, pressure := scaled(r, "PhysicalMemory", mega), scaled(r, "CurrentPressure", 0.01)
		if id != "" && assigned != nil && pressure != nil {
			demand[id] = *assigned * *pressure
		}
	})
	if ok {
		c.read.demand = demand
	}
	return err
}
