package hyperv

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/protip/protip/internal/sim/load"
)

// model30 makes migrations take 30 s on a cluster that serves nothing: its clock is the bubble's.
func model30(t *testing.T, opt Options) *Cluster {
	t.Helper()
	opt.MigrationTime = func(float64) time.Duration { return 30 * time.Second }
	if opt.Load == nil {
		opt.Load = load.Steady(load.Use{CPU: 0.5, MemoryConsumed: 0.5, DiskRead: 1 << 20})
	}
	c, err := build(withDefaults(opt))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func node4(n int) Node {
	node := Node{MemoryBytes: 64 << 30}
	for range n {
		node.VMs = append(node.VMs, VM{MemoryBytes: 8 << 30})
	}
	return node
}

// invoke calls a method as a client would, of the instance with that key.
func invoke(t *testing.T, c *Cluster, at int, class, method, key, value, in string) (map[string]any, *fault) {
	t.Helper()
	m := &nodeMachine{c, c.model.nodes[at]}
	ns := "root/virtualization/v2"
	if class[:9] == "MSCluster" {
		ns = "root/mscluster"
	}
	all, f := m.instances(c.schema.class(ns, class))
	if f != nil {
		t.Fatal(f.words("en-US"))
	}
	for _, i := range all {
		if i.values[key] == value {
			body, err := parseXML([]byte("<x>" + in + "</x>"))
			if err != nil {
				t.Fatal(err)
			}
			return m.invoke(i, method, body)
		}
	}
	t.Fatalf("no %s with %s %s", class, key, value)
	return nil, nil
}

// parameters is the property list of a migration of a kind, as XML.
func parameters(kind byte) string {
	list := []byte{2, 0, 0, 0}
	for _, name := range []string{propertyVM, propertyConfiguration} {
		text := append(utf16Bytes(name), 0, 0)
		list = append(list, 3, 0, 4, 0, byte(len(text)), 0, 0, 0)
		list = append(list, text...)
		list = append(list, make([]byte, -len(text)&3)...)
		list = append(list, 2, 0, 1, 0, 4, 0, 0, 0, kind, 0, 0, 0, 0, 0, 0, 0)
	}
	xml := ""
	for _, b := range list {
		xml += fmt.Sprintf("<Parameters>%d</Parameters>", b)
	}
	return xml
}

func moveByParams(t *testing.T, c *Cluster, vm, node string, kind byte, flags int) *fault {
	t.Helper()
	in := fmt.Sprintf("<NodeName>%s</NodeName>%s<Flags>%d</Flags>", node, parameters(kind), flags)
	_, f := invoke(t, c, 0, "MSCluster_ResourceGroup", "MoveToNewNodeParams", "Name", c.Truth(vm).Group, in)
	return f
}

// group is a VM's group as WMI tells it.
func group(c *Cluster, vm string) (state, owner any, waits bool) {
	m := &nodeMachine{c, c.model.nodes[0]}
	all, _ := m.instances(c.schema.class("root/mscluster", "MSCluster_ResourceGroup"))
	name := c.Truth(vm).Group
	for _, g := range all {
		if g.values["Name"] == name {
			return g.values["State"], g.values["OwnerNode"], g.values["StatusInformation"] == uint64(waitingInQueueForMove)
		}
	}
	return nil, nil, false
}

func TestLiveMigration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := model30(t, Options{Nodes: []Node{node4(2), node4(0)}})
		vm := c.VMs()[0]
		time.Sleep(time.Hour)
		if f := moveByParams(t, c, vm, "hv-02", migrationLive, returnToSource|queueEnabled); f != nil {
			t.Fatal(f.words("en-US"))
		}
		time.Sleep(15 * time.Second)
		if state, owner, waits := group(c, vm); state != uint32(groupPending) || owner != "hv-01" || waits {
			t.Errorf("halfway: state %v, owner %v, waits %v", state, owner, waits)
		}
		if tr := c.Truth(vm); !tr.Running || !tr.Moving || tr.Node != "hv-01" {
			t.Errorf("halfway: %+v", tr)
		}
		both := 0
		for i := range c.model.nodes {
			m := &nodeMachine{c, c.model.nodes[i]}
			all, _ := m.instances(c.schema.class("root/virtualization/v2", "Msvm_ComputerSystem"))
			for _, s := range all {
				if s.values["Name"] == vm {
					both++
				}
			}
		}
		if both != 2 {
			t.Errorf("halfway %d nodes know the VM, want 2", both)
		}
		time.Sleep(15 * time.Second)
		if state, owner, _ := group(c, vm); state != uint32(groupOnline) || owner != "hv-02" {
			t.Errorf("in the end: state %v, owner %v", state, owner)
		}
		tr := c.Truth(vm)
		if tr.Calls != 1 || tr.Downtime != liveBlackout || tr.Moving {
			t.Errorf("%+v", tr)
		}
		if c.model.vms[0].runTicks != 0 {
			t.Error("the target counts what the source counted")
		}
		if log := c.Migrations(); len(log) != 1 || log[0].Code != 0 || log[0].End.Sub(log[0].Began) != 30*time.Second || !log[0].Live || log[0].Foreign {
			t.Errorf("%+v", log)
		}
	})
}

