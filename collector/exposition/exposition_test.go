package exposition

import (
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/protip/protip/internal/inventory"
)

var update = flag.Bool("update", false, "write the golden files")

var epoch = time.UnixMilli(1_700_000_000_000)

func vmID(source, ref string) inventory.ID {
	return inventory.ID{Source: source, Kind: inventory.KindVM, Ref: ref}
}

func hostID(source, ref string) inventory.ID {
	return inventory.ID{Source: source, Kind: inventory.KindHost, Ref: ref}
}

func datastoreID(source, ref string) inventory.ID {
	return inventory.ID{Source: source, Kind: inventory.KindDatastore, Ref: ref}
}

func clusterID(source, ref string) inventory.ID {
	return inventory.ID{Source: source, Kind: inventory.KindCluster, Ref: ref}
}

func serviceID(source, ref string) inventory.ID {
	return inventory.ID{Source: source, Kind: inventory.KindService, Ref: ref}
}

func poolID(source, ref string) inventory.ID {
	return inventory.ID{Source: source, Kind: inventory.KindResourcePool, Ref: ref}
}

func machineID(source, ref string) inventory.ID {
	return inventory.ID{Source: source, Kind: inventory.KindMachine, Ref: ref}
}

// twoSources is a small fleet: one vCenter with all that is awkward, one that never answered.
func twoSources(t testing.TB) *inventory.Fleet {
	t.Helper()
	f := inventory.NewFleet(
		inventory.Source{Name: "lab", Platform: "vsphere", Interval: 20 * time.Second, MaxSeries: 1000},
		inventory.Source{Name: "dead", Platform: "vsphere", Interval: 20 * time.Second},
	)
	apply(t, f, inventory.Delta{
		Source: "lab", Begin: true, Synced: true,
		Clusters: []inventory.Cluster{
			{
				ID: clusterID("lab", "domain-c1"), Name: "Berlin", EVC: "intel-skylake",
				DRS: inventory.DRS{Enabled: true, Automation: inventory.AutomationManual},
				HA:  inventory.HA{Enabled: true, AdmissionControl: true, Policy: "percentage", HostFailures: 1},
				Rules: []inventory.Rule{
					{Name: "apart", Kind: inventory.AntiAffinity, Enabled: true}, {Name: "off", Kind: inventory.AntiAffinity},
				},
				HostRules: []inventory.HostRule{{Name: "licence", Kind: inventory.Affinity, Enabled: true}},
				Admission: inventory.Admission{ReservedCPU: 0.25, ReservedMemory: 0.3},
				Overrides: map[inventory.ID]inventory.Automation{vmID("lab", "vm-1"): inventory.AutomationFull},
			},
			{
				ID: clusterID("lab", "domain-c2"), Name: "Bonn", HA: inventory.HA{Enabled: true, Policy: "host_failures", HostFailures: 2},
				Admission:         inventory.Admission{SlotCPUHertz: 5e8, SlotMemoryBytes: 1 << 30},
				RestartPriorities: map[inventory.ID]string{vmID("lab", "vm-2"): "disabled"},
			},
			{
				ID: clusterID("lab", "domain-c3"), Name: "Kiel", HA: inventory.HA{Enabled: true, Policy: "dedicated_hosts"},
				Admission: inventory.Admission{Hosts: []inventory.ID{hostID("lab", "host-1")}},
			},
		},
		Hosts: []inventory.Host{
			{
				ID: hostID("lab", "host-1"), Name: "esx1", Cluster: clusterID("lab", "domain-c1"), UUID: "u-1", Connection: inventory.Connected,
				Power: inventory.PowerOn, Cores: 16, CPUHertz: 16 * 2.4e9, MemoryBytes: 64 << 30, Model: "R740", CPUModel: "Xeon", Version: "8.0.3",
				EVC: "intel-skylake", MaxEVC: "intel-icelake",
			},
			{ID: hostID("lab", "host-2"), Name: "esx2", Connection: inventory.Disconnected, Power: inventory.PowerUnknown, Maintenance: true},
		},
		VMs: []inventory.VM{
			{
				ID: vmID("lab", "vm-1"), Name: "web", UUID: "u-11", Host: hostID("lab", "host-1"), Connection: inventory.Connected,
				Power: inventory.PowerOn, VCPUs: 4, MemoryBytes: 8 << 30, GuestOS: "Debian GNU/Linux 12 (64-bit)", Pool: poolID("lab", "resgroup-2"),
				CPUReservationHertz: 1e9, MemoryReservationBytes: 1 << 30, Availability: inventory.HighlyAvailable,
				Annotations: []inventory.Label{{Name: "cost_center", Value: "4711"}, {Name: "owner", Value: "a \"team\""}},
				Tags:        []inventory.Tag{{Category: "env", Name: "prod"}, {Category: "env", Name: "web\n"}},
			},
			{ID: vmID("lab", "vm-2"), Name: "web", Host: hostID("lab", "host-1"), Connection: inventory.Connected, Power: inventory.PowerOff},
			{ID: vmID("lab", "vm-3"), Name: "a \"quoted\"\nback\\slash \xff\xfe end", Host: hostID("lab", "host-2"), Connection: inventory.Orphaned, Power: inventory.PowerSuspended},
			{ID: vmID("lab", "vm-4"), Name: strings.Repeat("äöü€", 20), Host: hostID("lab", "host-9"), Pool: poolID("lab", "resgroup-9"), Power: inventory.PowerOn, Template: true},
		},
		Datastores: []inventory.Datastore{
			{
				ID: datastoreID("lab", "datastore-1"), Name: "san", Type: "VMFS", CapacityBytes: 1 << 44, Accessible: true,
				Mounts: map[inventory.ID]inventory.Mount{hostID("lab", "host-1"): {Accessible: true}, hostID("lab", "host-2"): {}, hostID("lab", "host-9"): {}},
			},
			{ID: datastoreID("lab", "datastore-2"), Name: "nfs", Type: "NFS", Maintenance: true},
		},
		Pools: []inventory.ResourcePool{
			{
				ID: poolID("lab", "resgroup-1"), Name: "Resources", Cluster: clusterID("lab", "domain-c1"),
				CPU: inventory.Allocation{Known: true, Reservation: 38.4e9, Limited: true, Limit: 38.4e9, Shares: 9000},
			},
			{
				ID: poolID("lab", "resgroup-2"), Name: "gold \"1\"", Parent: poolID("lab", "resgroup-1"), Cluster: clusterID("lab", "domain-c1"),
				CPU:    inventory.Allocation{Known: true, Expandable: true, Shares: 4000},
				Memory: inventory.Allocation{Known: true, Reservation: 1 << 30, Limited: true, Limit: 4 << 30, Shares: 163840},
			},
			{ID: poolID("lab", "resgroup-3"), Name: "alone"},
		},
		Services: []inventory.Service{
			{ID: serviceID("lab", "1"), Name: "nginx.service", VM: vmID("lab", "vm-1"), Type: "systemd", State: inventory.ServiceRunning},
			{ID: serviceID("lab", "2"), Name: "https://shop", Type: "http", State: inventory.ServiceFailed},
			{ID: serviceID("lab", "3"), Name: "backup", VM: vmID("elsewhere", "vm-1"), Type: "windows"},
		},
		Networks: []inventory.Network{{ID: inventory.ID{Source: "lab", Kind: inventory.KindNetwork, Ref: "network-1"}, Name: "VM Network"}},
		Machines: []inventory.Machine{
			{ID: machineID("lab", "db"), Name: "db", UUID: "u-21", Model: "Dell \"Inc.\" R640", OS: "Debian GNU/Linux 13 (trixie)", CPUs: 16, MemoryBytes: 64 << 30},
			{ID: machineID("lab", "silent"), Name: "silent", VM: vmID("lab", "vm-1")},
		},
		Samples: []inventory.SampleSet{
			{ID: datastoreID("lab", "datastore-1"), At: epoch.UnixMilli(), Values: []inventory.Value{{Metric: inventory.DatastoreFree, Value: 1 << 40}}},
			{ID: serviceID("lab", "1"), At: epoch.UnixMilli(), Values: []inventory.Value{{Metric: inventory.ServiceLatency, Value: 0.25}}},
			{ID: machineID("lab", "db"), At: epoch.UnixMilli(), Values: []inventory.Value{
				{Metric: inventory.MachineCPUUsageRatio, Value: 0.25}, {Metric: inventory.MachineDiskRead, Value: 1 << 40},
			}},
			{ID: vmID("lab", "vm-1"), At: epoch.UnixMilli(), Values: []inventory.Value{
				{Metric: inventory.VMCPUUsage, Value: 3.1e9},
				{Metric: inventory.VMCPUContention, Value: 0.0421},
				{Metric: inventory.VMNetworkReceive, Value: 1 << 40},
				{Metric: inventory.VMDiskLatency, Value: 1.0 / 3},
			}},
			{ID: hostID("lab", "host-1"), At: epoch.UnixMilli(), Values: []inventory.Value{
				{Metric: inventory.HostCPUUsageRatio, Value: 0.5},
				{Metric: inventory.HostUptime, Value: 0},
			}},
		},
	})
	f.Down("dead", errors.New("no route to host"))
	return f
}

