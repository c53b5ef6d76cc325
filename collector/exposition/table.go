package exposition

import (
	"unsafe"

	"github.com/protip/protip/internal/inventory"
)

// table is one kind of one source's objects, rendered: a block for each family, in it a slot for each object.
type table[T any] struct {
	source   string
	families []family[T]
	identify func(b []byte, source string, obj *T) []byte

	blocks []block // by family
	last   inventory.Table[T]
	rows   []row[T]
	dirty  []change // by slot, of the update under way
}

// block is the lines of one family of one source. Its bytes are never written to once others may read them.
type block struct {
	raw  []byte
	ends []int // of each slot's lines in raw

	lines    int  // in raw
	withheld bool // not shown, for want of budget

	zipped []byte // raw, deflated; nil until asked for
	crc    uint32 // of raw, once zipped
	shift  uint32 // what appending raw does to a CRC, once zipped
}

func newTable[T any](source string, families []family[T], identify func([]byte, string, *T) []byte) table[T] {
	return table[T]{source: source, families: families, identify: identify, blocks: make([]block, len(families))}
}

// update renders the slots that changed since the last table. locate tells where an object is; nil if nothing has moved.
func (t *table[T]) update(next inventory.Table[T], locate func(*T) where, f *fleet) {
	if len(next.Facts) < len(t.rows) { // another fleet: slots never go away
		*t = newTable(t.source, t.families, t.identify)
	}
	changed := t.compare(next, locate)
	t.last = next
	for i := range t.families {
		if t.families[i].shows&changed != 0 {
			t.render(i, &f.free)
			f.zip.drop(&t.blocks[i])
		}
	}
}

// compare brings the rows up to date, marks the slots that changed, and tells what of any of them did. New facts may be a new
// name, which all of an object's lines show.
func (t *table[T]) compare(next inventory.Table[T], locate func(*T) where) (all change) {
	oldFacts, oldSamples := t.last.Facts, t.last.Samples
	if locate == nil && same(next.Facts, oldFacts) && same(next.Samples, oldSamples) {
		return 0
	}
	for len(t.rows) < len(next.Facts) {
		t.rows, t.dirty = append(t.rows, row[T]{}), append(t.dirty, 0)
	}
	for slot, obj := range next.Facts {
		r, d := &t.rows[slot], change(0)
		if obj != r.object {
			d = facts | samples | place
			r.object, r.where, r.identity = obj, where{}, r.identity[:0]
			if obj != nil {
				r.identity = t.identify(r.identity, t.source, obj)
			}
		}
		if slot < len(next.Samples) && !same(next.Samples[slot], r.samples) {
			d |= samples
			r.samples = next.Samples[slot]
		}
		if obj != nil && locate != nil {
			if at := locate(obj); at != r.where {
				d |= place
				r.where = at
			}
		}
		t.dirty[slot] = d
		all |= d
	}
	return all
}

// render makes a family's block anew: slots that did not change are copied in runs.
func (t *table[T]) render(i int, free *freelist) {
	fam, old := &t.families[i], t.blocks[i]
	b := free.get(len(old.raw) + len(old.raw)/8)
	ends := make([]int, 0, len(t.rows))
	copied := 0 // slots of old that are in b or not wanted
	for slot := range t.rows {
		if slot < len(old.ends) && t.dirty[slot]&fam.shows == 0 {
			continue
		}
		b, ends = old.appendSlots(b, ends, copied, min(slot, len(old.ends)))
		copied = slot + 1
		if r := &t.rows[slot]; r.object != nil {
			b = fam.line(b, r)
		}
		ends = append(ends, len(b))
	}
	b, ends = old.appendSlots(b, ends, copied, len(old.ends))
	t.blocks[i].raw, t.blocks[i].ends = b, ends
	t.blocks[i].lines = t.blocks[i].count(fam.each != nil)
	free.put(old.raw)
}

// appendSlots copies the lines of the slots [from, to).
func (bl *block) appendSlots(b []byte, ends []int, from, to int) ([]byte, []int) {
	if from >= to {
		return b, ends
	}
	begin := 0
	if from > 0 {
		begin = bl.ends[from-1]
	}
	shift := len(b) - begin
	b = append(b, bl.raw[begin:bl.ends[to-1]]...)
	for _, end := range bl.ends[from:to] {
		ends = append(ends, end+shift)
	}
	return b, ends
}

// line appends an object's line, if it has a value, or its lines.
func (f *family[T]) line(b []byte, r *row[T]) []byte {
	if f.each != nil {
		return f.lines(b, r)
	}
	v, ok := f.value(r)
	if !ok {
		return b
	}
	b = f.begin(b, r)
	if f.labels != nil {
		b = f.labels(b, r)
	}
	return end(b, v)
}

// lines is line for a family of several lines an object. It stands apart because b, which the closure changes, is then allocated.
func (f *family[T]) lines(b []byte, r *row[T]) []byte {
	f.each(r, func(v float64, labels ...string) {
		b = f.begin(b, r)
		for i := 0; i+1 < len(labels); i += 2 {
			b = label(b, labels[i], labels[i+1])
		}
		b = end(b, v)
	})
	return b
}

func (f *family[T]) begin(b []byte, r *row[T]) []byte {
	b = append(b, f.Name...)
	b = append(b, '{')
	return append(b, r.identity...)
}

func end(b []byte, v float64) []byte { return append(appendNumber(append(b, '}', ' '), v), '\n') }

// same reports whether two slices are one: the inventory never writes to a slice that it has published.
func same[E any](a, b []E) bool {
	return len(a) == len(b) && unsafe.SliceData(a) == unsafe.SliceData(b)
}

// freelist keeps the bytes that an update no longer needs for the next block, which is about as long. Bytes that a scrape may
// still be writing out are left to the garbage collector.
type freelist struct {
	alone bool
	spare []byte
}

func (f *freelist) use(alone bool) {
	if f.alone = alone; !alone {
		f.spare = nil
	}
}

func (f *freelist) get(size int) []byte {
	if b := f.spare; cap(b) >= size && cap(b) <= 2*size {
		f.spare = nil
		return b[:0]
	}
	return make([]byte, 0, size)
}

func (f *freelist) put(b []byte) {
	if f.alone && cap(b) > cap(f.spare) {
		f.spare = b
	}
}
