package vsphere_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/collector/vsphere"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/sim"
)

const soakVMs = 6 // at each vCenter

// soak is an hour of the fleet's time in half a minute, with vCenters that fail once a minute.
type soak struct {
	t     *testing.T
	clock *clock.Clock
	rand  *rand.Rand
	names []string
	vcs   []*sim.VCenter
	fleet *inventory.Fleet
}

// faults are what befalls one vCenter for a while; each returns what ends it.
func (s *soak) faults() []func(vc *sim.VCenter) func() {
	below := func(f sim.HTTPFault) func(vc *sim.VCenter) func() {
		return func(vc *sim.VCenter) func() { return vc.InjectHTTP(f) }
	}
	inject := func(f sim.Fault) func(vc *sim.VCenter) func() {
		return func(vc *sim.VCenter) func() { return vc.Inject(f) }
	}
	return []func(vc *sim.VCenter) func(){
		func(vc *sim.VCenter) func() {
			vc.Stop()
			return func() {
				if err := vc.Restart(); err != nil {
					s.t.Error(err)
				}
			}
		},
		func(vc *sim.VCenter) func() {
			(&console{t: s.t, vc: vc}).ForgetLogins()
			return func() {}
		},
		below(sim.HTTPFault{Method: "*", Status: 503}),
		below(sim.HTTPFault{Method: "*", HalfClose: true}),
		below(sim.HTTPFault{Method: "*", Times: 5, Break: 300}),
		below(sim.HTTPFault{Method: "*", Times: 5, Truncate: 300}),
		below(sim.HTTPFault{Method: "*", Pause: 20 * time.Millisecond}),
		below(sim.HTTPFault{Method: "Logout", Status: 503}),
		inject(sim.Fault{Method: "QueryPerf", Fault: &types.RestrictedByAdministrator{}}),
		inject(sim.Fault{Method: "WaitForUpdatesEx", Fault: &types.SystemError{}}),
		inject(sim.Fault{Method: "RetrievePropertiesEx", Hang: true}),
		inject(sim.Fault{Method: "*", Delay: 30 * time.Millisecond}),
	}
}

// up reports whether every source is up and every VM's usage has been seen, and adds to seen what has a value now. At this speed
// an interval is a sixth of a second: a busy machine has not always all values at once, and counters, which a slow vCenter gives
// too late to be shown, perhaps not at all.
func (s *soak) up(seen map[string]bool) bool {
	s.fleet.Expire(s.clock.Now())
	snap := s.fleet.Snapshot()
	for v := range snap.VMs() {
		if _, ok := v.Samples.Value(inventory.VMCPUUsage); ok {
			seen[v.ID.String()] = true
		}
	}
	for _, name := range s.names {
		if src, _ := snap.Source(name); !src.Up || !src.Synced {
			return false
		}
	}
	return len(seen) == len(s.names)*soakVMs
}

// held is what this process and the vCenters hold. Goroutines are those that serve no connection: how many of these a source has
// differs with what it asks at once.
type held struct{ goroutines, connections, sessions, heap int }

// goroutines counts those that serve no connection, and the connections of clients.
func goroutines() (others, connections int) {
	stacks := make([]byte, 4<<20)
	for stack := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
		switch {
		case strings.Contains(stack, "net/http.(*persistConn).readLoop("):
			connections++
		case strings.Contains(stack, "net/http.(*persistConn).writeLoop("), strings.Contains(stack, "created by net/http.(*Server).Serve "),
			strings.Contains(stack, "net/http.(*connReader).backgroundRead("):
		default:
			others++
		}
	}
	return others, connections
}

// restart restarts the vCenters, so that all start from the same, and waits until every source is up.
func (s *soak) restart() {
	s.t.Helper()
	for _, vc := range s.vcs {
		vc.Stop()
		if err := vc.Restart(); err != nil {
			s.t.Fatal(err)
		}
	}
	_ = s.clock.Sleep(s.t.Context(), 3*interval) // beyond which no value of before is shown
	seen := map[string]bool{}
	s.eventually("every source is up and every VM is seen", func() bool { return s.up(seen) })
}

// look says what is held now.
func (s *soak) look() (h held) {
	runtime.GC()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	h.heap = int(mem.HeapAlloc)
	h.goroutines, h.connections = goroutines()
	for _, vc := range s.vcs {
		h.sessions += vc.Sessions()
	}
	return h
}

