// Package remediationtest is what every platform's executor must pass, against that platform's simulator.
// It promises to count the simulator's migration calls, so that a second one is never overlooked.
// It must not import a platform: the fixture brings it.
package remediationtest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/remediation"
)

// Fixture is a simulated platform with one VM that runs on Action.From and fits on Action.To, and what the suite does to it.
type Fixture struct {
	// Action would be carried out. Its StartingAt is now, by the executor's clock; it has no TaskRef.
	Action remediation.Action
	// Executor is a new one with this secret (a password or key). The suite closes nothing: use t.Cleanup.
	Executor func(t *testing.T, secret string) remediation.Executor
	Secret   string // the right one
	// NoHistory says that the platform keeps no record of migrations that ended: of somebody else's only where the VM is then tells.
	NoHistory bool

	Calls func() int          // migration calls for the VM that the platform received, refused ones too
	Host  func() inventory.ID // where the platform says the VM is

	LoseAnswer  func()                    // the next migration call is carried out, but its answer never arrives
	Refuse      func()                    // the next migration call is refused at once
	FailTask    func()                    // the next migration starts and fails later, leaving the VM where it was
	EndSessions func()                    // the platform forgets everyone who is logged in
	Maintenance func(host inventory.ID)   // puts a host into maintenance; nil if hosts of the platform have no such thing
	PowerOff    func()                    // switches the VM off
	Migrate     func() (taskRef string)   // somebody else starts the same migration
	Wait        func(time.Duration) error // lets that much of the executor's clock pass
}

// Run starts a fixture for each of the suite's tests. A migration in it takes long enough to be interrupted (half a second of
// real time, say) and ends by itself.
func Run(t *testing.T, start func(t *testing.T) Fixture) {
	for _, tc := range []struct {
		name string
		test func(*testing.T, Fixture)
	}{
		{"success", testSuccess},
		{"failing task", testFailingTask},
		{"refused call", testRefusedCall},
		{"lost answer", testLostAnswer},
		{"resume", testResume},
		{"cancelled before the call", testCancelledBefore},
		{"session lost while waiting", testSessionLost},
		{"cancel", testCancel},
		{"cancel refuses", testCancelRefuses},
		{"journal does not take the ref", testUnrecorded},
		{"wrong secret", testWrongSecret},
		{"objects of another source", testForeignAction},
		{"find looks no further back than the call", testFindSince},
		{"check changes nothing", testCheck},
		{"check: already there", testCheckNoOp},
		{"check: target in maintenance", testCheckMaintenance},
		{"check: powered off", testCheckPoweredOff},
		{"check: not on its source", testCheckElsewhere},
		{"check: no such VM or host", testCheckUnknown},
		{"check: already moving", testCheckBusy},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.test(t, start(t))
		})
	}
}

// reports keeps what an executor reported.
type reports struct {
	mu   sync.Mutex
	list []remediation.Progress
	hook func(remediation.Progress) error // called with each, if set
}

func (r *reports) take(p remediation.Progress) error {
	r.mu.Lock()
	r.list = append(r.list, p)
	r.mu.Unlock()
	if r.hook != nil {
		return r.hook(p)
	}
	return nil
}

// check demands the contract's order: the ref first, the same one throughout, and progress that never falls.
func (r *reports) check(t *testing.T) (ref string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.list) == 0 {
		t.Fatal("no report")
	}
	ref = r.list[0].TaskRef
	if ref == "" {
		t.Fatal("the first report has no task")
	}
	last := 0.0
	for _, p := range r.list {
		if p.TaskRef != ref || p.Ratio < last || p.Ratio > 1 {
			t.Errorf("reports %+v: want one task and a ratio that grows to at most 1", r.list)
			return ref
		}
		last = p.Ratio
	}
	return ref
}

