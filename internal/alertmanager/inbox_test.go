package alertmanager_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/alertmanager/alert"
	amconfig "github.com/prometheus/alertmanager/config/common"
	"github.com/prometheus/alertmanager/notify"
	"github.com/prometheus/alertmanager/notify/webhook"
	"github.com/prometheus/alertmanager/template"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	promconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"

	"github.com/protip/protip/internal/alertmanager"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/store"
	"github.com/protip/protip/rules"
)

// rig is an inbox over a real store, and Alertmanager's own sender in front of it.
type rig struct {
	*testing.T
	dir   string
	store *store.Store
	inbox *alertmanager.Inbox
	reg   *prometheus.Registry
	now   time.Time
	send  *webhook.Notifier
}

func newRig(t *testing.T) *rig {
	r := &rig{T: t, dir: t.TempDir(), now: time.Now()}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		m, err := alertmanager.Read(req.Body)
		if err == nil {
			err = r.inbox.Receive(req.Context(), m)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}))
	t.Cleanup(server.Close)
	tmpl, err := template.FromGlobs(nil)
	if err != nil {
		t.Fatal(err)
	}
	tmpl.ExternalURL = &url.URL{Scheme: "http", Host: "alertmanager.example:9093"}
	r.send, err = webhook.New(&webhook.WebhookConfig{
		URL: amconfig.SecretTemplateURL(server.URL), HTTPConfig: &promconfig.HTTPClientConfig{}, MaxAlerts: 3,
	}, tmpl, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r.open()
	return r
}

// open starts over the store, as after a restart.
func (r *rig) open() {
	r.Helper()
	var err error
	if r.store != nil {
		if err := r.store.Close(); err != nil {
			r.Fatal(err)
		}
	}
	if r.store, err = store.Open(r.Context(), r.dir); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = r.store.Close() })
	r.reg = prometheus.NewRegistry()
	r.inbox, err = alertmanager.NewInbox(r.Context(), alertmanager.Options{
		Store: r.store, Now: func() time.Time { return r.now }, ForgetAfter: 12 * time.Hour, Log: slog.New(slog.DiscardHandler), Registerer: r.reg,
	})
	if err != nil {
		r.Fatal(err)
	}
}

// notify sends alerts as Alertmanager does.
func (r *rig) notify(alerts ...*alert.Alert) {
	r.Helper()
	ctx := notify.WithReceiverName(notify.WithGroupLabels(notify.WithGroupKey(context.Background(), "group"), model.LabelSet{}), "protip")
	if _, err := r.send.Notify(ctx, alerts...); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) firing() []rules.Alert {
	return r.inbox.Firing(r.Context(), func(labels map[string]string) (inventory.ID, bool) {
		return inventory.ID{Source: "vc", Kind: inventory.KindHost, Ref: labels["instance"]}, labels["instance"] != ""
	})
}

func (r *rig) metric(name string, want string) {
	r.Helper()
	if err := testutil.GatherAndCompare(r.reg, strings.NewReader(want), name); err != nil {
		r.Error(err)
	}
}

func firing(name, instance string, began time.Time, ended ...time.Time) *alert.Alert {
	a := &alert.Alert{Alert: model.Alert{
		Labels:      model.LabelSet{"alertname": model.LabelValue(name), "instance": model.LabelValue(instance)},
		Annotations: model.LabelSet{"summary": "it is"}, StartsAt: began,
	}}
	if len(ended) > 0 {
		a.EndsAt = ended[0]
	}
	return a
}

func TestAlertmanagersOwnMessages(t *testing.T) {
	r := newRig(t)
	began := r.now.Add(-time.Hour)
	hot := firing("Hot", "esx07", began)
	for range 1000 {
		r.notify(hot)
	}
	got := r.firing()
	if len(got) != 1 || got[0].Labels["alertname"] != "Hot" || got[0].Annotations["summary"] != "it is" || !got[0].Since.Equal(began) {
		t.Fatalf("after a thousand deliveries: %+v", got)
	}
	r.open()
	if got := r.firing(); len(got) != 1 || got[0].Object.Ref != "esx07" {
		t.Fatalf("after a restart: %+v", got)
	}

	ours := firing("HostCPUOverload", "esx07", began)
	ours.Labels[alertmanager.TipLabel] = "a1b2c3"
	r.notify(ours, firing("Lost", "", began), firing("Fan", "esx08", began))
	if got := r.firing(); len(got) != 2 {
		t.Errorf("one of ours, one of nobody and one more: %+v", got)
	}
	r.metric("protip_alerts_firing", `# HELP protip_alerts_firing Alerts of other systems that fire, by whether the inventory has their object.
# TYPE protip_alerts_firing gauge
protip_alerts_firing{object="known"} 2
protip_alerts_firing{object="unknown"} 1
`)

	// It ended and fires again; then the end of the first time is delivered late.
	again := r.now.Add(-time.Minute)
	r.notify(firing("Hot", "esx07", began, r.now.Add(-time.Second)))
	if got := r.firing(); len(got) != 1 {
		t.Errorf("resolved: %+v", got)
	}
	r.notify(firing("Hot", "esx07", again))
	r.notify(firing("Hot", "esx07", began, r.now.Add(-2*time.Minute)))
	if got := r.firing(); len(got) != 2 {
		t.Errorf("a late end: %+v", got)
	}

	r.notify(firing("A", "a", began), firing("B", "b", began), firing("C", "c", began), firing("D", "d", began), firing("E", "e", began))
	r.metric("protip_alerts_truncated_total", `# HELP protip_alerts_truncated_total Alerts that Alertmanager left out of its messages.
# TYPE protip_alerts_truncated_total counter
protip_alerts_truncated_total 2
`)

	r.now = r.now.Add(13 * time.Hour)
	if got := r.firing(); len(got) != 0 {
		t.Errorf("not repeated for 13 hours: %+v", got)
	}
	r.open()
	if got := r.firing(); len(got) != 0 {
		t.Errorf("forgotten, and back after a restart: %+v", got)
	}
}

// TestNotStoredIsNotTaken: what could not be stored is not answered as taken, and does not fire.
func TestNotStoredIsNotTaken(t *testing.T) {
	r := newRig(t)
	if err := r.store.Close(); err != nil {
		t.Fatal(err)
	}
	m := alertmanager.Message{Version: "4", Alerts: []alertmanager.Alert{{Status: "firing", Fingerprint: "1", Labels: map[string]string{"alertname": "X", "instance": "y"}}}}
	if err := r.inbox.Receive(t.Context(), m); err == nil {
		t.Error("no error")
	}
	if got := r.firing(); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(`{"version":"4","alerts":[{"status":"firing","fingerprint":"1","labels":{"alertname":"X"},"startsAt":"2026-01-01T00:00:00Z"}]}`)
	f.Add(`{"version":"4","alerts":[{"status":"resolved","fingerprint":"1","labels":{"alertname":"X"},"endsAt":0}]}`)
	f.Fuzz(func(t *testing.T, body string) {
		m, err := alertmanager.Read(strings.NewReader(body))
		for _, a := range m.Alerts {
			if err == nil && (a.Fingerprint == "" || a.Labels["alertname"] == "") {
				t.Errorf("%+v", a)
			}
		}
	})
}