func TestQueueOfMigrations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := model30(t, Options{Nodes: []Node{node4(5), node4(0), node4(0)}, ActiveMigrations: 2})
		ids := c.VMs()
		for _, vm := range ids {
			if f := moveByParams(t, c, vm, "hv-02", migrationLive, queueEnabled); f != nil {
				t.Fatal(f.words("en-US"))
			}
		}
		count := func() (moved, pending, waiting int) {
			for _, vm := range ids {
				state, owner, waits := group(c, vm)
				switch {
				case owner == "hv-02":
					moved++
				case waits && state == uint32(groupOnline):
					waiting++
				case state == uint32(groupPending):
					pending++
				}
			}
			return moved, pending, waiting
		}
		for i, want := range [][3]int{{0, 2, 3}, {2, 2, 1}, {4, 1, 0}, {5, 0, 0}} {
			moved, pending, waiting := count()
			if got := [3]int{moved, pending, waiting}; got != want {
				t.Errorf("after %d times 30 s: %v, want %v", i, got, want)
			}
			if i == 0 {
				if f := moveByParams(t, c, ids[4], "hv-03", migrationLive, queueEnabled); f == nil || f.wmi != moveInProgress {
					t.Errorf("a second move of a VM: %+v", f)
				}
			}
			time.Sleep(30 * time.Second)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		c := model30(t, Options{Nodes: []Node{node4(2), node4(0)}, ActiveMigrations: 1})
		ids := c.VMs()
		if f := moveByParams(t, c, ids[0], "hv-02", migrationLive, 0); f != nil {
			t.Fatal(f.words("en-US"))
		}
		if f := moveByParams(t, c, ids[1], "hv-02", migrationLive, 0); f == nil || f.wmi != slotsTaken {
			t.Errorf("without a queue: %+v", f)
		}
	})
}

func TestMigrationsThatFail(t *testing.T) {
	full := node4(7)
	for name, tt := range map[string]struct {
		opt  Options
		kind byte
		do   func(c *Cluster, vm string)
		want uint32
	}{
		"no memory":    {Options{Nodes: []Node{node4(1), full}}, migrationLive, nil, NoMemory},
		"logon type":   {Options{Nodes: []Node{{VMs: []VM{{LiveFails: LogonTypeNotGranted}}}, {}}}, migrationLive, nil, LogonTypeNotGranted},
		"no switch":    {Options{Nodes: []Node{node4(1), {Switches: []string{"Lab"}}}}, migrationLive, nil, noSwitch},
		"set to fail":  {Options{Nodes: []Node{node4(1), {}}}, migrationLive, func(c *Cluster, vm string) { _ = c.SetLiveFails(vm, MigrationTimeout) }, MigrationTimeout},
		"quick, full":  {Options{Nodes: []Node{node4(1), full}}, migrationQuick, nil, NoMemory},
		"the next one": {Options{Nodes: []Node{node4(1), {}}}, migrationQuick, func(c *Cluster, vm string) { _ = c.FailNextMove(vm, ISOMissing) }, ISOMissing},
		"target fails": {Options{Nodes: []Node{node4(1), {}}}, migrationLive, nil, nodeDown},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := model30(t, tt.opt)
				vm := c.VMs()[0]
				if tt.do != nil {
					tt.do(c, vm)
				}
				if f := moveByParams(t, c, vm, "hv-02", tt.kind, returnToSource|queueEnabled); f != nil {
					t.Fatal(f.words("en-US"))
				}
				time.Sleep(5 * time.Second)
				if tt.want == nodeDown {
					if err := c.SetNodeState("hv-02", NodeDown); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(25 * time.Second)
				if state, owner, _ := group(c, vm); state != uint32(groupOnline) || owner != "hv-01" {
					t.Errorf("state %v, owner %v: it should be online where it was", state, owner)
				}
				if log := c.Migrations(); log[0].Code != tt.want {
					t.Errorf("code 0x%08X, want 0x%08X", log[0].Code, tt.want)
				}
				checkErrorIsTold(t, c, vm, tt.want)
			})
		})
	}
}

