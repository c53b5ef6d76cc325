package hyperv

import (
	"errors"
	"strconv"
	"strings"
)

// invoke carries out the methods that there are. All others of the schema are refused as what a provider cannot do.
func (t *nodeMachine) invoke(target *instance, m string, in *element) (map[string]any, *fault) {
	switch target.class.name + "." + m {
	case "MSCluster_ResourceGroup.MoveToNewNodeParams":
		return t.moveGroup(target, in, m)
	case "MSCluster_ResourceGroup.MoveToNewNode":
		return t.moveGroup(target, in, m)
	case "MSCluster_ResourceGroup.CancelOperation":
		return t.cancelGroup(target)
	case "Msvm_VirtualSystemMigrationService.MigrateVirtualSystemToHost":
		return t.migrate(in)
	case "Msvm_VirtualSystemMigrationService.CheckVirtualSystemIsMigratableToHost":
		return t.checkMigratable(in)
	case "Msvm_MigrationJob.RequestStateChange", "Msvm_MigrationJob.KillJob":
		return t.stopJob(target, in, m)
	case "Msvm_MigrationJob.GetErrorEx", "Msvm_MigrationJob.GetError":
		return t.jobError(target, m)
	case "Msvm_VirtualSystemManagementService.GetSummaryInformation":
		return t.summaryInformation(in)
	}
	return nil, wmiFault(wbemProviderIncapable, m)
}

// Return values of methods of the Hyper-V provider.
const (
	returnDone             = 0
	returnInvalidParameter = 5
	returnJob              = 4096
	returnInvalidState     = 32775
	returnNotFound         = 32770
)

// moveGroup moves a VM's role to another node. It returns nothing, as soon as the move is accepted.
func (t *nodeMachine) moveGroup(target *instance, in *element, m string) (map[string]any, *fault) {
	group, _ := target.value("Name").(string)
	flags, live := uint32(0), false
	kind := uint32(migrationQuick)
	if m == "MoveToNewNodeParams" {
		list, err := propertyListOf(in)
		if err != nil {
			return nil, wmiFault(malformedList, err.Error())
		}
		if n, err := strconv.ParseUint(in.child("Flags").value(), 10, 32); err == nil {
			flags = uint32(n)
		}
		if asked, named := list[propertyVM]; named {
			if asked != list[propertyConfiguration] {
				return nil, wmiFault(malformedList, "the virtual machine and its configuration are to migrate in different ways")
			}
			kind = asked
		}
	}
	switch kind {
	case migrationLive:
		live = true
	case migrationQuick:
	default:
		return nil, wmiFault(malformedList, "way to migrate "+strconv.Itoa(int(kind)))
	}
	err := t.c.change(func(md *model) error {
		v := md.group(group)
		if v == nil {
			return &refusal{groupNotFound, "the group is no virtual machine"}
		}
		v.calls++
		to := md.node(in.child("NodeName").value())
		if to == nil {
			return &refusal{nodeNotFound, "the cluster node was not found"}
		}
		_, err := md.move(v, to, live, flags)
		return err
	})
	if err != nil {
		return nil, refused(err, m)
	}
	return nil, nil
}

// propertyListOf reads the bytes of the parameter Parameters, which come as one element each.
func propertyListOf(in *element) (map[string]uint32, error) {
	var raw []byte
	for _, k := range in.kids {
		if k.name.Local != "Parameters" || k.attribute("nil") == "true" {
			continue
		}
		n, err := strconv.ParseUint(k.value(), 10, 8)
		if err != nil {
			return nil, errors.New("a byte of Parameters is no number from 0 to 255")
		}
		raw = append(raw, byte(n))
	}
	if raw == nil {
		return map[string]uint32{}, nil
	}
	return parsePropertyList(raw)
}

func refused(err error, about string) *fault {
	var r *refusal
	if errors.As(err, &r) {
		return wmiFault(r.code, about+": "+r.why)
	}
	return wmiFault(wbemNotFound, about)
}

func (t *nodeMachine) cancelGroup(target *instance) (map[string]any, *fault) {
	group, _ := target.value("Name").(string)
	err := t.c.change(func(m *model) error {
		v := m.group(group)
		if v == nil || v.move == nil {
			return &refusal{0x8007139F, "the group is not in a state where this can be done"}
		}
		m.cancel(v.move)
		return nil
	})
	if err != nil {
		return nil, refused(err, "CancelOperation")
	}
	return nil, nil
}

// pointedAt is the value of a selector in a reference that is a parameter; both notations are taken, an endpoint reference and an
// object path.
func pointedAt(in *element, key string) string {
	for _, s := range in.child("ReferenceParameters").child("SelectorSet").kids {
		if strings.EqualFold(s.attribute("Name"), key) {
			return s.value()
		}
	}
	_, rest, found := strings.Cut(in.value(), key+`="`)
	if !found {
		return ""
	}
	value, _, _ := strings.Cut(rest, `"`)
	return value
}

// migration settings that this service understands.
const migrateVirtualSystem = "32768"

