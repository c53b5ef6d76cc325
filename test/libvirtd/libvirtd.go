// Package libvirtd starts Debian's libvirt daemon as an ordinary user, with libvirt's own test driver for a hypervisor.
// It promises a real daemon that speaks its real protocol over TCP and a unix socket, and that it is gone when the test is.
// It must not import anything of protip's but other test packages: it is what protip is tested against.
package libvirtd

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/protip/protip/test/prom"
)

// patience is how long a daemon may take to answer on a slow machine.
const patience = 60 * time.Second

// Daemon is a running libvirtd.
type Daemon struct {
	Addr   string // of its TCP socket
	Socket string // its unix socket

	dir string
	cmd *exec.Cmd
	out *bytes.Buffer
}

// Start starts a daemon until the test ends, that asks who comes by TCP for nothing. It skips the test where there is none to start.
func Start(t testing.TB) *Daemon {
	t.Helper()
	return StartAuth(t, "none")
}

// StartAuth is Start with what the daemon asks of who comes by TCP, as sasl.
func StartAuth(t testing.TB, auth string) *Daemon {
	t.Helper()
	require(t)
	d := &Daemon{dir: userDir(t)}
	d.Socket = filepath.Join(d.dir, "run", "libvirt", "libvirt-sock")
	port := freePort(t)
	d.Addr = "127.0.0.1:" + port
	lines := []string{
		"listen_tls = 0", "listen_tcp = 1", `listen_addr = "127.0.0.1"`, fmt.Sprintf("tcp_port = %q", port),
		fmt.Sprintf("auth_tcp = %q", auth), `auth_unix_ro = "none"`, `auth_unix_rw = "none"`,
	}
	if err := os.WriteFile(filepath.Join(d.dir, "libvirtd.conf"), []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	d.run(t)
	t.Cleanup(d.stop)
	d.await(t)
	return d
}

// URI leads to the daemon's test driver over TCP: "/default" is one hypervisor that all connections share, the path of a file one that
// each connection has for itself.
func (d *Daemon) URI(path string) string { return "test+tcp://" + d.Addr + path }

// UnixURI is URI over the unix socket.
func (d *Daemon) UnixURI(path string) string { return "test+unix://" + path + "?socket=" + d.Socket }

// tree is the root that test/tools/get-kvm.sh unpacks.
func tree() string { return filepath.Join(checkout(), ".cache", "tools", "kvm") }

func checkout() string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "..", "..")
}

func require(t testing.TB) {
	t.Helper()
	missing := ""
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		missing = "the daemon is one for Linux on amd64"
	} else if _, err := os.Stat(filepath.Join(tree(), "usr", "sbin", "libvirtd")); err != nil {
		missing = "no libvirtd: test/tools/get-kvm.sh fetches it"
	} else if closed := closedTo(tree()); os.Getuid() == 0 && closed != "" {
		missing = "only root may enter " + closed + ", and the daemon is not run as root"
	}
	switch {
	case missing == "":
	case os.Getenv(prom.RequireTools) != "":
		t.Fatal(missing)
	default:
		t.Skip(missing)
	}
}

// closedTo is the folder on the way to a path that others may not enter, empty if there is none.
func closedTo(path string) string {
	for ; path != "/" && path != "."; path = filepath.Dir(path) {
		if info, err := os.Stat(path); err == nil && info.Mode()&0o001 == 0 {
			return path
		}
	}
	return ""
}

// nobody is who the daemon runs as where the test is root: as root it would look for its machine's own.
const nobody = 65534

// userDir is a directory that the daemon's user can reach and write; a socket's path is short.
func userDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, d := range []string{"", "run", "home", "drivers"} {
		d = filepath.Join(dir, d)
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if os.Getuid() == 0 {
			if err := os.Chown(d, nobody, nobody); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// loader and libraries run a program of the tree with what it was built with, and not with this machine's.
func loader() string { return filepath.Join(tree(), "lib64", "ld-linux-x86-64.so.2") }

func libraries() []string {
	return []string{"--library-path", filepath.Join(tree(), "usr/lib/x86_64-linux-gnu") + ":" + filepath.Join(tree(), "lib/x86_64-linux-gnu")}
}

// run starts the daemon with the loader and the libraries it was built with, and without drivers of real hypervisors.
func (d *Daemon) run(t testing.TB) {
	t.Helper()
	d.out = new(bytes.Buffer)
	d.cmd = exec.Command(loader(), append(libraries(),
		filepath.Join(tree(), "usr/sbin/libvirtd"), "--listen", "--config", filepath.Join(d.dir, "libvirtd.conf"))...)
	d.cmd.Dir = d.dir
	d.cmd.Env = []string{
		"HOME=" + filepath.Join(d.dir, "home"), "XDG_RUNTIME_DIR=" + filepath.Join(d.dir, "run"), "PATH=/usr/bin:/bin",
		"LIBVIRT_DRIVER_DIR=" + filepath.Join(d.dir, "drivers"),
	}
	d.cmd.Stdout, d.cmd.Stderr = d.out, d.out
	d.cmd.SysProcAttr = credential()
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

func (d *Daemon) await(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", d.Addr)
		if err == nil {
			c.Close()
			if _, err = os.Stat(d.Socket); err == nil {
				return
			}
		}
		if time.Now().After(deadline) {
			d.stop()
			t.Fatalf("libvirtd does not answer: %v\n%s", err, d.out)
		}
	}
}

func (d *Daemon) stop() {
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
}

// Pause stops the daemon's process in its tracks: it is there, and answers nobody.
func (d *Daemon) Pause() { _ = d.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume ends a pause.
func (d *Daemon) Resume() { _ = d.cmd.Process.Signal(syscall.SIGCONT) }
