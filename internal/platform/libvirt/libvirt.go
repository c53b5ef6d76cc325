// Package libvirt speaks with one libvirt daemon: it finds the way there (unix socket, TCP, TLS, SSH), frames, encodes and decodes.
// It promises a deadline around every call, a bound on every answer and no panic; a connection that failed a deadline is dropped.
// It must not import anything of protip's that watches or acts; what can act (Client) is linked only by who calls DialClient.
package libvirt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// DefaultTimeout is how long one call may take.
const DefaultTimeout = 15 * time.Second

// Options say where a daemon is and how to prove oneself there.
type Options struct {
	// URI is the hypervisor's, as virsh -c takes it: qemu:///system, qemu+unix:///system?socket=/run/x, qemu+tcp://host/system,
	// qemu+tls://host/system, qemu+ssh://user@host/system, and the same with test instead of qemu.
	URI string
	TLS TLS
	SSH SSH
	// Write opens a Conn for writing. It is needed for one question only: libvirt lets guests' agents be asked only by who may write.
	// Without it the daemon itself refuses whatever would change something. A Client always writes.
	Write bool
	// Timeout bounds a connect and each call; zero is DefaultTimeout.
	Timeout time.Duration
	Observe func(method string) // hears of every call before it is made; may be nil
}

// TLS are the files of qemu+tls, PEM, read at each connect. Empty ones are libvirt's own: /etc/pki/CA/cacert.pem,
// /etc/pki/libvirt/clientcert.pem and /etc/pki/libvirt/private/clientkey.pem.
type TLS struct {
	CAFile, CertFile, KeyFile string
	ServerName                string // if the certificate has another name than the URI's host
}

// SSH are the files of qemu+ssh, read at each connect.
type SSH struct {
	KeyFile        string // a private key without a passphrase
	KnownHostsFile string // as ssh's; default ~/.ssh/known_hosts. A host that is not in it is refused.
}

// Conn is a connection for watching: it can only ask. Its methods may be called from any goroutine. It ends at Close, when the
// daemon goes, when an answer cannot be read, and when a call had no answer in time or its context ended: libvirt has no way
// to take a call back.
type Conn struct {
	name    string // the URI without anything secret
	conn    net.Conn
	timeout time.Duration
	observe func(string)
	events  chan Event

	write   sync.Mutex // one frame at a time
	done    chan struct{}
	mu      sync.Mutex
	err     error // why it ended
	serial  uint32
	pending map[uint32]chan frame
	counts  map[uint32]uint32 // by procedure: how many statistics of itself the host has
}

// Dial connects, logs in and opens the hypervisor's driver.
func Dial(ctx context.Context, opts Options) (*Conn, error) {
	opts = opts.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, opts.Timeout)
	defer cancel()
	where, err := parse(opts.URI)
	if err != nil {
		return nil, err
	}
	if !opts.Write {
		where.readOnly()
	}
	nc, err := where.dial(ctx, &opts)
	if err != nil {
		return nil, fmt.Errorf("libvirt %s: connect: %w", where.name, err)
	}
	c := &Conn{
		name: where.name, conn: nc, timeout: opts.Timeout, observe: opts.Observe,
		events: make(chan Event, maxEvents), done: make(chan struct{}), pending: map[uint32]chan frame{},
		counts: map[uint32]uint32{},
	}
	go c.listen()
	if err := c.open(ctx, where.driver, opts.Write); err != nil {
		c.drop(err)
		return nil, err
	}
	return c, nil
}

// Name is the URI, for people.
func (c *Conn) Name() string { return c.name }

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is why the connection ended, nil while it has not.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection.
func (c *Conn) Close() { c.drop(ErrClosed) }

// drop ends the connection for a reason; the first one stays.
func (c *Conn) drop(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = why
	close(c.done)
	c.conn.Close()
}

// ask makes one call and returns its answer's payload.
func (c *Conn) ask(ctx context.Context, method string, proc uint32, args []byte) (*decoder, error) {
	c.observe(method)
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	answer, serial, err := c.send(ctx, proc, args)
	if err != nil {
		return nil, c.wrap(method, err)
	}
	defer c.forget(serial)
	select {
	case f := <-answer:
		if f.status == statusOK {
			return &decoder{rest: f.payload}, nil
		}
		return nil, c.wrap(method, decodeError(f.payload))
	case <-ctx.Done():
		err = fmt.Errorf("no answer: %w", context.Cause(ctx))
		c.drop(err)
	case <-c.done:
		err = c.Err()
	}
	return nil, c.wrap(method, err)
}

// send writes a call. A daemon that takes no more holds it up no longer than ctx.
func (c *Conn) send(ctx context.Context, proc uint32, args []byte) (<-chan frame, uint32, error) {
	answer := make(chan frame, 1)
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return nil, 0, c.err
	}
	c.serial++
	serial := c.serial
	c.pending[serial] = answer
	c.mu.Unlock()

	stop := context.AfterFunc(ctx, func() { c.drop(fmt.Errorf("request not taken: %w", context.Cause(ctx))) })
	defer stop()
	c.write.Lock()
	_, err := c.conn.Write(appendCall(nil, proc, serial, args))
	c.write.Unlock()
	if err != nil {
		c.forget(serial)
		c.drop(fmt.Errorf("send: %w", err))
		return nil, 0, c.Err()
	}
	return answer, serial, nil
}

func (c *Conn) forget(serial uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, serial)
}

// listen hands answers to who asked and events to the queue, until the connection ends.
func (c *Conn) listen() {
	in := newFrames(c.conn)
	for {
		f, err := in.next()
		if err == nil {
			err = c.take(f)
		}
		if err != nil {
			c.drop(fmt.Errorf("connection lost: %w", err))
			return
		}
	}
}

func (c *Conn) take(f frame) error {
	switch {
	case f.program != program:
		return nil // keepalive and drivers' own programs: never asked for
	case f.kind == kindMessage:
		return c.takeEvent(f)
	case f.kind != kindReply:
		return fmt.Errorf("a message of type %d", f.kind)
	}
	c.mu.Lock()
	answer := c.pending[f.serial]
	delete(c.pending, f.serial)
	c.mu.Unlock()
	if answer != nil { // with room for the one answer that a call has
		answer <- f
	}
	return nil
}

// wrap names the daemon and the call.
func (c *Conn) wrap(method string, err error) error { return wrap(c.name, method, err) }

func wrap(name, method string, err error) error {
	return fmt.Errorf("libvirt %s: %s: %w", name, method, err)
}

// ErrClosed says that the connection was closed by its owner.
var ErrClosed = errors.New("connection closed")

func (o Options) withDefaults() Options {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Observe == nil {
		o.Observe = func(string) {}
	}
	return o
}
