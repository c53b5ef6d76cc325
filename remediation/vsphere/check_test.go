package vsphere

import (
	"strings"
	"testing"

	"github.com/vmware/govmomi/vim25/types"

	platform "github.com/protip/protip/internal/platform/vsphere"
	"github.com/protip/protip/internal/sim"
)

func TestRoom(t *testing.T) {
	host := platform.Properties{
		"summary.hardware.memorySize": int64(64 << 30), "summary.hardware.cpuMhz": int32(2000), "summary.hardware.numCpuCores": int16(16),
		"summary.quickStats.overallCpuUsage": int32(30000), "summary.quickStats.overallMemoryUsage": int32(60000),
	}
	without := func(path string) platform.Properties {
		p := platform.Properties{}
		for k, v := range host {
			if k != path {
				p[k] = v
			}
		}
		return p
	}
	for _, tc := range []struct {
		name string
		host platform.Properties
		need use
		want string // in the error; empty: there is room
	}{
		{"room", host, use{new(int64(2000)), new(int64(5536))}, ""},
		{"no memory", host, use{new(int64(0)), new(int64(5537))}, "60000 of 65536 MB memory are used, and the VM takes 5537"},
		{"no CPU", host, use{new(int64(2001)), new(int64(0))}, "30000 of 32000 MHz CPU are used, and the VM takes 2001"},
		{"the VM's use is not known", host, use{}, ""},
		{"the host's use is not known", without("summary.quickStats.overallMemoryUsage"), use{new(int64(1)), new(int64(99999))}, ""},
		{"the host's size is not known", without("summary.hardware.numCpuCores"), use{new(int64(99999)), new(int64(1))}, ""},
		{"nothing is known", platform.Properties{}, use{new(int64(1)), new(int64(1))}, ""},
	} {
		err := room(tc.host, tc.need)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
}

// TestIncompatible has the vCenter's own check refuse the target: its CPU is of another kind.
func TestIncompatible(t *testing.T) {
	clusters := sim.Uniform(2, 1)
	clusters[0].Hosts[1].CPUModel = "Intel(R) Xeon(R) CPU E5-2680 v2 @ 2.80GHz"
	vc := newVCenterOf(t, clusters)
	err := vc.executor(t, nil).Check(t.Context(), vc.action())
	if err == nil || !strings.Contains(err.Error(), "the-vm cannot move to the-target: ") {
		t.Errorf("check: %v, want that the VM cannot move there", err)
	}
	t.Log(err)
}

// TestNoCheckOffered: a vCenter without either check still answers for the rest.
func TestNoCheckOffered(t *testing.T) {
	vc := newVCenter(t)
	for _, method := range []string{"CheckMigrate_Task", "CheckRelocate_Task"} {
		vc.Inject(sim.Fault{Method: method, Fault: &types.MethodNotFound{Method: method}})
	}
	if err := vc.executor(t, nil).Check(t.Context(), vc.action()); err != nil {
		t.Errorf("check: %v", err)
	}
}

// TestNoTaskHistory: the recent tasks remain.
func TestNoTaskHistory(t *testing.T) {
	for _, f := range []types.BaseMethodFault{&types.NotSupported{}, &types.NoPermission{}, &types.MethodNotFound{}} {
		vc := newVCenter(t)
		vc.Inject(sim.Fault{Method: "CreateCollectorForTasks", Fault: f})
		a := vc.action()
		ref := vc.migrate(a.To)
		s, err := vc.executor(t, nil).Find(t.Context(), a)
		if err != nil || len(s.Tasks) != 1 || s.Tasks[0].Ref != ref {
			t.Errorf("%T: find = %+v, %v", f, s, err)
		}
	}
}

func TestFaultWords(t *testing.T) {
	deep := &types.SystemError{}
	deep.FaultMessage = []types.LocalizableMessage{{Message: "vMotion failed"}, {Message: " "}, {Message: strings.Repeat("x", maxWords)}}
	for _, tc := range []struct {
		fault *types.LocalizedMethodFault
		want  string
	}{
		{nil, "failed, and the vCenter does not say why"},
		{&types.LocalizedMethodFault{}, "failed, and the vCenter does not say why"},
		{&types.LocalizedMethodFault{LocalizedMessage: "no room"}, "no room"},
		{&types.LocalizedMethodFault{Fault: &types.InvalidState{}}, "InvalidState"},
		{&types.LocalizedMethodFault{Fault: deep, LocalizedMessage: "A general system error occurred"}, "A general system error occurred: vMotion failed (SystemError)"},
	} {
		if got := faultWords(tc.fault); got != tc.want {
			t.Errorf("%+v = %q, want %q", tc.fault, got, tc.want)
		}
	}
}
