package remediation_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/protip/protip/remediation"
	"github.com/protip/protip/remediation/remediationtest"
)

func (w *world) cancel(id string) remediation.Action {
	w.Helper()
	a, err := w.engine.Cancel(w.Context(), id, "bob", "wrong VM")
	if err != nil {
		w.Fatal(err)
	}
	return a
}

func (w *world) cancels(want int) {
	w.Helper()
	if got := w.platform.Cancels(); got != want {
		w.Errorf("the platform was asked %d times to give a task up, want %d", got, want)
	}
}

func (w *world) cannotCancel(id, why string) {
	w.Helper()
	before := w.stored(id)
	_, err := w.engine.Cancel(w.Context(), id, "bob", "")
	if !errors.Is(err, remediation.ErrRefused) || !strings.Contains(err.Error(), why) {
		w.Errorf("cancel: %v, want a refusal with %q", err, why)
	}
	if after := w.stored(id); after != before {
		w.Errorf("a refused cancel changed %+v to %+v", before, after)
	}
}

// TestCancelBeforeTheCall: what waits is withdrawn, the rest of its plan ends with it, and what acts by itself lets the VM rest.
func TestCancelBeforeTheCall(t *testing.T) {
	inBubble(t, func(w *world) {
		running := w.submit("ann", w.otherTip(9, 2))[0] // takes host 1's only turn
		plan := w.submit(remediation.ByPolicy, w.move(0, 2), w.move(1, 2))
		w.after(time.Second)
		if a := w.cancel(plan[0]); a.State != remediation.Withdrawn || a.CancelBy != "bob" || a.Fault || a.Sent() {
			t.Errorf("cancelled: %+v", a)
		}
		w.after(2 * took)
		w.want(plan[0], remediation.Withdrawn, "bob cancelled it: wrong VM")
		w.want(plan[1], remediation.Failed, "another move of this plan, web-0 to esx-2, ended withdrawn: plan again")
		w.want(running, remediation.Done, "")
		w.calls(plan[0], 0)
		w.cancels(0)
		w.cannotCancel(plan[0], "it is not under way")
		for range 2 { // it rests after a restart, too
			_, err := w.engine.Submit(w.Context(), []remediation.Action{w.move(0, 2)}, remediation.ByPolicy, "")
			if !errors.Is(err, remediation.ErrRefused) || !strings.Contains(err.Error(), "its move was cancelled at 2000-01-01 00:00:01 UTC by bob and rests until") {
				t.Errorf("the same again: %v", err)
			}
			w.stop()
			w.start()
		}
		planned, err := w.engine.Propose(w.Context(), []remediation.Action{w.otherTip(2, 2)})
		w.do(err)
		w.cancel(planned[0].ID)
		w.want(planned[0].ID, remediation.Withdrawn, "bob cancelled it")
	})
}

// TestCancelBetweenCheckAndCall: the platform is asked whether it would, and is then not told to.
func TestCancelBetweenCheckAndCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.options.Executors["vc"] = slow{w.options.Executors["vc"]}
		w.start()
		defer func() { w.stop() }()
		moved := w.submit("ann", w.move(0, 2))[0]
		w.after(5 * time.Second)
		w.want(moved, remediation.Claimed, "")
		w.cancel(moved)
		w.want(moved, remediation.Claimed, "")
		w.after(time.Minute)
		w.want(moved, remediation.Withdrawn, "bob cancelled it")
		w.calls(moved, 0)
		w.cancels(0)
	})
}

// TestCancelUnderWay: where the VM is says how it ended, whatever was asked for.
func TestCancelUnderWay(t *testing.T) {
	tests := []struct {
		name    string
		fault   remediationtest.Fault
		state   remediation.State
		says    string
		refused string // what the platform said of the request
	}{
		{"given up", "", remediation.RolledBack, "bob cancelled it: cancelled by a user", ""},
		{"answer lost", remediationtest.LosesCancel, remediation.RolledBack, "bob cancelled it: cancelled by a user", ""},
		{"arrives all the same", remediationtest.LateCancel, remediation.Done, "", ""},
		{"platform refuses", remediationtest.NoCancel, remediation.Done, "", "cannot be cancelled any more"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(w *world) {
				w.platform.Break(vm(0), tt.fault)
				moved := w.submit("ann", w.move(0, 2))[0]
				w.after(10 * time.Second)
				asked := w.cancel(moved)
				if asked.State != remediation.Started || asked.CancelBy != "bob" || !asked.CancelSentAt.IsZero() {
					t.Errorf("asked for: %+v", asked)
				}
				w.after(5 * time.Second)
				w.cancels(1)
				if a := w.stored(moved); a.CancelSentAt.IsZero() || !strings.Contains(a.CancelError, tt.refused) || (tt.refused == "") != (a.CancelError == "") {
					t.Errorf("asked: %+v\n%s", a, w.history(moved))
				}
				w.after(time.Minute)
				a := w.want(moved, tt.state, tt.says)
				if a.Fault || w.platform.Where(vm(0)) != map[bool]any{true: a.To, false: a.From}[a.State == remediation.Done] {
					t.Errorf("ended: %+v", a)
				}
				w.calls(moved, 1)
				w.cancels(1)
				if n := w.metric("protip_remediation_breaker_open"); n != 0 {
					t.Error("a person's word opened the breaker")
				}
				w.cannotCancel(moved, "it is ")
			})
		})
	}
}

