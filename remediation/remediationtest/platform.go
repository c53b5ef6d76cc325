package remediationtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/remediation"
)

// Platform is a hypervisor's management server with one source of VMs: migrations are tasks that take time, may be refused, may
// fail and leave the VM on its source, and whose answer may be lost on the way. It counts what it is asked to do.
type Platform struct {
	Took time.Duration // that a migration takes

	mu     sync.Mutex
	hosts  map[inventory.ID]inventory.ID // VM -> host
	tasks  []*task
	calls  map[string]int // migration calls by action ID
	ended  int            // requests to give up a task
	faults map[inventory.ID]Fault
	down   bool
	moved  func(vm, from, to inventory.ID)
}

// Fault is how the platform misbehaves with a VM.
type Fault string

// Faults.
const (
	WouldRefuse Fault = "check"       // Check says no
	Refuses     Fault = "refuse"      // the call is answered with a fault, no task is made
	FailsTask   Fault = "fail"        // the task fails half way and the VM stays
	LosesAnswer Fault = "lose answer" // the call arrives, its answer does not
	LosesCall   Fault = "lose call"   // the call never arrives, and nobody can tell
	LosesTask   Fault = "lose task"   // the wait breaks off after the ref was told
	NoCancel    Fault = "no cancel"   // a request to give the task up is refused
	LateCancel  Fault = "late cancel" // it is taken, and the VM arrives all the same
	LosesCancel Fault = "lose cancel" // it is taken, and its answer does not arrive
	Stays       Fault = "stay"        // the task succeeds and the VM is where it was
	HidesMove   Fault = "hide"        // the move is made and the inventory is not told
)

// ErrPlatform is any error of the platform's own.
var ErrPlatform = errors.New("platform")

type task struct {
	remediation.Task
	vm    inventory.ID
	from  inventory.ID
	ends  time.Time
	began time.Time
	fault Fault
}

// NewPlatform is a platform that tells moved of each VM that arrived on another host.
func NewPlatform(took time.Duration, moved func(vm, from, to inventory.ID)) *Platform {
	return &Platform{
		Took: took, hosts: map[inventory.ID]inventory.ID{}, calls: map[string]int{}, faults: map[inventory.ID]Fault{}, moved: moved,
	}
}

// Put places a VM on a host, as somebody in another console would.
func (p *Platform) Put(vm, host inventory.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.put(vm, host, "")
}

func (p *Platform) put(vm, host inventory.ID, fault Fault) {
	from, known := p.hosts[vm]
	p.hosts[vm] = host
	if known && from != host && fault != HidesMove && p.moved != nil {
		p.moved(vm, from, host)
	}
}

// Remove destroys a VM.
func (p *Platform) Remove(vm inventory.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.hosts, vm)
}

// Break gives a VM a fault, or takes it back if empty.
func (p *Platform) Break(vm inventory.ID, f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults[vm] = f
}

// SetDown has the platform answer nothing; its tasks go on.
func (p *Platform) SetDown(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
}

// Forget drops the platform's record of tasks that ended.
func (p *Platform) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tasks = slices.DeleteFunc(p.tasks, func(t *task) bool { return t.State != remediation.TaskRunning })
}

// Calls is how often a migration was asked for, by action.
func (p *Platform) Calls() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string]int{}
	for id, n := range p.calls {
		out[id] = n
	}
	return out
}

// Where is the VM's host.
func (p *Platform) Where(vm inventory.ID) inventory.ID {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settle()
	return p.hosts[vm]
}

// Check is what an executor's Check asks.
func (p *Platform) Check(a remediation.Action) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.down:
		return fmt.Errorf("%w: no route to host", ErrPlatform)
	case p.faults[a.VM] == WouldRefuse:
		return fmt.Errorf("%w: the target lacks the VM's network", ErrPlatform)
	case p.hosts[a.VM] == a.To:
		return remediation.ErrNoOp
	}
	return nil
}

// Migrate is the one call that changes something.
func (p *Platform) Migrate(a remediation.Action) (ref string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fault := p.faults[a.VM]
	switch {
	case p.down:
		return "", fmt.Errorf("call migrate: %w", remediation.ErrUndecided)
	case fault == LosesCall:
		p.calls[a.ID]++ // the engine sent it, whatever became of it
		return "", fmt.Errorf("connection reset: %w", remediation.ErrUndecided)
	case fault == Refuses:
		p.calls[a.ID]++
		return "", fmt.Errorf("%w: operation not allowed in the current state", ErrPlatform)
	}
	p.calls[a.ID]++
	t := &task{
		Task: remediation.Task{Ref: fmt.Sprintf("task-%d", len(p.tasks)+1), State: remediation.TaskRunning, To: a.To},
		vm:   a.VM, from: p.hosts[a.VM], began: time.Now(), ends: time.Now().Add(p.Took), fault: fault,
	}
	p.tasks = append(p.tasks, t)
	time.AfterFunc(p.Took, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.settle()
	})
	if fault == LosesAnswer {
		return "", fmt.Errorf("read answer: %w", remediation.ErrUndecided)
	}
	return t.Ref, nil
}

