package guest

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/protip/protip/internal/inventory"
)

const (
	plain   = "42101d2c-0f3a-9b1e-5d62-b81c6f3d9a01"
	swapped = "2c1d1042-3a0f-1e9b-5d62-b81c6f3d9a01" // the same as VMware shows it inside
	other   = "564d8a10-0000-4000-8000-00000000beef"
)

// fleet is two vCenters and one source of guests. down are sources that were listed and do not answer, unlisted ones that never did.
type fleet struct {
	vms      map[string][]inventory.VM
	down     []string
	unlisted []string
}

func (f fleet) snapshot(t testing.TB) *inventory.Snapshot {
	t.Helper()
	all := inventory.NewFleet(inventory.Source{Name: "a", Platform: "vsphere"}, inventory.Source{Name: "b", Platform: "hyperv"},
		inventory.Source{Name: "guests", Platform: Platform})
	for _, source := range []string{"a", "b"} {
		listed := true
		for _, u := range f.unlisted {
			listed = listed && u != source
		}
		if !listed {
			continue
		}
		d := inventory.Delta{Source: source, Begin: true, Synced: true}
		for _, vm := range f.vms[source] {
			vm.ID = inventory.ID{Source: source, Kind: inventory.KindVM, Ref: vm.ID.Ref}
			d.VMs = append(d.VMs, vm)
		}
		if _, err := all.Apply(d, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	for _, source := range f.down {
		all.Down(source, errors.New("down"))
	}
	return all.Snapshot()
}

func vm(ref string, change ...func(*inventory.VM)) inventory.VM {
	v := inventory.VM{ID: inventory.ID{Ref: ref}, Name: "name-of-" + ref, Power: inventory.PowerOn}
	for _, f := range change {
		f(&v)
	}
	return v
}

func withUUID(u string) func(*inventory.VM)    { return func(v *inventory.VM) { v.UUID = u } }
func withMAC(m ...string) func(*inventory.VM)  { return func(v *inventory.VM) { v.MACs = m } }
func withIP(ip string) func(*inventory.VM)     { return func(v *inventory.VM) { v.GuestIP = ip } }
func withName(name string) func(*inventory.VM) { return func(v *inventory.VM) { v.Name = name } }
func isOff(v *inventory.VM)                    { v.Power = inventory.PowerOff }
func isTemplate(v *inventory.VM)               { v.Template = true }

func told(uuids []string, macs []string, addr string) evidence {
	var e evidence
	for _, s := range uuids {
		u, _ := parseUUID(s)
		e.uuids = append(e.uuids, u)
	}
	e.macs = macs
	if addr != "" {
		e.addr = netip.MustParseAddr(addr)
	}
	return e
}

func TestJoin(t *testing.T) {
	const mac, mac2 = "00:50:56:aa:bb:01", "00:50:56:aa:bb:02"
	byUUIDs := func(u ...string) evidence { return told(u, nil, "") }
	for _, tc := range []struct {
		name     string
		fleet    fleet
		explicit string
		evidence evidence
		want     string // source/ref
		how      string
		err      string
	}{
		{
			name: "uuid as it is", fleet: fleet{vms: map[string][]inventory.VM{"a": {vm("1", withUUID(plain)), vm("2", withUUID(other))}}},
			evidence: byUUIDs(plain), want: "a/1", how: byUUID,
		},
		{
			name: "uuid reversed inside", fleet: fleet{vms: map[string][]inventory.VM{"b": {vm("1", withUUID(plain))}}},
			evidence: byUUIDs(swapped), want: "b/1", how: byUUID,
		},
		{
			name: "uuid in capitals and braces", fleet: fleet{vms: map[string][]inventory.VM{"b": {vm("1", withUUID("{"+strings.ToUpper(plain)+"}"))}}},
			evidence: byUUIDs(plain), want: "b/1", how: byUUID,
		},
		{
			name: "uuid of two", fleet: fleet{vms: map[string][]inventory.VM{"a": {vm("1", withUUID(plain))}, "b": {vm("1", withUUID(plain))}}},
			evidence: byUUIDs(plain), how: isAmbiguous, err: "2 VMs have its DMI UUID, among them a/vm/1, b/vm/1",
		},
		{
			name: "uuid of one, and reversed of another", fleet: fleet{vms: map[string][]inventory.VM{"a": {vm("1", withUUID(plain)), vm("2", withUUID(swapped))}}},
			evidence: byUUIDs(plain), how: isAmbiguous, err: "2 VMs",
		},
		{
			name: "uuid of two, and an address of one: still not told apart", fleet: fleet{vms: map[string][]inventory.VM{"a": {vm("1", withUUID(plain), withIP("10.0.0.1"))}, "b": {vm("1", withUUID(plain))}}},
			evidence: told([]string{plain}, nil, "10.0.0.1"), how: isAmbiguous, err: "2 VMs",
		},
		{
			name: "its replica is off", fleet: fleet{vms: map[string][]inventory.VM{"a": {vm("1", withUUID(plain))}, "b": {vm("1", withUUID(plain), isOff)}}},
			evidence: byUUIDs(plain), want: "a/1", how: byUUID,
		},
		{
			name: "its replica was off when it was last seen", fleet: fleet{vms: map[string][]inventory.VM{"a": {vm("1", withUUID(plain))}, "b": {vm("1", withUUID(plain), isOff)}}, down: []string{"b"}},
			evidence: byUUIDs(plain), how: isAmbiguous, err: "2 VMs",
		},
		{
			name: "templates answer nobody", fleet: fleet{vms: map[string][]inventory.VM{"a": {vm("1", withUUID(plain), isTemplate)}}},
			evidence: byUUIDs(plain), how: unknown,
		},
		{
			name: "uuid although another source was never listed", fleet: fleet{vms: map[string][]inventory.VM{"a": {vm("1", withUUID(plain))}}, unlisted: []string{"b"}},
			evidence: byUUIDs(plain), want: "a/1", how: byUUID,
		},
		{
			name: "mac", fleet: fleet{vms: map[string][]inventory.VM{"a": {vm("1", withMAC(mac)), vm("2", withMAC(mac2))}}},
			evidence: told(nil, []string{"02:42:00:00:00:01", mac}, ""), want: "a/1", how: byMAC,
		},
		{
			name: "mac while another source was never listed", fleet: fleet{vms: map[string][]inventory.VM{"a": {vm("1", withMAC(mac))}}, unlisted: []string{"b"}},
			evidence: told(nil, []string{mac}, ""), how: unknown,
		},
		{
			name: "macs of two", fleet: fleet{vms: map[string][]inventory.VM{"a": {vm("1", withMAC(mac)), vm("2", withMAC(mac2))}}},
			evidence: told(nil, []string{mac, mac2}, ""), how: isAmbiguous, err: "2 VMs have its MAC addresses",
		},
		{
			name: "mac of one whose uuid is another", fleet: fleet{vms: map[string][]inventory.VM{"a": {vm("1", withMAC(mac), withUUID(other))}}},
			evidence: told([]string{plain}, []string{mac}, ""), how: isAmbiguous, err: "its UUID is " + other,
		},
		{
			name: "uuid before mac", fleet: fleet{vms: map[string][]inventory.VM{"a": {vm("1", withMAC(mac)), vm("2", withUUID(plain))}}},
			evidence: told([]string{plain}, []string{mac}, ""), want: "a/2", how: byUUID,
		},
		{
			name: "address", fleet: fleet{vms: map[string][]inventory.VM{"a": {vm("1", withIP("10.0.0.1")), vm("2", withIP("10.0.0.2"))}}},
			evidence: told(nil, nil, "10.0.0.2"), want: "a/2", how: byIP,
		},
		{
			name: "address, told as IPv6", fleet: fleet{vms: map[string][]inventory.VM{"a": {vm("1", withIP("2001:DB8::1"))}}},
			evidence: told(nil, nil, "2001:db8:0::1"), want: "a/1", how: byIP,
		},
		{
			name: "address of two sites", fleet: fleet{vms: map[string][]inventory.VM{"a": {vm("1", withIP("10.0.0.1"))}, "b": {vm("1", withIP("10.0.0.1"))}}},
			evidence: told(nil, nil, "10.0.0.1"), how: isAmbiguous, err: "2 VMs have its address 10.0.0.1",
		},
		{
			name: "address of a gateway before the guest", fleet: fleet{vms: map[string][]inventory.VM{"a": {vm("gateway", withIP("10.0.0.1"), withUUID(other))}}},
			evidence: told([]string{plain}, nil, "10.0.0.1"), how: isAmbiguous, err: "write which one it is",
		},
		{
			name: "address of one with other macs", fleet: fleet{vms: map[string][]inventory.VM{"a": {vm("gateway", withIP("10.0.0.1"), withMAC(mac))}}},
			evidence: told(nil, []string{mac2}, "10.0.0.1"), how: isAmbiguous, err: "other MAC addresses",
		},
		{
			name: "loopback is everybody's", fleet: fleet{vms: map[string][]inventory.VM{"a": {vm("1", withIP("127.0.0.1"))}}},
			evidence: told(nil, nil, "127.0.0.1"), how: unknown,
		},
		{
			name: "a host name is no join", fleet: fleet{vms: map[string][]inventory.VM{"a": {vm("1", withName("web1"))}}},
			evidence: evidence{hostname: "web1"}, how: unknown,
		},
		{name: "nothing known", fleet: fleet{}, how: unknown},
		{
			name: "named", fleet: fleet{vms: map[string][]inventory.VM{"a": {vm("1", withName("web/1"))}, "b": {vm("1", withName("web/1"))}}},
			explicit: "b/web/1", want: "b/1", how: byConfig,
		},
		{
			name: "named by id", fleet: fleet{vms: map[string][]inventory.VM{"a": {vm("vm-7"), vm("1", withName("vm-7"))}}},
			explicit: "a/vm-7", want: "a/vm-7", how: byConfig,
		},
		{
			name: "named, of two", fleet: fleet{vms: map[string][]inventory.VM{"a": {vm("1", withName("web")), vm("2", withName("web"))}}},
			explicit: "a/web", how: isAmbiguous, err: `2 VMs have the name "web"`,
		},
		{
			name: "named, and not there, is not looked for elsewhere", fleet: fleet{vms: map[string][]inventory.VM{"a": {vm("1", withUUID(plain))}}},
			explicit: "a/web", evidence: byUUIDs(plain), how: unknown, err: `source a has no VM "web"`,
		},
		{
			name: "named, and not listed yet", fleet: fleet{unlisted: []string{"a"}},
			explicit: "a/web", how: unknown,
		},
		{
			name: "named, and the guest says otherwise", fleet: fleet{vms: map[string][]inventory.VM{"a": {vm("1", withName("web")), vm("2", withUUID(plain))}}},
			explicit: "a/web", evidence: byUUIDs(plain), want: "a/1", how: byConfig, err: "the configuration is believed",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := newIndex(tc.fleet.snapshot(t)).join(tc.explicit, tc.evidence)
			vm := ""
			if !got.vm.IsZero() {
				vm = got.vm.Source + "/" + got.vm.Ref
			}
			if vm != tc.want || got.how != tc.how {
				t.Errorf("VM %q by %s, want %q by %s (%v)", vm, got.how, tc.want, tc.how, got.err)
			}
			if tc.err == "" && got.err != nil || tc.err != "" && (got.err == nil || !strings.Contains(got.err.Error(), tc.err)) {
				t.Errorf("error %v, want %q", got.err, tc.err)
			}
		})
	}
}

func TestHint(t *testing.T) {
	x := newIndex(fleet{vms: map[string][]inventory.VM{"a": {vm("1", withName("WEB1")), vm("2", withName("db")), vm("3", withName("db"))}}}.snapshot(t))
	for host, want := range map[string]string{"web1": "1", "web1.example.com": "1", "db": "", "": "", "nobody": ""} {
		id, ok := x.hint(evidence{hostname: host})
		if id.Ref != want || ok != (want != "") {
			t.Errorf("host name %q hints at %q, want %q", host, id.Ref, want)
		}
	}
}

func TestParseUUID(t *testing.T) {
	for s, want := range map[string]bool{
		plain: true, "": false, "none": false, "00000000-0000-0000-0000-000000000000": false, "ffffffff-ffff-ffff-ffff-ffffffffffff": false,
		plain + "0": false, strings.Replace(plain, "4", "g", 1): false,
	} {
		if _, ok := parseUUID(s); ok != want {
			t.Errorf("%q: %v, want %v", s, ok, want)
		}
	}
	u, _ := parseUUID(plain)
	if s, _ := parseUUID(swapped); u.swap() != s || u.swap().swap() != u {
		t.Errorf("%x reversed is %x, want %x", u, u.swap(), s)
	}
}

// TestIndexIsKept: an index is made anew when VMs or sources have changed, and only then.
func TestIndexIsKept(t *testing.T) {
	all := inventory.NewFleet(inventory.Source{Name: "a", Platform: "vsphere", Interval: time.Second})
	apply := func(d inventory.Delta) {
		d.Source = "a"
		if _, err := all.Apply(d, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	x := indexer{snapshot: all.Snapshot}
	e := told([]string{plain}, nil, "")
	if got := x.join("", e); got.how != unknown {
		t.Errorf("joined by %s in an empty fleet", got.how)
	}
	web := vm("1", withUUID(plain))
	web.ID.Source, web.ID.Kind = "a", inventory.KindVM
	apply(inventory.Delta{Begin: true, Synced: true, VMs: []inventory.VM{web}})
	if got := x.join("", e); got.vm != web.ID {
		t.Errorf("a VM that came is not found: %+v", got)
	}
	last := x.last
	apply(inventory.Delta{Samples: []inventory.SampleSet{{ID: web.ID, At: time.Now().UnixMilli(), Values: []inventory.Value{{Metric: inventory.VMCPUUsage, Value: 1}}}}})
	if x.join("", e); x.last != last {
		t.Error("samples alone made a new index")
	}
	web.Host = inventory.ID{Source: "a", Kind: inventory.KindHost, Ref: "h2"}
	apply(inventory.Delta{VMs: []inventory.VM{web}})
	if got := x.join("", e); got.vm != web.ID || x.last == last {
		t.Error("a move is not seen, or loses the VM")
	}
	apply(inventory.Delta{Removed: []inventory.ID{web.ID}})
	if got := x.join("", e); got.how != unknown {
		t.Errorf("a VM that is gone is still found, by %s", got.how)
	}
}
