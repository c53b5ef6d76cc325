package hyperv

import (
	"cmp"
	"time"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/platform/winrm"
)

// maxVMs is how many VMs are believed to be on one host. Windows runs 1,024.
const maxVMs = 8192

// node is a host: how to ask it, and what it answered.
type node struct {
	opts   winrm.Options
	addr   string
	client *winrm.Client // of this Watch

	// Touched by who asks it, one goroutine at a time:
	known    bool // it has answered with all its facts
	hung     bool // the last time it did not answer in time
	skip     int  // intervals to leave it alone
	fallback bool // its VMs come without their processors
	habits   map[*query]*habit
	facts    []*fact
	computer computer
	member   *member // nil if it is in no cluster
	details  map[string]*detail
	disks    map[string]string   // GUID by the name that counters have for the disk; "" where two VMs have it
	switches map[string]string   // names of virtual switches by GUID; nil if not known
	plugged  map[string][]string // by the VM's GUID, those of switches; nil if not known
	missed   map[string]bool     // VMs of settled that nothing was told of when plugged was
	settled  map[string]bool     // VMs that it has settings of, as it last told: one that arrives has none yet
	off      bool                // live migration is switched off
	checked  int                 // how many VMs were asked whether they could move

	// Under the cluster's lock:
	host     *inventory.Host // nil until it answered once
	dns      string
	notLive  bool      // off
	up       bool      // it answered the last time
	polled   time.Time // when that was asked
	views    map[string]*view
	meter    hostMeter
	free     float64             // bytes of memory
	networks []inventory.Network // its virtual switches, by ref
}

func newNode(opts winrm.Options, addr string) *node {
	return &node{opts: opts, addr: addr, views: map[string]*view{}}
}

// dial makes ready for a Watch. It connects to nothing.
func (n *node) dial() (err error) {
	n.client, err = winrm.New(n.opts)
	n.known, n.hung, n.skip, n.habits, n.facts = false, false, 0, map[*query]*habit{}, nil
	n.details, n.disks, n.switches, n.plugged, n.missed, n.settled = map[string]*detail{}, map[string]string{}, nil, nil, nil, nil
	for _, f := range facts {
		n.facts = append(n.facts, &fact{query: f.query, take: f.take, perVM: f.perVM})
	}
	return err
}

// computer is what a host tells of itself.
type computer struct {
	ref, dns, name string // NetBIOS name in small letters, DNS name in small letters, as people write it
	model          string
	cores          int
	memory         float64
	cpu            string
	megahertz      float64
}

// member is the cluster that a host is in.
type member struct {
	name, fqdn string
	balancer   uint64
	enforced   bool // anti-affinity is a must
}

// view is a VM as one host sees it.
type view struct {
	name      string
	state     uint64 // EnabledState
	health    uint64
	vcpus     int
	memory    *float64 // bytes assigned
	uptime    *float64 // seconds
	heartbeat *uint64
	os        string
	at        time.Time
	detail    detail // as of the last install, as are
	networks  []inventory.ID
}

// detail is what a host tells of a VM every few minutes.
type detail struct {
	uuid             string
	memory, reserved float64
	vcpus            int
	macs             []string
	volumes          []string // paths of its disks
	hostname, ip, os string
	notLive          string    // why it could not be moved, as the last check said
	asked            time.Time // whether it could be moved
	refusals         int       // checks in a row that said so
}

// fill takes from what another host told what is not known here, but for whether it could be moved from there.
func (d *detail) fill(from *detail) {
	d.uuid, d.vcpus = cmp.Or(d.uuid, from.uuid), cmp.Or(d.vcpus, from.vcpus)
	if d.memory == 0 {
		d.memory, d.reserved = from.memory, from.reserved
	}
	if d.macs == nil {
		d.macs = from.macs
	}
	if d.volumes == nil {
		d.volumes = from.volumes
	}
	if d.hostname == "" && d.ip == "" && d.os == "" {
		d.hostname, d.ip, d.os = from.hostname, from.ip, from.os
	}
}

// fact is a query that is asked every five minutes.
type fact struct {
	query *query
	take  func(n *node, rows []winrm.Instance)
	perVM bool // it tells of VMs, and is asked at once when there is a new one
	next  time.Time
}

// due is the next fact to ask for, nil if none is due or fits.
func (n *node) due(now time.Time, left int, everything bool) *fact {
	var most *fact
	for _, f := range n.facts {
		if f.query == qCount && !n.fallback && !everything || f.next.After(now) {
			continue
		}
		cost := 1
		if h := n.habits[f.query]; h != nil {
			cost = max(h.cost, 1)
		}
		overdue := now.Sub(f.next) > inventory.SlowInterval && !f.next.IsZero()
		if everything || cost <= left || overdue && left > 0 {
			if most == nil || f.next.Before(most.next) {
				most = f
			}
		}
	}
	return most
}

// hurry makes what is told of VMs be due: there is one that nothing is known of.
func (n *node) hurry() {
	for _, f := range n.facts {
		if f.perVM {
			f.next = time.Time{}
		}
	}
}

// detail is what is known of a VM, to be added to.
func (n *node) detail(id string) *detail {
	d := n.details[id]
	if d == nil {
		d = &detail{}
		n.details[id] = d
	}
	return d
}
