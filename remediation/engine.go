package remediation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
)

// ErrRefused says that the engine did not take what it was asked for, and the words around it why. Nothing was stored.
var ErrRefused = errors.New("refused")

// Limits bound migrations in flight, and all of them per hour. A zero takes the default.
type Limits struct {
	PerSource  int // default 4
	PerCluster int // default 2
	PerHost    int // in or out; default 1
	PerHour    int // started, of all sources; default 20
	Failures   int // faults, or plans that did not help, in a row that open the breaker; default 3
}

// Options are what an engine works with. Callbacks are called from one goroutine at a time, with no lock held, and must not
// block: while one does, nothing starts.
type Options struct {
	Journal   Journal
	Memory    Memory
	Executors map[string]Executor // by source; a source without one is never acted on
	Clock     *clock.Clock
	Snapshot  func() *inventory.Snapshot
	// Recheck says why a move that was planned earlier would be wrong now (its target would be barred); nil is go ahead, an
	// error that wraps ErrNotYet is asked again, and one that wraps ErrNotNeeded withdraws the move.
	// It is asked right before the start, after the engine's own checks.
	Recheck func(a Action) error
	// Judge says what the tip says now of the move's source and target, false while it cannot say. It is asked of every move
	// that a plan made, after the settle time, until it can; the worst answer is the outcome of them all.
	Judge func(a Action) (Outcome, bool)
	// Webhook calls what an action names and returns nil if it was taken. An error that wraps ErrUndecided says that nobody knows; any
	// other that it was not taken. It is called at most once for an action. Nil: there are no webhooks.
	Webhook func(ctx context.Context, a Action) error
	// Closed says why what no person asked for may not start now, as outside of a maintenance window; empty if it may.
	Closed func(now time.Time) string
	// Notify is told of every step after it is in the journal, in order.
	Notify func(a Action)

	Limits   Limits
	Cooldown time.Duration // per VM, after any move, whoever made it; default 30 min
	MaxWait  time.Duration // an action that did not start in that time is given up: its plan is old; default 30 min
	// VerifyTimeout is how long the inventory may take to show the VM on its target before the platform is read; default 5 min.
	VerifyTimeout time.Duration
	// Patience is how long a lost answer is looked for before the action is unknown; default 30 s.
	Patience time.Duration

	Owner      string // names this process in the journal; default: a new name
	Log        *slog.Logger
	Registerer prometheus.Registerer // nil: no metrics
}

func (o Options) withDefaults() Options {
	o.Limits.PerSource = cmp.Or(o.Limits.PerSource, 4)
	o.Limits.PerCluster = cmp.Or(o.Limits.PerCluster, 2)
	o.Limits.PerHost = cmp.Or(o.Limits.PerHost, 1)
	o.Limits.PerHour = cmp.Or(o.Limits.PerHour, 20)
	o.Limits.Failures = cmp.Or(o.Limits.Failures, 3)
	o.Cooldown = cmp.Or(o.Cooldown, 30*time.Minute)
	o.MaxWait = cmp.Or(o.MaxWait, 30*time.Minute)
	o.VerifyTimeout = cmp.Or(o.VerifyTimeout, 5*time.Minute)
	o.Patience = cmp.Or(o.Patience, 30*time.Second)
	o.Owner = cmp.Or(o.Owner, newID())
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Recheck == nil {
		o.Recheck = func(Action) error { return nil }
	}
	if o.Judge == nil {
		o.Judge = func(Action) (Outcome, bool) { return "", false }
	}
	if o.Closed == nil {
		o.Closed = func(time.Time) string { return "" }
	}
	if o.Notify == nil {
		o.Notify = func(Action) {}
	}
	return o
}

// Engine carries actions from approval to outcome. One goroutine decides (Run); each action that talks to its platform has a
// worker of its own. All methods may be called from any goroutine. DESIGN.md tells what happens when it dies at any line.
type Engine struct {
	o       Options
	metrics *metrics
	wake    chan struct{}

	mu        sync.Mutex // held over every journal step, so that memory and journal never differ
	recovered bool
	live      map[string]*item // not final, or unknown, or waiting for its outcome
	seq       int
	pauses    map[string]Pause
	lastMove  map[inventory.ID]lastMove
	placed    map[inventory.ID]lastMove    // where protip put a VM last, as long as nobody moved it on
	contests  map[inventory.ID]ForeignMove // VMs of which somebody else undid a move of protip's
	planMoved map[string]time.Time         // when a move of a plan ended last, while others of it are to come
	starts    []time.Time                  // of what was sent in the last hour
	breaker   breaker
	outbox    []Action

	seenMu sync.Mutex
	seen   map[inventory.ID]sighted // moves the inventory showed, not yet looked at
}

// item is an action in the engine's hands.
type item struct {
	Action
	seq     int       // in which order it came
	busy    bool      // a worker has it
	wait    string    // why it does not start yet
	spoiled string    // why it may not start any more: another move of its plan did not work
	lookAt  time.Time // when to read the platform again
	looks   int
	passed  bool  // somebody else moved the VM on from its target before it was seen to have arrived
	refusal error // what the platform said of the call, until it was read where the VM is
}

