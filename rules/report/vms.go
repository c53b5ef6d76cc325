package report

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/inventory"
)

const (
	// A VM that is on and uses less than this share of its vCPUs 95 % of the time is idle.
	idleBelow = 0.02
	// listed bounds the rows of lists that may be as long as the fleet, and are of no use then
	listed = 200
)

// vmQuestions are how many fetchVMs asks.
const vmQuestions = 18

// vms is what history knows of VMs.
type vms struct {
	all                             []*vmPast
	hosts                           map[inventory.ID]hostSize
	cpu, memory, active, contention map[inventory.ID][]float64
	reservedCPU, reservedMemory     map[inventory.ID]float64
}

type vmPast struct {
	*told
	name, cluster, clusterRef, host string
	vcpus, bytes                    float64 // NaN if not known
	reservedCPU, reservedBytes      float64 // 0 if nothing is
	on                              float64
	core                            float64 // hertz of a core of its last host, NaN if not known
	tags                            []inventory.Tag
}

type hostSize struct {
	name    string
	cluster string // ref
	hertz   float64
	bytes   float64
	cores   float64
}

func reportVMs(ctx context.Context, r Request, out *Report, tell func(Request, *vms, *Report)) error {
	v, err := fetchVMs(ctx, &fetcher{past: r.Past, r: r.Range, progress: r.Progress, of: vmQuestions}, r.Scope)
	if err != nil {
		return err
	}
	tell(r, v, out)
	return nil
}

// fetchVMs asks for all that the reports on VMs need.
func fetchVMs(ctx context.Context, f *fetcher, scope Scope) (*vms, error) {
	v := &vms{}
	info, err := f.info(ctx, "virt_vm_info", inventory.KindVM, "vm", "host", "host_id", "virt_cluster", "cluster_id")
	if err != nil {
		return nil, err
	}
	tags, err := f.ask(ctx, "max by (source, vm_id, category, tag) (virt_vm_tag_info)")
	if err != nil {
		return nil, err
	}
	facts := map[string]map[inventory.ID]float64{}
	for _, name := range []string{"virt_vm_vcpus", "virt_vm_memory_capacity_bytes", "virt_vm_powered_on", "virt_vm_template", "virt_vm_cpu_reservation_hertz", "virt_vm_memory_reservation_bytes"} {
		if facts[name], err = f.lastly(ctx, name, inventory.KindVM); err != nil {
			return nil, err
		}
	}
	for _, m := range []struct {
		metric inventory.Metric
		to     *map[inventory.ID][]float64
	}{
		{inventory.VMCPUUsage, &v.cpu}, {inventory.VMMemoryUsage, &v.memory}, {inventory.VMMemoryActive, &v.active}, {inventory.VMCPUContention, &v.contention},
	} {
		if *m.to, err = f.byObject(ctx, measured(m.metric, f.r.Step), inventory.KindVM); err != nil {
			return nil, err
		}
	}
	for _, c := range []struct {
		name string
		to   *map[inventory.ID]float64
	}{{"virt_cluster_ha_reserved_cpu_ratio", &v.reservedCPU}, {"virt_cluster_ha_reserved_memory_ratio", &v.reservedMemory}} {
		if *c.to, err = f.lastly(ctx, c.name, inventory.KindCluster); err != nil {
			return nil, err
		}
	}
	if v.hosts, err = fetchSizes(ctx, f); err != nil {
		return nil, err
	}
	tagged := map[inventory.ID][]inventory.Tag{}
	for _, t := range tags {
		id := inventory.ID{Source: t.labels.Get("source"), Kind: inventory.KindVM, Ref: t.labels.Get("vm_id")}
		if !math.IsNaN(t.values[len(t.values)-1]) {
			tagged[id] = append(tagged[id], inventory.Tag{Category: t.labels.Get("category"), Name: t.labels.Get("tag")})
		}
	}
	number := func(name string, id inventory.ID) float64 {
		if x, ok := facts[name][id]; ok {
			return x
		}
		return math.NaN()
	}
	for id, t := range info {
		last := t.last()
		vm := &vmPast{
			told: t, name: last.Get("vm"), cluster: last.Get("virt_cluster"), clusterRef: last.Get("cluster_id"), host: last.Get("host"),
			vcpus: number("virt_vm_vcpus", id), bytes: number("virt_vm_memory_capacity_bytes", id), on: number("virt_vm_powered_on", id), tags: tagged[id],
			core: math.NaN(), reservedCPU: facts["virt_vm_cpu_reservation_hertz"][id], reservedBytes: facts["virt_vm_memory_reservation_bytes"][id],
		}
		if h, ok := v.hosts[inventory.ID{Source: id.Source, Kind: inventory.KindHost, Ref: last.Get("host_id")}]; ok && h.cores > 0 {
			vm.core = h.hertz / h.cores
		}
		if number("virt_vm_template", id) != 1 && vm.wanted(scope) {
			v.all = append(v.all, vm)
		}
	}
	slices.SortFunc(v.all, func(a, b *vmPast) int {
		return cmp.Or(cmp.Compare(a.id.Source, b.id.Source), cmp.Compare(a.name, b.name), cmp.Compare(a.id.Ref, b.id.Ref))
	})
	v.narrow(scope)
	return v, nil
}

