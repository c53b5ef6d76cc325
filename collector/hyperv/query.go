package hyperv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/platform/winrm"
)

// query is one class, and what of it is asked for.
type query struct {
	namespace, class string
	columns          []string
	where            string
	gives            string // what is absent without it, for people
}

// Namespaces.
const (
	cimv2          = "root/cimv2"
	virtualization = "root/virtualization/v2"
	mscluster      = "root/mscluster"
)

// What is asked of each host at each interval.
var (
	qSummary = &query{
		virtualization, "Msvm_SummaryInformation",
		[]string{"Name", "ElementName", "EnabledState", "HealthState", "NumberOfProcessors", "MemoryUsage", "Heartbeat", "UpTime", "GuestOperatingSystem"},
		"", "the VMs' memory and heartbeat",
	}
	// qComputers is asked where the one above cannot be enumerated.
	qComputers = &query{
		virtualization, "Msvm_ComputerSystem",
		[]string{"Name", "ElementName", "EnabledState", "HealthState", "OnTimeInMilliseconds"},
		"", "the VMs",
	}
	qSystem = &query{
		cimv2, "Win32_OperatingSystem",
		[]string{"FreePhysicalMemory", "LastBootUpTime", "LocalDateTime", "Caption", "Version"},
		"", "the host's memory and uptime",
	}
	qLogical = &query{
		cimv2, "Win32_PerfRawData_HvStats_HyperVHypervisorLogicalProcessor",
		[]string{"PercentTotalRunTime", "PercentTotalRunTime_Base"},
		"Name = '_Total'", "the host's CPU usage",
	}
	qRoot = &query{
		cimv2, "Win32_PerfRawData_HvStats_HyperVHypervisorRootVirtualProcessor",
		[]string{"PercentTotalRunTime", "PercentTotalRunTime_Base"},
		"Name = '_Total'", "the root partition's CPU usage",
	}
	qVirtual = &query{
		cimv2, "Win32_PerfRawData_HvStats_HyperVHypervisorVirtualProcessor",
		[]string{"Name", "PercentTotalRunTime", "PercentTotalRunTime_Base", "CPUWaitTimePerDispatch"},
		"", "CPU usage and contention of VMs",
	}
	qDynamic = &query{
		cimv2, "Win32_PerfRawData_BalancerStats_HyperVDynamicMemoryVM",
		[]string{"Name", "PhysicalMemory", "CurrentPressure"},
		"", "the VMs' memory demand",
	}
	qBalancer = &query{
		cimv2, "Win32_PerfRawData_BalancerStats_HyperVDynamicMemoryBalancer",
		[]string{"AveragePressure"},
		"", "the host's memory pressure",
	}
	qStorage = &query{
		cimv2, "Win32_PerfRawData_Counters_HyperVVirtualStorageDevice",
		[]string{"Name", "ReadBytesPersec", "WriteBytesPersec", "ReadCount", "WriteCount"},
		"", "disk traffic of VMs",
	}
	qNetwork = &query{
		cimv2, "Win32_PerfRawData_NvspNicStats_HyperVVirtualNetworkAdapter",
		[]string{"Name", "BytesReceivedPersec", "BytesSentPersec", "PacketsReceivedPersec", "PacketsSentPersec", "DroppedPacketsIncomingPersec", "DroppedPacketsOutgoingPersec"},
		"", "network traffic of VMs",
	}
)

// What is asked of each host every five minutes, a few at a time.
var (
	qComputer = &query{
		cimv2, "Win32_ComputerSystem",
		[]string{"Name", "DNSHostName", "Domain", "Manufacturer", "Model", "NumberOfLogicalProcessors", "TotalPhysicalMemory"},
		"", "the host's capacity",
	}
	qProcessor = &query{
		cimv2, "Win32_Processor",
		[]string{"Name", "MaxClockSpeed", "NumberOfLogicalProcessors"},
		"", "the host's CPU speed",
	}
	qMember = &query{
		mscluster, "MSCluster_Cluster",
		[]string{"Name", "Fqdn", "AutoBalancerMode", "ClusterEnforcedAntiAffinity"},
		"", "the cluster",
	}
	qSettings = &query{
		virtualization, "Msvm_VirtualSystemSettingData",
		[]string{"VirtualSystemIdentifier", "BIOSGUID"},
		"VirtualSystemType = 'Microsoft:Hyper-V:System:Realized'", "the VMs' BIOS UUIDs",
	}
	qMemory = &query{
		virtualization, "Msvm_MemorySettingData",
		[]string{"InstanceID", "VirtualQuantity", "Limit", "Reservation", "DynamicMemoryEnabled"},
		"", "the VMs' configured memory",
	}
	qCount = &query{
		virtualization, "Msvm_ProcessorSettingData",
		[]string{"InstanceID", "VirtualQuantity"},
		"", "the VMs' processors",
	}
	qDisks = &query{
		virtualization, "Msvm_StorageAllocationSettingData",
		[]string{"InstanceID", "HostResource"},
		"", "whose disks are whose, and with it the disk traffic of VMs",
	}
	qPorts = &query{
		virtualization, "Msvm_SyntheticEthernetPortSettingData",
		[]string{"InstanceID", "Address"},
		"", "the VMs' MAC addresses",
	}
	qSwitches = &query{
		virtualization, "Msvm_VirtualEthernetSwitch",
		[]string{"Name", "ElementName"},
		"", "the host's virtual switches",
	}
	qConnections = &query{
		virtualization, "Msvm_EthernetPortAllocationSettingData",
		[]string{"InstanceID", "HostResource", "EnabledState"},
		"", "the virtual switches that VMs are attached to",
	}
	qExchange = &query{
		virtualization, "Msvm_KvpExchangeComponent",
		[]string{"SystemName", "GuestIntrinsicExchangeItems"},
		"", "the guests' names and addresses",
	}
	qMigration = &query{
		virtualization, "Msvm_VirtualSystemMigrationServiceSettingData",
		[]string{"EnableVirtualSystemMigration"},
		"", "whether the host migrates live",
	}
)

