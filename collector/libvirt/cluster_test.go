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

// TestNetworks: which networks there are, and what is known of who has them.
func TestNetworks(t *testing.T) {
	both := []string{virtualNetwork, hostInterface}
	wired := func(kinds []string, has ...string) reach {
		r := reach{map[string]bool{}, map[string]bool{}}
		for _, kind := range kinds {
			r.told[kind] = true
		}
		for _, ref := range has {
			r.has[ref] = true
		}
		return r
	}
	vm := func(n byte, state platform.DomainState, nets ...string) view {
		return view{dom: platform.Domain{Name: fmt.Sprint("vm", n), UUID: platform.UUID{n}}, state: state, facts: &facts{nets: nets}}
	}
	onBridge, onNetwork := vm(1, platform.DomainRunning, "interface/br0"), vm(2, platform.DomainRunning, "network/default")
	for name, tt := range map[string]struct {
		a, b reach
		vms  []view // of a
		want string
	}{
		"all told": {
			wired(both, "network/default", "interface/br0", "interface/eth0"), wired(both, "interface/eth0"),
			[]view{onBridge, onNetwork},
			"br0, default; a has br0 default; b has none",
		},
		"what no VM is attached to": {wired(both, "network/default", "interface/eth0"), wired(both, "network/lab"), nil, "default, lab; a has default; b has lab"},
		"one tells no interfaces": {
			wired(both, "network/default", "interface/br0"), wired(both[:1]),
			[]view{onBridge, onNetwork},
			"br0?, default; a has br0 default; b has none",
		},
		"one tells nothing":                 {wired(both, "interface/br0"), reach{}, []view{onBridge}, "br0?; a has br0; b not known"},
		"a VM runs on one that is not told": {wired(both, "interface/eth0"), wired(both, "interface/br0"), []view{onBridge}, "br0?; a has none; b has br0"},
		"a VM that is off":                  {wired(both), wired(both), []view{vm(1, platform.DomainShutoff, "interface/br1")}, "br1; a has none; b has none"},
	} {
		b := newBench(t)
		b.a.wired, b.b.wired = tt.a, tt.b
		b.connect(t, b.a, "a", tt.vms...)
		d := b.delta(b.now)
		var names []string
		for _, n := range d.Networks {
			if n.Unread {
				n.Name += "?"
			}
			names = append(names, n.Name)
		}
		got := strings.Join(names, ", ")
		for _, h := range []*host{b.a, b.b} {
			switch {
			case h.facts.Networks == nil:
				got += "; " + h.facts.Name + " not known"
			case len(h.facts.Networks) == 0:
				got += "; " + h.facts.Name + " has none"
			default:
				got += "; " + h.facts.Name + " has"
				for _, id := range h.facts.Networks {
					got += " " + id.Ref[strings.Index(id.Ref, "/")+1:]
				}
			}
		}
		if got != tt.want {
			t.Errorf("%s: %s\nwant %s", name, got, tt.want)
		}
		if again := b.delta(b.now); len(again.Networks)+len(again.Hosts)+len(again.Removed) > 0 {
			t.Errorf("%s: told again: %+v", name, again)
		}
	}

	b := newBench(t)
	b.a.wired, b.b.wired = wired(both, "interface/br0"), wired(both, "interface/br0", "interface/br1")
	b.connect(t, b.a, "a", onBridge)
	if d := b.delta(b.now); len(d.Networks) != 1 || len(d.VMs) != 1 || len(d.VMs[0].Networks) != 1 || d.VMs[0].Networks[0] != d.Networks[0].ID {
		t.Errorf("a VM on br0: %+v", d)
	}
	b.saw(b.a, vm(1, platform.DomainShutoff, "interface/br1"))
	d := b.delta(b.now)
	if len(d.Networks) != 1 || d.Networks[0].Name != "br1" || d.Networks[0].Unread || len(d.Removed) != 1 || d.Removed[0].Ref != "interface/br0" || len(d.Hosts) != 2 {
		t.Errorf("it is plugged into br1, which its host has not: %+v", d)
	}
	b.begin()
	if d := b.delta(b.now); len(d.Networks) != 1 || len(d.Hosts) != 2 {
		t.Errorf("a new listing: %+v", d)
	}
}
