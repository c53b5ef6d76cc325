package web

import (
	"context"
	"errors"
	"time"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/placement"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// Agent is what this package shows and steers. Its methods may be called from any goroutine. An error that wraps one of
// this package's says how the caller fares; any other is the agent's own fault.
type Agent interface {
	Prober
	FleetReader
	TipReader
	ActionReader
	ActionOperator
	Placer
	Planner
	TipOperator
	Steerer
	Auditor
	PackReader
	Reporter
}

// Prober says how the agent itself is.
type Prober interface {
	// Ready is nil once every source was tried and the engine has recovered its journal; else it says what is awaited.
	Ready(ctx context.Context) error
	Status(ctx context.Context) (Status, error)
}

// FleetReader gives the fleet as it is now, the values of samples that grew too old already taken (see Fleet.Expire).
type FleetReader interface {
	Snapshot() *inventory.Snapshot
}

// TipReader reads tips.
type TipReader interface {
	// Tips are all the agent knows, resolved ones of late among them, in no order.
	Tips(ctx context.Context) ([]rules.Tip, error)
	// Tip is the one of that ID, or ErrNotFound.
	Tip(ctx context.Context, id string) (rules.Tip, error)
}

// ActionReader reads the journal, newest first.
type ActionReader interface {
	Actions(ctx context.Context, f remediation.Filter) ([]remediation.Action, error)
}

// ActionOperator stops an action, and says what became of one that cannot be decided by reading the platform.
type ActionOperator interface {
	// Cancel withdraws an action that was not sent, or has the platform asked to give its migration up; it does not wait for the end.
	// What is over, or cannot be stopped, is ErrConflict.
	Cancel(ctx context.Context, by By, action string) (remediation.Action, error)
	// Resolve ends an unknown action by a person's word, as done or failed, and frees its VM.
	Resolve(ctx context.Context, by By, action string, as remediation.State) (remediation.Action, error)
}

// Placer rates hosts, and tells what clusters can bear to lose.
type Placer interface {
	// Place rates every host that could take a VM, best first. The VM exists, and has an ID, or is only described.
	Place(ctx context.Context, vm placement.VMSpec) ([]placement.Rating, error)
	// Reserves are the last answers to the reserves that are asked for, one of each cluster, in no order.
	Reserves(ctx context.Context) ([]Reserve, error)
}

// TipOperator does to a tip what a person asks. What the tip's state or the agent's config forbids is ErrConflict.
type TipOperator interface {
	// Implement plans the tip's remedy, approves it in the person's name and returns its actions. It does not wait for them.
	// Without downtime, a plan that takes a VM down is ErrConflict and says which.
	Implement(ctx context.Context, by By, tip string, downtime bool) ([]remediation.Action, error)
	// Dismiss hides the tip and keeps protip from acting on it for d of the agent's time.
	Dismiss(ctx context.Context, by By, tip string, d time.Duration) (rules.Tip, error)
	Undismiss(ctx context.Context, by By, tip string) (rules.Tip, error)
}

// Steerer stops, restarts and reconfigures the agent's acting.
type Steerer interface {
	// Pause keeps anything new from being sent to the source, or to any if source is empty. It survives restarts.
	Pause(ctx context.Context, by By, source string) error
	// Resume lifts the pause of the source, or every pause if source is empty.
	Resume(ctx context.Context, by By, source string) error
	// Reload reads the config again. On error the old one stays in force.
	Reload(ctx context.Context, by By) error
}

// By is on whose word something is done, for the audit.
type By struct {
	Who    string // "operator token"
	Remote string // address and port the request came from
	Why    string // in the person's words; may be empty
}

// Errors of an Agent that are the caller's to deal with.
var (
	ErrNotFound    = errors.New("not found")
	ErrConflict    = errors.New("not now") // refused by the state of things or by the config; the text says by what
	ErrInvalid     = errors.New("not understood")
	ErrUnavailable = errors.New("not yet") // the agent has not recovered, or a source has not answered
)

// Mode says how far protip acts.
type Mode string

// Modes.
const (
	Off       Mode = "off"
	Manual    Mode = "manual"    // a person implements
	Automatic Mode = "automatic" // at least one rule may act by itself
)

// Status is the agent at one moment.
type Status struct {
	Version       string    `json:"version"`
	Now           time.Time `json:"now"` // by protip's clock, which a demo may run fast
	StartedAt     time.Time `json:"started_at"`
	Remediation   Mode      `json:"remediation"`
	DryRun        bool      `json:"dry_run"`
	Paused        bool      `json:"paused"`                 // everything is
	PausedSources []string  `json:"paused_sources"`         // these are, whatever Paused says
	BreakerOpen   string    `json:"breaker_open,omitempty"` // why automatic acting stopped itself; empty if it did not
	ReloadedAt    time.Time `json:"reloaded_at,omitzero"`   // last successful load of the config
	ReloadError   string    `json:"reload_error,omitempty"` // why the last load failed; empty if it did not
}
