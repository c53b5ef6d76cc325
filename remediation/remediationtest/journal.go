// Package remediationtest holds what tests of remediation share: the conformance suite of journals, and a hypervisor to act on.
// It promises that a journal which passes is as durable and as strict as the engine needs.
// It must be imported by tests only.
package remediationtest

import (
	"errors"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/remediation"
)

// JournalAndMemory is what a store gives an engine.
type JournalAndMemory interface {
	remediation.Journal
	remediation.Memory
}

// Reopen opens the same store again and again; the function it returns closes it.
type Reopen func(t *testing.T) (JournalAndMemory, func())

// Journal holds a store against the promises of remediation.Journal and remediation.Memory. fresh is a new, empty store.
func Journal(t *testing.T, fresh func(t *testing.T) Reopen) {
	tests := map[string]func(*testing.T, Reopen){
		"create once":          createOnce,
		"whole action":         wholeAction,
		"step and history":     stepAndHistory,
		"fenced":               fenced,
		"one of many wins":     oneWins,
		"filter":               filter,
		"pauses":               pauses,
		"foreign moves":        foreignMoves,
		"breaker":              breaker,
		"unknown is not found": unknownAction,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { test(t, fresh(t)) })
	}
}

var day = time.Date(2026, 3, 4, 3, 0, 0, 0, time.UTC)

// Sample is an action with every field set.
func Sample(id string) remediation.Action {
	vm := func(kind inventory.Kind, ref string) inventory.ID {
		return inventory.ID{Source: "vc-1", Kind: kind, Ref: ref}
	}
	return remediation.Action{
		ID: id, PlanID: "plan", Order: 1, Wave: 2, TipID: "tip", Kind: remediation.LiveMigration,
		Cluster: vm(inventory.KindCluster, "c1"), VM: vm(inventory.KindVM, "vm-1"), VMName: "web \"1\"\n", From: vm(inventory.KindHost, "h1"),
		Queued: true, CancelBy: "bob", CancelAt: day.Add(6), CancelSentAt: day.Add(7), CancelError: "too late",
		FromName: "esx-1", To: vm(inventory.KindHost, "h2"), ToName: "esx-2", For: "relief", Why: "4 stars", Webhook: "pager", By: "ann", DryRun: true, Settle: time.Minute, CopyBytes: 4 << 30,
		State: remediation.Planned, Fence: 3, Owner: "agent", TaskRef: "task-1", Progress: 0.5, Error: "none", Fault: true, Verified: true,
		Outcome: remediation.NoEffect, PlannedAt: day, ApprovedAt: day.Add(1), StartingAt: day.Add(2), VerifyingAt: day.Add(3),
		EndedAt: day.Add(4), MeasuredAt: day.Add(5),
	}
}

func createOnce(t *testing.T, reopen Reopen) {
	j, done := reopen(t)
	defer done()
	must(t, j.Create(t.Context(), Sample("a")))
	again := Sample("a")
	again.VMName = "other"
	if j.Create(t.Context(), again) == nil {
		t.Error("a second action of the same ID was taken")
	}
	if got := one(t, j, "a"); got.VMName != Sample("a").VMName {
		t.Errorf("the second create changed the action: %+v", got)
	}
}

func wholeAction(t *testing.T, reopen Reopen) {
	want := Sample("a")
	v := reflect.ValueOf(want)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Fatalf("the sample leaves %s empty", v.Type().Field(i).Name)
		}
	}
	j, done := reopen(t)
	must(t, j.Create(t.Context(), want))
	done()
	j, done = reopen(t)
	defer done()
	if got := one(t, j, "a"); !reflect.DeepEqual(got, want) {
		t.Errorf("came back as\n%+v, want\n%+v", got, want)
	}
}

