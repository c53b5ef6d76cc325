// Package collectortest is the conformance suite that every platform's source runs: what collector.Source promises, tested.
// It promises to know nothing of a platform: all it does there goes through Control, against a real server.
// It must not import a platform's package.
package collectortest

import (
	"context"
	"errors"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
)

// soon is how soon a change of the platform must be in the inventory.
const soon = 2 * time.Second

// Fixture is a simulated platform with at least two hosts and four running VMs, and sources that watch it.
type Fixture struct {
	Name     string // of the source
	Interval time.Duration
	Clock    *clock.Clock // fast enough for an interval to pass in a second or two
	Source   collector.Source
	Refused  collector.Source // with credentials that the platform refuses
	Control  Control
	// Immovable says that nothing moves a VM of the platform: what the suite holds of moves does not apply.
	Immovable bool
}

// Control does to a platform what others do to it. Its methods return when the platform has done it, and end the test if
// it cannot.
type Control interface {
	CreateVM(name string) inventory.ID
	DestroyVM(id inventory.ID)
	MoveVM(vm, host inventory.ID)
	Stop()           // answer nobody, and forget all log-ins
	Start()          // again, with the same address
	ForgetLogins()   // as idle time-outs or an administrator do
	LogIns() int     // how often somebody tried
	OpenLogIns() int // that were not logged out
}

// Run runs the suite. start starts a platform for one test, and stops it by t.Cleanup.
func Run(t *testing.T, start func(t *testing.T) Fixture) {
	for _, tt := range []struct {
		name string
		run  func(t *testing.T, f Fixture, r *recorder)
	}{
		{"lists everything and samples it", listsAndSamples},
		{"sees what others do within two seconds", seesChanges},
		{"a move is one change", movesOnce},
		{"restart with deletions is exactly these removals", restartWithDeletions},
		{"a forgotten log-in neither flaps nor storms", forgottenLogin},
		{"ends at once when cancelled and leaves nothing behind", cancel},
		{"ends with an error when the platform dies", platformDies},
		{"fails with an error when the platform is down", platformDown},
		{"says that credentials are refused", refused},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t)
			tt.run(t, f, newRecorder(t, f))
		})
	}
}

func listsAndSamples(t *testing.T, f Fixture, r *recorder) {
	r.watch(f.Source)
	r.synced(1)
	snap := r.fleet.Snapshot()
	hosts, running := 0, 0
	for h := range snap.Hosts() {
		hosts++
		if h.Cores == 0 || h.CPUHertz == 0 || h.MemoryBytes == 0 || h.Name == "" {
			t.Errorf("host without name or capacity: %+v", h.Host)
		}
	}
	for v := range snap.VMs() {
		if _, ok := snap.Host(v.Host); !ok {
			t.Errorf("VM %s runs on %v, which is not known", v.Name, v.Host)
		}
		if v.Power == inventory.PowerOn {
			running++
		}
	}
	if hosts < 2 || running < 4 {
		t.Fatalf("%d hosts and %d running VMs, want at least 2 and 4", hosts, running)
	}
	r.eventually(f.Clock.Real(4*f.Interval)+soon, "samples of every host and running VM", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for h := range r.fleet.Snapshot().Hosts() {
			if h.Connection == inventory.Connected && !r.sampled[h.ID] {
				return false
			}
		}
		for v := range r.fleet.Snapshot().VMs() {
			if v.Power == inventory.PowerOn && v.Connection == inventory.Connected && !r.sampled[v.ID] {
				return false
			}
		}
		return true
	})
	// And they go on: nothing is stale three intervals later.
	_ = f.Clock.Sleep(t.Context(), 3*f.Interval)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fleet.Expire(f.Clock.Now())
	for v := range r.fleet.Snapshot().VMs() {
		if _, ok := v.Samples.Value(inventory.VMCPUUsage); !ok && v.Power == inventory.PowerOn && v.Connection == inventory.Connected {
			t.Errorf("CPU usage of VM %s is stale", v.Name)
		}
	}
	if n := countAll(r.changes, inventory.Removed); n > 0 {
		t.Errorf("%d removals", n)
	}
}

