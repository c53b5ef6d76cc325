package collector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
)

// Options say how a source is kept running. Zero durations take the defaults.
type Options struct {
	Clock   *clock.Clock
	Log     *slog.Logger
	Metrics *Metrics // may be nil

	MinBackoff    time.Duration // before the second attempt; default 1 s, growing by half with jitter
	MaxBackoff    time.Duration // default 1 min
	RefusedAfresh time.Duration // after ErrCredentials and ErrDuplicate; default 5 min
	RefusedLook   time.Duration // between looks for other credentials meanwhile; default 10 s
}

// Supervise keeps one source running until ctx is done. Run each source's in a goroutine of its own.
//
//	          +--------------- Synced: backoff starts over
//	          v
//	Watch -> up -> ends -> Sink.Down -> wait -> Watch ...
//	                                     |
//	                                     +-- jittered backoff, or RefusedAfresh if trying soon would do harm,
//	                                         cut short, once in a row, by other credentials than the refused
//
// A panic of the source ends its Watch and nothing else. What a source emits after its Watch has ended is dropped.
func Supervise(ctx context.Context, name string, src Source, sink Sink, opts Options) {
	opts = opts.withDefaults()
	log := opts.Log.With("source", name)
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = opts.MinBackoff, opts.MaxBackoff
	early := false // this attempt was made before its time, for other credentials
	for first := true; ; first = false {
		if !first {
			opts.Metrics.reconnected(name)
		}
		var synced atomic.Bool
		err := watch(ctx, src, func(d inventory.Delta) {
			sink.Apply(d)
			if d.Synced && !synced.Swap(true) {
				log.Info("source listed")
			}
		})
		if ctx.Err() != nil {
			return
		}
		sink.Down(name, err)
		if synced.Load() {
			wait.Reset()
		}
		pause := wait.NextBackOff()
		if errors.Is(err, ErrCredentials) || errors.Is(err, ErrDuplicate) {
			pause = opts.RefusedAfresh
		}
		opts.Metrics.failed(name, kindOf(err))
		logEnd(log, err, pause)
		if r, ok := src.(Refreshing); ok && errors.Is(err, ErrCredentials) && !early {
			early = awaitRefreshed(ctx, r, pause, opts)
		} else {
			early = false
			_ = opts.Clock.Sleep(ctx, pause)
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// awaitRefreshed waits for the pause to end, or for credentials that are others and were so at two looks in a row: who looks
// once may see a file that is being written.
func awaitRefreshed(ctx context.Context, r Refreshing, pause time.Duration, opts Options) bool {
	end := opts.Clock.Now().Add(pause)
	for seen := 0; seen < 2; {
		left := end.Sub(opts.Clock.Now())
		if left <= 0 || opts.Clock.Sleep(ctx, min(left, opts.RefusedLook)) != nil {
			return false
		}
		if r.Refreshed() {
			seen++
		} else {
			seen = 0
		}
	}
	return true
}

// watch calls Watch once. Its emit is dead when it has returned.
func watch(ctx context.Context, src Source, emit func(inventory.Delta)) error {
	var mu sync.RWMutex
	over := false
	err := Contain(func() error {
		return src.Watch(ctx, func(d inventory.Delta) {
			mu.RLock()
			defer mu.RUnlock()
			if !over {
				emit(d)
			}
		})
	})
	mu.Lock()
	over = true
	mu.Unlock()
	if err == nil {
		err = errors.New("source ended without an error")
	}
	return err
}

// Contain calls f and makes a panic in it a *PanicError. A source starts each of its goroutines through it: a panic that
// leaves a goroutine would end the process and every other source with it.
func Contain(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	return f()
}

// PanicError is a panic that was contained.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

func kindOf(err error) string {
	var p *PanicError
	switch {
	case errors.Is(err, ErrCredentials):
		return "credentials"
	case errors.Is(err, ErrDuplicate):
		return "duplicate"
	case errors.As(err, &p):
		return "panic"
	}
	return "watch"
}

func logEnd(log *slog.Logger, err error, pause time.Duration) {
	var p *PanicError
	if errors.As(err, &p) {
		log.Error("source panicked", "err", err, "retry_in", pause, "stack", string(p.Stack))
		return
	}
	log.Warn("source lost", "err", err, "retry_in", pause)
}

func (o Options) withDefaults() Options {
	if o.MinBackoff <= 0 {
		o.MinBackoff = time.Second
	}
	if o.MaxBackoff <= 0 {
		o.MaxBackoff = time.Minute
	}
	if o.RefusedAfresh <= 0 {
		o.RefusedAfresh = 5 * time.Minute
	}
	if o.RefusedLook <= 0 {
		o.RefusedLook = 10 * time.Second
	}
	return o
}
