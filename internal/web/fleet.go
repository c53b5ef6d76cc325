package web

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/placement"
)

// Source is a source as the API shows it.
type Source struct {
	Name            string    `json:"name"`
	Platform        string    `json:"platform"`
	IntervalSeconds float64   `json:"interval_seconds"` // between samples
	Synced          bool      `json:"synced"`           // it has listed everything at least once
	Up              bool      `json:"up"`
	Error           string    `json:"error,omitempty"`
	LastSuccess     time.Time `json:"last_success,omitzero"`
	// What it listed; absent until it did.
	Clusters *int `json:"clusters,omitempty"`
	Hosts    *int `json:"hosts,omitempty"`
	VMs      *int `json:"vms,omitempty"`
}

// Cluster is a cluster as the API shows it.
type Cluster struct {
	ID     inventory.ID `json:"id"`
	Name   string       `json:"name"`
	Source string       `json:"source"`
	Hosts  int          `json:"hosts"`
	VMs    int          `json:"vms"`
	DRS    DRS          `json:"drs"`
	HA     HA           `json:"ha"`
}

// DRS is a cluster's own load balancer.
type DRS struct {
	Enabled    bool                 `json:"enabled"`
	Automation inventory.Automation `json:"automation,omitempty"`
}

// HA is a cluster's own restart of VMs after a host failure.
type HA struct {
	Enabled          bool   `json:"enabled"`
	AdmissionControl bool   `json:"admission_control"`
	Policy           string `json:"policy,omitempty"`
	HostFailures     int    `json:"host_failures,omitempty"`
}

// Host is a host as the API shows it. A fact that the platform did not tell is absent.
type Host struct {
	ID          inventory.ID         `json:"id"`
	Name        string               `json:"name"`
	Source      string               `json:"source"`
	Cluster     inventory.ID         `json:"cluster,omitzero"`
	ClusterName string               `json:"cluster_name,omitempty"`
	UUID        string               `json:"uuid,omitempty"`
	Connection  inventory.Connection `json:"connection,omitempty"`
	Power       inventory.Power      `json:"power,omitempty"`
	Maintenance bool                 `json:"maintenance"`
	Cores       int                  `json:"cores,omitempty"`
	CPUHertz    float64              `json:"cpu_hertz,omitempty"`
	MemoryBytes float64              `json:"memory_bytes,omitempty"`
	Model       string               `json:"model,omitempty"`
	CPUModel    string               `json:"cpu_model,omitempty"`
	Version     string               `json:"version,omitempty"`
	VMs         int                  `json:"vms"`
	Samples     map[string]Sample    `json:"samples"`
}

// VM is a VM as the API shows it. A fact that the platform did not tell is absent.
type VM struct {
	ID            inventory.ID         `json:"id"`
	Name          string               `json:"name"`
	Source        string               `json:"source"`
	UUID          string               `json:"uuid,omitempty"`
	Host          inventory.ID         `json:"host,omitzero"`
	HostName      string               `json:"host_name,omitempty"`
	Cluster       inventory.ID         `json:"cluster,omitzero"`
	ClusterName   string               `json:"cluster_name,omitempty"`
	Connection    inventory.Connection `json:"connection,omitempty"`
	Power         inventory.Power      `json:"power,omitempty"`
	Template      bool                 `json:"template"`
	VCPUs         int                  `json:"vcpus,omitempty"`
	MemoryBytes   float64              `json:"memory_bytes,omitempty"` // configured
	GuestOS       string               `json:"guest_os,omitempty"`
	GuestHostname string               `json:"guest_hostname,omitempty"`
	GuestIP       string               `json:"guest_ip,omitempty"`
	Samples       map[string]Sample    `json:"samples"`
}

// Sample is the last sample of a metric. Value is null once it is too old to be used; At is when it was true.
type Sample struct {
	Value *float64  `json:"value"`
	At    time.Time `json:"at"`
}

