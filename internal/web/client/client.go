// Package client asks a running agent over its HTTP API, for the command line.
// It promises errors that say what to do, and that the operator's token goes to the given agent and nowhere else.
// It must not import app, store, a collector, an executor or a platform.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/protip/protip/internal/web"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

const (
	timeout   = time.Minute // longer than the agent takes for an act
	maxAnswer = 256 << 20
)

// Options say which agent, and with what right.
type Options struct {
	URL   string // http://127.0.0.1:9876; a path is a prefix
	Token string // of who may read, or act; empty reads where anybody may
	// Transport is for TLS settings of one's own; nil is Go's default.
	Transport http.RoundTripper
}

// Client asks one agent. Its methods may be called from any goroutine.
type Client struct {
	base  *url.URL
	token string
	http  *http.Client
}

// Error is the agent's refusal in its own words.
type Error struct {
	Code       int             // HTTP status
	Type       string          // the API's error_type: not_found, conflict, ambiguous, unauthorized, forbidden, ...
	Text       string          //
	Candidates []web.Candidate // the VMs a name could mean, if Type is ambiguous
}

func (e *Error) Error() string {
	if e.Type == "unauthorized" {
		return "the agent wants to know who asks: " + e.Text
	}
	var b strings.Builder
	b.WriteString(e.Text)
	for _, c := range e.Candidates {
		fmt.Fprintf(&b, "\n  %s on %s", c.ID, c.HostName)
	}
	return b.String()
}

