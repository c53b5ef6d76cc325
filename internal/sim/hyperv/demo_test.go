package hyperv

import (
	"slices"
	"testing"
	"time"

	"github.com/protip/protip/internal/clock"
)

// TestDemo holds what the demo promises, for some seeds: calm at first, hot from then on, calm again without the busy ones.
func TestDemo(t *testing.T) {
	for seed := range uint64(8) {
		d, err := NewDemo(DemoConfig{Seed: seed, Clock: clock.From(time.Now(), 1)})
		if err != nil {
			t.Fatal(err)
		}
		d.Close() // the play goes on without a service
		c := d.Cluster
		use := func(at time.Time) (hot, other, free float64) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.model.advance(at)
			free, hot = 1e15, 1
			for _, n := range c.model.nodes {
				free = min(free, c.model.freeMemory(n))
				if n.name == d.Node || n.name == d.Stuck {
					hot = min(hot, n.usage)
				} else {
					other = max(other, n.usage)
				}
			}
			return hot, other, free
		}
		if hot, _, _ := use(d.From.Add(-time.Second)); hot > 0.68 {
			t.Errorf("seed %d: %.2f before the heat", seed, hot)
		}
		for m := range 60 {
			hot, other, free := use(d.From.Add(time.Duration(m+1) * time.Minute))
			if hot < 0.90 || other > 0.42 || free < 40<<30 {
				t.Fatalf("seed %d, minute %d: %.2f there, %.2f elsewhere, %.0f bytes free", seed, m, hot, other, free)
			}
		}
		c.mu.Lock()
		var calm []*node
		for _, n := range c.model.nodes {
			if n.name != d.Node && n.name != d.Stuck {
				calm = append(calm, n)
			}
		}
		for i, id := range slices.Concat(d.Live, d.Quick) {
			if _, err := c.model.move(c.model.vm(id), calm[i%2], i < 2, returnToSource|queueEnabled); err != nil {
				t.Fatal(err)
			}
		}
		c.mu.Unlock()
		if hot, other, _ := use(d.From.Add(3 * time.Hour)); hot > 0.68 || other > 0.80 {
			t.Errorf("seed %d: %.2f and %.2f after four moves", seed, hot, other)
		}
		if code := c.model.obstacle(&migration{vm: c.model.vm(d.Quick[0]), from: c.model.nodes[0], to: c.model.nodes[1], live: true}); code != LogonTypeNotGranted {
			t.Errorf("seed %d: the stuck VM migrates live: 0x%08X", seed, code)
		}
	}
}
