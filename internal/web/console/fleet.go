package console

import (
	"cmp"
	"context"
	"fmt"
	"html/template"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/placement"
	"github.com/protip/protip/internal/web"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// How much the pages of the fleet show.
const (
	shownClusters = 150
	shownHosts    = 100
	shownStrip    = 48
	shownVMs      = 60
	shownBusy     = 10
	shownRecent   = 10
)

// Where a share becomes alarming, on bars: it is what the shipped packs call hot.
const (
	hotCPU        = 0.85
	hotMemory     = 0.92
	hotContention = 0.05
)

// fleetPage is every source's clusters on one page.
type fleetPage struct {
	Sum     fleetSum
	Sources []fleetSource
	More    int // clusters that are not shown
}

type fleetSum struct {
	Sources, Up, Clusters, Hosts, VMs, Running int
	CPU, Memory                                number
}

type fleetSource struct {
	inventory.Source
	Rows []clusterRow
}

// clusterRow is a cluster, or the hosts of a source that have none.
type clusterRow struct {
	ID                  inventory.ID
	Name, Href          string
	Hosts, VMs, Running int
	Away                int // hosts that are not connected, or in maintenance
	Measured            int // hosts whose load is known
	CPU, Memory, Waits  number
	Strip               template.HTML
	Reserve             *web.Reserve
	Tips                int
	Worst               rules.Severity
	DRS                 inventory.DRS
	Unread              bool

	load, room placement.Use
	memory     int // hosts whose memory is known
	columns    []column
}

// column is a host as a column of a strip.
type column struct {
	name string
	cpu  number
}

func (c *Console) fleet(r *http.Request, f *frame) (any, error) {
	f.Title, f.Section = "Fleet", "fleet"
	if _, err := asked(r); err != nil {
		return nil, err
	}
	rows, err := c.clusterRows(r.Context(), f)
	if err != nil {
		return nil, err
	}
	var p fleetPage
	var all clusterRow
	shown := 0
	for _, src := range f.snap.Sources() {
		view := fleetSource{Source: src}
		p.Sum.Sources++
		if src.Up {
			p.Sum.Up++
		}
		for _, row := range rows[src.Name] {
			if !row.ID.IsZero() {
				p.Sum.Clusters++
			}
			all.add(row)
			if shown++; shown <= shownClusters {
				view.Rows = append(view.Rows, *row)
			}
		}
		p.Sources = append(p.Sources, view)
	}
	p.More = max(0, shown-shownClusters)
	p.Sum.Hosts, p.Sum.VMs, p.Sum.Running = all.Hosts, all.VMs, all.Running
	all.finish()
	p.Sum.CPU, p.Sum.Memory = all.CPU, all.Memory
	return p, nil
}

// add counts another row's hosts in.
func (r *clusterRow) add(o *clusterRow) {
	r.Hosts, r.VMs, r.Running = r.Hosts+o.Hosts, r.VMs+o.VMs, r.Running+o.Running
	r.Measured, r.memory = r.Measured+o.Measured, r.memory+o.memory
	r.load.CPUHertz, r.room.CPUHertz = r.load.CPUHertz+o.load.CPUHertz, r.room.CPUHertz+o.room.CPUHertz
	r.load.MemoryBytes, r.room.MemoryBytes = r.load.MemoryBytes+o.load.MemoryBytes, r.room.MemoryBytes+o.room.MemoryBytes
}

// finish turns sums into shares of what the hosts have whose load is known.
func (r *clusterRow) finish() {
	r.CPU = number{V: r.load.CPUHertz, OK: r.Measured > 0}.over(r.room.CPUHertz)
	r.Memory = number{V: r.load.MemoryBytes, OK: r.memory > 0}.over(r.room.MemoryBytes)
	slices.SortFunc(r.columns, func(a, b column) int { return strings.Compare(a.name, b.name) })
	r.Strip = strip(r.columns)
}

// clusterRows are the clusters of each source, by name, and the hosts without one last.
func (c *Console) clusterRows(ctx context.Context, f *frame) (map[string][]*clusterRow, error) {
	reserves, err := c.o.Agent.Reserves(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string][]*clusterRow{}
	of := map[inventory.ID]*clusterRow{}
	for cl := range f.snap.Clusters() {
		row := &clusterRow{ID: cl.ID, Name: clean(cl.Name), Href: href(cl.ID), DRS: cl.DRS, Unread: cl.Unread}
		of[cl.ID] = row
		out[cl.ID.Source] = append(out[cl.ID.Source], row)
	}
	for _, rows := range out {
		slices.SortFunc(rows, func(a, b *clusterRow) int {
			return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID.Ref, b.ID.Ref))
		})
	}
	alone := map[string]*clusterRow{}
	for h := range f.snap.Hosts() {
		row := of[h.Cluster]
		if row == nil {
			if row = alone[h.ID.Source]; row == nil {
				row = &clusterRow{Name: "hosts without a cluster"}
				alone[h.ID.Source] = row
				out[h.ID.Source] = append(out[h.ID.Source], row)
			}
		}
		row.host(f.snap, h)
	}
	for i, r := range reserves {
		if row := of[r.Cluster]; row != nil {
			row.Reserve = &reserves[i]
		}
	}
	for _, t := range f.list {
		if row := of[t.Cluster]; row != nil && (t.State == rules.Active || t.State == rules.InProgress) {
			if row.Tips++; row.Worst == "" || slices.Index(severities, t.Severity) < slices.Index(severities, row.Worst) {
				row.Worst = t.Severity
			}
		}
	}
	for _, rows := range out {
		for _, row := range rows {
			row.finish()
		}
	}
	return out, nil
}

