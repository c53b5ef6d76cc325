package libvirt

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/libvirt"
)

// How long a VM may be on no host before it is taken for gone, in real time: what one host says and what another says take ways of
// their own.
const (
	missingFor = 30 * time.Second       // it left for another host, or went without a word
	endedFor   = 500 * time.Millisecond // a host ended it
)

// cluster is what all hosts together know. A VM is one object here, however many hosts know its UUID.
//
// It holds no connection and asks nobody: hosts tell it what they see (install, saw, forget, lose), and delta is what that
// changed. All is under mu.
type cluster struct {
	name string

	mu     sync.Mutex
	hosts  []*host // in the order of the configuration
	vms    map[platform.UUID]*vm
	dirty  map[platform.UUID]bool // what has to be settled anew
	astray map[platform.UUID]bool // what no host has, or two run: time will tell
	gone   []inventory.ID
	faults []error

	rewired bool                         // which networks there are, or who has them, may have changed
	listed  map[string]inventory.Network // by ref, as last emitted
}

// host is what is known of a host, and what it knows of domains.
type host struct {
	opts  platform.Options
	facts *inventory.Host // as last heard of; nil until it answered once
	told  *inventory.Host // as last emitted
	views map[platform.UUID]*view
	wired reach  // as last told
	clock uint64 // counts what changed its views
	meter hostMeter

	tried   bool  // in this Watch
	failure error // why it is not followed now
}

// view is a domain as one host sees it.
type view struct {
	dom     platform.Domain
	state   platform.DomainState
	reason  int32
	facts   *facts // of its description; nil if that could not be read
	touched uint64 // the host's clock when this was last looked at
}

// vm is a VM of the cluster.
type vm struct {
	owner    *host
	last     *inventory.VM
	told     bool // last was emitted
	guest    guest
	meter    meter
	missing  time.Time     // since when no host has it; zero if one has
	patience time.Duration // how long it may be missing while all hosts tell what they have
	twice    time.Time     // since when two hosts run it; zero if not
	said     bool          // that two hosts run it
}

func newCluster(name string) *cluster {
	return &cluster{name: name, vms: map[platform.UUID]*vm{}, dirty: map[platform.UUID]bool{}, astray: map[platform.UUID]bool{}, listed: map[string]inventory.Network{}}
}

func (c *cluster) id() inventory.ID {
	return inventory.ID{Source: c.name, Kind: inventory.KindCluster, Ref: c.name}
}

func (c *cluster) vmID(u platform.UUID) inventory.ID {
	return inventory.ID{Source: c.name, Kind: inventory.KindVM, Ref: u.String()}
}

func (h *host) connected() bool { return h.facts != nil && h.facts.Connection == inventory.Connected }

// complete says whether all hosts tell what they have.
func (c *cluster) complete() bool {
	return !slices.ContainsFunc(c.hosts, func(h *host) bool { return !h.connected() })
}

// install takes a host's whole answer after it was connected to. A host that another address leads to already is refused.
func (c *cluster) install(h *host, facts inventory.Host, views map[platform.UUID]*view) error {
	for _, other := range c.hosts {
		if other != h && other.connected() && other.facts.ID == facts.ID {
			return sameHost(h.opts.URI, other.opts.URI, facts.ID.Ref)
		}
	}
	if h.facts != nil && h.facts.ID != facts.ID {
		c.gone = append(c.gone, h.facts.ID) // another machine has its address
	}
	was := h.views
	h.facts, h.views, c.rewired = &facts, views, true
	for u := range was {
		if views[u] == nil {
			c.forget(h, u, 0)
		}
	}
	c.touch(maps.Keys(views))
	c.overdue()
	return nil
}

func (c *cluster) touch(seq func(func(platform.UUID) bool)) {
	for u := range seq {
		c.dirty[u] = true
	}
}

// lose says that a host is followed no more: what it last told is all that is known of it.
func (c *cluster) lose(h *host) {
	if !h.connected() {
		return
	}
	facts := *h.facts
	facts.Connection = inventory.Unreachable
	h.facts, h.meter = &facts, hostMeter{}
	c.touch(maps.Keys(h.views))
}

// saw takes how a host sees a domain now. Without facts those from before stay.
func (c *cluster) saw(h *host, v view) {
	u := v.dom.UUID
	if was := h.views[u]; was != nil && v.facts == nil {
		v.facts = was.facts
	}
	c.rewired = c.rewired || rewires(h.views[u], &v)
	h.clock++
	v.touched = h.clock
	h.views[u] = &v
	c.dirty[u] = true
}

// forget says that a host has a domain no more, and how long others have to say that they have it.
func (c *cluster) forget(h *host, u platform.UUID, patience time.Duration) {
	h.clock++
	delete(h.views, u)
	c.dirty[u] = true
	if m := c.vms[u]; m != nil && m.owner == h {
		m.patience = patience
	}
}

// overdue looks again at what time decides.
func (c *cluster) overdue() { c.touch(maps.Keys(c.astray)) }

// begin makes ready for a Watch: nobody is connected, and everything is told again.
func (c *cluster) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.hosts {
		c.lose(h)
		h.tried, h.failure, h.told = false, nil, nil
	}
	c.rewired = true
	clear(c.listed)
	for u, m := range c.vms {
		m.told = false
		c.dirty[u] = true
	}
}