func apply(t testing.TB, f *inventory.Fleet, d inventory.Delta) {
	t.Helper()
	if _, err := f.Apply(d, epoch); err != nil {
		t.Fatal(err)
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func registry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "protip_test_total", Help: "A metric of our own."})
	c.Add(3)
	reg.MustRegister(c)
	return reg
}

// scrape is what a client with these headers gets, inflated.
func scrape(t testing.TB, h http.Handler, header ...string) (body []byte, res *http.Response) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	res = w.Result()
	if want := res.Header.Get("Content-Length"); want != strconv.Itoa(w.Body.Len()) {
		t.Errorf("Content-Length %s, body of %d", want, w.Body.Len())
	}
	body = w.Body.Bytes()
	if res.Header.Get("Content-Encoding") == "gzip" {
		zr, err := gzip.NewReader(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		zr.Multistream(false) // one member, as clients that stop after the first expect
		if body, err = io.ReadAll(zr); err != nil {
			t.Fatal(err)
		}
	}
	return body, res
}

const openMetrics = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2"

func TestGolden(t *testing.T) {
	fleet := twoSources(t)
	h := New(fleet.Snapshot, registry(), quiet())
	for _, tc := range []struct{ name, accept, contentType, file string }{
		{"text", "", "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", "text.golden"},
		{"openmetrics", openMetrics, "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8", "openmetrics.golden"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			body, res := scrape(t, h, "Accept", tc.accept)
			if got := res.Header.Get("Content-Type"); got != tc.contentType {
				t.Errorf("Content-Type %q, want %q", got, tc.contentType)
			}
			golden(t, tc.file, body)
			zipped, res := scrape(t, h, "Accept", tc.accept, "Accept-Encoding", "br, gzip;q=0.5")
			if res.Header.Get("Content-Encoding") != "gzip" || !bytes.Equal(zipped, body) {
				t.Errorf("gzip form differs: %s", zipped)
			}
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant:\n%s", file, got, want)
	}
}

// parse reads the classic format with somebody else's parser.
func parse(t testing.TB, body []byte) map[string]int {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(body))
	if err != nil {
		t.Fatalf("not the text format: %v\n%s", err, body)
	}
	series := map[string]int{}
	for name, f := range families {
		series[name] = len(f.Metric)
	}
	return series
}

