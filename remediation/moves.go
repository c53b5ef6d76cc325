package remediation

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/protip/protip/internal/inventory"
)

// foreign is who made a move that protip did not order, in words.
const foreign = "somebody else (the platform's balancer, or a person)"

// sighted is a move that the inventory showed.
type sighted struct {
	inventory.Change
	at time.Time
}

// Observe takes the changes of the inventory. It only notes them and never blocks; the deciding goroutine looks at them next.
func (e *Engine) Observe(changes []inventory.Change) {
	e.seenMu.Lock()
	defer e.seenMu.Unlock()
	for _, c := range changes {
		if c.Kind == inventory.Moved && c.ID.Kind == inventory.KindVM {
			e.seen[c.ID] = sighted{c, e.now()}
			e.poke()
		}
	}
}

// absorbMoves gives every VM that somebody else moved its cooldown. A foreign move is noted and never undone: whoever made
// it had a reason.
func (e *Engine) absorbMoves() {
	e.seenMu.Lock()
	seen := e.seen
	e.seen = map[inventory.ID]sighted{}
	e.seenMu.Unlock()
	if len(seen) == 0 {
		return
	}
	for _, s := range seen {
		e.absorb(s)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	maps.DeleteFunc(e.lastMove, func(_ inventory.ID, last lastMove) bool {
		return e.now().Sub(last.at) > max(e.o.Cooldown, e.o.VerifyTimeout)
	})
	maps.DeleteFunc(e.placed, func(_ inventory.ID, last lastMove) bool { return e.now().Sub(last.at) > contestMemory })
}

func (e *Engine) absorb(s sighted) {
	from, to := e.hostName(s.From), e.hostName(s.To)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ours(s) {
		return
	}
	m := ForeignMove{VM: s.ID, Name: s.Name, From: s.From, To: s.To, At: s.at}
	m.Against, m.AgainstAt = e.undone(s)
	e.lastMove[m.VM] = lastMove{at: m.At, by: foreign, to: m.To}
	if m.Against > 0 {
		e.contests[m.VM] = m
		e.metrics.contested(e.leftAlone())
	}
	e.metrics.foreignMoves.WithLabelValues(m.VM.Source).Inc()
	e.o.Log.Info("VM moved by somebody else", "source", m.VM.Source, "vm", m.Name, "from", from, "to", to, "undoes", m.AgainstAt.Equal(m.At))
	if why := e.contested(m.VM); why != "" {
		e.o.Log.Warn("VM is left alone", "source", m.VM.Source, "vm", m.Name, "why", why)
	}
	ctx, cancel := writing()
	defer cancel()
	if err := e.o.Memory.SaveForeignMove(ctx, m); err != nil {
		e.metrics.journalErrors.Inc()
		e.o.Log.Error("foreign move not stored: its cooldown is lost at a restart", "vm", m.Name, "err", err)
	}
}

// Somebody else may have a mind of their own about a VM: another balancer, or a person. Two moves of protip's that are undone within a
// week are enough to leave the VM alone for a week.
const (
	contestMemory = 7 * 24 * time.Hour
	contestLimit  = 2
)

// undone counts a foreign move that takes a VM from where protip had put it, with those before it of the last week.
func (e *Engine) undone(s sighted) (n int, at time.Time) {
	if before, ok := e.contests[s.ID]; ok && s.at.Sub(before.AgainstAt) < contestMemory {
		n, at = before.Against, before.AgainstAt
	}
	for _, it := range e.live {
		if it.VM == s.ID && it.To == s.From && it.Sent() && !it.State.Final() {
			it.passed = true
			return n + 1, s.at
		}
	}
	last, ok := e.placed[s.ID]
	delete(e.placed, s.ID)
	if !ok || last.to != s.From || s.at.Sub(last.at) >= contestMemory {
		return n, at
	}
	return n + 1, s.at
}

// contested is why a VM is left alone, empty if it is not.
func (e *Engine) contested(vm inventory.ID) string {
	m, ok := e.contests[vm]
	if !ok || m.Against < contestLimit || e.now().Sub(m.AgainstAt) >= contestMemory {
		return ""
	}
	return fmt.Sprintf("%s moved it away %d times after protip had moved it, last at %s: protip leaves it alone until %s, or until a person resumes",
		foreign, m.Against, stamp(m.AgainstAt), stamp(m.AgainstAt.Add(contestMemory)))
}

// leftAlone is how many VMs of each source are.
func (e *Engine) leftAlone() map[string]int {
	out := map[string]int{}
	for vm := range e.contests {
		if e.contested(vm) != "" {
			out[vm.Source]++
		}
	}
	return out
}

// endContests lets go of VMs that were left alone for long enough.
func (e *Engine) endContests() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for vm, m := range e.contests {
		if e.now().Sub(m.AgainstAt) >= contestMemory {
			delete(e.contests, vm)
			e.metrics.contested(e.leftAlone())
		}
	}
}

// forgive forgets the contests of a source, or of all.
func (e *Engine) forgive(ctx context.Context, source string) error {
	for vm, m := range e.contests {
		if source != "" && vm.Source != source {
			continue
		}
		m.Against, m.AgainstAt = 0, time.Time{}
		if err := e.o.Memory.SaveForeignMove(ctx, m); err != nil {
			return fmt.Errorf("store that %s may be moved again: %w", m.Name, err)
		}
		delete(e.contests, vm)
	}
	e.metrics.contested(e.leftAlone())
	return nil
}

// ours reports whether a move is that of an action of ours, under way, unknown or just ended.
func (e *Engine) ours(s sighted) bool {
	for _, it := range e.live {
		if it.VM == s.ID && it.To == s.To && it.Sent() {
			return true
		}
	}
	last, ok := e.lastMove[s.ID]
	return ok && last.by != foreign && last.to == s.To && s.at.Sub(last.at) < e.o.VerifyTimeout
}