// TestAnHourOfFaults: a fault every minute for an hour, on one of three vCenters or on all, in an order that a seed gives.
// It runs by itself: what a process holds says nothing of one test among others.
func TestAnHourOfFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("half a minute by itself")
	}
	const speed, warm, minutes, seed = 120, 5, 60, 7
	s := &soak{t: t, clock: clock.New(speed), rand: rand.New(rand.NewPCG(seed, seed))}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	metrics := collector.NewMetrics(prometheus.NewRegistry())
	ids := collector.NewIdentities()
	var sources []*vsphere.Source
	var infos []inventory.Source
	for i := range 3 {
		name := fmt.Sprintf("vc%d", i)
		vc := startVCenter(t, sim.Config{Name: name, Clock: s.clock, Clusters: sim.Uniform(2, soakVMs)})
		opts := sessionOf(vc)
		opts.Timeout = time.Second // two minutes of the fleet's time
		s.names, s.vcs = append(s.names, name), append(s.vcs, vc)
		infos = append(infos, inventory.Source{Name: name, Platform: "vsphere", Interval: interval})
		sources = append(sources, newSource(t, vsphere.Options{
			Name: name, Clock: s.clock, Session: opts, Identities: ids, Observer: metrics.Observer(name, log),
		}))
	}
	s.fleet = inventory.NewFleet(infos...)
	bare, _ := goroutines()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i, src := range sources {
		wg.Go(func() {
			sink := collector.FleetSink(s.fleet, s.clock, log, nil)
			collector.Supervise(ctx, s.names[i], src, sink, collector.Options{Clock: s.clock, Log: log, Metrics: metrics})
		})
	}
	stop := sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)

	s.minutes(warm)
	s.restart()
	before := s.look()
	logIns := s.logIns()
	began := s.clock.Now()
	s.minutes(minutes)
	faulty := s.clock.Now().Sub(began)
	// A source may keep eight connections for its next calls. What it left behind at a fault would be beyond that.
	s.eventually("no more connections than sources keep", func() bool { _, n := goroutines(); return n <= 8*len(s.vcs) })
	// A source is its supervisor and five loops, and at most two more that ask for counters. What one fault in five leaves behind is
	// twelve.
	limit := held{goroutines: bare + 8*len(s.vcs), sessions: len(s.vcs), heap: before.heap + before.heap/4 + 2<<20}
	s.restart()
	var after held
	s.eventually("no more is held than before", func() bool {
		after = s.look()
		return after.goroutines <= limit.goroutines && after.sessions == limit.sessions && after.heap <= limit.heap
	})
	t.Logf("%d faults in %v: %d goroutines and %d connections, %d sessions, %.1f MB; before %d and %d, %d, %.1f MB; %d log-ins at 3 vCenters",
		minutes, faulty.Round(time.Second), after.goroutines, after.connections, after.sessions, float64(after.heap)/1e6,
		before.goroutines, before.connections, before.sessions, float64(before.heap)/1e6, s.logIns()-logIns)
	stop()
	s.eventually("all that the sources began has ended", func() bool { n, connections := goroutines(); return n <= bare && connections == 0 })
	for i, vc := range s.vcs {
		if n := vc.Sessions(); n != 0 {
			t.Errorf("%d sessions at %s after the end", n, s.names[i])
		}
	}
}

// eventually waits for what must come once nothing fails any more.
func (s *soak) eventually(what string, ok func() bool) {
	s.t.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("not within a minute: %s; %+v; sources %+v\n%s", what, s.look(), s.fleet.Snapshot().Sources(), stacks())
		}
	}
}

func stacks() string {
	var b strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&b, 1)
	return b.String()
}

func (s *soak) logIns() (n int) {
	for _, vc := range s.vcs {
		n += vc.Logins()
	}
	return n
}

// minutes lets a fault last for a part of each of n minutes.
func (s *soak) minutes(n int) {
	faults := s.faults()
	for range n {
		next := s.clock.Now().Add(time.Minute)
		fault := faults[s.rand.IntN(len(faults))]
		hit := s.vcs
		if s.rand.IntN(4) > 0 {
			i := s.rand.IntN(len(s.vcs))
			hit = s.vcs[i : i+1]
		}
		var ends []func()
		for _, vc := range hit {
			ends = append(ends, fault(vc))
		}
		_ = s.clock.Sleep(s.t.Context(), time.Duration(10+s.rand.IntN(45))*time.Second)
		for _, end := range ends {
			end()
		}
		_ = s.clock.Sleep(s.t.Context(), next.Sub(s.clock.Now()))
	}
}
