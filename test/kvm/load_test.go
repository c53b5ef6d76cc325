//go:build linux

package kvm

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

type errUsage [2]float64

func (u errUsage) Error() string { return fmt.Sprintf("a uses %.2f of its core, b %.2f", u[0], u[1]) }

// usage is the share of its core that a host says it used in half a second.
func usage(t *testing.T, h *Host) float64 {
	t.Helper()
	l := h.Dial(t)
	read := func() (busy, all uint64) {
		_, n, err := l.NodeGetCPUStats(-1, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		stats, _, err := l.NodeGetCPUStats(-1, n, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range stats {
			all += s.Value
			if s.Field == "user" || s.Field == "kernel" {
				busy += s.Value
			}
		}
		return busy, all
	}
	busy, all := read()
	time.Sleep(time.Second)
	busyNow, allNow := read()
	if allNow == all {
		return 0
	}
	return float64(busyNow-busy) / float64(allNow-all)
}

func TestLoad(t *testing.T) {
	began := time.Unix(1000, 0)
	l := newLoad(began)
	at := func(s int) time.Time { return began.Add(time.Duration(s) * time.Second) }
	l.add(at(1), map[int]time.Duration{1: 200 * time.Millisecond})
	l.add(at(2), map[int]time.Duration{1: 700 * time.Millisecond, 2: 300 * time.Millisecond})
	l.add(at(3), map[int]time.Duration{2: 300 * time.Millisecond}) // the first has ended: what it used stays used
	if l.busy != time.Second {
		t.Errorf("busy for %s, want 1s", l.busy)
	}
	l.add(at(4), map[int]time.Duration{2: 99 * time.Second})
	if l.busy != 4*time.Second {
		t.Errorf("busy for %s in 4s of one core", l.busy)
	}
	if text := string(l.stat()); !strings.HasPrefix(text, "cpu  000000000400 0 0 000000000000 0") || len(text) != len(newLoad(began).stat()) {
		t.Errorf("stat is %q", text)
	}
}
