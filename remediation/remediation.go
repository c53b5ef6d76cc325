// Package remediation carries out what tips ask for: plan, policy, queue, journal, outcome.
// It promises that nothing is sent to a platform twice, that every step is in the journal before it is taken, and that the
// platform's word is never taken for success. It must not import rules: the app passes values.
package remediation

import (
	"context"
	"errors"
	"time"

	"github.com/protip/protip/internal/inventory"
)

// State is where an action stands.
//
//	planned -> approved -> claimed -> starting -> started -> verifying -> done
//	   |          |           |          |           |           |
//	   +----------+-----------+----------+-----------+-----------+-> failed | rolled_back | unknown
//	   |          |
//	   +----------+-> withdrawn
type State string

// The states of an action. Done, Withdrawn, Failed, RolledBack and Unknown are final; Unknown freezes its VM until a person resolves it.
const (
	Planned    State = "planned"     // proposed, nobody agreed yet
	Approved   State = "approved"    // a person or the policy agreed; waits for its turn
	Claimed    State = "claimed"     // an agent holds the lease and the fencing token
	Starting   State = "starting"    // intent is on disk; the call may or may not have reached the platform
	Started    State = "started"     // the platform's own task is known
	Verifying  State = "verifying"   // the platform says it is done; waiting to see the VM on its target
	Done       State = "done"        // seen on its target
	Withdrawn  State = "withdrawn"   // not needed any more, or cancelled in time; nothing was sent
	Failed     State = "failed"      // not carried out; the VM is where it was or where the error says
	RolledBack State = "rolled_back" // the platform gave up and left the VM on its source
	Unknown    State = "unknown"     // cannot be decided by reading the platform
)

// Final reports whether nothing will happen any more by itself.
func (s State) Final() bool {
	return s == Done || s == Withdrawn || s == Failed || s == RolledBack || s == Unknown
}

// Kind is what an action does.
type Kind string

// Kinds of actions.
const (
	LiveMigration Kind = "live_migration" // moves a running VM to another host without stopping it
	// QuickMigration saves a running VM, moves it and restores it: it is down meanwhile. Only a person asks for one.
	QuickMigration Kind = "quick_migration"
	// WebhookCall tells something outside of a tip. It moves nothing: VM is then the object of the tip, whatever its kind, and ToName what
	// is called. Whether it was taken is known by its answer alone: without one the action is unknown, and nothing calls again.
	WebhookCall Kind = "webhook"
)

// ByPolicy is who approved an action that no person asked for.
const ByPolicy = "automatic"

// Outcome says whether the tip's own condition was gone after the settle time.
type Outcome string

// Outcomes of an action that is done.
const (
	Recovered Outcome = "recovered" // the tip's clear condition holds again
	NoEffect  Outcome = "no_effect" // the tip's condition still holds
	Worse     Outcome = "worse"     // it still holds, and the same rule now holds on a target too
)

