package report

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

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

// machine is what history knows of a physical machine.
type machine struct {
	id                          inventory.ID
	name, model, os, uuid       string
	vm                          string    // that it is in truth, with its source; empty if none is known
	used, memory, disk, network []float64 // cores; bytes; bytes a second
	cpus, bytes                 float64   // NaN if not known
}

// virtual are what a VM's firmware says that it is.
var virtual = regexp.MustCompile(`(?i)vmware|qemu|kvm|\bxen\b|hvm domu|virtualbox|innotek|bochs|bhyve|parallels|virtual machine|standard pc|amazon ec2|google compute|openstack|ovirt|rhev|nutanix ahv|alibaba cloud|droplet|vserver`)

func reportCandidates(ctx context.Context, r Request, out *Report) error {
	if r.Scope.Tag != "" {
		return errNoTags
	}
	half := func(from float64) func(float64) {
		return func(done float64) {
			if r.Progress != nil {
				r.Progress(from + 0.49*done)
			}
		}
	}
	machines, err := fetchMachines(ctx, &fetcher{past: r.Past, r: r.Range, progress: half(0), of: 7})
	if err != nil {
		return err
	}
	v, err := fetchVMs(ctx, &fetcher{past: r.Past, r: r.Range, progress: half(0.5), of: vmQuestions}, Scope{})
	if err != nil {
		return err
	}
	snap, err := rules.At(ctx, r.Past, r.Range.End, inventory.HostCPUUsage, inventory.HostMemoryUsage, inventory.HostCPUUsageRatio, inventory.HostMemoryUsageRatio, inventory.HostCPUContention,
		inventory.VMCPUUsage, inventory.VMMemoryUsage, inventory.VMCPUContention)
	if err != nil {
		return err
	}
	// A source has machines or hosts: it narrows what it has.
	of := slices.DeleteFunc(slices.Clone(machines), func(m *machine) bool { return m.id.Source != r.Scope.Source })
	if len(of) > 0 {
		machines, r.Scope.Source = of, ""
	}
	candidates(r, machines, v, snap, out)
	return nil
}

func fetchMachines(ctx context.Context, f *fetcher) ([]*machine, error) {
	const kind = inventory.KindMachine
	info, err := f.info(ctx, "virt_machine_info", kind, "machine", "model", "os", "uuid", "vm", "vm_id", "vm_source")
	if err != nil {
		return nil, err
	}
	var facts [2]map[inventory.ID]float64
	for i, name := range []string{"virt_machine_cpus", "virt_machine_memory_capacity_bytes"} {
		if facts[i], err = f.lastly(ctx, name, kind); err != nil {
			return nil, err
		}
	}
	rate := func(m inventory.Metric) string {
		return fmt.Sprintf("avg by (source, machine_id) (rate(%s%s))", m, window(f.r.Step))
	}
	var values [4]map[inventory.ID][]float64
	for i, expr := range []string{
		measured(inventory.MachineCPUUsageRatio, f.r.Step), measured(inventory.MachineMemoryUsage, f.r.Step),
		rate(inventory.MachineDiskRead) + " + " + rate(inventory.MachineDiskWrite),
		rate(inventory.MachineNetworkReceive) + " + " + rate(inventory.MachineNetworkTransmit),
	} {
		if values[i], err = f.byObject(ctx, expr, kind); err != nil {
			return nil, err
		}
	}
	var out []*machine
	for _, id := range sorted(info) {
		last := info[id].last()
		m := &machine{
			id: id, name: last.Get("machine"), model: last.Get("model"), os: last.Get("os"), uuid: last.Get("uuid"),
			memory: values[1][id], disk: values[2][id], network: values[3][id], cpus: math.NaN(), bytes: math.NaN(),
		}
		if ref := last.Get("vm_id"); ref != "" {
			m.vm = cmp.Or(last.Get("vm"), ref) + " (" + last.Get("vm_source") + ")"
		}
		if v, ok := facts[0][id]; ok {
			m.cpus = v
			for _, busy := range values[0][id] {
				m.used = append(m.used, busy*v)
			}
		}
		if v, ok := facts[1][id]; ok {
			m.bytes = v
		}
		out = append(out, m)
	}
	return out, nil
}

