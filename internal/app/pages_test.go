package app_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/sim"
	"github.com/protip/protip/internal/sim/load"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// apartEnv turns this test binary into a vCenter, until its standard input ends.
const apartEnv = "PROTIP_TEST_VCENTER"

// apart is how a vCenter in another process is reached.
type apart struct {
	Login string // its URL, with user and password
	CA    string
}

// beApart serves 10,240 VMs on 320 hosts in ten clusters. One host in sixteen is hot.
func beApart() {
	const hosts, each = 320, 32
	vc, err := sim.StartVCenter(sim.Config{
		Name: "vc", Clusters: sim.Uniform(hosts, hosts*each),
		Load: load.Func(func(vm int, _ time.Time) load.Use {
			if vm/each%16 == 0 {
				return load.Around(vm, 0.3)
			}
			return load.Around(vm, 0.03+float64(vm*7919%89)/1000)
		}),
		MigrationTime: func(float64) time.Duration { return 10 * time.Second },
	})
	if err != nil {
		panic(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(apart{vc.Login().String(), string(vc.CAPEM())}); err != nil {
		panic(err)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// startApart starts that vCenter in a process of its own, so that its work is not the agent's, and returns the source.
func (r *rig) startApart() map[string]any {
	r.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env, cmd.Stderr = append(os.Environ(), apartEnv+"=1"), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	var at apart
	if err := json.NewDecoder(out).Decode(&at); err != nil {
		r.t.Fatal(err)
	}
	login, err := url.Parse(at.Login)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.sourceAt("vc", login, []byte(at.CA))
}

// Bounds of a page: how soon its first byte is there, and how large it is.
const (
	soonEnough  = 100 * time.Millisecond
	smallEnough = 200 << 10
)

// BenchmarkPagesOfTheAgent tells the 99th percentile of the time to the first byte of each page and each list of the API, of an agent that
// watches 10,240 VMs meanwhile, at its normal interval, with its history, tips and migrations. Asked 1,000 times or more, a page that is too
// slow is an error; one that is too large always is.
func BenchmarkPagesOfTheAgent(b *testing.B) {
	r := newRig(b, 1)
	r.config["sources"] = []any{r.startApart()}
	r.config["packs"] = map[string]any{"files": []any{"heat.yml"}}
	r.config["placement"] = map[string]any{"reserve": 1}
	r.write()
	a := r.start()
	a.awaitUp("vc")
	var tips []rules.Tip
	await(b, 3*deadline, func() string {
		tips = nil
		all, err := a.Tips(b.Context(), rules.Active)
		for _, t := range all {
			if t.Rule == "HostHot" {
				tips = append(tips, t.Tip)
			}
		}
		if err != nil || len(tips) < 10 {
			return fmt.Sprintf("%d tips, %v", len(tips), err)
		}
		return ""
	})
	await(b, 3*deadline, func() string { // where all is slow, a host's numbers may be too old when it is asked for
		acts := a.actions()
		if len(acts) < 5 {
			for _, tip := range tips[:5] {
				_, _ = a.post("/api/v1/tips/"+tip.ID+"/implement", operatorToken)
			}
		}
		if !slices.ContainsFunc(acts, func(act remediation.Action) bool { return act.State == remediation.Done }) {
			return "no migration is done"
		}
		return ""
	})
	snap := a.Snapshot()
	hot, _ := snap.Host(tips[5].Object)
	vms := snap.VMsOn(hot.ID)
	page := func(id inventory.ID) string { return "/" + id.Kind.String() + "s/" + id.String() }
	for _, address := range []string{
		"/", "/?state=all", "/tips/" + tips[5].ID, "/fleet", page(hot.Cluster), page(hot.ID), "/plan?host=" + hot.ID.String(), "/vms", "/vms?sort=-cpu&page=40",
		"/vms?q=vm-01", "/vms?cluster=" + url.QueryEscape(hot.Cluster.String()) + "&sort=-contention", page(vms[0].ID), "/search?q=vm-0", "/actions", "/sources",
		"/reports", "/reports/host-utilization?since=1d", "/packs", "/packs/host-pressure/replay", "/audit",
		"/api/v1/status", "/api/v1/sources", "/api/v1/clusters", "/api/v1/hosts", "/api/v1/vms", "/api/v1/vms?sort=-cpu_usage_hertz&limit=100",
		"/api/v1/place?vm=" + vms[0].ID.String(), "/api/v1/reserve", "/api/v1/tips", "/api/v1/tips/" + tips[5].ID, "/api/v1/tips/" + tips[5].ID + "/plan",
		"/api/v1/plan?what=evacuate&host=" + hot.ID.String(), "/api/v1/actions", "/api/v1/packs", "/api/v1/audit",
	} {
		name := strings.NewReplacer("/", "_", "?", "_", "&", "_", "%", "").Replace(address)
		b.Run(name, func(b *testing.B) {
			var took []time.Duration
			size, worked := int64(0), cpuUsed()
			for b.Loop() {
				var first time.Duration
				first, size = a.fetch(b, address)
				took = append(took, first)
			}
			b.ReportMetric(float64((cpuUsed()-worked).Microseconds())/1000/float64(len(took)), "cpu-ms") // with what the agent does meanwhile
			slices.Sort(took)
			p99 := took[(len(took)*99-1)/100]
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(p99.Microseconds())/1000, "p99-ms")
			b.ReportMetric(float64(size)/1024, "KiB")
			if len(took) >= 1000 && p99 > soonEnough {
				b.Errorf("the 99th percentile to the first byte is %s, want %s", p99, soonEnough)
			}
			if !strings.HasPrefix(address, "/api/") && size > smallEnough {
				b.Errorf("it has %d bytes, want %d", size, smallEnough)
			}
		})
	}
}

// cpuUsed is the CPU time of this process.
func cpuUsed() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// fetch is how soon the header of an answer came, and how long its body was.
func (a *agent) fetch(b *testing.B, address string) (first time.Duration, size int64) {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, a.url+address, nil)
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+operatorToken)
	began := time.Now()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	first = time.Since(began)
	defer res.Body.Close()
	if size, err = io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK {
		b.Fatal(address, res.Status, err)
	}
	return first, size
}
