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

// failover is what a failover cluster says of itself. It is not changed once made; what is asked seldom is carried over. A nil failover
// is that of hosts which belong to no cluster.
type failover struct {
	name     string
	identity string
	balancer uint64
	enforced bool
	nodes    map[string]nodeState // by name in small letters
	groups   map[string]group     // by name in small letters
	vms      map[string]string    // GUID by the group's name in small letters
	roles    map[string]role      // by GUID
	volumes  []volume
	owned    []role    // as the cluster tells them, without their GUIDs
	looked   time.Time // when the volumes were asked for
}

type nodeState struct {
	name  string
	state uint64
	drain uint64
}

// States of nodes, and of drains.
const (
	nodeDown     = 1
	nodePaused   = 2
	drainRunning = 1
)

func (s nodeState) maintenance() bool {
	return s.state == nodePaused || s.drain == drainRunning
}

// group is what is asked seldom of a VM's group.
type group struct {
	priority     uint64
	prioritized  bool
	antiAffinity []string
}

// role is a VM as the cluster knows it.
type role struct {
	name, owner string
	state       uint64
}

// power is what a group's state says of its VM, for when no host says more.
func (r role) power() inventory.Power {
	switch r.state {
	case 0:
		return inventory.PowerOn
	case 1:
		return inventory.PowerOff
	}
	return inventory.PowerUnknown
}

type volume struct {
	ref, name string
	mount     string // path in small letters
	fault     uint64
	kind      string
	total     float64
	free      float64
	sized     bool
}

// Fault states of volumes: nobody has access, or somebody works on it.
const (
	volumeNoAccess    = 2
	volumeMaintenance = 4
)

func (f *failover) role(id string) (role, bool) {
	if f == nil {
		return role{}, false
	}
	r, ok := f.roles[id]
	return r, ok
}

func (f *failover) node(ref string) (nodeState, bool) {
	if f == nil {
		return nodeState{}, false
	}
	s, ok := f.nodes[ref]
	return s, ok
}

func (f *failover) id(c *cluster) inventory.ID {
	return c.id(inventory.KindCluster, strings.ToLower(f.name))
}

// take reports whether the cluster is to be asked by who calls, who then answers for it.
func (c *cluster) take(now time.Time, interval time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.heard) < interval*9/10 {
		return false
	}
	c.heard = now
	return true
}

// giveBack makes the cluster be asked by the next host that comes.
func (c *cluster) giveBack() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard = time.Time{}
}

// turn asks for the cluster's state if nobody has in this interval. A host that fails leaves it to the next that comes, and one that
// hangs to the one that comes in the next interval.
func (c *cycle) turn(ctx context.Context) error {
	if c.node.member == nil || !c.cluster.take(c.at, c.opts.Interval) {
		return nil
	}
	answer, err := c.clusterState(ctx)
	if err != nil || answer == nil {
		c.cluster.giveBack()
		return err
	}
	if answer.identity != "" && c.opts.Identities != nil {
		if err := c.opts.Identities.Claim("hyperv cluster "+answer.identity, c.opts.Name); err != nil {
			return err
		}
	}
	c.change(func(cl *cluster) []inventory.SampleSet { return cl.hear(answer, c.at) })
	return nil
}

// clusterState asks for the states of nodes and the owners of VMs, and for all else when that is due or a VM is new. It is nil if the
// cluster's classes are at fault.
func (c *cycle) clusterState(ctx context.Context) (*failover, error) {
	c.cluster.mu.Lock()
	last := c.cluster.failover
	c.cluster.mu.Unlock()
	next := &failover{name: c.node.member.name, balancer: c.node.member.balancer, enforced: c.node.member.enforced, nodes: map[string]nodeState{}, roles: map[string]role{}}
	if last != nil && last.name != next.name {
		return nil, fmt.Errorf("%s is a node of cluster %s and not of %s: give it a source of its own", c.node.addr, next.name, last.name)
	}
	if last != nil {
		next.identity, next.groups, next.vms, next.volumes, next.looked = last.identity, last.groups, last.vms, last.volumes, last.looked
	}
	ok, err := c.ask(ctx, qNodes, func(r winrm.Instance) {
		s := nodeState{name: clean(r.Text("Name"))}
		s.state, _ = r.Uint("State")
		s.drain, _ = r.Uint("NodeDrainStatus")
		if s.name != "" && len(next.nodes) < 256 {
			next.nodes[strings.ToLower(s.name)] = s
		}
	})
	if !ok {
		return nil, err
	}
	if ok, err = c.ask(ctx, qOwners, func(r winrm.Instance) {
		o := role{name: clean(r.Text("Name")), owner: clean(r.Text("OwnerNode"))}
		o.state, _ = r.Uint("State")
		next.owned = append(next.owned, o)
	}); !ok {
		return nil, err
	}
	if last == nil {
		for i := range clusterFacts {
			if err := c.learnOne(ctx, i, next); err != nil {
				return nil, err
			}
		}
	}
	if unknown := next.assign(); unknown {
		c.cluster.hurry()
	}
	return next, nil
}

