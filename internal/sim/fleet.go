package sim

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/simulator/esx"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// Cluster is a cluster to be built.
type Cluster struct {
	Name  string
	DRS   DRS
	HA    HA
	EVC   string // the mode's key, as intel-skylake; empty: none
	Rules []Rule
	Ties  []Tie
	Pools []Pool
	Hosts []Host
}

// DRS is a cluster's DRS configuration.
type DRS struct {
	Enabled  bool
	Behavior types.DrsBehavior // default manual
}

// HA is a cluster's HA configuration.
type HA struct {
	Enabled          bool
	AdmissionControl bool
	Policy           types.BaseClusterDasAdmissionControlPolicy
	RestartPriority  types.DasVmPriority // of VMs without their own; default medium
}

// Rule keeps VMs of the cluster, given by name, together or apart.
type Rule struct {
	Name  string
	Apart bool
	VMs   []string
}

// Tie is a rule between a group of VMs and a group of hosts, which are made with it and given by name.
type Tie struct {
	Name      string
	Apart     bool
	Mandatory bool
	VMs       []string
	Hosts     []string
}

// Host is a host to be built.
type Host struct {
	Name         string
	UUID         string  // default: made from the vCenter's and the host's name
	Cores        int     // default 32
	MHz          int     // of a core; default 2600
	MemoryBytes  float64 // default 256 GiB
	CPUModel     string  // VMs cannot go live to another model; default a Xeon Gold
	Maintenance  bool
	Disconnected bool
	VMs          []VM
}

// VM is a virtual machine to be built.
type VM struct {
	Name           string
	UUID           string  // the instance UUID; default: made from the vCenter's name and the VM's number
	VCPUs          int     // default 2
	MemoryBytes    float64 // default 4 GiB
	GuestID        string  // default ubuntu64Guest
	GuestOS        string  // default: from GuestID
	GuestHostname  string
	GuestIP        string
	Off            bool
	Template       bool
	DRSBehavior    types.DrsBehavior   // an override of the cluster's; "disabled" takes the VM out of DRS
	Restart        types.DasVmPriority // an override of the cluster's HA
	Datastore      string              // default: the first
	Networks       []string            // that its adapters are attached to; nil: the first
	Pool           string              // of the cluster; default: its root
	MAC            string              // of its network adapter, as its tools tell
	CPUReserved    int                 // MHz
	MemoryReserved float64             // bytes
}

// DRSDisabled as a VM's DRSBehavior means that DRS leaves the VM alone.
const DRSDisabled types.DrsBehavior = "disabled"

const defaultCPUModel = "Intel(R) Xeon(R) Gold 6348 CPU @ 2.60GHz"

// Uniform is a fleet for benchmarks: as many VMs of 2 to 8 vCPUs on as many hosts, in clusters of up to 32 hosts with manual DRS.
func Uniform(hosts, vms int) []Cluster {
	var clusters []Cluster
	for h := range hosts {
		if h%32 == 0 {
			clusters = append(clusters, Cluster{
				Name: fmt.Sprintf("cluster-%02d", h/32+1),
				DRS:  DRS{Enabled: true},
				HA:   HA{Enabled: true, AdmissionControl: true, Policy: percentPolicy(10)},
			})
		}
		host := Host{Name: fmt.Sprintf("esx-%04d.example.org", h+1), MemoryBytes: 512 << 30}
		for v := h; v < vms; v += hosts {
			host.VMs = append(host.VMs, VM{
				Name: fmt.Sprintf("vm-%05d", v+1), VCPUs: 2 << (v / hosts % 3), MemoryBytes: float64(int64(4<<(v/hosts%3)) << 30),
				GuestHostname: fmt.Sprintf("vm-%05d.example.org", v+1), GuestIP: fmt.Sprintf("10.%d.%d.%d", v>>16&255, v>>8&255, v&255),
				MAC: fmt.Sprintf("00:50:56:%02x:%02x:%02x", v>>16&255, v>>8&255, v&255),
			})
		}
		last := &clusters[len(clusters)-1]
		last.Hosts = append(last.Hosts, host)
	}
	return clusters
}

