package app

import (
	"context"
	"sync"
	"time"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/rules"
)

// memory keeps the answers to queries that need not be asked at every evaluation. Those that are due are asked in the background,
// one after the other: a percentile of weeks must not hold up what is to be seen at once.
type memory struct {
	mu      sync.Mutex
	set     *rules.Set
	answers map[rules.Query]dated
	asking  bool
	running sync.WaitGroup
}

type dated struct {
	rules.Answer
	at time.Time
}

// ask is the answers to all of a set's queries. One that was never asked yet is empty: its rules do not know.
func (m *memory) ask(
	ctx context.Context, past history.Querier, set *rules.Set, snap *inventory.Snapshot, now time.Time,
) map[rules.Query]rules.Answer {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.set != set {
		m.set, m.answers = set, map[rules.Query]dated{}
	}
	out := map[rules.Query]rules.Answer{}
	var due []rules.Query
	for _, q := range set.Queries() {
		every := set.Every(q)
		if every == 0 || past == nil {
			out[q] = set.AskOne(ctx, past, snap, q, now)
			continue
		}
		known, ok := m.answers[q]
		if !ok || now.Sub(known.at) >= every {
			due = append(due, q)
		}
		out[q] = known.Answer
	}
	if len(due) > 0 && !m.asking {
		m.asking = true
		m.running.Go(func() { m.refresh(ctx, past, set, snap, due, now) })
	}
	return out
}

func (m *memory) refresh(
	ctx context.Context, past history.Querier, set *rules.Set, snap *inventory.Snapshot, due []rules.Query, now time.Time,
) {
	for _, q := range due {
		answer := set.AskOne(ctx, past, snap, q, now)
		m.mu.Lock()
		if m.set == set && ctx.Err() == nil {
			m.answers[q] = dated{answer, now}
		}
		m.mu.Unlock()
	}
	m.mu.Lock()
	m.asking = false
	m.mu.Unlock()
}
