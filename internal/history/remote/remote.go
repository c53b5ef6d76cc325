// Package remote answers history's questions by asking a Prometheus-compatible server.
// It promises bounded answers, errors that say what the server said, and never a credential in one.
// It must not import a database: whoever is asked has one.
package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	promconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/version"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/history/promql"
)

const (
	// maxSteps is what Prometheus answers at most.
	maxSteps = 11_000
	// bytesPerSample is more than a sample and its share of labels take in an answer.
	bytesPerSample = 128
	// maxError bounds what is read of an answer that is no answer.
	maxError = 64 << 10
)

// Options say whom to ask, and how.
type Options struct {
	URL      string // what /api/v1/query is below
	HTTP     promconfig.HTTPClientConfig
	Timeout  time.Duration     // of a query
	Samples  int               // of an answer
	Matchers map[string]string // labels that every selector asks for
}

// Client asks one server. Its methods may be called from any goroutine.
type Client struct {
	o    Options
	base *url.URL
	http *http.Client
}

var _ history.Querier = (*Client)(nil)

// New is a client of a server. It asks nothing yet.
func New(o Options) (*Client, error) {
	base, err := url.Parse(o.URL)
	if err != nil {
		return nil, errors.New("history server: its URL cannot be read") // which may hold a password
	}
	client, err := promconfig.NewClientFromConfig(o.HTTP, "history", promconfig.WithUserAgent("protip/"+version.Version))
	if err != nil {
		return nil, fmt.Errorf("history server: %w", err)
	}
	return &Client{o: o, base: base, http: client}, nil
}

// Query is the value of an expression at one time.
func (c *Client) Query(ctx context.Context, expr string, at time.Time) (history.Vector, error) {
	res, err := c.ask(ctx, "query", expr, url.Values{"time": {seconds(at)}})
	if err != nil {
		return nil, err
	}
	var out history.Vector
	switch res.Type {
	case "scalar":
		var p point
		if err := json.Unmarshal(res.Result, &p); err != nil {
			return nil, c.misread(err)
		}
		return history.Vector{{Value: p.V}}, nil
	case "vector":
		err = each(res.Result, func(s series) error {
			if s.Histogram != nil {
				return fmt.Errorf("%w: its value is a histogram", history.ErrQuery)
			}
			out = append(out, history.Sample{Labels: s.labels(), Value: s.Value.V})
			return c.bounded(len(out))
		})
	default:
		err = fmt.Errorf("%w: it is a %s, and an instant vector or a scalar is wanted", history.ErrQuery, res.Type)
	}
	return out, c.named(expr, err)
}

// QueryRange is the value of an expression at each step of a range.
func (c *Client) QueryRange(ctx context.Context, expr string, r history.Range) (history.Matrix, error) {
	switch {
	case r.Step < time.Millisecond || r.End.Before(r.Start):
		return nil, fmt.Errorf("%w: the range from %s to %s by %s", history.ErrQuery, r.Start, r.End, r.Step)
	case r.End.Sub(r.Start)/r.Step >= maxSteps:
		return nil, fmt.Errorf("%w: more than %d steps: lengthen the step or shorten the range", history.ErrTooMuch, maxSteps)
	}
	res, err := c.ask(ctx, "query_range", expr, url.Values{
		"start": {seconds(r.Start)}, "end": {seconds(r.End)}, "step": {strconv.FormatFloat(r.Step.Seconds(), 'f', -1, 64)},
	})
	if err != nil {
		return nil, err
	}
	if res.Type != "matrix" {
		return nil, c.misread(fmt.Errorf("a range query gave a %s", res.Type))
	}
	var out history.Matrix
	total := 0
	err = each(res.Result, func(s series) error {
		if len(s.Histograms) > 0 {
			return fmt.Errorf("%w: its value is a histogram", history.ErrQuery)
		}
		next := history.Series{Labels: s.labels(), Points: make([]history.Point, len(s.Values))}
		for i, p := range s.Values {
			next.Points[i] = history.Point(p)
		}
		out = append(out, next)
		total += len(s.Values)
		return c.bounded(total)
	})
	return out, c.named(expr, err)
}

// seconds is a time as the API wants it.
func seconds(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1e3, 'f', 3, 64) }

func (c *Client) bounded(samples int) error {
	if samples > c.o.Samples {
		return fmt.Errorf("%w: more than %d samples", history.ErrTooMuch, c.o.Samples)
	}
	return nil
}

func (c *Client) named(expr string, err error) error {
	if err != nil {
		return fmt.Errorf("ask %s for %.200q: %w", c.base.Redacted(), expr, err)
	}
	return nil
}

func (c *Client) misread(err error) error {
	return fmt.Errorf("ask %s: the answer is not that of a Prometheus: %w", c.base.Redacted(), err)
}

// data is what a good answer holds.
type data struct {
	Type   string          `json:"resultType"`
	Result json.RawMessage `json:"result"`
}

