package virtualserver

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/platform/winrm"
)

// Namespaces.
const (
	cimv2   = "root/cimv2"
	machine = "root/vm/virtualserver"
)

// Bounds of what a host is believed.
const (
	maxVMs = 4096
	absurd = 1 << 60
)

// host is one host: how to ask it, and what it answered.
type host struct {
	source string
	opts   winrm.Options
	addr   string
	client *winrm.Client // of this Watch

	// Under the watch's lock:
	facts *inventory.Host         // nil until it answered once
	vms   map[string]inventory.VM // by name: Virtual Server shows no other key
	up    bool
}

// answer is what a host said once.
type answer struct {
	host   inventory.Host
	vms    map[string]inventory.VM
	values map[inventory.ID][]inventory.Value
}

// ask asks a host everything: four messages. Its name and its VMs must be answered for; all else that is wrong costs its own metrics.
func (h *host) ask(ctx context.Context, o collector.Observer) (*answer, error) {
	a := &answer{vms: map[string]inventory.VM{}, values: map[inventory.ID][]inventory.Value{}}
	rows, err := h.all(ctx, cimv2, "Win32_ComputerSystem")
	if err != nil {
		return nil, err
	}
	name := ""
	if len(rows) > 0 {
		name = clean(rows[0].Text("Name"))
	}
	if name == "" {
		return nil, fmt.Errorf("host %s: it does not tell its name", h.addr)
	}
	a.host = inventory.Host{
		ID: inventory.ID{Source: h.source, Kind: inventory.KindHost, Ref: strings.ToLower(name)}, Name: strings.ToLower(name), Power: inventory.PowerOn,
		Model: strings.TrimSpace(clean(rows[0].Text("Manufacturer")) + " " + clean(rows[0].Text("Model"))),
	}
	if memory, ok := scaled(rows[0], "TotalPhysicalMemory", 1); ok {
		a.host.MemoryBytes = memory
	}
	vms, err := h.all(ctx, machine, "VirtualMachine")
	if err != nil {
		return nil, err
	}
	for _, class := range []struct {
		name string
		take func(rows []winrm.Instance)
	}{{"Win32_Processor", a.takeProcessors}, {"Win32_OperatingSystem", a.takeSystem}} {
		rows, err := h.all(ctx, cimv2, class.name)
		switch {
		case err == nil:
			class.take(rows)
		case !ofClass(err):
			return nil, err
		case errors.Is(err, winrm.ErrInvalidQuery):
			o.Fault("class", err)
		default:
			o.Fault("decode", err)
		}
	}
	for _, r := range vms {
		a.takeVM(h.source, r)
	}
	return a, nil
}

// all is every instance of a class, with whatever properties this version has.
func (h *host) all(ctx context.Context, namespace, class string) (rows []winrm.Instance, err error) {
	err = h.client.Enumerate(ctx, winrm.Query{Namespace: namespace, WQL: "SELECT * FROM " + class}, func(i winrm.Instance) error {
		if rows = append(rows, i); len(rows) > maxVMs {
			return fmt.Errorf("%s has more than %d instances: %w", class, maxVMs, winrm.ErrTooLarge)
		}
		return nil
	})
	return rows, err
}

func (a *answer) add(id inventory.ID, m inventory.Metric, v float64) {
	a.values[id] = append(a.values[id], inventory.Value{Metric: m, Value: v})
}

// takeProcessors takes capacity and load. Windows Server 2003 has an instance for each logical processor, and may not count them.
func (a *answer) takeProcessors(rows []winrm.Instance) {
	load, loaded := 0.0, 0
	for _, r := range rows {
		threads := 1
		if n, ok := r.Uint("NumberOfLogicalProcessors"); ok && n > 0 && n < 1<<16 {
			threads = int(n)
		}
		a.host.Cores += threads
		if mhz, ok := scaled(r, "MaxClockSpeed", 1e6); ok {
			a.host.CPUHertz += mhz * float64(threads)
		}
		a.host.CPUModel = clean(r.Text("Name"))
		if percent, ok := scaled(r, "LoadPercentage", 0.01); ok && percent <= 1 {
			load, loaded = load+percent*float64(threads), loaded+threads
		}
	}
	if loaded > 0 && loaded == a.host.Cores {
		ratio := load / float64(loaded)
		a.add(a.host.ID, inventory.HostCPUUsageRatio, ratio)
		a.add(a.host.ID, inventory.HostCPUUsage, ratio*a.host.CPUHertz)
	}
}

