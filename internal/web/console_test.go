package web

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/remediation"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestConsole(t *testing.T) {
	dead := inventory.NewFleet(inventory.Source{Name: "muc", Platform: "vsphere", Interval: 20 * time.Second})
	dead.Down("muc", errors.New(`vcenter muc.example: connection refused`))

	for _, tc := range []struct {
		name   string
		target string
		agent  func(*testAgent)
	}{
		{"hot", "/?refresh=5", func(*testAgent) {}},
		{"no_sources", "/", func(a *testAgent) {
			a.fleet, a.tips, a.actions, a.status = inventory.NewFleet(), nil, nil, Status{Version: "0.1.0", Now: now, Remediation: Off}
		}},
		{"dead_source", "/", func(a *testAgent) {
			a.fleet, a.tips, a.actions = dead, nil, nil
			a.ready = errors.New("the journal is being recovered")
			a.status.Paused, a.status.PausedSources, a.status.DryRun = true, nil, true
			a.status.BreakerOpen, a.status.ReloadError = "3 moves in a row did not help", "protip.yml:7: unknown key"
		}},
		{"calm", "/", func(a *testAgent) {
			a.fleet.Apply(inventory.Delta{Source: "ber", Begin: true, Synced: true}, now)
			a.tips, a.status.PausedSources = nil, nil
			a.actions = []remediation.Action{
				{VMName: "web", FromName: "esx1", ToName: "esx2", State: remediation.Unknown, Error: "the answer was lost", PlannedAt: now.Add(-72 * time.Hour)},
				{VMName: "db", FromName: "esx1", ToName: "esx2", State: remediation.Failed, Error: "no room", PlannedAt: now, DryRun: true},
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			agent := hotAgent(t)
			tc.agent(agent)
			w := do(New(options(agent)), "GET", tc.target, "")
			if w.Code != 200 || w.Header().Get("Content-Type") != "text/html; charset=utf-8" {
				t.Fatalf("%d %v\n%s", w.Code, w.Header(), w.Body)
			}
			got := w.Body.String()
			// The policy that the page is served with allows none of these.
			for _, inline := range []string{`<script`, ` style=`, `<style`, ` onclick`, `javascript:`} {
				if strings.Contains(strings.Replace(got, `<script src="/console.js" defer></script>`, "", 1), inline) {
					t.Errorf("the page has %q, which its own policy forbids", inline)
				}
			}
			golden := filepath.Join("testdata", "console_"+tc.name+".html")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("the page differs from %s (go test -update writes it anew):\n%s", golden, got)
			}
		})
	}
}

func TestConsoleRefreshesOnlyWhenAsked(t *testing.T) {
	h := New(options(hotAgent(t)))
	refresh := regexp.MustCompile(`http-equiv="refresh" content="(.*)"`)
	for target, want := range map[string]string{"/": "", "/?refresh=10": "10", "/?refresh=0": "", `/?refresh=1;url=//evil`: "", "/?refresh=": ""} {
		got := ""
		if m := refresh.FindStringSubmatch(do(h, "GET", target, "").Body.String()); m != nil {
			got = m[1]
		}
		if got != want {
			t.Errorf("GET %s refreshes after %q, want %q", target, got, want)
		}
	}
}

func TestConsoleOfAFailingAgent(t *testing.T) {
	agent := failing{hotAgent(t), errors.New("journal of /var/lib/protip is locked")}
	if w := do(New(options(agent)), "GET", "/", ""); w.Code != 500 || strings.Contains(w.Body.String(), "/var/lib") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestQuantity(t *testing.T) {
	for _, tc := range []struct {
		v    float64
		unit string
		want string
	}{
		{0.931, "ratio", "93.1 %"},
		{0, "ratio", "0.0 %"},
		{2.6e9, "hertz", "2.6 GHz"},
		{5e15, "hertz", "5e+03 THz"},
		{8 << 30, "bytes", "8 GiB"},
		{0, "bytes", "0 B"},
		{0.0042, "seconds", "4.2 ms"},
		{1.5, "seconds", "1.5 s"},
		{3, "", "3"},
		{3, "vms", "3 vms"},
	} {
		if got := quantity(&tc.v, tc.unit); got != tc.want {
			t.Errorf("%g %s = %q, want %q", tc.v, tc.unit, got, tc.want)
		}
	}
	if got := quantity(nil, "ratio"); got != "no data" {
		t.Errorf("nil = %q", got)
	}
}

func TestAgo(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0 s ago", 5 * time.Second: "5 s ago", 90 * time.Second: "1 min ago", 100 * time.Minute: "1 h 40 min ago", 80 * time.Hour: "3 days ago",
	} {
		if got := ago(now, now.Add(-d)); got != want {
			t.Errorf("%v = %q, want %q", d, got, want)
		}
	}
	if got := ago(now, time.Time{}); got != "never" {
		t.Errorf("zero = %q", got)
	}
}
