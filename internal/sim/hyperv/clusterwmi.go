package hyperv

import (
	"fmt"
	"math"
	"strings"
)

// Values of a group's and a resource's state.
const (
	groupOnline  = 0
	groupOffline = 1
	groupFailed  = 2
	groupPending = 4

	resourceOnline  = 2
	resourceOffline = 3
	resourceFailed  = 4
	resourcePending = 128
)

// waitingInQueueForMove is the bit of a group's StatusInformation (CLUSGRP_STATUS_WAITING_IN_QUEUE_FOR_MOVE).
const waitingInQueueForMove = 1

// Values of GroupType.
const (
	groupCore      = 1
	groupAvailable = 2
	groupVM        = 111
)

func (vm *vm) groupState() int {
	switch {
	case vm.move != nil && vm.move.running():
		return groupPending
	case vm.state == vmRunning:
		return groupOnline
	case vm.lastErr != 0:
		return groupFailed
	}
	return groupOffline
}

func (vm *vm) resourceState() int {
	return map[int]int{groupOnline: resourceOnline, groupOffline: resourceOffline, groupFailed: resourceFailed, groupPending: resourcePending}[vm.groupState()]
}

func (t *nodeMachine) clusters(_ *model, add func(map[string]any)) {
	c := map[string]any{
		"Name": t.c.opt.Name, "Caption": t.c.opt.Name, "CreationClassName": "MSCluster_Cluster", "Fqdn": t.c.opt.Name + "." + t.c.opt.Domain, "AutoBalancerMode": uint32(0),
		"AutoBalancerLevel": uint32(1), "ClusterFunctionalLevel": uint32(10), "ClusterUpgradeVersion": uint32(3), "DrainOnShutdown": uint32(1), "DynamicQuorumEnabled": uint32(1),
		"EnableSharedVolumes": uint32(1), "SharedVolumesRoot": `C:\ClusterStorage`, "S2DEnabled": uint32(0), "QuorumType": "Node and File Share Majority", "ClusterEnforcedAntiAffinity": uint32(0),
	}
	if t.c.opt.OS == Server23H2 {
		c["ClusterFunctionalLevel"], c["MaximumParallelMigrations"] = uint32(12), uint32(t.c.opt.ActiveMigrations)
	}
	add(c)
}

func (t *nodeMachine) clusterNodes(m *model, add func(map[string]any)) {
	for _, n := range m.nodes {
		weight := uint32(1)
		if n.state == NodeDown {
			weight = 0
		}
		values := map[string]any{
			"Name": n.name, "Caption": n.name, "Id": fmt.Sprint(n.id), "NodeInstanceID": fmt.Sprintf("00000000-0000-0000-0000-%012d", n.id), "State": int(n.state),
			"NodeDrainStatus": m.drainStatus(n), "NodeDrainTarget": "4294967295", "NodeWeight": uint32(1), "DynamicWeight": weight, "MajorVersion": uint32(10), "MinorVersion": uint32(0),
			"BuildNumber": uint32(17763), "StatusInformation": uint32(0), "CreationClassName": "MSCluster_Node",
		}
		if t.c.opt.OS == Server23H2 {
			values["BuildNumber"], values["DrainErrorCode"] = uint32(25398), uint32(0)
		}
		add(values)
	}
}

func (t *nodeMachine) groups(m *model, add func(map[string]any)) {
	add(t.coreGroup(m, "Cluster Group", "Clustergruppe", groupCore, groupOnline))
	add(t.coreGroup(m, "Available Storage", "Verfügbarer Speicher", groupAvailable, groupOffline))
	for _, vm := range m.vms {
		if !vm.grouped {
			continue
		}
		values := map[string]any{
			"Name": vm.group, "Caption": vm.group, "Id": vm.groupID, "GroupType": uint32(groupVM), "State": uint32(vm.groupState()), "OwnerNode": vm.on.name,
			"Priority": uint32(vm.priority), "AntiAffinityClassNames": vm.antiAffinity, "StatusInformation": uint64(0), "IsCore": false, "PersistentState": vm.state != vmOff,
			"DefaultOwner": uint32(math.MaxUint32), "FailoverPeriod": uint32(6), "FailoverThreshold": uint32(math.MaxUint32), "AutoFailbackType": uint32(0),
		}
		if vm.move != nil && vm.move.waiting() {
			values["StatusInformation"] = uint64(waitingInQueueForMove)
		}
		if t.c.opt.OS == Server23H2 {
			values["LockedFromMoving"] = uint32(0)
		}
		add(values)
	}
}

// coreGroup is one of the two that every cluster has. Their names are in the language that the cluster was made in.
func (t *nodeMachine) coreGroup(m *model, english, german string, kind, state int) map[string]any {
	owner := t.n
	for _, n := range m.nodes {
		if n.state != NodeDown {
			owner = n
			break
		}
	}
	name := t.local(english, german)
	return map[string]any{
		"Name": name, "Caption": name, "Id": strings.ToLower(m.guid("core", kind)), "GroupType": uint32(kind), "State": uint32(state), "OwnerNode": owner.name, "IsCore": true,
		"Priority": uint32(3000), "StatusInformation": uint64(0), "PersistentState": true,
	}
}

// Types of resources: their names are no words of the host's language.
const (
	typeVM            = "Virtual Machine"
	typeConfiguration = "Virtual Machine Configuration"
	typeDisk          = "Physical Disk"
)

func (vm *vm) resourceName(kind string) string { return kind + " " + vm.group }

