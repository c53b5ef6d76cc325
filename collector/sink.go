package collector

import (
	"log/slog"
	"slices"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
)

// FleetSink is the Sink that applies deltas to fleet. onChange, which may be nil, hears of every change in the order of its
// source; calls for different sources may overlap. A delta that the fleet refuses is logged and lost.
func FleetSink(fleet *inventory.Fleet, clk *clock.Clock, log *slog.Logger, onChange func([]inventory.Change)) Sink {
	if onChange == nil {
		onChange = func([]inventory.Change) {}
	}
	return &fleetSink{fleet, clk, log, onChange}
}

type fleetSink struct {
	fleet    *inventory.Fleet
	clock    *clock.Clock
	log      *slog.Logger
	onChange func([]inventory.Change)
}

func (s *fleetSink) Apply(d inventory.Delta) {
	changes, err := s.fleet.Apply(d, s.clock.Now())
	if err != nil {
		s.log.Error("delta refused", "source", d.Source, "err", err)
		return
	}
	if len(changes) > 0 {
		s.onChange(changes)
	}
}

func (s *fleetSink) Down(source string, err error) { s.fleet.Down(source, err) }

// Only is a Sink that takes of the samples just those of some metrics, and all else.
func Only(sink Sink, metrics inventory.MetricSet) Sink {
	if metrics.IsAll() {
		return sink
	}
	return &onlySink{sink, metrics}
}

type onlySink struct {
	Sink
	metrics inventory.MetricSet
}

func (s *onlySink) Apply(d inventory.Delta) {
	for i := range d.Samples {
		set := &d.Samples[i]
		set.Values = slices.DeleteFunc(set.Values, func(v inventory.Value) bool { return !s.metrics.Has(v.Metric) })
	}
	d.Samples = slices.DeleteFunc(d.Samples, func(set inventory.SampleSet) bool { return len(set.Values) == 0 })
	s.Sink.Apply(d)
}