// samplesOf are an object's samples by field name. A metric that was never seen is absent.
func samplesOf(kind inventory.Kind, s inventory.Samples) map[string]Sample {
	out := map[string]Sample{}
	for _, m := range inventory.MetricsOf(kind) {
		if sample := s.Of(m); sample.At != 0 {
			out[m.Field()] = Sample{Value: usable(s, m), At: sample.Time().UTC()}
		}
	}
	return out
}

// usable is the metric's value, nil if there is none that could be used.
func usable(s inventory.Samples, m inventory.Metric) *float64 {
	v, ok := s.Value(m)
	if !ok {
		return nil
	}
	return finite(v)
}

// finite is v, nil if JSON and people have no number for it.
func finite(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

func (s *server) sources(r *http.Request) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	return sourcesOf(s.agent.Snapshot()), nil
}

func sourcesOf(snap *inventory.Snapshot) []Source {
	out := []Source{}
	for _, src := range snap.Sources() {
		view := Source{
			Name: src.Name, Platform: src.Platform, IntervalSeconds: src.Interval.Seconds(),
			Synced: src.Synced, Up: src.Up, Error: src.Error, LastSuccess: src.LastSuccess,
		}
		if src.Synced {
			view.Clusters = count(snap.ClusterTable(src.Name).Facts)
			view.Hosts = count(snap.HostTable(src.Name).Facts)
			view.VMs = count(snap.VMTable(src.Name).Facts)
		}
		out = append(out, view)
	}
	return out
}

func count[T any](facts []*T) *int {
	n := 0
	for _, obj := range facts {
		if obj != nil {
			n++
		}
	}
	return &n
}

func (s *server) clusters(r *http.Request) (any, error) {
	q, err := query(r, "source", "limit", "offset")
	if err != nil {
		return nil, err
	}
	window, err := windowOf(q)
	if err != nil {
		return nil, err
	}
	snap := s.agent.Snapshot()
	hosts, vms := map[inventory.ID]int{}, map[inventory.ID]int{}
	for _, h := range hostsOf(snap, "") {
		hosts[h.Cluster]++
		vms[h.Cluster] += h.VMs
	}
	out := []Cluster{}
	for c := range snap.Clusters() {
		if is(q.Get("source"), c.ID.Source) {
			out = append(out, Cluster{
				ID: c.ID, Name: c.Name, Source: c.ID.Source, Hosts: hosts[c.ID], VMs: vms[c.ID], DRS: DRS(c.DRS), HA: HA(c.HA),
			})
		}
	}
	slices.SortFunc(out, func(a, b Cluster) int { return byName(a.Source, b.Source, a.Name, b.Name, a.ID, b.ID) })
	return paged(window, out, same), nil
}

func (s *server) hosts(r *http.Request) (any, error) {
	q, err := query(r, "source", "cluster", "limit", "offset")
	if err != nil {
		return nil, err
	}
	window, err := windowOf(q)
	if err != nil {
		return nil, err
	}
	out := slices.DeleteFunc(hostsOf(s.agent.Snapshot(), q.Get("source")), func(h Host) bool {
		return !is(q.Get("cluster"), h.ClusterName, h.Cluster.String())
	})
	return paged(window, out, same), nil
}

// hostsOf are the hosts of one source, or of all if it is empty, by source and name.
func hostsOf(snap *inventory.Snapshot, source string) []Host {
	vms := map[inventory.ID]int{}
	for vm := range snap.VMs() {
		vms[vm.Host]++
	}
	out := []Host{}
	for h := range snap.Hosts() {
		if !is(source, h.ID.Source) {
			continue
		}
		view := Host{
			ID: h.ID, Name: h.Name, Source: h.ID.Source, Cluster: h.Cluster, UUID: h.UUID, Connection: h.Connection, Power: h.Power,
			Maintenance: h.Maintenance, Cores: h.Cores, CPUHertz: h.CPUHertz, MemoryBytes: h.MemoryBytes, Model: h.Model,
			CPUModel: h.CPUModel, Version: h.Version, VMs: vms[h.ID], Samples: samplesOf(inventory.KindHost, h.Samples),
		}
		if c, ok := snap.Cluster(h.Cluster); ok {
			view.ClusterName = c.Name
		}
		out = append(out, view)
	}
	slices.SortFunc(out, func(a, b Host) int { return byName(a.Source, b.Source, a.Name, b.Name, a.ID, b.ID) })
	return out
}