// checkErrorIsTold holds that the job, in words, and the resource, as a number, tell the error.
func checkErrorIsTold(t *testing.T, c *Cluster, vm string, want uint32) {
	t.Helper()
	m := &nodeMachine{c, c.model.nodes[0]}
	jobs, _ := m.instances(c.schema.class("root/virtualization/v2", "Msvm_MigrationJob"))
	if len(jobs) != 1 || jobs[0].values["VirtualSystemName"] != vm {
		t.Fatalf("%d jobs", len(jobs))
	}
	words, _ := jobs[0].values["ErrorDescription"].(string)
	if hex := fmt.Sprintf("(0x%08X)", want); !contains(words, hex) {
		t.Errorf("the job says %q, not %s", words, hex)
	}
	all, _ := m.instances(c.schema.class("root/mscluster", "MSCluster_Resource"))
	for _, r := range all {
		if r.values["Type"] == typeVM && r.values["OwnerGroup"] == c.Truth(vm).Group && r.values["LastOperationStatusCode"] != uint64(want) {
			t.Errorf("the resource says %v", r.values["LastOperationStatusCode"])
		}
	}
}

func contains(s, part string) bool { return like(s, "%"+part+"%") }

func TestQuickMigrationIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := model30(t, Options{Nodes: []Node{{VMs: []VM{{LiveFails: LogonTypeNotGranted}}}, {}}})
		vm := c.VMs()[0]
		if f := moveByParams(t, c, vm, "hv-02", migrationQuick, returnToSource|queueEnabled); f != nil {
			t.Fatal(f.words("en-US"))
		}
		for _, want := range []struct {
			owner   string
			state   uint32
			running bool
		}{{"hv-01", groupPending, false}, {"hv-02", groupPending, false}, {"hv-02", groupOnline, true}} {
			time.Sleep(10 * time.Second)
			state, owner, _ := group(c, vm)
			if tr := c.Truth(vm); state != want.state || owner != want.owner || tr.Running != want.running {
				t.Errorf("state %v, owner %v, running %v; want %+v", state, owner, tr.Running, want)
			}
		}
		if tr := c.Truth(vm); tr.Downtime != 30*time.Second {
			t.Errorf("down for %s", tr.Downtime)
		}
	})
}

func TestRefusedMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := model30(t, Options{Nodes: []Node{node4(1), {State: NodePaused}, {State: NodeDown}}})
		vm := c.VMs()[0]
		for node, want := range map[string]uint32{"hv-02": nodePaused, "hv-03": nodeDown, "hv-99": nodeNotFound} {
			if f := moveByParams(t, c, vm, node, migrationLive, queueEnabled); f == nil || f.wmi != want {
				t.Errorf("to %s: %+v", node, f)
			}
		}
		if f := moveByParams(t, c, vm, "hv-02", 9, 0); f == nil || f.wmi != malformedList {
			t.Errorf("an unknown way: %+v", f)
		}
		if _, f := invoke(t, c, 0, "MSCluster_ResourceGroup", "MoveToNewNodeParams", "Name", c.Truth(vm).Group, "<NodeName>hv-02</NodeName><Parameters>3</Parameters>"); f == nil || f.wmi != malformedList {
			t.Errorf("a broken list: %+v", f)
		}
		if _, f := invoke(t, c, 0, "MSCluster_ResourceGroup", "MoveToNewNode", "Name", "Cluster Group", "<NodeName>hv-02</NodeName>"); f == nil || f.wmi != groupNotFound {
			t.Errorf("the core group: %+v", f)
		}
		if calls := c.MoveCalls(); calls[vm] != 3 || len(calls) != 1 {
			t.Errorf("%v", calls)
		}
	})
}

func TestMoveToWhereItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := model30(t, Options{Nodes: []Node{node4(1), {}}})
		if f := moveByParams(t, c, c.VMs()[0], "HV-01.example.org", migrationLive, 0); f != nil {
			t.Fatal(f.words("en-US"))
		}
		if tr := c.Truth(c.VMs()[0]); tr.Moving || tr.Downtime != 0 {
			t.Errorf("%+v", tr)
		}
	})
}

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := model30(t, Options{Nodes: []Node{node4(2), node4(0)}, ActiveMigrations: 1})
		ids := c.VMs()
		for _, vm := range ids {
			if f := moveByParams(t, c, vm, "hv-02", migrationLive, queueEnabled); f != nil {
				t.Fatal(f.words("en-US"))
			}
		}
		time.Sleep(10 * time.Second)
		for _, vm := range []string{ids[1], ids[0]} { // the one in the queue first
			if _, f := invoke(t, c, 1, "MSCluster_ResourceGroup", "CancelOperation", "Name", c.Truth(vm).Group, "<Flags>0</Flags>"); f != nil {
				t.Fatal(f.words("en-US"))
			}
		}
		if _, f := invoke(t, c, 0, "MSCluster_ResourceGroup", "CancelOperation", "Name", c.Truth(ids[0]).Group, ""); f == nil {
			t.Error("what is not moving can be canceled")
		}
		time.Sleep(time.Hour)
		for _, vm := range ids {
			if tr := c.Truth(vm); tr.Node != "hv-01" || !tr.Running || tr.Moving {
				t.Errorf("%+v", tr)
			}
		}
	})
}

func TestNodeDownFailsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := node4(3)
		first.VMs[2].Unclustered = true
		c := model30(t, Options{Nodes: []Node{first, node4(7), node4(0)}})
		if err := c.SetNodeState("hv-01", NodeDown); err != nil {
			t.Fatal(err)
		}
		for i, vm := range c.VMs()[:3] {
			tr := c.Truth(vm)
			if i < 2 && (tr.Node != "hv-03" || !tr.Running) || i == 2 && (tr.Node != "hv-01" || tr.Running) {
				t.Errorf("VM %d: %+v", i, tr)
			}
		}
	})
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := model30(t, Options{Nodes: []Node{node4(3), node4(0), node4(0)}})
		if err := c.Pause("hv-01", true); err != nil {
			t.Fatal(err)
		}
		status := func() int { return look(c, func(m *model) int { return m.drainStatus(m.nodes[0]) }) }
		if got := status(); got != 1 {
			t.Errorf("status %d at first", got)
		}
		time.Sleep(2 * time.Minute)
		if got := status(); got != 2 {
			t.Errorf("status %d in the end", got)
		}
		for _, mg := range c.Migrations() {
			if !mg.Foreign {
				t.Errorf("%+v", mg)
			}
		}
		if len(c.MoveCalls()) != 0 {
			t.Error("a drain counts as a client's call")
		}
	})
}

