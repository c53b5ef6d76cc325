package app

import (
	"sync"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/internal/inventory"
)

// sink takes what the sources see: into the inventory, then to whoever acts and whoever listens.
type sink struct {
	*App
	fleet collector.Sink

	mu     sync.Mutex
	listed map[string]bool // a first listing is no news: it is what was there already
}

var _ collector.Sink = (*sink)(nil)

func newSink(a *App) *sink {
	s := &sink{App: a, listed: map[string]bool{}}
	s.fleet = collector.FleetSink(a.fleet, a.clock, a.log, s.changed)
	return s
}

func (s *sink) Apply(d inventory.Delta) { s.telling(d.Source, func() { s.fleet.Apply(d) }) }

func (s *sink) Down(source string, err error) {
	s.telling(source, func() { s.fleet.Down(source, err) })
}

// telling does what may change a source's state and tells if it did.
func (s *sink) telling(source string, do func()) {
	was, _ := s.App.fleet.Snapshot().Source(source)
	do()
	is, ok := s.App.fleet.Snapshot().Source(source)
	if ok && (is.Up != was.Up || is.Error != was.Error) {
		s.notify(Event{Source: &is})
	}
}

// changed hears of every change, in the order of its source.
func (s *sink) changed(changes []inventory.Change) {
	if s.acting != nil {
		s.acting.engine.Observe(changes)
	}
	for _, c := range changes {
		if c.Kind == inventory.Synced {
			s.mu.Lock()
			s.listed[c.Source] = true
			s.mu.Unlock()
			continue
		}
		s.mu.Lock()
		news := s.listed[c.Source]
		s.mu.Unlock()
		if news {
			s.notify(Event{Change: &c})
		}
	}
}
