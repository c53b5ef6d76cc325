// Package api answers Prometheus' HTTP API over any storage, as far as Grafana and stock clients ask it: queries, labels, series.
// It promises Prometheus' own forms, errors and limits; clients that were made for it need not know.
// It must not import a database, nor who mounts it.
package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	prom "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/history/promql"
)

const (
	// maxForm bounds a POST's form.
	maxForm = 64 << 10
	// maxListed bounds lists of labels and series that no limit was given for.
	maxListed = 50_000
	// listTimeout bounds how long a list may take.
	listTimeout = 30 * time.Second
)

// Metadata describes one metric.
type Metadata struct {
	Name string
	Type string // gauge or counter
	Help string
	Unit string
}

// Options are what the handler is made of.
type Options struct {
	Engine   *promql.Engine
	Storage  storage.Queryable
	Metadata []Metadata
	Now      func() time.Time // where a request names no time
}

// New is the handler of query, query_range, labels, label/<name>/values, series and metadata, below whatever it is mounted at.
func New(o Options) http.Handler {
	a := &api{o: o, parser: parser.NewParser(parser.Options{EnableExperimentalFunctions: true})}
	mux := http.NewServeMux()
	for path, answer := range map[string]func(*http.Request) (any, error){
		"query": a.query, "query_range": a.queryRange, "labels": a.labels, "series": a.series,
	} {
		mux.Handle("GET /api/v1/"+path, respond(answer))
		mux.Handle("POST /api/v1/"+path, respond(answer))
	}
	mux.Handle("GET /api/v1/label/{name}/values", respond(a.values))
	mux.Handle("GET /api/v1/metadata", respond(a.metadata))
	mux.Handle("GET /api/v1/status/buildinfo", respond(buildInfo))
	return mux
}

type api struct {
	o      Options
	parser parser.Parser
}

// buildInfo is what Grafana asks to find out whose API this is.
func buildInfo(*http.Request) (any, error) {
	return map[string]string{"version": "2.55.0", "application": "protip"}, nil
}

// badData is an error of the request.
type badData struct{ text string }

func (e badData) Error() string { return e.text }

func bad(format string, args ...any) error { return badData{fmt.Sprintf(format, args...)} }

// respond writes an answer in Prometheus' envelope.
func respond(answer func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		}
		var data any
		err := r.ParseForm()
		if err != nil {
			err = bad("form: %v", err)
		} else {
			data, err = answer(r)
		}
		code, body := http.StatusOK, map[string]any{"status": "success", "data": data}
		if err != nil {
			var kind string
			code, kind = classify(err)
			body = map[string]any{"status": "error", "errorType": kind, "error": err.Error()}
		}
		var buf bytes.Buffer
		if err := json.NewEncoder(&buf).Encode(body); err != nil {
			code = http.StatusInternalServerError
			buf.Reset()
			buf.WriteString(`{"status":"error","errorType":"internal","error":"the answer cannot be encoded"}`)
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(code)
		_, _ = w.Write(buf.Bytes())
	})
}

// classify is an error's status and kind, as Prometheus gives them.
func classify(err error) (int, string) {
	var data badData
	switch {
	case errors.As(err, &data):
		return http.StatusBadRequest, "bad_data"
	case errors.Is(err, context.Canceled):
		return 499, "canceled"
	case errors.Is(err, history.ErrTooMuch):
		if errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "timed out") {
			return http.StatusServiceUnavailable, "timeout"
		}
		return http.StatusUnprocessableEntity, "execution"
	case errors.Is(err, history.ErrQuery):
		var parse parser.ParseErrors
		if errors.As(err, &parse) {
			return http.StatusBadRequest, "bad_data"
		}
		return http.StatusUnprocessableEntity, "execution"
	}
	return http.StatusServiceUnavailable, "unavailable"
}

// result is the answer to a query.
type result struct {
	Type   parser.ValueType `json:"resultType"`
	Result any              `json:"result"`
}

func (a *api) query(r *http.Request) (any, error) {
	at, err := timeOf(r.Form, "time", a.o.Now())
	if err != nil {
		return nil, err
	}
	ctx, cancel, err := limited(r)
	if err != nil {
		return nil, err
	}
	defer cancel()
	value, done, err := a.o.Engine.Value(ctx, r.Form.Get("query"), at)
	if err != nil {
		return nil, err
	}
	defer done()
	return encoded(value)
}