// assign says of each VM which role it is, and whether there is a role of which that is not known.
func (f *failover) assign() (unknown bool) {
	f.roles = make(map[string]role, len(f.owned))
	for _, r := range f.owned {
		id := f.vms[strings.ToLower(r.name)]
		unknown = unknown || id == ""
		if id != "" && r.owner != "" {
			f.roles[id] = r
		}
	}
	return unknown
}

// clusterFacts are what changes seldom in a cluster. Any of its nodes is asked when one is due, and has room for the messages it took
// the last time.
var clusterFacts = [clusterFactCount]func(*cycle, context.Context, *failover) error{(*cycle).learnRoles, (*cycle).learnGroups, (*cycle).learnVolumes}

const clusterFactCount = 3

// clusterDue is when a fact is due, and how many messages it took.
type clusterDue struct {
	next time.Time
	cost int
}

// hurry makes the roles be due: there is a new one. While a role stays unknown they are due in each interval.
func (c *cluster) hurry() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.due[0].next = time.Time{}
}

// claimFact is a fact that is due and fits, -1 if there is none. Nobody else asks for it then.
func (c *cluster) claimFact(now time.Time, left int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.due {
		d := &c.due[i]
		overdue := !d.next.IsZero() && now.Sub(d.next) > inventory.SlowInterval
		if c.failover != nil && !d.next.After(now) && left > 0 && (max(d.cost, 1) <= left || overdue) {
			d.next = now.Add(inventory.SlowInterval)
			return i
		}
	}
	return -1
}

// learnCluster asks for the cluster's facts that are due, as far as there is room.
func (c *cycle) learnCluster(ctx context.Context) error {
	for c.node.member != nil {
		i := c.cluster.claimFact(c.at, c.left())
		if i < 0 {
			return nil
		}
		var found failover
		if err := c.learnOne(ctx, i, &found); err != nil {
			return err
		}
		c.change(func(cl *cluster) []inventory.SampleSet {
			next := *cl.failover
			next.merge(&found)
			next.assign()
			return cl.hear(&next, c.at)
		})
	}
	return nil
}

// learnOne asks for one fact. If the host fails the next one is asked.
func (c *cycle) learnOne(ctx context.Context, i int, f *failover) error {
	before := c.left()
	err := clusterFacts[i](c, ctx, f)
	c.cluster.mu.Lock()
	defer c.cluster.mu.Unlock()
	c.cluster.due[i] = clusterDue{c.at.Add(inventory.SlowInterval), before - c.left()}
	if err != nil {
		c.cluster.due[i].next = c.at
	}
	return err
}

// merge takes what was found. Of what could not be had, what is known stays.
func (f *failover) merge(found *failover) {
	if found.vms != nil {
		f.vms = found.vms
	}
	if found.groups != nil {
		f.groups, f.identity = found.groups, found.identity
	}
	if !found.looked.IsZero() {
		f.volumes, f.looked = found.volumes, found.looked
	}
}

func (c *cycle) learnRoles(ctx context.Context, f *failover) error {
	vms := map[string]string{}
	ok, err := c.ask(ctx, qRoles, func(r winrm.Instance) {
		v, _ := r.Get("PrivateProperties")
		if v.Object == nil {
			return
		}
		if id, name := guid(v.Object.Text("VmID")), strings.ToLower(clean(r.Text("OwnerGroup"))); id != "" && name != "" {
			vms[name] = id
		}
	})
	if ok {
		f.vms = vms
	}
	return err
}

func (c *cycle) learnGroups(ctx context.Context, f *failover) error {
	groups := map[string]group{}
	ok, err := c.ask(ctx, qGroups, func(r winrm.Instance) {
		var g group
		g.priority, g.prioritized = r.Uint("Priority")
		v, _ := r.Get("AntiAffinityClassNames")
		for _, name := range v.List() {
			if name := clean(name.Text); name != "" && len(g.antiAffinity) < 64 {
				g.antiAffinity = append(g.antiAffinity, name)
			}
		}
		groups[strings.ToLower(clean(r.Text("Name")))] = g
		if kind, _ := r.Uint("GroupType"); kind == 1 {
			f.identity = guid(r.Text("Id")) // every cluster has one group that is the cluster itself
		}
	})
	if ok {
		f.groups = groups
	}
	return err
}

func (c *cycle) learnVolumes(ctx context.Context, f *failover) error {
	rows, ok, err := c.all(ctx, qVolumes)
	if err != nil || !ok {
		return err
	}
	sizes, _, err := c.all(ctx, qPartitions)
	if err != nil {
		return err
	}
	f.volumes, f.looked = nil, c.at
	for _, r := range rows {
		mount := clean(r.Text("Name"))
		name := mount[strings.LastIndexAny(mount, `\/`)+1:]
		v := volume{ref: cmp.Or(guidWithin(r.Text("VolumeName")), strings.ToLower(name)), name: name, mount: strings.ToLower(mount)}
		if v.fault, _ = r.Uint("FaultState"); v.ref == "" {
			continue
		}
		for _, p := range sizes {
			if !strings.EqualFold(p.Text("Path"), r.Text("VolumeName")) {
				continue
			}
			total, free := scaled(p, "TotalSize", mega), scaled(p, "FreeSpace", mega)
			v.kind = clean(p.Text("FileSystem"))
			if total != nil && free != nil && *free <= *total {
				v.total, v.free, v.sized = *total, *free, true
			}
		}
		f.volumes = append(f.volumes, v)
	}
	return nil
}

