package app_test

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/protip/protip/internal/app"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// mortalEnv turns this test binary into an agent that kills itself.
const mortalEnv = "PROTIP_TEST_MORTAL"

func TestMain(m *testing.M) {
	if spec := os.Getenv(mortalEnv); spec != "" {
		liveMortal(spec)
	}
	if os.Getenv(apartEnv) != "" {
		beApart()
	}
	flag.Parse()
	parallel := "4" // most of the time these tests wait
	flag.Visit(func(f *flag.Flag) {
		if f.Name == "test.parallel" {
			parallel = f.Value.String()
		}
	})
	if err := flag.Set("test.parallel", parallel); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// mortal is an agent in a process of its own that ends by SIGKILL at its nth write to the journal: before it, or as soon as it is
// on disk.
type mortal struct {
	Config, DataDir string
	Start           time.Time // of the clock that it shares with the simulated vCenters
	Speed           float64
	Write           int
	Before          bool
}

// survived is what a mortal says when its remedy is over and it still lives.
const survived = "survived"

func liveMortal(spec string) {
	var m mortal
	if err := json.Unmarshal([]byte(spec), &m); err != nil {
		panic(err)
	}
	a, err := app.New(context.Background(), app.Options{
		ConfigFile: m.Config, DataDir: m.DataDir, Clock: clock.From(m.Start, m.Speed), Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		WrapJournal: func(j remediation.Journal) remediation.Journal { return &deadlyJournal{Journal: j, mortal: m} },
		Notify: func(e app.Event) {
			if e.Action != nil && e.Action.Outcome != "" {
				fmt.Println(survived)
			}
		},
	})
	if err == nil {
		go func() { // the test that started it has ended
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(3)
		}()
		err = a.Run(context.Background())
	}
	fmt.Fprintln(os.Stderr, "agent ended:", err)
	os.Exit(4)
}

// deadlyJournal kills its process at one write.
type deadlyJournal struct {
	remediation.Journal
	mortal
	mu     sync.Mutex
	writes int
}

func (j *deadlyJournal) Create(ctx context.Context, a remediation.Action) error {
	return j.write(func() error { return j.Journal.Create(ctx, a) })
}

func (j *deadlyJournal) Step(ctx context.Context, prev, next remediation.Action, at time.Time, note string) error {
	return j.write(func() error { return j.Journal.Step(ctx, prev, next, at, note) })
}

func (j *deadlyJournal) write(do func() error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.writes++
	if j.writes == j.Write && j.Before {
		die()
	}
	err := do()
	if j.writes == j.Write {
		die()
	}
	return err
}

func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// live runs a mortal on the rig's files and reports whether it was killed; one that survives is killed afterwards.
func (r *rig) live(t *testing.T, write int, before bool) (killed bool) {
	t.Helper()
	spec, err := json.Marshal(mortal{Config: r.configFile(), DataDir: r.dataDir(), Start: r.began, Speed: r.clock.Speed(), Write: write, Before: before})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), mortalEnv+"="+string(spec))
	var log transcript
	cmd.Stderr = &log
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	alive := false
	for lines := bufio.NewScanner(out); !alive && lines.Scan(); {
		alive = lines.Text() == survived
	}
	if alive {
		_ = cmd.Process.Kill()
	}
	_ = cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() || ctx.Err() != nil {
		t.Fatalf("agent that should die at write %d ended with %s (%v):\n%s", write, cmd.ProcessState, ctx.Err(), log.tail(60))
	}
	return !alive
}

// TestKilledAtEveryWrite kills the agent before and after each of its writes to the journal, until one lives to the end, and
// lets another take over. Whatever was written last, no migration is sent twice and the journal tells the truth.
func TestKilledAtEveryWrite(t *testing.T) {
	t.Parallel()
	const most = 30
	slots := make(chan struct{}, 6) // most of the time they wait
	var mu sync.Mutex
	ends := map[remediation.State]int{}
	lived := most + 1 // the first write that no agent came to
	var running sync.WaitGroup
	for n := 1; n <= most; n++ {
		slots <- struct{}{}
		mu.Lock()
		over := n > lived
		mu.Unlock()
		if over {
			<-slots
			break
		}
		running.Go(func() {
			defer func() { <-slots }()
			for _, before := range []bool{true, false} {
				t.Run(fmt.Sprintf("%d/before=%t", n, before), func(t *testing.T) {
					r := newMortalRig(t)
					killed := r.live(t, n, before)
					last := r.takeOver(t)
					mu.Lock()
					defer mu.Unlock()
					ends[last.State]++
					if !killed {
						lived = min(lived, n)
					}
				})
			}
		})
	}
	running.Wait()
	t.Logf("ends %v, an agent lived with %d writes", ends, lived-1)
	if lived > most || lived < 8 {
		t.Errorf("the first agent to live was that to be killed at write %d", lived)
	}
	for _, state := range []remediation.State{remediation.Done, remediation.Unknown} {
		if ends[state] == 0 {
			t.Errorf("no action ended %s: %v", state, ends)
		}
	}
}

