package winrm

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"time"
)

const soapType = "application/soap+xml;charset=UTF-8"

// maxHead bounds the head of an answer, and what sealing adds to its body.
const maxHead = 64 << 10

// conn is one connection to the host. net/http's client is not used for it: it picks connections by itself, and here a
// login belongs to the connection it was made on.
type conn struct {
	client *Client
	raw    net.Conn
	in     *limited
	buf    *bufio.Reader
	tls    *tls.ConnectionState // nil on plain HTTP

	// What the login left: a header of each request, nil for none, and the sealing of each message, nil for none.
	authorize func(context.Context) (string, error)
	sealing   *sealing
	leave     func(error) // hears of the first answer, nil if the log-in knows already

	used  time.Time
	dead  bool // not to be used again
	stale bool // dead before it answered, or logged out: the same message may be sent over another one
	fresh bool // nothing was posted over it yet
}

func newConn(client *Client, raw net.Conn) *conn {
	c := &conn{client: client, fresh: true}
	c.attach(raw)
	return c
}

func (c *conn) attach(raw net.Conn) {
	c.raw, c.in = raw, &limited{r: raw}
	c.buf = bufio.NewReaderSize(c.in, 16<<10)
}

func (c *conn) encrypt(ctx context.Context, config *tls.Config) error {
	t := tls.Client(c.raw, config)
	if err := t.HandshakeContext(ctx); err != nil {
		return err
	}
	state := t.ConnectionState()
	c.tls = &state
	c.attach(t)
	return nil
}

func (c *conn) close() { _ = c.raw.Close() }

// post sends an envelope as the login demands, and gives the answer's envelope.
func (c *conn) post(ctx context.Context, envelope []byte) (string, error) {
	kept := !c.fresh
	c.fresh = false
	header, body := http.Header{}, envelope
	header.Set("Content-Type", soapType)
	if c.authorize != nil {
		value, err := c.authorize(ctx)
		if err != nil {
			c.dead = true
			return "", notSent(err)
		}
		header.Set("Authorization", value)
	}
	if c.sealing != nil {
		sealed, err := c.sealing.seal(envelope)
		if err != nil {
			c.dead = true
			return "", notSent(err)
		}
		header.Set("Content-Type", c.sealing.contentType())
		body = sealed
	}
	res, err := c.roundTrip(ctx, header, body)
	if err == nil && res.status == http.StatusUnauthorized {
		err = &refusal{c.client.opts.Username}
	}
	if c.leave != nil {
		c.leave(err)
		c.leave = nil
	}
	if err != nil {
		c.dead, c.stale = true, kept && (isRefusal(err) || !c.in.any)
		return "", err
	}
	return c.opened(res)
}

// opened is the envelope of an answer, out of its seal.
func (c *conn) opened(res *response) (string, error) {
	if res.status == http.StatusForbidden {
		return "", fmt.Errorf("http status 403: %w", ErrAccessDenied)
	}
	kind, _, _ := mime.ParseMediaType(res.contentType)
	sealed := kind == "multipart/encrypted" || kind == "multipart/x-multi-encrypted"
	if c.sealing != nil && (sealed || res.status == http.StatusOK) {
		body, err := c.sealing.open(res.body, c.client.limit())
		if err != nil {
			c.dead = true // the seals' numbers are out of step
			return "", fmt.Errorf("answer's seal: %w", err)
		}
		return string(body), nil
	}
	if c.sealing == nil && kind == "application/soap+xml" && (res.status == http.StatusOK || res.status >= 400) {
		return string(res.body), nil
	}
	c.dead = true
	return "", fmt.Errorf("http status %d, %s: %w", res.status, shown(res.contentType), ErrUnavailable)
}

// limit is the largest envelope that is read. The host was told MaxEnvelope, counts differently from version to version,
// and honours it in its own way.
func (c *Client) limit() int { return 2*c.opts.MaxEnvelope + maxHead }

type response struct {
	status       int
	contentType  string
	authenticate []string
	body         []byte
}

// roundTrip makes one HTTP request. After an error the connection is dead.
func (c *conn) roundTrip(ctx context.Context, header http.Header, body []byte) (res *response, err error) {
	ended := context.AfterFunc(ctx, func() { _ = c.raw.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !ended() && err == nil { // the deadline is being set, or is
			c.dead = true
		}
		if err != nil {
			c.dead = true
			err = unwrapped(ctx, err)
		}
	}()
	header.Set("User-Agent", c.client.opts.UserAgent)
	req := &http.Request{
		Method: http.MethodPost, URL: c.client.url, Host: c.client.url.Host, Header: header,
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}
	if len(body) == 0 {
		req.Body = http.NoBody
	}
	c.in.reset(c.client.limit() + maxHead)
	if err := req.Write(c.raw); err != nil {
		return nil, err
	}
	answer, err := c.answer(req)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	if answer.Close {
		c.dead = true
	}
	return &response{
		status: answer.StatusCode, contentType: answer.Header.Get("Content-Type"),
		authenticate: answer.Header.Values("Www-Authenticate"), body: b,
	}, nil
}

// answer is the head of the answer, after any that only says to wait.
func (c *conn) answer(req *http.Request) (*http.Response, error) {
	for range 5 {
		answer, err := http.ReadResponse(c.buf, req)
		if err != nil || answer.StatusCode >= 200 {
			return answer, err
		}
	}
	return nil, errors.New("the host answers with nothing but heads")
}

// limited ends an answer that is larger than any honest one.
type limited struct {
	r    io.Reader
	left int
	any  bool // something of the answer came
}

func (l *limited) reset(n int) { l.left, l.any = n, false }

func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, errors.New("answer is larger than it may be")
	}
	n, err := l.r.Read(p[:min(len(p), l.left)])
	l.left -= n
	l.any = l.any || n > 0
	return n, err
}