// hear takes what the cluster says now.
func (c *cluster) hear(f *failover, at time.Time) []inventory.SampleSet {
	last := c.failover
	c.failover = f
	for id, r := range f.roles {
		if was, ok := last.role(id); !ok || was != r {
			c.dirty[id] = true
		}
	}
	if last != nil {
		for id := range last.roles {
			if _, is := f.roles[id]; !is {
				c.dirty[id] = true
			}
		}
	}
	c.settle(at)
	if last == nil || last.looked != f.looked {
		return c.space()
	}
	return nil
}

// space is what was free on the volumes when that was asked last.
func (c *cluster) space() (samples []inventory.SampleSet) {
	if c.failover == nil {
		return nil
	}
	for _, v := range c.failover.volumes {
		if v.sized {
			samples = append(samples, inventory.SampleSet{
				ID: c.id(inventory.KindDatastore, v.ref), At: c.failover.looked.UnixMilli(), Values: []inventory.Value{{Metric: inventory.DatastoreFree, Value: v.free}},
			})
		}
	}
	return samples
}

// holding are the volumes that files of a VM lie on, by the files' paths.
func (f *failover) holding(c *cluster, paths []string) (out []inventory.ID) {
	if f == nil {
		return nil
	}
	for _, v := range f.volumes {
		if slices.ContainsFunc(paths, func(p string) bool { return strings.HasPrefix(p, v.mount+`\`) }) {
			out = append(out, c.id(inventory.KindDatastore, v.ref))
		}
	}
	slices.SortFunc(out, func(a, b inventory.ID) int { return cmp.Compare(a.Ref, b.Ref) })
	return out
}

// cluster is the cluster as an object.
func (f *failover) cluster(c *cluster) inventory.Cluster {
	out := inventory.Cluster{ID: f.id(c), Name: f.name, HA: inventory.HA{Enabled: true}, RestartPriority: restartPriority(2000), DRS: f.balance()}
	apart := map[string][]inventory.ID{}
	for _, id := range slices.Sorted(maps.Keys(f.roles)) {
		g := f.groups[strings.ToLower(f.roles[id].name)]
		vm := c.id(inventory.KindVM, id)
		if p := restartPriority(g.priority); g.prioritized && p != out.RestartPriority {
			if out.RestartPriorities == nil {
				out.RestartPriorities = map[inventory.ID]string{}
			}
			out.RestartPriorities[vm] = p
		}
		for _, name := range g.antiAffinity {
			apart[name] = append(apart[name], vm)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(apart)) {
		out.Rules = append(out.Rules, inventory.Rule{Name: name, Kind: inventory.AntiAffinity, Enabled: true, Mandatory: f.enforced, VMs: apart[name]})
	}
	return out
}

// balance is the cluster's own VM load balancing: always (2), or when a node joins (1).
func (f *failover) balance() inventory.DRS {
	switch f.balancer {
	case 1:
		return inventory.DRS{Enabled: true, Automation: inventory.AutomationPartial}
	case 2:
		return inventory.DRS{Enabled: true, Automation: inventory.AutomationFull}
	}
	return inventory.DRS{}
}

// datastores are the volumes, which every node that is up has.
func (f *failover) datastores(c *cluster) (out []inventory.Datastore) {
	for _, v := range f.volumes {
		ds := inventory.Datastore{
			ID: c.id(inventory.KindDatastore, v.ref), Name: v.name, Type: v.kind, CapacityBytes: v.total, Accessible: v.fault != volumeNoAccess,
			Maintenance: v.fault == volumeMaintenance, Mounts: map[inventory.ID]inventory.Mount{},
		}
		for ref, s := range f.nodes {
			if s.state != nodeDown {
				ds.Mounts[c.id(inventory.KindHost, c.ref(ref))] = inventory.Mount{Accessible: ds.Accessible}
			}
		}
		out = append(out, ds)
	}
	return out
}

// movable are the VMs of a host that are roles of its cluster and run, in a lasting order.
func (c *cluster) movable(n *node) (ids []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, v := range n.views {
		if _, clustered := c.failover.role(id); clustered && v.state == stateEnabled && c.vms[id] != nil && c.vms[id].host == n.computer.ref {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// target is a node that a VM should find room on, another one for each time it was told no; empty if there is none.
func (c *cluster) target(from *node, id string, turn int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := from.views[id]
	var names []string
	for _, n := range c.nodes {
		if n == from || !n.up || n.notLive || v == nil {
			continue
		}
		s, ok := c.failover.node(n.host.ID.Ref)
		if ok && s.state == 0 && !s.maintenance() && n.free > 2*v.detail.memory {
			names = append(names, s.name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return names[turn%len(names)]
}

// oneMoves notes that the question whether a VM could move has an answer that is yes.
func (c *cluster) oneMoves() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.moves = true
}
