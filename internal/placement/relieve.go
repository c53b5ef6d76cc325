package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/protip/protip/internal/inventory"
)

// searchBudget bounds how many ratings the search for the fewest moves may cost before it settles for good ones.
const searchBudget = 1000

// Goal is the utilisation, 0..1, that a host should come down to. A zero is not asked for.
type Goal struct {
	CPURatio    float64
	MemoryRatio float64
}

// Relief is what can be done for a host.
type Relief struct {
	Moves  []Move // in the order in which they must be made
	Before Load   // expected, with the VMs that leave already gone
	After  Load
	Why    string // why the goal is not reached by the moves, or why there are none; empty if it is reached
}

// Reached reports whether the moves bring the host to the goal.
func (r Relief) Reached() bool { return r.Why == "" }

// Relieve finds the fewest moves that bring a host's expected load to the goal. It tries all single moves, then all pairs, and
// so on; each VM goes to the host rated best after the moves before it are counted, and of the VMs that would complete the
// goal the smallest goes. On hosts so full of choices that the search would take too long it moves the largest VMs first,
// which may take a move more. If the goal cannot be reached, the moves are those that help as far as it goes, and Why tells
// what is in the way: whether they are worth it is for a person to say.
func Relieve(s *inventory.Snapshot, d Demand, host inventory.ID, goal Goal, p Policy) Relief {
	h, ok := s.Host(host)
	if !ok {
		return Relief{Why: fmt.Sprintf("host %s is not known", host)}
	}
	r := &relief{ledger: newLedger(s, d), policy: p, goal: goal}
	r.from = r.of(h, p.Incoming[host])
	if why := r.refuse(); why != "" {
		return Relief{Why: h.Name + ": " + why}
	}
	r.listVMs()
	out := Relief{Before: r.from.ratio(r.from.load)}
	out.Why = r.solve()
	out.Moves, out.After = r.moves, r.from.ratio(r.from.load)
	return out
}

// relief is a search under way. The ledger holds the moves made so far.
type relief struct {
	*ledger
	policy Policy
	goal   Goal
	from   *book
	vms    []mover // that could go somewhere, largest first
	moves  []Move
	budget int

	running, frozen, unknown, stuck []string // names, and why, of what stays
}

// mover is a VM that may leave.
type mover struct {
	inventory.VMView
	use Use
}

func (r *relief) refuse() string {
	h := r.from.host
	switch {
	case r.goal.CPURatio <= 0 && r.goal.MemoryRatio <= 0:
		return "no goal was given"
	case r.from.stale != "":
		return "its load is not known: " + r.from.stale
	case !r.from.sized():
		return "its capacity is not known"
	case h.Maintenance:
		return "it is in maintenance: whoever put it there empties it"
	case h.Connection != inventory.Connected || h.Power != inventory.PowerOn:
		return fmt.Sprintf("it is %s, power %s", h.Connection, h.Power)
	}
	return ""
}

// listVMs sorts the host's VMs into those that may go, those that are leaving already, and those that stay.
func (r *relief) listVMs() {
	leaving := map[inventory.ID]bool{}
	for host, vms := range r.policy.Incoming {
		for _, vm := range vms {
			leaving[vm] = leaving[vm] || host != r.from.host.ID
		}
	}
	for _, vm := range r.snap.VMsOn(r.from.host.ID) {
		if !runs(vm.VM) {
			continue
		}
		r.running = append(r.running, vm.Name)
		use, known := r.use(vm.ID)
		why, frozen := r.policy.Frozen[vm.ID]
		switch {
		case leaving[vm.ID]:
			r.leave(r.from, vm.ID)
		case frozen:
			r.frozen = append(r.frozen, vm.Name+": "+why)
		case !known:
			r.unknown = append(r.unknown, vm.Name)
		default:
			r.consider(mover{vm, use})
		}
	}
	slices.SortFunc(r.vms, func(a, b mover) int {
		return cmp.Or(cmp.Compare(r.weight(b.use), r.weight(a.use)), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID.Ref, b.ID.Ref))
	})
}

// consider keeps a VM that has a target now. One that has none never gets one: targets only fill up.
func (r *relief) consider(vm mover) {
	ratings := r.rate(VMSpec{ID: vm.ID}, r.policy)
	if len(ratings) > 0 && ratings[0].Stars > 0 {
		r.vms = append(r.vms, vm)
		return
	}
	why := "it has no other host"
	for _, rating := range ratings {
		if text, barred := rating.Barred(); barred && rating.Host != r.from.host.ID {
			why = rating.Name + ": " + text
			break
		}
	}
	r.stuck = append(r.stuck, vm.Name+", "+why)
}

// weight is how much of what the host has too much of a VM would take away.
func (r *relief) weight(u Use) float64 {
	excess := r.excess()
	w := 0.0
	if excess.CPUHertz > 0 {
		w += u.CPUHertz / excess.CPUHertz
	}
	if excess.MemoryBytes > 0 {
		w += u.MemoryBytes / excess.MemoryBytes
	}
	return w
}

