package hyperv

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/protip/protip/internal/inventory"
)

// cluster is what all hosts together know. A VM is one object here, however many hosts have it.
//
// It holds no connection and asks nobody: hosts tell it what they have (install, lose) and one of them what the cluster says (hear);
// delta is what that changed. All is under mu. A VM that is a role of the cluster is where the cluster says; any other is where it runs.
type cluster struct {
	source string

	mu       sync.Mutex
	nodes    []*node // in the order of the configuration
	failover *failover
	began    time.Time // this Watch
	heard    time.Time // when the cluster was asked, or is being asked
	due      [clusterFactCount]clusterDue
	moves    bool // some VM was said to be able to move
	vms      map[string]*vm
	dirty    map[string]bool
	told     map[inventory.ID]any
}

// vm is a VM of the source.
type vm struct {
	host    string // ref of where it is
	last    inventory.VM
	detail  detail // as a host last told it
	meter   meter
	seen    time.Time // when a host last had it
	missing time.Time // since when no host has it; zero if one has
}

func newCluster(source string) *cluster {
	return &cluster{source: source, vms: map[string]*vm{}, dirty: map[string]bool{}, told: map[inventory.ID]any{}}
}

func (c *cluster) id(kind inventory.Kind, ref string) inventory.ID {
	return inventory.ID{Source: c.source, Kind: kind, Ref: ref}
}

