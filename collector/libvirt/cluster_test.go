package libvirt

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/libvirt"
)

// bench is a cluster of hosts a and b that tests speak for.
type bench struct {
	*cluster
	a, b *host
	now  time.Time
}

func newBench(t *testing.T) *bench {
	t.Helper()
	c := newCluster("lab")
	b := &bench{cluster: c, a: &host{}, b: &host{}, now: time.Unix(1e9, 0)}
	c.hosts = []*host{b.a, b.b}
	b.begin()
	b.connect(t, b.a, "a")
	b.connect(t, b.b, "b")
	c.delta(b.now)
	return b
}

func (b *bench) connect(t *testing.T, h *host, name string, views ...view) {
	t.Helper()
	facts := inventory.Host{
		ID: inventory.ID{Source: "lab", Kind: inventory.KindHost, Ref: name}, Name: name, Connection: inventory.Connected, Cores: 1, CPUHertz: 1e9,
	}
	by := map[platform.UUID]*view{}
	for _, v := range views {
		by[v.dom.UUID] = &v
	}
	if err := b.install(h, facts, by); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) named(name string) *host {
	if name == "a" {
		return b.a
	}
	return b.b
}

var vmUUID = platform.UUID{1}

func (b *bench) see(h *host, state platform.DomainState, reason ...int32) {
	v := view{dom: platform.Domain{Name: "vm", UUID: vmUUID}, state: state}
	if len(reason) > 0 {
		v.reason = reason[0]
	}
	b.saw(h, v)
}

// told is what a delta says, in words.
func told(d inventory.Delta) string {
	var out []string
	for i := range d.Hosts {
		out = append(out, fmt.Sprintf("host %s %s", d.Hosts[i].Name, d.Hosts[i].Connection))
	}
	for i := range d.VMs {
		v := &d.VMs[i]
		out = append(out, fmt.Sprintf("%s on %s %s %s", v.Name, v.Host.Ref, v.Power, v.Connection))
	}
	for _, id := range d.Removed {
		out = append(out, "removed "+id.Kind.String())
	}
	return strings.Join(out, ", ")
}

const (
	migrated = 2 // the reason of a pause at the end of a migration
	arriving = 11
)