// New checks the options. It does not connect.
func New(o Options) (*Client, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || u.User != nil {
		return nil, errors.New("the agent's URL is not of the form http://host:port")
	}
	return &Client{
		base: u, token: strings.TrimSpace(o.Token),
		http: &http.Client{
			Transport:     o.Transport,
			Timeout:       timeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Status is how the agent itself is.
func (c *Client) Status(ctx context.Context) (web.Status, error) {
	return ask[web.Status](ctx, c, "status", nil)
}

// Tips are the tips in the given states, all of them if there is none, what needs a person first.
func (c *Client) Tips(ctx context.Context, states ...rules.State) ([]web.Tip, error) {
	q := url.Values{"limit": {"0"}}
	for _, state := range states {
		q.Add("state", string(state))
	}
	return ask[[]web.Tip](ctx, c, "tips", q)
}

// Tip is one tip.
func (c *Client) Tip(ctx context.Context, id string) (web.Tip, error) {
	return ask[web.Tip](ctx, c, "tips/"+url.PathEscape(id), nil)
}

// Actions are the newest actions of one tip, or of all if it is empty.
func (c *Client) Actions(ctx context.Context, tip string) ([]remediation.Action, error) {
	q := url.Values{}
	if tip != "" {
		q.Set("tip", tip)
	}
	return ask[[]remediation.Action](ctx, c, "actions", q)
}

// Place rates the hosts for a VM, given by its name or its ID. A name that several VMs have is an *Error with Candidates.
func (c *Client) Place(ctx context.Context, vm string) (web.Placement, error) {
	return ask[web.Placement](ctx, c, "place", url.Values{"vm": {vm}})
}

// PlaceNew rates the hosts for a VM that does not exist yet, described by the route's parameters.
func (c *Client) PlaceNew(ctx context.Context, vm url.Values) (web.Placement, error) {
	return ask[web.Placement](ctx, c, "place", vm)
}

// Reserves tell what clusters can bear to lose; the parameters are the route's.
func (c *Client) Reserves(ctx context.Context, q url.Values) ([]web.Reserve, error) {
	return ask[[]web.Reserve](ctx, c, "reserve", q)
}

// Sources are the agent's sources.
func (c *Client) Sources(ctx context.Context) ([]web.Source, error) {
	return ask[[]web.Source](ctx, c, "sources", nil)
}

// Implement has the agent carry out a tip's remedy and returns the actions it planned, without waiting for them.
func (c *Client) Implement(ctx context.Context, tip, why string) ([]remediation.Action, error) {
	return act[[]remediation.Action](ctx, c, "/api/v1/tips/"+url.PathEscape(tip)+"/implement", map[string]any{"why": why})
}

// ImplementWithDowntime is Implement where VMs may be taken down that cannot be moved live.
func (c *Client) ImplementWithDowntime(ctx context.Context, tip, why string) ([]remediation.Action, error) {
	return act[[]remediation.Action](ctx, c, "/api/v1/tips/"+url.PathEscape(tip)+"/implement", map[string]any{"why": why, "downtime": true})
}

// Cancel stops an action, or has the platform asked to; it does not wait for the end.
func (c *Client) Cancel(ctx context.Context, action, why string) (remediation.Action, error) {
	return act[remediation.Action](ctx, c, "/api/v1/actions/"+url.PathEscape(action)+"/cancel", map[string]string{"why": why})
}

// Plan is what a tip's remedy would do now.
func (c *Client) Plan(ctx context.Context, tip string) (web.Proposal, error) {
	return ask[web.Proposal](ctx, c, "tips/"+url.PathEscape(tip)+"/plan", nil)
}

// HostPlan is what a request would do to a host, given by its name or its ID. A name that several hosts have is an *Error with Candidates.
func (c *Client) HostPlan(ctx context.Context, what web.What, host string) (web.Proposal, error) {
	return ask[web.Proposal](ctx, c, "plan", url.Values{"what": {string(what)}, "host": {host}})
}

// ImplementHost has the agent carry a request out and returns the actions it planned, without waiting for them.
func (c *Client) ImplementHost(ctx context.Context, what web.What, host string, a web.Agreement, why string) ([]remediation.Action, error) {
	body := map[string]any{"what": what, "host": host, "plan": a.Plan, "downtime": a.Downtime, "why": why}
	return act[[]remediation.Action](ctx, c, "/api/v1/plan/implement", body)
}

// Resolve ends an unknown action by a person's word: done or failed.
func (c *Client) Resolve(ctx context.Context, action string, as remediation.State, why string) (remediation.Action, error) {
	body := map[string]string{"as": string(as), "why": why}
	return act[remediation.Action](ctx, c, "/api/v1/actions/"+url.PathEscape(action)+"/resolve", body)
}

// Dismiss hides a tip for a time such as 24h or 7d.
func (c *Client) Dismiss(ctx context.Context, tip, d, why string) (web.Tip, error) {
	return act[web.Tip](ctx, c, "/api/v1/tips/"+url.PathEscape(tip)+"/dismiss", map[string]string{"for": d, "why": why})
}

// Undismiss shows a dismissed tip again.
func (c *Client) Undismiss(ctx context.Context, tip, why string) (web.Tip, error) {
	return act[web.Tip](ctx, c, "/api/v1/tips/"+url.PathEscape(tip)+"/undismiss", map[string]string{"why": why})
}

// Pause stops acting on a source, or on all if it is empty.
func (c *Client) Pause(ctx context.Context, source, why string) error {
	_, err := act[struct{}](ctx, c, "/api/v1/pause", map[string]string{"source": source, "why": why})
	return err
}

// Resume lifts the pause of a source, or every pause if it is empty.
func (c *Client) Resume(ctx context.Context, source, why string) error {
	_, err := act[struct{}](ctx, c, "/api/v1/resume", map[string]string{"source": source, "why": why})
	return err
}

// Reload has the agent read its config again.
func (c *Client) Reload(ctx context.Context, why string) error {
	_, err := act[struct{}](ctx, c, "/-/reload", map[string]string{"why": why})
	return err
}

func ask[T any](ctx context.Context, c *Client, route string, q url.Values) (T, error) {
	return send[T](ctx, c, http.MethodGet, "/api/v1/"+route, q, nil)
}

func act[T any](ctx context.Context, c *Client, path string, body any) (T, error) {
	b, err := json.Marshal(body)
	if err != nil {
		var none T
		return none, err
	}
	return send[T](ctx, c, http.MethodPost, path, nil, b)
}

// send makes one request and decodes the answer's data. It never asks twice.
func send[T any](ctx context.Context, c *Client, method, path string, q url.Values, body []byte) (data T, err error) {
	// The path is joined as text, because escaped slashes in it must stay escaped.
	target := strings.TrimSuffix(c.base.Scheme+"://"+c.base.Host+c.base.EscapedPath(), "/") + path
	if len(q) > 0 {
		target += "?" + q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return data, err
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return data, c.unreachable(method, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return data, c.unreachable(method, err)
	}
	var answer struct {
		Status    string          `json:"status"`
		Data      json.RawMessage `json:"data"`
		ErrorType string          `json:"error_type"`
		Error     string          `json:"error"`
	}
	if err := json.Unmarshal(text, &answer); err != nil || (answer.Status != "success" && answer.Status != "error") {
		return data, fmt.Errorf("what answers at %s is no protip agent: HTTP %s", c.base, res.Status)
	}
	if answer.Status == "error" || res.StatusCode/100 != 2 {
		e := &Error{Code: res.StatusCode, Type: answer.ErrorType, Text: answer.Error}
		if e.Type == "ambiguous" {
			_ = json.Unmarshal(answer.Data, &e.Candidates) // the text alone will do
		}
		return data, e
	}
	if len(answer.Data) == 0 {
		return data, nil
	}
	if err := json.Unmarshal(answer.Data, &data); err != nil {
		return data, fmt.Errorf("answer of the agent at %s: %w", c.base, err)
	}
	return data, nil
}

// unreachable says why there was no answer, and what that means for what was asked.
func (c *Client) unreachable(method string, err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return fmt.Errorf("no agent at %s: start one with protip run (%w)", c.base, op.Err)
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	if method == http.MethodPost {
		return fmt.Errorf("the answer of the agent at %s was lost: it may have done what was asked (%w)", c.base, err)
	}
	return fmt.Errorf("no answer from the agent at %s: %w", c.base, err)
}
