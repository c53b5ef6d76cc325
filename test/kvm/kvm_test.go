//go:build linux

package kvm

import "testing"

// TestLab holds that each host of a lab has one core and sees what its own guests use of it, and nobody else's.
func TestLab(t *testing.T) {
	l := Start(t)
	g := l.Boot(t, l.B, "g1")
	g.HoldOnly(t, l.B)
	g.Burn(t, 1)
	for _, h := range l.Hosts() {
		_, _, cpus, _, _, _, _, _, err := h.Dial(t).NodeGetInfo()
		if err != nil || cpus != 1 {
			t.Errorf("%s has %d CPUs, %v", h.Name, cpus, err)
		}
	}
	eventually(t, "the host is busy that runs the guest, and only that one", func() error {
		if a, b := usage(t, l.A), usage(t, l.B); a > 0.5 || b < 0.7 {
			return errUsage{a, b}
		}
		return nil
	})
}