func (r *clusterRow) host(snap *inventory.Snapshot, h inventory.HostView) {
	r.Hosts++
	if h.Maintenance || h.Connection != inventory.Connected {
		r.Away++
	}
	for _, vm := range snap.VMsOn(h.ID) {
		if !vm.Template {
			r.VMs++
			if vm.Power == inventory.PowerOn {
				r.Running++
			}
		}
	}
	cpu := sampled(h.Samples, inventory.HostCPUUsageRatio)
	if cpu.OK && h.CPUHertz > 0 {
		r.Measured++
		r.load.CPUHertz += cpu.V * h.CPUHertz
		r.room.CPUHertz += h.CPUHertz
	}
	if mem := sampled(h.Samples, inventory.HostMemoryUsageRatio); mem.OK && h.MemoryBytes > 0 {
		r.memory++
		r.load.MemoryBytes += mem.V * h.MemoryBytes
		r.room.MemoryBytes += h.MemoryBytes
	}
	if waits := sampled(h.Samples, inventory.HostCPUContentionMax); waits.OK && (!r.Waits.OK || waits.V > r.Waits.V) {
		r.Waits = waits
	}
	r.columns = append(r.columns, column{clean(h.Name), cpu})
}

// strip is hosts side by side, as high as their CPU is used.
func strip(hosts []column) template.HTML {
	if len(hosts) == 0 {
		return ""
	}
	more := len(hosts) - min(len(hosts), shownStrip)
	hosts = hosts[:len(hosts)-more]
	var b strings.Builder
	words := make([]string, 0, len(hosts))
	for i, h := range hosts {
		class, high := "nk", 24.0
		if h.cpu.OK {
			high = max(2, 24*min(h.cpu.V, 1))
			switch {
			case h.cpu.V >= hotCPU:
				class = "hot"
			case h.cpu.V >= 0.8*hotCPU:
				class = "warm"
			default:
				class = "calm"
			}
		}
		said := template.HTMLEscapeString(h.name + " " + h.cpu.String())
		words = append(words, said)
		fmt.Fprintf(&b, `<rect class="%s" x="%d" y="%.1f" width="6" height="%.1f"><title>%s</title></rect>`, class, 8*i, 24-high, high, said)
	}
	label := strings.Join(words[:min(len(words), 8)], ", ")
	if len(words) > 8 || more > 0 {
		label += fmt.Sprintf(" and %d more", len(words)-min(len(words), 8)+more)
	}
	wide := 8*len(hosts) - 2
	return template.HTML(fmt.Sprintf(`<svg class="strip" width="%d" height="24" viewBox="0 0 %d 24" role="img" aria-label="CPU: %s">%s</svg>`, wide, wide, label, b.String()))
}

// clusterPage is one cluster.
type clusterPage struct {
	*inventory.Cluster
	Row       clusterRow
	Source    inventory.Source
	Hosts     []hostRow
	MoreHosts int
	Busy      []vmRow
	Tips      []tipRow
	Recent    []remediation.Action
	Failed    []string // hosts whose loss the cluster does not survive
	LeftOver  string
	Rules     int // enabled ones that tie VMs
	List      string
}

// hostRow is a host on one line.
type hostRow struct {
	*inventory.Host
	VMs                int
	CPU, Memory, Waits number
	Spark              template.HTML
}

