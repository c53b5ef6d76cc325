// Package alertmanager speaks with Prometheus' Alertmanager: it takes its webhook, so that alerts become tips.
// It promises that a message is on disk before it is answered, that a repeat changes nothing, and that no alert ever acts.
// It must not import remediation, web, app or a platform.
package alertmanager

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"
)

// Bounds of a message. Alertmanager itself sends what its groups hold; a stranger may send anything.
const (
	MaxBody   = 4 << 20
	maxAlerts = 5000
	maxLabels = 64
	maxText   = 4096 // bytes of one label or annotation
)

// ErrMessage says that a message is none of Alertmanager's, or larger than any that is.
var ErrMessage = errors.New("not a webhook message of Alertmanager")

// Message is version 4 of the webhook's payload, as far as protip reads it. Keys that newer versions add are passed over.
type Message struct {
	Version         string  `json:"version"`
	GroupKey        string  `json:"groupKey"`
	TruncatedAlerts uint64  `json:"truncatedAlerts"`
	ExternalURL     string  `json:"externalURL"`
	Alerts          []Alert `json:"alerts"`
}

// Alert is one alert of a message.
type Alert struct {
	Status       string            `json:"status"` // firing | resolved
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL"`
	Fingerprint  string            `json:"fingerprint"`
}

// Firing reports whether the alert has not ended.
func (a *Alert) Firing() bool { return a.Status != "resolved" }

// Read reads a message and no more than MaxBody of it.
func Read(r io.Reader) (Message, error) {
	var m Message
	dec := json.NewDecoder(io.LimitReader(r, MaxBody))
	if err := dec.Decode(&m); err != nil {
		return m, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	switch {
	case m.Version != "4":
		return m, fmt.Errorf("%w: version %.16q, want 4", ErrMessage, m.Version)
	case len(m.Alerts) > maxAlerts:
		return m, fmt.Errorf("%w: %d alerts, and at most %d are taken: set max_alerts of the webhook receiver", ErrMessage, len(m.Alerts), maxAlerts)
	}
	for i := range m.Alerts {
		if err := m.Alerts[i].check(); err != nil {
			return m, fmt.Errorf("%w: alert %d: %w", ErrMessage, i, err)
		}
	}
	return m, nil
}

func (a *Alert) check() error {
	switch {
	case a.Status != "firing" && a.Status != "resolved":
		return fmt.Errorf("status %.16q", a.Status)
	case a.Fingerprint == "" || len(a.Fingerprint) > 64:
		return errors.New("no fingerprint")
	case a.Labels["alertname"] == "":
		return errors.New("no alertname")
	}
	for _, set := range []map[string]string{a.Labels, a.Annotations} {
		if len(set) > maxLabels {
			return fmt.Errorf("%d labels or annotations", len(set))
		}
		for name, value := range set {
			if len(name) > maxText || len(value) > maxText || !utf8.ValidString(value) {
				return fmt.Errorf("label or annotation %.32q is too long, or not UTF-8", name)
			}
		}
	}
	return nil
}
