package hyperv

import (
	"fmt"
	"strings"
	"time"
)

// nodeMachine is a host as WMI shows it.
type nodeMachine struct {
	c *Cluster
	n *node
}

var _ machine = (*nodeMachine)(nil)

func (t *nodeMachine) name() string { return t.n.name }

func (t *nodeMachine) product() string { return "OS: " + t.c.opt.OS.version() + " SP: 0.0 Stack: 3.0" }

func (os OS) version() string {
	switch os {
	case Server23H2:
		return "10.0.25398"
	case server2003:
		return "5.2.3790"
	}
	return "10.0.17763"
}

// serves reports whether the host has a namespace: a standalone one has no cluster's.
func (t *nodeMachine) serves(namespace string) bool {
	return !t.c.opt.Standalone || namespace != "root/mscluster" && namespace != "root/hypervcluster/v2"
}

// provider makes all instances of a class as they are at the model's present.
type provider func(t *nodeMachine, m *model, add func(map[string]any))

// providers are by class; one that is in two namespaces has the namespace before it in the second.
var providers = map[string]provider{
	"Msvm_ComputerSystem":                           (*nodeMachine).computerSystems,
	"root/hypervcluster/v2:Msvm_ComputerSystem":     (*nodeMachine).clusterComputerSystems,
	"Msvm_SummaryInformation":                       (*nodeMachine).summaries,
	"Msvm_VirtualSystemSettingData":                 (*nodeMachine).systemSettings,
	"Msvm_MemorySettingData":                        (*nodeMachine).memorySettings,
	"Msvm_ProcessorSettingData":                     (*nodeMachine).processorSettings,
	"Msvm_StorageAllocationSettingData":             (*nodeMachine).storageSettings,
	"Msvm_SyntheticEthernetPortSettingData":         (*nodeMachine).portSettings,
	"Msvm_EthernetPortAllocationSettingData":        (*nodeMachine).connections,
	"Msvm_VirtualEthernetSwitch":                    (*nodeMachine).virtualSwitches,
	"Msvm_GuestNetworkAdapterConfiguration":         (*nodeMachine).guestAdapters,
	"Msvm_KvpExchangeComponent":                     (*nodeMachine).exchange,
	"Msvm_HeartbeatComponent":                       (*nodeMachine).heartbeats,
	"Msvm_VirtualSystemMigrationService":            (*nodeMachine).migrationService,
	"Msvm_VirtualSystemMigrationServiceSettingData": (*nodeMachine).migrationSettings,
	"Msvm_VirtualSystemManagementService":           (*nodeMachine).managementService,
	"Msvm_MigrationJob":                             (*nodeMachine).migrationJobs,

	"MSCluster_Cluster":                        (*nodeMachine).clusters,
	"MSCluster_Node":                           (*nodeMachine).clusterNodes,
	"MSCluster_ResourceGroup":                  (*nodeMachine).groups,
	"MSCluster_Resource":                       (*nodeMachine).resources,
	"MSCluster_ClusterSharedVolume":            (*nodeMachine).sharedVolumes,
	"MSCluster_DiskPartition":                  (*nodeMachine).partitions,
	"MSCluster_ClusterSharedVolumeToPartition": (*nodeMachine).volumePartitions,
	"MSCluster_ClusterSharedVolumeToResource":  (*nodeMachine).volumeResources,
	"MSCluster_ResourceGroupToResource":        (*nodeMachine).groupResources,
	"MSCluster_NodeToActiveGroup":              (*nodeMachine).nodeGroups,
	"MSCluster_Network":                        (*nodeMachine).networks,

	"Win32_OperatingSystem": (*nodeMachine).operatingSystem,
	"Win32_ComputerSystem":  (*nodeMachine).computer,
	"Win32_Processor":       (*nodeMachine).processors,
	"Win32_Service":         (*nodeMachine).services,
	"Win32_LogicalDisk":     (*nodeMachine).disks,

	"Win32_PerfRawData_HvStats_HyperVHypervisorLogicalProcessor":                  (*nodeMachine).logicalProcessors,
	"Win32_PerfRawData_HvStats_HyperVHypervisorVirtualProcessor":                  (*nodeMachine).virtualProcessors,
	"Win32_PerfRawData_HvStats_HyperVHypervisorRootVirtualProcessor":              (*nodeMachine).rootProcessors,
	"Win32_PerfRawData_BalancerStats_HyperVDynamicMemoryVM":                       (*nodeMachine).dynamicMemory,
	"Win32_PerfRawData_BalancerStats_HyperVDynamicMemoryBalancer":                 (*nodeMachine).balancer,
	"Win32_PerfRawData_NvspNicStats_HyperVVirtualNetworkAdapter":                  (*nodeMachine).networkAdapters,
	"Win32_PerfRawData_Counters_HyperVVirtualStorageDevice":                       (*nodeMachine).storageDevices,
	"Win32_PerfRawData_VidPerfProvider_HyperVVMVidPartition":                      (*nodeMachine).vidPartitions,
	"Win32_PerfRawData_CsvFsPerfProvider_ClusterCSVFileSystem":                    (*nodeMachine).volumeTraffic,
	"Win32_PerfRawData_PerfOS_Memory":                                             (*nodeMachine).osMemory,
	"Win32_PerfRawData_PerfOS_Processor":                                          (*nodeMachine).osProcessors,
	"Win32_PerfRawData_VmmsVirtualMachineStats_HyperVVirtualMachineHealthSummary": (*nodeMachine).healthSummary,
}

