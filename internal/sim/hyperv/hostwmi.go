package hyperv

import (
	"fmt"
	"strings"
	"time"
)

func (t *nodeMachine) operatingSystem(m *model, add func(map[string]any)) {
	add(operatingSystem(t.c.opt.OS, t.n.name, t.n.boot, m.at, t.n.memory, m.freeMemory(t.n), t.c.opt.OS.caption(), t.c.opt.Locale))
}

// caption is what Windows calls itself, in every language.
func (os OS) caption() string {
	switch os {
	case Server23H2:
		return "Microsoft Windows Server Datacenter"
	case server2003:
		return "Microsoft(R) Windows(R) Server 2003, Standard Edition"
	}
	return "Microsoft Windows Server 2019 Datacenter"
}

func operatingSystem(os OS, name string, boot, now time.Time, memory, free float64, caption, locale string) map[string]any {
	version := os.version()
	language := uint32(1033)
	if locale == "de-DE" {
		language = 1031
	}
	return map[string]any{
		"Name": caption + `|C:\Windows|\Device\Harddisk0\Partition4`, "Caption": caption, "CSName": strings.ToUpper(name), "CSCreationClassName": "Win32_ComputerSystem",
		"CreationClassName": "Win32_OperatingSystem", "Version": version, "BuildNumber": version[strings.LastIndex(version, ".")+1:], "OSLanguage": language, "OSType": 18,
		"MUILanguages": []string{locale}, "LastBootUpTime": boot, "LocalDateTime": now, "FreePhysicalMemory": uint64(max(0, free) / 1024), "TotalVisibleMemorySize": uint64(memory / 1024),
		"OSArchitecture": "64-bit", "Status": "OK", "ProductType": uint32(3), "InstallDate": boot.AddDate(-1, 0, 0), "CurrentTimeZone": 60, "WindowsDirectory": `C:\Windows`,
	}
}

func (t *nodeMachine) computer(_ *model, add func(map[string]any)) {
	add(computer(t.n.name, t.c.opt.Domain, "Dell Inc.", "PowerEdge R740", t.n.cores, t.n.memory))
}

func computer(name, domain, maker, model string, cores int, memory float64) map[string]any {
	return map[string]any{
		"Name": strings.ToUpper(name), "Caption": strings.ToUpper(name), "DNSHostName": name, "Domain": domain, "PartOfDomain": true, "Manufacturer": maker, "Model": model,
		"NumberOfLogicalProcessors": uint32(cores), "NumberOfProcessors": uint32(1 + cores/33), "TotalPhysicalMemory": uint64(memory), "HypervisorPresent": true, "DomainRole": 3,
		"CreationClassName": "Win32_ComputerSystem", "Status": "OK", "SystemType": "x64-based PC", "UserName": nil,
	}
}

func (t *nodeMachine) processors(_ *model, add func(map[string]any)) {
	for i := range 2 {
		add(map[string]any{
			"DeviceID": fmt.Sprintf("CPU%d", i), "SocketDesignation": fmt.Sprintf("CPU%d", i+1), "Name": "Intel(R) Xeon(R) Gold 6248 CPU @ 2.50GHz", "Manufacturer": "GenuineIntel",
			"MaxClockSpeed": uint32(2500), "CurrentClockSpeed": uint32(2500), "NumberOfCores": uint32(t.n.cores / 4), "NumberOfLogicalProcessors": uint32(t.n.cores / 2),
			"CreationClassName": "Win32_Processor", "Status": "OK", "SystemName": strings.ToUpper(t.n.name), "AddressWidth": 64, "Architecture": 9,
		})
	}
}

func (t *nodeMachine) services(_ *model, add func(map[string]any)) {
	for i, s := range []Service{
		{"vmms", t.local("Hyper-V Virtual Machine Management", "Hyper-V-Verwaltung virtueller Computer"), "Running", "Auto"},
		{"ClusSvc", t.local("Cluster Service", "Clusterdienst"), "Running", "Auto"},
		{"WinRM", t.local("Windows Remote Management (WS-Management)", "Windows-Remoteverwaltung (WS-Verwaltung)"), "Running", "Auto"},
		{"Spooler", t.local("Print Spooler", "Druckwarteschlange"), "Stopped", "Disabled"},
	} {
		if s.Name == "ClusSvc" && t.c.opt.Standalone {
			continue
		}
		add(s.row(t.n.name, i))
	}
}

// row is the service as Win32_Service.
func (s Service) row(host string, i int) map[string]any {
	row := map[string]any{
		"Name": s.Name, "DisplayName": orElse(s.DisplayName, s.Name), "Caption": orElse(s.DisplayName, s.Name), "State": s.State, "StartMode": s.StartMode, "Status": "OK",
		"Started": s.State == "Running", "SystemName": strings.ToUpper(host), "CreationClassName": "Win32_Service", "SystemCreationClassName": "Win32_ComputerSystem",
		"ProcessId": uint32(0), "ExitCode": uint32(0), "AcceptStop": s.State == "Running", "StartName": "LocalSystem", "ServiceType": "Own Process",
	}
	if s.State == "Running" {
		row["ProcessId"] = uint32(1000 + 4*i)
	}
	return row
}

