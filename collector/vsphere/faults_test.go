package vsphere_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/vsphere"
	"github.com/protip/protip/internal/sim"
)

// counted are the metrics whose samples are counted: one by quick stats and one by counters.
var counted = []inventory.Metric{inventory.VMCPUUsage, inventory.VMCPUContention}

// look is how often it is looked for what is missing.
const look = interval / 20

// tooBusy is said where the figures mean nothing and are not held to anything.
const tooBusy = "this machine is too busy for the figures to mean anything"

// ledger counts samples that were missing.
type ledger struct {
	a      *agent
	source string
	vms    int

	missing float64 // samples: one VM's value of one metric for one interval
	busy    bool    // this process was kept from running, so that what is missing says nothing
	last    time.Time
}

func (a *agent) ledger(source string, vms int) *ledger {
	return &ledger{a: a, source: source, vms: vms, last: a.clock.Now()}
}

// full reports whether nothing is missing now.
func (l *ledger) full() bool {
	for _, m := range counted {
		if l.a.fresh(l.source, m) < l.vms {
			return false
		}
	}
	return l.a.up(l.source)
}

// look adds up what is missing since the last look.
func (l *ledger) look() {
	now := l.a.clock.Now()
	passed := now.Sub(l.last)
	l.last = now
	if passed > look+interval/10 {
		l.busy = true
	}
	for _, m := range counted {
		l.missing += float64(l.vms-l.a.fresh(l.source, m)) * passed.Seconds() / interval.Seconds()
	}
}

// until looks until ok, and returns how long that took.
func (l *ledger) until(d time.Duration, what string, ok func() bool) time.Duration {
	l.a.t.Helper()
	began := l.a.clock.Now()
	for !ok() {
		if l.a.clock.Now().Sub(began) > d {
			l.a.t.Fatalf("not within %v: %s; source %+v", d, what, l.a.fleet.Snapshot().Sources())
		}
		_ = l.a.clock.Sleep(l.a.t.Context(), look)
		l.look()
	}
	return l.a.clock.Now().Sub(began)
}

