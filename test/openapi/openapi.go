// Package openapi holds answers against an OpenAPI description, in tests.
// It promises that a status, a content type or a field that is not described is an error of the test.
// It must not be imported by anything but tests.
package openapi

import (
	"bytes"
	"encoding/json"
	"io"
	"mime"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// Description is a description, ready to hold answers against.
type Description struct {
	doc     map[string]any
	schemas *jsonschema.Compiler
	seen    map[string]bool // statuses of operations that were answered
}

const address = "https://protip.example/openapi"

// New reads a description, YAML.
func New(t testing.TB, text []byte) *Description {
	t.Helper()
	var doc map[string]any
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	plain, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	schemas, err := jsonschema.UnmarshalJSON(bytes.NewReader(plain))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource(address, schemas); err != nil {
		t.Fatal(err)
	}
	return &Description{doc: doc, schemas: c, seen: map[string]bool{}}
}

// Of is what stands at a path in the description, and where that is once references are followed; nil if nothing does.
func (d *Description) Of(keys ...string) (map[string]any, []string) {
	at, where := d.doc, []string{}
	for _, key := range keys {
		next, _ := at[key].(map[string]any)
		where = append(where, key)
		if to, ok := next["$ref"].(string); ok {
			keys := strings.Split(strings.TrimPrefix(to, "#/"), "/")
			next, where = d.Of(keys...)
		}
		if next == nil {
			return nil, nil
		}
		at = next
	}
	return at, where
}

// Check holds the answer to a request against what is said of its operation, a method and a path of the description.
func (d *Description) Check(t testing.TB, method, path string, w *httptest.ResponseRecorder) {
	t.Helper()
	operation := method + " " + path
	answer, where := d.Of("paths", path, strings.ToLower(method), "responses", strconv.Itoa(w.Code))
	if answer == nil {
		t.Errorf("%s: status %d is not described", operation, w.Code)
		return
	}
	d.seen[operation+" "+strconv.Itoa(w.Code)] = true
	kind, _, err := mime.ParseMediaType(w.Header().Get("Content-Type"))
	if err != nil {
		kind = "text/plain" // of a handler that leaves it to the server
	}
	content, _ := answer["content"].(map[string]any)
	if _, ok := content[kind]; !ok {
		t.Errorf("%s: %d: content %s is not described", operation, w.Code, kind)
		return
	}
	if kind != "application/json" {
		return
	}
	schema, err := d.Compile(append(where, "content", kind, "schema")...)
	if err != nil {
		t.Errorf("%s: %v", operation, err)
		return
	}
	body, err := jsonschema.UnmarshalJSON(bytes.NewReader(w.Body.Bytes()))
	if err == nil || err == io.EOF {
		err = schema.Validate(body)
	}
	if err != nil {
		t.Errorf("%s: %d is not as described: %v\n%s", operation, w.Code, err, w.Body)
	}
}

// Answered reports whether an answer of that status was held against the description.
func (d *Description) Answered(method, path string, code int) bool {
	return d.seen[method+" "+path+" "+strconv.Itoa(code)]
}

// Compile is the schema at a path in the description.
func (d *Description) Compile(keys ...string) (*jsonschema.Schema, error) {
	escaped := make([]string, len(keys))
	for i, key := range keys {
		escaped[i] = url.PathEscape(strings.ReplaceAll(strings.ReplaceAll(key, "~", "~0"), "/", "~1"))
	}
	return d.schemas.Compile(address + "#/" + strings.Join(escaped, "/"))
}
