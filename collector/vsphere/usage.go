package vsphere

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/vsphere"
)

// The leaves of quickStats that are sampled. They are asked for one by one because a vCenter leaves out a leaf that has no
// value, whereas in the whole structure it would read as zero.
const (
	statCPU     = "summary.quickStats.overallCpuUsage"    // MHz, both kinds
	statVMMem   = "summary.quickStats.hostMemoryUsage"    // MB
	statVMUp    = "summary.quickStats.uptimeSeconds"      // seconds
	statHostMem = "summary.quickStats.overallMemoryUsage" // MB
	statHostUp  = "summary.quickStats.uptime"             // seconds
)

// Figures above these are not believed.
const (
	absurdHertz   = 1e14 // 10,000 cores of 10 GHz
	absurdBytes   = 1 << 50
	absurdSeconds = 100 * 365 * 24 * 3600
	absurdRatio   = 2 // of a host's capacity; above 1 is honest: cores clock up
)

// sampleUsage polls quickStats at each interval. They are polled because the vCenter does not notify of their changes.
func (f *follower) sampleUsage(ctx context.Context, view types.ManagedObjectReference) error {
	if len(f.usageSpecs()) == 0 {
		return nil
	}
	next := func(time.Time) time.Duration { return f.opts.Interval }
	return f.each(ctx, "usage", next, func(ctx context.Context) error { return f.usageCycle(ctx, view) })
}

// statPaths are all leaves, in the order of stat.values.
var statPaths = []string{
	placeCPU: statCPU, placeVMMem: statVMMem, placeVMUp: statVMUp, placeHostMem: statHostMem, placeHostUp: statHostUp,
}

const (
	placeCPU = iota
	placeVMMem
	placeVMUp
	placeHostMem
	placeHostUp
	places
)

// usageSpecs are the leaves to poll of each kind, for the metrics that are collected.
func (f *follower) usageSpecs() (specs []types.PropertySpec) {
	add := func(kind string, of map[string]inventory.Metric) {
		paths := slices.Sorted(maps.Keys(of))
		paths = slices.DeleteFunc(paths, func(path string) bool { return !f.opts.Collect.Has(of[path]) })
		if len(paths) > 0 {
			specs = append(specs, types.PropertySpec{Type: kind, PathSet: paths})
		}
	}
	add(typeHost, map[string]inventory.Metric{
		statCPU: inventory.HostCPUUsage, statHostMem: inventory.HostMemoryUsage, statHostUp: inventory.HostUptime,
	})
	add(typeVM, map[string]inventory.Metric{
		statCPU: inventory.VMCPUUsage, statVMMem: inventory.VMMemoryUsage, statVMUp: inventory.VMUptime,
	})
	return specs
}

func (f *follower) usageCycle(ctx context.Context, view types.ManagedObjectReference) error {
	spec := viewSpec(view, f.usageSpecs()...)
	at := f.opts.Clock.Now()
	f.mu.Lock()
	known := len(f.tree.hosts) + len(f.tree.vms)
	f.mu.Unlock()
	q := newQuickStats(known)
	if err := f.conn.RetrieveInts(ctx, spec, statPaths, q.add); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.emit(inventory.Delta{Source: f.opts.Name, Samples: f.tree.usage(q, at)})
	return nil
}

// quickStats are what one cycle was answered.
type quickStats struct {
	objects []stat
	refs    []byte // MoRef values, one after the other
}

type stat struct {
	kind     inventory.Kind
	from, to int // of the MoRef value in refs
	values   [places]platform.Int
}

func newQuickStats(objects int) *quickStats {
	return &quickStats{objects: make([]stat, 0, objects), refs: make([]byte, 0, 12*objects)}
}

// add notes what an object was answered.
func (q *quickStats) add(kind, ref []byte, values []platform.Int) {
	s := stat{from: len(q.refs), to: len(q.refs) + len(ref)}
	switch string(kind) {
	case typeHost:
		s.kind = inventory.KindHost
	case typeVM:
		s.kind = inventory.KindVM
	default:
		return
	}
	copy(s.values[:], values)
	q.refs = append(q.refs, ref...)
	q.objects = append(q.objects, s)
}

// usage makes samples of quickStats. What does not run, or is out of the vCenter's reach, has none.
func (t *tree) usage(q *quickStats, at time.Time) []inventory.SampleSet {
	out := make([]inventory.SampleSet, 0, len(q.objects))
	all := make(values, 0, 3*len(t.vms)+5*len(t.hosts))
	for i := range q.objects {
		s, from, id := &q.objects[i], len(all), inventory.ID{}
		ref := q.refs[s.from:s.to]
		if s.kind == inventory.KindHost {
			h := t.hosts[string(ref)]
			if h == nil || !h.answers() {
				continue
			}
			id = h.ID
			all.hostUsage(s, &h.Host)
		} else {
			v := t.vms[string(ref)]
			if v == nil || !t.runs(v) {
				continue
			}
			id = v.ID
			all.vmUsage(s)
		}
		if len(all) > from {
			out = append(out, inventory.SampleSet{ID: id, At: at.UnixMilli(), Values: all[from:len(all):len(all)]})
		}
	}
	return out
}

// values are measured numbers.
type values []inventory.Value

// add adds a number that may be believed: one that is not below zero, and not above limit.
func (v *values) add(m inventory.Metric, x, limit float64) bool {
	if !(x >= 0 && x <= limit) {
		return false
	}
	*v = append(*v, inventory.Value{Metric: m, Value: x})
	return true
}

func (v *values) vmUsage(s *stat) {
	if mhz := s.values[placeCPU]; mhz.OK {
		v.add(inventory.VMCPUUsage, float64(mhz.N)*1e6, absurdHertz)
	}
	if mb := s.values[placeVMMem]; mb.OK {
		v.add(inventory.VMMemoryUsage, float64(mb.N)*mebi, absurdBytes)
	}
	if up := s.values[placeVMUp]; up.OK {
		v.add(inventory.VMUptime, float64(up.N), absurdSeconds)
	}
}

func (v *values) hostUsage(s *stat, h *inventory.Host) {
	if mhz := s.values[placeCPU]; mhz.OK {
		v.addOf(inventory.HostCPUUsage, inventory.HostCPUUsageRatio, float64(mhz.N)*1e6, h.CPUHertz, absurdHertz)
	}
	if mb := s.values[placeHostMem]; mb.OK {
		v.addOf(inventory.HostMemoryUsage, inventory.HostMemoryUsageRatio, float64(mb.N)*mebi, h.MemoryBytes, absurdBytes)
	}
	if up := s.values[placeHostUp]; up.OK {
		v.add(inventory.HostUptime, float64(up.N), absurdSeconds)
	}
}

// addOf adds a use and its ratio to the capacity, which is left out if the capacity is not known.
func (v *values) addOf(use, ratio inventory.Metric, x, capacity, limit float64) {
	if capacity > 0 {
		limit = absurdRatio * capacity
	}
	if v.add(use, x, limit) && capacity > 0 {
		v.add(ratio, x/capacity, absurdRatio)
	}
}