func (t *nodeMachine) disks(_ *model, add func(map[string]any)) {
	add(map[string]any{
		"DeviceID": "C:", "Name": "C:", "Caption": "C:", "DriveType": uint32(3), "FileSystem": "NTFS", "Size": uint64(200 << 30), "FreeSpace": uint64(120 << 30), "VolumeName": "System",
		"CreationClassName": "Win32_LogicalDisk", "SystemName": strings.ToUpper(t.n.name),
	})
}

// perf begins a row of raw performance data: the clocks that its counters are to be read with.
func (m *model) perf(n *node, name string) map[string]any {
	ticks := uint64(m.at.Sub(n.boot) / 100)
	return map[string]any{
		"Name": name, "Timestamp_Sys100NS": fileTime(m.at), "Frequency_Sys100NS": uint64(10_000_000), "Timestamp_PerfTime": ticks, "Frequency_PerfTime": uint64(10_000_000),
		"Timestamp_Object": uint64(0), "Frequency_Object": uint64(0),
	}
}

// logicalProcessors are rows of one processor each, all alike, and _Total, their mean.
func (t *nodeMachine) logicalProcessors(m *model, add func(map[string]any)) {
	base := uint64(m.at.Sub(t.n.boot) / 100)
	row := func(name string) {
		r := m.perf(t.n, name)
		for property, v := range map[string]float64{
			"PercentGuestRunTime": t.n.guestTicks, "PercentHypervisorRunTime": t.n.hypervisorTicks, "PercentTotalRunTime": t.n.guestTicks + t.n.hypervisorTicks, "PercentIdleTime": t.n.idleTicks,
		} {
			r[property], r[property+"_Base"] = v, base
		}
		r["ContextSwitchesPersec"] = t.n.guestTicks / 2500
		add(r)
	}
	for i := range t.n.cores {
		row(fmt.Sprintf("Hv LP %d", i))
	}
	row("_Total")
}

// virtualProcessors are rows of each processor of each VM, by the VM's name, and _Total, their mean. Of two VMs of one name there
// are rows of the same name.
func (t *nodeMachine) virtualProcessors(m *model, add func(map[string]any)) {
	var total vm
	count := 0
	for _, vm := range m.on(t.n) {
		for i := range vm.vcpus {
			add(m.processor(t.n, fmt.Sprintf("%s:Hv VP %d", vm.name, i), vm, vm.vcpus))
		}
		count += vm.vcpus
		total.runTicks += vm.runTicks
		total.hypervisorTicks += vm.hypervisorTicks
		total.waitNanos += vm.waitNanos
		total.dispatches += vm.dispatches
	}
	if count > 0 {
		add(m.processor(t.n, "_Total", &total, count))
	}
}

func (m *model) processor(n *node, name string, vm *vm, parts int) map[string]any {
	r := m.perf(n, name)
	base := uint64(m.at.Sub(n.boot) / 100)
	share := func(sum float64) float64 { return sum / float64(parts) }
	for property, v := range map[string]float64{
		"PercentGuestRunTime": share(vm.runTicks), "PercentHypervisorRunTime": share(vm.hypervisorTicks), "PercentTotalRunTime": share(vm.runTicks + vm.hypervisorTicks),
		"PercentRemoteRunTime": 0,
	} {
		r[property], r[property+"_Base"] = v, base
	}
	r["CPUWaitTimePerDispatch"], r["CPUWaitTimePerDispatch_Base"] = share(vm.waitNanos), uint32(uint64(share(vm.dispatches)))
	return r
}

// rootProcessors are those of the root partition: it has as many as there are logical ones.
func (t *nodeMachine) rootProcessors(m *model, add func(map[string]any)) {
	base := uint64(m.at.Sub(t.n.boot) / 100)
	row := func(name string) {
		r := m.perf(t.n, name)
		for property, v := range map[string]float64{"PercentGuestRunTime": t.n.rootTicks, "PercentHypervisorRunTime": t.n.rootTicks / 20, "PercentTotalRunTime": 1.05 * t.n.rootTicks} {
			r[property], r[property+"_Base"] = v, base
		}
		add(r)
	}
	for i := range t.n.cores {
		row(fmt.Sprintf("Root VP %d", i))
	}
	row("_Total")
}

// dynamicMemory has rows of those VMs only that have dynamic memory.
func (t *nodeMachine) dynamicMemory(m *model, add func(map[string]any)) {
	for _, vm := range m.on(t.n) {
		if !vm.dynamic {
			continue
		}
		r := m.perf(t.n, vm.name)
		pressure := uint32(100*vm.demanded()/vm.assigned() + 0.5)
		r["PhysicalMemory"], r["GuestVisiblePhysicalMemory"] = uint32(megabytes(vm.assigned())), uint32(megabytes(vm.assigned()))
		r["CurrentPressure"], r["AveragePressure"], r["MinimumPressure"], r["MaximumPressure"] = pressure, pressure, pressure, pressure
		if t.c.opt.OS == Server23H2 {
			r["GuestAvailableMemory"] = uint32(megabytes(vm.assigned() - vm.demanded()))
		}
		add(r)
	}
}