// Action is one move, from proposal to outcome. It is a value: the journal's copy is the truth.
type Action struct {
	ID     string `json:"id"`
	PlanID string `json:"plan_id"` // shared by the moves submitted together
	Order  int    `json:"order"`   // within the plan, from 0
	// Wave is the step of the plan, from 0: it begins when all moves of the waves before have ended.
	Wave     int          `json:"wave,omitempty"`
	TipID    string       `json:"tip_id,omitempty"`
	Cluster  inventory.ID `json:"cluster,omitzero"`
	Kind     Kind         `json:"kind"`
	VM       inventory.ID `json:"vm"`
	VMName   string       `json:"vm_name"`
	From     inventory.ID `json:"from"`
	FromName string       `json:"from_name"`
	To       inventory.ID `json:"to"`
	ToName   string       `json:"to_name"`
	Webhook  string       `json:"webhook,omitempty"` // the name of what is called
	For      string       `json:"for,omitempty"`     // what the move is for, as the plan says: relief, evacuation, spread, freeing, share
	Why      string       `json:"why"`               // the plan's reasons, in words
	// CopyBytes is what the plan expects it to copy; 0 is not known.
	CopyBytes float64 `json:"copy_bytes,omitempty"`
	By        string  `json:"by"` // who approved: a user's name, or "automatic"
	DryRun    bool    `json:"dry_run,omitempty"`
	// Settle is how long after the move the tip's condition measures the past: longest range + for + two cycles.
	Settle time.Duration `json:"settle,omitempty"`

	State    State   `json:"state"`
	Fence    int64   `json:"fence"`              // grows with every claim; a step with an older one is refused
	Owner    string  `json:"owner,omitempty"`    // the agent that claimed it last
	TaskRef  string  `json:"task_ref,omitempty"` // the platform's own task
	Queued   bool    `json:"queued,omitempty"`   // the platform took it and has it wait for its turn
	Progress float64 `json:"progress"`           // 0..1, as the platform tells
	Error    string  `json:"error,omitempty"`
	// Fault says that the platform was asked and the VM did not come to its target by it, or that nobody knows; false if
	// protip itself held the action back. Faults in a row open the breaker.
	Fault    bool    `json:"fault,omitempty"`
	Verified bool    `json:"verified"` // the inventory showed the VM on its target
	Outcome  Outcome `json:"outcome,omitempty"`
	// A person's wish to stop it. CancelSentAt is written before the platform is asked; until then it was not asked.
	CancelBy     string    `json:"cancel_by,omitempty"` // who asked last; empty: nobody
	CancelAt     time.Time `json:"cancel_at,omitzero"`
	CancelSentAt time.Time `json:"cancel_sent_at,omitzero"`
	CancelError  string    `json:"cancel_error,omitempty"` // why the platform does not stop it

	// All times are of protip's clock, which runs faster than the platform's in a demo.
	PlannedAt   time.Time `json:"planned_at"`
	ApprovedAt  time.Time `json:"approved_at,omitzero"`
	StartingAt  time.Time `json:"starting_at,omitzero"`  // before the call; zero: nothing was ever sent
	VerifyingAt time.Time `json:"verifying_at,omitzero"` // when the platform said it was finished
	EndedAt     time.Time `json:"ended_at,omitzero"`     // when it reached a final state
	MeasuredAt  time.Time `json:"measured_at,omitzero"`  // when the outcome was known
}

// Sent reports whether a migration may have reached the platform.
func (a Action) Sent() bool { return !a.StartingAt.IsZero() && !a.DryRun }

// Progress is what an executor tells while it works.
type Progress struct {
	TaskRef string  // the platform's task; set from the first report on
	Ratio   float64 // 0..1
	Queued  bool    // the platform has it wait for its turn
}

// Executor carries out actions on one source. Its credential may act; the collector's may not.
type Executor interface {
	// Check asks the platform whether the action could be done and changes nothing. ErrNoOp if the VM is there already.
	// Nothing was sent yet: whatever it returns ends the action, harmlessly.
	Check(ctx context.Context, a Action) error
	// Do carries the action out and returns when the platform says it is finished. It sends at most one migration call, and
	// none if a.TaskRef is set: it then waits for that task. report is called with the TaskRef as soon as the platform gave
	// it, before anything else is waited for; its error (the journal did not take it) ends the wait but not the task.
	// An error that wraps ErrUndecided, a context error or a broken connection says that the answer was lost: the engine
	// then reads with Find. Any other error is the platform's own word that it refused the call or failed the task.
	Do(ctx context.Context, a Action, report func(Progress) error) error
	// Find reads where the VM is and which migration tasks the platform has for it since a.StartingAt, and changes nothing.
	// If a.TaskRef is set, that task is among them as long as the platform remembers it.
	Find(ctx context.Context, a Action) (Sighting, error)
}

// Canceler is an Executor whose platform can give up a migration that runs or is queued.
type Canceler interface {
	// Cancel asks the platform to give up the migration of a.TaskRef, which is set, and returns when it took the request. That says
	// nothing of the end: the VM may arrive all the same, and Do and Find tell. If that task does not run any more, or the platform
	// refuses, it is an error and nothing was changed. Errors of a lost answer are as those of Do.
	// It may be called while Do waits for the task, and again.
	Cancel(ctx context.Context, a Action) error
}

// Sighting is what a platform knows of an action's VM.
type Sighting struct {
	Host  inventory.ID // where the VM is now; zero if the platform says that there is no such VM
	Down  string       // why it does not run there, in a word; empty if it runs, or moves, or the platform does not tell
	Tasks []Task       // migrations of the VM, newest first
}

