// Package promql answers history's questions with Prometheus' own engine, over whatever storage it is given.
// It promises that a query takes no more time and samples than its limits, and that no type of the engine leaves it.
// It must not import a database: those that only evaluate given series are not built of one.
package promql

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	prom "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"

	"github.com/protip/protip/internal/history"
)

// Lookback is how old a sample may be that an instant selector still takes, as in Prometheus.
const Lookback = 5 * time.Minute

// maxLength bounds an expression, and with it how deep its evaluation nests.
const maxLength = 16 << 10

// Limits bound one query.
type Limits struct {
	Timeout time.Duration
	Samples int // that a query may hold in memory at a time
	Read    int // that a query may read in all
	Series  int // that a query may select
	Steps   int // of a range
	AtOnce  int // queries; further ones wait for their turn, as part of their time
}

// DefaultLimits are Prometheus' own, with bounds on what it leaves open.
func DefaultLimits() Limits {
	return Limits{Timeout: 2 * time.Minute, Samples: 50_000_000, Read: 500_000_000, Series: 5_000_000, Steps: 11_000, AtOnce: 20}
}

// Engine evaluates PromQL over one storage. Its methods may be called from any goroutine.
type Engine struct {
	storage storage.Queryable
	engine  *prom.Engine
	limits  Limits
	turns   chan struct{}
}

var _ history.Querier = (*Engine)(nil)

// New is an engine over a storage.
func New(over storage.Queryable, limits Limits) *Engine {
	e := &Engine{storage: blamed{over}, limits: limits, turns: make(chan struct{}, limits.AtOnce)}
	e.engine = prom.NewEngine(prom.EngineOpts{
		Logger:                   slog.New(slog.DiscardHandler),
		MaxSamples:               limits.Samples,
		Timeout:                  limits.Timeout,
		LookbackDelta:            Lookback,
		EnableAtModifier:         true,
		EnableNegativeOffset:     true,
		EnableQueryCost:          true,
		NoStepSubqueryIntervalFn: func(int64) int64 { return time.Minute.Milliseconds() },
		Parser:                   newParser(),
	})
	e.engine.SetQueryLimits(uint64(limits.Series), uint64(limits.Read), 0)
	return e
}

// blamed is a storage whose errors can be told from those of a query.
type blamed struct{ storage.Queryable }

func (b blamed) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := b.Queryable.Querier(mint, maxt)
	if err != nil {
		return nil, prom.ErrStorage{Err: err}
	}
	return q, nil
}

// newParser reads PromQL and its experimental functions, double_exponential_smoothing among them.
func newParser() parser.Parser {
	return parser.NewParser(parser.Options{EnableExperimentalFunctions: true})
}

// Query is the value of an expression at one time.
func (e *Engine) Query(ctx context.Context, expr string, at time.Time) (history.Vector, error) {
	value, done, err := e.Value(ctx, expr, at)
	if err != nil {
		return nil, err
	}
	defer done()
	switch v := value.(type) {
	case prom.Vector:
		return vector(v)
	case prom.Scalar:
		return history.Vector{{Value: v.V}}, nil
	}
	return nil, fmt.Errorf("%w: %s is a %s, and an instant vector or a scalar is wanted", history.ErrQuery, short(expr), parser.DocumentedType(value.Type()))
}

// QueryRange is the value of an expression at each step of a range.
func (e *Engine) QueryRange(ctx context.Context, expr string, r history.Range) (history.Matrix, error) {
	m, done, err := e.Values(ctx, expr, r)
	if err != nil {
		return nil, err
	}
	defer done()
	return matrix(m)
}

// Value is Query in the engine's own types, of any type of value. What it returns must not be used after done.
func (e *Engine) Value(ctx context.Context, expr string, at time.Time) (value parser.Value, done func(), err error) {
	return e.run(ctx, expr, func(ctx context.Context) (prom.Query, error) {
		return e.engine.NewInstantQuery(ctx, e.storage, nil, expr, at)
	})
}

// Values is QueryRange in the engine's own types. What it returns must not be used after done.
func (e *Engine) Values(ctx context.Context, expr string, r history.Range) (m prom.Matrix, done func(), err error) {
	switch {
	case r.Step < time.Millisecond:
		return nil, nil, fmt.Errorf("%w: a step of %s", history.ErrQuery, r.Step)
	case r.End.Before(r.Start):
		return nil, nil, fmt.Errorf("%w: the range ends before it starts", history.ErrQuery)
	case r.End.Sub(r.Start)/r.Step >= time.Duration(e.limits.Steps):
		return nil, nil, fmt.Errorf("%w: more than %d steps: lengthen the step or shorten the range", history.ErrTooMuch, e.limits.Steps)
	}
	value, done, err := e.run(ctx, expr, func(ctx context.Context) (prom.Query, error) {
		return e.engine.NewRangeQuery(ctx, e.storage, nil, expr, r.Start, r.End, r.Step)
	})
	if err != nil {
		return nil, nil, err
	}
	m, ok := value.(prom.Matrix)
	if !ok {
		done()
		return nil, nil, fmt.Errorf("%w: %s over a range is a %s", history.ErrQuery, short(expr), value.Type())
	}
	return m, done, nil
}

