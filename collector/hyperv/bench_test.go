package hyperv

import (
	"bufio"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/platform/winrm"
	sim "github.com/protip/protip/internal/sim/hyperv"
	"github.com/protip/protip/internal/sim/load"
)

const (
	benchNodes = 16
	benchVMs   = 1000
	serving    = "PROTIP_TEST_SERVE_HYPERV"
)

// BenchmarkServe is the simulator of another benchmark, in a process of its own so that what it costs is not counted. It measures
// nothing, and ends with its standard input.
func BenchmarkServe(b *testing.B) {
	if os.Getenv(serving) == "" {
		b.Skip("only another benchmark starts it")
	}
	nodes := make([]sim.Node, benchNodes)
	for i := range benchVMs {
		name := fmt.Sprintf("vm-%04d", i)
		n := &nodes[i%benchNodes]
		n.Cores, n.MemoryBytes = 64, 1<<40
		n.VMs = append(n.VMs, sim.VM{
			Name: name, VCPUs: 2 + 2*(i%2), MemoryBytes: 8 << 30, Dynamic: i%2 == 0,
			Guest: sim.Guest{Hostname: name, OS: "Windows Server 2022 Datacenter", IPs: []string{fmt.Sprintf("10.0.%d.%d", i/250, i%250)}},
		})
	}
	c, err := sim.New(sim.Options{Nodes: nodes, Load: load.Steady(load.Use{CPU: 0.2, MemoryConsumed: 0.5, DiskRead: 1e6, NetReceived: 1e6})})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	var urls []string
	for _, n := range c.Nodes() {
		urls = append(urls, c.URL(n))
	}
	list, _ := json.Marshal(urls)
	fmt.Printf("\nserving %s\n", list)
	_, _ = io.Copy(io.Discard, os.Stdin) // until the benchmark ends
}

func serveApart(b *testing.B) (urls []string) {
	b.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$", "-test.bench=^BenchmarkServe$", "-test.benchtime=1x", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), serving+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if list, ok := strings.CutPrefix(lines.Text(), "serving "); ok {
			if err := json.Unmarshal([]byte(list), &urls); err != nil {
				b.Fatal(err)
			}
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return urls
		}
	}
	b.Fatal("the simulator did not start")
	return nil
}

func cpuUsed() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkCollectHyperV is steady cycles of all nodes of a cluster over sealed NTLM, facts that are due included, up to the fleet's
// snapshot. Its floor is the tokens of the same answers, by encoding/xml, without network, seals, or anything made of them.
func BenchmarkCollectHyperV(b *testing.B) {
	urls := serveApart(b)
	clk := clock.New(100) // an interval is 0.2 s
	var mu sync.Mutex
	var answers []string
	recording := false
	record := func(x winrm.Exchange) {
		mu.Lock()
		defer mu.Unlock()
		if recording {
			answers = append(answers, x.Answer)
		}
	}
	logins := &winrm.Logins{}
	var hosts []winrm.Options
	for _, u := range urls {
		hosts = append(hosts, winrm.Options{URL: u, Username: `EXAMPLE\protip`, Password: func() (string, error) { return sim.DefaultPassword, nil }, Logins: logins, Record: record})
	}
	src, err := New(Options{Name: "hv", Hosts: hosts, Interval: 20 * time.Second, Clock: clk, Observer: newObserver(b)})
	if err != nil {
		b.Fatal(err)
	}
	fleet := inventory.NewFleet(inventory.Source{Name: "hv", Interval: 24 * time.Hour})
	w := &watch{Source: src, emit: func(d inventory.Delta) {
		if _, err := fleet.Apply(d, clk.Now()); err != nil {
			b.Error(err)
		}
	}}
	if err := src.cluster.begin(clk.Now()); err != nil {
		b.Fatal(err)
	}
	defer src.cluster.hangUp()
	var most uint64
	cycle := func() {
		for _, n := range src.cluster.nodes {
			before := n.client.Traffic().Requests
			if err := w.look(b.Context(), n); err != nil {
				b.Fatal(err)
			}
			most = max(most, n.client.Traffic().Requests-before)
		}
	}
	cycle()
	w.announce()
	traffic := func() (t winrm.Traffic) {
		for _, n := range src.cluster.nodes {
			own := n.client.Traffic()
			t.Requests, t.Received = t.Requests+own.Requests, t.Received+own.Received
		}
		return t
	}
	for range 5 { // the heap grows to what cycles need, and connections are there
		cycle()
	}
	runtime.GC()
	most = 0
	before := traffic()
	var spent time.Duration
	cycles := 0
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		_ = clk.Sleep(b.Context(), 20*time.Second)
		from := cpuUsed()
		b.StartTimer()
		cycle()
		spent += cpuUsed() - from
		cycles++
	}
	after := traffic()
	measured := 0
	for vm := range fleet.Snapshot().VMs() {
		if _, ok := vm.Samples.Value(inventory.VMCPUUsage); ok {
			measured++
		}
	}
	if measured != benchVMs {
		b.Errorf("%d of %d VMs were measured", measured, benchVMs)
	}
	recording = true
	_ = clk.Sleep(b.Context(), 20*time.Second)
	from := cpuUsed()
	cycle()
	recorded := cpuUsed() - from
	mu.Lock()
	defer mu.Unlock()
	from = cpuUsed()
	const rounds = 3
	for range rounds {
		for _, text := range answers {
			d := xml.NewDecoder(strings.NewReader(text))
			for {
				if _, err := d.RawToken(); err != nil {
					break
				}
			}
		}
	}
	floor := (cpuUsed() - from) / rounds
	per := float64(cycles)
	b.ReportMetric(float64(after.Requests-before.Requests)/per/benchNodes, "requests/node")
	b.ReportMetric(float64(most), "most-requests/node")
	b.ReportMetric(float64(after.Received-before.Received)/per/1e6, "MB/cycle")
	b.ReportMetric(spent.Seconds()/per, "cpu-s/cycle")
	b.ReportMetric(floor.Seconds(), "floor-cpu-s")
	b.ReportMetric(recorded.Seconds()/floor.Seconds(), "floor-ratio")
}
