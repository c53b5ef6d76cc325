//go:build linux

package kvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/libvirt"
	"github.com/protip/protip/internal/store"
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

// last is the ref that was reported, empty if none was.
func (r *reports) last() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.list) == 0 {
		return ""
	}
	return r.list[len(r.list)-1].TaskRef
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

// engine is one that may act in the lab, and believes that a guest is on a host and all is calm.
type engine struct{ *remediation.Engine }

func (l *Lab) engine(t *testing.T, g *Guest, on *Host) engine {
	t.Helper()
	journal, err := store.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { journal.Close() })
	a := g.move(on)
	c := clock.New(1)
	fleet := inventory.NewFleet(inventory.Source{Name: "lab", Interval: time.Hour})
	d := inventory.Delta{Source: "lab", Begin: true, Synced: true, VMs: []inventory.VM{{ID: a.VM, Name: g.Name, Host: a.From, Power: inventory.PowerOn}}}
	for _, id := range []inventory.ID{a.From, a.To} {
		d.Hosts = append(d.Hosts, inventory.Host{ID: id, Name: id.Ref, Connection: inventory.Connected, Power: inventory.PowerOn})
		d.Samples = append(d.Samples, inventory.SampleSet{ID: id, At: c.Now().UnixMilli(), Values: []inventory.Value{
			{Metric: inventory.HostCPUUsage, Value: 1}, {Metric: inventory.HostMemoryUsage, Value: 1},
		}})
	}
	if _, err := fleet.Apply(d, c.Now()); err != nil {
		t.Fatal(err)
	}
	e, err := remediation.New(remediation.Options{
		Journal: journal, Memory: journal, Clock: c, Snapshot: fleet.Snapshot,
		Executors: map[string]remediation.Executor{"lab": l.executor(t, slowly)},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return engine{e}
}

// await waits for the engine's one action to be in a state.
func (e engine) await(t *testing.T, state remediation.State) (act remediation.Action) {
	t.Helper()
	eventually(t, "the action is "+string(state), func() error {
		actions, err := e.Actions(t.Context(), remediation.Filter{})
		if err != nil || len(actions) != 1 {
			return fmt.Errorf("actions %v, %w", actions, err)
		}
		if act = actions[0]; act.State != state {
			return fmt.Errorf("it is %s: %s", act.State, act.Error)
		}
		return nil
	})
	return act
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

// TestMigrationFails breaks migrations of a real guest in every way that an operator may meet. In each the guest never runs twice and
// is never lost, the executor says what happened, and the next attempt works. Most of it is run by make e2e and make e2e-kvm-faults only.
func TestMigrationFails(t *testing.T) {
	all := os.Getenv("PROTIP_E2E") != ""
	l := Start(t)
	g := l.Boot(t, l.A, "g1")
	on := l.A
	next := func(t *testing.T) {
		t.Helper()
		g.again(t, l, on)
		on = on.Other()
	}

	t.Run("cancelled", func(t *testing.T) {
		ex, a := l.executor(t, slowly), g.move(on)
		r, ended := begin(t, t.Context(), ex, a)
		if err := ex.Check(t.Context(), a); err == nil || !strings.Contains(err.Error(), r.last()) {
			t.Errorf("check while it moves: %v", err)
		}
		a.TaskRef = r.last()
		if err := l.executor(t, nil).Cancel(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		g.holdStayed(t, ex, a, on, r.last(), await(t, ended), "somebody aborted it")
		next(t)
	})
	t.Run("cancelled by a person", func(t *testing.T) {
		w := l.engine(t, g, on)
		stored, err := w.Submit(t.Context(), []remediation.Action{g.move(on)}, "ann", "")
		if err != nil {
			t.Fatal(err)
		}
		w.await(t, remediation.Started)
		if _, err := w.Cancel(t.Context(), stored[0].ID, "bob", "the wrong guest"); err != nil {
			t.Fatal(err)
		}
		act := w.await(t, remediation.RolledBack)
		if !strings.HasPrefix(act.Error, "bob cancelled it: ") || !strings.Contains(act.Error, "somebody aborted it") || act.Fault {
			t.Errorf("the action is %+v", act)
		}
		t.Logf("it says: %s", act.Error)
		g.HoldOnly(t, on)
	})
	if !all {
		return
	}
	t.Run("name clash", func(t *testing.T) {
		other := l.Boot(t, on.Other(), g.Name)
		ex, a := l.executor(t, nil), g.move(on)
		if err := ex.Check(t.Context(), a); err == nil || !strings.Contains(err.Error(), "another VM of the name") {
			t.Errorf("check: %v", err)
		}
		var r reports
		err := ex.Do(t.Context(), a, r.take)
		other.Destroy(t, on.Other())
		g.holdStayed(t, ex, a, on, r.last(), err, "the target has another VM")
		next(t)
	})
	t.Run("destination unreachable", func(t *testing.T) {
		l.Cut(t, true)
		ex, a := l.executor(t, nil), g.move(on)
		var r reports
		err := ex.Do(t.Context(), a, r.take)
		l.Cut(t, false)
		g.holdStayed(t, ex, a, on, r.last(), err, "does not reach the target")
		next(t)
	})
	t.Run("takes too long", func(t *testing.T) {
		ex, a := l.executor(t, func(o *libvirt.Options) { slowly(o); o.Migration.Timeout = time.Second }), g.move(on)
		r, ended := begin(t, t.Context(), ex, a)
		g.holdStayed(t, ex, a, on, r.last(), await(t, ended), "took longer than 1s")
		next(t)
	})
	t.Run("link cut", func(t *testing.T) {
		ex, a := l.executor(t, slowly), g.move(on)
		r, ended := begin(t, t.Context(), ex, a)
		l.Cut(t, true)
		err := await(t, ended)
		l.Cut(t, false)
		g.holdStayed(t, ex, a, on, r.last(), err, "the link between the hosts failed")
		next(t)
	})
	t.Run("protip's connection lost", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ex, a := l.executor(t, slowly), g.move(on)
		r, ended := begin(t, ctx, ex, a)
		cancel()
		if err := await(t, ended); !errors.Is(err, context.Canceled) {
			t.Errorf("do: %v", err)
		}
		ex.Close()
		found := l.executor(t, nil)
		s, err := found.Find(t.Context(), a)
		if err != nil || s.Host != a.From || len(s.Tasks) != 1 || s.Tasks[0].Ref != r.last() || s.Tasks[0].State != remediation.TaskRunning {
			t.Errorf("find = %+v, %v, want the job that goes on", s, err)
		}
		a.TaskRef = r.last()
		if err := found.Do(t.Context(), a, (&reports{}).take); err != nil {
			t.Errorf("do of the job that goes on: %v", err)
		}
		on = on.Other()
		g.HoldOnly(t, on)
	})
	for _, source := range []bool{true, false} {
		name := map[bool]string{true: "source", false: "target"}[source]
		t.Run("libvirtd of the "+name+" killed and restarted", func(t *testing.T) {
			ex, a := l.executor(t, slowly), g.move(on)
			r, ended := begin(t, t.Context(), ex, a)
			victim := on.Other()
			if source {
				victim = on
			}
			victim.KillDaemon(t)
			victim.StartDaemon(t)
			g.holdStayed(t, ex, a, on, r.last(), await(t, ended))
			next(t)
		})
	}
	t.Run("disk that is not shared", func(t *testing.T) {
		g.Destroy(t, on)
		g.disk = "disk.raw"
		content := make([]byte, 16<<20)
		for i := range content {
			content[i] = byte(i>>12 + i)
		}
		for h, b := range map[*Host][]byte{on: content, on.Other(): make([]byte, len(content))} {
			if err := os.WriteFile(h.diskFile(g), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		g.Recreate(t, on)
		ex, a := l.executor(t, nil), g.move(on)
		var r reports
		err := ex.Do(t.Context(), a, r.take)
		g.holdStayed(t, ex, a, on, r.last(), err, "set migration.copy_storage")

		ex = l.executor(t, func(o *libvirt.Options) { o.Migration.CopyStorage = true })
		if err := ex.Do(t.Context(), a, (&reports{}).take); err != nil {
			t.Fatalf("with its disk: %v", err)
		}
		on = on.Other()
		g.HoldOnly(t, on)
		g.HoldUnharmed(t)
		if copied, err := os.ReadFile(on.diskFile(g)); err != nil || !bytes.Equal(copied, content) {
			t.Errorf("the disk's copy is another (%v)", err)
		}
		g.Destroy(t, on)
		g.disk = ""
		g.Recreate(t, on)
	})
	t.Run("guest dies", func(t *testing.T) {
		ex, a := l.executor(t, slowly), g.move(on)
		_, ended := begin(t, t.Context(), ex, a)
		g.Kill()
		err := await(t, ended)
		t.Logf("it says: %v", err)
		if err == nil || !strings.Contains(err.Error(), "ended while it was moved") {
			t.Errorf("do: %v", err)
		}
		eventually(t, "the guest is nowhere", func() error {
			if s, err := ex.Find(t.Context(), a); err != nil || !s.Host.IsZero() {
				return fmt.Errorf("find = %+v, %w", s, err)
			}
			return nil
		})
		if on := g.On(t); len(on) != 0 {
			t.Errorf("%d hosts know a guest that ended", len(on))
		}
		g.Recreate(t, on)
		next(t)
	})
}
