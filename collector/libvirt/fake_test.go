package libvirt

import (
	"encoding/binary"
	"io"
	"math"
	"net"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/libvirt"
)

// wire writes libvirt's encoding, for what the test driver does not say.
type wire []byte

func (w wire) words(words ...uint32) wire {
	for _, v := range words {
		w = binary.BigEndian.AppendUint32(w, v)
	}
	return w
}

func (w wire) text(s string) wire {
	return append(append(w.words(uint32(len(s))), s...), make([]byte, -len(s)&3)...)
}

func (w wire) optional(s string) wire { return w.words(1).text(s) }

func (w wire) domain(dom platform.Domain) wire {
	return append(w.text(dom.Name), dom.UUID[:]...).words(uint32(dom.ID))
}

// params writes typed parameters, given as names and values.
func (w wire) params(pairs ...any) wire {
	w = w.words(uint32(len(pairs) / 2))
	for i := 0; i < len(pairs); i += 2 {
		w = w.text(pairs[i].(string))
		switch v := pairs[i+1].(type) {
		case int:
			w = w.words(1, uint32(v))
		case uint:
			w = w.words(2, uint32(v))
		case uint64:
			w = w.words(4, uint32(v>>32), uint32(v))
		case float64:
			bits := math.Float64bits(v)
			w = w.words(5, uint32(bits>>32), uint32(bits))
		case string:
			w = w.words(7).text(v)
		}
	}
	return w
}

// Procedures that the fake answers.
const (
	authList       = 66
	connectOpen    = 1
	allDomainStats = 344
	listNetworks   = 283
	listInterfaces = 284
	guestInterface = 353
	guestInfo      = 418
)