func (t *nodeMachine) instances(cl *class) ([]*instance, *fault) {
	if cl.name == "Msvm_SummaryInformation" && t.c.opt.NoSummaryQuery {
		return nil, wmiFault(wbemProviderIncapable, cl.name)
	}
	provide := providers[cl.namespace+":"+cl.name]
	if provide == nil {
		provide = providers[cl.name]
	}
	if provide == nil {
		return nil, nil
	}
	return look(t.c, func(m *model) []*instance { return t.all(m, cl, provide) }), nil
}

func (t *nodeMachine) all(m *model, cl *class, provide provider) []*instance {
	var all []*instance
	provide(t, m, func(values map[string]any) { all = append(all, &instance{cl, values}) })
	return all
}

// local is a text of the host's own, in its language.
func (t *nodeMachine) local(english, german string) string {
	if t.c.opt.Locale == "de-DE" {
		return german
	}
	return english
}

// mine are the VMs that the host has a configuration of, and those that are on their way to it live.
func (t *nodeMachine) mine(m *model) (here, arriving []*vm) {
	for _, vm := range m.vms {
		switch {
		case vm.on == t.n:
			here = append(here, vm)
		case vm.move != nil && vm.move.live && vm.move.to == t.n && vm.move.percent(m.at) >= 10:
			arriving = append(arriving, vm)
		}
	}
	return here, arriving
}

// Values of EnabledState beside those that vmState has.
const (
	stateStarting = 10
	stateSaving   = 32773
)

func (vm *vm) enabledState() int {
	if vm.state == vmSaved && vm.move != nil && vm.move.running() && !vm.move.moved {
		return stateSaving
	}
	return int(vm.state)
}

func (vm *vm) uptime(m *model) time.Duration {
	if vm.state != vmRunning {
		return 0
	}
	return m.at.Sub(vm.started)
}

func (t *nodeMachine) computerSystems(m *model, add func(map[string]any)) {
	add(map[string]any{
		"CreationClassName": "Msvm_ComputerSystem", "Name": strings.ToUpper(t.n.name), "ElementName": strings.ToUpper(t.n.name), "EnabledState": 2, "HealthState": 5,
		"Caption": t.local("Hosting Computer System", "Hostcomputersystem"), "Description": t.local("Microsoft Hosting Computer System", "Microsoft-Hostcomputersystem"),
		"OperationalStatus": []int{2}, "NumberOfNumaNodes": 2, "InstallDate": m.boot.AddDate(-1, 0, 0), "RequestedState": 12,
	})
	here, arriving := t.mine(m)
	for _, vm := range here {
		add(t.system(m, vm, vm.enabledState()))
	}
	for _, vm := range arriving {
		add(t.system(m, vm, stateStarting))
	}
}

