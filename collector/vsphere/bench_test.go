package vsphere

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/collector/exposition"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/vsphere"
)

// callCounter is an Observer that counts calls.
type callCounter struct{ calls atomic.Int64 }

func (c *callCounter) Call(string)         { c.calls.Add(1) }
func (*callCounter) Fault(string, error)   {}
func (*callCounter) Cycle(string, float64) {}

// steady is a collector of a served fleet, listed, with a fleet and an exposition behind it.
type steady struct {
	*follower
	perf  *perf
	view  types.ManagedObjectReference
	calls *callCounter
	fleet *inventory.Fleet
	shown *exposition.Exposition
}

// rounds is how often what is measured is done; the best counts.
const rounds = 5

// cost is the least process CPU time of f in some rounds; prepare is not counted. The heap is collected before each.
func cost(prepare, f func()) time.Duration {
	least := time.Duration(1 << 62)
	for range rounds {
		prepare()
		runtime.GC()
		before := cpuUsed()
		f()
		least = min(least, cpuUsed()-before)
	}
	return max(least, time.Microsecond)
}

func cpuUsed() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// connect logs in at a served fleet, to collect some groups of metrics, of none named all. Nothing is listed.
func connect(b *testing.B, s *served, groups ...string) *steady {
	c := &steady{calls: &callCounter{}, fleet: inventory.NewFleet(inventory.Source{Name: "vc", Interval: 24 * time.Hour})}
	src, err := New(Options{Name: "vc", Clock: clock.New(1), Observer: c.calls, Collect: inventory.OfGroups(groups), Session: platform.Options{
		URL: s.url, Username: "administrator@vsphere.local", Password: func() (string, error) { return "secret", nil },
	}})
	if err != nil {
		b.Fatal(err)
	}
	session, err := platform.New(src.opts.Session)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(session.Close)
	conn, err := session.Login(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	c.follower = newFollower(src, conn, func(d inventory.Delta) {
		if _, err := c.fleet.Apply(d, time.Now()); err != nil {
			b.Error(err)
		}
	})
	if c.view, err = createView(b.Context(), conn); err != nil {
		b.Fatal(err)
	}
	c.shown = exposition.New(func() *inventory.Snapshot {
		c.fleet.Expire(time.Now())
		return c.fleet.Snapshot()
	}, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	return c
}

// cycle is one of quick stats and counters, and one scrape, which renders what they changed.
func (c *steady) cycle(b *testing.B) {
	ctx := b.Context()
	if err := c.usageCycle(ctx, c.view); err != nil {
		b.Fatal(err)
	}
	if _, err := c.conn.Skew(ctx, c.opts.Clock.Now); err != nil {
		b.Fatal(err)
	}
	if err := c.perf.cycle(ctx, 0); err != nil {
		b.Fatal(err)
	}
	c.scrape()
}

func (c *steady) scrape() {
	c.shown.ServeHTTP(&discard{}, httptest.NewRequest(http.MethodGet, "/metrics", nil))
}

// discard is a scraper that reads fast.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header {
	if d.header == nil {
		d.header = http.Header{}
	}
	return d.header
}
func (*discard) Write(b []byte) (int, error) { return len(b), nil }
func (*discard) WriteHeader(int)             {}

// fifteen are the groups of metrics that make 15 counters of each VM.
var fifteen = []string{"cpu", "memory"}

// sampling has the counters' ids.
func (c *steady) sampling(b *testing.B) {
	c.perf = newPerf(c.follower)
	if err := c.perf.resolve(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkCollect is one steady cycle: 15 counters and the quick stats of every VM, the snapshot of them, and all that they
// changed rendered anew. Its floor, in the same run: the same answers, read over HTTP and scanned for their numbers.
func BenchmarkCollect(b *testing.B) {
	for _, vms := range []int{1000, 2000, 5000, 10_000} {
		b.Run(fmt.Sprintf("vms=%d", vms), func(b *testing.B) { steadyCycle(b, vms, 15, fifteen...) })
	}
}

// BenchmarkCollectAll is the same of all there is to ask for, as it is where nobody chose.
func BenchmarkCollectAll(b *testing.B) {
	const vms = 10_000
	b.Run(fmt.Sprintf("vms=%d", vms), func(b *testing.B) { steadyCycle(b, vms, len(vmCounters)) })
}

func steadyCycle(b *testing.B, vms, counters int, groups ...string) {
	s := serve(b, vms)
	c := connect(b, s, groups...)
	if _, err := c.list(b.Context(), c.view); err != nil {
		b.Fatal(err)
	}
	c.sampling(b)
	if n := len(c.perf.vms.ids); n != counters {
		b.Fatalf("%d counters, not %d", n, counters)
	}
	step := func() { s.get("/step"); c.calls.calls.Store(0) }
	metrics := map[string]float64{}
	for _, batch := range []int{256, 50} {
		c.batch = newBatchSize(batch)
		for range rounds { // the first of which records; the heap grows to what cycles need
			step()
			c.cycle(b)
		}
		spent := cost(step, func() { c.cycle(b) })
		calls := c.calls.calls.Load()
		answers, bytes := s.sent()
		floor := cost(func() {}, func() { s.floor(answers) })
		suffix := fmt.Sprintf("-%d", batch)
		metrics["cpu-ms"+suffix], metrics["floor-cpu-ms"+suffix] = spent.Seconds()*1e3, floor.Seconds()*1e3
		metrics["calls"+suffix] = float64(calls)
		metrics["floor-ratio"+suffix] = spent.Seconds() / floor.Seconds()
		metrics["MB"+suffix] = float64(bytes) / 1e6
	}
	c.check(b, vms)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		step()
		b.StartTimer()
		c.cycle(b)
	}
	for name, v := range metrics {
		b.ReportMetric(v, name)
	}
	b.ReportMetric(metrics["floor-ratio-50"], "floor-ratio") // as it is by default
}

// check fails if the cycle did not measure what it says.
func (c *steady) check(b *testing.B, vms int) {
	n := map[inventory.Metric]int{}
	count := func(kind inventory.Kind, samples inventory.Samples) {
		for _, m := range Given(kind) {
			if _, ok := samples.Value(m); ok {
				n[m]++
			}
		}
	}
	for vm := range c.fleet.Snapshot().VMs() {
		count(inventory.KindVM, vm.Samples)
	}
	for h := range c.fleet.Snapshot().Hosts() {
		count(inventory.KindHost, h.Samples)
	}
	for kind, want := range map[inventory.Kind]int{inventory.KindVM: vms, inventory.KindHost: vms / 10} {
		for _, m := range Given(kind) {
			if c.opts.Collect.Has(m) && n[m] != want {
				b.Errorf("%d of %d have %v", n[m], want, m)
			}
		}
	}
}

// floor reads the last cycle's answers again and scans them: it parses what numbers stand in them, checks nothing and keeps
// nothing.
func (s *served) floor(answers int) {
	client := &http.Client{Transport: &http.Transport{ReadBufferSize: 64 << 10}}
	defer client.CloseIdleConnections()
	var buf []byte
	for i := range answers {
		res, err := client.Get(fmt.Sprintf("%s/last?%d", s.url, i))
		if err != nil {
			s.b.Fatal(err)
		}
		if cap(buf) < int(res.ContentLength) {
			buf = make([]byte, res.ContentLength)
		}
		buf = buf[:res.ContentLength]
		if _, err = io.ReadFull(res.Body, buf); err != nil {
			s.b.Fatal(err)
		}
		res.Body.Close()
		if bareScan(buf) == 0 {
			s.b.Fatal("no numbers")
		}
	}
}

// bareScan adds up the numbers of an XML text's elements, separated by commas.
func bareScan(b []byte) (sum int) {
	for {
		i := bytes.IndexByte(b, '>')
		if i < 0 {
			return sum
		}
		b = b[i+1:]
		end := bytes.IndexByte(b, '<')
		if end < 0 {
			return sum
		}
		n := 0
		for _, c := range b[:end] {
			if c == ',' {
				sum += n
				n = 0
			} else {
				n = n*10 + int(c-'0')
			}
		}
		sum += n
		b = b[end:]
	}
}

// BenchmarkFirstFill is the first listing, until it is in a snapshot. Its floor: govmomi's retrieval of the same properties.
func BenchmarkFirstFill(b *testing.B) {
	const vms = 10_000
	b.Run(fmt.Sprintf("vms=%d", vms), func(b *testing.B) {
		s := serve(b, vms)
		c := connect(b, s)
		fill := func() {
			if _, err := c.list(b.Context(), c.view); err != nil {
				b.Fatal(err)
			}
		}
		renew := func() { c = connect(b, s); s.get("/step") }
		renew()
		fill() // which records
		spent := cost(renew, fill)
		if n := len(c.fleet.Snapshot().VMTable("vc").Facts); n != vms {
			b.Fatalf("%d VMs", n)
		}
		calls, sent := s.sent()
		objects := 0
		retrieve := func() { objects = retrieveFacts(b, c) }
		retrieve()
		floor := cost(func() { s.get("/step") }, retrieve)
		if objects < vms+vms/10 {
			b.Fatalf("govmomi retrieved %d objects", objects)
		}
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			renew()
			b.StartTimer()
			fill()
		}
		b.ReportMetric(spent.Seconds(), "cpu-s")
		b.ReportMetric(floor.Seconds(), "floor-cpu-s")
		b.ReportMetric(spent.Seconds()/floor.Seconds(), "floor-ratio")
		b.ReportMetric(float64(calls), "calls")
		b.ReportMetric(float64(sent)/1e6, "MB")
	})
}

// retrieveFacts is govmomi's own reading of what a listing reads.
func retrieveFacts(b *testing.B, c *steady) (objects int) {
	pc := c.conn.ServiceContent.PropertyCollector
	res, err := methods.RetrievePropertiesEx(b.Context(), c.conn, &types.RetrievePropertiesEx{
		This: pc, SpecSet: []types.PropertyFilterSpec{viewSpec(c.view, c.factSpecs()...)}, Options: types.RetrieveOptions{MaxObjects: 500},
	})
	if err != nil {
		b.Fatal(err)
	}
	for page := res.Returnval; page != nil; {
		objects += len(page.Objects)
		if page.Token == "" {
			return objects
		}
		next, err := methods.ContinueRetrievePropertiesEx(b.Context(), c.conn, &types.ContinueRetrievePropertiesEx{This: pc, Token: page.Token})
		if err != nil {
			b.Fatal(err)
		}
		page = &next.Returnval
	}
	return objects
}

// BenchmarkDelta is what comes when one VM in a hundred changes: asking, applying, and a scrape. Its floor
// is govmomi's reading of the same answer.
func BenchmarkDelta(b *testing.B) {
	const vms = 10_000
	b.Run(fmt.Sprintf("vms=%d", vms), func(b *testing.B) {
		s := serve(b, vms)
		c := connect(b, s)
		version, err := c.list(b.Context(), c.view)
		if err != nil {
			b.Fatal(err)
		}
		c.scrape()
		change := func() { s.get("/step"); s.get("/change") }
		wait := func() *types.UpdateSet {
			set, err := c.wait(b.Context(), version, maxWait)
			if err != nil || set == nil {
				b.Fatalf("no changes: %v", err)
			}
			version = set.Version
			return set
		}
		delta := func() {
			for more := true; more; {
				set := wait()
				more = set.Truncated != nil && *set.Truncated
				if err := c.apply(b.Context(), set, false, false); err != nil {
					b.Fatal(err)
				}
			}
		}
		read := func() { // by govmomi
			seconds := int32(1)
			for more := true; more; {
				res, err := methods.WaitForUpdatesEx(b.Context(), c.conn, &types.WaitForUpdatesEx{
					This: c.conn.ServiceContent.PropertyCollector, Version: version,
					Options: &types.WaitOptions{MaxWaitSeconds: &seconds, MaxObjectUpdates: maxUpdates},
				})
				if err != nil || res.Returnval == nil {
					b.Fatalf("no changes: %v", err)
				}
				version = res.Returnval.Version
				more = res.Returnval.Truncated != nil && *res.Returnval.Truncated
			}
		}
		spent := cost(change, delta)
		calls, sent := s.sent()
		floor := cost(change, read)
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			change()
			b.StartTimer()
			delta()
		}
		b.ReportMetric(spent.Seconds()*1e3, "cpu-ms")
		b.ReportMetric(float64(sent)/1e3, "KB")
		b.ReportMetric(float64(calls), "calls")
		b.ReportMetric(spent.Seconds()/floor.Seconds(), "floor-ratio")
	})
}
