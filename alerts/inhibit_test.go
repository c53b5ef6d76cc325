package alerts_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/protip/protip/test/prom"
)

// fault is one fault in a fleet: the alerts and tips over it, and those of them that page.
type fault struct {
	name   string
	alerts []map[string]string
	pages  []string
}

// alert has labels beside its name; a tip is protip's own.
func alert(name string, labels ...string) map[string]string {
	out := map[string]string{"alertname": name}
	for i := 0; i < len(labels); i += 2 {
		out[labels[i]] = labels[i+1]
	}
	return out
}

func tip(name string, labels ...string) map[string]string {
	return alert(name, append(labels, "protip_tip", name)...)
}

var (
	esx1, esx2 = []string{"host", "esx1", "host_id", "h1"}, []string{"host", "esx2", "host_id", "h2"}
	san1, san2 = []string{"datastore", "san1", "datastore_id", "d1"}, []string{"datastore", "san2", "datastore_id", "d2"}
)

// faults have a source each, so that one Alertmanager takes them all.
var faults = []fault{
	{"a source is down", []map[string]string{
		alert("ProtipSourceDown"), alert("ProtipSourceStale"), alert("VirtHostDisconnected", esx1...), alert("VirtDatastoreUnreachable", san1...),
		tip("HostLost", "host", "esx1"), tip("VMLost", "vm", "db1"), tip("DatastoreUnreachable", "datastore", "san1"),
	}, []string{"ProtipSourceDown"}},
	{"a host is gone, and another is hot", []map[string]string{
		alert("VirtHostDisconnected", esx1...), alert("VirtHostCPUSaturated", esx1...), alert("VirtHostMemoryFull", esx1...), alert("VirtHostCPUSaturated", esx2...),
	}, []string{"VirtHostDisconnected", "VirtHostCPUSaturated"}},
	{"a host is gone, and there is a tip", []map[string]string{
		tip("HostLost", "host", "esx1"), alert("VirtHostDisconnected", esx1...), tip("HostCPUOverload", "host", "esx1"), tip("HostMemoryOverload", "host", "esx1"),
	}, []string{"HostLost"}},
	{"no host reaches a datastore, and another fills", []map[string]string{
		alert("VirtDatastoreUnreachable", san1...), alert("VirtDatastoreAlmostFull", san1...), alert("VirtDatastoreFilling", san1...), alert("VirtDatastoreFilling", san2...),
	}, []string{"VirtDatastoreUnreachable", "VirtDatastoreFilling"}},
	{"no host reaches a datastore, and there is a tip", []map[string]string{
		tip("DatastoreUnreachable", "datastore", "san1"), alert("VirtDatastoreUnreachable", san1...), tip("DatastoreAlmostFull", "datastore", "san1"),
		tip("DatastoreFilling", "datastore", "san1"), tip("DatastoreSlow", "datastore", "san1"),
	}, []string{"DatastoreUnreachable"}},
	{"a datastore is almost full", []map[string]string{
		alert("VirtDatastoreAlmostFull", san1...), alert("VirtDatastoreFilling", san1...),
	}, []string{"VirtDatastoreAlmostFull"}},
	{"a datastore is almost full, and there are tips", []map[string]string{
		tip("DatastoreAlmostFull", "datastore", "san1"), tip("DatastoreFilling", "datastore", "san1"), alert("VirtDatastoreAlmostFull", san1...), alert("VirtDatastoreFilling", san1...),
	}, []string{"DatastoreAlmostFull"}},
	{"a datastore fills, and there is a tip", []map[string]string{
		tip("DatastoreFilling", "datastore", "san1"), alert("VirtDatastoreFilling", san1...),
	}, []string{"DatastoreFilling"}},
	{"a host is hot and its VMs wait, and so does a VM of another", []map[string]string{
		tip("HostCPUOverload", "host", "esx1"), alert("VirtHostCPUSaturated", esx1...), tip("VMWaitsForCPU", "host", "esx1", "vm", "db1"), alert("VirtVMWaitsForCPU", "vm", "db1", "vm_id", "v1"),
		alert("VirtVMWaitsForCPU", "vm", "db2", "vm_id", "v2"),
	}, []string{"HostCPUOverload", "VirtVMWaitsForCPU"}},
	{"a host has no memory left and takes it from VMs", []map[string]string{
		tip("HostMemoryOverload", "host", "esx1"), alert("VirtHostMemoryFull", esx1...), tip("VMMemoryTaken", "host", "esx1", "vm", "db1"), alert("VirtVMMemoryTaken", "vm", "db1", "vm_id", "v1"),
	}, []string{"HostMemoryOverload"}},
	{"an alert of the same name that is no tip of protip's", []map[string]string{
		alert("HostCPUOverload", "host", "esx1"), alert("VirtHostCPUSaturated", esx1...),
	}, []string{"HostCPUOverload", "VirtHostCPUSaturated"}},
	{"a disk of protip's is full", []map[string]string{
		alert("ProtipJournalErrors", "instance", "a"), alert("ProtipHistoryNotWritable", "instance", "a"), alert("ProtipHistoryNotWritable", "instance", "b"),
	}, []string{"ProtipJournalErrors", "ProtipHistoryNotWritable"}},
	{"migrations do not help", []map[string]string{
		alert("ProtipBreakerOpen", "instance", "a"), alert("ProtipTipsDoNotHelp", "instance", "a"),
	}, []string{"ProtipBreakerOpen"}},
}

