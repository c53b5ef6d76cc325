package capture

// Class is a class of WMI, and where it is.
type Class struct{ Namespace, Name string }

// Classes are what protip asks Windows hosts for, or may: Hyper-V hosts, nodes of failover clusters, guests, and Virtual Server
// 2005. A host that has some of them answers the rest with a fault, which is recorded too.
func Classes() []Class {
	var out []Class
	for _, g := range []struct {
		namespace string
		names     []string
	}{
		{"root/cimv2", []string{
			"Win32_OperatingSystem", "Win32_ComputerSystem", "Win32_Processor", "Win32_LogicalDisk", "Win32_Service",
			"Win32_ComputerSystemProduct", "Win32_NetworkAdapterConfiguration", "Win32_PerfRawData_PerfDisk_LogicalDisk",
			"Win32_PerfRawData_HvStats_HyperVHypervisor", "Win32_PerfRawData_HvStats_HyperVHypervisorLogicalProcessor",
			"Win32_PerfRawData_HvStats_HyperVHypervisorRootVirtualProcessor", "Win32_PerfRawData_HvStats_HyperVHypervisorVirtualProcessor",
			"Win32_PerfRawData_BalancerStats_HyperVDynamicMemoryBalancer", "Win32_PerfRawData_BalancerStats_HyperVDynamicMemoryVM",
			"Win32_PerfRawData_Counters_HyperVVirtualStorageDevice", "Win32_PerfRawData_StorageStats_HyperVVirtualStorageDevice",
			"Win32_PerfRawData_NvspNicStats_HyperVVirtualNetworkAdapter", "Win32_PerfRawData_PerfOS_Memory", "Win32_PerfRawData_PerfOS_Processor",
		}},
		{"root/virtualization/v2", []string{
			"Msvm_ComputerSystem", "Msvm_SummaryInformation", "Msvm_VirtualSystemSettingData", "Msvm_ProcessorSettingData", "Msvm_MemorySettingData",
			"Msvm_HeartbeatComponent", "Msvm_KvpExchangeComponent", "Msvm_GuestNetworkAdapterConfiguration", "Msvm_SyntheticEthernetPortSettingData",
			"Msvm_VirtualSystemMigrationService", "Msvm_VirtualSystemMigrationServiceSettingData", "Msvm_VirtualSystemMigrationCapabilities",
			"Msvm_VirtualSystemManagementServiceSettingData", "Msvm_MigrationJob",
		}},
		{"root/mscluster", []string{
			"MSCluster_Cluster", "MSCluster_Node", "MSCluster_ResourceGroup", "MSCluster_Resource", "MSCluster_ClusterSharedVolume", "MSCluster_DiskPartition",
		}},
		{"root/vm/virtualserver", []string{"VirtualMachine", "VirtualNetwork", "VirtualServer"}},
	} {
		for _, name := range g.names {
			out = append(out, Class{g.namespace, name})
		}
	}
	return out
}
