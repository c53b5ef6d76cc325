package libvirt

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/digitalocean/go-libvirt/socket/dialers"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/protip/protip/collector/exposition"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/libvirt"
	"github.com/protip/protip/test/libvirtd"
)

// benchDomains is how many domains run on the host that is measured.
const benchDomains = 300

// budget is what a cycle may cost, over a scrape of the exporter of the same daemon.
const budget = 0.25

// busyHost is a daemon with domains that all connections see.
func busyHost(b *testing.B) *libvirtd.Daemon {
	b.Helper()
	d := libvirtd.Start(b)
	host, port, _ := net.SplitHostPort(d.Addr)
	c := golibvirt.NewWithDialer(dialers.NewRemote(host, dialers.UsePort(port)))
	if err := c.ConnectToURI("test://" + shared); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Disconnect() })
	for i := range benchDomains - 1 { // and the one that it begins with
		if _, err := c.DomainCreateXML(domainXML(fmt.Sprintf("vm-%03d", i), randomUUID()), 0); err != nil {
			b.Fatal(err)
		}
	}
	return d
}

// followOnce is a follower that has listed its host, and what it shows.
func followOnce(b testing.TB, uri string) (*follower, http.Handler) {
	b.Helper()
	src, err := New(Options{
		Name: "lab", Hosts: []platform.Options{{URI: uri, Timeout: time.Minute}}, Interval: time.Second, Clock: clock.New(1), Observer: newObserver(b),
	})
	if err != nil {
		b.Fatal(err)
	}
	fleet := inventory.NewFleet(inventory.Source{Name: "lab", Interval: time.Minute})
	w := &watch{Source: src, answered: make(chan struct{}), resolved: make(chan struct{}), emit: func(d inventory.Delta) {
		if _, err := fleet.Apply(d, time.Now()); err != nil {
			b.Error(err)
		}
	}}
	conn, err := platform.Dial(b.Context(), src.cluster.hosts[0].opts)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(conn.Close)
	f := &follower{watch: w, host: src.cluster.hosts[0], conn: conn}
	if err := f.list(b.Context()); err != nil {
		b.Fatal(err)
	}
	w.announce()
	return f, exposition.New(fleet.Snapshot, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
}

// BenchmarkCollectLibvirt measures a cycle of one host, from the first question to the body of /metrics, beside a scrape of Debian's
// prometheus-libvirt-exporter on the same daemon: by turns, so that both have the same machine.
func BenchmarkCollectLibvirt(b *testing.B) {
	d := busyHost(b)
	for _, tt := range []struct{ name, path string }{
		{"shared", shared},      // the domains are there
		{"own", nodeFile(b, d)}, // each connection has domains of its own, which it makes first
	} {
		b.Run(tt.name, func(b *testing.B) {
			f, metrics := followOnce(b, d.URI(tt.path))
			url := libvirtd.StartExporter(b, d.UnixURI(tt.path))
			var cycles, scrapes []time.Duration
			var ours, theirs int
			for b.Loop() {
				began := time.Now()
				if err := f.cycle(b.Context(), time.Second); err != nil {
					b.Fatal(err)
				}
				body := httptest.NewRecorder()
				metrics.ServeHTTP(body, httptest.NewRequest(http.MethodGet, "/metrics", nil))
				cycles = append(cycles, time.Since(began))
				ours = series(body.Body.String(), "virt_")

				began = time.Now()
				res, err := http.Get(url)
				if err != nil {
					b.Fatal(err)
				}
				text, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil {
					b.Fatal(err)
				}
				scrapes = append(scrapes, time.Since(began))
				theirs = series(string(text), "libvirt_")
			}
			cycle, scrape := median(cycles), median(scrapes)
			b.ReportMetric(float64(cycle.Microseconds())/1000, "ms/cycle")
			b.ReportMetric(float64(scrape.Microseconds())/1000, "ms/scrape")
			b.ReportMetric(cycle.Seconds()/scrape.Seconds(), "cycle/scrape")
			b.ReportMetric(float64(ours), "series")
			b.ReportMetric(float64(theirs), "exporter-series")
			b.ReportMetric(0, "ns/op")
			if ours < benchDomains*5 || theirs < benchDomains {
				b.Errorf("%d and %d series: something was not measured", ours, theirs)
			}
			if r := cycle.Seconds() / scrape.Seconds(); r > budget {
				b.Errorf("a cycle is %.2f of a scrape, and may be %v", r, budget)
			}
		})
	}
}

// nodeFile describes a hypervisor of the test driver with as many domains.
func nodeFile(b *testing.B, d *libvirtd.Daemon) string {
	b.Helper()
	var text strings.Builder
	text.WriteString("<node>\n")
	for i := range benchDomains {
		text.WriteString(domainXML(fmt.Sprintf("vm-%03d", i), randomUUID()))
	}
	text.WriteString("\n<cpu><mhz>2000</mhz><model>x86_64</model><active>64</active><nodes>1</nodes><sockets>2</sockets><cores>16</cores><threads>2</threads></cpu>" +
		"<memory>268435456</memory></node>\n")
	file := filepath.Join(filepath.Dir(d.Socket), "node.xml")
	if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
		b.Fatal(err)
	}
	return file
}

func series(body, prefix string) (n int) {
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, prefix) {
			n++
		}
	}
	return n
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
