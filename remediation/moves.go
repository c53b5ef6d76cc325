package remediation

import (
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
}

func (e *Engine) absorb(s sighted) {
	from, to := e.hostName(s.From), e.hostName(s.To)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ours(s) {
		return
	}
	m := ForeignMove{VM: s.ID, Name: s.Name, From: s.From, To: s.To, At: s.at}
	e.lastMove[m.VM] = lastMove{at: m.At, by: foreign, to: m.To}
	e.metrics.foreignMoves.WithLabelValues(m.VM.Source).Inc()
	e.o.Log.Info("VM moved by somebody else", "source", m.VM.Source, "vm", m.Name, "from", from, "to", to)
	ctx, cancel := writing()
	defer cancel()
	if err := e.o.Memory.SaveForeignMove(ctx, m); err != nil {
		e.metrics.journalErrors.Inc()
		e.o.Log.Error("foreign move not stored: its cooldown is lost at a restart", "vm", m.Name, "err", err)
	}
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