func (s *server) vms(r *http.Request) (any, error) {
	q, err := query(r, "source", "cluster", "host", "power", "name", "sort", "limit", "offset")
	if err != nil {
		return nil, err
	}
	window, err := windowOf(q)
	if err != nil {
		return nil, err
	}
	order, err := vmOrder(q.Get("sort"))
	if err != nil {
		return nil, err
	}
	snap := s.agent.Snapshot()
	var picked []inventory.VMView
	name := strings.ToLower(q.Get("name"))
	for vm := range snap.VMs() {
		if !is(q.Get("source"), vm.ID.Source) || !is(q.Get("power"), string(vm.Power)) ||
			!strings.Contains(strings.ToLower(vm.Name), name) {
			continue
		}
		if where := placeOf(snap, vm); is(q.Get("host"), where.HostName, where.Host.String()) &&
			is(q.Get("cluster"), where.ClusterName, where.Cluster.String()) {
			picked = append(picked, vm)
		}
	}
	slices.SortFunc(picked, order)
	return paged(window, picked, func(vm inventory.VMView) VM { return vmOf(snap, vm) }), nil
}

func vmOf(snap *inventory.Snapshot, vm inventory.VMView) VM {
	where := placeOf(snap, vm)
	return VM{
		ID: vm.ID, Name: vm.Name, Source: vm.ID.Source, UUID: vm.UUID, Host: where.Host, HostName: where.HostName,
		Cluster: where.Cluster, ClusterName: where.ClusterName, Connection: vm.Connection, Power: vm.Power, Template: vm.Template,
		VCPUs: vm.VCPUs, MemoryBytes: vm.MemoryBytes, GuestOS: vm.GuestOS, GuestHostname: vm.GuestHostname, GuestIP: vm.GuestIP,
		Samples: samplesOf(inventory.KindVM, vm.Samples),
	}
}

// Candidate is a VM that a name could mean.
type Candidate struct {
	ID          inventory.ID `json:"id,omitzero"` // absent of one that does not exist yet
	Name        string       `json:"name"`
	Host        inventory.ID `json:"host,omitzero"`
	HostName    string       `json:"host_name,omitempty"`
	Cluster     inventory.ID `json:"cluster,omitzero"`
	ClusterName string       `json:"cluster_name,omitempty"`
}

// placeOf says which VM it is and where it runs.
func placeOf(snap *inventory.Snapshot, vm inventory.VMView) Candidate {
	c := Candidate{ID: vm.ID, Name: vm.Name, Host: vm.Host}
	if h, ok := snap.Host(vm.Host); ok {
		c.HostName = h.Name
	}
	if cluster, ok := snap.ClusterOf(vm.VM); ok {
		c.Cluster, c.ClusterName = cluster.ID, cluster.Name
	}
	return c
}

// Placement is a VM and how well each host suits it.
type Placement struct {
	VM      Candidate          `json:"vm"`
	Ratings []placement.Rating `json:"ratings"`
}

func (s *server) place(r *http.Request) (any, error) {
	q, err := query(r, "vm", "vcpus", "cpu_hertz", "memory_bytes", "disk_bytes_per_second", "network_bytes_per_second", "ha", "tag", "cluster")
	if err != nil {
		return nil, err
	}
	snap := s.agent.Snapshot()
	if !q.Has("vm") && len(q) > 0 {
		spec, err := newVM(snap, q)
		if err != nil {
			return nil, err
		}
		return s.rated(r, Candidate{Name: spec.Name, Cluster: spec.Cluster}, spec)
	}
	if len(q) > 1 {
		return nil, badData("vm names one that exists: the other parameters describe one that does not")
	}
	vm, err := findVM(snap, q.Get("vm"))
	if err != nil {
		return nil, err
	}
	return s.rated(r, vm, placement.VMSpec{ID: vm.ID})
}