// What is asked of one node of a cluster at each interval, and what of one every five minutes.
var (
	qNodes  = &query{mscluster, "MSCluster_Node", []string{"Name", "State", "NodeDrainStatus"}, "", "the nodes' states"}
	qOwners = &query{mscluster, "MSCluster_ResourceGroup", []string{"Name", "OwnerNode", "State"}, "GroupType = 111", "the VMs' owners"}

	qGroups = &query{
		mscluster, "MSCluster_ResourceGroup",
		[]string{"Name", "Id", "GroupType", "Priority", "AntiAffinityClassNames"},
		"", "priorities and anti-affinity",
	}
	qRoles = &query{
		mscluster, "MSCluster_Resource",
		[]string{"OwnerGroup", "PrivateProperties"},
		"Type = 'Virtual Machine'", "which role is which VM",
	}
	qVolumes = &query{
		mscluster, "MSCluster_ClusterSharedVolume",
		[]string{"Name", "VolumeName", "FaultState"},
		"", "the cluster shared volumes",
	}
	qPartitions = &query{
		mscluster, "MSCluster_DiskPartition",
		[]string{"Path", "TotalSize", "FreeSpace", "FileSystem"},
		"", "size and free space of the cluster shared volumes",
	}
)

// wql is the query for some of its columns.
func (q *query) wql(columns []string) string {
	s := "SELECT " + strings.Join(columns, ",") + " FROM " + q.class
	if q.where != "" {
		s += " WHERE " + q.where
	}
	return s
}

// habit is what was found of a query at a host.
type habit struct {
	columns []string  // that there are; nil: all
	absent  bool      // there is no such class, or it may not be read
	until   time.Time // and when that is looked at again
	cost    int       // messages that it took last
}

// ask enumerates a query. What is wrong with the class alone is told to the observer, costs its instances, and is no error here
// (ok is false then): an error says that the host did not answer.
//
//	SELECT a, b, c --answered--> these
//	     | no such property, or class
//	     v
//	SELECT * --answered--> which of a, b, c there are; asked for these from now on, and for all again in five minutes
//	     | no such class
//	     v
//	not asked for five minutes
func (c *cycle) ask(ctx context.Context, q *query, each func(winrm.Instance)) (ok bool, err error) {
	n := c.node
	h := n.habits[q]
	if h == nil {
		h = &habit{}
		n.habits[q] = h
	}
	if h.until.Before(c.at) {
		h.columns, h.absent = nil, false
	}
	if h.absent {
		return false, nil
	}
	before := n.client.Traffic().Requests
	defer func() { h.cost = int(n.client.Traffic().Requests - before) }()
	columns := h.columns
	if columns == nil {
		columns = q.columns
	}
	err = c.enumerate(ctx, q, q.wql(columns), each)
	if errors.Is(err, winrm.ErrInvalidQuery) && h.columns == nil {
		h.until = c.at.Add(inventory.SlowInterval)
		if columns, err = c.columnsOf(ctx, q); err == nil && len(columns) > 0 {
			h.columns = columns
			err = c.enumerate(ctx, q, q.wql(columns), each)
		}
	}
	if err == nil {
		return true, nil
	}
	if !ofClass(err) {
		return false, err
	}
	kind := "decode"
	switch {
	case errors.Is(err, winrm.ErrInvalidQuery):
		kind = "class"
	case errors.Is(err, winrm.ErrAccessDenied):
		kind = "access"
	}
	if kind != "decode" {
		h.absent, h.until = true, c.at.Add(inventory.SlowInterval)
	}
	c.fault(kind, fmt.Errorf("%s: %w", q.gives, err))
	return false, nil
}

func (c *cycle) enumerate(ctx context.Context, q *query, wql string, each func(winrm.Instance)) error {
	rows := 0
	return c.node.client.Enumerate(ctx, winrm.Query{Namespace: q.namespace, WQL: wql}, func(i winrm.Instance) error {
		if rows++; rows > maxRows {
			return fmt.Errorf("%s has more than %d instances: %w", q.class, maxRows, winrm.ErrTooLarge)
		}
		each(i)
		return nil
	})
}

var errEnough = errors.New("enough")

// columnsOf looks at one instance for the columns that there are. Where there is no instance, it knows none.
func (c *cycle) columnsOf(ctx context.Context, q *query) (have []string, err error) {
	err = c.node.client.Enumerate(ctx, winrm.Query{Namespace: q.namespace, WQL: q.wql([]string{"*"}), MaxElements: 1}, func(i winrm.Instance) error {
		for _, column := range q.columns {
			if _, ok := i.Get(column); ok {
				have = append(have, column)
			}
		}
		return errEnough
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	for _, column := range q.columns {
		if err == nil && !slices.Contains(have, column) {
			c.fault("property", fmt.Errorf("%s has no %s: %s may be absent", q.class, column, q.gives))
		}
	}
	return have, err
}

// ofClass says whether an error is about what was asked, and not about the host.
func ofClass(err error) bool {
	if winrm.IsTimeout(err) || errors.Is(err, winrm.ErrQuota) || errors.Is(err, winrm.ErrCredentials) {
		return false
	}
	var f *winrm.Fault
	return errors.As(err, &f) || errors.Is(err, winrm.ErrInvalidQuery) || errors.Is(err, winrm.ErrMalformed) || errors.Is(err, winrm.ErrTooLarge)
}