func percentPolicy(percent int32) types.BaseClusterDasAdmissionControlPolicy {
	auto := false
	return &types.ClusterFailoverResourcesAdmissionControlPolicy{
		CpuFailoverResourcesPercent: percent, MemoryFailoverResourcesPercent: percent, AutoComputePercentages: &auto,
	}
}

// place is where the fleet's objects live, and what new ones are copied from.
type place struct {
	datacenter *simulator.Datacenter
	hosts, vms *simulator.Folder
	datastore  *simulator.Datastore // the first of datastores
	datastores []*simulator.Datastore
	networks   []types.ManagedObjectReference
	template   *simulator.HostSystem
	built      int // VMs so far, which is also the next one's index in the load
}

// build puts the fleet into the registry, without tasks and files. Nobody else looks yet, so it takes no locks.
func (vc *VCenter) build() error {
	ctx := vc.own()
	root := vc.reg.Get(vc.content().RootFolder).(*simulator.Folder)
	dc := root.CreateDatacenter(ctx, &types.CreateDatacenter{Name: "DC-" + vc.cfg.Name}).(*methods.CreateDatacenterBody).Res.Returnval
	p := &vc.place
	p.datacenter = vc.reg.Get(dc).(*simulator.Datacenter)
	p.hosts = vc.reg.Get(p.datacenter.HostFolder).(*simulator.Folder)
	p.vms = vc.reg.Get(p.datacenter.VmFolder).(*simulator.Folder)
	p.template = simulator.NewHostSystem(ctx, esx.HostSystem)
	vc.buildDatastores()
	vc.buildNetworks()
	for _, c := range vc.cfg.Clusters {
		if err := vc.buildCluster(ctx, c); err != nil {
			return fmt.Errorf("cluster %s: %w", c.Name, err)
		}
	}
	return nil
}

func (vc *VCenter) buildCluster(ctx *simulator.Context, c Cluster) error {
	if c.Name == "" {
		return errors.New("no name")
	}
	cluster, fault := simulator.CreateClusterComputeResource(ctx, vc.place.hosts, c.Name, types.ClusterConfigSpecEx{})
	if fault != nil {
		return fmt.Errorf("create: %T", fault)
	}
	cluster.Datastore = slices.Clone(vc.place.datacenter.Datastore)
	pools, err := vc.buildPools(ctx, cluster, c.Pools)
	if err != nil {
		return err
	}
	config := cluster.ConfigurationEx.(*types.ClusterConfigInfoEx)
	byName := map[string]types.ManagedObjectReference{}
	hosts := map[string]types.ManagedObjectReference{}
	for _, h := range c.Hosts {
		host := vc.buildHost(cluster, h, c.EVC)
		hosts[h.Name] = host.Self
		for _, spec := range h.VMs {
			pool, ok := pools[spec.Pool]
			if !ok {
				return fmt.Errorf("VM %s in resource pool %q: %w", spec.Name, spec.Pool, errNoSuch)
			}
			vm := vc.newVM(spec, host, cluster)
			vm.ResourcePool = &pool.Self
			vc.reg.PutEntity(vc.place.vms, vm)
			vc.place.vms.ChildEntity = append(vc.place.vms.ChildEntity, vm.Self)
			datastore := vc.datastoreOf(spec.Datastore)
			datastore.Vm = append(datastore.Vm, vm.Self)
			host.Vm = append(host.Vm, vm.Self)
			pool.Vm = append(pool.Vm, vm.Self)
			vc.usage.addVM(vm, host)
			if _, twice := byName[spec.Name]; !twice {
				byName[spec.Name] = vm.Self
			}
			if spec.DRSBehavior != "" {
				config.DrsVmConfig = append(config.DrsVmConfig, drsOverride(vm.Self, spec.DRSBehavior))
			}
			if spec.Restart != "" {
				config.DasVmConfig = append(config.DasVmConfig, restartOverride(vm.Self, spec.Restart))
			}
		}
	}
	config.DrsConfig, config.DasConfig = c.DRS.info(), c.HA.info()
	for i, rule := range c.Rules {
		info, err := ruleInfo(int32(i+1), rule, byName)
		if err != nil {
			return err
		}
		config.Rule = append(config.Rule, info)
	}
	for i, tie := range c.Ties {
		if err := tie.add(config, int32(len(c.Rules)+i+1), byName, hosts); err != nil {
			return err
		}
	}
	cluster.Summary = vc.clusterSummary(cluster)
	return nil
}

