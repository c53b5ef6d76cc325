package console

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/history/promql"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/web"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// large is 10,000 VMs on 320 hosts in 20 clusters of four sources, with a day of history of every host, 1,000 tips and 1,000 actions.
func large(t testing.TB) *stage {
	t.Helper()
	const sources, clusters, hosts, vms = 4, 5, 16, 500 // each of the one before, but VMs, which are of clusters
	var names []inventory.Source
	for i := range sources {
		names = append(names, inventory.Source{Name: fmt.Sprintf("vc-%d", i), Platform: "vsphere", Interval: 20 * time.Second})
	}
	s := &stage{fleet: inventory.NewFleet(names...), set: shipped(t)}
	s.status = web.Status{Version: "0.1.0", Now: now, Remediation: web.Manual}
	var past []history.Series
	for _, src := range names {
		d := inventory.Delta{Source: src.Name, Begin: true, Synced: true}
		of := func(kind inventory.Kind, ref string) inventory.ID {
			return inventory.ID{Source: src.Name, Kind: kind, Ref: ref}
		}
		sample := func(id inventory.ID, values ...inventory.Value) {
			d.Samples = append(d.Samples, inventory.SampleSet{ID: id, At: now.Add(-5 * time.Second).UnixMilli(), Values: values})
		}
		for c := range clusters {
			cluster := of(inventory.KindCluster, fmt.Sprintf("c%d", c))
			d.Clusters = append(d.Clusters, inventory.Cluster{ID: cluster, Name: fmt.Sprintf("prod-%02d", c)})
			for h := range hosts {
				host := of(inventory.KindHost, fmt.Sprintf("c%d-h%d", c, h))
				d.Hosts = append(d.Hosts, inventory.Host{
					ID: host, Name: fmt.Sprintf("esx%02d.prod-%02d.%s.example", h, c, src.Name), Cluster: cluster, Connection: inventory.Connected,
					Power: inventory.PowerOn, Cores: 64, CPUHertz: 64 * 2.5e9, MemoryBytes: 1 << 40,
				})
				cpu := 0.4 + 0.03*float64(h%10)
				if h == 0 {
					cpu = 0.95
				}
				sample(host, inventory.Value{Metric: inventory.HostCPUUsageRatio, Value: cpu}, inventory.Value{Metric: inventory.HostMemoryUsageRatio, Value: 0.6},
					inventory.Value{Metric: inventory.HostCPUUsage, Value: cpu * 64 * 2.5e9}, inventory.Value{Metric: inventory.HostMemoryUsage, Value: 0.6 * (1 << 40)},
					inventory.Value{Metric: inventory.HostCPUContention, Value: cpu / 10}, inventory.Value{Metric: inventory.HostCPUContentionMax, Value: cpu / 5})
				for _, m := range []inventory.Metric{inventory.HostCPUUsageRatio, inventory.HostCPUContention, inventory.HostMemoryUsageRatio} {
					series := history.Series{Labels: history.Labels{{Name: "__name__", Value: m.String()}, {Name: "host_id", Value: host.Ref}, {Name: "source", Value: src.Name}}}
					for at := now.Add(-24 * time.Hour); !at.After(now); at = at.Add(5 * time.Minute) {
						series.Points = append(series.Points, history.Point{T: at.UnixMilli(), V: cpu * (0.8 + 0.2*math.Sin(float64(at.Unix())/7000))})
					}
					past = append(past, series)
				}
			}
			for v := range vms {
				vm := of(inventory.KindVM, fmt.Sprintf("c%d-v%d", c, v))
				d.VMs = append(d.VMs, inventory.VM{
					ID: vm, Name: fmt.Sprintf("%s-%04d.prod-%02d", []string{"web", "db", "app", "batch"}[v%4], v, c), Host: of(inventory.KindHost, fmt.Sprintf("c%d-h%d", c, v%hosts)),
					Connection: inventory.Connected, Power: inventory.PowerOn, VCPUs: 4, MemoryBytes: 16 << 30,
				})
				sample(vm, inventory.Value{Metric: inventory.VMCPUUsage, Value: float64(1+v%7) * 4e8}, inventory.Value{Metric: inventory.VMCPUContention, Value: float64(v%11) / 100},
					inventory.Value{Metric: inventory.VMMemoryUsage, Value: float64(1+v%15) * (1 << 30)})
			}
			for i := range 50 {
				s.list = append(s.list, rules.Tip{
					ID: fmt.Sprintf("%s%d%04d", src.Name, c, i), Pack: "host-pressure", Rule: "HostCPUOverload", Severity: rules.Warning, Object: of(inventory.KindHost, fmt.Sprintf("c%d-h%d", c, i%hosts)),
					Name: fmt.Sprintf("esx%02d", i%hosts), Cluster: cluster, State: []rules.State{rules.Active, rules.Resolved}[min(i%hosts, 1)],
					Summary: fmt.Sprintf("esx%02d.prod-%02d.%s.example uses 95%% of its CPU; its VMs wait 10%% of the time", i%hosts, c, src.Name), Cause: "host.cpu_usage_ratio > 0.85 for 5m",
					Evidence: []rules.Evidence{{Name: "host.cpu_usage_ratio", Value: 0.95, Unit: "ratio", At: now}}, Remedy: rules.Remedy{Action: rules.RebalanceHost, CPUBelow: 0.65}, Since: now.Add(-20 * time.Minute),
				})
				s.journal = append(s.journal, remediation.Action{
					ID: fmt.Sprintf("act-%s%d%04d", src.Name, c, i), TipID: fmt.Sprintf("%s%d%04d", src.Name, c, i), Cluster: cluster, VM: of(inventory.KindVM, fmt.Sprintf("c%d-v%d", c, i)),
					VMName: "web", From: of(inventory.KindHost, fmt.Sprintf("c%d-h0", c)), FromName: "esx00", To: of(inventory.KindHost, fmt.Sprintf("c%d-h1", c)), ToName: "esx01",
					State: remediation.Done, Outcome: remediation.Recovered, EndedAt: now.Add(-time.Duration(i) * time.Minute), By: "anna", Why: "4 stars",
				})
			}
		}
		if _, err := s.fleet.Apply(d, now); err != nil {
			t.Fatal(err)
		}
	}
	s.past = promql.Memory(past...)
	for i := range 1000 {
		s.trail = append(s.trail, web.AuditEntry{Seq: int64(1000 - i), At: now.Add(-time.Duration(i) * time.Minute), Who: "anna", What: "implement", Object: "x", Result: "ok", From: "192.0.2.1:1234"})
	}
	return s
}

