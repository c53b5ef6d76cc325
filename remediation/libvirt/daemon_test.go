package libvirt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	platform "github.com/protip/protip/internal/platform/libvirt"
)

// hosts are two libvirt daemons with one VM, as far as an executor speaks with them. They stand in for faults that real ones cannot be
// made to have at the right moment; what real ones do is in test/kvm.
type hosts struct {
	a, b *daemon
	dir  string
	took time.Duration // that a migration takes

	mu      sync.Mutex
	on      *daemon // where the VM is
	off     bool    // shut off
	job     *job
	calls   int
	persist bool
	sent    string // what the last migration's call said
	fault   fault  // of the next migration
	other   string // UUID of another VM of the same name, on b
	freeKiB uint64 // of each host's memory
	cpu     int32  // what comparing a CPU says: virCPUCompareResult
	aborted bool
}

type fault struct{ lose, refuse, fail bool }

// job is a migration under way.
type job struct {
	began time.Time
	to    *daemon
	fail  bool
	ended chan error
}

const vmUUID, vmName = "11223344-5566-7788-99aa-bbccddeeff00", "web"

// daemon is one host's.
type daemon struct {
	*hosts
	name, uuid string
	mu         sync.Mutex
	conns      map[net.Conn]bool
}

func startHosts(t *testing.T) *hosts {
	t.Helper()
	dir, err := os.MkdirTemp("", "lv") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	s := &hosts{dir: dir, took: 500 * time.Millisecond, freeKiB: 1 << 20, cpu: 2}
	s.a = &daemon{hosts: s, name: "host-a", uuid: "aaaaaaaa-0000-4000-8000-00000000000a", conns: map[net.Conn]bool{}}
	s.b = &daemon{hosts: s, name: "host-b", uuid: "bbbbbbbb-0000-4000-8000-00000000000b", conns: map[net.Conn]bool{}}
	s.on = s.a
	var listeners []net.Listener
	var serving sync.WaitGroup
	for _, d := range []*daemon{s.a, s.b} {
		for _, door := range []string{rightSecret, "closed"} {
			l, err := net.Listen("unix", s.socket(d, door))
			if err != nil {
				t.Fatal(err)
			}
			listeners = append(listeners, l)
			serving.Go(func() { d.serve(l, door == rightSecret) })
		}
	}
	t.Cleanup(func() {
		for _, l := range listeners {
			l.Close()
		}
		s.endSessions()
		serving.Wait()
		os.RemoveAll(dir)
	})
	return s
}

const rightSecret = "key-of-the-acting-user"

func (s *hosts) socket(d *daemon, secret string) string {
	if secret != rightSecret {
		secret = "closed"
	}
	return filepath.Join(s.dir, d.name+"-"+map[bool]string{true: "s", false: "c"}[secret == rightSecret])
}

func (s *hosts) options(secret string) []platform.Options {
	var out []platform.Options
	for _, d := range []*daemon{s.a, s.b} {
		out = append(out, platform.Options{URI: "qemu+unix:///system?socket=" + s.socket(d, secret), Timeout: 10 * time.Second})
	}
	return out
}

// endSessions drops everyone who is connected.
func (s *hosts) endSessions() {
	for _, d := range []*daemon{s.a, s.b} {
		d.mu.Lock()
		for c := range d.conns {
			c.Close()
		}
		d.mu.Unlock()
	}
}

func (d *daemon) serve(l net.Listener, open bool) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		d.mu.Lock()
		d.conns[c] = true
		d.mu.Unlock()
		go func() {
			defer func() {
				d.mu.Lock()
				delete(d.conns, c)
				d.mu.Unlock()
				c.Close()
			}()
			d.speak(c, open)
		}()
	}
}

// speak answers calls, several at a time, until the connection ends.
func (d *daemon) speak(c net.Conn, open bool) {
	var write sync.Mutex
	for {
		var size [4]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(size[:])-4)
		if _, err := io.ReadFull(c, body); err != nil {
			return
		}
		go func() {
			payload, err := d.answer(binary.BigEndian.Uint32(body[8:]), body[24:], open)
			if errors.Is(err, errHangUp) {
				c.Close()
				return
			}
			status := uint32(0)
			var refused *refusal
			if errors.As(err, &refused) {
				status, payload = 1, refused.encode()
			}
			out := words32(uint32(28+len(payload)), 0x20008086, 1, binary.BigEndian.Uint32(body[8:]), 1, binary.BigEndian.Uint32(body[16:]), status)
			write.Lock()
			defer write.Unlock()
			_, _ = c.Write(append(out, payload...))
		}()
	}
}

var errHangUp = errors.New("hang up")

// refusal is a daemon's error.
type refusal struct {
	code uint32
	text string
}

func (r *refusal) Error() string { return r.text }

func (r *refusal) encode() []byte {
	b := append(words32(r.code, 10, 1), str(r.text)...)
	return append(b, words32(2, 0, 0, 0, 0, 0, 0, 0)...)
}

var (
	errNotHere = &refusal{42, "Domain not found: no domain with matching uuid"}
	errDenied  = &refusal{45, "authentication failed"}
)

