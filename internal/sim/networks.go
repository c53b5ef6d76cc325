package sim

import (
	"fmt"
	"slices"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// Network is a network to be built.
type Network struct {
	Name        string
	Distributed bool     // a port group of a distributed switch; else of the hosts' own switches
	Hosts       []string // that have it; nil is all
}

// buildNetworks makes the networks before anything is attached to them. Without a configuration it is the one that every datacenter has.
func (vc *VCenter) buildNetworks() {
	if len(vc.cfg.Networks) == 0 {
		vc.place.networks = vc.place.datacenter.Network
		return
	}
	for _, spec := range vc.cfg.Networks {
		vc.place.networks = append(vc.place.networks, vc.buildNetwork(spec))
	}
}

func (vc *VCenter) buildNetwork(spec Network) types.ManagedObjectReference {
	group := &simulator.DistributedVirtualPortgroup{}
	group.Self.Type, group.Name, group.Config.Name = "DistributedVirtualPortgroup", spec.Name, spec.Name
	var obj mo.Entity = group
	if !spec.Distributed {
		network := &mo.Network{Name: spec.Name}
		network.Self.Type = "Network"
		obj = network
	}
	obj.Entity().Name = spec.Name
	folder := vc.reg.Get(vc.place.datacenter.NetworkFolder).(*simulator.Folder)
	ref := vc.reg.PutEntity(folder, vc.reg.NewEntity(obj)).Reference()
	folder.ChildEntity = append(folder.ChildEntity, ref)
	vc.place.datacenter.Network = append(vc.place.datacenter.Network, ref)
	return ref
}

// networksOf are the networks that are meant for a host.
func (vc *VCenter) networksOf(host string) []types.ManagedObjectReference {
	var refs []types.ManagedObjectReference
	for i, ref := range vc.place.networks {
		if i >= len(vc.cfg.Networks) || vc.cfg.Networks[i].Hosts == nil || slices.Contains(vc.cfg.Networks[i].Hosts, host) {
			refs = append(refs, ref)
		}
	}
	return refs
}

// networksNamed are the networks that a VM is attached to: the first for nil.
func (vc *VCenter) networksNamed(names []string) []types.ManagedObjectReference {
	if names == nil {
		return vc.place.networks[:1]
	}
	var refs []types.ManagedObjectReference
	for i, ref := range vc.place.networks {
		if i < len(vc.cfg.Networks) && slices.Contains(names, vc.cfg.Networks[i].Name) {
			refs = append(refs, ref)
		}
	}
	return refs
}

// Network is the network of that name.
func (vc *VCenter) Network(name string) (types.ManagedObjectReference, bool) {
	for _, kind := range []string{"Network", "DistributedVirtualPortgroup"} {
		if ref, ok := vc.find(kind, name); ok {
			return ref, true
		}
	}
	return types.ManagedObjectReference{}, false
}

// SetNetworks changes which networks a host has, or a VM is attached to.
func (vc *VCenter) SetNetworks(of types.ManagedObjectReference, networks ...types.ManagedObjectReference) error {
	obj := vc.reg.Get(of)
	if obj == nil || of.Type != "HostSystem" && of.Type != "VirtualMachine" {
		return fmt.Errorf("networks of %s: %w", of.Value, errNoSuch)
	}
	ctx := vc.own()
	ctx.WithLock(obj, func() { ctx.Update(obj, []types.PropertyChange{{Name: "network", Val: networks}}) })
	return nil
}

// missing is a network of a VM that a host lacks; false if it has them all.
func (vc *VCenter) missing(vm, host types.ManagedObjectReference) (network types.ManagedObjectReference, found bool) {
	wanted, has := vc.reg.Get(vm).(*simulator.VirtualMachine), vc.reg.Get(host).(*simulator.HostSystem)
	ctx := vc.own()
	var wants, had []types.ManagedObjectReference
	ctx.WithLock(wanted, func() { wants = slices.Clone(wanted.Network) })
	ctx.WithLock(has, func() { had = slices.Clone(has.Network) })
	for _, ref := range wants {
		if !slices.Contains(had, ref) {
			return ref, true
		}
	}
	return network, false
}
