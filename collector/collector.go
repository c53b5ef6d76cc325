// Package collector holds the contract of a source of inventory and the supervisor that keeps sources running.
// It promises that one dead source costs the others nothing and that start-up never fails because a target is down.
// It and the packages below it must not import protip's rules, remediation, store, web or app: watching cannot act.
package collector

import (
	"context"
	"errors"

	"github.com/protip/protip/internal/inventory"
)

// Source follows one vCenter, failover cluster, libvirt cluster or list of guests.
//
// Watch connects, lists everything (from a delta with Begin to one with Synced), then emits changes as they happen and
// samples at each interval, until ctx is done (it returns ctx.Err()) or the platform no longer answers (it returns why).
// It is called again after it returned, from one goroutine at a time. emit may be called from several goroutines at once and
// returns when the delta is applied. Every sample carries the time it was true, by protip's clock and not the platform's.
// What fails in part (one class of counters, say) is reported to the Observer and costs only its own samples.
type Source interface {
	Watch(ctx context.Context, emit func(inventory.Delta)) error
}

// Errors of Watch that trying again soon would not mend, and might make worse.
var (
	// ErrCredentials says that the platform refused the log-in: asking again and again would lock the account.
	ErrCredentials = errors.New("credentials refused")
	// ErrDuplicate says that another source of this process watches the same platform already.
	ErrDuplicate = errors.New("watched twice")
)

// Refreshing is a Source that can tell that its credentials are not those any more that were refused: somebody rotated a
// password. It is asked after ErrCredentials, between two calls of Watch; asking costs a look at a file and sends nothing.
type Refreshing interface {
	Refreshed() bool
}

// Observer hears how a source fares; each method may be called from any goroutine.
type Observer interface {
	// Call counts one request to the platform, by its method.
	Call(method string)
	// Fault counts an error that did not end Watch, by its kind (perf, quickstats, decode, ...), and says it in the log.
	Fault(kind string, err error)
	// Cycle reports how long one cycle of samples took, in seconds, by what was sampled (usage, perf, ...).
	Cycle(part string, seconds float64)
}

// Sink takes what sources see. FleetSink makes one of an *inventory.Fleet.
type Sink interface {
	Apply(d inventory.Delta)
	Down(source string, err error)
}
