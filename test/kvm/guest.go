//go:build linux

package kvm

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/digitalocean/go-libvirt"
)

// Guest is a VM of 128 MiB and one virtual CPU that runs the guest program.
type Guest struct {
	Name string
	UUID string
	Addr string // its exporter is at port 9100

	lab   *Lab
	index int
	disk  string // a file that each host has for itself; empty: none
}

// Boot starts a guest on a host and waits until it counts.
func (l *Lab) Boot(t testing.TB, h *Host, name string) *Guest {
	t.Helper()
	l.guests++
	g := &Guest{
		Name: name, lab: l, index: l.guests, Addr: l.ip(100 + l.guests),
		UUID: fmt.Sprintf("11223344-5566-7788-%04d-bbccddee%04d", l.number, l.guests),
	}
	g.Create(t, h)
	return g
}

// Create starts the guest on a host, from its beginning, and waits until it counts.
func (g *Guest) Create(t testing.TB, h *Host) {
	t.Helper()
	if _, err := h.Dial(t).DomainCreateXML(g.xml(t), 0); err != nil {
		t.Fatalf("start %s on %s: %v", g.Name, h.Name, err)
	}
	eventually(t, g.Name+" counts", func() error {
		_, err := g.State()
		if err != nil && len(g.On(t)) == 0 {
			t.Fatalf("%s ended before it counted", g.Name)
		}
		return err
	})
}

func (g *Guest) xml(t testing.TB) string {
	t.Helper()
	kernels, err := filepath.Glob(filepath.Join(tree(), "boot", "vmlinuz*"))
	if err != nil || len(kernels) != 1 {
		t.Fatalf("kernels: %v, %v", kernels, err)
	}
	// Its processor, and so its clock, is emulated: it is of type qemu even where /dev/kvm is.
	return fmt.Sprintf(`<domain type='qemu'>
 <name>%s</name><uuid>%s</uuid>
 <memory unit='MiB'>128</memory><vcpu>1</vcpu>
 <os><type arch='x86_64' machine='pc'>hvm</type>
  <kernel>/boot/%s</kernel><initrd>/lab/initramfs</initrd>
  <cmdline>console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check tsc=reliable audit=0 lab.name=%s lab.ip=%s/24 lab.ticks=%s:7777</cmdline></os>
 <features><acpi/></features><clock offset='utc'/>
 <on_poweroff>destroy</on_poweroff><on_reboot>destroy</on_reboot><on_crash>destroy</on_crash>
 <devices>
  <controller type='usb' model='none'/>
  <serial type='file'><source path='/lab/%s' append='on'/><target port='0'/></serial>
  <interface type='bridge'><mac address='52:54:00:%02x:00:%02x'/><source bridge='br0'/><model type='virtio'/></interface>
  <memballoon model='virtio'><stats period='1'/></memballoon>
  %s
 </devices>
</domain>`, g.Name, g.UUID, filepath.Base(kernels[0]), g.Name, g.Addr, g.lab.ip(254), filepath.Base(g.console()), g.lab.number, g.index, g.diskXML())
}

func (g *Guest) diskXML() string {
	if g.disk == "" {
		return ""
	}
	return fmt.Sprintf(`<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/var/lib/libvirt/%s'/><target dev='vda' bus='virtio'/></disk>`, g.disk)
}

// diskFile is what the host has of the guest's disk.
func (h *Host) diskFile(g *Guest) string { return filepath.Join(h.lab.dir, h.short, "lib", g.disk) }

// console is the file that all hosts write the guest's console to.
func (g *Guest) console() string {
	return filepath.Join(g.lab.dir, "shared", fmt.Sprintf("%s-%d.console", g.Name, g.index))
}

// Destroy ends the guest on a host, as pulling the plug does.
func (g *Guest) Destroy(t testing.TB, h *Host) {
	t.Helper()
	l := h.Dial(t)
	dom, err := l.DomainLookupByName(g.Name)
	if err == nil {
		err = l.DomainDestroy(dom)
	}
	if err != nil {
		t.Fatalf("destroy %s on %s: %v", g.Name, h.Name, err)
	}
}

// Recreate starts a guest that has ended from its beginning.
func (g *Guest) Recreate(t testing.TB, h *Host) {
	t.Helper()
	if err := os.Remove(g.console()); err != nil {
		t.Fatal(err)
	}
	g.Create(t, h)
}

