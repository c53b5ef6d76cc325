// Package winrm speaks WS-Management to a Windows host: log-in, WQL enumeration, get, invoke, and what CIM's answers mean.
// It promises a deadline on every call, no readable password in errors or on the wire, and that what changes a host is sent once.
// It must not import other packages of protip, nor know what its calls are used for.
package winrm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	promconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/version"
)

// Auth is how a client proves who it is.
type Auth string

// The ways to log in.
const (
	NTLM        Auth = "ntlm"        // the default; over plain HTTP every message is sealed
	Kerberos    Auth = "kerberos"    // over HTTPS only
	Basic       Auth = "basic"       // over HTTPS; over plain HTTP only with AllowPlainBasic
	Certificate Auth = "certificate" // over HTTPS; the pair in TLS, which the host maps to an account
)

// Defaults of Options.
const (
	DefaultOperationTimeout = 20 * time.Second
	DefaultMaxEnvelope      = 512000 // bytes; WinRM's own default, MaxEnvelopeSizekb 500
	DefaultMaxConnections   = 3
	DefaultMaxElements      = 20000 // instances an answer; the envelope ends a page long before
)

// grace is how much longer than the host's own time limit an answer is waited for.
const grace = 5 * time.Second

// Options say which host, and as whom.
type Options struct {
	URL      string // https://host:5986, http://host:5985; the port and /wsman are added
	Auth     Auth   // default NTLM
	Username string // DOMAIN\user, user@domain, or a local account's bare name
	// Password is called at each log-in, so that a rotated one is picked up. Not for Certificate, nor Kerberos with a
	// keytab or a cache.
	Password func() (string, error)
	TLS      promconfig.TLSConfig // read at each connection
	Kerberos KerberosOptions
	// AllowPlainBasic lets Basic send its password readable over plain HTTP. Nothing else does.
	AllowPlainBasic bool

	OperationTimeout time.Duration // for the host to answer one message in; a context's deadline may be sooner
	MaxEnvelope      int           // bytes the host may put into one answer
	MaxConnections   int           // at once; further calls wait

	// Logins is shared by the clients of one account, so that a wrong password is not tried at every host. Nil: this
	// client's alone.
	Logins *Logins

	UserAgent string                 // default protip/VERSION
	Observe   func(operation string) // hears of each message before it is sent (Enumerate, Pull, Release, Get, Invoke), from any goroutine; may be nil
	Record    func(Exchange)         // is given each message that was answered, as Observe; may be nil
}

// Exchange is one message and the envelope of its answer.
type Exchange struct {
	Operation, Request, Answer string
	Fault                      bool // the answer is one
}

// Client speaks to one host. Its methods may be called from any goroutine.
type Client struct {
	opts    Options
	url     *url.URL
	pool    *pool
	tickets *tickets // of Kerberos

	fits  fits
	newID func() string // of a message

	requests, sent, received atomic.Uint64
	peer                     atomic.Pointer[netip.Addr]
}

// New checks the options. It does not connect: the first call does.
func New(opts Options) (*Client, error) {
	u, err := parseURL(opts.URL)
	if err != nil {
		return nil, err
	}
	opts.fill()
	if err := opts.check(u); err != nil {
		return nil, fmt.Errorf("host %s: %w", u.Host, err)
	}
	c := &Client{opts: opts, url: u, newID: newUUID, tickets: newTickets()}
	c.pool = newPool(c)
	return c, nil
}

