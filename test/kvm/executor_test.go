//go:build linux

package kvm

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/libvirt"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/remediation/libvirt"
)

// preset is the pause that migrations of emulated guests are given beforehand: their memory does not survive pre-copy that goes round
// and round.
const preset = 20 * time.Second

// executor is one that may act in the lab, until the test ends.
func (l *Lab) executor(t testing.TB, edit func(*libvirt.Options)) *libvirt.Executor {
	t.Helper()
	o := libvirt.Options{
		Source: "lab", Migration: libvirt.Migration{MaxDowntime: preset},
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})), Poll: 100 * time.Millisecond,
	}
	for _, h := range l.Hosts() {
		o.Hosts = append(o.Hosts, platform.Options{URI: h.URI(), Timeout: 10 * time.Second})
	}
	if edit != nil {
		edit(&o)
	}
	e, err := libvirt.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// move is the action of moving a guest away from a host.
func (g *Guest) move(from *Host) remediation.Action {
	id := func(kind inventory.Kind, ref string) inventory.ID {
		return inventory.ID{Source: "lab", Kind: kind, Ref: ref}
	}
	to := from.Other()
	return remediation.Action{
		ID: "act-" + g.Name, Kind: remediation.LiveMigration, VM: id(inventory.KindVM, g.UUID), VMName: g.Name,
		From: id(inventory.KindHost, from.UUID), FromName: from.Name, To: id(inventory.KindHost, to.UUID), ToName: to.Name,
		StartingAt: time.Now(),
	}
}

// reports are what an executor reported, with a hook for the first.
type reports struct {
	mu    sync.Mutex
	list  []remediation.Progress
	first func()
}

func (r *reports) take(p remediation.Progress) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, p)
	if len(r.list) == 1 && r.first != nil {
		r.first()
	}
	return nil
}

func (r *reports) ref(t *testing.T) string {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.list) == 0 {
		t.Fatal("nothing was reported")
	}
	return r.list[0].TaskRef
}

// TestMigrate moves a real guest there and back, and holds what the platform shows of it on the way.
func TestMigrate(t *testing.T) {
	l := Start(t)
	g := l.Boot(t, l.A, "g1")
	ex := l.executor(t, nil)
	for _, from := range []*Host{l.A, l.B} {
		a := g.move(from)
		if err := ex.Check(t.Context(), a); err != nil {
			t.Fatalf("check: %v", err)
		}
		began := time.Now()
		var r reports
		if err := ex.Do(t.Context(), a, r.take); err != nil {
			t.Fatalf("do: %v", err)
		}
		t.Logf("migrated in %s, with %d reports", time.Since(began).Round(time.Millisecond), len(r.list))
		g.HoldOnly(t, from.Other())
		t.Logf("nobody heard of the guest for %s", g.Pause(began).Round(time.Millisecond))
		s, err := ex.Find(t.Context(), a)
		if err != nil || s.Host != a.To || len(s.Tasks) != 1 || s.Tasks[0].Ref != r.ref(t) || s.Tasks[0].State != remediation.TaskSucceeded {
			t.Errorf("find = %+v, %v", s, err)
		}
		if err := ex.Check(t.Context(), a); !errors.Is(err, remediation.ErrNoOp) {
			t.Errorf("check of what is done: %v", err)
		}
		if err := ex.Do(t.Context(), a, r.take); !errors.Is(err, remediation.ErrNoOp) {
			t.Errorf("do of what is done: %v", err)
		}
		a.TaskRef = r.ref(t)
		if err := l.executor(t, nil).Do(t.Context(), a, func(remediation.Progress) error { return nil }); err != nil {
			t.Errorf("do of a task that is over, by an executor that did not start it: %v", err)
		}
	}
	g.HoldUnharmed(t)
}

// slowly has migrations take some ten seconds: 128 MiB at 4 MiB/s, of which the guest uses a third.
func slowly(o *libvirt.Options) { o.Migration.Bandwidth = 4 }

// begin starts a migration that takes long, and returns when its job is seen.
func begin(t *testing.T, ctx context.Context, ex *libvirt.Executor, a remediation.Action) (r *reports, ended chan error) {
	t.Helper()
	seen := make(chan struct{})
	r = &reports{first: func() { close(seen) }}
	ended = make(chan error, 1)
	go func() { ended <- ex.Do(ctx, a, r.take) }()
	select {
	case <-seen:
	case err := <-ended:
		t.Fatalf("it ended before it was seen: %v", err)
	case <-time.After(Patience):
		t.Fatal("no job was seen")
	}
	return r, ended
}

func await(t *testing.T, ended chan error) error {
	t.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(Patience):
		t.Fatal("it does not end")
		return nil
	}
}

// holdStayed demands that a migration left the guest where it was, told why, and can be tried again with success.
func (g *Guest) holdStayed(t *testing.T, ex *libvirt.Executor, a remediation.Action, from *Host, ref string, err error, words ...string) {
	t.Helper()
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("do: %v, want %q in it", err, w)
		}
	}
	t.Logf("it says: %v", err)
	g.HoldOnly(t, from)
	a.TaskRef = ref
	s, ferr := ex.Find(t.Context(), a)
	if ferr != nil || s.Host != a.From {
		t.Errorf("find = %+v, %v, want the VM on its source", s, ferr)
	}
	if ref != "" && (len(s.Tasks) != 1 || s.Tasks[0].State != remediation.TaskFailed || s.Tasks[0].Error == "") {
		t.Errorf("find = %+v, want the task failed, and why", s)
	}
}

// again demands that the next attempt works.
func (g *Guest) again(t *testing.T, l *Lab, from *Host) {
	t.Helper()
	ex, a := l.executor(t, nil), g.move(from)
	if err := ex.Check(t.Context(), a); err != nil {
		t.Fatalf("check of the next attempt: %v", err)
	}
	if err := ex.Do(t.Context(), a, (&reports{}).take); err != nil {
		t.Fatalf("the next attempt: %v", err)
	}
	g.HoldOnly(t, from.Other())
	g.HoldUnharmed(t)
}

func TestMigrationFails(t *testing.T) {
	t.Run("destination unreachable", func(t *testing.T) {
		l := Start(t)
		g := l.Boot(t, l.A, "g1")
		l.Cut(t, true)
		ex := l.executor(t, func(o *libvirt.Options) { o.Migration.Timeout = 20 * time.Second })
		var r reports
		err := ex.Do(t.Context(), g.move(l.A), r.take)
		ref := ""
		if len(r.list) > 0 {
			ref = r.list[0].TaskRef
		}
		g.holdStayed(t, ex, g.move(l.A), l.A, ref, err, "does not reach the target")
		l.Cut(t, false)
		g.again(t, l, l.A)
	})
}