// TestFaults: what each fault costs, in samples, log-ins and time.
func TestFaults(t *testing.T) {
	const vms = 20
	t.Parallel()
	type vcenter = *sim.VCenter
	inject := func(f sim.Fault) func(a *agent, vc vcenter) func() {
		return func(_ *agent, vc vcenter) func() { return vc.Inject(f) }
	}
	below := func(f sim.HTTPFault) func(a *agent, vc vcenter) func() {
		return func(_ *agent, vc vcenter) func() { return vc.InjectHTTP(f) }
	}
	for _, tt := range []struct {
		name    string
		fault   func(a *agent, vc vcenter) (lift func())
		lasts   time.Duration // of the fleet's time
		logIns  int           // at most, also of a starved machine's
		recover time.Duration // after the fault was lifted, at most
		lost    float64       // samples, at most
	}{
		{"session terminated", func(a *agent, vc vcenter) func() {
			(&console{t: a.t, name: "vc", vc: vc}).ForgetLogins()
			return func() {}
		}, 0, 1, 20 * time.Second, 0},
		{"vCenter restarted: sessions, views and filters gone", func(a *agent, vc vcenter) func() {
			vc.Stop()
			return func() {
				if err := vc.Restart(); err != nil {
					a.t.Error(err)
				}
			}
		}, 5 * time.Second, 1, 30 * time.Second, vms},
		{"restricted by administrator", inject(sim.Fault{Method: "QueryPerf", Times: 2, Fault: &types.RestrictedByAdministrator{}}), interval, 0, time.Second, 0},
		{"503 of counters", below(sim.HTTPFault{Method: "QueryPerf", Times: 2, Status: 503}), interval, 0, time.Second, 0},
		{"503 of all", below(sim.HTTPFault{Method: "*", Status: 503}), 10 * time.Second, 1, 40 * time.Second, vms},
		{"slow answers", below(sim.HTTPFault{Method: "*", Pause: 100 * time.Millisecond}), 3 * interval, 0, time.Second, 0},
		{"slow calls", inject(sim.Fault{Method: "*", Delay: 100 * time.Millisecond}), 3 * interval, 0, time.Second, 0},
		{"half-closed connections", below(sim.HTTPFault{Method: "*", Times: 4, HalfClose: true}), interval, 2, 40 * time.Second, vms},
		{"counters truncated", below(sim.HTTPFault{Method: "QueryPerf", Times: 1, Truncate: 900}), interval, 0, interval, 0},
		{"changes truncated", func(a *agent, vc vcenter) func() {
			lift := vc.InjectHTTP(sim.HTTPFault{Method: "WaitForUpdatesEx", Times: 1, Truncate: 200})
			c := &console{t: a.t, name: "vc", vc: vc}
			id := c.CreateVM("two changes") // the answer to the first is whole, that to the second is not
			a.eventually(10*time.Second, "the first", func() bool { _, ok := a.fleet.Snapshot().VM(id); return ok })
			c.DestroyVM(id)
			return lift
		}, interval, 1, 40 * time.Second, float64(len(counted) * vms)}, // a look at the counters may fall into the new log-in
		{"connections cut", below(sim.HTTPFault{Method: "*", Times: 4, Break: 300}), interval, 3, 40 * time.Second, vms},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			clk := clock.New(speed)
			vc := startVCenter(t, sim.Config{Clock: clk, Clusters: sim.Uniform(4, vms)})
			opts := sessionOf(vc)
			opts.Timeout = 5 * time.Second
			a := supervise(t, clk, map[string]platform.Options{"vc": opts})
			l := a.ledger("vc", vms)
			l.until(30*interval, "all samples", l.full)
			l.missing, l.busy = 0, false
			before, others := vc.Logins(), 0
			if tt.name == "session terminated" {
				others = 1
			}
			lift := tt.fault(a, vc)
			end := clk.Now().Add(tt.lasts)
			l.until(tt.lasts+interval, "the fault's end", func() bool { return !clk.Now().Before(end) })
			lift()
			took := l.until(30*interval, "all samples again", l.full)
			// What the fault left behind shows in the next two cycles.
			end = clk.Now().Add(2 * interval)
			l.until(3*interval, "two cycles", func() bool { return !clk.Now().Before(end) })
			took += l.until(30*interval, "all samples after two cycles", l.full)
			logIns := vc.Logins() - before - others
			t.Logf("%s: %.1f samples lost of %d an interval, %d log-ins, up again after %.1f s", tt.name, l.missing, len(counted)*vms, logIns, took.Seconds())
			if n := vc.Sessions(); n != 1 {
				t.Errorf("%d sessions, want 1", n)
			}
			if l.busy {
				t.Log(tooBusy)
				return
			}
			if l.missing > tt.lost {
				t.Errorf("%.1f samples lost", l.missing)
			}
			if logIns > tt.logIns {
				t.Errorf("%d log-ins, want at most %d", logIns, tt.logIns)
			}
			if took > tt.recover {
				t.Errorf("up again after %v, want %v", took, tt.recover)
			}
		})
	}
}