// clusterComputerSystems are the VMs of all nodes, as the cluster's own provider shows them at any of them.
func (t *nodeMachine) clusterComputerSystems(m *model, add func(map[string]any)) {
	for _, vm := range m.vms {
		if vm.grouped {
			add(t.system(m, vm, vm.enabledState()))
		}
	}
}

func (t *nodeMachine) system(m *model, vm *vm, state int) map[string]any {
	return map[string]any{
		"CreationClassName": "Msvm_ComputerSystem", "Name": vm.id, "ElementName": vm.name, "EnabledState": state, "HealthState": 5, "RequestedState": 12,
		"Caption": t.local("Virtual Machine", "Virtueller Computer"), "Description": t.local("Microsoft Virtual Machine", "Virtueller Microsoft-Computer"),
		"OperationalStatus": []int{2}, "OnTimeInMilliseconds": uint64(vm.uptime(m).Milliseconds()), "NumberOfNumaNodes": 1, "ProcessID": uint32(4000 + 4*vm.index),
		"InstallDate": m.boot.AddDate(0, -3, 0), "TimeOfLastStateChange": vm.started, "TimeOfLastConfigurationChange": vm.started,
	}
}

func (t *nodeMachine) summaries(m *model, add func(map[string]any)) {
	here, arriving := t.mine(m)
	for _, vm := range here {
		add(t.summary(m, vm))
	}
	for _, vm := range arriving {
		s := t.summary(m, vm)
		s["EnabledState"], s["MemoryUsage"], s["ProcessorLoad"], s["Heartbeat"], s["UpTime"] = stateStarting, uint64(0), 0, nil, uint64(0)
		add(s)
	}
}

// Values of Heartbeat.
const (
	heartbeatOK        = 2
	heartbeatNoContact = 12
)

func (t *nodeMachine) summary(m *model, vm *vm) map[string]any {
	s := map[string]any{
		"InstanceID": "Microsoft:" + vm.id, "Name": vm.id, "ElementName": vm.name, "EnabledState": vm.enabledState(), "HealthState": 5, "OperationalStatus": []int{2},
		"NumberOfProcessors": vm.vcpus, "MemoryUsage": megabytes(vm.assigned()), "ProcessorLoad": 0, "UpTime": uint64(vm.uptime(m).Milliseconds()),
		"CreationTime": m.boot.AddDate(0, -3, 0), "Version": "9.0", "HostComputerSystemName": strings.ToUpper(t.n.name), "Shielded": false,
		"StatusDescriptions": []string{t.local("Operating normally", "Normaler Betrieb")}, "ReplicationState": 0, "ReplicationHealth": 0, "VirtualSystemSubType": "Microsoft:Hyper-V:SubType:2",
	}
	if vm.state == vmRunning {
		s["ProcessorLoad"] = int(100*vm.use.CPU/max(1, m.pressure(vm.on)) + 0.5)
		s["Heartbeat"] = vm.heartbeat()
		if vm.guest.Hostname != "" {
			s["GuestOperatingSystem"], s["ApplicationHealth"] = vm.guest.OS, 2
		}
		if vm.dynamic {
			s["MemoryAvailable"] = int(100 * (vm.assigned() - vm.demanded()) / vm.assigned())
			s["AvailableMemoryBuffer"] = int(100 * (vm.assigned() - vm.demanded()) / max(1, vm.demanded()))
		}
	}
	return s
}

// pressure is what the VMs of a node demand of its processors, over what there is for them.
func (m *model) pressure(n *node) float64 {
	sum := 0.0
	for _, vm := range m.on(n) {
		sum += vm.use.CPU * float64(vm.vcpus)
	}
	return sum / (float64(n.cores) * (1 - rootShare - hypervisorShare))
}

