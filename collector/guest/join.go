package guest

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	dto "github.com/prometheus/client_model/go"

	"github.com/protip/protip/internal/inventory"
)

// evidenceFamilies are the series by which exporters tell which machine they run on.
var evidenceFamilies = []string{"node_dmi_info", "node_network_info", "node_uname_info", "windows_net_nic_info", "windows_os_hostname", "windows_cs_hostname"}

// evidence is what is known of a guest without asking its platform.
type evidence struct {
	uuids    []uuid
	macs     []string
	addr     netip.Addr // that it answered from
	hostname string
}

// maxMACs is how many addresses of one guest are looked at.
const maxMACs = 64

func evidenceOf(families map[string]*dto.MetricFamily) evidence {
	var e evidence
	for _, m := range families["node_dmi_info"].GetMetric() {
		if u, ok := parseUUID(label(m, "product_uuid")); ok && !slices.Contains(e.uuids, u) && len(e.uuids) < 2 {
			e.uuids = append(e.uuids, u)
		}
	}
	for _, source := range []struct{ family, label string }{{"node_network_info", "address"}, {"windows_net_nic_info", "mac"}} {
		for _, m := range families[source.family].GetMetric() {
			if mac := parseMAC(label(m, source.label)); mac != "" && !slices.Contains(e.macs, mac) && len(e.macs) < maxMACs {
				e.macs = append(e.macs, mac)
			}
		}
	}
	for _, source := range []struct{ family, label string }{
		{"node_uname_info", "nodename"}, {"windows_os_hostname", "hostname"}, {"windows_cs_hostname", "hostname"},
	} {
		for _, m := range families[source.family].GetMetric() {
			if e.hostname == "" {
				e.hostname = strings.ToLower(label(m, source.label))
			}
		}
	}
	return e
}

// How a VM was found. The order is the one in which it is looked for.
const (
	byConfig    = "config"
	byUUID      = "uuid"
	byMAC       = "mac"
	byIP        = "ip"
	unknown     = "none"
	isAmbiguous = "ambiguous"
)

// joined is whose guest a subject is.
type joined struct {
	vm  inventory.ID // zero: not known
	how string
	err error // worth a person's attention
}

// indexer keeps an index of the fleet's VMs, made anew when their facts have changed.
type indexer struct {
	snapshot func() *inventory.Snapshot

	mu   sync.Mutex
	last *index
}

// join looks for the VM of a guest in the fleet as it is now.
func (x *indexer) join(explicit string, e evidence) joined {
	return x.current().join(explicit, e)
}

func (x *indexer) current() *index {
	snap := x.snapshot()
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.last == nil || !x.last.of(snap) {
		x.last = newIndex(snap)
	}
	return x.last
}

// index is a fleet's VMs by what a guest can be known by. It does not change.
type index struct {
	sources []inventory.Source
	facts   [][]*inventory.VM // by source
	listed  bool              // every source that has VMs has told of all of them

	byUUID, byMAC, byIP, byName map[string][]*inventory.VM
	off                         map[inventory.ID]bool
}

func newIndex(snap *inventory.Snapshot) *index {
	x := &index{
		listed: true, off: map[inventory.ID]bool{},
		byUUID: map[string][]*inventory.VM{}, byMAC: map[string][]*inventory.VM{}, byIP: map[string][]*inventory.VM{}, byName: map[string][]*inventory.VM{},
	}
	x.sources, x.facts = vmsOf(snap)
	for i, src := range x.sources {
		x.listed = x.listed && src.Synced
		for _, vm := range x.facts[i] {
			if vm != nil && !vm.Template {
				x.add(src, vm)
			}
		}
	}
	return x
}

// vmsOf are the sources that have VMs, and the VMs.
func vmsOf(snap *inventory.Snapshot) (sources []inventory.Source, facts [][]*inventory.VM) {
	for _, src := range snap.Sources() {
		if src.Platform != Platform && src.Platform != MachinesPlatform {
			sources = append(sources, src)
			facts = append(facts, snap.VMTable(src.Name).Facts)
		}
	}
	return sources, facts
}

