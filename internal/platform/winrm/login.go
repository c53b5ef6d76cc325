package winrm

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// holdOff is how long a refused password is not sent again at first; each time that it is refused again it is twice as long, up
	// to longestHoldOff. A changed one is tried at once.
	holdOff        = 5 * time.Minute
	longestHoldOff = time.Hour
	// defaultPatience is how long a password that nobody has accepted yet is tried at one host only, before another one is tried
	// that does not wait for that host any more.
	defaultPatience = 2 * time.Second
	// acceptance is how long a password that one host has accepted is tried at the others all at once: later it may have expired.
	acceptance = 2 * time.Second
)

// mutual is what a client says that proves itself with its certificate.
const mutual = "http://schemas.dmtf.org/wbem/wsman/1/wsman/secprofile/https/mutual"

// login logs the connection in. No secret is sent in any way that a listener on a plain connection could read, unless
// AllowPlainBasic says so.
func (c *Client) login(ctx context.Context, on *conn) error {
	switch c.opts.Auth {
	case Certificate:
		on.authorize = func(context.Context) (string, error) { return mutual, nil }
		return nil
	case Kerberos:
		on.authorize = func(ctx context.Context) (string, error) { return c.tickets.proof(ctx, c) }
		return nil
	}
	password, err := c.opts.Password()
	if err != nil {
		return err
	}
	leave, err := c.opts.Logins.enter(ctx, c.key(password))
	if err != nil {
		return err
	}
	if c.opts.Auth == Basic {
		on.leave = leave // the first answer tells whether it is accepted
		header := "Basic " + base64.StdEncoding.EncodeToString([]byte(c.opts.Username+":"+password))
		on.authorize = func(context.Context) (string, error) { return header, nil }
		return nil
	}
	err = on.loginNTLM(ctx, password)
	leave(err)
	return err
}

// Refused reports whether the password, as it is now, is one that was refused a short while ago. It sends nothing.
func (c *Client) Refused() bool {
	if c.opts.Password == nil {
		return false
	}
	password, err := c.opts.Password()
	if err != nil {
		return false
	}
	_, refused := c.opts.Logins.held(c.key(password))
	return refused
}

// Refreshed reports whether no host's password, as it is now, is one that was refused a short while ago: after a refusal, that somebody has
// changed it. It sends nothing.
func Refreshed(hosts []Options) bool {
	for _, o := range hosts {
		client, err := New(o)
		if err != nil || o.Password == nil || client.Refused() {
			return false
		}
		client.Close()
	}
	return true
}

// key stands for what is sent to prove who the client is. A local account is another one at every host.
func (c *Client) key(password string) secret {
	where := ""
	if !strings.ContainsAny(c.opts.Username, `\@`) || strings.HasPrefix(c.opts.Username, `.\`) {
		where = c.url.Host
	}
	return sha256.Sum256([]byte(where + "\x00" + c.opts.Username + "\x00" + password))
}

type secret [sha256.Size]byte

// Logins remembers what became of an account's passwords, for all clients that use it: a wrong one is tried at one host,
// not at sixteen, which would lock the account. The zero value is ready; its methods may be called from any goroutine.
type Logins struct {
	patience time.Duration // default defaultPatience

	mu       sync.Mutex
	accepted secret
	when     time.Time // it was
	refused  map[secret]hold
	trying   chan struct{} // closed when the lone attempt is over, nil if there is none
}

// hold is how long a secret is not sent.
type hold struct {
	until time.Time
	whole time.Duration
}

// enter asks whether a secret may be tried now, and waits while another host tries one that nobody has accepted yet. leave
// says what became of it.
func (l *Logins) enter(ctx context.Context, s secret) (leave func(error), err error) {
	patience := l.patience
	setDefault(&patience, defaultPatience)
	for {
		if until, refused := l.held(s); refused {
			return nil, fmt.Errorf("the same password was refused, and is not sent again before %s: %w", until.UTC().Format(time.TimeOnly+" UTC"), ErrCredentials)
		}
		l.mu.Lock()
		accepted := l.accepted == s && time.Since(l.when) < acceptance
		if accepted || l.trying == nil {
			done := make(chan struct{})
			if !accepted {
				l.trying = done
			}
			l.mu.Unlock()
			return l.leave(s, done), nil
		}
		busy := l.trying
		l.mu.Unlock()
		if err := l.wait(ctx, busy, patience); err != nil {
			return nil, fmt.Errorf("wait for another log-in: %w", err)
		}
	}
}

// wait waits for a lone attempt. One that takes too long is not waited for any more, and makes room for one other.
func (l *Logins) wait(ctx context.Context, busy chan struct{}, patience time.Duration) error {
	enough := time.NewTimer(patience)
	defer enough.Stop()
	select {
	case <-busy:
	case <-enough.C:
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.trying == busy {
			l.trying = nil
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

func (l *Logins) leave(s secret, done chan struct{}) func(error) {
	return func(err error) {
		l.mu.Lock()
		switch {
		case err == nil:
			l.accepted, l.when = s, time.Now()
			delete(l.refused, s)
		case isRefusal(err):
			l.hold(s)
		}
		if l.trying == done {
			l.trying = nil
		}
		l.mu.Unlock()
		close(done)
	}
}

// held is until when a secret is not sent, false if it may be.
func (l *Logins) held(s secret) (until time.Time, refused bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.refused[s]
	return h.until, time.Now().Before(h.until)
}

func (l *Logins) hold(s secret) {
	if l.accepted == s {
		l.accepted = secret{}
	}
	now := time.Now()
	for old, h := range l.refused {
		if now.After(h.until.Add(longestHoldOff)) {
			delete(l.refused, old)
		}
	}
	if l.refused == nil {
		l.refused = map[secret]hold{}
	}
	was := l.refused[s]
	if now.Before(was.until) { // several were refused at the same time
		return
	}
	whole := min(max(2*was.whole, holdOff), longestHoldOff)
	l.refused[s] = hold{now.Add(whole), whole}
}

// Forget makes a refused password one that may be tried again: somebody asked for it.
func (l *Logins) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused = nil
}

// challenge is the token of an answer's Negotiate header, false if it has none.
func challenge(res *response) ([]byte, bool) {
	for _, h := range res.authenticate {
		scheme, value, _ := strings.Cut(h, " ")
		if !strings.EqualFold(scheme, "Negotiate") {
			continue
		}
		token, err := base64.StdEncoding.DecodeString(strings.TrimSpace(value))
		if err == nil && len(token) > 0 {
			return token, true
		}
	}
	return nil, false
}

// negotiate posts a token and no message.
func (c *conn) negotiate(ctx context.Context, token []byte) (*response, error) {
	header := http.Header{}
	header.Set("Content-Type", soapType)
	header.Set("Authorization", "Negotiate "+base64.StdEncoding.EncodeToString(token))
	return c.roundTrip(ctx, header, nil)
}
