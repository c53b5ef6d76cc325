// Package rules turns packs and a snapshot into tips.
// It promises pure evaluation: the same packs, snapshot and time give the same findings; a missing input is unknown, never 0.
// It must not import remediation, store, web, app or a platform.
package rules

import (
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/protip/protip/internal/inventory"
)

// State is where a tip stands. lifecycle.go draws how it gets there.
type State string

// The states of a tip.
const (
	Pending    State = "pending"     // the condition holds, but not yet for the rule's for
	Active     State = "active"      // it has held long enough; somebody should act
	InProgress State = "in_progress" // its remedy runs
	Resolved   State = "resolved"    // over; why is in ResolvedWhy
	Dismissed  State = "dismissed"   // a person said: not until DismissedUntil
	Unknown    State = "unknown"     // an input is missing or stale; Was is what it would be
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
	ID         string       `json:"id"`      // short, stable hash of pack, rule and object
	Episode    int          `json:"episode"` // 1 the first time the condition came, one more each time it came back
	Pack       string       `json:"pack"`
	PackSHA256 string       `json:"pack_sha256"`
	Rule       string       `json:"rule"`
	Severity   Severity     `json:"severity"`
	Object     inventory.ID `json:"object"`
	Name       string       `json:"name"` // of the object, as the platform has it: quote it before a terminal sees it
	Cluster    inventory.ID `json:"cluster,omitzero"`
	Place      *Place       `json:"place,omitempty"` // of a service, where it runs; nil while that is not known
	DRS        bool         `json:"drs,omitempty"`   // the cluster's own DRS is fully automatic and may act by itself
	State      State        `json:"state"`
	Was        State        `json:"was,omitempty"` // while unknown: what the tip was, and will be again
	Summary    string       `json:"summary"`       // one line, without control characters
	Cause      string       `json:"cause"`         // the rule's condition with the pack's thresholds in place
	Evidence   []Evidence   `json:"evidence"`
	Remedy     Remedy       `json:"remedy"`

	Since          time.Time `json:"since"`                    // when the condition began to hold, without a gap in the data
	ActiveAt       time.Time `json:"active_at,omitzero"`       // when it had held for the rule's for
	ResolvedAt     time.Time `json:"resolved_at,omitzero"`     //
	ResolvedWhy    string    `json:"resolved_why,omitempty"`   //
	UpdatedAt      time.Time `json:"updated_at"`               // last evaluation that knew its inputs
	NoDataSince    time.Time `json:"no_data_since,omitzero"`   // when its oldest missing input was last seen, while unknown
	DismissedUntil time.Time `json:"dismissed_until,omitzero"` // also over the end of an episode: see Tip.Dismiss

	// Previous is the episode before, kept while this one is pending: a condition that goes before its time never was.
	Previous *Tip `json:"previous,omitempty"`
}

// Place is whose guest a service runs in, and on which host that is. It does not change.
type Place struct {
	VM       inventory.ID `json:"vm"`
	VMName   string       `json:"vm_name"`
	Host     inventory.ID `json:"host,omitzero"`
	HostName string       `json:"host_name,omitempty"`
}

// Restricts reports whether the tip keeps its host from taking anything new: from when it is active until it is resolved or dismissed,
// and also while nothing is known of it.
func (t Tip) Restricts() bool {
	s := t.standing()
	return t.Remedy.Restricts() && (s == Active || s == InProgress)
}

// Evidence is a number the rule looked at.
type Evidence struct {
	Name  string    `json:"name"` // as the pack calls it: host.cpu_usage_ratio
	Value float64   `json:"value"`
	Unit  string    `json:"unit"` // empty where it is not known
	At    time.Time `json:"at"`
	Query string    `json:"query,omitempty"` // the PromQL it is of, if it was computed
}

// TipID is the ID of the tip that a rule of a pack has of an object: 12 hex digits that stay the same for ever.
func TipID(pack, rule string, object inventory.ID) string {
	sum := sha256.Sum256([]byte(pack + "\x00" + rule + "\x00" + object.String()))
	return hex.EncodeToString(sum[:6])
}
