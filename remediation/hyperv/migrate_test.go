package hyperv

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/protip/protip/internal/sim/hyperv"
	"github.com/protip/protip/remediation"
)

func quiet(remediation.Progress) error { return nil }

// TestRolledBack: the number decides what an operator is told, in whatever language the host speaks.
func TestRolledBack(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  func(*lab) error
		opt  func(*hyperv.Options)
		kind remediation.Kind
		want string
	}{
		{"no memory", func(l *lab) error { return l.FailNextMove(l.vm, hyperv.NoMemory) }, nil, remediation.LiveMigration, "(0x800705AA)"},
		{"a right is missing", func(l *lab) error { return l.SetLiveFails(l.vm, hyperv.LogonTypeNotGranted) }, nil, remediation.LiveMigration, "A quick migration works meanwhile"},
		{"an ISO is missing", func(l *lab) error { return l.FailNextMove(l.vm, hyperv.ISOMissing) }, nil, remediation.LiveMigration, "eject it"},
		{"too slow", func(l *lab) error { return l.FailNextMove(l.vm, hyperv.MigrationTimeout) }, nil, remediation.LiveMigration, "migration network"},
		{
			"no delegation", func(*lab) error { return nil }, func(o *hyperv.Options) { o.Standalone, o.NoDelegation = true, true },
			remediation.LiveMigration, "constrained delegation",
		},
		{
			"a German host", func(l *lab) error { return l.FailNextMove(l.vm, hyperv.NoConnection) }, func(o *hyperv.Options) { o.Locale = "de-DE" },
			remediation.LiveMigration, "firewall for TCP 6600",
		},
		{"quick", func(l *lab) error { return l.FailNextMove(l.vm, hyperv.NoMemory) }, nil, remediation.QuickMigration, "(0x800705AA)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var edits []func(*hyperv.Options)
			if tc.opt != nil {
				edits = append(edits, tc.opt)
			}
			l := newLab(t, edits...)
			must(tc.set(l))
			err := l.executor(t, secret).Do(t.Context(), l.action(tc.kind), quiet)
			if err == nil || errors.Is(err, remediation.ErrUndecided) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("do: %v, want %q in it", err, tc.want)
			}
			if is := l.Truth(l.vm); is.Node != "hv-01" || !is.Running {
				t.Errorf("the VM: %+v", is)
			}
		})
	}
}

// TestLastError: where no job tells why, the VM's resource does.
func TestLastError(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.DropClass("Msvm_MigrationJob")
	must(l.FailNextMove(l.vm, hyperv.NoMemory))
	err := l.executor(t, secret).Do(t.Context(), l.action(remediation.LiveMigration), quiet)
	if err == nil || !strings.Contains(err.Error(), "(0x800705AA): the target has not enough memory free") {
		t.Errorf("do: %v", err)
	}
}

// TestQueue: a VM that waits for a slot is under way, however long, and nothing is sent for it again.
func TestQueue(t *testing.T) {
	t.Parallel()
	for _, standalone := range []bool{false, true} {
		l := newLab(t, func(o *hyperv.Options) {
			o.Standalone, o.ActiveMigrations = standalone, 1
			o.MigrationTime = func(memory float64) time.Duration { return time.Duration(memory/(1<<30)) * 20 * time.Second }
			o.Nodes[0].VMs[1].MemoryBytes = 8 << 30 // moves for 160 s, which is more than Settle
		})
		must(l.Move(l.VMs()[1], "hv-02", true))
		ex, a := l.executor(t, secret), l.action(remediation.LiveMigration)
		waited, queued := false, []bool{}
		err := ex.Do(t.Context(), a, func(p remediation.Progress) error {
			a.TaskRef = p.TaskRef
			if queued = append(queued, p.Queued); len(queued) == 1 {
				s, err := ex.Find(t.Context(), a)
				waited = err == nil && len(s.Tasks) == 1 && s.Tasks[0].State == remediation.TaskRunning && s.Host == a.From
				if !waited {
					t.Errorf("standalone %t: in the queue it is found as %+v, %v", standalone, s, err)
				}
			}
			return nil
		})
		if err != nil || !waited || l.Truth(l.vm).Node != "hv-02" || l.Requests("", l.method()) != 1 {
			t.Errorf("standalone %t: do: %v; %+v", standalone, err, l.Truth(l.vm))
		}
		if queued = slices.Compact(queued); !slices.Equal(queued, []bool{false, true, false}) {
			t.Errorf("standalone %t: reported as waiting %v, want taken, waiting, and under way", standalone, queued)
		}
	}
}

