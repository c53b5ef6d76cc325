package rules

import (
	"strings"
	"testing"

	"github.com/protip/protip/internal/inventory"
)

// TestRemedyWords: every remedy says what it would do, and what right-size says holds the sizes.
func TestRemedyWords(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, action := range remedies() {
		words := Remedy{Action: RemedyAction(action), Webhook: "on-call"}.Words()
		if words == "" || seen[words] {
			t.Errorf("%s: %q", action, words)
		}
		seen[words] = true
	}
	for want, r := range map[string]Remedy{
		"give this VM 1 vCPU; ":                      {VCPUs: 1},
		"give this VM 3 vCPUs and 8 GiB of memory; ": {VCPUs: 3, MemoryBytes: 8 << 30},
		"give this VM 512 MiB of memory; ":           {MemoryBytes: 512 << 20},
		"to what is not known now":                   {},
	} {
		r.Action = RightSize
		if got := r.Words(); !strings.Contains(got, want) {
			t.Errorf("%q, want %q in it", got, want)
		}
	}
}

// TestRightSizeIsWorkedOutForEachVM: the size is an expression over what the rule reads, rounded up, and absent where that is not known
// or makes no size.
func TestRightSizeIsWorkedOutForEachVM(t *testing.T) {
	t.Parallel()
	set := mustLoad(t, `pack: size
version: 1.0.0
description: sizes
rules:
  - name: Size
    on: vm
    when: vm.vcpus > 0
    severity: info
    summary: "{{vm.name}}"
    remedy: {action: right-size, vcpus: vm.cpu_usage_hertz / 2e9, memory: vm.vcpus * 1073741824}
`)
	for name, tc := range map[string]struct {
		usage  float64
		known  bool
		vcpus  int
		memory float64
	}{
		"rounded up":      {3.1e9, true, 2, 4 << 30},
		"no size at all":  {0, true, 0, 4 << 30},
		"not known":       {0, false, 0, 4 << 30},
		"not of any host": {1e18, true, 0, 4 << 30},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			d := inventory.Delta{Begin: true, Synced: true, Hosts: []inventory.Host{host("h", "")}, VMs: []inventory.VM{guest("v", "h")}}
			if tc.known {
				d.Samples = []inventory.SampleSet{sample(id(inventory.KindVM, "v"), noon, map[inventory.Metric]float64{inventory.VMCPUUsage: tc.usage})}
			}
			w.apply(d, noon)
			found, _ := set.Eval(Input{Snapshot: w.Snapshot(), Now: noon})
			if len(found) != 1 || found[0].Err != nil {
				t.Fatalf("%+v", found)
			}
			if r := found[0].Remedy; r.VCPUs != tc.vcpus || r.MemoryBytes != tc.memory {
				t.Errorf("%+v, want %d vCPUs and %.0f bytes", r, tc.vcpus, tc.memory)
			}
		})
	}
}
