package inventory

import (
	"math"
	"slices"
	"strings"
	"time"
)

// Metric names one measured quantity of one kind of object. Every platform gives the same metrics in the same unit and type.
type Metric uint8

// The metrics. Order within a kind is the order of exposition, and of importance: what does not fit a budget is the last.
const (
	VMCPUUsage Metric = iota
	VMCPUContention
	VMCPUCoStop
	VMMemoryUsage
	VMMemoryActive
	VMMemoryBalloon
	VMMemorySwapped
	VMDiskLatency
	VMNetworkReceive
	VMNetworkTransmit
	VMUptime
	VMCPUDemand
	VMCPUEntitlement
	VMCPULimited
	VMCPUSwapWait
	VMMemoryGranted
	VMMemoryShared
	VMMemoryCompressed
	VMMemoryContention
	VMMemorySwapIn
	VMMemorySwapOut
	VMDiskRead
	VMDiskWrite
	VMDiskReadOperations
	VMDiskWriteOperations
	VMNetworkReceivePackets
	VMNetworkTransmitPackets
	VMNetworkReceiveDropped
	VMNetworkTransmitDropped
	VMMemoryGuestUsage
	VMMemoryDemand
	VMHeartbeat

	HostCPUUsage
	HostCPUUsageRatio
	HostCPUContention
	HostCPUContentionMax
	HostMemoryUsage
	HostMemoryUsageRatio
	HostUptime
	HostMemoryBalloon
	HostMemorySwapped
	HostMemorySwapIn
	HostMemorySwapOut
	HostDiskLatency
	HostDiskRead
	HostDiskWrite
	HostDiskReadOperations
	HostDiskWriteOperations
	HostNetworkReceive
	HostNetworkTransmit
	HostNetworkReceiveDropped
	HostNetworkTransmitDropped
	HostNetworkReceiveErrors
	HostNetworkTransmitErrors
	HostCPURoot
	HostMemoryPressure

	DatastoreFree
	DatastoreReadLatency
	DatastoreWriteLatency

	ServiceLatency

	ClusterCPUUsage
	ClusterMemoryUsage

	MachineCPUUsageRatio
	MachineMemoryUsage
	MachineDiskRead
	MachineDiskWrite
	MachineNetworkReceive
	MachineNetworkTransmit

	metricCount
)

// Type is a Prometheus metric type.
type Type string

// Metric types.
const (
	Gauge   Type = "gauge"
	Counter Type = "counter"
)

// Desc is the catalogue's entry of a metric.
type Desc struct {
	Name string // Prometheus name
	Kind Kind
	Type Type
	Unit string // Prometheus base unit: hertz, bytes, seconds, ratio; or what is counted: operations, packets
	Help string
}

// Group is what an owner may choose to collect or not: the kind for datastores and services, for all else the first word of
// the metric's field (cpu, memory, disk, network, uptime).
func (d Desc) Group() string {
	if d.Kind == KindDatastore || d.Kind == KindService {
		return d.Kind.String()
	}
	word, _, _ := strings.Cut(d.field(), "_")
	return word
}

func (d Desc) field() string { return strings.TrimPrefix(d.Name, "virt_"+d.Kind.String()+"_") }

// SlowInterval is how often slow metrics are sampled. They are true for three times as long: what a platform makes every five
// minutes it may have only five minutes later.
const SlowInterval = 5 * time.Minute

