package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/rules"
)

// ask is a GET whose data is decoded into a T.
func ask[T any](t *testing.T, h http.Handler, target string) (data T, e Envelope) {
	t.Helper()
	w := do(h, "GET", target, "")
	var answer struct {
		Envelope
		Data T `json:"data"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatalf("GET %s: %v\n%s", target, err, w.Body)
	}
	if w.Code != 200 || answer.Status != "success" {
		t.Fatalf("GET %s: %d %s", target, w.Code, w.Body)
	}
	return answer.Data, answer.Envelope
}

func TestAbsentIsNotZero(t *testing.T) {
	agent := hotAgent(t)
	agent.tips[0].Evidence[0].Value = math.Inf(1)
	h := New(options(agent))

	hosts, _ := ask[[]map[string]any](t, h, "/api/v1/hosts")
	stale := hosts[0]["samples"].(map[string]any)["cpu_usage_ratio"].(map[string]any)
	if v, ok := stale["value"]; !ok || v != nil || stale["at"] != "2026-05-04T02:55:00Z" {
		t.Errorf("stale sample = %v, want a null that keeps its time", stale)
	}
	if _, ok := hosts[1]["samples"].(map[string]any)["uptime_seconds"]; ok {
		t.Error("a metric that was never seen is shown")
	}
	vms, _ := ask[[]map[string]any](t, h, "/api/v1/vms?name=off")
	for _, field := range []string{"vcpus", "memory_bytes"} {
		if v, ok := vms[0][field]; ok {
			t.Errorf("%s = %v of a VM whose platform did not tell it", field, v)
		}
	}
	vms, _ = ask[[]map[string]any](t, h, "/api/v1/vms?host=esx2.example&name=db")
	if v := vms[0]["samples"].(map[string]any)["cpu_usage_hertz"].(map[string]any)["value"]; v != 0.0 {
		t.Errorf("a measured 0 = %v", v)
	}
	sources, _ := ask[[]map[string]any](t, h, "/api/v1/sources")
	if _, ok := sources[0]["vms"]; ok || sources[0]["name"] != "ber" {
		t.Errorf("source that never answered = %v, want no count", sources[0])
	}
	if sources[1]["vms"] != 4.0 || sources[1]["interval_seconds"] != 20.0 {
		t.Errorf("source = %v", sources[1])
	}
	tips, _ := ask[[]Tip](t, h, "/api/v1/tips?state=unknown")
	if tips[0].Evidence[0].Value != nil || *tips[0].Evidence[1].Value != 0.12 {
		t.Errorf("evidence = %v", tips[0].Evidence)
	}
}

func TestVMs(t *testing.T) {
	h := New(options(hotAgent(t)))
	for query, want := range map[string][]string{
		"":                                       {"vm-2", "vm-3", "vm-4", "vm-1"},
		"sort=-cpu_usage_hertz":                  {"vm-1", "vm-3", "vm-2", "vm-4"},
		"sort=cpu_usage_hertz":                   {"vm-3", "vm-1", "vm-2", "vm-4"},
		"sort=-name":                             {"vm-1", "vm-4", "vm-3", "vm-2"},
		"sort=vcpus&limit=1":                     {"vm-2"},
		"limit=0":                                {"vm-2", "vm-3", "vm-4", "vm-1"},
		"host=esx1.example":                      {"vm-2", "vm-1"},
		"host=muc/host/host-2&power=off":         {"vm-4"},
		"cluster=prod&name=DB":                   {"vm-2", "vm-3"},
		"cluster=muc/cluster/c1&power=on&name=w": {"vm-1"},
		"source=ber":                             {},
	} {
		vms, e := ask[[]VM](t, h, "/api/v1/vms?"+query)
		refs := []string{}
		for _, vm := range vms {
			refs = append(refs, vm.ID.Ref)
		}
		if !slices.Equal(refs, want) {
			t.Errorf("vms?%s = %q, want %q", query, refs, want)
		}
		if cut := strings.Contains(query, "limit=1"); cut != (len(e.Warnings) == 1) {
			t.Errorf("vms?%s: warnings %q", query, e.Warnings)
		}
	}
}

func TestBadQueries(t *testing.T) {
	h := New(options(hotAgent(t)))
	for target, want := range map[string]string{
		"/api/v1/vms?sorce=muc":        `unknown parameter "sorce": want source`,
		"/api/v1/vms?limit=-1":         `limit "-1"`,
		"/api/v1/vms?limit=1e3":        `limit "1e3"`,
		"/api/v1/vms?sort=cpu":         "cannot sort by \"cpu\": want one of name, vcpus, memory_bytes, cpu_usage_hertz",
		"/api/v1/vms?name=%zz":         "query:",
		"/api/v1/sources?x=1":          `unknown parameter "x": this route takes none`,
		"/api/v1/tips?state=hot":       `state "hot": want one of`,
		"/api/v1/tips?severity=high":   `severity "high"`,
		"/api/v1/actions?state=moving": `state "moving"`,
		"/api/v1/place":                "which VM?",
	} {
		w := do(h, "GET", target, "")
		var e Envelope
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || w.Code != 400 || e.ErrorType != "bad_data" || !strings.Contains(e.Error, want) {
			t.Errorf("GET %s: %d %s, want bad_data: %s", target, w.Code, w.Body, want)
		}
	}
}

func TestPlace(t *testing.T) {
	h := New(options(hotAgent(t)))
	for _, vm := range []string{"web", "muc/vm/vm-1"} {
		got, _ := ask[Placement](t, h, "/api/v1/place?vm="+vm)
		if got.VM.ID != muc("vm", "vm-1") || got.VM.HostName != "esx1.example" || got.VM.ClusterName != "prod" || len(got.Ratings) != 1 {
			t.Errorf("place %s = %+v", vm, got)
		}
	}
	if w := do(h, "GET", "/api/v1/place?vm=nobody", ""); w.Code != 404 || !strings.Contains(w.Body.String(), `\"nobody\"`) {
		t.Errorf("place nobody: %d %s", w.Code, w.Body)
	}
	w := do(h, "GET", "/api/v1/place?vm=db", "")
	var e struct {
		Envelope
		Data []Candidate `json:"data"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil {
		t.Fatal(err)
	}
	if w.Code != 409 || e.ErrorType != "ambiguous" || len(e.Data) != 2 || e.Data[1].HostName != "esx2.example" {
		t.Errorf("place db: %d %s, want both candidates", w.Code, w.Body)
	}
}

func TestNamesOfAnySort(t *testing.T) {
	agent := hotAgent(t)
	names := []string{`quo"te`, "new\nline", "bad\xffutf8", strings.Repeat("x", 80), "", "<b>", "muc/vm/vm-1"}
	var d inventory.Delta
	d.Source = "muc"
	for i, name := range names {
		d.VMs = append(d.VMs, testVM(fmt.Sprintf("odd-%d", i), name, "host-2"))
	}
	if _, err := agent.fleet.Apply(d, now); err != nil {
		t.Fatal(err)
	}
	h := New(options(agent))
	vms, _ := ask[[]VM](t, h, "/api/v1/vms")
	if len(vms) != 4+len(names) {
		t.Errorf("%d VMs, want %d", len(vms), 4+len(names))
	}
	if got, _ := ask[Placement](t, h, "/api/v1/place?vm=muc/vm/vm-1"); got.VM.Name != "web" {
		t.Errorf("a VM that is called like another's id hides it: %+v", got.VM)
	}
}

func TestTipsComeInTheOrderTheyNeedAPerson(t *testing.T) {
	agent := hotAgent(t)
	base := agent.tips[1]
	agent.tips = nil
	add := func(id string, state rules.State, sev rules.Severity, since time.Duration) {
		tip := base
		tip.ID, tip.State, tip.Severity, tip.Since = id, state, sev, now.Add(-since)
		agent.tips = append(agent.tips, tip)
	}
	add("resolved", rules.Resolved, rules.Critical, 0)
	add("pending", rules.Pending, rules.Critical, 0)
	add("old", rules.Active, rules.Warning, time.Hour)
	add("new", rules.Active, rules.Warning, time.Minute)
	add("worst", rules.Active, rules.Critical, 2*time.Hour)
	add("unknown", rules.Unknown, rules.Critical, 0)
	add("dismissed", rules.Dismissed, rules.Critical, 0)
	add("moving", rules.InProgress, rules.Info, 0)

	h := New(options(agent))
	tips, _ := ask[[]Tip](t, h, "/api/v1/tips")
	var got []string
	for _, tip := range tips {
		got = append(got, tip.ID)
	}
	if want := []string{"worst", "new", "old", "moving", "unknown", "pending", "dismissed", "resolved"}; !slices.Equal(got, want) {
		t.Errorf("order %q, want %q", got, want)
	}
	tips, _ = ask[[]Tip](t, h, "/api/v1/tips?state=active&state=pending&severity=critical")
	if len(tips) != 2 {
		t.Errorf("%d active or pending critical tips, want 2", len(tips))
	}
}

func TestNextCommand(t *testing.T) {
	tip := hotAgent(t).tips[1]
	for _, tc := range []struct {
		state         rules.State
		action        rules.RemedyAction
		mode          Mode
		command, hint string
	}{
		{rules.Active, "rebalance-host", Manual, "protip tips implement a1b2c3", ""},
		{rules.Active, "migrate", Automatic, "protip tips implement a1b2c3", ""},
		{rules.Active, "migrate", Off, "protip tips dismiss a1b2c3 --for 24h", "remediation is off"},
		{rules.Active, "none", Manual, "protip tips dismiss a1b2c3 --for 24h", "proposes nothing"},
		{rules.Active, "", Manual, "protip tips dismiss a1b2c3 --for 24h", "proposes nothing"},
		{rules.Dismissed, "migrate", Manual, "protip tips undismiss a1b2c3", ""},
		{rules.Unknown, "migrate", Automatic, "protip tips show a1b2c3", "no data"},
		{rules.InProgress, "migrate", Manual, "protip tips show a1b2c3", ""},
		{rules.Resolved, "migrate", Manual, "", ""},
	} {
		tip.State, tip.Remedy.Action = tc.state, tc.action
		got := tipOf(tip, tc.mode)
		if got.NextCommand != tc.command || !strings.Contains(got.Hint, tc.hint) || (tc.hint == "") != (got.Hint == "") {
			t.Errorf("%s %s, remediation %s: %q (%q), want %q (%q)", tc.state, tc.action, tc.mode, got.NextCommand, got.Hint, tc.command, tc.hint)
		}
	}
}

func TestErrorsOfTheAgent(t *testing.T) {
	secret := errors.New("disk of /var/lib/protip is full")
	agent := hotAgent(t)
	for _, tc := range []struct {
		failure error
		code    int
		kind    string
	}{
		{fmt.Errorf("tip x: %w", ErrNotFound), 404, "not_found"},
		{fmt.Errorf("source is paused: %w", ErrConflict), 409, "conflict"},
		{fmt.Errorf("journal: %w", ErrUnavailable), 503, "unavailable"},
		{secret, 500, "internal"},
	} {
		agent.failure = tc.failure
		w := do(New(options(agent)), "POST", "/api/v1/pause", "", bearer(token))
		var e Envelope
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		if w.Code != tc.code || e.ErrorType != tc.kind || e.Error != tc.failure.Error() {
			t.Errorf("%v: %d %s", tc.failure, w.Code, w.Body)
		}
	}
	w := do(New(options(failing{agent, secret})), "GET", "/api/v1/tips", "")
	if w.Code != 500 || strings.Contains(w.Body.String(), "/var/lib") {
		t.Errorf("anonymous reader of a failing agent: %d %s", w.Code, w.Body)
	}
	if w := do(New(options(agent)), "GET", "/api/v1/tips/nobody", ""); w.Code != 404 {
		t.Errorf("unknown tip: %d", w.Code)
	}
	if w := do(New(options(agent)), "POST", "/api/v1/tips/d4e5f6/implement", "", bearer(token)); w.Code != 409 {
		t.Errorf("implement an unknown tip: %d %s", w.Code, w.Body)
	}
}

// TestDowntimeIsAgreedTo: to take VMs down is asked for by name, and by nothing else.
func TestDowntimeIsAgreedTo(t *testing.T) {
	for body, want := range map[string]string{
		``:                   "implement a1b2c3",
		`{"why":"downtime"}`: "implement a1b2c3",
		`{"downtime":false}`: "implement a1b2c3",
		`{"downtime":true}`:  "implement with downtime a1b2c3",
	} {
		agent := hotAgent(t)
		w := do(New(options(agent)), "POST", "/api/v1/tips/a1b2c3/implement", body, bearer(token))
		if acts := agent.taken(); w.Code != 200 || len(acts) != 1 || !strings.HasPrefix(acts[0], want+" by ") {
			t.Errorf("%s: %d, acts %q", body, w.Code, acts)
		}
	}
}

// failing is an agent whose status cannot be read.
type failing struct {
	*testAgent
	err error
}

func (f failing) Status(context.Context) (Status, error) { return Status{}, f.err }

func TestDismissalsAreBounded(t *testing.T) {
	agent := hotAgent(t)
	for _, d := range []string{"", "0s", "-1h", "367d", "soon", "1", "99999999999999999999h"} {
		w := do(New(options(agent)), "POST", "/api/v1/tips/a1b2c3/dismiss", `{"for":"`+d+`"}`, bearer(token))
		if w.Code != 400 || !strings.Contains(w.Body.String(), "such as 24h") {
			t.Errorf("dismiss for %q: %d %s", d, w.Code, w.Body)
		}
	}
	if acts := agent.taken(); len(acts) > 0 {
		t.Errorf("acted: %q", acts)
	}
}

func TestReady(t *testing.T) {
	agent := hotAgent(t)
	agent.ready = errors.New("source ber was not tried yet")
	if w := do(New(options(agent)), "GET", "/-/ready", ""); w.Code != 503 || !strings.Contains(w.Body.String(), "ber") {
		t.Errorf("ready: %d %s", w.Code, w.Body)
	}
	if w := do(New(options(agent)), "GET", "/-/healthy", ""); w.Code != 200 {
		t.Errorf("healthy: %d", w.Code)
	}
}

func TestUnknownRoutesAnswerInTheAPIsShape(t *testing.T) {
	h := New(options(hotAgent(t)))
	for _, tc := range []struct {
		method, target string
		code           int
		allow          string
	}{
		{"GET", "/api/v1/nothing", 404, ""},
		{"GET", "/api/v1/pause", 405, "POST"},
		{"DELETE", "/api/v1/tips/x", 405, "GET"},
	} {
		w := do(h, tc.method, tc.target, "")
		var e Envelope
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || w.Code != tc.code || e.Status != "error" || w.Header().Get("Allow") != tc.allow {
			t.Errorf("%s %s: %d allow %q %s", tc.method, tc.target, w.Code, w.Header().Get("Allow"), w.Body)
		}
	}
}

// TestDocs holds docs/api.md to the routing table.
func TestDocs(t *testing.T) {
	doc, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range newServer(options(hotAgent(t))).routes() {
		if line := "`" + r.Method + " " + strings.TrimSuffix(r.Path, "{$}"); !strings.Contains(string(doc), line) {
			t.Errorf("docs/api.md does not know %s", line)
		}
	}
}
