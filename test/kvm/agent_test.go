//go:build linux

package kvm

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/protip/protip/internal/web"
	"github.com/protip/protip/internal/web/client"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// pressurePack is the shipped pack's rule on CPU, for a machine on which a minute is long.
const pressurePack = `pack: lab-pressure
version: 1.0.0
description: Hosts whose guests wait for their one core.
rules:
  - name: HostCPUOverload
    on: host
    when: host.cpu_usage_ratio > 0.7 && host.cpu_contention_ratio > 0.05 && !host.maintenance
    for: 3s
    clear: host.cpu_usage_ratio < 0.68
    severity: warning
    summary: "{{host.name}} uses {{percent(host.cpu_usage_ratio)}} of its CPU; its VMs wait {{percent(host.cpu_contention_ratio)}} of the time"
    remedy: {action: rebalance-host, cpu_below: 0.7}
  - name: ServiceSlow
    on: service
    when: service.latency_seconds > 0.09 && vm.powered_on && !host.maintenance
    for: 3s
    clear: service.latency_seconds < 0.06
    severity: warning
    summary: "{{service.name}} takes {{duration(service.latency_seconds)}}; it runs in {{vm.name}} on {{host.name}}, which uses {{percent(host.cpu_usage_ratio)}} of its CPU"
    remedy: {action: migrate}
`

// burn is what each of two guests on a hot host wants of its core. Both get in each other's way, and what one of them wants and the other
// uses is well below what the pack finds too much; it leaves the same room for one guest alone.
const burn = 0.5

// agent is the built program, run on the lab.
type agent struct {
	*client.Client
	url string
	t   *testing.T
	dir string
	cmd *exec.Cmd
	log *transcript
}

// binaries is the variable of the environment that names where the tests' programs are built.
const binaries = "PROTIP_LAB_BINARIES"

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "protip-lab")
	if err == nil {
		err = os.Setenv(binaries, dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// program builds protip once for all tests.
var program = sync.OnceValues(func() (string, error) {
	path := filepath.Join(os.Getenv(binaries), "protip")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/protip")
	cmd.Dir = checkout()
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build protip: %w\n%s", err, out)
	}
	return path, nil
})

// configure writes an agent's configuration over the lab, with more keys of migration and more sources.
func (l *Lab) configure(t *testing.T, migration, sources string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("pack.yml", pressurePack)
	write("operator.token", "open sesame\n")
	sum := sha256.Sum256([]byte(pressurePack))
	grants := "  automatic:\n"
	for _, rule := range []string{"HostCPUOverload", "ServiceSlow"} {
		grants += fmt.Sprintf("    - {source: lab, cluster: lab, pack: lab-pressure, rule: %s, pack_sha256: %s}\n", rule, hex.EncodeToString(sum[:]))
	}
	write("protip.yml", fmt.Sprintf(`sources:
  - name: lab
    type: libvirt
    hosts: [%s, %s]
    interval: 2s
    acting: {}
    migration: {max_downtime: 20s%s}
%sevaluation_interval: 1s
packs: {shipped: [], files: [pack.yml]}
remediation:
  mode: manual
  ceiling: 0.9
  cooldown: 1s
%sweb: {operator_token_file: operator.token}
`, l.A.URI(), l.B.URI(), migration, sources, grants))
	return dir
}

var listening = regexp.MustCompile(`msg="Listening on" address=(\S+)`)

// run starts the agent on a configuration's directory, until the test ends.
func run(t *testing.T, dir string) *agent {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{t: t, dir: dir, log: &transcript{}}
	a.cmd = exec.Command(path, "run", "--config.file="+filepath.Join(dir, "protip.yml"), "--storage.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0")
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	a.cmd.Stderr = a.log
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		a.end(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("the agent said:\n%s", a.log.tail(60))
		}
	})
	eventually(t, "the agent listens", func() error {
		m := listening.FindStringSubmatch(a.log.String())
		if m == nil {
			return fmt.Errorf("it says %q", a.log.tail(5))
		}
		a.url = "http://" + m[1]
		return nil
	})
	if a.Client, err = client.New(client.Options{URL: a.url, Token: "open sesame"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the lab is up in the agent", func() error {
		sources, err := a.Sources(t.Context())
		for _, src := range sources {
			if !src.Up {
				err = errors.Join(err, fmt.Errorf("source %s is not up: %s", src.Name, src.Error))
			}
		}
		return err
	})
	return a
}