func (a *answer) takeSystem(rows []winrm.Instance) {
	if len(rows) == 0 {
		return
	}
	r := rows[0]
	a.host.Version = strings.TrimSpace(clean(r.Text("Caption")) + " " + clean(r.Text("Version")))
	if free, ok := scaled(r, "FreePhysicalMemory", 1024); ok && a.host.MemoryBytes > 0 && free <= a.host.MemoryBytes {
		a.add(a.host.ID, inventory.HostMemoryUsage, a.host.MemoryBytes-free)
		a.add(a.host.ID, inventory.HostMemoryUsageRatio, 1-free/a.host.MemoryBytes)
	}
	now, _ := r.Get("LocalDateTime")
	boot, _ := r.Get("LastBootUpTime")
	to, err := now.Time()
	from, err2 := boot.Time()
	if up := to.Sub(from).Seconds(); err == nil && err2 == nil && up >= 0 {
		a.add(a.host.ID, inventory.HostUptime, up)
	}
}

// takeVM takes a VM. It has one processor, as Virtual Server gives no more, and no state: it runs if it has been up for a time.
func (a *answer) takeVM(source string, r winrm.Instance) {
	name := clean(r.Text("Name"))
	if name == "" || len(a.vms) >= maxVMs {
		return
	}
	id := inventory.ID{Source: source, Kind: inventory.KindVM, Ref: a.host.ID.Ref + "/" + name}
	vm := inventory.VM{
		ID: id, Name: name, Host: a.host.ID, Power: inventory.PowerUnknown, VCPUs: 1, Availability: inventory.NotHighlyAvailable,
		NotLive: "Virtual Server 2005 moves no VMs",
	}
	uptime, ok := scaled(r, "Uptime", 1)
	switch {
	case ok && uptime > 0:
		vm.Power = inventory.PowerOn
	case ok:
		vm.Power = inventory.PowerOff
	}
	a.vms[name] = vm
	if vm.Power != inventory.PowerOn {
		return
	}
	a.add(id, inventory.VMUptime, uptime)
	if percent, ok := scaled(r, "CpuUtilization", 0.01); ok && percent <= 1 && a.host.CoreHertz() > 0 {
		a.add(id, inventory.VMCPUUsage, percent*a.host.CoreHertz())
	}
	if percent, ok := scaled(r, "HeartbeatPercentage", 0.01); ok && percent <= 1 {
		a.add(id, inventory.VMHeartbeat, percent)
	}
	for _, counter := range []struct {
		name   string
		metric inventory.Metric
	}{
		{"PhysicalMemoryAllocated", inventory.VMMemoryUsage},
		{"DiskBytesRead", inventory.VMDiskRead},
		{"DiskBytesWritten", inventory.VMDiskWrite},
		{"NetworkBytesReceived", inventory.VMNetworkReceive},
		{"NetworkBytesSent", inventory.VMNetworkTransmit},
	} {
		if v, ok := scaled(r, counter.name, 1); ok {
			a.add(id, counter.metric, v)
		}
	}
}

// scaled is a number in another unit, false if there is none.
func scaled(r winrm.Instance, name string, by float64) (float64, bool) {
	n, ok := r.Uint(name)
	v := float64(n) * by
	return v, ok && v < absurd
}

// clean is a text that a host wrote, in memory of its own, as far as it can be shown.
func clean(s string) string {
	const most = 512
	return strings.TrimSpace(strings.ToValidUTF8(strings.Clone(s[:min(len(s), most)]), ""))
}

// ofClass says whether an error is about what was asked, and not about the host.
func ofClass(err error) bool {
	if winrm.IsTimeout(err) || errors.Is(err, winrm.ErrQuota) || errors.Is(err, winrm.ErrCredentials) {
		return false
	}
	var f *winrm.Fault
	return errors.As(err, &f) || errors.Is(err, winrm.ErrInvalidQuery) || errors.Is(err, winrm.ErrMalformed) || errors.Is(err, winrm.ErrTooLarge)
}
