package guest

import (
	"context"
	"math"
	"regexp"
	"strings"

	dto "github.com/prometheus/client_model/go"

	"github.com/protip/protip/internal/inventory"
)

// MachinesPlatform is the platform of a source of physical machines, in inventory.Source.
const MachinesPlatform = "machines"

// machineSeries are the series that a machine is read from, beside those that tell which one it is.
var machineSeries = []string{
	"node_cpu_seconds_total", "node_memory_MemTotal_bytes", "node_memory_MemAvailable_bytes", "node_os_info",
	"node_disk_read_bytes_total", "node_disk_written_bytes_total", "node_network_receive_bytes_total", "node_network_transmit_bytes_total",
	"windows_cpu_time_total", "windows_memory_physical_total_bytes", "windows_memory_available_bytes", "windows_os_info",
	"windows_cs_physical_memory_bytes", "windows_os_physical_memory_free_bytes", // of releases before 0.30
	"windows_logical_disk_read_bytes_total", "windows_logical_disk_write_bytes_total", "windows_net_bytes_received_total", "windows_net_bytes_sent_total",
}

// flow is a counter that is added up over a machine's devices.
type flow struct {
	metric  inventory.Metric
	sources []flowSource
}

// flowSource is a family of one exporter, and which of its devices are meant: what is made of others would count their bytes twice.
type flowSource struct {
	family, label string
	devices       *regexp.Regexp
}

var (
	linuxDisks   = regexp.MustCompile(`^(sd|hd|vd|xvd)[a-z]+$|^(nvme|mmcblk|cciss|dasd)[a-z0-9!]+$`) // and not dm-0, md0, loop0
	linuxNICs    = regexp.MustCompile(`^(en|eth|ib|wl)[^.:]*$`)                                      // and not bond0, br0, eth0.100, docker0
	anyDevice    = regexp.MustCompile(`^`)
	windowsWraps = regexp.MustCompile(`(?i)isatap|teredo|loopback|multiplexor|hyper-?v.virtual|vethernet`)
	flows        = [...]flow{
		{inventory.MachineDiskRead, []flowSource{{"node_disk_read_bytes_total", "device", linuxDisks}, {"windows_logical_disk_read_bytes_total", "volume", anyDevice}}},
		{inventory.MachineDiskWrite, []flowSource{{"node_disk_written_bytes_total", "device", linuxDisks}, {"windows_logical_disk_write_bytes_total", "volume", anyDevice}}},
		{inventory.MachineNetworkReceive, []flowSource{{"node_network_receive_bytes_total", "device", linuxNICs}, {"windows_net_bytes_received_total", "nic", anyDevice}}},
		{inventory.MachineNetworkTransmit, []flowSource{{"node_network_transmit_bytes_total", "device", linuxNICs}, {"windows_net_bytes_sent_total", "nic", anyDevice}}},
	}
)

// machine asks a target once, and reads the machine that it runs on.
func (s *scraper) machine(ctx context.Context, target string, past *past) answer {
	return s.get(ctx, target, func(families map[string]*dto.MetricFamily) answer {
		return answer{machine: readMachine(families), values: past.machine.measure(families)}
	})
}

// readMachine is what an answer tells of the machine itself. What it does not tell is left empty.
func readMachine(families map[string]*dto.MetricFamily) *inventory.Machine {
	m := &inventory.Machine{}
	if size := memoryOf(families); size > 0 {
		m.MemoryBytes = size
	}
	cpus := map[string]bool{}
	for _, family := range []struct{ name, label string }{{"node_cpu_seconds_total", "cpu"}, {"windows_cpu_time_total", "core"}} {
		for _, metric := range families[family.name].GetMetric() {
			cpus[label(metric, family.label)] = true
		}
	}
	m.CPUs = len(cpus)
	for _, metric := range families["node_dmi_info"].GetMetric() {
		m.Model = clip(strings.TrimSpace(label(metric, "system_vendor")+" "+label(metric, "product_name")), maxName)
		if id := label(metric, "product_uuid"); len(id) <= maxName {
			if _, ok := parseUUID(id); ok {
				m.UUID = strings.ToLower(id)
			}
		}
	}
	for family, name := range map[string]string{"node_os_info": "pretty_name", "windows_os_info": "product"} {
		for _, metric := range families[family].GetMetric() {
			m.OS = clip(label(metric, name), maxName)
		}
	}
	return m
}

// memoryOf is a machine's memory in bytes, NaN if it is not told.
func memoryOf(families map[string]*dto.MetricFamily) float64 {
	return first(families, "node_memory_MemTotal_bytes", "windows_memory_physical_total_bytes", "windows_cs_physical_memory_bytes")
}