// fetchSizes are the hosts there are at the end, and how large they are.
func fetchSizes(ctx context.Context, f *fetcher) (map[inventory.ID]hostSize, error) {
	info, err := f.info(ctx, "virt_host_info", inventory.KindHost, "host", "cluster_id")
	if err != nil {
		return nil, err
	}
	var values [3]map[inventory.ID]float64
	for i, name := range []string{"virt_host_cpu_capacity_hertz", "virt_host_memory_capacity_bytes", "virt_host_cpu_cores"} {
		if values[i], err = f.lastly(ctx, name, inventory.KindHost); err != nil {
			return nil, err
		}
	}
	out := map[inventory.ID]hostSize{}
	for id, t := range info {
		if !t.there() {
			continue
		}
		h := hostSize{name: t.last().Get("host"), cluster: t.last().Get("cluster_id")}
		for i, to := range []*float64{&h.hertz, &h.bytes, &h.cores} {
			*to = values[i][id]
		}
		out[id] = h
	}
	return out, nil
}

// wanted reports whether the VM was ever in the scope.
func (vm *vmPast) wanted(s Scope) bool {
	if s.Source != "" && vm.id.Source != s.Source || s.Tag != "" && !slices.ContainsFunc(vm.tags, func(t inventory.Tag) bool { return s.Tag == t.Name || s.Tag == t.Category+"="+t.Name }) {
		return false
	}
	for i := range vm.where {
		if vm.within(s, i) {
			return true
		}
	}
	return false
}

// now reports whether it is in the scope at the end.
func (vm *vmPast) now(s Scope) bool {
	return vm.there() && (s.Cluster == "" || vm.cluster == s.Cluster) && (s.Host == "" || vm.host == s.Host)
}

// within reports whether it was in the scope all through a step.
func (vm *vmPast) within(s Scope, i int) bool {
	return vm.where[i] >= 0 && vm.in(i, "virt_cluster", s.Cluster) && vm.in(i, "host", s.Host)
}

// narrow takes out what was measured while a VM was elsewhere.
func (v *vms) narrow(s Scope) {
	if s.Cluster == "" && s.Host == "" {
		return
	}
	for _, vm := range v.all {
		for _, values := range []map[inventory.ID][]float64{v.cpu, v.memory, v.active, v.contention} {
			for i := range values[vm.id] {
				if !vm.within(s, i) {
					values[vm.id][i] = math.NaN()
				}
			}
		}
	}
}

var vmIdentity = []Column{{"vm", "VM", Text, Everyone}, {"vm_id", "", Text, Programs}, {"source", "SOURCE", Text, Everyone}, {"virt_cluster", "CLUSTER", Text, Everyone}}

func (vm *vmPast) identity() []any { return []any{vm.name, vm.id.Ref, vm.id.Source, vm.cluster} }