// largeAddresses are a page of each kind, of the large stage.
var largeAddresses = []string{
	"/", "/?state=all", "/tips/vc-000000", "/fleet", "/clusters/vc-0/cluster/c0", "/hosts/vc-0/host/c0-h0", "/vms", "/vms?sort=-cpu&page=40", "/vms?q=web-0", "/vms?cluster=vc-1%2Fcluster%2Fc1&sort=-contention",
	"/vms/vc-0/vm/c0-v0", "/search?q=web", "/actions", "/sources", "/reports", "/reports/host-utilization?since=1d", "/packs", "/audit",
}

// TestTenThousandVMs holds that no page of a large fleet is long. How soon they come is BenchmarkPages'.
func TestTenThousandVMs(t *testing.T) {
	h := large(t).serve(t)
	for _, address := range largeAddresses {
		w := do(h, "GET", address, nil, operator)
		if w.Code != 200 {
			t.Fatalf("%s: %d\n%s", address, w.Code, w.Body)
		}
		checkPage(t, address, w.Body.String()) // and with it that it is not above 200 KiB
		t.Logf("%-50s %4d KiB", address, w.Body.Len()>>10)
	}
}

// BenchmarkPages tells the 99th percentile of the time to the first byte of each page of a large fleet, over HTTP.
func BenchmarkPages(b *testing.B) {
	s := large(b)
	server := httptest.NewServer(s.serve(b))
	defer server.Close()
	for _, address := range largeAddresses {
		b.Run(strings.NewReplacer("/", "_", "?", "_").Replace(address), func(b *testing.B) {
			var took []time.Duration
			size := int64(0)
			for b.Loop() {
				began := time.Now()
				r, err := server.Client().Get(server.URL + address)
				if err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(began)) // the header has come
				size, err = io.Copy(io.Discard, r.Body)
				if r.Body.Close(); err != nil || r.StatusCode != 200 {
					b.Fatal(r.Status, err)
				}
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[(len(took)*99-1)/100].Microseconds())/1000, "p99-ms")
			b.ReportMetric(float64(size)/1024, "KiB")
		})
	}
}

