package inventory

import (
	"maps"
	"math"
	"reflect"
	"slices"
	"sync"
)

// column holds one kind's objects of one source. A slot is an object's place for its whole life; an empty slot holds nil
// and is used again. Snapshots share a column's slices and maps, so only an editor writes, and only to copies of its own.
type column[T any] struct {
	index   map[string]int // ref -> slot
	free    []int
	facts   []*T
	samples []Samples
	byHost  func() map[ID][]int // slots of VMs by host, made when first asked for
}

func newColumn[T any]() column[T] {
	c := column[T]{index: map[string]int{}}
	c.byHost = indexByHost(c.facts)
	return c
}

func indexByHost[T any](facts []*T) func() map[ID][]int {
	return sync.OnceValue(func() map[ID][]int {
		by := map[ID][]int{}
		for slot, obj := range facts {
			if obj != nil {
				host := hostOf(obj)
				by[host] = append(by[host], slot)
			}
		}
		return by
	})
}

// editor changes a column by copying each part of it when first touched: cost grows with what a delta changes.
type editor[T any] struct {
	column[T]
	ownIndex, ownFacts, ownSamples bool

	spare    Samples // allocated and not yet used
	together int     // how many objects' samples were allocated at once
}

func edit[T any](c column[T]) *editor[T] { return &editor[T]{column: c} }

// done is the edited column.
func (e *editor[T]) done() column[T] {
	if e.ownFacts {
		e.byHost = indexByHost(e.facts)
	}
	return e.column
}

func (e *editor[T]) writeIndex() {
	if !e.ownIndex {
		e.index, e.free, e.ownIndex = maps.Clone(e.index), slices.Clone(e.free), true
	}
}

func (e *editor[T]) writeFacts() {
	if !e.ownFacts {
		e.facts, e.ownFacts = slices.Clone(e.facts), true
	}
}

func (e *editor[T]) writeSamples() {
	if !e.ownSamples {
		e.samples, e.ownSamples = slices.Clone(e.samples), true
	}
}

// put stores an object's facts and returns what that changed, nil if nothing.
func (e *editor[T]) put(id ID, obj *T) *Change {
	slot, known := e.index[id.Ref]
	if !known {
		e.add(id.Ref, obj)
		return &Change{Kind: Added, Source: id.Source, ID: id, Name: nameOf(obj), To: hostOf(obj)}
	}
	was := e.facts[slot]
	if reflect.DeepEqual(was, obj) {
		return nil
	}
	e.writeFacts()
	e.facts[slot] = obj
	c := &Change{Kind: Updated, Source: id.Source, ID: id, Name: nameOf(obj)}
	if from, to := hostOf(was), hostOf(obj); from != to {
		c.Kind, c.From, c.To = Moved, from, to
	}
	return c
}

func (e *editor[T]) add(ref string, obj *T) {
	e.writeIndex()
	e.writeFacts()
	e.writeSamples()
	if n := len(e.free); n > 0 {
		slot := e.free[n-1]
		e.free = e.free[:n-1]
		e.index[ref], e.facts[slot] = slot, obj
		return
	}
	e.index[ref] = len(e.facts)
	e.facts = append(e.facts, obj)
	e.samples = append(e.samples, nil)
}

// drop takes an object out and returns the change, nil if it was not known.
func (e *editor[T]) drop(id ID) *Change {
	slot, known := e.index[id.Ref]
	if !known {
		return nil
	}
	e.writeIndex()
	e.writeFacts()
	e.writeSamples()
	c := &Change{Kind: Removed, Source: id.Source, ID: id, Name: nameOf(e.facts[slot])}
	delete(e.index, id.Ref)
	e.facts[slot], e.samples[slot] = nil, nil
	e.free = append(e.free, slot)
	return c
}

// sample lays a set's values over the object's last samples. A set of an object that is not known is dropped.
func (e *editor[T]) sample(set *SampleSet) {
	slot, known := e.index[set.ID.Ref]
	if !known {
		return
	}
	first, end := span(set.ID.Kind)
	next := e.room(int(end - first))
	copy(next, e.samples[slot])
	for _, v := range set.Values {
		if v.Metric >= first && v.Metric < end {
			next[v.Metric-first] = Sample{v.Value, set.At}
		}
	}
	e.writeSamples()
	e.samples[slot] = next
}

// maxTogether is how many objects' samples are allocated together. An object that is sampled no more keeps its neighbours' from
// being freed, so that it must not be many.
const maxTogether = 32

// room is a place for n samples.
func (e *editor[T]) room(n int) Samples {
	if len(e.spare) < n {
		e.together = min(max(2*e.together, 1), maxTogether)
		e.spare = make(Samples, e.together*n)
	}
	next := e.spare[:n:n]
	e.spare = e.spare[n:]
	return next
}

// expire takes the value of every sample that is older than its metric's oldest (Unix milliseconds) and reports whether there
// was one. All objects are of one kind, whose first metric is first.
func (e *editor[T]) expire(first Metric, oldest *[metricCount]int64) bool {
	hit := false
	for slot, samples := range e.samples {
		var next Samples
		for i, s := range samples {
			if s.OK() && s.At < oldest[first+Metric(i)] {
				if next == nil {
					next = slices.Clone(samples)
				}
				next[i].Value = math.NaN()
			}
		}
		if next != nil {
			hit = true
			e.writeSamples()
			e.samples[slot] = next
		}
	}
	return hit
}

// unseen are the objects whose ref is not in seen.
func (e *editor[T]) unseen(source string, kind Kind, seen map[ID]bool) []ID {
	var out []ID
	for ref := range e.index {
		if id := (ID{source, kind, ref}); !seen[id] {
			out = append(out, id)
		}
	}
	slices.SortFunc(out, func(a, b ID) int { return e.index[a.Ref] - e.index[b.Ref] })
	return out
}

func nameOf(obj any) string {
	switch o := obj.(type) {
	case *Cluster:
		return o.Name
	case *Host:
		return o.Name
	case *VM:
		return o.Name
	case *Datastore:
		return o.Name
	case *Service:
		return o.Name
	case *ResourcePool:
		return o.Name
	case *Machine:
		return o.Name
	case *Network:
		return o.Name
	}
	return ""
}

func hostOf(obj any) ID {
	if vm, ok := obj.(*VM); ok {
		return vm.Host
	}
	return ID{}
}