func megabytes(bytes float64) uint64 { return uint64(bytes / (1 << 20)) }

func (t *nodeMachine) systemSettings(m *model, add func(map[string]any)) {
	here, _ := t.mine(m)
	for _, vm := range here {
		add(t.setting(m, vm))
	}
}

func (t *nodeMachine) setting(m *model, vm *vm) map[string]any {
	return map[string]any{
		"InstanceID": "Microsoft:" + vm.id, "ElementName": vm.name, "VirtualSystemIdentifier": vm.id, "VirtualSystemType": "Microsoft:Hyper-V:System:Realized",
		"VirtualSystemSubType": "Microsoft:Hyper-V:SubType:2", "Version": "9.0", "BIOSGUID": "{" + m.guid("bios", vm.index) + "}",
		"BIOSSerialNumber": fmt.Sprintf("%04d-%04d-%04d", vm.index, 4711, 1138), "CreationTime": m.boot.AddDate(0, -3, 0), "ConfigurationID": vm.id,
		"ConfigurationDataRoot": vm.folder(), "Notes": []string{}, "SecureBootEnabled": true, "VirtualNumaEnabled": !vm.dynamic,
	}
}

// folder is where a VM's files are, by the name that it was made with.
func (vm *vm) folder() string {
	volume := "Local"
	if vm.volume != nil {
		volume = vm.volume.name
	}
	return `C:\ClusterStorage\` + volume + `\` + vm.created
}

func (vm *vm) disk() string { return vm.folder() + `\` + vm.created + `.vhdx` }

func (t *nodeMachine) memorySettings(m *model, add func(map[string]any)) {
	here, _ := t.mine(m)
	for _, vm := range here {
		s := map[string]any{
			"InstanceID": "Microsoft:" + vm.id + `\4764334d-e001-4176-82ee-5594ec9b530e`, "ElementName": t.local("Memory", "Arbeitsspeicher"), "ResourceType": 4,
			"ResourceSubType": "Microsoft:Hyper-V:Memory", "VirtualQuantity": megabytes(vm.memory), "VirtualQuantityUnits": "byte * 2^20", "AllocationUnits": "byte * 2^20",
			"Limit": megabytes(vm.memory), "Reservation": megabytes(vm.memory), "DynamicMemoryEnabled": vm.dynamic, "Weight": uint32(5000),
		}
		if vm.dynamic {
			s["Reservation"], s["TargetMemoryBuffer"], s["VirtualQuantity"] = megabytes(minimumMemory), uint32(20), megabytes(min(vm.memory, 1<<30))
		}
		add(s)
	}
}

func (t *nodeMachine) processorSettings(m *model, add func(map[string]any)) {
	here, _ := t.mine(m)
	for _, vm := range here {
		add(map[string]any{
			"InstanceID": "Microsoft:" + vm.id + `\b637f346-6a0e-4dec-af52-bd70cb80a21d\0`, "ElementName": t.local("Processor", "Prozessor"), "ResourceType": 3,
			"ResourceSubType": "Microsoft:Hyper-V:Processor", "VirtualQuantity": uint64(vm.vcpus), "VirtualQuantityUnits": "count", "LimitProcessorFeatures": vm.limited,
			"Limit": uint64(100_000), "Reservation": uint64(0), "Weight": uint32(100), "ExposeVirtualizationExtensions": false,
		})
	}
}

func (t *nodeMachine) storageSettings(m *model, add func(map[string]any)) {
	here, _ := t.mine(m)
	for _, vm := range here {
		add(map[string]any{
			"InstanceID": "Microsoft:" + vm.id + `\` + m.guid("controller", vm.index) + `\0\0\L`, "ElementName": t.local("Hard Disk Image", "Festplattenimage"), "ResourceType": 31,
			"ResourceSubType": "Microsoft:Hyper-V:Virtual Hard Disk", "HostResource": []string{vm.disk()}, "VirtualQuantity": uint64(1),
		})
	}
}

// port is the device GUID of a VM's network adapter.
func (m *model) port(vm *vm) string { return m.guid("port", vm.index) }

// mac is the address of a VM's network adapter, as Hyper-V writes it.
func (v *vm) mac() string { return fmt.Sprintf("00155D%06X", 0x10000+v.index) }

func (t *nodeMachine) portSettings(m *model, add func(map[string]any)) {
	here, _ := t.mine(m)
	for _, vm := range here {
		add(map[string]any{
			"InstanceID": "Microsoft:" + vm.id + `\` + m.port(vm), "ElementName": t.local("Network Adapter", "Netzwerkadapter"), "ResourceType": 10,
			"ResourceSubType": "Microsoft:Hyper-V:Synthetic Ethernet Port", "Address": vm.mac(), "StaticMacAddress": false,
			"VirtualSystemIdentifiers": []string{"{" + m.port(vm) + "}"}, "VirtualQuantity": uint64(1), "ClusterMonitored": true,
		})
	}
}

// switchID is the GUID of a host's virtual switch: each host has one of its own.
func (m *model) switchID(n *node, name string) string { return m.guid("switch "+name, n.id) }

func (t *nodeMachine) virtualSwitches(m *model, add func(map[string]any)) {
	for _, name := range t.n.switches {
		add(map[string]any{
			"CreationClassName": "Msvm_VirtualEthernetSwitch", "Name": m.switchID(t.n, name), "ElementName": name, "EnabledState": 5, "HealthState": 5, "RequestedState": 12,
			"Caption": t.local("Virtual Switch", "Virtueller Switch"), "OperationalStatus": []int{2}, "InstallDate": m.boot.AddDate(-1, 0, 0),
		})
	}
}

// connections are what VMs' network adapters are plugged into, and the ports of the switches' own.
func (t *nodeMachine) connections(m *model, add func(map[string]any)) {
	connection := func(of, port string) map[string]any {
		return map[string]any{
			"InstanceID": "Microsoft:" + of + `\` + port + `\C`, "ElementName": t.local("Ethernet Switch Port Settings", "Ethernet-Switchporteinstellungen"), "ResourceType": 33,
			"ResourceSubType": "Microsoft:Hyper-V:Ethernet Connection", "EnabledState": 2, "VirtualQuantity": uint64(1),
		}
	}
	for _, name := range t.n.switches {
		add(connection(m.switchID(t.n, name), m.guid("own port", t.n.id)))
	}
	here, _ := t.mine(m)
	for _, vm := range here {
		if len(vm.switches) == 0 { // the adapter is there, and not plugged in
			c := connection(vm.id, m.port(vm))
			c["EnabledState"], c["LastKnownSwitchName"] = 3, DefaultSwitch
			add(c)
		}
		for i, name := range vm.switches {
			c := connection(vm.id, m.guid("port", vm.index+i<<16))
			c["HostResource"] = []string{fmt.Sprintf(`\\%s\root\virtualization\v2:Msvm_VirtualEthernetSwitch.CreationClassName="Msvm_VirtualEthernetSwitch",Name="%s"`,
				strings.ToUpper(t.n.name), m.switchID(t.n, name))}
			c["LastKnownSwitchName"] = name
			add(c)
		}
	}
}

func (t *nodeMachine) guestAdapters(m *model, add func(map[string]any)) {
	here, _ := t.mine(m)
	for _, vm := range here {
		config := map[string]any{"InstanceID": `Microsoft:GuestNetwork\` + vm.id + `\` + m.port(vm), "DHCPEnabled": false, "ProtocolIFType": 4096}
		if vm.state == vmRunning {
			config["IPAddresses"] = vm.guest.IPs
		}
		add(config)
	}
}

func (t *nodeMachine) exchange(m *model, add func(map[string]any)) {
	here, _ := t.mine(m)
	for _, vm := range here {
		device := map[string]any{
			"CreationClassName": "Msvm_KvpExchangeComponent", "SystemCreationClassName": "Msvm_ComputerSystem", "SystemName": vm.id,
			"DeviceID": "Microsoft:" + vm.id + `\2A34B1C2-FD73-4043-8A5B-DD2159BC743F`, "ElementName": t.local("Key-Value Pair Exchange", "Schlüsselpaaraustausch"), "EnabledState": 3,
		}
		if vm.state == vmRunning && vm.guest.Hostname != "" {
			device["EnabledState"] = 2
			device["GuestIntrinsicExchangeItems"] = vm.pairs(t.c.opt.Domain)
		}
		add(device)
	}
}

func (t *nodeMachine) heartbeats(m *model, add func(map[string]any)) {
	here, _ := t.mine(m)
	for _, vm := range here {
		device := map[string]any{
			"CreationClassName": "Msvm_HeartbeatComponent", "SystemCreationClassName": "Msvm_ComputerSystem", "SystemName": vm.id,
			"DeviceID": "Microsoft:" + vm.id + `\84EAAE65-2F2E-45F5-9BB5-0E857DC8EB47`, "ElementName": t.local("Heartbeat", "Takt"), "EnabledState": 3,
		}
		if vm.state == vmRunning {
			device["EnabledState"], device["OperationalStatus"] = 2, []int{vm.heartbeat()}
		}
		add(device)
	}
}

func (vm *vm) heartbeat() int {
	if vm.guest.Hostname == "" {
		return heartbeatNoContact
	}
	return heartbeatOK
}

// pairs are what the guest tells its host, each an object in the notation of CIM-XML.
func (vm *vm) pairs(domain string) []string {
	var v4, v6 []string
	for _, ip := range vm.guest.IPs {
		if strings.Contains(ip, ":") {
			v6 = append(v6, ip)
		} else {
			v4 = append(v4, ip)
		}
	}
	var items []string
	for _, p := range [][2]string{
		{"FullyQualifiedDomainName", vm.guest.Hostname + "." + domain},
		{"OSName", vm.guest.OS},
		{"OSVersion", "10.0.20348"},
		{"ProcessorArchitecture", "9"},
		{"IntegrationServicesVersion", "10.0.20348"},
		{"NetworkAddressIPv4", strings.Join(v4, ";")},
		{"NetworkAddressIPv6", strings.Join(v6, ";")},
	} {
		items = append(items, cimXML("Msvm_KvpExchangeDataItem", "Data", p[1], "Name", p[0], "Source", "2"))
	}
	return items
}

func (t *nodeMachine) service(class, english, german string) map[string]any {
	return map[string]any{
		"CreationClassName": class, "SystemCreationClassName": "Msvm_ComputerSystem", "SystemName": strings.ToUpper(t.n.name), "Name": class,
		"ElementName": t.local(english, german), "Started": true, "EnabledState": 2,
	}
}

func (t *nodeMachine) migrationService(m *model, add func(map[string]any)) {
	s := t.service("Msvm_VirtualSystemMigrationService", "Hyper-V Virtual System Migration Service", "Hyper-V-Dienst zum Migrieren virtueller Systeme")
	s["ActiveVirtualSystemMigrationCount"], s["ActiveStorageMigrationCount"] = uint32(m.active(t.n)), uint32(0)
	s["MigrationServiceListenerIPAddressList"] = []string{fmt.Sprintf("10.10.0.%d", t.n.id)}
	add(s)
}

func (t *nodeMachine) migrationSettings(_ *model, add func(map[string]any)) {
	add(map[string]any{
		"InstanceID": "Microsoft:" + t.n.name + `\MigrationService`, "EnableVirtualSystemMigration": true, "MaximumActiveVirtualSystemMigration": uint32(t.c.opt.ActiveMigrations),
		"MaximumActiveStorageMigration": uint32(2), "AuthenticationType": 1, "EnableCompression": true, "EnableSmbTransport": false,
	})
}

func (t *nodeMachine) managementService(_ *model, add func(map[string]any)) {
	s := t.service("Msvm_VirtualSystemManagementService", "Hyper-V Virtual System Management Service", "Hyper-V-Verwaltungsdienst für virtuelle Systeme")
	s["Name"] = "vmms"
	add(s)
}

// Values of JobState.
const (
	jobStarting   = 3
	jobRunning    = 4
	jobCompleted  = 7
	jobTerminated = 8
	jobException  = 10
)

// jobsKept is how long a job is told of after its end.
const jobsKept = 5 * time.Minute

// migrationJobs are those of migrations away from this host. One that waits in the cluster's queue has no job yet; a host of none has
// given its job away and tells it from then on.
func (t *nodeMachine) migrationJobs(m *model, add func(map[string]any)) {
	for _, mg := range m.migrations {
		if mg.from != t.n || mg.waiting() && mg.vm.grouped || !mg.ended.IsZero() && m.at.Sub(mg.ended) > jobsKept {
			continue
		}
		add(t.job(m, mg))
	}
}

func (t *nodeMachine) job(m *model, mg *migration) map[string]any {
	job := map[string]any{
		"InstanceID": mg.job, "Name": t.local("Live migration", "Livemigration"), "Caption": t.local("Migrating virtual machine", "Virtueller Computer wird migriert"),
		"VirtualSystemName": mg.vm.id, "DestinationHost": mg.to.name, "MigrationType": 32768, "JobType": 99, "Cancellable": mg.ended.IsZero(), "PercentComplete": mg.percent(m.at),
		"JobState": jobRunning, "JobStatus": t.local("Job is running.", "Der Auftrag wird ausgeführt."), "OperationalStatus": []int{2}, "TimeBeforeRemoval": jobsKept,
		"StartTime": mg.queued, "TimeSubmitted": mg.queued, "DeleteOnCompletion": false, "ErrorCode": 0,
	}
	switch {
	case mg.waiting():
		job["JobState"] = jobStarting
	case mg.ended.IsZero():
		job["ElapsedTime"] = m.at.Sub(mg.queued)
	case mg.code == 0:
		job["JobState"], job["ElapsedTime"] = jobCompleted, mg.ended.Sub(mg.queued)
	default:
		words := fmt.Sprintf(t.local("Live migration of '%s' failed: %s (0x%08X).", "Fehler bei der Livemigration von \"%s\": %s (0x%08X)."), mg.vm.name, t.reason(mg.code), mg.code)
		job["JobState"], job["ErrorCode"], job["ErrorDescription"], job["ErrorSummaryDescription"] = jobException, 32768, words, words
		job["ElapsedTime"], job["OperationalStatus"] = mg.ended.Sub(mg.queued), []int{6}
		if mg.canceled {
			job["JobState"] = jobTerminated
		}
	}
	return job
}

// reason is an error in the host's words, which say no more than the number does.
func (t *nodeMachine) reason(code uint32) string {
	known := map[uint32][2]string{
		NoMemory:            {"Insufficient system resources exist to complete the requested service.", "Nicht genügend Systemressourcen, um den angeforderten Dienst auszuführen."},
		NoCredentials:       {"No credentials are available in the security package.", "Im Sicherheitspaket sind keine Anmeldeinformationen verfügbar."},
		MigrationTimeout:    {"This operation returned because the timeout period expired.", "Zeitüberschreitung."},
		LogonTypeNotGranted: {"The user has not been granted the requested logon type at this computer.", "Dem Benutzer wurde der angeforderte Anmeldetyp nicht erteilt."},
		OperationCanceled:   {"The operation was canceled.", "Der Vorgang wurde abgebrochen."},
		nodeDown:            {"The cluster node is down.", "Der Clusterknoten ist ausgefallen."},
	}
	words, is := known[code]
	if !is {
		return t.local("Unspecified error", "Unbekannter Fehler")
	}
	return t.local(words[0], words[1])
}
