package placement

import (
	"cmp"
	"maps"
	"math"
	"slices"

	"github.com/protip/protip/internal/inventory"
)

// How demand is followed. They are the same for every fleet; what they say of a VM comes from its own samples.
const (
	// levelHalfLife, in seconds: half of a level is an hour old. Shorter chases noise, longer misses that a job began.
	levelHalfLife = 3600
	// varianceHalfLife, in seconds: how restless a VM is shows over its day.
	varianceHalfLife = 24 * 3600
	// priorSamples is how many of a VM's own samples weigh as much as what is assumed of a VM that nothing is known of.
	priorSamples = 12
	// priorShare is how much of the variance between the VMs' demand the next sample of one is expected to be off, when one was seen. If what
	// VMs last at and what they do at the moment vary alike between them, by half of what is seen, the best guess of a VM's level is
	// halfway to the mean, and the next sample is off it by 1/4 + 1/2.
	priorShare = 0.75
)

// estimate is what a VM will probably need of a host.
type estimate struct {
	Usual
	Now  Use  // its last sample
	Flow Flow // as far as it is known
}

// of is a VM's estimate, false if its demand is not known.
func (d Demand) of(id inventory.ID) (estimate, bool) {
	use, ok := d.VMs[id]
	usual, followed := d.Usual[id]
	if !followed {
		usual = Usual{CPUHertz: use.CPUHertz}
	}
	e := estimate{usual, use, d.Flows[id]}
	return e, ok && e.valid()
}

// rise is how much more CPU than at its last sample a VM is expected to need, as far as its own samples tell.
func (e estimate) rise() float64 {
	if e.Samples < priorSamples {
		return 0
	}
	return max(0, e.CPUHertz-e.Now.CPUHertz)
}

// shown is the variance of a VM's CPU demand, as far as its own samples tell.
func (e estimate) shown() float64 {
	if e.Samples < priorSamples {
		return 0
	}
	return e.CPUVariance
}

// Followed is the demand of every VM as its samples told it, one after the other. The zero Followed has seen none.
type Followed struct {
	at    float64
	vms   map[inventory.ID]followed
	flows map[inventory.ID]Flow // levels, of VMs whose flow is known
}

type followed struct {
	level, variance, samples float64
}

// Next adds a sample of each VM, taken at that many seconds on any clock that the caller keeps to, and returns what each will
// probably need, with the demand's own figures as the last sample. A VM that the demand does not know is forgotten. The receiver stays as it is. Sizes are what a VM could use at
// most, in hertz; if they are known of all, a VM first seen is compared with the others by its share of that.
//
//	level    = an exponential average of half-life 1 h; of a VM first seen, halfway between its sample and the fleet's mean
//	variance = one of half-life 24 h of the squared distance from the level before the sample; of a VM first seen, 3/4 of
//	           the variance of demand between the VMs of the fleet, which weighs as much as 12 samples
//
// A flow is expected to be what it was last, or its level, an average like that of CPU from the first one on, if that is more.
func (f Followed) Next(d Demand, sizes map[inventory.ID]float64, at float64) (Followed, Demand) {
	elapsed := max(0, at-f.at)
	quick, slow := 1-math.Exp2(-elapsed/levelHalfLife), 1-math.Exp2(-elapsed/varianceHalfLife)
	if !d.sized(sizes) {
		sizes = nil
	}
	mean, spread := d.moments(sizes)
	next := Followed{at, make(map[inventory.ID]followed, len(d.VMs)), make(map[inventory.ID]Flow, len(d.Flows))}
	flows := make(map[inventory.ID]Flow, len(d.Flows))
	usual := make(map[inventory.ID]Usual, len(d.VMs))
	for id, use := range d.VMs {
		if !use.valid() {
			continue
		}
		v, known := f.vms[id]
		if known {
			off := use.CPUHertz - v.level
			v.samples++
			v.level += quick * off
			v.variance += max(slow, 1/(v.samples+priorSamples)) * (off*off - v.variance)
		} else {
			size := sizeOf(sizes, id)
			v = followed{level: (mean*size + use.CPUHertz) / 2, variance: priorShare * spread * size * size}
		}
		next.vms[id] = v
		usual[id] = Usual{CPUHertz: v.level, CPUVariance: v.variance, Samples: v.samples}
		if now, known := d.Flows[id]; known && now.valid() {
			level, seen := f.flows[id]
			if !seen {
				level = now
			}
			level = level.toward(now, quick)
			next.flows[id], flows[id] = level, now.most(level)
		}
	}
	d.Usual, d.Flows = usual, flows
	return next, d
}

func (d Demand) sized(sizes map[inventory.ID]float64) bool {
	for id := range d.VMs {
		if size := sizes[id]; !(size > 0) || !amount(size) {
			return false
		}
	}
	return true
}

// sizeOf is what a demand is divided by.
func sizeOf(sizes map[inventory.ID]float64, id inventory.ID) float64 {
	if sizes == nil {
		return 1
	}
	return sizes[id]
}

// moments are the mean and the variance of CPU demand, over its VM's size, of the fleet. The order is fixed, for floating point's sake.
func (d Demand) moments(sizes map[inventory.ID]float64) (mean, variance float64) {
	n, sum, squares := 0.0, 0.0, 0.0
	for _, id := range slices.SortedFunc(maps.Keys(d.VMs), func(a, b inventory.ID) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Ref, b.Ref))
	}) {
		if use := d.VMs[id]; use.valid() {
			n++
			share := use.CPUHertz / sizeOf(sizes, id)
			sum += share
			squares += share * share
		}
	}
	if n == 0 {
		return 0, 0
	}
	mean = sum / n
	return mean, max(0, squares/n-mean*mean)
}

// valid refuses what no follower can mean.
func (e estimate) valid() bool {
	return e.Now.valid() && amount(e.CPUHertz) && amount(e.CPUVariance) && e.Flow.valid()
}
