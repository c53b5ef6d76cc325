// Package vsphere speaks to a vCenter: session, log-in, identity, clock, and what its errors mean.
// It promises one log-in for all goroutines, a deadline on every call, and no password or cookie in any error.
// It must not import other packages of protip, nor link a method that changes anything in a vCenter.
package vsphere

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	promconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/version"
	"github.com/vmware/govmomi/vim25/soap"
)

const (
	defaultTimeout = 30 * time.Second
	logoutTimeout  = 3 * time.Second
	// holdOff is how long a refused password is not sent again. A changed one is tried at once.
	holdOff = 5 * time.Minute
)

// ErrInvalidLogin says that the vCenter refused user and password. The same ones are not sent again for five minutes,
// whoever asks: every refusal counts towards locking the account.
var ErrInvalidLogin = errors.New("user name or password refused")

// errClosed says that the session was closed while or before it was asked for.
var errClosed = errors.New("session is closed")

// Options say which vCenter, and as whom.
type Options struct {
	URL      string // https://vcenter.example.com; /sdk is added. User info in it is ignored.
	Username string
	Password func() (string, error) // called at each log-in, so that a rotated password is picked up
	// Extension, if there is one, logs in instead of Username and Password.
	Extension *Extension
	TLS       promconfig.TLSConfig // read at each log-in too
	Timeout   time.Duration        // of each call, beyond what the vCenter is asked to hold it; default 30 s

	Leftovers *Leftovers // of the Sessions before at this vCenter; nil: what could not be logged out is left to the vCenter

	UserAgent string              // default protip/VERSION
	Observe   func(method string) // hears of each call before it is made, from any goroutine; may be nil
}

// Session is one log-in at one vCenter, made anew when the vCenter forgot it. Its methods may be called from any goroutine.
type Session struct {
	opts Options
	url  *url.URL

	life context.Context // ends with Close
	end  context.CancelFunc

	mu      sync.Mutex
	closed  bool
	conn    *Conn   // nil before the first log-in
	flight  *flight // the log-in being made, nil if none
	refused refusal
}

// flight is a log-in in progress; conn and err are set when done is closed.
type flight struct {
	done chan struct{}
	conn *Conn
	err  error
}

type refusal struct {
	secret [sha256.Size]byte
	until  time.Time
	err    error
}

// New checks the options. It does not connect: Login and Do do.
func New(opts Options) (*Session, error) {
	u, err := parseURL(opts.URL)
	if err != nil {
		return nil, err
	}
	if opts.Extension == nil && (opts.Username == "" || opts.Password == nil) {
		return nil, fmt.Errorf("vcenter %s: user name and password are needed", u.Host)
	}
	if opts.Timeout <= 0 {
		opts.Timeout = defaultTimeout
	}
	if opts.UserAgent == "" {
		opts.UserAgent = "protip/" + version.Version
	}
	if opts.Observe == nil {
		opts.Observe = func(string) {}
	}
	life, end := context.WithCancel(context.Background())
	return &Session{opts: opts, url: u, life: life, end: end}, nil
}

// Do calls f with a connection that is logged in. If f fails because the vCenter does not know the session, it logs in again
// and calls f once more: f must not depend on objects of the session (views, filters), and is not called twice for any other
// reason.
func (s *Session) Do(ctx context.Context, f func(ctx context.Context, c *Conn) error) error {
	c, err := s.Login(ctx)
	if err != nil {
		return err
	}
	if err = f(ctx, c); !IsNotAuthenticated(err) {
		return err
	}
	if c, err = s.Relogin(ctx, c); err != nil {
		return err
	}
	return f(ctx, c)
}

// Login is the connection that is logged in, made if there is none yet.
func (s *Session) Login(ctx context.Context) (*Conn, error) { return s.Relogin(ctx, nil) }

