package sim

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// Pool is a resource pool to be built. Nobody enforces what it says.
type Pool struct {
	Name        string
	In          string // the pool of the same cluster that it is part of, which stands before it; default: the root
	CPU, Memory Allocation
}

// Allocation is what a pool gets, of CPU in MHz and of memory in MiB.
type Allocation struct {
	Reservation int64
	Expandable  bool
	Limit       int64 // 0: none
	Shares      int32 // default: what vSphere calls normal, 4,000 of CPU and 163,840 of memory
}

func (a Allocation) info(normal int32) types.ResourceAllocationInfo {
	limit := a.Limit
	if limit == 0 {
		limit = -1
	}
	shares := types.SharesInfo{Shares: cmp.Or(a.Shares, normal), Level: types.SharesLevelCustom}
	if shares.Shares == normal {
		shares.Level = types.SharesLevelNormal
	}
	return types.ResourceAllocationInfo{Reservation: &a.Reservation, ExpandableReservation: &a.Expandable, Limit: &limit, Shares: &shares}
}

const (
	normalCPUShares    = 4000
	normalMemoryShares = 163840
)

func (p Pool) config(ref types.ManagedObjectReference) types.ResourceConfigSpec {
	return types.ResourceConfigSpec{Entity: &ref, CpuAllocation: p.CPU.info(normalCPUShares), MemoryAllocation: p.Memory.info(normalMemoryShares)}
}

// newPool puts a pool into the registry, as the last of its parent's.
func (vc *VCenter) newPool(ctx *simulator.Context, parent *simulator.ResourcePool, spec Pool) *simulator.ResourcePool {
	pool := simulator.NewResourcePool(ctx)
	pool.Name, pool.Owner, pool.Parent, pool.Vm, pool.ResourcePool.ResourcePool = spec.Name, parent.Owner, &parent.Self, nil, nil
	pool.Self = types.ManagedObjectReference{Type: "ResourcePool"}
	vc.reg.NewEntity(pool)
	pool.Config = spec.config(pool.Self)
	pool.Summary = &types.ResourcePoolSummary{Name: spec.Name, Config: pool.Config}
	children := append(slices.Clone(parent.ResourcePool.ResourcePool), pool.Self)
	ctx.WithLock(parent, func() { // before Put: views look for a new object in the lists that lead to it
		ctx.Update(parent, []types.PropertyChange{{Name: "resourcePool", Val: children}})
	})
	vc.reg.Put(pool)
	return pool
}

// buildPools makes a cluster's pools and returns them by name, the root by none.
func (vc *VCenter) buildPools(ctx *simulator.Context, cluster *simulator.ClusterComputeResource, specs []Pool) (map[string]*simulator.ResourcePool, error) {
	root := vc.reg.Get(*cluster.ResourcePool).(*simulator.ResourcePool)
	pools := map[string]*simulator.ResourcePool{"": root}
	for _, spec := range specs {
		parent, ok := pools[spec.In]
		if !ok {
			return nil, fmt.Errorf("resource pool %s in %q: %w", spec.Name, spec.In, errNoSuch)
		}
		pools[spec.Name] = vc.newPool(ctx, parent, spec)
	}
	return pools, nil
}

// Pool is the resource pool of that name.
func (vc *VCenter) Pool(name string) (types.ManagedObjectReference, bool) {
	return vc.find("ResourcePool", name)
}

// CreatePool adds a resource pool to another one, at once; the spec's In does not matter.
func (vc *VCenter) CreatePool(parent types.ManagedObjectReference, spec Pool) (types.ManagedObjectReference, error) {
	vc.shape.Lock()
	defer vc.shape.Unlock()
	in, ok := vc.reg.Get(parent).(*simulator.ResourcePool)
	if !ok {
		return types.ManagedObjectReference{}, fmt.Errorf("create resource pool %q in %s: %w", spec.Name, parent.Value, errNoSuch)
	}
	return vc.newPool(vc.own(), in, spec).Self, nil
}

