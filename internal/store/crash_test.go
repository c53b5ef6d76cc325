package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/remediation/remediationtest"
)

// The agent of these tests is this test binary, started anew, that kills itself with SIGKILL before or after the n-th write to
// its journal. The platform lives in the parent and goes on. After every kill the journal's word must be true, and a new agent
// must bring the action to its end with at most one migration call.

const crashSpeed = 20 // of the agents' clock

func object(kind inventory.Kind, ref string) inventory.ID {
	return inventory.ID{Source: "vc", Kind: kind, Ref: ref}
}

var (
	crashVM   = object(inventory.KindVM, "vm-1")
	crashFrom = object(inventory.KindHost, "host-1")
	crashTo   = object(inventory.KindHost, "host-2")
)

func TestKillAtEveryStep(t *testing.T) {
	if os.Getenv("PROTIP_TEST_AGENT") != "" {
		runAgent(t)
		return
	}
	for n, state := range writes {
		for again := range 3 { // the write at which the second agent is killed, too
			for _, when := range []string{"before", "after"} {
				if again > 0 && (when == "before" || n < 3) {
					continue // the same as a kill at an earlier write, or nothing was sent yet
				}
				t.Run(fmt.Sprintf("%s %s, then at write %d", when, state, again), func(t *testing.T) {
					t.Parallel()
					killAt(t, n+1, when, again)
				})
			}
		}
	}
}

// writes are what the journal is given in the life of one action.
var writes = []remediation.State{
	remediation.Planned, remediation.Approved, remediation.Claimed, remediation.Starting, remediation.Started, remediation.Verifying,
	remediation.Done, remediation.Done, // the second with its outcome
}

// cancelWrites are what the journal is given when a person cancels the action as soon as its task is known.
var cancelWrites = []string{"planned", "approved", "claimed", "starting", "started", "asked", "sending", "rolled_back"}

// TestKillWhileCancelling: a request that is on disk is not lost, none is made twice, and where the VM is says how it ended.
func TestKillWhileCancelling(t *testing.T) {
	for n := slices.Index(cancelWrites, "asked"); n < len(cancelWrites); n++ {
		for _, when := range []string{"before", "after"} {
			t.Run(when+" "+cancelWrites[n], func(t *testing.T) {
				t.Parallel()
				mayBeSent := cancelWrites[n] == "sending" && when == "after" // on disk, and nobody can tell
				took := 20 * time.Second
				if mayBeSent {
					took = time.Second // it runs to its end
				}
				p := remediationtest.NewPlatform(took, nil)
				p.Put(crashVM, crashFrom)
				server := httptest.NewServer(serve(p))
				defer server.Close()
				dir := filepath.Join(t.TempDir(), "data")
				if killed := agent(t, dir, server.URL, n+1, when, "PROTIP_TEST_CANCEL=1"); !killed {
					t.Fatalf("the agent ended before write %d", n+1)
				}
				crashed, _ := truth(t, dir, p)
				if p.Cancels() > 0 && crashed.CancelSentAt.IsZero() {
					t.Errorf("the platform was asked, and the journal has %+v", crashed)
				}
				if killed := agent(t, dir, server.URL, 0, "", "PROTIP_TEST_CANCEL=1"); killed {
					t.Fatal("the last agent was killed")
				}
				a, calls := truth(t, dir, p)
				want, cancels, at := remediation.RolledBack, 1, crashFrom
				if mayBeSent {
					want, cancels, at = remediation.Done, 0, crashTo
				}
				if a.State != want || calls != 1 || p.Cancels() != cancels || p.Where(crashVM) != at || a.CancelBy != "bob" || a.CancelSentAt.IsZero() {
					t.Errorf("ended %s with %d calls and %d requests, the VM on %s: %+v", a.State, calls, p.Cancels(), p.Where(crashVM), a)
				}
			})
		}
	}
}

func killAt(t *testing.T, n int, when string, again int) {
	p := remediationtest.NewPlatform(60*time.Millisecond, nil)
	p.Put(crashVM, crashFrom)
	server := httptest.NewServer(serve(p))
	defer server.Close()
	dir := filepath.Join(t.TempDir(), "data")

	if killed := agent(t, dir, server.URL, n, when); !killed {
		t.Fatalf("the agent ended before write %d", n)
	}
	crashed, _ := truth(t, dir, p)
	if when == "after" && crashed.State != writes[n-1] {
		t.Errorf("killed in %s, want %s", crashed.State, writes[n-1])
	}
	if again > 0 {
		agent(t, dir, server.URL, again, "after") // or it ends before
		crashed, _ = truth(t, dir, p)
	}
	if killed := agent(t, dir, server.URL, 0, ""); killed {
		t.Fatal("the last agent was killed")
	}
	a, calls := truth(t, dir, p)
	switch {
	case a.State == remediation.Done && calls == 1 && a.Verified:
	case a.State == remediation.Planned && crashed.State == remediation.Planned: // it died before anybody's approval was stored
	case a.State == remediation.Unknown && calls == 0 && sentOrUnknown(crashed.State): // it died between intent and call
	default:
		t.Errorf("killed in %q, ended in %s (%s) with %d calls", crashed.State, a.State, a.Error, calls)
	}
}