// fake is a daemon that answers each procedure always the same, says nothing to those whose answer is nil, and an error to all others.
func fake(t *testing.T, answers map[uint32]wire) *platform.Conn {
	t.Helper()
	answers[authList], answers[connectOpen] = wire{}.words(0), wire{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			var h [28]byte
			if _, err := io.ReadFull(conn, h[:]); err != nil {
				return
			}
			_, _ = io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(h[:]))-28)
			proc := binary.BigEndian.Uint32(h[12:])
			body, known := answers[proc]
			status := uint32(0)
			if !known {
				body, status = wire{}.words(3, 0, 1).text("not here").words(2, 0, 0, 0, 0, 0, 0, 0), 1
			} else if body == nil {
				continue
			}
			answer := append(wire{}.words(uint32(28+len(body)), 0x20008086, 1, proc, 1), h[20:24]...)
			if _, err := conn.Write(append(answer.words(status), body...)); err != nil {
				return
			}
		}
	}()
	conn, err := platform.Dial(t.Context(), platform.Options{URI: "qemu+tcp://" + l.Addr().String() + "/system", Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

// TestAnswer reads what a daemon with QEMU says of one domain that runs and one that does not.
func TestAnswer(t *testing.T) {
	web := platform.Domain{Name: "web", UUID: platform.UUID{1}, ID: 3}
	off := platform.Domain{Name: "off", UUID: platform.UUID{2}, ID: -1}
	conn := fake(t, map[uint32]wire{allDomainStats: wire{}.words(2).
		domain(web).params(
		"state.state", 1, "state.reason", 5,
		"cpu.time", uint64(7e9), "cpu.user", uint64(1e9), "cpu.system", uint64(2e9), "cpu.cache.monitor.count", uint(0),
		"balloon.current", uint64(1048576), "balloon.maximum", uint64(2097152), "balloon.rss", uint64(900000),
		"balloon.available", uint64(1000000), "balloon.usable", uint64(600000), "balloon.unused", uint64(200000),
		"vcpu.current", uint(2), "vcpu.maximum", uint(4),
		"vcpu.0.state", 1, "vcpu.0.time", uint64(3e9), "vcpu.0.wait", uint64(9), "vcpu.0.delay", uint64(5e8),
		"vcpu.1.state", 1, "vcpu.1.time", uint64(4e9), "vcpu.1.wait", uint64(9), "vcpu.1.delay", uint64(7e8),
		"net.count", uint(1), "net.0.name", "vnet0", "net.0.rx.bytes", uint64(11), "net.0.rx.pkts", uint64(2), "net.0.rx.errs", uint64(9),
		"net.0.rx.drop", uint64(1), "net.0.tx.bytes", uint64(22), "net.0.tx.pkts", uint64(3), "net.0.tx.drop", uint64(4),
		"block.count", uint(2), "block.0.name", "vda", "block.0.path", "/var/lib/x", "block.0.rd.reqs", uint64(5), "block.0.rd.bytes", uint64(4096),
		"block.0.rd.times", uint64(100), "block.0.wr.reqs", uint64(6), "block.0.wr.bytes", uint64(8192), "block.0.wr.times", uint64(200),
		"block.1.name", "sda", "block.1.rd.bytes", uint64(1),
		"block.7.rd.bytes", uint64(1), "net.x.rx.bytes", uint64(1), "dirtyrate.megabytes_per_second", 1.5, "", 1, ".", 1, "net..", 1, "balloon.rss", "many").
		domain(off).params("state.state", 5, "state.reason", 1)})
	var a answer
	if err := conn.AllDomainStats(t.Context(), &a); err != nil {
		t.Fatal(err)
	}
	if len(a.domains) != 2 || a.domains[0].dom != web || a.domains[1].dom != off {
		t.Fatalf("domains %+v", a.domains)
	}
	s := &a.domains[0]
	if s.state != platform.DomainRunning || s.reason != 5 || a.domains[1].state != platform.DomainShutoff || s.delayed != 2 {
		t.Errorf("states %v %v %v, %d vCPUs with delay", s.state, s.reason, a.domains[1].state, s.delayed)
	}
	for n, want := range map[number]uint64{
		cpuTime: 7e9, vcpuDelay: 12e8, vcpuCurrent: 2, balloonCurrent: 1048576, balloonMaximum: 2097152, balloonRSS: 900000,
		balloonAvailable: 1000000, balloonUsable: 600000, balloonUnused: 200000,
	} {
		if got, ok := s.number(n); !ok || got != want {
			t.Errorf("number %d is %d (%v), want %d", n, got, ok, want)
		}
	}
	if _, ok := a.domains[1].number(cpuTime); ok {
		t.Error("a domain that is off has a CPU time")
	}
	var vda, vnet device
	vda.key, vda.counters = deviceKey{true, "vda"}, [counterCount]uint64{diskReadBytes: 4096, diskWriteBytes: 8192, diskReads: 5, diskWrites: 6, diskReadTime: 100, diskWriteTime: 200}
	vnet.key, vnet.counters = deviceKey{false, "vnet0"}, [counterCount]uint64{
		netReceiveBytes: 11, netTransmitBytes: 22, netReceivePackets: 2, netTransmitPackets: 3, netReceiveDropped: 1, netTransmitDropped: 4,
	}
	if len(s.devices) != 3 || s.devices[0].key != vnet.key || s.devices[0].counters != vnet.counters ||
		s.devices[1].key != vda.key || s.devices[1].counters != vda.counters || s.devices[2].counters[diskReadBytes] != 1 {
		t.Errorf("devices %+v", s.devices)
	}
	var m meter
	values, _ := m.sample(s, run{id: 3}, time.Unix(1, 0), true, 1e9)
	if got := byMetric(values); got[inventory.VMDiskRead] != 4097 || got[inventory.VMMemoryGuestUsage] != 400000*1024 {
		t.Errorf("values %v", got)
	}
}

func TestGuest(t *testing.T) {
	conn := fake(t, map[uint32]wire{
		guestInfo: wire{}.params("os.id", "debian", "os.name", "Debian GNU/Linux", "os.pretty-name", "Debian GNU/Linux 12 (bookworm)", "hostname", "web-1"),
		guestInterface: wire{}.words(3).
			text("lo").optional("00:00:00:00:00:00").words(2, 0).text("127.0.0.1").words(8, 1).text("::1").words(128).
			text("eth0").optional("52:54:00:aa:bb:cc").words(3, 1).text("fe80::1").words(64, 1).text("2001:db8::7").words(64, 0).text("10.0.0.7").words(24).
			text("eth1").words(0).words(0),
	})
	g, err := askGuest(t.Context(), conn, platform.Domain{})
	if err != nil {
		t.Fatal(err)
	}
	if g.hostname != "web-1" || g.os != "Debian GNU/Linux 12 (bookworm)" || g.ip != "10.0.0.7" {
		t.Errorf("guest %+v", g)
	}
	if _, err := askGuest(t.Context(), fake(t, map[uint32]wire{}), platform.Domain{}); err == nil {
		t.Error("no agent and no error")
	}
}

func TestReach(t *testing.T) {
	uuid := platform.Domain{UUID: platform.UUID{7}}.UUID
	conn := fake(t, map[uint32]wire{
		listNetworks:   append(wire{}.words(2).text("default"), append(uuid[:], append(wire{}.text("lab"), append(uuid[:], wire{}.words(2)...)...)...)...),
		listInterfaces: wire{}.words(2).text("br0").text("52:54:00:aa:bb:cc").text("eth0").text("").words(2),
	})
	networks, err := conn.ActiveNetworks(t.Context())
	interfaces, err2 := conn.HostInterfaces(t.Context())
	if err != nil || err2 != nil || !slices.Equal(networks, []string{"default", "lab"}) || !slices.Equal(interfaces, []string{"br0", "eth0"}) {
		t.Errorf("networks %v %v, interfaces %v %v", networks, err, interfaces, err2)
	}
	o := &observer{t: t, calls: map[string]int{}, faults: map[string]int{}}
	f := &follower{watch: &watch{Source: &Source{opts: Options{Observer: o}}}, host: &host{}, conn: fake(t, map[uint32]wire{listNetworks: wire{}.words(0, 0)})}
	r, err := f.reach(t.Context())
	if err != nil || !r.told[virtualNetwork] || r.told[hostInterface] || len(r.has) > 0 || len(o.faults) > 0 {
		t.Errorf("a driver without interfaces: %+v %v, faults %v", r, err, o.faults)
	}
}

func TestDescription(t *testing.T) {
	f, err := parseDescription(`<domain type='kvm' id='3'><name>web</name><metadata><libosinfo:libosinfo xmlns:libosinfo="http://libosinfo.org/xmlns/libvirt/domain/1.0">
<libosinfo:os id="http://debian.org/debian/12"/></libosinfo:libosinfo></metadata><memory unit='KiB'>2097152</memory><currentMemory unit='KiB'>1048576</currentMemory>
<vcpu placement='static' current='2'>4</vcpu><devices>
<interface type='network'><source network='default' bridge='virbr0'/></interface><interface type='direct'><source dev='eno1' mode='bridge'/></interface>
<interface type='bridge'><mac address='52:54:00:AA:BB:CC'/><source bridge='br0'/></interface><interface type='user'/><interface type='bridge'><source bridge='br0'/></interface>
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='connected'/></channel>
<hostdev mode='subsystem' type='pci'/></devices></domain>`)
	want := &facts{
		vcpus: 2, memory: 2 << 30, macs: []string{"52:54:00:aa:bb:cc"}, nets: []string{"interface/br0", "interface/eno1", "network/default"}, os: "debian 12", agent: true,
		notLive: "a device of the host (pci) is passed through to it",
	}
	if err != nil || !reflect.DeepEqual(f, want) {
		t.Errorf("facts %+v %v, want %+v", f, err, want)
	}
	for _, text := range []string{"", "<domain", "<network/>", "<domain><vcpu>many</vcpu></domain>"} {
		if f, err := parseDescription(text); err == nil {
			t.Errorf("%q: %+v", text, f)
		}
	}
}

func FuzzDescription(f *testing.F) {
	f.Add("<domain><memory unit='KiB'>1</memory><vcpu>1</vcpu></domain>")
	f.Add("<capabilities><host><uuid>x</uuid><cpu><counter name='tsc' frequency='1'/></cpu></host></capabilities>")
	f.Fuzz(func(t *testing.T, text string) {
		if facts, err := parseDescription(text); err == nil && (facts.vcpus < 0 || facts.memory < 0) {
			t.Errorf("%+v", facts)
		}
		if caps, err := parseCapabilities(text); err == nil {
			if hz := coreHertz(&caps, 0); !(hz > 0) || math.IsInf(hz, 0) {
				t.Errorf("%v hertz", hz)
			}
		}
	})
}
