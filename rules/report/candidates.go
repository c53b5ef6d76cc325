package report

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/placement"
	"github.com/protip/protip/rules"
)

const (
	// A VM is sized so that what the machine used 95 % of the time is this share of its vCPUs, and of its memory.
	vcpuFill   = 0.7
	memoryFill = 0.8
	// seenEnough is the share of the range that a machine must have been seen in, to be judged.
	seenEnough = 0.5
	gibibyte   = 1 << 30
)

// machine is a physical machine, as node_exporter or windows_exporter sees it.
type machine struct {
	job, instance                    string
	vendor                           string
	used, cores, memory, total, flow []float64 // cores; bytes; bytes a second
	wire                             []float64
}

// machineQueries ask for all machines of some jobs at once, of either exporter. The inner mean makes one of what two servers scraped.
func machineQueries(jobs string, window string) map[string]string {
	job := "job=~" + strconv.Quote(jobs)
	rate := func(by, series string) string {
		return fmt.Sprintf("sum by (job, instance) (avg by (job, instance, %s) (rate(%s%s)))", by, series, window)
	}
	mean := func(series string) string {
		return fmt.Sprintf("avg by (job, instance) (avg_over_time(%s{%s}%s))", series, job, window)
	}
	return map[string]string{
		"used": rate("cpu, mode", `node_cpu_seconds_total{`+job+`,mode!~"idle|iowait"}`) + " or " + rate("core, mode", `windows_cpu_time_total{`+job+`,mode!="idle"}`),
		"cores": `count by (job, instance) (count by (job, instance, cpu) (node_cpu_seconds_total{` + job + `,mode="idle"})) or ` +
			`count by (job, instance) (count by (job, instance, core) (windows_cpu_time_total{` + job + `,mode="idle"}))`,
		"total": mean("node_memory_MemTotal_bytes") + " or " + mean("windows_memory_physical_total_bytes") + " or " + mean("windows_cs_physical_memory_bytes"),
		"memory": mean("node_memory_MemTotal_bytes") + " - " + mean("node_memory_MemAvailable_bytes") +
			" or " + mean("windows_memory_physical_total_bytes") + " - " + mean("windows_memory_available_bytes") +
			" or " + mean("windows_cs_physical_memory_bytes") + " - " + mean("windows_os_physical_memory_free_bytes"),
		"disk": rate("device", "node_disk_read_bytes_total{"+job+"}") + " + " + rate("device", "node_disk_written_bytes_total{"+job+"}") +
			" or " + rate("volume", "windows_logical_disk_read_bytes_total{"+job+"}") + " + " + rate("volume", "windows_logical_disk_write_bytes_total{"+job+"}"),
		"network": rate("device", `node_network_receive_bytes_total{`+job+`,device=~"en.*|eth.*"}`) + " + " + rate("device", `node_network_transmit_bytes_total{`+job+`,device=~"en.*|eth.*"}`) +
			" or " + rate("nic", "windows_net_bytes_total{"+job+"}"),
		"vendor": "max by (job, instance, system_vendor, product_name) (node_dmi_info{" + job + "})",
	}
}

// virtual are what a VM's firmware says that it is.
var virtual = regexp.MustCompile(`(?i)vmware|qemu|kvm|xen|virtualbox|innotek|bochs|virtual machine|amazon ec2|google compute`)

func reportCandidates(ctx context.Context, r Request, out *Report) error {
	if r.Machines == nil {
		r.Machines = r.Past
	}
	if _, err := regexp.Compile(r.Jobs); err != nil || r.Jobs == "" {
		return fmt.Errorf("the jobs of the physical machines are not named by a regular expression: %q", r.Jobs)
	}
	if r.Scope.Tag != "" || r.Scope.Host != "" {
		return fmt.Errorf("candidates are for clusters: take %s out of the scope", r.Scope)
	}
	half := func(from float64) func(float64) {
		return func(done float64) {
			if r.Progress != nil {
				r.Progress(from + 0.49*done)
			}
		}
	}
	machines, err := fetchMachines(ctx, &fetcher{past: r.Machines, r: r.Range, progress: half(0), of: 7}, r.Jobs)
	if err != nil {
		return err
	}
	v, err := fetchVMs(ctx, &fetcher{past: r.Past, r: r.Range, progress: half(0.5), of: 16}, Scope{})
	if err != nil {
		return err
	}
	snap, err := rules.At(ctx, r.Past, r.Range.End, inventory.HostCPUUsage, inventory.HostMemoryUsage, inventory.HostCPUUsageRatio, inventory.HostMemoryUsageRatio, inventory.HostCPUContention,
		inventory.VMCPUUsage, inventory.VMMemoryUsage, inventory.VMCPUContention)
	if err != nil {
		return err
	}
	candidates(r, machines, v, snap, out)
	return nil
}