func testSuccess(t *testing.T, f Fixture) {
	ctx, ex := t.Context(), f.Executor(t, f.Secret)
	if err := ex.Check(ctx, f.Action); err != nil {
		t.Fatalf("check: %v", err)
	}
	var r reports
	r.hook = func(p remediation.Progress) error {
		if p.Ratio == 0 && f.Host() != f.Action.From {
			t.Error("the task's ref was reported after its end")
		}
		return nil
	}
	if err := ex.Do(ctx, f.Action, r.take); err != nil {
		t.Fatalf("do: %v", err)
	}
	ref := r.check(t)
	if between := slices.ContainsFunc(r.list, func(p remediation.Progress) bool { return p.Ratio > 0 && p.Ratio < 1 }); !between {
		t.Errorf("reports %+v: want some progress between start and end", r.list)
	}
	expect(t, f, f.Action.To, 1)
	s := find(t, ex, f.Action)
	if s.Host != f.Action.To || len(s.Tasks) != 1 || s.Tasks[0].Ref != ref || s.Tasks[0].State != remediation.TaskSucceeded {
		t.Errorf("find = %+v, want the VM on %s and task %s succeeded", s, f.Action.To, ref)
	}
}

func testFailingTask(t *testing.T, f Fixture) {
	ex := f.Executor(t, f.Secret)
	f.FailTask()
	var r reports
	err := ex.Do(t.Context(), f.Action, r.take)
	expectWord(t, err)
	ref := r.check(t)
	expect(t, f, f.Action.From, 1)
	s := find(t, ex, f.Action)
	if len(s.Tasks) != 1 || s.Tasks[0].Ref != ref || s.Tasks[0].State != remediation.TaskFailed || s.Tasks[0].Error == "" {
		t.Errorf("find = %+v, want task %s failed, and why", s, ref)
	}

	// A task that failed long ago still is the action's own.
	action := f.Action
	action.TaskRef = ref
	expectWord(t, ex.Do(t.Context(), action, (&reports{}).take))
	expect(t, f, f.Action.From, 1)
}

func testRefusedCall(t *testing.T, f Fixture) {
	ex := f.Executor(t, f.Secret)
	f.Refuse()
	var r reports
	expectWord(t, ex.Do(t.Context(), f.Action, r.take))
	if len(r.list) > 0 {
		t.Errorf("reports %+v of a call that was refused", r.list)
	}
	expect(t, f, f.Action.From, 1)
	if s := find(t, ex, f.Action); s.Host != f.Action.From || len(s.Tasks) > 0 {
		t.Errorf("find = %+v, want the VM on its source and no task", s)
	}
}

func testLostAnswer(t *testing.T, f Fixture) {
	ex := f.Executor(t, f.Secret)
	f.LoseAnswer()
	if err := ex.Do(t.Context(), f.Action, (&reports{}).take); !errors.Is(err, remediation.ErrUndecided) {
		t.Fatalf("do: %v, want ErrUndecided", err)
	}
	s := find(t, ex, f.Action)
	if len(s.Tasks) != 1 || s.Tasks[0].Ref == "" {
		t.Fatalf("find = %+v, want the task that was started", s)
	}
	action := f.Action
	action.TaskRef = s.Tasks[0].Ref
	if err := ex.Do(t.Context(), action, (&reports{}).take); err != nil {
		t.Errorf("do of the task that was found: %v", err)
	}
	expect(t, f, f.Action.To, 1)
}

// testResume stops waiting, as an agent that stops, and has another executor take the task up.
func testResume(t *testing.T, f Fixture) {
	ctx, cancel := context.WithCancel(t.Context())
	var r reports
	r.hook = func(remediation.Progress) error { cancel(); return nil }
	if err := f.Executor(t, f.Secret).Do(ctx, f.Action, r.take); !errors.Is(err, context.Canceled) {
		t.Fatalf("do: %v, want the context's error", err)
	}
	action := f.Action
	action.TaskRef = r.check(t)
	if f.Host() != f.Action.From {
		t.Error("the migration ended before the wait for it did: this test shows nothing")
	}
	var again reports
	if err := f.Executor(t, f.Secret).Do(t.Context(), action, again.take); err != nil {
		t.Fatalf("do again: %v", err)
	}
	if ref := again.check(t); ref != action.TaskRef {
		t.Errorf("task %s was taken up as %s", action.TaskRef, ref)
	}
	expect(t, f, f.Action.To, 1)

	// And once more when all is over.
	if err := f.Executor(t, f.Secret).Do(t.Context(), action, (&reports{}).take); err != nil {
		t.Errorf("do of a task that is over: %v", err)
	}
	expect(t, f, f.Action.To, 1)
}

