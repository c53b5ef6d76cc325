package app_test

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/protip/protip/internal/sim"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
	"github.com/protip/protip/rules/report"
	"github.com/protip/protip/test/openapi"
)

// TestAnswersAreDescribed asks an agent everything that its description says can be asked, while a tip is active, while its VM moves and when
// it is over, and holds each answer against the description.
func TestAnswersAreDescribed(t *testing.T) {
	t.Parallel()
	fleet := hotFleet("vc")
	for _, name := range []string{"esx04", "esx05"} { // without them the reserve would not hold, and no host could be emptied
		fleet.Clusters[0].Hosts = append(fleet.Clusters[0].Hosts, sim.Host{Name: name, Cores: 16, MemoryBytes: 512 << 30})
	}
	r := newRig(t, 20, fleet)
	r.config["placement"] = map[string]any{"reserve": 1}
	r.config["packs"] = map[string]any{"shipped": []any{"host-pressure", "right-sizing"}, "files": []any{"heat.yml"}}
	r.write()
	a := r.start()
	a.awaitUp("vc")
	hot := host(t, r.vcs[0], "esx01")
	tip := a.awaitTip("HostHot", hot, rules.Active)
	await(t, deadline, func() string {
		if reserves, err := a.Reserves(t.Context(), nil); err != nil || len(reserves) != 1 {
			return "the reserve is not known yet"
		}
		return ""
	})
	d := openapi.New(t, a.get(t, "/api/v1/openapi.yaml").Body.Bytes())
	targets := map[string][]string{
		"/-/healthy": {"/-/healthy"}, "/-/ready": {"/-/ready"}, "/metrics": {"/metrics"}, "/api/v1/openapi.yaml": {"/api/v1/openapi.yaml"},
		"/api/v1/status":                         {"/api/v1/status"},
		"/api/v1/sources":                        {"/api/v1/sources"},
		"/api/v1/clusters":                       {"/api/v1/clusters"},
		"/api/v1/hosts":                          {"/api/v1/hosts", "/api/v1/hosts?cluster=prod&limit=1&offset=1"},
		"/api/v1/vms":                            {"/api/v1/vms", "/api/v1/vms?sort=-cpu_usage_hertz&power=on&name=idle"},
		"/api/v1/place":                          {"/api/v1/place?vm=mover", "/api/v1/place?vcpus=2&memory_bytes=4e9&cpu_hertz=1e9"},
		"/api/v1/reserve":                        {"/api/v1/reserve", "/api/v1/reserve?explain=true", "/api/v1/reserve?failed=esx02"},
		"/api/v1/tips":                           {"/api/v1/tips", "/api/v1/tips?source=vc&limit=1"},
		"/api/v1/tips/{id}":                      {"/api/v1/tips/" + tip.ID},
		"/api/v1/tips/{id}/plan":                 {"/api/v1/tips/" + tip.ID + "/plan"},
		"/api/v1/plan":                           {"/api/v1/plan?what=evacuate&host=esx02", "/api/v1/plan?what=free&host=esx01", "/api/v1/plan?what=fill&host=esx03"},
		"/api/v1/actions":                        {"/api/v1/actions", "/api/v1/actions?tip=" + tip.ID},
		"/api/v1/packs":                          {"/api/v1/packs"},
		"/api/v1/reports/{name}":                 nil,
		"/api/v1/audit":                          {"/api/v1/audit"},
		"/api/v1/events":                         {"/api/v1/events"},
		"/prometheus/api/v1/query":               {"/prometheus/api/v1/query?query=virt_host_cpu_usage_ratio"},
		"/prometheus/api/v1/labels":              {"/prometheus/api/v1/labels"},
		"/prometheus/api/v1/series":              {"/prometheus/api/v1/series?match[]=virt_vm_info"},
		"/prometheus/api/v1/metadata":            {"/prometheus/api/v1/metadata"},
		"/prometheus/api/v1/query_range":         {"/prometheus/api/v1/query_range?query=virt_vm_cpu_usage_hertz&step=20&start=" + stamp(r.began) + "&end=" + stamp(r.clock.Now())},
		"/prometheus/api/v1/label/{name}/values": {"/prometheus/api/v1/label/source/values"},
		"/prometheus/api/v1/status/buildinfo":    {"/prometheus/api/v1/status/buildinfo"},
	}
	for _, name := range report.Names() {
		targets["/api/v1/reports/{name}"] = append(targets["/api/v1/reports/{name}"], "/api/v1/reports/"+name+"?since=6h")
	}
	paths, _ := d.Of("paths")
	check := func(when string) {
		t.Helper()
		for _, path := range slices.Sorted(maps.Keys(paths)) {
			if _, ok := paths[path].(map[string]any)["get"]; !ok {
				continue
			}
			if len(targets[path]) == 0 {
				t.Errorf("GET %s is not asked: add it to targets", path)
			}
			for _, target := range targets[path] {
				w := a.get(t, target)
				d.Check(t, http.MethodGet, path, w)
				over := when != "active" && path == "/api/v1/tips/{id}/plan" && w.Code == http.StatusConflict
				if w.Code != http.StatusOK && !over {
					t.Errorf("%s, %s: %d\n%s", when, target, w.Code, w.Body)
				}
			}
		}
	}

	check("active")
	for _, target := range []string{ // of which an empty list would hold for anything
		"/api/v1/sources", "/api/v1/clusters", "/api/v1/hosts", "/api/v1/vms", "/api/v1/reserve?explain=true", "/api/v1/tips", "/api/v1/packs",
	} {
		a.many(t, target, "data")
	}
	a.many(t, "/api/v1/tips/"+tip.ID+"/plan", "data", "waves")
	a.many(t, "/api/v1/place?vm=mover", "data", "ratings")
	a.many(t, "/api/v1/plan?what=evacuate&host=esx02", "data", "waves")
	a.many(t, "/api/v1/plan?what=evacuate&host=esx02", "data", "kept")
	a.many(t, "/prometheus/api/v1/query?query=virt_host_cpu_usage_ratio", "data", "result")

	if code, text := a.post("/api/v1/tips/"+tip.ID+"/implement", operatorToken); code != http.StatusOK {
		t.Fatalf("implement: %d %s", code, text)
	}
	check("moving")
	a.many(t, "/api/v1/actions", "data")
	a.many(t, "/api/v1/audit", "data")
	a.awaitAction("measured", func(act remediation.Action) bool { return act.Outcome != "" })
	check("over")
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// get is what the agent answers to an operator; of a stream, what comes at once.
func (a *agent) get(t *testing.T, target string) *httptest.ResponseRecorder {
	t.Helper()
	ctx := t.Context()
	if strings.HasPrefix(target, "/api/v1/events") {
		brief, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		ctx = brief
	}
	req := httptest.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	req.Header.Set("Authorization", "Bearer "+operatorToken)
	w := httptest.NewRecorder()
	a.Handler().ServeHTTP(w, req)
	return w
}

// many holds that an answer has something in the list at those keys.
func (a *agent) many(t *testing.T, target string, keys ...string) {
	t.Helper()
	body := a.get(t, target).Body.Bytes()
	for _, key := range keys {
		var part map[string]json.RawMessage
		if err := json.Unmarshal(body, &part); err != nil {
			t.Fatalf("%s: %v", target, err)
		}
		body = part[key]
	}
	var list []json.RawMessage
	if err := json.Unmarshal(body, &list); err != nil || len(list) == 0 {
		t.Errorf("%s has nothing at %s: %v %s", target, strings.Join(keys, "."), err, body)
	}
}
