package e2e

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"image"
	"image/color"
	paint "image/draw"
	"image/png"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	promconfig "github.com/prometheus/common/config"
	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/vim25/mo"
	vim "github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/dashboards"
	"github.com/protip/protip/dashboards/check"
	"github.com/protip/protip/dashboards/draw"
	"github.com/protip/protip/internal/history/remote"
	"github.com/protip/protip/internal/web/client"
	"github.com/protip/protip/test/prom"
)

var pictures = flag.String("pictures", "", "where to write a picture of each dashboard, by the chromium that is installed")

// TestDashboards lets a real Prometheus watch a demo from its start until a host has recovered, and then runs every query of every
// panel: each has an answer, none shows zeros alone, and what should move has moved. What the demo does not do by itself is done to it from
// outside, as an administrator would. A page with a broken panel is found out.
func TestDashboards(t *testing.T) {
	prom.Tool(t, "prometheus")
	speed, every := 20, time.Second
	if *pictures != "" {
		speed, every = 8, 2*time.Second // more to be seen, and a machine that draws is busy
	}
	demo := startDemo(t, "--seed=5", fmt.Sprint("--speed=", speed))
	began := time.Now()
	server := prom.StartEvery(t, every, map[string]string{"protip": strings.TrimPrefix(demo.base, "http://")})
	act := demo.await(t, func(a action) bool { return a.Outcome == "recovered" && a.source() != hyperV })
	interfere(t, demo, server, act)
	server.Wait(t, `min_over_time(sum(protip_action_outcomes_total)[4s:1s]) > 0`, patience, func(s []prom.Sample) bool { return len(s) == 1 }) // and not only in the last scrape
	ask, err := remote.New(remote.Options{URL: server.URL, HTTP: promconfig.DefaultHTTPClientConfig, Timeout: 30 * time.Second, Samples: 1_000_000})
	if err != nil {
		t.Fatal(err)
	}
	cluster := server.Query(t, `virt_host_info{host="`+act.FromName+`"}`)[0].Labels["virt_cluster"]
	fixed := map[string]string{"source": act.source(), "virt_cluster": cluster, "host": act.FromName, "vm": act.VMName}
	c := check.Checker{Ask: ask, From: began, To: time.Now()}
	for _, d := range dashboards.All() {
		t.Run(d.UID, func(t *testing.T) {
			own := map[string]string{}
			for _, v := range d.Variables {
				if !v.Multi || v.Name == "virt_cluster" {
					own[v.Name] = fixed[v.Name]
				}
			}
			problems, err := c.Dashboard(t.Context(), d, own)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range problems {
				t.Error(p)
			}
			picture(t, c, d, own)
		})
	}
	t.Run("broken on purpose", func(t *testing.T) {
		d := dashboards.All()[0]
		panel := func(title, expr string, moves dashboards.Scenario) dashboards.Panel {
			return dashboards.Panel{Title: title, Moves: moves, Targets: []dashboards.Target{{Expr: expr}}}
		}
		d.Rows = []dashboards.Row{{Title: "x", Panels: []dashboards.Panel{
			panel("empty", `virt_host_cpu_usage_ratoi{source=~"$source"}`, dashboards.AtStart),
			panel("wrong", `sum(`, dashboards.AtStart),
			panel("still", `vector(7)`, dashboards.Heat),
			panel("zero", `0 * virt_host_vms{source=~"$source"}`, dashboards.AtStart),
			panel("made up", `vector(7)`, dashboards.AtStart),
			panel("right", `virt_host_cpu_usage_ratio{source=~"$source"}`, dashboards.Heat),
		}}}
		problems, err := c.Dashboard(t.Context(), d, nil)
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]bool{}
		for _, p := range problems {
			found[p.Panel] = true
		}
		for _, panel := range []string{"empty", "wrong", "still", "zero", "made up", "right"} {
			if found[panel] == (panel == "right") {
				t.Errorf("the panel %q was found out %v: %v", panel, found[panel], problems)
			}
		}
	})
}

// hyperV is the demo's source of another platform, which knows less of its VMs.
const hyperV = "hv-prod-01"

// vcenter is one of the demo's, and how to log in to it.
type vcenter struct {
	Name, URL, Username, Password string
}

