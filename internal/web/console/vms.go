package console

import (
	"cmp"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// vmsShown is how many VMs a page of the list has.
const vmsShown = 100

// vmRow is a VM on one line.
type vmRow struct {
	*inventory.VM
	HostName, HostHref, Cluster, ClusterHref string
	CPU, Share, Waits, Memory, MemoryShare   number
}

func rowOf(snap *inventory.Snapshot, vm inventory.VMView) vmRow {
	row := vmRow{VM: vm.VM, HostName: hostName(snap, vm.Host), HostHref: href(vm.Host)}
	row.CPU, row.Waits = sampled(vm.Samples, inventory.VMCPUUsage), sampled(vm.Samples, inventory.VMCPUContention)
	row.Memory = sampled(vm.Samples, inventory.VMMemoryUsage)
	row.MemoryShare = row.Memory.over(vm.MemoryBytes)
	if h, ok := snap.Host(vm.Host); ok {
		row.Share = row.CPU.over(float64(vm.VCPUs) * h.CoreHertz())
	}
	if cl, ok := snap.ClusterOf(vm.VM); ok {
		row.Cluster, row.ClusterHref = clean(cl.Name), href(cl.ID)
	}
	return row
}

// busiest are the VMs that use the most CPU; those of which that is not known come last.
func busiest(snap *inventory.Snapshot, vms []inventory.VMView, n int) []vmRow {
	vms = slices.DeleteFunc(slices.Clone(vms), func(vm inventory.VMView) bool { return vm.Template })
	sortVMs(snap, vms, "-cpu")
	out := make([]vmRow, 0, min(n, len(vms)))
	for _, vm := range vms[:min(n, len(vms))] {
		out = append(out, rowOf(snap, vm))
	}
	return out
}

// vmSorts are what the list can be sorted by.
var vmSorts = []string{"name", "cpu", "share", "contention", "memory", "vcpus"}

// sortVMs sorts by a field, downwards if a minus precedes it. Who has no value comes last either way.
func sortVMs(snap *inventory.Snapshot, vms []inventory.VMView, by string) {
	field, falling := strings.CutPrefix(by, "-")
	keys := make([]vmKey, len(vms))
	for i, vm := range vms {
		n := vmNumber(snap, vm, field)
		keys[i] = vmKey{math.Inf(1), vm.Name, int32(i)}
		switch {
		case n.OK && falling:
			keys[i].value = -n.V
		case n.OK:
			keys[i].value = n.V
		}
	}
	byName := 1
	if field == "name" && falling {
		byName = -1
	}
	slices.SortFunc(keys, func(a, b vmKey) int {
		if c := cmp.Or(cmp.Compare(a.value, b.value), byName*strings.Compare(a.name, b.name)); c != 0 {
			return c
		}
		return cmp.Compare(a.at, b.at) // as the snapshot has them: source by source
	})
	sorted := make([]inventory.VMView, len(vms))
	for i, k := range keys {
		sorted[i] = vms[k.at]
	}
	copy(vms, sorted)
}

// vmKey is what a VM is sorted by, and its place.
type vmKey struct {
	value float64
	name  string
	at    int32
}

// vmNumber is the number that a sort goes by; of names it is none.
func vmNumber(snap *inventory.Snapshot, vm inventory.VMView, field string) number {
	switch field {
	case "cpu":
		return sampled(vm.Samples, inventory.VMCPUUsage)
	case "share":
		if h, ok := snap.Host(vm.Host); ok {
			return sampled(vm.Samples, inventory.VMCPUUsage).over(float64(vm.VCPUs) * h.CoreHertz())
		}
	case "contention":
		return sampled(vm.Samples, inventory.VMCPUContention)
	case "memory":
		return sampled(vm.Samples, inventory.VMMemoryUsage)
	case "vcpus":
		return fact(float64(vm.VCPUs), "")
	}
	return number{}
}

// vmsPage is the list of all VMs.
type vmsPage struct {
	Rows         []vmRow
	Heads        []head
	Q            string
	Power, Sort  string
	Host         string // whose VMs these are, if one's
	HostName     string
	Powers       []choice
	Sources      []choice
	Clusters     []choice
	From, To     int
	Total, All   int
	Newer, Older string // links to the pages before and after
	Page, Pages  int
	Clear        string
	Filtered     bool
}

// head is a column that the list can be sorted by.
type head struct {
	Name, Href, Sorted string // ascending, descending or empty
	Number             bool
}

func (c *Console) vms(r *http.Request, f *frame) (any, error) {
	f.Title, f.Section = "VMs", "vms"
	q, err := asked(r, "q", "source", "cluster", "host", "power", "sort", "page")
	if err != nil {
		return nil, err
	}
	orders := []string{"name"}
	for _, s := range vmSorts {
		orders = append(orders, s, "-"+s)
	}
	p := vmsPage{Q: strings.TrimSpace(q.Get("q")), Host: q.Get("host"), Clear: with("/vms", nil, "sort", q.Get("sort"))}
	f.Search = p.Q
	if p.Sort, err = one(q, "sort", orders...); err != nil {
		return nil, err
	}
	if p.Power, err = one(q, "power", "", "on", "off", "suspended"); err != nil {
		return nil, err
	}
	if host, err := inventory.ParseID(p.Host); err == nil && p.Host != "" {
		p.HostName = hostName(f.snap, host)
	}
	p.Filtered = p.Q != "" || p.Power != "" || p.Host != "" || q.Get("source") != "" || q.Get("cluster") != ""
	picked := pickVMs(f.snap, q, strings.ToLower(p.Q), &p)
	sortVMs(f.snap, picked, p.Sort)
	if err := p.turn(q, len(picked)); err != nil {
		return nil, err
	}
	for _, vm := range picked[min(p.From, len(picked)):p.To] {
		p.Rows = append(p.Rows, rowOf(f.snap, vm))
	}
	p.Heads = heads(q, p.Sort)
	p.Sources, p.Clusters = places(f.snap, q.Get("source"), q.Get("cluster"))
	for _, power := range []string{"on", "off", "suspended"} {
		p.Powers = append(p.Powers, choice{power, power, power == p.Power})
	}
	return p, nil
}

// pickVMs are the VMs that the filter takes, and how many there are at all.
func pickVMs(snap *inventory.Snapshot, q url.Values, text string, p *vmsPage) []inventory.VMView {
	source, cluster := q.Get("source"), q.Get("cluster")
	inCluster := map[inventory.ID]bool{}
	if cluster != "" {
		for h := range snap.Hosts() {
			inCluster[h.ID] = h.Cluster.String() == cluster
		}
	}
	var host inventory.ID
	if p.Host != "" {
		host, _ = inventory.ParseID(p.Host)
	}
	var out []inventory.VMView
	for vm := range snap.VMs() {
		if vm.Template {
			continue
		}
		p.All++
		switch {
		case source != "" && source != vm.ID.Source, p.Power != "" && p.Power != string(vm.Power), p.Host != "" && vm.Host != host,
			cluster != "" && !inCluster[vm.Host], text != "" && !found(vm.VM, text):
			continue
		}
		out = append(out, vm)
	}
	return out
}

// found reports whether a VM goes by what was searched, in lower case: its name, what its guest calls itself, or its address.
func found(vm *inventory.VM, text string) bool {
	return strings.Contains(strings.ToLower(vm.Name), text) || vm.GuestHostname != "" && strings.Contains(strings.ToLower(vm.GuestHostname), text) ||
		vm.GuestIP != "" && vm.GuestIP == text || vm.UUID != "" && strings.EqualFold(vm.UUID, text)
}

// turn finds the page's place in the list.
func (p *vmsPage) turn(q url.Values, total int) error {
	p.Page, p.Total = 1, total
	if q.Get("page") != "" {
		n, err := strconv.Atoi(q.Get("page"))
		if err != nil || n < 1 || n > 1_000_000 {
			return problem{http.StatusBadRequest, "page is a number from 1 on."}
		}
		p.Page = n
	}
	p.Pages = max(1, (total+vmsShown-1)/vmsShown)
	p.From = min((p.Page-1)*vmsShown, total)
	p.To = min(p.From+vmsShown, total)
	if p.Page > 1 {
		before := strconv.Itoa(min(p.Page-1, p.Pages))
		if before == "1" {
			before = ""
		}
		p.Newer = with("/vms", q, "page", before)
	}
	if p.Page < p.Pages {
		p.Older = with("/vms", q, "page", strconv.Itoa(p.Page+1))
	}
	return nil
}

// heads are the columns' headings; a second click turns the order.
func heads(q url.Values, sorted string) []head {
	var out []head
	for _, col := range []struct {
		field, name string
		number      bool
	}{
		{"name", "VM", false},
		{"", "Cluster and host", false},
		{"vcpus", "vCPUs", true},
		{"cpu", "CPU used", true},
		{"share", "of its vCPUs", true},
		{"contention", "Waits for CPU", true},
		{"memory", "Memory used", true},
	} {
		h := head{Name: col.name, Number: col.number}
		if col.field != "" {
			next := "-" + col.field // numbers: the largest first
			if col.field == "name" {
				next = "name"
			}
			switch sorted {
			case col.field:
				h.Sorted, next = "ascending", "-"+col.field
			case "-" + col.field:
				h.Sorted, next = "descending", col.field
			}
			h.Href = with("/vms", q, "sort", next, "page", "")
		}
		out = append(out, h)
	}
	return out
}

// vmPage is one VM.
type vmPage struct {
	inventory.VMView
	Row           vmRow
	Source        inventory.Source
	Uptime, Disk  number
	CoStop        number
	Balloon, Swap number
	Charts        []chart
	Span          string // that the charts are of
	Services      []serviceRow
	Neighbours    []vmRow
	Others        int // VMs on the host besides
	Tips          []tipRow
	Recent        []remediation.Action
	Stores        []inventory.DatastoreView
	Nets          []*inventory.Network
}

// serviceRow is a service on one line.
type serviceRow struct {
	*inventory.Service
	Latency number
	Source  inventory.Source
}

func (c *Console) vm(r *http.Request, f *frame) (any, error) {
	if _, err := asked(r); err != nil {
		return nil, err
	}
	id, err := inventory.ParseID(r.PathValue("id"))
	vm, ok := f.snap.VM(id)
	if err != nil || !ok {
		return nil, notFound("No source knows a VM %q now.", clean(r.PathValue("id")))
	}
	ctx := r.Context()
	p := vmPage{VMView: vm, Row: rowOf(f.snap, vm)}
	f.Title, f.Section, f.Crumbs = clean(vm.Name), "vms", []crumb{{"Fleet", "/fleet"}}
	if p.Row.ClusterHref != "" {
		f.Crumbs = append(f.Crumbs, crumb{p.Row.Cluster, p.Row.ClusterHref})
	}
	if p.Row.HostHref != "" {
		f.Crumbs = append(f.Crumbs, crumb{p.Row.HostName, p.Row.HostHref})
	}
	p.Source, _ = f.snap.Source(id.Source)
	p.Uptime, p.Disk, p.CoStop = sampled(vm.Samples, inventory.VMUptime), sampled(vm.Samples, inventory.VMDiskLatency), sampled(vm.Samples, inventory.VMCPUCoStop)
	p.Balloon, p.Swap = sampled(vm.Samples, inventory.VMMemoryBalloon), sampled(vm.Samples, inventory.VMMemorySwapped)
	day, name := c.dayOf(ctx, f.Now, id, inventory.VMCPUUsage)
	p.Span = name
	for _, ch := range []chart{
		c.over(ctx, day, id, "cpu", "CPU used", 0, plotted{"used", inventory.VMCPUUsage}),
		c.over(ctx, day, id, "contention", "Time it waits for CPU", 0.05, plotted{"ready", inventory.VMCPUContention}, plotted{"co-stop", inventory.VMCPUCoStop}),
		c.over(ctx, day, id, "memory", "Memory", 0, plotted{"backed by the host", inventory.VMMemoryUsage}, plotted{"active", inventory.VMMemoryActive},
			plotted{"balloon", inventory.VMMemoryBalloon}, plotted{"swapped", inventory.VMMemorySwapped}),
		c.over(ctx, day, id, "network", "Network", 0, plotted{"received", inventory.VMNetworkReceive}, plotted{"sent", inventory.VMNetworkTransmit}),
		c.over(ctx, day, id, "latency", "Disk latency", 0, plotted{"latency", inventory.VMDiskLatency}),
	} {
		if !ch.Empty() {
			p.Charts = append(p.Charts, ch)
		}
	}
	for svc := range f.snap.Services() {
		if svc.VM == id {
			row := serviceRow{Service: svc.Service, Latency: sampled(svc.Samples, inventory.ServiceLatency)}
			row.Source, _ = f.snap.Source(svc.ID.Source)
			p.Services = append(p.Services, row)
		}
	}
	slices.SortFunc(p.Services, func(a, b serviceRow) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID.Ref, b.ID.Ref))
	})
	p.neighbours(f.snap)
	for _, ds := range vm.Datastores {
		if store, ok := f.snap.Datastore(ds); ok {
			p.Stores = append(p.Stores, store)
		}
	}
	for _, id := range vm.Networks {
		if n, ok := f.snap.Network(id); ok {
			p.Nets = append(p.Nets, n)
		}
	}
	if p.Tips, err = c.tipsOf(ctx, f, func(t rules.Tip) bool { return t.Object == id || t.Place != nil && t.Place.VM == id }); err != nil {
		return nil, err
	}
	p.Recent, err = c.recent(ctx, func(a remediation.Action) bool { return a.VM == id })
	return p, err
}

