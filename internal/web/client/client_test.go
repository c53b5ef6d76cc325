package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/protip/protip/rules"
)

// answering is a client of a server that says only this, and what it was asked.
func answering(t *testing.T, code int, body string) (*Client, *http.Request) {
	t.Helper()
	asked := &http.Request{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		*asked = *r
		asked.Body = io.NopCloser(strings.NewReader(string(text)))
		w.Header().Set("Location", "http://elsewhere.example/")
		w.WriteHeader(code)
		io.WriteString(w, body)
	}))
	t.Cleanup(srv.Close)
	c, err := New(Options{URL: srv.URL + "/protip/", Token: "s3cret\n"})
	if err != nil {
		t.Fatal(err)
	}
	return c, asked
}

func TestRequests(t *testing.T) {
	ctx := context.Background()
	for name, tc := range map[string]struct {
		call         func(*Client) error
		method, path string
		body         string
		data         string
	}{
		"tips": {
			func(c *Client) error { _, err := c.Tips(ctx, rules.Active, rules.Unknown); return err },
			"GET", "/protip/api/v1/tips?limit=0&state=active&state=unknown", "", "[]",
		},
		"tip":     {func(c *Client) error { _, err := c.Tip(ctx, "a/../b"); return err }, "GET", "/protip/api/v1/tips/a%2F..%2Fb", "", "{}"},
		"actions": {func(c *Client) error { _, err := c.Actions(ctx, "a1"); return err }, "GET", "/protip/api/v1/actions?tip=a1", "", "[]"},
		"status":  {func(c *Client) error { _, err := c.Status(ctx); return err }, "GET", "/protip/api/v1/status", "", "{}"},
		"sources": {func(c *Client) error { _, err := c.Sources(ctx); return err }, "GET", "/protip/api/v1/sources", "", "[]"},
		"reserve": {func(c *Client) error {
			_, err := c.Reserves(ctx, url.Values{"cluster": {"a b"}, "explain": {"true"}})
			return err
		}, "GET", "/protip/api/v1/reserve?cluster=a+b&explain=true", "", "[]"},
		"place new": {func(c *Client) error { _, err := c.PlaceNew(ctx, url.Values{"vcpus": {"2"}}); return err }, "GET", "/protip/api/v1/place?vcpus=2", "", "{}"},
		"place":     {func(c *Client) error { _, err := c.Place(ctx, "my vm&x=1"); return err }, "GET", "/protip/api/v1/place?vm=my+vm%26x%3D1", "", "{}"},
		"implement": {
			func(c *Client) error { _, err := c.Implement(ctx, "a1", "hot"); return err },
			"POST", "/protip/api/v1/tips/a1/implement", `{"why":"hot"}`, "[]",
		},
		"implement with downtime": {
			func(c *Client) error { _, err := c.ImplementWithDowntime(ctx, "a1", "hot"); return err },
			"POST", "/protip/api/v1/tips/a1/implement", `{"downtime":true,"why":"hot"}`, "[]",
		},
		"dismiss": {
			func(c *Client) error { _, err := c.Dismiss(ctx, "a1", "7d", ""); return err },
			"POST", "/protip/api/v1/tips/a1/dismiss", `{"for":"7d","why":""}`, "{}",
		},
		"undismiss": {
			func(c *Client) error { _, err := c.Undismiss(ctx, "a1", ""); return err },
			"POST", "/protip/api/v1/tips/a1/undismiss", `{"why":""}`, "{}",
		},
		"pause":  {func(c *Client) error { return c.Pause(ctx, "muc", "") }, "POST", "/protip/api/v1/pause", `{"source":"muc","why":""}`, ""},
		"resume": {func(c *Client) error { return c.Resume(ctx, "", "") }, "POST", "/protip/api/v1/resume", `{"source":"","why":""}`, ""},
		"reload": {func(c *Client) error { return c.Reload(ctx, "") }, "POST", "/protip/-/reload", `{"why":""}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			answer := `{"status":"success"}`
			if tc.data != "" {
				answer = `{"status":"success","data":` + tc.data + `}`
			}
			c, asked := answering(t, 200, answer)
			if err := tc.call(c); err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(asked.Body)
			if asked.Method != tc.method || asked.RequestURI != tc.path || string(body) != tc.body {
				t.Errorf("asked %s %s %s, want %s %s %s", asked.Method, asked.RequestURI, body, tc.method, tc.path, tc.body)
			}
			if got := asked.Header.Get("Authorization"); got != "Bearer s3cret" {
				t.Errorf("authorization %q", got)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	for name, tc := range map[string]struct {
		code       int
		body, want string
	}{
		"refused token":   {401, `{"status":"error","error_type":"unauthorized","error":"send it"}`, "the agent wants to know who asks: send it"},
		"no token":        {403, `{"status":"error","error_type":"forbidden","error":"put it into a file"}`, "put it into a file"},
		"conflict":        {409, `{"status":"error","error_type":"conflict","error":"paused"}`, "paused"},
		"not an agent":    {200, "<html>", "is no protip agent: HTTP 200 OK"},
		"another API":     {200, `{"ok":true}`, "is no protip agent"},
		"redirect":        {307, "", "is no protip agent: HTTP 307"},
		"data of no kind": {200, `{"status":"success","data":{"id":7}}`, "cannot unmarshal"},
		"ambiguous": {
			409, `{"status":"error","error_type":"ambiguous","error":"2 VMs are called \"db\"","data":[{"id":"muc/vm/vm-2","name":"db","host_name":"esx1"}]}`,
			"2 VMs are called \"db\"\n  muc/vm/vm-2 on esx1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := answering(t, tc.code, tc.body)
			_, err := c.Implement(context.Background(), "a1", "")
			if name == "data of no kind" {
				_, err = c.Tip(context.Background(), "a1")
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("error %v, want %s", err, tc.want)
			}
			var refusal *Error
			if errors.As(err, &refusal) && refusal.Code != tc.code {
				t.Errorf("code %d, want %d", refusal.Code, tc.code)
			}
		})
	}
}

func TestNoAgent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	c, err := New(Options{URL: "http://" + l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	want := "no agent at http://" + l.Addr().String() + ": start one with protip run"
	if _, err := c.Tips(context.Background()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestALostAnswerIsNoRefusal(t *testing.T) {
	var calls atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		calls.Add(1)
		panic(http.ErrAbortHandler)
	}))
	defer srv.Close()
	c, err := New(Options{URL: srv.URL, Token: "s3cret"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Implement(context.Background(), "a1", ""); err == nil || !strings.Contains(err.Error(), "it may have done what was asked") {
		t.Errorf("error %v", err)
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestBadURLs(t *testing.T) {
	for _, u := range []string{"", "localhost:9272", "ftp://x", "http://", "http://user:pass@host", "http://%zz"} {
		if _, err := New(Options{URL: u}); err == nil || strings.Contains(err.Error(), "pass") {
			t.Errorf("%q: %v", u, err)
		}
	}
}

func TestEvidenceStaysAbsent(t *testing.T) {
	c, _ := answering(t, 200, `{"status":"success","data":{"id":"a1","evidence":[{"name":"cpu","value":null,"unit":"ratio","at":"2026-05-04T03:00:00Z"}]}}`)
	tip, err := c.Tip(context.Background(), "a1")
	if err != nil || tip.ID != "a1" || len(tip.Evidence) != 1 || tip.Evidence[0].Value != nil {
		t.Errorf("tip %+v, %v", tip, err)
	}
	again, err := json.Marshal(tip)
	if err != nil || !strings.Contains(string(again), `"value":null`) {
		t.Errorf("written again: %s %v", again, err)
	}
}
