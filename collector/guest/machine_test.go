package guest

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
)

// machineOf is a machine as text, with its last samples.
func (l *lab) machineOf(ref string) string {
	l.fleet.Expire(l.clock.Now())
	table := l.fleet.Snapshot().MachineTable("guests")
	for slot, m := range table.Facts {
		if m == nil || m.ID.Ref != ref {
			continue
		}
		s := fmt.Sprintf("%s %q %q cpus=%d memory=%.0f", m.Name, m.Model, m.UUID, m.CPUs, m.MemoryBytes)
		if !m.VM.IsZero() {
			s += " vm=" + m.VM.Ref
		}
		for _, metric := range inventory.MetricsOf(inventory.KindMachine) {
			if v, ok := table.Samples[slot].Value(metric); ok {
				s += fmt.Sprintf(" %s=%.4g", metric.Field(), v)
			}
		}
		return s
	}
	return "none"
}

func (l *lab) awaitMachine(ref, want string) {
	l.t.Helper()
	got := ""
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if got = l.machineOf(ref); got == want {
			return
		}
	}
	l.t.Fatalf("machine is\n%s\nwant\n%s\n(faults %v)", got, want, l.faults)
}

// TestWindowsMachine reads what windows_exporter tells, old and new: three looks with half of the CPUs' time used in between, a disk
// that is reset, and a virtual adapter that passes on what the real one counts.
func TestWindowsMachine(t *testing.T) {
	for name, memory := range map[string]string{
		"0.30": "windows_memory_physical_total_bytes 1.7179869184e+10\nwindows_memory_available_bytes 8.589934592e+09\n",
		"0.20": "windows_cs_physical_memory_bytes 1.7179869184e+10\nwindows_os_physical_memory_free_bytes 8.589934592e+09\n",
	} {
		t.Run(name, func(t *testing.T) {
			var look atomic.Int64
			page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				n := min(float64(look.Load()), 2)
				fmt.Fprint(w, memory, "windows_os_info{product=\"Microsoft Windows Server 2022 Standard\"} 1\n")
				fmt.Fprint(w, "windows_net_nic_info{nic=\"Intel\",mac=\"00:50:56:AA:BB:01\"} 1\n")
				for core := range 4 {
					for mode, add := range map[string]float64{"idle": 10, "user": 4, "privileged": 6, "interrupt": 1, "dpc": 1} {
						fmt.Fprintf(w, "windows_cpu_time_total{core=\"0,%d\",mode=%q} %v\n", core, mode, 1000+n*add)
					}
				}
				disk := 5000 + n*1000
				if n == 2 {
					disk = 700 // it was reset
				}
				fmt.Fprintf(w, "windows_logical_disk_read_bytes_total{volume=\"C:\"} %v\n", disk)
				fmt.Fprintf(w, "windows_logical_disk_write_bytes_total{volume=\"C:\"} %v\nwindows_logical_disk_write_bytes_total{volume=\"D:\"} %v\n", 100*n, 10*n)
				for _, nic := range []string{"Intel", "Microsoft Network Adapter Multiplexor Driver", "Hyper-V Virtual Ethernet Adapter"} {
					fmt.Fprintf(w, "windows_net_bytes_received_total{nic=%q} %v\n", nic, 1e6+3000*n)
				}
			}))
			defer page.Close()
			l := start(t, Options{Machines: true, Targets: []Target{{Name: "erp", URL: page.URL}}})
			const facts = `erp "" "" cpus=4 memory=17179869184`
			l.awaitMachine("erp", facts+" memory_usage_bytes=8.59e+09 disk_read_bytes_total=0 disk_write_bytes_total=0 network_receive_bytes_total=0")
			look.Store(1)
			l.awaitMachine("erp", facts+" cpu_usage_ratio=0.5 memory_usage_bytes=8.59e+09 disk_read_bytes_total=1000 disk_write_bytes_total=110 network_receive_bytes_total=3000")
			look.Store(2)
			l.awaitMachine("erp", facts+" cpu_usage_ratio=0.5 memory_usage_bytes=8.59e+09 disk_read_bytes_total=1700 disk_write_bytes_total=220 network_receive_bytes_total=6000")

			// It turns out to be a VM that was listed meanwhile; and then it goes.
			l.apply(inventory.Delta{Source: "vc", VMs: []inventory.VM{{
				ID: inventory.ID{Source: "vc", Kind: inventory.KindVM, Ref: "vm-1"}, MACs: []string{"00:50:56:aa:bb:01"}, Power: inventory.PowerOn,
			}}})
			const totals = " memory_usage_bytes=8.59e+09 disk_read_bytes_total=1700 disk_write_bytes_total=220 network_receive_bytes_total=6000"
			l.awaitMachine("erp", facts+" vm=vm-1"+totals)
			page.Close()
			l.awaitMachine("erp", facts+" vm=vm-1")
		})
	}
}