func (a *api) queryRange(r *http.Request) (any, error) {
	start, err := timeOf(r.Form, "start", time.Time{})
	if err != nil {
		return nil, err
	}
	end, err := timeOf(r.Form, "end", time.Time{})
	if err != nil {
		return nil, err
	}
	step, err := durationOf(r.Form.Get("step"))
	switch {
	case err != nil:
		return nil, bad("invalid parameter \"step\": %v", err)
	case start.IsZero() || end.IsZero():
		return nil, bad("start and end are wanted")
	case end.Before(start):
		return nil, bad("invalid parameter \"end\": end timestamp must not be before start time")
	case step < time.Millisecond:
		return nil, bad("zero or negative query resolution step widths are not accepted. Try a positive integer")
	}
	ctx, cancel, err := limited(r)
	if err != nil {
		return nil, err
	}
	defer cancel()
	m, done, err := a.o.Engine.Values(ctx, r.Form.Get("query"), history.Range{Start: start, End: end, Step: step})
	if err != nil {
		return nil, err
	}
	defer done()
	return encoded(m)
}

// encoded is a value that may be kept after the engine has taken it back: its own encoding.
func encoded(value parser.Value) (any, error) {
	b, err := json.Marshal(jsonOf(value))
	if err != nil {
		return nil, fmt.Errorf("encode the answer: %w", err)
	}
	return result{value.Type(), json.RawMessage(b)}, nil
}

// jsonOf is a value in Prometheus' form: times in seconds, values as text.
func jsonOf(value parser.Value) any {
	switch v := value.(type) {
	case prom.Scalar:
		return pointOf(v.T, v.V)
	case prom.String:
		return []any{float64(v.T) / 1e3, v.V}
	case prom.Vector:
		out := make([]map[string]any, len(v))
		for i, s := range v {
			out[i] = map[string]any{"metric": s.Metric, "value": pointOf(s.T, s.F)}
		}
		return out
	case prom.Matrix:
		out := make([]map[string]any, len(v))
		for i, s := range v {
			points := make([]json.RawMessage, len(s.Floats))
			for j, p := range s.Floats {
				points[j] = pointOf(p.T, p.F)
			}
			out[i] = map[string]any{"metric": s.Metric, "values": points}
		}
		return out
	}
	return nil
}

func pointOf(t int64, v float64) json.RawMessage {
	b := append([]byte(nil), '[')
	b = strconv.AppendFloat(b, float64(t)/1e3, 'f', -1, 64)
	b = append(b, ',', '"')
	b = strconv.AppendFloat(b, v, 'f', -1, 64)
	return append(b, '"', ']')
}

func (a *api) labels(r *http.Request) (any, error) {
	return a.list(r, func(ctx context.Context, q storage.Querier, h *storage.LabelHints, ms []*labels.Matcher) ([]string, error) {
		names, _, err := q.LabelNames(ctx, h, ms...)
		return names, err
	})
}

func (a *api) values(r *http.Request) (any, error) {
	name := r.PathValue("name")
	if strings.HasPrefix(name, "U__") {
		name = model.UnescapeName(name, model.ValueEncodingEscaping)
	}
	if !model.LegacyValidation.IsValidLabelName(name) && !model.UTF8Validation.IsValidLabelName(name) {
		return nil, bad("invalid label name: %q", name)
	}
	return a.list(r, func(ctx context.Context, q storage.Querier, h *storage.LabelHints, ms []*labels.Matcher) ([]string, error) {
		values, _, err := q.LabelValues(ctx, name, h, ms...)
		return values, err
	})
}

// list is what get finds for any of the request's matchers, sorted, each once.
func (a *api) list(r *http.Request, get func(context.Context, storage.Querier, *storage.LabelHints, []*labels.Matcher) ([]string, error)) (any, error) {
	sets, err := a.matchers(r.Form)
	if err != nil {
		return nil, err
	}
	if len(sets) == 0 {
		sets = [][]*labels.Matcher{nil}
	}
	limit, err := limitOf(r.Form)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), listTimeout)
	defer cancel()
	q, _, err := a.querier(r.Form)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	found := []string{}
	for _, ms := range sets {
		names, err := get(ctx, q, &storage.LabelHints{Limit: limit}, ms)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			found = append(found, strings.Clone(name))
		}
	}
	slices.Sort(found)
	found = slices.Compact(found)
	return found[:min(len(found), limit)], nil
}