func TestEveryNameIsShownAndNoneTwice(t *testing.T) {
	fleet := twoSources(t)
	var sets []inventory.SampleSet
	for _, id := range []inventory.ID{
		vmID("lab", "vm-3"), hostID("lab", "host-1"), datastoreID("lab", "datastore-1"), serviceID("lab", "1"), clusterID("lab", "domain-c1"),
		machineID("lab", "db"),
	} {
		set := inventory.SampleSet{ID: id, At: epoch.UnixMilli()}
		for _, m := range inventory.MetricsOf(id.Kind) {
			set.Values = append(set.Values, inventory.Value{Metric: m, Value: 0.25})
		}
		sets = append(sets, set)
	}
	apply(t, fleet, inventory.Delta{Source: "lab", Samples: sets})
	body, _ := scrape(t, New(fleet.Snapshot, registry(), quiet()))
	series := parse(t, body)
	for _, f := range Families() {
		if series[f.Name] == 0 {
			t.Errorf("%s is not shown", f.Name)
		}
		if n := bytes.Count(body, []byte("# TYPE "+f.Name+" ")); n != 1 {
			t.Errorf("%s has %d TYPE lines", f.Name, n)
		}
	}
	if series["virt_vm_info"] != 4 {
		t.Errorf("%d VMs shown, want 4", series["virt_vm_info"])
	}
}

