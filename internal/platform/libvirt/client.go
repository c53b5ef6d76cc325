package libvirt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
)

// Client is a connection for acting: every procedure of libvirt's, by github.com/digitalocean/go-libvirt. Who watches has a Conn, so that a
// program without DialClient cannot act. Its methods may be called from any goroutine, and calls may overlap: a migration and the
// questions how far it is. It ends as a Conn does. It gets no events.
type Client struct {
	name    string
	raw     *golibvirt.Libvirt
	pipe    *pipe
	timeout time.Duration
	observe func(string)
}

// DialClient connects, logs in and opens the hypervisor's driver.
func DialClient(ctx context.Context, opts Options) (*Client, error) {
	opts = opts.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, opts.Timeout)
	defer cancel()
	where, err := parse(opts.URI)
	if err != nil {
		return nil, err
	}
	nc, err := where.dial(ctx, &opts)
	if err != nil {
		return nil, fmt.Errorf("libvirt %s: connect: %w", where.name, err)
	}
	c := &Client{name: where.name, pipe: newPipe(nc), timeout: opts.Timeout, observe: opts.Observe}
	c.raw = golibvirt.NewWithDialer(c.pipe)
	err = c.Call(ctx, "ConnectOpen", func(l *golibvirt.Libvirt) error { return l.ConnectToURI(golibvirt.ConnectURI(where.driver)) })
	c.pipe.opened()
	if err != nil {
		c.pipe.drop(err)
		return nil, err
	}
	return c, nil
}

// Name is the URI, for people.
func (c *Client) Name() string { return c.name }

// Done is closed when the connection has ended.
func (c *Client) Done() <-chan struct{} { return c.pipe.done }

// Close ends the connection.
func (c *Client) Close() { c.pipe.drop(ErrClosed) }

// Call makes one call, which f makes with the client it is lent, within the connection's time-out. When that or ctx ends first, the
// connection is dropped and f returns. A daemon's error is an *Error in what Call returns; a panic of the decoder is an error.
func (c *Client) Call(ctx context.Context, method string, f func(*golibvirt.Libvirt) error) error {
	return c.CallWithin(ctx, c.timeout, method, f)
}

// CallWithin is Call for what takes long, such as a migration.
func (c *Client) CallWithin(ctx context.Context, within time.Duration, method string, f func(*golibvirt.Libvirt) error) error {
	c.observe(method)
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { c.pipe.drop(fmt.Errorf("no answer: %w", context.Cause(ctx))) })
	defer stop()
	err := contain(c.raw, f)
	if err == nil {
		return nil
	}
	var theirs golibvirt.Error
	if errors.As(err, &theirs) {
		err = &Error{Code: Code(theirs.Code), Message: theirs.Message}
	} else if why := c.pipe.why(); why != nil {
		err = why // go-libvirt knows only that it was interrupted
	}
	return wrap(c.name, method, err)
}

func contain(l *golibvirt.Libvirt, f func(*golibvirt.Libvirt) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in the answer's decoder: %v\n%s", p, debug.Stack())
		}
	}()
	return f(l)
}

// pipe stands between go-libvirt and the connection, because go-libvirt believes its peer: a length below the header's panics in a
// goroutine of its own, one above takes memory, and two answers to one call block it for ever. It passes on answers to calls that
// wait for one, whole and bounded, and nothing else.
type pipe struct {
	net.Conn
	in   *frames
	rest []byte // of a message that is being read

	done  chan struct{}
	mu    sync.Mutex
	asked *sync.Cond
	err   error
	open  bool            // ConnectToURI has returned
	calls map[uint32]bool // that wait for an answer
	out   []byte          // of a call whose header is being written
	body  int             // bytes to come of a call's arguments
}

func newPipe(c net.Conn) *pipe {
	p := &pipe{Conn: c, in: newFrames(c), done: make(chan struct{}), calls: map[uint32]bool{}}
	p.asked = sync.NewCond(&p.mu)
	return p
}

// Dial is go-libvirt's way to its connection.
func (p *pipe) Dial() (net.Conn, error) { return p, nil }

func (p *pipe) drop(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return
	}
	p.err = why
	close(p.done)
	p.Conn.Close()
	p.asked.Broadcast()
}

func (p *pipe) why() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *pipe) opened() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = true
	p.asked.Broadcast()
}

// Close is go-libvirt's: its opening failed.
func (p *pipe) Close() error {
	p.drop(ErrClosed)
	p.opened()
	return nil
}

// Read gives whole answers, one after the other.
func (p *pipe) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		f, err := p.in.next()
		if err != nil {
			p.drop(fmt.Errorf("connection lost: %w", err))
			p.awaitOpen()
			return 0, io.EOF
		}
		if f.program == program && f.kind == kindReply && p.answered(f.serial) {
			p.rest = append(appendHeader(nil, f), f.payload...)
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// awaitOpen keeps the end of the connection from go-libvirt while it is between two calls of its own opening: it would write and read
// one variable at once.
func (p *pipe) awaitOpen() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.open && len(p.calls) == 0 {
		p.asked.Wait()
	}
}

func (p *pipe) answered(serial uint32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	waits := p.calls[serial]
	delete(p.calls, serial)
	return waits
}

// Write notes the calls that go by.
func (p *pipe) Write(b []byte) (int, error) {
	p.note(b)
	return p.Conn.Write(b)
}

func (p *pipe) note(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(b) > 0 {
		if p.body > 0 {
			n := min(p.body, len(b))
			p.body, b = p.body-n, b[n:]
			continue
		}
		n := min(headerSize-len(p.out), len(b))
		p.out, b = append(p.out, b[:n]...), b[n:]
		if len(p.out) == headerSize {
			d := decoder{rest: p.out}
			p.body = int(d.uint32()) - headerSize
			d.take(16)
			p.calls[d.uint32()] = true
			p.out = p.out[:0]
			p.asked.Broadcast()
		}
	}
}