// end sends the agent a signal and waits for its end.
func (a *agent) end(signal syscall.Signal) {
	if a.cmd.ProcessState != nil {
		return
	}
	_ = a.cmd.Process.Signal(signal)
	late := time.AfterFunc(20*time.Second, func() { _ = a.cmd.Process.Kill() })
	_ = a.cmd.Wait()
	late.Stop()
}

// awaitTip waits for a tip of a rule in one of some states.
func (a *agent) awaitTip(rule string, states ...rules.State) (tip web.Tip) {
	a.t.Helper()
	eventually(a.t, fmt.Sprintf("a tip of %s is %v", rule, states), func() error {
		tips, err := a.Tips(a.t.Context(), states...)
		for _, tip = range tips {
			if tip.Rule == rule {
				return nil
			}
		}
		return errors.Join(err, fmt.Errorf("%d other tips are", len(tips)))
	})
	return tip
}

// awaitAction waits for an action that is so; others, such as a plan's second move that is not needed any more, may be there too.
func (a *agent) awaitAction(what string, ok func(remediation.Action) bool) (act remediation.Action) {
	a.t.Helper()
	eventually(a.t, "an action is "+what, func() error {
		actions, err := a.Actions(a.t.Context(), "")
		if err != nil {
			return err
		}
		said := []string{fmt.Sprintf("of %d actions none is", len(actions))}
		for _, act = range actions {
			if ok(act) {
				return nil
			}
			said = append(said, fmt.Sprintf("%s is %s (outcome %q): %s", act.VMName, act.State, act.Outcome, act.Error))
		}
		return errors.New(strings.Join(said, "; "))
	})
	return act
}

// metrics are the lines of /metrics that begin so.
func (a *agent) metrics(prefix string) ([]string, error) {
	res, err := http.Get(a.url + "/metrics")
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var lines []string
	for s := bufio.NewScanner(io.LimitReader(res.Body, 16<<20)); s.Scan(); {
		if strings.HasPrefix(s.Text(), prefix) {
			lines = append(lines, s.Text())
		}
	}
	return lines, nil
}

// watchInfo samples a guest's virt_vm_info every 100 ms until stopped, and then demands that there was exactly one each time, on so many
// hosts in all.
func (a *agent) watchInfo(g *Guest) (stop func(hosts int)) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	scrapes, seen := 0, map[string]int{}
	var wrong []string
	wg.Go(func() {
		for tick := time.NewTicker(100 * time.Millisecond); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
			}
			lines, err := a.metrics("virt_vm_info{")
			var own []string
			for _, line := range lines {
				if strings.Contains(line, g.UUID) {
					own = append(own, line)
				}
			}
			scrapes++
			if err != nil || len(own) != 1 {
				wrong = append(wrong, fmt.Sprintf("%v %q", err, own))
				continue
			}
			seen[hostLabel.FindString(own[0])]++
		}
	})
	a.t.Cleanup(cancel)
	return func(hosts int) {
		a.t.Helper()
		cancel()
		wg.Wait()
		a.t.Logf("virt_vm_info of %s in %d scrapes: %v", g.Name, scrapes, seen)
		if len(wrong) > 0 || len(seen) != hosts {
			a.t.Errorf("%d of %d scrapes did not show %s on one host, or not on %d in all: %v", len(wrong), scrapes, g.Name, hosts, wrong[:min(len(wrong), 3)])
		}
	}
}

var hostLabel = regexp.MustCompile(`host="[^"]*"`)

