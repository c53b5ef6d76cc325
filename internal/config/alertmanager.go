package config

import (
	"fmt"
	"regexp"
	"time"

	promconfig "github.com/prometheus/common/config"
)

// DefaultForgetAfter is three times Alertmanager's own repeat_interval.
const DefaultForgetAfter = 12 * time.Hour

// Alertmanager says how protip and Alertmanagers speak with each other.
type Alertmanager struct {
	Receive *AlertReceive `yaml:"receive,omitempty"` // nil: its webhook is refused
}

// AlertReceive says whose alerts are taken, and of which objects they are.
type AlertReceive struct {
	TokenFile   string        `yaml:"token_file"`             // what the webhook sends as its bearer token
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
}

func (v *validator) alertmanager() {
	r := v.cfg.Alertmanager.Receive
	if r == nil {
		return
	}
	if v.required("alertmanager.receive.token_file", r.TokenFile, "put a long random token into a file, name it here, and give the same to the webhook receiver as http_config.authorization") {
		v.readable("alertmanager.receive.token_file", r.TokenFile, "the token")
	}
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
