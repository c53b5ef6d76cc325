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
	return err == nil && c.opts.Logins.isRefused(c.key(password))
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

	mu sync.Mutex
	by map[secret]*attempts
}

// attempts is what became of one secret.
type attempts struct {
	accepted time.Time     // when it last was
	until    time.Time     // it was refused, and is not sent before
	held     time.Duration // how long that is in all
	trying   chan struct{} // closed when the lone attempt is over, nil if there is none
}

// of is what is known of a secret. The caller holds the lock.
func (l *Logins) of(s secret) *attempts {
	if a := l.by[s]; a != nil {
		return a
	}
	if l.by == nil {
		l.by = map[secret]*attempts{}
	}
	now := time.Now()
	for old, a := range l.by { // of passwords that nobody has any more
		if a.trying == nil && now.Sub(a.accepted) > acceptance && now.Sub(a.until) > longestHoldOff {
			delete(l.by, old)
		}
	}
	l.by[s] = &attempts{}
	return l.by[s]
}

// enter asks whether a secret may be tried now, and waits while another host tries one that nobody has accepted yet. leave
// says what became of it.
func (l *Logins) enter(ctx context.Context, s secret) (leave func(error), err error) {
	patience := l.patience
	setDefault(&patience, defaultPatience)
	for {
		done, busy, err := l.try(s)
		if err != nil {
			return nil, err
		}
		if done != nil {
			return func(err error) { l.leave(s, done, err) }, nil
		}
		if err := l.wait(ctx, s, busy, patience); err != nil {
			return nil, fmt.Errorf("wait for another log-in: %w", err)
		}
	}
}

// try begins an attempt, or names the lone one that there is already.
func (l *Logins) try(s secret) (done, busy chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.of(s)
	switch lone := time.Since(a.accepted) >= acceptance; {
	case time.Now().Before(a.until):
		return nil, nil, fmt.Errorf("the same password was refused, and is not sent again before %s: %w", a.until.UTC().Format(time.TimeOnly+" UTC"), ErrCredentials)
	case lone && a.trying != nil:
		return nil, a.trying, nil
	case lone:
		a.trying = make(chan struct{})
		return a.trying, nil, nil
	}
	return make(chan struct{}), nil, nil
}

// wait waits for a lone attempt. One that takes too long is not waited for any more, and makes room for one other.
func (l *Logins) wait(ctx context.Context, s secret, busy chan struct{}, patience time.Duration) error {
	enough := time.NewTimer(patience)
	defer enough.Stop()
	select {
	case <-busy:
	case <-enough.C:
		l.mu.Lock()
		defer l.mu.Unlock()
		if a := l.of(s); a.trying == busy {
			a.trying = nil
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

func (l *Logins) leave(s secret, done chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a, now := l.of(s), time.Now()
	switch {
	case err == nil:
		a.accepted, a.held = now, 0
	case isRefusal(err) && !now.Before(a.until): // else several were refused at the same time
		a.held = min(max(2*a.held, holdOff), longestHoldOff)
		a.accepted, a.until = time.Time{}, now.Add(a.held)
	}
	if a.trying == done {
		a.trying = nil
	}
	close(done)
}

// isRefused reports whether a secret was refused and is not sent now.
func (l *Logins) isRefused(s secret) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.by[s]
	return a != nil && time.Now().Before(a.until)
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
