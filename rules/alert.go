package rules

import (
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/protip/protip/internal/inventory"
)

// Alert is an alert of another system that fires now, and the object that it is of.
type Alert struct {
	Object      inventory.ID
	Labels      map[string]string
	Annotations map[string]string
	Since       time.Time
}

// maxMatchers bounds the labels that on_alert asks for.
const maxMatchers = 10

// readAlert reads the labels that an alert must have for the rule to hold.
func (p *packParser) readAlert(r *Rule, n *yaml.Node) {
	r.alert = map[string]string{}
	p.pairs(n, "on_alert", func(k, v *yaml.Node) {
		switch {
		case !labelName.MatchString(k.Value):
			p.failNode(k, "it is a label of the alert, as severity", "label %s is not well formed", quoted(k.Value))
		case len(r.alert) >= maxMatchers:
			p.failNode(k, "", "on_alert asks for more than %d labels", maxMatchers)
		default:
			r.alert[k.Value] = p.text(v, "on_alert."+k.Value, maxText)
		}
	})
	if n.Kind == yaml.MappingNode && r.alert["alertname"] == "" {
		p.failNode(n, "write on_alert: {alertname: ...}", "on_alert needs alertname")
	}
	r.told = told()
}

// told are what an alert says, as a summary may show it.
func told() []*field {
	var out []*field
	for _, name := range []string{"name", "summary", "description"} {
		out = append(out, &field{name: "alert_" + name, path: "alert_" + name, typ: text, told: name})
	}
	return out
}

// firing are the alerts that the rule waits for, by object; of several of one object the oldest.
func (r *Rule) firing(alerts []Alert) map[inventory.ID]*Alert {
	out := map[inventory.ID]*Alert{}
	for i := range alerts {
		a := &alerts[i]
		matches := a.Object.Kind == r.On
		for name, value := range r.alert {
			matches = matches && a.Labels[name] == value
		}
		if was := out[a.Object]; matches && (was == nil || a.Since.Before(was.Since)) {
			out[a.Object] = a
		}
	}
	return out
}

// say is what an alert tells, fit to be shown.
func (a *Alert) say(what string) string {
	if what == "name" {
		return clip(a.Labels["alertname"])
	}
	return clip(oneLine(a.Annotations[what]))
}

// waitsFor is what on_alert waits for, in words.
func (r *Rule) waitsFor() string {
	var rest []string
	for name, value := range r.alert {
		if name != "alertname" {
			rest = append(rest, name+"="+value)
		}
	}
	slices.Sort(rest)
	if len(rest) == 0 {
		return "alert " + r.alert["alertname"] + " fires"
	}
	return "alert " + r.alert["alertname"] + " fires with " + strings.Join(rest, ", ")
}

// AlertPack is the name of the pack whose rules stand for alerts that no rule of another pack waits for.
const AlertPack = "alertmanager"

// WithAlerts is the set and, for each alert that no rule of it waits for, a rule that reports it and proposes nothing. tips keep
// the rules of alerts that are over, so that they end as such.
func (s *Set) WithAlerts(alerts []Alert, tips []Tip) *Set {
	pack := &Pack{Name: AlertPack, Version: "1.0.0", Description: "Alerts of Prometheus, as they come.", varying: map[string]*field{}}
	rules := map[string]*Rule{}
	add := func(name string, on inventory.Kind, severity Severity) {
		key := on.String() + "/" + name
		if r, ok := rules[key]; ok {
			if worse(severity, r.Severity) {
				r.Severity = severity
			}
			return
		}
		r := &Rule{Pack: pack, Name: name, On: on, Severity: severity, Remedy: Remedy{Action: NoRemedy}, alert: map[string]string{"alertname": name}}
		r.when.words = r.waitsFor()
		r.told = told()
		r.summary, _ = parseTemplate("{{alert_name}}: {{alert_summary}}", scope{on: on, with: r.told}) // a constant: a test compiles it
		rules[key] = r
		pack.Rules = append(pack.Rules, r)
	}
	for i := range alerts {
		if !s.awaits(&alerts[i]) {
			add(clip(oneLine(alerts[i].Labels["alertname"])), alerts[i].Object.Kind, severityOf(alerts[i].Labels["severity"]))
		}
	}
	for _, tip := range tips {
		if tip.Pack == AlertPack && tip.State != Resolved {
			add(tip.Rule, tip.Object.Kind, tip.Severity)
		}
	}
	if len(pack.Rules) == 0 {
		return s
	}
	return &Set{packs: append(slices.Clone(s.packs), pack), rules: append(slices.Clone(s.rules), pack.Rules...)}
}

// awaits reports whether a rule of the set waits for the alert.
func (s *Set) awaits(a *Alert) bool {
	for _, r := range s.rules {
		if r.alert != nil && r.firing([]Alert{*a})[a.Object] != nil {
			return true
		}
	}
	return false
}

// severityOf is the severity that an alert's label says; what it does not say, or says otherwise, is a warning.
func severityOf(label string) Severity {
	switch s := Severity(strings.ToLower(label)); s {
	case Critical, Warning, Info:
		return s
	}
	return Warning
}

func worse(a, b Severity) bool {
	rank := map[Severity]int{Info: 1, Warning: 2, Critical: 3}
	return rank[a] > rank[b]
}
