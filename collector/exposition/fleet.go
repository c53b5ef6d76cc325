package exposition

import (
	"bytes"
	"log/slog"

	"github.com/protip/protip/internal/inventory"
)

// fleet is the rendered form of the last snapshot.
type fleet struct {
	log        *slog.Logger
	sources    []Family
	clusters   []family[inventory.Cluster]
	pools      []family[inventory.ResourcePool]
	hosts      []family[inventory.Host]
	vms        []family[inventory.VM]
	datastores []family[inventory.Datastore]
	services   []family[inventory.Service]
	machines   []family[inventory.Machine]
	headers    map[string][2]*block // by family; classic text and OpenMetrics

	order []*source
	known map[string]*source
	state map[string]*block // of the sources' own families
	free  freelist
	zip   zipper
}

// source is one source's rendered objects.
type source struct {
	clusters   table[inventory.Cluster]
	pools      table[inventory.ResourcePool]
	hosts      table[inventory.Host]
	vms        table[inventory.VM]
	datastores table[inventory.Datastore]
	services   table[inventory.Service]
	machines   table[inventory.Machine]
	networks   []*inventory.Network // as counted last
	onHost     map[inventory.ID]int // VMs by host, without templates
	inPool     map[inventory.ID]int // and by resource pool
	names      *hostNames
	tally      tally
	budget     budget
	held       bool // the budget was looked at before
}

func newFleet(log *slog.Logger) *fleet {
	f := &fleet{
		log:     log,
		sources: sourceFamilies(), clusters: clusterFamilies(), pools: poolFamilies(), hosts: hostFamilies(), vms: vmFamilies(),
		datastores: datastoreFamilies(), services: serviceFamilies(), machines: machineFamilies(),
		headers: map[string][2]*block{}, known: map[string]*source{}, state: map[string]*block{},
	}
	for _, family := range Families() {
		f.headers[family.Name] = [2]*block{{raw: header(family, false)}, {raw: header(family, true)}}
	}
	return f
}

// update renders what the snapshot changed. alone says that nobody reads the bytes of an earlier update any more.
func (f *fleet) update(snap *inventory.Snapshot, alone bool) {
	f.free.use(alone)
	f.zip.free.use(alone)
	f.order = f.order[:0]
	for _, state := range snap.Sources() {
		src, ok := f.known[state.Name]
		if !ok {
			src = &source{
				clusters:   newTable(state.Name, f.clusters, clusterIdentity),
				pools:      newTable(state.Name, f.pools, poolIdentity),
				hosts:      newTable(state.Name, f.hosts, hostIdentity),
				vms:        newTable(state.Name, f.vms, vmIdentity),
				datastores: newTable(state.Name, f.datastores, datastoreIdentity),
				services:   newTable(state.Name, f.services, serviceIdentity),
				machines:   newTable(state.Name, f.machines, machineIdentity),
			}
			f.known[state.Name] = src
		}
		src.update(snap, state.Name, f)
		src.hold(state.Name, state.MaxSeries, f.log)
		f.order = append(f.order, src)
	}
	for _, family := range f.sources {
		raw := appendSources(nil, family.Name, snap, f.known)
		if old := f.state[family.Name]; old == nil || !bytes.Equal(old.raw, raw) {
			f.state[family.Name] = &block{raw: raw}
		}
	}
}