var catalogue = [...]Desc{
	VMCPUUsage:               {"virt_vm_cpu_usage_hertz", KindVM, Gauge, "hertz", "CPU used by the VM."},
	VMCPUContention:          {"virt_vm_cpu_contention_ratio", KindVM, Gauge, "ratio", "Time the vCPUs were ready but not running, over elapsed time and vCPUs."},
	VMCPUCoStop:              {"virt_vm_cpu_costop_ratio", KindVM, Gauge, "ratio", "Time the vCPUs were stopped to let their siblings catch up, over elapsed time and vCPUs."},
	VMMemoryUsage:            {"virt_vm_memory_usage_bytes", KindVM, Gauge, "bytes", "Host memory that backs the VM."},
	VMMemoryActive:           {"virt_vm_memory_active_bytes", KindVM, Gauge, "bytes", "Guest memory touched lately, as the platform estimates it."},
	VMMemoryBalloon:          {"virt_vm_memory_balloon_bytes", KindVM, Gauge, "bytes", "Memory taken from the guest by its balloon driver."},
	VMMemorySwapped:          {"virt_vm_memory_swapped_bytes", KindVM, Gauge, "bytes", "Guest memory swapped out by the host."},
	VMDiskLatency:            {"virt_vm_disk_latency_seconds", KindVM, Gauge, "seconds", "Highest total latency of the VM's disks."},
	VMNetworkReceive:         {"virt_vm_network_receive_bytes_total", KindVM, Counter, "bytes", "Bytes received by the VM."},
	VMNetworkTransmit:        {"virt_vm_network_transmit_bytes_total", KindVM, Counter, "bytes", "Bytes sent by the VM."},
	VMUptime:                 {"virt_vm_uptime_seconds", KindVM, Gauge, "seconds", "Time since the VM was started."},
	VMCPUDemand:              {"virt_vm_cpu_demand_hertz", KindVM, Gauge, "hertz", "CPU the VM would use if nothing held it back."},
	VMCPUEntitlement:         {"virt_vm_cpu_entitlement_hertz", KindVM, Gauge, "hertz", "CPU the VM may have, by its shares, reservation and limit and what the others want."},
	VMCPULimited:             {"virt_vm_cpu_limited_ratio", KindVM, Gauge, "ratio", "Time the vCPUs were ready but held back by the VM's limit, over elapsed time and vCPUs."},
	VMCPUSwapWait:            {"virt_vm_cpu_swap_wait_ratio", KindVM, Gauge, "ratio", "Time the vCPUs waited for memory that the host had swapped out, over elapsed time and vCPUs."},
	VMMemoryGranted:          {"virt_vm_memory_granted_bytes", KindVM, Gauge, "bytes", "Guest memory that is backed by the host, shared pages counted for each VM."},
	VMMemoryShared:           {"virt_vm_memory_shared_bytes", KindVM, Gauge, "bytes", "Guest memory that the VM shares with others or within itself."},
	VMMemoryCompressed:       {"virt_vm_memory_compressed_bytes", KindVM, Gauge, "bytes", "Guest memory that the host keeps compressed."},
	VMMemoryContention:       {"virt_vm_memory_contention_ratio", KindVM, Gauge, "ratio", "Time the VM waited for memory that was swapped out or compressed, over elapsed time."},
	VMMemorySwapIn:           {"virt_vm_memory_swap_in_bytes_total", KindVM, Counter, "bytes", "Guest memory the host swapped in."},
	VMMemorySwapOut:          {"virt_vm_memory_swap_out_bytes_total", KindVM, Counter, "bytes", "Guest memory the host swapped out."},
	VMDiskRead:               {"virt_vm_disk_read_bytes_total", KindVM, Counter, "bytes", "Bytes the VM read from its disks."},
	VMDiskWrite:              {"virt_vm_disk_write_bytes_total", KindVM, Counter, "bytes", "Bytes the VM wrote to its disks."},
	VMDiskReadOperations:     {"virt_vm_disk_read_operations_total", KindVM, Counter, "operations", "Reads of the VM from its disks."},
	VMDiskWriteOperations:    {"virt_vm_disk_write_operations_total", KindVM, Counter, "operations", "Writes of the VM to its disks."},
	VMNetworkReceivePackets:  {"virt_vm_network_receive_packets_total", KindVM, Counter, "packets", "Packets received by the VM."},
	VMNetworkTransmitPackets: {"virt_vm_network_transmit_packets_total", KindVM, Counter, "packets", "Packets sent by the VM."},
	VMNetworkReceiveDropped:  {"virt_vm_network_receive_dropped_packets_total", KindVM, Counter, "packets", "Packets to the VM that were dropped."},
	VMNetworkTransmitDropped: {"virt_vm_network_transmit_dropped_packets_total", KindVM, Counter, "packets", "Packets from the VM that were dropped."},
	VMMemoryGuestUsage:       {"virt_vm_memory_guest_usage_bytes", KindVM, Gauge, "bytes", "Memory that the guest itself uses and could not give to others without swapping."},
	VMMemoryDemand:           {"virt_vm_memory_demand_bytes", KindVM, Gauge, "bytes", "Memory that the guest would use if nothing held it back."},
	VMHeartbeat:              {"virt_vm_heartbeat_ratio", KindVM, Gauge, "ratio", "Share of the guest's heartbeats that came: 0 is a guest that does not answer its host."},

	HostCPUUsage:               {"virt_host_cpu_usage_hertz", KindHost, Gauge, "hertz", "CPU used on the host."},
	HostCPUUsageRatio:          {"virt_host_cpu_usage_ratio", KindHost, Gauge, "ratio", "CPU used on the host, over its capacity."},
	HostCPUContention:          {"virt_host_cpu_contention_ratio", KindHost, Gauge, "ratio", "CPU contention of the host's VMs, weighted by their vCPUs."},
	HostCPUContentionMax:       {"virt_host_cpu_contention_max_ratio", KindHost, Gauge, "ratio", "CPU contention of the host's worst VM."},
	HostMemoryUsage:            {"virt_host_memory_usage_bytes", KindHost, Gauge, "bytes", "Memory used on the host."},
	HostMemoryUsageRatio:       {"virt_host_memory_usage_ratio", KindHost, Gauge, "ratio", "Memory used on the host, over its capacity."},
	HostUptime:                 {"virt_host_uptime_seconds", KindHost, Gauge, "seconds", "Time since the host was started."},
	HostMemoryBalloon:          {"virt_host_memory_balloon_bytes", KindHost, Gauge, "bytes", "Memory taken from the host's guests by their balloon drivers."},
	HostMemorySwapped:          {"virt_host_memory_swapped_bytes", KindHost, Gauge, "bytes", "Guest memory that the host has swapped out."},
	HostMemorySwapIn:           {"virt_host_memory_swap_in_bytes_total", KindHost, Counter, "bytes", "Guest memory the host swapped in."},
	HostMemorySwapOut:          {"virt_host_memory_swap_out_bytes_total", KindHost, Counter, "bytes", "Guest memory the host swapped out."},
	HostDiskLatency:            {"virt_host_disk_latency_seconds", KindHost, Gauge, "seconds", "Highest total latency of the host's disks."},
	HostDiskRead:               {"virt_host_disk_read_bytes_total", KindHost, Counter, "bytes", "Bytes read from the host's disks."},
	HostDiskWrite:              {"virt_host_disk_write_bytes_total", KindHost, Counter, "bytes", "Bytes written to the host's disks."},
	HostDiskReadOperations:     {"virt_host_disk_read_operations_total", KindHost, Counter, "operations", "Reads from the host's disks."},
	HostDiskWriteOperations:    {"virt_host_disk_write_operations_total", KindHost, Counter, "operations", "Writes to the host's disks."},
	HostNetworkReceive:         {"virt_host_network_receive_bytes_total", KindHost, Counter, "bytes", "Bytes received by the host, its VMs' included."},
	HostNetworkTransmit:        {"virt_host_network_transmit_bytes_total", KindHost, Counter, "bytes", "Bytes sent by the host, its VMs' included."},
	HostNetworkReceiveDropped:  {"virt_host_network_receive_dropped_packets_total", KindHost, Counter, "packets", "Received packets that the host dropped."},
	HostNetworkTransmitDropped: {"virt_host_network_transmit_dropped_packets_total", KindHost, Counter, "packets", "Packets to be sent that the host dropped."},
	HostNetworkReceiveErrors:   {"virt_host_network_receive_error_packets_total", KindHost, Counter, "packets", "Packets the host received with errors."},
	HostNetworkTransmitErrors:  {"virt_host_network_transmit_error_packets_total", KindHost, Counter, "packets", "Packets the host could not send for errors."},
	HostCPURoot:                {"virt_host_cpu_root_ratio", KindHost, Gauge, "ratio", "CPU used by the host's own operating system, its root partition, over the host's capacity."},
	HostMemoryPressure:         {"virt_host_memory_pressure_ratio", KindHost, Gauge, "ratio", "Memory that the guests demand over what they are assigned; above 1 they want more."},

	DatastoreFree:         {"virt_datastore_free_bytes", KindDatastore, Gauge, "bytes", "Space on the datastore that nothing is written to."},
	DatastoreReadLatency:  {"virt_datastore_read_latency_seconds", KindDatastore, Gauge, "seconds", "Mean time that a read of the datastore took, over five minutes."},
	DatastoreWriteLatency: {"virt_datastore_write_latency_seconds", KindDatastore, Gauge, "seconds", "Mean time that a write to the datastore took, over five minutes."},

	ServiceLatency: {"virt_service_latency_seconds", KindService, Gauge, "seconds", "Time the service took to answer."},

	ClusterCPUUsage:    {"virt_cluster_cpu_usage_hertz", KindCluster, Gauge, "hertz", "CPU used in the cluster, over five minutes."},
	ClusterMemoryUsage: {"virt_cluster_memory_usage_bytes", KindCluster, Gauge, "bytes", "Host memory used in the cluster, over five minutes."},

	MachineCPUUsageRatio:   {"virt_machine_cpu_usage_ratio", KindMachine, Gauge, "ratio", "CPU used on the machine, over all of its logical CPUs."},
	MachineMemoryUsage:     {"virt_machine_memory_usage_bytes", KindMachine, Gauge, "bytes", "Memory of the machine that could not be given to others without swapping."},
	MachineDiskRead:        {"virt_machine_disk_read_bytes_total", KindMachine, Counter, "bytes", "Bytes read from the machine's disks."},
	MachineDiskWrite:       {"virt_machine_disk_write_bytes_total", KindMachine, Counter, "bytes", "Bytes written to the machine's disks."},
	MachineNetworkReceive:  {"virt_machine_network_receive_bytes_total", KindMachine, Counter, "bytes", "Bytes received by the machine's network adapters."},
	MachineNetworkTransmit: {"virt_machine_network_transmit_bytes_total", KindMachine, Counter, "bytes", "Bytes sent by the machine's network adapters."},
}

