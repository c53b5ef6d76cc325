package collector

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
)

// patience is how long a listing waits for hosts that neither answer nor fail, in real time.
const patience = 5 * time.Second

// Rounds ask a list of hosts that are one source, each at a pace of its own, and try again each that does not answer.
type Rounds struct {
	Hosts    int
	Interval time.Duration // between looks at a host
	Clock    *clock.Clock
	// Look asks one host once, in bounded time, and emits what that changed; for each host it is called from one goroutine at a time. Its
	// error says why the host has not answered; one that wraps ErrDuplicate ends the rounds. A pause that is not 0 is how long to leave
	// the host alone, in place of an interval.
	Look func(ctx context.Context, host int) (pause time.Duration, err error)
	// Announce emits everything that is known, as a listing. It is called first when each host has answered or failed, or one has answered
	// and others have done neither for a while: what these have comes later, as changes. Then it is called every inventory.SlowInterval.
	Announce func()
}

// Run asks until ctx is done, or no host is left that answers: then its error is why, of each, and wraps ErrCredentials if that of one does.
func (r Rounds) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &round{
		Rounds: r, end: cancel, tried: make([]bool, r.Hosts), failures: make([]error, r.Hosts), answered: make(chan struct{}), resolved: make(chan struct{}),
	}
	var wg sync.WaitGroup
	start := func(run func() error) {
		wg.Go(func() {
			if err := Contain(run); err != nil {
				cancel(err)
			}
		})
	}
	for i := range r.Hosts {
		start(func() error { return w.keep(ctx, i) })
	}
	start(func() error { return w.list(ctx) })
	wg.Wait()
	return context.Cause(ctx)
}

// round is one Run.
type round struct {
	Rounds
	end context.CancelCauseFunc

	mu       sync.Mutex
	tried    []bool
	failures []error       // nil of a host that answered the last time
	answered chan struct{} // closed when one host has answered
	resolved chan struct{} // closed when each has answered or failed
}

// keep asks one host at each interval until ctx is done.
func (w *round) keep(ctx context.Context, host int) error {
	pause := w.Interval/2 + w.Interval/2*time.Duration(host)/time.Duration(w.Hosts) // all at once would be a burst
	for {
		began := w.Clock.Now()
		longer, err := w.Look(ctx, host)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, ErrDuplicate) {
			return err
		}
		w.settled(host, err)
		if longer > 0 {
			pause = longer
		}
		if w.Clock.Sleep(ctx, max(pause-w.Clock.Now().Sub(began), w.Interval/10)) != nil {
			return ctx.Err()
		}
		pause = w.Interval
	}
}

// settled notes that a host has answered (nil) or why it has not, and ends the Run if none has that was tried.
func (w *round) settled(host int, failure error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tried[host], w.failures[host] = true, failure
	failed, resolved := 0, true
	for i, tried := range w.tried {
		resolved = resolved && tried
		if w.failures[i] != nil {
			failed++
		}
	}
	if failure == nil {
		closeOnce(w.answered)
	}
	if resolved {
		closeOnce(w.resolved)
	}
	if failed == w.Hosts {
		w.end(errors.Join(w.failures...))
	}
}

// list waits for the hosts and has the listing emitted, again and again.
func (w *round) list(ctx context.Context) error {
	select {
	case <-w.answered:
	case <-ctx.Done():
		return ctx.Err()
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-w.resolved:
	case <-late.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		w.Announce()
		if err := w.Clock.Sleep(ctx, inventory.SlowInterval); err != nil {
			return ctx.Err()
		}
	}
}

// closeOnce closes a channel that one goroutine at a time may close.
func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}
