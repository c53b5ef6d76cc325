package app_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// soon is how long what happens in a vCenter may take to be in the inventory and told of.
const soon = 2 * time.Second

func TestMigrationIsTheVCentersOwnTask(t *testing.T) {
	t.Parallel()
	r := newRig(t, 40, hotFleet("vc"))
	r.automatic("HostHot")
	vc := r.vcs[0]
	a := r.start()

	act := a.awaitAction("done and recovered", recovered)
	if act.VMName != "mover" || act.State != remediation.Done || !act.Verified || act.By != remediation.ByPolicy {
		t.Errorf("action is %+v", act)
	}
	if n := sent(vc); n != 1 {
		t.Errorf("%d migrations were sent, want 1", n)
	}
	c := login(t, vc)
	var manager mo.TaskManager
	pc := property.DefaultCollector(c.Client)
	if err := pc.RetrieveOne(t.Context(), *c.ServiceContent.TaskManager, []string{"recentTask"}, &manager); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(manager.RecentTask, types.ManagedObjectReference{Type: "Task", Value: act.TaskRef}) {
		t.Fatalf("task %s is not among the recent ones: %v", act.TaskRef, manager.RecentTask)
	}
	var task mo.Task
	if err := pc.RetrieveOne(t.Context(), types.ManagedObjectReference{Type: "Task", Value: act.TaskRef}, []string{"info"}, &task); err != nil {
		t.Fatal(err)
	}
	if info := task.Info; info.DescriptionId != "VirtualMachine.migrate" || info.State != types.TaskInfoStateSuccess ||
		*info.Entity != ref(act.VM) {
		t.Errorf("task is %s of %s, %s", info.DescriptionId, info.Entity, info.State)
	}
	a.awaitTip("HostHot", act.From, rules.Resolved)
	s := a.scrape()
	if s.value("protip_actions_total", "source", "vc", "state", "done") != 1 || s.value("protip_action_outcomes_total", "outcome", "recovered") != 1 {
		t.Errorf("metrics do not tell of the action: %v %v", s["protip_actions_total"], s["protip_action_outcomes_total"])
	}
}

func TestWhatOthersDoIsSeenAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, 20, calmFleet("vc"))
	vc := r.vcs[0]
	a := r.start()
	a.awaitUp("vc")
	c := login(t, vc)

	told := func(kind inventory.ChangeKind, id inventory.ID) string {
		if !slices.Contains(a.changes()[kind], id) {
			return fmt.Sprintf("no event says that %s was %s", id, kind)
		}
		return ""
	}

	// Moved.
	mover, target := vm(t, vc, "mover"), host(t, vc, "esx03")
	to := ref(target)
	task, err := object.NewVirtualMachine(c.Client, ref(mover)).Migrate(t.Context(), nil, object.NewHostSystem(c.Client, to),
		types.VirtualMachineMovePriorityDefaultPriority, types.VirtualMachinePowerStatePoweredOn)
	if err != nil {
		t.Fatal(err)
	}
	if err := task.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, soon, func() string {
		if v, _ := a.Snapshot().VM(mover); v.VM == nil || v.Host != target {
			return "the inventory has not moved it"
		}
		return told(inventory.Moved, mover)
	})
	await(t, deadline, func() string {
		if n := a.scrape().value("protip_foreign_moves_total", "source", "vc"); n != 1 {
			return fmt.Sprintf("%v foreign moves counted", n)
		}
		return ""
	})
	if n := a.scrape().count("virt_vm_info", "vm", "mover", "host", "esx03"); n != 1 {
		t.Errorf("virt_vm_info has %d series of mover on esx03", n)
	}

	// Created.
	var dc mo.Datacenter
	var inside mo.HostSystem
	var cluster mo.ClusterComputeResource
	pc := property.DefaultCollector(c.Client)
	dcs, err := object.NewRootFolder(c.Client).Children(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := pc.RetrieveOne(t.Context(), dcs[0].Reference(), []string{"vmFolder"}, &dc); err != nil {
		t.Fatal(err)
	}
	if err := pc.RetrieveOne(t.Context(), to, []string{"parent"}, &inside); err != nil {
		t.Fatal(err)
	}
	if err := pc.RetrieveOne(t.Context(), *inside.Parent, []string{"resourcePool"}, &cluster); err != nil {
		t.Fatal(err)
	}
	task, err = object.NewFolder(c.Client, dc.VmFolder).CreateVM(t.Context(), types.VirtualMachineConfigSpec{Name: "newcomer", NumCPUs: 2, MemoryMB: 1024},
		object.NewResourcePool(c.Client, *cluster.ResourcePool), object.NewHostSystem(c.Client, to))
	if err != nil {
		t.Fatal(err)
	}
	info, err := task.WaitForResult(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	made := info.Result.(types.ManagedObjectReference)
	newcomer := inventory.ID{Source: "vc", Kind: inventory.KindVM, Ref: made.Value}
	await(t, soon, func() string {
		if v, ok := a.Snapshot().VM(newcomer); !ok || v.Name != "newcomer" || v.Host != target {
			return "the new VM is not in the inventory"
		}
		return told(inventory.Added, newcomer)
	})

	// Destroyed.
	if task, err = object.NewVirtualMachine(c.Client, made).Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := task.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, soon, func() string {
		if _, ok := a.Snapshot().VM(newcomer); ok {
			return "the destroyed VM is still in the inventory"
		}
		return told(inventory.Removed, newcomer)
	})
}
