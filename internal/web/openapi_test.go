package web

import (
	"encoding"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/protip/protip/internal/history/api"
	"github.com/protip/protip/internal/history/promql"
	"github.com/protip/protip/internal/history/tsdb"
	"github.com/protip/protip/internal/placement"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/test/openapi"
)

// description is openapi.yaml, ready to hold the answers of routes against.
type description struct{ *openapi.Description }

func newDescription(t *testing.T) description {
	t.Helper()
	return description{openapi.New(t, []byte(openAPI))}
}

// check holds an answer against what the description says of its route, if it is one for programs.
func (d description) check(t *testing.T, r Route, w *httptest.ResponseRecorder) {
	t.Helper()
	if path := describedPath(r); path != "" && w.Code != http.StatusMethodNotAllowed {
		d.Check(t, r.Method, path, w)
	}
}

// describedPath is a route's in the description; empty if the route is not for programs.
func describedPath(r Route) string {
	switch {
	case r.Path == "/prometheus/": // others of its paths: TestPrometheusIsDescribed
		return "/prometheus/api/v1/query"
	case r.Page || !strings.HasPrefix(r.Path, "/api/") && !strings.HasPrefix(r.Path, "/prometheus/") && !strings.HasPrefix(r.Path, "/-/") && r.Path != "/metrics":
		return ""
	}
	return r.Path
}

// TestDescription: every route for programs is described, and nothing else; each schema is one.
func TestDescription(t *testing.T) {
	d := newDescription(t)
	paths, _ := d.Of("paths")
	described := map[string]bool{}
	operations := map[string]string{}
	for path, ops := range paths {
		for method, op := range ops.(map[string]any) {
			name := strings.ToUpper(method) + " " + path
			described[name] = true
			id, _ := op.(map[string]any)["operationId"].(string)
			if other := operations[id]; id == "" || other != "" {
				t.Errorf("%s and %s are both called %q", name, other, id)
			}
			operations[id] = name
		}
	}
	for _, r := range newServer(options(hotAgent(t))).routes() {
		if describedPath(r) == "" {
			continue
		}
		if !described[r.pattern()] {
			t.Errorf("%s is not described", r.pattern())
		}
		delete(described, r.pattern())
	}
	for name := range described {
		if !strings.Contains(name, " /prometheus/api/v1/") { // whose handler is another package's
			t.Errorf("%s is described, and is no route", name)
		}
	}
	schemas, _ := d.Of("components", "schemas")
	for _, name := range slices.Sorted(maps.Keys(schemas)) {
		if _, err := d.Compile("components", "schemas", name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(schemas) < 30 {
		t.Error(fmt.Sprint(len(schemas), " schemas"))
	}
}

// TestFieldsAreDescribed: what a type shows in JSON is in its schema, and nothing else is; so is what it must show.
func TestFieldsAreDescribed(t *testing.T) {
	d := newDescription(t)
	seen := map[reflect.Type]bool{}
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			walk(typ.Elem())
			return
		case reflect.Struct:
		default:
			return
		}
		if seen[typ] || typ.Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
			return
		}
		seen[typ] = true
		fields := jsonFields(typ)
		schema, _ := d.Of("components", "schemas", typ.Name())
		properties, _ := schema["properties"].(map[string]any)
		required := fmt.Sprint(schema["required"])
		for name, f := range fields {
			if properties[name] == nil {
				t.Errorf("openapi.yaml: components.schemas.%s.properties has no %s, which %s shows", typ.Name(), name, typ)
			}
			must := !strings.Contains(f.Tag.Get("json"), ",omit")
			if is := slices.Contains(strings.Fields(strings.Trim(required, "[]")), name); is != must {
				t.Errorf("openapi.yaml: components.schemas.%s: %s is required: %v, %s always shows it: %v", typ.Name(), name, is, typ, must)
			}
			walk(f.Type)
		}
		for name := range properties {
			if _, ok := fields[name]; !ok {
				t.Errorf("openapi.yaml: components.schemas.%s.properties has %s, which %s does not show", typ.Name(), name, typ)
			}
		}
	}
	for _, typ := range []reflect.Type{
		reflect.TypeFor[Status](), reflect.TypeFor[Source](), reflect.TypeFor[Cluster](), reflect.TypeFor[Host](), reflect.TypeFor[VM](),
		reflect.TypeFor[Placement](), reflect.TypeFor[Reserve](), reflect.TypeFor[Tip](), reflect.TypeFor[remediation.Action](), reflect.TypeFor[Pack](),
		reflect.TypeFor[AuditEntry](), reflect.TypeFor[Proposal](),
	} {
		walk(typ)
	}
}

// jsonFields are a struct's fields by their names in JSON; an embedded struct's are its own, unless it has one of that name.
func jsonFields(typ reflect.Type) map[string]reflect.StructField {
	out := map[string]reflect.StructField{}
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		embedded := f.Type
		if embedded.Kind() == reflect.Pointer {
			embedded = embedded.Elem()
		}
		switch {
		case f.Anonymous && name == "":
			for name, inner := range jsonFields(embedded) {
				if _, ok := out[name]; !ok {
					out[name] = inner
				}
			}
		case f.IsExported() && name != "" && name != "-":
			out[name] = f
		}
	}
	if typ == reflect.TypeFor[Tip]() {
		delete(out, "previous") // see seen
	}
	return out
}

