package app_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/protip/protip/rules"
)

func TestReload(t *testing.T) {
	t.Parallel()
	r := newRig(t, 20, hotFleet("vc"))
	a := r.start()
	hot := host(t, r.vcs[0], "esx01")
	tip := a.awaitTip("HostHot", hot, rules.Active)
	success := func() float64 { return a.scrape().value("protip_config_last_reload_successful") }
	if success() != 1 {
		t.Error("the first load is not said to have succeeded")
	}

	// What cannot be read leaves all as it was.
	bad := map[string]struct {
		break_ func()
		words  []string
	}{
		"pack": {
			func() {
				r.file("heat.yml", strings.Replace(heatPack, "cpu_usage_ratio < 0.70", "cpu_usage_ration < 0.70", 1))
			},
			[]string{"heat.yml:", "cpu_usage_ration", "cpu_usage_ratio"},
		},
		"ten megabytes of pack": {
			func() { r.file("heat.yml", heatPack+"# "+strings.Repeat("lorem ipsum ", 900_000)+"\n") },
			[]string{"heat.yml:", "larger than 1048576 bytes"},
		},
		"a pack that laughs": {
			func() {
				r.file("heat.yml", strings.Replace(heatPack, "version: ", "platforms: &a [vsphere, *a]\nversion: ", 1))
			},
			[]string{"heat.yml:", "lias"},
		},
		"a pattern that explodes": {
			func() {
				r.file("heat.yml", strings.Replace(heatPack, "when: ", "when: host.name matches '(((a{100}){100}){100})' || ", 1))
			},
			[]string{"heat.yml:", "pattern"},
		},
		"config": {
			func() { r.file("protip.yml", "sources: 7\n") },
			[]string{"protip.yml:1:", "sources"},
		},
		"grant of a rule that is not there": {
			func() { r.automatic("HostWarm") },
			[]string{"no rule HostWarm in a pack heat is loaded"},
		},
		"sources": {
			func() {
				first := r.config["sources"].([]any)[0].(map[string]any)
				r.config["sources"] = append([]any{first}, with(first, "name", "another"))
				r.write()
			},
			[]string{"restart protip to change sources"},
		},
		"limits": {
			func() { r.remediation(map[string]any{"limits": map[string]any{"per_host": 2}, "cooldown": "1h"}) },
			[]string{"restart protip to change remediation.limits, remediation.cooldown"},
		},
		"no remediation": {
			func() { delete(r.config, "remediation"); r.write() },
			[]string{"restart protip to change remediation (added or removed)"},
		},
	}
	for _, name := range slices.Sorted(maps.Keys(bad)) {
		was := maps.Clone(r.config)
		was["remediation"] = maps.Clone(r.config["remediation"].(map[string]any))
		bad[name].break_()
		err := a.Client.Reload(t.Context(), "")
		refused(t, name, err, append(bad[name].words, "the old configuration stays in force")...)
		if success() != 0 {
			t.Errorf("%s: protip_config_last_reload_successful is not 0", name)
		}
		if status, err := a.Status(t.Context()); err != nil || !strings.Contains(status.ReloadError, bad[name].words[0]) {
			t.Errorf("%s: status says %q, %v", name, status.ReloadError, err)
		}
		r.config = was
		r.file("heat.yml", heatPack)
		r.write()
	}
	a.still(r, 0)
	if now := a.awaitTip("HostHot", hot, rules.Active); now.Episode != tip.Episode {
		t.Errorf("reloads that failed made episode %d of %d", now.Episode, tip.Episode)
	}

	// What can be read is in force at once, all of it.
	r.file("heat.yml", strings.NewReplacer("name: HostBusy", "name: HostTorrid", "cpu_usage_ratio < 0.70", "cpu_usage_ratio < 0.60").Replace(heatPack))
	if err := a.Client.Reload(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if success() != 1 {
		t.Error("protip_config_last_reload_successful is not 1")
	}
	a.awaitTip("HostTorrid", hot, rules.Active)
	gone := a.awaitTip("HostBusy", hot, rules.Resolved)
	if !strings.Contains(gone.ResolvedWhy, "no longer loaded") {
		t.Errorf("the tip of a rule that went resolved because %q", gone.ResolvedWhy)
	}
	if now := a.awaitTip("HostHot", hot, rules.Active); now.Episode != tip.Episode || now.PackSHA256 != r.sum("heat.yml") {
		t.Errorf("the tip of a rule that stayed is of episode %d and pack %s", now.Episode, now.PackSHA256)
	}
	if status, err := a.Status(t.Context()); err != nil || status.ReloadError != "" {
		t.Errorf("status says %q, %v", status.ReloadError, err)
	}
}

func with(m map[string]any, key string, value any) map[string]any {
	m = maps.Clone(m)
	m[key] = value
	return m
}

func TestTwoAgentsInOneProcess(t *testing.T) {
	t.Parallel()
	one, two := newRig(t, 40, hotFleet("vc-1")), newRig(t, 40, hotFleet("vc-2"))
	one.automatic("HostHot")
	a, b := one.start(), two.start()
	a.awaitAction("recovered", recovered)
	b.awaitTip("HostHot", host(t, two.vcs[0], "esx01"), rules.Active)
	for _, c := range []struct {
		*agent
		own, other string
	}{{a, "vc-1", "vc-2"}, {b, "vc-2", "vc-1"}} {
		s := c.scrape()
		if len(s.seriesOf(c.own)) == 0 || len(s.seriesOf(c.other)) > 0 || s.count("protip_source_up") != 1 {
			t.Errorf("the agent of %s has %d series of its own and %d of the other's", c.own, len(s.seriesOf(c.own)), len(s.seriesOf(c.other)))
		}
	}
	if n := len(b.actions()) + sent(two.vcs[0]); n > 0 {
		t.Error("one agent's grant moved the other's VMs")
	}
	a.stop()
	before := b.scrape().value("protip_rule_evaluations_total", "rule", "HostHot")
	await(t, deadline, func() string {
		if now := b.scrape().value("protip_rule_evaluations_total", "rule", "HostHot"); now < before+3 {
			return fmt.Sprintf("%v evaluations since the other ended", now-before)
		}
		return ""
	})
	if src, _ := b.Snapshot().Source("vc-2"); !src.Up {
		t.Errorf("the other's end took this one's source down: %s", src.Error)
	}
}