func (drs DRS) info() types.ClusterDrsConfigInfo {
	return types.ClusterDrsConfigInfo{
		Enabled: &drs.Enabled, EnableVmBehaviorOverrides: types.NewBool(true),
		DefaultVmBehavior: cmp.Or(drs.Behavior, types.DrsBehaviorManual), VmotionRate: 3,
	}
}

func (ha HA) info() types.ClusterDasConfigInfo {
	return types.ClusterDasConfigInfo{
		Enabled: &ha.Enabled, AdmissionControlEnabled: &ha.AdmissionControl, AdmissionControlPolicy: ha.Policy, HostMonitoring: "enabled",
		DefaultVmSettings: &types.ClusterDasVmSettings{RestartPriority: string(cmp.Or(ha.RestartPriority, types.DasVmPriorityMedium))},
	}
}

func restartOverride(vm types.ManagedObjectReference, priority types.DasVmPriority) types.ClusterDasVmConfigInfo {
	return types.ClusterDasVmConfigInfo{
		Key: vm, RestartPriority: priority, DasSettings: &types.ClusterDasVmSettings{RestartPriority: string(priority)},
	}
}

func drsOverride(vm types.ManagedObjectReference, behavior types.DrsBehavior) types.ClusterDrsVmConfigInfo {
	enabled := behavior != DRSDisabled
	if !enabled {
		behavior = ""
	}
	return types.ClusterDrsVmConfigInfo{Key: vm, Enabled: &enabled, Behavior: behavior}
}

func ruleInfo(key int32, rule Rule, byName map[string]types.ManagedObjectReference) (types.BaseClusterRuleInfo, error) {
	vms, err := named(rule.Name, rule.VMs, byName)
	if err != nil {
		return nil, err
	}
	info := ruleHead(key, rule.Name, false)
	if rule.Apart {
		return &types.ClusterAntiAffinityRuleSpec{ClusterRuleInfo: info, Vm: vms}, nil
	}
	return &types.ClusterAffinityRuleSpec{ClusterRuleInfo: info, Vm: vms}, nil
}

func ruleHead(key int32, name string, mandatory bool) types.ClusterRuleInfo {
	return types.ClusterRuleInfo{
		Key: key, Name: name, Enabled: types.NewBool(true), Mandatory: &mandatory, UserCreated: types.NewBool(true),
		Status: types.ManagedEntityStatusGreen, InCompliance: types.NewBool(true), RuleUuid: uuidOf("rule", name),
	}
}

func named(rule string, names []string, known map[string]types.ManagedObjectReference) ([]types.ManagedObjectReference, error) {
	var refs []types.ManagedObjectReference
	for _, name := range names {
		ref, ok := known[name]
		if !ok {
			return nil, fmt.Errorf("rule %s: %q: %w", rule, name, errNoSuch)
		}
		refs = append(refs, ref)
	}
	return refs, nil
}

