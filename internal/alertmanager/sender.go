package alertmanager

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	promconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/version"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/rules"
)

const (
	// Resend is how often a firing alert is told again. Alertmanager takes one for resolved that it has not heard of for a while.
	Resend = time.Minute
	// lasting is how long an alert is said to last at least: a few attempts may fail.
	lasting = 5 * Resend
	// farewell is how long a resolved alert is told as such: Alertmanager may be away.
	farewell    = 15 * time.Minute
	sendTimeout = 10 * time.Second
)

// Target is one Alertmanager. Those of a cluster are all told, as Alertmanager wants it.
type Target struct {
	URL  string // what /api/v2/alerts is below
	HTTP promconfig.HTTPClientConfig
}

// SenderOptions are what a sender is made of.
type SenderOptions struct {
	Targets     []Target
	ExternalURL string // of protip, for links; may be empty
	Log         *slog.Logger
	Registerer  prometheus.Registerer
}

// Sender tells Alertmanagers of tips. Its methods may be called from any goroutine.
type Sender struct {
	o       SenderOptions
	clients []*http.Client
	sent    *prometheus.CounterVec
	failed  *prometheus.CounterVec
	changed chan struct{}

	mu     sync.Mutex
	alerts map[string]outgoing // by tip
}

// outgoing is an alert as the API takes it.
type outgoing struct {
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL,omitempty"`

	ended time.Time // zero: it fires
}

// NewSender connects to nothing yet.
func NewSender(o SenderOptions) (*Sender, error) {
	s := &Sender{
		o: o, changed: make(chan struct{}, 1), alerts: map[string]outgoing{},
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "protip_alertmanager_sent_total", Help: "Alerts sent, by Alertmanager.",
		}, []string{"alertmanager"}),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "protip_alertmanager_errors_total", Help: "Attempts to send alerts that failed, by Alertmanager.",
		}, []string{"alertmanager"}),
	}
	for _, t := range o.Targets {
		client, err := promconfig.NewClientFromConfig(t.HTTP, "alertmanager", promconfig.WithUserAgent("protip/"+version.Version))
		if err != nil {
			return nil, fmt.Errorf("alertmanager %s: %w", host(t.URL), err)
		}
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return errors.New("it redirects") }
		s.clients = append(s.clients, client)
		s.sent.WithLabelValues(host(t.URL))
		s.failed.WithLabelValues(host(t.URL))
	}
	o.Registerer.MustRegister(s.sent, s.failed)
	return s, nil
}

// host is a URL without what could be secret in it.
func host(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "?"
	}
	return u.Host
}

// Tell takes the tips as they are. Those that somebody should act on fire; those that were told and are over, or were dismissed,
// are resolved. It never blocks.
func (s *Sender) Tell(tips []rules.Tip, snap *inventory.Snapshot, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	firing := map[string]bool{}
	news := false
	for _, tip := range tips {
		if !fires(tip) {
			continue
		}
		firing[tip.ID] = true
		was, known := s.alerts[tip.ID]
		a := s.alertOf(tip, snap, now)
		if known && was.ended.IsZero() && maps.Equal(was.Labels, a.Labels) {
			a.StartsAt = was.StartsAt
		} else {
			news = true
		}
		s.alerts[tip.ID] = a
	}
	for id, a := range s.alerts {
		switch {
		case a.ended.IsZero() && !firing[id]:
			a.ended, a.EndsAt = now, now
			s.alerts[id] = a
			news = true
		case !a.ended.IsZero() && now.Sub(a.ended) > farewell:
			delete(s.alerts, id)
		}
	}
	if news {
		select {
		case s.changed <- struct{}{}:
		default:
		}
	}
}

// fires reports whether a person should hear of a tip. One without data stays what it was: silence is no end.
func fires(tip rules.Tip) bool {
	if tip.Pack == rules.AlertPack {
		return false // it came from there
	}
	state := tip.State
	if state == rules.Unknown {
		state = tip.Was
	}
	return state == rules.Active || state == rules.InProgress
}

// alertOf is a tip as an alert. Its labels are what it is grouped and silenced by, and so none of its numbers.
func (s *Sender) alertOf(tip rules.Tip, snap *inventory.Snapshot, now time.Time) outgoing {
	labels := map[string]string{
		"alertname": tip.Rule, "severity": string(tip.Severity), "pack": tip.Pack, "source": tip.Object.Source,
		tip.Object.Kind.String(): tip.Name, TipLabel: tip.ID,
	}
	delete(labels, "cluster") // the label of replicas; protip's is virt_cluster
	if cluster, ok := snap.Cluster(tip.Cluster); ok {
		labels["virt_cluster"] = cluster.Name
	}
	switch tip.Object.Kind {
	case inventory.KindVM:
		if vm, ok := snap.VM(tip.Object); ok {
			if h, ok := snap.Host(vm.Host); ok {
				labels["host"] = h.Name
			}
		}
	case inventory.KindService:
		if tip.Place != nil {
			labels["vm"], labels["host"] = tip.Place.VMName, tip.Place.HostName
		}
	}
	for name, value := range labels {
		if value == "" {
			delete(labels, name)
			continue
		}
		labels[name] = strings.ToValidUTF8(value, "\uFFFD")
	}
	a := outgoing{
		Labels: labels, StartsAt: now, EndsAt: now.Add(lasting),
		Annotations: map[string]string{"summary": tip.Summary, "description": tip.Cause + ". " + tip.Remedy.Words() + "."},
	}
	if tip.ActiveAt.Before(now) && !tip.ActiveAt.IsZero() {
		a.StartsAt = tip.ActiveAt
	}
	if s.o.ExternalURL != "" {
		a.GeneratorURL = strings.TrimSuffix(s.o.ExternalURL, "/") + "/tips/" + tip.ID
	}
	return a
}

// Run sends until ctx is done: at once what changed, and all again at each interval.
func (s *Sender) Run(ctx context.Context) {
	tick := time.NewTicker(Resend)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
		case <-tick.C:
		}
		s.sendAll(ctx)
	}
}

// sendAll tells each Alertmanager everything; one that does not answer delays no other.
func (s *Sender) sendAll(ctx context.Context) {
	s.mu.Lock()
	now := time.Now()
	var all []outgoing
	for id, a := range s.alerts {
		if a.ended.IsZero() {
			a.EndsAt = now.Add(lasting)
			s.alerts[id] = a
		}
		all = append(all, a)
	}
	s.mu.Unlock()
	if len(all) == 0 {
		return
	}
	slices.SortFunc(all, func(a, b outgoing) int { return cmp.Compare(a.Labels[TipLabel], b.Labels[TipLabel]) })
	body, err := json.Marshal(all)
	if err != nil {
		s.o.Log.Error("alerts cannot be written", "err", err)
		return
	}
	var sending sync.WaitGroup
	for i, t := range s.o.Targets {
		sending.Go(func() {
			if err := s.send(ctx, s.clients[i], t.URL, body); err != nil && ctx.Err() == nil {
				s.failed.WithLabelValues(host(t.URL)).Inc()
				s.o.Log.Warn("alerts not sent; they are sent again", "alertmanager", host(t.URL), "err", err)
				return
			}
			s.sent.WithLabelValues(host(t.URL)).Add(float64(len(all)))
		})
	}
	sending.Wait()
}

func (s *Sender) send(ctx context.Context, client *http.Client, to string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(to, "/")+"/api/v2/alerts", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(res.Body, 512))
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %q", res.Status, said)
	}
	return nil
}
