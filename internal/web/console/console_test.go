package console

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/history/promql"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/web"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules/report"
)

var (
	tags    = regexp.MustCompile(`<[a-zA-Z][^<>]*>`)
	quoted  = regexp.MustCompile(`"[^"]*"`)
	inline  = regexp.MustCompile(`(?i)\s(style|on[a-z]+)=`)
	ids     = regexp.MustCompile(` id="([^"]*)"`)
	scripts = regexp.MustCompile(`<script[^>]*>`)
	links   = regexp.MustCompile(` (?:href|action|formaction)="([^"]*)"`)
)

// checkPage holds what is true of every page.
func checkPage(t *testing.T, name, body string) {
	t.Helper()
	if !utf8.ValidString(body) {
		t.Errorf("%s is not UTF-8", name)
	}
	for _, tag := range tags.FindAllString(quoted.ReplaceAllString(body, `""`), -1) {
		if inline.MatchString(tag) {
			t.Errorf("%s has %s, which its policy forbids", name, tag)
		}
	}
	for _, inline := range []string{"<style", "javascript:", "ZgotmplZ", "<no value>", "%!", "NaN", "+Inf"} {
		if strings.Contains(body, inline) {
			t.Errorf("%s has %q", name, inline)
		}
	}
	if all := scripts.FindAllString(body, -1); len(all) != 1 || !strings.Contains(all[0], ` src="/console.js?v=`) {
		t.Errorf("%s has the scripts %q", name, all)
	}
	seen := map[string]bool{}
	for _, m := range ids.FindAllStringSubmatch(body, -1) {
		if seen[m[1]] {
			t.Errorf("%s has the id %q twice", name, m[1])
		}
		seen[m[1]] = true
	}
	for _, must := range []string{`<html lang="en">`, "<title>", `<main id="main"`, `class="skip" href="#main"`, "</html>"} {
		if !strings.Contains(body, must) {
			t.Errorf("%s lacks %s", name, must)
		}
	}
	if n := strings.Count(body, "<h1"); n != 1 {
		t.Errorf("%s has %d headings of the first order", name, n)
	}
	for _, m := range links.FindAllStringSubmatch(body, -1) {
		if !strings.HasPrefix(m[1], "/") && !strings.HasPrefix(m[1], "#") || strings.HasPrefix(m[1], "//") {
			t.Errorf("%s leads off to %q", name, m[1])
		}
	}
	if len(body) > 200<<10 {
		t.Errorf("%s has %d bytes", name, len(body))
	}
}

// TestPages asks every page of a fleet in trouble, of one that is calm, of none at all, and of one that has just begun to be listed.
func TestPages(t *testing.T) {
	empty := func(t *testing.T) *stage {
		s := hot(t)
		s.fleet, s.list, s.journal, s.reserves, s.trail = inventory.NewFleet(), nil, nil, nil, nil
		s.status = web.Status{Version: "0.1.0", Now: now, Remediation: web.Off}
		return s
	}
	for name, stage := range map[string]func(*testing.T) *stage{
		"hot": func(t *testing.T) *stage { return hot(t) },
		"trouble": func(t *testing.T) *stage {
			s := hot(t)
			s.status.Paused, s.status.DryRun, s.status.BreakerOpen, s.status.ReloadError = true, true, "3 in a row did not help", "protip.yml:7: unknown key"
			s.fleet.Down("muc", errors.New("muc: no route to host"))
			return s
		},
		"no history": func(t *testing.T) *stage {
			s := hot(t)
			s.past = nil
			return s
		},
		"empty": empty,
		"starting": func(t *testing.T) *stage {
			s := empty(t)
			s.fleet = inventory.NewFleet(inventory.Source{Name: "muc", Platform: "vsphere", Interval: 20 * time.Second})
			s.ready = errors.New("source muc is being listed")
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := stage(t).serve(t)
			for _, address := range addresses {
				if name != "hot" && (strings.HasPrefix(address, "/packs") || strings.HasPrefix(address, "/reports/")) {
					continue // they are of no fleet's state, and are made behind the page
				}
				gone := (name == "empty" || name == "starting") && strings.Count(address, "/") > 1
				who := map[string]func(*http.Request){"anybody": func(*http.Request) {}}
				if name == "hot" || name == "trouble" {
					who["operator"] = operator
				}
				for who, edit := range who {
					w := do(h, "GET", address, nil, edit)
					if want := map[bool]int{true: 404, false: 200}[gone]; w.Code != want {
						t.Errorf("%s for %s: %d, want %d\n%s", address, who, w.Code, want, w.Body)
					}
					checkPage(t, address, w.Body.String())
					if forms := strings.Contains(w.Body.String(), `method="post"`); who == "anybody" && forms {
						t.Errorf("%s offers to act to who may only read", address)
					}
				}
			}
		})
	}
}

