package vsphere

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// restAPI is a REST API of one category and some tags, all attached to vm-1. Each of answers, by method and path below
// /rest/com/vmware/cis/, stands in for its own.
type restAPI struct {
	tags    int
	answers map[string]http.HandlerFunc
	open    atomic.Int64 // sessions
	gets    atomic.Int64 // of names
}

func (a *restAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/rest/com/vmware/cis/")
	if f, ok := a.answers[r.Method+" "+path]; ok {
		f(w, r)
		return
	}
	value := func(v any) { _ = json.NewEncoder(w).Encode(map[string]any{"value": v}) }
	name, pass, _ := r.BasicAuth()
	switch {
	case path == "session" && r.Method == http.MethodPost:
		if name != user || pass != password {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		a.open.Add(1)
		value("the-session-id")
	case r.Header.Get("vmware-api-session-id") != "the-session-id":
		w.WriteHeader(http.StatusUnauthorized)
	case path == "session" && r.Method == http.MethodDelete:
		a.open.Add(-1)
	case path == "tagging/category":
		value([]string{"urn:c"})
	case path == "tagging/category/id:urn:c":
		value(map[string]any{"name": "env", "unknown": 1})
	case path == "tagging/tag/id:urn:c" && r.URL.Query().Get("~action") == "list-tags-for-category":
		ids := make([]string, a.tags)
		for i := range ids {
			ids[i] = fmt.Sprint("urn:t", i)
		}
		value(ids)
	case path == "tagging/tag-association" && r.URL.Query().Get("~action") == "list-attached-objects-on-tags":
		var body struct {
			IDs []string `json:"tag_ids"`
		}
		_ = json.NewDecoder(r.Body).Decode(&body)
		if len(body.IDs) > tagBatch {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		var out []any
		for _, id := range body.IDs {
			out = append(out, map[string]any{"tag_id": id, "object_ids": []any{map[string]string{"type": "VirtualMachine", "id": "vm-1"}}})
		}
		value(out)
	case strings.HasPrefix(path, "tagging/tag/id:urn:t"):
		a.gets.Add(1)
		value(map[string]string{"name": "tag " + strings.TrimPrefix(path, "tagging/tag/id:urn:t")})
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (a *restAPI) reader(t *testing.T) *Tags {
	t.Helper()
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL + "/sdk")
	if err != nil {
		t.Fatal(err)
	}
	sc := soap.NewClient(u, true)
	return NewTags(&Conn{
		Client: &vim25.Client{Client: sc}, soap: sc, transport: &http.Transport{}, secrets: []string{password},
		opts: Options{Username: user, Password: func() (string, error) { return password, nil }, Timeout: 2 * time.Second, Observe: func(string) {}},
	})
}

func TestTags(t *testing.T) {
	api := &restAPI{tags: 120}
	r := api.reader(t)
	for range 2 {
		got, err := r.Read(t.Context(), []string{"env", "never made"})
		if err != nil || len(got) != 120 {
			t.Fatalf("%d tags, %v", len(got), err)
		}
		want := Tag{Category: "env", Name: "tag 7", Objects: []types.ManagedObjectReference{{Type: "VirtualMachine", Value: "vm-1"}}}
		if !reflect.DeepEqual(got[7], want) {
			t.Errorf("%+v, want %+v", got[7], want)
		}
	}
	if got, err := r.Read(t.Context(), []string{"other"}); err != nil || len(got) != 0 {
		t.Errorf("tags of no category: %v, %v", got, err)
	}
	if n := api.gets.Load(); n != 120 {
		t.Errorf("%d names asked for, want each once", n)
	}
	if n := api.open.Load(); n != 0 {
		t.Errorf("%d sessions left open", n)
	}
}

func TestManyTagsAreReadInGoes(t *testing.T) {
	api := &restAPI{tags: maxLookUps + 10}
	r := api.reader(t)
	if got, err := r.Read(t.Context(), []string{"env"}); err == nil || got != nil {
		t.Errorf("%d tags, %v", len(got), err)
	}
	if n := api.gets.Load(); n >= maxLookUps {
		t.Errorf("%d names asked for at once", n)
	}
	if got, err := r.Read(t.Context(), []string{"env"}); err != nil || len(got) != maxLookUps+10 {
		t.Errorf("%d tags in the second go, %v", len(got), err)
	}
}

func TestTagsFail(t *testing.T) {
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	say := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) }
	}
	for _, tt := range []struct {
		name, call string
		answer     http.HandlerFunc
		want       string // in the error; empty: none
		tags       int
	}{
		{"refused", "POST session", status(401), "session.create: HTTP status 401", 0},
		{"no such API", "POST session", status(404), "session.create: not found", 0},
		{"sent elsewhere", "POST session", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+user+":"+url.QueryEscape(password)+"@elsewhere.invalid/", http.StatusTemporaryRedirect)
		}, "redirected", 0},
		{"busy", "GET tagging/category", status(503), "tagging.category.list: HTTP status 503", 0},
		{"no JSON", "GET tagging/category", say("<html>"), "tagging.category.list: invalid character", 0},
		{"cut off", "GET tagging/category", say(`{"value":["urn:c"`), "tagging.category.list: unexpected EOF", 0},
		{"of another type", "GET tagging/category", say(`{"value":{"a":1}}`), "cannot unmarshal object", 0},
		{"null", "GET tagging/category", say(`null`), "", 0},
		{"no answer in time", "GET tagging/category", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "deadline", 0},
		{"a category is gone", "GET tagging/category/id:urn:c", status(404), "", 0},
		{"a tag is gone", "GET tagging/tag/id:urn:t1", status(404), "", 2},
		{"the tags' list is gone", "POST tagging/tag/id:urn:c", status(404), "", 0},
		{"tags without names", "GET tagging/tag/id:urn:t1", say(`{"value":{}}`), "", 2},
		{"the end fails", "DELETE session", status(500), "", 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			api := &restAPI{tags: 3, answers: map[string]http.HandlerFunc{tt.call: tt.answer}}
			got, err := api.reader(t).Read(t.Context(), []string{"env"})
			if len(got) != tt.tags || (err == nil) != (tt.want == "") {
				t.Fatalf("%d tags, %v", len(got), err)
			}
			if err != nil && (!strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), password) || strings.Contains(err.Error(), "the-session-id")) {
				t.Errorf("says %q, want %q and no secret", err, tt.want)
			}
			if n := api.open.Load(); n != 0 && tt.call != "DELETE session" {
				t.Errorf("%d sessions left open", n)
			}
		})
	}
	r := (&restAPI{}).reader(t)
	r.conn.opts.Password = nil
	if _, err := r.Read(t.Context(), []string{"env"}); err == nil || !strings.Contains(err.Error(), "a user and a password") {
		t.Errorf("without a password: %v", err)
	}
}