// vmUtilization is what each VM used, over what it was given.
func vmUtilization(r Request, v *vms, out *Report) {
	out.Title = "VM utilization"
	out.Notes = append(out.Notes, "CPU of a VM is over the nominal clock of the cores of its last host; HOST is where it was last.")
	t := Table{Name: "vms", Title: "VMs, the busiest first", Columns: append(slices.Clone(vmIdentity),
		Column{"host", "HOST", Text, Everyone}, Column{"vcpus", "VCPUS", Count, Everyone},
		Column{"cpu_mean_hertz", "CPU MEAN", Hertz, Everyone}, Column{"cpu_p95_hertz", "P95", Hertz, Everyone}, Column{"cpu_max_hertz", "MAX", Hertz, Everyone},
		Column{"cpu_p95_ratio", "P95 OF VCPUS", Percent, Everyone}, Column{"cpu_contention_p95_ratio", "WAITS P95", Percent, Everyone},
		Column{"memory_bytes", "MEMORY", Bytes, Everyone}, Column{"memory_usage_p95_bytes", "BACKED P95", Bytes, Everyone},
		Column{"memory_active_p95_bytes", "TOUCHED P95", Bytes, Everyone}, Column{"seen_ratio", "SEEN", Percent, Everyone})}
	for _, vm := range v.all {
		cpu, known := statsOf(v.cpu[vm.id])
		memory, knownMemory := statsOf(v.memory[vm.id])
		if !known && !knownMemory {
			continue
		}
		active, knownActive := statsOf(v.active[vm.id])
		waits, knownWaits := statsOf(v.contention[vm.id])
		t.Rows = append(t.Rows, append(vm.identity(), vm.host, cell(vm.vcpus, true), cell(cpu.mean, known), cell(cpu.p95, known), cell(cpu.max, known),
			cell(cpu.p95/vm.vcpus/vm.core, known), cell(waits.p95, knownWaits), cell(vm.bytes, true), cell(memory.p95, knownMemory), cell(active.p95, knownActive),
			max(cpu.share, memory.share)))
	}
	t.sortBy("cpu_p95_ratio")
	out.Tables = append(out.Tables, t)
	for _, row := range t.Rows[:min(len(t.Rows), 12)] {
		id := inventory.ID{Source: row[2].(string), Kind: inventory.KindVM, Ref: row[1].(string)}
		out.Charts = append(out.Charts, Chart{Title: fmt.Sprintf("%s (%s)", row[0], row[2]), Unit: Hertz, Start: r.Range.Start, Step: r.Range.Step, Lines: []Line{{Name: "CPU", Values: v.cpu[id]}}})
	}
}

// vmAllocation is what VMs were given, against what they use and what there is.
func vmAllocation(r Request, v *vms, out *Report) {
	out.Title = "VM allocation"
	out.Notes = append(out.Notes,
		"What was given is as of the end of the range, of VMs that are on; what is used is over the range, of the VMs that were in the cluster then.",
		fmt.Sprintf("Idle is on, and using less than %.0f%% of its vCPUs 95%% of the time.", 100*idleBelow))
	v.byCluster(r, out)
	v.byTag(r.Scope, out)
	v.unused(r.Scope, out)
}

// sum are VMs counted together.
type sum struct {
	vms, off, idle float64
	vcpus, bytes   float64
	// reserved: what is kept for them whatever the others want
	reservedCPU, reservedBytes float64
	cpu, memory                []float64
}

func (s *sum) add(vm *vmPast, idle bool) {
	s.vms++
	switch {
	case vm.on != 1:
		s.off++
		return
	case idle:
		s.idle++
	}
	if !math.IsNaN(vm.vcpus) {
		s.vcpus += vm.vcpus
	}
	if !math.IsNaN(vm.bytes) {
		s.bytes += vm.bytes
	}
	s.reservedCPU += vm.reservedCPU
	s.reservedBytes += vm.reservedBytes
}

// plus adds values where there are any.
func plus(to *[]float64, v []float64, when func(i int) bool) {
	if *to == nil {
		*to = absent(len(v))
	}
	for i, x := range v {
		if !math.IsNaN(x) && when(i) {
			if math.IsNaN((*to)[i]) {
				(*to)[i] = 0
			}
			(*to)[i] += x
		}
	}
}

func (v *vms) idle(vm *vmPast) bool {
	cpu, ok := statsOf(v.cpu[vm.id])
	return ok && vm.on == 1 && cpu.p95 < idleBelow*vm.vcpus*vm.core
}