func stepAndHistory(t *testing.T, reopen Reopen) {
	j, done := reopen(t)
	a := Sample("a")
	must(t, j.Create(t.Context(), a))
	b := a
	b.State, b.Progress = remediation.Approved, 0
	must(t, j.Step(t.Context(), a, b, day.Add(time.Minute), "ann approved"))
	c := b
	c.Progress = 0.7
	must(t, j.Step(t.Context(), b, c, day.Add(2*time.Minute), ""))
	d := c
	d.Fence++
	must(t, j.Step(t.Context(), c, d, day.Add(3*time.Minute), ""))
	done()
	j, done = reopen(t)
	defer done()
	if got := one(t, j, "a"); !reflect.DeepEqual(got, d) {
		t.Errorf("came back as\n%+v, want\n%+v", got, d)
	}
	got, err := j.History(t.Context(), "a")
	must(t, err)
	for i := range got {
		got[i].At = got[i].At.UTC()
	}
	want := []remediation.Transition{
		{To: remediation.Planned, Fence: 3, At: day},
		{From: remediation.Planned, To: remediation.Approved, Fence: 3, At: day.Add(time.Minute), Note: "ann approved"},
		{From: remediation.Approved, To: remediation.Approved, Fence: 4, At: day.Add(3 * time.Minute)},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("history\n%+v, want\n%+v", got, want)
	}
}

func fenced(t *testing.T, reopen Reopen) {
	j, done := reopen(t)
	defer done()
	a := Sample("a")
	must(t, j.Create(t.Context(), a))
	for name, change := range map[string]func(*remediation.Action){
		"older fence":   func(p *remediation.Action) { p.Fence-- },
		"newer fence":   func(p *remediation.Action) { p.Fence++ },
		"another state": func(p *remediation.Action) { p.State = remediation.Approved },
		"not there":     func(p *remediation.Action) { p.ID = "b" },
	} {
		prev := a
		change(&prev)
		next := prev
		next.State = remediation.Done
		if err := j.Step(t.Context(), prev, next, day, "no"); !errors.Is(err, remediation.ErrFenced) {
			t.Errorf("%s: error %v, want ErrFenced", name, err)
		}
	}
	if got := one(t, j, "a"); !reflect.DeepEqual(got, a) {
		t.Errorf("a fenced step changed the action: %+v", got)
	}
	if h, err := j.History(t.Context(), "a"); err != nil || len(h) != 1 {
		t.Errorf("a fenced step left a line in the history: %+v, %v", h, err)
	}
	next := a
	next.ID = "c"
	if j.Step(t.Context(), a, next, day, "") == nil {
		t.Error("a step from one action to another was taken")
	}
}

func oneWins(t *testing.T, reopen Reopen) {
	j, done := reopen(t)
	defer done()
	a := Sample("a")
	must(t, j.Create(t.Context(), a))
	var wins sync.Map
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			next := a
			next.Fence, next.State = a.Fence+1, remediation.Claimed
			switch err := j.Step(t.Context(), a, next, day, ""); {
			case err == nil:
				wins.Store(i, true)
			case !errors.Is(err, remediation.ErrFenced):
				t.Errorf("error %v", err)
			}
		})
	}
	wg.Wait()
	n := 0
	wins.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d claims of the same action were taken, want 1", n)
	}
}