// Burn has the guest keep a share of its core busy.
func (g *Guest) Burn(t testing.TB, share float64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s takes a share of %v", g.Name, share), func() error {
		_, err := g.http(http.MethodPost, "/burn?share="+url.QueryEscape(fmt.Sprint(share)))
		return err
	})
}

// Kill ends the guest from inside, as a kernel panic does.
func (g *Guest) Kill() { _, _ = g.http(http.MethodPost, "/panic") } // it answers no more

// State is the guest's counter. It is an error if its memory is not what it was.
func (g *Guest) State() (ticks int64, err error) {
	text, err := g.http(http.MethodGet, "/state")
	if err != nil {
		return 0, err
	}
	memory := ""
	if _, err := fmt.Sscan(text, &ticks, &memory); err != nil {
		return 0, fmt.Errorf("state %q: %w", text, err)
	}
	if memory != "whole" {
		return ticks, fmt.Errorf("%s: its memory is %s", g.Name, memory)
	}
	return ticks, nil
}

func (g *Guest) http(method, path string) (string, error) {
	req, err := http.NewRequest(method, "http://"+g.Addr+":9100"+path, nil)
	if err != nil {
		return "", err
	}
	// Each on a connection of its own: one from before a migration may be on its way still.
	res, err := (&http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<16))
	if err == nil && res.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %s: %s", path, res.Status, body)
	}
	return string(body), err
}

// On reports the hosts that know the guest, and whether it runs there.
func (g *Guest) On(t testing.TB) map[*Host]bool {
	t.Helper()
	out := map[*Host]bool{}
	for _, h := range g.lab.Hosts() {
		l, err := h.dial()
		if err != nil {
			t.Fatal(err)
		}
		dom, err := l.DomainLookupByName(g.Name)
		if err == nil {
			var state int32
			if state, _, err = l.DomainGetState(dom, 0); err == nil {
				out[h] = libvirt.DomainState(state) == libvirt.DomainRunning
			}
		}
		if err != nil && !libvirt.IsNotFound(err) {
			t.Fatalf("%s on %s: %v", g.Name, h.Name, err)
		}
		_ = l.Disconnect()
	}
	return out
}

// HoldOnly fails the test unless exactly that host runs the guest, no other knows it, and it counts.
func (g *Guest) HoldOnly(t testing.TB, h *Host) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s runs on %s alone", g.Name, h.Name), func() error {
		on := g.On(t)
		if running, known := on[h]; !known || !running || len(on) != 1 {
			return fmt.Errorf("known to %d hosts, running on it: %t", len(on), running)
		}
		return nil
	})
	before, err := g.State()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, g.Name+" counts on", func() error {
		if now, err := g.State(); err != nil || now <= before {
			return errors.Join(err, fmt.Errorf("%d after %d", now, before))
		}
		return nil
	})
}

// HoldUnharmed fails the test if the guest's console shows a tick that is missing, a step back, a new start or a kernel's complaint.
func (g *Guest) HoldUnharmed(t testing.TB) {
	t.Helper()
	console, err := os.ReadFile(g.console())
	if err != nil {
		t.Fatal(err)
	}
	last := int64(0)
	for line := range strings.Lines(string(console)) {
		var word, name string
		var n int64
		if count, _ := fmt.Sscan(line, &word, &name, &n); count < 3 || word != "tick" || name != g.Name {
			continue
		}
		if n != last+10 && last != 0 && strings.HasSuffix(line, "\n") {
			t.Errorf("%s: tick %d follows %d", g.Name, n, last)
		}
		last = n
	}
	if last == 0 {
		t.Errorf("%s: no tick on its console", g.Name)
	}
	for _, complaint := range []string{"BUG", "Oops", "panic", "Call Trace", "general protection", "fatal error"} {
		if strings.Contains(strings.ReplaceAll(string(console), "panic=-1", ""), complaint) {
			t.Errorf("%s: its console says %q", g.Name, complaint)
		}
	}
}

// Pause is the longest time since from in which nobody outside heard of the guest, which ticks every 10 ms.
func (g *Guest) Pause(from time.Time) time.Duration { return g.lab.ticks.longest(g.Name, from) }