// interfere does what no demo does by itself: somebody migrates a VM and disconnects a host, both far from where things happen, an
// administrator ends the agent's session, and a person pauses. It returns when Prometheus has seen it.
func interfere(t *testing.T, d *demo, server *prom.Server, away action) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	var at vcenter
	for _, vc := range d.vcenters {
		if vc.Name == away.source() {
			at = vc
		}
	}
	address, err := url.Parse(at.URL)
	if err != nil {
		t.Fatal(err)
	}
	address.User = url.UserPassword(at.Username, at.Password)
	c, err := govmomi.NewClient(ctx, address, true)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Logout(context.WithoutCancel(ctx))

	person, err := client.New(client.Options{URL: d.base, Token: d.token(t)})
	if err == nil {
		err = person.Pause(ctx, at.Name, "a look at the dashboards")
	}
	if err != nil {
		t.Fatal(err)
	}
	var sessions mo.SessionManager
	if err := c.RetrieveOne(ctx, *c.ServiceContent.SessionManager, []string{"sessionList", "currentSession"}, &sessions); err != nil {
		t.Fatal(err)
	}
	for _, s := range sessions.SessionList {
		if s.Key != sessions.CurrentSession.Key {
			if err := session.NewManager(c.Client).TerminateSession(ctx, []string{s.Key}); err != nil {
				t.Fatal(err)
			}
		}
	}

	one := func(s []prom.Sample) bool { return len(s) == 1 }
	server.Wait(t, `min_over_time(max(protip_remediation_paused)[4s:1s]) == 1`, patience, one)
	server.Wait(t, `min_over_time(sum(increase(protip_source_errors_total[1m]))[4s:1s]) + sum(increase(protip_source_reconnects_total[1m])) > 0`, patience, one)
	// The session is a new one, and all is measured again.
	server.Wait(t, fmt.Sprintf(`min_over_time(count(virt_vm_cpu_costop_ratio{source=%q})[3s:1s]) > 0.8 * scalar(max(max_over_time(count(virt_vm_cpu_costop_ratio{source=%[1]q})[10m:1s])))
		and min_over_time(count(virt_host_cpu_usage_ratio{source=%[1]q})[3s:1s]) > 4 and on () min(protip_source_up) == 1`, at.Name), 2*patience, one)

	hosts, err := find.NewFinder(c.Client).HostSystemList(ctx, "/*/host/*/*")
	if err != nil {
		t.Fatal(err)
	}
	var calm []*object.HostSystem // of the cluster that was hot
	home := server.Query(t, fmt.Sprintf(`virt_host_info{source=%q} and on (virt_cluster) virt_host_info{source=%[1]q, host=%q}`, at.Name, away.FromName))
	for _, h := range hosts {
		for _, s := range home {
			if s.Labels["host_id"] == h.Reference().Value && s.Labels["host"] != away.FromName && s.Labels["host"] != away.ToName {
				calm = append(calm, h)
			}
		}
	}
	var from mo.HostSystem
	if err := calm[0].Properties(ctx, calm[0].Reference(), []string{"vm"}, &from); err != nil {
		t.Fatal(err)
	}
	var on []mo.VirtualMachine
	if err := c.Retrieve(ctx, from.Vm, []string{"name", "runtime.powerState"}, &on); err != nil {
		t.Fatal(err)
	}
	for _, vm := range on {
		if vm.Runtime.PowerState != vim.VirtualMachinePowerStatePoweredOn || strings.Contains(vm.Name, "-dc-") {
			continue
		}
		task, err := object.NewVirtualMachine(c.Client, vm.Self).Migrate(ctx, nil, calm[1], vim.VirtualMachineMovePriorityDefaultPriority, "")
		if err == nil {
			err = task.Wait(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	server.Wait(t, `sum(increase(protip_foreign_moves_total[1h])) > 0`, patience, func(s []prom.Sample) bool { return len(s) == 1 })

	task, err := calm[0].Disconnect(ctx)
	if err == nil {
		err = task.Wait(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	server.Wait(t, `sum(protip_source_stale_objects) > 0 and on () count(virt_host_connected == 0)`, patience, one)
	// Its last samples are too old to be shown, and not only in the last scrape.
	server.Wait(t, fmt.Sprintf(`min_over_time(absent(virt_host_memory_usage_bytes{source=%q, host_id=%q})[3s:1s]) == 1`, at.Name, calm[0].Reference().Value), patience, one)
}

func (d *demo) token(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(d.tokenFile)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// picture draws a page with what Prometheus has. All of its panels must be on it; a file is made of it only if that is wanted.
func picture(t *testing.T, c check.Checker, d dashboards.Dashboard, values map[string]string) {
	t.Helper()
	page, height, err := draw.Page(t.Context(), c, d, values)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range d.Rows {
		for _, p := range r.Panels {
			if !bytes.Contains(page, []byte("<h3>"+p.Title+"</h3>")) {
				t.Errorf("%s is not on the picture", p.Title)
			}
		}
	}
	if bytes.Contains(page, []byte("No data")) {
		t.Error("a panel on the picture is empty")
	}
	if *pictures == "" {
		return
	}
	file := filepath.Join(t.TempDir(), "page.html")
	if err := os.WriteFile(file, page, 0o600); err != nil {
		t.Fatal(err)
	}
	where, err := filepath.Abs(*pictures)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--user-data-dir="+t.TempDir(),
		fmt.Sprintf("--window-size=%d,%d", draw.Width, height), "--screenshot="+filepath.Join(where, d.UID+".png"), "file://"+file)
	out, err := cmd.CombinedOutput()
	if err == nil {
		err = shrink(filepath.Join(where, d.UID+".png"))
	}
	if err != nil {
		t.Fatalf("no picture: %v\n%s", err, out)
	}
}

// shrink writes a picture anew with the 256 colours that are most of it.
func shrink(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	full, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		return err
	}
	bounds, count := full.Bounds(), map[color.RGBA]int{}
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			r, g, b, _ := full.At(x, y).RGBA()
			count[color.RGBA{uint8(r >> 8), uint8(g >> 8), uint8(b >> 8), 255}]++
		}
	}
	most := slices.SortedFunc(maps.Keys(count), func(a, b color.RGBA) int { return count[b] - count[a] })
	var colours color.Palette
	for _, c := range most[:min(len(most), 256)] {
		colours = append(colours, c)
	}
	small := image.NewPaletted(bounds, colours)
	paint.Draw(small, bounds, full, bounds.Min, paint.Src)
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, small); err != nil {
		return err
	}
	return os.WriteFile(file, out.Bytes(), 0o644)
}
