package remediation

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/placement"
)

// Submit stores the moves of one plan, in their order, as approved by somebody (a user's name, or ByPolicy) for a reason, and
// returns them as stored. ErrRefused is that it took none; after another error, look at what the journal holds of the tip.
func (e *Engine) Submit(ctx context.Context, plan []Action, by, why string) ([]Action, error) {
	stored, err := e.propose(ctx, plan, by)
	if err != nil {
		return nil, err
	}
	for i, a := range stored {
		approved, err := e.Approve(ctx, a.ID, by, why)
		if err != nil {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.withdraw(stored[i:])
			return nil, err
		}
		stored[i] = approved
	}
	return stored, nil
}

// Propose stores the moves of one plan as planned: nothing happens until each is approved. It refuses as Submit does.
func (e *Engine) Propose(ctx context.Context, plan []Action) ([]Action, error) {
	return e.propose(ctx, plan, "")
}

func (e *Engine) propose(ctx context.Context, plan []Action, by string) ([]Action, error) {
	if err := e.Recover(ctx); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.admissible(plan, by); err != nil {
		return nil, err
	}
	planID := newID()
	out := make([]Action, 0, len(plan))
	for i, a := range plan {
		a.ID, a.PlanID, a.Order, a.By = newID(), planID, i, ""
		a.State, a.PlannedAt = Planned, e.now()
		a.DryRun = a.DryRun || isDry(e.o.Executors[a.VM.Source])
		if err := e.create(a); err != nil {
			e.withdraw(out)
			return nil, fmt.Errorf("store plan of %d moves: %w", len(plan), err)
		}
		out = append(out, a)
	}
	e.poke()
	return out, nil
}

func (e *Engine) create(a Action) error {
	ctx, cancel := writing()
	defer cancel()
	if err := e.o.Journal.Create(ctx, a); err != nil {
		e.metrics.journalErrors.Inc()
		return err
	}
	e.hold(a)
	e.metrics.created(a)
	e.outbox = append(e.outbox, a)
	return nil
}

// withdraw ends the moves of a plan that could not be taken whole. One that is approved already goes on: it is right alone.
func (e *Engine) withdraw(stored []Action) {
	for _, a := range stored {
		if it, ok := e.live[a.ID]; ok {
			_ = e.stepLocked(it, "", failure("the plan was not taken whole")) // not taken: it stays planned, and grows old
		}
	}
}

