//go:build linux

package kvm

import (
	"testing"
	"time"

	"github.com/digitalocean/go-libvirt"
)

// TestLab holds that a lab is what its tests take it for: a guest migrates with its memory and its counter, and each host sees its own load.
func TestLab(t *testing.T) {
	began := time.Now()
	l := Start(t)
	t.Logf("two hosts after %s", time.Since(began).Round(time.Millisecond))
	g := l.Boot(t, l.A, "g1")
	t.Logf("a guest after %s", time.Since(began).Round(time.Millisecond))
	g.HoldOnly(t, l.A)

	a := l.A.Dial(t)
	dom, err := a.DomainLookupByName(g.Name)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.DomainMigrateSetMaxDowntime(dom, 20000, 0); err != nil {
		t.Fatal(err)
	}
	moving := time.Now()
	if _, err := a.DomainMigratePerform3Params(dom, libvirt.OptString{l.B.URI()}, nil, nil, libvirt.MigrateLive|libvirt.MigratePeer2peer); err != nil {
		t.Fatal(err)
	}
	t.Logf("migrated in %s", time.Since(moving).Round(time.Millisecond))
	g.HoldOnly(t, l.B)
	g.HoldUnharmed(t)
	t.Logf("nobody heard of the guest for %s", g.Pause(moving).Round(time.Millisecond))

	g.Burn(t, 1)
	for _, h := range l.Hosts() {
		_, _, cpus, _, _, _, _, _, err := h.Dial(t).NodeGetInfo()
		if err != nil || cpus != 1 {
			t.Errorf("%s has %d CPUs, %v", h.Name, cpus, err)
		}
	}
	eventually(t, "the host is busy that runs the guest, and only that one", func() error {
		a, b := usage(t, l.A), usage(t, l.B)
		if a < 0.5 && b > 0.7 {
			return nil
		}
		return errUsage{a, b}
	})
}
