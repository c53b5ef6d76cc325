package rules

import (
	"strings"
	"testing"
	"time"

	"github.com/protip/protip/internal/inventory"
)

const alertRule = `pack: p
version: 1.0.0
description: d
rules:
  - name: R
    on: host
    on_alert: {alertname: HostMemoryECC, severity: critical}
    severity: critical
    summary: "{{host.name}}: {{alert_name}}: {{alert_summary}}"
    remedy: {action: none}
`

func TestOnAlert(t *testing.T) {
	host, other := id(inventory.KindHost, "h"), id(inventory.KindHost, "x")
	alert := func(of inventory.ID, severity string) Alert {
		return Alert{
			Object: of, Since: noon, Labels: map[string]string{"alertname": "HostMemoryECC", "severity": severity, "job": "ipmi"},
			Annotations: map[string]string{"summary": "bank 3\nfails"},
		}
	}
	for name, tc := range map[string]struct {
		alerts []Alert
		want   Verdict
	}{
		"none":                 {nil, False},
		"it":                   {[]Alert{alert(host, "critical")}, True},
		"another severity":     {[]Alert{alert(host, "warning")}, False},
		"another host":         {[]Alert{alert(other, "critical")}, False},
		"a VM of the same ref": {[]Alert{alert(id(inventory.KindVM, "h"), "critical")}, False},
	} {
		t.Run(name, func(t *testing.T) {
			set := mustLoad(t, alertRule)
			found, _ := set.Eval(Input{Snapshot: hotFleet(t), Alerts: tc.alerts, Now: noon})
			f := found[0]
			if f.When != tc.want || (f.Clear == True) != (tc.want == False) || f.Err != nil {
				t.Fatalf("%+v", f)
			}
			if tc.want == True && (f.Summary != "h: HostMemoryECC: bank 3 fails" || f.Cause != "alert HostMemoryECC fires with severity=critical") {
				t.Errorf("%q, because %q", f.Summary, f.Cause)
			}
		})
	}
}

// TestOnAlertLives: the tip comes with the alert, and goes with it.
func TestOnAlertLives(t *testing.T) {
	set, snap := mustLoad(t, alertRule), hotFleet(t)
	firing := []Alert{{Object: id(inventory.KindHost, "h"), Labels: map[string]string{"alertname": "HostMemoryECC", "severity": "critical"}}}
	var tips []Tip
	for i, alerts := range [][]Alert{firing, firing, nil} {
		now := noon.Add(time.Duration(i) * time.Second)
		found, _ := set.Eval(Input{Snapshot: snap, Alerts: alerts, Now: now})
		tips, _ = Step(tips, Turn{Set: set, Snapshot: snap, Findings: found, Now: now})
	}
	if len(tips) != 1 || tips[0].State != Resolved || tips[0].ResolvedWhy != "no longer: alert HostMemoryECC fires with severity=critical" {
		t.Errorf("%+v", tips)
	}
}

func TestOnAlertStandsAlone(t *testing.T) {
	for change, want := range map[string]string{
		"on_alert: {alertname: X}\n    when: host.cpu_usage_ratio > 1": "on_alert is beside when, clear or with",
		"on_alert: {severity: critical}":                               "on_alert needs alertname",
		"on_alert: X":                                                  "on_alert must be a mapping",
		"for: 5m":                                                      "a rule needs when, or on_alert",
	} {
		text := strings.Replace(alertRule, "on_alert: {alertname: HostMemoryECC, severity: critical}", change, 1)
		if _, err := Load([]File{{"p.yml", []byte(text)}}, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", change, err, want)
		}
	}
}

// TestAlertsThatNoRuleAwaits become tips by themselves, one for each alert of an object, and propose nothing.
func TestAlertsThatNoRuleAwaits(t *testing.T) {
	snap := hotFleet(t)
	host := id(inventory.KindHost, "h")
	alert := func(name, severity string) Alert {
		return Alert{Object: host, Labels: map[string]string{"alertname": name, "severity": severity}, Annotations: map[string]string{"summary": "s"}, Since: noon}
	}
	set := mustLoad(t, alertRule)
	var tips []Tip
	turn := func(n int, alerts ...Alert) {
		now := noon.Add(time.Duration(n) * time.Minute)
		own := set.WithAlerts(alerts, tips)
		found, _ := own.Eval(Input{Snapshot: snap, Alerts: alerts, Followed: Follow(tips), Now: now})
		tips, _ = Step(tips, Turn{Set: own, Snapshot: snap, Findings: found, Now: now})
	}
	state := func() string {
		var out []string
		for _, tip := range tips {
			out = append(out, tip.Pack+"/"+tip.Rule+" "+string(tip.Severity)+" "+string(tip.State)+" "+tip.Summary+" "+string(tip.Remedy.Action))
		}
		return strings.Join(out, "\n")
	}
	turn(0, alert("HostMemoryECC", "critical"), alert("Fan", "page"), alert("Disk", "critical"))
	want := "p/R critical active h: HostMemoryECC: s none\nalertmanager/Fan warning active Fan: s none\nalertmanager/Disk critical active Disk: s none"
	if state() != want {
		t.Errorf("got\n%s\nwant\n%s", state(), want)
	}
	turn(1, alert("Disk", "critical"))
	if got := state(); !strings.Contains(got, "Fan warning resolved") || !strings.Contains(got, "Disk critical active") || tips[1].ResolvedWhy != "no longer: alert Fan fires" {
		t.Errorf("%s, because %s", got, tips[1].ResolvedWhy)
	}
	if set.WithAlerts(nil, nil) != set {
		t.Error("no alerts make another set")
	}
}

func TestLocate(t *testing.T) {
	set, snap := mustLoad(t, withRule("{cpu: up}", "cpu > 1", "join: [{on: vm, label: guest, field: name}]\n")), hotFleet(t)
	locate := set.Locate(snap, []Join{{On: inventory.KindHost, Label: "instance", Field: "name"}})
	for name, tc := range map[string]struct {
		labels map[string]string
		want   inventory.ID
	}{
		"protip's own labels":     {map[string]string{"source": "vc", "host_id": "h"}, id(inventory.KindHost, "h")},
		"the VM, not its host":    {map[string]string{"source": "vc", "host_id": "h", "vm_id": "v"}, id(inventory.KindVM, "v")},
		"a VM that is gone":       {map[string]string{"source": "vc", "vm_id": "x"}, inventory.ID{}},
		"by the configuration":    {map[string]string{"instance": "H"}, id(inventory.KindHost, "h")},
		"by a pack":               {map[string]string{"guest": "v"}, id(inventory.KindVM, "v")},
		"another name":            {map[string]string{"instance": "i"}, inventory.ID{}},
		"another label, its name": {map[string]string{"node": "h"}, inventory.ID{}},
	} {
		if got, ok := locate(tc.labels); got != tc.want || ok != !tc.want.IsZero() {
			t.Errorf("%s: %v", name, got)
		}
	}
}
