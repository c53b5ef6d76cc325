package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	promconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/version"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// webhookVersion is of the payload. A field may be added without a new one; none is removed or changes what it means.
const webhookVersion = "1"

// webhookPayload is what a webhook is told: documented in docs/remediation.md.
type webhookPayload struct {
	Version string    `json:"version"`
	Action  string    `json:"action"` // the same if the receiver sees it twice
	At      time.Time `json:"at"`
	By      string    `json:"by"`
	Tip     tipTold   `json:"tip"`
}

type tipTold struct {
	ID         string           `json:"id"`
	Episode    int              `json:"episode"`
	Pack       string           `json:"pack"`
	PackSHA256 string           `json:"pack_sha256"`
	Rule       string           `json:"rule"`
	Severity   rules.Severity   `json:"severity"`
	State      rules.State      `json:"state"`
	Object     objectTold       `json:"object"`
	Cluster    *objectTold      `json:"cluster,omitempty"`
	Summary    string           `json:"summary"`
	Cause      string           `json:"cause"`
	Evidence   []rules.Evidence `json:"evidence"`
	Since      time.Time        `json:"since"`
	ActiveAt   time.Time        `json:"active_at"`
}

type objectTold struct {
	Source string `json:"source"`
	Kind   string `json:"kind"`
	Ref    string `json:"ref"`
	Name   string `json:"name"`
}

func told(id inventory.ID, name string) objectTold {
	return objectTold{id.Source, id.Kind.String(), id.Ref, name}
}

// proposeCall is the call that a tip asks for, or nothing.
func (a *App) proposeCall(snap *inventory.Snapshot, tip rules.Tip) proposal {
	p := proposal{decision: a.decide(snap, tip, tip.Object.Source, tip.Cluster, nil)}
	if tip.Remedy.Action != rules.Webhook {
		return p
	}
	r := a.settings.Load().config.Remediation
	if r == nil {
		return p
	}
	if _, ok := r.WebhookOf(tip.Remedy.Webhook); !ok {
		p.decision = remediation.Decision{Verdict: remediation.Refuse, Why: fmt.Sprintf(
			"no webhook %s: name it under remediation.webhooks in the agent's configuration", tip.Remedy.Webhook)}
		return p
	}
	p.actions = []remediation.Action{{
		TipID: tip.ID, Cluster: tip.Cluster, Kind: remediation.WebhookCall, Webhook: tip.Remedy.Webhook, DryRun: r.DryRun,
		VM: tip.Object, VMName: tip.Name, ToName: "webhook " + tip.Remedy.Webhook, Why: tip.Summary,
	}}
	return p
}

// callWebhook posts the tip of an action. Only an answer of 2xx is taken for taken. The address and the token stand in no error.
func (a *App) callWebhook(ctx context.Context, act remediation.Action) error {
	r := a.settings.Load().config.Remediation
	if r == nil {
		return errors.New("the configuration has no remediation section")
	}
	hook, ok := r.WebhookOf(act.Webhook)
	if !ok {
		return fmt.Errorf("no webhook %s is configured any more", act.Webhook)
	}
	tip, err := agent{a}.Tip(ctx, act.TipID)
	if err != nil {
		return err
	}
	body, err := json.Marshal(a.payload(act, tip))
	if err != nil {
		return fmt.Errorf("payload of %s: %w", act.ToName, err)
	}
	client, err := promconfig.NewClientFromConfig(hook.HTTPClient(), "webhook", promconfig.WithUserAgent("protip/"+version.Version))
	if err != nil {
		return fmt.Errorf("%s: %w", act.ToName, err)
	}
	defer client.CloseIdleConnections()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	ctx, cancel := context.WithTimeout(ctx, hook.Timeout)
	defer cancel()
	var sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, hook.URL, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s: its address is none", act.ToName)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", act.ID)
	req.GetBody = nil // or the transport would send it again by itself
	res, err := client.Do(req)
	if err != nil {
		return lostOrRefused(act, err, sent.Load())
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("%s answers HTTP %d", act.ToName, res.StatusCode)
	}
	return nil
}

// lostOrRefused tells a call that surely was not made from one of which nobody knows.
func lostOrRefused(act remediation.Action, err error, sent bool) error {
	if at := (*url.Error)(nil); errors.As(err, &at) {
		err = at.Err // without the address, which may be as good as a password
	}
	if !sent {
		return fmt.Errorf("%s was not called: %v", act.ToName, err)
	}
	return fmt.Errorf("%s was called and did not answer (%v): %w", act.ToName, err, remediation.ErrUndecided)
}

func (a *App) payload(act remediation.Action, tip rules.Tip) webhookPayload {
	p := webhookPayload{
		Version: webhookVersion, Action: act.ID, At: a.clock.Now(), By: act.By,
		Tip: tipTold{
			ID: tip.ID, Episode: tip.Episode, Pack: tip.Pack, PackSHA256: tip.PackSHA256, Rule: tip.Rule, Severity: tip.Severity, State: tip.State,
			Object: told(tip.Object, tip.Name), Summary: tip.Summary, Cause: tip.Cause, Evidence: finiteOnly(tip.Evidence),
			Since: tip.Since, ActiveAt: tip.ActiveAt,
		},
	}
	if c, ok := a.fleet.Snapshot().Cluster(tip.Cluster); ok {
		cluster := told(c.ID, c.Name)
		p.Tip.Cluster = &cluster
	}
	return p
}

// finiteOnly leaves out what JSON cannot hold.
func finiteOnly(evidence []rules.Evidence) []rules.Evidence {
	out := []rules.Evidence{}
	for _, e := range evidence {
		if !math.IsNaN(e.Value) && !math.IsInf(e.Value, 0) {
			out = append(out, e)
		}
	}
	return out
}
