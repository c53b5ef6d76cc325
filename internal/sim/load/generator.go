package load

import (
	"math"
	"time"
)

// Generator is a made-up fleet: each VM has a level of its own, a working day, short bursts, and growth.
type Generator struct {
	Seed uint64
	// Level scales every VM's demand; 0 is taken as 1, at which VMs average some 25 % of their vCPUs by day.
	Level float64
	// Growth is what a VM's demand gains in a year, as a ratio of what it was at Since.
	Growth float64
	Since  time.Time
}

var _ Load = Generator{}

const burstSlot = 10 * time.Minute

// At is the VM's demand at t.
func (g Generator) At(vm int, t time.Time) Use {
	r := func(salt, slot uint64) float64 { return unit(g.Seed, uint64(vm), salt, slot) }
	level := 0.05 + 0.35*r(1, 0)*r(1, 1)
	cpu := level * (1 + 0.6*workday(t, r(2, 0)))
	slot := uint64(t.Unix() / int64(burstSlot/time.Second))
	if r(3, slot) < 0.04 {
		cpu += 0.4 * r(4, slot)
	}
	cpu *= 1 + 0.1*(r(5, uint64(t.Unix()/60))-0.5)
	if !g.Since.IsZero() {
		cpu *= math.Max(0, 1+g.Growth*t.Sub(g.Since).Hours()/(365*24))
	}
	if g.Level > 0 {
		cpu *= g.Level
	}
	return Around(vm, clamp(cpu))
}

// workday runs from -1 in the night to 1 in the early afternoon (UTC), shifted by up to three hours.
func workday(t time.Time, shift float64) float64 {
	hour := float64(t.Unix()%86400)/3600 + 3*shift
	return math.Sin((hour - 8) / 24 * 2 * math.Pi)
}
