package inventory

import (
	"math"
	"strings"
	"time"
)

// Metric names one measured quantity of one kind of object. Every platform gives the same metrics in the same unit and type.
type Metric uint8

// The metrics. Order within a kind is the order of exposition.
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

	HostCPUUsage
	HostCPUUsageRatio
	HostCPUContention
	HostCPUContentionMax
	HostMemoryUsage
	HostMemoryUsageRatio
	HostUptime

	DatastoreFree
	DatastoreReadLatency
	DatastoreWriteLatency

	ServiceLatency

	ClusterCPUUsage
	ClusterMemoryUsage

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
	Unit string // Prometheus base unit: hertz, bytes, seconds, ratio
	Help string
}

// SlowInterval is how often slow metrics are sampled. They are true for three times as long: what a platform makes every five
// minutes it may have only five minutes later.
const SlowInterval = 5 * time.Minute

var catalogue = [...]Desc{
	VMCPUUsage:        {"virt_vm_cpu_usage_hertz", KindVM, Gauge, "hertz", "CPU used by the VM."},
	VMCPUContention:   {"virt_vm_cpu_contention_ratio", KindVM, Gauge, "ratio", "Time the vCPUs were ready but not running, over elapsed time and vCPUs."},
	VMCPUCoStop:       {"virt_vm_cpu_costop_ratio", KindVM, Gauge, "ratio", "Time the vCPUs were stopped to let their siblings catch up, over elapsed time and vCPUs."},
	VMMemoryUsage:     {"virt_vm_memory_usage_bytes", KindVM, Gauge, "bytes", "Host memory that backs the VM."},
	VMMemoryActive:    {"virt_vm_memory_active_bytes", KindVM, Gauge, "bytes", "Guest memory touched lately, as the platform estimates it."},
	VMMemoryBalloon:   {"virt_vm_memory_balloon_bytes", KindVM, Gauge, "bytes", "Memory taken from the guest by its balloon driver."},
	VMMemorySwapped:   {"virt_vm_memory_swapped_bytes", KindVM, Gauge, "bytes", "Guest memory swapped out by the host."},
	VMDiskLatency:     {"virt_vm_disk_latency_seconds", KindVM, Gauge, "seconds", "Highest total latency of the VM's disks."},
	VMNetworkReceive:  {"virt_vm_network_receive_bytes_total", KindVM, Counter, "bytes", "Bytes received by the VM."},
	VMNetworkTransmit: {"virt_vm_network_transmit_bytes_total", KindVM, Counter, "bytes", "Bytes sent by the VM."},
	VMUptime:          {"virt_vm_uptime_seconds", KindVM, Gauge, "seconds", "Time since the VM was started."},

	HostCPUUsage:         {"virt_host_cpu_usage_hertz", KindHost, Gauge, "hertz", "CPU used on the host."},
	HostCPUUsageRatio:    {"virt_host_cpu_usage_ratio", KindHost, Gauge, "ratio", "CPU used on the host, over its capacity."},
	HostCPUContention:    {"virt_host_cpu_contention_ratio", KindHost, Gauge, "ratio", "CPU contention of the host's VMs, weighted by their vCPUs."},
	HostCPUContentionMax: {"virt_host_cpu_contention_max_ratio", KindHost, Gauge, "ratio", "CPU contention of the host's worst VM."},
	HostMemoryUsage:      {"virt_host_memory_usage_bytes", KindHost, Gauge, "bytes", "Memory used on the host."},
	HostMemoryUsageRatio: {"virt_host_memory_usage_ratio", KindHost, Gauge, "ratio", "Memory used on the host, over its capacity."},
	HostUptime:           {"virt_host_uptime_seconds", KindHost, Gauge, "seconds", "Time since the host was started."},

	DatastoreFree:         {"virt_datastore_free_bytes", KindDatastore, Gauge, "bytes", "Space on the datastore that nothing is written to."},
	DatastoreReadLatency:  {"virt_datastore_read_latency_seconds", KindDatastore, Gauge, "seconds", "Mean time that a read of the datastore took, over five minutes."},
	DatastoreWriteLatency: {"virt_datastore_write_latency_seconds", KindDatastore, Gauge, "seconds", "Mean time that a write to the datastore took, over five minutes."},

	ServiceLatency: {"virt_service_latency_seconds", KindService, Gauge, "seconds", "Time the service took to answer."},

	ClusterCPUUsage:    {"virt_cluster_cpu_usage_hertz", KindCluster, Gauge, "hertz", "CPU used in the cluster, over five minutes."},
	ClusterMemoryUsage: {"virt_cluster_memory_usage_bytes", KindCluster, Gauge, "bytes", "Host memory used in the cluster, over five minutes."},
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
		return ClusterCPUUsage, metricCount
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

// slow reports whether the metric is of a quantity that platforms themselves renew only every few minutes.
func (m Metric) slow() bool {
	return catalogue[m].Kind == KindDatastore || catalogue[m].Kind == KindCluster
}

// Desc is the metric's entry in the catalogue.
func (m Metric) Desc() Desc { return catalogue[m] }

// String is the metric's Prometheus name.
func (m Metric) String() string { return catalogue[m].Name }

// Field is the metric's name without the prefix that its kind implies: cpu_usage_ratio for virt_host_cpu_usage_ratio.
// It is what packs call the last sample of an object.
func (m Metric) Field() string {
	return strings.TrimPrefix(catalogue[m].Name, "virt_"+catalogue[m].Kind.String()+"_")
}

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
