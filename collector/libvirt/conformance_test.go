package libvirt

import (
	"crypto/rand"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/digitalocean/go-libvirt/socket/dialers"

	"github.com/protip/protip/collector/collectortest"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/libvirt"
	"github.com/protip/protip/test/libvirtd"
)

// observer says in the test's log what is wrong.
type observer struct {
	t testing.TB

	mu     sync.Mutex
	faults map[string]int
	calls  map[string]int
	over   bool
}

func newObserver(t testing.TB) *observer {
	o := &observer{t: t, faults: map[string]int{}, calls: map[string]int{}}
	t.Cleanup(func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.over = true
	})
	return o
}

func (o *observer) Call(method string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.calls[method]++
}

func (o *observer) Cycle(string, float64) {}

func (o *observer) Fault(kind string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.faults[kind]++
	if !o.over && o.faults[kind] <= 5 {
		o.t.Logf("fault %s: %v", kind, err)
	}
}

func (o *observer) called(method string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.calls[method]
}

// lab is two daemons as two hosts, each behind a relay. It acts on them past the relays.
type lab struct {
	t      testing.TB
	relays []*libvirtd.Relay
	acting []*golibvirt.Libvirt
}

const shared = "/default" // the state that all connections to a daemon share

func startLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{t: t}
	for range 2 {
		d := libvirtd.Start(t)
		l.relays = append(l.relays, libvirtd.NewRelay(t, d.Addr))
		host, port, _ := net.SplitHostPort(d.Addr)
		c := golibvirt.NewWithDialer(dialers.NewRemote(host, dialers.UsePort(port)))
		if err := c.ConnectToURI("test://" + shared); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Disconnect() })
		l.acting = append(l.acting, c)
	}
	for host := range l.acting {
		l.destroy(host, golibvirt.Domain{Name: "test", UUID: testUUID, ID: 1}) // which every daemon has, by one UUID
		l.create(host, fmt.Sprintf("vm-%d-a", host), randomUUID())
		l.create(host, fmt.Sprintf("vm-%d-b", host), randomUUID())
	}
	return l
}

var testUUID = golibvirt.UUID{0x66, 0x95, 0xeb, 0x01, 0xf6, 0xa4, 0x83, 0x04, 0x79, 0xaa, 0x97, 0xf2, 0x50, 0x2e, 0x19, 0x3f}

func randomUUID() (u platform.UUID) {
	_, _ = rand.Read(u[:])
	return u
}

func (l *lab) options() (out []platform.Options) {
	for _, r := range l.relays {
		out = append(out, platform.Options{URI: "test+tcp://" + r.Addr + shared, Timeout: 20 * time.Second})
	}
	return out
}

// do acts on a host and ends the test if that fails.
func (l *lab) do(host int, what string, f func(*golibvirt.Libvirt) error) {
	l.t.Helper()
	if err := f(l.acting[host]); err != nil {
		l.t.Fatalf("%s: %v", what, err)
	}
}

func domainXML(name string, u platform.UUID) string {
	return fmt.Sprintf(`<domain type='test'><name>%s</name><uuid>%s</uuid><memory>524288</memory><vcpu>2</vcpu><os><type>hvm</type></os>
<devices><interface type='network'><mac address='52:54:00:%02x:%02x:%02X'/><source network='default'/></interface></devices></domain>`,
		name, u, u[0], u[1], u[2])
}

func (l *lab) create(host int, name string, u platform.UUID) golibvirt.Domain {
	l.t.Helper()
	var dom golibvirt.Domain
	l.do(host, "DomainCreateXML", func(c *golibvirt.Libvirt) (err error) {
		dom, err = c.DomainCreateXML(domainXML(name, u), 0)
		return err
	})
	return dom
}

func (l *lab) destroy(host int, dom golibvirt.Domain) {
	l.t.Helper()
	l.do(host, "DomainDestroy", func(c *golibvirt.Libvirt) error { return c.DomainDestroy(dom) })
	l.do(host, "DomainUndefine", func(c *golibvirt.Libvirt) error {
		if err := c.DomainUndefine(dom); err != nil && !golibvirt.IsNotFound(err) {
			return err
		}
		return nil
	})
}

// find is the domain of a UUID and the host that has it.
func (l *lab) find(ref string) (host int, dom golibvirt.Domain) {
	l.t.Helper()
	for host := range l.acting {
		var all []golibvirt.Domain
		l.do(host, "ConnectListAllDomains", func(c *golibvirt.Libvirt) (err error) {
			all, _, err = c.ConnectListAllDomains(1, 0)
			return err
		})
		for _, dom := range all {
			if platform.UUID(dom.UUID).String() == ref {
				return host, dom
			}
		}
	}
	l.t.Fatalf("no host has %s", ref)
	return 0, golibvirt.Domain{}
}

// move does what a migration does, as far as others see it: the VM arrives paused, goes from its host, and is resumed.
func (l *lab) move(ref string, to int) {
	l.t.Helper()
	from, dom := l.find(ref)
	arrived := l.create(to, dom.Name, platform.UUID(dom.UUID))
	l.do(to, "DomainSuspend", func(c *golibvirt.Libvirt) error { return c.DomainSuspend(arrived) })
	l.destroy(from, dom)
	l.do(to, "DomainResume", func(c *golibvirt.Libvirt) error { return c.DomainResume(arrived) })
}

// control is the lab for the conformance suite.
type control struct {
	*lab
	name string
}

var _ collectortest.Control = (*control)(nil)

func (c *control) CreateVM(name string) inventory.ID {
	u := randomUUID()
	c.create(0, name, u)
	return inventory.ID{Source: c.name, Kind: inventory.KindVM, Ref: u.String()}
}

func (c *control) DestroyVM(id inventory.ID) { c.destroy(c.find(id.Ref)) }

func (c *control) MoveVM(vm, to inventory.ID) {
	for i, o := range c.options() {
		if o.URI == to.Ref {
			c.move(vm.Ref, i)
			return
		}
	}
	c.t.Fatalf("no host %v", to)
}

func (c *control) Stop() { c.each((*libvirtd.Relay).Close) }
func (c *control) Start() {
	c.each((*libvirtd.Relay).Reopen)
}
func (c *control) ForgetLogins() { c.each((*libvirtd.Relay).Cut) }

func (c *control) each(f func(*libvirtd.Relay)) {
	for _, r := range c.relays {
		f(r)
	}
}

func (c *control) LogIns() (n int) {
	c.each(func(r *libvirtd.Relay) { n += r.Accepted() })
	return n
}

func (c *control) OpenLogIns() (n int) {
	c.each(func(r *libvirtd.Relay) { n += r.Open() })
	return n
}

func TestConformance(t *testing.T) {
	collectortest.Run(t, func(t *testing.T) collectortest.Fixture {
		const interval = 20 * time.Second
		l := startLab(t)
		clk := clock.New(20)
		source := func(hosts []platform.Options) *Source {
			src, err := New(Options{Name: "lab", Hosts: hosts, Interval: interval, Clock: clk, Observer: newObserver(t)})
			if err != nil {
				t.Fatal(err)
			}
			return src
		}
		locked := libvirtd.StartAuth(t, "sasl")
		relay := libvirtd.NewRelay(t, locked.Addr)
		c := &control{lab: l, name: "lab"}
		l.relays = append(l.relays, relay)
		refused := []platform.Options{{URI: "test+tcp://" + relay.Addr + shared}}
		return collectortest.Fixture{
			Name: "lab", Interval: interval, Clock: clk,
			Source: source(l.options()[:2]), Refused: source(refused), Control: c,
		}
	})
}