// lastMove is when a VM was last moved, and by whom in words.
type lastMove struct {
	at        time.Time
	by        string
	to        inventory.ID
	cancelled bool // it was about to be moved, and by did not let it
}

// rest is why an action that ended has its VM rest, false if it does not.
func rest(a Action) (lastMove, bool) {
	switch {
	case a.Kind == WebhookCall:
	case a.Sent():
		return lastMove{at: a.EndedAt, by: "protip", to: a.To}, true
	case a.CancelBy != "" && !a.DryRun: // or what acts by itself would plan the same again
		return lastMove{at: a.EndedAt, by: a.CancelBy, cancelled: true}, true
	}
	return lastMove{}, false
}

// spoils reports whether the other moves of a plan cannot count on an action that ended so.
func spoils(a Action) bool {
	return a.State != Done && (a.State != Withdrawn || a.CancelBy != "")
}

// New is an engine that has read nothing yet.
func New(o Options) (*Engine, error) {
	if o.Journal == nil || o.Memory == nil || o.Clock == nil || o.Snapshot == nil {
		return nil, errors.New("remediation engine needs a journal, a memory, a clock and a snapshot")
	}
	o = o.withDefaults()
	e := &Engine{
		o:        o,
		wake:     make(chan struct{}, 1),
		live:     map[string]*item{},
		pauses:   map[string]Pause{},
		lastMove: map[inventory.ID]lastMove{}, planMoved: map[string]time.Time{},
		placed: map[inventory.ID]lastMove{}, contests: map[inventory.ID]ForeignMove{},
		breaker: breaker{limit: o.Limits.Failures},
		seen:    map[inventory.ID]sighted{},
	}
	m, err := newMetrics(o.Registerer, o.Executors)
	if err != nil {
		return nil, fmt.Errorf("register metrics of remediation: %w", err)
	}
	e.metrics = m
	return e, nil
}

// Run decides and works until ctx is done, then waits for its workers; what they had sent goes on at the platform and is
// taken up at the next start. It recovers first if nobody did.
func (e *Engine) Run(ctx context.Context) error {
	if err := e.Recover(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	var workers sync.WaitGroup
	defer workers.Wait()
	tick := time.NewTicker(max(e.o.Clock.Real(time.Second), 20*time.Millisecond))
	defer tick.Stop()
	for {
		e.decide(ctx, &workers)
		select {
		case <-ctx.Done():
			e.deliver()
			return nil
		case <-tick.C:
		case <-e.wake:
		}
	}
}

// decide looks at every action once.
func (e *Engine) decide(ctx context.Context, workers *sync.WaitGroup) {
	e.absorbMoves()
	e.endContests()
	for _, it := range e.items() {
		if ctx.Err() != nil {
			return
		}
		e.advance(ctx, it, workers)
	}
	e.measure()
	e.deliver()
}

// advance takes an action that no worker has one step further, if it can go.
func (e *Engine) advance(ctx context.Context, it *item, workers *sync.WaitGroup) {
	if e.cancelDue(it) {
		workers.Go(func() { e.cancel(ctx, it) })
	}
	a, free := e.peek(it)
	if !free || e.withdrawn(it) {
		return
	}
	switch a.State {
	case Planned:
		if e.now().Sub(a.PlannedAt) > e.o.MaxWait {
			e.fail(it, fmt.Sprintf("nobody approved it within %s", e.o.MaxWait))
		}
	case Approved:
		if e.mayStart(it, a) {
			workers.Go(func() { e.carryOut(ctx, it) })
		}
	case Claimed: // the journal did not take the next step, so nothing was sent
		e.step(it, "not started: the journal did not take the next step", func(a *Action) { a.State = Approved })
	case Starting, Started:
		if e.borrow(it) {
			workers.Go(func() { e.takeUp(ctx, it) })
		}
	case Verifying:
		if e.verify(it, a) && e.borrow(it) {
			workers.Go(func() { e.readLate(ctx, it) })
		}
	}
}

// hold takes an action into memory.
func (e *Engine) hold(a Action) {
	e.seq++
	e.live[a.ID] = &item{Action: a, seq: e.seq}
}

// items are the live ones in the order in which they came, which is the order in which they may start.
func (e *Engine) items() []*item {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]*item, 0, len(e.live))
	for _, it := range e.live {
		out = append(out, it)
	}
	slices.SortFunc(out, func(a, b *item) int { return cmp.Compare(a.seq, b.seq) })
	return out
}

// peek is the action as it stands, false while a worker has it.
func (e *Engine) peek(it *item) (Action, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return it.Action, !it.busy && e.live[it.ID] == it
}

// borrow gives the item to a worker if it is time to look at the platform.
func (e *Engine) borrow(it *item) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if it.busy || e.now().Before(it.lookAt) {
		return false
	}
	it.busy = true
	return true
}

