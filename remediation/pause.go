package remediation

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
)

// String is why nothing starts, in words.
func (p Pause) String() string {
	what := "remediation"
	if p.Source != "" {
		what += " of source " + p.Source
	}
	text := fmt.Sprintf("%s was paused by %s at %s", what, p.By, stamp(p.At))
	if p.Why != "" {
		text += ": " + p.Why
	}
	return text
}

// Pause stops all acting on one source, or on all if source is empty. When it returns, nothing new is sent, also after a
// restart, until Resume of the same source; what the platform has begun it finishes. A pause is the first to stand: pausing
// again does not change who did it and why.
func (e *Engine) Pause(ctx context.Context, source, by, why string) error {
	if err := e.Recover(ctx); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.o.Executors[source]; source != "" && !ok {
		return fmt.Errorf("pause: %w: %s", ErrRefused, noCredential(source))
	}
	if _, paused := e.pauses[source]; paused {
		return nil
	}
	p := Pause{Source: source, By: by, Why: why, At: e.now()}
	if err := e.o.Memory.SavePause(ctx, p); err != nil {
		return fmt.Errorf("pause: %w", err)
	}
	e.pauses[source] = p
	e.metrics.pauses(e.pauses)
	e.o.Log.Warn("remediation paused", "source", source, "by", by, "why", why)
	return nil
}

// Resume lifts the pause of one source, or, if source is empty, the pause of all; a source paused by name stays so. Resuming
// all also closes the breaker. VMs of the source that were left alone because somebody else moved them back may be moved again.
func (e *Engine) Resume(ctx context.Context, source, by, why string) error {
	if err := e.Recover(ctx); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.o.Memory.DropPause(ctx, source); err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	if err := e.forgive(ctx, source); err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	delete(e.pauses, source)
	e.metrics.pauses(e.pauses)
	e.o.Log.Warn("remediation resumed", "source", source, "by", by, "why", why)
	e.poke()
	if source == "" && e.breaker.state.Open {
		return e.closeBreaker(ctx, by, why)
	}
	return nil
}

// Pauses are those in force, the one of all sources first.
func (e *Engine) Pauses() []Pause {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.SortedFunc(maps.Values(e.pauses), func(a, b Pause) int { return cmp.Compare(a.Source, b.Source) })
}