func countAll(changes []inventory.Change, kind inventory.ChangeKind) int {
	n := 0
	for _, c := range changes {
		if c.Kind == kind {
			n++
		}
	}
	return n
}

func seesChanges(t *testing.T, f Fixture, r *recorder) {
	r.watch(f.Source)
	r.synced(1)
	r.forget()

	id := f.Control.CreateVM("made-by-others")
	r.eventually(soon, "the new VM is added", func() bool { return r.seen(inventory.Added, id) == 1 })
	r.eventually(soon, "the new VM has its name and a host", func() bool {
		v, ok := r.fleet.Snapshot().VM(id)
		return ok && v.Name == "made-by-others" && !v.Host.IsZero()
	})

	moves := 0
	if !f.Immovable {
		moves = 1
		vm, to := aMove(t, r)
		f.Control.MoveVM(vm.ID, to)
		r.eventually(soon, "the VM is on its new host", func() bool {
			v, _ := r.fleet.Snapshot().VM(vm.ID)
			return v.Host == to && r.seen(inventory.Moved, vm.ID) == 1
		})
	}

	f.Control.DestroyVM(id)
	r.eventually(soon, "the VM is removed", func() bool { return r.seen(inventory.Removed, id) == 1 })
	if a, m, d := r.seen(inventory.Added, inventory.ID{}), r.seen(inventory.Moved, inventory.ID{}), r.seen(inventory.Removed, inventory.ID{}); a != 1 || m != moves || d != 1 {
		t.Errorf("%d added, %d moved, %d removed, want 1, %d, 1", a, m, d, moves)
	}
}

// aMove is a running VM and a host that it could be moved to: one of the same cluster.
func aMove(t *testing.T, r *recorder) (inventory.VM, inventory.ID) {
	t.Helper()
	snap := r.fleet.Snapshot()
	for v := range snap.VMs() {
		from, _ := snap.Host(v.Host)
		if v.Power != inventory.PowerOn || from.Host == nil || from.Cluster.IsZero() {
			continue
		}
		for _, h := range snap.HostsOf(from.Cluster) {
			if h.ID != v.Host && h.Connection == inventory.Connected && !h.Maintenance {
				return *v.VM, h.ID
			}
		}
	}
	t.Fatal("no VM can be moved")
	return inventory.VM{}, inventory.ID{}
}

func movesOnce(t *testing.T, f Fixture, r *recorder) {
	if f.Immovable {
		return // there is nothing to be seen, and that is no test left out
	}
	r.watch(f.Source)
	r.synced(1)
	vm, to := aMove(t, r)
	for range 3 {
		f.Control.MoveVM(vm.ID, to)
		f.Control.MoveVM(vm.ID, vm.Host)
	}
	r.eventually(soon, "the VM is back", func() bool {
		v, _ := r.fleet.Snapshot().VM(vm.ID)
		return v.Host == vm.Host && r.seen(inventory.Moved, vm.ID) > 0
	})
	if added := r.seen(inventory.Added, vm.ID); added != 1 {
		t.Errorf("the VM was added %d times", added)
	}
	if removed := r.seen(inventory.Removed, inventory.ID{}); removed > 0 {
		t.Errorf("%d removals", removed)
	}
}

func restartWithDeletions(t *testing.T, f Fixture, r *recorder) {
	gone := map[inventory.ID]bool{}
	for _, name := range []string{"d-1", "d-2", "d-3"} {
		gone[f.Control.CreateVM(name)] = true
	}
	w := r.watch(f.Source)
	r.synced(1)
	f.Control.Stop()
	if err := w.wait(time.Minute); err == nil {
		t.Fatal("Watch returned no error when the platform stopped")
	}
	r.fleet.Down(f.Name, errors.New("stopped"))
	r.forget()
	for id := range gone {
		f.Control.DestroyVM(id)
	}
	f.Control.Start()
	r.watch(f.Source)
	r.synced(1)

	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.changes {
		if c.Kind == inventory.Removed && gone[c.ID] {
			delete(gone, c.ID)
		} else if c.Kind == inventory.Added || c.Kind == inventory.Removed || c.Kind == inventory.Moved {
			t.Errorf("%s %v (%s)", c.Kind, c.ID, c.Name)
		}
	}
	if len(gone) > 0 {
		t.Errorf("not removed: %v", gone)
	}
}