// delta is what changed since the last one.
func (c *cluster) delta(now time.Time) inventory.Delta {
	d := inventory.Delta{Source: c.name, Removed: c.gone}
	c.gone = nil
	c.wire(&d)
	for _, h := range c.hosts {
		if h.facts != nil && (!reflect.DeepEqual(h.told, h.facts)) {
			h.told = h.facts
			d.Hosts = append(d.Hosts, *h.facts)
		}
	}
	order := func(a, b platform.UUID) int { return slices.Compare(a[:], b[:]) }
	for _, u := range slices.SortedFunc(maps.Keys(c.dirty), order) {
		if c.dirty[u] {
			c.settle(u, now, &d)
		}
	}
	clear(c.dirty)
	return d
}

// settle decides whose a VM is, and adds to d what that changed.
func (c *cluster) settle(u platform.UUID, now time.Time, d *inventory.Delta) {
	m := c.vms[u]
	owner := c.owner(u, m)
	switch {
	case owner != nil && m == nil:
		m = &vm{}
		c.vms[u] = m
		fallthrough
	case owner != nil:
		m.owner, m.missing, m.patience = owner, time.Time{}, missingFor
		if next := c.object(u, m); !reflect.DeepEqual(m.last, next) {
			m.last, m.told = next, false
		}
		c.twice(u, m, now)
	case m == nil:
		return
	default:
		if m.missing.IsZero() {
			m.missing = now
			c.astray[u] = true
		}
		if missing := now.Sub(m.missing); missing >= m.patience && c.complete() || missing >= missingFor {
			delete(c.vms, u)
			delete(c.astray, u)
			d.Removed = append(d.Removed, c.vmID(u))
			return
		}
	}
	if !m.told {
		m.told = true
		d.VMs = append(d.VMs, *m.last)
	}
}

// owner is the host that a VM is on: the one where it runs, while several know its UUID. Where they are equal the owner stays the
// owner, so that definitions that lie on many hosts do not flap.
func (c *cluster) owner(u platform.UUID, m *vm) *host {
	var best *host
	rank := -1
	for _, h := range c.hosts {
		v := h.views[u]
		if v == nil {
			continue
		}
		r := v.rank()
		if r == rankRunning && h.connected() {
			r++ // than where it ran when that host was last heard of
		}
		if r > rank || r == rank && m != nil && m.owner == h {
			best, rank = h, r
		}
	}
	return best
}

// twiceFor is for how long two hosts may say that they run one VM before it is true: at the end of a migration both say so for a moment.
const twiceFor = 10 * time.Second

// twice watches for a UUID that two hosts run: a copy that kept it, or a VM that was started twice.
func (c *cluster) twice(u platform.UUID, m *vm, now time.Time) {
	var on []string
	for _, h := range c.hosts {
		if v := h.views[u]; v != nil && v.rank() == rankRunning && h.connected() {
			on = append(on, h.facts.Name)
		}
	}
	switch {
	case len(on) < 2:
		m.twice, m.said = time.Time{}, false
		delete(c.astray, u)
	case m.twice.IsZero():
		m.twice = now
		c.astray[u] = true
	case !m.said && now.Sub(m.twice) >= twiceFor:
		m.said = true
		c.faults = append(c.faults, fmt.Errorf("VM %s (%s) runs on several hosts at once: %s", m.last.Name, u, strings.Join(on, ", ")))
	}
}

// Ranks of views.
const (
	rankOff     = 0 // defined, and no more
	rankPaused  = 2 // such as what arrives by a migration
	rankRunning = 4
)

func (v *view) rank() int {
	switch v.state {
	case platform.DomainRunning, platform.DomainBlocked, platform.DomainShutdown:
		return rankRunning
	case platform.DomainPaused, platform.DomainPMSuspended:
		return rankPaused
	}
	return rankOff
}

// object makes the VM of what its owner sees.
func (c *cluster) object(u platform.UUID, m *vm) *inventory.VM {
	v := m.owner.views[u]
	out := &inventory.VM{
		ID: c.vmID(u), Name: v.dom.Name, UUID: u.String(), Host: m.owner.facts.ID,
		Connection: m.owner.facts.Connection, Power: v.power(),
		GuestHostname: m.guest.hostname, GuestIP: m.guest.ip, GuestOS: m.guest.os,
	}
	if f := v.facts; f != nil {
		out.VCPUs, out.MemoryBytes, out.MACs, out.NotLive = f.vcpus, f.memory, f.macs, f.notLive
		if len(f.nets) > 0 {
			out.Networks = c.networkIDs(f.nets)
		}
		if out.GuestOS == "" {
			out.GuestOS = f.os
		}
	}
	return out
}

// power maps a state. A VM that libvirt itself holds for a moment is on: it goes on by itself.
func (v *view) power() inventory.Power {
	const migration, dump, snapshot, startingUp, postcopy = 2, 4, 9, 11, 12
	switch v.state {
	case platform.DomainRunning, platform.DomainBlocked, platform.DomainShutdown:
		return inventory.PowerOn
	case platform.DomainPaused:
		switch v.reason {
		case migration, dump, snapshot, startingUp, postcopy:
			return inventory.PowerOn
		}
		return inventory.PowerSuspended
	case platform.DomainPMSuspended:
		return inventory.PowerSuspended
	case platform.DomainShutoff, platform.DomainCrashed:
		return inventory.PowerOff
	}
	return inventory.PowerUnknown
}