// span is the range [first, end) of a kind's metrics.
func span(k Kind) (first, end Metric) {
	switch k {
	case KindVM:
		return VMCPUUsage, HostCPUUsage
	case KindHost:
		return HostCPUUsage, DatastoreFree
	case KindDatastore:
		return DatastoreFree, ServiceLatency
	case KindService:
		return ServiceLatency, ClusterCPUUsage
	case KindCluster:
		return ClusterCPUUsage, MachineCPUUsageRatio
	case KindMachine:
		return MachineCPUUsageRatio, metricCount
	}
	return 0, 0
}

// MetricsOf lists the metrics of a kind, in order of exposition.
func MetricsOf(k Kind) []Metric {
	first, end := span(k)
	out := make([]Metric, 0, end-first)
	for m := first; m < end; m++ {
		out = append(out, m)
	}
	return out
}

// Slow reports whether the metric is of a quantity that platforms themselves renew only every few minutes.
func (m Metric) Slow() bool {
	return catalogue[m].Kind == KindDatastore || catalogue[m].Kind == KindCluster
}

// Desc is the metric's entry in the catalogue.
func (m Metric) Desc() Desc { return catalogue[m] }

// String is the metric's Prometheus name.
func (m Metric) String() string { return catalogue[m].Name }

// Field is the metric's name without the prefix that its kind implies: cpu_usage_ratio for virt_host_cpu_usage_ratio.
// It is what packs call the last sample of an object.
func (m Metric) Field() string { return catalogue[m].field() }

