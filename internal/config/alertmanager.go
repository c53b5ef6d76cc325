package config

import (
	"fmt"
	"net/url"
	"regexp"
	"time"

	promconfig "github.com/prometheus/common/config"
)

// DefaultForgetAfter is three times Alertmanager's own repeat_interval.
const DefaultForgetAfter = 12 * time.Hour

// Alertmanager says how protip and Alertmanagers speak with each other.
type Alertmanager struct {
	Receive *AlertReceive `yaml:"receive,omitempty"` // nil: its webhook is refused
	Send    []AlertSend   `yaml:"send,omitempty"`    // Alertmanagers that are told of tips; all of a cluster
}

// AlertSend is one Alertmanager that is told of tips.
type AlertSend struct {
	URL             string               `yaml:"url"` // what /api/v2/alerts is below
	Username        string               `yaml:"username,omitempty"`
	PasswordFile    string               `yaml:"password_file,omitempty"`
	BearerTokenFile string               `yaml:"bearer_token_file,omitempty"`
	TLS             promconfig.TLSConfig `yaml:"tls_config,omitempty"`
}

// HTTPClient is how it is reached.
func (s *AlertSend) HTTPClient() promconfig.HTTPClientConfig {
	h := History{Username: s.Username, PasswordFile: s.PasswordFile, BearerTokenFile: s.BearerTokenFile, TLS: s.TLS}
	return h.HTTPClient()
}

// AlertReceive says whose alerts are taken, and of which objects they are.
type AlertReceive struct {
	TokenFile   string        `yaml:"token_file,omitempty"`   // what the webhook sends as its bearer token
	Subject     string        `yaml:"subject,omitempty"`      // of the client certificate that it shows instead, as RFC 2253 writes it
	ForgetAfter time.Duration `yaml:"forget_after,omitempty"` // without a repeat; default 12h
	// Join says which label of an alert names which object, beside what packs declare.
	Join []AlertJoin `yaml:"join,omitempty"`
}

// AlertJoin is one way to find an alert's object.
type AlertJoin struct {
	On      string `yaml:"on"`                // cluster, host, vm, datastore or service
	Label   string `yaml:"label"`             // of the alert
	Field   string `yaml:"field"`             // of the object: name, uuid, ip, mac or hostname
	Pattern string `yaml:"pattern,omitempty"` // with one group, which takes the value out of the label
}

func (a *Alertmanager) fill(c *Config) {
	if a.Receive != nil {
		setDefault(c, "alertmanager.receive.forget_after", &a.Receive.ForgetAfter, DefaultForgetAfter)
	}
}

func (a *Alertmanager) resolve(dir string) {
	if a.Receive != nil {
		a.Receive.TokenFile = promconfig.JoinDir(dir, a.Receive.TokenFile)
	}
	for i := range a.Send {
		s := &a.Send[i]
		s.PasswordFile = promconfig.JoinDir(dir, s.PasswordFile)
		s.BearerTokenFile = promconfig.JoinDir(dir, s.BearerTokenFile)
		s.TLS.SetDirectory(dir)
	}
}

func (v *validator) alertmanager() {
	for i, s := range v.cfg.Alertmanager.Send {
		v.alertSend(func(field string) string { return fmt.Sprintf("alertmanager.send[%d].%s", i, field) }, &s)
	}
	r := v.cfg.Alertmanager.Receive
	if r == nil {
		return
	}
	if r.Subject == "" {
		v.required("alertmanager.receive.token_file", r.TokenFile, "put a long random token into a file, name it here, and give the same to the webhook receiver as http_config.authorization; or name the subject of its client certificate")
	}
	v.readable("alertmanager.receive.token_file", r.TokenFile, "the token")
	if r.ForgetAfter < time.Minute && !v.reported("alertmanager.receive.forget_after") {
		v.bad("alertmanager.receive.forget_after", fmt.Sprintf("alertmanager.receive.forget_after is %s", r.ForgetAfter), "write more than Alertmanager's repeat_interval, as 12h")
	}
	for i, j := range r.Join {
		at := func(field string) string { return fmt.Sprintf("alertmanager.receive.join[%d].%s", i, field) }
		v.oneOf(at("on"), j.On, []string{"cluster", "host", "vm", "datastore", "service"})
		v.required(at("label"), j.Label, "name a label of the alert, as instance")
		v.oneOf(at("field"), j.Field, []string{"name", "uuid", "ip", "mac", "hostname"})
		if re, err := regexp.Compile(j.Pattern); j.Pattern != "" && (err != nil || re.NumSubexp() != 1 || len(j.Pattern) > 128) {
			v.bad(at("pattern"), at("pattern")+" is not a regular expression with one group", `put what is the name into ( ), as in "(.*):9100"`)
		}
	}
}

func (v *validator) alertSend(at func(string) string, s *AlertSend) {
	if !v.required(at("url"), s.URL, "write the Alertmanager's address, as http://127.0.0.1:9093") {
		return
	}
	u, err := url.Parse(s.URL)
	secret := s.Username != "" || s.BearerTokenFile != ""
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		v.bad(at("url"), at("url")+" is not a URL", "write it as https://alertmanager.example.com")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		v.bad(at("url"), at("url")+" holds a user, a password, a query or a fragment", "take them out; a user and a password belong into username and password_file")
	case secret && u.Scheme == "http" && !loopback(u.Hostname()):
		v.bad(at("url"), at("url")+" is plain http, which would send the credentials readable", "write https")
	}
	switch {
	case s.Username != "" && s.BearerTokenFile != "":
		v.bad(at("bearer_token_file"), at("bearer_token_file")+" is beside "+at("username"), "write one of the two")
	case s.Username != "":
		v.required(at("password_file"), s.PasswordFile, "name a file that holds the password and nothing else")
	}
	v.readable(at("password_file"), s.PasswordFile, "the password")
	v.readable(at("bearer_token_file"), s.BearerTokenFile, "the token")
	if err := s.TLS.Validate(); err != nil {
		v.bad(at("tls_config"), at("tls_config")+": "+err.Error(), "set one of each pair, and cert_file together with key_file")
	}
}
