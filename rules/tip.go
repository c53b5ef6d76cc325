// Package rules turns packs and a snapshot into tips.
// It promises pure evaluation: the same packs, snapshot and time give the same findings; a missing input is unknown, never 0.
// It must not import remediation, store, web, app or a platform.
package rules

import (
	"time"

	"github.com/protip/protip/internal/inventory"
)

// State is where a tip stands.
//
//	(when holds) -> pending --for--> active -> in_progress (its remedy runs)
//	                   |               |            |
//	                   +--- when no ---+-- clear ---+--> resolved
//	active <-> unknown (an input is missing or stale); active <-> dismissed (until a time)
type State string

// The states of a tip.
const (
	Pending    State = "pending"
	Active     State = "active"
	InProgress State = "in_progress"
	Resolved   State = "resolved"
	Dismissed  State = "dismissed"
	Unknown    State = "unknown"
)

// Severity is how bad it is, in Prometheus' usual words.
type Severity string

// Severities.
const (
	Critical Severity = "critical"
	Warning  Severity = "warning"
	Info     Severity = "info"
)

// Tip is what should be done about one object, and why. It is keyed by rule and object: a repeat updates it.
type Tip struct {
	ID         string       `json:"id"` // short, stable hash of pack, rule and object
	Pack       string       `json:"pack"`
	PackSHA256 string       `json:"pack_sha256"`
	Rule       string       `json:"rule"`
	Severity   Severity     `json:"severity"`
	Object     inventory.ID `json:"object"`
	Name       string       `json:"name"` // of the object
	Cluster    inventory.ID `json:"cluster,omitzero"`
	State      State        `json:"state"`
	Summary    string       `json:"summary"`
	Evidence   []Evidence   `json:"evidence"`
	Remedy     Remedy       `json:"remedy"`

	Since          time.Time `json:"since"`                    // when the condition began to hold
	ActiveAt       time.Time `json:"active_at,omitzero"`       // when it had held for the rule's for
	ResolvedAt     time.Time `json:"resolved_at,omitzero"`     //
	UpdatedAt      time.Time `json:"updated_at"`               // last evaluation that knew its inputs
	NoDataSince    time.Time `json:"no_data_since,omitzero"`   // when its oldest missing input was last seen, while unknown
	DismissedUntil time.Time `json:"dismissed_until,omitzero"` //
}

// Evidence is a number the rule looked at.
type Evidence struct {
	Name  string    `json:"name"`
	Value float64   `json:"value"`
	Unit  string    `json:"unit"`
	At    time.Time `json:"at"`
}

// Remedy is what a rule proposes.
type Remedy struct {
	Action string `json:"action"` // rebalance-host | migrate | none (more to come)
}
