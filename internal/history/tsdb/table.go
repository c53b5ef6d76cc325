package tsdb

import (
	"errors"
	"slices"
	"strings"
	"unsafe"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/protip/protip/internal/history/promql"
	"github.com/protip/protip/internal/inventory"
)

// cycle is one append of a snapshot.
type cycle struct {
	app      storage.Appender
	at       int64 // Unix milliseconds
	refresh  int64 // what was last written at or before is written again, though it has not changed
	builder  *labels.ScratchBuilder
	written  int
	rejected int             // samples that the database would not take, such as two at one time
	first    map[uint64]bool // hashes of the series of this cycle, if they are wanted
}

// ref is a series in the database. The zero ref is of a series that has not been written.
type ref struct {
	id   storage.SeriesRef
	live bool // its last sample was a value, and no stale marker
}

// write appends a value to a series. Labels are built only for a series that the database does not know (any more).
func (c *cycle) write(r *ref, v float64, build func(*labels.ScratchBuilder)) {
	id, err := storage.SeriesRef(0), error(nil)
	if r.id != 0 && c.first == nil {
		id, err = c.app.Append(r.id, labels.EmptyLabels(), c.at, v)
	}
	if id == 0 && !refused(err) {
		c.builder.Reset()
		build(c.builder)
		c.builder.Sort()
		ls := c.builder.Labels()
		if id, err = c.app.Append(0, ls, c.at, v); err == nil && c.first != nil {
			c.first[ls.Hash()] = true
		}
	}
	if err != nil {
		c.rejected++
		return
	}
	r.id, r.live = id, true
	c.written++
}

// refused says that the series is known and that this sample of it is not wanted.
func refused(err error) bool {
	return errors.Is(err, storage.ErrOutOfOrderSample) || errors.Is(err, storage.ErrDuplicateSampleForTimestamp) || errors.Is(err, storage.ErrOutOfBounds)
}

// end marks a series as stale, if it is not yet.
func (c *cycle) end(r *ref) {
	if !r.live {
		return
	}
	r.live = false
	if _, err := c.app.Append(r.id, labels.EmptyLabels(), c.at, promql.Stale); err != nil {
		c.rejected++ // a series that the database has forgotten is over anyway
		return
	}
	c.written++
}

// table is what was last written of one kind of one source's objects.
type table[T any] struct {
	source   string
	facts    []family[T]
	measured []measured
	identify func(*T) identity
	rows     []row[T]
}

// measured is a family of samples, and where they lie among an object's.
type measured struct {
	name string
	at   int
}

// identity are the labels of an object's own that all of its series carry.
type identity struct {
	nameLabel, name string
	refLabel, ref   string
}

// row is one object. It compares pointers with the last snapshot, so that what did not change costs next to nothing.
type row[T any] struct {
	object  *T
	samples inventory.Samples
	place   place
	full    int64 // when all of it was last written
	facts   []known
	refs    []ref // of the measured families
}

// known is one series of a fact.
type known struct {
	ref
	name   string
	labels []string
	value  float64
}

func newTable[T any](source string, kind inventory.Kind, facts []family[T], keep map[string]bool, identify func(*T) identity) *table[T] {
	t := &table[T]{source: source, identify: identify}
	for _, f := range facts {
		if keep[f.name] {
			t.facts = append(t.facts, f)
		}
	}
	for i, m := range inventory.MetricsOf(kind) {
		if keep[m.String()] {
			t.measured = append(t.measured, measured{m.String(), i})
		}
	}
	return t
}

// append writes what has changed, marks what is over, and repeats what would otherwise be looked for in vain. locate tells
// where an object is; nil if nothing has moved.
func (t *table[T]) append(c *cycle, next inventory.Table[T], locate func(*T) place) {
	for slot := len(next.Facts); slot < len(t.rows); slot++ { // another fleet: slots never go away
		t.drop(c, &t.rows[slot])
	}
	for len(t.rows) < len(next.Facts) {
		t.rows = append(t.rows, row[T]{})
	}
	for slot, obj := range next.Facts {
		r := &t.rows[slot]
		if obj == nil {
			if r.object != nil {
				t.drop(c, r)
			}
			continue
		}
		var samples inventory.Samples
		if slot < len(next.Samples) {
			samples = next.Samples[slot]
		}
		t.update(c, r, obj, samples, locate)
	}
}

