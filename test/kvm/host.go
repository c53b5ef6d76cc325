//go:build linux

package kvm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/digitalocean/go-libvirt"
	"github.com/digitalocean/go-libvirt/socket/dialers"
	"golang.org/x/sys/unix"
)

// Host is a libvirt daemon with one core of this machine, in namespaces of its own.
type Host struct {
	Name string // what it calls itself
	Addr string
	UUID string

	short string
	lab   *Lab
	core  int
	load  *load
	space string // its namespace of processes, as /proc shows it
}

func newHost(l *Lab, short string, i, core int) *Host {
	return &Host{
		Name: "host-" + short, Addr: l.ip(i), UUID: fmt.Sprintf("%08d-0000-4000-8000-%012d", l.number, i),
		short: short, lab: l, core: core, load: newLoad(time.Now()),
	}
}

// URI is the host's, for whoever can reach it: this machine and the other host.
func (h *Host) URI() string { return "qemu+tcp://" + h.Addr + "/system" }

// Other is the lab's other host.
func (h *Host) Other() *Host {
	if h == h.lab.A {
		return h.lab.B
	}
	return h.lab.A
}

// Dial connects to the daemon, until the test ends.
func (h *Host) Dial(t testing.TB) *libvirt.Libvirt {
	t.Helper()
	l, err := h.dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Disconnect() }) // the daemon may be gone
	return l
}

func (h *Host) dial() (*libvirt.Libvirt, error) {
	l := libvirt.NewWithDialer(dialers.NewRemote(h.Addr, dialers.WithRemoteTimeout(3*time.Second)))
	return l, l.ConnectToURI(libvirt.QEMUSystem)
}

// await waits until the daemon answers.
func (h *Host) await(t testing.TB) {
	t.Helper()
	eventually(t, h.Name+" answers", func() error {
		l, err := h.dial()
		if err == nil {
			_ = l.Disconnect()
		}
		return err
	})
}

// KillDaemon kills libvirtd as kill -9 does. Its guests run on.
func (h *Host) KillDaemon(t testing.TB) {
	t.Helper()
	for _, pid := range h.processes() {
		if comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); strings.TrimSpace(string(comm)) == "libvirtd" {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// StartDaemon starts libvirtd again, which finds the guests that run, and waits until it answers.
func (h *Host) StartDaemon(t testing.TB) {
	t.Helper()
	init := h.init()
	if init == 0 {
		t.Fatalf("%s has no process 1", h.Name)
	}
	cmd := exec.Command("nsenter", "--target", strconv.Itoa(init), "--mount", "--uts", "--net", "--pid", "--root", "--wd",
		"/bin/busybox", "sh", "-c", "rm -f /run/libvirtd.pid; PATH=/usr/sbin:/usr/bin:/sbin:/bin libvirtd --listen --daemon >>/var/log/libvirt/out 2>&1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("start libvirtd of %s: %v\n%s", h.Name, err, out)
	}
	h.await(t)
}

// settle waits until the host's process 1 is there.
func (h *Host) settle(t testing.TB) {
	t.Helper()
	eventually(t, h.Name+" has a process 1", func() (err error) {
		h.space, err = os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", h.init()))
		return err
	})
}

// init is the host's process 1, as this machine numbers it; 0 if there is none.
func (h *Host) init() int {
	text, err := os.ReadFile(filepath.Join(h.lab.dir, h.short, "unshare.pid"))
	if err != nil {
		return 0
	}
	parent := strings.TrimSpace(string(text))
	children, err := os.ReadFile("/proc/" + parent + "/task/" + parent + "/children")
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(children)))
	return pid
}

// processes are those in the host's namespace.
func (h *Host) processes() []int {
	entries, _ := os.ReadDir("/proc")
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid)); err == nil && ns == h.space {
			pids = append(pids, pid)
		}
	}
	return pids
}

// account keeps what the host uses of its core in the files that it reads its load from, and keeps its processes on that core.
func (h *Host) account(stop <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { <-stop; cancel() }()
	stat := filepath.Join(h.lab.dir, h.short, "stat")
	for ctx.Err() == nil {
		pids := h.processes()
		used := map[int]time.Duration{}
		for _, pid := range pids {
			h.pin(pid)
			if d, ok := cpuTime(pid); ok {
				used[pid] = d
			}
		}
		h.load.add(time.Now(), used)
		if f, err := os.OpenFile(stat, os.O_WRONLY, 0); err == nil {
			_, _ = f.WriteAt(h.load.stat(), 0) // of the same length always: who reads sees the old or the new
			f.Close()
		}
		select {
		case <-ctx.Done():
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// Stutter has the host's guests stand still for four fifths of the time, a tenth of a second running and four not, until the returned
// function is called: a host that is not busy and not well. What it does to a guest ends when the guest leaves.
func (h *Host) Stutter() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	signal := func(s unix.Signal) {
		for _, pid := range h.processes() {
			if isGuest(pid) {
				_ = unix.Kill(pid, s) // one that has ended needs none
			}
		}
	}
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			signal(unix.SIGSTOP)
			time.Sleep(400 * time.Millisecond)
			signal(unix.SIGCONT)
			time.Sleep(100 * time.Millisecond)
		}
	}()
	return func() { cancel(); <-done }
}

func isGuest(pid int) bool {
	comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.HasPrefix(string(comm), "qemu-system")
}

// pin keeps all threads of a guest on the host's core, before what else this machine does there: libvirt itself lets them run on all
// that it sees, and a host that is starved by others looks calm.
func (h *Host) pin(pid int) {
	if !isGuest(pid) {
		return
	}
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/autogroup", pid), []byte("-15"), 0) // where sessions have a weight, and threads only within theirs
	threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, thread := range threads {
		tid, err := strconv.Atoi(thread.Name())
		if err != nil {
			continue
		}
		var set unix.CPUSet
		if unix.SchedGetaffinity(tid, &set) == nil && set.Count() == 1 && set.IsSet(h.core) {
			continue
		}
		set.Zero()
		set.Set(h.core)
		_ = unix.SchedSetaffinity(tid, &set) // a thread that has ended needs none
		_ = unix.Setpriority(unix.PRIO_PROCESS, tid, -15)
	}
}
