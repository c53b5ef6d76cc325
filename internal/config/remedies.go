package config

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"time"

	promconfig "github.com/prometheus/common/config"
)

// DefaultWebhookTimeout is for connecting, asking and answering, all in all.
const DefaultWebhookTimeout = 10 * time.Second

// Severities of tips, the least first.
var severities = []string{"info", "warning", "critical"}

// ClusterMode is how far remediation goes in a source, or in one cluster of it. What it leaves out is as it is around it.
type ClusterMode struct {
	Source   string `yaml:"source"`
	Cluster  string `yaml:"cluster,omitempty"`  // name; empty: all of the source
	Mode     string `yaml:"mode,omitempty"`     // off | manual
	Severity string `yaml:"severity,omitempty"` // info | warning | critical
}

// Window is when protip may act by itself.
type Window struct {
	Days     []string `yaml:"days,omitempty"`      // mon, tue, ...; default: all
	From     string   `yaml:"from"`                // 22:00
	To       string   `yaml:"to"`                  // 05:00, on the next day if it is not after From
	TimeZone string   `yaml:"time_zone,omitempty"` // Europe/Berlin; default UTC
}

// Webhook is what a remedy may call, by its name.
type Webhook struct {
	Name            string               `yaml:"name"`
	URL             string               `yaml:"url"`
	BearerTokenFile string               `yaml:"bearer_token_file,omitempty"`
	TLS             promconfig.TLSConfig `yaml:"tls_config,omitempty"`
	Timeout         time.Duration        `yaml:"timeout,omitempty"` // default 10s
}

// HTTPClient is how it is called.
func (w *Webhook) HTTPClient() promconfig.HTTPClientConfig {
	h := History{BearerTokenFile: w.BearerTokenFile, TLS: w.TLS}
	return h.HTTPClient()
}

// WebhookOf is the webhook of a name, false if there is none.
func (r *Remediation) WebhookOf(name string) (Webhook, bool) {
	i := slices.IndexFunc(r.Webhooks, func(w Webhook) bool { return w.Name == name })
	if i < 0 {
		return Webhook{}, false
	}
	return r.Webhooks[i], true
}

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// Hours is the window in numbers: on which days it begins, by time.Weekday, from and to in minutes of the day, and where. to is at most
// 24 h after the beginning of the day after.
func (w Window) Hours() (days [7]bool, from, to int, zone *time.Location, err error) {
	for _, d := range w.Days {
		i := slices.Index(weekdays, d)
		if i < 0 {
			return days, 0, 0, nil, fmt.Errorf("days: %s is none of %v", quote(d), weekdays)
		}
		days[i] = true
	}
	if len(w.Days) == 0 {
		days = [7]bool{true, true, true, true, true, true, true}
	}
	if from, err = minutes(w.From); err != nil {
		return days, 0, 0, nil, fmt.Errorf("from: %w", err)
	}
	if to, err = minutes(w.To); err != nil {
		return days, 0, 0, nil, fmt.Errorf("to: %w", err)
	}
	if to <= from {
		to += 24 * 60
	}
	zone, err = time.LoadLocation(w.TimeZone)
	return days, from, to, zone, err
}

var clockTime = regexp.MustCompile(`^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$`)

func minutes(s string) (int, error) {
	if !clockTime.MatchString(s) {
		return 0, fmt.Errorf("%s is no time of the day: write it as 22:00", quote(s))
	}
	return (int(s[0]-'0')*10+int(s[1]-'0'))*60 + int(s[3]-'0')*10 + int(s[4]-'0'), nil
}

func (r *Remediation) fill(c *Config) {
	setDefault(c, "remediation.severity", &r.Severity, severities[0])
	for i := range r.Webhooks {
		setDefault(c, key("remediation.webhooks", i, "timeout"), &r.Webhooks[i].Timeout, DefaultWebhookTimeout)
	}
}

func (r *Remediation) resolve(dir string) {
	for i := range r.Webhooks {
		w := &r.Webhooks[i]
		w.BearerTokenFile = promconfig.JoinDir(dir, w.BearerTokenFile)
		w.TLS.SetDirectory(dir)
	}
}

// remedies checks how far remediation goes where, when, and what it may call.
func (v *validator) remedies(r *Remediation) {
	v.oneOf("remediation.severity", r.Severity, severities)
	first := map[string]bool{}
	for i, c := range r.Clusters {
		at := func(field string) string { return fmt.Sprintf("remediation.clusters[%d].%s", i, field) }
		if v.required(at("source"), c.Source, "name one of the sources") {
			v.source(at("source"), c.Source)
		}
		if c.Mode == "" && c.Severity == "" {
			v.bad(fmt.Sprintf("remediation.clusters[%d]", i), "it changes nothing", "write a mode, a severity or both")
		}
		if c.Mode != "" {
			v.oneOf(at("mode"), c.Mode, modes)
		}
		if c.Severity != "" {
			v.oneOf(at("severity"), c.Severity, severities)
		}
		if name := c.Source + "/" + c.Cluster; first[name] {
			v.bad(at("source"), fmt.Sprintf("%s is listed twice", quote(name)), "remove one")
		} else {
			first[name] = true
		}
	}
	for i, w := range r.Windows {
		at := fmt.Sprintf("remediation.windows[%d]", i)
		if _, _, _, _, err := w.Hours(); err != nil && !v.reported(at+".from") && !v.reported(at+".to") {
			v.bad(at, fmt.Sprintf("%s: %v", at, err), "write it as {days: [sat, sun], from: \"22:00\", to: \"05:00\", time_zone: Europe/Berlin}")
		}
	}
	named := map[string]bool{}
	for i, w := range r.Webhooks {
		v.webhook(func(field string) string { return fmt.Sprintf("remediation.webhooks[%d].%s", i, field) }, &w)
		if named[w.Name] {
			v.bad(fmt.Sprintf("remediation.webhooks[%d].name", i), fmt.Sprintf("webhook %s is named twice", quote(w.Name)), "give it a name of its own")
		}
		named[w.Name] = true
	}
}

func (v *validator) webhook(at func(string) string, w *Webhook) {
	if v.required(at("name"), w.Name, "give it the name that packs call it by") && !sourceName.MatchString(w.Name) {
		v.bad(at("name"), at("name")+" holds more than letters, digits, _, . and -", "write it as on-call; it begins with a letter or a digit")
	}
	if v.required(at("url"), w.URL, "write where tips are posted, as https://hooks.example.com/protip") {
		u, err := url.Parse(w.URL)
		switch {
		case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
			v.bad(at("url"), at("url")+" is not a URL", "write it as https://hooks.example.com/protip")
		case u.User != nil || u.RawQuery != "" || u.Fragment != "":
			v.bad(at("url"), at("url")+" holds a user, a password, a query or a fragment", "take them out; a token belongs into bearer_token_file")
		case u.Scheme == "http" && !loopback(u.Hostname()):
			v.bad(at("url"), at("url")+" is plain http, which anybody on the way could read or change", "write https")
		}
	}
	v.readable(at("bearer_token_file"), w.BearerTokenFile, "the token")
	v.tlsConfig(at("tls_config"), w.TLS)
	if (w.Timeout < time.Second || w.Timeout > 5*time.Minute) && !v.reported(at("timeout")) {
		v.bad(at("timeout"), fmt.Sprintf("%s is %s", at("timeout"), w.Timeout), "write 1s to 5m")
	}
}