// begin makes ready for a Watch: nobody has answered yet.
func (c *cluster) begin(now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.began, c.heard = now, time.Time{}
	for _, n := range c.nodes {
		c.lose(n)
		if err := n.dial(); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) hangUp() {
	for _, n := range c.nodes {
		if n.client != nil {
			n.client.Close()
		}
	}
}

// lose says that a host has not answered: what it last told is all that is known of it.
func (c *cluster) lose(n *node) {
	n.up, n.meter = false, hostMeter{}
	for id := range n.views {
		c.dirty[id] = true
	}
}

// node is the host of a name, as the cluster or the host itself writes it; nil if it is not configured or never answered.
func (c *cluster) node(name string) *node {
	name = strings.ToLower(name)
	short, _, _ := strings.Cut(name, ".")
	for _, n := range c.nodes {
		if n.host != nil && (n.host.ID.Ref == name || n.host.ID.Ref == short || n.dns == name) {
			return n
		}
	}
	return nil
}

// ref is the host's ref by a name of it.
func (c *cluster) ref(name string) string {
	if n := c.node(name); n != nil {
		return n.host.ID.Ref
	}
	return strings.ToLower(name)
}

// install takes a host's answers and makes samples of them. A host that another address leads to already, or one of another cluster, is
// refused.
func (c *cluster) install(y *cycle) ([]inventory.SampleSet, error) {
	n := y.node
	if err := c.admit(n); err != nil {
		return nil, err
	}
	h := n.describe(c)
	n.networks, h.Networks = n.attachable(c)
	if y.read.system != nil {
		h.Version = y.read.system.version
	} else if n.host != nil {
		h.Version = n.host.Version
	}
	was, met := n.views, n.host != nil
	n.host, n.dns, n.views, n.up, n.polled, n.free, n.notLive = &h, n.computer.dns, y.read.vms, true, y.at, 0, n.off
	if s := y.read.system; s != nil && s.free != nil {
		n.free = *s.free
	}
	fresh := false
	for id, v := range n.views {
		d, m := n.details[id], c.vms[id]
		fresh = fresh || d == nil
		if m != nil && (d == nil || met && was[id] == nil) { // it came from another host, and is what it was there as far as this one has not told of it
			d, fresh = n.detail(id), true
			d.fill(&m.detail)
			n.plug(c, id, m.last.Networks)
		}
		if d != nil {
			v.detail = *d
		}
		v.networks = n.attached(c, id)
		c.dirty[id] = true
	}
	if fresh {
		n.hurry()
	}
	for id := range was {
		c.dirty[id] = true
	}
	maps.DeleteFunc(n.details, func(id string, _ *detail) bool { return n.views[id] == nil })
	maps.DeleteFunc(n.plugged, func(id string, _ []string) bool { return n.views[id] == nil })
	maps.DeleteFunc(n.missed, func(id string, _ bool) bool { return n.views[id] == nil })
	maps.DeleteFunc(n.settled, func(id string, _ bool) bool { return n.views[id] == nil })
	for id, m := range c.vms {
		if !m.missing.IsZero() {
			c.dirty[id] = true
		}
	}
	c.settle(y.at)
	return c.samples(y), nil
}

// admit refuses a host that has no place here.
func (c *cluster) admit(n *node) error {
	for _, other := range c.nodes {
		if other == n || !other.up {
			continue
		}
		if other.host.ID.Ref == n.computer.ref {
			return fmt.Errorf("%s is the same host as %s (%s): remove one of them from the config", n.addr, other.addr, n.computer.ref)
		}
		if n.member != nil && c.failover != nil && !strings.EqualFold(n.member.name, c.failover.name) {
			return fmt.Errorf("%s is a node of cluster %s and not of %s: give it a source of its own", n.addr, n.member.name, c.failover.name)
		}
	}
	return nil
}

// describe is the host as it told of itself.
func (n *node) describe(c *cluster) inventory.Host {
	k := n.computer
	return inventory.Host{
		ID: c.id(inventory.KindHost, k.ref), Name: k.name, Power: inventory.PowerOn, Cores: k.cores, CPUHertz: float64(k.cores) * k.megahertz * 1e6,
		MemoryBytes: k.memory, Model: k.model, CPUModel: k.cpu,
	}
}

// network is a virtual switch. Each host has its own, with a GUID of its own: a VM that moves is plugged into the one of the same name,
// so that by their names they are one network.
func (c *cluster) network(name string) inventory.ID {
	return c.id(inventory.KindNetwork, strings.ToLower(name))
}

// attachable are the host's virtual switches; nil if they are not known.
func (n *node) attachable(c *cluster) (networks []inventory.Network, ids []inventory.ID) {
	if n.switches == nil {
		return nil, nil
	}
	ids = []inventory.ID{}
	for _, name := range slices.Sorted(maps.Values(n.switches)) {
		if id := c.network(name); !slices.Contains(ids, id) {
			networks, ids = append(networks, inventory.Network{ID: id, Name: name}), append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b inventory.ID) int { return cmp.Compare(a.Ref, b.Ref) })
	return networks, ids
}

// attached are the networks of a VM that the host has.
func (n *node) attached(c *cluster, id string) (ids []inventory.ID) {
	for _, to := range n.plugged[id] {
		if name := n.switches[to]; name != "" && !slices.Contains(ids, c.network(name)) {
			ids = append(ids, c.network(name))
		}
	}
	slices.SortFunc(ids, func(a, b inventory.ID) int { return cmp.Compare(a.Ref, b.Ref) })
	return ids
}

// plug attaches a VM that comes from another host to the host's networks that it was attached to there, until the host has told.
func (n *node) plug(c *cluster, id string, networks []inventory.ID) {
	if n.plugged == nil || n.plugged[id] != nil {
		return
	}
	for to, name := range n.switches {
		if slices.Contains(networks, c.network(name)) {
			n.plugged[id] = append(n.plugged[id], to)
		}
	}
}

// networks are the virtual switches of all hosts, called as the first of them calls it.
func (c *cluster) networks() (out []inventory.Network) {
	named := map[inventory.ID]bool{}
	for _, n := range c.nodes {
		for _, network := range n.networks {
			if !named[network.ID] {
				named[network.ID] = true
				out = append(out, network)
			}
		}
	}
	return out
}

// samples are what was measured of a host and of the VMs that are its own.
func (c *cluster) samples(y *cycle) []inventory.SampleSet {
	n, at := y.node, y.at.UnixMilli()
	sets := make([]inventory.SampleSet, 0, len(n.views)+1)
	var loads []weight
	for id, v := range n.views {
		m := c.vms[id]
		if m == nil || m.host != n.host.ID.Ref || power(v.state) != inventory.PowerOn {
			continue
		}
		values, l := m.meter.sample(m.host, v.name, y.read.virtual[id], y.read.traffic[id], n.host.CoreHertz())
		if l != nil {
			loads = append(loads, *l)
		}
		add := func(metric inventory.Metric, v *float64) {
			if v != nil {
				values = append(values, inventory.Value{Metric: metric, Value: *v})
			}
		}
		add(inventory.VMMemoryUsage, v.memory)
		if demand, ok := y.read.demand[id]; ok {
			add(inventory.VMMemoryDemand, &demand)
		}
		add(inventory.VMUptime, v.uptime)
		add(inventory.VMHeartbeat, v.beats())
		if len(values) > 0 {
			sets = append(sets, inventory.SampleSet{ID: c.id(inventory.KindVM, id), At: at, Values: values})
		}
	}
	if values := n.meter.sample(n.host, &y.read, loads); len(values) > 0 {
		sets = append(sets, inventory.SampleSet{ID: n.host.ID, At: at, Values: values})
	}
	return sets
}

// beats says whether the guest's heartbeat comes; nil if nobody can say.
func (v *view) beats() *float64 {
	const ok, fault, noContact, lost = 2, 6, 12, 13
	if v.heartbeat == nil {
		return nil
	}
	beat := 0.0
	switch *v.heartbeat {
	case ok:
		beat = 1
	case fault, noContact, lost:
	default:
		return nil
	}
	return &beat
}

// settle decides where the VMs are of which something changed.
func (c *cluster) settle(now time.Time) {
	for id := range c.dirty {
		if c.dirty[id] {
			c.settleOne(id, now)
		}
	}
	clear(c.dirty)
}

func (c *cluster) settleOne(id string, now time.Time) {
	m := c.vms[id]
	role, clustered := c.failover.role(id)
	n, v := c.best(id, role)
	if v == nil && !clustered {
		if m == nil {
			return
		}
		if m.missing.IsZero() {
			m.missing = now
		}
		if m.seen.Before(c.began) { // it went while nobody looked: one look at each host will do
			m.missing = c.began
		}
		if c.gone(m) {
			delete(c.vms, id)
		}
		return
	}
	if m == nil {
		m = &vm{}
		c.vms[id] = m
	}
	m.missing = time.Time{}
	if v != nil {
		m.seen, m.detail = v.at, v.detail
	}
	if clustered {
		m.host = c.ref(role.owner)
	} else {
		m.host = n.host.ID.Ref
	}
	m.last = c.object(id, m, v, role, clustered)
}

// gone says whether a VM that no host has is gone: every host that could have it was asked since.
func (c *cluster) gone(m *vm) bool {
	for _, n := range c.nodes {
		if n.host == nil {
			continue
		}
		if n.host.ID.Ref == m.host && !n.up || n.up && !n.polled.After(m.missing) {
			return false
		}
	}
	return true
}

// best is the host that knows a VM best: its owner, else the one where it runs. A host that does not answer knows less than one that does.
func (c *cluster) best(id string, role role) (on *node, as *view) {
	most := -1
	for _, n := range c.nodes {
		v := n.views[id]
		if v == nil || n.host == nil {
			continue
		}
		r := rank(v.state) * 2
		if n.up {
			r++
		}
		if role.owner != "" && c.ref(role.owner) == n.host.ID.Ref && n.up {
			r += 100
		}
		if m := c.vms[id]; r > most || r == most && m != nil && m.host == n.host.ID.Ref {
			on, as, most = n, v, r
		}
	}
	return on, as
}

// object makes the VM of what is known of it. Without a view it is what it was, where the cluster says it is.
func (c *cluster) object(id string, m *vm, v *view, role role, clustered bool) inventory.VM {
	out := m.last
	out.ID, out.Host, out.Connection = c.id(inventory.KindVM, id), c.id(inventory.KindHost, m.host), inventory.Unreachable
	if n := c.node(m.host); n != nil && n.up {
		out.Connection = inventory.Connected
	}
	if v == nil {
		out.Name, out.Power = cmp.Or(out.Name, role.name), role.power()
	} else {
		d := &v.detail
		out.Name, out.UUID, out.Power = v.name, d.uuid, power(v.state)
		out.VCPUs = cmp.Or(v.vcpus, d.vcpus)
		out.MemoryBytes, out.MemoryReservationBytes = d.memory, d.reserved
		out.GuestHostname, out.GuestIP, out.MACs = d.hostname, d.ip, d.macs
		out.GuestOS = cmp.Or(v.os, d.os)
		out.Datastores = c.failover.holding(c, d.volumes)
		out.Networks = v.networks
	}
	out.Availability = inventory.NotHighlyAvailable
	if clustered {
		out.Availability = inventory.HighlyAvailable
	}
	out.NotLive, out.QuickMigration = c.notLive(m, v, clustered)
	return out
}

// notLive says why a VM could not be moved live, and whether quick migration would do.
func (c *cluster) notLive(m *vm, v *view, clustered bool) (why string, quick bool) {
	if v == nil {
		return "", false
	}
	n := c.node(m.host)
	switch {
	case v.health >= healthCritical:
		return "its state is critical: files of it cannot be reached", false
	case power(v.state) == inventory.PowerSuspended:
		return "it is saved or paused", clustered
	case n != nil && n.notLive:
		return "live migration is switched off on " + n.host.Name, clustered
	case v.detail.notLive != "" && c.moves:
		return v.detail.notLive, clustered
	}
	return "", false
}

// forgetTold makes the next delta one of everything.
func (c *cluster) forgetTold() { clear(c.told) }

// delta is what changed since the last one.
func (c *cluster) delta(now time.Time) inventory.Delta {
	c.settle(now)
	d := inventory.Delta{Source: c.source}
	seen := make(map[inventory.ID]bool, len(c.told)+1)
	news := func(id inventory.ID, object any) bool {
		seen[id] = true
		if was, ok := c.told[id]; ok && reflect.DeepEqual(was, object) {
			return false
		}
		c.told[id] = object
		return true
	}
	if c.failover != nil {
		if cl := c.failover.cluster(c); news(cl.ID, cl) {
			d.Clusters = append(d.Clusters, cl)
		}
		for _, ds := range c.failover.datastores(c) {
			if news(ds.ID, ds) {
				d.Datastores = append(d.Datastores, ds)
			}
		}
	}
	for _, n := range c.networks() {
		if news(n.ID, n) {
			d.Networks = append(d.Networks, n)
		}
	}
	for _, h := range c.hosts() {
		if news(h.ID, h) {
			d.Hosts = append(d.Hosts, h)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(c.vms)) {
		m := c.vms[id]
		vid := m.last.ID
		seen[vid] = true
		if was, ok := c.told[vid].(*inventory.VM); ok && reflect.DeepEqual(was, &m.last) {
			continue
		}
		told := m.last
		c.told[vid] = &told
		d.VMs = append(d.VMs, told)
	}
	for id := range c.told {
		if !seen[id] {
			delete(c.told, id)
			d.Removed = append(d.Removed, id)
		}
	}
	slices.SortFunc(d.Removed, func(a, b inventory.ID) int { return cmp.Compare(a.String(), b.String()) })
	return d
}

// hosts are those that answered once, and those that the cluster names.
func (c *cluster) hosts() []inventory.Host {
	var out []inventory.Host
	named := map[string]bool{}
	for _, n := range c.nodes {
		if n.host == nil || named[n.host.ID.Ref] {
			continue
		}
		h := *n.host
		named[h.ID.Ref] = true
		h.Connection = inventory.Unreachable
		if n.up {
			h.Connection = inventory.Connected
		}
		if state, ok := c.failover.node(h.ID.Ref); ok {
			h.Cluster = c.failover.id(c)
			h.Maintenance = state.maintenance()
			if state.state == nodeDown {
				h.Connection = inventory.Unreachable
			}
		}
		out = append(out, h)
	}
	if c.failover == nil {
		return out
	}
	for _, ref := range slices.Sorted(maps.Keys(c.failover.nodes)) {
		if s := c.failover.nodes[ref]; !named[c.ref(ref)] {
			// Nobody asks it: it is not in the configuration, or has not answered yet.
			out = append(out, inventory.Host{
				ID: c.id(inventory.KindHost, ref), Name: s.name, Cluster: c.failover.id(c), Connection: inventory.Disconnected, Power: inventory.PowerUnknown, Maintenance: s.maintenance(),
			})
		}
	}
	return out
}
