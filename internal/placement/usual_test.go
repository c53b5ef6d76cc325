package placement

import (
	"strings"
	"testing"

	"github.com/protip/protip/internal/inventory"
)

// TestRateExpectsMoreThanTheLastSample rates one host for a VM: what it has been using, and how restless it is, count, not only what it
// uses at this moment.
func TestRateExpectsMoreThanTheLastSample(t *testing.T) {
	t.Parallel()
	f := newFleet().host("a", 20, 10).host("b", 8, 10).vm("w", "a", 4, 4).vm("o", "b", 8, 4)
	s := f.snapshot()
	h, _ := s.Host(hostID("b"))
	rate := func(usual map[inventory.ID]Usual) Rating {
		d := Observed(s)
		d.Usual = usual
		r, ok := Of(Rate(s, d, VMSpec{ID: vmID("w")}, Policy{Ceiling: 0.8}), hostID("b"))
		if !ok {
			t.Fatal("b is not rated")
		}
		return r
	}
	calm := rate(nil)
	if text, barred := calm.Barred(); barred {
		t.Fatalf("by its last sample: %s", text)
	}
	level := rate(map[inventory.ID]Usual{vmID("w"): {CPUHertz: calm.After.CPURatio * h.CPUHertz, Samples: 12}})
	if !(level.After.CPURatio > calm.After.CPURatio) || level.After.CPURatio > 2*calm.After.CPURatio {
		t.Errorf("a VM that has used more is expected to again: %.2f after, and by its last sample %.2f", level.After.CPURatio, calm.After.CPURatio)
	}
	for _, restless := range []string{"w", "o"} {
		r := rate(map[inventory.ID]Usual{vmID(restless): {CPUVariance: h.CPUHertz * h.CPUHertz, Samples: 12}})
		if text, barred := r.Barred(); !barred || !strings.Contains(text, "demand varies") {
			t.Errorf("%s varies by as much as the host has: %q bars", restless, text)
		}
	}
	few := rate(map[inventory.ID]Usual{vmID("w"): {CPUHertz: h.CPUHertz, CPUVariance: h.CPUHertz * h.CPUHertz, Samples: 11}})
	if few.After != calm.After {
		t.Errorf("what is only assumed of a VM counts: %+v, want %+v", few.After, calm.After)
	}
	low := rate(map[inventory.ID]Usual{vmID("w"): {CPUHertz: 0.1 * ghz, Samples: 12}})
	if low.After != calm.After {
		t.Errorf("what it needs now counts where that is more: %+v, want %+v", low.After, calm.After)
	}
}