func (t *table[T]) update(c *cycle, r *row[T], obj *T, samples inventory.Samples, locate func(*T) place) {
	if r.object != nil && obj != r.object && t.identify(obj) != t.identify(r.object) {
		t.drop(c, r) // renamed, or another object in its slot
	}
	due := r.full <= c.refresh
	at := r.place
	if locate != nil {
		at = locate(obj)
	}
	if obj != r.object || at != r.place {
		r.object, r.place = obj, at
		t.learn(c, r)
	}
	if due {
		for i := range r.facts {
			t.writeFact(c, r, &r.facts[i])
		}
		r.full = c.at
	}
	if due || !same(samples, r.samples) {
		t.measure(c, r, samples, due)
		r.samples = samples
	}
}

// learn brings an object's facts up to date and writes those that have changed.
func (t *table[T]) learn(c *cycle, r *row[T]) {
	old := r.facts
	r.facts = make([]known, 0, max(len(old), len(t.facts)))
	for _, f := range t.facts {
		f.each(r.object, r.place, func(v float64, labels ...string) {
			next := known{name: f.name, labels: labels, value: v}
			i := slices.IndexFunc(old, func(o known) bool { return o.name == f.name && slices.Equal(o.labels, labels) })
			if i < 0 {
				r.facts = append(r.facts, next)
				return
			}
			next.ref, old[i].ref = old[i].ref, ref{}
			next.live = next.live && old[i].value == v // to be written below otherwise
			r.facts = append(r.facts, next)
		})
	}
	for i := range old { // before the new ones: at no time are there two
		c.end(&old[i].ref)
	}
	for i := range r.facts {
		if !r.facts[i].live && r.full > c.refresh { // all is written anyway if it is due
			t.writeFact(c, r, &r.facts[i])
		}
	}
}

func (t *table[T]) writeFact(c *cycle, r *row[T], k *known) {
	c.write(&k.ref, k.value, func(b *labels.ScratchBuilder) {
		t.identify(r.object).add(b, t.source, k.name)
		for i := 0; i+1 < len(k.labels); i += 2 {
			add(b, k.labels[i], k.labels[i+1])
		}
	})
}

// measure writes an object's samples that are new, all that are true if it is due, and marks those that are over.
func (t *table[T]) measure(c *cycle, r *row[T], samples inventory.Samples, due bool) {
	if r.refs == nil {
		r.refs = make([]ref, len(t.measured))
	}
	for i, m := range t.measured {
		var now, before inventory.Sample
		if m.at < len(samples) {
			now = samples[m.at]
		}
		if m.at < len(r.samples) {
			before = r.samples[m.at]
		}
		switch {
		case !now.OK():
			c.end(&r.refs[i])
		case due || now.At != before.At || !r.refs[i].live:
			c.write(&r.refs[i], now.Value, func(b *labels.ScratchBuilder) { t.identify(r.object).add(b, t.source, m.name) })
		}
	}
}

// drop ends all series of an object.
func (t *table[T]) drop(c *cycle, r *row[T]) {
	for i := range r.facts {
		c.end(&r.facts[i].ref)
	}
	for i := range r.refs {
		c.end(&r.refs[i])
	}
	*r = row[T]{}
}

func (id identity) add(b *labels.ScratchBuilder, source, name string) {
	add(b, model.MetricNameLabel, name)
	add(b, "source", source)
	add(b, id.nameLabel, id.name)
	add(b, id.refLabel, id.ref)
}

// add adds a label as the exposition would: a label without a value is none, and what is no UTF-8 is replaced.
func add(b *labels.ScratchBuilder, name, value string) {
	if value != "" {
		b.Add(name, strings.ToValidUTF8(value, "\uFFFD"))
	}
}

// same reports whether two slices are one: the inventory never writes to a slice that it has published.
func same[E any](a, b []E) bool {
	return len(a) == len(b) && unsafe.SliceData(a) == unsafe.SliceData(b)
}