// excess is what the host carries above the goal.
func (r *relief) excess() Use {
	var e Use
	if r.goal.CPURatio > 0 {
		e.CPUHertz = max(0, r.from.load.CPUHertz-r.goal.CPURatio*r.from.host.CPUHertz)
	}
	if r.goal.MemoryRatio > 0 {
		e.MemoryBytes = max(0, r.from.load.MemoryBytes-r.goal.MemoryRatio*r.from.host.MemoryBytes)
	}
	return e
}

func (r *relief) solve() string {
	if r.excess() == (Use{}) {
		return ""
	}
	r.budget = searchBudget
	for n := 1; n <= len(r.vms) && r.budget > 0; n++ {
		if r.search(n, r.vms) {
			return ""
		}
	}
	for _, vm := range r.vms {
		if r.excess() == (Use{}) {
			break
		}
		r.move(vm)
	}
	return r.shortfall()
}

// search looks for n more moves out of vms that reach the goal, and leaves them made.
func (r *relief) search(n int, vms []mover) bool {
	if !covers(vms, n, r.excess()) {
		return false
	}
	if n == 1 {
		return r.complete(vms)
	}
	for i, vm := range vms {
		if r.budget <= 0 {
			return false
		}
		if !r.move(vm) {
			continue
		}
		if r.search(n-1, vms[i+1:]) {
			return true
		}
		r.undo(vm)
	}
	return false
}

// complete makes the one move that reaches the goal, of the smallest VM that can.
func (r *relief) complete(vms []mover) bool {
	excess := r.excess()
	for _, vm := range slices.Backward(vms) {
		if r.budget <= 0 {
			return false
		}
		if vm.use.CPUHertz < excess.CPUHertz || vm.use.MemoryBytes < excess.MemoryBytes || !r.move(vm) {
			continue
		}
		if r.excess() == (Use{}) {
			return true
		}
		r.undo(vm)
	}
	return false
}

// covers reports whether the n largest VMs, chosen anew for CPU and for memory, would be enough. If not, no n VMs are.
func covers(vms []mover, n int, excess Use) bool {
	cpu, memory := make([]float64, len(vms)), make([]float64, len(vms))
	for i, vm := range vms {
		cpu[i], memory[i] = vm.use.CPUHertz, vm.use.MemoryBytes
	}
	return largest(cpu, n) >= excess.CPUHertz && largest(memory, n) >= excess.MemoryBytes
}

func largest(values []float64, n int) float64 {
	slices.Sort(values)
	sum := 0.0
	for _, v := range values[max(0, len(values)-n):] {
		sum += v
	}
	return sum
}

// move takes a VM to its best host, if any may take it.
func (r *relief) move(vm mover) bool {
	r.budget--
	ratings := r.rate(VMSpec{ID: vm.ID}, r.policy)
	if len(ratings) == 0 || ratings[0].Stars == 0 {
		return false
	}
	best := ratings[0]
	r.arrive(r.books[best.Host], vm.ID)
	r.leave(r.from, vm.ID)
	r.moves = append(r.moves, Move{VM: vm.ID, Name: vm.Name, From: r.from.host.ID, To: best.Host, Kind: best.Kind, Rating: best})
	return true
}

// undo takes back the last move, which was the VM's.
func (r *relief) undo(vm mover) {
	last := r.moves[len(r.moves)-1]
	r.moves = r.moves[:len(r.moves)-1]
	r.leave(r.books[last.To], vm.ID)
	r.arrive(r.from, vm.ID)
}

// shortfall says what keeps the host above the goal, empty if nothing does.
func (r *relief) shortfall() string {
	excess := r.excess()
	var parts []string
	after := r.from.ratio(r.from.load)
	if excess.CPUHertz > 0 {
		parts = append(parts, fmt.Sprintf("CPU %s, asked for %s", percent(after.CPURatio), percent(r.goal.CPURatio)))
	}
	if excess.MemoryBytes > 0 {
		parts = append(parts, fmt.Sprintf("memory %s, asked for %s", percent(after.MemoryRatio), percent(r.goal.MemoryRatio)))
	}
	if len(parts) == 0 {
		return ""
	}
	text := fmt.Sprintf("%s would still be at %s: of its %d running VMs %d can move", r.from.host.Name, strings.Join(parts, " and "),
		len(r.running), len(r.moves))
	for _, group := range []struct {
		what string
		of   []string
	}{{"have no host that may take them", r.stuck}, {"may not move now", r.frozen}, {"have no known demand", r.unknown}} {
		if len(group.of) > 0 {
			text += fmt.Sprintf("; %d %s (%s)", len(group.of), group.what, group.of[0])
		}
	}
	return text
}