func (v *vms) byCluster(r Request, out *Report) {
	sums := map[inventory.ID]*sum{}
	names := map[inventory.ID]string{}
	of := func(source, ref, name string) *sum {
		id := inventory.ID{Source: source, Kind: inventory.KindCluster, Ref: ref}
		if sums[id] == nil {
			sums[id] = &sum{}
		}
		if name != "" {
			names[id] = name
		}
		return sums[id]
	}
	for _, vm := range v.all {
		if vm.now(r.Scope) {
			of(vm.id.Source, vm.clusterRef, vm.cluster).add(vm, v.idle(vm))
		}
		for _, place := range vm.clusters() {
			if r.Scope.Cluster == "" || place.Get("virt_cluster") == r.Scope.Cluster {
				ref := place.Get("cluster_id")
				here := func(i int) bool { now, ok := vm.at(i, "cluster_id"); return ok && now == ref }
				s := of(vm.id.Source, ref, place.Get("virt_cluster"))
				plus(&s.cpu, v.cpu[vm.id], here)
				plus(&s.memory, v.memory[vm.id], here)
			}
		}
	}
	t := Table{Name: "clusters", Title: "By cluster", Columns: []Column{
		{"virt_cluster", "CLUSTER", Text, Everyone},
		{"cluster_id", "", Text, Programs},
		{"source", "SOURCE", Text, Everyone},
		{"hosts", "HOSTS", Count, Everyone},
		{"vms", "VMS", Count, Everyone},
		{"vms_off", "OFF", Count, Everyone},
		{"vms_idle", "IDLE", Count, Everyone},
		{"vcpus", "VCPUS", Count, Everyone},
		{"cores", "CORES", Count, Everyone},
		{"vcpus_per_core_ratio", "VCPUS PER CORE", Ratio, Everyone},
		{"cpu_capacity_hertz", "", Hertz, Programs},
		{"cpu_mean_hertz", "", Hertz, Programs},
		{"cpu_mean_ratio", "CPU MEAN", Percent, Everyone},
		{"cpu_p95_ratio", "P95", Percent, Everyone},
		{"memory_allocated_bytes", "MEMORY GIVEN", Bytes, Everyone},
		{"memory_capacity_bytes", "OF", Bytes, Everyone},
		{"memory_overcommit_ratio", "OVERCOMMIT", Ratio, Everyone},
		{"memory_p95_bytes", "BACKED P95", Bytes, Everyone},
		{"vms_reserved_cpu_hertz", "RESERVED CPU", Hertz, Everyone},
		{"vms_reserved_memory_bytes", "MEMORY", Bytes, Everyone},
		{"ha_reserved_cpu_ratio", "HA KEEPS CPU", Percent, Everyone},
		{"ha_reserved_memory_ratio", "MEMORY", Percent, Everyone},
	}}
	for _, id := range sorted(sums) {
		s := sums[id]
		var hosts, hertz, bytes, cores float64
		for host, h := range v.hosts {
			if host.Source == id.Source && h.cluster == id.Ref && (r.Scope.Host == "" || h.name == r.Scope.Host) {
				hosts, hertz, bytes, cores = hosts+1, hertz+h.hertz, bytes+h.bytes, cores+h.cores
			}
		}
		cpu, known := statsOf(s.cpu)
		memory, knownMemory := statsOf(s.memory)
		reservedCPU, ok1 := v.reservedCPU[id]
		reservedMemory, ok2 := v.reservedMemory[id]
		ok1, ok2 = ok1 && r.Scope.Host == "", ok2 && r.Scope.Host == "" // what HA keeps is of the whole cluster
		t.Rows = append(t.Rows, []any{
			names[id], id.Ref, id.Source, hosts, s.vms, s.off, s.idle, s.vcpus, cell(cores, cores > 0), ratio(s.vcpus, cores),
			cell(hertz, hertz > 0), cell(cpu.mean, known), cell(cpu.mean/hertz, known), cell(cpu.p95/hertz, known),
			s.bytes, cell(bytes, bytes > 0), ratio(s.bytes, bytes), cell(memory.p95, knownMemory),
			cell(s.reservedCPU, s.reservedCPU > 0), cell(s.reservedBytes, s.reservedBytes > 0), cell(reservedCPU, ok1), cell(reservedMemory, ok2),
		})
		if known && len(out.Charts) < maxCharts {
			out.Charts = append(out.Charts, Chart{
				Title: fmt.Sprintf("%s (%s): CPU that its VMs use", cmp.Or(names[id], "no cluster"), id.Source), Unit: Hertz, Start: r.Range.Start, Step: r.Range.Step,
				Lines: []Line{{Name: "used", Values: s.cpu}}, Marks: []Mark{{"capacity", hertz}},
			})
		}
	}
	out.Tables = append(out.Tables, t)
}

// clusters are the clusters that the VM was in.
func (vm *vmPast) clusters() []history.Labels {
	var out []history.Labels
	for _, place := range vm.seen {
		if !slices.ContainsFunc(out, func(l history.Labels) bool { return l.Get("cluster_id") == place.Get("cluster_id") }) {
			out = append(out, place)
		}
	}
	return out
}