func testCancelledBefore(t *testing.T, f Fixture) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := f.Executor(t, f.Secret).Do(ctx, f.Action, (&reports{}).take)
	if err == nil || errors.Is(err, remediation.ErrUndecided) {
		t.Errorf("do: %v, want an error that leaves nothing open", err)
	}
	expect(t, f, f.Action.From, 0)
}

func testSessionLost(t *testing.T, f Fixture) {
	var r reports
	ended := false
	r.hook = func(remediation.Progress) error {
		if !ended {
			ended = true
			f.EndSessions()
		}
		return nil
	}
	if err := f.Executor(t, f.Secret).Do(t.Context(), f.Action, r.take); err != nil {
		t.Fatalf("do: %v", err)
	}
	expect(t, f, f.Action.To, 1)

	// A session that is gone before the call costs a log-in and no second migration.
	ex := f.Executor(t, f.Secret)
	back := f.Action
	back.From, back.FromName, back.To, back.ToName = f.Action.To, f.Action.ToName, f.Action.From, f.Action.FromName
	if err := ex.Check(t.Context(), back); err != nil {
		t.Fatalf("check: %v", err)
	}
	f.EndSessions()
	if err := ex.Do(t.Context(), back, (&reports{}).take); err != nil {
		t.Fatalf("do: %v", err)
	}
	if f.Host() != back.To {
		t.Errorf("the VM is on %s, want %s", f.Host(), back.To)
	}
}

// testCancel has another executor, as of an agent that was restarted, cancel what one waits for. A platform that cannot has no Canceler.
func testCancel(t *testing.T, f Fixture) {
	ex, other := f.Executor(t, f.Secret), f.Executor(t, f.Secret)
	canceler, ok := other.(remediation.Canceler)
	if !ok {
		return
	}
	action := f.Action
	var r reports
	r.hook = func(p remediation.Progress) error {
		if action.TaskRef != "" {
			return nil
		}
		action.TaskRef = p.TaskRef
		if err := canceler.Cancel(t.Context(), action); err != nil {
			t.Errorf("cancel: %v", err)
		}
		return nil
	}
	expectWord(t, ex.Do(t.Context(), f.Action, r.take))
	ref := r.check(t)
	expect(t, f, f.Action.From, 1)
	if s := find(t, ex, action); len(s.Tasks) != 1 || s.Tasks[0].Ref != ref || s.Tasks[0].State != remediation.TaskFailed || s.Tasks[0].Error == "" || s.Down != "" {
		t.Errorf("find = %+v, want task %s failed, why, and the VM running", s, ref)
	}
	expectWord(t, canceler.Cancel(t.Context(), action))

	// The next attempt works.
	if err := ex.Do(t.Context(), f.Action, (&reports{}).take); err != nil {
		t.Errorf("do again: %v", err)
	}
	expect(t, f, f.Action.To, 2)
	expectWord(t, canceler.Cancel(t.Context(), action))
	expect(t, f, f.Action.To, 2)
}

// testCancelRefuses asks for what is not under way, or not the action's.
func testCancelRefuses(t *testing.T, f Fixture) {
	canceler, ok := f.Executor(t, f.Secret).(remediation.Canceler)
	if !ok {
		return
	}
	known := f.Action
	known.TaskRef = f.Migrate() // somebody else's, of this VM
	for name, edit := range map[string]func(*remediation.Action){
		"no task":      func(a *remediation.Action) { a.TaskRef = "" },
		"another task": func(a *remediation.Action) { a.TaskRef = "task-of-nobody" },
		"another VM":   func(a *remediation.Action) { a.VM.Source = "elsewhere" },
	} {
		a := known
		edit(&a)
		if err := canceler.Cancel(t.Context(), a); err == nil || errors.Is(err, remediation.ErrUndecided) {
			t.Errorf("cancel of an action with %s: %v", name, err)
		}
	}
	wrong := f.Executor(t, "wr0ng-"+f.Secret+"-s3cret").(remediation.Canceler)
	if err := wrong.Cancel(t.Context(), known); err == nil || errors.Is(err, remediation.ErrUndecided) || strings.Contains(err.Error(), f.Secret) {
		t.Errorf("cancel with a wrong secret: %v, want an error that leaves nothing open", err)
	}
	eventually(t, "the migration goes on", func() bool { return f.Host() == f.Action.To })
}