// TestCancelInTheQueue: what waits for a slot is taken out of the queue, and what has the slot goes on.
func TestCancelInTheQueue(t *testing.T) {
	t.Parallel()
	for _, standalone := range []bool{false, true} {
		l := newLab(t, func(o *hyperv.Options) { o.Standalone, o.ActiveMigrations = standalone, 1 })
		other := l.VMs()[1]
		must(l.Move(other, "hv-02", true))
		ex, a := l.executor(t, secret), l.action(remediation.LiveMigration)
		err := ex.Do(t.Context(), a, func(p remediation.Progress) error {
			if p.Queued {
				a.TaskRef = p.TaskRef
				if err := ex.Cancel(t.Context(), a); err != nil {
					t.Errorf("standalone %t: cancel: %v", standalone, err)
				}
			}
			return nil
		})
		if err == nil || errors.Is(err, remediation.ErrUndecided) || !strings.Contains(err.Error(), "somebody cancelled it") {
			t.Errorf("standalone %t: do: %v", standalone, err)
		}
		if is := l.Truth(l.vm); is.Node != "hv-01" || !is.Running || is.Moving {
			t.Errorf("standalone %t: the VM: %+v", standalone, is)
		}
		if all := l.Migrations(); len(all) != 2 || all[0].Code != 0 || all[1].Code != hyperv.OperationCanceled {
			t.Errorf("standalone %t: migrations %+v", standalone, all)
		}
	}
}

// TestCancelLeavesOthersAlone: a migration of the VM that leads elsewhere is somebody else's.
func TestCancelLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	must(l.Move(l.vm, "hv-03", true))
	a := l.action(remediation.LiveMigration)
	a.TaskRef = taskRef(a)
	err := l.executor(t, secret).Cancel(t.Context(), a)
	if err == nil || !strings.Contains(err.Error(), "is not protip's: it leads to") || l.Requests("", "CancelOperation") != 0 {
		t.Errorf("cancel: %v", err)
	}
}

// TestCancelRefused: the number of a refusal is told, a lost answer is told as lost.
func TestCancelRefused(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		fault hyperv.Fault
		want  string
		open  bool
	}{
		{hyperv.Fault{Action: "CancelOperation", HRESULT: 0x80070005}, "administrator of the cluster", false},
		{hyperv.Fault{Action: "CancelOperation", LoseAnswer: true}, "", true},
	} {
		l := newLab(t)
		must(l.Move(l.vm, "hv-02", true))
		l.Inject(tc.fault)
		a := l.action(remediation.LiveMigration)
		a.TaskRef = taskRef(a)
		err := l.executor(t, secret).Cancel(t.Context(), a)
		if err == nil || errors.Is(err, remediation.ErrUndecided) != tc.open || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("cancel: %v, want %q in it, open %t", err, tc.want, tc.open)
		}
	}
}

