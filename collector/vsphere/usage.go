package vsphere

import (
	"context"
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
	next := func(time.Time) time.Duration { return f.opts.Interval }
	return f.each(ctx, "usage", next, func(ctx context.Context) error { return f.usageCycle(ctx, view) })
}

func (f *follower) usageCycle(ctx context.Context, view types.ManagedObjectReference) error {
	spec := viewSpec(view,
		types.PropertySpec{Type: typeHost, PathSet: []string{statCPU, statHostMem, statHostUp}},
		types.PropertySpec{Type: typeVM, PathSet: []string{statCPU, statVMMem, statVMUp}})
	at := f.opts.Clock.Now()
	stats := map[types.ManagedObjectReference]platform.Properties{}
	err := f.conn.Retrieve(ctx, spec, func(ref types.ManagedObjectReference, p platform.Properties) { stats[ref] = p })
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.emit(inventory.Delta{Source: f.opts.Name, Samples: f.tree.usage(stats, at)})
	return nil
}

// usage makes samples of quickStats. What does not run, or is out of the vCenter's reach, has none.
func (t *tree) usage(stats map[types.ManagedObjectReference]platform.Properties, at time.Time) []inventory.SampleSet {
	out := make([]inventory.SampleSet, 0, len(stats))
	for ref, p := range stats {
		id := t.idOf(ref)
		v := values{}
		switch h, m := t.hosts[ref.Value], t.vms[ref.Value]; {
		case id.Kind == inventory.KindHost && h != nil && h.answers():
			v.hostUsage(p, &h.Host)
		case id.Kind == inventory.KindVM && m != nil && t.runs(m):
			v.vmUsage(p)
		}
		if len(v) > 0 {
			out = append(out, inventory.SampleSet{ID: id, At: at.UnixMilli(), Values: v})
		}
	}
	return out
}

// values are the measured numbers of one object.
type values []inventory.Value

// add adds a number that may be believed: one that is not below zero, and not above limit.
func (v *values) add(m inventory.Metric, x, limit float64) bool {
	if !(x >= 0 && x <= limit) {
		return false
	}
	*v = append(*v, inventory.Value{Metric: m, Value: x})
	return true
}

func (v *values) vmUsage(p platform.Properties) {
	if mhz, ok := stat(p, statCPU); ok {
		v.add(inventory.VMCPUUsage, mhz*1e6, absurdHertz)
	}
	if mb, ok := stat(p, statVMMem); ok {
		v.add(inventory.VMMemoryUsage, mb*mebi, absurdBytes)
	}
	if s, ok := stat(p, statVMUp); ok {
		v.add(inventory.VMUptime, s, absurdSeconds)
	}
}

func (v *values) hostUsage(p platform.Properties, h *inventory.Host) {
	if mhz, ok := stat(p, statCPU); ok {
		v.addOf(inventory.HostCPUUsage, inventory.HostCPUUsageRatio, mhz*1e6, h.CPUHertz, absurdHertz)
	}
	if mb, ok := stat(p, statHostMem); ok {
		v.addOf(inventory.HostMemoryUsage, inventory.HostMemoryUsageRatio, mb*mebi, h.MemoryBytes, absurdBytes)
	}
	if s, ok := stat(p, statHostUp); ok {
		v.add(inventory.HostUptime, s, absurdSeconds)
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

func stat(p platform.Properties, path string) (float64, bool) {
	n, ok := platform.Get[int32](p, path)
	return float64(n), ok
}