// add puts the tie's groups and its rule into a cluster's settings.
func (t Tie) add(config *types.ClusterConfigInfoEx, key int32, vms, hosts map[string]types.ManagedObjectReference) error {
	vmRefs, err := named(t.Name, t.VMs, vms)
	if err != nil {
		return err
	}
	hostRefs, err := named(t.Name, t.Hosts, hosts)
	if err != nil {
		return err
	}
	group := func(of string) types.ClusterGroupInfo { return types.ClusterGroupInfo{Name: t.Name + " " + of} }
	config.Group = append(config.Group,
		&types.ClusterVmGroup{ClusterGroupInfo: group("VMs"), Vm: vmRefs},
		&types.ClusterHostGroup{ClusterGroupInfo: group("hosts"), Host: hostRefs})
	rule := &types.ClusterVmHostRuleInfo{ClusterRuleInfo: ruleHead(key, t.Name, t.Mandatory), VmGroupName: t.Name + " VMs"}
	if t.Apart {
		rule.AntiAffineHostGroupName = t.Name + " hosts"
	} else {
		rule.AffineHostGroupName = t.Name + " hosts"
	}
	config.Rule = append(config.Rule, rule)
	return nil
}

// clusterSummary adds up the hosts: in cores x MHz, and without those in maintenance where it says effective.
func (vc *VCenter) clusterSummary(cluster *simulator.ClusterComputeResource) *types.ClusterComputeResourceSummary {
	s := &types.ClusterComputeResourceSummary{}
	s.OverallStatus = types.ManagedEntityStatusGreen
	for _, ref := range cluster.Host {
		host := vc.reg.Get(ref).(*simulator.HostSystem)
		hw := host.Summary.Hardware
		s.CurrentEVCModeKey = host.Summary.CurrentEVCModeKey
		mhz := int32(hw.NumCpuCores) * hw.CpuMhz
		s.TotalCpu += mhz
		s.TotalMemory += hw.MemorySize
		s.NumCpuCores += hw.NumCpuCores
		s.NumCpuThreads += hw.NumCpuThreads
		s.NumHosts++
		if !host.Runtime.InMaintenanceMode && host.Runtime.ConnectionState == types.HostSystemConnectionStateConnected {
			s.EffectiveCpu += mhz
			s.EffectiveMemory += hw.MemorySize >> 20
			s.NumEffectiveHosts++
		}
	}
	return s
}

// buildHost copies the template; what describes no load is shared by all hosts and never written to.
func (vc *VCenter) buildHost(cluster *simulator.ClusterComputeResource, h Host, evc string) *simulator.HostSystem {
	h.UUID = cmp.Or(h.UUID, uuidOf("host", vc.cfg.Name, h.Name))
	h.Cores = cmp.Or(h.Cores, 32)
	h.MHz = cmp.Or(h.MHz, 2600)
	h.MemoryBytes = cmp.Or(h.MemoryBytes, 256<<30)
	h.CPUModel = cmp.Or(h.CPUModel, defaultCPUModel)

	host := &simulator.HostSystem{HostSystem: vc.place.template.HostSystem}
	boot := vc.clock.Now().AddDate(0, 0, -40)
	host.Name = h.Name
	host.Datastore = nil
	host.Network = vc.networksOf(h.Name)
	host.Runtime.BootTime = &boot
	host.Runtime.InMaintenanceMode = h.Maintenance
	host.Runtime.ConnectionState = types.HostSystemConnectionStateConnected
	if h.Disconnected {
		host.Runtime.ConnectionState = types.HostSystemConnectionStateDisconnected
	}
	summary := *host.Summary.Hardware
	summary.Uuid, summary.CpuModel, summary.CpuMhz, summary.MemorySize = h.UUID, h.CPUModel, int32(h.MHz), int64(h.MemoryBytes)
	summary.NumCpuPkgs, summary.NumCpuCores, summary.NumCpuThreads = 2, int16(h.Cores), int16(2*h.Cores)
	host.Summary.Hardware = &summary
	hardware := *host.Hardware
	hardware.SystemInfo.Uuid, hardware.MemorySize = h.UUID, int64(h.MemoryBytes)
	hardware.CpuInfo.NumCpuPackages, hardware.CpuInfo.NumCpuCores, hardware.CpuInfo.NumCpuThreads = 2, int16(h.Cores), int16(2*h.Cores)
	hardware.CpuInfo.Hz = int64(h.MHz) * 1e6
	host.Hardware = &hardware
	config := *host.Config
	host.Config = &config
	host.Summary.Config.Name = h.Name
	host.Summary.Runtime = &host.Runtime
	host.Summary.OverallStatus = types.ManagedEntityStatusGreen

	vc.reg.PutEntity(cluster, vc.reg.NewEntity(host))
	host.Config.Host = host.Self
	host.Summary.Host = &host.Self
	host.Summary.CurrentEVCModeKey, host.Summary.MaxEVCModeKey = evc, "intel-icelake"
	vc.mount(host)
	cluster.Host = append(cluster.Host, host.Self)
	vc.usage.addHost(host)
	return host
}

