//go:build linux

// Package kvm starts two libvirt hosts on this machine, with real QEMU guests, for tests.
// It promises that a test whose programs are missing says so by name, that a host sees its own load and nobody else's, and that
// nothing of a lab outlives its test, however the test ends. It must not be imported by anything but tests.
package kvm

import (
	"bufio"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/protip/protip/test/prom"
)

//go:embed lab.sh
var labScript []byte

//go:embed host.sh
var hostScript []byte

// Patience is how long anything in a lab may take before a test gives up. It is no measure: it has to outlast a slow machine.
const Patience = 60 * time.Second

// Require skips the test where a lab cannot be started, or fails it if prom.RequireTools is set.
func Require(t testing.TB) {
	t.Helper()
	missing := ""
	switch _, err := os.Stat(filepath.Join(tree(), "complete")); {
	case runtime.GOARCH != "amd64":
		missing = "the guests are made for amd64"
	case os.Getuid() != 0:
		missing = "starting libvirt hosts needs root"
	case err != nil:
		missing = "no libvirt and QEMU: test/tools/get-kvm.sh fetches them"
	}
	for _, program := range []string{"ip", "unshare", "nsenter", "setpriv", "go"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = err.Error()
		}
	}
	switch {
	case missing == "":
	case os.Getenv(prom.RequireTools) != "":
		t.Fatal(missing)
	default:
		t.Skip(missing)
	}
}

// checkout is the repository's root.
func checkout() string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "..", "..")
}

// tree is the root that test/tools/get-kvm.sh unpacks.
func tree() string { return filepath.Join(checkout(), ".cache", "tools", "kvm") }

// Lab is two hosts on a network of their own. Several may run at once.
type Lab struct {
	A, B *Host

	dir    string
	number int
	guests int
	ticks  *ticks
	stop   chan struct{}
}

// Start starts a lab, until the test ends. Its hosts answer.
func Start(t testing.TB) *Lab {
	t.Helper()
	Require(t)
	l := &Lab{dir: t.TempDir(), stop: make(chan struct{})}
	l.claim(t)
	l.A, l.B = newHost(l, "a", 1, 0), newHost(l, "b", 2, 1%runtime.NumCPU())
	l.prepare(t)
	l.run(t)
	for _, h := range l.Hosts() {
		h.await(t)
	}
	var err error
	if l.ticks, err = listen(l.ip(254) + ":7777"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.ticks.close)
	return l
}

// Hosts are both hosts.
func (l *Lab) Hosts() []*Host { return []*Host{l.A, l.B} }

func (l *Lab) ip(last int) string { return fmt.Sprintf("10.213.%d.%d", l.number, last) }

// claim takes a number that no lab of this machine has.
func (l *Lab) claim(t testing.TB) {
	t.Helper()
	for l.number = 1; l.number < 250; l.number++ {
		f, err := os.OpenFile(filepath.Join(os.TempDir(), fmt.Sprintf("protip-lab-%d.lock", l.number)), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			t.Cleanup(func() { f.Close() }) // the file stays: who removes it while another opens it gives the number twice
			return
		}
		f.Close()
	}
	t.Fatal("every lab's number is taken")
}

// prepare writes what the hosts and guests are made of.
func (l *Lab) prepare(t testing.TB) {
	t.Helper()
	write := func(name string, content []byte) {
		t.Helper()
		path := filepath.Join(l.dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	write("lab.sh", labScript)
	write("host.sh", hostScript)
	image, err := initramfs(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	write("shared/initramfs", image)
	for _, h := range l.Hosts() {
		for name, content := range h.load.files() {
			write(filepath.Join(h.short, name), content)
		}
	}
}

// run starts the hosts' keeper, which lives until its input ends.
func (l *Lab) run(t testing.TB) {
	t.Helper()
	cmd := exec.Command("sh", filepath.Join(l.dir, "lab.sh"), l.dir, fmt.Sprint(l.number), tree())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what interrupts the test is not to interrupt the tearing down
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var accounts sync.WaitGroup
	t.Cleanup(func() {
		close(l.stop)
		accounts.Wait()
		if t.Failed() {
			l.dump(t)
		}
		in.Close()
		_, _ = io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil {
			t.Errorf("lab: %v\n%s", err, said.String())
		}
		l.holdClean(t)
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "up\n" {
		t.Fatalf("lab: %q, %v\n%s", line, err, said.String())
	}
	for _, h := range l.Hosts() {
		h.settle(t)
		accounts.Go(func() { h.account(l.stop) })
	}
}

// holdClean fails the test if anything of the lab is left.
func (l *Lab) holdClean(t testing.TB) {
	t.Helper()
	if links, err := exec.Command("ip", "-o", "link").Output(); err != nil || strings.Contains(string(links), fmt.Sprintf(": pt%d", l.number)) {
		t.Errorf("the lab's network is left (%v):\n%s", err, links)
	}
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(mounts), l.dir) {
		t.Errorf("mounts of the lab are left: %v", err)
	}
	for _, h := range l.Hosts() {
		eventually(t, h.Name+" has ended", func() error { // the kernel takes a moment for what it kills
			if left := h.processes(); len(left) > 0 {
				return fmt.Errorf("processes %v are left", left)
			}
			return nil
		})
	}
}

// dump shows what the hosts and guests said last.
func (l *Lab) dump(t testing.TB) {
	logs, _ := filepath.Glob(filepath.Join(l.dir, "*", "log", "*"))
	qemu, _ := filepath.Glob(filepath.Join(l.dir, "*", "log", "qemu", "*"))
	consoles, _ := filepath.Glob(filepath.Join(l.dir, "shared", "*.console"))
	for _, path := range append(append(logs, qemu...), consoles...) {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		var lines []string
		for line := range strings.Lines(string(b)) {
			if !strings.Contains(line, "ethtool ioctl") && !strings.HasPrefix(line, "tick ") {
				lines = append(lines, line)
			}
		}
		t.Logf("%s:\n%s", strings.TrimPrefix(path, l.dir), strings.Join(lines[max(0, len(lines)-25):], ""))
	}
}

// Cut stops all traffic between the two hosts, and only that: each still reaches this machine.
func (l *Lab) Cut(t testing.TB, cut bool) {
	t.Helper()
	state := map[bool]string{true: "on", false: "off"}[cut]
	for _, h := range l.Hosts() {
		ip(t, "link", "set", "dev", fmt.Sprintf("pt%d%s", l.number, h.short), "type", "bridge_slave", "isolated", state)
		// With the other's address still known, a connect would take minutes to fail.
		flush := exec.Command("nsenter", "--target", strconv.Itoa(h.init()), "--net", "ip", "neigh", "flush", "dev", "br0")
		if out, err := flush.CombinedOutput(); err != nil {
			t.Fatalf("flush neighbours of %s: %v\n%s", h.Name, err, out)
		}
	}
}

func ip(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// eventually polls until ok, and fails the test with what was missing last.
func eventually(t testing.TB, what string, ok func() error) {
	t.Helper()
	for deadline := time.Now().Add(Patience); ; time.Sleep(50 * time.Millisecond) {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s: %s: %v", Patience, what, err)
		}
	}
}