func forgottenLogin(t *testing.T, f Fixture, r *recorder) {
	w := r.watch(f.Source)
	r.synced(1)
	before := f.Control.LogIns()
	r.forget()
	f.Control.ForgetLogins()
	// Either Watch goes on by itself and lists again, or it ends with an error and is called again.
	again := func() bool {
		select {
		case <-w.done:
			if w.err == nil {
				t.Fatal("Watch ended without an error")
			}
			w = r.watch(f.Source)
		default:
		}
		return r.seen(inventory.Synced, inventory.ID{}) > 0
	}
	r.eventually(30*time.Second, "everything is listed again", again)
	if n := r.seen(inventory.Added, inventory.ID{}) + r.seen(inventory.Removed, inventory.ID{}) + r.seen(inventory.Moved, inventory.ID{}); n > 0 {
		t.Errorf("changes although nothing changed: %s", r.summary())
	}
	if n := f.Control.LogIns() - before; n > 2 {
		t.Errorf("%d log-ins to be back", n)
	}
	id := f.Control.CreateVM("afterwards")
	r.eventually(soon, "changes are seen again", func() bool { return r.seen(inventory.Added, id) == 1 })
}

func cancel(t *testing.T, f Fixture, r *recorder) {
	for range 3 {
		w := r.watch(f.Source)
		r.eventually(20*time.Second, "a listing", func() bool { return r.seen(inventory.Synced, inventory.ID{}) > 0 })
		r.forget()
		if err := w.stop(); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled Watch returned %v", err)
		}
	}
	r.eventually(5*time.Second, "all log-ins are logged out", func() bool { return f.Control.OpenLogIns() == 0 })
	r.eventually(5*time.Second, "no goroutine of the source is left", func() bool { return leaked() == "" })
	if s := leaked(); s != "" {
		t.Error(s)
	}
}

// leaked is the stack of a goroutine that runs a source's code, empty if there is none.
func leaked() string {
	var b strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&b, 2)
	for stack := range strings.SplitSeq(b.String(), "\n\n") {
		ours := strings.Contains(stack, "/protip/collector/") || strings.Contains(stack, "/protip/internal/platform/")
		if ours && !strings.Contains(stack, "testing.tRunner") && !strings.Contains(stack, "/collectortest.") {
			return stack
		}
	}
	return ""
}

func platformDies(t *testing.T, f Fixture, r *recorder) {
	w := r.watch(f.Source)
	r.synced(1)
	f.Control.Stop()
	if err := w.wait(time.Minute); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("Watch returned %v", err)
	}
	f.Control.Start()
	r.watch(f.Source)
	r.synced(2)
	if n := r.seen(inventory.Removed, inventory.ID{}); n > 0 {
		t.Errorf("%d removals although nothing was removed", n)
	}
}

func platformDown(t *testing.T, f Fixture, r *recorder) {
	f.Control.Stop()
	if err := r.watch(f.Source).wait(time.Minute); err == nil || errors.Is(err, collector.ErrCredentials) {
		t.Errorf("Watch returned %v", err)
	}
}

func refused(t *testing.T, f Fixture, r *recorder) {
	before := f.Control.LogIns()
	if err := r.watch(f.Refused).wait(time.Minute); !errors.Is(err, collector.ErrCredentials) {
		t.Errorf("Watch returned %v, want ErrCredentials", err)
	}
	if n := f.Control.LogIns() - before; n != 1 {
		t.Errorf("%d log-ins, want 1", n)
	}
	if r.deltas > 0 {
		t.Errorf("%d deltas without a log-in", r.deltas)
	}
}