func (c *Console) cluster(r *http.Request, f *frame) (any, error) {
	if _, err := asked(r); err != nil {
		return nil, err
	}
	id, err := inventory.ParseID(r.PathValue("id"))
	cl, ok := f.snap.Cluster(id)
	if err != nil || !ok {
		return nil, notFound("No source knows a cluster %q now.", clean(r.PathValue("id")))
	}
	ctx := r.Context()
	f.Title, f.Section, f.Crumbs = clean(cl.Name), "fleet", []crumb{{"Fleet", "/fleet"}}
	p := clusterPage{Cluster: cl, List: with("/vms", nil, "cluster", id.String())}
	p.Source, _ = f.snap.Source(id.Source)
	rows, err := c.clusterRows(ctx, f)
	if err != nil {
		return nil, err
	}
	for _, row := range rows[id.Source] {
		if row.ID == id {
			p.Row = *row
		}
	}
	hosts := f.snap.HostsOf(id)
	slices.SortFunc(hosts, func(a, b inventory.HostView) int { return strings.Compare(a.Name, b.Name) })
	p.MoreHosts = max(0, len(hosts)-shownHosts)
	p.Hosts = c.hostRows(ctx, f, hosts[:len(hosts)-p.MoreHosts])
	var vms []inventory.VMView
	for _, h := range hosts {
		vms = append(vms, f.snap.VMsOn(h.ID)...)
	}
	p.Busy = busiest(f.snap, vms, shownBusy)
	if p.Row.Reserve != nil {
		for _, host := range p.Row.Reserve.Failed {
			p.Failed = append(p.Failed, hostName(f.snap, host))
		}
		if vm, ok := f.snap.VM(p.Row.Reserve.LeftOver); ok {
			p.LeftOver = clean(vm.Name)
		}
	}
	for _, rule := range cl.Rules {
		if rule.Enabled {
			p.Rules++
		}
	}
	for _, rule := range cl.HostRules {
		if rule.Enabled {
			p.Rules++
		}
	}
	if p.Tips, err = c.tipsOf(ctx, f, func(t rules.Tip) bool { return t.Cluster == id }); err != nil {
		return nil, err
	}
	p.Recent, err = c.recent(ctx, func(a remediation.Action) bool { return a.Cluster == id })
	return p, err
}

func hostName(snap *inventory.Snapshot, id inventory.ID) string {
	if h, ok := snap.Host(id); ok {
		return clean(h.Name)
	}
	return clean(id.Ref)
}

// tipsOf are open tips about something, what needs a person first.
func (c *Console) tipsOf(ctx context.Context, f *frame, about func(rules.Tip) bool) ([]tipRow, error) {
	var picked []rules.Tip
	for _, t := range f.list {
		if isOpen(t.State) && about(t) {
			picked = append(picked, t)
		}
	}
	sortTips(picked)
	return c.tipRows(ctx, f, picked[:min(len(picked), shownRecent)])
}

// recent are the newest actions that are about something.
func (c *Console) recent(ctx context.Context, about func(remediation.Action) bool) ([]remediation.Action, error) {
	actions, err := c.o.Agent.Actions(ctx, remediation.Filter{Limit: readActions})
	if err != nil {
		return nil, err
	}
	actions = slices.DeleteFunc(slices.Clone(actions), func(a remediation.Action) bool { return !about(a) })
	return actions[:min(len(actions), shownRecent)], nil
}

func (c *Console) hostRows(ctx context.Context, f *frame, hosts []inventory.HostView) []hostRow {
	r := ending(f.Now, 6*time.Hour, 72)
	past := c.hostPast(ctx, hosts, r)
	out := make([]hostRow, 0, len(hosts))
	for _, h := range hosts {
		row := hostRow{
			Host: h.Host, CPU: sampled(h.Samples, inventory.HostCPUUsageRatio), Memory: sampled(h.Samples, inventory.HostMemoryUsageRatio),
			Waits: sampled(h.Samples, inventory.HostCPUContention),
			Spark: spark(past[h.ID.Ref], r, 1, "CPU of "+h.Name+" in the last 6 hours"),
		}
		for _, vm := range f.snap.VMsOn(h.ID) {
			if !vm.Template {
				row.VMs++
			}
		}
		out = append(out, row)
	}
	return out
}

// hostPast is the CPU of hosts of one source, by ref, asked at once.
func (c *Console) hostPast(ctx context.Context, hosts []inventory.HostView, r history.Range) map[string][]history.Point {
	if len(hosts) == 0 || c.o.Past == nil {
		return nil
	}
	refs := make([]string, len(hosts))
	for i, h := range hosts {
		refs[i] = regexp.QuoteMeta(h.ID.Ref)
	}
	out := map[string][]history.Point{}
	for _, s := range c.matrix(ctx, fmt.Sprintf("avg_over_time(%s{source=%s,host_id=~%s}[%ds])", inventory.HostCPUUsageRatio,
		strconv.Quote(hosts[0].ID.Source), strconv.Quote(strings.Join(refs, "|")), int(r.Step.Seconds())), r) {
		out[s.Labels.Get("host_id")] = append(out[s.Labels.Get("host_id")], s.Points...)
	}
	return out
}