func TestAMoveChangesOneSeries(t *testing.T) {
	fleet := twoSources(t)
	h := New(fleet.Snapshot, prometheus.NewRegistry(), quiet())
	before, _ := scrape(t, h)
	apply(t, fleet, inventory.Delta{Source: "lab", VMs: []inventory.VM{{
		ID: vmID("lab", "vm-1"), Name: "web", UUID: "u-11", Host: hostID("lab", "host-2"), Pool: poolID("lab", "resgroup-2"), Connection: inventory.Connected,
		Power: inventory.PowerOn, VCPUs: 4, MemoryBytes: 8 << 30, GuestOS: "Debian GNU/Linux 12 (64-bit)",
		CPUReservationHertz: 1e9, MemoryReservationBytes: 1 << 30, Availability: inventory.HighlyAvailable,
		Annotations: []inventory.Label{{Name: "cost_center", Value: "4711"}, {Name: "owner", Value: "a \"team\""}},
		Tags:        []inventory.Tag{{Category: "env", Name: "prod"}, {Category: "env", Name: "web\n"}},
	}}})
	after, _ := scrape(t, h)
	changed := diff(before, after)
	want := []string{
		`virt_host_vms{source="lab",host="esx1",host_id="host-1"} 1`,
		`virt_host_vms{source="lab",host="esx2",host_id="host-2"} 2`,
		`virt_vm_info{source="lab",vm="web",vm_id="vm-1",host="esx2",host_id="host-2",virt_cluster="",cluster_id="",uuid="u-11",guest_os="Debian GNU/Linux 12 (64-bit)",resource_pool="gold \"1\"",resource_pool_id="resgroup-2"} 1`,
	}
	if strings.Join(changed, "\n") != strings.Join(want, "\n") {
		t.Errorf("changed:\n%s\nwant:\n%s", strings.Join(changed, "\n"), strings.Join(want, "\n"))
	}
}

// diff are the lines of after that before does not have.
func diff(before, after []byte) (out []string) {
	old := map[string]bool{}
	for line := range strings.Lines(string(before)) {
		old[line] = true
	}
	for line := range strings.Lines(string(after)) {
		if !old[line] {
			out = append(out, strings.TrimSuffix(line, "\n"))
		}
	}
	return out
}

func TestARenamedClusterIsShownAtItsVMs(t *testing.T) {
	fleet := twoSources(t)
	h := New(fleet.Snapshot, prometheus.NewRegistry(), quiet())
	scrape(t, h)
	apply(t, fleet, inventory.Delta{Source: "lab", Clusters: []inventory.Cluster{{ID: clusterID("lab", "domain-c1"), Name: "Potsdam"}}})
	body, _ := scrape(t, h)
	if n := bytes.Count(body, []byte(`virt_cluster="Potsdam"`)); n != 13 { // its own eight, two resource pools, a host, two VMs
		t.Errorf("Potsdam in %d series, want 13\n%s", n, body)
	}
	if bytes.Contains(body, []byte("Berlin")) {
		t.Error("the old name is still shown")
	}
}