// of reports whether the index is of the snapshot's VMs: facts are copied before they change.
func (x *index) of(snap *inventory.Snapshot) bool {
	sources, facts := vmsOf(snap)
	same := func(a, b []*inventory.VM) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }
	alike := func(a, b inventory.Source) bool { return a.Name == b.Name && a.Synced == b.Synced && a.Up == b.Up }
	return slices.EqualFunc(sources, x.sources, alike) && slices.EqualFunc(facts, x.facts, same)
}

func (x *index) add(src inventory.Source, vm *inventory.VM) {
	put := func(in map[string][]*inventory.VM, key string) {
		if key != "" && !slices.Contains(in[key], vm) {
			in[key] = append(in[key], vm)
		}
	}
	if u, ok := parseUUID(vm.UUID); ok {
		put(x.byUUID, string(u[:]))
	}
	for _, mac := range vm.MACs {
		put(x.byMAC, parseMAC(mac))
	}
	if ip, err := netip.ParseAddr(vm.GuestIP); err == nil {
		put(x.byIP, usable(ip))
	}
	put(x.byName, strings.ToLower(vm.Name))
	put(x.byName, strings.ToLower(vm.GuestHostname))
	// What is off answers nobody. A source that does not answer itself cannot say that it still is.
	if src.Up && (vm.Power == inventory.PowerOff || vm.Power == inventory.PowerSuspended) {
		x.off[vm.ID] = true
	}
}

// join is whose guest it is: DESIGN.md draws it.
func (x *index) join(explicit string, e evidence) joined {
	if explicit != "" {
		return x.named(explicit, e)
	}
	if found := x.running(x.withUUID(e)); len(found) > 0 {
		return only(found, byUUID, "its DMI UUID")
	}
	if !x.listed {
		return joined{how: unknown}
	}
	var found []*inventory.VM
	for _, mac := range e.macs {
		found = union(found, x.byMAC[mac])
	}
	if found = x.running(found); len(found) > 0 {
		return e.confirm(only(found, byMAC, "its MAC addresses"), found[0])
	}
	if found = x.running(x.byIP[usable(e.addr)]); len(found) > 0 {
		return e.confirm(only(found, byIP, "its address "+e.addr.String()), found[0])
	}
	return joined{how: unknown}
}

// withUUID are the VMs whose UUID the guest tells, as it is or with its first three groups reversed: so VMware and Hyper-V show it
// inside.
func (x *index) withUUID(e evidence) []*inventory.VM {
	var found []*inventory.VM
	for _, u := range e.uuids {
		swapped := u.swap()
		found = union(union(found, x.byUUID[string(u[:])]), x.byUUID[string(swapped[:])])
	}
	return found
}

func (x *index) running(found []*inventory.VM) []*inventory.VM {
	var on []*inventory.VM
	for _, vm := range found {
		if !x.off[vm.ID] {
			on = append(on, vm)
		}
	}
	return on
}

func union(a, b []*inventory.VM) []*inventory.VM {
	a = slices.Clip(a)
	for _, vm := range b {
		if !slices.Contains(a, vm) {
			a = append(a, vm)
		}
	}
	return a
}

// only is the join to the one VM that was found. Of several, none is.
func only(found []*inventory.VM, how, what string) joined {
	if len(found) == 1 {
		return joined{vm: found[0].ID, how: how}
	}
	ids := make([]string, 0, 3)
	for _, vm := range found[:min(len(found), 3)] {
		ids = append(ids, vm.ID.String())
	}
	return joined{how: isAmbiguous, err: fmt.Errorf("%d VMs have %s, among them %s: write which one it is, as vm: source/name",
		len(found), what, strings.Join(ids, ", "))}
}

var errOther = errors.New("and the guest tells of another one: write which one it is, as vm: source/name")

