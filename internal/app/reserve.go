package app

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/protip/protip/internal/config"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/placement"
	"github.com/protip/protip/internal/web"
)

// Who asks for a reserve.
const (
	askedByConfiguration = "configuration"
	askedByPlatform      = "platform" // vSphere HA tolerates host failures by its own settings
)

// reserves are the last answers to what clusters can bear to lose. Only the evaluation writes them, and App.mu guards them.
type reserves struct {
	of map[inventory.ID]reserve

	hosts, ok, unknown *prometheus.GaugeVec
	duration           prometheus.Gauge
}

// reserve is one cluster's: the question, so that an equal one is not asked again, and the answer.
type reserve struct {
	question placement.Question
	answer   *placement.Admission
	asked    string
	platform placement.Second
}

func newReserves(reg prometheus.Registerer) *reserves {
	labels := []string{"source", "virt_cluster"}
	r := &reserves{
		of: map[inventory.ID]reserve{},
		hosts: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "protip_cluster_reserve_hosts", Help: "Hosts that the cluster must be able to lose at once.",
		}, labels),
		ok: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "protip_cluster_reserve_ok", Help: "Whether it is shown that the cluster survives the loss of any so many hosts.",
		}, labels),
		unknown: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "protip_cluster_reserve_unknown", Help: "Whether it is neither shown that the cluster survives it nor that it does not.",
		}, labels),
		duration: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "protip_cluster_reserve_duration_seconds", Help: "How long the last look at all reserves took.",
		}),
	}
	reg.MustRegister(r.hosts, r.ok, r.unknown, r.duration)
	return r
}

// judgeReserves asks every cluster what it can bear to lose. What is known from the last time makes it quick.
func (a *App) judgeReserves(snap *inventory.Snapshot) {
	began := time.Now()
	cfg := a.settings.Load().config
	demand, policy := a.demand(snap), a.forReserves(a.placementPolicy(snap))
	if a.acting != nil {
		policy.Incoming = a.acting.engine.Arriving()
	}
	a.mu.Lock()
	before := maps.Clone(a.reserves.of)
	a.mu.Unlock()
	next := map[inventory.ID]reserve{}
	for c := range snap.Clusters() {
		hosts, asked := wanted(cfg, c)
		if hosts == 0 {
			continue
		}
		last := before[c.ID]
		r := reserve{question: placement.Ask(snap, demand, c.ID, hosts, policy), asked: asked, platform: placement.SecondOpinion(snap, c.ID), answer: last.answer}
		if last.answer == nil || !reflect.DeepEqual(last.question, r.question) {
			r.answer = r.question.Answer(last.answer)
		}
		next[c.ID] = r
		if last.answer == nil || last.answer.Answer != r.answer.Answer {
			a.log.Info("cluster reserve", "source", c.ID.Source, "cluster", c.Name, "reserve", hosts, "answer", r.answer.Answer, "why", r.answer.Why)
		}
	}
	a.mu.Lock()
	a.reserves.of = next
	a.mu.Unlock()
	a.reserves.expose(next, time.Since(began))
}

// wanted is how many hosts the cluster must be able to lose, and who says so.
func wanted(cfg *config.Config, c *inventory.Cluster) (hosts int, asked string) {
	if n := cfg.Placement.ReserveOf(c.ID.Source, c.Name); n > 0 {
		return n, askedByConfiguration
	}
	if c.HA.Enabled && c.HA.AdmissionControl && c.HA.HostFailures > 0 {
		return c.HA.HostFailures, askedByPlatform
	}
	return 0, ""
}

func (r *reserves) expose(of map[inventory.ID]reserve, took time.Duration) {
	r.hosts.Reset()
	r.ok.Reset()
	r.unknown.Reset()
	is := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	for id, one := range of {
		labels := []string{id.Source, one.answer.Name}
		r.hosts.WithLabelValues(labels...).Set(float64(one.answer.Reserve))
		r.ok.WithLabelValues(labels...).Set(is(one.answer.Answer == placement.Admitted))
		r.unknown.WithLabelValues(labels...).Set(is(one.answer.Answer == placement.Unknown))
	}
	r.duration.Set(took.Seconds())
}

// heldReserves are the answers that a placement must respect: those to what the configuration asks. Until a cluster was looked at it holds
// nothing.
func (a *App) heldReserves(snap *inventory.Snapshot, cfg *config.Config) map[inventory.ID]*placement.Admission {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[inventory.ID]*placement.Admission{}
	for c := range snap.Clusters() {
		n := cfg.Placement.ReserveOf(c.ID.Source, c.Name)
		if n == 0 {
			continue
		}
		out[c.ID] = &placement.Admission{Cluster: c.ID, Name: c.Name, Reserve: n, Answer: placement.Unknown, Why: "it has not been looked at yet"}
		if r, ok := a.reserves.of[c.ID]; ok && r.answer.Reserve == n {
			out[c.ID] = r.answer
		}
	}
	return out
}

// beingEmptied is why a host that is being emptied takes nothing new.
const beingEmptied = "it is being emptied"

// forReserves is the policy as reserves see it. A host that is being freed takes nothing new, but stays: it takes restarts like any other. One
// that is evacuated will not be there.
func (a *App) forReserves(p placement.Policy) placement.Policy {
	if a.acting == nil {
		return p
	}
	p.Restricted = maps.Clone(p.Restricted)
	for host, what := range a.acting.engine.Emptying() {
		if what == placement.ForFreeing && p.Restricted[host] == beingEmptied {
			delete(p.Restricted, host)
		}
	}
	return p
}

// restricted are the hosts that take nothing new, and why: the configuration says so, a tip does as long as it lasts, or they are
// being emptied.
func (a *App) restricted(snap *inventory.Snapshot, cfg *config.Config) map[inventory.ID]string {
	out := map[inventory.ID]string{}
	if a.acting != nil {
		for host := range a.acting.engine.Emptying() {
			out[host] = beingEmptied
		}
	}
	a.mu.Lock()
	for _, tip := range a.tips {
		if tip.Restricts() {
			out[tip.Object] = fmt.Sprintf("tip %s: %s", tip.ID, tip.Summary)
		}
	}
	a.mu.Unlock()
	if len(cfg.Placement.Restricted) == 0 {
		return out
	}
	for h := range snap.Hosts() {
		if why, ok := cfg.Placement.Restricted[h.ID.Source+"/"+h.Name]; ok {
			out[h.ID] = why
		}
	}
	return out
}

func (a agent) Place(_ context.Context, vm placement.VMSpec) ([]placement.Rating, error) {
	snap := a.Snapshot()
	if !vm.ID.IsZero() {
		if _, ok := snap.VM(vm.ID); !ok {
			return nil, fmt.Errorf("VM %s: %w", vm.ID, web.ErrNotFound)
		}
	}
	policy := a.placementPolicy(snap)
	policy.Quick = true // to be told of it, not to do it
	return placement.Rate(snap, a.demand(snap), vm, policy), nil
}

func (a agent) Reserves(context.Context) ([]web.Reserve, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []web.Reserve
	for id, r := range a.reserves.of {
		out = append(out, web.Reserve{
			Admission: r.answer, Source: id.Source, Asked: r.asked, Platform: r.platform, Differs: r.platform.Differs(r.answer),
		})
	}
	return out, nil
}
