package web

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/placement"
)

// threeHosts asks what the cluster prod of the hot agent can bear to lose, whose hosts are 1 and on; each has one VM.
func threeHosts(agent *testAgent, reserve int) placement.Question {
	q := placement.Question{Cluster: muc("cluster", "c1"), Name: "prod", Reserve: reserve}
	for h := range agent.Snapshot().Hosts() {
		if h.Cluster == q.Cluster {
			q.VMs = append(q.VMs, placement.Claim{ID: inventory.ID{Source: "muc", Kind: inventory.KindVM, Ref: fmt.Sprint(len(q.VMs))}, Name: "vm of " + h.Name, Host: len(q.Hosts), Need: placement.Size{CPUHertz: 6, MemoryBytes: 6}})
			q.Hosts = append(q.Hosts, placement.Survivor{ID: h.ID, Name: h.Name, Free: placement.Size{CPUHertz: 10, MemoryBytes: 10}})
		}
	}
	return q
}

func TestReserve(t *testing.T) {
	agent := hotAgent(t)
	q := threeHosts(agent, 1)
	if len(q.Hosts) < 2 {
		t.Fatalf("the cluster has %d hosts", len(q.Hosts))
	}
	agent.reserves = []Reserve{{Admission: q.Answer(nil), Source: "muc", Asked: "configuration", Platform: placement.Second{Rule: "none"}}}
	h := New(options(agent))

	got, _ := ask[[]Reserve](t, h, "/api/v1/reserve?cluster=prod")
	if len(got) != 1 || got[0].Answer != placement.Admitted || got[0].Reserve != 1 || got[0].Asked != "configuration" || got[0].Plans != nil {
		t.Fatalf("%+v", got)
	}
	if none, _ := ask[[]Reserve](t, h, "/api/v1/reserve?cluster=lab"); len(none) != 0 {
		t.Errorf("another cluster: %+v", none)
	}
	got, _ = ask[[]Reserve](t, h, "/api/v1/reserve?explain=true&limit=0")
	if len(got[0].Plans) != got[0].Shown || len(got[0].Plans[0].Restarts) != 1 || got[0].Plans[0].Restarts[0].Host == got[0].Plans[0].Failed[0] {
		t.Errorf("plans %+v of %d sets", got[0].Plans, got[0].Shown)
	}
	name := q.Hosts[1].Name
	got, _ = ask[[]Reserve](t, h, "/api/v1/reserve?failed="+url.QueryEscape(name))
	if len(got[0].Plans) != 1 || got[0].Plans[0].Failed[0] != name || got[0].Plans[0].Restarts[0].Name != "vm of "+name {
		t.Errorf("plan for the loss of %s: %+v", name, got[0].Plans)
	}
	if w := do(h, "GET", "/api/v1/reserve?failed=nothing", ""); w.Code != 404 {
		t.Errorf("a host that is not there: %d %s", w.Code, w.Body)
	}
	for target, want := range map[string]string{
		"/api/v1/reserve?explain=perhaps": "write true or false",
		"/api/v1/reserve?failed=" + url.QueryEscape(q.Hosts[0].Name) + "&failed=" + url.QueryEscape(name): "at most 1 hosts",
	} {
		if w := do(h, "GET", target, ""); w.Code != 400 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}

	refused := threeHosts(agent, len(q.Hosts)).Answer(nil)
	agent.reserves[0].Admission = refused
	got, _ = ask[[]Reserve](t, New(options(agent)), "/api/v1/reserve?explain=true")
	if got[0].Answer != placement.Refused || len(got[0].FailedNames) != len(q.Hosts) || got[0].LeftOver.IsZero() || got[0].Why == "" || got[0].Plans != nil {
		t.Errorf("refused: %+v", got[0])
	}
}

func TestPlaceANewVM(t *testing.T) {
	agent := hotAgent(t)
	h := New(options(agent))
	got, _ := ask[Placement](t, h, "/api/v1/place?vcpus=4&cpu_hertz=2e9&memory_bytes=8589934592&ha=true&tag=app/shop&cluster=prod")
	want := placement.VMSpec{Name: "the new VM", VCPUs: 4, Use: placement.Use{CPUHertz: 2e9, MemoryBytes: 8 << 30}, HighlyAvailable: true, Cluster: muc("cluster", "c1")}
	if agent.placed.Cluster != want.Cluster || agent.placed.Use != want.Use || !agent.placed.HighlyAvailable || agent.placed.VCPUs != 4 ||
		len(agent.placed.Tags) != 1 || agent.placed.Tags[0] != (inventory.Tag{Category: "app", Name: "shop"}) || got.VM.Name != "the new VM" || len(got.Ratings) == 0 {
		t.Errorf("asked to place %+v, and answered %+v", agent.placed, got)
	}
	const some = "/api/v1/place?vcpus=4&cpu_hertz=2e9&memory_bytes=1"
	for target, want := range map[string]string{
		"/api/v1/place?vcpus=4":     `cpu_hertz ""`,
		"/api/v1/place?cpu_hertz=1": `memory_bytes ""`,
		some + "&vm=web":            "vm names one that exists",
		some + "&tag=shop":          "category/name",
		some + "&ha=7":              "write true or false",
		some + "&cluster=nowhere":   "no cluster has the name",

		"/api/v1/place?vcpus=0&cpu_hertz=1&memory_bytes=1":   "vcpus",
		"/api/v1/place?vcpus=1&cpu_hertz=NaN&memory_bytes=1": "cpu_hertz",
		"/api/v1/place?vcpus=1&cpu_hertz=Inf&memory_bytes=1": "cpu_hertz",
		some + "&disk_bytes_per_second=-1":                   `disk_bytes_per_second "-1"`,
		some + "&network_bytes_per_second=":                  `network_bytes_per_second ""`,
	} {
		if w := do(h, "GET", target, ""); w.Code/100 != 4 || !strings.Contains(w.Body.String(), strings.ReplaceAll(want, `"`, `\"`)) {
			t.Errorf("%s: %d %s, want %s", target, w.Code, w.Body, want)
		}
	}
}
