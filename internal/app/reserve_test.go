package app_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/protip/protip/internal/placement"
	"github.com/protip/protip/internal/web"
)

// TestClusterReserve asks simulated clusters what they can bear to lose, and holds that the answers reach the API and the metrics.
// The VM anchor fits on no host but its own in the one, and anywhere in the other.
func TestClusterReserve(t *testing.T) {
	t.Parallel()
	small := calmFleet("small")
	small.Clusters[0].Hosts[0].VMs[1].MemoryBytes = 16 << 30
	r := newRig(t, 30, calmFleet("large"), small)
	r.config["placement"] = map[string]any{"reserve": 2, "clusters": []any{map[string]any{"source": "large", "cluster": "prod", "reserve": 1}}}
	r.write()
	a := r.start()
	reserve := func(source string, answer placement.Answer, ok float64) (got web.Reserve) {
		t.Helper()
		await(t, deadline, func() string {
			found, err := a.Reserves(t.Context(), url.Values{"source": {source}, "explain": {"true"}})
			if err != nil || len(found) != 1 {
				return fmt.Sprintf("%d reserves of %s, %v", len(found), source, err)
			}
			if got = found[0]; got.Answer != answer {
				return fmt.Sprintf("%s, want %s: %s", got.Answer, answer, got.Why)
			}
			if shown := a.scrape().value("protip_cluster_reserve_ok", "source", source, "virt_cluster", "prod"); shown != ok {
				return fmt.Sprintf("protip_cluster_reserve_ok of %s is %g, want %g", source, shown, ok)
			}
			return ""
		})
		return got
	}

	no := reserve("large", placement.Refused, 0)
	if no.Reserve != 1 || no.Asked != "configuration" || strings.Join(no.FailedNames, " ") != "esx01" || no.LeftOverName != "anchor" || no.Plans != nil {
		t.Errorf("refused: %+v: %s", no, no.Why)
	}
	yes := reserve("small", placement.Admitted, 1)
	if yes.Reserve != 2 || yes.Restarts != 4 || yes.Sets != 3 || len(yes.Plans) != yes.Shown || len(yes.Plans[0].Restarts) == 0 {
		t.Errorf("admitted: %+v: %s", yes, yes.Why)
	}
}
