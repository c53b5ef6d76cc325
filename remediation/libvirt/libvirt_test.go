package libvirt

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"

	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/libvirt"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/remediation/remediationtest"
)

func TestConformance(t *testing.T) {
	remediationtest.Run(t, func(t *testing.T) remediationtest.Fixture { return startHosts(t).fixture() })
}

func (s *hosts) executor(t *testing.T, secret string, edit func(*Options)) *Executor {
	t.Helper()
	o := Options{
		Source: "lab", Hosts: s.options(secret), Migration: Migration{URI: "qemu+tls://{host}/system", MaxDowntime: time.Second},
		Log: slog.New(slog.DiscardHandler), Poll: 20 * time.Millisecond, Patience: 10 * time.Second,
	}
	if edit != nil {
		edit(&o)
	}
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

func (s *hosts) action() remediation.Action {
	id := func(kind inventory.Kind, ref string) inventory.ID {
		return inventory.ID{Source: "lab", Kind: kind, Ref: ref}
	}
	return remediation.Action{
		ID: "act-1", Kind: remediation.LiveMigration, VM: id(inventory.KindVM, vmUUID), VMName: vmName,
		From: id(inventory.KindHost, s.a.uuid), FromName: s.a.name, To: id(inventory.KindHost, s.b.uuid), ToName: s.b.name,
		StartingAt: time.Now(),
	}
}

// do is done under the lock of what the hosts know.
func (s *hosts) do(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	f()
}

func (s *hosts) fixture() remediationtest.Fixture {
	return remediationtest.Fixture{
		Action: s.action(), Secret: rightSecret, NoHistory: true,
		Executor: func(t *testing.T, secret string) remediation.Executor { return s.executor(t, secret, nil) },
		Calls:    func() (n int) { s.do(func() { n = s.calls }); return n },
		Host: func() (id inventory.ID) {
			s.do(func() { id = inventory.ID{Source: "lab", Kind: inventory.KindHost, Ref: s.on.uuid} })
			return id
		},
		LoseAnswer:  func() { s.do(func() { s.fault.lose = true }) },
		Refuse:      func() { s.do(func() { s.fault.refuse = true }) },
		FailTask:    func() { s.do(func() { s.fault.fail = true }) },
		EndSessions: s.endSessions,
		PowerOff:    func() { s.do(func() { s.off = true }) },
		Migrate:     func() string { s.do(func() { s.begin(s.b, false) }); return taskRef(s.action()) },
		Wait:        func(time.Duration) error { return nil },
	}
}

func TestCheckRefuses(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  func(*hosts)
		edit func(*Options)
		want string // in the error; empty: it may
	}{
		{"nothing in the way", func(*hosts) {}, nil, ""},
		{"another VM of that name", func(s *hosts) { s.other = "99999999-0000-4000-8000-000000000009" }, nil, `has another VM of the name "web"`},
		{"no memory", func(s *hosts) { s.freeKiB = 511 << 10 }, nil, "511 MiB of memory are free, and the VM takes 512"},
		{"another CPU", func(s *hosts) { s.cpu = int32(golibvirt.CPUCompareIncompatible) }, nil, "its CPU lacks what the VM was started with"},
		{"a target that only protip reaches", func(*hosts) {}, func(o *Options) { o.Migration.URI = "" }, "set migration.uri"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := startHosts(t)
			s.do(func() { tc.set(s) })
			err := s.executor(t, rightSecret, tc.edit).Check(t.Context(), s.action())
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("check: %v, want %q in it", err, tc.want)
			}
		})
	}
}

// TestThirdHostDown: a host that has nothing to do with a move is in nobody's way, but may have a VM that is nowhere else.
func TestThirdHostDown(t *testing.T) {
	s := startHosts(t)
	ex := s.executor(t, rightSecret, func(o *Options) {
		o.Hosts = append(o.Hosts, platform.Options{URI: "qemu+unix:///system?socket=" + s.dir + "/nobody", Timeout: time.Second})
	})
	if err := ex.Check(t.Context(), s.action()); err != nil {
		t.Errorf("check: %v", err)
	}
	if err := ex.Do(t.Context(), s.action(), func(remediation.Progress) error { return nil }); err != nil {
		t.Errorf("do: %v", err)
	}
	gone := s.action()
	gone.VM.Ref = "99999999-0000-4000-8000-000000000009"
	if found, err := ex.Find(t.Context(), gone); err == nil {
		t.Errorf("find = %+v of a VM that may be on a host that does not answer", found)
	}
}

func TestView(t *testing.T) {
	source, target := inventory.ID{Ref: "a"}, inventory.ID{Ref: "b"}
	type at struct {
		on    inventory.ID
		state golibvirt.DomainState
	}
	for _, tc := range []struct {
		name string
		seen []at
		on   inventory.ID
		runs bool
	}{
		{"nowhere", nil, inventory.ID{}, false},
		{"on its source, arriving", []at{{source, golibvirt.DomainRunning}, {target, golibvirt.DomainPaused}}, source, true},
		{"switching over", []at{{source, golibvirt.DomainPaused}, {target, golibvirt.DomainPaused}}, source, false},
		{"switching over, seen from behind", []at{{target, golibvirt.DomainPaused}, {source, golibvirt.DomainPaused}}, source, false},
		{"arrived, not left", []at{{source, golibvirt.DomainPaused}, {target, golibvirt.DomainRunning}}, target, true},
		{"arrived, still defined where it was", []at{{source, golibvirt.DomainShutoff}, {target, golibvirt.DomainRunning}}, target, true},
		{"paused where it went, defined where it was", []at{{source, golibvirt.DomainShutoff}, {target, golibvirt.DomainPaused}}, target, false},
		{"off", []at{{source, golibvirt.DomainShutoff}}, source, false},
	} {
		var v view
		for _, h := range tc.seen {
			v.add(h.state, h.on, source)
		}
		if v.on != tc.on || v.runs != tc.runs {
			t.Errorf("%s: on %v, runs %t", tc.name, v.on, v.runs)
		}
	}
}

