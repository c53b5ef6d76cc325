package libvirt

import (
	"context"
	"sync"
	"testing"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/libvirt"
)

// soon is how long anything may take on a slow machine. It is no measure.
const soon = 60 * time.Second

// following is a fleet that the lab's hosts are watched into.
type following struct {
	t     *testing.T
	fleet *inventory.Fleet
	done  chan struct{}

	mu      sync.Mutex
	at      map[inventory.ID]time.Time // of the last sample
	removed int
}

// follow watches the lab's hosts until the test ends.
func (l *lab) follow(t *testing.T, timeout time.Duration) *following {
	t.Helper()
	hosts := l.options()
	for i := range hosts {
		hosts[i].Timeout = timeout
	}
	clk := clock.New(1)
	src, err := New(Options{Name: "lab", Hosts: hosts, Interval: time.Second, Clock: clk, Observer: newObserver(t)})
	if err != nil {
		t.Fatal(err)
	}
	f := &following{t: t, fleet: inventory.NewFleet(inventory.Source{Name: "lab", Interval: time.Second}), done: make(chan struct{}), at: map[inventory.ID]time.Time{}}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(f.done)
		_ = src.Watch(ctx, f.take)
	}()
	t.Cleanup(func() { cancel(); <-f.done })
	return f
}

func (f *following) take(d inventory.Delta) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.fleet.Apply(d, time.Now()); err != nil {
		f.t.Errorf("delta refused: %v", err)
	}
	f.removed += len(d.Removed)
	for _, s := range d.Samples {
		f.at[s.ID] = time.Now()
	}
}

func (f *following) eventually(what string, ok func(s *inventory.Snapshot) bool) {
	f.t.Helper()
	for deadline := time.Now().Add(soon); !ok(f.fleet.Snapshot()); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("not within %v: %s", soon, what)
		}
	}
}

func (f *following) sampledSince(id inventory.ID, t time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at[id].After(t)
}

func hostID(o platform.Options) inventory.ID {
	return inventory.ID{Source: "lab", Kind: inventory.KindHost, Ref: o.URI}
}

func vms(n int) func(*inventory.Snapshot) bool {
	return func(s *inventory.Snapshot) bool {
		found := 0
		for range s.VMs() {
			found++
		}
		return found == n
	}
}

func is(c inventory.Connection, id inventory.ID) func(*inventory.Snapshot) bool {
	return func(s *inventory.Snapshot) bool {
		h, ok := s.Host(id)
		return ok && h.Connection == c
	}
}