func fetchMachines(ctx context.Context, f *fetcher, jobs string) ([]*machine, error) {
	found := map[[2]string]*machine{}
	of := func(l history.Labels) *machine {
		key := [2]string{l.Get("job"), l.Get("instance")}
		if found[key] == nil {
			found[key] = &machine{job: key[0], instance: key[1]}
		}
		return found[key]
	}
	queries := machineQueries(jobs, window(f.r.Step))
	for _, q := range []struct {
		name string
		to   func(*machine) *[]float64
	}{
		{"used", func(m *machine) *[]float64 { return &m.used }},
		{"cores", func(m *machine) *[]float64 { return &m.cores }},
		{"total", func(m *machine) *[]float64 { return &m.total }},
		{"memory", func(m *machine) *[]float64 { return &m.memory }},
		{"disk", func(m *machine) *[]float64 { return &m.flow }},
		{"network", func(m *machine) *[]float64 { return &m.wire }},
	} {
		rows, err := f.ask(ctx, queries[q.name])
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			*q.to(of(row.labels)) = row.values
		}
	}
	rows, err := f.ask(ctx, queries["vendor"])
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		of(row.labels).vendor = strings.TrimSpace(row.labels.Get("system_vendor") + " " + row.labels.Get("product_name"))
	}
	out := make([]*machine, 0, len(found))
	for _, m := range found {
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b *machine) int { return cmp.Or(cmp.Compare(a.job, b.job), cmp.Compare(a.instance, b.instance)) })
	return out, nil
}

