package vsphere

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
)

// apiVersion is the version of the API that protip speaks. Every vCenter since 6.5 does, and answers in its types; a vCenter
// refuses a version newer than itself.
const apiVersion = "6.5"

// maxAnswer bounds one answer of a vCenter. 100,000 values of counters take about 8 MB.
const maxAnswer = 256 << 20

// Conn is a connection that is logged in. It is a soap.RoundTripper for vim25/methods: each call gets a deadline, its context's if that is sooner, and each
// error names the vCenter and the method and holds no secret.
type Conn struct {
	*vim25.Client

	soap      *soap.Client
	transport *http.Transport
	opts      Options
	secrets   []string
}

// dial connects and asks the vCenter who it is.
func dial(ctx context.Context, u *url.URL, opts Options, password string) (*Conn, error) {
	transport, err := newTransport(&opts.TLS)
	if err != nil {
		return nil, fmt.Errorf("vcenter %s: %w", u.Host, err)
	}
	sc := soap.NewClient(u, false)
	sc.Transport = bounded{transport}
	sc.CheckRedirect = func(*http.Request, []*http.Request) error {
		return errors.New("redirected: the URL in the config must be the vCenter's own") // and not carry the password elsewhere
	}
	sc.Namespace, sc.Version, sc.UserAgent = "urn:"+vim25.Namespace, apiVersion, opts.UserAgent
	c := &Conn{soap: sc, transport: transport, opts: opts}
	if password != "" {
		c.secrets = []string{password}
	}
	c.Client = &vim25.Client{Client: sc, RoundTripper: c}
	if c.ServiceContent, err = methods.GetServiceContent(ctx, c); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// InstanceUUID is the vCenter's own identity.
func (c *Conn) InstanceUUID() string { return c.ServiceContent.About.InstanceUuid }

// APIVersion is the version of the API the vCenter has, such as 8.0.3.0.
func (c *Conn) APIVersion() string { return c.ServiceContent.About.ApiVersion }

// Skew measures what must be added to the vCenter's times to have now's. It is as exact as half the round trip.
func (c *Conn) Skew(ctx context.Context, now func() time.Time) (time.Duration, error) {
	before := now()
	theirs, err := methods.GetCurrentTime(ctx, c)
	if err != nil {
		return 0, err
	}
	after := now()
	return before.Add(after.Sub(before) / 2).Sub(*theirs), nil
}

// RoundTrip makes one call.
func (c *Conn) RoundTrip(ctx context.Context, req, res soap.HasFault) error {
	method := strings.TrimSuffix(reflect.TypeOf(req).Elem().Name(), "Body")
	return c.guard(ctx, method, 0, func(ctx context.Context) error {
		if err := c.soap.RoundTrip(ctx, req, res); err != nil {
			return err
		}
		// vim25/methods would follow a nil Res.
		if answer := reflect.ValueOf(res).Elem().FieldByName("Res"); answer.IsValid() && answer.IsNil() {
			return errors.New("empty answer")
		}
		return nil
	})
}

// guard makes a call within its time, held being what it has beyond the session's. A decoder that panics on a hostile answer is an
// error of this call.
func (c *Conn) guard(ctx context.Context, method string, held time.Duration, call func(context.Context) error) (err error) {
	c.opts.Observe(method)
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout+held)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in the answer's decoder: %v", p)
		}
		if err != nil {
			err = c.wrap(method, err)
		}
	}()
	return call(ctx)
}

// wrap names vCenter and method, and takes the password and the session's cookie out of the text.
func (c *Conn) wrap(method string, err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // the rest of its text is the URL again
	}
	text := fmt.Sprintf("vcenter %s: %s: %v", c.URL().Host, method, err)
	secrets := c.secrets
	if cookie := c.soap.SessionCookie(); cookie != nil && cookie.Value != "" {
		secrets = append(secrets[:len(secrets):len(secrets)], strings.Trim(cookie.Value, `"`))
	}
	for _, secret := range secrets {
		text = strings.ReplaceAll(text, secret, "<secret>")
	}
	return &callError{text: text, err: err}
}

func (c *Conn) close() { c.transport.CloseIdleConnections() }

// callError is the error of one call. Its text is safe to show; what it wraps may not be, and is for errors.As only.
type callError struct {
	text string
	err  error
}

func (e *callError) Error() string { return e.text }
func (e *callError) Unwrap() error { return e.err }

// bounded ends an answer that is larger than any honest one.
type bounded struct{ next *http.Transport }

func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := b.next.RoundTrip(req)
	if err == nil {
		res.Body = &boundedBody{ReadCloser: res.Body, left: maxAnswer}
	}
	return res, err
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("answer is larger than %d bytes", maxAnswer)
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