func testUnrecorded(t *testing.T, f Fixture) {
	full := errors.New("disk full")
	var r reports
	r.hook = func(remediation.Progress) error { return full }
	err := f.Executor(t, f.Secret).Do(t.Context(), f.Action, r.take)
	if !errors.Is(err, full) {
		t.Errorf("do: %v, want the journal's error", err)
	}
	if len(r.list) != 1 {
		t.Errorf("%d reports, want none after the journal refused one", len(r.list))
	}
	eventually(t, "the migration goes on", func() bool { return f.Host() == f.Action.To })
	expect(t, f, f.Action.To, 1)
}

func testWrongSecret(t *testing.T, f Fixture) {
	wrong := "wr0ng-" + f.Secret + "-s3cret"
	ex := f.Executor(t, wrong)
	_, findErr := ex.Find(t.Context(), f.Action)
	for name, err := range map[string]error{
		"check": ex.Check(t.Context(), f.Action),
		"do":    ex.Do(t.Context(), f.Action, (&reports{}).take),
		"find":  findErr,
	} {
		if err == nil || errors.Is(err, remediation.ErrUndecided) {
			t.Errorf("%s: %v, want an error that leaves nothing open", name, err)
			continue
		}
		if strings.Contains(err.Error(), wrong) || strings.Contains(err.Error(), f.Secret) {
			t.Errorf("%s: the secret is in the error: %v", name, err)
		}
	}
	expect(t, f, f.Action.From, 0)
}

func testForeignAction(t *testing.T, f Fixture) {
	ex := f.Executor(t, f.Secret)
	for name, edit := range map[string]func(*remediation.Action){
		"vm":        func(a *remediation.Action) { a.VM.Source = "elsewhere" },
		"target":    func(a *remediation.Action) { a.To.Source = "elsewhere" },
		"no target": func(a *remediation.Action) { a.To = inventory.ID{} },
		"vm for to": func(a *remediation.Action) { a.To = a.VM },
		"kind":      func(a *remediation.Action) { a.Kind = "cold_migration" },
	} {
		a := f.Action
		edit(&a)
		if err := ex.Check(t.Context(), a); err == nil {
			t.Errorf("check took an action with another %s", name)
		}
		if err := ex.Do(t.Context(), a, (&reports{}).take); err == nil || errors.Is(err, remediation.ErrUndecided) {
			t.Errorf("do of an action with another %s: %v", name, err)
		}
	}
	expect(t, f, f.Action.From, 0)
}

func testFindSince(t *testing.T, f Fixture) {
	ex := f.Executor(t, f.Secret)
	ref := f.Migrate()
	eventually(t, "somebody else's migration ends", func() bool { return f.Host() == f.Action.To })
	switch s := find(t, ex, f.Action); {
	case f.NoHistory && s.Host != f.Action.To:
		t.Errorf("find = %+v, want the VM on %s", s, f.Action.To)
	case !f.NoHistory && (len(s.Tasks) != 1 || s.Tasks[0].Ref != ref):
		t.Errorf("find = %+v, want somebody else's task %s", s, ref)
	}
	const longAgo = 5 * time.Minute
	if err := f.Wait(longAgo); err != nil {
		t.Fatal(err)
	}
	late := f.Action
	late.StartingAt = late.StartingAt.Add(longAgo)
	if s := find(t, ex, late); len(s.Tasks) != 0 {
		t.Errorf("find = %+v, want no task from before the call", s)
	}
	late.TaskRef = ref
	if s := find(t, ex, late); len(s.Tasks) != 1 {
		t.Errorf("find = %+v, want the action's own task, however old", s)
	}
	gone := f.Action
	gone.VM.Ref = "vm-nobody"
	if s := find(t, ex, gone); !s.Host.IsZero() || len(s.Tasks) != 0 {
		t.Errorf("find = %+v of a VM that does not exist", s)
	}
}