func filter(t *testing.T, reopen Reopen) {
	j, done := reopen(t)
	defer done()
	for i, id := range []string{"a", "b", "c"} {
		a := Sample(id)
		a.PlannedAt = day.Add(time.Duration(i) * time.Hour)
		a.TipID = "tip-" + id
		a.State = []remediation.State{remediation.Done, remediation.Unknown, remediation.Approved}[i]
		must(t, j.Create(t.Context(), a))
	}
	for name, tt := range map[string]struct {
		f    remediation.Filter
		want string
	}{
		"all, newest first": {remediation.Filter{}, "cba"},
		"id":                {remediation.Filter{ID: "b"}, "b"},
		"tip":               {remediation.Filter{TipID: "tip-a"}, "a"},
		"states":            {remediation.Filter{States: []remediation.State{remediation.Done, remediation.Approved}}, "ca"},
		"since":             {remediation.Filter{Since: day.Add(time.Hour)}, "cb"},
		"limit":             {remediation.Filter{Limit: 1}, "c"},
		"together":          {remediation.Filter{Since: day.Add(time.Hour), States: []remediation.State{remediation.Unknown}, Limit: 5}, "b"},
		"none":              {remediation.Filter{ID: "x"}, ""},
	} {
		actions, err := j.Actions(t.Context(), tt.f)
		must(t, err)
		got := ""
		for _, a := range actions {
			got += a.ID
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func pauses(t *testing.T, reopen Reopen) {
	j, done := reopen(t)
	all := remediation.Pause{By: "ann", Why: "night", At: day}
	one := remediation.Pause{Source: "vc-1", By: "bob", At: day}
	must(t, j.SavePause(t.Context(), all))
	must(t, j.SavePause(t.Context(), one))
	one.By = "eve"
	must(t, j.SavePause(t.Context(), one))
	done()
	j, done = reopen(t)
	defer done()
	got, err := j.Pauses(t.Context())
	must(t, err)
	if want := []remediation.Pause{all, one}; !reflect.DeepEqual(got, want) {
		t.Errorf("pauses %+v, want %+v", got, want)
	}
	must(t, j.DropPause(t.Context(), ""))
	must(t, j.DropPause(t.Context(), "never paused"))
	got, err = j.Pauses(t.Context())
	must(t, err)
	if want := []remediation.Pause{one}; !reflect.DeepEqual(got, want) {
		t.Errorf("pauses %+v, want %+v", got, want)
	}
}

func foreignMoves(t *testing.T, reopen Reopen) {
	j, done := reopen(t)
	a := Sample("a")
	other := a.VM
	other.Ref = "vm-2"
	must(t, j.SaveForeignMove(t.Context(), remediation.ForeignMove{VM: a.VM, From: a.From, To: a.To, At: day}))
	must(t, j.SaveForeignMove(t.Context(), remediation.ForeignMove{VM: other, From: a.From, To: a.To, At: day.Add(time.Minute)}))
	last := remediation.ForeignMove{VM: a.VM, Name: "web", From: a.To, To: a.From, At: day.Add(time.Hour)}
	must(t, j.SaveForeignMove(t.Context(), last))
	done()
	j, done = reopen(t)
	defer done()
	got, err := j.ForeignMoves(t.Context(), day)
	must(t, err)
	if len(got) != 2 || !reflect.DeepEqual(got[0], last) {
		t.Errorf("moves %+v, want the last one of each VM, newest first", got)
	}
	if got, err = j.ForeignMoves(t.Context(), day.Add(30*time.Minute)); err != nil || len(got) != 1 {
		t.Errorf("moves since %+v, %v", got, err)
	}
}

func breaker(t *testing.T, reopen Reopen) {
	j, done := reopen(t)
	if b, err := j.Breaker(t.Context()); err != nil || b != (remediation.Breaker{}) {
		t.Errorf("at first: %+v, %v", b, err)
	}
	must(t, j.SaveBreaker(t.Context(), remediation.Breaker{Open: true, Why: "3 in a row", Since: day}))
	want := remediation.Breaker{By: "ann", Since: day.Add(time.Hour)}
	must(t, j.SaveBreaker(t.Context(), want))
	done()
	j, done = reopen(t)
	defer done()
	if b, err := j.Breaker(t.Context()); err != nil || b != want {
		t.Errorf("breaker %+v, %v, want %+v", b, err, want)
	}
}

func unknownAction(t *testing.T, reopen Reopen) {
	j, done := reopen(t)
	defer done()
	if h, err := j.History(t.Context(), "x"); err != nil || len(h) != 0 {
		t.Errorf("history of no action: %v, %v", h, err)
	}
}

func one(t *testing.T, j remediation.Journal, id string) remediation.Action {
	t.Helper()
	got, err := j.Actions(t.Context(), remediation.Filter{ID: id})
	must(t, err)
	if len(got) != 1 {
		t.Fatalf("%d actions of ID %s, want 1", len(got), id)
	}
	return got[0]
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