// first is the value of the first of some gauges that is there and finite, NaN if none is.
func first(families map[string]*dto.MetricFamily, names ...string) float64 {
	for _, name := range names {
		for _, metric := range families[name].GetMetric() {
			if v := value(metric); !math.IsNaN(v) && !math.IsInf(v, 0) {
				return v
			}
		}
	}
	return math.NaN()
}

// counted reports whether a counter can have come to a value.
func counted(v float64) bool { return v >= 0 && v < 1<<63 }

// machinePast is what a machine's counters were at the look before, and what came together since the first.
type machinePast struct {
	cpu   map[cpuMode]float64
	flows [len(flows)]map[string]float64
	total [len(flows)]float64
}

type cpuMode struct{ cpu, mode string }

// measure reads what is measured of a machine, and keeps its counters for the next look.
func (p *machinePast) measure(families map[string]*dto.MetricFamily) []inventory.Value {
	var out []inventory.Value
	if busy, ok := p.busy(families); ok {
		out = append(out, inventory.Value{Metric: inventory.MachineCPUUsageRatio, Value: busy})
	}
	free := first(families, "node_memory_MemAvailable_bytes", "windows_memory_available_bytes", "windows_os_physical_memory_free_bytes")
	if used := memoryOf(families) - free; used >= 0 && free >= 0 {
		out = append(out, inventory.Value{Metric: inventory.MachineMemoryUsage, Value: used})
	}
	for i := range flows {
		if v, ok := p.flow(i, families); ok {
			out = append(out, inventory.Value{Metric: flows[i].metric, Value: v})
		}
	}
	return out
}

// busy is the share of all CPUs' time, since the look before, in which they did something. It is not known at the first look, nor when
// the counters began anew. Windows counts interrupts and deferred calls as privileged time too.
func (p *machinePast) busy(families map[string]*dto.MetricFamily) (ratio float64, ok bool) {
	idle := map[string]bool{"idle": true, "iowait": true}
	within := map[string]bool{"interrupt": true, "dpc": true}
	now := map[cpuMode]float64{}
	read := func(family, cpu string, skip map[string]bool) {
		for _, metric := range families[family].GetMetric() {
			mode := label(metric, "mode")
			if v := value(metric); counted(v) && !skip[mode] {
				now[cpuMode{label(metric, cpu), mode}] = v
			}
		}
	}
	read("node_cpu_seconds_total", "cpu", nil)
	read("windows_cpu_time_total", "core", within)
	was := p.cpu
	p.cpu = now
	var used, all float64
	for key, v := range now {
		before, known := was[key]
		if !known {
			continue
		}
		added := v - before
		if added < 0 {
			if !idle[key.mode] {
				return 0, false
			}
			added = 0 // Linux itself takes some idle time back
		}
		all += added
		if !idle[key.mode] {
			used += added
		}
	}
	return used / all, all > 0
}

// maxGone bounds the devices that are remembered although they are not there.
const maxGone = 1000

// flow is what has come together of a counter since the first look, over all of the machine's devices: a sum of their counters would
// fall when one goes, and look like a reset of all. One that was reset adds what it has counted since, one that is new adds from now on,
// and one that was away what it counted meanwhile.
func (p *machinePast) flow(i int, families map[string]*dto.MetricFamily) (total float64, ok bool) {
	now := map[string]float64{}
	for _, src := range flows[i].sources {
		for _, metric := range families[src.family].GetMetric() {
			device := label(metric, src.label)
			if v := value(metric); counted(v) && src.devices.MatchString(device) && !windowsWraps.MatchString(device) {
				now[device] = v
			}
		}
	}
	if len(now) == 0 {
		return 0, false
	}
	for device, v := range now {
		was, known := p.flows[i][device]
		switch {
		case known && v >= was:
			p.total[i] += v - was
		case known:
			p.total[i] += v
		}
	}
	for device, v := range p.flows[i] {
		if _, there := now[device]; !there && len(now) < maxGone {
			now[device] = v
		}
	}
	p.flows[i] = now
	return p.total[i], true
}

// tell makes a delta of what was seen of a machine. One that does not answer stays as it was, and its samples grow old.
func (s *subject) tell(ans answer, now int64) inventory.Delta {
	d := inventory.Delta{Source: s.source}
	if ans.machine != nil {
		ans.machine.ID, ans.machine.Name = s.machine.ID, s.machine.Name
		s.machine = ans.machine
		if len(ans.values) > 0 {
			d.Samples = []inventory.SampleSet{{ID: s.machine.ID, At: now, Values: ans.values}}
		}
	}
	s.machine.VM = inventory.ID{}
	if s.joined.how == byUUID || s.joined.how == byMAC { // an address alone may be a gateway's
		s.machine.VM = s.joined.vm
	}
	d.Machines = []inventory.Machine{*s.machine}
	return d
}