// update renders a source's changed objects. A host's lines show its cluster and count its VMs, a resource pool's its parent and
// cluster and count its VMs, a VM's its host, cluster and pool, a datastore's its hosts, a service's and a machine's its VM, which is of
// another source.
func (s *source) update(snap *inventory.Snapshot, name string, f *fleet) {
	clusters, hosts, vms := snap.ClusterTable(name), snap.HostTable(name), snap.VMTable(name)
	datastores, services := snap.DatastoreTable(name), snap.ServiceTable(name)
	pools, machines, networks := snap.ResourcePoolTable(name), snap.MachineTable(name), snap.NetworkTable(name)
	hosted := !same(hosts.Facts, s.hosts.last.Facts)
	moved := !same(vms.Facts, s.vms.last.Facts)
	placed := moved || hosted || !same(clusters.Facts, s.clusters.last.Facts) || !same(pools.Facts, s.pools.last.Facts)
	if moved {
		s.onHost = countBy(vms.Facts, func(vm *inventory.VM) inventory.ID { return vm.Host })
		s.inPool = countBy(vms.Facts, func(vm *inventory.VM) inventory.ID { return vm.Pool })
	}
	if placed || !same(hosts.Samples, s.hosts.last.Samples) || !same(vms.Samples, s.vms.last.Samples) ||
		!same(datastores.Facts, s.datastores.last.Facts) || !same(datastores.Samples, s.datastores.last.Samples) ||
		!same(services.Facts, s.services.last.Facts) || !same(services.Samples, s.services.last.Samples) ||
		!same(machines.Facts, s.machines.last.Facts) || !same(machines.Samples, s.machines.last.Samples) ||
		!same(networks.Facts, s.networks) {
		s.networks = networks.Facts
		s.tally = tally{
			clusters: count(clusters.Facts), hosts: count(hosts.Facts), vms: count(vms.Facts), datastores: count(datastores.Facts),
			services: count(services.Facts), pools: count(pools.Facts), machines: count(machines.Facts), networks: count(networks.Facts),
			staleMachines:   stale(machines, func(*inventory.Machine) bool { return true }),
			staleServices:   stale(services, func(*inventory.Service) bool { return true }),
			staleDatastores: stale(datastores, func(d *inventory.Datastore) bool { return d.Accessible }),
			staleHosts:      stale(hosts, func(h *inventory.Host) bool { return h.Power == inventory.PowerOn }),
			staleVMs:        stale(vms, func(vm *inventory.VM) bool { return vm.Power == inventory.PowerOn }),
		}
	}
	s.clusters.update(clusters, nil, f)
	if hosted || s.names == nil {
		s.names = namesOf(hosts.Facts)
	}
	s.datastores.update(datastores, func(*inventory.Datastore) where { return where{hosts: s.names} }, f)
	s.services.update(services, func(svc *inventory.Service) where {
		vm, _ := snap.VM(svc.VM)
		return where{vm: vm.VM}
	}, f)
	s.machines.update(machines, func(m *inventory.Machine) where {
		vm, _ := snap.VM(m.VM)
		return where{vm: vm.VM}
	}, f)
	if !placed {
		s.pools.update(pools, nil, f)
		s.hosts.update(hosts, nil, f)
		s.vms.update(vms, nil, f)
		return
	}
	s.pools.update(pools, func(p *inventory.ResourcePool) where {
		cluster, _ := snap.Cluster(p.Cluster)
		parent, _ := snap.ResourcePool(p.Parent)
		return where{cluster: cluster, pool: parent, vms: s.inPool[p.ID]}
	}, f)
	s.hosts.update(hosts, func(h *inventory.Host) where {
		cluster, _ := snap.Cluster(h.Cluster)
		return where{cluster: cluster, vms: s.onHost[h.ID]}
	}, f)
	s.vms.update(vms, func(vm *inventory.VM) where {
		host, _ := snap.Host(vm.Host)
		cluster, _ := snap.ClusterOf(vm)
		pool, _ := snap.ResourcePool(vm.Pool)
		return where{host: host.Host, cluster: cluster, pool: pool}
	}, f)
}

func namesOf(hosts []*inventory.Host) *hostNames {
	names := hostNames{}
	for _, h := range hosts {
		if h != nil {
			names[h.ID] = h.Name
		}
	}
	return &names
}

// countBy counts VMs by what they are on or in, without templates.
func countBy(vms []*inventory.VM, of func(*inventory.VM) inventory.ID) map[inventory.ID]int {
	count := map[inventory.ID]int{}
	for _, vm := range vms {
		if vm != nil && !vm.Template {
			count[of(vm)]++
		}
	}
	return count
}

// blocks are the fleet's families in order, each with its header; a family without a line has none.
func (f *fleet) blocks(openMetrics bool) []*block {
	var out []*block
	add := func(name string, lines ...*block) {
		first := len(out)
		for _, b := range lines {
			if len(b.raw) == 0 || b.withheld {
				continue
			}
			if len(out) == first {
				if openMetrics {
					out = append(out, f.headers[name][1])
				} else {
					out = append(out, f.headers[name][0])
				}
			}
			out = append(out, b)
		}
	}
	lines := make([]*block, len(f.order))
	for _, family := range f.sources {
		add(family.Name, f.state[family.Name])
	}
	for i, family := range f.clusters {
		for j, src := range f.order {
			lines[j] = &src.clusters.blocks[i]
		}
		add(family.Name, lines...)
	}
	for i, family := range f.pools {
		for j, src := range f.order {
			lines[j] = &src.pools.blocks[i]
		}
		add(family.Name, lines...)
	}
	for i, family := range f.hosts {
		for j, src := range f.order {
			lines[j] = &src.hosts.blocks[i]
		}
		add(family.Name, lines...)
	}
	for i, family := range f.vms {
		for j, src := range f.order {
			lines[j] = &src.vms.blocks[i]
		}
		add(family.Name, lines...)
	}
	for i, family := range f.datastores {
		for j, src := range f.order {
			lines[j] = &src.datastores.blocks[i]
		}
		add(family.Name, lines...)
	}
	for i, family := range f.services {
		for j, src := range f.order {
			lines[j] = &src.services.blocks[i]
		}
		add(family.Name, lines...)
	}
	for i, family := range f.machines {
		for j, src := range f.order {
			lines[j] = &src.machines.blocks[i]
		}
		add(family.Name, lines...)
	}
	return out
}