func (a *api) series(r *http.Request) (any, error) {
	sets, err := a.matchers(r.Form)
	if err != nil {
		return nil, err
	}
	if len(sets) == 0 {
		return nil, bad("no match[] parameter provided")
	}
	limit, err := limitOf(r.Form)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), listTimeout)
	defer cancel()
	q, over, err := a.querier(r.Form)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	over.Func, over.Limit = "series", limit // no samples are wanted
	found := []map[string]string{}
	seen := map[uint64]bool{}
	for _, ms := range sets {
		set := q.Select(ctx, true, &over, ms...)
		for set.Next() && len(found) < limit {
			ls := set.At().Labels()
			if h := ls.Hash(); !seen[h] {
				seen[h] = true
				found = append(found, ls.Map())
			}
		}
		if err := set.Err(); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// querier reads the range that a request asks for, all there is if it names none.
func (a *api) querier(form url.Values) (storage.Querier, storage.SelectHints, error) {
	var over storage.SelectHints
	start, err := timeOf(form, "start", time.UnixMilli(0))
	if err != nil {
		return nil, over, err
	}
	end, err := timeOf(form, "end", a.o.Now().Add(24*time.Hour))
	if err != nil {
		return nil, over, err
	}
	if end.Before(start) {
		return nil, over, bad("end timestamp must not be before start timestamp")
	}
	over.Start, over.End = start.UnixMilli(), end.UnixMilli()
	q, err := a.o.Storage.Querier(over.Start, over.End)
	return q, over, err
}

func (a *api) matchers(form url.Values) ([][]*labels.Matcher, error) {
	var out [][]*labels.Matcher
	for _, text := range form["match[]"] {
		ms, err := a.parser.ParseMetricSelector(text)
		if err != nil {
			return nil, bad("invalid parameter \"match[]\": %v", err)
		}
		if !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches("") }) {
			return nil, bad("match[] must contain at least one non-empty matcher")
		}
		out = append(out, ms)
	}
	return out, nil
}

func (a *api) metadata(r *http.Request) (any, error) {
	type entry struct {
		Type string `json:"type"`
		Help string `json:"help"`
		Unit string `json:"unit"`
	}
	limit, err := limitOf(r.Form)
	if err != nil {
		return nil, err
	}
	out := map[string][]entry{}
	for _, m := range a.o.Metadata {
		if want := r.Form.Get("metric"); (want == "" || want == m.Name) && len(out) < limit {
			out[m.Name] = []entry{{m.Type, m.Help, m.Unit}}
		}
	}
	return out, nil
}

// limited is the request's context with the time-out that it asks for.
func limited(r *http.Request) (context.Context, context.CancelFunc, error) {
	text := r.Form.Get("timeout")
	if text == "" {
		return r.Context(), func() {}, nil
	}
	d, err := durationOf(text)
	if err != nil {
		return nil, nil, bad("invalid parameter \"timeout\": %v", err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), d)
	return ctx, cancel, nil
}

func limitOf(form url.Values) (int, error) {
	text := form.Get("limit")
	if text == "" {
		return maxListed, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, bad("invalid parameter \"limit\": a number that is not negative is wanted")
	}
	if n == 0 {
		return maxListed, nil
	}
	return min(n, maxListed), nil
}

// timeOf is a parameter in Unix seconds or RFC 3339.
func timeOf(form url.Values, name string, otherwise time.Time) (time.Time, error) {
	text := form.Get(name)
	if text == "" {
		return otherwise, nil
	}
	if s, err := strconv.ParseFloat(text, 64); err == nil {
		if math.IsNaN(s) || math.Abs(s) > 1e12 {
			return time.Time{}, bad("invalid parameter %q: cannot parse %.40q to a valid timestamp", name, text)
		}
		return time.UnixMilli(int64(math.Round(s * 1000))).UTC(), nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || t.Year() > 9999 || t.Year() < 0 {
		return time.Time{}, bad("invalid parameter %q: cannot parse %.40q to a valid timestamp", name, text)
	}
	return t, nil
}

// durationOf is a length of time in seconds or as Prometheus writes it.
func durationOf(text string) (time.Duration, error) {
	if s, err := strconv.ParseFloat(text, 64); err == nil {
		if d := s * float64(time.Second); d > 0 && d < math.MaxInt64 {
			return time.Duration(d), nil
		}
		return 0, fmt.Errorf("%.40q is out of range", text)
	}
	d, err := model.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("cannot parse %.40q to a valid duration", text)
	}
	return time.Duration(d), nil
}