// TestNothingPagesTwice fires the alerts and tips of a fault at a real Alertmanager with the shipped inhibit rules: what explains the
// others pages, and of the others none; what is of another object does.
func TestNothingPagesTwice(t *testing.T) {
	prom.Tool(t, "prometheus-alertmanager")
	rules, err := os.ReadFile("inhibit.yml")
	if err != nil {
		t.Fatal(err)
	}
	pages := &pager{}
	receiver := httptest.NewServer(pages)
	t.Cleanup(receiver.Close)
	am := prom.StartAlertmanager(t, `route: {receiver: pager, group_by: ["..."], group_wait: 2s, group_interval: 1s, repeat_interval: 1h}
receivers: [{name: pager, webhook_configs: [{url: "`+receiver.URL+`"}]}]
`+string(rules))
	type sent struct {
		Labels map[string]string `json:"labels"`
	}
	var all []sent
	for _, f := range faults {
		for _, labels := range f.alerts {
			labels["source"] = f.name
			all = append(all, sent{labels})
		}
	}
	body, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.Post(am.URL+"/api/v2/alerts", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("Alertmanager answers %s", res.Status)
	}
	wrong := ""
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if wrong = pages.wrong(faults); wrong == "" {
			break
		}
	}
	time.Sleep(2 * time.Second) // two more intervals, in which nothing may come
	if wrong = pages.wrong(faults); wrong != "" {
		t.Error(wrong)
	}
	silent := 0
	state, err := am.Alerts()
	for _, a := range state {
		if a.Status.State == "suppressed" {
			silent++
		}
	}
	paged := 0
	for _, f := range faults {
		paged += len(f.pages)
	}
	if err != nil || len(state) != len(all) || silent != len(all)-paged {
		t.Errorf("of %d alerts Alertmanager has %d and suppresses %d, %v", len(all), len(state), silent, err)
	}
}

// pager is who is woken.
type pager struct {
	mu  sync.Mutex
	got map[string][]string // alerts by source
}

func (p *pager) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var message struct {
		Alerts []struct{ Labels map[string]string }
	}
	if err := json.NewDecoder(r.Body).Decode(&message); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.got == nil {
		p.got = map[string][]string{}
	}
	for _, a := range message.Alerts {
		p.got[a.Labels["source"]] = append(p.got[a.Labels["source"]], a.Labels["alertname"])
	}
}

func (p *pager) of(source string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got[source])
}

// wrong says which faults page otherwise than they should.
func (p *pager) wrong(faults []fault) string {
	var out []string
	for _, f := range faults {
		got, want := p.of(f.name), slices.Clone(f.pages)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			out = append(out, fmt.Sprintf("%s: paged are %v, want %v", f.name, got, want))
		}
	}
	return strings.Join(out, "\n")
}

// TestEveryInhibitRuleIsTried: each target of each rule is inhibited in one of the faults.
func TestEveryInhibitRuleIsTried(t *testing.T) {
	var file struct {
		Rules []struct {
			Source []string `yaml:"source_matchers"`
			Target []string `yaml:"target_matchers"`
			Equal  []string
		} `yaml:"inhibit_rules"`
	}
	load(t, "inhibit.yml", &file)
	names := regexp.MustCompile(`alertname =~? "?([A-Za-z|]+)`)
	for _, r := range file.Rules {
		source := names.FindStringSubmatch(r.Source[0])[1]
		for target := range strings.SplitSeq(names.FindStringSubmatch(r.Target[0])[1], "|") {
			tried := slices.ContainsFunc(faults, func(f fault) bool {
				var from, to map[string]string
				for _, a := range f.alerts {
					switch a["alertname"] {
					case source:
						from = a
					case target:
						if to == nil {
							to = a
						}
					}
				}
				same := from != nil && to != nil
				for _, label := range r.Equal {
					same = same && from[label] == to[label]
				}
				return same && slices.Contains(r.Source, `protip_tip != ""`) == (from["protip_tip"] != "")
			})
			if !tried {
				t.Errorf("no fault in which %s inhibits %s", source, target)
			}
		}
	}
}
