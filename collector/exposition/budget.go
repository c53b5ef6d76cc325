package exposition

import (
	"bytes"
	"log/slog"
)

// budget holds a source to the most series that may be shown of it.
//
// Facts are shown whatever they come to. Metrics that were measured follow in one fixed order: those of clusters, hosts, datastores,
// services and machines, then the VMs', each in the catalogue's order. Each is shown of all objects or withheld of all, from the first that does not
// fit: a sum over a metric is right or absent. What was withheld is shown again once it leaves a twentieth of the budget free, so
// that a VM that comes and goes does not take a metric with it each time.
type budget struct {
	shown, withheld int    // series
	open            int    // how many metrics are shown
	first           string // the first metric withheld, empty if none is
}

// measuredBlock is what a source has of a metric.
type measuredBlock struct {
	name string
	*block
}

// hold brings the budget up to date and marks the blocks that are withheld. max is 0 for no limit.
func (s *source) hold(name string, max int, log *slog.Logger) {
	facts, measured := s.lines()
	was := s.budget
	b := budget{shown: facts}
	fit := func(max int) (n int) {
		for left := max - facts; n < len(measured) && measured[n].lines <= left; n++ {
			left -= measured[n].lines
		}
		return n
	}
	switch n := fit(max); {
	case max == 0:
		b.open = len(measured)
	case s.held && n > was.open:
		b.open = was.open
		if roomy := fit(max - max/20); roomy > was.open {
			b.open = roomy
		}
	default:
		b.open = n
	}
	for i, m := range measured {
		if m.withheld = i >= b.open; m.withheld {
			b.withheld += m.lines
			if b.first == "" && m.lines > 0 {
				b.first = m.name
			}
		} else {
			b.shown += m.lines
		}
	}
	s.budget, s.held = b, true
	if b.first == was.first {
		return
	}
	if b.first == "" {
		log.Info("no series are withheld any more", "source", name, "max_series", max, "series", b.shown)
	} else {
		log.Error("series are withheld: the source has more than its budget", "source", name, "max_series", max,
			"series", b.shown, "withheld", b.withheld, "from_metric", b.first)
	}
}

// lines are how many lines the source's facts have, and its metrics in the order of the budget.
func (s *source) lines() (facts int, measured []measuredBlock) {
	for _, list := range [][]measuredBlock{
		s.clusters.measured(&facts), s.pools.measured(&facts), s.hosts.measured(&facts), s.datastores.measured(&facts), s.services.measured(&facts),
		s.machines.measured(&facts), s.vms.measured(&facts),
	} {
		measured = append(measured, list...)
	}
	return facts, measured
}

// measured are the table's metrics that were measured. What the others have is added to facts.
func (t *table[T]) measured(facts *int) (out []measuredBlock) {
	for i := range t.families {
		if t.families[i].shows == samples {
			out = append(out, measuredBlock{t.families[i].Name, &t.blocks[i]})
		} else {
			*facts += t.blocks[i].lines
		}
	}
	return out
}

// count is how many lines a block has: each slot one or none, unless the family writes several.
func (bl *block) count(several bool) (n int) {
	if several {
		return bytes.Count(bl.raw, []byte("\n"))
	}
	from := 0
	for _, end := range bl.ends {
		if end > from {
			n++
		}
		from = end
	}
	return n
}
