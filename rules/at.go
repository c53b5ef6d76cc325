package rules

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/inventory"
)

// At is the fleet at one time of the past, put together from its series as a replay does it, with the values that the metrics had
// then. Sources are those that had an object; a source's platform is not known.
func At(ctx context.Context, past history.Querier, now time.Time, metrics ...inventory.Metric) (*inventory.Snapshot, error) {
	told := map[string]history.Vector{}
	ask := func(name string) (v history.Vector, err error) {
		if v, err = past.Query(ctx, name, now); err != nil {
			err = fmt.Errorf("fleet at %s: %s: %w", now.UTC().Format(time.RFC3339), name, err)
		}
		return v, err
	}
	var err error
	for _, name := range factFamilies {
		if told[name], err = ask(name); err != nil {
			return nil, err
		}
	}
	deltas := map[string]*inventory.Delta{}
	var sources []inventory.Source
	for source, have := range objectsOf(told) {
		d := &inventory.Delta{Source: source, Begin: true, Synced: true}
		for _, obj := range have {
			put(d, obj)
		}
		deltas[source] = d
		sources = append(sources, inventory.Source{Name: source, Platform: anyPlatform, Interval: lookback})
	}
	for _, m := range metrics {
		samples, err := ask(m.String())
		if err != nil {
			return nil, err
		}
		for _, s := range samples {
			if id, ok := idOf(s.Labels, m.Desc().Kind); ok && deltas[id.Source] != nil {
				d := deltas[id.Source]
				d.Samples = append(d.Samples, inventory.SampleSet{ID: id, At: now.UnixMilli(), Values: []inventory.Value{{Metric: m, Value: s.Value}}})
			}
		}
	}
	fleet := inventory.NewFleet(sources...)
	for _, name := range slices.Sorted(maps.Keys(deltas)) {
		if _, err := fleet.Apply(*deltas[name], now); err != nil {
			return nil, fmt.Errorf("fleet at %s: %w", now.UTC().Format(time.RFC3339), err)
		}
	}
	return fleet.Snapshot(), nil
}
