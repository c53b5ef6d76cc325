package remote

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	promconfig "github.com/prometheus/common/config"

	"github.com/protip/protip/internal/history"
)

// client is one of a server that answers with handle.
func client(t *testing.T, handle http.HandlerFunc, edit func(*Options)) *Client {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	o := Options{URL: server.URL + "/prom/", HTTP: promconfig.DefaultHTTPClientConfig, Timeout: time.Minute, Samples: 100}
	if edit != nil {
		edit(&o)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestWhatIsSent(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		for what, got := range map[string][2]string{
			"path":    {r.URL.Path, "/prom/api/v1/query"},
			"tenant":  {r.Header.Get("X-Scope-OrgID"), "team-a"},
			"login":   {user + ":" + password, "u:hunter2"},
			"query":   {r.FormValue("query"), `up{replica="a"}`},
			"time":    {r.FormValue("time"), "1700000000.250"},
			"timeout": {r.FormValue("timeout"), "60s"},
			"method":  {r.Method, "POST"},
			"agent":   {strings.Split(r.UserAgent(), "/")[0], "protip"},
		} {
			if got[0] != got[1] {
				t.Errorf("%s is %q, want %q", what, got[0], got[1])
			}
		}
		_, _ = w.Write([]byte(`{"status":"success","data":{"resultType":"vector","result":[{"metric":{"b":"2","a":"1"},"value":[1700000000.25,"+Inf"]}]}}`))
	}, func(o *Options) {
		o.Matchers = map[string]string{"replica": "a"}
		o.HTTP.BasicAuth = &promconfig.BasicAuth{Username: "u", PasswordFile: file}
		o.HTTP.HTTPHeaders = &promconfig.Headers{Headers: map[string]promconfig.Header{"X-Scope-OrgID": {Values: []string{"team-a"}}}}
	})
	v, err := c.Query(t.Context(), "up", time.UnixMilli(1_700_000_000_250))
	if err != nil || len(v) != 1 || v[0].Value < 1e308 || v[0].Labels[0].Name != "a" || v[0].Labels.Get("b") != "2" {
		t.Errorf("%v, %v", v, err)
	}
}

func TestErrors(t *testing.T) {
	for _, tc := range []struct {
		name, body string
		code       int
		want       error // nil: neither of history's
		text       string
	}{
		{"syntax", `{"status":"error","errorType":"bad_data","error":"parse error"}`, 400, history.ErrQuery, "parse error"},
		{"execution", `{"status":"error","errorType":"execution","error":"many-to-many"}`, 422, history.ErrQuery, "many-to-many"},
		{"too many", `{"status":"error","errorType":"execution","error":"query would load too many samples"}`, 422, history.ErrTooMuch, "too many"},
		{"slow", `{"status":"error","errorType":"timeout","error":"query timed out"}`, 503, history.ErrTooMuch, "timed out"},
		{"down", `{"status":"error","errorType":"unavailable","error":"starting"}`, 503, nil, "starting"},
		{"login", `<html>Who are you?`, 401, nil, "refused our credentials"},
		{"wrong path", `404 page not found`, 404, nil, "URL may be wrong"},
		{"busy", `slow down`, 429, history.ErrTooMuch, "slow down"},
		{"proxy", `Bad Gateway`, 502, nil, "Bad Gateway"},
		{"no JSON", `hello`, 200, nil, "hello"},
		{"other JSON", `{"a":1}`, 200, nil, ""},
		{"wrong type", `{"status":"success","data":{"resultType":"matrix","result":[]}}`, 200, history.ErrQuery, "matrix"},
		{"no list", `{"status":"success","data":{"resultType":"vector","result":{}}}`, 200, nil, "no list"},
		{"no number", `{"status":"success","data":{"resultType":"vector","result":[{"value":[1,"x"]}]}}`, 200, nil, "not that of a Prometheus"},
		{"histogram", `{"status":"success","data":{"resultType":"vector","result":[{"histogram":[1,{}]}]}}`, 200, history.ErrQuery, "histogram"},
		{"long", `{"status":"success","data":{"resultType":"vector","result":[` + strings.Repeat(`{"value":[1,"1"]},`, 200) + `{"value":[1,"1"]}]}}`, 200, history.ErrTooMuch, "100 samples"},
		{"huge", `{"status":"success","data":"` + strings.Repeat("x", 100_000) + `"}`, 200, history.ErrTooMuch, "bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := client(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tc.code)
				_, _ = w.Write([]byte(tc.body))
			}, nil)
			v, err := c.Query(t.Context(), "up", time.Now())
			if err == nil || !strings.Contains(err.Error(), tc.text) {
				t.Fatalf("%v, %v", v, err)
			}
			for _, kind := range []error{history.ErrQuery, history.ErrTooMuch} {
				if errors.Is(err, kind) != (kind == tc.want) {
					t.Errorf("%v is %v: %v", err, kind, errors.Is(err, kind))
				}
			}
		})
	}
}

func TestDeadline(t *testing.T) {
	stuck := make(chan struct{})
	c := client(t, func(http.ResponseWriter, *http.Request) { <-stuck }, func(o *Options) { o.Timeout = 20 * time.Millisecond })
	defer close(stuck)
	if _, err := c.Query(t.Context(), "up", time.Now()); !errors.Is(err, history.ErrTooMuch) {
		t.Errorf("a server that does not answer: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Query(ctx, "up", time.Now()); !errors.Is(err, context.Canceled) || errors.Is(err, history.ErrTooMuch) {
		t.Errorf("canceled: %v", err)
	}
	if _, err := c.QueryRange(t.Context(), "up", history.Range{Start: time.Unix(0, 0), End: time.Unix(1e6, 0), Step: time.Second}); !errors.Is(err, history.ErrTooMuch) {
		t.Errorf("many steps: %v", err)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(`{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1,"1"]}]}}`)
	f.Add(`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,"1"]]}]}}`)
	f.Fuzz(func(t *testing.T, body string) {
		transport := answers(body)
		c, err := New(Options{URL: "http://localhost", HTTP: promconfig.DefaultHTTPClientConfig, Timeout: time.Second, Samples: 10})
		if err != nil {
			t.Fatal(err)
		}
		c.http.Transport = transport
		_, _ = c.Query(t.Context(), "up", time.Now())
		_, _ = c.QueryRange(t.Context(), "up", history.Range{Start: time.Unix(0, 0), End: time.Unix(9, 0), Step: time.Second})
	})
}

// answers is a transport that gives one answer.
type answers string

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	w.WriteString(string(a))
	res := w.Result()
	res.Request = r
	return res, nil
}