// hostPage is one host.
type hostPage struct {
	inventory.HostView
	ClusterName               string
	Source                    inventory.Source
	CPU, Memory, Waits, Worst number
	Uptime                    number
	Charts                    []chart
	VMs                       []vmRow
	MoreVMs                   int
	Tips                      []tipRow
	Recent                    []remediation.Action
	List                      string
	Span                      string    // that the charts are of
	Stale                     time.Time // since when there are no numbers; zero if there are
	Wishes                    []wish
}

func (c *Console) host(r *http.Request, f *frame) (any, error) {
	if _, err := asked(r); err != nil {
		return nil, err
	}
	id, err := inventory.ParseID(r.PathValue("id"))
	h, ok := f.snap.Host(id)
	if err != nil || !ok {
		return nil, notFound("No source knows a host %q now.", clean(r.PathValue("id")))
	}
	ctx := r.Context()
	f.Title, f.Section, f.Crumbs = clean(h.Name), "fleet", []crumb{{"Fleet", "/fleet"}}
	p := hostPage{HostView: h, Wishes: wishes, List: with("/vms", nil, "host", id.String()), Uptime: sampled(h.Samples, inventory.HostUptime)}
	p.Source, _ = f.snap.Source(id.Source)
	if cl, ok := f.snap.Cluster(h.Cluster); ok {
		p.ClusterName = clean(cl.Name)
		f.Crumbs = append(f.Crumbs, crumb{p.ClusterName, href(cl.ID)})
	}
	p.CPU, p.Memory = sampled(h.Samples, inventory.HostCPUUsageRatio), sampled(h.Samples, inventory.HostMemoryUsageRatio)
	p.Waits, p.Worst = sampled(h.Samples, inventory.HostCPUContention), sampled(h.Samples, inventory.HostCPUContentionMax)
	c.hostCharts(ctx, f, &p)
	if !p.CPU.OK {
		p.Stale = p.CPU.At
	}
	vms := f.snap.VMsOn(id)
	p.MoreVMs = max(0, len(vms)-shownVMs)
	p.VMs = busiest(f.snap, vms, shownVMs)
	onIt := map[inventory.ID]bool{id: true}
	for _, vm := range vms {
		onIt[vm.ID] = true
	}
	if p.Tips, err = c.tipsOf(ctx, f, func(t rules.Tip) bool { return onIt[t.Object] }); err != nil {
		return nil, err
	}
	p.Recent, err = c.recent(ctx, func(a remediation.Action) bool { return a.From == id || a.To == id })
	return p, err
}

// hostCharts draw the last day. A number that is no longer true is shown as it was last.
func (c *Console) hostCharts(ctx context.Context, f *frame, p *hostPage) {
	r, name := c.dayOf(ctx, f.Now, p.ID, inventory.HostCPUUsageRatio)
	p.Span = name
	add := func(name, title string, top float64, lines ...plotted) chart {
		ch := c.over(ctx, r, p.ID, name, title, top, lines...)
		if !ch.Empty() {
			p.Charts = append(p.Charts, ch)
		}
		return ch
	}
	cpu := add("cpu", "CPU used", 1, plotted{"used", inventory.HostCPUUsageRatio})
	memory := add("memory", "Memory used", 1, plotted{"used", inventory.HostMemoryUsageRatio})
	waits := add("contention", "Time its VMs wait for CPU", 0.1, plotted{"mean", inventory.HostCPUContention}, plotted{"worst VM", inventory.HostCPUContentionMax})
	add("network", "Network", 0, plotted{"received", inventory.HostNetworkReceive}, plotted{"sent", inventory.HostNetworkTransmit})
	add("latency", "Disk latency, the worst disk", 0, plotted{"latency", inventory.HostDiskLatency})
	p.CPU, p.Memory = p.CPU.orLast(cpu), p.Memory.orLast(memory)
	p.Waits = p.Waits.orLast(waits)
}

// orLast is a number as it was last, if it is not known now.
func (n number) orLast(c chart) number {
	if n.OK || n.At.IsZero() || len(c.Lines) == 0 {
		return n
	}
	n.V = last(c.Lines[0].Points, c.Unit).V
	return n
}

// nameOf is what an object is called, or its reference once it is gone.
func nameOf(snap *inventory.Snapshot, id inventory.ID) string {
	switch id.Kind {
	case inventory.KindCluster:
		if cl, ok := snap.Cluster(id); ok {
			return clean(cl.Name)
		}
	case inventory.KindVM:
		if vm, ok := snap.VM(id); ok {
			return clean(vm.Name)
		}
	}
	return hostName(snap, id)
}
