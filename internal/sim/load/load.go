// Package load says what simulated virtual machines demand, as a pure function of the VM and the time.
// It promises the same demand for the same VM and time, wherever the VM runs; what a host delivers of it is not its concern.
// It must not import anything but the standard library.
package load

import (
	"math"
	"time"
)

// Load is the demand of a fleet. At may be called from any goroutine, for any time, in any order, and answers the same for the
// same arguments. Demand never falls unless the load says so.
type Load interface {
	// At is what the VM of that index demands at t. An index that the load does not know demands nothing.
	At(vm int, t time.Time) Use
}

// Use is what one VM demands. Ratios are 0..1; rates are bytes a second.
type Use struct {
	CPU            float64 // of the vCPUs, at the speed of the host that the VM was built on
	MemoryActive   float64 // of the configured memory: touched lately
	MemoryConsumed float64 // of the configured memory: backed by the host
	NetReceived    float64
	NetTransmitted float64
	DiskRead       float64
	DiskWritten    float64
	DiskLatency    time.Duration
}

// Func is a load made of a function.
type Func func(vm int, t time.Time) Use

// At calls f.
func (f Func) At(vm int, t time.Time) Use { return f(vm, t) }

var _ Load = Func(nil)

// Steady is a load where every VM always demands u.
func Steady(u Use) Load { return Func(func(int, time.Time) Use { return u }) }

// Pick is l with its VMs in another order: VM i of the result is VM from[i] of l.
func Pick(l Load, from []int) Load {
	return Func(func(vm int, t time.Time) Use {
		if vm < 0 || vm >= len(from) {
			return Use{}
		}
		return l.At(from[vm], t)
	})
}

// HoldIdle is l, except that the VMs in until stand idle before their time: their guests run, their work has not begun.
func HoldIdle(l Load, until map[int]time.Time) Load {
	return Func(func(vm int, t time.Time) Use {
		if start, held := until[vm]; held && t.Before(start) {
			return Around(vm, 0.01)
		}
		return l.At(vm, t)
	})
}

// Around is what comes with a CPU demand: memory that does not follow it, and traffic that does.
func Around(vm int, cpu float64) Use {
	r := func(salt uint64) float64 { return unit(0, uint64(vm), salt, 0) }
	consumed := 0.55 + 0.35*r(1)
	return Use{
		CPU:            cpu,
		MemoryConsumed: consumed,
		MemoryActive:   consumed * (0.15 + 0.45*cpu),
		NetReceived:    cpu * 8e6 * (0.2 + r(2)),
		NetTransmitted: cpu * 5e6 * (0.2 + r(3)),
		DiskRead:       cpu * 12e6 * (0.2 + r(4)),
		DiskWritten:    cpu * 6e6 * (0.2 + r(5)),
		DiskLatency:    time.Duration((1 + 8*cpu*r(6)) * float64(time.Millisecond)),
	}
}

// unit is a number in [0,1) that depends on nothing but its arguments.
func unit(seed, vm, salt, slot uint64) float64 {
	x := seed*0x9e3779b97f4a7c15 ^ vm*0xbf58476d1ce4e5b9 ^ salt*0x94d049bb133111eb ^ slot*0xd6e8feb86659fd93
	for range 2 { // the finalizer of splitmix64
		x += 0x9e3779b97f4a7c15
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		x ^= x >> 31
	}
	return float64(x>>11) / (1 << 53)
}

func clamp(v float64) float64 { return math.Min(1, math.Max(0, v)) }