// TestHungHost holds that a host that falls silent costs the other nothing, loses no VM, and is followed again when it speaks.
func TestHungHost(t *testing.T) {
	l := startLab(t)
	f := l.follow(t, 2*time.Second)
	a, b := hostID(l.options()[0]), hostID(l.options()[1])
	f.eventually("both hosts are followed", func(s *inventory.Snapshot) bool {
		return is(inventory.Connected, a)(s) && is(inventory.Connected, b)(s) && f.sampledSince(a, time.Time{}) && f.sampledSince(b, time.Time{})
	})
	l.relays[1].Hold()
	f.eventually("the hung host is unreachable", is(inventory.Unreachable, b))
	held := time.Now()
	f.eventually("the other is sampled on", func(*inventory.Snapshot) bool { return f.sampledSince(a, held) })
	l.create(0, "made-meanwhile", randomUUID())
	f.eventually("the other's events are heard, and no VM is lost", func(s *inventory.Snapshot) bool {
		away, all := 0, 0
		for v := range s.VMs() {
			all++
			if v.Connection == inventory.Unreachable && v.Host == b {
				away++
			}
		}
		return all == 5 && away == 2
	})
	l.relays[1].Release()
	l.relays[1].Cut()
	f.eventually("the host is followed again", is(inventory.Connected, b))
	again := time.Now()
	f.eventually("and sampled", func(*inventory.Snapshot) bool { return f.sampledSince(b, again) })
	l.create(1, "made-afterwards", randomUUID())
	f.eventually("and its events are heard", func(s *inventory.Snapshot) bool {
		for v := range s.VMs() {
			if v.Name == "made-afterwards" {
				return v.Connection == inventory.Connected && v.Host == b
			}
		}
		return false
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.removed > 0 {
		t.Errorf("%d removals", f.removed)
	}
}

// TestHungFromTheStart holds that a listing does not wait for a host that says nothing, and that what it has comes when it speaks.
func TestHungFromTheStart(t *testing.T) {
	l := startLab(t)
	l.relays[1].Hold()
	f := l.follow(t, time.Minute)
	f.eventually("a listing", vms(2))
	l.relays[1].Release()
	f.eventually("the other host's VMs", vms(4))
}

// TestDeadHost holds that a host that is down does not hold up the others, nor the source.
func TestDeadHost(t *testing.T) {
	l := startLab(t)
	l.relays[1].Close()
	f := l.follow(t, 20*time.Second)
	f.eventually("a listing", vms(2))
	l.relays[1].Reopen()
	f.eventually("the other host's VMs", vms(4))
	l.relays[0].Close()
	f.eventually("the first host is unreachable", is(inventory.Unreachable, hostID(l.options()[0])))
	select {
	case <-f.done:
		t.Error("Watch ended though a host was left")
	default:
	}
	l.relays[1].Close()
	select {
	case <-f.done:
	case <-time.After(soon):
		t.Error("Watch went on with no host left")
	}
}

// TestCheck checks sources as an operator does who sets one up.
func TestCheck(t *testing.T) {
	l := startLab(t)
	hosts := l.options()
	r, err := CheckSource(t.Context(), hosts)
	if err != nil || r.Hosts != 2 || r.VMs != 4 || r.Clusters != 1 || r.Product == "" || len(r.Notes) != 2 {
		t.Errorf("report %+v %v", r, err)
	}
	if a := CheckActing(t.Context(), "act", hosts); a.Error != "" || a.Username != "act" {
		t.Errorf("acting %+v", a)
	}
	if _, err := CheckSource(t.Context(), append(hosts, hosts[0])); err == nil {
		t.Error("a host that is there twice was not noticed")
	}
	l.relays[1].Close()
	if r, err := CheckSource(t.Context(), hosts); err == nil || r.Hosts != 1 {
		t.Errorf("with a host that is down: %+v %v", r, err)
	}
	if a := CheckActing(t.Context(), "act", hosts); a.Error == "" {
		t.Error("acting on a host that is down: no error")
	}
}

// TestCalls holds that a cycle asks once for all domains, and for no description that did not change.
func TestCalls(t *testing.T) {
	l := startLab(t)
	f, _ := followOnce(t, l.options()[0].URI)
	calls := f.watch.opts.Observer.(*observer)
	cycle := func() (bulk, descriptions int) {
		t.Helper()
		bulk, descriptions = calls.called("ConnectGetAllDomainStats"), calls.called("DomainGetXMLDesc")
		if err := f.cycle(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		return calls.called("ConnectGetAllDomainStats") - bulk, calls.called("DomainGetXMLDesc") - descriptions
	}
	for range 3 {
		if bulk, descriptions := cycle(); bulk != 1 || descriptions != 0 {
			t.Errorf("%d bulk calls and %d descriptions", bulk, descriptions)
		}
	}
	l.create(0, "new", randomUUID()) // whose event nobody reads here
	if bulk, descriptions := cycle(); bulk != 1 || descriptions != 1 {
		t.Errorf("with a new domain: %d bulk calls and %d descriptions", bulk, descriptions)
	}
}

// TestNetworksOfDaemons: a network that a host loses is lost for its VMs' placement, too.
func TestNetworksOfDaemons(t *testing.T) {
	l := startLab(t)
	f := l.follow(t, 20*time.Second)
	a, b := hostID(l.options()[0]), hostID(l.options()[1])
	f.eventually("both hosts are followed", func(s *inventory.Snapshot) bool {
		return is(inventory.Connected, a)(s) && is(inventory.Connected, b)(s) && vms(4)(s)
	})
	network := inventory.ID{Source: "lab", Kind: inventory.KindNetwork, Ref: "network/default"}
	has := func(host inventory.ID, want bool) func(*inventory.Snapshot) bool {
		return func(s *inventory.Snapshot) bool {
			n, listed := s.Network(network)
			h, ok := s.Host(host)
			if !ok || !listed {
				return false
			}
			on, known := n.On(h.Host)
			return known && on == want
		}
	}
	f.eventually("both have libvirt's network", func(s *inventory.Snapshot) bool { return has(a, true)(s) && has(b, true)(s) })
	for vm := range f.fleet.Snapshot().VMs() {
		if len(vm.Networks) != 1 || vm.Networks[0] != network {
			t.Errorf("%s is attached to %v", vm.Name, vm.Networks)
		}
	}
	for _, vm := range f.fleet.Snapshot().VMsOn(b) {
		_, dom := l.find(vm.ID.Ref)
		l.destroy(1, dom)
	}
	l.do(1, "NetworkDestroy", func(c *golibvirt.Libvirt) error {
		n, err := c.NetworkLookupByName("default")
		if err != nil {
			return err
		}
		return c.NetworkDestroy(n)
	})
	l.relays[1].Cut() // it is asked again every five minutes, and when it is connected to
	f.eventually("b has none", has(b, false))
	if !has(a, true)(f.fleet.Snapshot()) {
		t.Error("a has none either")
	}
}