// TestNodeDies: what a node's end makes of a migration is read from where the VM is, by way of the nodes that are left.
func TestNodeDies(t *testing.T) {
	for _, tc := range []struct {
		node string
		want string // in the error
	}{
		{"hv-01", ""}, // wherever the cluster starts it
		{"hv-02", "the node is down"},
		{"hv-03", "-"},
	} {
		t.Run(tc.node, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			ex, a := l.executor(t, secret), l.action(remediation.LiveMigration)
			died := false
			err := ex.Do(t.Context(), a, func(p remediation.Progress) error {
				if p.Ratio > 0 && !died {
					died = true
					must(l.SetNodeState(tc.node, hyperv.NodeDown))
				}
				return nil
			})
			is := l.Truth(l.vm)
			switch {
			case !died || l.Requests("", l.method()) != 1:
				t.Errorf("died %t, %d calls", died, l.Requests("", l.method()))
			case tc.want == "-" && (err != nil || is.Node != "hv-02"):
				t.Errorf("a third node's end: %v, the VM is on %s", err, is.Node)
			case tc.want == "" && (err == nil) != (is.Node == "hv-02"):
				t.Errorf("do: %v, the VM is on %s", err, is.Node)
			case tc.want != "" && tc.want != "-" && (err == nil || !strings.Contains(err.Error(), tc.want) || is.Node != "hv-01"):
				t.Errorf("do: %v, the VM is on %s", err, is.Node)
			}
		})
	}
}

// TestOnTargetAndDown: a VM that came to its target and does not run has not arrived.
func TestOnTargetAndDown(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	a := l.action(remediation.QuickMigration)
	a.TaskRef = taskRef(a)
	must(l.Place(l.vm, "hv-02"))
	must(l.TurnOff(l.vm))
	ex := l.executor(t, secret)
	if err := ex.Do(t.Context(), a, quiet); err == nil || !strings.Contains(err.Error(), "the VM is offline on its target the-target: start it there") {
		t.Errorf("do: %v", err)
	}
	if s, err := ex.Find(t.Context(), a); err != nil || s.Down != "offline" || s.Host != a.To || len(s.Tasks) != 0 {
		t.Errorf("find: %+v, %v", s, err)
	}
}

// TestUnreadable: a cluster that nobody can read leaves the action open.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	ex := l.executor(t, secret, func(o *Options) { o.Patience = 200 * time.Millisecond })
	err := ex.Do(t.Context(), l.action(remediation.LiveMigration), func(remediation.Progress) error { l.Stop(); return nil })
	if !errors.Is(err, remediation.ErrUndecided) {
		t.Errorf("do: %v, want ErrUndecided", err)
	}
}

// TestNothingSentTwice: a second Do of an action whose first is under way, as after a lost journal, sends nothing.
func TestNothingSentTwice(t *testing.T) {
	t.Parallel()
	for _, standalone := range []bool{false, true} {
		l := newLab(t, func(o *hyperv.Options) { o.Standalone = standalone })
		l.Inject(hyperv.Fault{Action: l.method(), Times: 1, LoseAnswer: true})
		ex, a := l.executor(t, secret), l.action(remediation.LiveMigration)
		if err := ex.Do(t.Context(), a, quiet); !errors.Is(err, remediation.ErrUndecided) {
			t.Fatalf("do: %v, want ErrUndecided", err)
		}
		if err := ex.Do(t.Context(), a, quiet); err == nil || errors.Is(err, remediation.ErrUndecided) || !strings.Contains(err.Error(), taskRef(a)) {
			t.Errorf("do again: %v", err)
		}
		if n := l.Requests("", l.method()); n != 1 {
			t.Errorf("%d calls", n)
		}
	}
}

// TestHowItIsAsked: live is live, quick is quick, and a quick one is never made of a live one that is not possible.
func TestHowItIsAsked(t *testing.T) {
	for _, kind := range []remediation.Kind{remediation.LiveMigration, remediation.QuickMigration} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			if err := l.executor(t, secret).Do(t.Context(), l.action(kind), quiet); err != nil {
				t.Fatal(err)
			}
			moves := l.Migrations()
			if len(moves) != 1 || moves[0].Live != (kind == remediation.LiveMigration) || moves[0].Code != 0 || l.Truth(l.vm).Node != "hv-02" {
				t.Errorf("%+v", moves)
			}
		})
	}
}