// TestRotatedPassword: on disk first and at the vCenter later, or the other way round. No restart, and no storm.
func TestRotatedPassword(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		late   time.Duration // how long after the vCenter the file has the new password
		logIns int
		within time.Duration
	}{
		{"on disk in time", 0, 1, 30 * time.Second},
		{"on disk two minutes late", 2 * time.Minute, 2, time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			clk := clock.New(2 * speed)
			vc := startVCenter(t, sim.Config{Clock: clk})
			file := filepath.Join(t.TempDir(), "password")
			write := func(password string) {
				if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write("secret")
			opts := sessionOf(vc)
			opts.Password = platform.PasswordFile(file)
			a := supervise(t, clk, map[string]platform.Options{"vc": opts})
			l := a.ledger("vc", 20)
			l.until(30*interval, "all samples", l.full)

			vc.SetPassword("rotated")
			if tt.late == 0 {
				write("rotated")
			}
			before := vc.Logins()
			c := &console{t: t, name: "vc", vc: vc}
			c.ForgetLogins()
			if tt.late > 0 {
				l.until(interval, "refused", func() bool { return !a.up("vc") })
				_ = clk.Sleep(t.Context(), tt.late)
				write("")
				_ = clk.Sleep(t.Context(), 30*time.Second)
				if n := vc.Logins() - before - c.logins; n != 1 {
					t.Errorf("%d log-ins with the old password and with none, want 1", n)
				}
				write("rotated")
			}
			took := l.until(30*interval, "all samples again", func() bool {
				return l.full() && vc.Logins()-before-c.logins >= tt.logIns
			})
			logIns := vc.Logins() - before - c.logins
			t.Logf("%s: %d log-ins, up again %.1f s after the file was right", tt.name, logIns, took.Seconds())
			if logIns != tt.logIns {
				t.Errorf("%d log-ins, want %d", logIns, tt.logIns)
			}
			if took > tt.within && !l.busy {
				t.Errorf("up again after %v, want %v", took, tt.within)
			}
		})
	}
}

// TestAnotherNameGetsNoPassword: a vCenter whose certificate is for another name is not logged in at.
func TestAnotherNameGetsNoPassword(t *testing.T) {
	t.Parallel()
	clk := clock.New(100)
	vc := startVCenter(t, sim.Config{Clock: clk})
	opts := sessionOf(vc)
	opts.TLS.ServerName = "vc.example.org"
	a := supervise(t, clk, map[string]platform.Options{"vc": opts})
	_ = clk.Sleep(t.Context(), 5*time.Minute)
	s, _ := a.fleet.Snapshot().Source("vc")
	if s.Up || !strings.Contains(s.Error, "vc.example.org") || vc.Logins() > 0 {
		t.Errorf("%d log-ins; source: %+v", vc.Logins(), s)
	}
}

// TestOneOfThreeDies in several ways, one after the other: the other two lose no sample.
func TestOneOfThreeDies(t *testing.T) {
	t.Parallel()
	const vms = 20
	clk := clock.New(speed)
	sessions := map[string]platform.Options{}
	var dying *sim.VCenter
	for _, name := range []string{"dies", "lives", "lives too"} {
		vc := startVCenter(t, sim.Config{Name: name, Clock: clk, Clusters: sim.Uniform(4, vms)})
		sessions[name] = sessionOf(vc)
		if dying == nil {
			dying = vc
		}
	}
	a := supervise(t, clk, sessions)
	one, two := a.ledger("lives", vms), a.ledger("lives too", vms)
	one.until(15*interval, "all three", func() bool {
		return one.full() && two.full() && a.fresh("dies", inventory.VMCPUContention) == vms
	})
	for _, l := range []*ledger{one, two} {
		l.missing, l.busy, l.last = 0, false, clk.Now()
	}
	watch := func() {
		end := clk.Now().Add(2 * interval)
		one.until(4*interval, "two intervals", func() bool { two.look(); return !clk.Now().Before(end) })
	}
	hang := dying.Inject(sim.Fault{Method: "*", Hang: true})
	watch()
	hang()
	lift := dying.InjectHTTP(sim.HTTPFault{Method: "*", HalfClose: true})
	watch()
	lift()
	dying.Stop()
	watch()
	t.Logf("1 of 3 dead for %v: %.1f and %.1f samples lost from the others", 6*interval, one.missing, two.missing)
	if one.busy || two.busy {
		t.Log(tooBusy)
		return
	}
	if one.missing+two.missing > 0 {
		t.Errorf("%.1f and %.1f samples lost from the others", one.missing, two.missing)
	}
}