func (s *server) rated(r *http.Request, vm Candidate, spec placement.VMSpec) (any, error) {
	ratings, err := s.agent.Place(r.Context(), spec)
	if err != nil {
		return nil, err
	}
	return Placement{VM: vm, Ratings: append([]placement.Rating{}, ratings...)}, nil
}

// findVM is the VM that a person means by an ID or a name. Names repeat, so a name may be refused with the VMs that have it.
func findVM(snap *inventory.Snapshot, want string) (Candidate, error) {
	if want == "" {
		return Candidate{}, badData("which VM? give vm=NAME or vm=SOURCE/vm/REF")
	}
	if id, err := inventory.ParseID(want); err == nil {
		if vm, ok := snap.VM(id); ok {
			return placeOf(snap, vm), nil
		}
	}
	var found []Candidate
	for vm := range snap.VMs() {
		if vm.Name == want {
			found = append(found, placeOf(snap, vm))
		}
	}
	switch len(found) {
	case 0:
		return Candidate{}, &apiError{http.StatusNotFound, "not_found", fmt.Sprintf("no VM has the name or id %q", want), nil}
	case 1:
		return found[0], nil
	}
	slices.SortFunc(found, func(a, b Candidate) int { return compareIDs(a.ID, b.ID) })
	text := fmt.Sprintf("%d VMs are called %q: say which by its id", len(found), want)
	return Candidate{}, &apiError{http.StatusConflict, "ambiguous", text, found}
}

// vmOrder is the order of a sort parameter: a field, falling if a minus precedes it. Who has no value comes last either way.
func vmOrder(sort string) (func(a, b inventory.VMView) int, error) {
	field, falling := strings.CutPrefix(sort, "-")
	byVMName := func(a, b inventory.VMView) int { return byName(a.ID.Source, b.ID.Source, a.Name, b.Name, a.ID, b.ID) }
	if sort == "" {
		return byVMName, nil
	}
	if field == "name" {
		return func(a, b inventory.VMView) int {
			c := cmp.Or(strings.Compare(a.Name, b.Name), compareIDs(a.ID, b.ID))
			if falling {
				return -c
			}
			return c
		}, nil
	}
	value, err := vmField(field)
	if err != nil {
		return nil, err
	}
	return func(a, b inventory.VMView) int {
		x, y := value(a), value(b)
		switch {
		case x == nil && y == nil:
			return byVMName(a, b)
		case x == nil:
			return 1
		case y == nil:
			return -1
		}
		c := cmp.Compare(*x, *y)
		if falling {
			c = -c
		}
		return cmp.Or(c, byVMName(a, b))
	}, nil
}

// vmField reads one number of a VM, nil where there is none.
func vmField(field string) (func(inventory.VMView) *float64, error) {
	known := []string{"name", "vcpus", "memory_bytes"}
	switch field {
	case "vcpus":
		return func(vm inventory.VMView) *float64 { return told(float64(vm.VCPUs)) }, nil
	case "memory_bytes":
		return func(vm inventory.VMView) *float64 { return told(vm.MemoryBytes) }, nil
	}
	for _, m := range inventory.MetricsOf(inventory.KindVM) {
		if m.Field() == field {
			return func(vm inventory.VMView) *float64 { return usable(vm.Samples, m) }, nil
		}
		known = append(known, m.Field())
	}
	return nil, badData("cannot sort by %q: want one of %s", field, strings.Join(known, ", "))
}

// told is a fact that is 0 only where the platform did not tell it.
func told(v float64) *float64 {
	if v == 0 {
		return nil
	}
	return finite(v)
}

// is reports whether a filter takes an object that goes by these names. An empty filter takes all.
func is(filter string, names ...string) bool { return filter == "" || slices.Contains(names, filter) }

func byName(sourceA, sourceB, a, b string, idA, idB inventory.ID) int {
	return cmp.Or(strings.Compare(sourceA, sourceB), strings.Compare(a, b), compareIDs(idA, idB))
}

func compareIDs(a, b inventory.ID) int {
	return cmp.Or(strings.Compare(a.Source, b.Source), cmp.Compare(a.Kind, b.Kind), strings.Compare(a.Ref, b.Ref))
}