// TestManyPagesStayOpen lets 200 browsers listen to what happens and fetch their page at each news, for a minute with PROTIP_E2E, and holds
// that neither goroutines nor memory grow, and that all is given back when they go.
func TestManyPagesStayOpen(t *testing.T) {
	const browsers = 200
	length := 3 * time.Second
	if os.Getenv("PROTIP_E2E") != "" {
		length = time.Minute
	}
	s := hot(t)
	events := web.NewEvents(now, slog.New(slog.DiscardHandler))
	server := httptest.NewServer(s.serve(t, func(o *web.Options) { o.Events = events }))
	defer server.Close()
	defer events.Close()
	before := runtime.NumGoroutine()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	transport := &http.Transport{MaxIdleConnsPerHost: browsers}
	client := &http.Client{Transport: transport}
	var open sync.WaitGroup
	var connected sync.WaitGroup
	connected.Add(browsers)
	news := make(chan struct{}, browsers)
	for range browsers {
		open.Go(func() {
			r, err := http.NewRequestWithContext(ctx, "GET", server.URL+"/api/v1/events", nil)
			if err != nil {
				t.Error(err)
				return
			}
			stream, err := client.Do(r)
			connected.Done()
			if err != nil {
				t.Error(err)
				return
			}
			defer stream.Body.Close()
			for lines := bufio.NewScanner(stream.Body); lines.Scan(); {
				if strings.HasPrefix(lines.Text(), "event: ") {
					select {
					case news <- struct{}{}:
					default:
					}
				}
			}
		})
	}
	connected.Wait()
	// What a browser does at news: it fetches its page. Some at a time: this machine is client and server.
	var pages atomic.Int64
	var fetching sync.WaitGroup
	for range 4 {
		fetching.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case <-news:
				}
				r, err := http.NewRequestWithContext(ctx, "GET", server.URL+"/", nil)
				if err != nil {
					t.Error(err)
					return
				}
				answer, err := client.Do(r)
				if err != nil {
					continue // the test is over
				}
				_, _ = io.Copy(io.Discard, answer.Body)
				answer.Body.Close()
				pages.Add(1)
			}
		})
	}
	publish := func() { events.Publish(web.News{At: now, Tip: &rules.Change{Tip: s.list[0], From: rules.Pending}}) }
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for range 2000 { // the ring of kept events is full from here on
		publish()
	}
	time.Sleep(length / 6)
	heapBefore, routinesBefore := heap(), runtime.NumGoroutine()
	for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		publish()
	}
	heapAfter, routinesAfter := heap(), runtime.NumGoroutine()
	t.Logf("%d browsers, %s: %d pages, goroutines %d -> %d, heap %d -> %d KiB", browsers, length, pages.Load(), routinesBefore, routinesAfter, heapBefore>>10, heapAfter>>10)
	if routinesAfter > routinesBefore+20 {
		t.Errorf("goroutines grew from %d to %d", routinesBefore, routinesAfter)
	}
	if heapAfter > heapBefore+8<<20 {
		t.Errorf("the heap grew from %d to %d bytes", heapBefore, heapAfter)
	}
	if pages.Load() == 0 {
		t.Error("no page was fetched")
	}
	stop()
	open.Wait()
	fetching.Wait()
	transport.CloseIdleConnections()
	for deadline := time.Now().Add(30 * time.Second); runtime.NumGoroutine() > before+10; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines are left of %d", runtime.NumGoroutine(), before)
		}
	}
}