func (t *nodeMachine) balancer(m *model, add func(map[string]any)) {
	r := m.perf(t.n, "System Balancer")
	demanded, assigned := 0.0, 1.0
	for _, vm := range m.on(t.n) {
		demanded += vm.demanded()
		assigned += vm.assigned()
	}
	free := uint32(megabytes(max(0, m.freeMemory(t.n))))
	r["AvailableMemory"], r["AvailableMemoryForBalancing"] = free, free
	r["AveragePressure"], r["SystemCurrentPressure"] = uint32(100*demanded/assigned), uint32(100*demanded/assigned)
	add(r)
}

// networkAdapters are by the VM's name, the adapter's, and both GUIDs, so that there is no doubt whose they are.
func (t *nodeMachine) networkAdapters(m *model, add func(map[string]any)) {
	for _, vm := range m.on(t.n) {
		r := m.perf(t.n, vm.name+"_"+t.local("Network Adapter", "Netzwerkadapter")+"_"+strings.ToLower(vm.id)+"--"+strings.ToLower(m.port(vm)))
		r["BytesReceivedPersec"], r["BytesSentPersec"], r["BytesPersec"] = vm.received, vm.sent, vm.received+vm.sent
		r["PacketsReceivedPersec"], r["PacketsSentPersec"], r["PacketsPersec"] = vm.received/1000, vm.sent/1000, (vm.received+vm.sent)/1000
		r["DroppedPacketsIncomingPersec"], r["DroppedPacketsOutgoingPersec"] = uint64(0), uint64(0)
		add(r)
	}
}

// storageDevices are by the path of the disk, with dashes for what a path is cut at.
func (t *nodeMachine) storageDevices(m *model, add func(map[string]any)) {
	for _, vm := range m.on(t.n) {
		r := m.perf(t.n, strings.ReplaceAll(vm.disk(), `\`, "-"))
		r["ReadBytesPersec"], r["WriteBytesPersec"] = vm.readBytes, vm.wroteBytes
		r["ReadOperationsPerSec"], r["WriteOperationsPerSec"] = uint32(uint64(vm.reads)), uint32(uint64(vm.writes))
		r["ReadCount"], r["WriteCount"] = uint32(uint64(vm.reads)), uint32(uint64(vm.writes))
		r["ErrorCount"], r["QueueLength"] = uint32(0), uint64(0)
		add(r)
	}
}

// volumeTraffic is what this host read from and wrote to each cluster shared volume since it started.
func (t *nodeMachine) volumeTraffic(m *model, add func(map[string]any)) {
	if t.c.opt.Standalone {
		return
	}
	for _, v := range m.volumes {
		r := m.perf(t.n, v.name)
		io := t.n.traffic[v]
		r["IOReadBytes"], r["IOReadBytesPersec"], r["IOReads"], r["IOReadsPersec"] = io.readBytes, io.readBytes, io.reads, io.reads
		r["IOWriteBytes"], r["IOWriteBytesPersec"], r["IOWrites"], r["IOWritesPersec"] = io.wroteBytes, io.wroteBytes, io.writes, io.writes
		r["VolumeState"] = uint32(0)
		add(r)
	}
}

func (t *nodeMachine) vidPartitions(m *model, add func(map[string]any)) {
	for _, vm := range m.on(t.n) {
		r := m.perf(t.n, vm.name)
		r["PhysicalPagesAllocated"], r["RemotePhysicalPages"], r["PreferredNUMANodeIndex"] = uint64(vm.assigned()/4096), uint64(0), uint64(vm.index%2)
		add(r)
	}
}

func (t *nodeMachine) osMemory(m *model, add func(map[string]any)) {
	r := m.perf(t.n, "")
	free := max(0, m.freeMemory(t.n))
	r["AvailableBytes"], r["AvailableKBytes"], r["AvailableMBytes"] = uint64(free), uint64(free/1024), megabytes(free)
	r["CommitLimit"], r["CommittedBytes"] = uint64(1.15*t.n.memory), uint64(t.n.memory-free)
	add(r)
}

// osProcessors is what the root partition sees of the processors: itself, and nothing of the guests.
func (t *nodeMachine) osProcessors(m *model, add func(map[string]any)) {
	r := m.perf(t.n, "_Total")
	elapsed := float64(m.at.Sub(t.n.boot) / 100)
	r["PercentProcessorTime"], r["PercentIdleTime"] = elapsed-t.n.rootTicks, elapsed-t.n.rootTicks // the former counts what is idle, too
	r["PercentUserTime"], r["PercentPrivilegedTime"] = t.n.rootTicks/2, t.n.rootTicks/2
	add(r)
}

func (t *nodeMachine) healthSummary(m *model, add func(map[string]any)) {
	r := m.perf(t.n, "")
	here, _ := t.mine(m)
	r["HealthOk"], r["HealthCritical"] = uint32(len(here)), uint32(0)
	add(r)
}