func testCheck(t *testing.T, f Fixture) {
	ex := f.Executor(t, f.Secret)
	for range 3 {
		if err := ex.Check(t.Context(), f.Action); err != nil {
			t.Fatalf("check: %v", err)
		}
	}
	expect(t, f, f.Action.From, 0)
}

func testCheckNoOp(t *testing.T, f Fixture) {
	a := f.Action
	a.To, a.ToName = a.From, a.FromName
	if err := f.Executor(t, f.Secret).Check(t.Context(), a); !errors.Is(err, remediation.ErrNoOp) {
		t.Errorf("check: %v, want ErrNoOp", err)
	}
}

func testCheckMaintenance(t *testing.T, f Fixture) {
	if f.Maintenance == nil {
		return
	}
	f.Maintenance(f.Action.To)
	expectCheck(t, f, f.Action, f.Action.ToName, "maintenance")
}

func testCheckPoweredOff(t *testing.T, f Fixture) {
	f.PowerOff()
	expectCheck(t, f, f.Action, f.Action.VMName, "powered on")
}

func testCheckElsewhere(t *testing.T, f Fixture) {
	f.Migrate()
	eventually(t, "somebody else's migration ends", func() bool { return f.Host() == f.Action.To })
	a := f.Action
	a.To.Ref, a.ToName = "host-third", "third"
	err := f.Executor(t, f.Secret).Check(t.Context(), a)
	if err == nil || !strings.Contains(err.Error(), "not on "+f.Action.FromName) {
		t.Errorf("check: %v, want that the VM is not on %s", err, f.Action.FromName)
	}
}

func testCheckUnknown(t *testing.T, f Fixture) {
	a := f.Action
	a.VM.Ref = "vm-nobody"
	expectCheck(t, f, a, a.VMName, "no such VM")
	a = f.Action
	a.To.Ref = "host-nobody"
	expectCheck(t, f, a, a.ToName, "no such host")
}

func testCheckBusy(t *testing.T, f Fixture) {
	ref := f.Migrate()
	err := f.Executor(t, f.Secret).Check(t.Context(), f.Action)
	if err == nil || errors.Is(err, remediation.ErrNoOp) || !strings.Contains(err.Error(), ref) {
		t.Errorf("check: %v, want that task %s moves the VM", err, ref)
	}
}

// expectWord demands the platform's own word against the action, with nothing left open.
func expectWord(t *testing.T, err error) {
	t.Helper()
	if err == nil || errors.Is(err, remediation.ErrUndecided) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("do: %v, want the platform's refusal", err)
	}
}

func expectCheck(t *testing.T, f Fixture, a remediation.Action, words ...string) {
	t.Helper()
	err := f.Executor(t, f.Secret).Check(t.Context(), a)
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("check: %v, want %q in it", err, words)
			return
		}
	}
	if n := f.Calls(); n != 0 {
		t.Errorf("check sent %d migrations", n)
	}
}

// expect demands where the VM is and how often its migration was called for.
func expect(t *testing.T, f Fixture, host inventory.ID, calls int) {
	t.Helper()
	if got := f.Host(); got != host {
		t.Errorf("the VM is on %s, want %s", got, host)
	}
	if got := f.Calls(); got != calls {
		t.Errorf("the platform received %d migration calls, want %d", got, calls)
	}
}

func find(t *testing.T, ex remediation.Executor, a remediation.Action) remediation.Sighting {
	t.Helper()
	s, err := ex.Find(t.Context(), a)
	if err != nil {
		t.Fatalf("find: %v", err)
	}
	return s
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in 20 s: %s", what)
		}
	}
}