func (t *nodeMachine) resources(m *model, add func(map[string]any)) {
	for _, vm := range m.vms {
		if !vm.grouped {
			continue
		}
		for i, kind := range []string{typeVM, typeConfiguration} {
			private := embedded{
				uri: wmiPrefix + "root/MSCluster/MSCluster_Property_" + strings.ReplaceAll(kind, " ", "_"), class: "MSCluster_Property_" + strings.ReplaceAll(kind, " ", "_"),
				names: []string{"VmID"}, values: map[string]any{"VmID": strings.ToLower(vm.id)},
			}
			if kind == typeVM {
				private.names = []string{"DefaultMoveType", "OfflineAction", "VmID"}
				private.values["DefaultMoveType"], private.values["OfflineAction"] = uint32(math.MaxUint32), uint32(1)
			}
			values := map[string]any{
				"Name": vm.resourceName(kind), "Caption": vm.resourceName(kind), "Id": strings.ToLower(m.guid(kind, vm.index)), "Type": kind, "OwnerGroup": vm.group, "OwnerNode": vm.on.name,
				"State": uint32(resourceOnline), "StatusInformation": uint64(0), "LastOperationStatusCode": uint64(0), "CoreResource": false, "IsClusterSharedVolume": false,
				"PrivateProperties": private, "PersistentState": true, "ResourceClass": uint32(0),
			}
			if i == 0 {
				values["State"], values["LastOperationStatusCode"] = uint32(vm.resourceState()), uint64(vm.lastErr)
			}
			add(values)
		}
	}
	for i, v := range m.volumes {
		add(map[string]any{
			"Name": v.resource(), "Caption": v.resource(), "Id": strings.ToLower(m.guid("disk", i)), "Type": typeDisk, "OwnerGroup": strings.ToLower(m.guid("csvgroup", i)), "OwnerNode": v.owner.name,
			"State": uint32(resourceOnline), "StatusInformation": uint64(0), "LastOperationStatusCode": uint64(0), "CoreResource": false, "IsClusterSharedVolume": true, "ResourceClass": uint32(1),
		})
	}
}

// resource is the name of the volume's disk.
func (v *volume) resource() string { return "Cluster Disk " + v.name }

// path is the volume's name to the system, which its partition has too.
func (v *volume) path() string { return `\\?\Volume{` + strings.ToLower(v.guid) + `}\` }

func (t *nodeMachine) sharedVolumes(m *model, add func(map[string]any)) {
	for _, v := range m.volumes {
		fault := uint32(0)
		if v.noAccess {
			fault = 2
		}
		add(map[string]any{
			"Name": `C:\ClusterStorage\` + v.name, "Caption": `C:\ClusterStorage\` + v.name, "VolumeName": v.path(), "VolumeOffset": uint64(16 << 20), "FaultState": fault, "BackupState": uint32(0),
		})
	}
}

func (t *nodeMachine) partitions(m *model, add func(map[string]any)) {
	for _, v := range m.volumes {
		add(map[string]any{
			"Name": v.path(), "Path": v.path(), "VolumeGuid": strings.ToLower(v.guid), "VolumeLabel": v.name, "FileSystem": "CSVFS", "PartitionNumber": uint32(2),
			"TotalSize": uint32(megabytes(v.total)), "FreeSpace": uint32(megabytes(v.free)), "MountPoints": []string{`C:\ClusterStorage\` + v.name}, "SerialNumber": uint32(0x5EED),
		})
	}
}

// pointer points to the instance of a class that has that one key.
func (t *nodeMachine) pointer(class, key string) reference {
	cl := t.c.schema.class("root/mscluster", class)
	return reference{cl, map[string]string{cl.keys[0]: key}}
}

func (t *nodeMachine) volumePartitions(m *model, add func(map[string]any)) {
	for _, v := range m.volumes {
		add(map[string]any{"GroupComponent": t.pointer("MSCluster_ClusterSharedVolume", `C:\ClusterStorage\`+v.name), "PartComponent": t.pointer("MSCluster_DiskPartition", v.path())})
	}
}

func (t *nodeMachine) volumeResources(m *model, add func(map[string]any)) {
	for _, v := range m.volumes {
		add(map[string]any{"GroupComponent": t.pointer("MSCluster_ClusterSharedVolume", `C:\ClusterStorage\`+v.name), "PartComponent": t.pointer("MSCluster_Resource", v.resource())})
	}
}

func (t *nodeMachine) groupResources(m *model, add func(map[string]any)) {
	for _, vm := range m.vms {
		if !vm.grouped {
			continue
		}
		for _, kind := range []string{typeVM, typeConfiguration} {
			add(map[string]any{"GroupComponent": t.pointer("MSCluster_ResourceGroup", vm.group), "PartComponent": t.pointer("MSCluster_Resource", vm.resourceName(kind))})
		}
	}
}

func (t *nodeMachine) nodeGroups(m *model, add func(map[string]any)) {
	for _, vm := range m.vms {
		if vm.grouped {
			add(map[string]any{"GroupComponent": t.pointer("MSCluster_Node", vm.on.name), "PartComponent": t.pointer("MSCluster_ResourceGroup", vm.group)})
		}
	}
}

func (t *nodeMachine) networks(m *model, add func(map[string]any)) {
	for i, name := range []string{t.local("Cluster Network 1", "Clusternetzwerk 1"), t.local("Cluster Network 2", "Clusternetzwerk 2")} {
		add(map[string]any{
			"Name": name, "Caption": name, "Id": strings.ToLower(m.guid("network", i)), "State": uint32(3), "Role": uint32(3 - 2*i), "Address": fmt.Sprintf("10.%d.0.0", 10*(i+1)),
			"AddressMask": "255.255.0.0", "Metric": uint32(30000 + 10000*i), "AutoMetric": true,
		})
	}
}