// TestKilledAgainAndAgain kills those that take over, too: one action goes through many agents, and is sent once.
func TestKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	r := newMortalRig(t)
	for i, at := range []struct {
		write  int
		before bool
	}{
		{2, false},            // approved
		{1, false},            // claimed
		{4, true},             // called, and what came of it is not on disk
		{1, false}, {2, true}, // taken up; found, and that is not on disk
		{2, false}, {1, false}, // found; taken up
		{2, true}, {2, false}, {2, false}, {1, false}, // to its end, or nearly
	} {
		if !r.live(t, at.write, at.before) {
			t.Logf("agent %d lived", i+1)
			break
		}
	}
	if act := r.takeOver(t); act.State != remediation.Done || sent(r.vcs[0]) != 1 {
		t.Errorf("the action ended %s, %d migrations were sent", act.State, sent(r.vcs[0]))
	}
}

func newMortalRig(t *testing.T) *rig {
	r := newRig(t, 20, hotFleet("vc"))
	r.automatic("HostHot")
	r.remediation(map[string]any{"cooldown": "1d"})
	return r
}

// takeOver starts an agent that lives, waits until nothing is left to do, and holds what the journal says against what the
// vCenter knows. It returns the last action.
func (r *rig) takeOver(t *testing.T) remediation.Action {
	t.Helper()
	began := r.clock.Now()
	vc, a := r.vcs[0], r.start()
	var actions []remediation.Action
	left := func(act remediation.Action) bool { // nobody approved it before its agent died: it is given up after a while
		return act.State == remediation.Planned && act.PlannedAt.Before(began)
	}
	quiet := func() string {
		actions = a.actions()
		for _, act := range actions {
			if !act.State.Final() && !left(act) {
				return fmt.Sprintf("action %s is %s", act.ID, act.State)
			}
		}
		if len(actions) == 0 {
			return "there is no action"
		}
		if last := actions[0]; last.State != remediation.Unknown && !left(last) && last.Outcome == "" {
			return fmt.Sprintf("action %s is %s and has no outcome: %s", last.ID, last.State, last.Error)
		}
		return ""
	}
	a.awaitUp(vc.Name())
	await(t, deadline, quiet)
	r.throughout(4*interval, quiet)

	calls := vc.MigrationCalls()
	mayHaveSent := map[inventory.ID]int{}
	for _, act := range actions {
		t.Logf("action of %s is %s: %s", act.VMName, act.State, act.Error)
		if act.Sent() {
			mayHaveSent[act.VM]++
		}
		v, ok := a.Snapshot().VM(act.VM)
		if !ok {
			t.Fatalf("VM %s is gone", act.VMName)
		}
		switch act.State {
		case remediation.Done:
			if v.Host != act.To || !act.Verified {
				t.Errorf("action is done (verified: %t), and %s is on %s, not on %s", act.Verified, act.VMName, v.Host, act.To)
			}
		case remediation.Failed, remediation.RolledBack:
			// On a machine too slow for the clock protip holds it back for numbers too old. A restart alone is no reason.
			if act.Sent() || act.Fault || strings.Contains(act.Error, remediation.ErrNotYet.Error()) {
				t.Errorf("action of a vCenter that refuses nothing ended %s (sent: %t): %s", act.State, act.Sent(), act.Error)
			}
		case remediation.Unknown:
			r.holdUnknown(t, a, act, v.VM)
		case remediation.Planned:
			if act.Sent() || act.By != "" || v.Host != act.From {
				t.Errorf("action that nobody approved is %+v", act)
			}
		}
	}
	for _, id := range []inventory.ID{vm(t, vc, "mover"), vm(t, vc, "anchor")} {
		switch n := calls[ref(id)]; {
		case n > 1:
			t.Errorf("%d migrations of %s were sent", n, id)
		case n > mayHaveSent[id]:
			t.Errorf("a migration of %s was sent, and the journal knows none: %+v", id, actions)
		}
	}
	return actions[0]
}

// holdUnknown checks that an action that cannot be decided says so, says what to do, and keeps its VM where it is.
func (r *rig) holdUnknown(t *testing.T, a *agent, act remediation.Action, v *inventory.VM) {
	t.Helper()
	if !act.Sent() || act.TaskRef != "" || v.Host != act.From {
		t.Errorf("action is unknown although it was not sent, or its task is known, or the VM came to its target: %+v", act)
	}
	for _, words := range []string{act.VMName + " is on " + act.FromName, "stays frozen", "say how it ended"} {
		if !strings.Contains(act.Error, words) {
			t.Errorf("the unknown action says %q, want %q in it", act.Error, words)
		}
	}
	if sent(r.vcs[0]) != 0 {
		t.Errorf("a call that arrived was not found: %v", act)
	}
	tip := a.awaitTip("HostHot", act.From, rules.Active)
	_, err := a.implement(tip, "")
	refused(t, "implementing the tip once more", err, act.VMName+": frozen: nobody knows how action "+act.ID+" ended")
	if n := a.scrape().value("protip_actions", "state", "unknown"); n != 1 {
		t.Errorf("protip_actions of unknown is %v", n)
	}
	if slices.ContainsFunc(a.actions(), func(other remediation.Action) bool { return other.VM == act.VM && other.ID != act.ID && other.Sent() }) {
		t.Error("the frozen VM was moved again")
	}

	// The way out that the text names: a person looks, and says that it failed.
	said, err := a.Resolve(t.Context(), act.ID, remediation.Failed, "it is on "+act.FromName)
	if err != nil || said.State != remediation.Failed {
		t.Errorf("resolved as failed it is %s, %v", said.State, err)
	}
	if n := a.scrape().value("protip_actions", "state", "unknown"); n != 0 {
		t.Errorf("resolved, protip_actions of unknown is %v", n)
	}
}