// TestPrometheusIsDescribed asks what is described of Prometheus' API of its handler, over a real store.
func TestPrometheusIsDescribed(t *testing.T) {
	kept, err := tsdb.Open(tsdb.Options{
		Dir: t.TempDir(), Retention: 24 * time.Hour, RollupRetention: 24 * time.Hour, Limits: promql.DefaultLimits(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	o := options(hotAgent(t))
	o.Prometheus = api.New(api.Options{Engine: kept.Engine, Storage: kept, Now: time.Now})
	h, d := New(o), newDescription(t)
	paths, _ := d.Of("paths")
	for path, ops := range paths {
		for method := range ops.(map[string]any) {
			if !strings.HasPrefix(path, "/prometheus/") {
				continue
			}
			for _, q := range []string{"query=1&start=1&end=2&step=1&match[]=up", "query=(&start=x"} {
				r := Route{Method: strings.ToUpper(method), Path: path}
				w := do(h, r.Method, strings.Replace(path, "{name}", "job", 1)+"?"+q, "")
				if d.check(t, r, w); w.Code != 200 && w.Code != 400 {
					t.Errorf("%s?%s: %d %s", r.pattern(), q, w.Code, w.Body)
				}
			}
			if !d.Answered(strings.ToUpper(method), path, 200) {
				t.Errorf("%s %s: no right answer", method, path)
			}
		}
	}
}

// TestRefusalsAreDescribed holds what is answered to wrong questions, and to right ones at the wrong time, against the description.
func TestRefusalsAreDescribed(t *testing.T) {
	d := newDescription(t)
	agent := hotAgent(t)
	agent.actions = append(agent.actions, remediation.Action{
		ID: "act-0", Kind: remediation.WebhookCall, VM: muc("host", "host-1"), VMName: "esx1.example", Webhook: "pager", State: remediation.Done, By: "automatic",
	})
	agent.reserves = []Reserve{
		{Admission: threeHosts(agent, 1).Answer(nil), Source: "muc", Asked: "configuration", Platform: placement.Second{Rule: "none"}},
		{Admission: threeHosts(agent, 2).Answer(nil), Source: "muc", Asked: "platform", Platform: placement.Second{Rule: "none"}, Differs: "it counts slots"},
	}
	open := options(agent)
	broken := options(failing{agent, errors.New("disk full")})
	busy := options(failing{agent, fmt.Errorf("journal: %w", ErrUnavailable)})
	elsewhere := options(agent)
	elsewhere.LoopbackOnly = true
	pattern := func(path string) Route { return Route{Method: "GET", Path: path} }
	for _, tc := range []struct {
		route  Route
		o      Options
		target string
		code   int
	}{
		{pattern("/api/v1/tips/{id}"), open, "/api/v1/tips/nobody", 404},
		{pattern("/api/v1/place"), open, "/api/v1/place?vm=db", 409},
		{pattern("/api/v1/place"), open, "/api/v1/place?vm=nobody", 404},
		{pattern("/api/v1/reports/{name}"), open, "/api/v1/reports/weather", 404},
		{pattern("/api/v1/reserve"), open, "/api/v1/reserve?explain=true", 200},
		{pattern("/api/v1/actions"), open, "/api/v1/actions?limit=1", 200},
		{pattern("/api/v1/actions"), open, "/api/v1/actions", 200},
		{Route{Method: "POST", Path: "/api/v1/tips/{id}/implement"}, open, "/api/v1/tips/d4e5f6/implement", 409},
		{Route{Method: "POST", Path: "/api/v1/tips/{id}/implement"}, open, "/api/v1/tips/nobody/implement", 404},
		{pattern("/api/v1/tips"), broken, "/api/v1/tips", 500},
		{pattern("/api/v1/status"), busy, "/api/v1/status", 503},
	} {
		w := do(New(tc.o), tc.route.Method, tc.target, "", bearer(token))
		if d.check(t, tc.route, w); w.Code != tc.code {
			t.Errorf("%s: %d, want %d %s", tc.target, w.Code, tc.code, w.Body)
		}
	}
	for _, r := range newServer(open).routes() {
		if r.Method != "GET" || describedPath(r) == "" {
			continue
		}
		target := routeCases[r.pattern()].Target
		w := do(New(elsewhere), r.Method, target, "", func(r *http.Request) { r.Host = "rebound.example" })
		if d.check(t, r, w); w.Code != 421 {
			t.Errorf("%s by another name: %d", target, w.Code)
		}
		if r.Needs == None || r.Path == "/metrics" {
			continue
		}
		path, _, _ := strings.Cut(target, "?")
		w = do(New(open), r.Method, path+"?typo=1", "")
		if d.check(t, r, w); w.Code != 400 {
			t.Errorf("%s?typo=1: %d", path, w.Code)
		}
		guessed := New(closed(t, agent))
		for range 10 {
			do(guessed, r.Method, target, "", bearer("guess"))
		}
		w = do(guessed, r.Method, target, "", bearer("guess"))
		if d.check(t, r, w); w.Code != 429 {
			t.Errorf("%s after guesses: %d", target, w.Code)
		}
	}
}
