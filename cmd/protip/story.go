package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/protip/protip/internal/app"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/web"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// storyRule is what the demo is about.
const storyRule = "HostCPUOverload"

// story follows the demo from the agent's events to its ending.
type story struct {
	c        *console
	once     bool
	narrator *narrator
	events   chan app.Event
	look     time.Duration // how often the hosts are looked at: twice for each sample
	tips     []*thread     // in the order in which they became active
}

// thread is one tip, its actions, and its host's CPU meanwhile.
type thread struct {
	tip     rules.Tip
	actions []remediation.Action // in the order in which they were planned

	before *float64 // when the tip became active
	lowest *float64 // since then
	latest *float64
}

func newStory(c *console, f demoFlags, clk *clock.Clock, pack *rules.Pack) *story {
	return &story{
		c: c, once: f.once, narrator: newNarrator(c, f, clk, pack), events: make(chan app.Event, 1024), look: clk.Real(10 * time.Second),
	}
}

// hear takes an event from the agent, which must not wait for a terminal that was stopped: what is too much is not told.
func (s *story) hear(e app.Event) {
	select {
	case s.events <- e:
	default:
	}
}

// run serves and tells until the story ends: with --once at the first host that recovered, else when ctx is done.
func (s *story) run(ctx context.Context, a *app.App, l net.Listener) error {
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	server := web.NewServer(a.Handler())
	var group sync.WaitGroup
	group.Go(func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			stop(err)
		}
	})
	group.Go(func() {
		if err := a.Run(running); err != nil {
			stop(err)
		}
	})
	s.tell(running, a)
	err := context.Cause(running)
	stop(nil)
	shutDown(server, time.Second)
	group.Wait()
	if s.once {
		s.ending()
	}
	switch {
	case s.once && s.recovered() != nil:
		return nil
	case !errors.Is(err, context.Canceled):
		return err
	case s.once:
		return errors.New("interrupted before a host had recovered")
	}
	return nil
}

func (s *story) tell(ctx context.Context, a *app.App) {
	look := time.NewTicker(s.look)
	defer look.Stop()
	for !s.once || s.recovered() == nil {
		select {
		case <-ctx.Done():
			return
		case e := <-s.events:
			snap := a.Snapshot()
			s.narrator.watch(snap) // what the hosts do comes before what is made of it
			s.narrator.event(e, snap)
			s.follow(e)
			s.measure(snap)
		case <-look.C:
			snap := a.Snapshot()
			s.narrator.watch(snap)
			s.measure(snap)
		}
	}
}

// follow keeps what the ending tells.
func (s *story) follow(e app.Event) {
	switch {
	case e.Tip != nil:
		tip := e.Tip.Tip
		if t := s.thread(tip.ID); t != nil {
			t.tip = tip
		} else if tip.Rule == storyRule && tip.State == rules.Active {
			s.tips = append(s.tips, &thread{tip: tip, before: evidence(tip, inventory.HostCPUUsageRatio)})
		}
	case e.Action != nil:
		if t := s.thread(e.Action.TipID); t != nil {
			t.step(*e.Action)
		}
	}
}

func (s *story) thread(tip string) *thread {
	for _, t := range s.tips {
		if t.tip.ID == tip {
			return t
		}
	}
	return nil
}

// evidence is what the rule saw of a metric, nil if it did not look.
func evidence(tip rules.Tip, m inventory.Metric) *float64 {
	for _, e := range tip.Evidence {
		if strings.HasSuffix(e.Name, "."+m.Field()) {
			return &e.Value
		}
	}
	return nil
}

func (t *thread) step(a remediation.Action) {
	for i := range t.actions {
		if t.actions[i].ID == a.ID {
			t.actions[i] = a
			return
		}
	}
	t.actions = append(t.actions, a)
}

// measure looks at the hosts. A host without a fresh sample keeps what it had.
func (s *story) measure(snap *inventory.Snapshot) {
	for _, t := range s.tips {
		h, ok := snap.Host(t.tip.Object)
		if !ok {
			continue
		}
		cpu, ok := h.Samples.Value(inventory.HostCPUUsageRatio)
		if !ok {
			continue
		}
		t.latest = &cpu
		if t.lowest == nil || cpu < *t.lowest {
			t.lowest = &cpu
		}
	}
}

// recovered is the first tip whose actions have all come to their end and whose host has recovered by them.
func (s *story) recovered() *thread {
	for _, t := range s.tips {
		if t.closing() != nil && t.ended() {
			return t
		}
	}
	return nil
}

// closing is the last action that the host recovered by.
func (t *thread) closing() *remediation.Action {
	for i := len(t.actions) - 1; i >= 0; i-- {
		if t.actions[i].Outcome == remediation.Recovered {
			return &t.actions[i]
		}
	}
	return nil
}

// ended reports whether all actions are final and those that were done have their outcome.
func (t *thread) ended() bool {
	for _, a := range t.actions {
		if !a.State.Final() || a.State == remediation.Done && a.Outcome == "" {
			return false
		}
	}
	return true
}

// cpu is a host's load in the ending.
type cpu struct {
	Ratio *float64 `json:"host_cpu_ratio"`
}

// ending is the last line: one JSON object, or a sentence.
func (s *story) ending() {
	t := s.recovered()
	if t == nil && len(s.tips) > 0 {
		t = s.tips[0]
	}
	if !s.c.json {
		s.narrator.ending(t)
		return
	}
	end := struct {
		Tip     *rules.Tip           `json:"tip"`
		Action  *remediation.Action  `json:"action"`  // the last one that the host recovered by
		Actions []remediation.Action `json:"actions"` // all of the tip
		Before  cpu                  `json:"before"`
		After   cpu                  `json:"after"`
		Lowest  cpu                  `json:"lowest"` // since the tip was active
	}{Actions: []remediation.Action{}}
	if t != nil {
		end.Tip, end.Action = &t.tip, t.closing()
		end.Actions = append(end.Actions, t.actions...)
		end.Before, end.After, end.Lowest = cpu{t.before}, cpu{t.latest}, cpu{t.lowest}
	}
	_ = jsonTo(s.c.out).Encode(end)
}