func TestStandaloneMigration(t *testing.T) {
	for _, delegated := range []bool{true, false} {
		t.Run(fmt.Sprint(delegated), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := model30(t, Options{Standalone: true, NoDelegation: !delegated, Nodes: []Node{node4(1), node4(0)}})
				vm := c.VMs()[0]
				in := `<ComputerSystem><ReferenceParameters><SelectorSet><Selector Name="Name">` + vm + `</Selector></SelectorSet></ReferenceParameters></ComputerSystem><DestinationHost>hv-02</DestinationHost>`
				const service = "Msvm_VirtualSystemMigrationService"
				out, f := invoke(t, c, 0, service, "CheckVirtualSystemIsMigratableToHost", "Name", service, in)
				if f != nil || out["IsMigratable"] != delegated {
					t.Errorf("check: %v %v", out, f)
				}
				out, f = invoke(t, c, 0, service, "MigrateVirtualSystemToHost", "Name", service, in)
				if f != nil || out["ReturnValue"] != uint32(returnJob) {
					t.Fatalf("%v %v", out, f)
				}
				job := out["Job"].(reference).keys["InstanceID"]
				time.Sleep(6 * time.Second)
				m := &nodeMachine{c, c.model.nodes[0]}
				all, _ := m.instances(c.schema.class("root/virtualization/v2", "Msvm_MigrationJob"))
				if len(all) != 1 || all[0].values["InstanceID"] != job || all[0].values["JobState"] != jobRunning || all[0].values["PercentComplete"] == 0 {
					t.Errorf("%+v", all)
				}
				time.Sleep(30 * time.Second)
				want := map[bool]string{true: "hv-02", false: "hv-01"}[delegated]
				if tr := c.Truth(vm); tr.Node != want || !tr.Running {
					t.Errorf("%+v", tr)
				}
				if code := c.Migrations()[0].Code; !delegated && code != NoCredentials {
					t.Errorf("code 0x%08X", code)
				}
			})
		})
	}
}

func TestCountersAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vms := make([]VM, 16)
		for i := range vms {
			vms[i] = VM{VCPUs: 4, MemoryBytes: 8 << 30, Dynamic: true}
		}
		c := model30(t, Options{Nodes: []Node{{Cores: 32, VMs: vms}}, Load: load.Steady(load.Use{CPU: 0.25, MemoryConsumed: 0.5})})
		for _, heat := range []float64{0.53, 0.90, 1.20} {
			if heat != 0.53 {
				if err := c.Heat("hv-01", heat, 0.7); err != nil {
					t.Fatal(err)
				}
			}
			before := *c.model.nodes[0]
			guest := c.model.vms[0].runTicks
			waits := c.model.vms[0].waitNanos
			at := c.model.at
			time.Sleep(10 * time.Minute)
			cpu, _ := c.HostUse("hv-01")
			n, elapsed := c.model.nodes[0], float64(c.model.at.Sub(at)/100)
			if busy := (n.guestTicks + n.hypervisorTicks - before.guestTicks - before.hypervisorTicks) / elapsed; math.Abs(busy-cpu) > 0.001 || math.Abs(cpu-min(1, heat)) > 0.001 {
				t.Errorf("heated to %.2f: counters say %.3f, the truth is %.3f", heat, busy, cpu)
			}
			if whole := (n.guestTicks + n.hypervisorTicks + n.idleTicks) - (before.guestTicks + before.hypervisorTicks + before.idleTicks); math.Abs(whole/elapsed-1) > 1e-6 {
				t.Errorf("busy and idle add up to %.4f", whole/elapsed)
			}
			perVM := (c.model.vms[0].runTicks - guest) / elapsed / 4
			if want := min(0.97, heat-rootShare-hypervisorShare) * 32 / 64; math.Abs(perVM-want) > 0.01 {
				t.Errorf("heated to %.2f: a VM runs %.3f of its processors, want %.3f", heat, perVM, want)
			}
			contention := (c.model.vms[0].waitNanos - waits) / (elapsed * 100) / 4
			if hot := heat > 1; hot != (contention > 0.1) || heat < 0.6 && contention > 0.01 {
				t.Errorf("heated to %.2f: contention %.3f", heat, contention)
			}
		}
		if tr := c.Truth(c.VMs()[0]); math.Abs(tr.DemandedBytes-0.7*(8<<30)) > 1 || tr.AssignedBytes <= tr.DemandedBytes {
			t.Errorf("%+v", tr)
		}
	})
}
