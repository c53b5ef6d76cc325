package hyperv

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/platform/winrm"
)

// facts are what a host is asked for every five minutes, and what is done with the answers.
var facts = []fact{
	{query: qComputer, take: (*node).takeComputer},
	{query: qProcessor, take: (*node).takeProcessor},
	{query: qMember, take: (*node).takeMember},
	{query: qMigration, take: (*node).takeMigration},
	{query: qMemory, take: (*node).takeMemory, perVM: true},
	{query: qDisks, take: (*node).takeDisks, perVM: true},
	{query: qCount, take: (*node).takeCount, perVM: true},
	{query: qSettings, take: (*node).takeSettings, perVM: true},
	{query: qPorts, take: (*node).takePorts, perVM: true},
	{query: qSwitches, take: (*node).takeSwitches},
	{query: qConnections, take: (*node).takeConnections, perVM: true},
	{query: qExchange, take: (*node).takeExchange, perVM: true},
}

// learn asks for the facts that are due: all of them at first, later as many as there is room for.
func (c *cycle) learn(ctx context.Context, everything bool) error {
	n := c.node
	for {
		f := n.due(c.at, c.left(), everything)
		if f == nil {
			return nil
		}
		rows, ok, err := c.all(ctx, f.query)
		if err != nil {
			return err
		}
		f.next = c.at.Add(inventory.SlowInterval)
		if f.query == qMember && !ok {
			n.member = nil // no cluster's namespace
		}
		if ok {
			f.take(n, rows)
		}
	}
}

func (n *node) takeComputer(rows []winrm.Instance) {
	if len(rows) == 0 {
		return
	}
	r, c := rows[0], &n.computer
	netbios, dns := clean(r.Text("Name")), clean(r.Text("DNSHostName"))
	if netbios == "" {
		return
	}
	c.ref, c.dns, c.name = strings.ToLower(netbios), strings.ToLower(dns), cmp.Or(dns, strings.ToLower(netbios))
	c.model = strings.TrimSpace(clean(r.Text("Manufacturer")) + " " + clean(r.Text("Model")))
	c.cores = number(r, "NumberOfLogicalProcessors")
	if memory := scaled(r, "TotalPhysicalMemory", 1); memory != nil {
		c.memory = *memory
	}
}

func (n *node) takeProcessor(rows []winrm.Instance) {
	sum, cores := 0.0, 0
	for _, r := range rows {
		mhz, threads := number(r, "MaxClockSpeed"), number(r, "NumberOfLogicalProcessors")
		sum, cores = sum+float64(mhz*threads), cores+threads
		n.computer.cpu = clean(r.Text("Name"))
	}
	if cores > 0 {
		n.computer.megahertz = sum / float64(cores)
	}
}

func (n *node) takeMember(rows []winrm.Instance) {
	n.member = nil
	if len(rows) == 0 || rows[0].Text("Name") == "" {
		return
	}
	r := rows[0]
	m := &member{name: clean(r.Text("Name")), fqdn: strings.ToLower(clean(r.Text("Fqdn")))}
	m.balancer, _ = r.Uint("AutoBalancerMode")
	enforced, _ := r.Uint("ClusterEnforcedAntiAffinity")
	m.enforced = enforced != 0
	n.member = m
}

func (n *node) takeMigration(rows []winrm.Instance) {
	n.off = len(rows) > 0 && strings.EqualFold(strings.TrimSpace(rows[0].Text("EnableVirtualSystemMigration")), "false")
}

func (n *node) takeSettings(rows []winrm.Instance) {
	n.settled = make(map[string]bool, len(rows))
	for _, r := range rows {
		if id := guid(r.Text("VirtualSystemIdentifier")); id != "" {
			n.settled[id] = true
			n.detail(id).uuid = guid(r.Text("BIOSGUID"))
		}
	}
}

// unlimited is the maximum of dynamic memory that Windows writes if nobody set one: 1 TiB, in MB.
const unlimited = 1 << 20

// takeMemory takes a VM's memory: of dynamic memory the maximum, if somebody set one, else what it starts with.
func (n *node) takeMemory(rows []winrm.Instance) {
	for _, r := range rows {
		id := guidWithin(r.Text("InstanceID"))
		quantity, limit, reserved := number(r, "VirtualQuantity"), number(r, "Limit"), number(r, "Reservation")
		if id == "" || quantity == 0 {
			continue
		}
		d := n.detail(id)
		d.memory, d.reserved = float64(quantity)*mega, float64(quantity)*mega
		if strings.EqualFold(strings.TrimSpace(r.Text("DynamicMemoryEnabled")), "true") {
			d.reserved = float64(reserved) * mega
			if limit >= quantity && limit < unlimited {
				d.memory = float64(limit) * mega
			}
		}
	}
}

func (n *node) takeCount(rows []winrm.Instance) {
	for _, r := range rows {
		if id := guidWithin(r.Text("InstanceID")); id != "" {
			n.detail(id).vcpus = number(r, "VirtualQuantity")
		}
	}
}

func (n *node) takeDisks(rows []winrm.Instance) {
	n.disks = make(map[string]string, len(rows))
	volumes := map[string][]string{}
	for _, r := range rows {
		id := guidWithin(r.Text("InstanceID"))
		v, _ := r.Get("HostResource")
		for _, item := range v.List() {
			if id == "" || item.Text == "" {
				continue
			}
			path := clean(item.Text)
			volumes[id] = append(volumes[id], strings.ToLower(path))
			key := diskName(path)
			if other, taken := n.disks[key]; taken && other != id {
				n.disks[key] = "" // shared by two: nobody can say whose its counters are
				continue
			}
			n.disks[key] = id
		}
	}
	for id, paths := range volumes {
		n.detail(id).volumes = paths
	}
}

