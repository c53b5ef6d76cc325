package libvirt

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/protip/protip/internal/inventory"
)

// everything is a reading in which nothing is missing.
func everything(scale uint64) *stats {
	s := &stats{delayed: 1, devices: []device{{key: deviceKey{disk: true}}, {}}}
	for n := range numberCount {
		s.set(n, scale)
	}
	for i := range s.devices {
		for c := range counterCount {
			s.devices[i].counters[c] = scale
			s.devices[i].has |= 1 << c
		}
	}
	return s
}

// TestMetricsAreDocumented holds the table of docs/libvirt.md against what is made of an answer in which nothing is missing, both ways.
func TestMetricsAreDocumented(t *testing.T) {
	made := map[string]bool{}
	add := func(values []inventory.Value) {
		for _, v := range values {
			made[v.Metric.String()] = true
		}
	}
	var m meter
	var h hostMeter
	for i := uint64(1); i < 3; i++ {
		values, l := m.sample(everything(i), run{}, time.Unix(int64(i), 0), true, 1e9)
		add(values)
		add(contention([]load{l}))
		add(h.sample(&inventory.Host{CPUHertz: 1e9}, map[string]uint64{"user": i, "idle": i}, map[string]uint64{"total": 9, "free": 1}))
	}
	doc, err := os.ReadFile("../../docs/libvirt.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(doc), "## Metrics")
	section, _, _ = strings.Cut(section, "\n## ")
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(virt_\\w+)` \\|").FindAllStringSubmatch(section, -1) {
		documented[row[1]] = true
	}
	if got, want := slices.Sorted(maps.Keys(documented)), slices.Sorted(maps.Keys(made)); !slices.Equal(got, want) {
		t.Errorf("docs/libvirt.md lists\n%q, made are\n%q", got, want)
	}
}