// giveBack ends a worker's hold, and has the platform looked at again after a while that grows.
func (e *Engine) giveBack(it *item) {
	e.mu.Lock()
	defer e.mu.Unlock()
	it.busy = false
	it.lookAt = e.now().Add(min(time.Second<<min(it.looks, 5), 30*time.Second))
	it.looks++
}

// step takes an action to its next state: journal first, then memory. It reports whether the journal took it; if it did
// not, the action stands as it stood.
func (e *Engine) step(it *item, note string, change func(*Action)) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stepLocked(it, note, change) == nil
}

func (e *Engine) stepLocked(it *item, note string, change func(*Action)) error {
	next := it.Action
	change(&next)
	now := e.now()
	if next.State.Final() && !it.State.Final() {
		next.EndedAt = now
	}
	next.Queued = next.Queued && next.State == Started
	ctx, cancel := writing()
	defer cancel()
	err := e.o.Journal.Step(ctx, it.Action, next, now, note)
	if err != nil {
		e.metrics.journalErrors.Inc()
		e.o.Log.Error("journal step not taken", "action", it.ID, "from", it.State, "to", next.State, "err", err)
		if errors.Is(err, ErrFenced) {
			e.refetch(ctx, it)
		}
		return err
	}
	was := it.Action
	it.Action = next
	e.after(it, was)
	return nil
}

// writing is the context of a write. One that has begun is finished, whatever happens to who asked for it.
func writing() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 10*time.Second)
}

// after keeps memory, metrics and listeners in step with a step that the journal took.
func (e *Engine) after(it *item, was Action) {
	a := it.Action
	if a.State != was.State {
		e.o.Log.Info("action "+string(a.State), "action", a.ID, "source", a.VM.Source, "vm", a.VMName, "from", a.FromName,
			"to", a.ToName, "dry_run", a.DryRun, "error", a.Error)
		it.wait = ""
	}
	if a.Sent() && was.StartingAt.IsZero() {
		e.starts = append(e.starts, a.StartingAt)
	}
	if a.State.Final() && !was.State.Final() {
		e.ended(it)
	}
	e.metrics.step(was, a)
	e.outbox = append(e.outbox, a)
	e.poke()
}

// ended keeps of a final action what is still needed: an unknown one freezes its VM, a done one may have an outcome.
func (e *Engine) ended(it *item) {
	a := it.Action
	it.busy = false
	if last, rests := rest(a); rests {
		e.lastMove[a.VM] = last
	}
	if a.Sent() && a.State == Done && a.Kind != WebhookCall && !it.passed {
		e.placed[a.VM] = lastMove{at: a.EndedAt, by: "protip", to: a.To}
	}
	for _, ev := range eventsOf(a) {
		e.count(ev)
	}
	if spoils(a) {
		e.spoilRest(a)
	}
	e.advancePlan(a)
	if a.State != Unknown && !awaitsOutcome(a) {
		delete(e.live, a.ID)
	}
}

// advancePlan notes that a move of a plan has ended, as long as others are to come.
func (e *Engine) advancePlan(a Action) {
	delete(e.planMoved, a.PlanID)
	for _, it := range e.live {
		if it.PlanID == a.PlanID && !it.State.Final() {
			e.planMoved[a.PlanID] = a.EndedAt
		}
	}
}

// spoilRest ends the plan of an action that did not work: its other moves counted on it.
func (e *Engine) spoilRest(a Action) {
	for _, it := range e.live {
		if it.PlanID == a.PlanID && it.ID != a.ID {
			it.spoiled = fmt.Sprintf("another move of this plan, %s to %s, ended %s: plan again", a.VMName, a.ToName, a.State)
		}
	}
}

// refetch takes the journal's word after it refused a step: our own step that it took although it said otherwise, or that of
// another agent, whose action it then is.
func (e *Engine) refetch(ctx context.Context, it *item) {
	actions, err := e.o.Journal.Actions(ctx, Filter{ID: it.ID})
	if err != nil || len(actions) == 0 {
		e.o.Log.Error("action cannot be read back", "action", it.ID, "err", err)
		return
	}
	was, stored := it.Action, actions[0]
	if stored.Fence == was.Fence || stored.Owner == e.o.Owner {
		it.Action = stored
		e.after(it, was)
		return
	}
	e.o.Log.Warn("action is another agent's now", "action", it.ID, "owner", stored.Owner)
	delete(e.live, it.ID)
	e.metrics.gone(was)
	e.outbox = append(e.outbox, stored)
}

// deliver tells the listener what was stepped.
func (e *Engine) deliver() {
	e.mu.Lock()
	out := e.outbox
	e.outbox = nil
	e.mu.Unlock()
	for _, a := range out {
		e.o.Notify(a)
	}
}

// poke has the deciding goroutine look again.
func (e *Engine) poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

func (e *Engine) now() time.Time { return e.o.Clock.Now() }

// executor is the one for the action, dry if the action is.
func (e *Engine) executor(a Action) (Executor, bool) {
	ex, ok := e.o.Executors[a.VM.Source]
	if ok && a.DryRun {
		ex = DryRun(ex)
	}
	return ex, ok
}

func isDry(e Executor) bool {
	_, dry := e.(dryRun)
	return dry
}
