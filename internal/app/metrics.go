package app

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/protip/protip/rules"
)

// metrics are the agent's own, of rules, tips and configuration.
type metrics struct {
	tipCount    *prometheus.GaugeVec
	evaluations *prometheus.CounterVec
	failures    *prometheus.CounterVec
	unknowns    *prometheus.GaugeVec
	duration    prometheus.Gauge
	storeErrors prometheus.Counter
	reloadOK    prometheus.Gauge
	reloadTime  prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	rule := []string{"pack", "rule"}
	m := &metrics{
		tipCount: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "protip_tips", Help: "Tips that are not resolved.",
		}, []string{"rule", "severity", "state"}),
		evaluations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "protip_rule_evaluations_total", Help: "Evaluations of a rule over the whole fleet.",
		}, rule),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "protip_rule_failures_total", Help: "Objects on which a rule failed.",
		}, rule),
		unknowns: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "protip_rule_unknown_objects", Help: "Objects of which a rule knew too little at its last evaluation.",
		}, rule),
		duration: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "protip_rules_evaluation_duration_seconds", Help: "How long the last evaluation of all rules took.",
		}),
		storeErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "protip_store_errors_total", Help: "Tips and audit entries that could not be stored.",
		}),
		reloadOK: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "protip_config_last_reload_successful", Help: "Whether the configuration was read when it last was tried.",
		}),
		reloadTime: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "protip_config_last_reload_success_timestamp_seconds", Help: "When the configuration in force was read.",
		}),
	}
	reg.MustRegister(m.tipCount, m.evaluations, m.failures, m.unknowns, m.duration, m.storeErrors, m.reloadOK, m.reloadTime)
	return m
}

func (m *metrics) evaluated(stats map[*rules.Rule]rules.Stats, took time.Duration) {
	m.unknowns.Reset()
	for r, st := range stats {
		m.evaluations.WithLabelValues(r.Pack.Name, r.Name).Inc()
		m.failures.WithLabelValues(r.Pack.Name, r.Name).Add(float64(st.Failed))
		m.unknowns.WithLabelValues(r.Pack.Name, r.Name).Set(float64(st.Undecided))
	}
	m.duration.Set(took.Seconds())
}

func (m *metrics) tips(tips []rules.Tip) {
	m.tipCount.Reset()
	for _, t := range tips {
		if t.State != rules.Resolved {
			m.tipCount.WithLabelValues(t.Rule, string(t.Severity), string(t.State)).Inc()
		}
	}
}

func (m *metrics) reloaded(ok bool, at time.Time) {
	m.reloadOK.Set(0)
	if ok {
		m.reloadOK.Set(1)
		m.reloadTime.Set(float64(at.Unix()))
	}
}