func (t *nodeMachine) migrate(in *element) (map[string]any, *fault) {
	if kind := migrationTypeOf(in.child("MigrationSettingData")); kind != "" && kind != migrateVirtualSystem {
		return map[string]any{"ReturnValue": uint32(returnInvalidParameter)}, nil
	}
	var out map[string]any
	err := t.c.change(func(m *model) error {
		v := m.vm(pointedAt(in.child("ComputerSystem"), "Name"))
		if v == nil || v.on != t.n {
			out = map[string]any{"ReturnValue": uint32(returnNotFound)}
			return nil
		}
		v.calls++
		to := m.node(in.child("DestinationHost").value())
		switch {
		case v.grouped || v.move != nil || v.state != vmRunning:
			out = map[string]any{"ReturnValue": uint32(returnInvalidState)}
			return nil
		case to == nil:
			return &refusal{TargetUnknown, "the target name is not known"}
		}
		mg, err := m.move(v, to, true, returnToSource|queueEnabled)
		if err != nil {
			return err
		}
		job := t.c.schema.class("root/virtualization/v2", "Msvm_MigrationJob")
		out = map[string]any{"ReturnValue": uint32(returnJob), "Job": reference{job, map[string]string{"InstanceID": mg.job}}}
		return nil
	})
	if err != nil {
		return nil, refused(err, "MigrateVirtualSystemToHost")
	}
	return out, nil
}

// migrationTypeOf is what an embedded Msvm_VirtualSystemMigrationSettingData says of MigrationType, in either notation.
func migrationTypeOf(in *element) string {
	text := in.text
	if i := strings.Index(text, `NAME="MigrationType"`); i >= 0 {
		_, rest, _ := strings.Cut(text[i:], "<VALUE>")
		value, _, _ := strings.Cut(rest, "</VALUE>")
		return strings.TrimSpace(value)
	}
	return in.child("MigrationType").value()
}

// checkMigratable says whether a VM could migrate live to a host now, as far as that can be told before.
func (t *nodeMachine) checkMigratable(in *element) (map[string]any, *fault) {
	return look(t.c, func(m *model) map[string]any {
		v, to := m.vm(pointedAt(in.child("ComputerSystem"), "Name")), m.node(in.child("DestinationHost").value())
		if v == nil || v.on != t.n {
			return map[string]any{"ReturnValue": uint32(returnNotFound), "IsMigratable": false}
		}
		fits := to != nil && to != t.n && to.state == NodeUp && m.freeMemory(to) >= v.footprint() && v.liveFails == 0 && to.plugs(v) && !(m.opt.Standalone && m.opt.NoDelegation)
		return map[string]any{"ReturnValue": uint32(returnDone), "IsMigratable": fits}
	}), nil
}

func (m *model) job(id string) *migration {
	for _, mg := range m.migrations {
		if mg.job == id {
			return mg
		}
	}
	return nil
}

// stopJob ends a migration. RequestStateChange takes Terminate (4) and Kill (5).
func (t *nodeMachine) stopJob(target *instance, in *element, m string) (map[string]any, *fault) {
	if state := in.child("RequestedState").value(); m == "RequestStateChange" && state != "4" && state != "5" {
		return map[string]any{"ReturnValue": uint32(returnInvalidParameter)}, nil
	}
	id, _ := target.value("InstanceID").(string)
	out := map[string]any{"ReturnValue": uint32(returnDone)}
	_ = t.c.change(func(md *model) error {
		mg := md.job(id)
		if mg == nil || !mg.ended.IsZero() {
			out["ReturnValue"] = uint32(returnInvalidState)
			return nil
		}
		md.cancel(mg)
		return nil
	})
	return out, nil
}

func (t *nodeMachine) jobError(target *instance, m string) (map[string]any, *fault) {
	out := map[string]any{"ReturnValue": uint32(returnDone)}
	words, failed := target.value("ErrorDescription").(string)
	if !failed {
		return out, nil
	}
	text := cimXML("Msvm_Error", "Message", words, "ErrorSource", "Msvm_MigrationJob")
	if m == "GetErrorEx" {
		out["Errors"] = []string{text}
	} else {
		out["Error"] = text
	}
	return out, nil
}

// summaryInformation tells of the VMs whose settings are pointed at, of all if there are none.
func (t *nodeMachine) summaryInformation(in *element) (map[string]any, *fault) {
	wanted := map[string]bool{}
	for _, k := range in.kids {
		if k.name.Local == "SettingData" && k.attribute("nil") != "true" {
			wanted[pointedAt(k, "InstanceID")] = true
		}
	}
	cl := t.c.schema.class("root/virtualization/v2", "Msvm_SummaryInformation")
	all := look(t.c, func(m *model) []*instance { return t.all(m, cl, (*nodeMachine).summaries) })
	var told []*instance
	for _, i := range all {
		if id, _ := i.value("InstanceID").(string); len(wanted) == 0 || wanted[id] {
			told = append(told, i)
		}
	}
	return map[string]any{"ReturnValue": uint32(returnDone), "SummaryInformation": told}, nil
}
