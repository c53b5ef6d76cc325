package libvirtd

import (
	"net"
	"sync"
	"testing"
)

// Relay is a way to a daemon that can be cut, closed and held up, and that counts who goes through.
type Relay struct {
	Addr string

	t  testing.TB
	to string

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool // both ends
	accepted int
	open     int
	held     chan struct{} // nothing passes while it is not nil
}

// NewRelay starts a relay to an address, until the test ends.
func NewRelay(t testing.TB, to string) *Relay {
	t.Helper()
	r := &Relay{t: t, to: to, conns: map[net.Conn]bool{}}
	r.listen("127.0.0.1:0")
	t.Cleanup(func() { r.Release(); r.Close() })
	return r
}

func (r *Relay) listen(addr string) {
	r.t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	r.listener, r.Addr = l, l.Addr().String()
	r.mu.Unlock()
	go r.serve(l)
}

func (r *Relay) serve(l net.Listener) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", r.to)
		if err != nil {
			in.Close()
			continue
		}
		r.mu.Lock()
		r.accepted++
		r.open++
		r.conns[in], r.conns[out] = true, true
		r.mu.Unlock()
		go r.pass(in, out, func() {})
		go r.pass(out, in, func() { r.mu.Lock(); r.open--; r.mu.Unlock() })
	}
}

// pass copies one way and then ends both.
func (r *Relay) pass(to, from net.Conn, over func()) {
	defer func() {
		to.Close()
		from.Close()
		r.mu.Lock()
		delete(r.conns, to)
		delete(r.conns, from)
		r.mu.Unlock()
		over()
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		r.mu.Lock()
		held := r.held
		r.mu.Unlock()
		if held != nil {
			<-held
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// Accepted is how many connections there were.
func (r *Relay) Accepted() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.accepted
}

// Open is how many connections there are.
func (r *Relay) Open() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open
}

// Cut ends all connections.
func (r *Relay) Cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		c.Close()
	}
}

// Close takes no more connections and ends those there are.
func (r *Relay) Close() {
	r.mu.Lock()
	r.listener.Close()
	r.mu.Unlock()
	r.Cut()
}

// Reopen takes connections again, at the same address.
func (r *Relay) Reopen() { r.t.Helper(); r.listen(r.Addr) }

// Hold lets nothing pass: connections are taken and stay, and are silent.
func (r *Relay) Hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held == nil {
		r.held = make(chan struct{})
	}
}

// Release ends a hold.
func (r *Relay) Release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held != nil {
		close(r.held)
		r.held = nil
	}
}