// Task is a platform's own record of a migration.
type Task struct {
	Ref   string
	State TaskState
	To    inventory.ID // its target, zero if the platform does not tell
	Error string
}

// TaskState is a platform task's state.
type TaskState string

// Task states.
const (
	TaskRunning   TaskState = "running" // or queued
	TaskSucceeded TaskState = "succeeded"
	TaskFailed    TaskState = "failed"
)

// Errors that decide what happens next.
var (
	ErrNoOp      = errors.New("already so")
	ErrUndecided = errors.New("the platform's answer was lost")
	ErrFenced    = errors.New("the journal holds a newer step of this action")
	// ErrNotYet says that what has to be known before a start comes by itself: the agent has just begun to watch.
	ErrNotYet = errors.New("not known yet")
	// ErrNotNeeded says that what a move was planned for is so without it.
	ErrNotNeeded = errors.New("not needed any more")
)

// Journal is the durable record of actions. Every method that writes returns after its change is on disk (fsync).
type Journal interface {
	// Create stores a new action. A second one with the same ID is an error.
	Create(ctx context.Context, a Action) error
	// Step replaces the stored action by next if it still stands as prev does (state and fence), else ErrFenced. In the same
	// transaction it appends the transition, with the time at and the note, to the action's history; a step that changes
	// neither state nor fence and has no note (progress, say) leaves none.
	Step(ctx context.Context, prev, next Action, at time.Time, note string) error
	// Actions are the stored ones that the filter takes, newest first.
	Actions(ctx context.Context, f Filter) ([]Action, error)
	// History is what one action went through, oldest first.
	History(ctx context.Context, id string) ([]Transition, error)
}

// Filter picks actions; its zero value takes all.
type Filter struct {
	ID, TipID string
	States    []State
	Since     time.Time // planned at or after
	Limit     int       // 0 = no limit
}

// Transition is one line of an action's history.
type Transition struct {
	From  State     `json:"from,omitempty"` // empty for the first
	To    State     `json:"to"`
	Fence int64     `json:"fence"`
	At    time.Time `json:"at"`
	Note  string    `json:"note,omitempty"`
}

// Memory is what the engine remembers besides actions. Every method that writes returns after its change is on disk.
type Memory interface {
	// SavePause stores a pause, replacing one of the same source. DropPause forgets it.
	SavePause(ctx context.Context, p Pause) error
	DropPause(ctx context.Context, source string) error
	Pauses(ctx context.Context) ([]Pause, error)
	// SaveForeignMove stores the VM's last move that was not ours.
	SaveForeignMove(ctx context.Context, m ForeignMove) error
	// ForeignMoves are the ones at or after since, newest first.
	ForeignMoves(ctx context.Context, since time.Time) ([]ForeignMove, error)
	// SaveBreaker replaces the breaker's state; Breaker is the zero one if none was ever saved.
	SaveBreaker(ctx context.Context, b Breaker) error
	Breaker(ctx context.Context) (Breaker, error)
}

// Pause stops all acting on one source, or on all if Source is empty, until a person resumes.
type Pause struct {
	Source string    `json:"source,omitempty"`
	By     string    `json:"by"`
	Why    string    `json:"why,omitempty"`
	At     time.Time `json:"at"`
}

// ForeignMove is a migration that protip saw and did not order: the platform's own balancer, or a person elsewhere.
type ForeignMove struct {
	VM   inventory.ID `json:"vm"`
	Name string       `json:"name"`
	From inventory.ID `json:"from"`
	To   inventory.ID `json:"to"`
	At   time.Time    `json:"at"`
	// Against is how many of protip's own moves of the VM somebody else undid, and AgainstAt when that was last.
	Against   int       `json:"against,omitempty"`
	AgainstAt time.Time `json:"against_at,omitzero"`
}

// Breaker is whether actions that no person asked for may start.
type Breaker struct {
	Open  bool      `json:"open"`
	Why   string    `json:"why,omitempty"`
	By    string    `json:"by,omitempty"` // who closed it
	Since time.Time `json:"since,omitzero"`
}
