package remediation

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what Prometheus learns of remediation. Times are of protip's clock.
type metrics struct {
	actions       *prometheus.GaugeVec
	ended         *prometheus.CounterVec
	outcomes      *prometheus.CounterVec
	duration      *prometheus.HistogramVec
	paused        *prometheus.GaugeVec
	breakerOpen   prometheus.Gauge
	foreignMoves  *prometheus.CounterVec
	leftAlone     *prometheus.GaugeVec
	journalErrors prometheus.Counter
	sources       []string
}

func newMetrics(reg prometheus.Registerer, executors map[string]Executor) (*metrics, error) {
	m := &metrics{
		actions: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "protip_actions", Help: "Actions that are not over, and unknown ones that wait for a person, by state.",
		}, []string{"state"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "protip_actions_total", Help: "Actions that ended, by final state; dry runs have the state dry_run.",
		}, []string{"source", "state"}),
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "protip_action_outcomes_total", Help: "Actions whose outcome was measured after the settle time.",
		}, []string{"source", "outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "protip_action_duration_seconds", Help: "Time from the call to the VM seen on its target, of actions that are done.",
			Buckets: []float64{5, 10, 20, 40, 60, 120, 300, 600, 1800, 3600},
		}, []string{"source"}),
		paused: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "protip_remediation_paused", Help: "1 if nothing is started on the source because a person paused it or all.",
		}, []string{"source"}),
		breakerOpen: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "protip_remediation_breaker_open", Help: "1 if nothing starts by itself because too much failed or did not help in a row.",
		}),
		foreignMoves: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "protip_foreign_moves_total", Help: "Migrations that were seen and that protip did not order.",
		}, []string{"source"}),
		leftAlone: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "protip_contested_vms", Help: "VMs that are left alone because somebody else moved them back twice.",
		}, []string{"source"}),
		journalErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "protip_journal_errors_total", Help: "Writes that the journal did not take; nothing is sent without it.",
		}),
	}
	for source := range executors {
		m.sources = append(m.sources, source)
	}
	m.zero()
	if reg == nil {
		return m, nil
	}
	return m, errors.Join(reg.Register(m.actions), reg.Register(m.ended), reg.Register(m.outcomes), reg.Register(m.duration),
		reg.Register(m.paused), reg.Register(m.breakerOpen), reg.Register(m.foreignMoves), reg.Register(m.leftAlone), reg.Register(m.journalErrors))
}

// zero has every series there from the start: a counter that appears at 1 has no increase.
func (m *metrics) zero() {
	for _, s := range []State{Planned, Approved, Claimed, Starting, Started, Verifying, Unknown} {
		m.actions.WithLabelValues(string(s))
	}
	for _, source := range m.sources {
		for _, s := range []string{string(Done), string(Withdrawn), string(Failed), string(RolledBack), string(Unknown), "dry_run"} {
			m.ended.WithLabelValues(source, s)
		}
		for _, o := range []Outcome{Recovered, NoEffect, Worse} {
			m.outcomes.WithLabelValues(source, string(o))
		}
		m.duration.WithLabelValues(source)
		m.paused.WithLabelValues(source)
		m.foreignMoves.WithLabelValues(source)
		m.leftAlone.WithLabelValues(source)
	}
}

// created counts an action that came into memory.
func (m *metrics) created(a Action) { m.actions.WithLabelValues(string(a.State)).Inc() }

// gone counts one that left it without an end of its own.
func (m *metrics) gone(a Action) { m.actions.WithLabelValues(string(a.State)).Dec() }

// step counts what a step changed.
func (m *metrics) step(was, a Action) {
	source := a.VM.Source
	if a.Outcome != "" && was.Outcome == "" {
		m.outcomes.WithLabelValues(source, string(a.Outcome)).Inc()
	}
	if a.State == was.State {
		return
	}
	m.actions.WithLabelValues(string(was.State)).Dec()
	if !a.State.Final() || a.State == Unknown {
		m.actions.WithLabelValues(string(a.State)).Inc()
	}
	switch {
	case !a.State.Final() || was.State.Final():
	case a.DryRun && a.State == Done:
		m.ended.WithLabelValues(source, "dry_run").Inc()
	default:
		m.ended.WithLabelValues(source, string(a.State)).Inc()
		if a.State == Done && a.Kind != WebhookCall {
			m.duration.WithLabelValues(source).Observe(a.EndedAt.Sub(a.StartingAt).Seconds())
		}
	}
}

func (m *metrics) pauses(p map[string]Pause) {
	_, all := p[""]
	for _, source := range m.sources {
		_, one := p[source]
		m.paused.WithLabelValues(source).Set(oneIf(all || one))
	}
}

// contested sets how many VMs of each source are left alone.
func (m *metrics) contested(of map[string]int) {
	for _, source := range m.sources {
		m.leftAlone.WithLabelValues(source).Set(float64(of[source]))
	}
}

func (m *metrics) breaker(b Breaker) { m.breakerOpen.Set(oneIf(b.Open)) }

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