// TestCancelAgain: a person may insist, and nobody else does.
func TestCancelAgain(t *testing.T) {
	inBubble(t, func(w *world) {
		w.platform.Took = 10 * time.Minute
		w.platform.Break(vm(0), remediationtest.NoCancel)
		moved := w.submit("ann", w.move(0, 2))[0]
		w.after(10 * time.Second)
		w.cancel(moved)
		w.after(time.Minute)
		w.cancels(1)
		w.cancel(moved)
		w.after(time.Minute)
		w.cancels(2)
		if a := w.stored(moved); a.State != remediation.Started || a.CancelError == "" {
			t.Errorf("refused twice: %+v", a)
		}
	})
}

// slowCall takes its time to answer the call.
type slowCall struct{ remediationtest.API }

func (s slowCall) Migrate(a remediation.Action) (string, error) {
	ref, err := s.API.Migrate(a)
	time.Sleep(10 * time.Second)
	return ref, err
}

// TestCancelBeforeTheTaskIsKnown: the request waits for the task, also if it has to be looked for.
func TestCancelBeforeTheTaskIsKnown(t *testing.T) {
	for _, fault := range []remediationtest.Fault{"", remediationtest.LosesAnswer} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.options.Executors["vc"] = remediationtest.Executor{API: slowCall{w.platform}, Every: time.Second}
			w.start()
			defer func() { w.stop() }()
			w.platform.Break(vm(0), fault)
			moved := w.submit("ann", w.move(0, 2))[0]
			w.after(5 * time.Second)
			if a := w.cancel(moved); a.State != remediation.Starting {
				t.Errorf("asked for when it was %s", a.State)
			}
			w.after(2 * time.Second)
			w.cancels(0)
			w.after(time.Minute)
			w.want(moved, remediation.RolledBack, "bob cancelled it: cancelled by a user")
			w.calls(moved, 1)
			w.cancels(1)
		})
	}
}

// TestCancelIsRefused where it cannot be done.
func TestCancelIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.options.Executors["vc"] = struct{ remediation.Executor }{w.options.Executors["vc"]} // and no Canceler
		w.start()
		defer func() { w.stop() }()
		moved := w.submit("ann", w.move(0, 2))[0]
		w.after(10 * time.Second)
		w.cannotCancel(moved, "source vc: nothing is known that gives up a migration under way")
		if _, err := w.engine.Cancel(w.Context(), "nobody", "bob", ""); !errors.Is(err, remediation.ErrRefused) {
			t.Errorf("cancel of nothing: %v", err)
		}
		w.platform.Break(vm(1), remediationtest.LosesCall)
		unknown := w.submit("ann", w.otherTip(1, 3))[0]
		w.after(5 * time.Minute)
		w.want(moved, remediation.Done, "")
		w.want(unknown, remediation.Unknown, "nobody can tell")
		w.cannotCancel(unknown, "nobody knows whether it still runs")
		w.cannotCancel(moved, "it is done")
		w.cancels(0)
	})
}

// TestCancelAndRestart: a request that was stored is sent by the next agent, one that may have been sent is not sent again.
func TestCancelAndRestart(t *testing.T) {
	for _, sent := range []bool{false, true} {
		inBubble(t, func(w *world) {
			w.platform.Took = 10 * time.Minute
			w.platform.Break(vm(0), remediationtest.LateCancel)
			moved := w.submit("ann", w.move(0, 2))[0]
			w.after(10 * time.Second)
			if sent {
				w.cancel(moved)
				w.after(time.Second)
				w.stop()
			} else {
				w.stop()
				w.cancel(moved) // nobody runs to send it
			}
			if a := w.stored(moved); a.CancelSentAt.IsZero() == sent {
				t.Fatalf("sent is %v, and the journal has %+v", sent, a)
			}
			w.start()
			w.after(time.Minute)
			w.cancels(1)
			w.after(20 * time.Minute)
			w.want(moved, remediation.Done, "")
			w.calls(moved, 1)
		})
	}
}