// newVM makes a VM with a reference of its own that is on the host but not yet in any list, nor in a resource pool.
func (vc *VCenter) newVM(spec VM, host *simulator.HostSystem, cluster *simulator.ClusterComputeResource) *simulator.VirtualMachine {
	n := vc.place.built
	vc.place.built++
	spec.UUID = cmp.Or(spec.UUID, uuidOf("vm", vc.cfg.Name, fmt.Sprint(n)))
	spec.VCPUs = cmp.Or(spec.VCPUs, 2)
	spec.MemoryBytes = cmp.Or(spec.MemoryBytes, 4<<30)
	spec.GuestID = cmp.Or(spec.GuestID, string(types.VirtualMachineGuestOsIdentifierUbuntu64Guest))
	spec.GuestOS = cmp.Or(spec.GuestOS, guestName(spec.GuestID))
	memoryMB := int32(spec.MemoryBytes / (1 << 20))

	vm := &simulator.VirtualMachine{}
	vm.Self.Type = "VirtualMachine"
	vc.reg.NewEntity(vm)
	vm.Parent = &vc.place.vms.Self
	vm.Name = spec.Name
	vm.EnvironmentBrowser = *cluster.EnvironmentBrowser
	datastore := vc.datastoreOf(spec.Datastore)
	vm.Datastore = []types.ManagedObjectReference{datastore.Self}
	vm.Network = vc.networksNamed(spec.Networks)
	path := fmt.Sprintf("[%s] vm-%d/vm.vmx", datastore.Name, n)
	created := vc.clock.Now()
	vm.Config = &types.VirtualMachineConfigInfo{
		Name: spec.Name, Uuid: uuidOf("bios", spec.UUID), InstanceUuid: spec.UUID, Template: spec.Template, Version: "vmx-19",
		GuestId: spec.GuestID, GuestFullName: spec.GuestOS, CreateDate: &created, Modified: created, Tools: &types.ToolsConfigInfo{},
		Files:    types.VirtualMachineFileInfo{VmPathName: path},
		Hardware: types.VirtualHardware{NumCPU: int32(spec.VCPUs), NumCoresPerSocket: types.NewInt32(1), MemoryMB: memoryMB},
	}
	vm.Runtime = types.VirtualMachineRuntimeInfo{
		Host: &host.Self, PowerState: types.VirtualMachinePowerStatePoweredOff,
		ConnectionState: types.VirtualMachineConnectionStateConnected,
	}
	vm.Guest = &types.GuestInfo{
		GuestId: spec.GuestID, GuestFullName: spec.GuestOS, HostName: spec.GuestHostname, IpAddress: spec.GuestIP,
		GuestState: string(types.VirtualMachineGuestStateNotRunning), ToolsStatus: types.VirtualMachineToolsStatusToolsNotRunning,
	}
	if spec.MAC != "" {
		vm.Guest.Net = []types.GuestNicInfo{
			{Network: "VM Network", MacAddress: spec.MAC, Connected: true, DeviceConfigId: 4000, IpAddress: []string{spec.GuestIP}},
			{Network: "", MacAddress: "02:42:00:00:00:01", Connected: true, DeviceConfigId: -1}, // a bridge in the guest
		}
	}
	if !spec.Off && !spec.Template {
		boot := created.Add(-240 * time.Hour)
		vm.Runtime.PowerState, vm.Runtime.BootTime = types.VirtualMachinePowerStatePoweredOn, &boot
		vm.Guest.GuestState = string(types.VirtualMachineGuestStateRunning)
		vm.Guest.ToolsStatus = types.VirtualMachineToolsStatusToolsOk
		vm.Guest.ToolsRunningStatus = string(types.VirtualMachineToolsRunningStatusGuestToolsRunning)
	}
	if host.Runtime.ConnectionState != types.HostSystemConnectionStateConnected {
		vm.Runtime.ConnectionState = types.VirtualMachineConnectionStateDisconnected
	}
	vm.Summary = types.VirtualMachineSummary{
		Vm: &vm.Self, Runtime: vm.Runtime, OverallStatus: types.ManagedEntityStatusGreen,
		Guest: &types.VirtualMachineGuestSummary{
			GuestId: spec.GuestID, GuestFullName: spec.GuestOS, HostName: spec.GuestHostname, IpAddress: spec.GuestIP,
			ToolsStatus: vm.Guest.ToolsStatus,
		},
		Config: types.VirtualMachineConfigSummary{
			Name: spec.Name, Template: spec.Template, VmPathName: path, MemorySizeMB: memoryMB, NumCpu: int32(spec.VCPUs),
			Uuid: vm.Config.Uuid, InstanceUuid: spec.UUID, GuestId: spec.GuestID, GuestFullName: spec.GuestOS,
			CpuReservation: int32(spec.CPUReserved), MemoryReservation: int32(spec.MemoryReserved / (1 << 20)),
		},
		QuickStats: types.VirtualMachineQuickStats{GuestHeartbeatStatus: types.ManagedEntityStatusGray},
	}
	return vm
}