func (v *vms) byTag(scope Scope, out *Report) {
	sums := map[inventory.Tag]*sum{}
	for _, vm := range v.all {
		if !vm.now(scope) {
			continue
		}
		for _, tag := range vm.tags {
			if sums[tag] == nil {
				sums[tag] = &sum{}
			}
			sums[tag].add(vm, v.idle(vm))
			plus(&sums[tag].cpu, v.cpu[vm.id], func(int) bool { return true })
			plus(&sums[tag].memory, v.memory[vm.id], func(int) bool { return true })
		}
	}
	if len(sums) == 0 {
		return
	}
	t := Table{Name: "tags", Title: "By tag", Columns: []Column{
		{"category", "CATEGORY", Text, Everyone},
		{"tag", "TAG", Text, Everyone},
		{"vms", "VMS", Count, Everyone},
		{"vms_off", "OFF", Count, Everyone},
		{"vms_idle", "IDLE", Count, Everyone},
		{"vcpus", "VCPUS", Count, Everyone},
		{"cpu_mean_hertz", "CPU MEAN", Hertz, Everyone},
		{"cpu_p95_hertz", "P95", Hertz, Everyone},
		{"memory_allocated_bytes", "MEMORY GIVEN", Bytes, Everyone},
		{"memory_p95_bytes", "BACKED P95", Bytes, Everyone},
		{"vms_reserved_cpu_hertz", "RESERVED CPU", Hertz, Everyone},
		{"vms_reserved_memory_bytes", "MEMORY", Bytes, Everyone},
	}}
	tags := make([]inventory.Tag, 0, len(sums))
	for tag := range sums {
		tags = append(tags, tag)
	}
	slices.SortFunc(tags, func(a, b inventory.Tag) int {
		return cmp.Or(cmp.Compare(a.Category, b.Category), cmp.Compare(a.Name, b.Name))
	})
	for _, tag := range tags {
		s := sums[tag]
		cpu, known := statsOf(s.cpu)
		memory, knownMemory := statsOf(s.memory)
		t.Rows = append(t.Rows, []any{
			tag.Category, tag.Name, s.vms, s.off, s.idle, s.vcpus, cell(cpu.mean, known), cell(cpu.p95, known), s.bytes, cell(memory.p95, knownMemory),
			cell(s.reservedCPU, s.reservedCPU > 0), cell(s.reservedBytes, s.reservedBytes > 0),
		})
	}
	out.Tables = append(out.Tables, t)
}

// unused lists what is given to VMs that do nothing, the largest first.
func (v *vms) unused(scope Scope, out *Report) {
	t := Table{Name: "unused", Title: "Off or idle, the largest first", Columns: append(slices.Clone(vmIdentity),
		Column{"why", "WHY", Text, Everyone}, Column{"vcpus", "VCPUS", Count, Everyone}, Column{"memory_bytes", "MEMORY", Bytes, Everyone},
		Column{"cpu_p95_hertz", "CPU P95", Hertz, Everyone})}
	for _, vm := range v.all {
		why := ""
		switch {
		case !vm.now(scope):
			continue
		case vm.on == 0:
			why = "off"
		case v.idle(vm):
			why = "idle"
		default:
			continue
		}
		cpu, known := statsOf(v.cpu[vm.id])
		t.Rows = append(t.Rows, append(vm.identity(), why, cell(vm.vcpus, true), cell(vm.bytes, true), cell(cpu.p95, known && vm.on == 1)))
	}
	t.sortBy("memory_bytes")
	if len(t.Rows) > listed {
		out.Notes = append(out.Notes, fmt.Sprintf("Of %d VMs that are off or idle the largest %d are listed.", len(t.Rows), listed))
		t.Rows = t.Rows[:listed]
	}
	out.Tables = append(out.Tables, t)
}

// sortBy sorts rows by a column, the highest first and what is not known last.
func (t *Table) sortBy(column string) {
	c := slices.IndexFunc(t.Columns, func(c Column) bool { return c.Name == column })
	value := func(row []any) float64 {
		if v, ok := row[c].(float64); ok {
			return v
		}
		return math.Inf(-1)
	}
	slices.SortStableFunc(t.Rows, func(a, b []any) int { return cmp.Compare(value(b), value(a)) })
}

// sorted are the keys in order.
func sorted[T any](m map[inventory.ID]T) []inventory.ID {
	out := make([]inventory.ID, 0, len(m))
	for id := range m {
		out = append(out, id)
	}
	slices.SortFunc(out, func(a, b inventory.ID) int { return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Ref, b.Ref)) })
	return out
}
