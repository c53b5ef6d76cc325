package alertmanager

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/rules"
)

// maxKept bounds the alerts that are remembered.
const maxKept = 10_000

// TipLabel marks an alert that protip itself sent: its tip's ID.
const TipLabel = "protip_tip"

// Kept is an alert as it is remembered.
type Kept struct {
	Alert
	SeenAt time.Time `json:"seen_at"` // when it was last received, by protip's clock
}

// Store keeps alerts over a restart. SaveAlerts replaces those of the same fingerprint, and returns when they are on disk.
type Store interface {
	SaveAlerts(ctx context.Context, alerts []Kept) error
	DropAlerts(ctx context.Context, fingerprints []string) error
	LoadAlerts(ctx context.Context) ([]Kept, error)
}

// Inbox holds the alerts that fire. Its methods may be called from any goroutine.
type Inbox struct {
	o        Options
	received *prometheus.CounterVec
	lost     prometheus.Counter
	firing   *prometheus.GaugeVec

	mu     sync.Mutex
	alerts map[string]Kept // by fingerprint
}

// Options are what an inbox is made of.
type Options struct {
	Store       Store
	Now         func() time.Time
	ForgetAfter time.Duration // without a repeat; longer than Alertmanager's repeat_interval
	Log         *slog.Logger
	Registerer  prometheus.Registerer
}

// NewInbox reads what an earlier run has received.
func NewInbox(ctx context.Context, o Options) (*Inbox, error) {
	i := &Inbox{
		o: o, alerts: map[string]Kept{},
		received: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "protip_alerts_received_total", Help: "Alerts that Alertmanager sent, by what they were.",
		}, []string{"result"}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "protip_alerts_truncated_total", Help: "Alerts that Alertmanager left out of its messages.",
		}),
		firing: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "protip_alerts_firing", Help: "Alerts of other systems that fire, by whether the inventory has their object.",
		}, []string{"object"}),
	}
	for _, result := range []string{resultFiring, resultResolved, resultOwn, resultTooMany} {
		i.received.WithLabelValues(result)
	}
	o.Registerer.MustRegister(i.received, i.lost, i.firing)
	kept, err := o.Store.LoadAlerts(ctx)
	if err != nil {
		return nil, fmt.Errorf("alerts of Alertmanager: %w", err)
	}
	for _, k := range kept {
		i.alerts[k.Fingerprint] = k
	}
	return i, nil
}

// What a received alert was.
const (
	resultFiring   = "firing"
	resultResolved = "resolved"
	resultOwn      = "own"      // one of protip's, coming back
	resultTooMany  = "too_many" // more than are remembered
)

// Receive takes a message. When it returns nil, what the message said is on disk.
func (i *Inbox) Receive(ctx context.Context, m Message) error {
	now := i.o.Now()
	i.mu.Lock()
	defer i.mu.Unlock()
	save, drop, results := i.sort(m, now)
	if err := i.o.Store.SaveAlerts(ctx, save); err != nil {
		return fmt.Errorf("alerts not stored: %w", err)
	}
	if err := i.o.Store.DropAlerts(ctx, drop); err != nil {
		return fmt.Errorf("resolved alerts not stored: %w", err)
	}
	for _, k := range save {
		i.alerts[k.Fingerprint] = k
	}
	for _, fingerprint := range drop {
		delete(i.alerts, fingerprint)
	}
	for result, n := range results {
		i.received.WithLabelValues(result).Add(float64(n))
	}
	if m.TruncatedAlerts > 0 {
		i.lost.Add(float64(m.TruncatedAlerts))
		i.o.Log.Warn("Alertmanager left alerts out of a message: raise max_alerts of its webhook receiver, or group by more labels",
			"left_out", m.TruncatedAlerts, "group", m.GroupKey)
	}
	return nil
}

// sort says what a message changes. An alert that is older than what is known of it is a late delivery.
func (i *Inbox) sort(m Message, now time.Time) (save []Kept, drop []string, results map[string]int) {
	results = map[string]int{}
	fresh := 0
	for _, a := range m.Alerts {
		was, known := i.alerts[a.Fingerprint]
		switch {
		case a.Labels[TipLabel] != "":
			results[resultOwn]++
		case !a.Firing():
			results[resultResolved]++
			if known && !a.StartsAt.Before(was.StartsAt) {
				drop = append(drop, a.Fingerprint)
			}
		case known && a.StartsAt.Before(was.StartsAt):
			results[resultFiring]++
		case !known && len(i.alerts)+fresh >= maxKept:
			results[resultTooMany]++
		default:
			results[resultFiring]++
			if !known {
				fresh++
			}
			save = append(save, Kept{Alert: a, SeenAt: now})
		}
	}
	return save, drop, results
}

// Firing are the alerts that fire now, each laid to its object. An alert of no known object is none that a rule could judge: it
// waits, for its object may yet come. What was not repeated for long is forgotten.
func (i *Inbox) Firing(ctx context.Context, locate func(labels map[string]string) (inventory.ID, bool)) []rules.Alert {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.forget(ctx)
	var out []rules.Alert
	unknown := 0
	for _, k := range i.alerts {
		id, ok := locate(k.Labels)
		if !ok {
			unknown++
			continue
		}
		out = append(out, rules.Alert{Object: id, Labels: k.Labels, Annotations: k.Annotations, Since: k.StartsAt})
	}
	i.firing.WithLabelValues("known").Set(float64(len(out)))
	i.firing.WithLabelValues("unknown").Set(float64(unknown))
	return out
}

func (i *Inbox) forget(ctx context.Context) {
	var old []string
	for fingerprint, k := range i.alerts {
		if i.o.Now().Sub(k.SeenAt) > i.o.ForgetAfter {
			old = append(old, fingerprint)
		}
	}
	if len(old) == 0 {
		return
	}
	if err := i.o.Store.DropAlerts(ctx, old); err != nil {
		i.o.Log.Error("alerts not forgotten", "err", err)
		return
	}
	for _, fingerprint := range old {
		i.o.Log.Info("alert forgotten: Alertmanager has not repeated it", "alert", i.alerts[fingerprint].Labels["alertname"], "after", i.o.ForgetAfter)
		delete(i.alerts, fingerprint)
	}
}
