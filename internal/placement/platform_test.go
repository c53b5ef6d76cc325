package placement

import (
	"strings"
	"testing"

	"github.com/protip/protip/internal/inventory"
)

func TestSecondOpinion(t *testing.T) {
	reserves := func(v *inventory.VM) { v.CPUReservationHertz, v.MemoryReservationBytes = 10*ghz, 50*gib }
	fleet := func(change func(*inventory.Cluster)) *inventory.Snapshot { // two hosts of 40 GHz and 100 GiB
		f := newFleet().host("esx-1", 30, 90).host("esx-2", 30, 90).vm("a", "esx-1", 30, 90, reserves).vm("b", "esx-2", 30, 90)
		f.delta.Clusters[0].HA = inventory.HA{Enabled: true, AdmissionControl: true}
		change(&f.delta.Clusters[0])
		return f.snapshot()
	}
	yes, no := true, false
	tests := []struct {
		name    string
		change  func(*inventory.Cluster)
		holds   *bool
		text    string
		differs string
	}{
		{"slots", func(c *inventory.Cluster) { c.HA.Policy, c.HA.HostFailures = "host_failures", 1 }, &yes, "2 slots of 10.0 GHz and 50 GiB are left when 1 host fails, for 2 VMs", "counts what VMs have reserved, and not what they need; it does not ask on which host"},
		{"slots set by hand", func(c *inventory.Cluster) {
			c.HA.Policy, c.HA.HostFailures, c.Admission.SlotMemoryBytes = "host_failures", 1, 60*gib
		}, &no, "1 slots of 10.0 GHz and 60 GiB", ""},
		{"share", func(c *inventory.Cluster) {
			c.HA.Policy, c.Admission = "percentage", inventory.Admission{ReservedCPU: 0.5, ReservedMemory: 0.5}
		}, &yes, "87 % of CPU and 75 % of memory are not reserved by VMs, and 50 % and 50 % are kept free", "does not ask on which host"},
		{"share too large", func(c *inventory.Cluster) {
			c.HA.Policy, c.Admission = "percentage", inventory.Admission{ReservedCPU: 0.5, ReservedMemory: 0.8}
		}, &no, "80 %", ""},
		{"dedicated", func(c *inventory.Cluster) {
			c.HA.Policy, c.Admission = "dedicated_hosts", inventory.Admission{Hosts: []inventory.ID{hostID("esx-2")}}
		}, &no, "VMs run on esx-2, which is kept for failures", ""},
		{"no control", func(c *inventory.Cluster) { c.HA.AdmissionControl = false }, nil, "its admission control is off", ""},
		{"no HA", func(c *inventory.Cluster) { c.HA.Enabled = false }, nil, "high availability is off", ""},
		{"unread", func(c *inventory.Cluster) { c.Unread = true }, nil, "not known", ""},
		{"another rule", func(c *inventory.Cluster) { c.HA.Policy = "dice" }, nil, "rule is not known", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := fleet(tt.change)
			got := SecondOpinion(s, clusterID)
			if (got.Holds == nil) != (tt.holds == nil) || got.Holds != nil && *got.Holds != *tt.holds || !strings.Contains(got.Text, tt.text) {
				t.Errorf("%+v, holds %v, want %v: %s", got, got.Holds != nil && *got.Holds, tt.holds, tt.text)
			}
			a := Ask(s, Observed(s), clusterID, 1, Policy{}).Answer(nil) // refused: 90 GiB do not fit beside 90 GiB
			if why := got.Differs(a); !strings.Contains(why, tt.differs) || (why == "") != (tt.differs == "") {
				t.Errorf("differs: %q, want %q (%s)", why, tt.differs, a.Why)
			}
		})
	}
}