// ConfigurePool gives a resource pool another name and other settings.
func (vc *VCenter) ConfigurePool(ref types.ManagedObjectReference, spec Pool) error {
	pool, ok := vc.reg.Get(ref).(*simulator.ResourcePool)
	if !ok {
		return fmt.Errorf("configure resource pool %s: %w", ref.Value, errNoSuch)
	}
	config := spec.config(ref)
	vc.reg.AtomicUpdate(vc.own(), pool, []types.PropertyChange{
		{Name: "name", Val: spec.Name}, {Name: "config.cpuAllocation", Val: config.CpuAllocation}, {Name: "config.memoryAllocation", Val: config.MemoryAllocation},
	})
	return nil
}

// MoveIntoPool moves VMs and pools of one cluster into a resource pool of it, at once.
func (vc *VCenter) MoveIntoPool(pool types.ManagedObjectReference, refs ...types.ManagedObjectReference) error {
	vc.shape.Lock()
	defer vc.shape.Unlock()
	return vc.intoPool(vc.own(), pool, refs)
}

func (vc *VCenter) intoPool(ctx *simulator.Context, to types.ManagedObjectReference, refs []types.ManagedObjectReference) error {
	for _, ref := range refs {
		switch obj := vc.reg.Get(ref).(type) {
		case *simulator.VirtualMachine:
			vc.listVM(ctx, vc.vmState(obj).pool, ref, false)
			vc.listVM(ctx, to, ref, true)
			vc.reg.AtomicUpdate(ctx, obj, []types.PropertyChange{{Name: "resourcePool", Val: &to}})
		case *simulator.ResourcePool:
			vc.listPool(ctx, *obj.Parent, ref, false)
			vc.listPool(ctx, to, ref, true)
			vc.reg.AtomicUpdate(ctx, obj, []types.PropertyChange{{Name: "parent", Val: &to}})
		default:
			return fmt.Errorf("move %s into resource pool %s: %w", ref.Value, to.Value, errNoSuch)
		}
	}
	return nil
}

// DestroyPool takes a resource pool out; what is in it becomes its parent's.
func (vc *VCenter) DestroyPool(ref types.ManagedObjectReference) error {
	vc.shape.Lock()
	defer vc.shape.Unlock()
	pool, ok := vc.reg.Get(ref).(*simulator.ResourcePool)
	if !ok || pool.Parent.Type != ref.Type {
		return fmt.Errorf("destroy resource pool %s: %w", ref.Value, errNoSuch)
	}
	ctx, parent := vc.own(), *pool.Parent
	if err := vc.intoPool(ctx, parent, slices.Concat(pool.ResourcePool.ResourcePool, pool.Vm)); err != nil {
		return err
	}
	vc.listPool(ctx, parent, ref, false)
	vc.reg.Remove(ctx, ref)
	return nil
}

// listPool puts a pool into the list of its parent, or takes it out.
func (vc *VCenter) listPool(ctx *simulator.Context, parent, ref types.ManagedObjectReference, in bool) {
	holder := vc.reg.Get(parent).(*simulator.ResourcePool)
	ctx.WithLock(holder, func() {
		list := slices.DeleteFunc(slices.Clone(holder.ResourcePool.ResourcePool), func(r types.ManagedObjectReference) bool { return r == ref })
		if in {
			list = append(list, ref)
		}
		ctx.Update(holder, []types.PropertyChange{{Name: "resourcePool", Val: list}})
	})
}

// ownerOf is the cluster of a resource pool, zero if it is none.
func (vc *VCenter) ownerOf(pool types.ManagedObjectReference) types.ManagedObjectReference {
	if p, ok := vc.reg.Get(pool).(*simulator.ResourcePool); ok {
		return p.Owner // set once, when the pool is made
	}
	return types.ManagedObjectReference{}
}