func TestCheckRefuses(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  func(*lab)
		opt  func(*hyperv.Options)
		kind remediation.Kind
		want string // in the error; empty: it may
	}{
		{"nothing in the way", func(*lab) {}, nil, remediation.LiveMigration, ""},
		{"nothing in the way of a quick one", func(*lab) {}, nil, remediation.QuickMigration, ""},
		{"a third node down", func(l *lab) { must(l.SetNodeState("hv-03", hyperv.NodeDown)) }, nil, remediation.LiveMigration, ""},
		{"a third host down", func(l *lab) { l.StopEndpoint("hv-03") }, func(o *hyperv.Options) { o.Standalone = true }, remediation.LiveMigration, ""},
		{"the target down", func(l *lab) { must(l.SetNodeState("hv-02", hyperv.NodeDown)) }, nil, remediation.LiveMigration, "is down"},
		{"no memory", func(*lab) {}, func(o *hyperv.Options) { o.Nodes[1].MemoryBytes = 6 << 30 }, remediation.LiveMigration, "has no room: 2048 MiB of memory are free, and the VM takes 4096"},
		{"no memory for a quick one", func(*lab) {}, func(o *hyperv.Options) { o.Nodes[1].MemoryBytes = 6 << 30 }, remediation.QuickMigration, "has no room"},
		{"not live", func(l *lab) { must(l.SetLiveFails(l.vm, hyperv.LogonTypeNotGranted)) }, nil, remediation.LiveMigration, "a quick migration would take it down"},
		{"not live, but quick", func(l *lab) { must(l.SetLiveFails(l.vm, hyperv.LogonTypeNotGranted)) }, nil, remediation.QuickMigration, ""},
		{"no delegation", func(*lab) {}, func(o *hyperv.Options) { o.Standalone, o.NoDelegation = true, true }, remediation.LiveMigration, "delegation"},
		{"quick, of no cluster", func(*lab) {}, func(o *hyperv.Options) { o.Standalone = true }, remediation.QuickMigration, "it is in none"},
		{"quick, on a cluster's node and no role of it", func(*lab) {}, func(o *hyperv.Options) { o.Nodes[0].VMs[0].Unclustered = true }, remediation.QuickMigration, "it is in none"},
		{"live, on a cluster's node and no role of it", func(*lab) {}, func(o *hyperv.Options) { o.Nodes[0].VMs[0].Unclustered = true }, remediation.LiveMigration, ""},
		{"a cluster that does not tell its VMs", func(l *lab) { l.DropProperty("MSCluster_Resource", "PrivateProperties") }, nil, remediation.LiveMigration, "the cluster does not tell its VMs"},
		{"a cluster whose provider is broken", func(l *lab) { l.Inject(hyperv.Fault{Class: "MSCluster_Resource", HRESULT: 0x80041001}) }, nil, remediation.LiveMigration, "80041001"},
		{"a renamed VM", func(l *lab) { must(l.Rename(l.vm, "o'brien\\2")) }, nil, remediation.LiveMigration, ""},
		{"a host that cannot be asked about migrations", func(l *lab) {
			l.Inject(hyperv.Fault{Action: "CheckVirtualSystemIsMigratableToHost", HRESULT: 0x80041024})
		}, nil, remediation.LiveMigration, ""},
		{"a host that tells no memory", func(l *lab) { l.DropClass("Msvm_SummaryInformation") }, nil, remediation.LiveMigration, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var edits []func(*hyperv.Options)
			if tc.opt != nil {
				edits = append(edits, tc.opt)
			}
			l := newLab(t, edits...)
			tc.set(l)
			err := l.executor(t, secret).Check(t.Context(), l.action(tc.kind))
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("check: %v, want %q in it", err, tc.want)
			}
		})
	}
}