// candidates says of each machine how large it would be as a VM and which host suits it best, or why it is no candidate.
func candidates(r Request, machines []*machine, v *vms, snap *inventory.Snapshot, out *Report) {
	out.Title = "Virtualization candidates"
	out.Notes = append(out.Notes,
		fmt.Sprintf("A VM is sized so that what the machine used 95%% of the time is %.0f%% of its vCPUs and %.0f%% of its memory. A logical CPU of the machine counts as a core of a usual host.", 100*vcpuFill, 100*memoryFill),
		"Each machine is rated by itself: two may not both fit on one host. Programs that need hardware of the machine are not seen from here.")
	d, core := v.demand(), usualCore(v.hosts)
	cluster := clusterNamed(snap, r.Scope)
	t := Table{Name: "candidates", Title: "Physical machines", Columns: []Column{
		{"machine", "MACHINE", Text, Everyone},
		{"machine_id", "", Text, Programs},
		{"source", "SOURCE", Text, Everyone},
		{"model", "MODEL", Text, Everyone},
		{"os", "OS", Text, Programs},
		{"verdict", "VERDICT", Text, Everyone},
		{"why", "WHY", Text, Everyone},
		{"vcpus", "VCPUS", Count, Everyone},
		{"memory_bytes", "MEMORY", Bytes, Everyone},
		{"stars", "STARS", Stars, Everyone},
		{"host", "BEST HOST", Text, Everyone},
		{"host_id", "", Text, Programs},
		{"host_source", "", Text, Programs},
		{"cpus", "CPUS", Count, Everyone},
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
		disk, ok3 := statsOf(m.disk)
		network, ok4 := statsOf(m.network)
		vcpus, bytes := max(math.Ceil(cpu.p95/vcpuFill), 1), math.Ceil(memory.p95/memoryFill/gibibyte)*gibibyte
		share := min(cpu.share, memory.share)
		var best placement.Rating
		why := m.barred(snap)
		switch {
		case why != "":
		case !ok1 || !ok2:
			why = "its CPU or memory was never told"
		case share < seenEnough:
			why = fmt.Sprintf("it was seen in %.0f%% of the time only", 100*share)
		case core == 0:
			why = "no host's size is known"
		default:
			ratings := placement.Rate(snap, d, placement.VMSpec{
				Name: m.name, VCPUs: int(min(vcpus, 1<<15)), Cluster: cluster, Use: placement.Use{CPUHertz: cpu.p95 * core, MemoryBytes: bytes},
			}, placement.Policy{Ceiling: r.Ceiling})
			best, why = bestOf(ratings, r.Scope, cluster)
		}
		verdict := "no candidate"
		if why == "" {
			verdict = "candidate"
			why = fmt.Sprintf("95%% of the time it uses %.1f of its %.0f CPUs and %s of its %s", cpu.p95, m.cpus, quantity(memory.p95, Bytes), shown(cell(m.bytes, true), Bytes))
		}
		t.Rows = append(t.Rows, []any{
			m.name, m.id.Ref, m.id.Source, m.model, m.os, verdict, why, cell(vcpus, ok1), cell(bytes, ok2), cell(best.Stars, best.Stars > 0), best.Name, best.Host.Ref, best.Host.Source, cell(m.cpus, true),
			cell(cpu.mean/m.cpus, ok1), cell(cpu.p95/m.cpus, ok1), cell(m.bytes, true), cell(memory.p95, ok2), cell(disk.p95, ok3), cell(network.p95, ok4), share,
		})
		if ok1 && len(out.Charts) < maxCharts {
			out.Charts = append(out.Charts, Chart{
				Title: fmt.Sprintf("%s (%s): CPUs in use", m.name, m.id.Source), Unit: Count, Start: r.Range.Start, Step: r.Range.Step, Lines: []Line{{Name: "used", Values: m.used}}, Marks: []Mark{{"CPUs", m.cpus}},
			})
		}
	}
	t.sortBy("stars")
	out.Tables = append(out.Tables, t)
}

// barred says why a machine cannot become a VM whatever it uses, empty if nothing speaks against it.
func (m *machine) barred(snap *inventory.Snapshot) string {
	if m.vm != "" {
		return "it is a VM already: " + m.vm
	}
	if virtual.MatchString(m.model) {
		return "it is a VM already: its firmware says " + m.model
	}
	for h := range snap.Hosts() {
		if m.uuid != "" && strings.EqualFold(h.UUID, m.uuid) {
			return fmt.Sprintf("it is the host %s (%s), which runs VMs", h.Name, h.ID.Source)
		}
	}
	return ""
}

// bestOf is the best host, or why there is none.
func bestOf(ratings []placement.Rating, s Scope, cluster inventory.ID) (best placement.Rating, why string) {
	if s.Cluster != "" && cluster.IsZero() {
		return best, "there is no cluster " + s.Cluster
	}
	for _, rating := range ratings {
		if s.Source != "" && rating.Host.Source != s.Source || s.Host != "" && rating.Name != s.Host {
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