// TestAgentRelievesAHost is the product on a real hypervisor: two guests make their host hot, the agent says so and moves one of them,
// and the host is calm.
func TestAgentRelievesAHost(t *testing.T) {
	began := time.Now()
	l := Start(t)
	g1, g2 := l.Boot(t, l.A, "g1"), l.Boot(t, l.A, "g2")
	a := run(t, l.configure(t, "", ""))
	for _, g := range []*Guest{g1, g2} {
		g.Burn(t, burn)
	}
	t.Logf("%5.1f s: two guests burn on %s", time.Since(began).Seconds(), l.A.Name)
	t.Cleanup(func() {
		if lines, err := a.metrics("virt_"); err == nil && t.Failed() {
			t.Logf("%s", strings.Join(slices.DeleteFunc(lines, func(s string) bool { return !strings.Contains(s, "_cpu_") }), "\n"))
		}
	})
	held := map[*Guest]func(hosts int){g1: a.watchInfo(g1), g2: a.watchInfo(g2)}
	tip := a.awaitTip("HostCPUOverload", rules.Active, rules.InProgress)
	t.Logf("%5.1f s: tip: %s", time.Since(began).Seconds(), tip.Summary)
	if tip.Object.Ref != l.A.UUID || !strings.Contains(tip.Summary, l.A.Name) {
		t.Errorf("the tip is on %s: %s", tip.Object, tip.Summary)
	}
	act := a.awaitAction("done and measured", func(act remediation.Action) bool { return act.Outcome != "" })
	t.Logf("%5.1f s: action: %s from %s to %s: %s, %s (%s)", time.Since(began).Seconds(), act.VMName, act.FromName, act.ToName, act.State, act.Outcome, act.Why)
	if act.State != remediation.Done || !act.Verified || act.Outcome != remediation.Recovered || act.By != remediation.ByPolicy {
		t.Errorf("the action is %+v", act)
	}
	moved, stayed := g1, g2
	if act.VM.Ref == g2.UUID {
		moved, stayed = g2, g1
	}
	a.awaitTip("HostCPUOverload", rules.Resolved)
	pause := moved.Pause(act.StartingAt)
	for _, h := range l.Hosts() {
		if used := usage(t, h); used > 0.7 {
			t.Errorf("%s uses %.2f of its core after the move", h.Name, used)
		}
	}
	moved.HoldOnly(t, l.B)
	stayed.HoldOnly(t, l.A)
	held[moved](2)
	held[stayed](1)
	moved.HoldUnharmed(t)
	stayed.HoldUnharmed(t)
	t.Logf("figures: total %.1f s, migration %.1f s, pause %d ms", time.Since(began).Seconds(), act.VerifyingAt.Sub(act.StartingAt).Seconds(), pause.Milliseconds())
}

// TestServiceMovesItsVM: a service in a guest becomes slow on a host that has nearly nothing to do. No figure of the host says so; the
// guest's own does, and its VM is moved to where the service is well.
func TestServiceMovesItsVM(t *testing.T) {
	began := time.Now()
	l := Start(t)
	g := l.Boot(t, l.A, "g1")
	a := run(t, l.configure(t, "", fmt.Sprintf(`  - name: guests
    type: guest
    interval: 2s
    targets: [{url: "http://%s:9100/metrics", name: shop}]
    services: [{type: metric, metric: lab_request_duration_seconds, name: checkout, latency: mean}]
`, g.Addr)))
	stop := l.A.Stutter()
	defer stop()
	tip := a.awaitTip("ServiceSlow", rules.Pending, rules.Active)
	t.Logf("%5.1f s: tip: %s", time.Since(began).Seconds(), tip.Summary)
	for _, name := range []string{"checkout", g.Name, l.A.Name} {
		if !strings.Contains(tip.Summary, name) {
			t.Errorf("the tip does not name %s: %s", name, tip.Summary)
		}
	}
	act := a.awaitAction("done and measured", func(act remediation.Action) bool { return act.Outcome != "" })
	t.Logf("%5.1f s: action: %s from %s to %s: %s, %s", time.Since(began).Seconds(), act.VMName, act.FromName, act.ToName, act.State, act.Outcome)
	if act.State != remediation.Done || act.Outcome != remediation.Recovered || act.VM.Ref != g.UUID || act.TipID != tip.ID {
		t.Errorf("the action is %+v", act)
	}
	a.awaitTip("ServiceSlow", rules.Resolved)
	if tips, err := a.Tips(t.Context(), rules.Pending, rules.Active, rules.InProgress, rules.Resolved); err != nil || len(tips) != 1 {
		t.Errorf("there are %d tips, %v: want that of the service alone", len(tips), err)
	}
	g.HoldOnly(t, l.B)
	g.HoldUnharmed(t)
}

