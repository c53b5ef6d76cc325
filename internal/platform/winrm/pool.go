package winrm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	promconfig "github.com/prometheus/common/config"
)

// maxIdle is how long a connection is kept without use. Windows closes idle ones after two minutes.
const maxIdle = 55 * time.Second

// pool keeps a few connections to one host, each logged in once. A message has a connection for itself until it is
// answered: the sealing of a connection's messages is numbered.
type pool struct {
	client *Client
	slots  chan struct{}

	mu     sync.Mutex
	closed bool
	idle   []*conn // the last one used at the end
	open   map[*conn]struct{}
}

func newPool(c *Client) *pool {
	return &pool{client: c, slots: make(chan struct{}, c.opts.MaxConnections), open: map[*conn]struct{}{}}
}

// post sends one envelope and gives the answer's. One that may be sent once only goes over a connection made for it: on a
// kept one nobody could tell whether the host had closed it before or after it read. Any other is sent again, once, if a
// kept connection turns out to be dead or logged out.
func (p *pool) post(ctx context.Context, envelope []byte, once bool) (string, error) {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return "", notSent(fmt.Errorf("wait for a connection: %w", ctx.Err()))
	}
	if !once {
		if c := p.kept(); c != nil {
			body, err := p.over(ctx, c, envelope)
			if err == nil || ctx.Err() != nil || !c.stale {
				return body, err
			}
		}
	}
	c, err := p.dial(ctx)
	if err != nil {
		return "", notSent(err)
	}
	return p.over(ctx, c, envelope)
}

// over posts over one connection and keeps it for the next, if it can be kept.
func (p *pool) over(ctx context.Context, c *conn, envelope []byte) (string, error) {
	body, err := c.post(ctx, envelope)
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.dead || p.closed {
		delete(p.open, c)
		c.close()
		return body, err
	}
	c.used = time.Now()
	p.idle = append(p.idle, c)
	return body, err
}

// kept is a connection that is logged in and was used a short while ago, nil if there is none.
func (p *pool) kept() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	var young []*conn
	for _, c := range p.idle {
		if time.Since(c.used) < maxIdle {
			young = append(young, c)
			continue
		}
		delete(p.open, c)
		c.close()
	}
	p.idle = young
	if len(young) == 0 {
		return nil
	}
	c := young[len(young)-1]
	p.idle = young[:len(young)-1]
	return c
}

// dial connects and logs in.
func (p *pool) dial(ctx context.Context) (*conn, error) {
	c, err := p.connect(ctx)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		c.close()
		return nil, errClosed
	}
	p.open[c] = struct{}{}
	p.mu.Unlock()
	if err := p.client.login(ctx, c); err != nil {
		p.mu.Lock()
		delete(p.open, c)
		p.mu.Unlock()
		c.close()
		return nil, err
	}
	return c, nil
}

func (p *pool) connect(ctx context.Context) (*conn, error) {
	u := p.client.url
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, unwrapped(ctx, err)
	}
	if tcp, ok := raw.RemoteAddr().(*net.TCPAddr); ok {
		addr := tcp.AddrPort().Addr().Unmap()
		p.client.peer.Store(&addr)
	}
	c := newConn(p.client, raw)
	if u.Scheme != "https" {
		return c, nil
	}
	settings := p.client.opts.TLS
	if settings.ServerName == "" {
		settings.ServerName = u.Hostname()
	}
	tlsConfig, err := promconfig.NewTLSConfig(&settings)
	if err == nil {
		err = c.encrypt(ctx, tlsConfig)
	}
	if err != nil {
		c.close()
		return nil, fmt.Errorf("tls: %w", unwrapped(ctx, err))
	}
	return c, nil
}

// close ends all connections, also those in use.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for c := range p.open {
		c.close()
	}
	p.open, p.idle = map[*conn]struct{}{}, nil
}

// unwrapped is an error of the network without the address it repeats, or why the context ended if it did.
func unwrapped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return fmt.Errorf("%s: %w", op.Op, op.Err)
	}
	return err
}