// TestDefinitionGoesAlong: what is defined on the source would else be lost at the VM's next shutdown, or started twice.
func TestDefinitionGoesAlong(t *testing.T) {
	for _, persistent := range []bool{true, false} {
		s := startHosts(t)
		s.do(func() { s.persist = persistent })
		ex := s.executor(t, rightSecret, func(o *Options) { o.Migration.Bandwidth, o.Migration.CopyStorage = 100, true })
		if err := ex.Do(t.Context(), s.action(), func(remediation.Progress) error { return nil }); err != nil {
			t.Fatal(err)
		}
		want := golibvirt.MigrateLive | golibvirt.MigratePeer2peer | golibvirt.MigrateAbortOnError | golibvirt.MigrateNonSharedDisk
		if persistent {
			want |= golibvirt.MigratePersistDest | golibvirt.MigrateUndefineSource
		}
		s.do(func() {
			if flags := s.sent[len(s.sent)-4:]; flags != string(words32(uint32(want))) {
				t.Errorf("persistent %t: flags %x, want %x", persistent, flags, want)
			}
			if !strings.Contains(s.sent, golibvirt.MigrateParamBandwidth) {
				t.Error("no bandwidth was sent")
			}
		})
	}
}

func TestTimeoutAborts(t *testing.T) {
	s := startHosts(t)
	s.took = time.Minute
	ex := s.executor(t, rightSecret, func(o *Options) { o.Migration.Timeout = 50 * time.Millisecond })
	err := ex.Do(t.Context(), s.action(), func(remediation.Progress) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "took longer than 50ms and was aborted") || platform.CodeOf(err) != platform.OperationAborted {
		t.Errorf("do: %v", err)
	}
}

func TestCures(t *testing.T) {
	for _, tc := range []struct {
		code platform.Code
		text string
		want string
	}{
		{38, "unable to connect to server at 'kvm-02:16514': No route to host", "does not reach the target's libvirt daemon"},
		{1, "internal error: Attempt to migrate guest to the same host aaaaaaaa-0000", "one and the same machine"},
		{1, "internal error: client socket is closed", "the link between the hosts failed"},
		{9, "operation failed: domain 'web' already exists with uuid 1", "the target has another VM"},
		{9, "operation failed: domain 'web' is not running", "ended while it was moved"},
		{81, "Unsafe migration: Migration without shared storage is unsafe", "copy_storage"},
		{78, "operation aborted: migration out: canceled by client", "somebody aborted it"},
		{999, "something new", ""},
	} {
		err := &platform.Error{Code: tc.code, Message: tc.text}
		if cure := cureOf(err); !strings.Contains(cure, tc.want) || (cure == "") != (tc.want == "") {
			t.Errorf("%v: %q, want %q in it", err, cure, tc.want)
		}
	}
}

func TestOutgoing(t *testing.T) {
	number := func(field string, v uint64) golibvirt.TypedParam {
		return golibvirt.TypedParam{Field: field, Value: *golibvirt.NewTypedParamValueUllong(v)}
	}
	operation := func(v golibvirt.DomainJobOperation) golibvirt.TypedParam {
		return golibvirt.TypedParam{Field: "operation", Value: *golibvirt.NewTypedParamValueInt(int32(v))}
	}
	for _, tc := range []struct {
		name   string
		kind   golibvirt.DomainJobType
		params []golibvirt.TypedParam
		moving bool
		ratio  float64
	}{
		{"no job", golibvirt.DomainJobNone, nil, false, 0},
		{"one that ended", golibvirt.DomainJobCompleted, nil, false, 0},
		{"a migration half way", golibvirt.DomainJobUnbounded, []golibvirt.TypedParam{operation(5), number("data_total", 100), number("data_remaining", 50)}, true, 0.5},
		{"a migration that begins", golibvirt.DomainJobUnbounded, []golibvirt.TypedParam{operation(5)}, true, 0},
		{"an arrival", golibvirt.DomainJobUnbounded, []golibvirt.TypedParam{operation(4)}, false, 0},
		{"a backup", golibvirt.DomainJobUnbounded, []golibvirt.TypedParam{operation(9)}, false, 0},
		{"an old daemon, which does not name it", golibvirt.DomainJobBounded, nil, true, 0},
		{"more to come than there is", golibvirt.DomainJobUnbounded, []golibvirt.TypedParam{number("data_total", 1), number("data_remaining", 5)}, true, 0},
	} {
		if moving, ratio := outgoing(tc.kind, tc.params); moving != tc.moving || ratio != tc.ratio {
			t.Errorf("%s: %t, %v", tc.name, moving, ratio)
		}
	}
}
