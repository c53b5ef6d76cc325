package report

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/protip/protip/internal/inventory"
)

// hosts is what history knows of hosts.
type hosts struct {
	all                  []*hostPast
	cpu, memory          map[inventory.ID][]float64 // hertz and bytes
	contention, vms      map[inventory.ID][]float64
	hertz, bytes, number map[inventory.ID][]float64 // capacities, and cores
}

type hostPast struct {
	*told
	name, cluster, clusterRef string
}

var errNoTags = errors.New("tags are of VMs, and this report is of machines: take the tag out of the scope")

func reportHosts(ctx context.Context, r Request, out *Report, tell func(Request, *hosts, *Report)) error {
	if r.Scope.Tag != "" {
		return errNoTags
	}
	h, err := fetchHosts(ctx, &fetcher{past: r.Past, r: r.Range, progress: r.Progress, of: 10}, r.Scope)
	if err != nil {
		return err
	}
	tell(r, h, out)
	return nil
}

func fetchHosts(ctx context.Context, f *fetcher, scope Scope) (*hosts, error) {
	h := &hosts{}
	info, err := f.info(ctx, "virt_host_info", inventory.KindHost, "host", "virt_cluster", "cluster_id")
	if err != nil {
		return nil, err
	}
	for _, q := range []struct {
		expr string
		to   *map[inventory.ID][]float64
	}{
		{measured(inventory.HostCPUUsage, f.r.Step), &h.cpu},
		{measured(inventory.HostMemoryUsage, f.r.Step), &h.memory},
		{measured(inventory.HostCPUContention, f.r.Step), &h.contention},
		{fact("virt_host_vms", inventory.KindHost), &h.vms},
		{fact("virt_host_cpu_capacity_hertz", inventory.KindHost), &h.hertz},
		{fact("virt_host_memory_capacity_bytes", inventory.KindHost), &h.bytes},
		{fact("virt_host_cpu_cores", inventory.KindHost), &h.number},
	} {
		if *q.to, err = f.byObject(ctx, q.expr, inventory.KindHost); err != nil {
			return nil, err
		}
	}
	for id, t := range info {
		last := t.last()
		host := &hostPast{t, last.Get("host"), last.Get("virt_cluster"), last.Get("cluster_id")}
		if (scope.Source == "" || id.Source == scope.Source) && (scope.Host == "" || host.name == scope.Host) && host.everIn(scope.Cluster) {
			h.all = append(h.all, host)
		}
	}
	for _, host := range h.all {
		for _, values := range []map[inventory.ID][]float64{h.cpu, h.memory, h.contention} {
			for i := range values[host.id] {
				if !host.in(i, "virt_cluster", scope.Cluster) {
					values[host.id][i] = math.NaN()
				}
			}
		}
	}
	slices.SortFunc(h.all, func(a, b *hostPast) int {
		return cmp.Or(cmp.Compare(a.id.Source, b.id.Source), cmp.Compare(a.cluster, b.cluster), cmp.Compare(a.name, b.name), cmp.Compare(a.id.Ref, b.id.Ref))
	})
	return h, nil
}

func (h *hostPast) everIn(cluster string) bool {
	for i := range h.where {
		if h.in(i, "virt_cluster", cluster) {
			return true
		}
	}
	return false
}

// over is a host's use over what it had at the time.
func over(use, capacity []float64) []float64 {
	out := make([]float64, len(use))
	for i := range use {
		out[i] = math.NaN()
		if i < len(capacity) && capacity[i] > 0 {
			out[i] = use[i] / capacity[i]
		}
	}
	return out
}

var hostIdentity = []Column{{"host", "HOST", Text, Everyone}, {"host_id", "", Text, Programs}, {"source", "SOURCE", Text, Everyone}, {"virt_cluster", "CLUSTER", Text, Everyone}}

func (h *hostPast) identity() []any { return []any{h.name, h.id.Ref, h.id.Source, h.cluster} }

// hostUtilization is how full each host was.
func hostUtilization(r Request, h *hosts, out *Report) {
	out.Title = "Host utilization"
	out.Notes = append(out.Notes, "Utilisation is over what the host had at the time; VMS are those it has at the end of the range.")
	t := Table{Name: "hosts", Title: "Hosts, the busiest first", Columns: append(slices.Clone(hostIdentity),
		Column{"vms", "VMS", Count, Everyone}, Column{"cores", "CORES", Count, Everyone}, Column{"cpu_capacity_hertz", "CPU", Hertz, Everyone},
		Column{"cpu_mean_ratio", "MEAN", Percent, Everyone}, Column{"cpu_p95_ratio", "P95", Percent, Everyone}, Column{"cpu_max_ratio", "MAX", Percent, Everyone},
		Column{"cpu_contention_p95_ratio", "VMS WAIT P95", Percent, Everyone}, Column{"memory_capacity_bytes", "MEMORY", Bytes, Everyone},
		Column{"memory_mean_ratio", "MEAN", Percent, Everyone}, Column{"memory_p95_ratio", "P95", Percent, Everyone}, Column{"memory_max_ratio", "MAX", Percent, Everyone},
		Column{"seen_ratio", "SEEN", Percent, Everyone})}
	charts := map[inventory.ID]Chart{}
	for _, host := range h.all {
		cpuOver, memoryOver := over(h.cpu[host.id], h.hertz[host.id]), over(h.memory[host.id], h.bytes[host.id])
		cpu, known := statsOf(cpuOver)
		memory, knownMemory := statsOf(memoryOver)
		waits, knownWaits := statsOf(h.contention[host.id])
		n, knownVMs := latest(h.vms[host.id])
		cores, knownCores := latest(h.number[host.id])
		hertz, knownHertz := latest(h.hertz[host.id])
		bytes, knownBytes := latest(h.bytes[host.id])
		t.Rows = append(t.Rows, append(host.identity(), cell(n, knownVMs && host.there()), cell(cores, knownCores), cell(hertz, knownHertz),
			cell(cpu.mean, known), cell(cpu.p95, known), cell(cpu.max, known), cell(waits.p95, knownWaits), cell(bytes, knownBytes),
			cell(memory.mean, knownMemory), cell(memory.p95, knownMemory), cell(memory.max, knownMemory), max(cpu.share, memory.share)))
		charts[host.id] = Chart{
			Title: fmt.Sprintf("%s (%s)", host.name, host.id.Source), Unit: Percent, Start: r.Range.Start, Step: r.Range.Step,
			Lines: []Line{{Name: "CPU", Values: cpuOver}, {Name: "memory", Values: memoryOver}}, Marks: []Mark{{"capacity", 1}},
		}
	}
	t.sortBy("cpu_p95_ratio")
	out.Tables = append(out.Tables, t)
	for _, row := range t.Rows[:min(len(t.Rows), maxCharts)] {
		out.Charts = append(out.Charts, charts[inventory.ID{Source: row[2].(string), Kind: inventory.KindHost, Ref: row[1].(string)}])
	}
}