func TestOldSamplesAreNotShown(t *testing.T) {
	fleet := twoSources(t)
	now := epoch
	h := New(func() *inventory.Snapshot { fleet.Expire(now); return fleet.Snapshot() }, prometheus.NewRegistry(), quiet())
	series := func() map[string]int { body, _ := scrape(t, h); return parse(t, body) }
	if got := series(); got["virt_vm_cpu_usage_hertz"] != 1 {
		t.Errorf("before: %v", got)
	}
	now = epoch.Add(41 * time.Second)
	body, _ := scrape(t, h)
	got := parse(t, body)
	if got["virt_vm_cpu_usage_hertz"] != 0 || got["virt_host_cpu_usage_ratio"] != 0 {
		t.Errorf("old samples are shown: %v", got)
	}
	if got["virt_vm_info"] != 4 || got["virt_host_connected"] != 2 {
		t.Errorf("facts are gone: %v", got)
	}
	if !bytes.Contains(body, []byte(`protip_source_stale_objects{source="lab",kind="vm"} 1`)) {
		t.Errorf("staleness is not shown:\n%s", body)
	}
}

// TestIncrementalEqualsAnew changes a fleet at random and holds what was rendered in steps against what is rendered at once.
func TestIncrementalEqualsAnew(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	fleet := twoSources(t)
	steps := New(fleet.Snapshot, prometheus.NewRegistry(), quiet())
	for step := range 400 {
		for range rng.IntN(4) {
			apply(t, fleet, randomDelta(rng))
		}
		if rng.IntN(8) == 0 {
			fleet.Expire(epoch.Add(time.Duration(rng.IntN(90)) * time.Second))
		}
		encoding := []string{"identity", "gzip"}[rng.IntN(2)]
		got, _ := scrape(t, steps, "Accept", openMetrics, "Accept-Encoding", encoding)
		want, _ := scrape(t, New(fleet.Snapshot, prometheus.NewRegistry(), quiet()), "Accept", openMetrics)
		if !bytes.Equal(got, want) {
			t.Fatalf("step %d:\n%s\nwant:\n%s", step, got, want)
		}
	}
}

func randomDelta(rng *rand.Rand) inventory.Delta {
	vm, host, cluster := vmID("lab", fmt.Sprint("vm-", rng.IntN(12))), hostID("lab", fmt.Sprint("host-", rng.IntN(4))), clusterID("lab", fmt.Sprint("c-", rng.IntN(2)))
	store := datastoreID("lab", fmt.Sprint("store-", rng.IntN(3)))
	d := inventory.Delta{Source: "lab"}
	switch rng.IntN(9) {
	case 7:
		d.Datastores = []inventory.Datastore{{
			ID: store, Name: fmt.Sprint("store", rng.IntN(3)), Accessible: true,
			Mounts: map[inventory.ID]inventory.Mount{host: {Accessible: rng.IntN(2) == 0}, hostID("lab", "host-1"): {}},
		}}
	case 8:
		d.Samples = []inventory.SampleSet{{ID: store, At: epoch.UnixMilli(), Values: []inventory.Value{{Metric: inventory.DatastoreFree, Value: rng.Float64()}}}}
	case 0:
		d.Removed = []inventory.ID{[]inventory.ID{vm, host, cluster, store}[rng.IntN(4)]}
	case 1:
		d.Clusters = []inventory.Cluster{{ID: cluster, Name: fmt.Sprint("cluster", rng.IntN(3))}}
	case 2:
		d.Hosts = []inventory.Host{{ID: host, Name: fmt.Sprint("esx", rng.IntN(3)), Cluster: cluster, Cores: rng.IntN(3)}}
	case 3:
		d.VMs = []inventory.VM{{ID: vm, Name: fmt.Sprint("web", rng.IntN(3)), Host: host, VCPUs: rng.IntN(3), Template: rng.IntN(5) == 0}}
	case 4:
		d.Samples = []inventory.SampleSet{{ID: host, At: epoch.UnixMilli() + rng.Int64N(60_000), Values: []inventory.Value{{Metric: inventory.HostCPUUsageRatio, Value: rng.Float64()}}}}
	default:
		d.Samples = []inventory.SampleSet{{ID: vm, At: epoch.UnixMilli() + rng.Int64N(60_000), Values: []inventory.Value{{Metric: inventory.VMCPUUsage, Value: float64(rng.IntN(1e9))}}}}
	}
	return d
}