func sentOrUnknown(s remediation.State) bool {
	return s == remediation.Starting || s == remediation.Unknown
}

// truth holds the journal's word against the platform's and returns the action.
func truth(t *testing.T, dir string, p *remediationtest.Platform) (remediation.Action, int) {
	t.Helper()
	s, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	actions, err := s.Actions(t.Context(), remediation.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	if len(actions) == 0 {
		return remediation.Action{}, 0
	}
	a, calls := actions[0], p.Calls()[actions[0].ID]
	lie := ""
	switch a.State {
	case remediation.Planned, remediation.Approved, remediation.Claimed, remediation.Failed:
		if calls != 0 {
			lie = "nothing was sent"
		}
	case remediation.Started, remediation.Verifying, remediation.Done:
		if calls != 1 {
			lie = "one call was sent"
		}
	}
	if a.State == remediation.Done && p.Where(crashVM) != crashTo {
		lie = "the VM is on its target"
	}
	if calls > 1 || len(actions) > 1 || lie != "" {
		t.Errorf("the journal says %s: %q is not true; %d calls, %d actions", a.State, lie, calls, len(actions))
	}
	return a, calls
}

// agent runs one until it ends, and reports whether it was killed.
func agent(t *testing.T, dir, platform string, killAt int, when string, env ...string) (killed bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestKillAtEveryStep$")
	cmd.Env = append(append(os.Environ(), env...), "PROTIP_TEST_AGENT="+dir, "PROTIP_TEST_PLATFORM="+platform,
		"PROTIP_TEST_KILL="+strconv.Itoa(killAt), "PROTIP_TEST_WHEN="+when)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL && ctx.Err() == nil {
		return true
	}
	if err != nil {
		t.Fatalf("agent: %v\n%s", err, out)
	}
	return false
}

// runAgent is the child: it moves one VM if nobody has begun to, and ends when that is over.
func runAgent(t *testing.T) {
	s := open(t, os.Getenv("PROTIP_TEST_AGENT"))
	n, err := strconv.Atoi(os.Getenv("PROTIP_TEST_KILL"))
	if err != nil {
		t.Fatal(err)
	}
	platform := wire(os.Getenv("PROTIP_TEST_PLATFORM"))
	c := clock.New(crashSpeed)
	fleet := smallFleet(t, c)
	journal := &deadly{Store: s, at: n, after: os.Getenv("PROTIP_TEST_WHEN") == "after"}
	engine, err := remediation.New(remediation.Options{
		Journal: journal, Memory: s, Clock: c, Snapshot: fleet.Snapshot, Patience: 10 * time.Second,
		Executors: map[string]remediation.Executor{"vc": remediationtest.Executor{API: platform, Every: 100 * time.Millisecond}},
		Judge:     func(remediation.Action) (remediation.Outcome, bool) { return remediation.Recovered, true },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- engine.Run(ctx) }()
	if all, err := s.Actions(ctx, remediation.Filter{}); err != nil {
		t.Fatal(err)
	} else if len(all) == 0 {
		move := remediation.Action{
			TipID: "tip", Kind: remediation.LiveMigration, VM: crashVM, VMName: "web", From: crashFrom, FromName: "esx-1",
			To: crashTo, ToName: "esx-2", Settle: time.Second,
		}
		if _, err := engine.Submit(ctx, []remediation.Action{move}, "ann", "test"); err != nil {
			t.Fatal(err)
		}
	}
	for !over(t, s) {
		follow(t, c, fleet, engine, platform)
		if os.Getenv("PROTIP_TEST_CANCEL") != "" {
			cancelOnce(t, s, engine)
		}
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// cancelOnce is a person who asks as soon as the task is known, if nobody did.
func cancelOnce(t *testing.T, s *Store, engine *remediation.Engine) {
	actions, err := s.Actions(t.Context(), remediation.Filter{States: []remediation.State{remediation.Started}})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range actions {
		if a.CancelBy != "" {
			continue
		}
		if _, err := engine.Cancel(t.Context(), a.ID, "bob", "test"); err != nil {
			t.Fatal(err)
		}
	}
}

func over(t *testing.T, s *Store) bool {
	actions, err := s.Actions(t.Context(), remediation.Filter{})
	if err != nil || len(actions) != 1 {
		t.Fatalf("actions %v, %v", actions, err)
	}
	a := actions[0]
	return a.State == remediation.Planned || a.State.Final() && (a.State != remediation.Done || a.Outcome != "")
}

// smallFleet is what a collector has listed.
func smallFleet(t *testing.T, c *clock.Clock) *inventory.Fleet {
	fleet := inventory.NewFleet(inventory.Source{Name: "vc", Interval: time.Hour})
	d := inventory.Delta{Source: "vc", Begin: true, Synced: true}
	for _, id := range []inventory.ID{crashFrom, crashTo} {
		d.Hosts = append(d.Hosts, inventory.Host{ID: id, Name: id.Ref, Connection: inventory.Connected, Power: inventory.PowerOn})
		d.Samples = append(d.Samples, inventory.SampleSet{ID: id, At: c.Now().UnixMilli(), Values: []inventory.Value{
			{Metric: inventory.HostCPUUsage, Value: 1}, {Metric: inventory.HostMemoryUsage, Value: 1},
		}})
	}
	d.VMs = []inventory.VM{{ID: crashVM, Name: "web", Host: crashFrom, Power: inventory.PowerOn}}
	if _, err := fleet.Apply(d, c.Now()); err != nil {
		t.Fatal(err)
	}
	return fleet
}

// follow is the collector's part.
func follow(t *testing.T, c *clock.Clock, fleet *inventory.Fleet, engine *remediation.Engine, platform wire) {
	where, err := platform.Find(remediation.Action{VM: crashVM})
	if err != nil {
		t.Fatal(err)
	}
	changes, err := fleet.Apply(inventory.Delta{Source: "vc", VMs: []inventory.VM{
		{ID: crashVM, Name: "web", Host: where.Host, Power: inventory.PowerOn},
	}}, c.Now())
	if err != nil {
		t.Fatal(err)
	}
	engine.Observe(changes)
}

// deadly is a journal that kills its process at the n-th write.
type deadly struct {
	*Store
	at, n int
	after bool
}

func (d *deadly) Create(ctx context.Context, a remediation.Action) error {
	return d.write(func() error { return d.Store.Create(ctx, a) })
}

func (d *deadly) Step(ctx context.Context, prev, next remediation.Action, at time.Time, note string) error {
	step := func() error { return d.Store.Step(ctx, prev, next, at, note) }
	if prev.State == next.State && prev.Fence == next.Fence && prev.Outcome == next.Outcome &&
		prev.CancelAt.Equal(next.CancelAt) && prev.CancelSentAt.Equal(next.CancelSentAt) {
		return step() // progress: how often it is told depends on how fast the machine is
	}
	return d.write(step)
}

func (d *deadly) write(f func() error) error {
	d.n++
	if d.n == d.at && !d.after {
		die()
	}
	err := f()
	if d.n == d.at {
		die()
	}
	return err
}

func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // does not return for long
	select {}
}

// request and reply are what goes over the wire to the parent's platform.
type request struct {
	Action remediation.Action
	Ref    string
}

type reply struct {
	Ref      string
	Task     remediation.Task
	Ratio    float64
	Sighting remediation.Sighting
	Error    string
	NoOp     bool
}

func serve(p *remediationtest.Platform) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req request
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		var out reply
		var err error
		switch r.URL.Path {
		case "/check":
			err = p.Check(req.Action)
		case "/migrate":
			out.Ref, err = p.Migrate(req.Action)
		case "/poll":
			out.Task, out.Ratio, err = p.Poll(req.Ref)
		case "/cancel":
			err = p.Cancel(req.Action)
		case "/find":
			out.Sighting, err = p.Find(req.Action)
		}
		if err != nil {
			out.Error, out.NoOp = err.Error(), errors.Is(err, remediation.ErrNoOp)
		}
		_ = json.NewEncoder(w).Encode(out) // the client may be dead, which is the point
	})
}

