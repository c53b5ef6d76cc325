package remediation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
)

// finding is what reading the platform says of an action.
type finding struct {
	next State  // Started (adopt ref and wait for it), Verifying, Failed, RolledBack; empty: nothing to be seen
	ref  string // the task that belongs to the action, if there is one
	note string
}

// read decides from what the platform shows where an action that may have been sent stands. refusal is the platform's own word
// on the call, nil if there is none or its answer was lost. Where the VM is counts for more than what a task says. With the
// VM on its source and no trace of ours nothing is decided; nor if the platform forgot a task that it had begun, because
// the hosts may still be at it (a management server that restarts forgets, and they go on).
func read(a Action, s Sighting, refusal error) finding {
	task, known := taskOf(a, s.Tasks)
	f := finding{ref: a.TaskRef}
	if known {
		f.ref = task.Ref
	}
	switch {
	case known && task.State == TaskRunning:
		f.next, f.note = Started, fmt.Sprintf("its task %s runs at the platform", task.Ref)
	case s.Host == a.To && s.Down != "":
		f.next, f.note = Failed, fmt.Sprintf("%s is %s on its target %s and does not run: start it there", a.VMName, s.Down, a.ToName)
	case s.Host == a.To:
		f.next, f.note = Verifying, "the platform shows the VM on its target"
	case s.Host.IsZero():
		f.next, f.note = Failed, fmt.Sprintf("the platform no longer knows %s", a.VMName)
	case s.Host != a.From:
		f.next, f.note = Failed, fmt.Sprintf("%s is on %s, neither its source nor its target: someone else moved it", a.VMName, s.Host)
	case known && task.State == TaskFailed:
		f.next, f.note = RolledBack, words(task.Error, "the platform's task failed")
	case known && task.State == TaskSucceeded:
		f.next, f.note = Verifying, "the platform's task succeeded"
	case refusal != nil && a.TaskRef == "":
		f.next, f.note = Failed, refusal.Error()
	}
	return f
}

// taskOf is the platform's task of the action: the one whose ref the journal holds, else the best that may be ours. Before
// the ref is known any migration of the VM to our target since the call is as good as ours: it has the same end.
func taskOf(a Action, tasks []Task) (Task, bool) {
	best, found := Task{}, false
	for _, t := range tasks {
		if a.TaskRef != "" {
			if t.Ref == a.TaskRef {
				return t, true
			}
			continue
		}
		if t.To != a.To && !t.To.IsZero() {
			continue
		}
		if !found || rank(t.State) > rank(best.State) {
			best, found = t, true
		}
	}
	return best, found
}

// rank orders task states by how much they tell: one that runs can still move the VM.
func rank(s TaskState) int {
	switch s {
	case TaskRunning:
		return 2
	case TaskSucceeded:
		return 1
	}
	return 0
}

func words(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// answerLost reports whether an executor's error leaves open what the platform did.
func answerLost(err error) bool {
	var network net.Error
	return errors.Is(err, ErrUndecided) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &network)
}