// TestScrapesWhileTheFleetChanges is for the race detector, and for readers slower than updates.
func TestScrapesWhileTheFleetChanges(t *testing.T) {
	fleet := twoSources(t)
	h := New(fleet.Snapshot, registry(), quiet())
	parts, done := h.body(expfmt.FmtText, false)
	slow := bytes.Join(parts, nil)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 3))
			for range 50 {
				if i == 0 {
					apply(t, fleet, randomDelta(rng))
				}
				scrape(t, h, "Accept-Encoding", []string{"gzip", ""}[i%2])
			}
		})
	}
	wg.Wait()
	if !bytes.Equal(bytes.Join(parts, nil), slow) {
		t.Error("bytes that a scrape still reads were written to")
	}
	done()
}

func TestAcceptsGzip(t *testing.T) {
	for in, want := range map[string]bool{
		"": false, "gzip": true, "GZIP;q=1": true, "br, gzip ; q=0.5": true, "gzip;q=0": false, "gzip; q=0.000": false,
		"deflate": false, "x-gzip": false, "identity": false, "gzip;q=high": true,
	} {
		if got := acceptsGzip(http.Header{"Accept-Encoding": {in}}); got != want {
			t.Errorf("%q: %v", in, got)
		}
	}
}

func TestNumbersAreReadBack(t *testing.T) {
	check := func(v float64) {
		t.Helper()
		got, err := strconv.ParseFloat(string(appendNumber(nil, v)), 64)
		if err != nil || math.Float64bits(got) != math.Float64bits(v) {
			t.Errorf("%v is written as %s", v, appendNumber(nil, v))
		}
	}
	for _, v := range []float64{
		0, math.Copysign(0, -1), 1, -1, 0.1, 0.0421, 1.0 / 3, 1e-300, math.MaxFloat64, 1 << 53, 1<<53 + 2, 1e15, 12345678.9012,
		math.Inf(1), math.Inf(-1), 0.00005, 0.99995, math.SmallestNonzeroFloat64, 4294967295.9999,
	} {
		check(v)
	}
	rng := rand.New(rand.NewPCG(5, 6))
	for range 100_000 {
		check(math.Round(rng.Float64()*1e6) / 1e4)
		check(rng.NormFloat64() * 1e6)
	}
	for v, want := range map[float64]string{0.5: "0.5", 0.0421: "0.0421", 3.1e9: "3100000000", 12.34: "12.34"} {
		if got := string(appendNumber(nil, v)); got != want {
			t.Errorf("%v is written as %s, want %s", v, got, want)
		}
	}
}

func FuzzLabel(f *testing.F) {
	f.Add("web")
	f.Add("a\"b\\c\nd\xffe\r\x00")
	f.Fuzz(func(t *testing.T, name string) {
		body := append(identity([]byte("m{"), "s", "vm", name, "vm_id", "vm-1"), "} 1\n"...)
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(bytes.NewReader(body))
		if err != nil {
			t.Fatalf("%v: %q", err, body)
		}
		got := families["m"].Metric[0].Label[1].GetValue()
		if want := strings.ToValidUTF8(name, "\uFFFD"); got != want {
			t.Errorf("read back %q, want %q", got, want)
		}
	})
}
