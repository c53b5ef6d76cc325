package vsphere_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	promconfig "github.com/prometheus/common/config"
	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/collector/collectortest"
	"github.com/protip/protip/collector/vsphere"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/vsphere"
	"github.com/protip/protip/internal/sim"
	"github.com/protip/protip/internal/sim/load"
)

// TestMain lets more tests run at once than there are processors: they mostly wait.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

const (
	interval = 20 * time.Second
	speed    = 10 // an interval takes two seconds
)

var steady = load.Use{CPU: 0.5, MemoryActive: 0.3, MemoryConsumed: 0.6, NetReceived: 100 << 10, NetTransmitted: 50 << 10, DiskLatency: 5 * time.Millisecond}

func startVCenter(t *testing.T, cfg sim.Config) *sim.VCenter {
	t.Helper()
	if cfg.Clock == nil {
		cfg.Clock = clock.New(speed)
	}
	if cfg.Load == nil {
		cfg.Load = load.Steady(steady)
	}
	if cfg.Clusters == nil {
		cfg.Clusters = sim.Uniform(4, 20)
	}
	cfg.MigrationTime = func(float64) time.Duration { return 2 * time.Second }
	vc, err := sim.StartVCenter(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(vc.Close)
	return vc
}

func sessionOf(vc *sim.VCenter) platform.Options {
	password, _ := vc.Login().User.Password()
	return platform.Options{
		URL: vc.URL().String(), Username: vc.Login().User.Username(), TLS: promconfig.TLSConfig{CA: string(vc.CAPEM())},
		Password: func() (string, error) { return password, nil },
	}
}

// faults keeps what a source says of itself.
type faults struct {
	mu     sync.Mutex
	kinds  map[string]int
	last   map[string]error
	cycles map[string]int
}

func newFaults() *faults {
	return &faults{kinds: map[string]int{}, last: map[string]error{}, cycles: map[string]int{}}
}

var _ collector.Observer = (*faults)(nil)

func (f *faults) Call(string) {}

func (f *faults) Fault(kind string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kinds[kind]++
	f.last[kind] = err
}

func (f *faults) Cycle(part string, _ float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cycles[part]++
}

func (f *faults) count(kind string) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.kinds[kind], f.last[kind]
}

