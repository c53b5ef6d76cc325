package remediation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/protip/protip/internal/inventory"
)

func TestRead(t *testing.T) {
	host := func(ref string) inventory.ID { return inventory.ID{Source: "vc", Kind: inventory.KindHost, Ref: ref} }
	from, to, other, none := host("from"), host("to"), host("other"), inventory.ID{}
	refused := errors.New("refused")
	task := func(ref string, s TaskState, to inventory.ID) Task {
		return Task{Ref: ref, State: s, To: to, Error: "broke"}
	}
	tests := []struct {
		name    string
		ref     string // in the journal
		at      inventory.ID
		tasks   []Task // newest first
		refusal error
		next    State // empty: not decided
		adopted string
		note    string
	}{
		{"no trace", "", from, nil, nil, "", "", ""},
		{"on its target without a trace", "", to, nil, nil, Verifying, "", "on its target"},
		{"elsewhere", "", other, nil, nil, Failed, "", "someone else moved it"},
		{"gone", "", none, nil, nil, Failed, "", "no longer knows web"},
		{"refused", "", from, nil, refused, Failed, "", "refused"},
		{"refused, and there all the same", "", to, nil, refused, Verifying, "", ""},
		{"ours runs", "", from, []Task{task("t1", TaskRunning, to)}, nil, Started, "t1", ""},
		{"one without a target runs", "", from, []Task{task("t1", TaskRunning, none)}, nil, Started, "t1", ""},
		{"another's runs", "", from, []Task{task("t1", TaskRunning, other)}, nil, "", "", ""},
		{"refused because another's runs", "", from, []Task{task("t1", TaskRunning, other)}, refused, Failed, "", "refused"},
		{"ours failed", "", from, []Task{task("t1", TaskFailed, to)}, nil, RolledBack, "t1", "broke"},
		{"ours succeeded and is not shown yet", "", from, []Task{task("t1", TaskSucceeded, to)}, nil, Verifying, "t1", ""},
		{"ours succeeded, then moved on", "", other, []Task{task("t1", TaskSucceeded, to)}, nil, Failed, "t1", "someone else"},
		{"an older one failed, ours runs", "", from, []Task{task("t2", TaskRunning, to), task("t1", TaskFailed, to)}, nil, Started, "t2", ""},
		{"a newer one failed, one runs", "", from, []Task{task("t2", TaskFailed, to), task("t1", TaskRunning, to)}, nil, Started, "t1", ""},
		{"known, runs", "t1", from, []Task{task("t1", TaskRunning, to)}, nil, Started, "t1", ""},
		{"known, failed; another to the same target runs", "t1", from, []Task{task("t2", TaskRunning, to), task("t1", TaskFailed, to)}, nil, RolledBack, "t1", "broke"},
		{"known, forgotten, on its source", "t1", from, nil, nil, "", "t1", ""},
		{"known, forgotten, on its target", "t1", to, nil, nil, Verifying, "t1", ""},
		{"known, forgotten, which is all that it says", "t1", from, nil, refused, "", "t1", ""},
		{"known, failed, on its target", "t1", to, []Task{task("t1", TaskFailed, to)}, nil, Verifying, "t1", ""},
	}
	down := Sighting{Host: to, Down: "failed", Tasks: []Task{task("t1", TaskSucceeded, to)}}
	if f := read(Action{VMName: "web", From: from, To: to, ToName: "hv-02"}, down, nil); f.next != Failed || f.note != "web is failed on its target hv-02 and does not run: start it there" {
		t.Errorf("on its target and down: %+v", f)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := Action{VMName: "web", From: from, To: to, TaskRef: tt.ref}
			f := read(a, Sighting{Host: tt.at, Tasks: tt.tasks}, tt.refusal)
			if f.next != tt.next || f.ref != tt.adopted || !strings.Contains(f.note, tt.note) {
				t.Errorf("%+v, want %q, task %q, note %q", f, tt.next, tt.adopted, tt.note)
			}
		})
	}
}

func TestAnswerLost(t *testing.T) {
	for err, want := range map[error]bool{
		fmt.Errorf("migrate: %w", ErrUndecided):                                          true,
		fmt.Errorf("migrate: %w", context.DeadlineExceeded):                              true,
		fmt.Errorf("post: %w", io.ErrUnexpectedEOF):                                      true,
		fmt.Errorf("post: %w", &net.OpError{Op: "read", Err: errors.New("reset")}):       true,
		errors.New("ServerFaultCode: The operation is not allowed in the current state"): false,
	} {
		if got := answerLost(err); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}