// wire is the platform's address.
type wire string

var _ remediationtest.API = wire("")

func (u wire) call(path string, req request) (reply, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return reply{}, err
	}
	resp, err := http.Post(string(u)+path, "application/json", bytes.NewReader(body))
	if err != nil {
		return reply{}, fmt.Errorf("%w: %w", remediation.ErrUndecided, err)
	}
	defer resp.Body.Close()
	var out reply
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		return reply{}, fmt.Errorf("%w: %w", remediation.ErrUndecided, err)
	}
	switch {
	case out.NoOp:
		return out, remediation.ErrNoOp
	case out.Error != "":
		return out, errors.New(out.Error)
	}
	return out, nil
}

func (u wire) Check(a remediation.Action) error {
	_, err := u.call("/check", request{Action: a})
	return err
}

func (u wire) Migrate(a remediation.Action) (string, error) {
	out, err := u.call("/migrate", request{Action: a})
	return out.Ref, err
}

func (u wire) Poll(ref string) (remediation.Task, float64, error) {
	out, err := u.call("/poll", request{Ref: ref})
	return out.Task, out.Ratio, err
}

func (u wire) Cancel(a remediation.Action) error {
	_, err := u.call("/cancel", request{Action: a})
	return err
}

func (u wire) Find(a remediation.Action) (remediation.Sighting, error) {
	out, err := u.call("/find", request{Action: a})
	return out.Sighting, err
}
