package web

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/placement"
)

// Reserve says whether a cluster survives the loss of hosts, and what its platform says of that.
type Reserve struct {
	*placement.Admission
	Source string `json:"source"`
	// Asked says who wants the reserve: the configuration, or the platform's own settings.
	Asked        string           `json:"asked"`
	FailedNames  []string         `json:"failed_names,omitempty"`
	LeftOverName string           `json:"left_over_name,omitempty"`
	Platform     placement.Second `json:"platform"`
	Differs      string           `json:"differs,omitempty"` // why the platform does not agree
	Plans        []Plan           `json:"plans,omitempty"`   // of an admission, if they are asked for
}

// Plan is who restarts where when the hosts fail.
type Plan struct {
	Failed   []string            `json:"failed"` // names
	Restarts []placement.Restart `json:"restarts"`
}

// maxPlans is how many plans are shown unless more are asked for.
const maxPlans = 20

func (s *server) reserve(r *http.Request) (any, error) {
	q, err := query(r, "source", "cluster", "explain", "failed", "limit")
	if err != nil {
		return nil, err
	}
	explain, err := parseBool("explain", q.Get("explain"))
	if err != nil {
		return nil, err
	}
	limit := maxPlans
	if q.Has("limit") {
		if limit, err = parseLimit(q.Get("limit")); err != nil {
			return nil, err
		}
	}
	all, err := s.agent.Reserves(r.Context())
	if err != nil {
		return nil, err
	}
	snap, out, warning := s.agent.Snapshot(), []Reserve{}, ""
	for _, a := range all {
		if !is(q.Get("source"), a.Source) || !is(q.Get("cluster"), a.Name, a.Cluster.String()) {
			continue
		}
		a.FailedNames = hostNames(snap, a.Failed)
		if vm, ok := snap.VM(a.LeftOver); ok {
			a.LeftOverName = vm.Name
		}
		if explain || q.Has("failed") {
			sets := a.FailureSets()
			if q.Has("failed") {
				set, err := hostsNamed(snap, a.Cluster, q["failed"])
				if err != nil {
					return nil, err
				}
				sets = [][]inventory.ID{set}
			}
			if limit > 0 && len(sets) > limit {
				warning = fmt.Sprintf("%d of %d plans of cluster %s shown: raise limit, or name the hosts with failed", limit, len(sets), a.Name)
				sets = sets[:limit]
			}
			if a.Plans, err = plansOf(snap, a.Admission, sets); err != nil {
				return nil, err
			}
		}
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b Reserve) int { return byName(a.Source, b.Source, a.Name, b.Name, a.Cluster, b.Cluster) })
	if warning != "" {
		return part{data: out, warning: warning}, nil
	}
	return out, nil
}

func plansOf(snap *inventory.Snapshot, a *placement.Admission, sets [][]inventory.ID) ([]Plan, error) {
	var plans []Plan
	for _, set := range sets {
		restarts, ok := a.RestartsOf(set)
		if !ok && a.Answer == placement.Admitted {
			return nil, badData("failed: the reserve of cluster %s is of at most %d hosts of it", a.Name, a.Reserve)
		}
		if ok {
			plans = append(plans, Plan{Failed: hostNames(snap, set), Restarts: append([]placement.Restart{}, restarts...)})
		}
	}
	return plans, nil
}

func hostNames(snap *inventory.Snapshot, ids []inventory.ID) []string {
	var names []string
	for _, id := range ids {
		name := id.String()
		if h, ok := snap.Host(id); ok {
			name = h.Name
		}
		names = append(names, name)
	}
	return names
}

// hostsNamed are the hosts of the cluster that a person means, each by its name or its ID.
func hostsNamed(snap *inventory.Snapshot, cluster inventory.ID, names []string) ([]inventory.ID, error) {
	var out []inventory.ID
	for _, name := range names {
		i := slices.IndexFunc(snap.HostsOf(cluster), func(h inventory.HostView) bool { return is(name, h.Name, h.ID.String()) })
		if i < 0 || name == "" {
			return nil, &apiError{http.StatusNotFound, "not_found", fmt.Sprintf("the cluster has no host with the name or id %q", name), nil}
		}
		out = append(out, snap.HostsOf(cluster)[i].ID)
	}
	return out, nil
}

// newVM reads a VM that does not exist yet.
func newVM(snap *inventory.Snapshot, q url.Values) (placement.VMSpec, error) {
	vm := placement.VMSpec{Name: "the new VM"}
	var err error
	for _, f := range []struct {
		name   string
		into   *float64
		needed bool
	}{
		{"cpu_hertz", &vm.Use.CPUHertz, true},
		{"memory_bytes", &vm.Use.MemoryBytes, true},
		{"disk_bytes_per_second", &vm.Flow.DiskBytesPerSecond, false},
		{"network_bytes_per_second", &vm.Flow.NetworkBytesPerSecond, false},
	} {
		if !f.needed && !q.Has(f.name) {
			continue
		}
		if *f.into, err = strconv.ParseFloat(q.Get(f.name), 64); err != nil || !(*f.into >= 0) || math.IsInf(*f.into, 0) {
			return vm, badData("%s %q: write what the new VM is expected to use, as a number", f.name, q.Get(f.name))
		}
	}
	if vm.VCPUs, err = strconv.Atoi(q.Get("vcpus")); err != nil || vm.VCPUs < 1 {
		return vm, badData("vcpus %q: write how many the new VM has", q.Get("vcpus"))
	}
	if vm.HighlyAvailable, err = parseBool("ha", q.Get("ha")); err != nil {
		return vm, err
	}
	for _, tag := range q["tag"] {
		category, name, ok := strings.Cut(tag, "/")
		if !ok {
			return vm, badData("tag %q: write it as category/name", tag)
		}
		vm.Tags = append(vm.Tags, inventory.Tag{Category: category, Name: name})
	}
	if want := q.Get("cluster"); want != "" {
		var found []inventory.ID
		for c := range snap.Clusters() {
			if is(want, c.Name, c.ID.String(), c.ID.Source+"/"+c.Name) {
				found = append(found, c.ID)
			}
		}
		switch len(found) {
		case 0:
			return vm, &apiError{http.StatusNotFound, "not_found", fmt.Sprintf("no cluster has the name or id %q", want), nil}
		case 1:
			vm.Cluster = found[0]
		default:
			return vm, &apiError{http.StatusConflict, "ambiguous", fmt.Sprintf("%d clusters are called %q: say which as source/name", len(found), want), nil}
		}
	}
	return vm, nil
}

func parseBool(name, value string) (bool, error) {
	if value == "" {
		return false, nil
	}
	b, err := strconv.ParseBool(value)
	if err != nil {
		return false, badData("%s %q: write true or false", name, value)
	}
	return b, nil
}
