package libvirt

import (
	"context"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
	"sync"

	golibvirt "github.com/digitalocean/go-libvirt"

	platform "github.com/protip/protip/internal/platform/libvirt"
)

// host is a way to one host: its connection, which is made when first needed and again when it was lost.
type host struct {
	opts platform.Options

	mu     sync.Mutex // held while it connects
	client *platform.Client
	uuid   string // of the host that was found there last; empty before
	closed bool
}

// connect is the connection that lives, or a new one.
func (h *host) connect(ctx context.Context) (*platform.Client, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, platform.ErrClosed
	}
	if h.client != nil {
		select {
		case <-h.client.Done():
			h.client = nil
		default:
			return h.client, nil
		}
	}
	c, err := platform.DialClient(ctx, h.opts)
	if err != nil {
		return nil, err
	}
	uuid, err := identity(ctx, c)
	if err != nil {
		c.Close()
		return nil, err
	}
	h.client, h.uuid = c, uuid
	return c, nil
}

func (h *host) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	if h.client != nil {
		h.client.Close()
	}
}

// leadsTo is the UUID of the host that was found there last.
func (h *host) leadsTo() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.uuid
}

// identity is the host's UUID, which its objects' IDs are made of.
func identity(ctx context.Context, c *platform.Client) (string, error) {
	var caps struct {
		UUID string `xml:"host>uuid"`
	}
	err := c.Call(ctx, "ConnectGetCapabilities", func(l *golibvirt.Libvirt) error {
		text, err := l.ConnectGetCapabilities()
		if err != nil {
			return err
		}
		return xml.Unmarshal([]byte(text), &caps)
	})
	if err == nil && caps.UUID == "" {
		err = fmt.Errorf("libvirt %s: tells no UUID of its host", c.Name())
	}
	return strings.ToLower(caps.UUID), err
}

// errNoHost says that none of the configured hosts is the one that was asked for.
var errNoHost = errors.New("no such host")

// host is the way to the host with a UUID. All that it does not know yet are asked who they are.
func (e *Executor) host(ctx context.Context, uuid string) (*host, error) {
	for _, h := range e.hosts {
		if h.leadsTo() == uuid {
			if _, err := h.connect(ctx); err == nil && h.leadsTo() != uuid {
				break // another machine has its address now
			} else if err != nil {
				return nil, err
			}
			return h, nil
		}
	}
	var failed []error
	for _, h := range e.hosts {
		if _, err := h.connect(ctx); err != nil {
			failed = append(failed, err)
		} else if h.leadsTo() == uuid {
			return h, nil
		}
	}
	if len(failed) > 0 {
		return nil, errors.Join(failed...) // it may be one of these
	}
	return nil, fmt.Errorf("%w among those of source %s: %s", errNoHost, e.opts.Source, uuid)
}

// ask makes a call that changes nothing, or nothing when it is made twice: once more if the connection turns out to have been lost.
func (h *host) ask(ctx context.Context, method string, f func(*golibvirt.Libvirt) error) error {
	for again := false; ; again = true {
		c, err := h.connect(ctx)
		if err != nil {
			return err
		}
		err = c.Call(ctx, method, f)
		answered := err == nil || platform.CodeOf(err) != 0 || errors.Is(err, golibvirt.ErrUnsupported)
		if answered || again || ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		c.Close() // it may not know yet that it is lost
	}
}

func parseUUID(s string) (u platform.UUID, err error) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != len(u) {
		return u, fmt.Errorf("%w: %q is no domain's UUID", errNoVM, s)
	}
	copy(u[:], b)
	return u, nil
}