// neighbours are the busiest of the VMs that share the host, this one among them.
func (p *vmPage) neighbours(snap *inventory.Snapshot) {
	on := slices.DeleteFunc(snap.VMsOn(p.Host), func(vm inventory.VMView) bool { return vm.Template || vm.Power != inventory.PowerOn })
	p.Neighbours = busiest(snap, on, shownBusy)
	if p.Power == inventory.PowerOn && !slices.ContainsFunc(p.Neighbours, func(row vmRow) bool { return row.ID == p.ID }) {
		p.Neighbours = append(p.Neighbours, p.Row)
	}
	p.Others = max(0, len(on)-len(p.Neighbours))
}

// searchPage is what goes by a name.
type searchPage struct {
	Q                            string
	VMs                          []vmRow
	Hosts                        []hostRow
	Clusters                     []*inventory.Cluster
	Tips                         []rules.Tip
	MoreVMs, MoreHosts, MoreTips int
	All                          string
}

// shownFound is how many of each kind a search shows.
const shownFound = 20

func (c *Console) search(r *http.Request, f *frame) (any, error) {
	f.Title, f.Section = "Search", ""
	q, err := asked(r, "q")
	if err != nil {
		return nil, err
	}
	p := searchPage{Q: strings.TrimSpace(q.Get("q"))}
	f.Search = p.Q
	text := strings.ToLower(p.Q)
	if text == "" {
		return p, nil
	}
	p.All = with("/vms", nil, "q", p.Q)
	var vms []inventory.VMView
	for vm := range f.snap.VMs() {
		if !vm.Template && found(vm.VM, text) {
			vms = append(vms, vm)
		}
	}
	sortVMs(f.snap, vms, "name")
	p.MoreVMs = max(0, len(vms)-shownFound)
	for _, vm := range vms[:len(vms)-p.MoreVMs] {
		p.VMs = append(p.VMs, rowOf(f.snap, vm))
	}
	for h := range f.snap.Hosts() {
		if strings.Contains(strings.ToLower(h.Name), text) {
			if len(p.Hosts) == shownFound {
				p.MoreHosts++
				continue
			}
			p.Hosts = append(p.Hosts, hostRow{
				Host: h.Host, VMs: len(f.snap.VMsOn(h.ID)), CPU: sampled(h.Samples, inventory.HostCPUUsageRatio),
				Memory: sampled(h.Samples, inventory.HostMemoryUsageRatio), Waits: sampled(h.Samples, inventory.HostCPUContention),
			})
		}
	}
	for cl := range f.snap.Clusters() {
		if strings.Contains(strings.ToLower(cl.Name), text) && len(p.Clusters) < shownFound {
			p.Clusters = append(p.Clusters, cl)
		}
	}
	for _, t := range f.list {
		if t.ID == text || strings.Contains(strings.ToLower(t.Name), text) || strings.Contains(strings.ToLower(t.Rule), text) {
			p.Tips = append(p.Tips, t)
		}
	}
	sortTips(p.Tips)
	p.MoreTips = max(0, len(p.Tips)-shownFound)
	p.Tips = p.Tips[:len(p.Tips)-p.MoreTips]
	return p, nil
}
