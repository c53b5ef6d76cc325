package tsdb

import (
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/protip/protip/internal/inventory"
)

// fleet is what was last written of a snapshot.
type fleet struct {
	keep    map[string]bool
	sources map[string]*source
}

// source is what was last written of one source.
type source struct {
	up, synced ref
	clusters   *table[inventory.Cluster]
	hosts      *table[inventory.Host]
	vms        *table[inventory.VM]
	datastores *table[inventory.Datastore]
	services   *table[inventory.Service]
	machines   *table[inventory.Machine]
	last       struct { // what of a snapshot says where objects are
		clusters []*inventory.Cluster
		hosts    []*inventory.Host
		vms      []*inventory.VM
		pools    []*inventory.ResourcePool
	}
}

func newFleet(families []string) *fleet {
	f := &fleet{keep: map[string]bool{}, sources: map[string]*source{}}
	for _, name := range families {
		f.keep[name] = true
	}
	return f
}

// append writes what a snapshot changed.
func (f *fleet) append(c *cycle, snap *inventory.Snapshot) {
	for name, s := range f.sources {
		if _, ok := snap.Source(name); !ok {
			s.end(c)
			delete(f.sources, name)
		}
	}
	for _, state := range snap.Sources() {
		s, ok := f.sources[state.Name]
		if !ok {
			s = f.newSource(state.Name)
			f.sources[state.Name] = s
		}
		f.state(c, &s.up, state.Name, sourceUp, state.Up)
		f.state(c, &s.synced, state.Name, sourceSynced, state.Synced)
		s.append(c, snap, state.Name)
	}
}

// state writes one of a source's own families, at each cycle: sources are few.
func (f *fleet) state(c *cycle, r *ref, source, name string, is bool) {
	if !f.keep[name] {
		return
	}
	v, _ := truth(is, true)
	c.write(r, v, func(b *labels.ScratchBuilder) {
		add(b, model.MetricNameLabel, name)
		add(b, "source", source)
	})
}

func (f *fleet) newSource(name string) *source {
	return &source{
		clusters: newTable(name, inventory.KindCluster, clusterFacts(), f.keep, func(c *inventory.Cluster) identity {
			return identity{"virt_cluster", c.Name, "cluster_id", c.ID.Ref}
		}),
		hosts: newTable(name, inventory.KindHost, hostFacts(), f.keep, func(h *inventory.Host) identity {
			return identity{"host", h.Name, "host_id", h.ID.Ref}
		}),
		vms: newTable(name, inventory.KindVM, vmFacts(), f.keep, func(vm *inventory.VM) identity {
			return identity{"vm", vm.Name, "vm_id", vm.ID.Ref}
		}),
		datastores: newTable(name, inventory.KindDatastore, datastoreFacts(), f.keep, func(d *inventory.Datastore) identity {
			return identity{"datastore", d.Name, "datastore_id", d.ID.Ref}
		}),
		services: newTable(name, inventory.KindService, serviceFacts(), f.keep, func(s *inventory.Service) identity {
			return identity{"service", s.Name, "service_id", s.ID.Ref}
		}),
		machines: newTable(name, inventory.KindMachine, machineFacts(), f.keep, func(m *inventory.Machine) identity {
			return identity{"machine", m.Name, "machine_id", m.ID.Ref}
		}),
	}
}

// append writes a source's changed objects. A host's series show its cluster and count its VMs, a VM's its host, cluster and
// resource pool, a service's and a machine's its VM, which is of another source.
func (s *source) append(c *cycle, snap *inventory.Snapshot, name string) {
	clusters, hosts, vms, pools := snap.ClusterTable(name), snap.HostTable(name), snap.VMTable(name), snap.ResourcePoolTable(name)
	moved := !same(vms.Facts, s.last.vms)
	placed := moved || !same(hosts.Facts, s.last.hosts) || !same(clusters.Facts, s.last.clusters) || !same(pools.Facts, s.last.pools)
	s.last.clusters, s.last.hosts, s.last.vms, s.last.pools = clusters.Facts, hosts.Facts, vms.Facts, pools.Facts

	s.clusters.append(c, clusters, nil)
	s.datastores.append(c, snap.DatastoreTable(name), nil)
	in := func(id inventory.ID) place {
		if vm, ok := snap.VM(id); ok {
			return place{vm: vm.Name}
		}
		return place{}
	}
	s.services.append(c, snap.ServiceTable(name), func(svc *inventory.Service) place { return in(svc.VM) })
	s.machines.append(c, snap.MachineTable(name), func(m *inventory.Machine) place { return in(m.VM) })
	if !placed {
		s.hosts.append(c, hosts, nil)
		s.vms.append(c, vms, nil)
		return
	}
	onHost := map[inventory.ID]int{}
	for _, vm := range vms.Facts {
		if vm != nil && !vm.Template {
			onHost[vm.Host]++
		}
	}
	clusterOf := func(id inventory.ID) string {
		if cluster, ok := snap.Cluster(id); ok {
			return cluster.Name
		}
		return ""
	}
	s.hosts.append(c, hosts, func(h *inventory.Host) place { return place{cluster: clusterOf(h.Cluster), vms: onHost[h.ID]} })
	s.vms.append(c, vms, func(vm *inventory.VM) place {
		at := place{}
		if pool, ok := snap.ResourcePool(vm.Pool); ok {
			at.pool = pool.Name
		}
		host, ok := snap.Host(vm.Host)
		if !ok {
			return at
		}
		at.host, at.cluster = host.Name, clusterOf(host.Cluster)
		if at.cluster != "" {
			at.clusterID = host.Cluster.Ref
		}
		return at
	})
}

// end ends all series of a source that is gone.
func (s *source) end(c *cycle) {
	c.end(&s.up)
	c.end(&s.synced)
	s.clusters.append(c, inventory.Table[inventory.Cluster]{}, nil)
	s.hosts.append(c, inventory.Table[inventory.Host]{}, nil)
	s.vms.append(c, inventory.Table[inventory.VM]{}, nil)
	s.datastores.append(c, inventory.Table[inventory.Datastore]{}, nil)
	s.services.append(c, inventory.Table[inventory.Service]{}, nil)
	s.machines.append(c, inventory.Table[inventory.Machine]{}, nil)
}