func (n *node) takePorts(rows []winrm.Instance) {
	macs := map[string][]string{}
	for _, r := range rows {
		id, mac := guidWithin(r.Text("InstanceID")), mac(r.Text("Address"))
		if id != "" && mac != "" && len(macs[id]) < 64 {
			macs[id] = append(macs[id], mac)
		}
	}
	for id, all := range macs {
		slices.Sort(all)
		n.detail(id).macs = slices.Compact(all)
	}
}

func (n *node) takeSwitches(rows []winrm.Instance) {
	n.switches = make(map[string]string, len(rows))
	for _, r := range rows {
		if id, name := guid(r.Text("Name")), clean(r.Text("ElementName")); id != "" && name != "" {
			n.switches[id] = name
		}
	}
}

// notConnected is the state of an adapter's connection that is set up and not made.
const notConnected = 3

// takeConnections takes the switches that VMs' adapters are plugged into. Which one is told by its path, and an adapter that takes any of
// a pool tells none. Of a VM that comes or goes meanwhile nothing is told: it has no adapter only if that is so twice, with settings there.
func (n *node) takeConnections(rows []winrm.Instance) {
	before := n.plugged
	n.plugged = map[string][]string{}
	for _, r := range rows {
		id := guidWithin(r.Text("InstanceID"))
		if id == "" {
			continue
		}
		if n.plugged[id] == nil {
			n.plugged[id] = []string{}
		}
		if state, _ := r.Uint("EnabledState"); state == notConnected {
			continue
		}
		v, _ := r.Get("HostResource")
		for _, item := range v.List() {
			_, name, _ := strings.Cut(item.Text, `,Name=`)
			if to := guidWithin(name); to != "" && len(n.plugged[id]) < 64 {
				n.plugged[id] = append(n.plugged[id], to)
			}
		}
	}
	missed := map[string]bool{}
	for id, to := range before {
		if n.plugged[id] == nil && !(n.missed[id] && n.settled[id]) {
			n.plugged[id], missed[id] = to, n.settled[id]
		}
	}
	n.missed = missed
}

// takeExchange reads what guests tell their host. Every item is XML that the guest may have had a hand in.
func (n *node) takeExchange(rows []winrm.Instance) {
	for _, r := range rows {
		id := guid(r.Text("SystemName"))
		if id == "" {
			continue
		}
		v, _ := r.Get("GuestIntrinsicExchangeItems")
		d := n.detail(id)
		d.hostname, d.ip, d.os = "", "", ""
		for _, item := range v.List() {
			pair, err := winrm.ParseObject(item.Text)
			if err != nil {
				continue
			}
			value := clean(pair.Text("Data"))
			switch pair.Text("Name") {
			case "FullyQualifiedDomainName":
				d.hostname = value
			case "OSName":
				d.os = value
			case "NetworkAddressIPv4":
				d.ip = cmp.Or(firstAddress(value), d.ip)
			case "NetworkAddressIPv6":
				d.ip = cmp.Or(d.ip, firstAddress(value))
			}
		}
	}
}

// askAgain is when a VM is asked about again whose answer is known.
const askAgain = 30 * time.Minute

// migratable asks of a few VMs of a cluster whether they could move to another node now, as far as there is room for messages. It
// changes nothing: Check methods only tell.
//
// A no may be the target's, or the log-in's, and not the VM's. So the target is one with plenty of memory left, a no counts when it
// was said twice, and none counts while nothing was ever a yes.
func (c *cycle) migratable(ctx context.Context) error {
	n := c.node
	ids := c.cluster.movable(n)
	for tries := 0; len(ids) > 0 && tries < len(ids) && c.left() > 0; tries++ {
		id := ids[n.checked%len(ids)]
		n.checked++
		d := n.detail(id)
		if c.at.Sub(d.asked) < askAgain && d.refusals != 1 {
			continue
		}
		target := c.cluster.target(n, id, d.refusals)
		if target == "" {
			continue
		}
		service := winrm.Ref{Namespace: virtualization, Class: "Msvm_VirtualSystemMigrationService", Selectors: map[string]string{
			"CreationClassName": "Msvm_VirtualSystemMigrationService", "Name": "Msvm_VirtualSystemMigrationService",
			"SystemCreationClassName": "Msvm_ComputerSystem", "SystemName": strings.ToUpper(n.computer.ref),
		}}
		vm := winrm.Ref{Namespace: virtualization, Class: "Msvm_ComputerSystem", Selectors: map[string]string{
			"CreationClassName": "Msvm_ComputerSystem", "Name": strings.ToUpper(id),
		}}
		d.asked = c.at
		out, err := n.client.Ask(ctx, service, "CheckVirtualSystemIsMigratableToHost", winrm.Params{{Name: "ComputerSystem", Value: vm}, {Name: "DestinationHost", Value: target}})
		if err != nil {
			if ofClass(err) {
				c.fault("migratable", err)
				return nil
			}
			return err
		}
		code, err := out.ReturnValue()
		answer := strings.ToLower(strings.TrimSpace(out.Text("IsMigratable")))
		switch {
		case err != nil || code != 0: // it could not say
		case answer == "true":
			d.refusals, d.notLive = 0, ""
			c.cluster.oneMoves()
		case answer == "false":
			if d.refusals++; d.refusals >= 2 {
				d.notLive = fmt.Sprintf("its host says that it could not migrate live to %s, which has room for it", target)
			}
		}
	}
	return nil
}