// TestOwner tells stories of one VM and two hosts. Each step is something that a host says and what of it is told.
func TestOwner(t *testing.T) {
	type step struct {
		say  func(b *bench, t *testing.T)
		want string
	}
	see := func(name string, state platform.DomainState, reason ...int32) func(*bench, *testing.T) {
		return func(b *bench, _ *testing.T) { b.see(b.named(name), state, reason...) }
	}
	forget := func(name string, patience time.Duration) func(*bench, *testing.T) {
		return func(b *bench, _ *testing.T) { b.forget(b.named(name), vmUUID, patience) }
	}
	lose := func(name string) func(*bench, *testing.T) {
		return func(b *bench, _ *testing.T) { b.lose(b.named(name)) }
	}
	wait := func(d time.Duration) func(*bench, *testing.T) {
		return func(b *bench, _ *testing.T) { b.now = b.now.Add(d); b.overdue() }
	}
	runsOnA := step{see("a", platform.DomainRunning), "vm on a on connected"}
	for name, story := range map[string][]step{
		"a live migration": {
			runsOnA,
			{see("b", platform.DomainPaused, arriving), ""},
			{see("a", platform.DomainPaused, migrated), ""},
			{see("b", platform.DomainRunning), "vm on b on connected"},
			{forget("a", missingFor), ""},
		},
		"a live migration whose words come late": {
			runsOnA,
			{see("b", platform.DomainPaused, arriving), ""},
			{forget("a", missingFor), "vm on b on connected"},
			{see("b", platform.DomainRunning), ""},
		},
		"a live migration of which the source tells first": {
			runsOnA,
			{forget("a", missingFor), ""},
			{wait(2 * endedFor), ""},
			{see("b", platform.DomainRunning), "vm on b on connected"},
		},
		"a migration that failed": {
			runsOnA,
			{see("b", platform.DomainPaused, arriving), ""},
			{see("a", platform.DomainPaused, migrated), ""},
			{forget("b", endedFor), ""},
			{see("a", platform.DomainRunning), ""},
		},
		"a persistent definition stays behind": {
			runsOnA,
			{see("b", platform.DomainRunning), ""},
			{see("a", platform.DomainShutoff), "vm on b on connected"},
			{see("b", platform.DomainShutoff), "vm on b off connected"},
			{forget("a", endedFor), ""},
		},
		"definitions on both hosts": {
			{see("a", platform.DomainShutoff), "vm on a off connected"},
			{see("b", platform.DomainShutoff), ""},
			{see("b", platform.DomainRunning), "vm on b on connected"},
			{see("b", platform.DomainShutoff), "vm on b off connected"},
		},
		"it ends": {
			runsOnA,
			{forget("a", endedFor), ""},
			{wait(endedFor), "removed vm"},
			{wait(missingFor), ""},
		},
		"it goes without a word": {
			runsOnA,
			{forget("a", missingFor), ""},
			{wait(missingFor / 2), ""},
			{wait(missingFor / 2), "removed vm"},
		},
		"it ends while a host that might have it is away": {
			runsOnA,
			{lose("b"), "host b unreachable"},
			{forget("a", endedFor), ""},
			{wait(2 * endedFor), ""},
			{func(b *bench, t *testing.T) { b.connect(t, b.b, "b") }, "host b connected, removed vm"},
		},
		"its host is away": {
			runsOnA,
			{lose("a"), "host a unreachable, vm on a on unreachable"},
			{wait(time.Hour), ""},
			{func(b *bench, t *testing.T) { b.connect(t, b.a, "a") }, "host a connected, removed vm"},
		},
		"started elsewhere while its host is away": {
			runsOnA,
			{lose("a"), "host a unreachable, vm on a on unreachable"},
			{see("b", platform.DomainRunning), "vm on b on connected"},
		},
		"paused by a person": {
			runsOnA,
			{see("a", platform.DomainPaused, 1), "vm on a suspended connected"},
			{see("a", platform.DomainPMSuspended), ""},
			{see("a", platform.DomainRunning), "vm on a on connected"},
			{see("a", platform.DomainCrashed), "vm on a off connected"},
			{see("a", platform.DomainNoState), "vm on a unknown connected"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			for i, s := range story {
				s.say(b, t)
				if got := told(b.delta(b.now)); got != s.want {
					t.Errorf("step %d: %q, want %q", i, got, s.want)
				}
			}
		})
	}
}

// TestTwice holds that a UUID that runs twice is said once, and only when it is no migration.
func TestTwice(t *testing.T) {
	b := newBench(t)
	b.see(b.a, platform.DomainRunning)
	b.see(b.b, platform.DomainRunning)
	for range 3 {
		b.delta(b.now)
		b.now = b.now.Add(twiceFor / 3)
		b.overdue()
	}
	if len(b.faults) > 0 {
		t.Errorf("said too soon: %v", b.faults)
	}
	for range 10 {
		b.now = b.now.Add(twiceFor)
		b.overdue()
		b.delta(b.now)
	}
	if len(b.faults) != 1 || !strings.Contains(b.faults[0].Error(), "a, b") {
		t.Errorf("faults: %v", b.faults)
	}
	if b.vms[vmUUID].owner != b.a {
		t.Error("the owner changed")
	}
}

func TestSameHostTwice(t *testing.T) {
	b := newBench(t)
	facts := *b.a.facts
	if err := b.install(b.b, facts, nil); err == nil || !strings.Contains(err.Error(), "same host") {
		t.Errorf("a host by two addresses: %v", err)
	}
}

// TestAnotherMachine holds that a machine that took the address of another takes its place, and that VMs that it has too stay.
func TestAnotherMachine(t *testing.T) {
	b := newBench(t)
	b.see(b.a, platform.DomainRunning)
	b.delta(b.now)
	b.lose(b.a)
	b.connect(t, b.a, "c", view{dom: platform.Domain{Name: "vm", UUID: vmUUID}, state: platform.DomainRunning})
	d := b.delta(b.now)
	if got := told(d); got != "host c connected, vm on c on connected, removed host" {
		t.Errorf("told: %s", got)
	}
}

// TestBegin holds that a second Watch tells everything again, of hosts that are away too.
func TestBegin(t *testing.T) {
	b := newBench(t)
	b.see(b.a, platform.DomainRunning)
	b.delta(b.now)
	b.begin()
	b.connect(t, b.b, "b")
	got := strings.Split(told(b.delta(b.now)), ", ")
	want := []string{"host a unreachable", "host b connected", "vm on a on unreachable"}
	if !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}