// candidates says of each machine how large it would be as a VM and which host suits it best, or why it is no candidate.
func candidates(r Request, machines []*machine, v *vms, snap *inventory.Snapshot, out *Report) {
	out.Title = "Virtualization candidates"
	out.Notes = append(out.Notes,
		fmt.Sprintf("A VM is sized so that what the machine used 95%% of the time is %.0f%% of its vCPUs and %.0f%% of its memory. A core of the machine counts as one of a usual host.", 100*vcpuFill, 100*memoryFill),
		"Each machine is rated by itself: two may not both fit on one host. Programs that need hardware of the machine are not seen from here.")
	d, core := v.demand(), usualCore(v.hosts)
	cluster := clusterNamed(snap, r.Scope)
	t := Table{Name: "candidates", Title: "Physical machines", Columns: []Column{
		{"instance", "MACHINE", Text, Everyone},
		{"job", "JOB", Text, Everyone},
		{"verdict", "VERDICT", Text, Everyone},
		{"why", "WHY", Text, Everyone},
		{"vcpus", "VCPUS", Count, Everyone},
		{"memory_bytes", "MEMORY", Bytes, Everyone},
		{"stars", "STARS", Stars, Everyone},
		{"host", "BEST HOST", Text, Everyone},
		{"host_id", "", Text, Programs},
		{"host_source", "", Text, Programs},
		{"cores", "CORES", Count, Everyone},
		{"cpu_mean_ratio", "CPU MEAN", Percent, Everyone},
		{"cpu_p95_ratio", "P95", Percent, Everyone},
		{"memory_total_bytes", "HAS", Bytes, Everyone},
		{"memory_p95_bytes", "USES P95", Bytes, Everyone},
		{"disk_p95_bytes_per_second", "DISK P95 /S", Bytes, Everyone},
		{"network_p95_bytes_per_second", "NETWORK P95 /S", Bytes, Everyone},
		{"seen_ratio", "SEEN", Percent, Everyone},
	}}
	for _, m := range machines {
		cpu, ok1 := statsOf(m.used)
		memory, ok2 := statsOf(m.memory)
		disk, ok3 := statsOf(m.flow)
		wire, ok4 := statsOf(m.wire)
		cores, _ := latest(m.cores)
		size, _ := latest(m.total)
		vcpus, bytes := max(math.Ceil(cpu.p95/vcpuFill), 1), math.Ceil(memory.p95/memoryFill/gibibyte)*gibibyte
		share := min(cpu.share, memory.share)
		var best placement.Rating
		why := ""
		switch {
		case virtual.MatchString(m.vendor):
			why = "it is a VM already: " + m.vendor
		case !ok1 || !ok2:
			why = "its CPU or memory is not known"
		case share < seenEnough:
			why = fmt.Sprintf("it was seen in %.0f%% of the time only", 100*share)
		case core == 0:
			why = "no host's size is known"
		default:
			ratings := placement.Rate(snap, d, placement.VMSpec{
				Name: m.instance, VCPUs: int(min(vcpus, 1<<15)), Cluster: cluster, Use: placement.Use{CPUHertz: cpu.p95 * core, MemoryBytes: bytes},
			}, placement.Policy{Ceiling: r.Ceiling})
			best, why = bestOf(ratings, r.Scope, cluster)
		}
		verdict := "candidate"
		if why != "" {
			verdict = "no candidate"
		}
		t.Rows = append(t.Rows, []any{
			m.instance, m.job, verdict, why, cell(vcpus, ok1), cell(bytes, ok2), cell(best.Stars, best.Stars > 0), best.Name, best.Host.Ref, best.Host.Source, cell(cores, cores > 0),
			cell(cpu.mean/cores, ok1 && cores > 0), cell(cpu.p95/cores, ok1 && cores > 0), cell(size, size > 0), cell(memory.p95, ok2), cell(disk.p95, ok3), cell(wire.p95, ok4), share,
		})
		if ok1 && len(out.Charts) < maxCharts {
			out.Charts = append(out.Charts, Chart{
				Title: m.instance + ": cores in use", Unit: Count, Start: r.Range.Start, Step: r.Range.Step, Lines: []Line{{Name: "used", Values: m.used}}, Marks: []Mark{{"cores", cores}},
			})
		}
	}
	t.sortBy("stars")
	out.Tables = append(out.Tables, t)
}

// bestOf is the best host, or why there is none.
func bestOf(ratings []placement.Rating, s Scope, cluster inventory.ID) (best placement.Rating, why string) {
	if s.Cluster != "" && cluster.IsZero() {
		return best, "there is no cluster " + s.Cluster
	}
	for _, rating := range ratings {
		if s.Source != "" && rating.Host.Source != s.Source {
			continue
		}
		if rating.Stars > 0 {
			return rating, ""
		}
		if barred, ok := rating.Barred(); ok && why == "" {
			why = fmt.Sprintf("no host takes it: %s: %s", rating.Name, barred)
		}
	}
	return best, cmp.Or(why, "there is no host")
}

// demand is what each VM used 95 % of the time.
func (v *vms) demand() placement.Demand {
	d := placement.Demand{VMs: map[inventory.ID]placement.Use{}}
	for _, vm := range v.all {
		cpu, ok1 := statsOf(v.cpu[vm.id])
		memory, ok2 := statsOf(v.memory[vm.id])
		if ok1 && ok2 {
			d.VMs[vm.id] = placement.Use{CPUHertz: cpu.p95, MemoryBytes: memory.p95}
		}
	}
	return d
}

// usualCore is the median clock of the hosts' cores; 0 if no host has one.
func usualCore(hosts map[inventory.ID]hostSize) float64 {
	var all []float64
	for _, h := range hosts {
		if h.cores > 0 && h.hertz > 0 {
			all = append(all, h.hertz/h.cores)
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func clusterNamed(snap *inventory.Snapshot, s Scope) inventory.ID {
	for c := range snap.Clusters() {
		if s.Cluster != "" && c.Name == s.Cluster && (s.Source == "" || c.ID.Source == s.Source) {
			return c.ID
		}
	}
	return inventory.ID{}
}
