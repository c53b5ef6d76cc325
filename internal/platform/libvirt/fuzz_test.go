package libvirt

import (
	"context"
	"encoding/binary"
	"net"
	"testing"
	"time"
)

type nothing struct{}

func (nothing) Domain(Domain)       {}
func (nothing) Param([]byte, Value) {}

// FuzzAnswers gives every call the same answer, whatever that is, and then the event. Nothing may panic, and nothing may take more
// memory than the answer does.
func FuzzAnswers(f *testing.F) {
	domain := appendDomain(nil, Domain{Name: "vm", ID: 3})
	words := func(b []byte, words ...uint32) []byte {
		for _, w := range words {
			b = appendUint32(b, w)
		}
		return b
	}
	f.Add([]byte{}, uint32(0))
	f.Add(appendString(nil, "<capabilities/>"), uint32(0))
	f.Add(words(nil, 1<<32-1, 1<<32-1), uint32(0))
	f.Add(append(words(nil, 1), domain...), uint32(0))
	stats := words(append(words(nil, 1), domain...), 2)
	stats = words(appendString(stats, "state.state"), typeInt, 1)
	f.Add(words(appendString(stats, "net.0.name"), typeString, 4, 0x74617030), uint32(0))
	f.Add(words(appendString(words(nil, 1), "kernel"), 0, 7, 4), uint32(0))
	f.Add(appendString(words(nil, 42, 10, 1), "Domain not found"), uint32(1))
	f.Add(append(words(nil, 0), words(domain, 2, 0)...), uint32(0))
	f.Fuzz(func(t *testing.T, payload []byte, status uint32) {
		near, far := net.Pipe()
		c := &Conn{
			name: "fuzz", conn: near, timeout: 5 * time.Second, observe: func(string) {},
			events: make(chan Event, 1), done: make(chan struct{}), pending: map[uint32]chan frame{}, counts: map[uint32]uint32{},
		}
		go c.listen()
		go answerAll(far, payload, status)
		defer c.Close()
		ctx, dom := context.Background(), Domain{}
		_, _ = c.Capabilities(ctx)
		_, _ = c.Version(ctx)
		_, _ = c.NodeInfo(ctx)
		_, _ = c.NodeCPUStats(ctx)
		_, _ = c.NodeFreeMemory(ctx)
		_, _ = c.ListAllDomains(ctx)
		_ = c.AllDomainStats(ctx, nothing{})
		_, _, _ = c.DomainState(ctx, dom)
		_, _ = c.DomainInfo(ctx, dom)
		_, _ = c.GuestInfo(ctx, dom)
		_, _ = c.GuestInterfaces(ctx, dom)
		_ = c.Subscribe(ctx)
		_ = c.open(ctx, "qemu:///system", false)
		if err := c.Err(); err != nil {
			t.Errorf("an answer that cannot be read ended the connection: %v", err)
		}
		_ = c.takeEvent(frame{procedure: procEventLifecycle, payload: payload})
	})
}

// answerAll answers every call with the same.
func answerAll(conn net.Conn, payload []byte, status uint32) {
	in := newFrames(conn)
	for {
		call, err := in.next()
		if err != nil {
			return
		}
		answer := appendHeader(nil, frame{
			program: program, procedure: call.procedure, kind: kindReply, serial: call.serial, status: status, payload: payload,
		})
		if _, err := conn.Write(append(answer, payload...)); err != nil {
			return
		}
	}
}

// TestCounts holds that what an answer says it holds is held against what it has.
func TestCounts(t *testing.T) {
	for _, size := range []int{4, 12, 24} {
		d := decoder{rest: binary.BigEndian.AppendUint32(nil, 1<<32-1)}
		if n := d.count(size); n != 0 || d.err == nil {
			t.Errorf("%d elements of %d bytes in none: %v", n, size, d.err)
		}
	}
	if b := (&decoder{rest: []byte{0, 0, 0, 3, 1, 2, 3}}); b.bytes() != nil && b.err == nil {
		t.Error("a string without its padding was taken")
	}
}