// settle ends the tasks whose time has come.
func (p *Platform) settle() {
	for _, t := range p.tasks {
		if t.State != remediation.TaskRunning || time.Now().Before(t.ends) {
			continue
		}
		if t.fault == FailsTask {
			t.State, t.Error = remediation.TaskFailed, "vMotion timed out copying memory"
			continue
		}
		t.State = remediation.TaskSucceeded
		if t.fault != Stays && !p.hosts[t.vm].IsZero() {
			p.put(t.vm, t.To, t.fault)
		}
	}
}

// Poll is a task's state, and an error if the platform does not answer or does not know it.
func (p *Platform) Poll(ref string) (remediation.Task, float64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settle()
	if p.down {
		return remediation.Task{}, 0, fmt.Errorf("poll %s: %w", ref, remediation.ErrUndecided)
	}
	for _, t := range p.tasks {
		if t.Ref == ref {
			if t.fault == LosesTask {
				t.fault = ""
				return remediation.Task{}, 0, fmt.Errorf("wait for %s: %w", ref, remediation.ErrUndecided)
			}
			return t.Task, min(1, float64(time.Since(t.began))/float64(p.Took)), nil
		}
	}
	return remediation.Task{}, 0, fmt.Errorf("%w: task %s has been deleted or was never created", ErrPlatform, ref)
}

// Cancel is a request to give a task up.
func (p *Platform) Cancel(a remediation.Action) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settle()
	if p.down {
		return fmt.Errorf("cancel %s: %w", a.TaskRef, remediation.ErrUndecided)
	}
	p.ended++
	i := slices.IndexFunc(p.tasks, func(t *task) bool { return t.Ref == a.TaskRef })
	if i < 0 || p.tasks[i].State != remediation.TaskRunning {
		return fmt.Errorf("%w: task %s does not run", ErrPlatform, a.TaskRef)
	}
	switch p.tasks[i].fault {
	case NoCancel:
		return fmt.Errorf("%w: the task cannot be cancelled any more", ErrPlatform)
	case LateCancel:
		return nil
	case LosesCancel:
		p.tasks[i].State, p.tasks[i].Error = remediation.TaskFailed, "cancelled by a user"
		return fmt.Errorf("read answer: %w", remediation.ErrUndecided)
	}
	p.tasks[i].State, p.tasks[i].Error = remediation.TaskFailed, "cancelled by a user"
	return nil
}

// Cancels is how often it was asked to give a task up.
func (p *Platform) Cancels() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

// Find is what an executor's Find reads.
func (p *Platform) Find(a remediation.Action) (remediation.Sighting, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settle()
	if p.down {
		return remediation.Sighting{}, fmt.Errorf("find: %w: no route to host", ErrPlatform)
	}
	s := remediation.Sighting{Host: p.hosts[a.VM]}
	since := a.StartingAt.Add(-time.Second)
	if since.After(time.Now()) { // the agent's clock runs fast: leave nothing out
		since = time.Time{}
	}
	for _, t := range slices.Backward(p.tasks) {
		if t.vm == a.VM && (t.Ref == a.TaskRef || !t.began.Before(since)) {
			s.Tasks = append(s.Tasks, t.Task)
		}
	}
	return s, nil
}

// API is how an executor reaches a platform: directly, or over a wire that outlives the process.
type API interface {
	Check(a remediation.Action) error
	Migrate(a remediation.Action) (ref string, err error)
	Poll(ref string) (remediation.Task, float64, error)
	Cancel(a remediation.Action) error
	Find(a remediation.Action) (remediation.Sighting, error)
}

var _ API = (*Platform)(nil)

// Executor acts on a platform as a real one does.
type Executor struct {
	API   API
	Every time.Duration // between polls of a task
}

var (
	_ remediation.Executor = Executor{}
	_ remediation.Canceler = Executor{}
)

// Check implements remediation.Executor.
func (e Executor) Check(_ context.Context, a remediation.Action) error { return e.API.Check(a) }

// Find implements remediation.Executor.
func (e Executor) Find(_ context.Context, a remediation.Action) (remediation.Sighting, error) {
	return e.API.Find(a)
}

// Cancel implements remediation.Canceler.
func (e Executor) Cancel(_ context.Context, a remediation.Action) error { return e.API.Cancel(a) }

// Do implements remediation.Executor.
func (e Executor) Do(ctx context.Context, a remediation.Action, report func(remediation.Progress) error) error {
	ref := a.TaskRef
	if ref == "" {
		var err error
		if ref, err = e.API.Migrate(a); err != nil {
			return err
		}
	}
	if err := report(remediation.Progress{TaskRef: ref}); err != nil {
		return fmt.Errorf("report task %s: %w", ref, err)
	}
	for {
		t, ratio, err := e.API.Poll(ref)
		switch {
		case err != nil:
			return err
		case t.State == remediation.TaskSucceeded:
			return nil
		case t.State == remediation.TaskFailed:
			return fmt.Errorf("%w: %s", ErrPlatform, t.Error)
		}
		if err := report(remediation.Progress{TaskRef: ref, Ratio: ratio}); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(e.Every):
		}
	}
}
