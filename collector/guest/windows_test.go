package guest

import (
	"errors"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/platform/winrm"
	"github.com/protip/protip/internal/sim/hyperv"
)

const (
	windowsUser   = "reader"
	windowsSecret = "Secret-of-the-guests-1"
)

// windowsGuests are simulated Windows guests that answer by themselves, on one host. All have the services W3SVC, Spooler and BITS.
func windowsGuests(t *testing.T, n int) *hyperv.Cluster {
	t.Helper()
	var vms []hyperv.VM
	for range n {
		vms = append(vms, hyperv.VM{MemoryBytes: 2 << 30, Guest: hyperv.Guest{
			Hostname: "guest", OS: "Windows Server 2022 Datacenter", IPs: []string{"192.0.2.1"}, Endpoint: true,
			Services: []hyperv.Service{
				{Name: "W3SVC", State: "Running", StartMode: "Auto"},
				{Name: "Spooler", State: "Stopped", StartMode: "Manual"},
				{Name: "BITS", State: "Start Pending", StartMode: "Auto"},
			},
		}})
	}
	c, err := hyperv.New(hyperv.Options{Standalone: true, Users: []hyperv.User{{Name: windowsUser, Password: windowsSecret}}, Nodes: []hyperv.Node{{MemoryBytes: 64 << 30, VMs: vms}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// hosts are the guests as a source is told of them, with this password.
func hosts(c *hyperv.Cluster, password func() (string, error)) []WindowsHost {
	logins := &winrm.Logins{}
	var out []WindowsHost
	for i, vm := range c.VMs() {
		out = append(out, WindowsHost{
			Name: string(rune('a' + i)), Host: winrm.Options{URL: c.GuestURL(vm), Username: windowsUser + "@example.org", Password: password, Logins: logins},
		})
	}
	return out
}

func right() (string, error) { return windowsSecret, nil }

// known puts the guests' VMs into the fleet as vm-0 and so on, with the UUIDs that their host tells.
func (l *lab) known(c *hyperv.Cluster) {
	l.t.Helper()
	host, err := winrm.New(winrm.Options{URL: c.URL(c.Nodes()[0]), Username: windowsUser + "@example.org", Password: right})
	if err != nil {
		l.t.Fatal(err)
	}
	defer host.Close()
	rows, err := host.All(l.t.Context(), winrm.Query{Namespace: "root/virtualization/v2", WQL: "SELECT VirtualSystemIdentifier, BIOSGUID FROM Msvm_VirtualSystemSettingData"})
	if err != nil {
		l.t.Fatal(err)
	}
	var vms []inventory.VM
	for _, row := range rows {
		i := slices.Index(c.VMs(), row.Text("VirtualSystemIdentifier"))
		id := inventory.ID{Source: "vc", Kind: inventory.KindVM, Ref: "vm-" + string(rune('0'+i))}
		vms = append(vms, inventory.VM{ID: id, UUID: row.Text("BIOSGUID"), Power: inventory.PowerOn})
	}
	l.apply(inventory.Delta{Source: "vc", VMs: vms})
}

var windowsMappings = []Mapping{
	{Type: Windows, Names: []string{"w3svc", "Spooler", "BITS"}},
	{Type: Performance, Class: "Win32_PerfRawData_PerfDisk_LogicalDisk", Property: "AvgDisksecPerTransfer", Name: "disk", Names: []string{"C:"}, Latency: "mean"},
	{Type: Performance, Class: "Win32_PerfRawData_PerfDisk_LogicalDisk", Property: "CurrentDiskQueueLength", Name: "queue", Names: []string{"_Total"}, Running: true},
}

func TestWindowsServices(t *testing.T) {
	c := windowsGuests(t, 2)
	l := start(t, Options{Windows: hosts(c, right), Services: windowsMappings})
	l.known(c)
	// One guest tells its UUID as its host does, the other with the first three groups reversed.
	for guest, vm := range map[string]string{"a": "vm-0", "b": "vm-1"} {
		l.await(guest+"/windows/W3SVC", "running in "+vm)
		l.await(guest+"/windows/Spooler", "stopped in "+vm)
		l.await(guest+"/windows/BITS", "unknown in "+vm)
		l.await(guest+"/performance/disk/C:", "unknown in "+vm+" with latency")
		l.await(guest+"/performance/queue/_Total", "running in "+vm)
		l.await(guest+"/performance/disk/_Total", "none")
	}
	disk := inventory.ID{Source: "guests", Kind: inventory.KindService, Ref: "a/performance/disk/C:"}
	if svc, ok := l.fleet.Snapshot().Service(disk); ok {
		if latency, ok := svc.Samples.Value(inventory.ServiceLatency); !ok || math.Abs(latency-0.005) > 0.001 {
			t.Errorf("a transfer takes %v s, want 5 ms", latency)
		}
	}

	vm := c.VMs()[0]
	stop := func(state string) {
		if err := c.SetService(vm, "W3SVC", state); err != nil {
			t.Fatal(err)
		}
	}
	stop("Stopped")
	l.await("a/windows/W3SVC", "failed in vm-0")
	stop("Paused")
	l.await("a/windows/W3SVC", "stopped in vm-0")

	// A guest that is not there says nothing, and another one is none the worse.
	c.StopEndpoint(vm)
	l.await("a/windows/W3SVC", "unknown in vm-0")
	l.await("a/performance/disk/C:", "unknown in vm-0")
	l.awaitFault("windows", "a: ")
	l.await("b/windows/W3SVC", "running in vm-1")
	if up := testutil.ToFloat64(l.source.opts.Metrics.up.WithLabelValues("guests", "a")); up != 0 {
		t.Errorf("target up is %v", up)
	}
	if err := c.StartEndpoint(vm); err != nil {
		t.Fatal(err)
	}
	l.await("a/windows/W3SVC", "stopped in vm-0")
	l.stop()
	if n := c.Requests("", "Invoke") + c.Requests("", "Command"); n != 0 {
		t.Errorf("the guests were sent %d commands", n)
	}
}

// TestWindowsWithoutAClass: what this Windows does not have costs what is read from it, is told, and costs nothing else.
func TestWindowsWithoutAClass(t *testing.T) {
	c := windowsGuests(t, 1)
	for _, class := range []string{"Win32_PerfRawData_PerfDisk_LogicalDisk", "Win32_ComputerSystemProduct"} {
		c.DropClass(class)
	}
	l := start(t, Options{Windows: hosts(c, right), Services: windowsMappings})
	l.known(c)
	l.await("a/windows/W3SVC", "running")
	l.awaitFault("class", "HRESULT 0x80041010")
	l.await("a/performance/queue/_Total", "none")
	c.RestoreClass("Win32_PerfRawData_PerfDisk_LogicalDisk")
	l.await("a/performance/queue/_Total", "running")
	c.DropClass("Win32_PerfRawData_PerfDisk_LogicalDisk")
	l.await("a/performance/queue/_Total", "unknown")
	l.await("a/windows/W3SVC", "running")
}

// TestWindowsByMAC: a guest that tells no UUID is known by its network adapter.
func TestWindowsByMAC(t *testing.T) {
	c := windowsGuests(t, 1)
	c.DropClass("Win32_ComputerSystemProduct")
	l := start(t, Options{Windows: hosts(c, right), Services: windowsMappings[:1]})
	id := inventory.ID{Source: "vc", Kind: inventory.KindVM, Ref: "vm-0"}
	l.apply(inventory.Delta{Source: "vc", VMs: []inventory.VM{{ID: id, MACs: []string{"00:15:5d:01:00:00"}, Power: inventory.PowerOn}}})
	l.await("a/windows/W3SVC", "running in vm-0")
}

// TestWindowsWrongPassword: it is tried at one guest, once, and not again; the right one is taken at once.
func TestWindowsWrongPassword(t *testing.T) {
	c := windowsGuests(t, 8)
	var mended atomic.Bool
	l := start(t, Options{Windows: hosts(c, func() (string, error) {
		if mended.Load() {
			return windowsSecret, nil
		}
		return "wr0ng-S3cret", nil
	}), Services: windowsMappings[:1]})
	l.awaitFault("windows", "credentials refused")
	for looks, end := 0, time.Now().Add(deadline); looks < 3 && time.Now().Before(end); looks++ {
		time.Sleep(l.clock.Real(l.source.opts.Interval))
	}
	if n := c.Refused(); n != 1 {
		t.Errorf("the wrong password was refused %d times, want once", n)
	}
	if text := l.fault("windows"); strings.Contains(text, "wr0ng") {
		t.Errorf("the password is in the error: %s", text)
	}
	mended.Store(true)
	for _, guest := range []string{"a", "h"} {
		l.await(guest+"/windows/W3SVC", "running")
	}
}

// TestWindowsHangs: a guest that takes the connection and says nothing has its time, and no more.
func TestWindowsHangs(t *testing.T) {
	c := windowsGuests(t, 2)
	lift := c.Inject(hyperv.Fault{Node: c.VMs()[0], Hang: true})
	defer lift()
	l := start(t, Options{Windows: hosts(c, right), Services: windowsMappings[:1], Timeout: 500 * time.Millisecond})
	l.awaitFault("windows", "a: no answer within 500ms")
	l.await("b/windows/W3SVC", "running")
}

func TestCheckWindows(t *testing.T) {
	c := windowsGuests(t, 1)
	r, err := Check(t.Context(), Options{Name: "guests", Windows: hosts(c, right), Services: windowsMappings, Clock: c.Clock()})
	if err != nil || len(r.Notes) == 0 || !strings.HasPrefix(r.Notes[0], "windows a: answers, 5 services; no VM found") {
		t.Errorf("check: %v, %q", err, r.Notes)
	}
	_, err = Check(t.Context(), Options{
		Name: "guests", Windows: hosts(c, func() (string, error) { return "wr0ng", nil }), Services: windowsMappings, Clock: c.Clock(),
	})
	if err == nil || !strings.Contains(err.Error(), "credentials refused") || errors.Is(err, winrm.ErrTimedOut) {
		t.Errorf("check with a wrong password: %v", err)
	}
}

func TestWhereName(t *testing.T) {
	for _, tc := range []struct {
		patterns []string
		want     string
	}{
		{[]string{"W3SVC"}, " WHERE Name = 'W3SVC'"},
		{[]string{"W3SVC", `MSSQL\$A`}, " WHERE Name = 'W3SVC' OR Name = 'MSSQL$A'"},
		{[]string{`it's`, `a\\b`}, ` WHERE Name = 'it\'s' OR Name = 'a\\b'`},
		{[]string{"W3SVC", "MSSQL.*"}, ""},
		{[]string{"(?i)w3svc"}, " WHERE Name = 'W3SVC'"},
		{slices.Repeat([]string{"a"}, maxWhere+1), ""},
	} {
		if got := whereName(tc.patterns); got != tc.want {
			t.Errorf("%q: %q, want %q", tc.patterns, got, tc.want)
		}
	}
}