// Relogin replaces a connection that the vCenter does not know any more. Whoever else holds the stale one gets the same new
// one: there is one log-in for all.
func (s *Session) Relogin(ctx context.Context, stale *Conn) (*Conn, error) {
	s.mu.Lock()
	if s.closed || s.conn != nil && s.conn != stale {
		defer s.mu.Unlock()
		if s.closed {
			return nil, errClosed
		}
		return s.conn, nil
	}
	if s.flight == nil {
		s.flight = &flight{done: make(chan struct{})}
		go s.fly(s.flight, stale)
	}
	f := s.flight
	s.mu.Unlock()

	select {
	case <-f.done:
		return f.conn, f.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fly makes the log-in f. It outlives the caller that started it, because others wait for it too, but not the session.
func (s *Session) fly(f *flight, stale *Conn) {
	conn, err := s.connect()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flight = nil
	f.conn, f.err = conn, err
	if err == nil {
		s.conn = conn
		if stale != nil {
			stale.close()
		}
	}
	close(f.done)
}

// connect makes a new connection and logs in on it.
func (s *Session) connect() (*Conn, error) {
	ctx, cancel := context.WithTimeout(s.life, s.opts.Timeout)
	defer cancel()
	secret, err := s.opts.secret()
	if err != nil {
		return nil, fmt.Errorf("vcenter %s: %w", s.url.Host, err)
	}
	sum := sha256.Sum256([]byte(secret))
	s.mu.Lock()
	held := s.refused
	s.mu.Unlock()
	if held.err != nil && held.secret == sum && time.Now().Before(held.until) {
		return nil, held.err
	}
	c, err := dial(ctx, s.url, s.opts, secret)
	if err != nil {
		return nil, err
	}
	if err := c.login(ctx, secret); err != nil {
		if errors.Is(err, ErrInvalidLogin) {
			s.mu.Lock()
			s.refused = refusal{secret: sum, until: time.Now().Add(holdOff), err: err}
			s.mu.Unlock()
		} else if c.soap.SessionCookie() != nil {
			s.opts.Leftovers.add(c)
		}
		c.close()
		return nil, err
	}
	s.opts.Leftovers.logOut(ctx)
	return c, nil
}

// Refreshed reports whether the last log-in was refused and the next one would send something else.
func (s *Session) Refreshed() bool {
	s.mu.Lock()
	refused := s.refused
	s.mu.Unlock()
	if refused.err == nil {
		return false
	}
	secret, err := s.opts.secret()
	return err == nil && sha256.Sum256([]byte(secret)) != refused.secret
}

// Close logs out, with a time-out of its own. Calls still being made on the connection fail; later ones are refused.
func (s *Session) Close() {
	s.mu.Lock()
	s.closed = true
	f := s.flight
	s.mu.Unlock()
	s.end()
	if f != nil {
		<-f.done
	}
	s.mu.Lock()
	c := s.conn
	s.conn = nil
	s.mu.Unlock()
	if c == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), logoutTimeout)
	defer cancel()
	if !c.logout(ctx) {
		s.opts.Leftovers.add(c)
	}
	c.close()
}

// parseURL takes what a person writes for a vCenter: the scheme defaults to https and the path to /sdk.
func parseURL(raw string) (*url.URL, error) {
	u, err := soap.ParseURL(raw)
	if err != nil || u == nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		// The parser's own error would repeat the URL and a password in it.
		return nil, errors.New("vcenter URL is not of the form https://host[:port]")
	}
	u.User = nil
	return u, nil
}

// newTransport is a transport whose certificates are checked by the options, and whose dials end with their context.
func newTransport(cfg *promconfig.TLSConfig) (*http.Transport, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	tlsConfig, err := promconfig.NewTLSConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("tls_config: %w", err)
	}
	t.TLSClientConfig = tlsConfig
	t.ForceAttemptHTTP2 = false
	t.MaxIdleConnsPerHost = 8
	t.ReadBufferSize, t.WriteBufferSize = 64<<10, 64<<10 // answers are large, and some requests
	return t, nil
}
