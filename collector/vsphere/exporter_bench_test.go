package vsphere

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"
)

// gcLine is what the runtime says of a collection: the heap when it began, when it ended, and what of it was in use.
var gcLine = regexp.MustCompile(`^gc \d+ .* (\d+)->(\d+)->(\d+) MB`)

// BenchmarkExporterHeap is the memory of protip-exporter as it is built, watching a served fleet with all metrics and scraped as
// Prometheus does, each with gzip. A VM has some 35 series: that of 17,000 VMs is as many as 10,000 VMs would have at 60.
func BenchmarkExporterHeap(b *testing.B) {
	program := filepath.Join(b.TempDir(), "protip-exporter")
	if out, err := exec.Command("go", "build", "-o", program, "github.com/protip/protip/cmd/protip-exporter").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	for _, vms := range []int{1000, 2000, 5000, 10_000, 17_000} {
		b.Run(fmt.Sprintf("vms=%d", vms), func(b *testing.B) {
			s := serve(b, vms)
			s.get("/live")
			for b.Loop() {
				measureExporter(b, program, s.url, vms)
			}
		})
	}
}

func measureExporter(b *testing.B, program, vcenter string, vms int) {
	dir := b.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
		return path
	}
	write("password", "secret")
	file := write("protip.yml", "sources:\n  - {name: vc, type: vsphere, url: '"+vcenter+"', username: administrator@vsphere.local, password_file: password}\n")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	cmd := exec.Command(program, "--config.file="+file, "--web.listen-address="+address)
	cmd.Env = append(os.Environ(), "GODEBUG=gctrace=1")
	heap := &gcTrace{}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	go heap.read(stderr)

	url := "http://" + address + "/metrics"
	// Everything is there once as many series come as hosts and VMs have metrics; then a minute of scrapes counts.
	series, zipped := 0, 0
	for deadline := time.Now().Add(5 * time.Minute); series < 34*vms; time.Sleep(time.Second) {
		if time.Now().After(deadline) {
			b.Fatalf("%d series of %d VMs\n%s", series, vms, heap.text())
		}
		if body, _, err := scrapeOnce(url); err == nil {
			series = bytes.Count(body, []byte("\n")) - 2*bytes.Count(body, []byte("# HELP "))
		}
	}
	heap.reset()
	var body []byte
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Second) {
		if body, zipped, err = scrapeOnce(url); err != nil {
			b.Fatal(err)
		}
	}
	live, peak := heap.most()
	rendered := float64(len(body)+zipped) / 1e6
	b.ReportMetric(float64(series), "series")
	b.ReportMetric(rendered, "rendered-MB")
	b.ReportMetric(live, "heap-in-use-MB")
	b.ReportMetric(live-rendered, "heap-beside-MB")
	b.ReportMetric(peak, "heap-peak-MB")
	b.ReportMetric(residentPeak(b, cmd.Process.Pid), "rss-peak-MB")
}

// scrapeOnce is an exposition, and how long it was on the wire.
func scrapeOnce(url string) (body []byte, zipped int, err error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Accept-Encoding", "gzip")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer res.Body.Close()
	sent, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, 0, err
	}
	zr, err := gzip.NewReader(bytes.NewReader(sent))
	if err != nil {
		return nil, 0, err
	}
	body, err = io.ReadAll(zr)
	return body, len(sent), err
}

// gcTrace reads what a process says of its collections.
type gcTrace struct {
	mu         sync.Mutex
	live, peak float64 // MiB
	said       []byte
}

func (g *gcTrace) read(r io.Reader) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		g.mu.Lock()
		if m := gcLine.FindSubmatch(lines.Bytes()); m != nil {
			began, _ := strconv.ParseFloat(string(m[1]), 64)
			ended, _ := strconv.ParseFloat(string(m[2]), 64)
			live, _ := strconv.ParseFloat(string(m[3]), 64)
			g.live, g.peak = max(g.live, live), max(g.peak, began, ended)
		} else if len(g.said) < 1<<16 {
			g.said = append(append(g.said, lines.Bytes()...), '\n')
		}
		g.mu.Unlock()
	}
}

func (g *gcTrace) reset() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.live, g.peak = 0, 0
}

// most are the greatest heap that was in use and the greatest there was, in MB.
func (g *gcTrace) most() (live, peak float64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	const mb = float64(1<<20) / 1e6
	return g.live * mb, g.peak * mb
}

func (g *gcTrace) text() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return string(g.said)
}

// residentPeak is the most memory that a process ever had, in MB.
func residentPeak(b *testing.B, pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Log(err) // another system
		return 0
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(text)
	if m == nil {
		return 0
	}
	kb, _ := strconv.ParseFloat(string(m[1]), 64)
	return kb * 1024 / 1e6
}
