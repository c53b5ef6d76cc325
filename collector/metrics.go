package collector

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// repeat is how often a fault that stays the same is said in the log.
const repeat = 5 * time.Minute

// Metrics are protip's own metrics of its sources. Whether a source is up, when it last succeeded and how many objects it has
// are read from the inventory and are not here.
type Metrics struct {
	calls      *prometheus.CounterVec
	errors     *prometheus.CounterVec
	cycles     *prometheus.GaugeVec
	reconnects *prometheus.CounterVec
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "protip_source_api_calls_total", Help: "Calls made to the platform's API.",
		}, []string{"source", "method"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "protip_source_errors_total",
			Help: "Errors of a source. Kinds watch, credentials, duplicate and panic ended the connection; others cost only their samples.",
		}, []string{"source", "kind"}),
		cycles: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "protip_source_cycle_duration_seconds", Help: "How long the last cycle of samples took, by what was sampled.",
		}, []string{"source", "part"}),
		reconnects: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "protip_source_reconnects_total", Help: "Attempts to connect again after a connection ended.",
		}, []string{"source"}),
	}
	reg.MustRegister(m.calls, m.errors, m.cycles, m.reconnects)
	return m
}

// Observer is the Observer of one source.
func (m *Metrics) Observer(source string, log *slog.Logger) Observer {
	m.reconnects.WithLabelValues(source)
	m.errors.WithLabelValues(source, "watch")
	return &observer{metrics: m, source: source, log: log.With("source", source), said: map[said]time.Time{}}
}

func (m *Metrics) reconnected(source string) {
	if m != nil {
		m.reconnects.WithLabelValues(source).Inc()
	}
}

func (m *Metrics) failed(source, kind string) {
	if m != nil {
		m.errors.WithLabelValues(source, kind).Inc()
	}
}

type observer struct {
	metrics *Metrics
	source  string
	log     *slog.Logger

	mu   sync.Mutex
	said map[said]time.Time
}

type said struct{ kind, text string }

// maxSaid bounds what an observer remembers. A source of many targets has as many faults at a time.
const maxSaid = 4096

var _ Observer = (*observer)(nil)

func (o *observer) Call(method string) { o.metrics.calls.WithLabelValues(o.source, method).Inc() }

func (o *observer) Cycle(part string, seconds float64) {
	o.metrics.cycles.WithLabelValues(o.source, part).Set(seconds)
}

// Fault counts every fault, and warns of one when it is new or has lasted for another five minutes.
func (o *observer) Fault(kind string, err error) {
	o.metrics.failed(o.source, kind)
	level := slog.LevelWarn
	if o.again(said{kind, err.Error()}, time.Now()) {
		level = slog.LevelDebug
	}
	o.log.Log(context.Background(), level, "source fault", "kind", kind, "err", err)
}

// again reports whether that was said in the last five minutes, and remembers that it is now. What is more than can be remembered
// counts as said.
func (o *observer) again(what said, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if at, ok := o.said[what]; ok && now.Sub(at) < repeat {
		return true
	}
	if len(o.said) >= maxSaid {
		maps.DeleteFunc(o.said, func(_ said, at time.Time) bool { return now.Sub(at) >= repeat })
	}
	if len(o.said) >= maxSaid {
		return true
	}
	o.said[what] = now
	return false
}
