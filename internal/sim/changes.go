package sim

import (
	"strings"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// changeLog hears every change of the registry and marks in each filter what its collector must look at. It costs a change one
// map look-up per filter; values are read when a collector asks, so many changes of one property become one.
//
// The registry calls it with the changed object locked: it takes no lock but its own.
type changeLog struct {
	Self types.ManagedObjectReference

	mu      sync.Mutex
	filters map[*filter]struct{}
}

var _ simulator.RegisterObject = (*changeLog)(nil)

// filter is a PropertyFilter: which objects, which properties. What is below spec belongs to the changeLog's lock.
type filter struct {
	ref   types.ManagedObjectReference
	spec  types.PropertyFilterSpec
	paths map[string]struct{} // of all types, without [key]
	all   bool                // some type is wanted whole
	owner *collector

	fresh     bool                                  // nothing was told yet
	reselect  bool                                  // the objects must be selected anew
	members   map[types.ManagedObjectReference]bool // true: the client knows it
	traversed map[types.ManagedObjectReference]map[string]struct{}
	dirty     map[types.ManagedObjectReference]map[string]struct{} // property names in the filter's words
	left      []types.ManagedObjectReference
}

func newChangeLog() *changeLog {
	return &changeLog{
		Self:    types.ManagedObjectReference{Type: "ChangeLog", Value: "changes"},
		filters: map[*filter]struct{}{},
	}
}

func newFilter(ref types.ManagedObjectReference, spec types.PropertyFilterSpec, owner *collector) *filter {
	f := &filter{ref: ref, spec: spec, owner: owner, fresh: true, paths: map[string]struct{}{}}
	f.clear()
	for _, set := range spec.PropSet {
		f.all = f.all || set.All != nil && *set.All
		for _, path := range set.PathSet {
			f.paths[path] = struct{}{}
		}
	}
	return f
}

func (f *filter) clear() {
	f.members = map[types.ManagedObjectReference]bool{}
	f.traversed = map[types.ManagedObjectReference]map[string]struct{}{}
	f.dirty = map[types.ManagedObjectReference]map[string]struct{}{}
	f.left, f.reselect = nil, false
}

func (l *changeLog) add(f *filter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.filters[f] = struct{}{}
}

func (l *changeLog) drop(f *filter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.filters, f)
}

// Reference makes the log an object that the registry can tell of changes.
func (l *changeLog) Reference() types.ManagedObjectReference { return l.Self }

// PutObject has nothing to do: a new object is seen when the view or list that leads to it changes.
func (*changeLog) PutObject(*simulator.Context, mo.Reference) {}

// UpdateObject marks what the change touches.
func (l *changeLog) UpdateObject(_ *simulator.Context, obj mo.Reference, changes []types.PropertyChange) {
	ref := obj.Reference()
	l.mu.Lock()
	defer l.mu.Unlock()
	for f := range l.filters {
		if f.fresh {
			continue
		}
		touched := false
		for i := range changes {
			touched = f.note(ref, changes[i].Name) || touched
		}
		if touched {
			f.owner.wakeUp()
		}
	}
}

// RemoveObject marks the object as gone where it was a member.
func (l *changeLog) RemoveObject(_ *simulator.Context, ref types.ManagedObjectReference) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for f := range l.filters {
		if f.remove(ref) {
			f.owner.wakeUp()
		}
	}
}

func (f *filter) note(ref types.ManagedObjectReference, name string) bool {
	touched := false
	for path := range f.traversed[ref] {
		if overlap(path, name) {
			f.reselect, touched = true, true
		}
	}
	if _, member := f.members[ref]; !member {
		return touched
	}
	for path := range f.paths {
		if overlap(path, name) {
			f.mark(ref, path)
			touched = true
		}
	}
	if f.all {
		top, _, _ := strings.Cut(name, ".")
		f.mark(ref, top)
		touched = true
	}
	return touched
}

func (f *filter) mark(ref types.ManagedObjectReference, path string) {
	if f.dirty[ref] == nil {
		f.dirty[ref] = map[string]struct{}{}
	}
	f.dirty[ref][path] = struct{}{}
}

// remove takes a member out and reports whether the client must hear of it.
func (f *filter) remove(ref types.ManagedObjectReference) bool {
	known, member := f.members[ref]
	if !member {
		return false
	}
	delete(f.members, ref)
	delete(f.dirty, ref)
	if known {
		f.left = append(f.left, ref)
	}
	return known
}

// overlap reports whether one of two property paths is the other or lies within it; a [key] counts as its whole array.
func overlap(a, b string) bool {
	a, _, _ = strings.Cut(a, "[")
	b, _, _ = strings.Cut(b, "[")
	if len(a) > len(b) {
		a, b = b, a
	}
	return strings.HasPrefix(b, a) && (len(a) == len(b) || b[len(a)] == '.')
}