func (o *Options) fill() {
	setDefault(&o.Auth, NTLM)
	setDefault(&o.OperationTimeout, DefaultOperationTimeout)
	setDefault(&o.MaxEnvelope, DefaultMaxEnvelope)
	setDefault(&o.MaxConnections, DefaultMaxConnections)
	setDefault(&o.UserAgent, "protip/"+version.Version)
	if o.Logins == nil {
		o.Logins = &Logins{}
	}
	if o.Observe == nil {
		o.Observe = func(string) {}
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// check refuses what would not work, or would send a secret readable.
func (o *Options) check(u *url.URL) error {
	plain := u.Scheme == "http"
	switch o.Auth {
	case NTLM:
	case Basic:
		if plain && !o.AllowPlainBasic {
			return errors.New("basic over plain http would send the password readable: use https or ntlm, or ask for plain basic by name")
		}
	case Kerberos:
		if plain {
			return errors.New("kerberos is not sealed here: use https, or ntlm, which seals its messages over plain http")
		}
		return o.Kerberos.check(o)
	case Certificate:
		if plain {
			return errors.New("a certificate proves nothing over plain http: use https")
		}
		if o.TLS.CertFile == "" && o.TLS.Cert == "" {
			return errors.New("a certificate and its key are needed")
		}
		return nil
	default:
		return fmt.Errorf("%q is no way to log in: ntlm, kerberos, basic or certificate", o.Auth)
	}
	if o.Username == "" || o.Password == nil {
		return errors.New("user name and password are needed")
	}
	return nil
}

// parseURL takes host, host:port or a URL; it never repeats it whole, as it may hold a password.
func parseURL(s string) (*url.URL, error) {
	if !strings.Contains(s, "://") {
		return nil, errors.New("url of a host: write https://host or http://host")
	}
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("url of a host is not a URL: write https://host or http://host")
	}
	if u.User != nil {
		return nil, fmt.Errorf("url of host %s holds a user or a password: they belong elsewhere", u.Hostname())
	}
	if u.Port() == "" {
		port := "5986"
		if u.Scheme == "http" {
			port = "5985"
		}
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/wsman"
	}
	u.RawQuery, u.Fragment = "", ""
	return u, nil
}

// Query says which instances are asked for.
type Query struct {
	Namespace string // root/virtualization/v2
	// WQL selects instances: SELECT Name, EnabledState FROM Msvm_ComputerSystem WHERE ... Empty: all of Class, whole.
	WQL         string
	Class       string
	MaxElements int // instances an answer; default DefaultMaxElements. Windows fills an answer up to the envelope's size only.
}

func (q Query) String() string {
	if q.WQL != "" {
		return q.Namespace + ": " + q.WQL
	}
	return q.Namespace + "/" + q.Class
}

// Enumerate calls each with every instance, in the host's order, from this goroutine. If each fails, the enumeration is
// given up at the host and the error returned as it is. An answer too large for the envelope is asked for again in smaller
// pieces, which is remembered. After any error the instances seen so far are not all there are.
func (c *Client) Enumerate(ctx context.Context, q Query, each func(Instance) error) error {
	e := enumeration{client: c, query: q, each: each, elements: q.MaxElements}
	setDefault(&e.elements, DefaultMaxElements)
	e.elements = c.fits.most(q.String(), e.elements)
	return e.run(ctx)
}

// All is every instance of a query.
func (c *Client) All(ctx context.Context, q Query) ([]Instance, error) {
	var all []Instance
	err := c.Enumerate(ctx, q, func(i Instance) error {
		all = append(all, i)
		return nil
	})
	return all, err
}

// Get is the one instance of a reference, or ErrNotFound.
func (c *Client) Get(ctx context.Context, ref Ref) (Instance, error) {
	m := message{operation: "Get", action: actionGet, ref: ref}
	got, err := c.one(ctx, m)
	if err != nil {
		return Instance{}, fmt.Errorf("host %s: get %s: %w", c.url.Host, ref, err)
	}
	return got, nil
}

// Invoke calls a method of an instance, or of a class if the reference has no selectors. What it returns is the method's
// output: ReturnValue and the out parameters; a ReturnValue that is not 0 is no error here. It is sent at most once: an
// error that is ErrNotSent says that the host has seen nothing of it, and after any other the method may have run.
// It is no method of Client: a linker may keep all methods of a type, and what only watches must not hold this one.
func Invoke(ctx context.Context, c *Client, ref Ref, method string, params Params) (Instance, error) {
	m := message{operation: "Invoke", action: ref.uri() + "/" + method, ref: ref, method: method, params: params, once: true}
	got, err := c.one(ctx, m)
	if err != nil {
		return Instance{}, fmt.Errorf("host %s: invoke %s.%s: %w", c.url.Host, ref.Class, method, err)
	}
	return got, nil
}

// Ask is Invoke of a method that only tells: one whose name begins with Get or Check. Like Get it may be sent again, if a
// connection died. What watches a host calls this and never Invoke, so that a program that only watches does not link what
// can change a host.
func (c *Client) Ask(ctx context.Context, ref Ref, method string, params Params) (Instance, error) {
	m := message{operation: "Invoke", action: ref.uri() + "/" + method, ref: ref, method: method, params: params}
	var got Instance
	err := errors.New("its name does not say that it only tells")
	if strings.HasPrefix(method, "Get") || strings.HasPrefix(method, "Check") {
		got, err = c.one(ctx, m)
	}
	if err != nil {
		return Instance{}, fmt.Errorf("host %s: ask %s.%s: %w", c.url.Host, ref.Class, method, err)
	}
	return got, nil
}

// one sends a message whose answer is one instance.
func (c *Client) one(ctx context.Context, m message) (Instance, error) {
	body, err := c.send(ctx, m)
	if err != nil {
		return Instance{}, err
	}
	return decodeOne(body)
}

// Close ends all connections. Calls in progress fail.
func (c *Client) Close() {
	c.pool.close()
	c.tickets.close()
}

// Host is the host and port the client speaks to.
func (c *Client) Host() string { return c.url.Host }

// Peer is the address that the last connection was made to, zero if there was none.
func (c *Client) Peer() netip.Addr {
	if addr := c.peer.Load(); addr != nil {
		return *addr
	}
	return netip.Addr{}
}

// Traffic counts messages sent, and the bytes of envelopes sent and received, sealing and HTTP not counted.
type Traffic struct{ Requests, Sent, Received uint64 }

// Traffic is what this client has sent and received so far.
func (c *Client) Traffic() Traffic {
	return Traffic{Requests: c.requests.Load(), Sent: c.sent.Load(), Received: c.received.Load()}
}

// send posts one message and gives the envelope of its answer. A fault is an error.
func (c *Client) send(ctx context.Context, m message) (string, error) {
	if err := m.check(); err != nil {
		return "", notSent(err)
	}
	m.timeout = c.opts.OperationTimeout
	if end, ok := ctx.Deadline(); ok { // the host need not work on when nobody waits
		m.timeout = max(min(m.timeout, time.Until(end)), time.Second)
	}
	envelope := m.envelope(c, c.newID())
	c.opts.Observe(m.operation)
	c.requests.Add(1)
	c.sent.Add(uint64(len(envelope)))
	ctx, cancel := context.WithTimeout(ctx, c.opts.OperationTimeout+grace)
	defer cancel()
	body, err := c.pool.post(ctx, envelope, m.once)
	if err != nil {
		return "", err
	}
	c.received.Add(uint64(len(body)))
	err = faultOf(body)
	if c.opts.Record != nil {
		c.opts.Record(Exchange{m.operation, string(envelope), body, err != nil})
	}
	if err != nil {
		return "", err
	}
	return body, nil
}
