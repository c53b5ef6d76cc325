package app

import (
	"context"
	"fmt"
	"regexp"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/protip/protip/internal/alertmanager"
	"github.com/protip/protip/internal/config"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/web"
	"github.com/protip/protip/rules"
)

// openInbox reads which alerts fired when the agent ended. Without a section nobody's are taken.
func (a *App) openInbox(ctx context.Context, cfg *config.Config, registry prometheus.Registerer) (err error) {
	r := cfg.Alertmanager.Receive
	if r == nil {
		return nil
	}
	a.inbox, err = alertmanager.NewInbox(ctx, alertmanager.Options{
		Store: a.store, Now: a.clock.Now, ForgetAfter: r.ForgetAfter, Log: a.log, Registerer: registry,
	})
	return err
}

// openOutbox makes what tells Alertmanagers of tips; it connects to nothing.
func (a *App) openOutbox(cfg *config.Config, registry prometheus.Registerer) (err error) {
	if len(cfg.Alertmanager.Send) == 0 {
		return nil
	}
	o := alertmanager.SenderOptions{ExternalURL: cfg.Web.ExternalURL, Log: a.log, Registerer: registry}
	for _, to := range cfg.Alertmanager.Send {
		o.Targets = append(o.Targets, alertmanager.Target{URL: to.URL, HTTP: to.HTTPClient()})
	}
	a.outbox, err = alertmanager.NewSender(o)
	return err
}

func (a *App) alertReceiver() web.Alerts {
	if a.inbox == nil {
		return web.Alerts{}
	}
	configured := func() config.AlertReceive {
		if r := a.settings.Load().config.Alertmanager.Receive; r != nil {
			return *r
		}
		return config.AlertReceive{}
	}
	return web.Alerts{Receiver: a.inbox, Subject: func() string { return configured().Subject }, Token: func() (string, error) {
		file := configured().TokenFile
		if file == "" {
			return "", nil
		}
		token, err := readLine(file)
		if err != nil {
			err = fmt.Errorf("token of Alertmanager's webhook: %w", err)
		}
		return token, err
	}}
}

// withAlerts is the set with a rule for each alert that none of its own waits for, and the alerts that fire.
func (a *App) withAlerts(ctx context.Context, s *settings, snap *inventory.Snapshot) (*rules.Set, []rules.Alert) {
	if a.inbox == nil {
		return s.rules, nil
	}
	alerts := a.inbox.Firing(ctx, s.rules.Locate(snap, joinsOf(s.config.Alertmanager.Receive)))
	a.mu.Lock()
	defer a.mu.Unlock()
	return s.rules.WithAlerts(alerts, a.tips), alerts
}

func joinsOf(r *config.AlertReceive) []rules.Join {
	if r == nil {
		return nil
	}
	var out []rules.Join
	for _, j := range r.Join {
		on, err := inventory.ParseKind(j.On)
		if err != nil {
			continue // the configuration was validated
		}
		join := rules.Join{On: on, Label: j.Label, Field: j.Field}
		if j.Pattern != "" {
			join.Pattern = regexp.MustCompile("^(?:" + j.Pattern + ")$") // likewise
		}
		out = append(out, join)
	}
	return out
}
