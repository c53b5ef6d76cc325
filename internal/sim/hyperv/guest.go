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
		case "Win32_Service":
			for i, s := range vm.guest.Services {
				rows = append(rows, s.row(g.name(), i))
			}
		case "Win32_LogicalDisk":
			rows = append(rows, map[string]any{"DeviceID": "C:", "Name": "C:", "DriveType": uint32(3), "Size": uint64(60 << 30), "FreeSpace": uint64(30 << 30), "CreationClassName": "Win32_LogicalDisk"})
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

func (g *guestMachine) invoke(_ *instance, m string, _ *element) (map[string]any, *fault) {
	return nil, wmiFault(wbemProviderIncapable, m)
}
