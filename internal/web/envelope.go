package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Envelope is the shape of every JSON answer, as Prometheus' API has it.
type Envelope struct {
	Status    string   `json:"status"` // success | error
	Data      any      `json:"data,omitempty"`
	Total     *int     `json:"total,omitempty"` // of a list of which data is a part
	Warnings  []string `json:"warnings,omitempty"`
	ErrorType string   `json:"error_type,omitempty"`
	Error     string   `json:"error,omitempty"`
}

// apiError is a refusal in words; data may help the caller to ask better.
type apiError struct {
	code int
	kind string // error_type
	text string
	data any
}

func (e *apiError) Error() string { return e.text }

func badData(format string, args ...any) *apiError {
	return &apiError{http.StatusBadRequest, "bad_data", fmt.Sprintf(format, args...), nil}
}

// part is an answer that is not the whole truth, or could be one. Total is how long the whole list is, nil if that is not known; a
// warning says what is missing.
type part struct {
	data    any
	total   *int
	warning string
}

// read is a route that changes nothing and whose answer is JSON.
func (s *server) read(answer func(r *http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := answer(r)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		s.succeed(w, r, data)
	})
}

func (s *server) succeed(w http.ResponseWriter, r *http.Request, data any) {
	e := Envelope{Status: "success", Data: data}
	if part, ok := data.(part); ok {
		e.Data, e.Total = part.data, part.total
		if part.warning != "" {
			e.Warnings = []string{part.warning}
		}
	}
	s.write(w, r, http.StatusOK, e)
}

// fail answers with the error in words.
func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	known := s.known(r, err)
	s.write(w, r, known.code, Envelope{Status: "error", ErrorType: known.kind, Error: known.text, Data: known.data})
}

// known is the error as its asker may hear it. What the agent did not foresee goes to the log, and to those who may act.
func (s *server) known(r *http.Request, err error) *apiError {
	known := classify(err)
	if known == nil {
		s.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
		known = &apiError{http.StatusInternalServerError, "internal", "internal error: see the agent's log", nil}
		if UserFrom(r.Context()).Role >= Operator {
			known.text = err.Error()
		}
	}
	return known
}

// classify is the answer to an error that is the caller's to deal with, nil for any other.
func classify(err error) *apiError {
	var refusal *apiError
	switch {
	case errors.As(err, &refusal):
		return refusal
	case errors.Is(err, ErrNotFound):
		return &apiError{http.StatusNotFound, "not_found", err.Error(), nil}
	case errors.Is(err, ErrInvalid):
		return &apiError{http.StatusBadRequest, "bad_data", err.Error(), nil}
	case errors.Is(err, ErrConflict):
		return &apiError{http.StatusConflict, "conflict", err.Error(), nil}
	case errors.Is(err, ErrUnavailable):
		return &apiError{http.StatusServiceUnavailable, "unavailable", err.Error(), nil}
	}
	return nil
}

// write encodes before it answers, so that a value JSON cannot hold is an error and not half an answer.
func (s *server) write(w http.ResponseWriter, r *http.Request, code int, e Envelope) {
	var body bytes.Buffer
	if err := json.NewEncoder(&body).Encode(e); err != nil {
		s.log.Error("answer cannot be encoded", "path", r.URL.Path, "err", err)
		code = http.StatusInternalServerError
		body.Reset()
		body.WriteString(`{"status":"error","error_type":"internal","error":"answer cannot be encoded: see the agent's log"}` + "\n")
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	w.Write(body.Bytes())
}

func plain(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	io.WriteString(w, text+"\n")
}

// asset is a file that comes with the binary.
func asset(contentType, text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Cache-Control", "max-age=3600")
		io.WriteString(w, text)
	})
}

// notServed answers what no route takes: below the API in its own shape, elsewhere with a page.
func (s *server) notServed(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var allow []string
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			other := r.Clone(r.Context())
			other.Method = method
			if _, pattern := mux.Handler(other); strings.HasPrefix(pattern, method+" ") {
				allow = append(allow, method)
			}
		}
		if len(allow) == 0 {
			s.notHere(w, r, &apiError{http.StatusNotFound, "not_found", "no such route", nil})
			return
		}
		w.Header().Set("Allow", strings.Join(allow, ", "))
		s.notHere(w, r, &apiError{http.StatusMethodNotAllowed, "method_not_allowed", "want " + strings.Join(allow, " or "), nil})
	})
}

func (s *server) notHere(w http.ResponseWriter, r *http.Request, err *apiError) {
	if strings.HasPrefix(r.URL.Path, "/api/") {
		s.fail(w, r, err)
		return
	}
	s.pageError(w, r, err)
}

// decodeStrict reads one JSON object whose every key is known. An empty body is the zero value.
func decodeStrict(body io.Reader, into any) error {
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, err = d.Token(); err == nil {
			return badData("body: more than one JSON value")
		}
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case errors.As(err, &tooLarge):
		return errTooLarge(tooLarge)
	}
	return badData("body: %s", strings.TrimPrefix(err.Error(), "json: "))
}

func errTooLarge(e *http.MaxBytesError) *apiError {
	return &apiError{http.StatusRequestEntityTooLarge, "too_large", fmt.Sprintf("body: more than %d bytes", e.Limit), nil}
}

// query is the request's query, refused if it has a parameter that this route does not know: a misspelt filter that is
// ignored would show the whole fleet as its answer.
func query(r *http.Request, known ...string) (url.Values, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badData("query: %s", err)
	}
	for name := range values {
		if !slices.Contains(known, name) {
			if len(known) == 0 {
				return nil, badData("unknown parameter %q: this route takes none", name)
			}
			return nil, badData("unknown parameter %q: want %s", name, strings.Join(known, ", "))
		}
	}
	return values, nil
}