// TestWhatPagesSay holds the words that matter on some pages.
func TestWhatPagesSay(t *testing.T) {
	calm := func(s *stage) {
		s.list, s.journal = nil, nil
		s.fleet.Apply(inventory.Delta{Source: "ber", Begin: true, Synced: true}, now)
	}
	for _, tc := range []struct {
		name, address string
		edit          func(*stage)
		want, not     []string
	}{
		{name: "all is well", address: "/", edit: calm, want: []string{"All is well", "watch 5 VMs on 3 hosts, in 1 cluster of 2 sources"}, not: []string{"No such tips"}},
		{name: "a filter that takes nothing is not peace", address: "/?severity=critical", edit: calm, not: []string{"All is well"}},
		{
			name: "with a source that is down all is not well", address: "/", edit: func(s *stage) { s.list = nil },
			want: []string{"Of sources that do not answer nothing is known"}, not: []string{"All is well"},
		},
		{name: "the inbox", address: "/", want: []string{"esx1.example uses 93% of its CPU", "no data since", `class="spark"`, "web"}, not: []string{"d4e5f4", "d4e5f5"}},
		{
			name: "a tip", address: "/tips/a1b2c3",
			want: []string{"threshold: above <b>85 %</b>", "goal: below <b>65 %</b>", "host.cpu_usage_ratio &gt; 0.85", ">db</a></strong>", "Where db could go", "esx2.example", "1 recovered", "1 failed", "Log in</a> as an operator"},
		},
		{name: "numbers that are too old", address: "/hosts/muc/host/h3", want: []string{"There are no fresh numbers", `class="old"`, "<small>at 02:5"}, not: []string{"<dd>0 %</dd>", "<dd>0.0 %</dd>"}},
		{name: "a VM of which nothing is known", address: "/vms/muc/vm/vm4", want: []string{`<span class="nk">unknown</span>`}, not: []string{"<dd>0", ">0 %<", ">0 Hz<", ">0 B<"}},
		{name: "a VM that is off", address: "/vms?q=asleep", want: []string{"is off"}, not: []string{"0 Hz", "0 %"}},
		{name: "what runs in a VM", address: "/vms/muc/vm/vm1", want: []string{"shop", `<span class="state failed">failed</span>`, "this one", "<dt>Network</dt><dd>storefront</dd>"}},
		{name: "a source that never answered", address: "/sources", want: []string{"does not answer", "ber: connection refused", "what it has is not known", "acting is paused"}},
		{name: "the reserve", address: "/clusters/muc/cluster/c1", want: []string{"N+1 holds", "any host may fail"}},
		{name: "actions", address: "/actions", want: []string{"the answer was lost", "40 %", "An operator decides", "no room"}},
		{name: "what can be done to a host", address: "/hosts/muc/host/h1", want: []string{`name="host" value="muc/host/h1"`, `name="what" value="evacuate"`, `value="free"`, `value="fill"`}},
		{
			name: "the plan to evacuate", address: "/plan?host=muc/host/h1",
			want: []string{"Evacuate esx1.example", "Moving now", ">web</a></strong>", "keeps its reserve of one host", "gives", "takes", "protip evacuate muc/host/h1"},
		},
		{name: "what stays", address: "/plan?host=muc/host/h3", want: []string{"silent stays: "}},
		{name: "no plan", address: "/plan?what=fill&host=muc/host/h1", want: []string{"There is no plan", "its numbers are too old"}},
		{name: "audit", address: "/audit", want: []string{"anna", "it is hot", "esx1.example"}},
		{name: "packs", address: "/packs", want: []string{"HostCPUOverload", "config.hot", "0.85"}},
		{name: "no such filter", address: "/vms?nmae=x", want: []string{"has no filter"}},
		{name: "a page for each address", address: "/nowhere", want: []string{"Not found"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := hot(t)
			if tc.edit != nil {
				tc.edit(s)
			}
			body := do(s.serve(t), "GET", tc.address, nil).Body.String()
			_, main, _ := strings.Cut(body, "<main")
			for _, want := range tc.want {
				if !strings.Contains(main, want) {
					t.Errorf("there is no %q in\n%s", want, main)
				}
			}
			for _, not := range tc.not {
				if strings.Contains(main, not) {
					t.Errorf("there is %q in\n%s", not, main)
				}
			}
		})
	}
}