func newSource(t *testing.T, opts vsphere.Options) *vsphere.Source {
	t.Helper()
	if opts.Observer == nil {
		opts.Observer = newFaults()
	}
	opts.Interval = interval
	src, err := vsphere.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// console is another client of the vCenter, as a person's.
type console struct {
	t      *testing.T
	name   string
	vc     *sim.VCenter
	logins int
	n      int
}

// do runs f on a session of its own.
func (c *console) do(f func(ctx context.Context, client *govmomi.Client) error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	sc := soap.NewClient(c.vc.URL(), true)
	defer sc.CloseIdleConnections()
	vc, err := vim25.NewClient(ctx, sc)
	if err != nil {
		c.t.Fatal(err)
	}
	client := &govmomi.Client{Client: vc, SessionManager: session.NewManager(vc)}
	c.logins++
	if err := client.SessionManager.Login(ctx, c.vc.Login().User); err != nil {
		c.t.Fatal(err)
	}
	err = f(ctx, client)
	if logout := client.SessionManager.Logout(ctx); err == nil {
		err = logout
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *console) id(ref types.ManagedObjectReference) inventory.ID {
	kinds := map[string]inventory.Kind{"ClusterComputeResource": inventory.KindCluster, "HostSystem": inventory.KindHost, "VirtualMachine": inventory.KindVM}
	return inventory.ID{Source: c.name, Kind: kinds[ref.Type], Ref: ref.Value}
}

func vmRef(id inventory.ID) types.ManagedObjectReference {
	return types.ManagedObjectReference{Type: "VirtualMachine", Value: id.Ref}
}

func (c *console) CreateVM(name string) inventory.ID {
	c.t.Helper()
	hosts := c.vc.Hosts()
	c.n++
	ref, err := c.vc.CreateVM(hosts[c.n%len(hosts)], sim.VM{Name: name})
	if err != nil {
		c.t.Fatal(err)
	}
	return c.id(ref)
}

func (c *console) DestroyVM(id inventory.ID) {
	c.t.Helper()
	if err := c.vc.DestroyVM(vmRef(id)); err != nil {
		c.t.Fatal(err)
	}
}

// MoveVM is a vMotion by govmomi, as from any other client.
func (c *console) MoveVM(vm, host inventory.ID) {
	c.t.Helper()
	c.do(func(ctx context.Context, client *govmomi.Client) error {
		to := types.ManagedObjectReference{Type: "HostSystem", Value: host.Ref}
		task, err := object.NewVirtualMachine(client.Client, vmRef(vm)).Relocate(ctx,
			types.VirtualMachineRelocateSpec{Host: &to}, types.VirtualMachineMovePriorityDefaultPriority)
		if err != nil {
			return err
		}
		return task.Wait(ctx)
	})
}

func (c *console) Stop() { c.vc.Stop() }

func (c *console) Start() {
	c.t.Helper()
	if err := c.vc.Restart(); err != nil {
		c.t.Fatal(err)
	}
}

func (c *console) ForgetLogins() {
	c.t.Helper()
	c.do(func(ctx context.Context, client *govmomi.Client) error {
		var m mo.SessionManager
		ref := *client.ServiceContent.SessionManager
		if err := client.RetrieveOne(ctx, ref, []string{"sessionList", "currentSession"}, &m); err != nil {
			return err
		}
		var keys []string
		for _, s := range m.SessionList {
			if s.Key != m.CurrentSession.Key {
				keys = append(keys, s.Key)
			}
		}
		_, err := methods.TerminateSession(ctx, client, &types.TerminateSession{This: ref, SessionId: keys})
		return err
	})
}

func (c *console) LogIns() int     { return c.vc.Logins() - c.logins }
func (c *console) OpenLogIns() int { return c.vc.Sessions() }

var _ collectortest.Control = (*console)(nil)

func TestConformance(t *testing.T) {
	collectortest.Run(t, func(t *testing.T) collectortest.Fixture {
		clk := clock.New(2 * speed)
		vc := startVCenter(t, sim.Config{Clock: clk})
		wrong := sessionOf(vc)
		wrong.Password = func() (string, error) { return "wrong", nil }
		return collectortest.Fixture{
			Name: "vc", Interval: interval, Clock: clk,
			Source:  newSource(t, vsphere.Options{Name: "vc", Clock: clk, Session: sessionOf(vc)}),
			Refused: newSource(t, vsphere.Options{Name: "vc", Clock: clk, Session: wrong}),
			Control: &console{t: t, name: "vc", vc: vc},
		}
	})
}

// agent is a fleet with supervised sources: all that collects, and nothing else.
type agent struct {
	t       *testing.T
	clock   *clock.Clock
	fleet   *inventory.Fleet
	changes chan inventory.Change
	metrics *collector.Metrics
	ids     *collector.Identities
	observe map[string]*faults
}

// supervise starts an agent over vCenters by source name.
func supervise(t *testing.T, clk *clock.Clock, sessions map[string]platform.Options) *agent {
	t.Helper()
	a := &agent{
		t: t, clock: clk, changes: make(chan inventory.Change, 100_000), metrics: collector.NewMetrics(prometheus.NewRegistry()),
		ids: collector.NewIdentities(), observe: map[string]*faults{},
	}
	var known []inventory.Source
	for name := range sessions {
		known = append(known, inventory.Source{Name: name, Platform: "vsphere", Interval: interval})
	}
	a.fleet = inventory.NewFleet(known...)
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	sink := collector.FleetSink(a.fleet, clk, log, func(changes []inventory.Change) {
		for _, c := range changes {
			a.changes <- c
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	for name, s := range sessions {
		a.observe[name] = newFaults()
		src := newSource(t, vsphere.Options{Name: name, Clock: clk, Session: s, Identities: a.ids, Observer: a.observe[name]})
		wg.Go(func() {
			collector.Supervise(ctx, name, src, sink, collector.Options{Clock: clk, Log: log, Metrics: a.metrics})
		})
	}
	return a
}

func (a *agent) eventually(d time.Duration, what string, ok func() bool) {
	a.t.Helper()
	for deadline := time.Now().Add(d); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			a.t.Fatalf("not within %v: %s; sources: %+v", d, what, a.fleet.Snapshot().Sources())
		}
	}
}

func (a *agent) up(source string) bool {
	s, _ := a.fleet.Snapshot().Source(source)
	return s.Up && s.Synced
}

// drain returns the changes so far that are not updates.
func (a *agent) drain() map[inventory.ChangeKind][]inventory.ID {
	out := map[inventory.ChangeKind][]inventory.ID{}
	for {
		select {
		case c := <-a.changes:
			out[c.Kind] = append(out[c.Kind], c.ID)
		default:
			return out
		}
	}
}

// throughout holds ok for d. It says nothing of times when this process was itself kept from running for long.
func (a *agent) throughout(d time.Duration, ok func() error) {
	a.t.Helper()
	stalled := time.Time{}
	for end := a.clock.Now().Add(d); a.clock.Now().Before(end); {
		before := a.clock.Now()
		_ = a.clock.Sleep(a.t.Context(), interval/10)
		err := ok()
		now := a.clock.Now()
		if now.Sub(before) > interval/4 {
			stalled = now
		}
		if err != nil && now.Sub(stalled) > 3*interval {
			a.t.Fatal(err)
		}
	}
}

// fresh is how many VMs and hosts of a source have a value of the metric that is not stale.
func (a *agent) fresh(source string, m inventory.Metric) int {
	a.fleet.Expire(a.clock.Now())
	n := 0
	snap := a.fleet.Snapshot()
	for v := range snap.VMs() {
		if _, ok := v.Samples.Value(m); v.ID.Source == source && m.Desc().Kind == inventory.KindVM && ok {
			n++
		}
	}
	for h := range snap.Hosts() {
		if _, ok := h.Samples.Value(m); h.ID.Source == source && m.Desc().Kind == inventory.KindHost && ok {
			n++
		}
	}
	return n
}

func TestMetricsAgreeWithTheVCenter(t *testing.T) {
	t.Parallel()
	clk := clock.New(speed)
	vc := startVCenter(t, sim.Config{Clock: clk, Clusters: sim.Uniform(2, 12)})
	a := supervise(t, clk, map[string]platform.Options{"vc": sessionOf(vc)})
	all := append(vsphere.Given(inventory.KindVM), vsphere.Given(inventory.KindHost)...)
	a.eventually(10*time.Second, "every metric of every object", func() bool {
		for _, m := range all {
			if want := map[inventory.Kind]int{inventory.KindVM: 12, inventory.KindHost: 2}[m.Desc().Kind]; a.fresh("vc", m) != want {
				return false
			}
		}
		return true
	})
	// None goes missing between two cycles.
	a.throughout(4*interval, func() error {
		for _, m := range all {
			if got, want := a.fresh("vc", m), map[inventory.Kind]int{inventory.KindVM: 12, inventory.KindHost: 2}[m.Desc().Kind]; got != want {
				return fmt.Errorf("%v of %d objects, want %d", m, got, want)
			}
		}
		return nil
	})
	near := func(what string, got, want float64) {
		t.Helper()
		if got < want*0.98 || got > want*1.02 {
			t.Errorf("%s is %v, want %v", what, got, want)
		}
	}
	snap := a.fleet.Snapshot()
	for h := range snap.Hosts() {
		var cpu, mem float64
		for _, v := range snap.VMsOn(h.ID) {
			c, _ := v.Samples.Value(inventory.VMCPUUsage)
			m, _ := v.Samples.Value(inventory.VMMemoryUsage)
			near(v.Name+" CPU", c, 0.5*float64(v.VCPUs)*2.6e9)
			near(v.Name+" memory", m, 0.6*v.MemoryBytes)
			active, _ := v.Samples.Value(inventory.VMMemoryActive)
			near(v.Name+" active memory", active, 0.3*v.MemoryBytes)
			cpu, mem = cpu+c, mem+m
		}
		hc, _ := h.Samples.Value(inventory.HostCPUUsage)
		hr, _ := h.Samples.Value(inventory.HostCPUUsageRatio)
		hm, _ := h.Samples.Value(inventory.HostMemoryUsage)
		near(h.Name+" CPU", hc, cpu)
		near(h.Name+" CPU ratio", hr, cpu/h.CPUHertz)
		near(h.Name+" memory", hm, mem)
	}
}

func TestNetworkTotalsMissNothing(t *testing.T) {
	t.Parallel()
	clk := clock.New(speed)
	vc := startVCenter(t, sim.Config{Clock: clk, Clusters: sim.Uniform(2, 4)})
	a := supervise(t, clk, map[string]platform.Options{"vc": sessionOf(vc)})
	// total is the sum at a time, once all VMs are sampled at the same one.
	total := func() (sum float64, at int64, same bool) {
		same = true
		for v := range a.fleet.Snapshot().VMs() {
			s := v.Samples.Of(inventory.VMNetworkReceive)
			same = same && s.OK() && (at == 0 || at == s.At)
			sum, at = sum+s.Value, s.At
		}
		return sum, at, same
	}
	var sum float64
	var at int64
	a.eventually(10*time.Second, "network totals", func() (same bool) {
		sum, at, same = total()
		return same && a.fresh("vc", inventory.VMNetworkReceive) == 4
	})

	// Three intervals without an answer, and a restart of the vCenter.
	lift := vc.Inject(sim.Fault{Method: "QueryPerf", Fault: &types.SystemError{}})
	_ = clk.Sleep(t.Context(), 3*interval)
	lift()
	vc.Stop()
	_ = clk.Sleep(t.Context(), interval)
	if err := vc.Restart(); err != nil {
		t.Fatal(err)
	}
	var after float64
	var then int64
	a.eventually(20*time.Second, "network totals again", func() (same bool) {
		after, then, same = total()
		return same && a.up("vc") && then > at+int64(6*interval/time.Millisecond)
	})
	seconds := float64(then-at) / 1000
	if rate := (after - sum) / 4 / seconds; rate < 100<<10*0.97 || rate > 100<<10*1.03 {
		t.Errorf("%v bytes a second over %v s with gaps, want %v", rate, seconds, 100<<10)
	}
}

func TestOneDeadVCenterCostsTheOtherNothing(t *testing.T) {
	t.Parallel()
	clk := clock.New(speed)
	dies, lives := startVCenter(t, sim.Config{Name: "dies", Clock: clk}), startVCenter(t, sim.Config{Name: "lives", Clock: clk})
	a := supervise(t, clk, map[string]platform.Options{"dies": sessionOf(dies), "lives": sessionOf(lives)})
	full := func(source string) bool {
		return a.fresh(source, inventory.VMCPUUsage) == 20 && a.fresh(source, inventory.VMCPUContention) == 20
	}
	a.eventually(15*time.Second, "both up", func() bool { return full("dies") && full("lives") })
	a.drain()
	dies.Stop()
	a.throughout(3*interval, func() error {
		if !full("lives") || !a.up("lives") {
			return errors.New("the other has a gap")
		}
		return nil
	})
	if a.up("dies") {
		t.Error("the dead one is up")
	}
	for _, m := range []inventory.Metric{inventory.VMCPUUsage, inventory.HostCPUUsageRatio, inventory.HostCPUContention} {
		if n := a.fresh("dies", m); n > 0 {
			t.Errorf("%d values of %v of the dead one after two intervals", n, m)
		}
	}
	if changes := a.drain(); len(changes[inventory.Removed]) > 0 {
		t.Errorf("%d objects of the dead one were removed", len(changes[inventory.Removed]))
	}
	if err := dies.Restart(); err != nil {
		t.Fatal(err)
	}
	a.eventually(20*time.Second, "the dead one is back", func() bool { return a.up("dies") && full("dies") })
	for kind, ids := range a.drain() {
		if kind != inventory.Synced && kind != inventory.Updated {
			t.Errorf("%d %s", len(ids), kind)
		}
	}
}

func TestQueryPerfAloneFailing(t *testing.T) {
	t.Parallel()
	restricted := &types.RestrictedByAdministrator{Details: "maxQueryMetrics"}
	for name, fault := range map[string]sim.Fault{
		"system error": {Method: "QueryPerf", Fault: &types.SystemError{}},
		"restricted":   {Method: "QueryPerf", Fault: restricted},
		"hangs":        {Method: "QueryPerf", Hang: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clk := clock.New(speed)
			vc := startVCenter(t, sim.Config{Clock: clk})
			opts := sessionOf(vc)
			opts.Timeout = 2 * time.Second
			a := supervise(t, clk, map[string]platform.Options{"vc": opts})
			a.eventually(15*time.Second, "contention", func() bool { return a.fresh("vc", inventory.VMCPUContention) == 20 })
			lift := vc.Inject(fault)
			a.eventually(15*time.Second, "contention disappears, of VMs and hosts", func() bool {
				return a.fresh("vc", inventory.VMCPUContention) == 0 && a.fresh("vc", inventory.HostCPUContention) == 0
			})
			a.throughout(2*interval, func() error {
				if a.fresh("vc", inventory.VMCPUUsage) != 20 || a.fresh("vc", inventory.HostCPUUsageRatio) != 4 || !a.up("vc") {
					return errors.New("usage has a gap")
				}
				return nil
			})
			a.eventually(5*time.Second, "the fault is told", func() bool { n, _ := a.observe["vc"].count("perf"); return n > 0 })
			id := (&console{t: t, name: "vc", vc: vc}).CreateVM("meanwhile")
			a.eventually(2*time.Second, "facts go on", func() bool { _, ok := a.fleet.Snapshot().VM(id); return ok })
			lift()
			a.eventually(15*time.Second, "contention is back", func() bool { return a.fresh("vc", inventory.VMCPUContention) == 21 })
		})
	}
}

func TestQueryLimitIsLearnt(t *testing.T) {
	t.Parallel()
	clk := clock.New(speed)
	vc := startVCenter(t, sim.Config{Clock: clk, Clusters: sim.Uniform(4, 120), MaxQueryMetrics: 64})
	a := supervise(t, clk, map[string]platform.Options{"vc": sessionOf(vc)})
	a.eventually(15*time.Second, "contention of all VMs", func() bool { return a.fresh("vc", inventory.VMCPUContention) == 120 })
	if n, err := a.observe["vc"].count("perf"); n > 0 {
		t.Errorf("%d faults: %v", n, err)
	}
}

func TestRestartWithDeletions(t *testing.T) {
	t.Parallel()
	clk := clock.New(speed)
	vc := startVCenter(t, sim.Config{Clock: clk, Clusters: sim.Uniform(10, 650)})
	a := supervise(t, clk, map[string]platform.Options{"vc": sessionOf(vc)})
	a.eventually(30*time.Second, "listed", func() bool { return a.up("vc") })
	vc.Stop()
	a.eventually(30*time.Second, "down", func() bool { return !a.up("vc") })
	a.drain()
	gone := vc.VMs()[50:550]
	if err := vc.DestroyVM(gone...); err != nil {
		t.Fatal(err)
	}
	if err := vc.Restart(); err != nil {
		t.Fatal(err)
	}
	changes := map[inventory.ChangeKind][]inventory.ID{}
	a.eventually(60*time.Second, "listed again", func() bool {
		for kind, ids := range a.drain() {
			changes[kind] = append(changes[kind], ids...)
		}
		return len(changes[inventory.Synced]) > 0
	})
	if n := len(changes[inventory.Removed]); n != 500 {
		t.Errorf("%d removals, want exactly 500", n)
	}
	for _, id := range changes[inventory.Removed] {
		if !slices.Contains(gone, vmRef(id)) {
			t.Errorf("%v was removed", id)
		}
	}
	for _, kind := range []inventory.ChangeKind{inventory.Added, inventory.Moved} {
		if n := len(changes[kind]); n > 0 {
			t.Errorf("%d %s", n, kind)
		}
	}
}

func TestWrongCredentialsMakeNoStorm(t *testing.T) {
	t.Parallel()
	clk := clock.New(100)
	vc := startVCenter(t, sim.Config{Clock: clk})
	wrong := sessionOf(vc)
	wrong.Password = func() (string, error) { return "wrong-password", nil }
	a := supervise(t, clk, map[string]platform.Options{"vc": wrong})
	_ = clk.Sleep(t.Context(), 4*time.Minute) // less than the pause after a refusal
	if n := vc.Logins(); n != 1 {
		t.Errorf("%d log-ins in four minutes, want 1", n)
	}
	s, _ := a.fleet.Snapshot().Source("vc")
	if s.Up || !strings.Contains(s.Error, "credentials refused") || strings.Contains(s.Error, "wrong-password") {
		t.Errorf("source: %+v", s)
	}
}

func TestSameVCenterTwiceIsRefused(t *testing.T) {
	t.Parallel()
	clk := clock.New(speed)
	vc := startVCenter(t, sim.Config{Clock: clk})
	a := supervise(t, clk, map[string]platform.Options{"one": sessionOf(vc), "two": sessionOf(vc)})
	refusal := func(name, other string) bool {
		s, _ := a.fleet.Snapshot().Source(name)
		return a.up(other) && strings.Contains(s.Error, `"one"`) && strings.Contains(s.Error, `"two"`) && strings.Contains(s.Error, vc.InstanceUUID())
	}
	a.eventually(10*time.Second, "one is up and the other refused by name", func() bool {
		return refusal("one", "two") || refusal("two", "one")
	})
	n := 0
	for range a.fleet.Snapshot().VMs() {
		n++
	}
	if n != 20 {
		t.Errorf("%d VMs, want each once: 20", n)
	}
	if n := vc.Sessions(); n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
}

func TestNastyNames(t *testing.T) {
	t.Parallel()
	names := []string{
		`quo"te'd <&> \ back`, "new\nline\ttab", strings.Repeat("x", 80), "twin", "twin", "Ümläut 日本", "per%cent/slash",
		"inv\xffalid", " ", "{curly=\"1\"}",
	}
	clusters := sim.Uniform(2, 2)
	for _, name := range names {
		clusters[0].Hosts[0].VMs = append(clusters[0].Hosts[0].VMs, sim.VM{Name: name})
	}
	clk := clock.New(speed)
	vc := startVCenter(t, sim.Config{Clock: clk, Clusters: clusters})
	a := supervise(t, clk, map[string]platform.Options{"vc": sessionOf(vc)})
	a.eventually(10*time.Second, "samples of all", func() bool { return a.fresh("vc", inventory.VMCPUUsage) == 2+len(names) })
	var got []string
	for v := range a.fleet.Snapshot().VMs() {
		got = append(got, v.Name)
	}
	names[7] = "inv\uFFFDalid" // XML cannot carry it as it was
	for _, name := range names {
		if i := slices.Index(got, name); i < 0 {
			t.Errorf("%q is missing in %q", name, got)
		} else {
			got = slices.Delete(got, i, i+1)
		}
	}
}

func TestStatesAreMapped(t *testing.T) {
	t.Parallel()
	clusters := []sim.Cluster{{
		Name: "prod", DRS: sim.DRS{Enabled: true, Behavior: types.DrsBehaviorFullyAutomated},
		HA:    sim.HA{Enabled: true, AdmissionControl: true, Policy: &types.ClusterFailoverLevelAdmissionControlPolicy{FailoverLevel: 2}},
		Rules: []sim.Rule{{Name: "apart", Apart: true, VMs: []string{"a", "b"}}, {Name: "together", VMs: []string{"b", "c"}}},
		Hosts: []sim.Host{
			{Name: "h1", Cores: 8, MHz: 2000, MemoryBytes: 64 << 30, VMs: []sim.VM{{Name: "a"}, {Name: "b", DRSBehavior: types.DrsBehaviorManual}, {Name: "off", Off: true}}},
			{Name: "h2", Maintenance: true, VMs: []sim.VM{{Name: "c", DRSBehavior: sim.DRSDisabled}}},
			{Name: "h3", Disconnected: true, VMs: []sim.VM{{Name: "d"}}},
		},
	}}
	clk := clock.New(speed)
	vc := startVCenter(t, sim.Config{Clock: clk, Clusters: clusters})
	a := supervise(t, clk, map[string]platform.Options{"vc": sessionOf(vc)})
	a.eventually(10*time.Second, "listed and sampled", func() bool { return a.up("vc") && a.fresh("vc", inventory.VMCPUUsage) == 3 })
	c := &console{t: t, name: "vc", vc: vc}
	id := func(find func(string) (types.ManagedObjectReference, bool), name string) inventory.ID {
		ref, ok := find(name)
		if !ok {
			t.Fatalf("no %s", name)
		}
		return c.id(ref)
	}
	snap := a.fleet.Snapshot()
	cl, _ := snap.Cluster(id(vc.Cluster, "prod"))
	va, vb, vcc := id(vc.VM, "a"), id(vc.VM, "b"), id(vc.VM, "c")
	if cl.DRS != (inventory.DRS{Enabled: true, Automation: inventory.AutomationFull}) {
		t.Errorf("DRS %+v", cl.DRS)
	}
	if cl.HA != (inventory.HA{Enabled: true, AdmissionControl: true, Policy: "host_failures", HostFailures: 2}) {
		t.Errorf("HA %+v", cl.HA)
	}
	if len(cl.Rules) != 2 || cl.Rules[0].Kind != inventory.AntiAffinity || !slices.Equal(cl.Rules[0].VMs, []inventory.ID{va, vb}) ||
		cl.Rules[1].Kind != inventory.Affinity || !slices.Equal(cl.Rules[1].VMs, []inventory.ID{vb, vcc}) || !cl.Rules[0].Enabled {
		t.Errorf("rules %+v", cl.Rules)
	}
	if len(cl.Overrides) != 2 || cl.Overrides[vb] != inventory.AutomationManual || cl.Overrides[vcc] != inventory.AutomationManual {
		t.Errorf("overrides %v", cl.Overrides)
	}
	h1, _ := snap.Host(id(vc.Host, "h1"))
	if h1.Cluster != cl.ID || h1.Cores != 8 || h1.CPUHertz != 16e9 || h1.MemoryBytes != 64<<30 || h1.UUID == "" || h1.Maintenance || h1.Version == "" {
		t.Errorf("h1 %+v", h1.Host)
	}
	if h2, _ := snap.Host(id(vc.Host, "h2")); !h2.Maintenance {
		t.Errorf("h2 %+v", h2.Host)
	}
	h3, _ := snap.Host(id(vc.Host, "h3"))
	if _, ok := h3.Samples.Value(inventory.HostCPUUsage); ok || h3.Connection != inventory.Disconnected {
		t.Errorf("h3 is %s and has CPU usage: %v", h3.Connection, ok)
	}
	if v, _ := snap.VM(id(vc.VM, "off")); v.Power != inventory.PowerOff || v.Samples.Of(inventory.VMCPUUsage).At != 0 {
		t.Errorf("off: %+v %+v", v.VM, v.Samples)
	}

	// And as they change.
	vmA, _ := vc.VM("a")
	hostRef, _ := vc.Host("h1")
	clusterRef, _ := vc.Cluster("prod")
	for what, f := range map[string]func() error{
		"power off":   func() error { return vc.PowerOff(vmA) },
		"rename":      func() error { return vc.Rename(vmA, "renamed") },
		"maintenance": func() error { return vc.SetMaintenance(hostRef, true) },
		"drs":         func() error { return vc.SetDRS(clusterRef, sim.DRS{Enabled: false}) },
	} {
		if err := f(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	a.eventually(2*time.Second, "changes of state", func() bool {
		snap := a.fleet.Snapshot()
		v, _ := snap.VM(va)
		h, _ := snap.Host(h1.ID)
		cl, _ := snap.Cluster(cl.ID)
		return v.Power == inventory.PowerOff && v.Name == "renamed" && h.Maintenance && !cl.DRS.Enabled && v.VCPUs == 2
	})
	if err := vc.SetConnection(hostRef, types.HostSystemConnectionStateNotResponding); err != nil {
		t.Fatal(err)
	}
	a.eventually(2*time.Second, "host is unreachable", func() bool { h, _ := a.fleet.Snapshot().Host(h1.ID); return h.Connection == inventory.Unreachable })
	a.eventually(15*time.Second, "its figures stop", func() bool {
		a.fleet.Expire(clk.Now())
		h, _ := a.fleet.Snapshot().Host(h1.ID)
		_, ok := h.Samples.Value(inventory.HostCPUUsage)
		return !ok
	})
}

// Rights are asked of the vCenter for each of the two users, and what is missing is said in the vCenter's own names.
func TestCheckPrivileges(t *testing.T) {
	t.Parallel()
	vc := startVCenter(t, sim.Config{Users: []sim.User{
		{Name: "watcher", Password: "w", Lacks: []string{"System.Read"}},
		{Name: "actor", Password: "a", Lacks: []string{"Resource.HotMigrate", "Resource.QueryVMotion"}},
	}})
	as := func(user, password string) platform.Options {
		o := sessionOf(vc)
		o.Username, o.Password = user, func() (string, error) { return password, nil }
		return o
	}
	ids := func(lacks []collector.Privilege) (out []string) {
		for _, p := range lacks {
			out = append(out, p.ID)
		}
		return out
	}
	r, err := vsphere.CheckSource(t.Context(), as("watcher", "w"))
	if got := ids(r.Lacks); err != nil || !slices.Equal(got, []string{"System.Read"}) {
		t.Errorf("watcher lacks %v, %v", got, err)
	}
	if r, err = vsphere.CheckSource(t.Context(), sessionOf(vc)); err != nil || len(r.Lacks) > 0 {
		t.Errorf("the administrator lacks %v, %v", r.Lacks, err)
	}
	if a := vsphere.CheckActing(t.Context(), as("actor", "a")); a.Error != "" ||
		!slices.Equal(ids(a.Lacks), []string{"Resource.HotMigrate", "Resource.QueryVMotion"}) {
		t.Errorf("actor: %+v", a)
	}
	if a := vsphere.CheckActing(t.Context(), as("actor", "wrong")); !strings.Contains(a.Error, "refused") {
		t.Errorf("actor with a wrong password: %+v", a)
	}
	if vc.Sessions() != 0 {
		t.Errorf("%d sessions are left", vc.Sessions())
	}
}

func TestCheckSource(t *testing.T) {
	t.Parallel()
	vc := startVCenter(t, sim.Config{Clock: clock.New(1)})
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	tests := []struct {
		name   string
		change func(*platform.Options)
		want   string
	}{
		{"good", func(*platform.Options) {}, ""},
		{"unreachable", func(o *platform.Options) { o.URL = "https://" + closed.Addr().String() }, "unreachable"},
		{"no such host", func(o *platform.Options) { o.URL = "https://vcenter.invalid" }, "cannot be resolved"},
		{"wrong password", func(o *platform.Options) { o.Password = func() (string, error) { return "pw-wrong", nil } }, "check username and password"},
		{"no password file", func(o *platform.Options) { o.Password = platform.PasswordFile("/nonexistent/pw") }, "/nonexistent/pw"},
		{"unknown authority", func(o *platform.Options) { o.TLS = promconfig.TLSConfig{} }, "tls_config.ca_file"},
		{"another name", func(o *platform.Options) { o.TLS.ServerName = "vc.example.org" }, "tls_config.server_name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			opts := sessionOf(vc)
			opts.Timeout = 5 * time.Second
			tt.change(&opts)
			r, err := vsphere.CheckSource(t.Context(), opts)
			if tt.want == "" {
				if err != nil || r.VMs != 20 || r.Hosts != 4 || r.Clusters != 1 || r.InstanceUUID != vc.InstanceUUID() || r.APIVersion == "" || r.ClockSkew.Abs() > 5*time.Second {
					t.Errorf("%+v, %v", r, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "pw-wrong") {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if tt.name == "wrong password" && !errors.Is(err, collector.ErrCredentials) {
				t.Errorf("%v is not ErrCredentials", err)
			}
		})
	}
	if n := vc.Sessions(); n != 0 {
		t.Errorf("%d sessions left open", n)
	}
}
