package collector

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/protip/protip/internal/clock"
)

// TestRounds: one host that hangs holds up neither the others nor, for long, the listing; one that fails is tried again; the end comes when
// none answers any more.
func TestRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval = 20 * time.Second
		began := time.Now()
		var looks [3]atomic.Int64
		var down atomic.Bool
		var listed []time.Duration
		r := Rounds{
			Hosts: 3, Interval: interval, Clock: clock.New(1), Announce: func() { listed = append(listed, time.Since(began)) },
			Look: func(ctx context.Context, i int) (time.Duration, error) {
				looks[i].Add(1)
				switch {
				case i == 0: // hangs for its time
					_ = clock.New(1).Sleep(ctx, 15*time.Second)
					return 0, errors.New("no answer")
				case i == 1: // has no room for more
					return 10 * interval, errors.New("quota")
				case down.Load():
					return 0, fmt.Errorf("host 2: %w", ErrCredentials)
				}
				return 0, nil
			},
		}
		ended := make(chan error, 1)
		go func() { ended <- r.Run(t.Context()) }()
		time.Sleep(2*time.Minute + time.Second)
		synctest.Wait()
		if len(listed) != 1 || listed[0] != patience {
			t.Errorf("listed after %v, want once after %v", listed, patience)
		}
		if a, b, c := looks[0].Load(), looks[1].Load(), looks[2].Load(); a < 5 || b != 1 || c < 6 {
			t.Errorf("%d, %d and %d looks", a, b, c)
		}
		down.Store(true)
		if err := <-ended; !errors.Is(err, ErrCredentials) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestRoundsOfADuplicate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := Rounds{
			Hosts: 2, Interval: time.Minute, Clock: clock.New(1), Announce: func() {},
			Look: func(_ context.Context, i int) (time.Duration, error) {
				if i == 1 {
					return 0, ErrDuplicate
				}
				return 0, nil
			},
		}
		if err := r.Run(t.Context()); !errors.Is(err, ErrDuplicate) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestRoundsContainAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := Rounds{
			Hosts: 1, Interval: time.Minute, Clock: clock.New(1), Announce: func() { panic("a mistake") },
			Look: func(context.Context, int) (time.Duration, error) { return 0, nil },
		}
		var p *PanicError
		if err := r.Run(t.Context()); !errors.As(err, &p) {
			t.Errorf("ended with %v", err)
		}
	})
}