// TestNamesAreHarmless calls everything by names that no page may be steered by.
func TestNamesAreHarmless(t *testing.T) {
	for i, name := range []string{
		`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, "bad\xffutf8\xc3(", strings.Repeat("W", 80), "x\u202egnp.exe", "two\nlines\r\x00\x1b[31m", "'; DROP", "{{.}}", "",
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			s := hot(t)
			d := inventory.Delta{Source: "muc", Clusters: []inventory.Cluster{{ID: id(inventory.KindCluster, "c1"), Name: name, EVC: name}}}
			for h := range s.fleet.Snapshot().Hosts() {
				host := *h.Host
				host.Name, host.Model, host.CPUModel, host.Version = name, name, name, name
				d.Hosts = append(d.Hosts, host)
			}
			for v := range s.fleet.Snapshot().VMs() {
				vm := *v.VM
				vm.Name, vm.GuestOS, vm.GuestHostname, vm.UUID, vm.NotLive = name, name, name, name, name
				vm.Annotations, vm.Tags = []inventory.Label{{Name: name, Value: name}}, []inventory.Tag{{Category: name, Name: name}}
				d.VMs = append(d.VMs, vm)
			}
			d.Services = []inventory.Service{{ID: id(inventory.KindService, name+"s"), Name: name, VM: vmID("vm1"), Type: name}}
			if _, err := s.fleet.Apply(d, now); err != nil {
				t.Fatal(err)
			}
			for i := range s.list {
				s.list[i].Name, s.list[i].Summary, s.list[i].Cause, s.list[i].ResolvedWhy = name, name, name, name
			}
			for i := range s.journal {
				a := &s.journal[i]
				a.VMName, a.FromName, a.ToName, a.Why, a.Error, a.TaskRef = name, name, name, name, name, name
			}
			s.trail[0].Why, s.trail[0].Who, s.trail[0].Result = name, name, name
			s.fleet.Down("ber", errors.New(name+"!"))
			h := s.serve(t)
			for _, address := range append(slices.DeleteFunc(slices.Clone(addresses), func(a string) bool { return a == "/packs" || strings.Contains(a, "sort=") }), "/search?q="+url.QueryEscape(name), "/vms?q="+url.QueryEscape(name), "/vms?sort="+url.QueryEscape(name), "/tips/"+url.PathEscape(name)) {
				if i > 1 && (strings.HasPrefix(address, "/reports/") || strings.HasPrefix(address, "/packs/")) {
					continue // which are slow, and have no names of their own
				}
				body := do(h, "GET", address, nil, operator).Body.String()
				checkPage(t, address, body)
				for _, raw := range []string{"<script>alert", "<img", "\u202e", "\x00", "\x1b"} {
					if strings.Contains(body, raw) {
						t.Errorf("%s has %q", address, raw)
					}
				}
			}
		})
	}
}

// formCases are every form: what is sent, what the agent is told then, and where it leads.
var formCases = map[string]struct {
	target string
	fields url.Values
	act    string
	bad    []url.Values
}{
	"POST /tips/{id}/implement": {"/tips/a1b2c3/implement", url.Values{"why": {" it is hot "}, "downtime": {"yes"}}, "implement a1b2c3 true by operator token because it is hot", nil},
	"POST /tips/{id}/dismiss": {
		"/tips/a1b2c3/dismiss",
		url.Values{"for": {"8h"}},
		"dismiss a1b2c3 8h0m0s by operator token because",
		[]url.Values{{}, {"for": {"-1h"}}, {"for": {"900d"}}, {"for": {"8h"}, "why": {strings.Repeat("x", 1001)}}},
	},
	"POST /tips/{id}/undismiss": {"/tips/a1b2c3/undismiss", url.Values{}, "undismiss a1b2c3 by operator token because", nil},
	"POST /plan/implement": {
		"/plan/implement",
		url.Values{"what": {"evacuate"}, "host": {"muc/host/h1"}, "plan": {"p"}, "downtime": {"yes"}, "why": {"new memory"}},
		"evacuate muc/host/h1 p true by operator token because new memory",
		[]url.Values{
			{},
			{"what": {"destroy"}, "host": {"muc/host/h1"}, "plan": {"p"}},
			{"what": {"free"}, "host": {"muc/vm/vm1"}, "plan": {"p"}},
			{"what": {"free"}, "host": {"h1"}, "plan": {"p"}},
			{"what": {"free"}, "host": {"muc/host/h1"}},
		},
	},
	"POST /actions/{id}/resolve": {
		"/actions/act-0/resolve", url.Values{"as": {"done"}}, "resolve act-0 done by operator token because", []url.Values{{}, {"as": {"started"}}},
	},
	"POST /actions/{id}/cancel": {"/actions/act-2/cancel", url.Values{"why": {"no"}}, "cancel act-2 by operator token because no", nil},
	"POST /pause":               {"/pause", url.Values{"source": {"muc"}}, "pause muc by operator token because", nil},
	"POST /resume":              {"/resume", url.Values{}, "resume  by operator token because", nil},
}

// TestForms sends every form in every wrong way and in the right one.
func TestForms(t *testing.T) {
	crossSite := func(r *http.Request) {
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		r.Header.Set("Origin", "https://evil.example")
	}
	for pattern, tc := range formCases {
		t.Run(pattern, func(t *testing.T) {
			s := hot(t)
			h := s.serve(t)
			for name, try := range map[string]struct {
				edit []func(*http.Request)
				want int
			}{
				"nobody":      {nil, 303}, // to the login form
				"wrong token": {[]func(*http.Request){func(r *http.Request) { r.Header.Set("Authorization", "Bearer guess") }}, 303},
				"cross site":  {[]func(*http.Request){operator, crossSite}, 403},
			} {
				w := do(h, "POST", tc.target, tc.fields, try.edit...)
				if w.Code != try.want || w.Code == 303 && !strings.HasPrefix(w.Header().Get("Location"), "/login") {
					t.Errorf("%s: %d to %q", name, w.Code, w.Header().Get("Location"))
				}
			}
			for _, fields := range tc.bad {
				if w := do(h, "POST", tc.target, fields, operator); w.Code != 400 {
					t.Errorf("%v: %d, want 400", fields, w.Code)
				} else {
					checkPage(t, tc.target, w.Body.String())
				}
			}
			if w := do(h, "GET", tc.target, nil, operator); w.Code != 404 && w.Code != 405 {
				t.Errorf("GET: %d", w.Code)
			}
			if len(s.acts) > 0 {
				t.Fatalf("acted: %q", s.acts)
			}
			for next, want := range map[string]string{"/tips/a1b2c3?refresh=5": "/tips/a1b2c3?refresh=5", "https://evil.example/": "/", "//evil.example": "/", "": "/"} {
				fields := url.Values{"next": {next}}
				for k, v := range tc.fields {
					fields[k] = v
				}
				if w := do(h, "POST", tc.target, fields, operator); w.Code != 303 || w.Header().Get("Location") != want {
					t.Errorf("next %q: %d to %q", next, w.Code, w.Header().Get("Location"))
				}
			}
			if len(s.acts) != 4 || s.acts[0] != tc.act {
				t.Errorf("acted %q, want %q", s.acts, tc.act)
			}
		})
	}
}

// TestEveryRouteIsTested fails on a page that the tables of these tests do not have, and asks each as who may not read.
func TestEveryRouteIsTested(t *testing.T) {
	s := hot(t)
	c := New(Options{Agent: s})
	defer c.Close()
	closed := s.serve(t, func(o *web.Options) { o.Access = func() web.Access { return web.Access{} } })
	for _, r := range c.Routes() {
		if r.Method == "POST" {
			if _, ok := formCases[r.Method+" "+r.Path]; !ok || r.Needs != web.Operator {
				t.Errorf("POST %s has no case, or demands no operator", r.Path)
			}
			continue
		}
		mux := http.NewServeMux()
		mux.Handle(r.Method+" "+r.Path, http.NotFoundHandler())
		tested := 0
		for _, address := range append([]string{"/console.css", "/console.js", "/favicon.svg"}, addresses...) {
			asked, err := http.NewRequest("GET", address, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, pattern := mux.Handler(asked); pattern == "" {
				continue
			}
			tested++
			w := do(closed, "GET", address, nil)
			if want := map[bool]int{true: 303, false: 200}[r.Needs == web.Viewer]; w.Code != want {
				t.Errorf("%s for nobody: %d, want %d", address, w.Code, want)
			}
			if strings.Contains(w.Body.String(), "esx1") {
				t.Errorf("%s tells nobody of the fleet", address)
			}
		}
		if tested == 0 {
			t.Errorf("GET %s is not tested: add it to addresses", r.Path)
		}
	}
	if w := do(closed, "GET", "/nowhere", nil); w.Code != 404 || strings.Contains(w.Body.String(), `class="count"`) {
		t.Errorf("an error tells nobody of the fleet: %d\n%s", w.Code, w.Body)
	}
}

// TestReportsAreMadeBehindThePage asks until a report is there.
func TestReportsAreMadeBehindThePage(t *testing.T) {
	s := hot(t)
	h := s.serve(t)
	first := do(h, "GET", "/reports/growth?since=1d", nil).Body.String()
	if !strings.Contains(first, "The report is being made") && !strings.Contains(first, "Over time") {
		t.Fatal(first)
	}
	if !strings.Contains(first, `http-equiv="refresh"`) {
		t.Error("without a script the page would wait for ever")
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		body := do(h, "GET", "/reports/growth?since=1d", nil).Body.String()
		if strings.Contains(body, "protip report growth --since 1d") {
			if strings.Contains(body, `http-equiv="refresh"`) {
				t.Error("a report that is there is loaded again")
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no report after a minute:\n%s", body)
		}
	}
}

// TestReplay asks what a pack would have reported of a host that was hot for two hours, until the answer is there.
func TestReplay(t *testing.T) {
	s := hot(t)
	var all []history.Series
	for name, values := range map[string]string{
		`virt_host_info{source="muc",host="esx1.example",host_id="h1",virt_cluster="prod",cluster_id="c1"}`: "1x360",
		`virt_host_cpu_usage_ratio{source="muc",host="esx1.example",host_id="h1"}`:                          "0.4x119 0.95x119 0.4x120",
		`virt_host_cpu_contention_ratio{source="muc",host="esx1.example",host_id="h1"}`:                     "0x119 0.2x119 0x120",
	} {
		series, err := promql.ParseSeries(name, values, now.Add(-6*time.Hour), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, series)
	}
	s.past = promql.Memory(all...)
	h := s.serve(t)
	const address = "/packs/host-pressure/replay"
	if body := do(h, "GET", "/packs", nil).Body.String(); !strings.Contains(body, `action="`+address+`"`) {
		t.Error("the packs' page does not lead to it")
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		body := do(h, "GET", address, nil).Body.String()
		checkPage(t, address, body)
		over := strings.Contains(body, "1 tip in the last 6h")
		if over == strings.Contains(body, `http-equiv="refresh"`) {
			t.Fatalf("it loads itself again: %v\n%s", !over, body)
		}
		if over {
			for _, want := range []string{"<dt>HostCPUOverload</dt><dd>1</dd>", "<dt>HostMemoryOverload</dt><dd>0</dd>", `href="/hosts/muc/host/h1"`, "HostCPUOverload from 0 to 1, 0 at the end", "protip replay --pack host-pressure --since 6h --step 1m"} {
				if !strings.Contains(body, want) {
					t.Errorf("there is no %q in\n%s", want, body)
				}
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no replay after a minute:\n%s", body)
		}
	}
	for address, code := range map[string]int{"/packs/nobody/replay": 404, address + "?since=30d": 400, address + "?step=1s": 400} {
		if w := do(h, "GET", address, nil); w.Code != code {
			t.Errorf("%s: %d, want %d", address, w.Code, code)
		}
	}
}

// TestJobs: what is made behind the pages is made one at a time and not for longer than it may, and no more of it waits than is bearable.
func TestJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Options{Log: slog.New(slog.DiscardHandler)})
		making := 0
		ask := func(key any) (job[report.Report], error) {
			return c.reports.get(key, now, time.Minute, func(ctx context.Context, _ func(float64)) (report.Report, error) {
				if making++; making > 1 {
					t.Error("two are made at a time")
				}
				<-ctx.Done()
				making--
				return report.Report{}, ctx.Err()
			})
		}
		for key := range waitingMost {
			if _, err := ask(key); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := ask("one more"); err == nil || !strings.Contains(err.Error(), "Too many reports") {
			t.Errorf("one more than may wait: %v", err)
		}
		if _, err := ask(0); err != nil {
			t.Errorf("the same again: %v", err)
		}
		time.Sleep(waitingMost*time.Minute + time.Second)
		for key := range waitingMost {
			if j, err := ask(key); err != nil || !j.over || !errors.Is(j.err, context.DeadlineExceeded) {
				t.Errorf("after its time: %+v, %v", j, err)
			}
		}
		time.Sleep(jobKept)
		if j, err := ask(0); err != nil || j.over {
			t.Errorf("what is too old is not made anew: %+v, %v", j, err)
		}
		c.Close()
	})
}

// TestPackTestsAreShown asks until the shipped packs' own tests have run.
func TestPackTestsAreShown(t *testing.T) {
	s := hot(t)
	h := s.serve(t)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		body := do(h, "GET", "/packs", nil).Body.String()
		if strings.Contains(body, "tests fail") {
			t.Fatal(body)
		}
		if n := strings.Count(body, " tests</span>") + strings.Count(body, " pass</span>"); n == len(s.set.Packs()) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no result after a minute:\n%s", body)
		}
	}
}

func TestThresholds(t *testing.T) {
	for _, tc := range []struct {
		cause, name string
		want        []float64
	}{
		{"host.cpu_usage_ratio > 0.85 && host.cpu_contention_ratio > 0.05 for 5m", "host.cpu_usage_ratio", []float64{0.85}},
		{"waits > 0.1 && often >= 0.75", "often", []float64{0.75}},
		{"vm.waits > 0.1", "waits", nil},
		{"free < 1e+09", "free", []float64{1e9}},
		{"cpu > 0.9 || cpu < 0.1", "cpu", []float64{0.9, 0.1}},
		{"used > total", "used", nil},
	} {
		var got []float64
		for _, l := range thresholds(tc.cause, tc.name) {
			got = append(got, l.Value)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s in %q: %v, want %v", tc.name, tc.cause, got, tc.want)
		}
	}
}

func TestStages(t *testing.T) {
	for _, st := range underWay {
		here := 0
		for _, s := range stagesOf(remediation.Action{State: st}) {
			if s.Here {
				here++
			}
		}
		if want := map[bool]int{true: 0, false: 1}[st == remediation.Unknown]; here != want {
			t.Errorf("%s is %d stages", st, here)
		}
	}
}
