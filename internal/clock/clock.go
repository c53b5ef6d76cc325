// Package clock tells protip's time: real time, or time that runs faster for the demo.
// It promises that every wait of the agent that stands for a length of time in the fleet (an interval, a settle time, a
// cooldown) shrinks by the same factor. Network deadlines do not use it. It must import nothing but the standard library.
package clock

import (
	"context"
	"time"
)

// Clock is a time that started with real time and runs speed times as fast. Its methods may be called from any goroutine.
type Clock struct {
	start time.Time
	speed float64
}

// New is a clock that starts now. A speed of 1 is real time; speeds below 1 are taken as 1.
func New(speed float64) *Clock { return From(time.Now(), speed) }

// From is a clock that started at a time that has passed: processes that agree on it agree on what time it is.
func From(start time.Time, speed float64) *Clock { return &Clock{start: start, speed: max(speed, 1)} }

// Speed is how many seconds of this clock pass in a real one.
func (c *Clock) Speed() float64 { return c.speed }

// Now is the clock's time.
func (c *Clock) Now() time.Time {
	if c.speed == 1 {
		return time.Now()
	}
	return c.start.Add(time.Duration(float64(time.Since(c.start)) * c.speed))
}

// Real is how long d of this clock takes in real time.
func (c *Clock) Real(d time.Duration) time.Duration { return time.Duration(float64(d) / c.speed) }

// Sleep waits for d of this clock or until ctx is done, whose error it then returns.
func (c *Clock) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(c.Real(d))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
