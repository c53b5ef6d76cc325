package libvirt_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"

	"github.com/protip/protip/internal/platform/libvirt"
	"github.com/protip/protip/test/libvirtd"
)

const patience = 30 * time.Second

func dial(t *testing.T, uri string) *libvirt.Conn {
	t.Helper()
	c, err := libvirt.Dial(t.Context(), libvirt.Options{URI: uri, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// list collects what AllDomainStats tells.
type list struct {
	domains []libvirt.Domain
	params  int
}

func (l *list) Domain(dom libvirt.Domain)   { l.domains = append(l.domains, dom) }
func (l *list) Param([]byte, libvirt.Value) { l.params++ }

// TestCalls asks a real daemon everything, over both of its sockets.
func TestCalls(t *testing.T) {
	d := libvirtd.Start(t)
	for _, uri := range []string{d.URI("/default"), d.UnixURI("/default")} {
		c, ctx := dial(t, uri), t.Context()
		if caps, err := c.Capabilities(ctx); err != nil || !strings.Contains(caps, "<capabilities>") {
			t.Errorf("capabilities %q %v", caps, err)
		}
		if driver, err := c.Driver(ctx); err != nil || driver != "TEST" {
			t.Errorf("driver %q %v", driver, err)
		}
		if v, err := c.Version(ctx); err != nil || strings.Count(v, ".") != 2 {
			t.Errorf("version %q %v", v, err)
		}
		if n, err := c.NodeInfo(ctx); err != nil || n.CPUs != 16 || n.MHz != 1400 || n.MemoryKiB != 3145728 || n.Model != "i686" {
			t.Errorf("node %+v %v", n, err)
		}
		for range 2 {
			if cpu, err := c.NodeCPUStats(ctx); err != nil || cpu["idle"] == 0 || cpu["user"] == 0 {
				t.Errorf("CPU %v %v", cpu, err)
			}
		}
		if _, err := c.NodeMemoryStats(ctx); libvirt.CodeOf(err) != libvirt.NoSupport {
			t.Errorf("memory of the test driver: %v", err)
		}
		if free, err := c.NodeFreeMemory(ctx); err != nil || free == 0 {
			t.Errorf("free memory %d %v", free, err)
		}
		all, err := c.ListAllDomains(ctx)
		if err != nil || len(all) != 1 || all[0].Name != "test" {
			t.Fatalf("domains %v %v", all, err)
		}
		if state, _, err := c.DomainState(ctx, all[0]); err != nil || state != libvirt.DomainRunning {
			t.Errorf("state %v %v", state, err)
		}
		if xml, err := c.DomainXML(ctx, all[0]); err != nil || !strings.Contains(xml, all[0].UUID.String()) {
			t.Errorf("XML %q %v", xml, err)
		}
		if info, err := c.DomainInfo(ctx, all[0]); err != nil || info.VCPUs != 2 || info.CPUTime == 0 {
			t.Errorf("info %+v %v", info, err)
		}
		var found list
		if err := c.AllDomainStats(ctx, &found); err != nil || len(found.domains) != 1 || found.params == 0 {
			t.Errorf("stats %+v %v", found, err)
		}
		if _, err := c.GuestInterfaces(ctx, all[0]); libvirt.CodeOf(err) != libvirt.OperationDenied {
			t.Errorf("a connection that only reads may ask a guest's agent: %v", err)
		}
		_, _, err = c.DomainState(ctx, libvirt.Domain{Name: "nobody", UUID: libvirt.UUID{1}})
		var theirs *libvirt.Error
		if !libvirt.IsGone(err) || !errors.As(err, &theirs) || theirs.Domain == 0 || !strings.Contains(err.Error(), "DomainGetState") {
			t.Errorf("a domain that is not there: %v", err)
		}
		if err := c.Err(); err != nil {
			t.Errorf("errors of calls ended the connection: %v", err)
		}
	}
}

// TestWrite asks for what only those may who may write: the test driver makes up what an agent would say.
func TestWrite(t *testing.T) {
	d := libvirtd.Start(t)
	c, err := libvirt.Dial(t.Context(), libvirt.Options{URI: d.URI("/default"), Timeout: patience, Write: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all, err := c.ListAllDomains(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("domains %v %v", all, err)
	}
	if found, err := c.GuestInterfaces(t.Context(), all[0]); err != nil {
		t.Errorf("interfaces %v %v", found, err)
	}
	if _, err := c.GuestInfo(t.Context(), all[0]); libvirt.CodeOf(err) == libvirt.OperationDenied {
		t.Errorf("guest: %v", err)
	}
}

// TestEvents lets one connection act and another hear of it.
func TestEvents(t *testing.T) {
	d := libvirtd.Start(t)
	watching := dial(t, d.URI("/default"))
	if err := watching.Subscribe(t.Context()); err != nil {
		t.Fatal(err)
	}
	acting, err := libvirt.DialClient(t.Context(), libvirt.Options{URI: d.URI("/default"), Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	defer acting.Close()
	for _, step := range []struct {
		what string
		do   func(*golibvirt.Libvirt, golibvirt.Domain) error
		want libvirt.EventType
	}{
		{"suspend", (*golibvirt.Libvirt).DomainSuspend, libvirt.Suspended},
		{"resume", (*golibvirt.Libvirt).DomainResume, libvirt.Resumed},
		{"destroy", (*golibvirt.Libvirt).DomainDestroy, libvirt.Stopped},
	} {
		if err := acting.Call(t.Context(), step.what, func(l *golibvirt.Libvirt) error {
			dom, err := l.DomainLookupByName("test")
			if err != nil {
				return err
			}
			return step.do(l, dom)
		}); err != nil {
			t.Fatal(err)
		}
		select {
		case e := <-watching.Events():
			if e.Type != step.want || e.Domain.Name != "test" {
				t.Errorf("%s: %+v", step.what, e)
			}
		case <-time.After(patience):
			t.Fatalf("no event of %s", step.what)
		}
	}
	err = acting.Call(t.Context(), "DomainLookupByName", func(l *golibvirt.Libvirt) error {
		_, err := l.DomainLookupByName("nobody")
		return err
	})
	if !libvirt.IsGone(err) {
		t.Errorf("a domain that is not there: %v", err)
	}
	err = acting.Call(t.Context(), "Panic", func(*golibvirt.Libvirt) error { panic("decoder") })
	if err == nil || !strings.Contains(err.Error(), "panic") {
		t.Errorf("a panic of the decoder: %v", err)
	}
}

// TestSilence holds that a call ends at its time-out, or with its context, and takes the connection with it.
func TestSilence(t *testing.T) {
	d := libvirtd.Start(t)
	for _, tt := range []struct {
		name    string
		timeout time.Duration
		ctx     time.Duration
	}{
		{"time-out of a call", 100 * time.Millisecond, time.Hour},
		{"end of the context", time.Hour, 100 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			relay := libvirtd.NewRelay(t, d.Addr)
			uri := "test+tcp://" + relay.Addr + "/default"
			watching, err := libvirt.Dial(t.Context(), libvirt.Options{URI: uri, Timeout: max(tt.timeout, 2*time.Second)})
			if err != nil {
				t.Fatal(err)
			}
			acting, err := libvirt.DialClient(t.Context(), libvirt.Options{URI: uri, Timeout: max(tt.timeout, 2*time.Second)})
			if err != nil {
				t.Fatal(err)
			}
			relay.Hold()
			ctx, cancel := context.WithTimeout(t.Context(), tt.ctx)
			defer cancel()
			if _, err := watching.Hostname(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("watching: %v", err)
			}
			if err := acting.Call(ctx, "ConnectGetHostname", func(l *golibvirt.Libvirt) error {
				_, err := l.ConnectGetHostname()
				return err
			}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("acting: %v", err)
			}
			for _, done := range []<-chan struct{}{watching.Done(), acting.Done()} {
				select {
				case <-done:
				case <-time.After(patience):
					t.Error("the connection was kept")
				}
			}
			if _, err := watching.Hostname(t.Context()); err == nil {
				t.Error("a dropped connection answered")
			}
		})
	}
}

// TestDialEnds holds that no peer holds up a dial, or makes it panic: not one that says nothing, nor one that says anything.
func TestDialEnds(t *testing.T) {
	frame := func(size uint32, words ...uint32) []byte {
		b := binary.BigEndian.AppendUint32(nil, size)
		for _, w := range words {
			b = binary.BigEndian.AppendUint32(b, w)
		}
		return b
	}
	const program, reply = 0x20008086, 1
	for _, tt := range []struct {
		name string
		say  []byte
		hang bool
	}{
		{name: "silence", hang: true},
		{name: "the end"},
		{name: "a greeting of another protocol", say: []byte("SSH-2.0-OpenSSH_9.2\r\n"), hang: true},
		{name: "a length below the header's", say: frame(4), hang: true},
		{name: "a length of 4 GB", say: frame(1<<32-1, program, 1, 66, reply, 1, 0), hang: true},
		{name: "a list of 4 billion ways to log in", say: frame(32, program, 1, 66, reply, 1, 0, 1<<32-1), hang: true},
		{name: "an error that is cut", say: frame(32, program, 1, 66, reply, 1, 1, 42), hang: true},
		{name: "an error with a text of 4 GB", say: frame(44, program, 1, 66, reply, 1, 1, 42, 10, 1, 1<<32-1), hang: true},
		{name: "two answers to one call", say: append(frame(32, program, 1, 66, reply, 1, 0, 0), frame(32, program, 1, 66, reply, 1, 0, 0)...), hang: true},
		{name: "an answer and the end", say: frame(32, program, 1, 66, reply, 1, 0, 0)},
		{name: "a call", say: frame(28, program, 1, 66, 0, 1, 0), hang: true},
		{name: "an event that was not asked for", say: frame(32, program, 1, 318, 2, 0, 0, 7), hang: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr := peer(t, tt.say, tt.hang)
			opts := libvirt.Options{URI: "test+tcp://" + addr + "/default", Timeout: 100 * time.Millisecond}
			began := time.Now()
			if c, err := libvirt.Dial(t.Context(), opts); err == nil {
				c.Close()
				t.Error("Dial: no error")
			}
			if c, err := libvirt.DialClient(t.Context(), opts); err == nil {
				c.Close()
				t.Error("DialClient: no error")
			}
			if took := time.Since(began); took > patience {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// peer is somebody who says something to whoever calls, whatever that one says.
func peer(t *testing.T, say []byte, hang bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.ReadFull(c, make([]byte, 28))
				_, _ = c.Write(say)
				if hang {
					_, _ = io.Copy(io.Discard, c)
				}
			}()
		}
	}()
	return l.Addr().String()
}

func TestURIs(t *testing.T) {
	for _, tt := range []struct{ uri, err string }{
		{"qemu:///system", ""},
		{"qemu+unix:///system?socket=/run/x", ""},
		{"qemu+tcp://kvm-01/system", ""},
		{"qemu+tls://kvm-01:16514/system", ""},
		{"qemu://kvm-01/system", ""},
		{"qemu+ssh://protip@kvm-01/system", ""},
		{"", "no driver"},
		{"kvm-01", "no driver"},
		{"qemu+ssh://u:hunter2@kvm-01/system", "password in the URI"},
		{"qemu+ssh://u:hunter2@kvm-01:x/system", "not a URI"},
		{"qemu+libssh2://kvm-01/system", "transport libssh2"},
		{"qemu+tcp:///system", "no host"},
		{"qemu+unix://kvm-01/system", "no host"},
		{"qemu+tcp://u@kvm-01/system", "a user"},
		{"qemu+ssh://kvm-01/system?no_verify=1", "no_verify is not known"},
	} {
		err := libvirt.CheckURI(tt.uri)
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %v, want %q", tt.uri, err, tt.err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}
