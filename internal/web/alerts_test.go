package web

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/protip/protip/internal/alertmanager"
)

const alertToken = "alertmanager-token"

// inbox notes what it takes.
type inbox struct {
	taken   []alertmanager.Message
	failure error
}

func (i *inbox) Receive(_ context.Context, m alertmanager.Message) error {
	if i.failure == nil {
		i.taken = append(i.taken, m)
	}
	return i.failure
}

const message = `{"version":"4","groupKey":"{}","status":"firing","receiver":"protip","truncatedAlerts":0,"notification_reason":"new",
	"alerts":[{"status":"firing","labels":{"alertname":"Hot","instance":"esx07"},"annotations":{"summary":"hot"},
	"startsAt":"2026-11-23T12:00:00Z","endsAt":"0001-01-01T00:00:00Z","fingerprint":"c0ffee"}]}`

func alertSubject() string { return "CN=alertmanager" }

// certified shows a client certificate, verified or not.
func certified(subject string, verified bool) func(*http.Request) {
	cert := &x509.Certificate{}
	for _, part := range strings.Split(subject, ",") {
		switch name, value, _ := strings.Cut(part, "="); name {
		case "CN":
			cert.Subject.CommonName = value
		case "OU":
			cert.Subject.OrganizationalUnit = []string{value}
		}
	}
	return func(r *http.Request) {
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
		if verified {
			r.TLS.VerifiedChains = [][]*x509.Certificate{{cert}}
		}
	}
}

func TestWebhook(t *testing.T) {
	for _, tc := range []struct {
		name, method, body string
		edit               func(*http.Request)
		options            func(*Options)
		want               int
	}{
		{"anonymous", "POST", message, func(*http.Request) {}, nil, 401},
		{"wrong token", "POST", message, bearer("guess"), nil, 401},
		{"the operator's token", "POST", message, bearer(token), nil, 401},
		{"basic auth", "POST", message, func(r *http.Request) { r.SetBasicAuth("x", alertToken) }, nil, 401},
		{"not configured", "POST", message, bearer(alertToken), func(o *Options) { o.Alerts = Alerts{} }, 403},
		{"empty token configured", "POST", message, bearer(""), func(o *Options) { o.Alerts.Token = func() (string, error) { return " \n", nil } }, 403},
		{"unreadable token", "POST", message, bearer(alertToken), func(o *Options) { o.Alerts.Token = func() (string, error) { return "", errors.New("gone") } }, 403},
		{"cross-site", "POST", message, func(r *http.Request) { crossSite(r); bearer(alertToken)(r) }, nil, 403},
		{"oversized", "POST", `{"x":"` + strings.Repeat("x", alertmanager.MaxBody) + `"}`, bearer(alertToken), nil, 400},
		{"no JSON", "POST", "<xml/>", bearer(alertToken), nil, 400},
		{"another version", "POST", strings.Replace(message, `"4"`, `"5"`, 1), bearer(alertToken), nil, 400},
		{"no fingerprint", "POST", strings.Replace(message, "c0ffee", "", 1), bearer(alertToken), nil, 400},
		{"get", "GET", "", bearer(alertToken), nil, 405},
		{"an operator's certificate", "POST", message, certified("CN=ivan,OU=ops", true), func(o *Options) { o.Alerts.Subject = alertSubject }, 401},
		{"certificate that nobody verified", "POST", message, certified("CN=alertmanager", false), func(o *Options) { o.Alerts.Subject = alertSubject }, 401},
		{"certificate where none is configured", "POST", message, certified("CN=alertmanager", true), nil, 401},
		{"no certificate where no token is configured", "POST", message, bearer(""), func(o *Options) { o.Alerts.Token, o.Alerts.Subject = nil, alertSubject }, 401},
		{"empty subject configured", "POST", message, certified("", true), func(o *Options) { o.Alerts.Token, o.Alerts.Subject = nil, func() string { return "" } }, 403},
	} {
		in := &inbox{}
		o := options(hotAgent(t))
		o.Alerts = Alerts{Receiver: in, Token: func() (string, error) { return alertToken + "\n", nil }}
		if tc.options != nil {
			tc.options(&o)
		}
		w := do(New(o), tc.method, webhookPath, tc.body, tc.edit)
		if w.Code != tc.want || len(in.taken) != 0 {
			t.Errorf("%s: %d, want %d; %d taken\n%s", tc.name, w.Code, tc.want, len(in.taken), w.Body)
		}
		checkHeaders(t, w.Header())
	}
	in := &inbox{}
	o := options(hotAgent(t))
	o.Alerts = Alerts{Receiver: in, Token: func() (string, error) { return alertToken, nil }}
	if w := do(New(o), "POST", webhookPath, message, bearer(alertToken)); w.Code != 200 || len(in.taken) != 1 || in.taken[0].Alerts[0].Labels["instance"] != "esx07" {
		t.Errorf("right: %d, %+v\n%s", w.Code, in.taken, w.Body)
	}
	o.Alerts.Subject = alertSubject
	for name, edit := range map[string]func(*http.Request){"certificate": certified("CN=alertmanager", true), "token": bearer(alertToken)} {
		if w := do(New(o), "POST", webhookPath, message, edit); w.Code != 200 {
			t.Errorf("%s where both are configured: %d\n%s", name, w.Code, w.Body)
		}
	}
	if w := do(New(o), "POST", "/-/reload", "", certified("CN=alertmanager", true)); w.Code != 401 {
		t.Errorf("the webhook's certificate acts: %d", w.Code)
	}
	in.failure = errors.New("disk full")
	if w := do(New(o), "POST", webhookPath, message, bearer(alertToken)); w.Code != 500 {
		t.Errorf("not stored: %d, want 500, so that it comes again", w.Code)
	}
}
