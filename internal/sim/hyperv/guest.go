package hyperv

import (
	"strings"
)

// guestMachine is the Windows inside a VM, as its own WMI shows it.
type guestMachine struct {
	c  *Cluster
	vm *vm
}

var _ machine = (*guestMachine)(nil)

func (g *guestMachine) name() string { return g.vm.guest.Hostname }

func (g *guestMachine) product() string { return "OS: 10.0.20348 SP: 0.0 Stack: 3.0" }

// serves reports whether the guest has a namespace: it is no host.
func (g *guestMachine) serves(namespace string) bool { return namespace == "root/cimv2" }

// alive reports whether the VM runs: of one that is off, saved or on its way by quick migration nobody answers.
func (g *guestMachine) alive() bool {
	return look(g.c, func(*model) bool { return g.vm.state == vmRunning })
}

func (g *guestMachine) instances(cl *class) ([]*instance, *fault) {
	if strings.HasPrefix(cl.name, "Win32_PerfRawData_Hv") || strings.Contains(cl.name, "HyperV") {
		return nil, wmiFault(wbemInvalidClass, cl.name)
	}
	type answer struct {
		all []*instance
		f   *fault
	}
	a := look(g.c, func(m *model) answer {
		var rows []map[string]any
		switch vm := g.vm; cl.name {
		case "Win32_OperatingSystem":
			rows = append(rows, operatingSystem(g.c.opt.OS, g.name(), vm.started, m.at, vm.memory, vm.assigned()-vm.demanded(), vm.guest.OS, "en-US"))
		case "Win32_ComputerSystem":
			rows = append(rows, computer(g.name(), g.c.opt.Domain, "Microsoft Corporation", "Virtual Machine", vm.vcpus, vm.memory))
		case "Win32_ComputerSystemProduct":
			rows = append(rows, map[string]any{
				"IdentifyingNumber": "0000-0000-0000-0000-0000-0000-00", "Name": "Virtual Machine", "Vendor": "Microsoft Corporation", "Version": "Hyper-V UEFI Release v4.0",
				"UUID": vm.seenInside(m.guid("bios", vm.index)),
			})
		case "Win32_NetworkAdapterConfiguration":
			mac := vm.mac()
			rows = append(rows,
				map[string]any{"Index": uint32(0), "Description": "Microsoft Kernel Debug Network Adapter", "IPEnabled": false},
				map[string]any{
					"Index": uint32(1), "Description": "Microsoft Hyper-V Network Adapter", "IPEnabled": true, "IPAddress": vm.guest.IPs,
					"MACAddress": strings.Join([]string{mac[0:2], mac[2:4], mac[4:6], mac[6:8], mac[8:10], mac[10:12]}, ":"),
				})
		case "Win32_Service":
			for i, s := range vm.guest.Services {
				rows = append(rows, s.row(g.name(), i))
			}
		case "Win32_LogicalDisk":
			rows = append(rows, map[string]any{"DeviceID": "C:", "Name": "C:", "DriveType": uint32(3), "Size": uint64(60 << 30), "FreeSpace": uint64(30 << 30), "CreationClassName": "Win32_LogicalDisk"})
		case "Win32_PerfRawData_PerfDisk_LogicalDisk":
			transfers := 100 * m.at.Sub(vm.started).Seconds()
			for _, disk := range []string{"C:", "_Total"} {
				r := m.perf(vm.on, disk)
				r["AvgDisksecPerTransfer"] = uint32(uint64(transfers * vm.guest.DiskLatency.Seconds() * 10_000_000)) // wraps around, as Windows' does
				r["AvgDisksecPerTransfer_Base"] = uint32(uint64(transfers))
				r["CurrentDiskQueueLength"], r["DiskTransfersPersec"] = uint32(1), uint32(uint64(transfers))
				rows = append(rows, r)
			}
		case "Win32_PerfRawData_PerfOS_Memory":
			r := m.perf(vm.on, "")
			free := vm.memory - vm.demanded()
			r["AvailableBytes"], r["AvailableKBytes"], r["AvailableMBytes"] = uint64(free), uint64(free/1024), megabytes(free)
			rows = append(rows, r)
		case "Win32_PerfRawData_PerfOS_Processor":
			r := m.perf(vm.on, "_Total")
			elapsed := float64(m.at.Sub(vm.started) / 100)
			r["PercentProcessorTime"], r["PercentUserTime"] = max(0, elapsed-vm.runTicks/float64(vm.vcpus)), vm.runTicks/float64(vm.vcpus)
			rows = append(rows, r)
		}
		var made answer
		for _, r := range rows {
			made.all = append(made.all, &instance{cl, r})
		}
		return made
	})
	return a.all, a.f
}

// seenInside is a VM's UUID as its guest is told it: with its first three groups reversed in every other VM, because both are met.
func (v *vm) seenInside(bios string) string {
	if v.index%2 == 0 || len(bios) != 36 {
		return bios
	}
	b := func(i int) string { return bios[i : i+2] }
	return b(6) + b(4) + b(2) + b(0) + "-" + b(11) + b(9) + "-" + b(16) + b(14) + bios[18:]
}

func (g *guestMachine) invoke(_ *instance, m string, _ *element) (map[string]any, *fault) {
	return nil, wmiFault(wbemProviderIncapable, m)
}