// Approve lets a planned action go.
func (e *Engine) Approve(ctx context.Context, id, by, why string) (Action, error) {
	if err := e.Recover(ctx); err != nil {
		return Action{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	it, ok := e.live[id]
	if !ok || it.State != Planned {
		return Action{}, fmt.Errorf("approve action %s: %w: it is not planned", id, ErrRefused)
	}
	if by == "" {
		return Action{}, fmt.Errorf("approve action %s: %w: nobody is named who approves it", id, ErrRefused)
	}
	if by == ByPolicy && it.Kind == QuickMigration {
		return Action{}, fmt.Errorf("approve action %s: %w: only a person takes a VM down", id, ErrRefused)
	}
	asked := it.Action
	asked.By = by
	if why := e.held(asked); why != "" {
		return Action{}, fmt.Errorf("approve action %s: %w: %s", id, ErrRefused, why)
	}
	err := e.stepLocked(it, says(by, "approved", why), func(a *Action) { a.State, a.By, a.ApprovedAt = Approved, by, e.now() })
	return it.Action, err
}

// Resolve ends an unknown action by a person's word: Done or Failed. Its VM may move again after the cooldown.
func (e *Engine) Resolve(ctx context.Context, id string, state State, by, why string) (Action, error) {
	if state != Done && state != Failed {
		return Action{}, fmt.Errorf("resolve action %s as %q: %w: say %s or %s", id, state, ErrRefused, Done, Failed)
	}
	if err := e.Recover(ctx); err != nil {
		return Action{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	it, ok := e.live[id]
	if !ok || it.State != Unknown {
		return Action{}, fmt.Errorf("resolve action %s: %w: it is not unknown", id, ErrRefused)
	}
	err := e.stepLocked(it, says(by, "says "+string(state), why), func(a *Action) { a.State = state })
	if err == nil {
		if it.Kind != WebhookCall {
			e.lastMove[it.VM] = lastMove{at: e.now(), by: "protip", to: it.To}
		}
		delete(e.live, id)
	}
	return it.Action, err
}

// Actions are the journal's, newest first.
func (e *Engine) Actions(ctx context.Context, f Filter) ([]Action, error) {
	return e.o.Journal.Actions(ctx, f)
}

// Waiting says of each approved action why it has not started yet.
func (e *Engine) Waiting() map[string]string {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[string]string{}
	for id, it := range e.live {
		if it.State == Approved && it.wait != "" {
			out[id] = it.wait
		}
	}
	return out
}

// Incoming are the VMs that are, or may be, on their way to each host: for a planner they count there as if they had arrived.
func (e *Engine) Incoming() map[inventory.ID][]inventory.ID {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[inventory.ID][]inventory.ID{}
	for _, it := range e.live {
		if it.State != Planned && it.State != Done && !it.DryRun && it.Kind != WebhookCall {
			out[it.To] = append(out[it.To], it.VM)
		}
	}
	return out
}

// Arriving are those of Incoming whose turn has come: moves of a plan wait until all of the waves before have ended.
func (e *Engine) Arriving() map[inventory.ID][]inventory.ID {
	out := e.Incoming()
	e.mu.Lock()
	defer e.mu.Unlock()
	first := map[string]int{} // wave, by plan
	for _, it := range e.live {
		if wave, ok := first[it.PlanID]; !it.State.Final() && (!ok || it.Wave < wave) {
			first[it.PlanID] = it.Wave
		}
	}
	for _, it := range e.live {
		if it.State == Approved && it.Wave > first[it.PlanID] {
			out[it.To] = slices.DeleteFunc(out[it.To], func(vm inventory.ID) bool { return vm == it.VM })
		}
	}
	return out
}

// Emptying are the hosts that plans of ours empty now, and what for: evacuation, or else freeing.
func (e *Engine) Emptying() map[inventory.ID]string {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[inventory.ID]string{}
	for _, it := range e.live {
		if (it.For == placement.ForEvacuation || it.For == placement.ForFreeing) && !it.State.Final() && it.State != Planned && !it.DryRun {
			if out[it.From] != placement.ForEvacuation {
				out[it.From] = it.For
			}
		}
	}
	return out
}

// Frozen are the VMs that may not be moved now, and why.
func (e *Engine) Frozen() map[inventory.ID]string {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[inventory.ID]string{}
	for vm := range e.contests {
		if why := e.contested(vm); why != "" {
			out[vm] = why
		}
	}
	for vm := range e.lastMove {
		if why := e.cooling(vm); why != "" {
			out[vm] = why
		}
	}
	for _, it := range e.live {
		if why := claimOn(it.Action); why != "" {
			out[it.VM] = why
		}
	}
	return out
}

// claimOn is why an action keeps others off its VM, empty if it does not.
func claimOn(a Action) string {
	switch {
	case a.Kind == WebhookCall:
		return ""
	case a.State == Unknown:
		return fmt.Sprintf("frozen: nobody knows how action %s ended; resolve it first", a.ID)
	case a.State == Done:
		return ""
	}
	return fmt.Sprintf("action %s wants to move it to %s (%s)", a.ID, a.ToName, a.State)
}

// admissible refuses a plan that could not be carried out as things stand.
func (e *Engine) admissible(plan []Action, by string) error {
	if len(plan) == 0 {
		return fmt.Errorf("%w: the plan has no move", ErrRefused)
	}
	seen := map[inventory.ID]bool{}
	for _, a := range plan {
		a.By = by
		if why := e.inadmissible(a); why != "" {
			return fmt.Errorf("move %s to %s: %w: %s", a.VMName, a.ToName, ErrRefused, why)
		}
		if seen[a.VM] {
			return fmt.Errorf("move %s to %s: %w: the plan moves it twice", a.VMName, a.ToName, ErrRefused)
		}
		seen[a.VM] = true
	}
	return nil
}

func (e *Engine) inadmissible(a Action) string {
	src := a.VM.Source
	switch _, acting := e.o.Executors[src]; {
	case a.Kind == WebhookCall:
		return e.uncallable(a)
	case a.Kind != LiveMigration && a.Kind != QuickMigration:
		return fmt.Sprintf("unknown kind of action %q", a.Kind)
	case a.Kind == QuickMigration && a.By == ByPolicy:
		return "it would take the VM down, and only a person does that"
	case a.VM.Kind != inventory.KindVM || a.From.Kind != inventory.KindHost || a.To.Kind != inventory.KindHost:
		return "it does not name a VM and two hosts"
	case a.From.Source != src || a.To.Source != src:
		return "VM, source and target are not of one source"
	case a.From == a.To:
		return "it is there already"
	case !acting:
		return noCredential(src)
	}
	return e.claimed(a)
}

// claimed is what is under way already that an action would be in the way of, or what holds it back.
func (e *Engine) claimed(a Action) string {
	for _, it := range e.live {
		if it.VM == a.VM && a.Kind != WebhookCall && claimOn(it.Action) != "" {
			return claimOn(it.Action)
		}
		if a.TipID != "" && it.TipID == a.TipID && !it.State.Final() {
			return fmt.Sprintf("the tip is being implemented already: action %s is %s", it.ID, it.State)
		}
	}
	return e.held(a)
}

// mayStart claims the action if its turn has come and nothing speaks against it. What will pass by itself is waited for,
// anything else ends the action: a plan is made for the moment.
func (e *Engine) mayStart(it *item, a Action) bool {
	if why := e.turn(it); why != "" {
		return false
	}
	if a.Kind == WebhookCall {
		return e.claim(it)
	}
	if err := e.stillRight(a); errors.Is(err, ErrNotYet) {
		e.mu.Lock()
		defer e.mu.Unlock()
		it.wait = err.Error()
		return false
	} else if err != nil {
		e.callOff(it, err)
		return false
	}
	return e.claim(it)
}

func (e *Engine) claim(it *item) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if it.State != Approved { // somebody has just cancelled it
		return false
	}
	err := e.stepLocked(it, "", func(a *Action) {
		a.State, a.Owner, a.Fence = Claimed, e.o.Owner, a.Fence+1
		a.DryRun = a.DryRun || isDry(e.o.Executors[a.VM.Source])
	})
	it.busy = err == nil
	return it.busy
}

// turn is why the action does not start now: because it ended right here, or because it waits.
func (e *Engine) turn(it *item) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if it.State != Approved {
		return "it was cancelled"
	}
	why := e.barred(it)
	if why == "" && e.now().Sub(e.waitsSince(it)) > e.o.MaxWait {
		why = fmt.Sprintf("it waited %s for its turn (%s): its plan is old", e.o.MaxWait, words(it.wait, "no reason noted"))
	}
	if why != "" {
		_ = e.stepLocked(it, why, failure(why)) // not taken: it stays approved and comes here again
		return why
	}
	it.wait = e.queued(it)
	return it.wait
}

// waitsSince is from when an action's wait counts: its plan does not grow old while another move of it is under way, or has just ended.
func (e *Engine) waitsSince(it *item) time.Time {
	since := it.ApprovedAt
	if at := e.planMoved[it.PlanID]; at.After(since) {
		since = at
	}
	for _, other := range e.live {
		if other.PlanID == it.PlanID && inFlight(other.State) {
			return e.now()
		}
	}
	return since
}

// barred is why the action may not start any more.
func (e *Engine) barred(it *item) string {
	if it.spoiled != "" {
		return it.spoiled
	}
	for _, other := range e.live {
		if other != it && other.VM == it.VM && other.Kind != WebhookCall && it.Kind != WebhookCall && (other.State == Unknown || inFlight(other.State)) {
			return claimOn(other.Action)
		}
	}
	return e.held(it.Action)
}

// held is what holds back every move of its kind: a pause, the breaker, the VM's cooldown.
func (e *Engine) held(a Action) string {
	for _, source := range []string{"", a.VM.Source} {
		if p, ok := e.pauses[source]; ok {
			return p.String()
		}
	}
	if e.breaker.state.Open && a.By == ByPolicy {
		return "the breaker is open, nothing starts by itself: " + e.breaker.state.Why
	}
	if a.By == ByPolicy {
		if why := e.o.Closed(e.now()); why != "" {
			return why
		}
	}
	if a.Kind == WebhookCall {
		return ""
	}
	return e.cooling(a.VM)
}

func (e *Engine) cooling(vm inventory.ID) string {
	if why := e.contested(vm); why != "" {
		return why
	}
	last, ok := e.lastMove[vm]
	if !ok || e.now().Sub(last.at) >= e.o.Cooldown {
		return ""
	}
	what := "it was moved"
	if last.cancelled {
		what = "its move was cancelled"
	}
	return fmt.Sprintf("%s at %s by %s and rests until %s", what, stamp(last.at), last.by, stamp(last.at.Add(e.o.Cooldown)))
}

// queued is which limit the action waits for, empty if it is its turn.
func (e *Engine) queued(it *item) string {
	l := e.o.Limits
	source, cluster, from, to := 0, 0, 0, 0
	for _, other := range e.live {
		if other == it {
			continue
		}
		if other.PlanID == it.PlanID && other.Order < it.Order && notStarted(other.State) {
			return fmt.Sprintf("%s goes first", other.VMName)
		}
		if other.PlanID == it.PlanID && other.Wave < it.Wave && !other.State.Final() {
			return fmt.Sprintf("%s has to arrive first: it is of an earlier wave", other.VMName)
		}
		if !inFlight(other.State) || other.Kind == WebhookCall || it.Kind == WebhookCall { // which only the hour's budget limits
			continue
		}
		count(&source, other.VM.Source == it.VM.Source)
		count(&cluster, other.Cluster == it.Cluster && !it.Cluster.IsZero())
		count(&from, other.From == it.From || other.To == it.From)
		count(&to, other.From == it.To || other.To == it.To)
	}
	switch {
	case source >= l.PerSource:
		return fmt.Sprintf("%d migrations run in source %s, and no more may", source, it.VM.Source)
	case cluster >= l.PerCluster:
		return fmt.Sprintf("%d migrations run in its cluster, and no more may", cluster)
	case from >= l.PerHost:
		return fmt.Sprintf("%d migrations run from or to %s, and no more may", from, it.FromName)
	case to >= l.PerHost:
		return fmt.Sprintf("%d migrations run from or to %s, and no more may", to, it.ToName)
	case !it.DryRun && e.startedLastHour()+e.aboutToStart() >= l.PerHour:
		return fmt.Sprintf("%d migrations were started in the last hour, and no more may", l.PerHour)
	}
	return ""
}

// startedLastHour counts what was sent, and forgets what is older.
func (e *Engine) startedLastHour() int {
	oldest := e.now().Add(-time.Hour)
	kept := e.starts[:0]
	for _, at := range e.starts {
		if at.After(oldest) {
			kept = append(kept, at)
		}
	}
	e.starts = kept
	return len(kept)
}

// aboutToStart counts what is claimed and will be sent.
func (e *Engine) aboutToStart() int {
	n := 0
	for _, it := range e.live {
		count(&n, it.State == Claimed && !it.DryRun)
	}
	return n
}

// stillRight compares the plan with the fleet as it is now.
func (e *Engine) stillRight(a Action) error {
	snap := e.o.Snapshot()
	src, ok := snap.Source(a.VM.Source)
	switch {
	case !ok || !src.Synced:
		return fmt.Errorf("the objects of source %s are %w", a.VM.Source, ErrNotYet)
	case !src.Up:
		return fmt.Errorf("source %s does not answer since %s", a.VM.Source, stamp(src.LastSuccess))
	}
	vm, ok := snap.VM(a.VM)
	switch {
	case !ok:
		return fmt.Errorf("%s is gone", a.VMName)
	case vm.Host != a.From:
		return fmt.Errorf("%s is no longer on %s but on %s: plan again", a.VMName, a.FromName, e.hostName(vm.Host))
	case vm.Power != inventory.PowerOn:
		return fmt.Errorf("%s is not running (power %s)", a.VMName, vm.Power)
	}
	oldest := e.now().Add(-2 * src.Interval)
	for _, id := range []inventory.ID{a.From, a.To} {
		if err := fresh(snap, id, oldest); err != nil {
			return err
		}
	}
	return e.o.Recheck(a)
}

// fresh refuses a host whose load is not known as of lately.
func fresh(snap *inventory.Snapshot, id inventory.ID, oldest time.Time) error {
	h, ok := snap.Host(id)
	if !ok {
		return fmt.Errorf("host %s is gone", id)
	}
	for _, m := range []inventory.Metric{inventory.HostCPUUsage, inventory.HostMemoryUsage} {
		s := h.Samples.Of(m)
		if s.Time().IsZero() {
			return fmt.Errorf("%s of host %s is %w", m, h.Name, ErrNotYet)
		}
		if !s.OK() || s.Time().Before(oldest) {
			return fmt.Errorf("host %s is stale: no %s since %s", h.Name, m, stamp(s.Time()))
		}
	}
	return nil
}

func notStarted(s State) bool { return s == Planned || s == Approved || s == Claimed }

func inFlight(s State) bool { return s == Claimed || s == Starting || s == Started || s == Verifying }

func count(n *int, yes bool) {
	if yes {
		*n++
	}
}

// newID is 80 random bits, short enough to type.
func newID() string { return strings.ToLower(rand.Text()[:16]) }

func says(who, what, why string) string {
	if why == "" {
		return who + " " + what
	}
	return who + " " + what + ": " + why
}

func stamp(t time.Time) string { return t.UTC().Format(time.DateTime) + " UTC" }