// answer is any answer.
type answer struct {
	Status    string `json:"status"`
	Data      data   `json:"data"`
	ErrorType string `json:"errorType"`
	Error     string `json:"error"`
}

// ask sends one question. It is a POST, since an expression may be longer than servers take a URL.
func (c *Client) ask(ctx context.Context, what, expr string, form url.Values) (data, error) {
	sent, err := promql.WithMatchers(expr, c.o.Matchers)
	if err != nil {
		return data{}, c.named(expr, err)
	}
	form.Set("query", sent)
	form.Set("timeout", strconv.FormatFloat(c.o.Timeout.Seconds(), 'f', -1, 64)+"s")
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout+c.o.Timeout/10)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base.JoinPath("api/v1", what).String(), strings.NewReader(form.Encode()))
	if err != nil {
		return data{}, c.named(expr, err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := c.http.Do(req)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("%w: %w", history.ErrTooMuch, err)
		}
		return data{}, c.named(expr, err)
	}
	defer res.Body.Close()
	got, err := c.read(res)
	return got, c.named(expr, err)
}

func (c *Client) read(res *http.Response) (data, error) {
	limit := int64(maxError)
	if res.StatusCode == http.StatusOK {
		limit += int64(c.o.Samples) * bytesPerSample
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return data{}, fmt.Errorf("%w: %w", history.ErrTooMuch, err)
	case err != nil:
		return data{}, err
	case int64(len(body)) > limit && res.StatusCode == http.StatusOK:
		return data{}, fmt.Errorf("%w: an answer of more than %d bytes", history.ErrTooMuch, limit)
	}
	var a answer
	if err := json.Unmarshal(body, &a); err != nil || a.Status == "" {
		return data{}, stranger(res, body)
	}
	if a.Status == "success" {
		return a.Data, nil
	}
	return data{}, refusal(a, res.Status)
}

// refusal is a server's error as history's.
func refusal(a answer, status string) error {
	kind := error(nil)
	switch a.ErrorType {
	case "bad_data":
		kind = history.ErrQuery
	case "timeout":
		kind = history.ErrTooMuch
	case "execution":
		kind = history.ErrQuery
		if strings.Contains(a.Error, "too many") || strings.Contains(a.Error, "limit") {
			kind = history.ErrTooMuch
		}
	default:
		return fmt.Errorf("it answered %s: %s", status, a.Error)
	}
	return fmt.Errorf("%w: %s", kind, a.Error)
}

// stranger is an answer that no Prometheus gives: that of a proxy before it, most often.
func stranger(res *http.Response, body []byte) error {
	text := strings.Join(strings.Fields(string(body[:min(len(body), 200)])), " ")
	switch res.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("it refused our credentials: %s %q", res.Status, text)
	case http.StatusNotFound:
		return fmt.Errorf("it has no such API, so the URL may be wrong: %s %q", res.Status, text)
	case http.StatusTooManyRequests:
		return fmt.Errorf("%w: it answered %s %q", history.ErrTooMuch, res.Status, text)
	}
	return fmt.Errorf("it answered %s %q", res.Status, text)
}

// series is one series of an answer.
type series struct {
	Metric     map[string]string `json:"metric"`
	Value      point             `json:"value"`
	Values     []point           `json:"values"`
	Histogram  json.RawMessage   `json:"histogram"`
	Histograms []json.RawMessage `json:"histograms"`
}

func (s series) labels() history.Labels {
	if len(s.Metric) == 0 {
		return nil
	}
	out := make(history.Labels, 0, len(s.Metric))
	for _, name := range slices.Sorted(maps.Keys(s.Metric)) {
		out = append(out, history.Label{Name: name, Value: s.Metric[name]})
	}
	return out
}

// each decodes a list one by one, so that no more than wanted of it is ever held.
func each(list json.RawMessage, do func(series) error) error {
	dec := json.NewDecoder(bytes.NewReader(list))
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return errors.New("the answer is not that of a Prometheus: its result is no list")
	}
	for dec.More() {
		var s series
		if err := dec.Decode(&s); err != nil {
			return fmt.Errorf("the answer is not that of a Prometheus: %w", err)
		}
		if err := do(s); err != nil {
			return err
		}
	}
	return nil
}

// point is a time in seconds and a value in quotes.
type point history.Point

// UnmarshalJSON reads [1700000000.123, "0.5"].
func (p *point) UnmarshalJSON(b []byte) error {
	var raw [2]json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	var text string
	if err := json.Unmarshal(raw[1], &text); err != nil {
		return err
	}
	t, err := strconv.ParseFloat(string(raw[0]), 64)
	if err != nil {
		return fmt.Errorf("time %.40q: %w", raw[0], err)
	}
	if p.V, err = strconv.ParseFloat(text, 64); err != nil {
		return fmt.Errorf("value %.40q: %w", text, err)
	}
	p.T = int64(t*1000 + 0.5)
	return nil
}
