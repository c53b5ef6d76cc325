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
	for _, name := range []string{"name", "summary", "description"} {
		r.told = append(r.told, &field{name: "alert_" + name, path: "alert_" + name, typ: text, told: name})
	}
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