func guestName(id string) string {
	switch {
	case strings.HasPrefix(id, "windows2019"):
		return "Microsoft Windows Server 2019 (64-bit)"
	case strings.HasPrefix(id, "windows"):
		return "Microsoft Windows Server 2022 (64-bit)"
	case strings.HasPrefix(id, "rhel"):
		return "Red Hat Enterprise Linux 9 (64-bit)"
	case strings.HasPrefix(id, "ubuntu"):
		return "Ubuntu Linux (64-bit)"
	default:
		return id
	}
}

// VM is the first VM of that name.
func (vc *VCenter) VM(name string) (types.ManagedObjectReference, bool) {
	return vc.find("VirtualMachine", name)
}

// Host is the host of that name.
func (vc *VCenter) Host(name string) (types.ManagedObjectReference, bool) {
	return vc.find("HostSystem", name)
}

// Cluster is the cluster of that name.
func (vc *VCenter) Cluster(name string) (types.ManagedObjectReference, bool) {
	return vc.find("ClusterComputeResource", name)
}

func (vc *VCenter) find(kind, name string) (types.ManagedObjectReference, bool) {
	ctx := vc.own()
	var found []types.ManagedObjectReference
	for _, e := range vc.reg.All(kind) {
		ctx.WithLock(e, func() {
			if e.Entity().Name == name {
				found = append(found, e.Entity().Self)
			}
		})
	}
	if len(found) == 0 {
		return types.ManagedObjectReference{}, false
	}
	return slices.MinFunc(found, compareRefs), true
}

// compareRefs orders references of one kind by age.
func compareRefs(a, b types.ManagedObjectReference) int {
	return cmp.Or(cmp.Compare(len(a.Value), len(b.Value)), cmp.Compare(a.Value, b.Value))
}

// VMs are all VMs, oldest first.
func (vc *VCenter) VMs() []types.ManagedObjectReference { return vc.all("VirtualMachine") }

// Hosts are all hosts, oldest first.
func (vc *VCenter) Hosts() []types.ManagedObjectReference { return vc.all("HostSystem") }

func (vc *VCenter) all(kind string) []types.ManagedObjectReference {
	objects := vc.reg.AllReference(kind)
	refs := make([]types.ManagedObjectReference, len(objects))
	for i, obj := range objects {
		refs[i] = obj.(mo.Entity).Entity().Self
	}
	slices.SortFunc(refs, compareRefs)
	return refs
}