// answer is what a daemon says to a call.
func (d *daemon) answer(proc uint32, args []byte, open bool) ([]byte, error) {
	s := d.hosts
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	here := s.on == d || s.job != nil && s.job.to == d
	dom := append(append(str(vmName), mustUUID(vmUUID)...), words32(1)...)
	switch proc {
	case 66: // AuthList
		return words32(1, 0), nil
	case 1: // ConnectOpen
		if !open {
			return nil, errDenied
		}
		return nil, nil
	case 7: // ConnectGetCapabilities
		return str("<capabilities><host><uuid>" + d.uuid + "</uuid><cpu><arch>x86_64</arch></cpu></host></capabilities>"), nil
	case 59: // ConnectGetHostname
		return str(d.name), nil
	case 24: // DomainLookupByUUID
		if !here || string(args) != string(mustUUID(vmUUID)) {
			return nil, errNotHere
		}
		return dom, nil
	case 23: // DomainLookupByName
		if s.other != "" && d == s.b {
			return append(append(str(vmName), mustUUID(s.other)...), words32(2)...), nil
		}
		if !here {
			return nil, errNotHere
		}
		return dom, nil
	case 393: // ConnectCompareHypervisorCPU
		return words32(uint32(s.cpu)), nil
	case 228: // NodeGetMemoryStats
		return append(append(words32(1), str("free")...), append(words64(s.freeKiB), words32(1)...)...), nil
	}
	if !here {
		return nil, errNotHere
	}
	return s.aboutDomain(d, proc, args)
}

// aboutDomain answers a call on the VM, which the daemon has. The lock is held.
func (s *hosts) aboutDomain(d *daemon, proc uint32, args []byte) ([]byte, error) {
	switch proc {
	case 212: // DomainGetState
		switch {
		case s.off:
			return words32(5, 1), nil
		case s.on != d:
			return words32(3, 2), nil // paused, for a migration
		}
		return words32(1, 1), nil
	case 14: // DomainGetXMLDesc
		return str(`<domain type='kvm'><os><type arch='x86_64' machine='q35'>hvm</type></os><cpu mode='custom'><model>Skylake-Server</model></cpu></domain>`), nil
	case 16: // DomainGetInfo
		return append(append(append(words32(1), words64(512<<10)...), words64(512<<10)...), append(words32(1), words64(0)...)...), nil
	case 151: // DomainIsPersistent
		return words32(map[bool]uint32{true: 1}[s.persist]), nil
	case 166: // DomainMigrateSetMaxDowntime
		return nil, nil
	case 164: // DomainAbortJob
		s.aborted = true
		return nil, nil
	case 298: // DomainGetJobStats
		if s.job == nil || s.on != d {
			return words32(0, 0), nil
		}
		total := uint64(s.took)
		left := max(0, s.took-time.Since(s.job.began))
		b := append(words32(2, 3), append(str("operation"), words32(1, 5)...)...)
		b = append(b, append(append(str("data_total"), words32(4)...), words64(total)...)...)
		return append(b, append(append(str("data_remaining"), words32(4)...), words64(uint64(left))...)...), nil
	case 305: // DomainMigratePerform3Params
		return s.migrate(d, args)
	}
	return nil, &refusal{3, fmt.Sprintf("procedure %d is not made here", proc)}
}

// migrate answers the one call that changes something, at the migration's end. The lock is held, but not while it waits.
func (s *hosts) migrate(d *daemon, args []byte) ([]byte, error) {
	s.calls++
	s.sent = string(args)
	f := s.fault
	s.fault = fault{}
	target := s.b
	if d == s.b {
		target = s.a
	}
	switch {
	case !strings.Contains(s.sent, "qemu+tls://"+target.name+"/system"):
		return nil, &refusal{38, "unable to connect to server: no such host"}
	case f.refuse:
		return nil, &refusal{38, "unable to connect to server at 'host-b:16514': No route to host"}
	case s.job != nil:
		return nil, &refusal{55, "another migration job is already running for domain 'web'"}
	}
	ended := s.begin(target, f.fail)
	if f.lose {
		return nil, errHangUp
	}
	s.mu.Unlock()
	err := <-ended
	s.mu.Lock()
	return words32(0), err
}

// begin starts a job, which ends by itself.
func (s *hosts) begin(to *daemon, fail bool) (ended chan error) {
	s.job = &job{began: time.Now(), to: to, fail: fail, ended: make(chan error, 1)}
	time.AfterFunc(s.took+time.Millisecond, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.settle()
	})
	return s.job.ended
}

// settle ends a job whose time has come.
func (s *hosts) settle() {
	j := s.job
	switch {
	case j == nil:
		return
	case s.aborted:
		j.ended <- &refusal{78, "operation aborted: migration out: canceled by client"}
	case time.Since(j.began) < s.took:
		return
	case j.fail:
		j.ended <- &refusal{1, "internal error: client socket is closed"}
	default:
		s.on = j.to
		j.ended <- nil
	}
	s.job, s.aborted = nil, false
}

func words32(words ...uint32) (b []byte) {
	for _, w := range words {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	return b
}

func words64(w uint64) []byte { return binary.BigEndian.AppendUint64(nil, w) }

func str(s string) []byte {
	return append(append(words32(uint32(len(s))), s...), "\x00\x00\x00"[:-len(s)&3]...)
}

func mustUUID(s string) []byte {
	u, err := parseUUID(s)
	if err != nil {
		panic(err)
	}
	return u[:]
}