// TestAgentCancelsAndIsKilled: a person stops the migration that the agent sent, and its VM goes on where it is. They have it done after
// all, and the agent is killed while that migration runs. Started again it finds the migration, waits for its end and sends nothing.
func TestAgentCancelsAndIsKilled(t *testing.T) {
	l := Start(t)
	g1, g2 := l.Boot(t, l.A, "g1"), l.Boot(t, l.A, "g2")
	of := func(act remediation.Action) *Guest {
		if act.VM.Ref == g2.UUID {
			return g2
		}
		return g1
	}
	dir := l.configure(t, ", bandwidth: 4", "")
	first := run(t, dir)
	for _, g := range []*Guest{g1, g2} {
		g.Burn(t, burn)
	}
	unwanted := first.awaitAction("under way", func(act remediation.Action) bool { return act.State == remediation.Started })
	if _, err := first.Cancel(t.Context(), unwanted.ID, "the wrong guest"); err != nil {
		t.Fatal(err)
	}
	unwanted = first.awaitAction("rolled back", func(act remediation.Action) bool { return act.ID == unwanted.ID && act.State.Final() })
	if unwanted.State != remediation.RolledBack || !strings.Contains(unwanted.Error, "cancelled it: ") || unwanted.CancelError != "" {
		t.Errorf("cancelled, the action is %+v", unwanted)
	}
	t.Logf("%s: %s: %s", unwanted.VMName, unwanted.State, unwanted.Error)
	of(unwanted).HoldOnly(t, l.A)

	before := map[*Guest]int{g1: l.B.arrivals(t, g1), g2: l.B.arrivals(t, g2)}
	eventually(t, "what a person asks for is under way", func() error {
		actions, err := first.Actions(t.Context(), "")
		if err != nil {
			return err
		}
		for _, act := range actions {
			switch {
			case act.State == remediation.Started:
				return nil
			case !act.State.Final():
				return fmt.Errorf("it is %s", act.State)
			}
		}
		// A guest that waits for a busy machine seems to want more than it does, and a move of it may be refused until it does not.
		tip := first.awaitTip("HostCPUOverload", rules.Active)
		_, err = first.Implement(t.Context(), tip.ID, "it was the right one")
		return errors.Join(err, fmt.Errorf("of %d actions none is; %s: %s", len(actions), actions[0].State, actions[0].Error))
	})
	first.end(syscall.SIGKILL)

	second := run(t, dir)
	act := second.awaitAction("done", func(act remediation.Action) bool { return act.State == remediation.Done })
	moved := of(act)
	t.Logf("%s: %s, task %s, pause %s", act.VMName, act.State, act.TaskRef, moved.Pause(act.StartingAt).Round(time.Millisecond))
	moved.HoldOnly(t, l.B)
	moved.HoldUnharmed(t)
	if n := l.B.arrivals(t, moved) - before[moved]; n != 1 {
		t.Errorf("%d migrations of %s came to %s, want 1", n, moved.Name, l.B.Name)
	}
	actions, err := second.Actions(t.Context(), "")
	sent := 0
	for _, other := range actions {
		if other.VM == act.VM && other.Sent() && other.ID != unwanted.ID {
			sent++
		}
	}
	if err != nil || sent != 1 {
		t.Errorf("%d actions of %s were sent, %v", sent, moved.Name, err)
	}
}

// arrivals is how often a process was started on the host to receive a guest.
func (h *Host) arrivals(t *testing.T, g *Guest) int {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(h.lab.dir, h.short, "log", "qemu", g.Name+".log"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Count(string(log), "-incoming defer")
}

// transcript is what a program says.
type transcript struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *transcript) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *transcript) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *transcript) tail(n int) string {
	lines := strings.Split(strings.TrimSpace(l.String()), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
