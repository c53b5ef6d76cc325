package guest

import "github.com/prometheus/client_golang/prometheus"

// Metrics are protip's own metrics of guests. All sources of a process share one.
type Metrics struct {
	targets *prometheus.GaugeVec
	up      *prometheus.GaugeVec
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		targets: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "protip_guest_targets", Help: "Targets and probes, by how it was found out whose guest they are: config, uuid, mac, ip, ambiguous, none.",
		}, []string{"source", "join"}),
		up: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "protip_guest_target_up", Help: "Whether the target or probe answered when it was last asked (1) or not (0).",
		}, []string{"source", "target"}),
	}
	reg.MustRegister(m.targets, m.up)
	return m
}

// looked notes one look at a subject that was joined so before, empty if never.
func (m *Metrics) looked(source string, s *subject, was string, answered bool) {
	if m == nil {
		return
	}
	if was != s.joined.how {
		if was != "" {
			m.targets.WithLabelValues(source, was).Dec()
		}
		m.targets.WithLabelValues(source, s.joined.how).Inc()
	}
	up := 0.0
	if answered {
		up = 1
	}
	m.up.WithLabelValues(source, s.name).Set(up)
}
