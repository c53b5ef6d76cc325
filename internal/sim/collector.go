package sim

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// collector is a PropertyCollector of one session. Each answer to WaitForUpdatesEx has a version; the next request names it.
type collector struct {
	ref types.ManagedObjectReference
	log *changeLog
	// wake holds a token while a filter has something to tell.
	wake chan struct{}

	turn sync.Mutex // held by the one call that computes updates

	mu      sync.Mutex
	filters []*filter
	cancel  context.CancelFunc // ends the call that waits

	// Guarded by turn.
	version int
	pending []pendingUpdate // computed and not yet told
}

type pendingUpdate struct {
	filter types.ManagedObjectReference
	update types.ObjectUpdate
}

const (
	maxUpdates = 100                   // of objects in one answer, a vCenter's own limit
	settle     = 10 * time.Millisecond // real time for changes to gather after the first
)

func newCollector(ref types.ManagedObjectReference, log *changeLog) *collector {
	return &collector{ref: ref, log: log, wake: make(chan struct{}, 1)}
}

func (c *collector) wakeUp() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *collector) destroy() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancel != nil {
		c.cancel()
	}
	for _, f := range c.filters {
		c.log.drop(f)
	}
	c.filters = nil
}

// collector is the session's collector of that reference, nil if it has none. The one that all sessions are born with is
// each session's own.
func (g *gateway) collector(ctx *simulator.Context, ref types.ManagedObjectReference) *collector {
	s := g.session(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	c, ok := s.collectors[ref]
	if !ok && ref == g.vc.content().PropertyCollector {
		c = newCollector(ref, g.vc.changes)
		s.collectors[ref] = c
	}
	return c
}

// CreatePropertyCollector makes a further collector for the session.
func (g *gateway) CreatePropertyCollector(ctx *simulator.Context, _ *types.CreatePropertyCollector) soap.HasFault {
	s := g.session(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.made++
	ref := types.ManagedObjectReference{Type: "PropertyCollector", Value: fmt.Sprintf("session[%s]%d", ctx.Session.Key, g.made)}
	s.collectors[ref] = newCollector(ref, g.vc.changes)
	return &methods.CreatePropertyCollectorBody{Res: &types.CreatePropertyCollectorResponse{Returnval: ref}}
}

// DestroyPropertyCollector ends a collector, its filters and a call that waits on it.
func (g *gateway) DestroyPropertyCollector(ctx *simulator.Context, req *types.DestroyPropertyCollector) soap.HasFault {
	body := &methods.DestroyPropertyCollectorBody{}
	c := g.collector(ctx, req.This)
	if c == nil {
		body.Fault_ = notFound(req.This)
		return body
	}
	c.destroy()
	g.mu.Lock()
	if s, ok := g.sessions[ctx.Session.Key]; ok {
		delete(s.collectors, req.This)
	}
	g.mu.Unlock()
	body.Res = &types.DestroyPropertyCollectorResponse{}
	return body
}

// CreateFilter adds a filter; its objects come with the next update.
func (g *gateway) CreateFilter(ctx *simulator.Context, req *types.CreateFilter) soap.HasFault {
	body := &methods.CreateFilterBody{}
	c := g.collector(ctx, req.This)
	if c == nil {
		body.Fault_ = notFound(req.This)
		return body
	}
	for _, obj := range req.Spec.ObjectSet {
		if ctx.Session.Get(obj.Obj) == nil {
			body.Fault_ = notFound(obj.Obj)
			return body
		}
	}
	g.mu.Lock()
	g.made++
	ref := types.ManagedObjectReference{Type: "PropertyFilter", Value: fmt.Sprintf("session[%s]%d", ctx.Session.Key, g.made)}
	g.mu.Unlock()
	f := newFilter(ref, req.Spec, c)
	g.vc.changes.add(f)
	c.mu.Lock()
	c.filters = append(c.filters, f)
	c.mu.Unlock()
	c.wakeUp()
	body.Res = &types.CreateFilterResponse{Returnval: ref}
	return body
}

// DestroyPropertyFilter takes a filter out of its collector.
func (g *gateway) DestroyPropertyFilter(ctx *simulator.Context, req *types.DestroyPropertyFilter) soap.HasFault {
	s := g.session(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range s.collectors {
		if c.dropFilter(req.This) {
			return &methods.DestroyPropertyFilterBody{Res: &types.DestroyPropertyFilterResponse{}}
		}
	}
	return &methods.DestroyPropertyFilterBody{Fault_: notFound(req.This)}
}

func (c *collector) dropFilter(ref types.ManagedObjectReference) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.filters, func(f *filter) bool { return f.ref == ref })
	if i < 0 {
		return false
	}
	c.log.drop(c.filters[i])
	c.filters = slices.Delete(c.filters, i, i+1)
	return true
}

// CancelWaitForUpdates ends the call that waits.
func (g *gateway) CancelWaitForUpdates(ctx *simulator.Context, req *types.CancelWaitForUpdates) soap.HasFault {
	if c := g.collector(ctx, req.This); c != nil {
		c.mu.Lock()
		if c.cancel != nil {
			c.cancel()
		}
		c.mu.Unlock()
	}
	return &methods.CancelWaitForUpdatesBody{Res: &types.CancelWaitForUpdatesResponse{}}
}

// WaitForUpdates is WaitForUpdatesEx as it was before.
func (g *gateway) WaitForUpdates(ctx *simulator.Context, req *types.WaitForUpdates) soap.HasFault {
	body := &methods.WaitForUpdatesBody{}
	set, fault := g.updates(ctx, req.This, req.Version, nil)
	if body.Fault_ = fault; fault == nil {
		body.Res = &types.WaitForUpdatesResponse{Returnval: *set}
	}
	return body
}

// CheckForUpdates is WaitForUpdatesEx without waiting.
func (g *gateway) CheckForUpdates(ctx *simulator.Context, req *types.CheckForUpdates) soap.HasFault {
	body := &methods.CheckForUpdatesBody{}
	set, fault := g.updates(ctx, req.This, req.Version, &types.WaitOptions{MaxWaitSeconds: types.NewInt32(0)})
	if body.Fault_ = fault; fault == nil {
		body.Res = &types.CheckForUpdatesResponse{Returnval: set}
	}
	return body
}

// WaitForUpdatesEx tells what entered, changed and left since the version.
func (g *gateway) WaitForUpdatesEx(ctx *simulator.Context, req *types.WaitForUpdatesEx) soap.HasFault {
	body := &methods.WaitForUpdatesExBody{}
	set, fault := g.updates(ctx, req.This, req.Version, req.Options)
	if body.Fault_ = fault; fault == nil {
		body.Res = &types.WaitForUpdatesExResponse{Returnval: set}
	}
	return body
}

// updates waits until there is something to tell or the time is over; then the set is nil.
func (g *gateway) updates(ctx *simulator.Context, ref types.ManagedObjectReference, version string, opts *types.WaitOptions) (*types.UpdateSet, *soap.Fault) {
	c := g.collector(ctx, ref)
	if c == nil {
		return nil, notFound(ref)
	}
	if opts == nil {
		opts = &types.WaitOptions{}
	}
	wait, cancel := context.WithCancel(context.Background())
	if opts.MaxWaitSeconds != nil {
		wait, cancel = context.WithTimeout(context.Background(), time.Duration(*opts.MaxWaitSeconds)*time.Second)
	}
	defer cancel()
	c.begin(cancel)
	defer c.turn.Unlock()

	switch {
	case version == "":
		c.restart()
	case version != strconv.Itoa(c.version):
		return nil, simulator.Fault("", &types.InvalidCollectorVersion{})
	}
	stopped := g.vc.stopped()
	for {
		if len(c.pending) == 0 {
			if fault := c.compute(ctx, g); fault != nil {
				return nil, fault
			}
		}
		if len(c.pending) > 0 || version == "" {
			return c.page(int(opts.MaxObjectUpdates)), nil
		}
		if opts.MaxWaitSeconds != nil && *opts.MaxWaitSeconds == 0 {
			return nil, nil
		}
		select {
		case <-c.wake:
			time.Sleep(settle)
		case <-stopped:
			return nil, simulator.Fault("", &types.RequestCanceled{})
		case <-wait.Done():
			if wait.Err() == context.DeadlineExceeded {
				return nil, nil
			}
			return nil, simulator.Fault("", &types.RequestCanceled{})
		}
	}
}

// begin takes the turn; a call that still waits gives it up. Its client has gone: one that has not makes one call at a time.
func (c *collector) begin(cancel context.CancelFunc) {
	c.mu.Lock()
	if c.cancel != nil {
		c.cancel()
	}
	c.cancel = cancel
	c.mu.Unlock()
	c.turn.Lock()
}

// restart forgets what the client knows.
func (c *collector) restart() {
	c.pending = nil
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	for _, f := range c.filters {
		f.clear()
		f.fresh = true
	}
}

// page takes the next updates out of pending, at most that many objects.
func (c *collector) page(limit int) *types.UpdateSet {
	if limit <= 0 || limit > maxUpdates {
		limit = maxUpdates
	}
	now := c.pending[:min(limit, len(c.pending))]
	c.pending = c.pending[len(now):]
	c.version++
	set := &types.UpdateSet{Version: strconv.Itoa(c.version), Truncated: types.NewBool(len(c.pending) > 0)}
	for _, u := range now {
		if n := len(set.FilterSet); n == 0 || set.FilterSet[n-1].Filter != u.filter {
			set.FilterSet = append(set.FilterSet, types.PropertyFilterUpdate{Filter: u.filter})
		}
		last := &set.FilterSet[len(set.FilterSet)-1]
		last.ObjectSet = append(last.ObjectSet, u.update)
	}
	return set
}

// compute fills pending with what all filters have to tell.
func (c *collector) compute(ctx *simulator.Context, g *gateway) *soap.Fault {
	c.mu.Lock()
	filters := slices.Clone(c.filters)
	c.mu.Unlock()
	g.vc.shape.RLock()
	defer g.vc.shape.RUnlock()
	for _, f := range filters {
		updates, fault := g.changesOf(ctx, f)
		if fault != nil {
			return fault
		}
		for _, u := range updates {
			c.pending = append(c.pending, pendingUpdate{f.ref, u})
		}
	}
	return nil
}

// changesOf is what a filter has to tell. Marks are taken before values are read, so a change in between is told twice and
// never lost.
func (g *gateway) changesOf(ctx *simulator.Context, f *filter) ([]types.ObjectUpdate, *soap.Fault) {
	log := f.owner.log
	log.mu.Lock()
	dirty, left, reselect := f.dirty, f.left, f.fresh || f.reselect
	f.dirty, f.left = map[types.ManagedObjectReference]map[string]struct{}{}, nil
	f.fresh, f.reselect = false, false
	log.mu.Unlock()

	var updates []types.ObjectUpdate
	var entering []types.ManagedObjectReference
	if reselect {
		selected, err := g.selectObjects(ctx, f)
		if err != nil {
			return nil, err
		}
		var gone []types.ManagedObjectReference
		entering, gone = f.replaceMembers(selected)
		left = append(left, gone...)
	}
	for _, ref := range left {
		updates = append(updates, types.ObjectUpdate{Kind: types.ObjectUpdateKindLeave, Obj: ref})
		delete(dirty, ref)
	}
	if len(entering) > 0 {
		if wantsQuickStats(f.spec.PropSet) {
			g.vc.refreshQuickStats(ctx)
		}
		updates = append(updates, f.enter(entering, g.collect(ctx, f, entering))...)
	}
	changed := make([]types.ManagedObjectReference, 0, len(dirty))
	for ref := range dirty {
		changed = append(changed, ref)
	}
	slices.SortFunc(changed, compareRefs)
	for _, content := range g.collect(ctx, f, changed) {
		if u := modified(content, dirty[content.Obj]); len(u.ChangeSet) > 0 {
			updates = append(updates, u)
		}
	}
	return updates, nil
}

// replaceMembers makes the selected objects the filter's members and returns who came and, of those the client knows, who went.
func (f *filter) replaceMembers(selected []types.ManagedObjectReference) (entering, gone []types.ManagedObjectReference) {
	log := f.owner.log
	log.mu.Lock()
	defer log.mu.Unlock()
	members := make(map[types.ManagedObjectReference]bool, len(selected))
	for _, ref := range selected {
		known, member := f.members[ref]
		members[ref] = known
		if !member {
			entering = append(entering, ref)
		}
	}
	for ref, known := range f.members {
		if _, stays := members[ref]; !stays && known {
			gone = append(gone, ref)
		}
	}
	f.members = members
	return entering, gone
}

// enter tells of new members what was collected of them. One that was not (it is of a type that the filter does not want, or
// went meanwhile) is no member.
func (f *filter) enter(entering []types.ManagedObjectReference, collected []types.ObjectContent) []types.ObjectUpdate {
	log := f.owner.log
	log.mu.Lock()
	defer log.mu.Unlock()
	var updates []types.ObjectUpdate
	for _, content := range collected {
		if _, member := f.members[content.Obj]; !member {
			continue
		}
		f.members[content.Obj] = true
		u := types.ObjectUpdate{Kind: types.ObjectUpdateKindEnter, Obj: content.Obj, MissingSet: content.MissingSet}
		for _, p := range content.PropSet {
			u.ChangeSet = append(u.ChangeSet, types.PropertyChange{Name: p.Name, Op: types.PropertyChangeOpAssign, Val: p.Val})
		}
		updates = append(updates, u)
	}
	for _, ref := range entering {
		if known, member := f.members[ref]; member && !known {
			delete(f.members, ref)
		}
	}
	return updates
}

// modified tells the marked properties of an object; one that has no value any more is told without one.
func modified(content types.ObjectContent, names map[string]struct{}) types.ObjectUpdate {
	u := types.ObjectUpdate{Kind: types.ObjectUpdateKindModify, Obj: content.Obj}
	told := map[string]struct{}{}
	for _, p := range content.PropSet {
		if _, marked := names[p.Name]; marked {
			u.ChangeSet = append(u.ChangeSet, types.PropertyChange{Name: p.Name, Op: types.PropertyChangeOpAssign, Val: p.Val})
			told[p.Name] = struct{}{}
		}
	}
	for _, missing := range content.MissingSet {
		told[missing.Path] = struct{}{}
	}
	for name := range names {
		if _, done := told[name]; !done {
			u.ChangeSet = append(u.ChangeSet, types.PropertyChange{Name: name, Op: types.PropertyChangeOpAssign})
		}
	}
	return u
}

// collect reads the filter's properties of some objects. Those that do not exist are left out.
func (g *gateway) collect(ctx *simulator.Context, f *filter, refs []types.ManagedObjectReference) []types.ObjectContent {
	if len(refs) == 0 {
		return nil
	}
	return g.retrieve(ctx, f.spec.PropSet, refs)
}

func (g *gateway) retrieve(ctx *simulator.Context, props []types.PropertySpec, refs []types.ManagedObjectReference) []types.ObjectContent {
	spec := types.PropertyFilterSpec{
		PropSet: props, ReportMissingObjectsInResults: types.NewBool(true), ObjectSet: make([]types.ObjectSpec, len(refs)),
	}
	for i, ref := range refs {
		spec.ObjectSet[i].Obj = ref
	}
	answer := new(simulator.PropertyCollector).RetrievePropertiesEx(ctx, &types.RetrievePropertiesEx{
		SpecSet: []types.PropertyFilterSpec{spec},
	}).(*methods.RetrievePropertiesExBody)
	if answer.Res == nil {
		return nil
	}
	return answer.Res.Returnval.Objects
}

// selection follows a filter's traversal specs and remembers where it has been.
type selection struct {
	g         *gateway
	ctx       *simulator.Context
	specs     map[string]*types.TraversalSpec
	traversed map[types.ManagedObjectReference]map[string]struct{}
	followed  map[types.ManagedObjectReference]map[*types.TraversalSpec]struct{}
	seen      map[types.ManagedObjectReference]struct{}
	selected  []types.ManagedObjectReference
}

// selectObjects are the filter's objects now. What was followed to find them is watched from then on.
func (g *gateway) selectObjects(ctx *simulator.Context, f *filter) ([]types.ManagedObjectReference, *soap.Fault) {
	s := &selection{
		g: g, ctx: ctx, specs: map[string]*types.TraversalSpec{},
		traversed: map[types.ManagedObjectReference]map[string]struct{}{},
		followed:  map[types.ManagedObjectReference]map[*types.TraversalSpec]struct{}{},
		seen:      map[types.ManagedObjectReference]struct{}{},
	}
	for _, obj := range f.spec.ObjectSet {
		s.learn(obj.SelectSet)
	}
	for _, obj := range f.spec.ObjectSet {
		if ctx.Session.Get(obj.Obj) == nil {
			return nil, notFound(obj.Obj)
		}
		if obj.Skip == nil || !*obj.Skip {
			s.take(obj.Obj)
		}
		if fault := s.follow(obj.Obj, obj.SelectSet); fault != nil {
			return nil, fault
		}
	}
	log := f.owner.log
	log.mu.Lock()
	f.traversed = s.traversed
	log.mu.Unlock()
	return s.selected, nil
}

func (s *selection) learn(set []types.BaseSelectionSpec) {
	for _, spec := range set {
		if ts, ok := spec.(*types.TraversalSpec); ok {
			if ts.Name != "" {
				s.specs[ts.Name] = ts
			}
			s.learn(ts.SelectSet)
		}
	}
}

func (s *selection) take(ref types.ManagedObjectReference) {
	if _, twice := s.seen[ref]; !twice {
		s.seen[ref] = struct{}{}
		s.selected = append(s.selected, ref)
	}
}

func (s *selection) follow(from types.ManagedObjectReference, set []types.BaseSelectionSpec) *soap.Fault {
	for _, spec := range set {
		ts, ok := spec.(*types.TraversalSpec)
		if !ok {
			if ts, ok = s.specs[spec.GetSelectionSpec().Name]; !ok {
				return simulator.Fault("", &types.InvalidArgument{InvalidProperty: "undefined TraversalSpec name"})
			}
		}
		if !isA(from.Type, ts.Type) || s.been(from, ts) {
			continue
		}
		for _, ref := range s.read(from, ts.Path) {
			if ts.Skip == nil || !*ts.Skip {
				s.take(ref)
			}
			if fault := s.follow(ref, ts.SelectSet); fault != nil {
				return fault
			}
		}
	}
	return nil
}

// been marks that a spec is followed from an object and reports whether it was before: specs may go round in circles.
func (s *selection) been(from types.ManagedObjectReference, ts *types.TraversalSpec) bool {
	if _, yes := s.followed[from][ts]; yes {
		return true
	}
	if s.followed[from] == nil {
		s.followed[from] = map[*types.TraversalSpec]struct{}{}
	}
	s.followed[from][ts] = struct{}{}
	return false
}

func (s *selection) read(from types.ManagedObjectReference, path string) []types.ManagedObjectReference {
	if s.traversed[from] == nil {
		s.traversed[from] = map[string]struct{}{}
	}
	s.traversed[from][path] = struct{}{}
	contents := s.g.retrieve(s.ctx, []types.PropertySpec{{Type: from.Type, PathSet: []string{path}}}, []types.ManagedObjectReference{from})
	if len(contents) == 0 || len(contents[0].PropSet) == 0 {
		return nil
	}
	switch v := contents[0].PropSet[0].Val.(type) {
	case types.ManagedObjectReference:
		return []types.ManagedObjectReference{v}
	case types.ArrayOfManagedObjectReference:
		return v.ManagedObjectReference
	case *types.ArrayOfManagedObjectReference:
		return v.ManagedObjectReference
	default:
		return nil
	}
}

// isA reports whether an object of that kind is of a type, as far as traversal specs name base types.
func isA(kind, base string) bool {
	switch base {
	case kind, "ManagedEntity", "View", "ManagedObjectView":
		return true
	case "ComputeResource":
		return kind == "ClusterComputeResource"
	case "ResourcePool":
		return kind == "VirtualApp"
	case "Network":
		return kind == "DistributedVirtualPortgroup" || kind == "OpaqueNetwork"
	case "Folder":
		return kind == "StoragePod"
	default:
		return false
	}
}

// RetrievePropertiesEx is the stock answer, with the newest quick stats.
func (g *gateway) RetrievePropertiesEx(ctx *simulator.Context, req *types.RetrievePropertiesEx) soap.HasFault {
	g.prepare(ctx, req.SpecSet)
	g.vc.shape.RLock()
	defer g.vc.shape.RUnlock()
	return new(simulator.PropertyCollector).RetrievePropertiesEx(ctx, req)
}

// RetrieveProperties is RetrievePropertiesEx as it was before.
func (g *gateway) RetrieveProperties(ctx *simulator.Context, req *types.RetrieveProperties) soap.HasFault {
	g.prepare(ctx, req.SpecSet)
	g.vc.shape.RLock()
	defer g.vc.shape.RUnlock()
	return new(simulator.PropertyCollector).RetrieveProperties(ctx, req)
}

func (g *gateway) prepare(ctx *simulator.Context, specs []types.PropertyFilterSpec) {
	for i := range specs {
		if wantsQuickStats(specs[i].PropSet) {
			g.vc.refreshQuickStats(ctx)
			return
		}
	}
}

func wantsQuickStats(props []types.PropertySpec) bool {
	for i := range props {
		if props[i].All != nil && *props[i].All {
			return true
		}
		if slices.ContainsFunc(props[i].PathSet, func(path string) bool {
			return path == "summary" || strings.HasPrefix(path, "summary.quickStats")
		}) {
			return true
		}
	}
	return false
}
