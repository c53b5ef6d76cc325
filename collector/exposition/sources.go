package exposition

import "github.com/protip/protip/internal/inventory"

// sourceFamilies are what the snapshot tells of each source itself.
func sourceFamilies() []Family {
	return []Family{
		{"protip_source_up", inventory.Gauge, "Whether the source answers (1) or not (0)."},
		{"protip_source_synced", inventory.Gauge, "Whether the source has listed everything at least once (1) or not (0): before, nothing is decided by it."},
		{"protip_source_last_success_timestamp_seconds", inventory.Gauge, "When the source last told anything, in Unix time."},
		{"protip_source_objects", inventory.Gauge, "Objects known of the source."},
		{"protip_source_stale_objects", inventory.Gauge, "Powered-on hosts and VMs, accessible datastores, services and machines of which a sample grew too old and is no longer shown."},
		{"protip_source_series", inventory.Gauge, "Series of the fleet that are shown of the source."},
		{"protip_source_series_withheld", inventory.Gauge, "Series that are not shown because the source has more than its budget."},
		{"protip_source_series_limit", inventory.Gauge, "The source's budget of series, if it has one."},
	}
}

// tally is what a source has, counted again only when it changes.
type tally struct {
	clusters, hosts, vms, datastores, services, pools, machines, networks int
	staleHosts, staleVMs, staleDatastores, staleServices, staleMachines   int
}

// appendSources appends one of the sources' families. What a source that was never synced has is not known, and not none.
func appendSources(b []byte, name string, snap *inventory.Snapshot, tallies map[string]*source) []byte {
	for _, src := range snap.Sources() {
		has := tallies[src.Name].tally
		line := func(kind string, v float64) {
			b = append(append(b, name...), `{source="`...)
			b = append(appendEscaped(b, src.Name), '"')
			if kind != "" {
				b = label(b, "kind", kind)
			}
			b = append(appendNumber(append(b, '}', ' '), v), '\n')
		}
		switch name {
		case "protip_source_up":
			v, _ := truth(src.Up, true)
			line("", v)
		case "protip_source_synced":
			v, _ := truth(src.Synced, true)
			line("", v)
		case "protip_source_last_success_timestamp_seconds":
			if !src.LastSuccess.IsZero() {
				line("", float64(src.LastSuccess.UnixMilli())/1e3)
			}
		case "protip_source_objects":
			if src.Synced {
				line(inventory.KindCluster.String(), float64(has.clusters))
				line(inventory.KindHost.String(), float64(has.hosts))
				line(inventory.KindVM.String(), float64(has.vms))
				line(inventory.KindDatastore.String(), float64(has.datastores))
				line(inventory.KindService.String(), float64(has.services))
				line(inventory.KindResourcePool.String(), float64(has.pools))
				line(inventory.KindMachine.String(), float64(has.machines))
				line(inventory.KindNetwork.String(), float64(has.networks))
			}
		case "protip_source_series":
			line("", float64(tallies[src.Name].budget.shown))
		case "protip_source_series_withheld":
			line("", float64(tallies[src.Name].budget.withheld))
		case "protip_source_series_limit":
			if src.MaxSeries > 0 {
				line("", float64(src.MaxSeries))
			}
		case "protip_source_stale_objects":
			if src.Synced {
				line(inventory.KindHost.String(), float64(has.staleHosts))
				line(inventory.KindVM.String(), float64(has.staleVMs))
				line(inventory.KindDatastore.String(), float64(has.staleDatastores))
				line(inventory.KindService.String(), float64(has.staleServices))
				line(inventory.KindMachine.String(), float64(has.staleMachines))
			}
		}
	}
	return b
}

func count[T any](objects []*T) int {
	n := 0
	for _, obj := range objects {
		if obj != nil {
			n++
		}
	}
	return n
}

// stale counts the objects that run and have lost the value of a sample.
func stale[T any](t inventory.Table[T], runs func(*T) bool) int {
	n := 0
	for slot, obj := range t.Facts {
		if obj != nil && runs(obj) && lost(t.Samples[slot]) {
			n++
		}
	}
	return n
}

func lost(samples inventory.Samples) bool {
	for _, s := range samples {
		if s.At != 0 && !s.OK() {
			return true
		}
	}
	return false
}