// Groups are the groups that metrics are of, in order.
func Groups() []string {
	var out []string
	for m := range metricCount {
		if g := m.Desc().Group(); !slices.Contains(out, g) {
			out = append(out, g)
		}
	}
	slices.Sort(out)
	return out
}

// MetricSet is which metrics are collected. The zero MetricSet is all of them.
type MetricSet struct{ without [metricCount]bool }

// OfGroups are the metrics of some groups. Nil is all groups, and empty is none.
func OfGroups(groups []string) (s MetricSet) {
	for m := range s.without {
		s.without[m] = groups != nil && !slices.Contains(groups, Metric(m).Desc().Group())
	}
	return s
}

// Has reports whether the metric is of the set.
func (s *MetricSet) Has(m Metric) bool { return !s.without[m] }

// IsAll reports whether every metric is.
func (s *MetricSet) IsAll() bool { return s.without == MetricSet{}.without }

// Sample is a value and the time it was true, in Unix milliseconds by protip's own clock. The zero Sample was never seen.
// A sample that grew too old keeps its time and loses its value (see Fleet.Expire).
type Sample struct {
	Value float64
	At    int64
}

// OK reports whether there is a value. Absent is not zero: nobody may read Value otherwise.
func (s Sample) OK() bool { return s.At != 0 && !math.IsNaN(s.Value) }

// Time is when the value was last true, zero if never.
func (s Sample) Time() time.Time {
	if s.At == 0 {
		return time.Time{}
	}
	return time.UnixMilli(s.At)
}

// Samples are the last samples of one object, in the order of MetricsOf its kind. It is nil until the first one came.
type Samples []Sample

// Of is the object's last sample of m, the zero Sample if there is none.
func (s Samples) Of(m Metric) Sample {
	first, end := span(catalogue[m].Kind)
	if len(s) != int(end-first) {
		return Sample{}
	}
	return s[m-first]
}

// Value is the object's last sample of m and whether it may be used.
func (s Samples) Value(m Metric) (float64, bool) {
	sample := s.Of(m)
	return sample.Value, sample.OK()
}