// TestMachineThatNeverAnswers: it is listed and nothing is known of it, which is not zero.
func TestMachineThatNeverAnswers(t *testing.T) {
	l := start(t, Options{Machines: true, Targets: []Target{{Name: "dead", URL: "http://127.0.0.1:1/metrics"}}})
	l.awaitMachine("dead", `dead "" "" cpus=0 memory=0`)
	l.awaitFault("target", "connection refused")
}

func TestCheckMachines(t *testing.T) {
	page := newPage(t, "node_memory_MemTotal_bytes 1.7179869184e+10\nnode_cpu_seconds_total{cpu=\"0\",mode=\"idle\"} 1\nnode_dmi_info{system_vendor=\"QEMU\",product_name=\"PC\",product_uuid=\""+plain+"\"} 1\n")
	fleet := inventory.NewFleet(inventory.Source{Name: "vc", Platform: "vsphere"})
	opts := Options{Name: "racks", Clock: clock.New(1), Snapshot: fleet.Snapshot, Machines: true, Targets: []Target{{Name: "db", URL: page.URL}, {Name: "dead", URL: "http://127.0.0.1:1"}}}
	for _, want := range []string{"no VM is known that it would be", "VM vc/vm/vm-1, by uuid"} {
		r, err := Check(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		if r.Product != "machines" || r.Notes[0] != "target db: answers, QEMU PC, 1 CPUs, 16.0 GiB; "+want || !strings.Contains(r.Notes[1], "connection refused") {
			t.Errorf("%q", r.Notes)
		}
		vm := inventory.VM{ID: inventory.ID{Source: "vc", Kind: inventory.KindVM, Ref: "vm-1"}, UUID: plain, Power: inventory.PowerOn}
		if _, err := fleet.Apply(inventory.Delta{Source: "vc", Begin: true, Synced: true, VMs: []inventory.VM{vm}}, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBusy holds what CPU counters say when they do not simply go up.
func TestBusy(t *testing.T) {
	node := func(user, idle, iowait float64) string {
		return fmt.Sprintf("node_cpu_seconds_total{cpu=\"0\",mode=\"user\"} %v\nnode_cpu_seconds_total{cpu=\"0\",mode=\"idle\"} %v\n"+
			"node_cpu_seconds_total{cpu=\"0\",mode=\"iowait\"} %v\n", user, idle, iowait)
	}
	var p machinePast
	for _, look := range []struct {
		text string
		want float64 // NaN: not known
	}{
		{node(100, 100, 100), math.NaN()}, // the first
		{node(101, 102, 101), 0.25},       // all go up
		{node(102, 103, 100.5), 0.5},      // the kernel takes iowait back
		{node(1, 1, 0), math.NaN()},       // it was booted
		{node(2, 1, 0), 1},                // and goes on
		{"node_cpu_seconds_total{cpu=\"1\",mode=\"user\"} 5\n", math.NaN()}, // other CPUs
		{"", math.NaN()},            // none
		{node(2, 1, 0), math.NaN()}, // and again
		{node(2, 1, 0), math.NaN()}, // nothing was counted meanwhile
		{strings.Replace(node(2, 3, math.Inf(1)), "+Inf", "NaN", 1), 0},                         // what is no number does not count
		{"node_cpu_seconds_total{cpu=\"0\",mode=\"user\"} 1e308\n" + node(0, 0, 0), math.NaN()}, // told twice
	} {
		families, err := parse([]byte(look.text))
		if err != nil {
			t.Fatal(err)
		}
		got, ok := p.busy(families)
		if ok == math.IsNaN(look.want) || ok && math.Abs(got-look.want) > 1e-9 {
			t.Errorf("%q: %v (known: %v), want %v", look.text, got, ok, look.want)
		}
	}
}

// TestFlow holds that what came together never counts a device twice, nor the past of one.
func TestFlow(t *testing.T) {
	var p machinePast
	for i, look := range []struct {
		devices map[string]float64
		want    float64
	}{
		{map[string]float64{"sda": 1e12, "sdb": 1e12, "dm-0": 2e12, "sda1": 1e12}, 0},
		{map[string]float64{"sda": 1e12 + 5, "sdb": 1e12 + 5, "dm-0": 2e12 + 10, "sda1": 1e12 + 5}, 10},
		{map[string]float64{"sda": 1e12 + 6}, 11},                  // sdb is gone
		{map[string]float64{"sda": 1e12 + 6, "sdb": 1e12 + 9}, 15}, // and there again
		{map[string]float64{"sda": 1e12 + 6, "nvme0n1": 7e12}, 15}, // a new one
		{map[string]float64{"sda": 4, "nvme0n1": 7e12 + 1}, 20},    // one is reset
	} {
		var text strings.Builder
		for name, v := range look.devices {
			fmt.Fprintf(&text, "node_disk_read_bytes_total{device=%q} %v\n", name, v)
		}
		families, err := parse([]byte(text.String()))
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := p.flow(0, families); !ok || got != look.want {
			t.Errorf("look %d: %v (known: %v), want %v", i, got, ok, look.want)
		}
	}
	if _, ok := p.flow(0, nil); ok {
		t.Error("nothing is told, and known")
	}
}

// FuzzMachine holds that whatever a target tells makes numbers that can be true: shares from 0 to 1, counters that never fall.
func FuzzMachine(f *testing.F) {
	f.Add("node_cpu_seconds_total{cpu=\"0\",mode=\"idle\"} 5\nnode_memory_MemTotal_bytes 9\n", "node_cpu_seconds_total{cpu=\"0\",mode=\"user\"} 1e309\nnode_memory_MemAvailable_bytes -Inf\n")
	f.Add("windows_cpu_time_total{core=\"0,0\",mode=\"idle\"} NaN\nwindows_net_bytes_sent_total{nic=\"x\"} -5\n", "node_disk_read_bytes_total{device=\"sda\"} 1e308\n")
	f.Fuzz(func(t *testing.T, one, two string) {
		var p machinePast
		seen := map[inventory.Metric]float64{}
		for _, text := range []string{one, two, one, two} {
			families, err := parse([]byte(text))
			if err != nil {
				continue
			}
			if m := readMachine(families); m.CPUs < 0 || !(m.MemoryBytes >= 0) || len(m.Model) > maxName+3 || len(m.OS) > maxName+3 {
				t.Errorf("%+v", m)
			}
			for _, v := range p.measure(families) {
				counter := v.Metric.Desc().Type == inventory.Counter
				if !(v.Value >= 0) || math.IsInf(v.Value, 0) || v.Metric == inventory.MachineCPUUsageRatio && v.Value > 1 || counter && v.Value < seen[v.Metric] {
					t.Errorf("%s is %v after %v", v.Metric, v.Value, seen[v.Metric])
				}
				seen[v.Metric] = v.Value
			}
		}
	})
}

// TestNodeExporterMachine reads Debian's own node_exporter over a machine whose /proc and /sys are files.
func TestNodeExporterMachine(t *testing.T) {
	proc, sys := t.TempDir(), t.TempDir()
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	counters := func(n int) {
		write(filepath.Join(proc, "stat"), fmt.Sprintf("cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 %d 0 0 %d 0 0 0 0 0 0\ncpu1 0 0 %d %d 0 0 0 0 0 0\nbtime 1700000000\nprocs_running 1\nprocs_blocked 0\nctxt 1\nintr 1\nprocesses 1\n",
			1000+100*n, 1000+300*n, 1000+200*n, 1000+200*n))
		disk := func(name string, read, written int) string {
			return fmt.Sprintf("   8       0 %s 10 0 %d 1 10 0 %d 1 0 1 1 0 0 0 0 0 0\n", name, read, written)
		}
		write(filepath.Join(proc, "diskstats"), disk("sda", 1000+2*n, 1000+4*n)+disk("sda1", 1000+2*n, 1000+4*n)+disk("dm-0", 1000+2*n, 1000+4*n))
		dev := func(name string) string {
			return fmt.Sprintf("  %s: %d 1 0 0 0 0 0 0 %d 1 0 0 0 0 0 0\n", name, 1_000_000+500*n, 1_000_000+300*n)
		}
		write(filepath.Join(proc, "net/dev"), "Inter-|   Receive |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n"+
			dev("eno1")+dev("bond0")+dev("lo"))
	}
	write(filepath.Join(proc, "meminfo"), "MemTotal:       33554432 kB\nMemFree:         1048576 kB\nMemAvailable:   16777216 kB\n")
	for name, text := range map[string]string{"sys_vendor": "Dell Inc.", "product_name": "PowerEdge R640", "product_uuid": swapped} {
		write(filepath.Join(sys, "class/dmi/id", name), text+"\n")
	}
	counters(0)
	address, _ := nodeExporter(t, "--path.sysfs="+sys, "--path.procfs="+proc, "--collector.disable-defaults", "--collector.cpu", "--collector.meminfo",
		"--collector.diskstats", "--collector.netdev", "--no-collector.netdev.netlink", "--collector.dmi", "--collector.os", "--collector.uname")
	l := start(t, Options{Machines: true, Targets: []Target{{Name: "db", URL: "http://" + address + "/metrics"}}})
	facts := fmt.Sprintf(`db "Dell Inc. PowerEdge R640" %q cpus=2 memory=34359738368`, strings.ToLower(swapped))
	l.awaitMachine("db", facts+" memory_usage_bytes=1.718e+10 disk_read_bytes_total=0 disk_write_bytes_total=0 network_receive_bytes_total=0 network_transmit_bytes_total=0")
	counters(1)
	l.awaitMachine("db", facts+" cpu_usage_ratio=0.375 memory_usage_bytes=1.718e+10 disk_read_bytes_total=1024 disk_write_bytes_total=2048 network_receive_bytes_total=500 network_transmit_bytes_total=300")
}
