package console

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Bounds of what is made behind the pages.
const (
	jobKept     = 10 * time.Minute // before it is made anew, in real time
	keptJobs    = 16
	waitingMost = 4 // that wait for their turn
)

// jobs makes what takes longer than a page may, one at a time, and keeps the last ones.
type jobs[T any] struct {
	what    string        // it makes, in the plural
	turn    chan struct{} // full while something is made
	stopped context.Context
	run     func(func())
	log     *slog.Logger

	mu    sync.Mutex
	all   map[any]*job[T]
	order []any
}

// job is something that is being made, or was. Its fields are guarded by jobs.mu.
type job[T any] struct {
	asked time.Time // by protip's clock
	began time.Time // in real time
	done  float64   // 0..1
	over  bool
	made  T
	err   error
}

// get is what a key stands for, as far as it is: it begins to be made if it is not there or is too old, and may take so long in real time.
func (js *jobs[T]) get(key any, now time.Time, limit time.Duration, build func(ctx context.Context, progress func(float64)) (T, error)) (job[T], error) {
	js.mu.Lock()
	defer js.mu.Unlock()
	if j := js.all[key]; j != nil && (!j.over || time.Since(j.began) < jobKept) {
		return *j, nil
	}
	waiting := 0
	for _, j := range js.all {
		if !j.over {
			waiting++
		}
	}
	if waiting >= waitingMost {
		return job[T]{}, problem{http.StatusServiceUnavailable, "Too many " + js.what + " are being made already: try again in a minute."}
	}
	if js.all == nil {
		js.all = map[any]*job[T]{}
	}
	j := &job[T]{asked: now, began: time.Now()}
	js.all[key], js.order = j, append(slices.DeleteFunc(js.order, func(k any) bool { return k == key }), key)
	for len(js.order) > keptJobs {
		delete(js.all, js.order[0])
		js.order = js.order[1:]
	}
	js.run(func() { js.make(j, limit, build) })
	return *j, nil
}

func (js *jobs[T]) make(j *job[T], limit time.Duration, build func(context.Context, func(float64)) (T, error)) {
	select {
	case js.turn <- struct{}{}:
		defer func() { <-js.turn }()
	case <-js.stopped.Done():
		return
	}
	ctx, cancel := context.WithTimeout(js.stopped, limit)
	defer cancel()
	made, err := build(ctx, func(done float64) {
		js.mu.Lock()
		defer js.mu.Unlock()
		j.done = done
	})
	if err != nil && ctx.Err() == nil {
		js.log.Warn("not made", "of", js.what, "err", err)
	}
	js.mu.Lock()
	defer js.mu.Unlock()
	j.made, j.err, j.over = made, err, true
}