// confirm refuses a VM that something surer speaks against: behind one address there may be a gateway and not the guest.
func (e evidence) confirm(j joined, vm *inventory.VM) joined {
	if j.err != nil {
		return j
	}
	if u, ok := parseUUID(vm.UUID); ok && len(e.uuids) > 0 && !slices.Contains(e.uuids, u) && !slices.Contains(e.uuids, u.swap()) {
		return joined{how: isAmbiguous, err: fmt.Errorf("VM %s is found by %s, its UUID is %s, %w", vm.ID, j.how, vm.UUID, errOther)}
	}
	mine := func(mac string) bool { return slices.Contains(e.macs, parseMAC(mac)) }
	if j.how == byIP && len(e.macs) > 0 && len(vm.MACs) > 0 && !slices.ContainsFunc(vm.MACs, mine) {
		return joined{how: isAmbiguous, err: fmt.Errorf("VM %s is found by its address, it has other MAC addresses, %w", vm.ID, errOther)}
	}
	return j
}

// named is the VM that the configuration names. It is taken at its word, and told where the guest says otherwise.
func (x *index) named(explicit string, e evidence) joined {
	source, name, _ := strings.Cut(explicit, "/")
	var found []*inventory.VM
	listed := false
	for i, src := range x.sources {
		if src.Name != source {
			continue
		}
		listed = src.Synced
		for _, vm := range x.facts[i] {
			switch {
			case vm == nil || vm.Template:
			case vm.ID.Ref == name:
				return x.doubt(joined{vm: vm.ID, how: byConfig}, e)
			case vm.Name == name:
				found = append(found, vm)
			}
		}
	}
	switch {
	case len(found) > 0:
		return x.doubt(only(found, byConfig, fmt.Sprintf("the name %q", name)), e)
	case listed:
		return joined{how: unknown, err: fmt.Errorf("source %s has no VM %q: correct vm", source, name)}
	}
	return joined{how: unknown}
}

func (x *index) doubt(j joined, e evidence) joined {
	if found := x.running(x.withUUID(e)); j.err == nil && len(found) == 1 && found[0].ID != j.vm {
		j.err = fmt.Errorf("the configuration says VM %s, and its DMI UUID is that of VM %s: the configuration is believed", j.vm, found[0].ID)
	}
	return j
}

// hint is the one VM that has the guest's host name. People call machines alike, so that it is for a person to look at, and no join.
func (x *index) hint(e evidence) (inventory.ID, bool) {
	short, _, _ := strings.Cut(e.hostname, ".")
	found := union(x.byName[e.hostname], x.byName[short])
	if e.hostname == "" || len(found) != 1 {
		return inventory.ID{}, false
	}
	return found[0].ID, true
}

type uuid [16]byte

// parseUUID reads 32 hexadecimal digits. One that is made of one byte only is a placeholder of firmware.
func parseUUID(s string) (uuid, bool) {
	var u uuid
	s = strings.NewReplacer("-", "", "{", "", "}", "").Replace(strings.TrimSpace(s))
	if len(s) != 32 {
		return u, false
	}
	if _, err := hex.Decode(u[:], []byte(s)); err != nil {
		return u, false
	}
	return u, !slices.Equal(u[1:], u[:15])
}

// swap is the UUID with each of its first three groups reversed.
func (u uuid) swap() uuid {
	slices.Reverse(u[0:4])
	slices.Reverse(u[4:6])
	slices.Reverse(u[6:8])
	return u
}

// parseMAC is an Ethernet address in lower case with colons, empty if it is none of one machine.
func parseMAC(s string) string {
	mac, err := net.ParseMAC(strings.TrimSpace(s))
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 || slices.Equal(mac, make(net.HardwareAddr, 6)) {
		return ""
	}
	return mac.String()
}

// usable is an address that can be one machine's, empty otherwise.
func usable(ip netip.Addr) string {
	if !ip.IsValid() || ip.IsLoopback() || ip.IsUnspecified() || ip.IsMulticast() || ip.IsLinkLocalUnicast() {
		return ""
	}
	return ip.Unmap().WithZone("").String()
}