func (e *Engine) run(ctx context.Context, expr string, prepare func(context.Context) (prom.Query, error)) (parser.Value, func(), error) {
	if len(expr) > maxLength {
		return nil, nil, fmt.Errorf("%w: the expression is longer than %d bytes", history.ErrQuery, maxLength)
	}
	ctx, cancel := context.WithTimeout(ctx, e.limits.Timeout)
	defer cancel()
	select {
	case e.turns <- struct{}{}:
		defer func() { <-e.turns }()
	case <-ctx.Done():
		return nil, nil, told(expr, ctx.Err())
	}
	q, err := prepare(ctx)
	if err != nil {
		return nil, nil, told(expr, err)
	}
	res := q.Exec(ctx)
	if res.Err != nil {
		q.Close()
		return nil, nil, told(expr, res.Err)
	}
	return res.Value, q.Close, nil
}

// told is an error of the engine as history's.
func told(expr string, err error) error {
	var (
		timeout  prom.ErrQueryTimeout
		canceled prom.ErrQueryCanceled
		samples  prom.ErrTooManySamples
		read     prom.ErrTooManySamplesRead
		series   prom.ErrTooManySeries
		stored   prom.ErrStorage
	)
	switch {
	case errors.As(err, &timeout), errors.As(err, &samples), errors.As(err, &read), errors.As(err, &series),
		errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("query %s: %w: %w", short(expr), history.ErrTooMuch, err)
	case errors.As(err, &canceled), errors.Is(err, context.Canceled):
		return fmt.Errorf("query %s: %w", short(expr), context.Canceled)
	case errors.As(err, &stored):
		return fmt.Errorf("query %s: %w", short(expr), stored.Err)
	}
	return fmt.Errorf("query %s: %w: %w", short(expr), history.ErrQuery, err)
}

// short is an expression as an error names it.
func short(expr string) string {
	const most = 200
	if len(expr) > most {
		expr = expr[:most] + "..."
	}
	return fmt.Sprintf("%q", expr)
}

// Check is nil if an expression can be read and its value is one that Query takes. It is ErrQuery otherwise.
func Check(expr string) error {
	if len(expr) > maxLength {
		return fmt.Errorf("%w: the expression is longer than %d bytes", history.ErrQuery, maxLength)
	}
	parsed, err := newParser().ParseExpr(expr)
	if err != nil {
		return fmt.Errorf("%w: %w", history.ErrQuery, err)
	}
	switch parsed.Type() {
	case parser.ValueTypeVector, parser.ValueTypeScalar:
		return nil
	}
	return fmt.Errorf("%w: it is a %s, and an instant vector or a scalar is wanted", history.ErrQuery, parser.DocumentedType(parsed.Type()))
}

// Selectors are the names of the metrics that an expression selects by name, each once, in order of appearance.
func Selectors(expr string) ([]string, error) {
	parsed, err := newParser().ParseExpr(expr)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", history.ErrQuery, err)
	}
	var names []string
	seen := map[string]bool{}
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		if v, ok := node.(*parser.VectorSelector); ok {
			for _, m := range v.LabelMatchers {
				if m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual && !seen[m.Value] {
					seen[m.Value] = true
					names = append(names, m.Value)
				}
			}
		}
		return nil
	})
	return names, nil
}

var errHistogram = fmt.Errorf("%w: its value is a histogram", history.ErrQuery)

func vector(v prom.Vector) (history.Vector, error) {
	out := make(history.Vector, len(v))
	var arena history.Labels
	for i := range v {
		if v[i].H != nil {
			return nil, errHistogram
		}
		out[i].Value = v[i].F
		out[i].Labels, arena = plain(v[i].Metric, arena)
	}
	return out, nil
}

func matrix(m prom.Matrix) (history.Matrix, error) {
	out := make(history.Matrix, len(m))
	var arena history.Labels
	for i := range m {
		if len(m[i].Histograms) > 0 {
			return nil, errHistogram
		}
		out[i].Labels, arena = plain(m[i].Metric, arena)
		out[i].Points = make([]history.Point, len(m[i].Floats))
		for j, p := range m[i].Floats {
			out[i].Points[j] = history.Point{T: p.T, V: p.F}
		}
	}
	return out, nil
}

// plain are a series' labels as history has them, in memory shared with those of other series.
func plain(ls labels.Labels, arena history.Labels) (out, rest history.Labels) {
	n := ls.Len()
	if n == 0 {
		return nil, arena
	}
	if cap(arena)-len(arena) < n {
		arena = make(history.Labels, 0, max(n, 1024))
	}
	first := len(arena)
	ls.Range(func(l labels.Label) { arena = append(arena, history.Label{Name: l.Name, Value: l.Value}) })
	return arena[first:len(arena):len(arena)], arena
}
