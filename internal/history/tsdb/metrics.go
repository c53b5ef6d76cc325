package tsdb

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the store's own.
type metrics struct {
	writable       prometheus.Gauge
	lastAppend     prometheus.Gauge
	samples        prometheus.Counter
	failures       prometheus.Counter
	rejected       prometheus.Counter
	upkeepFailures prometheus.Counter
	series         prometheus.Gauge
	size           prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		writable: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "protip_history_writable", Help: "Whether the last cycle was written to the embedded history (1) or not (0).",
		}),
		lastAppend: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "protip_history_last_append_timestamp_seconds", Help: "Time of the last cycle that was written to the embedded history.",
		}),
		samples: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "protip_history_samples_total", Help: "Samples written to the embedded history, stale markers included.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "protip_history_append_failures_total", Help: "Cycles that could not be written to the embedded history.",
		}),
		rejected: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "protip_history_rejected_samples_total", Help: "Samples that the embedded history would not take, as two of a series at one time.",
		}),
		upkeepFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "protip_history_upkeep_failures_total", Help: "Failures to compact or roll up the embedded history. Each is tried again.",
		}),
		series: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "protip_history_series", Help: "Series of the embedded history that are in memory.",
		}),
		size: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "protip_history_size_bytes", Help: "Size of the embedded history on the disk.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.writable, m.lastAppend, m.samples, m.failures, m.rejected, m.upkeepFailures, m.series, m.size)
	}
	return m
}

func (m *metrics) appended(samples int, err error, at time.Time) {
	if err != nil {
		m.failures.Inc()
		m.writable.Set(0)
		return
	}
	m.samples.Add(float64(samples))
	m.writable.Set(1)
	m.lastAppend.Set(float64(at.UnixMilli()) / 1e3)
}
